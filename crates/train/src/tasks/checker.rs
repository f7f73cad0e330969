//! Checkers: how an answer is compared with the one that a file gives. None of them looks for the answer within a longer
//! text, so that naming several earns nothing.

use minke_model::error::quoted;
use regex::{Regex, RegexBuilder};

/// Longest answer that is looked at, in bytes.
const LONGEST: usize = 4096;

/// How answers are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checker {
    /// The same number: `1,234.50` is 1234.5. Digits are ASCII's, commas stand between groups of three, and a dollar sign
    /// before is passed over.
    Number,
    /// The same text, character by character.
    Exact,
    /// A text that the file's regular expression matches from its first character to its last.
    Regex,
    /// The same letter, alone or as `(B)`, `B)` or `B.`.
    Choice,
}

impl Checker {
    /// What recipes call them.
    pub const NAMES: [(&'static str, Checker); 4] =
        [("number", Self::Number), ("exact", Self::Exact), ("regex", Self::Regex), ("choice", Self::Choice)];

    /// The answer that a file gives, as this checker compares it.
    ///
    /// # Errors
    /// Why nothing can be compared with it, as an end to "the answer is ".
    pub fn expected(self, answer: &str) -> Result<String, String> {
        let shown = quoted(answer);
        if answer.is_empty() || answer.len() > LONGEST {
            return Err(format!("{shown}, and answers have from 1 to {LONGEST} bytes"));
        }
        match self {
            Self::Number => number(answer).map_err(|why| format!("{shown}, which is no number: {why}")),
            Self::Exact => Ok(answer.to_string()),
            Self::Regex => match pattern(answer) {
                Ok(_) => Ok(answer.to_string()),
                Err(_) => Err(format!("{shown}, which is no regular expression that can be used")),
            },
            Self::Choice => letter(answer).ok_or_else(|| format!("{shown}, which is no letter from A to Z")),
        }
    }

    /// Whether `answer` is right, where `expected` is what [`Checker::expected`] made of the file's answer.
    ///
    /// # Errors
    /// Why not, in a few words.
    pub fn check(self, expected: &str, answer: &str) -> Result<(), String> {
        let shown = quoted(answer);
        if answer.len() > LONGEST {
            return Err(format!("the answer has more than {LONGEST} bytes"));
        }
        let given = match self {
            Self::Number => number(answer).map_err(|why| format!("answer {shown} is no number: {why}"))?,
            Self::Exact => answer.to_string(),
            Self::Regex => {
                let pattern = pattern(expected).map_err(|_| "the file's regular expression can't be used")?;
                let matches = pattern.is_match(answer);
                return if matches { Ok(()) } else { Err(format!("answer {shown} does not match {expected}")) };
            }
            Self::Choice => letter(answer).ok_or_else(|| format!("answer {shown} is no single letter"))?,
        };
        if given == expected { Ok(()) } else { Err(format!("answer {shown} is not {expected}")) }
    }
}

/// A regular expression that has to match the whole of a text; linear in its length, and no larger than 1 MiB.
fn pattern(text: &str) -> Result<Regex, regex::Error> {
    // On its own first: a parenthesis too many must not get out of the group.
    let limited = |text: &str| RegexBuilder::new(text).size_limit(1 << 20).build();
    limited(text)?;
    limited(&format!(r"\A(?:{text})\z"))
}

/// The letter of a choice.
fn letter(text: &str) -> Option<String> {
    let bare = text.trim_matches([' ', '\n']);
    let bare =
        bare.strip_prefix('(').map_or(bare.strip_suffix([')', '.']).or(Some(bare)), |rest| rest.strip_suffix(')'))?;
    (bare.len() == 1 && bare.as_bytes()[0].is_ascii_uppercase()).then(|| bare.to_string())
}

/// A number in one form: no commas, no zeros that mean nothing, no sign of zero.
fn number(text: &str) -> Result<String, &'static str> {
    let bare = text.trim_matches([' ', '\n']);
    let (negative, bare) = bare.strip_prefix('-').map_or((false, bare), |rest| (true, rest));
    let bare = bare.strip_prefix('$').unwrap_or(bare);
    let (whole, fraction) = match bare.split_once('.') {
        None => (bare, ""),
        Some((_, "")) => return Err("a point without digits behind it"),
        Some(parts) => parts,
    };
    if !whole.bytes().all(|b| b.is_ascii_digit() || b == b',') || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err("something other than digits");
    }
    let mut groups = whole.split(',');
    let first = groups.next().unwrap_or_default();
    let grouped = whole.contains(',');
    if first.is_empty() || grouped && (first.len() > 3 || groups.any(|group| group.len() != 3)) {
        return Err("digits are missing");
    }
    let digits = whole.replace(',', "");
    if digits.len() > 1 && digits.starts_with('0') {
        return Err("a leading zero");
    }
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    let sign = if negative && (digits != "0" || !fraction.is_empty()) { "-" } else { "" };
    Ok(format!("{sign}{digits}{point}{fraction}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_as_numbers() {
        for (text, expected) in [
            ("18", "18"),
            (" 18\n", "18"),
            ("$18", "18"),
            ("-$3.50", "-3.5"),
            ("1,234,567", "1234567"),
            ("0.0", "0"),
            ("-0", "0"),
            ("70000.00", "70000"),
            ("0.050", "0.05"),
        ] {
            assert_eq!(number(text).as_deref(), Ok(expected), "{text}");
        }
        for text in [
            "",
            " ",
            "$",
            "-",
            "--1",
            "+1",
            "1 2",
            "1,23",
            ",123",
            "1,",
            "1.",
            ".5",
            "1.2.3",
            "1e3",
            "0x10",
            "018",
            "18%",
            "18 dollars",
            "18 19",
            "１８",
            "١٨",
            "1/2",
            "NaN",
            "inf",
            "1_000",
            "1,0000",
            "−5",
            "18\u{a0}",
        ] {
            assert!(number(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_checker_says_why() {
        let check = |checker: Checker, file: &str, answer: &str| {
            checker.check(&checker.expected(file).unwrap(), answer).err().unwrap_or_default()
        };
        assert_eq!(check(Checker::Number, "1,000", "1000.0"), "");
        assert_eq!(check(Checker::Number, "18", "19"), "answer \"19\" is not 18");
        assert_eq!(
            check(Checker::Number, "18", "18 or 19"),
            "answer \"18 or 19\" is no number: something other than digits"
        );
        assert_eq!(check(Checker::Exact, "cat", "cat"), "");
        assert_eq!(check(Checker::Exact, "cat", "cat "), "answer \"cat \" is not cat");
        assert_eq!(check(Checker::Choice, "B", "(B)"), "");
        assert_eq!(check(Checker::Choice, "(B)", "B."), "");
        for wrong in ["b", "A", "A B", "AB", "(B", "B))", "(B).", "", "Β", "A or B"] {
            assert_ne!(check(Checker::Choice, "B", wrong), "", "{wrong}");
        }
        assert_eq!(check(Checker::Regex, "cats?|dogs?", "dog"), "");
        for wrong in ["a dog", "dog ", "dog\n", "dogcat", "", "cat dog"] {
            assert_ne!(check(Checker::Regex, "cats?|dogs?", wrong), "", "{wrong}");
        }
        assert_eq!(check(Checker::Regex, "a", "b"), "answer \"b\" does not match a");
        for (checker, file) in [
            (Checker::Number, "eighteen"),
            (Checker::Choice, "BC"),
            (Checker::Regex, "a)|(b"),
            (Checker::Regex, "(?:a{999}){999}"),
            (Checker::Exact, ""),
        ] {
            assert!(checker.expected(file).is_err(), "{file}");
        }
    }
}
