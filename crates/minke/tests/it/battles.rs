//! Blind battles: in the web app, from a prompt to the board and back again, and in the terminal, also with endpoints that
//! do as they please.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Output, Stdio};
use std::thread;

use serde_json::{Value, json};

use crate::client::{Person, Served, between, object, read};
use crate::{Place, repository, said};

const NAMES: [&str; 2] = ["grampus", "orcinus"];

/// A place with two models whose names nothing else says; the second one thinks.
fn with_models() -> Place {
    let place = Place::new();
    for name in NAMES {
        place.copy(&repository().join("golden/models/llama-chat"), &format!("home/models/{name}"));
    }
    let template = "home/models/orcinus/chat_template.jinja";
    let text = String::from_utf8(place.read(template)).unwrap();
    assert!(text.contains("assistant\\n"));
    place.write(template, text.replace("assistant\\n", "assistant\\n<think>"));
    place
}

/// Has a model run shorter texts.
fn set_context(place: &Place, model: &str, context: usize) {
    let config = format!("home/models/{model}/config.json");
    let text = String::from_utf8(place.read(&config)).unwrap();
    let positions = |n: usize| format!("\"max_position_embeddings\": {n}");
    assert!(text.contains(&positions(256)));
    place.write(&config, text.replace(&positions(256), &positions(context)));
}

fn names_in(text: &str) -> Vec<&'static str> {
    NAMES.into_iter().filter(|name| text.contains(name)).collect()
}

/// Fights a battle: what was streamed, line by line, and its id.
fn fight(person: &Person<'_>, prompt: &str) -> (String, Vec<Value>, String) {
    let response = person.script("/arena/battle", &json!({ "prompt": prompt }));
    let headers = format!("{:?}", response.headers());
    let text = read(response);
    let lines: Vec<Value> =
        text.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect();
    let id = lines[0]["battle"].as_str().unwrap_or_else(|| panic!("{text}")).to_string();
    (headers + &text, lines, id)
}

fn log(place: &Place) -> Vec<Value> {
    let text = fs::read_to_string(place.path("home/votes.jsonl")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn ten_blind_battles_make_a_board_that_leads_back_to_them() {
    let place = with_models();
    let served = Served::start(&place, &["--person", "ada"]);
    let ada = served.log_in(&served.login).unwrap();
    let bob = read(ada.form("/account/invite", "name=bob"));
    let bob = served.log_in(&between(&bob, "class=\"secret\">", "<")).unwrap();
    assert!(read(ada.get("/arena")).contains("No votes yet"));
    assert_eq!(names_in(&read(ada.get("/arena/battle"))), Vec::<&str>::new());
    for (battle, outcome) in
        ["left", "right", "tie", "both-bad", "left", "left", "right", "tie", "left", "right"].iter().enumerate()
    {
        let prompt = format!("question {battle}");
        let (streamed, lines, id) = fight(&ada, &prompt);
        assert_eq!(names_in(&streamed), Vec::<&str>::new(), "{streamed}");
        for unsaid in ["\"ms\"", "tokens", "seed"] {
            assert!(!streamed.contains(unsaid), "{unsaid}: {streamed}");
        }
        assert_eq!(lines[lines.len() - 1], json!({ "done": true }), "{streamed}");
        let text = |side: usize, key: &str| {
            let of = lines.iter().filter(|line| line["side"] == side && line.get(key).is_some());
            of.filter_map(|line| line[if key == "step" { "text" } else { key }].as_str()).collect::<String>()
        };
        assert!([0, 1].iter().any(|side| !text(*side, "step").is_empty()), "one of the two thinks: {streamed}");
        let path = format!("/arena/battle/{id}");
        let blind = read(ada.get(&path));
        assert_eq!(names_in(&blind), Vec::<&str>::new(), "{blind}");
        assert!(blind.contains("Which answer is better?") && blind.contains(&prompt), "{blind}");
        assert_eq!(bob.get(&path).status(), 404, "it is not his");
        assert_eq!(bob.form(&format!("{path}/vote"), "answers=left").status(), 404);
        for nonsense in ["", "answers=me", "answers=left&thoughts=mine"] {
            assert_eq!(ada.form(&format!("{path}/vote"), nonsense).status(), 400, "{nonsense}");
        }
        let voted = ada.form(&format!("{path}/vote"), &format!("answers={outcome}&thoughts=tie"));
        assert_eq!((voted.status().as_u16(), &voted.headers()["location"]), (303, &path.parse().unwrap()));
        let open = read(ada.get(&path));
        assert_eq!(names_in(&open), NAMES, "{open}");
        for again in [&ada, &bob] {
            assert_eq!(again.form(&format!("{path}/vote"), "answers=right").status(), 409);
        }
        assert!(read(bob.get(&path)).contains(&prompt), "what was voted on is everybody's to read");
        let votes = log(&place);
        let vote = votes.last().unwrap();
        assert_eq!(
            (votes.len(), &vote["battle"], &vote["winner"], &vote["reasoning"], &vote["voter"]),
            (battle + 1, &json!(id), &json!(outcome), &json!("tie"), &json!("ada"))
        );
    }
    let board = read(bob.get("/arena"));
    assert_eq!((names_in(&board), board.matches("<svg class=\"interval\"").count()), (NAMES.to_vec(), 4), "{board}");
    assert!(board.contains("share the first place") && board.contains("<h2>Thoughts</h2>"), "{board}");
    let ranked = place.json(&["arena", "board"]);
    assert_eq!((&ranked["votes"], ranked["models"].as_array().unwrap().len()), (&json!(10), 2));
    // From the rating to the battle.
    let model = between(&board, "href=\"/arena/model?name=orcinus", "\"");
    let model = read(bob.get(&format!("/arena/model?name=orcinus{model}")));
    assert_eq!(model.matches("href=\"/arena/battle/").count(), 10, "{model}");
    let battle = between(&model, "href=\"/arena/battle/", "\"");
    let battle = read(bob.get(&format!("/arena/battle/{battle}")));
    assert!(battle.contains("question ") && battle.contains("ada") && battle.contains("class=\"thought\""), "{battle}");
    assert_eq!(bob.get("/arena/model?name=nobody").status(), 404);
}

#[test]
fn a_battle_that_fails_names_nobody_and_can_not_be_voted_on() {
    let place = with_models();
    place.write("home/models/orcinus/config.json", "{}");
    let served = Served::start(&place, &[]);
    let ada = served.log_in(&served.login).unwrap();
    let (streamed, lines, id) = fight(&ada, "hello");
    assert_eq!(names_in(&streamed), Vec::<&str>::new(), "{streamed}");
    assert!(lines[lines.len() - 1]["error"]["message"].as_str().unwrap().contains("nothing to vote on"), "{streamed}");
    let path = format!("/arena/battle/{id}");
    let page = read(ada.get(&path));
    assert!(page.contains("broke off") && names_in(&page).is_empty(), "{page}");
    assert_eq!(ada.form(&format!("{path}/vote"), "answers=left").status(), 409);
    assert_eq!(log(&place), Vec::<Value>::new());
    fs::remove_dir_all(place.path("home/models/orcinus")).unwrap();
    let refused = ada.script("/arena/battle", &json!({ "prompt": "hello" }));
    assert_eq!(refused.status(), 409);
    assert!(object(refused)["error"]["message"].as_str().unwrap().contains("needs two models"));
    assert!(read(ada.get("/arena/battle")).contains("needs two models"));
}

/// Models that were trained on a task know its letters alone; a battle is then between two others.
#[test]
fn models_that_can_not_read_the_prompt_are_left_out() {
    let place = with_models();
    // Together with what is asked it is more than this one can run.
    place.copy(&place.path("home/models/grampus"), "home/models/minute");
    set_context(&place, "minute", 8);
    let served = Served::start(&place, &[]);
    let ada = served.log_in(&served.login).unwrap();
    for _ in 0..6 {
        let (streamed, lines, id) = fight(&ada, "a question of some length");
        assert_eq!(lines[lines.len() - 1], json!({ "done": true }), "{streamed}");
        assert_eq!(ada.form(&format!("/arena/battle/{id}/vote"), "answers=tie").status(), 303);
        assert_eq!(names_in(&read(ada.get(&format!("/arena/battle/{id}")))), NAMES);
    }
    let votes = log(&place);
    assert!(
        votes.len() == 6 && votes.iter().all(|vote| vote["left"] != "minute" && vote["right"] != "minute"),
        "{votes:?}"
    );
}

/// Where memory has room for one model, the second waits for the first.
#[test]
fn two_models_meet_where_there_is_room_for_one() {
    let place = with_models();
    NAMES.iter().for_each(|name| set_context(&place, name, 64));
    let served = Served::start(&place, &["--memory", "0.00015"]);
    let ada = served.log_in(&served.login).unwrap();
    let (streamed, lines, _) = fight(&ada, "why?");
    assert_eq!(lines[lines.len() - 1], json!({ "done": true }), "{streamed}");
    assert!(read(ada.get("/metrics")).contains("models_loaded 1\n"), "there was never room for both");
}

/// What an endpoint does with a request.
#[derive(Clone, Copy)]
enum Script {
    /// Says a thought and this answer.
    Says(&'static str),
    /// Refuses with this status and message.
    Refuses(&'static str),
    /// Hangs up in the middle.
    HangsUp,
    /// Says nothing until its client has lost patience.
    Waits,
}

/// An endpoint that keeps to its script, until the process ends: its URL.
fn endpoint(script: Script) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut reader = BufReader::new(connection.try_clone().unwrap());
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if let Some(bytes) = line.to_lowercase().strip_prefix("content-length:") {
                    length = bytes.trim().parse().unwrap();
                }
                head += &line;
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let asked: Value = serde_json::from_slice(&body).unwrap();
            assert!(head.starts_with("POST /v1/chat/completions ") && head.contains("Bearer sesame"), "{head}");
            assert_eq!((&asked["model"], &asked["stream"]), (&json!("far"), &json!(true)));
            let event = |delta: Value| {
                format!("data: {}\n\n", json!({ "choices": [{ "delta": delta, "finish_reason": null }] }))
            };
            let thought = event(json!({ "reasoning_content": "let me see" }));
            let ok = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
            let text = match script {
                Script::Says(answer) => {
                    format!("{ok}: hello\n\n{thought}{}data: [DONE]\n\n", event(json!({ "content": answer })))
                }
                Script::Refuses(message) => {
                    let body = json!({ "error": { "message": message } }).to_string();
                    format!("HTTP/1.1 429 No\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
                }
                Script::HangsUp => format!("{ok}{thought}"),
                Script::Waits => {
                    // Until the client hangs up.
                    let _ = reader.read(&mut [0]);
                    String::new()
                }
            };
            // A client that has gone away is part of the play.
            let _ = connection.write_all(text.as_bytes());
        }
    });
    url
}

/// `minke arena battle` with these lines on stdin.
fn battle(place: &Place, arguments: &[&str], lines: &str) -> Output {
    let mut command = place.minke(&[&["arena", "battle"], arguments].concat());
    command.env("MINKE_KEY_A", "sesame").env("MINKE_KEY_B", "sesame");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may have ended without reading any.
    let _ = child.stdin.take().unwrap().write_all(lines.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn a_battle_in_the_terminal_is_blind_until_its_vote() {
    let place = with_models();
    let output = battle(&place, &["why?", "--a", "grampus", "--b", "orcinus", "--voter", "ada"], "no\na\nx\n");
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let (blind, open) = text.split_once("A was ").unwrap();
    assert_eq!((names_in(blind), names_in(open)), (Vec::new(), NAMES.to_vec()), "{text}");
    assert!(blind.contains("A:\n") && blind.contains("B:\n") && blind.contains("</think>"), "{text}");
    let votes = log(&place);
    assert_eq!((votes.len(), &votes[0]["winner"], &votes[0]["reasoning"]), (1, &json!("left"), &json!("both-bad")));
    assert_eq!(open.split(',').next(), votes[0]["left"].as_str());

    // Two prompts from stdin, of models that it draws itself; the second one gets no vote.
    let output = battle(&place, &["--json"], "why?\nt\n\nwhat?\n\n");
    let lines: Vec<Value> = output.stdout.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    assert_eq!(lines.len(), 4, "{}", said(&output));
    assert!(lines[0]["a"].get("model").is_none() && lines[0]["a"]["answer"] == lines[1]["a"]["answer"]);
    assert_eq!(
        (&lines[1]["winner"], &lines[1]["reasoning"], &lines[3]["winner"]),
        (&json!("tie"), &Value::Null, &Value::Null)
    );
    assert_eq!(log(&place).len(), 2);
}

#[test]
fn the_server_at_work_here_needs_no_key_and_its_models_keep_their_names() {
    let place = with_models();
    let served = Served::start(&place, &[]);
    let here = format!("{}#orcinus", served.address);
    let arguments = ["arena", "battle", "why?", "--a", "gramp", "--b", &here, "--max-tokens", "20", "--json"];
    let mut child = place.minke(&arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"t\n\n").unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
    let votes = log(&place);
    let mut names = [&votes[0]["left"], &votes[0]["right"]];
    names.sort_by_key(|name| name.as_str());
    assert_eq!((votes.len(), names), (1, [&json!("grampus"), &json!("orcinus")]));
}

#[test]
fn endpoints_are_asked_and_their_failures_cost_no_vote() {
    let place = with_models();
    for (script, expected) in [
        (Script::Refuses("too much\nto do"), "answered 429"),
        (Script::HangsUp, "broke off in the middle"),
        (Script::Waits, "timeout"),
    ] {
        let far = format!("{}#far", endpoint(script));
        let output = battle(&place, &["why?", "--a", "grampus", "--b", &far, "--timeout", "1"], "a\na\n");
        let sentence = said(&output);
        assert_eq!((output.status.code(), sentence.trim().lines().count()), (Some(1), 1), "{sentence}");
        assert!(sentence.contains("no vote was recorded") && sentence.contains(expected), "{sentence}");
        assert_eq!(log(&place), Vec::<Value>::new(), "{sentence}");
    }
    let far = format!("{}#far", endpoint(Script::Says("because")));
    let output = battle(&place, &["why?", "--a", &far, "--b", "grampus", "--json"], "b\n\n");
    let voted: Value = serde_json::from_slice(output.stdout.lines().nth(1).unwrap().unwrap().as_bytes()).unwrap();
    let side = if voted["a"]["model"].as_str().unwrap().starts_with("far@127.0.0.1:") { "a" } else { "b" };
    assert_eq!((&voted[side]["thought"], &voted[side]["answer"]), (&json!("let me see"), &json!("because")), "{voted}");
    assert_eq!((log(&place).len(), &voted["winner"]), (1, &json!("right")));
}

#[test]
fn a_verifier_votes_without_people_and_has_its_own_board() {
    let place = Place::new();
    let sums = |answer| format!("{}#far", endpoint(Script::Says(answer)));
    let (right, wrong) = (sums("168"), sums("167"));
    place.write("sums.txt", "37+85+46=\n100+60+8=\n\n1+2=\n");
    let arguments = ["--a", &right, "--b", &wrong, "--prompts", "sums.txt", "--judge", "chain_sum"];
    let output = battle(&place, &[&arguments[..], &["--json"]].concat(), "");
    let lines: Vec<Value> = output.stdout.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    assert_eq!(lines.len(), 3, "{}", said(&output));
    for (line, is_right) in lines.iter().zip([true, true, false]) {
        let best = if line["a"]["answer"] == "168" { "left" } else { "right" };
        assert_eq!(line["winner"], if is_right { best } else { "both-bad" }, "{line}");
        assert_eq!(line["judge"], "chain_sum");
    }
    assert!(lines[0]["verdicts"].to_string().contains("answer \\\"167\\\" is not 168"), "{}", lines[0]);
    assert!(log(&place).iter().all(|vote| vote["judge"] == "chain_sum" && vote.get("voter").is_none()));
    assert!(place.run(&["arena", "board"]).contains("--judged ranks by them"));
    let board = place.json(&["arena", "board", "--judged"]);
    assert!(!place.run(&["arena", "board", "--judged"]).contains("no certainty"));
    assert_eq!((&board["votes"], &board["judged"], &board["left_out"]), (&json!(3), &json!(true), &json!(0)));
    place.run(&["arena", "vote", "--left", "x", "--right", "y", "--winner", "left"]);
    let people = place.json(&["arena", "board"]);
    assert_eq!((&people["votes"], &people["left_out"]), (&json!(1), &json!(3)), "they are never counted together");

    place.write("odd.txt", "37+85=\nwhy?\n");
    let output = battle(&place, &["--a", &right, "--b", &wrong, "--prompts", "odd.txt", "--judge", "chain_sum"], "");
    assert!(
        said(&output).contains("\"why?\" is no problem of chain_sum") && log(&place).len() == 4,
        "{}",
        said(&output)
    );
}
