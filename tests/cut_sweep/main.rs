//! The connection is cut at every byte of the dialogue, in both directions, and every outcome is what the server's own count allows.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

#[path = "../common/mod.rs"]
mod common;
mod dialogue;
mod judge;
mod sweep;
mod wire;

use common::without_system_roots;
use dialogue::{Grouping, Way};
use smtp_pool::testing::{Cut, Security};
use sweep::{Choice, sweep};

const ENDS: [Cut; 2] = [Cut::Fin, Cut::Reset];
const ALL: [Cut; 3] = [Cut::Fin, Cut::Reset, Cut::Silence];

fn ways(securities: &[Security], reused: &[bool]) -> Vec<Way> {
    let mut ways = Vec::new();
    for security in securities {
        for grouping in Grouping::ALL {
            let way = Way { security: *security, grouping, reused: false, is_retried: false, is_large: false };
            ways.extend(reused.iter().map(|reused| Way { reused: *reused, ..way }));
        }
    }
    ways
}

#[test]
fn a_cut_at_any_byte_of_a_dialogue_is_told_truly() {
    sweep(&ways(&[Security::Plain], &[false]), &ENDS, Choice::All);
}

#[test]
fn a_cut_at_any_byte_of_a_second_message_costs_no_message() {
    sweep(&ways(&[Security::Plain], &[true]), &ENDS, Choice::All);
}

#[test]
fn a_cut_at_any_byte_before_the_last_write_is_made_good_by_one_retry() {
    let ways = ways(&[Security::Plain], &[false]);
    let retried: Vec<_> = ways.into_iter().map(|way| Way { is_retried: true, ..way }).collect();
    sweep(&retried, &ENDS, Choice::All);
}

#[test]
fn silence_from_any_byte_of_a_dialogue_on_is_told_truly() {
    sweep(&ways(&[Security::Plain], &[false, true]), &[Cut::Silence], Choice::sample(30, 20));
}

/// A sample: in the middle of a message one byte is like the next.
#[test]
fn a_cut_at_any_byte_of_a_message_in_several_writes_is_told_truly() {
    let ways = ways(&[Security::Plain], &[false, true]);
    let several = ways.into_iter().filter(|way| way.grouping == Grouping::Pipelined);
    let large: Vec<_> = several.map(|way| Way { is_large: true, ..way }).collect();
    sweep(&large, &ALL, Choice::sample(25, 75));
}

#[test]
fn a_cut_at_any_byte_under_tls_is_told_truly() {
    without_system_roots("a_cut_at_any_byte_under_tls_is_told_truly", || {
        let ways = ways(&[Security::StartTls, Security::ImplicitTls], &[false, true]);
        leaving_nothing(|| sweep(&ways, &ALL, Choice::sample(12, 12)));
    });
}

#[test]
#[ignore = "takes some ten minutes on two processors"]
fn every_cut_of_every_dialogue_is_told_truly() {
    without_system_roots("every_cut_of_every_dialogue_is_told_truly", || {
        let ways = ways(&[Security::Plain, Security::StartTls, Security::ImplicitTls], &[false, true]);
        leaving_nothing(|| sweep(&ways, &ALL, Choice::All));
    });
}

/// Runs `body` and sees that no thread and no descriptor is left of it; in a process that runs nothing else.
fn leaving_nothing(body: impl FnOnce()) {
    let held = || ["/proc/self/task", "/proc/self/fd"].map(|path| std::fs::read_dir(path).map_or(0, Iterator::count));
    let before = held();
    body();
    common::eventually("threads and descriptors are as before", || {
        held().iter().zip(before).all(|(now, before)| *now <= before)
    });
}
