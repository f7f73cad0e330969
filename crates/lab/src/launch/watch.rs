//! What a run uses beyond its chips, looked at again and again; more than is allowed is its end.
//!
//! The kernel's own limits come first where there are any (`sandbox.rs`); these hold whoever's processes they are.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::disk::Count;
use super::order::Limits;
use super::system::{Status, descendants};

/// Between the end of one count of the disk and the beginning of the next; longer where counting takes long.
const PAUSE: Duration = Duration::from_secs(1);
/// Entries of directories per look: a few milliseconds.
const ENTRIES: usize = 5000;

/// Watches over one stint.
pub struct Watch {
    limits: Limits,
    directories: Vec<PathBuf>,
    count: Count,
    begun: Instant,
    next: Instant,
}

impl Watch {
    /// A watch over all that a keeper's command starts, and over the directories that it may write.
    pub fn new(limits: Limits, directories: &[PathBuf]) -> Watch {
        let now = Instant::now();
        let count = Count::new(directories);
        Watch { limits, directories: directories.to_vec(), count, begun: now, next: now }
    }

    /// What is broken now, if anything is, in words.
    pub fn look(&mut self, keeper: u32) -> Option<String> {
        let family = descendants(keeper);
        self.numbers(&family).or_else(|| self.disk(&family))
    }

    fn numbers(&self, family: &BTreeSet<u32>) -> Option<String> {
        let (processes, threads) = (self.limits.processes as usize, u64::from(self.limits.threads()));
        if family.len() > processes {
            return Some(format!("had {} processes at a time where {processes} are allowed", family.len()));
        }
        let all: Vec<Status> = family.iter().filter_map(|pid| Status::of(*pid)).collect();
        let running: u64 = all.iter().map(|status| status.threads).sum();
        if running > threads {
            return Some(format!("had {running} threads at a time where {threads} are allowed"));
        }
        let resident: u64 = all.iter().map(|status| status.resident).sum();
        if resident > self.limits.memory {
            // Pages that several processes share were counted for each of them.
            let used: u64 = family.iter().filter_map(|pid| proportional(*pid)).sum();
            return over("used", used, self.limits.memory, "of memory ");
        }
        None
    }

    fn disk(&mut self, family: &BTreeSet<u32>) -> Option<String> {
        let now = Instant::now();
        if now < self.next {
            return None;
        }
        let counted = match self.count.go_on(ENTRIES) {
            Ok(counted) => counted?,
            Err(error) => return Some(format!("made something that can't be counted: {error}")),
        };
        let unnamed = Unnamed::of(family, &self.directories);
        self.count = Count::new(&self.directories);
        let took = self.begun.elapsed();
        self.next = Instant::now() + PAUSE.max(took);
        self.begun = self.next;
        let disk = over("wrote", counted + unnamed.disk, self.limits.disk, "");
        disk.or_else(|| over("used", unnamed.memory, self.limits.memory, "of memory "))
    }
}

/// Bytes of a process in memory, those that others share by parts.
fn proportional(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok();
    let line = text.as_ref().and_then(|text| text.lines().find_map(|line| line.strip_prefix("Pss:")));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kilobytes.map(|kilobytes| kilobytes * 1024).or_else(|| Some(Status::of(pid)?.resident))
}

/// Files without a name that processes hold open: no directory shows them.
#[derive(Default)]
struct Unnamed {
    disk: u64,
    memory: u64,
}

impl Unnamed {
    fn of(family: &BTreeSet<u32>, directories: &[PathBuf]) -> Unnamed {
        let device = directories.first().and_then(|directory| Some(directory.metadata().ok()?.dev()));
        let (mut unnamed, mut seen) = (Unnamed::default(), BTreeSet::new());
        let files =
            family.iter().flat_map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten());
        for path in files.map(|file| file.path()) {
            let Ok(target) = path.read_link() else { continue };
            let target = target.to_string_lossy();
            let Some(metadata) = target.ends_with(" (deleted)").then(|| path.metadata().ok()).flatten() else {
                continue;
            };
            if !seen.insert((metadata.dev(), metadata.ino())) {
                continue;
            }
            if target.starts_with("/memfd:") {
                unnamed.memory += metadata.blocks() * 512;
            } else if Some(metadata.dev()) == device && metadata.nlink() == 0 {
                unnamed.disk += metadata.blocks() * 512;
            }
        }
        unnamed
    }
}

/// A sentence, if it is too much.
fn over(verb: &str, used: u64, allowed: u64, of: &str) -> Option<String> {
    (used > allowed).then(|| format!("{verb} {} {of}where {} are allowed", size(used), size(allowed)))
}

/// Bytes in words.
fn size(bytes: u64) -> String {
    let (unit, name) = match bytes {
        1_000_000_000.. => (1e9, "GB"),
        1_000_000.. => (1e6, "MB"),
        1000.. => (1e3, "kB"),
        _ => (1.0, "bytes"),
    };
    let number = format!("{:.2}", bytes as f64 / unit);
    format!("{} {name}", number.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_is_said_in_words() {
        let said = |used| over("wrote", used, 10_000_000_000, "");
        assert_eq!(said(10_000_000_000), None);
        assert_eq!(said(10_204_000_000).unwrap(), "wrote 10.2 GB where 10 GB are allowed");
        let memory = over("used", 900_000_000, 100_000, "of memory ").unwrap();
        assert_eq!(memory, "used 900 MB of memory where 100 kB are allowed");
    }

    #[test]
    fn a_process_is_seen_with_what_it_shares() {
        let own = std::process::id();
        let resident = Status::of(own).unwrap().resident;
        let proportional = proportional(own).unwrap();
        assert!(0 < proportional && proportional <= resident + (1 << 20), "{proportional} of {resident}");
    }
}
