//! Command lines and environments that can't be followed.

use crate::bad_input::Case;
use crate::{replaced, repository, tiny};

pub fn cases() -> Vec<Case> {
    let mut cases = words();
    cases.extend(training());
    cases.extend(talking());
    cases.extend(pulling());
    cases.extend(quantizing());
    cases.extend(measuring());
    cases.extend(serving());
    cases.extend(voting());
    cases.extend(simulating());
    cases
}

/// A case that is called as it is typed.
fn typed(line: &str) -> Case {
    Case::new(&format!("`minke {line}`"), &line.split(' ').collect::<Vec<&str>>())
}

/// The same, with more said about it.
fn typed_where(line: &str, circumstances: &str) -> Case {
    Case::new(&format!("`minke {line}`, {circumstances}"), &line.split(' ').collect::<Vec<&str>>())
}

/// What the argument parser finds.
fn words() -> Vec<Case> {
    vec![
        typed("trian recipes/sums.toml"),
        typed("--colour"),
        typed("train"),
        typed("train a.toml b.toml"),
        typed("train a.toml --budget 15"),
        typed("train a.toml --budget 0s"),
        typed("train a.toml --budget -5m"),
        typed("train a.toml --budget 99999h"),
        typed("train a.toml --seed -1"),
        typed("train a.toml --seed 4294967296"),
        typed("train a.toml --steps 5"),
        typed("train a.toml --resume --seed 2"),
        typed("train a.toml --resume --budget 5m"),
        typed("train a.toml --resume --control"),
        typed("train a.toml --accept-difference"),
        typed("replay tiny --step 0"),
        typed("chat"),
        typed("chat m --dtype f64"),
        typed("chat m --think maybe"),
        typed("chat m --temperature warm"),
        typed("chat m --max-tokens -1"),
        typed("pull"),
        typed("pull https://example.org/a.gguf --sha256 abc"),
        typed("quantize m q4_0"),
        typed("quantize m q9_k -o out.gguf"),
        typed("bench m --prefill 0"),
        typed("serve --listen nowhere"),
        typed("serve --cert c.pem"),
        typed("serve --memory 0"),
        typed("debug logits m --tokens 1,x"),
    ]
}

fn training() -> Vec<Case> {
    let tiny = tiny();
    let grpo_alone = {
        let (sft, grpo) = (tiny.find("[[stage]]").unwrap(), tiny.rfind("[[stage]]").unwrap());
        format!("{}{}", &tiny[..sft], &tiny[grpo..])
    };
    let train = |line: &str, circumstances: &str| typed_where(line, circumstances).file("a.toml", &tiny);
    vec![
        typed("train no/such.toml"),
        typed_where("train recipes", "a directory").file("recipes/a.toml", &tiny),
        typed("train sums --resume"),
        train("train a.toml --resume", "without a run"),
        train("train a.toml --out run", "a run").file("run/recipe.toml", &tiny).file("run/run.json", "{}"),
        train("train a.toml --out run", "a file").file("run", ""),
        train("train a.toml --out notes/run", "in a file").file("notes", ""),
        train("train a.toml", "`MINKE_HOME` a file").file("home", ""),
        train("train a.toml", "`MINKE_ISA=foo`").env("MINKE_ISA", "foo"),
        train("train a.toml", "`MINKE_THREADS=0`").env("MINKE_THREADS", "0"),
        train("train a.toml", "`MINKE_THREADS=foo`").env("MINKE_THREADS", "foo"),
        train("train a.toml", "`MINKE_THREADS=9999999999`").env("MINKE_THREADS", "9999999999"),
        typed_where("train a.toml --control", "no sft stage").file("a.toml", grpo_alone),
        typed_where("train a.toml --resume --out run", "another run in the store")
            .file("a.toml", &tiny)
            .file("run/recipe.toml", replaced(&tiny, "steps = 6", "steps = 7"))
            .file("run/run.json", "{}"),
        typed_where("train mine --resume --out run", "mine a run")
            .file("home/runs/mine/recipe.toml", &tiny)
            .file("home/runs/mine/run.json", "{}"),
    ]
}

fn talking() -> Vec<Case> {
    let model = repository().join("golden/models/llama-chat");
    let chat = |what: &str, arguments: &[&str]| {
        Case::new(what, &[&["chat", "m"], arguments].concat()).copy(&model, "m").copy(&model, "home/models/other")
    };
    let say = |options: &str| {
        let arguments: Vec<&str> = options.split(' ').chain(["hi"]).collect();
        chat(&format!("`minke chat m {options} hi`"), &arguments)
    };
    let damaged = model.join("model.safetensors");
    let half = &std::fs::read(damaged).unwrap()[..40_000];
    vec![
        typed("chat no-such-model hi"),
        typed_where("chat ./m hi", "an empty directory").with(|place| std::fs::create_dir(place.path("m")).unwrap()),
        typed_where("chat m hi", "a text file").file("m", "a model\n"),
        typed_where("chat ll hi", "two models begin so")
            .file("home/models/llama.gguf", "")
            .file("home/models/lloyd.gguf", ""),
        chat("`minke chat m`, weights cut short", &["hi"]).file("m/model.safetensors", half),
        chat("`minke chat m`, nothing on stdin", &[]),
        chat("`minke chat m`, an empty line on stdin", &[]).stdin(b"\n"),
        chat("`minke chat m`, bytes on stdin that are not UTF-8", &[]).stdin(b"caf\xe9\n"),
        chat("`minke chat m`, a novel on stdin", &[]).stdin("Call me Ishmael. ".repeat(2000).as_bytes()),
        say("--temperature 1e9"),
        say("--temperature -1"),
        say("--temperature nan"),
        say("--top-p 1.5"),
        say("--max-tokens 0"),
        chat("`minke chat m --budget 10 hi`, no tags for thoughts", &["--budget", "10", "hi"]).with(|place| {
            let tokenizer = String::from_utf8(place.read("m/tokenizer.json")).unwrap();
            place.write("m/tokenizer.json", tokenizer.replace("think>", "aside>"));
        }),
        say("--speculate no-such-model"),
        say("--speculate mtp"),
        chat("`minke chat m --speculate other hi`, a model of another vocabulary", &["--speculate", "other", "hi"])
            .with(|place| {
                let tokenizer = String::from_utf8(place.read("m/tokenizer.json")).unwrap();
                place.write("home/models/other/tokenizer.json", tokenizer.replace("think>", "aside>"));
            }),
        chat("`minke chat m hi`, `MINKE_ISA=mmx`", &["hi"]).env("MINKE_ISA", "mmx"),
    ]
}

fn pulling() -> Vec<Case> {
    let sha256 = "0".repeat(64);
    let gguf = repository().join("golden/gguf/llama-chat.gguf");
    vec![
        typed("pull ftp://example.org/a.gguf"),
        typed("pull hf:model"),
        typed("pull hf:org/model:config.json"),
        typed_where("pull hf:org/model", "`HF_ENDPOINT=mirror`").env("HF_ENDPOINT", "mirror"),
        typed_where("pull hf:org/model", "`HF_ENDPOINT=http://127.0.0.1:1`, nobody there")
            .env("HF_ENDPOINT", "http://127.0.0.1:1"),
        typed_where("pull hf:org/model", "`HF_ENDPOINT=http://192.0.2.1`, a token")
            .env("HF_ENDPOINT", "http://192.0.2.1")
            .env("HF_TOKEN", "secret"),
        typed("pull http://example.org/a.gguf"),
        typed("pull https://example.org/model"),
        typed("pull https://"),
        Case::new(
            "`minke pull http://127.0.0.1:1/a.gguf --sha256 …`, nobody there",
            &["pull", "http://127.0.0.1:1/a.gguf", "--sha256", &sha256],
        ),
        typed("pull no/such.gguf"),
        typed_where("pull a.gguf", "a text file").file("a.gguf", "a model\n"),
        typed_where("pull a.bin", "a model").copy(&gguf, "a.bin"),
        typed_where("pull a.gguf --name ../a", "a model").copy(&gguf, "a.gguf"),
        typed_where("pull a.gguf", "one in the store").copy(&gguf, "a.gguf").file("home/models/a.gguf", ""),
        typed_where("pull a.gguf", "`MINKE_HOME` a file").copy(&gguf, "a.gguf").file("home", ""),
        Case::new("`minke pull a.gguf --sha256 …`, of another file", &["pull", "a.gguf", "--sha256", &sha256])
            .copy(&gguf, "a.gguf"),
        Case::new("`minke pull a --sha256 …`, a directory", &["pull", "a", "--sha256", &sha256])
            .file("a/config.json", ""),
        typed_where("pull a", "an empty directory").with(|place| std::fs::create_dir(place.path("a")).unwrap()),
    ]
}

fn quantizing() -> Vec<Case> {
    let golden = |name: &str| repository().join("golden").join(name);
    let with = |line: &str, circumstances: &str| {
        typed_where(line, circumstances).copy(&golden("gguf/llama-chat.gguf"), "m.gguf")
    };
    vec![
        typed("quantize no-such-model q4_0 -o out.gguf"),
        with("quantize m.gguf q8_0 -o m.gguf", "over itself"),
        with("quantize m.gguf q8_0 -o no/such/out.gguf", "no such directory"),
        with("quantize m.gguf q8_0 -o ..", "no file's name"),
        with("quantize m.gguf q4_0 -o out.gguf --imatrix no-such.dat", "no such file"),
        with("quantize m.gguf q4_0 -o out.gguf --imatrix i.dat", "a text file").file("i.dat", "all of them\n"),
        with("quantize m.gguf q4_0 -o out.gguf --imatrix m.gguf", "a model"),
        with("quantize m.gguf q4_0 -o out.gguf --imatrix i.dat", "of another model")
            .file("i.dat", b"\x01\0\0\0\x05\0\0\0other\x01\0\0\0\x01\0\0\0\0\0\x80\x3f"),
        typed_where("quantize m.gguf q4_0 -o out.gguf", "a text file").file("m.gguf", "a model\n"),
        typed_where("quantize v.gguf q4_0 -o out.gguf", "a vocabulary")
            .copy(&golden("gguf/byte-level-vocabulary.gguf"), "v.gguf"),
        typed_where("quantize m q4_0 -o out.gguf", "no tokenizer").copy(&golden("models/llama"), "m"),
        typed_where("quantize m q4_0 -o out.gguf", "a family that GGUF is not written of")
            .copy(&golden("models/deepseek_v3"), "m"),
    ]
}

fn measuring() -> Vec<Case> {
    let model = repository().join("golden/models/llama");
    let with = |line: &str| typed(line).copy(&model, "m");
    vec![
        typed("models no-such-model"),
        typed_where("models", "`MINKE_HOME` a file").file("home", ""),
        typed_where("chips", "`MINKE_ISA=foo`").env("MINKE_ISA", "foo"),
        typed_where("chips", "`MINKE_THREADS=`").env("MINKE_THREADS", ""),
        typed("chips no-such-model"),
        typed("chips 7X"),
        typed("chips 7B:Q9_K"),
        typed("chips 99T"),
        with("chips m --svg no/such/roof.svg"),
        with("bench m --prefill 100000"),
        with("bench m --depth 200 --decode 100"),
        with("bench m --depth 18446744073709551615"),
        with("bench m --prefill 16 --decode 8 --sequences 18446744073709551615"),
        with("bench m --prefill 16 --decode 300 --depth 0 --speculate lookup"),
        with("bench m --compare m/config.json"),
        with("debug logits m --tokens 1,999999"),
        with("debug generate m --prompt x --tokens 0"),
        with("debug grads m --tokens 1"),
        with("debug grads m --tokens 1,2 --out no/such/place"),
        with("eval m --text no/such.txt"),
        with("eval m --task chain_sum --level 99"),
        with("eval m --task countdown"),
        with("eval m --task chain_sum --digits 2-9"),
        with("eval m"),
        with("eval m --recipe no-such.toml"),
        with("eval m --recipe sums.toml --task chain_sum"),
        typed_where("eval m --task chain_sum --record ", "a name of nothing").copy(&model, "m"),
        with("eval ftp://host/v1#m --task chain_sum"),
        with("eval http://host/v1#m --task chain_sum --answers a.jsonl"),
    ]
}

fn serving() -> Vec<Case> {
    let tls = |name: &str| repository().join("crates/minke/tests/it/tls").join(name);
    let with_tls = |circumstances: &str| typed_where("serve --cert c.pem --key k.pem", circumstances);
    vec![
        typed("serve --listen 0.0.0.0:0"),
        typed("serve --listen 192.0.2.1:7373 --insecure"),
        typed_where("serve", "`MINKE_HOME` a file").file("home", ""),
        typed_where("serve", "`lab.db` a text file")
            .file("home/lab.db", "a database, surely; at least it is long enough to be one"),
        typed("serve --cert c.pem --key k.pem"),
        with_tls("the key a certificate").copy(&tls("cert.pem"), "c.pem").copy(&tls("cert.pem"), "k.pem"),
        with_tls("the certificate empty").file("c.pem", "").copy(&tls("key.pem"), "k.pem"),
        Case::new("`minke serve --person ''`", &["serve", "--person", ""]),
    ]
}

fn simulating() -> Vec<Case> {
    let header = "submit_s,duration_s,chips,person\n";
    let day = |circumstances: &str, text: String| {
        typed_where("lab simulate --trace day.csv --chips 4", circumstances).file("day.csv", text)
    };
    vec![
        typed("lab simulate --chips 4"),
        typed("lab simulate --trace day.csv --chips 0"),
        typed("lab simulate --trace day.csv --chips 4 --policy lifo"),
        typed("lab simulate --trace no/such.csv --chips 4"),
        typed_where("lab simulate --trace day.csv --chips 4", "bytes that are no text").file("day.csv", b"\xff\xfe"),
        day("empty", String::new()),
        day("no jobs", header.into()),
        day("another header", "when,how long\n".into()),
        day("a person too few", format!("{header}0,60,1,ada\n60,60,1\n")),
        day("a duration in words", format!("{header}0,an hour,1,ada\n")),
        day("a job for eight chips", format!("{header}0,60,8,ada\n")),
        typed_where("lab simulate --trace day.csv --chips 4 --svg no/such/day.svg", "a day")
            .file("day.csv", format!("{header}0,60,1,ada\n")),
    ]
}

fn voting() -> Vec<Case> {
    let vote = r#"{"v":1,"left":"a","right":"b","winner":"left"}"#;
    let header = "left,right,winner\n";
    vec![
        typed("arena vote --left a --right b"),
        typed("arena vote --left a --right b --winner model_a"),
        typed("arena vote --left a --right a --winner tie"),
        typed("arena vote --left a --right --winner tie"),
        Case::new(
            "`minke arena vote`, a name with a line break in it",
            &["arena", "vote", "--left", "a\nb", "--right", "c", "--winner", "tie"],
        ),
        typed_where("arena vote --left a --right b --winner tie", "`MINKE_HOME` a file").file("home", ""),
        typed_where("arena vote --left a --right b --winner tie", "a line of the log damaged")
            .file("home/votes.jsonl", format!("{vote}\n{{\"v\":1,\"left\"\n{vote}\n")),
        typed("arena battle"),
        typed("arena battle why? --a m"),
        typed("arena battle why? --a m --b no-such").copy(&repository().join("golden/models/llama-chat"), "m"),
        typed("arena battle why? --a m --b m").copy(&repository().join("golden/models/llama-chat"), "m"),
        typed("arena battle why? --a m --b http://localhost#")
            .copy(&repository().join("golden/models/llama-chat"), "m"),
        typed("arena battle --a m --b n --judge sudoku"),
        typed("arena battle --a m --b n --judge chain_sum"),
        typed_where("arena battle --a m --b n --judge chain_sum --prompts p.txt", "a line that is no sum")
            .file("p.txt", "37+85=\nwhy?\n"),
        typed_where("arena battle --a m --b n --prompts p.txt", "empty").file("p.txt", "\n"),
        typed("arena import no/such.csv"),
        typed_where("arena import a.csv", "a directory")
            .with(|place| std::fs::create_dir(place.path("a.csv")).unwrap()),
        typed_where("arena import a.csv", "empty").file("a.csv", ""),
        typed_where("arena import a.csv", "other columns").file("a.csv", "model,score\na,1\n"),
        typed_where("arena import a.csv", "compressed").file("a.csv", b"\x1f\x8b\x08\0\0\0\0\0"),
        typed_where("arena import a.csv", "a line is too short").file("a.csv", format!("{header}a,b,left\na,b\n")),
        typed_where("arena import a.csv", "three winners that are none")
            .file("a.csv", format!("{header}a,b,a\na,b,b\na,b,\"\x1b[2J\"\n")),
        typed_where("arena import a.json", "an array").file("a.json", format!("[{vote}]")),
        typed_where("arena import a.json", "a winner that is none")
            .file("a.json", r#"{"model_a": "a", "model_b": "b", "winner": "a"}"#),
        typed_where("arena import a.json", "a newer minke's").file("a.json", vote.replace(":1,", ":2,")),
        typed_where("arena import b.csv", "the same file as one imported before")
            .file("a.csv", format!("{header}a,b,left\n"))
            .file("b.csv", format!("{header}a,b,left\n"))
            .with(|place| drop(place.run(&["arena", "import", "a.csv"]))),
        typed("arena board --log no/such.jsonl"),
        typed_where("arena board --log a.csv", "a line is no vote").file("a.csv", format!("{header}a,a,left\n")),
        typed_where("arena board", "an import in the log without its end, and another")
            .file("home/votes.jsonl", "{\"v\":1,\"import\":\"a\",\"sha256\":\"5e\",\"votes\":2}\n".repeat(2)),
        typed_where("arena board", "a thousand and one models").with(|place| {
            let votes =
                (0..1000).map(|i| format!("{{\"v\":1,\"left\":\"a\",\"right\":\"b{i}\",\"winner\":\"tie\"}}\n"));
            place.write("home/votes.jsonl", votes.collect::<String>());
        }),
        typed("arena board --ties third"),
        typed("arena board --bootstrap 0"),
        typed("arena board --seed 3"),
        typed("arena board --lenient"),
        typed("arena board --verified --judged"),
        typed("arena board --verified --svg board.svg"),
        typed_where("arena board --verified", "models that were asked different things").file(
            "home/votes.jsonl",
            ["a", "b"]
                .map(|x| {
                    format!(
                        "{{\"v\":1,\"verified\":\"{x} 1\",\"model\":\"{x}\",\"items\":9,\"right\":1,\"lenient\":1}}\n"
                    )
                })
                .concat(),
        ),
        typed_where("arena board --verified", "more right answers than problems").file(
            "home/votes.jsonl",
            "{\"v\":1,\"verified\":\"a 1\",\"model\":\"a\",\"items\":9,\"right\":10,\"lenient\":10}\n",
        ),
        typed_where("arena board --svg no/such/board.svg", "a vote in the log").file("home/votes.jsonl", vote),
        typed_where("arena board", "`MINKE_HOME` a file").file("home", ""),
        typed("arena export"),
        typed("arena export --format xml"),
        typed("arena export --json"),
        typed_where("arena export --out home/votes.jsonl", "a vote in the log").file("home/votes.jsonl", vote),
    ]
}
