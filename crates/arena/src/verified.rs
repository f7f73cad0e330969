//! Verified accuracy against cost: what models got right of problems that can be checked, and what an answer took them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, quoted};
use crate::vote::{VERSION, check_name, check_version};

/// One measurement: a model's answers to held-out problems of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Whose answers.
    pub model: String,
    /// Which problems: a task and its level.
    pub problems: String,
    /// How many problems.
    pub items: u64,
    /// Answers that were right, in the right form,
    pub right: u64,
    /// and those that were right for a lenient reader, whatever their form.
    pub lenient: u64,
    /// Milliseconds of cores' time that all answers took, where that was measured.
    pub core_ms: Option<u64>,
}

/// A measurement as it stands in the log.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    v: u32,
    verified: String,
    model: String,
    items: u64,
    right: u64,
    lenient: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    core_ms: Option<u64>,
}

impl Verified {
    /// Reads a measurement from one JSON object.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_json(json: &[u8]) -> Result<Verified> {
        check_version(json)?;
        let line: Line = serde_json::from_slice(json).map_err(|e| Error::of_json(&e))?;
        let Line { v: _, verified: problems, model, items, right, lenient, core_ms } = line;
        let verified = Verified { model, problems, items, right, lenient, core_ms };
        verified.check()?;
        Ok(verified)
    }

    /// The measurement as one JSON object, without a line end.
    pub fn to_json(&self) -> String {
        let Verified { model, problems, items, right, lenient, core_ms } = self.clone();
        let line = Line { v: VERSION, verified: problems, model, items, right, lenient, core_ms };
        serde_json::to_string(&line).unwrap_or_default()
    }

    /// That it can be counted and written down.
    ///
    /// # Errors
    /// A sentence for a name that is empty, too long or hard to see, or for more right answers than problems.
    pub fn check(&self) -> Result<()> {
        check_name("model", &self.model)?;
        check_name("task", &self.problems)?;
        if self.items == 0 || self.right.max(self.lenient) > self.items {
            let Verified { items, right, lenient, .. } = self;
            let model = quoted(&self.model);
            return Err(Error::new(format!(
                "{model} has {right} right answers ({lenient} leniently) to {items} problems"
            )));
        }
        Ok(())
    }
}

/// One model's place.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Standing {
    /// Which.
    pub model: String,
    /// Mean over the board's problems of the part that was right,
    pub accuracy: f64,
    /// and the ends of its 95 % interval.
    pub lower: f64,
    /// See `lower`.
    pub upper: f64,
    /// The part that was right of each of the board's problems.
    pub parts: Vec<f64>,
    /// Seconds of cores' time for an answer, as the mean over the board's problems.
    pub core_s: Option<f64>,
    /// No other model is as accurate for as little, and better in one of the two.
    pub frontier: bool,
}

/// Models by their verified accuracy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Board {
    /// The problems that all of the models were asked; each kind weighs the same.
    pub problems: Vec<String>,
    /// The most accurate first.
    pub models: Vec<Standing>,
}

/// The board that measurements make, the newest of each model on each kind of problems; strictly, or as a lenient reader judges. Without
/// measurements it has no models.
///
/// # Errors
/// That there are no problems which all models were asked.
pub fn board(measured: &[Verified], leniently: bool) -> Result<Board> {
    let mut newest: BTreeMap<&str, BTreeMap<&str, &Verified>> = BTreeMap::new();
    for one in measured {
        newest.entry(&one.model).or_default().insert(&one.problems, one);
    }
    let asked = newest.values().map(|of| of.keys().copied().collect::<BTreeSet<&str>>());
    let problems: BTreeSet<&str> = asked.reduce(|all, of| &all & &of).unwrap_or_default();
    if problems.is_empty() && !newest.is_empty() {
        let models: Vec<&str> = newest.keys().copied().collect();
        let models = models.join(", ");
        return Err(Error::new(format!("no problems were asked of all of {models}; measure them on the same ones")));
    }
    let standing = |(model, of): (&&str, &BTreeMap<&str, &Verified>)| {
        let of: Vec<&Verified> = problems.iter().map(|problems| of[problems]).collect();
        let right = |one: &Verified| if leniently { one.lenient } else { one.right } as f64;
        let parts: Vec<f64> = of.iter().map(|one| right(one) / one.items as f64).collect();
        let (lower, upper) = interval(&of.iter().map(|one| (right(one), one.items as f64)).collect::<Vec<_>>());
        let cost = |one: &&Verified| Some(one.core_ms? as f64 / 1000.0 / one.items as f64);
        let core_s = of.iter().map(cost).sum::<Option<f64>>().map(|sum| sum / of.len() as f64);
        let accuracy = parts.iter().sum::<f64>() / parts.len() as f64;
        Standing { model: (*model).into(), accuracy, lower, upper, parts, core_s, frontier: false }
    };
    let mut models: Vec<Standing> = newest.iter().map(standing).collect();
    let points: Vec<(f64, Option<f64>)> = models.iter().map(|s| (s.accuracy, s.core_s)).collect();
    for (standing, (accuracy, cost)) in models.iter_mut().zip(points.clone()) {
        let is_better = |&(a, c): &(f64, Option<f64>)| {
            c.zip(cost).is_some_and(|(c, cost)| a >= accuracy && c <= cost && (a > accuracy || c < cost))
        };
        standing.frontier = cost.is_some() && !points.iter().any(is_better);
    }
    models.sort_by(|a, b| b.accuracy.total_cmp(&a.accuracy).then_with(|| a.model.cmp(&b.model)));
    Ok(Board { problems: problems.into_iter().map(String::from).collect(), models })
}

/// Where the mean of several parts probably is, each given as how many of how many: 1.96 standard errors to either side, with two right and
/// two wrong answers added (Agresti and Coull, The American Statistician 52, 1998), shared among the kinds of problems.
fn interval(parts: &[(f64, f64)]) -> (f64, f64) {
    const Z: f64 = 1.959_963_984_540_054;
    let kinds = parts.len() as f64;
    let (mut mean, mut variance) = (0.0, 0.0);
    for (right, items) in parts {
        let items = items + 4.0 / kinds;
        let part = (right + 2.0 / kinds) / items;
        mean += part / kinds;
        variance += part * (1.0 - part) / items / (kinds * kinds);
    }
    let reach = Z * variance.sqrt();
    ((mean - reach).max(0.0), (mean + reach).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verified(model: &str, problems: &str, right: u64, core_ms: Option<u64>) -> Verified {
        Verified { model: model.into(), problems: problems.into(), items: 100, right, lenient: right + 5, core_ms }
    }

    #[test]
    fn measurements_come_back_and_bad_ones_are_refused() {
        for one in [verified("a", "letters 3", 5, Some(70)), verified("b", "x", 0, None)] {
            assert_eq!(Verified::from_json(one.to_json().as_bytes()), Ok(one));
        }
        let said = |one: Verified| Verified::from_json(one.to_json().as_bytes()).unwrap_err().to_string();
        assert_eq!(said(verified("a", "x", 101, None)), "\"a\" has 101 right answers (106 leniently) to 100 problems");
        assert!(said(verified("", "x", 1, None)).contains("model"));
        assert!(said(verified("a", " ", 1, None)).contains("task"));
        assert!(Verified::from_json(b"{\"v\":1,\"verified\":\"x\"}").is_err());
    }

    #[test]
    fn the_frontier_is_what_nothing_cheaper_beats() {
        let measured = [
            verified("large", "x", 10, Some(1)),
            verified("small", "x", 90, Some(25_000)),
            verified("small", "y", 70, Some(50_000)),
            verified("large", "x", 95, Some(90_000)),
            verified("large", "y", 35, Some(90_000)),
            verified("tiny", "x", 2, Some(1_000)),
            verified("tiny", "y", 0, Some(1_000)),
            verified("unknown", "x", 94, None),
            verified("unknown", "y", 95, None),
            verified("tiny", "z", 0, Some(1_000)),
        ];
        let made = board(&measured, false).unwrap();
        assert_eq!(made.problems, ["x", "y"]);
        let names: Vec<&str> = made.models.iter().map(|s| s.model.as_str()).collect();
        assert_eq!(names, ["unknown", "small", "large", "tiny"]);
        let frontier: Vec<bool> = made.models.iter().map(|s| s.frontier).collect();
        assert_eq!(frontier, [false, true, false, true]);
        let small = &made.models[1];
        assert_eq!((small.accuracy, small.core_s, &small.parts[..]), (0.8, Some(0.375), &[0.9, 0.7][..]));
        assert!(small.lower > 0.73 && small.lower < 0.8 && small.upper > 0.8 && small.upper < 0.86, "{small:?}");
        assert_eq!(board(&measured, true).unwrap().models[1].accuracy, 0.85);
        assert!(board(&[], false).unwrap().models.is_empty());
        let apart = board(&[verified("a", "x", 1, None), verified("b", "y", 1, None)], false).unwrap_err();
        assert_eq!(apart.to_string(), "no problems were asked of all of a, b; measure them on the same ones");
    }

    #[test]
    fn nothing_right_is_not_certainty() {
        let (lower, upper) = interval(&[(0.0, 50.0), (0.0, 50.0)]);
        assert!(lower == 0.0 && upper > 0.01 && upper < 0.06, "{upper}");
        let (lower, upper) = interval(&[(50.0, 50.0)]);
        assert!(upper == 1.0 && lower < 0.96 && lower > 0.85, "{lower}");
    }
}
