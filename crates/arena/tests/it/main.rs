//! Ratings against other implementations and laws, and importers against whatever bytes there are.

mod golden;
mod hostile;
mod laws;

use std::path::PathBuf;

use minke_arena::fit::{Fit, Ties, fit};
use minke_arena::{Counts, Outcome, Question, Vote};

/// A file under `golden/votes`.
fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../golden/votes").join(name)
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The votes of evalica's files.
fn evalica(name: &str) -> Vec<Vote> {
    let contents = minke_arena::formats::read(&bytes(&format!("evalica/{name}.csv"))).unwrap();
    assert_eq!(contents.bad_lines, 0);
    contents.votes
}

/// The 26,919 votes of Chatbot Arena, one pair and outcome after the other.
fn chatbot_arena() -> Vec<Vote> {
    let text = String::from_utf8(bytes("chatbot-arena/counts.csv")).unwrap();
    let rows = text.lines().skip(1).map(|line| {
        let [left, right, winner, votes] = line.split(',').collect::<Vec<&str>>()[..] else { panic!("{line}") };
        vec![Vote::new(left, right, Outcome::from_name(winner).unwrap()); votes.parse().unwrap()]
    });
    rows.flatten().collect()
}

fn count(votes: &[Vote]) -> Counts {
    Counts::of(votes, Question::Answer).unwrap()
}

fn fitted(votes: &[Vote], ties: Ties) -> Fit {
    fit(&count(votes), ties).unwrap()
}

/// Bytes, numbers and choices for tests, the same every time (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (((self.next() >> 32) * n as u64) >> 32) as usize
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
