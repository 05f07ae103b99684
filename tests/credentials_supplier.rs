//! Credentials that the program supplies: asked for with each connection, refreshed once, and nobody waits for them past the deadline.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

mod common;

use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use common::*;
use lettre::transport::smtp::authentication::Mechanism;
use smtp_pool::testing::{Action, Script, Stage, TestServer, TestServerBuilder};
use smtp_pool::{CancelToken, Credentials, DiscardReason, FailureKind, Host, HostState, SendError, SendOptions};

const USER: &str = "shop@example.com";

type Supplied = Result<Credentials, Box<dyn Error + Send + Sync>>;

fn server_of(tokens: &[&str]) -> TestServerBuilder {
    let server = TestServer::builder().auth_mechanisms(&["XOAUTH2", "PLAIN"]);
    tokens.iter().fold(server, |server, token| server.credentials(USER, *token))
}

/// The server as a host for bearer tokens, and how often the supplier was called.
fn host(server: &TestServer, supply: impl Fn(usize) -> Supplied + Send + Sync + 'static) -> (Host, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let supplier = move || supply(count.fetch_add(1, SeqCst) + 1);
    let host = plain(server).dangerous_plaintext_auth(true).auth_mechanisms([Mechanism::Xoauth2]);
    (host.credentials_with(supplier), calls)
}

fn token(text: &str) -> Supplied {
    Ok(Credentials::new(USER, text))
}

/// An error of the program's own.
#[derive(Debug)]
struct EndpointDown {
    body: &'static str,
}

impl fmt::Display for EndpointDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "503 from the token endpoint: {}", self.body)
    }
}

impl Error for EndpointDown {}

fn own_error(error: &SendError) -> Option<&EndpointDown> {
    error.source()?.downcast_ref()
}

#[test]
fn each_connection_asks_and_no_message_does() {
    let server = server_of(&["token 1", "token 2", "token 3"]).start();
    let (host, calls) = host(&server, |call| token(&format!("token {call}")));
    let sender = sender(host).max_messages_per_connection(2).build().unwrap();
    for number in 0..6 {
        send(&sender, &format!("{number}@supplier")).unwrap();
    }
    assert_eq!((calls.load(SeqCst), server.connections_accepted()), (3, 3));
    assert!(server.messages().iter().all(|it| it.authenticated_as() == Some(USER)));
}

#[test]
fn an_expired_token_is_refreshed_once_on_the_same_connection() {
    let server = server_of(&["fresh"]).start();
    let (host, calls) = host(&server, |call| token(if call == 1 { "expired" } else { "fresh" }));
    let sender = sender(host).build().unwrap();
    assert_eq!(send(&sender, "expired@supplier").unwrap().attempts(), 1);
    assert_eq!((calls.load(SeqCst), server.connections_accepted()), (2, 1));
    let commands = server.transcript(1).commands().to_vec();
    let auths: Vec<_> = commands.iter().enumerate().filter(|(_, line)| line.starts_with("AUTH XOAUTH2 ")).collect();
    assert_eq!(auths.len(), 2, "{commands:?}");
    // Google's protocol: the 334 with the reason is answered with an empty line, and 535 comes of that.
    assert_eq!(commands[auths[0].0 + 1], "", "{commands:?}");
    assert_eq!((sender.status().create_failures, sender.status().hosts[0].state), (0, HostState::Available));
}

#[test]
fn a_refusal_of_other_kinds_is_refreshed_too() {
    // Without a challenge, as Microsoft has it; 534; and a password out of a vault, by PLAIN.
    for (refusal, mechanism) in [
        ("535 5.7.3 Authentication unsuccessful\r\n", Mechanism::Xoauth2),
        ("534 5.7.9 please log in again\r\n", Mechanism::Xoauth2),
        ("535 5.7.8 changed\r\n", Mechanism::Plain),
    ] {
        let server = server_of(&["1", "2"]).script(Script::new().once(Stage::Auth, [Action::reply(refusal)])).start();
        let (host, calls) = host(&server, |call| token(&call.to_string()));
        send(&sender(host.auth_mechanisms([mechanism])).build().unwrap(), "other@supplier").unwrap();
        assert_eq!((calls.load(SeqCst), server.connections_accepted()), (2, 1), "{refusal}");
    }
}

#[test]
fn refused_again_is_refused_for_good() {
    let server = server_of(&["right"]).start();
    let (host, calls) = host(&server, |call| token(&format!("wrong {call}")));
    let sender = sender(host).max_retries(3).max_reconnect_cooldown(HOUR).build().unwrap();
    let error = send(&sender, "refused@supplier").unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (FailureKind::PermanentFailure, 1), "{error}");
    assert_eq!(error.response().unwrap().code(), 535);
    assert_eq!((calls.load(SeqCst), server.snapshot().reached(Stage::Auth)), (2, 2));
    let HostState::CoolingDown { until } = sender.status().hosts[0].state else { panic!("{:?}", sender.status()) };
    assert!(until > now() + HOUR / 2, "the longest pause");
    send(&sender, "pauses@supplier").unwrap_err();
    assert_eq!((calls.load(SeqCst), server.snapshot().reached(Stage::Auth)), (2, 2), "nobody is asked in the pause");
    // Whoever is told that there are other credentials now tries them.
    sender.refresh_credentials("127.0.0.1").unwrap();
    assert_eq!(sender.status().hosts[0].state, HostState::Available);
}

#[test]
fn the_same_token_is_not_tried_twice() {
    let server = server_of(&["right"]).start();
    let (host, calls) = host(&server, |_| token("wrong"));
    let error = send(&sender(host).build().unwrap(), "same@supplier").unwrap_err();
    assert_eq!(error.kind(), FailureKind::PermanentFailure, "{error}");
    assert_eq!((calls.load(SeqCst), server.snapshot().reached(Stage::Auth)), (2, 1), "trying again locks accounts");
}

#[test]
fn a_failing_supplier_is_told_to_the_caller_alone_and_pauses_its_host() {
    let server = server_of(&["right"]).start();
    let (host, calls) = host(&server, |_| Err(EndpointDown { body: "canary" }.into()));
    let sender = sender(host).reconnect_cooldown(HOUR).max_reconnect_cooldown(HOUR).build().unwrap();
    let error = send(&sender, "down@supplier").unwrap_err();
    assert_eq!((error.kind(), error.is_retry_safe()), (FailureKind::HostUnavailable, true), "{error}");
    assert_eq!(own_error(&error).unwrap().body, "canary");
    assert!(error.to_string().contains("the supplier of credentials returned an error"), "{error}");
    let trace = error.trace().to_string();
    assert!(trace.contains("the supplier of credentials returned an error"), "{trace}");
    let shown = format!("{error} {error:?} {error:#?} {trace} {:?} {sender:?}", sender.status());
    assert!(!shown.contains("canary"), "{shown}");
    assert_eq!(server.connections_accepted(), 0, "no server waits for it");
    // No stampede on the endpoint: in the pause it is not asked.
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..50).for_each(|number| drop(send(&sender, &format!("{number}@stampede")))));
        }
    });
    assert_eq!(calls.load(SeqCst), 1);
    let error = send(&sender, "pauses@supplier").unwrap_err();
    assert!(error.retry_after().is_some() && !error.to_string().contains("canary"), "{error}");
}

#[test]
fn a_host_without_credentials_leaves_its_mail_to_another_in_the_same_call() {
    let (server, standby) = (server_of(&["right"]).start(), TestServer::start());
    let (host, calls) = host(&server, |_| Err(EndpointDown { body: "down" }.into()));
    let sender = sender(host).host(plain(&standby).priority(10)).reconnect_cooldown(HOUR).max_reconnect_cooldown(HOUR);
    let sender = sender.build().unwrap();
    for number in 0..3 {
        assert_eq!(send(&sender, &format!("{number}@supplier")).unwrap().attempts(), 1);
    }
    assert_eq!((standby.messages().len(), calls.load(SeqCst)), (3, 1));
}

#[test]
fn live_sessions_are_used_while_the_supplier_fails() {
    let server = server_of(&["right"]).start();
    let (host, _) = host(&server, |call| match call {
        1 => token("right"),
        _ => Err(EndpointDown { body: "down" }.into()),
    });
    let sender = sender(host).max_size(2).reconnect_cooldown(HOUR).max_reconnect_cooldown(HOUR).build().unwrap();
    let lease = sender.lease().unwrap();
    send(&sender, "down@supplier").unwrap_err();
    drop(lease);
    (0..3).for_each(|number| assert_eq!(send(&sender, &format!("{number}@live")).unwrap().connection_id(), 1));
}

#[test]
fn a_panic_in_the_supplier_is_an_error() {
    let server = server_of(&["right"]).start();
    let (host, _) = host(&server, |call| if call == 1 { panic!("as planned") } else { token("right") });
    let sender = sender(host).build().unwrap();
    let error = send(&sender, "panic@supplier").unwrap_err();
    assert_eq!((error.kind(), error.is_retry_safe()), (FailureKind::HostUnavailable, true), "{error}");
    assert!(error.to_string().contains("panicked"), "{error}");
    eventually("the pause is over", || send(&sender, "after@supplier").is_ok());
}

#[test]
fn a_supplier_that_hangs_holds_nobody_past_the_deadline() {
    let server = server_of(&["right"]).start();
    let (_hold, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let (host, calls) = host(&server, move |_| {
        let _ = held.lock().unwrap().recv();
        token("late")
    });
    // Bounded by the caller, by acquire_timeout, and by auth_timeout.
    let by_caller = sender(host.clone()).build().unwrap();
    for _ in 0..3 {
        let deadline = now() + ms(100);
        let options = SendOptions::new().deadline(deadline);
        let error = send_to(&by_caller, "caller@hang", 1, &options).unwrap_err();
        assert!(now() < deadline + PATIENCE / 2, "{error}");
        assert!(error.is_retry_safe(), "{error}");
    }
    let error = send(&sender(host.clone()).acquire_timeout(ms(50)).build().unwrap(), "acquire@hang").unwrap_err();
    assert!(error.is_retry_safe(), "{error}");
    let by_auth = sender(host.clone()).auth_timeout(ms(50)).max_reconnect_cooldown(HOUR).build().unwrap();
    let error = send(&by_auth, "auth@hang").unwrap_err();
    assert_eq!((error.kind(), error.is_retry_safe()), (FailureKind::HostUnavailable, true), "{error}");
    assert!(error.to_string().contains("auth_timeout"), "the limit is named: {error}");
    // By a token.
    let by_token = sender(host).build().unwrap();
    let token = CancelToken::new();
    thread::scope(|scope| {
        let options = SendOptions::new().cancel(&token);
        let before = calls.load(SeqCst);
        let call = scope.spawn({
            let by_token = &by_token;
            move || send_to(by_token, "token@hang", 1, &options).unwrap_err()
        });
        eventually("the supplier is asked", || calls.load(SeqCst) > before);
        token.cancel();
        assert_eq!(call.join().unwrap().kind(), FailureKind::Cancelled);
    });
    // Nor does it hold up the end.
    assert!(by_token.shutdown(Duration::ZERO));
    assert_eq!(server.connections_accepted(), 0);
}

#[test]
fn a_refresh_stays_within_auth_timeout() {
    let server = server_of(&["right"]).start();
    let (_hold, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let (host, _) = host(&server, move |call| {
        if call > 1 {
            let _ = held.lock().unwrap().recv();
        }
        token("expired")
    });
    let error = send(&sender(host).auth_timeout(ms(200)).build().unwrap(), "refresh@hang").unwrap_err();
    assert_eq!((error.kind(), error.is_retry_safe()), (FailureKind::HostUnavailable, true), "{error}");
    assert!(error.to_string().contains("auth_timeout"), "{error}");
    server.connection(1).wait_closed();
}

#[test]
fn a_supplier_that_fails_to_refresh_is_told_as_such() {
    let server = server_of(&["right"]).start();
    let (host, _) = host(&server, |call| match call {
        1 => token("expired"),
        _ => Err(EndpointDown { body: "down" }.into()),
    });
    let error = send(&sender(host).build().unwrap(), "refresh@supplier").unwrap_err();
    assert_eq!((error.kind(), error.is_retry_safe()), (FailureKind::HostUnavailable, true), "{error}");
    assert!(own_error(&error).is_some());
    server.connection(1).wait_closed();
    assert!(said(&server, 1, "QUIT"), "the session was in step");
}

#[test]
fn what_no_mechanism_can_send_is_not_sent() {
    let server = server_of(&["right"]).start();
    let (host, _) = host(&server, |_| token("a\x01auth=Bearer b"));
    let error = send(&sender(host).build().unwrap(), "unusable@supplier").unwrap_err();
    assert_eq!(error.kind(), FailureKind::HostUnavailable, "{error}");
    assert_eq!(server.connections_accepted(), 0);
}

#[test]
fn a_token_is_no_password() {
    // The default is PLAIN and LOGIN, whoever supplies: on a server that takes tokens alone nothing is sent.
    let server = TestServer::builder().auth_mechanisms(&["XOAUTH2"]).credentials(USER, "token").start();
    let host = plain(&server).dangerous_plaintext_auth(true).credentials_with(|| token("token"));
    let error = send(&sender(host).build().unwrap(), "default@supplier").unwrap_err();
    assert_eq!((error.kind(), server.snapshot().reached(Stage::Auth)), (FailureKind::PermanentFailure, 0), "{error}");
}

#[test]
fn a_refresh_by_hand_ends_the_sessions_and_asks_again() {
    let server = server_of(&["1", "2"]).start();
    let (host, calls) = host(&server, |call| token(&call.to_string()));
    let sender = sender(host).build().unwrap();
    send(&sender, "before@refresh").unwrap();
    sender.refresh_credentials("127.0.0.1").unwrap();
    assert_eq!(sender.status().discarded.of(DiscardReason::CredentialsRotated), 1);
    send(&sender, "after@refresh").unwrap();
    assert_eq!((calls.load(SeqCst), server.connections_accepted()), (2, 2));
    // A call that was under way is for those who waited for it: their sessions are old, and carry nothing.
    let (go_on, goes_on) = mpsc::channel::<()>();
    let goes_on = Mutex::new(goes_on);
    let server = server_of(&["old", "new"]).start();
    let (host, calls) = self::host(&server, move |call| {
        if call > 1 {
            return token("new");
        }
        let _ = goes_on.lock().unwrap().recv_timeout(PATIENCE);
        token("old")
    });
    let sender = common::sender(host).build().unwrap();
    thread::scope(|scope| {
        let early = scope.spawn(|| send(&sender, "early@refresh").unwrap());
        eventually("the supplier is asked", || calls.load(SeqCst) == 1);
        sender.refresh_credentials("127.0.0.1").unwrap();
        send(&sender, "late@refresh").unwrap();
        assert_eq!(calls.load(SeqCst), 2, "a call from before is not joined");
        go_on.send(()).unwrap();
        early.join().unwrap();
    });
    assert_eq!(server.messages().len(), 2);
    assert_eq!(sender.status().counts.total as u64 + 1, sender.status().created);
}

#[test]
fn a_supplier_is_shown_as_such_and_never_its_value() {
    let supplied = |token: &'static str| Host::starttls("a.example").credentials_with(move || self::token(token));
    let host = supplied("canary");
    let shown = format!("{host:?} {host:#?}");
    assert!(shown.contains("Supplied(Supplier)") && !shown.contains("canary"), "{shown}");
    assert_eq!(host, host.clone());
    assert_ne!(host, supplied("canary"), "what they would give is not asked");
    let written = serde_json::to_string(&host).unwrap();
    assert!(written.contains(r#""credentials":"supplied""#), "{written}");
    let error = sender(serde_json::from_str(&written).unwrap()).build().unwrap_err();
    assert_eq!(error.option(), "hosts[0].credentials");
    assert!(error.rule().contains("credentials_with"), "{error}");
    // The same server twice is refused, whatever the credentials are.
    let twice = sender(host.clone()).host(Host::starttls("A.example.").credentials("user", "secret")).build();
    assert_eq!(twice.unwrap_err().option(), "hosts[1]");
    assert!(sender(host.auth_mechanisms([])).build().is_err(), "a mechanism is needed");
}
