//! A run ends with the same bits however it was interrupted, and on any number of threads.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use minke_kernels::random::Random;
use minke_kernels::{Cpu, Isa};
use minke_train::run::{Ending, Options, replay, run};
use minke_train::{Result, checkpoint, distil, metrics, rollouts};

use crate::carry_out::{carry_out, finished, options, outcome, report};

const RECIPE: &str = include_str!("../../../../recipes/tiny.toml");

/// The same with moments in bf16, AdamW's and Muon's.
fn in_bf16() -> String {
    let recipe = RECIPE.replacen("dtype = \"f32\"", "dtype = \"f32\"\nmoments = \"bf16\"", 1);
    let recipe = recipe.replacen("lr = 3e-3", "optimizer = \"muon\"\nlr = 3e-3", 1);
    assert!(recipe.contains("moments = \"bf16\"") && recipe.contains("muon"));
    recipe
}

/// Runs the smallest recipe in `directory`, stopping after as many steps as `stop_after` says.
fn tiny(cpu: &Cpu, directory: &Path, resume: bool, stop_after: Option<u32>) -> Result<Ending> {
    carry_out(cpu, RECIPE, directory, resume, stop_after)
}

#[test]
fn interrupted_runs_end_with_the_same_bits() {
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        let cpu = Cpu::new(isa, 2);
        for (recipe, kept, rounds) in [(RECIPE, "m.f32", 5), (&in_bf16(), "m.bf16", 3)] {
            let whole = tempfile::tempdir().unwrap();
            assert!(finished(carry_out(&cpu, recipe, whole.path(), false, None)));
            let expected = outcome(whole.path());
            assert!(checkpoint::latest(whole.path()).unwrap().unwrap().join(kept).exists());

            let again = tempfile::tempdir().unwrap();
            assert!(finished(carry_out(&Cpu::new(isa, 1), recipe, again.path(), false, None)));
            assert_eq!(outcome(again.path()), expected, "{isa:?}, {kept}: one thread");

            let mut random = Random::new(7, [0; 3]);
            for round in 0..rounds {
                let pieces = tempfile::tempdir().unwrap();
                let mut resume = false;
                let mut stops = 0;
                while !finished(carry_out(&cpu, recipe, pieces.path(), resume, Some(1 + random.below(4)))) {
                    resume = true;
                    stops += 1;
                }
                assert!(stops > 0);
                assert_eq!(outcome(pieces.path()), expected, "{isa:?}, {kept}: round {round}, {stops} stops");
            }
        }
    }
}

/// A run does not go on with moments of another type unless it is told to; then it does, with those it has.
#[test]
fn moments_of_another_type_are_accepted_or_refused() {
    let cpu = Cpu::new(Isa::choose(None).unwrap(), 2);
    let (narrow, wide) = (in_bf16(), in_bf16().replacen("moments = \"bf16\"", "moments = \"f32\"", 1));
    for (then, now, told) in [
        (&narrow, &wide, "f32, moments in bf16, and this is f32:"),
        (&wide, &narrow, "f32, and this is f32, moments in bf16:"),
    ] {
        let run_directory = tempfile::tempdir().unwrap();
        let directory = run_directory.path();
        assert!(!finished(carry_out(&cpu, then, directory, false, Some(3))));
        std::fs::write(directory.join("recipe.toml"), now).unwrap();
        let error = carry_out(&cpu, now, directory, true, None).err().unwrap().to_string();
        assert!(error.starts_with(&format!("the run was made with dtype {told} it would go on, but not")), "{error}");
        let options = Options { accept: true, ..options(directory, true) };
        assert!(finished(run(&cpu, "tiny", now, &options, &AtomicBool::new(false), &mut |_| ())));
    }
}

/// A run that is held to the model its stage began with goes on with that very model, from whatever checkpoint is left.
#[test]
fn a_reference_survives_interruption() {
    let held = "loss = \"cispo\"\nimportance = \"sequence\"\nkl = 0.5\nmask_truncated = true\nupdates = 2";
    let recipe = RECIPE.replacen("loss = \"dr_grpo\"", held, 1);
    let recipe = recipe.replacen("steps = 4", "steps = 8", 1).replacen("lr = 1e-3", "lr = 1e-2", 1);
    assert!(recipe.contains("kl = 0.5") && recipe.contains("steps = 8") && recipe.contains("lr = 1e-2"));
    let cpu = Cpu::new(Isa::choose(None).unwrap(), 2);
    let whole = tempfile::tempdir().unwrap();
    assert!(finished(carry_out(&cpu, &recipe, whole.path(), false, None)));
    let expected = outcome(whole.path());
    let steps = metrics::read(&whole.path().join("metrics.jsonl")).unwrap();
    let kl: Vec<f64> = steps.iter().filter_map(|step| step.rollouts.as_ref()?.kl).collect();
    assert_eq!(kl.len(), 8);
    // At first the reference is the model itself, to the bit; from then on it stays behind.
    assert_eq!(kl[0], 0.0);
    assert!(kl[1..].iter().any(|kl| *kl > 0.0), "{kl:?}");

    let free = tempfile::tempdir().unwrap();
    let recipe_without = recipe.replacen("kl = 0.5\n", "", 1);
    assert!(finished(carry_out(&cpu, &recipe_without, free.path(), false, None)));
    assert_ne!(outcome(free.path()).first(), expected.first(), "the penalty moves nothing");

    let mut random = Random::new(8, [0; 3]);
    for round in 0..4 {
        let pieces = tempfile::tempdir().unwrap();
        let (mut resume, mut lost) = (false, 0);
        while !finished(carry_out(&cpu, &recipe, pieces.path(), resume, Some(2 + random.below(4)))) {
            resume = true;
            // As if it had been killed before its last checkpoint was there.
            let checkpoints = checkpoint::list(pieces.path()).unwrap();
            if let [.., _, (_, newest)] = &checkpoints[..]
                && lost < 3
            {
                std::fs::remove_dir_all(newest).unwrap();
                lost += 1;
            }
        }
        assert!(lost > 0);
        assert_eq!(outcome(pieces.path()), expected, "round {round}, {lost} checkpoints lost");
    }

    // Another reference is not gone on with.
    let spoilt = tempfile::tempdir().unwrap();
    assert!(!finished(carry_out(&cpu, &recipe, spoilt.path(), false, Some(9))));
    let file = spoilt.path().join("reference/2.f32");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let error = carry_out(&cpu, &recipe, spoilt.path(), true, None).err().unwrap().to_string();
    assert!(error.contains("2.f32 is damaged: its checksum is another; put back"), "{error}");
}

/// A published model, which reads and writes by its own chat template, is trained as exactly; and groups that teach nothing
/// are replaced.
#[test]
fn a_published_model_ends_with_the_same_bits() {
    let (before, after) = RECIPE.split_once("[model.scratch]").unwrap();
    let after = &after[after.find("[task]").unwrap()..];
    let recipe = format!("{before}reference = \"llama-chat\"\n{after}").replacen("steps = 6", "steps = 40", 1);
    let recipe = recipe.replacen("samples = 4", "samples = 4\nrefills = 2", 1);
    let cpu = Cpu::new(Isa::choose(None).unwrap(), 2);
    let whole = tempfile::tempdir().unwrap();
    assert!(finished(carry_out(&cpu, &recipe, whole.path(), false, None)));
    let expected = outcome(whole.path());

    let step = rollouts::read(whole.path(), 41).unwrap();
    let speaks: Vec<bool> = step.chunks(4).map(|group| group.iter().any(|r| r.reward != group[0].reward)).collect();
    let mut groups = 4;
    for _ in 0..2 {
        groups += 4_usize.saturating_sub(speaks[..groups].iter().filter(|speaks| **speaks).count());
    }
    assert!(speaks.len() == groups && groups > 4, "{speaks:?}");
    for rollout in &step {
        let sum = rollout.item.prompt.trim_end_matches('=');
        // <|im_start|>, a byte each, and <|im_end|>.
        assert_eq!((rollout.prompt_tokens[0], rollout.prompt_tokens.iter().filter(|id| **id == 2).count()), (1, 1));
        assert!(rollout.prompt_tokens.len() > "user What is ".len() + sum.len());
    }
    let losses: Vec<f64> = metrics::read(&whole.path().join("metrics.jsonl")).unwrap().iter().map(|m| m.loss).collect();
    assert!(losses[39] < losses[0] - 0.3, "the demonstrations are learnt: {losses:?}");

    // Stopped before its first step, while the published model is measured, and then again and again.
    let pieces = tempfile::tempdir().unwrap();
    assert!(!finished(carry_out(&cpu, &recipe, pieces.path(), false, Some(0))));
    assert!(checkpoint::list(pieces.path()).unwrap().is_empty());
    let mut stops = 0;
    while !finished(carry_out(&cpu, &recipe, pieces.path(), true, Some(13))) {
        stops += 1;
    }
    assert!(stops > 0);
    assert_eq!(outcome(pieces.path()), expected);
    let [whole_report, report] = [&whole, &pieces].map(|run| report(run.path()));
    let base = report.base.as_ref().unwrap();
    assert_eq!(base.think.items, 8);
    assert_eq!(Some(base), whole_report.base.as_ref(), "it is measured once, before anything is learnt");
    assert!(report.markdown().contains("| base model | 2 |"), "{}", report.markdown());

    let trained = minke_model::Checkpoint::open(&whole.path().join("model")).unwrap();
    assert!(trained.chat_template().unwrap().is_some() && trained.tokenizer().unwrap().eos == [2]);
}

/// What a model wrote and got right is what it learns from next, whatever interrupts it.
#[test]
fn a_teachers_traces_survive_interruption() {
    let distil = "[[stage]]\nkind = \"distil\"\nsteps = 6\nbatch = 4\nteacher = \"self\"\nproblems = 70\nlevel = 2\n\
                  max_new_tokens = 8\nlr = 1e-3\n\n[[stage]]\nkind = \"grpo\"";
    let recipe = RECIPE.replacen("[[stage]]\nkind = \"grpo\"", distil, 1).replacen("steps = 6", "steps = 120", 1);
    let recipe = recipe.replacen(
        "level = [2, 3]\nmixture = { direct = 0.4, think = 0.45, backtrack = 0.15 }",
        "level = 2\nmixture = { direct = 1 }",
        1,
    );
    let recipe =
        recipe.replacen("batch = 8", "batch = 32", 1).replacen("lr = 3e-3", "optimizer = \"muon\"\nlr = 1e-2", 1);
    assert!(["steps = 120", "direct = 1 }", "batch = 32", "muon", "distil"].iter().all(|part| recipe.contains(part)));
    let cpu = Cpu::new(Isa::choose(None).unwrap(), 2);
    let whole = tempfile::tempdir().unwrap();
    assert!(finished(carry_out(&cpu, &recipe, whole.path(), false, None)));
    let (expected, kept) = (outcome(whole.path()), std::fs::read(whole.path().join("traces/2.jsonl.gz")).unwrap());
    let traces = distil::read(whole.path(), 2).unwrap();
    assert!(!traces.is_empty() && traces.len() <= 70 && traces.iter().all(|trace| trace.reward == 1.0));
    let mut problems: Vec<u32> = traces.iter().map(|trace| trace.prompt).collect();
    problems.dedup();
    assert_eq!(problems.len(), traces.len(), "one completion a problem");

    let (pieces, mut resume) = (tempfile::tempdir().unwrap(), false);
    // Stopped before and after the teacher was at work.
    for stop_after in [119, 1, 2, 3, 100] {
        let done = finished(carry_out(&cpu, &recipe, pieces.path(), resume, Some(stop_after)));
        assert_eq!(done, stop_after == 100);
        resume = true;
    }
    assert_eq!(outcome(pieces.path()), expected);
    assert_eq!(std::fs::read(pieces.path().join("traces/2.jsonl.gz")).unwrap(), kept);
}

/// A model that has learnt to answer sums of two numbers at once; and a recipe without a grpo stage that learns from it.
fn apprentice(teacher: &Path, kl: &str) -> String {
    let first = RECIPE.find("[[stage]]").unwrap();
    let eval = RECIPE.find("[eval]").unwrap();
    let stage = format!(
        "[[stage]]\nkind = \"distil\"\nsteps = 12\nbatch = 8\nteacher = {teacher:?}\nkl = {kl}\nproblems = 70\nlevel = 2\n\
         max_new_tokens = 8\nlr = 1e-2\n\n"
    );
    format!("{}{stage}{}", &RECIPE[..first], &RECIPE[eval..])
}

/// A teacher's distributions are learnt from, whatever interrupts it; and only where they are over the same tokens.
#[test]
fn a_teachers_distributions_are_learnt() {
    let cpu = Cpu::new(Isa::choose(None).unwrap(), 2);
    let school = tempfile::tempdir().unwrap();
    let direct = "level = 2\nmixture = { direct = 1 }";
    let recipe =
        RECIPE.replacen("level = [2, 3]\nmixture = { direct = 0.4, think = 0.45, backtrack = 0.15 }", direct, 1);
    let recipe =
        recipe.replacen("steps = 6\nbatch = 8", "steps = 120\nbatch = 32", 1).replacen("lr = 3e-3", "lr = 1e-2", 1);
    let recipe =
        format!("{}{}", &recipe[..recipe.rfind("[[stage]]").unwrap()], &recipe[recipe.find("[eval]").unwrap()..]);
    assert!(recipe.contains(direct) && recipe.contains("steps = 120\nbatch = 32") && !recipe.contains("grpo"));
    assert!(finished(carry_out(&cpu, &recipe, school.path(), false, None)));
    let teacher = school.path().join("model");

    let losses = |directory: &Path| -> Vec<f64> {
        metrics::read(&directory.join("metrics.jsonl")).unwrap().iter().map(|step| step.loss).collect()
    };
    let weights = |directory: &Path| std::fs::read(directory.join("model/model.safetensors")).unwrap();
    let [hard, mixed, soft] = ["0", "0.5", "1"].map(|kl| {
        let run = tempfile::tempdir().unwrap();
        assert!(finished(carry_out(&cpu, &apprentice(&teacher, kl), run.path(), false, None)));
        run
    });
    let [h, m, s] = [&hard, &mixed, &soft].map(|run| losses(run.path()));
    // At first all are the same model.
    assert!((m[0] - 0.5 * (h[0] + s[0])).abs() < 1e-6, "{} of {} and {}", m[0], h[0], s[0]);
    assert!(s[0] > 0.0 && s[11] < 0.7 * s[0], "{s:?}");
    assert_ne!(weights(hard.path()), weights(soft.path()));

    let (pieces, mut resume) = (tempfile::tempdir().unwrap(), false);
    while !finished(carry_out(&cpu, &apprentice(&teacher, "0.5"), pieces.path(), resume, Some(5))) {
        resume = true;
    }
    assert!(resume && weights(pieces.path()) == weights(mixed.path()) && losses(pieces.path()) == m);

    // From itself, as it was: at first there is nothing to learn but its own choices.
    let itself = recipe.replacen(
        "[eval]",
        "[[stage]]\nkind = \"distil\"\nsteps = 6\nbatch = 4\nteacher = \"self\"\nkl = 1\n\
        problems = 70\nlevel = 2\nmax_new_tokens = 8\nlr = 1e-2\n\n[eval]",
        1,
    );
    let whole = tempfile::tempdir().unwrap();
    assert!(finished(carry_out(&cpu, &itself, whole.path(), false, None)));
    assert!(losses(whole.path())[120].abs() < 1e-6 && whole.path().join("reference/2.f32").exists());
    let (pieces, mut resume) = (tempfile::tempdir().unwrap(), false);
    while !finished(carry_out(&cpu, &itself, pieces.path(), resume, Some(41))) {
        resume = true;
    }
    assert_eq!(losses(pieces.path()), losses(whole.path()));

    let error =
        carry_out(&cpu, &apprentice(Path::new("llama-chat"), "0.5"), pieces.path().join("no").as_path(), false, None);
    let error = error.err().unwrap().to_string();
    assert!(
        error.starts_with("the teacher llama-chat has another vocabulary than the model (")
            && error.ends_with("leave kl out"),
        "{error}"
    );
}

/// Which levels a curriculum draws follows from what has happened, whatever interrupts it; and any step can be replayed.
#[test]
fn a_curriculum_survives_interruption() {
    let curriculum = "level = [2, 3, 4]\ncurriculum = true\npromote_at = 0.02\nrefills = 1\nloss";
    let recipe = RECIPE.replacen("level = 2\nloss", curriculum, 1).replacen("steps = 4", "steps = 10", 1);
    assert!(recipe.contains(curriculum) && recipe.contains("steps = 10"));
    let cpu = Cpu::new(Isa::choose(None).unwrap(), 2);
    let whole = tempfile::tempdir().unwrap();
    assert!(finished(carry_out(&cpu, &recipe, whole.path(), false, None)));
    let expected = outcome(whole.path());
    let steps = metrics::read(&whole.path().join("metrics.jsonl")).unwrap();
    for (number, step) in steps.iter().enumerate().skip(6) {
        let rollouts = rollouts::read(whole.path(), number as u64 + 1).unwrap();
        let metrics = step.rollouts.as_ref().unwrap();
        assert_eq!(metrics.levels.len(), (number - 5).min(3), "another level opens after each of the first steps");
        for level in &metrics.levels {
            let drawn = rollouts.chunks(4).filter(|group| group[0].item.level == level.level).count();
            assert_eq!(drawn, level.problems as usize);
        }
        assert!(metrics.levels.iter().map(|level| level.problems as usize * 4).sum::<usize>() == rollouts.len());
    }

    let mut random = Random::new(9, [0; 3]);
    for round in 0..3 {
        let (pieces, mut resume) = (tempfile::tempdir().unwrap(), false);
        while !finished(carry_out(&cpu, &recipe, pieces.path(), resume, Some(1 + random.below(4)))) {
            resume = true;
        }
        assert_eq!(outcome(pieces.path()), expected, "round {round}");
    }

    // From the checkpoint before it, from one still before, as that is damaged, or from the beginning.
    for (number, what) in [(13, "whole"), (16, "damaged"), (15, "removed")] {
        let all = checkpoint::list(whole.path()).unwrap();
        let mut before = all.iter().rev().skip_while(|(at, _)| *at >= number);
        match what {
            "damaged" => {
                let (_, newest) = before.next().unwrap();
                std::fs::write(newest.join("values.f32"), "cut short").unwrap();
                assert!(before.next().is_some(), "there is none before it");
            }
            "removed" => before.for_each(|(_, checkpoint)| std::fs::remove_dir_all(checkpoint).unwrap()),
            _ => {}
        }
        let made = replay(&cpu, "tiny", &recipe, &options(whole.path(), true), number, |_| ()).unwrap();
        let kept = rollouts::read(whole.path(), number).unwrap();
        assert!(made == kept, "step {number}, the checkpoint before it {what}");
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

/// What a task's program says is kept: a run goes on, or again, as if it had been told the same, whatever it would say now.
#[test]
fn a_program_that_never_says_the_same_is_not_asked_twice() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tasks/external/misbehaving.py");
    let command = format!("command = [\"python3\", {script:?}, \"whims\"]");
    let recipe = RECIPE.replacen("name = \"chain_sum\"\ndigits = 1", &command, 1);
    assert_ne!(recipe, RECIPE);
    let cpu = Cpu::new(Isa::choose(None).unwrap(), 2);
    let pieces = tempfile::tempdir().unwrap();
    let mut resume = false;
    while !finished(carry_out(&cpu, &recipe, pieces.path(), resume, Some(3))) {
        resume = true;
    }
    let (again, anew) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::copy(pieces.path().join("task.jsonl"), again.path().join("task.jsonl")).unwrap();
    for directory in [&again, &anew] {
        assert!(finished(carry_out(&cpu, &recipe, directory.path(), false, None)));
    }
    assert_eq!(outcome(again.path()), outcome(pieces.path()));
    assert_ne!(outcome(anew.path()), outcome(pieces.path()), "a program without whims is no test");
}

/// What a budget left of a run is what it goes on with, and what is replayed; and what was spent before goes on being counted.
#[test]
fn what_a_budget_left_survives_interruption() {
    let recipe = RECIPE.replacen("prompts = 4\nsamples = 4", "prompts = 8\nsamples = 16", 1);
    let recipe = recipe.replacen("[eval]", "[budget]\ntime = \"1s\"\n\n[eval]", 1);
    assert!(recipe.contains("samples = 16") && recipe.contains("1s"));
    let cpu = Cpu::new(Isa::choose(None).unwrap(), 2);
    let run = tempfile::tempdir().unwrap();
    // Timing alone takes longer than that: what is left is a step of each, the smallest.
    assert!(!finished(carry_out(&cpu, &recipe, run.path(), false, Some(1))));
    let (_, path) = checkpoint::list(run.path()).unwrap().pop().unwrap();
    let before = checkpoint::load(&path).unwrap().state;
    assert!(finished(carry_out(&cpu, &recipe, run.path(), true, None)));
    let report = report(run.path());
    assert_eq!(report.budget, before.budget);
    let stages = report.budget.as_ref().unwrap().stages.clone();
    let size = stages[1].size.unwrap();
    assert_eq!((stages[0].steps, stages[1].steps, size.prompts, size.samples), (1, 1, 2, 4));
    assert_eq!(report.notes.len(), 1);
    let told =
        "resolved for 1 s: stage 1: 1 of 6 steps; stage 2: 1 of 4 steps, 2 of 8 prompts, 4 of 16 samples; about ";
    assert!(report.notes[0].starts_with(told), "{:?}", report.notes);
    let sampled = rollouts::read(run.path(), 2).unwrap();
    assert_eq!(sampled.len(), 8);
    assert_eq!(replay(&cpu, "tiny", &recipe, &options(run.path(), true), 2, |_| ()).unwrap(), sampled);

    let (then, now) = (before.training + before.measuring, report.spent);
    assert!(before.training.core_s > Some(0.0) && now.core_s > then.core_s, "{then:?} {now:?}");
    let learnt: u64 = report.stages.iter().map(|stage| stage.spent.learnt_tokens).sum();
    assert!(report.stages[0].spent.learnt_tokens == then.learnt_tokens && now.learnt_tokens == learnt && learnt > 0);
}
