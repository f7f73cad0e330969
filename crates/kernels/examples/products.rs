//! Times the matrix products of SmolLM2-135M alone, for one row and for many, beside a bare read of the same bytes.
//!
//! `cargo run --release -p minke-kernels --example products [FORMAT…]`

#![allow(clippy::print_stdout, reason = "it prints what it measures")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use minke_kernels::gemm::linear;
use minke_kernels::quantized::{Format, Row};
use minke_kernels::random::Random;
use minke_kernels::{Cpu, Dtype, Matrix, View};

/// (outputs, inputs) of a layer's products, and how many layers there are.
const LAYER: [(usize, usize); 4] = [(960, 576), (576, 576), (3072, 576), (576, 1536)];
const LAYERS: usize = 30;

fn main() {
    let cpu = Cpu::detect().unwrap_or_else(|sentence| panic!("{sentence}"));
    println!("{}, {} threads", cpu.isa().name(), cpu.pool().threads());
    println!("format   MB     1 row GB/s (of a bare read)   rows/s of 1, 8, 32, 512");
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    for name in ["bf16", "f32"].into_iter().chain(Format::ALL.map(Format::name)) {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted.eq_ignore_ascii_case(name)) {
            measure(&cpu, name);
        }
    }
}

fn measure(cpu: &Cpu, name: &str) {
    let matrices: Vec<Matrix> = (0..LAYERS)
        .flat_map(|layer| LAYER.map(|(outputs, inputs)| matrix(cpu, name, layer, outputs, inputs)))
        .collect();
    let bytes: usize = matrices.iter().map(Matrix::bytes).sum();
    let mut random = Random::new(7, [0; 3]);
    // As many outliers as SmolLM2 has: eight rows have some at about 0.7 of each 32 inputs.
    let x: Vec<f32> =
        (0..512 * 1536).map(|_| random.normal() * if random.below(245) == 0 { 16.0 } else { 1.0 }).collect();
    let mut y = vec![0.0; 512 * 3072];
    let mut pass = |rows: usize| {
        for w in &matrices {
            let y = &mut y[..rows * w.outputs()];
            linear(cpu, w, View::new(&x[..rows * w.inputs()], rows, w.inputs()), y);
        }
    };
    let memory = vec![1_u64; bytes / 8];
    let read = || {
        let len = memory.len().div_ceil(cpu.pool().threads());
        cpu.pool().run(cpu.pool().threads(), &|i| {
            black_box(memory.chunks(len).nth(i).unwrap_or_default().iter().fold(0, |sum: u64, x| sum.wrapping_add(*x)));
        });
    };
    // In turns, since the machine changes under them.
    let (mut one, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..25 {
        one.push(time(|| pass(1)));
        bare.push(time(read));
    }
    let (one, bare) = (median(one), median(bare));
    let many =
        [8, 32, 512].map(|rows| rows as f64 / median((0..3).map(|_| time(|| pass(rows))).collect()).as_secs_f64());
    println!(
        "{name:7} {:6.1} {:6.1} ({:3.0} %)   {:6.0} {:6.0} {:6.0} {:6.0}",
        bytes as f64 / 1e6,
        bytes as f64 / one.as_secs_f64() / 1e9,
        100.0 * bare.as_secs_f64() / one.as_secs_f64(),
        1.0 / one.as_secs_f64(),
        many[0],
        many[1],
        many[2],
    );
}

fn matrix(cpu: &Cpu, name: &str, layer: usize, outputs: usize, inputs: usize) -> Matrix {
    let Some(format) = Format::ALL.into_iter().find(|format| format.name() == name) else {
        let w: Vec<f32> = (0..inputs).map(|i| (i % 13) as f32 - 6.0).collect();
        let dtype = if name == "f32" { Dtype::F32 } else { Dtype::Bf16 };
        return Matrix::lasting(cpu, dtype, View::new(&w, 1, inputs).repeat_row(outputs));
    };
    // Whole super-blocks: their formats do not divide 576.
    let inputs = inputs.next_multiple_of(format.block());
    Matrix::quantized(cpu, format, outputs, inputs, &|i, row: &mut Row| {
        let mut random = Random::new(layer as u64, [i as u32, 0, 0]);
        row.codes.iter_mut().for_each(|code| *code = random.below(1 << format.layout().bits) as u8);
        row.halves.fill([0x2000, 0x1c00]);
        row.groups.fill([7, 7]);
    })
}

fn time(run: impl FnOnce()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
