//! Delivery status notifications (RFC 3461): what is asked for is said as it was asked, or the message does not leave.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

mod common;

use common::*;
use smtp_pool::testing::{TestServer, TestServerBuilder};
use smtp_pool::{Dsn, DsnReturn, FailureKind, Notify, RecipientDsn, SendOptions, SendStage};

fn offering() -> TestServerBuilder {
    TestServer::builder().size(None).dsn(true)
}

fn asking(dsn: Dsn) -> SendOptions {
    SendOptions::new().dsn(dsn)
}

/// One setting of each kind.
fn everything() -> Dsn {
    let listed = RecipientDsn::new().notify(Notify::NEVER).original_recipient("the+list@example.net").unwrap();
    Dsn::new()
        .content(DsnReturn::Headers)
        .envelope_id("order 4711=a")
        .unwrap()
        .notify(Notify::FAILURE | Notify::DELAY)
        .recipient("to2@example.net".parse().unwrap(), listed)
}

#[test]
fn what_is_asked_for_is_said_at_mail_and_rcpt() {
    for pipelining in [true, false] {
        let server = offering().pipelining(pipelining).start();
        let sender = sender(plain(&server)).build().unwrap();
        send_to(&sender, "asked@dsn", 3, &asking(everything())).unwrap();
        send_to(&sender, "plain@dsn", 3, &SendOptions::new()).unwrap();
        let [asked, plain] = &server.messages()[..] else { panic!("two messages") };
        assert_eq!(asked.mail_parameters(), ["RET=HDRS", "ENVID=order+204711+3Da"]);
        assert_eq!(
            asked.recipient_parameters(),
            [
                vec!["NOTIFY=FAILURE,DELAY".to_owned()],
                vec!["NOTIFY=NEVER".to_owned(), "ORCPT=rfc822;the+2Blist@example.net".to_owned()],
                vec!["NOTIFY=FAILURE,DELAY".to_owned()],
            ]
        );
        assert_eq!(plain.mail_parameters(), [""; 0], "asked for by one send alone");
        assert!(plain.recipient_parameters().iter().all(Vec::is_empty));
        assert_eq!((server.connections_accepted(), server.violations()), (1, Vec::new()));
    }
}

#[test]
fn it_is_said_in_one_write_and_over_a_lease_too() {
    let server = offering().chunking(true).start();
    let sender = sender(plain(&server).single_round_trip(true)).build().unwrap();
    let options = asking(Dsn::new().content(DsnReturn::Full).notify(Notify::SUCCESS));
    send_to(&sender, "one-write@dsn", 1, &options).unwrap();
    assert!(said(&server, 1, "BDAT"));
    sender.lease().unwrap().send_with(&envelope(1), &content("lease@dsn"), &options).unwrap();
    let messages = server.messages();
    assert_eq!(messages.len(), 2);
    for message in messages {
        assert_eq!(message.mail_parameters(), ["RET=FULL"]);
        assert_eq!(message.recipient_parameters(), [["NOTIFY=SUCCESS".to_owned()]]);
    }
}

#[test]
fn a_server_without_dsn_gets_no_message_that_asks_for_it() {
    let server = TestServer::start();
    let sender = sender(plain(&server)).build().unwrap();
    let error = send_to(&sender, "never@dsn", 1, &asking(Dsn::new().notify(Notify::SUCCESS))).unwrap_err();
    assert_eq!((error.kind(), error.stage()), (FailureKind::PermanentFailure, SendStage::Authenticated), "{error}");
    assert!(error.to_string().contains("DSN (RFC 3461)"), "{error}");
    assert!(!said(&server, 1, "MAIL"), "{:?}", server.transcript(1).commands());
    // The refusal is about the message: its connection is as good as before.
    send_to(&sender, "next@dsn", 1, &SendOptions::new()).unwrap();
    assert_eq!((server.messages().len(), server.connections_accepted()), (1, 1));
}

#[test]
fn when_offered_goes_without_where_it_is_not() {
    let (with, without) = (offering().start(), TestServer::builder().size(None).start());
    for (server, parameters) in [(&with, 2), (&without, 0)] {
        let sender = sender(plain(server)).build().unwrap();
        send_to(&sender, "optional@dsn", 2, &asking(everything().when_offered())).unwrap();
        assert_eq!(server.messages()[0].mail_parameters().len(), parameters);
        assert_eq!(server.messages()[0].recipient_parameters()[1].len(), parameters);
        assert_eq!(server.violations(), [""; 0]);
    }
}

#[test]
fn a_recipient_that_the_envelope_does_not_have_is_refused_before_mail() {
    let server = offering().start();
    let sender = sender(plain(&server)).build().unwrap();
    // It names the second of two.
    let error = send_to(&sender, "never@dsn", 1, &asking(everything())).unwrap_err();
    assert_eq!((error.kind(), error.stage()), (FailureKind::PermanentFailure, SendStage::Authenticated), "{error}");
    assert!(!error.to_string().contains('@'), "{error}");
    assert!(!said(&server, 1, "MAIL"));
}
