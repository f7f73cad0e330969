//! Runs as processes of this machine, each under a supervisor that outlives the lab's own process.
//!
//! What is known of a stint lies in its files (`stint.rs`), nothing in memory: a launcher made anew goes on where another
//! was killed. The supervisor's lock tells whether anything of a stint may still be there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};
use std::{env, fs};

use super::Launcher;
use super::kept::Kept;
use super::order::{Limits, Order, VERSION};
use super::progress::{Mark, read_newer};
use super::stint::{
    ACKNOWLEDGED, END, Guards, KILL, ORDER, PID, PROGRESS, STARTED, SUPERVISOR_LOG, SUSPEND, Stint, about,
};
use super::system;
use crate::event::Report;
use crate::run::{End, Run, RunId};
use crate::tree;

/// What of the lab's own environment runs get.
const PASSED_ON: [&str; 3] = ["PATH", "LANG", "TERM"];
/// A supervisor that has not ended a stint so long after it was told to does not do its work.
const PATIENCE: Duration = Duration::from_secs(5);

/// How runs are run on this machine.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `MINKE_HOME`: runs are in `runs/rN`, with copies of their trees in `code/`; `models/` may be read.
    pub home: PathBuf,
    /// The minke program, for what stands over the runs and for the runs themselves.
    pub minke: PathBuf,
    /// The cores of each chip. Where none are named, runs compute on all.
    pub cores: Vec<Vec<usize>>,
    /// How much of the machine a run may use.
    pub limits: Limits,
    /// What runs may read besides the system's own files: where a Python lives, data.
    pub reads: Vec<PathBuf>,
    /// Whether runs that can't be kept off each other's files are refused.
    pub landlock: bool,
    /// Whether runs get namespaces where those are permitted.
    pub namespaces: bool,
}

impl Settings {
    /// Everything as it should be where nothing else is known.
    pub fn new(home: PathBuf, minke: PathBuf, cores: Vec<Vec<usize>>) -> Settings {
        let limits = Limits::of_machine(system::memory());
        Settings { home, minke, cores, limits, reads: Vec::new(), landlock: true, namespaces: true }
    }
}

/// The launcher of this machine.
#[derive(Debug)]
pub struct Local {
    settings: Settings,
    seen: HashMap<(RunId, usize), Seen>,
    /// Supervisors that this launcher started, to take note of their ends.
    supervisors: Vec<Child>,
    ordered: HashSet<(RunId, usize)>,
}

/// What was reported of a stint.
#[derive(Debug, Default)]
struct Seen {
    started: bool,
    acknowledged: bool,
    progress: Option<Mark>,
    ended: bool,
}

impl Local {
    /// A launcher over the runs in `settings.home`.
    ///
    /// # Errors
    /// When this machine can't run any.
    pub fn new(mut settings: Settings) -> io::Result<Local> {
        system::supported()?;
        fs::create_dir_all(&settings.home).map_err(about(&settings.home))?;
        settings.home = settings.home.canonicalize()?;
        settings.minke = settings.minke.canonicalize().map_err(about(&settings.minke))?;
        Ok(Local { settings, seen: HashMap::new(), supervisors: Vec::new(), ordered: HashSet::new() })
    }

    /// Where code trees are kept.
    pub fn code(&self) -> PathBuf {
        self.settings.home.join("code")
    }

    /// A run's directory.
    pub fn directory(&self, run: RunId) -> PathBuf {
        self.settings.home.join(format!("runs/r{}", run.0))
    }

    /// What a run keeps for good.
    pub fn kept(&self, run: RunId) -> Kept {
        Kept::new(self.directory(run).join("files"))
    }

    /// Where what a stint printed is.
    pub fn log(&self, run: RunId, segment: usize) -> PathBuf {
        self.stint(run, segment).path(super::stint::LOG)
    }

    fn stint(&self, run: RunId, segment: usize) -> Stint {
        Stint::new(self.directory(run).join(format!("segments/{segment}")))
    }

    fn order(&self, run: &Run, segment: usize, stint: &Stint) -> io::Result<Order> {
        let settings = &self.settings;
        let chips = run.segments.get(segment).map(|segment| segment.chips.as_slice()).unwrap_or_default();
        let mut cores = Vec::new();
        for &chip in chips.iter().filter(|_| !settings.cores.is_empty()) {
            let of_chip = settings.cores.get(chip as usize);
            cores.extend(of_chip.ok_or_else(|| io::Error::other(format!("this machine has no chip {chip}")))?);
        }
        let models = settings.home.join("models");
        let mut environment: BTreeMap<String, String> =
            PASSED_ON.iter().filter_map(|name| Some((name.to_string(), env::var(name).ok()?))).collect();
        // Runs find the minke that runs them.
        if let (Some(directory), Some(path)) = (settings.minke.parent(), environment.get_mut("PATH")) {
            *path = format!("{}:{path}", directory.display());
        }
        let paths = [
            ("HOME", stint.files()),
            ("TMPDIR", stint.tmp()),
            ("MINKE_HOME", settings.home.clone()),
            ("MINKE_RUN", stint.files()),
            ("MINKE_SUSPEND", stint.path(SUSPEND)),
            ("MINKE_ACKNOWLEDGED", stint.path(ACKNOWLEDGED)),
            ("MINKE_PROGRESS", stint.path(PROGRESS)),
        ];
        for (name, path) in paths {
            let text = path.to_str().ok_or_else(|| io::Error::other(format!("{} is not UTF-8", path.display())))?;
            environment.insert(name.to_string(), text.to_string());
        }
        let mut reads = settings.reads.clone();
        reads.extend([settings.minke.clone(), models]);
        let closed = env::home_dir().into_iter().chain([settings.home.clone()]).collect();
        let (command, limits) = (run.command.clone(), settings.limits);
        let (landlock, namespaces) = (settings.landlock, settings.namespaces);
        Ok(Order { version: VERSION, command, environment, cores, reads, closed, limits, landlock, namespaces })
    }

    /// How a stint has ended, once it is certain that nothing of it is left.
    fn end(&self, key: (RunId, usize), stint: &Stint) -> io::Result<Option<End>> {
        let Some(lock) = locked(stint)? else { return Ok(None) };
        if let Some(end) = found(stint.read(END))? {
            return Ok(Some(end));
        }
        let end = match found::<Guards>(stint.read(PID))? {
            Some(guards) if guards.are_gone() => End::Vanished,
            // On its way out, with the supervisor.
            Some(_) => return Ok(None),
            None if stint.has(KILL) => End::NotStarted("it was ended before its command was started".to_string()),
            None if self.ordered.contains(&key) => End::NotStarted(format!(
                "its supervisor ended before its command was started; {} may say why",
                stint.path(SUPERVISOR_LOG).display()
            )),
            // The lab's process ended before it had started one; the order will be given again.
            None => return Ok(None),
        };
        // From now on no supervisor starts it either.
        stint.write(END, &end)?;
        drop(lock);
        Ok(Some(end))
    }
}

/// Nothing where there is no such file.
fn found<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

/// The run's lock, unless somebody else has it.
fn locked(stint: &Stint) -> io::Result<Option<File>> {
    let lock = stint.lock()?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn age(path: &Path) -> Duration {
    let modified = path.metadata().and_then(|metadata| metadata.modified()).ok();
    modified.and_then(|then| SystemTime::now().duration_since(then).ok()).unwrap_or_default()
}

impl Launcher for Local {
    fn start(&mut self, run: &Run, segment: usize) -> io::Result<()> {
        if !run.tree.is_empty() {
            tree::place(&self.code(), &run.tree, &self.directory(run.id).join("code"))?;
        }
        let stint = self.stint(run.id, segment);
        stint.make()?;
        let Some(lock) = locked(&stint)? else {
            // An order is only written by whoever holds the lock.
            let taken = format!("run {} has another stint that has not ended yet", run.id.0);
            return if stint.has(ORDER) { Ok(()) } else { Err(io::Error::new(io::ErrorKind::WouldBlock, taken)) };
        };
        if stint.has(END) || stint.has(PID) {
            return Ok(());
        }
        stint.write(ORDER, &self.order(run, segment, &stint)?)?;
        let errors = stint.path(SUPERVISOR_LOG);
        let errors = File::options().append(true).create(true).open(&errors).map_err(about(&errors))?;
        let mut command = Command::new(&self.settings.minke);
        command.arg("supervise").arg(stint.directory()).env_clear().current_dir("/");
        command.stdin(lock).stdout(Stdio::null()).stderr(errors);
        self.supervisors.push(command.spawn().map_err(about(&self.settings.minke))?);
        self.ordered.insert((run.id, segment));
        Ok(())
    }

    fn suspend(&mut self, run: RunId, segment: usize) -> io::Result<()> {
        let stint = self.stint(run, segment);
        stint.make()?;
        stint.mark(SUSPEND)
    }

    fn kill(&mut self, run: RunId, segment: usize) -> io::Result<()> {
        let stint = self.stint(run, segment);
        stint.make()?;
        if !stint.has(KILL) {
            return stint.mark(KILL);
        }
        if age(&stint.path(KILL)) > PATIENCE
            && let Some(guards) = found::<Guards>(stint.read(PID))?
            && system::boot()? == guards.boot
        {
            for process in [guards.keeper, guards.supervisor].iter().filter(|process| !process.is_gone()) {
                system::kill(process.pid);
            }
        }
        Ok(())
    }

    fn poll(&mut self, stints: &[(RunId, usize)]) -> io::Result<Vec<(RunId, usize, Report)>> {
        self.supervisors.retain_mut(|supervisor| matches!(supervisor.try_wait(), Ok(None)));
        let mut reports = Vec::new();
        for &(run, segment) in stints {
            let stint = self.stint(run, segment);
            let is_known = stint.has(ORDER) || stint.has(KILL);
            if !is_known || self.seen.get(&(run, segment)).is_some_and(|seen| seen.ended) {
                continue;
            }
            // Asked first: what it wrote before it ended is then there to be read.
            let end = self.end((run, segment), &stint)?;
            let seen = self.seen.entry((run, segment)).or_default();
            let mut report = |what| reports.push((run, segment, what));
            if !seen.started && stint.has(STARTED) {
                seen.started = true;
                report(Report::Started);
            }
            if !seen.acknowledged && stint.has(ACKNOWLEDGED) {
                seen.acknowledged = true;
                report(Report::Acknowledged);
            }
            if let Some(progress) = read_newer(&stint.path(PROGRESS), &mut seen.progress) {
                report(Report::Progress(progress));
            }
            if let Some(end) = end {
                seen.ended = true;
                report(Report::Ended(end));
            }
        }
        Ok(reports)
    }
}
