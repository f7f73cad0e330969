//! The instruction sets: which this CPU has, and one table of kernels for each.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512bf16;
#[cfg(target_arch = "aarch64")]
mod dotprod;
#[cfg(all(test, target_arch = "x86_64"))]
mod emulated;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod generic;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod products;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod quantized;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod simd;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod tiles;

use crate::quantized::{BLOCK, Format, Strip};

/// Columns of a packed panel; every instruction set works on panels of this width.
pub(crate) const PANEL: usize = 32;

/// Positions in one page of keys and values.
pub(crate) const PAGE: usize = 32;

/// An instruction set that kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Plain Rust, on any machine: the reference that the others are checked against.
    Portable,
    /// Every 64-bit ARM.
    Neon,
    /// The same with products of bytes (ARMv8.2, 2018 on).
    Dotprod,
    /// x86-64 with AVX2 and FMA (2013 on).
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ, VL and VNNI (2019 on).
    Avx512,
    /// The same with products of pairs of bf16 (2020 on).
    Avx512Bf16,
    /// The same with AMX's tiles of bf16 (Intel's servers, 2023 on).
    Amx,
}

impl Isa {
    /// All of them, slowest first.
    pub const ALL: [Isa; 7] =
        [Isa::Portable, Isa::Neon, Isa::Dotprod, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::Amx];

    /// The name used by `MINKE_ISA` and printed by `minke chips`.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Neon => "neon",
            Isa::Dotprod => "dotprod",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Bf16 => "avx512bf16",
            Isa::Amx => "amx",
        }
    }

    /// Whether this CPU can run it.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Portable => true,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => true,
            #[cfg(target_arch = "aarch64")]
            Isa::Dotprod => std::arch::is_aarch64_feature_detected!("dotprod"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                Isa::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => Isa::Avx512.is_available() && is_x86_feature_detected!("avx512bf16"),
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => Isa::Avx512Bf16.is_available() && amx::is_available(),
            // Another machine's.
            _ => false,
        }
    }

    /// Whether this CPU, which can run it, is faster with it than with those before it.
    fn is_faster(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => avx512bf16::is_faster(),
            _ => true,
        }
    }

    /// The fastest that this CPU can run, or the one `wanted` names.
    ///
    /// # Errors
    /// One sentence, when `wanted` is unknown or this CPU lacks it.
    pub fn choose(wanted: Option<&str>) -> Result<Isa, String> {
        let available = || Isa::ALL.into_iter().filter(|isa| isa.is_available());
        let names = || available().map(Isa::name).collect::<Vec<_>>().join(", ");
        match wanted {
            None | Some("") => Ok(available().rfind(|isa| isa.is_faster()).unwrap_or(Isa::Portable)),
            Some(name) => match Isa::ALL.into_iter().find(|isa| isa.name() == name) {
                Some(isa) if isa.is_available() => Ok(isa),
                Some(_) => Err(format!("MINKE_ISA={name}: this CPU lacks it; choose one of {}", names())),
                None => Err(format!("MINKE_ISA={name} is not an instruction set; choose one of {}", names())),
            },
        }
    }

    /// The kernels of an instruction set that [`Isa::is_available`].
    pub(crate) fn kernels(self) -> &'static Kernels {
        assert!(self.is_available(), "{} kernels asked for on a CPU without them", self.name());
        match self {
            Isa::Portable => &portable::KERNELS,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => &neon::KERNELS,
            #[cfg(target_arch = "aarch64")]
            Isa::Dotprod => &dotprod::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => &avx2::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => &avx512::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => &avx512bf16::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => &amx::KERNELS,
            _ => unreachable!("no kernels that are available are missing here"),
        }
    }
}

/// Asks for all of x to be brought into the second cache, where the processor can be asked: to the first, half as many
/// lines may be under way.
#[inline]
pub(crate) fn prefetch<T>(x: &[T]) {
    for line in 0..size_of_val(x).div_ceil(64) {
        ask::<2>(x.as_ptr().cast::<u8>().wrapping_add(64 * line));
    }
}

/// Asks for so many bytes from `at` on to be brought into the first cache, wherever that is.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline(always)]
fn ask_for(at: *const u8, bytes: usize) {
    for line in (0..bytes).step_by(64) {
        ask::<1>(at.wrapping_add(line));
    }
}

/// Asks for the line of memory at `at` to be brought into this cache, of which there are a first and a second one.
#[inline(always)]
fn ask<const CACHE: u8>(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 has SSE, and a prefetch reads nothing.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        match CACHE {
            1 => _mm_prefetch::<_MM_HINT_T0>(at.cast()),
            _ => _mm_prefetch::<_MM_HINT_T1>(at.cast()),
        }
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a prefetch reads nothing, whatever lies there.
    unsafe {
        match CACHE {
            1 => std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) at, options(readonly, nostack, preserves_flags)),
            _ => std::arch::asm!("prfm pldl2keep, [{0}]", in(reg) at, options(readonly, nostack, preserves_flags)),
        }
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = at;
}

/// A left operand: element (i, p) of an m by k matrix is at `data + i * row + p * column`.
#[derive(Clone, Copy)]
pub(crate) struct Left {
    pub data: *const f32,
    pub row: usize,
    pub column: usize,
}

/// One instruction set's products of tiles.
#[derive(Clone, Copy)]
pub(crate) struct Tiles {
    /// Rows of a tile.
    pub rows: usize,
    /// Copies `rows` rows of `k` into tiles, [tile][k][rows of a tile], zeros below the last; in bf16's precision, to nearest
    /// even, where `round`.
    pub pack: unsafe fn(rows: usize, k: usize, a: Left, round: bool, out: *mut f32),
    /// As [`Kernels::gemm_f32`], for `a` in tiles that begin `tile` numbers apart.
    pub gemm: unsafe fn(
        m: usize,
        n: usize,
        k: usize,
        a: *const f32,
        tile: usize,
        b: Panel,
        c: *mut f32,
        c_stride: usize,
        add: bool,
    ),
}

/// Some rows of a panel of a right operand.
#[derive(Clone, Copy)]
pub(crate) struct Panel {
    pub rows: PanelRows,
    /// Where what will be wanted next lies: as many bytes are asked for; none where it is null.
    pub ahead: *const u8,
}

/// How a panel's rows lie.
#[derive(Clone, Copy)]
pub(crate) enum PanelRows {
    /// So far apart, readable up to a multiple of 16 columns.
    F32(*const f32, usize),
    /// [k / 2, rounded up][PANEL][2]
    Bf16(*const u16),
}

/// Numbers that `rows` rows of `k` take in tiles of `height`.
pub(crate) fn size_in_tiles(rows: usize, k: usize, height: usize) -> usize {
    rows.next_multiple_of(height) * k
}

/// Rows of rounded activations that lie interleaved, so that a kernel finds all of them from one pointer.
pub(crate) const TILE: usize = 8;

/// A number of a row that is larger than so many times their mean size is an outlier.
pub(crate) const OUTLIER: f32 = 8.0;

/// Blocks whose outliers are multiplied right after their bytes. Products of a whole row and of its parts, which begin at
/// multiples of these, have the same order.
pub(crate) const PART: usize = 32;

/// Activations rounded to bytes, in tiles of [`TILE`] rows and one of 1, 2, 4 or 8 that holds the rest; but for outliers,
/// whose bytes are zero and which are kept as they are. An input is listed if it is one in any row of the tile.
#[derive(Clone, Copy)]
pub(crate) struct QuantizedLeft {
    /// Of each tile, [blocks][rows of the tile][32].
    pub codes: *const i8,
    /// Of each tile, [blocks][rows of the tile].
    pub scales: *const f32,
    /// Of each tile, [blocks][groups][rows of the tile], what a group's sum of codes is wanted for: times the format's
    /// offset and negative; or, where the format has minima, times the scale, as the bits of an f32.
    pub sums: *const i32,
    /// Of each tile, [blocks]: how many inputs are listed up to the block's end.
    pub ends: *const u32,
    /// Of each tile, the inputs that are listed, in order; room for [blocks][rows of the tile].
    pub inputs: *const u32,
    /// Of each tile, [inputs that are listed][rows of the tile], outliers; zero where a row has none.
    pub outliers: *const f32,
    /// Blocks of a tile.
    pub blocks: usize,
    /// The first of them that is wanted.
    pub start: usize,
}

impl QuantizedLeft {
    /// Rows of the tile that holds `rows` at the end of an operand, padded; at most [`TILE`].
    pub fn height(rows: usize) -> usize {
        rows.next_power_of_two().min(TILE)
    }

    /// How many inputs are listed before block `block` of what is wanted.
    ///
    /// # Safety
    /// It is one of a tile that `self` is the wanted part of, or its end.
    pub unsafe fn listed(self, block: usize) -> usize {
        match self.start + block {
            0 => 0,
            // SAFETY: there is an end for each block.
            blocks => unsafe { *self.ends.add(blocks - 1) as usize },
        }
    }

    /// Tile `tile`, which has `height` rows.
    pub fn tile(self, tile: usize, height: usize, groups: usize) -> QuantizedLeft {
        let at = tile * TILE * self.blocks;
        QuantizedLeft {
            codes: self.codes.wrapping_add(at * BLOCK),
            scales: self.scales.wrapping_add(at),
            sums: self.sums.wrapping_add(at * groups),
            ends: self.ends.wrapping_add(tile * self.blocks),
            inputs: self.inputs.wrapping_add(at),
            outliers: self.outliers.wrapping_add(at * TILE),
            start: 0,
            ..self
        }
        .after(self.start, height, groups)
    }

    /// What is wanted of one tile of `height` rows, without the first `blocks`.
    pub fn after(self, blocks: usize, height: usize, groups: usize) -> QuantizedLeft {
        QuantizedLeft {
            codes: self.codes.wrapping_add(blocks * height * BLOCK),
            scales: self.scales.wrapping_add(blocks * height),
            sums: self.sums.wrapping_add(blocks * height * groups),
            start: self.start + blocks,
            ..self
        }
    }
}

/// Where one row of a tile is rounded to: its first places in what [`QuantizedLeft`] has, but that `sums` are plain.
#[derive(Clone, Copy)]
pub(crate) struct QuantizedRow {
    pub codes: *mut i8,
    pub scales: *mut f32,
    pub sums: *mut i32,
    /// [blocks], those of this row alone: a bit for each number that is an outlier.
    pub outliers: *mut u32,
}

/// Numbers that AdamW needs for one step (arXiv 1711.05101, algorithm 2).
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdamStep {
    /// Factor on the gradient (clipping).
    pub scale: f32,
    pub beta1: f32,
    /// 1 - beta1, which in `f32` is not what the subtraction gives.
    pub rest1: f32,
    pub beta2: f32,
    /// 1 - beta2
    pub rest2: f32,
    /// learning rate / (1 - beta1^t)
    pub rate: f32,
    /// 1 / sqrt(1 - beta2^t)
    pub root: f32,
    pub eps: f32,
    /// 1 - learning rate * weight decay
    pub keep: f32,
}

/// One instruction set's kernels: row- or tile-sized, so that the indirect call is noise.
///
/// All are `unsafe` to call: the CPU must have the instruction set (which [`Isa::kernels`] asserts), and the
/// pointers must be valid for the sizes given.
pub(crate) struct Kernels {
    /// c[i][j] = (add ? c[i][j] : 0) + sum over p of a[i][p] * b[p][j], for i < m, p < k, j < n <= PANEL,
    /// in order of p, one chain per element. Rows of b are `b_stride` apart and readable up to a multiple of 16
    /// columns; rows of c are `c_stride` apart.
    pub gemm_f32: unsafe fn(
        m: usize,
        n: usize,
        k: usize,
        a: Left,
        b: *const f32,
        b_stride: usize,
        c: *mut f32,
        c_stride: usize,
        add: bool,
    ),
    /// Products of many rows, where the instruction set has none of bf16 and few registers.
    pub tiles: Option<Tiles>,
    /// Inner steps of `gemm_bf16` between two visits of the output, even: as many as leave a left operand of
    /// [`crate::gemm::BLOCK`] rows in the cache that the instruction set's processors have.
    pub bf16_inner: usize,
    /// The same for a panel of bf16 whose rows are interleaved in pairs, [k/2][PANEL][2], and `a` of bf16 with rows
    /// `a_stride` apart, k even (padded with zeros). The order within a pair is the instruction set's own.
    pub gemm_bf16: unsafe fn(
        m: usize,
        n: usize,
        k: usize,
        a: *const u16,
        a_stride: usize,
        b: *const u16,
        c: *mut f32,
        c_stride: usize,
        add: bool,
    ),
    /// The same for n rows of a weight, strips of `format` of which `b` is the first, from some block on, times `blocks` blocks of rounded
    /// activations. Whole numbers are summed exactly within a group; then, group by group in order,
    /// c = fma(sum, scale of the weight * scale of the activations, c), and c = fma(minimum, scaled sum of the activations, c)
    /// where there are minima. After each [`PART`], outlier by outlier in order, c = fma(weight, outlier, c), which one of
    /// zero does not change.
    pub gemm_quantized: unsafe fn(
        format: Format,
        m: usize,
        n: usize,
        blocks: usize,
        a: QuantizedLeft,
        b: Strip,
        c: *mut f32,
        c_stride: usize,
        add: bool,
    ),
    /// Rounds each 32 numbers of x to signed bytes times a scale, the largest to 127 or -127, to nearest and ties to even;
    /// and sums the bytes of each 32, or each 16 where `groups` is two. The scale is no number where one of x is none or
    /// infinite. Outliers are left out: numbers larger than [`OUTLIER`] times the mean size of the row's, or twice that, four
    /// times and so on, until they are no more than blocks. The mean is summed in 32 lanes and those by halving, on every
    /// instruction set alike; where it is not finite, nothing is an outlier. The result is one row of a tile of `height`.
    pub quantize: unsafe fn(blocks: usize, groups: usize, height: usize, x: *const f32, out: QuantizedRow),
    /// A softmax over some keys. scores is rows, `stride` apart, of `columns`, whole pages; row r sees the first
    /// min(columns, visible + r / rows_per_position) >= 1 keys. max becomes the largest scale * score, scores become weights
    /// exp(scale * score - max) (0 where unseen), and sum their sum, lane by lane and then by a fixed tree.
    pub softmax: unsafe fn(
        rows: usize,
        columns: usize,
        scores: *mut f32,
        stride: usize,
        visible: usize,
        rows_per_position: usize,
        scale: f32,
        max: *mut f32,
        sum: *mut f32,
    ),
    /// Weights again from their scores, and the scores' gradient: p = exp(scale * s - lse) (0 where unseen, as above),
    /// d_scores[r][j] = p * (d_p[r][j] - delta[r]) * scale, in place of d_p; scores become p.
    pub softmax_page_backward: unsafe fn(
        rows: usize,
        scores: *mut f32,
        d_p: *mut f32,
        visible: usize,
        rows_per_position: usize,
        scale: f32,
        lse: *const f32,
        delta: *const f32,
    ),
    /// x[i] *= factor
    pub scale: unsafe fn(n: usize, factor: f32, x: *mut f32),
    /// y[i] += factor * x[i]
    pub axpy: unsafe fn(n: usize, factor: f32, x: *const f32, y: *mut f32),
    /// Sum of x[i] * y[i], lane by lane and then by a fixed tree.
    pub dot: unsafe fn(n: usize, x: *const f32, y: *const f32) -> f32,
    /// Largest of x; -inf for none.
    pub max: unsafe fn(n: usize, x: *const f32) -> f32,
    /// Sums of exp(z[i]) and of z[i] * exp(z[i]), z[i] = x[i] * scale - shift; both 0 from z <= -88 on, -inf included.
    /// Lane by lane and then by a fixed tree.
    pub exp_sums: unsafe fn(n: usize, scale: f32, shift: f32, x: *const f32) -> (f32, f32),
    /// Sums of exp(z[i]) and of (z[i] - w[i]) * exp(z[i]), z[i] = x[i] - x_shift, w[i] = y[i] - y_shift; both 0 from z <= -88
    /// on. Lane by lane and then by a fixed tree.
    pub exp_gaps: unsafe fn(n: usize, x_shift: f32, y_shift: f32, x: *const f32, y: *const f32) -> (f32, f32),
    /// x[i] = factor * exp(x[i] * scale - shift)
    pub exp_scaled: unsafe fn(n: usize, scale: f32, shift: f32, factor: f32, x: *mut f32),
    /// y[i] = x[i] * factor * weight[i]
    pub scale_by: unsafe fn(n: usize, factor: f32, x: *const f32, weight: *const f32, y: *mut f32),
    /// Rotates `heads` vectors, `stride` apart, of 2 * half numbers: the pairs (x[i], x[i + half]) by angles whose cosines
    /// and sines are given, the sines times `sign`.
    pub rotate_halves:
        unsafe fn(heads: usize, stride: usize, half: usize, cos: *const f32, sin: *const f32, sign: f32, x: *mut f32),
    /// The same for the pairs (x[2i], x[2i + 1]): `cos` holds each cosine twice, `sin` each sine as -sin, sin.
    pub rotate_pairs:
        unsafe fn(heads: usize, stride: usize, half: usize, cos: *const f32, sin: *const f32, sign: f32, x: *mut f32),
    /// out[i] = silu(gate[i]) * up[i]
    pub swiglu: unsafe fn(n: usize, gate: *const f32, up: *const f32, out: *mut f32),
    /// Gradients of `swiglu` from d_out. `d_gate` may be `gate`, and `d_up` may be `up`.
    pub swiglu_backward:
        unsafe fn(n: usize, gate: *const f32, up: *const f32, d_out: *const f32, d_gate: *mut f32, d_up: *mut f32),
    /// One AdamW step on n parameters.
    pub adamw: unsafe fn(n: usize, step: AdamStep, gradient: *const f32, m: *mut f32, v: *mut f32, parameter: *mut f32),
    /// bf16, rounded to nearest even.
    pub to_bf16: unsafe fn(n: usize, x: *const f32, y: *mut u16),
    /// The same of [`PANEL`] numbers each of x and y, in pairs.
    pub to_bf16_pairs: unsafe fn(x: *const f32, y: *const f32, pairs: *mut u16),
    /// bf16 of small whole numbers, which it holds exactly.
    pub widen_i8: unsafe fn(n: usize, x: *const i8, y: *mut u16),
}
