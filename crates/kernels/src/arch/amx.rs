//! AMX: eight tiles of sixteen rows of 64 bytes, and products of whole tiles of bf16; for the rest, AVX-512.
//!
//! The instructions are written as assembly, since the compiler's own names for them are not stable. No other code of this
//! process uses tiles, so what one block of assembly leaves in them, the next one finds.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::cell::Cell;
use std::sync::LazyLock;

use super::avx512::{self, Avx512};
use super::avx512bf16;
use super::{Format, Kernels, PANEL, QuantizedLeft, Strip, TILE, ask_for, quantized};
use crate::gemm::FEW;

/// Rows of a tile, and f32 columns of one.
const SIDE: usize = 16;
/// How far ahead, in bytes, weights are asked for that come from memory: these processors read it a third faster then.
const AHEAD: usize = 4096;
/// bf16 in a tile's row: inner steps of one product of tiles.
const STEP: usize = 32;

pub(super) static KERNELS: Kernels = Kernels { bf16_inner: 2048, gemm_bf16, gemm_quantized, ..avx512bf16::KERNELS };

/// Whether the CPU has tiles of bf16, and the system lets this process use them (asked once).
pub(super) fn is_available() -> bool {
    static GRANTED: LazyLock<bool> = LazyLock::new(|| {
        // Leaf 7: AMX-BF16 and AMX-TILE.
        let has = __cpuid_count(7, 0).edx;
        has >> 22 & has >> 24 & 1 == 1 && system_grants_tiles()
    });
    *GRANTED
}

#[cfg(target_os = "linux")]
fn system_grants_tiles() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const TILE_DATA: i64 = 18;
    let answer: i64;
    // SAFETY: a system call that reads and writes no memory of ours; where it is not known it answers with an error.
    unsafe {
        asm!("syscall", inlateout("rax") ARCH_PRCTL => answer, in("rdi") ARCH_REQ_XCOMP_PERM, in("rsi") TILE_DATA,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    answer == 0
}

#[cfg(not(target_os = "linux"))]
fn system_grants_tiles() -> bool {
    false
}

thread_local! {
    /// Rows of the two left tiles that this thread's tiles are shaped for.
    static SHAPED: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// Shapes this thread's tiles: 0 and 1 are results of `upper` rows, 2 and 3 of `lower`, 4 and 5 left operands of as many,
/// 6 and 7 right operands.
///
/// # Safety
/// The CPU has tiles; rows are 1 to 16.
#[inline]
unsafe fn shape(upper: usize, lower: usize) {
    if SHAPED.get() == (upper, lower) {
        return;
    }
    #[repr(C, align(64))]
    struct Palette([u8; 64]);
    let mut palette = Palette([0; 64]);
    palette.0[0] = 1;
    for (tile, rows) in [upper, upper, lower, lower, upper, lower, SIDE, SIDE].into_iter().enumerate() {
        // Bytes of a row, 16 bits each; then rows, 8 bits each.
        palette.0[16 + 2 * tile] = 64;
        palette.0[48 + tile] = rows as u8;
    }
    // SAFETY: palette 1 exists where tiles do, and its tiles have up to 16 rows of 64 bytes.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &palette, options(nostack)) };
    SHAPED.set((upper, lower));
}

/// Loads tile `T`: its rows are `stride` bytes apart.
///
/// # Safety
/// Tiles are shaped, and the rows are readable.
#[inline(always)]
unsafe fn load<const T: u8, E>(from: *const E, stride: usize) {
    // SAFETY: the caller's.
    unsafe {
        asm!("tileloadd tmm{tile}, [{from} + {stride}*1]", tile = const T, from = in(reg) from, stride = in(reg) stride,
            options(nostack, readonly, preserves_flags));
    }
}

/// Stores tile `T`.
///
/// # Safety
/// Tiles are shaped, and the rows are writable.
#[inline(always)]
unsafe fn store<const T: u8>(to: *mut f32, stride: usize) {
    // SAFETY: the caller's.
    unsafe {
        asm!("tilestored [{to} + {stride}*1], tmm{tile}", tile = const T, to = in(reg) to, stride = in(reg) stride,
            options(nostack, preserves_flags));
    }
}

/// Results of one or two tiles' rows by two tiles' columns, from their places or zero.
///
/// # Safety
/// Tiles are shaped, and c is readable for their rows, `stride` bytes apart, of PANEL.
#[inline(always)]
unsafe fn begin<const LOWER: bool>(c: *const f32, stride: usize, add: bool) {
    // SAFETY: the caller's.
    unsafe {
        if add {
            load::<0, f32>(c, stride);
            load::<1, f32>(c.add(SIDE), stride);
            if LOWER {
                let c = c.byte_add(SIDE * stride);
                load::<2, f32>(c, stride);
                load::<3, f32>(c.add(SIDE), stride);
            }
        } else {
            asm!("tilezero tmm0", "tilezero tmm1", options(nostack, nomem, preserves_flags));
            if LOWER {
                asm!("tilezero tmm2", "tilezero tmm3", options(nostack, nomem, preserves_flags));
            }
        }
    }
}

/// One step: 32 inner places of the left tiles' rows by those of two right tiles; `ask` for right ones of later steps.
///
/// # Safety
/// Tiles are shaped; a has their rows, `stride` bytes apart, of 32; b has 16 pairs of rows of a panel.
#[inline(always)]
unsafe fn step<const LOWER: bool>(a: *const u16, stride: usize, b: *const u16, ask: bool) {
    const PAIRS: usize = 2 * PANEL * size_of::<u16>();
    // SAFETY: the caller's.
    unsafe {
        if ask {
            ask_for(b.cast::<u8>().wrapping_add(AHEAD), SIDE * PAIRS);
        }
        load::<6, u16>(b, PAIRS);
        load::<4, u16>(a, stride);
        load::<7, u16>(b.add(2 * SIDE), PAIRS);
        asm!("tdpbf16ps tmm0, tmm4, tmm6", "tdpbf16ps tmm1, tmm4, tmm7", options(nostack, nomem, preserves_flags));
        if LOWER {
            load::<5, u16>(a.byte_add(SIDE * stride), stride);
            asm!("tdpbf16ps tmm2, tmm5, tmm6", "tdpbf16ps tmm3, tmm5, tmm7", options(nostack, nomem, preserves_flags));
        }
    }
}

/// Puts the results in their places.
///
/// # Safety
/// Tiles are shaped, and c is writable for their rows, `stride` bytes apart, of PANEL.
#[inline(always)]
unsafe fn end<const LOWER: bool>(c: *mut f32, stride: usize) {
    // SAFETY: the caller's.
    unsafe {
        store::<0>(c, stride);
        store::<1>(c.add(SIDE), stride);
        if LOWER {
            let c = c.byte_add(SIDE * stride);
            store::<2>(c, stride);
            store::<3>(c.add(SIDE), stride);
        }
    }
}

/// What is left of both operands behind the last whole step, filled up with zeros.
#[repr(C, align(64))]
struct Rest {
    left: [[u16; STEP]; 2 * SIDE],
    right: [[u16; 2 * PANEL]; STEP / 2],
}

impl Rest {
    /// # Safety
    /// a has `rows` rows, `a_stride` apart, of k; b k / 2 pairs of rows of a panel.
    unsafe fn new(rows: usize, k: usize, a: *const u16, a_stride: usize, b: *const u16) -> Rest {
        let mut rest = Rest { left: [[0; STEP]; 2 * SIDE], right: [[0; 2 * PANEL]; STEP / 2] };
        // SAFETY: the caller's; k < STEP and rows <= 2 SIDE.
        unsafe {
            for (r, left) in rest.left.iter_mut().enumerate().take(rows) {
                std::ptr::copy_nonoverlapping(a.add(r * a_stride), left.as_mut_ptr(), k);
            }
            std::ptr::copy_nonoverlapping(b, rest.right.as_mut_ptr().cast(), k * PANEL);
        }
        rest
    }
}

/// Up to 32 rows by a whole panel, the panel asked for ahead or not.
///
/// # Safety
/// That of [`Kernels::gemm_bf16`], for `rows` rows, more than 16 where LOWER, and PANEL columns.
#[inline(always)]
unsafe fn block<const LOWER: bool>(
    rows: usize,
    k: usize,
    a: *const u16,
    a_stride: usize,
    b: *const u16,
    c: *mut f32,
    c_stride: usize,
    add: bool,
    ask: bool,
) {
    let whole = k / STEP * STEP;
    // SAFETY: the caller's; the shape has `rows` rows in all.
    unsafe {
        shape(rows.min(SIDE), if LOWER { rows - SIDE } else { SIDE });
        let bytes = c_stride * size_of::<f32>();
        begin::<LOWER>(c, bytes, add);
        for p in (0..whole).step_by(STEP) {
            step::<LOWER>(a.add(p), a_stride * size_of::<u16>(), b.add(p * PANEL), ask);
        }
        if whole < k {
            let rest = Rest::new(rows, k - whole, a.add(whole), a_stride, b.add(whole * PANEL));
            step::<LOWER>(rest.left.as_ptr().cast(), STEP * size_of::<u16>(), rest.right.as_ptr().cast(), false);
        }
        end::<LOWER>(c, bytes);
    }
}

/// See [`Kernels::gemm_bf16`]. Within 32 inner places, even and odd ones are summed apart, then both, then with what there
/// was (Intel's manual, TDPBF16PS); numbers too small to be normal count as zero.
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
    let k = k.next_multiple_of(2);
    for row in (0..m).step_by(2 * SIDE) {
        let rows = (m - row).min(2 * SIDE);
        // SAFETY: rows row..row + rows lie below m; what lies outside the n columns is kept in memory of our own.
        unsafe {
            let (a, c) = (a.add(row * a_stride), c.add(row * c_stride));
            let whole = |c: *mut f32, c_stride: usize| match rows > SIDE {
                true => block::<true>(rows, k, a, a_stride, b, c, c_stride, add, row == 0),
                false => block::<false>(rows, k, a, a_stride, b, c, c_stride, add, row == 0),
            };
            if n == PANEL {
                whole(c, c_stride);
                continue;
            }
            let mut wide = [[0.0_f32; PANEL]; 2 * SIDE];
            if add {
                for (r, wide) in wide.iter_mut().enumerate().take(rows) {
                    std::ptr::copy_nonoverlapping(c.add(r * c_stride), wide.as_mut_ptr(), n);
                }
            }
            whole(wide.as_mut_ptr().cast(), PANEL);
            for (r, wide) in wide.iter().enumerate().take(rows) {
                std::ptr::copy_nonoverlapping(wide.as_ptr(), c.add(r * c_stride), n);
            }
        }
    }
}

/// See [`Kernels::gemm_quantized`]: AVX-512's, which asks ahead for few rows.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
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
    if m > FEW {
        // SAFETY: the caller's contract.
        return unsafe { (avx512::KERNELS.gemm_quantized)(format, m, n, blocks, a, b, c, c_stride, add) };
    }
    quantized::gemm!(Avx512, ahead AHEAD, [(2, 2, 1), (1, 1, 1)], format, m, n, blocks, a, b, c, c_stride, add)
}
