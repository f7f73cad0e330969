//! Read-only memory maps of model files: the one `unsafe` outside the kernels.

use std::fs::File;
use std::ops::Deref;
use std::path::Path;

use crate::error::{Error, Result};

/// The bytes of a regular file, mapped read-only, or of memory standing in for one.
///
/// A file's length is taken once, when the file is mapped. Model files are replaced by renaming, never rewritten in
/// place (see [`crate::huggingface`]); a program that does truncate a file while it is mapped here ends this
/// process with a bus error.
#[derive(Debug)]
pub struct Map(Bytes);

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
        Ok(Self(Bytes::File(map)))
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::File(map) => map,
            Bytes::Memory(bytes) => bytes,
        }
    }
}

impl From<Vec<u8>> for Map {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Bytes::Memory(bytes))
    }
}
