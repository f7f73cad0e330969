//! Reasons: the facts that decisions rest on.

use serde::{Deserialize, Serialize};

use crate::person::PersonId;
use crate::run::{End, RunId};

/// A fact that a decision rests on; each can be checked against what was known at the time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Reason {
    /// So many chips were free.
    ChipsFree {
        /// How many.
        free: u32,
        /// Of how many.
        of: u32,
    },
    /// It wants more chips than there are.
    TooBig {
        /// How many it wants.
        wants: u32,
        /// How many there are.
        of: u32,
    },
    /// Its idea has had less than that of a run which gives its chips back for it.
    LessAttained {
        /// Than which run's.
        than: RunId,
        /// By how many chip-seconds.
        by: f64,
    },
    /// A run has waited so long that it has a turn, whatever its idea has had.
    WaitedLong {
        /// Which.
        run: RunId,
        /// Since when.
        since: u64,
        /// Seconds that it had run before.
        ran_s: f64,
    },
    /// A run's idea is new, but its owners' new ideas have used up what comes before others for now.
    LaneSpent {
        /// Which.
        run: RunId,
    },
    /// The owners of a run have had less than those of another, counting the stint that each run before it is given.
    Behind {
        /// Which run's.
        run: RunId,
        /// Than which run's.
        than: RunId,
        /// By how many chip-seconds.
        by: f64,
    },
    /// A run is about to give its chips back.
    Leaving {
        /// Which.
        run: RunId,
    },
    /// It fits into what those before it leave.
    Fits,
    /// Another run holds chips and may keep them a while.
    MinimumStint {
        /// Which.
        run: RunId,
        /// Until when.
        until: u64,
    },
    /// Another run comes first.
    After {
        /// Which.
        run: RunId,
    },
    /// It gives way to another run.
    GivesWay {
        /// To which.
        to: RunId,
        /// How many chip-seconds more its idea has had.
        by: f64,
    },
    /// A person ended it.
    StoppedBy {
        /// Who.
        person: PersonId,
    },
    /// Its command ended.
    Ended {
        /// How.
        end: End,
    },
    /// So many stints in a row ended early without any progress.
    LostAgain {
        /// How many.
        times: u32,
    },
    /// It was asked for its chips and did not give them back in time.
    DidNotYield {
        /// Seconds that it was waited for.
        waited_s: f64,
    },
}
