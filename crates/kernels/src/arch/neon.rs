//! ARM's NEON: four lanes, thirty-two registers.

use super::simd::{Bytes, Simd};
use super::{AdamStep, Format, Kernels, Left, QuantizedLeft, QuantizedRow, Strip, TILE};
use super::{Panel, Tiles, generic, products, quantized, tiles};
use std::arch::aarch64::*;
use std::arch::asm;

/// With `DOT`, ARMv8.2's products of four bytes.
pub(super) struct Neon<const DOT: bool>;

/// What every 64-bit ARM has.
type Every = Neon<false>;

// SAFETY (all blocks below): the trait's contract, which is that pointers are valid; every 64-bit ARM has NEON.
impl<const DOT: bool> Simd for Neon<DOT> {
    const LANES: usize = 4;
    type F = float32x4_t;
    #[inline(always)]
    unsafe fn splat(x: f32) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vdupq_n_f32(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vld1q_f32(p) }
    }
    #[inline(always)]
    unsafe fn load_partial(p: *const f32, n: usize) -> float32x4_t {
        debug_assert!(n < 4);
        // SAFETY: see above; n is below 4.
        unsafe {
            let mut whole = [0.0_f32; 4];
            std::ptr::copy_nonoverlapping(p, whole.as_mut_ptr(), n);
            vld1q_f32(whole.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: float32x4_t) {
        // SAFETY: see above.
        unsafe { vst1q_f32(p, x) }
    }
    #[inline(always)]
    unsafe fn store_partial(p: *mut f32, n: usize, x: float32x4_t) {
        debug_assert!(n < 4);
        // SAFETY: see above; n is below 4.
        unsafe {
            let mut whole = [0.0_f32; 4];
            vst1q_f32(whole.as_mut_ptr(), x);
            std::ptr::copy_nonoverlapping(whole.as_ptr(), p, n);
        }
    }
    #[inline(always)]
    unsafe fn add(x: float32x4_t, y: float32x4_t) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vaddq_f32(x, y) }
    }
    #[inline(always)]
    unsafe fn sub(x: float32x4_t, y: float32x4_t) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vsubq_f32(x, y) }
    }
    #[inline(always)]
    unsafe fn mul(x: float32x4_t, y: float32x4_t) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vmulq_f32(x, y) }
    }
    #[inline(always)]
    unsafe fn div(x: float32x4_t, y: float32x4_t) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vdivq_f32(x, y) }
    }
    #[inline(always)]
    unsafe fn sqrt(x: float32x4_t) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vsqrtq_f32(x) }
    }
    #[inline(always)]
    unsafe fn max(x: float32x4_t, y: float32x4_t) -> float32x4_t {
        // SAFETY: see above.
        unsafe {
            // Not FMAX, which has no number win.
            vbslq_f32(vcgtq_f32(x, y), x, y)
        }
    }
    #[inline(always)]
    unsafe fn min(x: float32x4_t, y: float32x4_t) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vbslq_f32(vcltq_f32(x, y), x, y) }
    }
    #[inline(always)]
    unsafe fn within(x: float32x4_t, y: float32x4_t) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x), vcleq_f32(vabsq_f32(x), y))) }
    }
    #[inline(always)]
    unsafe fn outside(x: float32x4_t, y: float32x4_t) -> u32 {
        // SAFETY: see above; there are four bits.
        unsafe {
            let bits = vld1q_u32([1, 2, 4, 8].as_ptr());
            vaddvq_u32(vandq_u32(vcgtq_f32(vabsq_f32(x), y), bits))
        }
    }
    #[inline(always)]
    unsafe fn fma(x: float32x4_t, y: float32x4_t, z: float32x4_t) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vfmaq_f32(z, x, y) }
    }
    #[inline(always)]
    unsafe fn round(x: float32x4_t) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vrndnq_f32(x) }
    }
    #[inline(always)]
    unsafe fn times_power_of_two(x: float32x4_t, n: float32x4_t) -> float32x4_t {
        // SAFETY: see above.
        unsafe {
            let exponent = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));
            vmulq_f32(x, vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent)))
        }
    }
    #[inline(always)]
    unsafe fn swap_pairs(x: float32x4_t) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vrev64q_f32(x) }
    }
    #[inline(always)]
    unsafe fn sum(x: float32x4_t) -> f32 {
        // SAFETY: see above.
        unsafe {
            let halves = vadd_f32(vget_low_f32(x), vget_high_f32(x));
            vget_lane_f32::<0>(halves) + vget_lane_f32::<1>(halves)
        }
    }
    #[inline(always)]
    unsafe fn largest(x: float32x4_t) -> f32 {
        // SAFETY: see above.
        unsafe {
            let (low, high) = (vget_low_f32(x), vget_high_f32(x));
            let halves = vbsl_f32(vcgt_f32(low, high), low, high);
            let (x, y) = (vget_lane_f32::<0>(halves), vget_lane_f32::<1>(halves));
            if x > y { x } else { y }
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(p: *mut u16, x: float32x4_t) {
        // SAFETY: see above.
        unsafe {
            let bits = vreinterpretq_u32_f32(x);
            let odd = vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(1));
            let rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
            // A NaN must stay one: the carry could turn it into an infinity or a zero.
            let rounded = vbslq_u32(vceqq_f32(x, x), rounded, vdupq_n_u32(0x7fc0_0000));
            vst1_u16(p, vshrn_n_u32::<16>(rounded))
        }
    }
    #[inline(always)]
    unsafe fn load_bf16_pairs(p: *const u16) -> (float32x4_t, float32x4_t) {
        // SAFETY: see above.
        unsafe { widen_pairs(vreinterpretq_u32_u16(vld1q_u16(p))) }
    }
    #[inline(always)]
    unsafe fn splat_bf16_pair(p: *const u16) -> (float32x4_t, float32x4_t) {
        // SAFETY: see above; p has two numbers.
        unsafe { widen_pairs(vdupq_n_u32(p.cast::<u32>().read_unaligned())) }
    }
}

/// The even and the odd ones.
#[inline(always)]
fn widen_pairs(pairs: uint32x4_t) -> (float32x4_t, float32x4_t) {
    // SAFETY: see above.
    unsafe {
        let (even, odd) = (vshlq_n_u32::<16>(pairs), vandq_u32(pairs, vdupq_n_u32(0xffff_0000)));
        (vreinterpretq_f32_u32(even), vreinterpretq_f32_u32(odd))
    }
}

/// sum + the products of four signed bytes each, in each lane.
#[inline(always)]
unsafe fn dot<const DOT: bool>(sum: int32x4_t, codes: int8x16_t, x: *const i8) -> int32x4_t {
    // SAFETY: see above; x has four bytes. With DOT the contract is that the CPU has it, which touches registers only.
    unsafe {
        let x = vreinterpretq_s8_s32(vdupq_n_s32(x.cast::<i32>().read_unaligned()));
        if DOT {
            let mut sum = sum;
            asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sum, in(vreg) codes, in(vreg) x, options(pure, nomem, nostack, preserves_flags));
            return sum;
        }
        // No two products come to more than 2 * 127 * 128, which 16 bits hold.
        let (low, high) = (vmull_s8(vget_low_s8(codes), vget_low_s8(x)), vmull_high_s8(codes, x));
        vpadalq_s16(sum, vpaddq_s16(low, high))
    }
}

// SAFETY (all blocks below): the trait's contract, as above.
impl<const DOT: bool> Bytes for Neon<DOT> {
    type I = int32x4_t;
    const SIGNED: bool = true;
    const NARROW: bool = false;
    #[inline(always)]
    unsafe fn splat_i32(x: i32) -> int32x4_t {
        // SAFETY: see above.
        unsafe { vdupq_n_s32(x) }
    }
    #[inline(always)]
    unsafe fn load_bytes(p: *const u8) -> int32x4_t {
        // SAFETY: see above.
        unsafe { vreinterpretq_s32_u8(vld1q_u8(p)) }
    }
    #[inline(always)]
    unsafe fn shift_and_mask(x: int32x4_t, by: i32, mask: u8) -> int32x4_t {
        // SAFETY: see above.
        unsafe {
            let shifted = vshlq_u8(vreinterpretq_u8_s32(x), vdupq_n_s8(by as i8));
            vreinterpretq_s32_u8(vandq_u8(shifted, vdupq_n_u8(mask)))
        }
    }
    #[inline(always)]
    unsafe fn or(x: int32x4_t, y: int32x4_t) -> int32x4_t {
        // SAFETY: see above.
        unsafe { vorrq_s32(x, y) }
    }
    #[inline(always)]
    unsafe fn shift_lanes(x: int32x4_t, by: usize, mask: i32) -> int32x4_t {
        // SAFETY: see above.
        unsafe {
            let shifted = vshlq_u32(vreinterpretq_u32_s32(x), vdupq_n_s32(-(by as i32)));
            vandq_s32(vreinterpretq_s32_u32(shifted), vdupq_n_s32(mask))
        }
    }
    #[inline(always)]
    unsafe fn look_up(table: &[u8; 16], x: int32x4_t) -> int32x4_t {
        // SAFETY: see above; the table is 16 bytes.
        unsafe { vreinterpretq_s32_u8(vqtbl1q_u8(vld1q_u8(table.as_ptr()), vreinterpretq_u8_s32(x))) }
    }
    #[inline(always)]
    unsafe fn begin(sum: int32x4_t) -> int32x4_t {
        sum
    }
    #[inline(always)]
    unsafe fn dot(part: int32x4_t, codes: int32x4_t, x: *const i8) -> int32x4_t {
        // SAFETY: see above.
        unsafe { dot::<DOT>(part, vreinterpretq_s8_s32(codes), x) }
    }
    #[inline(always)]
    unsafe fn end(_: int32x4_t, part: int32x4_t) -> int32x4_t {
        part
    }
    #[inline(always)]
    unsafe fn dot_wide(sum: int32x4_t, codes: int32x4_t, x: *const i8) -> int32x4_t {
        // SAFETY: see above.
        unsafe {
            let signed = veorq_s8(vreinterpretq_s8_s32(codes), vdupq_n_s8(-128));
            dot::<DOT>(sum, signed, x)
        }
    }
    #[inline(always)]
    unsafe fn to_f32(x: int32x4_t) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vcvtq_f32_s32(x) }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u8) -> float32x4_t {
        // SAFETY: see above; every 64-bit ARM has the instruction, which touches registers only.
        unsafe {
            let out: float32x4_t;
            let half = vld1_u16(p.cast());
            asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) out, in(vreg) half, options(pure, nomem, nostack, preserves_flags));
            out
        }
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const u8) -> float32x4_t {
        // SAFETY: see above.
        unsafe {
            let bytes = vcreate_s8(u64::from(p.cast::<u32>().read_unaligned()));
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))))
        }
    }
    #[inline(always)]
    unsafe fn load_u8(p: *const u8) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vcvtq_f32_u32(widen_bytes(p)) }
    }
    #[inline(always)]
    unsafe fn load_nibbles(p: *const u8) -> (float32x4_t, float32x4_t) {
        // SAFETY: see above.
        unsafe {
            let bytes = widen_bytes(p);
            (vcvtq_f32_u32(vandq_u32(bytes, vdupq_n_u32(15))), vcvtq_f32_u32(vshrq_n_u32::<4>(bytes)))
        }
    }
    #[inline(always)]
    unsafe fn store_i8(p: *mut i8, x: float32x4_t) -> i32 {
        // SAFETY: see above.
        unsafe {
            let rounded = vcvtnq_s32_f32(x);
            let words = vqmovn_s32(rounded);
            let bytes = vreinterpret_u32_s8(vqmovn_s16(vcombine_s16(words, words)));
            p.cast::<u32>().write_unaligned(vget_lane_u32::<0>(bytes));
            vaddvq_s32(rounded)
        }
    }
}

/// Four bytes, each in a lane.
#[inline(always)]
unsafe fn widen_bytes(p: *const u8) -> uint32x4_t {
    // SAFETY: see above.
    unsafe {
        let bytes = vcreate_u8(u64::from(p.cast::<u32>().read_unaligned()));
        vmovl_u16(vget_low_u16(vmovl_u8(bytes)))
    }
}

generic::table!(Every, "neon", rows [(6, 4), (4, 4), (2, 4), (1, 8)], tiles tiles::table!(Every, "neon", (6, 4)), bf16 products::gemm_bf16::<Every>, quantized [(8, 4, 2), (4, 4, 2), (2, 2, 4), (1, 1, 4)]);
