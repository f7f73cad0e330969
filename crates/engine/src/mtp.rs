//! The model's own block for multi-token prediction as a drafter.

use std::collections::BTreeMap;
use std::mem::swap;

use minke_kernels::elementwise::gather_rows;
use minke_kernels::kv::{KvPages, PAGE_POSITIONS};
use minke_kernels::{Buffer, Cpu, View};
use minke_model::{Batch, Parameters, Predictions, Predictor, Transformer};

use crate::drafter::{Ask, Costs, Drafter, Ran};
use crate::request::RequestId;
use crate::sampler::Sampler;

/// Rows of a request that may be owed before they are run.
const OWED: usize = 64;

/// Guesses with the block that looks one token further (DeepSeek-V3, arXiv 2412.19437, sections 2.2 and 5.4.3), and further
/// still by applying it to its own hidden state and its own guess. It draws its guesses as the request's own tokens are drawn,
/// with the same random numbers.
///
/// Its keys and values are one more layer of the model's pages, position for position: so what is found again of a prompt is
/// found with them, and no memory has to be set aside. At position p they are of the model's hidden state there and of token
/// p + 1. Another token may have followed the last of a page that is shared, and rows are missing from one that is found while they
/// are owed, after a cancel, or where a request had to make room: that makes a guess worse now and then, and no token other.
///
/// Prompts are run through it as they are read. Rows that were generated are owed until it is asked, so that they cost little
/// where guessing does not pay: then they are run together.
pub(crate) struct Mtp<'a> {
    cpu: &'a Cpu,
    model: &'a Transformer,
    predictor: &'a Predictor,
    costs: Costs,
    /// The model's hidden states of the last batch, rows by hidden_size.
    seen: Buffer,
    pasts: BTreeMap<RequestId, Past>,
    sampler: Sampler,
    batch: Batch,
    /// Rows by hidden_size, of the batch.
    hidden: Vec<f32>,
    predictions: Predictions,
    /// Of the rows that guesses are drawn from: hidden states, logits.
    last: Buffer,
    logits: Buffer,
}

/// The rows of a request that it has not run yet.
#[derive(Default)]
struct Past {
    /// Position of the first of them.
    start: usize,
    count: usize,
    /// The model's hidden states: rows by hidden_size.
    hidden: Vec<f32>,
}

/// A guess under way.
struct Guess<'a, 'b> {
    ask: &'b mut Ask<'a>,
    most: usize,
    /// The row of the batch that its next token is drawn from.
    row: u32,
}

impl<'a> Mtp<'a> {
    /// Guesses for `model` with its own block; for `row` see [`Costs::row`]. A guess reads the block and the output
    /// projection, a step of the model all that a row of its reads: that is what it costs.
    pub fn new(cpu: &'a Cpu, model: &'a Transformer, predictor: &'a Predictor, row: f64) -> Mtp<'a> {
        let config = model.config();
        let head = (config.vocab_size * config.hidden_size) as f64;
        let block = Parameters::of_prediction(config).read_by_a_row(config);
        let token = (block + head) / model.parameters().read_by_a_row(config);
        Mtp {
            cpu,
            model,
            predictor,
            costs: Costs { row, token },
            seen: Buffer::default(),
            pasts: BTreeMap::new(),
            sampler: Sampler::default(),
            batch: Batch::default(),
            hidden: Vec::new(),
            predictions: Predictions::default(),
            last: Buffer::default(),
            logits: Buffer::default(),
        }
    }

    /// Takes the hidden states of a batch that the model has run, and gives a buffer for the next.
    pub fn see(&mut self, hidden: &mut Buffer) {
        swap(&mut self.seen, hidden);
    }

    fn width(&self) -> usize {
        self.model.config().hidden_size
    }

    fn clear(&mut self) {
        self.batch.tokens.clear();
        self.batch.spans.clear();
        self.hidden.clear();
    }

    /// Adds the first `count` rows that are owed to the batch.
    fn settle(&mut self, past: &mut Past, count: usize, tokens: &[u32], pages: &[u32]) {
        let Past { start, count: owed, hidden } = past;
        self.batch.push(&tokens[*start + 1..][..count], *start, pages.to_vec());
        self.hidden.extend(hidden.drain(..count * self.width()));
        // A long prompt's rows are gone for good.
        hidden.shrink_to(OWED * self.width());
        *start += count;
        *owed -= count;
    }

    /// Runs the batch.
    fn run(&mut self, kv: &mut KvPages) {
        let hidden = View::new(&self.hidden, self.batch.tokens.len(), self.width());
        self.predictor.forward(self.cpu, self.model, &self.batch, hidden, kv, &mut self.predictions);
    }

    /// Runs the batch, and draws the next token of each guess.
    fn advance(&mut self, guesses: &mut [Guess<'_, '_>], kv: &mut KvPages) {
        self.run(kv);
        let (width, vocab_size) = (self.width(), self.model.config().vocab_size);
        let rows: Vec<u32> = guesses.iter().map(|guess| guess.row).collect();
        self.last.resize(rows.len() * width);
        gather_rows(self.cpu, &self.predictions.hidden, width, &rows, &mut self.last);
        self.logits.resize(rows.len() * vocab_size);
        self.model.logits(self.cpu, View::new(&self.last, rows.len(), width), &mut self.logits);
        for (guess, logits) in guesses.iter_mut().zip(self.logits.chunks_exact(vocab_size)) {
            let Ask { tokens, sampling, draft, .. } = &mut *guess.ask;
            match self.sampler.choose(self.cpu, logits, sampling, tokens.len() + draft.len()) {
                Some(choice) => draft.push(choice.id),
                None => guess.most = 0,
            }
        }
    }
}

impl Drafter for Mtp<'_> {
    fn costs(&self) -> Costs {
        self.costs
    }

    fn draft(&mut self, asks: &mut [Ask<'_>], kv: &mut KvPages) {
        self.clear();
        let mut guesses = Vec::new();
        for ask in asks {
            let last = ask.tokens.len() - 1;
            let Some(mut past) = self.pasts.remove(&ask.request) else { continue };
            let count = past.count;
            if count > 0 && past.start + count == last {
                self.settle(&mut past, count, ask.tokens, ask.pages);
                ask.cost = self.costs.row * self.costs.token * (count - 1) as f64;
                // The first guess is of the row before the last token's, each further one of a row that follows.
                let most = ask.most.min(ask.pages.len() * PAGE_POSITIONS - last + 1);
                let row = self.batch.tokens.len() as u32 - 1;
                self.pasts.insert(ask.request, past);
                guesses.push(Guess { ask, most, row });
            }
        }
        if guesses.is_empty() {
            return;
        }
        self.advance(&mut guesses, kv);
        loop {
            let width = self.width();
            self.clear();
            let mut going = Vec::new();
            for (row, mut guess) in guesses.into_iter().enumerate() {
                let Ask { tokens, pages, draft, .. } = &*guess.ask;
                if draft.len() < guess.most
                    && let Some(&token) = draft.last()
                {
                    guess.row = going.len() as u32;
                    self.batch.push(&[token], tokens.len() - 2 + draft.len(), pages.to_vec());
                    self.hidden.extend_from_slice(&self.last[row * width..][..width]);
                    going.push(guess);
                }
            }
            if going.is_empty() {
                return;
            }
            self.advance(&mut going, kv);
            guesses = going;
        }
    }

    fn ran(&mut self, ran: &[Ran<'_>], kv: &mut KvPages) {
        self.clear();
        let width = self.width();
        for &Ran { request, tokens, pages, start, row, count, read, ends } in ran {
            let mut past = self.pasts.remove(&request).unwrap_or_default();
            if past.start + past.count != start {
                past = Past { start, ..Past::default() };
            }
            past.hidden.extend_from_slice(&self.seen[row * width..][..count * width]);
            past.count += count;
            // The last row waits for whoever asks; others may go on from a prompt, and from what has ended.
            let due = match past.count {
                owed if ends => owed,
                owed if read || owed > OWED => owed - 1,
                _ => 0,
            };
            if due > 0 {
                self.settle(&mut past, due, tokens, pages);
            }
            self.pasts.insert(request, past);
        }
        if !self.batch.tokens.is_empty() {
            self.run(kv);
        }
    }

    fn finished(&mut self, request: RequestId, _: &[u32]) {
        self.pasts.remove(&request);
    }
}
