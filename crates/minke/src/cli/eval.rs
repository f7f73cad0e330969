//! `minke eval`: how much of a task a model gets right, or how well it predicts a text.

mod answers;
mod asked;
mod endpoint;
mod record;

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use clap::builder::PossibleValuesParser;
use minke_engine::Limits;
use minke_kernels::log_prob::{LogProb, log_prob};
use minke_kernels::math::exp;
use minke_train::evaluation::{Evaluation, Sampled};
use minke_train::format::Format;
use minke_train::generate::{Drawing, Generator};
use minke_train::intervals::Interval;
use minke_train::rollouts::Rollout;
use minke_train::spent::core_seconds;
use minke_train::tasks::{Item, built_in_names, held_out_items};
use serde::Serialize;

use self::answers::Answers;
use self::asked::Asked;
use super::debug::check_tokens;
use super::{DtypeArgument, SpeculateArguments};
use crate::load;
use crate::output::{Show, print};
use crate::speculate::Speculation;

#[derive(Args)]
#[command(after_help = "Examples:
  minke eval sums --task chain_sum --level 8 --samples 8     held-out sums of eight numbers, greedy and pass@8
  minke eval countdown --task countdown --level 2
  minke eval sums --recipe recipes/sums.toml --answers a.jsonl     what the run's report measured, one by one
  minke eval qwen --task chain_sum --shots 4                 shown four right answers first
  minke eval http://127.0.0.1:8080/v1#gemma --task chain_sum                another server's model
  minke eval sums --task chain_sum --record sums             and kept for `minke arena board --verified`
  minke eval smollm2 --text golden/smollm2/text.txt          perplexity

The problems are those that no training on the task ever sees. An endpoint's key is in MINKE_KEY.")]
pub struct Eval {
    /// A model: a path (.gguf file, Hugging Face directory or run), a name in the store, or URL#MODEL of an OpenAI-compatible
    /// endpoint
    model: String,
    /// How weights are kept in memory: in the bits that the file has them in, or all in one type [default: the recipe's,
    /// or stored]
    #[arg(long, value_name = "stored|bf16|f32", hide_possible_values = true)]
    dtype: Option<DtypeArgument>,
    #[command(flatten)]
    speculate: SpeculateArguments,
    /// A task whose verifier judges the answers
    #[arg(long, value_name = "TASK", value_parser = PossibleValuesParser::new(built_in_names()), required_unless_present_any = ["text", "recipe"])]
    task: Option<String>,
    /// Or a recipe: its task, whichever that is, and what its sections format and eval say, but for what is said here
    #[arg(long, value_name = "FILE", conflicts_with_all = ["task", "digits"])]
    recipe: Option<PathBuf>,
    /// Or a text in UTF-8: exp of the mean of -log p of every token but the first, each given all before it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["task", "recipe"])]
    text: Option<PathBuf>,
    /// How hard the problems are, on the task's own scale: numbers of a sum, digits of a product [default: the recipe's, or 2]
    #[arg(long, value_name = "N", conflicts_with = "text")]
    level: Option<u32>,
    /// Digits of a sum's numbers
    #[arg(long, value_name = "N-M", default_value = "1-2", value_parser = digits, conflicts_with = "text")]
    digits: RangeInclusive<u32>,
    /// Held-out problems [default: the recipe's, or 500]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000), conflicts_with = "text")]
    items: Option<u32>,
    /// Completions sampled of each besides the greedy one; the k of pass@k [default: the recipe's, or 0]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(..=1000), conflicts_with = "text")]
    samples: Option<u32>,
    /// Longest completion, in tokens [default: the recipe's, or 256]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000), conflicts_with = "text")]
    max_tokens: Option<u32>,
    /// Seed of what is sampled [default: the recipe's, or 1]
    #[arg(long, value_name = "N", conflicts_with = "text")]
    seed: Option<u32>,
    /// Write each problem's greedy completion into a file, as a line of JSON: its prompt and tokens, its text and reward
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    answers: Option<PathBuf>,
    /// Right answers to other problems that the model is shown first
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=64), conflicts_with = "text")]
    shots: u32,
    /// What stands below each question instead of the usual line; a thought in tags is then not asked for
    #[arg(long, value_name = "TEXT", conflicts_with = "text")]
    instruction: Option<String>,
    /// Keep the result under this model's name in the store, for `minke arena board --verified`
    #[arg(long, value_name = "NAME", conflicts_with = "text")]
    record: Option<String>,
    /// Print {"level": …, "accuracy": …, "interval": …, …}, or {"tokens": …, "nll": …, "perplexity": …}
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Eval) -> Result<()> {
    match &arguments.text {
        Some(text) => perplexity(arguments, text),
        None => accuracy(arguments, &Asked::of(arguments)?),
    }
}

/// Fewest and most digits, within those that the task has.
fn digits(text: &str) -> Result<RangeInclusive<u32>, String> {
    let (fewest, most) = text.split_once('-').unwrap_or((text, text));
    let range = fewest.parse().ok().zip(most.parse().ok());
    let range = range.filter(|(fewest, most)| 1 <= *fewest && fewest <= most && *most <= 4);
    range.map(|(fewest, most)| fewest..=most).ok_or_else(|| "give one number or two, such as 1-2, from 1 to 4".into())
}

#[derive(Serialize)]
struct Measured {
    #[serde(flatten)]
    evaluation: Evaluation,
    /// Seconds of cores' time that the completions took; none where they were made elsewhere.
    core_s: Option<f64>,
}

impl Show for Measured {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let Measured { evaluation, core_s } = self;
        let Evaluation { level, items, accuracy, interval, lenient, thought_tokens, truncated, sampled, .. } =
            evaluation;
        let line = |name: &str, part: f64, Interval { low, high }: &Interval| {
            format!("{name:<9} {:5.1} %  ({:.1}–{:.1}, 95 %)", 100.0 * part, 100.0 * low, 100.0 * high)
        };
        writeln!(out, "{items} held-out problems of level {level}")?;
        writeln!(out, "{}", line("greedy", *accuracy, interval))?;
        if let Some(Sampled { k, pass_at_1, pass_at_1_interval, pass_at_k, pass_at_k_interval }) = sampled {
            writeln!(out, "{}", line("pass@1", *pass_at_1, pass_at_1_interval))?;
            writeln!(out, "{}", line(&format!("pass@{k}"), *pass_at_k, pass_at_k_interval))?;
        }
        let lenient =
            lenient.map_or(String::new(), |part| format!(", {:.1} % right for a lenient reader", 100.0 * part));
        // Nobody counts those of a model elsewhere.
        let thought =
            if thought_tokens.is_nan() { String::new() } else { format!("{thought_tokens:.1} tokens of thought, ") };
        writeln!(out, "{thought}{:.1} % cut off{lenient}", 100.0 * truncated)?;
        let completions = *items as f64 * (1.0 + sampled.as_ref().map_or(0.0, |sampled| sampled.k as f64));
        core_s.map_or(Ok(()), |core_s| writeln!(out, "{:.2} core-seconds a completion", core_s / completions))
    }
}

fn accuracy(arguments: &Eval, asked: &Asked) -> Result<()> {
    let (task, eval) = (&*asked.task, &asked.eval);
    let items = held_out_items(task, eval.level, eval.items as usize);
    let record = arguments.record.as_deref().map(|name| record::Record::open(name, asked)).transpose()?;
    let watched = io::stderr().is_terminal();
    let heed = |done: usize| {
        if watched {
            eprint!("\r{done} of {} problems", items.len());
        }
        true
    };
    let measured = match endpoint::remote(&arguments.model)? {
        Some(remote) => {
            endpoint::evaluate(arguments, asked, &remote, &items, heed).map(|evaluation| (evaluation, None))
        }
        None => here(arguments, asked, &items, heed),
    };
    if watched {
        eprint!("\r\x1b[K");
    }
    let (evaluation, core_s) = measured?;
    let measured = Measured { evaluation: evaluation.context("nothing was evaluated")?, core_s };
    if let Some(record) = record {
        record.keep(&measured)?;
    }
    print(&measured, arguments.json)
}

/// Results of a model that runs here, and the seconds of cores' time that its completions took.
fn here(
    arguments: &Eval,
    asked: &Asked,
    items: &[Item],
    heed: impl FnMut(usize) -> bool,
) -> Result<(Option<Evaluation>, Option<f64>)> {
    let Asked { settings, dtype, eval, seed, .. } = asked;
    let task = &*asked.task;
    let cpu = load::cpu()?;
    let checkpoint = load::open(&arguments.model)?;
    let format = Format::new(checkpoint.tokenizer()?, checkpoint.chat_template()?, settings.clone())?;
    let transformer = load::transformer(&cpu, &checkpoint, *dtype)?;
    let speculation = Speculation::load(&arguments.speculate.speculate, &cpu, *dtype)?;
    let speculation = speculation.fitted(&cpu, &checkpoint, *dtype, format.tokenizer())?;
    // A problem that the model can't read would only be found out after the others.
    let longest = items.iter().map(|item| format.prompt(task, item).map(|prompt| prompt.len()));
    let longest = longest.collect::<minke_model::Result<Vec<usize>>>()?.into_iter().max().unwrap_or(0);
    let room = transformer.context().saturating_sub(longest);
    if room == 0 {
        bail!(
            "the model can run {} tokens, and a problem has {longest}; give a lower --level or fewer --shots",
            transformer.context()
        );
    }
    let limit = room.min(eval.max_new_tokens as usize);
    let drawing = Drawing { seed: *seed, temperature: eval.temperature, limit };
    let mut answers = arguments.answers.as_deref().map(|path| Answers::create(path, task, &format)).transpose()?;
    let keep = |rollouts: &[Rollout]| answers.as_mut().map_or(Ok(()), |answers| answers.write(rollouts));
    let mut generator = Generator::new(task, &format);
    let pages = Limits::within(1 << 30, transformer.kv_layout()).pages;
    generator.guess(speculation.drafter(&cpu, &transformer, pages), speculation.predictor());
    let begin = core_seconds();
    let evaluation = generator.evaluate(&cpu, &transformer, items, eval.samples, drawing, heed, keep)?;
    Ok((evaluation, core_seconds().zip(begin).map(|(end, begin)| end - begin)))
}

#[derive(Serialize)]
struct Perplexity {
    /// Tokens of the text, the first, which is not predicted, among them.
    tokens: usize,
    /// Mean of -log p.
    nll: f64,
    perplexity: f64,
}

impl Show for Perplexity {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "perplexity {:.4} (nll {:.6}, {} tokens)", self.perplexity, self.nll, self.tokens)
    }
}

fn perplexity(arguments: &Eval, path: &Path) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("{} can't be read as text", path.display()))?;
    let cpu = load::cpu()?;
    let checkpoint = load::open(&arguments.model)?;
    let tokens = checkpoint.tokenizer()?.encode(&text, true)?;
    let Some((_, targets)) = tokens.split_first().filter(|(_, targets)| !targets.is_empty()) else {
        bail!("{} is shorter than two tokens, so there is nothing to predict", path.display());
    };
    let transformer = load::transformer(&cpu, &checkpoint, arguments.dtype.unwrap_or(DtypeArgument::Stored).into())?;
    check_tokens(&tokens, checkpoint.config(), transformer.context())?;
    let mut sum = 0.0;
    load::run_through(&cpu, &transformer, &tokens[..targets.len()], |first, hidden| {
        let mut out = vec![LogProb::default(); hidden.rows()];
        log_prob(&cpu, transformer.head(), hidden, &targets[first..first + hidden.rows()], 1.0, &mut out);
        sum -= out.iter().map(|p| f64::from(p.log_prob)).sum::<f64>();
        Ok(())
    })?;
    let nll = sum / targets.len() as f64;
    print(&Perplexity { tokens: tokens.len(), nll, perplexity: exp(nll) }, arguments.json)
}

#[cfg(test)]
mod tests {
    use super::digits;

    #[test]
    fn digits_are_one_number_or_two() {
        for (text, expected) in [("1", Some(1..=1)), ("1-2", Some(1..=2)), ("2-4", Some(2..=4))] {
            assert_eq!(digits(text).ok(), expected);
        }
        for text in ["", "0", "5", "2-1", "1-", "-1", "1-2-3", "a", "1–2"] {
            assert!(digits(text).is_err(), "{text}");
        }
    }
}
