//! Wavelengths of rotary position embedding (arXiv 2104.09864), and how they are stretched for longer contexts.

use minke_kernels::math;
use minke_kernels::rope::RopeTable;

use crate::config::{Attention, Config, RopeScaling, Yarn};

/// Longest table that is made, whatever a file claims: 131,072 positions.
const POSITIONS: usize = 1 << 17;

/// Positions that a model of this configuration can run.
pub(crate) fn positions(config: &Config) -> usize {
    config.max_positions.min(POSITIONS)
}

/// Cosines and sines for every position that the model can run.
pub(crate) fn table(config: &Config) -> RopeTable {
    let amplitude = match &config.rope.scaling {
        RopeScaling::Yarn(yarn) => yarn.amplitude() as f32,
        _ => 1.0,
    };
    RopeTable::new(&inverse_frequencies(config), positions(config), config.rope.interleaved, amplitude)
}

/// What latent attention's scores are multiplied by, beside 1 / sqrt(width of a head).
pub(crate) fn score_factor(config: &Config) -> f64 {
    match &config.rope.scaling {
        RopeScaling::Yarn(yarn) => yarn.score_factor(),
        _ => 1.0,
    }
}

/// Radians a position, for each pair of rotated elements.
pub(crate) fn inverse_frequencies(config: &Config) -> Vec<f64> {
    let width = match config.attention {
        Attention::Grouped { head_dim, .. } => head_dim,
        Attention::Latent { rope_dim, .. } => rope_dim,
    };
    let plain = (0..width / 2).map(|i| 1.0 / math::powf(config.rope.theta, (2 * i) as f64 / width as f64));
    match &config.rope.scaling {
        RopeScaling::Yarn(yarn) => {
            let (low, high) = yarn_ramp(yarn, config.rope.theta, width);
            let stretched = plain.enumerate().map(|(i, frequency)| {
                let long = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                frequency / yarn.factor * long + frequency * (1.0 - long)
            });
            stretched.collect()
        }
        scaling => plain.map(|frequency| stretch(scaling, frequency)).collect(),
    }
}

/// The pairs of rotated elements between which YaRN goes from no stretch to all of it (arXiv 2309.00071, section 3.2, with
/// the bounds of transformers' `_compute_yarn_parameters`).
fn yarn_ramp(yarn: &Yarn, theta: f64, width: usize) -> (f64, f64) {
    // The pair whose wave turns so often over the original context.
    let pair = |turns: f64| {
        let log = math::ln(yarn.original_max_positions as f64 / (turns * std::f64::consts::TAU));
        width as f64 * log / (2.0 * math::ln(theta))
    };
    let low = pair(yarn.beta_fast).floor().max(0.0);
    let high = pair(yarn.beta_slow).ceil().min(width as f64 - 1.0);
    // Both ends may be the same pair.
    (low, if high == low { high + 0.001 } else { high })
}

/// Of scalings that go by the wave's length alone.
fn stretch(scaling: &RopeScaling, frequency: f64) -> f64 {
    match *scaling {
        RopeScaling::None | RopeScaling::Yarn(_) => frequency,
        RopeScaling::Linear { factor } => frequency / factor,
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => {
            // Turns that the wave makes over the original context: few turns are stretched, many are not.
            let turns = original_max_positions as f64 * frequency / std::f64::consts::TAU;
            let smooth = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
            frequency / factor * (1.0 - smooth) + frequency * smooth
        }
    }
}
