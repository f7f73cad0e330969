//! Repeats: what has been run, or is being run, that is like what somebody is about to run. Pointed out, never forbidden.
//!
//! Exact by content, near by settings, alike by words. Words are weighed by how rare they are among the ideas that there are
//! (Spärck Jones, "A statistical interpretation of term specificity", 1972), and compared by the cosine of their weights.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::idea::{Idea, IdeaId, IdeaStatus};
use crate::run::{Fingerprint, Run, RunId, State};

/// Ideas are alike from this cosine on.
const ALIKE: f64 = 0.5;

/// Settings are near when they differ in at most so many keys.
const NEAR_KEYS: usize = 2;

/// How far settings may be apart: a factor of 2 in a number counts 1, other differences count [`OTHER`].
const NEAR: f64 = 2.0;

/// What a setting counts that is another, and no number.
const OTHER: f64 = 2.0;

/// At most so many are pointed out.
const SHOWN: usize = 5;

/// Something that there is already.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Repeat {
    /// Which idea.
    pub idea: IdeaId,
    /// Its run, where the likeness is one of runs; else its latest run, if there is one.
    pub run: Option<RunId>,
    /// In what it is like.
    pub like: Likeness,
}

/// In what something is like another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Likeness {
    /// The same code, settings and seed.
    Exact,
    /// The same but for the seed.
    Replicate,
    /// The same code, and few settings that differ, by little.
    Near {
        /// Which settings differ.
        keys: Vec<String>,
    },
    /// The idea says much the same.
    Words {
        /// From 0 to 1.
        cosine: f64,
    },
}

impl Likeness {
    /// For sorting: the lower, the more alike.
    fn distance(&self) -> f64 {
        match self {
            Likeness::Exact => 0.0,
            Likeness::Replicate => 1.0,
            Likeness::Near { keys } => 2.0 + keys.len() as f64 / 1000.0,
            Likeness::Words { cosine } => 4.0 - cosine,
        }
    }
}

/// What there is like an idea and what it would run, most alike first; one entry for an idea.
pub(crate) fn find(
    ideas: &BTreeMap<IdeaId, Idea>,
    runs: &BTreeMap<RunId, Run>,
    sentence: &str,
    fingerprint: &Fingerprint,
) -> Vec<Repeat> {
    let mut best: BTreeMap<IdeaId, Repeat> = BTreeMap::new();
    let mut offer = |repeat: Repeat| {
        let there = best.get(&repeat.idea);
        if there.is_none_or(|there| repeat.like.distance() < there.like.distance()) {
            best.insert(repeat.idea, repeat);
        }
    };
    // Later runs first, so that among equals the latest is shown.
    for run in runs.values().rev().filter(|run| !matches!(run.state, State::Failed | State::Stopped)) {
        if let Some(like) = compare(&run.fingerprint, fingerprint) {
            offer(Repeat { idea: run.idea, run: Some(run.id), like });
        }
    }
    let there: Vec<&Idea> = ideas.values().filter(|idea| !matches!(idea.status, IdeaStatus::Merged(_))).collect();
    let words: Vec<BTreeSet<String>> = there.iter().map(|idea| words(&idea.sentence)).collect();
    let weights = Weights::of(&words);
    let asked = self::words(sentence);
    for (idea, words) in there.iter().zip(&words) {
        let cosine = weights.cosine(&asked, words);
        if cosine >= ALIKE {
            let run = runs.values().rev().find(|run| run.idea == idea.id).map(|run| run.id);
            offer(Repeat { idea: idea.id, run, like: Likeness::Words { cosine } });
        }
    }
    let mut found: Vec<Repeat> = best.into_values().collect();
    found.sort_by(|a, b| a.like.distance().total_cmp(&b.like.distance()).then(b.idea.cmp(&a.idea)));
    found.truncate(SHOWN);
    found
}

/// In what two computations are alike, if they are.
fn compare(there: &Fingerprint, new: &Fingerprint) -> Option<Likeness> {
    if there.code != new.code {
        return None;
    }
    if there.settings == new.settings {
        return Some(if there.seed == new.seed { Likeness::Exact } else { Likeness::Replicate });
    }
    let keys: BTreeSet<&String> = there.settings.keys().chain(new.settings.keys()).collect();
    let differ: Vec<&String> =
        keys.into_iter().filter(|key| there.settings.get(*key) != new.settings.get(*key)).collect();
    let apart = |key: &&String| match (there.settings.get(*key), new.settings.get(*key)) {
        (Some(a), Some(b)) => apart(a, b),
        _ => OTHER,
    };
    let near = differ.len() <= NEAR_KEYS && differ.iter().map(apart).sum::<f64>() <= NEAR;
    near.then(|| Likeness::Near { keys: differ.into_iter().cloned().collect() })
}

/// How far two values are apart: numbers of one sign by the logarithm of their ratio.
fn apart(a: &str, b: &str) -> f64 {
    match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(a), Ok(b)) if a * b > 0.0 && (a / b).is_finite() => (a / b).log2().abs(),
        _ => OTHER,
    }
}

/// How rare each word is.
struct Weights {
    ideas: f64,
    with: BTreeMap<String, f64>,
}

impl Weights {
    fn of(ideas: &[BTreeSet<String>]) -> Weights {
        let mut with: BTreeMap<String, f64> = BTreeMap::new();
        for word in ideas.iter().flatten() {
            *with.entry(word.clone()).or_default() += 1.0;
        }
        Weights { ideas: ideas.len() as f64, with }
    }

    /// Never zero: in a lab with one idea every word of it still counts.
    fn weight(&self, word: &str) -> f64 {
        let with = self.with.get(word).copied().unwrap_or(0.0);
        ((1.0 + self.ideas) / (1.0 + with)).ln() + 1.0
    }

    fn cosine(&self, a: &BTreeSet<String>, b: &BTreeSet<String>) -> f64 {
        let square =
            |words: &mut dyn Iterator<Item = &String>| words.map(|word| self.weight(word).powi(2)).sum::<f64>();
        let norms = square(&mut a.iter()).sqrt() * square(&mut b.iter()).sqrt();
        if norms == 0.0 { 0.0 } else { square(&mut a.intersection(b)) / norms }
    }
}

/// Words that say nothing of what an idea is about.
const STOP: [&str; 48] = [
    "a", "an", "and", "are", "as", "at", "be", "by", "can", "could", "do", "does", "for", "from", "has", "have", "how",
    "if", "in", "is", "it", "its", "let", "more", "of", "on", "or", "our", "should", "so", "than", "that", "the",
    "then", "this", "to", "try", "using", "us", "use", "we", "what", "when", "whether", "will", "with", "would", "you",
];

/// The words of a sentence, as they are compared: lower case, without endings.
fn words(sentence: &str) -> BTreeSet<String> {
    let lower = sentence.to_lowercase();
    let words = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty() && !STOP.contains(word));
    words.map(stem).collect()
}

/// A word without the commonest English endings.
fn stem(word: &str) -> String {
    let endings = ["ings", "ing", "ies", "es", "ed", "s", "e", "y"];
    let cut = endings.iter().find_map(|ending| word.strip_suffix(ending).filter(|stem| stem.chars().count() >= 3));
    let stem = cut.unwrap_or(word);
    // "running" is "run" with its last letter said twice.
    let mut letters = stem.chars().rev();
    match (letters.next(), letters.next()) {
        (Some(last), Some(before))
            if last == before && stem.len() > 3 && !"aeiouls".contains(last) && cut.is_some() =>
        {
            stem[..stem.len() - last.len_utf8()].to_string()
        }
        _ => stem.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cosine(a: &str, b: &str) -> f64 {
        Weights::of(&[words(a)]).cosine(&words(a), &words(b))
    }

    #[test]
    fn sentences_that_say_the_same_are_alike() {
        for (a, b) in [
            ("Do longer thoughts help sums?", "longer thoughts help with sums"),
            ("Train with a higher learning rate", "training at higher learning rates"),
            ("Does a thought budget of 64 tokens hurt countdown?", "Countdown with a thought budget of 64"),
        ] {
            assert!(cosine(a, b) >= ALIKE, "{a} | {b}: {}", cosine(a, b));
        }
        for (a, b) in [
            ("Do longer thoughts help sums?", "Muon instead of AdamW"),
            ("Train with a higher learning rate", "train on shorter prompts"),
            ("", "anything"),
            ("of the", "of the"),
        ] {
            assert!(cosine(a, b) < ALIKE, "{a} | {b}: {}", cosine(a, b));
        }
    }

    #[test]
    fn settings_are_compared_key_by_key_and_numbers_by_ratio() {
        let print = |code: &str, settings: &[(&str, &str)], seed| Fingerprint {
            code: code.into(),
            settings: settings.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            seed,
        };
        let base = print("c", &[("lr", "0.001"), ("steps", "100"), ("task", "sums")], Some(1));
        let like = |new: Fingerprint| compare(&base, &new);
        assert_eq!(like(base.clone()), Some(Likeness::Exact));
        assert_eq!(like(Fingerprint { seed: Some(2), ..base.clone() }), Some(Likeness::Replicate));
        let near = print("c", &[("lr", "0.002"), ("steps", "120"), ("task", "sums")], Some(1));
        assert_eq!(like(near), Some(Likeness::Near { keys: vec!["lr".into(), "steps".into()] }));
        for other in [
            print("d", &[("lr", "0.001"), ("steps", "100"), ("task", "sums")], Some(1)),
            print("c", &[("lr", "0.1"), ("steps", "100"), ("task", "sums")], Some(1)),
            print("c", &[("lr", "0.002"), ("steps", "120"), ("task", "countdown")], Some(1)),
            print("c", &[("lr", "0.002"), ("steps", "101"), ("task", "sums"), ("clip", "1")], Some(1)),
        ] {
            assert_eq!(like(other.clone()), None, "{other:?}");
        }
    }

    #[test]
    fn any_text_is_cut_into_words() {
        let mut random = 1u64;
        for _ in 0..2000 {
            let text: String = (0..20)
                .map(|_| {
                    random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    char::from_u32((random >> 40) as u32 % 0x3000).unwrap_or('ß')
                })
                .collect();
            assert!(cosine(&text, &text) >= 0.0);
        }
    }
}
