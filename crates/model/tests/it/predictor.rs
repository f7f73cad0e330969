//! Multi-token prediction against the block written out in torch (`golden/make_mtp.py`), and its rows against each other.

use std::path::Path;

use minke_kernels::kv::{KvPages, PAGE_POSITIONS};
use minke_kernels::log_prob::{LogProb, log_prob, log_prob_backward};
use minke_kernels::{Buffer, Cpu, Dtype, Isa, View};
use minke_model::dequantize::DataType;
use minke_model::safetensors::SafeTensors;
use minke_model::{
    Activations, Batch, Checkpoint, Config, Parameters, Precision, Predictions, Predictor, Source, Transformer,
};
use serde_json::Value;

#[test]
fn logits_are_those_of_the_written_out_block() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/mtp");
    let checkpoint = Checkpoint::open(&golden).unwrap();
    let about: Value = serde_json::from_slice(&std::fs::read(golden.join("expected.json")).unwrap()).unwrap();
    let tokens: Vec<u32> = serde_json::from_value(about["tokens"].clone()).unwrap();
    let expected = SafeTensors::open(&golden.join("expected.safetensors")).unwrap();
    let expected = DataType::F32.to_f32(expected.get("logits").unwrap().bytes);
    let rows = tokens.len() - 1;
    let pages: Vec<u32> = (0..tokens.len().div_ceil(PAGE_POSITIONS) as u32).collect();
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        let (cpu, config) = (Cpu::new(isa, 2), checkpoint.config());
        let model = Transformer::new(&cpu, config, Dtype::F32.into(), Source::Checkpoint(&checkpoint)).unwrap();
        let predictor = Predictor::new(&cpu, config, Dtype::F32.into(), Source::Checkpoint(&checkpoint)).unwrap();

        let mut batch = Batch::default();
        batch.push(&tokens[..rows], 0, pages.clone());
        let mut a = Activations::inference();
        model.forward(&cpu, &batch, &mut KvPages::new(model.kv_layout(), pages.len()), &mut a);
        let hidden = a.hidden(config);

        // All at once, and in chunks that must come to the same bits.
        let mut whole: Option<Vec<u32>> = None;
        for chunk in [rows, 1, 7] {
            let mut kv = KvPages::new(Predictor::kv_layout(&model), pages.len());
            let (mut predictions, mut logits) = (Predictions::default(), Vec::new());
            for at in (0..rows).step_by(chunk) {
                let count = chunk.min(rows - at);
                let mut batch = Batch::default();
                batch.push(&tokens[at + 1..at + 1 + count], at, pages.clone());
                predictor.forward(&cpu, &model, &batch, hidden.rows_from(at, count), &mut kv, &mut predictions);
                let mut out = vec![0.0; count * config.vocab_size];
                model.logits(&cpu, View::new(&predictions.hidden, count, config.hidden_size), &mut out);
                logits.append(&mut out);
            }
            let worst = logits.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(logits.len() == expected.len() && worst <= 1e-4, "{isa:?}: a logit is {worst} off");
            let bits: Vec<u32> = logits.iter().map(|x| x.to_bits()).collect();
            assert_eq!(&bits, whole.get_or_insert_with(|| bits.clone()), "{isa:?}: chunks of {chunk}");
        }
    }
}

/// Both losses on the golden sequence and the gradient of one and `weight` times the other, as torch's autograd has them.
#[test]
fn gradients_are_those_of_autograd() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/mtp");
    let checkpoint = Checkpoint::open(&golden).unwrap();
    let about: Value = serde_json::from_slice(&std::fs::read(golden.join("expected.json")).unwrap()).unwrap();
    let tokens: Vec<u32> = serde_json::from_value(about["tokens"].clone()).unwrap();
    let losses: [f64; 2] = serde_json::from_value(about["losses"].clone()).unwrap();
    let weight = about["weight"].as_f64().unwrap() as f32;
    let expected = SafeTensors::open(&golden.join("expected.safetensors")).unwrap();
    let (config, rows) = (checkpoint.config(), tokens.len() - 1);
    assert_eq!(config.predictions, 1);
    let parameters = Parameters::learnt(config);
    let mut values = Vec::new();
    for parameter in &parameters {
        values.extend(checkpoint.tensor(&parameter.name, &parameter.shape).unwrap());
    }
    let own = Parameters::of(config).len();
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        let cpu = Cpu::new(isa, 2);
        let model = Transformer::new(&cpu, config, Dtype::F32.into(), Source::Arena(&values[..own])).unwrap();
        let predictor = Predictor::learning(&cpu, config, Dtype::F32.into(), &parameters, &values);
        let pages: Vec<u32> = (0..tokens.len().div_ceil(PAGE_POSITIONS) as u32).collect();
        let mut kv = KvPages::new(Predictor::kv_layout(&model), pages.len());
        let mut gradient = vec![0.0; values.len()];
        let head = model.head_range();
        let head_rows = View::new(&values[head.clone()], config.vocab_size, config.hidden_size);
        // Mean cross-entropy, and what it changes by with the hidden states, times a factor.
        let loss = |hidden: View<'_>, targets: &[u32], factor: f32, gradient: &mut [f32]| {
            let mut out = vec![LogProb::default(); targets.len()];
            log_prob(&cpu, model.head(), hidden, targets, 1.0, &mut out);
            let lse: Vec<f32> = out.iter().map(|p| p.lse).collect();
            let d = vec![-factor / targets.len() as f32; targets.len()];
            let (mut d_hidden, d_head) = (Buffer::zeros(hidden.rows() * hidden.cols()), &mut gradient[head.clone()]);
            log_prob_backward(&cpu, model.head(), head_rows, hidden, targets, &lse, &d, 1.0, &mut d_hidden, d_head);
            (-out.iter().map(|p| f64::from(p.log_prob)).sum::<f64>() / targets.len() as f64, d_hidden)
        };

        let (mut batch, mut a) = (Batch::default(), Activations::training());
        batch.push(&tokens[..rows], 0, pages.clone());
        model.forward(&cpu, &batch, &mut kv, &mut a);
        let (next, mut d_hidden) = loss(a.hidden(config), &tokens[1..], 1.0, &mut gradient);

        let (mut ahead, mut predictions) = (Batch::default(), Predictions::training());
        ahead.push(&tokens[1..rows], 0, pages);
        let hidden = a.hidden(config).rows_from(0, rows - 1);
        predictor.forward(&cpu, &model, &ahead, hidden, &mut kv, &mut predictions);
        let out = View::new(&predictions.hidden, rows - 1, config.hidden_size);
        let (after, d_out) = loss(out, &tokens[2..], weight, &mut gradient);
        for (ours, theirs) in [next, after].into_iter().zip(losses) {
            assert!((ours - theirs).abs() < 1e-5, "{isa:?}: loss {ours} instead of {theirs}");
        }
        let mut d_back = vec![0.0; (rows - 1) * config.hidden_size];
        let (p, g) = (&predictions, &mut gradient);
        predictor.backward(&cpu, &model, &values, &ahead, hidden, &mut kv, p, &d_out, 0.0, &mut d_back, g);
        d_hidden.iter_mut().zip(&d_back).for_each(|(sum, d)| *sum += d);
        model.backward(&cpu, &values, &batch, &mut kv, &mut a, &d_hidden, 0.0, &mut gradient);

        for parameter in &parameters {
            let ours = &gradient[parameter.range()];
            let Some(theirs) = expected.get(&format!("grad.{}", parameter.name)) else {
                assert!(!parameter.trainable && ours.iter().all(|&g| g == 0.0), "{} moves", parameter.name);
                continue;
            };
            let theirs = DataType::F32.to_f32(theirs.bytes);
            assert_eq!(ours.len(), theirs.len(), "{}", parameter.name);
            let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            let off = norm(&mut ours.iter().zip(&theirs).map(|(a, b)| a - b));
            let error = off / norm(&mut theirs.iter().copied()).max(1e-12);
            assert!(error <= 1e-4, "{isa:?}: gradient of {} is {error:.1e} off", parameter.name);
        }
    }
}

#[test]
fn a_row_reads_the_experts_that_it_chooses() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/mtp");
    let checkpoint = Checkpoint::open(&path).unwrap();
    let config = checkpoint.config();
    let (model, block) = (Parameters::of(config), Parameters::of_prediction(config));
    // Four of six experts are not read, three matrices of 12 by 32 each, in one block; nor is the embedding of 50 tokens.
    let unread = 4 * 3 * 12 * 32;
    assert_eq!(model.read_by_a_row(config), (model.len() - unread - 50 * 32) as f64);
    assert_eq!(block.read_by_a_row(config), (block.len() - unread) as f64);
    let tied = Config { tied_embeddings: true, experts: None, ..config.clone() };
    assert_eq!(Parameters::of(&tied).read_by_a_row(&tied), Parameters::of(&tied).len() as f64);
    assert!(checkpoint.predicts());
    assert_eq!(checkpoint.prediction_bytes(Precision::Stored).unwrap(), 4 * block.len() as u64);
    assert_eq!(checkpoint.prediction_bytes(Dtype::Bf16.into()).unwrap(), 2 * block.len() as u64);
}

#[test]
fn a_model_without_the_block_says_so() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/models/deepseek_v3");
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert!(!checkpoint.predicts());
    let cpu = Cpu::new(Isa::Portable, 1);
    let error =
        Predictor::new(&cpu, checkpoint.config(), Dtype::F32.into(), Source::Checkpoint(&checkpoint)).err().unwrap();
    assert_eq!(error.to_string(), "tensor model.layers.3.enorm.weight is missing; the configuration asks for it");
}
