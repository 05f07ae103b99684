//! Every reply of the dialogue is replaced by every other, and the caller is told what the specification says.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

#[path = "../common/mod.rs"]
mod common;
mod reference;
mod replies;
mod run;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use common::without_system_roots;
use parking_lot::Mutex;
use reference::Grouping;
use replies::{Position, Reply};
use run::{Bench, Setting, is_a_lie, judge};

/// Runs at the same time. Few of them wait for anything, but those that do wait long.
const WORKERS: usize = 8;

/// Codes with a meaning of their own somewhere, the ends of each class, and one that nobody has heard of in each.
const TELLING: [u16; 36] = [
    200, 220, 221, 235, 250, 251, 252, 277, 299, 300, 334, 354, 377, 399, 400, 421, 432, 450, 452, 454, 477, 499, 500,
    502, 503, 504, 505, 521, 530, 535, 538, 550, 552, 554, 577, 599,
];

fn every_code() -> Vec<u16> {
    (200..600).collect()
}

fn settings(positions: &[Position]) -> Vec<Setting> {
    let mut settings = Vec::new();
    for position in positions.iter().copied() {
        for grouping in [Grouping::Lockstep, Grouping::Pipelined, Grouping::SingleRoundTrip] {
            for reused in [true, false] {
                let is_real = match position {
                    // A connection is opened once, and nothing is pipelined meanwhile.
                    _ if position.is_opening() => grouping == Grouping::Pipelined && !reused,
                    // It is owed by a message before, and then nothing leaves in a single write.
                    Position::Rset => reused && grouping != Grouping::SingleRoundTrip,
                    // Neither DATA nor a second recipient is part of a message in a single write.
                    _ => grouping != Grouping::SingleRoundTrip || Position::AT_ONCE.contains(&position),
                };
                settings.extend(is_real.then_some(Setting { position, grouping, reused }));
            }
        }
    }
    settings
}

struct Case {
    setting: Setting,
    reply: Reply,
    closes: bool,
}

fn cases(positions: &[Position], codes: &[u16]) -> Vec<Case> {
    let mut cases = Vec::new();
    for setting in settings(positions) {
        let odd = Reply::malformed(setting.position.good());
        for reply in codes.iter().map(|code| Reply::of_code(*code)).chain(odd) {
            cases.extend([false, true].map(|closes| Case { setting, reply: reply.clone(), closes }));
        }
    }
    cases.retain(|case| !is_a_lie(case.setting, &case.reply, case.closes));
    cases
}

/// Says each reply in each setting, goes on or closes behind it, and panics with all that was told otherwise.
fn sweep(positions: &[Position], codes: &[u16]) {
    let start = common::now();
    let cases = cases(positions, codes);
    let next = AtomicUsize::new(0);
    let differences = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let mut bench: Option<Bench> = None;
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(Case { setting, reply, closes }) = cases.get(number) else { break };
                    let bench = match bench.take() {
                        Some(same) if same.setting == *setting => bench.insert(same),
                        _ => bench.insert(Bench::new(*setting)),
                    };
                    differences.lock().extend(judge(bench, reply, *closes, number));
                }
            });
        }
    });
    let differences = differences.into_inner();
    println!("{} runs in {:.1?}", cases.len(), start.elapsed());
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn what_is_said_while_a_session_is_opened_is_told_as_specified() {
    sweep(&Position::OPENING_IN_CLEAR, &TELLING);
}

#[test]
fn what_is_said_around_tls_is_told_as_specified() {
    without_system_roots("what_is_said_around_tls_is_told_as_specified", || {
        sweep(&Position::OPENING_UNDER_TLS, &TELLING);
    });
}

#[test]
fn what_is_said_to_a_message_is_told_as_specified() {
    sweep(&Position::MESSAGE, &TELLING);
}

#[test]
#[ignore = "takes some minutes"]
fn every_code_at_every_position_is_told_as_specified() {
    without_system_roots("every_code_at_every_position_is_told_as_specified", || {
        sweep(&Position::OPENING_IN_CLEAR, &every_code());
        sweep(&Position::OPENING_UNDER_TLS, &every_code());
        sweep(&Position::MESSAGE, &every_code());
    });
}
