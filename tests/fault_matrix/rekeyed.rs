//! F036: an idle TLS 1.3 connection on which the server changes its keys.
//!
//! The key update stands for the late session ticket as well: both are records of application data on the outside, and
//! nothing for the application on the inside. No server library at hand sends a ticket at any other time than right behind its handshake.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use smtp_pool::{Host, SmtpSender};

use super::harness::{content, envelope};

type Tls = StreamOwned<ServerConnection, TcpStream>;

pub(crate) fn keys_change_while_idle() {
    let (config, root) = identity();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (rekey, asked) = channel();
    let (rekeyed, done) = channel();
    let server = thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        // Whoever is no longer wanted here would have to be accepted.
        drop(listener);
        let mut tls = BufReader::new(StreamOwned::new(ServerConnection::new(config).unwrap(), socket));
        say(&mut tls, "220 ready");
        let mut stored = Vec::new();
        for _ in 0..2 {
            stored.extend(message(&mut tls));
            update_keys(&mut tls, &asked);
            let _ = rekeyed.send(());
        }
        // QUIT, or the end.
        let mut last = String::new();
        let _ = tls.read_line(&mut last);
        (stored, last)
    });

    let host = Host::implicit_tls("127.0.0.1").port(port).root_certificate(root);
    let sender = SmtpSender::builder().host(host).max_retries(0).build().unwrap();
    let mut connections = Vec::new();
    for name in ["first", "second"] {
        let receipt = sender.send_raw(&envelope(1), &content(name, 700)).unwrap();
        assert_eq!(receipt.attempts(), 1, "F036: {name}");
        connections.push(receipt.connection_id());
        rekey.send(()).unwrap();
        done.recv().unwrap();
    }
    assert_eq!(connections[0], connections[1], "F036: K");
    assert_eq!(sender.status().created, 1, "F036: K");
    drop(sender);
    let (stored, last) = server.join().unwrap();
    assert_eq!(stored, ["Message-ID: <first@example.com>", "Message-ID: <second@example.com>"], "F036");
    assert_eq!(last, "QUIT\r\n", "F036: in step to the end");
}

/// Waits to be asked, then sends a key update that asks the client for its own.
fn update_keys(tls: &mut BufReader<Tls>, asked: &Receiver<()>) {
    asked.recv().unwrap();
    let StreamOwned { conn, sock } = tls.get_mut();
    conn.refresh_traffic_keys().unwrap();
    while conn.wants_write() {
        conn.write_tls(sock).unwrap();
    }
}

/// One session's worth of commands up to the end of one message; returns its first line.
fn message(tls: &mut BufReader<Tls>) -> Option<String> {
    let mut first = None;
    loop {
        let mut line = String::new();
        tls.read_line(&mut line).unwrap();
        match line.split(['\r', ' ']).next() {
            Some("DATA") => break,
            Some("EHLO") => say(tls, "250-localhost\r\n250 SIZE 1000000"),
            _ => say(tls, "250 ok"),
        }
    }
    say(tls, "354 go on");
    loop {
        let mut line = String::new();
        tls.read_line(&mut line).unwrap();
        if line == ".\r\n" {
            break;
        }
        first.get_or_insert_with(|| line.trim_end().to_owned());
    }
    say(tls, "250 queued");
    first
}

fn say(tls: &mut BufReader<Tls>, reply: &str) {
    let tls = tls.get_mut();
    tls.write_all(format!("{reply}\r\n").as_bytes()).unwrap();
    tls.flush().unwrap();
}

/// A server's configuration, TLS 1.3 only, and the certificate to trust.
fn identity() -> (Arc<ServerConfig>, Vec<u8>) {
    let rcgen::CertifiedKey { cert, key_pair } = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key_pair.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    (Arc::new(config), cert.der().to_vec())
}
