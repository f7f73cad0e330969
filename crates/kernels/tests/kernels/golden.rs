//! AdamW, the balance loss and distillation against torch: numbers of `golden/`, made by its `make_golden.py` and
//! `make_distillation.py`.

use minke_kernels::divergence::{Divergence, Output, divergence, divergence_backward};
use minke_kernels::optimizer::{AdamW, adamw, sum_of_squares};
use minke_kernels::router::{Router, Scoring, balance, route};
use minke_kernels::{Cpu, Dtype, Matrix, View, math};
use serde_json::Value;

use crate::data::{assert_near, widen};

pub fn all(cpu: &Cpu) {
    optimizer(cpu);
    sequence_balance(cpu);
    distillation(cpu);
}

fn read(path: &str) -> Value {
    let path = format!("{}/../../golden/{path}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// All numbers inside, in order.
fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        other => vec![other.as_f64().expect("a number")],
    }
}

fn floats(value: &Value) -> Vec<f32> {
    numbers(value).into_iter().map(|x| x as f32).collect()
}

fn cases(file: &Value) -> impl Iterator<Item = (usize, &Value)> {
    (0..).map_while(|i| file.get(format!("case.{i}")).map(|case| (i, case)))
}

fn optimizer(cpu: &Cpu) {
    let file = read("adamw/adamw.json");
    let gradients: Vec<Vec<f32>> = file["grads"].as_array().expect("gradients").iter().map(floats).collect();
    let rates = numbers(&file["rates"]);
    let mut count = 0;
    for (i, case) in cases(&file) {
        let [beta1, beta2] = numbers(&case["betas"])[..] else { panic!("two betas") };
        let [eps, weight_decay] = ["eps", "weight_decay"].map(|key| case[key].as_f64().expect("a number"));
        let mut parameters = floats(&file["start"]);
        let (mut m, mut v) = (vec![0.0; parameters.len()], vec![0.0; parameters.len()]);
        for (t, step) in case["steps"].as_array().expect("steps").iter().enumerate() {
            let settings = AdamW { learning_rate: rates[t], beta1, beta2, eps, weight_decay };
            let norm = sum_of_squares(cpu, &gradients[t]).sqrt();
            let scale = match case.get("max_grad_norm").and_then(Value::as_f64) {
                None => 1.0,
                Some(limit) => {
                    let golden = step["grad_norm"].as_f64().expect("a norm");
                    assert!((norm - golden).abs() <= 1e-6 * golden, "norm {norm}, not {golden}");
                    // As torch's clip_grad_norm_ has it.
                    (limit / (norm + 1e-6)).min(1.0) as f32
                }
            };
            adamw(cpu, &settings, t as u64 + 1, scale, &gradients[t], &mut m, &mut v, &mut parameters);
            let golden = numbers(&step["weights"]).into_iter().map(|w| (w, 3e-7 * w.abs().max(1.0)));
            assert_near(&format!("AdamW, case {i}, step {}", t + 1), &parameters, golden);
        }
        count += 1;
    }
    assert_eq!(count, 4, "cases of AdamW");
}

fn distillation(cpu: &Cpu) {
    let file = read("losses/distillation.json");
    let mut count = 0;
    for (i, case) in cases(&file) {
        let share = case["kl"].as_f64().expect("a share");
        let targets: Vec<u32> = numbers(&case["targets"]).into_iter().map(|id| id as u32).collect();
        let [w, x, v, y] = ["head", "hidden", "teacher_head", "teacher_hidden"].map(|key| floats(&case[key]));
        let (rows, vocabulary) = (targets.len(), case["head"].as_array().expect("a matrix").len());
        let (inputs, wide) = (x.len() / rows, y.len() / rows);
        let (w, v) = (View::new(&w, vocabulary, inputs), View::new(&v, vocabulary, wide));
        let (head, teacher_head) = (Matrix::pack(cpu, Dtype::F32, w), Matrix::pack(cpu, Dtype::F32, v));
        let student = Output { head: &head, hidden: View::new(&x, rows, inputs) };
        let teacher = Output { head: &teacher_head, hidden: View::new(&y, rows, wide) };
        let mut out = vec![Divergence::default(); rows];
        divergence(cpu, student, teacher, &targets, &mut out);
        let kl: Vec<f32> = out.iter().map(|row| row.kl).collect();
        assert_near(
            "a row's divergence",
            &kl,
            numbers(&case["divergence"]).into_iter().map(|kl| (kl, 1e-5 * kl.max(1.0))),
        );
        let of = |row: &Divergence| share * f64::from(row.kl) - (1.0 - share) * f64::from(row.log_prob);
        let loss = out.iter().map(of).sum::<f64>() / rows as f64;
        let golden = case["loss"].as_f64().expect("a loss");
        assert!((loss - golden).abs() <= 1e-5 * golden.max(1.0), "case {i}: a loss of {loss}, not {golden}");
        let [d_log_prob, d_kl] = [share - 1.0, share].map(|d| vec![(d / rows as f64) as f32; rows]);
        let (mut d_hidden, mut d_head) = (vec![0.0; x.len()], vec![0.0; w.rows() * inputs]);
        divergence_backward(cpu, student, w, teacher, &targets, &out, &d_log_prob, &d_kl, &mut d_hidden, &mut d_head);
        for (name, got) in [("d_hidden", &d_hidden), ("d_head", &d_head)] {
            let golden = numbers(&case[name]);
            let largest = golden.iter().fold(0.0_f64, |m, g| m.max(g.abs()));
            assert_near(&format!("case {i}: {name}"), got, golden.into_iter().map(|g| (g, 1e-5 * largest)));
        }
        count += 1;
    }
    assert_eq!(count, 4, "cases of distillation");
}

fn sequence_balance(cpu: &Cpu) {
    let file = read("moe/sequence_balance.json");
    let per_token = file["top_k"].as_u64().expect("top_k") as usize;
    let alpha = file["alpha"].as_f64().expect("alpha");
    let mut count = 0;
    for (i, case) in cases(&file) {
        let (logits, marks) = (floats(&case["logits"]), numbers(&case["chosen"]));
        let sequences = case["logits"].as_array().expect("sequences");
        let experts = case["logits"][0][0].as_array().expect("a row").len();
        let scoring = Scoring::Sigmoid;
        let router =
            Router { experts, per_token, scoring, groups: 1, groups_per_token: 1, normalize: true, scaling: 1.0 };
        let marked = marks.chunks(experts).flat_map(|row| (0..experts as u32).filter(|&e| row[e as usize] != 0.0));
        let chosen: Vec<u32> = marked.collect();
        let rows = logits.len() / experts;
        let scores: Vec<f32> = logits.iter().map(|&x| math::sigmoid(x)).collect();
        if case["chosen_by"] == "affinity" {
            let (mut routed, mut weights) = (vec![0; rows * per_token], vec![0.0; rows * per_token]);
            route(
                cpu,
                &router,
                &logits,
                &vec![0.0; experts],
                &mut vec![0.0; rows * experts],
                &mut routed,
                &mut weights,
            );
            assert_eq!(routed, chosen, "case {i}: choices without a bias");
        }
        let lengths = sequences.iter().map(|sequence| sequence.as_array().expect("rows").len());
        let spans: Vec<_> = lengths
            .scan(0, |end, n| {
                *end += n;
                Some(*end - n..*end)
            })
            .collect();
        for (span, golden) in spans.iter().zip(numbers(&case["loss_per_sequence"])) {
            let loss = balance(&router, &scores, &chosen, std::slice::from_ref(span), alpha as f32, None);
            assert_near("a sequence's balance loss", &[loss], [(golden, 3e-7)]);
        }
        // The file has the mean over sequences, ours is their sum.
        let (mut d_logits, alpha) = (vec![0.0; logits.len()], alpha / sequences.len() as f64);
        let loss = balance(&router, &scores, &chosen, &spans, alpha as f32, Some(&mut d_logits));
        assert_near("balance loss", &[loss], [(case["loss"].as_f64().expect("a loss"), 3e-7)]);
        let golden = widen(&floats(&case["grad"]));
        let largest = golden.iter().fold(0.0_f64, |m, g| m.max(g.abs()));
        assert_near("balance gradient", &d_logits, golden.into_iter().map(|g| (g, 2e-6 * largest)));
        count += 1;
    }
    assert_eq!(count, 3, "cases of the balance loss");
}
