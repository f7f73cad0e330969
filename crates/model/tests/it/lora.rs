//! Adapters against the model that they are merged into: logits, gradients by the chain rule, and rows against each other, on
//! the golden models of every family and on a quantised one.

use std::path::Path;
use std::sync::Arc;

use minke_kernels::gemm::{Job, Mode, Operand, gemm};
use minke_kernels::kv::{KvPages, PAGE_POSITIONS};
use minke_kernels::log_prob::{LogProb, log_prob, log_prob_backward, log_prob_backward_frozen};
use minke_kernels::pool::Pool;
use minke_kernels::random::Random;
use minke_kernels::{Cpu, Dtype, Isa, View};
use minke_model::dequantize::DataType;
use minke_model::families::config_from_json;
use minke_model::gguf::Gguf;
use minke_model::lora::PROJECTIONS;
use minke_model::parameters::Initial;
use minke_model::quantize::{FileType, Model};
use minke_model::{Activations, Batch, Checkpoint, Lora, Parameters, Precision, Source, Transformer, huggingface};
use serde_json::json;

fn golden() -> impl Iterator<Item = (String, Checkpoint)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/models");
    let mut paths: Vec<_> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, Checkpoint::open(&path).unwrap())
    })
}

/// A Qwen2-shaped model whose rows are whole super-blocks, in a GGUF file of this type.
fn quantised(file_type: &str) -> Checkpoint {
    let config = json!({
        "model_type": "qwen2", "vocab_size": 300, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "tie_word_embeddings": true,
    });
    let config = config_from_json(&config).unwrap();
    let parameters = Parameters::of(&config);
    let mut values = normal(parameters.len(), 5, 0.08);
    for parameter in parameters.iter().filter(|parameter| parameter.initial == Initial::Ones) {
        values[parameter.range()].iter_mut().for_each(|x| *x += 1.0);
    }
    let tensors = parameters.iter().map(|p| (p.name.clone(), p.shape.clone(), &values[p.range()]));
    let chat = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/models/llama-chat");
    let tokenizer = Checkpoint::open(&chat).unwrap().tokenizer().unwrap();
    let directory = std::env::temp_dir().join(format!("minke-lora-{}-{file_type}", std::process::id()));
    huggingface::write(&directory, &config, tensors, DataType::F32, &tokenizer, None).unwrap();
    let mut bytes = Vec::new();
    let checkpoint = Checkpoint::open(&directory).unwrap();
    let model = Model::from_checkpoint(&checkpoint).unwrap();
    model.write(&Pool::new(2), FileType::from_name(file_type).unwrap(), None, &mut bytes, |_| {}).unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    Checkpoint::from_gguf(Gguf::new(bytes.into()).unwrap()).unwrap()
}

fn normal(len: usize, seed: u64, deviation: f32) -> Vec<f32> {
    let mut random = Random::new(seed, [0; 3]);
    (0..len).map(|_| deviation * random.normal()).collect()
}

fn tokens(config: &minke_model::Config, len: usize, seed: u64) -> Vec<u32> {
    let mut random = Random::new(seed, [1, 0, 0]);
    (0..len).map(|_| random.below(config.vocab_size as u32)).collect()
}

/// The model with what the adapters say added to its weights, as an arena.
fn merged(cpu: &Cpu, checkpoint: &Checkpoint, lora: &Lora, values: &[f32]) -> Vec<f32> {
    let mut all = Vec::new();
    for parameter in &Parameters::of(checkpoint.config()) {
        let mut tensor = checkpoint.tensor(&parameter.name, &parameter.shape).unwrap();
        lora.merge(cpu, values, &parameter.name, &parameter.shape, &mut tensor);
        all.append(&mut tensor);
    }
    all
}

/// Logits of all rows of a batch.
fn logits(cpu: &Cpu, model: &Transformer, batch: &Batch, kv: &mut KvPages) -> Vec<f32> {
    let (mut a, config) = (Activations::inference(), model.config());
    model.forward(cpu, batch, kv, &mut a);
    let hidden = a.hidden(config);
    let mut out = vec![0.0; hidden.rows() * config.vocab_size];
    model.logits(cpu, hidden, &mut out);
    out
}

fn solo(cpu: &Cpu, model: &Transformer, tokens: &[u32]) -> Vec<f32> {
    let mut batch = Batch::default();
    batch.push(tokens, 0, pages(0, tokens.len()));
    logits(cpu, model, &batch, &mut KvPages::new(model.kv_layout(), 64))
}

fn pages(from: usize, tokens: usize) -> Vec<u32> {
    (from..from + tokens.div_ceil(PAGE_POSITIONS)).map(|page| page as u32).collect()
}

/// The gradient of the mean log-probability of the tokens, in the arena that is learnt.
fn gradient(cpu: &Cpu, model: &Transformer, values: &[f32], tokens: &[u32], mut a: Activations) -> Vec<f32> {
    let (config, inputs, targets) = (model.config(), &tokens[..tokens.len() - 1], &tokens[1..]);
    let mut kv = KvPages::new(model.kv_layout(), 64);
    let mut batch = Batch::default();
    batch.push(inputs, 0, pages(0, inputs.len()));
    model.forward(cpu, &batch, &mut kv, &mut a);
    let hidden = a.hidden(config);
    let mut out = vec![LogProb::default(); inputs.len()];
    log_prob(cpu, model.head(), hidden, targets, 1.0, &mut out);
    let lse: Vec<f32> = out.iter().map(|row| row.lse).collect();
    let d = vec![1.0 / inputs.len() as f32; inputs.len()];
    let mut gradient = vec![0.0; values.len()];
    let mut d_hidden = vec![0.0; inputs.len() * config.hidden_size];
    if let Some(lora) = model.lora() {
        log_prob_backward_frozen(cpu, model.head(), lora.dtype(), hidden, targets, &lse, &d, 1.0, &mut d_hidden);
    } else {
        let at = model.head_range();
        let (rows, d_head) = (View::new(&values[at.clone()], config.vocab_size, config.hidden_size), &mut gradient[at]);
        log_prob_backward(cpu, model.head(), rows, hidden, targets, &lse, &d, 1.0, &mut d_hidden, d_head);
    }
    model.backward(cpu, values, &batch, &mut kv, &mut a, &d_hidden, 0.0, &mut gradient);
    gradient
}

/// What the chain rule makes of the gradient of the merged weights: dA = scale Bᵀ dW, dB = scale dW Aᵀ.
fn by_the_chain_rule(cpu: &Cpu, model: &Transformer, lora: &Lora, values: &[f32], dense: &[f32]) -> Vec<f32> {
    let mut all = vec![0.0; values.len()];
    let (adapters, rank) = (lora.parameters(), lora.rank());
    for a in adapters.iter().filter(|parameter| parameter.name.ends_with(".lora_A.weight")) {
        let stem = a.name.strip_suffix(".lora_A.weight").unwrap();
        let b = adapters.find(&format!("{stem}.lora_B.weight")).unwrap();
        let w = model.parameters().find(&format!("{stem}.weight")).unwrap();
        let (outputs, inputs) = (w.shape[0], w.shape[1]);
        let d_w = View::new(&dense[w.range()], outputs, inputs);
        let (a_rows, b_rows) =
            (View::new(&values[a.range()], rank, inputs), View::new(&values[b.range()], outputs, rank));
        let job = Job { a: b_rows.t(), b: Operand::View(d_w), row: 0, col: 0 };
        gemm(cpu, &mut all[a.range()], inputs, Mode::Set, &[job]);
        let job = Job { a: d_w, b: Operand::View(a_rows.t()), row: 0, col: 0 };
        gemm(cpu, &mut all[b.range()], rank, Mode::Set, &[job]);
    }
    all.iter_mut().for_each(|x| *x *= lora.scale());
    all
}

/// |a - b| / |b|
fn relative(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut a.iter().zip(b).map(|(&a, &b)| f64::from(a) - f64::from(b)));
    difference / norm(&mut b.iter().map(|&b| f64::from(b)))
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Adapters of rank 3 with random values for the model that is in the file.
fn adapted(cpu: &Cpu, checkpoint: &Checkpoint, precision: Precision, dtype: Dtype) -> (Transformer, Vec<f32>) {
    let config = checkpoint.config();
    let base = Transformer::new(cpu, config, precision, Source::Checkpoint(checkpoint)).unwrap();
    let lora = Arc::new(Lora::new(config, 3, 1.5, dtype, None).unwrap());
    let values = normal(lora.parameters().len(), 9, 0.1);
    (base.adapted(cpu, &lora, &values), values)
}

#[test]
fn adapters_do_what_they_would_merged() {
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        let cpu = Cpu::new(isa, 2);
        for (name, checkpoint) in golden() {
            let f32 = Precision::In(Dtype::F32);
            let (model, values) = adapted(&cpu, &checkpoint, f32, Dtype::F32);
            let (config, lora) = (model.config(), model.lora().unwrap());
            let dense = merged(&cpu, &checkpoint, lora, &values);
            let whole = Transformer::new(&cpu, config, f32, Source::Arena(&dense)).unwrap();
            let tokens = tokens(config, 40, 3);
            let plain = Transformer::new(&cpu, config, f32, Source::Checkpoint(&checkpoint)).unwrap();
            let expected = solo(&cpu, &whole, &tokens);
            assert!(relative(&solo(&cpu, &plain, &tokens), &expected) > 1e-3, "{name}: the adapters say nothing");
            let error = relative(&solo(&cpu, &model, &tokens), &expected);
            assert!(error < 1e-5, "{name} {isa:?}: logits are {error:.1e} off");

            let ours = gradient(&cpu, &model, &values, &tokens, Activations::training());
            let of_dense = gradient(&cpu, &whole, &dense, &tokens, Activations::training());
            let theirs = by_the_chain_rule(&cpu, &whole, lora, &values, &of_dense);
            for parameter in lora.parameters() {
                let error = relative(&ours[parameter.range()], &theirs[parameter.range()]);
                assert!(error < 1e-4, "{name} {isa:?}: the gradient of {} is {error:.1e} off", parameter.name);
            }
            let again = gradient(&Cpu::new(isa, 1), &model, &values, &tokens, Activations::within(0));
            assert_eq!(bits(&again), bits(&ours), "{name} {isa:?}: one thread, recomputed");
        }
    }
}

/// Frozen weights stay in their bits; what is left is that activations are rounded where they meet these.
#[test]
fn quantised_weights_have_adapters() {
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        let cpu = Cpu::new(isa, 2);
        for (file_type, bound) in [("F32", 1e-4), ("BF16", 0.02), ("Q8_0", 0.06), ("Q4_K_M", 0.06)] {
            let checkpoint = quantised(file_type);
            let (model, values) = adapted(&cpu, &checkpoint, Precision::Stored, Dtype::F32);
            let (config, lora) = (model.config(), model.lora().unwrap());
            let dense = merged(&cpu, &checkpoint, lora, &values);
            let whole = Transformer::new(&cpu, config, Dtype::F32.into(), Source::Arena(&dense)).unwrap();
            let tokens = tokens(config, 60, 4);
            let error = relative(&solo(&cpu, &model, &tokens), &solo(&cpu, &whole, &tokens));
            assert!(error < bound, "{file_type} {isa:?}: logits are {error:.1e} off");
            let ours = gradient(&cpu, &model, &values, &tokens, Activations::training());
            let of_dense = gradient(&cpu, &whole, &dense, &tokens, Activations::training());
            let error = relative(&ours, &by_the_chain_rule(&cpu, &whole, lora, &values, &of_dense));
            assert!(error < bound, "{file_type} {isa:?}: the gradient is {error:.1e} off");
            // The same with the adapters' products, and those that pass through frozen weights, in bf16.
            let (model, values) = adapted(&cpu, &checkpoint, Precision::Stored, Dtype::Bf16);
            let error = relative(&gradient(&cpu, &model, &values, &tokens, Activations::within(0)), &ours);
            assert!(error < 0.03, "{file_type} {isa:?}: the gradient in bf16 is {error:.1e} off");
        }
    }
}

#[test]
fn a_row_depends_on_its_own_sequence_alone() {
    let models = golden().chain([("quantised".to_string(), quantised("Q4_K_M"))]);
    let models: Vec<(String, Checkpoint)> = models.collect();
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        let cpu = Cpu::new(isa, 2);
        for (name, checkpoint) in &models {
            for dtype in [Dtype::F32, Dtype::Bf16] {
                let (model, _) = adapted(&cpu, checkpoint, Precision::Stored, dtype);
                let vocab = model.config().vocab_size;
                let (first, second) = (tokens(model.config(), 45, 5), tokens(model.config(), 20, 6));
                let alone = bits(&solo(&Cpu::new(isa, 1), &model, &first));
                for chunk in [1, 7, 33, 45] {
                    let mut kv = KvPages::new(model.kv_layout(), 64);
                    for at in (0..first.len()).step_by(chunk) {
                        let end = first.len().min(at + chunk);
                        let mut batch = Batch::default();
                        batch.push(&second[..chunk.min(20)], 0, pages(32, 20));
                        let before = batch.tokens.len() * vocab;
                        batch.push(&first[at..end], at, pages(0, first.len()));
                        let ours = bits(&logits(&cpu, &model, &batch, &mut kv)[before..]);
                        assert_eq!(ours, alone[at * vocab..end * vocab], "{name} {isa:?} chunk {chunk}");
                    }
                }
            }
        }
    }
}

/// New values are taken over by one model, and by no other that shares its weights.
#[test]
fn adapters_are_refreshed_and_not_shared() {
    let cpu = Cpu::new(Isa::choose(None).unwrap(), 2);
    let checkpoint = quantised("Q4_0");
    let (mut model, values) = adapted(&cpu, &checkpoint, Precision::Stored, Dtype::F32);
    let (lora, tokens) = (Arc::clone(model.lora().unwrap()), tokens(model.config(), 30, 7));
    let before = bits(&solo(&cpu, &model, &tokens));
    let none = vec![0.0; values.len()];
    let other = model.adapted(&cpu, &lora, &none);
    let base = Transformer::new(&cpu, model.config(), Precision::Stored, Source::Checkpoint(&checkpoint)).unwrap();
    assert_eq!(solo(&cpu, &other, &tokens), solo(&cpu, &base, &tokens), "adapters of zeros change nothing");
    assert_eq!(bits(&solo(&cpu, &model, &tokens)), before);
    model.refresh(&cpu, &none);
    assert_eq!(bits(&solo(&cpu, &model, &tokens)), bits(&solo(&cpu, &other, &tokens)));
}

#[test]
fn targets_are_those_that_the_model_has() {
    let find = |wanted: &str| golden().find(|(name, _)| name == wanted).unwrap().1;
    let names = |checkpoint: &Checkpoint, targets: Option<&[String]>| {
        let lora = Lora::new(checkpoint.config(), 2, 1.0, Dtype::F32, targets).map_err(|error| error.to_string())?;
        Ok::<_, String>(lora.parameters().iter().map(|parameter| parameter.name.clone()).collect::<Vec<_>>())
    };
    let qwen = find("qwen2");
    let all = names(&qwen, None).unwrap();
    assert_eq!(all.len(), 2 * 7 * qwen.config().layers);
    assert_eq!(all[0], "model.layers.0.self_attn.q_proj.lora_A.weight");
    let some = names(&qwen, Some(&["v_proj".to_string(), "q_proj".to_string()])).unwrap();
    assert!(some.len() == 4 * qwen.config().layers && some[1] == "model.layers.0.self_attn.v_proj.lora_A.weight");
    let error = names(&qwen, Some(&["q_a_proj".to_string()])).unwrap_err();
    let known = "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj can";
    assert_eq!(error, format!("\"q_a_proj\" can't have adapters in this model; {known}"));
    // Of a mixture, the shared expert and dense blocks; of latent attention, all but kv_b_proj.
    let deepseek = names(&find("deepseek_v3"), None).unwrap();
    assert!(deepseek.iter().all(|name| !name.contains(".mlp.experts.") && !name.contains("kv_b_proj")));
    assert!(deepseek.iter().any(|name| name.contains(".mlp.shared_experts.down_proj.")));
    assert!(PROJECTIONS.iter().all(|name| *name != "kv_b_proj"));
}
