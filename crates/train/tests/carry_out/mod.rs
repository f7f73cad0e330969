//! Carries recipes out, and stops them on the way.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use minke_kernels::Cpu;
use minke_train::Result;
use minke_train::progress::Progress;
use minke_train::run::{Choices, Ending, Options, run};

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
