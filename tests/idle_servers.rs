//! Connections that nobody uses: servers that hang up on them cost nothing, probes are few and cheap, a reserve is kept.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

mod common;
#[path = "common/doors.rs"]
mod doors;

use std::thread;

use common::*;
use doors::IdleCutter;
use smtp_pool::testing::{Action, Script, Security, Stage, TestServer};
use smtp_pool::{DiscardReason, FailureKind, HostState, KeepaliveCommand, SmtpSender};

fn never_probing(host: smtp_pool::Host) -> smtp_pool::SmtpSenderBuilder {
    sender(host).keepalive_interval(None).reconnect_cooldown(HOUR).max_reconnect_cooldown(HOUR)
}

/// A thousand messages with pauses around the server's limit. Its real scale is seconds; the races are the same.
fn a_hasty_server_costs_nothing(farewell: &'static [u8]) {
    const THREADS: usize = 8;
    const MESSAGES: usize = 125;
    let limit = ms(20);
    let server = TestServer::start();
    let cutter = IdleCutter::before(server.port(), limit, farewell);
    // One connection each, so that none is kept busy by the others' messages.
    let senders: Vec<_> = (0..THREADS).map(|_| never_probing(cutter.host()).max_size(1).build().unwrap()).collect();
    thread::scope(|scope| {
        for (thread, sender) in senders.iter().enumerate() {
            scope.spawn(move || {
                for number in 0..MESSAGES {
                    let receipt = send(sender, &format!("{thread}.{number}@hasty"));
                    let receipt = receipt.unwrap_or_else(|error| panic!("{error}"));
                    assert_eq!(receipt.attempts(), 1);
                    // None to twice the limit, most of them near it.
                    let spread = fastrand::f64() * fastrand::f64() * if fastrand::bool() { 1.0 } else { -1.0 };
                    pace(limit.mul_f64(1.0 + spread));
                }
            });
        }
    });
    for thread in 0..THREADS {
        for number in 0..MESSAGES {
            assert_eq!(server.accepted(&format!("{thread}.{number}@hasty")), 1);
        }
    }
    let created: u64 = senders.iter().map(|sender| sender.status().created).sum();
    eprintln!("{} messages, {created} connections, {} cut by the server", THREADS * MESSAGES, cutter.cuts());
    assert!(cutter.cuts() > 100, "the server did hang up: {}", cutter.cuts());
    assert!(usize::try_from(created).unwrap() < THREADS * MESSAGES * 9 / 10, "connections were used again");
    let seen = server.snapshot();
    assert_eq!((seen.reached(Stage::Noop), seen.reached(Stage::Rset)), (0, 0), "nothing asks on the way of a message");
    for sender in &senders {
        let status = sender.status();
        assert_eq!((status.create_failures, status.hosts[0].state), (0, HostState::Available));
        // A 421 on the heels of the 250, read together with it, is a reply that nobody asked for.
        assert!(status.discarded.of(DiscardReason::Broken) == 0 || !farewell.is_empty(), "{status:?}");
    }
    assert!(server.violations().is_empty(), "{:?}", server.violations());
}

#[test]
fn a_server_that_hangs_up_without_a_word_costs_no_message() {
    a_hasty_server_costs_nothing(b"");
}

#[test]
fn a_server_that_hangs_up_with_421_costs_no_message() {
    a_hasty_server_costs_nothing(b"421 4.4.2 idle for too long\r\n");
}

/// Commands behind the first message of the first connection.
fn probes(server: &TestServer) -> Vec<String> {
    let commands = server.transcript(1).commands().to_vec();
    let data = commands.iter().position(|line| line == "DATA").unwrap();
    commands[data + 1..].to_vec()
}

fn probed_with(command: KeepaliveCommand, verb: &str) {
    let server = TestServer::start();
    let interval = ms(20);
    let sender = sender(plain(&server)).keepalive_interval(interval).keepalive_command(command).build().unwrap();
    send(&sender, "1@probed").unwrap();
    let start = now();
    server.connection(1).wait_closed();
    let took = now() - start;
    let mut expected = vec![verb; 8];
    expected.push("QUIT");
    assert_eq!(probes(&server), expected);
    assert!(took >= interval * 9, "probes come an interval apart, not {took:?} for all");
    eventually("it is off the books", || sender.status().counts.total == 0);
    assert_eq!(sender.status().discarded.of(DiscardReason::KeepaliveFailure), 0, "nothing has failed");
    assert_eq!(sender.status().discarded.total(), 1);
}

#[test]
fn probes_are_rsets_and_stop_after_eight() {
    probed_with(KeepaliveCommand::Rset, "RSET");
}

#[test]
fn noop_is_there_for_those_who_ask_for_it() {
    probed_with(KeepaliveCommand::Noop, "NOOP");
}

#[test]
fn mail_between_starts_the_count_of_probes_anew() {
    let server = TestServer::start();
    let sender = sender(plain(&server)).max_size(1).keepalive_interval(ms(20)).build().unwrap();
    for round in 1..=4 {
        let receipt = send(&sender, &format!("{round}@anew")).unwrap();
        assert_eq!(receipt.connection_id(), 1, "the connection lives on");
        let probed = server.snapshot().reached(Stage::Rset);
        assert!(server.wait_for(|seen| seen.reached(Stage::Rset) >= probed + 5, PATIENCE));
    }
    assert_eq!(server.connections_accepted(), 1);
}

#[test]
fn a_connection_in_steady_use_is_never_probed() {
    let server = TestServer::start();
    let sender = sender(plain(&server)).max_size(1).keepalive_interval(ms(500)).build().unwrap();
    let start = now();
    let mut number = 0;
    while now() - start < ms(1100) {
        number += 1;
        send(&sender, &format!("{number}@steady")).unwrap();
    }
    let seen = server.snapshot();
    assert_eq!((seen.reached(Stage::Rset), seen.reached(Stage::Noop)), (0, 0));
}

#[test]
fn a_probe_that_hangs_delays_no_other_care() {
    // One connection of three never answers its probe; the others are probed on.
    thrice(|| {
        let hung = TestServer::builder().script(Script::new().on(Stage::Rset, [Action::Silence])).start();
        let good = TestServer::start();
        let sender = sender(plain(&hung)).host(plain(&good)).keepalive_interval(ms(100)).build().unwrap();
        send(&sender, "1@hung").unwrap();
        send(&sender, "2@hung").unwrap();
        assert!(hung.wait_for(|seen| seen.reached(Stage::Rset) == 1, PATIENCE));
        let start = now();
        let asked = good.snapshot().reached(Stage::Rset);
        assert!(good.wait_for(|seen| seen.reached(Stage::Rset) > asked, PATIENCE));
        let took = now() - start;
        assert!(took <= ms(1100) + SLACK, "a black hole holds up the care of others by 1 s at most, not {took:?}");
        // Sending is held up by nothing.
        let start = now();
        send(&sender, "3@hung").unwrap();
        assert!(now() - start <= SLACK);
    });
}

#[test]
fn min_idle_is_there_within_a_second_of_building_and_warming_up() {
    thrice(|| {
        let server = TestServer::builder().security(Security::StartTls).start();
        let start = now();
        let sender = sender(starttls(&server)).min_idle(4).build().unwrap();
        assert_eq!(sender.warm_up().unwrap(), 4);
        // What is warmed up is in use while it is, and the reserve counts what is idle: it may come to the same number once more.
        let idle = sender.status().counts.idle;
        assert!((4..=8).contains(&idle), "{}", sender.status().counts);
        let took = now() - start;
        eprintln!("four idle {took:?} after build and warm_up");
        assert!(took <= ms(1000), "{took:?}");
        assert_eq!(server.snapshot().reached(Stage::Mail), 0);
    });
}

#[test]
fn min_idle_comes_without_being_asked_for() {
    let server = TestServer::start();
    let sender = sender(plain(&server)).min_idle(4).build().unwrap();
    eventually("four are idle", || sender.status().counts.idle == 4);
    // Beside the one in use there are four idle ones, and never more.
    for number in 0..10 {
        send(&sender, &format!("{number}@reserve")).unwrap();
    }
    eventually("all is at rest", || is_at_rest(&sender));
    assert!(server.peak_connections() <= 5, "{}", server.peak_connections());
}

fn restart(server: &TestServer, sender: &SmtpSender) {
    server.stop_accepting();
    for number in 1..=server.connections_accepted() {
        server.connection(number).close();
    }
    eventually("the host cools down", || matches!(sender.status().hosts[0].state, HostState::CoolingDown { .. }));
}

#[test]
fn min_idle_is_restored_after_a_restart_and_never_while_cooling() {
    let pause = ms(500);
    let server = TestServer::start();
    let sender = sender(plain(&server))
        .min_idle(4)
        .keepalive_interval(ms(50))
        .reconnect_cooldown(pause)
        .max_reconnect_cooldown(pause)
        .build()
        .unwrap();
    eventually("four are idle", || sender.status().counts.idle == 4);
    restart(&server, &sender);
    let HostState::CoolingDown { until } = sender.status().hosts[0].state else { panic!("{:?}", sender.status()) };
    let (down, tried) = (server.connections_accepted(), sender.status().create_failures);
    server.resume_accepting();
    let returned = now();
    // The server is there, four are wanted, and yet nobody asks before the pause is over.
    eventually("the pause is over", || {
        let (status, accepted) = (sender.status(), server.connections_accepted());
        let is_over = now() >= until;
        if !is_over {
            assert_eq!((accepted, status.create_failures, status.counts.connecting), (down, tried, 0));
        }
        is_over
    });
    eventually("four are idle again", || sender.status().counts.idle == 4);
    let took = now() - returned;
    eprintln!("four idle again {took:?} after the server's return, cooldown {pause:?}");
    assert!(took <= pause + ms(500), "{took:?}");
    send(&sender, "1@restart").unwrap();
}

#[test]
fn refill_waits_for_its_delay() {
    let delay = ms(300);
    let server = TestServer::start();
    let sender = sender(plain(&server)).min_idle(2).refill_delay(delay).keepalive_interval(ms(50)).build().unwrap();
    eventually("two are idle", || sender.status().counts.idle == 2);
    let start = now();
    server.connection(1).close();
    eventually("one was found dead", || sender.status().discarded.total() == 1);
    eventually("two are idle again", || sender.status().counts.idle == 2);
    assert!(now() - start >= delay, "refilled after {:?}", now() - start);
}

#[test]
fn an_idle_connection_ends_with_its_time_and_the_reserve_stays() {
    let server = TestServer::start();
    let sender = sender(plain(&server)).min_idle(1).idle_timeout(ms(200)).keepalive_interval(None).build().unwrap();
    let leases: Vec<_> = (0..3).map(|_| sender.lease().unwrap()).collect();
    drop(leases);
    eventually("all but the reserve are closed", || sender.status().counts.idle == 1);
    let status = sender.status();
    assert!(status.discarded.of(DiscardReason::IdleTimeout) >= 2, "{status:?}");
    assert_eq!(status.discarded.of(DiscardReason::IdleTimeout), status.discarded.total());
    assert!(server.wait_for(|seen| seen.reached(Stage::Quit) >= 2, PATIENCE), "they say QUIT");
}

#[test]
fn a_connection_too_old_is_retired_when_it_is_not_in_use() {
    let server = TestServer::start();
    let sender = sender(plain(&server)).max_size(1).max_lifetime(ms(200)).keepalive_interval(None).build().unwrap();
    let mut lease = sender.lease().unwrap();
    let start = now();
    while now() - start < ms(300) {
        lease.send_raw(&envelope(1), &content("old@age")).unwrap();
        pace(ms(10));
    }
    assert_eq!(sender.status().discarded.total(), 0, "not while it is in use");
    drop(lease);
    eventually("it is retired", || sender.status().discarded.of(DiscardReason::MaxLifetime) == 1);
    server.connection(1).wait_closed();
    assert_eq!(send(&sender, "new@age").unwrap().connection_id(), 2);
}

#[test]
fn the_probe_of_a_dead_host_costs_callers_nothing() {
    // All connections die at once while idle; the next message finds out by a look, and none fails.
    let server = TestServer::start();
    let sender = never_probing(plain(&server)).max_size(4).build().unwrap();
    let leases: Vec<_> = (0..4).map(|_| sender.lease().unwrap()).collect();
    drop(leases);
    for number in 1..=4 {
        server.connection(number).reset();
    }
    for number in 0..10 {
        let receipt = send(&sender, &format!("{number}@looked"));
        assert_eq!(receipt.unwrap_or_else(|error| panic!("{error}")).attempts(), 1);
    }
    let status = sender.status();
    assert_eq!(status.hosts[0].state, HostState::Available);
    assert_eq!(status.discarded.of(DiscardReason::ServerClosed), status.discarded.total(), "{status:?}");
    // And when the host is gone, that is what the caller is told.
    server.stop_accepting();
    for number in 1..=server.connections_accepted() {
        server.connection(number).close();
    }
    let error = send(&sender, "gone@looked").unwrap_err();
    assert_eq!(error.kind(), FailureKind::HostUnavailable, "{error}");
}
