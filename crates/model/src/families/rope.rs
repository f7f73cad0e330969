//! Rotary keys of `config.json`, in the words of transformers 4 and 5.

use serde_json::{Value, json};

use super::extend;
use super::keys::Keys;
use crate::config::{Rope, RopeScaling, Yarn};
use crate::error::{Error, Result, quoted};

/// Rotary keys: transformers 5 nests them in `rope_parameters`; 4 has `rope_theta`, and `rope_scaling` beside it.
/// Where both are written, `rope_scaling` wins over `rope_parameters`, as in transformers 5.
pub(super) fn from_json(keys: Keys<'_>, interleaved: bool) -> Result<Rope> {
    let scaling = match keys.object("rope_scaling", "rope_scaling.")? {
        Some(scaling) => Some(scaling),
        None => keys.object("rope_parameters", "rope_parameters.")?,
    };
    let outer_theta = keys.number_or("rope_theta", 10_000.0)?;
    whole_heads(keys)?;
    let Some(scaling) = scaling else {
        return Ok(Rope { theta: outer_theta, interleaved, scaling: RopeScaling::None });
    };
    whole_heads(scaling)?;
    scaling.only("truncate", &json!(true))?;
    let theta = scaling.number_or("rope_theta", outer_theta)?;
    let kind = match scaling.word("rope_type")? {
        Some(kind) => Some(kind),
        None => scaling.word("type")?,
    };
    let scaling = match kind {
        None | Some("default") => RopeScaling::None,
        Some("linear") => RopeScaling::Linear { factor: scaling.number("factor")? },
        Some("llama3") => RopeScaling::Llama3 {
            factor: scaling.number("factor")?,
            low_freq_factor: scaling.number("low_freq_factor")?,
            high_freq_factor: scaling.number("high_freq_factor")?,
            original_max_positions: original_max_positions(keys, scaling)?,
        },
        Some("yarn") => RopeScaling::Yarn(Yarn {
            factor: scaling.number("factor")?,
            beta_fast: scaling.number_or("beta_fast", 32.0)?,
            beta_slow: scaling.number_or("beta_slow", 1.0)?,
            original_max_positions: original_max_positions(keys, scaling)?,
            attention_factor: scaling.optional_number("attention_factor")?,
            mscale: scaling.optional_number("mscale")?,
            mscale_all_dim: scaling.optional_number("mscale_all_dim")?,
        }),
        Some(other) => {
            return Err(Error::new(format!(
                "rope_scaling has the type {}; the types that load are default, linear, llama3 and yarn",
                quoted(other)
            )));
        }
    };
    Ok(Rope { theta, interleaved, scaling })
}

fn original_max_positions(keys: Keys<'_>, scaling: Keys<'_>) -> Result<usize> {
    match scaling.optional_size("original_max_position_embeddings")? {
        Some(positions) => Ok(positions),
        None => keys.size("max_position_embeddings"),
    }
}

/// Refuses rotary positions on a part of each head only.
fn whole_heads(keys: Keys<'_>) -> Result<()> {
    match keys.number_or("partial_rotary_factor", 1.0)? {
        1.0 => Ok(()),
        part => Err(Error::new(format!("partial_rotary_factor is {part}; only whole heads (1) are supported"))),
    }
}

pub(super) fn to_json(rope: &Rope) -> Value {
    let scaling = match &rope.scaling {
        RopeScaling::None => Value::Null,
        RopeScaling::Linear { factor } => json!({ "rope_type": "linear", "factor": factor }),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor,
            "original_max_position_embeddings": original_max_positions,
        }),
        RopeScaling::Yarn(yarn) => {
            let mut json = json!({
                "rope_type": "yarn",
                "type": "yarn",
                "factor": yarn.factor,
                "beta_fast": yarn.beta_fast,
                "beta_slow": yarn.beta_slow,
                "original_max_position_embeddings": yarn.original_max_positions,
            });
            let optional = [
                ("attention_factor", yarn.attention_factor),
                ("mscale", yarn.mscale),
                ("mscale_all_dim", yarn.mscale_all_dim),
            ];
            for (key, value) in optional {
                if let Some(value) = value {
                    extend(&mut json, json!({ key: value }));
                }
            }
            json
        }
    };
    let mut parameters = if scaling.is_null() { json!({ "rope_type": "default" }) } else { scaling.clone() };
    extend(&mut parameters, json!({ "rope_theta": rope.theta }));
    json!({ "rope_theta": rope.theta, "rope_scaling": scaling, "rope_parameters": parameters })
}
