//! Bad input: each case gets one sentence and an exit code of its own kind, the same every time (`docs/bad-input.md`).

use std::fs::{self, File};
use std::io::Write;
use std::process::{Output, Stdio};
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::{Place, bad_commands, bad_recipes, bad_runs, repository, said};

/// Longer than any complaint may take, even on a busy machine and without optimisation.
const PATIENCE: Duration = Duration::from_secs(20);

/// Something that minke can't do as it is told.
pub struct Case {
    /// What is wrong, as the table has it.
    what: String,
    arguments: Vec<String>,
    variables: Vec<(&'static str, String)>,
    stdin: Vec<u8>,
    place: Place,
    /// Held until the case is over.
    lock: Option<File>,
}

impl Case {
    pub fn new(what: &str, arguments: &[&str]) -> Case {
        let arguments = arguments.iter().map(|argument| argument.to_string()).collect();
        let place = Place::new();
        Case { what: what.into(), arguments, variables: Vec::new(), stdin: Vec::new(), place, lock: None }
    }

    /// With a file.
    pub fn file(self, name: &str, bytes: impl AsRef<[u8]>) -> Case {
        self.place.write(name, bytes);
        self
    }

    /// With a copy of a file or directory.
    pub fn copy(self, from: &std::path::Path, name: &str) -> Case {
        self.place.copy(from, name);
        self
    }

    /// With whatever is done to its directory.
    pub fn with(self, change: impl FnOnce(&Place)) -> Case {
        change(&self.place);
        self
    }

    pub fn env(mut self, name: &'static str, value: &str) -> Case {
        self.variables.push((name, value.into()));
        self
    }

    pub fn stdin(mut self, bytes: &[u8]) -> Case {
        self.stdin = bytes.to_vec();
        self
    }

    /// While somebody else has locked a file.
    pub fn locked(mut self, name: &str) -> Case {
        let file = File::open(self.place.path(name)).unwrap();
        file.try_lock().unwrap();
        self.lock = Some(file);
        self
    }

    fn output(&self) -> Output {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let mut command = self.place.minke(&arguments);
        command.env("MINKE_THREADS", "1").envs(self.variables.iter().map(|(name, value)| (name, value)));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Whoever complains at once need not read all of it.
        let _ = child.stdin.take().unwrap().write_all(&self.stdin);
        let begin = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if begin.elapsed() > PATIENCE {
                child.kill().unwrap();
                panic!("{}: still at work after {PATIENCE:?}", self.what);
            }
            sleep(Duration::from_millis(5));
        }
        child.wait_with_output().unwrap()
    }

    /// What minke says, which must be one sentence and nothing else.
    fn sentence(&self) -> String {
        let (what, output) = (&self.what, self.output());
        let said = said(&output);
        assert!(output.stdout.is_empty(), "{what}: something on stdout: {:?}", String::from_utf8_lossy(&output.stdout));
        let sentence = match output.status.code() {
            Some(1) => {
                let line = said.strip_prefix("minke: ").and_then(|said| said.strip_suffix('\n'));
                line.unwrap_or_else(|| panic!("{what}: {said:?}")).to_string()
            }
            // The argument parser's sentence and tip; how to use the command, and where to find help, follow.
            Some(2) => {
                let (sentence, _) = said.split_once("\n\nUsage:").or(said.split_once("\n\nFor more")).unwrap();
                assert!(said.ends_with("try '--help'.\n"), "{what}: {said:?}");
                sentence.split_whitespace().collect::<Vec<&str>>().join(" ")
            }
            _ => panic!("{what}: {}: {said}", output.status),
        };
        assert_eq!(sentence.starts_with("error: "), output.status.code() == Some(2), "{what}: {said:?}");
        assert!(!sentence.chars().any(char::is_control) && sentence.len() < 400, "{what}: {sentence:?}");
        assert!(!sentence.contains("panicked") && !sentence.contains(".rs:"), "{what}: {sentence:?}");
        assert!(!sentence.contains(&*self.place.path("").to_string_lossy()), "{what}: {sentence:?}");
        // Which instruction sets follow is the machine's affair.
        match sentence.split_once("is not an instruction set; choose one of portable") {
            Some((before, _)) => format!("{before}is not an instruction set; choose one of portable, …"),
            None => sentence,
        }
    }
}

/// Checks that the page has a section's rows. Set `MINKE_BLESS` to write them anew.
fn check(section: &str, head: &str, cases: &[Case]) {
    // Sections are checked at the same time, but share a page.
    static PAGE: Mutex<()> = Mutex::new(());
    let mut table = format!("| {head} | gets |\n|---|---|\n");
    for case in cases {
        let sentence = case.sentence().replace('|', "\\|").replace('<', "\\<");
        table += &format!("| {} | {sentence} |\n", case.what.replace('|', "\\|").replace('<', "\\<"));
    }
    let (begin, end) =
        (format!("<!-- {section}: written by crates/minke/tests/it -->\n"), format!("<!-- end of {section} -->\n"));
    let _page = PAGE.lock();
    let path = repository().join("docs/bad-input.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(&begin).expect("the page marks where the table begins");
    let (old, after) = rest.split_once(&end).expect("the page marks where the table ends");
    if std::env::var_os("MINKE_BLESS").is_some() {
        fs::write(&path, format!("{before}{begin}{table}{end}{after}")).unwrap();
        return;
    }
    for (new, old) in table.lines().zip(old.lines()) {
        assert_eq!(new, old, "run with MINKE_BLESS=1 if the new sentence is better");
    }
    assert_eq!(table.lines().count(), old.lines().count(), "run with MINKE_BLESS=1 for new cases");
}

#[test]
fn every_bad_recipe_gets_the_sentence_in_the_table() {
    let cases = bad_recipes::cases();
    assert!(cases.len() >= 25, "{}", cases.len());
    check("recipes", "a recipe with", &cases);
}

#[test]
fn every_bad_command_gets_the_sentence_in_the_table() {
    let cases = bad_commands::cases();
    assert!(cases.len() >= 20, "{}", cases.len());
    check("commands", "a command", &cases);
}

#[test]
fn every_damaged_run_gets_the_sentence_in_the_table() {
    let run = bad_runs::finished();
    check("runs", "going on with a run", &bad_runs::cases(&run));
}
