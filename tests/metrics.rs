//! What a dashboard sees of load, outage and recovery is what the status shows, what the server counted, and what the page promises.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use common::*;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use smtp_pool::testing::{Action, Script, Stage, TestServer};
use smtp_pool::{FailureKind, HostState, MetricsObserver, PoolStatus, SendOptions, SmtpSender, SmtpSenderBuilder};

const PAGE: &str = include_str!("../src/guide/logging_and_metrics.md");

/// What a Prometheus server reads, taken apart: the type of each family, and the value of each series.
#[derive(Debug, Default)]
struct Scrape {
    types: BTreeMap<String, String>,
    helps: BTreeSet<String>,
    series: Vec<(String, BTreeMap<String, String>, f64)>,
}

impl Scrape {
    fn of(text: &str) -> Self {
        let mut scrape = Self::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(help) = line.strip_prefix("# HELP ") {
                scrape.helps.insert(help.split(' ').next().unwrap().to_owned());
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                scrape.types.insert(name.to_owned(), kind.to_owned());
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let (name, labels) = series.split_once('{').unwrap_or((series, ""));
                let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty());
                let labels = labels.map(|label| {
                    let (key, value) = label.split_once('=').unwrap();
                    (key.to_owned(), value.trim_matches('"').to_owned())
                });
                scrape.series.push((name.to_owned(), labels.collect(), value.parse().unwrap()));
            }
        }
        scrape
    }

    /// The sum of all series of this name with these labels among theirs.
    fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let name = format!("smtp_pool_{}", name.replace('.', "_"));
        let has = |all: &BTreeMap<String, String>| {
            labels.iter().all(|(key, value)| all.get(*key).is_some_and(|it| it == value))
        };
        let found = self.series.iter().filter(|(it, all, _)| *it == name && has(all)).map(|(.., value)| value);
        found.sum()
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let sum = self.sum(name, labels);
        assert!(sum >= 0.0 && sum.fract() == 0.0, "{name} {labels:?} is {sum}");
        sum as u64
    }

    /// How many series have a value for this label, by it.
    fn values(&self, name: &str, label: &str) -> BTreeSet<&str> {
        let name = format!("smtp_pool_{}", name.replace('.', "_"));
        let series = self.series.iter().filter(|(it, _, value)| *it == name && *value > 0.0);
        series.filter_map(|(_, labels, _)| labels.get(label).map(|value| &**value)).collect()
    }

    /// Everything that the status of the only sender knows as well.
    fn is_as(&self, status: &PoolStatus) -> Result<(), String> {
        let mut expected = vec![
            ("waiters", vec![], status.counts.waiting as u64),
            ("connections.active", vec![], status.counts.leased as u64),
            ("connections.idle", vec![], status.counts.idle as u64),
            ("connections.created", vec![], status.created),
            ("connections.create_failures", vec![], status.create_failures),
            ("connections.dropped", vec![], status.discarded.total()),
            ("acquire.exhausted", vec![], status.exhausted),
        ];
        for (reason, count) in status.discarded.iter() {
            expected.push(("connections.dropped", vec![("reason", reason.as_str())], count));
        }
        let hosts: Vec<String> = status.hosts.iter().map(|host| host.endpoint.to_string()).collect();
        for (host, name) in status.hosts.iter().zip(&hosts) {
            let of = |count: usize| count as u64;
            let label = vec![("host", &**name)];
            expected.push(("connections.active", label.clone(), of(host.leased)));
            expected.push(("connections.idle", label.clone(), of(host.idle)));
            expected.push(("connections.created", label.clone(), host.created));
            let is_cooling = matches!(host.state, HostState::CoolingDown { .. });
            expected.push(("host.cooldown_active", label.clone(), u64::from(is_cooling)));
            expected.push(("host.available", label, u64::from(host.state == HostState::Available)));
        }
        for (name, labels, expected) in expected {
            let found = self.count(name, &labels);
            if found != expected {
                return Err(format!("{name} {labels:?} is {found}, not {expected} as in {status:?}"));
            }
        }
        Ok(())
    }
}

struct Dashboard(PrometheusHandle);

impl Dashboard {
    fn scrape(&self) -> Scrape {
        Scrape::of(&self.0.render())
    }

    /// The scrape of a moment at which what is told and what is shown is the same, and `is_so`. Others may be about to tell.
    fn at(
        &self,
        what: &str,
        sender: &SmtpSender,
        is_so: impl Fn(&Scrape, &PoolStatus) -> bool,
    ) -> (Scrape, PoolStatus) {
        let mut found = None;
        eventually(what, || {
            let before = sender.status();
            let scrape = self.scrape();
            let after = sender.status();
            let is_still = before.counts == after.counts && before.hosts == after.hosts;
            let is_it = is_still && scrape.is_as(&after).is_ok() && is_so(&scrape, &after);
            found = is_it.then_some((scrape, after));
            is_it
        });
        found.unwrap()
    }
}

/// The table on the page: metric → type, labels.
fn table() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let rows = PAGE.lines().skip_while(|line| !line.starts_with("| metric |")).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let cells = rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    let table = cells.map(|cells| {
        let [name, kind, labels, _question] = cells[..] else { panic!("{cells:?}") };
        let labels = labels.split_whitespace().map(|label| label.trim_matches('`').to_owned()).collect();
        (name.trim_matches('`').replace('.', "_"), (kind.to_owned(), labels))
    });
    table.collect()
}

/// SPEC §10, word for word.
const NAMES: [&str; 20] = [
    "smtp_pool.connections.active",
    "smtp_pool.connections.idle",
    "smtp_pool.connections.created",
    "smtp_pool.connections.dropped",
    "smtp_pool.connections.create_failures",
    "smtp_pool.waiters",
    "smtp_pool.acquire.wait_time",
    "smtp_pool.acquire.exhausted",
    "smtp_pool.lease.duration",
    "smtp_pool.keepalive.failures",
    "smtp_pool.reconnect.suppressed",
    "smtp_pool.host.cooldown_active",
    "smtp_pool.host.available",
    "smtp_pool.send.duration",
    "smtp_pool.send.success",
    "smtp_pool.send.failed",
    "smtp_pool.send.retry",
    "smtp_pool.send.ambiguous",
    "smtp_pool.send.definitely_not_accepted",
    "smtp_pool.send.classification",
];

fn observed(builder: SmtpSenderBuilder) -> SmtpSender {
    builder.observer(MetricsObserver::new()).build().unwrap()
}

// One story, because the recorder is the process's.
#[test]
fn a_dashboard_sees_load_outage_and_recovery_as_they_are() {
    let builder = PrometheusBuilder::new().set_buckets(&[0.001, 0.01, 0.1, 1.0, 10.0]).unwrap();
    let board = Dashboard(builder.install_recorder().unwrap());
    let server = TestServer::start();
    let host = format!("127.0.0.1:{}", server.port());
    let on_host = [("host", &*host)];
    let sender = observed(
        sender(plain(&server))
            .max_size(4)
            .max_retries(1)
            .retry_base_delay(ms(1))
            .reconnect_cooldown(ms(50))
            .max_reconnect_cooldown(ms(200)),
    );

    // A new sender: its host is there, and nothing has happened.
    let (scrape, _) = board.at("a new sender", &sender, |_, _| true);
    assert_eq!(scrape.sum("host.available", &on_host), 1.0);
    for name in ["send.success", "send.ambiguous", "keepalive.failures", "reconnect.suppressed", "acquire.exhausted"] {
        let there = scrape.series.iter().any(|(it, ..)| *it == format!("smtp_pool_{}", name.replace('.', "_")));
        assert!(there && scrape.sum(name, &[]) == 0.0, "{name} begins at zero");
    }

    load(&board, &server, &sender, &host);
    outage_and_recovery(&board, &server, &sender, &host);
    two_senders(&board, &server, &sender, &host);

    // The end of the sender takes out what it had.
    assert!(sender.shutdown(PATIENCE));
    let scrape = board.scrape();
    for gauge in ["connections.active", "connections.idle", "waiters", "host.available", "host.cooldown_active"] {
        assert_eq!(scrape.sum(gauge, &[]), 0.0, "{gauge}");
        assert!(scrape.series.iter().filter(|(name, ..)| name.ends_with(gauge)).all(|(.., value)| *value == 0.0));
    }
    assert!(scrape.count("connections.dropped", &[("reason", "shutdown")]) > 0);

    every_metric_is_on_the_page_and_the_other_way_round(&scrape);
}

fn load(board: &Dashboard, server: &TestServer, sender: &SmtpSender, host: &str) {
    const WAITING: usize = 3;
    let on_host = [("host", host)];
    // Four hold all connections, three wait.
    server.set_script(Script::new().on(Stage::Mail, [Action::barrier("held"), Action::Default]));
    thread::scope(|scope| {
        let holds = |number: usize| move || send(sender, &format!("held{number}@metrics")).unwrap();
        let holders: Vec<_> = (0..4).map(|number| scope.spawn(holds(number))).collect();
        assert!(server.wait_for(|seen| seen.barrier_reached("held") == 4, PATIENCE));
        let waiters: Vec<_> = (4..4 + WAITING).map(|number| scope.spawn(holds(number))).collect();
        let (scrape, status) =
            board.at("all in use", sender, |_, status| status.counts.leased == 4 && status.counts.waiting == WAITING);
        assert_eq!(scrape.count("waiters", &[]), WAITING as u64);
        assert_eq!(scrape.count("connections.active", &on_host), 4, "{status:?}");
        assert_eq!(scrape.count("connections.active", &on_host), server.connections_open() as u64);
        assert_eq!(scrape.count("send.success", &on_host), 0);
        // One whose time is over before.
        let error = send_to(sender, "late@metrics", 1, &SendOptions::new().deadline(now() + ms(30))).unwrap_err();
        assert_eq!(error.kind(), FailureKind::PoolExhausted);
        server.set_script(Script::new());
        server.release("held");
        holders.into_iter().chain(waiters).for_each(|thread| drop(thread.join().unwrap()));
    });
    let (scrape, status) = board.at("all sent", sender, |_, status| status.counts.idle == status.counts.total);
    assert_eq!(scrape.count("send.success", &on_host), 4 + WAITING as u64);
    assert_eq!(
        scrape.count("send.failed", &[("host", "none"), ("kind", "pool_exhausted"), ("stage", "before_connect")]),
        1
    );
    // Those who got a connection, and the one whose time was over.
    assert_eq!(scrape.count("acquire.wait_time_count", &[]), 4 + WAITING as u64 + 1);
    assert!(scrape.sum("acquire.wait_time_sum", &[]) >= 0.03, "the time that was over");
    assert_eq!(scrape.count("connections.created", &on_host), status.counts.total as u64);

    // One is refused for now. A used session's refusal is met with a fresh one, which is no attempt of its own.
    server.set_script(Script::new().once(Stage::Mail, [Action::reply("451 4.3.0 later\r\n")]));
    assert_eq!(send(sender, "again@metrics").unwrap().attempts(), 1);
    // One for good, and one is cut behind its last byte although it was accepted.
    server.set_script(Script::new().once(Stage::Rcpt, [Action::reply("550 5.1.1 no\r\n")]));
    assert_eq!(send(sender, "never@metrics").unwrap_err().kind(), FailureKind::PermanentFailure);
    server.set_script(Script::new().once(Stage::EndOfData, [Action::Accept, Action::Fin]));
    assert_eq!(send(sender, "perhaps@metrics").unwrap_err().kind(), FailureKind::UnknownAfterData);
    // On a connection that was opened for it a refusal is what it says, and another attempt follows.
    for number in 1..=server.connections_accepted() {
        server.connection(number).close();
    }
    server.set_script(Script::new().once(Stage::Mail, [Action::reply("451 4.3.0 later\r\n")]));
    assert_eq!(send(sender, "retried@metrics").unwrap().attempts(), 2);
    server.set_script(Script::new());

    let (scrape, _) = board.at("after the refusals", sender, |_, status| status.counts.leased == 0);
    let sent = scrape.count("send.success", &on_host);
    assert_eq!(sent + 1, server.messages().len() as u64, "and the one that nobody knows of");
    assert_eq!(scrape.count("send.ambiguous", &on_host), 1);
    assert_eq!(scrape.count("send.failed", &[("kind", "unknown_after_data"), ("stage", "data_completed")]), 1);
    assert_eq!(scrape.count("send.failed", &[("kind", "permanent_failure"), ("stage", "envelope_started")]), 1);
    assert_eq!(scrape.count("send.failed", &[]), 3);
    assert_eq!(scrape.count("send.definitely_not_accepted", &[]), 2);
    assert_eq!(scrape.count("send.retry", &[("kind", "retryable_temporary_failure")]), 1);
    // Both 451, the 550, and the cut.
    let classified = scrape.values("send.classification", "kind");
    assert!(classified.contains("permanent_failure") && classified.contains("unknown_after_data"), "{classified:?}");
    assert_eq!(scrape.count("send.classification", &on_host), 4, "{:?}", scrape.series);
    assert_eq!(scrape.count("send.duration_count", &[("kind", "accepted")]), sent);
    assert_eq!(scrape.count("send.duration_count", &[]), sent + 3);
    assert_eq!(scrape.count("connections.created", &on_host), server.connections_accepted() as u64);
    assert_eq!(scrape.count("connections.idle", &on_host), server.connections_open() as u64);
}

fn outage_and_recovery(board: &Dashboard, server: &TestServer, sender: &SmtpSender, host: &str) {
    let on_host = [("host", host)];
    let before = board.scrape();
    server.stop_accepting();
    for number in 1..=server.connections_accepted() {
        server.connection(number).close();
    }
    let mut failed = 0;
    eventually("the cooldown is seen to spare the host calls", || {
        send_to(sender, "lost@metrics", 1, &SendOptions::new().deadline(now() + ms(20))).unwrap_err();
        failed += 1;
        let scrape = board.scrape();
        scrape.sum("host.cooldown_active", &on_host) == 1.0 && scrape.sum("reconnect.suppressed", &on_host) >= 3.0
    });
    let (scrape, status) = board.at("an outage", sender, |_, _| true);
    assert_eq!((status.counts.total, status.created), (0, server.connections_accepted() as u64));
    assert!(
        scrape.count("connections.create_failures", &on_host) > before.count("connections.create_failures", &on_host)
    );
    assert!(
        scrape.count("connections.dropped", &[("reason", "server_closed")])
            > before.count("connections.dropped", &[("reason", "server_closed")])
    );
    assert_eq!(scrape.count("send.success", &[]), before.count("send.success", &[]), "nothing is sent");
    let ends = scrape.count("send.failed", &[]) - before.count("send.failed", &[]);
    let safe = scrape.count("send.definitely_not_accepted", &[]) - before.count("send.definitely_not_accepted", &[]);
    assert_eq!(ends, safe, "and nothing in doubt");

    server.resume_accepting();
    eventually("it works again", || {
        let is_sent = send(sender, "back@metrics").is_ok();
        failed += u64::from(!is_sent);
        is_sent
    });
    let (scrape, _) = board.at("recovered", sender, |_, status| status.counts.leased + status.counts.connecting == 0);
    assert_eq!((scrape.sum("host.cooldown_active", &on_host), scrape.sum("host.available", &on_host)), (0.0, 1.0));
    assert_eq!(scrape.count("send.success", &[]), before.count("send.success", &[]) + 1);
    assert_eq!(scrape.count("send.failed", &[]), before.count("send.failed", &[]) + failed, "as the callers were told");
    assert_eq!(scrape.count("connections.created", &on_host), server.connections_accepted() as u64);
    assert_eq!(server.accepted("back@metrics"), 1);
    // As many leases ended as were begun.
    let begun = scrape.count("acquire.wait_time_count", &[]) - scrape.count("acquire.exhausted", &[]);
    assert_eq!(scrape.count("lease.duration_count", &on_host), begun);
}

fn two_senders(board: &Dashboard, server: &TestServer, first: &SmtpSender, host: &str) {
    let on_host = [("host", host)];
    let before = board.scrape();
    server.set_script(Script::new().on(Stage::Rset, [Action::Fin]));
    let second = observed(sender(plain(server)).keepalive_interval(ms(40)));
    assert_eq!(board.scrape().sum("host.available", &on_host), 2.0, "they add up");
    send(&second, "second@metrics").unwrap();
    eventually("a probe fails", || board.scrape().sum("keepalive.failures", &on_host) == 1.0);
    drop(second);
    let scrape = board.scrape();
    assert_eq!(scrape.sum("host.available", &on_host), 1.0);
    assert_eq!(scrape.count("connections.idle", &on_host), first.status().counts.idle as u64);
    let dropped = |scrape: &Scrape| scrape.count("connections.dropped", &[("reason", "keepalive_failure")]);
    assert_eq!(dropped(&scrape), dropped(&before) + 1);
    assert_eq!(scrape.count("connections.created", &on_host), server.connections_accepted() as u64);
}

fn every_metric_is_on_the_page_and_the_other_way_round(scrape: &Scrape) {
    let table = table();
    let of_the_specification: BTreeSet<String> = NAMES.iter().map(|name| name.replace('.', "_")).collect();
    assert_eq!(table.keys().cloned().collect::<BTreeSet<_>>(), of_the_specification, "page and specification");
    let types: BTreeMap<_, _> = table.iter().map(|(name, (kind, _))| (name.clone(), kind.clone())).collect();
    assert_eq!(scrape.types, types, "scrape and page");
    assert_eq!(scrape.helps, of_the_specification, "each is described");
    for (name, labels, _) in &scrape.series {
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let labels: BTreeSet<String> = labels.keys().filter(|&label| label != "le").cloned().collect();
        assert_eq!(labels, table[family].1, "{name}");
    }
}
