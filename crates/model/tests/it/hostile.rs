//! Broken and hostile model files: each gets one sentence, the same every time (`docs/bad-input.md`), and none makes the
//! process panic or ask for memory that its size does not justify.

mod cases;
mod gguf_file;
mod mutations;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use minke_model::{Checkpoint, Message, Result};

/// Everything that is read of a model before it runs, in the order that a program reads it.
fn read(checkpoint: Result<Checkpoint>) -> Result<()> {
    let checkpoint = checkpoint?;
    for (name, shape) in minke_model::families::tensor_shapes(checkpoint.config()) {
        checkpoint.tensor(&name, &shape)?;
    }
    let tokenizer = checkpoint.tokenizer()?;
    let ids = tokenizer.encode("ab", true)?;
    tokenizer.decode(&ids, false)?;
    if let Some(template) = checkpoint.chat_template()? {
        template.render(&[Message::new("user", "ab")], true, &serde_json::Map::new())?;
    }
    Ok(())
}

fn scratch(name: &str) -> PathBuf {
    // The process that tests memory runs the same tests at the same time.
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

/// The rows of the table: what is wrong, and the sentence. With `MINKE_KEEP` set the files stay, as seeds for `bench/fuzz.sh`.
fn rows() -> Vec<(String, String)> {
    let root = scratch("hostile");
    let cases = cases::all(&root);
    assert!(cases.len() >= 30, "{}", cases.len());
    let rows = cases
        .into_iter()
        .map(|(what, path)| {
            let sentence = match read(Checkpoint::open(&path)) {
                Ok(()) => panic!("{what}: read without complaint"),
                Err(error) => error.to_string(),
            };
            assert!(!sentence.contains('\n') && sentence.len() < 400, "{what}: {sentence:?}");
            assert!(!sentence.contains(&*root.to_string_lossy()), "{what}: {sentence:?}");
            (what, sentence)
        })
        .collect();
    if env::var_os("MINKE_KEEP").is_none() {
        fs::remove_dir_all(root).unwrap();
    }
    rows
}

#[test]
fn the_files_that_cases_are_made_from_are_fine() {
    let root = scratch("hostile-valid");
    for path in cases::valid(&root) {
        read(Checkpoint::open(&path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    fs::remove_dir_all(root).unwrap();
}

/// Set `MINKE_BLESS` to write the table anew.
#[test]
fn every_bad_file_gets_the_sentence_in_the_table() {
    const BEGIN: &str = "<!-- model files: written by crates/model/tests/hostile -->\n";
    const END: &str = "<!-- end of model files -->\n";
    let mut table = String::from("| a model file with | gets |\n|---|---|\n");
    for (what, sentence) in rows() {
        table += &format!("| {what} | {} |\n", sentence.replace('|', "\\|").replace('<', "\\<"));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/bad-input.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the page marks where the table begins");
    let (old, after) = rest.split_once(END).expect("the page marks where the table ends");
    if env::var_os("MINKE_BLESS").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
    } else {
        for (new, old) in table.lines().zip(old.lines()) {
            assert_eq!(new, old, "run with MINKE_BLESS=1 if the new sentence is better");
        }
        assert_eq!(table.lines().count(), old.lines().count(), "run with MINKE_BLESS=1 for new cases");
    }
}

#[test]
fn mutated_files_never_panic() {
    mutations::run();
}

/// All of the above again, in a process that may have 1 GiB of address space.
#[cfg(target_os = "linux")]
#[test]
fn no_file_makes_the_process_ask_for_memory() {
    const INSIDE: &str = "MINKE_TEST_LIMITED";
    if env::var_os(INSIDE).is_some() {
        assert!(Vec::<u8>::new().try_reserve_exact(1 << 30).is_err(), "there is no limit");
        return;
    }
    let output = Command::new("sh")
        .args(["-c", "ulimit -v 1048576 && exec \"$0\" hostile:: --test-threads=1"])
        .arg(env::current_exe().unwrap())
        .env(INSIDE, "1")
        .env_remove("MINKE_BLESS")
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&said));
}
