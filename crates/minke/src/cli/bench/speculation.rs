//! Writing with guesses and without, in pairs: a text that repeats itself, one that does not, and one that misleads.

use std::io::{self, Write};
use std::time::Instant;

use anyhow::{Result, bail};
use minke_engine::{
    Decoder, Engine, EventKind, Limits, Request, RequestId, Sampling, Seed, Speculated, TransformerDecoder,
};
use minke_kernels::Cpu;
use minke_kernels::kv::{KvDtype, PAGE_POSITIONS};
use minke_kernels::random::Random;
use minke_model::{Tokenizer, Transformer};
use serde::Serialize;

use super::check;
use crate::speculate::Speculation;

/// A list, to be said again: most of it can be guessed from the text itself.
const LIST: &str = "\
- apples from the old orchard, three pounds
- a loaf of dark bread, cut thick
- butter, salted, in the blue dish
- two dozen brown eggs from the farm
- oats, honey and a jar of plums
- lamp oil, candles and a box of matches
- rope, nails and a new handle for the axe
- letters for the post, six stamps
";

/// The beginning of a story, which is drawn at temperature 1, so that it seldom says anything twice.
const STORY: &str = "\
The harbour had been empty since the storm, and nobody in the village could say where the boats had gone. Early one morning \
a girl walked down to the water with her grandfather's telescope under her arm, and what she saw there";

/// A text to write, with guesses and without.
#[derive(Debug, Serialize)]
pub struct Guessed {
    test: String,
    /// Tokens of each repetition.
    tokens: usize,
    /// The median with guesses, and without.
    tok_s: f64,
    plain_tok_s: f64,
    /// The median over the pairs of how many times as fast guesses make it, and its extremes.
    times: f64,
    least: f64,
    most: f64,
    /// Tokens guessed in a repetition, and those of them that were right.
    drafted: u64,
    accepted: u64,
}

/// Random digits: whatever the last ones are, they stood there before, with something else behind them.
fn digits() -> String {
    let mut random = Random::new(1, [0; 3]);
    (0..400).map(|_| char::from(b'0' + random.below(10) as u8)).collect()
}

struct Text {
    name: &'static str,
    prompt: Vec<u32>,
    temperature: f32,
}

/// Measures all texts, so many tokens each, in pairs of repetitions; the first does not count.
pub fn measure(
    cpu: &Cpu,
    transformer: &Transformer,
    tokenizer: &Tokenizer,
    speculation: &Speculation,
    tokens: usize,
    repetitions: usize,
) -> Result<Vec<Guessed>> {
    let context = transformer.context();
    let Some(room) = context.checked_sub(tokens + 2).filter(|room| *room > 0) else {
        bail!("the model can run {context} tokens; write fewer, with --decode");
    };
    let text = |name, text: &str, temperature| {
        let prompt = tokenizer.encode(text, true)?;
        anyhow::Ok(Text { name, prompt: prompt[prompt.len().saturating_sub(room)..].to_vec(), temperature })
    };
    let texts = [text("list", &LIST.repeat(3), 0.0)?, text("story", STORY, 1.0)?, text("digits", &digits(), 1.0)?];
    let longest = texts.iter().map(|text| text.prompt.len() + tokens + 1).max().unwrap_or(0);
    let pages = longest.div_ceil(PAGE_POSITIONS) + 1;
    let limits = Limits { sequences: 1, batch_tokens: super::BATCH, pages, queue: 1 };
    let decoder = || speculation.decoder(cpu, transformer, KvDtype::F32, pages);
    let mut engine = Engine::new(&decoder(), limits);
    let mut result = Vec::new();
    for text in &texts {
        let (mut with, mut without) = (Vec::new(), Vec::new());
        let mut speculated = Speculated::default();
        for repetition in 0..=repetitions {
            // Both anew each time: nothing shall be remembered from the last.
            let mut plain = TransformerDecoder::new(cpu, transformer);
            let mut guessing = decoder();
            let mut written = [(0.0, Vec::new()), (0.0, Vec::new())];
            // In turn, which of the two goes first.
            for which in [repetition % 2, 1 - repetition % 2] {
                let before = engine.speculated();
                written[which] = match which {
                    0 => write(&mut engine, &mut plain, text, tokens)?,
                    _ => write(&mut engine, &mut guessing, text, tokens)?,
                };
                if which == 1 {
                    let Speculated { drafted, accepted } = engine.speculated();
                    speculated = Speculated { drafted: drafted - before.drafted, accepted: accepted - before.accepted };
                }
            }
            let [(without_s, plain), (with_s, guessed)] = written;
            if plain != guessed {
                bail!("guesses have changed what the model says, which is a fault of minke's; please report it");
            }
            if repetition > 0 {
                with.push(with_s);
                without.push(without_s);
            }
        }
        let pairs: Vec<f64> = with.iter().zip(&without).map(|(with, without)| without / with).collect();
        result.push(Guessed {
            test: format!("{}{tokens}", text.name),
            tokens,
            tok_s: tokens as f64 / median(&with),
            plain_tok_s: tokens as f64 / median(&without),
            times: median(&pairs),
            least: pairs.iter().copied().fold(f64::INFINITY, f64::min),
            most: pairs.iter().copied().fold(0.0, f64::max),
            drafted: speculated.drafted,
            accepted: speculated.accepted,
        });
    }
    Ok(result)
}

/// Seconds that it takes to write so many tokens after the first, and which they are.
fn write(engine: &mut Engine, decoder: &mut impl Decoder, text: &Text, tokens: usize) -> Result<(f64, Vec<u32>)> {
    engine.reset();
    engine.submit(Request {
        id: RequestId(0),
        prompt: text.prompt.clone(),
        sampling: Sampling {
            temperature: text.temperature,
            seed: Seed { seed: 1, stream: [0; 3] },
            ..Sampling::default()
        },
        limit: tokens + 1,
        stop: Vec::new(),
        thought: None,
    })?;
    let mut written = Vec::with_capacity(tokens + 1);
    let mut start = Instant::now();
    while !engine.is_idle() {
        let events = engine.step(decoder);
        let first = written.is_empty();
        written.extend(events.iter().filter_map(|event| match event.kind {
            EventKind::Token(token) => Some(token.id),
            EventKind::Finished(_) => None,
        }));
        check(events)?;
        if first {
            // The prompt has been read, or is being read.
            start = Instant::now();
        }
    }
    Ok((start.elapsed().as_secs_f64(), written))
}

/// The middle one, or the mean of the two in the middle; there is at least one.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0
}

/// A table of them.
pub fn show(guessed: &[Guessed], out: &mut dyn Write) -> io::Result<()> {
    let width = guessed.iter().map(|guessed| guessed.test.len()).max().unwrap_or(0);
    writeln!(out, "\n{:width$}     tok/s    plain   times (least – most)   right of guessed", "")?;
    for Guessed { test, tok_s, plain_tok_s, times, least, most, drafted, accepted, .. } in guessed {
        writeln!(
            out,
            "{test:width$}  {tok_s:>8.1} {plain_tok_s:>8.1}    {times:.2} ({least:.2} – {most:.2})     {accepted} of {drafted}"
        )?;
    }
    Ok(())
}
