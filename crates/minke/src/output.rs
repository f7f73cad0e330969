//! Results on stdout: a command returns data, and this prints it for people or for programs.

use std::io::{self, Write};

use anyhow::Result;
use serde::Serialize;

/// A result that can be shown: as JSON through serde, or in words.
pub trait Show: Serialize {
    /// Writes it for people.
    fn show(&self, out: &mut dyn Write) -> io::Result<()>;
}

/// Prints a result on stdout: with `json` one object on one line, otherwise in words.
pub fn print(result: &impl Show, json: bool) -> Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    if json {
        // A broken pipe must stay recognisable as an io error.
        serde_json::to_writer(&mut out, result).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        result.show(&mut out)?;
    }
    Ok(out.flush()?)
}
