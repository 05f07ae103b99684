//! Links that cut, swap, delay and rearrange.

use std::thread;

use smtp_pool::testing::{Security, TestServer};
use smtp_pool::{Host, SendOptions, SmtpSender};

use super::common::*;
use super::judge::*;
use super::relay::{Manner, Relay};

/// K22: after a part of the server's first flight.
pub fn a_handshake_cut_by_rst_is_the_hosts_fault() {
    let server = TestServer::builder().security(Security::ImplicitTls).start();
    let relay = Relay::before(server.port(), Manner::Straight);
    let host = Host::implicit_tls("127.0.0.1").port(relay.port()).root_certificate(server.root_certificate_pem());
    let sender = sender(host).max_size(1).build().unwrap();
    for bytes in [1, 5, 100, 600] {
        recovers(&sender, |id| server.accepted(id));
        relay.set_manner(Manner::CutAfter(bytes));
        server.connection(server.connections_accepted()).close();
        fails(&sender, &content("1@handshake"), (HU, S1), AT_ONCE);
        blamed(&sender);
        relay.set_manner(Manner::Straight);
    }
    recovers(&sender, |id| server.accepted(id));
    assert_eq!(server.accepted("1@handshake"), 0);
}

/// K22: the host's name leads to somebody else all of a sudden.
pub fn a_swapped_certificate_is_refused() {
    for security in [Security::ImplicitTls, Security::StartTls] {
        let [ours, other] = [0, 1].map(|_| TestServer::builder().security(security).start());
        let relay = Relay::before(ours.port(), Manner::Straight);
        let host = match security {
            Security::StartTls => Host::starttls("127.0.0.1"),
            _ => Host::implicit_tls("127.0.0.1"),
        };
        let host = host.port(relay.port()).root_certificate(ours.root_certificate_pem());
        let sender = sender(host).max_size(1).build().unwrap();
        send(&sender, "1@swapped").unwrap();
        relay.set_target(other.port());
        // The session that stands is still with whom it was opened.
        send(&sender, "2@swapped").unwrap();
        assert_eq!(ours.accepted("2@swapped"), 1);
        ours.connection(1).close();
        let error = fails(&sender, &content("3@swapped"), (PF, S1), AT_ONCE);
        assert!(error.to_string().contains("certificate"), "{error}");
        blamed(&sender);
        relay.set_target(ours.port());
        recovers(&sender, |id| ours.accepted(id));
        assert_eq!((ours.accepted("3@swapped"), other.messages().len()), (0, 0));
        assert!(other.transcript(1).client_encrypted().is_empty(), "not a word to a stranger");
    }
}

/// K23.
pub fn jitter_costs_two_round_trips_a_message() {
    const THREADS: usize = 4;
    const MESSAGES: usize = 5;
    let longest = ms(100);
    let server = TestServer::start();
    let relay = Relay::before(server.port(), Manner::Delayed(longest));
    let sender = sender(relay.host()).max_size(THREADS).build().unwrap();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let sender = &sender;
            scope.spawn(move || {
                for number in 0..MESSAGES {
                    let receipt = send(sender, &format!("{thread}.{number}@jitter"));
                    assert_eq!(receipt.unwrap_or_else(|error| panic!("{error}")).attempts(), 1);
                }
            });
        }
    });
    // As the server saw them: the greeting, EHLO, and two for each message.
    let connections = server.connections_accepted();
    let round_trips: usize = (1..=connections).map(|number| server.transcript(number).round_trips()).sum();
    assert!(round_trips <= connections * 2 + THREADS * MESSAGES * 2, "{round_trips} over {connections} connections");
    for thread in 0..THREADS {
        for number in 0..MESSAGES {
            assert_eq!(server.accepted(&format!("{thread}.{number}@jitter")), 1);
        }
    }
    assert!(server.violations().is_empty(), "{:?}", server.violations());
}

/// What each call said, against what the server has.
fn assert_true(server: &TestServer, id: &str, outcome: &Result<smtp_pool::Receipt, smtp_pool::SendError>) {
    let stored = server.accepted(id);
    match outcome {
        Ok(_) => assert_eq!(stored, 1, "{id}"),
        Err(error) if error.kind() == UD => assert!(stored <= 1, "{id}: {error}"),
        Err(error) => assert_eq!(stored, 0, "{id}: {error}"),
    }
}

/// K23: calls with less time than the link may take.
pub fn deadlines_hold_on_a_slow_link() {
    thrice(deadlines_hold);
}

fn deadlines_hold() {
    const CALLS: usize = 12;
    let server = TestServer::start();
    let relay = Relay::before(server.port(), Manner::Delayed(ms(500)));
    let sender = sender(relay.host()).max_size(CALLS).build().unwrap();
    // A connection for each, because those who open one in a hurry fail for those behind them too.
    thread::scope(|scope| {
        let leases: Vec<_> = (0..CALLS).map(|_| scope.spawn(|| sender.lease().unwrap())).collect();
        let held: Vec<_> = leases.into_iter().map(|lease| lease.join().unwrap()).collect();
        drop(held);
    });
    assert_eq!(sender.status().counts.idle, CALLS);
    let outcomes: Vec<_> = thread::scope(|scope| {
        let calls: Vec<_> = (0..CALLS)
            .map(|number| {
                let sender = &sender;
                scope.spawn(move || {
                    let id = format!("{number}@slow");
                    // From hopeless to comfortable.
                    let budget = ms(100 + 250 * u64::try_from(number).unwrap());
                    let deadline = now() + budget;
                    let outcome = send_to(sender, &id, 1, &SendOptions::new().deadline(deadline));
                    (id, outcome, now().saturating_duration_since(deadline))
                })
            })
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    at_rest(&sender);
    // What is still on its way arrives within the link's time; then the server's count stands.
    pace(ms(1100));
    outcomes.iter().for_each(|(id, outcome, _)| assert_true(&server, id, outcome));
    let sent = outcomes.iter().filter(|(_, outcome, _)| outcome.is_ok()).count();
    assert!((1..CALLS).contains(&sent), "{sent} of {CALLS} were sent");
    mostly_on_time(outcomes.into_iter().map(|(_, _, late)| late).collect());
    send(&sender, "after@slow").unwrap();
    assert_eq!(server.accepted("after@slow"), 1);
}

fn through(server: &TestServer, relay: &Relay, security: Security) -> SmtpSender {
    let host = match security {
        Security::Plain => relay.host(),
        Security::StartTls => Host::starttls("127.0.0.1"),
        _ => Host::implicit_tls("127.0.0.1"),
    };
    let host = match security {
        Security::Plain => host,
        _ => host.port(relay.port()).root_certificate(server.root_certificate_pem()).credentials("user", "secret"),
    };
    sender(host).max_size(2).build().unwrap()
}

/// K24.
pub fn segments_of_one_byte_and_merged_replies_change_nothing() {
    for security in [Security::Plain, Security::StartTls, Security::ImplicitTls] {
        for manner in [Manner::Split, Manner::Merged(ms(5))] {
            let builder = TestServer::builder().security(security);
            let server = match security {
                Security::Plain => builder.start(),
                _ => builder.credentials("user", "secret").start(),
            };
            let relay = Relay::before(server.port(), manner);
            let sender = through(&server, &relay, security);
            for number in 0..5 {
                let id = format!("{number}@segments");
                // Groups of replies of every length.
                let message = big_content(&id, 4000);
                let receipt = sender.send_raw(&envelope(1 + number), &message);
                let receipt = receipt.unwrap_or_else(|error| panic!("{security:?}, {manner:?}: {error}"));
                assert_eq!((receipt.connection_id(), receipt.attempts()), (1, 1), "{security:?}, {manner:?}");
                let stored = server.messages();
                assert_eq!(stored.len(), number + 1);
                assert_eq!(stored[number].content(), message, "{security:?}, {manner:?}");
            }
            assert!(server.violations().is_empty(), "{:?}", server.violations());
            at_rest(&sender);
        }
    }
}
