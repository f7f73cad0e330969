//! `minke chips`: what this machine has, what it reaches, and what models will be like on it.

mod drawing;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use minke_kernels::quantized::Format;
use minke_kernels::{Cpu, Dtype, Isa};
use minke_model::{Checkpoint, Precision};
use serde::Serialize;

use crate::machine::{self, Cache};
use crate::output::{Show, print};
use crate::probe::{Memory, Product, Rates};
use crate::roofline::{Costs, H20, H800, Kept, Limits, Pass};
use crate::store::Store;
use crate::{load, units};

/// Times that each number of threads is measured.
const PASSES: usize = 5;
/// Tokens of the prompt, and of the answer, that rates are predicted for: `minke bench`'s pp512 and tg128.
const PREFILL: usize = 512;
const DECODE: usize = 128;
/// Ways to keep weights that are always measured.
const ALWAYS: [Kept; 4] =
    [Kept::In(Dtype::F32), Kept::In(Dtype::Bf16), Kept::Quantised(Format::Q8_0), Kept::Quantised(Format::Q4_0)];

#[derive(Args)]
#[command(after_help = "Examples:
  minke chips                                   this machine, and every model in the store on it
  minke chips smollm2 7B:Q4_K_M --svg roof.svg  one in the store, and a dense Llama of that size and type

A rate is predicted from what a pass reads and does, and from what this machine was just seen to reach: pp512 reads a prompt, tg128
writes an answer. A roofline shows what a chip reaches with so many operations for each byte that it reads; H20 and H800 are as in
NVIDIA's data sheets: 4.0 and 3.35 TB/s, 148 and 989 TFLOP/s in bf16.
MINKE_ISA chooses another instruction set, MINKE_THREADS another number of threads.")]
pub struct Chips {
    /// Models (paths or names in the store) or sizes (7B, 135M:Q8_0), instead of all in the store
    #[arg(value_name = "MODEL")]
    models: Vec<String>,
    /// Also draw the rooflines into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
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
    /// All that predictions rest on, with all threads.
    rates: Rates,
    models: Vec<Predicted>,
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

/// A model on this machine.
#[derive(Serialize)]
struct Predicted {
    model: String,
    parameters: u64,
    weights_bytes: f64,
    /// Keys and values of its whole context, in bf16.
    context: usize,
    kv_bytes: f64,
    /// Whether both fit into this machine's memory, where that is known.
    fits: Option<bool>,
    /// As `minke bench` names them.
    tests: Vec<Rate>,
    /// What it would be like on chips.
    work: Vec<Work>,
}

#[derive(Serialize)]
struct Rate {
    test: String,
    tok_s: f64,
}

/// Tokens that run together.
#[derive(Serialize)]
struct Work {
    #[serde(rename = "work")]
    name: &'static str,
    bytes: f64,
    flop: f64,
    /// Operations for each byte.
    intensity: f64,
    chips: Vec<OnChip>,
    /// How many times as fast an H20 is as an H800.
    h20_to_h800: f64,
}

/// Seconds that a chip reads, and reckons.
#[derive(Serialize)]
struct OnChip {
    chip: &'static str,
    bandwidth_s: f64,
    compute_s: f64,
}

/// A chip by name.
#[derive(Clone, Copy)]
struct Chip {
    name: &'static str,
    limits: Limits,
}

pub fn run(arguments: &Chips) -> Result<()> {
    let cpu = load::cpu()?;
    let (isa, most) = (cpu.isa(), cpu.pool().threads());
    let models = models(&arguments.models)?;
    if let Some(file) = &arguments.svg {
        // Said before half a minute of measuring; what the file holds stays until there is something new.
        let opened = OpenOptions::new().create(true).append(true).open(file);
        opened.with_context(|| format!("{} can't be written", file.display()))?;
    }
    let mut kept = ALWAYS.to_vec();
    for (_, costs) in &models {
        kept.extend(costs.kept().into_iter().filter(|new| !ALWAYS.contains(new)));
    }
    kept.sort_by_key(|kept| kept.name());
    kept.dedup();
    let rates = Rates::measure(&cpu, &kept);
    drop(cpu);
    let mut counts: Vec<usize> = std::iter::successors(Some(1), |n| Some(2 * n)).take_while(|n| *n < most).collect();
    counts.push(most);
    let memory = machine::memory();
    let here = |costs: &Costs| {
        let fastest = |kept: &Kept| rates.many_rows(*kept);
        let flop_s = costs.kept().iter().map(fastest).fold(0.0, f64::max);
        Chip { name: "here", limits: Limits { bytes_s: rates.read_gb_s * 1e9, flop_s } }
    };
    let predicted = models.iter().map(|(name, costs)| predict(name, costs, &rates, here(costs), memory)).collect();
    let machine = Machine {
        cpu: machine::cpu_name(),
        cores_usable: minke_kernels::pool::available_threads(),
        cores: machine::cores(),
        memory_bytes: memory,
        isa: isa.name(),
        isa_available: Isa::ALL.into_iter().filter(|isa| isa.is_available()).map(Isa::name).collect(),
        caches: machine::caches(),
        measured: measure(isa, &counts),
        rates,
        models: predicted,
    };
    if let Some(file) = &arguments.svg {
        fs::write(file, drawing::svg(&machine.chips(), &machine.models))
            .with_context(|| format!("{} can't be written", file.display()))?;
    }
    print(&machine, arguments.json)
}

/// The models asked for, or all in the store that can be opened.
fn models(asked: &[String]) -> Result<Vec<(String, Costs)>> {
    if asked.is_empty() {
        let entries = Store::open()?.all()?;
        let costs = |path: &std::path::Path| Costs::of(&Checkpoint::open(path)?, Precision::Stored);
        return Ok(entries.into_iter().filter_map(|entry| Some((entry.name, costs(&entry.path).ok()?))).collect());
    }
    let costs = |name: &String| {
        let size = if std::path::Path::new(name).exists() { None } else { Costs::of_size(name)? };
        let costs = match size {
            Some(costs) => costs,
            None => Costs::of(&load::open(name).map_err(|e| with_sizes(name, e))?, Precision::Stored)?,
        };
        Ok((name.clone(), costs))
    };
    asked.iter().map(costs).collect()
}

/// What begins like a number was meant as a size.
fn with_sizes(name: &str, error: anyhow::Error) -> anyhow::Error {
    match name.starts_with(|c: char| c.is_ascii_digit()) {
        true => anyhow!("{name:?} is neither a model nor a size; a size is written as 7B, 135M or 7B:Q4_K_M"),
        false => error,
    }
}

fn predict(name: &str, costs: &Costs, rates: &Rates, here: Chip, memory: Option<u64>) -> Predicted {
    let decode = Pass::decode(1, DECODE as f64 / 2.0);
    let prefill = Pass::prefill(PREFILL, 0);
    let rate = |test: String, pass, tokens: usize| {
        let tok_s = tokens as f64 / rates.seconds(costs, &costs.load(pass));
        Rate { test, tok_s }
    };
    let work = |name, pass| {
        let load = costs.load(pass);
        let chips = [here, Chip { name: "H20", limits: H20 }, Chip { name: "H800", limits: H800 }];
        let on = |chip: Chip| {
            let (bandwidth_s, compute_s) = chip.limits.times(&load);
            OnChip { chip: chip.name, bandwidth_s, compute_s }
        };
        Work {
            name,
            bytes: load.bytes(),
            flop: load.flop(),
            intensity: load.flop() / load.bytes(),
            chips: chips.map(on).into(),
            h20_to_h800: H800.least(&load) / H20.least(&load),
        }
    };
    let (weights_bytes, kv_bytes) = (costs.weights(), costs.kv(costs.context));
    let depth = DECODE as f64 / 2.0;
    Predicted {
        model: name.to_string(),
        parameters: costs.parameters,
        weights_bytes,
        context: costs.context,
        kv_bytes,
        fits: memory.map(|memory| weights_bytes + kv_bytes < memory as f64),
        tests: vec![rate(format!("pp{PREFILL}"), prefill, PREFILL), rate(format!("tg{DECODE}"), decode, 1)],
        work: vec![
            work("decode x1", decode),
            work("decode x8", Pass::decode(8, depth)),
            work("decode x32", Pass::decode(32, depth)),
            work("prefill", prefill),
        ],
    }
}

fn measure(isa: Isa, counts: &[usize]) -> Vec<Measured> {
    let memory = Memory::new();
    let reach = |&threads: &usize| {
        let cpu = Cpu::new(isa, threads);
        let fastest = |rate: &mut dyn FnMut() -> f64| (0..PASSES).map(|_| rate()).fold(0.0, f64::max) / 1e9;
        let product = |dtype| {
            let mut product = Product::new(&cpu, Kept::In(dtype));
            fastest(&mut || product.measure(&cpu))
        };
        Measured {
            threads,
            read_gb_s: fastest(&mut || memory.read(&cpu)),
            f32_gflop_s: product(Dtype::F32),
            bf16_gflop_s: product(Dtype::Bf16),
        }
    };
    counts.iter().map(reach).collect()
}

impl Machine {
    /// This machine with the fastest of its types, and those of the data sheets.
    fn chips(&self) -> Vec<Chip> {
        let flop_s = self.rates.products.iter().map(|rate| rate.many_rows_gflop_s * 1e9).fold(0.0, f64::max);
        let here = Limits { bytes_s: self.rates.read_gb_s * 1e9, flop_s };
        [("here", here), ("H20", H20), ("H800", H800)].map(|(name, limits)| Chip { name, limits }).into()
    }

    fn show_models(&self, out: &mut dyn Write) -> io::Result<()> {
        let width = self.models.iter().map(|model| model.model.chars().count()).max().unwrap_or(0).max(5);
        writeln!(
            out,
            "\n{:width$}   weights   context       KV   fits   pp{PREFILL} tok/s   tg{DECODE} tok/s",
            "model"
        )?;
        for model in &self.models {
            let Predicted { model, weights_bytes, context, kv_bytes, fits, tests, .. } = model;
            let fits = fits.map_or("?", |fits| if fits { "yes" } else { "no" });
            let [weights, kv] = [weights_bytes, kv_bytes].map(|bytes| units::bytes(*bytes as u64));
            write!(out, "{model:width$}  {weights:>8}  {context:>8} {kv:>8}  {fits:>5}")?;
            for Rate { tok_s, .. } in tests {
                write!(out, "   {tok_s:>11.1}")?;
            }
            writeln!(out)?;
        }
        writeln!(out, "\n{:width$}   of decode x1, x8, x32 and prefill: here waits for, would rather have", "model")?;
        for model in &self.models {
            write!(out, "{:width$}", model.model)?;
            for work in &model.work {
                let here = &work.chips[0];
                let waits = if here.bandwidth_s > here.compute_s { "bandwidth" } else { "products" };
                let ratio = work.h20_to_h800;
                let (rather, times) = if ratio >= 1.0 { ("H20", ratio) } else { ("H800", 1.0 / ratio) };
                write!(out, "   {waits:9} {rather:>4} {times:.1}×")?;
            }
            writeln!(out)?;
        }
        drawing::show(&self.chips(), &self.models, out)
    }
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
        let Rates { products, attention_gflop_s, block_us, latent_us, mixture_us, .. } = &self.rates;
        writeln!(out, "\nweights   one row GB/s   many rows GFLOP/s")?;
        for rate in products {
            writeln!(out, "{:7}   {:>12.1}   {:>17.1}", rate.weights, rate.one_row_gb_s, rate.many_rows_gflop_s)?;
        }
        writeln!(
            out,
            "attention {attention_gflop_s:.0} GFLOP/s; calls of a block {block_us:.0} µs, of latent attention {latent_us:.0} more, \
             of a mixture {mixture_us:.0} more"
        )?;
        if self.models.is_empty() { Ok(()) } else { self.show_models(out) }
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
