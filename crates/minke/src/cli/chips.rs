//! `minke chips`: what this machine has, and what it reaches.

use std::hint::black_box;
use std::io::{self, Write};
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use minke_kernels::gemm::{Job, Mode, Operand, gemm};
use minke_kernels::{Cpu, Dtype, Isa, Matrix, Pool, View};
use serde::Serialize;

use crate::machine::{self, Cache};
use crate::output::{Show, print};
use crate::{load, units};

/// Numbers read to measure bandwidth: 256 MiB, more than caches hold.
const READ: usize = 1 << 25;
/// Passes over them, the fastest of which counts.
const PASSES: usize = 5;
/// Rows, inner length and columns of the product that measures arithmetic.
const PRODUCT: [usize; 3] = [512, 1024, 1024];
/// Seconds that products are repeated for.
const PRODUCT_S: f64 = 0.3;

#[derive(Args)]
#[command(after_help = "Example: minke chips --json

MINKE_ISA chooses another instruction set, MINKE_THREADS another number of threads.")]
pub struct Chips {
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Machine {
    /// The processor's name, where it is known.
    cpu: Option<String>,
    /// Cores that this process may use.
    cores_usable: usize,
    /// Cores of the machine, where they are known.
    cores: Option<usize>,
    /// Main memory, where it is known.
    memory_bytes: Option<u64>,
    /// The instruction set that the kernels use,
    isa: &'static str,
    /// and those that they could use.
    isa_available: Vec<&'static str>,
    /// The first core's caches.
    caches: Vec<Cache>,
    /// What was measured.
    measured: Vec<Measured>,
}

/// What a number of threads reaches.
#[derive(Serialize)]
struct Measured {
    threads: usize,
    /// Reading memory, in 10⁹ bytes a second.
    read_gb_s: f64,
    /// Products of f32 matrices, in 10⁹ additions and multiplications a second.
    f32_gflop_s: f64,
    /// The same with weights kept as bf16.
    bf16_gflop_s: f64,
}

pub fn run(arguments: &Chips) -> Result<()> {
    let chosen = load::cpu()?;
    let (isa, most) = (chosen.isa(), chosen.pool().threads());
    drop(chosen);
    let mut counts: Vec<usize> = std::iter::successors(Some(1), |n| Some(2 * n)).take_while(|n| *n < most).collect();
    counts.push(most);
    let machine = Machine {
        cpu: machine::cpu_name(),
        cores_usable: minke_kernels::pool::available_threads(),
        cores: machine::cores(),
        memory_bytes: machine::memory(),
        isa: isa.name(),
        isa_available: Isa::ALL.into_iter().filter(|isa| isa.is_available()).map(Isa::name).collect(),
        caches: machine::caches(),
        measured: measure(isa, &counts),
    };
    print(&machine, arguments.json)
}

fn measure(isa: Isa, counts: &[usize]) -> Vec<Measured> {
    let numbers = vec![1_u64; READ];
    let reach = |&threads: &usize| {
        let cpu = Cpu::new(isa, threads);
        Measured {
            threads,
            read_gb_s: read_bandwidth(cpu.pool(), &numbers),
            f32_gflop_s: products(&cpu, Dtype::F32),
            bf16_gflop_s: products(&cpu, Dtype::Bf16),
        }
    };
    counts.iter().map(reach).collect()
}

/// 10⁹ bytes a second that are read, each thread its own part.
fn read_bandwidth(pool: &Pool, numbers: &[u64]) -> f64 {
    let share = numbers.len().div_ceil(pool.threads());
    let pass = || {
        let start = Instant::now();
        pool.run(pool.threads(), &|i| {
            let part = numbers.chunks(share).nth(i).unwrap_or_default();
            black_box(part.iter().fold(0_u64, |sum, &x| sum.wrapping_add(x)));
        });
        start.elapsed().as_secs_f64()
    };
    let fastest = (0..PASSES).map(|_| pass()).fold(f64::MAX, f64::min);
    size_of_val(numbers) as f64 / fastest / 1e9
}

/// 10⁹ operations a second in products with a packed weight.
fn products(cpu: &Cpu, dtype: Dtype) -> f64 {
    let [m, k, n] = PRODUCT;
    let number = |i: usize| (i % 7) as f32 - 3.0;
    let a: Vec<f32> = (0..m * k).map(number).collect();
    let b: Vec<f32> = (0..n * k).map(number).collect();
    let weight = Matrix::pack(cpu, dtype, View::new(&b, n, k));
    let mut out = vec![0.0; m * n];
    let job = [Job { a: View::new(&a, m, k), b: Operand::Packed(&weight), row: 0, col: 0 }];
    let (begin, mut fastest) = (Instant::now(), f64::MAX);
    while begin.elapsed().as_secs_f64() < PRODUCT_S {
        let start = Instant::now();
        gemm(cpu, &mut out, n, Mode::Set, &job);
        fastest = fastest.min(start.elapsed().as_secs_f64());
    }
    black_box(&out);
    (2 * m * n * k) as f64 / fastest / 1e9
}

impl Show for Machine {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let known = |part: Option<String>| part.map_or(String::new(), |part| format!(", {part}"));
        writeln!(
            out,
            "{}: {} of {} cores usable{}",
            self.cpu.as_deref().unwrap_or("This machine"),
            self.cores_usable,
            self.cores.map_or("?".to_string(), |cores| cores.to_string()),
            known(self.memory_bytes.map(|bytes| format!("{} of memory", units::bytes(bytes)))),
        )?;
        writeln!(out, "instruction set  {} (available: {})", self.isa, self.isa_available.join(", "))?;
        if !self.caches.is_empty() {
            let caches: Vec<String> = self.caches.iter().filter(|c| c.kind != "instruction").map(cache).collect();
            writeln!(out, "caches           {}", caches.join(", "))?;
        }
        writeln!(out, "\nthreads   read GB/s   f32 GFLOP/s   bf16 GFLOP/s")?;
        for Measured { threads, read_gb_s, f32_gflop_s, bf16_gflop_s } in &self.measured {
            writeln!(out, "{threads:>7}   {read_gb_s:>9.1}   {f32_gflop_s:>11.1}   {bf16_gflop_s:>12.1}")?;
        }
        Ok(())
    }
}

fn cache(cache: &Cache) -> String {
    let size = match cache.bytes >> 10 {
        kib if kib >= 1024 => format!("{} MiB", kib >> 10),
        kib => format!("{kib} KiB"),
    };
    let shared = if cache.cores > 1 { format!(" for {} cores", cache.cores) } else { String::new() };
    format!("L{} {size}{shared}", cache.level)
}
