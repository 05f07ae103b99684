//! SEC-14, SEC-17, SEC-25, SEC-27, SEC-29: replies without end, sense or command, and offers that are none.

use allocation_counter::measure;
use lettre::Address;
use lettre::address::Envelope;
use lettre::transport::smtp::authentication::Mechanism;
use smtp_pool::testing::{Action, Script, Security, Stage, TestServer};
use smtp_pool::{FailureKind, SendStage};

use crate::common::*;
use crate::with_secret;

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
                let mut result = None;
                // All of it happens in this thread, and the buffer of the reply is all that could grow.
                let heap = measure(|| result = Some(send(&sender, "endless@security")));
                let error = result.unwrap().unwrap_err();
                assert!(heap.bytes_max < 512 * 1024, "{stage:?}: {heap:?}");
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

/// At every step the same: what is no reply ends the session at once, and is never taken for a yes.
#[test]
fn sec_17_nonsense_is_no_reply() {
    let nonsense: [&[u8]; 16] = [
        b"\r\n",
        b"\0\r\n",
        b"2\r\n",
        b"25\r\n",
        b"2500 ok\r\n",
        b"250\0ok\r\n",
        b"250\tok\r\n",
        b"250ok\r\n",
        b"\x00250 ok\r\n",
        b" 250 ok\r\n",
        b"\xef\xbb\xbf250 ok\r\n",
        b"\xb2\xb5\xb0 ok\r\n",
        b"\r250 ok\r\n",
        b"250-a\r\n251 b\r\n",
        b"250-a\r\n 250 b\r\n",
        b"050 ok\r\n",
    ];
    for stage in [Stage::Connect, Stage::Ehlo, Stage::Mail, Stage::Rcpt, Stage::Data, Stage::EndOfData] {
        for reply in nonsense {
            let server = TestServer::builder().script(Script::new().on(stage, [Action::reply(reply)])).start();
            let sender = sender(plain(&server)).build().unwrap();
            let error = send(&sender, "nonsense@security").unwrap_err();
            let expected = match stage {
                Stage::EndOfData => FailureKind::UnknownAfterData,
                Stage::Connect | Stage::Ehlo => FailureKind::HostUnavailable,
                _ => FailureKind::ConnectionCorrupted,
            };
            assert_eq!(error.kind(), expected, "{stage:?}, {}: {error}", reply.escape_ascii());
            assert_eq!(sender.status().counts.total, 0, "{stage:?}, {}", reply.escape_ascii());
            assert!(!said(&server, 1, "QUIT"), "{stage:?}");
        }
    }
}

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
    for security in [Security::Plain, Security::StartTls, Security::ImplicitTls] {
        let server = TestServer::builder()
            .security(security)
            .script(Script::new().once(Stage::Idle, [Action::reply("250 2.1.0 ok\r\n"), Action::barrier("said")]))
            .start();
        let host = match security {
            Security::Plain => plain(&server),
            Security::StartTls => starttls(&server),
            _ => implicit_tls(&server),
        };
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
        "SIZE 18446744073709551615",
        "SIZE 18446744073709551616",
        "SIZE 4294967296",
        "SIZE 0x10",
        "SIZE -1",
        "SIZE",
        "SIZE 0",
        "SIZE x",
        "LIMITS MAILMAX=0",
        "LIMITS MAILMAX=99999999999999999999",
        "LIMITS MAILMAX=4294967295",
        "LIMITS MAILMAX=4294967296",
        "LIMITS MAILMAX=-1",
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
