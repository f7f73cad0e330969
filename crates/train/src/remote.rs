//! Teachers elsewhere: models behind a chat API, whose right completions a `distil` stage learns.
//!
//! How one is reached is the binary's affair. What it replied is put together as `<think>THOUGHT</think>ANSWER`, written in the
//! tokens of the model that learns, and judged as any completion is. A problem is asked again only until its first right
//! completion, and all replies are kept in `traces/STAGE/`, a file for every few problems: a run that goes on asks for none of
//! those again.

use std::path::Path;

use minke_kernels::random::Random;
use minke_model::{Message, Result};

use crate::distil::{self, COMPLETIONS};
use crate::format::{Completion, END_THINK, Format, THINK};
use crate::recipe::Distil;
use crate::rollouts::{self, Rollout};
use crate::tasks::{Demonstration, Item, Task};

/// Problems that are asked, and whose replies are kept, at a time.
const CHUNK: usize = 16;

/// Where a teacher is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Its API's, up to and with its version: `http://HOST/v1`.
    pub url: String,
    /// What it is called there.
    pub model: String,
    /// The environment variable that has the key, if one is needed.
    pub key_env: Option<String>,
}

/// What a teacher is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The conversation so far, which a user's turn ends.
    pub messages: Vec<Message>,
    /// What its logits are divided by.
    pub temperature: f32,
    /// Longest reply, in its own tokens.
    pub max_tokens: u32,
    /// Of what is random there; below 2^31.
    pub seed: u32,
}

/// What it replied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The thought, where the API has it apart.
    pub thought: Option<String>,
    /// The rest.
    pub answer: String,
    /// It ended by itself, not at a limit.
    pub finished: bool,
}

impl Reply {
    /// All of it, the thought in its tags.
    pub fn text(&self) -> String {
        match &self.thought {
            Some(thought) => format!("{THINK}{thought}{END_THINK}{}", self.answer),
            None => self.answer.clone(),
        }
    }
}

/// Asks a teacher: a reply to each question, in their order. Without questions it is only found out whether one could be asked.
pub type Chat<'a> = dyn Fn(&Remote, &[Question]) -> Result<Vec<Reply>> + 'a;

/// A teacher's right completions, at most one a problem, of the problems of a stage; `directory` keeps all replies. `heed` hears
/// now and then how many problems are done; where it says no, there is no result.
///
/// # Errors
/// That there is not one right completion, why the teacher can't be asked, or what is wrong with the files.
pub fn sample(
    task: &dyn Task,
    format: &Format,
    teacher: &Remote,
    chat: &Chat<'_>,
    stage: &Distil,
    seed: u32,
    directory: &Path,
    mut heed: impl FnMut(usize) -> bool,
) -> Result<Option<Vec<Rollout>>> {
    let problems = distil::problems(task, stage, seed);
    task.health()?;
    let mut traces = Vec::new();
    for (number, items) in (1..).zip(problems.chunks(CHUNK)) {
        let first = (number as usize - 1) * CHUNK;
        if !heed(first) {
            return Ok(None);
        }
        let file = directory.join(format!("{number:06}.jsonl.gz"));
        let written = if file.exists() {
            rollouts::read_file(&file, number)?
        } else {
            let written = match ask(task, format, teacher, chat, stage, seed, first as u32, items) {
                // It may have failed because it shall stop.
                Err(_) if !heed(first) => return Ok(None),
                written => written?,
            };
            rollouts::write_file(&file, number, &written)?;
            written
        };
        traces.extend(distil::first_right(format, &written));
    }
    distil::at_least_one(traces, stage).map(Some)
}

/// All replies to these problems, the first of which has the number `first`: of each, up to the first that is right.
fn ask(
    task: &dyn Task,
    format: &Format,
    teacher: &Remote,
    chat: &Chat<'_>,
    stage: &Distil,
    seed: u32,
    first: u32,
    items: &[Item],
) -> Result<Vec<Rollout>> {
    let mut left: Vec<(u32, &Item)> = (first..).zip(items).collect();
    let mut written: Vec<Rollout> = Vec::new();
    for sample in 0..stage.samples {
        let question = |&(problem, item): &(u32, &Item)| Question {
            messages: format.messages(task, item),
            temperature: stage.temperature,
            max_tokens: stage.max_new_tokens,
            seed: Random::new(u64::from(seed), [COMPLETIONS, problem, sample]).next_u32() >> 1,
        };
        let replies = chat(teacher, &left.iter().map(question).collect::<Vec<_>>())?;
        assert_eq!(replies.len(), left.len(), "a reply to each question");
        for (&(problem, item), reply) in left.iter().zip(replies) {
            let rollout = judge(task, format, item, &reply, stage.max_new_tokens as usize)?;
            written.push(Rollout { prompt: problem, sample, ..rollout });
        }
        task.health()?;
        let last = written.split_off(written.len() - left.len());
        left = left
            .into_iter()
            .zip(&last)
            .filter(|(_, rollout)| !distil::is_right(format, rollout))
            .map(|(p, _)| p)
            .collect();
        written.extend(last);
        if left.is_empty() {
            break;
        }
    }
    written.sort_by_key(|rollout| (rollout.prompt, rollout.sample));
    Ok(written)
}

/// A reply as a completion of the model that learns, and what it is worth.
fn judge(task: &dyn Task, format: &Format, item: &Item, reply: &Reply, limit: usize) -> Result<Rollout> {
    let text = reply.text();
    let written = demonstration(format, &text, reply.finished)
        .and_then(|shown| format.completion(&shown).map_err(|error| error.to_string()))
        .and_then(|tokens| match tokens.len() {
            n if n > limit => Err(format!("{n} tokens, more than max_new_tokens")),
            _ => Ok(tokens),
        });
    let mut rollout = Rollout {
        prompt: 0,
        sample: 0,
        item: item.clone(),
        text,
        prompt_tokens: format.prompt(task, item)?,
        tokens: Vec::new(),
        log_probs: Vec::new(),
        thought_tokens: 0,
        finished: reply.finished,
        reward: 0.0,
        reason: String::new(),
        advantage: 0.0,
    };
    match written {
        Err(reason) => rollout.reason = reason,
        Ok(tokens) => {
            rollout.text = format.text(&tokens)?;
            rollout.thought_tokens = format.thought_tokens(&tokens)?;
            rollout.tokens = tokens;
            let score = format.score(task, item, &rollout.text, true);
            (rollout.reward, rollout.reason) = (score.reward, score.reason);
        }
    }
    Ok(rollout)
}

/// Thought and answer of a reply, or what is wrong with its form.
fn demonstration(format: &Format, text: &str, finished: bool) -> std::result::Result<Demonstration, String> {
    if !finished {
        return Err("truncated: it did not end by itself".into());
    }
    let parts = match format.settings() {
        // A model made from scratch ends with a token that nobody else knows.
        None => Completion::of(text.trim())?,
        Some(_) => format.parts(text, true)?,
    };
    Ok(Demonstration { thought: parts.thought.trim().into(), answer: parts.answer.trim().into() })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use minke_model::Error;

    use super::*;
    use crate::recipe::{Recipe, Stage};
    use crate::tasks::tests::bare;

    const STAGE: &str = "[[stage]]\nkind = \"distil\"\nsteps = 3\nbatch = 2\nteacher = \"http://localhost/v1\"\n\
                         teacher_model = \"m\"\nproblems = 20\nsamples = 3\nlevel = 2\nmax_new_tokens = 24\nlr = 1e-3\n\n[eval]";

    fn setup() -> (Box<dyn Task>, Distil) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/tiny.toml");
        let text = std::fs::read_to_string(path).unwrap().replacen("[eval]", STAGE, 1);
        let recipe = Recipe::parse("tiny", &text).unwrap();
        let Stage::Distil(distil) = recipe.stages[2].clone() else { panic!("a distil stage") };
        (recipe.task.build(), distil)
    }

    #[test]
    fn problems_are_asked_until_they_are_right_and_never_twice() {
        let (task, stage) = setup();
        let format = bare(&*task);
        let remote = Remote { url: "http://localhost/v1".into(), model: "m".into(), key_env: None };
        let (asked, seeds) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
        // Sums below 10 are right at once, others at the second time; those of 10 never.
        let chat = |_: &Remote, questions: &[Question]| {
            asked.borrow_mut().push(questions.len());
            let reply = |question: &Question| {
                seeds.borrow_mut().push(question.seed);
                let text = question.messages[0].content.clone();
                let first = text.lines().next().unwrap_or_default().to_string();
                let numbers = first.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u32>().ok());
                let sum: u32 = numbers.sum();
                let right = sum < 10 || (sum > 10 && asked.borrow().len() % 2 == 0);
                let answer = if right { format!(" {sum}\n") } else { "9999".into() };
                Reply { thought: Some("1+1=2".into()), answer, finished: true }
            };
            Ok(questions.iter().map(reply).collect())
        };
        let directory = tempfile::tempdir().unwrap();
        let sampled = |chat: &Chat<'_>, heed: &mut dyn FnMut(usize) -> bool| {
            sample(&*task, &format, &remote, chat, &stage, 1, directory.path(), heed)
        };
        // Stopped after the first problems, and gone on with.
        assert_eq!(sampled(&chat, &mut |done| done == 0).unwrap(), None);
        let before = asked.borrow().clone();
        assert_eq!(before[0], 16);
        let refuse = |_: &Remote, _: &[Question]| Err(Error::new("no"));
        assert_eq!(sampled(&refuse, &mut |_| true).unwrap_err().to_string(), "no");
        let traces = sampled(&chat, &mut |_| true).unwrap().unwrap();
        assert_eq!(asked.borrow()[before.len()], 4, "only what was not asked before");
        let total: usize = asked.borrow().iter().sum();
        let again = sampled(&refuse, &mut |_| true).unwrap().unwrap();
        assert_eq!((again, asked.borrow().iter().sum::<usize>()), (traces.clone(), total));
        assert!(!traces.is_empty() && traces.iter().all(|trace| trace.reward == 1.0 && trace.text.ends_with("<end>")));
        assert_eq!(format.text(&traces[0].tokens).unwrap(), traces[0].text);
        let mut different = seeds.borrow().clone();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), total, "each question has a seed of its own");
    }

    #[test]
    fn replies_are_judged_as_completions_are() {
        let (task, _) = setup();
        let format = bare(&*task);
        let item = task.read("3+4=").unwrap();
        let judged = |thought: Option<&str>, answer: &str, finished| {
            let reply = Reply { thought: thought.map(Into::into), answer: answer.into(), finished };
            let rollout = judge(&*task, &format, &item, &reply, 20).unwrap();
            (rollout.reward, rollout.reason)
        };
        for (thought, answer) in
            [(Some("3+4=7"), "7"), (Some("\n3+4=7\n"), "\n\n7"), (Some(""), "7"), (None, "<think>3+4=7</think>7")]
        {
            assert_eq!(judged(thought, answer, true).0, 1.0, "{thought:?} {answer:?}");
        }
        for (thought, answer, finished, reason) in [
            (Some("3+4=7"), "8", true, "answer \"8\" is not 7"),
            (Some("3+4=7"), "7", false, "truncated: it did not end by itself"),
            (None, "7", true, "does not begin with <think>"),
            (Some("a"), "", true, "no answer"),
            (Some("<think>"), "7", true, "<think> inside the thought"),
            (Some("3+4=7;3+4=7;3+4=7;3+4=7"), "7", true, "27 tokens, more than max_new_tokens"),
        ] {
            assert_eq!(judged(thought, answer, finished), (0.0, reason.into()), "{thought:?} {answer:?}");
        }
        let (reward, reason) = judged(Some("Let me think."), "7", true);
        assert!(reward == 0.0 && reason.contains('L'), "{reason}");
    }
}
