//! Byte-exact cuts: at every byte, in both directions, in all three ways.

use std::io::ErrorKind;

use smtp_pool::testing::{Cut, Script, Security, TestServer};

use crate::client::Client;

const WIRE: &str = "EHLO me\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<a@b.c>\r\nDATA\r\nMessage-ID: <1>\r\n\r\n.\r\nQUIT\r\n";

/// Says the whole dialogue step by step; what came back before the end, and whether that was RST.
fn run(client: &mut Client) -> (Vec<u8>, bool) {
    let mut seen = Vec::new();
    let mut step = |client: &mut Client, expect: &str| loop {
        if seen.ends_with(b"\n") && seen.rsplit(|byte| *byte == b'\n').nth(1).unwrap().starts_with(expect.as_bytes()) {
            return None;
        }
        let mut buffer = [0; 512];
        match client.read(&mut buffer) {
            Ok(0) => return Some(false),
            Ok(read) => seen.extend_from_slice(&buffer[..read]),
            Err(_) => return Some(true),
        }
    };
    let data_at = WIRE.find("Message-ID").unwrap();
    let quit_at = WIRE.find("QUIT").unwrap();
    let steps = [
        ("220 ", ""),
        ("250 ", &WIRE[..9]),
        ("354 ", &WIRE[9..data_at]),
        ("250 2.0.0 q", &WIRE[data_at..quit_at]),
        ("never", &WIRE[quit_at..]),
    ];
    let mut ended = None;
    for (expect, send) in steps {
        if let Err(error) = client.try_send(send) {
            // Who is told of RST by a write reads EOF afterwards.
            let reset = error.kind() == ErrorKind::ConnectionReset;
            ended = step(client, "never").map(|by_read| by_read || reset);
        }
        ended = ended.or_else(|| step(client, expect));
        if ended.is_some() {
            break;
        }
    }
    (seen, ended.unwrap())
}

fn whole() -> (Vec<u8>, Vec<u8>) {
    let server = TestServer::start();
    let (seen, reset) = run(&mut Client::silent(&server));
    assert!(!reset);
    server.connection(1).wait_closed();
    assert_eq!(server.transcript(1).client_bytes(), WIRE.as_bytes());
    assert_eq!(server.transcript(1).server_bytes(), seen);
    (WIRE.as_bytes().to_vec(), seen)
}

#[test]
fn after_every_byte_of_the_server() {
    let (_, all) = whole();
    let accepted_at = String::from_utf8_lossy(&all).find("250 2.0.0 queued").unwrap();
    for cut in [Cut::Fin, Cut::Reset] {
        for bytes in 0..=all.len() {
            let server = TestServer::builder().cut_after_server_bytes(bytes as u64, cut).start();
            let (seen, reset) = run(&mut Client::silent(&server));
            server.connection(1).wait_closed();
            // A reset may overtake what was sent last, never what the server recorded.
            assert_eq!(server.transcript(1).server_bytes(), all[..bytes]);
            assert!(all.starts_with(&seen) && seen.len() <= bytes);
            if cut == Cut::Fin {
                assert_eq!((seen.len(), reset), (bytes, false));
            } else {
                assert!(reset);
            }
            let unsure = bytes > accepted_at;
            assert_eq!(server.accepted("1"), usize::from(unsure), "{bytes} {cut:?}");
        }
    }
}

#[test]
fn after_every_byte_of_the_client() {
    let (all, _) = whole();
    let dot = WIRE.find("QUIT").unwrap();
    for cut in [Cut::Fin, Cut::Reset] {
        for bytes in 0..all.len() {
            let server = TestServer::builder().cut_after_client_bytes(bytes as u64, cut).start();
            let (seen, _) = run(&mut Client::silent(&server));
            server.connection(1).wait_closed();
            let seen = String::from_utf8(seen).unwrap();
            assert_eq!(server.accepted("1"), usize::from(bytes >= dot), "{bytes} {cut:?}");
            assert_eq!(seen.contains("queued"), bytes > dot, "the last byte goes unanswered: {bytes} {cut:?}");
            let commands = WIRE.as_bytes()[..bytes].windows(2).filter(|window| window == b"\r\n").count();
            let recorded = server.transcript(1).commands().len();
            assert!(recorded <= commands, "{bytes}");
        }
    }
}

#[test]
fn silence_keeps_the_connection_and_reads_on() {
    let server = TestServer::builder().cut_after_server_bytes(3, Cut::Silence).start();
    let mut client = Client::silent(&server);
    assert_eq!(client.exactly(3), b"220");
    client.send("EHLO me\r\n");
    client.nothing_comes();
    drop(client);
    server.connection(1).wait_closed();
    assert_eq!(server.transcript(1).client_bytes(), b"EHLO me\r\n");
}

#[test]
fn one_connection_only() {
    let script = Script::new().cut_connection_after_server_bytes(1, 0, Cut::Reset).cut_connection_after_client_bytes(
        2,
        0,
        Cut::Fin,
    );
    let server = TestServer::builder().script(script).start();
    assert_eq!(Client::silent(&server).rest_until_reset(), "");
    assert_eq!(Client::silent(&server).rest(), "220 localhost ESMTP test server\r\n");
    assert_eq!(Client::ready(&server).mail("1")[..3], *"250");
}

#[test]
fn bytes_are_counted_inside_tls_as_plain_text() {
    let builder = TestServer::builder().security(Security::ImplicitTls);
    let server = builder.clone().cut_after_server_bytes(10, Cut::Fin).start();
    let mut client = Client::silent(&server).tls(&server).unwrap();
    assert_eq!(client.exactly(10), b"220 localh");
    assert!(!matches!(client.read(&mut [0; 9]), Ok(1..)));
    let server = builder.cut_after_client_bytes(6, Cut::Reset).start();
    let mut client = Client::silent(&server).tls(&server).unwrap();
    client.reply();
    client.send("NOOP\r\n");
    client.rest_until_reset();
    assert_eq!(server.transcript(1).commands(), ["NOOP"]);
}
