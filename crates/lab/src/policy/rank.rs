//! Which claim comes before which: by its class, and in the last class by what its people have had.

use std::collections::{BTreeSet, VecDeque};

use super::account::{Accounts, waits};
use super::{Claim, Pace, Reason, Tenure, kept_until, worth_a_start_s};
use crate::person::Share;

/// A run that has waited long, and so many times as long as it ran, has a turn.
const LONG_TIMES: f64 = 2.0;

/// The last class.
const LAST: usize = 2;

/// A claim in its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ranked<'a> {
    pub claim: &'a Claim,
    /// 0 comes first.
    pub class: usize,
    /// Why it is of that class.
    standing: Standing,
    /// Chip-seconds that its people have had, with the stints that the runs before it are given.
    pub served_chip_s: f64,
}

/// What a claim's class rests on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Standing {
    Attained,
    WaitedLong { since: u64, ran_s: f64 },
    LaneSpent,
}

impl Ranked<'_> {
    /// Whether it may ask for the chips of `other`, which holds some, once the stint of `other` is over.
    pub fn may_ask(&self, other: &Ranked<'_>, pace: Pace) -> bool {
        let leads = || self.class == LAST && self.served_chip_s + pace.fresh_chip_s() <= other.served_chip_s;
        self.class < other.class || self.class == other.class && leads()
    }

    /// Why it comes before `other`, told of it; true for two claims of which it does.
    pub fn leads(&self, other: &Ranked<'_>) -> Reason {
        self.standing_before(other).unwrap_or(Reason::LessAttained {
            than: other.claim.run,
            by: other.claim.attained_chip_s - self.claim.attained_chip_s,
        })
    }

    /// Why `other` comes before it, told of it.
    pub fn yields(&self, other: &Ranked<'_>) -> Reason {
        other.standing_before(self).unwrap_or(Reason::GivesWay {
            to: other.claim.run,
            by: self.claim.attained_chip_s - other.claim.attained_chip_s,
        })
    }

    /// Why it comes before `other`, unless that is because its idea has had less.
    fn standing_before(&self, other: &Ranked<'_>) -> Option<Reason> {
        let (run, than) = (self.claim.run, other.claim.run);
        match (self.standing, other.standing) {
            _ if self.class == other.class => {
                Some(Reason::Behind { run, than, by: other.served_chip_s - self.served_chip_s })
            }
            (Standing::WaitedLong { since, ran_s }, _) => Some(Reason::WaitedLong { run, since, ran_s }),
            (_, Standing::LaneSpent) => Some(Reason::LaneSpent { run: than }),
            _ => None,
        }
    }
}

/// Claims in the order in which they are given chips. First those of the first class; nobody but these may ask for chips within
/// a stint, so that those who hold some in a stint are next; then the second class; and these all by who holds chips already and
/// then in the order in which they were submitted. In the last class, where most of the chips' time goes, whose people have had
/// less comes first.
pub(super) struct Order<'a> {
    /// What people have had, with the stints that are given.
    accounts: Accounts,
    pace: Pace,
    in_turn: VecDeque<Ranked<'a>>,
    by_people: Vec<Queue<'a>>,
}

/// Claims of the same people, each group in its turn.
type Queue<'a> = (&'a [Share], VecDeque<Ranked<'a>>);

impl<'a> Order<'a> {
    /// The order of the claims that are not about to give their chips back.
    pub fn new(claims: &'a [Claim], accounts: &Accounts, pace: Pace, chips: u32, now: u64) -> Order<'a> {
        let mut all: Vec<&Claim> = claims.iter().filter(|claim| claim.now != Tenure::Leaving).collect();
        all.sort_by_key(|claim| (waits(claim), claim.submitted, claim.run));
        let mut lanes = accounts.clone();
        let mut fresh = BTreeSet::new();
        let (mut in_turn, mut by_people) = (Vec::new(), Vec::<Queue<'a>>::new());
        for claim in all {
            let by_attained = match claim.attained_chip_s {
                had if had < pace.fresh_chip_s() => 0,
                had if had < pace.second_chip_s() => 1,
                _ => LAST,
            };
            let mut is_fresh = || {
                let first_hour = pace.fresh_chip_s() - claim.attained_chip_s;
                let known = fresh.contains(&claim.idea);
                known || lanes.set_apart(&claim.owners, first_hour, pace, chips) && fresh.insert(claim.idea)
            };
            let (class, standing) = match (by_attained, waited_long(claim, pace, now)) {
                (0, _) if is_fresh() => (0, Standing::Attained),
                (_, Some(waited)) => (0, waited),
                (0, None) => (1, Standing::LaneSpent),
                (class, None) => (class, Standing::Attained),
            };
            let ranked = Ranked { claim, class, standing, served_chip_s: accounts.served(&claim.owners) };
            match (class, kept_until(claim, pace, now)) {
                (0, _) => in_turn.push((0, ranked)),
                (_, Some(_)) => in_turn.push((1, ranked)),
                (1, None) => in_turn.push((2, ranked)),
                _ => match by_people.iter_mut().find(|(owners, _)| *owners == claim.owners) {
                    Some((_, queue)) => queue.push_back(ranked),
                    None => by_people.push((&claim.owners, VecDeque::from([ranked]))),
                },
            }
        }
        // What was sorted stays so.
        in_turn.sort_by_key(|(place, _)| *place);
        let in_turn = in_turn.into_iter().map(|(_, ranked)| ranked).collect();
        Order { accounts: accounts.clone(), pace, in_turn, by_people }
    }

    /// Gives a claim a stint: its people have had that much more for those that come after it.
    pub fn give(&mut self, claim: &Claim) {
        let stint_s = worth_a_start_s(claim).max(self.pace.turn_ms as f64 / 1000.0);
        let chip_s = f64::from(claim.chips) * stint_s;
        self.accounts.serve(&claim.owners, chip_s);
    }
}

impl<'a> Iterator for Order<'a> {
    type Item = Ranked<'a>;

    fn next(&mut self) -> Option<Ranked<'a>> {
        if let Some(ranked) = self.in_turn.pop_front() {
            return Some(ranked);
        }
        let place = |(owners, queue): &Queue<'a>| {
            let head = queue[0].claim;
            let served = self.accounts.served(owners);
            let lead = if waits(head) { 0.0 } else { self.pace.fresh_chip_s() };
            (served - lead, served, (waits(head), head.submitted, head.run))
        };
        let places = self.by_people.iter().map(place).enumerate();
        let first = places.min_by(|(_, a), (_, b)| a.0.total_cmp(&b.0).then(a.2.cmp(&b.2)));
        let (at, (_, served_chip_s, _)) = first?;
        let mut ranked = self.by_people[at].1.pop_front()?;
        if self.by_people[at].1.is_empty() {
            self.by_people.swap_remove(at);
        }
        ranked.served_chip_s = served_chip_s;
        Some(ranked)
    }
}

fn waited_long(claim: &Claim, pace: Pace, now: u64) -> Option<Standing> {
    let Tenure::Waits { since } = claim.now else { return None };
    let long_ms = pace.long_ms().max((LONG_TIMES * claim.ran_s * 1000.0) as u64);
    (now.saturating_sub(since) >= long_ms).then_some(Standing::WaitedLong { since, ran_s: claim.ran_s })
}
