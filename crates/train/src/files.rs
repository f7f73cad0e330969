//! Files that survive a crash: written beside their place, synced, then renamed into it.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Crc;
use minke_model::{Error, Result};

/// Numbers that are turned into bytes at a time.
pub const CHUNK: usize = 1 << 14;

/// A sentence for an operation on a file that failed.
pub fn failed(what: &str, path: &Path, error: io::Error) -> Error {
    let next = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "; nothing is lost: make room there, then go on (--resume)"
        }
        ErrorKind::ReadOnlyFilesystem => "; make the place writable, then go on (--resume)",
        _ => "",
    };
    Error::new(format!("could not {what} {}: {error}{next}", path.display()))
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
    put(path, bytes).map_err(|e| failed("write", path, e))
}

/// [`write_whole`], for whom there is more to say of a failure.
pub fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = hidden(path, "partial");
    let mut file = File::create(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    sync(path.parent().unwrap_or(Path::new(".")))
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
    sync(directory).map_err(|e| failed("sync", directory, e))
}

fn sync(directory: &Path) -> io::Result<()> {
    // A bare file name has the empty path for a parent.
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    File::open(directory)?.sync_all()
}

/// Makes a directory, and those above it, unless they are there.
///
/// # Errors
/// What the file system says.
pub fn make_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|e| failed("make", path, e))
}

/// A number as files have it, little-endian.
pub trait Float: Copy {
    /// Bytes of one.
    const BYTES: usize;
    /// Adds its bytes to others.
    fn write(self, bytes: &mut Vec<u8>);
    /// The number of so many bytes.
    fn read(bytes: &[u8]) -> Self;
}

impl Float for f32 {
    const BYTES: usize = 4;
    fn write(self, bytes: &mut Vec<u8>) {
        bytes.extend(self.to_le_bytes());
    }
    fn read(bytes: &[u8]) -> f32 {
        f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }
}

/// The bits of a bf16.
impl Float for u16 {
    const BYTES: usize = 2;
    fn write(self, bytes: &mut Vec<u8>) {
        bytes.extend(self.to_le_bytes());
    }
    fn read(bytes: &[u8]) -> u16 {
        u16::from_le_bytes([bytes[0], bytes[1]])
    }
}

/// Makes a file of little-endian numbers, synced; returns its CRC-32. A crash may leave part of it.
///
/// # Errors
/// What the file system says.
pub fn write_floats<T: Float>(path: &Path, values: &[T]) -> Result<u32> {
    let mut crc = Crc::new();
    let mut write = || {
        let (mut file, mut bytes) = (BufWriter::new(File::create(path)?), Vec::with_capacity(T::BYTES * CHUNK));
        for chunk in values.chunks(CHUNK) {
            bytes.clear();
            chunk.iter().for_each(|x| x.write(&mut bytes));
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
pub fn read_floats<T: Float>(path: &Path, length: usize, crc32: u32) -> std::result::Result<Vec<T>, String> {
    let open = || {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        Ok::<_, io::Error>((file, bytes))
    };
    let (file, found) = open().map_err(|e| format!("can't be read: {e}"))?;
    // Before any memory is asked for: the length comes from a file too.
    if length.checked_mul(T::BYTES).map(|n| n as u64) != Some(found) {
        return Err(format!("is damaged: it has {found} bytes, but should have {length} numbers of {}", T::BYTES));
    }
    let mut file = BufReader::new(file);
    let (mut crc, mut values, mut bytes) = (Crc::new(), Vec::with_capacity(length), vec![0; T::BYTES * CHUNK]);
    while values.len() < length {
        let bytes = &mut bytes[..T::BYTES * CHUNK.min(length - values.len())];
        file.read_exact(bytes).map_err(|e| format!("can't be read: {e}"))?;
        crc.update(bytes);
        values.extend(bytes.chunks_exact(T::BYTES).map(T::read));
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
        assert!(error.starts_with("could not write ") && error.contains("no/such: "), "{error}");
    }
}
