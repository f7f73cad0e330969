//! Files that survive a crash: written beside their place, synced, then renamed into it.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Crc;
use minke_model::{Error, Result};

/// Numbers that are turned into bytes at a time.
pub const CHUNK: usize = 1 << 14;

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

/// Makes a file of little-endian numbers, synced; returns its CRC-32. A crash may leave part of it.
///
/// # Errors
/// What the file system says.
pub fn write_floats(path: &Path, values: &[f32]) -> Result<u32> {
    let mut crc = Crc::new();
    let mut write = || {
        let (mut file, mut bytes) = (BufWriter::new(File::create(path)?), Vec::with_capacity(4 * CHUNK));
        for chunk in values.chunks(CHUNK) {
            bytes.clear();
            bytes.extend(chunk.iter().flat_map(|x| x.to_le_bytes()));
            crc.update(&bytes);
            file.write_all(&bytes)?;
        }
        file.into_inner()?.sync_all()
    };
    write().map_err(|e| failed("write", path, e))?;
    Ok(crc.sum())
}

/// Reads `length` little-endian numbers, the whole of a file, whose CRC-32 should be `crc32`.
///
/// # Errors
/// What is wrong with the file, without its name.
pub fn read_floats(path: &Path, length: usize, crc32: u32) -> std::result::Result<Vec<f32>, String> {
    let open = || {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        Ok::<_, io::Error>((file, bytes))
    };
    let (file, found) = open().map_err(|e| format!("can't be read: {e}"))?;
    // Before any memory is asked for: the length comes from a file too.
    if length.checked_mul(4).map(|n| n as u64) != Some(found) {
        return Err(format!("is damaged: it has {found} bytes, but should have {length} numbers of 4"));
    }
    let mut file = BufReader::new(file);
    let (mut crc, mut values, mut bytes) = (Crc::new(), Vec::with_capacity(length), vec![0; 4 * CHUNK]);
    while values.len() < length {
        let bytes = &mut bytes[..4 * CHUNK.min(length - values.len())];
        file.read_exact(bytes).map_err(|e| format!("can't be read: {e}"))?;
        crc.update(bytes);
        values.extend(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
    }
    if crc.sum() != crc32 {
        return Err("is damaged: its checksum is another".into());
    }
    Ok(values)
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
