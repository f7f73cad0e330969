//! `minke lab`: what the lab is worth, and what its policy would make of other days.

mod picture;
mod report;
mod simulate;

use anyhow::Result;
use clap::Subcommand;

#[derive(Subcommand)]
pub enum Lab {
    /// What the way of working has been worth so far, in numbers
    Report(report::Report),
    /// Play a day that is known with the lab's policy, or with another
    Simulate(simulate::Simulate),
}

pub fn run(command: &Lab) -> Result<()> {
    match command {
        Lab::Report(arguments) => report::run(arguments),
        Lab::Simulate(arguments) => simulate::run(arguments),
    }
}
