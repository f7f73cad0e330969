//! `minke lab simulate`: who would have waited for how long, and had what share of the chips.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use clap::{Args, ValueEnum};
use minke_lab::simulate::{Numbers, Rule, Trace, simulate};
use serde::Serialize;

use super::picture;
use crate::output::{Show, print};
use crate::units::{duration, grouped};

#[derive(Args)]
#[command(after_help = "Examples:
  minke lab simulate --trace day.csv --chips 32
  minke lab simulate --trace day.csv --chips 32 --policy 2das --json
  minke lab simulate --trace day.csv --chips 32 --svg day.svg     who held how many chips when

A trace is a CSV file whose first line is submit_s,duration_s,chips,person. Policies don't know durations; each start costs a
job 30 seconds. docs/policy.md says what the numbers mean.")]
pub struct Simulate {
    /// The jobs, as CSV
    #[arg(long, value_name = "FILE.csv")]
    trace: PathBuf,
    /// How many chips there are
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    chips: u32,
    /// Who shares them out
    #[arg(long, value_name = "minke|fifo|fairshare|2das", default_value = "minke", hide_possible_values = true)]
    policy: Policy,
    /// Draw who held how many chips when into this file
    #[arg(long, value_name = "FILE.svg")]
    svg: Option<PathBuf>,
    /// Print them as a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Policy {
    Minke,
    Fifo,
    Fairshare,
    #[value(name = "2das")]
    Tiresias,
}

impl From<Policy> for Rule {
    fn from(policy: Policy) -> Rule {
        match policy {
            Policy::Minke => Rule::Minke,
            Policy::Fifo => Rule::Fifo,
            Policy::Fairshare => Rule::Fairshare,
            Policy::Tiresias => Rule::Tiresias,
        }
    }
}

pub fn run(arguments: &Simulate) -> Result<()> {
    let place = arguments.trace.display();
    let bytes = fs::read(&arguments.trace).with_context(|| format!("{place} can't be read; name a CSV file"))?;
    let text = String::from_utf8(bytes).map_err(|_| anyhow!("{place} is not text; name a CSV file"))?;
    let trace = Trace::parse(&text, arguments.chips).map_err(|why| anyhow!("{place}: {why}"))?;
    let policy = Rule::from(arguments.policy);
    let outcome = simulate(&trace, arguments.chips, policy);
    if let Some(path) = &arguments.svg {
        let picture = picture::svg(&trace, arguments.chips, &outcome.stints);
        fs::write(path, picture).with_context(|| format!("{} can't be written", path.display()))?;
    }
    print(&Shown { policy, chips: arguments.chips, numbers: outcome.numbers }, arguments.json)
}

#[derive(Serialize)]
struct Shown {
    policy: Rule,
    chips: u32,
    #[serde(flatten)]
    numbers: Numbers,
}

impl Show for Shown {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let n = &self.numbers;
        writeln!(out, "{} jobs of {} people on {} chips", grouped(n.jobs as u64), n.people, self.chips)?;
        let waits = [n.wait_p50_s, n.wait_p95_s, n.wait_max_s].map(duration);
        writeln!(out, "wait       {} median, {} for 95 of 100, {} at most", waits[0], waits[1], waits[2])?;
        let (mean, most) = (n.slowdown_mean, n.slowdown_p95);
        writeln!(out, "slowdown   {mean:.2} on average, {most:.2} for 95 of 100 (1 is no waiting at all)")?;
        if let Some(jain) = n.jain {
            writeln!(out, "fairness   {jain:.3} (Jain's index; 1 is everybody's equal share)")?;
        }
        writeln!(out, "worst off  {:.2} times as long as with an equal part of the chips alone", n.rho_max)?;
        writeln!(out, "busy       {:.1} % of the chip-time that somebody wanted", 100.0 * n.busy)?;
        let times = grouped(n.preemptions as u64);
        writeln!(out, "changes    {times} times a job gave way; {} lost to starts", duration(n.switch_lost_s))
    }
}
