//! Votes to ratings.
//!
//! A [`Vote`] says which of two models' answers somebody preferred. Votes are kept in a [`log::VoteLog`], collapsed to
//! [`Counts`], and fitted: [`fit::fit`] gives the most likely ratings, [`intervals::sandwich`] says how sure they are, and
//! [`board::board`] puts it all in order. Beside the votes stands what needs none: [`verified::board`] has models' accuracy on problems
//! that can be checked, and what it costs. Nothing here knows what a model is, what time it is, or who asks.

pub mod board;
pub mod bradley_terry;
pub mod counts;
pub mod davidson;
pub mod entries;
mod error;
mod existence;
pub mod fit;
pub mod formats;
pub mod fragility;
pub mod intervals;
pub mod log;
mod matrix;
pub mod pairing;
mod random;
pub mod verified;
pub mod vote;

pub use board::Board;
pub use counts::{Counts, Question};
pub use error::{Error, Result};
pub use log::VoteLog;
pub use verified::Verified;
pub use vote::{Outcome, Vote};
