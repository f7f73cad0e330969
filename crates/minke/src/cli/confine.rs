//! `minke confine`: the process above a run's command, or the one that becomes it. A supervisor starts it; nobody types it.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use minke_lab::launch;

#[derive(Args)]
pub struct Confine {
    /// The stint's directory
    segment: PathBuf,
    /// Shut this process in and become the command
    #[arg(long)]
    enter: bool,
    /// With --enter: /dev/shm is the run's own
    #[arg(long, requires = "enter")]
    shared_memory: bool,
}

pub fn run(arguments: &Confine) -> Result<()> {
    let Confine { segment, enter, shared_memory } = arguments;
    if *enter {
        launch::enter(segment, *shared_memory)?;
    } else {
        launch::confine(segment)?;
    }
    Ok(())
}
