//! Learning from a teacher's next-token distributions, not only from the tokens that it chose: `distil` stages with `kl`.
//!
//! The loss is a mean over the tokens of the teacher's right completions: `kl` times the Kullback–Leibler divergence from the
//! teacher's distribution to the model's, plus 1 − `kl` times the cross-entropy of the token (Hinton, Vinyals and Dean, arXiv
//! 1503.02531, at temperature 1; the divergence is the forward one of arXiv 2306.13649).

use std::convert::Infallible;
use std::path::PathBuf;

use minke_kernels::Cpu;
use minke_model::{Checkpoint, Config, Error, Precision, Result, Source, Tokenizer, Transformer};

use crate::learner::{Example, Learner, Step};
use crate::recipe::{Stage, Teacher};
use crate::sft::{Learnt, PASS};

/// The reference of the model whose distributions a stage learns, unless they are its own.
fn reference(stage: &Stage) -> Option<&str> {
    match stage {
        Stage::Distil(distil) if distil.kl > 0.0 => match &distil.teacher {
            Teacher::Reference(reference) => Some(reference),
            Teacher::Itself | Teacher::Remote(_) => None,
        },
        _ => None,
    }
}

/// Finds a model by its reference.
type Find<'a> = dyn Fn(&str) -> Result<PathBuf> + 'a;

/// That the teacher whose distributions a stage learns, if they are another model's, has the vocabulary of the model that learns,
/// with this configuration and tokenizer.
///
/// # Errors
/// What differs, or what is wrong with the teacher's files.
pub fn check(stage: &Stage, find: &Find<'_>, config: &Config, tokenizer: &Tokenizer) -> Result<()> {
    open(stage, find, config, tokenizer).map(drop)
}

/// That teacher.
///
/// # Errors
/// As of [`check`].
pub fn teacher(
    cpu: &Cpu,
    stage: &Stage,
    find: &Find<'_>,
    config: &Config,
    tokenizer: &Tokenizer,
) -> Result<Option<Transformer>> {
    let Some(files) = open(stage, find, config, tokenizer)? else { return Ok(None) };
    Transformer::new(cpu, files.config(), Precision::Stored, Source::Checkpoint(&files)).map(Some)
}

fn open(stage: &Stage, find: &Find<'_>, config: &Config, tokenizer: &Tokenizer) -> Result<Option<Checkpoint>> {
    let Some(reference) = reference(stage) else { return Ok(None) };
    let files = Checkpoint::open(&find(reference)?).map_err(|error| error.at(reference))?;
    let theirs = files.tokenizer()?;
    let sizes = (config.vocab_size, files.config().vocab_size);
    let other = (0..sizes.0 as u32).find(|&id| tokenizer.token(id) != theirs.token(id));
    let what = match other {
        _ if sizes.0 != sizes.1 => format!("{} tokens, not {}", sizes.1, sizes.0),
        Some(id) => format!("another token {id}"),
        None => return Ok(Some(files)),
    };
    Err(Error::new(format!(
        "the teacher {reference} has another vocabulary than the model ({what}), so their distributions can't be compared; \
         choose a teacher of the same family, or leave kl out"
    )))
}

/// One update on these examples beside their teacher; `share` is the divergence's part of the loss.
///
/// # Errors
/// When an example is longer than the teacher can read.
pub fn step(
    learner: &mut Learner<'_>,
    teacher: &Transformer,
    examples: &[Example],
    share: f32,
    alpha: f32,
    update: &Step,
) -> Result<Learnt> {
    let longest = examples.iter().map(|example| example.tokens.len()).max().unwrap_or(0);
    if longest > teacher.context() {
        return Err(Error::new(format!(
            "the teacher can read {} tokens, but an example has {longest}; choose another teacher, or leave kl out",
            teacher.context()
        )));
    }
    let learnt: usize = examples.iter().map(Example::learnt).sum();
    // The balance loss is a mean over sequences, as the loss is one over tokens.
    let alpha = alpha / examples.len() as f32;
    let mut loss = 0.0;
    for pass in examples.chunks(PASS) {
        let done: std::result::Result<(), Infallible> = learner.pass_beside(teacher, pass, alpha, |rows| {
            let (kl, rest) = (f64::from(share), 1.0 - f64::from(share));
            let of = rows.iter().map(|row| kl * f64::from(row.kl) - rest * f64::from(row.log_prob));
            loss += of.sum::<f64>() / learnt as f64;
            Ok([-rest, kl].map(|d| vec![(d / learnt as f64) as f32; rows.len()]))
        });
        match done {
            Ok(()) => {}
            Err(never) => match never {},
        }
    }
    let tokens = examples.iter().map(|example| example.tokens.len() as u64).sum();
    Ok(Learnt { loss, mtp_loss: None, gradient_norm: learner.update(update), tokens })
}
