//! The kernels, written once over [`Simd`]; [`table!`] compiles them for an instruction set.
//!
//! All functions here share one contract, that of [`super::Kernels`]: the CPU has the instruction set, and pointers
//! are valid for the sizes given. It is what every SAFETY line below refers to.

use super::products::load_row;
use super::simd::Simd;
use super::{AdamStep, PAGE, PANEL};

/// exp(x), relative error about 1e-7; 0 below -88, large but finite above 88.3. The polynomial is Cephes' expf.
#[inline(always)]
unsafe fn exp<S: Simd>(x: S::F) -> S::F {
    // SAFETY: the contract.
    unsafe {
        // The constant stands first so that a NaN comes through.
        let x = S::min(S::splat(88.376), S::max(S::splat(-88.0), x));
        let n = S::round(S::mul(x, S::splat(std::f32::consts::LOG2_E)));
        let r = S::fma(n, S::splat(-0.693_359_4), x);
        let r = S::fma(n, S::splat(2.121_944_4e-4), r);
        let mut p = S::splat(1.987_569_1e-4);
        p = S::fma(p, r, S::splat(1.398_2e-3));
        p = S::fma(p, r, S::splat(8.333_452e-3));
        p = S::fma(p, r, S::splat(4.166_579_6e-2));
        p = S::fma(p, r, S::splat(1.666_666_5e-1));
        p = S::fma(p, r, S::splat(0.5));
        let p = S::add(S::fma(p, S::mul(r, r), r), S::splat(1.0));
        S::times_power_of_two(p, n)
    }
}

/// 1 / (1 + exp(-x))
#[inline(always)]
unsafe fn sigmoid<S: Simd>(x: S::F) -> S::F {
    // SAFETY: the contract.
    unsafe {
        let one = S::splat(1.0);
        S::div(one, S::add(one, exp::<S>(S::sub(S::splat(0.0), x))))
    }
}

/// Runs `$body` for each vector of `n` elements; `$load` and `$store` are whole or partial as the place demands.
macro_rules! for_vectors {
    ($S:ident, $n:expr, |$i:ident, $load:ident, $store:ident| $body:block) => {{
        let n = $n;
        let whole = n - n % $S::LANES;
        let mut $i = 0;
        while $i < whole {
            macro_rules! $load {
                ($p:expr) => {
                    $S::load($p.add($i))
                };
            }
            #[allow(unused_macros)]
            macro_rules! $store {
                ($p:expr, $x:expr) => {
                    $S::store($p.add($i), $x)
                };
            }
            $body
            $i += $S::LANES;
        }
        if $i < n {
            macro_rules! $load {
                ($p:expr) => {
                    $S::load_partial($p.add($i), n - $i)
                };
            }
            #[allow(unused_macros)]
            macro_rules! $store {
                ($p:expr, $x:expr) => {
                    $S::store_partial($p.add($i), n - $i, $x)
                };
            }
            $body
        }
    }};
}

/// See [`super::Kernels::softmax`].
#[inline(always)]
pub unsafe fn softmax<S: Simd>(
    rows: usize,
    columns: usize,
    scores: *mut f32,
    stride: usize,
    visible: usize,
    rows_per_position: usize,
    scale: f32,
    max: *mut f32,
    sum: *mut f32,
) {
    // SAFETY: the contract; `seen` never exceeds `columns`, which LANES divides.
    unsafe {
        for r in 0..rows {
            let row = scores.add(r * stride);
            let seen = (visible + r / rows_per_position).min(columns);
            for j in seen..columns {
                *row.add(j) = f32::NEG_INFINITY;
            }
            let mut largest = S::splat(f32::NEG_INFINITY);
            for j in (0..columns).step_by(S::LANES) {
                let x = S::mul(S::load(row.add(j)), S::splat(scale));
                S::store(row.add(j), x);
                largest = S::max(largest, x);
            }
            let now = S::largest(largest);
            let shift = S::splat(now);
            let mut total = S::splat(0.0);
            for j in (0..columns).step_by(S::LANES) {
                let p = exp::<S>(S::sub(S::load(row.add(j)), shift));
                S::store(row.add(j), p);
                total = S::add(total, p);
            }
            *sum.add(r) = S::sum(total);
            *max.add(r) = now;
        }
    }
}

/// See [`super::Kernels::softmax_page_backward`].
#[inline(always)]
pub unsafe fn softmax_page_backward<S: Simd>(
    rows: usize,
    scores: *mut f32,
    d_p: *mut f32,
    visible: usize,
    rows_per_position: usize,
    scale: f32,
    lse: *const f32,
    delta: *const f32,
) {
    // SAFETY: the contract.
    unsafe {
        for r in 0..rows {
            let (row, d_row) = (scores.add(r * PAGE), d_p.add(r * PAGE));
            let seen = (visible + r / rows_per_position).min(PAGE);
            for j in seen..PAGE {
                *row.add(j) = f32::NEG_INFINITY;
                *d_row.add(j) = 0.0;
            }
            let (shift, delta) = (S::splat(*lse.add(r)), S::splat(*delta.add(r)));
            for v in 0..PAGE / S::LANES {
                let at = v * S::LANES;
                let p = exp::<S>(S::sub(S::mul(S::load(row.add(at)), S::splat(scale)), shift));
                let d = S::mul(S::mul(p, S::sub(S::load(d_row.add(at)), delta)), S::splat(scale));
                S::store(row.add(at), p);
                S::store(d_row.add(at), d);
            }
        }
    }
}

#[inline(always)]
pub unsafe fn scale<S: Simd>(n: usize, factor: f32, x: *mut f32) {
    // SAFETY: the contract.
    unsafe {
        let factor = S::splat(factor);
        for_vectors!(S, n, |i, load, store| { store!(x, S::mul(load!(x), factor)) });
    }
}

#[inline(always)]
pub unsafe fn axpy<S: Simd>(n: usize, factor: f32, x: *const f32, y: *mut f32) {
    // SAFETY: the contract.
    unsafe {
        let factor = S::splat(factor);
        for_vectors!(S, n, |i, load, store| { store!(y, S::fma(factor, load!(x), load!(y))) });
    }
}

#[inline(always)]
pub unsafe fn dot<S: Simd>(n: usize, x: *const f32, y: *const f32) -> f32 {
    // SAFETY: the contract. Four sums side by side, since one would wait for each addition.
    unsafe {
        let mut totals = [S::splat(0.0); 4];
        let mut i = 0;
        while i < n {
            let (xs, ys) = (load_row::<S, 4>(n - i, x.add(i)), load_row::<S, 4>(n - i, y.add(i)));
            for v in 0..4 {
                totals[v] = S::fma(xs[v], ys[v], totals[v]);
            }
            i += 4 * S::LANES;
        }
        S::sum(S::add(S::add(totals[0], totals[1]), S::add(totals[2], totals[3])))
    }
}

#[inline(always)]
pub unsafe fn max<S: Simd>(n: usize, x: *const f32) -> f32 {
    // SAFETY: the contract. A partial load pads with zeros, which must not win: the tail goes one by one.
    unsafe {
        let whole = n - n % S::LANES;
        let mut largest = S::splat(f32::NEG_INFINITY);
        for i in (0..whole).step_by(S::LANES) {
            largest = S::max(largest, S::load(x.add(i)));
        }
        (whole..n).fold(S::largest(largest), |m, i| m.max(*x.add(i)))
    }
}

#[inline(always)]
pub unsafe fn exp_sums<S: Simd>(n: usize, scale: f32, shift: f32, x: *const f32) -> (f32, f32) {
    // SAFETY: the contract. What is left of a vector is filled up with -inf, whose exponential is 0.
    unsafe {
        let (scale, shift) = (S::splat(scale), S::splat(shift));
        let (mut total, mut weighted) = (S::splat(0.0), S::splat(0.0));
        let mut tail = [f32::NEG_INFINITY; 32];
        let whole = n - n % S::LANES;
        std::ptr::copy_nonoverlapping(x.add(whole), tail.as_mut_ptr(), n - whole);
        let mut i = 0;
        while i < n {
            let p = if i < whole { x.add(i) } else { tail.as_ptr() };
            // The constant stands first so that a NaN comes through.
            let z = S::max(S::splat(-88.0), S::sub(S::mul(S::load(p), scale), shift));
            let e = exp::<S>(z);
            total = S::add(total, e);
            weighted = S::fma(z, e, weighted);
            i += S::LANES;
        }
        (S::sum(total), S::sum(weighted))
    }
}

#[inline(always)]
pub unsafe fn exp_gaps<S: Simd>(n: usize, x_shift: f32, y_shift: f32, x: *const f32, y: *const f32) -> (f32, f32) {
    // SAFETY: the contract. What is left of a vector is filled up with -inf, whose exponential is 0, and with what differs
    // from it by a number.
    unsafe {
        let (x_shift, y_shift) = (S::splat(x_shift), S::splat(y_shift));
        let (mut total, mut weighted) = (S::splat(0.0), S::splat(0.0));
        let (mut x_tail, mut y_tail) = ([f32::NEG_INFINITY; 32], [0.0_f32; 32]);
        let whole = n - n % S::LANES;
        std::ptr::copy_nonoverlapping(x.add(whole), x_tail.as_mut_ptr(), n - whole);
        std::ptr::copy_nonoverlapping(y.add(whole), y_tail.as_mut_ptr(), n - whole);
        let mut i = 0;
        while i < n {
            let (x, y) = if i < whole { (x.add(i), y.add(i)) } else { (x_tail.as_ptr(), y_tail.as_ptr()) };
            // The constant stands first so that a NaN comes through.
            let z = S::max(S::splat(-88.0), S::sub(S::load(x), x_shift));
            let e = exp::<S>(z);
            total = S::add(total, e);
            weighted = S::fma(S::sub(z, S::sub(S::load(y), y_shift)), e, weighted);
            i += S::LANES;
        }
        (S::sum(total), S::sum(weighted))
    }
}

#[inline(always)]
pub unsafe fn exp_scaled<S: Simd>(n: usize, scale: f32, shift: f32, factor: f32, x: *mut f32) {
    // SAFETY: the contract.
    unsafe {
        let (scale, shift, factor) = (S::splat(scale), S::splat(shift), S::splat(factor));
        for_vectors!(S, n, |i, load, store| {
            store!(x, S::mul(factor, exp::<S>(S::sub(S::mul(load!(x), scale), shift))));
        });
    }
}

#[inline(always)]
pub unsafe fn scale_by<S: Simd>(n: usize, factor: f32, x: *const f32, weight: *const f32, y: *mut f32) {
    // SAFETY: the contract.
    unsafe {
        let factor = S::splat(factor);
        for_vectors!(S, n, |i, load, store| { store!(y, S::mul(S::mul(load!(x), factor), load!(weight))) });
    }
}

/// See [`super::Kernels::rotate_halves`].
#[inline(always)]
pub unsafe fn rotate_halves<S: Simd>(
    heads: usize,
    stride: usize,
    half: usize,
    cos: *const f32,
    sin: *const f32,
    sign: f32,
    x: *mut f32,
) {
    // SAFETY: the contract. Products and sums are rounded one by one, as the portable kernel and the usual code do.
    unsafe {
        for h in 0..heads {
            let a = x.add(h * stride);
            let b = a.add(half);
            for_vectors!(S, half, |i, load, store| {
                let (c, s) = (load!(cos), S::mul(load!(sin), S::splat(sign)));
                let (first, second) = (load!(a), load!(b));
                store!(a, S::sub(S::mul(first, c), S::mul(second, s)));
                store!(b, S::add(S::mul(second, c), S::mul(first, s)));
            });
        }
    }
}

/// See [`super::Kernels::rotate_pairs`].
#[inline(always)]
pub unsafe fn rotate_pairs<S: Simd>(
    heads: usize,
    stride: usize,
    half: usize,
    cos: *const f32,
    sin: *const f32,
    sign: f32,
    x: *mut f32,
) {
    // SAFETY: the contract; 2 * half and LANES are even, so a pair lies inside one vector.
    unsafe {
        for h in 0..heads {
            let x = x.add(h * stride);
            for_vectors!(S, 2 * half, |i, load, store| {
                let (c, s) = (load!(cos), S::mul(load!(sin), S::splat(sign)));
                let pair = load!(x);
                store!(x, S::add(S::mul(pair, c), S::mul(S::swap_pairs(pair), s)));
            });
        }
    }
}

#[inline(always)]
pub unsafe fn swiglu<S: Simd>(n: usize, gate: *const f32, up: *const f32, out: *mut f32) {
    // SAFETY: the contract.
    unsafe {
        for_vectors!(S, n, |i, load, store| {
            let g = load!(gate);
            store!(out, S::mul(S::mul(g, sigmoid::<S>(g)), load!(up)));
        });
    }
}

#[inline(always)]
pub unsafe fn swiglu_backward<S: Simd>(
    n: usize,
    gate: *const f32,
    up: *const f32,
    d_out: *const f32,
    d_gate: *mut f32,
    d_up: *mut f32,
) {
    // SAFETY: the contract; each vector is read before it is written, so the outputs may be the inputs.
    unsafe {
        for_vectors!(S, n, |i, load, store| {
            let (g, u, d) = (load!(gate), load!(up), load!(d_out));
            let s = sigmoid::<S>(g);
            let silu = S::mul(g, s);
            // silu'(g) = s + silu * (1 - s)
            let slope = S::fma(silu, S::sub(S::splat(1.0), s), s);
            store!(d_up, S::mul(d, silu));
            store!(d_gate, S::mul(S::mul(d, u), slope));
        });
    }
}

#[inline(always)]
pub unsafe fn adamw<S: Simd>(
    n: usize,
    step: AdamStep,
    gradient: *const f32,
    m: *mut f32,
    v: *mut f32,
    parameter: *mut f32,
) {
    // SAFETY: the contract.
    unsafe {
        let (beta1, rest1) = (S::splat(step.beta1), S::splat(step.rest1));
        let (beta2, rest2) = (S::splat(step.beta2), S::splat(step.rest2));
        let (rate, root, eps) = (S::splat(-step.rate), S::splat(step.root), S::splat(step.eps));
        let (factor, keep) = (S::splat(step.scale), S::splat(step.keep));
        for_vectors!(S, n, |i, load, store| {
            let g = S::mul(load!(gradient), factor);
            let first = S::fma(beta1, load!(m), S::mul(rest1, g));
            let second = S::fma(beta2, load!(v), S::mul(rest2, S::mul(g, g)));
            store!(m, first);
            store!(v, second);
            let denominator = S::fma(S::sqrt(second), root, eps);
            let kept = S::mul(load!(parameter), keep);
            store!(parameter, S::fma(rate, S::div(first, denominator), kept));
        });
    }
}

#[inline(always)]
pub unsafe fn to_bf16<S: Simd>(n: usize, x: *const f32, y: *mut u16) {
    // SAFETY: the contract; the tail goes through a vector's worth of scratch.
    unsafe {
        let whole = n - n % S::LANES;
        for i in (0..whole).step_by(S::LANES) {
            S::store_bf16(y.add(i), S::load(x.add(i)));
        }
        if whole < n {
            let mut scratch = [0_u16; 32];
            S::store_bf16(scratch.as_mut_ptr(), S::load_partial(x.add(whole), n - whole));
            std::ptr::copy_nonoverlapping(scratch.as_ptr(), y.add(whole), n - whole);
        }
    }
}

/// See [`super::Kernels::to_bf16_pairs`].
#[inline(always)]
pub unsafe fn to_bf16_pairs<S: Simd>(x: *const f32, y: *const f32, pairs: *mut u16) {
    let mut rounded = [[0_u16; PANEL]; 2];
    // SAFETY: the contract: PANEL numbers at x and y, which LANES divides, and room for as many pairs.
    unsafe {
        for (from, to) in [x, y].into_iter().zip(&mut rounded) {
            for at in (0..PANEL).step_by(S::LANES) {
                S::store_bf16(to.as_mut_ptr().add(at), S::load(from.add(at)));
            }
        }
        for j in 0..PANEL {
            let pair = u32::from(rounded[0][j]) | u32::from(rounded[1][j]) << 16;
            pairs.cast::<u32>().add(j).write_unaligned(pair);
        }
    }
}

#[inline(always)]
pub unsafe fn widen_i8<S: Simd>(n: usize, x: *const i8, y: *mut u16) {
    // SAFETY: the contract. A plain loop, which compiles to vectors; the upper half of such an f32 is all of it.
    unsafe {
        for i in 0..n {
            *y.add(i) = (f32::from(*x.add(i)).to_bits() >> 16) as u16;
        }
    }
}

/// The table of an instruction set: each kernel compiled with its features.
/// `rows` lists the register tiles of `gemm_f32`, (rows, vectors), most rows first and one row last; `quantized` those
/// of `gemm_quantized`, (rows that lie together, rows at a time, vectors at a time).
macro_rules! table {
    ($S:ident, $features:literal, rows [$(($R:literal, $V:literal)),+], tiles $tiles:expr, bf16 $bf16:path, quantized [$(($H:literal, $Q:literal, $W:literal)),+]) => {
        pub(super) static KERNELS: Kernels = {
            #[target_feature(enable = $features)]
            unsafe fn gemm_f32(m: usize, n: usize, k: usize, a: Left, b: *const f32, b_stride: usize, c: *mut f32, c_stride: usize, add: bool) {
                let mut i = 0;
                $(
                    while m - i >= $R {
                        // SAFETY: rows i..i + R lie below m; the rest is the caller's contract.
                        unsafe {
                            let a = Left { data: a.data.add(i * a.row), ..a };
                            products::rows::<$S, $R, $V>(n, k, a, b, b_stride, c.add(i * c_stride), c_stride, add);
                        }
                        i += $R;
                    }
                )+
            }
            generic::compile! { $S, $features,
                fn softmax(rows: usize, columns: usize, scores: *mut f32, stride: usize, visible: usize, rows_per_position: usize, scale: f32, max: *mut f32, sum: *mut f32);
                fn softmax_page_backward(rows: usize, scores: *mut f32, d_p: *mut f32, visible: usize, rows_per_position: usize, scale: f32, lse: *const f32, delta: *const f32);
                fn scale(n: usize, factor: f32, x: *mut f32);
                fn axpy(n: usize, factor: f32, x: *const f32, y: *mut f32);
                fn dot(n: usize, x: *const f32, y: *const f32) -> f32;
                fn max(n: usize, x: *const f32) -> f32;
                fn exp_sums(n: usize, scale: f32, shift: f32, x: *const f32) -> (f32, f32);
                fn exp_gaps(n: usize, x_shift: f32, y_shift: f32, x: *const f32, y: *const f32) -> (f32, f32);
                fn exp_scaled(n: usize, scale: f32, shift: f32, factor: f32, x: *mut f32);
                fn scale_by(n: usize, factor: f32, x: *const f32, weight: *const f32, y: *mut f32);
                fn rotate_halves(heads: usize, stride: usize, half: usize, cos: *const f32, sin: *const f32, sign: f32, x: *mut f32);
                fn rotate_pairs(heads: usize, stride: usize, half: usize, cos: *const f32, sin: *const f32, sign: f32, x: *mut f32);
                fn swiglu(n: usize, gate: *const f32, up: *const f32, out: *mut f32);
                fn swiglu_backward(n: usize, gate: *const f32, up: *const f32, d_out: *const f32, d_gate: *mut f32, d_up: *mut f32);
                fn adamw(n: usize, step: AdamStep, gradient: *const f32, m: *mut f32, v: *mut f32, parameter: *mut f32);
                fn to_bf16(n: usize, x: *const f32, y: *mut u16);
                fn to_bf16_pairs(x: *const f32, y: *const f32, pairs: *mut u16);
                fn widen_i8(n: usize, x: *const i8, y: *mut u16);
            }
            #[target_feature(enable = $features)]
            unsafe fn gemm_bf16(m: usize, n: usize, k: usize, a: *const u16, a_stride: usize, b: *const u16, c: *mut f32, c_stride: usize, add: bool) {
                // SAFETY: the caller's contract.
                unsafe { $bf16(m, n, k, a, a_stride, b, c, c_stride, add) }
            }
            #[target_feature(enable = $features)]
            unsafe fn gemm_quantized(format: Format, m: usize, n: usize, blocks: usize, a: QuantizedLeft, b: Strip, c: *mut f32, c_stride: usize, add: bool) {
                quantized::gemm!($S, ahead 0, [$(($H, $Q, $W)),+], format, m, n, blocks, a, b, c, c_stride, add)
            }
            #[target_feature(enable = $features)]
            unsafe fn quantize(blocks: usize, groups: usize, height: usize, x: *const f32, out: QuantizedRow) {
                // SAFETY: the caller's contract.
                unsafe { quantized::quantize::<$S>(blocks, groups, height, x, out) }
            }
            Kernels {
                tiles: $tiles,
                bf16_inner: 256,
                gemm_f32, gemm_bf16, gemm_quantized, quantize, softmax, softmax_page_backward, scale, axpy, dot, max, exp_sums, exp_gaps, exp_scaled, scale_by,
                rotate_halves, rotate_pairs, swiglu, swiglu_backward, adamw, to_bf16, to_bf16_pairs, widen_i8,
            }
        };
    };
}
pub(super) use table;

/// Functions of this module, compiled with an instruction set's features.
macro_rules! compile {
    ($S:ident, $features:literal, $(fn $name:ident($($arg:ident: $type:ty),*) $(-> $out:ty)?;)*) => {$(
        #[target_feature(enable = $features)]
        unsafe fn $name($($arg: $type),*) $(-> $out)? {
            // SAFETY: the caller's contract.
            unsafe { generic::$name::<$S>($($arg),*) }
        }
    )*};
}
pub(super) use compile;
