//! What a vote log's text says: votes, imports that stand or fall as a whole, measurements, and an end that a crash cut off.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::verified::Verified;
use crate::vote::{VERSION, Vote, check_version};

/// Votes that came from a file. In the log this line stands before them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// The file, as it was called.
    pub file: String,
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// Votes that follow.
    pub votes: usize,
}

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A vote.
    Vote(Vote),
    /// The head of an import.
    Import(Import),
    /// What a model got right of problems that can be checked.
    Verified(Verified),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    v: u32,
    import: String,
    sha256: String,
    votes: usize,
}

impl Entry {
    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_json(line: &[u8]) -> Result<Entry> {
        #[derive(Deserialize)]
        struct Probe {
            import: Option<serde::de::IgnoredAny>,
            verified: Option<serde::de::IgnoredAny>,
        }
        let probe: Probe = serde_json::from_slice(line).map_err(|e| Error::of_json(&e))?;
        if probe.verified.is_some() {
            return Verified::from_json(line).map(Entry::Verified);
        }
        if probe.import.is_none() {
            return Vote::from_json(line).map(Entry::Vote);
        }
        check_version(line)?;
        let Line { v: _, import, sha256, votes } = serde_json::from_slice(line).map_err(|e| Error::of_json(&e))?;
        Ok(Entry::Import(Import { file: import, sha256, votes }))
    }
}

impl Import {
    /// The line, without its end.
    pub fn to_json(&self) -> String {
        let Import { file, sha256, votes } = self.clone();
        serde_json::to_string(&Line { v: VERSION, import: file, sha256, votes }).unwrap_or_default()
    }
}

/// An end that a crash cut off. It was never acknowledged, so it does not count; the next append takes it away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Torn {
    /// Half a line.
    Vote {
        /// Which, from 1.
        line: usize,
    },
    /// An import of which some votes are missing.
    Import {
        /// What was imported.
        import: Import,
        /// How many of its votes are there.
        arrived: usize,
    },
}

impl fmt::Display for Torn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Torn::Vote { line } => write!(f, "line {line} was cut off by a crash and does not count"),
            Torn::Import { import: Import { file, votes, .. }, arrived } => write!(
                f,
                "the import of {file} was cut off by a crash after {arrived} of {votes} votes and does not count; \
                 import it again"
            ),
        }
    }
}

/// What a log's text, or the rest of one, says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// All votes, those of imports among them, in order.
    pub votes: Vec<Vote>,
    /// All imports, in order.
    pub imports: Vec<Import>,
    /// All measurements, in order.
    pub verified: Vec<Verified>,
    /// Bytes up to the end of the last entry that counts.
    pub bytes: usize,
    /// Lines among those bytes.
    pub lines: usize,
    /// What stands behind them.
    pub torn: Option<Torn>,
}

/// Reads a log's text, of which `above` lines were read before. Empty lines do no harm.
///
/// # Errors
/// The line that can't be read though it was written to its end: a crash does not do that, and no vote is dropped
/// without a word.
pub fn read(text: &[u8], above: usize) -> Result<Entries> {
    let mut entries = Entries::default();
    // The import whose votes are being read, and how many votes there were before it.
    let mut open: Option<(Import, usize)> = None;
    let (mut bytes, mut lines) = (0, 0);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let number = above + lines + 1;
        if !line.trim_ascii().is_empty() {
            match Entry::from_json(line.trim_ascii_end()) {
                Ok(Entry::Vote(vote)) => entries.votes.push(vote),
                Ok(Entry::Verified(verified)) => entries.verified.push(verified),
                Ok(Entry::Import(import)) if open.is_none() => open = Some((import, entries.votes.len())),
                Ok(Entry::Import(_)) => {
                    return Err(Error::new(format!(
                        "line {number} begins an import before the one above it is complete; put the missing votes \
                         back, or take the upper import out"
                    )));
                }
                Err(_) if !line.ends_with(b"\n") => {
                    entries.torn = Some(Torn::Vote { line: number });
                    break;
                }
                Err(error) => {
                    return Err(Error::new(format!("line {number} is damaged: {error}; put it right, or take it out")));
                }
            }
        }
        (bytes, lines) = (bytes + line.len(), lines + 1);
        if let Some((import, _)) = open.take_if(|(import, before)| entries.votes.len() - *before == import.votes) {
            entries.imports.push(import);
        }
        if open.is_none() {
            (entries.bytes, entries.lines) = (bytes, lines);
        }
    }
    if let Some((import, before)) = open {
        let arrived = entries.votes.len() - before;
        entries.votes.truncate(before);
        entries.torn = Some(Torn::Import { import, arrived });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vote::Outcome;

    fn vote(left: &str) -> Vote {
        Vote::new(left, "z", Outcome::Left)
    }

    /// Three votes, of which the last two were imported.
    fn text() -> (String, Import) {
        let import = Import { file: "a.csv".into(), sha256: "5e".into(), votes: 2 };
        let lines = [vote("a").to_json(), import.to_json(), vote("b").to_json(), vote("c").to_json()];
        (lines.map(|line| line + "\n").concat(), import)
    }

    #[test]
    fn votes_and_imports_come_back_in_order() {
        let (text, import) = text();
        let entries = read(format!("\n{text} \n").as_bytes(), 0).unwrap();
        assert_eq!(entries.votes, ["a", "b", "c"].map(vote));
        assert_eq!((&entries.imports[..], &entries.torn), (&[import][..], &None));
        assert_eq!((entries.bytes, entries.lines), (text.len() + 3, 6));
        assert_eq!(read(b"", 0).unwrap(), Entries::default());
    }

    /// Cut at every byte: a vote counts when its line is whole, an import when all its votes are.
    #[test]
    fn whatever_a_crash_leaves_is_told() {
        let (text, _) = text();
        let first = text.find('\n').unwrap();
        for end in 0..text.len() {
            let Entries { votes, bytes, torn, .. } = read(&text.as_bytes()[..end], 0).unwrap();
            let whole = if end < first { 0 } else { 1 + 2 * usize::from(end + 1 >= text.len()) };
            assert_eq!(votes.len(), whole, "{end}");
            assert_eq!(torn.is_some(), bytes < end, "{end}");
            // Without its end, a line can still be whole.
            let ends = [0, first, first + 1, text.len() - 1];
            assert_eq!(torn.is_none(), ends.contains(&end), "{end}: {torn:?}");
        }
        let torn = |text: &str| read(text.as_bytes(), 0).unwrap().torn.unwrap().to_string();
        assert_eq!(torn(&text[..first - 1]), "line 1 was cut off by a crash and does not count");
        assert_eq!(torn(&text[..first + 9]), "line 2 was cut off by a crash and does not count");
        let expected =
            "the import of a.csv was cut off by a crash after 1 of 2 votes and does not count; import it again";
        assert_eq!(torn(&text[..text.len() - 9]), expected);
    }

    #[test]
    fn damage_in_the_middle_is_an_error() {
        let (text, import) = text();
        let said = |text: &str| read(text.as_bytes(), 10).unwrap_err().to_string();
        let damaged = said(&text.replacen("\"b\"", "b", 1));
        assert!(damaged.starts_with("line 13 is damaged: expected value (column"), "{damaged}");
        let twice = said(&format!("{}\n{text}", import.to_json()));
        assert!(twice.starts_with("line 13 begins an import before"), "{twice}");
        assert!(said("{\"v\":1,\"verified\":3}\n").contains("invalid type: integer `3`, expected a string"));
        assert!(said("{\"v\":1,\"import\":3}\n").contains("invalid type: integer `3`, expected a string"));
        assert!(said("{\"v\":7,\"import\":\"\"}\n").contains("it has version 7"));
    }
}
