//! A thousand histories in which the lab's process dies at any moment: no run is lost, none runs twice, no chip is held twice,
//! and every decision is true.

use std::collections::BTreeMap;

use minke_lab::policy::Reason;
use minke_lab::{
    Action, Decision, End, Event, Fingerprint, IdeaId, LinkId, LinkKind, PersonId, RunId, State, Verb, Which,
};

use crate::place::Place;
use crate::random::Random;

/// Stints work, save, fail and vanish.
fn live(place: &Place, random: &mut Random, gently: bool) {
    for (_, stint) in place.machine.borrow_mut().stints.iter_mut().filter(|(_, stint)| stint.end.is_none()) {
        stint.step += random.below(3);
        if stint.asked && !stint.acknowledged {
            stint.acknowledged = random.one_in(2);
        } else if stint.asked {
            stint.end = random.one_in(2).then_some(End::Exit(75));
        } else if random.one_in(12) || gently && random.one_in(3) {
            let ends = [End::Exit(0), End::Exit(1), End::Signal(9), End::Vanished, End::Signal(11), End::Exit(75)];
            stint.end = Some(if gently { End::Exit(0) } else { ends[random.below(6) as usize].clone() });
        }
    }
}

/// Something that a person might do, sensible or not.
fn whim(random: &mut Random, chips: u32) -> Event {
    let by = PersonId(random.below(5) as u32 + 1);
    let idea = IdeaId(random.below(8) as u32 + 1);
    match random.below(16) {
        0 => Event::Arrived { name: format!("P{}", random.below(5)) },
        1..=5 => Event::Try {
            by,
            idea: if random.one_in(3) {
                Which::Known(idea)
            } else {
                Which::New { sentence: format!("idea {}", random.below(100)), parent: None }
            },
            command: vec!["work".into()],
            chips: random.below(u64::from(chips) + 1) as u32,
            tree: String::new(),
            fingerprint: Fingerprint::default(),
        },
        6 => Event::Stop { by, run: RunId(random.below(20) as u32 + 1) },
        7 => Event::Ask { by, kind: LinkKind::Join, idea, to: None, message: String::new() },
        8 => Event::Ask {
            by,
            kind: LinkKind::Invite,
            idea,
            to: Some(PersonId(random.below(5) as u32 + 1)),
            message: String::new(),
        },
        9 => Event::Ask {
            by,
            kind: LinkKind::Merge(IdeaId(random.below(8) as u32 + 1)),
            idea,
            to: None,
            message: String::new(),
        },
        10 | 11 => Event::Answer { by, link: LinkId(random.below(8) as u32 + 1), yes: !random.one_in(3) },
        12 => Event::Leave { by, idea },
        13 => Event::Park { by, idea, parked: random.one_in(2) },
        _ => Event::Tick,
    }
}

/// What must hold at every moment.
fn check(place: &Place, accepted: &BTreeMap<RunId, u32>) {
    let lab = place.host.lab();
    for (run, chips) in accepted {
        assert_eq!(lab.runs().get(run).map(|run| run.chips), Some(*chips), "{run:?} is lost");
    }
    for (run, _) in place.machine.borrow().alive().map(|(key, _)| key) {
        assert!(lab.runs()[run].state.holds_chips(), "{run:?} runs, and the lab has it as {:?}", lab.runs()[run].state);
    }
    for run in lab.runs().values() {
        let shares: f64 = run.owners.iter().map(|owner| owner.share).sum();
        assert!((shares - 1.0).abs() < 1e-9, "{:?} is charged {shares} times", run.id);
        assert_eq!(run.state.holds_chips(), run.segments.last().is_some_and(|s| s.ended.is_none()), "{:?}", run.id);
    }
}

/// Whether what a decision says was so. `machine_before` are the stints that were alive before it.
fn check_decision(place: &Place, decision: &Decision) {
    let lab = place.host.lab();
    let run = &lab.runs()[&decision.run];
    let at = decision.at;
    let machine = place.machine.borrow();
    match decision.verb {
        Verb::Start => {
            let segment = run.segments.iter().find(|s| s.reserved == at).expect("a stint that was reserved then");
            assert_eq!(segment.chips.len(), run.chips as usize);
        }
        Verb::Suspend => {
            let stint = run.segments.iter().rfind(|s| s.reserved <= at).expect("a stint");
            assert!(stint.started.is_some(), "{decision:?} comes before its start");
            // Only what comes first whoever holds chips may ask within a stint.
            let in_class = decision.because.iter().any(|reason| matches!(reason, Reason::Behind { .. }));
            assert!(!in_class || at >= stint.reserved + 120_000, "{decision:?} is too soon");
            let says_for_whom = |reason: &Reason| {
                matches!(
                    reason,
                    Reason::GivesWay { .. }
                        | Reason::Behind { .. }
                        | Reason::WaitedLong { .. }
                        | Reason::LaneSpent { .. }
                )
            };
            assert!(decision.because.iter().any(says_for_whom), "{decision:?}");
        }
        Verb::Kill => {
            let asked = place.host.store().decisions(Some(run.id)).unwrap();
            let asked = asked.iter().rfind(|d| d.verb == Verb::Suspend && d.id < decision.id).expect("asked before");
            assert!(at >= asked.at + 60_000, "{decision:?}");
        }
        Verb::Lost | Verb::End | Verb::Wait | Verb::Stop => {}
    }
    for reason in &decision.because {
        match reason {
            Reason::Ended { end } => {
                let known = machine
                    .stints
                    .iter()
                    .filter(|((id, _), _)| *id == run.id)
                    .any(|(_, s)| s.end.as_ref() == Some(end));
                assert!(known, "{decision:?} is not what happened");
            }
            Reason::ChipsFree { free, of } => {
                assert!(free <= of && *of == lab.chips() && run.chips <= *free, "{decision:?}")
            }
            Reason::TooBig { wants, of } => assert!(wants > of && *wants == run.chips, "{decision:?}"),
            Reason::MinimumStint { run: other, until } => {
                let stint = lab.runs()[other].segments.iter().rfind(|s| s.reserved <= at).expect("a stint");
                assert!(*until > at && stint.ended.as_ref().is_none_or(|(ended, _)| *ended >= at), "{decision:?}");
            }
            Reason::LessAttained { than, by } => {
                assert!(*by >= 0.0 && *than != run.id && lab.runs()[than].submitted <= at, "{decision:?}");
            }
            Reason::After { run: other } | Reason::GivesWay { to: other, .. } => {
                let other = &lab.runs()[other];
                assert!(other.submitted <= at && other.id != run.id, "{decision:?}");
            }
            Reason::WaitedLong { run: other, since, ran_s } => {
                let waited_s = (at - since) as f64 / 1000.0;
                assert!(waited_s >= 3600.0 && waited_s >= 2.0 * ran_s - 0.001, "{decision:?}");
                assert!(lab.runs()[other].submitted <= *since, "{decision:?}");
            }
            Reason::LaneSpent { run: other } => assert_eq!(*other, run.id, "{decision:?}"),
            Reason::Behind { run: other, than, by } => {
                assert!(*by >= 3600.0 - 1e-6 && other != than && [other, than].contains(&&run.id), "{decision:?}");
            }
            Reason::Leaving { run: other } => {
                let stint = lab.runs()[other].segments.iter().rfind(|s| s.reserved <= at).expect("a stint");
                assert!(stint.ended.as_ref().is_none_or(|(ended, _)| *ended >= at), "{decision:?}");
            }
            Reason::LostAgain { times } => assert_eq!(run.losses, *times),
            Reason::DidNotYield { waited_s } => assert!(*waited_s >= 60.0, "{decision:?}"),
            Reason::Fits => assert!(run.chips <= lab.chips(), "{decision:?}"),
            Reason::StoppedBy { .. } => {
                assert!(matches!(run.state, State::Stopped | State::Ending { for_good: true, .. }))
            }
        }
    }
    assert!(!decision.because.is_empty(), "{decision:?} says no reason");
    let sentence = lab.sentence(decision);
    assert!(sentence.ends_with('.') && sentence.len() > 10, "{sentence}");
}

/// One history; says how often the process died in it, and how many decisions there were.
fn history(seed: u64) -> (u32, usize) {
    let mut random = Random::new(seed);
    let chips = random.below(6) as u32 + 1;
    let mut place = Place::new(chips);
    let mut accepted = BTreeMap::new();
    let (mut deaths, mut seen) = (0, 0);
    for name in ["P0", "P1", "P2"] {
        place.person(name);
    }
    let mut step = |place: &mut Place, random: &mut Random, event: Event, dies: bool| {
        let wants = if let Event::Try { chips, .. } = &event { *chips } else { 0 };
        if dies {
            place.machine.borrow_mut().orders_left = Some(random.below(3) as u32);
        }
        for action in place.tell(event) {
            if let Action::Tried { run, .. } = action {
                accepted.insert(run, wants);
            }
        }
        if dies {
            deaths += 1;
            // The machine goes on without the lab for a while.
            live(place, random, false);
            place.now += random.below(100_000);
            place.restart();
        }
        check(place, &accepted);
        let decisions = place.host.store().decisions(None).unwrap();
        for decision in &decisions[seen..] {
            check_decision(place, decision);
        }
        seen = decisions.len();
    };
    for _ in 0..40 {
        place.now += random.below(200_000);
        live(&place, &mut random, false);
        let dies = random.one_in(4);
        let event = whim(&mut random, chips);
        step(&mut place, &mut random, event, dies);
        place.host.tick(place.now).unwrap();
    }
    // From now on all is well; so everything must come to an end.
    for _ in 0..2000 {
        if place.host.lab().runs().values().all(|run| run.state.is_over()) {
            break;
        }
        live(&place, &mut random, true);
        place.now += 60_000;
        place.host.tick(place.now).unwrap();
        step(&mut place, &mut random, Event::Tick, false);
    }
    let open: Vec<_> = place.host.lab().runs().values().filter(|run| !run.state.is_over()).collect();
    assert!(open.is_empty(), "never ended: {open:#?}");
    assert_eq!(place.machine.borrow().alive().count(), 0);
    (deaths, seen)
}

#[test]
fn a_thousand_histories_with_crashes() {
    let (mut deaths, mut decisions) = (0, 0);
    for seed in 0..1000 {
        let result = std::panic::catch_unwind(|| history(seed));
        let (died, decided) = result.unwrap_or_else(|panic| {
            eprintln!("history {seed}");
            std::panic::resume_unwind(panic)
        });
        (deaths, decisions) = (deaths + died, decisions + decided);
    }
    assert!(deaths > 5000 && decisions > 10_000, "{deaths} deaths and {decisions} decisions are too few to say much");
}
