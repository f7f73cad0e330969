//! Completions of a task's problems: sampled by the engine, judged by the task.

use minke_engine::{
    Costs, Decoder, Drafter, Engine, Limits, Reason, Request, RequestId, Sampling, Seed, Speculative,
    TransformerDecoder,
};
use minke_kernels::Cpu;
use minke_model::{Error, Predictor, Result, Transformer};

use crate::evaluation::{Evaluation, Outcome};
use crate::format::{Format, is_right_leniently};
use crate::rollouts::Rollout;
use crate::tasks::{Item, Task};

/// Memory for keys and values.
const KV_BYTES: usize = 1 << 30;
/// First word of the random streams of evaluations; training has the step there.
const EVALUATION: u32 = u32::MAX;
/// Items that are evaluated at a time: enough for full batches, few enough that progress shows.
const CHUNK: usize = 128;

/// Asks a model for completions of a task's problems.
pub struct Generator<'a> {
    task: &'a dyn Task,
    format: &'a Format,
    engine: Option<Engine>,
    drafter: Option<Box<dyn Drafter + 'a>>,
    predictor: Option<&'a Predictor>,
}

/// A problem to complete, and the random numbers to do it with.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'i> {
    /// The problem.
    pub item: &'i Item,
    /// Step (or evaluation), prompt and sample: see [`Seed`].
    pub stream: [u32; 3],
}

/// How completions are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drawing {
    /// The run's seed.
    pub seed: u32,
    /// What logits are divided by; 0 for the most likely token.
    pub temperature: f32,
    /// Longest completion, in tokens.
    pub limit: usize,
}

/// What was sampled: a rollout for each request, and the mean entropy of a token's distribution.
pub struct Sampled {
    /// In the order of the asks; advantages are still 0.
    pub rollouts: Vec<Rollout>,
    /// In nats.
    pub entropy: f64,
}

impl<'a> Generator<'a> {
    /// For a model that reads and writes in this format.
    pub fn new(task: &'a dyn Task, format: &'a Format) -> Generator<'a> {
        Generator { task, format, engine: None, drafter: None, predictor: None }
    }

    /// What is completed.
    pub fn task(&self) -> &'a dyn Task {
        self.task
    }

    /// How the model reads and writes.
    pub fn format(&self) -> &'a Format {
        self.format
    }

    /// Has tokens guessed from now on, by a drafter or the model's own block, or not; they are the same.
    pub fn guess(&mut self, drafter: Option<Box<dyn Drafter + 'a>>, predictor: Option<&'a Predictor>) {
        (self.drafter, self.predictor) = (drafter, predictor);
    }

    /// Gives back the memory of keys and values, which whoever learns next can use.
    pub fn rest(&mut self) {
        self.engine = None;
    }

    /// Completes every ask.
    ///
    /// # Errors
    /// When a prompt does not fit the model, the model's logits are not numbers, or the task can't be worked with any more.
    pub fn complete(
        &mut self,
        cpu: &Cpu,
        transformer: &Transformer,
        asks: &[Ask<'_>],
        drawing: Drawing,
    ) -> Result<Sampled> {
        self.task.health()?;
        let mut decoder = TransformerDecoder::new(cpu, transformer);
        if let Some(predictor) = self.predictor {
            decoder = decoder.predicting(predictor, Costs::ROW);
        }
        let limits = Limits::within(KV_BYTES, decoder.kv_layout());
        let mut decoder = Speculative { decoder, drafter: self.drafter.take() };
        let engine = self.engine.get_or_insert_with(|| Engine::new(&decoder, limits));
        engine.reset();
        let mut requests = Vec::with_capacity(asks.len());
        for (i, ask) in asks.iter().enumerate() {
            requests.push(Request {
                id: RequestId(i as u64),
                prompt: self.format.prompt(self.task, ask.item)?,
                sampling: Sampling {
                    temperature: drawing.temperature,
                    seed: Seed { seed: u64::from(drawing.seed), stream: ask.stream },
                    ..Sampling::default()
                },
                limit: drawing.limit,
                stop: self.format.ends().to_vec(),
                thought: None,
            });
        }
        let prompts: Vec<Vec<u32>> = requests.iter().map(|request| request.prompt.clone()).collect();
        let outcomes = engine.generate(&mut decoder, requests).map_err(|refused| Error::new(refused.to_string()))?;
        self.drafter = decoder.drafter.take();

        let (mut entropy, mut count) = (0.0, 0_usize);
        let mut rollouts = Vec::with_capacity(asks.len());
        for ((ask, prompt_tokens), outcome) in asks.iter().zip(prompts).zip(outcomes) {
            if outcome.reason == Reason::NotFinite {
                return Err(Error::new("the model's logits are not numbers any more; lower the learning rate"));
            }
            entropy += outcome.tokens.iter().map(|token| f64::from(token.entropy)).sum::<f64>();
            count += outcome.tokens.len();
            let tokens: Vec<u32> = outcome.tokens.iter().map(|token| token.id).collect();
            let text = self.format.text(&tokens)?;
            let finished = outcome.reason == Reason::Stop;
            let score = self.format.score(self.task, ask.item, &text, finished);
            rollouts.push(Rollout {
                prompt: ask.stream[1],
                sample: ask.stream[2],
                item: ask.item.clone(),
                text,
                prompt_tokens,
                thought_tokens: self.format.thought_tokens(&tokens)?,
                log_probs: outcome.tokens.iter().map(|token| token.log_prob).collect(),
                tokens,
                finished,
                reward: score.reward,
                reason: score.reason,
                advantage: 0.0,
            });
        }
        self.task.health()?;
        Ok(Sampled { rollouts, entropy: entropy / count.max(1) as f64 })
    }

    /// Held-out results on `items` of one level: greedy, and `samples` drawn of each. `heed` hears now and then how many
    /// items are done; where it says no, there is no result. `keep` gets the greedy completions, in the order of the items.
    ///
    /// # Errors
    /// Those of [`Generator::complete`], and of `keep`.
    pub fn evaluate(
        &mut self,
        cpu: &Cpu,
        transformer: &Transformer,
        items: &[Item],
        samples: u32,
        drawing: Drawing,
        mut heed: impl FnMut(usize) -> bool,
        mut keep: impl FnMut(&[Rollout]) -> Result<()>,
    ) -> Result<Option<Evaluation>> {
        let level = items.first().map_or(0, |item| item.level);
        let asks: Vec<Ask<'_>> = asks(items).collect();
        let mut outcomes = Vec::with_capacity(items.len());
        for asks in asks.chunks(CHUNK) {
            if !heed(outcomes.len()) {
                return Ok(None);
            }
            let greedy = self.complete(cpu, transformer, asks, Drawing { temperature: 0.0, ..drawing })?.rollouts;
            keep(&greedy)?;
            let each = asks.iter().flat_map(|ask| {
                (0..samples).map(|sample| Ask { stream: [ask.stream[0], ask.stream[1], sample], ..*ask })
            });
            let drawn = self.complete(cpu, transformer, &each.collect::<Vec<_>>(), drawing)?.rollouts;
            outcomes.extend(greedy.iter().enumerate().map(|(i, rollout)| Outcome {
                greedy: rollout.reward > 0.0,
                finished: rollout.finished,
                thought_tokens: rollout.thought_tokens,
                lenient: is_right_leniently(self.task, &rollout.item, &rollout.text),
                samples: samples as usize,
                right: drawn[i * samples as usize..][..samples as usize].iter().filter(|r| r.reward > 0.0).count(),
            }));
        }
        self.task.health()?;
        Ok(Some(Evaluation::of(level, &outcomes)))
    }

    /// The greedy completions of items.
    ///
    /// # Errors
    /// Those of [`Generator::complete`].
    pub fn greedy(
        &mut self,
        cpu: &Cpu,
        transformer: &Transformer,
        items: &[Item],
        limit: usize,
    ) -> Result<Vec<Rollout>> {
        let asks: Vec<Ask<'_>> = asks(items).collect();
        Ok(self.complete(cpu, transformer, &asks, Drawing { seed: 0, temperature: 0.0, limit })?.rollouts)
    }
}

/// Items to be completed outside training.
fn asks(items: &[Item]) -> impl Iterator<Item = Ask<'_>> {
    items.iter().enumerate().map(|(i, item)| Ask { item, stream: [EVALUATION, i as u32, 0] })
}
