//! Files that survive a crash: written beside their place, synced, then renamed into it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use minke_model::{Error, Result};

/// A sentence for an operation on a file that failed.
pub fn failed(what: &str, path: &Path, error: io::Error) -> Error {
    Error::new(format!("could not {what} {}: {error}", path.display()))
}

/// Where a file or directory is while it is not complete, any more or yet; nothing reads names that begin with a dot.
pub fn hidden(path: &Path, state: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{state}"))
}

/// Makes a file with these bytes, all of them or, whatever happens, none.
///
/// # Errors
/// What the file system says.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = hidden(path, "partial");
    let written = File::create(&partial).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|e| failed("write", &partial, e))?;
    rename(&partial, path)
}

/// Renames, and makes the new name last.
///
/// # Errors
/// What the file system says.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|e| failed("rename", from, e))?;
    sync_names(to.parent().unwrap_or(Path::new(".")))
}

/// Makes the names in a directory last.
///
/// # Errors
/// What the file system says.
pub fn sync_names(directory: &Path) -> Result<()> {
    // A bare file name has the empty path for a parent.
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    File::open(directory).and_then(|d| d.sync_all()).map_err(|e| failed("sync", directory, e))
}

/// Makes a directory, and those above it, unless they are there.
///
/// # Errors
/// What the file system says.
pub fn make_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|e| failed("make", path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_files_replace_old_ones_and_leave_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        for text in ["one", "two"] {
            write_whole(&path, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        let error = write_whole(&directory.path().join("no/such"), b"").unwrap_err().to_string();
        assert!(error.starts_with("could not write ") && error.contains("no/.such.partial"), "{error}");
    }
}
