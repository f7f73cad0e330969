//! Runs whose disk fails them: it is full, or can't be written to, or gives back other bytes than it was given.
#![cfg(unix)]

use std::fs;
use std::process::{Command, Output};
use std::sync::LazyLock;

use crate::kill::{BEGIN, Outcome, RESUME};
use crate::{Place, said, tiny};

/// What the smallest recipe comes to on a disk like others.
static WHOLE: LazyLock<Outcome> = LazyLock::new(|| {
    let place = begun();
    place.run(&BEGIN);
    Outcome::of(&place)
});

fn begun() -> Place {
    let place = Place::new();
    place.write("a.toml", tiny());
    place
}

/// `sh` with these words, in `place` and with the variables that minke is run with; `$0` is minke.
fn shell(place: &Place, before: &[&str], words: &str) -> Command {
    let minke = place.minke(&[]);
    let command = [before, &["sh", "-c", words]].concat();
    let mut shell = Command::new(command[0]);
    shell.args(&command[1..]).arg(minke.get_program()).current_dir(place.path(""));
    for (name, value) in minke.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

/// The last line of a command that must have failed in one sentence.
fn sentence(output: &Output) -> String {
    let said = said(output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.matches("minke: ").count(), 1, "{said}");
    assert!(!said.contains("panicked"), "{said}");
    let last = said.lines().last().unwrap_or_default();
    last.strip_prefix("minke: ").unwrap_or_else(|| panic!("{said}")).to_string()
}

fn is_begun(place: &Place) -> bool {
    place.path("run/recipe.toml").exists()
}

/// Files may grow to so many KiB: a checkpoint's values have 92.2, and a stage's model 96.4.
#[test]
fn a_file_that_finds_no_room_ends_the_run_which_goes_on_when_there_is_some() {
    let mut refused = Vec::new();
    for limit in [0, 1, 32, 93] {
        let place = begun();
        // In units of 512 bytes. Without the trap the signal would end the process, not the write.
        let words = format!("trap '' XFSZ && ulimit -f {} && exec \"$0\" {}", 2 * limit, BEGIN.join(" "));
        let sentence = sentence(&shell(&place, &[], &words).output().unwrap());
        assert!(sentence.contains("File too large"), "{limit} KiB: {sentence}");
        let next = if is_begun(&place) { "then go on (--resume)" } else { "choose another place (--out)" };
        assert!(sentence.contains(next), "{limit} KiB: {sentence}");
        place.run(if is_begun(&place) { &RESUME } else { &BEGIN });
        Outcome::of(&place).check(&WHOLE, &format!("{limit} KiB"));
        refused.push(sentence);
    }
    refused.dedup();
    assert!(refused.len() >= 3, "{refused:?}");
}

/// Runs a shell's words as the root of namespaces of its own, where it may mount; says so where that is not allowed.
#[cfg(target_os = "linux")]
fn mounting(place: &Place, words: &str) -> Option<Output> {
    let allowed = Command::new("unshare").args(["-rm", "true"]).output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: nobody may mount here");
        return None;
    }
    Some(shell(place, &["unshare", "-rm"], words).output().unwrap())
}

/// On a disk of so many KiB the run ends when it is full; once it is larger, it goes on to the same weights.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_ends_the_run_which_goes_on_when_there_is_room() {
    let mut ended = 0;
    // Six checkpoints of 280 KiB each, and three models of 100.
    for size in [8, 200, 400, 700, 1000, 1200, 1400, 1800, 2200, 2800] {
        let place = begun();
        let words = format!(
            "mkdir run && mount -t tmpfs -o size={size}k none run || exit 9
            \"$0\" train a.toml --out run
            test $? = 1 || exit 8
            mount -o remount,size=64m run || exit 9
            if test -e run/recipe.toml; then \"$0\" train run --resume; else \"$0\" train a.toml --out run; fi || exit 7
            cp -r run kept"
        );
        let Some(output) = mounting(&place, &words) else { return };
        let said = said(&output);
        match output.status.code() {
            Some(8) if said.is_empty() || !said.contains("minke: ") => break,
            code => assert_eq!(code, Some(0), "{size} KiB: {said}"),
        }
        let sentence = said.lines().find_map(|line| line.strip_prefix("minke: ")).unwrap_or_else(|| panic!("{said}"));
        assert!(sentence.contains("No space left on device"), "{size} KiB: {sentence}");
        assert!(
            sentence.contains("then go on (--resume)") || sentence.contains("choose another place"),
            "{size} KiB: {sentence}"
        );
        eprintln!("{size} KiB: {sentence}");
        // What was mounted on it is gone with its namespace.
        fs::remove_dir_all(place.path("run")).unwrap();
        fs::rename(place.path("kept"), place.path("run")).unwrap();
        Outcome::of(&place).check(&WHOLE, &format!("{size} KiB"));
        ended += 1;
    }
    assert!(ended >= 6, "{ended}");
}

/// Root may write anywhere, but not to what is mounted to be read only.
#[cfg(target_os = "linux")]
#[test]
fn a_run_that_cannot_be_written_to_says_so_and_stays_as_it_is() {
    let place = begun();
    place.run(&BEGIN);
    for step in ["000008", "000010"] {
        fs::remove_dir_all(place.path(&format!("run/checkpoints/{step}"))).unwrap();
    }
    let words = "mount --bind run run && mount -o remount,bind,ro run && exec \"$0\" train run --resume";
    let Some(output) = mounting(&place, words) else { return };
    let sentence = sentence(&output);
    assert!(sentence.contains("could not open run/metrics.jsonl: Read-only file system"), "{sentence}");
    assert!(sentence.ends_with("make the place writable, then go on (--resume)"), "{sentence}");
    place.run(&RESUME);
    Outcome::of(&place).check(&WHOLE, "read only");

    let begun = begun();
    let words = "mkdir run && mount -t tmpfs -o ro none run && exec \"$0\" train a.toml --out run/it";
    let Some(output) = mounting(&begun, words) else { return };
    let sentence = self::sentence(&output);
    assert!(sentence.contains("a run can't be kept in run/it (Read-only file system"), "{sentence}");
}

/// A file stands where a directory has to be made.
#[test]
fn a_run_whose_rollouts_have_no_place_says_so_and_goes_on_when_they_do() {
    let place = begun();
    place.run(&BEGIN);
    for step in ["000008", "000010"] {
        fs::remove_dir_all(place.path(&format!("run/checkpoints/{step}"))).unwrap();
    }
    fs::remove_dir_all(place.path("run/rollouts")).unwrap();
    place.write("run/rollouts", "");
    let sentence = sentence(&place.minke(&RESUME).output().unwrap());
    assert!(sentence.contains("run/rollouts: "), "{sentence}");
    fs::remove_file(place.path("run/rollouts")).unwrap();
    place.run(&RESUME);
    Outcome::of(&place).check(&WHOLE, "a file for a directory");
}

/// Damage to the newest checkpoint, or several, costs time and nothing else; it is said in one sentence each.
#[test]
fn a_damaged_checkpoint_is_passed_over_and_the_weights_are_the_same() {
    let halve: fn(&mut Vec<u8>) = |bytes| bytes.truncate(bytes.len() / 2);
    let flip: fn(&mut Vec<u8>) = |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
    };
    // Some at the end of the run, others where one stage follows another.
    for (removed, damaged, file, damage, from) in [
        (&[][..], &["000010"][..], "values.f32", halve, "000008"),
        (&[], &["000010", "000008"], "v.f32", flip, "000006"),
        (&["000010"], &["000008"], "state.json", halve, "000006"),
        (&["000010", "000008"], &["000006"], "state.json", flip, "000004"),
        (&["000010"], &["000008", "000006", "000004", "000002"], "m.f32", flip, "000000"),
    ] {
        let place = begun();
        place.run(&BEGIN);
        for step in removed {
            fs::remove_dir_all(place.path(&format!("run/checkpoints/{step}"))).unwrap();
        }
        for step in damaged {
            let name = format!("run/checkpoints/{step}/{file}");
            let mut bytes = place.read(&name);
            damage(&mut bytes);
            place.write(&name, bytes);
        }
        let output = place.minke(&RESUME).output().unwrap();
        let said = said(&output);
        assert!(output.status.success(), "{said}");
        for step in damaged {
            let expected = format!("run/checkpoints/{step}/{file} is damaged: ");
            let line = said.lines().find(|line| line.contains(&expected)).unwrap_or_else(|| panic!("{said}"));
            let rest = format!("; the run goes on from run/checkpoints/{from}, to the same weights");
            assert!(line.ends_with(&rest), "{line}");
        }
        assert_eq!(said.matches("is damaged").count(), damaged.len(), "{said}");
        Outcome::of(&place).check(&WHOLE, &format!("{damaged:?}/{file}"));
        // The next time there is nothing to say.
        let again = place.minke(&RESUME).output().unwrap();
        assert!(again.status.success() && !crate::said(&again).contains("damaged"), "{}", crate::said(&again));
    }
}
