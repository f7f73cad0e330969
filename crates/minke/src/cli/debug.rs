//! `minke debug`: logits, gradients and greedy text, to compare with other implementations.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use minke_engine::{Engine, Limits, Request, RequestId, Sampling, TransformerDecoder};
use minke_kernels::kv::{KvPages, PAGE_POSITIONS};
use minke_kernels::log_prob::{LogProb, log_prob, log_prob_backward};
use minke_kernels::{Buffer, Cpu, View};
use minke_model::dequantize::DataType;
use minke_model::{Activations, Batch, Checkpoint, Config, Parameters, Source, Transformer, safetensors};
use serde::Serialize;

use super::ModelArguments;
use crate::load;
use crate::output::{Show, print};

#[derive(Subcommand)]
pub enum Debug {
    /// Logits of a sequence of tokens, a row for each position
    #[command(after_help = "Example: minke debug logits golden/models/llama --tokens 1,2,3 --json")]
    Logits(Logits),
    /// Gradients of the mean next-token cross-entropy of a sequence, for every tensor under its Hugging Face name
    #[command(after_help = "Example: minke debug grads golden/models/llama --tokens 1,2,3 --out grads.safetensors")]
    Grads(Grads),
    /// The most likely text, without a chat template
    #[command(after_help = "Example: minke debug generate smollm2 --prompt \"Once upon a time\" --tokens 64 --json")]
    Generate(Generate),
}

#[derive(Args)]
pub struct Logits {
    #[command(flatten)]
    model: ModelArguments,
    /// Token ids, separated by commas
    #[arg(long, value_name = "IDS", value_delimiter = ',', required = true)]
    tokens: Vec<u32>,
    /// Print {"logits": [[…], …]}
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct Grads {
    #[command(flatten)]
    model: ModelArguments,
    /// Token ids, separated by commas
    #[arg(long, value_name = "IDS", value_delimiter = ',', required = true)]
    tokens: Vec<u32>,
    /// Where to write the gradients
    #[arg(long, value_name = "FILE.safetensors")]
    out: PathBuf,
    /// Print {"loss": …, "tensors": …}
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct Generate {
    #[command(flatten)]
    model: ModelArguments,
    /// What to go on from
    #[arg(long)]
    prompt: String,
    /// Most tokens to generate; fewer when the model ends its text
    #[arg(long, value_name = "N", default_value_t = 64)]
    tokens: usize,
    /// Print {"ids": […], "text": …}
    #[arg(long)]
    json: bool,
}

pub fn run(command: &Debug) -> Result<()> {
    match command {
        Debug::Logits(arguments) => logits(arguments),
        Debug::Grads(arguments) => grads(arguments),
        Debug::Generate(arguments) => generate(arguments),
    }
}

#[derive(Serialize)]
struct LogitsResult {
    /// A row of vocabulary size for each position.
    logits: Vec<Vec<f32>>,
}

impl Show for LogitsResult {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        for (position, row) in self.logits.iter().enumerate() {
            let mut best: Vec<usize> = (0..row.len()).collect();
            best.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
            let best: Vec<String> = best.iter().take(5).map(|&id| format!("{id}: {:.4}", row[id])).collect();
            writeln!(out, "position {position}, likeliest next tokens  {}", best.join("   "))?;
        }
        Ok(())
    }
}

fn logits(arguments: &Logits) -> Result<()> {
    let cpu = load::cpu()?;
    let checkpoint = load::open(&arguments.model.model)?;
    let config = checkpoint.config();
    let transformer = load::transformer(&cpu, &checkpoint, arguments.model.dtype.into())?;
    check_tokens(&arguments.tokens, config, transformer.context())?;
    let mut logits = Vec::with_capacity(arguments.tokens.len());
    load::run_through(&cpu, &transformer, &arguments.tokens, |_, hidden| {
        let mut chunk = vec![0.0; hidden.rows() * config.vocab_size];
        transformer.logits(&cpu, hidden, &mut chunk);
        logits.extend(chunk.chunks_exact(config.vocab_size).map(<[f32]>::to_vec));
        Ok(())
    })?;
    print(&LogitsResult { logits }, arguments.json)
}

#[derive(Serialize)]
struct GradsResult {
    /// Mean cross-entropy of every token but the first.
    loss: f64,
    /// Number of tensors written.
    tensors: usize,
}

impl Show for GradsResult {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "loss {:.6}, gradients of {} tensors written", self.loss, self.tensors)
    }
}

fn grads(arguments: &Grads) -> Result<()> {
    let cpu = load::cpu()?;
    let checkpoint = load::open(&arguments.model.model)?;
    let tokens = &arguments.tokens;
    if tokens.len() < 2 {
        bail!("a next-token loss needs at least two tokens; give more with --tokens");
    }
    let parameters = Parameters::of(checkpoint.config());
    let values = arena(&checkpoint, &parameters)?;
    let precision = arguments.model.dtype.into();
    let transformer = Transformer::new(&cpu, checkpoint.config(), precision, Source::Arena(&values))?;
    check_tokens(tokens, checkpoint.config(), transformer.context())?;
    let (loss, gradient) = gradient(&cpu, &transformer, &values, tokens);
    let tensors: Vec<(String, Vec<usize>, &[f32])> = parameters
        .iter()
        .filter(|parameter| parameter.trainable)
        .map(|parameter| (parameter.name.clone(), parameter.shape.clone(), &gradient[parameter.range()]))
        .collect();
    let write = |path: &Path| -> io::Result<()> {
        let mut out = BufWriter::new(File::create(path)?);
        safetensors::write(&mut out, DataType::F32, &tensors)?;
        out.flush()
    };
    write(&arguments.out).with_context(|| format!("{} can't be written", arguments.out.display()))?;
    print(&GradsResult { loss, tensors: tensors.len() }, arguments.json)
}

/// All of a model's numbers, laid out as `parameters` says.
fn arena(checkpoint: &Checkpoint, parameters: &Parameters) -> Result<Vec<f32>> {
    let mut values = Vec::with_capacity(parameters.len());
    for parameter in parameters {
        values.append(&mut checkpoint.tensor(&parameter.name, &parameter.shape)?);
    }
    Ok(values)
}

/// Mean next-token cross-entropy of a sequence, and its gradient laid out as `values`.
fn gradient(cpu: &Cpu, transformer: &Transformer, values: &[f32], tokens: &[u32]) -> (f64, Vec<f32>) {
    let Config { vocab_size, hidden_size, .. } = *transformer.config();
    let (inputs, targets) = (&tokens[..tokens.len() - 1], &tokens[1..]);
    let rows = inputs.len();
    let pages: Vec<u32> = (0..rows.div_ceil(PAGE_POSITIONS) as u32).collect();
    let mut kv = KvPages::new(transformer.kv_layout(), pages.len());
    let mut batch = Batch::default();
    batch.push(inputs, 0, pages);
    let mut activations = Activations::training();
    transformer.forward(cpu, &batch, &mut kv, &mut activations);
    let hidden = activations.hidden(transformer.config());
    let mut out = vec![LogProb::default(); rows];
    log_prob(cpu, transformer.head(), hidden, targets, 1.0, &mut out);
    let loss = -out.iter().map(|p| f64::from(p.log_prob)).sum::<f64>() / rows as f64;

    let mut gradient = vec![0.0; values.len()];
    let lse: Vec<f32> = out.iter().map(|p| p.lse).collect();
    let d_log_prob = vec![-1.0 / rows as f32; rows];
    let head = transformer.head_range();
    let weight = View::new(&values[head.clone()], vocab_size, hidden_size);
    let mut d_hidden = Buffer::zeros(rows * hidden_size);
    let packed = transformer.head();
    log_prob_backward(cpu, packed, weight, hidden, targets, &lse, &d_log_prob, 1.0, &mut d_hidden, &mut gradient[head]);
    transformer.backward(cpu, values, &batch, &mut kv, &mut activations, &d_hidden, 0.0, &mut gradient);
    (loss, gradient)
}

#[derive(Serialize)]
struct GenerateResult {
    /// Tokens generated.
    ids: Vec<u32>,
    /// Their text.
    text: String,
}

impl Show for GenerateResult {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", self.text)
    }
}

fn generate(arguments: &Generate) -> Result<()> {
    let cpu = load::cpu()?;
    let checkpoint = load::open(&arguments.model.model)?;
    let tokenizer = checkpoint.tokenizer()?;
    let transformer = load::transformer(&cpu, &checkpoint, arguments.model.dtype.into())?;
    let mut decoder = TransformerDecoder::new(&cpu, &transformer);
    let pages = transformer.context().div_ceil(PAGE_POSITIONS);
    let mut engine = Engine::new(&decoder, Limits { sequences: 1, batch_tokens: 512, pages, queue: 1 });
    let request = Request {
        id: RequestId(0),
        prompt: tokenizer.encode(&arguments.prompt, true)?,
        sampling: Sampling::greedy(),
        limit: arguments.tokens,
        stop: tokenizer.eos.clone(),
        thought: None,
    };
    let outcomes = engine.generate(&mut decoder, vec![request])?;
    let ids: Vec<u32> = outcomes.iter().flat_map(|outcome| &outcome.tokens).map(|token| token.id).collect();
    let text = tokenizer.decode(&ids, false)?;
    print(&GenerateResult { ids, text }, arguments.json)
}

/// That a model can run these tokens.
pub fn check_tokens(tokens: &[u32], config: &Config, context: usize) -> Result<()> {
    if let Some(token) = tokens.iter().find(|&&token| token as usize >= config.vocab_size) {
        bail!("token {token} does not exist: the model's tokens are 0 to {}", config.vocab_size - 1);
    }
    if tokens.len() > context {
        bail!("{} tokens are more than the {context} that the model can run; give fewer", tokens.len());
    }
    Ok(())
}
