//! AVX2 with FMA: eight lanes, sixteen registers.

use super::simd::{Bytes, Simd};
use super::{AdamStep, Format, Kernels, Left, QuantizedLeft, QuantizedRow, Strip, TILE};
use super::{Panel, Tiles, generic, products, quantized, tiles};
use std::arch::x86_64::*;

struct Avx2;

/// -1 in the first n lanes when read from offset 8 - n.
static MASK: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

#[inline(always)]
unsafe fn mask(n: usize) -> __m256i {
    debug_assert!(n < 8);
    // SAFETY: n < 8, so eight elements from 8 - n lie inside the table.
    unsafe { _mm256_loadu_si256(MASK.as_ptr().add(8 - n).cast()) }
}

// SAFETY (all blocks below): the trait's contract, which is that the CPU has AVX2 and FMA and that pointers are valid.
impl Simd for Avx2 {
    const LANES: usize = 8;
    type F = __m256;
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_partial(p: *const f32, n: usize) -> __m256 {
        // SAFETY: see above; masked lanes are not read.
        unsafe { _mm256_maskload_ps(p, mask(n)) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: __m256) {
        // SAFETY: see above.
        unsafe { _mm256_storeu_ps(p, x) }
    }
    #[inline(always)]
    unsafe fn store_partial(p: *mut f32, n: usize, x: __m256) {
        // SAFETY: see above; masked lanes are not written.
        unsafe { _mm256_maskstore_ps(p, mask(n), x) }
    }
    #[inline(always)]
    unsafe fn add(x: __m256, y: __m256) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_add_ps(x, y) }
    }
    #[inline(always)]
    unsafe fn sub(x: __m256, y: __m256) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_sub_ps(x, y) }
    }
    #[inline(always)]
    unsafe fn mul(x: __m256, y: __m256) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_mul_ps(x, y) }
    }
    #[inline(always)]
    unsafe fn div(x: __m256, y: __m256) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_div_ps(x, y) }
    }
    #[inline(always)]
    unsafe fn sqrt(x: __m256) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_sqrt_ps(x) }
    }
    #[inline(always)]
    unsafe fn max(x: __m256, y: __m256) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_max_ps(x, y) }
    }
    #[inline(always)]
    unsafe fn min(x: __m256, y: __m256) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_min_ps(x, y) }
    }
    #[inline(always)]
    unsafe fn within(x: __m256, y: __m256) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_and_ps(x, _mm256_cmp_ps(_mm256_andnot_ps(_mm256_set1_ps(-0.0), x), y, _CMP_LE_OQ)) }
    }
    #[inline(always)]
    unsafe fn outside(x: __m256, y: __m256) -> u32 {
        // SAFETY: see above.
        unsafe { _mm256_movemask_ps(_mm256_cmp_ps(_mm256_andnot_ps(_mm256_set1_ps(-0.0), x), y, _CMP_GT_OQ)) as u32 }
    }
    #[inline(always)]
    unsafe fn fma(x: __m256, y: __m256, z: __m256) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_fmadd_ps(x, y, z) }
    }
    #[inline(always)]
    unsafe fn round(x: __m256) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC) }
    }
    #[inline(always)]
    unsafe fn times_power_of_two(x: __m256, n: __m256) -> __m256 {
        // SAFETY: see above.
        unsafe {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)))
        }
    }
    #[inline(always)]
    unsafe fn swap_pairs(x: __m256) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_permute_ps(x, 0b10_11_00_01) }
    }
    #[inline(always)]
    unsafe fn sum(x: __m256) -> f32 {
        // SAFETY: see above.
        unsafe {
            let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps(x, x, 1)))
        }
    }
    #[inline(always)]
    unsafe fn largest(x: __m256) -> f32 {
        // SAFETY: see above.
        unsafe {
            let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
            let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_max_ss(x, _mm_shuffle_ps(x, x, 1)))
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(p: *mut u16, x: __m256) {
        // SAFETY: see above.
        unsafe {
            let bits = _mm256_castps_si256(x);
            let odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
            let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
            // A NaN must stay one: the carry could turn it into an infinity or a zero.
            let nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
            let rounded = _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc0_0000), nan);
            let high = _mm256_srli_epi32(rounded, 16);
            let packed = _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
            _mm_storeu_si128(p.cast(), packed);
        }
    }
    #[inline(always)]
    unsafe fn load_bf16_pairs(p: *const u16) -> (__m256, __m256) {
        // SAFETY: see above.
        unsafe { widen_pairs(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn splat_bf16_pair(p: *const u16) -> (__m256, __m256) {
        // SAFETY: see above; p has two numbers.
        unsafe { widen_pairs(_mm256_set1_epi32(p.cast::<i32>().read_unaligned())) }
    }
}

/// The even and the odd ones.
#[inline(always)]
unsafe fn widen_pairs(pairs: __m256i) -> (__m256, __m256) {
    // SAFETY: see above.
    unsafe {
        let (even, odd) = (_mm256_slli_epi32(pairs, 16), _mm256_and_si256(pairs, _mm256_set1_epi32(!0xffff)));
        (_mm256_castsi256_ps(even), _mm256_castsi256_ps(odd))
    }
}

// SAFETY (all blocks below): the trait's contract, as above.
impl Bytes for Avx2 {
    type I = __m256i;
    const SIGNED: bool = true;
    const NARROW: bool = true;
    #[inline(always)]
    unsafe fn splat_i32(x: i32) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_set1_epi32(x) }
    }
    #[inline(always)]
    unsafe fn load_bytes(p: *const u8) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_loadu_si256(p.cast()) }
    }
    #[inline(always)]
    unsafe fn shift_and_mask(x: __m256i, by: i32, mask: u8) -> __m256i {
        // SAFETY: see above. Bits that come over from the neighbouring byte are masked away.
        unsafe {
            let shifted = match by {
                0 => x,
                1.. => _mm256_sll_epi16(x, _mm_cvtsi32_si128(by)),
                _ => _mm256_srl_epi16(x, _mm_cvtsi32_si128(-by)),
            };
            _mm256_and_si256(shifted, _mm256_set1_epi8(mask as i8))
        }
    }
    #[inline(always)]
    unsafe fn or(x: __m256i, y: __m256i) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_or_si256(x, y) }
    }
    #[inline(always)]
    unsafe fn shift_lanes(x: __m256i, by: usize, mask: i32) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_and_si256(_mm256_srlv_epi32(x, _mm256_set1_epi32(by as i32)), _mm256_set1_epi32(mask)) }
    }
    #[inline(always)]
    unsafe fn look_up(table: &[u8; 16], x: __m256i) -> __m256i {
        // SAFETY: see above; the table is 16 bytes.
        unsafe { _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast())), x) }
    }
    #[inline(always)]
    unsafe fn begin(_: __m256i) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_setzero_si256() }
    }
    #[inline(always)]
    unsafe fn dot(part: __m256i, codes: __m256i, x: *const i8) -> __m256i {
        // SAFETY: see above; x has four bytes.
        unsafe {
            let x = _mm256_set1_epi32(x.cast::<i32>().read_unaligned());
            _mm256_add_epi16(part, _mm256_maddubs_epi16(codes, x))
        }
    }
    #[inline(always)]
    unsafe fn end(sum: __m256i, part: __m256i) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_add_epi32(sum, _mm256_madd_epi16(part, _mm256_set1_epi16(1))) }
    }
    #[inline(always)]
    unsafe fn dot_wide(sum: __m256i, codes: __m256i, x: *const i8) -> __m256i {
        // SAFETY: see above; x has four bytes. With the sign moved over to x, two products of 128 and 127 fit 16 bits.
        unsafe {
            let signed = _mm256_xor_si256(codes, _mm256_set1_epi8(-128));
            let x = _mm256_sign_epi8(_mm256_set1_epi32(x.cast::<i32>().read_unaligned()), signed);
            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(signed), x);
            _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }
    #[inline(always)]
    unsafe fn to_f32(x: __m256i) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_cvtepi32_ps(x) }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u8) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const u8) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast()))) }
    }
    #[inline(always)]
    unsafe fn load_u8(p: *const u8) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast()))) }
    }
    #[inline(always)]
    unsafe fn load_nibbles(p: *const u8) -> (__m256, __m256) {
        // SAFETY: see above.
        unsafe {
            let bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast()));
            let (low, high) = (_mm256_and_si256(bytes, _mm256_set1_epi32(15)), _mm256_srli_epi32(bytes, 4));
            (_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high))
        }
    }
    #[inline(always)]
    unsafe fn store_i8(p: *mut i8, x: __m256) -> i32 {
        // SAFETY: see above.
        unsafe {
            let rounded = _mm256_cvtps_epi32(x);
            let (low, high) = (_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
            let words = _mm_packs_epi32(low, high);
            _mm_storel_epi64(p.cast(), _mm_packs_epi16(words, words));
            let sums = _mm_add_epi32(low, high);
            let sums = _mm_add_epi32(sums, _mm_shuffle_epi32(sums, 0b01_00_11_10));
            _mm_cvtsi128_si32(_mm_add_epi32(sums, _mm_shuffle_epi32(sums, 0b10_11_00_01)))
        }
    }
}

generic::table!(Avx2, "avx2,fma,f16c", rows [(6, 2), (4, 2), (2, 4), (1, 4)], tiles tiles::table!(Avx2, "avx2,fma,f16c", (6, 2)), bf16 products::gemm_bf16::<Avx2>, quantized [(8, 4, 1), (4, 4, 1), (2, 2, 2), (1, 1, 2)]);
