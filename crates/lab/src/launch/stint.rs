//! The files of a stint.
//!
//! A run's directory has `code/` (what it was given, and where its command starts), `files/` (its own, for good), `tmp/`
//! and `segments/`. The run may write the first three; of `segments/K/` it may write `said/`, and read the rest.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::order::{Order, VERSION};
use super::system::Process;

/// Names of a stint's files: an order for it, and who stands over it since when.
pub const ORDER: &str = "order.json";
pub const PID: &str = "pid";
/// Its command was started.
pub const STARTED: &str = "started";
/// Orders that came later.
pub const SUSPEND: &str = "suspend";
pub const KILL: &str = "kill";
/// How it ended; written once nothing of it is left.
pub const END: &str = "end.json";
/// What keeps it in its place and what does not.
pub const SANDBOX: &str = "sandbox.json";
/// What it printed, and what went wrong with its supervisor.
pub const LOG: &str = "out.log";
pub const SUPERVISOR_LOG: &str = "supervisor.log";
/// What the run says itself.
pub const SAID: &str = "said";
pub const ACKNOWLEDGED: &str = "said/acknowledged";
pub const PROGRESS: &str = "said/progress.json";

/// Where a stint's files are.
#[derive(Clone, Debug)]
pub struct Stint(PathBuf);

/// Who stands over a stint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guards {
    /// The start of the machine that the processes belong to.
    pub boot: String,
    /// The one that watches.
    pub supervisor: Process,
    /// The one above the command, which is there until nothing of the stint is left.
    pub keeper: Process,
}

impl Guards {
    /// Whether nothing of the stint is left, its supervisor being gone.
    pub fn are_gone(&self) -> bool {
        super::system::boot().is_ok_and(|boot| boot != self.boot) || self.keeper.is_gone()
    }
}

/// What holds a run in its place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// What is in force.
    pub in_force: Vec<String>,
    /// What this machine does not have or permit.
    pub missing: Vec<String>,
}

impl Held {
    /// Adds what came of asking for something.
    pub fn note(&mut self, what: &str, came: io::Result<()>) {
        match came {
            Ok(()) => self.in_force.push(what.to_string()),
            Err(error) => self.missing.push(format!("{what}: {error}")),
        }
    }

    /// Both together.
    pub fn extend(&mut self, other: Held) {
        self.in_force.extend(other.in_force);
        self.missing.extend(other.missing);
    }
}

impl Stint {
    /// The stint of this directory, `RUN/segments/K`.
    pub fn new(directory: PathBuf) -> Stint {
        Stint(directory)
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.0
    }

    /// Its run's directory.
    pub fn run(&self) -> &Path {
        self.0.parent().and_then(Path::parent).unwrap_or(&self.0)
    }

    /// Where the run may write.
    pub fn writable(&self) -> [PathBuf; 4] {
        [self.run().join("code"), self.files(), self.tmp(), self.path(SAID)]
    }

    /// What the run keeps.
    pub fn files(&self) -> PathBuf {
        self.run().join("files")
    }

    /// What it need not keep.
    pub fn tmp(&self) -> PathBuf {
        self.run().join("tmp")
    }

    /// One of its files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Whether one of its files is there.
    pub fn has(&self, name: &str) -> bool {
        self.path(name).symlink_metadata().is_ok()
    }

    /// The run's lock: held from the moment that a stint is ordered until its supervisor has ended. Whoever holds it may
    /// start a stint of the run, or say that one has ended.
    pub fn lock(&self) -> io::Result<File> {
        let path = self.run().join("segments/lock");
        File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(about(&path))
    }

    /// The order for it.
    pub fn order(&self) -> io::Result<Order> {
        let order: Order = self.read(ORDER)?;
        if order.version != VERSION {
            let path = self.path(ORDER);
            let (there, here) = (order.version, VERSION);
            let sentence = format!("{} is of version {there}, and this minke reads {here}", path.display());
            return Err(io::Error::other(sentence));
        }
        Ok(order)
    }

    /// Reads one of its files. A file that is not there is [`io::ErrorKind::NotFound`].
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> io::Result<T> {
        let path = self.path(name);
        let text = fs::read(&path).map_err(about(&path))?;
        serde_json::from_slice(&text).map_err(|e| about(&path)(e.into()))
    }

    /// Writes one of its files: all of it or, whatever happens, nothing.
    pub fn write(&self, name: &str, value: &impl Serialize) -> io::Result<()> {
        let (path, partial) = (self.path(name), self.path(&format!(".{name}.partial")));
        let text = serde_json::to_vec(value)?;
        let mut file = File::create(&partial).map_err(about(&partial))?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(about(&partial))?;
        fs::rename(&partial, &path).map_err(about(&path))?;
        sync_names(&self.0)
    }

    /// Leaves an empty file that says something by being there.
    pub fn mark(&self, name: &str) -> io::Result<()> {
        let path = self.path(name);
        File::options().write(true).create(true).truncate(false).open(&path).map_err(about(&path))?;
        sync_names(&self.0)
    }

    /// Makes the directories that it needs, and their names last.
    pub fn make(&self) -> io::Result<()> {
        for directory in [self.files(), self.tmp(), self.path(SAID)] {
            fs::create_dir_all(&directory).map_err(about(&directory))?;
        }
        self.0.ancestors().take(4).try_for_each(sync_names)
    }
}

/// Makes the names in a directory last.
fn sync_names(directory: &Path) -> io::Result<()> {
    File::open(directory).and_then(|d| d.sync_all()).map_err(about(directory))
}

/// Says which file an error is about.
pub fn about(path: &Path) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
