//! The log contract: what is logged, at which level, under which target, with which keys, is what the guide's page says.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

mod common;
#[path = "common/scenes.rs"]
mod scenes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use common::*;
use log::kv::{Key, Value, VisitSource};
use log::{LevelFilter, Log, Metadata, Record};
use scenes::{CANARIES, Door, SCENES};
use smtp_pool::BatchOptions;
use smtp_pool::observer::{Observer, SendFinished};
use smtp_pool::testing::TestServer;

const PAGE: &str = include_str!("../src/guide/logging_and_metrics.md");

/// One record, as a log collector keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    level: String,
    target: String,
    keys: BTreeMap<String, String>,
    text: String,
}

struct Capture(Mutex<Vec<Line>>);

static CAPTURE: Capture = Capture(Mutex::new(Vec::new()));

struct Keys(BTreeMap<String, String>);

impl<'kvs> VisitSource<'kvs> for Keys {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
        let before = self.0.insert(key.to_string(), value.to_string());
        assert!(before.is_none(), "{key} is there twice");
        Ok(())
    }
}

impl Log for Capture {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &Record<'_>) {
        if !record.target().starts_with("smtp_pool") {
            return;
        }
        let mut keys = Keys(BTreeMap::new());
        record.key_values().visit(&mut keys).unwrap();
        self.0.lock().unwrap().push(Line {
            level: record.level().as_str().to_ascii_lowercase(),
            target: record.target().to_owned(),
            keys: keys.0,
            text: record.args().to_string(),
        });
    }
    fn flush(&self) {}
}

fn lines() -> Vec<Line> {
    std::mem::take(&mut CAPTURE.0.lock().unwrap())
}

/// The table on the page: event → level, target, keys.
fn table() -> BTreeMap<String, (String, String, BTreeSet<String>)> {
    let rows = PAGE.lines().skip_while(|line| !line.starts_with("| event |")).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let cells = rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    let table = cells.map(|cells| {
        let [event, level, target, keys, _when] = cells[..] else { panic!("{cells:?}") };
        let mut keys: BTreeSet<String> = keys.split_whitespace().map(|key| key.trim_matches('`').to_owned()).collect();
        keys.insert("event".to_owned());
        (event.trim_matches('`').to_owned(), (level.to_owned(), target.trim_matches('`').to_owned(), keys))
    });
    table.collect()
}

/// What takes a machine without threads, or a server's patience of at least five seconds, three times. For the first two `journal.rs`
/// itself is held to the table.
const NOT_HERE: [&str; 3] = ["idle_limit_learned", "thread_lost", "threads_missing"];

struct Panicking;

impl Observer for Panicking {
    fn send_finished(&self, _: &SendFinished<'_>) {
        panic!("told to panic");
    }
}

#[test]
fn every_record_is_on_the_page_and_every_row_of_it_is_logged() {
    log::set_logger(&CAPTURE).unwrap();
    log::set_max_level(LevelFilter::Debug);
    let table = table();
    assert!(table.len() > 10, "{table:?}");
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for (name, play) in SCENES {
        play(&Door { build: &|builder| builder.build().unwrap(), is_disturbed: false });
        // Of its own threads too: they have ended with the sender, or say the same as others do.
        let lines = lines();
        for line in &lines {
            let event = line.keys.get("event").unwrap_or_else(|| panic!("{name}: {line:?}"));
            let (level, target, keys) = table.get(event).unwrap_or_else(|| panic!("{name}: not on the page: {line:?}"));
            assert_eq!((&line.level, &line.target), (level, target), "{name}: {event}");
            assert_eq!(&line.keys.keys().cloned().collect::<BTreeSet<_>>(), keys, "{name}: {event}");
            seen.insert(event.clone());
        }
        all.extend(lines);
    }
    // An observer that panics with each of many messages is said once.
    let server = TestServer::start();
    let sender = sender(plain(&server)).observer(Panicking).build().unwrap();
    for number in 0..5 {
        send(&sender, &format!("{number}@logging")).unwrap();
    }
    let panics: Vec<_> = lines().into_iter().filter(|line| line.level == "error").collect();
    let [panic] = &panics[..] else { panic!("{panics:?}") };
    let (_, target, keys) = &table["observer_panicked"];
    assert_eq!((&*panic.keys["event"], &panic.target), ("observer_panicked", target));
    assert_eq!(&panic.keys.keys().cloned().collect::<BTreeSet<_>>(), keys);
    seen.insert("observer_panicked".to_owned());
    assert_eq!(server.messages().len(), 5);

    // So is a progress callback, and is not called again.
    let outbox: Vec<_> = (0..5).map(|number| content(&format!("batch{number}@logging"))).collect();
    let envelope = envelope(1);
    let messages = outbox.iter().map(|content| (&envelope, &content[..]));
    let outcomes = sender.send_all_with(messages, &BatchOptions::new(), |_| panic!("told to panic"));
    assert!(outcomes.iter().all(Result::is_ok));
    let panics: Vec<_> = lines().into_iter().filter(|line| line.level == "error").collect();
    let [panic] = &panics[..] else { panic!("{panics:?}") };
    let (_, target, keys) = &table["progress_panicked"];
    assert_eq!((&*panic.keys["event"], &panic.target), ("progress_panicked", target));
    assert_eq!(&panic.keys.keys().cloned().collect::<BTreeSet<_>>(), keys);
    seen.insert("progress_panicked".to_owned());

    let expected: BTreeSet<String> = table.keys().filter(|event| !NOT_HERE.contains(&&***event)).cloned().collect();
    assert_eq!(seen, expected, "logged, and on the page");
    values_are_true(&all);
    // No address of the envelopes, no Message-ID, no content, and no server's words.
    for line in &all {
        for secret in ["example.com", "example.net", "@scene", "Subject", "later", "too many messages"]
            .into_iter()
            .chain(CANARIES)
        {
            let in_keys = line.keys.values().any(|value| value.contains(secret));
            assert!(!in_keys && !line.text.contains(secret), "{secret} is in {line:?}");
        }
    }

    // Of what is switched off, nothing.
    log::set_max_level(LevelFilter::Warn);
    for (_, play) in SCENES {
        play(&Door { build: &|builder| builder.build().unwrap(), is_disturbed: false });
    }
    let quiet = lines();
    assert!(!quiet.is_empty() && quiet.iter().all(|line| line.level == "warn"), "{quiet:?}");
}

/// What the values of the keys say is what the text says, and what happened.
fn values_are_true(lines: &[Line]) {
    let of = |event: &str| lines.iter().filter(|line| line.keys["event"] == event).collect::<Vec<_>>();
    for line in lines {
        for (key, value) in &line.keys {
            let is_number =
                key.ends_with("_ms") || ["connection_id", "messages", "failures", "attempts"].contains(&&**key);
            assert!(!is_number || value.parse::<u64>().is_ok(), "{key} = {value} in {line:?}");
        }
        if let Some(host) = line.keys.get("host") {
            assert!(host.starts_with("127.0.0.1:") && line.text.contains(host), "{line:?}");
        }
    }
    let reasons: BTreeSet<&str> = of("connection_discarded").iter().map(|line| &*line.keys["reason"]).collect();
    for reason in ["shutdown", "keepalive_failure", "broken", "max_messages"] {
        assert!(reasons.contains(reason), "{reason} is not among {reasons:?}");
    }
    let failures: BTreeSet<_> = of("attempt_failed")
        .iter()
        .map(|line| (&*line.keys["kind"], &*line.keys["stage"], &*line.keys["code"]))
        .collect();
    assert!(failures.contains(&("retryable_temporary_failure", "envelope_started", "451")), "{failures:?}");
    let unknown = of("outcome_unknown");
    assert_eq!(unknown.len(), 1, "{unknown:?}");
    let exhausted = &of("acquire_timed_out")[0].keys;
    let counts = ["max_size", "total", "idle", "leased", "connecting"].map(|key| &*exhausted[key]);
    assert_eq!(counts, ["1", "1", "0", "1", "0"]);
    assert!(exhausted["waited_ms"].parse::<u64>().unwrap() >= 20, "{exhausted:?}");
}
