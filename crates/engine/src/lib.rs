//! Many requests, one batch, tokens.
//!
//! [`Engine::step`] picks rows from all requests under way, runs them through a [`Decoder`] as one batch, samples, and says
//! what happened as [`Event`]s. It is synchronous, has no clock and no threads of its own, and sees token ids only.
//!
//! A request's tokens and log-probabilities depend on the request and the weights alone: not on what else was in the batch,
//! how its prompt was cut, what was found in the prefix cache, whether it had to make room and start again, or what a
//! [`Drafter`] guessed.

mod account;
mod decoder;
mod draft_model;
mod drafter;
mod engine;
mod event;
mod limits;
mod mtp;
mod pages;
mod request;
mod sampler;
mod scheduler;
mod sequence;

pub use decoder::{Decoder, TransformerDecoder};
pub use draft_model::DraftModel;
pub use drafter::{Ask, Costs, Drafter, Lookup, Ran, Speculative};
pub use engine::Engine;
pub use event::{Event, EventKind, Outcome, Reason, Token};
pub use limits::{Limits, Speculated, Usage};
pub use request::{Refused, Request, RequestId, Sampling, Seed, ThoughtBudget};
