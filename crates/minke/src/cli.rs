//! What may stand on the command line; each subcommand has a file of its own.

pub mod arena;
pub mod attempt;
pub mod bench;
pub mod chat;
pub mod chips;
pub mod confine;
pub mod debug;
pub mod eval;
pub mod ideas;
pub mod lab;
pub mod models;
pub mod pull;
pub mod quantize;
pub mod replay;
pub mod runs;
pub mod serve;
pub mod supervise;
pub mod train;

use clap::{Args, Parser, Subcommand, ValueEnum};
use minke_kernels::Dtype;
use minke_kernels::kv::KvDtype;
use minke_model::Precision;

use crate::speculate::Speculate;

/// An open lab for reasoning models on scarce chips.
#[derive(Parser)]
#[command(version, about, disable_help_subcommand = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Talk with a model, and see its thoughts
    Chat(chat::Chat),
    /// Teach a model to reason, from a recipe to a report
    Train(train::Train),
    /// Sample a rollout of a run again: thoughts, reward, advantage
    Replay(replay::Replay),
    /// The web app and an OpenAI-compatible API
    Serve(serve::Serve),
    /// List the models in the store
    Models(models::Models),
    /// Bring a model into the store
    Pull(pull::Pull),
    /// Write a model in fewer bits, as a GGUF file
    Quantize(quantize::Quantize),
    /// Measure this machine: cores, instruction sets, bandwidth, arithmetic
    Chips(chips::Chips),
    /// How much of a task a model gets right, or how well it predicts a text
    Eval(eval::Eval),
    /// Measure how fast a model reads and writes here
    Bench(bench::Bench),
    /// Votes on which model is better, and the leaderboard they make
    #[command(subcommand)]
    Arena(arena::Arena),
    /// Run something for an idea: at once, without anybody's approval
    Try(attempt::Try),
    /// List the ideas
    #[command(after_help = "Example:\n  minke ideas")]
    Ideas(ideas::List),
    /// Show an idea and its runs
    Idea(ideas::One),
    /// Ask to join an idea
    Join(ideas::Join),
    /// Ask somebody to join an idea of yours
    Invite(ideas::Invite),
    /// Say yes to a question
    #[command(after_help = "Example:\n  minke accept 3")]
    Accept(ideas::Answer),
    /// Say no to a question; no reason is asked for
    #[command(after_help = "Example:\n  minke decline 3")]
    Decline(ideas::Answer),
    /// Take back a question of yours
    #[command(after_help = "Example:\n  minke withdraw 3")]
    Withdraw(ideas::Answer),
    /// Be an author of an idea no longer
    Leave(ideas::Leave),
    /// Put an idea of yours aside, or take it up again
    Park(ideas::Park),
    /// What was asked of you, and what you asked
    #[command(after_help = "Example:\n  minke inbox")]
    Inbox(ideas::List),
    /// List the runs
    #[command(after_help = "Example:\n  minke runs")]
    Runs(ideas::List),
    /// Show a run
    #[command(after_help = "Example:\n  minke run 12")]
    Run(runs::One),
    /// What a run has printed
    Logs(runs::Logs),
    /// Why a run waits, was moved or ended
    #[command(after_help = "Example:\n  minke why 12")]
    Why(runs::One),
    /// End a run for good; it is asked to save first
    Stop(runs::Stop),
    /// What the lab is worth, and what its policy would make of other days
    #[command(subcommand)]
    Lab(lab::Lab),
    /// Numbers of a model, to compare with other implementations
    #[command(subcommand)]
    Debug(debug::Debug),
    /// Stand over one stint of a run; the lab starts it
    #[command(hide = true)]
    Supervise(supervise::Supervise),
    /// Stand over one command of a run, or become it; its supervisor starts it
    #[command(hide = true)]
    Confine(confine::Confine),
}

/// Which model, and how its weights are kept.
#[derive(Args)]
pub struct ModelArguments {
    /// A model: a path (.gguf file, Hugging Face directory or run), or a name in the store
    pub model: String,
    /// How weights are kept in memory: in the bits that the file has them in, or all in one type
    #[arg(long, value_name = "stored|bf16|f32", default_value = "stored", hide_possible_values = true)]
    pub dtype: DtypeArgument,
}

/// What guesses the model's tokens.
#[derive(Args)]
pub struct SpeculateArguments {
    /// Guess tokens and check several at once: the same tokens, sooner. `lookup` guesses what followed before in the same
    /// text; `mtp`, the model's own block for multi-token prediction (DeepSeek-V3's), and a smaller model of the same vocabulary
    /// guess more. Where it does not pay it pauses by itself
    #[arg(long, value_name = "off|lookup|mtp|MODEL", default_value = "lookup")]
    pub speculate: Speculate,
}

/// How keys and values are kept.
#[derive(Args, Clone, Copy)]
pub struct KvArgument {
    /// How keys and values are kept in memory: bf16 is half of f32, int8 a quarter; less to read for each token
    #[arg(long, value_name = "f32|bf16|int8", default_value = "bf16")]
    pub kv: KvDtype,
}

/// A [`Precision`] on the command line.
#[derive(Clone, Copy, ValueEnum)]
pub enum DtypeArgument {
    Stored,
    Bf16,
    F32,
}

impl From<DtypeArgument> for Precision {
    fn from(dtype: DtypeArgument) -> Precision {
        match dtype {
            DtypeArgument::Stored => Precision::Stored,
            DtypeArgument::Bf16 => Precision::In(Dtype::Bf16),
            DtypeArgument::F32 => Precision::In(Dtype::F32),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn verify_cli() {
        super::Cli::command().debug_assert();
    }
}
