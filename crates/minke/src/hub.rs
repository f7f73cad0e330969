//! The Hugging Face Hub, or a mirror of it: what `hf:ORG/REPO[:FILE]` stands for, and where its files are.

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::{fetch, units};

const ENDPOINT: &str = "https://huggingface.co";

/// Pages of a listing, a thousand files each, after which a repository is no model.
const PAGES: usize = 50;

/// What a Hugging Face directory is read from, besides shards of weights.
const FILES: [&str; 7] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "model.safetensors",
    "model.safetensors.index.json",
];

/// A repository, or one file of it.
#[derive(Debug, PartialEq)]
pub struct Reference<'a> {
    /// `ORG/REPO`.
    pub repository: &'a str,
    pub file: Option<&'a str>,
}

impl<'a> Reference<'a> {
    /// What stands behind `hf:`.
    pub fn new(text: &'a str) -> Result<Reference<'a>> {
        let (repository, file) =
            text.split_once(':').map_or((text, None), |(repository, file)| (repository, Some(file)));
        let plain = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric())
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        if !repository.split_once('/').is_some_and(|(org, repo)| plain(org) && plain(repo)) {
            bail!("hf:{text} is no repository; write hf:ORG/REPO, or hf:ORG/REPO:FILE.gguf for one of its files");
        }
        if let Some(file) = file
            && (!file.ends_with(".gguf") || file.split('/').any(|part| matches!(part, "" | "." | "..")))
        {
            bail!("{file:?} is not the name of a .gguf file; write hf:{repository} for the whole repository");
        }
        Ok(Reference { repository, file })
    }

    /// The name that a file or directory of it goes by.
    pub fn name(&self) -> &'a str {
        let whole = self.file.unwrap_or(self.repository);
        whole.rsplit('/').next().unwrap_or(whole)
    }
}

/// A file of a repository.
#[derive(Debug)]
pub struct File {
    pub path: String,
    pub size: u64,
    /// Known of large files.
    pub sha256: Option<String>,
}

/// A place that repositories are fetched from.
pub struct Hub {
    endpoint: String,
    token: Option<String>,
}

impl Hub {
    /// The hub that `HF_ENDPOINT` names, asked with the token in `HF_TOKEN`.
    pub fn from_environment() -> Result<Hub> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.into());
        let (scheme, host) = endpoint.split_once("://").unwrap_or_default();
        if !matches!(scheme, "http" | "https") || host.is_empty() {
            bail!("HF_ENDPOINT={endpoint} is not an address; give one that begins with https://");
        }
        let token = variable("HF_TOKEN");
        let host = host.split(['/', ':']).next().unwrap_or_default();
        if token.is_some() && scheme == "http" && !matches!(host, "localhost" | "127.0.0.1") {
            bail!("over http:// anybody on the way could read HF_TOKEN; unset it, or give HF_ENDPOINT with https://");
        }
        Ok(Hub { endpoint: endpoint.trim_end_matches('/').into(), token })
    }

    /// The token to ask with.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Where a file is.
    pub fn url(&self, repository: &str, file: &File) -> String {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
        let path: String =
            file.path.bytes().map(|b| if plain(b) { char::from(b).into() } else { format!("%{b:02X}") }).collect();
        format!("{}/{repository}/resolve/main/{path}", self.endpoint)
    }

    /// The files to fetch: the one that is named, or those that a Hugging Face directory is read from.
    pub fn files(&self, reference: &Reference<'_>) -> Result<Vec<File>> {
        let repository = reference.repository;
        let mut files = self.list(repository)?;
        let ggufs: Vec<String> = (files.iter())
            .filter(|file| file.path.ends_with(".gguf"))
            .map(|file| format!("{} ({})", file.path, units::bytes(file.size)))
            .collect();
        if let Some(name) = reference.file {
            files.retain(|file| file.path == name);
            if files.is_empty() && ggufs.is_empty() {
                bail!("{repository} has no file {name}, nor any other that ends with .gguf");
            }
            if files.is_empty() {
                bail!("{repository} has no file {name}; it has {}", ggufs.join(", "));
            }
            return Ok(files);
        }
        files.retain(|file| {
            let shard =
                file.path.starts_with("model-") && file.path.ends_with(".safetensors") && !file.path.contains('/');
            FILES.contains(&file.path.as_str()) || shard
        });
        let has = |end: &str| files.iter().any(|file| file.path.ends_with(end));
        if has("config.json") && has(".safetensors") {
            // One file of weights goes before shards, as in reading them.
            if has("model.safetensors") {
                files.retain(|file| !file.path.starts_with("model-") && !file.path.ends_with(".index.json"));
            }
            return Ok(files);
        }
        if ggufs.is_empty() {
            bail!("{repository} has neither config.json with model.safetensors, or its shards, nor a .gguf file");
        }
        bail!(
            "{repository} has GGUF files only; add the one you want, as in hf:{repository}:FILE: {}",
            ggufs.join(", ")
        );
    }

    /// All files of a repository.
    fn list(&self, repository: &str) -> Result<Vec<File>> {
        #[derive(Deserialize)]
        struct Entry {
            path: String,
            #[serde(default)]
            size: u64,
            #[serde(rename = "type")]
            kind: String,
            lfs: Option<Lfs>,
        }
        #[derive(Deserialize)]
        struct Lfs {
            oid: String,
        }
        let mut files = Vec::new();
        let mut next = Some(format!("{}/api/models/{repository}/tree/main?recursive=true", self.endpoint));
        for _ in 0..PAGES {
            let Some(url) = next else { return Ok(files) };
            let page = fetch::page(&url, self.token())?;
            match (page.status, &self.token) {
                (200, _) => {}
                (401 | 403, None) => bail!(
                    "{repository} is not there, or not for everybody; check the name, or set HF_TOKEN to a token that may \
                     read it"
                ),
                (401 | 403, Some(_)) => bail!(
                    "HF_TOKEN may not read {repository}; check the name, and whether its page asks you to agree to something"
                ),
                (404, _) => bail!("there is no model {repository} at {}; check the name", self.endpoint),
                (status, _) => bail!("{url} gets the answer {status}; try again later"),
            }
            let entries: Vec<Entry> = serde_json::from_slice(&page.body)
                .with_context(|| format!("{url} does not answer as the Hugging Face Hub does; check HF_ENDPOINT"))?;
            files.extend(entries.into_iter().filter(|entry| entry.kind == "file").map(|entry| File {
                path: entry.path,
                size: entry.size,
                sha256: entry.lfs.map(|lfs| lfs.oid.to_ascii_lowercase()),
            }));
            // The token is for this endpoint only.
            next = page.next.filter(|next| next.starts_with(&format!("{}/", self.endpoint)));
        }
        bail!("{repository} has more files than a model has; give the https:// address of the one you want");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_repositories_and_gguf_files() {
        for (text, repository, file, name) in [
            ("org/repo", "org/repo", None, "repo"),
            ("a.b/c_d-e", "a.b/c_d-e", None, "c_d-e"),
            ("org/repo:m.Q4_0.gguf", "org/repo", Some("m.Q4_0.gguf"), "m.Q4_0.gguf"),
            ("org/repo:sub/m.gguf", "org/repo", Some("sub/m.gguf"), "m.gguf"),
        ] {
            let reference = Reference::new(text).unwrap();
            assert_eq!((&reference, reference.name()), (&Reference { repository, file }, name));
        }
        for text in
            ["", "org", "org/", "/repo", "a/b/c", "../x", "a/..", "o rg/r", "a/b?c", "a/b:", "a/b:c", "a/b:../c.gguf"]
        {
            assert!(Reference::new(text).is_err(), "{text}");
        }
    }
}
