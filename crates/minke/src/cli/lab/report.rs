//! `minke lab report`: what the way of working has been worth.

use std::io::{self, Write};

use anyhow::Result;
use clap::Args;
use minke_lab::Worth;
use serde::Serialize;

use crate::client::Client;
use crate::output::{Show, print};
use crate::units::duration;

#[derive(Args)]
#[command(after_help = "Example:\n  minke lab report")]
pub struct Report {
    /// Print it as a JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Report) -> Result<()> {
    print(&Shown(Client::connect()?.get("/api/worth")?), arguments.json)
}

#[derive(Serialize)]
struct Shown(Worth);

impl Show for Shown {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let worth = &self.0;
        let Worth { people, ideas, runs, done, chip_h, .. } = worth;
        writeln!(out, "people: {people}, ideas: {ideas}, runs: {runs}")?;
        if let (Some(median), Some(most)) = (worth.first_step_p50_s, worth.first_step_p95_s) {
            let (median, most) = (duration(median), duration(most));
            writeln!(out, "from idea to first step  {median} median, {most} for 95 of 100")?;
        }
        if let Some(part) = worth.within_a_minute {
            writeln!(out, "began within a minute    {:.0} % of runs", 100.0 * part)?;
        }
        let (shown, spared, hours) = (worth.repeats_shown, worth.repeats_spared, worth.spared_chip_h);
        writeln!(out, "repeats pointed out      {shown}, of which {spared} were not run: {hours:.1} chip-hours saved")?;
        writeln!(out, "worked together          {} times both sides said yes", worth.joins)?;
        let each = worth.done_per_chip_h.map_or_else(String::new, |done| format!(", {done:.2} for each of them"));
        writeln!(out, "results                  {done} in {chip_h:.1} chip-hours{each}")?;
        if let Some(busy) = worth.busy {
            writeln!(out, "chips busy               {:.0} % of the time that somebody wanted them", 100.0 * busy)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_lab_has_little_to_tell() {
        let mut text = Vec::new();
        Shown(Worth::default()).show(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.starts_with("people: 0") && !text.contains('%') && !text.contains("NaN"), "{text}");
    }
}
