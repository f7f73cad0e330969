//! Decisions and reasons as sentences, for whoever asks why.

use crate::decision::{Decision, Verb};
use crate::lab::Lab;
use crate::person::PersonId;
use crate::policy::Reason;
use crate::run::{End, Run, RunId, SAVED, State};

impl Lab {
    /// What is the matter with a run now, and why, in a sentence or two.
    pub fn why(&self, id: RunId, now: u64) -> Option<String> {
        let run = self.runs().get(&id)?;
        let since = |at: u64| span(now.saturating_sub(at));
        let state = match run.state {
            State::Waiting if run.segments.is_empty() => format!("Waiting for {}", since(run.waiting_since)),
            State::Waiting => format!("Suspended {} ago", since(run.waiting_since)),
            State::Starting => "Starting".into(),
            State::Running => {
                let begun = run.segments.last().map_or(now, |segment| segment.started.unwrap_or(segment.reserved));
                format!("Running for {} on {}", since(begun), chips(run.chips))
            }
            State::Suspending { since: at, acknowledged: false } => format!("Asked for its chips {} ago", since(at)),
            State::Suspending { since: at, .. } => {
                format!("Saving, since it was asked for its chips {} ago", since(at))
            }
            State::Ending { since: at, for_good: true } => format!("Being stopped for {}", since(at)),
            State::Ending { .. } => "Being ended, for it did not give its chips back".into(),
            State::Done => "Done".into(),
            State::Failed => "Failed".into(),
            State::Stopped => "Stopped".into(),
        };
        Some(self.with_reasons(state, &run.because, now))
    }

    /// What was decided and why, as a sentence.
    pub fn sentence(&self, decision: &Decision) -> String {
        let verb = match decision.verb {
            Verb::Wait => "Waits",
            Verb::Start => "Gets its chips",
            Verb::Suspend => "Is asked for its chips, and will go on later",
            Verb::Kill => "Is ended, and will go on from its last checkpoint",
            Verb::Stop => "Is asked to save and end",
            Verb::Lost => "Was lost, and waits to go on from its last checkpoint",
            Verb::End => "Has ended",
        };
        self.with_reasons(verb.into(), &decision.because, decision.at)
    }

    fn with_reasons(&self, what: String, because: &[Reason], now: u64) -> String {
        let reasons: Vec<String> = because.iter().map(|reason| self.reason(reason, now)).collect();
        if reasons.is_empty() { format!("{what}.") } else { format!("{what}: {}.", reasons.join("; ")) }
    }

    fn reason(&self, reason: &Reason, now: u64) -> String {
        match *reason {
            Reason::ChipsFree { of: 1, .. } => "the chip is free".into(),
            Reason::ChipsFree { free, of } if free == of => format!("all {} are free", chips(of)),
            Reason::ChipsFree { free, of } => format!("{free} of {} are free", chips(of)),
            Reason::TooBig { wants, of } => format!("it wants {}, and there are {of}", chips(wants)),
            Reason::LessAttained { than, by } => {
                format!(
                    "its idea has had {} less than {}, which gives its chips back",
                    chip_time(by),
                    self.called(than)
                )
            }
            Reason::WaitedLong { run, since, ran_s } => format!(
                "{} has waited for {}, after {} of running, so that it has a turn",
                self.called(run),
                span(now.saturating_sub(since)),
                span((ran_s * 1000.0) as u64)
            ),
            Reason::LaneSpent { run } => format!(
                "new ideas of the same people as {} have had so much of late that they don't come first for now",
                self.called(run)
            ),
            Reason::Behind { run, than, by } => format!(
                "the people of {} are {} behind those of {}",
                self.called(run),
                chip_time(by),
                self.called(than)
            ),
            Reason::Leaving { run } => format!("{} is about to give its chips back", self.called(run)),
            Reason::Fits => "it fits into what those before it leave".into(),
            Reason::MinimumStint { run, until } => format!(
                "{} keeps its chips for {} more (minimum stint)",
                self.called(run),
                span(until.saturating_sub(now))
            ),
            Reason::After { run } => format!("{} comes first", self.called(run)),
            Reason::GivesWay { to, by } => {
                format!("it gives way to {}, whose idea has had {} less", self.called(to), chip_time(by))
            }
            Reason::StoppedBy { person } => format!("{} stopped it", self.names(&[person])),
            Reason::Ended { ref end } => end.sentence(),
            Reason::LostAgain { times } => format!("that was so {times} times in a row without any progress"),
            Reason::DidNotYield { waited_s } => format!(
                "it was asked for its chips {} ago and has not given them back",
                span((waited_s * 1000.0) as u64)
            ),
        }
    }

    /// A run as people speak of it.
    fn called(&self, id: RunId) -> String {
        let owners = |run: &Run| run.owners.iter().map(|owner| owner.person).collect::<Vec<PersonId>>();
        match self.runs().get(&id) {
            Some(run) => format!("run {} of {}", id.0, self.names(&owners(run))),
            None => format!("run {}", id.0),
        }
    }
}

impl End {
    /// How a stint ended, as the end of a sentence.
    pub fn sentence(&self) -> String {
        match self {
            End::Exit(0) => "its command came to its end".into(),
            End::Exit(SAVED) => "its command saved and gave its chips back".into(),
            End::Exit(code) => format!("its command ended with code {code}"),
            End::Signal(signal) => format!("signal {signal} ended its command"),
            End::Broke(what) => format!("it broke a limit: it {what}"),
            End::Vanished => "its process is gone, and nobody knows how it ended".into(),
            End::NotStarted(what) => format!("its command could not be started: {what}"),
        }
    }
}

fn chips(count: u32) -> String {
    if count == 1 { "1 chip".into() } else { format!("{count} chips") }
}

/// Chip-seconds, as people say them.
fn chip_time(chip_s: f64) -> String {
    match chip_s.max(0.0) {
        s if s < 90.0 => format!("{s:.0} chip-seconds"),
        s if s < 5400.0 => format!("{:.0} chip-minutes", s / 60.0),
        s => format!("{:.1} chip-hours", s / 3600.0),
    }
}

/// A time span in milliseconds, as people say it.
pub fn span(ms: u64) -> String {
    match ms / 1000 {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s @ 7200..172_800 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        s => format!("{} days", s / 86400),
    }
}
