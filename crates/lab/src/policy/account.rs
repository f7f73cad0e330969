//! What the policy remembers of people: how much they have had, and how much of the fresh lane is left to them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Claim, Pace, Tenure};
use crate::person::{PersonId, Share};

/// What is remembered of one person.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// Virtual time: chip-seconds that they have had, by their shares. Nothing is saved up by wanting little: see
    /// [`Accounts::meet`] (stride scheduling; Gandiva_fair, EuroSys 2020).
    pub served_chip_s: f64,
    /// Chip-seconds that they have had of the fresh lane, and that have not come back yet.
    pub lane_chip_s: f64,
    /// Whether a run of theirs was not over when the policy was last asked.
    pub at_work: bool,
}

/// Everybody's accounts. Whoever has none has a new one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Accounts(BTreeMap<PersonId, Account>);

impl FromIterator<(PersonId, Account)> for Accounts {
    fn from_iter<T: IntoIterator<Item = (PersonId, Account)>>(accounts: T) -> Accounts {
        Accounts(accounts.into_iter().collect())
    }
}

impl Accounts {
    /// A person's account.
    pub fn of(&self, person: PersonId) -> Account {
        self.0.get(&person).copied().unwrap_or_default()
    }

    /// Chips for each person at work.
    fn fair_share(&self, chips: u32) -> f64 {
        let at_work = self.0.values().filter(|account| account.at_work).count().max(1);
        f64::from(chips) / at_work as f64
    }

    /// Ideas cost nothing, so a person's are fresh only as far as an allowance goes: what their share of the chips comes to in a
    /// day, in chip-seconds.
    fn lane_chip_s(&self, pace: Pace, chips: u32) -> f64 {
        self.fair_share(chips) * pace.day_s()
    }

    /// Time passes: everybody's lane fills at their share of the chips.
    pub fn pass(&mut self, seconds: f64, chips: u32) {
        let filled = seconds * self.fair_share(chips);
        for account in self.0.values_mut() {
            account.lane_chip_s = (account.lane_chip_s - filled).max(0.0);
        }
    }

    /// Charges what a run has had. `attained_chip_s` is what its idea had had before: its first chip-hour is the lane's.
    pub fn charge(&mut self, owners: &[Share], chip_s: f64, attained_chip_s: f64, pace: Pace, chips: u32) {
        self.serve(owners, chip_s);
        let lane = self.lane_chip_s(pace, chips);
        let fresh = chip_s.min(pace.fresh_chip_s() - attained_chip_s).max(0.0);
        for owner in owners {
            let account = self.0.entry(owner.person).or_default();
            account.lane_chip_s = (account.lane_chip_s + owner.share * fresh).min(lane);
        }
    }

    /// Sees who has come to work, who waits for chips, and who has gone. Credit is for those who wait: everybody else is put level
    /// with the one of these who has had least.
    pub fn meet(&mut self, claims: &[Claim]) {
        let people = |claim: &dyn Fn(&&Claim) -> bool| -> BTreeSet<PersonId> {
            let owners = claims.iter().filter(claim).flat_map(|claim| &claim.owners);
            owners.map(|owner| owner.person).collect()
        };
        let (here, waiting) = (people(&|_| true), people(&|claim| waits(claim)));
        let least = |people: &BTreeSet<PersonId>| {
            let before = self.0.iter().filter(|(person, account)| account.at_work && people.contains(person));
            before.map(|(_, account)| account.served_chip_s).min_by(f64::total_cmp)
        };
        let least = least(&waiting).or_else(|| least(&here)).unwrap_or(0.0);
        for person in &here {
            let account = self.0.entry(*person).or_default();
            if !account.at_work || !waiting.contains(person) {
                account.served_chip_s = account.served_chip_s.max(least);
            }
            account.at_work = true;
        }
        self.0.iter_mut().filter(|(person, _)| !here.contains(person)).for_each(|(_, account)| account.at_work = false);
    }

    /// What the owners of a run have had, by their shares.
    pub(super) fn served(&self, owners: &[Share]) -> f64 {
        owners.iter().map(|owner| owner.share * self.of(owner.person).served_chip_s).sum()
    }

    /// Counts chip-seconds as had by the owners.
    pub(super) fn serve(&mut self, owners: &[Share], chip_s: f64) {
        for owner in owners {
            self.0.entry(owner.person).or_default().served_chip_s += owner.share * chip_s;
        }
    }

    /// Sets a part of the owners' lanes apart for an idea that is fresh, if all of them have some left.
    pub(super) fn set_apart(&mut self, owners: &[Share], chip_s: f64, pace: Pace, chips: u32) -> bool {
        let lane = self.lane_chip_s(pace, chips);
        let has_some = owners.iter().all(|owner| self.of(owner.person).lane_chip_s < lane);
        if has_some {
            for owner in owners {
                self.0.entry(owner.person).or_default().lane_chip_s += owner.share * chip_s;
            }
        }
        has_some
    }
}

/// Whether a claim's run waits.
pub(super) fn waits(claim: &Claim) -> bool {
    matches!(claim.now, Tenure::Waits { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: PersonId = PersonId(1);
    const BEN: PersonId = PersonId(2);

    fn claim(person: PersonId) -> Claim {
        Claim {
            run: crate::run::RunId(person.0),
            idea: crate::idea::IdeaId(person.0),
            owners: vec![Share { person, share: 1.0 }],
            chips: 1,
            submitted: 0,
            attained_chip_s: 0.0,
            switch_s: 5.0,
            starts: 0,
            ran_s: 0.0,
            now: Tenure::Waits { since: 0 },
        }
    }

    #[test]
    fn idleness_saves_nothing_up() {
        let mut accounts = Accounts::default();
        accounts.meet(&[claim(ADA)]);
        accounts.charge(&claim(ADA).owners, 5000.0, 0.0, Pace::default(), 8);
        accounts.meet(&[claim(ADA), claim(BEN)]);
        assert_eq!(accounts.of(BEN).served_chip_s, 5000.0);
        // Nor does coming back cost anything.
        accounts.charge(&claim(ADA).owners, 1000.0, 0.0, Pace::default(), 8);
        accounts.meet(&[claim(BEN)]);
        accounts.meet(&[claim(ADA), claim(BEN)]);
        assert_eq!(accounts.of(ADA).served_chip_s, 6000.0);
        // Nor is anything saved up by whoever has all that they want.
        let content = Claim { now: Tenure::Holds { since: 0 }, ..claim(BEN) };
        accounts.meet(&[claim(ADA), content]);
        assert_eq!(accounts.of(BEN).served_chip_s, 6000.0);
    }

    #[test]
    fn the_lane_is_used_by_first_hours_and_fills_again() {
        let mut accounts = Accounts::default();
        accounts.meet(&[claim(ADA), claim(BEN)]);
        let both = [Share { person: ADA, share: 0.25 }, Share { person: BEN, share: 0.75 }];
        // Of 2000 chip-seconds the idea had 1000 left of its first hour.
        accounts.charge(&both, 2000.0, Pace::default().fresh_chip_s() - 1000.0, Pace::default(), 8);
        assert_eq!(accounts.of(ADA).lane_chip_s, 250.0);
        assert_eq!(accounts.of(BEN).lane_chip_s, 750.0);
        // Eight chips, for two: four each.
        accounts.pass(50.0, 8);
        assert_eq!(accounts.of(ADA).lane_chip_s, 50.0);
        accounts.pass(1e6, 8);
        assert_eq!(accounts.of(BEN).lane_chip_s, 0.0);
    }
}
