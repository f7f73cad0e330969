//! A limit on everything, and how much of it is in use.

use minke_kernels::kv::KvLayout;

/// How much the engine may take on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sequences that run at the same time; at least 1.
    pub sequences: usize,
    /// Rows of a batch; at least `sequences`.
    pub batch_tokens: usize,
    /// Pages of keys and values, each of 32 positions; made when they are first needed.
    pub pages: usize,
    /// Requests that wait; at least 1.
    pub queue: usize,
}

impl Limits {
    /// 256 sequences, batches of 512 rows, a queue of 4096, and the pages that fit in `bytes` of memory.
    pub fn within(bytes: usize, layout: KvLayout) -> Limits {
        Limits { sequences: 256, batch_tokens: 512, pages: bytes / layout.page_bytes().max(1), queue: 4096 }
    }
}

/// What is in use now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Sequences that run.
    pub running: usize,
    /// Requests that wait.
    pub waiting: usize,
    /// Pages that running sequences hold.
    pub pages_held: usize,
    /// Pages that nobody holds, kept for a request that begins alike.
    pub pages_cached: usize,
}

/// How guessing has gone so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Speculated {
    /// Tokens that were guessed and run.
    pub drafted: u64,
    /// Those among them that were right, each of which saved a step.
    pub accepted: u64,
}
