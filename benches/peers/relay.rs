//! A link with a delay: a relay that hands on every byte, in both directions, half a round trip after it came.
//!
//! It also counts how often the dialogue turns, which is what a round trip is: the client speaks, having heard the server.
//! The kernel of the relay acknowledges what it has read at once, so a stall by Nagle's algorithm looks as it does on loopback,
//! and a connection is as slow to come about as one round trip.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::clock;

pub struct Relay {
    addr: SocketAddr,
    turns: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// In front of the server at `port`.
    pub fn before(port: u16, round_trip: Duration) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let (turns, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = thread::spawn({
            let (turns, is_over) = (Arc::clone(&turns), Arc::clone(&is_over));
            move || {
                for client in listener.incoming().map_while(Result::ok) {
                    if is_over.load(Ordering::SeqCst) {
                        return;
                    }
                    let turns = Arc::clone(&turns);
                    // Each ends with its connection.
                    thread::spawn(move || carry(&client, port, round_trip, &turns));
                }
            }
        });
        Self { addr, turns, is_over, thread: Some(thread) }
    }

    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// How often a client spoke after its server had, over all connections so far.
    pub fn turns(&self) -> usize {
        self.turns.load(Ordering::SeqCst)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.addr));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn carry(client: &TcpStream, port: u16, round_trip: Duration, turns: &AtomicUsize) {
    // The handshake takes one.
    pause_until(clock::now() + round_trip);
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { return };
    for stream in [client, &server] {
        stream.set_nodelay(true).unwrap();
    }
    let server_spoke = AtomicBool::new(true);
    thread::scope(|scope| {
        let note_turn = || {
            if server_spoke.swap(false, Ordering::SeqCst) {
                turns.fetch_add(1, Ordering::SeqCst);
            }
        };
        scope.spawn({
            let server = &server;
            move || delayed(client, server, round_trip / 2, note_turn)
        });
        // A client answers what it has read, which is later than this: no turn is counted twice.
        delayed(&server, client, round_trip / 2, || server_spoke.store(true, Ordering::SeqCst));
    });
}

/// Hands on what comes from `source`, each piece `delay` after it came, until one side ends.
fn delayed(source: &TcpStream, sink: &TcpStream, delay: Duration, mut note: impl FnMut()) {
    let (pieces, due) = crossbeam_channel::unbounded::<(Instant, Vec<u8>)>();
    thread::scope(|scope| {
        scope.spawn(move || {
            for (at, bytes) in due {
                pause_until(at);
                if (&*sink).write_all(&bytes).is_err() {
                    drop(source.shutdown(Shutdown::Both));
                    return;
                }
            }
            drop(sink.shutdown(Shutdown::Write));
        });
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = (&*source).read(&mut buffer) {
            note();
            if pieces.send((clock::now() + delay, buffer[..read].to_vec())).is_err() {
                break;
            }
        }
        drop(pieces);
    });
}

#[expect(clippy::disallowed_methods, reason = "a delay is what this is about")]
fn pause_until(at: Instant) {
    thread::sleep(at.saturating_duration_since(clock::now()));
}
