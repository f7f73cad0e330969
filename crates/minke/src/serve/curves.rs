//! Curves of a run, from the lines of JSON in its `metrics.jsonl`: every number that has a name is drawn over the steps.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};

use maud::{Markup, html};
use minke_lab::launch::Kept;
use serde_json::Value;

/// Most bytes that are read, and most of one line.
const BYTES: u64 = 16 << 20;
const LINE: u64 = 64 << 10;
/// Longest name, in bytes.
const NAME: usize = 80;
/// Most names that are told apart, and most curves that are drawn.
const NAMES: usize = 64;
const DRAWN: usize = 12;
/// Points of a drawn curve; where there are more, neighbours are put together.
const POINTS: usize = 240;
/// Names with titles, in the order in which they are drawn; other names come after these as they are.
const TITLES: [(&str, &str); 14] = [
    ("rollouts.reward", "Reward"),
    ("reward", "Reward"),
    ("accuracy", "Accuracy"),
    ("held_out.accuracy", "Right of the held-out problems"),
    ("above.accuracy", "Right of those one level above"),
    ("loss", "Loss"),
    ("rollouts.level", "Level of the problems"),
    ("rollouts.thought_tokens", "Length of thoughts, in tokens"),
    ("rollouts.entropy", "Entropy, in nats per token"),
    ("rollouts.truncated", "Cut off at the limit"),
    ("rollouts.zero_variance", "Groups with one reward for all"),
    ("rollouts.completion_tokens", "Length of completions, in tokens"),
    ("gradient_norm", "Norm of the gradient"),
    ("learning_rate", "Learning rate"),
];
/// Names that say where a line belongs, or nothing that a curve would show.
const LEFT_OUT: [&str; 10] = [
    "stage",
    "step",
    "steps",
    "epoch",
    "seed",
    "tokens",
    "wall_s",
    "rollouts.loss",
    "rollouts.clipped_low",
    "rollouts.clipped_high",
];

const WIDTH: f64 = 320.0;
const HEIGHT: f64 = 110.0;

/// Values by the number of their line, from 1.
type Points = Vec<(f64, f64)>;

/// What can be drawn of a run, as parts of a page.
pub fn curves(kept: &Kept) -> Vec<Markup> {
    kept.open("metrics.jsonl").map_or_else(|_| Vec::new(), |file| draw(read(file)))
}

fn read(file: impl Read) -> BTreeMap<String, Points> {
    let mut reader = BufReader::new(file.take(BYTES));
    let (mut found, mut line, mut number) = (BTreeMap::new(), Vec::new(), 0.0);
    loop {
        line.clear();
        match reader.by_ref().take(LINE).read_until(b'\n', &mut line) {
            // A line that is being written, or one that never ends.
            Ok(_) if !line.ends_with(b"\n") => return found,
            Err(_) => return found,
            Ok(_) => {}
        }
        if let Ok(value @ Value::Object(_)) = serde_json::from_slice(&line) {
            // A measurement between two steps is no step.
            let measured = value.get("held_out").is_some_and(Value::is_object);
            number += f64::from(u8::from(!measured));
            // What a step of rollouts loses says nothing beside what demonstrations do.
            let of_rollouts = value.get("rollouts").is_some();
            collect("", &value, &mut |name, value| {
                if measured && !name.ends_with(".accuracy") {
                    return;
                }
                let name = if of_rollouts && name == "loss" { "rollouts.loss" } else { name };
                if name.len() <= NAME && (found.len() < NAMES || found.contains_key(name)) {
                    let points: &mut Points = found.entry(name.to_string()).or_default();
                    points.push((number, value));
                }
            });
        }
    }
}

/// The numbers in an object and in the objects in it, which have their names joined by dots.
fn collect(under: &str, value: &Value, take: &mut impl FnMut(&str, f64)) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| match under {
            "" => collect(key, value, take),
            _ => collect(&format!("{under}.{key}"), value, take),
        }),
        Value::Number(number) => number.as_f64().filter(|x| x.is_finite()).into_iter().for_each(|x| take(under, x)),
        _ => {}
    }
}

fn draw(mut found: BTreeMap<String, Points>) -> Vec<Markup> {
    found.retain(|name, points| points.len() > 1 && !LEFT_OUT.contains(&name.as_str()));
    let known = TITLES.iter().filter_map(|(name, title)| Some((title.to_string(), found.remove(*name)?)));
    let mut all: Vec<(String, Points)> = known.collect();
    all.extend(found);
    all.iter().take(DRAWN).map(|(title, points)| panel(title, points)).collect()
}

fn panel(title: &str, points: &[(f64, f64)]) -> Markup {
    let (first, last) = (points[0].0, points[points.len() - 1].0);
    let fold = |f: fn(f64, f64) -> f64, from: f64| points.iter().map(|point| point.1).fold(from, f);
    // From zero, where nothing is below it.
    let (low, high) = (fold(f64::min, 0.0), fold(f64::max, f64::MIN));
    // Halves first, that the difference of the largest numbers is one.
    let span = (high / 2.0 - low / 2.0).max(f64::MIN_POSITIVE);
    let x = |step: f64| (step - first) / (last - first) * WIDTH;
    let y = |value: f64| HEIGHT - 1.0 - (value / 2.0 - low / 2.0) / span * (HEIGHT - 2.0);
    let line = |points: &[(f64, f64)]| {
        points.iter().map(|(a, b)| format!("{:.1},{:.1}", x(*a), y(*b))).collect::<Vec<String>>().join(" ")
    };
    let now = points[points.len() - 1].1;
    let (raw, smooth) = (thinned(points), smoothed(points));
    let summary = format!("{title}: {} at step {first}, {} at step {last}", short(points[0].1), short(now));
    html! {
        figure {
            figcaption { span { (title) } strong { (short(now)) } }
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label=(summary) {
                polyline.raw points=(line(&raw)) {}
                polyline.smooth points=(line(&thinned(&smooth))) {}
            }
            div.scale { span { "step " (first) } span { (short(low)) " to " (short(high)) } span { (last) } }
        }
    }
}

/// At most [`POINTS`] points: means of neighbours.
fn thinned(points: &[(f64, f64)]) -> Points {
    let many = points.len().div_ceil(POINTS);
    points.chunks(many).map(mean).collect()
}

/// Means over a twentieth of the points around each of at most [`POINTS`].
fn smoothed(points: &[(f64, f64)]) -> Points {
    let points = thinned(points);
    let reach = points.len() / 40;
    let around = |i: usize| &points[i.saturating_sub(reach)..points.len().min(i + reach + 1)];
    (0..points.len()).map(|i| (points[i].0, mean(around(i)).1)).collect()
}

fn mean(points: &[(f64, f64)]) -> (f64, f64) {
    let many = points.len() as f64;
    let sum = |of: fn(&(f64, f64)) -> f64| points.iter().map(|point| of(point) / many).sum::<f64>();
    (sum(|point| point.0), sum(|point| point.1))
}

/// A number with three digits that mean something.
fn short(x: f64) -> String {
    match x.abs() {
        0.0 => "0".into(),
        0.001..10.0 => format!("{x:.3}"),
        10.0..1000.0 => format!("{x:.1}"),
        1000.0..1e6 => format!("{x:.0}"),
        _ => format!("{x:.2e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(text: &str) -> String {
        draw(read(text.as_bytes())).into_iter().map(Markup::into_string).collect()
    }

    #[test]
    fn numbers_are_drawn_by_name() {
        let page = drawn(concat!(
            "{\"step\":1,\"loss\":2.5,\"lr\":0.1,\"kind\":\"sft\"}\n",
            "{\"step\":2,\"loss\":1.5,\"lr\":0.2}\n",
            "{\"step\":1,\"loss\":0.0,\"rollouts\":{\"reward\":0.25}}\n",
            "no line of ours\n[1]\n",
            "{\"step\":2,\"loss\":0.0,\"rollouts\":{\"reward\":0.75}}\n{\"lo",
        ));
        let titles: Vec<&str> =
            page.split("<figcaption><span>").skip(1).filter_map(|part| part.split('<').next()).collect();
        assert_eq!(titles, ["Reward", "Loss", "lr"]);
        assert!(
            page.contains("Loss: 2.500 at step 1, 1.500 at step 2") && page.contains("<strong>0.750</strong>"),
            "{page}"
        );
        assert!(page.contains("points=\"0.0,73.0 320.0,1.0\""), "{page}");
    }

    #[test]
    fn what_is_measured_between_steps_is_drawn_where_it_was() {
        let step = |loss: f64| format!("{{\"step\":1,\"loss\":{loss}}}\n");
        let point = |accuracy: f64| {
            format!(
                "{{\"stage\":1,\"number\":1,\"held_out\":{{\"level\":2,\"items\":9,\"accuracy\":{accuracy}}},\"core_s\":3.5}}\n"
            )
        };
        let page = drawn(&[step(3.0), point(0.25), step(2.0), step(1.0), point(0.75)].concat());
        assert_eq!(page.matches("<figure>").count(), 2, "{page}");
        assert!(page.contains("Right of the held-out problems: 0.250 at step 1, 0.750 at step 3"), "{page}");
        assert!(page.contains("Loss: 3.000 at step 1, 1.000 at step 3"), "{page}");
    }

    #[test]
    fn whatever_is_there_something_is_drawn_and_not_too_much() {
        for line in ["{\"x\":1e308}\n{\"x\":-1e308}\n", "{\"x\":0}\n{\"x\":0}\n", "{\"x\":-5e-324}\n{\"x\":1e-320}\n"] {
            let page = drawn(line);
            assert!(page.contains("<figure>") && !page.contains("NaN") && !page.contains("inf"), "{line}: {page}");
        }
        let many: String = (0..50_000).map(|i| format!("{{\"x\":{i},\"<b>\":{i}}}\n")).collect();
        let page = drawn(&many);
        assert!(page.len() < 20_000 && page.contains("&lt;b&gt;") && !page.contains("<b>"), "{}", page.len());
        let names: String = (0..500).map(|i| format!("{{\"a{i}\":1,\"b\":1}}\n")).collect();
        assert!(read(names.as_bytes()).len() <= NAMES);
        let wide = format!("{{{}}}\n", (0..400).map(|i| format!("\"n{i}\":1")).collect::<Vec<_>>().join(","));
        assert_eq!(drawn(&wide.repeat(2)).matches("<figure>").count(), DRAWN);
        // A line without an end is not waited for.
        assert!(read(std::io::repeat(b' ').take(1 << 30)).is_empty());
    }
}
