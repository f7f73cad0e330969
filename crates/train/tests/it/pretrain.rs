//! Runs that learn from text: what they come to, the same whatever interrupts them, and only ever from the same files.

use std::fmt::Write;
use std::path::Path;

use minke_kernels::{Cpu, Isa};
use minke_model::{Checkpoint, Parameters, Predictor, Source, Transformer};
use minke_train::format::Format;
use minke_train::generate::Generator;
use minke_train::progress::StageKind;
use minke_train::run::{Ending, replay};
use minke_train::{Recipe, metrics, rollouts};

use crate::carry_out::{carry_out, options};

const TINY: &str = include_str!("../../../../recipes/tiny.toml");

/// The smallest recipe, with a stage before its own.
fn recipe(stage: &str) -> String {
    TINY.replacen("[[stage]]", &format!("[[stage]]\nkind = \"pretrain\"\n{stage}\n\n[[stage]]"), 1)
}

/// The smallest recipe, for a model that exists.
fn published(stage: &str) -> String {
    let recipe = recipe(stage);
    let (before, after) = recipe.split_once("[model.scratch]").unwrap();
    format!("{before}reference = \"llama-chat\"\n{}", &after[after.find("[task]").unwrap()..])
}

/// Carries a recipe out whole, and in pieces of so many steps; the report of the first, and where it was kept.
fn whole_and_in_pieces(recipe: &str, steps: u32) -> (serde_json::Value, tempfile::TempDir) {
    let cpu = Cpu::new(Isa::choose(None).unwrap(), 2);
    let (whole, pieces) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert!(matches!(carry_out(&cpu, recipe, whole.path(), false, None).unwrap(), Ending::Finished(_)));
    let mut resume = false;
    while let Ending::Stopped(_) = carry_out(&cpu, recipe, pieces.path(), resume, Some(steps)).unwrap() {
        resume = true;
    }
    assert!(resume, "it was never stopped");
    let bytes = |directory: &Path| std::fs::read(directory.join("model/model.safetensors")).unwrap();
    assert_eq!(bytes(whole.path()), bytes(pieces.path()));
    let report = |directory: &Path| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(directory.join("report.json")).unwrap()).unwrap()
    };
    let (one, other) = (report(whole.path()), report(pieces.path()));
    assert_eq!(one["stages"][0]["held_out"], other["stages"][0]["held_out"]);
    (one, whole)
}

#[test]
fn text_is_learnt_whatever_interrupts_it() {
    let files = tempfile::tempdir().unwrap();
    let path = |name: &str| files.path().join(name);
    let (mut lines, mut json) = (String::new(), String::new());
    for i in 0..400 {
        let (a, b) = (i % 10, i / 10 % 10);
        writeln!(lines, "{a}+{b}=<think>{a}+{b}={0}</think>{0}", a + b).unwrap();
        writeln!(json, "{{\"text\":\"{a}+{b}+{i}={}\"}}", a + b + i).unwrap();
    }
    std::fs::write(path("a.txt"), &lines).unwrap();
    std::fs::write(path("b.jsonl"), &json).unwrap();
    let recipe = recipe(&format!(
        "text = [{:?}, {:?}]\nseparator = \"\\n\"\nlength = 24\nbatch = 8\nsteps = 60\nlr = 1e-2",
        path("a.txt"),
        path("b.jsonl")
    ));
    let (report, run) = whole_and_in_pieces(&recipe, 23);
    let steps = metrics::read(&run.path().join("metrics.jsonl")).unwrap();
    assert!(steps[..60].iter().all(|step| step.kind == StageKind::Pretrain && step.loss.is_finite()));
    // 19 tokens, each as likely as any other, at first.
    assert!((steps[0].loss - 19_f64.ln()).abs() < 0.1, "{}", steps[0].loss);
    // 192 are learnt in a step, and the first of each document is read besides.
    assert!(steps[..60].iter().all(|step| (193..250).contains(&step.tokens)), "{:?}", steps[0].tokens);
    let held_out = &report["stages"][0]["held_out"];
    let (loss, perplexity) = (held_out["loss"].as_f64().unwrap(), held_out["perplexity"].as_f64().unwrap());
    assert!(loss < 1.9 && (perplexity - loss.exp()).abs() < 1e-9, "{held_out}");
    assert_eq!(held_out["tokens"], 24 * 8, "as many sequences as there are held-out problems");
    assert!(report["stages"][1].get("held_out").is_none());
    let text = std::fs::read_to_string(run.path().join("report.md")).unwrap();
    assert!(text.contains(&format!("After stage 1, text that it held out has a loss of {loss:.4} nats a token")));
    assert!(std::fs::read_to_string(run.path().join("curves.svg")).unwrap().contains("loss on text"));

    // A step of the last stage is replayed through the text.
    std::fs::remove_dir_all(run.path().join("checkpoints")).unwrap();
    let cpu = Cpu::new(Isa::choose(None).unwrap(), 2);
    let kept = tempfile::tempdir().unwrap();
    assert!(matches!(carry_out(&cpu, &recipe, kept.path(), false, None).unwrap(), Ending::Finished(_)));
    let again = replay(&cpu, "tiny", &recipe, &options(kept.path(), true), 68, |_| {}).unwrap();
    let tokens = |rollouts: &[rollouts::Rollout]| rollouts.iter().map(|r| r.tokens.clone()).collect::<Vec<_>>();
    assert_eq!(tokens(&again), tokens(&rollouts::read(run.path(), 68).unwrap()));

    // Another text is not gone on with.
    let stopped = tempfile::tempdir().unwrap();
    assert!(matches!(carry_out(&cpu, &recipe, stopped.path(), false, Some(5)).unwrap(), Ending::Stopped(5)));
    std::fs::write(path("a.txt"), lines.replacen("0+0", "0+1", 1)).unwrap();
    for text in [lines.replacen("0+0", "0+1", 1), format!("{lines}1\n")] {
        std::fs::write(path("a.txt"), text).unwrap();
        let error = carry_out(&cpu, &recipe, stopped.path(), true, None).err().unwrap().to_string();
        assert!(error.ends_with(
            "a.txt is not the text that the run began with; put that one back, or start anew elsewhere (--out)"
        ));
    }
    std::fs::remove_file(path("a.txt")).unwrap();
    let error = carry_out(&cpu, &recipe, stopped.path(), true, None).err().unwrap().to_string();
    assert!(error.starts_with("could not read ") && error.contains("a.txt: No such file"), "{error}");
    std::fs::write(path("a.txt"), &lines).unwrap();
    assert!(matches!(carry_out(&cpu, &recipe, stopped.path(), true, Some(1)).unwrap(), Ending::Stopped(6)));
}

#[test]
fn a_tasks_demonstrations_are_learnt_as_text() {
    let demonstrations = "examples = 300\nlevel = [2, 3]\nmixture = { direct = 0.5, think = 0.5 }";
    let recipe = recipe(&format!("{demonstrations}\nlength = 32\nbatch = 4\nsteps = 8\nlr = 1e-2"));
    let (report, run) = whole_and_in_pieces(&recipe, 5);
    assert!(report["stages"][0]["held_out"]["tokens"].as_u64().unwrap() > 32);
    let steps = metrics::read(&run.path().join("metrics.jsonl")).unwrap();
    assert!(steps[7].loss < steps[0].loss - 0.3, "{} {}", steps[0].loss, steps[7].loss);
    // A weight of nothing is none.
    let (zero, cpu) = (tempfile::tempdir().unwrap(), Cpu::new(Isa::choose(None).unwrap(), 1));
    let recipe = recipe.replacen("length = 32", "length = 32\nmtp = 0", 1);
    assert!(matches!(carry_out(&cpu, &recipe, zero.path(), false, None).unwrap(), Ending::Finished(_)));
    let model = |directory: &Path| std::fs::read(directory.join("model/model.safetensors")).unwrap();
    assert_eq!(model(zero.path()), model(run.path()));
}

#[test]
fn a_published_model_learns_from_any_text() {
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("a.txt");
    let text: String = (0..300).map(|i| format!("Ada écrit {i} fois:\n{}.\n\n", i * i)).collect();
    std::fs::write(&path, text).unwrap();
    let recipe = published(&format!("text = [{path:?}]\nlength = 100\nbatch = 2\nsteps = 30\nlr = 1e-2"));
    let (report, run) = whole_and_in_pieces(&recipe, 17);
    let steps = metrics::read(&run.path().join("metrics.jsonl")).unwrap();
    assert!(steps[29].loss < steps[0].loss - 1.0, "{} {}", steps[0].loss, steps[29].loss);
    assert!(report["stages"][0]["held_out"]["loss"].as_f64().unwrap() < steps[0].loss - 1.0);
    let long = recipe.replacen("length = 100", "length = 257", 1);
    let cpu = Cpu::new(Isa::choose(None).unwrap(), 2);
    let error = carry_out(&cpu, &long, &files.path().join("run"), false, None).err().unwrap().to_string();
    assert_eq!(error, "stage 1: length is 257, more than the 256 positions that the model can read; give less");
    assert!(!files.path().join("run").exists());
}

/// The block for multi-token prediction learns where it is asked to, stays as it is elsewhere, and is written with the model.
#[test]
fn a_block_that_looks_ahead_is_trained() {
    let demonstrations = "examples = 300\nlevel = [2, 3]\nmixture = { think = 1 }\nmtp = 0.3";
    let recipe = recipe(&format!("{demonstrations}\nlength = 32\nbatch = 8\nsteps = 60\nlr = 1e-2"));
    // An odd number of steps: what balances experts moves by as much each time, and after six was back where it had been.
    let sft = "kind = \"sft\"\nmtp = 0.1\nsteps = 7";
    let recipe = recipe.replacen("kind = \"sft\"\nsteps = 6", sft, 1).replacen(
        "num_hidden_layers = 2",
        "num_hidden_layers = 2\nnum_nextn_predict_layers = 1",
        1,
    );
    let (_, run) = whole_and_in_pieces(&recipe, 29);
    let steps = metrics::read(&run.path().join("metrics.jsonl")).unwrap();
    let losses: Vec<f64> = steps.iter().filter_map(|step| step.mtp_loss).collect();
    assert!(losses.len() == 67 && steps[67..].iter().all(|step| step.mtp_loss.is_none()));
    assert!((losses[0] - 19_f64.ln()).abs() < 0.1 && losses[59] < losses[0] - 0.5, "{losses:?}");

    let cpu = Cpu::new(Isa::choose(None).unwrap(), 2);
    let [first, second, last] =
        [1, 2, 3].map(|stage| Checkpoint::open(&run.path().join(format!("stages/{stage}"))).unwrap());
    assert!(last.predicts() && last.config().predictions == 1);
    let parameters = Parameters::learnt(last.config());
    let block = Parameters::of(last.config()).len();
    for parameter in &parameters {
        let of = |model: &Checkpoint| model.tensor(&parameter.name, &parameter.shape).unwrap();
        assert!(parameter.offset < block || of(&second) == of(&last), "{} moves", parameter.name);
        assert!(of(&first) != of(&second), "{} does not move", parameter.name);
    }
    // What it guesses is checked, and so changes nothing.
    let precision = minke_model::Precision::Stored;
    let model = Transformer::new(&cpu, last.config(), precision, Source::Checkpoint(&last)).unwrap();
    let predictor = Predictor::new(&cpu, last.config(), precision, Source::Checkpoint(&last)).unwrap();
    let task = Recipe::parse("tiny", &recipe).unwrap().task.build();
    let format = Format::new(last.tokenizer().unwrap(), None, None).unwrap();
    let items = minke_train::tasks::held_out_items(&*task, 2, 8);
    let alone = Generator::new(&*task, &format).greedy(&cpu, &model, &items, 24).unwrap();
    let mut guessing = Generator::new(&*task, &format);
    guessing.guess(None, Some(&predictor));
    assert_eq!(guessing.greedy(&cpu, &model, &items, 24).unwrap(), alone);
}

/// Timing a stage, to fit a budget, learns nothing that the run keeps.
#[test]
fn a_budget_shortens_it() {
    let demonstrations = "examples = 300\nlevel = 2\nmixture = { think = 1 }";
    let recipe = recipe(&format!("{demonstrations}\nlength = 32\nbatch = 4\nsteps = 1_000_000\nlr = 1e-2"));
    let cpu = Cpu::new(Isa::choose(None).unwrap(), 2);
    let directory = tempfile::tempdir().unwrap();
    let budgeted = recipe.replacen("[eval]", "[budget]\ntime = \"1s\"\n\n[eval]", 1);
    assert!(matches!(carry_out(&cpu, &budgeted, directory.path(), false, None).unwrap(), Ending::Finished(_)));
    let steps = metrics::read(&directory.path().join("metrics.jsonl")).unwrap();
    assert!(steps.len() < 100_000 && steps[0].kind == StageKind::Pretrain);
}
