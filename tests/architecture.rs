//! The house keeps its shape: imports run one way, files stay short, nothing is unsafe.
//!
//! The floors, bottom up: words, options, machines, reports, doors. The words are one vocabulary and may refer to each other, and so
//! may the files of one module; anywhere else a module sees only the floors below its own. `testing` stands outside: it sees nothing
//! of the house, and nothing of the house sees it. `lib.rs` is the table of contents and sees everything.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

use std::fs;
use std::path::{Path, PathBuf};

const FLOORS: [&[&str]; 6] = [
    &[
        "blame",
        "cancel",
        "clock",
        "endpoint",
        "error",
        "event",
        "lane",
        "observer",
        "recipient",
        "reply",
        "simulation",
        "stage",
        "stats",
        "sync",
        "trace",
        "undisclosed",
    ],
    &["options"],
    &["smtp", "pool", "classify"],
    &["report"],
    &["sender", "manager"],
    // A side door, of use to the targets in `fuzz/` alone.
    &["fuzzing"],
];

/// Read by people only.
const OUTSIDE: [&str; 2] = ["testing", "guide"];

const MAX_LINES: usize = 500;

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// Whether a file of module `from` may name module `to`.
fn may_see(from: &str, to: &str) -> Result<(), String> {
    if from == to {
        return Ok(());
    }
    if OUTSIDE.contains(&from) || OUTSIDE.contains(&to) {
        return Err(format!("`{from}` and `{to}` have nothing to do with each other"));
    }
    let (Some(own), Some(other)) = (floor_of(from), floor_of(to)) else {
        return Err(format!("`{from}` or `{to}` is on no floor: give it one in tests/architecture.rs"));
    };
    match own {
        _ if other < own => Ok(()),
        0 if other == 0 => Ok(()),
        _ if other == own => Err(format!("`{from}` looks sideways at `{to}`")),
        _ => Err(format!("`{from}` looks up at `{to}`")),
    }
}

/// `source` with comments, strings and character literals blanked, line ends kept.
fn code_of(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    let blank = |code: &mut String, text: &str| code.extend(text.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
    while let Some(first) = rest.chars().next() {
        let is_word_before = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            end_of_block_comment(rest)
        } else if let (Some(hashes), false) = (raw_string(rest), is_word_before) {
            let quote = rest.find('"').unwrap();
            let end = format!("\"{}", "#".repeat(hashes));
            rest[quote + 1..].find(&end).map_or(rest.len(), |at| quote + 1 + at + end.len())
        } else if first == '"' {
            end_of_string(rest)
        } else if first == '\'' {
            // A lifetime is no literal.
            character_literal(rest).unwrap_or(0)
        } else {
            0
        };
        if length == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            blank(&mut code, &rest[..length]);
            rest = &rest[length..];
        }
    }
    code
}

fn end_of_block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The number of hashes, if `text` begins with a raw string.
fn raw_string(text: &str) -> Option<usize> {
    let text = text.strip_prefix('b').unwrap_or(text).strip_prefix('r')?;
    let after = text.trim_start_matches('#');
    after.starts_with('"').then_some(text.len() - after.len())
}

fn end_of_string(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn character_literal(text: &str) -> Option<usize> {
    let mut chars = text.char_indices().skip(1);
    let (_, first) = chars.next()?;
    if first == '\\' {
        let (_, _escaped) = chars.next()?;
        return chars.find(|(_, c)| *c == '\'').map(|(at, _)| at + 1);
    }
    chars.next().filter(|(_, c)| *c == '\'').map(|(at, _)| at + 1)
}

/// The modules named after each `path` (such as `crate::`) in `code`, groups in braces taken apart, with their line numbers.
fn modules_behind(code: &str, path: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(path) {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let rest = code[at + path.len()..].trim_start();
        match rest.strip_prefix('{') {
            None => found.push((line, word(rest))),
            Some(group) => {
                let mut depth = 0;
                let mut start = 0;
                for (at, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth > 0 => depth -= 1,
                        ',' | '}' if depth == 0 => {
                            found.push((line, word(group[start..at].trim_start())));
                            start = at + 1;
                            if c == '}' {
                                break;
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    found.retain(|(_, module)| !module.is_empty());
    found
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn source_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            source_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Every file of `src`: its path there, the top-level module it belongs to, its text.
fn house() -> Vec<(String, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    source_files(&root, &mut files);
    assert!(files.len() > 30, "the house was found");
    let mut house: Vec<_> = files
        .iter()
        .map(|path| {
            let inside = path.strip_prefix(&root).unwrap();
            let top = inside.components().next().unwrap().as_os_str().to_str().unwrap();
            // `classify_tests.rs` is a part of `classify`.
            let module = top.trim_end_matches(".rs").trim_end_matches("_tests").to_owned();
            (inside.to_str().unwrap().replace('\\', "/"), module, fs::read_to_string(path).unwrap())
        })
        .collect();
    house.sort();
    house
}

fn complaints_about(file: &str, module: &str, source: &str) -> Vec<String> {
    let code = code_of(source);
    let mut complaints = Vec::new();
    for (line, seen) in modules_behind(&code, "crate::") {
        if let Err(why) = may_see(module, &seen) {
            complaints.push(format!("src/{file}:{line}: {why}"));
        }
    }
    for (path, banned) in
        [("super::super", "says where it is by counting"), ("smtp_pool::", "calls the crate by its name")]
    {
        for (at, _) in code.match_indices(path) {
            let line = code[..at].matches('\n').count() + 1;
            complaints.push(format!("src/{file}:{line}: `{path}` {banned}"));
        }
    }
    // At the top of a floor's only file, `super` is the crate.
    if !file.contains('/') {
        for (line, seen) in modules_behind(&code, "super::") {
            let is_inside_own_file = source.contains("mod tests") || file.ends_with("_tests.rs");
            if let (Err(why), false) = (may_see(module, &seen), is_inside_own_file) {
                complaints.push(format!("src/{file}:{line}: {why}"));
            }
        }
    }
    complaints
}

#[test]
fn imports_run_one_way() {
    let mut complaints = Vec::new();
    for (file, module, source) in house() {
        if file == "lib.rs" {
            continue;
        }
        let is_placed = floor_of(&module).is_some() || OUTSIDE.contains(&&*module);
        assert!(is_placed, "src/{file}: `{module}` is on no floor: give it one in tests/architecture.rs");
        complaints.extend(complaints_about(&file, &module, &source));
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn the_scan_finds_what_it_is_for() {
    let complains = |module: &str, source: &str| complaints_about(&format!("{module}/x.rs"), module, source).len();
    assert_eq!(complains("pool", "use crate::smtp::Session;"), 1, "sideways");
    assert_eq!(complains("pool", "use crate::sender::SmtpSender;"), 1, "up");
    assert_eq!(complains("pool", "use crate::{clock, smtp::Session, stats::{A, sender}, report};"), 2, "in a group");
    assert_eq!(complains("pool", "fn f() { let x = crate::smtp::f(); }"), 1, "a path in code");
    assert_eq!(complains("pool", "#[cfg(test)] mod tests { use crate::classify; }"), 1, "in tests");
    assert_eq!(complains("pool", "use\n    crate::\n    smtp;"), 1, "over lines");
    assert_eq!(complains("clock", "use crate::options::Host;"), 1, "words know words only");
    assert_eq!(complains("testing", "use crate::clock;"), 1, "from outside");
    assert_eq!(complains("sender", "use crate::testing::TestServer;"), 1, "to the outside");
    assert_eq!(complains("sender", "use crate::nowhere::X;"), 1, "an unknown module");
    assert_eq!(complains("smtp", "use super::super::pool;"), 1, "by counting");
    assert_eq!(complains("sender", "use smtp_pool::Host;"), 1, "by name");
    assert_eq!(complains("sender", "use crate::{clock, pool::Pool, smtp, options, report};"), 0);
    assert_eq!(complains("pool", "use crate::pool::state::X; // use crate::smtp\n/* crate::smtp::x /* */ */"), 0);
    assert_eq!(
        complains("pool", "let x = \"crate::smtp \\\" crate::smtp\"; let y = r#\"crate::smtp\"# ; let z = '\"';"),
        0
    );
    assert_eq!(complains("pool", "fn f<'a>(x: &'a str) -> char { '\\'' } use crate::smtp;"), 1, "behind a literal");
}

#[test]
fn no_file_is_long() {
    for (file, _, source) in house() {
        let is_test = file.contains("/tests/") || file.ends_with("tests.rs");
        let lines = source.lines().count();
        assert!(is_test || lines <= MAX_LINES, "src/{file} has {lines} lines; cut it where it tells two stories");
    }
}

#[test]
fn nothing_is_unsafe() {
    for (file, _, source) in house() {
        let code = code_of(&source);
        let mut words = code.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        assert!(!words.any(|word| word == "unsafe"), "src/{file}");
    }
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    assert!(manifest.contains("unsafe_code = \"forbid\""));
}

/// The doors through which a simulation enters; see `src/simulation/mod.rs`.
const SIMULATED: [&str; 3] = ["clock.rs", "smtp/mod.rs", "sync.rs"];

#[test]
fn a_simulation_enters_through_three_doors() {
    for (file, _, source) in house() {
        let is_inside = file.contains("simulation/") || file.starts_with("pool/tests/") || SIMULATED.contains(&&*file);
        let code = code_of(&source);
        assert!(
            is_inside || modules_behind(&code, "crate::").iter().all(|(_, seen)| seen != "simulation"),
            "src/{file}"
        );
    }
}

#[test]
fn locks_threads_and_channels_enter_through_one_door() {
    // Whatever came in beside it, no simulation would see.
    let banned = [
        "parking_lot",
        "crossbeam_channel",
        "sync::mpsc",
        "sync::Mutex",
        "sync::Condvar",
        "thread::spawn",
        "thread::Builder",
    ];
    for (file, module, source) in house() {
        let is_simulated = ["pool", "sender", "cancel"].contains(&&*module);
        let is_test = file.contains("/tests/") || file.ends_with("simulation/tally.rs");
        if is_test || !is_simulated {
            continue;
        }
        let code = code_of(source.split("#[cfg(test)]\nmod tests").next().unwrap()).replace("crate::sync::", "door::");
        for name in banned {
            assert!(!code.contains(name), "src/{file} has {name} from elsewhere than crate::sync");
        }
    }
}

#[test]
fn time_enters_through_one_door() {
    // What clippy's `disallowed-methods` holds too, seen here without clippy; an exception says why.
    for (file, _, source) in house() {
        let code = code_of(&source);
        for call in ["Instant::now(", "SystemTime::now(", "thread::sleep("] {
            let is_a_door = ["clock.rs", "testing/clock.rs", "simulation/world.rs"].contains(&&*file);
            assert!(is_a_door || !code.contains(call), "src/{file} calls {call})");
        }
    }
}
