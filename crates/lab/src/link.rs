//! Links between people over an idea. A link takes effect only when both sides have said yes.

use serde::{Deserialize, Serialize};

use crate::idea::IdeaId;
use crate::person::PersonId;

/// Names a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LinkId(pub u32);

/// What one person asks of another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// Which it is.
    pub id: LinkId,
    /// What is asked.
    pub kind: LinkKind,
    /// Who asks.
    pub from: PersonId,
    /// Who may answer: a person who is invited, or any author of the idea.
    pub to: Vec<PersonId>,
    /// Over which idea.
    pub idea: IdeaId,
    /// What they say about it.
    pub message: String,
    /// Whether it was answered.
    pub status: LinkStatus,
    /// When it was asked.
    pub created: u64,
    /// When it was answered or withdrawn.
    pub answered: Option<u64>,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkKind {
    /// An author asks somebody to become one.
    Invite,
    /// Somebody asks to become an author.
    Join,
    /// An author asks that another idea be merged into theirs.
    Merge(IdeaId),
}

/// What became of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkStatus {
    /// Nobody has answered.
    Pending,
    /// Both sides said yes.
    Accepted,
    /// The other side said no; no reason is asked for.
    Declined,
    /// Taken back before an answer.
    Withdrawn,
    /// Nobody answered in time.
    Expired,
}
