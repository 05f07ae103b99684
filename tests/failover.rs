//! Several hosts: one that fails costs no message, gets no storm, and has its traffic back when it works again.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

mod common;
#[path = "common/doors.rs"]
mod doors;

use std::collections::HashMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use common::*;
use doors::{BlackHole, SlammingDoor};
use smtp_pool::testing::{Action, Script, Stage, TestServer};
use smtp_pool::{
    DiscardReason, FailureKind, Host, HostState, HostStatus, SendError, SendStage, SmtpSender, SmtpSenderBuilder,
};

fn host(sender: &SmtpSender, index: usize) -> HostStatus {
    sender.status().hosts[index].clone()
}

/// A sender with a primary and a standby host; a host that fails stays out for an hour.
fn two_tiers(primary: Host, standby: Host) -> SmtpSenderBuilder {
    sender(primary).host(standby.priority(10)).reconnect_cooldown(HOUR).max_reconnect_cooldown(HOUR)
}

#[test]
fn a_refused_primary_costs_neither_the_message_nor_an_attempt() {
    let (primary, standby) = (TestServer::start(), TestServer::start());
    primary.stop_accepting();
    let sender = two_tiers(plain(&primary), plain(&standby)).build().unwrap();
    let receipt = send(&sender, "1@refused").unwrap();
    assert_eq!((receipt.endpoint().port(), receipt.attempts()), (standby.port(), 1));
    assert_eq!((primary.accepted("1@refused"), standby.accepted("1@refused")), (0, 1));
    assert!(matches!(host(&sender, 0).state, HostState::CoolingDown { .. }));
    assert!(host(&sender, 0).last_error.is_some());
    assert_eq!((sender.status().create_failures, host(&sender, 0).consecutive_failures), (1, 1));
    // The next ones do not ask again.
    for number in 2..20 {
        send(&sender, &format!("{number}@refused")).unwrap();
    }
    assert_eq!((sender.status().create_failures, standby.connections_accepted()), (1, 1));
}

#[test]
fn every_way_of_being_down_fails_over_in_the_same_call() {
    let ways: [(&str, Script); 6] = [
        ("421 greeting", Script::new().on(Stage::Connect, [Action::reply("421 4.3.2 down\r\n"), Action::Fin])),
        ("554 greeting", Script::new().on(Stage::Connect, [Action::reply("554 5.7.1 go away\r\n")])),
        ("reset", Script::new().on(Stage::Connect, [Action::Reset])),
        ("end before the greeting", Script::new().on(Stage::Connect, [Action::Fin])),
        ("no SMTP", Script::new().on(Stage::Connect, [Action::reply("SSH-2.0-x\r\n")])),
        ("421 to EHLO", Script::new().on(Stage::Ehlo, [Action::reply("421 4.3.2 down\r\n"), Action::Fin])),
    ];
    for (way, script) in ways {
        let (primary, standby) = (TestServer::builder().script(script).start(), TestServer::start());
        let sender = two_tiers(plain(&primary), plain(&standby)).build().unwrap();
        let receipt = send(&sender, "1@down").unwrap_or_else(|error| panic!("{way}: {error}"));
        assert_eq!((receipt.endpoint().port(), receipt.attempts()), (standby.port(), 1), "{way}");
        assert!(matches!(host(&sender, 0).state, HostState::CoolingDown { .. }), "{way}: {:?}", host(&sender, 0));
    }
}

#[test]
fn when_every_host_is_down_one_call_tries_each_once_and_names_the_last_cause() {
    let doors: Vec<_> = (0..3).map(|_| SlammingDoor::open()).collect();
    let hosts = doors.iter().zip(0..).map(|(door, priority)| door.host().priority(priority));
    let sender = two_tiers(doors[0].host(), doors[1].host()).hosts(hosts).max_retries(5).build().unwrap();
    let error = send(&sender, "1@nobody").unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (FailureKind::HostUnavailable, 1), "{error}");
    assert!(error.is_retry_safe() && error.retry_after().is_some(), "{error}");
    for door in &doors {
        assert_eq!(door.times().len(), 1);
    }
    // The second call asks nobody.
    let error = send(&sender, "2@nobody").unwrap_err();
    assert_eq!((error.kind(), error.stage()), (FailureKind::HostUnavailable, SendStage::BeforeConnect), "{error}");
    assert!(error.retry_after().unwrap() > HOUR / 2, "{error}");
    assert!(doors.iter().all(|door| door.times().len() == 1));
}

/// All threads are in the middle of connecting when the host fails.
#[test]
fn sixty_four_failures_at_once_are_one_cooldown() {
    const THREADS: usize = 64;
    let pause = ms(400);
    let primary = TestServer::builder()
        .script(Script::new().on(Stage::Connect, [Action::barrier("together"), Action::Reset]))
        .start();
    let standby = TestServer::start();
    let sender = two_tiers(plain(&primary), plain(&standby))
        .max_size(THREADS)
        .reconnect_cooldown(pause)
        .max_reconnect_cooldown(HOUR)
        .build()
        .unwrap();
    thread::scope(|scope| {
        let callers: Vec<_> = (0..THREADS)
            .map(|number| {
                let sender = &sender;
                scope.spawn(move || send(sender, &format!("{number}@together")))
            })
            .collect();
        assert!(primary.wait_for(|seen| seen.barrier_reached("together") == THREADS, PATIENCE));
        primary.release("together");
        for caller in callers {
            let receipt = caller.join().unwrap().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!((receipt.endpoint().port(), receipt.attempts()), (standby.port(), 1));
        }
    });
    assert_eq!(primary.connections_accepted(), THREADS, "each thread has tried the primary once");
    assert_eq!(standby.messages().len(), THREADS);
    // Once: the pause is the first one. Had each failure counted, it would be the longest by now.
    let left = |sender: &SmtpSender| match host(sender, 0).state {
        HostState::CoolingDown { until } => until.saturating_duration_since(now()),
        _ => ms(0),
    };
    assert!(left(&sender) <= pause, "{:?} left of the first pause", left(&sender));
    assert!(host(&sender, 0).consecutive_failures >= 1);
    // And the next one is the second.
    eventually("the primary is asked again", || {
        send(&sender, "again@together").unwrap();
        primary.connections_accepted() > THREADS
    });
    eventually("the second cooldown has begun", || left(&sender) > pause);
    assert!(left(&sender) <= pause * 2, "{:?} left of the second pause", left(&sender));
    assert_eq!(primary.connections_accepted(), THREADS + 1);
}

#[test]
fn a_black_hole_leaves_the_secondary_its_time_in_the_same_call() {
    thrice(|| {
        let (hole, standby) = (BlackHole::open(), TestServer::start());
        let budget = ms(800);
        let sender = two_tiers(hole.host(), plain(&standby)).acquire_timeout(budget).build().unwrap();
        let start = now();
        let receipt = send(&sender, "1@hole").unwrap_or_else(|error| panic!("{error}"));
        let took = now() - start;
        assert_eq!((receipt.endpoint().port(), receipt.attempts()), (standby.port(), 1));
        assert!(took <= budget / 2 + SLACK, "half of the time was the primary's, not {took:?}");
        // It failed in spite of a fair share of time: nobody waits for it again.
        let start = now();
        send(&sender, "2@hole").unwrap();
        assert!(now() - start <= SLACK);
        assert!(matches!(host(&sender, 0).state, HostState::CoolingDown { .. }), "{:?}", host(&sender, 0));
    });
}

#[test]
fn a_host_that_accepts_and_never_greets_leaves_the_third_its_time_too() {
    thrice(|| {
        let silent = || TestServer::builder().script(Script::new().on(Stage::Connect, [Action::Silence])).start();
        let (first, second, good) = (silent(), silent(), TestServer::start());
        let budget = ms(900);
        let sender = two_tiers(plain(&first), plain(&second))
            .host(plain(&good).priority(20))
            .acquire_timeout(budget)
            .build()
            .unwrap();
        let start = now();
        let receipt = send(&sender, "1@silent").unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((receipt.endpoint().port(), receipt.attempts()), (good.port(), 1));
        let took = now() - start;
        assert!(took <= budget * 2 / 3 + SLACK, "a third each, not {took:?}");
    });
}

/// How many of `messages` went to each of two servers, and that each arrived once. In rounds, the answers to as many messages as there
/// are threads are held back until all of them are there: then no thread is faster than another, whatever else the machine does.
fn split(
    servers: [&TestServer; 2],
    sender: &SmtpSender,
    threads: usize,
    messages: usize,
    name: &str,
    in_rounds: bool,
) -> [usize; 2] {
    let held = |round: usize| format!("{name} {round}");
    let hold = |round| {
        let script = Script::new().on(Stage::EndOfData, [Action::barrier(held(round)), Action::Default]);
        servers.iter().for_each(|server| server.set_script(script.clone()));
    };
    let before = servers.map(|server| server.snapshot().messages());
    let next = AtomicUsize::new(0);
    let rounds = if in_rounds { messages / threads } else { 0 };
    if in_rounds {
        hold(0);
    }
    let seen = thread::scope(|scope| {
        let callers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen: HashMap<u16, usize> = HashMap::new();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= messages {
                            return seen;
                        }
                        let receipt = send(sender, &format!("{number}@{name}")).unwrap_or_else(|e| panic!("{e}"));
                        assert_eq!(receipt.attempts(), 1);
                        *seen.entry(receipt.endpoint().port()).or_default() += 1;
                    }
                })
            })
            .collect();
        for round in 0..rounds {
            let name = held(round);
            let there = || servers.iter().map(|server| server.snapshot().barrier_reached(&name)).sum::<usize>();
            eventually("all threads are there", || there() == threads);
            // Before anybody can begin the next one.
            hold(round + 1);
            servers.iter().for_each(|server| server.release(&name));
        }
        callers.into_iter().map(|caller| caller.join().unwrap()).collect::<Vec<_>>()
    });
    servers.iter().filter(|_| in_rounds).for_each(|server| server.set_script(Script::new()));
    let told = servers.map(|server| seen.iter().filter_map(|seen| seen.get(&server.port())).sum::<usize>());
    let counted = [0, 1].map(|at| servers[at].snapshot().messages() - before[at]);
    assert_eq!(told, counted, "receipts name the host that has the message");
    assert_eq!(told[0] + told[1], messages);
    told
}

fn is_three_to_one([heavy, light]: [usize; 2]) -> bool {
    let all = heavy + light;
    // 2 % of what is due to each.
    heavy.abs_diff(all * 3 / 4) * 50 <= all * 3 / 4 && light.abs_diff(all / 4) * 50 <= all / 4
}

fn weights_hold(threads: usize, max_size: usize, in_rounds: bool) {
    let server = || TestServer::builder().record(false).keep_messages(false).start();
    let (heavy, light) = (server(), server());
    let pause = ms(50);
    let sender = sender(plain(&heavy).weight(3))
        .max_size(max_size)
        .host(plain(&light))
        .reconnect_cooldown(pause)
        .max_reconnect_cooldown(pause)
        .build()
        .unwrap();
    let both = [&heavy, &light];
    let shares = split(both, &sender, threads, 4000, "weights", in_rounds);
    eprintln!("{threads} threads: {shares:?} of 4000");
    assert!(is_three_to_one(shares), "{threads} threads: {shares:?}");

    // The heavy one goes away: it refuses, and what was open to it is cut.
    heavy.stop_accepting();
    for number in 1..=heavy.connections_accepted() {
        heavy.connection(number).close();
    }
    let shares = split(both, &sender, threads, 500, "alone", false);
    assert_eq!(shares, [0, 500], "{threads} threads");

    heavy.resume_accepting();
    eventually("the host that came back gets mail", || {
        send(&sender, "probe@weights").unwrap().endpoint().port() == heavy.port()
    });
    let shares = split(both, &sender, threads, 4000, "return", in_rounds);
    eprintln!("{threads} threads, after recovery: {shares:?} of 4000");
    assert!(is_three_to_one(shares), "{threads} threads, after recovery: {shares:?}");
}

#[test]
fn weights_hold_over_sends_of_one_thread() {
    weights_hold(1, 8, false);
}

#[test]
fn weights_hold_over_sends_of_eight_threads() {
    weights_hold(8, 16, false);
}

#[test]
fn weights_hold_over_sends_of_a_saturated_pool() {
    // What comes free is lent, so that whichever server the machine lets run carries more for as long: src/pool/tests/weights.rs has that
    // in its hands. Here each connection carries as much as any other.
    weights_hold(8, 8, true);
}

#[test]
fn traffic_returns_to_the_primary_within_one_cooldown_of_its_return() {
    const THREADS: usize = 4;
    let pause = ms(300);
    let (primary, standby) = (TestServer::start(), TestServer::start());
    primary.stop_accepting();
    let sender = two_tiers(plain(&primary), plain(&standby))
        .max_size(THREADS)
        .reconnect_cooldown(pause)
        .max_reconnect_cooldown(pause)
        .build()
        .unwrap();
    // The pool is full of connections to the standby, used a moment ago.
    let ready = Barrier::new(THREADS);
    standby.set_script(Script::new().on(Stage::EndOfData, [Action::barrier("full"), Action::Default]));
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (sender, ready) = (&sender, &ready);
            scope.spawn(move || {
                ready.wait();
                send(sender, &format!("{number}@fill")).unwrap();
            });
        }
        assert!(standby.wait_for(|seen| seen.barrier_reached("full") == THREADS, PATIENCE));
        standby.release("full");
    });
    let counts = sender.status().counts;
    assert_eq!((counts.idle, counts.total, standby.connections_open()), (THREADS, THREADS, THREADS), "{counts}");

    primary.resume_accepting();
    let returned = now();
    let mut first = None;
    thread::scope(|scope| {
        let callers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let sender = &sender;
                let primary = primary.port();
                scope.spawn(move || {
                    let mut number = 0;
                    let mut last_elsewhere = returned;
                    while now() - returned < pause + ms(300) {
                        number += 1;
                        let receipt = send(sender, &format!("{thread}.{number}@return")).unwrap();
                        if receipt.endpoint().port() != primary {
                            last_elsewhere = now();
                        }
                        pace(ms(1));
                    }
                    last_elsewhere - returned
                })
            })
            .collect();
        first = callers.into_iter().map(|caller| caller.join().unwrap()).max();
    });
    let back = first.unwrap();
    eprintln!("the last message over the standby was sent {back:?} after the primary's return; cooldown {pause:?}");
    assert!(back <= pause + SLACK, "all traffic is on the primary within one cooldown, not {back:?}");
    let status = sender.status();
    assert!(status.discarded.of(DiscardReason::Evicted) >= 1, "{status:?}");
    assert_eq!(status.discarded.total(), status.discarded.of(DiscardReason::Evicted), "{status:?}");
    assert_eq!((primary.violations().len(), standby.violations().len()), (0, 0));
    // What is idle on the standby is given up little by little, and nothing else opens there.
    assert_eq!(standby.connections_accepted(), THREADS);
    assert!(standby.wait_for(|seen| seen.connections_open() == 0, PATIENCE), "the standby's connections are retired");
    assert_eq!(sender.status().discarded.of(DiscardReason::Evicted), THREADS as u64);
}

#[test]
fn each_hosts_own_bound_holds_while_others_take_more() {
    let (narrow, wide) = (TestServer::start(), TestServer::start());
    let sender =
        sender(plain(&narrow).max_connections(2)).host(plain(&wide).max_connections(3)).max_size(8).build().unwrap();
    thread::scope(|scope| {
        for thread in 0..16 {
            let sender = &sender;
            scope.spawn(move || {
                for number in 0..50 {
                    send(sender, &format!("{thread}.{number}@bounds")).unwrap();
                    let status = sender.status();
                    for (host, limit) in status.hosts.iter().zip([2, 3]) {
                        assert!(host.idle + host.leased + host.connecting <= limit, "{host:?}");
                        assert_eq!(host.connection_limit, Some(limit));
                    }
                }
            });
        }
    });
    let peaks = (narrow.peak_connections(), wide.peak_connections());
    assert!(peaks.0 <= 2 && peaks.1 <= 3, "{peaks:?}");
    assert_eq!(narrow.messages().len() + wide.messages().len(), 800);
    assert!(!narrow.messages().is_empty() && !wide.messages().is_empty());
}

#[test]
fn too_many_connections_is_a_bound_to_learn_and_costs_no_message() {
    const LIMIT: usize = 2;
    let server = TestServer::builder().max_connections(Some(LIMIT)).start();
    let sender = sender(plain(&server)).max_size(8).reconnect_cooldown(HOUR).max_reconnect_cooldown(HOUR);
    let sender = sender.build().unwrap();
    // One lives, so a refusal cannot mean that the server is down.
    send(&sender, "first@crowd").unwrap();
    thread::scope(|scope| {
        for thread in 0..16 {
            let sender = &sender;
            scope.spawn(move || {
                for number in 0..20 {
                    let result = send(sender, &format!("{thread}.{number}@crowd"));
                    let receipt = result.unwrap_or_else(|error: SendError| panic!("{error}"));
                    assert_eq!(receipt.attempts(), 1);
                }
            });
        }
    });
    assert_eq!(server.messages().len(), 1 + 16 * 20);
    assert_eq!(server.peak_connections(), LIMIT);
    let status = host(&sender, 0);
    let refused = server.connections_accepted() - usize::try_from(sender.status().created).unwrap();
    eprintln!("{refused} connections refused, limit learned {:?}", status.connection_limit);
    assert!(refused >= 1, "the limit was met");
    assert!(status.connection_limit.is_some_and(|limit| limit < 8), "{status:?}");
    assert_eq!(status.state, HostState::Available, "a crowd is no outage");
}

#[test]
fn what_may_have_been_accepted_goes_to_no_other_host() {
    for (accepted, end) in [(0, Action::Fin), (1, Action::Fin), (0, Action::Reset), (1, Action::Reset)] {
        let actions = if accepted == 1 { vec![Action::Accept, end] } else { vec![end] };
        let primary = TestServer::builder().script(Script::new().on(Stage::EndOfData, actions)).start();
        let standby = TestServer::start();
        let sender =
            two_tiers(plain(&primary), plain(&standby)).max_retries(3).retry_base_delay(ms(1)).build().unwrap();
        let error = send(&sender, "1@unknown").unwrap_err();
        assert_eq!((error.kind(), error.attempts()), (FailureKind::UnknownAfterData, 1), "{error}");
        // One attempt crossed the commit point, and no other was made, though retries and a healthy host were left.
        assert_eq!((primary.snapshot().reached(Stage::EndOfData), primary.accepted("1@unknown")), (1, accepted));
        assert_eq!(standby.connections_accepted(), 0);
    }
}
