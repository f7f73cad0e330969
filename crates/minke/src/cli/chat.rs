//! `minke chat`: one prompt or a conversation; thoughts stream dimmed, answers plain.

use std::io::{self, IsTerminal, Read, Write};
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use crossterm::style::Attribute;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::{KvArgument, ModelArguments, SpeculateArguments};
use crate::output::{Show, print};
use crate::session::{Reply, Session, Settings};
use crate::speculate::Speculation;
use crate::talker::Talker;
use crate::think::{CLOSE, OPEN, Part};
use crate::{interrupt, load, terminal};

/// Longest prompt that is read from a pipe, in bytes.
const LONGEST_PROMPT: u64 = 64 << 20;

#[derive(Args)]
#[command(after_help = "Examples:
  minke chat smollm2                            a conversation, line by line
  minke chat smollm2 \"Why is the sea salty?\"    one question
  cat letter.txt | minke chat smollm2           a prompt from a pipe
  minke chat runs/sums 37+85+46=                a model trained on sums thinks aloud
  minke chat llama-8b --speculate llama-1b      a smaller model of the same family guesses for it
  minke chat deepseek-v3 --speculate mtp        its own block for multi-token prediction guesses

Without a terminal a thought is printed between <think> and </think>.")]
pub struct Chat {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    kv: KvArgument,
    #[command(flatten)]
    speculate: SpeculateArguments,
    /// What to say; otherwise it is read from a pipe, or line by line
    prompt: Option<String>,
    /// Whether it may think before it answers
    #[arg(long, value_name = "on|off", default_value = "on", hide_possible_values = true)]
    think: Switch,
    /// Most tokens of a thought; it is closed then
    #[arg(long, value_name = "TOKENS", allow_negative_numbers = true)]
    budget: Option<usize>,
    /// Which random numbers; the same seed gives the same reply
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true)]
    seed: u64,
    /// How freely tokens are drawn, 0 for the likeliest; by default 0.6 with a chat template, 0 without
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Draw from the likeliest tokens that have this probability together
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Most tokens of a reply, its thought included
    #[arg(long, value_name = "N", default_value_t = 4096, allow_negative_numbers = true)]
    max_tokens: usize,
    /// Say on stderr how long it took until a prompt could be read
    #[arg(long)]
    timings: bool,
    /// Print each reply as a JSON object, once it is complete
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Switch {
    On,
    Off,
}

pub fn run(arguments: &Chat) -> Result<()> {
    let start = Instant::now();
    let checkpoint = load::open(&arguments.model.model)?;
    let (precision, cpu) = (arguments.model.dtype.into(), Arc::new(load::cpu()?));
    let mut model = Talker::load(&checkpoint, precision, || Ok(Arc::clone(&cpu)))?.with_kv(arguments.kv.kv);
    let speculation = Speculation::load(&arguments.speculate.speculate, &cpu, precision)?;
    model.guess(&checkpoint, precision, &speculation)?;
    if arguments.think == Switch::Off && !model.can_think() {
        terminal::say("minke: this model has no <think> and </think>: there are no thoughts to turn off");
    }
    let settings = Settings {
        think: arguments.think == Switch::On,
        budget: arguments.budget,
        temperature: arguments.temperature.unwrap_or(model.default_temperature()),
        top_p: arguments.top_p,
        seed: arguments.seed,
        max_tokens: arguments.max_tokens,
    };
    // The process ends with this command, and the system takes memory back at once, not token by token.
    let model = ManuallyDrop::new(model);
    let mut session = Session::new(&model, settings)?;
    if arguments.timings {
        terminal::say(&format!("minke: ready after {:.0} ms", start.elapsed().as_secs_f64() * 1e3));
    }
    match &arguments.prompt {
        Some(prompt) => once(&mut session, prompt, arguments.json),
        None if io::stdin().is_terminal() => converse(&mut session, arguments.json),
        None => once(&mut session, &from_pipe()?, arguments.json),
    }
}

/// The whole of stdin, without the line's end that most programs put last.
fn from_pipe() -> Result<String> {
    let mut bytes = Vec::new();
    io::stdin().lock().take(LONGEST_PROMPT + 1).read_to_end(&mut bytes).context("stdin can't be read")?;
    if bytes.len() as u64 > LONGEST_PROMPT {
        bail!("the prompt on stdin has more than {} MiB; give a shorter one", LONGEST_PROMPT >> 20);
    }
    let text = String::from_utf8(bytes).context("the prompt on stdin is not UTF-8 text")?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    if text.is_empty() {
        bail!("there is no prompt: stdin was empty; give one as an argument or through a pipe");
    }
    Ok(text.to_string())
}

fn once(session: &mut Session<'_>, prompt: &str, json: bool) -> Result<()> {
    let stop = interrupt::flag()?;
    let reply = say(session, prompt, &stop, json)?;
    if reply.end == "cancelled" {
        bail!("stopped by Ctrl-C after {} tokens", reply.tokens);
    }
    Ok(())
}

fn converse(session: &mut Session<'_>, json: bool) -> Result<()> {
    let stop = interrupt::flag()?;
    let mut editor = DefaultEditor::new().context("the terminal can't be read line by line; pipe a prompt instead")?;
    terminal::say(&dimmed("Ctrl-C stops a reply, Ctrl-D ends."));
    loop {
        let line = match editor.readline("> ") {
            Ok(line) => line,
            Err(ReadlineError::Eof) => return Ok(()),
            Err(ReadlineError::Interrupted) => continue,
            Err(error) => return Err(error).context("the terminal can't be read"),
        };
        if line.trim().is_empty() {
            continue;
        }
        // Without a memory between sessions there is nothing that could fail here.
        let _ = editor.add_history_entry(&line);
        stop.store(false, Ordering::Relaxed);
        match say(session, &line, &stop, json) {
            Ok(_) => {}
            Err(error) if error.is::<io::Error>() => return Err(error),
            Err(error) => {
                terminal::say(&format!("minke: {error:#}"));
                if session.is_under_way() {
                    session.start_anew();
                    terminal::say("minke: the conversation starts anew with your next line");
                }
            }
        }
    }
}

impl Show for Reply {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", self.answer)
    }
}

/// Says something, and shows the reply.
fn say(session: &mut Session<'_>, text: &str, stop: &AtomicBool, json: bool) -> Result<Reply> {
    if json {
        let reply = session.say(text, stop, |_, _| Ok(()))?;
        print(&reply, true)?;
        return Ok(reply);
    }
    let mut page = Page::new();
    let reply = session.say(text, stop, |part, text| Ok(page.write(part, text)?));
    page.finish()?;
    let reply = reply?;
    if io::stderr().is_terminal() {
        terminal::say(&dimmed(&summary(&reply)));
    }
    Ok(reply)
}

/// One line about a reply.
fn summary(reply: &Reply) -> String {
    let Reply { tokens, thought_tokens, tokens_per_second, .. } = reply;
    let mut line = format!("{tokens} tokens, {tokens_per_second:.1} tok/s");
    if *thought_tokens > 0 {
        line += &format!(", thought for {thought_tokens}");
    }
    line + match reply.end {
        "limit" => "; cut off at its limit, --max-tokens allows more",
        "context" => "; cut off, since the model can't run longer texts",
        "cancelled" => "; stopped",
        _ => "",
    }
}

/// Where a reply is written as it comes.
pub struct Page {
    /// Whether the thought can be dimmed; otherwise it stands between its tags.
    styled: bool,
    /// Whether what is shown must not reach the terminal's controls.
    terminal: bool,
    part: Option<Part>,
    /// Whether the thought takes several lines.
    tall: bool,
    ends_line: bool,
}

impl Page {
    /// Stdout.
    pub fn new() -> Page {
        let stdout = io::stdout();
        let (styled, terminal) = (terminal::is_styled(&stdout), stdout.is_terminal());
        Page { styled, terminal, part: None, tall: false, ends_line: true }
    }

    /// Writes the next piece.
    pub fn write(&mut self, part: Part, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.part != Some(part) {
            self.turn(&mut out, Some(part))?;
        }
        self.tall |= part == Part::Thought && text.contains('\n');
        self.ends_line = text.ends_with('\n');
        let text = if self.terminal { terminal::printable(text) } else { text.into() };
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// Leaves the thought, or enters it.
    fn turn(&mut self, out: &mut impl Write, to: Option<Part>) -> io::Result<()> {
        if self.part == Some(Part::Thought) {
            let tall = if self.tall { "\n" } else { "" };
            match self.styled {
                true => write!(out, "{}\n{tall}", Attribute::Reset)?,
                false => write!(out, "{tall}{CLOSE}\n{tall}")?,
            }
        }
        if to == Some(Part::Thought) {
            match self.styled {
                true => write!(out, "{}", Attribute::Dim)?,
                false => write!(out, "{OPEN}")?,
            }
        }
        self.part = to;
        Ok(())
    }

    /// Ends the reply, whatever state it was in.
    pub fn finish(&mut self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match self.part {
            Some(Part::Thought) => self.turn(&mut out, None)?,
            _ if self.ends_line => {}
            _ => writeln!(out)?,
        }
        out.flush()
    }
}

fn dimmed(text: &str) -> String {
    if terminal::is_styled(&io::stderr()) { terminal::dim(text) } else { text.to_string() }
}
