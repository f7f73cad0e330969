//! Whatever bytes a file has, reading it gives votes that can be counted, or sentences; never a panic.

use minke_arena::board::{Options, board};
use minke_arena::entries;
use minke_arena::fit::Ties;
use minke_arena::formats::{SHOWN, read, write_csv, write_json_lines};
use minke_arena::{Counts, Question};

use crate::{Random, bytes};

/// Reads bytes as a file and as a log, and checks what comes out.
fn check(bytes: &[u8]) -> usize {
    if let Ok(entries) = entries::read(bytes, 0) {
        assert!(entries.bytes <= bytes.len() && (entries.torn.is_some() || entries.bytes == bytes.len()));
    }
    let contents = match read(bytes) {
        Ok(contents) => contents,
        Err(error) => {
            let sentence = error.to_string();
            assert!(!sentence.is_empty() && sentence.len() < 400 && !sentence.contains('\n'), "{sentence:?}");
            return 0;
        }
    };
    assert_eq!(contents.bad.len() as u64, contents.bad_lines.min(SHOWN as u64));
    let lines = 1 + bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
    for bad in &contents.bad {
        let sentence = bad.to_string();
        assert!((1..=lines).contains(&bad.line) && !sentence.chars().any(char::is_control), "{sentence:?}");
        assert!(sentence.len() < 400, "{sentence}");
    }
    for vote in &contents.votes {
        assert_eq!(vote.check(), Ok(()));
    }
    let mut text = Vec::new();
    write_json_lines(&contents.votes, &mut text).unwrap();
    if !contents.votes.is_empty() {
        assert_eq!(read(&text).unwrap().votes, contents.votes);
        text.clear();
        write_csv(&contents.votes, &mut text).unwrap();
        assert_eq!(read(&text).unwrap().votes.len(), contents.votes.len());
        let counts = Counts::of(&contents.votes, Question::Answer).unwrap();
        for ties in [Ties::Half, Ties::Davidson] {
            board(&counts, Options { ties, bootstrap: None }).unwrap();
        }
    }
    contents.votes.len()
}

/// A small valid file of each form.
fn seeds() -> Vec<Vec<u8>> {
    let arena = br#"{"num": 0, "question_id": "58", "model_a": "x", "model_b": "y", "winner": "model_b"}
{"num": 1, "question_id": "25", "model_a": "y", "model_b": "z", "winner": "tie (bothbad)", "tstamp": 1.5}
"#;
    let log = br#"{"v":1,"left":"a","right":"b","winner":"left","reasoning":"tie","voter":"ada","ms":12,"battle":"7"}
{"v":1,"import":"x.csv","sha256":"5e","votes":2}
{"v":1,"left":"a","right":"c","winner":"both-bad"}
{"v":1,"left":"c","right":"b","winner":"right"}
"#;
    vec![arena.to_vec(), log.to_vec(), bytes("evalica/food.csv"), bytes("evalica/simple.csv")]
}

#[test]
fn random_bytes_never_panic() {
    let mut random = Random(1);
    for round in 0..20_000 {
        let length = random.below(200);
        let mut bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        match round % 4 {
            1 => bytes.insert(0, b'{'),
            2 => bytes = [b"left,right,winner\n", &bytes[..]].concat(),
            // Only what files of this kind are made of.
            3 => bytes.iter_mut().for_each(|byte| *byte = b"{}[]\":,\\\nv1lrtie\r \xff"[usize::from(*byte) % 19]),
            _ => {}
        }
        check(&bytes);
    }
}

#[test]
fn damaged_files_never_panic() {
    let mut random = Random(2);
    let seeds = seeds();
    let pieces: [&[u8]; 9] = [b"\"", b"\n", b",", b"left", b"1e999", b"-1", b"null", b"\\u0000", b"{\"v\":1"];
    let mut votes = 0;
    for round in 0..20_000 {
        let mut bytes = seeds[round % seeds.len()].clone();
        for _ in 0..1 + random.below(4) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => drop(bytes.splice(at..at, pieces[random.below(pieces.len())].iter().copied())),
                2 => drop(bytes.drain(at..(at + random.below(30)).min(bytes.len()))),
                _ => bytes.truncate(at.max(1)),
            }
            if bytes.is_empty() {
                break;
            }
        }
        votes += check(&bytes);
    }
    // Most of most files can still be read.
    assert!(votes > 60_000, "{votes}");
}

#[test]
fn whole_files_are_read_whole() {
    for (seed, votes) in seeds().iter().zip([2, 3, 30, 16]) {
        assert_eq!(check(seed), votes);
    }
}
