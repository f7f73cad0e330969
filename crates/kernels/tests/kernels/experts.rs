//! The router, the balance loss, and the moves of rows to experts and back.

use std::cmp::Ordering;

use minke_kernels::router::{Router, Scoring, balance as balance_loss, route, update_bias};
use minke_kernels::{Cpu, elementwise};

use crate::data::{Data, EPSILON, WIDTHS, assert_near, assert_same, sum, widen};

/// Settings of many shapes: one group, several, groups of one and two, all experts chosen.
pub fn routers() -> Vec<Router> {
    let mut routers = Vec::new();
    let shapes = [
        (8, 2, 1, 1),
        (8, 3, 4, 2),
        (16, 4, 4, 1),
        (6, 2, 6, 3),
        (5, 5, 1, 1),
        (1, 1, 1, 1),
        (12, 6, 3, 2),
        (64, 6, 8, 3),
    ];
    for (i, (experts, per_token, groups, groups_per_token)) in shapes.into_iter().enumerate() {
        for (normalize, scoring) in
            [(false, Scoring::Sigmoid), (true, Scoring::Sigmoid), (false, Scoring::Softmax), (true, Scoring::Softmax)]
        {
            let scaling = [1.0, 2.5][i % 2];
            routers.push(Router { experts, per_token, scoring, groups, groups_per_token, normalize, scaling });
        }
    }
    routers
}

/// Indices of the `count` largest, lower ones first among equals, in ascending order.
fn top(values: &[f64], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].partial_cmp(&values[a]).unwrap_or(Ordering::Equal).then(a.cmp(&b)));
    order.truncate(count);
    order.sort_unstable();
    order
}

/// The scores of one row.
pub fn naive_scores(router: &Router, logits: &[f64]) -> Vec<f64> {
    match router.scoring {
        Scoring::Sigmoid => logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
        Scoring::Softmax => {
            let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let shares: Vec<f64> = logits.iter().map(|x| (x - largest).exp()).collect();
            shares.iter().map(|share| share / shares.iter().sum::<f64>()).collect()
        }
    }
}

/// The choice of one row, straight from the paper.
fn choose(router: &Router, scores: &[f32], bias: &[f32]) -> Vec<usize> {
    let size = router.experts / router.groups;
    let choice: Vec<f64> = scores.iter().zip(bias).map(|(s, b)| f64::from(s + b)).collect();
    let group_scores: Vec<f64> = choice
        .chunks(size)
        .map(|group| {
            // In f32, as the sum is made there, so that ties are the same ties.
            let best = if router.scoring == Scoring::Softmax { 1 } else { 2 };
            let best: Vec<f32> = top(group, best).iter().map(|&i| group[i] as f32).collect();
            f64::from(best.iter().sum::<f32>())
        })
        .collect();
    let groups = top(&group_scores, router.groups_per_token);
    let open = |i: usize| groups.contains(&(i / size));
    let masked: Vec<f64> = (0..router.experts).map(|i| if open(i) { choice[i] } else { f64::NEG_INFINITY }).collect();
    top(&masked, router.per_token)
}

pub fn routing(cpu: &Cpu) {
    let mut data = Data::new(20);
    for router in routers() {
        let (e, k) = (router.experts, router.per_token);
        for rows in [1, 5, 400] {
            for (kind, bias_at) in [("plain", 0.0), ("negative biases", -3.0), ("ties", 0.0), ("extremes", 0.5)] {
                let logits = match kind {
                    // Few values, so that nearly every row has ties within and between groups.
                    "ties" => data.ids(rows * e, 3).iter().map(|&x| x as f32).collect(),
                    "extremes" => data.hostile(rows * e),
                    _ => data.normal(rows * e, 2.0),
                };
                let spread = if kind == "ties" { 0.0 } else { 0.7 };
                let bias: Vec<f32> = data.normal(e, spread).iter().map(|b| b + bias_at).collect();
                let (mut scores, mut chosen) = (vec![f32::NAN; rows * e], vec![u32::MAX; rows * k]);
                let mut weights = vec![f32::NAN; rows * k];
                route(cpu, &router, &logits, &bias, &mut scores, &mut chosen, &mut weights);
                let what = format!("{router:?}, {kind}");
                let exact = logits.chunks(e).flat_map(|logits| naive_scores(&router, &widen(logits)));
                assert_near(&what, &scores, exact.map(|s| (s, (3.0 * EPSILON * s).max(1e-38))));
                for r in 0..rows {
                    let (scores, chosen) = (&scores[r * e..][..e], &chosen[r * k..][..k]);
                    let want = choose(&router, scores, &bias);
                    assert!(chosen.iter().map(|&c| c as usize).eq(want), "{what}: row {r} chose {chosen:?}");
                    let plain: Vec<f64> = chosen.iter().map(|&c| f64::from(scores[c as usize])).collect();
                    let total = if router.normalize { plain.iter().sum::<f64>() + 1e-20 } else { 1.0 };
                    let exact = plain.iter().map(|s| {
                        let w = s / total * f64::from(router.scaling);
                        (w, (k + 4) as f64 * EPSILON * w)
                    });
                    assert_near(&what, &weights[r * k..][..k], exact);
                }
            }
        }
    }
    // A NaN must not make it choose an expert twice, or none.
    let scoring = Scoring::Sigmoid;
    let router =
        Router { experts: 4, per_token: 3, scoring, groups: 2, groups_per_token: 2, normalize: true, scaling: 1.0 };
    let (mut scores, mut chosen, mut weights) = ([0.0; 4], [9; 3], [0.0; 3]);
    route(cpu, &router, &[f32::NAN; 4], &[0.0; 4], &mut scores, &mut chosen, &mut weights);
    assert_eq!(chosen, [0, 1, 2]);
}

pub fn balance(_: &Cpu) {
    let scoring = Scoring::Sigmoid;
    let router =
        Router { experts: 4, per_token: 2, scoring, groups: 1, groups_per_token: 1, normalize: true, scaling: 1.0 };
    // All experts equally likely: P is 1/4 each and f sums to E, whatever was chosen, so each sequence gives alpha.
    let chosen = [0, 1, 0, 1, 2, 3, 0, 2];
    let loss = balance_loss(&router, &[0.5; 16], &chosen, &[0..1, 1..4, 4..4], 0.25, None);
    assert!((loss - 0.5).abs() < 1e-7, "{loss}");
    let one = std::slice::from_ref(&(0..1));
    // All tokens to two experts with all the probability: each has f = 2 and P = 1/2, twice the even load.
    let loss = balance_loss(&router, &[1.0, 1.0, 0.0, 0.0], &[0, 1], one, 1.0, None);
    assert!((loss - 2.0).abs() < 1e-7, "{loss}");
    assert_eq!(balance_loss(&router, &[0.0; 4], &[0, 1], one, 1.0, Some(&mut [0.0; 4])), 0.0);

    let mut bias = [0.5, -0.5, 0.0, 1.0];
    update_bias(&[0, 7, 3, 2], 0.125, &mut bias);
    assert_eq!(bias, [0.625, -0.625, 0.0, 1.125]);
    update_bias(&[5; 4], 0.125, &mut bias);
    assert_eq!(bias, [0.625, -0.625, 0.0, 1.125]);
}

pub fn moves(cpu: &Cpu) {
    let mut data = Data::new(21);
    for d in WIDTHS {
        for (rows, k) in [(1, 1), (5, 2), (90, 3)] {
            // Each token's k places among the experts' rows, and five rows that no token has.
            let total = rows * k + 5;
            let mut slots = data.permutation(total);
            slots.truncate(rows * k);
            let (x, weights) = (data.normal(rows * d, 1.0), data.normal(rows * k, 1.0));
            let expert_out = data.normal(total * d, 1.0);

            let index = data.ids(total, rows);
            let mut gathered = vec![f32::NAN; total * d];
            elementwise::gather_rows(cpu, &x, d, &index, &mut gathered);
            let exact: Vec<f32> = index.iter().flat_map(|&i| x[i as usize * d..][..d].iter().copied()).collect();
            assert_same("gathered rows", &gathered, &exact);

            let slot = |place: usize| &expert_out[slots[place] as usize * d..][..d];
            let mut d_x = x.clone();
            elementwise::scatter_rows_add(cpu, &expert_out, d, &slots, &mut d_x);
            let mut exact = x.clone();
            for place in 0..rows * k {
                exact[place / k * d..][..d].iter_mut().zip(slot(place)).for_each(|(x, g)| *x += g);
            }
            assert_same("gradients of gathered rows", &d_x, &exact);

            let mut y = x.clone();
            elementwise::combine(cpu, &mut y, d, &expert_out, &slots, &weights);
            let exact = (0..rows * d).map(|i| {
                let (r, j) = (i / d, i % d);
                let terms = (r * k..r * k + k).map(|place| f64::from(weights[place]) * f64::from(slot(place)[j]));
                sum(terms.chain([f64::from(x[i])]), 1)
            });
            assert_near("combined rows", &y, exact);

            let (mut d_expert_out, mut d_weights) = (vec![f32::NAN; total * d], vec![f32::NAN; rows * k]);
            elementwise::combine_backward(cpu, &x, d, &expert_out, &slots, &weights, &mut d_expert_out, &mut d_weights);
            let mut exact = vec![0.0; total * d];
            for (place, &to) in slots.iter().enumerate() {
                for j in 0..d {
                    exact[to as usize * d + j] = weights[place] * x[place / k * d + j];
                }
            }
            assert_same("gradients of experts", &d_expert_out, &exact);
            let exact = (0..rows * k).map(|place| {
                let row = widen(&x[place / k * d..][..d]);
                sum(row.iter().zip(slot(place)).map(|(x, &e)| x * f64::from(e)), 1)
            });
            assert_near("gradients of weights", &d_weights, exact);
        }
    }
    let twice = std::panic::AssertUnwindSafe(|| {
        let (mut d_out, mut d_weights) = ([0.0; 2], [0.0; 2]);
        elementwise::combine_backward(cpu, &[1.0; 2], 1, &[1.0; 2], &[1, 1], &[1.0; 2], &mut d_out, &mut d_weights);
    });
    assert!(std::panic::catch_unwind(twice).is_err(), "a slot with two owners must be refused");
}
