//! `task.jsonl`: what a run was told by its task's program, so that the run goes on, or again, as if it were told the same.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use minke_kernels::random::fnv1a;
use minke_model::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::files::{failed, sync_names};

/// The version of the format.
const VERSION: u32 = 1;
/// Longest line that is read: a request and its reply, each of a few texts.
const LONGEST_LINE: u64 = 16 << 20;

/// The file, and what it has.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// None where nothing is added.
    file: Option<File>,
    /// What was told, by the request's hash.
    told: HashMap<u64, std::result::Result<Value, String>>,
    /// Lines that are not in the file yet.
    waiting: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
}

/// A request, and the reply or what came instead.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    asked: Value,
    told: std::result::Result<Value, String>,
}

fn key(request: &Value) -> u64 {
    fnv1a(request.to_string().into_bytes())
}

impl Journal {
    /// Goes on with the file at `path`, or begins one. A last line that was cut off, by a crash, is taken away.
    ///
    /// # Errors
    /// What the file system says, or the line that is no entry.
    pub fn open(path: &Path) -> Result<Journal> {
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create(true).open(path).map_err(|e| failed("open", path, e))?;
        let mut journal = Journal { path: path.into(), file: None, told: HashMap::new(), waiting: Vec::new() };
        let whole = journal.load(&file)?;
        file.set_len(whole).map_err(|e| failed("write", path, e))?;
        journal.file = Some(file);
        if whole == 0 {
            journal.line(&Header { version: VERSION });
            journal.save()?;
            sync_names(path.parent().unwrap_or(Path::new(".")))?;
        }
        Ok(journal)
    }

    /// What the file at `path` has; nothing will be added to it.
    ///
    /// # Errors
    /// What the file system says, or the line that is no entry.
    pub fn read(path: &Path) -> Result<Journal> {
        let mut journal = Journal { path: path.into(), file: None, told: HashMap::new(), waiting: Vec::new() };
        match File::open(path) {
            Ok(file) => journal.load(&file).map(|_| journal),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(journal),
            Err(error) => Err(failed("open", path, error)),
        }
    }

    /// Reads what is there; says how many bytes are whole lines.
    fn load(&mut self, file: &File) -> Result<u64> {
        let damaged = |number: u64, what: &dyn std::fmt::Display| {
            let path = self.path.display();
            Error::new(format!(
                "{path} line {number} is damaged: {what}; go on without the file to ask the program anew"
            ))
        };
        let mut reader = BufReader::new(file);
        let (mut whole, mut line) = (0, Vec::new());
        for number in 1.. {
            line.clear();
            let length = (&mut reader).take(LONGEST_LINE).read_until(b'\n', &mut line);
            let length = length.map_err(|e| damaged(number, &e))? as u64;
            if line.last() != Some(&b'\n') {
                if length == LONGEST_LINE {
                    return Err(damaged(number, &"it has more than 16 MiB"));
                }
                break;
            }
            if number == 1 {
                let Header { version } = serde_json::from_slice(&line).map_err(|e| damaged(number, &e))?;
                if version != VERSION {
                    return Err(damaged(
                        number,
                        &format!("it is of version {version}, and this minke reads {VERSION}"),
                    ));
                }
            } else {
                let Entry { asked, told } = serde_json::from_slice(&line).map_err(|e| damaged(number, &e))?;
                self.told.insert(key(&asked), told);
            }
            whole += length;
        }
        Ok(whole)
    }

    /// What was told before.
    pub fn recall(&self, request: &Value) -> Option<std::result::Result<Value, String>> {
        self.told.get(&key(request)).cloned()
    }

    /// Keeps what was told now; in the file it is after [`Journal::save`].
    pub fn keep(&mut self, request: &Value, told: &std::result::Result<Value, String>) {
        self.told.insert(key(request), told.clone());
        if self.file.is_some() {
            self.line(&Entry { asked: request.clone(), told: told.clone() });
        }
    }

    fn line(&mut self, line: &impl Serialize) {
        serde_json::to_writer(&mut self.waiting, line).expect("plain data, which JSON can have");
        self.waiting.push(b'\n');
    }

    /// Makes all that was told last.
    ///
    /// # Errors
    /// What the file system says.
    pub fn save(&mut self) -> Result<()> {
        let Some(file) = self.file.as_mut().filter(|_| !self.waiting.is_empty()) else { return Ok(()) };
        let written = file.write_all(&self.waiting).and_then(|()| file.sync_data());
        written.map_err(|e| failed("write", &self.path, e))?;
        self.waiting.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_told_comes_back_and_a_cut_line_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("task.jsonl");
        let mut journal = Journal::open(&path).unwrap();
        let (right, wrong) = (Ok(json!({ "reward": 1 })), Err("ended".to_string()));
        journal.keep(&json!({ "op": "score", "answer": "9" }), &right);
        journal.keep(&json!({ "op": "score", "answer": "crash" }), &wrong);
        assert_eq!(Journal::open(&path).unwrap().recall(&json!({ "op": "score", "answer": "9" })), None);
        journal.save().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&bytes[..], b"{\"asked\":{\"op\""].concat()).unwrap();
        let journal = Journal::open(&path).unwrap();
        assert_eq!(journal.recall(&json!({ "op": "score", "answer": "9" })), Some(right));
        assert_eq!(journal.recall(&json!({ "op": "score", "answer": "crash" })), Some(wrong));
        assert_eq!(journal.recall(&json!({ "op": "score", "answer": "8" })), None);
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        // Where nothing is added, nothing is mended, and a file that isn't there is empty.
        std::fs::write(&path, [&bytes[..], b"{"].concat()).unwrap();
        let mut journal = Journal::read(&path).unwrap();
        journal.keep(&json!(1), &Err("no".into()));
        journal.save().unwrap();
        assert_eq!(journal.recall(&json!({ "op": "score", "answer": "crash" })), Some(Err("ended".into())));
        assert_eq!(std::fs::read(&path).unwrap().len(), bytes.len() + 1);
        assert!(Journal::read(&directory.path().join("none")).unwrap().recall(&json!(1)).is_none());
        for (text, what) in [("{}\n", "line 1 is damaged: missing field"), ("{\"version\":2}\n", "it is of version 2")]
        {
            std::fs::write(&path, text).unwrap();
            assert!(Journal::open(&path).unwrap_err().to_string().contains(what), "{text}");
        }
        std::fs::write(&path, "{\"version\":1}\nno\n").unwrap();
        assert!(Journal::open(&path).unwrap_err().to_string().contains("line 2 is damaged: expected"));
    }
}
