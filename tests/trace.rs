//! What a call says of its own way: the steps of a trace, against the embedded server. Their times are held to the millisecond in
//! `src/sender/simulation/timeline.rs`.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use common::*;
use rcgen::CertifiedKey;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use smtp_pool::testing::{Action, CertificateKind, Script, Security, Stage, TestServer};
use smtp_pool::{
    DiscardReason, FailureKind, Host, RecipientPolicy, SendError, SendOptions, SendStage, SmtpSender, TlsVersion,
    Trace, TraceCause, TraceEvent,
};

/// The labels of all steps; and that each step is where and when it can be.
fn labels(trace: &Trace) -> Vec<&'static str> {
    let mut before = std::time::Duration::ZERO;
    for step in trace.steps() {
        assert!(step.at() >= before, "in order: {trace}");
        assert!(step.took().is_none_or(|took| took <= step.at()), "nothing began before the call: {trace}");
        before = step.at();
    }
    assert_eq!(trace.to_string().lines().count(), trace.steps().count(), "a line for each step: {trace}");
    trace.steps().map(|step| step.event().as_str()).collect()
}

fn events(trace: &Trace) -> Vec<TraceEvent> {
    trace.steps().map(|step| step.event()).collect()
}

/// The cause of the only failure of a call that failed, and that it is about the server.
fn cause(error: &SendError, server: &TestServer) -> TraceCause {
    let failures = error.trace().steps().filter_map(|step| match step.event() {
        TraceEvent::ConnectFailed { cause, .. } | TraceEvent::SendFailed { cause, .. } => {
            assert_eq!(step.endpoint().map(|host| (host.name(), host.port())), Some(("127.0.0.1", server.port())));
            Some(cause)
        }
        _ => None,
    });
    let failures: Vec<_> = failures.collect();
    assert_eq!(failures.len(), 1, "{}", error.trace());
    failures[0]
}

#[test]
fn every_way_to_a_connection_says_how_it_is_protected() {
    for security in [Security::Plain, Security::StartTls, Security::ImplicitTls] {
        let server = tls_server(security).start();
        let (host, expected) = match security {
            Security::Plain => (plain(&server), None),
            // More is not spoken by a server of native-tls; one that speaks more is below.
            Security::StartTls => (starttls(&server), Some(TlsVersion::Tls12)),
            _ => (implicit_tls(&server), Some(TlsVersion::Tls12)),
        };
        let sender = sender(host).build().unwrap();
        let first = send(&sender, "first@trace").unwrap();
        assert_eq!(labels(first.trace()), ["connected", "accepted"]);
        let TraceEvent::Connected { connection, tls, .. } = events(first.trace())[0] else { panic!("{first:?}") };
        assert_eq!((connection, tls), (first.connection_id(), expected), "{security:?}");
        let last = first.trace().steps().last().unwrap();
        assert_eq!(last.at(), first.elapsed(), "the call is over with its last step");
        let second = send(&sender, "second@trace").unwrap();
        assert_eq!(labels(second.trace()), ["reused", "accepted"]);
        let TraceEvent::Reused { connection, messages, .. } = events(second.trace())[0] else { panic!("{second:?}") };
        assert_eq!((connection, messages), (first.connection_id(), 1));
    }
}

/// A server that speaks TLS 1.3 and nothing else, for one session. It refuses every MAIL.
fn of_tls_13(listener: &TcpListener, config: Arc<ServerConfig>) {
    let (socket, _) = listener.accept().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut tls = BufReader::new(StreamOwned::new(ServerConnection::new(config).unwrap(), socket));
    let mut reply = "220 ready";
    loop {
        tls.get_mut().write_all(format!("{reply}\r\n").as_bytes()).unwrap();
        let mut line = String::new();
        reply = match tls.read_line(&mut line) {
            Ok(_) if line.starts_with("EHLO") => "250 localhost",
            Ok(_) if line.starts_with("MAIL") => "550 5.7.1 no",
            _ => return,
        };
    }
}

#[test]
fn the_version_of_tls_is_the_one_that_the_server_chose() {
    let CertifiedKey { cert, key_pair } = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key_pair.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = Host::implicit_tls("127.0.0.1").port(listener.local_addr().unwrap().port());
    let server = thread::spawn(move || of_tls_13(&listener, Arc::new(config)));
    let sender = sender(host.root_certificate(cert.der().to_vec())).build().unwrap();
    let error = send(&sender, "tls13@trace").unwrap_err();
    assert_eq!(labels(error.trace()), ["connected", "send_failed", "gave_up"]);
    let TraceEvent::Connected { tls, .. } = events(error.trace())[0] else { panic!("{error:?}") };
    assert_eq!(tls, Some(TlsVersion::Tls13));
    assert!(error.trace().to_string().contains("connected over TLS 1.3 as connection #1"), "{}", error.trace());
    drop(sender);
    server.join().unwrap();
}

#[test]
fn a_recipient_of_a_later_part_has_the_number_that_it_has_in_the_envelope() {
    // Two at a time; the third part is for the fifth alone.
    let script = Script::new()
        .on_command(Stage::Rcpt, "to1@", [Action::reply("450 4.2.1 later\r\n")])
        .on_command(Stage::Rcpt, "to4@", [Action::reply("550 5.1.1 nobody\r\n")])
        .on_command(Stage::Rcpt, "to5@", [Action::Fin]);
    let server = TestServer::builder().ehlo_keyword("LIMITS RCPTMAX=2").script(script).start();
    let sender = sender(plain(&server)).max_retries(0).build().unwrap();
    let partial = SendOptions::new().recipients(RecipientPolicy::AcceptPartial);
    let receipt = send_to(&sender, "parts@trace", 5, &partial).unwrap();
    let refused = |event: &TraceEvent| match *event {
        TraceEvent::RecipientRefused { number, code, .. } => Some((number, code)),
        _ => None,
    };
    assert_eq!(events(receipt.trace()).iter().filter_map(refused).collect::<Vec<_>>(), [(1, 450), (4, 550)]);
    let failed = |event: &TraceEvent| match *event {
        TraceEvent::SendFailed { cause, .. } => Some((cause.as_str(), cause.during(), cause.recipient())),
        _ => None,
    };
    // The session had been used, so that the fifth is offered once more over a fresh one.
    let failures: Vec<_> = events(receipt.trace()).iter().filter_map(failed).collect();
    assert_eq!(failures, [("closed", "rcpt", Some(5)); 2], "{}", receipt.trace());
    assert!(receipt.trace().to_string().contains("RCPT #4 → 550 5.1.1"), "{}", receipt.trace());
}

#[test]
fn refused_recipients_are_numbers_and_codes_on_success_too() {
    let script = Script::new().on_nth(Stage::Rcpt, 2, [Action::reply("550 5.1.1 nobody\r\n")]);
    let server = TestServer::builder().script(script).start();
    let sender = sender(plain(&server)).build().unwrap();
    let partial = SendOptions::new().recipients(RecipientPolicy::AcceptPartial);
    let receipt = send_to(&sender, "partial@trace", 3, &partial).unwrap();
    assert_eq!(labels(receipt.trace()), ["connected", "recipient_refused", "accepted"]);
    let TraceEvent::RecipientRefused { number, code, enhanced, .. } = events(receipt.trace())[1] else {
        panic!("{receipt:?}")
    };
    let enhanced = enhanced.map(|code| (code.class, code.subject, code.detail));
    assert_eq!((number, code, enhanced), (2, 550, Some((5, 1, 1))));
    assert!(receipt.trace().to_string().contains("RCPT #2 → 550 5.1.1"), "{}", receipt.trace());

    let server = TestServer::builder()
        .script(Script::new().on_nth(Stage::Rcpt, 2, [Action::reply("550 5.1.1 nobody\r\n")]))
        .start();
    let sender = common::sender(plain(&server)).build().unwrap();
    let error = send_to(&sender, "whole@trace", 3, &SendOptions::new()).unwrap_err();
    assert_eq!(labels(error.trace()), ["connected", "recipient_refused", "gave_up"]);
}

#[test]
fn what_ended_a_call_is_its_last_step_but_one() {
    let said = |stage, reply: &str| Script::new().on(stage, [Action::reply(format!("{reply}\r\n"))]);
    let does = |stage, action| Script::new().on(stage, [action]);
    for (script, step, label, during, code, recipient) in [
        (said(Stage::Connect, "554 5.3.2 no"), "connect_failed", "refused", "greeting", Some(554), None),
        (said(Stage::Ehlo, "nonsense"), "connect_failed", "out_of_step", "ehlo", None, None),
        (does(Stage::Ehlo, Action::Fin), "connect_failed", "closed", "ehlo", None, None),
        (said(Stage::Mail, "550 5.7.1 no"), "send_failed", "refused", "mail", Some(550), None),
        (said(Stage::Mail, "354 what"), "send_failed", "out_of_step", "mail", Some(354), None),
        (said(Stage::Rcpt, "421 4.3.2 bye"), "send_failed", "refused", "rcpt", Some(421), Some(1)),
        (does(Stage::Rcpt, Action::Fin), "send_failed", "closed", "rcpt", None, Some(1)),
        (said(Stage::Data, "451 4.3.0 no"), "send_failed", "refused", "data", Some(451), None),
        (said(Stage::EndOfData, "554 5.6.0 no"), "send_failed", "refused", "end_of_data", Some(554), None),
        (does(Stage::EndOfData, Action::Silence), "send_failed", "timed_out", "end_of_data", None, None),
    ] {
        let server = TestServer::builder().script(script).start();
        let patience = if label == "timed_out" { ms(50) } else { PATIENCE };
        let sender = sender(plain(&server)).final_reply_timeout(patience).build().unwrap();
        let error = send(&sender, "end@trace").unwrap_err();
        let steps = labels(error.trace());
        assert_eq!(steps[steps.len() - 2..], [step, "gave_up"], "{during}: {}", error.trace());
        let cause = cause(&error, &server);
        assert_eq!(
            (cause.as_str(), cause.during(), cause.code(), cause.recipient()),
            (label, during, code, recipient),
            "{}",
            error.trace()
        );
        let TraceEvent::GaveUp { kind, stage, .. } = *events(error.trace()).last().unwrap() else {
            panic!("{error:?}")
        };
        assert_eq!((kind, stage), (error.kind(), error.stage()));
    }
}

#[test]
fn a_certificate_that_is_not_trusted_and_a_password_that_is_not_taken_are_told_apart() {
    let server = tls_server(Security::StartTls).certificate(CertificateKind::SelfSigned).start();
    let host = Host::starttls("127.0.0.1").port(server.port());
    let error = send(&sender(host).build().unwrap(), "certificate@trace").unwrap_err();
    let of_certificate = cause(&error, &server);
    assert_eq!((of_certificate.as_str(), of_certificate.during()), ("certificate", "tls"), "{}", error.trace());

    let server = TestServer::builder().security(Security::StartTls).credentials("user", "secret").start();
    let error =
        send(&sender(starttls(&server).credentials("user", "wrong")).build().unwrap(), "auth@trace").unwrap_err();
    let of_password = cause(&error, &server);
    assert_eq!((of_password.as_str(), of_password.during(), of_password.code()), ("refused", "auth", Some(535)));
    assert!(of_password.enhanced_code().is_some(), "{}", error.trace());
}

#[test]
fn a_connection_that_the_server_closed_while_it_was_idle_is_replaced_and_told_of() {
    let server = TestServer::start();
    let sender = sender(plain(&server)).build().unwrap();
    let first = send(&sender, "first@trace").unwrap();
    server.connection(1).close();
    let second = send(&sender, "second@trace").unwrap();
    let steps = labels(second.trace());
    // The end is seen by the look before the first command, or by the first command.
    assert!(
        steps == ["replaced", "connected", "accepted"]
            || steps == ["reused", "send_failed", "replaced", "connected", "accepted"],
        "{}",
        second.trace()
    );
    let replaced = events(second.trace()).into_iter().find_map(|event| match event {
        TraceEvent::Replaced { connection, reason, .. } => Some((connection, reason)),
        _ => None,
    });
    assert_eq!(replaced, Some((first.connection_id(), DiscardReason::ServerClosed)));
    assert_eq!(second.attempts(), 1);
}

#[test]
fn every_door_gives_a_trace() {
    let server = TestServer::start();
    let sender = sender(plain(&server)).build().unwrap();
    let receipt = sender.lease().unwrap().send_raw(&envelope(1), &content("lease@trace")).unwrap();
    assert_eq!(labels(receipt.trace()), ["accepted"]);
    assert_eq!(receipt.trace().steps().next().unwrap().endpoint(), Some(receipt.endpoint()));
    #[cfg(feature = "r2d2")]
    {
        use r2d2::ManageConnection as _;

        let manager = smtp_pool::SmtpConnectionManager::new(plain(&server)).unwrap();
        let mut connection = manager.connect().unwrap();
        let receipt = connection.send_with(&envelope(1), &content("r2d2@trace"), &SendOptions::new()).unwrap();
        assert_eq!(labels(receipt.trace()), ["accepted"]);
        server.set_script(Script::new().on(Stage::Mail, [Action::reply("550 5.7.1 no\r\n")]));
        let error = connection.send_with(&envelope(1), &content("r2d2-2@trace"), &SendOptions::new()).unwrap_err();
        assert_eq!(labels(error.trace()), ["send_failed", "gave_up"]);
        server.set_script(Script::new().on(Stage::Rset, [Action::Fin]));
        let error = manager.is_valid(&mut connection).unwrap_err();
        assert_eq!(labels(error.trace()), ["send_failed", "gave_up"]);
        server.set_script(Script::new().on(Stage::Connect, [Action::reply("554 5.3.2 no\r\n"), Action::Fin]));
        let error = manager.connect().unwrap_err();
        assert_eq!(labels(error.trace()), ["connect_failed", "gave_up"]);
        server.set_script(Script::new());
    }
    let mut lease = sender.lease().unwrap();
    server.set_script(Script::new().on(Stage::Noop, [Action::Fin]));
    assert_eq!(labels(lease.noop().unwrap_err().trace()), ["send_failed", "gave_up"]);
    drop(lease);
    server.set_script(Script::new());
    sender.shutdown(ms(0));
    let error = sender.lease().unwrap_err();
    assert_eq!((error.kind(), labels(error.trace())), (FailureKind::Shutdown, vec!["gave_up"]));
    let error = sender.verify().remove(0).result.unwrap_err();
    assert_eq!(labels(error.trace()), ["gave_up"]);
}

/// Every kind of failure, by a real send: its text is at most two lines and names where, how far, what limit and how many.
#[test]
fn the_text_of_every_kind_of_failure_fits_two_lines_and_names_what_matters() {
    let said = |stage, reply: String| Script::new().on(stage, [Action::reply(reply)]);
    let long = format!("550-5.1.1 {}\r\n550 5.1.1 end\r\n", "long ".repeat(300));
    let in_content = "in the content";
    let rows: [(FailureKind, Script, SendStage, &[&str]); 7] = [
        (
            FailureKind::HostUnavailable,
            said(Stage::Connect, "554 5.3.2 not for you\r\n".to_owned()),
            SendStage::Connected,
            &[
                "no host available",
                "while opening the session",
                "the greeting",
                "554 5.3.2 not for you",
                "next try of a host in",
            ],
        ),
        (
            FailureKind::RetryableBeforeSend,
            Script::new().on(Stage::Body, [Action::Reset]),
            SendStage::DataStarted,
            &["not sent, safe to retry", in_content],
        ),
        (
            FailureKind::RetryableTemporaryFailure,
            said(Stage::Rcpt, "450 4.2.0 greylisted\r\n".to_owned()),
            SendStage::EnvelopeStarted,
            &["temporary failure", "RCPT", "in the envelope", "450 4.2.0 greylisted"],
        ),
        (
            FailureKind::PermanentFailure,
            said(Stage::Rcpt, long),
            SendStage::EnvelopeStarted,
            &["permanent failure", "RCPT", "in the envelope", "550 5.1.1 long long", "…"],
        ),
        (
            FailureKind::UnknownAfterData,
            Script::new().on(Stage::EndOfData, [Action::Silence]),
            SendStage::DataCompleted,
            &["may have been delivered", "after the last byte", "final_reply_timeout is 50ms"],
        ),
        (
            FailureKind::ConnectionCorrupted,
            said(Stage::Mail, "nonsense\r\n".to_owned()),
            SendStage::EnvelopeStarted,
            &["out of step", "MAIL", "in the envelope"],
        ),
        (
            FailureKind::RetryableBeforeSend,
            Script::new().on(Stage::Mail, [Action::Silence]),
            SendStage::EnvelopeStarted,
            &["timed out in MAIL", "send_timeout is 200ms"],
        ),
    ];
    let check = |error: &SendError, kind, server: &TestServer, parts: &[&str]| {
        let text = error.to_string();
        assert_eq!(error.kind(), kind, "{text}");
        assert!(text.chars().count() <= 320 && !text.contains(['\r', '\n']), "{}: {text}", text.chars().count());
        let host = format!("127.0.0.1:{}", server.port());
        let counts = ["max_size=", "total=", "idle=", "leased=", "connecting=", "waiting="];
        for part in parts.iter().chain(&[&*host, "attempt"]).chain(&counts) {
            assert!(text.contains(part), "no \"{part}\" in: {text}");
        }
    };
    for (kind, script, stage, parts) in rows {
        let server = TestServer::builder().script(script).start();
        // Short only where it is to be run into: a busy machine runs into any.
        let limit = |text: &str, short| if parts.iter().any(|part| part.starts_with(text)) { short } else { PATIENCE };
        let sender = sender(plain(&server)).send_timeout(limit("send_timeout", ms(200)));
        let sender = sender.final_reply_timeout(limit("final_reply_timeout", ms(50))).build().unwrap();
        let big = big_content("text@trace", 5_000_000);
        let content = if parts.contains(&in_content) { big } else { content("text@trace") };
        let error = sender.send_raw(&envelope(1), &content).unwrap_err();
        assert_eq!(error.stage(), stage, "{error}");
        check(&error, kind, &server, parts);
    }
    let script = Script::new().on(Stage::Connect, [Action::reply("554 5.3.2 not for you\r\n")]);
    let server = TestServer::builder().script(script).start();
    let cooling = sender(plain(&server)).reconnect_cooldown(HOUR).max_reconnect_cooldown(HOUR).build().unwrap();
    send(&cooling, "first@trace").unwrap_err();
    let error = send(&cooling, "cooling@trace").unwrap_err();
    let parts =
        ["every host is cooling down", "the last failure was: refused at the greeting", "next try of a host in"];
    check(&error, FailureKind::HostUnavailable, &server, &parts);
    // Those that no server has a part in.
    let server = TestServer::start();
    let sender: SmtpSender = sender(plain(&server)).max_size(1).acquire_timeout(ms(200)).build().unwrap();
    let before = "before connecting";
    // On a busy machine opening a connection may take longer than that, but not every time.
    let lease = (0..50).find_map(|_| sender.lease().ok()).unwrap();
    let error = send(&sender, "exhausted@trace").unwrap_err();
    check(&error, FailureKind::PoolExhausted, &server, &["acquire_timeout is 200ms", before, "leased=1"]);
    drop(lease);
    let token = smtp_pool::CancelToken::new();
    token.cancel();
    let error = send_to(&sender, "cancelled@trace", 1, &SendOptions::new().cancel(&token)).unwrap_err();
    check(&error, FailureKind::Cancelled, &server, &["cancelled", before]);
    sender.shutdown(ms(0));
    let error = send(&sender, "shutdown@trace").unwrap_err();
    check(&error, FailureKind::Shutdown, &server, &["shut down", before]);
}
