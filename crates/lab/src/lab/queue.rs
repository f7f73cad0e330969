//! Who is next: the runs that wait, in the order in which they would get chips.

use super::Lab;
use super::schedule::claim;
use crate::policy;
use crate::run::{RunId, State};

impl Lab {
    /// The runs that wait for chips, first the one that comes first.
    pub fn queue(&self, now: u64) -> Vec<RunId> {
        let (claims, accounts) = self.asked();
        let planned = policy::plan(&claims, &accounts, self.pace, self.chips, now.max(self.now));
        let planned = planned.into_iter().map(|verdict| verdict.run);
        planned.filter(|run| self.runs.get(run).is_some_and(|run| run.state == State::Waiting)).collect()
    }

    /// Until when a run keeps its chips, unless a fresh run wants them; nothing where it has none or they may be wanted back now.
    pub fn keeps_until(&self, run: RunId, now: u64) -> Option<u64> {
        let run = self.runs.get(&run).filter(|run| matches!(run.state, State::Starting | State::Running))?;
        policy::kept_until(&claim(run, self.attained()[&run.idea]), self.pace, now.max(self.now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::Action;
    use crate::event::{Event, Report, Which};
    use crate::person::PersonId;
    use crate::run::Fingerprint;

    #[test]
    fn who_waits_is_in_line_and_who_runs_keeps_chips_for_a_while() {
        let mut lab = Lab::new(1);
        let runs: Vec<RunId> = (1..=3)
            .map(|who| {
                lab.on(Event::Arrived { name: format!("person {who}") }, 1000);
                let idea = Which::New { sentence: format!("idea {who}"), parent: None };
                let (by, command, tree) = (PersonId(who), vec!["work".to_string()], String::new());
                let tried = Event::Try { by, idea, command, chips: 1, tree, fingerprint: Fingerprint::default() };
                match lab.on(tried, 1000 + u64::from(who)).first() {
                    Some(Action::Tried { run, .. }) => *run,
                    other => panic!("{other:?}"),
                }
            })
            .collect();
        lab.on(Event::Report { run: runs[0], segment: 0, report: Report::Started }, 2000);
        assert_eq!(lab.queue(2000), runs[1..]);
        assert!(lab.keeps_until(runs[0], 2000).is_some_and(|until| until > 2000));
        assert_eq!(lab.keeps_until(runs[0], 1 << 40), None);
        assert_eq!((lab.keeps_until(runs[1], 2000), lab.keeps_until(RunId(9), 2000)), (None, None));
    }
}
