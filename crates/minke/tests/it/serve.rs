//! `minke serve`, spoken to over HTTP: the API, login, conversations, and what happens to those who hang up.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ureq::http::Response;
use ureq::{Agent, Body};

use crate::{Place, repository};

/// Longer than anything here takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server, stopped when it is dropped.
pub struct Served {
    child: Child,
    pub address: String,
    pub login: String,
    agent: Agent,
}

/// Somebody who is logged in.
pub struct Person<'a> {
    served: &'a Served,
    cookie: String,
    csrf: String,
}

impl Served {
    pub fn start(place: &Place, arguments: &[&str]) -> Served {
        let mut command = place.minke(&[&["serve", "--listen", "127.0.0.1:0", "--json"], arguments].concat());
        let mut child = command.env("MINKE_THREADS", "2").stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let started: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        let text = |key: &str| started[key].as_str().unwrap().to_string();
        let config =
            Agent::config_builder().http_status_as_error(false).max_redirects(0).timeout_global(Some(PATIENCE));
        Served { child, address: text("address"), login: text("login"), agent: config.build().into() }
    }

    fn get(&self, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
        let url = if path.starts_with("http") { path.to_string() } else { format!("{}{path}", self.address) };
        let request = headers.iter().fold(self.agent.get(url), |request, (name, value)| request.header(*name, *value));
        request.call().unwrap()
    }

    fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Response<Body> {
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

    fn complete(&self, key: &str, body: &Value) -> Response<Body> {
        self.post("/v1/chat/completions", &[("authorization", key)], &body.to_string())
    }

    /// A metric's value now.
    fn metric(&self, key: &str, name: &str) -> f64 {
        let text = read(self.get("/metrics", &[("authorization", key)]));
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name}: {text}")).parse().unwrap()
    }

    fn signal(&self) {
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
    fn get(&self, path: &str) -> Response<Body> {
        self.served.get(path, &[("cookie", &self.cookie), ("accept", "text/html")])
    }

    /// Sends a form as the page would.
    fn form(&self, path: &str, fields: &str) -> Response<Body> {
        let headers = [
            ("cookie", self.cookie.as_str()),
            ("origin", &self.served.address),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        self.served.post(path, &headers, &format!("csrf={}&{fields}", self.csrf))
    }

    /// Sends what the page's script would.
    fn script(&self, path: &str, body: &Value) -> Response<Body> {
        let headers =
            [("cookie", self.cookie.as_str()), ("origin", &self.served.address), ("x-csrf-token", &self.csrf)];
        self.served.post(path, &headers, &body.to_string())
    }
}

fn read(response: Response<Body>) -> String {
    response.into_body().read_to_string().unwrap()
}

fn object(response: Response<Body>) -> Value {
    let text = read(response);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn between(text: &str, before: &str, after: &str) -> String {
    let rest = text.split_once(before).unwrap_or_else(|| panic!("{before} is not in {text}")).1;
    rest.split_once(after).unwrap().0.to_string()
}

/// What the `data:` lines of a stream say.
fn events(response: Response<Body>) -> Vec<String> {
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = read(response);
    text.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_string).collect()
}

/// A place with a small model for chats, `small`; one whose template opens a thought, `thinker`; and one that never
/// ends by itself, `long`.
fn with_models() -> Place {
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
    edit("home/models/long/config.json", "\"eos_token_id\": 2", "\"eos_token_id\": null");
    edit("home/models/long/tokenizer_config.json", "\"eos_token\": \"<|im_end|>\",", "");
    place
}

fn ask(model: &str, extra: Value) -> Value {
    let mut body = json!({ "model": model, "messages": [{ "role": "user", "content": "hello" }], "seed": 3 });
    for (key, value) in extra.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

/// Waits until something holds.
fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "{what}: not after {PATIENCE:?}");
        sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_login_link_works_once_and_the_rest_needs_it() {
    let place = with_models();
    let served = Served::start(&place, &["--person", "Ada L."]);
    assert_eq!(object(served.get("/health", &[]))["status"], "ok");
    let offer = read(served.get(&served.login, &[("accept", "text/html")]));
    assert!(offer.contains("Welcome, Ada L."), "{offer}");
    // Looking at the link, as programs do that show what links lead to, has not used it up; using it has.
    let ada = served.log_in(&served.login).expect("the link logs in");
    assert!(served.log_in(&served.login).is_none());
    assert_eq!(served.get(&served.login, &[]).status(), 404);
    assert!(read(ada.get("/account")).contains("Ada L."));
    assert_eq!(served.get("/chat", &[("accept", "text/html")]).headers()["location"], "/login");

    let page = read(ada.form("/account/invite", "name=Bob"));
    let bob = served.log_in(&between(&page, "class=\"secret\">", "<")).expect("the invitation logs in");
    assert!(read(bob.get("/account")).contains("<h1>Bob</h1>"));
    assert!(read(ada.form("/account/invite", "name=Bob")).contains("already"));

    let page = read(ada.form("/account/keys", "label=laptop"));
    let key = format!("Bearer {}", between(&page, "class=\"secret\">", "<"));
    let models = object(served.get("/v1/models", &[("authorization", &key)]));
    let names: Vec<&str> = models["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect();
    assert_eq!(names, ["long", "small", "thinker"]);
    assert_eq!(object(served.get("/v1/models/small", &[("authorization", &key)]))["object"], "model");
    assert_eq!(served.get("/v1/models/..", &[("authorization", &key)]).status(), 404);
    let id = between(&page, "/account/keys/", "/delete");
    assert_eq!(ada.form(&format!("/account/keys/{id}/delete"), "").status(), 303);
    assert_eq!(served.get("/v1/models", &[("authorization", &key)]).status(), 401);

    assert_eq!(ada.form("/logout", "").status(), 303);
    assert_eq!(ada.get("/account").headers()["location"], "/login");
    assert_eq!(bob.get("/account").status(), 200);
}

#[test]
fn a_completion_is_what_chat_replies_with_the_same_seed() {
    let place = with_models();
    let served = Served::start(&place, &[]);
    let key = served.key();
    let budget = ["--budget", "5"];
    for (model, options, extra) in [
        ("small", &[][..], json!({})),
        ("small", &["--temperature", "1.5", "--top-p", "0.8"], json!({ "temperature": 1.5, "top_p": 0.8 })),
        ("thinker", &budget, json!({ "thinking_budget_tokens": 5 })),
        ("thinker", &["--think", "off"], json!({ "reasoning_effort": "none" })),
    ] {
        let line = [&["chat", model, "hello", "--max-tokens", "40", "--seed", "3"], options].concat();
        let reply = place.json(&line);
        let mut extra = extra;
        extra["max_tokens"] = 40.into();
        let whole = object(served.complete(&key, &ask(model, extra)));
        let message = &whole["choices"][0]["message"];
        assert_eq!(message["content"], reply["answer"], "{line:?}: {whole}");
        assert_eq!(message["reasoning_content"].as_str().unwrap_or_default(), reply["thought"], "{line:?}");
        let usage = &whole["usage"];
        assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"]), (&reply["prompt_tokens"], &reply["tokens"]));
        assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], reply["thought_tokens"], "{line:?}");
        let finish = if reply["end"] == "stop" { "stop" } else { "length" };
        assert_eq!(
            (&whole["object"], &whole["choices"][0]["finish_reason"]),
            (&"chat.completion".into(), &finish.into())
        );
        let thinks = model == "thinker" && options == budget;
        assert_eq!(reply["thought_tokens"], if thinks { 5 } else { 0 }, "{reply}");
    }
    // Without a seed it is another reply every time, and by a path that is not /v1 just as well.
    let free = |path: &str| {
        let body = ask("small", json!({ "seed": null, "temperature": 5, "max_tokens": 30 })).to_string();
        object(served.post(path, &[("authorization", &key)], &body))["choices"][0]["message"].clone()
    };
    assert_ne!(free("/v1/chat/completions"), free("/chat/completions"));
}

#[test]
fn an_answer_always_has_room_beside_the_thought() {
    let place = with_models();
    let served = Served::start(&place, &[]);
    let key = served.key();
    for (max_tokens, extra, thought) in [
        (40, json!({}), 29),
        (40, json!({ "reasoning_effort": "low" }), 10),
        (40, json!({ "thinking": { "type": "enabled", "budget_tokens": 1000 } }), 29),
        (2, json!({}), 0),
        (1, json!({}), 0),
    ] {
        let mut body = ask("thinker", extra);
        body["max_tokens"] = max_tokens.into();
        let whole = object(served.complete(&key, &body));
        let details = &whole["usage"]["completion_tokens_details"];
        assert_eq!(details["reasoning_tokens"], thought, "{body}: {whole}");
        assert_ne!(whole["choices"][0]["message"]["content"], "", "{body}: {whole}");
    }
}

#[test]
fn a_stream_is_the_completion_in_pieces() {
    let place = with_models();
    let served = Served::start(&place, &[]);
    let key = served.key();
    let extra = json!({ "max_tokens": 40, "logprobs": true, "thinking_budget_tokens": 8 });
    let whole = object(served.complete(&key, &ask("thinker", extra.clone())));
    let mut streamed = extra;
    streamed["stream"] = true.into();
    streamed["stream_options"] = json!({ "include_usage": true });
    let events = events(served.complete(&key, &ask("thinker", streamed)));
    assert_eq!(events.last().unwrap(), "[DONE]");
    let chunks: Vec<Value> =
        events[..events.len() - 1].iter().map(|data| serde_json::from_str(data).unwrap()).collect();
    let first = &chunks[0]["choices"][0]["delta"];
    assert_eq!(*first, json!({ "role": "assistant", "content": null, "reasoning_content": "" }));
    let (usage, chunks) = chunks.split_last().unwrap();
    assert_eq!((&usage["choices"], &usage["usage"]), (&json!([]), &whole["usage"]));
    let last = &chunks[chunks.len() - 1];
    assert_eq!(last["choices"][0]["finish_reason"], whole["choices"][0]["finish_reason"]);
    assert_eq!(last["usage"], whole["usage"]);
    let (mut thought, mut answer, mut scores) =
        (String::new(), String::new(), json!({"content":[],"reasoning_content":[]}));
    for chunk in chunks {
        assert_eq!((&chunk["object"], &chunk["id"]), (&"chat.completion.chunk".into(), &chunks[0]["id"]));
        let delta = &chunk["choices"][0]["delta"];
        let (more_thought, more_answer) = (delta["reasoning_content"].as_str(), delta["content"].as_str());
        assert!(more_thought.is_none_or(|more| more.is_empty() || answer.is_empty()), "a thought after the answer");
        thought += more_thought.unwrap_or_default();
        answer += more_answer.unwrap_or_default();
        for part in ["content", "reasoning_content"] {
            let more = chunk["choices"][0]["logprobs"][part].as_array().cloned().unwrap_or_default();
            scores[part].as_array_mut().unwrap().extend(more);
        }
    }
    let message = &whole["choices"][0]["message"];
    assert_eq!((message["content"].as_str(), message["reasoning_content"].as_str()), (Some(&*answer), Some(&*thought)));
    assert_eq!(scores, whole["choices"][0]["logprobs"]);
    assert_eq!(scores["reasoning_content"].as_array().unwrap().len(), 8);
    for score in scores["content"].as_array().unwrap() {
        assert!(score["logprob"].as_f64().unwrap() <= 0.0 && score["token"].is_string(), "{score}");
    }
}

#[test]
fn stop_strings_end_an_answer_and_are_never_seen() {
    let place = with_models();
    let served = Served::start(&place, &[]);
    let key = served.key();
    let body = |stop: Value, stream: bool| ask("small", json!({ "max_tokens": 60, "stop": stop, "stream": stream }));
    let free = object(served.complete(&key, &body(Value::Null, false)))["choices"][0]["message"]["content"].clone();
    let letters: Vec<char> = free.as_str().unwrap().chars().collect();
    let mut tried = 0;
    for at in (1..letters.len() - 4).step_by(5) {
        let stop: String = letters[at..at + 4].iter().collect();
        let before = free.as_str().unwrap().split(&stop).next().unwrap();
        let whole = object(served.complete(&key, &body(json!(["never said", stop]), false)));
        assert_eq!(whole["choices"][0]["message"]["content"], before, "{stop:?} in {free}");
        assert_eq!(whole["choices"][0]["finish_reason"], "stop");
        let events = events(served.complete(&key, &body(stop.clone().into(), true)));
        let deltas = events.iter().filter_map(|data| serde_json::from_str::<Value>(data).ok());
        let texts = deltas.filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_string));
        assert_eq!(texts.collect::<String>(), before, "{stop:?} in {free}");
        tried += 1;
    }
    assert!(tried >= 5, "{free}");
}

#[test]
fn what_is_not_served_is_refused_by_name() {
    let place = with_models();
    let served = Served::start(&place, &[]);
    let key = served.key();
    for (extra, status, param) in [
        (json!({ "n": 2 }), 400, json!("n")),
        (json!({ "tools": [{ "type": "function" }] }), 400, json!("tools")),
        (json!({ "repeat_penalty": 1.1 }), 400, json!("repeat_penalty")),
        (json!({ "model": "gpt-4" }), 404, json!("model")),
        (json!({ "model": "../../etc" }), 404, json!("model")),
        (json!({ "model": "smal" }), 404, json!("model")),
        (json!({ "messages": [{ "role": "user", "content": "hello ".repeat(500) }] }), 400, json!("messages")),
    ] {
        let response = served.complete(&key, &ask("small", extra.clone()));
        assert_eq!(response.status(), status, "{extra}");
        let error = &object(response)["error"];
        assert_eq!((&error["param"], &error["type"]), (&param, &json!("invalid_request_error")), "{extra}");
        let name = param.as_str().unwrap();
        assert!(error["message"].as_str().unwrap().contains(name), "{error}");
    }
    let nobody = served.post("/v1/chat/completions", &[], &ask("small", json!({})).to_string());
    assert_eq!((nobody.status().as_u16(), nobody.headers()["www-authenticate"].to_str().unwrap()), (401, "Bearer"));
}

#[test]
fn who_hangs_up_is_not_written_for_any_more() {
    let place = with_models();
    let served = Served::start(&place, &[]);
    let key = served.key();
    let endless = |stream: bool| ask("long", json!({ "max_tokens": 500_000, "temperature": 0, "stream": stream }));
    let response = served.complete(&key, &endless(true));
    let mut lines = BufReader::new(response.into_body().into_reader()).lines();
    assert!(lines.by_ref().any(|line| line.unwrap().contains("\"content\":\"")), "an answer begins");
    assert_eq!(served.metric(&key, "minke_requests_running"), 1.0);
    drop(lines);
    wait("a stream ends", || served.metric(&key, "minke_requests_running") == 0.0);
    assert_eq!(served.metric(&key, "minke_requests_total{outcome=\"cancelled\"}"), 1.0);

    // The same for somebody who waits for the whole.
    let impatient: Agent = Agent::config_builder().timeout_global(Some(Duration::from_millis(500))).build().into();
    let url = format!("{}/v1/chat/completions", served.address);
    impatient.post(url).header("authorization", &key).send(endless(false).to_string()).unwrap_err();
    wait("a request ends", || served.metric(&key, "minke_requests_total{outcome=\"cancelled\"}") == 2.0);
    wait("and nothing runs", || served.metric(&key, "minke_requests_running") == 0.0);
    let answered = served.metric(&key, "minke_tokens_total{kind=\"answer\"}");
    assert!(answered > 0.0 && answered < 900_000.0, "{answered} tokens");
    assert_eq!(served.metric(&key, "minke_time_to_first_token_seconds_count"), 2.0);
}

#[test]
fn a_full_queue_says_so() {
    let place = with_models();
    let served = Served::start(&place, &[]);
    let key = served.key();
    let endless = ask("long", json!({ "max_tokens": 500_000, "temperature": 0, "stream": true }));
    let mut streams = Vec::new();
    let refused = loop {
        let response = served.complete(&key, &endless);
        if response.status() != 200 {
            break response;
        }
        streams.push(response);
        assert!(streams.len() < 200, "nobody is turned away");
    };
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].to_str().unwrap()), (429, "1"));
    assert_eq!(object(refused)["error"]["code"], "queue_full");
    assert!(streams.len() > 64, "{} streams", streams.len());
    drop(streams);
    wait("all end", || {
        served.metric(&key, "minke_requests_running") + served.metric(&key, "minke_requests_waiting") == 0.0
    });
    assert_eq!(served.complete(&key, &ask("long", json!({ "max_tokens": 2 }))).status(), 200);
}

#[test]
fn a_conversation_is_kept_with_its_thoughts_and_shown_to_whom_it_is_shared_with() {
    let place = with_models();
    let served = Served::start(&place, &[]);
    let ada = served.log_in(&served.login).unwrap();
    let id = object(ada.script("/chat", &json!({})))["id"].as_i64().unwrap();
    let say = json!({ "text": "hello <b>", "model": "thinker", "think": true, "seed": 3 });
    let lines = read(ada.script(&format!("/chat/{id}/say"), &say));
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["state"], "loading");
    let text = |key: &str| lines.iter().filter_map(|line| line[key].as_str()).collect::<String>();
    let (thought, answer) = (text("text"), text("answer"));
    let done = &lines[lines.len() - 1]["done"];
    assert!(!thought.is_empty() && !answer.is_empty() && done["thought_tokens"].as_u64() > Some(10), "{done}");

    let page = read(ada.get(&format!("/chat/{id}")));
    let escaped =
        |text: &str| text.trim().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    assert!(page.contains("hello &lt;b&gt;") && page.contains(&escaped(&answer)), "{answer:?}: {page}");
    assert!(read(ada.get("/chat")).contains(&format!("href=\"/chat/{id}\"")));

    // A second reply is written with the first before it, and stopped.
    let before = served.login.clone();
    assert!(served.log_in(&before).is_none());
    let say = json!({ "text": "and on", "model": "long", "think": false });
    let mut lines = BufReader::new(ada.script(&format!("/chat/{id}/say"), &say).into_body().into_reader()).lines();
    assert!(lines.by_ref().any(|line| line.unwrap().contains("answer")), "a second answer begins");
    assert_eq!(ada.script(&format!("/chat/{id}/say"), &say).status(), 409);
    assert_eq!(ada.script(&format!("/chat/{id}/stop"), &json!({})).status(), 200);
    let last: Value = serde_json::from_str(&lines.last().unwrap().unwrap()).unwrap();
    assert_eq!(last["done"]["ended"], "stopped");

    assert_eq!(ada.form(&format!("/chat/{id}/share"), "").status(), 303);
    let link = between(&read(ada.get(&format!("/chat/{id}"))), "readonly value=\"", "\"");
    let shared = read(served.get(&link, &[("accept", "text/html")]));
    assert!(
        shared.contains("hello &lt;b&gt;") && shared.contains("Thought for") && shared.contains("Stopped."),
        "{shared}"
    );
    assert_eq!(ada.form(&format!("/chat/{id}/unshare"), "").status(), 303);
    assert_eq!(served.get(&link, &[]).status(), 404);
    assert_eq!(ada.form(&format!("/chat/{id}/delete"), "").status(), 303);
    assert_eq!(ada.get(&format!("/chat/{id}")).status(), 404);
}

#[test]
fn stopping_ends_streams_with_an_error_and_keeps_what_was_written() {
    let place = with_models();
    let mut served = Served::start(&place, &[]);
    let key = served.key();
    drop(served);
    served = Served::start(&place, &[]);
    let ada = served.log_in(&served.login).unwrap();
    let cookie = ada.cookie.split_once('=').unwrap().1.to_string();
    let id = object(ada.script("/chat", &json!({})))["id"].as_i64().unwrap();
    let say = json!({ "text": "go on", "model": "long", "think": false });
    let said = ada.script(&format!("/chat/{id}/say"), &say).into_body();
    let mut said = BufReader::new(said.into_reader()).lines().map(Result::unwrap);
    assert!(said.by_ref().any(|line| line.contains("answer")), "an answer begins");
    let endless = ask("long", json!({ "max_tokens": 500_000, "temperature": 0, "stream": true }));
    let stream = served.complete(&key, &endless).into_body();
    let mut stream = BufReader::new(stream.into_reader()).lines().map(Result::unwrap);
    assert!(stream.by_ref().any(|line| line.contains("\"content\":\"")), "a stream begins");
    served.signal();
    let rest: Vec<String> = stream.collect();
    let last = rest.iter().rfind(|line| line.starts_with("data: ")).unwrap();
    assert!(last.contains("\"error\"") && last.contains("the server is being stopped"), "{last}");
    let rest: Vec<String> = said.collect();
    assert!(rest.iter().any(|line| line.contains("the server is being stopped")), "{:?}", rest.last());
    wait("it ends", || served.child.try_wait().unwrap().is_some());
    assert!(served.child.wait().unwrap().success());

    // People, keys, sessions and conversations are there when it is started again.
    let again = Served::start(&place, &[]);
    assert_eq!(again.get("/v1/models", &[("authorization", &key)]).status(), 200);
    let port = again.address.rsplit(':').next().unwrap();
    let page = read(again.get(&format!("/chat/{id}"), &[("cookie", &format!("minke-{port}={cookie}"))]));
    assert!(page.contains("go on") && page.contains("This reply broke off."), "{page}");
    let answer = between(&page, "data-markdown>", "</div>");
    assert!(answer.len() > 1, "{page}");
}

/// Set `MINKE_OPENAI` to a Python that has the `openai` package.
#[test]
fn openais_own_client_is_served() {
    let Some(python) = std::env::var_os("MINKE_OPENAI") else { return };
    let place = with_models();
    let served = Served::start(&place, &[]);
    let key = served.key();
    let script = repository().join("crates/minke/tests/openai_client.py");
    let mut command = Command::new(python);
    command.arg(script).env("OPENAI_BASE_URL", format!("{}/v1", served.address));
    let output = command.env("OPENAI_API_KEY", key.trim_start_matches("Bearer ")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut text = String::new();
    output.stdout.as_slice().read_to_string(&mut text).unwrap();
    assert!(text.ends_with("all of it works\n"), "{text}");
}
