//! Documents in files: texts with something between them, or JSON lines.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use flate2::Crc;
use minke_model::{Error, Result};
use serde_json::Value;

use crate::files::failed;

/// Largest file, in bytes.
const LARGEST: u64 = 1 << 30;
/// The key of a line's text.
const TEXT: &str = "text";

/// A file's documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Documents {
    /// In their order.
    pub list: Vec<Document>,
    /// CRC-32 of the file.
    pub crc32: u32,
}

/// A document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// What it says.
    pub text: String,
    /// The line of its file where it begins, from 1.
    pub line: usize,
}

/// Whether a file is one of JSON lines, each with a document.
pub fn is_json_lines(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("jsonl"))
}

/// Reads a file: JSON lines by its name, or documents with `separator` between them, which are what is neither blank nor a
/// line break at either end.
///
/// # Errors
/// One sentence: the file and what is wrong with it, with the line if there is one.
pub fn read(path: &Path, separator: &str) -> Result<Documents> {
    let wrong = |what: String| Error::new(format!("{} {what}", path.display()));
    let about = fs::metadata(path).map_err(|e| failed("read", path, e))?;
    if !about.is_file() {
        return Err(wrong("is not a file of text".into()));
    }
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes));
    read.map_err(|e| failed("read", path, e))?;
    if bytes.len() as u64 > LARGEST {
        return Err(wrong("has more than 1 GiB; give a part of it".into()));
    }
    let mut crc = Crc::new();
    crc.update(&bytes);
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        wrong(format!("line {} is not UTF-8 text; convert the file to UTF-8", 1 + breaks(before)))
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text).replace("\r\n", "\n");
    let list = if is_json_lines(path) { json_lines(&text).map_err(wrong)? } else { separated(&text, separator) };
    Ok(Documents { list, crc32: crc.sum() })
}

/// Line breaks in a text.
fn breaks(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte == b'\n').count()
}

fn separated(text: &str, separator: &str) -> Vec<Document> {
    let (mut list, mut line) = (Vec::new(), 1);
    for part in text.split(separator) {
        let body = part.trim_start_matches('\n');
        let text = body.trim_end_matches('\n');
        if !text.trim().is_empty() {
            list.push(Document { text: text.into(), line: line + part.len() - body.len() });
        }
        line += breaks(part.as_bytes()) + breaks(separator.as_bytes());
    }
    list
}

fn json_lines(text: &str) -> std::result::Result<Vec<Document>, String> {
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| {
            let value: Value =
                serde_json::from_str(line).map_err(|error| format!("line {number} is not JSON: {error}"))?;
            match value.get(TEXT) {
                Some(Value::String(text)) if !text.trim().is_empty() => {
                    Ok(Document { text: text.clone(), line: number })
                }
                Some(_) => Err(format!("line {number} has a {TEXT} that is none, or blank")),
                None => Err(format!("line {number} has no {TEXT}")),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(name: &str, bytes: &[u8], separator: &str) -> std::result::Result<Vec<(String, usize)>, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        match read(&path, separator) {
            Ok(documents) => Ok(documents.list.into_iter().map(|d| (d.text, d.line)).collect()),
            Err(error) => Err(error.to_string().replace(&*directory.path().to_string_lossy(), "")),
        }
    }

    fn documents(list: &[(&str, usize)]) -> std::result::Result<Vec<(String, usize)>, String> {
        Ok(list.iter().map(|&(text, line)| (text.to_string(), line)).collect())
    }

    #[test]
    fn documents_end_where_their_separator_stands() {
        let text = "\u{feff}\n\none\r\n two\n\n \n\nthree\n\n\n\nfour\n\n";
        assert_eq!(open("a.txt", text.as_bytes(), "\n\n"), documents(&[("one\n two", 3), ("three", 8), ("four", 12)]));
        assert_eq!(open("names", b"ada\n\nbob\n", "\n"), documents(&[("ada", 1), ("bob", 3)]));
        let end = "<|endoftext|>";
        let stories = format!("once\n\n upon{end}\na time\n{end}\n");
        assert_eq!(open("a.txt", stories.as_bytes(), end), documents(&[("once\n\n upon", 1), ("a time", 4)]));
        assert_eq!(open("a.txt", b" \n\n", "\n\n"), documents(&[]));
    }

    #[test]
    fn lines_of_json_have_a_document_each() {
        let lines = "{\"text\":\"a\\n\\nb\",\"id\":1}\n\n{\"text\":\" c \"}";
        assert_eq!(open("a.jsonl", lines.as_bytes(), "\n\n"), documents(&[("a\n\nb", 1), (" c ", 3)]));
        for (line, sentence) in [
            ("{", "is not JSON: EOF while parsing an object at line 1 column 1"),
            ("[1]", "has no text"),
            ("{\"txet\":\"a\"}", "has no text"),
            ("{\"text\":\" \"}", "has a text that is none, or blank"),
            ("{\"text\":7}", "has a text that is none, or blank"),
        ] {
            let error = open("a.jsonl", format!("{lines}\n{line}\n").as_bytes(), "").unwrap_err();
            assert_eq!(error, format!("/a.jsonl line 4 {sentence}"));
        }
    }

    #[test]
    fn what_is_no_text_is_named() {
        assert_eq!(
            open("a.txt", b"one\ntwo\xe9\n", "\n\n"),
            Err("/a.txt line 2 is not UTF-8 text; convert the file to UTF-8".into())
        );
        let directory = tempfile::tempdir().unwrap();
        assert!(read(directory.path(), "\n").unwrap_err().to_string().ends_with(" is not a file of text"));
        let missing = read(&directory.path().join("no.txt"), "\n").unwrap_err().to_string();
        assert!(missing.starts_with("could not read ") && missing.contains("no.txt: No such file"), "{missing}");
        let paths = ["a", "b"].map(|name| directory.path().join(name));
        paths.iter().zip(["one", "two"]).for_each(|(path, text)| fs::write(path, text).unwrap());
        let [a, b] = paths.map(|path| read(&path, "\n").unwrap().crc32);
        assert_ne!(a, b);
    }
}
