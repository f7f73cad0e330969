//! AVX-512 with VNNI: sixteen lanes, thirty-two registers, and dot products of four bytes.

use super::simd::{Bytes, Simd};
use super::{AdamStep, Format, Kernels, Left, QuantizedLeft, QuantizedRow, Strip, TILE};
use super::{Panel, Tiles, generic, products, quantized, tiles};
use std::arch::x86_64::*;

pub(super) struct Avx512;

#[inline(always)]
fn mask(n: usize) -> __mmask16 {
    debug_assert!(n < 16);
    (1 << n) - 1
}

// SAFETY (all blocks below): the trait's contract, which is that the CPU has AVX-512 and that pointers are valid.
impl Simd for Avx512 {
    const LANES: usize = 16;
    type F = __m512;
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_partial(p: *const f32, n: usize) -> __m512 {
        // SAFETY: see above; masked lanes are not read.
        unsafe { _mm512_maskz_loadu_ps(mask(n), p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: __m512) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_ps(p, x) }
    }
    #[inline(always)]
    unsafe fn store_partial(p: *mut f32, n: usize, x: __m512) {
        // SAFETY: see above; masked lanes are not written.
        unsafe { _mm512_mask_storeu_ps(p, mask(n), x) }
    }
    #[inline(always)]
    unsafe fn add(x: __m512, y: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_add_ps(x, y) }
    }
    #[inline(always)]
    unsafe fn sub(x: __m512, y: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_sub_ps(x, y) }
    }
    #[inline(always)]
    unsafe fn mul(x: __m512, y: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_mul_ps(x, y) }
    }
    #[inline(always)]
    unsafe fn div(x: __m512, y: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_div_ps(x, y) }
    }
    #[inline(always)]
    unsafe fn sqrt(x: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_sqrt_ps(x) }
    }
    #[inline(always)]
    unsafe fn max(x: __m512, y: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_max_ps(x, y) }
    }
    #[inline(always)]
    unsafe fn min(x: __m512, y: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_min_ps(x, y) }
    }
    #[inline(always)]
    unsafe fn within(x: __m512, y: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(_mm512_abs_ps(x), y, _CMP_LE_OQ), x) }
    }
    #[inline(always)]
    unsafe fn outside(x: __m512, y: __m512) -> u32 {
        // SAFETY: see above.
        unsafe { u32::from(_mm512_cmp_ps_mask(_mm512_abs_ps(x), y, _CMP_GT_OQ)) }
    }
    #[inline(always)]
    unsafe fn fma(x: __m512, y: __m512, z: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_fmadd_ps(x, y, z) }
    }
    #[inline(always)]
    unsafe fn round(x: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC) }
    }
    #[inline(always)]
    unsafe fn times_power_of_two(x: __m512, n: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe {
            let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_mul_ps(x, _mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23)))
        }
    }
    #[inline(always)]
    unsafe fn swap_pairs(x: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_permute_ps(x, 0b10_11_00_01) }
    }
    #[inline(always)]
    unsafe fn sum(x: __m512) -> f32 {
        // SAFETY: see above.
        unsafe {
            let x = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
            let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps(x, x, 1)))
        }
    }
    #[inline(always)]
    unsafe fn largest(x: __m512) -> f32 {
        // SAFETY: see above.
        unsafe {
            let x = _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
            let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
            let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_max_ss(x, _mm_shuffle_ps(x, x, 1)))
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(p: *mut u16, x: __m512) {
        // SAFETY: see above.
        unsafe {
            let bits = _mm512_castps_si512(x);
            let odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
            let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
            // A NaN must stay one: the carry could turn it into an infinity or a zero.
            let nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
            let rounded = _mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7fc0_0000));
            _mm256_storeu_si256(p.cast(), _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
        }
    }
    #[inline(always)]
    unsafe fn load_bf16_pairs(p: *const u16) -> (__m512, __m512) {
        // SAFETY: see above.
        unsafe { widen_pairs(_mm512_loadu_si512(p.cast())) }
    }
    #[inline(always)]
    unsafe fn splat_bf16_pair(p: *const u16) -> (__m512, __m512) {
        // SAFETY: see above; p has two numbers.
        unsafe { widen_pairs(_mm512_set1_epi32(p.cast::<i32>().read_unaligned())) }
    }
}

/// The even and the odd ones.
#[inline(always)]
unsafe fn widen_pairs(pairs: __m512i) -> (__m512, __m512) {
    // SAFETY: see above.
    unsafe {
        let (even, odd) = (_mm512_slli_epi32(pairs, 16), _mm512_and_si512(pairs, _mm512_set1_epi32(!0xffff)));
        (_mm512_castsi512_ps(even), _mm512_castsi512_ps(odd))
    }
}

// SAFETY (all blocks below): the trait's contract, as above.
impl Bytes for Avx512 {
    type I = __m512i;
    const SIGNED: bool = false;
    const NARROW: bool = false;
    #[inline(always)]
    unsafe fn splat_i32(x: i32) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_set1_epi32(x) }
    }
    #[inline(always)]
    unsafe fn load_bytes(p: *const u8) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn shift_and_mask(x: __m512i, by: i32, mask: u8) -> __m512i {
        // SAFETY: see above. Bits that come over from the neighbouring byte are masked away.
        unsafe {
            let shifted = match by {
                0 => x,
                1.. => _mm512_sll_epi16(x, _mm_cvtsi32_si128(by)),
                _ => _mm512_srl_epi16(x, _mm_cvtsi32_si128(-by)),
            };
            _mm512_and_si512(shifted, _mm512_set1_epi8(mask as i8))
        }
    }
    #[inline(always)]
    unsafe fn or(x: __m512i, y: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_or_si512(x, y) }
    }
    #[inline(always)]
    unsafe fn shift_lanes(x: __m512i, by: usize, mask: i32) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_and_si512(_mm512_srlv_epi32(x, _mm512_set1_epi32(by as i32)), _mm512_set1_epi32(mask)) }
    }
    #[inline(always)]
    unsafe fn look_up(table: &[u8; 16], x: __m512i) -> __m512i {
        // SAFETY: see above; the table is 16 bytes.
        unsafe { _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast())), x) }
    }
    #[inline(always)]
    unsafe fn begin(sum: __m512i) -> __m512i {
        sum
    }
    #[inline(always)]
    unsafe fn dot(part: __m512i, codes: __m512i, x: *const i8) -> __m512i {
        // SAFETY: see above; x has four bytes.
        unsafe { _mm512_dpbusd_epi32(part, codes, _mm512_set1_epi32(x.cast::<i32>().read_unaligned())) }
    }
    #[inline(always)]
    unsafe fn end(_: __m512i, part: __m512i) -> __m512i {
        part
    }
    #[inline(always)]
    unsafe fn dot_wide(sum: __m512i, codes: __m512i, x: *const i8) -> __m512i {
        // SAFETY: the same contract.
        unsafe { Self::dot(sum, codes, x) }
    }
    #[inline(always)]
    unsafe fn to_f32(x: __m512i) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_cvtepi32_ps(x) }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u8) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const u8) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()))) }
    }
    #[inline(always)]
    unsafe fn load_u8(p: *const u8) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast()))) }
    }
    #[inline(always)]
    unsafe fn load_nibbles(p: *const u8) -> (__m512, __m512) {
        // SAFETY: see above.
        unsafe {
            let bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast()));
            let (low, high) = (_mm512_and_si512(bytes, _mm512_set1_epi32(15)), _mm512_srli_epi32(bytes, 4));
            (_mm512_cvtepi32_ps(low), _mm512_cvtepi32_ps(high))
        }
    }
    #[inline(always)]
    unsafe fn store_i8(p: *mut i8, x: __m512) -> i32 {
        // SAFETY: see above.
        unsafe {
            let rounded = _mm512_cvtps_epi32(x);
            _mm_storeu_si128(p.cast(), _mm512_cvtsepi32_epi8(rounded));
            _mm512_reduce_add_epi32(rounded)
        }
    }
}

generic::table!(Avx512, "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni", rows [(12, 2), (4, 2), (2, 2), (1, 2)], tiles tiles::table!(Avx512, "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni", (12, 2)), bf16 products::gemm_bf16::<Avx512>, quantized [(8, 8, 1), (4, 4, 1), (2, 2, 1), (1, 1, 1)]);
