//! Whatever users can name of this crate, with all features, is in `baseline.txt`: what leaves or changes there breaks them, and what is
//! new there is promised from then on. Each type's `impl`s are in it, those that the compiler finds (`Send`, `Sync`) included.
//!
//! ```text
//! cargo test --test public_api -- --ignored                      compares
//! PUBLIC_API=accept cargo test --test public_api -- --ignored    writes the file anew, to be read in the diff of a change
//! ```
//!
//! It is read from rustdoc's JSON, which no version of Rust writes as the one before: under a Rust that writes another format nothing is
//! compared, and it says so. `PUBLIC_API=required` then fails.

#![allow(clippy::unwrap_used, reason = "a test may panic and needs no manual")]

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// The one that this version of the `public-api` crate reads.
const FORMAT: u64 = 57;

const BASELINE: &str = "tests/public_api/baseline.txt";

/// Marks that stable code cannot ask for.
const UNSTABLE_MARKS: [&str; 3] =
    ["core::marker::Freeze for", "core::marker::UnsafeUnpin for", "core::marker::StructuralPartialEq for"];

#[test]
#[ignore = "needs the Rust whose rustdoc writes the JSON that is read here; .ci/run runs it"]
fn the_public_api_is_the_one_that_was_agreed_on() {
    let wish = env::var("PUBLIC_API").unwrap_or_default();
    let json = rustdoc_json();
    let format = format_of(&json);
    if format != FORMAT {
        let why = format!("rustdoc writes its JSON in format {format}, and {FORMAT} is the one that can be read");
        assert!(wish != "required", "the public API cannot be compared: {why}");
        println!("the public API is not compared: {why}");
        return;
    }

    let now = public_api(&json);
    let baseline = Path::new(env!("CARGO_MANIFEST_DIR")).join(BASELINE);
    if wish == "accept" {
        fs::write(&baseline, now.join("\n") + "\n").unwrap();
        return;
    }
    let agreed = fs::read_to_string(&baseline).unwrap();
    let difference = difference(&agreed.lines().collect::<Vec<_>>(), &now);
    assert!(difference.is_empty(), "the public API is not that of {BASELINE}:\n{}", difference.join("\n"));
    println!("the public API is that of {BASELINE}, {} lines", now.len());
}

fn rustdoc_json() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target =
        Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("cargo's folder for tests is in its target folder");
    let ended = Command::new(env!("CARGO"))
        .current_dir(root)
        .args(["rustdoc", "--locked", "--quiet", "--lib", "--all-features", "--target-dir"])
        .arg(target)
        .args(["--", "-Z", "unstable-options", "--output-format", "json"])
        .env("RUSTDOC", root.join("tests/public_api/unstable_rustdoc.sh"))
        .status()
        .unwrap();
    assert!(ended.success(), "rustdoc: {ended}");
    target.join("doc/smtp_pool.json")
}

fn format_of(json: &Path) -> u64 {
    let json: serde_json::Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    json["format_version"].as_u64().unwrap()
}

/// One item a line. A derived `impl` is one line, without its methods.
fn public_api(json: &Path) -> Vec<String> {
    let items = |builder: public_api::Builder| {
        let api = builder.omit_blanket_impls(true).build().unwrap();
        api.items().map(ToString::to_string).collect::<Vec<_>>()
    };
    let everything = items(public_api::Builder::from_rustdoc_json(json));
    let not_derived: HashSet<_> =
        items(public_api::Builder::from_rustdoc_json(json).omit_auto_derived_impls(true)).into_iter().collect();
    everything
        .into_iter()
        .filter(|item| item.starts_with("impl") || not_derived.contains(item))
        .filter(|item| !UNSTABLE_MARKS.iter().any(|mark| item.contains(mark)))
        .collect()
}

fn difference(agreed: &[&str], now: &[String]) -> Vec<String> {
    let agreed: BTreeSet<_> = agreed.iter().copied().collect();
    let now: BTreeSet<_> = now.iter().map(String::as_str).collect();
    let gone = agreed.difference(&now).map(|line| format!("- {line}"));
    gone.chain(now.difference(&agreed).map(|line| format!("+ {line}"))).collect()
}

#[test]
fn what_is_gone_and_what_is_new_is_named() {
    let agreed = ["pub fn a()", "pub fn b(u8)", "pub fn c()"];
    let now = ["pub fn a()", "pub fn b(u16)", "pub fn c()"].map(String::from);
    assert_eq!(difference(&agreed, &now), ["- pub fn b(u8)", "+ pub fn b(u16)"]);
    assert!(difference(&["pub fn a()"], &[String::from("pub fn a()")]).is_empty());
}
