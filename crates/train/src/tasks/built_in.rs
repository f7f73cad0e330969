//! The built-in tasks by their names, with the settings that they have unless a recipe gives others.

use super::Task;
use super::bases::Bases;
use super::brackets::Brackets;
use super::calendar::Calendar;
use super::chain_sum::{ChainSum, Scratchpad};
use super::countdown::Countdown;
use super::equation::Equation;
use super::fractions::Fractions;
use super::gcd::Gcd;
use super::knights::Knights;
use super::letters::Letters;
use super::product::Product;
use super::remainder::Remainder;
use super::reversal::Reversal;
use super::roman::Roman;
use super::sequence::Sequence;
use super::sorting::Sorting;
use super::truth_table::TruthTable;

type Build = fn() -> Box<dyn Task>;

/// One line a task.
const BUILT_IN: [(&str, Build); 17] = [
    ("chain_sum", || Box::new(ChainSum { digits: 1..=2, scratchpad: Scratchpad::Plain })),
    ("countdown", || Box::new(Countdown { tries: 9 })),
    ("product", || Box::new(Product)),
    ("gcd", || Box::new(Gcd)),
    ("remainder", || Box::new(Remainder)),
    ("equation", || Box::new(Equation)),
    ("fractions", || Box::new(Fractions)),
    ("bases", || Box::new(Bases)),
    ("roman", || Box::new(Roman)),
    ("calendar", || Box::new(Calendar)),
    ("sequence", || Box::new(Sequence)),
    ("sorting", || Box::new(Sorting)),
    ("letters", || Box::new(Letters)),
    ("reversal", || Box::new(Reversal)),
    ("brackets", || Box::new(Brackets)),
    ("truth_table", || Box::new(TruthTable)),
    ("knights", || Box::new(Knights)),
];

/// The task of this name; none where no task is built in under it.
pub fn built_in(name: &str) -> Option<Box<dyn Task>> {
    BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, build)| build())
}

/// The names of all built-in tasks.
pub fn built_in_names() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::tasks::held_out_items;

    /// Held-out problems are part of what published numbers mean: they may not move (these are from another
    /// implementation).
    #[test]
    fn held_out_problems_stay_the_same() {
        let first = |name, level| {
            let items = held_out_items(&*built_in(name).unwrap(), level, 4);
            items.into_iter().map(|item| item.prompt).collect::<Vec<String>>()
        };
        assert_eq!(first("chain_sum", 3), ["9+9+99=", "29+1+6=", "10+44+72=", "46+46+6="]);
        assert_eq!(first("countdown", 2), ["8 3 6>1:", "12 10 4>2:", "2 12 8>72:", "10 5 5>25:"]);
    }

    #[test]
    fn names_are_different_and_those_of_the_tasks() {
        assert_eq!(built_in_names().collect::<HashSet<_>>().len(), BUILT_IN.len());
        assert!(built_in_names().all(|name| built_in(name).is_some_and(|task| task.name() == name)));
        assert!(built_in("chess").is_none());
    }
}
