//! Arithmetic on slices: SIMD, threads, packed matrices.
//!
//! Every operation is a safe function that takes the [`Cpu`] it runs on, asserts its shapes, and calls
//! the kernels of the instruction set chosen for that `Cpu`. Matrices are row-major `f32`; a *row* is one token.
//!
//! Two rules hold everywhere, and tests hold the kernels to them bit for bit:
//!
//! - in a forward operation a row's result depends on that row alone, not on the rows beside it, how many
//!   they are, or the number of threads;
//! - a reduction over rows runs in the order of the rows, whatever the threads.

mod arch;
pub mod attention;
mod blocks;
pub mod buffer;
pub mod cpu;
pub mod divergence;
pub mod elementwise;
pub mod embedding;
pub mod gemm;
pub mod half;
pub mod head_norm;
pub mod heads;
pub mod kv;
mod left;
pub mod log_prob;
pub mod math;
pub mod matrix;
pub mod moments;
pub mod muon;
pub mod norm;
pub mod optimizer;
pub mod pool;
pub mod quantized;
pub mod random;
pub mod rope;
pub mod router;
mod slab;
pub mod view;

pub use arch::Isa;
pub use buffer::{Buffer, Shared};
pub use cpu::Cpu;
pub use matrix::{Dtype, Matrix, Packed, Packing};
pub use moments::Moments;
pub use pool::Pool;
pub use view::View;
