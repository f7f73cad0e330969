//! minke as its users meet it: what the program prints, what it leaves on disk, and what it says to bad input.

mod arena;
mod bad_commands;
mod bad_input;
mod bad_recipes;
mod bad_runs;
mod battles;
mod cli;
mod client;
mod disks;
mod kill;
mod lab;
#[cfg(target_os = "linux")]
mod launch;
#[cfg(target_os = "linux")]
mod load;
mod pull;
mod serve_api;
mod serve_lab;
mod serve_pages;
mod server;
mod teachers;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::{env, fs};

use serde_json::Value;

/// A working directory of a test's own, with the store inside; relative paths keep what minke says the same everywhere.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file, and the directories above it.
    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// A copy of a file or directory, from the repository or from here.
    fn copy(&self, from: &Path, name: &str) {
        if from.is_dir() {
            fs::create_dir_all(self.path(name)).unwrap();
            for entry in fs::read_dir(from).unwrap() {
                let entry = entry.unwrap();
                self.copy(&entry.path(), &format!("{name}/{}", entry.file_name().to_string_lossy()));
            }
        } else {
            self.write(name, fs::read(from).unwrap());
        }
    }

    /// `minke` with these arguments, about to be run here.
    fn minke(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_minke"));
        command.args(arguments).current_dir(self.0.path()).stdin(Stdio::null());
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MINKE_")) {
            command.env_remove(name);
        }
        command.env("MINKE_HOME", "home");
        command
    }

    /// Runs `minke`, which must succeed; what it printed.
    fn run(&self, arguments: &[&str]) -> String {
        printed(&mut self.minke(arguments))
    }

    /// Runs `minke … --json`, which must print one object on one line.
    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.run(&[arguments, &["--json"]].concat());
        assert_eq!(text.matches('\n').count(), 1, "{arguments:?}: {text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    }
}

/// What a command that must succeed prints.
fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}: {}", output.status, said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// What is on stderr.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The text of the smallest recipe.
fn tiny() -> String {
    fs::read_to_string(repository().join("recipes/tiny.toml")).unwrap()
}

/// The smallest recipe, but for a model that exists.
fn tiny_from(reference: &str) -> String {
    let tiny = tiny();
    let scratch = &tiny[tiny.find("[model.scratch]").unwrap()..tiny.find("[task]").unwrap()];
    replaced(&replaced(&tiny, scratch, ""), "[model]", &format!("[model]\nreference = \"{reference}\""))
}

/// A recipe with something replaced in it.
fn replaced(recipe: &str, from: &str, to: &str) -> String {
    assert!(recipe.contains(from), "{from} is not in the recipe");
    recipe.replacen(from, to, 1)
}
