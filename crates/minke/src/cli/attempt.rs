//! `minke try`: an idea becomes a run.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use minke_lab::Choice;
use minke_lab::tree::BYTES_MAX;
use serde::Serialize;

use crate::client::Client;
use crate::output::{Show, print};
use crate::terminal::{printable, say};
use crate::told::{Alike, Attempt, CodeFile, Tried};

#[derive(Args)]
#[command(after_help = "Examples:
  minke try \"longer thoughts help sums\" -- minke train recipes/sums.toml
  minke try --chips 2 \"a wider network learns faster\" -- python train.py --width 512
  minke try --idea 7 -- minke train recipes/sums.toml --seed 2       another run for idea 7

The directory that you are in (what git would keep of it) goes along with the run. If somebody has had the same idea, you
are shown it first. Nobody's approval is needed.")]
pub struct Try {
    /// The idea in one sentence
    #[arg(required_unless_present = "idea", conflicts_with = "idea")]
    sentence: Option<String>,
    /// Another run for an idea of yours
    #[arg(long, value_name = "N")]
    idea: Option<u32>,
    /// The idea that this one grew out of
    #[arg(long, value_name = "N")]
    parent: Option<u32>,
    /// How many chips it runs on
    #[arg(long, value_name = "N", default_value_t = 1)]
    chips: u32,
    /// The directory that goes along, if not this one
    #[arg(long, value_name = "DIRECTORY")]
    code: Option<PathBuf>,
    /// What to do about a repeat, without being asked
    #[arg(long, value_name = "go-on|join|watch|split", value_parser = choice)]
    repeat: Option<Choice>,
    /// Print the idea's and the run's numbers as a JSON object
    #[arg(long)]
    json: bool,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

fn choice(text: &str) -> Result<Choice, String> {
    match text {
        "go-on" => Ok(Choice::GoOn),
        "join" => Ok(Choice::Join),
        "watch" => Ok(Choice::Watch),
        "split" => Ok(Choice::Split),
        _ => Err("it can be go-on, join, watch or split".into()),
    }
}

pub fn run(arguments: &Try) -> Result<()> {
    let files = collect(arguments.code.as_deref().unwrap_or(Path::new(".")))?;
    let client = Client::connect()?;
    let mut attempt = Attempt {
        sentence: arguments.sentence.clone(),
        idea: arguments.idea,
        parent: arguments.parent,
        command: arguments.command.clone(),
        chips: arguments.chips,
        files,
        code_of: None,
        advice: None,
    };
    let mut tried: Tried = client.post("/api/try", &attempt)?;
    if let Tried::Repeats { advice, repeats } = &tried {
        let (advice, choice) = (*advice, decide(arguments.repeat, repeats)?);
        if matches!(choice, Choice::Join | Choice::Watch) {
            return instead(&client, advice, choice, &repeats[0], arguments.json);
        }
        attempt.advice = Some((advice, choice));
        tried = client.post("/api/try", &attempt)?;
    }
    let Tried::Run { idea, run } = tried else { bail!("the lab shows the same repeats again; try once more") };
    print(&Begun { idea, run, address: client.address().to_string() }, arguments.json)
}

/// Shows what there is, and asks what to do about it.
fn decide(said: Option<Choice>, repeats: &[Alike]) -> Result<Choice> {
    for alike in repeats {
        say(&printable(&alike.sentence));
    }
    if let Some(choice) = said {
        return Ok(choice);
    }
    if !io::stdin().is_terminal() {
        bail!("nothing was run; say --repeat go-on, join, watch or split");
    }
    loop {
        say("[j]oin it, [w]atch it, [s]plit the question, or [g]o on?");
        let mut line = String::new();
        if io::stdin().lock().read_line(&mut line)? == 0 {
            bail!("nothing was run");
        }
        match line.trim().to_lowercase().chars().next() {
            Some('j') => return Ok(Choice::Join),
            Some('w') => return Ok(Choice::Watch),
            Some('s') => return Ok(Choice::Split),
            Some('g') => return Ok(Choice::GoOn),
            _ => {}
        }
    }
}

/// Joins or watches what is there, instead of running it again.
fn instead(client: &Client, advice: u32, choice: Choice, first: &Alike, json: bool) -> Result<()> {
    let idea = first.repeat.idea.0;
    let _: serde_json::Value =
        client.post(&format!("/api/advice/{advice}"), &serde_json::json!({ "choice": choice }))?;
    if choice == Choice::Join {
        let body = serde_json::json!({ "kind": "join" });
        let _: serde_json::Value = client.post(&format!("/api/ideas/{idea}/ask"), &body)?;
    }
    print(&Instead { idea, run: first.repeat.run.map(|run| run.0), joined: choice == Choice::Join }, json)
}

#[derive(Serialize)]
struct Begun {
    idea: u32,
    run: u32,
    #[serde(skip)]
    address: String,
}

impl Show for Begun {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let Begun { idea, run, address } = self;
        writeln!(out, "idea {idea}, run {run}: {address}/runs/{run}")?;
        writeln!(out, "watch it with `minke logs {run} -f`; `minke why {run}` says what is the matter with it")
    }
}

#[derive(Serialize)]
struct Instead {
    idea: u32,
    run: Option<u32>,
    joined: bool,
}

impl Show for Instead {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let Instead { idea, run, joined } = self;
        if *joined {
            return writeln!(out, "asked to join idea {idea}; `minke inbox` tells when they have answered");
        }
        match run {
            Some(run) => writeln!(out, "watch it with `minke logs {run} -f`"),
            None => writeln!(out, "`minke idea {idea}` shows it"),
        }
    }
}

/// The files of a directory that git would keep; without git, all that are not hidden.
fn collect(directory: &Path) -> Result<BTreeMap<String, CodeFile>> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .current_dir(directory)
        .output();
    let mut paths = Vec::new();
    match listed {
        Ok(output) if output.status.success() => {
            let names = output.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty());
            paths.extend(names.map(|name| PathBuf::from(String::from_utf8_lossy(name).into_owned())));
        }
        _ => walk(directory, Path::new(""), &mut paths).with_context(|| directory.display().to_string())?,
    }
    let (mut files, mut total) = (BTreeMap::new(), 0);
    for path in paths {
        let there = directory.join(&path);
        // What git knows of may have been removed, and links lead out of the tree.
        let Ok(about) = fs::symlink_metadata(&there) else { continue };
        if !about.is_file() {
            continue;
        }
        total += about.len();
        if total > BYTES_MAX as u64 {
            bail!(
                "the code in {} is more than {} MB; name a smaller directory with --code",
                directory.display(),
                BYTES_MAX >> 20
            );
        }
        let bytes = fs::read(&there).with_context(|| there.display().to_string())?;
        let (text, base64) = match String::from_utf8(bytes) {
            Ok(text) => (Some(text), None),
            Err(error) => (None, Some(STANDARD.encode(error.as_bytes()))),
        };
        let name = path.to_string_lossy().replace('\\', "/");
        files.insert(name, CodeFile { text, base64, executable: is_executable(&about) });
    }
    Ok(files)
}

fn walk(root: &Path, under: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(under))? {
        let entry = entry?;
        let path = under.join(entry.file_name());
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        match entry.file_type()? {
            kind if kind.is_dir() => walk(root, &path, paths)?,
            kind if kind.is_file() => paths.push(path),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(unix)]
fn is_executable(about: &fs::Metadata) -> bool {
    std::os::unix::fs::PermissionsExt::mode(&about.permissions()) & 0o100 != 0
}

#[cfg(not(unix))]
fn is_executable(_: &fs::Metadata) -> bool {
    false
}
