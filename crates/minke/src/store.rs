//! `MINKE_HOME`: where models, runs and votes are kept, and what a name on the command line stands for.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

/// The directory that holds `models/`, `runs/` and `votes.jsonl`.
pub struct Store {
    home: PathBuf,
}

/// Something in the store.
pub struct Entry {
    /// What it is called on the command line.
    pub name: String,
    /// The model itself: a GGUF file or a Hugging Face directory.
    pub path: PathBuf,
}

impl Entry {
    /// The lab's run that has made it: runs on the lab keep what they make in `runs/rN/files`.
    pub fn run(&self) -> Option<u32> {
        let run = self.path.ends_with("files/model").then(|| self.path.ancestors().nth(2)).flatten()?;
        run.file_name()?.to_str()?.strip_prefix('r')?.parse().ok()
    }
}

impl Store {
    /// The store of `MINKE_HOME`, or of the platform's data directory. Nothing is made yet.
    pub fn open() -> Result<Store> {
        let home = match std::env::var_os("MINKE_HOME") {
            Some(home) if !home.is_empty() => PathBuf::from(home),
            _ => {
                use etcetera::BaseStrategy;
                let platform = etcetera::base_strategy::choose_native_strategy();
                let platform = platform.context("no home directory was found; set MINKE_HOME to a directory")?;
                platform.data_dir().join("minke")
            }
        };
        Ok(Store { home })
    }

    /// A store of a test's own.
    #[cfg(test)]
    pub fn at(home: &Path) -> Store {
        Store { home: home.to_path_buf() }
    }

    /// The database that the server keeps, and whoever else works for the lab.
    pub fn database(&self) -> PathBuf {
        self.home.join("lab.db")
    }

    /// Where a server at work says how it is reached.
    pub fn door(&self) -> PathBuf {
        self.home.join("server.json")
    }

    /// What a server that was started in the background says.
    pub fn server_log(&self) -> PathBuf {
        self.home.join("serve.log")
    }

    /// `MINKE_HOME`.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Where models are.
    pub fn models_directory(&self) -> PathBuf {
        self.home.join("models")
    }

    /// Where models' packed weights are kept, so that they start faster.
    pub fn packed_directory(&self) -> PathBuf {
        self.home.join("packed")
    }

    /// The files of packed weights, complete or not, with their sizes.
    pub fn packed(&self) -> Result<Vec<(PathBuf, u64)>> {
        let directory = self.packed_directory();
        let failed = |e| anyhow!("{} can't be read ({e}); set MINKE_HOME to another directory", directory.display());
        let listed = match fs::read_dir(&directory) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            listed => listed.map_err(failed)?,
        };
        let ours = |path: &Path| path.extension().is_some_and(|e| e == "packed" || e == "partial");
        let files = listed.flatten().filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)));
        Ok(files
            .filter(|(path, about)| about.is_file() && ours(path))
            .map(|(path, about)| (path, about.len()))
            .collect())
    }

    /// Where runs are.
    pub fn runs_directory(&self) -> PathBuf {
        self.home.join("runs")
    }

    /// Where the arena's votes are.
    pub fn votes_file(&self) -> PathBuf {
        self.home.join("votes.jsonl")
    }

    /// The models in the store, by name.
    pub fn models(&self) -> Result<Vec<Entry>> {
        let mut entries = entries(&self.models_directory(), |path| {
            let gguf = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) && path.is_file();
            (gguf || is_model_directory(path)).then(|| path.to_path_buf())
        })?;
        for entry in &mut entries {
            if entry.path.is_file() {
                entry.name.truncate(entry.name.len() - ".gguf".len());
            }
        }
        Ok(entries)
    }

    /// The models that runs in the store have made, by the runs' names.
    pub fn run_models(&self) -> Result<Vec<Entry>> {
        entries(&self.runs_directory(), model_of_run)
    }

    /// All models that can be asked for: those in the store, and those of runs.
    pub fn all(&self) -> Result<Vec<Entry>> {
        let mut entries = self.models()?;
        for run in self.run_models()? {
            // A model hides the run of its name.
            if !entries.iter().any(|entry| entry.name == run.name) {
                entries.push(run);
            }
        }
        Ok(entries)
    }

    /// The model or run in the store of exactly this name; never a path, which a stranger could make up.
    pub fn named(&self, name: &str) -> Result<Option<Entry>> {
        Ok(self.all()?.into_iter().find(|entry| entry.name == name))
    }

    /// A directory for a new run called `name`, or `name-2` and so on where there are such runs.
    pub fn new_run(&self, name: &str) -> PathBuf {
        let runs = self.runs_directory();
        let mut names = std::iter::once(name.to_string()).chain((2..).map(|n: u64| format!("{name}-{n}")));
        names.find_map(|name| Some(runs.join(name)).filter(|run| !run.exists())).unwrap_or(runs)
    }

    /// What RUN on the command line stands for: a run's directory, or its name in the store.
    pub fn find_run(&self, run: &str) -> Option<PathBuf> {
        let is_run = |path: &PathBuf| path.join("recipe.toml").is_file();
        let in_store = self.runs_directory().join(run);
        [PathBuf::from(run), in_store.join("files"), in_store].into_iter().find(is_run)
    }

    /// What MODEL on the command line stands for: a path to a GGUF file, a Hugging Face directory or a run; else a name
    /// in the store, or the beginning of exactly one.
    pub fn find(&self, model: &str) -> Result<PathBuf> {
        let path = Path::new(model);
        if path.exists() {
            return Ok(model_of_run(path).unwrap_or_else(|| path.to_path_buf()));
        }
        let entries = self.all()?;
        if let Some(entry) = entries.iter().find(|entry| entry.name == model) {
            return Ok(entry.path.clone());
        }
        let alike: Vec<&Entry> =
            entries.iter().filter(|entry| !model.is_empty() && entry.name.starts_with(model)).collect();
        match alike.as_slice() {
            [entry] => Ok(entry.path.clone()),
            [] => bail!(
                "there is no model {model:?}, neither at that path nor in the store; `minke models` lists the store, \
                 and `minke pull` adds to it"
            ),
            several => {
                let names: Vec<&str> = several.iter().map(|entry| entry.name.as_str()).collect();
                bail!("{model:?} could be any of {}; give more of the name", names.join(", "))
            }
        }
    }
}

/// What `model` makes of each path in `directory` that does not begin with a dot, sorted by name; nothing where there
/// is no such directory.
fn entries(directory: &Path, model: impl Fn(&Path) -> Option<PathBuf>) -> Result<Vec<Entry>> {
    let failed = |e| anyhow!("{} can't be read ({e}); set MINKE_HOME to another directory", directory.display());
    let listed = match fs::read_dir(directory) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.map_err(failed)?,
    };
    let mut entries = Vec::new();
    for entry in listed {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.starts_with('.')
            && let Some(path) = model(&path)
        {
            entries.push(Entry { name, path });
        }
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn is_model_directory(path: &Path) -> bool {
    path.join("config.json").is_file()
}

/// The model that a run's directory holds; a run on the lab has its files in `files/`, and may have put anything there.
fn model_of_run(path: &Path) -> Option<PathBuf> {
    let (own, on_lab) = (path.join("model"), path.join("files/model"));
    if is_model_directory(path) {
        return None;
    }
    Some(own).filter(|model| is_model_directory(model)).or_else(|| Some(on_lab).filter(|model| is_plain_model(model)))
}

/// Whether a directory is one, and holds a model in regular files and nothing else: a link could lead anywhere, and a
/// pipe be waited for.
fn is_plain_model(path: &Path) -> bool {
    let is_file = |entry: fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_file());
    fs::symlink_metadata(path).is_ok_and(|about| about.is_dir())
        && fs::read_dir(path).is_ok_and(|mut entries| entries.all(|entry| entry.is_ok_and(is_file)))
        && is_model_directory(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_of_runs_on_the_lab_are_known_by_where_they_are() {
        let run = |path: &str| Entry { name: "r7".into(), path: path.into() }.run();
        let paths = ["home/runs/r7/files/model", "home/runs/r7/model", "home/models/r7", "home/runs/sums/files/model"];
        assert_eq!(paths.map(run), [Some(7), None, None, None]);
    }
}
