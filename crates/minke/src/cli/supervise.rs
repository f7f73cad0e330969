//! `minke supervise`: the process that stands over one stint of a run. The lab starts it; nobody types it.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use minke_lab::launch;

#[derive(Args)]
pub struct Supervise {
    /// The stint's directory
    segment: PathBuf,
}

pub fn run(arguments: &Supervise) -> Result<()> {
    Ok(launch::supervise(&arguments.segment)?)
}
