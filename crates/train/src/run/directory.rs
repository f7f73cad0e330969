//! A run's directory, as it begins and as it is found: what was decided, and whose the run is.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::Path;

use minke_model::{Error, Result};

use super::Choices;
use crate::files::{failed, put};

/// The version of `run.json`.
const VERSION: u32 = 1;

/// What was decided for the run to go on with, which must be of this recipe; or what is decided for a new one, where
/// there is none yet.
pub(super) fn choices(directory: &Path, recipe: &str, begin: Option<&Choices>) -> Result<Choices> {
    let (path, at) = (directory.join("recipe.toml"), directory.display());
    let there = match fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(no_place(directory, error)),
    };
    match (there, begin) {
        (None, None) => Err(Error::new(format!("there is no run in {at} to go on with; leave --resume out"))),
        (Some(_), Some(_)) => Err(Error::new(format!(
            "there is a run in {at} already; go on with it (--resume), or start anew elsewhere (--out)"
        ))),
        (Some(there), None) if there != recipe => Err(Error::new(format!(
            "the recipe is not the one that the run in {at} began with; resume with {}, or start anew elsewhere (--out)",
            path.display()
        ))),
        (Some(_), None) => read_choices(&directory.join("run.json")),
        (None, Some(choices)) => Ok(choices.clone()),
    }
}

/// Makes the directory of a run that begins with a recipe and choices. The run is this process's until the file is closed.
pub(super) fn claim(directory: &Path, begin: Option<(&str, &Choices)>) -> Result<File> {
    let choices_path = directory.join("run.json");
    if let Some((recipe, choices)) = begin {
        fs::create_dir_all(directory).map_err(|error| no_place(directory, error))?;
        let json = serde_json::json!({ "version": VERSION, "choices": choices });
        // What is there last says that there is a run.
        put(&choices_path, format!("{json:#}\n").as_bytes())
            .and_then(|()| put(&directory.join("recipe.toml"), recipe.as_bytes()))
            .map_err(|error| no_place(directory, error))?;
    }
    let lock = File::open(&choices_path).map_err(|e| failed("open", &choices_path, e))?;
    match lock.try_lock() {
        Err(TryLockError::WouldBlock) => Err(Error::new(format!(
            "another minke is at work on the run in {}; wait for it, or stop it",
            directory.display()
        ))),
        // Where there are no locks, there is nobody to find out about.
        Err(TryLockError::Error(_)) | Ok(()) => Ok(lock),
    }
}

fn no_place(directory: &Path, error: std::io::Error) -> Error {
    Error::new(format!("a run can't be kept in {} ({error}); choose another place (--out)", directory.display()))
}

fn read_choices(path: &Path) -> Result<Choices> {
    let damaged = |what: &dyn std::fmt::Display| {
        Error::new(format!(
            "{} is damaged: {what}; put back the one that the run began with, or start anew elsewhere (--out)",
            path.display()
        ))
    };
    let json = fs::read(path).map_err(|e| damaged(&e))?;
    let mut value: serde_json::Value = serde_json::from_slice(&json).map_err(|e| damaged(&e))?;
    if value["version"] != VERSION {
        return Err(Error::new(format!(
            "{} is of version {}, but this minke reads version {VERSION}; use the minke that wrote it",
            path.display(),
            value["version"]
        )));
    }
    serde_json::from_value(value["choices"].take()).map_err(|e| damaged(&e))
}
