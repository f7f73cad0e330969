//! `minke pull`: models into the store, whole or not at all, from a path, from a server that misbehaves, and from a mirror of the
//! Hugging Face Hub.

use std::fs;

use sha2::{Digest, Sha256};

use crate::server::{Served, Server};
use crate::{Place, repository, said};

const TAG: &str = "\"one\"";

fn model() -> Vec<u8> {
    fs::read(repository().join("golden/gguf/llama-chat.gguf")).unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A server of a model, and the model.
fn serve(change: impl FnOnce(&mut Served)) -> (Server, Vec<u8>) {
    let bytes = model();
    let mut served = Served { bytes: bytes.clone(), tag: TAG, ..Served::default() };
    change(&mut served);
    (Server::new(served), bytes)
}

/// Runs a pull that must fail, and returns why.
fn refused(place: &Place, arguments: &[&str]) -> String {
    let output = place.minke(&[&["pull"], arguments].concat()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", said(&output));
    said(&output)
}

/// Names in the store, half-downloaded ones included.
fn stored(place: &Place) -> Vec<String> {
    let entries = fs::read_dir(place.path("home/models")).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_path_is_copied() {
    let place = Place::new();
    let file = repository().join("golden/gguf/llama-chat.gguf");
    let pulled = place.json(&["pull", file.to_str().unwrap()]);
    assert_eq!((pulled["name"].as_str(), pulled["family"].as_str()), (Some("llama-chat"), Some("llama")));
    assert_eq!(place.read("home/models/llama-chat.gguf"), model());

    let directory = repository().join("golden/models/llama-chat");
    place.run(&["pull", directory.to_str().unwrap(), "--name", "mine"]);
    for name in ["config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"] {
        assert_eq!(place.read(&format!("home/models/mine/{name}")), fs::read(directory.join(name)).unwrap());
    }
    assert_eq!(stored(&place), ["llama-chat.gguf", "mine"]);
    let listed = place.json(&["models"]);
    let names: Vec<&str> = listed["models"].as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["llama-chat", "mine"]);
    assert!(refused(&place, &[file.to_str().unwrap()]).contains("there is a model llama-chat in the store already"));
}

#[test]
fn a_download_that_breaks_off_goes_on() {
    let (server, bytes) = serve(|served| served.break_after = Some(served.bytes.len() / 2));
    let (place, sha256, half) = (Place::new(), sha256(&bytes), bytes.len() / 2);
    let url = server.url("a.gguf?download=true");
    let pull = [&url, "--sha256", &sha256];
    for _ in 0..2 {
        let why = refused(&place, &pull);
        assert!(why.contains("run the same command again to go on from there"), "{why}");
        server.change(|served| served.break_after = Some(served.bytes.len() / 4));
    }
    assert_eq!(stored(&place), [".a.gguf.partial", ".a.gguf.partial.origin"]);
    server.change(|served| served.break_after = None);
    place.run(&[&["pull"], &pull[..]].concat());
    assert!(place.read("home/models/a.gguf") == bytes);
    assert_eq!(stored(&place), ["a.gguf"]);
    let path = "/a.gguf?download=true";
    let three_quarters = half + bytes.len() / 4;
    assert_eq!(
        server.asked(),
        [path.to_string(), format!("{path} from {half}"), format!("{path} from {three_quarters}")]
    );
    // Once it is there, the same command finds it as it should be.
    place.run(&[&["pull"], &pull[..]].concat());
    assert_eq!(server.asked().len(), 0);
}

#[test]
fn another_version_is_not_joined_to_the_first() {
    for tag in ["\"two\"", ""] {
        let (server, bytes) = serve(|served| {
            (served.bytes[100], served.tag) = (served.bytes[100] ^ 1, if tag.is_empty() { "" } else { TAG });
            served.break_after = Some(1000);
        });
        let place = Place::new();
        let (url, sha256) = (server.url("a.gguf"), sha256(&bytes));
        refused(&place, &[&url, "--sha256", &sha256]);
        server.change(|served| {
            *served = Served { bytes: bytes.clone(), tag, ..Served::default() };
        });
        place.run(&["pull", &url, "--sha256", &sha256]);
        assert!(place.read("home/models/a.gguf") == bytes);
    }
}

#[test]
fn a_file_that_became_shorter_is_fetched_anew() {
    let (server, bytes) = serve(|served| {
        served.bytes.extend(vec![0; 1000]);
        served.break_after = Some(served.bytes.len() - 10);
    });
    let place = Place::new();
    let (url, sha256) = (server.url("a.gguf"), sha256(&bytes));
    refused(&place, &[&url, "--sha256", &sha256]);
    server.change(|served| (served.bytes, served.break_after) = (bytes.clone(), None));
    let why = refused(&place, &[&url, "--sha256", &sha256]);
    assert!(why.contains("the file has changed on the server; run the same command again"), "{why}");
    place.run(&["pull", &url, "--sha256", &sha256]);
    assert!(place.read("home/models/a.gguf") == bytes);
}

#[test]
fn a_whole_partial_file_is_not_fetched_again() {
    let (server, bytes) = serve(|_| ());
    let place = Place::new();
    let (url, sha256) = (server.url("a.gguf"), sha256(&bytes));
    // As a crash between the last byte and the new name leaves it.
    place.write("home/models/.a.gguf.partial", &bytes);
    let origin = serde_json::json!({ "url": url, "version": TAG }).to_string();
    place.write("home/models/.a.gguf.partial.origin", origin);
    place.run(&["pull", &url, "--sha256", &sha256]);
    assert_eq!(server.asked(), [format!("/a.gguf from {}", bytes.len())]);
    assert!(place.read("home/models/a.gguf") == bytes);
    assert_eq!(stored(&place), ["a.gguf"]);
}

#[test]
fn what_is_not_wanted_does_not_stay() {
    let (server, bytes) = serve(|_| ());
    let (place, url) = (Place::new(), server.url("a.gguf"));
    let why = refused(&place, &[&url, "--sha256", &"0".repeat(64)]);
    assert!(why.contains("this is another file"), "{why}");
    assert_eq!(stored(&place).len(), 0);

    let page = b"<html>Sign in to download</html>".to_vec();
    server.change(|served| served.bytes = page.clone());
    let why = refused(&place, &[&url, "--sha256", &sha256(&page)]);
    assert!(why.contains("this can't be used, so the store stays as it was") && why.contains("not GGUF"), "{why}");
    assert_eq!(stored(&place).len(), 0);

    for status in [404, 403, 500] {
        server.change(|served| served.status = Some(status));
        let why = refused(&place, &[&url, "--sha256", &sha256(&bytes)]);
        assert!(why.contains(&format!("gets the answer {status}")), "{why}");
    }
}

#[test]
fn redirects_are_followed() {
    let (server, bytes) = serve(|served| {
        served.redirect_to = Some("/elsewhere");
        served.break_after = Some(served.bytes.len() / 2);
    });
    let place = Place::new();
    let (url, sha256) = (server.url("a.gguf"), sha256(&bytes));
    refused(&place, &[&url, "--sha256", &sha256]);
    server.change(|served| served.break_after = None);
    place.run(&["pull", &url, "--sha256", &sha256]);
    assert!(place.read("home/models/a.gguf") == bytes);
    assert_eq!(server.asked().last(), Some(&format!("/elsewhere from {}", bytes.len() / 2)));
}

const TREE: &str = "/api/models/org/repo/tree/main?recursive=true";

/// A mirror with one repository: paths and bytes; those of weights have their digests in the listing.
fn mirror(files: &[(&'static str, Vec<u8>)]) -> Server {
    let entries = files.iter().map(|(url, bytes)| {
        let path = url.strip_prefix("/org/repo/resolve/main/").unwrap();
        let mut entry = serde_json::json!({ "type": "file", "path": path, "size": bytes.len(), "oid": "0" });
        if path.ends_with(".safetensors") || path.ends_with(".gguf") {
            entry["lfs"] = serde_json::json!({ "oid": sha256(bytes), "size": bytes.len() });
        }
        entry
    });
    let directory = serde_json::json!({ "type": "directory", "path": "onnx", "size": 0, "oid": "0" });
    let tree: Vec<serde_json::Value> = [directory].into_iter().chain(entries).collect();
    let listing = (TREE, serde_json::to_vec(&tree).unwrap());
    let files = [listing].into_iter().chain(files.iter().cloned()).collect();
    Server::new(Served { tag: TAG, files, ..Served::default() })
}

/// Runs a pull from a mirror: whether it went well, and what was said.
fn pull_from(place: &Place, server: &Server, arguments: &[&str], token: Option<&str>) -> (bool, String) {
    let mut command = place.minke(&[&["pull"], arguments].concat());
    let endpoint = server.url("");
    command.env("HF_ENDPOINT", endpoint.trim_end_matches('/')).env_remove("HF_TOKEN");
    let output = command.envs(token.map(|token| ("HF_TOKEN", token))).output().unwrap();
    (output.status.success(), said(&output))
}

/// The files of a Hugging Face directory, and others that are not wanted.
fn repository_files() -> Vec<(&'static str, Vec<u8>)> {
    let directory = repository().join("golden/models/llama-chat");
    let read = |name: &str| fs::read(directory.join(name)).unwrap();
    vec![
        ("/org/repo/resolve/main/README.md", b"a model".to_vec()),
        ("/org/repo/resolve/main/chat_template.jinja", read("chat_template.jinja")),
        ("/org/repo/resolve/main/config.json", read("config.json")),
        ("/org/repo/resolve/main/model.safetensors", read("model.safetensors")),
        ("/org/repo/resolve/main/onnx/model.safetensors", vec![0; 9]),
        ("/org/repo/resolve/main/tokenizer.json", read("tokenizer.json")),
    ]
}

#[test]
fn a_repository_becomes_a_directory_and_goes_on_where_it_broke_off() {
    let files = repository_files();
    let server = mirror(&files);
    let longest = |served: &mut Served| served.break_after = Some(60_000);
    server.change(longest);
    let place = Place::new();
    let (fine, why) = pull_from(&place, &server, &["hf:org/repo"], None);
    assert!(!fine && why.contains("run the same command again to go on from there"), "{why}");
    let wanted = ["chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json"];
    let at = |name: &str| format!("/org/repo/resolve/main/{name}");
    assert_eq!(server.asked(), [TREE.to_string(), at(wanted[0]), at(wanted[1]), at(wanted[2])]);

    server.change(|served| served.break_after = None);
    let (fine, why) = pull_from(&place, &server, &["hf:org/repo"], None);
    assert!(fine, "{why}");
    assert_eq!(server.asked(), [TREE.to_string(), at(wanted[2]) + " from 60000", at(wanted[3])]);
    assert_eq!(stored(&place), ["repo"]);
    let mut names: Vec<String> = fs::read_dir(place.path("home/models/repo"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, wanted);
    for (url, bytes) in files.iter().filter(|(url, _)| wanted.contains(&url.rsplit_once("main/").unwrap().1)) {
        assert!(place.read(&format!("home/models/repo/{}", url.rsplit_once("main/").unwrap().1)) == *bytes, "{url}");
    }
}

#[test]
fn a_file_that_is_not_what_the_hub_says_is_thrown_away() {
    let files = repository_files();
    let server = mirror(&files);
    server.change(|served| served.files[4].1[70_000] ^= 1);
    let place = Place::new();
    let (fine, why) = pull_from(&place, &server, &["hf:org/repo"], None);
    assert!(!fine && why.contains("model.safetensors has the SHA-256") && why.contains("the hub says"), "{why}");
    server.change(|served| served.files[4].1[70_000] ^= 1);
    let (fine, why) = pull_from(&place, &server, &["hf:org/repo", "--name", "mine"], None);
    assert!(fine, "{why}");
    assert_eq!(stored(&place).last().map(String::as_str), Some("mine"));
}

#[test]
fn a_file_of_a_repository_is_fetched_with_a_token() {
    let files = [("/org/repo/resolve/main/small/a.gguf", model()), ("/org/repo/resolve/main/b.gguf", b"GGUF".to_vec())];
    let server = mirror(&files);
    server.change(|served| served.authorization = Some("Bearer secret"));
    let place = Place::new();
    for (token, sentence) in [(None, "set HF_TOKEN to a token"), (Some("other"), "HF_TOKEN may not read org/repo")] {
        let (fine, why) = pull_from(&place, &server, &["hf:org/repo:small/a.gguf"], token);
        assert!(!fine && why.contains(sentence), "{why}");
    }
    let (fine, why) = pull_from(&place, &server, &["hf:org/repo"], Some("secret"));
    assert!(!fine && why.contains("has GGUF files only") && why.contains("hf:org/repo:FILE: small/a.gguf ("), "{why}");
    let (fine, why) = pull_from(&place, &server, &["hf:org/repo:c.gguf"], Some("secret"));
    assert!(!fine && why.contains("org/repo has no file c.gguf; it has small/a.gguf ("), "{why}");
    let (fine, why) = pull_from(&place, &server, &["hf:org/repo:small/a.gguf"], Some("secret"));
    assert!(fine, "{why}");
    assert!(place.read("home/models/a.gguf") == model());
    assert_eq!(stored(&place), ["a.gguf"]);
    let (fine, why) = pull_from(&place, &server, &["hf:org/other"], Some("secret"));
    assert!(!fine && why.contains("there is no model org/other"), "{why}");
}
