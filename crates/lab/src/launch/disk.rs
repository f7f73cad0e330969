//! How much directories take on disk, counted a little at a time, so that counting never holds up its process.

use std::collections::HashSet;
use std::fs::{self, ReadDir};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What even an empty file counts for, so that a million of them count for something.
const LEAST: u64 = 4096;

/// A count under way.
pub struct Count {
    bytes: u64,
    open: Option<ReadDir>,
    waiting: Vec<PathBuf>,
    /// Files with several names that were counted under one.
    linked: HashSet<(u64, u64)>,
}

impl Count {
    /// Counts all that is in these directories. Links are not followed.
    pub fn new(directories: &[PathBuf]) -> Count {
        Count { bytes: 0, open: None, waiting: directories.to_vec(), linked: HashSet::new() }
    }

    /// Looks at up to so many more entries. The bytes of everything, once everything was looked at.
    ///
    /// # Errors
    /// A directory that can't be looked into: what it holds would not count.
    pub fn go_on(&mut self, entries: usize) -> io::Result<Option<u64>> {
        for _ in 0..entries {
            match self.open.as_mut().and_then(Iterator::next) {
                Some(Ok(entry)) => self.add(&entry.path())?,
                Some(Err(_)) => {}
                None => {
                    let Some(directory) = self.waiting.pop() else {
                        return Ok(Some(self.bytes));
                    };
                    self.open = unless_gone(&directory, fs::read_dir(&directory))?;
                }
            }
        }
        Ok(None)
    }

    fn add(&mut self, path: &Path) -> io::Result<()> {
        let Some(metadata) = unless_gone(path, path.symlink_metadata())? else {
            return Ok(());
        };
        if metadata.is_dir() {
            self.waiting.push(path.to_path_buf());
        } else if metadata.nlink() > 1 && !self.linked.insert((metadata.dev(), metadata.ino())) {
            return Ok(());
        }
        self.bytes += (metadata.blocks() * 512).max(LEAST);
        Ok(())
    }
}

/// What was found, unless it was removed meanwhile.
fn unless_gone<T>(path: &Path, found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(super::stint::about(path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(directory: &Path, step: usize) -> u64 {
        let mut count = Count::new(&[directory.to_path_buf()]);
        (0..10_000).find_map(|_| count.go_on(step).unwrap()).unwrap()
    }

    #[test]
    fn counts_what_du_counts() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        for (name, length) in [("a", 5000), ("b/c", 1_000_000), ("b/d/e", 4096)] {
            fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            fs::write(root.join(name), vec![7; length]).unwrap();
        }
        fs::hard_link(root.join("b/c"), root.join("again")).unwrap();
        std::os::unix::fs::symlink("/usr", root.join("system")).unwrap();
        fs::File::create(root.join("sparse")).unwrap().set_len(1 << 40).unwrap();
        let du = std::process::Command::new("du").args(["-s", "--block-size=1"]).arg(root).output().unwrap();
        let du: u64 = String::from_utf8(du.stdout).unwrap().split('\t').next().unwrap().parse().unwrap();
        // The directory itself is not counted; the link and the sparse file count for a block each.
        let expected = du - root.metadata().unwrap().blocks() * 512 + 2 * LEAST;
        for step in [1, 3, 1000] {
            assert_eq!(bytes(root, step), expected, "{step} at a time");
        }
    }

    #[test]
    fn what_goes_away_meanwhile_is_no_error() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("a")).unwrap();
        let mut count = Count::new(&[place.path().to_path_buf(), place.path().join("never")]);
        assert_eq!(count.go_on(3).unwrap(), None);
        fs::remove_dir(place.path().join("a")).unwrap();
        assert!(count.go_on(100).unwrap().is_some());
    }
}
