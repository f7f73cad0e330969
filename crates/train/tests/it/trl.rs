//! Advantages and losses against those of TRL's own trainer (golden/losses).

use std::path::Path;

use minke_train::advantages::{Scale, advantages};
use minke_train::loss::{Clip, Importance, Loss, Objective, Penalty, Tokens, Totals, token_losses};
use serde_json::Value;

fn numbers(json: &Value) -> Vec<f32> {
    json.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn close(ours: f64, theirs: f64, scale: f64) -> bool {
    (ours - theirs).abs() <= 1e-5 * scale
}

/// Completions in the order of their rows, as a case learns from them.
#[derive(Default)]
struct Rows {
    lengths: Vec<usize>,
    advantages: Vec<f32>,
    new: Vec<f32>,
    old: Vec<f32>,
    reference: Vec<f32>,
}

/// One setting of TRL's.
struct Case<'a> {
    json: &'a Value,
    objective: Objective,
    parts: usize,
    mask_truncated: bool,
}

impl<'a> Case<'a> {
    fn read(json: &'a Value) -> Case<'a> {
        let number = |key: &str| json[key].as_f64().unwrap() as f32;
        let flag = |key: &str| json.get(key).is_some_and(|value| value.as_bool().unwrap());
        let loss = match json["loss_type"].as_str().unwrap() {
            "grpo" => Loss::Grpo,
            "bnpo" => Loss::Bnpo,
            "dr_grpo" => Loss::DrGrpo,
            "dapo" => Loss::Dapo,
            "cispo" => Loss::Cispo,
            other => panic!("loss_type {other}"),
        };
        let importance = match json.get("importance_sampling_level").map(|level| level.as_str().unwrap()) {
            None => Importance::Token,
            Some("sequence") => Importance::Sequence,
            Some(other) => panic!("importance_sampling_level {other}"),
        };
        let corrected = flag("use_bias_correction_kl");
        let penalty = json.get("beta").map(|_| Penalty { weight: number("beta"), corrected });
        let clip = Clip { epsilon: number("epsilon"), epsilon_high: number("epsilon_high") };
        Case {
            json,
            objective: Objective { loss, importance, clip, penalty },
            parts: json.get("micro_batches").map_or(1, |n| n.as_u64().unwrap() as usize),
            mask_truncated: flag("mask_truncated_completions"),
        }
    }

    fn scale(&self) -> Scale {
        match self.json["scale_rewards"].as_str().unwrap() {
            "group" => Scale::Group,
            "batch" => Scale::Batch,
            "none" => Scale::None,
            other => panic!("scale_rewards {other}"),
        }
    }
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
    let row = |json: &Value, row: usize| numbers(&json[row])[..lengths[row]].to_vec();

    let mut seen = Vec::new();
    for case in (0..).map_while(|i| golden.get(format!("case.{i}"))).map(Case::read) {
        let (objective, parts) = (case.objective, case.parts);
        let ours = advantages(&rewards, group, case.scale());
        for (ours, theirs) in ours.iter().zip(numbers(&case.json["advantages"])) {
            assert!(close(f64::from(*ours), f64::from(theirs), 1.0), "{ours} {theirs}");
        }
        let kept: Vec<bool> = lengths.iter().map(|length| !(case.mask_truncated && *length == longest)).collect();
        let tokens = lengths.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(length, _)| length).sum();
        let totals = Totals { completions: lengths.len(), tokens, max_completion_length: longest, parts };
        let updates = case.json["updates"].as_array().unwrap();
        let mut reached = [0, 0];
        for (update, (expected, new)) in updates.iter().zip(golden["logps"].as_array().unwrap()).enumerate() {
            let name = format!("{objective:?} in {parts} parts, update {update}");
            let (mut value, mut clipped, mut divergence) = (0.0, [0, 0], 0.0);
            let size = lengths.len() / parts;
            for part in 0..parts {
                let mut rows = Rows::default();
                let here = || (part * size..(part + 1) * size).filter(|&i| kept[i]);
                for i in here() {
                    rows.lengths.push(lengths[i]);
                    rows.advantages.push(ours[i]);
                    rows.new.extend(row(new, i));
                    rows.old.extend(row(&golden["old_logps"], i));
                    rows.reference.extend(objective.penalty.map_or(vec![], |_| row(&golden["ref_logps"], i)));
                }
                let tokens = Tokens {
                    lengths: &rows.lengths,
                    advantages: &rows.advantages,
                    log_probs: &rows.new,
                    old_log_probs: &rows.old,
                    reference_log_probs: &rows.reference,
                };
                let result = token_losses(&objective, totals, tokens);
                value += result.loss;
                divergence += result.divergence;
                clipped = [clipped[0] + result.clipped_low, clipped[1] + result.clipped_high];
                let theirs: Vec<f32> = here().flat_map(|i| row(&expected["grad"], i)).collect();
                assert_eq!(result.gradient.len(), theirs.len());
                for (ours, theirs) in result.gradient.iter().zip(&theirs) {
                    assert!(close(f64::from(*ours), f64::from(*theirs), 0.1), "{name}: {ours} {theirs}");
                }
            }
            let theirs = expected["loss"].as_f64().unwrap();
            assert!(close(value, theirs, 0.1), "{name}: {value} {theirs}");
            for (i, kept) in kept.iter().enumerate() {
                assert!(*kept || row(&expected["grad"], i).iter().all(|x| *x == 0.0), "{name}: row {i} is left out");
            }
            assert!(update > 0 || clipped == [0, 0], "{name}: clipped on policy");
            reached = [reached[0] + clipped[0], reached[1] + clipped[1]];
            assert_eq!(divergence > 0.0, objective.penalty.is_some(), "{name}");
        }
        let reached = reached.map(|count| count > 0);
        assert_eq!(reached, [objective.loss != Loss::Cispo, true], "{objective:?}: the updates reach the clips");
        seen.push(case);
    }
    let has = |wanted: &dyn Fn(&Case<'_>) -> bool| seen.iter().any(wanted);
    for loss in [Loss::Grpo, Loss::Bnpo, Loss::DrGrpo, Loss::Dapo, Loss::Cispo] {
        let of = |case: &Case<'_>| case.objective.loss == loss;
        assert!(has(&|case| of(case) && case.objective.importance == Importance::Sequence), "{loss:?}");
        assert!(has(&|case| of(case) && case.objective.penalty.is_some_and(|penalty| penalty.corrected)), "{loss:?}");
        assert!(has(&|case| of(case) && case.mask_truncated), "{loss:?}");
        assert!(has(&|case| of(case) && case.parts == 1) && has(&|case| of(case) && case.parts == 2), "{loss:?}");
    }
    for importance in [Importance::Token, Importance::Sequence] {
        let plain = |case: &Case<'_>| case.objective.penalty.is_some_and(|penalty| !penalty.corrected);
        assert!(has(&|case| case.objective.importance == importance && plain(case)), "{importance:?}");
    }
    assert!(has(&|case| case.scale() == Scale::Batch));
}
