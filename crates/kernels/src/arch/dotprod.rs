//! NEON with ARMv8.2's products of bytes.

use super::neon::{self, Neon};
use super::{Format, Kernels, QuantizedLeft, Strip, TILE, quantized};

type Dotprod = Neon<true>;

/// See [`Kernels::gemm_quantized`].
#[target_feature(enable = "neon,dotprod")]
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
    quantized::gemm!(Dotprod, ahead 0, [(8, 4, 2), (4, 4, 2), (2, 2, 4), (1, 1, 4)], format, m, n, blocks, a, b, c, c_stride, add)
}

pub(super) static KERNELS: Kernels = Kernels { gemm_quantized, ..neon::KERNELS };
