//! Ideas: a sentence, and what became of it.

use serde::{Deserialize, Serialize};

use crate::person::PersonId;

/// Names an idea.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IdeaId(pub u32);

/// What somebody wants to find out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Idea {
    /// Which it is.
    pub id: IdeaId,
    /// The idea in one sentence.
    pub sentence: String,
    /// Whose it is: the one who had it, and those who joined.
    pub authors: Vec<PersonId>,
    /// The idea that it grew out of.
    pub parent: Option<IdeaId>,
    /// How far it is.
    pub status: IdeaStatus,
    /// When it was had.
    pub created: u64,
}

/// How far an idea is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdeaStatus {
    /// Nothing was run for it yet.
    Open,
    /// A run of it is under way.
    Active,
    /// All its runs have ended.
    Answered,
    /// Put aside by an author.
    Parked,
    /// Goes on as part of another; both sides agreed.
    Merged(IdeaId),
}
