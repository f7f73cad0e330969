//! What the lab knows, in the words that its pages and programs are told.

use minke_lab::{
    Decision, Idea, IdeaStatus, Lab, Likeness, Link, LinkKind, LinkStatus, PersonId, Repeat, Run, State, span,
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
        decisions: decisions.iter().map(|d| told::Decision { at: d.at, sentence: lab.sentence(d) }).collect(),
    }
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
