//! Reading a configuration's keys one at a time, each with a sentence for what it can't be.

use serde_json::{Map, Value};

use crate::error::{Error, Result, quoted};

/// The keys of a JSON object; a key whose value is null counts as missing, as in transformers.
#[derive(Clone, Copy)]
pub(super) struct Keys<'a> {
    object: &'a Map<String, Value>,
    /// Put before every key in sentences: the object's own key and a dot, or nothing.
    prefix: &'a str,
}

impl<'a> Keys<'a> {
    pub fn new(json: &'a Value) -> Result<Self> {
        match json {
            Value::Object(object) => Ok(Self { object, prefix: "" }),
            _ => Err(Error::new("the file is not a JSON object")),
        }
    }

    pub fn get(self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    /// The object under `key`, if there is one; `prefix` is `key` and a dot.
    pub fn object(self, key: &str, prefix: &'a str) -> Result<Option<Keys<'a>>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(Keys { object, prefix })),
            Some(other) => Err(self.wrong(key, other, "an object")),
        }
    }

    pub fn size(self, key: &str) -> Result<usize> {
        self.optional_size(key)?.ok_or_else(|| self.missing(key))
    }

    pub fn size_or(self, key: &str, default: usize) -> Result<usize> {
        Ok(self.optional_size(key)?.unwrap_or(default))
    }

    pub fn optional_size(self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let size = value.as_u64().and_then(|n| usize::try_from(n).ok());
        size.map(Some).ok_or_else(|| self.wrong(key, value, "a whole number"))
    }

    pub fn number(self, key: &str) -> Result<f64> {
        self.optional_number(key)?.ok_or_else(|| self.missing(key))
    }

    pub fn number_or(self, key: &str, default: f64) -> Result<f64> {
        Ok(self.optional_number(key)?.unwrap_or(default))
    }

    pub fn optional_number(self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| self.wrong(key, value, "a number"))
    }

    pub fn flag_or(self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.wrong(key, other, "true or false")),
        }
    }

    pub fn word(self, key: &str) -> Result<Option<&'a str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(word)) => Ok(Some(word)),
            Some(other) => Err(self.wrong(key, other, "a string")),
        }
    }

    /// Refuses any value of `key` but `expected` (or none).
    pub fn only(self, key: &str, expected: &Value) -> Result<()> {
        match self.get(key) {
            Some(value) if value != expected => Err(Error::new(format!(
                "{}{key} is {}, but minke only runs models where it is {expected}",
                self.prefix,
                shown(value)
            ))),
            _ => Ok(()),
        }
    }

    fn missing(self, key: &str) -> Error {
        Error::new(format!("{}{key} is missing", self.prefix))
    }

    fn wrong(self, key: &str, value: &Value, expected: &str) -> Error {
        Error::new(format!("{}{key} is {}, which is not {expected}", self.prefix, shown(value)))
    }
}

/// A value for a sentence: its kind alone when it could be long.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
        other => other.to_string(),
    }
}
