//! What a run keeps, read as what a stranger wrote: no link is followed on the way, and nothing but a regular file is read.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

/// The directory that a run may write, while it runs and as it left it.
#[derive(Clone, Debug)]
pub struct Kept(PathBuf);

impl Kept {
    /// What is kept in a directory; the directory itself is not the run's to replace.
    pub fn new(directory: PathBuf) -> Kept {
        Kept(directory)
    }

    /// Opens a regular file by its path below the directory, with `/`.
    ///
    /// # Errors
    /// When there is none, or something else is in its place.
    pub fn open(&self, path: &str) -> io::Result<File> {
        let file = File::from(below(&self.0, path, false)?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    /// At most so many bytes from the beginning of a file.
    ///
    /// # Errors
    /// As [`Kept::open`]; or what the file system says.
    pub fn read(&self, path: &str, most: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(path)?.take(most).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// The names in a directory, at most so many, in no order; names that are not UTF-8 are left out.
    ///
    /// # Errors
    /// When there is no such directory.
    pub fn list(&self, path: &str, most: usize) -> io::Result<Vec<String>> {
        names(below(&self.0, path, true)?, most)
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::path::Path;

    use rustix::fs::{Dir, Mode, OFlags, open, openat};

    /// Opens what lies below a directory. Each step is taken from the last, so that nothing can be put in its place.
    pub fn below(directory: &Path, path: &str, is_directory: bool) -> io::Result<OwnedFd> {
        // A pipe that nobody writes to must not be waited for.
        let plain = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut at = open(directory, plain | OFlags::DIRECTORY, Mode::empty())?;
        let mut parts = path.split('/').filter(|part| !part.is_empty()).peekable();
        while let Some(part) = parts.next() {
            if matches!(part, "." | "..") {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let inner = parts.peek().is_some() || is_directory;
            let flags = if inner { plain | OFlags::DIRECTORY } else { plain };
            at = openat(&at, part, flags, Mode::empty())?;
        }
        Ok(at)
    }

    pub fn names(directory: OwnedFd, most: usize) -> io::Result<Vec<String>> {
        let entries = Dir::read_from(directory)?.take(most.saturating_add(2));
        let names = entries.map(|entry| Ok(entry?.file_name().to_str().map(str::to_string).ok()));
        let mut names: Vec<String> = names.filter_map(io::Result::transpose).collect::<io::Result<_>>()?;
        names.retain(|name| name != "." && name != "..");
        names.truncate(most);
        Ok(names)
    }
}
#[cfg(target_os = "linux")]
use linux::{below, names};

/// There are no runs where there is no launcher for them.
#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use std::fs::File;
    use std::io;
    use std::path::Path;

    pub fn below(_: &Path, _: &str, _: bool) -> io::Result<File> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub fn names(_: File, _: usize) -> io::Result<Vec<String>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
#[cfg(not(target_os = "linux"))]
use elsewhere::{below, names};

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_what_is_in_the_directory_is_read() {
        let place = tempfile::tempdir().unwrap();
        let (secret, files) = (place.path().join("secret"), place.path().join("files"));
        fs::create_dir_all(secret.join("rollouts")).unwrap();
        fs::write(secret.join("rollouts/1"), "secret").unwrap();
        fs::create_dir_all(files.join("own/deep")).unwrap();
        fs::write(files.join("own/deep/1"), "own text").unwrap();
        symlink(secret.join("rollouts"), files.join("rollouts")).unwrap();
        symlink(secret.join("rollouts/1"), files.join("own/1")).unwrap();
        symlink("deep", files.join("own/2")).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(files.join("pipe")).status().unwrap().success());
        let kept = Kept::new(files.clone());
        assert_eq!(kept.read("own/deep/1", 3).unwrap(), b"own");
        for path in
            ["rollouts/1", "own/1", "own/2/1", "../secret/rollouts/1", "own/../own/deep/1", "pipe", "own", "", "x"]
        {
            assert!(kept.read(path, 9).is_err(), "{path}");
        }
        let mut names = kept.list("own", 9).unwrap();
        names.sort();
        assert_eq!(names, ["1", "2", "deep"]);
        assert_eq!(kept.list("own", 2).unwrap().len(), 2);
        assert!(kept.list("rollouts", 9).is_err() && kept.list("own/2", 9).is_err() && kept.list("..", 9).is_err());
        // Where the directory itself is a link, it is not ours.
        symlink(&files, place.path().join("link")).unwrap();
        assert!(Kept::new(place.path().join("link")).read("own/deep/1", 3).is_err());
    }
}
