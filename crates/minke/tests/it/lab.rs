//! The lab from its command line: an idea becomes a run, and the run a model; repeats are pointed out; chips change hands.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Place, repository};

/// A lab; it ends with the test.
pub struct Lab {
    place: Place,
    chips: String,
    server: Child,
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Lab {
    pub fn with_chips(chips: usize) -> Lab {
        let (place, chips) = (Place::new(), chips.to_string());
        place.copy(&repository().join("recipes/tiny.toml"), "code/tiny.toml");
        let mut lab = Lab { server: Lab::serve(&place, &chips), place, chips };
        lab.wait_for_door();
        lab
    }

    fn serve(place: &Place, chips: &str) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_minke"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--chips", chips, "--person", "ada"]);
        command.env("MINKE_HOME", place.path("home")).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    }

    fn wait_for_door(&mut self) {
        let begin = Instant::now();
        while !self.place.path("home/server.json").exists() {
            assert!(self.server.try_wait().unwrap().is_none() && begin.elapsed() < Duration::from_secs(30));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The server is killed, and another takes its place.
    pub fn restart(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
        std::fs::remove_file(self.place.path("home/server.json")).unwrap();
        self.server = Lab::serve(&self.place, &self.chips);
        self.wait_for_door();
    }

    /// Where a run keeps its own files.
    pub fn files(&self, run: u64) -> PathBuf {
        self.place.path(&format!("home/runs/r{run}/files"))
    }

    fn command(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_minke"));
        command.args(words).env("MINKE_HOME", self.place.path("home")).current_dir(self.place.path("code"));
        command.stdin(Stdio::null()).output().unwrap()
    }

    pub fn run(&self, words: &[&str]) -> String {
        let output = self.command(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.run(words)).unwrap()
    }

    /// Waits until a run is in a state, and gives what is said of it.
    fn wait(&self, run: u64, state: &str) -> Value {
        let begin = Instant::now();
        loop {
            let told = self.json(&["run", &run.to_string(), "--json"]);
            if told["state"] == state {
                return told;
            }
            assert!(begin.elapsed() < Duration::from_secs(90), "not {state}: {told:#}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn an_idea_becomes_a_run_and_the_run_a_model() {
    let lab = Lab::with_chips(1);
    let tried = lab.json(&["try", "tiny thoughts help tiny sums", "--json", "--", "minke", "train", "tiny.toml"]);
    assert_eq!((tried["idea"].as_u64(), tried["run"].as_u64()), (Some(1), Some(1)));
    let told = lab.wait(1, "done");
    assert_eq!(told["progress"][0], told["progress"][1], "{told:#}");
    assert!(told["decisions"].as_array().is_some_and(|decisions| decisions.len() >= 2), "{told:#}");
    assert!(lab.run(&["why", "1"]).contains("its command came to its end"));
    assert!(lab.run(&["logs", "1"]).contains("Talk to the model: minke chat r1 "));
    assert!(lab.run(&["chat", "r1", "1+2=", "--max-tokens", "4", "--json"]).contains("\"answer\""));
    // Nobody runs the same again without knowing.
    let again = ["try", "do tiny thoughts help with tiny sums?", "--", "minke", "train", "tiny.toml"];
    let refused = lab.command(&again);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("ada started “tiny thoughts help tiny sums”") && said.contains("the very same code"),
        "{said}"
    );
    let on = [&["try", "do tiny thoughts help with tiny sums?", "--repeat", "go-on", "--json"], &again[2..]].concat();
    assert_eq!(lab.json(&on)["run"].as_u64(), Some(2));
    lab.wait(2, "done");
    let ideas = lab.json(&["ideas", "--json"]);
    assert_eq!(ideas.as_array().map(Vec::len), Some(2));
    assert_eq!(lab.json(&["inbox", "--json"]), serde_json::json!([]));
    let report = lab.json(&["lab", "report", "--json"]);
    assert_eq!((report["runs"].as_u64(), report["done"].as_u64()), (Some(2), Some(2)), "{report}");
    assert!(report["repeats_shown"].as_u64() >= Some(1) && report["chip_h"].as_f64() > Some(0.0), "{report}");
    let report = lab.run(&["lab", "report"]);
    assert!(
        report.starts_with("people: 1, ideas: 2, runs: 2\n") && report.contains("from idea to first step"),
        "{report}"
    );
}

/// The policy on a day that is known, beside another: the new idea need not wait for the long run.
#[test]
fn a_day_is_played() {
    let place = Place::new();
    place.write("day.csv", "submit_s,duration_s,chips,person\n0,40000,2,ada\n9000,600,1,ben\n");
    let day = ["lab", "simulate", "--trace", "day.csv", "--chips", "2"];
    let minke = place.json(&[&day[..], &["--svg", "day.svg"]].concat());
    assert_eq!((minke["policy"].as_str(), minke["wait_max_s"].as_f64()), (Some("minke"), Some(0.0)));
    assert!(String::from_utf8(place.read("day.svg")).unwrap().contains(">ada</text>"));
    let fifo = place.json(&[&day[..], &["--policy", "fifo"]].concat());
    assert_eq!((fifo["policy"].as_str(), fifo["wait_max_s"].as_f64()), (Some("fifo"), Some(31_030.0)));
    let text = place.run(&day);
    assert!(text.contains("2 jobs of 2 people on 2 chips") && text.contains("times a job gave way"), "{text}");
}

#[test]
fn runs_outlive_the_server_and_are_stopped_when_somebody_says_so() {
    let mut lab = Lab::with_chips(1);
    let script = "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.1; done";
    let tried = lab.json(&["try", "counting", "--json", "--", "sh", "-c", script]);
    let run = tried["run"].as_u64().unwrap();
    lab.wait(run, "running");
    // One server is enough.
    let second = lab.command(&["serve", "--listen", "127.0.0.1:0"]);
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(second.status.code() == Some(1) && said.contains("another minke serves the lab"), "{said}");
    lab.restart();
    let told = lab.wait(run, "running");
    assert_eq!(told["decisions"].as_array().map(Vec::len), Some(1), "started once: {told:#}");
    let lines = || lab.run(&["logs", &run.to_string()]).lines().count();
    let (before, begin) = (lines(), Instant::now());
    while lines() <= before {
        assert!(begin.elapsed() < Duration::from_secs(20), "it does not go on");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(lab.run(&["stop", &run.to_string()]).contains("asked to save"));
    assert!(lab.wait(run, "stopped")["why"].as_str().is_some_and(|why| why.starts_with("Stopped")));
    let refused = lab.command(&["stop", &run.to_string()]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is over already"));
    lab.run(&["park", "1"]);
    assert!(lab.run(&["ideas"]).contains("parked"));
    lab.run(&["park", "1", "--resume"]);
    assert!(lab.run(&["idea", "1"]).contains("(answered)"));
    lab.run(&["leave", "1"]);
    for words in [
        &["leave", "1"][..],
        &["park", "1"],
        &["withdraw", "9"],
        &["why", "9"],
        &["idea", "9"],
        &["join", "9"],
        &["accept", "9"],
        &["invite", "1", "nobody"],
    ] {
        let output = lab.command(words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{words:?}: {said}");
        assert!(said.starts_with("minke: ") && said.lines().count() == 1, "{words:?}: {said}");
    }
}
