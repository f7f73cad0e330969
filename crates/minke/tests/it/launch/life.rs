//! The life of a stint: how it starts, what it is given, how it ends, and who may be killed meanwhile.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{env, fs};

use minke_lab::launch::{Launcher, Local, Settings};
use minke_lab::{End, Report, RunId};

use super::{Lab, PATIENCE, both_ways, processes, read};

#[test]
fn a_stint_starts_and_ends_and_each_is_said_once() {
    both_ways(|lab, _| {
        for (run, script, end) in [
            (1, "echo well; exit 0", End::Exit(0)),
            (2, "echo badly >&2; exit 3", End::Exit(3)),
            (3, "echo saved; exit 75", End::Exit(75)),
            (4, "echo hurt; kill -SEGV $$", End::Signal(11)),
        ] {
            lab.start(run, script);
            assert_eq!(lab.end(run, 0), end, "{}", lab.said(run, 0));
            assert_eq!(lab.reports_of(run, 0), [Report::Started, Report::Ended(end)]);
            assert_eq!(lab.log(run, 0).lines().next(), script.split([' ', ';']).nth(1));
            lab.poll(&[(run, 0)]);
            assert_eq!(lab.reports_of(run, 0).len(), 2);
        }
    });
}

#[test]
fn what_cannot_be_started_says_why() {
    both_ways(|lab, _| {
        for (run, program, why) in [(1, "no-such-program", "is it installed"), (2, "./data", "executable?")] {
            let order = lab.run(run, 1, &[program]);
            fs::write(lab.directory(run).join("code/data"), "1 2 3").unwrap();
            lab.launcher.start(&order, 0).unwrap();
            match lab.end(run, 0) {
                End::NotStarted(sentence) => {
                    assert!(sentence.contains(why) && sentence.contains(program), "{sentence}")
                }
                end => panic!("{end:?}"),
            }
            assert_eq!(lab.reports_of(run, 0).len(), 1);
        }
        let order = lab.run(3, 1, &["true"]);
        fs::remove_dir(lab.directory(3).join("code")).unwrap();
        lab.launcher.start(&order, 0).unwrap();
        let end = lab.end(3, 0);
        assert!(matches!(&end, End::NotStarted(sentence) if sentence.contains("r3/code")), "{end:?}");
    });
}

#[test]
fn a_run_gets_its_environment_and_nothing_of_the_labs() {
    let mut lab = Lab::new(|_| {});
    let order = lab.run(1, 1, &["env"]);
    lab.launcher.start(&order, 0).unwrap();
    assert_eq!(lab.end(1, 0), End::Exit(0));
    let log = lab.log(1, 0);
    let names: BTreeSet<&str> = log.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    let given = ["HOME", "TMPDIR", "MINKE_HOME", "MINKE_RUN", "MINKE_SUSPEND", "MINKE_ACKNOWLEDGED", "MINKE_PROGRESS"];
    let passed_on = ["PATH", "LANG", "TERM"].into_iter().filter(|name| env::var_os(name).is_some());
    assert_eq!(names, given.into_iter().chain(passed_on).collect());
    // Cargo's are not among them, though it runs this test.
    assert!(env::vars_os().count() > names.len());
}

#[test]
fn a_run_computes_on_its_chips_cores() {
    let mut lab = Lab::new(|_| {});
    let (end, printed) = lab.carry_out("grep Cpus_allowed_list /proc/self/status");
    assert_eq!((end, printed.as_str()), (End::Exit(0), "Cpus_allowed_list:\t0\n"));
    let mut lab = Lab::new(|settings| settings.cores = vec![vec![1000]]);
    lab.start(1, "true");
    let end = lab.end(1, 0);
    assert!(matches!(&end, End::NotStarted(_)), "{end:?}");
    let mut order = lab.run(2, 1, &["true"]);
    order.segments[0].chips = vec![1];
    assert_eq!(lab.launcher.start(&order, 0).unwrap_err().to_string(), "this machine has no chip 1");
}

#[test]
fn what_a_run_keeps_is_there_in_its_next_stint() {
    both_ways(|lab, _| {
        let script = "mkdir -p $MINKE_RUN/checkpoints; ls $MINKE_RUN/checkpoints; touch $MINKE_RUN/checkpoints/$$.$(date +%N) \
                      code.txt; mktemp; ls ../code; exit 75";
        let order = lab.run(1, 2, &["sh", "-c", script]);
        for segment in 0..2 {
            lab.launcher.start(&order, segment).unwrap();
            assert_eq!(lab.end(1, segment), End::Exit(75), "{}", lab.said(1, segment));
        }
        let lines = |segment: usize| lab.log(1, segment).lines().count();
        assert_eq!((lines(0), lines(1)), (2, 3), "{}", lab.log(1, 1));
        assert!(lab.log(1, 0).contains("runs/r1/tmp/"), "{}", lab.log(1, 0));
    });
}

#[test]
fn started_twice_it_runs_once() {
    both_ways(|lab, _| {
        let order = lab.run(1, 2, &["sh", "-c", "echo once >> $MINKE_RUN/starts; sleep 0.3; exit 4"]);
        let mut other = Local::new(lab.settings.clone()).unwrap();
        for _ in 0..3 {
            lab.launcher.start(&order, 0).unwrap();
            other.start(&order, 0).unwrap();
        }
        // Another stint of the run has to wait.
        let refused = lab.launcher.start(&order, 1).unwrap_err();
        assert_eq!(refused.to_string(), "run 1 has another stint that has not ended yet");
        assert_eq!(lab.end(1, 0), End::Exit(4));
        lab.launcher.start(&order, 0).unwrap();
        other.start(&order, 0).unwrap();
        lab.launcher.start(&order, 1).unwrap();
        assert_eq!(lab.end(1, 1), End::Exit(4));
        assert_eq!(read(&lab.directory(1).join("files/starts")), "once\nonce\n");
    });
}

/// Supervisors that are started by hand, or one too many, do nothing.
#[test]
fn only_the_lab_starts_supervisors() {
    let mut lab = Lab::new(|_| {});
    assert_eq!(lab.carry_out("echo once >> $MINKE_RUN/starts").0, End::Exit(0));
    for stint in [lab.file(1, 0, ""), lab.file(1, 1, ""), lab.file(2, 0, "")] {
        let output = Command::new(env!("CARGO_BIN_EXE_minke"))
            .arg("supervise")
            .arg(stint)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(!output.stderr.is_empty());
    }
    assert_eq!(read(&lab.directory(1).join("files/starts")), "once\n");
}

#[test]
fn a_killed_supervisor_leaves_nothing() {
    both_ways(|lab, _| {
        let script =
            "sleep 4711.1 & setsid sleep 4711.1 & (sleep 4711.1 &); trap '' TERM HUP; sleep 4711.1; sleep 4711.1";
        lab.start(1, &script.replace("4711.1", &format!("4711.{}", std::process::id())));
        lab.until_started(1);
        let mark = format!("sleep\x004711.{}", std::process::id());
        let begin = Instant::now();
        while processes(&mark).len() < 4 {
            assert!(begin.elapsed() < PATIENCE, "{}", lab.said(1, 0));
            sleep(Duration::from_millis(10));
        }
        let (supervisor, _) = lab.guards(1);
        assert!(Command::new("kill").args(["-9", &supervisor.to_string()]).status().unwrap().success());
        assert_eq!(lab.end(1, 0), End::Vanished);
        assert_eq!(processes(&mark), [0; 0]);
        // It stays so.
        let order = lab.run(1, 1, &["sh", "-c", script]);
        lab.launcher.start(&order, 0).unwrap();
        lab.restart();
        assert_eq!(lab.end(1, 0), End::Vanished);
        assert_eq!(lab.reports_of(1, 0), [Report::Started, Report::Ended(End::Vanished)]);
    });
}

#[test]
fn what_is_not_known_is_not_reported() {
    let mut lab = Lab::new(|_| {});
    lab.poll(&[(1, 0), (7, 3)]);
    assert_eq!(lab.reports, []);
    // Ordered, and then the lab's process ended before it had started anything.
    lab.start(1, "true");
    assert_eq!(lab.end(1, 0), End::Exit(0));
    for file in ["pid", "end.json", "started"] {
        fs::remove_file(lab.file(1, 0, file)).unwrap();
    }
    lab.restart();
    lab.poll(&[(1, 0)]);
    assert_eq!(lab.reports, []);
    // Ordered again, it starts.
    lab.start(1, "exit 5");
    assert_eq!(lab.end(1, 0), End::Exit(5));
}

#[test]
fn a_launcher_made_anew_sees_what_happened_meanwhile() {
    both_ways(|lab, _| {
        lab.start(1, "while ! test -e $MINKE_RUN/go; do sleep 0.02; done; exit 6");
        lab.start(2, "exit 3");
        lab.until_started(1);
        let end = lab.file(2, 0, "end.json");
        let begin = Instant::now();
        while !end.exists() {
            assert!(begin.elapsed() < PATIENCE, "{}", lab.said(2, 0));
            sleep(Duration::from_millis(10));
        }
        lab.restart();
        assert_eq!(lab.end(2, 0), End::Exit(3));
        lab.until_started(1);
        assert_eq!(lab.reports_of(1, 0), [Report::Started]);
        fs::write(lab.directory(1).join("files/go"), "").unwrap();
        assert_eq!(lab.end(1, 0), End::Exit(6));
    });
}

/// The lab's process, killed; its runs go on.
#[test]
fn runs_outlive_the_lab() {
    let mut lab = Lab::new(|_| {});
    lab.run(1, 1, &[]);
    let mut process = Command::new(env::current_exe().unwrap())
        .args(["--exact", "launch::life::a_lab_that_will_be_killed", "--ignored"])
        .env("MINKE_TEST_HOME", &lab.settings.home)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    lab.until_started(1);
    process.kill().unwrap();
    process.wait().unwrap();
    fs::write(lab.directory(1).join("files/go"), "").unwrap();
    assert_eq!(lab.end(1, 0), End::Exit(6));
    assert_eq!(lab.log(1, 0), "it goes on\n");
}

#[test]
#[ignore = "`runs_outlive_the_lab` starts and kills it"]
fn a_lab_that_will_be_killed() {
    let home = env::var_os("MINKE_TEST_HOME").expect("the home of another test's lab").into();
    let lab = Lab::new(|_| {});
    let script = "while ! test -e $MINKE_RUN/go; do sleep 0.02; done; echo it goes on; exit 6";
    let settings = Settings { home, ..lab.settings.clone() };
    Local::new(settings).unwrap().start(&lab.run(1, 1, &["sh", "-c", script]), 0).unwrap();
    sleep(PATIENCE);
    panic!("nobody killed it");
}

#[test]
fn orders_that_come_before_the_start_hold() {
    let mut lab = Lab::new(|_| {});
    lab.launcher.suspend(RunId(1), 0).unwrap();
    lab.start(1, "echo never");
    assert_eq!(lab.end(1, 0), End::Exit(75));
    lab.launcher.kill(RunId(2), 0).unwrap();
    let end = lab.end(2, 0);
    assert_eq!(end, End::NotStarted("it was ended before its command was started".to_string()));
    lab.start(2, "echo never");
    lab.restart();
    assert_eq!(lab.end(2, 0), end);
    assert_eq!((lab.log(1, 0), lab.log(2, 0)), (String::new(), String::new()));
}
