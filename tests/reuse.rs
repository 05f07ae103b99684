//! Connections are used again: as often as the server and the options allow, and with nothing on the wire that is not needed.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

mod common;

use std::thread;

use common::*;
use smtp_pool::testing::{Action, Event, Script, Stage, TestServer, Transcript};
use smtp_pool::{DiscardReason, FailureKind, RecipientPolicy, SendOptions, SmtpSender};

/// The writes of the client on a connection, from its first MAIL on.
fn writes_from_mail(transcript: &Transcript) -> Vec<Vec<u8>> {
    let writes = client_writes(transcript).into_iter();
    writes.skip_while(|bytes| !contains(bytes, b"MAIL FROM")).collect()
}

fn refuse_recipients() -> Script {
    Script::new().on_command(Stage::Rcpt, "to", [Action::reply("550 5.1.1 nobody\r\n")])
}

fn refused(sender: &SmtpSender) {
    let error = send(sender, "refused@reuse").unwrap_err();
    assert_eq!((error.kind(), error.response().unwrap().code()), (FailureKind::PermanentFailure, 550), "{error}");
}

#[test]
fn ten_refused_recipients_in_a_row_do_not_cost_a_connection() {
    // A delivered message in between begins the count anew, so any number of tens will do.
    let server = TestServer::start();
    let sender = sender(plain(&server)).build().unwrap();
    for round in 0..3 {
        server.set_script(refuse_recipients());
        for _ in 0..9 {
            refused(&sender);
        }
        server.set_script(Script::new());
        send(&sender, &format!("{round}@reuse")).unwrap();
    }
    server.set_script(refuse_recipients());
    for _ in 0..10 {
        refused(&sender);
    }
    assert_eq!((sender.status().created, server.connections_accepted()), (1, 1));
    assert_eq!(server.violations(), [""; 0]);
}

#[test]
fn ten_refusals_in_a_row_and_no_fewer_retire_a_connection() {
    let server = TestServer::builder().script(refuse_recipients()).start();
    let sender = sender(plain(&server)).build().unwrap();
    for number in 1..=21 {
        refused(&sender);
        let status = sender.status();
        let retired = number / 10;
        assert_eq!(status.created, (number - 1) / 10 + 1, "after {number}");
        assert_eq!(status.discarded.of(DiscardReason::MaxMessages), retired, "after {number}");
        assert_eq!(status.discarded.total(), retired, "after {number}");
    }
}

#[test]
fn rset_leaves_with_the_next_mail_and_only_when_it_is_owed() {
    let server = TestServer::start();
    let sender = sender(plain(&server)).build().unwrap();
    send(&sender, "1@rset").unwrap();
    server.set_script(Script::new().once(Stage::Rcpt, [Action::reply("550 5.1.1 nobody\r\n")]));
    refused(&sender);
    assert!(!said(&server, 1, "RSET"), "owed, not sent");
    send(&sender, "2@rset").unwrap();
    send(&sender, "3@rset").unwrap();
    let writes = writes_from_mail(&server.transcript(1));
    let with_rset: Vec<_> = writes.iter().filter(|bytes| contains(bytes, b"RSET")).collect();
    assert_eq!(with_rset.len(), 1);
    assert!(with_rset[0].starts_with(b"RSET\r\nMAIL FROM:<"), "{}", with_rset[0].escape_ascii());
    // DATA may wait for the recipients once one was refused.
    assert!(contains(with_rset[0], b"\r\nRCPT TO:<"), "one group");
}

#[test]
fn two_round_trips_a_message() {
    const MESSAGES: usize = 20;
    for recipients in [1, 3] {
        let server = TestServer::start();
        let sender = sender(plain(&server)).build().unwrap();
        let partial = SendOptions::new().recipients(RecipientPolicy::AcceptPartial);
        send_to(&sender, "first@trips", recipients, &partial).unwrap();
        let before = server.transcript(1);
        for number in 0..MESSAGES {
            send_to(&sender, &format!("{number}@trips"), recipients, &partial).unwrap();
        }
        let after = server.transcript(1);
        assert_eq!(after.round_trips() - before.round_trips(), 2 * MESSAGES);
        let writes = client_writes(&after).len() - client_writes(&before).len();
        assert_eq!(writes, 2 * MESSAGES, "the envelope in one write, the content and the dot in another");
        assert!(!said(&server, 1, "NOOP") && !said(&server, 1, "RSET"));
        assert_eq!(server.connections_accepted(), 1);
    }
}

#[test]
fn no_noop_ever_and_quit_at_the_end() {
    let server = TestServer::start();
    let sender = sender(plain(&server)).max_size(3).build().unwrap();
    thread::scope(|scope| {
        for thread in 0..3 {
            let sender = &sender;
            scope.spawn(move || {
                (0..20).for_each(|number| drop(send(sender, &format!("{thread}-{number}@quit")).unwrap()));
            });
        }
    });
    drop(sender);
    assert!(server.wait_for(|seen| seen.connections_open() == 0, PATIENCE));
    assert_eq!((server.snapshot().reached(Stage::Noop), server.snapshot().reached(Stage::Rset)), (0, 0));
    assert_eq!(server.snapshot().reached(Stage::Quit), server.connections_accepted());
    assert_eq!(server.messages().len(), 60);
}

#[test]
fn a_thousand_messages_over_four_connections() {
    let server = TestServer::builder().record(false).start();
    let sender = sender(plain(&server)).max_size(4).build().unwrap();
    thread::scope(|scope| {
        for thread in 0..8 {
            let sender = &sender;
            scope.spawn(move || {
                for number in 0..125 {
                    send(sender, &format!("{thread}-{number}@thousand")).unwrap();
                }
            });
        }
    });
    let status = sender.status();
    assert!(status.created <= 4 && server.connections_accepted() <= 4, "{status:?}");
    assert_eq!((server.messages().len(), status.discarded.total()), (1000, 0));
    assert!(server.peak_connections() <= 4);
    assert_eq!((status.counts.leased, status.counts.waiting, status.exhausted), (0, 0, 0));
}

#[test]
fn a_sessions_own_limit_is_met_with_a_fresh_one_and_learned() {
    // OpenSMTPD: 452 to every MAIL of a session from message N + 1 on, the connection staying open.
    const LIMIT: usize = 25;
    let mut script = Script::new();
    for connection in 1..=4 {
        for mail in LIMIT + 1..=LIMIT + 3 {
            let refusal = [Action::reply("452 4.3.0 too many messages in this session\r\n")];
            script = script.on_connection_nth(connection, Stage::Mail, mail, refusal);
        }
    }
    let server = TestServer::builder().script(script).start();
    let sender = sender(plain(&server)).max_size(1).build().unwrap();
    for number in 0..3 * LIMIT + 5 {
        let receipt = send(&sender, &format!("{number}@limit")).unwrap();
        assert_eq!(receipt.attempts(), 1, "a session's limit is no failure");
    }
    assert_eq!(server.connections_accepted(), 4);
    let host = &sender.status().hosts[0];
    assert_eq!(host.learned_message_limit, Some(u32::try_from(LIMIT).unwrap()));
    assert_eq!(host.consecutive_failures, 0);
    // Only the first session had to be refused; the others ended in time.
    let refused = |connection: usize| {
        let bytes = server.transcript(connection).server_bytes();
        bytes.windows(4).filter(|window| window == b"452 ").count()
    };
    assert_eq!([1, 2, 3, 4].map(refused), [1, 0, 0, 0]);
    for number in 0..3 * LIMIT + 5 {
        assert_eq!(server.accepted(&format!("{number}@limit")), 1);
    }
}

#[test]
fn a_4xx_to_mail_on_a_used_session_that_the_fresh_one_gets_too_is_what_it_says() {
    let server = TestServer::start();
    let sender = sender(plain(&server)).max_size(1).build().unwrap();
    for number in 0..30 {
        send(&sender, &format!("{number}@busy")).unwrap();
    }
    server.set_script(Script::new().on(Stage::Mail, [Action::reply("451 4.3.2 busy\r\n")]));
    let error = send(&sender, "refused@busy").unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (FailureKind::RetryableTemporaryFailure, 1), "{error}");
    assert_eq!(server.connections_accepted(), 2, "one fresh try, not more");
    assert_eq!(sender.status().hosts[0].learned_message_limit, None, "nothing was learned");
}

#[test]
fn an_announced_limit_is_kept() {
    let server = TestServer::builder().ehlo_keyword("LIMITS MAILMAX=3 RCPTMAX=1000").start();
    let sender = sender(plain(&server)).max_size(1).build().unwrap();
    for number in 0..10 {
        send(&sender, &format!("{number}@mailmax")).unwrap();
    }
    let over: Vec<_> = server.messages().iter().map(|message| message.connection()).collect();
    assert_eq!(over, [1, 1, 1, 2, 2, 2, 3, 3, 3, 4]);
    assert_eq!(sender.status().discarded.of(DiscardReason::MaxMessages), 3);
    assert!(said(&server, 1, "QUIT"));
}

#[test]
fn the_configured_limit_is_kept() {
    let server = TestServer::start();
    let sender = sender(plain(&server)).max_size(1).max_messages_per_connection(2).build().unwrap();
    for number in 0..5 {
        send(&sender, &format!("{number}@configured")).unwrap();
    }
    let over: Vec<_> = server.messages().iter().map(|message| message.connection()).collect();
    assert_eq!(over, [1, 1, 2, 2, 3]);
    assert_eq!(sender.status().discarded.of(DiscardReason::MaxMessages), 2);
}

#[test]
fn a_connection_idle_for_too_long_is_not_used_again() {
    let server = TestServer::start();
    let idle = ms(30);
    let sender = sender(plain(&server)).idle_timeout(idle).build().unwrap();
    send(&sender, "first@idle").unwrap();
    let since = now();
    eventually("the time is over", || now() - since > idle * 2);
    send(&sender, "second@idle").unwrap();
    assert_eq!(server.messages()[1].connection(), 2);
    let status = sender.status();
    assert_eq!((status.created, status.discarded.of(DiscardReason::IdleTimeout)), (2, 1));
    server.connection(1).wait_closed();
    assert!(said(&server, 1, "QUIT"), "it ends politely");
}

#[test]
fn an_old_connection_is_retired_though_it_is_busy() {
    let server = TestServer::start();
    let lifetime = ms(60);
    let sender = sender(plain(&server)).max_size(1).max_lifetime(lifetime).build().unwrap();
    let start = now();
    let mut sent = 0;
    while sender.status().created < 3 {
        assert!(now() - start < PATIENCE, "{:?}", sender.status());
        send(&sender, &format!("{sent}@old")).unwrap();
        sent += 1;
    }
    // At most 10 % shorter.
    assert!(now() - start >= lifetime * 9 / 10 * 2);
    assert_eq!(sender.status().discarded.of(DiscardReason::MaxLifetime), 2);
    assert_eq!((server.messages().len(), server.peak_connections()), (sent, 1));
}

#[test]
fn switched_off_timeouts_retire_nothing() {
    let server = TestServer::start();
    let sender = sender(plain(&server)).idle_timeout(None).max_lifetime(None).keepalive_interval(None).build().unwrap();
    for number in 0..50 {
        send(&sender, &format!("{number}@off")).unwrap();
    }
    assert_eq!((sender.status().created, sender.status().discarded.total()), (1, 0));
}

#[test]
fn the_newest_idle_connection_is_used_first() {
    let server =
        TestServer::builder()
            .script(
                Script::new()
                    .on_connection(1, Stage::EndOfData, [Action::barrier("one"), Action::Default])
                    .on_connection(2, Stage::EndOfData, [Action::barrier("two"), Action::Default]),
            )
            .start();
    let sender = sender(plain(&server)).max_size(2).build().unwrap();
    thread::scope(|scope| {
        let first = scope.spawn(|| send(&sender, "1@newest"));
        server.wait_until_reached("one");
        let second = scope.spawn(|| send(&sender, "2@newest"));
        server.wait_until_reached("two");
        server.release("two");
        second.join().unwrap().unwrap();
        server.release("one");
        first.join().unwrap().unwrap();
    });
    // Connection 1 came back last.
    for number in 3..8 {
        send(&sender, &format!("{number}@newest")).unwrap();
    }
    assert!(server.messages()[2..].iter().all(|message| message.connection() == 1));
}

#[test]
fn what_ended_one_idle_connection_ended_its_older_siblings() {
    // A server restart: four idle connections die at once, and the next message pays for one of them only.
    let server = TestServer::builder()
        .script(Script::new().on(Stage::EndOfData, [Action::barrier("all"), Action::Default]))
        .start();
    let sender = sender(plain(&server)).max_size(4).build().unwrap();
    thread::scope(|scope| {
        for number in 0..4 {
            let sender = &sender;
            scope.spawn(move || send(sender, &format!("{number}@siblings")).unwrap());
        }
        assert!(server.wait_for(|seen| seen.barrier_reached("all") == 4, PATIENCE));
        server.release("all");
    });
    assert_eq!(sender.status().counts.idle, 4);
    for number in 1..=4 {
        server.connection(number).close();
    }
    let receipt = send(&sender, "after@siblings").unwrap();
    assert_eq!((receipt.attempts(), server.connections_accepted()), (1, 5));
    let status = sender.status();
    assert_eq!((status.counts.total, status.discarded.of(DiscardReason::ServerClosed)), (1, 4));
}

#[test]
fn without_pipelining_one_command_at_a_time() {
    let server = TestServer::builder().pipelining(false).start();
    let sender = sender(plain(&server)).build().unwrap();
    for number in 0..3 {
        send_to(&sender, &format!("{number}@single"), 5, &SendOptions::new()).unwrap();
    }
    server.set_script(Script::new().once(Stage::Rcpt, [Action::reply("550 5.1.1 nobody\r\n")]));
    refused(&sender);
    send(&sender, "after@single").unwrap();
    assert_eq!((server.connections_accepted(), server.messages().len()), (1, 4));
    for write in writes_from_mail(&server.transcript(1)) {
        let is_content = write.ends_with(b"\r\n.\r\n");
        let lines = write.split(|&byte| byte == b'\n').count() - 1;
        assert!(is_content || lines == 1, "{}", write.escape_ascii());
    }
    assert_eq!(server.violations(), [""; 0]);
}

/// What was written and not yet answered never exceeds what both sides' buffers surely hold.
fn groups_are_bounded(recipients: usize, policy: RecipientPolicy) {
    let server = TestServer::builder().socket_buffers(4096).start();
    let sender = sender(plain(&server)).build().unwrap();
    let receipt = send_to(&sender, "many@groups", recipients, &SendOptions::new().recipients(policy)).unwrap();
    assert_eq!(receipt.recipients().len(), recipients);
    assert_eq!(server.messages()[0].recipients().len(), recipients);
    let expected: Vec<_> = envelope(recipients).to().iter().map(ToString::to_string).collect();
    assert_eq!(server.messages()[0].recipients(), expected, "in the order of the envelope");

    let (mut bytes_out, mut commands_out, mut largest) = (0, 0, 0);
    let mut in_content = false;
    for event in server.transcript(1).events() {
        match event {
            Event::Client { bytes, .. } if !in_content => {
                bytes_out += bytes.len();
                commands_out += bytes.iter().filter(|&&byte| byte == b'\n').count();
                largest = largest.max(commands_out);
                assert!(bytes_out <= 4096, "{bytes_out} bytes unanswered");
                assert!(commands_out <= 50, "{commands_out} commands unanswered");
            }
            Event::Server { bytes, .. } => {
                in_content = contains(bytes, b"354 ");
                let replies = bytes.split(|&byte| byte == b'\n').filter(|line| line.get(3) == Some(&b' ')).count();
                commands_out = commands_out.saturating_sub(replies);
                if commands_out == 0 {
                    bytes_out = 0;
                }
            }
            _ => {}
        }
    }
    assert!(largest > 10, "commands do leave in groups: {largest}");
    assert_eq!(server.violations(), [""; 0]);
}

#[test]
fn a_hundred_and_fifty_recipients() {
    groups_are_bounded(150, RecipientPolicy::AllOrNothing);
    groups_are_bounded(150, RecipientPolicy::AcceptPartial);
}

#[test]
fn a_thousand_recipients() {
    groups_are_bounded(1000, RecipientPolicy::AllOrNothing);
    groups_are_bounded(1000, RecipientPolicy::AcceptPartial);
}

#[test]
fn long_addresses_make_smaller_groups() {
    let server = TestServer::start();
    let sender = sender(plain(&server)).build().unwrap();
    let domain = format!("{0}.{0}.{0}.example.com", "d".repeat(60));
    let to = (0..60).map(|number| format!("{}{number}@{domain}", "l".repeat(60)).parse().unwrap()).collect();
    let envelope = lettre::address::Envelope::new(Some(FROM.parse().unwrap()), to).unwrap();
    sender.send_raw(&envelope, &content("long@groups")).unwrap();
    let writes = writes_from_mail(&server.transcript(1));
    let (content, commands) = writes.split_last().unwrap();
    assert!(content.ends_with(b".\r\n"));
    assert!(
        commands.iter().all(|write| write.len() <= 4096),
        "{:?}",
        commands.iter().map(Vec::len).collect::<Vec<_>>()
    );
    assert_eq!(server.messages()[0].recipients().len(), 60);
}

#[test]
fn the_last_of_many_groups_may_refuse() {
    for number in [1, 49, 50, 51, 99, 120] {
        let server = TestServer::builder()
            .script(Script::new().on_command(
                Stage::Rcpt,
                &format!("<to{number}@"),
                [Action::reply("550 5.1.1 nobody\r\n")],
            ))
            .start();
        let sender = sender(plain(&server)).build().unwrap();
        let error = send_to(&sender, "refused@groups", 120, &SendOptions::new()).unwrap_err();
        assert_eq!(error.kind(), FailureKind::PermanentFailure, "{error}");
        assert!(server.messages().is_empty());
        assert!(!said(&server, 1, "DATA"));
        server.set_script(Script::new());
        send(&sender, "next@groups").unwrap();
        assert_eq!((server.connections_accepted(), server.messages().len()), (1, 1));
    }
}
