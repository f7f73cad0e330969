//! Advice: what was pointed out to somebody before a chip was spent, and what they made of it.

use serde::{Deserialize, Serialize};

use crate::person::PersonId;
use crate::repeats::Repeat;

/// Names a piece of advice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AdviceId(pub u32);

/// What was pointed out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Advice {
    /// Which it is.
    pub id: AdviceId,
    /// When.
    pub at: u64,
    /// To whom.
    pub to: PersonId,
    /// The idea that they had.
    pub sentence: String,
    /// What there was like it, most alike first.
    pub shown: Vec<Repeat>,
    /// What they did about it, once they did.
    pub choice: Option<Choice>,
}

/// What somebody does about a repeat. Nobody is kept from anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// Asked to join the other idea.
    Join,
    /// Watches the run that is there, or uses its result.
    Watch,
    /// Takes another part of the same question.
    Split,
    /// Goes on all the same.
    GoOn,
}

impl Choice {
    /// Whether the repeat was not run.
    pub fn spares(self) -> bool {
        matches!(self, Choice::Join | Choice::Watch)
    }
}
