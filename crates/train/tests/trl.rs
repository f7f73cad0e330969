//! Advantages and losses against those of TRL's own trainer (golden/losses).

use std::path::Path;

use minke_train::advantages::{Scale, advantages};
use minke_train::loss::{Clip, Loss, Tokens, Totals, token_losses};
use serde_json::Value;

fn numbers(json: &Value) -> Vec<f32> {
    json.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

/// The rows of a padded table, cut to their lengths, one behind the other.
fn ragged(json: &Value, lengths: &[usize]) -> Vec<f32> {
    let rows = json.as_array().unwrap();
    assert_eq!(rows.len(), lengths.len());
    rows.iter().zip(lengths).flat_map(|(row, &length)| numbers(row)[..length].to_vec()).collect()
}

fn close(ours: f64, theirs: f64, scale: f64) -> bool {
    (ours - theirs).abs() <= 1e-5 * scale
}

#[test]
fn advantages_and_losses_are_those_of_trl() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/losses/grpo.json");
    let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let group = golden["num_generations"].as_u64().unwrap() as usize;
    let longest = golden["max_completion_length"].as_u64().unwrap() as usize;
    let rewards = numbers(&golden["rewards"]);
    let lengths: Vec<usize> =
        golden["mask"].as_array().unwrap().iter().map(|row| numbers(row).iter().sum::<f32>() as usize).collect();
    let old = ragged(&golden["old_logps"], &lengths);
    let totals = Totals { completions: lengths.len(), tokens: old.len(), max_completion_length: longest };

    let mut seen = Vec::new();
    let cases = (0..).map_while(|i| golden.get(format!("case.{i}")));
    for case in cases {
        let word = |key: &str| case[key].as_str().unwrap();
        let scale = match word("scale_rewards") {
            "group" => Scale::Group,
            "batch" => Scale::Batch,
            "none" => Scale::None,
            other => panic!("scale_rewards {other}"),
        };
        let ours = advantages(&rewards, group, scale);
        for (ours, theirs) in ours.iter().zip(numbers(&case["advantages"])) {
            assert!(close(f64::from(*ours), f64::from(theirs), 1.0), "{ours} {theirs}");
        }
        let loss = match word("loss_type") {
            "grpo" => Loss::Grpo,
            "dr_grpo" => Loss::DrGrpo,
            "dapo" => Loss::Dapo,
            // Not offered: bnpo averages over a micro-batch, whose size should not matter.
            "bnpo" => continue,
            other => panic!("loss_type {other}"),
        };
        if case.get("beta").is_some() {
            continue; // There is no penalty for leaving a reference model here.
        }
        let [epsilon, epsilon_high] = ["epsilon", "epsilon_high"].map(|key| case[key].as_f64().unwrap() as f32);
        let parts = case.get("micro_batches").map_or(1, |n| n.as_u64().unwrap() as usize);
        for (update, (expected, log_probs)) in
            case["updates"].as_array().unwrap().iter().zip(golden["logps"].as_array().unwrap()).enumerate()
        {
            let log_probs = ragged(log_probs, &lengths);
            // In one piece or several, the step's loss is the same.
            let (mut value, mut gradient, mut clipped) = (0.0, Vec::new(), [0, 0]);
            let (mut token, size) = (0, lengths.len() / parts);
            for part in 0..parts {
                let completions = part * size..(part + 1) * size;
                let tokens = token..token + lengths[completions.clone()].iter().sum::<usize>();
                token = tokens.end;
                let result = token_losses(
                    loss,
                    Clip { epsilon, epsilon_high },
                    totals,
                    Tokens {
                        lengths: &lengths[completions.clone()],
                        advantages: &ours[completions],
                        log_probs: &log_probs[tokens.clone()],
                        old_log_probs: &old[tokens],
                    },
                );
                value += result.loss;
                gradient.extend(result.gradient);
                clipped = [clipped[0] + result.clipped_low, clipped[1] + result.clipped_high];
            }
            assert!(close(value, expected["loss"].as_f64().unwrap(), 0.1), "{loss:?} update {update}: {value}");
            let theirs = ragged(&expected["grad"], &lengths);
            assert_eq!(gradient.len(), theirs.len());
            for (ours, theirs) in gradient.iter().zip(&theirs) {
                assert!(close(f64::from(*ours), f64::from(*theirs), 0.1), "{loss:?} update {update}: {ours} {theirs}");
            }
            assert_eq!(clipped.iter().all(|&n| n > 0), update > 0, "the updates past the first reach both clips");
            seen.push((loss, parts));
        }
    }
    for loss in [Loss::Grpo, Loss::DrGrpo, Loss::Dapo] {
        assert!(seen.contains(&(loss, 1)) && seen.contains(&(loss, 2)), "no golden for {loss:?}");
    }
}
