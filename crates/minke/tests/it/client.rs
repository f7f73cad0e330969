//! A client of `minke serve`: programs with a key, and people with a browser.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ureq::http::Response;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body};

use crate::{Place, repository};

/// Longer than anything here takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server, stopped when it is dropped.
pub struct Served {
    pub child: Child,
    pub address: String,
    pub login: String,
    agent: Agent,
}

/// Somebody who is logged in.
pub struct Person<'a> {
    served: &'a Served,
    pub cookie: String,
    csrf: String,
}

impl Served {
    pub fn start(place: &Place, arguments: &[&str]) -> Served {
        let mut command = place.minke(&[&["serve", "--listen", "127.0.0.1:0", "--json"], arguments].concat());
        let mut child = command.env("MINKE_THREADS", "1").stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let started: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        let text = |key: &str| started[key].as_str().unwrap().to_string();
        // What a server with TLS shows in tests vouches for itself.
        let certificate = Certificate::from_pem(include_bytes!("tls/cert.pem")).unwrap();
        let tls = TlsConfig::builder().root_certs(RootCerts::from([certificate])).build();
        let config = Agent::config_builder().http_status_as_error(false).max_redirects(0).tls_config(tls);
        let agent = config.timeout_global(Some(PATIENCE)).build().into();
        Served { child, address: text("address"), login: text("login"), agent }
    }

    pub fn get(&self, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
        let url = if path.starts_with("http") { path.to_string() } else { format!("{}{path}", self.address) };
        let request = headers.iter().fold(self.agent.get(url), |request, (name, value)| request.header(*name, *value));
        request.call().unwrap()
    }

    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Response<Body> {
        let url = if path.starts_with("http") { path.to_string() } else { format!("{}{path}", self.address) };
        let request = headers.iter().fold(self.agent.post(url), |request, (name, value)| request.header(*name, *value));
        request.send(body).unwrap()
    }

    /// Uses up a login link.
    pub fn log_in(&self, link: &str) -> Option<Person<'_>> {
        let response = self.post(link, &[("origin", &self.address)], "");
        let cookie = response.headers().get("set-cookie")?.to_str().unwrap();
        for attribute in ["HttpOnly", "SameSite=Lax", "Path=/"] {
            assert!(cookie.contains(attribute), "{cookie}");
        }
        let cookie = cookie.split(';').next().unwrap().to_string();
        let page = read(self.get("/account", &[("cookie", &cookie)]));
        Some(Person { served: self, cookie, csrf: between(&page, "name=\"csrf\" content=\"", "\"") })
    }

    /// An API key of whoever the login link is for.
    pub fn key(&self) -> String {
        let person = self.log_in(&self.login).expect("the link logs in");
        let page = read(person.form("/account/keys", "label=tests"));
        format!("Bearer {}", between(&page, "class=\"secret\">", "<"))
    }

    pub fn complete(&self, key: &str, body: &Value) -> Response<Body> {
        self.post("/v1/chat/completions", &[("authorization", key)], &body.to_string())
    }

    /// A metric's value now.
    pub fn metric(&self, key: &str, name: &str) -> f64 {
        let text = read(self.get("/metrics", &[("authorization", key)]));
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name}: {text}")).parse().unwrap()
    }

    pub fn signal(&self) {
        let killed = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(killed.success());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Person<'_> {
    pub fn get(&self, path: &str) -> Response<Body> {
        self.served.get(path, &[("cookie", &self.cookie), ("accept", "text/html")])
    }

    /// Sends a form as the page would.
    pub fn form(&self, path: &str, fields: &str) -> Response<Body> {
        let headers = [
            ("cookie", self.cookie.as_str()),
            ("origin", &self.served.address),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        self.served.post(path, &headers, &format!("csrf={}&{fields}", self.csrf))
    }

    /// Sends what the page's script would.
    pub fn script(&self, path: &str, body: &Value) -> Response<Body> {
        let headers =
            [("cookie", self.cookie.as_str()), ("origin", &self.served.address), ("x-csrf-token", &self.csrf)];
        self.served.post(path, &headers, &body.to_string())
    }
}

pub fn read(response: Response<Body>) -> String {
    response.into_body().read_to_string().unwrap()
}

pub fn object(response: Response<Body>) -> Value {
    let text = read(response);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

pub fn between(text: &str, before: &str, after: &str) -> String {
    let rest = text.split_once(before).unwrap_or_else(|| panic!("{before} is not in {text}")).1;
    rest.split_once(after).unwrap().0.to_string()
}

/// What the `data:` lines of a stream say.
pub fn events(response: Response<Body>) -> Vec<String> {
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = read(response);
    text.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_string).collect()
}

/// A place with a small model for chats, `small`; one whose template opens a thought, `thinker`; and one that can go on
/// for a long time, `long`. Only the first ends by itself.
pub fn with_models() -> Place {
    let place = Place::new();
    let model = repository().join("golden/models/llama-chat");
    for name in ["small", "thinker", "long"] {
        place.copy(&model, &format!("home/models/{name}"));
    }
    let edit = |name: &str, from: &str, to: &str| {
        let text = String::from_utf8(place.read(name)).unwrap();
        assert!(text.contains(from), "{from} is not in {name}");
        place.write(name, text.replace(from, to));
    };
    edit("home/models/thinker/chat_template.jinja", "assistant\\n", "assistant\\n<think>");
    edit("home/models/long/config.json", "\"max_position_embeddings\": 256", "\"max_position_embeddings\": 1000000");
    for name in ["long", "thinker"] {
        edit(&format!("home/models/{name}/config.json"), "\"eos_token_id\": 2", "\"eos_token_id\": null");
        edit(&format!("home/models/{name}/tokenizer_config.json"), "\"eos_token\": \"<|im_end|>\",", "");
    }
    place
}

pub fn ask(model: &str, extra: Value) -> Value {
    let mut body = json!({ "model": model, "messages": [{ "role": "user", "content": "hello" }], "seed": 3 });
    for (key, value) in extra.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

/// Waits until something holds.
pub fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "{what}: not after {PATIENCE:?}");
        sleep(Duration::from_millis(10));
    }
}
