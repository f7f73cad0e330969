//! `minke pull`: a model into the store, from a path, an HTTPS address or the Hugging Face Hub.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use minke_model::Checkpoint;
use sha2::{Digest, Sha256};

use super::models::Described;
use crate::hub::{Hub, Reference};
use crate::output::print;
use crate::store::Store;
use crate::terminal::Bar;
use crate::units::hexadecimal;
use crate::{fetch, units};

/// What a Hugging Face directory is read from; other files (other formats' weights above all) are left behind.
const KEPT: [&str; 3] = ["json", "safetensors", "jinja"];

#[derive(Args)]
#[command(after_help = "Examples:
  minke pull hf:HuggingFaceTB/SmolLM2-135M-Instruct
  minke pull hf:bartowski/SmolLM2-135M-Instruct-GGUF:SmolLM2-135M-Instruct-Q4_0.gguf --name smollm2
  minke pull https://example.org/SmolLM2-135M-Instruct.Q4_1.gguf --name smollm2
  minke pull ./my-model/ --name mine

A download that broke off goes on where it stopped when the same command is run again. HF_ENDPOINT names a mirror of the
Hugging Face Hub, and HF_TOKEN a token for what is not for everybody.")]
pub struct Pull {
    /// A .gguf file or Hugging Face directory, the https:// address of a .gguf file, hf:ORG/REPO or hf:ORG/REPO:FILE
    reference: String,
    /// What to call it in the store; by default as the file or directory is called
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// What the file's SHA-256 must be
    #[arg(long, value_name = "HEX", value_parser = sha256_argument)]
    sha256: Option<String>,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// Where a model comes from.
enum Source<'a> {
    Url(&'a str),
    Hub(Reference<'a>),
    File(&'a Path),
    Directory(&'a Path),
}

impl Source<'_> {
    /// Whether it becomes a directory in the store.
    fn is_directory(&self) -> bool {
        match self {
            Source::Hub(reference) => reference.file.is_none(),
            Source::Directory(_) => true,
            Source::Url(_) | Source::File(_) => false,
        }
    }
}

pub fn run(arguments: &Pull) -> Result<()> {
    let source = source(arguments)?;
    let name = match &arguments.name {
        Some(name) => name.clone(),
        None => default_name(&source)?,
    };
    check_name(&name)?;
    let models = Store::open()?.models_directory();
    fs::create_dir_all(&models)
        .with_context(|| format!("{} can't be made; set MINKE_HOME to another directory", models.display()))?;
    let file_name = if source.is_directory() { name.clone() } else { format!("{name}.gguf") };
    let (place, partial) = (models.join(&file_name), models.join(format!(".{file_name}.partial")));
    if place.exists() {
        let same = match &arguments.sha256 {
            Some(expected) if place.is_file() => digest(&place)? == *expected,
            _ => false,
        };
        if !same {
            bail!("there is a model {name} in the store already; choose another --name, or delete {}", place.display());
        }
    } else {
        bring(&source, &partial)?;
        check(&partial, arguments.sha256.as_deref())?;
        fs::rename(&partial, &place).with_context(|| format!("{} can't be renamed", partial.display()))?;
        fetch::forget_origin(&partial);
        sync(&models)?;
    }
    print(&Described::open(&name, &place), arguments.json)
}

fn source(arguments: &Pull) -> Result<Source<'_>> {
    let reference = arguments.reference.as_str();
    let path = Path::new(reference);
    match reference.split_once(':') {
        Some(("https", _)) => Ok(Source::Url(reference)),
        Some(("http", _)) if arguments.sha256.is_some() => Ok(Source::Url(reference)),
        Some(("http", _)) => bail!(
            "over http:// anybody on the way could change the model; use https://, or say what it must be with --sha256"
        ),
        Some(("hf", rest)) => {
            let reference = Reference::new(rest)?;
            if reference.file.is_none() && arguments.sha256.is_some() {
                bail!("--sha256 is for a file, and hf:{rest} is a directory; leave it out");
            }
            Ok(Source::Hub(reference))
        }
        Some((scheme, rest)) if rest.starts_with("//") => {
            bail!("{scheme}:// addresses are not read; give an https:// address, hf:ORG/REPO or a path")
        }
        _ if path.is_dir() && arguments.sha256.is_some() => {
            bail!("--sha256 is for a file, and {reference} is a directory; leave it out")
        }
        _ if path.is_dir() => Ok(Source::Directory(path)),
        _ if path.exists() => Ok(Source::File(path)),
        _ => bail!("there is no file or directory {reference:?}; give a path or an https:// address"),
    }
}

fn default_name(source: &Source<'_>) -> Result<String> {
    let file = match source {
        Source::Url(url) => url.split(['?', '#']).next().and_then(|url| url.rsplit('/').next()).map(str::to_string),
        Source::Hub(reference) => Some(reference.name().to_string()),
        Source::File(path) | Source::Directory(path) => {
            let path = path.canonicalize().with_context(|| format!("{} can't be read", path.display()))?;
            path.file_name().map(|name| name.to_string_lossy().into_owned())
        }
    };
    let name = file.unwrap_or_default();
    let stem = if source.is_directory() { Some(name.as_str()) } else { name.strip_suffix(".gguf") };
    stem.map(str::to_string).context("only files that end with .gguf say what they are; give the model a --name")
}

/// That a name can be a file's on every system, and be typed.
fn check_name(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(plain) || name.len() > 100 {
        bail!(
            "{name:?} can't be a model's name; choose a --name of up to 100 letters, digits, dots, dashes and \
             underscores that begins with a letter or digit"
        );
    }
    Ok(())
}

fn sha256_argument(text: &str) -> Result<String, String> {
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("a SHA-256 has 64 hexadecimal digits".into())
    }
}

/// Makes the partial file or directory.
fn bring(source: &Source<'_>, partial: &Path) -> Result<()> {
    match source {
        Source::Url(url) => fetch::download(url, None, partial, watch()),
        Source::Hub(reference) => bring_from_hub(reference, partial),
        Source::File(path) => copy(path, partial, &mut Bar::new("copying")),
        Source::Directory(directory) => {
            if partial.exists() {
                fs::remove_dir_all(partial).with_context(|| format!("{} can't be removed", partial.display()))?;
            }
            fs::create_dir(partial).with_context(|| format!("{} can't be made", partial.display()))?;
            let failed = || format!("{} can't be read", directory.display());
            let mut bar = Bar::new("copying");
            for entry in fs::read_dir(directory).with_context(failed)? {
                let path = entry.with_context(failed)?.path();
                let kept = path.extension().is_some_and(|e| KEPT.iter().any(|kept| e == *kept));
                if let (true, true, Some(name)) = (kept, path.is_file(), path.file_name()) {
                    copy(&path, &partial.join(name), &mut bar)?;
                }
            }
            sync(partial)
        }
    }
}

/// A repository's files into a partial directory, or its one file into a partial file.
fn bring_from_hub(reference: &Reference<'_>, partial: &Path) -> Result<()> {
    let hub = Hub::from_environment()?;
    let files = hub.files(reference)?;
    if reference.file.is_none() {
        fs::create_dir_all(partial).with_context(|| format!("{} can't be made", partial.display()))?;
    }
    let (total, mut before) = (files.iter().map(|file| file.size).sum(), 0);
    let mut progress = watch();
    for file in &files {
        let place = if reference.file.is_none() { partial.join(&file.path) } else { partial.to_path_buf() };
        // What an earlier attempt has finished and found right has no origin any more.
        let is_whole = fs::metadata(&place).is_ok_and(|about| about.len() == file.size);
        if reference.file.is_some() || !is_whole || fetch::is_partial(&place) {
            let url = hub.url(reference.repository, file);
            fetch::download(&url, hub.token(), &place, |bytes, _| progress(before + bytes, Some(total)))?;
            let found = digest(&place)?;
            if let Some(expected) = file.sha256.as_ref().filter(|expected| **expected != found) {
                fetch::forget(&place);
                bail!("{} has the SHA-256 {found}, and the hub says {expected}; run the same command again", file.path);
            }
            if reference.file.is_none() {
                fetch::forget_origin(&place);
            }
        }
        before += file.size;
    }
    if reference.file.is_none() { sync(partial) } else { Ok(()) }
}

/// Draws how far a download has come: bytes so far and in all.
fn watch() -> impl FnMut(u64, Option<u64>) {
    let (mut bar, begin, mut before) = (Bar::new("downloading"), Instant::now(), None);
    move |bytes, total| {
        let fresh = bytes - *before.get_or_insert(bytes);
        let speed = fresh as f64 / begin.elapsed().as_secs_f64().max(1e-3);
        let fraction = total.map_or(0.0, |total| bytes as f64 / total.max(1) as f64);
        bar.update(fraction, || {
            let rate = format!("{}/s", units::bytes(speed as u64));
            match total {
                None => format!("{}, {rate}", units::bytes(bytes)),
                Some(total) => {
                    let left = total.saturating_sub(bytes) as f64 / speed.max(1.0);
                    let (bytes, total) = (units::bytes(bytes), units::bytes(total));
                    format!("{bytes} of {total}, {rate}, {} left", units::duration(left))
                }
            }
        });
    }
}

/// Copies a file, and makes the copy last.
fn copy(from: &Path, to: &Path, bar: &mut Bar) -> Result<()> {
    let unreadable = || format!("{} can't be read", from.display());
    let unwritable = || format!("{} can't be written", to.display());
    let mut source = File::open(from).with_context(unreadable)?;
    let total = source.metadata().with_context(unreadable)?.len();
    let mut copy = File::create(to).with_context(unwritable)?;
    let (mut bytes, mut buffer) = (0, vec![0; 1 << 20]);
    loop {
        let n = source.read(&mut buffer).with_context(unreadable)?;
        if n == 0 {
            return copy.sync_all().with_context(unwritable);
        }
        copy.write_all(&buffer[..n]).with_context(unwritable)?;
        bytes += n as u64;
        bar.update(bytes as f64 / total.max(1) as f64, || {
            format!("{} of {}", units::bytes(bytes), units::bytes(total))
        });
    }
}

/// That what came is what was expected, and a model. Otherwise it is thrown away: going on with it would be of no use.
fn check(partial: &Path, sha256: Option<&str>) -> Result<()> {
    let verdict = (|| {
        if let Some(expected) = sha256 {
            let found = digest(partial)?;
            if found != expected {
                bail!("its SHA-256 is {found}, not {expected}: this is another file");
            }
        }
        let checkpoint = Checkpoint::open(partial)?;
        checkpoint.tokenizer()?;
        Ok(())
    })();
    if verdict.is_err() {
        if partial.is_dir() {
            let _ = fs::remove_dir_all(partial);
        }
        fetch::forget(partial);
    }
    verdict.context("this can't be used, so the store stays as it was")
}

/// The SHA-256 of a file.
pub fn digest(path: &Path) -> Result<String> {
    let unreadable = || format!("{} can't be read", path.display());
    let mut file = File::open(path).with_context(unreadable)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).with_context(unreadable)? {
            0 => return Ok(hexadecimal(&hash.finalize())),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// The SHA-256 of bytes.
pub fn digest_of(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// Makes the names in a directory last.
pub fn sync(directory: &Path) -> Result<()> {
    let sync = || -> io::Result<()> { File::open(directory)?.sync_all() };
    sync().with_context(|| format!("{} can't be synced", PathBuf::from(directory).display()))
}
