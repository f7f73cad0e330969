//! A mixture: several built-in tasks as one, of which each is a level.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use minke_kernels::random::Random;
use serde_json::json;

use super::{Demonstration, Item, Split, Style, Task};

/// Different built-in tasks, each at one of its levels. The mixture's first level is the first of them and so on; its last level, one more
/// than there are tasks, draws from all of them alike. Facts are `[which task, what it keeps]`.
pub struct Mixture {
    parts: Vec<(Box<dyn Task>, u32)>,
    name: String,
    alphabet: String,
}

impl Mixture {
    /// Of these tasks, at these levels.
    ///
    /// # Panics
    /// If there is none, or one that lacks its level.
    pub fn new(parts: Vec<(Box<dyn Task>, u32)>) -> Mixture {
        assert!(!parts.is_empty(), "a mixture of nothing");
        for (task, level) in &parts {
            assert!(task.levels().contains(level), "{} has no level {level}", task.name());
        }
        let names: Vec<&str> = parts.iter().map(|(task, _)| task.name()).collect();
        let name = names.join("+");
        let alphabet: BTreeSet<char> = parts.iter().flat_map(|(task, _)| task.alphabet().chars()).collect();
        Mixture { name, alphabet: alphabet.into_iter().collect(), parts }
    }

    /// The task that posed `item`, and the item as that task knows it.
    fn whose(&self, item: &Item) -> Option<(&dyn Task, Item)> {
        let [which, facts] = item.facts.as_array()?.as_slice() else { return None };
        let (task, level) = self.parts.get(usize::try_from(which.as_u64()?).ok()?)?;
        Some((&**task, Item { level: *level, prompt: item.prompt.clone(), facts: facts.clone() }))
    }

    /// The same of an item that this mixture made.
    fn own(&self, item: &Item) -> (&dyn Task, Item) {
        self.whose(item).expect("an item of one of the mixture's tasks")
    }
}

impl Task for Mixture {
    fn name(&self) -> &str {
        &self.name
    }

    fn alphabet(&self) -> &str {
        &self.alphabet
    }

    fn levels(&self) -> RangeInclusive<u32> {
        1..=self.parts.len() as u32 + 1
    }

    fn prompt_length(&self, level: u32) -> usize {
        let length = |(task, level): &(Box<dyn Task>, u32)| task.prompt_length(*level);
        match self.parts.get(level as usize - 1) {
            Some(part) => length(part),
            None => self.parts.iter().map(length).max().unwrap_or(0),
        }
    }

    fn sample(&self, split: Split, level: u32, random: &mut Random) -> Item {
        assert!(self.levels().contains(&level), "the mixture has no level {level}");
        let which = match level as usize - 1 {
            all if all == self.parts.len() => random.below(all as u32) as usize,
            which => which,
        };
        let (task, own) = &self.parts[which];
        let item = task.sample(split, *own, random);
        Item { level, prompt: item.prompt, facts: json!([which, item.facts]) }
    }

    fn read(&self, prompt: &str) -> Option<Item> {
        self.parts.iter().enumerate().find_map(|(which, (task, level))| {
            let item = task.read(prompt).filter(|item| item.level <= *level)?;
            Some(Item { level: which as u32 + 1, prompt: item.prompt, facts: json!([which, item.facts]) })
        })
    }

    fn question(&self, item: &Item) -> String {
        let (task, item) = self.own(item);
        task.question(&item)
    }

    fn demonstration(&self, item: &Item, style: Style, random: &mut Random) -> Demonstration {
        let (task, item) = self.own(item);
        task.demonstration(&item, style, random)
    }

    fn check(&self, item: &Item, answer: &str) -> Result<(), String> {
        let (task, item) = self.whose(item).ok_or("the problem is none of the mixture's")?;
        task.check(&item, answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::tests::keeps_its_promises;
    use crate::tasks::{built_in, held_out_items};

    fn mixture() -> Mixture {
        let parts = [("letters", 2), ("reversal", 5), ("bases", 1)];
        Mixture::new(parts.map(|(name, level)| (built_in(name).unwrap(), level)).into())
    }

    #[test]
    fn it_keeps_its_promises() {
        keeps_its_promises(&mixture(), &|item| item.prompt.clone().into_bytes());
    }

    #[test]
    fn each_level_is_a_task_and_the_last_is_all_of_them() {
        let task = mixture();
        assert_eq!((task.name(), task.levels()), ("letters+reversal+bases", 1..=4));
        let mut random = Random::new(1, [0; 3]);
        let mut drawn = |level| {
            let mut drawn = [0; 3];
            for _ in 0..60 {
                drawn[task.sample(Split::Train, level, &mut random).facts[0].as_u64().unwrap() as usize] += 1;
            }
            drawn
        };
        assert_eq!([1, 2, 3].map(&mut drawn), [[60, 0, 0], [0, 60, 0], [0, 0, 60]]);
        let drawn = drawn(4);
        assert!(drawn.iter().all(|&drawn| drawn > 8), "{drawn:?}");
    }

    #[test]
    fn problems_are_its_tasks_own() {
        let task = mixture();
        let own = held_out_items(&*built_in("reversal").unwrap(), 5, 8000);
        for item in held_out_items(&task, 2, 20) {
            let reversal = built_in("reversal").unwrap();
            let alone = reversal.read(&item.prompt).unwrap();
            assert_eq!(task.question(&item), reversal.question(&alone));
            let shown = task.demonstration(&item, Style::Think, &mut Random::new(1, [0; 3]));
            assert_eq!((task.check(&item, &shown.answer), task.check(&item, "none").is_err()), (Ok(()), true));
            assert!(own.iter().any(|own| own.prompt == item.prompt), "{}", item.prompt);
        }
        let strange = Item { level: 1, prompt: "a:b=".into(), facts: json!([9, {}]) };
        assert!(task.check(&strange, "1").is_err());
    }
}
