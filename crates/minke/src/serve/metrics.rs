//! `/metrics`: counts in Prometheus' text format.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use super::Shared;

/// Upper bounds of the histogram's buckets, in milliseconds.
const BUCKETS: [u64; 12] = [5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000];

/// What has been counted since the server started.
#[derive(Debug, Default)]
pub struct Metrics {
    completed: AtomicU64,
    cancelled: AtomicU64,
    failed: AtomicU64,
    turned_away: AtomicU64,
    prompt_tokens: AtomicU64,
    thought_tokens: AtomicU64,
    other_tokens: AtomicU64,
    first_tokens: [AtomicU64; BUCKETS.len()],
    first_tokens_count: AtomicU64,
    first_tokens_micros: AtomicU64,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Completed,
    /// Its client went away, or its person stopped it.
    Cancelled,
    Failed,
}

impl Metrics {
    /// A request ended.
    pub fn ended(&self, ending: Ending) {
        let counter = match ending {
            Ending::Completed => &self.completed,
            Ending::Cancelled => &self.cancelled,
            Ending::Failed => &self.failed,
        };
        counter.fetch_add(1, Relaxed);
    }

    /// A request found the queue full.
    pub fn turned_away(&self) {
        self.turned_away.fetch_add(1, Relaxed);
    }

    /// A prompt was taken.
    pub fn prompt(&self, tokens: usize) {
        self.prompt_tokens.fetch_add(tokens as u64, Relaxed);
    }

    /// A token was generated.
    pub fn token(&self, of_thought: bool) {
        let counter = if of_thought { &self.thought_tokens } else { &self.other_tokens };
        counter.fetch_add(1, Relaxed);
    }

    /// A request's first token came this long after it.
    pub fn first_token(&self, after: Duration) {
        let micros = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        for (bound, bucket) in BUCKETS.iter().zip(&self.first_tokens) {
            if micros <= bound * 1000 {
                bucket.fetch_add(1, Relaxed);
            }
        }
        self.first_tokens_count.fetch_add(1, Relaxed);
        self.first_tokens_micros.fetch_add(micros, Relaxed);
    }

    /// The text, with the numbers of the moment: requests that wait, that run, and loaded models.
    fn text(&self, waiting: usize, running: usize, models: usize) -> String {
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, f64)]| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "# HELP minke_{name} {help}\n# TYPE minke_{name} {kind}");
            for (label, value) in samples {
                let _ = writeln!(text, "minke_{name}{label} {value}");
            }
        };
        let of = |counter: &AtomicU64| counter.load(Relaxed) as f64;
        let labelled = |key: &str, samples: &[(&str, &AtomicU64)]| -> Vec<(String, f64)> {
            samples.iter().map(|(label, counter)| (format!("{{{key}=\"{label}\"}}"), of(counter))).collect()
        };
        let endings = [
            ("completed", &self.completed),
            ("cancelled", &self.cancelled),
            ("failed", &self.failed),
            ("turned_away", &self.turned_away),
        ];
        family("requests_total", "counter", "Requests by how they ended.", &labelled("outcome", &endings));
        let tokens =
            [("prompt", &self.prompt_tokens), ("thought", &self.thought_tokens), ("answer", &self.other_tokens)];
        family("tokens_total", "counter", "Tokens read and generated.", &labelled("kind", &tokens));
        let one = |value: usize| [(String::new(), value as f64)];
        family("requests_waiting", "gauge", "Requests that wait for a model.", &one(waiting));
        family("requests_running", "gauge", "Requests that run.", &one(running));
        family("models_loaded", "gauge", "Models in memory.", &one(models));
        let bounds = BUCKETS.iter().map(|&ms| (ms as f64 / 1000.0).to_string()).chain(["+Inf".into()]);
        let counts = self.first_tokens.iter().chain([&self.first_tokens_count]).map(of);
        let mut samples: Vec<(String, f64)> =
            bounds.zip(counts).map(|(bound, count)| (format!("_bucket{{le=\"{bound}\"}}"), count)).collect();
        samples.push(("_sum".into(), of(&self.first_tokens_micros) / 1e6));
        samples.push(("_count".into(), of(&self.first_tokens_count)));
        family("time_to_first_token_seconds", "histogram", "From a request to its first token.", &samples);
        text
    }
}

pub async fn metrics(State(shared): State<Shared>) -> impl IntoResponse {
    let (waiting, running, models) = shared.loaded.usage();
    let text = shared.metrics.text(waiting, running, models);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative() {
        let metrics = Metrics::default();
        for ms in [3, 5, 700, 60_000] {
            metrics.first_token(Duration::from_millis(ms));
        }
        metrics.ended(Ending::Cancelled);
        let text = metrics.text(2, 1, 3);
        for line in [
            "minke_time_to_first_token_seconds_bucket{le=\"0.005\"} 2",
            "minke_time_to_first_token_seconds_bucket{le=\"0.5\"} 2",
            "minke_time_to_first_token_seconds_bucket{le=\"1\"} 3",
            "minke_time_to_first_token_seconds_bucket{le=\"+Inf\"} 4",
            "minke_time_to_first_token_seconds_sum 60.708",
            "minke_time_to_first_token_seconds_count 4",
            "minke_requests_total{outcome=\"cancelled\"} 1",
            "minke_requests_waiting 2",
            "minke_requests_running 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }
}
