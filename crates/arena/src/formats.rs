//! Votes in other people's files, and in files for them.
//!
//! Three forms are read: minke's own log, Chatbot Arena's JSON lines, and CSV with the columns `left`, `right` and
//! `winner`, as evalica has it. Which one a file has, it says itself.

use std::fmt;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use crate::entries::Entry;
use crate::error::{Error, Result, quoted};
use crate::vote::{Outcome, Vote};

/// What a file is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// minke's log: votes as [`Vote::to_json`] has them, heads of imports, and measurements, which are no votes.
    Log,
    /// Chatbot Arena's JSON lines: `model_a`, `model_b`, `winner`, and more.
    ChatbotArena,
    /// Comma-separated values.
    Csv,
}

/// A line that is no vote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Which, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub why: Error,
}

/// What a file has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// How it is written.
    pub format: Format,
    /// Its votes, in order.
    pub votes: Vec<Vote>,
    /// The first of the lines that are no votes, at most [`SHOWN`].
    pub bad: Vec<BadLine>,
    /// How many such lines there are.
    pub bad_lines: u64,
}

/// Bad lines that are remembered.
pub const SHOWN: usize = 100;

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Log => "a log of minke's",
            Format::ChatbotArena => "Chatbot Arena's JSON lines",
            Format::Csv => "CSV",
        })
    }
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

impl Contents {
    fn new(format: Format) -> Contents {
        Contents { format, votes: Vec::new(), bad: Vec::new(), bad_lines: 0 }
    }

    fn add(&mut self, line: u64, vote: Result<Option<Vote>>) {
        match vote {
            Ok(vote) => self.votes.extend(vote),
            Err(why) => {
                self.bad_lines += 1;
                if self.bad.len() < SHOWN {
                    self.bad.push(BadLine { line, why });
                }
            }
        }
    }
}

/// Reads a file's bytes, whichever form they have.
///
/// # Errors
/// That they have none of them. Single lines that are no votes are in the result.
pub fn read(bytes: &[u8]) -> Result<Contents> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    match bytes.trim_ascii_start().first() {
        None => Err(Error::new("the file is empty")),
        Some(b'{') => Ok(json_lines(bytes)),
        Some(b'[') => Err(Error::new(
            "the file is one JSON array, and JSON lines are read: one object a line, as `jq -c .[]` makes them",
        )),
        Some(_) => csv(bytes),
    }
}

fn json_lines(bytes: &[u8]) -> Contents {
    #[derive(Deserialize)]
    struct Probe {
        model_a: Option<serde::de::IgnoredAny>,
    }
    let lines = || (1..).zip(bytes.split(|byte| *byte == b'\n')).filter(|(_, line)| !line.trim_ascii().is_empty());
    let is_arena = |line: &[u8]| serde_json::from_slice(line).is_ok_and(|Probe { model_a }| model_a.is_some());
    let format = if lines().any(|(_, line)| is_arena(line)) { Format::ChatbotArena } else { Format::Log };
    let mut contents = Contents::new(format);
    for (number, line) in lines() {
        contents.add(
            number,
            match format {
                Format::ChatbotArena => chatbot_arena(line).map(Some),
                _ => Entry::from_json(line).map(|entry| match entry {
                    Entry::Vote(vote) => Some(vote),
                    Entry::Import(_) | Entry::Verified(_) => None,
                }),
            },
        );
    }
    contents
}

/// One line of Chatbot Arena's; what is not named here does not matter for a vote.
fn chatbot_arena(line: &[u8]) -> Result<Vote> {
    #[derive(Deserialize)]
    struct Line {
        model_a: String,
        model_b: String,
        winner: String,
        question_id: Option<String>,
        judge: Option<String>,
        /// In seconds since 1970.
        tstamp: Option<f64>,
    }
    let line: Line = serde_json::from_slice(line).map_err(|e| Error::of_json(&e))?;
    let winner = match line.winner.as_str() {
        "model_a" => Outcome::Left,
        "model_b" => Outcome::Right,
        "tie" => Outcome::Tie,
        "tie (bothbad)" | "both_bad" => Outcome::BothBad,
        other => {
            return Err(Error::new(format!(
                "winner {} is none of model_a, model_b, tie, tie (bothbad)",
                quoted(other)
            )));
        }
    };
    let vote = Vote {
        voter: line.judge,
        // Times before 1970 become 1970, and those that no clock shows the last there is.
        ms: line.tstamp.map(|seconds| (1000.0 * seconds) as u64),
        battle: line.question_id,
        ..Vote::new(line.model_a, line.model_b, winner)
    };
    vote.check()?;
    Ok(vote)
}

fn csv(bytes: &[u8]) -> Result<Contents> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(bytes);
    let unreadable = |e: csv::Error| Error::new(format!("the file is no CSV: {e}"));
    let header = reader.byte_headers().map_err(unreadable)?.clone();
    let column = |name: &str| {
        let mut columns = (0..header.len()).filter(|&i| header[i].eq_ignore_ascii_case(name.as_bytes()));
        match (columns.next(), columns.next()) {
            (Some(column), None) => Ok(column),
            (Some(_), Some(_)) => Err(Error::new(format!("the CSV has two columns called {name}"))),
            (None, _) => {
                Err(Error::new("the file is neither JSON lines nor CSV with columns called left, right and winner"))
            }
        }
    };
    let columns = [column("left")?, column("right")?, column("winner")?];
    let mut contents = Contents::new(Format::Csv);
    let mut record = csv::ByteRecord::new();
    let (mut line, mut at) = (1, 0);
    while reader.read_byte_record(&mut record).map_err(unreadable)? {
        // A record's position is where the one before it ended: empty lines, and half of a CRLF, may lie between.
        let end = record.position().map_or(at, |position| position.byte() as usize);
        let skipped = bytes[end..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        line += bytes[at..end + skipped].iter().filter(|byte| **byte == b'\n').count() as u64;
        at = end + skipped;
        contents.add(line, row(&record, columns).map(Some));
    }
    Ok(contents)
}

fn row(record: &csv::ByteRecord, columns: [usize; 3]) -> Result<Vote> {
    let field = |column: usize| {
        let bytes = record
            .get(column)
            .ok_or_else(|| Error::new(format!("it has {} columns, fewer than the first line", record.len())))?;
        std::str::from_utf8(bytes).map_err(|_| Error::new("it is not UTF-8"))
    };
    let [left, right, winner] = columns.map(field);
    let (left, right, winner) = (left?, right?, winner?);
    let winner = Outcome::from_name(winner)
        .ok_or_else(|| Error::new(format!("winner {} is none of left, right, tie, both-bad", quoted(winner))))?;
    let vote = Vote::new(left, right, winner);
    vote.check()?;
    Ok(vote)
}

/// Writes votes as minke's log has them.
///
/// # Errors
/// What `out` says.
pub fn write_json_lines(votes: &[Vote], out: &mut dyn Write) -> io::Result<()> {
    votes.iter().try_for_each(|vote| writeln!(out, "{}", vote.to_json()))
}

/// Writes votes as CSV with the columns `left`, `right`, `winner`: what other programs rate by.
///
/// # Errors
/// What `out` says.
pub fn write_csv(votes: &[Vote], out: &mut dyn Write) -> io::Result<()> {
    let mut writer = csv::Writer::from_writer(out);
    // An io error must stay recognisable as one.
    let failed = |e: csv::Error| match e.into_kind() {
        csv::ErrorKind::Io(e) => e,
        other => io::Error::other(format!("{other:?}")),
    };
    writer.write_record(["left", "right", "winner"]).map_err(failed)?;
    for vote in votes {
        writer.write_record([&*vote.left, &*vote.right, vote.winner.name()]).map_err(failed)?;
    }
    writer.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(contents: &Contents) -> Vec<String> {
        contents.bad.iter().map(BadLine::to_string).collect()
    }

    #[test]
    fn csv_may_have_other_columns_and_bad_lines() {
        let text = "\u{feff}id,winner,Left,right\r\n0,left,\"a \"\"1\"\", x\", b \r\n\r\n1,tie,c\n2,maybe,a,b\n\
                    3,both-bad,a,a\n4,right,\"d\ne\",b\n5,right,f,g,more\n";
        let contents = read(text.as_bytes()).unwrap();
        assert_eq!(contents.format, Format::Csv);
        let expected = [Vote::new("a \"1\", x", "b", Outcome::Left), Vote::new("f", "g", Outcome::Right)];
        assert_eq!(contents.votes, expected);
        let expected = [
            "line 4: it has 3 columns, fewer than the first line",
            "line 5: winner \"maybe\" is none of left, right, tie, both-bad",
            "line 6: \"a\" is compared with itself; a vote is on two models",
            "line 7: a model's name \"d\\ne\" has a control character",
        ];
        assert_eq!(lines(&contents), expected);
        let not_utf8 = read(b"left,right,winner\na,\xff,tie\n").unwrap();
        assert_eq!(lines(&not_utf8), ["line 2: it is not UTF-8"]);
    }

    #[test]
    fn chatbot_arenas_lines_are_read_and_bad_ones_named() {
        let text = r#"{"num": 0, "question_id": "58", "model_a": "x", "model_b": "y", "winner": "model_b"}
{"model_a": "x", "model_b": "y", "winner": "tie (bothbad)", "judge": "ada", "tstamp": 1682351591.1322}

{"model_a": "x", "model_b": "y", "winner": "both_bad", "tstamp": -1}
{"model_a": "x", "model_b": "y", "winner": "model_c"}
{"model_a": "x", "winner": "tie"}
half a line"#;
        let contents = read(text.as_bytes()).unwrap();
        assert_eq!(contents.format, Format::ChatbotArena);
        let vote = |winner| Vote::new("x", "y", winner);
        let expected = [
            Vote { battle: Some("58".into()), ..vote(Outcome::Right) },
            Vote { voter: Some("ada".into()), ms: Some(1_682_351_591_132), ..vote(Outcome::BothBad) },
            Vote { ms: Some(0), ..vote(Outcome::BothBad) },
        ];
        assert_eq!(contents.votes, expected);
        let expected = [
            "line 5: winner \"model_c\" is none of model_a, model_b, tie, tie (bothbad)",
            "line 6: missing field `model_b` (column 33)",
            "line 7: expected value (column 1)",
        ];
        assert_eq!(lines(&contents), expected);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut votes = vec![Vote::new("a,\"b\"", "c", Outcome::Tie), Vote::new("d", "鯨", Outcome::BothBad)];
        votes[1].reasoning = Some(Outcome::Left);
        let mut text = Vec::new();
        write_json_lines(&votes, &mut text).unwrap();
        let contents = read(&text).unwrap();
        assert_eq!((contents.format, &contents.votes, contents.bad_lines), (Format::Log, &votes, 0));
        let mut text = Vec::new();
        write_csv(&votes, &mut text).unwrap();
        votes[1].reasoning = None;
        assert_eq!(read(&text).unwrap().votes, votes);
    }

    #[test]
    fn other_files_are_told_so() {
        let said = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
        assert_eq!(said(b"\xef\xbb\xbf \n"), "the file is empty");
        assert!(said(b" [{}]").contains("one JSON array"));
        for bytes in [&b"\x1f\x8b\x08\x00"[..], b"a,b\n1,2\n", b"left,right\na,b\n", b"\0\0"] {
            assert!(said(bytes).contains("neither JSON lines nor CSV"), "{bytes:?}");
        }
        assert!(said(b"left,left,right,winner\n").contains("two columns called left"));
        let bad = "{}\n".repeat(SHOWN + 7);
        let contents = read(bad.as_bytes()).unwrap();
        assert_eq!((contents.bad.len(), contents.bad_lines), (SHOWN, SHOWN as u64 + 7));
        assert_eq!(contents.bad[0].to_string(), "line 1: missing field `v` (column 2)");
    }
}
