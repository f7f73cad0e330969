//! Invitations, joins and mergers take effect only when both sides have said yes.

use minke_lab::{Action, Event, IdeaId, IdeaStatus, LinkId, LinkKind, LinkStatus, PersonId};

use crate::place::Place;

fn ask(place: &mut Place, by: PersonId, kind: LinkKind, idea: IdeaId, to: Option<PersonId>) -> LinkId {
    match place.tell(Event::Ask { by, kind, idea, to, message: "shall we?".into() }).as_slice() {
        [Action::Asked(link)] => *link,
        other => panic!("{other:?}"),
    }
}

fn authors(place: &Place, idea: IdeaId) -> Vec<PersonId> {
    place.host.lab().ideas()[&idea].authors.clone()
}

#[test]
fn a_join_waits_for_a_yes_and_then_shares_the_cost() {
    let mut place = Place::new(2);
    let [ada, ben, cleo] = ["Ada", "Ben", "Cleo"].map(|name| place.person(name));
    let (idea, run) = place.try_idea(ada, "Do longer thoughts help sums?", 1);
    let link = ask(&mut place, ben, LinkKind::Join, idea, None);
    assert_eq!(authors(&place, idea), [ada]);
    let answer = |by, yes| Event::Answer { by, link, yes };
    let why = place.refusal(answer(ben, true));
    assert!(why.contains("was put to Ada"), "{why}");
    place.refusal(answer(cleo, true));
    assert_eq!(place.tell(answer(ada, true)), [Action::Done]);
    assert_eq!(authors(&place, idea), [ada, ben]);
    let shares: Vec<f64> = place.host.lab().runs()[&run].owners.iter().map(|owner| owner.share).collect();
    assert_eq!(shares, [0.5, 0.5]);
    let why = place.refusal(answer(ada, true));
    assert!(why.contains("settled already"), "{why}");
    // What is charged from now on is charged to both.
    let had = |place: &Place, person| place.host.lab().people()[&person].chip_s;
    let before = [had(&place, ada), had(&place, ben)];
    place.wait(100);
    let gained = [had(&place, ada) - before[0], had(&place, ben) - before[1]];
    assert!((gained[0] - 50.0).abs() < 1e-6, "{gained:?}");
    assert!(gained[1] >= 50.0 - 1e-6, "{gained:?}");
}

#[test]
fn a_no_needs_no_reason_and_changes_nothing() {
    let mut place = Place::new(1);
    let [ada, ben] = ["Ada", "Ben"].map(|name| place.person(name));
    let (idea, _) = place.try_idea(ada, "Muon instead of AdamW", 1);
    let link = ask(&mut place, ada, LinkKind::Invite, idea, Some(ben));
    let again = Event::Ask { by: ada, kind: LinkKind::Invite, idea, to: Some(ben), message: String::new() };
    let why = place.refusal(again);
    assert!(why.contains("Ben has not answered yet"), "{why}");
    place.tell(Event::Answer { by: ben, link, yes: false });
    assert_eq!(authors(&place, idea), [ada]);
    assert_eq!(place.host.lab().links()[&link].status, LinkStatus::Declined);
    // A question can be taken back by who asked it, and by nobody else.
    let link = ask(&mut place, ada, LinkKind::Invite, idea, Some(ben));
    place.refusal(Event::Withdraw { by: ben, link });
    place.tell(Event::Withdraw { by: ada, link });
    place.refusal(Event::Answer { by: ben, link, yes: true });
    // And one that nobody answers is let go.
    let link = ask(&mut place, ada, LinkKind::Invite, idea, Some(ben));
    place.wait(15 * 24 * 3600);
    assert_eq!(place.host.lab().links()[&link].status, LinkStatus::Expired);
}

#[test]
fn two_ideas_become_one_when_both_sides_agree() {
    let mut place = Place::new(2);
    let [ada, ben] = ["Ada", "Ben"].map(|name| place.person(name));
    let (one, run) = place.try_idea(ada, "Longer thoughts help", 1);
    let (other, _) = place.try_idea(ben, "Thoughts that are longer help", 1);
    let link = ask(&mut place, ben, LinkKind::Merge(one), other, None);
    assert_eq!(authors(&place, other), [ben]);
    place.tell(Event::Answer { by: ada, link, yes: true });
    assert_eq!(authors(&place, other), [ben, ada]);
    assert_eq!(place.host.lab().ideas()[&one].status, IdeaStatus::Merged(other));
    assert_eq!(place.host.lab().runs()[&run].idea, other);
    let why = place.refusal(Event::Park { by: ada, idea: one, parked: true });
    assert!(why.contains("goes on as part of idea 2"), "{why}");
}

#[test]
fn leaving_is_always_allowed_and_ends_no_run() {
    let mut place = Place::new(1);
    let [ada, ben] = ["Ada", "Ben"].map(|name| place.person(name));
    let (idea, run) = place.try_idea(ada, "Smaller batches", 1);
    let link = ask(&mut place, ada, LinkKind::Invite, idea, Some(ben));
    place.tell(Event::Answer { by: ben, link, yes: true });
    place.tell(Event::Leave { by: ada, idea });
    assert_eq!(authors(&place, idea), [ben]);
    assert!(place.state(run).holds_chips());
    let owners = &place.host.lab().runs()[&run].owners;
    assert_eq!((owners.len(), owners[0].person, owners[0].share), (1, ben, 1.0));
    // Nobody is left: the run goes on at the cost of the last one.
    place.tell(Event::Leave { by: ben, idea });
    assert_eq!(place.host.lab().runs()[&run].owners.len(), 1);
    let why = place.refusal(Event::Ask { by: ada, kind: LinkKind::Join, idea, to: None, message: String::new() });
    assert!(why.contains("an idea of your own"), "{why}");
}

#[test]
fn what_makes_no_sense_is_refused_in_a_sentence() {
    let mut place = Place::new(2);
    let ada = place.person("Ada");
    let stranger = PersonId(77);
    let (idea, _) = place.try_idea(ada, "Anything", 1);
    let ben = place.person("Ben");
    let try_it = |by, chips, command: &[&str], sentence: &str| Event::Try {
        by,
        idea: minke_lab::Which::New { sentence: sentence.into(), parent: None },
        command: command.iter().map(|word| word.to_string()).collect(),
        chips,
        tree: String::new(),
        fingerprint: Default::default(),
    };
    let known = |by, idea| Event::Try {
        by,
        idea: minke_lab::Which::Known(idea),
        command: vec!["x".into()],
        chips: 1,
        tree: String::new(),
        fingerprint: Default::default(),
    };
    let before = place.host.lab().ideas().len();
    for (event, part) in [
        (Event::Arrived { name: " ada ".into() }, "somebody called ada already"),
        (Event::Arrived { name: "\n".into() }, "1 to 60 characters"),
        (try_it(stranger, 1, &["x"], "An idea"), "no person 77"),
        (try_it(ada, 3, &["x"], "An idea"), "3 chips are asked for, but there are 2"),
        (try_it(ada, 0, &["x"], "An idea"), "ask for 1 to 2"),
        (try_it(ada, 1, &[], "An idea"), "no command"),
        (try_it(ada, 1, &["x"], "  "), "the idea is empty"),
        (try_it(ada, 1, &["x"], &"long ".repeat(1000)), "shorten it"),
        (known(ben, idea), "belongs to Ada; ask to join it"),
        (known(ben, IdeaId(9)), "no idea 9"),
        (Event::Leave { by: ben, idea }, "belongs to Ada"),
        (Event::Ask { by: ada, kind: LinkKind::Join, idea, to: None, message: String::new() }, "is yours already"),
        (Event::Ask { by: ada, kind: LinkKind::Merge(idea), idea, to: None, message: String::new() }, "into itself"),
        (Event::Answer { by: ada, link: LinkId(3), yes: true }, "no question 3"),
        (Event::Stop { by: ben, run: minke_lab::RunId(1) }, "belongs to Ada; ask them to stop it"),
        (Event::Stop { by: ben, run: minke_lab::RunId(5) }, "no run 5"),
    ] {
        let why = place.refusal(event.clone());
        assert!(why.contains(part), "{event:?}: {why}");
    }
    assert_eq!(place.host.lab().ideas().len(), before);
}

#[test]
fn people_say_in_a_line_what_they_would_like_to_be_asked_about() {
    let mut place = Place::new(1);
    let ada = place.person("Ada");
    let said = |interests: &str| Event::Introduced { by: ada, interests: interests.into() };
    assert_eq!(place.tell(said("  verifiers, small models ")), [Action::Done]);
    for (by, interests) in [(ada, "a".repeat(201)), (ada, "two\nlines".into()), (PersonId(9), "none".into())] {
        place.refusal(Event::Introduced { by, interests });
    }
    place.restart();
    assert_eq!(place.host.lab().people()[&ada].interests, "verifiers, small models");
    place.tell(said(""));
    assert_eq!(place.host.lab().people()[&ada].interests, "");
}
