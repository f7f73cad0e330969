//! Sixteen lanes in plain Rust, for tests: the edges of the vector kernels at the width of AVX-512, on any machine.

use super::simd::{Bytes, Simd};
use super::{
    AdamStep, Format, Isa, Kernels, Left, PAGE, PANEL, Panel, PanelRows, QuantizedLeft, QuantizedRow, Strip, TILE,
    Tiles, generic, products, quantized, size_in_tiles, tiles,
};
use crate::half::{f32_from_bf16, f32_from_f16};
use crate::left::List;
use crate::quantized::{BLOCK, Strips};
use crate::random::Random;

struct Sixteen;

fn map(x: [f32; 16], y: [f32; 16], f: impl Fn(f32, f32) -> f32) -> [f32; 16] {
    std::array::from_fn(|i| f(x[i], y[i]))
}

// SAFETY (all blocks below): the trait's contract, pointers valid for the lanes or the part of them that is named.
impl Simd for Sixteen {
    const LANES: usize = 16;
    type F = [f32; 16];
    unsafe fn splat(x: f32) -> [f32; 16] {
        [x; 16]
    }
    unsafe fn load(p: *const f32) -> [f32; 16] {
        // SAFETY: see above.
        std::array::from_fn(|i| unsafe { *p.add(i) })
    }
    unsafe fn load_partial(p: *const f32, n: usize) -> [f32; 16] {
        assert!(n < 16);
        // SAFETY: see above.
        std::array::from_fn(|i| if i < n { unsafe { *p.add(i) } } else { 0.0 })
    }
    unsafe fn store(p: *mut f32, x: [f32; 16]) {
        // SAFETY: see above.
        unsafe { std::ptr::copy_nonoverlapping(x.as_ptr(), p, 16) }
    }
    unsafe fn store_partial(p: *mut f32, n: usize, x: [f32; 16]) {
        assert!(n < 16);
        // SAFETY: see above.
        unsafe { std::ptr::copy_nonoverlapping(x.as_ptr(), p, n) }
    }
    unsafe fn add(x: [f32; 16], y: [f32; 16]) -> [f32; 16] {
        map(x, y, |x, y| x + y)
    }
    unsafe fn sub(x: [f32; 16], y: [f32; 16]) -> [f32; 16] {
        map(x, y, |x, y| x - y)
    }
    unsafe fn mul(x: [f32; 16], y: [f32; 16]) -> [f32; 16] {
        map(x, y, |x, y| x * y)
    }
    unsafe fn div(x: [f32; 16], y: [f32; 16]) -> [f32; 16] {
        map(x, y, |x, y| x / y)
    }
    unsafe fn sqrt(x: [f32; 16]) -> [f32; 16] {
        x.map(f32::sqrt)
    }
    unsafe fn max(x: [f32; 16], y: [f32; 16]) -> [f32; 16] {
        map(x, y, |x, y| if x > y { x } else { y })
    }
    unsafe fn min(x: [f32; 16], y: [f32; 16]) -> [f32; 16] {
        map(x, y, |x, y| if x < y { x } else { y })
    }
    unsafe fn within(x: [f32; 16], y: [f32; 16]) -> [f32; 16] {
        map(x, y, |x, y| if x.abs() <= y { x } else { 0.0 })
    }
    unsafe fn outside(x: [f32; 16], y: [f32; 16]) -> u32 {
        (0..16).map(|i| u32::from(x[i].abs() > y[i]) << i).sum()
    }
    unsafe fn fma(x: [f32; 16], y: [f32; 16], z: [f32; 16]) -> [f32; 16] {
        std::array::from_fn(|i| x[i].mul_add(y[i], z[i]))
    }
    unsafe fn round(x: [f32; 16]) -> [f32; 16] {
        x.map(f32::round_ties_even)
    }
    unsafe fn times_power_of_two(x: [f32; 16], n: [f32; 16]) -> [f32; 16] {
        map(x, n, |x, n| x * f32::from_bits(((n as i32 + 127) as u32) << 23))
    }
    unsafe fn swap_pairs(x: [f32; 16]) -> [f32; 16] {
        std::array::from_fn(|i| x[i ^ 1])
    }
    unsafe fn sum(x: [f32; 16]) -> f32 {
        [8, 4, 2, 1].iter().fold(x, |x, half| std::array::from_fn(|i| x[i] + x[(i + half) % 16]))[0]
    }
    unsafe fn largest(x: [f32; 16]) -> f32 {
        x.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    unsafe fn store_bf16(p: *mut u16, x: [f32; 16]) {
        // SAFETY: see above.
        unsafe { (Isa::Portable.kernels().to_bf16)(16, x.as_ptr(), p) }
    }
    unsafe fn load_bf16_pairs(p: *const u16) -> ([f32; 16], [f32; 16]) {
        // SAFETY: see above.
        let at = |i: usize| f32_from_bf16(unsafe { *p.add(i) });
        (std::array::from_fn(|i| at(2 * i)), std::array::from_fn(|i| at(2 * i + 1)))
    }
    unsafe fn splat_bf16_pair(p: *const u16) -> ([f32; 16], [f32; 16]) {
        // SAFETY: see above.
        let at = |i: usize| [f32_from_bf16(unsafe { *p.add(i) }); 16];
        (at(0), at(1))
    }
}

// SAFETY (all blocks below): the trait's contract, as above.
impl Bytes for Sixteen {
    type I = [i32; 16];
    const SIGNED: bool = false;
    const NARROW: bool = false;
    unsafe fn splat_i32(x: i32) -> [i32; 16] {
        [x; 16]
    }
    unsafe fn load_bytes(p: *const u8) -> [i32; 16] {
        // SAFETY: see above.
        std::array::from_fn(|i| unsafe { p.add(4 * i).cast::<i32>().read_unaligned() })
    }
    unsafe fn shift_and_mask(x: [i32; 16], by: i32, mask: u8) -> [i32; 16] {
        let shift = |byte: u8| if by < 0 { byte >> -by } else { byte << by };
        x.map(|x| i32::from_le_bytes(x.to_le_bytes().map(|byte| shift(byte) & mask)))
    }
    unsafe fn or(x: [i32; 16], y: [i32; 16]) -> [i32; 16] {
        std::array::from_fn(|i| x[i] | y[i])
    }
    unsafe fn shift_lanes(x: [i32; 16], by: usize, mask: i32) -> [i32; 16] {
        x.map(|x| (x as u32 >> by) as i32 & mask)
    }
    unsafe fn look_up(table: &[u8; 16], x: [i32; 16]) -> [i32; 16] {
        x.map(|x| i32::from_le_bytes(x.to_le_bytes().map(|byte| table[usize::from(byte)])))
    }
    unsafe fn begin(sum: [i32; 16]) -> [i32; 16] {
        sum
    }
    unsafe fn end(_: [i32; 16], part: [i32; 16]) -> [i32; 16] {
        part
    }
    unsafe fn dot(sum: [i32; 16], codes: [i32; 16], x: *const i8) -> [i32; 16] {
        // SAFETY: see above; x has four bytes.
        let x: [i32; 4] = std::array::from_fn(|i| i32::from(unsafe { *x.add(i) }));
        std::array::from_fn(|i| {
            codes[i].to_le_bytes().iter().zip(x).fold(sum[i], |sum, (&code, x)| sum + i32::from(code) * x)
        })
    }
    unsafe fn dot_wide(sum: [i32; 16], codes: [i32; 16], x: *const i8) -> [i32; 16] {
        // SAFETY: the same contract.
        unsafe { Self::dot(sum, codes, x) }
    }
    unsafe fn to_f32(x: [i32; 16]) -> [f32; 16] {
        x.map(|x| x as f32)
    }
    unsafe fn load_f16(p: *const u8) -> [f32; 16] {
        // SAFETY: see above.
        std::array::from_fn(|i| f32_from_f16(unsafe { p.add(2 * i).cast::<u16>().read_unaligned() }))
    }
    unsafe fn load_i8(p: *const u8) -> [f32; 16] {
        // SAFETY: see above.
        std::array::from_fn(|i| f32::from(unsafe { *p.add(i) } as i8))
    }
    unsafe fn load_u8(p: *const u8) -> [f32; 16] {
        // SAFETY: see above.
        std::array::from_fn(|i| f32::from(unsafe { *p.add(i) }))
    }
    unsafe fn load_nibbles(p: *const u8) -> ([f32; 16], [f32; 16]) {
        // SAFETY: see above.
        let byte = |i: usize| unsafe { *p.add(i) };
        (std::array::from_fn(|i| f32::from(byte(i) & 15)), std::array::from_fn(|i| f32::from(byte(i) >> 4)))
    }
    unsafe fn store_i8(p: *mut i8, x: [f32; 16]) -> i32 {
        let rounded = x.map(|x| x.round_ties_even() as i8);
        // SAFETY: see above.
        unsafe { std::ptr::copy_nonoverlapping(rounded.as_ptr(), p, 16) };
        rounded.iter().map(|&x| i32::from(x)).sum()
    }
}

generic::table!(Sixteen, "sse2", rows [(12, 2), (4, 2), (2, 2), (1, 2)], tiles tiles::table!(Sixteen, "sse2", (5, 1)), bf16 products::gemm_bf16::<Sixteen>, quantized [(8, 8, 1), (4, 4, 1), (2, 2, 1), (1, 1, 1)]);

/// Numbers with room behind them that no kernel may read into a result or write.
struct Guarded(Vec<f32>, usize);

impl Guarded {
    fn new(random: &mut Random, n: usize) -> Guarded {
        let numbers = (0..n).map(|_| random.normal() * 2.0);
        Guarded(numbers.chain([f32::NAN; 40]).collect(), n)
    }
    fn at(&self) -> *const f32 {
        self.0.as_ptr()
    }
    fn at_mut(&mut self) -> *mut f32 {
        self.0.as_mut_ptr()
    }
    fn assert_guarded(&self, what: &str) {
        assert!(self.0[self.1..].iter().all(|x| x.is_nan()), "{what} wrote past its end");
    }
}

/// Runs `run` on copies of `inputs` with both tables, and compares all that it wrote and returned.
fn agree(what: &str, inputs: &[&Guarded], run: impl Fn(&Kernels, &mut [Guarded]) -> Vec<f32>) {
    let [mut ours, mut reference] =
        [(); 2].map(|()| inputs.iter().map(|x| Guarded(x.0.clone(), x.1)).collect::<Vec<_>>());
    let (returned, expected) = (run(&KERNELS, &mut ours), run(Isa::Portable.kernels(), &mut reference));
    let close = |x: f32, y: f32| x == y || (x - y).abs() <= 2e-5 * y.abs().max(1.0);
    assert!(returned.iter().zip(&expected).all(|(&x, &y)| close(x, y)), "{what}: {returned:?}, not {expected:?}");
    for (ours, reference) in ours.iter().zip(&reference) {
        ours.assert_guarded(what);
        for (i, (&x, &y)) in ours.0[..ours.1].iter().zip(&reference.0).enumerate() {
            assert!(close(x, y), "{what}: element {i} is {x}, not {y}");
        }
    }
}

/// [`agree`] on calls of kernels, which are all unsafe for one reason.
macro_rules! agree {
    ($what:literal, [$($input:ident),*], |$k:ident, $b:ident| $run:block) => {
        agree($what, &[$(&$input),*], |$k, $b| {
            // SAFETY: every buffer has the numbers that the kernel is told of.
            unsafe { $run }
        });
    };
}

#[test]
fn rows_of_every_length() {
    let mut random = Random::new(1, [0; 3]);
    for n in 0..70 {
        let [mut x, y, mut z, w] = [(); 4].map(|()| Guarded::new(&mut random, n));
        let two = Guarded::new(&mut random, 2 * n);
        if n > 0 {
            // Every number below zero, so that a padding of zeros would be the largest; a hole for the exponentials.
            x.0[..n].iter_mut().for_each(|x| *x = -x.abs() - 0.1);
            z.0[n / 2] = f32::NEG_INFINITY;
        }
        let positive = Guarded(y.0.iter().map(|y| y * y).collect(), n);
        agree!("scale", [x], |k, b| {
            (k.scale)(n, 0.7, b[0].at_mut());
            vec![]
        });
        agree!("axpy", [x, y], |k, b| {
            (k.axpy)(n, 0.7, b[0].at(), b[1].at_mut());
            vec![]
        });
        agree!("dot", [x, y], |k, b| { vec![(k.dot)(n, b[0].at(), b[1].at())] });
        agree!("max", [x], |k, b| { vec![(k.max)(n, b[0].at())] });
        agree!("exp_sums", [z], |k, b| {
            let (sum, weighted) = (k.exp_sums)(n, 0.9, 1.5, b[0].at());
            vec![sum, weighted]
        });
        agree!("exp_gaps", [z, y], |k, b| {
            let (sum, weighted) = (k.exp_gaps)(n, 1.5, 0.5, b[0].at(), b[1].at());
            vec![sum, weighted]
        });
        agree!("exp_scaled", [z], |k, b| {
            (k.exp_scaled)(n, 0.9, 1.5, -2.0, b[0].at_mut());
            vec![]
        });
        agree!("scale_by", [x, y, w], |k, b| {
            (k.scale_by)(n, 0.7, b[0].at(), b[1].at(), b[2].at_mut());
            vec![]
        });
        agree!("rotate_halves", [y, w, two], |k, b| {
            (k.rotate_halves)(1, 2 * n, n, b[0].at(), b[1].at(), -1.0, b[2].at_mut());
            vec![]
        });
        agree!("rotate_pairs", [x, y, two], |k, b| {
            let (c, s) = (b[0].0.clone(), b[1].0.clone());
            let cos: Vec<f32> = c[..n].iter().flat_map(|&c| [c, c]).collect();
            let sin: Vec<f32> = s[..n].iter().flat_map(|&s| [-s, s]).collect();
            (k.rotate_pairs)(1, 2 * n, n, cos.as_ptr(), sin.as_ptr(), -1.0, b[2].at_mut());
            vec![]
        });
        agree!("swiglu", [x, y, w], |k, b| {
            (k.swiglu)(n, b[0].at(), b[1].at(), b[2].at_mut());
            vec![]
        });
        agree!("swiglu_backward", [x, y, w], |k, b| {
            let (gate, up) = (b[0].at_mut(), b[1].at_mut());
            (k.swiglu_backward)(n, gate, up, b[2].at(), gate, up);
            vec![]
        });
        let step = AdamStep {
            scale: 0.5,
            beta1: 0.9,
            rest1: 0.1,
            beta2: 0.99,
            rest2: 0.01,
            rate: 0.02,
            root: 3.0,
            eps: 1e-8,
            keep: 0.999,
        };
        agree!("adamw", [x, y, positive, w], |k, b| {
            (k.adamw)(n, step, b[0].at(), b[1].at_mut(), b[2].at_mut(), b[3].at_mut());
            vec![]
        });
        agree!("to_bf16", [y], |k, b| {
            let mut out = vec![7_u16; n + 40];
            (k.to_bf16)(n, b[0].at(), out.as_mut_ptr());
            assert_eq!(out[n..], [7; 40], "to_bf16 wrote past its end");
            out.into_iter().map(f32::from).collect()
        });
        agree!("to_bf16_pairs", [], |k, b| {
            let (x, y) =
                (Guarded::new(&mut Random::new(1, [0; 3]), PANEL), Guarded::new(&mut Random::new(2, [0; 3]), PANEL));
            let mut out = vec![7_u16; 2 * PANEL + 1];
            (k.to_bf16_pairs)(x.at(), y.at(), out.as_mut_ptr());
            assert!(b.is_empty() && out[2 * PANEL] == 7, "to_bf16_pairs wrote past its end");
            out.into_iter().map(f32::from).collect()
        });
        agree!("widen_i8", [], |k, b| {
            let mut out = vec![7_u16; n + 40];
            let numbers: Vec<i8> = (0..n).map(|i| (i * 37) as u8 as i8).collect();
            (k.widen_i8)(n, numbers.as_ptr(), out.as_mut_ptr());
            assert!(b.is_empty() && out[n..] == [7; 40], "widen_i8 wrote past its end");
            out.into_iter().map(f32::from).collect()
        });
    }
}

#[test]
fn pages_of_scores() {
    let mut random = Random::new(2, [0; 3]);
    for (rows, visible, rows_per_position) in [(1, 1, 1), (5, 1, 2), (32, 7, 1), (8, 32, 8), (3, 40, 1), (32, 31, 4)] {
        let [scores, d_p] = [(); 2].map(|()| Guarded::new(&mut random, rows * PAGE));
        let [max, sum] = [(); 2].map(|()| Guarded::new(&mut random, rows));
        let wide = Guarded::new(&mut random, rows * 3 * PAGE);
        for columns in [PAGE, 3 * PAGE] {
            agree!("softmax", [wide, max, sum], |k, b| {
                let [scores, max, sum] = [0, 1, 2].map(|i| b[i].at_mut());
                (k.softmax)(rows, columns, scores, 3 * PAGE, visible, rows_per_position, 0.6, max, sum);
                vec![]
            });
        }
        agree!("softmax_page_backward", [scores, d_p, max, sum], |k, b| {
            let (scores, d_p) = (b[0].at_mut(), b[1].at_mut());
            (k.softmax_page_backward)(rows, scores, d_p, visible, rows_per_position, 0.6, b[2].at(), b[3].at());
            vec![]
        });
    }
}

#[test]
fn products_of_every_width() {
    let mut random = Random::new(3, [0; 3]);
    for m in [1, 2, 3, 5, 12, 13, 31] {
        for n in 1..=PANEL {
            for (k, add) in [(0, false), (1, true), (6, false), (7, true)] {
                let (a, b) = (Guarded::new(&mut random, m * k), Guarded::new(&mut random, k * PANEL));
                let c = Guarded::new(&mut random, m * n);
                agree!("gemm_f32", [a, b, c], |kernels, buffers| {
                    let left = Left { data: buffers[0].at(), row: k, column: 1 };
                    (kernels.gemm_f32)(m, n, k, left, buffers[1].at(), PANEL, buffers[2].at_mut(), n, add);
                    vec![]
                });
                let k = k.next_multiple_of(2);
                let mut bf16 =
                    |len: usize| -> Vec<u16> { (0..len).map(|_| (random.normal().to_bits() >> 16) as u16).collect() };
                let (a, b) = (bf16(m * k), bf16(k * PANEL));
                agree!("gemm_bf16", [c], |kernels, buffers| {
                    (kernels.gemm_bf16)(m, n, k, a.as_ptr(), k, b.as_ptr(), buffers[0].at_mut(), n, add);
                    vec![]
                });
            }
        }
    }
}

/// Tiles are the rows that they were copied from: their products are those of f32, to the bit.
#[test]
fn products_of_tiles_of_every_width() {
    let mut random = Random::new(6, [0; 3]);
    let tiles = KERNELS.tiles.unwrap();
    for m in [1, 4, 5, 6, 23] {
        for n in [1, 15, 16, 17, PANEL] {
            for (k, add) in [(0, false), (1, true), (6, false), (259, true)] {
                let (a, b) = (Guarded::new(&mut random, m * k), Guarded::new(&mut random, (k + 1) * PANEL));
                let even: Vec<f32> = b.0.iter().map(|x| f32::from_bits(x.to_bits() & 0xffff_0000)).collect();
                let pairs: Vec<u16> = (0..k.next_multiple_of(2) * PANEL)
                    .map(|i| (even[(i / 2 / PANEL * 2 + i % 2) * PANEL + i / 2 % PANEL].to_bits() >> 16) as u16)
                    .collect();
                for (right, rows) in [(&b.0, PanelRows::F32(b.at(), PANEL)), (&even, PanelRows::Bf16(pairs.as_ptr()))] {
                    for left in [Left { data: a.at(), row: k, column: 1 }, Left { data: a.at(), row: 1, column: m }] {
                        let (mut c, mut expected) = (Guarded::new(&mut random, m * n), vec![0.0; m * n]);
                        expected.copy_from_slice(&c.0[..m * n]);
                        let mut copy = vec![7.0; size_in_tiles(m, k, tiles.rows) + 1];
                        // SAFETY: m rows of k and k rows of PANEL, and room for the results.
                        unsafe {
                            (KERNELS.gemm_f32)(m, n, k, left, right.as_ptr(), PANEL, expected.as_mut_ptr(), n, add);
                            (tiles.pack)(m, k, left, false, copy.as_mut_ptr());
                            let (a, tile) = (copy.as_ptr(), tiles.rows * k);
                            let panel = Panel { rows, ahead: std::ptr::null() };
                            (tiles.gemm)(m, n, k, a, tile, panel, c.at_mut(), n, add);
                        }
                        assert_eq!(copy.last(), Some(&7.0), "a copy that goes past its end");
                        assert_eq!(c.0[..m * n], expected, "{m} by {k} times {k} by {n}");
                    }
                }
            }
        }
    }
}

#[test]
fn quantised_products_of_every_width() {
    let mut random = Random::new(4, [0; 3]);
    let cpu = crate::Cpu::new(Isa::Portable, 1);
    for format in Format::ALL {
        let (inputs, groups) = (512, BLOCK / format.layout().group);
        let blocks = inputs / BLOCK;
        let strips = Strips::pack(&cpu, format, 16, inputs, &|r, row| {
            let mut random = Random::new(5, [r as u32, 0, 0]);
            row.codes.iter_mut().for_each(|code| *code = random.below(1 << format.layout().bits) as u8);
            let mut half = || 0x2000 + random.below(0x800) as u16;
            row.halves.iter_mut().for_each(|halves| *halves = [half(), half()]);
            row.groups.iter_mut().for_each(|group| *group = [random.below(16) as u8, random.below(16) as u8]);
        });
        for (m, n, add) in [(1, 16, false), (3, 7, true), (8, 1, false), (9, 15, true)] {
            let mut x = Guarded::new(&mut random, m * inputs);
            x.0[..m * inputs].iter_mut().enumerate().for_each(|(i, x)| *x *= if i % 37 == 0 { 1.25 } else { 0.0625 });
            let c = Guarded::new(&mut random, m * n);
            agree!("gemm_quantized", [x, c], |kernels, buffers| {
                let rows = m / TILE * TILE + if m % TILE > 0 { QuantizedLeft::height(m % TILE) } else { 0 };
                let (mut codes, mut scales) = (vec![0_i8; rows * inputs], vec![0.0; rows * blocks]);
                let mut sums = vec![0_i32; rows * blocks * groups];
                let mut outliers = vec![0_u32; m * blocks];
                for i in 0..m {
                    let (tile, row) = (i / TILE * TILE, i % TILE);
                    let height = QuantizedLeft::height(TILE.min(m - tile));
                    let out = QuantizedRow {
                        codes: codes.as_mut_ptr().add((tile * blocks + row) * BLOCK),
                        scales: scales.as_mut_ptr().add(tile * blocks + row),
                        sums: sums.as_mut_ptr().add(tile * blocks * groups + row),
                        outliers: outliers.as_mut_ptr().add(i * blocks),
                    };
                    (kernels.quantize)(blocks, groups, height, buffers[0].at().add(i * inputs), out);
                }
                assert!(outliers.iter().any(|&bits| bits != 0), "no outliers");
                let returned = sums.iter().map(|&x| x as f32).chain(codes.iter().map(|&x| f32::from(x)));
                let returned = returned.chain(scales.iter().copied());
                let returned = returned.chain(outliers.iter().flat_map(|&x| [(x & 0xffff) as f32, (x >> 16) as f32]));
                let returned = returned.collect();
                // One list for each tile, as `left.rs` makes them.
                let tiles = m.div_ceil(TILE);
                let (mut ends, mut inputs_listed) = (vec![0_u32; tiles * blocks], vec![0_u32; tiles * TILE * blocks]);
                let mut listed = vec![0.0_f32; tiles * TILE * blocks * TILE];
                for tile in 0..tiles {
                    let rows = TILE.min(m - tile * TILE);
                    let at = tile * TILE * blocks;
                    let list = List {
                        ends: &mut ends[tile * blocks..][..blocks],
                        inputs: &mut inputs_listed[at..],
                        outliers: &mut listed[at * TILE..],
                    };
                    let x = &buffers[0].0;
                    list.fill(&outliers[at..][..rows * blocks], QuantizedLeft::height(rows), |row, input| {
                        x[(tile * TILE + row) * inputs + input]
                    });
                }
                if format.layout().minima {
                    sums.iter_mut().for_each(|sum| *sum = (*sum as f32).to_bits() as i32);
                }
                let (codes, scales, sums) = (codes.as_ptr(), scales.as_ptr(), sums.as_ptr());
                let (ends, inputs, outliers) = (ends.as_ptr(), inputs_listed.as_ptr(), listed.as_ptr());
                let a = QuantizedLeft { codes, scales, sums, ends, inputs, outliers, blocks, start: 0 };
                let strip = strips.strip(0, 0);
                (kernels.gemm_quantized)(format, m, n, blocks, a, strip, buffers[1].at_mut(), n, add);
                returned
            });
        }
    }
}
