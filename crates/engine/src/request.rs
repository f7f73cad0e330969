//! What is asked of the engine, and why it may be refused.

use std::fmt;

/// A request's name, chosen by whoever submits it; no two under way may share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A prompt to go on from.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Its name.
    pub id: RequestId,
    /// Token ids, at least one.
    pub prompt: Vec<u32>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Most tokens to generate, at least one.
    pub limit: usize,
    /// Tokens that end it.
    pub stop: Vec<u32>,
    /// A bound on how long it thinks, if there is one.
    pub thought: Option<ThoughtBudget>,
}

/// How a token is chosen from the logits: temperature first, then top-k, top-p and min-p, each on what the one before
/// left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0 for the most likely token (of equals the lowest id; the filters then do nothing), else from 0.01 to 100.
    pub temperature: f32,
    /// Keeps that many of the most likely tokens (of equals the lowest ids); at least 1.
    pub top_k: Option<usize>,
    /// Keeps the fewest most likely tokens that together have at least this probability (arXiv 1904.09751); above 0, at
    /// most 1.
    pub top_p: Option<f32>,
    /// Keeps tokens at least this likely relative to the most likely one (arXiv 2407.01082); from 0 to 1.
    pub min_p: Option<f32>,
    /// Where the random numbers come from.
    pub seed: Seed,
}

/// Names a stream of random numbers: the one for the token at position p is
/// `minke_kernels::random::uniform(seed, [stream.0, stream.1, stream.2, p])`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seed {
    /// The run's seed.
    pub seed: u64,
    /// In training: step, prompt and sample.
    pub stream: [u32; 3],
}

/// Bounds a thought: once `tokens` have followed `open`, wherever it stands in prompt or answer, the next is `close`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThoughtBudget {
    /// The token that opens a thought.
    pub open: u32,
    /// The token that closes it.
    pub close: u32,
    /// Most tokens between the two.
    pub tokens: usize,
}

impl Default for Sampling {
    /// The model's own distribution.
    fn default() -> Sampling {
        Sampling { temperature: 1.0, top_k: None, top_p: None, min_p: None, seed: Seed::default() }
    }
}

impl Sampling {
    /// The most likely token, always.
    pub fn greedy() -> Sampling {
        Sampling { temperature: 0.0, ..Sampling::default() }
    }

    /// What logits are multiplied by: one over the temperature, and 1 at temperature 0, whose log-probabilities are those
    /// of temperature 1.
    pub fn inverse_temperature(&self) -> f32 {
        if self.temperature == 0.0 { 1.0 } else { 1.0 / self.temperature }
    }

    /// The first setting that is out of range.
    fn problem(&self) -> Option<&'static str> {
        // Written so that NaN is out of range.
        let within = |x: Option<f32>, range: std::ops::RangeInclusive<f32>| x.is_none_or(|x| range.contains(&x));
        if self.temperature != 0.0 && !within(Some(self.temperature), 0.01..=100.0) {
            Some("temperature must be 0 or from 0.01 to 100")
        } else if self.top_k == Some(0) {
            Some("top-k must be at least 1")
        } else if !within(self.top_p, f32::MIN_POSITIVE..=1.0) {
            Some("top-p must be above 0 and at most 1")
        } else if !within(self.min_p, 0.0..=1.0) {
            Some("min-p must be from 0 to 1")
        } else {
            None
        }
    }
}

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is nothing to go on from.
    PromptEmpty,
    /// The prompt leaves no room for a token.
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens that the model can run, prompt and answer together.
        context: usize,
    },
    /// The model has no such token.
    UnknownToken {
        /// The id given.
        token: u32,
        /// Ids are below this.
        vocab_size: usize,
    },
    /// Prompt and limit together need more memory than the engine has in all.
    TooManyPages {
        /// Pages needed.
        needed: usize,
        /// Pages allowed.
        limit: usize,
    },
    /// A setting is out of range.
    BadSampling {
        /// Which, and what it may be.
        what: &'static str,
    },
    /// The limit is 0, so nothing is asked for.
    LimitZero,
    /// Too many requests wait already: try again later.
    QueueFull {
        /// How many may wait.
        limit: usize,
    },
    /// Another request of that name is under way.
    IdInUse,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Refused::PromptEmpty => write!(f, "the prompt has no tokens; give at least one"),
            Refused::PromptTooLong { tokens, context } => {
                write!(
                    f,
                    "the prompt has {tokens} tokens, but prompt and answer together may have {context}; shorten it"
                )
            }
            Refused::UnknownToken { token, vocab_size } => {
                write!(f, "token {token} does not exist: the model's vocabulary has {vocab_size}")
            }
            Refused::TooManyPages { needed, limit } => write!(
                f,
                "prompt and limit together need {needed} pages of memory, and there are {limit}; ask for fewer tokens or \
                 allow more memory"
            ),
            Refused::BadSampling { what } => f.write_str(what),
            Refused::LimitZero => write!(f, "the limit is 0 tokens; ask for at least one"),
            Refused::QueueFull { limit } => write!(f, "{limit} requests wait already; try again later"),
            Refused::IdInUse => write!(f, "a request of that id is under way; choose another id"),
        }
    }
}

impl std::error::Error for Refused {}

impl Request {
    /// Checks all that does not depend on what else is under way.
    pub(crate) fn check(&self, context: usize, vocab_size: usize, pages: usize) -> Result<(), Refused> {
        let tokens = self.prompt.len();
        if tokens == 0 {
            return Err(Refused::PromptEmpty);
        }
        if tokens >= context {
            return Err(Refused::PromptTooLong { tokens, context });
        }
        let closing = self.thought.map(|thought| thought.close);
        if let Some(&token) = self.prompt.iter().chain(&closing).find(|&&token| token as usize >= vocab_size) {
            return Err(Refused::UnknownToken { token, vocab_size });
        }
        if let Some(what) = self.sampling.problem() {
            return Err(Refused::BadSampling { what });
        }
        if self.limit == 0 {
            return Err(Refused::LimitZero);
        }
        // The last token is not run.
        let positions = tokens.saturating_add(self.limit).min(context) - 1;
        let needed = positions.div_ceil(minke_kernels::kv::PAGE_POSITIONS);
        if needed > pages {
            return Err(Refused::TooManyPages { needed, limit: pages });
        }
        Ok(())
    }
}
