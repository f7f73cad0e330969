//! Products of left operands that lie in tiles: of many rows, for which copying both operands together pays.
//!
//! As in Goto and van de Geijn, "Anatomy of high-performance matrix multiplication" (2008): a part of some columns of the
//! right operand lies in the first cache, while tile after tile of the left one comes from the second.

use super::products::{tile, widen_columns};
use super::simd::Simd;
use super::{Left, PANEL, Panel, PanelRows, ask, ask_for, size_in_tiles};
use crate::half::{bf16_from_f32, f32_from_bf16};
use std::mem::MaybeUninit;

/// Numbers of the right operand that stay in the first cache: 16 KiB.
const STAY: usize = 4096;

/// Where they do; its rows begin with the cache's lines.
#[repr(align(64))]
struct Columns([MaybeUninit<f32>; STAY]);

/// Columns of a left operand that are put into tiles at a time: whole lines of a tile.
const PACKED: usize = 16;

/// See [`super::Tiles::pack`].
#[inline(always)]
pub unsafe fn pack<const R: usize>(rows: usize, k: usize, a: Left, round: bool, out: *mut f32) {
    // SAFETY: the contract: rows of `k` are readable at `a`, and there is room for as many tiles at `out`.
    unsafe {
        if a.row == 1 {
            // Whole columns lie together: of some of them tile after tile, so that each line of a tile is written at once.
            for start in (0..k).step_by(PACKED) {
                for i in (0..rows / R * R).step_by(R) {
                    for p in start..k.min(start + PACKED) {
                        std::ptr::copy_nonoverlapping(a.data.add(p * a.column + i), out.add(i * k + p * R), R);
                    }
                }
            }
        } else {
            for i in (0..rows / R * R).step_by(R) {
                for p in 0..k {
                    for r in 0..R {
                        *out.add(i * k + p * R + r) = *a.data.add((i + r) * a.row + p * a.column);
                    }
                }
            }
        }
        let rest = rows / R * R;
        if rest < rows {
            for p in 0..k {
                for r in 0..R {
                    let inside = rest + r < rows;
                    let x = if inside { *a.data.add((rest + r) * a.row + p * a.column) } else { 0.0 };
                    *out.add(rest * k + p * R + r) = x;
                }
            }
        }
        if round {
            let out = std::slice::from_raw_parts_mut(out, size_in_tiles(rows, k, R));
            out.iter_mut().for_each(|x| *x = f32_from_bf16(bf16_from_f32(*x)));
        }
    }
}

/// See [`super::Tiles::gemm`]; `V` vectors' columns stay in the first cache, and with `R` rows' sums fill the registers.
#[inline(always)]
pub unsafe fn gemm<S: Simd, const R: usize, const V: usize>(
    m: usize,
    n: usize,
    k: usize,
    a: *const f32,
    distance: usize,
    b: Panel,
    c: *mut f32,
    c_stride: usize,
    add: bool,
) {
    const { assert!(PANEL.is_multiple_of(V * S::LANES) && R <= PANEL) };
    let width = V * S::LANES;
    let most = STAY / width;
    let mut right = Columns([const { MaybeUninit::uninit() }; STAY]);
    let right: *mut f32 = right.0.as_mut_ptr().cast();
    let bytes = match b.rows {
        PanelRows::F32(..) => PANEL * 4,
        PanelRows::Bf16(_) => PANEL * 2,
    } * k;
    let mut ask = Ask::new(b.ahead, bytes, n.div_ceil(width) * m.div_ceil(R) * k.div_ceil(most));
    // With nothing to sum, one empty visit still sets the output.
    for start in (0..k.max(1)).step_by(most) {
        let depth = most.min(k - start);
        for j in (0..n).step_by(width) {
            // SAFETY: the contract; depths stay below k and columns below PANEL, and `most` is even, as bf16's pairs need it.
            unsafe {
                match b.rows {
                    PanelRows::F32(b, stride) => {
                        for p in 0..depth {
                            for v in (0..width).step_by(S::LANES) {
                                S::store(right.add(p * width + v), S::load(b.add((start + p) * stride + j + v)));
                            }
                        }
                    }
                    PanelRows::Bf16(b) => widen_columns::<S>(width, depth, b.add(start * PANEL + 2 * j), right),
                }
                for i in (0..m).step_by(R) {
                    ask.next();
                    // What the next tile is added to begins its sums, which nothing else would hide the wait for.
                    for row in i + R..m.min(i + 2 * R) {
                        ask_for(c.add(row * c_stride + j).cast(), 4 * width);
                    }
                    let (a, c) = (a.add(i / R * distance + start * R), c.add(i * c_stride + j));
                    let (a, add) = (Left { data: a, row: 1, column: R }, add || start > 0);
                    if m - i >= R {
                        tile::<S, R, V>(n - j, depth, a, right, width, c, c_stride, add);
                        continue;
                    }
                    // Of the last tile only some rows are wanted.
                    let mut rows = [0.0; PANEL * PANEL];
                    let columns = width.min(n - j);
                    for r in 0..if add { m - i } else { 0 } {
                        std::ptr::copy_nonoverlapping(c.add(r * c_stride), rows.as_mut_ptr().add(r * width), columns);
                    }
                    tile::<S, R, V>(columns, depth, a, right, width, rows.as_mut_ptr(), width, add);
                    for r in 0..m - i {
                        std::ptr::copy_nonoverlapping(rows.as_ptr().add(r * width), c.add(r * c_stride), columns);
                    }
                }
            }
        }
    }
}

/// Asks for memory to be brought into the second cache, a part at a time.
struct Ask {
    at: *const u8,
    lines: usize,
    each: usize,
}

impl Ask {
    fn new(at: *const u8, bytes: usize, times: usize) -> Ask {
        let lines = if at.is_null() { 0 } else { bytes.div_ceil(64) };
        Ask { at, lines, each: lines.div_ceil(times.max(1)) }
    }

    #[inline(always)]
    fn next(&mut self) {
        let lines = self.each.min(self.lines);
        for _ in 0..lines {
            ask::<2>(self.at);
            self.at = self.at.wrapping_add(64);
        }
        self.lines -= lines;
    }
}

/// The products of tiles of so many rows by so many vectors, compiled with an instruction set's features.
macro_rules! table {
    ($S:ident, $features:literal, ($R:literal, $V:literal)) => {{
        #[target_feature(enable = $features)]
        unsafe fn pack(rows: usize, k: usize, a: Left, round: bool, out: *mut f32) {
            // SAFETY: the caller's contract.
            unsafe { tiles::pack::<$R>(rows, k, a, round, out) }
        }
        #[target_feature(enable = $features)]
        unsafe fn gemm(
            m: usize,
            n: usize,
            k: usize,
            a: *const f32,
            tile: usize,
            b: Panel,
            c: *mut f32,
            c_stride: usize,
            add: bool,
        ) {
            // SAFETY: the caller's contract.
            unsafe { tiles::gemm::<$S, $R, $V>(m, n, k, a, tile, b, c, c_stride, add) }
        }
        Some(Tiles { rows: $R, pack, gemm })
    }};
}
pub(super) use table;
