//! Ratings and intervals against evalica, choix, and the golden files that `golden/make_votes.py` computes.

use std::collections::HashMap;

use minke_arena::board::{Board, Options, board};
use minke_arena::fit::Ties;
use minke_arena::intervals::{bootstrap, sandwich};
use minke_arena::{Outcome, Vote};
use serde_json::Value;

use crate::{bytes, chatbot_arena, count, evalica, fitted};

fn halves(votes: &[Vote]) -> Board {
    board(&count(votes), Options { ties: Ties::Half, bootstrap: None }).unwrap()
}

/// evalica's published scores of one algorithm.
fn scores(name: &str, algorithm: &str) -> HashMap<String, f64> {
    let text = String::from_utf8(bytes(&format!("evalica/{name}-golden.csv"))).unwrap();
    let of = |line: &str| {
        let (line, score) = line.rsplit_once(',')?;
        let item = line.strip_prefix(algorithm)?.strip_prefix(',')?.trim_matches('"');
        Some((item.to_string(), score.parse().unwrap()))
    };
    text.lines().filter_map(of).collect()
}

#[test]
fn chatbot_arenas_ratings_and_intervals_are_the_golden_ones() {
    let votes = chatbot_arena();
    assert_eq!(votes.len(), 26_919);
    let both_bad = votes.iter().filter(|vote| vote.winner == Outcome::BothBad).count();
    assert_eq!(both_bad, 5_132);
    let board = halves(&votes);
    let text = String::from_utf8(bytes("chatbot-arena/golden_bt_sandwich.csv")).unwrap();
    let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split(',').collect()).collect();
    assert_eq!((rows.len(), board.models.len()), (20, 20));
    for (row, ours) in rows.iter().zip(&board.models) {
        assert_eq!(row[0], ours.model);
        for (golden, ours) in row[1..4].iter().zip([ours.rating, ours.lower, ours.upper]) {
            let golden: f64 = golden.parse().unwrap();
            // The golden numbers have six decimals.
            assert!((golden - ours).abs() < 0.500_1e-6, "{row:?}: {ours}");
        }
        assert_eq!(row[6], ours.votes.to_string());
    }
    assert!(!board.half_vote_prior);
}

#[test]
fn evalicas_bradley_terry_scores_are_ours() {
    for (name, models) in [("simple", 5), ("food", 5), ("llmfao", 59)] {
        let votes = evalica(name);
        let golden = scores(name, "bradley_terry");
        let (counts, fit) = (count(&votes), fitted(&votes, Ties::Half));
        assert_eq!((golden.len(), fit.theta.len()), (models, models), "{name}");
        let sum: f64 = fit.theta.iter().map(|theta| theta.exp()).sum();
        for (model, theta) in counts.models().iter().zip(&fit.theta) {
            let ours = theta.exp() / sum;
            assert!((ours - golden[model]).abs() < 1e-9, "{name}, {model}: {ours} {}", golden[model]);
        }
    }
}

/// Davidson's model against Newman's iteration, which is another way to the same maximum: evalica's published scores, and
/// those of `golden/make_votes.py`, which has ν and intervals too.
#[test]
fn davidsons_model_is_newmans() {
    let all: Value = serde_json::from_slice(&bytes("davidson.json")).unwrap();
    for name in ["simple", "food", "llmfao", "chatbot-arena"] {
        let votes = if name == "chatbot-arena" { chatbot_arena() } else { evalica(name) };
        let (counts, fit) = (count(&votes), fitted(&votes, Ties::Davidson));
        let intervals = sandwich(&fit).unwrap();
        let golden = &all[name];
        let close = |ours: f64, golden: &Value, tolerance: f64| {
            let golden = golden.as_f64().unwrap();
            assert!((ours - golden).abs() <= tolerance * golden.abs().max(1.0), "{name}: {ours} {golden}");
        };
        close(fit.nu.unwrap(), &golden["nu"], 1e-11);
        assert_eq!(golden["models"].as_array().unwrap().len(), fit.theta.len());
        for (i, model) in counts.models().iter().enumerate() {
            assert_eq!(golden["models"][i], **model);
            close(fit.theta[i], &golden["theta"][i], 1e-11);
            let rating = intervals.rating(i);
            let reach = 1.959_963_984_540_054 * golden["variance"][i].as_f64().unwrap().sqrt();
            close(rating.upper, &(fit.theta[i] + reach).into(), 1e-9);
            close(rating.lower, &(fit.theta[i] - reach).into(), 1e-9);
        }
        if name != "chatbot-arena" {
            // evalica's scores have no common scale.
            let theirs = scores(name, "newman");
            let logs: Vec<f64> = counts.models().iter().map(|model| theirs[model].ln()).collect();
            let mean = logs.iter().sum::<f64>() / logs.len() as f64;
            for (theta, log) in fit.theta.iter().zip(&logs) {
                assert!((theta - (log - mean)).abs() < 1e-11, "{name}: {theta} {}", log - mean);
            }
        }
    }
}

#[test]
fn choixs_circle_of_three_is_level() {
    let case: Value = serde_json::from_slice(&bytes("choix/testcase-pairwise-1.json")).unwrap();
    let vote = |pair: &Value| Vote::new(pair[0].to_string(), pair[1].to_string(), Outcome::Left);
    let votes: Vec<Vote> = case["data"].as_array().unwrap().iter().map(vote).collect();
    for ties in [Ties::Half, Ties::Davidson] {
        let fit = fitted(&votes, ties);
        assert!(!fit.prior);
        for (ours, theirs) in fit.theta.iter().zip(case["ml_est"].as_array().unwrap()) {
            assert_eq!(*ours, theirs.as_f64().unwrap());
        }
    }
    assert!(halves(&votes).models.iter().all(|standing| standing.rating == 1000.0 && standing.rank == 1));
}

/// With 1000 samples an end of a bootstrap interval is itself known to about 0.05 of its reach (a standard deviation of
/// 2.4 / √1000 standard errors), so 0.2 of the reach is four of those.
#[test]
fn the_bootstrap_agrees_with_the_sandwich() {
    let votes = chatbot_arena();
    let counts = count(&votes);
    for ties in [Ties::Half, Ties::Davidson] {
        let fit = fitted(&votes, ties);
        let intervals = sandwich(&fit).unwrap();
        let drawn = bootstrap(&counts, &fit, 1000, 7).unwrap();
        let mut ratio = 0.0;
        for (model, drawn) in drawn.iter().enumerate() {
            let ours = intervals.rating(model);
            let reach = ours.upper - ours.value;
            let off = (drawn.upper - ours.upper).abs().max((drawn.lower - ours.lower).abs());
            assert!(off < 0.2 * reach, "{}: {ours:?} {drawn:?}", counts.models()[model]);
            ratio += (drawn.upper - drawn.lower) / (2.0 * reach) / fit.theta.len() as f64;
        }
        assert!((ratio - 1.0).abs() < 0.02, "on average the bootstrap's are {ratio} times as wide");
        assert_eq!(bootstrap(&counts, &fit, 3, 7).unwrap(), bootstrap(&counts, &fit, 3, 7).unwrap());
    }
}
