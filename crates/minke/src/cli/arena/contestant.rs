//! One side of a battle in the terminal: a model of the store, or one behind an OpenAI-compatible endpoint.

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use minke_kernels::Cpu;
use minke_model::Precision;
use serde::Serialize;
use serde_json::{Value, json};
use ureq::Agent;

use crate::client::Door;
use crate::session::{Session, Settings};
use crate::store::Store;
use crate::talker::Talker;
use crate::think::{Part, Splitter};
use crate::{load, remote};

/// Most bytes of an endpoint's response.
const RESPONSE_MAX: u64 = 64 << 20;

/// A model that can be asked, and what votes call it.
pub struct Contestant {
    pub name: String,
    place: Place,
}

enum Place {
    Here(Box<Talker>),
    There(Endpoint),
}

struct Endpoint {
    agent: Agent,
    url: String,
    model: String,
    key: Option<String>,
}

/// What was replied.
#[derive(Debug, Default, Serialize)]
pub struct Said {
    pub thought: String,
    pub answer: String,
}

/// How all contestants are asked.
#[derive(Clone, Copy, Debug)]
pub struct Asking {
    pub seed: u64,
    pub max_tokens: usize,
    pub temperature: Option<f32>,
}

impl Contestant {
    /// Opens what `reference` stands for: `URL#MODEL`, or a model as elsewhere on the command line. An endpoint's key is in
    /// the environment variable `key`; the server at work here needs none.
    pub fn open(reference: &str, key: &str, patience: Duration, cpu: &Arc<Cpu>) -> Result<Contestant> {
        let Some((url, model)) = remote::endpoint(reference)? else {
            let store = Store::open()?;
            let path = store.find(reference)?;
            // The whole name, also where it was cut short.
            let known = store.all()?.into_iter().find(|entry| entry.path == path);
            let name = known.map_or_else(|| reference.to_string(), |entry| entry.name);
            let talker = Talker::load(&load::open(reference)?, Precision::Stored, || Ok(Arc::clone(cpu)))?;
            return Ok(Contestant { name, place: Place::Here(Box::new(talker)) });
        };
        let url = url.trim_end_matches('/');
        let door = Door::find(&Store::open()?).filter(|door| door.address == url);
        let host = url.split_once("://").map_or(url, |(_, rest)| rest.split('/').next().unwrap_or(rest));
        let name = if door.is_some() { model.to_string() } else { format!("{model}@{host}") };
        let key = std::env::var(key).ok().filter(|key| !key.is_empty()).or(door.map(|door| door.key));
        let config = Agent::config_builder().timeout_global(Some(patience)).http_status_as_error(false).build();
        let agent = Agent::new_with_config(config);
        let endpoint = Endpoint { agent, url: remote::completions(url), model: model.into(), key };
        Ok(Contestant { name, place: Place::There(endpoint) })
    }

    /// Asks it; the reply's pieces go to `give` as they come, and `stop` ends it.
    pub fn ask(
        &self,
        prompt: &str,
        asking: Asking,
        stop: &AtomicBool,
        mut give: impl FnMut(Part, &str) -> Result<()>,
    ) -> Result<Said> {
        let mut said = Said::default();
        let mut take = |part: Part, text: &str| {
            match part {
                Part::Thought => said.thought += text,
                Part::Answer => said.answer += text,
            }
            give(part, text)
        };
        match &self.place {
            Place::Here(talker) => here(talker, prompt, asking, stop, &mut take)?,
            Place::There(endpoint) => endpoint.ask(prompt, asking, stop, &mut take)?,
        }
        Ok(said)
    }
}

fn here(
    talker: &Talker,
    prompt: &str,
    Asking { seed, max_tokens, temperature }: Asking,
    stop: &AtomicBool,
    take: &mut dyn FnMut(Part, &str) -> Result<()>,
) -> Result<()> {
    let temperature = temperature.unwrap_or(talker.default_temperature());
    let settings = Settings { think: true, budget: None, temperature, top_p: None, seed, max_tokens };
    let reply = Session::new(talker, settings)?.say(prompt, stop, take)?;
    if reply.end == "cancelled" { bail!("stopped by Ctrl-C") } else { Ok(()) }
}

impl Endpoint {
    fn ask(
        &self,
        prompt: &str,
        Asking { max_tokens, temperature, .. }: Asking,
        stop: &AtomicBool,
        take: &mut dyn FnMut(Part, &str) -> Result<()>,
    ) -> Result<()> {
        let mut body = json!({
            "model": self.model, "stream": true, "max_tokens": max_tokens,
            "messages": [{ "role": "user", "content": prompt }],
        });
        if let Some(temperature) = temperature {
            body["temperature"] = temperature.into();
        }
        let mut request = self.agent.post(&self.url).header("content-type", "application/json");
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let mut response = request.send(body.to_string()).with_context(|| format!("{} can't be reached", self.url))?;
        let status = response.status();
        let reader = response.body_mut().with_config().limit(RESPONSE_MAX).reader();
        if !status.is_success() {
            let mut text = String::new();
            // What can't be read can't be shown.
            let _ = reader.take(RESPONSE_MAX).read_to_string(&mut text);
            bail!("{} answered {status}: {}", self.url, remote::wrong(&text));
        }
        let mut stream = Stream { splitter: Splitter::new(false), over: false };
        for line in BufReader::new(reader).lines() {
            if stop.swap(false, Ordering::Relaxed) {
                bail!("stopped by Ctrl-C");
            }
            let line = line.with_context(|| format!("{} broke off in the middle of a reply", self.url))?;
            let Some(data) = line.strip_prefix("data:") else { continue };
            stream.read(data.trim(), take).with_context(|| self.url.clone())?;
        }
        if let Some((part, text)) = stream.splitter.finish() {
            take(part, &text)?;
        }
        if stream.over { Ok(()) } else { bail!("{} broke off in the middle of a reply", self.url) }
    }
}

/// An endpoint's events as they are read.
struct Stream {
    /// For endpoints that leave the thought in the answer, between its tags.
    splitter: Splitter,
    /// Whether the reply has come to its end.
    over: bool,
}

impl Stream {
    fn read(&mut self, data: &str, take: &mut dyn FnMut(Part, &str) -> Result<()>) -> Result<()> {
        if data == "[DONE]" {
            self.over = true;
            return Ok(());
        }
        let chunk: Value = serde_json::from_str(data).context("its stream is not JSON")?;
        if !chunk["error"].is_null() {
            bail!("it gave up: {}", remote::wrong(data));
        }
        let choice = &chunk["choices"][0];
        let delta = &choice["delta"];
        for name in ["reasoning_content", "reasoning"] {
            if let Some(text) = delta[name].as_str().filter(|text| !text.is_empty()) {
                take(Part::Thought, text)?;
                break;
            }
        }
        if let Some(text) = delta["content"].as_str() {
            for (part, text) in self.splitter.push(text) {
                take(part, &text)?;
            }
        }
        self.over |= choice["finish_reason"].is_string();
        Ok(())
    }
}
