//! Products whose sums stay in registers, some rows by some vectors, written once over [`Simd`].
//!
//! The contract is [`super::generic`]'s, which every SAFETY line below refers to.

use super::simd::Simd;
use super::{Left, PANEL};
use crate::half::f32_from_bf16;
use std::mem::MaybeUninit;

/// The first n of V vectors at p, zeros behind them.
#[inline(always)]
pub unsafe fn load_row<S: Simd, const V: usize>(n: usize, p: *const f32) -> [S::F; V] {
    // SAFETY: the contract; reads stay below n.
    unsafe {
        let mut row = [S::splat(0.0); V];
        for v in 0..V {
            let at = v * S::LANES;
            if n >= at + S::LANES {
                row[v] = S::load(p.add(at));
            } else if n > at {
                row[v] = S::load_partial(p.add(at), n - at);
            }
        }
        row
    }
}

/// Stores the first n elements of V vectors at p.
#[inline(always)]
pub unsafe fn store_row<S: Simd, const V: usize>(n: usize, p: *mut f32, row: [S::F; V]) {
    // SAFETY: the contract; writes stay below n.
    unsafe {
        for v in 0..V {
            let at = v * S::LANES;
            if n >= at + S::LANES {
                S::store(p.add(at), row[v]);
            } else if n > at {
                S::store_partial(p.add(at), n - at, row[v]);
            }
        }
    }
}

/// R rows by V vectors (n columns of them kept), held in registers over all of k.
#[inline(always)]
pub unsafe fn tile<S: Simd, const R: usize, const V: usize>(
    n: usize,
    k: usize,
    a: Left,
    b: *const f32,
    b_stride: usize,
    c: *mut f32,
    c_stride: usize,
    add: bool,
) {
    // SAFETY: the contract, for R rows.
    unsafe {
        let mut sums = [[S::splat(0.0); V]; R];
        if add {
            for r in 0..R {
                sums[r] = load_row::<S, V>(n, c.add(r * c_stride));
            }
        }
        let mut left = a.data;
        let mut right = b;
        for _ in 0..k {
            let mut row = [S::splat(0.0); V];
            for v in 0..V {
                row[v] = S::load(right.add(v * S::LANES));
            }
            for r in 0..R {
                let x = S::splat(*left.add(r * a.row));
                for v in 0..V {
                    sums[r][v] = S::fma(x, row[v], sums[r][v]);
                }
            }
            left = left.wrapping_add(a.column);
            right = right.wrapping_add(b_stride);
        }
        for r in 0..R {
            store_row::<S, V>(n, c.add(r * c_stride), sums[r]);
        }
    }
}

/// All n columns of R rows, V vectors at a time, one at the end.
#[inline(always)]
pub unsafe fn rows<S: Simd, const R: usize, const V: usize>(
    n: usize,
    k: usize,
    a: Left,
    b: *const f32,
    b_stride: usize,
    c: *mut f32,
    c_stride: usize,
    add: bool,
) {
    let mut j = 0;
    // SAFETY: the contract; a tile reads b up to the multiple of LANES (which divides 16) that covers n.
    unsafe {
        while n > j + (V - 1) * S::LANES {
            tile::<S, R, V>(n - j, k, a, b.add(j), b_stride, c.add(j), c_stride, add);
            j += V * S::LANES;
        }
        while n > j {
            tile::<S, R, 1>(n - j, k, a, b.add(j), b_stride, c.add(j), c_stride, add);
            j += S::LANES;
        }
    }
}

/// R rows by V vectors of a panel of bf16: what is read is widened on the way, since it is read once.
#[inline(always)]
unsafe fn rows_bf16<S: Simd, const R: usize, const V: usize>(
    n: usize,
    k: usize,
    a: *const u16,
    a_stride: usize,
    b: *const u16,
    c: *mut f32,
    c_stride: usize,
    add: bool,
) {
    // SAFETY: the contract, for R rows; V vectors of pairs lie within a row of the panel.
    unsafe {
        let mut sums = [[S::splat(0.0); V]; R];
        if add {
            for r in 0..R {
                sums[r] = load_row::<S, V>(n, c.add(r * c_stride));
            }
        }
        for p in 0..k / 2 {
            let mut pairs = [(S::splat(0.0), S::splat(0.0)); R];
            for (r, pair) in pairs.iter_mut().enumerate() {
                *pair = S::splat_bf16_pair(a.add(r * a_stride + 2 * p));
            }
            for v in 0..V {
                let (even, odd) = S::load_bf16_pairs(b.add(2 * (p * PANEL + v * S::LANES)));
                for (r, sums) in sums.iter_mut().enumerate() {
                    sums[v] = S::fma(pairs[r].1, odd, S::fma(pairs[r].0, even, sums[v]));
                }
            }
        }
        for r in 0..R {
            store_row::<S, V>(n, c.add(r * c_stride), sums[r]);
        }
    }
}

/// [`rows_bf16`] on all n columns.
#[inline(always)]
unsafe fn all_columns_bf16<S: Simd, const R: usize, const V: usize>(
    n: usize,
    k: usize,
    a: *const u16,
    a_stride: usize,
    b: *const u16,
    c: *mut f32,
    c_stride: usize,
    add: bool,
) {
    for j in (0..n).step_by(V * S::LANES) {
        // SAFETY: the contract; j is below n, and V * LANES divides PANEL.
        unsafe { rows_bf16::<S, R, V>(n - j, k, a, a_stride, b.add(2 * j), c.add(j), c_stride, add) }
    }
}

/// See [`super::Kernels::gemm_bf16`]; for instruction sets without a product of bf16. Few rows read it as it is; many
/// are worth widening the panel for. Either way an element's sum runs over p in order, so its bits are the same.
#[inline(always)]
pub unsafe fn gemm_bf16<S: Simd>(
    m: usize,
    n: usize,
    k: usize,
    a: *const u16,
    a_stride: usize,
    b: *const u16,
    c: *mut f32,
    c_stride: usize,
    add: bool,
) {
    const ROWS: usize = 6;
    // Rows that are worth it.
    const MANY: usize = 12;
    let many = if k == 0 || m < MANY { 0 } else { m - m % ROWS };
    // SAFETY: the contract; rows stay below m.
    unsafe {
        if many > 0 {
            match S::LANES {
                4 => widened::<S, ROWS, 4>(many, n, k, a, a_stride, b, c, c_stride, add),
                _ => widened::<S, ROWS, 2>(many, n, k, a, a_stride, b, c, c_stride, add),
            }
        }
        let mut i = many;
        while i < m {
            let (a, c) = (a.add(i * a_stride), c.add(i * c_stride));
            let rows = (m - i).min(3);
            match (rows, S::LANES) {
                (1, 4) => all_columns_bf16::<S, 1, 8>(n, k, a, a_stride, b, c, c_stride, add),
                (1, 8) => all_columns_bf16::<S, 1, 4>(n, k, a, a_stride, b, c, c_stride, add),
                (1, _) => all_columns_bf16::<S, 1, 2>(n, k, a, a_stride, b, c, c_stride, add),
                (2, 4) => all_columns_bf16::<S, 2, 4>(n, k, a, a_stride, b, c, c_stride, add),
                (2, _) => all_columns_bf16::<S, 2, 2>(n, k, a, a_stride, b, c, c_stride, add),
                (_, 4) => all_columns_bf16::<S, 3, 4>(n, k, a, a_stride, b, c, c_stride, add),
                _ => all_columns_bf16::<S, 3, 2>(n, k, a, a_stride, b, c, c_stride, add),
            }
            i += rows;
        }
    }
}

/// `depth` rows of `width` columns of a panel of bf16, whose rows lie in pairs, in `f32`; of an odd number one more.
#[inline(always)]
pub unsafe fn widen_columns<S: Simd>(width: usize, depth: usize, b: *const u16, to: *mut f32) {
    for p in (0..depth).step_by(2) {
        for at in (0..width).step_by(S::LANES) {
            // SAFETY: the contract, for pairs of rows; LANES divides `width`.
            unsafe {
                let (even, odd) = S::load_bf16_pairs(b.add(p * PANEL + 2 * at));
                S::store(to.add(p * width + at), even);
                S::store(to.add((p + 1) * width + at), odd);
            }
        }
    }
}

/// [`gemm_bf16`] for a multiple of R rows, in `f32`.
#[inline(always)]
unsafe fn widened<S: Simd, const R: usize, const V: usize>(
    m: usize,
    n: usize,
    k: usize,
    a: *const u16,
    a_stride: usize,
    b: *const u16,
    c: *mut f32,
    c_stride: usize,
    add: bool,
) {
    const DEPTH: usize = 256;
    let mut left = [const { [const { MaybeUninit::<f32>::uninit() }; DEPTH] }; R];
    let mut right = [const { [const { MaybeUninit::<f32>::uninit() }; PANEL] }; DEPTH];
    let (left, right): (*mut f32, *mut f32) = (left.as_mut_ptr().cast(), right.as_mut_ptr().cast());
    for start in (0..k).step_by(DEPTH) {
        let depth = DEPTH.min(k - start);
        // SAFETY: the contract; depths stay below k, and what is read of the scratch was written just before.
        unsafe {
            widen_columns::<S>(PANEL, depth, b.add(start * PANEL), right);
            for i in (0..m).step_by(R) {
                for r in 0..R {
                    for p in 0..depth {
                        *left.add(r * DEPTH + p) = f32_from_bf16(*a.add((i + r) * a_stride + start + p));
                    }
                }
                let a = Left { data: left, row: DEPTH, column: 1 };
                let c = c.add(i * c_stride);
                rows::<S, R, V>(n, depth, a, right, PANEL, c, c_stride, add || start > 0);
            }
        }
    }
}
