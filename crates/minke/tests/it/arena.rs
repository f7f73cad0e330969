//! `minke arena`: votes from files and the command line to a leaderboard, and out again.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::{Place, printed, repository, said};

/// The golden votes of Chatbot Arena, in the form of the file that they were counted in.
fn chatbot_arena() -> String {
    let counts = fs::read_to_string(repository().join("golden/votes/chatbot-arena/counts.csv")).unwrap();
    let mut number = 0;
    let lines = counts.lines().skip(1).flat_map(|row| {
        let [left, right, winner, votes] = row.split(',').collect::<Vec<&str>>()[..] else { panic!("{row}") };
        let winner = match winner {
            "left" => "model_a",
            "right" => "model_b",
            "both-bad" => "tie (bothbad)",
            other => other,
        };
        let line = |_| {
            number += 1;
            let id = format!("{number:032x}");
            json!({"num": number, "question_id": id, "model_a": left, "model_b": right, "winner": winner}).to_string()
                + "\n"
        };
        (0..votes.parse::<u32>().unwrap()).map(line).collect::<Vec<String>>()
    });
    lines.collect()
}

/// That a board has the numbers of the golden file.
fn check_golden(board: &Value) {
    let golden = repository().join("golden/votes/chatbot-arena/golden_bt_sandwich.csv");
    let golden = fs::read_to_string(golden).unwrap();
    let rows: Vec<Vec<&str>> = golden.lines().skip(1).map(|row| row.split(',').collect()).collect();
    let models = board["models"].as_array().unwrap();
    assert_eq!((rows.len(), models.len()), (20, 20));
    for (row, model) in rows.iter().zip(models) {
        assert_eq!(model["model"], row[0]);
        for (key, golden) in [("rating", row[1]), ("lower", row[2]), ("upper", row[3]), ("votes", row[6])] {
            let golden: f64 = golden.parse().unwrap();
            assert!((model[key].as_f64().unwrap() - golden).abs() < 1e-6, "{key}: {model} {row:?}");
        }
    }
}

#[test]
fn imported_votes_make_the_golden_board() {
    let place = Place::new();
    place.write("arena.json", chatbot_arena());
    let imported = place.json(&["arena", "import", "arena.json"]);
    let expected = json!({"file": "arena.json", "format": "chatbot-arena", "added": 26_919, "duplicates": 0,
        "bad_lines": 0, "models": 20, "log": "home/votes.jsonl", "votes": 26_919});
    assert_eq!(imported, expected);
    let board = place.json(&["arena", "board"]);
    check_golden(&board);
    let keys: Vec<&str> = board["models"][0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys[..6], ["model", "rating", "lower", "upper", "rank", "votes"]);
    assert_eq!((board["models"][0]["rank"].as_u64(), board["models"][2]["rank"].as_u64()), (Some(1), Some(2)));
    assert_eq!(board["first_place"]["rival"], "claude-v1");

    // Another file with the same battles: they are known.
    place.write("again.json", format!("\n{}", chatbot_arena()));
    let again = place.json(&["arena", "import", "again.json"]);
    assert_eq!((&again["added"], &again["duplicates"]), (&json!(0), &json!(26_919)));
    // Out as CSV, without a log in between, and as a log of another place.
    place.run(&["arena", "export", "--format", "csv", "--out", "votes.csv"]);
    check_golden(&place.json(&["arena", "board", "--log", "votes.csv"]));
    let exported = place.run(&["arena", "export"]);
    let other = Place::new();
    other.write("log.jsonl", &exported);
    other.run(&["arena", "import", "log.jsonl"]);
    check_golden(&other.json(&["arena", "board"]));
    assert_eq!(other.run(&["arena", "export"]), exported);

    let text = place.run(&["arena", "board", "--svg", "board.svg"]);
    let first = text.lines().nth(1).unwrap();
    assert!(first.contains("1  gpt-4 ") && first.contains("1237      1226–1249  3,483"), "{text}");
    assert!(first.contains("├●┤") && text.contains("26,919 votes on answers; a tie is half a win"), "{text}");
    let picture = String::from_utf8(place.read("board.svg")).unwrap();
    assert!(picture.matches("<circle").count() == 20 && picture.contains(">gpt-4</text>"), "{picture}");

    let davidson = place.json(&["arena", "board", "--ties", "davidson"]);
    assert!((davidson["nu"].as_f64().unwrap() - 0.529_801_521_570_658).abs() < 1e-9, "{davidson}");
    let even = place.json(&["arena", "board", "--reweight"]);
    assert_ne!(even["models"][0]["rating"], board["models"][0]["rating"]);
    let drawn = |seed| place.json(&["arena", "board", "--bootstrap", "20", "--seed", seed])["models"][0].clone();
    assert_eq!(drawn("1"), drawn("1"));
    assert_ne!(drawn("1")["lower"], drawn("2")["lower"]);
}

/// The real file, which is larger than what belongs into a repository.
#[test]
fn the_whole_of_human_json_makes_the_golden_board() {
    let Some(file) = std::env::var_os("MINKE_HUMAN_JSON") else {
        return;
    };
    let place = Place::new();
    place.copy(Path::new(&file), "human.json");
    assert_eq!(place.json(&["arena", "import", "human.json"])["added"], 26_919);
    check_golden(&place.json(&["arena", "board"]));
    let output = place.minke(&["arena", "import", "human.json"]).output().unwrap();
    assert!(said(&output).contains("was imported into home/votes.jsonl before"), "{}", said(&output));
}

#[test]
fn votes_from_the_command_line_are_counted() {
    let place = Place::new();
    assert!(place.run(&["arena", "board"]).starts_with("There are no votes in home/votes.jsonl yet"));
    assert_eq!(place.json(&["arena", "board"])["models"], json!([]));
    let vote = |rest: &[&str]| place.run(&[&["arena", "vote", "--left", "a", "--right", "b"], rest].concat());
    assert_eq!(vote(&["--winner", "left"]), "a is better than b. Vote 1 in home/votes.jsonl.\n");
    assert!(place.run(&["arena", "board", "--reasoning"]).starts_with("None of the votes"));
    vote(&["--winner", "right", "--reasoning", "left", "--voter", "ada", "--battle", "7"]);
    vote(&["--winner", "both-bad"]);
    let recorded = place.json(&["arena", "vote", "--left", "b", "--right", "c", "--winner", "tie"]);
    assert_eq!(recorded, json!({"log": "home/votes.jsonl", "votes": 4}));

    let board = place.json(&["arena", "board"]);
    let rating = |i: usize| board["models"][i]["rating"].as_f64().unwrap();
    assert!((0..3).all(|i| (rating(i) - 1000.0).abs() < 1e-9), "{board}");
    assert_eq!((board["votes"].as_u64(), board["half_vote_prior"].as_bool()), (Some(4), Some(false)));
    assert_eq!(board["models"][0]["both_bad"].as_f64(), Some(1.0 / 3.0));
    let reasoning = place.json(&["arena", "board", "--reasoning"]);
    assert_eq!(
        (reasoning["models"][0]["model"].as_str(), reasoning["question"].as_str()),
        (Some("a"), Some("reasoning"))
    );
    assert_eq!(reasoning["half_vote_prior"], true);
    assert!(place.run(&["arena", "board", "--reasoning"]).contains("Half a vote was added for each model"));

    // What each vote says is in the log, and goes out and in without being counted twice.
    let log = String::from_utf8(place.read("home/votes.jsonl")).unwrap();
    assert!(log.lines().all(|line| line.starts_with(r#"{"v":1,"left":""#) && line.contains(r#""ms":"#)), "{log}");
    assert!(log.contains(r#""winner":"right","reasoning":"left","voter":"ada","ms":"#), "{log}");
    assert_eq!(place.run(&["arena", "export"]), log);
    place.write("votes.jsonl", log + r#"{"v":1,"left":"a","right":"c","winner":"tie","ms":1}"#);
    let imported = place.json(&["arena", "import", "votes.jsonl"]);
    assert_eq!((&imported["added"], &imported["duplicates"], &imported["votes"]), (&json!(1), &json!(4), &json!(5)));
}

#[test]
fn what_a_crash_cut_off_is_told_and_does_not_count() {
    let place = Place::new();
    let vote = ["arena", "vote", "--left", "a", "--right", "b", "--winner", "tie"];
    place.run(&vote);
    let whole = place.read("home/votes.jsonl");
    place.write("home/votes.jsonl", [&whole[..], br#"{"v":1,"left":"a","ri"#].concat());
    let output = place.minke(&["arena", "board", "--json"]).output().unwrap();
    assert_eq!(said(&output), "home/votes.jsonl: line 2 was cut off by a crash and does not count\n");
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["votes"], 1);
    // The next vote takes its place.
    place.run(&vote);
    let log = place.read("home/votes.jsonl");
    assert!(log.starts_with(&whole));
    assert_eq!(String::from_utf8(log).unwrap().lines().count(), 2);
    let output = place.minke(&["arena", "board"]).output().unwrap();
    assert_eq!(said(&output), "");
}

#[test]
fn bad_lines_are_skipped_if_that_is_asked() {
    let place = Place::new();
    place.write("a.csv", "id,left,right,winner\n1,a,b,left\n2,a,b\n3,b,a,left\n4,a,a,tie\n");
    let mut command = place.minke(&["arena", "import", "a.csv", "--skip-bad"]);
    let output = command.output().unwrap();
    let expected = "a.csv line 3: it has 3 columns, fewer than the first line\na.csv line 5: \"a\" is compared with itself; a vote is on two models\n";
    assert_eq!(said(&output), expected);
    let expected = "2 votes on 2 models from a.csv (CSV) added to home/votes.jsonl.\n";
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    // Without a name for each battle, two votes that read the same are two votes.
    place.write("b.csv", "left,right,winner\na,b,left\n");
    assert_eq!(place.json(&["arena", "import", "b.csv"])["votes"], 3);
    assert_eq!(printed(&mut place.minke(&["arena", "export", "--format", "csv"])).lines().count(), 4);
}

#[test]
fn verified_accuracy_is_kept_and_stands_beside_its_cost() {
    let place = Place::new();
    let model = repository().join("golden/models/llama-chat");
    let model = model.to_str().unwrap();
    let eval =
        ["eval", model, "--task", "chain_sum", "--digits", "1", "--items", "12", "--max-tokens", "4", "--record"];
    let with = |more: &[&'static str]| [&eval[..], more].concat();
    assert!(place.run(&["arena", "board", "--verified"]).contains("Nothing was measured yet"));
    assert!(place.run(&with(&["plain"])).contains("core-seconds a completion"));
    let shown = place.json(&with(&["shown", "--shots", "1"]));
    assert!(shown["core_s"].as_f64().unwrap() > 0.0 && shown["items"] == 12, "{shown}");
    // Samples hide what the greedy completions cost.
    place.run(&with(&["sampled", "--samples", "2"]));
    place.run(&with(&["asked", "--instruction", "Write only the sum.", "--answers", "asked.jsonl"]));
    let asked = String::from_utf8(place.read("asked.jsonl")).unwrap();
    assert!(asked.contains("Write only the sum.") && !asked.contains("Think between"), "{asked}");
    let board = place.json(&["arena", "board", "--verified", "--svg", "board.svg"]);
    assert_eq!((&board["problems"], &board["judged"]), (&json!(["chain_sum of 1–1 digits, 2"]), &json!("strictly")));
    let costs = board["models"].as_array().unwrap().iter().map(|model| model["core_s"].is_number());
    assert_eq!(costs.collect::<Vec<bool>>(), [true, true, false, true], "{board}");
    let picture = fs::read_to_string(place.path("board.svg")).unwrap();
    assert_eq!(picture.matches("<circle").count(), 3, "{picture}");
    let words = place.run(&["arena", "board", "--verified", "--lenient"]);
    assert!(words.contains("chain_sum of") && words.contains("judged leniently"), "{words}");
    // A board of votes has no use for them.
    assert!(place.run(&["arena", "board"]).contains("There are no votes"));
}
