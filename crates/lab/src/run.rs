//! Runs: a command on chips, in stints that can be suspended and gone on with.

use serde::{Deserialize, Serialize};

use crate::idea::IdeaId;
use crate::person::Share;
use crate::policy::Reason;

/// Names a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunId(pub u32);

/// A command that somebody wants to be run for an idea.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Which it is.
    pub id: RunId,
    /// What it is for.
    pub idea: IdeaId,
    /// Who pays for it, by shares that add up to 1.
    pub owners: Vec<Share>,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// How many chips it runs on at a time; at least 1.
    pub chips: u32,
    /// The files that it is given, as [`crate::tree`] keeps them.
    pub tree: String,
    /// What it would compute, to find repeats.
    pub fingerprint: Fingerprint,
    /// When it was asked for.
    pub submitted: u64,
    /// Where it is in its life.
    pub state: State,
    /// Since when it wants chips, while it waits for them.
    pub waiting_since: u64,
    /// Its stints, the last one last.
    pub segments: Vec<Segment>,
    /// The last that it said of itself.
    pub progress: Option<Progress>,
    /// Chip-seconds that it has had.
    pub attained_chip_s: f64,
    /// Until when `attained_chip_s` has been counted, while it holds chips.
    pub counted_until: u64,
    /// Stints in a row that ended early without any progress.
    pub losses: u32,
    /// Why it waits or runs: what the policy said of it last.
    pub because: Vec<Reason>,
}

/// What a run would compute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// SHA-256 of the code tree that it was given.
    pub code: String,
    /// Every setting, flattened (`stage.0.lr` = `0.003`), without seed, names and paths.
    pub settings: std::collections::BTreeMap<String, String>,
    /// The seed, if there is one: another seed is a replicate, not a repeat.
    pub seed: Option<u64>,
}

/// Where a run is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Wants chips; has not run, or was suspended.
    Waiting,
    /// Has chips reserved; the launcher was asked to start it.
    Starting,
    /// Runs.
    Running,
    /// Was asked to save and give its chips back, and still holds them.
    Suspending {
        /// When it was asked.
        since: u64,
        /// Whether it has said that it heard.
        acknowledged: bool,
    },
    /// Is being ended, and still holds its chips.
    Ending {
        /// Since when.
        since: u64,
        /// For good, because an owner said so; otherwise because it did not give its chips back in time.
        for_good: bool,
    },
    /// Ended by itself, well.
    Done,
    /// Ended by itself, badly.
    Failed,
    /// Ended because an owner said so.
    Stopped,
}

impl State {
    /// Whether it holds chips.
    pub fn holds_chips(self) -> bool {
        matches!(self, State::Starting | State::Running | State::Suspending { .. } | State::Ending { .. })
    }

    /// Whether nothing more will happen to it.
    pub fn is_over(self) -> bool {
        matches!(self, State::Done | State::Failed | State::Stopped)
    }
}

/// What saving and starting again is taken to cost a run that has not shown it yet, in seconds.
const SWITCH_S: f64 = 5.0;

impl Run {
    /// Seconds that saving and starting again cost it: twice what it last took to its first step, as saving is not seen apart.
    pub(crate) fn switch_s(&self) -> f64 {
        let shown = self.segments.iter().rev().find_map(|s| Some(s.first_step?.saturating_sub(s.reserved)));
        shown.map_or(SWITCH_S, |ms| ms as f64 / 500.0)
    }
}

/// One stint of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// The numbers of its chips.
    pub chips: Vec<u32>,
    /// When the chips were reserved.
    pub reserved: u64,
    /// When the command was started.
    pub started: Option<u64>,
    /// When it first said that it got further than before.
    pub first_step: Option<u64>,
    /// When the chips came back, and how.
    pub ended: Option<(u64, End)>,
}

/// What a command exits with when it has saved and can be gone on with: `EX_TEMPFAIL` of sysexits.h.
pub const SAVED: i32 = 75;

/// How a stint ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The command ended with this code; [`SAVED`] says that it can be gone on with.
    Exit(i32),
    /// A signal ended it.
    Signal(i32),
    /// It broke a limit of its sandbox and was ended for it.
    Broke(String),
    /// Its process is gone, and nobody knows how it ended.
    Vanished,
    /// It could not be started.
    NotStarted(String),
}

/// What a run says of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Steps in all, as far as it knows.
    pub steps: u64,
    /// The step of its last complete checkpoint.
    #[serde(default)]
    pub checkpoint: Option<u64>,
    /// Seconds that it thinks it will still take.
    #[serde(default)]
    pub left_s: Option<f64>,
    /// When it was said.
    #[serde(default)]
    pub at: u64,
}
