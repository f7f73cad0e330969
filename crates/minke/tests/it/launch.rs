//! Runs on this machine: how they live, what they may do, and what becomes of those that mean harm.

mod hostile;
mod life;
mod preemption;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{env, fs};

use minke_lab::launch::{Launcher, Local, Settings};
use minke_lab::{End, Fingerprint, IdeaId, Report, Run, RunId, Segment, State};
use serde_json::Value;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Set where the tests run as an ordinary user because root's tests started them.
const ORDINARY: &str = "MINKE_TEST_ORDINARY_USER";

/// A lab's home of a test's own, and a launcher over it.
struct Lab {
    place: tempfile::TempDir,
    settings: Settings,
    launcher: Local,
    reports: Vec<(RunId, usize, Report)>,
}

impl Lab {
    fn new(change: impl FnOnce(&mut Settings)) -> Lab {
        let place = tempfile::tempdir().unwrap();
        let mut settings =
            Settings::new(place.path().join("home"), PathBuf::from(env!("CARGO_BIN_EXE_minke")), vec![vec![0]]);
        change(&mut settings);
        let launcher = Local::new(settings.clone()).unwrap();
        fs::write(place.path().join("home/lab.db"), "everybody's secrets").unwrap();
        Lab { place, settings, launcher, reports: Vec::new() }
    }

    /// The launcher as after a restart of the lab's process: it has heard of nothing.
    fn restart(&mut self) {
        self.launcher = Local::new(self.settings.clone()).unwrap();
        self.reports.clear();
    }

    fn directory(&self, run: u32) -> PathBuf {
        self.launcher.directory(RunId(run))
    }

    /// One of a stint's files.
    fn file(&self, run: u32, segment: usize, name: &str) -> PathBuf {
        self.directory(run).join(format!("segments/{segment}/{name}"))
    }

    /// A run of this command with so many stints.
    fn run(&self, run: u32, stints: usize, command: &[&str]) -> Run {
        fs::create_dir_all(self.directory(run).join("code")).unwrap();
        let segment = Segment { chips: vec![0], reserved: 0, started: None, first_step: None, ended: None };
        Run {
            because: Vec::new(),
            tree: String::new(),
            waiting_since: 0,
            id: RunId(run),
            idea: IdeaId(1),
            owners: Vec::new(),
            command: command.iter().map(|word| word.to_string()).collect(),
            chips: 1,
            fingerprint: Fingerprint::default(),
            submitted: 0,
            state: State::Starting,
            segments: vec![segment; stints],
            progress: None,
            attained_chip_s: 0.0,
            counted_until: 0,
            losses: 0,
        }
    }

    /// Starts the first stint of a run of a shell script.
    fn start(&mut self, run: u32, script: &str) {
        let run = self.run(run, 1, &["sh", "-c", script]);
        self.launcher.start(&run, 0).unwrap();
    }

    /// Polls a stint until something was reported of it; all that was.
    fn until(&mut self, run: u32, segment: usize, what: impl Fn(&Report) -> bool) -> Vec<Report> {
        let begin = Instant::now();
        loop {
            let reports = self.reports_of(run, segment);
            if reports.iter().any(&what) {
                return reports;
            }
            assert!(begin.elapsed() < PATIENCE, "run {run}: {reports:?}; {}", self.said(run, segment));
            sleep(Duration::from_millis(10));
            self.poll(&[(run, segment)]);
        }
    }

    fn poll(&mut self, stints: &[(u32, usize)]) {
        let stints: Vec<(RunId, usize)> = stints.iter().map(|(run, segment)| (RunId(*run), *segment)).collect();
        self.reports.extend(self.launcher.poll(&stints).unwrap());
    }

    fn reports_of(&self, run: u32, segment: usize) -> Vec<Report> {
        let of_it = self.reports.iter().filter(|(id, index, _)| (id.0, *index) == (run, segment));
        of_it.map(|(_, _, report)| report.clone()).collect()
    }

    fn until_started(&mut self, run: u32) {
        self.until(run, 0, |report| *report == Report::Started);
    }

    /// Waits until a run has started and printed a line.
    fn until_said(&mut self, run: u32, line: &str) {
        self.until_started(run);
        let begin = Instant::now();
        while !self.log(run, 0).lines().any(|said| said == line) {
            assert!(begin.elapsed() < PATIENCE, "{}", self.said(run, 0));
            sleep(Duration::from_millis(10));
        }
    }

    /// How a stint ends. What keeps it in its place is printed, so that no test passes unnoticed without it.
    fn end(&mut self, run: u32, segment: usize) -> End {
        let reports = self.until(run, segment, |report| matches!(report, Report::Ended(_)));
        eprintln!("run {run}: {}", read(&self.file(run, segment, "sandbox.json")));
        match reports.last() {
            Some(Report::Ended(end)) => end.clone(),
            _ => panic!("something came after the end: {reports:?}"),
        }
    }

    /// Starts a script and waits for its end; what it printed.
    fn carry_out(&mut self, script: &str) -> (End, String) {
        self.start(1, script);
        let end = self.end(1, 0);
        (end, self.log(1, 0))
    }

    fn log(&self, run: u32, segment: usize) -> String {
        read(&self.launcher.log(RunId(run), segment))
    }

    /// All that may help to understand a stint.
    fn said(&self, run: u32, segment: usize) -> String {
        let supervisor = read(&self.file(run, segment, "supervisor.log"));
        format!("it printed {:?}, its supervisor {supervisor:?}", self.log(run, segment))
    }

    /// The processes that stand over a stint: supervisor and keeper.
    fn guards(&self, run: u32) -> (u64, u64) {
        let guards: Value = serde_json::from_str(&read(&self.file(run, 0, "pid"))).unwrap();
        let pid = |who: &str| guards[who]["pid"].as_u64().unwrap();
        (pid("supervisor"), pid("keeper"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // A test that failed leaves nothing behind.
        let runs = fs::read_dir(self.settings.home.join("runs")).into_iter().flatten().flatten();
        for stint in runs.flat_map(|run| fs::read_dir(run.path().join("segments")).into_iter().flatten().flatten()) {
            let _ = fs::write(stint.path().join("kill"), "");
        }
        let begin = Instant::now();
        while !processes(&self.place.path().to_string_lossy()).is_empty() && begin.elapsed() < PATIENCE {
            sleep(Duration::from_millis(20));
        }
    }
}

/// A file's text, if there is any.
fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// Processes of the machine with this text in their command line.
fn processes(text: &str) -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| read(Path::new(&format!("/proc/{pid}/cmdline"))).contains(text)).collect()
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    String::from_utf8_lossy(&id.stdout).trim() == "0"
}

/// With namespaces where they are permitted, and without.
fn both_ways(test: impl Fn(&mut Lab, bool)) {
    for namespaces in [true, false] {
        test(&mut Lab::new(|settings| settings.namespaces = namespaces), namespaces);
    }
}

/// All of these tests, as most people would run them: not as root.
#[test]
fn as_an_ordinary_user() {
    if !is_root() {
        eprintln!("these tests run as an ordinary user anyway");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let nobody = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
    std::os::unix::fs::chown(place.path(), Some(65534), Some(65534)).unwrap();
    let as_nobody = || {
        let mut command = Command::new("setpriv");
        command.args(nobody).env("TMPDIR", place.path()).env("HOME", place.path()).env(ORDINARY, "1").current_dir("/");
        command
    };
    let binaries = [env::current_exe().unwrap(), PathBuf::from(env!("CARGO_BIN_EXE_minke"))];
    for binary in &binaries {
        let can = as_nobody().args(["test", "-x"]).arg(binary).status();
        if !can.is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED: setpriv is missing, or an ordinary user can't reach {}", binary.display());
            return;
        }
    }
    let output = as_nobody().arg(&binaries[0]).args(["launch::", "--nocapture"]).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && printed.contains("test result: ok. "), "{printed}");
}
