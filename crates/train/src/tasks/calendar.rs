//! Dates some days later, a month at a time: `30.3+45:` → `<think>30+45=75;75.3=44.4;44.4=14.5</think>14.5<end>`.

use std::ops::RangeInclusive;

use minke_kernels::random::Random;
use serde::{Deserialize, Serialize};

use super::procedural::{Procedural, Step, between};

/// Up to 30 × `level` days after a date, day before month, in a year that is no leap year.
pub struct Calendar;

/// A date, and how many days go by.
#[derive(Serialize, Deserialize)]
pub struct Problem {
    day: u32,
    month: u32,
    days: u32,
}

/// Days of each month.
const MONTHS: [u32; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
const NAMES: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

fn length(month: u32) -> u32 {
    MONTHS[month as usize - 1]
}

impl Problem {
    /// The date as a day of the first month, then of the second and so on, until it is a day that the month has.
    fn dates(&self) -> Vec<(u32, u32)> {
        let mut dates = vec![(self.day + self.days, self.month)];
        while let Some((day, month)) = dates.last().copied().filter(|(day, month)| *day > length(*month)) {
            dates.push((day - length(month), month % 12 + 1));
        }
        dates
    }
}

impl Procedural for Calendar {
    type Problem = Problem;

    const NAME: &'static str = "calendar";
    const ALPHABET: &'static str = "0123456789.+:=;no";
    const LEVELS: RangeInclusive<u32> = 1..=6;

    fn longest_prompt(&self, level: u32) -> usize {
        7 + (30 * level).to_string().len()
    }

    fn draw(&self, level: u32, random: &mut Random) -> Problem {
        let month = between(1..=12, random);
        Problem { day: between(1..=length(month), random), month, days: between(1..=30 * level, random) }
    }

    fn level(&self, &Problem { day, month, days }: &Problem) -> Option<u32> {
        let good = (1..=12).contains(&month) && (1..=length(month)).contains(&day) && days > 0;
        Self::LEVELS.into_iter().find(|level| good && days <= 30 * level)
    }

    fn prompt(&self, Problem { day, month, days }: &Problem) -> String {
        format!("{day}.{month}+{days}:")
    }

    fn parse(&self, prompt: &str) -> Option<Problem> {
        let (date, days) = prompt.strip_suffix(':')?.split_once('+')?;
        let (day, month) = date.split_once('.')?;
        Some(Problem { day: day.parse().ok()?, month: month.parse().ok()?, days: days.parse().ok()? })
    }

    fn in_words(&self, &Problem { day, month, days }: &Problem) -> String {
        let (month, days) =
            (NAMES[month as usize - 1], if days == 1 { "1 day".into() } else { format!("{days} days") });
        format!(
            "In a year with 365 days, followed by another, which date is {days} after {day} {month}? Answer with the day, \
             a full stop and the number of the month, such as 24.12 for 24 December."
        )
    }

    /// What goes wrong is the length of a month.
    fn steps(&self, problem: &Problem) -> Vec<Step> {
        let dates = problem.dates();
        let mut steps = vec![Step::number(format!("{}+{}", problem.day, problem.days), dates[0].0)];
        steps.extend(dates.windows(2).map(|pair| {
            let ((before, earlier), (day, month)) = (pair[0], pair[1]);
            let wrong = [format!("{}.{month}", day + 1), format!("{}.{month}", day.max(2) - 1)];
            Step::word(format!("{before}.{earlier}"), format!("{day}.{month}"), wrong)
        }));
        steps
    }

    fn answer(&self, problem: &Problem) -> String {
        let dates = problem.dates();
        let (day, month) = dates[dates.len() - 1];
        format!("{day}.{month}")
    }
}

#[cfg(test)]
mod tests {
    use super::super::procedural::tests::promises;
    use super::*;

    #[test]
    fn it_keeps_its_promises() {
        promises(&Calendar, "30.3+45:", "<think>30+45=75;75.3=44.4;44.4=14.5</think>14.5<end>");
        promises(&Calendar, "31.12+1:", "<think>31+1=32;32.12=1.1</think>1.1<end>");
    }
}
