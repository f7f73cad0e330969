//! Logits to a token: temperature, top-k, top-p, min-p, and a random number that is a counter.

use std::cmp::Ordering;

use minke_kernels::log_prob::{log_sum_exp, probabilities};
use minke_kernels::random::uniform;
use minke_kernels::{Cpu, math};

use crate::request::Sampling;

/// A token, with the log-probability and the entropy of the distribution that it was sampled from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Choice {
    pub id: u32,
    pub log_prob: f32,
    pub entropy: f32,
}

/// Room for the tokens that filters leave; results do not depend on earlier use.
#[derive(Default)]
pub(crate) struct Sampler {
    /// Ascending.
    ids: Vec<u32>,
    /// Their logits.
    logits: Vec<f32>,
    probabilities: Vec<f32>,
}

impl Sampler {
    /// Chooses the token at `position`; none where the logits are not finite.
    pub fn choose(&mut self, cpu: &Cpu, logits: &[f32], sampling: &Sampling, position: usize) -> Option<Choice> {
        if sampling.temperature == 0.0 {
            return score(cpu, logits, sampling, most_likely(logits));
        }
        let filtered = sampling.top_k.is_some() || sampling.top_p.is_some() || sampling.min_p.is_some();
        if !filtered {
            return self.draw(cpu, logits, sampling, position);
        }
        // A filter could drop the logit that is not a number.
        if !log_sum_exp(cpu, logits, sampling.inverse_temperature()).0.is_finite() {
            return None;
        }
        self.filter(cpu, logits, sampling);
        let left = std::mem::take(&mut self.logits);
        let choice = self.draw(cpu, &left, sampling, position);
        self.logits = left;
        choice.map(|choice| Choice { id: self.ids[choice.id as usize], ..choice })
    }

    /// Draws from softmax(logits / temperature): the first index at which the running sum, in order, exceeds the random number.
    fn draw(&mut self, cpu: &Cpu, logits: &[f32], sampling: &Sampling, position: usize) -> Option<Choice> {
        let inverse_temperature = sampling.inverse_temperature();
        let (lse, entropy) = log_sum_exp(cpu, logits, inverse_temperature);
        if !lse.is_finite() {
            return None;
        }
        self.probabilities.clear();
        self.probabilities.extend_from_slice(logits);
        probabilities(cpu, &mut self.probabilities, inverse_temperature, lse);
        let [x, y, z] = sampling.seed.stream;
        let random = f64::from(uniform(sampling.seed.seed, [x, y, z, position as u32]));
        let (mut sum, mut id) = (0.0, 0);
        for (i, &p) in self.probabilities.iter().enumerate() {
            if p > 0.0 {
                // Where rounding leaves the sum below the number, the last possible token stands.
                id = i;
                sum += f64::from(p);
                if sum > random {
                    break;
                }
            }
        }
        Some(Choice { id: id as u32, log_prob: logits[id] * inverse_temperature - lse, entropy })
    }

    /// Leaves the tokens that pass top-k, then top-p, then min-p in `ids`, and their logits in `logits`.
    fn filter(&mut self, cpu: &Cpu, logits: &[f32], sampling: &Sampling) {
        let likelier =
            |&a: &u32, &b: &u32| -> Ordering { logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)) };
        self.ids.clear();
        self.ids.extend(0..logits.len() as u32);
        if let Some(k) = sampling.top_k.filter(|&k| k < logits.len()) {
            self.ids.select_nth_unstable_by(k - 1, likelier);
            self.ids.truncate(k);
            self.ids.sort_unstable();
        }
        self.gather(logits);
        if let Some(top_p) = sampling.top_p.filter(|&top_p| top_p < 1.0) {
            let (lse, _) = log_sum_exp(cpu, &self.logits, sampling.inverse_temperature());
            probabilities(cpu, &mut self.logits, sampling.inverse_temperature(), lse);
            self.probabilities.resize(logits.len(), 0.0);
            // Tokens below this weigh, all together, at most half of what may go, so they need no sorting.
            let floor = 0.5 * (1.0 - top_p) / self.ids.len() as f32;
            let mut likely = Vec::new();
            for (&id, &p) in self.ids.iter().zip(&self.logits) {
                self.probabilities[id as usize] = p;
                if p >= floor {
                    likely.push(id);
                }
            }
            likely.sort_unstable_by(likelier);
            let mut sum = 0.0;
            let enough = likely.iter().position(|&id| {
                sum += f64::from(self.probabilities[id as usize]);
                sum >= f64::from(top_p)
            });
            likely.truncate(enough.map_or(likely.len(), |last| last + 1));
            likely.sort_unstable();
            if !likely.is_empty() {
                self.ids = likely;
            }
            self.gather(logits);
        }
        if let Some(min_p) = sampling.min_p {
            let scaled = |logit: f32| f64::from(logit) * f64::from(sampling.inverse_temperature());
            let largest = self.logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let least = scaled(largest) + math::ln(f64::from(min_p));
            self.ids.retain(|&id| scaled(logits[id as usize]) >= least);
            self.gather(logits);
        }
    }

    fn gather(&mut self, logits: &[f32]) {
        self.logits.clear();
        self.logits.extend(self.ids.iter().map(|&id| logits[id as usize]));
    }
}

/// A token that is given, with its log-probability over the whole vocabulary; none where the logits are not finite.
pub(crate) fn score(cpu: &Cpu, logits: &[f32], sampling: &Sampling, id: u32) -> Option<Choice> {
    let inverse_temperature = sampling.inverse_temperature();
    let (lse, entropy) = log_sum_exp(cpu, logits, inverse_temperature);
    let log_prob = logits[id as usize] * inverse_temperature - lse;
    lse.is_finite().then_some(Choice { id, log_prob, entropy })
}

/// The largest logit, of equals the lowest id.
fn most_likely(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = id;
        }
    }
    best as u32
}
