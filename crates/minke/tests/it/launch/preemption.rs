//! The contract of `docs/preemption.md`, and the examples that it gives.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use minke_lab::launch::Launcher;
use minke_lab::{End, Report, RunId};

use super::{Lab, both_ways};
use crate::repository;

/// The examples of the page in one language, in their order.
fn examples(language: &str) -> Vec<String> {
    let page = fs::read_to_string(repository().join("docs/preemption.md")).unwrap();
    let fence = format!("```{language}\n");
    let examples: Vec<String> =
        page.split(&fence).skip(1).map(|part| part.split("```").next().unwrap().to_string()).collect();
    assert!(!examples.is_empty(), "docs/preemption.md has no example in {language}");
    examples
}

/// Runs a program in stints, suspending each once it has come some steps further, until it ends.
fn in_stints(lab: &mut Lab, command: &[&str]) -> (End, usize) {
    const STINTS: usize = 8;
    let order = lab.run(1, STINTS, command);
    let (mut acknowledged, mut step) = (0, 0);
    for segment in 0..STINTS {
        lab.launcher.start(&order, segment).unwrap();
        lab.until(1, segment, |report| match report {
            Report::Progress(progress) => progress.step >= step + 10,
            report => matches!(report, Report::Ended(_)),
        });
        lab.launcher.suspend(RunId(1), segment).unwrap();
        let end = lab.end(1, segment);
        let reports = lab.reports_of(1, segment);
        acknowledged += usize::from(reports.contains(&Report::Acknowledged));
        if end != End::Exit(75) {
            return (end, acknowledged);
        }
        assert!(reports.contains(&Report::Acknowledged), "{reports:?}");
        // What is said of a checkpoint can be relied on when the stint has ended.
        let said = reports.iter().rev().find_map(|report| match report {
            Report::Progress(progress) => Some(progress.clone()),
            _ => None,
        });
        let said = said.unwrap();
        assert_eq!(said.checkpoint, Some(said.step), "{reports:?}");
        step = said.step;
    }
    panic!("it did not end in {STINTS} stints: {}", lab.said(1, STINTS - 1));
}

/// That a program of sixty steps takes each of them once, over all of its stints.
fn saves_and_goes_on(lab: &mut Lab, command: &[&str]) {
    let (end, acknowledged) = in_stints(lab, command);
    assert_eq!(end, End::Exit(0), "{:?}", lab.reports);
    assert!(acknowledged >= 2, "{:?}", lab.reports);
    let steps: String = (0..8).map(|segment| lab.log(1, segment)).collect();
    let expected: String = (1..=60).map(|step| format!("step {step}\n")).collect();
    assert_eq!(steps, expected);
}

#[test]
fn the_python_example_saves_and_goes_on() {
    both_ways(|lab, _| {
        let [helper, program] = examples("python").try_into().unwrap();
        lab.run(1, 1, &[]);
        let code = lab.directory(1).join("code");
        fs::write(code.join("preemption.py"), helper).unwrap();
        // Slow enough to be met in the middle.
        let slow = program.replace("STEPS = 1000", "STEPS = 60").replace("train_one_step()", "time.sleep(0.02)");
        assert_ne!(slow, program);
        fs::write(code.join("train.py"), slow).unwrap();
        saves_and_goes_on(lab, &["/usr/bin/python3", "train.py"]);
    });
}

#[test]
fn the_shell_example_saves_and_goes_on() {
    both_ways(|lab, _| {
        let [program] = examples("sh").try_into().unwrap();
        lab.run(1, 1, &[]);
        let slow = program.replace("steps=1000", "steps=60").replace("./train-one-step", "sleep 0.03");
        assert_ne!(slow, program);
        fs::write(lab.directory(1).join("code/train.sh"), slow).unwrap();
        saves_and_goes_on(lab, &["sh", "train.sh"]);
    });
}

#[test]
fn the_signal_alone_suffices() {
    both_ways(|lab, _| {
        lab.start(1, "trap 'echo told; exit 75' TERM; echo ready; while true; do sleep 0.05; done");
        lab.until_said(1, "ready");
        for _ in 0..2 {
            lab.launcher.suspend(RunId(1), 0).unwrap();
        }
        assert_eq!(lab.end(1, 0), End::Exit(75));
        assert_eq!(lab.log(1, 0).matches("told\n").count(), 1, "{}", lab.log(1, 0));
        assert!(!lab.reports_of(1, 0).contains(&Report::Acknowledged));
    });
}

#[test]
fn who_does_not_listen_is_left_alone_until_killed() {
    both_ways(|lab, _| {
        lab.start(1, "trap 'echo told' TERM; echo ready; while true; do sleep 0.05; done");
        lab.until_said(1, "ready");
        lab.launcher.suspend(RunId(1), 0).unwrap();
        lab.launcher.suspend(RunId(1), 0).unwrap();
        lab.until_said(1, "told");
        sleep(Duration::from_millis(300));
        lab.poll(&[(1, 0)]);
        assert_eq!(lab.reports_of(1, 0), [Report::Started]);
        lab.launcher.kill(RunId(1), 0).unwrap();
        assert_eq!(lab.end(1, 0), End::Signal(9));
        // Told once, however often the order was given.
        assert_eq!(lab.log(1, 0).matches("told\n").count(), 1, "{}", lab.log(1, 0));
    });
}
