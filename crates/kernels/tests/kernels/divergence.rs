//! Divergences from a teacher's distribution, and their gradients.

use minke_kernels::divergence::{Divergence, Output, divergence, divergence_backward};
use minke_kernels::log_prob::{LogProb, log_prob};
use minke_kernels::{Cpu, Dtype, Matrix, View};

use crate::data::{Data, assert_gradient, assert_near, dot, widen};

/// Logits of a row.
fn logits(w: &[f64], hidden: &[f64]) -> Vec<f64> {
    w.chunks(hidden.len()).map(|w| w.iter().zip(hidden).map(|(w, h)| w * h).sum()).collect()
}

/// Log-probabilities of a row of logits.
fn log_probs(logits: &[f64]) -> Vec<f64> {
    let max = logits.iter().fold(f64::NEG_INFINITY, |m, &z| m.max(z));
    let lse = max + logits.iter().map(|z| (z - max).exp()).sum::<f64>().ln();
    logits.iter().map(|z| z - lse).collect()
}

fn kl(teacher: &[f64], student: &[f64]) -> f64 {
    let (p, q) = (log_probs(teacher), log_probs(student));
    p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum()
}

pub fn forward(cpu: &Cpu) {
    let mut data = Data::new(70);
    for vocabulary in [1, 5, 83, 1024, 1025, 49_152] {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            // Models of two widths; with more than 256 rows there are two blocks.
            let rows = if vocabulary == 83 { 300 } else { 7 };
            let (inputs, wide) = (data.size(1, 40), data.size(1, 40));
            // The largest logit comes late in the one, early in the other, or both are flat.
            let scale = data.pick(&[0.01, 0.7, 3.0]);
            let (w, v) = (data.normal(vocabulary * inputs, scale), data.normal(vocabulary * wide, 0.7));
            let head = Matrix::pack(cpu, dtype, View::new(&w, vocabulary, inputs));
            let teacher_head = Matrix::pack(cpu, Dtype::F32, View::new(&v, vocabulary, wide));
            let (x, y, targets) =
                (data.normal(rows * inputs, 1.0), data.normal(rows * wide, 1.0), data.ids(rows, vocabulary));
            let student = Output { head: &head, hidden: View::new(&x, rows, inputs) };
            let teacher = Output { head: &teacher_head, hidden: View::new(&y, rows, wide) };
            let mut out = vec![Divergence::default(); rows];
            divergence(cpu, student, teacher, &targets, &mut out);
            // What the model says of its targets does not depend on a teacher.
            let mut alone = vec![LogProb::default(); rows];
            log_prob(cpu, &head, student.hidden, &targets, 1.0, &mut alone);
            for r in 0..rows {
                let what = format!("row {r} of {vocabulary} {dtype:?} logits");
                assert_eq!((out[r].log_prob, out[r].lse), (alone[r].log_prob, alone[r].lse), "{what}");
                if dtype == Dtype::F32 {
                    let p = logits(&widen(&v), &widen(teacher.hidden.row(r)));
                    let exact = kl(&p, &logits(&widen(&w), &widen(student.hidden.row(r))));
                    assert_near(&what, &[out[r].kl], [(exact, 1e-5 * (1.0 + exact))]);
                    assert_near(&what, &[out[r].teacher_lse], [(p[0] - log_probs(&p)[0], 3e-5)]);
                }
            }
            divergence(cpu, student, student, &targets, &mut out);
            assert!(out.iter().all(|row| row.kl.abs() <= 1e-6), "a model from itself");
        }
    }
    let (x, hole) = ([1.0], [0.0, f32::NAN]);
    let pack = |w: &[f32]| Matrix::pack(cpu, Dtype::F32, View::new(w, 2, 1));
    let (sound, broken) = (pack(&[0.5, -0.5]), pack(&hole));
    for (student, teacher) in [(&sound, &broken), (&broken, &sound)] {
        let [student, teacher] = [student, teacher].map(|head| Output { head, hidden: View::new(&x, 1, 1) });
        let mut out = [Divergence::default()];
        divergence(cpu, student, teacher, &[0], &mut out);
        assert!(out[0].kl.is_nan(), "a NaN among the logits must show");
    }
}

pub fn backward(cpu: &Cpu) {
    let mut data = Data::new(71);
    for (rows, vocabulary, inputs) in [(1, 1, 3), (3, 5, 1), (7, 83, 9), (4, 1025, 7), (5, 2100, 4), (300, 40, 6)] {
        let wide = inputs + 2;
        let (w, v) = (data.normal(vocabulary * inputs, 0.7), data.normal(vocabulary * wide, 0.7));
        let (x, y) = (data.normal(rows * inputs, 1.0), data.normal(rows * wide, 1.0));
        let (targets, mut d_log_prob) = (data.ids(rows, vocabulary), data.normal(rows, 1.0));
        let mut d_kl = data.normal(rows, 1.0);
        // Rows without a gradient: one of either, one of both, and a whole block.
        d_log_prob[0] = 0.0;
        (d_log_prob[rows / 2], d_kl[rows / 2]) = (0.0, 0.0);
        d_kl[rows - 1] = 0.0;
        d_log_prob.iter_mut().chain(&mut d_kl).skip(256).for_each(|d| *d = if rows > 256 { 0.0 } else { *d });
        let w_view = View::new(&w, vocabulary, inputs);
        let head = Matrix::pack(cpu, Dtype::F32, w_view);
        let teacher_head = Matrix::pack(cpu, Dtype::F32, View::new(&v, vocabulary, wide));
        let student = Output { head: &head, hidden: View::new(&x, rows, inputs) };
        let teacher = Output { head: &teacher_head, hidden: View::new(&y, rows, wide) };
        let mut out = vec![Divergence::default(); rows];
        divergence(cpu, student, teacher, &targets, &mut out);
        let (mut d_hidden, mut d_head) = (vec![0.25; x.len()], vec![0.5; w.len()]);
        divergence_backward(
            cpu,
            student,
            w_view,
            teacher,
            &targets,
            &out,
            &d_log_prob,
            &d_kl,
            &mut d_hidden,
            &mut d_head,
        );
        let v64 = widen(&v);
        let teachers: Vec<Vec<f64>> = y.chunks(wide).map(|y| logits(&v64, &widen(y))).collect();
        let naive = |w: &[f64], hidden: &[f64]| -> f64 {
            let rows = hidden.chunks(inputs).zip(&teachers).zip(&targets).map(|((h, teacher), &target)| {
                let own = logits(w, h);
                (log_probs(&own)[target as usize], kl(teacher, &own))
            });
            let (log_probs, kls): (Vec<f64>, Vec<f64>) = rows.unzip();
            dot(&log_probs, &d_log_prob) + dot(&kls, &d_kl)
        };
        let less = |x: &[f32], by: f32| x.iter().map(|x| x - by).collect::<Vec<f32>>();
        let (w64, hidden64) = (widen(&w), widen(&x));
        let what = format!("divergence of {rows} rows, vocabulary {vocabulary}");
        assert_gradient(&what, &mut data, &x, &less(&d_hidden, 0.25), |hidden| naive(&w64, hidden));
        assert_gradient(&what, &mut data, &w, &less(&d_head, 0.5), |w| naive(w, &hidden64));
    }
}
