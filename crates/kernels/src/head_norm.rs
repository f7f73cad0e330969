//! RMSNorm of each head by itself: what Qwen3 does to queries and keys before they are rotated.

use crate::blocks::{chunks_mut_3, columns_per_task, rows_per_task};
use crate::cpu::Cpu;
use crate::heads::Heads;

/// y = x / sqrt(mean of x² + eps) * weight for each of `heads` heads in each of `rows` rows, where the mean is over the
/// `weight.len()` numbers of the head; `inv_rms`, rows by heads, keeps 1 / sqrt(…) for the way back.
pub fn rms_norm_heads(
    cpu: &Cpu,
    (rows, heads): (usize, usize),
    (x, from): (&[f32], Heads),
    weight: &[f32],
    eps: f32,
    (y, to): (&mut [f32], Heads),
    inv_rms: &mut [f32],
) {
    let dim = weight.len();
    if rows * heads * dim == 0 {
        return;
    }
    assert_inside((rows, heads, dim), x.len(), from);
    assert_inside((rows, heads, dim), y.len(), to);
    assert_eq!((y.len(), inv_rms.len()), (rows * to.row, rows * heads), "RMSNorm of {rows} rows of {heads} heads");
    let block = rows_per_task(rows, heads * dim);
    chunks_mut_3(cpu.pool(), (y, block * to.row), (inv_rms, block * heads), (&mut [(); 0], 0), |i, y, inv_rms, _| {
        for (r, (y, inv_rms)) in y.chunks_exact_mut(to.row).zip(inv_rms.chunks_exact_mut(heads)).enumerate() {
            let x = &x[(i * block + r) * from.row..];
            for (h, inv_rms) in inv_rms.iter_mut().enumerate() {
                let x = x[h * from.head + from.offset..][..dim].as_ptr();
                let y = y[h * to.head + to.offset..][..dim].as_mut_ptr();
                // SAFETY: x, weight and y have `dim` elements.
                unsafe {
                    let squares = (cpu.kernels.dot)(dim, x, x);
                    *inv_rms = 1.0 / (squares / dim as f32 + eps).sqrt();
                    (cpu.kernels.scale_by)(dim, *inv_rms, x, weight.as_ptr(), y);
                }
            }
        }
    });
}

/// Gradients of [`rms_norm_heads`]: what lies at `at` in `d` is the gradient of y before and of x after.
///
/// With g = dy * weight: dx = inv_rms * (g - x * inv_rms² * mean of g * x). `d_weight` gains dy * x * inv_rms, head after
/// head, row after row; there is none where the weight is frozen.
pub fn rms_norm_heads_backward(
    cpu: &Cpu,
    (rows, heads): (usize, usize),
    (x, from): (&[f32], Heads),
    weight: &[f32],
    inv_rms: &[f32],
    (d, at): (&mut [f32], Heads),
    d_weight: Option<&mut [f32]>,
) {
    let dim = weight.len();
    if rows * heads * dim == 0 {
        return;
    }
    assert_inside((rows, heads, dim), x.len(), from);
    assert_inside((rows, heads, dim), d.len(), at);
    assert_eq!((d.len(), inv_rms.len()), (rows * at.row, rows * heads), "RMSNorm backward");

    if let Some(d_weight) = d_weight {
        assert_eq!(d_weight.len(), dim, "the gradient of a weight of {dim}");
        let width = columns_per_task(cpu, rows * heads, dim);
        let dy = &*d;
        cpu.pool().chunks_mut(d_weight, width, |i, d_weight| {
            let (from_column, n) = (i * width, d_weight.len());
            let mut normed = vec![0.0; n];
            for (r, inv_rms) in inv_rms.chunks_exact(heads).enumerate() {
                for (h, &inv_rms) in inv_rms.iter().enumerate() {
                    let x = x[r * from.row + h * from.head + from.offset + from_column..][..n].as_ptr();
                    let dy = dy[r * at.row + h * at.head + at.offset + from_column..][..n].as_ptr();
                    // SAFETY: all have n elements.
                    unsafe {
                        (cpu.kernels.scale_by)(n, inv_rms, x, dy, normed.as_mut_ptr());
                        (cpu.kernels.axpy)(n, 1.0, normed.as_ptr(), d_weight.as_mut_ptr());
                    }
                }
            }
        });
    }

    let block = rows_per_task(rows, heads * dim);
    cpu.pool().chunks_mut(d, block * at.row, |i, d| {
        let mut g = vec![0.0; dim];
        for (r, d) in d.chunks_exact_mut(at.row).enumerate() {
            let r = i * block + r;
            for h in 0..heads {
                let x = x[r * from.row + h * from.head + from.offset..][..dim].as_ptr();
                let d = &mut d[h * at.head + at.offset..][..dim];
                let inv_rms = inv_rms[r * heads + h];
                // SAFETY: all have `dim` elements.
                unsafe {
                    (cpu.kernels.scale_by)(dim, inv_rms, d.as_ptr(), weight.as_ptr(), g.as_mut_ptr());
                    let mean = (cpu.kernels.dot)(dim, g.as_ptr(), x) / dim as f32;
                    (cpu.kernels.axpy)(dim, -mean * inv_rms * inv_rms, x, g.as_mut_ptr());
                }
                d.copy_from_slice(&g);
            }
        }
    });
}

/// # Panics
/// If a head of the last row ends after `len`, or the heads of a row do not lie inside it one after the other.
fn assert_inside((rows, heads, dim): (usize, usize, usize), len: usize, at: Heads) {
    let end = (heads - 1) * at.head + at.offset + dim;
    assert!(heads == 1 || at.head >= dim, "heads of {dim} numbers overlap, {} apart", at.head);
    assert!(end <= at.row && (rows - 1) * at.row + end <= len, "heads past the end of a row");
}
