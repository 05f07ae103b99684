//! The guide's page on tests names files and tests that are there.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

use std::fs;
use std::path::{Path, PathBuf};

const PAGE: &str = include_str!("../src/guide/how_it_is_tested.md");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What stands between backticks outside of blocks of code.
fn named(page: &str) -> Vec<&str> {
    let outside = page.split("```").step_by(2);
    outside.flat_map(|text| text.split('`').skip(1).step_by(2)).collect()
}

fn sources(folder: &Path, into: &mut String) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_file_and_test_that_the_page_names_is_there() {
    let mut code = String::new();
    for folder in ["src", "tests"] {
        sources(&root().join(folder), &mut code);
    }
    let (mut files, mut tests) = (0, 0);
    for name in named(PAGE) {
        // A package of its own, which the published crate does not hold.
        let is_left_out = name.starts_with("fuzz/") && !root().join("fuzz").exists();
        if is_left_out {
            continue;
        }
        if name.starts_with("src/") || name.starts_with("tests/") || name.starts_with("fuzz/") {
            assert!(root().join(name).exists(), "there is no {name}");
            files += 1;
        } else if name.matches('_').count() > 2 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
            assert!(code.contains(&format!("fn {name}() {{")), "there is no test {name}");
            tests += 1;
        }
    }
    assert!(files > 15 && tests > 10, "{files} files and {tests} tests");
}
