//! `minke serve`: the web app and the API, until Ctrl-C.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use minke_lab::policy::Pace;
use minke_train::budget;

use super::{DtypeArgument, KvArgument, SpeculateArguments};
use crate::serve;

#[derive(Args)]
#[command(after_help = "Examples:
  minke serve                                             for this machine; open the link that it prints
  minke serve --turn 10s                                  where runs take minutes, not hours
  minke serve --speculate llama-1b                        a small model guesses for all of its family
  minke serve --listen 0.0.0.0:7373 --cert c.pem --key k.pem   for others as well

The API is OpenAI's: base URL http://127.0.0.1:7373/v1, with a key from the account page. Models are those of
`minke models`, loaded when they are first asked for.")]
pub struct Serve {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value_t = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7373))]
    listen: SocketAddr,
    /// A certificate, and those that vouch for it (PEM)
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Serve other machines without TLS
    #[arg(long)]
    insecure: bool,
    /// How weights are kept in memory: in the bits that the file has them in, or all in one type
    #[arg(long, value_name = "stored|bf16|f32", default_value = "stored", hide_possible_values = true)]
    dtype: DtypeArgument,
    #[command(flatten)]
    kv: KvArgument,
    #[command(flatten)]
    speculate: SpeculateArguments,
    /// Gigabytes that models may take together; by default half of what the machine has
    #[arg(long, value_name = "GB", value_parser = gigabytes, allow_negative_numbers = true)]
    memory: Option<u64>,
    /// Whom the login link is for; by default you, as the system calls you
    #[arg(long, value_name = "NAME")]
    person: Option<String>,
    /// How many chips the lab shares out; by default one for each core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    chips: Option<u32>,
    /// How long a run keeps its chips at least; shorter suits shorter runs (90s, 2m)
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = turn)]
    turn: Pace,
    /// Print the address and the login link as a JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Serve) -> Result<()> {
    serve::run(&serve::Options {
        listen: arguments.listen,
        tls: arguments.cert.clone().zip(arguments.key.clone()),
        insecure: arguments.insecure,
        precision: arguments.dtype.into(),
        speculate: arguments.speculate.speculate.clone(),
        kv: arguments.kv.kv,
        memory: arguments.memory,
        person: arguments.person.clone(),
        chips: arguments.chips,
        pace: arguments.turn,
        json: arguments.json,
    })
}

/// A pace by its turn.
fn turn(text: &str) -> Result<Pace, String> {
    let ms = text.strip_suffix("ms").and_then(|ms| ms.parse().ok()).filter(|ms| (1..1000).contains(ms));
    let seconds = || budget::parse(text).map(|seconds| 1000 * seconds);
    let turn_ms = ms.map_or_else(seconds, Ok).map_err(|error| error.to_string().replace("budget", "turn"))?;
    Ok(Pace { turn_ms })
}

/// Bytes of a number of gigabytes.
fn gigabytes(text: &str) -> Result<u64, String> {
    match text.parse::<f64>() {
        Ok(gigabytes) if gigabytes > 0.0 && gigabytes < 1e9 => Ok((gigabytes * 1e9) as u64),
        _ => Err("give a number of gigabytes above 0".into()),
    }
}
