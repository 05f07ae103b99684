//! Without a script: a strict RFC 5321 server.

use smtp_pool::testing::{Event, Stage, TestServer};

use crate::client::Client;

#[test]
fn takes_a_message_and_records_it_byte_for_byte() {
    let server = TestServer::start();
    let mut client = Client::silent(&server);
    let mut seen = client.reply();
    let lines = [
        "EHLO client.example",
        "MAIL FROM:<a@example.com> SIZE=100 BODY=8BITMIME",
        "RCPT TO:<b@example.com>",
        "RCPT TO:<\"odd > one\"@example.com>",
        "DATA",
        "message-id:\r\n <one@example.com>\r\nSubject: x\r\n\r\n..dot\r\n.. two\r\nend\r\n.",
        "QUIT",
    ];
    for line in lines {
        seen += &client.say(line);
    }
    seen += &client.rest();
    server.connection(1).wait_closed();

    let message = &server.messages()[0];
    assert_eq!(message.message_id(), Some("<one@example.com>"));
    assert_eq!(message.mail_from(), "a@example.com");
    assert_eq!(message.mail_parameters(), ["SIZE=100", "BODY=8BITMIME"]);
    assert_eq!(message.recipients(), ["b@example.com", "\"odd > one\"@example.com"]);
    assert_eq!(message.recipient_parameters(), [Vec::<String>::new(), Vec::new()]);
    assert_eq!(message.content(), b"message-id:\r\n <one@example.com>\r\nSubject: x\r\n\r\n.dot\r\n. two\r\nend\r\n");
    assert_eq!((message.connection(), message.authenticated_as(), message.was_encrypted()), (1, None, false));
    assert_eq!((server.accepted("one@example.com"), server.accepted("<one@example.com>")), (1, 1));
    assert_eq!(server.accepted("two@example.com"), 0);

    let transcript = server.transcript(1);
    assert_eq!(transcript.client_bytes(), (lines.join("\r\n") + "\r\n").as_bytes());
    assert_eq!(transcript.client_plaintext(), transcript.client_bytes());
    assert_eq!(transcript.client_encrypted(), b"");
    assert_eq!(String::from_utf8(transcript.server_bytes()).unwrap(), seen);
    assert_eq!(transcript.commands(), [lines[0], lines[1], lines[2], lines[3], lines[4], "QUIT"]);
    assert_eq!(transcript.round_trips(), 7);
    assert!(!transcript.handshake_started());
    assert_eq!(transcript.events().last(), Some(&Event::ServerClosed));
    assert_eq!(server.violations(), [""; 0]);
}

#[test]
fn offers_what_it_was_told_to() {
    let server = TestServer::start();
    let ehlo = "250-localhost\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 ENHANCEDSTATUSCODES\r\n";
    let mut client = Client::silent(&server);
    client.reply();
    assert_eq!(client.say("EHLO me"), ehlo);
    assert_eq!(client.say("HELO me"), "250 localhost\r\n");

    let builder = TestServer::builder().pipelining(false).size(None).eight_bit_mime(false).smtp_utf8(false);
    let server = builder
        .enhanced_status_codes(false)
        .chunking(true)
        .dsn(true)
        .credentials("u", "p")
        .auth_mechanisms(&["LOGIN", "X-NEW"])
        .ehlo_keyword("LIMITS MAILMAX=3")
        .start();
    let mut client = Client::silent(&server);
    client.reply();
    assert_eq!(
        client.say("EHLO me"),
        "250-localhost\r\n250-CHUNKING\r\n250-DSN\r\n250-AUTH LOGIN X-NEW\r\n250 LIMITS MAILMAX=3\r\n"
    );
    assert_eq!(client.say("NOOP x"), "250 still here\r\n");
    assert_eq!(client.say("AUTH X-NEW")[..3], *"504");
}

#[test]
fn holds_to_the_order_of_commands() {
    let server = TestServer::start();
    let mut client = Client::silent(&server);
    client.reply();
    let early = client.codes(&[
        "MAIL FROM:<a@b.c>",
        "RCPT TO:<a@b.c>",
        "DATA",
        "NOOP",
        "RSET",
        "EHLO",
        "VRFY x",
        "HELP",
        "WHAT",
    ]);
    assert_eq!(early, ["503", "503", "503", "250", "250", "501", "252", "214", "500"]);
    let later = client.codes(&["EHLO me", "RCPT TO:<a@b.c>", "MAIL FROM:<>", "MAIL FROM:<>", "DATA", "RSET", "DATA"]);
    assert_eq!(later, ["250", "503", "250", "503", "554", "250", "503"]);
    // EHLO ends a transaction as RSET does.
    let reset = client.codes(&[
        "MAIL FROM:<>",
        "RCPT TO:<postmaster>",
        "EHLO me",
        "DATA",
        "STARTTLS",
        "AUTH PLAIN",
        "BDAT 0 LAST",
    ]);
    assert_eq!(reset, ["250", "250", "250", "503", "503", "503", "500"]);
    assert_eq!(client.mail("1@x")[..3], *"250");
    assert_eq!(client.codes(&["DATA", "QUIT"]), ["503", "221"]);
    assert_eq!(client.rest(), "");
    assert_eq!(server.snapshot().reached(Stage::Mail), 5);
}

#[test]
fn refuses_bad_paths_and_parameters() {
    let server = TestServer::builder().size(Some(1000)).ehlo_keyword("MT-PRIORITY").start();
    let mut client = Client::ready(&server);
    for (line, code) in [
        ("MAIL FROM: <a@b.c>", "501"),
        ("MAIL FROM:a@b.c", "501"),
        ("MAIL FROM:<a@b.c", "501"),
        ("MAIL FROM:<a b@b.c>", "501"),
        ("MAIL FROM:<a>", "501"),
        ("MAIL TO:<a@b.c>", "501"),
        ("MAIL FROM:<a@b.c>SIZE=1", "501"),
        ("MAIL FROM:<a@b.c>  SIZE=1", "501"),
        ("MAIL FROM:<a@b.c> SIZE=x", "555"),
        ("MAIL FROM:<a@b.c> SIZE=1001", "552"),
        ("MAIL FROM:<a@b.c> BODY=BINARYMIME", "555"),
        ("MAIL FROM:<a@b.c> RET=HDRS", "555"),
        ("MAIL FROM:<a@b.c> AUTH=<>", "555"),
        ("MAIL FROM:<a@b.c> HUH", "555"),
        ("MAIL FROM:<\u{e4}@b.c>", "553"),
        ("MAIL FROM:<\u{e4}@b.c> SMTPUTF8 MT-PRIORITY=3", "250"),
        ("RCPT TO:<\u{e4}@b.c>", "250"),
        ("RCPT TO:<>", "501"),
        ("RCPT TO:<x@y.z> NOTIFY=NEVER", "555"),
        ("RCPT TO:<@relay.example:x@y.z>", "250"),
        ("RSET", "250"),
        ("mail from:<a@b.c> size=1000", "250"),
        ("RCPT TO:<\u{e4}@b.c>", "553"),
    ] {
        assert_eq!(client.say(line)[..3], *code, "{line}");
    }
    assert_eq!(server.violations().len(), 2, "{:?}", server.violations());
}

#[test]
fn enforces_the_size_it_offered() {
    let server = TestServer::builder().size(Some(100)).chunking(true).start();
    let mut client = Client::ready(&server);
    client.codes(&["MAIL FROM:<a@b.c>", "RCPT TO:<a@b.c>", "DATA"]);
    assert_eq!(client.say(&format!("{}\r\n.", "x".repeat(99))), "552 5.3.4 message too big\r\n");
    client.codes(&["MAIL FROM:<a@b.c>", "RCPT TO:<a@b.c>", "DATA"]);
    assert_eq!(client.say(&format!("{}\r\n.", "x".repeat(98)))[..3], *"250");
    client.codes(&["MAIL FROM:<a@b.c>", "RCPT TO:<a@b.c>"]);
    assert_eq!(client.say(&format!("BDAT 102\r\n{}", "x".repeat(100)))[..3], *"552");
    assert_eq!(client.say("BDAT 0 LAST")[..3], *"503");
    assert_eq!(server.messages().len(), 1);
    assert_eq!(server.violations(), [""; 0]);
}

#[test]
fn takes_pipelined_groups_and_chunks() {
    let server = TestServer::builder().chunking(true).dsn(true).start();
    let mut client = Client::ready(&server);
    client.send("RSET\r\nMAIL FROM:<a@b.c> RET=FULL\r\nRCPT TO:<d@e.f> NOTIFY=NEVER\r\nDATA\r\n");
    let codes: Vec<String> = (0..4).map(|_| client.reply()[..3].to_owned()).collect();
    assert_eq!(codes, ["250", "250", "250", "354"]);
    assert_eq!(client.say("Message-ID: <1>\r\n\r\n.")[..3], *"250");

    // One write, one round trip; a dot means nothing in a chunk.
    let before = server.transcript(1).round_trips();
    client.send("MAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\nBDAT 6\r\n.\r\n..\rBDAT 1 LAST\r\n\n");
    let codes: Vec<String> = (0..4).map(|_| client.reply()[..3].to_owned()).collect();
    assert_eq!(codes, ["250"; 4]);
    assert_eq!(server.messages()[1].content(), b".\r\n..\r\n");
    assert_eq!(server.transcript(1).round_trips(), before + 1);

    // Refused chunks are read all the same, so the dialogue stays in step.
    client.send("BDAT 6 LAST\r\nNOOP\r\nMAIL FROM:<a@b.c>\r\nBDAT 2 LAST\r\n\r\nBDAT 0 LAST\r\nBDAT x\r\nDATA\r\n");
    let codes: Vec<String> = (0..6).map(|_| client.reply()[..3].to_owned()).collect();
    assert_eq!(codes, ["503", "250", "554", "554", "501", "554"]);
    assert_eq!(server.violations(), [""; 0]);
    assert_eq!(server.messages()[0].recipient_parameters(), [["NOTIFY=NEVER"]]);
}

#[test]
fn notes_and_refuses_pipelining_that_was_not_offered() {
    let server = TestServer::builder().pipelining(false).start();
    let mut client = Client::ready(&server);
    assert_eq!(client.mail("1@x")[..3], *"250");
    client.send("MAIL FROM:<a@b.c>\r\nRCPT TO:<a@b.c>\r\n");
    assert_eq!(client.reply(), "250 2.1.0 sender ok\r\n");
    assert_eq!(client.rest(), "500 5.5.1 pipelining not supported\r\n");
    assert_eq!(server.violations(), ["connection 1: Rcpt pipelined behind Mail, PIPELINING was not offered"]);
}

#[test]
fn notes_what_is_sent_behind_a_command_that_must_be_last() {
    for (first, behind) in [
        ("EHLO me", "Ehlo"),
        ("NOOP", "Noop"),
        ("AUTH PLAIN", "Auth"),
        ("DATA", "Data"),
        ("MAIL FROM:<a@b.c>\r\nRCPT TO:<a@b.c>\r\nDATA\r\nx\r\n.", "-"),
    ] {
        let server = TestServer::builder().start();
        let mut client = Client::ready(&server);
        client.send(format!("{first}\r\nRSET\r\n"));
        client.reply();
        if behind == "-" {
            client.reply();
            assert_eq!(client.rest(), "554 5.5.0 protocol synchronization error\r\n");
            assert_eq!(server.violations(), ["connection 1: content sent before the reply to DATA"]);
        } else {
            assert_eq!(client.reply(), "503 5.5.1 sent too early\r\n", "{first}");
            assert_eq!(server.violations(), [format!("connection 1: Rset sent before the reply to {behind}")]);
        }
    }
    let server = TestServer::start();
    let mut client = Client::ready(&server);
    client.codes(&["MAIL FROM:<a@b.c>", "RCPT TO:<a@b.c>", "DATA"]);
    client.send("x\r\n.\r\nMAIL FROM:<a@b.c>\r\n");
    assert_eq!(client.reply()[..3], *"250");
    assert_eq!(client.reply()[..3], *"503");
    client.send("QUIT\r\nNOOP\r\n");
    assert_eq!(client.rest(), "221 2.0.0 bye\r\n");
    assert_eq!(server.violations().len(), 2, "{:?}", server.violations());
}

#[test]
fn notes_bytes_that_have_no_place() {
    let server = TestServer::start();
    let mut client = Client::ready(&server);
    client.send("NOOP\n");
    assert_eq!(client.reply()[..3], *"500");
    for line in ["NOOP \r x", "NOOP \0", &format!("NOOP {}", "x".repeat(1000))] {
        assert_eq!(client.say(line)[..3], *"500");
    }
    assert_eq!(server.violations().len(), 4, "{:?}", server.violations());

    for (content, fault) in [
        ("a\rb\r\n", "bare CR in the content"),
        ("a\nb\r\n", "bare LF in the content"),
        ("a\n.\r\nb\r\n", "bare LF in the content"),
        ("a\0\r\n", "NUL in the content"),
        ("\u{e4}\r\n", "8-bit content without BODY=8BITMIME or SMTPUTF8"),
        (".x\r\n", "a line of the content begins with a dot that was not doubled"),
        (&format!("{}\r\n", "x".repeat(999)), "line of more than 998 bytes in the content"),
    ] {
        let before = server.violations().len();
        client.codes(&["MAIL FROM:<a@b.c>", "RCPT TO:<a@b.c>", "DATA"]);
        assert_eq!(client.say(&format!("{content}."))[..3], *"250", "{content:?}");
        assert_eq!(server.violations()[before..], [format!("connection 1: {fault}")], "{content:?}");
    }
    let before = server.violations().len();
    client.codes(&["MAIL FROM:<a@b.c> BODY=8BITMIME", "RCPT TO:<a@b.c>", "DATA"]);
    client.say(&format!("\u{e4}\r\n{}\r\n.", "x".repeat(998)));
    assert_eq!(server.violations().len(), before);
}

#[test]
fn authenticates() {
    // "\0user\0secret", "user=user\x01auth=Bearer secret\x01\x01", and the same with "wrong".
    const PLAIN: &str = "AHVzZXIAc2VjcmV0";
    const WRONG: &str = "AHVzZXIAd3Jvbmc=";
    const TOKEN: &str = "dXNlcj11c2VyAWF1dGg9QmVhcmVyIHNlY3JldAEB";
    const BAD_TOKEN: &str = "dXNlcj11c2VyAWF1dGg9QmVhcmVyIHdyb25nAQE=";
    let (user, secret) = ("dXNlcg==", "c2VjcmV0");
    let dialogues: [(&[&str], &[&str]); 14] = [
        (&[&format!("AUTH PLAIN {PLAIN}")], &["235"]),
        (&["AUTH PLAIN", PLAIN], &["334", "235"]),
        (&["auth login", user, secret], &["334", "334", "235"]),
        (&[&format!("AUTH LOGIN {user}"), secret], &["334", "235"]),
        (&[&format!("AUTH XOAUTH2 {TOKEN}")], &["235"]),
        (&["AUTH XOAUTH2", TOKEN], &["334", "235"]),
        (&[&format!("AUTH XOAUTH2 {BAD_TOKEN}"), ""], &["334", "535"]),
        (&[&format!("AUTH PLAIN {WRONG}")], &["535"]),
        (&["AUTH LOGIN", user, user], &["334", "334", "535"]),
        (&["AUTH PLAIN", "*"], &["334", "501"]),
        (&["AUTH PLAIN", "&&&"], &["334", "501"]),
        (&["AUTH PLAIN ="], &["501"]),
        (&["AUTH CRAM-MD5"], &["504"]),
        (&["AUTH"], &["504"]),
    ];
    for (lines, codes) in dialogues {
        let server =
            TestServer::builder().credentials("user", "secret").auth_mechanisms(&["PLAIN", "LOGIN", "XOAUTH2"]).start();
        let mut client = Client::ready(&server);
        assert_eq!(client.codes(&["MAIL FROM:<a@b.c>"]), ["530"]);
        assert_eq!(client.codes(lines), codes, "{lines:?}");
        assert_eq!(server.transcript(1).commands()[2..], *lines);
        if codes.last() == Some(&"235") {
            assert_eq!(client.codes(&["AUTH PLAIN"]), ["503"]);
            client.mail("1@x");
            assert_eq!(server.messages()[0].authenticated_as(), Some("user"));
        } else {
            assert_eq!(client.codes(&["MAIL FROM:<a@b.c>", &format!("AUTH PLAIN {PLAIN}")]), ["530", "235"]);
        }
        assert_eq!(server.violations(), [""; 0]);
    }
}

/// A client nobody here has written finds nothing to complain about, nor does the server.
#[test]
fn lettre_gets_along_with_it() {
    let server = TestServer::builder().credentials("user", "secret").start();
    let transport = lettre::SmtpTransport::builder_dangerous("127.0.0.1")
        .port(server.port())
        .credentials(("user", "secret").into())
        .build();
    let message = lettre::Message::builder()
        .from("a@example.com".parse().unwrap())
        .to("b@example.com".parse().unwrap())
        .message_id(Some("<lettre@example.com>".to_owned()))
        .body(".dot\r\nf\u{fc}r".to_owned())
        .unwrap();
    lettre::Transport::send(&transport, &message).unwrap();
    assert_eq!(server.accepted("lettre@example.com"), 1);
    // The CRLF before the final dot belongs to the content.
    assert_eq!(server.messages()[0].content(), [&message.formatted()[..], b"\r\n"].concat());
    assert_eq!(server.messages()[0].authenticated_as(), Some("user"));
    assert_eq!(server.violations(), [""; 0]);
}
