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
        // There is no NaN here, and -0 equals 0.
        let likelier = |&a: &u32, &b: &u32| {
            let order = logits[b as usize].partial_cmp(&logits[a as usize]).unwrap_or(Ordering::Equal);
            order.then(a.cmp(&b))
        };
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

#[cfg(test)]
mod tests {
    use minke_kernels::Isa;
    use minke_kernels::random::Random;

    use super::*;
    use crate::request::Seed;

    fn cpu() -> Cpu {
        Cpu::new(Isa::choose(None).unwrap(), 1)
    }

    /// What the filters leave, by sorting everything and the standard library's exponential; none where top-p is decided by
    /// less than the rounding of `f32`.
    fn naive(logits: &[f32], sampling: &Sampling) -> Option<Vec<u32>> {
        let weight = |id: &u32| (f64::from(logits[*id as usize]) / f64::from(sampling.temperature)).exp();
        let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
        ids.sort_by(|a, b| weight(b).total_cmp(&weight(a)).then(a.cmp(b)));
        ids.truncate(sampling.top_k.unwrap_or(usize::MAX));
        if let Some(top_p) = sampling.top_p {
            let total: f64 = ids.iter().map(weight).sum();
            let (mut before, mut close) = (0.0, false);
            ids.retain(|id| {
                let short = f64::from(top_p) - before / total;
                before += weight(id);
                close |= short.abs() < 2e-6;
                short > 0.0
            });
            if close {
                return None;
            }
        }
        if let Some(min_p) = sampling.min_p {
            let largest = weight(&ids[0]);
            ids.retain(|id| weight(id) >= f64::from(min_p) * largest);
        }
        ids.sort();
        Some(ids)
    }

    #[test]
    fn filters_leave_what_their_definitions_leave() {
        let (cpu, mut sampler, random) = (cpu(), Sampler::default(), &mut Random::new(1, [0; 3]));
        let mut cut = 0;
        for round in 0..3000_u32 {
            // Coarse logits in a third of the rounds, so that there are ties.
            let step = if round % 3 == 0 { 1.0 } else { 1e-4 };
            let logits: Vec<f32> =
                (0..1 + random.below(300)).map(|_| (random.normal() * 3.0 / step).round() * step).collect();
            let mut some = |n: u32| (random.below(3) == 0).then(|| 1 + random.below(n));
            let sampling = Sampling {
                temperature: [0.3, 1.0, 2.0][round as usize % 3],
                top_k: some(100).map(|k| k as usize),
                top_p: some(19).map(|p| p as f32 / 20.0 + 0.0123),
                min_p: some(19).map(|p| p as f32 / 20.0 + 0.0123),
                seed: Seed { seed: 2, stream: [0, 0, round] },
            };
            let Some(expected) = naive(&logits, &sampling) else { continue };
            sampler.filter(&cpu, &logits, &sampling);
            assert_eq!(sampler.ids, expected, "{sampling:?} of {logits:?}");
            cut += usize::from(expected.len() < logits.len() && expected.len() > 1);
            let choice = sampler.choose(&cpu, &logits, &sampling, 5).unwrap();
            assert!(expected.contains(&choice.id));
            let weight = |id: u32| (f64::from(logits[id as usize]) / f64::from(sampling.temperature)).exp();
            let p = weight(choice.id) / expected.iter().map(|&id| weight(id)).sum::<f64>();
            assert!((p.ln() - f64::from(choice.log_prob)).abs() < 1e-5, "{} is not ln {p}", choice.log_prob);
        }
        assert!(cut > 1000, "only {cut} rounds cut anything");
    }

    #[test]
    fn tokens_come_as_often_as_they_should() {
        let (cpu, mut sampler) = (cpu(), Sampler::default());
        let logits = [1.0, f32::NEG_INFINITY, 0.0, -1.0, 2.5, -4.0, 1.5, 0.5];
        for (sampling, left) in [
            (Sampling::default(), vec![0, 2, 3, 4, 5, 6, 7]),
            (Sampling { temperature: 2.0, top_k: Some(4), ..Sampling::default() }, vec![0, 4, 6, 7]),
        ] {
            const DRAWS: usize = 100_000;
            let mut counts = [0_usize; 8];
            let (mut surprise, mut entropy) = (0.0, 0.0);
            for position in 0..DRAWS {
                let choice = sampler.choose(&cpu, &logits, &sampling, position).unwrap();
                counts[choice.id as usize] += 1;
                surprise -= f64::from(choice.log_prob) / DRAWS as f64;
                entropy = f64::from(choice.entropy);
            }
            assert!((surprise - entropy).abs() < 0.01, "a mean surprise of {surprise} and an entropy of {entropy}");
            let weight = |id: usize| (f64::from(logits[id]) / f64::from(sampling.temperature)).exp();
            let total: f64 = left.iter().map(|&id| weight(id)).sum();
            let mut chi_squared = 0.0;
            for id in 0..8 {
                let expected = if left.contains(&id) { weight(id) / total * DRAWS as f64 } else { 0.0 };
                if expected == 0.0 {
                    assert_eq!(counts[id], 0, "token {id} is impossible");
                } else {
                    chi_squared += (counts[id] as f64 - expected).powi(2) / expected;
                }
            }
            // With six degrees of freedom, one in a thousand is above 22.5.
            assert!(chi_squared < 22.5, "{counts:?}: {chi_squared}");
        }
    }

    #[test]
    fn the_random_number_is_a_counter() {
        let (cpu, mut sampler) = (cpu(), Sampler::default());
        let logits: Vec<f32> = (0..50_000).map(|i| (i % 977) as f32 / 100.0).collect();
        let mut draw = |sampling: &Sampling, position| sampler.choose(&cpu, &logits, sampling, position).unwrap();
        let sampling = Sampling { seed: Seed { seed: 9, stream: [1, 2, 3] }, ..Sampling::default() };
        let first = draw(&sampling, 7);
        let others = [
            draw(&sampling, 8),
            draw(&Sampling { seed: Seed { seed: 10, ..sampling.seed }, ..sampling }, 7),
            draw(&Sampling { seed: Seed { stream: [1, 2, 4], ..sampling.seed }, ..sampling }, 7),
            draw(&Sampling { seed: Seed { stream: [1, 1, 3], ..sampling.seed }, ..sampling }, 7),
            draw(&Sampling { seed: Seed { stream: [0, 2, 3], ..sampling.seed }, ..sampling }, 7),
        ];
        assert!(others.iter().all(|other| other.id != first.id), "{first:?}, {others:?}");
        assert_eq!(draw(&sampling, 7), first);
        // A filter that keeps everything changes nothing, bit for bit.
        let kept = Sampling { top_k: Some(50_000), top_p: Some(1.0), min_p: Some(0.0), ..sampling };
        assert_eq!(draw(&kept, 7), first);
    }

    #[test]
    fn of_equals_the_lowest_id() {
        let (cpu, mut sampler) = (cpu(), Sampler::default());
        let logits = [0.0, 3.0, -0.0, 3.0, 3.0];
        let greedy = sampler.choose(&cpu, &logits, &Sampling::greedy(), 0).unwrap();
        let log_prob = 3.0 - (2.0 + 3.0 * 3.0_f64.exp()).ln();
        assert_eq!(greedy.id, 1);
        assert!((f64::from(greedy.log_prob) - log_prob).abs() < 1e-6, "at temperature 1");
        sampler.filter(&cpu, &logits, &Sampling { top_k: Some(2), ..Sampling::default() });
        assert_eq!(sampler.ids, [1, 3]);
        sampler.filter(&cpu, &logits, &Sampling { top_p: Some(0.5), ..Sampling::default() });
        assert_eq!(sampler.ids, [1, 3]);
    }

    #[test]
    fn what_is_not_a_number_is_not_sampled() {
        let (cpu, mut sampler) = (cpu(), Sampler::default());
        let default = Sampling::default();
        let all = Sampling { top_k: Some(1), top_p: Some(0.5), min_p: Some(0.5), ..default };
        for logits in [[0.0, f32::NAN, 1.0], [0.0, f32::INFINITY, 1.0], [f32::NEG_INFINITY; 3], [0.0, -f32::NAN, 1.0]] {
            for sampling in [Sampling::greedy(), default, all, Sampling { temperature: 0.01, ..default }] {
                assert_eq!(sampler.choose(&cpu, &logits, &sampling, 3), None, "{sampling:?} of {logits:?}");
            }
        }
        let lonely = [f32::NEG_INFINITY, 1e30, f32::NEG_INFINITY];
        for sampling in [Sampling::greedy(), default, all] {
            let choice = Choice { id: 1, log_prob: 0.0, entropy: 0.0 };
            assert_eq!(sampler.choose(&cpu, &lonely, &sampling, 3), Some(choice));
        }
    }
}
