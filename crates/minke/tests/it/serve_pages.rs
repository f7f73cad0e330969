//! The pages of `minke serve`: login, conversations, links to them, TLS, and an orderly end.

use std::io::{BufRead, BufReader};

use serde_json::{Value, json};

use crate::client::{Served, ask, between, object, read, wait, with_models};
use crate::repository;

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
fn a_conversation_is_kept_with_its_thoughts_and_shown_to_whom_it_is_shared_with() {
    let place = with_models();
    let served = Served::start(&place, &["--kv", "f32"]);
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

#[test]
fn with_a_certificate_nothing_is_said_in_the_clear() {
    let place = with_models();
    for name in ["cert.pem", "key.pem"] {
        place.copy(&repository().join("crates/minke/tests/it/tls").join(name), name);
    }
    let served = Served::start(&place, &["--cert", "cert.pem", "--key", "key.pem"]);
    assert!(
        served.address.starts_with("https://127.0.0.1:") && served.login.starts_with("https://"),
        "{}",
        served.login
    );
    let response = served.post(&served.login, &[("origin", &served.address)], "");
    let cookie = response.headers()["set-cookie"].to_str().unwrap();
    assert!(cookie.ends_with("; Secure"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap();
    assert_eq!(served.get("/account", &[("cookie", cookie)]).status(), 200);
    let plain = served.address.replacen("https", "http", 1);
    ureq::get(format!("{plain}/health")).call().unwrap_err();
}
