//! Plain loops: the reference that every other instruction set is checked against, and what runs where none is known.

use super::{AdamStep, Kernels, Left, OUTLIER, PAGE, PANEL, PART, QuantizedLeft, QuantizedRow, TILE};
use crate::half::{bf16_from_f32, f32_from_bf16, f32_from_f16};
use crate::quantized::{BLOCK, Format, Layout, STRIP, SUPER, Scales, Strip, UNEVEN_CODES, code_at};

pub(super) static KERNELS: Kernels = Kernels {
    tiles: None,
    bf16_inner: 256,
    gemm_f32,
    gemm_bf16,
    gemm_quantized,
    quantize,
    softmax,
    softmax_page_backward,
    scale,
    axpy,
    dot,
    max,
    exp_sums,
    exp_gaps,
    exp_scaled,
    scale_by,
    rotate_halves,
    rotate_pairs,
    swiglu,
    swiglu_backward,
    adamw,
    to_bf16,
    to_bf16_pairs,
    widen_i8,
};

// SAFETY (all blocks below): the contract of `Kernels`, pointers valid for the sizes given.

unsafe fn gemm_f32(
    m: usize,
    n: usize,
    k: usize,
    a: Left,
    b: *const f32,
    b_stride: usize,
    c: *mut f32,
    c_stride: usize,
    add: bool,
) {
    // SAFETY: see above.
    unsafe {
        for i in 0..m {
            let mut sums = [0.0_f32; PANEL];
            if add {
                for j in 0..n {
                    sums[j] = *c.add(i * c_stride + j);
                }
            }
            for p in 0..k {
                let x = *a.data.add(i * a.row + p * a.column);
                for j in 0..n {
                    sums[j] += x * *b.add(p * b_stride + j);
                }
            }
            for j in 0..n {
                *c.add(i * c_stride + j) = sums[j];
            }
        }
    }
}

unsafe fn gemm_quantized(
    format: Format,
    m: usize,
    n: usize,
    blocks: usize,
    a: QuantizedLeft,
    b: Strip,
    c: *mut f32,
    c_stride: usize,
    add: bool,
) {
    let layout = format.layout();
    let groups = BLOCK / layout.group;
    // SAFETY: see above.
    unsafe {
        for column in 0..n {
            let (b, r) = (b.nth(column / STRIP), column % STRIP);
            let c = c.add(column - r);
            if !add {
                (0..m).for_each(|i| *c.add(i * c_stride + r) = 0.0);
            }
            let outliers = |from: usize, to: usize| {
                for i in 0..m {
                    let (tile, row) = (i / TILE, i % TILE);
                    let height = QuantizedLeft::height((m - tile * TILE).min(TILE));
                    let a = a.tile(tile, height, groups);
                    for place in a.listed(from)..a.listed(to) {
                        let input = *a.inputs.add(place) as usize - a.start * BLOCK;
                        let (block, input) = (input / BLOCK, input % BLOCK);
                        let bytes =
                            std::slice::from_raw_parts(b.codes.add(block * layout.code_bytes()), layout.code_bytes());
                        let (scale, minimum) = scale_and_minimum(layout, b, block, input / layout.group, r);
                        let code = (value(layout, bytes, r, input) - layout.offset) as f32;
                        let w = if layout.minima { code.mul_add(scale, minimum) } else { code * scale };
                        *c.add(i * c_stride + r) += w * *a.outliers.add(place * height + row);
                    }
                }
            };
            for block in 0..blocks {
                let bytes = std::slice::from_raw_parts(b.codes.add(block * layout.code_bytes()), layout.code_bytes());
                for group in 0..groups {
                    let (scale, minimum) = scale_and_minimum(layout, b, block, group, r);
                    let codes: [i32; BLOCK] = std::array::from_fn(|p| {
                        if p >= layout.group {
                            return 0;
                        }
                        value(layout, bytes, r, group * layout.group + p)
                    });
                    for i in 0..m {
                        let (tile, row) = (i / TILE, i % TILE);
                        let height = QuantizedLeft::height((m - tile * TILE).min(TILE));
                        let a = a.tile(tile, height, groups);
                        let x = a.codes.add((block * height + row) * BLOCK + group * layout.group);
                        let sums = *a.sums.add((block * groups + group) * height + row);
                        let mut dot = if layout.offset != 0 { sums } else { 0 };
                        for p in 0..layout.group {
                            dot += codes[p] * i32::from(*x.add(p));
                        }
                        let out = c.add(i * c_stride + r);
                        *out += dot as f32 * (scale * *a.scales.add(block * height + row));
                        if layout.minima {
                            *out += minimum * f32::from_bits(sums as u32);
                        }
                    }
                }
                if (block + 1) % PART == 0 || block + 1 == blocks {
                    outliers(block / PART * PART, block + 1);
                }
            }
        }
    }
}

/// The code of row `r` and input `i` in a strip's 32 inputs, from the table if there is one.
fn value(layout: Layout, block: &[u8], r: usize, i: usize) -> i32 {
    let code = code_at(layout, block, r, i);
    i32::from(if layout.uneven { UNEVEN_CODES[usize::from(code)] } else { code })
}

/// Of row `r` of a strip, group `group` of block `block`; the minimum is what is added.
unsafe fn scale_and_minimum(layout: Layout, b: Strip, block: usize, group: usize, r: usize) -> (f32, f32) {
    // SAFETY: see above; minima are read where there are some.
    unsafe {
        let half = |p: *const u8| f32_from_f16(p.cast::<u16>().read_unaligned());
        let at = b.scales.add(block * layout.scale_bytes());
        if layout.scales == Scales::Half {
            let minimum = if layout.minima { half(at.add(2 * (STRIP + r))) } else { 0.0 };
            return (half(at.add(2 * r)), minimum);
        }
        let above = b.supers.add(block / (SUPER / BLOCK) * layout.super_bytes() + 2 * r);
        let first = at.add(group * STRIP + r);
        let (scale, minimum) = match layout.scales {
            Scales::Nibbles => (f32::from(*first & 15), *first >> 4),
            _ => (f32::from(*first as i8), if layout.minima { *first.add(BLOCK / layout.group * STRIP) } else { 0 }),
        };
        let minimum = if layout.minima { f32::from(minimum) * half(above.add(2 * STRIP)) } else { 0.0 };
        (scale * half(above), -minimum)
    }
}

unsafe fn quantize(blocks: usize, groups: usize, height: usize, x: *const f32, out: QuantizedRow) {
    // SAFETY: see above.
    unsafe {
        let row = std::slice::from_raw_parts(x, blocks * BLOCK);
        let limit = limit(row);
        for (block, x) in row.chunks(BLOCK).enumerate() {
            let bits = x.iter().enumerate().map(|(i, x)| u32::from(x.abs() > limit) << i).sum();
            *out.outliers.add(block) = bits;
            let usual = |i: usize| if bits >> i & 1 == 0 { x[i] } else { 0.0 };
            let largest = (0..BLOCK).fold(0.0_f32, |largest, i| largest.max(usual(i).abs()));
            let finite = x.iter().all(|x| x.is_finite());
            *out.scales.add(block * height) = if finite { largest / 127.0 } else { f32::NAN };
            let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
            let inverse = if inverse.is_finite() { inverse } else { 0.0 };
            (0..groups).for_each(|group| *out.sums.add((groups * block + group) * height) = 0);
            for i in 0..BLOCK {
                let code = (usual(i) * inverse).round_ties_even() as i8;
                *out.codes.add(block * height * BLOCK + i) = code;
                *out.sums.add((groups * block + i * groups / BLOCK) * height) += i32::from(code);
            }
        }
    }
}

/// What a row's outliers are larger than.
fn limit(x: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; BLOCK];
    x.iter().enumerate().for_each(|(i, x)| lanes[i % BLOCK] += x.abs());
    for half in [16, 8, 4, 2, 1] {
        (0..half).for_each(|i| lanes[i] += lanes[i + half]);
    }
    let limit = lanes[0] / x.len() as f32 * OUTLIER;
    let mut limit = if limit.is_nan() { f32::INFINITY } else { limit.max(f32::MIN_POSITIVE) };
    while x.iter().filter(|x| x.abs() > limit).count() > x.len() / BLOCK {
        limit *= 2.0;
    }
    limit
}

unsafe fn gemm_bf16(
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
    // SAFETY: see above.
    unsafe {
        for i in 0..m {
            for j in 0..n {
                let out = c.add(i * c_stride + j);
                let mut sum = if add { *out } else { 0.0 };
                for p in 0..k {
                    let right = *b.add((p / 2 * PANEL + j) * 2 + p % 2);
                    sum += f32_from_bf16(*a.add(i * a_stride + p)) * f32_from_bf16(right);
                }
                *out = sum;
            }
        }
    }
}

/// exp by the same polynomial as the vector kernels ([`super::generic`]), so that no libm decides a result.
fn exp(x: f32) -> f32 {
    if x.is_nan() {
        return x;
    }
    let x = x.clamp(-88.0, 88.376);
    let n = (x * std::f32::consts::LOG2_E).round_ties_even();
    let r = x - n * 0.693_359_4;
    let r = r + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + c;
    }
    (p * r * r + r + 1.0) * f32::from_bits(((n as i32 + 127) as u32) << 23)
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

unsafe fn softmax(
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
    // SAFETY: see above.
    unsafe {
        for r in 0..rows {
            let row = std::slice::from_raw_parts_mut(scores.add(r * stride), columns);
            let seen = (visible + r / rows_per_position).min(columns);
            let largest = row[..seen].iter().fold(f32::NEG_INFINITY, |m, &s| m.max(s * scale));
            let mut total = 0.0;
            for (j, x) in row.iter_mut().enumerate() {
                *x = if j < seen { exp(*x * scale - largest) } else { 0.0 };
                total += *x;
            }
            *sum.add(r) = total;
            *max.add(r) = largest;
        }
    }
}

unsafe fn softmax_page_backward(
    rows: usize,
    scores: *mut f32,
    d_p: *mut f32,
    visible: usize,
    rows_per_position: usize,
    scale: f32,
    lse: *const f32,
    delta: *const f32,
) {
    // SAFETY: see above.
    unsafe {
        for r in 0..rows {
            let seen = (visible + r / rows_per_position).min(PAGE);
            for j in 0..PAGE {
                let (s, d) = (scores.add(r * PAGE + j), d_p.add(r * PAGE + j));
                let p = if j < seen { exp(*s * scale - *lse.add(r)) } else { 0.0 };
                *d = if j < seen { p * (*d - *delta.add(r)) * scale } else { 0.0 };
                *s = p;
            }
        }
    }
}

unsafe fn scale(n: usize, factor: f32, x: *mut f32) {
    for i in 0..n {
        // SAFETY: see above.
        unsafe { *x.add(i) *= factor }
    }
}

unsafe fn axpy(n: usize, factor: f32, x: *const f32, y: *mut f32) {
    for i in 0..n {
        // SAFETY: see above.
        unsafe { *y.add(i) += factor * *x.add(i) }
    }
}

unsafe fn dot(n: usize, x: *const f32, y: *const f32) -> f32 {
    // SAFETY: see above.
    (0..n).fold(0.0, |sum, i| unsafe { sum + *x.add(i) * *y.add(i) })
}

unsafe fn max(n: usize, x: *const f32) -> f32 {
    // SAFETY: see above.
    (0..n).fold(f32::NEG_INFINITY, |m, i| unsafe { m.max(*x.add(i)) })
}

unsafe fn exp_sums(n: usize, scale: f32, shift: f32, x: *const f32) -> (f32, f32) {
    let (mut total, mut weighted) = (0.0, 0.0);
    for i in 0..n {
        // SAFETY: see above.
        let z = unsafe { *x.add(i) } * scale - shift;
        let z = if z < -88.0 { -88.0 } else { z };
        let e = exp(z);
        total += e;
        weighted += z * e;
    }
    (total, weighted)
}

unsafe fn exp_gaps(n: usize, x_shift: f32, y_shift: f32, x: *const f32, y: *const f32) -> (f32, f32) {
    let (mut total, mut weighted) = (0.0, 0.0);
    for i in 0..n {
        // SAFETY: see above.
        let (z, w) = unsafe { (*x.add(i) - x_shift, *y.add(i) - y_shift) };
        let z = if z < -88.0 { -88.0 } else { z };
        let e = exp(z);
        total += e;
        weighted += (z - w) * e;
    }
    (total, weighted)
}

unsafe fn exp_scaled(n: usize, scale: f32, shift: f32, factor: f32, x: *mut f32) {
    for i in 0..n {
        // SAFETY: see above.
        unsafe { *x.add(i) = factor * exp(*x.add(i) * scale - shift) }
    }
}

unsafe fn scale_by(n: usize, factor: f32, x: *const f32, weight: *const f32, y: *mut f32) {
    for i in 0..n {
        // SAFETY: see above.
        unsafe { *y.add(i) = *x.add(i) * factor * *weight.add(i) }
    }
}

unsafe fn rotate_halves(
    heads: usize,
    stride: usize,
    half: usize,
    cos: *const f32,
    sin: *const f32,
    sign: f32,
    x: *mut f32,
) {
    for h in 0..heads {
        for i in 0..half {
            // SAFETY: see above.
            unsafe {
                let (c, s) = (*cos.add(i), *sin.add(i) * sign);
                let (a, b) = (x.add(h * stride + i), x.add(h * stride + i + half));
                (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
            }
        }
    }
}

unsafe fn rotate_pairs(
    heads: usize,
    stride: usize,
    half: usize,
    cos: *const f32,
    sin: *const f32,
    sign: f32,
    x: *mut f32,
) {
    for h in 0..heads {
        for i in (0..2 * half).step_by(2) {
            // SAFETY: see above.
            unsafe {
                let (c, s) = (*cos.add(i), *sin.add(i + 1) * sign);
                let (a, b) = (x.add(h * stride + i), x.add(h * stride + i + 1));
                (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
            }
        }
    }
}

unsafe fn swiglu(n: usize, gate: *const f32, up: *const f32, out: *mut f32) {
    for i in 0..n {
        // SAFETY: see above.
        unsafe {
            let g = *gate.add(i);
            *out.add(i) = g * sigmoid(g) * *up.add(i);
        }
    }
}

unsafe fn swiglu_backward(
    n: usize,
    gate: *const f32,
    up: *const f32,
    d_out: *const f32,
    d_gate: *mut f32,
    d_up: *mut f32,
) {
    for i in 0..n {
        // SAFETY: see above.
        unsafe {
            let (g, u, d) = (*gate.add(i), *up.add(i), *d_out.add(i));
            let s = sigmoid(g);
            *d_up.add(i) = d * g * s;
            *d_gate.add(i) = d * u * (s + g * s * (1.0 - s));
        }
    }
}

unsafe fn adamw(n: usize, step: AdamStep, gradient: *const f32, m: *mut f32, v: *mut f32, parameter: *mut f32) {
    for i in 0..n {
        // SAFETY: see above.
        unsafe {
            let g = *gradient.add(i) * step.scale;
            let first = step.beta1 * *m.add(i) + step.rest1 * g;
            let second = step.beta2 * *v.add(i) + step.rest2 * (g * g);
            *m.add(i) = first;
            *v.add(i) = second;
            *parameter.add(i) =
                *parameter.add(i) * step.keep - step.rate * first / (second.sqrt() * step.root + step.eps);
        }
    }
}

unsafe fn to_bf16(n: usize, x: *const f32, y: *mut u16) {
    for i in 0..n {
        // SAFETY: see above.
        unsafe {
            *y.add(i) = bf16_from_f32(*x.add(i));
        }
    }
}

unsafe fn to_bf16_pairs(x: *const f32, y: *const f32, pairs: *mut u16) {
    let mut rounded = [[0; PANEL]; 2];
    // SAFETY: the caller's contract: PANEL numbers each, and room for as many pairs.
    unsafe {
        for (from, to) in [x, y].into_iter().zip(&mut rounded) {
            to_bf16(PANEL, from, to.as_mut_ptr());
        }
        for j in 0..PANEL {
            pairs.add(2 * j).write(rounded[0][j]);
            pairs.add(2 * j + 1).write(rounded[1][j]);
        }
    }
}

unsafe fn widen_i8(n: usize, x: *const i8, y: *mut u16) {
    for i in 0..n {
        // SAFETY: see above.
        unsafe { *y.add(i) = (f32::from(*x.add(i)).to_bits() >> 16) as u16 }
    }
}
