//! A decoder that remembers in its pages what it has seen, as a model does, and goes on from what it reads there, so that a
//! mistake in paging changes what it says.

use std::cell::Cell;
use std::rc::Rc;

use minke_engine::{Decoder, Request, RequestId, Sampling, Seed};
use minke_kernels::kv::{KvDtype, KvLayout, KvPages, PAGE_POSITIONS, Span};
use minke_kernels::random::Random;
use minke_kernels::{Buffer, Cpu, Isa, View};
use minke_model::Batch;

pub const VOCAB: usize = 23;
/// Likelier than others, so that sequences end.
pub const STOP: u32 = 1;
/// A token after which the logits are not numbers.
pub const POISON: u32 = 22;

pub struct Scripted {
    cpu: Cpu,
    pub context: usize,
    pub version: u64,
    /// Rows run, and the most in a batch.
    pub rows: usize,
    pub most_rows: usize,
    pub most_spans: usize,
    /// One in so many of its logits are another's.
    pub mistakes: Option<u32>,
    /// `rows`, for whoever has no access to it.
    pub counter: Rc<Cell<usize>>,
}

impl Scripted {
    pub fn new(context: usize) -> Scripted {
        let cpu = Cpu::new(Isa::Portable, 1);
        Scripted {
            cpu,
            context,
            version: 7,
            rows: 0,
            most_rows: 0,
            most_spans: 0,
            mistakes: None,
            counter: Rc::default(),
        }
    }
}

impl Decoder for Scripted {
    fn cpu(&self) -> &Cpu {
        &self.cpu
    }
    fn kv_layout(&self) -> KvLayout {
        KvLayout { layers: 1, kv_heads: 1, key_width: 3, value_width: 1, dtype: KvDtype::F32 }
    }
    fn vocab_size(&self) -> usize {
        VOCAB
    }
    fn context(&self) -> usize {
        self.context
    }
    fn version(&self) -> u64 {
        self.version
    }

    fn forward(&mut self, batch: &Batch, kv: &mut KvPages, rows: &[u32], logits: &mut Buffer) {
        let count = batch.tokens.len();
        self.rows += count;
        self.counter.set(self.rows);
        self.most_rows = self.most_rows.max(count);
        self.most_spans = self.most_spans.max(batch.spans.len());
        let mut keys = Vec::new();
        for span in &batch.spans {
            let before = span.start.checked_sub(1).map_or(START as f32, |before| read(kv, span, before)[2]);
            let poisoned = before.is_nan() || batch.tokens[span.rows.clone()].contains(&POISON);
            let mut hash = before as u32;
            for (row, position) in span.rows.clone().zip(span.start..) {
                let token = batch.tokens[row];
                hash = next(hash, token);
                keys.extend([token as f32, position as f32, if poisoned { f32::NAN } else { hash as f32 }]);
            }
        }
        kv.write(&self.cpu, 0, &batch.spans, View::new(&keys, count, 3), View::new(&vec![0.0; count], count, 1));
        logits.resize(rows.len() * VOCAB);
        for (&row, logits) in rows.iter().zip(logits.chunks_exact_mut(VOCAB)) {
            let row = row as usize;
            let span = batch.spans.iter().find(|span| span.rows.contains(&row)).unwrap();
            let mut hash = START;
            // What is not a number reaches the rows before it as well, as in attention, where 0 times infinity is none.
            let mut poisoned = batch.tokens[span.rows.clone()].contains(&POISON);
            for position in 0..=span.start + row - span.rows.start {
                let [token, at, remembered] = read(kv, span, position)[..] else { panic!("a key of three") };
                hash = next(hash, token as u32);
                poisoned |= remembered.is_nan();
                let right = remembered.is_nan() || remembered == hash as f32;
                assert!(at == position as f32 && right, "the page is another sequence's");
            }
            if self.mistakes.is_some_and(|mistakes| hash.is_multiple_of(mistakes)) {
                hash = next(hash, 0);
            }
            logits.copy_from_slice(&if poisoned { [f32::NAN; VOCAB] } else { script(hash) });
        }
    }
}

/// The hash of no tokens.
pub const START: u32 = 17;

/// The hash of a history that goes on with `token`; 24 bits, which `f32` holds exactly.
pub fn next(hash: u32, token: u32) -> u32 {
    (mix(u64::from(hash) << 32 | u64::from(token)) >> 40) as u32
}

/// Logits after a history of that hash.
pub fn script(hash: u32) -> [f32; VOCAB] {
    std::array::from_fn(|id| match id as u32 {
        POISON => f32::NEG_INFINITY,
        STOP => -1.0,
        id => (mix(u64::from(hash) << 32 | u64::from(id)) >> 40) as f32 / (1 << 22) as f32 - 2.0,
    })
}

fn read(kv: &KvPages, span: &Span, position: usize) -> Vec<f32> {
    kv.key(0, span.pages[position / PAGE_POSITIONS], 0, position % PAGE_POSITIONS)
}

fn mix(x: u64) -> u64 {
    let x = (x ^ x >> 30).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// A prompt of ordinary tokens.
pub fn prompt(random: &mut Random, len: usize) -> Vec<u32> {
    (0..len).map(|_| 2 + random.below(VOCAB as u32 - 3)).collect()
}

/// A plain request: sampled at temperature 1 from its id's own random numbers, until `limit`.
pub fn request(id: u64, prompt: Vec<u32>, limit: usize) -> Request {
    let sampling = Sampling { seed: Seed { seed: 5, stream: [0, 0, id as u32] }, ..Sampling::default() };
    Request { id: RequestId(id), prompt, sampling, limit, stop: Vec::new(), thought: None }
}
