//! Log-probabilities: of targets through the head, and of whole rows of logits.

use minke_kernels::gemm::linear;
use minke_kernels::log_prob::{LogProb, log_prob, log_sum_exp};
use minke_kernels::{Cpu, Dtype, Matrix, View};

use crate::data::{Data, EPSILON, Exact, assert_near, widen};

/// Vocabularies below, at and above one chunk, and a real one.
const VOCABULARIES: [usize; 6] = [1, 5, 83, 1024, 1025, 49_152];

/// (log-sum-exp, entropy) of logits times the inverse temperature.
fn exact(logits: &[f64], inverse_temperature: f64) -> (f64, f64) {
    let z: Vec<f64> = logits.iter().map(|x| x * inverse_temperature).collect();
    let max = z.iter().fold(f64::NEG_INFINITY, |m, &z| m.max(z));
    let sum: f64 = z.iter().map(|z| (z - max).exp()).sum();
    let lse = max + sum.ln();
    let entropy = z.iter().map(|z| (z - lse).exp() * (lse - z)).filter(|h| !h.is_nan()).sum();
    (lse, entropy)
}

pub fn whole_rows(cpu: &Cpu) {
    let mut data = Data::new(30);
    for vocabulary in VOCABULARIES {
        for (scale, at, holes) in
            [(1.0, 0.0, false), (10.0, 500.0, true), (1e-3, -1e4, false), (1e4, 0.0, true), (0.0, 0.0, false)]
        {
            for inverse_temperature in [0.3, 1.0, 2.0] {
                let mut logits: Vec<f32> = data.normal(vocabulary, scale).iter().map(|x| x + at).collect();
                if holes && vocabulary > 1 {
                    // The first chunk may hold nothing but holes.
                    logits[..vocabulary.min(1030) - 1].fill(f32::NEG_INFINITY);
                    logits.iter_mut().step_by(3).skip(1).for_each(|x| *x = f32::NEG_INFINITY);
                    logits[vocabulary - 1] = at;
                }
                let (lse, entropy) = log_sum_exp(cpu, &logits, inverse_temperature);
                let (lse64, entropy64) = exact(&widen(&logits), f64::from(inverse_temperature));
                let what = format!("{vocabulary} logits of {at} ± {scale}, {inverse_temperature}");
                // z is rounded twice; then sums of up to 128 a lane and of chunks, and exponentials good to 2 roundings.
                let z = f64::from(logits.iter().fold(0.0_f32, |m, x| if x.is_finite() { m.max(x.abs()) } else { m }));
                let off = 2.0 * EPSILON * z * f64::from(inverse_temperature);
                assert_near(&what, &[lse], [(lse64, off + 200.0 * EPSILON)]);
                assert_near(&what, &[entropy], [(entropy64, (1.0 + entropy64) * (off + 400.0 * EPSILON))]);
            }
        }
    }
    let (lse, _) = log_sum_exp(cpu, &[0.0, f32::NAN], 1.0);
    assert!(lse.is_nan(), "a NaN among the logits must show");
    let mut logits = vec![f32::NAN; 1024];
    logits.push(0.0);
    assert!(log_sum_exp(cpu, &logits, 1.0).0.is_nan(), "a chunk of NaN must show");
    assert_eq!(log_sum_exp(cpu, &[f32::NEG_INFINITY; 3], 1.0).0, f32::NEG_INFINITY);
}

pub fn forward(cpu: &Cpu) {
    let mut data = Data::new(31);
    for vocabulary in VOCABULARIES {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            // With more than 256 rows there are two blocks.
            let rows = if vocabulary == 83 { 300 } else { 7 };
            let inputs = data.size(1, 40);
            let w = data.normal(vocabulary * inputs, 0.7);
            let head = Matrix::pack(cpu, dtype, View::new(&w, vocabulary, inputs));
            let (hidden, targets) = (data.normal(rows * inputs, 1.0), data.ids(rows, vocabulary));
            let hidden = View::new(&hidden, rows, inputs);
            let inverse_temperature = data.pick(&[0.5, 1.0, 1.25]);
            let mut out = vec![LogProb::default(); rows];
            log_prob(cpu, &head, hidden, &targets, inverse_temperature, &mut out);

            let mut logits = vec![0.0; rows * vocabulary];
            linear(cpu, &head, hidden, &mut logits);
            for r in 0..rows {
                let logits = &logits[r * vocabulary..][..vocabulary];
                let what = format!("row {r} of {vocabulary} {dtype:?} logits at {inverse_temperature}");
                // The sampler's way, bit for bit.
                let (lse, entropy) = log_sum_exp(cpu, logits, inverse_temperature);
                let chosen = logits[targets[r] as usize] * inverse_temperature - lse;
                assert_eq!(out[r], LogProb { log_prob: chosen, lse, entropy }, "{what}");
                if dtype == Dtype::F32 {
                    let exact_logits: Vec<f64> =
                        w.chunks(inputs).map(|w| crate::data::dot(&widen(w), hidden.row(r))).collect();
                    let it = f64::from(inverse_temperature);
                    let (lse, entropy) = exact(&exact_logits, it);
                    let near = |x: f64| -> [Exact; 1] { [(x, 3e-5)] };
                    assert_near(&what, &[out[r].lse], near(lse));
                    assert_near(&what, &[out[r].entropy], near(entropy));
                    assert_near(&what, &[out[r].log_prob], near(exact_logits[targets[r] as usize] * it - lse));
                }
            }
        }
    }
}
