//! Messages per second, against everybody else, over loopback.

use std::time::Duration;

use smtp_pool::testing::{Security, TestServer};

use crate::Plan;
use crate::client::{Load, Peer, Server, connect_all};
use crate::machine::OneCore;
use crate::paired::{Effort, Rates, compete};
use crate::postfix::{Postfix, free_port};
use crate::report::{Bar, Bound, Panel, Report, Row};
use crate::sink::Sink;

const SMALL: usize = 700;
const LARGE: usize = 100_000;

/// Against smtp-sink, which takes everything and keeps nothing.
pub fn plain(plan: &Plan, report: &mut Report) {
    // The figures with a promise are close to it, so they get the most rounds.
    for (connections, size, rounds) in [(1, SMALL, 21), (8, SMALL, 15), (1, LARGE, 7), (8, LARGE, 7)] {
        let one_core = (connections == 1).then(OneCore::enter);
        let sink = Sink::forgetful(free_port());
        let load = Load::new(Server::plain(sink.port()), connections, size);
        let rates = run(&load, plan.effort(rounds, Duration::from_millis(300)));
        let title = format!("{}{}", title(&load), if one_core.is_some() { " on one core" } else { "" });
        let mut rows = absolute(&rates);
        let pool = Peer::Pool.name();
        for (peer, bound) in promises(connections, size) {
            let what = format!("messages/s, {title}: against {}", peer.name());
            let ratio = rates.ratio(pool, peer.name());
            rows.push(match bound {
                Some(bound) => Row::promised(what, "×", Bound::AtLeast(bound), ratio),
                None => Row::shown(what, "×", ratio),
            });
        }
        report.add(&format!("throughput, smtp-sink, {title}"), rows);
        report.panels.push(panel(format!("smtp-sink, {title}"), &rates));
    }
}

/// What SPEC §12 says of each peer.
fn promises(connections: usize, size: usize) -> Vec<(Peer, Option<f64>)> {
    let bound = |peer| match (peer, connections, size) {
        (Peer::RawPipelining, 1 | 8, SMALL) => Some(0.95),
        (Peer::RawSequential, 1, SMALL) => Some(1.7),
        (Peer::SmtpSource, 1, SMALL) => Some(2.0),
        (Peer::LettrePool, 1, SMALL) => Some(100.0),
        _ => None,
    };
    Peer::ALL.into_iter().filter(|&peer| peer != Peer::Pool).map(|peer| (peer, bound(peer))).collect()
}

/// Against servers with STARTTLS: a real Postfix, whose queue is the slowest part of everything here, and the embedded server,
/// which keeps nothing and leaves more of the figure to the client.
pub fn tls(plan: &Plan, report: &mut Report) {
    // Everybody's mail is taken and thrown away.
    let postfix = Postfix::start_with(
        "mynetworks = 127.0.0.0/8;smtpd_relay_restrictions = permit_mynetworks, reject;\
         smtpd_recipient_restrictions = permit_mynetworks, reject;virtual_mailbox_domains =;virtual_mailbox_maps =",
    );
    let embedded =
        TestServer::builder().security(Security::StartTls).size(None).record(false).keep_messages(false).start();
    let servers = [
        ("Postfix", Server::starttls(postfix.smtp_port(), postfix.ca("ca"))),
        ("embedded server", Server::starttls(embedded.port(), embedded.root_certificate_pem().into_bytes())),
    ];
    for (name, server) in servers {
        let loads = [(1, SMALL), (8, SMALL), (1, LARGE), (8, LARGE)];
        for &(connections, size) in &loads[..plan.times(loads.len(), 1)] {
            let load = Load::new(server.clone(), connections, size);
            let rates = run(&load, plan.effort(5, Duration::from_millis(250)));
            let title = format!("STARTTLS, {name}, {}", title(&load));
            let mut rows = absolute(&rates);
            for other in rates.names().filter(|&other| other != Peer::Pool.name()) {
                let what = format!("messages/s: against {other}");
                rows.push(Row::shown(what, "×", rates.ratio(Peer::Pool.name(), other)));
            }
            report.add(&title, rows);
            if size == SMALL {
                report.panels.push(panel(title, &rates));
            }
        }
    }
}

fn run(load: &Load, effort: Effort) -> Rates {
    compete(&mut connect_all(&Peer::ALL, load), effort)
}

fn title(load: &Load) -> String {
    let connections = if load.connections == 1 { "connection" } else { "connections" };
    let size = if load.size < 1000 { format!("{} B", load.size) } else { format!("{} kB", load.size / 1000) };
    format!("{} {connections}, {size}", load.connections)
}

/// What the ratios are made of. It tells about this machine, at this moment.
pub fn absolute(rates: &Rates) -> Vec<Row> {
    rates.names().map(|name| Row::shown(format!("{name}, messages/s here"), "/s", rates.of(name))).collect()
}

pub fn panel(title: String, rates: &Rates) -> Panel {
    let limit = Peer::RawPipelining.name();
    let bars = rates.names().map(|name| Bar { name: name.to_owned(), ratio: rates.ratio(name, limit) });
    Panel { title, bars: bars.collect() }
}
