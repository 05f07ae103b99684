//! The guide says what is so: the files, tests and options it names are there, and every option and every kind of failure has its entry.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

use std::fs;
use std::path::{Path, PathBuf};

use smtp_pool::PoolOptions;

const ARCHITECTURE: &str = include_str!("../src/guide/architecture.md");
const CHOOSING_LIMITS: &str = include_str!("../src/guide/choosing_limits.md");
const FAILURE_RECIPES: &str = include_str!("../src/guide/failure_recipes.md");
const HOW_IT_IS_TESTED: &str = include_str!("../src/guide/how_it_is_tested.md");
const HOW_OTHER_POOLS_FAIL: &str = include_str!("../src/guide/how_other_pools_fail.md");
const CONTENTS: &str = include_str!("../src/guide/mod.rs");

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

/// Every source of the crate and its tests, one behind the other.
fn code() -> String {
    let mut code = String::new();
    for folder in ["src", "tests"] {
        sources(&root().join(folder), &mut code);
    }
    code
}

/// How many files the page names; each must be there.
fn files_named(page: &str) -> usize {
    let is_file = |name: &&str| ["src/", "tests/", "fuzz/", "benches/"].iter().any(|folder| name.starts_with(folder));
    // A package of its own, which the published crate does not hold.
    let is_left_out = |name: &&str| name.starts_with("fuzz/") && !root().join("fuzz").exists();
    let files = named(page).into_iter().filter(is_file).filter(|name| !is_left_out(name));
    files.inspect(|name| assert!(root().join(name).exists(), "there is no {name}")).count()
}

/// How many tests the page names; each must be there.
fn tests_named(page: &str) -> usize {
    let code = code();
    let is_test = |name: &&str| {
        let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        name.matches('_').count() > 2 && name.bytes().all(is_word)
    };
    let tests = named(page).into_iter().filter(is_test);
    tests.inspect(|name| assert!(code.contains(&format!("fn {name}() {{")), "there is no test {name}")).count()
}

#[test]
fn every_file_and_test_that_the_page_names_is_there() {
    let (files, tests) = (files_named(HOW_IT_IS_TESTED), tests_named(HOW_IT_IS_TESTED));
    assert!(files > 15 && tests > 10, "{files} files and {tests} tests");
}

#[test]
fn every_failure_of_another_pool_has_a_test_that_is_there() {
    let items = HOW_OTHER_POOLS_FAIL.split("\n- **").skip(1).map(|item| item.split("\n\n").next().unwrap());
    let claims = items.inspect(|item| assert!(tests_named(item) > 0, "no test: {item}"));
    assert!(claims.count() > 20);
    assert!(files_named(HOW_OTHER_POOLS_FAIL) > 1);
}

#[test]
fn every_module_has_its_place_in_the_house_and_every_file_named_is_there() {
    let contents = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let declared = contents.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "));
    let house = ARCHITECTURE.split("```").nth(1).unwrap();
    let drawn: Vec<&str> = house.split(|c: char| !c.is_alphanumeric()).chain(named(ARCHITECTURE)).collect();
    for module in declared.map(|rest| rest.trim_end_matches(';')).filter(|&module| module != "_guide") {
        assert!(drawn.contains(&module), "{module} has no place");
    }
    assert!(files_named(ARCHITECTURE) > 20);
}

#[test]
fn every_option_has_an_entry_with_its_default() {
    let options = serde_json::to_value(PoolOptions::default()).unwrap();
    let options = options.as_object().unwrap();
    for (option, default) in options {
        let entry = CHOOSING_LIMITS.split(&format!("\n## `{option}`\n")).nth(1);
        let entry = entry.unwrap_or_else(|| panic!("{option} has no entry"));
        let default = default.as_str().map_or_else(|| default.to_string(), str::to_owned);
        assert!(
            entry.trim_start().starts_with(&format!("Default `{default}`")),
            "the default of {option} is {default}"
        );
    }
    let entries = CHOOSING_LIMITS.lines().filter_map(|line| line.strip_prefix("## `")?.strip_suffix('`'));
    for entry in entries {
        assert!(options.contains_key(entry), "there is no option {entry}");
    }
}

#[test]
fn every_setting_of_a_batch_has_an_entry() {
    let source = fs::read_to_string(root().join("src/options/batch.rs")).unwrap();
    let setters = source.lines().filter_map(|line| line.trim().strip_prefix("pub fn ")?.split_once("(mut self"));
    let entries = setters.inspect(|(setter, _)| {
        assert!(
            CHOOSING_LIMITS.contains(&format!("\n| [`{setter}`](crate::BatchOptions::{setter})")),
            "{setter} has no entry"
        );
    });
    assert!(entries.count() >= 4);
}

#[test]
fn every_kind_of_failure_has_its_recipe() {
    let error = fs::read_to_string(root().join("src/error.rs")).unwrap();
    let body = error.split("pub enum FailureKind {").nth(1).unwrap().split("\n}").next().unwrap();
    let kinds = body.lines().filter_map(|line| line.trim().strip_suffix(','));
    let recipes = kinds.inspect(|kind| {
        let row = FAILURE_RECIPES
            .lines()
            .find(|line| line.starts_with("| ") && line.split('|').nth(1).unwrap().contains(kind));
        assert!(row.is_some(), "{kind} has no recipe");
    });
    assert!(recipes.count() >= 9);
}

#[test]
fn every_page_is_in_the_contents() {
    let pages = fs::read_dir(root().join("src/guide")).unwrap().map(|entry| entry.unwrap().path());
    let pages: Vec<PathBuf> =
        pages.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect();
    for page in &pages {
        let name = page.file_stem().unwrap().to_str().unwrap();
        assert!(CONTENTS.contains(&format!("//! - [`{name}`]")), "{name} is not in the contents");
        assert!(CONTENTS.contains(&format!("include_str!(\"{name}.md\")")), "{name} is not shown");
    }
    assert!(pages.len() > 10);
}
