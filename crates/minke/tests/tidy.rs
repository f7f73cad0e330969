//! The house rules that a reader relies on, as tests: crate edges, unsafe code, and the map of files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Files that git tracks or would track, relative to the root.
fn files() -> Vec<String> {
    let arguments = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let listed = Command::new("git").args(arguments).current_dir(root()).output().expect("git lists the files");
    assert!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    let mut files: Vec<String> = String::from_utf8(listed.stdout).unwrap().lines().map(str::to_string).collect();
    files.retain(|file| root().join(file).is_file());
    assert!(files.len() > 20, "only {} files are listed", files.len());
    files
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Crates of this workspace that a crate's `[dependencies]` name.
fn edges(name: &str) -> BTreeSet<String> {
    let manifest = read(&format!("crates/{name}/Cargo.toml"));
    let dependencies = manifest.split("[dependencies]").nth(1).expect("a [dependencies] section");
    let dependencies = dependencies.split("\n[").next().unwrap_or_default();
    let ours = dependencies.lines().filter_map(|line| line.strip_prefix("minke-"));
    ours.map(|line| line.split(['.', ' ', '=']).next().unwrap_or_default().to_string()).collect()
}

#[test]
fn crates_depend_downwards_only() {
    let line = ["kernels", "model", "engine", "train", "minke"];
    // They stand beside the line: minke uses them, and they use none of it, nor each other.
    let beside = ["arena", "lab"];
    let present: BTreeSet<String> = std::fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    let named = line.iter().chain(&beside).map(|name| name.to_string()).collect();
    assert_eq!(present, named, "the crates of ARCHITECTURE.md");
    for name in beside {
        assert_eq!(edges(name), BTreeSet::new(), "{name} depends on crates of the line");
    }
    for (height, name) in line.iter().enumerate() {
        for below in edges(name) {
            if beside.contains(&&*below) {
                assert_eq!(*name, "minke", "{name} depends on {below}, which only minke may");
                continue;
            }
            let at = line.iter().position(|other| *other == below);
            assert!(at.is_some_and(|at| at < height), "{name} depends on {below}, which does not lie below it");
        }
    }
}

#[test]
fn what_belongs_to_the_binary_stays_there() {
    for name in ["kernels", "model", "engine", "train", "arena", "lab"] {
        let manifest = read(&format!("crates/{name}/Cargo.toml"));
        for outside in ["clap", "tokio", "axum", "hyper", "ureq", "reqwest", "anyhow"] {
            let named = manifest.lines().any(|line| line.split(['=', '.', ' ']).next() == Some(outside));
            assert!(!named, "{name} depends on {outside}: arguments, HTTP and async belong to the binary");
        }
    }
}

#[test]
fn unsafe_code_is_where_it_is_allowed() {
    for file in files().iter().filter(|file| file.ends_with(".rs")) {
        let allowed = file.starts_with("crates/kernels/") || file == "crates/model/src/mmap.rs";
        let here = file == "crates/minke/tests/tidy.rs";
        let text = read(file);
        let found = text.lines().any(|line| {
            let code = line.split("//").next().unwrap_or_default();
            code.contains("unsafe ") && !code.contains("unsafe_")
        });
        assert!(allowed || here || !found, "{file} has unsafe code; only crates/kernels and the memory map may");
    }
}

#[test]
fn every_file_has_its_line_in_the_map() {
    let map = read("ARCHITECTURE.md");
    let named: BTreeSet<&str> =
        map.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |").map(|(name, _)| name)).collect();
    let source = |file: &str| file.ends_with(".rs") && file.starts_with("crates/");
    let there: BTreeSet<String> = files().into_iter().filter(|file| source(file)).collect();
    let missing: Vec<_> = there.iter().filter(|file| !named.contains(file.as_str())).collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md has no line for {missing:#?}");
    let gone: Vec<_> = named.iter().filter(|name| source(name) && !there.contains(**name)).collect();
    assert!(gone.is_empty(), "ARCHITECTURE.md still has a line for {gone:#?}");
}

#[test]
fn every_source_file_begins_with_its_role() {
    for file in files().iter().filter(|file| file.starts_with("crates/") && file.ends_with(".rs")) {
        assert!(read(file).starts_with("//! "), "{file} does not begin with a line that says what it is for");
    }
}
