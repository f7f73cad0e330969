//! Models behind a chat API, which `distil` stages learn from and `minke eval` measures: what is asked, what is kept, and what is
//! said where it fails.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{Place, replaced, said, tiny};

const KEY: &str = "sesame-4711";

/// What a teacher does, and what it was asked.
#[derive(Default)]
struct Teacher {
    asked: Vec<Value>,
    /// Requests that it answers well; then it refuses.
    patience: usize,
    /// Requests that come to nothing first, by hanging up, or with a status that passes.
    failures: usize,
    /// When its patience is at an end it says nothing any more, rather than that it refuses.
    silent: bool,
}

/// A teacher of sums on a port of its own, until the process ends: its URL.
fn teacher(teacher: &Arc<Mutex<Teacher>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let teacher = Arc::clone(teacher);
    thread::spawn(move || {
        for connection in listener.incoming() {
            // A client that has gone away is part of the play.
            let _ = attend(connection.unwrap(), &teacher);
        }
    });
    url
}

fn attend(mut connection: TcpStream, teacher: &Mutex<Teacher>) -> io::Result<()> {
    let mut reader = BufReader::new(connection.try_clone()?);
    let (mut head, mut length, mut line) = (String::new(), 0, String::new());
    while line.trim() != "" || head.is_empty() {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if let Some(bytes) = line.to_lowercase().strip_prefix("content-length:") {
            length = bytes.trim().parse().unwrap();
        }
        head += &line;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let (status, answer) = teacher.lock().unwrap().answer(&head, &serde_json::from_slice(&body).unwrap());
    if status == 0 {
        return Ok(());
    }
    let head = format!("HTTP/1.1 {status} x\r\nretry-after: 0\r\nconnection: close\r\n");
    connection.write_all(format!("{head}content-length: {}\r\n\r\n{answer}", answer.len()).as_bytes())
}

impl Teacher {
    fn answer(&mut self, head: &str, asked: &Value) -> (u16, String) {
        assert!(head.starts_with("POST /v1/chat/completions "), "{head}");
        if !head.contains(&format!("Bearer {KEY}")) {
            return (401, json!({ "error": { "message": "who are you?" } }).to_string());
        }
        if self.failures > 0 {
            self.failures -= 1;
            return [(0, String::new()), (429, "{}".into()), (503, "busy".into())][self.failures % 3].clone();
        }
        if self.patience == 0 {
            if self.silent {
                thread::sleep(Duration::from_secs(60));
            }
            return (402, json!({ "error": { "message": "your credit\nis used up" } }).to_string());
        }
        self.patience -= 1;
        self.asked.push(asked.clone());
        let question = asked["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap();
        let (sum, instruction) = question.split_once('\n').unwrap();
        assert!(instruction.contains("write only the answer"), "{instruction}");
        let numbers = sum.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u32>().ok());
        let numbers: Vec<u32> = numbers.collect();
        let (total, before) =
            (numbers.iter().sum::<u32>(), self.asked.iter().filter(|a| a["messages"] == asked["messages"]));
        // Right at once or at the second time, with the thought apart or not; sums of 9 are never right.
        let right = total != 9 && (total % 2 == 0 || before.count() > 1);
        let thought = format!("{}+{}={total}", numbers[0], numbers[1]);
        let answer = if right { total.to_string() } else { "I don't know".into() };
        let message = match total % 3 {
            0 => json!({ "role": "assistant", "content": format!("<think>{thought}</think>\n\n{answer}") }),
            _ => json!({ "role": "assistant", "content": format!("\n{answer}"), "reasoning_content": thought }),
        };
        (200, json!({ "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }] }).to_string())
    }
}

fn recipe(url: &str) -> String {
    let stage = format!(
        "[[stage]]\nkind = \"distil\"\nsteps = 3\nbatch = 4\nteacher = \"{url}\"\nteacher_model = \"far\"\n\
         teacher_key_env = \"TEACHERS_KEY\"\nproblems = 40\nsamples = 3\ntemperature = 0.5\nlevel = 2\n\
         max_new_tokens = 24\nlr = 1e-3\n\n[eval]"
    );
    replaced(&tiny(), "[eval]", &stage)
}

/// Whether any file below a directory has these bytes.
fn has(directory: &Path, bytes: &[u8]) -> bool {
    fs::read_dir(directory).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => has(&path, bytes),
            false => fs::read(&path).unwrap().windows(bytes.len()).any(|window| window == bytes),
        }
    })
}

#[test]
fn a_teacher_far_away_is_asked_once_whatever_happens() {
    let (place, state) =
        (Place::new(), Arc::new(Mutex::new(Teacher { patience: 40, failures: 4, ..Teacher::default() })));
    let url = teacher(&state);
    place.write("far.toml", recipe(&url));
    let train = |arguments: &[&str], key: Option<&str>| {
        let mut command = place.minke(&[&["train"], arguments].concat());
        match key {
            Some(key) => command.env("TEACHERS_KEY", key),
            None => command.env_remove("TEACHERS_KEY"),
        };
        command.output().unwrap()
    };
    let refused = |arguments: &[&str], key: Option<&str>| {
        let output = train(arguments, key);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        said(&output)
    };
    // Without its key nothing begins.
    let why = refused(&["far.toml", "--out", "run"], None);
    assert!(why.contains("the environment variable TEACHERS_KEY, where its key should be, is not set"), "{why}");
    assert!(!place.path("run").exists() && state.lock().unwrap().asked.is_empty());
    // In the middle its credit is used up.
    let why = refused(&["far.toml", "--out", "run"], Some(KEY));
    let refusal =
        format!("the model far: {url}/chat/completions answered 402: your credit is used up; check its address");
    assert!(why.contains(&refusal), "{why}");
    let first = std::mem::take(&mut *state.lock().unwrap()).asked;
    assert_eq!(first.len(), 40);
    for asked in &first {
        assert_eq!(
            (&asked["model"], &asked["max_tokens"], &asked["stream"]),
            (&json!("far"), &json!(24), &json!(false))
        );
        assert_eq!(asked["temperature"], 0.5);
    }
    // A wrong key is said at once.
    state.lock().unwrap().patience = 1000;
    let why = refused(&["run", "--resume"], Some("other"));
    assert!(why.contains("answered 401: who are you?"), "{why}");
    let output = train(&["run", "--resume", "--json"], Some(KEY));
    assert!(output.status.success(), "{}", said(&output));
    let kept = |name: &str| {
        let path = place.path(&format!("run/traces/{name}"));
        minke_train::rollouts::skim(fs::File::open(path).unwrap(), 1 << 20).0
    };
    // What the first problems came to was not asked again.
    let chunks = ["3/000001.jsonl.gz", "3/000002.jsonl.gz", "3/000003.jsonl.gz"].map(kept);
    let total: usize = chunks.iter().map(Vec::len).sum();
    let second = state.lock().unwrap().asked.len();
    assert!(chunks[0].len() <= 40 && second == total - chunks[0].len(), "{second} of {total}");
    let traces = kept("3.jsonl.gz");
    assert!(traces.iter().all(|trace| trace.reward == 1.0 && trace.text.ends_with("<end>")), "{traces:?}");
    let wrong = chunks.iter().flatten().filter(|reply| reply.reward == 0.0).count();
    assert!(traces.len() + wrong == total && wrong > 0 && traces.len() > 20, "{} and {wrong}", traces.len());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["stages"][2]["kind"], "distil");
    assert!(!has(&place.path(""), KEY.as_bytes()));
    assert!(has(&place.path("run"), b"TEACHERS_KEY"));
}

#[test]
fn a_teacher_that_says_nothing_holds_nobody_up() {
    let (place, state) = (Place::new(), Arc::new(Mutex::new(Teacher { silent: true, ..Teacher::default() })));
    place.write("far.toml", recipe(&teacher(&state)));
    let mut command = place.minke(&["train", "far.toml", "--out", "run"]);
    let command = command.env("TEACHERS_KEY", KEY).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let begin = Instant::now();
    // The stages before it are over.
    while !place.path("run/stages/2").exists() && begin.elapsed() < Duration::from_secs(60) {
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(Duration::from_millis(500));
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(75), "{}", said(&output));
    assert!(said(&output).contains("stopped after step 10, and saved"), "{}", said(&output));
    assert!(begin.elapsed() < Duration::from_secs(55), "it was waited for");
}

#[test]
fn a_key_is_not_sent_where_anybody_could_read_it() {
    let place = Place::new();
    place.write("far.toml", recipe("http://example.com/v1"));
    let output = place.minke(&["train", "far.toml", "--out", "run"]).env("TEACHERS_KEY", KEY).output().unwrap();
    assert!(said(&output).contains("over http:// anybody on the way could read the key"), "{}", said(&output));
    assert!(!place.path("run").exists());
}

#[test]
fn a_model_far_away_is_measured_as_those_here_are() {
    let (place, state) =
        (Place::new(), Arc::new(Mutex::new(Teacher { patience: 1000, failures: 3, ..Teacher::default() })));
    let reference = format!("{}#far", teacher(&state));
    let arguments =
        ["eval", &reference, "--task", "chain_sum", "--digits", "1", "--items", "12", "--shots", "2", "--json"];
    let output = place.minke(&arguments).env("MINKE_KEY", KEY).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let measured: Value = serde_json::from_slice(&output.stdout).unwrap();
    let asked = std::mem::take(&mut *state.lock().unwrap()).asked;
    // It is right at once where a sum is even.
    let even = |asked: &&Value| {
        let question = asked["messages"][4]["content"].as_str().unwrap().lines().next().unwrap();
        question.bytes().filter(|byte| byte.is_ascii_digit()).map(|byte| u32::from(byte - b'0')).sum::<u32>() % 2 == 0
    };
    let right = asked.iter().filter(even).count();
    assert!(asked.len() == 12 && 0 < right && right < 12, "{right} of {}", asked.len());
    assert_eq!(measured["accuracy"], right as f64 / 12.0);
    assert_eq!((&measured["thought_tokens"], &measured["truncated"]), (&Value::Null, &json!(0.0)));
    let shown = &asked[0]["messages"];
    let thoughts = [1, 3].map(|turn| shown[turn]["content"].as_str().unwrap().starts_with("<think>"));
    assert_eq!((thoughts, shown.as_array().unwrap().len(), &asked[0]["temperature"]), ([true; 2], 5, &json!(0.0)));
}
