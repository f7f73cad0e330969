//! RMSNorm (Zhang and Sennrich, arXiv 1910.07467).

use crate::blocks::{chunks_mut_3, columns_per_task, rows_per_task};
use crate::cpu::Cpu;
use crate::view::View;

/// y = x / sqrt(mean of x² + eps) * weight, row by row; `inv_rms` keeps 1 / sqrt(…) of each row for the way back.
///
/// `x` is rows by dim, rows contiguous; `y` is rows by dim; `inv_rms` has one number a row.
pub fn rms_norm(cpu: &Cpu, x: View<'_>, weight: &[f32], eps: f32, y: &mut [f32], inv_rms: &mut [f32]) {
    let (rows, dim) = (x.rows(), x.cols());
    assert_eq!((weight.len(), y.len(), inv_rms.len()), (dim, rows * dim, rows), "RMSNorm of {rows} by {dim}");
    if rows * dim == 0 {
        return;
    }
    let block = rows_per_task(rows, dim);
    chunks_mut_3(cpu.pool(), (y, block * dim), (inv_rms, block), (&mut [(); 0], 0), |i, y, inv_rms, _| {
        for (r, (y, inv_rms)) in y.chunks_exact_mut(dim).zip(inv_rms).enumerate() {
            let x = x.row(i * block + r).as_ptr();
            // SAFETY: x, weight and y have `dim` elements.
            unsafe {
                let squares = (cpu.kernels.dot)(dim, x, x);
                *inv_rms = 1.0 / (squares / dim as f32 + eps).sqrt();
                (cpu.kernels.scale_by)(dim, *inv_rms, x, weight.as_ptr(), y.as_mut_ptr());
            }
        }
    });
}

/// Gradients of [`rms_norm`] from `dy`, rows by dim.
///
/// With g = dy * weight: dx = inv_rms * (g - x * inv_rms² * mean of g * x), set or added at rows `dx_stride` apart.
/// `d_weight` gains dy * x * inv_rms, row after row; there is none where the weight is frozen.
pub fn rms_norm_backward(
    cpu: &Cpu,
    x: View<'_>,
    weight: &[f32],
    inv_rms: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    dx_stride: usize,
    add: bool,
    d_weight: Option<&mut [f32]>,
) {
    let (rows, dim) = (x.rows(), x.cols());
    assert_eq!((weight.len(), dy.len(), inv_rms.len()), (dim, rows * dim, rows), "RMSNorm backward of {rows} by {dim}");
    if rows * dim == 0 {
        return;
    }
    assert!(dx_stride >= dim && dx.len() >= (rows - 1) * dx_stride + dim, "RMSNorm backward past the end of dx");

    let block = rows_per_task(rows, dim);
    let dx = &mut dx[..(rows - 1) * dx_stride + dim];
    cpu.pool().chunks_mut(dx, block * dx_stride, |i, dx| {
        let mut scratch = vec![0.0; if add { dim } else { 0 }];
        for (r, dx) in dx.chunks_mut(dx_stride).enumerate() {
            let (r, dx) = (i * block + r, dx.as_mut_ptr());
            let (x, dy, inv_rms) = (x.row(r).as_ptr(), dy[r * dim..][..dim].as_ptr(), inv_rms[r]);
            let out = if add { scratch.as_mut_ptr() } else { dx };
            // SAFETY: all have `dim` elements; a last chunk is exactly `dim` long.
            unsafe {
                (cpu.kernels.scale_by)(dim, inv_rms, dy, weight.as_ptr(), out);
                let mean = (cpu.kernels.dot)(dim, out, x) / dim as f32;
                (cpu.kernels.axpy)(dim, -mean * inv_rms * inv_rms, x, out);
                if add {
                    (cpu.kernels.axpy)(dim, 1.0, out, dx);
                }
            }
        }
    });

    let Some(d_weight) = d_weight else { return };
    assert_eq!(d_weight.len(), dim, "the gradient of a weight of {dim}");
    let width = columns_per_task(cpu, rows, dim);
    cpu.pool().chunks_mut(d_weight, width, |i, d_weight| {
        let (from, n) = (i * width, d_weight.len());
        let mut normed = vec![0.0; n];
        for r in 0..rows {
            let (x, dy) = (x.row(r)[from..][..n].as_ptr(), dy[r * dim + from..][..n].as_ptr());
            // SAFETY: all have n elements.
            unsafe {
                (cpu.kernels.scale_by)(n, inv_rms[r], x, dy, normed.as_mut_ptr());
                (cpu.kernels.axpy)(n, 1.0, normed.as_ptr(), d_weight.as_mut_ptr());
            }
        }
    });
}
