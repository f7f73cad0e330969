//! Files of votes in every form: what is read can be counted, rated and written, and is then read the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use minke_arena::board::{Options, board};
use minke_arena::fit::Ties;
use minke_arena::formats::{read, write_csv, write_json_lines};
use minke_arena::{Counts, Question, entries};

fuzz_target!(|bytes: &[u8]| {
    let _ = entries::read(bytes, 0);
    let Ok(contents) = read(bytes) else { return };
    let votes = contents.votes;
    if votes.is_empty() {
        return;
    }
    let mut text = Vec::new();
    write_json_lines(&votes, &mut text).expect("memory takes all");
    assert_eq!(read(&text).map(|again| again.votes).as_ref(), Ok(&votes));
    text.clear();
    write_csv(&votes, &mut text).expect("memory takes all");
    assert_eq!(read(&text).map(|again| again.votes.len()), Ok(votes.len()));
    for question in [Question::Answer, Question::Reasoning] {
        let Ok(counts) = Counts::of(&votes, question) else { continue };
        for ties in [Ties::Half, Ties::Davidson] {
            let made = board(&counts, Options { ties, bootstrap: None });
            assert!(made.is_ok() || counts.votes() == 0);
        }
    }
});
