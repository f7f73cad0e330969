//! `minke bench`: how fast a model reads and writes here.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use minke_engine::{Engine, Limits, Reason, Request, RequestId, Sampling, TransformerDecoder};
use minke_kernels::kv::PAGE_POSITIONS;
use minke_kernels::random::Random;
use serde::Serialize;

use super::{DtypeArgument, ModelArguments};
use crate::load;
use crate::output::{Show, print};

#[derive(Args)]
#[command(after_help = "Example: minke bench smollm2 --dtype bf16 --prefill 512 --decode 128

MINKE_ISA chooses another instruction set, MINKE_THREADS another number of threads.")]
pub struct Bench {
    #[command(flatten)]
    model: ModelArguments,
    /// Tokens to read, at random
    #[arg(long, value_name = "N", default_value = "512")]
    prefill: NonZeroUsize,
    /// Tokens to write one after the other, from an empty context
    #[arg(long, value_name = "N", default_value = "128")]
    decode: NonZeroUsize,
    /// Times that each is measured, after once that does not count
    #[arg(long, value_name = "N", default_value = "5")]
    repetitions: NonZeroUsize,
    /// Print {"prefill": {"tok_s": …}, "decode": {"tok_s": …}, …}
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Benched {
    model: String,
    /// How weights were kept in memory.
    dtype: String,
    /// The instruction set that was used.
    isa: &'static str,
    threads: usize,
    prefill: Rate,
    decode: Rate,
}

/// Tokens a second.
#[derive(Debug, PartialEq, Serialize)]
struct Rate {
    /// Tokens of each repetition.
    tokens: usize,
    /// The median of the repetitions.
    tok_s: f64,
    slowest: f64,
    fastest: f64,
    repetitions: usize,
}

impl Rate {
    /// What repetitions of so many seconds come to; there is at least one.
    fn new(tokens: usize, mut seconds: Vec<f64>) -> Rate {
        seconds.sort_by(f64::total_cmp);
        let repetitions = seconds.len();
        let rate = |i: usize| tokens as f64 / seconds[i];
        let tok_s = (rate((repetitions - 1) / 2) + rate(repetitions / 2)) / 2.0;
        Rate { tokens, tok_s, slowest: rate(repetitions - 1), fastest: rate(0), repetitions }
    }
}

pub fn run(arguments: &Bench) -> Result<()> {
    let (prefill, decode) = (arguments.prefill.get(), arguments.decode.get());
    let cpu = load::cpu()?;
    let checkpoint = load::open(&arguments.model.model)?;
    let transformer = load::transformer(&cpu, &checkpoint, arguments.model.dtype.into())?;
    let context = transformer.context();
    if prefill.max(decode) >= context {
        bail!("the model can run {context} tokens; read and write fewer, with --prefill and --decode");
    }
    let mut decoder = TransformerDecoder::new(&cpu, &transformer);
    let pages = context.div_ceil(PAGE_POSITIONS);
    let mut engine = Engine::new(&decoder, Limits { sequences: 1, batch_tokens: 512, pages, queue: 1 });
    let mut random = Random::new(1, [0; 3]);
    let tokens: Vec<u32> = (0..prefill).map(|_| random.below(checkpoint.config().vocab_size as u32)).collect();

    // The last token of an answer is not run, so a prompt of n and an answer of 1 run n, and the other way round.
    let mut seconds = |prompt: &[u32], limit: usize| -> Result<f64> {
        // Otherwise the prompt would be remembered from the last time.
        engine.reset();
        let request = Request {
            id: RequestId(0),
            prompt: prompt.to_vec(),
            sampling: Sampling::greedy(),
            limit,
            stop: Vec::new(),
            thought: None,
        };
        let start = Instant::now();
        let outcomes = engine.generate(&mut decoder, vec![request])?;
        let seconds = start.elapsed().as_secs_f64();
        match outcomes[0].reason {
            Reason::Limit => Ok(seconds),
            Reason::NotFinite => bail!("the model's logits are not numbers: its weights are damaged"),
            reason => bail!("a repetition ended early ({reason:?}), so its time means nothing"),
        }
    };
    let (mut reading, mut writing) = (Vec::new(), Vec::new());
    for repetition in 0..=arguments.repetitions.get() {
        let (read, wrote) = (seconds(&tokens, 1)?, seconds(&tokens[..1], decode)?);
        if repetition > 0 {
            reading.push(read);
            writing.push(wrote);
        }
    }
    let result = Benched {
        model: arguments.model.model.clone(),
        dtype: name(arguments.model.dtype),
        isa: cpu.isa().name(),
        threads: cpu.pool().threads(),
        prefill: Rate::new(prefill, reading),
        decode: Rate::new(decode, writing),
    };
    print(&result, arguments.json)
}

/// As it stands on the command line.
fn name(dtype: DtypeArgument) -> String {
    dtype.to_possible_value().map_or(String::new(), |value| value.get_name().to_string())
}

impl Show for Benched {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let Benched { model, dtype, isa, threads, .. } = self;
        writeln!(out, "{model}: {dtype} weights, {isa}, threads: {threads}\n")?;
        writeln!(out, "          tokens     tok/s   slowest – fastest of {}", self.prefill.repetitions)?;
        for (what, rate) in [("prefill", &self.prefill), ("decode", &self.decode)] {
            let Rate { tokens, tok_s, slowest, fastest, .. } = rate;
            writeln!(out, "{what:8}  {tokens:>6}  {tok_s:>8.1}   {slowest:.1} – {fastest:.1}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_medians() {
        let rate = Rate::new(12, vec![3.0, 1.0, 2.0]);
        assert_eq!(rate, Rate { tokens: 12, tok_s: 6.0, slowest: 4.0, fastest: 12.0, repetitions: 3 });
        assert_eq!(Rate::new(12, vec![1.0, 2.0]).tok_s, 9.0);
        assert_eq!(Rate::new(12, vec![2.0]).tok_s, 6.0);
    }
}
