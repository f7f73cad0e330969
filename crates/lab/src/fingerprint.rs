//! What a run would compute, from its command and the files that it is given.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::run::Fingerprint;
use crate::tree::hexadecimal;

/// Settings that change nothing about what is computed.
const NAMES: [&str; 8] = ["seed", "name", "out", "output", "json", "run", "log", "title"];

/// Bytes of a settings file that are read.
const SETTINGS_MAX: usize = 1 << 20;

impl Fingerprint {
    /// Of a command and the files of its code tree, by their paths in it (with `/`).
    ///
    /// Arguments that name a TOML or JSON file of the tree count by what is in the file. `--key value`, `--key=value` and
    /// `key=value` are settings; so are other arguments, by their place.
    pub fn of(command: &[String], files: &BTreeMap<String, Vec<u8>>) -> Fingerprint {
        let mut print = Fingerprint::default();
        let mut read: Vec<&String> = Vec::new();
        let mut arguments = command.iter().skip(1).peekable();
        let mut place = 0;
        while let Some(argument) = arguments.next() {
            let bare = argument.trim_start_matches('-');
            let (key, value) = match (argument.starts_with("--"), argument.split_once('=')) {
                (_, Some((key, value))) => (key.trim_start_matches('-').to_string(), value.to_string()),
                (true, None) => match arguments.next_if(|next| !next.starts_with("--")) {
                    Some(value) => (bare.to_string(), value.clone()),
                    None => (bare.to_string(), "true".to_string()),
                },
                (false, None) => {
                    place += 1;
                    (format!("argument.{place}"), argument.clone())
                }
            };
            match files.get_key_value(value.trim_start_matches("./")) {
                Some((path, bytes)) if let Some(settings) = settings(path, bytes) => {
                    read.push(path);
                    settings.into_iter().for_each(|(key, value)| print.set(key, value));
                }
                _ => print.set(key, value),
            }
        }
        print.set("program".into(), command.first().cloned().unwrap_or_default());
        let mut hash = Sha256::new();
        // What was read as settings is compared as settings, not as code.
        for (path, bytes) in files.iter().filter(|(path, _)| !read.contains(path)) {
            hash.update((path.len() as u64).to_le_bytes());
            hash.update(path.as_bytes());
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
        print.code = hexadecimal(hash);
        print
    }

    fn set(&mut self, key: String, value: String) {
        let last = key.rsplit('.').next().unwrap_or_default();
        if last == "seed" {
            self.seed = value.parse().ok();
        } else if !NAMES.contains(&last) {
            self.settings.insert(key, canonical(&value));
        }
    }
}

/// `1e-3` and `0.001` are one value.
fn canonical(value: &str) -> String {
    match value.parse::<f64>() {
        Ok(number) if number.is_finite() => number.to_string(),
        _ => value.to_string(),
    }
}

/// The values in a TOML or JSON file, by their path in it; `None` if it is neither.
fn settings(path: &str, bytes: &[u8]) -> Option<Vec<(String, String)>> {
    if bytes.len() > SETTINGS_MAX {
        return None;
    }
    let value: serde_json::Value = match path.rsplit('.').next()? {
        "toml" => toml::from_str(str::from_utf8(bytes).ok()?).ok()?,
        "json" => serde_json::from_slice(bytes).ok()?,
        _ => return None,
    };
    let mut found = Vec::new();
    flatten(String::new(), &value, &mut found);
    Some(found)
}

fn flatten(path: String, value: &serde_json::Value, found: &mut Vec<(String, String)>) {
    let under = |key: &str| if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
    match value {
        serde_json::Value::Object(map) => map.iter().for_each(|(key, value)| flatten(under(key), value, found)),
        serde_json::Value::Array(list) => {
            list.iter().enumerate().for_each(|(i, value)| flatten(under(&i.to_string()), value, found));
        }
        serde_json::Value::String(text) => found.push((path, text.clone())),
        other => found.push((path, other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(command: &str, files: &[(&str, &str)]) -> Fingerprint {
        let command: Vec<String> = command.split(' ').map(str::to_string).collect();
        Fingerprint::of(&command, &files.iter().map(|(p, t)| (p.to_string(), t.as_bytes().to_vec())).collect())
    }

    #[test]
    fn what_is_computed_counts_and_what_it_is_called_does_not() {
        let recipe = ("a.toml", "seed = 3\n[[stage]]\nlr = 1e-3\nname = \"x\"\n");
        let print = of("minke train a.toml", &[recipe, ("x.py", "1")]);
        assert_eq!(print.seed, Some(3));
        let expected = [("argument.1", "train"), ("program", "minke"), ("stage.0.lr", "0.001")];
        assert_eq!(print.settings, expected.map(|(k, v)| (k.to_string(), v.to_string())).into());
        // The same settings in another file, spelled otherwise.
        let other = of("minke train b.toml", &[("b.toml", "[[stage]]\nlr = 0.0010\n"), ("x.py", "1")]);
        assert_eq!((&other.settings, &other.code), (&print.settings, &print.code));
        assert_ne!(of("minke train a.toml", &[recipe, ("x.py", "2")]).code, print.code);
        // Where one file ends and the next begins matters.
        assert_ne!(of("x", &[("a", "bc")]).code, of("x", &[("ab", "c")]).code);
        let print = of("python train.py --lr=3e-4 --steps 10 --fast --seed 7 width=4", &[("train.py", "")]);
        let expected = [
            ("argument.1", "train.py"),
            ("fast", "true"),
            ("lr", "0.0003"),
            ("program", "python"),
            ("steps", "10"),
            ("width", "4"),
        ];
        assert_eq!(print.settings, expected.map(|(k, v)| (k.to_string(), v.to_string())).into());
        assert_eq!(print.seed, Some(7));
    }

    #[test]
    fn broken_files_are_code() {
        let print = of("x a.toml", &[("a.toml", "= [")]);
        assert_eq!(print.settings["argument.1"], "a.toml");
        assert_ne!(print.code, of("x a.toml", &[("a.toml", "= (")]).code);
    }
}
