//! Chips that are wanted by somebody else: asked for, waited for, taken; and runs that end in all the ways there are.

use minke_lab::{End, Event, RunId, State, Verb};

use crate::place::Place;

/// What the machine's stint of a run is changed to.
fn stint(place: &Place, run: RunId, change: impl FnOnce(&mut crate::world::Stint)) {
    let mut machine = place.machine.borrow_mut();
    let (_, last) = machine.stints.iter_mut().rfind(|((id, _), _)| *id == run).expect("a stint");
    change(last);
}

fn verbs(place: &Place, run: RunId) -> Vec<Verb> {
    place.host.store().decisions(Some(run)).unwrap().iter().map(|decision| decision.verb).collect()
}

/// Ada's run has both chips for long; then Ben has an idea.
fn wanted() -> (Place, RunId, RunId) {
    let mut place = Place::new(2);
    let [ada, ben] = ["Ada", "Ben"].map(|name| place.person(name));
    let (_, long) = place.try_idea(ada, "A long run", 2);
    for _ in 0..60 {
        place.wait(60);
    }
    assert_eq!(place.state(long), State::Running);
    let (_, short) = place.try_idea(ben, "Something quick", 1);
    (place, long, short)
}

#[test]
fn a_run_gives_way_saves_and_goes_on() {
    let (mut place, long, short) = wanted();
    assert!(matches!(place.state(long), State::Suspending { acknowledged: false, .. }), "{:?}", place.state(long));
    assert_eq!(place.state(short), State::Waiting);
    stint(&place, long, |stint| {
        assert!(stint.asked);
        stint.acknowledged = true;
    });
    // Saving takes longer than hearing may.
    place.wait(120);
    assert!(matches!(place.state(long), State::Suspending { acknowledged: true, .. }));
    stint(&place, long, |stint| stint.end = Some(End::Exit(75)));
    place.wait(1);
    assert_eq!((place.state(long), place.state(short)), (State::Waiting, State::Starting));
    assert!(!verbs(&place, long).contains(&Verb::Lost), "what was saved is not lost");
    let why = place.host.lab().why(long, place.now).unwrap();
    assert!(why.starts_with("Suspended"), "{why}");
    place.wait(1);
    stint(&place, short, |stint| stint.end = Some(End::Exit(0)));
    place.wait(1);
    assert_eq!((place.state(short), place.state(long)), (State::Done, State::Starting));
    assert_eq!(verbs(&place, long).last(), Some(&Verb::Start));
    assert_eq!(place.host.lab().runs()[&long].segments.len(), 2);
}

#[test]
fn a_run_that_does_not_listen_is_ended_and_loses_only_what_it_did_not_save() {
    let (mut place, long, short) = wanted();
    place.wait(59);
    assert!(matches!(place.state(long), State::Suspending { .. }));
    place.wait(2);
    assert!(matches!(place.state(long), State::Ending { for_good: false, .. }));
    place.wait(1);
    assert_eq!((place.state(long), place.state(short)), (State::Waiting, State::Starting));
    let verbs = verbs(&place, long);
    assert!(verbs.contains(&Verb::Kill) && verbs.contains(&Verb::Lost), "{verbs:?}");
}

#[test]
fn every_end_leads_where_it_should() {
    for (end, expected) in [
        (End::Exit(0), State::Done),
        (End::Exit(1), State::Failed),
        (End::Signal(11), State::Failed),
        (End::Broke("wrote too much".into()), State::Failed),
        (End::NotStarted("no such program".into()), State::Failed),
        // Started again at once, for its chips are free.
        (End::Exit(75), State::Starting),
        (End::Signal(9), State::Starting),
        (End::Vanished, State::Starting),
    ] {
        let mut place = Place::new(1);
        let ada = place.person("Ada");
        let (_, run) = place.try_idea(ada, "One", 1);
        place.wait(1);
        stint(&place, run, |stint| stint.end = Some(end.clone()));
        place.wait(1);
        assert_eq!(place.state(run), expected, "{end:?}");
    }
}

#[test]
fn a_run_that_gets_nowhere_is_given_up() {
    let mut place = Place::new(1);
    let ada = place.person("Ada");
    let (_, run) = place.try_idea(ada, "Dies at once", 1);
    for _ in 0..3 {
        place.wait(1);
        stint(&place, run, |stint| stint.end = Some(End::Signal(9)));
    }
    place.wait(1);
    assert_eq!(place.state(run), State::Failed);
    let why = place.host.lab().why(run, place.now).unwrap();
    assert!(why.contains("3 times in a row without any progress"), "{why}");
    // One that gets further each time is not.
    let (_, run) = place.try_idea(ada, "Dies now and then", 1);
    for step in 1..10 {
        place.wait(1);
        stint(&place, run, |stint| stint.step = step);
        place.wait(1);
        stint(&place, run, |stint| stint.end = Some(End::Signal(9)));
    }
    place.wait(1);
    assert!(place.state(run).holds_chips(), "{:?}", place.state(run));
}

#[test]
fn a_stopped_run_saves_first_and_stays_stopped() {
    let mut place = Place::new(1);
    let ada = place.person("Ada");
    let (_, run) = place.try_idea(ada, "One", 1);
    place.wait(1);
    place.tell(Event::Stop { by: ada, run });
    stint(&place, run, |stint| {
        assert!(stint.asked);
        stint.end = Some(End::Exit(75));
    });
    place.wait(1);
    assert_eq!(place.state(run), State::Stopped);
    // One that waits is stopped at once, one that does not listen after a while.
    let (_, first) = place.try_idea(ada, "Two", 1);
    let (_, waits) = place.try_idea(ada, "Three", 1);
    place.tell(Event::Stop { by: ada, run: waits });
    assert_eq!(place.state(waits), State::Stopped);
    place.wait(1);
    place.tell(Event::Stop { by: ada, run: first });
    place.wait(29);
    assert!(place.state(first).holds_chips());
    place.wait(2);
    place.wait(1);
    assert_eq!(place.state(first), State::Stopped);
}

#[test]
fn orders_that_were_lost_with_the_process_are_given_again() {
    let mut place = Place::new(2);
    let [ada, ben] = ["Ada", "Ben"].map(|name| place.person(name));
    place.machine.borrow_mut().orders_left = Some(0);
    let (_, long) = place.try_idea(ada, "A long run", 2);
    assert_eq!(place.machine.borrow().stints.len(), 0);
    place.restart();
    assert_eq!(place.machine.borrow().stints.len(), 1);
    for _ in 0..60 {
        place.wait(60);
    }
    place.machine.borrow_mut().orders_left = Some(0);
    place.try_idea(ben, "Something quick", 1);
    assert!(matches!(place.state(long), State::Suspending { .. }));
    place.restart();
    stint(&place, long, |stint| assert!(stint.asked));
    place.machine.borrow_mut().orders_left = Some(0);
    place.wait(61);
    assert!(matches!(place.state(long), State::Ending { for_good: false, .. }));
    place.restart();
    stint(&place, long, |stint| assert_eq!(stint.end, Some(End::Signal(9))));
}

/// While a run that was asked saves, its chips count as coming: nobody else is asked for the sake of the same run.
#[test]
fn no_more_chips_are_asked_for_than_are_wanted() {
    let mut place = Place::new(2);
    let [ada, ben] = ["Ada", "Ben"].map(|name| place.person(name));
    let (first, second) = (place.try_idea(ada, "One", 1).1, place.try_idea(ada, "Two", 1).1);
    for _ in 0..100 {
        place.wait(60);
    }
    let (_, short) = place.try_idea(ben, "Something quick", 1);
    let asked = |place: &Place| {
        [first, second].into_iter().filter(|run| matches!(place.state(*run), State::Suspending { .. })).count()
    };
    assert_eq!(asked(&place), 1);
    place.wait(30);
    assert_eq!((asked(&place), place.state(short)), (1, State::Waiting));
    let why = place.host.lab().why(short, place.now).unwrap();
    assert!(why.contains("is about to give its chips back"), "{why}");
}

/// What people have had, and what is left of their lanes, is kept as everything else is.
#[test]
fn accounts_outlive_the_process() {
    let mut place = Place::new(1);
    let [ada, ben] = ["Ada", "Ben"].map(|name| place.person(name));
    let (_, long) = place.try_idea(ada, "A long run", 1);
    for _ in 0..30 {
        place.wait(60);
    }
    place.try_idea(ben, "Another", 1);
    let accounts = |place: &Place| [ada, ben].map(|person| place.host.lab().people()[&person].account);
    let before = accounts(&place);
    // Half an hour of one chip. The lane fills as fast as somebody alone can spend it. Ben saved nothing up before he came.
    assert_eq!((before[0].served_chip_s, before[0].at_work), (1800.0, true));
    assert!((0.0..=60.0).contains(&before[0].lane_chip_s), "{before:?}");
    assert_eq!(before[1].served_chip_s, 1800.0);
    let why = place.host.lab().why(long, place.now);
    place.restart();
    assert_eq!(accounts(&place), before);
    assert_eq!(place.host.lab().why(long, place.now), why);
}
