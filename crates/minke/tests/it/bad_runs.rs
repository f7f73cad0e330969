//! Runs that can't be gone on with.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::bad_input::Case;
use crate::{Place, replaced, said, tiny};

/// A run that has come to its end, in `run`.
pub fn finished() -> Place {
    let place = Place::new();
    place.write("a.toml", tiny());
    place.run(&["train", "a.toml", "--out", "run"]);
    place
}

/// The newest checkpoint of the smallest recipe.
const NEWEST: &str = "run/checkpoints/000010";

pub fn cases(finished: &Place) -> Vec<Case> {
    let (run, tiny) = (finished.path("run"), tiny());
    let damaged = |what: &str| {
        Case::new(what, &["train", "a.toml", "--out", "run", "--resume"]).file("a.toml", &tiny).copy(&run, "run")
    };
    // With one before it, the run would go on from that.
    let alone = |what: &str| {
        damaged(what).with(|place| {
            for step in ["000000", "000002", "000004", "000006", "000008"] {
                fs::remove_dir_all(place.path(&format!("run/checkpoints/{step}"))).unwrap();
            }
        })
    };
    let state = |change: &dyn Fn(&mut Value)| {
        let mut state: Value = serde_json::from_slice(&finished.read(&format!("{NEWEST}/state.json"))).unwrap();
        change(&mut state);
        state.to_string()
    };
    let edit = |name: &'static str, change: fn(Vec<u8>) -> Vec<u8>| {
        let bytes = change(finished.read(name));
        move |case: Case| case.file(name, bytes)
    };
    let replayed =
        |words: &[&str], what: &str| Case::new(what, &[&["replay", "run"], words].concat()).copy(&run, "run");
    let values = "run/checkpoints/000010/values.f32";
    let metrics = "run/metrics.jsonl";
    vec![
        damaged("of another recipe").file("a.toml", replaced(&tiny, "steps = 6", "steps = 7")),
        damaged("that somebody else is at work on").locked("run/run.json"),
        remove(damaged("without its run.json"), "run/run.json"),
        damaged("whose run.json is cut short").file("run/run.json", "{\"version\": 1, \"cho"),
        damaged("whose run.json is of a later version").file("run/run.json", "{\"version\": 9, \"choices\": {}}"),
        damaged("whose run.json has another key")
            .file("run/run.json", "{\"version\": 1, \"choices\": {\"seed\": 1, \"control\": false, \"speed\": 2}}"),
        damaged("whose recipe.toml is empty").file("run/recipe.toml", ""),
        remove(alone("whose only checkpoint lacks its state.json"), "run/checkpoints/000010/state.json"),
        alone("whose only state.json is empty").file("run/checkpoints/000010/state.json", ""),
        alone("whose only state.json is of a later version")
            .file("run/checkpoints/000010/state.json", state(&|state| state["version"] = 9.into())),
        alone("whose only state.json was edited")
            .file("run/checkpoints/000010/state.json", state(&|state| state["state"]["step"] = 3.into())),
        alone("whose only state.json lacks a key").file("run/checkpoints/000010/state.json", "{\"version\": 1}"),
        remove(alone("whose only checkpoint lacks its weights"), values),
        edit(values, |mut bytes| {
            bytes.pop();
            bytes
        })(alone("whose only weights are cut short")),
        edit(values, |mut bytes| {
            bytes[1000] ^= 1;
            bytes
        })(alone("whose only weights have a bit changed")),
        alone("whose only checkpoint is a file").with(|place| {
            fs::remove_dir_all(place.path(NEWEST)).unwrap();
            place.write(NEWEST, "");
        }),
        damaged("whose checkpoint is another run's").with(other_checkpoint),
        remove(damaged("without its metrics.jsonl"), metrics),
        edit(metrics, |bytes| {
            // Six lines and a bit of the seventh: how long they are in bytes, the clock decides.
            let lines = bytes.split_inclusive(|byte| *byte == b'\n').take(6);
            [&lines.collect::<Vec<&[u8]>>().concat()[..], b"{\"stage\""].concat()
        })(damaged("whose metrics.jsonl is cut short")),
        edit(metrics, |mut bytes| {
            bytes[..9].fill(b'?');
            bytes
        })(damaged("whose metrics.jsonl has a damaged line")),
        edit(metrics, |mut bytes| {
            bytes[9] = 0xff;
            bytes
        })(damaged("whose metrics.jsonl is not UTF-8")),
        damaged("whose metrics.jsonl is a directory").with(|place| {
            fs::remove_file(place.path(metrics)).unwrap();
            fs::create_dir(place.path(metrics)).unwrap();
        }),
        replayed(&["--step", "3"], "of which a step is replayed that samples nothing"),
        replayed(&["--step", "11"], "of which a step is replayed that it does not have"),
        replayed(&["--step", "7", "--sample", "16"], "of which a rollout is replayed that it does not have"),
        remove(replayed(&["--step", "7"], "without its run.json, replayed"), "run/run.json"),
        replayed(&["--step", "7"], "without checkpoints, replayed")
            .with(|place| fs::remove_dir_all(place.path("run/checkpoints")).unwrap()),
    ]
}

fn remove(case: Case, name: &str) -> Case {
    case.with(|place| fs::remove_file(place.path(name)).unwrap())
}

/// Puts the checkpoint of a run with a narrower model and one more stage in the newest one's place.
fn other_checkpoint(place: &Place) {
    let recipe = replaced(&replaced(&tiny(), "hidden_size = 32", "hidden_size = 16"), "steps = 4", "steps = 3");
    let more = recipe.replacen(
        "[[stage]]",
        "[[stage]]\nkind = \"sft\"\nsteps = 1\nbatch = 8\nexamples = 64\nlevel = 2\n\
        mixture = { direct = 1 }\nlr = 1e-3\n\n[[stage]]",
        1,
    );
    place.write("other.toml", more);
    place.run(&["train", "other.toml", "--out", "other"]);
    fs::remove_dir_all(place.path(NEWEST)).unwrap();
    fs::rename(place.path("other/checkpoints/000010"), place.path(NEWEST)).unwrap();
    fs::remove_dir_all(place.path("other")).unwrap();
    fs::remove_file(place.path("other.toml")).unwrap();
}

/// Where the bits would be others, that is said; whoever accepts it can go on.
#[test]
fn another_instruction_set_is_accepted_or_refused() {
    let place = finished();
    let state: Value = serde_json::from_slice(&place.read(&format!("{NEWEST}/state.json"))).unwrap();
    if state["state"]["domain"]["isa"] == "portable" {
        return;
    }
    let resume = ["train", "run", "--resume"];
    let output = place.minke(&resume).env("MINKE_ISA", "portable").output().unwrap();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("and this is portable: it would go on, but not to the same bits"), "{said}");
    assert!(said.contains("--accept-difference"), "{said}");
    let accept = [&resume[..], &["--accept-difference"]].concat();
    crate::printed(place.minke(&accept).env("MINKE_ISA", "portable"));
    assert!(Path::new(&place.path("run/report.md")).exists());
}
