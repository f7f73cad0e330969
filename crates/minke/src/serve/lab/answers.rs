//! What the lab knows, in the words that its pages and programs are told.

use minke_lab::{
    Decision, End, Idea, IdeaStatus, Lab, Likeness, Link, LinkKind, LinkStatus, Person, PersonId, Repeat, Run, Segment,
    State, Verb, span,
};

use crate::told;

/// An idea.
pub fn idea(lab: &Lab, idea: &Idea) -> told::Idea {
    told::Idea {
        id: idea.id.0,
        sentence: idea.sentence.clone(),
        authors: idea.authors.iter().map(|author| lab.names(&[*author])).collect(),
        status: match idea.status {
            IdeaStatus::Open => "open".into(),
            IdeaStatus::Active => "active".into(),
            IdeaStatus::Answered => "answered".into(),
            IdeaStatus::Parked => "parked".into(),
            IdeaStatus::Merged(into) => format!("merged into {}", into.0),
        },
        parent: idea.parent.map(|parent| parent.0),
        created: idea.created,
        runs: lab.runs().values().filter(|run| run.idea == idea.id).map(|run| run.id.0).collect(),
    }
}

/// A run, with what was decided about it where that is given.
pub fn run(lab: &Lab, run: &Run, decisions: &[Decision], now: u64) -> told::Run {
    told::Run {
        id: run.id.0,
        idea: run.idea.0,
        sentence: lab.ideas().get(&run.idea).map_or_else(String::new, |idea| idea.sentence.clone()),
        command: run.command.clone(),
        chips: run.chips,
        owners: run.owners.iter().map(|owner| lab.names(&[owner.person])).collect(),
        state: state(run.state).into(),
        why: lab.why(run.id, now).unwrap_or_default(),
        progress: run.progress.as_ref().map(|progress| (progress.step, progress.steps)),
        left_s: run.progress.as_ref().and_then(|progress| progress.left_s),
        submitted: run.submitted,
        chip_s: run.attained_chip_s,
        ended_for: ended_for(run, decisions),
        decisions: decisions.iter().map(|d| told::Decision { at: d.at, sentence: lab.sentence(d) }).collect(),
        stints: Vec::new(),
    }
}

/// A run with all that is known of it.
pub fn whole_run(lab: &Lab, run: &Run, decisions: &[Decision], now: u64) -> told::Run {
    let stint = |segment: &Segment| told::Stint {
        chips: segment.chips.clone(),
        from: segment.reserved,
        until: segment.ended.as_ref().map(|(at, _)| *at),
        end: segment.ended.as_ref().map(|(_, end)| end.sentence()),
    };
    told::Run { stints: run.segments.iter().map(stint).collect(), ..self::run(lab, run, decisions, now) }
}

/// What a run was ended for: a limit that it broke, or chips that it kept.
fn ended_for(run: &Run, decisions: &[Decision]) -> Option<String> {
    let broke = run.segments.iter().rev().find_map(|segment| match &segment.ended {
        Some((_, End::Broke(what))) => Some(format!("This run was ended for what it did: it {what}.")),
        _ => None,
    });
    let kept = || {
        decisions.iter().any(|decision| decision.verb == Verb::Kill).then(|| {
            "This run did not give its chips back when it was asked for them, and was ended; what it had not saved was \
             lost."
                .to_string()
        })
    };
    broke.or_else(kept)
}

/// Somebody.
pub fn person(person: &Person) -> told::Person {
    told::Person { id: person.id.0, name: person.name.clone(), interests: person.interests.clone() }
}

/// A state in a word.
pub fn state(state: State) -> &'static str {
    match state {
        State::Waiting => "waiting",
        State::Starting => "starting",
        State::Running => "running",
        State::Suspending { .. } => "suspending",
        State::Ending { .. } => "ending",
        State::Done => "done",
        State::Failed => "failed",
        State::Stopped => "stopped",
    }
}

/// A question between people, for one of them.
pub fn question(lab: &Lab, link: &Link, reader: PersonId) -> told::Question {
    let kind = match link.kind {
        LinkKind::Invite => "invite",
        LinkKind::Join => "join",
        LinkKind::Merge(_) => "merge",
    };
    let status = match link.status {
        LinkStatus::Pending => "pending",
        LinkStatus::Accepted => "accepted",
        LinkStatus::Declined => "declined",
        LinkStatus::Withdrawn => "withdrawn",
        LinkStatus::Expired => "expired",
    };
    told::Question {
        id: link.id.0,
        kind: kind.into(),
        from: lab.names(&[link.from]),
        to: link.to.iter().map(|person| lab.names(&[*person])).collect(),
        idea: link.idea.0,
        sentence: lab.ideas().get(&link.idea).map_or_else(String::new, |idea| idea.sentence.clone()),
        message: link.message.clone(),
        status: status.into(),
        created: link.created,
        yours: link.to.contains(&reader),
        mine: link.from == reader,
        merge: match link.kind {
            LinkKind::Merge(other) => Some(other.0),
            LinkKind::Invite | LinkKind::Join => None,
        },
    }
}

/// Something that there is already, in a sentence.
pub fn alike(lab: &Lab, repeat: &Repeat, now: u64) -> told::Alike {
    let idea = lab.ideas().get(&repeat.idea);
    let who = idea.map_or_else(|| "somebody".into(), |idea| lab.names(&idea.authors));
    let what = idea.map_or("", |idea| idea.sentence.as_str());
    let run = repeat.run.and_then(|run| lab.runs().get(&run));
    let how_far = match run {
        Some(run) if run.state.is_over() => format!(", run {} is {}", run.id.0, state(run.state)),
        Some(run) => match run.progress.as_ref().filter(|progress| progress.steps > 0) {
            Some(p) => format!(", {} % done", 100 * p.step / p.steps),
            None => format!(", run {} is {}", run.id.0, state(run.state)),
        },
        None => String::new(),
    };
    let begun = run.map_or_else(|| idea.map_or(now, |idea| idea.created), |run| run.submitted);
    let like = match &repeat.like {
        Likeness::Exact => "the very same code and settings".into(),
        Likeness::Replicate => "the same but for the seed".into(),
        Likeness::Near { keys } => format!("the same but for {}", keys.join(" and ")),
        Likeness::Words { .. } => "an idea in much the same words".into(),
    };
    let ago = span(now.saturating_sub(begun));
    told::Alike { repeat: repeat.clone(), sentence: format!("{who} started “{what}” {ago} ago{how_far}: {like}.") }
}

#[cfg(test)]
mod tests {
    use minke_lab::{Action, Event, Fingerprint, Report, Which};

    use super::*;

    #[test]
    fn a_run_that_was_ended_for_what_it_did_says_so() {
        let mut lab = Lab::new(1);
        lab.on(Event::Arrived { name: "Ada".into() }, 1000);
        let idea = Which::New { sentence: "forks".into(), parent: None };
        let (by, command, tree, fingerprint) =
            (PersonId(1), vec!["fork".into()], String::new(), Fingerprint::default());
        let tried = lab.on(Event::Try { by, idea, command, chips: 1, tree, fingerprint }, 2000);
        let Action::Tried { run: id, .. } = tried[0] else { panic!("{tried:?}") };
        let mut report = |report, now| drop(lab.on(Event::Report { run: id, segment: 0, report }, now));
        report(Report::Started, 3000);
        report(Report::Ended(End::Broke("had 9 processes at a time where 5 are allowed".into())), 5000);
        let told = whole_run(&lab, &lab.runs()[&id], &[], 6000);
        let expected = "This run was ended for what it did: it had 9 processes at a time where 5 are allowed.";
        assert_eq!((told.state.as_str(), told.ended_for.as_deref()), ("failed", Some(expected)));
        assert_eq!((told.stints[0].from, told.stints[0].until), (2000, Some(5000)));
        assert!(told.stints[0].end.as_ref().is_some_and(|end| end.starts_with("it broke a limit")), "{told:?}");
        let kept = Decision { id: 1, at: 1, run: id, verb: Verb::Kill, because: Vec::new() };
        let mut run = lab.runs()[&id].clone();
        run.segments.clear();
        assert!(ended_for(&run, &[kept]).is_some_and(|what| what.contains("did not give its chips back")));
        assert_eq!(ended_for(&run, &[]), None);
    }
}
