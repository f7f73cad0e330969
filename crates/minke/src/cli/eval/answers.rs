//! What a model answered, problem by problem: the file of `minke eval --answers`.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use minke_model::{Error, Message};
use minke_train::format::Format;
use minke_train::rollouts::Rollout;
use minke_train::tasks::Task;
use serde::Serialize;

/// The file, open for the next lines.
pub struct Answers<'a> {
    path: PathBuf,
    file: File,
    task: &'a dyn Task,
    format: &'a Format,
}

/// A line: a problem and its greedy completion.
#[derive(Serialize)]
struct Answer<'a> {
    level: u32,
    /// What a published model is asked, before its chat template; none for a model that reads the bare problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<Vec<Message>>,
    /// What the model reads, special tokens written out,
    prompt: String,
    /// and in tokens.
    prompt_tokens: &'a [u32],
    /// The tokens that end a completion.
    ends: &'a [u32],
    /// The completion's tokens, with the one that ends it,
    tokens: &'a [u32],
    /// and its text, as it is judged.
    text: &'a str,
    reward: f32,
    reason: &'a str,
    /// It ran into its limit.
    truncated: bool,
}

impl<'a> Answers<'a> {
    /// Makes the file anew.
    pub fn create(path: &Path, task: &'a dyn Task, format: &'a Format) -> Result<Answers<'a>> {
        let file = File::create(path).with_context(|| format!("{} can't be written", path.display()))?;
        Ok(Answers { path: path.to_path_buf(), file, task, format })
    }

    /// Writes completions, at once.
    pub fn write(&mut self, rollouts: &[Rollout]) -> minke_model::Result<()> {
        let Answers { path, file, task, format } = self;
        let mut lines = Vec::new();
        for rollout in rollouts {
            let answer = Answer {
                level: rollout.item.level,
                messages: format.settings().map(|_| format.messages(*task, &rollout.item)),
                prompt: format.tokenizer().decode(&rollout.prompt_tokens, false)?,
                prompt_tokens: &rollout.prompt_tokens,
                ends: format.ends(),
                tokens: &rollout.tokens,
                text: &rollout.text,
                reward: rollout.reward,
                reason: &rollout.reason,
                truncated: !rollout.finished,
            };
            // A vector takes everything.
            let _ = serde_json::to_writer(&mut lines, &answer);
            lines.push(b'\n');
        }
        file.write_all(&lines).map_err(|error| Error::new(format!("{} can't be written: {error}", path.display())))
    }
}
