//! A server that allows few connections and few messages a session: nobody's message fails for it, and what it allows is learned.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

mod common;

use std::thread;

use common::*;
use smtp_pool::testing::{Action, Script, Stage, TestServer};
use smtp_pool::{HostState, HostStatus, Lane, SendOptions, SmtpSender};

/// What the server allows.
const CONNECTIONS: usize = 3;
const MESSAGES: usize = 100;

const THREADS: usize = 32;
const SENDS: usize = 1_000;

/// As Exim's `smtp_accept_max_per_host`, and as OpenSMTPD, which refuses each MAIL of a session from message 101 on and keeps the
/// connection open.
fn strict() -> TestServer {
    let mut script = Script::new();
    for connection in 1..=200 {
        // Refused again and again, should the session not be given up.
        for mail in MESSAGES + 1..=MESSAGES + 3 {
            let refusal = [Action::reply("452 4.3.0 too many messages in this session\r\n")];
            script = script.on_connection_nth(connection, Stage::Mail, mail, refusal);
        }
    }
    TestServer::builder().max_connections(Some(CONNECTIONS)).script(script).record(false).start()
}

fn send_all(sender: &SmtpSender) {
    thread::scope(|scope| {
        for caller in 0..THREADS {
            scope.spawn(move || {
                // Whoever is in a hurry, and whoever is not.
                let options = SendOptions::new().lane(if caller % 4 == 0 { Lane::Bulk } else { Lane::Interactive });
                for number in (caller..SENDS).step_by(THREADS) {
                    let result = send_to(sender, &format!("{number}@strict"), 1, &options);
                    let receipt = result.unwrap_or_else(|error| panic!("message {number}: {error}"));
                    assert_eq!(receipt.attempts(), 1, "message {number}");
                }
            });
        }
    });
}

fn each_arrived_once(server: &TestServer) {
    for number in 0..SENDS {
        assert_eq!(server.accepted(&format!("{number}@strict")), 1, "message {number}");
    }
    assert!(server.peak_connections() <= CONNECTIONS);
}

#[test]
fn a_strict_server_is_learned_from_and_no_message_fails() {
    let server = strict();
    let sender = sender(plain(&server)).max_size(8).build().unwrap();
    send_all(&sender);
    each_arrived_once(&server);
    let status = sender.status();
    let HostStatus { learned_connection_limit, learned_message_limit, learned_idle_limit, state, .. } = status.hosts[0];
    let refused = server.connections_accepted() - usize::try_from(status.created).unwrap();
    eprintln!(
        "learned: {learned_connection_limit:?} connections, {learned_message_limit:?} messages; {} opened, {refused} refused",
        status.created
    );
    // One more than it allows may be being asked for.
    assert!(learned_connection_limit.is_some_and(|limit| limit <= CONNECTIONS + 1), "{status:?}");
    assert_eq!(learned_message_limit, Some(u32::try_from(MESSAGES).unwrap()), "{status:?}");
    assert_eq!((learned_idle_limit, state), (None, HostState::Available), "{status:?}");
    assert!(status.created >= 10, "a thousand messages, a hundred a session: {status:?}");
}

#[test]
fn without_learning_no_message_fails_either_and_nothing_is_learned() {
    let server = strict();
    let sender =
        sender(plain(&server)).max_size(8).learn_limits(false).max_reconnect_cooldown(ms(100)).build().unwrap();
    send_all(&sender);
    each_arrived_once(&server);
    let host = &sender.status().hosts[0];
    let learned = (host.learned_connection_limit, host.learned_message_limit, host.learned_idle_limit);
    assert_eq!((learned, host.state), ((None, None, None), HostState::Available), "{host:?}");
}

#[test]
fn a_refusal_that_another_host_made_good_is_no_limit_of_either() {
    const BEFORE: usize = 30;
    let refusal = [Action::reply("452 4.3.2 not now\r\n")];
    let script = Script::new().on_connection_nth(1, Stage::Mail, BEFORE + 1, refusal);
    let (first, second) = (TestServer::builder().script(script).start(), TestServer::start());
    let sender = sender(plain(&first)).host(plain(&second).priority(10)).max_size(1).build().unwrap();
    for number in 0..BEFORE {
        let receipt = send_to(&sender, &format!("{number}@elsewhere"), 1, &SendOptions::new()).unwrap();
        assert_eq!(receipt.endpoint().port(), first.port());
    }
    // The session is refused, and so is the fresh one that is to find out whether it was the session's limit.
    first.stop_accepting();
    let receipt = send_to(&sender, "last@elsewhere", 1, &SendOptions::new()).unwrap();
    assert_eq!((receipt.endpoint().port(), receipt.attempts()), (second.port(), 1));
    let learned: Vec<_> = sender.status().hosts.iter().map(|host| host.learned_message_limit).collect();
    assert_eq!(learned, [None, None]);
}
