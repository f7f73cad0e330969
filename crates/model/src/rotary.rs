//! Wavelengths of rotary position embedding (arXiv 2104.09864), and how they are stretched for longer contexts.

use minke_kernels::math;
use minke_kernels::rope::RopeTable;

use crate::config::{Attention, Config, RopeScaling};

/// Longest table that is made, whatever a file claims: 131,072 positions.
const POSITIONS: usize = 1 << 17;

/// Positions that a model of this configuration can run.
pub(crate) fn positions(config: &Config) -> usize {
    config.max_positions.min(POSITIONS)
}

/// Cosines and sines for every position that the model can run.
pub(crate) fn table(config: &Config) -> RopeTable {
    RopeTable::new(&inverse_frequencies(config), positions(config), config.rope.interleaved)
}

/// Radians a position, for each pair of rotated elements.
pub(crate) fn inverse_frequencies(config: &Config) -> Vec<f64> {
    let width = match config.attention {
        Attention::Grouped { head_dim, .. } => head_dim,
        Attention::Latent { rope_dim, .. } => rope_dim,
    };
    let plain = (0..width / 2).map(|i| 1.0 / math::powf(config.rope.theta, (2 * i) as f64 / width as f64));
    plain.map(|frequency| stretch(&config.rope.scaling, frequency)).collect()
}

fn stretch(scaling: &RopeScaling, frequency: f64) -> f64 {
    match *scaling {
        RopeScaling::None => frequency,
        RopeScaling::Linear { factor } => frequency / factor,
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => {
            // Turns that the wave makes over the original context: few turns are stretched, many are not.
            let turns = original_max_positions as f64 * frequency / std::f64::consts::TAU;
            let smooth = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
            frequency / factor * (1.0 - smooth) + frequency * smooth
        }
    }
}
