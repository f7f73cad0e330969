//! Models behind an OpenAI-compatible chat API: how `minke train` and `minke eval` ask them, several questions at once, and again
//! where a failure may pass.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use minke_train::remote::{Question, Remote, Reply};
use serde_json::{Value, json};
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};

/// The path of chat completions under an API's.
const COMPLETIONS: &str = "/chat/completions";
/// Questions that are under way at once.
const AT_ONCE: usize = 8;
/// Time for a connection, and for a whole reply, whose thought may be long.
const CONNECTING: Duration = Duration::from_secs(30);
const REPLYING: Duration = Duration::from_secs(1800);
/// How often it is looked whether to go on waiting.
const HEEDING: Duration = Duration::from_millis(100);
/// Pauses before a question is put again, in milliseconds; a server may ask for longer ones, up to a minute.
const PAUSES: [u64; 8] = [250, 500, 1000, 2000, 4000, 8000, 16_000, 32_000];
const LONGEST_PAUSE: u64 = 60_000;
/// Most bytes of a reply,
const REPLY_MAX: u64 = 64 << 20;
/// and most characters of what a server says is wrong that are shown.
const SHOWN: usize = 200;

/// The URL and the model of a reference of the form `URL#MODEL`; none where it has another form.
///
/// # Errors
/// That the model or the kind of URL is missing.
pub fn endpoint(reference: &str) -> Result<Option<(&str, &str)>> {
    let Some((url, model)) = reference.split_once('#').filter(|(url, _)| url.contains("://")) else {
        return Ok(None);
    };
    if model.is_empty() || !(url.starts_with("http://") || url.starts_with("https://")) {
        bail!("{reference:?} is no endpoint; give it as http(s)://HOST/v1#MODEL");
    }
    Ok(Some((url, model)))
}

/// Where the chat completions of an API are asked for: at the address itself if it is that of completions, under it if it says which
/// API it means, and in the usual place where it is of a host alone.
pub fn completions(address: &str) -> String {
    let address = address.trim_end_matches('/');
    let (_, place) = address.split_once("://").unwrap_or(("", address));
    match place.split_once('/') {
        Some((_, path)) if format!("/{path}").ends_with(COMPLETIONS) => address.to_string(),
        Some(_) => format!("{address}{COMPLETIONS}"),
        None => format!("{address}/v1{COMPLETIONS}"),
    }
}

/// What a server says is wrong, on one line.
pub fn wrong(text: &str) -> String {
    let json: Value = serde_json::from_str(text).unwrap_or_default();
    let message = [&json["error"]["message"], &json["error"], &json["message"], &json];
    let message = message.into_iter().find_map(Value::as_str).unwrap_or(text);
    let line: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN).collect();
    line.trim().to_string()
}

/// Asks a model: a reply to each question, in their order. Without questions it is only found out whether one could be asked.
///
/// # Errors
/// One sentence: what the model, or its key, lacks; or that `stop` was set, which ends the waiting.
pub fn chat(remote: &Remote, questions: &[Question], stop: &AtomicBool) -> minke_train::Result<Vec<Reply>> {
    let all = Endpoint::new(remote).and_then(|endpoint| ask(Arc::new(endpoint), questions, stop));
    all.map_err(|error| minke_train::Error::new(format!("the model {}: {error:#}", remote.model)))
}

/// Asks everything, and heeds `stop` meanwhile.
fn ask(endpoint: Arc<Endpoint>, questions: &[Question], stop: &AtomicBool) -> Result<Vec<Reply>> {
    let (sender, receiver) = mpsc::channel();
    let next = Arc::new(AtomicUsize::new(0));
    let all: Arc<[Question]> = questions.into();
    // A request can't be given up, so threads make them that can be left behind.
    for _ in 0..AT_ONCE.min(all.len()) {
        let (endpoint, all, next, sender) =
            (Arc::clone(&endpoint), Arc::clone(&all), Arc::clone(&next), sender.clone());
        thread::spawn(move || {
            while let Some((i, question)) =
                Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, all.get(i)?)))
            {
                if sender.send((i, endpoint.ask(question))).is_err() {
                    return;
                }
            }
        });
    }
    let mut replies: Vec<Option<Reply>> = vec![None; all.len()];
    while replies.iter().any(Option::is_none) {
        let reply = match receiver.recv_timeout(HEEDING) {
            Ok((i, reply)) => reply.map(|reply| replies[i] = Some(reply)),
            Err(_) if stop.load(Ordering::Relaxed) => Err(anyhow!("stopped in the middle of its replies")),
            Err(_) => Ok(()),
        };
        if reply.is_err() {
            // Nothing more is asked.
            next.store(all.len(), Ordering::Relaxed);
        }
        reply?;
    }
    Ok(replies.into_iter().flatten().collect())
}

struct Endpoint {
    agent: Agent,
    url: String,
    model: String,
    key: Option<String>,
}

/// Why there is no reply.
enum Failure {
    /// It may pass, after so many milliseconds if the server says so.
    Passing(anyhow::Error, Option<u64>),
    Lasting(anyhow::Error),
}

impl Endpoint {
    fn new(remote: &Remote) -> Result<Endpoint> {
        let Remote { url, model, key_env } = remote;
        let key = key_env.as_ref().map(|name| match std::env::var(name) {
            Ok(key) if !key.is_empty() => Ok(key),
            _ => bail!("the environment variable {name}, where its key should be, is not set; set it to the key"),
        });
        let key = key.transpose()?;
        let host = url.split_once("://").map_or("", |(_, rest)| rest.split(['/', ':']).next().unwrap_or(rest));
        if key.is_some() && url.starts_with("http://") && !matches!(host, "localhost" | "127.0.0.1") {
            bail!("over http:// anybody on the way could read the key; give its address with https://");
        }
        let config = Agent::config_builder()
            .timeout_connect(Some(CONNECTING))
            .timeout_global(Some(REPLYING))
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("minke/", env!("CARGO_PKG_VERSION")))
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
            .build();
        Ok(Endpoint { agent: config.into(), url: completions(url), model: model.clone(), key })
    }

    /// A reply, after as many attempts as it takes.
    fn ask(&self, question: &Question) -> Result<Reply> {
        let mut pauses = PAUSES.into_iter();
        loop {
            let (error, wanted) = match self.attempt(question) {
                Ok(reply) => return Ok(reply),
                Err(Failure::Lasting(error)) => return Err(error),
                Err(Failure::Passing(error, wanted)) => (error, wanted),
            };
            let Some(pause) = pauses.next() else {
                return Err(error.context("no reply after several attempts; go on later with --resume"));
            };
            thread::sleep(Duration::from_millis(wanted.unwrap_or(0).max(pause).min(LONGEST_PAUSE)));
        }
    }

    fn attempt(&self, question: &Question) -> std::result::Result<Reply, Failure> {
        let Question { messages, temperature, max_tokens, seed } = question;
        let body = json!({
            "model": self.model, "messages": messages, "temperature": temperature, "max_tokens": max_tokens, "seed": seed,
            "stream": false,
        });
        let mut request = self.agent.post(&self.url).header("content-type", "application/json");
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let passing = |error: anyhow::Error| Failure::Passing(error, None);
        let mut response = (request.send(body.to_string()))
            .with_context(|| format!("{} can't be reached", self.url))
            .map_err(passing)?;
        let status = response.status().as_u16();
        let after = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let text = (response.body_mut().with_config().limit(REPLY_MAX).read_to_string())
            .with_context(|| format!("{} broke off in the middle of a reply", self.url))
            .map_err(passing)?;
        match status {
            200 => reply(&text).with_context(|| self.url.clone()).map_err(Failure::Lasting),
            408 | 425 | 429 | 500..=599 => {
                let error = anyhow!("{} answered {status}: {}", self.url, wrong(&text));
                Err(Failure::Passing(error, after.map(|seconds: u64| seconds.saturating_mul(1000))))
            }
            _ => Err(Failure::Lasting(anyhow!(
                "{} answered {status}: {}; check its address, its name there and its key",
                self.url,
                wrong(&text)
            ))),
        }
    }
}

/// What a completion's JSON says.
fn reply(text: &str) -> Result<Reply> {
    let json: Value = serde_json::from_str(text).unwrap_or_default();
    let choice = &json["choices"][0];
    let message = &choice["message"];
    if !message.is_object() {
        bail!("it does not answer as OpenAI's chat API does; check its address");
    }
    let said = |name: &str| message[name].as_str().filter(|text| !text.is_empty()).map(str::to_string);
    Ok(Reply {
        thought: said("reasoning_content").or_else(|| said("reasoning")),
        answer: said("content").unwrap_or_default(),
        finished: choice["finish_reason"] == "stop",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_from_what_servers_send() {
        let read = |message: &str, finish: &str| {
            let text = format!(r#"{{"choices":[{{"message":{message},"finish_reason":{finish}}}]}}"#);
            reply(&text).unwrap()
        };
        let said = |thought: Option<&str>, answer: &str, finished| Reply {
            thought: thought.map(Into::into),
            answer: answer.into(),
            finished,
        };
        assert_eq!(read(r#"{"content":"7"}"#, "\"stop\""), said(None, "7", true));
        assert_eq!(read(r#"{"content":"7","reasoning_content":"3+4"}"#, "\"stop\""), said(Some("3+4"), "7", true));
        assert_eq!(read(r#"{"content":"7","reasoning":"3+4"}"#, "\"stop\""), said(Some("3+4"), "7", true));
        assert_eq!(read(r#"{"content":null,"reasoning_content":""}"#, "\"length\""), said(None, "", false));
        for text in ["", "[]", "{}", r#"{"choices":[]}"#, r#"{"choices":[{"text":"7"}]}"#] {
            assert!(reply(text).unwrap_err().to_string().contains("OpenAI's chat API"), "{text}");
        }
    }

    #[test]
    fn completions_have_their_place() {
        for (address, place) in [
            ("http://localhost:8080", "http://localhost:8080/v1/chat/completions"),
            ("http://localhost:8080/", "http://localhost:8080/v1/chat/completions"),
            ("https://example.org/v1", "https://example.org/v1/chat/completions"),
            ("https://example.org/beta/openai/", "https://example.org/beta/openai/chat/completions"),
            ("https://example.org/v1/chat/completions", "https://example.org/v1/chat/completions"),
        ] {
            assert_eq!(completions(address), place);
        }
    }

    #[test]
    fn what_is_wrong_is_said_on_one_line() {
        assert_eq!(wrong(r#"{"error":{"message":"no\nsuch model"}}"#), "no such model");
        assert_eq!(wrong(r#"{"error":"busy"}"#), "busy");
        assert_eq!(wrong(r#"{"message":"later"}"#), "later");
        assert_eq!(wrong("\"no\""), "no");
        assert_eq!(wrong("<html>\n"), "<html>");
        assert_eq!(wrong(&"x".repeat(500)).len(), SHOWN);
    }
}
