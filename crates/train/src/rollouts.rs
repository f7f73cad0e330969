//! `rollouts/`: every rollout of every step, kept; one gzipped file of JSON lines a step, so that `zcat` reads it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use flate2::{Compression, GzBuilder};
use minke_model::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::files::{failed, make_directory, write_whole};
use crate::tasks::Item;

/// The version of the format that is written; those before it are read too (items had other keys in version 1).
const VERSION: u32 = 2;
/// Whether files of a version can be read.
fn is_read(version: u32) -> bool {
    (1..=VERSION).contains(&version)
}
/// Longest line that is read: a rollout of a million tokens.
const LONGEST_LINE: u64 = 64 << 20;

/// One completion of one prompt, with everything that was decided about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// Which prompt of the step, from 0.
    pub prompt: u32,
    /// Which sample of the prompt, from 0.
    pub sample: u32,
    /// The problem.
    pub item: Item,
    /// The completion as text, special tokens written out.
    pub text: String,
    /// The prompt's tokens.
    pub prompt_tokens: Vec<u32>,
    /// The completion's tokens.
    pub tokens: Vec<u32>,
    /// Log-probability of each token of the completion under the distribution it was sampled from; exact to the bit.
    pub log_probs: Vec<f32>,
    /// Tokens of the thought, without its tags.
    pub thought_tokens: usize,
    /// It ended by itself, not at the limit.
    pub finished: bool,
    /// The reward,
    pub reward: f32,
    /// why it was given,
    pub reason: String,
    /// and what it came to within its group.
    pub advantage: f32,
}

/// The first line of a file.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Header {
    version: u32,
    step: u64,
    rollouts: usize,
}

/// The file of a step; steps are counted from 1 over all stages.
pub fn path(run: &Path, step: u64) -> PathBuf {
    run.join("rollouts").join(format!("{step:06}.jsonl.gz"))
}

/// Writes the rollouts of a step into a run's directory; the same rollouts make the same bytes.
///
/// # Errors
/// What the file system says; or a number that isn't finite, which nothing later could read.
pub fn write(run: &Path, step: u64, rollouts: &[Rollout]) -> Result<()> {
    write_file(&path(run, step), step, rollouts)
}

/// [`write`], at a place of its own.
pub(crate) fn write_file(path: &Path, step: u64, rollouts: &[Rollout]) -> Result<()> {
    for rollout in rollouts {
        let mut numbers = rollout.log_probs.iter().chain([&rollout.reward, &rollout.advantage]);
        if !numbers.all(|x| x.is_finite()) {
            return Err(Error::new(format!(
                "step {step}, prompt {}, sample {} has a log-probability, reward or advantage that is not a finite \
                 number; the weights have diverged, so go on from an earlier checkpoint with a lower learning rate",
                rollout.prompt, rollout.sample
            )));
        }
    }
    make_directory(path.parent().unwrap_or(path))?;
    let mut file = GzBuilder::new().write(Vec::new(), Compression::default());
    let header = Header { version: VERSION, step, rollouts: rollouts.len() };
    let mut lines = || {
        serde_json::to_writer(&mut file, &header)?;
        for rollout in rollouts {
            file.write_all(b"\n")?;
            serde_json::to_writer(&mut file, rollout)?;
        }
        file.write_all(b"\n")
    };
    let written = lines().and_then(|()| file.finish());
    write_whole(path, &written.map_err(|e| failed("compress", path, e))?)
}

/// Reads the rollouts of a step.
///
/// # Errors
/// That there are none; or the file and line that can't be read.
pub fn read(run: &Path, step: u64) -> Result<Vec<Rollout>> {
    read_file(&path(run, step), step)
}

/// [`read`], from a place of its own.
pub(crate) fn read_file(path: &Path, step: u64) -> Result<Vec<Rollout>> {
    let file = File::open(path).map_err(|e| failed("read", path, e))?;
    let mut reader = BufReader::new(MultiGzDecoder::new(BufReader::new(file)));
    let damaged = |what: String| Error::new(format!("{} {what}", path.display()));
    let header: Header = match next_line(&mut reader).map_err(&damaged)? {
        Some(line) => serde_json::from_slice(&line).map_err(|e| damaged(format!("line 1: {e}")))?,
        None => return Err(damaged("is empty".into())),
    };
    if !is_read(header.version) {
        return Err(damaged(format!(
            "is of version {}, but this minke reads versions 1 to {VERSION}; use the minke that wrote it",
            header.version
        )));
    }
    let mut rollouts = Vec::new();
    while let Some(line) = next_line(&mut reader).map_err(&damaged)? {
        let rollout = serde_json::from_slice(&line);
        rollouts.push(rollout.map_err(|e| damaged(format!("line {}: {e}", rollouts.len() + 2)))?);
    }
    if (header.step, header.rollouts) != (step, rollouts.len()) {
        return Err(damaged(format!(
            "says step {} and {} rollouts, but has {} and should be step {step}",
            header.step,
            header.rollouts,
            rollouts.len()
        )));
    }
    Ok(rollouts)
}

/// What can be read of a step's file that a stranger may have written, from at most `bytes` of text; and what kept the rest
/// from being read.
pub fn skim(file: impl Read, bytes: u64) -> (Vec<Rollout>, Option<String>) {
    let mut reader = BufReader::new(MultiGzDecoder::new(BufReader::new(file)).take(bytes));
    let mut rollouts = Vec::new();
    for number in 1.. {
        let line = match next_line(&mut reader) {
            Ok(Some(line)) => line,
            Ok(None) | Err(_) if reader.get_ref().limit() == 0 => {
                return (rollouts, Some("has more than is shown here".into()));
            }
            Ok(None) => break,
            Err(what) => return (rollouts, Some(what)),
        };
        let read = match number {
            1 => serde_json::from_slice(&line).map(|Header { version, .. }: Header| match is_read(version) {
                true => None,
                false => Some(format!("is of version {version}, but this minke reads versions 1 to {VERSION}")),
            }),
            _ => serde_json::from_slice(&line).map(|rollout| {
                rollouts.push(rollout);
                None
            }),
        };
        match read {
            Ok(None) => {}
            Ok(Some(what)) => return (rollouts, Some(what)),
            Err(error) => return (rollouts, Some(format!("has a line {number} that is no rollout: {error}"))),
        }
    }
    (rollouts, None)
}

/// The next line; a limit on its length guards against a small file that decompresses into a huge one.
fn next_line(reader: &mut impl BufRead) -> std::result::Result<Option<Vec<u8>>, String> {
    let mut line = Vec::new();
    let length = reader.take(LONGEST_LINE).read_until(b'\n', &mut line).map_err(|e| format!("is damaged: {e}"))?;
    match (length, line.last()) {
        (0, _) => Ok(None),
        (_, Some(b'\n')) => Ok(Some(line)),
        _ => Err("is damaged: it has a line that doesn't end".into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    impl Rollout {
        /// A rollout for tests.
        pub(crate) fn example() -> Rollout {
            Rollout {
                prompt: 0,
                sample: 0,
                item: Item { level: 2, prompt: "1+2=".into(), facts: json!({ "numbers": [1, 2], "target": 3 }) },
                text: "<think>1+2=3</think>3<end>".into(),
                prompt_tokens: vec![5, 14, 6, 15],
                tokens: vec![0, 5, 14, 6, 15, 7, 1, 7, 2],
                log_probs: vec![-0.1; 9],
                thought_tokens: 5,
                finished: true,
                reward: 1.0,
                reason: "answer 3 is right".into(),
                advantage: 0.25,
            }
        }
    }

    #[test]
    fn rollouts_come_back_to_the_bit() {
        let directory = tempfile::tempdir().unwrap();
        let mut random = minke_kernels::random::Random::new(8, [0; 3]);
        let log_probs: Vec<f32> = std::iter::repeat_with(|| f32::from_bits(random.next_u32()))
            .filter(|x| x.is_finite())
            .take(50_000)
            .collect();
        let rollouts = [Rollout { log_probs, ..Rollout::example() }, Rollout { sample: 1, ..Rollout::example() }];
        write(directory.path(), 7, &rollouts).unwrap();
        let back = read(directory.path(), 7).unwrap();
        let bits = |r: &Rollout| r.log_probs.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
        assert!(bits(&back[0]) == bits(&rollouts[0]) && back == rollouts);

        let bytes = std::fs::read(path(directory.path(), 7)).unwrap();
        write(directory.path(), 7, &rollouts).unwrap();
        assert_eq!(std::fs::read(path(directory.path(), 7)).unwrap(), bytes);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let run = directory.path();
        let sentence = |step| read(run, step).unwrap_err().to_string();
        assert!(sentence(1).starts_with("could not read "));
        write(run, 1, &[Rollout::example()]).unwrap();
        let bytes = std::fs::read(path(run, 1)).unwrap();
        std::fs::write(path(run, 1), &bytes[..bytes.len() - 9]).unwrap();
        assert!(sentence(1).contains("000001.jsonl.gz is damaged"));
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 2] ^= 4;
        std::fs::write(path(run, 1), flipped).unwrap();
        assert!(sentence(1).contains("000001.jsonl.gz "));
        std::fs::write(path(run, 2), &bytes).unwrap();
        assert!(sentence(2).ends_with("says step 1 and 1 rollouts, but has 1 and should be step 2"));

        let gzip = |text: &str| {
            let mut file = GzBuilder::new().write(Vec::new(), Compression::default());
            file.write_all(text.as_bytes()).unwrap();
            std::fs::write(path(run, 3), file.finish().unwrap()).unwrap();
        };
        gzip("");
        assert!(sentence(3).ends_with("is empty"));
        gzip("{\"version\":3,\"step\":3,\"rollouts\":0}\n");
        let other = "is of version 3, but this minke reads versions 1 to 2; use the minke that wrote it";
        assert!(sentence(3).ends_with(other));
        gzip("{\"version\":1,\"step\":3,\"rollouts\":1}\n{\"prompt\":0}\n");
        assert!(sentence(3).contains("line 2: missing field"));
    }

    #[test]
    fn files_of_version_1_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let run = directory.path();
        let line = serde_json::to_string(&Rollout::example()).unwrap();
        let old = line.replacen(r#""facts":{"numbers":[1,2],"target":3}"#, r#""numbers":[1,2],"target":3"#, 1);
        let text = format!("{{\"version\":1,\"step\":3,\"rollouts\":1}}\n{old}\n");
        assert_ne!(old, line);
        let mut file = GzBuilder::new().write(Vec::new(), Compression::default());
        file.write_all(text.as_bytes()).unwrap();
        make_directory(&run.join("rollouts")).unwrap();
        std::fs::write(path(run, 3), file.finish().unwrap()).unwrap();
        assert_eq!(read(run, 3).unwrap(), [Rollout::example()]);
        assert_eq!(skim(File::open(path(run, 3)).unwrap(), 1 << 20), (vec![Rollout::example()], None));
    }

    #[test]
    fn of_what_strangers_wrote_the_beginning_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let run = directory.path();
        let rollouts = [Rollout::example(), Rollout { sample: 1, ..Rollout::example() }];
        write(run, 1, &rollouts).unwrap();
        let skimmed = |bytes| skim(File::open(path(run, 1)).unwrap(), bytes);
        assert_eq!(skimmed(1 << 20), (rollouts.to_vec(), None));
        // A bomb goes off within bounds.
        assert_eq!(skimmed(450), (rollouts[..1].to_vec(), Some("has more than is shown here".into())));
        let mut file = GzBuilder::new().write(Vec::new(), Compression::default());
        file.write_all(&vec![b' '; 8 << 20]).unwrap();
        let bomb = file.finish().unwrap();
        assert_eq!(skim(&bomb[..], 1 << 20), (vec![], Some("has more than is shown here".into())));
        assert!(skim(&bomb[..99], 16 << 20).1.is_some_and(|what| what.starts_with("is damaged")));
        assert!(skim(&b"no gzip"[..], 99).1.is_some_and(|what| what.starts_with("is damaged")));
        assert_eq!(skim(&b""[..], 99).0, []);
    }

    #[test]
    fn diverged_numbers_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let rollout = Rollout { log_probs: vec![f32::NAN], prompt: 3, ..Rollout::example() };
        let error = write(directory.path(), 1, &[rollout]).unwrap_err().to_string();
        assert!(error.starts_with("step 1, prompt 3, sample 0 has a log-probability"), "{error}");
    }
}
