//! `minke arena battle`: two models answer the same prompts in the terminal, and a person or a task's verifier votes.

use std::fs;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use clap::Args;
use clap::builder::PossibleValuesParser;
use minke_arena::pairing::next_pair;
use minke_arena::{Outcome, VoteLog};
use minke_train::tasks::{Item, Task, built_in, built_in_names};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use serde::Serialize;

use super::contestant::{Asking, Contestant, Said};
use super::writable_log;
use crate::cli::chat::Page;
use crate::output::{Show, print};
use crate::store::Store;
use crate::units::hexadecimal;
use crate::{interrupt, load, terminal};

/// Environment variables with the keys of endpoints.
const KEYS: [&str; 2] = ["MINKE_KEY_A", "MINKE_KEY_B"];

#[derive(Args)]
#[command(after_help = "Examples:
  minke arena battle                              two models of the store, those whose ratings are least certain
  minke arena battle \"Why is the sea salty?\" --a smollm2 --b r7
  minke arena battle --a sums --b https://api.example.org/v1#other    its key in MINKE_KEY_B
  minke arena battle --a r7 --b r8 --prompts sums.txt --judge chain_sum

The two are shown as A and B in an order drawn anew for every prompt, and named when you have voted: a or b for the better
one, t for a tie, x where both are bad, and Enter for no vote. With --judge the prompts are problems of that task, one a
line, and its verifier votes; such votes have a board of their own, `minke arena board --judged`.")]
pub struct Battle {
    /// What to ask; otherwise prompts are read from --prompts, or line by line
    prompt: Option<String>,
    /// One model: a path, a name in the store, or URL#MODEL of an OpenAI-compatible endpoint
    #[arg(long, value_name = "MODEL", requires = "b")]
    a: Option<String>,
    /// The other
    #[arg(long, value_name = "MODEL", requires = "a")]
    b: Option<String>,
    /// Prompts, one a line
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    prompts: Option<PathBuf>,
    /// Let a task's verifier vote
    #[arg(long, value_name = "TASK", value_parser = PossibleValuesParser::new(built_in_names()), requires = "a")]
    judge: Option<String>,
    /// Who votes
    #[arg(long, value_name = "NAME", conflicts_with = "judge")]
    voter: Option<String>,
    /// How freely tokens are drawn, 0 for the likeliest; by default each model's own choice
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
    /// Most tokens of a reply, its thought included
    #[arg(long, value_name = "N", default_value_t = 4096)]
    max_tokens: usize,
    /// How long an endpoint may take for a reply
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// Print a JSON object when both have answered, without names, and one when there is a vote
    #[arg(long)]
    json: bool,
}

/// Both replies before the vote.
#[derive(Serialize)]
struct Blind<'a> {
    battle: &'a str,
    prompt: &'a str,
    a: &'a Said,
    b: &'a Said,
}

/// What is printed of a vote.
#[derive(Serialize)]
struct Voted<'a> {
    battle: &'a str,
    prompt: &'a str,
    a: Named<'a>,
    b: Named<'a>,
    /// None where there was no vote.
    winner: Option<Outcome>,
    reasoning: Option<Outcome>,
    judge: Option<&'a str>,
    /// What the judge has to say of each answer.
    verdicts: Option<[String; 2]>,
}

#[derive(Serialize)]
struct Named<'a> {
    model: &'a str,
    #[serde(flatten)]
    said: &'a Said,
}

impl Show for Blind<'_> {
    fn show(&self, _: &mut dyn Write) -> io::Result<()> {
        // People have seen both as they came.
        Ok(())
    }
}

impl Show for Voted<'_> {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let (a, b) = (terminal::printable(self.a.model), terminal::printable(self.b.model));
        if let Some([left, right]) = &self.verdicts {
            let prompt = terminal::printable(self.prompt);
            return writeln!(out, "{prompt}  {a}: {}; {b}: {}", terminal::printable(left), terminal::printable(right));
        }
        let vote = if self.winner.is_some() { "" } else { " No vote was recorded." };
        writeln!(out, "A was {a}, B was {b}.{vote}\n")
    }
}

pub fn run(arguments: &Battle) -> Result<()> {
    let mut log = writable_log()?;
    let judge = arguments.judge.as_deref().and_then(built_in);
    let prompts = arguments.prompts.as_ref().map(|path| {
        let text = fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))?;
        let prompts: Vec<String> = text.lines().filter(|line| !line.trim().is_empty()).map(str::to_string).collect();
        if prompts.is_empty() { bail!("{} has no prompts; put one on each line", path.display()) } else { Ok(prompts) }
    });
    let given = prompts.transpose()?.or_else(|| arguments.prompt.clone().map(|prompt| vec![prompt]));
    if let Some(task) = &judge {
        let Some(prompts) = &given else {
            bail!("--judge needs problems to judge; give them with --prompts, one a line")
        };
        prompts.iter().try_for_each(|prompt| read(&**task, prompt).map(drop))?;
    }
    let (a, b) = pair(arguments, &log)?;
    let (cpu, patience) = (Arc::new(load::cpu()?), Duration::from_secs(arguments.timeout));
    let open = |reference: &str, key| Contestant::open(reference, key, patience, &cpu);
    let contestants = [open(&a, KEYS[0])?, open(&b, KEYS[1])?];
    if contestants[0].name == contestants[1].name {
        bail!("{} can't meet itself; give --a and --b different models", contestants[0].name);
    }
    let mut ring = Ring { arguments, contestants, stop: interrupt::flag()?, lines: Lines::new()? };
    match given {
        Some(prompts) => prompts.iter().try_for_each(|prompt| ring.battle(prompt, judge.as_deref(), &mut log)),
        None => {
            while let Some(prompt) = ring.lines.read("Ask both> ")? {
                if !prompt.trim().is_empty() {
                    ring.battle(&prompt, None, &mut log)?;
                }
            }
            Ok(())
        }
    }
}

/// The two that are named, or those of the store that should meet next.
fn pair(arguments: &Battle, log: &VoteLog) -> Result<(String, String)> {
    if let (Some(a), Some(b)) = (&arguments.a, &arguments.b) {
        return Ok((a.clone(), b.clone()));
    }
    let names: Vec<String> = Store::open()?.all()?.into_iter().map(|entry| entry.name).collect();
    let votes: Vec<minke_arena::Vote> = log.votes().iter().filter(|vote| vote.judge.is_none()).cloned().collect();
    next_pair(&names, &votes, random()?)
        .map_err(|error| anyhow::anyhow!("{error}; name two with --a and --b, or bring more with `minke pull`"))
}

fn read(task: &dyn Task, prompt: &str) -> Result<Item> {
    task.read(prompt).with_context(|| format!("{prompt:?} is no problem of {}; take the line out", task.name()))
}

/// Where battles are fought.
struct Ring<'a> {
    arguments: &'a Battle,
    contestants: [Contestant; 2],
    stop: Arc<AtomicBool>,
    lines: Lines,
}

impl Ring<'_> {
    fn battle(&mut self, prompt: &str, judge: Option<&dyn Task>, log: &mut VoteLog) -> Result<()> {
        let seed = random()?;
        let id = hexadecimal(&seed.to_be_bytes());
        if seed % 2 == 1 {
            self.contestants.swap(0, 1);
        }
        let shown = judge.is_none() && !self.arguments.json;
        let unspoken = "no vote was recorded for this prompt";
        let a = self.reply(0, prompt, seed, shown).context(unspoken)?;
        let b = self.reply(1, prompt, seed, shown).context(unspoken)?;
        let (mut verdicts, mut reasoning) = (None, None);
        let winner = if let Some(task) = judge {
            let item = read(task, prompt)?;
            let checked = [&a, &b].map(|said| task.check(&item, &said.answer));
            verdicts = Some(checked.clone().map(|verdict| verdict.err().unwrap_or_else(|| "right".into())));
            Some(match checked.map(|verdict| verdict.is_ok()) {
                [true, false] => Outcome::Left,
                [false, true] => Outcome::Right,
                [true, true] => Outcome::Tie,
                [false, false] => Outcome::BothBad,
            })
        } else {
            print(&Blind { battle: &id, prompt, a: &a, b: &b }, self.arguments.json)?;
            let winner = self.lines.vote("Which answer is better? [a, b, t, x] ")?;
            if winner.is_some() && !(a.thought.is_empty() && b.thought.is_empty()) {
                reasoning = self.lines.vote("Whose thoughts are better? [a, b, t, x] ")?;
            }
            winner
        };
        let [left, right] = [0, 1].map(|side| self.contestants[side].name.as_str());
        if let Some(winner) = winner {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            log.append(&minke_arena::Vote {
                reasoning,
                voter: self.arguments.voter.clone(),
                ms: now.ok().and_then(|now| u64::try_from(now.as_millis()).ok()),
                battle: Some(id.clone()),
                judge: self.arguments.judge.clone(),
                ..minke_arena::Vote::new(left, right, winner)
            })?;
        }
        let (a, b) = (Named { model: left, said: &a }, Named { model: right, said: &b });
        let judge = self.arguments.judge.as_deref();
        print(&Voted { battle: &id, prompt, a, b, winner, reasoning, judge, verdicts }, self.arguments.json)
    }

    /// One side's reply, written as it comes if it is to be shown.
    fn reply(&self, side: usize, prompt: &str, seed: u64, shown: bool) -> Result<Said> {
        let Battle { max_tokens, temperature, .. } = *self.arguments;
        let asking = Asking { seed, max_tokens, temperature };
        self.stop.store(false, Ordering::Relaxed);
        if !shown {
            return self.contestants[side].ask(prompt, asking, &self.stop, |_, _| Ok(()));
        }
        writeln!(io::stdout(), "{}:", ["A", "B"][side])?;
        let mut page = Page::new();
        let said = self.contestants[side].ask(prompt, asking, &self.stop, |part, text| Ok(page.write(part, text)?));
        page.finish()?;
        writeln!(io::stdout())?;
        said
    }
}

/// Lines that somebody types, or that come through a pipe.
struct Lines(Option<DefaultEditor>);

impl Lines {
    fn new() -> Result<Lines> {
        let editor = io::stdin().is_terminal().then(DefaultEditor::new).transpose();
        Ok(Lines(editor.context("the terminal can't be read line by line; pipe lines instead")?))
    }

    /// The next line; none at the end.
    fn read(&mut self, question: &str) -> Result<Option<String>> {
        if let Some(editor) = &mut self.0 {
            return match editor.readline(question) {
                Ok(line) => Ok(Some(line)),
                Err(ReadlineError::Eof | ReadlineError::Interrupted) => Ok(None),
                Err(error) => Err(error).context("the terminal can't be read"),
            };
        }
        let mut line = String::new();
        let read = io::stdin().lock().read_line(&mut line).context("stdin can't be read")?;
        Ok((read > 0).then(|| line.trim_end_matches(['\n', '\r']).to_string()))
    }

    /// Asks until there is a vote; none for an empty line, and at the end.
    fn vote(&mut self, question: &str) -> Result<Option<Outcome>> {
        while let Some(line) = self.read(question)? {
            return Ok(Some(match line.trim() {
                "a" => Outcome::Left,
                "b" => Outcome::Right,
                "t" => Outcome::Tie,
                "x" => Outcome::BothBad,
                "" => return Ok(None),
                _ => {
                    terminal::say("a or b for the better one, t for a tie, x where both are bad, Enter for no vote");
                    continue;
                }
            }));
        }
        Ok(None)
    }
}

fn random() -> Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("the system gives no random numbers ({error})"))?;
    Ok(u64::from_le_bytes(bytes))
}
