//! Runs that train adapters on a quantised model: what they keep, what they end with, and that interruptions change no bit.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use minke_kernels::pool::Pool;
use minke_kernels::random::Random;
use minke_kernels::{Cpu, Dtype, Isa};
use minke_model::dequantize::DataType;
use minke_model::families::config_from_json;
use minke_model::quantize::{FileType, Model};
use minke_model::safetensors::SafeTensors;
use minke_model::{Checkpoint, Parameters, huggingface};
use minke_train::learner::initial_values;
use minke_train::progress::Progress;
use minke_train::run::{Choices, Ending, Options, replay, run};
use minke_train::{Result, checkpoint, metrics, rollouts};
use serde_json::{Value, json};

const RECIPE: &str = r#"
version = 1
[model]
reference = "base.gguf"
[lora]
rank = 4
targets = ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
[task]
name = "chain_sum"
digits = 1
[[stage]]
kind = "sft"
steps = 40
batch = 8
examples = 64
level = 2
mixture = { direct = 0.5, think = 0.5 }
lr = 1e-2
[[stage]]
kind = "grpo"
steps = 4
prompts = 2
samples = 4
max_new_tokens = 16
level = 2
kl = 0.1
lr = 1e-3
[eval]
level = 2
items = 4
samples = 2
max_new_tokens = 16
[control]
kind = "sft"
[checkpoint]
every = 4
"#;

/// Makes a Qwen2-shaped model of random weights, whose rows are whole super-blocks, as `base.gguf` of type Q4_K_M.
fn make_base(directory: &Path, seed: u64) {
    let chat = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/models/llama-chat");
    let template = std::fs::read_to_string(chat.join("chat_template.jinja")).unwrap();
    let config = json!({
        "model_type": "qwen2", "vocab_size": 300, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "tie_word_embeddings": true,
    });
    let config = config_from_json(&config).unwrap();
    let (parameters, values) = (Parameters::of(&config), initial_values(&config, seed, 0.05));
    let tensors = parameters.iter().map(|p| (p.name.clone(), p.shape.clone(), &values[p.range()]));
    let tokenizer = Checkpoint::open(&chat).unwrap().tokenizer().unwrap();
    let source = directory.join("source");
    huggingface::write(&source, &config, tensors, DataType::F32, &tokenizer, Some(&template)).unwrap();
    let opened = Checkpoint::open(&source).unwrap();
    let mut bytes = Vec::new();
    let model = Model::from_checkpoint(&opened).unwrap();
    model.write(&Pool::new(2), FileType::from_name("Q4_K_M").unwrap(), None, &mut bytes, |_| {}).unwrap();
    std::fs::write(directory.join("base.gguf"), bytes).unwrap();
}

struct Place<'a> {
    cpu: &'a Cpu,
    models: PathBuf,
    recipe: String,
    memory: Option<u64>,
    control: bool,
}

impl Place<'_> {
    fn options<'o>(
        &'o self,
        directory: &'o Path,
        resume: bool,
        find: &'o dyn Fn(&str) -> Result<PathBuf>,
    ) -> Options<'o> {
        Options {
            begin: (!resume).then(|| Choices { control: self.control, ..Choices::default() }),
            accept: false,
            directory,
            binary: "test".into(),
            memory: self.memory,
            find,
            chat: &|_, _| unreachable!("a teacher that is elsewhere"),
        }
    }

    fn carry_out(&self, directory: &Path, resume: bool, stop_after: Option<u32>) -> Result<bool> {
        let find = |reference: &str| Ok(self.models.join(reference));
        let stop = AtomicBool::new(false);
        let mut steps = 0;
        let options = self.options(directory, resume, &find);
        let ending = run(self.cpu, "lora", &self.recipe, &options, &stop, &mut |progress| {
            steps += u32::from(matches!(progress, Progress::Step { .. }));
            stop.store(stop_after.is_some_and(|after| steps >= after), Ordering::Relaxed);
        })?;
        Ok(matches!(ending, Ending::Finished(_)))
    }
}

fn outcome(directory: &Path) -> Vec<Vec<u8>> {
    let files = ["model/model.safetensors", "stages/1/adapter_model.safetensors", "stages/2/adapter_model.safetensors"];
    let rollouts = (41..=44).map(|step| rollouts::path(directory, step));
    let paths = files.iter().map(|file| directory.join(file)).chain(rollouts);
    paths.map(|path| std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).collect()
}

/// The moments of adapters are kept in bf16 as those of a model are.
#[test]
fn moments_in_bf16_survive_interruptions() {
    let cpu = Cpu::new(Isa::choose(None).unwrap(), 2);
    let models = tempfile::tempdir().unwrap();
    make_base(models.path(), 3);
    let recipe = RECIPE.replacen("[lora]", "moments = \"bf16\"\n[lora]", 1).replacen("steps = 40", "steps = 6", 1);
    let place = Place { cpu: &cpu, models: models.path().into(), recipe, memory: None, control: false };
    let [whole, pieces] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    assert!(place.carry_out(whole.path(), false, None).unwrap());
    let mut resume = false;
    while !place.carry_out(pieces.path(), resume, Some(3)).unwrap() {
        resume = true;
    }
    let adapters = |run: &Path| std::fs::read(run.join("stages/2/adapter_model.safetensors")).unwrap();
    assert!(resume && adapters(whole.path()) == adapters(pieces.path()));
    let [whole, pieces] = [whole, pieces].map(|run| {
        let saved = checkpoint::load(&checkpoint::latest(run.path()).unwrap().unwrap()).unwrap();
        (saved.values, saved.m, saved.v)
    });
    assert!(whole == pieces && whole.1.dtype() == Dtype::Bf16);
}

#[test]
fn adapters_learn_and_interruptions_change_no_bit() {
    let cpu = Cpu::new(Isa::choose(None).unwrap(), 2);
    let models = tempfile::tempdir().unwrap();
    make_base(models.path(), 3);
    let mut place =
        Place { cpu: &cpu, models: models.path().into(), recipe: RECIPE.into(), memory: None, control: true };
    let whole = tempfile::tempdir().unwrap();
    assert!(place.carry_out(whole.path(), false, None).unwrap());
    let expected = outcome(whole.path());
    let steps = metrics::read(&whole.path().join("metrics.jsonl")).unwrap();
    assert!(steps[39].loss < steps[0].loss - 1.0, "{} and then {}", steps[0].loss, steps[39].loss);
    let kl: Vec<f64> = steps.iter().filter_map(|step| step.rollouts.as_ref()?.kl).collect();
    assert!(kl.len() == 4 && kl[0] == 0.0, "the reference is the stage's beginning: {kl:?}");

    // A checkpoint holds adapters and their moments, and no model.
    let base = Checkpoint::open(&models.path().join("base.gguf")).unwrap();
    let adapters = SafeTensors::open(&whole.path().join("stages/2/adapter_model.safetensors")).unwrap();
    let learnt: usize = adapters.names().map(|name| adapters.get(name).unwrap().shape.iter().product::<usize>()).sum();
    let newest = checkpoint::load(&checkpoint::latest(whole.path()).unwrap().unwrap()).unwrap();
    assert_eq!([newest.values.len(), newest.m.len(), newest.v.len()], [learnt; 3]);
    assert!(learnt < 60_000 && base.describe().unwrap().parameters > 1_000_000);
    assert!(newest.state.domain.dtype.starts_with("adapters in f32 on stored weights "));

    // PEFT's files, and the model that they make of the base: W + alpha / rank B A.
    let config: Value =
        serde_json::from_slice(&std::fs::read(whole.path().join("stages/2/adapter_config.json")).unwrap()).unwrap();
    assert_eq!(
        (&config["r"], config["lora_alpha"].as_f64(), &config["peft_type"]),
        (&json!(4), Some(8.0), &json!("LORA"))
    );
    assert_eq!(config["target_modules"], json!(["down_proj", "o_proj", "q_proj", "up_proj", "v_proj"]));
    let model = Checkpoint::open(&whole.path().join("model")).unwrap();
    for parameter in &Parameters::of(base.config()) {
        let mut expected = base.tensor(&parameter.name, &parameter.shape).unwrap();
        let stem = parameter.name.strip_suffix(".weight").unwrap_or(&parameter.name);
        let read = |which: &str| {
            let stored = adapters.get(&format!("base_model.model.{stem}.{which}.weight"))?;
            Some(stored.dtype.ok()?.to_f32(stored.bytes))
        };
        if let (Some(a), Some(b)) = (read("lora_A"), read("lora_B")) {
            let inputs = parameter.shape[1];
            for (row, b) in expected.chunks_exact_mut(inputs).zip(b.chunks_exact(4)) {
                for (j, x) in row.iter_mut().enumerate() {
                    *x += 2.0 * (0..4).map(|r| b[r] * a[r * inputs + j]).sum::<f32>();
                }
            }
        }
        let merged = model.tensor(&parameter.name, &parameter.shape).unwrap();
        let worst = merged.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-5, "{} is {worst} off", parameter.name);
    }
    let control = SafeTensors::open(&whole.path().join("control/model/model.safetensors")).unwrap();
    assert!(control.names().count() > 0, "the control is a whole model too");

    // Stopped at any moment, on another number of threads: the same bits. A rollout can be had again.
    let single = Cpu::new(Isa::choose(None).unwrap(), 1);
    place.control = false;
    for (cpu, seed) in [(&cpu, 11), (&single, 12)] {
        let (pieces, mut resume) = (tempfile::tempdir().unwrap(), false);
        let mut random = Random::new(seed, [0; 3]);
        place.cpu = cpu;
        while !place.carry_out(pieces.path(), resume, Some(5 + random.below(9))).unwrap() {
            resume = true;
        }
        assert!(resume);
        assert!(outcome(pieces.path()) == expected, "{} threads: other bits", cpu.pool().threads());
        let find = |reference: &str| Ok(place.models.join(reference));
        let options = place.options(pieces.path(), true, &find);
        let again = replay(cpu, "lora", &place.recipe, &options, 44, |_| {}).unwrap();
        assert_eq!(again, rollouts::read(pieces.path(), 44).unwrap());
    }
}

#[test]
fn a_run_is_not_gone_on_with_on_another_model() {
    let cpu = Cpu::new(Isa::choose(None).unwrap(), 2);
    let models = tempfile::tempdir().unwrap();
    make_base(models.path(), 3);
    let mut place =
        Place { cpu: &cpu, models: models.path().into(), recipe: RECIPE.into(), memory: Some(1 << 20), control: false };
    let error = |place: &Place<'_>, directory: &Path, resume| {
        place.carry_out(directory, resume, Some(2)).err().unwrap().to_string()
    };
    let run = tempfile::tempdir().unwrap();
    assert!(error(&place, run.path(), false).starts_with("training adapters of "));
    place.memory = None;
    assert!(!place.carry_out(run.path(), false, Some(2)).unwrap());
    make_base(models.path(), 4);
    let sentence = error(&place, run.path(), true);
    assert!(sentence.contains("the run was made with dtype adapters in f32 on stored weights "), "{sentence}");
    place.recipe = RECIPE.replace("\"q_proj\"", "\"q_a_proj\"");
    let elsewhere = tempfile::tempdir().unwrap();
    assert!(
        error(&place, elsewhere.path(), false).starts_with("lora: \"q_a_proj\" can't have adapters in this model; ")
    );
}
