//! The API of `minke serve`, and what happens to those who hang up.

use std::io::{BufRead, BufReader};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use ureq::Agent;

use crate::client::{Served, ask, events, object, wait, with_models};
use crate::repository;

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
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.ends_with("all of it works\n"), "{text}");
}
