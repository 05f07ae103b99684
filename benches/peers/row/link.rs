//! The same over a link with a round trip of 20 ms, where round trips are all that counts.

use std::time::Duration;

use smtp_pool::testing::TestServer;

use crate::Plan;
use crate::client::{Load, Peer, Server};
use crate::paired::{Spread, as_f64, compete};
use crate::postfix::free_port;
use crate::relay::Relay;
use crate::report::{Bound, Report, Row};
use crate::row::throughput::{absolute, panel};
use crate::sink::Sink;

const ROUND_TRIP: Duration = Duration::from_millis(20);
const PEERS: [Peer; 6] =
    [Peer::Pool, Peer::RawPipelining, Peer::RawSequential, Peer::SmtpSource, Peer::R2d2, Peer::LettrePool];

pub fn measure(plan: &Plan, report: &mut Report) {
    two_round_trips(plan, report);
    one_round_trip(plan, report);
}

fn two_round_trips(plan: &Plan, report: &mut Report) {
    let sink = Sink::forgetful(free_port());
    let relay = Relay::before(sink.port(), ROUND_TRIP);
    let load = Load::new(Server::plain(relay.port()), 1, 700);
    let mut turns = Vec::new();
    let mut contestants = Vec::new();
    for peer in PEERS {
        let mut contestant = peer.connect(&load).expect("it is plain");
        // The program connects anew in each run, so that its turns cannot be told from those of its greeting.
        if peer != Peer::SmtpSource {
            turns.push((peer, turns_each(contestant.as_mut(), &relay, plan.times(20, 3))));
        }
        contestants.push(contestant);
    }
    let rates = compete(&mut contestants, plan.effort(5, Duration::from_millis(1200)));

    let mut rows = absolute(&rates);
    for (peer, each) in turns {
        let what = format!("round trips a message, 20 ms link: {}", peer.name());
        rows.push(match peer {
            Peer::Pool => Row::promised(what, "", Bound::AtMost(2.0), Spread::exactly(each)),
            _ => Row::shown(what, "", Spread::exactly(each)),
        });
    }
    for peer in &PEERS[1..] {
        let what = format!("messages/s: against {}", peer.name());
        rows.push(Row::shown(what, "×", rates.ratio(Peer::Pool.name(), peer.name())));
    }
    report.add("a link with a round trip of 20 ms, smtp-sink, 1 connection, 700 B", rows);
    report.panels.push(panel("20 ms round trip, 1 connection, 700 B".to_owned(), &rates));
}

/// The same where everything may leave in one write: the server must offer CHUNKING, which smtp-sink does not.
fn one_round_trip(plan: &Plan, report: &mut Report) {
    let server = TestServer::builder().chunking(true).record(false).keep_messages(false).start();
    let relay = Relay::before(server.port(), ROUND_TRIP);
    let load = Load::new(Server::plain(relay.port()), 1, 700);
    let what = |peer: Peer| format!("round trips a message, 20 ms link: {}", peer.name());
    let mut rows = Vec::new();
    let mut contestants = Vec::new();
    for peer in [Peer::PoolAtOnce, Peer::RawAtOnce, Peer::Pool] {
        let Some(mut contestant) = peer.connect(&load) else {
            rows.push(Row::unmeasured(what(peer), Some(Bound::AtMost(1.0)), "this version has no such option"));
            continue;
        };
        let each = Spread::exactly(turns_each(contestant.as_mut(), &relay, plan.times(20, 3)));
        rows.push(match peer {
            Peer::PoolAtOnce => Row::promised(what(peer), "", Bound::AtMost(1.0), each),
            _ => Row::shown(what(peer), "", each),
        });
        contestants.push(contestant);
    }
    let rates = compete(&mut contestants, plan.effort(5, Duration::from_millis(1200)));
    rows.extend(absolute(&rates));
    report.add("the same link, embedded server with CHUNKING", rows);
}

/// How often the dialogue turns for a message once the connection is there.
fn turns_each(contestant: &mut dyn crate::paired::Contestant, relay: &Relay, messages: usize) -> f64 {
    contestant.work(1);
    let before = relay.turns();
    contestant.work(messages);
    as_f64(relay.turns() - before) / as_f64(messages)
}
