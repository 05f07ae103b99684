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

/// How often a run may be late.
const LATE_AT_MOST: usize = 10;

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

fn cases(positions: &[Position]) -> Vec<Case> {
    let mut cases = Vec::new();
    for setting in settings(positions) {
        let odd = Reply::malformed(setting.position.good());
        for reply in (200..600).map(Reply::of_code).chain(odd) {
            cases.extend([false, true].map(|closes| Case { setting, reply: reply.clone(), closes }));
        }
    }
    cases.retain(|case| !is_a_lie(case.setting, &case.reply, case.closes));
    cases
}

/// Says each reply in each setting, goes on or closes behind it, and panics with all that was told otherwise.
fn sweep(positions: &[Position]) {
    let start = common::now();
    let cases = cases(positions);
    let next = AtomicUsize::new(0);
    let (differences, late) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
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
                    let verdict = judge(bench, reply, *closes, number);
                    differences.lock().extend(verdict.difference);
                    if verdict.is_late {
                        late.lock().push(number);
                    }
                }
            });
        }
    });
    let (mut differences, late) = (differences.into_inner(), late.into_inner());
    println!("{} runs, {} of them late once, in {:.1?}", cases.len(), late.len(), start.elapsed());
    // A run that was late among many is run again by itself: a bound that is not kept is late every time.
    for Case { setting, reply, closes } in late.into_iter().map(|number| &cases[number]) {
        let bench = Bench::new(*setting);
        if (0..LATE_AT_MOST).all(|number| judge(&bench, reply, *closes, number).is_late) {
            differences.push(format!("{setting:?} {:?}, closes: {closes}: late each time", reply.said));
        }
    }
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn what_is_said_while_a_session_is_opened_is_told_as_specified() {
    sweep(&Position::OPENING_IN_CLEAR);
}

#[test]
fn what_is_said_around_tls_is_told_as_specified() {
    without_system_roots("what_is_said_around_tls_is_told_as_specified", || sweep(&Position::OPENING_UNDER_TLS));
}

#[test]
fn what_is_said_to_a_message_is_told_as_specified() {
    sweep(&Position::MESSAGE);
}
