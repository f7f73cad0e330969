//! A learning curve changes no bit of the training, and however a run is interrupted, each of its points is measured once.

use std::sync::atomic::{AtomicBool, Ordering};

use minke_kernels::random::Random;
use minke_kernels::{Cpu, Isa};
use minke_train::learning_curve::Point;
use minke_train::progress::Progress;
use minke_train::run::run;
use minke_train::{checkpoint, metrics};

use crate::carry_out::{carry_out, finished, options, outcome, report};

const RECIPE: &str = include_str!("../../../../recipes/tiny.toml");

/// The learning curve is measured beside the training, which it does not change; however a run is interrupted, and wherever,
/// each of its points is measured once.
#[test]
fn a_learning_curve_changes_nothing_and_survives_interruption() {
    let recipe = RECIPE.replacen("[eval]", "[eval]\nevery = 2\nevery_items = 5", 1);
    let cpu = Cpu::new(Isa::choose(None).unwrap(), 2);
    let (plain, whole) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert!(finished(carry_out(&cpu, RECIPE, plain.path(), false, None)));
    assert!(finished(carry_out(&cpu, &recipe, whole.path(), false, None)));
    assert_eq!(outcome(whole.path()), outcome(plain.path()), "the curve is no part of the training");
    assert!(report(plain.path()).curve.is_empty());

    let curve = report(whole.path()).curve;
    let places = |curve: &[Point]| curve.iter().map(|p| (p.stage, p.step, p.number)).collect::<Vec<_>>();
    assert_eq!(places(&curve), [(1, 2, 2), (1, 4, 4), (1, 6, 6), (2, 2, 8), (2, 4, 10)]);
    assert_eq!(curve.iter().map(|point| point.held_out.items).collect::<Vec<_>>(), [5, 5, 8, 5, 8]);
    let stages = report(whole.path()).stages;
    for (point, stage) in [(&curve[2], &stages[0]), (&curve[4], &stages[1])] {
        assert_eq!((point.held_out.level, point.held_out.accuracy), (2, stage.results.think.accuracy));
        assert_eq!(point.above.map(|above| above.level), Some(3));
    }
    // Time is that of training, without any measuring.
    let steps = metrics::read(&whole.path().join("metrics.jsonl")).unwrap();
    for point in &curve {
        let trained: f64 = steps[..point.number as usize].iter().map(|step| step.wall_s).sum();
        assert!((point.wall_s - trained).abs() < 1e-9, "{point:?} after {trained} s");
    }
    assert!(curve.is_sorted_by_key(|point| point.core_s));

    let accuracies = |curve: &[Point]| curve.iter().map(|p| (p.number, p.held_out, p.above)).collect::<Vec<_>>();
    let mut stopped_in_it = 0;
    let mut random = Random::new(11, [0; 3]);
    for round in 0..6 {
        let pieces = tempfile::tempdir().unwrap();
        let mut resume = false;
        loop {
            let (patience, stop) = (1 + random.below(12), AtomicBool::new(false));
            let mut told = 0;
            let ending = run(&cpu, "tiny", &recipe, &options(pieces.path(), resume), &stop, &mut |progress| {
                told += 1;
                stopped_in_it += u32::from(told == patience && matches!(progress, Progress::Measuring { of: 5, .. }));
                stop.store(told >= patience, Ordering::Relaxed);
            });
            resume = true;
            if finished(ending) {
                break;
            }
            // As if it had been killed long after its last checkpoint.
            let kept = checkpoint::list(pieces.path()).unwrap();
            if random.below(3) == 0 && kept.len() > 1 {
                std::fs::remove_dir_all(&kept[kept.len() - 1].1).unwrap();
            }
        }
        assert_eq!(outcome(pieces.path()), outcome(plain.path()), "round {round}");
        let again = report(pieces.path()).curve;
        assert_eq!(accuracies(&again), accuracies(&curve), "round {round}");
        let lines = std::fs::read_to_string(pieces.path().join("metrics.jsonl")).unwrap();
        assert_eq!(
            lines.lines().filter_map(|line| serde_json::from_str::<Point>(line).ok()).collect::<Vec<_>>(),
            again
        );
        assert_eq!(lines.lines().count(), 10 + again.len());
    }
    assert!(stopped_in_it > 0, "no run was stopped while it was measured");
    let text = std::fs::read_to_string(whole.path().join("report.md")).unwrap();
    assert!(text.contains("## Learning curve\n"), "{text}");

    // A published model's curve begins with the model as it was.
    let published = recipe.replacen(
        &RECIPE[RECIPE.find("[model]").unwrap()..RECIPE.find("[task]").unwrap()],
        "[model]\nreference = \"llama-chat\"\n",
        1,
    );
    let run = tempfile::tempdir().unwrap();
    assert!(!finished(carry_out(&cpu, &published, run.path(), false, Some(1))));
    assert!(finished(carry_out(&cpu, &published, run.path(), true, None)));
    let curve = report(run.path()).curve;
    assert_eq!((places(&curve)[0], curve.len()), ((1, 0, 0), 6));
    assert_eq!((curve[0].wall_s, curve[0].held_out.accuracy), (0.0, report(run.path()).base.unwrap().think.accuracy));
}
