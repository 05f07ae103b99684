//! What a large message costs in memory beside itself.

use allocation_counter::measure as measure_heap;

use smtp_pool::testing::TestServer;

use crate::Plan;
use crate::client::{Load, Peer, Server};
use crate::paired::{Spread, as_f64};
use crate::report::{Bound, Report, Row};

const SIZE: usize = 25_000_000;

/// The most heap that the sending thread has at a time, beyond what it had before.
pub fn measure(_: &Plan, report: &mut Report) {
    let server = TestServer::builder().size(None).record(false).keep_messages(false).start();
    let mut rows = Vec::new();
    for peer in [Peer::Pool, Peer::LettrePool, Peer::R2d2] {
        let mut contestant = peer.connect(&Load::new(Server::plain(server.port()), 1, SIZE)).expect("it is plain");
        contestant.work(1);
        let heap = measure_heap(|| {
            contestant.work(1);
        });
        #[expect(clippy::cast_possible_truncation, reason = "it fits the memory")]
        let kibibytes = Spread::exactly(as_f64(heap.bytes_max as usize) / 1024.0);
        let what = format!("most heap beside a message of 25 MB: {}", peer.name());
        rows.push(match peer {
            Peer::Pool => Row::promised(what, "KiB", Bound::AtMost(256.0), kibibytes),
            _ => Row::shown(what, "KiB", kibibytes),
        });
    }
    report.add("memory", rows);
}
