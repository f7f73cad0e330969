//! What a run came to.

use std::path::Path;

use minke_train::report::Report;
use minke_train::run::Ending;
use minke_train::{Result, rollouts};

/// The bytes that a finished run must share with any other of the same recipe.
pub fn outcome(directory: &Path) -> Vec<Vec<u8>> {
    let steps = 1 + rollouts_of(directory).len();
    assert!(steps > 4, "a run keeps all its rollouts");
    let mut files = vec![std::fs::read(directory.join("model/model.safetensors")).unwrap()];
    files.extend(rollouts_of(directory));
    files
}

/// The files of its rollouts, step by step.
pub fn rollouts_of(directory: &Path) -> Vec<Vec<u8>> {
    (1..=192).map(|step| rollouts::path(directory, step)).filter_map(|path| std::fs::read(path).ok()).collect()
}

/// Its report.
pub fn report(directory: &Path) -> Report {
    serde_json::from_slice(&std::fs::read(directory.join("report.json")).unwrap()).unwrap()
}

/// Whether a run came to its end.
pub fn finished(ending: Result<Ending>) -> bool {
    matches!(ending.unwrap(), Ending::Finished(_))
}
