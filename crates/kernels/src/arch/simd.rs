//! The operations that a vector instruction set supplies; the kernels over them are in [`super::generic`] and [`super::products`].

/// Vectors of `f32` of one width. All methods are inlined into functions compiled for the instruction set.
///
/// Every method is unsafe for the same two reasons: the CPU must have the instruction set, and pointers must be valid
/// for [`Simd::LANES`] elements, or for `n` of them in the partial forms.
pub(crate) trait Simd {
    /// Elements of a vector; divides 32.
    const LANES: usize;
    type F: Copy;
    unsafe fn splat(x: f32) -> Self::F;
    unsafe fn load(p: *const f32) -> Self::F;
    /// The first n < LANES elements; the others are zero and are not read.
    unsafe fn load_partial(p: *const f32, n: usize) -> Self::F;
    unsafe fn store(p: *mut f32, x: Self::F);
    unsafe fn store_partial(p: *mut f32, n: usize, x: Self::F);
    unsafe fn add(x: Self::F, y: Self::F) -> Self::F;
    unsafe fn sub(x: Self::F, y: Self::F) -> Self::F;
    unsafe fn mul(x: Self::F, y: Self::F) -> Self::F;
    unsafe fn div(x: Self::F, y: Self::F) -> Self::F;
    unsafe fn sqrt(x: Self::F) -> Self::F;
    /// The larger, y where either is NaN.
    unsafe fn max(x: Self::F, y: Self::F) -> Self::F;
    unsafe fn min(x: Self::F, y: Self::F) -> Self::F;
    /// x where its size is no larger than y, else 0.
    unsafe fn within(x: Self::F, y: Self::F) -> Self::F;
    /// A bit for each lane, the first the lowest, that is set where x is larger than y in size.
    unsafe fn outside(x: Self::F, y: Self::F) -> u32;
    /// x * y + z, rounded once.
    unsafe fn fma(x: Self::F, y: Self::F, z: Self::F) -> Self::F;
    /// To the nearest integer, ties to even.
    unsafe fn round(x: Self::F) -> Self::F;
    /// x * 2^n for a whole n in -127..=127 (at -127 the result is zero).
    unsafe fn times_power_of_two(x: Self::F, n: Self::F) -> Self::F;
    /// Lane 2i with lane 2i + 1.
    unsafe fn swap_pairs(x: Self::F) -> Self::F;
    /// By halving: lane i with lane i + half, until one is left.
    unsafe fn sum(x: Self::F) -> f32;
    unsafe fn largest(x: Self::F) -> f32;
    /// Rounds to bf16, to nearest even, and stores LANES of them.
    unsafe fn store_bf16(p: *mut u16, x: Self::F);
    /// LANES bf16 pairs (low half first): the even elements and the odd elements, as f32.
    unsafe fn load_bf16_pairs(p: *const u16) -> (Self::F, Self::F);
    /// The same for one pair, in all lanes.
    unsafe fn splat_bf16_pair(p: *const u16) -> (Self::F, Self::F);
}

/// Vectors of [`Simd::LANES`] whole numbers, of 32 bits or as four bytes each, for products of quantised numbers.
pub(crate) trait Bytes: Simd {
    type I: Copy;
    /// Whether [`Bytes::dot_wide`] takes codes of eight bits for less by 128 than they are.
    const SIGNED: bool;
    /// Whether [`Bytes::dot`] sums in 16 bits, two sums for each lane.
    const NARROW: bool;
    unsafe fn splat_i32(x: i32) -> Self::I;
    /// 4 * LANES bytes.
    unsafe fn load_bytes(p: *const u8) -> Self::I;
    /// Moves the bits of each byte up (down, where negative) by `by`, and keeps those of `mask`.
    unsafe fn shift_and_mask(x: Self::I, by: i32, mask: u8) -> Self::I;
    unsafe fn or(x: Self::I, y: Self::I) -> Self::I;
    /// Moves the bits of each lane down by `by`, below 32, and keeps those of `mask`.
    unsafe fn shift_lanes(x: Self::I, by: usize, mask: i32) -> Self::I;
    /// `table[byte]` for each byte below 16.
    unsafe fn look_up(table: &[u8; 16], x: Self::I) -> Self::I;
    /// What [`Bytes::dot`] begins with, for [`Bytes::end`] to make `sum` + the products.
    unsafe fn begin(sum: Self::I) -> Self::I;
    /// Adds the products of four codes below 64 with the four signed bytes above -128 at `x`, in each lane.
    unsafe fn dot(part: Self::I, codes: Self::I, x: *const i8) -> Self::I;
    unsafe fn end(sum: Self::I, part: Self::I) -> Self::I;
    /// sum + the same products, in 32 bits, for codes of eight bits; see [`Bytes::SIGNED`].
    unsafe fn dot_wide(sum: Self::I, codes: Self::I, x: *const i8) -> Self::I;
    unsafe fn to_f32(x: Self::I) -> Self::F;
    /// LANES numbers in half precision.
    unsafe fn load_f16(p: *const u8) -> Self::F;
    /// LANES signed bytes.
    unsafe fn load_i8(p: *const u8) -> Self::F;
    /// LANES bytes.
    unsafe fn load_u8(p: *const u8) -> Self::F;
    /// LANES bytes, the low four bits of each and the high four.
    unsafe fn load_nibbles(p: *const u8) -> (Self::F, Self::F);
    /// Rounds LANES numbers, at most 127 in size, to the nearest integers, ties to even, stores them as signed bytes, and
    /// returns their sum.
    unsafe fn store_i8(p: *mut i8, x: Self::F) -> i32;
}
