//! `checkpoints/STEP/`: everything that a run needs to go on as if it had never been interrupted.
//!
//! A checkpoint is a directory of plain files, `state.json` and three arenas of little-endian numbers. It is written under
//! a name that nothing reads, synced, and renamed, so that it is there whole or not at all.

mod arena;
mod newest;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use flate2::Crc;
use minke_kernels::Moments;
use minke_model::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::budget::Resolved;
use crate::curriculum::Curriculum;
use crate::files::{failed, hidden, make_directory, rename, sync_names, write_whole};
use crate::learning_curve::Point;
use crate::report::{Results, StageReport};
use crate::spent::Spent;
use arena::Arena;

use newest::Unread;
pub use newest::{Newest, newest};

/// The version of the format that is written; others are refused.
const VERSION: u32 = 1;
const STATE: &str = "state.json";

/// Within what a run's numbers are the same to the bit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Domain {
    /// Which minke: its version, and whatever else tells one build from another.
    pub binary: String,
    /// Instruction set of the kernels.
    pub isa: String,
    /// How weights are stored for products, and moments where they are not in f32.
    pub dtype: String,
}

impl Domain {
    /// That a run made in this domain may go on `here`.
    ///
    /// # Errors
    /// What differs.
    pub fn check(&self, here: &Domain) -> Result<()> {
        for (what, then, now) in [
            ("binary", &self.binary, &here.binary),
            ("instruction set", &self.isa, &here.isa),
            ("dtype", &self.dtype, &here.dtype),
        ] {
            if then != now {
                return Err(Error::new(format!(
                    "the run was made with {what} {then}, and this is {now}: it would go on, but not to the same bits; \
                     resume with the former, or accept the difference (--accept-difference)"
                )));
            }
        }
        Ok(())
    }
}

/// How far a run has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Where the run's numbers are made.
    pub domain: Domain,
    /// The run's seed.
    pub seed: u64,
    /// Steps of each stage, resolved once when the run began.
    pub plan: Vec<u32>,
    /// What a budget left of the stages, where there was one: resolved once, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Resolved>,
    /// Index of the stage that it is in.
    pub stage: usize,
    /// Steps of that stage that are done.
    pub step: u32,
    /// Steps that are done, of all stages; the checkpoint's name.
    pub total_steps: u64,
    /// Updates since the optimiser's moments were zero.
    pub updates: u64,
    /// Tokens sampled and learnt from.
    pub tokens: u64,
    /// Lines of `metrics.jsonl`.
    pub metrics_lines: u64,
    /// Seconds spent training.
    pub wall_s: f64,
    /// Seconds spent measuring what stages came to.
    pub measuring_s: f64,
    /// What training has spent, up to here,
    #[serde(default, skip_serializing_if = "Spent::is_unknown")]
    pub training: Spent,
    /// and whatever else the run has done.
    #[serde(default, skip_serializing_if = "Spent::is_unknown")]
    pub measuring: Spent,
    /// CRC-32 of the weights that the stage is held to, where it has begun and is held to any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<u32>,
    /// How the model did before the first step, where it was a published one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Results>,
    /// How the levels of the stage have gone, where it has begun and has a curriculum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub curriculum: Option<Curriculum>,
    /// CRC-32 of each file of text that the run's stages read, by its path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub texts: BTreeMap<String, u32>,
    /// The learning curve so far, where the recipe asks for one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curve: Vec<Point>,
    /// Reports of the stages that are over.
    pub reports: Vec<StageReport>,
}

/// What is trained, and the optimiser's memory of it: equally long arenas, in the order of the model's parameters.
#[derive(Clone, Copy, Debug)]
pub struct Arenas<'a> {
    /// Parameters.
    pub values: &'a [f32],
    /// AdamW's first moments.
    pub m: &'a Moments,
    /// AdamW's second moments.
    pub v: &'a Moments,
}

impl State {
    /// Whether a run of so many stages can stand there.
    pub fn fits(&self, stages: usize) -> bool {
        let within = match self.plan.get(self.stage) {
            Some(steps) => self.step <= *steps,
            None => self.stage == stages && self.step == 0,
        };
        let budget = self.budget.as_ref().map_or(stages, |budget| budget.stages.len());
        within && self.plan.len() == stages && budget == stages && self.reports.len() == self.stage
    }
}

/// A checkpoint that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// How far the run had come.
    pub state: State,
    /// Parameters.
    pub values: Vec<f32>,
    /// AdamW's first moments.
    pub m: Moments,
    /// AdamW's second moments.
    pub v: Moments,
}

/// `state.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    version: u32,
    /// CRC-32 of the state's own JSON.
    crc32: u32,
    state: State,
    arenas: BTreeMap<String, Arena>,
}

/// The directory of a run's checkpoints.
pub fn directory(run: &Path) -> PathBuf {
    run.join("checkpoints")
}

/// Writes a checkpoint of `run`, replacing one of the same step, and says where it is.
///
/// # Errors
/// What the file system says.
pub fn save(run: &Path, state: &State, arenas: Arenas<'_>) -> Result<PathBuf> {
    let path = directory(run).join(format!("{:06}", state.total_steps));
    let partial = hidden(&path, "partial");
    remove(&partial)?;
    make_directory(&partial)?;
    let arenas = BTreeMap::from([
        ("values".to_string(), Arena::write_values(&partial, "values", arenas.values)?),
        ("m".to_string(), Arena::write(&partial, "m", arenas.m)?),
        ("v".to_string(), Arena::write(&partial, "v", arenas.v)?),
    ]);
    let manifest = Manifest { version: VERSION, crc32: checksum(state), state: state.clone(), arenas };
    let json = serde_json::to_vec_pretty(&manifest).map_err(|e| Error::new(format!("state can't be written: {e}")))?;
    write_whole(&partial.join(STATE), &json)?;
    sync_names(&partial)?;
    discard(&path)?;
    rename(&partial, &path)?;
    Ok(path)
}

/// Reads the checkpoint at `path`.
///
/// # Errors
/// The file that is missing, damaged or of another version.
pub fn load(path: &Path) -> Result<Checkpoint> {
    read(path).map_err(|unread| match unread {
        Unread::Damaged(what) => Error::new(format!("{what}; remove {} to go on from the one before", path.display())),
        Unread::Refused(error) => error,
    })
}

fn read(path: &Path) -> std::result::Result<Checkpoint, Unread> {
    let state_path = path.join(STATE);
    let damaged = |file: &Path, what: String| Unread::Damaged(format!("{} {what}", file.display()));
    let json = fs::read(&state_path).map_err(|e| damaged(&state_path, format!("can't be read: {e}")))?;
    // The version comes first: another one may have other keys.
    let version = serde_json::from_slice::<serde_json::Value>(&json)
        .map_err(|e| damaged(&state_path, format!("is damaged: {e}")))?["version"]
        .as_u64();
    if version != Some(u64::from(VERSION)) {
        let version = version.map_or("no version".into(), |v| format!("version {v}"));
        return Err(Unread::Refused(Error::new(format!(
            "{} is of {version}, but this minke reads version {VERSION}; use the minke that wrote it",
            state_path.display()
        ))));
    }
    let manifest: Manifest =
        serde_json::from_slice(&json).map_err(|e| damaged(&state_path, format!("is damaged: {e}")))?;
    if checksum(&manifest.state) != manifest.crc32 {
        return Err(damaged(&state_path, "is damaged: its checksum is another".into()));
    }
    let read = |name: &str| {
        let arena = manifest.arenas.get(name);
        let arena = arena.ok_or_else(|| damaged(&state_path, format!("has no arena {name}")))?;
        let file = path.join(arena.file_name(name));
        arena.read(&file).map_err(|what| damaged(&file, what))
    };
    let (values, m, v) = (read("values")?, read("m")?, read("v")?);
    let Moments::F32(values) = values else {
        return Err(damaged(&state_path, "has values that are not in f32".into()));
    };
    if m.len() != values.len() || v.len() != values.len() || m.dtype() != v.dtype() {
        return Err(damaged(&state_path, "has arenas of different lengths or types".into()));
    }
    Ok(Checkpoint { state: manifest.state, values, m, v })
}

/// The checkpoints of a run, oldest first: their steps and places.
///
/// # Errors
/// What the file system says.
pub fn list(run: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let directory = directory(run);
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(&directory).map_err(|e| failed("read", &directory, e))? {
        let entry = entry.map_err(|e| failed("read", &directory, e))?;
        // Half-written and half-removed ones have names that aren't numbers.
        if let Some(step) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            found.push((step, entry.path()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The newest checkpoint of a run.
///
/// # Errors
/// What the file system says.
pub fn latest(run: &Path) -> Result<Option<PathBuf>> {
    Ok(list(run)?.pop().map(|(_, path)| path))
}

/// Removes what crashes left behind, and then checkpoints until the rest fits in `bytes`. The newest always stays; of
/// the others, the one whose neighbours are closest together goes first, so that no step is far from one to replay from.
///
/// # Errors
/// What the file system says.
pub fn thin(run: &Path, bytes: u64) -> Result<()> {
    let directory = directory(run);
    for entry in fs::read_dir(&directory).map_err(|e| failed("read", &directory, e))? {
        let path = entry.map_err(|e| failed("read", &directory, e))?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            remove(&path)?;
        }
    }
    let mut kept = list(run)?;
    let mut sizes = kept.iter().map(|(_, path)| size(path)).collect::<Result<Vec<u64>>>()?;
    while kept.len() > 1 && sizes.iter().sum::<u64>() > bytes {
        // A run can always be replayed from its beginning, which counts as a neighbour.
        let gap = |i: usize| kept[i + 1].0 - i.checked_sub(1).map_or(0, |before| kept[before].0);
        let Some(least) = (0..kept.len() - 1).min_by_key(|&i| gap(i)) else { break };
        discard(&kept.remove(least).1)?;
        sizes.remove(least);
    }
    Ok(())
}

/// Removes a checkpoint, if it is there, such that it is never seen half removed.
fn discard(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let removed = hidden(path, "removed");
    remove(&removed)?;
    rename(path, &removed)?;
    remove(&removed)
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed("remove", path, e)),
        _ => Ok(()),
    }
}

fn size(checkpoint: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(checkpoint).map_err(|e| failed("read", checkpoint, e))? {
        let length = entry.and_then(|entry| entry.metadata()).map(|data| data.len());
        bytes += length.map_err(|e| failed("read", checkpoint, e))?;
    }
    Ok(bytes)
}

fn checksum(state: &State) -> u32 {
    let mut crc = Crc::new();
    crc.update(&serde_json::to_vec(state).unwrap_or_default());
    crc.sum()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::files::CHUNK;

    fn state(total_steps: u64) -> State {
        State {
            domain: Domain { binary: "minke 0.1.0".into(), isa: "avx2".into(), dtype: "bf16".into() },
            seed: u64::MAX,
            plan: vec![100, 80],
            budget: Some(Resolved { budget_s: 900, stages: Vec::new() }),
            stage: 1,
            step: 20,
            total_steps,
            updates: 20,
            tokens: 1 << 60,
            metrics_lines: 120,
            wall_s: 0.1 + 0.2,
            measuring_s: 7.0,
            training: Spent { core_s: Some(1.0 / 3.0), joules: None, sampled_tokens: 1 << 50, learnt_tokens: 7 },
            measuring: Spent::NOTHING,
            reference: None,
            base: Some(StageReport::example().results),
            curriculum: Some(Curriculum::new(&[2, 3])),
            texts: BTreeMap::from([("a.txt".to_string(), 7)]),
            curve: Vec::new(),
            reports: vec![StageReport::example()],
        }
    }

    fn numbers(seed: u64) -> Vec<f32> {
        let mut random = minke_kernels::random::Random::new(seed, [0; 3]);
        (0..CHUNK + 100).map(|_| f32::from_bits(random.next_u32())).collect()
    }

    pub fn save_at(run: &Path, step: u64) -> PathBuf {
        let (values, m, v) = (numbers(1), Moments::F32(numbers(2)), Moments::F32(numbers(3)));
        save(run, &state(step), Arenas { values: &values, m: &m, v: &v }).unwrap()
    }

    pub fn steps(run: &Path) -> Vec<u64> {
        list(run).unwrap().into_iter().map(|(step, _)| step).collect()
    }

    #[test]
    fn everything_comes_back_to_the_bit() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(latest(run.path()).unwrap(), None);
        let path = save_at(run.path(), 120);
        assert_eq!(save_at(run.path(), 120), path, "the same step again");
        assert_eq!(latest(run.path()).unwrap().as_ref(), Some(&path));
        let back = load(&path).unwrap();
        assert_eq!(back.state, state(120));
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
        let (Moments::F32(m), Moments::F32(v)) = (&back.m, &back.v) else { panic!("moments in f32") };
        for (seed, read) in [(1, &back.values), (2, m), (3, v)] {
            assert!(bits(read) == bits(&numbers(seed)));
        }
        assert_eq!(fs::read_dir(directory(run.path())).unwrap().count(), 1);

        // Moments in bf16, whatever their bits.
        let halves = |seed| Moments::Bf16(bits(&numbers(seed)).iter().map(|bits| *bits as u16).collect());
        let (values, m, v) = (numbers(1), halves(2), halves(3));
        let path = save(run.path(), &state(140), Arenas { values: &values, m: &m, v: &v }).unwrap();
        let back = load(&path).unwrap();
        assert!(bits(&back.values) == bits(&values) && back.m == m && back.v == v);
        assert_eq!(fs::metadata(path.join("m.bf16")).unwrap().len(), 2 * values.len() as u64);
        let json = fs::read_to_string(path.join(STATE)).unwrap();
        let (before, after) = json.rsplit_once("bf16").unwrap();
        fs::write(path.join(STATE), format!("{before}f64{after}")).unwrap();
        let error = load(&path).unwrap_err().to_string();
        assert!(error.contains("unknown variant `f64`, expected `f32` or `bf16`"), "{error}");
    }

    /// A state as it was written before there was a `base` in it, with the checksum that it had.
    #[test]
    fn older_checkpoints_are_read() {
        let run = tempfile::tempdir().unwrap();
        let path = save_at(run.path(), 8);
        let older = r#"{"domain":{"binary":"minke 0.1.0","isa":"avx2","dtype":"bf16"},"seed":1,"plan":[6,4],"stage":1,"step":2,"total_steps":8,"updates":2,"tokens":1000,"metrics_lines":8,"wall_s":0.30000000000000004,"measuring_s":7.0,"reports":[{"kind":"sft","steps":6,"tokens":900,"wall_s":0.2,"think":{"level":2,"items":8,"accuracy":0.5,"interval":{"low":0.2,"high":0.8},"lenient":0.5,"thought_tokens":3.0,"truncated":0.0}}]}"#;
        let older: serde_json::Value = serde_json::from_str(older).unwrap();
        let mut manifest: serde_json::Value = serde_json::from_slice(&fs::read(path.join(STATE)).unwrap()).unwrap();
        (manifest["state"], manifest["crc32"]) = (older, 1299201147u32.into());
        fs::write(path.join(STATE), manifest.to_string()).unwrap();
        let state = load(&path).unwrap().state;
        assert_eq!((state.total_steps, state.reports.len(), state.base), (8, 1, None));
        assert!(state.training.is_unknown() && state.reports[0].spent.is_unknown());
    }

    #[test]
    fn half_written_ones_are_not_seen() {
        let run = tempfile::tempdir().unwrap();
        let path = save_at(run.path(), 20);
        for name in [".000040.partial", ".000030.removed"] {
            fs::create_dir(directory(run.path()).join(name)).unwrap();
        }
        assert_eq!(latest(run.path()).unwrap(), Some(path));
        thin(run.path(), 1 << 40).unwrap();
        assert_eq!(fs::read_dir(directory(run.path())).unwrap().count(), 1);
    }

    #[test]
    fn damage_is_refused_and_named() {
        let run = tempfile::tempdir().unwrap();
        let path = save_at(run.path(), 20);
        let with = |file: &str, change: &dyn Fn(&mut Vec<u8>)| {
            let file = path.join(file);
            let good = fs::read(&file).unwrap();
            let mut bad = good.clone();
            change(&mut bad);
            fs::write(&file, bad).unwrap();
            let sentence = load(&path).unwrap_err().to_string();
            fs::write(&file, good).unwrap();
            sentence
        };
        let flipped = with("m.f32", &|bytes| bytes[60_000] ^= 1);
        assert!(flipped.contains("m.f32 is damaged: its checksum is another; remove "), "{flipped}");
        let cut = with("v.f32", &|bytes| bytes.truncate(11));
        assert!(cut.contains("v.f32 is damaged: it has 11 bytes, but should have 16484 numbers of 4"), "{cut}");
        let replace = |from: &'static str, to: &'static str| {
            move |bytes: &mut Vec<u8>| {
                let text = String::from_utf8(bytes.clone()).unwrap();
                assert!(text.contains(from), "{text}");
                *bytes = text.replacen(from, to, 1).into_bytes();
            }
        };
        let seed = with(STATE, &replace("\"step\": 20", "\"step\": 21"));
        assert!(seed.contains("state.json is damaged: its checksum is another"), "{seed}");
        let huge = with(STATE, &replace("\"length\": 16484", "\"length\": 18446744073709551615"));
        assert!(huge.contains("m.f32 is damaged") || huge.contains("values.f32 is damaged"), "{huge}");
        let newer = with(STATE, &replace("\"version\": 1", "\"version\": 2"));
        assert!(newer.contains("is of version 2, but this minke reads version 1"), "{newer}");
        let garbage = with(STATE, &|bytes| bytes.truncate(bytes.len() / 2));
        assert!(garbage.contains("state.json is damaged: EOF"), "{garbage}");
        let unknown = with(STATE, &replace("\"seed\"", "\"sead\""));
        assert!(unknown.contains("unknown field `sead`"), "{unknown}");
        fs::remove_file(path.join("values.f32")).unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("values.f32 can't be read"));
        assert!(load(&path.join("no")).unwrap_err().to_string().contains("state.json can't be read"));
    }

    #[test]
    fn thinning_keeps_the_newest_and_spreads_the_rest() {
        let run = tempfile::tempdir().unwrap();
        for step in (10..=80).step_by(10) {
            save_at(run.path(), step);
        }
        let one = size(&latest(run.path()).unwrap().unwrap()).unwrap();
        thin(run.path(), 8 * one + one / 2).unwrap();
        assert_eq!(steps(run.path()).len(), 8);
        thin(run.path(), 4 * one + one / 2).unwrap();
        assert_eq!(steps(run.path()), [20, 40, 60, 80]);
        thin(run.path(), 0).unwrap();
        assert_eq!(steps(run.path()), [80]);
    }

    #[test]
    fn another_domain_is_refused() {
        let domain = state(1).domain;
        domain.check(&domain).unwrap();
        let error = domain.check(&Domain { isa: "avx512".into(), ..domain.clone() }).unwrap_err().to_string();
        assert!(error.starts_with("the run was made with instruction set avx2, and this is avx512"), "{error}");
    }
}
