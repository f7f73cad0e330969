//! Routers of mixtures of experts: DeepSeek-V3's (arXiv 2412.19437, section 2.1.2), with sigmoid scores and a bias that
//! only chooses; the softmax routers of DeepSeek-V2 (arXiv 2405.04434, section 2.2) and Qwen3; the sequence-wise balance
//! loss.

use std::ops::Range;

use crate::blocks::{chunks_mut_3, rows_per_task};
use crate::cpu::Cpu;
use crate::math;

/// The cost of an expert's score in a row, in elements of plain arithmetic.
const COST: usize = 8;

/// What a router makes of its logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scoring {
    /// Each score by itself; a group of experts is as good as the sum of its two best.
    Sigmoid,
    /// Scores that sum to 1 over all experts; a group is as good as its best.
    Softmax,
}

/// How tokens choose experts.
#[derive(Clone, Debug, PartialEq)]
pub struct Router {
    /// E: experts to choose from.
    pub experts: usize,
    /// k: experts that a token goes to.
    pub per_token: usize,
    /// Logits to scores, and scores of groups.
    pub scoring: Scoring,
    /// Groups that the experts are divided into, evenly and in order.
    pub groups: usize,
    /// Groups that a token's experts may come from.
    pub groups_per_token: usize,
    /// Whether the weights of a token are made to sum to 1 before scaling.
    pub normalize: bool,
    /// Factor on the weights.
    pub scaling: f32,
}

impl Router {
    /// # Panics
    /// If the settings contradict each other; who reads them from a file checks them first.
    fn assert_sound(&self) {
        let Router { experts, per_token, groups, groups_per_token, .. } = *self;
        assert!(groups > 0 && experts.is_multiple_of(groups), "{experts} experts in {groups} groups");
        assert!((1..=groups).contains(&groups_per_token), "{groups_per_token} of {groups} groups");
        assert!(
            (1..=groups_per_token * (experts / groups)).contains(&per_token),
            "{per_token} experts a token from {groups_per_token} groups of {}",
            experts / groups
        );
    }

    /// Rows in `len` entries of k.
    fn rows(&self, len: usize) -> usize {
        assert!(len.is_multiple_of(self.per_token), "{len} choices of {} a token", self.per_token);
        len / self.per_token
    }

    /// What the scores of a row's chosen experts are divided by before scaling.
    fn norm(&self, scores: &[f32], chosen: &[u32]) -> f32 {
        if self.normalize { chosen.iter().map(|&e| scores[e as usize]).sum::<f32>() + 1e-20 } else { 1.0 }
    }

    /// Marks the experts that a row may choose with `true`: those of the best groups.
    fn open_groups(&self, choice: &[f32], open: &mut [bool], group_scores: &mut [f32], group_open: &mut [bool]) {
        let size = self.experts / self.groups;
        for (score, group) in group_scores.iter_mut().zip(choice.chunks_exact(size)) {
            let [mut first, mut second] = [f32::NEG_INFINITY; 2];
            for &c in group {
                if c > first {
                    (first, second) = (c, first);
                } else if c > second {
                    second = c;
                }
            }
            *score = if size == 1 || self.scoring == Scoring::Softmax { first } else { first + second };
        }
        group_open.fill(false);
        for _ in 0..self.groups_per_token {
            take_best(group_scores, group_open, |_| true);
        }
        for (open, &group_open) in open.chunks_exact_mut(size).zip(&*group_open) {
            open.fill(group_open);
        }
    }
}

/// Marks the best of the allowed that are not taken: the lowest index where scores are equal.
fn take_best(scores: &[f32], taken: &mut [bool], allowed: impl Fn(usize) -> bool) {
    let mut best = None;
    for (i, &score) in scores.iter().enumerate() {
        if !taken[i] && allowed(i) && best.is_none_or(|b: usize| score > scores[b]) {
            best = Some(i);
        }
    }
    if let Some(best) = best {
        taken[best] = true;
    }
}

/// Scores, choices and weights of each row.
///
/// `scores` = sigmoid or softmax of `logits`, rows by E. A row's `chosen` experts, k of them in ascending order, are the best
/// by score + bias within the best groups; ties go to the lower index. Its `weights` are the plain scores of those, divided by
/// their sum + 1e-20 when `router.normalize`, times `router.scaling`. `bias` has E numbers, or none.
///
/// A masked expert is out, not at 0: with negative biases, 0 would win.
pub fn route(
    cpu: &Cpu,
    router: &Router,
    logits: &[f32],
    bias: &[f32],
    scores: &mut [f32],
    chosen: &mut [u32],
    weights: &mut [f32],
) {
    router.assert_sound();
    let (e, k, rows) = (router.experts, router.per_token, router.rows(chosen.len()));
    assert_eq!((logits.len(), scores.len(), weights.len()), (rows * e, rows * e, rows * k), "routing");
    assert!([0, e].contains(&bias.len()), "{} biases of {e} experts", bias.len());
    let block = rows_per_task(rows, e * COST);
    chunks_mut_3(
        cpu.pool(),
        (scores, block * e),
        (chosen, block * k),
        (weights, block * k),
        |i, scores, chosen, weights| {
            let (mut choice, mut open, mut taken) = (vec![0.0; e], vec![true; e], vec![false; e]);
            let (mut group_scores, mut group_open) = (vec![0.0; router.groups], vec![false; router.groups]);
            let outputs = scores.chunks_exact_mut(e).zip(chosen.chunks_exact_mut(k)).zip(weights.chunks_exact_mut(k));
            for (r, ((scores, chosen), weights)) in outputs.enumerate() {
                let logits = &logits[(i * block + r) * e..][..e];
                match router.scoring {
                    Scoring::Sigmoid => scores.iter_mut().zip(logits).for_each(|(s, &x)| *s = math::sigmoid(x)),
                    Scoring::Softmax => softmax(logits, scores),
                }
                choice.copy_from_slice(scores);
                choice.iter_mut().zip(bias).for_each(|(choice, bias)| *choice += bias);
                if router.groups_per_token < router.groups {
                    router.open_groups(&choice, &mut open, &mut group_scores, &mut group_open);
                }
                taken.fill(false);
                for _ in 0..k {
                    take_best(&choice, &mut taken, |j| open[j]);
                }
                for (slot, expert) in chosen.iter_mut().zip((0..e).filter(|&j| taken[j])) {
                    *slot = expert as u32;
                }
                let norm = router.norm(scores, chosen);
                for (weight, &expert) in weights.iter_mut().zip(&*chosen) {
                    *weight = scores[expert as usize] / norm * router.scaling;
                }
            }
        },
    );
}

/// Shares of e to the power of each logit, in the order of the experts.
fn softmax(logits: &[f32], scores: &mut [f32]) {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for (score, &x) in scores.iter_mut().zip(logits) {
        let share = math::exp(f64::from(x) - f64::from(largest));
        *score = share as f32;
        sum += share;
    }
    scores.iter_mut().for_each(|score| *score = (f64::from(*score) / sum) as f32);
}

/// Gradient of [`route`]'s weights: sets `d_logits`, rows by E, from `d_weights`, rows by k. Choices have no gradient.
pub fn route_backward(
    cpu: &Cpu,
    router: &Router,
    scores: &[f32],
    chosen: &[u32],
    weights: &[f32],
    d_weights: &[f32],
    d_logits: &mut [f32],
) {
    router.assert_sound();
    let (e, k, rows) = (router.experts, router.per_token, router.rows(chosen.len()));
    assert_eq!((scores.len(), d_logits.len()), (rows * e, rows * e), "routing backward");
    assert_eq!((weights.len(), d_weights.len()), (rows * k, rows * k), "routing backward");
    let block = rows_per_task(rows, e);
    cpu.pool().chunks_mut(d_logits, block * e, |i, d_logits| {
        for (r, d_logits) in d_logits.chunks_exact_mut(e).enumerate() {
            let r = i * block + r;
            let (scores, chosen) = (&scores[r * e..][..e], &chosen[r * k..][..k]);
            let (weights, d_weights) = (&weights[r * k..][..k], &d_weights[r * k..][..k]);
            // w_j = scaling * s_j / norm, and where norm is their sum: dL/ds_j = (scaling * dw_j - sum of dw w) / norm.
            let norm = router.norm(scores, chosen);
            let shared = match router.normalize {
                true => weights.iter().zip(d_weights).map(|(w, d)| w * d).sum::<f32>(),
                false => 0.0,
            };
            d_logits.fill(0.0);
            for (&expert, &d_weight) in chosen.iter().zip(d_weights) {
                d_logits[expert as usize] = (router.scaling * d_weight - shared) / norm;
            }
            // d_logits holds dL/ds so far.
            match router.scoring {
                Scoring::Sigmoid => d_logits.iter_mut().zip(scores).for_each(|(d, s)| *d *= s * (1.0 - s)),
                Scoring::Softmax => {
                    let mean: f32 = d_logits.iter().zip(scores).map(|(d, s)| d * s).sum();
                    d_logits.iter_mut().zip(scores).for_each(|(d, s)| *d = s * (*d - mean));
                }
            }
        }
    });
}

/// The sequence-wise balance loss (equations 17 to 20), summed over the sequences whose rows are `spans`, and its
/// gradient, added to `d_logits` where given.
///
/// For a sequence of T rows: alpha * sum over experts of f * P, f = E / (k T) * rows that chose the expert (with the
/// bias, as routed), P = mean over rows of score / sum of the row's scores. f has no gradient.
pub fn balance(
    router: &Router,
    scores: &[f32],
    chosen: &[u32],
    spans: &[Range<usize>],
    alpha: f32,
    mut d_logits: Option<&mut [f32]>,
) -> f32 {
    router.assert_sound();
    let (e, k, rows) = (router.experts, router.per_token, router.rows(chosen.len()));
    assert_eq!(scores.len(), rows * e, "balance of {rows} rows");
    assert!(d_logits.as_ref().is_none_or(|d| d.len() == rows * e), "balance of {rows} rows");
    let mut loss = 0.0;
    for span in spans.iter().filter(|span| !span.is_empty()) {
        let (tokens, alpha) = (span.len() as f64, f64::from(alpha));
        let mut frequency = vec![0.0; e];
        for &expert in &chosen[span.start * k..span.end * k] {
            frequency[expert as usize] += e as f64 / (k as f64 * tokens);
        }
        for r in span.clone() {
            let scores = &scores[r * e..][..e];
            let total: f64 = scores.iter().map(|&s| f64::from(s)).sum();
            if total == 0.0 {
                // Every score of the row has underflowed: there is no share to speak of, and no slope.
                continue;
            }
            let weighted = scores.iter().zip(&frequency).map(|(&s, f)| f64::from(s) * f).sum::<f64>() / total;
            loss += alpha / tokens * weighted;
            if let Some(d_logits) = d_logits.as_deref_mut() {
                for ((d, &s), f) in d_logits[r * e..][..e].iter_mut().zip(scores).zip(&frequency) {
                    let s = f64::from(s);
                    let slope = match router.scoring {
                        Scoring::Sigmoid => s * (1.0 - s),
                        // The shares sum to 1 already, so that what softmax takes off on average is 0.
                        Scoring::Softmax => s,
                    };
                    *d += (alpha / tokens * (f - weighted) / total * slope) as f32;
                }
            }
        }
    }
    loss as f32
}

/// Moves each expert's bias by `gamma` towards the mean load: up when it had less, down when it had more.
///
/// `counts` are the tokens that went to each expert in a step.
pub fn update_bias(counts: &[u64], gamma: f32, bias: &mut [f32]) {
    assert_eq!(counts.len(), bias.len(), "a load for each expert");
    let total: u128 = counts.iter().map(|&c| u128::from(c)).sum();
    for (bias, &count) in bias.iter_mut().zip(counts) {
        match (u128::from(count) * counts.len() as u128).cmp(&total) {
            std::cmp::Ordering::Less => *bias += gamma,
            std::cmp::Ordering::Greater => *bias -= gamma,
            std::cmp::Ordering::Equal => {}
        }
    }
}
