//! A request under way: its tokens so far, and how many of them the model has seen.

use crate::account::Account;
use crate::event::Reason;
use crate::request::Request;

/// A request under way.
pub(crate) struct Sequence {
    pub request: Request,
    /// The prompt, and what was generated.
    pub tokens: Vec<u32>,
    /// Positions whose keys and values are in `pages`; equal to the number of tokens only between a batch and the token that
    /// is sampled from it.
    pub computed: usize,
    /// Tokens in the current step's batch, from position `computed` on.
    pub scheduled: usize,
    /// Position and row of the first token that the last batch ran of it, and whether it was reading.
    pub ran: Option<(usize, usize, bool)>,
    /// Guesses at what follows its tokens, in the current step's batch behind them.
    pub draft: Vec<u32>,
    /// What they cost.
    pub cost: f64,
    /// What its guesses have cost and saved.
    pub account: Account,
    /// Its pages from position 0; none while it waits.
    pub pages: Vec<u32>,
    /// Why it ends with the current step, if it does.
    pub finished: Option<Reason>,
    prompt_len: usize,
    /// Tokens of the thought that is open, if one is.
    thought: Option<usize>,
}

impl Sequence {
    pub fn new(mut request: Request) -> Sequence {
        let prompt = std::mem::take(&mut request.prompt);
        let mut sequence = Sequence {
            tokens: Vec::with_capacity(prompt.len()),
            prompt_len: prompt.len(),
            computed: 0,
            scheduled: 0,
            ran: None,
            draft: Vec::new(),
            cost: 0.0,
            account: Account::default(),
            pages: Vec::new(),
            finished: None,
            thought: None,
            request,
        };
        prompt.into_iter().for_each(|token| sequence.push(token));
        sequence
    }

    /// Tokens that the model has not seen: one while it generates, more while it reads a prompt, none when the next is to be
    /// sampled.
    pub fn left(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Whether the current step gives the logits for its next token.
    pub fn wants_logits(&self) -> bool {
        self.scheduled == self.left()
    }

    /// Whether the current step runs its last token alone.
    pub fn generates(&self) -> bool {
        self.scheduled == 1 && self.left() == 1
    }

    /// Tokens that it can still get, if the model runs `context`.
    pub fn room(&self, context: usize) -> usize {
        self.prompt_len.saturating_add(self.request.limit).min(context) - self.tokens.len()
    }

    /// The token that must come next, because the thought budget is spent.
    pub fn forced(&self) -> Option<u32> {
        let budget = self.request.thought?;
        self.thought.is_some_and(|tokens| tokens >= budget.tokens).then_some(budget.close)
    }

    /// Takes a generated token; `context` is the most tokens that the model can run.
    pub fn generate(&mut self, token: u32, context: usize) {
        self.push(token);
        self.finished = if self.request.stop.contains(&token) {
            Some(Reason::Stop)
        } else if self.tokens.len() - self.prompt_len == self.request.limit {
            Some(Reason::Limit)
        } else if self.tokens.len() == context {
            Some(Reason::Context)
        } else {
            None
        };
    }

    fn push(&mut self, token: u32) {
        self.tokens.push(token);
        if let Some(budget) = self.request.thought {
            self.thought = match (token, self.thought) {
                (token, _) if token == budget.close => None,
                (token, _) if token == budget.open => Some(0),
                (_, thought) => thought.map(|tokens| tokens + 1),
            };
        }
    }
}
