//! `minke bench`: how fast a model reads and writes here.

mod limit;
mod speculation;

use std::io::{self, IsTerminal, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use minke_engine::{Engine, Event, EventKind, Limits, Reason, Request, RequestId, Sampling, TransformerDecoder};
use minke_kernels::kv::PAGE_POSITIONS;
use minke_kernels::random::Random;
use serde::{Deserialize, Serialize};

use self::limit::{AtBest, Bare};
use self::speculation::{Guessed, measure};
use super::{DtypeArgument, KvArgument, ModelArguments};
use crate::output::{Show, print};
use crate::roofline::Costs;
use crate::speculate::{Speculate, Speculation};
use crate::{load, machine, units};

/// Rows that are read at a time.
const BATCH: usize = 512;

#[derive(Args)]
#[command(after_help = "Examples:
  minke bench smollm2 --dtype bf16
  minke bench smollm2 --prefill 128,512 --decode 128 --depth 0,1024 --sequences 1,8,32
  minke bench smollm2 --speculate lookup
  minke bench smollm2 --json > before.json; minke bench smollm2 --compare before.json

A test is named as llama-bench names it: pp512 reads 512 tokens, tg128 writes 128 one after the other, @ d1024 behind 1024 others,
x8 in 8 sequences at once, whose tokens count together. These write without guesses. With --speculate a list that the prompt holds three
times is written again (list128), a story is gone on with at temperature 1 (story128), and random digits, where guesses are often wrong
(digits128): with guesses and without, in pairs.
Beside each rate stands how much it is of what this machine allows: reading what a test reads, and multiplying what it multiplies, at the
pace of bare loops that run between the repetitions.
MINKE_ISA chooses another instruction set, MINKE_THREADS another number of threads.")]
pub struct Bench {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    kv: KvArgument,
    /// Tokens to read, at random
    #[arg(long, value_name = "N", default_value = "512", value_delimiter = ',')]
    prefill: Vec<NonZeroUsize>,
    /// Tokens to write one after the other
    #[arg(long, value_name = "N", default_value = "128", value_delimiter = ',')]
    decode: Vec<NonZeroUsize>,
    /// Tokens that stand before those
    #[arg(long, value_name = "N", default_value = "0", value_delimiter = ',')]
    depth: Vec<usize>,
    /// Sequences that are written at once
    #[arg(long, value_name = "N", default_value = "1", value_delimiter = ',')]
    sequences: Vec<NonZeroUsize>,
    /// Also measure what guessing tokens gains: by what followed before in the same text, by the model's own block for
    /// multi-token prediction, or by a smaller model
    #[arg(long, value_name = "off|lookup|mtp|MODEL", default_value = "off")]
    speculate: Speculate,
    /// Times that each is measured, in turn, after once that does not count
    #[arg(long, value_name = "N", default_value = "5")]
    repetitions: NonZeroUsize,
    /// Put the rates beside those of an earlier run, which --json has printed into this file
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Print {"tests": [{"test": "pp512", "tok_s": …}, …], "speculation": [{"test": "list128", "times": …}, …], …}
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Benched {
    model: String,
    /// How weights were kept in memory.
    dtype: String,
    /// How keys and values were.
    kv: &'static str,
    /// The instruction set that was used.
    isa: &'static str,
    threads: usize,
    tests: Vec<Rate>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    speculation: Vec<Guessed>,
}

/// Tokens a second.
#[derive(Debug, PartialEq, Serialize)]
struct Rate {
    test: String,
    /// Tokens of each repetition.
    tokens: usize,
    /// The median of the repetitions.
    tok_s: f64,
    slowest: f64,
    fastest: f64,
    repetitions: usize,
    /// The median of the run that this one is compared with, where it had this test.
    #[serde(skip_serializing_if = "Option::is_none")]
    before_tok_s: Option<f64>,
    /// What bare loops of the same run would reach.
    #[serde(flatten)]
    limit: Option<AtBest>,
}

/// What is read of an earlier run.
#[derive(Deserialize)]
struct Before {
    tests: Vec<BeforeRate>,
}

#[derive(Deserialize)]
struct BeforeRate {
    test: String,
    tok_s: f64,
}

/// What is timed.
#[derive(Clone, Copy)]
struct Test {
    kind: Kind,
    /// Tokens of each sequence that are timed, and those that stand before them.
    length: usize,
    depth: usize,
    sequences: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Prefill,
    Decode,
}

impl Test {
    fn name(self) -> String {
        let Test { kind, length, depth, sequences } = self;
        let kind = if kind == Kind::Prefill { "pp" } else { "tg" };
        let many = if sequences > 1 { format!(" x{sequences}") } else { String::new() };
        let at = if depth > 0 { format!(" @ d{depth}") } else { String::new() };
        format!("{kind}{length}{many}{at}")
    }

    /// Tokens that its time is divided by.
    fn tokens(self) -> usize {
        self.length.saturating_mul(self.sequences)
    }

    /// Tokens that stand there before the time begins; writing goes on from at least one.
    fn before(self) -> usize {
        self.depth.max(usize::from(self.kind == Kind::Decode))
    }

    /// Positions of each of its sequences.
    fn positions(self) -> usize {
        self.before().saturating_add(self.length)
    }

    /// Pages of its sequences: one more each, for a beginning that is copied.
    fn pages(self) -> usize {
        self.sequences.saturating_mul(self.positions().div_ceil(PAGE_POSITIONS) + 1)
    }
}

impl Rate {
    /// What repetitions of so many seconds come to; there is at least one.
    fn new(test: String, tokens: usize, mut seconds: Vec<f64>) -> Rate {
        seconds.sort_by(f64::total_cmp);
        let repetitions = seconds.len();
        let rate = |i: usize| tokens as f64 / seconds[i];
        let tok_s = (rate((repetitions - 1) / 2) + rate(repetitions / 2)) / 2.0;
        Rate {
            test,
            tokens,
            tok_s,
            slowest: rate(repetitions - 1),
            fastest: rate(0),
            repetitions,
            before_tok_s: None,
            limit: None,
        }
    }
}

pub fn run(arguments: &Bench) -> Result<()> {
    let before = arguments.compare.as_deref().map(earlier).transpose()?;
    let tests = tests(arguments);
    let cpu = load::cpu()?;
    let checkpoint = load::open(&arguments.model.model)?;
    let dtype = arguments.model.dtype.into();
    let transformer = load::transformer(&cpu, &checkpoint, dtype)?;
    let speculation = Speculation::load(&arguments.speculate, &cpu, dtype)?;
    let context = transformer.context();
    let most = |of: fn(Test) -> usize| tests.iter().map(|&test| of(test)).max().unwrap_or(1);
    if most(Test::positions) >= context {
        bail!("the model can run {context} tokens; read and write fewer, with --prefill, --decode and --depth");
    }
    let (pages, sequences) = (most(Test::pages), most(|test| test.sequences));
    let bytes = (pages as u64).saturating_mul(transformer.kv_layout().kept_as(arguments.kv.kv).page_bytes() as u64);
    if machine::available_memory().is_some_and(|free| bytes > free) {
        bail!("the keys and values take {}, more than there is; lower --sequences or --depth", units::bytes(bytes));
    }
    let limits = Limits { sequences, batch_tokens: BATCH.max(sequences), pages, queue: sequences };
    let mut decoder = TransformerDecoder::new(&cpu, &transformer).with_kv(arguments.kv.kv);
    let mut engine = Engine::new(&decoder, limits);
    let mut random = Random::new(1, [0; 3]);
    let vocabulary = checkpoint.config().vocab_size as u32;
    let mut prompts = || (0..most(Test::positions)).map(|_| random.below(vocabulary)).collect();
    let prompts: Vec<Vec<u32>> = (0..sequences).map(|_| prompts()).collect();

    let costs = Costs::of(&checkpoint, dtype)?;
    let mut bare = Bare::new(&cpu, &costs);
    let mut seconds = vec![Vec::new(); tests.len()];
    let live = io::stderr().is_terminal();
    for repetition in 0..=arguments.repetitions.get() {
        for (test, seconds) in tests.iter().zip(&mut seconds) {
            if live {
                eprint!("\r\x1b[K{repetition} of {} repetitions; {}", arguments.repetitions, test.name());
            }
            let time = time(&mut engine, &mut decoder, *test, &prompts)?;
            if repetition > 0 {
                seconds.push(time);
            }
        }
        if repetition > 0 {
            bare.measure(&cpu);
        }
    }
    let mut guessed = Vec::new();
    if arguments.speculate != Speculate::Off {
        let tokenizer = checkpoint.tokenizer()?;
        let speculation = speculation.fitted(&cpu, &checkpoint, dtype, &tokenizer)?;
        for tokens in &arguments.decode {
            let repetitions = arguments.repetitions.get();
            guessed.append(&mut measure(&cpu, &transformer, &tokenizer, &speculation, tokens.get(), repetitions)?);
        }
    }
    if live {
        eprint!("\r\x1b[K");
    }
    let mut rates: Vec<Rate> =
        tests.iter().zip(seconds).map(|(test, seconds)| Rate::new(test.name(), test.tokens(), seconds)).collect();
    for (rate, &test) in rates.iter_mut().zip(&tests) {
        rate.limit = Some(bare.limit(&costs, arguments.kv.kv, test, rate.tok_s));
        let same = before.iter().flat_map(|before| &before.tests).find(|before| before.test == rate.test);
        rate.before_tok_s = same.map(|before| before.tok_s);
    }
    let result = Benched {
        model: arguments.model.model.clone(),
        dtype: name(arguments.model.dtype),
        kv: arguments.kv.kv.name(),
        isa: cpu.isa().name(),
        threads: cpu.pool().threads(),
        tests: rates,
        speculation: guessed,
    };
    print(&result, arguments.json)
}

/// The rates that `minke bench --json` has printed into a file.
fn earlier(file: &Path) -> Result<Before> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{} can't be read", file.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is not what `minke bench --json` prints; make it anew", file.display()))
}

/// At each depth, what is read and then what is written, by few and by many.
fn tests(arguments: &Bench) -> Vec<Test> {
    let Bench { prefill, decode, depth, sequences, .. } = arguments;
    let mut tests = Vec::new();
    for &depth in depth {
        let prefill = prefill.iter().map(|length| (Kind::Prefill, length.get(), 1));
        let each = |length: &NonZeroUsize| {
            let length = length.get();
            sequences.iter().map(move |sequences| (Kind::Decode, length, sequences.get()))
        };
        let all = prefill.chain(decode.iter().flat_map(each));
        tests.extend(all.map(|(kind, length, sequences)| Test { kind, length, depth, sequences }));
    }
    tests
}

/// Seconds that a test takes once.
fn time(engine: &mut Engine, decoder: &mut TransformerDecoder<'_>, test: Test, prompts: &[Vec<u32>]) -> Result<f64> {
    // Otherwise the prompts would be remembered from the last time,
    engine.reset();
    // and now what stands before the test is.
    let before = test.before();
    let requests = |tokens: usize, limit: usize| {
        prompts[..test.sequences].iter().zip(0..).map(move |(prompt, id)| Request {
            id: RequestId(id),
            prompt: prompt[..tokens].to_vec(),
            sampling: Sampling::greedy(),
            limit,
            stop: Vec::new(),
            thought: None,
        })
    };
    if before > 0 {
        engine.generate(decoder, requests(before, 1).collect())?;
    }
    let (prompt, limit) = match test.kind {
        // The last token of an answer is not run: a prompt and an answer of 1 run the prompt.
        Kind::Prefill => (before + test.length, 1),
        // The first token of an answer comes of the prompt, whose last token is run again; the time begins behind it.
        Kind::Decode => (before, test.length + 1),
    };
    for request in requests(prompt, limit) {
        engine.submit(request)?;
    }
    if test.kind == Kind::Decode {
        let mut started = 0;
        while started < test.sequences {
            started += check(engine.step(decoder))?;
        }
    }
    let start = Instant::now();
    while !engine.is_idle() {
        check(engine.step(decoder))?;
    }
    Ok(start.elapsed().as_secs_f64())
}

/// The tokens among a step's events.
fn check(events: Vec<Event>) -> Result<usize> {
    let mut tokens = 0;
    for event in events {
        match event.kind {
            EventKind::Token(_) => tokens += 1,
            EventKind::Finished(Reason::Limit) => {}
            EventKind::Finished(Reason::NotFinite) => {
                bail!("the model's logits are not numbers: its weights are damaged")
            }
            EventKind::Finished(reason) => bail!("a repetition ended early ({reason:?}), so its time means nothing"),
        }
    }
    Ok(tokens)
}

/// As it stands on the command line.
fn name(dtype: DtypeArgument) -> String {
    dtype.to_possible_value().map_or(String::new(), |value| value.get_name().to_string())
}

impl Show for Benched {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let Benched { model, dtype, kv, isa, threads, tests, speculation } = self;
        writeln!(out, "{model}: {dtype} weights, {kv} keys and values, {isa}, threads: {threads}\n")?;
        let width = tests.iter().map(|rate| rate.test.len()).max().unwrap_or(0);
        let repetitions = tests.first().map_or(0, |rate| rate.repetitions);
        writeln!(out, "{:width$}     tok/s   slowest – fastest of {repetitions}", "")?;
        for Rate { test, tok_s, slowest, fastest, before_tok_s, limit, .. } in tests {
            write!(out, "{test:width$}  {tok_s:>8.1}   {slowest:.1} – {fastest:.1}")?;
            if let Some(AtBest { of_limit, limited_by, limit_tok_s }) = limit {
                write!(out, "   {:.0} % of the {limit_tok_s:.1} that {limited_by} would allow", 100.0 * of_limit)?;
            }
            match before_tok_s {
                Some(before) => writeln!(out, "   {:.2} times the {before:.1} before", tok_s / before)?,
                None => writeln!(out)?,
            }
        }
        if speculation.is_empty() { Ok(()) } else { speculation::show(speculation, out) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_medians() {
        let rate = |seconds: &[f64]| Rate::new("pp12".into(), 12, seconds.to_vec());
        let three = rate(&[3.0, 1.0, 2.0]);
        assert_eq!((three.tok_s, three.slowest, three.fastest, three.repetitions), (6.0, 4.0, 12.0, 3));
        assert_eq!(rate(&[1.0, 2.0]).tok_s, 9.0);
        assert_eq!(rate(&[2.0]).tok_s, 6.0);
    }

    #[test]
    fn tests_are_named_as_llama_bench_names_them() {
        let decode = |depth, sequences| Test { kind: Kind::Decode, length: 128, depth, sequences };
        assert_eq!(Test { kind: Kind::Prefill, length: 512, depth: 0, sequences: 1 }.name(), "pp512");
        assert_eq!([decode(0, 1).name(), decode(1024, 8).name()], ["tg128", "tg128 x8 @ d1024"]);
        assert_eq!((decode(0, 8).tokens(), decode(0, 8).positions()), (1024, 129));
    }
}
