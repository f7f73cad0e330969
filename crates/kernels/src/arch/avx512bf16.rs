//! AVX-512 with dot products of bf16 pairs.

use super::avx512::{self, Avx512};
use super::{Kernels, products};
use std::arch::x86_64::*;

/// Tiles of f32 would widen what these products read as it lies.
pub(super) static KERNELS: Kernels = Kernels { tiles: None, gemm_bf16, ..avx512::KERNELS };

/// Whether they are faster than f32 products of the same numbers, widened: on Intel's processors `vdpbf16ps` starts every other
/// cycle or less often, two f32 products every cycle (161 and 330 GFLOP/s, two cores of Emerald Rapids).
pub(super) fn is_faster() -> bool {
    let vendor = __cpuid(0);
    [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).concat() != b"GenuineIntel"
}

/// `R` rows by one panel of bf16, by the dot product of pairs.
#[inline(always)]
unsafe fn tile_bf16<const R: usize>(
    n: usize,
    k: usize,
    a: *const u16,
    a_stride: usize,
    panel: *const u16,
    c: *mut f32,
    stride: usize,
    add: bool,
) {
    // SAFETY: the caller's pointers are valid for R rows of k (even) and n <= 32 columns.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); 2]; R];
        if add {
            for (r, row) in sums.iter_mut().enumerate() {
                *row = products::load_row::<Avx512, 2>(n, c.add(r * stride));
            }
        }
        for p in 0..k / 2 {
            let b: [__m512bh; 2] = [
                std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(panel.add(p * 64).cast())),
                std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(panel.add(p * 64 + 32).cast())),
            ];
            for (r, row) in sums.iter_mut().enumerate() {
                let pair = a.add(r * a_stride + 2 * p).cast::<i32>().read_unaligned();
                let pair: __m512bh = std::mem::transmute(_mm512_set1_epi32(pair));
                row[0] = _mm512_dpbf16_ps(row[0], pair, b[0]);
                row[1] = _mm512_dpbf16_ps(row[1], pair, b[1]);
            }
        }
        for (r, row) in sums.iter().enumerate() {
            products::store_row::<Avx512, 2>(n, c.add(r * stride), *row);
        }
    }
}

/// See [`Kernels::gemm_bf16`].
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16")]
unsafe fn gemm_bf16(
    m: usize,
    n: usize,
    k: usize,
    a: *const u16,
    a_stride: usize,
    panel: *const u16,
    c: *mut f32,
    stride: usize,
    add: bool,
) {
    let k = k.next_multiple_of(2);
    let mut i = 0;
    macro_rules! tiles {
        ($($rows:literal),+) => {$(
            while m - i >= $rows {
                // SAFETY: the rows i.. lie inside the caller's m rows.
                unsafe {
                    tile_bf16::<$rows>(n, k, a.add(i * a_stride), a_stride, panel, c.add(i * stride), stride, add);
                }
                i += $rows;
            }
        )+};
    }
    // Small ones for what decoding has: the heads of a group.
    tiles!(12, 8, 6, 4, 3, 2, 1);
}
