//! What can go wrong outside of the lab's logic, in one sentence.

use std::fmt;

/// One sentence: what is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(String);

impl Error {
    /// That sentence.
    pub fn new(sentence: impl Into<String>) -> Error {
        Error(sentence.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;
