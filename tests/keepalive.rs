//! An idle connection is asked whether it lives, and only one that provably does is lent again; some are kept in reserve.

mod common;

use std::time::Duration;

use common::{
    PATIENCE, client_writes, contains, envelope, eventually, ms, now, plain, said, send, sender, starttls, tls_server,
};
use smtp_pool::testing::{Action, Script, Security, Stage, TestServer};
use smtp_pool::{DiscardReason, HostState, KeepaliveCommand, SmtpSender, SmtpSenderBuilder};

const INTERVAL: Duration = ms(40);

fn commands(server: &TestServer, connection: usize, verb: &str) -> usize {
    server.transcript(connection).commands().iter().filter(|line| line.to_ascii_uppercase().starts_with(verb)).count()
}

fn keeping_alive(server: &TestServer) -> SmtpSenderBuilder {
    sender(plain(server)).keepalive_interval(INTERVAL)
}

fn failures(sender: &SmtpSender) -> u64 {
    sender.status().discarded.of(DiscardReason::KeepaliveFailure)
}

#[test]
fn an_idle_session_is_asked_with_rset_and_serves_the_next_message() {
    let server = TestServer::start();
    // With room for one only, a message that comes while the connection is being asked waits for it.
    let sender = keeping_alive(&server).max_size(1).build().unwrap();
    let first = send(&sender, "one@test").unwrap();
    eventually("two probes", || commands(&server, 1, "RSET") >= 2);
    let second = send(&sender, "two@test").unwrap();
    assert_eq!(first.connection_id(), second.connection_id());
    assert!(!said(&server, 1, "NOOP"));
    assert_eq!((server.connections_accepted(), failures(&sender)), (1, 0));
    assert!(server.violations().is_empty(), "{:?}", server.violations());
}

#[test]
fn a_session_under_tls_is_asked_too() {
    let server = tls_server(Security::StartTls).start();
    let sender = sender(starttls(&server)).keepalive_interval(INTERVAL).max_size(1).build().unwrap();
    send(&sender, "one@test").unwrap();
    eventually("two probes", || commands(&server, 1, "RSET") >= 2);
    send(&sender, "two@test").unwrap();
    assert_eq!((server.connections_accepted(), failures(&sender)), (1, 0));
}

#[test]
fn noop_is_used_where_it_is_asked_for() {
    let server = TestServer::start();
    let sender = keeping_alive(&server).keepalive_command(KeepaliveCommand::Noop).build().unwrap();
    send(&sender, "one@test").unwrap();
    eventually("two probes", || commands(&server, 1, "NOOP") >= 2);
    assert!(!said(&server, 1, "RSET"));
    assert_eq!(failures(&sender), 0);
}

#[test]
fn only_250_and_nothing_behind_it_is_a_sign_of_life() {
    let answers = [
        "221 going\r\n",
        "421 going\r\n",
        "251 well\r\n",
        "354 go on\r\n",
        "451 later\r\n",
        "500 what\r\n",
        "250 ok\r\n220 hello\r\n",
        "nonsense\r\n",
        "250-\r\n",
    ];
    for (command, stage) in [(KeepaliveCommand::Rset, Stage::Rset), (KeepaliveCommand::Noop, Stage::Noop)] {
        for answer in answers {
            // Asked again, the server would say 250.
            let script = Script::new().once(stage, [Action::reply(answer)]);
            let server = TestServer::builder().script(script).start();
            let sender = keeping_alive(&server).keepalive_command(command).build().unwrap();
            send(&sender, "one@test").unwrap();
            eventually(answer, || failures(&sender) == 1);
            assert_eq!(sender.status().hosts[0].state, HostState::Available, "a dead connection is no dead host");
            send(&sender, "two@test").unwrap();
            assert_eq!(server.connections_accepted(), 2, "{answer:?} to {command:?}");
        }
    }
}

#[test]
fn a_session_that_does_not_answer_is_given_up_within_a_second_and_takes_nobody_along() {
    let script = Script::new().on_connection(1, Stage::Rset, [Action::Silence]);
    let server = TestServer::builder().script(script).start();
    let sender = keeping_alive(&server).build().unwrap();
    let both = (sender.lease().unwrap(), sender.lease().unwrap());
    drop(both);
    eventually("a probe", || said(&server, 1, "RSET"));
    let asked = now();
    eventually("the failure", || failures(&sender) == 1);
    assert!(now() - asked < ms(1500));
    // The other one answered before the deadline that the silent one used up.
    eventually("the other one", || sender.status().counts.idle == 1);
    assert_eq!(sender.status().discarded.total(), 1);
    send(&sender, "one@test").unwrap();
    assert_eq!(server.connections_accepted(), 2);
}

#[test]
fn a_session_that_the_server_ended_is_given_up() {
    let server = TestServer::start();
    let sender = keeping_alive(&server).build().unwrap();
    send(&sender, "one@test").unwrap();
    server.connection(1).send("421 idle too long\r\n");
    server.connection(1).close();
    eventually("the failure", || failures(&sender) == 1);
    assert!(!said(&server, 1, "RSET"));
}

#[test]
fn a_probe_pays_the_rset_that_was_owed() {
    let script = Script::new().once(Stage::Rcpt, [Action::reply("550 no such user\r\n")]);
    let server = TestServer::builder().script(script).start();
    let sender = keeping_alive(&server).build().unwrap();
    send(&sender, "one@test").unwrap_err();
    eventually("a probe", || commands(&server, 1, "RSET") >= 1);
    eventually("it is back", || sender.status().counts.idle == 1);
    send(&sender, "two@test").unwrap();
    let writes = client_writes(&server.transcript(1));
    let mail: Vec<_> = writes.iter().filter(|write| contains(write, b"MAIL FROM")).collect();
    assert_eq!(mail.len(), 2);
    assert!(mail[1].starts_with(b"MAIL FROM"), "RSET came with it");
    assert_eq!(server.connections_accepted(), 1);
}

#[test]
fn a_reserve_is_opened_with_the_sender_and_again_after_an_outage() {
    let server = TestServer::start();
    let sender = sender(plain(&server)).min_idle(4).build().unwrap();
    eventually("the reserve", || sender.status().counts.idle == 4);
    for connection in 1..=4 {
        server.connection(connection).close();
    }
    send(&sender, "one@test").unwrap();
    eventually("the reserve again", || sender.status().counts.idle >= 4);
    assert!(server.peak_connections() <= 8);
}

#[test]
fn the_last_clone_says_goodbye_to_the_reserve() {
    let server = TestServer::start();
    let sender = sender(plain(&server)).min_idle(2).build().unwrap();
    eventually("the reserve", || sender.status().counts.idle == 2);
    sender.send_raw(&envelope(1), b"Subject: one\r\n\r\nOne.\r\n").unwrap();
    drop(sender);
    assert!(server.wait_for(|snapshot| snapshot.connections_open() == 0, PATIENCE));
    assert!((1..=2).all(|connection| said(&server, connection, "QUIT")));
}
