//! Launchers: what carries actions out. Local processes here; Slurm comes as another.

mod kept;
mod local;
mod order;
mod progress;
mod stint;
mod system;

#[cfg(target_os = "linux")]
mod confine;
#[cfg(target_os = "linux")]
mod disk;
#[cfg(target_os = "linux")]
mod log;
#[cfg(target_os = "linux")]
mod sandbox;
#[cfg(target_os = "linux")]
mod supervise;
#[cfg(target_os = "linux")]
mod watch;

use std::io;

use crate::event::Report;
use crate::run::{Run, RunId};

#[cfg(target_os = "linux")]
pub use confine::{confine, enter};
pub use kept::Kept;
pub use local::{Local, Settings};
pub use order::Limits;
#[cfg(target_os = "linux")]
pub use supervise::supervise;
pub use system::cores;
#[cfg(not(target_os = "linux"))]
pub use system::{confine, enter, supervise};

/// Starts stints on machines, and says what becomes of them.
///
/// Every order may be given again after a crash of the lab's process; a stint is never started twice.
pub trait Launcher {
    /// Starts a stint of `run`: `run.segments[segment]`. What comes of it is reported, a failure to start too.
    ///
    /// # Errors
    /// When the order could not be taken; it will be given again.
    fn start(&mut self, run: &Run, segment: usize) -> io::Result<()>;

    /// Asks a stint to save and end with code 75.
    ///
    /// # Errors
    /// When the order could not be taken; it will be given again.
    fn suspend(&mut self, run: RunId, segment: usize) -> io::Result<()>;

    /// Ends a stint now, with everything that it has started.
    ///
    /// # Errors
    /// When the order could not be taken; it will be given again.
    fn kill(&mut self, run: RunId, segment: usize) -> io::Result<()>;

    /// What is new of the given stints (those that hold chips) since the last call, or since ever for those that this
    /// launcher has not seen before. A stint that it knows nothing about and that nothing is left of is absent: it is
    /// reported neither as started nor as ended.
    ///
    /// # Errors
    /// When the machine can't be asked.
    fn poll(&mut self, stints: &[(RunId, usize)]) -> io::Result<Vec<(RunId, usize, Report)>>;
}
