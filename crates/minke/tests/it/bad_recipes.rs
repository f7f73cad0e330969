//! Recipes that can't be carried out.

use crate::bad_input::Case;
use crate::{replaced, repository, tiny, tiny_from};

pub fn cases() -> Vec<Case> {
    let bad = |what: &str, text: &[u8]| Case::new(what, &["train", "bad.toml"]).file("bad.toml", text);
    let mut cases = vec![
        bad("nothing in it", b""),
        bad("bytes that are not UTF-8", b"version = 1\nname = \"caf\xe9\"\n"),
        bad("JSON instead", b"{\"version\": 1}"),
        bad("a key without a value", b"version = 1\nseed =\n"),
        bad("two megabytes of comments", "# a comment\n".repeat(1 << 18).as_bytes()),
        bad("arrays nested a hundred thousand deep", format!("version = {}", "[".repeat(100_000)).as_bytes()),
        bad("a key of ten thousand letters", format!("{} = 1", "a".repeat(10_000)).as_bytes()),
        bad("a key twice", b"version = 1\nversion = 1\n"),
        bad("control characters in a key", b"version = 1\n\"\\u001b[2J\" = 1\n"),
        Case::new("the name of a directory", &["train", "bad.toml"]).file("bad.toml/recipe", ""),
        Case::new("the name of a file that is not there", &["train", "bad.toml"]),
    ];
    let tiny = tiny();
    let (stages, eval) = (tiny.find("[[stage]]").unwrap(), tiny.find("[eval]").unwrap());
    let without_stages = format!("{}{}", &tiny[..stages], &tiny[eval..]);
    cases.push(bad("no stage", without_stages.as_bytes()));
    cases.extend(REPLACEMENTS.map(|(what, from, to)| bad(what, replaced(&tiny, from, to).as_bytes())));

    let refer = |what: &str, reference: &str| bad(what, tiny_from(reference).as_bytes());
    let model = repository().join("golden/models/llama-chat");
    cases.push(refer("reference to a model that is not there", "smollm3"));
    cases.push(refer("reference to a directory that is no model", "empty").file("empty/notes.txt", ""));
    let bare = refer("reference to a model with neither a chat template nor tokens for all tags", "llama-chat");
    cases.push(bare.copy(&model, "llama-chat").with(|place| {
        std::fs::remove_file(place.path("llama-chat/chat_template.jinja")).unwrap();
    }));
    cases
}

/// A stage that learns from demonstrations.
const DEMONSTRATIONS: &str = "kind = \"sft\"\nsteps = 6\nbatch = 8\nexamples = 64\nlevel = [2, 3]\n\
     mixture = { direct = 0.4, think = 0.45, backtrack = 0.15 }";

/// What is wrong, and what is replaced in the smallest recipe to make it so.
const REPLACEMENTS: [(&str, &str, &str); 54] = [
    ("no version", "version = 1\n", ""),
    ("another version", "version = 1", "version = 2"),
    ("a version in words", "version = 1", "version = \"one\""),
    ("an unknown key", "version = 1", "version = 1\nsead = 3"),
    ("a seed below 0", "version = 1", "version = 1\nseed = -1"),
    ("a seed of 2^32", "version = 1", "version = 1\nseed = 4294967296"),
    ("a budget without a table", "version = 1", "version = 1\nbudget = \"15m\""),
    ("a budget without a unit", "[eval]", "[budget]\ntime = \"15\"\n[eval]"),
    ("a budget that is a number", "[eval]", "[budget]\ntime = 15\n[eval]"),
    ("a budget of no time", "[eval]", "[budget]\ntime = \"0s\"\n[eval]"),
    ("no model", "[model]\ndtype = \"f32\"\n\n[model.scratch]", "[scratch]"),
    ("a model both by reference and from scratch", "dtype = \"f32\"", "reference = \"smollm2\""),
    ("a dtype of 64 bits", "dtype = \"f32\"", "dtype = \"f64\""),
    ("a family that is not supported", "\"deepseek_v3\"", "\"gpt2\""),
    ("a model without a width", "hidden_size = 32\n", ""),
    ("a model with a key of another family", "q_lora_rank = 16", "q_lora_rank = 16\nattention_dropout = 0.5"),
    ("a vocabulary of its own", "hidden_size = 32", "hidden_size = 32\nvocab_size = 9"),
    (
        "a model of more numbers than memory holds",
        "hidden_size = 32\nintermediate_size = 64",
        "hidden_size = 1048576\nintermediate_size = 1048576",
    ),
    ("a model of sizes beyond any machine", "num_hidden_layers = 2", "num_hidden_layers = 2_000_000"),
    ("no task", "[task]\nname = \"chain_sum\"\ndigits = 1\n", ""),
    ("an unknown task", "\"chain_sum\"", "\"chess\""),
    ("a key of another task", "digits = 1", "digits = 1\ntries = 3"),
    ("too many digits", "digits = 1", "digits = 9"),
    ("digits from more to fewer", "digits = 1", "digits = [2, 1]"),
    ("one table for its stages", "[[stage]]\nkind = \"sft\"", "[stage]\nkind = \"sft\""),
    ("an unknown kind of stage", "kind = \"sft\"", "kind = \"rlhf\""),
    ("a stage without a kind", "kind = \"grpo\"\n", ""),
    ("a stage without steps", "steps = 6\n", ""),
    ("a stage of no steps", "steps = 6", "steps = 0"),
    ("half a step", "steps = 6", "steps = 6.5"),
    ("a longer warm-up than its stage", "warmup = 2", "warmup = 7"),
    ("a learning rate in words", "lr = 3e-3", "lr = \"fast\""),
    ("a learning rate that is not a number", "lr = 3e-3", "lr = nan"),
    ("a learning rate below 0", "lr = 3e-3", "lr = -3e-3"),
    ("an unknown schedule", "\"linear\"", "\"wsd\""),
    ("a mixture that does not add up", "direct = 0.4", "direct = 0.5"),
    ("an unknown style in the mixture", "direct = 0.4", "verbose = 0.4"),
    ("an unknown loss", "\"dr_grpo\"", "\"ppo\""),
    ("groups of one", "samples = 4", "samples = 1"),
    ("a step of more rollouts than can be kept", "prompts = 4\nsamples = 4", "prompts = 65536\nsamples = 65536"),
    ("a level that the task does not have", "level = [2, 3]", "level = [2, 30]"),
    ("completions that do not fit the context", "max_position_embeddings = 64", "max_position_embeddings = 27"),
    ("completions without a limit", "max_new_tokens = 24\nlevel = 2", "level = 2"),
    ("no held-out items", "items = 8", "items = 0"),
    ("no [eval]", "[eval]\nlevel = 2\nitems = 8\nsamples = 2\nmax_new_tokens = 24\n", ""),
    ("a checkpoint every 0 steps", "every = 2", "every = 0"),
    ("a format for a model made from scratch", "[eval]", "[format]\n\n[eval]"),
    ("two kinds of task", "name = \"chain_sum\"", "name = \"chain_sum\"\nfile = \"a.jsonl\""),
    ("a file of problems that is not there", "name = \"chain_sum\"\ndigits = 1", "file = \"a.jsonl\""),
    ("a program that is not there", "name = \"chain_sum\"\ndigits = 1", "command = [\"no-such-program\"]"),
    ("momentum without Muon", "lr = 3e-3", "lr = 3e-3\nmomentum = 0.9"),
    (
        "text that is not there",
        DEMONSTRATIONS,
        "kind = \"pretrain\"\nsteps = 6\nbatch = 8\nlength = 16\ntext = [\"a.txt\"]",
    ),
    ("a stage that learns from no text", DEMONSTRATIONS, "kind = \"pretrain\"\nsteps = 6\nbatch = 8\nlength = 16"),
    (
        "both text and demonstrations",
        DEMONSTRATIONS,
        "kind = \"pretrain\"\nsteps = 6\nbatch = 8\nlength = 16\ntext = [\"a.txt\"]\nexamples = 9",
    ),
];
