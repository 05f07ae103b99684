//! SEC-01 end to end: a Postfix that is as lenient as it can be takes one message for each `send`, whatever stands in it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::*;

/// Neither commands that come too early nor bare line feeds are refused, so that nothing but the client's own normalisation stands
/// between a message and a second one in it.
const LENIENT: &str = "smtpd_forbid_unauth_pipelining = no;smtpd_forbid_bare_newline = no;smtpd_data_restrictions =";

/// What some server or other takes for the end of a message (CVE-2023-51764 and its kin), and neighbours of it.
const ENDS: [&str; 12] = [
    "\n.\n",
    "\n.\r\n",
    "\r\n.\n",
    "\r.\r",
    "\r.\r\n",
    "\r\n.\r",
    "\r.\n",
    "\n.\r",
    "\r\r\n.\r\r\n",
    "\n\0.\n",
    "\r\n.\0\r\n",
    "\r\n.\r\n",
];

/// A second message, were it read as commands.
fn second(id: &str, line_end: &str) -> String {
    let lines = [
        "MAIL FROM:<admin@example.com>",
        &format!("RCPT TO:<{USER}>"),
        "DATA",
        &format!("Message-ID: <{id}>"),
        "",
        "Gotcha.",
    ];
    lines.join(line_end)
}

#[test]
#[ignore = "needs a private Postfix; .ci/run and README say how"]
fn no_second_message_is_smuggled_in_at_any_place() {
    // By DATA, and what is small enough in one write, by BDAT.
    for single_round_trip in [false, true] {
        sends_each_as_one_message(single_round_trip);
    }
}

fn sends_each_as_one_message(single_round_trip: bool) {
    const CHUNK: usize = 64 * 1024;
    let postfix = Postfix::start_with(LENIENT);
    let sender = single(postfix.plain_host().single_round_trip(single_round_trip)).build().unwrap();
    let filler = |bytes: usize| {
        "Nothing but a line of text, and after it another one, as in any mail.\r\n".repeat(bytes / 71 + 1)[..bytes]
            .to_owned()
    };
    let mut sent = Vec::new();
    for (number, end) in ENDS.iter().enumerate() {
        for (spelling, line_end) in [("crlf", "\r\n"), ("lf", "\n"), ("cr", "\r")] {
            let smuggled = second(&format!("smuggled-{number}-{spelling}"), line_end) + end;
            let head = message("", "").len() + 40;
            let mut bodies = vec![
                ("first", format!("{end}{smuggled}")),
                ("middle", format!("Hello.{end}{smuggled}Goodbye.\r\n")),
                ("last", format!("Hello.{end}{smuggled}")),
                ("twice", format!("Hello.{end}{end}{smuggled}{end}{smuggled}")),
            ];
            // Where content is cut into pieces, with the cut before, in and behind the sequence.
            for shift in 0..=end.len() {
                bodies.push(("cut", filler(CHUNK - head - 20 - shift) + &filler(20) + end + &smuggled));
            }
            for (place, (name, body)) in bodies.into_iter().enumerate() {
                let id = format!("{name}-{place}-{number}-{spelling}");
                // With a header as long as the others', so that a cut is where it should be.
                let mut content = message(&id, "");
                let padding = head.saturating_sub(content.len());
                content.extend(std::iter::repeat_n(b'x', if name == "cut" { padding } else { 0 }));
                content.extend_from_slice(body.as_bytes());
                sender.send_raw(&inbox(), &content).unwrap_or_else(|error| panic!("{id}: {error}"));
                sent.push((id, content));
            }
        }
    }
    let mailbox = postfix.mailbox();
    assert_eq!(mailbox.len(), sent.len(), "one file for each message");
    assert_eq!(postfix.logged("(queue active)"), sent.len(), "one queue file for each message");
    assert_eq!(postfix.logged("from=<sender@example.com>"), sent.len());
    assert_eq!(postfix.logged("admin@example.com"), 0);
    let mut stored: BTreeMap<String, &[u8]> = BTreeMap::new();
    for file in &mailbox {
        let start = file.windows(14).position(|window| window == b"\nMessage-ID: <").unwrap() + 1;
        let id = String::from_utf8_lossy(&file[start + 13..]).split('>').next().unwrap().to_owned();
        assert!(stored.insert(id, &file[start..]).is_none());
    }
    for (id, content) in &sent {
        assert!(stored[id] == as_stored(content), "{id}: {:?}", String::from_utf8_lossy(stored[id]));
    }
    assert_eq!(sender.status().created, 1, "{:?}", sender.status());
    drop(sender);
    wait_until("Postfix logs the end of the connection", || postfix.logged(" data=") > 0);
    assert_eq!(postfix.logged(" bdat=") > 0, single_round_trip, "{}", postfix.log());
}

/// In the header a sequence may end the header; still there is one message, and it is ours.
#[test]
#[ignore = "needs a private Postfix; .ci/run and README say how"]
fn no_second_message_is_smuggled_in_by_a_header() {
    let postfix = Postfix::start_with(LENIENT);
    let sender = single(postfix.host()).build().unwrap();
    for (number, end) in ENDS.iter().enumerate() {
        let subject = format!("Hello{end}{}{end}", second(&format!("smuggled-{number}"), "\n"));
        let content = format!("Message-ID: <carrier-{number}>\r\nSubject: {subject}\r\n\r\nHello.\r\n");
        sender.send_raw(&inbox(), content.as_bytes()).unwrap();
        let first = format!("{}{}\r\n\r\nHello.\r\n", &end[1..], second(&format!("smuggled-{number}"), "\r\n"));
        sender.send_raw(&inbox(), first.as_bytes()).unwrap();
    }
    assert_eq!(postfix.mailbox().len(), 2 * ENDS.len());
    assert_eq!(postfix.logged("(queue active)"), 2 * ENDS.len());
    assert_eq!(postfix.logged("from=<sender@example.com>"), 2 * ENDS.len());
}

/// That the tests above can fail: the same Postfix takes the second message from a client that sends content as it is.
#[test]
#[ignore = "needs a private Postfix; .ci/run and README say how"]
fn a_client_that_does_not_normalise_is_smuggled_through() {
    let postfix = Postfix::start_with(LENIENT);
    let mut stream = TcpStream::connect(("127.0.0.1", postfix.smtp_port())).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut say = |text: &str, code: &str| {
        stream.write_all(text.as_bytes()).unwrap();
        let mut reply = Vec::new();
        let mut byte = [0];
        while !(reply.ends_with(b"\n") && reply.windows(4).any(|window| window == format!("{code} ").as_bytes())) {
            assert!(stream.read(&mut byte).unwrap() > 0, "{}", String::from_utf8_lossy(&reply));
            reply.extend(byte);
        }
    };
    say("", "220");
    say("EHLO client.example\r\n", "250");
    say("MAIL FROM:<sender@example.com>\r\n", "250");
    say(&format!("RCPT TO:<{USER}>\r\n"), "250");
    say("DATA\r\n", "354");
    let carrier =
        String::from_utf8(message("carrier", format!("Hello.\n.\n{}\r\n.\r\nQUIT\r\n", second("smuggled", "\r\n"))))
            .unwrap();
    say(&carrier, "221");
    assert_eq!(postfix.delivered("carrier").len(), 1);
    assert_eq!(postfix.delivered("smuggled").len(), 1, "a server that can be tricked, or these tests show nothing");
    assert_eq!(postfix.logged("from=<admin@example.com>"), 1);
}
