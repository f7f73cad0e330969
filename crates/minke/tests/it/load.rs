//! Server and runs killed under load, at moments that nobody chose: no run is lost, none is there twice, no chip has two.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use minke_kernels::random::Random;

use crate::lab::Lab;

const CHIPS: usize = 2;
const RUNS: u64 = 6;
const STEPS: u64 = 60;
const KILLS: u64 = 10;

/// Counts up to `STEPS` and says how far it is. Whoever finds another of its kind at work in its directory says so too.
const PROGRAM: &str = r#"
exec 9> "$MINKE_RUN/lock"; flock -n 9 || echo twice >> "$MINKE_RUN/twice"
step=$(cat "$MINKE_RUN/checkpoint" 2>/dev/null || echo 0)
while [ "$step" -lt STEPS ]; do
    sleep 0.05
    step=$((step + 1))
    echo "$step" >> "$MINKE_RUN/steps"
    echo "$step" > "$MINKE_RUN/checkpoint.new" && mv "$MINKE_RUN/checkpoint.new" "$MINKE_RUN/checkpoint"
    echo "{\"step\": $step, \"steps\": STEPS, \"checkpoint\": $step}" > "$MINKE_PROGRESS.new"
    mv "$MINKE_PROGRESS.new" "$MINKE_PROGRESS"
done
"#;

/// The runs that are at work now, by their own words, and a shell of each.
fn at_work(words: &[String]) -> BTreeMap<&String, u32> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let found = pids.filter_map(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let mut arguments = line.split(|byte| *byte == 0);
        if arguments.next()? != b"sh" {
            return None;
        }
        let word = arguments.find_map(|argument| words.iter().find(|word| word.as_bytes() == argument))?;
        Some((word, pid))
    });
    found.collect()
}

#[test]
fn kills_under_load_lose_nothing() {
    let mut lab = Lab::with_chips(CHIPS);
    let began = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let mut random = Random::new(began, [0; 3]);
    let words: Vec<String> = (0..RUNS).map(|run| format!("load-{began}-{run}")).collect();
    let program = PROGRAM.replace("STEPS", &STEPS.to_string());
    for word in &words {
        lab.run(&["try", &format!("counting {word}"), "--repeat", "go-on", "--", "sh", "-c", &program, word]);
    }
    let (mut killed, mut next) = ([0, 0], Instant::now());
    let begin = Instant::now();
    loop {
        let working = at_work(&words);
        assert!(working.len() <= CHIPS, "{} at work on {CHIPS} chips: {working:?} ({began})", working.len());
        let runs = lab.json(&["runs", "--json"]);
        let states: Vec<&str> = runs.as_array().unwrap().iter().map(|run| run["state"].as_str().unwrap()).collect();
        let holding = states.iter().filter(|state| ["starting", "running", "suspending", "ending"].contains(state));
        assert!(holding.count() <= CHIPS, "{runs:#} ({began})");
        assert!(!states.contains(&"failed"), "{runs:#} ({began})");
        if states.iter().all(|state| *state == "done") {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(180), "{runs:#} ({began})");
        if killed[0] + killed[1] < KILLS && Instant::now() >= next {
            match (random.below(2), working.first_key_value()) {
                (0, Some((_, pid))) => {
                    // It may have ended since.
                    let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
                    killed[0] += 1;
                }
                _ => {
                    lab.restart();
                    killed[1] += 1;
                }
            }
            next = Instant::now() + Duration::from_millis(u64::from(random.below(1500)));
        }
        sleep(Duration::from_millis(20));
    }
    eprintln!("killed {} runs and {} servers ({began})", killed[0], killed[1]);
    assert_eq!(killed[0] + killed[1], KILLS, "the load was over too soon ({began})");
    for run in 1..=RUNS {
        let file = |name: &str| fs::read_to_string(lab.files(run).join(name));
        assert!(file("twice").is_err(), "run {run} was there twice ({began})");
        let steps: Vec<u64> = file("steps").unwrap().lines().map(|line| line.parse().unwrap()).collect();
        // A step that was cut off before its checkpoint is taken again; none is left out.
        assert_eq!((steps.first(), steps.last()), (Some(&1), Some(&STEPS)), "run {run} ({began})");
        assert!(steps.windows(2).all(|pair| pair[1] == pair[0] + 1 || pair[1] == pair[0]), "{steps:?} ({began})");
    }
}
