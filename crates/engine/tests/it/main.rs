//! The engine as its users see it.

mod alone;
mod behaviour;
mod mtp;
mod scripted;
mod speculation;
mod transformer;
