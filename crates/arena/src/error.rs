//! One error type: a plain sentence for the person whose votes or files these are.

use std::fmt;

/// What went wrong, in one sentence with, where there is one, the way out.
///
/// Nobody branches on the kind of mistake, so there are no variants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(String);

/// A result whose error is a sentence.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error that says `sentence`.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }

    /// What serde says of one line of JSON, without its own count of lines: the caller knows which line it was.
    pub(crate) fn of_json(error: &serde_json::Error) -> Self {
        // It quotes names from the file, as long as they are.
        const SHOWN: usize = 150;
        let text = error.to_string();
        let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
        let shown: String = what.chars().take(SHOWN).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        let rest = if shown.chars().count() < what.chars().count() { "…" } else { "" };
        Self(format!("{shown}{rest} (column {})", error.column()))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Quotes text from a file for a sentence: control characters escaped, and cut after 40 characters.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN: usize = 40;
    let shown: String = text.chars().take(SHOWN).collect();
    let rest = if shown.len() < text.len() { "…" } else { "" };
    format!("\"{}{rest}\"", shown.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Empty {}

    #[test]
    fn sentences_name_columns_and_quote_briefly() {
        let error = serde_json::from_str::<Vec<u8>>("[1, 2").unwrap_err();
        assert_eq!(Error::of_json(&error).to_string(), "EOF while parsing a list (column 5)");
        let field = format!("{{\"a\\n{}\":1}}", "x".repeat(1000));
        let error = Error::of_json(&serde_json::from_str::<Empty>(&field).unwrap_err()).to_string();
        assert!(error.starts_with("unknown field `a\u{fffd}xx") && error.contains("xx… (column "), "{error}");
        assert_eq!(quoted("a\n\u{1b}[2J"), "\"a\\n\\u{1b}[2J\"");
        assert_eq!(quoted(&"é".repeat(200)).chars().count(), 43);
    }
}
