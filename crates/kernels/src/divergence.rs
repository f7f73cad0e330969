//! How far a model's next-token distribution is from a teacher's, and its gradient, without all logits at once.
//!
//! The divergence is Kullback and Leibler's from the teacher to the model that learns, the sum over the vocabulary of
//! p (ln p − ln q) with the teacher's p: the cross-entropy with a teacher's probabilities of knowledge distillation
//! (arXiv 1503.02531), less the teacher's entropy. The vocabulary goes by in the chunks of [`crate::log_prob`].

use std::ops::Range;

use crate::arch::Kernels;
use crate::blocks::rows_per_task;
use crate::cpu::Cpu;
use crate::log_prob::{COST, Fold, Logits, assert_targets, dtype_of, head_backward, row_blocks, vocabulary_chunks};
use crate::math;
use crate::matrix::Matrix;
use crate::view::View;

/// The end of a model: final hidden states, rows by inputs of the head that makes logits of them.
#[derive(Clone, Copy)]
pub struct Output<'a> {
    /// Vocabulary by inputs.
    pub head: &'a Matrix,
    /// Rows by inputs.
    pub hidden: View<'a>,
}

/// What a row says of its target and of a teacher. Logarithms are natural.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Divergence {
    /// Log-probability of the target, with the bits of [`crate::log_prob::log_prob`] at temperature 1.
    pub log_prob: f32,
    /// Kullback–Leibler divergence from the teacher's distribution.
    pub kl: f32,
    /// Log of the sum of the exponentials of the model's logits,
    pub lse: f32,
    /// and of the teacher's.
    pub teacher_lse: f32,
}

/// The teacher's side of a running divergence. With z and w the logits of the teacher and of the model less the largest of them
/// so far: the sums of exp z and of (z - w) exp z.
#[derive(Clone, Copy)]
struct Gap {
    max: f32,
    /// The model's largest logit when the sum was made.
    student_max: f32,
    sum: f32,
    weighted: f32,
}

impl Gap {
    const START: Gap = Gap { max: f32::NEG_INFINITY, student_max: f32::NEG_INFINITY, sum: 0.0, weighted: 0.0 };

    /// Takes in the next chunk of logits, whose largest of the model's side so far is known.
    fn chunk(&mut self, kernels: &Kernels, teacher: &[f32], student: &[f32], student_max: f32) {
        assert_eq!(teacher.len(), student.len(), "logits of two vocabularies");
        // SAFETY: the length is the slice's own.
        let max = unsafe { (kernels.max)(teacher.len(), teacher.as_ptr()) }.max(self.max);
        if self.sum > 0.0 {
            // Both sums were made with the largest of then.
            let moved = (self.max - max) - (self.student_max - student_max);
            let factor = math::exp(f64::from(self.max - max)) as f32;
            self.weighted = factor * (self.weighted + moved * self.sum);
            self.sum *= factor;
        }
        (self.max, self.student_max) = (max, student_max);
        // As long as all are -inf, any finite number will do, and a NaN still shows.
        let finite = |max: f32| if max == f32::NEG_INFINITY { 0.0 } else { max };
        let (shift, student_shift, n) = (finite(max), finite(student_max), teacher.len());
        // SAFETY: both slices have `n` numbers.
        let (sum, weighted) =
            unsafe { (kernels.exp_gaps)(n, shift, student_shift, teacher.as_ptr(), student.as_ptr()) };
        self.sum += sum;
        self.weighted += weighted;
    }
}

/// [`Divergence`] of each row of `student` from the same row of `teacher`, which has the same vocabulary, set in `out`;
/// `targets[r]` is a token.
pub fn divergence(cpu: &Cpu, student: Output<'_>, teacher: Output<'_>, targets: &[u32], out: &mut [Divergence]) {
    let (rows, vocabulary) = (student.hidden.rows(), student.head.outputs());
    assert_shapes(student, teacher, targets);
    assert_eq!(out.len(), rows, "divergences of {rows} rows");
    let (mut logits, mut teacher_logits) = (Logits::new(rows, vocabulary), Logits::new(rows, vocabulary));
    for (start, n) in row_blocks(rows) {
        let (targets, out) = (&targets[start..][..n], &mut out[start..][..n]);
        let mut folds = vec![(Fold::START, Gap::START, 0.0); n];
        for columns in vocabulary_chunks(vocabulary) {
            let width = columns.len();
            let logits = logits.fill(cpu, student.head, student.hidden.rows_from(start, n), &columns);
            let teacher_logits = teacher_logits.fill(cpu, teacher.head, teacher.hidden.rows_from(start, n), &columns);
            let block = rows_per_task(n, width * 2 * COST);
            cpu.pool().chunks_mut(&mut folds, block, |i, folds| {
                for (r, (fold, gap, target)) in folds.iter_mut().enumerate() {
                    let r = i * block + r;
                    let (logits, teacher_logits) =
                        (&logits[r * width..][..width], &teacher_logits[r * width..][..width]);
                    fold.chunk(cpu.kernels, logits, 1.0);
                    gap.chunk(cpu.kernels, teacher_logits, logits, fold.max);
                    if columns.contains(&(targets[r] as usize)) {
                        *target = logits[targets[r] as usize - columns.start];
                    }
                }
            });
        }
        for (out, (fold, gap, target)) in out.iter_mut().zip(folds) {
            let (lse, _) = fold.finish();
            let log_sum = math::ln(f64::from(gap.sum));
            // ln p - ln q = (z - ln sum exp z) - (w - ln sum exp w)
            let kl = f64::from(gap.weighted) / f64::from(gap.sum) - log_sum + math::ln(f64::from(fold.sum));
            let teacher_lse = (f64::from(gap.max) + log_sum) as f32;
            *out = Divergence { log_prob: target - lse, kl: kl as f32, lse, teacher_lse };
        }
    }
}

/// Gradient of [`divergence`] from `d_log_prob` and `d_kl`, a number a row each; `rows` is what it gave.
///
/// `d_logit[j] = d_kl * (q[j] - p[j]) + d_log_prob * (1[j = target] - q[j])` with the teacher's p and the model's q, computed
/// again chunk by chunk. `d_hidden` (rows by inputs) and `d_head` (vocabulary by inputs) of the model gain their gradients, the
/// latter row after row; the teacher has none. `head_rows` is the model's head as it was packed, vocabulary by inputs;
/// products are in its dtype. A block of 256 rows without a gradient costs nothing.
pub fn divergence_backward(
    cpu: &Cpu,
    student: Output<'_>,
    head_rows: View<'_>,
    teacher: Output<'_>,
    targets: &[u32],
    rows: &[Divergence],
    d_log_prob: &[f32],
    d_kl: &[f32],
    d_hidden: &mut [f32],
    d_head: &mut [f32],
) {
    let Output { head, hidden } = student;
    let count = hidden.rows();
    assert_shapes(student, teacher, targets);
    assert_eq!((rows.len(), d_log_prob.len(), d_kl.len()), (count, count, count), "gradients of {count} rows");
    let moves = |rows: Range<usize>| d_log_prob[rows.clone()].iter().chain(&d_kl[rows]).any(|&d| d != 0.0);
    let mut teacher_logits = Logits::new(count, head.outputs());
    let (learnt, dtype) = (Some((head_rows, d_head)), dtype_of(head));
    head_backward(cpu, (head, dtype), learnt, hidden, moves, d_hidden, |start, columns, logits| {
        let width = columns.len();
        let n = logits.len() / width;
        let teacher_logits = teacher_logits.fill(cpu, teacher.head, teacher.hidden.rows_from(start, n), columns);
        let block = rows_per_task(n, width * 2 * COST);
        cpu.pool().chunks_mut(teacher_logits, block * width, |i, logits| {
            for (r, logits) in logits.chunks_exact_mut(width).enumerate() {
                let r = start + i * block + r;
                let (lse, factor) = (rows[r].teacher_lse, -d_kl[r]);
                // SAFETY: the length is the slice's own.
                unsafe { (cpu.kernels.exp_scaled)(width, 1.0, lse, factor, logits.as_mut_ptr()) };
            }
        });
        cpu.pool().chunks_mut(logits, block * width, |i, logits| {
            for (r, logits) in logits.chunks_exact_mut(width).enumerate() {
                let teacher = &teacher_logits[(i * block + r) * width..][..width];
                let r = start + i * block + r;
                let (lse, factor) = (rows[r].lse, d_kl[r] - d_log_prob[r]);
                // SAFETY: both slices have `width` numbers.
                unsafe {
                    (cpu.kernels.exp_scaled)(width, 1.0, lse, factor, logits.as_mut_ptr());
                    (cpu.kernels.axpy)(width, 1.0, teacher.as_ptr(), logits.as_mut_ptr());
                }
                if columns.contains(&(targets[r] as usize)) {
                    logits[targets[r] as usize - columns.start] += d_log_prob[r];
                }
            }
        });
    });
}

fn assert_shapes(student: Output<'_>, teacher: Output<'_>, targets: &[u32]) {
    let (rows, vocabulary) = (student.hidden.rows(), student.head.outputs());
    assert_eq!((teacher.hidden.rows(), targets.len()), (rows, rows), "a teacher and targets of {rows} rows");
    assert_eq!(teacher.head.outputs(), vocabulary, "the vocabularies of a model and its teacher");
    assert_targets(targets, vocabulary);
}
