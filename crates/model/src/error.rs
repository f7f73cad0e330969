//! One error type for everything that comes from outside: a plain sentence for the person who gave the file.

use std::fmt;

/// What went wrong, in one sentence that names the file's tensor or key and, where there is one, the way out.
///
/// Nobody branches on what kind of mistake a file has, so there are no variants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(String);

/// A result whose error is a sentence.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error that says `sentence`.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }

    /// The sentence that this one is the rest of: `subject` before it.
    pub(crate) fn about(self, subject: impl fmt::Display) -> Self {
        Self(format!("{subject} {}", self.0))
    }

    /// The same sentence, with the place (usually a file's name) before it.
    pub fn at(self, place: impl fmt::Display) -> Self {
        Self(format!("{place}: {}", self.0))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Quotes text from a file for a sentence: control characters escaped, and cut after 80 characters.
pub fn quoted(text: &str) -> String {
    const SHOWN: usize = 80;
    let shown: String = text.chars().take(SHOWN).collect();
    let rest = if shown.len() < text.len() { "…" } else { "" };
    format!("\"{}{rest}\"", shown.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_first_and_quotes_are_short_and_clean() {
        let error = Error::new("hidden_size is missing").at("config.json");
        assert_eq!(error.to_string(), "config.json: hidden_size is missing");
        assert_eq!(quoted("a\n\u{1b}[2J"), "\"a\\n\\u{1b}[2J\"");
        assert_eq!(quoted(&"é".repeat(200)).chars().count(), 83);
    }
}
