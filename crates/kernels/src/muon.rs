//! Muon (Jordan and others, 2024, kellerjordan.github.io/posts/muon): momentum whose singular values are all made nearly one.
//!
//! With the scale of Moonlight (arXiv 2502.16982, equation 4), so that a matrix moves about as far as AdamW would move it at the
//! same rate.

use crate::cpu::Cpu;
use crate::gemm::{Job, Mode, Operand, gemm};
use crate::optimizer::sum_of_squares;
use crate::view::View;

/// Settings of Muon.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Muon {
    /// Step size.
    pub learning_rate: f64,
    /// Decay of the running sum of gradients.
    pub momentum: f64,
    /// Fraction of a parameter, times the learning rate, that a step takes away.
    pub weight_decay: f64,
}

/// Of the quintic x → ax + bx³ + cx⁵, which brings singular values from 0 to 1 towards one (the same source).
const QUINTIC: (f32, f32, f32) = (3.4445, -4.775, 2.0315);
/// How often it is applied.
const STEPS: usize = 5;
/// What the norm of a matrix of zeros counts as.
const LEAST: f64 = 1e-7;
/// Root mean square of AdamW's usual update, by Moonlight's measure.
const ADAMW_SIZE: f64 = 0.2;
/// Elements of a task.
const CHUNK: usize = 1 << 14;

/// One step on a matrix of (rows, columns), whose running sum of gradients is `sum` (zero before the first step), with
/// Nesterov's look ahead. The gradient is multiplied by `scale` first (clipping).
pub fn muon(
    cpu: &Cpu,
    settings: &Muon,
    scale: f32,
    (rows, cols): (usize, usize),
    gradient: &[f32],
    sum: &mut [f32],
    parameters: &mut [f32],
) {
    let n = rows * cols;
    assert_eq!((gradient.len(), sum.len(), parameters.len()), (n, n, n), "Muon on a matrix of {rows} by {cols}");
    let momentum = settings.momentum as f32;
    let mut update = cpu.scratch(n);
    each(cpu, sum, |i, sum| *sum = momentum * *sum + scale * gradient[i]);
    each(cpu, &mut update, |i, update| *update = momentum * sum[i] + scale * gradient[i]);
    let norm = (sum_of_squares(cpu, &update).sqrt() + LEAST) as f32;
    each(cpu, &mut update, |_, update| *update /= norm);
    orthogonalise(cpu, (rows, cols), &mut update);
    let rate = (settings.learning_rate * ADAMW_SIZE * (rows.max(cols) as f64).sqrt()) as f32;
    let keep = (1.0 - settings.learning_rate * settings.weight_decay) as f32;
    each(cpu, parameters, |i, parameter| *parameter = keep * *parameter - rate * update[i]);
}

/// Brings the singular values of x, none above one, towards one: x ← ax + (bA + cA²)x with A = x xᵀ, or, for a tall x, from
/// the other side, whichever product is smaller.
fn orthogonalise(cpu: &Cpu, (rows, cols): (usize, usize), x: &mut [f32]) {
    let (a, b, c) = QUINTIC;
    let side = rows.min(cols);
    let (mut squared, mut mixed, mut next) = (cpu.scratch(side * side), cpu.scratch(side * side), cpu.scratch(x.len()));
    for _ in 0..STEPS {
        let view = View::new(x, rows, cols);
        let product = if rows <= cols { job(view, view.t()) } else { job(view.t(), view) };
        gemm(cpu, &mut squared, side, Mode::Set, &product);
        let square = View::new(&squared, side, side);
        gemm(cpu, &mut mixed, side, Mode::Set, &job(square, square));
        each(cpu, &mut mixed, |i, mixed| *mixed = b * squared[i] + c * *mixed);
        each(cpu, &mut next, |i, next| *next = a * x[i]);
        let mixed = View::new(&mixed, side, side);
        let product = if rows <= cols { job(mixed, view) } else { job(view, mixed) };
        gemm(cpu, &mut next, cols, Mode::Add, &product);
        x.copy_from_slice(&next);
    }
}

fn job<'a>(a: View<'a>, b: View<'a>) -> [Job<'a>; 1] {
    [Job { a, b: Operand::View(b), row: 0, col: 0 }]
}

/// Calls `change` with each element and its index.
fn each(cpu: &Cpu, x: &mut [f32], change: impl Fn(usize, &mut f32) + Sync) {
    cpu.pool().chunks_mut(x, CHUNK, |chunk, x| {
        x.iter_mut().enumerate().for_each(|(i, x)| change(chunk * CHUNK + i, x));
    });
}
