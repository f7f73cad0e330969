//! minke: an open lab for reasoning models on scarce chips, in one binary.

mod cli;
mod fetch;
mod interrupt;
mod load;
mod machine;
mod output;
mod serve;
mod session;
mod store;
mod talker;
mod terminal;
mod think;
mod units;
mod view;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Chat(arguments) => cli::chat::run(&arguments),
        Command::Train(arguments) => cli::train::run(&arguments),
        Command::Models(arguments) => cli::models::run(&arguments),
        Command::Pull(arguments) => cli::pull::run(&arguments),
        Command::Serve(arguments) => cli::serve::run(&arguments),
        Command::Chips(arguments) => cli::chips::run(&arguments),
        Command::Bench(arguments) => cli::bench::run(&arguments),
        Command::Arena(command) => cli::arena::run(&command),
        Command::Debug(command) => cli::debug::run(&command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            // With nobody listening on stderr, the exit code still tells.
            let _ = writeln!(io::stderr(), "minke: {error:#}");
            ExitCode::FAILURE
        }
    }
}
