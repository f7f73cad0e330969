//! `minke eval URL#MODEL`: a model behind an OpenAI-compatible chat API.

use anyhow::{Result, bail};
use minke_train::elsewhere::Elsewhere;
use minke_train::evaluation::Evaluation;
use minke_train::generate::Drawing;
use minke_train::remote::{Chat, Remote};
use minke_train::tasks::Item;

use super::Eval;
use super::asked::Asked;
use crate::{interrupt, remote};

/// Where the key is, if there is one.
const KEY: &str = "MINKE_KEY";

/// The model that a reference of the form `URL#MODEL` stands for; none where it has another form.
pub fn remote(reference: &str) -> Result<Option<Remote>> {
    let key_env = std::env::var_os(KEY).map(|_| KEY.to_string());
    Ok(remote::endpoint(reference)?.map(|(url, model)| Remote { url: url.into(), model: model.into(), key_env }))
}

/// Its results.
pub fn evaluate(
    arguments: &Eval,
    asked: &Asked,
    remote: &Remote,
    items: &[Item],
    heed: impl FnMut(usize) -> bool,
) -> Result<Option<Evaluation>> {
    if arguments.answers.is_some() {
        bail!("--answers is for models that run here, for it has their tokens; leave it out");
    }
    let Asked { settings, eval, seed, .. } = asked;
    let stop = interrupt::flag()?;
    let drawing = Drawing { seed: *seed, temperature: eval.temperature, limit: eval.max_new_tokens as usize };
    let chat: &Chat<'_> = &|remote, questions| remote::chat(remote, questions, &stop);
    let settings = settings.clone().unwrap_or_default();
    let model = Elsewhere { remote, chat, task: &*asked.task, settings: &settings };
    Ok(model.evaluate(items, eval.samples, drawing, heed)?)
}
