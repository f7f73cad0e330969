//! Logits and gradients against transformers and torch autograd, on tiny random models of every family (`golden/models`).

// Which instruction sets ran, and by how much they miss, is for whoever reads the log.
#![allow(clippy::print_stdout)]

use std::path::{Path, PathBuf};

use minke_kernels::kv::{KvPages, PAGE_POSITIONS};
use minke_kernels::log_prob::{LogProb, log_prob, log_prob_backward};
use minke_kernels::{Buffer, Cpu, Dtype, Isa, View};
use minke_model::safetensors::SafeTensors;
use minke_model::{Activations, Batch, Checkpoint, Parameters, Source, Transformer};
use serde_json::Value;

/// A golden model in memory: the arena, the packed model, and what transformers makes of it.
struct Golden {
    name: String,
    values: Vec<f32>,
    transformer: Transformer,
    about: Value,
    tokens: Vec<Vec<u32>>,
    expected: SafeTensors,
}

impl Golden {
    fn open(cpu: &Cpu, path: &Path, dtype: Dtype) -> Golden {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let checkpoint = Checkpoint::open(path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let config = checkpoint.config();
        let mut values = Vec::new();
        for parameter in &Parameters::of(config) {
            values.extend(checkpoint.tensor(&parameter.name, &parameter.shape).unwrap());
        }
        let transformer = Transformer::new(cpu, config, dtype.into(), Source::Arena(&values)).unwrap();
        let about: Value = serde_json::from_slice(&std::fs::read(path.join("expected.json")).unwrap()).unwrap();
        let tokens = serde_json::from_value(about["tokens"].clone()).unwrap();
        let expected = SafeTensors::open(&path.join("expected.safetensors")).unwrap();
        Golden { name, values, transformer, about, tokens, expected }
    }

    fn expected(&self, name: &str) -> Option<Vec<f32>> {
        self.expected.get(name).map(|stored| stored.dtype.unwrap().to_f32(stored.bytes))
    }

    /// All logits of one sequence, run alone in one piece.
    fn solo(&self, cpu: &Cpu, tokens: &[u32]) -> Vec<f32> {
        let mut kv = KvPages::new(self.transformer.kv_layout(), tokens.len().div_ceil(PAGE_POSITIONS));
        let mut batch = Batch::default();
        batch.push(tokens, 0, pages(0, tokens.len()));
        let mut a = Activations::inference();
        self.transformer.forward(cpu, &batch, &mut kv, &mut a);
        self.logits(cpu, &a)
    }

    fn logits(&self, cpu: &Cpu, a: &Activations) -> Vec<f32> {
        let config = self.transformer.config();
        let hidden = a.hidden(config);
        let mut out = vec![0.0; hidden.rows() * config.vocab_size];
        self.transformer.logits(cpu, hidden, &mut out);
        out
    }

    /// Mean next-token cross-entropy of one sequence, and its gradient, from what `a` keeps.
    fn gradient(&self, cpu: &Cpu, tokens: &[u32], a: &mut Activations) -> (f64, Vec<f32>) {
        let (transformer, config) = (&self.transformer, self.transformer.config());
        let (inputs, targets) = (&tokens[..tokens.len() - 1], &tokens[1..]);
        let mut kv = KvPages::new(transformer.kv_layout(), tokens.len().div_ceil(PAGE_POSITIONS));
        let mut batch = Batch::default();
        batch.push(inputs, 0, pages(0, inputs.len()));
        transformer.forward(cpu, &batch, &mut kv, a);
        let hidden = a.hidden(config);
        let mut out = vec![LogProb { log_prob: 0.0, lse: 0.0, entropy: 0.0 }; inputs.len()];
        log_prob(cpu, transformer.head(), hidden, targets, 1.0, &mut out);
        let loss = -out.iter().map(|p| f64::from(p.log_prob)).sum::<f64>() / inputs.len() as f64;

        let mut gradient = vec![0.0; self.values.len()];
        let lse: Vec<f32> = out.iter().map(|p| p.lse).collect();
        let d_log_prob = vec![-1.0 / inputs.len() as f32; inputs.len()];
        let head = transformer.head_range();
        let rows = View::new(&self.values[head.clone()], config.vocab_size, config.hidden_size);
        let mut d_hidden = Buffer::zeros(inputs.len() * config.hidden_size);
        let d_head = &mut gradient[head];
        let packed = transformer.head();
        log_prob_backward(cpu, packed, rows, hidden, targets, &lse, &d_log_prob, 1.0, &mut d_hidden, d_head);
        transformer.backward(cpu, &self.values, &batch, &mut kv, a, &d_hidden, 0.0, &mut gradient);
        (loss, gradient)
    }
}

fn models() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/models");
    let mut paths: Vec<_> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn pages(from: usize, tokens: usize) -> Vec<u32> {
    (from..from + tokens.div_ceil(PAGE_POSITIONS)).map(|page| page as u32).collect()
}

fn available() -> Vec<Isa> {
    let (ran, skipped): (Vec<Isa>, Vec<Isa>) = Isa::ALL.into_iter().partition(|isa| isa.is_available());
    println!("ran: {ran:?}; skipped, this CPU lacks them: {skipped:?}");
    ran
}

/// Runs `check` on every golden model, for every instruction set that this CPU has.
fn for_all(dtype: Dtype, check: impl Fn(Isa, &Cpu, &Golden)) {
    for isa in available() {
        let cpu = Cpu::new(isa, 2);
        for path in models() {
            check(isa, &cpu, &Golden::open(&cpu, &path, dtype));
        }
    }
}

fn norm(x: impl Iterator<Item = f64>) -> f64 {
    x.map(|x| x * x).sum::<f64>().sqrt()
}

/// |a - b| / |b|, or |a| where b is zero.
fn relative(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let difference = norm(a.iter().zip(b).map(|(&a, &b)| f64::from(a) - f64::from(b)));
    let size = norm(b.iter().map(|&b| f64::from(b)));
    if size == 0.0 { difference } else { difference / size }
}

/// Bits, so that zeros of different sign and NaNs count as different.
fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn logits_are_those_of_transformers() {
    for_all(Dtype::F32, |isa, cpu, golden| {
        for (i, tokens) in golden.tokens.iter().enumerate() {
            let ours = golden.solo(cpu, tokens);
            let theirs = golden.expected(&format!("logits.{i}")).unwrap();
            assert_eq!(ours.len(), theirs.len());
            let worst = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            println!("{} {isa:?} sequence {i}: largest error {worst:.1e}", golden.name);
            assert!(worst <= 1e-4, "{} {isa:?} sequence {i}: a logit is {worst} off", golden.name);
        }
    });
}

#[test]
fn bf16_logits_are_near() {
    for_all(Dtype::Bf16, |isa, cpu, golden| {
        let error = relative(&golden.solo(cpu, &golden.tokens[0]), &golden.expected("logits.0").unwrap());
        println!("{} {isa:?}: relative error in bf16 {error:.1e}", golden.name);
        // Where a router's choice turns with the rounding, whole logits move.
        let bound = if golden.transformer.config().experts.is_some() { 0.3 } else { 0.03 };
        assert!(error < bound, "{}: relative error {error}", golden.name);
    });
}

#[test]
fn gradients_are_those_of_autograd() {
    for_all(Dtype::F32, |isa, cpu, golden| {
        let (loss, gradient) = golden.gradient(cpu, &golden.tokens[0], &mut Activations::training());
        let theirs = golden.about["loss"][0].as_f64().unwrap();
        assert!((loss - theirs).abs() < 1e-5, "{}: loss {loss} instead of {theirs}", golden.name);
        let mut worst = (0.0, String::new());
        for parameter in golden.transformer.parameters() {
            let ours = &gradient[parameter.range()];
            let Some(theirs) = golden.expected(&format!("grad.{}", parameter.name)) else {
                assert!(!parameter.trainable, "{}: no expected gradient of {}", golden.name, parameter.name);
                assert!(ours.iter().all(|&g| g == 0.0), "{} moves", parameter.name);
                continue;
            };
            let error = relative(ours, &theirs);
            if error > worst.0 {
                worst = (error, parameter.name.clone());
            }
            assert!(error <= 1e-4, "{} {isa:?}: gradient of {} is {error:.1e} off", golden.name, parameter.name);
        }
        println!("{} {isa:?}: largest relative error {:.1e} ({})", golden.name, worst.0, worst.1);
    });
}

#[test]
fn bf16_gradients_are_near() {
    for_all(Dtype::Bf16, |isa, cpu, golden| {
        let (_, gradient) = golden.gradient(cpu, &golden.tokens[0], &mut Activations::training());
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for parameter in golden.transformer.parameters() {
            if let Some(expected) = golden.expected(&format!("grad.{}", parameter.name)) {
                ours.extend_from_slice(&gradient[parameter.range()]);
                theirs.extend(expected);
            }
        }
        let error = relative(&ours, &theirs);
        println!("{} {isa:?}: relative error of the gradient in bf16 {error:.1e}", golden.name);
        // As for logits: where a router's choice turns, other experts learn.
        let bound = if golden.transformer.config().experts.is_some() { 0.15 } else { 0.03 };
        assert!(error < bound, "{}: relative error {error}", golden.name);
    });
}

#[test]
fn a_row_depends_on_its_own_sequence_alone() {
    for dtype in [Dtype::F32, Dtype::Bf16] {
        for_all(dtype, |isa, cpu, golden| {
            let transformer = &golden.transformer;
            let vocab = transformer.config().vocab_size;
            let single = Cpu::new(isa, 1);
            let alone: Vec<_> = golden.tokens.iter().map(|tokens| bits(&golden.solo(&single, tokens))).collect();

            // All sequences in one batch, on another number of threads.
            let mut kv = KvPages::new(transformer.kv_layout(), 64);
            let mut batch = Batch::default();
            let mut next = 0;
            for tokens in &golden.tokens {
                batch.push(tokens, 0, pages(next, tokens.len()));
                next += tokens.len().div_ceil(PAGE_POSITIONS);
            }
            let mut a = Activations::training();
            transformer.forward(cpu, &batch, &mut kv, &mut a);
            assert_eq!(bits(&golden.logits(cpu, &a)), alone.concat(), "{} {isa:?} batch", golden.name);

            // The first sequence in chunks of several lengths, part of the second beside it.
            let (first, second) = (&golden.tokens[0], &golden.tokens[1]);
            for chunk in [1, 3, 32, 33] {
                let mut kv = KvPages::new(transformer.kv_layout(), 64);
                let mut a = Activations::inference();
                for at in (0..first.len()).step_by(chunk) {
                    let end = first.len().min(at + chunk);
                    let mut batch = Batch::default();
                    batch.push(&second[..second.len().min(chunk)], 0, pages(32, second.len()));
                    let rows = batch.tokens.len();
                    batch.push(&first[at..end], at, pages(0, first.len()));
                    transformer.forward(cpu, &batch, &mut kv, &mut a);
                    let ours = bits(&golden.logits(cpu, &a)[rows * vocab..]);
                    assert_eq!(ours, alone[0][at * vocab..end * vocab], "{} {isa:?} chunk {chunk}", golden.name);
                }
            }
        });
    }
}

#[test]
fn gradients_depend_neither_on_threads_nor_on_what_is_kept() {
    for dtype in [Dtype::F32, Dtype::Bf16] {
        for_all(dtype, |isa, cpu, golden| {
            let tokens = &golden.tokens[0];
            let mut all = Activations::training();
            let (loss, gradient) = golden.gradient(&Cpu::new(isa, 1), tokens, &mut all);
            for room in [usize::MAX, all.bytes() - 1, 0] {
                let mut a = Activations::within(room);
                // What a shorter pass kept whole has to give way, and what a longer one could not keep stays away.
                for tokens in [&tokens[..tokens.len() / 3], tokens, &tokens[..2], tokens] {
                    golden.gradient(cpu, tokens, &mut a);
                    assert!(a.bytes() <= room, "{} {isa:?}: {} of {room} bytes", golden.name, a.bytes());
                }
                // One byte too few for all is enough for the first of several.
                let some = room == usize::MAX || room > 0 && golden.transformer.config().layers > 1;
                assert_eq!(a.bytes() > 0, some, "{} {isa:?}: {room} bytes", golden.name);
                let again = golden.gradient(cpu, tokens, &mut a);
                assert_eq!(loss.to_bits(), again.0.to_bits());
                assert_eq!(bits(&gradient), bits(&again.1), "{} {isa:?}, {room} bytes", golden.name);
            }
        });
    }
}
