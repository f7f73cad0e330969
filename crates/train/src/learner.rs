//! A model that learns: its values, gradients and optimiser state, and the weights that the engine reads.

mod beside;
mod pass;

use std::sync::Arc;

use minke_kernels::elementwise::add;
use minke_kernels::kv::KvPages;
use minke_kernels::log_prob::{LogProb, log_prob_backward, log_prob_backward_frozen};
use minke_kernels::moments::adamw;
use minke_kernels::muon::{Muon, muon};
use minke_kernels::optimizer::{AdamW, sum_of_squares};
use minke_kernels::random::Random;
use minke_kernels::router::update_bias;
use minke_kernels::{Cpu, Dtype, Moments, View};
use minke_model::parameters::Initial;
use minke_model::{Activations, Batch, Config, Lora, Parameters, Predictor, Source, Transformer};

use crate::ahead::{Ahead, Looked};
use crate::gradient::GradientTree;
use pass::Pass;

/// Passes of a leaf of the gradient. More need less memory, since a step has fewer leaves; fewer would let more machines share
/// a step.
const PASSES: usize = 8;

/// One sequence to learn from: its tokens, and how many of the first are given rather than learnt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Prompt and completion.
    pub tokens: Vec<u32>,
    /// Length of the prompt, at least 1.
    pub prompt: usize,
}

impl Example {
    /// The prompt.
    fn given(&self) -> &[u32] {
        &self.tokens[..self.prompt]
    }

    /// Tokens that are learnt.
    pub fn learnt(&self) -> usize {
        self.tokens.len() - self.prompt
    }
}

/// What one update is made with, besides the gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// AdamW's settings of this step; biases and norms do not decay.
    pub adamw: AdamW,
    /// Muon's momentum, where it moves the matrices between hidden states, at AdamW's rate and decay.
    pub muon: Option<f64>,
    /// Largest norm of the gradient; a longer one is shortened to it.
    pub clip: f32,
    /// How far a router's bias moves towards even loads (arXiv 2412.19437, section 2.1.2).
    pub bias_rate: f32,
}

/// A model that learns, or whose adapters do. All of its state is in four numbers a parameter and a counter, so that a
/// checkpoint can hold it.
pub struct Learner<'a> {
    cpu: &'a Cpu,
    dtype: Dtype,
    transformer: Transformer,
    /// The block that looks one token further, if the model has one that learns.
    ahead: Option<Ahead>,
    /// The parameters that are learnt, in f32, laid out as [`Learner::parameters`] says.
    pub values: Vec<f32>,
    /// AdamW's running means, or Muon's running sums.
    pub m: Moments,
    /// AdamW's running means of squares.
    pub v: Moments,
    /// Updates made.
    pub updates: u64,
    tree: GradientTree,
    /// The gradient of the leaf that is being made, and how many passes have gone into it.
    open: Option<(Vec<f32>, usize)>,
    /// Of each mixture of experts, tokens that chose each expert since the last update.
    loads: Vec<Vec<u64>>,
    kv: KvPages,
    activations: Activations,
}

/// Values of a new model: matrices normal with standard deviation `deviation`, norms one, biases zero.
pub fn initial_values(config: &Config, seed: u64, deviation: f32) -> Vec<f32> {
    draw(&Parameters::learnt(config), seed, deviation)
}

/// Values of new adapters, which change nothing yet: every A uniform, every B zero.
pub fn initial_adapters(lora: &Lora, seed: u64) -> Vec<f32> {
    draw(lora.parameters(), seed, 0.0)
}

fn draw(parameters: &Parameters, seed: u64, deviation: f32) -> Vec<f32> {
    let mut values = vec![0.0; parameters.len()];
    for (i, parameter) in parameters.iter().enumerate() {
        let mut random = Random::new(seed, [u32::MAX, 0, i as u32]);
        let bound = 1.0 / (parameter.shape.last().copied().unwrap_or(1) as f32).sqrt();
        for value in &mut values[parameter.range()] {
            *value = match parameter.initial {
                Initial::Normal => deviation * random.normal(),
                Initial::Ones => 1.0,
                Initial::Zeros => 0.0,
                Initial::Uniform => bound * (2.0 * random.uniform() - 1.0),
            };
        }
    }
    values
}

/// The model in an arena, which may have a block's values behind its own.
fn build(cpu: &Cpu, config: &Config, dtype: Dtype, values: &[f32]) -> Transformer {
    let own = Parameters::of(config).len();
    let built = Transformer::new(cpu, config, dtype.into(), Source::Arena(&values[..own]));
    built.unwrap_or_else(|error| unreachable!("an arena has every tensor: {error}"))
}

/// What a block for multi-token prediction learns of a pass: the examples, the row of each token of each but its last, and the
/// weight of its loss.
struct Look<'p> {
    examples: &'p [Example],
    states: &'p [u32],
    weight: f32,
}

impl<'a> Learner<'a> {
    /// A model with these values, and nothing learnt yet; products of the forward pass read them as `dtype`. What `activations`
    /// keep for backward changes no bit.
    pub fn new(cpu: &'a Cpu, config: &Config, dtype: Dtype, activations: Activations, values: Vec<f32>) -> Learner<'a> {
        let ahead = Ahead::new(cpu, config, dtype, &values);
        Learner::of(cpu, build(cpu, config, dtype, &values), ahead, dtype, activations, values)
    }

    /// The same of adapters with these values on a model that is frozen, whose weights stay as `base` has them.
    pub fn adapting(
        cpu: &'a Cpu,
        base: &Transformer,
        lora: &Arc<Lora>,
        activations: Activations,
        values: Vec<f32>,
    ) -> Learner<'a> {
        Learner::of(cpu, base.adapted(cpu, lora, &values), None, lora.dtype(), activations, values)
    }

    fn of(
        cpu: &'a Cpu,
        transformer: Transformer,
        ahead: Option<Ahead>,
        dtype: Dtype,
        activations: Activations,
        values: Vec<f32>,
    ) -> Learner<'a> {
        let len = values.len();
        let layout = if ahead.is_some() { Predictor::kv_layout(&transformer) } else { transformer.kv_layout() };
        Learner {
            cpu,
            dtype,
            kv: KvPages::new(layout, 0),
            transformer,
            ahead,
            values,
            m: Moments::zeros(Dtype::F32, len),
            v: Moments::zeros(Dtype::F32, len),
            updates: 0,
            tree: GradientTree::new(len),
            open: None,
            loads: Vec::new(),
            activations,
        }
    }

    /// The same with the optimiser's memory, still empty, kept in `dtype`: f32 unless said otherwise.
    #[must_use]
    pub fn remembering(mut self, dtype: Dtype) -> Learner<'a> {
        let len = self.values.len();
        (self.m, self.v) = (Moments::zeros(dtype, len), Moments::zeros(dtype, len));
        self
    }

    /// Goes back to a state that was saved; moments of another type are made those of this learner's.
    pub fn restore(&mut self, values: Vec<f32>, m: Moments, v: Moments, updates: u64) {
        assert_eq!([values.len(), m.len(), v.len()], [self.values.len(); 3], "the state of another model");
        let dtype = self.m.dtype();
        (self.values, self.m, self.v, self.updates) = (values, m.cast(dtype), v.cast(dtype), updates);
        self.refresh();
    }

    /// Takes other values, and leaves the optimiser's memory as it is.
    pub(crate) fn move_to(&mut self, values: Vec<f32>) {
        self.values = values;
        self.refresh();
    }

    /// Has the weights follow the values.
    fn refresh(&mut self) {
        let own = self.transformer.learnt().len();
        self.transformer.refresh(self.cpu, &self.values[..own]);
        if let Some(ahead) = &mut self.ahead {
            ahead.refresh(self.cpu, self.transformer.config(), &self.values);
        }
    }

    /// The tensors of its arenas.
    pub fn parameters(&self) -> &Parameters {
        self.ahead.as_ref().map_or(self.transformer.learnt(), |ahead| &ahead.parameters)
    }

    /// Whether a block for multi-token prediction can learn beside the model.
    pub fn looks_ahead(&self) -> bool {
        self.ahead.is_some()
    }

    /// Forgets the optimiser's running means: a new stage begins.
    pub fn reset_optimizer(&mut self) {
        self.m.clear();
        self.v.clear();
        self.updates = 0;
    }

    /// The weights as the engine reads them.
    pub fn transformer(&self) -> &Transformer {
        &self.transformer
    }

    /// The same model with other values, which stay as they are; what is frozen is shared.
    pub fn with(&self, values: &[f32]) -> Transformer {
        if let Some(lora) = self.transformer.lora() {
            return self.transformer.adapted(self.cpu, lora, values);
        }
        build(self.cpu, self.transformer.config(), self.dtype, values)
    }

    /// The machine.
    pub fn cpu(&self) -> &'a Cpu {
        self.cpu
    }

    /// One pass of a step: forward over `examples`, and backward from what `weigh` makes of the log-probabilities of the
    /// learnt tokens (in order; it returns the derivative of the loss by each of them). A leaf of the step's gradient is
    /// eight of them, one added to the other.
    ///
    /// With `alpha` > 0 the sequence balance loss of every mixture of experts is learnt too.
    ///
    /// # Errors
    /// Those of `weigh`; nothing is learnt then.
    pub fn pass<E>(
        &mut self,
        examples: &[Example],
        inverse_temperature: f32,
        alpha: f32,
        weigh: impl FnOnce(&[LogProb]) -> Result<Vec<f32>, E>,
    ) -> Result<(), E> {
        self.pass_ahead(examples, inverse_temperature, alpha, 0.0, weigh).map(|_| ())
    }

    /// As [`Learner::pass`], and where `weight` > 0 the block for multi-token prediction learns too, the loss of each token after
    /// a next one weighing so much; the sum of their log-probabilities.
    ///
    /// # Errors
    /// Those of `weigh`; nothing is learnt then.
    ///
    /// # Panics
    /// Where `weight` > 0 and the model has no such block.
    pub fn pass_ahead<E>(
        &mut self,
        examples: &[Example],
        inverse_temperature: f32,
        alpha: f32,
        weight: f32,
        weigh: impl FnOnce(&[LogProb]) -> Result<Vec<f32>, E>,
    ) -> Result<f64, E> {
        let cpu = self.cpu;
        let Learner { transformer, values, kv, activations: a, .. } = self;
        let hidden_size = transformer.config().hidden_size;
        let vocab_size = transformer.config().vocab_size;
        let Pass { batch, rows, targets, states, hidden, log_probs } =
            Pass::forward(cpu, transformer, kv, a, examples, inverse_temperature);
        let hidden = View::new(&hidden, rows.len(), hidden_size);

        let d_log_prob = weigh(&log_probs)?;
        let (mut gradient, passes) = self.open.take().unwrap_or_else(|| (self.tree.leaf(), 0));
        let lse: Vec<f32> = log_probs.iter().map(|row| row.lse).collect();
        let mut d_rows = cpu.scratch(rows.len() * hidden_size);
        d_rows.fill(0.0);
        let (head, inverse) = (transformer.head(), inverse_temperature);
        if let Some(lora) = transformer.lora() {
            let (dtype, d) = (lora.dtype(), &d_log_prob);
            log_prob_backward_frozen(cpu, head, dtype, hidden, &targets, &lse, d, inverse, &mut d_rows);
        } else {
            let at = transformer.head_range();
            let head_rows = View::new(&values[at.clone()], vocab_size, hidden_size);
            let d_head = &mut gradient[at];
            let d = &d_log_prob;
            log_prob_backward(cpu, head, head_rows, hidden, &targets, &lse, d, inverse, &mut d_rows, d_head);
        }
        let look = (weight > 0.0).then_some(Look { examples, states: &states, weight });
        Ok(self.back(&batch, &rows, &d_rows, alpha, look, gradient, passes))
    }

    /// Goes back through the model from the gradient of the final hidden states at `rows` of the last pass, and closes the pass:
    /// `gradient` is that of its leaf, `passes` how many passes that has so far. Where the block for multi-token prediction learns
    /// too, the sum of its log-probabilities is returned.
    fn back(
        &mut self,
        batch: &Batch,
        rows: &[u32],
        d_rows: &[f32],
        alpha: f32,
        look: Option<Look<'_>>,
        mut gradient: Vec<f32>,
        passes: usize,
    ) -> f64 {
        let cpu = self.cpu;
        let Learner { transformer, ahead, values, kv, activations: a, .. } = self;
        let hidden_size = transformer.config().hidden_size;
        let mut d_hidden = cpu.scratch(a.hidden.len());
        d_hidden.fill(0.0);
        // The last row of a shared prompt predicts a token of every completion.
        for (d_row, &row) in d_rows.chunks_exact(hidden_size).zip(rows) {
            let d_hidden = &mut d_hidden[row as usize * hidden_size..][..hidden_size];
            d_hidden.iter_mut().zip(d_row).for_each(|(sum, d)| *sum += d);
        }
        let mut looked = Looked::default();
        if let Some(Look { examples, states, weight }) = look {
            let block = ahead.as_mut().expect("a model with a block for multi-token prediction");
            let (from, weights) = ((&*a.hidden, states), (weight, alpha));
            looked = block.pass(cpu, transformer, values, kv, examples, from, weights, &mut d_hidden, &mut gradient);
        }
        transformer.backward(cpu, values, batch, kv, a, &d_hidden, alpha, &mut gradient);

        let loads: Vec<&Vec<u64>> = a.loads().iter().chain(&looked.loads).collect();
        self.loads.resize_with(loads.len().max(self.loads.len()), Vec::new);
        for (total, loads) in self.loads.iter_mut().zip(loads) {
            total.resize(loads.len(), 0);
            total.iter_mut().zip(loads).for_each(|(total, load)| *total += load);
        }
        if passes + 1 < PASSES {
            self.open = Some((gradient, passes + 1));
        } else {
            self.tree.add(gradient, |x, y| add(cpu, x, y));
        }
        looked.log_prob
    }

    /// Log-probabilities of the learnt tokens of `examples`, in order.
    pub fn log_probs(&mut self, examples: &[Example]) -> Vec<f32> {
        let Learner { cpu, transformer, kv, activations, .. } = self;
        let pass = Pass::forward(cpu, transformer, kv, activations, examples, 1.0);
        pass.log_probs.iter().map(|row| row.log_prob).collect()
    }

    /// Log-probabilities of the learnt tokens of `examples`, in order, under a model made by [`Learner::with`].
    pub fn log_probs_under(&mut self, other: &Transformer, examples: &[Example], inverse_temperature: f32) -> Vec<f32> {
        let Learner { cpu, kv, activations, .. } = self;
        let pass = Pass::forward(cpu, other, kv, activations, examples, inverse_temperature);
        pass.log_probs.iter().map(|row| row.log_prob).collect()
    }

    /// The sum of all passes since it was last taken, if there were any.
    pub(crate) fn take_gradient(&mut self) -> Option<Vec<f32>> {
        let cpu = self.cpu;
        if let Some((last, _)) = self.open.take() {
            self.tree.add(last, |x, y| add(cpu, x, y));
        }
        self.tree.take(|x, y| add(cpu, x, y))
    }

    /// Ends a step: moves the parameters by the gradient, and returns the gradient's norm before clipping. Without passes
    /// nothing moves, and the norm is zero.
    pub fn update(&mut self, step: &Step) -> f32 {
        let cpu = self.cpu;
        let Some(gradient) = self.take_gradient() else { return 0.0 };
        let norm = sum_of_squares(cpu, &gradient).sqrt() as f32;
        let scale = if norm > step.clip { step.clip / norm } else { 1.0 };
        self.updates += 1;
        // A block that has learnt nothing stays as it is.
        let moved = self.ahead.as_ref().filter(|ahead| ahead.moved);
        let parameters = moved.map_or(self.transformer.learnt(), |ahead| &ahead.parameters);
        for parameter in parameters.iter().filter(|parameter| parameter.trainable) {
            let range = parameter.range();
            let decay = if parameter.decays() { step.adamw.weight_decay } else { 0.0 };
            let settings = AdamW { weight_decay: decay, ..step.adamw };
            if let (Some(momentum), true, &[rows, cols]) =
                (step.muon, parameter.is_hidden_matrix(), &parameter.shape[..])
            {
                let AdamW { learning_rate, weight_decay, .. } = settings;
                let settings = Muon { learning_rate, momentum, weight_decay };
                let (gradient, values) = (&gradient[range.clone()], &mut self.values[range.clone()]);
                self.m.change(cpu, self.updates, range, |sum| {
                    muon(cpu, &settings, scale, (rows, cols), gradient, sum, values);
                });
                continue;
            }
            let (gradient, values) = (&gradient[range.clone()], &mut self.values[range.clone()]);
            adamw(cpu, &settings, self.updates, scale, gradient, (&mut self.m, &mut self.v), range, values);
        }
        let biases = parameters.iter().filter(|parameter| !parameter.trainable);
        for (parameter, loads) in biases.zip(&mut self.loads) {
            update_bias(loads, step.bias_rate, &mut self.values[parameter.range()]);
            loads.fill(0);
        }
        self.tree.recycle(gradient);
        if let Some(ahead) = &mut self.ahead {
            ahead.moved = false;
        }
        self.refresh();
        norm
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::convert::Infallible;

    use minke_kernels::Isa;
    use minke_model::families::config_from_json;
    use serde_json::json;

    use super::*;

    /// A mixture of experts with latent attention, of the smallest sizes.
    pub fn mixture() -> Config {
        let json = json!({
            "model_type": "deepseek_v3", "vocab_size": 40, "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 2, "num_attention_heads": 2, "kv_lora_rank": 16, "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 8, "v_head_dim": 8, "first_k_dense_replace": 1, "n_routed_experts": 4,
            "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 16, "n_group": 1, "topk_group": 1,
            "norm_topk_prob": true, "routed_scaling_factor": 1.0, "max_position_embeddings": 128,
        });
        config_from_json(&json).unwrap()
    }

    /// Log-probabilities of the examples' learnt tokens, and the gradient of a weighted sum of them, in passes of `size`
    /// examples.
    fn learn(cpu: &Cpu, config: &Config, examples: &[Example], size: usize) -> (Vec<u32>, Vec<f32>) {
        let activations = if size > 1 { Activations::within(0) } else { Activations::training() };
        let mut learner = Learner::new(cpu, config, Dtype::F32, activations, initial_values(config, 3, 0.2));
        let mut bits = Vec::new();
        for part in examples.chunks(size) {
            let weight = if config.predictions > 0 { 0.1 } else { 0.0 };
            let done: Result<f64, Infallible> = learner.pass_ahead(part, 1.0, 0.0, weight, |log_probs| {
                let weights = (bits.len()..bits.len() + log_probs.len()).map(|i| 0.3 - (i % 7) as f32 * 0.1).collect();
                bits.extend(log_probs.iter().map(|row| row.log_prob.to_bits()));
                Ok(weights)
            });
            done.unwrap();
        }
        (bits, learner.take_gradient().unwrap())
    }

    /// A group's prompt goes through the model once: no log-probability changes by a bit, and the gradient is that of each
    /// completion alone, to rounding.
    #[test]
    fn a_shared_prompt_changes_nothing() {
        let llama = json!({
            "model_type": "llama", "vocab_size": 40, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "tie_word_embeddings": true,
        });
        let predicting = Config { predictions: 1, ..mixture() };
        for config in [config_from_json(&llama).unwrap(), mixture(), predicting] {
            let mut random = Random::new(5, [0; 3]);
            let mut tokens = |count: usize| (0..count).map(|_| random.below(40)).collect::<Vec<u32>>();
            let mut examples = Vec::new();
            for (prompt, completions) in [(37, vec![1, 30, 9]), (32, vec![2, 2]), (5, vec![60]), (1, vec![3, 40])] {
                let given = tokens(prompt);
                let all = completions.into_iter().map(|count| [&*given, &*tokens(count)].concat());
                examples.extend(all.map(|tokens| Example { tokens, prompt }));
            }
            for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
                let cpu = Cpu::new(isa, 2);
                let (together, gradient) = learn(&cpu, &config, &examples, examples.len());
                let (alone, sum) = learn(&cpu, &config, &examples, 1);
                assert!(together == alone, "{}: a log-probability is another", isa.name());
                let largest = sum.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
                let off = gradient.iter().zip(&sum).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
                assert!(off < 2e-5 * largest, "{}: gradients differ by {off}, the largest is {largest}", isa.name());
            }
        }
    }
}
