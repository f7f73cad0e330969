//! Every subcommand on its good day: help, JSON, chat, training from a recipe to a model that can be talked to.

use std::process::Stdio;

use minke_kernels::random::Random;
use minke_model::dequantize::DataType;
use minke_model::{Checkpoint, Parameters, safetensors};
use serde_json::Value;

use crate::{Place, printed, replaced, repository, said, tiny, tiny_from};

const SUBCOMMANDS: [&[&str]; 36] = [
    &["chat"],
    &["train"],
    &["replay"],
    &["serve"],
    &["models"],
    &["pull"],
    &["quantize"],
    &["chips"],
    &["bench"],
    &["arena", "battle"],
    &["arena", "vote"],
    &["arena", "board"],
    &["arena", "import"],
    &["arena", "export"],
    &["try"],
    &["ideas"],
    &["idea"],
    &["join"],
    &["invite"],
    &["accept"],
    &["decline"],
    &["withdraw"],
    &["leave"],
    &["park"],
    &["inbox"],
    &["runs"],
    &["run"],
    &["logs"],
    &["why"],
    &["stop"],
    &["lab", "report"],
    &["lab", "simulate"],
    &["debug", "logits"],
    &["debug", "grads"],
    &["debug", "generate"],
    &["eval"],
];

/// A place with a small chat model, `m`.
fn with_model() -> Place {
    let place = Place::new();
    place.copy(&repository().join("golden/models/llama-chat"), "m");
    place
}

/// The subcommands that a help text lists.
fn listed(help: &str) -> Vec<&str> {
    let commands = help.split("Commands:\n").nth(1).unwrap_or_default();
    let lines = commands.lines().take_while(|line| !line.is_empty());
    lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).filter(|name| !name.is_empty()).collect()
}

#[test]
fn every_subcommand_has_help_with_an_example() {
    let place = Place::new();
    for words in SUBCOMMANDS {
        let help = place.run(&[words, &["--help"]].concat());
        let command = format!("minke {}", words.join(" "));
        let (_, examples) = help.split_once("Example").unwrap_or_else(|| panic!("{command}: no example: {help}"));
        assert!(examples.contains(&command), "{command}: {help}");
        assert!(help.contains(&format!("Usage: {command}")), "{command}: {help}");
        assert!(help.lines().all(|line| line.chars().count() <= 120), "{command}: {help}");
    }
    let groups = ["arena", "debug", "lab"];
    let (all, below) = (place.run(&["--help"]), groups.map(|group| place.run(&[group, "--help"])));
    let mut named = listed(&all);
    named.retain(|name| !groups.contains(name));
    named.extend(below.iter().flat_map(|help| listed(help)));
    let mut tested: Vec<&str> = SUBCOMMANDS.iter().map(|words| words[words.len() - 1]).collect();
    named.sort_unstable();
    tested.sort_unstable();
    assert_eq!(named, tested, "a subcommand is missing from these tests");
}

#[test]
fn it_has_a_version() {
    assert_eq!(Place::new().run(&["--version"]), format!("minke {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn chat_answers_a_prompt_from_anywhere_the_same() {
    let place = with_model();
    let options = ["--max-tokens", "12", "--seed", "3"];
    let argument = place.run(&[&["chat", "m", "hello"], &options[..]].concat());
    assert!(!argument.trim().is_empty());
    place.write("prompt.txt", "hello\n");
    let pipe = std::fs::File::open(place.path("prompt.txt")).unwrap();
    let piped = printed(place.minke(&[&["chat", "m"], &options[..]].concat()).stdin(pipe));
    assert_eq!(argument, piped);
    for threads in ["1", "2"] {
        let again =
            printed(place.minke(&[&["chat", "m", "hello"], &options[..]].concat()).env("MINKE_THREADS", threads));
        assert_eq!(argument, again);
    }

    let reply = place.json(&[&["chat", "m", "hello"], &options[..]].concat());
    assert!(reply["tokens"].as_u64().unwrap() <= 12 && reply["prompt_tokens"].as_u64().unwrap() > 1, "{reply}");
    assert!(["stop", "limit"].contains(&reply["end"].as_str().unwrap()), "{reply}");
    let answer = reply["answer"].as_str().unwrap();
    assert!(argument.contains(answer.trim()), "{argument:?} {answer:?}");
    for key in ["thought", "thought_tokens", "tokens_per_second"] {
        assert!(!reply[key].is_null(), "{key}: {reply}");
    }
}

#[test]
fn a_quantized_model_talks() {
    let place = with_model();
    let made = place.json(&["quantize", "m", "q8_0", "-o", "m.Q8_0.gguf"]);
    assert_eq!((made["path"].as_str(), made["type"].as_str()), (Some("m.Q8_0.gguf"), Some("Q8_0")));
    assert_eq!(made["bytes"].as_u64(), Some(place.read("m.Q8_0.gguf").len() as u64));
    assert!(!place.path(".m.Q8_0.gguf.partial").exists());
    // Its rows are no whole blocks, so they are F16: the answer stays as it was.
    let options = ["hello", "--max-tokens", "12", "--seed", "3"];
    let answer = |model: &str| place.run(&[&["chat", model], &options[..]].concat());
    assert_eq!(answer("m.Q8_0.gguf"), answer("m"));
    let words = place.run(&["quantize", "m.Q8_0.gguf", "f32", "-o", "m.F32.gguf"]);
    assert!(words.starts_with("m.F32.gguf: F32, "), "{words}");
}

#[test]
fn whoever_stops_reading_is_not_told_off() {
    let place = with_model();
    let mut child = place
        .minke(&["chat", "m", "hello", "--max-tokens", "500"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn models_are_listed_and_described() {
    let place = with_model();
    assert!(place.run(&["models"]).starts_with("There are no models in home/models yet"));
    assert_eq!(place.json(&["models"])["models"], Value::Array(Vec::new()));
    place.copy(&repository().join("golden/gguf/llama-chat.gguf"), "home/models/small.gguf");
    place.write("home/models/broken.gguf", "a web page");
    let listed = place.json(&["models"]);
    let models = listed["models"].as_array().unwrap();
    assert_eq!(models.iter().map(|m| m["name"].as_str().unwrap()).collect::<Vec<&str>>(), ["broken", "small"]);
    assert!(models[0]["error"].as_str().unwrap().contains("not GGUF"), "{listed}");
    assert_eq!((models[1]["family"].as_str(), models[1]["chat_template"].as_bool()), (Some("llama"), Some(true)));
    let text = place.run(&["models"]);
    assert!(text.contains("broken") && text.contains("can't be used") && text.contains("small"), "{text}");
    for model in ["m", "small", "sm"] {
        let one = place.json(&["models", model]);
        assert_eq!(one["family"], "llama", "{model}");
        assert!(place.run(&["models", model]).contains("parameters"), "{model}");
    }
    // A name in the store, and the beginning of one, can be talked to.
    place.run(&["chat", "sma", "hello", "--max-tokens", "2"]);
}

#[test]
fn chips_are_measured() {
    let machine = Place::new().json(&["chips"]);
    let available: Vec<&str> =
        machine["isa_available"].as_array().unwrap().iter().map(|i| i.as_str().unwrap()).collect();
    assert!(available.contains(&"portable") && available.contains(&machine["isa"].as_str().unwrap()), "{machine}");
    for measured in machine["measured"].as_array().unwrap() {
        for key in ["threads", "read_gb_s", "f32_gflop_s", "bf16_gflop_s"] {
            assert!(measured[key].as_f64().unwrap() > 0.0, "{key}: {machine}");
        }
    }
}

#[test]
fn models_are_predicted() {
    let place = with_model();
    let machine = place.json(&["chips", "m", "7B:Q4_K_M", "--svg", "roof.svg"]);
    for (model, name) in machine["models"].as_array().unwrap().iter().zip(["m", "7B:Q4_K_M"]) {
        assert_eq!(model["model"], name);
        for test in model["tests"].as_array().unwrap() {
            assert!(test["tok_s"].as_f64().unwrap() > 0.0, "{machine}");
        }
        assert_eq!(model["work"].as_array().unwrap().len(), 4, "{machine}");
    }
    assert!(std::fs::read_to_string(place.path("roof.svg")).unwrap().ends_with("</svg>\n"));
}

/// Gives the model `m` a block for multi-token prediction.
fn with_block(place: &Place) {
    let checkpoint = Checkpoint::open(&place.path("m")).unwrap();
    let (own, block) = (Parameters::of(checkpoint.config()), Parameters::of_prediction(checkpoint.config()));
    let mut random = Random::new(1, [0; 3]);
    let mut drawn = |len| (0..len).map(|_| (random.below(2001) as f32 - 1000.0) / 4000.0).collect();
    let mut tensors: Vec<(String, Vec<usize>, Vec<f32>)> = own
        .iter()
        .map(|p| (p.name.clone(), p.shape.clone(), checkpoint.tensor(&p.name, &p.shape).unwrap()))
        .chain(block.iter().map(|p| (p.name.clone(), p.shape.clone(), drawn(p.len()))))
        .collect();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let tensors: Vec<_> =
        tensors.iter().map(|(name, shape, values)| (name.clone(), shape.clone(), &values[..])).collect();
    let mut bytes = Vec::new();
    safetensors::write(&mut bytes, DataType::F32, &tensors).unwrap();
    place.write("m/model.safetensors", bytes);
}

#[test]
fn a_second_start_reads_what_the_first_has_kept() {
    let place = with_model();
    let chat = |cache: &str, home: &str| {
        let mut command = place.minke(&["chat", "m", "hello", "--max-tokens", "12", "--seed", "3"]);
        printed(command.env("MINKE_CACHE", cache).env("MINKE_HOME", home))
    };
    let kept = || -> Vec<std::path::PathBuf> {
        let files = std::fs::read_dir(place.path("home/packed")).into_iter().flatten();
        files.map(|entry| entry.unwrap().path()).collect()
    };
    let plain = chat("off", "home");
    assert_eq!(chat("on", "home"), plain);
    assert!(kept().is_empty(), "a model so small is packed at once");
    assert_eq!(chat("always", "home"), plain);
    let [file] = kept().try_into().unwrap();
    let whole = std::fs::read(&file).unwrap();
    let written = || std::fs::metadata(&file).unwrap().modified().unwrap();
    let first = written();
    assert_eq!(chat("always", "home"), plain);
    assert_eq!(written(), first, "it was not written again");
    // A damaged one is written again.
    let spoilt = [&whole[..10], &b"?"[..], &whole[11..]].concat();
    for damaged in [whole[..whole.len() / 2].to_vec(), Vec::new(), spoilt] {
        std::fs::write(&file, damaged).unwrap();
        assert_eq!(chat("always", "home"), plain);
        assert_eq!(std::fs::read(&file).unwrap(), whole);
    }
    // Other bits of the same model stand beside it, and a model that changes gets the place of the one before.
    let bf16 = ["chat", "m", "hello", "--max-tokens", "2", "--dtype", "bf16"];
    printed(place.minke(&bf16).env("MINKE_CACHE", "always"));
    assert_eq!(kept().len(), 2);
    let weights = place.read("m/model.safetensors");
    std::fs::remove_file(place.path("m/model.safetensors")).unwrap();
    place.write("m/model.safetensors", weights);
    assert_eq!(chat("always", "home"), plain);
    assert_eq!(kept().len(), 2);
    assert_ne!(std::fs::read(&file).unwrap(), whole, "the header names the new file");

    let listed = place.json(&["models"]);
    assert!(listed["packed_bytes"].as_u64().unwrap() > whole.len() as u64, "{listed}");
    assert_eq!(place.json(&["models", "--clear-cache"])["files"], 2);
    assert!(kept().is_empty());
    assert!(place.run(&["models", "--clear-cache"]).contains("no packed weights"));

    // Where nothing can be kept, models start all the same.
    place.write("other/packed", "not a directory");
    assert_eq!(chat("always", "other"), plain);
    let refused = place.minke(&["chat", "m", "hello"]).env("MINKE_CACHE", "maybe").output().unwrap();
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("on, off or always"));
}

#[test]
fn guesses_do_not_change_a_reply() {
    let place = with_model();
    with_block(&place);
    let reply = |speculate: &str| {
        let chat = ["chat", "m", "hello hello hello", "--temperature", "1", "--max-tokens", "80", "--speculate"];
        let reply = place.json(&[&chat[..], &[speculate]].concat());
        (reply["thought"].clone(), reply["answer"].clone(), reply["tokens"].clone())
    };
    let plain = reply("off");
    assert_eq!(plain, reply("lookup"));
    assert_eq!(plain, reply("m"));
    assert_eq!(plain, reply("mtp"));
}

#[test]
fn numbers_are_printed_as_json() {
    let place = with_model();
    with_block(&place);
    let bench = [
        "bench",
        "m",
        "--prefill",
        "16",
        "--decode",
        "8",
        "--depth",
        "0,40",
        "--sequences",
        "1,3",
        "--repetitions",
        "2",
    ];
    let before = place.json(&bench);
    let tests: Vec<&str> = before["tests"].as_array().unwrap().iter().map(|t| t["test"].as_str().unwrap()).collect();
    assert_eq!(tests, ["pp16", "tg8", "tg8 x3", "pp16 @ d40", "tg8 @ d40", "tg8 x3 @ d40"]);
    place.write("before.json", before.to_string());
    let after = place.json(&[&bench[..], &["--compare", "before.json"]].concat());
    for (before, after) in before["tests"].as_array().unwrap().iter().zip(after["tests"].as_array().unwrap()) {
        assert!(after["tok_s"].as_f64() > Some(0.0) && after["before_tok_s"] == before["tok_s"], "{before} {after}");
    }
    for drafter in ["lookup", "mtp", "m"] {
        let speculating =
            ["bench", "m", "--prefill", "4", "--decode", "30", "--repetitions", "1", "--speculate", drafter];
        let benched = place.json(&speculating);
        let texts = benched["speculation"].as_array().unwrap();
        let names: Vec<&str> = texts.iter().map(|t| t["test"].as_str().unwrap()).collect();
        assert_eq!(names, ["list30", "story30", "digits30"]);
        assert!(texts.iter().all(|t| t["times"].as_f64() > Some(0.0)), "{benched}");
    }
    let logits = place.json(&["debug", "logits", "m", "--tokens", "1,2,3"]);
    assert_eq!(logits["logits"].as_array().unwrap().len(), 3);
    let grads = place.json(&["debug", "grads", "m", "--tokens", "1,2,3", "--out", "g.safetensors"]);
    assert!(grads["loss"].as_f64() > Some(0.0) && place.path("g.safetensors").exists(), "{grads}");
    let generated = place.json(&["debug", "generate", "m", "--prompt", "hello", "--tokens", "4"]);
    assert!(generated["ids"].is_array() && generated["text"].is_string(), "{generated}");
    place.write("text.txt", "hello hello hello");
    let perplexity = place.json(&["eval", "m", "--text", "text.txt"]);
    assert!(perplexity["perplexity"].as_f64() > Some(1.0), "{perplexity}");
}

#[test]
fn a_recipe_becomes_a_model_that_can_be_talked_to() {
    let place = Place::new();
    place.write("recipes/tiny.toml", tiny());
    let report = place.json(&["train", "recipes/tiny.toml", "--control"]);
    let run = "home/runs/tiny";
    assert_eq!(report["directory"], run);
    let mut kept: Value = serde_json::from_slice(&place.read(&format!("{run}/report.json"))).unwrap();
    kept.as_object_mut().unwrap().insert("directory".into(), run.into());
    assert_eq!(report, kept);
    assert_eq!((report["recipe"].as_str(), report["seed"].as_u64()), (Some("tiny"), Some(1)));
    assert_eq!(report["stages"].as_array().unwrap().len(), 2);
    assert!(report["control"]["steps"].as_u64() > Some(0), "{report}");
    // Who knows nothing is not measured; what was spent is said, and whether the control is another.
    assert!(report.get("base").is_none() && report.get("budget").is_none(), "{report}");
    assert_eq!(report["control"]["difference"]["items"], 8);
    for spent in ["/spent", "/stages/0/spent", "/stages/1/spent", "/control/spent", "/control/total"] {
        let spent = report.pointer(spent).unwrap();
        assert!(spent["core_s"].as_f64() > Some(0.0), "{spent}");
    }
    assert_eq!(report["stages"][0]["spent"]["sampled_tokens"], 0);
    let tokens = |of: &Value| of["sampled_tokens"].as_u64().unwrap() + of["learnt_tokens"].as_u64().unwrap();
    assert_eq!(tokens(&report["stages"][1]["spent"]), report["stages"][1]["tokens"].as_u64().unwrap());
    let text = |name: &str| String::from_utf8(place.read(&format!("{run}/{name}"))).unwrap();
    assert!(text("report.md").contains("tiny") && text("curves.svg").contains("<svg"));
    assert_eq!(text("recipe.toml"), tiny());

    // Whoever measures the model again finds what the report says.
    let asked = ["--task", "chain_sum", "--digits", "1", "--level", "2", "--items", "8", "--samples", "2"];
    let again = measured(&place, &[&["tiny"][..], &asked, &["--max-tokens", "24"]].concat());
    assert_eq!(again, report["final"]["think"]);
    assert_eq!(measured(&place, &["tiny", "--recipe", "recipes/tiny.toml"]), again);
    let above = measured(&place, &["tiny", "--recipe", "recipes/tiny.toml", "--level", "3"]);
    assert_eq!(above, report["final"]["above"]);

    // By name, by path, and as the report's last line says.
    for model in ["tiny", run, "home/runs/tiny/model", "home/runs/tiny/control"] {
        let reply = place.json(&["chat", model, "3+4=", "--max-tokens", "20"]);
        assert!(reply["tokens"].as_u64() > Some(0), "{model}: {reply}");
    }
    let listed = place.json(&["models"]);
    assert_eq!(listed["models"][0]["name"], "tiny");
    assert_eq!(listed["models"][0]["family"], "deepseek_v3");

    // Any rollout can be sampled again, and is what it was: steps 7 to 10 are the second stage's.
    let again = place.json(&["replay", "tiny", "--step", "9", "--sample", "5"]);
    assert_eq!((again["same"].as_bool(), again["rollout"]["prompt"].as_u64()), (Some(true), Some(1)));
    let words = place.run(&["replay", run, "--step", "7", "--tokens"]);
    assert!(words.starts_with("step 7, prompt 0, sample 0:\n") && words.contains("the same, to the bit"), "{words}");

    // Going on with what is finished prints it again; another run of the recipe has a place of its own.
    let again = place.json(&["train", "tiny", "--resume"]);
    assert_eq!(again["stages"], report["stages"]);
    let seeded = place.json(&["train", "recipes/tiny.toml", "--seed", "2", "--budget", "2s"]);
    assert_eq!((seeded["directory"].as_str(), seeded["seed"].as_u64()), (Some("home/runs/tiny-2"), Some(2)));
    assert_ne!(seeded["shown"], report["shown"]);
    // A budget is told, in numbers and in words.
    let steps = |stages: &Value| stages.as_array().unwrap().iter().map(|s| s["steps"].clone()).collect::<Vec<Value>>();
    assert_eq!(steps(&seeded["budget"]["stages"]), steps(&seeded["stages"]));
    assert!(seeded["notes"][0].as_str().unwrap().contains("2 s: "), "{seeded}");
}

/// A control begins where its run began, also where that is a model that exists: with a rate of 0 it stays there.
#[test]
fn a_model_that_exists_is_trained_further_and_so_is_its_control() {
    let place = Place::new();
    place.write("tiny.toml", tiny());
    place.run(&["train", "tiny.toml", "--seed", "7"]);
    place.write("again.toml", replaced(&tiny_from("tiny"), "lr = 3e-3", "lr = 0\nbias_rate = 0"));
    let report = place.json(&["train", "again.toml", "--control"]);
    // A model that does not move is as good after its first stage as before it.
    assert!(report["base"]["think"]["right"].is_string(), "{report}");
    assert_eq!(report["base"]["think"], report["stages"][0]["think"]);
    let weights = |model: &str| place.read(&format!("home/runs/{model}/model.safetensors"));
    let before = weights("tiny/model");
    assert!(weights("again/stages/1") == before && weights("again/control/model") == before);
}

/// Templates that open the thought themselves are told of, when a run begins and in its report.
#[test]
fn a_template_that_opens_the_thought_is_told_of() {
    const NOTE: &str = "chat template opens <think> itself; completions are read as beginning inside it";
    let place = Place::new();
    place.copy(&repository().join("golden/models/llama-chat"), "llama-chat");
    place.write("tiny.toml", tiny_from("llama-chat"));
    let before = place.minke(&["train", "tiny.toml", "--out", "before"]).output().unwrap();
    let template = String::from_utf8(place.read("llama-chat/chat_template.jinja")).unwrap();
    place.write("llama-chat/chat_template.jinja", format!("{}<think>\n", template.trim_end()));
    let after = place.minke(&["train", "tiny.toml", "--out", "after"]).output().unwrap();
    let report = |name: &str| String::from_utf8(place.read(&format!("{name}/report.md"))).unwrap();
    for (output, name, told) in [(before, "before", 0), (after, "after", 1)] {
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert_eq!(said(&output).matches(NOTE).count(), told, "{}", said(&output));
        assert_eq!(report(name).matches(NOTE).count(), told, "{}", report(name));
    }
}

/// Files and programs are tasks of `minke eval` too, by way of a recipe, and each answer can be kept.
/// What `minke eval` finds, but for the cores' time, which is never the same.
fn measured(place: &Place, arguments: &[&str]) -> Value {
    let mut found = place.json(&[&["eval"], arguments].concat());
    assert!(found.as_object_mut().unwrap().remove("core_s").unwrap().as_f64().unwrap() > 0.0);
    found
}

#[test]
fn what_a_report_says_of_any_task_can_be_measured_again() {
    let place = with_model();
    let problem = |i: usize| format!("{{\"question\": \"{i}+1=\", \"answer\": \"{}\"}}\n", i + 1);
    place.write("sums.jsonl", (0..60).map(problem).collect::<String>());
    let task = "name = \"chain_sum\"\ndigits = 1";
    let file = replaced(&replaced(&tiny_from("m"), task, "file = \"sums.jsonl\""), "level = [2, 3]", "level = 1");
    let file =
        replaced(&file.replace("level = 2", "level = 1"), "direct = 0.4, think = 0.45, backtrack = 0.15", "direct = 1");
    place.write("file.toml", format!("{file}\n[format]\nthink = false\n"));
    // A program that poses another problem each time it is asked: what it said in the run is asked for again.
    let script = repository().join("crates/train/src/tasks/external/misbehaving.py");
    let program = format!("command = [\"python3\", {script:?}, \"whims\"]");
    place.write("program.toml", replaced(&tiny(), task, &program));
    for name in ["file", "program"] {
        let report = place.json(&["train", &format!("{name}.toml"), "--out", name]);
        let recipe = format!("{name}/recipe.toml");
        let again = measured(&place, &[name, "--recipe", &recipe, "--answers", "answers.jsonl"]);
        assert_eq!(again, report["final"]["think"], "{name}");
        let answers = String::from_utf8(place.read("answers.jsonl")).unwrap();
        let answers: Vec<Value> = answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let right = |answer: &Value| if answer["reward"] == 1.0 { '1' } else { '0' };
        assert_eq!(answers.iter().map(right).collect::<String>(), again["right"].as_str().unwrap(), "{name}");
        for answer in &answers {
            let (tokens, last) = (answer["tokens"].as_array().unwrap(), answer["tokens"].as_array().unwrap().last());
            let ended = answer["ends"].as_array().unwrap().contains(last.unwrap());
            assert_eq!(answer["truncated"].as_bool(), Some(!ended), "{answer}");
            assert!(tokens.len() <= 24 && answer["text"].is_string(), "{answer}");
            // What a published model is asked, and what it reads of that.
            let prompt = answer["prompt"].as_str().unwrap();
            match answer.get("messages").map(|messages| messages[0]["content"].as_str().unwrap()) {
                Some(question) => assert!(prompt.contains(question) && prompt.ends_with("assistant\n"), "{answer}"),
                None => assert!(name == "program" && prompt.ends_with('='), "{answer}"),
            }
        }
        let few =
            place.json(&["eval", name, "--recipe", &recipe, "--items", "3", "--samples", "0", "--max-tokens", "2"]);
        assert_eq!((few["items"].as_u64(), few.get("sampled")), (Some(3), None));
    }
}
