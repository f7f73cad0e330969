//! `order.json`: what the processes that stand over a stint are told of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The version of the file that is written; others are refused.
pub const VERSION: u32 = 1;

/// What a stint is and may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// [`VERSION`] of the minke that wrote it.
    pub version: u32,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Everything that is in its environment.
    pub environment: BTreeMap<String, String>,
    /// The cores that it may compute on; all where none is named.
    pub cores: Vec<usize>,
    /// What it may read and execute besides the system's own files.
    pub reads: Vec<PathBuf>,
    /// What it may not read even where that lies in what it may.
    pub closed: Vec<PathBuf>,
    /// What it may use.
    pub limits: Limits,
    /// Whether Landlock has to keep it off other files and processes.
    pub landlock: bool,
    /// Whether it gets namespaces where they are permitted.
    pub namespaces: bool,
}

/// How much of the machine a run may use, beyond its chips. It is ended when it uses more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Bytes on disk of everything in the run's directory.
    pub disk: u64,
    /// Bytes in one file.
    pub file: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// Processes at a time; their threads may be eight times as many.
    pub processes: u32,
    /// Bytes that are kept of what it prints in a stint; the rest is counted only, but for the end of it.
    pub log: u64,
}

impl Limits {
    /// Limits that an honest run does not meet, on a machine with so much memory.
    pub fn of_machine(memory: u64) -> Limits {
        let disk = 10_000_000_000;
        Limits { disk, file: disk, memory: memory / 10 * 9, processes: 512, log: 64_000_000 }
    }

    /// Threads at a time.
    pub fn threads(&self) -> u32 {
        self.processes.saturating_mul(8)
    }
}
