//! Ideas, people, runs; machines.
//!
//! [`Lab::on`] takes what happened and says what to do: it is pure and deterministic, and knows commands, not models. Launchers
//! carry its actions out, and [`Store`] keeps what it knows in SQLite before any of them is; a [`Host`] puts the three together.
//!
//! Times are milliseconds since 1970; chips are counted, and numbered from 0.

mod action;
mod advice;
mod decision;
mod error;
mod event;
mod fingerprint;
mod host;
mod idea;
mod lab;
pub mod launch;
mod link;
mod person;
pub mod policy;
mod repeats;
mod run;
pub mod simulate;
mod store;
pub mod tree;
mod why;
mod worth;

pub use action::Action;
pub use advice::{Advice, AdviceId, Choice};
pub use decision::{Decision, Verb};
pub use error::{Error, Result};
pub use event::{Event, Report, Which};
pub use host::Host;
pub use idea::{Idea, IdeaId, IdeaStatus};
pub use lab::{INTERESTS_MAX, Lab, NAME_MAX, is_name};
pub use link::{Link, LinkId, LinkKind, LinkStatus};
pub use person::{Person, PersonId, Share};
pub use repeats::{Likeness, Repeat};
pub use run::{End, Fingerprint, Progress, Run, RunId, SAVED, Segment, State};
pub use store::Store;
pub use why::span;
pub use worth::Worth;
