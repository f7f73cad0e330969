//! Read-only memory maps of model files: the one `unsafe` outside the kernels.

use std::fs::{File, Metadata};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};

/// The bytes of a regular file, mapped read-only, or of memory standing in for one.
///
/// A file's length is taken once, when the file is mapped. Model files are replaced by renaming, never rewritten in
/// place (see [`crate::huggingface`]); a program that does truncate a file while it is mapped here ends this
/// process with a bus error.
#[derive(Debug)]
pub struct Map {
    bytes: Bytes,
    path: Option<PathBuf>,
    stamp: Option<String>,
}

#[derive(Debug)]
enum Bytes {
    File(memmap2::Mmap),
    Memory(Vec<u8>),
}

impl Map {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// When the file can't be opened, is not a regular file, or is empty. The sentence has no path: add it with
    /// [`Error::at`].
    pub fn open(path: &Path) -> Result<Self> {
        // A device or a pipe would block or have no length, so look before opening.
        let about = std::fs::metadata(path).map_err(|e| Error::new(format!("the file can't be read ({e})")))?;
        if !about.is_file() {
            return Err(Error::new("this is not a regular file"));
        }
        if about.len() == 0 {
            return Err(Error::new("the file is empty; download it again"));
        }
        let file = File::open(path).map_err(|e| Error::new(format!("the file can't be read ({e})")))?;
        // SAFETY: the map is private and read-only, and the check above made sure that this is a regular file, so
        // only another program that shrinks or rewrites it in place can change what is read; the type's
        // documentation states that limit. Every use is through a slice of the length taken here.
        #[expect(unsafe_code, reason = "mapping a file; the named exception of this crate")]
        let map = unsafe { memmap2::Mmap::map(&file) };
        let map = map.map_err(|e| Error::new(format!("the file can't be mapped ({e})")))?;
        let stamp = file.metadata().ok().and_then(|about| stamp(path, &about));
        Ok(Self { bytes: Bytes::File(map), path: Some(path.to_path_buf()), stamp })
    }

    /// Where the file was opened; none for memory.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// A line that says which file this is, and that is another one once the file is written to or replaced; none for
    /// memory, or where the system does not say.
    pub fn stamp(&self) -> Option<&str> {
        self.stamp.as_deref()
    }

    /// Says that `part` is not needed soon: it counts as this process's memory no longer, and is read again from the file
    /// if it is needed after all.
    pub fn release(&self, part: &[u8]) {
        let Bytes::File(map) = &self.bytes else { return };
        let offset = part.as_ptr().addr().wrapping_sub(map.as_ptr().addr());
        if part.is_empty() || offset.checked_add(part.len()).is_none_or(|end| end > map.len()) {
            return;
        }
        // SAFETY: the pages are those of a file that is mapped without being written to, so each has the same bytes when
        // it is touched the next time.
        #[expect(unsafe_code, reason = "advice about a map; the named exception of this crate")]
        let advised = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, offset, part.len()) };
        // Advice that is not taken costs memory, nothing else.
        let _ = advised;
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.bytes {
            Bytes::File(map) => map,
            Bytes::Memory(bytes) => bytes,
        }
    }
}

impl From<Vec<u8>> for Map {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes: Bytes::Memory(bytes), path: None, stamp: None }
    }
}

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// A file's whole path, its length, and when its bytes and what is said about it were last changed.
pub(crate) fn stamp(path: &Path, about: &Metadata) -> Option<String> {
    let path = path.canonicalize().ok()?;
    let time = |time: std::io::Result<SystemTime>| Some(time.ok()?.duration_since(UNIX_EPOCH).ok()?.as_nanos());
    let modified = time(about.modified())?;
    #[cfg(unix)]
    let changed = {
        use std::os::unix::fs::MetadataExt;
        format!("{}.{:09} {}", about.ctime(), about.ctime_nsec(), about.ino())
    };
    #[cfg(not(unix))]
    let changed = "";
    Some(format!("{:?} {} {modified} {changed}\n", path.to_string_lossy(), about.len()))
}
