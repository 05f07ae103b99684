//! A small message in one write, where the host's settings want that: one round trip, the same mail as by DATA, and DATA for all others.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

mod common;

use std::thread;

use common::*;
use smtp_pool::testing::{Action, Event, Script, Security, Stage, TestServer, Transcript};
use smtp_pool::{CancelToken, FailureKind, RecipientPolicy, SendOptions, SendStage, SmtpSender};

fn server() -> TestServer {
    TestServer::builder().chunking(true).start()
}

fn willing(server: &TestServer) -> SmtpSender {
    sender(plain(server).single_round_trip(true)).max_size(1).build().unwrap()
}

/// How often a verb was said on a connection.
fn count(server: &TestServer, connection: usize, verb: &str) -> usize {
    server.transcript(connection).commands().iter().filter(|line| line.split(' ').next() == Some(verb)).count()
}

/// Client and server taking turns, from the first MAIL on: what each turn of the client held.
fn turns(transcript: &Transcript) -> Vec<Vec<u8>> {
    let mut turns: Vec<Vec<u8>> = Vec::new();
    let mut is_servers = true;
    for event in transcript.events() {
        match event {
            Event::Client { bytes, .. } if is_servers => turns.push(bytes.clone()),
            Event::Client { bytes, .. } => turns.last_mut().unwrap().extend_from_slice(bytes),
            _ => {}
        }
        is_servers = matches!(event, Event::Server { .. });
    }
    turns.into_iter().skip_while(|bytes| !bytes.starts_with(b"MAIL")).collect()
}

#[test]
fn one_round_trip_and_one_write_a_message() {
    const MESSAGES: usize = 20;
    for security in [Security::Plain, Security::StartTls, Security::ImplicitTls] {
        let server = tls_server(security).chunking(true).start();
        let host = match security {
            Security::StartTls => starttls(&server),
            Security::ImplicitTls => implicit_tls(&server),
            _ => plain(&server),
        };
        let sender = sender(host.single_round_trip(true)).max_size(1).build().unwrap();
        for number in 0..MESSAGES {
            let receipt = sender.send_raw(&envelope(1), &big_content(&format!("{number}@trip"), 700)).unwrap();
            assert_eq!((receipt.attempts(), receipt.recipients().len()), (1, 1));
        }
        let transcript = server.transcript(1);
        let turns = turns(&transcript);
        assert_eq!(turns.len(), MESSAGES, "{security:?}: one round trip a message, the first one too");
        for (number, turn) in turns.iter().enumerate() {
            let content = big_content(&format!("{number}@trip"), 700);
            assert!(turn.starts_with(b"MAIL FROM:<") && turn.ends_with(&content), "{}", turn.escape_ascii());
            assert_eq!(server.accepted(&format!("{number}@trip")), 1);
        }
        let writes = client_writes(&transcript).iter().filter(|bytes| contains(bytes, b"BDAT ")).count();
        assert_eq!(writes, MESSAGES, "{security:?}: each in one write");
        assert_eq!(["BDAT", "DATA", "RSET", "NOOP"].map(|verb| count(&server, 1, verb)), [MESSAGES, 0, 0, 0]);
        assert_eq!((server.connections_accepted(), server.violations()), (1, Vec::new()));
    }
}

#[test]
fn what_is_stored_is_what_data_would_have_stored() {
    let server = server();
    let (by_bdat, by_data) = (willing(&server), sender(plain(&server)).max_size(1).build().unwrap());
    let header = "Message-ID: <same@framing>\r\n\r\n";
    for body in [
        "",
        "x",
        "x\r\n",
        ".",
        ".\r\n",
        "..\r\n.\r\n...",
        "\n",
        "\r",
        "a\nb\rc\r\nd",
        "\r\r\n",
        "\n\r",
        "a\r\n.\r\nQUIT\r\n",
        "a\n.\nb",
        "a\r.\rb",
        "\r\n.\n",
        "x\r",
        "Grüße\r\n",
    ] {
        let content = format!("{header}{body}");
        by_bdat.send_raw(&envelope(1), content.as_bytes()).unwrap_or_else(|error| panic!("{body:?}: {error}"));
        by_data.send_raw(&envelope(1), content.as_bytes()).unwrap();
        let stored = server.messages();
        let [.., one, other] = stored.as_slice() else { panic!("two messages") };
        assert_eq!((one.connection(), other.connection()), (1, 2));
        assert_eq!(one.content(), other.content(), "{body:?}");
        assert_eq!(one.mail_parameters(), other.mail_parameters(), "{body:?}");
    }
    for empty in [&by_bdat, &by_data] {
        empty.send_raw(&envelope(1), b"").unwrap();
        assert_eq!(server.messages().last().unwrap().content(), b"");
    }
    assert_eq!([count(&server, 1, "DATA"), count(&server, 2, "BDAT")], [0, 0]);
    assert_eq!(server.violations(), [""; 0]);
}

#[test]
fn whatever_does_not_fit_goes_by_data() {
    let partial = SendOptions::new().recipients(RecipientPolicy::AcceptPartial);
    let default = TestServer::builder;
    for (what, server, is_wanted, recipients, size) in [
        ("not wanted, which is the default", default().chunking(true), false, 1, 700),
        ("no CHUNKING", default(), true, 1, 700),
        ("no PIPELINING", default().chunking(true).pipelining(false), true, 1, 700),
        ("two recipients", default().chunking(true), true, 2, 700),
        ("not small", default().chunking(true), true, 1, 5000),
    ] {
        let server = server.start();
        let host = if is_wanted { plain(&server).single_round_trip(true) } else { plain(&server) };
        let sender = sender(host).max_size(1).build().unwrap();
        for _ in 0..2 {
            sender.send_with(&envelope(recipients), &big_content("data@fit", size), &partial).unwrap();
        }
        assert_eq!([count(&server, 1, "DATA"), count(&server, 1, "BDAT")], [2, 0], "{what}");
        assert_eq!(server.violations(), [""; 0], "{what}");
    }
}

#[test]
fn what_is_offered_before_tls_is_not_believed() {
    // The last EHLO counts (RFC 3207 §4.2): the one inside TLS offers nothing.
    let inside = Script::new().on_nth(Stage::Ehlo, 2, [Action::reply("250 localhost\r\n")]);
    let server = tls_server(Security::StartTls).chunking(true).script(inside).start();
    let sender = sender(starttls(&server).single_round_trip(true)).max_size(1).build().unwrap();
    send(&sender, "inside@tls").unwrap();
    assert_eq!([count(&server, 1, "DATA"), count(&server, 1, "BDAT")], [1, 0]);
}

#[test]
fn a_host_that_gets_bdat_wrong_is_sent_to_by_data_over_all_its_connections() {
    let server = server();
    server.set_script(Script::new().once(Stage::Bdat, [Action::reply("502 5.5.1 not implemented\r\n")]));
    let sender = sender(plain(&server).single_round_trip(true)).max_size(2).build().unwrap();
    let (mut one, mut two) = (sender.lease().unwrap(), sender.lease().unwrap());
    // Nothing is tried twice over a lease.
    let error = one.send_raw(&envelope(1), &content("one@wrong")).unwrap_err();
    assert_eq!((error.kind(), error.stage()), (FailureKind::RetryableBeforeSend, SendStage::DataCompleted), "{error}");
    assert_eq!(error.response().map(smtp_pool::Reply::code), Some(502));
    assert!(error.is_retry_safe() && error.classification().discard_connection);
    // It was open before.
    two.send_raw(&envelope(1), &content("two@wrong")).unwrap();
    drop((one, two));
    for number in 0..3 {
        send(&sender, &format!("{number}@wrong")).unwrap();
    }
    let said = |verb| (1..=server.connections_accepted()).map(|number| count(&server, number, verb)).sum::<usize>();
    assert_eq!((said("BDAT"), said("DATA")), (1, 4));
    assert_eq!((server.accepted("one@wrong"), server.accepted("two@wrong")), (0, 1));
}

#[test]
fn what_is_learned_of_one_host_is_not_held_against_another() {
    let wrong =
        TestServer::builder().chunking(true).script(Script::new().on(Stage::Bdat, [Action::reply("500 what\r\n")]));
    let (wrong, right) = (wrong.start(), server());
    let hosts = [&wrong, &right].map(|server| plain(server).single_round_trip(true));
    let sender = SmtpSender::builder().hosts(hosts).max_size(2).max_retries(0).build().unwrap();
    for number in 0..8 {
        assert_eq!(send(&sender, &format!("{number}@hosts")).unwrap().attempts(), 1);
    }
    assert_eq!(wrong.snapshot().reached(Stage::Bdat), 1, "asked once");
    assert_eq!(right.snapshot().reached(Stage::Data), 0);
    assert_eq!((wrong.messages().len(), right.messages().len()), (4, 4));
}

#[test]
fn cancelling_a_message_that_left_in_one_write_leaves_its_outcome_unknown() {
    let server = server();
    let sender = willing(&server);
    send(&sender, "before@cancel").unwrap();
    server.set_script(Script::new().once(Stage::Mail, [Action::barrier("mail"), Action::Default]));
    let token = CancelToken::new();
    let options = SendOptions::new().cancel(&token);
    let error = thread::scope(|scope| {
        let sending = scope.spawn(|| sender.send_with(&envelope(1), &content("it@cancel"), &options));
        server.wait_until_reached("mail");
        token.cancel();
        sending.join().unwrap().unwrap_err()
    });
    assert_eq!((error.kind(), error.stage()), (FailureKind::UnknownAfterData, SendStage::DataCompleted), "{error}");
    server.release("mail");
    // Before it, nothing has left.
    let error = sender.send_with(&envelope(1), &content("late@cancel"), &options).unwrap_err();
    assert_eq!(error.kind(), FailureKind::Cancelled, "{error}");
    assert_eq!(server.accepted("late@cancel"), 0);
    send(&sender, "after@cancel").unwrap();
}

#[test]
fn a_timeout_of_a_message_that_left_in_one_write_names_the_limit_in_force() {
    let server = server();
    server.set_script(Script::new().once(Stage::Mail, [Action::Silence]));
    let host = plain(&server).single_round_trip(true);
    let sender = sender(host).send_timeout(HOUR).final_reply_timeout(ms(50)).build().unwrap();
    let error = send(&sender, "slow@limit").unwrap_err();
    assert_eq!(error.kind(), FailureKind::UnknownAfterData);
    assert!(error.to_string().contains("final_reply_timeout is 50ms"), "{error}");
}

#[cfg(feature = "r2d2")]
#[test]
fn under_r2d2_it_is_one_round_trip_too() {
    let server = server();
    let host: smtp_pool::Host =
        format!("smtp://127.0.0.1:{}?tls=none&single_round_trip=true", server.port()).parse().unwrap();
    let manager = smtp_pool::SmtpConnectionManager::new(host).unwrap();
    let pool = r2d2::Pool::builder().max_size(1).test_on_check_out(false).build(manager).unwrap();
    for number in 0..3 {
        pool.get().unwrap().send_with(&envelope(1), &content(&format!("{number}@r2d2")), &SendOptions::new()).unwrap();
    }
    assert_eq!([count(&server, 1, "BDAT"), count(&server, 1, "DATA")], [3, 0]);
    assert_eq!(server.messages().len(), 3);
}
