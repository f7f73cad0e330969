//! What runs have written, as far as it can be understood. Any of it may be made up, and as long as a disk allows.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use minke_lab::launch::Kept;
use minke_train::report::{Report, VERSION};
use minke_train::rollouts::{self, Rollout};

/// Most bytes of a report that are read.
const REPORT: u64 = 1 << 20;
/// Most steps that are looked for.
const STEPS: usize = 100_000;

/// What a run came to, if it says so in minke's own words.
pub fn report(kept: &Kept) -> Option<Report> {
    let report: Report = serde_json::from_slice(&kept.read("report.json", REPORT).ok()?).ok()?;
    (report.version == VERSION).then_some(report)
}

/// The same for people.
pub fn report_text(kept: &Kept) -> Option<String> {
    let bytes = kept.read("report.md", REPORT).ok()?;
    Some(clean(&String::from_utf8_lossy(&bytes)))
}

/// Whether it has a model to talk to.
pub fn has_model(kept: &Kept) -> bool {
    kept.open("model/config.json").is_ok()
}

/// The steps whose rollouts are kept, in order.
pub fn steps(kept: &Kept) -> Vec<u64> {
    let names = kept.list("rollouts", STEPS).unwrap_or_default();
    let step = |name: &String| name.strip_suffix(".jsonl.gz").filter(|digits| digits.len() >= 6)?.parse().ok();
    let mut steps: Vec<u64> = names.iter().filter_map(step).collect();
    steps.sort_unstable();
    steps
}

/// A step's rollouts from so many bytes of text, and what kept the rest from being read; nothing where there is no such file.
pub fn rollouts(kept: &Kept, step: u64, bytes: u64) -> Option<(Vec<Rollout>, Option<String>)> {
    let file = kept.open(&format!("rollouts/{step:06}.jsonl.gz")).ok()?;
    Some(rollouts::skim(file, bytes))
}

/// The last bytes of what the stints have printed, one after the other.
pub fn tail(logs: &[PathBuf], most: u64) -> String {
    let mut pieces = Vec::new();
    let mut room = most;
    for path in logs.iter().rev() {
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|mut file| {
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(room)))?;
            file.take(room).read_to_end(&mut bytes)
        });
        room -= read.unwrap_or(0) as u64;
        pieces.push(bytes);
        if room == 0 {
            break;
        }
    }
    pieces.reverse();
    let text = pieces.concat();
    // Where something was cut off, the first line is only a part of one.
    let begin = if room == 0 { text.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1) } else { 0 };
    clean(&String::from_utf8_lossy(&text[begin..]))
}

/// What a terminal would show of a text in the end: without colours, and without what was written over.
pub fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut line, mut chars) = (0, text.chars().peekable());
    while let Some(c) = chars.next() {
        match c {
            '\n' => {
                out.push(c);
                line = out.len();
            }
            '\r' if chars.peek() != Some(&'\n') => out.truncate(line),
            '\u{1b}' if chars.next_if_eq(&'[').is_some() => {
                while chars.next_if(|c| !('@'..='~').contains(c)).is_some() {}
                chars.next();
            }
            '\t' => out.push(c),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_shows_is_shown() {
        for (text, shown) in [
            ("a\nb\tc\r\n", "a\nb\tc\n"),
            ("10 %\r20 %\r30 %\nx", "30 %\nx"),
            ("\u{1b}[1;31mred\u{1b}[0m \u{1b}[", "red "),
            ("\u{7}\u{0}bell\u{1b}", "bell"),
            ("one\n\u{1b}[2Ktwo", "one\ntwo"),
        ] {
            assert_eq!(clean(text), shown, "{text:?}");
        }
    }

    #[test]
    fn the_end_of_several_logs_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = ["a", "missing", "b"].iter().map(|name| directory.path().join(name)).collect();
        std::fs::write(&paths[0], "one\ntwo\n").unwrap();
        std::fs::write(&paths[2], "three\nfour\n").unwrap();
        assert_eq!(tail(&paths, 1 << 10), "one\ntwo\nthree\nfour\n");
        assert_eq!(tail(&paths, 17), "two\nthree\nfour\n");
        assert_eq!(tail(&paths, 9), "four\n");
        assert_eq!(tail(&[], 9), "");
    }

    #[test]
    fn of_made_up_files_what_makes_sense_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let files = directory.path().join("files");
        let kept = Kept::new(files.clone());
        assert!(
            steps(&kept).is_empty()
                && report(&kept).is_none()
                && !has_model(&kept)
                && rollouts(&kept, 1, 1 << 20).is_none()
        );
        std::fs::create_dir_all(files.join("rollouts")).unwrap();
        for name in [
            "000002.jsonl.gz",
            "000001.jsonl.gz",
            "1.jsonl.gz",
            "-00003.jsonl.gz",
            "x",
            "999999999999999999999.jsonl.gz",
        ] {
            std::fs::write(files.join("rollouts").join(name), "no gzip").unwrap();
        }
        assert_eq!(steps(&kept), [1, 2]);
        assert!(rollouts(&kept, 1, 1 << 20).is_some_and(|(read, why)| read.is_empty() && why.is_some()));
        std::fs::write(files.join("report.json"), "{\"version\":1}").unwrap();
        std::fs::write(files.join("report.md"), b"# a \xff\x1b[31m\n").unwrap();
        assert!(report(&kept).is_none());
        assert_eq!(report_text(&kept).as_deref(), Some("# a \u{fffd}\n"));
    }
}
