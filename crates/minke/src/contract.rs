//! What a run on the lab keeps to: where it lives, how far it is, and that it gives its chips back when they are wanted
//! (docs/preemption.md). Outside of the lab there is no contract, and nothing here does anything.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs};

use minke_train::progress::Progress;
use serde_json::json;

/// Time from one word about progress to the next.
const PAUSE: Duration = Duration::from_millis(500);

/// The lab's wishes, as its launcher left them in the environment.
pub struct Contract {
    directory: PathBuf,
    progress: Option<PathBuf>,
    acknowledged: Option<PathBuf>,
    told: Option<Instant>,
    heard: bool,
    /// Steps of what the control is compared with, once that is done.
    before: u64,
    done: u64,
}

impl Contract {
    /// The contract, if this process is a run of a lab.
    pub fn of_environment() -> Option<Contract> {
        let path = |name| env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        let (progress, acknowledged) = (path("MINKE_PROGRESS"), path("MINKE_ACKNOWLEDGED"));
        let (told, heard, before, done) = (None, false, 0, 0);
        Some(Contract { directory: path("MINKE_RUN")?, progress, acknowledged, told, heard, before, done })
    }

    /// Where the run is kept.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Tells the lab how far the run is, and that it has heard when it is to stop.
    pub fn tell(&mut self, progress: &Progress<'_>, stop: &AtomicBool) {
        if stop.load(Ordering::Relaxed) && !self.heard {
            self.heard = true;
            write(self.acknowledged.as_deref(), "");
        }
        match *progress {
            Progress::Control => self.before = self.done,
            Progress::Step { run: (step, steps), checkpoint, seconds: (_, left), .. } => {
                self.done = self.before + step;
                let now = Instant::now();
                if step == 1 || step == steps || self.told.is_none_or(|told| now >= told + PAUSE) {
                    self.told = Some(now);
                    let steps = self.before + steps;
                    let said = json!({ "step": self.done, "steps": steps, "checkpoint": checkpoint, "left_s": left });
                    write(self.progress.as_deref(), &format!("{said}\n"));
                }
            }
            _ => {}
        }
    }
}

/// Whole or not at all. What the lab does not get to know must not end the run.
fn write(path: Option<&Path>, text: &str) {
    if let Some(path) = path {
        let partial = path.with_extension("partial");
        let _ = fs::write(&partial, text).and_then(|()| fs::rename(&partial, path));
    }
}
