//! What a step says: tokens and ends of requests.

use crate::request::RequestId;

/// Something that happened to a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Event {
    /// Whose.
    pub request: RequestId,
    /// What.
    pub kind: EventKind,
}

/// What can happen to a request: any number of tokens, then one end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum EventKind {
    /// A token was generated.
    Token(Token),
    /// No more will come.
    Finished(Reason),
}

/// A generated token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Its position in the sequence; the prompt begins at 0.
    pub position: usize,
    /// Natural logarithm of its probability in the distribution that it was sampled from: after temperature, top-k, top-p
    /// and min-p, renormalised. At temperature 0 it is that of temperature 1; of a forced token, that of the whole
    /// vocabulary. Without filters it has the bits of `minke_kernels::log_prob::log_prob` for the same weights.
    pub log_prob: f32,
    /// Entropy of that distribution, in nats.
    pub entropy: f32,
    /// Whether it was not sampled but put there, because the thought budget was spent. Not the model's doing, so nothing to
    /// train on.
    pub forced: bool,
}

/// Why a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It generated one of its stop tokens, which is the last token given.
    Stop,
    /// It generated as many tokens as it may.
    Limit,
    /// The model can run no further position.
    Context,
    /// It was cancelled.
    Cancelled,
    /// The model's logits are not numbers (NaN, infinity, or all tokens impossible): its weights are broken.
    NotFinite,
}

/// All that a request came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// What was generated.
    pub tokens: Vec<Token>,
    /// Why it ended.
    pub reason: Reason,
}
