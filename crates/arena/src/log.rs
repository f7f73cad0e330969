//! The vote log: a file of JSON lines that is only ever appended to, from which every rating can be computed again.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::entries::{self, Entries, Import, Torn};
use crate::error::{Error, Result};
use crate::verified::Verified;
use crate::vote::Vote;

/// A log, as far as it has been read; others may append at the same time.
///
/// An append is one write, under a lock, and synced before it is acknowledged. What a crash leaves of an append that
/// was not acknowledged is told ([`VoteLog::torn`]), does not count, and is taken away by the next append.
#[derive(Debug)]
pub struct VoteLog {
    path: PathBuf,
    /// What has been read. Its votes and imports grow with every append.
    read: Entries,
    /// Whether the last line that counts lacks its end, which people's editors may leave away.
    open_ended: bool,
}

impl VoteLog {
    /// Reads the log at `path`; a file that does not exist is an empty log.
    ///
    /// # Errors
    /// What the file system says, or the line that is damaged.
    pub fn open(path: impl Into<PathBuf>) -> Result<VoteLog> {
        let mut log = VoteLog { path: path.into(), read: Entries::default(), open_ended: false };
        match File::open(&log.path) {
            Ok(mut file) => {
                supported(file.lock_shared()).map_err(|e| log.failed("lock", e))?;
                log.catch_up(&mut file)?;
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(log.failed("open", e)),
        }
        Ok(log)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All votes, oldest first.
    pub fn votes(&self) -> &[Vote] {
        &self.read.votes
    }

    /// All imports, oldest first.
    pub fn imports(&self) -> &[Import] {
        &self.read.imports
    }

    /// All measurements, oldest first.
    pub fn verified(&self) -> &[Verified] {
        &self.read.verified
    }

    /// What a crash has cut off at the end.
    pub fn torn(&self) -> Option<&Torn> {
        self.read.torn.as_ref()
    }

    /// Appends a vote; when this returns, it lasts.
    ///
    /// # Errors
    /// What is wrong with the vote, or what the file system says.
    pub fn append(&mut self, vote: &Vote) -> Result<()> {
        vote.check()?;
        self.write(vote.to_json() + "\n")
    }

    /// Appends a measurement; when this returns, it lasts.
    ///
    /// # Errors
    /// What is wrong with it, or what the file system says.
    pub fn record(&mut self, verified: &Verified) -> Result<()> {
        verified.check()?;
        self.write(verified.to_json() + "\n")
    }

    /// Appends the votes of a file called `file`, all or, whatever happens, none.
    ///
    /// # Errors
    /// What is wrong with a vote, or what the file system says.
    pub fn import(&mut self, file: &str, sha256: &str, votes: &[Vote]) -> Result<()> {
        votes.iter().try_for_each(Vote::check)?;
        let head = Import { file: file.to_string(), sha256: sha256.to_string(), votes: votes.len() };
        let lines = std::iter::once(head.to_json()).chain(votes.iter().map(Vote::to_json));
        self.write(lines.map(|line| line + "\n").collect())
    }

    /// Appends lines, and reads them back with what others have appended before them.
    fn write(&mut self, lines: String) -> Result<()> {
        let is_new = !self.path.exists();
        let opened = OpenOptions::new().read(true).append(true).create(true).open(&self.path);
        let mut file = opened.map_err(|e| self.failed("open", e))?;
        supported(file.lock()).map_err(|e| self.failed("lock", e))?;
        self.catch_up(&mut file)?;
        let end = self.read.bytes as u64;
        file.set_len(end).map_err(|e| self.failed("cut off the torn end of", e))?;
        let bytes = if self.open_ended { format!("\n{lines}") } else { lines };
        if let Err(error) = file.write_all(bytes.as_bytes()).and_then(|()| file.sync_all()) {
            // What has been written in part must not be taken for an entry; if this fails too, it will be told as torn.
            let _ = file.set_len(end);
            return Err(self.failed("write", error));
        }
        if is_new {
            self.sync_name().map_err(|e| self.failed("sync the directory of", e))?;
        }
        self.catch_up(&mut file)
    }

    /// Reads what stands behind what has been read.
    fn catch_up(&mut self, file: &mut File) -> Result<()> {
        let begin = self.read.bytes as u64;
        let mut text = Vec::new();
        file.seek(SeekFrom::Start(begin))
            .and_then(|_| file.metadata())
            .and_then(|metadata| file.read_to_end(&mut text).map(|_| metadata.len() < begin))
            .and_then(|shorter| if shorter { Err(io::Error::other("it has become shorter")) } else { Ok(()) })
            .map_err(|e| self.failed("read", e))?;
        let about = |e: Error| Error::new(format!("{} {e}", self.path.display()));
        // The end of a line that lacked it is read now.
        let above = self.read.lines - usize::from(self.open_ended);
        let Entries { mut votes, mut imports, mut verified, bytes, lines, torn } =
            entries::read(&text, above).map_err(about)?;
        if bytes > 0 {
            self.open_ended = text[bytes - 1] != b'\n';
            self.read.lines = above + lines;
        }
        self.read.votes.append(&mut votes);
        self.read.imports.append(&mut imports);
        self.read.verified.append(&mut verified);
        self.read.bytes += bytes;
        self.read.torn = torn;
        Ok(())
    }

    /// Makes the name of a new file last.
    fn sync_name(&self) -> io::Result<()> {
        // A bare file name has the empty path for a parent.
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    }

    fn failed(&self, what: &str, error: io::Error) -> Error {
        Error::new(format!("could not {what} {}: {error}", self.path.display()))
    }
}

/// Where a file system has no locks, appends are still one write each.
fn supported(locked: io::Result<()>) -> io::Result<()> {
    match locked {
        Err(e) if e.kind() == io::ErrorKind::Unsupported => Ok(()),
        locked => locked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vote::Outcome;

    fn vote(left: &str) -> Vote {
        Vote::new(left, "z", Outcome::Right)
    }

    fn place() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("votes.jsonl");
        (directory, path)
    }

    #[test]
    fn what_is_appended_is_read_back() {
        let (_directory, path) = place();
        let mut log = VoteLog::open(&path).unwrap();
        assert!(log.votes().is_empty() && !path.exists(), "reading makes no file");
        log.append(&vote("a")).unwrap();
        log.import("x.csv", "5e", &[vote("b"), vote("c")]).unwrap();
        log.import("empty.csv", "e3", &[]).unwrap();
        for log in [log, VoteLog::open(&path).unwrap()] {
            assert_eq!(log.votes(), ["a", "b", "c"].map(vote));
            assert_eq!(log.imports().iter().map(|i| i.file.as_str()).collect::<Vec<&str>>(), ["x.csv", "empty.csv"]);
            assert_eq!((log.torn(), log.path()), (None, path.as_path()));
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 5);
    }

    /// After a crash at any byte, what is appended next can be read, and so can what was acknowledged before.
    #[test]
    fn a_torn_end_is_told_and_then_taken_away() {
        let (_directory, path) = place();
        let mut log = VoteLog::open(&path).unwrap();
        log.append(&vote("a")).unwrap();
        let kept = std::fs::metadata(&path).unwrap().len() as usize;
        log.import("x.csv", "5e", &[vote("b"), vote("c")]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for end in kept..whole.len() {
            std::fs::write(&path, &whole[..end]).unwrap();
            let mut log = VoteLog::open(&path).unwrap();
            let complete = end + 1 == whole.len();
            assert_eq!(log.torn().is_some(), end > kept && !complete, "{end}");
            log.append(&vote("d")).unwrap();
            assert_eq!(log.torn(), None);
            let expected: &[&str] = if complete { &["a", "b", "c", "d"] } else { &["a", "d"] };
            for log in [log, VoteLog::open(&path).unwrap()] {
                let left: Vec<&str> = log.votes().iter().map(|vote| vote.left.as_str()).collect();
                assert_eq!(left, expected, "{end}");
            }
        }
    }

    #[test]
    fn several_writers_lose_nothing() {
        let (_directory, path) = place();
        let mut before = VoteLog::open(&path).unwrap();
        std::thread::scope(|scope| {
            for writer in ["a", "b", "c"] {
                let mut log = VoteLog::open(&path).unwrap();
                scope.spawn(move || (0..20).for_each(|_| log.append(&vote(writer)).unwrap()));
            }
        });
        before.append(&vote("d")).unwrap();
        for log in [before, VoteLog::open(&path).unwrap()] {
            for (writer, votes) in [("a", 20), ("b", 20), ("c", 20), ("d", 1)] {
                assert_eq!(log.votes().iter().filter(|vote| vote.left == writer).count(), votes);
            }
        }
    }

    #[test]
    fn what_cannot_be_is_said_and_leaves_the_log_alone() {
        let (directory, path) = place();
        let mut log = VoteLog::open(&path).unwrap();
        log.append(&vote("a")).unwrap();
        let before = std::fs::read(&path).unwrap();
        assert!(log.append(&vote("z")).unwrap_err().to_string().contains("compared with itself"));
        assert!(log.import("x", "5e", &[vote("b"), vote("")]).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), before);
        std::fs::write(&path, "").unwrap();
        let error = log.append(&vote("b")).unwrap_err().to_string();
        assert!(error.ends_with("votes.jsonl: it has become shorter"), "{error}");
        std::fs::write(&path, "{}\n").unwrap();
        let error = VoteLog::open(&path).unwrap_err().to_string();
        assert!(error.contains("votes.jsonl line 1 is damaged: missing field `v`"), "{error}");
        let error = VoteLog::open(directory.path()).unwrap_err().to_string();
        assert!(error.starts_with("could not "), "{error}");
    }
}
