//! Ports: connections made, and sockets left in `TIME_WAIT`, by many sends.

use std::fs;

use smtp_pool::{Host, SmtpSender};

use crate::Plan;
use crate::client::{Load, Peer, Server};
use crate::mail;
use crate::paired::{Spread, as_f64};
use crate::postfix::free_port;
use crate::report::{Bound, Report, Row};
use crate::sink::Sink;

const THREADS: usize = 8;
/// A naive sender leaves a socket for each message, for a minute; so many show it, and more would use up the ports.
const NAIVE_SENDS: usize = 2000;

pub fn measure(plan: &Plan, report: &mut Report) {
    let sends = plan.times(10_000, 400);
    let mut rows = Vec::new();
    let sink = Sink::forgetful(free_port());
    if waiting_sockets(sink.port()).is_none() {
        rows.push(Row::unmeasured("TIME_WAIT", Some(Bound::AtMost(0.0)), "there is no /proc/net/tcp here"));
    } else {
        pooled(&sink, sends, &mut rows);
        naive(&sink, plan.times(NAIVE_SENDS, 200), &mut rows);
    }
    report.add("sockets", rows);
}

fn pooled(sink: &Sink, sends: usize, rows: &mut Vec<Row>) {
    let before = waiting_sockets(sink.port()).unwrap();
    let host = Host::plain("127.0.0.1").port(sink.port());
    let sender = SmtpSender::builder().host(host).max_size(THREADS).build().unwrap();
    let (envelope, content) = (mail::envelope(1), mail::content(700));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..sends / THREADS {
                    sender.send_raw(&envelope, &content).unwrap();
                }
            });
        }
    });
    let growth = waiting_sockets(sink.port()).unwrap().saturating_sub(before);
    let created = usize::try_from(sender.status().created).unwrap();
    let by = format!("{sends} sends by {THREADS} threads, smtp-pool");
    rows.push(Row::promised(
        format!("connections created: {by}"),
        "",
        Bound::AtMost(as_f64(THREADS)),
        Spread::exactly(as_f64(created)),
    ));
    rows.push(Row::promised(
        format!("TIME_WAIT growth: {by}"),
        "",
        Bound::AtMost(0.0),
        Spread::exactly(as_f64(growth)),
    ));
}

fn naive(sink: &Sink, sends: usize, rows: &mut Vec<Row>) {
    let before = waiting_sockets(sink.port()).unwrap();
    let load = Load::new(Server::plain(sink.port()), THREADS, 700);
    Peer::LettreEach.connect(&load).expect("it is plain").work(sends);
    let growth = waiting_sockets(sink.port()).unwrap().saturating_sub(before);
    let what = format!("TIME_WAIT growth for each of {sends} sends, {}", Peer::LettreEach.name());
    rows.push(Row::shown(what, "", Spread::exactly(as_f64(growth) / as_f64(sends))));
}

/// Sockets in `TIME_WAIT` with `port` at either end: whoever closes first has it.
fn waiting_sockets(port: u16) -> Option<usize> {
    const TIME_WAIT: &str = "06";
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let end = format!(":{port:04X}");
    // "sl  local_address rem_address   st …"
    let is_ours = |line: &&str| {
        let words: Vec<&str> = line.split_whitespace().take(4).collect();
        matches!(words[..], [_, local, remote, TIME_WAIT] if local.ends_with(&end) || remote.ends_with(&end))
    };
    Some(table.lines().filter(is_ours).count())
}
