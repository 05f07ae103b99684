//! What a hostile server, a hostile message or somebody on the way can do: nothing that the catalogue's list (SEC) names.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

mod common;

use std::collections::HashSet;

use common::*;
use lettre::Address;
use lettre::address::Envelope;
use lettre::transport::smtp::authentication::Mechanism;
use smtp_pool::testing::{Action, CertificateKind, Script, Security, Stage, TestServer, TestServerBuilder};
use smtp_pool::{FailureKind, Host, SendError, SendStage};

/// CR LF, LF and CR each end a line and become CR LF; the last line gets an end if it lacks one.
fn normalised(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = content;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'\r' => {
                rest = rest.strip_prefix(b"\n").unwrap_or(rest);
                out.extend_from_slice(b"\r\n");
            }
            b'\n' => out.extend_from_slice(b"\r\n"),
            other => out.push(other),
        }
    }
    if !out.is_empty() && !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out
}

// ------------------------------------------------------------------------------------------------ SEC-01, SEC-02

#[test]
fn sec_01_nothing_is_smuggled_out_of_a_message() {
    let ends = ["\n", "\r", "\r\n", "\r\r", "\n\n", "\n\r", "\r\r\n", "\r\n\r", "\r\n\n", "\0", "\r\0\n", ""];
    let smuggled =
        "MAIL FROM:<evil@example.com>\r\nRCPT TO:<victim@example.com>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n";
    let mut corpus = HashSet::new();
    for before in ends {
        for dots in [".", "..", "...", ""] {
            for after in ends {
                corpus.insert(format!("head{before}{dots}{after}{smuggled}").into_bytes());
                corpus.insert(format!("{before}{dots}{after}").into_bytes());
                corpus.insert(format!("head{before}{dots}{after}tail").into_bytes());
            }
        }
    }
    let server = TestServer::start();
    let sender = sender(plain(&server)).build().unwrap();
    for (number, content) in corpus.iter().enumerate() {
        sender.send_raw(&envelope(1), content).unwrap();
        let stored = server.messages();
        assert_eq!(stored.len(), number + 1, "exactly one message of {}", content.escape_ascii());
        let last = stored.last().unwrap();
        assert_eq!(last.content().escape_ascii().to_string(), normalised(content).escape_ascii().to_string());
        assert_eq!(last.recipients(), ["to1@example.net"]);
    }
    assert_eq!(server.connections_accepted(), 1);
    let wire = server.transcript(1).client_bytes();
    assert!(!wire.iter().enumerate().any(|(at, &byte)| byte == b'\n' && wire[at - 1] != b'\r'), "bare LF");
    assert!(!wire.iter().enumerate().any(|(at, &byte)| byte == b'\r' && wire[at + 1] != b'\n'), "bare CR");
    let unexpected: Vec<_> = server.violations().into_iter().filter(|text| !text.contains("NUL")).collect();
    assert_eq!(unexpected, [""; 0]);
}

#[test]
fn sec_02_stuffing_survives_the_edges_of_chunks() {
    // Around 16 KiB and 64 KiB, where content is cut into writes, a dot at the beginning of a line on every side.
    let server = TestServer::builder().size(None).record(false).start();
    let sender = sender(plain(&server)).build().unwrap();
    for edge in [16 * 1024, 48 * 1024, 64 * 1024, 80 * 1024, 128 * 1024] {
        for shift in 0..9 {
            let mut content = vec![b'x'; edge - shift];
            for line in content.chunks_mut(70) {
                line[0] = b'.';
                if let Some(end) = line.len().checked_sub(1) {
                    line[end] = b'\n';
                }
            }
            content.extend_from_slice(b"\r\n.\r\n..\n.\r.x\r\n");
            content.extend_from_slice(&[b'y'; 40_000].map(|byte| byte));
            sender.send_raw(&envelope(1), &content).unwrap();
            let stored = server.messages().pop().unwrap();
            assert!(stored.content() == normalised(&content), "edge {edge}, shift {shift}");
        }
    }
    let unexpected: Vec<_> = server.violations().into_iter().filter(|text| !text.contains("more than 998")).collect();
    assert_eq!(unexpected, [""; 0]);
}

// ------------------------------------------------------------------------------------------------ SEC-03 to SEC-06

const HOSTILE: [&str; 12] = [
    "a\r\nRCPT TO:<evil",
    "a\nb",
    "a\rb",
    "a\0b",
    "a\u{1}b",
    "a\u{7f}b",
    "a>b",
    "a<b",
    "a b",
    "\"a\r\nb\"",
    "\"a\"> SIZE=1 <\"b",
    "a> BODY=8BITMIME <b",
];

#[test]
fn sec_03_no_address_leaves_its_command() {
    let server = TestServer::start();
    let sender = sender(plain(&server)).build().unwrap();
    send(&sender, "warm@security").unwrap();
    let before = server.transcript(1).client_bytes();
    for hostile in HOSTILE {
        let good: Address = "good@example.com".parse().unwrap();
        for address in [Address::new_dangerous(hostile, "example.com"), Address::new_dangerous("user", hostile)] {
            for envelope in [
                Envelope::new(Some(address.clone()), vec![good.clone()]).unwrap(),
                Envelope::new(Some(good.clone()), vec![address.clone()]).unwrap(),
                Envelope::new(Some(good.clone()), vec![good.clone(), address.clone()]).unwrap(),
            ] {
                let error = sender.send_raw(&envelope, b"x\r\n").unwrap_err();
                assert_eq!(
                    (error.kind(), error.stage()),
                    (FailureKind::PermanentFailure, SendStage::Authenticated),
                    "{error}"
                );
                assert!(!error.is_retry_safe());
                assert!(!error.to_string().contains(char::is_control), "{error}");
            }
        }
    }
    assert_eq!(server.transcript(1).client_bytes(), before, "not a byte of it left");
    send(&sender, "after@security").unwrap();
    assert_eq!((server.connections_accepted(), server.messages().len()), (1, 2), "the connection is kept");
}

#[test]
fn sec_05_parameters_are_numbers_and_words_of_ours() {
    let server = TestServer::start();
    let sender = sender(plain(&server)).build().unwrap();
    let content = "ä\r\n".as_bytes();
    let envelope =
        Envelope::new(Some("ü@example.com".parse().unwrap()), vec!["ö@example.com".parse().unwrap()]).unwrap();
    sender.send_raw(&envelope, content).unwrap();
    let mail = server.transcript(1).commands().iter().find(|line| line.starts_with("MAIL")).unwrap().clone();
    assert_eq!(mail, "MAIL FROM:<ü@example.com> SIZE=4 BODY=8BITMIME SMTPUTF8");
    assert_eq!(server.violations(), [""; 0]);
}

#[test]
fn sec_06_no_character_is_cut_to_a_line_end() {
    // Their low bytes are CR and LF.
    let server = TestServer::start();
    let sender = sender(plain(&server)).build().unwrap();
    for character in ['\u{10a}', '\u{10d}', '\u{560a}', '\u{560d}', '\u{760a}', '\u{760d}', '\u{1f60a}', '\u{1f60d}'] {
        let address = Address::new_dangerous(format!("a{character}RCPT"), "example.com");
        let envelope = Envelope::new(Some(address.clone()), vec![address]).unwrap();
        sender.send_raw(&envelope, format!("x{character}.{character}\r\n").as_bytes()).unwrap();
        let stored = server.messages().pop().unwrap();
        assert_eq!(stored.mail_from(), format!("a{character}RCPT@example.com"));
        assert_eq!(stored.content(), format!("x{character}.{character}\r\n").as_bytes());
        let error = common::sender(plain(&server).hello_name(format!("a{character}b.example"))).build().unwrap_err();
        assert_eq!(error.option(), "hosts[0].hello_name");
    }
    assert_eq!(server.violations(), [""; 0]);
    // In credentials they are just characters.
    let password = "p\u{560a}w\u{560d}d";
    let server = TestServer::builder().security(Security::ImplicitTls).credentials("us\u{10a}er", password).start();
    for mechanism in [Mechanism::Plain, Mechanism::Login] {
        let host = implicit_tls(&server).credentials("us\u{10a}er", password).auth_mechanisms([mechanism]);
        send(&common::sender(host).build().unwrap(), "utf8@security").unwrap();
    }
}

// ------------------------------------------------------------------------------------------------ SEC-07 to SEC-11

fn with_secret(security: Security) -> TestServerBuilder {
    TestServer::builder().security(security).credentials("user", "secret").auth_before_tls(true)
}

fn secret_host(server: &TestServer) -> Host {
    starttls(server).credentials("user", "secret")
}

/// Neither credentials nor mail went anywhere, encrypted or not.
fn assert_nothing_given(server: &TestServer, error: &SendError) {
    assert!(error.stage() <= SendStage::Connected, "{error}");
    let seen = server.snapshot();
    for stage in [Stage::Auth, Stage::AuthStep, Stage::Mail, Stage::Rcpt, Stage::Data] {
        assert_eq!(seen.reached(stage), 0, "{stage:?} after {error}");
    }
    for connection in 1..=server.connections_accepted() {
        let bytes = server.transcript(connection).client_bytes();
        assert!(
            !contains(&bytes, b"AUTH") && !contains(&bytes, b"MAIL") && !contains(&bytes, b"HELO"),
            "{}",
            bytes.escape_ascii()
        );
    }
    assert!(server.messages().is_empty());
}

#[test]
fn sec_07_what_comes_along_with_the_220_refuses_the_connection() {
    for injected in ["250-localhost\r\n250 AUTH LOGIN\r\n", "250 x", "\r\n", "x", "220 again\r\n"] {
        let server = with_secret(Security::StartTls)
            .script(Script::new().on(Stage::StartTls, [Action::reply(format!("220 2.0.0 go\r\n{injected}"))]))
            .start();
        let sender = sender(secret_host(&server)).max_retries(3).retry_base_delay(ms(1)).build().unwrap();
        let error = send(&sender, "injected@security").unwrap_err();
        assert_eq!((error.kind(), error.stage()), (FailureKind::ConnectionCorrupted, SendStage::Connected), "{error}");
        assert!(!error.is_retry_safe(), "F020: an alarm, not a hiccup");
        assert_eq!(error.attempts(), 1);
        server.connection(1).wait_closed();
        assert_nothing_given(&server, &error);
        let plaintext = server.transcript(1).client_plaintext();
        let behind = plaintext.windows(10).position(|window| window == b"STARTTLS\r\n").unwrap() + 10;
        assert!(plaintext[behind..].first().is_none_or(|&byte| byte == 0x16), "{}", plaintext[behind..].escape_ascii());
    }
}

#[test]
fn sec_07_what_comes_a_moment_later_breaks_the_handshake() {
    let script = Script::new().on(
        Stage::TlsHandshake,
        [Action::DelayFor(ms(50)), Action::reply("250-localhost\r\n250 AUTH LOGIN\r\n"), Action::Default],
    );
    let server = with_secret(Security::StartTls).script(script).start();
    let error = send(&sender(secret_host(&server)).build().unwrap(), "late@security").unwrap_err();
    assert_nothing_given(&server, &error);
}

#[test]
fn sec_08_nothing_is_written_between_starttls_and_the_handshake() {
    let server = with_secret(Security::StartTls).start();
    send(&sender(secret_host(&server)).build().unwrap(), "good@security").unwrap();
    let commands = server.transcript(1).commands().to_vec();
    let plaintext = server.transcript(1).client_plaintext();
    let expected = format!("{}\r\nSTARTTLS\r\n", commands[0]);
    assert_eq!(String::from_utf8_lossy(&plaintext), expected, "EHLO and STARTTLS, and nothing else outside TLS");
    assert_eq!(commands.iter().filter(|line| line.starts_with("EHLO")).count(), 2);
    assert!(server.messages()[0].was_encrypted());
    assert_eq!(server.violations(), [""; 0]);
}

#[test]
fn sec_09_sec_18_required_means_required() {
    let on = |stage, reply: &str| Script::new().on(stage, [Action::reply(reply)]);
    let cases = [
        ("stripped", on(Stage::Ehlo, "250-localhost\r\n250-AUTH PLAIN LOGIN\r\n250 PIPELINING\r\n")),
        ("garbled keyword", on(Stage::Ehlo, "250-localhost\r\n250-XXXXXXXA\r\n250 AUTH PLAIN\r\n")),
        ("STARTTLS as the server's name", on(Stage::Ehlo, "250 STARTTLS\r\n")),
        ("bare 250", on(Stage::Ehlo, "250\r\n")),
        ("454", on(Stage::StartTls, "454 4.7.0 not now\r\n")),
        ("502", on(Stage::StartTls, "502 5.5.1 what\r\n")),
        ("501", on(Stage::StartTls, "501 5.5.4 what\r\n")),
        ("250", on(Stage::StartTls, "250 2.0.0 fine\r\n")),
        ("221", on(Stage::StartTls, "221 2.0.0 bye\r\n")),
        ("354", on(Stage::StartTls, "354 go\r\n")),
        ("EHLO 500", on(Stage::Ehlo, "500 5.5.1 what\r\n")),
        ("EHLO 502", on(Stage::Ehlo, "502 5.5.1 what\r\n")),
        ("EHLO 550", on(Stage::Ehlo, "550 5.7.1 no\r\n")),
        ("EHLO 421", on(Stage::Ehlo, "421 4.3.2 later\r\n")),
    ];
    for (name, script) in cases {
        let server = with_secret(Security::StartTls).script(script).start();
        let sender = sender(secret_host(&server)).max_retries(2).retry_base_delay(ms(1)).build().unwrap();
        let error = send(&sender, "required@security").unwrap_err();
        assert!(server.messages().is_empty(), "{name}");
        assert_nothing_given(&server, &error);
        assert!(!server.transcript(1).handshake_started(), "{name}");
    }
}

#[test]
fn sec_09_opportunistic_goes_on_without_but_never_with_credentials() {
    for script in [
        Script::new().on(Stage::Ehlo, [Action::reply("250-localhost\r\n250 AUTH PLAIN\r\n")]),
        Script::new().on(Stage::StartTls, [Action::reply("454 4.7.0 not now\r\n")]),
    ] {
        let server = TestServer::builder().security(Security::StartTls).script(script.clone()).start();
        let host = || Host::dangerous_opportunistic_starttls("127.0.0.1").port(server.port());
        send(&sender(host()).build().unwrap(), "open@security").unwrap();
        assert!(!server.messages()[0].was_encrypted());

        let server = with_secret(Security::StartTls).script(script).start();
        let host =
            Host::dangerous_opportunistic_starttls("127.0.0.1").port(server.port()).credentials("user", "secret");
        let error = send(&sender(host).build().unwrap(), "auth@security").unwrap_err();
        assert_eq!(error.kind(), FailureKind::PermanentFailure, "{error}");
        assert_nothing_given(&server, &error);
    }
    // What is offered is used, and what is said about the certificate is believed as little as ever.
    let server = with_secret(Security::StartTls).start();
    let host = Host::dangerous_opportunistic_starttls("127.0.0.1").port(server.port()).credentials("user", "secret");
    let error = send(&sender(host.clone()).build().unwrap(), "unknown@security").unwrap_err();
    assert_nothing_given(&server, &error);
    let host = host.root_certificate(server.root_certificate_pem());
    send(&sender(host).build().unwrap(), "known@security").unwrap();
    assert!(server.messages()[0].was_encrypted());
}

#[test]
fn sec_10_certificates_are_verified() {
    use CertificateKind::{Expired, NotYetValid, SelfSigned, UnknownAuthority, Valid, WrongName};
    for security in [Security::StartTls, Security::ImplicitTls] {
        let host_for = |server: &TestServer, name: &str| {
            let host = if security == Security::StartTls { Host::starttls(name) } else { Host::implicit_tls(name) };
            host.port(server.port()).credentials("user", "secret")
        };
        for (kind, by_name, by_certificate) in [
            (Valid, false, false),
            (WrongName, true, false),
            (Expired, false, true),
            (NotYetValid, false, true),
            (SelfSigned, false, true),
            (UnknownAuthority, false, true),
        ] {
            let attempt = |names: bool, certificates: bool, trusted: bool| {
                let server = with_secret(security).certificate(kind).start();
                let mut host = host_for(&server, "127.0.0.1")
                    .dangerous_accept_invalid_hostnames(names)
                    .dangerous_accept_invalid_certificates(certificates);
                if trusted {
                    host = host.root_certificate(server.root_certificate_pem());
                }
                let result = send(&sender(host).build().unwrap(), "certificate@security");
                match &result {
                    Ok(_) => assert!(server.messages()[0].was_encrypted()),
                    Err(error) => {
                        assert_eq!(
                            (error.kind(), error.stage()),
                            (FailureKind::PermanentFailure, SendStage::Connected),
                            "{kind:?}: {error}"
                        );
                        assert!(!error.is_retry_safe());
                        assert_nothing_given(&server, error);
                    }
                }
                result.is_ok()
            };
            let is_good = !by_name && !by_certificate;
            assert_eq!(attempt(false, false, true), is_good, "{kind:?}, {security:?}");
            assert!(!attempt(false, false, false), "{kind:?}, {security:?}: nobody vouches for it");
            assert_eq!(attempt(true, false, true), is_good || by_name, "{kind:?}, {security:?}, any name");
            assert!(attempt(false, true, true) || by_name, "{kind:?}, {security:?}, any certificate");
            assert!(attempt(true, true, false), "{kind:?}, {security:?}, anything");
        }
        // The right chain under another name of the same machine; and the names that are in it.
        let server = with_secret(security).start();
        let trusted = |name: &str| host_for(&server, name).root_certificate(server.root_certificate_pem());
        send(&sender(trusted("localhost")).build().unwrap(), "name@security").unwrap();
        send(&sender(trusted("127.0.0.1")).build().unwrap(), "ip@security").unwrap();
        let before = server.messages().len();
        let error = send(&sender(trusted("127.0.0.2")).build().unwrap(), "other@security").unwrap_err();
        assert!(error.stage() <= SendStage::Connected, "{error}");
        assert_eq!(server.messages().len(), before);
    }
}

#[test]
fn sec_11_no_credentials_in_the_clear() {
    let server = with_secret(Security::Plain).start();
    let error =
        send(&sender(plain(&server).credentials("user", "secret")).max_retries(3).build().unwrap(), "clear@security")
            .unwrap_err();
    assert_eq!(
        (error.kind(), error.attempts(), error.is_retry_safe()),
        (FailureKind::PermanentFailure, 1, false),
        "{error}"
    );
    assert_nothing_given(&server, &error);
    assert!(error.to_string().contains("dangerous_plaintext_auth"), "the way out is named: {error}");
    // Asked for by name, it is done.
    let host = plain(&server).credentials("user", "secret").dangerous_plaintext_auth(true);
    send(&sender(host).build().unwrap(), "asked@security").unwrap();
    assert_eq!(server.messages()[0].authenticated_as(), Some("user"));
    // Where TLS is required, allowing plaintext AUTH does not make it optional.
    let server = with_secret(Security::StartTls)
        .script(Script::new().on(Stage::Ehlo, [Action::reply("250-localhost\r\n250 AUTH PLAIN\r\n")]))
        .start();
    let error = send(&sender(secret_host(&server).dangerous_plaintext_auth(true)).build().unwrap(), "both@security")
        .unwrap_err();
    assert_nothing_given(&server, &error);
}

// ------------------------------------------------------------------------------------------------ SEC-14 to SEC-20

#[test]
fn sec_14_no_reply_is_endless() {
    for piece in ["220-endless\r\n".repeat(100), "x".repeat(5000), "220-".to_owned() + &"y".repeat(1000)] {
        for stage in [Stage::Connect, Stage::Ehlo, Stage::Mail, Stage::EndOfData] {
            let code = if stage == Stage::Connect { "220" } else { "250" };
            let bytes = piece.replace("220", code);
            thrice(|| {
                let server = TestServer::builder()
                    .record(false)
                    .script(Script::new().on(stage, [Action::endless(bytes.clone(), ms(0))]))
                    .start();
                let sender = sender(plain(&server)).build().unwrap();
                let start = now();
                let error = send(&sender, "endless@security").unwrap_err();
                assert!(now() - start < ms(1000), "{stage:?}: {:?}", now() - start);
                let kind = match stage {
                    Stage::Mail => FailureKind::ConnectionCorrupted,
                    Stage::EndOfData => FailureKind::UnknownAfterData,
                    _ => FailureKind::HostUnavailable,
                };
                assert_eq!(error.kind(), kind, "{stage:?}: {error}");
            });
        }
    }
}

#[test]
fn sec_14_large_replies_within_the_bounds_are_read() {
    let greeting = "220-hello\r\n".repeat(199) + "220 done\r\n";
    let keywords: String = (0..120).map(|number| format!("250-XKEYWORD{number} {}\r\n", "y".repeat(300))).collect();
    let ehlo = format!("250-localhost\r\n{keywords}250-\r\n250 PIPELINING\r\n");
    let script = Script::new().on(Stage::Connect, [Action::reply(greeting)]).on(Stage::Ehlo, [Action::reply(ehlo)]);
    let server = TestServer::builder().script(script).start();
    send(&sender(plain(&server)).build().unwrap(), "large@security").unwrap();
    assert_eq!(server.accepted("large@security"), 1);
}

// SEC-15 and SEC-16 (slow drip, slow read) are `deadline.rs`.

#[test]
fn sec_17_bytes_that_are_no_text() {
    let strange = b"250-\xff\xfe\x00 \r x\r\n250 \x80\xc0\xaf\r\n";
    let server = TestServer::builder()
        .script(Script::new().on(Stage::EndOfData, [Action::Accept, Action::reply(strange)]))
        .start();
    let receipt = send(&sender(plain(&server)).build().unwrap(), "bytes@security").unwrap();
    assert_eq!(receipt.response().lines().collect::<Vec<_>>(), [&b"\xff\xfe\x00 \r x"[..], b"\x80\xc0\xaf"]);
    assert!(!receipt.response().to_string().contains(char::is_control));
}

#[test]
fn sec_19_only_mechanisms_that_are_allowed() {
    let server_with = |mechanisms: &[&str]| with_secret(Security::ImplicitTls).auth_mechanisms(mechanisms).start();
    let host = |server: &TestServer, allowed: Vec<Mechanism>| {
        implicit_tls(server).credentials("user", "secret").auth_mechanisms(allowed)
    };
    for (offered, allowed) in [
        (vec!["LOGIN"], vec![Mechanism::Plain]),
        (vec!["PLAIN"], vec![Mechanism::Login]),
        (vec!["PLAIN", "LOGIN"], vec![Mechanism::Xoauth2]),
        (vec!["XOAUTH2"], vec![Mechanism::Plain, Mechanism::Login]),
        (vec!["SCRAM-SHA-256", "CRAM-MD5"], vec![Mechanism::Plain, Mechanism::Login]),
        (vec![], vec![Mechanism::Plain]),
    ] {
        let server = server_with(&offered);
        let error = send(&sender(host(&server, allowed.clone())).build().unwrap(), "mechanism@security").unwrap_err();
        assert_eq!(
            (error.kind(), error.is_retry_safe()),
            (FailureKind::PermanentFailure, false),
            "{offered:?} {allowed:?}: {error}"
        );
        assert_nothing_given(&server, &error);
    }
    // The first of ours that is offered too; not the server's order.
    let server = server_with(&["LOGIN", "PLAIN"]);
    send(&sender(host(&server, vec![Mechanism::Plain, Mechanism::Login])).build().unwrap(), "plain@security").unwrap();
    send(&sender(host(&server, vec![Mechanism::Login, Mechanism::Plain])).build().unwrap(), "login@security").unwrap();
    assert!(said(&server, 1, "AUTH PLAIN") && said(&server, 2, "AUTH LOGIN"));
    // 535 is never answered with another mechanism.
    let server = server_with(&["PLAIN", "LOGIN"]);
    let wrong = implicit_tls(&server).credentials("user", "wrong");
    let error =
        send(&sender(wrong).max_retries(3).retry_base_delay(ms(1)).build().unwrap(), "wrong@security").unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (FailureKind::PermanentFailure, 1));
    assert_eq!(server.snapshot().reached(Stage::Auth), 1);
}

#[test]
fn sec_20_no_challenge_after_another() {
    for mechanism in [Mechanism::Plain, Mechanism::Login, Mechanism::Xoauth2] {
        let name = mechanism.to_string();
        let server = with_secret(Security::ImplicitTls)
            .auth_mechanisms(&[&name])
            .script(
                Script::new()
                    .on(Stage::Auth, [Action::reply("334 \r\n")])
                    .on(Stage::AuthStep, [Action::reply("334 \r\n")]),
            )
            .start();
        let host = implicit_tls(&server).credentials("user", "secret").auth_mechanisms([mechanism]);
        let error = send(&sender(host).build().unwrap(), "challenge@security").unwrap_err();
        assert_eq!((error.kind(), error.is_retry_safe()), (FailureKind::ConnectionCorrupted, false), "{error}");
        assert!(server.snapshot().reached(Stage::AuthStep) <= 3, "{mechanism}");
        server.connection(1).wait_closed();
        assert!(!said(&server, 1, "QUIT"));
    }
    // A challenge longer than any.
    let server = with_secret(Security::ImplicitTls)
        .auth_mechanisms(&["LOGIN"])
        .script(Script::new().on(Stage::Auth, [Action::reply(format!("334 {}\r\n", "A".repeat(20_000)))]))
        .start();
    let host = implicit_tls(&server).credentials("user", "secret").auth_mechanisms([Mechanism::Login]);
    let error = send(&sender(host).build().unwrap(), "long@security").unwrap_err();
    assert_eq!(error.stage(), SendStage::Connected, "{error}");
    assert_eq!(server.snapshot().reached(Stage::AuthStep), 0);
}

// ------------------------------------------------------------------------------------------------ SEC-25, SEC-27, SEC-29

#[test]
fn sec_25_what_is_not_offered_is_not_sent() {
    let ascii: Address = "a@example.com".parse().unwrap();
    let foreign: Address = "ü@example.com".parse().unwrap();
    let server = TestServer::builder().eight_bit_mime(false).smtp_utf8(false).start();
    let sender = sender(plain(&server)).build().unwrap();
    for (from, to, content) in [(&ascii, &ascii, "ä\r\n"), (&foreign, &ascii, "a\r\n"), (&ascii, &foreign, "a\r\n")] {
        let envelope = Envelope::new(Some(from.clone()), vec![to.clone()]).unwrap();
        let error = sender.send_raw(&envelope, content.as_bytes()).unwrap_err();
        assert_eq!((error.kind(), error.stage()), (FailureKind::PermanentFailure, SendStage::Authenticated), "{error}");
        assert!(error.to_string().contains("8BITMIME") || error.to_string().contains("SMTPUTF8"), "{error}");
    }
    assert_eq!(server.snapshot().reached(Stage::Mail), 0);
    send(&sender, "ascii@security").unwrap();
    assert_eq!(server.connections_accepted(), 1, "the connection is kept");
}

#[test]
fn sec_27_a_reply_that_nobody_asked_for_is_not_taken_for_the_next_one() {
    // In step and idle, the server says `250` early: it would pass for the answer to MAIL.
    for security in [Security::Plain, Security::StartTls] {
        let server = TestServer::builder()
            .security(security)
            .script(Script::new().once(Stage::Idle, [Action::reply("250 2.1.0 ok\r\n"), Action::barrier("said")]))
            .start();
        let host = if security == Security::Plain { plain(&server) } else { starttls(&server) };
        let sender = sender(host).build().unwrap();
        send(&sender, "first@security").unwrap();
        server.wait_until_reached("said");
        server.release("said");
        send(&sender, "second@security").unwrap();
        assert_eq!(server.messages()[1].connection(), 2, "{security:?}");
    }
    // Behind the replies to EHLO and AUTH too.
    for (stage, reply) in
        [(Stage::Ehlo, "250 localhost\r\n250 2.1.0 ok\r\n"), (Stage::Connect, "220 hi\r\n250 localhost\r\n")]
    {
        let server = TestServer::builder().script(Script::new().on(stage, [Action::reply(reply)])).start();
        let error = send(&sender(plain(&server)).build().unwrap(), "early@security").unwrap_err();
        assert_eq!(error.stage(), SendStage::Connected, "{error}");
        assert!(server.messages().is_empty());
    }
    let server = with_secret(Security::ImplicitTls)
        .script(Script::new().on(Stage::Auth, [Action::reply("235 2.7.0 ok\r\n250 2.1.0 ok\r\n")]))
        .start();
    let host = implicit_tls(&server).credentials("user", "secret");
    let error = send(&sender(host).build().unwrap(), "early@security").unwrap_err();
    assert_eq!(error.stage(), SendStage::Connected, "{error}");
    assert_eq!(server.snapshot().reached(Stage::Mail), 0);
    // Behind a challenge: said without having heard the answer, which must not be given then.
    let server = with_secret(Security::ImplicitTls)
        .script(Script::new().on(Stage::Auth, [Action::reply("334 VXNlcm5hbWU6\r\n235 2.7.0 ok\r\n")]))
        .start();
    let host = implicit_tls(&server).credentials("user", "secret").auth_mechanisms([Mechanism::Login]);
    let error = send(&sender(host).build().unwrap(), "early@security").unwrap_err();
    assert_eq!(error.stage(), SendStage::Connected, "{error}");
    assert_eq!(server.snapshot().reached(Stage::AuthStep), 0);
}

#[test]
fn sec_29_absurd_numbers_in_ehlo_are_no_limits() {
    for keyword in [
        "SIZE 99999999999999999999",
        "SIZE -1",
        "SIZE",
        "SIZE 0",
        "SIZE x",
        "LIMITS MAILMAX=0",
        "LIMITS MAILMAX=99999999999999999999",
        "LIMITS MAILMAX=",
        "LIMITS",
    ] {
        let ehlo = format!("250-localhost\r\n250-PIPELINING\r\n250 {keyword}\r\n");
        let server = TestServer::builder().script(Script::new().on(Stage::Ehlo, [Action::reply(ehlo)])).start();
        let sender = sender(plain(&server)).build().unwrap();
        for number in 0..3 {
            send(&sender, &format!("{number}@numbers")).unwrap_or_else(|error| panic!("{keyword}: {error}"));
        }
        assert_eq!(server.connections_accepted(), 1, "{keyword}");
    }
}
