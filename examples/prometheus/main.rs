//! What a Prometheus server reads of a load, an outage and a recovery.
//!
//! ```text
//! cargo run --example prometheus > scrape.txt      # the scrape; what happens meanwhile is told beside it
//! ```
//!
//! Beside this file are a dashboard for Grafana, `grafana-dashboard.json` (Dashboards, New, Import), and rules for Prometheus,
//! `alerts.yml` (`rule_files:` in its configuration), each with what to do about it. They need histograms with buckets, as they are set
//! here: without them `metrics-exporter-prometheus` writes summaries, whose quantiles cannot be added up over processes.
//!
//! There is no listener in here. `PrometheusHandle::render` is the body of whatever `/metrics` your program has;
//! `examples/web_form` serves it.

#![allow(missing_docs, reason = "a program has no users but its own")]

mod load;

use std::error::Error;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use smtp_pool::testing::{Action, Script, Stage, TestServer};
use smtp_pool::{FailureKind, Host, MetricsObserver, SmtpSender};

use load::{Load, Tally, eventually};

/// From a connection that is there to the patience of `final_reply_timeout`.
const BUCKETS: [f64; 12] = [0.001, 0.005, 0.02, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0];

fn main() -> Result<(), Box<dyn Error>> {
    // First of all, so that the counters of the sender begin in it.
    let recorder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Prefix("smtp_pool".into()), &BUCKETS)?;
    let metrics = recorder.install_recorder()?;

    let (primary, standby) = (TestServer::start(), TestServer::start());
    let sender = SmtpSender::builder()
        .host(Host::plain("127.0.0.1").port(primary.port()))
        .host(Host::plain("127.0.0.1").port(standby.port()).priority(10))
        .max_size(4)
        .acquire_timeout(Duration::from_millis(500))
        .reconnect_cooldown(Duration::from_millis(200))
        .max_reconnect_cooldown(Duration::from_millis(400))
        .retry_base_delay(Duration::from_millis(10))
        .observer(MetricsObserver::new())
        .build()?;
    eprintln!("Two relays: 127.0.0.1:{} and, as its standby, 127.0.0.1:{}.", primary.port(), standby.port());

    // All connections are taken and stay so, until somebody has waited in vain.
    primary.set_script(Script::new().on(Stage::Mail, [Action::barrier("held"), Action::Default]));
    let mut tally = load::fill_up(&sender, &primary, 4);
    report("All connections taken", &tally);

    primary.set_script(Script::new());
    tally.add(Load { threads: 8, mails: 50 }.run(&sender));
    report("A load", &tally);

    primary.set_script(
        Script::new()
            .once(Stage::EndOfData, [Action::Accept, Action::Reset])
            .once(Stage::Rcpt, [Action::reply("550 5.1.1 no such user\r\n")]),
    );
    tally.add(Load { threads: 2, mails: 20 }.run(&sender));
    report("A cut behind the last byte, and a refusal", &tally);

    take_down(&primary);
    tally.add(Load { threads: 8, mails: 50 }.run(&sender));
    report("The primary is down, the standby takes over", &tally);

    take_down(&standby);
    tally.add(Load { threads: 4, mails: 5 }.run(&sender));
    report("Both are down", &tally);

    primary.resume_accepting();
    standby.resume_accepting();
    eventually(|| {
        let one = Load { threads: 1, mails: 1 }.run(&sender);
        let is_sent = one.sent == 1;
        tally.add(one);
        is_sent
    })?;
    tally.add(Load { threads: 8, mails: 50 }.run(&sender));
    report("Both are back", &tally);

    // A program that is not scraped has to do this every few seconds, or the samples of its histograms pile up.
    metrics.run_upkeep();
    let scrape = metrics.render();
    println!("{scrape}");

    // What the scrape says has to be what the callers were told.
    let told = [
        ("smtp_pool_send_success", tally.sent),
        ("smtp_pool_send_ambiguous", tally.failed(FailureKind::UnknownAfterData)),
        ("smtp_pool_send_failed", tally.failures()),
        ("smtp_pool_acquire_exhausted", tally.failed(FailureKind::PoolExhausted)),
    ];
    for (name, told) in told {
        let scraped = sum(&scrape, name)?;
        eprintln!("{name} {scraped}, and the callers were told {told}");
        if scraped != told {
            return Err(format!("{name} is not what the callers were told").into());
        }
    }
    Ok(())
}

fn report(what: &str, tally: &Tally) {
    eprintln!("{what}: {tally}");
}

fn take_down(server: &TestServer) {
    server.stop_accepting();
    (1..=server.connections_accepted()).for_each(|number| server.connection(number).close());
}

/// A counter, over all its labels.
fn sum(scrape: &str, name: &str) -> Result<u64, std::num::ParseIntError> {
    let lines = scrape.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    lines.filter_map(|line| line.rsplit(' ').next()).map(str::parse::<u64>).sum()
}
