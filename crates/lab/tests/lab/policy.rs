//! The policy on claims made up at random: who gets chips follows the rules, and every reason is true.

use std::collections::BTreeMap;

use minke_lab::policy::{Account, Accounts, Claim, Pace, Reason, Tenure, Verdict, plan};
use minke_lab::{IdeaId, PersonId, RunId, Share};

use crate::random::Random;

const NOW: u64 = 1_000_000_000;
const HOUR: f64 = 3600.0;

/// What the policy is asked.
struct Question {
    claims: Vec<Claim>,
    accounts: Accounts,
    chips: u32,
}

fn made_up(random: &mut Random) -> Question {
    let chips = random.below(12) as u32 + 1;
    let mut free = chips;
    let claims = (0..random.below(14) as u32 + 1).map(|i| {
        let wants = random.below(5) as u32 + 1;
        let person = |random: &mut Random| PersonId(random.below(4) as u32);
        let owners = match (person(random), person(random)) {
            (a, b) if a != b && random.one_in(4) => [a, b].map(|person| Share { person, share: 0.5 }).to_vec(),
            (person, _) => vec![Share { person, share: 1.0 }],
        };
        let holds = wants <= free && random.one_in(2);
        free -= if holds { wants } else { 0 };
        let ago = [30_000, 300_000, 5_000_000][random.below(3) as usize] + random.below(1000);
        Claim {
            run: RunId(i),
            idea: IdeaId(i),
            owners,
            chips: wants,
            submitted: NOW - 10_000_000 - random.below(1000),
            attained_chip_s: [0.3, 2.0, 9.0, 30.0][random.below(4) as usize] * HOUR,
            switch_s: [5.0, 30.0][random.below(2) as usize],
            starts: random.below(3) as u32 + 1,
            ran_s: random.below(4000) as f64,
            now: match holds {
                false => Tenure::Waits { since: NOW - ago },
                true if random.one_in(6) => Tenure::Leaving,
                true => Tenure::Holds { since: NOW - ago },
            },
        }
    });
    let claims = claims.collect();
    let account = |random: &mut Random| Account {
        served_chip_s: random.below(20) as f64 * HOUR / 2.0,
        lane_chip_s: [0.0, 1000.0 * HOUR][random.below(2) as usize],
        at_work: true,
    };
    let accounts = (0..4).map(|person| (PersonId(person), account(random))).collect();
    Question { claims, accounts, chips }
}

fn waits(claim: &Claim) -> bool {
    matches!(claim.now, Tenure::Waits { .. })
}

/// Until when a claim may keep the chips that it holds: two minutes, and until its starts are a twentieth of its time.
fn until(claim: &Claim) -> u64 {
    let Tenure::Holds { since } = claim.now else { return 0 };
    let owed_s = (20.0 * claim.switch_s * f64::from(claim.starts) - claim.ran_s).max(120.0);
    since + (owed_s * 1000.0) as u64
}

fn kept(claim: &Claim) -> bool {
    until(claim) > NOW
}

fn has_waited_long(claim: &Claim) -> bool {
    let long_ms = 3_600_000_u64.max((2000.0 * claim.ran_s) as u64);
    matches!(claim.now, Tenure::Waits { since } if NOW - since >= long_ms)
}

/// Whether a reason of a verdict is so.
fn is_true(reason: &Reason, verdict: &Verdict, by_run: &BTreeMap<RunId, (&Claim, bool)>, chips: u32) -> bool {
    let (me, _) = by_run[&verdict.run];
    let other = |run: &RunId| by_run[run].0;
    let starts = |run: &RunId| by_run[run].1 && waits(by_run[run].0);
    let asked = |run: &RunId| !by_run[run].1 && matches!(by_run[run].0.now, Tenure::Holds { .. });
    match reason {
        Reason::ChipsFree { free, of } => me.chips <= *free && *of == chips && waits(me),
        Reason::TooBig { wants, of } => wants > of && *wants == me.chips && *of == chips,
        Reason::LessAttained { than, by } => {
            *by > 0.0 && asked(than) && *by == other(than).attained_chip_s - me.attained_chip_s
        }
        Reason::GivesWay { to, by } => *by > 0.0 && starts(to) && *by == me.attained_chip_s - other(to).attained_chip_s,
        Reason::Behind { run, than, by } => *by >= HOUR - 1e-6 && starts(run) && asked(than),
        Reason::WaitedLong { run, since, ran_s } => {
            let waited_s = (NOW - since) as f64 / 1000.0;
            (other(run).now, other(run).ran_s) == (Tenure::Waits { since: *since }, *ran_s)
                && starts(run)
                && waited_s >= HOUR.max(2.0 * ran_s - 0.001)
        }
        Reason::LaneSpent { run } => other(run).attained_chip_s < HOUR && asked(run),
        Reason::MinimumStint { run, until: at } => kept(other(run)) && *at == until(other(run)),
        Reason::After { run } => *run != me.run && by_run[run].1,
        Reason::Leaving { run } => other(run).now == Tenure::Leaving,
        Reason::Fits => me.chips <= chips,
        _ => false,
    }
}

#[test]
fn rules_hold_and_reasons_are_true() {
    let mut random = Random::new(7);
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..20_000 {
        let Question { claims, accounts, chips } = made_up(&mut random);
        let verdicts = plan(&claims, &accounts, Pace::default(), chips, NOW);
        assert_eq!(verdicts, plan(&claims, &accounts, Pace::default(), chips, NOW));
        let mut by_run: BTreeMap<RunId, (&Claim, bool)> =
            claims.iter().map(|claim| (claim.run, (claim, false))).collect();
        for verdict in &verdicts {
            by_run.get_mut(&verdict.run).unwrap().1 = verdict.holds;
        }
        let holds = |filter: &dyn Fn(&Claim) -> bool| -> u32 {
            by_run.values().filter(|(claim, holds)| *holds && filter(claim)).map(|(claim, _)| claim.chips).sum()
        };
        assert!(holds(&|_| true) <= chips, "{claims:?}");
        // Chips that are not there yet come from those who leave or are asked.
        // Nobody is asked within a stint, but for a fresh run or one that has waited long.
        let first = |claim: &Claim| waits(claim) && (claim.attained_chip_s < HOUR || has_waited_long(claim));
        let first_starts = by_run.values().any(|(claim, holds)| *holds && first(claim));
        for claim in claims.iter().filter(|claim| kept(claim)) {
            assert!(by_run[&claim.run].1 || first_starts, "{claim:?} has not had its stint");
        }
        for verdict in &verdicts {
            let (claim, _) = by_run[&verdict.run];
            let says_nothing = verdict.holds && !waits(claim);
            assert_eq!(verdict.because.is_empty(), says_nothing, "{verdict:?} of {claims:?}");
            for reason in &verdict.because {
                assert!(is_true(reason, verdict, &by_run, chips), "{verdict:?} is not true of {claims:?}");
                let kind = format!("{reason:?}");
                *kinds.entry(kind.split(' ').next().unwrap_or_default().to_string()).or_default() += 1;
            }
            // Whoever has waited long is kept out only by others who come first.
            if !verdict.holds && has_waited_long(claim) && claim.attained_chip_s >= HOUR {
                let later = |other: &Claim| other.attained_chip_s >= HOUR && !waits(other);
                assert!(holds(&later) < claim.chips, "{claim:?} of {claims:?}");
            }
        }
    }
    // Each of the reasons that a policy can give is there, often.
    for kind in [
        "ChipsFree",
        "LessAttained",
        "GivesWay",
        "Behind",
        "WaitedLong",
        "LaneSpent",
        "MinimumStint",
        "After",
        "Leaving",
    ] {
        assert!(kinds.get(kind).is_some_and(|times| *times > 50), "{kind} is too rare: {kinds:?}");
    }
}

/// Two claims on one chip, the second of which holds it: does the first get it?
fn gets(first: (f64, f64, u64), second: (f64, f64, u64), lane_h: f64) -> bool {
    let claim = |run: u32, (attained_h, _, ago_s): (f64, f64, u64), holds: bool| Claim {
        run: RunId(run),
        idea: IdeaId(run),
        owners: vec![Share { person: PersonId(run), share: 1.0 }],
        chips: 1,
        submitted: 0,
        attained_chip_s: attained_h * HOUR,
        switch_s: 5.0,
        starts: 1,
        ran_s: attained_h * HOUR,
        now: match NOW - 1000 * ago_s {
            since if holds => Tenure::Holds { since },
            since => Tenure::Waits { since },
        },
    };
    let account = |served_h: f64| Account { served_chip_s: served_h * HOUR, lane_chip_s: lane_h * HOUR, at_work: true };
    let accounts = [(PersonId(1), account(first.1)), (PersonId(2), account(second.1))].into_iter().collect();
    let verdicts = plan(&[claim(1, first, false), claim(2, second, true)], &accounts, Pace::default(), 1, NOW);
    verdicts.iter().any(|verdict| verdict.run == RunId(1) && verdict.holds)
}

#[test]
fn who_comes_first() {
    // What two who share a chip may have of the lane, in hours: half a day each.
    let (lane, spent) = (0.0, 12.0);
    // (hours its idea has had, hours its person has had, seconds that it waits or holds)
    for (first, second, lane, expected, what) in [
        ((0.0, 50.0, 0), (2.0, 0.0, 130), lane, true, "a new idea, whoever's it is"),
        ((0.0, 50.0, 0), (2.0, 0.0, 1), lane, true, "at once"),
        (
            (0.0, 50.0, 0),
            (2.0, 60.0, 130),
            spent,
            false,
            "but not when the lane is spent: then it is of the second class",
        ),
        ((0.0, 50.0, 0), (9.0, 0.0, 130), spent, true, "which comes before the third"),
        ((2.0, 50.0, 0), (9.0, 0.0, 110), lane, false, "but not within a stint"),
        ((9.0, 10.0, 0), (20.0, 11.5, 130), lane, true, "in the third, whoever has had less"),
        ((9.0, 10.0, 0), (20.0, 10.5, 130), lane, false, "but not for a little"),
        ((9.0, 90.0, 65_000), (20.0, 1.0, 130), lane, true, "whoever has waited twice as long as it ran"),
        ((9.0, 90.0, 64_000), (20.0, 1.0, 130), lane, false, "and not sooner"),
    ] {
        assert_eq!(gets(first, second, lane), expected, "{what}");
    }
}

#[test]
fn whoever_has_run_for_long_can_be_asked_soon() {
    // (starts, seconds run before, seconds since the last start) where a start costs 30 s: may it be asked?
    for (starts, ran_s, since_s, expected) in [
        (1, 0.0, 599, false),
        (1, 0.0, 600, true),
        (2, 600.0, 599, false),
        (2, 4000.0, 119, false),
        (2, 4000.0, 120, true),
    ] {
        let claim = |run: u32, attained_chip_s: f64, now: Tenure| Claim {
            run: RunId(run),
            idea: IdeaId(run),
            owners: vec![Share { person: PersonId(run), share: 1.0 }],
            chips: 1,
            submitted: 0,
            attained_chip_s,
            switch_s: 30.0,
            starts,
            ran_s,
            now,
        };
        let holds = claim(1, 9.0 * HOUR, Tenure::Holds { since: NOW - 1000 * since_s });
        let second = claim(2, 2.0 * HOUR, Tenure::Waits { since: NOW });
        let verdicts = plan(&[holds, second], &Accounts::default(), Pace::default(), 1, NOW);
        let gives_way = verdicts.iter().any(|verdict| verdict.run == RunId(1) && !verdict.holds);
        assert_eq!(gives_way, expected, "{starts} starts, {ran_s} s, {since_s} s");
    }
}
