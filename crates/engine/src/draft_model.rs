//! A small model that guesses for a large one of the same vocabulary, in pages of its own.

use std::collections::BTreeMap;

use minke_kernels::Buffer;
use minke_kernels::kv::{KvPages, PAGE_POSITIONS};
use minke_model::Batch;

use crate::decoder::Decoder;
use crate::drafter::{Ask, Costs, Drafter};
use crate::pages::{Pages, common_len};
use crate::request::RequestId;
use crate::sampler::Sampler;

/// Most rows that are run at a time, and that are caught up with in a step, so that nobody waits long for a guess.
const ROWS: usize = 512;

/// A draft model (arXiv 2211.17192). It draws its guesses as the request's own tokens are drawn, with the same random numbers:
/// where the two models agree on what is likely, they draw the same token, at any temperature.
///
/// It reads every prompt as well, once, when it is first asked. That is not charged: whoever chose it wanted it. Tokens that
/// it has missed meanwhile, because guessing did not pay, are.
pub struct DraftModel<D> {
    decoder: D,
    costs: Costs,
    pages: Pages,
    pasts: BTreeMap<RequestId, Past>,
    sampler: Sampler,
    batch: Batch,
    rows: Vec<u32>,
    logits: Buffer,
}

/// What it has seen of a request.
#[derive(Default)]
struct Past {
    pages: Vec<u32>,
    /// Positions in its pages that were made from the request's tokens.
    computed: usize,
    /// Guesses that were run behind them.
    draft: Vec<u32>,
}

/// A guess under way.
struct Guess<'a, 'b> {
    ask: &'b mut Ask<'a>,
    past: Past,
    /// Positions that have been run, those of guesses included.
    run: usize,
    most: usize,
}

impl<D: Decoder> DraftModel<D> {
    /// Guesses with `decoder`, in at most so many pages. A token of its takes it `token` of the time that one takes the
    /// large model; for `row` see [`Costs::row`].
    pub fn new(decoder: D, pages: usize, row: f64, token: f64) -> DraftModel<D> {
        DraftModel {
            pages: Pages::new(decoder.kv_layout(), pages),
            decoder,
            costs: Costs { row, token },
            pasts: BTreeMap::new(),
            sampler: Sampler::default(),
            batch: Batch::default(),
            rows: Vec::new(),
            logits: Buffer::default(),
        }
    }

    /// Finds out what is left to run for an ask. None where it can't be guessed for: the model does not know its tokens, or
    /// has no position or page for them.
    fn begin<'a, 'b>(&mut self, ask: &'b mut Ask<'a>) -> Option<Guess<'a, 'b>> {
        let tokens = ask.tokens;
        let most = ask.most.min(self.decoder.context().saturating_sub(tokens.len()));
        let vocab_size = self.decoder.vocab_size();
        if most == 0 || tokens.iter().any(|&token| token as usize >= vocab_size) {
            return None;
        }
        let known = self.pasts.remove(&ask.request);
        let was_read = known.is_some();
        let mut past = match known {
            Some(past) => past,
            None => {
                let (pages, computed) = self.pages.start(tokens, 0)?;
                Past { pages, computed, draft: Vec::new() }
            }
        };
        let right = common_len(&past.draft, &tokens[past.computed..tokens.len() - 1]);
        self.pages.computed(&mut past.pages, tokens, past.computed, past.computed + right);
        past.computed += right;
        past.draft.clear();
        let missed = if was_read { tokens.len() - 1 - past.computed } else { 0 };
        // The last guess is not run.
        while past.pages.len() * PAGE_POSITIONS < tokens.len() + most - 1
            && let Some(page) = self.pages.take()
        {
            past.pages.push(page);
        }
        let room = past.pages.len() * PAGE_POSITIONS + 1;
        let run = past.computed;
        ask.cost = self.costs.row * self.costs.token * missed as f64;
        Some(Guess { ask, past, run, most: most.min(room.saturating_sub(tokens.len())) })
    }

    /// Runs what is left of guesses, at most [`ROWS`] rows, and draws the next token of those that have none left.
    fn advance(&mut self, guesses: &mut [Guess<'_, '_>]) {
        self.batch.tokens.clear();
        self.batch.spans.clear();
        self.rows.clear();
        let mut drawing = Vec::new();
        for guess in guesses.iter_mut().filter(|guess| guess.ask.draft.len() < guess.most) {
            let Ask { tokens, draft, .. } = &*guess.ask;
            let left = match guess.run.checked_sub(tokens.len()) {
                Some(run) => &draft[run..],
                None => &tokens[guess.run..],
            };
            let left = &left[..left.len().min(ROWS - self.batch.tokens.len())];
            if left.is_empty() {
                continue;
            }
            self.batch.push(left, guess.run, guess.past.pages.clone());
            guess.run += left.len();
            if guess.run == tokens.len() + draft.len() {
                self.rows.push(self.batch.tokens.len() as u32 - 1);
                drawing.push(guess);
            }
        }
        if self.batch.tokens.is_empty() {
            return;
        }
        self.decoder.forward(&self.batch, self.pages.kv(), &self.rows, &mut self.logits);
        for (guess, logits) in drawing.into_iter().zip(self.logits.chunks_exact(self.decoder.vocab_size())) {
            match self.sampler.choose(self.decoder.cpu(), logits, guess.ask.sampling, guess.run) {
                Some(choice) => guess.ask.draft.push(choice.id),
                None => guess.most = 0,
            }
        }
    }
}

impl<D: Decoder> Drafter for DraftModel<D> {
    fn costs(&self) -> Costs {
        self.costs
    }

    fn draft(&mut self, asks: &mut [Ask<'_>], _: &mut KvPages) {
        let mut guesses: Vec<_> = asks.iter_mut().filter_map(|ask| self.begin(ask)).collect();
        self.advance(&mut guesses);
        // Who has not been caught up with has to wait for the next step.
        guesses.iter_mut().filter(|guess| guess.run < guess.ask.tokens.len()).for_each(|guess| guess.most = 0);
        for _ in 1..guesses.iter().map(|guess| guess.most).max().unwrap_or(0) {
            self.advance(&mut guesses);
        }
        for Guess { ask, mut past, run, .. } in guesses {
            let seen = run.min(ask.tokens.len());
            self.pages.computed(&mut past.pages, ask.tokens, past.computed, seen);
            past.computed = seen;
            past.draft.extend_from_slice(&ask.draft[..run - seen]);
            self.pasts.insert(ask.request, past);
        }
    }

    fn finished(&mut self, request: RequestId, tokens: &[u32]) {
        if let Some(mut past) = self.pasts.remove(&request) {
            self.pages.give_back(&mut past.pages, tokens, past.computed);
        }
    }
}
