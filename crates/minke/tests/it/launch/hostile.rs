//! Runs that mean harm, to others' files, to their neighbours or to the machine.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use minke_lab::launch::Launcher;
use minke_lab::{End, RunId};
use serde_json::Value;

use super::{Lab, PATIENCE, both_ways, processes, read};

/// Starts a neighbour that does nothing, and has something to hide.
fn neighbour(lab: &mut Lab) {
    lab.start(2, "echo private > $MINKE_RUN/notes; sleep 60");
    lab.until_started(2);
    let begin = Instant::now();
    while !lab.directory(2).join("files/notes").exists() {
        assert!(begin.elapsed() < PATIENCE, "{}", lab.said(2, 0));
        sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_is_others_is_out_of_reach() {
    both_ways(|lab, _| {
        neighbour(lab);
        fs::write(lab.place.path().join("diary"), "the owner's").unwrap();
        let script = "cd $MINKE_HOME
            for file in lab.db runs/r2/files/notes runs/r2/segments/0/out.log runs/r2/code ../diary /etc/shadow; do
                cat $file && echo READ $file
                ls $file/ && echo LISTED $file
                echo forged > $file && echo WROTE $file
                rm -r $file && echo REMOVED $file
                ln $file $MINKE_RUN/link && echo LINKED $file
                mv $file $MINKE_RUN/moved && echo MOVED $file
                test -e $file || echo $file is missing
            done
            cd runs/r1/segments
            for file in 0/end.json 0/pid 0/order.json 0/new 1 lock; do
                echo forged > $file && echo WROTE $file
                rm -r $file && echo REMOVED $file
            done
            ln -s $MINKE_HOME/lab.db $MINKE_RUN/a-link; cat $MINKE_RUN/a-link && echo READ through a link
            cat /proc/1/environ /proc/1/root/etc/shadow && echo READ of init
            rm -rf $MINKE_HOME/runs/r1/segments $MINKE_HOME/runs/r1
            test -e $MINKE_HOME/runs/r1/code || echo code is missing
            exit 9";
        let (end, printed) = lab.carry_out(script);
        assert_eq!(end, End::Exit(9), "{printed}");
        assert!(printed.matches("Permission denied").count() > 20, "{printed}");
        for word in
            ["READ", "LISTED", "WROTE", "REMOVED", "LINKED", "MOVED", "missing", "private", "secrets", "owner's"]
        {
            assert!(!printed.contains(word), "{word}: {printed}");
        }
        assert_eq!(read(&lab.settings.home.join("lab.db")), "everybody's secrets");
    });
}

#[test]
fn others_processes_are_out_of_reach() {
    both_ways(|lab, _| {
        neighbour(lab);
        let (supervisor, keeper) = lab.guards(2);
        let found = read(std::path::Path::new(&format!("/proc/{keeper}/task/{keeper}/children")));
        let script = format!(
            "for i in $(seq 100); do test -e own && break; sleep 0.05; done
             for pid in {supervisor} {keeper} {found} $PPID $(cat own); do
                 kill -9 $pid && echo KILLED $pid
                 kill -STOP $pid && echo STOPPED $pid
             done
             sleep 1; exit 9"
        );
        lab.start(1, &script);
        lab.until_started(1);
        let (supervisor, keeper) = lab.guards(1);
        fs::write(lab.directory(1).join("code/own"), format!("{supervisor} {keeper}")).unwrap();
        let end = lab.end(1, 0);
        let printed = lab.log(1, 0);
        assert_eq!(end, End::Exit(9), "{printed}");
        // Inside a namespace the number of its first process is 1, and a signal sent to it is dropped.
        let printed = printed.replace("KILLED 1\n", "").replace("STOPPED 1\n", "");
        assert!(!printed.contains("KILLED") && !printed.contains("STOPPED"), "{printed}");
        lab.poll(&[(2, 0)]);
        assert_eq!(lab.reports_of(2, 0).len(), 1, "{:?}", lab.reports);
        lab.launcher.kill(RunId(2), 0).unwrap();
        assert_eq!(lab.end(2, 0), End::Signal(9));
    });
}

/// A run that may use little.
fn modest(namespaces: bool) -> Lab {
    Lab::new(|settings| {
        settings.namespaces = namespaces;
        let limits = &mut settings.limits;
        (limits.disk, limits.file, limits.memory, limits.processes) = (20_000_000, 50_000_000, 300_000_000, 64);
    })
}

/// That a run is ended for what it does, and all of it.
fn breaks(lab: &mut Lab, command: &[&str], why: &str) {
    let begin = Instant::now();
    let order = lab.run(1, 1, command);
    lab.launcher.start(&order, 0).unwrap();
    match lab.end(1, 0) {
        End::Broke(sentence) => {
            eprintln!("after {:.1?}: {sentence}", begin.elapsed());
            assert!(sentence.contains(why), "{sentence}");
        }
        end => panic!("{end:?}: {}", lab.said(1, 0)),
    }
    assert_eq!(processes(&lab.place.path().to_string_lossy()), [0; 0]);
    let alive = Command::new("true").status().unwrap();
    assert!(alive.success());
}

#[test]
fn a_fork_bomb_is_put_out() {
    let mut lab = modest(true);
    // The directory in the command line tells its processes from others.
    let mark = lab.place.path().to_string_lossy().into_owned();
    let order = lab.run(2, 1, &["true"]);
    lab.launcher.start(&order, 0).unwrap();
    assert_eq!(lab.end(2, 0), End::Exit(0));
    let held: Value = serde_json::from_str(&read(&lab.file(2, 0, "sandbox.json"))).unwrap();
    // The first of them needs no fork to stay, so that it is there when the watch looks.
    let bomb = "bomb() { bomb | bomb & }; bomb; exec sleep 60";
    if held["in_force"][0].as_str().is_some_and(|first| first.starts_with("namespaces")) {
        breaks(&mut lab, &["sh", "-c", bomb, &mark], "processes at a time where 64 are allowed");
    } else {
        eprintln!("SKIPPED: no namespaces, and without them nothing but a watch holds a bomb");
    }
    // Without a namespace only so many, for the sake of whoever runs this as root.
    let mut lab = modest(false);
    let mark = lab.place.path().to_string_lossy().into_owned();
    let many = "for i in $(seq 100); do setsid sleep 60 & done; exec sleep 60";
    breaks(&mut lab, &["sh", "-c", many, &mark], "processes at a time where 64 are allowed");
}

#[test]
fn a_full_disk_is_prevented() {
    for namespaces in [true, false] {
        for what in [
            "i=0; while true; do i=$((i + 1)); head -c 1000000 /dev/zero > $MINKE_RUN/$i; sleep 0.01; done",
            "i=0; while true; do i=$((i + 1)); head -c 1000000 /dev/zero > $TMPDIR/$i; sleep 0.01; done",
            // Nor where no directory shows it.
            "exec 3> gone; rm gone; while true; do head -c 1000000 /dev/zero >&3; sleep 0.01; done",
            "cd $(dirname $MINKE_PROGRESS); while true; do head -c 1000000 /dev/zero >> more; sleep 0.01; done",
            // Nor by many files with nothing in them.
            "i=0; while true; do i=$((i + 1)); mkdir $i; touch $i/1 $i/2 $i/3 $i/4 $i/5 $i/6 $i/7 $i/8; done",
        ] {
            let mut lab = modest(namespaces);
            breaks(&mut lab, &["sh", "-c", what], "where 20 MB are allowed");
        }
        // One file is bounded by the kernel: the program is told, or ended by SIGXFSZ.
        let mut lab = modest(namespaces);
        lab.settings.limits.file = 1_000_000;
        lab.restart();
        let order = lab.run(1, 1, &["sh", "-c", "head -c 2000000 /dev/zero > big; wc -c < big; exit 9"]);
        lab.launcher.start(&order, 0).unwrap();
        assert_eq!(lab.end(1, 0), End::Exit(9));
        assert!(lab.log(1, 0).contains("1000000"), "{}", lab.log(1, 0));
    }
}

#[test]
fn memory_is_bounded() {
    for namespaces in [true, false] {
        let mut lab = modest(namespaces);
        let much = "x = []\nwhile True: x.append(bytearray(10_000_000)); import time; time.sleep(0.01)";
        breaks(&mut lab, &["/usr/bin/python3", "-c", much], "of memory where 300 MB are allowed");
        // What is shared counts once.
        let shared = "import os, time\nx = bytearray(100_000_000)\nfor _ in range(6):\n  if os.fork() == 0: time.sleep(1); \
                      os._exit(0)\ntime.sleep(1)";
        let mut lab = modest(namespaces);
        let order = lab.run(1, 1, &["/usr/bin/python3", "-c", shared]);
        lab.launcher.start(&order, 0).unwrap();
        assert_eq!(lab.end(1, 0), End::Exit(0), "{}", lab.said(1, 0));
        let hidden =
            "import os, time\nf = os.memfd_create('x')\nwhile True: os.write(f, bytes(10_000_000)); time.sleep(0.01)";
        let mut lab = modest(namespaces);
        lab.settings.limits.file = 10_000_000_000;
        lab.restart();
        breaks(&mut lab, &["/usr/bin/python3", "-c", hidden], "of memory where 300 MB are allowed");
    }
}

#[test]
fn a_giant_log_costs_no_disk() {
    both_ways(|lab, _| {
        lab.settings.limits.log = 10_000;
        lab.restart();
        let (end, printed) = lab.carry_out("yes | head -c 30000000; echo the end");
        assert_eq!(end, End::Exit(0));
        assert!(printed.len() < 10_000 + 65_536 + 100, "{} bytes", printed.len());
        assert!(printed.starts_with("y\ny\n") && printed.ends_with("\ny\nthe end\n"));
        let left_out = format!("\n[minke: {} bytes are left out here]\n", 30_000_000 + 8 - 10_000 - 65_536);
        assert!(printed.contains(&left_out), "{:?}", &printed[10_000..10_060]);
    });
}

#[test]
fn daemons_end_with_their_run() {
    both_ways(|lab, _| {
        let nap = format!("4712.{}", std::process::id());
        let script =
            format!("setsid sleep {nap} > /dev/null 2>&1 & (setsid sh -c 'sleep {nap} & sleep {nap}' &); sleep 0.3");
        assert_eq!(lab.carry_out(&script).0, End::Exit(0));
        assert_eq!(processes(&nap), [0; 0]);
    });
}

#[test]
fn a_killed_run_is_gone_with_all_that_it_started() {
    both_ways(|lab, _| {
        let nap = format!("4713.{}", std::process::id());
        let script =
            format!("trap '' TERM HUP INT; setsid sleep {nap} & (sleep {nap} &); while true; do sleep {nap}; done");
        lab.start(1, &script);
        lab.until_started(1);
        for _ in 0..2 {
            lab.launcher.kill(RunId(1), 0).unwrap();
        }
        assert_eq!(lab.end(1, 0), End::Signal(9));
        assert_eq!(processes(&nap), [0; 0]);
    });
}

#[test]
fn nothing_of_root_is_left_in_a_run() {
    both_ways(|lab, namespaces| {
        let script = "grep -E 'Cap(Prm|Eff|Bnd|Amb)|NoNewPrivs' /proc/self/status; mount -t tmpfs none . && echo MOUNTED
            mknod zero c 1 5 && echo MADE; chown 1:1 . && echo GAVE; test $$ = 2 && echo second; ls -d /proc/[0-9]* | wc -l";
        let (_, printed) = lab.carry_out(script);
        for word in ["MOUNTED", "MADE", "GAVE"] {
            assert!(!printed.contains(word), "{printed}");
        }
        let sets: Vec<&str> = printed.lines().filter_map(|line| line.strip_prefix("Cap")).collect();
        assert_eq!(sets.len(), 4, "{printed}");
        let bound = if super::is_root() { 4 } else { 3 };
        let empty = sets.iter().filter(|set| set.ends_with("\t0000000000000000")).count();
        assert!(empty >= bound && printed.contains("NoNewPrivs:\t1"), "{printed}");
        let held = read(&lab.file(1, 0, "sandbox.json"));
        if namespaces && held.contains("a /proc of its own\"],\"missing\"") | held.contains("a /proc of its own\",\"") {
            assert!(printed.contains("second"), "{printed}");
        }
    });
}
