//! A program that misbehaves in every way is named each time, and goes on being asked.

use std::collections::HashSet;

use super::*;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tasks/external/misbehaving.py");

fn start(arguments: &[&str]) -> Result<External> {
    let command = ["python3", SCRIPT].iter().chain(arguments).map(|word| word.to_string()).collect();
    External::start(Settings { command, timeout_s: 2, memory_mb: 1024 })
}

fn random() -> Random {
    Random::new(1, [0; 3])
}

#[test]
fn a_program_is_a_task() {
    let task = start(&[]).unwrap();
    assert_eq!((task.name(), task.levels(), task.demonstrates()), ("sums", 1..=3, false));
    let mut random = random();
    let mut prompts = |split| (0..50).map(|_| task.sample(split, 2, &mut random).prompt).collect::<HashSet<_>>();
    let (train, held_out) = (prompts(Split::Train), prompts(Split::HeldOut));
    assert!(train.is_disjoint(&held_out) && train.len() > 40 && held_out.len() > 30);
    let item = Item { level: 2, prompt: "7+2=".into(), facts: json!({ "item": [7, 2] }) };
    assert_eq!(task.check(&item, "9"), Ok(()));
    assert_eq!(task.check(&item, "92"), Err("answer \"92\" is worth 0 to the task's program".into()));
    assert_eq!(task.check(&item, "half"), Err("answer \"half\" is worth 0.5 to the task's program".into()));
    assert_eq!(task.check(&item, "nearly"), Err("a digit is missing".into()));
    // The same seed draws the same problem.
    let again = |seed| task.sample(Split::Train, 1, &mut Random::new(seed, [0; 3]));
    assert!(again(5) == again(5) && again(5) != again(6));
    task.health().unwrap();
}

#[test]
fn splits_and_demonstrations_are_the_programs_if_it_has_them() {
    let task = start(&["splits"]).unwrap();
    assert!(task.sample(Split::HeldOut, 1, &mut random()).prompt.ends_with("=held_out"));
    assert!(task.sample(Split::Train, 1, &mut random()).prompt.ends_with("=train"));
    let task = start(&["demonstrates"]).unwrap();
    let item = task.sample(Split::Train, 1, &mut random());
    assert!(task.demonstrates());
    let Demonstration { thought, answer } = task.demonstration(&item, Style::Think, &mut random());
    assert_eq!((thought.as_str(), task.check(&item, &answer)), ("easy", Ok(())));
    assert_eq!(
        task.demonstration(&item, Style::Direct, &mut random()),
        Demonstration { thought: String::new(), answer }
    );
}

#[test]
fn whatever_it_does_is_named_and_earns_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("child");
    let task = start(&["", &place.to_string_lossy()]).unwrap();
    let item = Item { level: 2, prompt: "7+2=".into(), facts: json!({ "item": [7, 2] }) };
    let title = format!("the task's program {}", task.settings.command.join(" "));
    let short: String = title.chars().take("the task's program ".len() + 80).collect();
    for (answer, what) in [
        ("hang", "did not answer within 2 s"),
        ("flood", "wrote a line of more than 1 MiB"),
        ("crash", "ended (exit status: 1) and said \"it hurts\""),
        ("die", "ended (signal: 6 (SIGABRT)"),
        ("memory", "ended (exit status: 1) and said \"MemoryError\""),
        ("deaf", "closed its output"),
        ("text", "said \"reward: 1\", which is not JSON"),
        ("list", "said \"[1]\", which is no object"),
        ("nan", "which is not JSON"),
        ("seven", "gave a reward of 7, which is not from 0 to 1"),
        ("minus", "gave a reward of -1, which is not from 0 to 1"),
        ("yes", "gave a reward of true, which is not from 0 to 1"),
        ("word", "gave a reward of \"1\", which is not from 0 to 1"),
        ("nothing", "gave no reward"),
        ("other", "answered another request than it was sent"),
        ("error", "reported an error: \"no such item\""),
    ] {
        let why = task.check(&item, answer).unwrap_err();
        assert!(why.starts_with(&short) && why.contains(what) && !why.contains('\n'), "{answer}: {why}");
        // It was started again, and the run goes on.
        assert_eq!(task.check(&item, "9"), Ok(()), "after {answer}");
        task.health().unwrap();
    }
    // What it said too much is not taken for the answer to what is asked next.
    for answer in ["twice", "lines"] {
        assert!(task.check(&item, answer).is_err());
        std::thread::sleep(Duration::from_millis(200));
        let why = task.check(&item, "10").unwrap_err();
        assert!(why.ends_with("said more than it was asked") || answer == "lines", "{answer}: {why}");
        assert_eq!(task.check(&item, "9"), Ok(()), "after {answer}");
    }
    // What a program has started ends with it.
    #[cfg(target_os = "linux")]
    {
        let child = std::fs::read_to_string(&place).unwrap();
        let state = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z "), "{state}");
    }
}

#[test]
fn one_that_fails_time_after_time_ends_the_run() {
    let task = start(&[]).unwrap();
    let item = Item { level: 2, prompt: "7+2=".into(), facts: json!({ "item": [7, 2] }) };
    for _ in 0..FAILURES {
        task.health().unwrap();
        task.check(&item, "crash").unwrap_err();
    }
    let sentence = task.health().unwrap_err().to_string();
    assert!(sentence.contains(" failed 5 times in a row; the last time it ended (exit status: 1)"), "{sentence}");
    assert!(sentence.ends_with("; mend it, and go on with --resume"), "{sentence}");
    assert!(task.check(&item, "9").is_err());

    let directory = tempfile::tempdir().unwrap();
    let starts = directory.path().join("starts");
    for (mode, what) in [
        ("no samples", "failed 5 times in a row; the last time it ended (exit status: 3)"),
        ("one sample", "has given 1000 problems of level 1, none on the "),
    ] {
        let task = start(&[mode]).unwrap();
        let sides = [Split::Train, Split::HeldOut].map(|side| task.sample(side, 1, &mut random()));
        assert!(sides.iter().any(|item| item.prompt.is_empty()));
        let sentence = task.health().unwrap_err().to_string();
        assert!(sentence.contains(what), "{sentence}");
    }
    let task = start(&["changes", &starts.to_string_lossy()]).unwrap();
    task.check(&item, "crash").unwrap_err();
    let why = task.check(&item, "9").unwrap_err();
    assert!(why.ends_with("introduced itself otherwise when it was started again"), "{why}");
}

#[test]
fn what_it_said_in_a_run_is_what_it_will_have_said() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("task.jsonl");
    let item = Item { level: 2, prompt: "7+2=".into(), facts: json!({ "item": [7, 2] }) };
    let first = start(&[]).unwrap();
    first.remember(&path, true).unwrap();
    let (drawn, why) = (first.sample(Split::Train, 2, &mut random()), first.check(&item, "crash").unwrap_err());
    first.health().unwrap();
    // Another program, which would say something else, and hears only what the first was not asked.
    let second = start(&["one sample"]).unwrap();
    assert_ne!(second.sample(Split::Train, 2, &mut random()), drawn);
    second.remember(&path, true).unwrap();
    assert_eq!((second.sample(Split::Train, 2, &mut random()), second.check(&item, "crash")), (drawn, Err(why)));
    assert_eq!(second.state().failures, 0);
    assert_eq!(second.check(&item, "9"), Ok(()));
}

#[test]
fn one_that_does_not_speak_the_protocol_is_refused() {
    let sentence = |arguments: &[&str]| start(arguments).unwrap_err().to_string();
    assert!(sentence(&["old"]).ends_with("did not say that it speaks version 1 of the protocol"));
    let command = |command: &[&str]| {
        let command = command.iter().map(|word| word.to_string()).collect();
        External::start(Settings { command, timeout_s: 1, memory_mb: 1024 }).unwrap_err().to_string()
    };
    assert_eq!(command(&["true"]), "the task's program true ended (exit status: 0)");
    assert!(command(&["no-such-program"]).starts_with("the task's program no-such-program can't be started: "));
    assert!(command(&["cat"]).ends_with("said no more than it was asked"));
}
