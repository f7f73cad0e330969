//! Who is next: the runs that wait, in the order in which they would get chips.

use super::Lab;
use crate::policy;
use crate::run::{RunId, State};

impl Lab {
    /// The runs that wait for chips, first the one that comes first.
    pub fn queue(&self, now: u64) -> Vec<RunId> {
        let claims = self.claims();
        let mut accounts = self.accounts();
        accounts.meet(&claims);
        let planned = policy::plan(&claims, &accounts, self.pace, self.chips, now.max(self.now));
        let planned = planned.into_iter().map(|verdict| verdict.run);
        planned.filter(|run| self.runs.get(run).is_some_and(|run| run.state == State::Waiting)).collect()
    }

    /// Until when a run keeps its chips, whoever wants them; nothing where it has none or they may be wanted back now.
    pub fn keeps_until(&self, run: RunId, now: u64) -> Option<u64> {
        self.runs.get(&run).filter(|run| matches!(run.state, State::Starting | State::Running))?;
        let claims = self.claims();
        claims
            .iter()
            .find(|claim| claim.run == run)
            .and_then(|claim| policy::kept_until(claim, self.pace, now.max(self.now)))
    }
}
