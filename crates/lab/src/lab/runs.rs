//! Runs: from an idea tried to its end, as their launchers report it.

use super::{Lab, Refusal, checked, next};
use crate::action::Action;
use crate::advice::{Advice, AdviceId, Choice};
use crate::decision::Verb;
use crate::event::{Report, Which};
use crate::idea::{Idea, IdeaId, IdeaStatus};
use crate::person::{PersonId, equal_shares};
use crate::policy::Reason;
use crate::repeats::Repeat;
use crate::run::{End, Fingerprint, Run, RunId, SAVED, State};

/// After so many stints in a row that ended early without progress, a run has failed.
const LOSSES_MAX: u32 = 3;

/// Signals that come from outside (HUP, INT, KILL, TERM); others are the program's own mistakes.
const OUTSIDE: [i32; 4] = [1, 2, 9, 15];

impl Lab {
    pub(super) fn try_idea(
        &mut self,
        by: PersonId,
        which: Which,
        command: Vec<String>,
        chips: u32,
        tree: String,
        fingerprint: Fingerprint,
    ) -> Result<Vec<Action>, Refusal> {
        self.person(by)?;
        if command.first().is_none_or(|program| program.is_empty()) {
            return Err("there is no command; give one after --".into());
        }
        if chips == 0 || chips > self.chips {
            return Err(format!(
                "{chips} chips are asked for, but there are {}; ask for 1 to {}",
                self.chips, self.chips
            ));
        }
        let idea = match which {
            Which::Known(id) => match self.own_idea(by, id)?.status {
                IdeaStatus::Merged(into) => return Err(format!("idea {} goes on as part of idea {}", id.0, into.0)),
                _ => id,
            },
            Which::New { sentence, parent } => {
                let sentence = checked("the idea", sentence)?;
                if let Some(parent) = parent {
                    self.idea(parent)?;
                }
                let id = IdeaId(next(self.ideas.last_key_value().map(|(id, _)| id.0)));
                let (authors, status, created) = (vec![by], IdeaStatus::Open, self.now);
                self.ideas.insert(id, Idea { id, sentence, authors, parent, status, created });
                self.changes.ideas.insert(id);
                id
            }
        };
        let id = RunId(next(self.runs.last_key_value().map(|(id, _)| id.0)));
        let run = Run {
            id,
            idea,
            owners: equal_shares(&self.ideas[&idea].authors),
            command,
            chips,
            tree,
            fingerprint,
            submitted: self.now,
            state: State::Waiting,
            waiting_since: self.now,
            segments: Vec::new(),
            progress: None,
            attained_chip_s: 0.0,
            counted_until: self.now,
            losses: 0,
            because: Vec::new(),
        };
        self.runs.insert(id, run);
        self.changes.runs.insert(id);
        self.change_idea(idea, |idea| idea.status = IdeaStatus::Active);
        Ok(vec![Action::Tried { idea, run: id }])
    }

    pub(super) fn advise(
        &mut self,
        by: PersonId,
        sentence: String,
        shown: Vec<Repeat>,
    ) -> Result<Vec<Action>, Refusal> {
        self.person(by)?;
        let sentence = checked("the idea", sentence)?;
        let id = AdviceId(next(self.advice.last_key_value().map(|(id, _)| id.0)));
        self.advice.insert(id, Advice { id, at: self.now, to: by, sentence, shown, choice: None });
        self.changes.advice.insert(id);
        Ok(vec![Action::Advised(id)])
    }

    pub(super) fn choose(&mut self, by: PersonId, id: AdviceId, choice: Choice) -> Result<Vec<Action>, Refusal> {
        let advice = self.advice.get_mut(&id).filter(|advice| advice.to == by);
        let advice = advice.ok_or_else(|| format!("nothing of number {} was pointed out to you", id.0))?;
        advice.choice = Some(choice);
        self.changes.advice.insert(id);
        Ok(vec![Action::Done])
    }

    /// An owner or an author ends a run. It is asked to save first.
    pub(super) fn stop(&mut self, by: PersonId, id: RunId) -> Result<Vec<Action>, Refusal> {
        let run = self.runs.get(&id).ok_or_else(|| format!("there is no run {}; `minke runs` lists them", id.0))?;
        let authors = self.ideas.get(&run.idea).map_or(&[][..], |idea| &idea.authors);
        if !authors.contains(&by) && run.owners.iter().all(|owner| owner.person != by) {
            let owners: Vec<PersonId> = run.owners.iter().map(|owner| owner.person).collect();
            return Err(format!("run {} belongs to {}; ask them to stop it", id.0, self.names(&owners)));
        }
        if run.state.is_over() {
            return Err(format!("run {} is over already", id.0));
        }
        let segment = run.segments.len();
        if run.state.holds_chips() {
            self.change_run(id, |run, now| run.state = State::Ending { since: now, for_good: true });
            self.decide(id, Verb::Stop, vec![Reason::StoppedBy { person: by }]);
            return Ok(vec![Action::Done, Action::Suspend { run: id, segment: segment - 1 }]);
        }
        self.end(id, State::Stopped, vec![Reason::StoppedBy { person: by }]);
        Ok(vec![Action::Done])
    }

    /// What a launcher says of a stint. Of any but the last one there is nothing new to say.
    pub(super) fn report(&mut self, id: RunId, segment: usize, report: Report) {
        let Some(run) = self.runs.get(&id) else { return };
        if segment + 1 != run.segments.len() || !run.state.holds_chips() {
            return;
        }
        match report {
            Report::Started => self.change_run(id, |run, now| {
                run.segments[segment].started.get_or_insert(now);
                if run.state == State::Starting {
                    run.state = State::Running;
                }
            }),
            Report::Acknowledged => self.change_run(id, |run, _| {
                if let State::Suspending { acknowledged, .. } = &mut run.state {
                    *acknowledged = true;
                }
            }),
            Report::Progress(progress) => self.change_run(id, |run, now| {
                if progress.step > run.progress.as_ref().map_or(0, |last| last.step) {
                    run.losses = 0;
                    run.segments[segment].first_step.get_or_insert(now);
                }
                run.progress = Some(progress);
            }),
            Report::Ended(end) => self.ended(id, segment, end),
        }
    }

    fn ended(&mut self, id: RunId, segment: usize, end: End) {
        let state = self.runs[&id].state;
        self.change_run(id, |run, now| run.segments[segment].ended = Some((now, end.clone())));
        let because = vec![Reason::Ended { end: end.clone() }];
        let asked = matches!(state, State::Suspending { .. } | State::Ending { for_good: false, .. });
        match end {
            _ if matches!(state, State::Ending { for_good: true, .. }) => self.end(id, State::Stopped, because),
            End::Exit(0) => self.end(id, State::Done, because),
            End::Exit(SAVED) if asked => self.change_run(id, |run, now| run.wait(now)),
            End::Broke(_) | End::NotStarted(_) => self.end(id, State::Failed, because),
            End::Exit(SAVED) | End::Vanished => self.lost(id, because),
            End::Signal(signal) if asked || OUTSIDE.contains(&signal) => self.lost(id, because),
            End::Exit(_) if asked => self.lost(id, because),
            End::Exit(_) | End::Signal(_) => self.end(id, State::Failed, because),
        }
    }

    /// A stint ended before its time: the run waits again, unless that leads nowhere.
    fn lost(&mut self, id: RunId, because: Vec<Reason>) {
        self.change_run(id, |run, now| {
            run.losses += 1;
            run.wait(now);
        });
        if self.runs[&id].losses >= LOSSES_MAX {
            let also = Reason::LostAgain { times: LOSSES_MAX };
            self.end(id, State::Failed, because.into_iter().chain([also]).collect());
        } else {
            self.decide(id, Verb::Lost, because);
        }
    }

    fn end(&mut self, id: RunId, state: State, because: Vec<Reason>) {
        self.change_run(id, |run, _| {
            run.state = state;
            run.because.clone_from(&because);
        });
        self.decide(id, Verb::End, because);
        self.update_status(self.runs[&id].idea);
    }

    /// Changes a run that exists; the change is told the time.
    pub(super) fn change_run(&mut self, id: RunId, change: impl FnOnce(&mut Run, u64)) {
        if let Some(run) = self.runs.get_mut(&id) {
            change(run, self.now);
            self.changes.runs.insert(id);
        }
    }
}

impl Run {
    fn wait(&mut self, now: u64) {
        self.state = State::Waiting;
        self.waiting_since = now;
    }
}
