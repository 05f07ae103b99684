//! SEC-07 to SEC-09, SEC-18 and the pitfall P39: somebody on the way before TLS begins.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

use smtp_pool::testing::{Action, Script, Security, Stage, TestServer};
use smtp_pool::{FailureKind, Host, SendStage};

use crate::common::*;
use crate::{assert_nothing_given, secret_host, with_secret};

fn opportunistic(server: &TestServer) -> Host {
    Host::dangerous_opportunistic_starttls("127.0.0.1")
        .port(server.port())
        .root_certificate(server.root_certificate_pem())
}

#[test]
fn sec_07_what_comes_along_with_the_220_refuses_the_connection() {
    for injected in
        ["250-localhost\r\n250 AUTH LOGIN\r\n", "250 x", "\r\n", "x", "220 again\r\n", "\0", "\x16", "\x16\x03\x03"]
    {
        let server = with_secret(Security::StartTls)
            .script(Script::new().on(Stage::StartTls, [Action::reply(format!("220 2.0.0 go\r\n{injected}"))]))
            .start();
        for host in [secret_host(&server), opportunistic(&server).credentials("user", "secret")] {
            let connection = server.connections_accepted() + 1;
            let sender = sender(host).max_retries(3).retry_base_delay(ms(1)).build().unwrap();
            let error = send(&sender, "injected@security").unwrap_err();
            assert_eq!(
                (error.kind(), error.stage()),
                (FailureKind::ConnectionCorrupted, SendStage::Connected),
                "{error}"
            );
            assert!(!error.is_retry_safe(), "F020: an alarm, not a hiccup");
            assert_eq!(error.attempts(), 1);
            server.connection(connection).wait_closed();
            assert_nothing_given(&server, &error);
            let plaintext = server.transcript(connection).client_plaintext();
            let behind = plaintext.windows(10).position(|window| window == b"STARTTLS\r\n").unwrap() + 10;
            assert_eq!(plaintext[behind..].escape_ascii().to_string(), "", "refused, not discarded and gone on");
        }
    }
}

#[test]
fn sec_07_what_comes_a_moment_later_breaks_the_handshake() {
    for late in ["250-localhost\r\n250 AUTH LOGIN\r\n", "x", "\r\n", "220 again\r\n"] {
        let script =
            Script::new().on(Stage::TlsHandshake, [Action::DelayFor(ms(50)), Action::reply(late), Action::Default]);
        let server = with_secret(Security::StartTls).script(script).start();
        let error = send(&sender(secret_host(&server)).build().unwrap(), "late@security").unwrap_err();
        assert_eq!(error.stage(), SendStage::Connected, "{late:?}: {error}");
        assert_nothing_given(&server, &error);
    }
}

/// What a client says to a server that offers STARTTLS and answers it with 220, and the first bytes behind that.
fn first_bytes_behind_starttls(host: impl FnOnce(Host) -> Host) -> (String, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let host = host(Host::starttls("127.0.0.1").port(port));
    thread::scope(|scope| {
        let client = scope.spawn(move || send(&sender(host).build().unwrap(), "never@security").unwrap_err());
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut commands = BufReader::new(&stream);
        let mut said = String::new();
        for reply in ["220 hello\r\n", "250-localhost\r\n250-PIPELINING\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n"] {
            (&stream).write_all(reply.as_bytes()).unwrap();
            commands.read_line(&mut said).unwrap();
        }
        (&stream).write_all(b"220 go\r\n").unwrap();
        let mut behind = vec![0; 6];
        commands.read_exact(&mut behind).unwrap();
        drop(commands);
        drop(stream);
        client.join().unwrap();
        (said, behind)
    })
}

#[test]
fn sec_08_the_first_bytes_behind_starttls_are_a_client_hello() {
    for host in [|host: Host| host, |host: Host| host.credentials("user", "secret")] {
        let (said, behind) = first_bytes_behind_starttls(host);
        assert_eq!(said, "EHLO [127.0.0.1]\r\nSTARTTLS\r\n");
        // A TLS record of a handshake (22), version 3.x; the message in it is a ClientHello (1).
        assert_eq!((behind[0], behind[1], behind[5]), (0x16, 3, 1), "{}", behind.escape_ascii());
    }
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

/// P39, RFC 3207 §4.2: what was offered before TLS may be somebody else's word.
#[test]
fn p39_what_was_offered_before_tls_is_forgotten() {
    let before = "250-localhost\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-SIZE 10\r\n250-AUTH PLAIN\r\n\
                  250-LIMITS MAILMAX=1\r\n250 STARTTLS\r\n";
    let offers = |after: &str| {
        Script::new().on_connection_nth(1, Stage::Ehlo, 1, [Action::reply(before)]).on_connection_nth(
            1,
            Stage::Ehlo,
            2,
            [Action::reply(after)],
        )
    };
    // Neither a limit nor an offer of before: two messages of more than ten octets, one command at a time.
    let server = TestServer::builder().security(Security::StartTls).script(offers("250 localhost\r\n")).start();
    let sender = sender(starttls(&server)).build().unwrap();
    for id in ["one@security", "two@security"] {
        send(&sender, id).unwrap();
        assert!(server.messages().pop().unwrap().mail_parameters().is_empty());
    }
    assert_eq!(server.connections_accepted(), 1);
    assert_eq!(server.violations(), [""; 0], "nothing was pipelined");
    let error = sender.send_raw(&envelope(1), "ä\r\n".as_bytes()).unwrap_err();
    assert_eq!(error.kind(), FailureKind::PermanentFailure, "{error}");
    server.assert_script_used();
    // AUTH too counts only where it is offered inside.
    let server = with_secret(Security::StartTls).script(offers("250-localhost\r\n250 PIPELINING\r\n")).start();
    let error = send(&crate::common::sender(secret_host(&server)).build().unwrap(), "auth@security").unwrap_err();
    assert_eq!(error.kind(), FailureKind::PermanentFailure, "{error}");
    assert_nothing_given(&server, &error);
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
        // Without credentials too: where nobody asks for TLS but this setting, the mail itself would go in the clear.
        for host in [secret_host(&server), starttls(&server)] {
            let sender = sender(host).max_retries(2).retry_base_delay(ms(1)).build().unwrap();
            let error = send(&sender, "required@security").unwrap_err();
            assert!(server.messages().is_empty(), "{name}");
            assert_nothing_given(&server, &error);
        }
        for connection in 1..=server.connections_accepted() {
            assert!(!server.transcript(connection).handshake_started(), "{name}");
        }
    }
}

/// HELO has no extensions, so nothing that TLS or credentials need: it is never said, whatever the mode.
#[test]
fn sec_18_there_is_no_fall_back_to_helo() {
    let refusals = ["500 5.5.1 what\r\n", "502 5.5.1 what\r\n", "550 5.7.1 no\r\n", "421 4.3.2 later\r\n"];
    for reply in refusals {
        for security in [Security::Plain, Security::StartTls, Security::ImplicitTls] {
            let server = with_secret(security).start();
            let hosts = match security {
                Security::Plain => vec![plain(&server), opportunistic(&server)],
                Security::StartTls => vec![starttls(&server), opportunistic(&server)],
                _ => vec![implicit_tls(&server)],
            };
            // The first EHLO, and where there is one, that inside TLS.
            for host in hosts.into_iter().flat_map(|host| [host.clone(), host.credentials("user", "secret")]) {
                for occasion in 1..=if security == Security::StartTls { 2 } else { 1 } {
                    let connection = server.connections_accepted() + 1;
                    let refused = [Action::reply(reply)];
                    server.set_script(Script::new().on_connection_nth(connection, Stage::Ehlo, occasion, refused));
                    let error = send(&sender(host.clone()).build().unwrap(), "helo@security").unwrap_err();
                    assert_nothing_given(&server, &error);
                    server.assert_script_used();
                }
            }
        }
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
