//! SEC-01, SEC-02: what a message says stays inside the message.

use std::collections::HashSet;

use smtp_pool::testing::TestServer;

use crate::common::*;

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

/// What stands behind a sequence that some server takes for the end of the message.
const SMUGGLED: &str =
    "MAIL FROM:<evil@example.com>\r\nRCPT TO:<victim@example.com>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n";

#[test]
fn sec_01_nothing_is_smuggled_out_of_a_message() {
    let ends = ["\n", "\r", "\r\n", "\r\r", "\n\n", "\n\r", "\r\r\n", "\r\n\r", "\r\n\n", "\0", "\r\0\n", ""];
    let mut corpus = HashSet::new();
    for before in ends {
        for dots in [".", "..", "...", ""] {
            for after in ends {
                corpus.insert(format!("head{before}{dots}{after}{SMUGGLED}").into_bytes());
                corpus.insert(format!("{before}{dots}{after}").into_bytes());
                corpus.insert(format!("head{before}{dots}{after}tail").into_bytes());
            }
        }
    }
    // By DATA, and in one write by BDAT.
    for single_round_trip in [false, true] {
        sends_each_as_one_message(&corpus, single_round_trip);
    }
}

fn sends_each_as_one_message(corpus: &HashSet<Vec<u8>>, single_round_trip: bool) {
    let server = TestServer::builder().chunking(true).start();
    let sender = sender(plain(&server).single_round_trip(single_round_trip)).build().unwrap();
    for (number, content) in corpus.iter().enumerate() {
        sender.send_raw(&envelope(1), content).unwrap();
        let stored = server.messages();
        assert_eq!(stored.len(), number + 1, "exactly one message of {}", content.escape_ascii());
        let last = stored.last().unwrap();
        assert_eq!(last.content().escape_ascii().to_string(), normalised(content).escape_ascii().to_string());
        assert_eq!(last.recipients(), ["to1@example.net"]);
    }
    assert_eq!(server.connections_accepted(), 1);
    assert_eq!(said(&server, 1, "BDAT"), single_round_trip);
    let wire = server.transcript(1).client_bytes();
    assert!(!wire.iter().enumerate().any(|(at, &byte)| byte == b'\n' && wire[at - 1] != b'\r'), "bare LF");
    assert!(!wire.iter().enumerate().any(|(at, &byte)| byte == b'\r' && wire[at + 1] != b'\n'), "bare CR");
    let unexpected: Vec<_> = server.violations().into_iter().filter(|text| !text.contains("NUL")).collect();
    assert_eq!(unexpected, [""; 0]);
}

/// Content is encoded 64 KiB at a time, and the last 16 KiB leave in a write of their own: every sequence at every place across both.
#[test]
fn sec_01_nothing_is_smuggled_where_content_is_cut_into_writes() {
    let sequences = [
        "\n.\n",
        "\n.\r\n",
        "\r.\r",
        "\r.\n",
        "\r\n.\r",
        "\r\n.\n",
        "\r.\r\n",
        "\r\r\n.\r\n",
        "\r\n.\r\n",
        "\n\0.\n",
        "\r\n.\0\r\n",
        "\r\n..\n.\r\n",
    ];
    let server = TestServer::builder().size(None).record(false).start();
    let sender = sender(plain(&server)).build().unwrap();
    let lines =
        |bytes: usize| [&b"x".repeat(60)[..], b"\r\n"].concat().into_iter().cycle().take(bytes).collect::<Vec<_>>();
    let mut sent = 0;
    for sequence in sequences {
        for shift in 0..=sequence.len() + 1 {
            let at_chunk = [lines(64 * 1024 - shift), sequence.into(), SMUGGLED.into()].concat();
            // Behind the sequence 16 KiB to the end, less what lies before the cut.
            let at_last_write =
                [lines(5_000), sequence.into(), SMUGGLED.into(), lines(16 * 1024 - SMUGGLED.len() - 6 - shift)];
            for content in [at_chunk, at_last_write.concat()] {
                sender.send_raw(&envelope(1), &content).unwrap();
                sent += 1;
                let stored = server.messages();
                let last = stored.last().unwrap();
                assert_eq!(stored.len(), sent, "exactly one message, {sequence:?}, {shift}");
                assert!(last.content() == normalised(&content), "{sequence:?}, {shift}");
                assert_eq!((last.mail_from(), last.recipients()), (FROM, &["to1@example.net".to_owned()][..]));
            }
        }
    }
    assert_eq!(server.connections_accepted(), 1);
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
            content.extend_from_slice(&[b'y'; 40_000]);
            sender.send_raw(&envelope(1), &content).unwrap();
            let stored = server.messages().pop().unwrap();
            assert!(stored.content() == normalised(&content), "edge {edge}, shift {shift}");
        }
    }
    let unexpected: Vec<_> = server.violations().into_iter().filter(|text| !text.contains("more than 998")).collect();
    assert_eq!(unexpected, [""; 0]);
}
