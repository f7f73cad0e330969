//! Products of quantised weights, written once over [`Bytes`].
//!
//! Activations come as signed bytes with a scale for each 32, so that a group's products are whole numbers and their sum
//! exact; `f32` enters once a group. A few numbers of a row are so much larger than the rest that they would make its scales
//! coarse; those have products of their own, in `f32`. Contracts are those of [`super::Kernels`].

use super::simd::Bytes;
use super::{OUTLIER, PART, QuantizedLeft, QuantizedRow, ask_for, products};
use crate::quantized::{BLOCK, Format, Layout, STRIP, SUPER, Scales, Strip, UNEVEN_CODES};

/// A format as a type, so that its kernels are compiled each by itself.
pub trait Form {
    const LAYOUT: Layout;
}

/// The format of this number.
pub struct Of<const FORMAT: u8>;

impl<const FORMAT: u8> Form for Of<FORMAT> {
    const LAYOUT: Layout = Format::ALL[FORMAT as usize].layout();
}

/// Codes of one vector's rows, inputs 4 j to 4 j + 3 of the 32 whose codes begin at `block`.
#[inline(always)]
unsafe fn codes<S: Bytes, Q: Form>(block: *const u8, j: usize) -> S::I {
    // SAFETY: the contract; planes lie inside the block's code_bytes.
    unsafe {
        let plane = |(vector, shift, bits, up): (usize, usize, usize, usize)| {
            let bytes = S::load_bytes(block.add(4 * STRIP * vector));
            if bits == 8 {
                bytes
            } else {
                S::shift_and_mask(bytes, up as i32 - shift as i32, (((1_u32 << bits) - 1) << up) as u8)
            }
        };
        let [low, high] = Q::LAYOUT.planes(j);
        let codes = if high.2 > 0 { S::or(plane(low), plane(high)) } else { plane(low) };
        if Q::LAYOUT.uneven { S::look_up(&UNEVEN_CODES, codes) } else { codes }
    }
}

/// Scales and minima of one vector's rows for group `group` of block `block`; `first` is the first row.
#[inline(always)]
unsafe fn scales<S: Bytes, Q: Form>(b: Strip, block: usize, group: usize, first: usize) -> (S::F, S::F) {
    let layout = Q::LAYOUT;
    // SAFETY: the contract; blocks lie inside the strip.
    unsafe {
        let at = b.scales.add(block * layout.scale_bytes());
        let above = b.supers.wrapping_add(block / (SUPER / BLOCK) * layout.super_bytes() + 2 * first);
        let nothing = S::splat(0.0);
        let row = group * STRIP + first;
        match layout.scales {
            Scales::Half => {
                let minimum = if layout.minima { S::load_f16(at.add(2 * (STRIP + first))) } else { nothing };
                (S::load_f16(at.add(2 * first)), minimum)
            }
            Scales::Bytes => {
                let scale = S::mul(S::load_i8(at.add(row)), S::load_f16(above));
                if !layout.minima {
                    return (scale, nothing);
                }
                let minimum = S::load_u8(at.add(BLOCK / layout.group * STRIP + row));
                (scale, S::sub(nothing, S::mul(minimum, S::load_f16(above.add(2 * STRIP)))))
            }
            Scales::Nibbles => {
                let (scale, minimum) = S::load_nibbles(at.add(row));
                let scale = S::mul(scale, S::load_f16(above));
                (scale, S::sub(nothing, S::mul(minimum, S::load_f16(above.add(2 * STRIP)))))
            }
        }
    }
}

/// What one vector's rows are for one input.
#[inline(always)]
unsafe fn weights<S: Bytes, Q: Form>(b: Strip, input: usize, first: usize) -> S::F {
    let layout = Q::LAYOUT;
    let (block, input) = (input / BLOCK, input % BLOCK);
    // SAFETY: the contract; planes lie inside the block's code_bytes.
    unsafe {
        let bytes = b.codes.add(block * layout.code_bytes() + 4 * first);
        let plane = |(vector, shift, bits, _): (usize, usize, usize, usize)| {
            S::shift_lanes(S::load_bytes(bytes.add(4 * STRIP * vector)), 8 * (input % 4) + shift, (1 << bits) - 1)
        };
        let [low, high] = layout.planes(input / 4);
        let mut code = plane(low);
        if layout.uneven {
            code = S::shift_lanes(S::look_up(&UNEVEN_CODES, code), 0, 255);
        }
        let mut code = S::to_f32(code);
        if high.2 > 0 {
            code = S::fma(S::to_f32(plane(high)), S::splat((1 << high.3) as f32), code);
        }
        let code = S::sub(code, S::splat(layout.offset as f32));
        let (scale, minimum) = scales::<S, Q>(b, block, input / layout.group, first);
        if layout.minima { S::fma(code, scale, minimum) } else { S::mul(code, scale) }
    }
}

/// The same pointer, which the compiler does not know to move along with others. Where it does, it counts one number up and
/// adds multiples of it to each address, and then a product and the load in it are two steps to the processor, not one.
#[inline(always)]
#[expect(clippy::pointers_in_nomem_asm_block, reason = "nothing is read or written by it")]
fn by_itself<T>(mut x: *const T) -> *const T {
    // SAFETY: it does nothing.
    unsafe { std::arch::asm!("/* {0} */", inout(reg) x, options(pure, nomem, nostack, preserves_flags)) };
    x
}

/// Asks for what lies `AHEAD` bytes of codes behind a block.
#[inline(always)]
fn ask_ahead<Q: Form, const AHEAD: usize>(block: usize, b: Strip) {
    let (codes, scales) = (Q::LAYOUT.code_bytes(), Q::LAYOUT.scale_bytes());
    ask_for(b.codes.wrapping_add(AHEAD + block * codes), codes);
    ask_for(b.scales.wrapping_add((AHEAD / codes + block) * scales), 1);
}

/// Fours of inputs whose products with the largest codes of so many bits a sum of [`Bytes::dot`] has room for.
const fn run<S: Bytes>(bits: usize) -> usize {
    let most = if S::NARROW { i16::MAX as usize / (2 * 127 * ((1 << bits) - 1)) } else { BLOCK / 4 };
    if most > BLOCK / 4 { BLOCK / 4 } else { most }
}

/// R rows, from `top` on, of a tile of H rows of activations by V vectors of a strip's rows, whose first is `first`; n
/// columns of the result are kept, and those of its rows that lie below `rows`. Codes are asked for `AHEAD` bytes before they
/// are needed, unless that is 0.
#[inline(always)]
unsafe fn tile<S: Bytes, Q: Form, const H: usize, const R: usize, const V: usize, const AHEAD: usize>(
    n: usize,
    rows: usize,
    blocks: usize,
    a: QuantizedLeft,
    b: Strip,
    (top, first): (usize, usize),
    c: *mut f32,
    c_stride: usize,
    add: bool,
) {
    let layout = Q::LAYOUT;
    let (wide, groups) = (layout.bits == 8 || layout.uneven, BLOCK / layout.group);
    // SAFETY: the contract, for R rows.
    unsafe {
        let mut sums = [[S::splat(0.0); V]; R];
        if add {
            for (r, sum) in sums.iter_mut().enumerate().take(rows - top) {
                *sum = products::load_row::<S, V>(n, c.add(r * c_stride));
            }
        }
        let mut x_codes = a.codes.add(top * BLOCK);
        let mut x_scales = a.scales.add(top);
        let mut x_sums = a.sums.add(top);
        for block in 0..blocks {
            if AHEAD > 0 {
                ask_ahead::<Q, AHEAD>(block, b);
            }
            let bytes = b.codes.add(block * layout.code_bytes() + 4 * first);
            for group in 0..groups {
                let mut dots = [[S::splat_i32(0); V]; R];
                if layout.offset != 0 && !(wide && S::SIGNED) {
                    for (r, dot) in dots.iter_mut().enumerate() {
                        *dot = [S::splat_i32(*x_sums.add(group * H + r)); V];
                    }
                }
                let quads = 8 / groups;
                let run = if wide { quads } else { run::<S>(layout.bits) };
                let mut start = 0;
                while start < quads {
                    let mut parts = dots;
                    for part in &mut parts {
                        for part in part {
                            *part = if wide { *part } else { S::begin(*part) };
                        }
                    }
                    let mut i = start;
                    while i < quads && i < start + run {
                        // The two nibbles of a vector one after the other, so that it is loaded once.
                        let j = if groups == 1 { i % 2 * 4 + i / 2 } else { group * 4 + i };
                        let mut codes = [S::splat_i32(0); V];
                        for (v, codes) in codes.iter_mut().enumerate() {
                            *codes = self::codes::<S, Q>(bytes.add(4 * S::LANES * v), j);
                        }
                        for (r, part) in parts.iter_mut().enumerate() {
                            let x = x_codes.add(r * BLOCK + 4 * j);
                            for (v, part) in part.iter_mut().enumerate() {
                                *part = if wide { S::dot_wide(*part, codes[v], x) } else { S::dot(*part, codes[v], x) };
                            }
                        }
                        i += 1;
                    }
                    for (r, dot) in dots.iter_mut().enumerate() {
                        for (v, dot) in dot.iter_mut().enumerate() {
                            *dot = if wide { parts[r][v] } else { S::end(*dot, parts[r][v]) };
                        }
                    }
                    start += run;
                }
                for v in 0..V {
                    let (scale, minimum) = scales::<S, Q>(b, block, group, first + v * S::LANES);
                    for (r, sum) in sums.iter_mut().enumerate() {
                        let factor = S::mul(scale, S::splat(*x_scales.add(r)));
                        sum[v] = S::fma(S::to_f32(dots[r][v]), factor, sum[v]);
                        if layout.minima {
                            let x = f32::from_bits(*x_sums.add(group * H + r) as u32);
                            sum[v] = S::fma(minimum, S::splat(x), sum[v]);
                        }
                    }
                }
            }
            x_codes = by_itself(x_codes.add(H * BLOCK));
            x_scales = x_scales.add(H);
            x_sums = x_sums.add(H * groups);
        }
        // Behind the rest, when the codes that they are multiplied with are near.
        for i in a.listed(0)..a.listed(blocks) {
            let input = *a.inputs.add(i) as usize - a.start * BLOCK;
            for v in 0..V {
                let w = weights::<S, Q>(b, input, first + v * S::LANES);
                for (r, sum) in sums.iter_mut().enumerate() {
                    sum[v] = S::fma(w, S::splat(*a.outliers.add(i * H + top + r)), sum[v]);
                }
            }
        }
        for (r, sum) in sums.into_iter().enumerate().take(rows - top) {
            products::store_row::<S, V>(n, c.add(r * c_stride), sum);
        }
    }
}

/// A tile of H rows of activations, `rows` of them wanted, by a whole strip; R rows and V vectors at a time.
#[inline(always)]
pub unsafe fn tiles<S: Bytes, Q: Form, const H: usize, const R: usize, const V: usize, const AHEAD: usize>(
    n: usize,
    rows: usize,
    blocks: usize,
    a: QuantizedLeft,
    b: Strip,
    c: *mut f32,
    c_stride: usize,
    add: bool,
) {
    let groups = BLOCK / Q::LAYOUT.group;
    for top in (0..rows).step_by(R) {
        for first in (0..n).step_by(V * S::LANES) {
            // With nothing to sum, one empty part still sets the output.
            for part in (0..blocks.max(1)).step_by(PART) {
                let (a, b, blocks) = (a.after(part, H, groups), b.after(Q::LAYOUT, part), PART.min(blocks - part));
                // SAFETY: the contract; columns from `first` on are left, at most V * LANES of them in these vectors.
                unsafe {
                    let (c, add) = (c.add(top * c_stride + first), add || part > 0);
                    tile::<S, Q, H, R, V, AHEAD>(
                        (n - first).min(V * S::LANES),
                        rows,
                        blocks,
                        a,
                        b,
                        (top, first),
                        c,
                        c_stride,
                        add,
                    );
                }
            }
        }
    }
}

/// See [`super::Kernels::quantize`].
#[inline(always)]
pub unsafe fn quantize<S: Bytes>(blocks: usize, groups: usize, height: usize, x: *const f32, out: QuantizedRow) {
    // SAFETY: the contract.
    unsafe {
        let mean = mean_size::<S>(blocks, x);
        // Of a row with numbers that are none or infinite, none is an outlier. The mean of the smallest numbers can round to
        // zero, and no number would ever be small enough.
        let mut limit = if mean.is_finite() { (mean * OUTLIER).max(f32::MIN_POSITIVE) } else { f32::INFINITY };
        // That comes to an end: fewer than one in n can be larger than n times the mean.
        while quantize_within::<S>(blocks, groups, height, x, limit, mean.is_finite(), out) > blocks {
            limit *= 2.0;
        }
    }
}

/// Rounds what is no larger than `limit` of a row that is known to be `finite` or not, and counts the rest.
#[inline(always)]
unsafe fn quantize_within<S: Bytes>(
    blocks: usize,
    groups: usize,
    height: usize,
    x: *const f32,
    limit: f32,
    finite: bool,
    out: QuantizedRow,
) -> usize {
    let mut found = 0;
    // SAFETY: the contract; all reads and writes lie inside the blocks.
    unsafe {
        let limit = S::splat(limit);
        for block in 0..blocks {
            let x = x.add(block * BLOCK);
            let (mut largest, mut outliers) = (S::splat(0.0), 0);
            for at in (0..BLOCK).step_by(S::LANES) {
                let x = S::load(x.add(at));
                largest = S::max(largest, size::<S>(S::within(x, limit)));
                outliers |= S::outside(x, limit) << at;
            }
            *out.outliers.add(block) = outliers;
            found += outliers.count_ones() as usize;
            // Zero, unless a number is infinite or none, which must show in the scale.
            let mut nothing = 0.0;
            if !finite {
                (0..BLOCK).for_each(|i| nothing += *x.add(i) * 0.0);
            }
            let largest = S::largest(largest);
            *out.scales.add(block * height) = largest / 127.0 + nothing;
            let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
            // Of numbers so small that the inverse overflows, nothing is left.
            let inverse = S::splat(if inverse.is_finite() { inverse } else { 0.0 });
            for group in 0..groups {
                let width = BLOCK / groups;
                // What is no number becomes the smallest one, whose sum wraps; its scale says so.
                let mut sum = 0_i32;
                for at in (width * group..width * (group + 1)).step_by(S::LANES) {
                    let rounded = S::mul(S::within(S::load(x.add(at)), limit), inverse);
                    sum = sum.wrapping_add(S::store_i8(out.codes.add(block * height * BLOCK + at), rounded));
                }
                *out.sums.add((groups * block + group) * height) = sum;
            }
        }
    }
    found
}

#[inline(always)]
unsafe fn size<S: Bytes>(x: S::F) -> S::F {
    // SAFETY: the contract.
    unsafe { S::max(x, S::sub(S::splat(0.0), x)) }
}

/// The mean size of a row's numbers.
#[inline(always)]
unsafe fn mean_size<S: Bytes>(blocks: usize, x: *const f32) -> f32 {
    // SAFETY: the contract; LANES are four at least.
    unsafe {
        let mut sums = [S::splat(0.0); BLOCK / 4];
        for block in 0..blocks {
            for (i, sum) in sums.iter_mut().enumerate().take(BLOCK / S::LANES) {
                *sum = S::add(*sum, size::<S>(S::load(x.add(block * BLOCK + i * S::LANES))));
            }
        }
        let mut vectors = BLOCK / S::LANES;
        while vectors > 1 {
            vectors /= 2;
            for i in 0..vectors {
                sums[i] = S::add(sums[i], sums[i + vectors]);
            }
        }
        S::sum(sums[0]) / (blocks * BLOCK) as f32
    }
}

/// [`super::Kernels::gemm_quantized`] for an instruction set, by tiles of the heights that are listed, each so many rows and
/// vectors at a time, the highest first; codes are asked for so many bytes ahead.
macro_rules! gemm {
    ($S:ident, ahead $ahead:expr, [$(($H:literal, $R:literal, $V:literal)),+], $format:ident, $m:ident, $n:ident, $blocks:ident, $a:ident, $b:ident, $c:ident, $c_stride:ident, $add:ident) => {{
        macro_rules! of {
            ($F:ident) => {{
                use $crate::quantized::{BLOCK, STRIP};
                let groups = BLOCK / Format::$F.layout().group;
                for column in (0..$n).step_by(STRIP) {
                    let (n, b) = (STRIP.min($n - column), $b.nth(column / STRIP));
                    for (tile, row) in (0..$m).step_by(TILE).enumerate() {
                        let rows = TILE.min($m - row);
                        let height = QuantizedLeft::height(rows);
                        let (a, c) = ($a.tile(tile, height, groups), $c.wrapping_add(row * $c_stride + column));
                        match height {
                            // SAFETY: rows row..row + rows lie below m, and columns from `column` on below n; the rest is the
                            // caller's contract.
                            $($H => unsafe {
                                quantized::tiles::<$S, quantized::Of<{ Format::$F as u8 }>, $H, $R, $V, { $ahead }>(n, rows, $blocks, a, b, c, $c_stride, $add)
                            },)+
                            _ => unreachable!("tiles have 1, 2, 4 or 8 rows"),
                        }
                    }
                }
            }};
        }
        match $format {
            Format::Q8_0 => of!(Q8_0),
            Format::Q4_0 => of!(Q4_0),
            Format::Q4_1 => of!(Q4_1),
            Format::Q5_0 => of!(Q5_0),
            Format::Q5_1 => of!(Q5_1),
            Format::Iq4Nl => of!(Iq4Nl),
            Format::Q2K => of!(Q2K),
            Format::Q3K => of!(Q3K),
            Format::Q4K => of!(Q4K),
            Format::Q5K => of!(Q5K),
            Format::Q6K => of!(Q6K),
        }
    }};
}
pub(super) use gemm;
