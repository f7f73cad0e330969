//! `minke quantize`: a model in fewer bits, or in more, as a GGUF file.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use minke_model::Checkpoint;
use minke_model::gguf::Gguf;
use minke_model::quantize::{FileType, Importance, Model};
use serde::Serialize;

use super::pull::sync;
use crate::output::{Show, print};
use crate::store::Store;
use crate::terminal::{Bar, say};
use crate::{load, units};

#[derive(Args)]
#[command(after_help = "Examples:
  minke quantize ./SmolLM2-135M-Instruct q4_k_m -o smollm2.Q4_K_M.gguf
  minke quantize model.F16.gguf q3_k_s -o model.Q3_K_S.gguf --imatrix imatrix.gguf

Types are F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL, Q2_K, Q3_K_S, Q3_K_M, Q3_K_L, Q4_K_S, Q4_K_M, Q5_K_S,
Q5_K_M and Q6_K; Q3_K, Q4_K and Q5_K are their _M. As in llama.cpp, some tensors get more bits than the name says.")]
pub struct Quantize {
    /// A model: a path (.gguf file, Hugging Face directory or run), or a name in the store
    model: String,
    /// The type of most of the file's tensors
    #[arg(value_name = "TYPE", value_parser = file_type)]
    file_type: FileType,
    /// The GGUF file to write
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// What each column matters, as llama.cpp's llama-imatrix writes it
    #[arg(long, value_name = "FILE")]
    imatrix: Option<PathBuf>,
    /// Print {"path": …, "type": …, "parameters": …, "bytes": …, "bits_per_weight": …, "seconds": …}
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Quantized {
    path: PathBuf,
    #[serde(rename = "type")]
    file_type: &'static str,
    parameters: usize,
    bytes: u64,
    bits_per_weight: f64,
    seconds: f64,
}

impl Show for Quantized {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { path, file_type, parameters, bytes, bits_per_weight, seconds } = self;
        writeln!(
            out,
            "{}: {file_type}, {} parameters in {}, {bits_per_weight:.2} bits each; took {}",
            path.display(),
            units::count(*parameters as f64),
            units::bytes(*bytes),
            units::duration(*seconds)
        )
    }
}

fn file_type(text: &str) -> Result<FileType, String> {
    FileType::from_name(text).ok_or_else(|| format!("the types are {}", FileType::names()))
}

pub fn run(arguments: &Quantize) -> Result<()> {
    let source = Store::open()?.find(&arguments.model)?;
    let importance =
        arguments.imatrix.as_deref().map(|path| Importance::open(path).with_context(|| path.display().to_string()));
    let importance = importance.transpose()?;
    let cpu = load::cpu()?;
    let at_source = || source.display().to_string();
    let (checkpoint, file);
    let model = if source.is_dir() {
        checkpoint = Checkpoint::open(&source).with_context(at_source)?;
        Model::from_checkpoint(&checkpoint).with_context(at_source)?
    } else {
        file = Gguf::open(&source).with_context(at_source)?;
        Model::from_gguf(&file).with_context(at_source)?
    };
    if let Some(dtype) = model.dtype().filter(|dtype| dtype.block().0 > 1)
        && arguments.file_type.main.block().0 > 1
    {
        say(&format!("the model has been rounded to {} already; what that lost stays lost", dtype.name()));
    }
    let begin = Instant::now();
    let parameters = model.elements();
    let out = &arguments.out;
    let bytes = replace(out, |file| {
        let mut bar = Bar::new(format!("quantizing to {}", arguments.file_type.name()));
        let progress = |done: usize| {
            let seconds = begin.elapsed().as_secs_f64().max(1e-3);
            bar.update(done as f64 / parameters.max(1) as f64, || {
                let rate = done as f64 / seconds;
                let left = (parameters - done) as f64 / rate.max(1.0);
                format!("{} weights/s, {} left", units::count(rate), units::duration(left))
            });
        };
        Ok(model.write(cpu.pool(), arguments.file_type, importance.as_ref(), file, progress)?)
    })?;
    let result = Quantized {
        path: out.clone(),
        file_type: arguments.file_type.name(),
        parameters,
        bytes,
        bits_per_weight: 8.0 * bytes as f64 / parameters.max(1) as f64,
        seconds: begin.elapsed().as_secs_f64(),
    };
    print(&result, arguments.json)
}

/// Writes a file that was not there under another name, syncs it and renames it; its size in bytes.
fn replace(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<u64> {
    let name = path.file_name().with_context(|| format!("{} can't be a file; give another --out", path.display()))?;
    if path.exists() {
        bail!("{} is there already; give another --out, or delete it", path.display());
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let partial = directory.join(format!(".{}.partial", name.to_string_lossy()));
    let unwritable = || format!("{} can't be written", path.display());
    let written = (|| {
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&partial).with_context(unwritable)?);
        write(&mut out)?;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error).with_context(unwritable)?;
        file.sync_all().with_context(unwritable)?;
        fs::rename(&partial, path).with_context(unwritable)?;
        sync(directory)?;
        Ok(file.metadata().with_context(unwritable)?.len())
    })();
    if written.is_err() {
        // What can't be removed is overwritten next time.
        let _ = fs::remove_file(&partial);
    }
    written
}
