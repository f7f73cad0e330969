//! The machine that operations run on: an instruction set and a pool of threads.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use crate::arch::{Isa, Kernels};
use crate::buffer::Buffer;
use crate::pool::Pool;

/// The machine that operations run on. Made once per process (tests make one per instruction set).
pub struct Cpu {
    isa: Isa,
    pub(crate) kernels: &'static Kernels,
    pool: Pool,
    /// Buffers handed back by [`Scratch`] and [`crate::matrix::Packed`].
    spare: Mutex<Vec<Buffer>>,
}

impl Cpu {
    /// The fastest instruction set of this machine (or the one that `MINKE_ISA` names) and one thread for each core
    /// that this process may use (or `MINKE_THREADS`).
    ///
    /// # Errors
    /// One sentence, when `MINKE_ISA` or `MINKE_THREADS` cannot be honoured.
    pub fn detect() -> Result<Cpu, String> {
        let isa = Isa::choose(std::env::var("MINKE_ISA").ok().as_deref())?;
        let threads = match std::env::var("MINKE_THREADS") {
            Err(_) => crate::pool::available_threads(),
            Ok(text) => match text.parse() {
                Ok(n) if (1..=1024).contains(&n) => n,
                _ => return Err(format!("MINKE_THREADS={text} is not a number of threads; give one from 1 to 1024")),
            },
        };
        Ok(Cpu::new(isa, threads))
    }

    /// A chosen instruction set, which must be available, and a number of threads.
    pub fn new(isa: Isa, threads: usize) -> Cpu {
        Cpu { isa, kernels: isa.kernels(), pool: Pool::new(threads), spare: Mutex::default() }
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The threads.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Memory for an intermediate result, `len` numbers of any value; it goes back to be used again when dropped.
    ///
    /// A training step would otherwise ask the system for hundreds of megabytes, and for their pages to be cleared.
    pub fn scratch(&self, len: usize) -> Scratch<'_> {
        Scratch { cpu: self, buffer: self.spare(len) }
    }

    /// Memory that was handed back, or new: `len` numbers of any value.
    pub(crate) fn spare(&self, len: usize) -> Buffer {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        // The smallest that is large enough, or else the largest, which then grows.
        let fits =
            |buffer: &Buffer| if buffer.capacity() >= len { buffer.capacity() } else { usize::MAX - buffer.capacity() };
        let best = (0..spare.len()).min_by_key(|&i| fits(&spare[i]));
        let mut buffer = best.map(|i| spare.swap_remove(i)).unwrap_or_default();
        drop(spare);
        buffer.resize(len);
        if cfg!(debug_assertions) {
            // Whoever reads what was not written shall notice.
            buffer.fill(f32::NAN);
        }
        buffer
    }

    /// Keeps memory for [`Cpu::spare`].
    pub(crate) fn hand_back(&self, buffer: Buffer) {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

/// Memory for an intermediate result: see [`Cpu::scratch`].
pub struct Scratch<'a> {
    cpu: &'a Cpu,
    buffer: Buffer,
}

impl Deref for Scratch<'_> {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.buffer
    }
}

impl DerefMut for Scratch<'_> {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.buffer
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        self.cpu.hand_back(std::mem::take(&mut self.buffer));
    }
}
