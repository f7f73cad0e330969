//! A run ends with the same bits however it was interrupted, and on any number of threads.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use minke_kernels::random::Random;
use minke_kernels::{Cpu, Isa};
use minke_train::progress::Progress;
use minke_train::run::{Choices, Ending, Options, run};
use minke_train::{Result, rollouts};

const RECIPE: &str = include_str!("../../../recipes/tiny.toml");

/// Runs in `directory`, stopping after as many steps as `stop_after` says.
fn tiny(cpu: &Cpu, directory: &Path, resume: bool, stop_after: Option<u32>) -> Result<Ending> {
    let options = Options {
        begin: (!resume).then(Choices::default),
        accept: false,
        directory,
        binary: "test".into(),
        memory: None,
        find: &|reference| panic!("no model is looked up, and {reference} was"),
    };
    let stop = AtomicBool::new(false);
    let mut steps = 0;
    run(cpu, "tiny", RECIPE, &options, &stop, &mut |progress| {
        steps += u32::from(matches!(progress, Progress::Step { .. }));
        stop.store(stop_after.is_some_and(|after| steps >= after), Ordering::Relaxed);
    })
}

/// The bytes that a finished run must share with any other of the same recipe.
fn outcome(directory: &Path) -> Vec<Vec<u8>> {
    let steps = 1 + rollouts_of(directory).len();
    assert!(steps > 4, "a run keeps all its rollouts");
    let mut files = vec![std::fs::read(directory.join("model/model.safetensors")).unwrap()];
    files.extend(rollouts_of(directory));
    files
}

fn rollouts_of(directory: &Path) -> Vec<Vec<u8>> {
    (1..=64).map(|step| rollouts::path(directory, step)).filter_map(|path| std::fs::read(path).ok()).collect()
}

fn finished(ending: Result<Ending>) -> bool {
    matches!(ending.unwrap(), Ending::Finished(_))
}

#[test]
fn interrupted_runs_end_with_the_same_bits() {
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        let cpu = Cpu::new(isa, 2);
        let whole = tempfile::tempdir().unwrap();
        assert!(finished(tiny(&cpu, whole.path(), false, None)));
        let expected = outcome(whole.path());

        let again = tempfile::tempdir().unwrap();
        assert!(finished(tiny(&Cpu::new(isa, 1), again.path(), false, None)));
        assert_eq!(outcome(again.path()), expected, "{isa:?}: one thread");

        let mut random = Random::new(7, [0; 3]);
        for round in 0..5 {
            let pieces = tempfile::tempdir().unwrap();
            let mut resume = false;
            let mut stops = 0;
            while !finished(tiny(&cpu, pieces.path(), resume, Some(1 + random.below(4)))) {
                resume = true;
                stops += 1;
            }
            assert!(stops > 0);
            assert_eq!(outcome(pieces.path()), expected, "{isa:?}: round {round}, {stops} stops");
        }
    }
}

#[test]
fn a_run_is_not_overwritten_and_not_mixed_up() {
    let cpu = Cpu::new(Isa::Portable, 1);
    let directory = tempfile::tempdir().unwrap();
    assert!(!finished(tiny(&cpu, directory.path(), false, Some(1))));
    let error = tiny(&cpu, directory.path(), false, None).err().unwrap().to_string();
    assert!(error.contains("--resume"), "{error}");
    std::fs::write(directory.path().join("recipe.toml"), "version = 1").unwrap();
    let error = tiny(&cpu, directory.path(), true, None).err().unwrap().to_string();
    assert!(error.contains("is not the one"), "{error}");
}
