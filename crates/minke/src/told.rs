//! What a lab's server tells of itself, as JSON: written by the server, read by the command line and by pages' scripts.

use std::collections::BTreeMap;

use minke_lab::{Choice, Repeat};
use serde::{Deserialize, Serialize};

/// An idea that is tried: `POST /api/try`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// The idea in words.
    #[serde(default)]
    pub sentence: Option<String>,
    /// Or the number of one that exists.
    #[serde(default)]
    pub idea: Option<u32>,
    /// The idea that it grew out of.
    #[serde(default)]
    pub parent: Option<u32>,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Chips that it wants.
    #[serde(default = "one")]
    pub chips: u32,
    /// The files that it is given.
    #[serde(default)]
    pub files: BTreeMap<String, CodeFile>,
    /// The run whose files it is given besides these, where these have none of their paths.
    #[serde(default)]
    pub code_of: Option<u32>,
    /// What was made of the repeats that were shown; without it, repeats are shown before anything is run.
    #[serde(default)]
    pub advice: Option<(u32, Choice)>,
}

fn one() -> u32 {
    1
}

/// A file of a code tree.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodeFile {
    /// What is in it, where that is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Else its bytes, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// Whether it is a program.
    #[serde(default)]
    pub executable: bool,
}

/// What a try came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tried {
    /// It became a run.
    Run {
        /// The idea's number.
        idea: u32,
        /// The run's number.
        run: u32,
    },
    /// There is something like it, and nothing was run yet.
    Repeats {
        /// To be named in the answer.
        advice: u32,
        /// What there is, most alike first.
        repeats: Vec<Alike>,
    },
}

/// Something that there is already.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Alike {
    /// What is like it, and how.
    pub repeat: Repeat,
    /// In a sentence: "Ada started “…” 4 min ago, 40 % done: the same but for the seed."
    pub sentence: String,
}

/// An idea: `GET /api/ideas`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Idea {
    /// Its number.
    pub id: u32,
    /// The idea.
    pub sentence: String,
    /// Whose it is.
    pub authors: Vec<String>,
    /// `open`, `active`, `answered`, `parked` or `merged into N`.
    pub status: String,
    /// The idea that it grew out of.
    pub parent: Option<u32>,
    /// Milliseconds since 1970.
    pub created: u64,
    /// Its runs.
    pub runs: Vec<u32>,
}

/// A run: `GET /api/runs`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Its number.
    pub id: u32,
    /// Its idea's number.
    pub idea: u32,
    /// Its idea.
    pub sentence: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Chips that it wants.
    pub chips: u32,
    /// Who pays for it.
    pub owners: Vec<String>,
    /// `waiting`, `starting`, `running`, `suspending`, `ending`, `done`, `failed` or `stopped`.
    pub state: String,
    /// What is the matter with it now, and why.
    pub why: String,
    /// Steps done and steps in all, if it has told.
    pub progress: Option<(u64, u64)>,
    /// Seconds left, if it has told.
    pub left_s: Option<f64>,
    /// Milliseconds since 1970.
    pub submitted: u64,
    /// Chip-seconds that it has had.
    pub chip_s: f64,
    /// What it was ended for, where it did what no run may.
    #[serde(default)]
    pub ended_for: Option<String>,
    /// What was decided about it, oldest first; only where one run is asked for.
    #[serde(default)]
    pub decisions: Vec<Decision>,
    /// Its stints, oldest first; only where one run is asked for.
    #[serde(default)]
    pub stints: Vec<Stint>,
}

/// A time during which a run had chips.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stint {
    /// Their numbers.
    pub chips: Vec<u32>,
    /// Milliseconds since 1970.
    pub from: u64,
    /// The same, once it is over.
    pub until: Option<u64>,
    /// How it ended, as the end of a sentence.
    pub end: Option<String>,
}

/// What was decided about a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Decision {
    /// Milliseconds since 1970.
    pub at: u64,
    /// What and why, in a sentence.
    pub sentence: String,
}

/// A question between people: `GET /api/inbox`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Question {
    /// Its number.
    pub id: u32,
    /// `invite`, `join` or `merge`.
    pub kind: String,
    /// Who asks.
    pub from: String,
    /// Who may answer.
    pub to: Vec<String>,
    /// Over which idea.
    pub idea: u32,
    /// That idea.
    pub sentence: String,
    /// In the words of who asks.
    pub message: String,
    /// `pending`, `accepted`, `declined`, `withdrawn` or `expired`.
    pub status: String,
    /// Milliseconds since 1970.
    pub created: u64,
    /// Whether the one who asks for the inbox may answer it.
    pub yours: bool,
    /// Whether they have asked it themselves.
    #[serde(default)]
    pub mine: bool,
    /// The idea that is to become part of the one that it is over, if it is over a merger.
    #[serde(default)]
    pub merge: Option<u32>,
}

/// Somebody: `GET /api/people`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Person {
    /// Their number.
    pub id: u32,
    /// What they are called.
    pub name: String,
    /// What they would like to be asked about, in a line of theirs.
    #[serde(default)]
    pub interests: String,
}

/// What a run has written: `GET /api/runs/N/log?from=BYTES`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Log {
    /// From there on.
    pub text: String,
    /// Where to go on from.
    pub next: u64,
    /// Whether nothing more will come.
    pub over: bool,
}
