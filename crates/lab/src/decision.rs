//! Decisions: what the lab did with a run, and why. Written once, never changed.

use serde::{Deserialize, Serialize};

use crate::policy::Reason;
use crate::run::RunId;

/// Something that was decided about a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Its place in the list of all decisions, from 1.
    pub id: u64,
    /// When.
    pub at: u64,
    /// About which run.
    pub run: RunId,
    /// What.
    pub verb: Verb,
    /// Why, most telling first.
    pub because: Vec<Reason>,
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// It waits (said when it begins to, and when the reason becomes another).
    Wait,
    /// It gets chips.
    Start,
    /// It is asked for its chips, and will go on later.
    Suspend,
    /// It was asked for its chips and did not give them back in time; what it did since its last checkpoint is lost.
    Kill,
    /// It is asked to save and end for good.
    Stop,
    /// Its process was lost; it waits again.
    Lost,
    /// It has ended.
    End,
}
