//! minke: an open lab for reasoning models on scarce chips, in one binary.

mod cli;
mod client;
mod contract;
mod fetch;
mod frontier;
mod hub;
mod interrupt;
mod load;
mod machine;
mod output;
mod probe;
mod remote;
mod roofline;
mod serve;
mod session;
mod speculate;
mod store;
mod talker;
mod terminal;
mod think;
mod told;
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
        Command::Replay(arguments) => cli::replay::run(&arguments),
        Command::Models(arguments) => cli::models::run(&arguments),
        Command::Pull(arguments) => cli::pull::run(&arguments),
        Command::Quantize(arguments) => cli::quantize::run(&arguments),
        Command::Serve(arguments) => cli::serve::run(&arguments),
        Command::Chips(arguments) => cli::chips::run(&arguments),
        Command::Eval(arguments) => cli::eval::run(&arguments),
        Command::Bench(arguments) => cli::bench::run(&arguments),
        Command::Arena(command) => cli::arena::run(&command),
        Command::Try(arguments) => cli::attempt::run(&arguments),
        Command::Ideas(arguments) => cli::ideas::list(&arguments),
        Command::Idea(arguments) => cli::ideas::one(&arguments),
        Command::Join(arguments) => cli::ideas::join(&arguments),
        Command::Invite(arguments) => cli::ideas::invite(&arguments),
        Command::Accept(arguments) => cli::ideas::answer(&arguments, true),
        Command::Decline(arguments) => cli::ideas::answer(&arguments, false),
        Command::Withdraw(arguments) => cli::ideas::withdraw(&arguments),
        Command::Leave(arguments) => cli::ideas::leave(&arguments),
        Command::Park(arguments) => cli::ideas::park(&arguments),
        Command::Inbox(arguments) => cli::ideas::inbox(&arguments),
        Command::Runs(arguments) => cli::runs::list(&arguments),
        Command::Run(arguments) => cli::runs::one(&arguments),
        Command::Logs(arguments) => cli::runs::logs(&arguments),
        Command::Why(arguments) => cli::runs::why(&arguments),
        Command::Stop(arguments) => cli::runs::stop(&arguments),
        Command::Lab(command) => cli::lab::run(&command),
        Command::Debug(command) => cli::debug::run(&command),
        Command::Supervise(arguments) => cli::supervise::run(&arguments),
        Command::Confine(arguments) => cli::confine::run(&arguments),
    };
    load::settle();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            // With nobody listening on stderr, the exit code still tells.
            let _ = writeln!(io::stderr(), "minke: {error:#}");
            match error.downcast_ref::<cli::train::Stopped>() {
                Some(_) => ExitCode::from(minke_lab::SAVED as u8),
                None => ExitCode::FAILURE,
            }
        }
    }
}
