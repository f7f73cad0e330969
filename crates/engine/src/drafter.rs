//! What may follow, guessed cheaply: drafts that the model then checks all at once.

use minke_kernels::kv::{KvLayout, KvPages};
use minke_kernels::{Buffer, Cpu};
use minke_model::Batch;

use crate::decoder::Decoder;
use crate::request::{RequestId, Sampling};

/// Guesses how sequences go on. A guess decides how fast tokens come, never which.
///
/// The engine runs guessed tokens as further rows of their sequence, draws every position from the model's own logits with
/// that position's own random number, and keeps what was drawn as far as it was guessed right. So tokens, log-probabilities
/// and entropies have the bits that they have without guesses, at any temperature and with any filter.
///
/// The rejection scheme of speculative sampling (arXiv 2211.17192, arXiv 2302.01318) gives the same distribution, but other
/// tokens. Of a draft that is one certain token both accept alike: with that token's probability. Of a draft sampled from q
/// where the model has p it accepts as often as two draws can agree, 1 - TV(p, q); here a draft that is drawn with the
/// request's own random number ([`Ask::sampling`]) comes close where p and q are close. What is lost there buys that a
/// request comes to the same tokens whether, how and how far others guessed, and can be replayed.
///
/// A prediction head of the model's own is a drafter that its decoder holds: [`Decoder::drafter`] gives it out, and
/// [`Decoder::forward`] leaves it the hidden states that it starts from.
pub trait Drafter {
    /// What drafts cost.
    fn costs(&self) -> Costs;

    /// Sets the draft of each ask; none or a short one where there is nothing good to say. `kv` has the sequences' pages: what
    /// the decoder has written in them stays as it is.
    fn draft(&mut self, asks: &mut [Ask<'_>], kv: &mut KvPages);

    /// What the last batch has run that counts, for those that learn from it.
    fn ran(&mut self, _ran: &[Ran<'_>], _kv: &mut KvPages) {}

    /// A request has ended with these tokens, its prompt included: whatever is kept for it may go.
    fn finished(&mut self, request: RequestId, tokens: &[u32]);
}

/// A sequence to guess on from.
#[derive(Debug)]
pub struct Ask<'a> {
    /// Whose.
    pub request: RequestId,
    /// The prompt and what was generated; the last token has not been run.
    pub tokens: &'a [u32],
    /// Its pages; there is room for the last token at least.
    pub pages: &'a [u32],
    /// How its tokens are drawn.
    pub sampling: &'a Sampling,
    /// Most tokens to guess, at least one.
    pub most: usize,
    /// The guess.
    pub draft: Vec<u32>,
    /// What went into it beyond [`Costs::token`] a token: set by the drafter, 0 before.
    pub cost: f64,
}

/// Tokens of a sequence that the last batch has run.
#[derive(Clone, Copy, Debug)]
pub struct Ran<'a> {
    /// Whose.
    pub request: RequestId,
    /// The prompt and what was generated; at least one token follows those that were run.
    pub tokens: &'a [u32],
    /// Its pages.
    pub pages: &'a [u32],
    /// Position of the first that was run.
    pub start: usize,
    /// Its row in the batch.
    pub row: usize,
    /// How many were run and stay; the rows of guesses that were wrong are not among them.
    pub count: usize,
    /// Whether they were read rather than generated.
    pub read: bool,
    /// Whether the sequence ends with them.
    pub ends: bool,
}

/// Costs in units of a step of the model that runs a single row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costs {
    /// A further row of the same step.
    pub row: f64,
    /// Guessing a token.
    pub token: f64,
}

impl Costs {
    /// Where weights are read from memory anew in every step, a further row costs little: 0.03 (the second) to 0.19 (eight)
    /// for SmolLM2 in Q4_0, less in wider formats (`minke bench --sequences 1,2,4,8`). Too high a number guesses less; too low
    /// a one wastes up to as many times 1 % of the time.
    pub const ROW: f64 = 0.2;

    /// What a guessed token costs in a step where `sequences` generate, in units of what a token costs without guesses. A
    /// step of n rows takes 1 + row * n, so that the more there are, the less a saved step is worth to each.
    pub(crate) fn price(&self, sequences: usize) -> f64 {
        let rows = self.row * sequences as f64;
        rows / (1.0 + rows) + self.token
    }
}

/// Prompt look-up (Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding): a sequence goes on as it did where its last
/// few tokens stood before.
#[derive(Clone, Copy, Debug)]
pub struct Lookup {
    /// What a further row costs: see [`Costs::row`].
    pub row: f64,
}

/// Fewest tokens that must agree, and as many as are compared.
const AGREEING: (usize, usize) = (2, 8);

impl Default for Lookup {
    fn default() -> Lookup {
        Lookup { row: Costs::ROW }
    }
}

impl Drafter for Lookup {
    fn costs(&self) -> Costs {
        Costs { row: self.row, token: 0.0 }
    }

    fn draft(&mut self, asks: &mut [Ask<'_>], _: &mut KvPages) {
        for ask in asks {
            look_up(ask.tokens, ask.most, &mut ask.draft);
        }
    }

    fn finished(&mut self, _: RequestId, _: &[u32]) {}
}

/// What followed the longest earlier occurrence of the last tokens, of equals the latest. Where it reaches the end, it goes
/// on with itself.
fn look_up(tokens: &[u32], most: usize, draft: &mut Vec<u32>) {
    let last = tokens.len() - 1;
    let (mut longest, mut from) = (AGREEING.0 - 1, None);
    for next in (1..=last).rev().filter(|&next| tokens[next - 1] == tokens[last]) {
        let pairs = tokens[..next].iter().rev().zip(tokens.iter().rev());
        let agreeing = pairs.take(AGREEING.1).take_while(|(a, b)| a == b).count();
        if agreeing > longest {
            (longest, from) = (agreeing, Some(next));
        }
        if longest == AGREEING.1 {
            break;
        }
    }
    let Some(from) = from else { return };
    for at in from..from + most {
        draft.push(tokens.get(at).copied().unwrap_or_else(|| draft[at - tokens.len()]));
    }
}

/// A decoder, and what guesses for it.
pub struct Speculative<'d, D> {
    /// The model whose tokens come.
    pub decoder: D,
    /// None to guess nothing.
    pub drafter: Option<Box<dyn Drafter + 'd>>,
}

impl<D: Decoder> Decoder for Speculative<'_, D> {
    fn cpu(&self) -> &Cpu {
        self.decoder.cpu()
    }

    fn kv_layout(&self) -> KvLayout {
        self.decoder.kv_layout()
    }

    fn vocab_size(&self) -> usize {
        self.decoder.vocab_size()
    }

    fn context(&self) -> usize {
        self.decoder.context()
    }

    fn version(&self) -> u64 {
        self.decoder.version()
    }

    fn forward(&mut self, batch: &Batch, kv: &mut KvPages, rows: &[u32], logits: &mut Buffer) {
        self.decoder.forward(batch, kv, rows, logits);
    }

    fn drafter(&mut self) -> Option<&mut dyn Drafter> {
        match &mut self.drafter {
            Some(drafter) => Some(&mut **drafter),
            None => self.decoder.drafter(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_goes_on_as_it_did_before() {
        let draft = |tokens: &[u32], most| {
            let mut draft = Vec::new();
            look_up(tokens, most, &mut draft);
            draft
        };
        assert_eq!(draft(&[1, 2, 3, 4, 9, 1, 2], 3), [3, 4, 9]);
        assert_eq!(draft(&[5, 1, 2, 7, 6, 1, 2, 8, 5, 1, 2], 2), [7, 6], "three agree");
        assert_eq!(draft(&[1, 2, 7, 1, 2, 8, 1, 2], 1), [8], "the latest of equals");
        assert_eq!(draft(&[9, 1, 2, 1, 2], 5), [1, 2, 1, 2, 1], "it goes on with itself");
        assert_eq!(draft(&[4, 4, 4], 3), [4, 4, 4]);
        for nothing in [&[1][..], &[1, 2], &[1, 2, 3, 2], &[1, 1]] {
            assert!(draft(nothing, 4).is_empty(), "{nothing:?}");
        }
    }

    #[test]
    fn a_saved_step_is_worth_less_to_each_of_many() {
        let costs = Costs { row: 0.1, token: 0.2 };
        assert!((costs.price(1) - (0.1 / 1.1 + 0.2)).abs() < 1e-12);
        assert!((costs.price(10) - (0.5 + 0.2)).abs() < 1e-12);
    }
}
