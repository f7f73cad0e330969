//! One table of a recipe, read key by key: every key is known, every number within its range, and what is wrong is
//! said in one sentence.

use std::ops::RangeInclusive;

use minke_model::error::quoted;
use minke_model::{Error, Result};
use toml::{Table, Value};

/// A table, and the name it goes by in sentences.
pub struct Section {
    name: String,
    table: Table,
    known: Vec<&'static str>,
}

impl Section {
    /// The table called `name`, which has no keys but the `known` ones.
    ///
    /// # Errors
    /// The key that is not known, and the nearest that is.
    pub fn new(name: impl Into<String>, table: Table, known: impl Into<Vec<&'static str>>) -> Result<Section> {
        let (name, known) = (name.into(), known.into());
        for key in table.keys() {
            if !known.contains(&key.as_str()) {
                return Err(Error::new(format!("{name} has an unknown key {}; {}", quoted(key), instead(key, &known))));
            }
        }
        Ok(Section { name, table, known })
    }

    /// A sentence about the section.
    pub fn error(&self, what: impl std::fmt::Display) -> Error {
        Error::new(format!("{}: {what}", self.name))
    }

    /// Whether the key is there.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The value of a required key.
    pub fn need<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| self.error(format!("{key} is missing")))
    }

    /// A whole number.
    pub fn whole(&self, key: &str, range: RangeInclusive<u32>) -> Result<Option<u32>> {
        self.read(key, |value| self.as_whole(key, value, &range))
    }

    /// A required whole number.
    pub fn need_whole(&self, key: &str, range: RangeInclusive<u32>) -> Result<u32> {
        self.need(key, self.whole(key, range)?)
    }

    /// A whole number, or a list of them that isn't empty.
    pub fn wholes(&self, key: &str, range: RangeInclusive<u32>) -> Result<Option<Vec<u32>>> {
        self.read(key, |value| match value {
            Value::Array(list) if list.is_empty() => Err(self.error(format!("{key} is empty"))),
            Value::Array(list) => list.iter().map(|value| self.as_whole(key, value, &range)).collect(),
            value => Ok(vec![self.as_whole(key, value, &range)?]),
        })
    }

    /// A number.
    pub fn number(&self, key: &str, range: RangeInclusive<f64>) -> Result<Option<f64>> {
        self.read(key, |value| {
            let number = match value {
                Value::Float(x) => *x,
                Value::Integer(n) => *n as f64,
                other => return Err(self.wrong(key, other, "a number")),
            };
            if range.contains(&number) {
                return Ok(number);
            }
            Err(self.wrong(key, value, &format!("from {} to {}", range.start(), range.end())))
        })
    }

    /// A required number.
    pub fn need_number(&self, key: &str, range: RangeInclusive<f64>) -> Result<f64> {
        self.need(key, self.number(key, range)?)
    }

    /// True or false.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.read(key, |value| value.as_bool().ok_or_else(|| self.wrong(key, value, "true or false")))
    }

    /// A piece of text.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        self.read(key, |value| value.as_str().ok_or_else(|| self.wrong(key, value, "text in quotes")))
    }

    /// A list of texts that isn't empty.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<String>>> {
        self.read(key, |value| {
            let one = |value: &Value| value.as_str().map(str::to_string);
            let list: Option<Vec<String>> = value.as_array().and_then(|list| list.iter().map(one).collect());
            list.filter(|list| !list.is_empty()).ok_or_else(|| self.wrong(key, value, "a list of texts in quotes"))
        })
    }

    /// One of a few words, each with what it means.
    pub fn word<T: Copy>(&self, key: &str, words: &[(&'static str, T)]) -> Result<Option<T>> {
        let Some(word) = self.text(key)? else { return Ok(None) };
        if let Some((_, meaning)) = words.iter().find(|(known, _)| *known == word) {
            return Ok(Some(*meaning));
        }
        let known: Vec<&str> = words.iter().map(|(known, _)| *known).collect();
        Err(self.error(format!("{key} is {}; it can be {}", quoted(word), known.join(", "))))
    }

    /// A table within; in sentences it goes by its key.
    pub fn table(&self, key: &str) -> Result<Option<Table>> {
        self.read(key, |value| match value {
            Value::Table(table) => Ok(table.clone()),
            other => Err(self.wrong(key, other, &format!("a table; write it as [{key}]"))),
        })
    }

    /// A required table within.
    pub fn need_table(&self, key: &str) -> Result<Table> {
        self.need(key, self.table(key)?)
    }

    /// A list of tables within.
    pub fn tables(&self, key: &str) -> Result<Vec<Table>> {
        let one = |value: &Value| value.as_table().cloned();
        let list = self.read(key, |value| {
            let tables = value.as_array().and_then(|list| list.iter().map(one).collect());
            tables.ok_or_else(|| self.wrong(key, value, &format!("a list of tables; write each as [[{key}]]")))
        })?;
        Ok(list.unwrap_or_default())
    }

    fn read<'a, T>(&'a self, key: &str, parse: impl FnOnce(&'a Value) -> Result<T>) -> Result<Option<T>> {
        debug_assert!(self.known.contains(&key), "{key} is read, but not among the keys of {}", self.name);
        self.table.get(key).map(parse).transpose()
    }

    fn as_whole(&self, key: &str, value: &Value, range: &RangeInclusive<u32>) -> Result<u32> {
        let Value::Integer(number) = value else { return Err(self.wrong(key, value, "a whole number")) };
        u32::try_from(*number)
            .ok()
            .filter(|n| range.contains(n))
            .ok_or_else(|| self.wrong(key, value, &format!("from {} to {}", range.start(), range.end())))
    }

    fn wrong(&self, key: &str, value: &Value, expected: &str) -> Error {
        let shown = match value {
            Value::String(text) => quoted(text),
            Value::Array(_) => "a list".into(),
            Value::Table(_) => "a table".into(),
            Value::Integer(n) => n.to_string(),
            Value::Float(x) => x.to_string(),
            Value::Boolean(flag) => flag.to_string(),
            Value::Datetime(_) => "a date".into(),
        };
        self.error(format!("{key} is {shown}, which is not {expected}"))
    }
}

/// What was probably meant by a key that is not among the known ones.
fn instead(key: &str, known: &[&str]) -> String {
    let near =
        known.iter().min_by_key(|k| distance(key, k)).filter(|k| distance(key, k) <= 1 + key.len().min(k.len()) / 3);
    match near {
        Some(near) => format!("did you mean {near}?"),
        None => format!("it can be {}", known.join(", ")),
    }
}

/// Letters to add, remove or replace to make `b` of `a` (Levenshtein, 1966).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().take(100).enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.chars().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.chars().count()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in [("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("steps", "stpes", 2)] {
            assert_eq!(distance(a, b), expected);
        }
        assert_eq!(instead("stpes", &["batch", "steps"]), "did you mean steps?");
        assert_eq!(instead("momentum", &["batch", "steps"]), "it can be batch, steps");
    }
}
