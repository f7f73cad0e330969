//! Days that are made up, played with every policy: no chip is held twice, work is done once, every job ends.

use std::fmt::Write as _;

use minke_lab::simulate::{Outcome, Rule, SWITCH_S, Trace, simulate};

use crate::random::Random;

const RULES: [Rule; 4] = [Rule::Minke, Rule::Fifo, Rule::Fairshare, Rule::Tiresias];
const HEADER: &str = "submit_s,duration_s,chips,person\n";

/// A few hundred jobs of a few people: most are short, some are long or large, and now and then many come at once.
fn made_up(seed: u64, chips: u32) -> Trace {
    let mut random = Random::new(seed);
    let (mut csv, mut at) = (HEADER.to_string(), 0);
    for _ in 0..200 {
        at += if random.one_in(3) { 0 } else { random.below(1500) };
        let duration = [60, 600, 4000, 40_000][random.below(4) as usize];
        let wants = [1, 1, 2, random.below(u64::from(chips)) + 1][random.below(4) as usize].min(u64::from(chips));
        let _ = writeln!(csv, "{at},{},{wants},P{}", random.below(duration) + 1, random.below(5));
    }
    Trace::parse(&csv, chips).unwrap()
}

fn check(trace: &Trace, chips: u32, outcome: &Outcome) {
    let mut changes: Vec<(u64, i64)> = Vec::new();
    let mut worked = vec![0; trace.jobs.len()];
    let mut ended = vec![0; trace.jobs.len()];
    for stint in &outcome.stints {
        let job = &trace.jobs[stint.job];
        assert!(stint.from >= job.submitted && stint.from >= ended[stint.job], "{stint:?} begins too soon");
        ended[stint.job] = stint.until;
        worked[stint.job] += (stint.until - stint.from).saturating_sub(SWITCH_S * 1000);
        changes.extend([(stint.from, i64::from(job.chips)), (stint.until, -i64::from(job.chips))]);
    }
    for (at, job) in trace.jobs.iter().enumerate() {
        assert_eq!(worked[at], job.runs_ms, "job {at} is not done once");
    }
    // Who gives chips back at a moment does so before somebody gets them.
    changes.sort_unstable();
    let mut held = 0;
    for (at, change) in changes {
        held += change;
        assert!(held <= i64::from(chips), "{held} of {chips} chips are held at {at}");
    }
    let numbers = &outcome.numbers;
    assert!(numbers.busy > 0.3 && numbers.busy <= 1.0 + 1e-9, "{numbers:?}");
    assert!(numbers.jain.is_none_or(|jain| jain > 0.0 && jain <= 1.0 + 1e-9), "{numbers:?}");
    assert!(numbers.wait_p50_s <= numbers.wait_p95_s && numbers.wait_p95_s <= numbers.wait_max_s, "{numbers:?}");
}

#[test]
fn chips_and_work_are_conserved() {
    for seed in 1..=12 {
        let chips = [1, 3, 8, 32][seed as usize % 4];
        let trace = made_up(seed, chips);
        for rule in RULES {
            let outcome = simulate(&trace, chips, rule);
            check(&trace, chips, &outcome);
            assert_eq!(simulate(&trace, chips, rule), outcome, "{rule:?} is not deterministic");
            if matches!(rule, Rule::Fifo | Rule::Fairshare) {
                assert_eq!(outcome.numbers.preemptions, 0);
            }
        }
    }
}

#[test]
fn a_day_of_four_jobs_in_numbers() {
    let csv = format!("{HEADER}0,5970,1,Ada\n0,11970,1,Ada\n0,5970,2,Ben\n600,2970,1,Ben\n");
    let trace = Trace::parse(&csv, 2).unwrap();
    let numbers = simulate(&trace, 2, Rule::Fifo).numbers;
    // Ada's two run at once, to 6000 s and 12,000 s; Ben's small one fits in from 6000 s to 9000 s, his large one from 12,000 s
    // to 18,000 s.
    let close = |a: f64, b: f64| (a - b).abs() < 1e-6;
    assert_eq!((numbers.jobs, numbers.people, numbers.preemptions), (4, 2, 0));
    assert_eq!((numbers.wait_p50_s, numbers.wait_p95_s, numbers.wait_max_s), (0.0, 12_000.0, 12_000.0));
    let slowdowns = [6000.0 / 5970.0, 12_000.0 / 11_970.0, 18_000.0 / 5970.0, 8400.0 / 2970.0];
    assert!(close(numbers.slowdown_mean, slowdowns.iter().sum::<f64>() / 4.0), "{numbers:?}");
    assert!(close(numbers.slowdown_p95, slowdowns[2]), "{numbers:?}");
    // Ada had 18,000 chip-seconds of 12,000, Ben 15,000 of 24,000.
    assert!(close(numbers.jain.unwrap(), 2.125 * 2.125 / (2.0 * (1.5 * 1.5 + 0.625 * 0.625))), "{numbers:?}");
    // Alone on one chip, Ada's would take 6000 s and 18,000 s, Ben's 12,000 s and 14,400 s.
    assert!(close(numbers.rho_max, 1.0), "{numbers:?}");
    assert!(close(numbers.busy, 33.0 / 36.0), "{numbers:?}");
    assert_eq!(numbers.switch_lost_s, 120.0);
}

/// What the policy is for: a new idea begins at once though all chips are held, and what it takes is given back.
#[test]
fn a_new_idea_begins_at_once_and_shares_even_out() {
    let long: String = (0..4).map(|_| "0,40000,1,Ada\n").collect();
    let trace = Trace::parse(&format!("{HEADER}{long}9000,570,2,Ben\n"), 4).unwrap();
    let outcome = simulate(&trace, 4, Rule::Minke);
    assert_eq!(outcome.numbers.wait_max_s, 0.0);
    assert_eq!(outcome.numbers.preemptions, 2);
    // Two people who both want all chips for long have half of the time each.
    let both: String = ["Ada", "Ben"].map(|name| format!("0,40000,4,{name}\n")).concat();
    let outcome = simulate(&Trace::parse(&format!("{HEADER}{both}"), 4).unwrap(), 4, Rule::Minke);
    assert!(outcome.numbers.jain.unwrap() > 0.99, "{:?}", outcome.numbers);
}
