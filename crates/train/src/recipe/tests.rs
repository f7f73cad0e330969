//! The recipes that come with minke are read; broken ones each get their sentence.

use super::*;
use crate::loss::{Clip, Importance, Loss, Objective, Penalty};
use crate::remote::Remote;
use crate::tasks::Style;

fn path(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes").join(name)
}

fn tiny() -> String {
    std::fs::read_to_string(path("tiny.toml")).unwrap()
}

#[test]
fn every_recipe_here_is_read() {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path("")).unwrap() {
        let path = entry.unwrap().path();
        // Programs that are tasks of recipes lie beside them.
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let recipe = Recipe::read(&path).unwrap();
        // These are for tests, and for a day that is lived in minutes.
        if let Some(config) = recipe.scratch_config().unwrap()
            && !["tiny", "day", "day-direct"].contains(&recipe.name.as_str())
        {
            assert!((500_000..1_500_000).contains(&config.parameters()), "{}: {}", recipe.name, config.parameters());
        }
        names.push(recipe.name);
    }
    for name in ["tiny", "day", "day-direct", "sums", "sums-dense", "countdown", "smollm2-sums"] {
        assert!(names.iter().any(|n| n == name), "recipes/{name}.toml is missing");
    }
}

#[test]
fn a_recipe_says_what_it_says() {
    let recipe = Recipe::read(&path("tiny.toml")).unwrap();
    assert_eq!((recipe.name.as_str(), recipe.seed, recipe.dtype), ("tiny", 1, Dtype::F32));
    assert_eq!((recipe.moments, recipe.kept("f32").as_str()), (Dtype::F32, "f32"));
    let narrow = Recipe::parse("tiny", &tiny().replacen("[model]", "[model]\nmoments = \"bf16\"", 1)).unwrap();
    assert_eq!((narrow.dtype, narrow.moments), (Dtype::F32, Dtype::Bf16));
    assert_eq!(narrow.kept("f32"), "f32, moments in bf16");
    for (said, bytes) in [("recompute = true", 0), ("recompute = false", usize::MAX), ("activations_mb = 3", 3 << 20)] {
        let said = tiny().replacen("[model]", &format!("[model]\n{said}"), 1);
        assert_eq!(Recipe::parse("tiny", &said).unwrap().activation_bytes, bytes);
    }
    let [Stage::Sft(sft), Stage::Grpo(grpo)] = &recipe.stages[..] else { panic!("two stages") };
    assert_eq!((sft.steps, sft.batch, sft.examples, &sft.levels[..]), (6, 8, 64, &[2, 3][..]));
    assert_eq!(sft.mixture[0], Share { style: Style::Direct, share: 0.4 });
    assert_eq!((sft.learning.rate, sft.learning.schedule), (3e-3, Schedule::Linear));
    assert_eq!((grpo.prompts, grpo.samples, &grpo.levels[..]), (4, 4, &[2][..]));
    let clip = Clip { epsilon: 0.2, epsilon_high: 0.2 };
    let objective = Objective { loss: Loss::DrGrpo, importance: Importance::Token, clip, penalty: None };
    assert_eq!((grpo.objective, grpo.updates, grpo.mask_truncated), (objective, 1, false));
    assert_eq!(recipe.task.build().name(), "chain_sum");
    assert_eq!(recipe.eval.levels(&*recipe.task.build()), 2..=3);
    assert_eq!(recipe.checkpoint_bytes, 1 << 30);
    assert_eq!(recipe.scratch_config().unwrap().unwrap().vocab_size, 4 + 15);
}

#[test]
fn formats_are_read() {
    let read =
        |format: &str| Recipe::parse("tiny", &format!("{}\n[format]\n{format}", tiny())).unwrap().format.unwrap();
    assert_eq!(read(""), Settings::default());
    let bare = Settings { system: None, instruction: None, think: false, lenient: false, shown: Vec::new() };
    assert_eq!(read("think = false"), bare);
    assert_eq!(read("instruction = \"\"\nthink = true"), Settings { think: true, ..bare.clone() });
    let told = Settings { system: Some("a".into()), instruction: Some("b".into()), lenient: true, ..bare };
    assert_eq!(read("system = \"a\"\ninstruction = \"b\"\nthink = false\nlenient = true"), told);
    assert_eq!(Recipe::parse("tiny", &tiny()).unwrap().format, None);
}

#[test]
fn adapters_are_read() {
    let (before, after) = (tiny(), tiny());
    let before = &before[..before.find("[model.scratch]").unwrap()];
    let after = &after[after.find("[task]").unwrap()..];
    let read = |lora: &str| Recipe::parse("tiny", &format!("{before}reference = \"x\"\n{lora}\n{after}")).unwrap().lora;
    assert_eq!(read(""), None);
    let lora = read("[lora]\nrank = 8").unwrap();
    assert_eq!((lora.scale(), &lora), (2.0, &Lora { rank: 8, alpha: 16.0, targets: None }));
    let taught = format!(
        "{before}reference = \"x\"\n[lora]\nrank = 8\n{}",
        after.replacen("lr = 3e-3", "lr = 3e-3\nmtp = 0.3", 1)
    );
    assert_eq!(
        Recipe::parse("tiny", &taught).unwrap_err().to_string(),
        "stage 1: mtp teaches the model's own block for multi-token prediction, and beside adapters the model stays as it \
         is; leave that out, or [lora]"
    );
    let lora = read("[lora]\nrank = 16\nalpha = 8\ntargets = [\"q_proj\", \"v_proj\"]").unwrap();
    assert_eq!((lora.scale(), lora.targets.unwrap().len()), (0.5, 2));
}

#[test]
fn teachers_are_read() {
    let read = |teacher: &str| {
        let stage = format!(
            "[[stage]]\nkind = \"distil\"\nsteps = 3\nbatch = 2\nteacher = \"{teacher}\"\nproblems = 9\nlevel = 2\n\
             max_new_tokens = 24\nlr = 1e-3\n\n[eval]"
        );
        let recipe = Recipe::parse("tiny", &tiny().replacen("[eval]", &stage, 1)).unwrap();
        let Stage::Distil(distil) = recipe.stages[2].clone() else { panic!("a distil stage") };
        assert_eq!((distil.problems, distil.samples, distil.temperature, distil.learning.rate), (9, 4, 1.0, 1e-3));
        distil.teacher
    };
    assert_eq!(read("self"), Teacher::Itself);
    assert_eq!(read("smollm2"), Teacher::Reference("smollm2".into()));
}

#[test]
fn what_is_learnt_of_a_teacher_is_read() {
    let read = |keys: &str| {
        let stage = format!(
            "[[stage]]\nkind = \"distil\"\nsteps = 3\nbatch = 2\nproblems = 9\nlevel = 2\nmax_new_tokens = 24\n\
             lr = 1e-3\n{keys}\n\n[eval]"
        );
        let recipe = Recipe::parse("tiny", &tiny().replacen("[eval]", &stage, 1)).map_err(|error| error.to_string())?;
        let Stage::Distil(distil) = recipe.stages[2].clone() else { panic!("a distil stage") };
        Ok::<_, String>((distil.teacher, distil.kl, recipe.stages[2].has_reference()))
    };
    assert_eq!(read("teacher = \"self\""), Ok((Teacher::Itself, 0.0, false)));
    assert_eq!(read("teacher = \"self\"\nkl = 0.5"), Ok((Teacher::Itself, 0.5, true)));
    assert_eq!(read("teacher = \"a\"\nkl = 1"), Ok((Teacher::Reference("a".into()), 1.0, false)));
    let far = "teacher = \"https://a/v1\"\nteacher_model = \"m\"";
    let remote = |key_env: Option<&str>| {
        Teacher::Remote(Remote { url: "https://a/v1".into(), model: "m".into(), key_env: key_env.map(Into::into) })
    };
    assert_eq!(read(far), Ok((remote(None), 0.0, false)));
    assert_eq!(read(&format!("{far}\nteacher_key_env = \"K\"")), Ok((remote(Some("K")), 0.0, false)));
    for (keys, sentence) in [
        ("teacher = \"http://a/v1\"".to_string(), "stage 3: teacher_model is missing"),
        (
            format!("{far}\nkl = 0.5"),
            "stage 3: kl needs a teacher whose weights are here; leave it out, or give a path or a name",
        ),
        ("teacher = \"a\"\nteacher_model = \"m\"".into(), "stage 3: teacher_model is for a teacher at an http address"),
        ("teacher = \"a\"\nkl = 2".into(), "stage 3: kl is 2, which is not from 0 to 1"),
    ] {
        assert_eq!(read(&keys), Err(sentence.into()));
    }
}

#[test]
fn texts_are_read() {
    let read = |keys: &str| {
        let stage =
            format!("[[stage]]\nkind = \"pretrain\"\nsteps = 3\nbatch = 2\nlength = 64\nlr = 1e-3\n{keys}\n\n[eval]");
        let recipe = Recipe::parse("tiny", &tiny().replacen("[eval]", &stage, 1)).map_err(|error| error.to_string())?;
        let Stage::Pretrain(stage) = recipe.stages[2].clone() else { panic!("a pretrain stage") };
        assert_eq!((stage.steps, stage.batch, stage.length, stage.learning.rate), (3, 2, 64, 1e-3));
        Ok::<Text, String>(stage.text)
    };
    let files = |separator: &str| Text::Files { paths: vec!["a.txt".into()], separator: separator.into() };
    assert_eq!(read("text = [\"a.txt\"]"), Ok(files("\n\n")));
    assert_eq!(read("text = [\"a.txt\"]\nseparator = \"\\n\""), Ok(files("\n")));
    let shown = "examples = 9\nlevel = 2\nmixture = { think = 1 }";
    let mixture = vec![Share { style: Style::Think, share: 1.0 }];
    assert_eq!(read(shown), Ok(Text::Demonstrations { examples: 9, levels: vec![2], mixture }));
    for (keys, sentence) in [
        ("", "give text, a list of files, or examples, a number of the task's demonstrations"),
        ("text = []", "text is a list, which is not a list of texts in quotes"),
        ("text = [\"a\"]\nseparator = \"\"", "separator is empty; give what stands between two documents"),
        ("examples = 9\nseparator = \"a\"", "separator is of no use without text, the list of files that it divides"),
        ("examples = 9\nmixture = { think = 1 }", "level is missing"),
        (
            "text = [\"a\"]\nlevel = 2",
            "level is about the task's demonstrations, but text says what is read instead of them; leave one of the two out",
        ),
    ] {
        assert_eq!(read(keys), Err(format!("stage 3: {sentence}")));
    }
}

#[test]
fn curricula_are_read() {
    let read = |keys: &str| {
        let recipe = Recipe::parse("tiny", &tiny().replacen("level = 2\nloss", &format!("{keys}\nloss"), 1)).unwrap();
        let Stage::Grpo(grpo) = recipe.stages[1].clone() else { panic!("a grpo stage") };
        assert_eq!(recipe.stages[1].curriculum().is_some(), grpo.promote_at.is_some());
        (grpo.levels, grpo.promote_at)
    };
    assert_eq!(read("level = [3, 2]"), (vec![3, 2], None));
    assert_eq!(read("level = [3, 2]\ncurriculum = false"), (vec![3, 2], None));
    assert_eq!(read("level = [4, 2, 2]\ncurriculum = true"), (vec![2, 4], Some(0.8)));
    assert_eq!(read("level = [2, 3]\ncurriculum = true\npromote_at = 0.5"), (vec![2, 3], Some(0.5)));
}

#[test]
fn a_block_is_there_if_and_only_if_it_is_taught() {
    let read = |mtp: &str, block: &str| {
        let text = tiny().replacen("lr = 3e-3", &format!("lr = 3e-3\n{mtp}"), 1);
        let recipe = Recipe::parse(
            "tiny",
            &text.replacen("num_hidden_layers = 2", &format!("num_hidden_layers = 2\n{block}"), 1),
        );
        recipe.map(|recipe| recipe.predicts()).map_err(|error| error.to_string())
    };
    let one = "num_nextn_predict_layers = 1";
    assert_eq!(
        [read("", ""), read("mtp = 0", "num_nextn_predict_layers = 0"), read("mtp = 0.3", one)],
        [Ok(None), Ok(None), Ok(Some(1))]
    );
    for (mtp, block, sentence) in [
        (
            "mtp = 0.3",
            "",
            "stage 1: mtp is about a block for multi-token prediction, which a deepseek_v3 has by \
            num_nextn_predict_layers = 1 in [model.scratch]; give that, or leave mtp out",
        ),
        (
            "mtp = 0",
            one,
            "model.scratch: num_nextn_predict_layers is 1, but no stage teaches that block; give a stage of kind \
            pretrain or sft mtp = 0.3, or leave the block out",
        ),
        (
            "mtp = 0.3",
            "num_nextn_predict_layers = 2",
            "model.scratch: num_nextn_predict_layers is 2, but one block is trained at \
            most; give 1",
        ),
        ("mtp = 11", one, "stage 1: mtp is 11, which is not from 0 to 10"),
    ] {
        assert_eq!(read(mtp, block), Err(sentence.into()));
    }
}

#[test]
fn optimisers_are_read() {
    let read = |keys: &str| {
        let recipe = Recipe::parse("tiny", &tiny().replacen("lr = 3e-3", &format!("lr = 3e-3\n{keys}"), 1));
        recipe.map(|recipe| recipe.stages[0].learning().optimizer).map_err(|error| error.to_string())
    };
    assert_eq!(read(""), Ok(Optimizer::AdamW));
    assert_eq!(read("optimizer = \"muon\""), Ok(Optimizer::Muon { momentum: 0.95 }));
    assert_eq!(read("optimizer = \"muon\"\nmomentum = 0.9"), Ok(Optimizer::Muon { momentum: 0.9 }));
    assert_eq!(read("momentum = 0.9"), Err("stage 1: momentum is a key of optimizer = \"muon\"".into()));
}

#[test]
fn objectives_are_read() {
    let read = |to: &str| {
        let recipe = Recipe::parse("tiny", &tiny().replacen("loss = \"dr_grpo\"", to, 1)).unwrap();
        let Stage::Grpo(grpo) = recipe.stages[1].clone() else { panic!("a grpo stage") };
        (grpo.objective, grpo.mask_truncated)
    };
    let clip = Clip { epsilon: 3e-4, epsilon_high: 4e-4 };
    let gspo = Objective { loss: Loss::Grpo, importance: Importance::Sequence, clip, penalty: None };
    let text = "loss = \"grpo\"\nimportance = \"sequence\"\nepsilon = 3e-4\nepsilon_high = 4e-4";
    assert_eq!(read(text), (gspo, false));
    let (cispo, masked) = read("loss = \"cispo\"\nmask_truncated = true\nkl = 0.001");
    assert_eq!((cispo.loss, cispo.importance, cispo.clip.epsilon_high), (Loss::Cispo, Importance::Token, 5.0));
    assert_eq!((cispo.penalty, masked), (Some(Penalty { weight: 0.001, corrected: true }), true));
    let (bnpo, _) = read("loss = \"bnpo\"\nkl = 1\nkl_correction = false");
    assert_eq!((bnpo.loss, bnpo.penalty), (Loss::Bnpo, Some(Penalty { weight: 1.0, corrected: false })));
    assert_eq!(read("kl = 0").0.penalty, None);
}

#[test]
fn at_least_two_fifths_of_the_cold_start_for_sums_answer_directly() {
    for name in ["sums.toml", "sums-dense.toml"] {
        let recipe = Recipe::read(&path(name)).unwrap();
        let Stage::Sft(sft) = &recipe.stages[0] else { panic!("a cold start") };
        let direct = sft.mixture.iter().find(|s| s.style == Style::Direct).unwrap();
        assert!(direct.share >= 0.4);
    }
}

/// Each line: what is replaced in tiny.toml, by what, and the sentence that follows.
#[test]
fn broken_recipes_get_one_sentence() {
    for (from, to, sentence) in [
        (
            "version = 1",
            "version = 2",
            "the recipe is of version 2, but this minke reads version 1; use the minke it was written for",
        ),
        ("version = 1\n", "", "recipe: version is missing"),
        ("version = 1", "version = \"one\"", "recipe: version is \"one\", which is not a whole number"),
        ("version = 1", "version = 1\nsead = 3", "recipe has an unknown key \"sead\"; did you mean seed?"),
        ("version = 1", "version = 1\nseed = -3", "recipe: seed is -3, which is not from 0 to 4294967295"),
        ("version = 1", "version = 1\nbudget = 15", "recipe: budget is 15, which is not a table; write it as [budget]"),
        (
            "[eval]",
            "[budget]\ntime = \"soon\"\n[eval]",
            "budget \"soon\" is not a time of at most 30 days; write it as 90s, 15m or 2h",
        ),
        ("[task]", "[tusk]", "recipe has an unknown key \"tusk\"; did you mean task?"),
        (
            "\"chain_sum\"",
            "\"chainsum\"",
            "task: name is \"chainsum\"; it can be chain_sum, countdown, product, gcd, remainder, equation, fractions, bases, roman, calendar, sequence, sorting, letters, reversal, brackets, truth_table, knights",
        ),
        (
            "\"chain_sum\"",
            "\"chess\"",
            "task: name is \"chess\"; it can be chain_sum, countdown, product, gcd, remainder, equation, fractions, bases, roman, calendar, sequence, sorting, letters, reversal, brackets, truth_table, knights",
        ),
        ("\"chain_sum\"", "\"countdown\"", "task: digits is a key of another task"),
        ("\"chain_sum\"", "\"gcd\"", "task: digits is a key of another task"),
        ("name = \"chain_sum\"", "", "task: give a name, or tasks, or a file, or a command"),
        (
            "name = \"chain_sum\"",
            "name = \"gcd\"\nfile = \"a\"",
            "task: give either a name, or tasks, or a file, or a command",
        ),
        (
            "name = \"chain_sum\"\ndigits = 1",
            "tasks = []",
            "task: tasks is empty; write { name = \"letters\", level = 3 } into it",
        ),
        (
            "name = \"chain_sum\"\ndigits = 1",
            "tasks = [{ name = \"gcd\", level = 9 }]",
            "task: level is 9, which is not from 1 to 4",
        ),
        (
            "name = \"chain_sum\"\ndigits = 1",
            "tasks = [{ name = \"gcd\", level = 1 }, { name = \"gcd\", level = 2 }]",
            "task: gcd is among tasks twice; give it one level",
        ),
        ("name = \"chain_sum\"", "tasks = [{ name = \"gcd\", level = 1 }]", "task: digits is a key of another task"),
        ("name = \"chain_sum\"", "command = []", "task: digits is a key of another task"),
        (
            "name = \"chain_sum\"\ndigits = 1",
            "command = \"a\"",
            "task: command is \"a\", which is not a list of texts in quotes",
        ),
        (
            "name = \"chain_sum\"\ndigits = 1",
            "command = [\"a\"]\ntimeout_s = 0",
            "task: timeout_s is 0, which is not from 1 to 3600",
        ),
        (
            "name = \"chain_sum\"\ndigits = 1",
            "command = [\"no-such-program\", \"x\"]",
            "the task's program no-such-program x can't be started: No such file or directory (os error 2)",
        ),
        (
            "name = \"chain_sum\"\ndigits = 1",
            "file = \"no/such.jsonl\"",
            "could not read no/such.jsonl: No such file or directory (os error 2)",
        ),
        (
            "name = \"chain_sum\"\ndigits = 1",
            "file = \"a\"\nchecker = \"fuzzy\"",
            "task: checker is \"fuzzy\"; it can be number, exact, regex, choice",
        ),
        (
            "level = 2\nloss",
            "level = [2, 2]\ncurriculum = true\nloss",
            "stage 2: a curriculum needs more than one level; give level a list of them",
        ),
        ("loss", "promote_at = 0.5\nloss", "stage 2: promote_at is of no use without curriculum"),
        ("digits = 1", "digits = [2, 1]", "task: digits is a number, or the fewest and the most as [1, 2]"),
        ("digits = 1", "digits = 9", "task: digits is 9, which is not from 1 to 4"),
        ("digits = 1", "digits = []", "task: digits is empty"),
        ("dtype = \"f32\"", "dtype = \"f33\"", "model: dtype is \"f33\"; it can be f32, bf16"),
        (
            "dtype = \"f32\"",
            "recompute = true\nactivations_mb = 3",
            "model: recompute = true is activations_mb = 0; give one of the two",
        ),
        ("dtype = \"f32\"", "moments = \"int8\"", "model: moments is \"int8\"; it can be f32, bf16"),
        ("dtype = \"f32\"", "reference = \"x\"", "model: give either reference or [model.scratch]"),
        ("[task]", "[lora]\nrank = 0\n[task]", "lora: rank is 0, which is not from 1 to 1024"),
        ("[task]", "[lora]\nalpha = 16\n[task]", "lora: rank is missing"),
        (
            "[task]",
            "[lora]\nrank = 8\ntargets = [\"lm_head\"]\n[task]",
            "lora: targets has \"lm_head\"; it can have q_proj, k_proj, v_proj, o_proj, q_a_proj, q_b_proj, \
             kv_a_proj_with_mqa, gate_proj, up_proj, down_proj",
        ),
        (
            "[task]",
            "[lora]\nrank = 8\n[task]",
            "lora: adapters are for a model that exists; give it as reference in [model], or leave [lora] out",
        ),
        ("hidden_size = 32\n", "", "model.scratch: hidden_size is missing"),
        ("hidden_size = 32", "hidden_size = 0", "model.scratch: hidden_size is 0, which is not from 1 to 1048576"),
        (
            "num_hidden_layers = 2",
            "num_hidden_layers = 2\nnum_hiden_layers = 3",
            "model.scratch: num_hiden_layers is not a key of deepseek_v3; its keys are those of the family's config.json",
        ),
        (
            "hidden_size = 32",
            "hidden_size = 32\nvocab_size = 9",
            "model: scratch.vocab_size follows from the task's characters; leave it out",
        ),
        (
            "\"deepseek_v3\"",
            "\"gpt2\"",
            "model.scratch: model_type is \"gpt2\"; the families that load are llama, mistral, qwen2, qwen3, qwen3_moe, deepseek_v2 and deepseek_v3",
        ),
        (
            "max_position_embeddings = 64",
            "max_position_embeddings = 27",
            "stage 2: prompts of up to 4 tokens and max_new_tokens of 24 don't fit in the 27 of max_position_embeddings",
        ),
        ("kind = \"sft\"", "kind = \"stf\"", "stage 1: kind is \"stf\"; it can be pretrain, sft, distil, grpo"),
        ("kind = \"grpo\"\n", "", "stage 2: kind is missing"),
        ("steps = 6", "stpes = 6", "stage 1 has an unknown key \"stpes\"; did you mean steps?"),
        ("steps = 6", "steps = 0", "stage 1: steps is 0, which is not from 1 to 10000000"),
        ("steps = 6", "steps = 6.5", "stage 1: steps is 6.5, which is not a whole number"),
        ("steps = 6", "steps = 1", "stage 1: warmup is 2, more than the 1 of steps"),
        ("samples = 4", "samples = 1", "stage 2: samples is 1, which is not from 2 to 65536"),
        ("lr = 3e-3", "lr = nan", "stage 1: lr is NaN, which is not from 0 to 1"),
        ("lr = 3e-3", "lr = \"fast\"", "stage 1: lr is \"fast\", which is not a number"),
        (
            "lr = 3e-3",
            "lr = 3e-3\nloss = \"grpo\"",
            "stage 1 has an unknown key \"loss\"; it can be kind, steps, batch, \
          examples, level, mixture, mtp, lr, warmup, schedule, weight_decay, beta1, beta2, clip_norm, balance, bias_rate, optimizer, momentum",
        ),
        ("\"dr_grpo\"", "\"ppo\"", "stage 2: loss is \"ppo\"; it can be grpo, bnpo, dr_grpo, dapo, cispo"),
        (
            "\"dr_grpo\"",
            "\"dr_grpo\"\nimportance = \"word\"",
            "stage 2: importance is \"word\"; it can be token, sequence",
        ),
        (
            "\"dr_grpo\"",
            "\"cispo\"\nepsilon = 0.2",
            "stage 2: epsilon means nothing to cispo, which caps ratios from above alone; give epsilon_high",
        ),
        ("\"dr_grpo\"", "\"cispo\"\nepsilon_high = 0.28", "stage 2: epsilon_high is 0.28, which is not from 1 to 100"),
        ("\"dr_grpo\"", "\"dr_grpo\"\nkl = -1", "stage 2: kl is -1, which is not from 0 to 100"),
        (
            "\"dr_grpo\"",
            "\"dr_grpo\"\nkl_correction = false",
            "stage 2: kl_correction is of no use without kl, the weight of the penalty that it corrects",
        ),
        ("\"dr_grpo\"", "\"dr_grpo\"\nmask_truncated = 1", "stage 2: mask_truncated is 1, which is not true or false"),
        ("level = 2\nloss", "level = 1\nloss", "stage 2: level is 1, which is not from 2 to 10"),
        ("level = [2, 3]", "level = [2, 30]", "stage 1: level is 30, which is not from 2 to 10"),
        ("direct = 0.4", "direct = 0.5", "stage 1 mixture: the shares add up to 1.100, not to 1"),
        ("direct = 0.4", "direkt = 0.4", "stage 1 mixture has an unknown key \"direkt\"; did you mean direct?"),
        ("direct = 0.4", "direct = -1", "stage 1 mixture: direct is -1, which is not from 0 to 1"),
        ("items = 8", "items = 0", "eval: items is 0, which is not from 1 to 1000000"),
        ("items = 8", "items = 8\nevery = 0", "eval: every is 0, which is not from 1 to 10000000"),
        ("items = 8", "items = 8\nevery = 5\nevery_items = 9", "eval: every_items is 9, which is not from 1 to 8"),
        (
            "items = 8",
            "items = 8\nevery_items = 5",
            "eval: every_items is of what is measured within a stage; give every too, or leave it out",
        ),
        (
            "[checkpoint]",
            "[report]\nprice_per_core_hour = -1\n\n[checkpoint]",
            "report: price_per_core_hour is -1, which is not from 0 to 1000000",
        ),
        (
            "[checkpoint]",
            "[report]\ncurrency = \"EUR\"\n\n[checkpoint]",
            "report: currency is of no use without price_per_core_hour",
        ),
        (
            "[checkpoint]",
            "[report]\ncurrency = \"seventeen letters\"\n\n[checkpoint]",
            "report: currency is a name such as EUR, of at most 16 characters",
        ),
        ("every = 2", "evry = 2", "checkpoint has an unknown key \"evry\"; did you mean every?"),
        ("[[stage]]\nkind = \"sft\"", "[stage]\nkind = \"sft\"", "line 43 is not TOML: duplicate key"),
    ] {
        let text = tiny();
        assert_eq!(text.matches(from).count().min(1), 1, "{from} is not in tiny.toml");
        let error = Recipe::parse("tiny", &text.replacen(from, to, 1)).unwrap_err().to_string();
        assert_eq!(error, sentence, "for {to}");
    }
    let none = tiny();
    let none = format!("{}{}", &none[..none.find("[[stage]]").unwrap()], &none[none.find("[eval]").unwrap()..]);
    let error = Recipe::parse("tiny", &none).unwrap_err().to_string();
    assert_eq!(error, "the recipe has no stage; add a [[stage]] of kind pretrain, sft, distil or grpo");
    assert!(
        Recipe::read(Path::new("no/such.toml")).unwrap_err().to_string().starts_with("could not read the recipe no/")
    );
}

/// Cut, doubled and scrambled recipes never panic.
#[test]
fn no_text_makes_it_panic() {
    let text = tiny();
    let mut random = minke_kernels::random::Random::new(9, [0; 3]);
    let mut errors = 0;
    for _ in 0..1500 {
        let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
        let at = random.below(lines.len() as u32) as usize;
        match random.below(4) {
            0 => lines.truncate(at),
            1 => lines.insert(at, lines[random.below(lines.len() as u32) as usize].clone()),
            2 => drop(lines.remove(at)),
            _ => {
                let digit = char::from(b'0' + random.below(10) as u8);
                lines[at] = lines[at].replace(digit, ["-", "9999999999", "\"", "[", "é"][random.below(5) as usize]);
            }
        }
        errors += usize::from(Recipe::parse("tiny", &lines.join("\n")).is_err());
    }
    assert!(errors > 500, "{errors} of 1500 refused: too kind to be a test");
}
