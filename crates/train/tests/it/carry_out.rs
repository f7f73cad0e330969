//! Carries recipes out, stops them on the way, and what they came to.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use minke_kernels::Cpu;
use minke_train::progress::Progress;
use minke_train::report::Report;
use minke_train::run::{Choices, Ending, Options, run};
use minke_train::{Result, rollouts};

/// How a run in `directory` is begun or gone on with; models are those of golden/.
pub fn options(directory: &Path, resume: bool) -> Options<'_> {
    Options {
        begin: (!resume).then(Choices::default),
        accept: false,
        directory,
        binary: "test".into(),
        memory: None,
        chat: &|_, _| unreachable!("a teacher that is elsewhere"),
        find: &|reference| Ok(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/models").join(reference)),
    }
}

/// Carries a recipe out in `directory`, stopping after as many steps as `stop_after` says.
pub fn carry_out(cpu: &Cpu, recipe: &str, directory: &Path, resume: bool, stop_after: Option<u32>) -> Result<Ending> {
    let options = options(directory, resume);
    let stop = AtomicBool::new(false);
    let mut steps = 0;
    run(cpu, "tiny", recipe, &options, &stop, &mut |progress| {
        steps += u32::from(matches!(progress, Progress::Step { .. }));
        stop.store(stop_after.is_some_and(|after| steps >= after), Ordering::Relaxed);
    })
}

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
