//! A vote: two models side by side, and what somebody thought of their answers.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, quoted};

/// The version of a vote's JSON; an object of another is refused.
pub const VERSION: u32 = 1;

/// Longest name of a model, voter or battle, in bytes.
const LONGEST_NAME: usize = 200;

/// What somebody thought of two answers, or of the reasoning before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The left one is better.
    Left,
    /// The right one is better.
    Right,
    /// Neither is better, and that is fine.
    Tie,
    /// Neither is better, and neither is any good. Ratings take it for a tie; the board shows how often it was said.
    BothBad,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Outcome; 4] = [Outcome::Left, Outcome::Right, Outcome::Tie, Outcome::BothBad];

    /// What it is called in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Left => "left",
            Outcome::Right => "right",
            Outcome::Tie => "tie",
            Outcome::BothBad => "both-bad",
        }
    }

    /// The one that is called `name`.
    pub fn from_name(name: &str) -> Option<Outcome> {
        Self::ALL.into_iter().find(|outcome| outcome.name() == name)
    }

    /// The same opinion with the sides changed.
    pub fn swapped(self) -> Outcome {
        match self {
            Outcome::Left => Outcome::Right,
            Outcome::Right => Outcome::Left,
            same => same,
        }
    }
}

/// One vote. It has no weight: every vote counts the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Vote {
    /// The model on the left.
    pub left: String,
    /// The model on the right.
    pub right: String,
    /// Whose answer is better.
    pub winner: Outcome,
    /// Whose reasoning is better, if that was asked.
    pub reasoning: Option<Outcome>,
    /// Who voted.
    pub voter: Option<String>,
    /// When, in milliseconds since 1970 (UTC).
    pub ms: Option<u64>,
    /// The battle that was voted on.
    pub battle: Option<String>,
    /// The task whose verifier voted, where no person did.
    pub judge: Option<String>,
}

/// A vote as it stands in a file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    v: u32,
    left: String,
    right: String,
    winner: Outcome,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reasoning: Option<Outcome>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    voter: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    battle: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    judge: Option<String>,
}

impl Vote {
    /// A vote on answers, of which nothing more is known.
    pub fn new(left: impl Into<String>, right: impl Into<String>, winner: Outcome) -> Vote {
        let (left, right) = (left.into(), right.into());
        Vote { left, right, winner, reasoning: None, voter: None, ms: None, battle: None, judge: None }
    }

    /// Reads a vote of [`VERSION`] from one JSON object.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_json(json: &[u8]) -> Result<Vote> {
        check_version(json)?;
        let line: Line = serde_json::from_slice(json).map_err(|e| Error::of_json(&e))?;
        let Line { v: _, left, right, winner, reasoning, voter, ms, battle, judge } = line;
        let vote = Vote { left, right, winner, reasoning, voter, ms, battle, judge };
        vote.check()?;
        Ok(vote)
    }

    /// The vote as one JSON object, without a line end.
    pub fn to_json(&self) -> String {
        let Vote { left, right, winner, reasoning, voter, ms, battle, judge } = self.clone();
        let line = Line { v: VERSION, left, right, winner, reasoning, voter, ms, battle, judge };
        serde_json::to_string(&line).unwrap_or_default()
    }

    /// That it can be counted and written down.
    ///
    /// # Errors
    /// A sentence for a name that is empty, too long or hard to see, or for a model that is compared with itself.
    pub fn check(&self) -> Result<()> {
        check_name("model", &self.left)?;
        check_name("model", &self.right)?;
        if self.left == self.right {
            return Err(Error::new(format!("{} is compared with itself; a vote is on two models", quoted(&self.left))));
        }
        self.voter.as_deref().map_or(Ok(()), |voter| check_name("voter", voter))?;
        self.battle.as_deref().map_or(Ok(()), |battle| check_name("battle", battle))?;
        self.judge.as_deref().map_or(Ok(()), |judge| check_name("judge", judge))
    }
}

/// That a JSON object has the version that is read here.
pub(crate) fn check_version(json: &[u8]) -> Result<()> {
    #[derive(Deserialize)]
    struct Versioned {
        v: u32,
    }
    let Versioned { v } = serde_json::from_slice(json).map_err(|e| Error::of_json(&e))?;
    match v {
        VERSION => Ok(()),
        v => Err(Error::new(format!("it has version {v}, and this minke reads version {VERSION}"))),
    }
}

/// That a name can be seen and kept; `whose` says of what it is, in the sentence that says why not.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(whose: &str, name: &str) -> Result<()> {
    let wrong = if name.is_empty() {
        "is empty".to_string()
    } else if name.len() > LONGEST_NAME {
        format!("{} has {} bytes, more than {LONGEST_NAME}", quoted(name), name.len())
    } else if name.trim() != name {
        format!("{} begins or ends with a space", quoted(name))
    } else if name.contains(char::is_control) {
        format!("{} has a control character", quoted(name))
    } else {
        return Ok(());
    };
    Err(Error::new(format!("a {whose}'s name {wrong}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vote_is_read_as_it_was_written() {
        let plain = Vote::new("a", "b", Outcome::BothBad);
        assert_eq!(plain.to_json(), r#"{"v":1,"left":"a","right":"b","winner":"both-bad"}"#);
        let full = Vote {
            reasoning: Some(Outcome::Left),
            voter: Some("ada".into()),
            ms: Some(1_764_000_000_123),
            battle: Some("7f".into()),
            judge: Some("chain_sum".into()),
            ..Vote::new("鯨 \"1\"", "b", Outcome::Tie)
        };
        for vote in [plain, full] {
            assert_eq!(Vote::from_json(vote.to_json().as_bytes()), Ok(vote));
        }
    }

    #[test]
    fn outcomes_have_names_and_sides() {
        for outcome in Outcome::ALL {
            assert_eq!(Outcome::from_name(outcome.name()), Some(outcome));
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.name());
            assert_eq!(outcome.swapped().swapped(), outcome);
        }
        assert_eq!(Outcome::Left.swapped(), Outcome::Right);
        assert_eq!(Outcome::from_name("model_a"), None);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (json, expected) in [
            ("", "EOF while parsing a value (column 0)"),
            ("{}", "missing field `v` (column 2)"),
            (r#"{"v":2}"#, "it has version 2, and this minke reads version 1"),
            (r#"{"v":1,"left":"a","right":"b"}"#, "missing field `winner` (column 30)"),
            (
                r#"{"v":1,"left":"a","right":"b","winner":"model_a"}"#,
                "unknown variant `model_a`, expected one of `left`, `right`, `tie`, `both-bad` (column 48)",
            ),
            (r#"{"v":1,"left":"a","right":"a","winner":"tie"}"#, "\"a\" is compared with itself"),
            (r#"{"v":1,"left":"","right":"a","winner":"tie"}"#, "a model's name is empty"),
            (r#"{"v":1,"left":" a","right":"a","winner":"tie"}"#, "a model's name \" a\" begins or ends with a space"),
            (r#"{"v":1,"left":"b\u001bc","right":"a","winner":"tie"}"#, "\"b\\u{1b}c\" has a control character"),
            (r#"{"v":1,"left":"b","right":"a","winner":"tie","voter":""}"#, "a voter's name is empty"),
        ] {
            let said = Vote::from_json(json.as_bytes()).unwrap_err().to_string();
            assert!(said.contains(expected), "{json}: {said}");
        }
        let unknown = r#"{"v":1,"left":"a","right":"b","winner":"tie","weight":2}"#;
        assert!(Vote::from_json(unknown.as_bytes()).unwrap_err().to_string().contains("unknown field `weight`"));
        let long = Vote::new("x".repeat(201), "b", Outcome::Tie).check().unwrap_err().to_string();
        assert!(long.contains("has 201 bytes, more than 200"), "{long}");
    }
}
