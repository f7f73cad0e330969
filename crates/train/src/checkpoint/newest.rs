//! The newest checkpoint that is whole: what a disk did to newer ones costs time, and nothing else.

use std::path::{Path, PathBuf};

use minke_model::{Error, Result};

use super::{Checkpoint, list, read};
use crate::files::{hidden, rename};

/// Why a checkpoint can't be read.
pub(super) enum Unread {
    /// It is not what was written: one before it is as good, only older.
    Damaged(String),
    /// It may be whole, but not for this minke.
    Refused(Error),
}

/// What a run goes on from.
pub struct Newest {
    /// Where it is.
    pub path: PathBuf,
    /// What it says.
    pub checkpoint: Checkpoint,
    /// Newer ones that are damaged, and how.
    damaged: Vec<(PathBuf, String)>,
}

/// The newest whole checkpoint of `run` at or before `step`; none where there is no checkpoint.
///
/// # Errors
/// That all of them are damaged; or that one is of another version.
pub fn newest(run: &Path, step: u64) -> Result<Option<Newest>> {
    let mut damaged: Vec<(PathBuf, String)> = Vec::new();
    for (_, path) in list(run)?.into_iter().rev().filter(|(at, _)| *at <= step) {
        match read(&path) {
            Ok(checkpoint) => return Ok(Some(Newest { path, checkpoint, damaged })),
            Err(Unread::Damaged(what)) => damaged.push((path, what)),
            Err(Unread::Refused(error)) => return Err(error),
        }
    }
    match damaged.into_iter().next() {
        None => Ok(None),
        Some((_, what)) => Err(Error::new(format!(
            "{what}, and there is no whole checkpoint before it; put it back, or start anew elsewhere (--out)"
        ))),
    }
}

impl Newest {
    /// Takes those that are damaged out of the way: they are no run's newest, and go when checkpoints are thinned out.
    /// What there is to say of each.
    ///
    /// # Errors
    /// What the file system says.
    pub fn set_aside(&self) -> Result<Vec<String>> {
        let set_aside = |(path, what): &(PathBuf, String)| {
            rename(path, &hidden(path, "damaged"))?;
            Ok(format!("{what}; the run goes on from {}, to the same weights", self.path.display()))
        };
        self.damaged.iter().map(set_aside).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::tests::{save_at, steps};
    use super::super::{STATE, thin};
    use super::*;

    #[test]
    fn damaged_ones_are_passed_over_said_and_set_aside() {
        let run = tempfile::tempdir().unwrap();
        assert!(newest(run.path(), u64::MAX).unwrap().is_none());
        let paths = [10, 20, 30, 40].map(|step| save_at(run.path(), step));
        let at = |step| newest(run.path(), step).unwrap().unwrap().path;
        assert_eq!([at(u64::MAX), at(40), at(39), at(10)], [3, 3, 2, 0].map(|i: usize| paths[i].clone()));
        assert!(newest(run.path(), 9).unwrap().is_none());

        fs::write(paths[3].join("m.f32"), [0; 12]).unwrap();
        fs::remove_file(paths[2].join(STATE)).unwrap();
        let found = newest(run.path(), u64::MAX).unwrap().unwrap();
        assert_eq!(found.path, paths[1]);
        let said = found.set_aside().unwrap();
        assert!(
            said[0].contains("000040/m.f32 is damaged: it has 12 bytes") && said[0].contains("000020, to the same")
        );
        assert!(said[1].contains("000030/state.json can't be read") && said.len() == 2, "{said:?}");
        assert_eq!(steps(run.path()), [10, 20]);
        thin(run.path(), 1 << 40).unwrap();
        assert_eq!(fs::read_dir(super::super::directory(run.path())).unwrap().count(), 2);

        for path in &paths[..2] {
            fs::write(path.join("v.f32"), []).unwrap();
        }
        let error = newest(run.path(), u64::MAX).err().unwrap().to_string();
        assert!(
            error.contains("000020/v.f32 is damaged") && error.contains("no whole checkpoint before it"),
            "{error}"
        );
        fs::write(paths[1].join(STATE), "{\"version\": 9}").unwrap();
        let error = newest(run.path(), u64::MAX).err().unwrap().to_string();
        assert!(error.contains("is of version 9"), "{error}");
    }
}
