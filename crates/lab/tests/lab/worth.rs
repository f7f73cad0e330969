//! What the way of working is worth, on a day that can be reckoned by hand.

use minke_lab::{Choice, End, Event, Likeness};

use crate::place::Place;

#[test]
fn a_day_in_numbers() {
    let mut place = Place::new(2);
    let [ada, ben] = ["Ada", "Ben"].map(|name| place.person(name));
    let (idea, run) = place.try_idea(ada, "Do longer thoughts help sums?", 1);
    place.wait(10);
    place.machine.borrow_mut().stints.values_mut().for_each(|stint| stint.step = 1);
    place.wait(10);
    // Ben has much the same idea, is told so, and joins.
    let shown = place.host.lab().repeats("longer thoughts help with sums", &Default::default());
    assert_eq!((shown.len(), shown[0].idea, shown[0].run), (1, idea, Some(run)));
    assert_eq!(shown[0].like, Likeness::Exact);
    let sentence = "longer thoughts help with sums".to_string();
    let advice = match place.tell(Event::Advise { by: ben, sentence, shown }).as_slice() {
        [minke_lab::Action::Advised(id)] => *id,
        other => panic!("{other:?}"),
    };
    place.refusal(Event::Choose { by: ada, advice, choice: Choice::Join });
    place.tell(Event::Choose { by: ben, advice, choice: Choice::Join });
    place.wait(3580);
    place.machine.borrow_mut().stints.values_mut().for_each(|stint| stint.end = Some(End::Exit(0)));
    place.wait(0);
    let worth = place.host.lab().worth(place.now);
    assert_eq!((worth.people, worth.ideas, worth.runs, worth.done), (2, 1, 1, 1));
    assert_eq!(worth.within_a_minute, Some(1.0));
    assert_eq!(worth.first_step_p50_s, Some(20.0));
    assert_eq!((worth.repeats_shown, worth.repeats_spared, worth.joins), (1, 1, 0));
    assert!((worth.chip_h - 1.0).abs() < 1e-9 && (worth.spared_chip_h - 1.0).abs() < 1e-9, "{worth:?}");
    // One chip was wanted and held; the other nobody wanted.
    assert_eq!(worth.busy, Some(1.0));
}
