//! Gradients, against central differences of naive `f64` code.

use minke_kernels::heads::Heads;
use minke_kernels::log_prob::{LogProb, log_prob, log_prob_backward, log_prob_backward_frozen};
use minke_kernels::router::{Router, balance, route, route_backward};
use minke_kernels::{Cpu, Dtype, Matrix, View, elementwise, head_norm, norm};

use crate::data::{Data, WIDTHS, assert_gradient, assert_near, assert_same, dot, widen};
use crate::experts::{naive_scores, routers};

pub fn all(cpu: &Cpu) {
    rms_norm(cpu);
    rms_norm_heads(cpu);
    swiglu(cpu);
    routing(cpu);
    log_probs(cpu);
}

fn rms_norm(cpu: &Cpu) {
    let mut data = Data::new(40);
    let eps = 1e-3;
    let naive = |x: &[f64], weight: &[f64], dy: &[f32]| -> f64 {
        let dim = weight.len();
        let rows = x.chunks(dim).zip(dy.chunks(dim)).map(|(x, dy)| {
            let inverse = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / dim as f64 + f64::from(eps)).sqrt();
            let y: Vec<f64> = x.iter().zip(weight).map(|(x, w)| x * inverse * w).collect();
            dot(&y, dy)
        });
        rows.sum()
    };
    for dim in WIDTHS {
        for rows in [1, 4, 90] {
            for add in [false, true] {
                let (x, weight, dy) =
                    (data.normal(rows * dim, 1.0), data.normal(dim, 1.0), data.normal(rows * dim, 1.0));
                let (mut y, mut inv_rms) = (vec![0.0; rows * dim], vec![0.0; rows]);
                let view = View::new(&x, rows, dim);
                norm::rms_norm(cpu, view, &weight, eps, &mut y, &mut inv_rms);
                // dx lies amid other numbers, which stay.
                let stride = dim + 3;
                let before = data.normal((rows - 1) * stride + dim, 1.0);
                let (mut dx, mut d_weight) = (before.clone(), vec![0.5; dim]);
                norm::rms_norm_backward(cpu, view, &weight, &inv_rms, &dy, &mut dx, stride, add, Some(&mut d_weight));
                let mut frozen = before.clone();
                norm::rms_norm_backward(cpu, view, &weight, &inv_rms, &dy, &mut frozen, stride, add, None);
                assert_same("with a frozen weight", &frozen, &dx);
                let mut own = Vec::new();
                for (dx, before) in dx.chunks(stride).zip(before.chunks(stride)) {
                    assert_eq!(dx[dim..], before[dim..], "between the rows of dx");
                    own.extend(dx[..dim].iter().zip(before).map(|(dx, b)| if add { dx - b } else { *dx }));
                }
                let what = format!("RMSNorm, {rows} by {dim}");
                let (x64, w64) = (widen(&x), widen(&weight));
                assert_gradient(&what, &mut data, &x, &own, |x| naive(x, &w64, &dy));
                let d_weight: Vec<f32> = d_weight.iter().map(|d| d - 0.5).collect();
                assert_gradient(&what, &mut data, &weight, &d_weight, |w| naive(&x64, w, &dy));
            }
        }
    }
}

/// Each head must come out as a row of the plain norm does, and so must its gradients.
fn rms_norm_heads(cpu: &Cpu) {
    let mut data = Data::new(44);
    for dim in WIDTHS {
        for (rows, heads) in [(1, 1), (3, 2), (70, 5)] {
            let (from, to) = (
                Heads { row: heads * (dim + 2) + 7, head: dim + 2, offset: 3 },
                Heads { row: heads * dim + 1, head: dim, offset: 1 },
            );
            let (x, weight) = (data.normal(rows * from.row, 1.0), data.normal(dim, 1.0));
            let before = data.normal(rows * to.row, 1.0);
            let (mut y, mut inv_rms) = (before.clone(), vec![0.0; rows * heads]);
            head_norm::rms_norm_heads(cpu, (rows, heads), (&x, from), &weight, 1e-3, (&mut y, to), &mut inv_rms);
            let dy = data.normal(rows * to.row, 1.0);
            let (mut dx, mut d_weight) = (dy.clone(), vec![0.5; dim]);
            let d = (&mut *dx, to);
            head_norm::rms_norm_heads_backward(
                cpu,
                (rows, heads),
                (&x, from),
                &weight,
                &inv_rms,
                d,
                Some(&mut d_weight),
            );
            let mut frozen = dy.clone();
            let d = (&mut frozen[..], to);
            head_norm::rms_norm_heads_backward(cpu, (rows, heads), (&x, from), &weight, &inv_rms, d, None);
            assert_same("with a frozen weight", &frozen, &dx);

            let gather = |x: &[f32], at: Heads| -> Vec<f32> {
                let head = |i: usize| &x[i / heads * at.row + i % heads * at.head + at.offset..][..dim];
                (0..rows * heads).flat_map(head).copied().collect()
            };
            let (flat, n) = (gather(&x, from), rows * heads);
            let (mut want, mut want_inv) = (vec![0.0; n * dim], vec![0.0; n]);
            norm::rms_norm(cpu, View::new(&flat, n, dim), &weight, 1e-3, &mut want, &mut want_inv);
            assert_eq!((gather(&y, to), &inv_rms), (want, &want_inv), "{rows} rows of {heads} heads of {dim}");
            assert!(y.chunks(to.row).zip(before.chunks(to.row)).all(|(y, before)| y[0] == before[0]), "beside heads");
            let (mut want, mut want_weight) = (vec![0.0; n * dim], vec![0.5; dim]);
            let (flat, dy) = (View::new(&flat, n, dim), gather(&dy, to));
            norm::rms_norm_backward(cpu, flat, &weight, &inv_rms, &dy, &mut want, dim, false, Some(&mut want_weight));
            assert_eq!((gather(&dx, to), d_weight), (want, want_weight), "{rows} rows of {heads} heads of {dim}");
        }
    }
}

fn swiglu(cpu: &Cpu) {
    let mut data = Data::new(41);
    for f in WIDTHS {
        let rows = data.pick(&[1, 4, 90]);
        let (gate_up, d_out) = (data.normal(rows * 2 * f, 2.0), data.normal(rows * f, 1.0));
        let mut d_gate_up = vec![f32::NAN; rows * 2 * f];
        elementwise::swiglu_backward(cpu, &gate_up, f, &d_out, &mut d_gate_up);
        assert_gradient(&format!("SwiGLU of {f}"), &mut data, &gate_up, &d_gate_up, |gate_up| {
            let rows = gate_up.chunks(2 * f).zip(d_out.chunks(f)).map(|(row, d_out)| {
                let y: Vec<f64> = (0..f).map(|i| row[i] / (1.0 + (-row[i]).exp()) * row[f + i]).collect();
                dot(&y, d_out)
            });
            rows.sum()
        });
    }
    // Saturated gates have the slopes 0 and 1.
    let mut d = [f32::NAN; 4];
    elementwise::swiglu_backward(cpu, &[-200.0, 200.0, 3.0, 3.0], 2, &[1.0, 1.0], &mut d);
    assert_near("saturated SwiGLU", &d, [(0.0, 1e-30), (3.0, 0.0), (0.0, 1e-30), (200.0, 0.0)]);
}

fn routing(cpu: &Cpu) {
    let mut data = Data::new(42);
    for router in routers() {
        let (e, k, rows) = (router.experts, router.per_token, 9);
        let (logits, bias) = (data.normal(rows * e, 1.5), data.normal(e, 1.0));
        let (mut scores, mut chosen, mut weights) = (vec![0.0; rows * e], vec![0; rows * k], vec![0.0; rows * k]);
        route(cpu, &router, &logits, &bias, &mut scores, &mut chosen, &mut weights);
        let d_weights = data.normal(rows * k, 1.0);
        let mut d_logits = vec![f32::NAN; rows * e];
        route_backward(cpu, &router, &scores, &chosen, &weights, &d_weights, &mut d_logits);
        assert_gradient(&format!("{router:?}"), &mut data, &logits, &d_logits, |logits| {
            let rows = chosen.chunks(k).zip(d_weights.chunks(k)).zip(logits.chunks(e)).map(|((chosen, d), logits)| {
                let scores = naive_scores(&router, logits);
                let s: Vec<f64> = chosen.iter().map(|&c| scores[c as usize]).collect();
                let total = if router.normalize { s.iter().sum::<f64>() } else { 1.0 };
                dot(&s, d) / total * f64::from(router.scaling)
            });
            rows.sum()
        });

        let (spans, alpha) = ([0..1, 1..4, 4..9], 0.7);
        let mut gained = d_logits.clone();
        let loss = balance(&router, &scores, &chosen, &spans, alpha, Some(&mut gained));
        let gained: Vec<f32> = gained.iter().zip(&d_logits).map(|(after, before)| after - before).collect();
        let naive = |logits: &[f64]| naive_balance(&router, logits, &chosen, &spans) * f64::from(alpha);
        let want = naive(&widen(&logits));
        assert_near("balance", &[loss], [(want, 1e-6 * want)]);
        // The choice is held fixed: it has no gradient.
        assert_gradient(&format!("balance of {router:?}"), &mut data, &logits, &gained, naive);
    }
}

fn naive_balance(router: &Router, logits: &[f64], chosen: &[u32], spans: &[std::ops::Range<usize>]) -> f64 {
    let (e, k) = (router.experts, router.per_token);
    let sequences = spans.iter().map(|span| {
        let tokens = span.len() as f64;
        (0..e)
            .map(|expert| {
                let times = chosen[span.start * k..span.end * k].iter().filter(|&&c| c as usize == expert).count();
                let f = e as f64 / (k as f64 * tokens) * times as f64;
                let shares = span.clone().map(|r| {
                    let row = naive_scores(router, &logits[r * e..][..e]);
                    row[expert] / row.iter().sum::<f64>()
                });
                f * shares.sum::<f64>() / tokens
            })
            .sum::<f64>()
    });
    sequences.sum()
}

fn log_probs(cpu: &Cpu) {
    let mut data = Data::new(43);
    for (rows, vocabulary, inputs) in [(1, 1, 3), (3, 5, 1), (7, 83, 9), (4, 1025, 7), (5, 2100, 4), (300, 40, 6)] {
        let inverse_temperature = 0.8;
        let (w, hidden) = (data.normal(vocabulary * inputs, 0.7), data.normal(rows * inputs, 1.0));
        let targets = data.ids(rows, vocabulary);
        let mut d_log_prob = data.normal(rows, 1.0);
        // Rows without a gradient: one, and a whole block.
        d_log_prob[rows / 2] = 0.0;
        d_log_prob.iter_mut().skip(256).for_each(|d| *d = 0.0);
        let (w_view, hidden_view) = (View::new(&w, vocabulary, inputs), View::new(&hidden, rows, inputs));
        let head = Matrix::pack(cpu, Dtype::F32, w_view);
        let mut out = vec![LogProb::default(); rows];
        log_prob(cpu, &head, hidden_view, &targets, inverse_temperature, &mut out);
        let lse: Vec<f32> = out.iter().map(|o| o.lse).collect();
        let (mut d_hidden, mut d_head) = (vec![0.25; hidden.len()], vec![0.5; w.len()]);
        log_prob_backward(
            cpu,
            &head,
            w_view,
            hidden_view,
            &targets,
            &lse,
            &d_log_prob,
            inverse_temperature,
            &mut d_hidden,
            &mut d_head,
        );
        let mut frozen = vec![0.25; hidden.len()];
        let (lse, d) = (&lse, &d_log_prob);
        log_prob_backward_frozen(
            cpu,
            &head,
            Dtype::F32,
            hidden_view,
            &targets,
            lse,
            d,
            inverse_temperature,
            &mut frozen,
        );
        assert_same("with a frozen head", &frozen, &d_hidden);
        let naive = |w: &[f64], hidden: &[f64]| -> f64 {
            let rows = hidden.chunks(inputs).zip(&targets).map(|(h, &target)| {
                let logit =
                    |w: &[f64]| f64::from(inverse_temperature) * w.iter().zip(h).map(|(w, h)| w * h).sum::<f64>();
                let sum: f64 = w.chunks(inputs).map(|w| logit(w).exp()).sum();
                logit(&w[target as usize * inputs..][..inputs]) - sum.ln()
            });
            dot(&rows.collect::<Vec<_>>(), &d_log_prob)
        };
        let less = |x: &[f32], by: f32| x.iter().map(|x| x - by).collect::<Vec<f32>>();
        let (w64, hidden64) = (widen(&w), widen(&hidden));
        let what = format!("log-probability of {rows} rows, vocabulary {vocabulary}");
        assert_gradient(&what, &mut data, &hidden, &less(&d_hidden, 0.25), |hidden| naive(&w64, hidden));
        assert_gradient(&what, &mut data, &w, &less(&d_head, 0.5), |w| naive(w, &hidden64));
    }
}
