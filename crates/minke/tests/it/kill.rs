//! Runs that are killed at any moment, and go on: nothing is lost, and no bit is another.
#![cfg(unix)]

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};
use std::{fs, iter};

use minke_kernels::random::Random;
use serde_json::Value;

use crate::{Place, replaced, said, tiny};

/// Kills of a run before it may come to its end: `MINKE_KILLS`, a multiple of ten; runs are that much longer.
static KILLS: LazyLock<usize> = LazyLock::new(|| match std::env::var("MINKE_KILLS") {
    Ok(text) => {
        text.parse().ok().filter(|kills| *kills > 0 && kills % 10 == 0).expect("MINKE_KILLS: a multiple of ten")
    }
    Err(_) => 10,
});
/// The command that begins the run, and the one that goes on with it.
pub const BEGIN: [&str; 4] = ["train", "a.toml", "--out", "run"];
pub const RESUME: [&str; 3] = ["train", "run", "--resume"];

/// The smallest recipe, with more to do: long enough to be hit, with a checkpoint at every other moment.
fn recipe() -> String {
    let more = |steps: usize| steps * *KILLS / 10;
    let recipe = replaced(&tiny(), "steps = 6", &format!("steps = {}", more(40)));
    let rewarded = format!("steps = {}\nprompts = 8\nsamples = 8", more(32));
    let recipe = replaced(&recipe, "steps = 4\nprompts = 4\nsamples = 4", &rewarded);
    let recipe = replaced(&recipe, "items = 8\nsamples = 2", "items = 64\nsamples = 4");
    replaced(&recipe, "every = 2", "every = 3")
}

/// The same with all that a run may have to remember: what it wrote to learn from, and the model that it is held to.
fn remembering() -> String {
    let distil = "[[stage]]\nkind = \"distil\"\nteacher = \"self\"\nsteps = 6\nbatch = 4\nproblems = 64\nmax_new_tokens = 24\n\
                  level = [2, 3]\nlr = 1e-4\n\n";
    // It must know something, to have anything right to learn from.
    let short = format!("steps = {}\nbatch = 8", 4 * *KILLS);
    let recipe = replaced(&recipe(), &short, "steps = 300\nbatch = 16");
    let recipe = replaced(&recipe, "dtype = \"f32\"", "dtype = \"f32\"\nmoments = \"bf16\"");
    let recipe = replaced(&recipe, "[[stage]]\nkind = \"grpo\"", &format!("{distil}[[stage]]\nkind = \"grpo\""));
    replaced(
        &recipe,
        "loss = \"dr_grpo\"",
        "loss = \"cispo\"\nkl = 0.05\nrefills = 1\nupdates = 2\noptimizer = \"muon\"",
    )
}

/// What a run leaves that must be the same however it came about.
#[derive(PartialEq)]
pub struct Outcome {
    weights: Vec<u8>,
    metrics: String,
    /// Name and bytes of each file of rollouts.
    rollouts: Vec<(String, Vec<u8>)>,
}

impl Outcome {
    pub fn of(place: &Place) -> Outcome {
        let names = fs::read_dir(place.path("run/rollouts")).unwrap();
        let mut names: Vec<String> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        // A name that begins with a dot is what a kill left of a file.
        names.retain(|name| name.ends_with(".jsonl.gz") && !name.starts_with('.'));
        names.sort();
        let rollouts = names.into_iter().map(|name| (name.clone(), place.read(&format!("run/rollouts/{name}"))));
        let metrics = String::from_utf8(place.read("run/metrics.jsonl")).unwrap();
        Outcome {
            weights: place.read("run/model/model.safetensors"),
            metrics: metrics.lines().map(without_time).collect(),
            rollouts: rollouts.collect(),
        }
    }

    /// That the two are the same, saying where they are not.
    pub fn check(&self, expected: &Outcome, how: &str) {
        for (here, there) in self.metrics.lines().zip(expected.metrics.lines()) {
            assert_eq!(here, there, "{how}");
        }
        let names = |outcome: &Outcome| outcome.rollouts.iter().map(|(name, _)| name.clone()).collect::<Vec<String>>();
        assert_eq!(names(self), names(expected), "{how}");
        for ((name, here), (_, there)) in self.rollouts.iter().zip(&expected.rollouts) {
            assert!(here == there, "{how}: rollouts/{name} is another");
        }
        assert!(self.weights == expected.weights, "{how}: the weights are others");
        assert!(self == expected, "{how}");
    }
}

/// A line of metrics without the only thing in it that a clock decides.
fn without_time(line: &str) -> String {
    let mut metrics: Value = serde_json::from_str(line).unwrap();
    let time = metrics.as_object_mut().unwrap().shift_remove("wall_s");
    assert!(time.is_some_and(|time| time.as_f64() >= Some(0.0)), "{line}");
    format!("{metrics}\n")
}

/// A run that nobody interrupted.
struct Whole {
    recipe: String,
    outcome: Outcome,
    time: Duration,
}

static WHOLE: LazyLock<Whole> = LazyLock::new(|| Whole::of(recipe()));

impl Whole {
    fn of(recipe: String) -> Whole {
        let place = place(&recipe);
        let start = Instant::now();
        place.run(&BEGIN);
        let outcome = Outcome::of(&place);
        assert_eq!(outcome.rollouts.len(), 32 * *KILLS / 10);
        assert!(outcome.metrics.lines().count() >= 72 * *KILLS / 10);
        Whole { recipe, outcome, time: start.elapsed() }
    }
}

fn place(recipe: &str) -> Place {
    let place = Place::new();
    place.write("a.toml", recipe);
    place
}

/// Begins the run, or goes on with what there is of it.
fn start(place: &Place, threads: u32, control: bool) -> Child {
    let mut begin = BEGIN.to_vec();
    begin.extend(control.then_some("--control"));
    // As a person would tell after a crash: a run that has not come as far as to keep its recipe is begun again.
    let begun = place.path("run/recipe.toml").exists();
    let mut command = place.minke(if begun { &RESUME[..] } else { &begin[..] });
    command.env("MINKE_THREADS", threads.to_string());
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What is half written in a directory, and since when.
fn half_written(directory: &Path) -> Vec<(OsString, SystemTime)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let half = entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(".partial"));
    half.filter_map(|entry| Some((entry.file_name(), entry.metadata().ok()?.modified().ok()?))).collect()
}

/// Kills the run again and again, at moments that the seed decides, and then lets it come to its end.
fn killed(seed: u64, control: bool, whole: &Whole) -> Place {
    let kills = *KILLS;
    let place = place(&whole.recipe);
    let mut random = Random::new(seed, [0; 3]);
    let (mut landed, mut halves) = (0, 0);
    // On average half of this goes by until a kill, so that something is left for the end.
    let between = whole.time * if control { 2 } else { 1 } / 8 * 10 / kills as u32;
    for kill in 0..kills {
        // Some at any moment, the others in the middle of writing.
        let part = place.path(["run/checkpoints", "run/rollouts", "run"][kill % 3]);
        let before = half_written(&part);
        let is_writing = || half_written(&part).iter().any(|half| !before.contains(half));
        let mut child = start(&place, 1 + random.below(2), control);
        if kill % 5 != 4 {
            // Others than these find it at work already: it says so.
            let mut said = String::new();
            BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut said).unwrap();
            assert!(said.contains("kept in run"), "kill {kill}: {said}");
        }
        sleep(between.mul_f64(f64::from(random.below(1000)) / 1000.0));
        let begin = Instant::now();
        while kill % 3 < 2 && begin.elapsed() < between && !is_writing() && child.try_wait().unwrap().is_none() {
            sleep(Duration::from_micros(50));
        }
        landed += usize::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() || output.status.code().is_none(), "kill {kill}: {}", said(&output));
        halves += usize::from(is_writing());
    }
    eprintln!("seed {seed}: {landed} of {kills} kills landed, {halves} of them in the middle of writing");
    assert!(
        landed >= kills * 8 / 10 && halves > 0,
        "{landed} of {kills} kills found the run alive, {halves} found it writing"
    );
    let output = start(&place, 2, control).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    Outcome::of(&place).check(&whole.outcome, &format!("seed {seed}, {landed} kills"));
    for name in ["run/report.json", "run/report.md", "run/curves.svg"] {
        assert!(place.path(name).exists(), "{name}");
    }
    place
}

#[test]
fn kills_change_nothing() {
    killed(1, false, &WHOLE);
}

#[test]
fn kills_change_nothing_of_what_is_remembered() {
    killed(3, false, &Whole::of(remembering()));
}

#[test]
fn kills_change_nothing_where_a_control_follows() {
    let place = killed(2, true, &WHOLE);
    // How many steps it has is decided by the clock, but only once.
    let report: Value = serde_json::from_slice(&place.read("run/report.json")).unwrap();
    let metrics = String::from_utf8(place.read("run/control/metrics.jsonl")).unwrap();
    let steps = metrics.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["step"].as_u64().unwrap());
    assert!(steps.eq(1..=report["control"]["steps"].as_u64().unwrap()), "{metrics}");
}

#[test]
fn threads_change_nothing() {
    for threads in ["1", "2"] {
        let place = place(&WHOLE.recipe);
        crate::printed(place.minke(&BEGIN).env("MINKE_THREADS", threads));
        Outcome::of(&place).check(&WHOLE.outcome, &format!("{threads} threads"));
    }
}

/// Sends a signal to the run once it has taken some steps, and returns what it says.
fn signalled(place: &Place, signal: &str, steps: usize) -> Output {
    let mut child = start(place, 1, false);
    let taken = || fs::read_to_string(place.path("run/metrics.jsonl")).map_or(0, |text| text.lines().count());
    while taken() < steps {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it was stopped");
        sleep(Duration::from_millis(2));
    }
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    child.wait_with_output().unwrap()
}

#[test]
fn a_stopped_run_says_how_to_go_on() {
    let place = place(&WHOLE.recipe);
    for (signal, steps) in [("-TERM", 5), ("-INT", 48)] {
        let output = signalled(&place, signal, steps);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(75), "{said}");
        let last = said.lines().last().unwrap_or_default();
        let (stopped, rest) = last.split_once(", and saved; go on with `minke ").unwrap_or_else(|| panic!("{said}"));
        let step: usize = stopped.strip_prefix("minke: stopped after step ").unwrap().parse().unwrap();
        assert!((steps..72 * *KILLS / 10).contains(&step), "{said}");
        let command: Vec<&str> = rest.strip_suffix('`').unwrap().split(' ').collect();
        assert_eq!(command, RESUME);
        // Everything up to there was kept.
        let name = format!("run/checkpoints/{step:06}/state.json");
        assert!(place.path(&name).exists(), "{name}");
    }
    place.run(&RESUME);
    Outcome::of(&place).check(&WHOLE.outcome, "two signals");
}

/// The second of two signals that come at once ends the process, as it should, and still nothing is lost.
#[test]
fn an_impatient_end_is_no_worse_than_a_kill() {
    let place = place(&WHOLE.recipe);
    let mut child = start(&place, 1, false);
    let begin = Instant::now();
    while !place.path("run/checkpoints/000003").exists() {
        assert!(child.try_wait().unwrap().is_none() && begin.elapsed() < Duration::from_secs(60));
        sleep(Duration::from_millis(2));
    }
    for signal in iter::repeat_n("-INT", 2) {
        let _ = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        sleep(Duration::from_millis(1));
    }
    let output = child.wait_with_output().unwrap();
    assert!(matches!(output.status.code(), Some(75 | 130)), "{}: {}", output.status, said(&output));
    place.run(&RESUME);
    Outcome::of(&place).check(&WHOLE.outcome, "Ctrl-C twice");
}
