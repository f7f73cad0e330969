//! The machine that operations run on: an instruction set and a pool of threads.

use crate::arch::{Isa, Kernels};
use crate::pool::Pool;

/// The machine that operations run on. Made once per process (tests make one per instruction set).
pub struct Cpu {
    isa: Isa,
    pub(crate) kernels: &'static Kernels,
    pool: Pool,
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
        Cpu { isa, kernels: isa.kernels(), pool: Pool::new(threads) }
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The threads.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }
}
