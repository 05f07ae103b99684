//! A sender is lettre's `Transport`: code written against that trait needs no change.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

mod common;

use common::*;
use lettre::transport::smtp::response::{Category, Code, Detail, Response, Severity};
use lettre::{Message, Transport};
use smtp_pool::testing::{Action, Script, Stage, TestServer};
use smtp_pool::{FailureKind, SendError};

/// Application code that knows lettre alone.
fn notify<T: Transport>(transport: &T, message: &Message) -> Result<T::Ok, T::Error> {
    transport.send(message)
}

fn message() -> Message {
    Message::builder()
        .from("Sender <sender@example.com>".parse().unwrap())
        .to("to1@example.net".parse().unwrap())
        .bcc("to2@example.net".parse().unwrap())
        .message_id(Some("<lettre@transport>".to_owned()))
        .subject("Zürich")
        .body(String::from("Hällo.\n.\nA dot above.\n"))
        .unwrap()
}

#[test]
fn a_message_goes_through_the_trait_as_it_was_formatted() {
    let server = TestServer::start();
    let sender = sender(plain(&server)).build().unwrap();
    let message = message();
    let response: Response = notify(&sender, &message).unwrap();
    assert!(response.is_positive());
    let stored = server.messages().pop().unwrap();
    assert_eq!(stored.content(), message.formatted());
    assert_eq!((stored.mail_from(), stored.recipients().len()), ("sender@example.com", 2));
    assert!(!contains(stored.content(), b"to2@example.net"), "Bcc stays out of the header");
    assert_eq!(server.violations(), [""; 0]);
}

#[test]
fn the_response_is_the_servers_reply() {
    use Category::{Connections, Information, MailSystem, Syntax, Unspecified3, Unspecified4};
    for (reply, category, detail, lines) in [
        ("250 2.0.0 queued as 4ABC\r\n", MailSystem, Detail::Zero, vec!["2.0.0 queued as 4ABC"]),
        ("250-one\r\n250-\r\n250 three\r\n", MailSystem, Detail::Zero, vec!["one", "", "three"]),
        ("250\r\n", MailSystem, Detail::Zero, vec![""]),
        ("251 forwarded\r\n", MailSystem, Detail::One, vec!["forwarded"]),
        ("209 x\r\n", Syntax, Detail::Nine, vec!["x"]),
        ("214 x\r\n", Information, Detail::Four, vec!["x"]),
        ("220 x\r\n", Connections, Detail::Zero, vec!["x"]),
        ("235 x\r\n", Unspecified3, Detail::Five, vec!["x"]),
        ("248 x\r\n", Unspecified4, Detail::Eight, vec!["x"]),
    ] {
        let server = TestServer::builder()
            .script(Script::new().on(Stage::EndOfData, [Action::Accept, Action::reply(reply)]))
            .start();
        let response = notify(&sender(plain(&server)).build().unwrap(), &message()).unwrap();
        assert_eq!(response.code(), Code::new(Severity::PositiveCompletion, category, detail), "{reply}");
        assert_eq!(response.message().collect::<Vec<_>>(), lines, "{reply}");
    }
    // A reply that lettre has no words for is no reason to fail, or to send again.
    for reply in [&b"290 x\r\n"[..], b"266 x\r\n", b"250 \xe4\r\n"] {
        let server = TestServer::builder()
            .script(Script::new().on(Stage::EndOfData, [Action::Accept, Action::reply(reply)]))
            .start();
        assert!(notify(&sender(plain(&server)).build().unwrap(), &message()).unwrap().is_positive());
        assert_eq!(server.accepted("lettre@transport"), 1);
    }
}

#[test]
fn failures_are_the_same_as_without_the_trait() {
    let server =
        TestServer::builder().script(Script::new().on(Stage::EndOfData, [Action::reply("554 5.7.1 spam\r\n")])).start();
    let sender = sender(plain(&server)).build().unwrap();
    let error: SendError = notify(&sender, &message()).unwrap_err();
    assert_eq!((error.kind(), error.response().unwrap().code()), (FailureKind::PermanentFailure, 554));
    let boxed: Box<dyn std::error::Error + Send + Sync> = Box::new(error);
    assert!(boxed.to_string().contains("554"));
}

#[test]
fn raw_messages_and_shutdown_go_through_the_trait() {
    let server = TestServer::start();
    let sender = sender(plain(&server)).build().unwrap();
    Transport::send_raw(&sender, &envelope(1), &content("raw@transport")).unwrap();
    assert_eq!(server.accepted("raw@transport"), 1);
    Transport::shutdown(&sender);
    server.connection(1).wait_closed();
    assert!(said(&server, 1, "QUIT"));
    let error = Transport::send_raw(&sender, &envelope(1), &content("late@transport")).unwrap_err();
    assert_eq!((error.kind(), error.is_retry_safe()), (FailureKind::Shutdown, false), "{error}");
    assert_eq!(server.accepted("late@transport"), 0);
    // Doing it again does nothing.
    Transport::shutdown(&sender);
}

#[test]
fn a_sender_is_shared_between_threads() {
    fn is_shareable<T: Clone + Send + Sync + 'static>(_: &T) {}
    let server = TestServer::start();
    let sender = sender(plain(&server)).max_size(2).build().unwrap();
    is_shareable(&sender);
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let sender = sender.clone();
            std::thread::spawn(move || notify(&sender, &message()).unwrap())
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(server.accepted("lettre@transport"), 4);
}
