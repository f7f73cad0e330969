//! SHA-256 of a model's files: a name may come to stand for another model, and a vote was on the one that was there.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::units::hexadecimal;

/// A file, its length, and when it was written.
type Stamp = (PathBuf, u64, SystemTime);

/// Checksums of models, each computed once as long as its files stay what they are.
#[derive(Debug, Default)]
pub struct Checksums(Mutex<HashMap<PathBuf, (Vec<Stamp>, String)>>);

impl Checksums {
    /// The checksum of the model at `path`: of a GGUF file as `sha256sum` has it; of a directory that of the lines that
    /// `sha256sum *` prints for it in the C locale.
    pub fn of(&self, path: &Path) -> Result<String> {
        let failed = || format!("{} can't be read", path.display());
        let stamps = stamps(path).with_context(failed)?;
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
        if let Some((_, checksum)) = known.filter(|(known, _)| *known == stamps) {
            return Ok(checksum);
        }
        let checksum = if path.is_dir() { directory(&stamps) } else { file(path) }.with_context(failed)?;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(path.to_path_buf(), (stamps, checksum.clone()));
        Ok(checksum)
    }
}

/// The files of a model, by name.
fn stamps(path: &Path) -> io::Result<Vec<Stamp>> {
    let mut files = vec![path.to_path_buf()];
    if path.is_dir() {
        let entries: io::Result<Vec<PathBuf>> = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect();
        files = entries?;
        let is_hidden = |file: &PathBuf| file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        files.retain(|file| file.is_file() && !is_hidden(file));
        files.sort();
    }
    let stamp = |file: PathBuf| {
        let about = file.metadata()?;
        Ok((file, about.len(), about.modified()?))
    };
    files.into_iter().map(stamp).collect()
}

fn directory(stamps: &[Stamp]) -> io::Result<String> {
    let mut lines = String::new();
    for (path, _, _) in stamps {
        lines += &format!("{}  {}\n", file(path)?, path.file_name().unwrap_or_default().to_string_lossy());
    }
    Ok(hexadecimal(&Sha256::digest(lines)))
}

fn file(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match io::Read::read(&mut file, &mut buffer)? {
            0 => return Ok(hexadecimal(&hasher.finalize())),
            read => hasher.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_sha256sum() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        fs::create_dir(path("m")).unwrap();
        for (name, text) in [("m/b", "two\n"), ("m/a", "one\n"), ("m/.hidden", "x"), ("f.gguf", "one\n")] {
            fs::write(path(name), text).unwrap();
        }
        let checksums = Checksums::default();
        let of = |name: &str| checksums.of(&path(name)).unwrap();
        assert_eq!(of("f.gguf"), "2c8b08da5ce60398e1f19af0e5dccc744df274b826abe585eaba68c525434806");
        // cd m; sha256sum * | sha256sum
        assert_eq!(of("m"), "73d931e3531f13247bbc3a0108fcd0c0ef480260a5e75980db7fa6e0bc531ac4");
        fs::write(path("m/a"), "another\n").unwrap();
        assert_ne!(of("m"), "73d931e3531f13247bbc3a0108fcd0c0ef480260a5e75980db7fa6e0bc531ac4");
        assert!(checksums.of(&path("none")).unwrap_err().to_string().contains("can't be read"));
    }
}
