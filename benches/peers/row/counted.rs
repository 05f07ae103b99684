//! What a message costs the processor, counted and not timed: system calls, allocations, instructions.

use allocation_counter::measure as measure_heap;

use crate::Plan;
use crate::client::{Load, Peer, Server};
use crate::paired::{Spread, as_f64};
use crate::postfix::free_port;
use crate::report::{Bound, Report, Row};
use crate::sink::Sink;
use crate::strace::Traced;

const PEERS: [Peer; 6] =
    [Peer::Pool, Peer::RawPipelining, Peer::RawCareful, Peer::RawSequential, Peer::R2d2, Peer::LettrePool];
const SIZE: usize = 700;

pub fn measure(plan: &Plan, report: &mut Report) {
    let sink = Sink::forgetful(free_port());
    let mut rows = Vec::new();
    for peer in PEERS {
        // lettre takes 44 ms for each.
        let messages = if peer == Peer::LettrePool || peer == Peer::R2d2 { 25 } else { plan.times(500, 50) };
        let traced = Traced { peer, port: sink.port(), size: SIZE };
        rows.push(system_calls(traced, messages));
        rows.push(allocations(peer, &sink, messages));
        if !plan.is_quick || peer == Peer::Pool {
            rows.push(instructions(traced, messages.min(200)));
        }
    }
    // Each kind of count together, ours first.
    rows.sort_by_key(|row| row.what.split(':').next().map(str::to_owned));
    report.add("counted for each 700 B message in the steady state, smtp-sink", rows);
}

/// The promise, or none for a peer.
fn row(what: &str, peer: Peer, bound: f64, measured: f64) -> Row {
    let what = format!("{what}: {}", peer.name());
    match peer {
        Peer::Pool => Row::promised(what, "", Bound::AtMost(bound), Spread::exactly(measured)),
        _ => Row::shown(what, "", Spread::exactly(measured)),
    }
}

fn system_calls(traced: Traced, messages: usize) -> Row {
    const WHAT: &str = "system calls a message";
    const BOUND: f64 = 8.0;
    match traced.system_calls(messages) {
        Some(calls) => {
            let kinds: Vec<String> = calls.kinds.iter().map(|(name, each)| format!("{name} {each:.1}")).collect();
            row(WHAT, traced.peer, BOUND, calls.total).with_note(kinds.join(", "))
        }
        None => {
            let bound = (traced.peer == Peer::Pool).then_some(Bound::AtMost(BOUND));
            Row::unmeasured(format!("{WHAT}: {}", traced.peer.name()), bound, "strace does not run here")
        }
    }
}

/// Counted in the sending thread.
fn allocations(peer: Peer, sink: &Sink, messages: usize) -> Row {
    let mut contestant = peer.connect(&Load::new(Server::plain(sink.port()), 1, SIZE)).expect("it is plain");
    // Buffers find their size.
    contestant.work(10);
    let heap = measure_heap(|| {
        contestant.work(messages);
    });
    #[expect(clippy::cast_possible_truncation, reason = "a count that fits the memory")]
    let count = heap.count_total as usize;
    row("heap allocations a message", peer, 10.0, as_f64(count) / as_f64(messages))
}

fn instructions(traced: Traced, messages: usize) -> Row {
    let what = format!("instructions in user space a message: {}", traced.peer.name());
    match traced.instructions(messages) {
        Some(each) => Row::shown(what, "", Spread::exactly(each)),
        None => Row::unmeasured(what, None, "valgrind does not run here"),
    }
}
