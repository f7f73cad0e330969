//! Times fits of the golden votes, or of a file's: `cargo run --release -p minke-arena --example fits [FILE]`.
#![allow(clippy::print_stdout)]

use std::time::Instant;

use minke_arena::fit::{Ties, fit};
use minke_arena::intervals::{bootstrap, sandwich};
use minke_arena::{Counts, Outcome, Question, Result, Vote, board, formats};

fn main() -> Result<()> {
    let votes = match std::env::args().nth(1) {
        Some(file) => {
            let bytes = std::fs::read(&file).map_err(|e| minke_arena::Error::new(format!("{file}: {e}")))?;
            let begin = Instant::now();
            let votes = formats::read(&bytes)?.votes;
            println!("reading the file                          {:9.1} µs", microseconds(begin));
            votes
        }
        None => golden(),
    };
    let counts = Counts::of(&votes, Question::Answer)?;
    println!("{} votes on {} models, {} pairs", votes.len(), counts.models().len(), counts.pairs().len());
    time("collapsing the votes", || Counts::of(&votes, Question::Answer))?;
    for ties in [Ties::Half, Ties::Davidson] {
        let fitted = fit(&counts, ties)?;
        println!("{ties:?}, {} Newton steps", fitted.steps);
        time("  ratings", || fit(&counts, ties))?;
        time("  ratings and intervals", || sandwich(&fit(&counts, ties)?))?;
        time("  the board, with what the first hangs on", || {
            board::board(&counts, board::Options { ties, bootstrap: None })
        })?;
        time("  a bootstrap of 10 samples", || bootstrap(&counts, &fitted, 10, 1))?;
    }
    Ok(())
}

/// The 26,919 votes of `golden/votes/chatbot-arena`.
fn golden() -> Vec<Vote> {
    let rows = include_str!("../../../golden/votes/chatbot-arena/counts.csv").lines().skip(1);
    let votes = rows.filter_map(|row| match row.split(',').collect::<Vec<&str>>()[..] {
        [left, right, winner, votes] => {
            Some(vec![Vote::new(left, right, Outcome::from_name(winner)?); votes.parse().ok()?])
        }
        _ => None,
    });
    votes.flatten().collect()
}

fn microseconds(begin: Instant) -> f64 {
    1e6 * begin.elapsed().as_secs_f64()
}

/// Prints the median of a hundred.
fn time<T>(what: &str, work: impl Fn() -> Result<T>) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..100 {
        let begin = Instant::now();
        std::hint::black_box(work()?);
        times.push(microseconds(begin));
    }
    times.sort_by(f64::total_cmp);
    println!("{what:42}{:9.1} µs", times[50]);
    Ok(())
}
