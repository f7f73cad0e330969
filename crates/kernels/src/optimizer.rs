//! AdamW (Loshchilov and Hutter, arXiv 1711.05101) and the gradient norm that clipping needs.

use crate::arch::AdamStep;
use crate::blocks::{chunks_mut_3, rows_per_task};
use crate::cpu::Cpu;
use crate::math;

/// Elements of a task, and leaves of the tree that adds up squares: part of what a norm's bits depend on.
const CHUNK: usize = 4096;

/// Settings of AdamW, as torch names them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Step size, before the bias correction.
    pub learning_rate: f64,
    /// Decay of the running mean of gradients.
    pub beta1: f64,
    /// Decay of the running mean of their squares.
    pub beta2: f64,
    /// Added to the root of the second mean.
    pub eps: f64,
    /// Fraction of a parameter, times the learning rate, that a step takes away.
    pub weight_decay: f64,
}

impl AdamW {
    /// The numbers of step `step` (from 1), whose gradient is multiplied by `scale`.
    pub(crate) fn at(&self, step: u64, scale: f32) -> AdamStep {
        assert!(step > 0, "AdamW counts its steps from 1");
        let &AdamW { learning_rate, beta1, beta2, eps, weight_decay } = self;
        let correction = |beta: f64| 1.0 - math::powf(beta, step as f64);
        AdamStep {
            scale,
            beta1: beta1 as f32,
            rest1: (1.0 - beta1) as f32,
            beta2: beta2 as f32,
            rest2: (1.0 - beta2) as f32,
            rate: (learning_rate / correction(beta1)) as f32,
            root: (1.0 / correction(beta2).sqrt()) as f32,
            eps: eps as f32,
            keep: (1.0 - learning_rate * weight_decay) as f32,
        }
    }
}

/// Step number `step` (from 1) on `parameters`, whose running means are `m` and `v` (zero before step 1).
///
/// The gradient is multiplied by `scale` first (clipping).
pub fn adamw(
    cpu: &Cpu,
    settings: &AdamW,
    step: u64,
    scale: f32,
    gradient: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    parameters: &mut [f32],
) {
    let n = parameters.len();
    assert_eq!((gradient.len(), m.len(), v.len()), (n, n, n), "AdamW on {n} parameters");
    let numbers = settings.at(step, scale);
    let chunk = CHUNK * rows_per_task(n.div_ceil(CHUNK), CHUNK);
    chunks_mut_3(cpu.pool(), (parameters, chunk), (m, chunk), (v, chunk), |i, parameters, m, v| {
        adamw_part(cpu, numbers, &gradient[i * chunk..][..parameters.len()], m, v, parameters);
    });
}

/// A task's part of a step.
pub(crate) fn adamw_part(
    cpu: &Cpu,
    numbers: AdamStep,
    gradient: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    parameters: &mut [f32],
) {
    let n = parameters.len();
    assert_eq!((gradient.len(), m.len(), v.len()), (n, n, n), "a part of a step on {n} parameters");
    let (gradient, m, v) = (gradient.as_ptr(), m.as_mut_ptr(), v.as_mut_ptr());
    // SAFETY: all four have n elements.
    unsafe { (cpu.kernels.adamw)(n, numbers, gradient, m, v, parameters.as_mut_ptr()) };
}

/// Sum of x², in `f64` by chunks of 4096 and a tree over them: the same on every machine, whatever the threads.
pub fn sum_of_squares(cpu: &Cpu, x: &[f32]) -> f64 {
    let mut sums = vec![0.0; x.len().div_ceil(CHUNK)];
    let block = rows_per_task(sums.len(), CHUNK);
    cpu.pool().chunks_mut(&mut sums, block, |i, sums| {
        for (j, sum) in sums.iter_mut().enumerate() {
            let start = (i * block + j) * CHUNK;
            *sum = squares(&x[start..x.len().min(start + CHUNK)]);
        }
    });
    tree(&sums)
}

/// Eight sums side by side, then a tree over them.
fn squares(x: &[f32]) -> f64 {
    let mut sums = [0.0; 8];
    let (groups, rest) = x.as_chunks::<8>();
    for group in groups {
        for (sum, &x) in sums.iter_mut().zip(group) {
            *sum += f64::from(x) * f64::from(x);
        }
    }
    for (sum, &x) in sums.iter_mut().zip(rest) {
        *sum += f64::from(x) * f64::from(x);
    }
    tree(&sums)
}

/// Halves added pairwise, the first half the largest power of two below the length.
fn tree(sums: &[f64]) -> f64 {
    match sums {
        [] => 0.0,
        [sum] => *sum,
        _ => {
            let (left, right) = sums.split_at(sums.len().next_power_of_two() / 2);
            tree(left) + tree(right)
        }
    }
}
