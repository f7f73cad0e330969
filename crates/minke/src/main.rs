//! minke: an open lab for reasoning models on scarce chips, in one binary.

mod cli;
mod load;
mod output;
mod store;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Debug(arguments) => cli::debug::run(arguments),
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
