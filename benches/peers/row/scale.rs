//! How the rate grows with connections, and the cost with recipients.

use std::time::Duration;

use crate::Plan;
use crate::client::{Load, Peer, Server, connect_all};
use crate::paced::PacedServer;
use crate::paired::{Spread, compete};
use crate::postfix::free_port;
use crate::report::{Report, Row};
use crate::sink::Sink;

pub fn measure(plan: &Plan, report: &mut Report) {
    connections(plan, report);
    recipients(plan, report);
}

/// A server that takes 5 ms for each message has nothing to do in them: twice the connections, twice the rate.
fn connections(plan: &Plan, report: &mut Report) {
    let server = PacedServer::start(Duration::from_millis(5));
    let mut rows = Vec::new();
    let mut alone = None;
    for connections in [1, 2, 4, 8, 16, 32, 64] {
        let load = Load::new(Server::plain(server.port()), connections, 700);
        let peers = [Peer::Pool, Peer::RawPipelining];
        let rates = compete(&mut connect_all(&peers, &load), plan.effort(5, Duration::from_millis(500)));
        let rate = rates.of(Peer::Pool.name());
        let alone = *alone.get_or_insert(rate.median);
        let growth = Spread { median: rate.median / alone, least: rate.least / alone, most: rate.most / alone, ..rate };
        rows.push(Row::shown(format!("messages/s over {connections}, against 1 connection"), "×", growth));
        let limit = rates.ratio(Peer::Pool.name(), Peer::RawPipelining.name());
        rows.push(Row::shown(format!("messages/s over {connections}, against the bare pipelining loop"), "×", limit));
    }
    report.add("a server that takes 5 ms for each message", rows);
}

fn recipients(plan: &Plan, report: &mut Report) {
    let sink = Sink::forgetful(free_port());
    let mut rows = Vec::new();
    let mut alone = None;
    for recipients in [1, 10, 150, 1000] {
        let load = Load { recipients, ..Load::new(Server::plain(sink.port()), 1, 700) };
        let peers = [Peer::Pool, Peer::RawPipelining, Peer::RawSequential, Peer::LettrePool];
        let rates = compete(&mut connect_all(&peers, &load), plan.effort(5, Duration::from_millis(250)));
        let rate = rates.of(Peer::Pool.name());
        let alone = *alone.get_or_insert(rate.median);
        // The fastest rate is the least cost.
        let cost = Spread { median: alone / rate.median, least: alone / rate.most, most: alone / rate.least, ..rate };
        rows.push(Row::shown(format!("cost of a message to {recipients}, against 1 recipient"), "×", cost));
        for peer in &peers[1..] {
            let what = format!("messages/s to {recipients}, against {}", peer.name());
            rows.push(Row::shown(what, "×", rates.ratio(Peer::Pool.name(), peer.name())));
        }
    }
    report.add("recipients, smtp-sink, 700 B", rows);
}
