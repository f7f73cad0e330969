//! The files that runs are given, kept by their content: `code/SHA-256/`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Most files of a tree, and bytes.
const FILES_MAX: usize = 20_000;
/// Most bytes of a tree.
pub const BYTES_MAX: usize = 64 << 20;

/// Files by their paths, with `/`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// What is in each.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Those that are programs.
    pub executable: Vec<String>,
}

impl Tree {
    /// Whether it can be kept: paths stay inside of it, and it is not too much.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<()> {
        let bytes: usize = self.files.values().map(Vec::len).sum();
        if self.files.len() > FILES_MAX || bytes > BYTES_MAX {
            return Err(Error::new(format!(
                "the code is {} files of {} MB together; at most {FILES_MAX} files of {} MB are taken, so name a smaller \
                 directory",
                self.files.len(),
                bytes >> 20,
                BYTES_MAX >> 20
            )));
        }
        for path in self.files.keys() {
            let inside = path.split('/').all(|part| !matches!(part, "" | "." | "..")) && !path.contains(['\\', '\0']);
            if !inside {
                return Err(Error::new(format!("{path:?} is no path inside of a code tree; leave it out")));
            }
            let mut parents = Path::new(path).ancestors().skip(1).filter_map(Path::to_str);
            if let Some(parent) = parents.find(|parent| self.files.contains_key(*parent)) {
                return Err(Error::new(format!("{parent:?} is a file and a directory; leave one out")));
            }
        }
        Ok(())
    }

    /// SHA-256 of its paths and what is in them.
    pub fn hash(&self) -> String {
        let mut hash = Sha256::new();
        for (path, bytes) in &self.files {
            let executable = u8::from(self.executable.contains(path));
            for part in [path.as_bytes(), &[executable], bytes] {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part);
            }
        }
        hexadecimal(hash)
    }

    /// Keeps it in `directory`, under its hash, which is returned.
    ///
    /// # Errors
    /// When it is refused ([`Tree::check`]), or can't be written.
    pub fn keep(&self, directory: &Path) -> Result<String> {
        self.check()?;
        let hash = self.hash();
        let place = directory.join(&hash);
        if !place.is_dir() {
            let partial = directory.join(format!(".{hash}.{}", std::process::id()));
            self.write(&partial).and_then(|()| fs::rename(&partial, &place)).or_else(|error| {
                let _ = fs::remove_dir_all(&partial);
                // Somebody else may have kept the same in the meantime.
                if place.is_dir() { Ok(()) } else { Err(failed(&place, &error)) }
            })?;
        }
        Ok(hash)
    }

    /// The tree that is kept in `directory` under its hash.
    ///
    /// # Errors
    /// When it is not kept, or can't be read.
    pub fn load(directory: &Path, hash: &str) -> io::Result<Tree> {
        let mut tree = Tree::default();
        tree.add(&directory.join(hash), "")?;
        Ok(tree)
    }

    fn add(&mut self, place: &Path, under: &str) -> io::Result<()> {
        for entry in fs::read_dir(place)? {
            let entry = entry?;
            let name = entry.file_name().into_string().map_err(|_| io::ErrorKind::InvalidData)?;
            let path = if under.is_empty() { name } else { format!("{under}/{name}") };
            if entry.file_type()?.is_dir() {
                self.add(&entry.path(), &path)?;
                continue;
            }
            if is_executable(&entry.metadata()?) {
                self.executable.push(path.clone());
            }
            self.files.insert(path, fs::read(entry.path())?);
        }
        Ok(())
    }

    /// Adds the files of another tree, where it has none of their paths itself.
    pub fn fill_in(&mut self, other: Tree) {
        let new = |path: &String| !self.files.contains_key(path);
        self.executable.extend(other.executable.into_iter().filter(new).collect::<Vec<String>>());
        for (path, bytes) in other.files {
            self.files.entry(path).or_insert(bytes);
        }
    }

    fn write(&self, place: &Path) -> io::Result<()> {
        fs::create_dir_all(place)?;
        for (path, bytes) in &self.files {
            let path_there = place.join(path);
            if let Some(parent) = path_there.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(&path_there, bytes)?;
            if self.executable.contains(path) {
                make_executable(&path_there)?;
            }
        }
        Ok(())
    }
}

/// Puts a tree that was kept in `directory` into a run's own directory, unless it is there already.
///
/// # Errors
/// When it is not kept, or can't be copied.
pub fn place(directory: &Path, hash: &str, into: &Path) -> io::Result<()> {
    if fs::read_dir(into).is_ok_and(|mut entries| entries.next().is_some()) {
        return Ok(());
    }
    let partial = into.with_extension("partial");
    let _ = fs::remove_dir_all(&partial);
    copy(&directory.join(hash), &partial)?;
    // An empty directory that is there already is replaced.
    let _ = fs::remove_dir(into);
    fs::rename(&partial, into)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let there: PathBuf = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &there)?;
        } else {
            fs::copy(entry.path(), &there)?;
        }
    }
    Ok(())
}

/// Makes a file one that can be run.
fn make_executable(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    let _ = path;
    Ok(())
}

fn is_executable(about: &fs::Metadata) -> bool {
    #[cfg(unix)]
    {
        std::os::unix::fs::PermissionsExt::mode(&about.permissions()) & 0o100 != 0
    }
    #[cfg(not(unix))]
    {
        let _ = about;
        false
    }
}

/// A hash as hexadecimal digits.
pub(crate) fn hexadecimal(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn failed(path: &Path, error: &io::Error) -> Error {
    Error::new(format!(
        "{} can't be written ({error}); make room, or set MINKE_HOME to another directory",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> Tree {
        Tree {
            files: files.iter().map(|(path, text)| (path.to_string(), text.as_bytes().to_vec())).collect(),
            executable: vec!["run.sh".into()],
        }
    }

    #[test]
    fn a_tree_is_kept_once_and_placed_whole() {
        let directory = tempfile::tempdir().unwrap();
        let code = directory.path().join("code");
        let kept = tree(&[("run.sh", "#!/bin/sh\n"), ("a/b/c.txt", "text")]);
        let hash = kept.keep(&code).unwrap();
        assert_eq!(kept.keep(&code).unwrap(), hash);
        assert_ne!(tree(&[("run.sh", "#!/bin/sh\n"), ("a/b/c.txt", "other")]).hash(), hash);
        let mut again = Tree::load(&code, &hash).unwrap();
        assert_eq!((again.hash(), &again.files), (hash.clone(), &kept.files));
        assert!(Tree::load(&code, "no-such").is_err());
        again = tree(&[("a/b/c.txt", "another")]);
        again.fill_in(kept.clone());
        assert_eq!(again.hash(), tree(&[("run.sh", "#!/bin/sh\n"), ("a/b/c.txt", "another")]).hash());
        let into = directory.path().join("run");
        place(&code, &hash, &into).unwrap();
        fs::write(into.join("a/b/c.txt"), "changed by the run").unwrap();
        place(&code, &hash, &into).unwrap();
        assert_eq!(fs::read_to_string(into.join("a/b/c.txt")).unwrap(), "changed by the run");
        assert_eq!(fs::read_to_string(code.join(&hash).join("a/b/c.txt")).unwrap(), "text");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(into.join("run.sh")).unwrap().permissions().mode() & 0o100, 0o100);
        }
        assert!(place(&code, "no-such", &directory.path().join("other")).is_err());
    }

    #[test]
    fn nothing_gets_out_of_its_tree() {
        for path in ["../x", "/etc/passwd", "a/../../x", "", "a//b", "a/", "a\\b", "./a", "a/./b", "."] {
            assert!(tree(&[(path, "")]).check().is_err(), "{path:?}");
        }
        assert!(tree(&[("a", ""), ("a/b", "")]).check().is_err());
        let error = Tree { files: [("big".into(), vec![0; BYTES_MAX + 1])].into(), executable: vec![] }.check();
        assert!(error.unwrap_err().to_string().contains("name a smaller directory"));
        tree(&[("a/b", ""), ("a/c", ""), ("ab", ""), ("é", "")]).check().unwrap();
    }
}
