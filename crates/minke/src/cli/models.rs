//! `minke models`: what is in the store, or what one model is.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use minke_model::Checkpoint;
use serde::Serialize;

use crate::output::{Show, print};
use crate::store::Store;
use crate::units;

#[derive(Args)]
#[command(after_help = "Examples:
  minke models                       everything in the store
  minke models ./SmolLM2.Q4_1.gguf   one model
  minke models --clear-cache         remove what was kept to start models faster")]
pub struct Models {
    /// A model to describe, instead of all in the store
    model: Option<String>,
    /// Remove the packed weights that are kept in MINKE_HOME/packed; the next start of each model makes them again
    #[arg(long, conflicts_with = "model")]
    clear_cache: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// One model, or why it can't be used.
#[derive(Serialize)]
pub struct Described {
    name: String,
    path: PathBuf,
    #[serde(flatten)]
    what: What,
}

#[derive(Serialize)]
#[serde(untagged)]
enum What {
    Model {
        family: &'static str,
        parameters: u64,
        dtype: &'static str,
        bytes: u64,
        context: usize,
        chat_template: bool,
    },
    Broken {
        error: String,
    },
}

impl Described {
    /// Opens the model at `path`.
    pub fn open(name: &str, path: &Path) -> Described {
        let what = describe(path).unwrap_or_else(|error| What::Broken { error: error.to_string() });
        Described { name: name.to_string(), path: path.to_path_buf(), what }
    }
}

fn describe(path: &Path) -> minke_model::Result<What> {
    let checkpoint = Checkpoint::open(path)?;
    let about = checkpoint.describe()?;
    Ok(What::Model {
        family: about.family,
        parameters: about.parameters,
        dtype: about.dtype.name(),
        bytes: about.bytes,
        context: checkpoint.config().max_positions,
        chat_template: checkpoint.chat_template()?.is_some(),
    })
}

pub fn run(arguments: &Models) -> Result<()> {
    let store = Store::open()?;
    if arguments.clear_cache {
        return print(&clear(&store)?, arguments.json);
    }
    match &arguments.model {
        Some(model) => {
            let path = store.find(model)?;
            // What was asked for must be readable; what is only listed may be broken.
            crate::load::open(model)?;
            print(&Described::open(model, &path), arguments.json)
        }
        None => {
            let mut entries = store.models()?;
            entries.extend(store.run_models()?);
            let models = entries.iter().map(|entry| Described::open(&entry.name, &entry.path)).collect();
            let packed_bytes = store.packed()?.iter().map(|(_, bytes)| bytes).sum();
            let (directory, packed_directory) = (store.models_directory(), store.packed_directory());
            print(&List { directory, models, packed_directory, packed_bytes }, arguments.json)
        }
    }
}

#[derive(Serialize)]
struct List {
    /// Where pulled models are.
    directory: PathBuf,
    models: Vec<Described>,
    /// Where packed weights are kept.
    packed_directory: PathBuf,
    /// What they take.
    packed_bytes: u64,
}

/// What was removed.
#[derive(Serialize)]
struct Cleared {
    files: usize,
    bytes: u64,
}

fn clear(store: &Store) -> Result<Cleared> {
    let files = store.packed()?;
    for (path, _) in &files {
        std::fs::remove_file(path).with_context(|| format!("{} can't be removed", path.display()))?;
    }
    Ok(Cleared { files: files.len(), bytes: files.iter().map(|(_, bytes)| bytes).sum() })
}

impl Show for Cleared {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        match self.files {
            0 => writeln!(out, "There were no packed weights to remove."),
            files => writeln!(out, "{files} files of packed weights removed, {}.", units::bytes(self.bytes)),
        }
    }
}

impl Show for List {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.models.is_empty() {
            return writeln!(
                out,
                "There are no models in {} yet; `minke pull` adds one, `minke train` makes one.",
                self.directory.display()
            );
        }
        let widest = self.models.iter().map(|model| model.name.chars().count()).max().unwrap_or(0);
        for Described { name, what, .. } in &self.models {
            match what {
                What::Model { family, parameters, dtype, bytes, .. } => writeln!(
                    out,
                    "{name:widest$}  {family:11}  {:>6}  {dtype:4}  {:>8}",
                    units::count(*parameters as f64),
                    units::bytes(*bytes)
                )?,
                What::Broken { error } => writeln!(out, "{name:widest$}  can't be used: {error}")?,
            }
        }
        if self.packed_bytes > 0 {
            let (bytes, place) = (units::bytes(self.packed_bytes), self.packed_directory.display());
            writeln!(out, "\n{bytes} of packed weights in {place} start models faster; --clear-cache removes them.")?;
        }
        Ok(())
    }
}

impl Show for Described {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let Described { name, path, what } = self;
        writeln!(out, "{name}")?;
        match what {
            What::Model { family, parameters, dtype, bytes, context, chat_template } => {
                writeln!(out, "  family         {family}")?;
                writeln!(out, "  parameters     {}", units::count(*parameters as f64))?;
                writeln!(out, "  stored as      {dtype}, {}", units::bytes(*bytes))?;
                writeln!(out, "  context        {context} tokens")?;
                writeln!(out, "  chat template  {}", if *chat_template { "yes" } else { "no" })?;
                writeln!(out, "  path           {}", path.display())
            }
            What::Broken { error } => writeln!(out, "  can't be used: {error}"),
        }
    }
}
