//! Log-probabilities of tokens, and cross-entropy's gradient, without all logits at once.
//!
//! The vocabulary goes by in chunks of [`VOCAB_CHUNK`] with a running sum (Milakov and Gimelshein, arXiv 1805.02867).
//! Whole rows of logits are folded in the same order by [`log_sum_exp`], so that sampler and trainer agree bit for bit.

use std::ops::Range;

use crate::arch::Kernels;
use crate::blocks::rows_per_task;
use crate::cpu::Cpu;
use crate::gemm::{Job, Mode, Operand, gemm};
use crate::math;
use crate::matrix::{Dtype, Matrix, Packed, Packing};
use crate::view::View;

/// Logits of a row that are held at once.
pub const VOCAB_CHUNK: usize = 1024;

/// Rows whose logits are held at once: with [`VOCAB_CHUNK`], one MiB.
const BLOCK: usize = 256;

/// The cost of an exponential, in elements of plain arithmetic.
pub(crate) const COST: usize = 4;

/// What a row says of its target. Logarithms are natural.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LogProb {
    /// Log-probability of the target: its logit times the inverse temperature, minus `lse`.
    pub log_prob: f32,
    /// Log of the sum of exp(logit times inverse temperature).
    pub lse: f32,
    /// Entropy of the distribution.
    pub entropy: f32,
}

/// A running log-sum-exp. With z = logit times inverse temperature: the largest z, the sum of exp(z - max), and the
/// sum of (z - max) exp(z - max).
#[derive(Clone, Copy)]
pub(crate) struct Fold {
    pub max: f32,
    pub sum: f32,
    weighted: f32,
}

impl Fold {
    pub const START: Fold = Fold { max: f32::NEG_INFINITY, sum: 0.0, weighted: 0.0 };

    /// Takes in the next chunk of logits.
    pub fn chunk(&mut self, kernels: &Kernels, logits: &[f32], inverse_temperature: f32) {
        // SAFETY: the length is the slice's own.
        let largest = unsafe { (kernels.max)(logits.len(), logits.as_ptr()) } * inverse_temperature;
        if largest > self.max {
            // Both sums were made with the old largest z.
            let shift = self.max - largest;
            let factor = math::exp(f64::from(shift)) as f32;
            if self.sum > 0.0 {
                self.weighted = factor * (self.weighted + shift * self.sum);
                self.sum *= factor;
            }
            self.max = largest;
        }
        // As long as all are -inf, any finite number will do, and a NaN still shows.
        let shift = if self.max == f32::NEG_INFINITY { 0.0 } else { self.max };
        // SAFETY: as above.
        let (sum, weighted) = unsafe { (kernels.exp_sums)(logits.len(), inverse_temperature, shift, logits.as_ptr()) };
        self.sum += sum;
        self.weighted += weighted;
    }

    /// (log of the sum of exp z, entropy)
    pub fn finish(self) -> (f32, f32) {
        let log_sum = math::ln(f64::from(self.sum));
        let lse = f64::from(self.max) + log_sum;
        let entropy = log_sum - f64::from(self.weighted) / f64::from(self.sum);
        (lse as f32, entropy as f32)
    }
}

/// (log of the sum of exp(logit times inverse temperature), entropy) of one whole row of logits.
///
/// `logit * inverse_temperature - lse` has the bits that [`log_prob`] gives for the same row and weights. Some logits
/// may be -inf.
pub fn log_sum_exp(cpu: &Cpu, logits: &[f32], inverse_temperature: f32) -> (f32, f32) {
    assert_inverse_temperature(inverse_temperature);
    let mut fold = Fold::START;
    for chunk in logits.chunks(VOCAB_CHUNK) {
        fold.chunk(cpu.kernels, chunk, inverse_temperature);
    }
    fold.finish()
}

/// Turns one row of logits into probabilities, exp(logit times inverse temperature - lse), with the `lse` of
/// [`log_sum_exp`].
pub fn probabilities(cpu: &Cpu, logits: &mut [f32], inverse_temperature: f32, lse: f32) {
    assert_inverse_temperature(inverse_temperature);
    // SAFETY: the length is the slice's own.
    unsafe { (cpu.kernels.exp_scaled)(logits.len(), inverse_temperature, lse, 1.0, logits.as_mut_ptr()) }
}

/// Log-probability of `targets[r]` after row r of `hidden` (rows by inputs of `head`), set in `out`.
pub fn log_prob(
    cpu: &Cpu,
    head: &Matrix,
    hidden: View<'_>,
    targets: &[u32],
    inverse_temperature: f32,
    out: &mut [LogProb],
) {
    let rows = hidden.rows();
    assert_inverse_temperature(inverse_temperature);
    assert_eq!((targets.len(), out.len()), (rows, rows), "log-probabilities of {rows} rows");
    assert_targets(targets, head.outputs());
    let mut logits = Logits::new(rows, head.outputs());
    for (start, n) in row_blocks(rows) {
        let (hidden, targets, out) = (hidden.rows_from(start, n), &targets[start..][..n], &mut out[start..][..n]);
        let mut folds = vec![(Fold::START, 0.0); n];
        for columns in vocabulary_chunks(head.outputs()) {
            let width = columns.len();
            let logits = logits.fill(cpu, head, hidden, &columns);
            let block = rows_per_task(n, width * COST);
            cpu.pool().chunks_mut(&mut folds, block, |i, folds| {
                for (r, (fold, target)) in folds.iter_mut().enumerate() {
                    let r = i * block + r;
                    let logits = &logits[r * width..][..width];
                    fold.chunk(cpu.kernels, logits, inverse_temperature);
                    if columns.contains(&(targets[r] as usize)) {
                        *target = logits[targets[r] as usize - columns.start];
                    }
                }
            });
        }
        for (out, (fold, target)) in out.iter_mut().zip(folds) {
            let (lse, entropy) = fold.finish();
            *out = LogProb { log_prob: target * inverse_temperature - lse, lse, entropy };
        }
    }
}

/// Gradient of [`log_prob`] from `d_log_prob`, one number a row; `lse` is what it gave.
///
/// `d_logit[j] = d_log_prob * inverse_temperature * (1[j = target] - p[j])`, computed again chunk by chunk. `d_hidden`
/// (rows by inputs) and `d_head` (vocabulary by inputs) gain their gradients, the latter row after row. `head_rows` is
/// the head's weight as it was packed, vocabulary by inputs; products are in the head's own dtype. A block of 256 rows without
/// a gradient costs nothing.
pub fn log_prob_backward(
    cpu: &Cpu,
    head: &Matrix,
    head_rows: View<'_>,
    hidden: View<'_>,
    targets: &[u32],
    lse: &[f32],
    d_log_prob: &[f32],
    inverse_temperature: f32,
    d_hidden: &mut [f32],
    d_head: &mut [f32],
) {
    let learnt = Some((head_rows, d_head));
    backward(cpu, (head, dtype_of(head)), learnt, hidden, targets, lse, d_log_prob, inverse_temperature, d_hidden);
}

/// The gradient of `d_hidden` alone, as [`log_prob_backward`] has it, where the head is frozen: its rows are taken from how
/// it is packed, a chunk of the vocabulary at a time, and multiplied in `dtype`.
pub fn log_prob_backward_frozen(
    cpu: &Cpu,
    head: &Matrix,
    dtype: Dtype,
    hidden: View<'_>,
    targets: &[u32],
    lse: &[f32],
    d_log_prob: &[f32],
    inverse_temperature: f32,
    d_hidden: &mut [f32],
) {
    backward(cpu, (head, dtype), None, hidden, targets, lse, d_log_prob, inverse_temperature, d_hidden);
}

/// `learnt` is the head's rows and their gradient, where it has one.
fn backward(
    cpu: &Cpu,
    (head, dtype): (&Matrix, Dtype),
    learnt: Option<(View<'_>, &mut [f32])>,
    hidden: View<'_>,
    targets: &[u32],
    lse: &[f32],
    d_log_prob: &[f32],
    inverse_temperature: f32,
    d_hidden: &mut [f32],
) {
    let rows = hidden.rows();
    assert_inverse_temperature(inverse_temperature);
    assert_eq!((targets.len(), lse.len(), d_log_prob.len()), (rows, rows, rows), "gradients of {rows} rows");
    assert_targets(targets, head.outputs());
    let moves = |rows: Range<usize>| d_log_prob[rows].iter().any(|&d| d != 0.0);
    head_backward(cpu, (head, dtype), learnt, hidden, moves, d_hidden, |start, columns, logits| {
        let width = columns.len();
        let block = rows_per_task(logits.len() / width, width * COST);
        cpu.pool().chunks_mut(logits, block * width, |i, logits| {
            for (r, logits) in logits.chunks_exact_mut(width).enumerate() {
                let r = start + i * block + r;
                let d = d_log_prob[r] * inverse_temperature;
                // SAFETY: the length is the slice's own.
                unsafe { (cpu.kernels.exp_scaled)(width, inverse_temperature, lse[r], -d, logits.as_mut_ptr()) };
                if columns.contains(&(targets[r] as usize)) {
                    logits[targets[r] as usize - columns.start] += d;
                }
            }
        });
    });
}

/// What products of the backward pass of a head are in: its own dtype, or f32 where it is quantised.
pub(crate) fn dtype_of(head: &Matrix) -> Dtype {
    match head.packing() {
        Packing::Dense(dtype) => dtype,
        Packing::Quantized(_) => Dtype::F32,
    }
}

/// Goes back from the gradient of logits into `d_hidden` and, where the head has its rows and their gradient (`learnt`), into the
/// head, a chunk of the vocabulary at a time. `turn` is given the logits of a block of rows, with its first row and its columns,
/// and makes their gradient of them; blocks that `moves` says no of have none.
pub(crate) fn head_backward(
    cpu: &Cpu,
    (head, dtype): (&Matrix, Dtype),
    mut learnt: Option<(View<'_>, &mut [f32])>,
    hidden: View<'_>,
    moves: impl Fn(Range<usize>) -> bool,
    d_hidden: &mut [f32],
    mut turn: impl FnMut(usize, &Range<usize>, &mut [f32]),
) {
    let (rows, inputs, vocabulary) = (hidden.rows(), head.inputs(), head.outputs());
    assert_eq!(d_hidden.len(), rows * inputs, "gradients of {rows} rows");
    if let Some((rows, d_head)) = &learnt {
        let shape = (rows.rows(), rows.cols(), d_head.len());
        assert_eq!(shape, (vocabulary, inputs, vocabulary * inputs), "the head's rows and their gradient");
    }
    let blocks = row_blocks(rows).filter(|&(start, n)| moves(start..start + n));
    let pack = |start, n| Matrix::pack(cpu, dtype, hidden.rows_from(start, n).t());
    let packed = |(start, n)| (start, n, learnt.is_some().then(|| pack(start, n)));
    let blocks: Vec<(usize, usize, Option<Packed<'_>>)> = blocks.map(packed).collect();
    if blocks.is_empty() {
        return;
    }
    let mut logits = Logits::new(rows, vocabulary);
    let mut unpacked = cpu.scratch(if learnt.is_some() { 0 } else { vocabulary.min(VOCAB_CHUNK) * inputs });
    for columns in vocabulary_chunks(vocabulary) {
        let width = columns.len();
        let head_rows = match &learnt {
            Some((rows, _)) => rows.rows_from(columns.start, width),
            None => {
                head.rows(cpu, columns.clone(), &mut unpacked[..width * inputs]);
                View::new(&unpacked[..width * inputs], width, inputs)
            }
        };
        let weight = Matrix::pack(cpu, dtype, head_rows.t());
        for &(start, n, ref packed) in &blocks {
            let logits = logits.fill(cpu, head, hidden.rows_from(start, n), &columns);
            turn(start, &columns, logits);
            let d_logits = View::new(logits, n, width);
            let d_hidden = &mut d_hidden[start * inputs..][..n * inputs];
            let job = Job { a: d_logits, b: Operand::Packed(&weight), row: 0, col: 0 };
            gemm(cpu, d_hidden, inputs, Mode::Add, &[job]);
            if let (Some((_, d_head)), Some(packed)) = (&mut learnt, packed) {
                let job = Job { a: d_logits.t(), b: Operand::Packed(packed), row: columns.start, col: 0 };
                gemm(cpu, d_head, inputs, Mode::Add, &[job]);
            }
        }
    }
}

/// Room for the logits of a block of rows and a chunk of the vocabulary.
pub(crate) struct Logits(Vec<f32>);

impl Logits {
    pub fn new(rows: usize, vocabulary: usize) -> Logits {
        Logits(vec![0.0; rows.min(BLOCK) * vocabulary.min(VOCAB_CHUNK)])
    }

    /// The logits of all rows of `hidden` for `columns` of the vocabulary, rows by columns.
    pub fn fill(&mut self, cpu: &Cpu, head: &Matrix, hidden: View<'_>, columns: &Range<usize>) -> &mut [f32] {
        let out = &mut self.0[..hidden.rows() * columns.len()];
        let b = Operand::columns(head, columns.clone());
        gemm(cpu, out, columns.len(), Mode::Set, &[Job { a: hidden, b, row: 0, col: 0 }]);
        out
    }
}

/// (start, length) of blocks of rows.
pub(crate) fn row_blocks(rows: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..rows).step_by(BLOCK).map(move |start| (start, BLOCK.min(rows - start)))
}

pub(crate) fn vocabulary_chunks(vocabulary: usize) -> impl Iterator<Item = Range<usize>> {
    (0..vocabulary).step_by(VOCAB_CHUNK).map(move |start| start..vocabulary.min(start + VOCAB_CHUNK))
}

pub(crate) fn assert_targets(targets: &[u32], vocabulary: usize) {
    for &target in targets {
        assert!((target as usize) < vocabulary, "token {target} of a vocabulary of {vocabulary}");
    }
}

fn assert_inverse_temperature(it: f32) {
    assert!(it > 0.0 && it.is_finite(), "an inverse temperature of {it}");
}
