//! `out.log`: what a command prints, from the beginning as far as there is room, and the end of it.
//!
//! The output goes through a pipe and not straight into the file: so the command can neither take back what it printed
//! nor go past the limit, and printing too much costs it nothing but what it printed.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use super::stint::about;

/// Bytes that are kept of the end: mostly where it says why it ended.
const END: usize = 64 * 1024;

/// A log under way.
pub struct Log {
    file: File,
    room: u64,
    end: VecDeque<u8>,
    left_out: u64,
}

impl Log {
    /// A new log that keeps so many bytes of the beginning.
    pub fn new(path: &Path, room: u64) -> io::Result<Log> {
        let file = File::create(path).map_err(about(path))?;
        Ok(Log { file, room, end: VecDeque::new(), left_out: 0 })
    }

    /// Takes what was printed. What can't be written counts as left out: a full disk is not the command's fault alone.
    pub fn take(&mut self, bytes: &[u8]) {
        let fits = bytes.len().min(usize::try_from(self.room).unwrap_or(usize::MAX));
        let (now, later) = bytes.split_at(fits);
        match self.file.write_all(now) {
            Ok(()) => self.room -= now.len() as u64,
            Err(_) => self.left_out += now.len() as u64,
        }
        self.end.extend(later);
        let over = self.end.len().saturating_sub(END);
        self.end.drain(..over);
        self.left_out += over as u64;
    }

    /// Writes the end, and before it how much is missing.
    pub fn finish(mut self) -> io::Result<()> {
        if self.left_out > 0 {
            write!(self.file, "\n[minke: {} bytes are left out here]\n", self.left_out)?;
        }
        let (first, second) = self.end.as_slices();
        self.file.write_all(first)?;
        self.file.write_all(second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(pieces: &[&[u8]], room: u64) -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.log");
        let mut log = Log::new(&path, room).unwrap();
        pieces.iter().for_each(|piece| log.take(piece));
        log.finish().unwrap();
        std::fs::read(&path).unwrap()
    }

    #[test]
    fn what_fits_is_kept_as_it_is() {
        assert_eq!(logged(&[b"ab", b"", b"cd"], 4), b"abcd");
        // The end has room of its own.
        assert_eq!(logged(&[b"ab", b"cdefg"], 4), b"abcdefg");
    }

    #[test]
    fn of_more_than_fits_the_beginning_and_the_end_are_kept() {
        let many: Vec<u8> = (0..200_000_u32).map(|i| b'a' + (i % 26) as u8).collect();
        let log = logged(&[&many[..50], &many[50..150_000], &many[150_000..]], 100);
        let expected = [&many[..100], b"\n[minke: 134364 bytes are left out here]\n", &many[200_000 - END..]].concat();
        assert_eq!(200_000 - 100 - END, 134_364);
        assert!(log == expected, "{} bytes", log.len());
    }
}
