//! What a run says of itself. It may write anything there, or put anything else in the file's place.

use std::io::Read;
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::system;
use crate::run::Progress;

/// More than anybody has to say in one line.
const LONGEST: u64 = 4096;

/// Which writing of the file it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(u64, u64, u128);

/// What the file says, if it was written since the one with the mark. Nonsense says nothing.
pub fn read_newer(path: &Path, mark: &mut Option<Mark>) -> Option<Progress> {
    let metadata = path.symlink_metadata().ok().filter(|m| m.is_file())?;
    let modified = metadata.modified().ok()?;
    let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    let this = Mark(system::inode(&metadata), metadata.len(), since.as_nanos());
    if mark.replace(this) == Some(this) {
        return None;
    }
    let mut text = String::new();
    system::open_file(path).ok()?.take(LONGEST).read_to_string(&mut text).ok()?;
    let mut progress: Progress = serde_json::from_str(&text).ok()?;
    progress.at = since.as_millis().try_into().ok()?;
    Some(progress)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_is_new_is_said_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("progress.json");
        let mut mark = None;
        assert_eq!(read_newer(&path, &mut mark), None);
        fs::write(&path, r#"{"step":3,"steps":10,"checkpoint":2}"#).unwrap();
        let said = read_newer(&path, &mut mark).unwrap();
        assert_eq!((said.step, said.steps, said.checkpoint), (3, 10, Some(2)));
        assert!(said.at > 1_700_000_000_000, "{said:?}");
        assert_eq!(read_newer(&path, &mut mark), None);
        // Another file in its place is new even if it is as long and as old.
        fs::write(directory.path().join("next"), r#"{"step":4,"steps":10,"checkpoint":2}"#).unwrap();
        fs::rename(directory.path().join("next"), &path).unwrap();
        assert_eq!(read_newer(&path, &mut mark).unwrap().step, 4);
    }

    #[test]
    fn nonsense_says_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("progress.json");
        let long = format!(r#"{{"step":3,{}"steps":10}}"#, " ".repeat(5000));
        for text in ["", "{", "[]", r#"{"step":-1,"steps":2}"#, r#"{"step":1}"#, long.as_str()] {
            fs::write(&path, text).unwrap();
            assert_eq!(read_newer(&path, &mut None), None, "{text:.40}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn links_and_pipes_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("progress.json");
        fs::write(directory.path().join("secret"), r#"{"step":3,"steps":10}"#).unwrap();
        std::os::unix::fs::symlink(directory.path().join("secret"), &path).unwrap();
        assert_eq!(read_newer(&path, &mut None), None);
        fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert_eq!(read_newer(&path, &mut None), None);
        // Even if it takes the file's place at the last moment.
        assert!(system::open_file(&path).is_err());
    }
}
