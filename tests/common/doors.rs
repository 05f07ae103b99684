//! Ports that are not quite servers: one that nobody gets through, one that counts and slams, one that hangs up on the silent.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    missing_docs,
    reason = "each test file uses its own part of these helpers"
)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use smtp_pool::Host;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::now;

fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// A listener whose backlog is full: a connection to it is neither accepted nor refused, as behind a firewall that drops.
pub struct BlackHole {
    port: u16,
    _listener: Socket,
    _crowd: Vec<TcpStream>,
}

impl BlackHole {
    pub fn open() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SockAddr::from(loopback())).unwrap();
        listener.listen(0).unwrap();
        let addr = listener.local_addr().unwrap().as_socket().unwrap();
        let mut crowd = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&addr, Duration::from_millis(100)) {
            crowd.push(stream);
            assert!(crowd.len() < 100, "the backlog has no bound here");
        }
        Self { port: addr.port(), _listener: listener, _crowd: crowd }
    }

    pub fn host(&self) -> Host {
        Host::plain("127.0.0.1").port(self.port)
    }
}

/// Accepts each connection, notes when, and cuts it with RST before a word is said.
pub struct SlammingDoor {
    addr: SocketAddr,
    times: Arc<Mutex<Vec<Instant>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl SlammingDoor {
    pub fn open() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SockAddr::from(loopback())).unwrap();
        // Room for every thread of a test to come at once.
        listener.listen(1024).unwrap();
        let listener = TcpListener::from(listener);
        let addr = listener.local_addr().unwrap();
        let times = Arc::new(Mutex::new(Vec::new()));
        let is_over = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (times, is_over) = (Arc::clone(&times), Arc::clone(&is_over));
            move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    if is_over.load(Ordering::SeqCst) {
                        return;
                    }
                    times.lock().push(now());
                    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                }
            }
        });
        Self { addr, times, is_over, thread: Some(thread) }
    }

    pub fn host(&self) -> Host {
        Host::plain("127.0.0.1").port(self.addr.port())
    }

    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// When each connection came.
    pub fn times(&self) -> Vec<Instant> {
        self.times.lock().clone()
    }
}

/// How often a host that is down for `time` may be probed: at the sums of a doubling pause. `shortest` is what jitter may make of each.
pub fn probes_within(time: Duration, first: Duration, longest: Duration, shortest: f64) -> usize {
    let (mut probes, mut at, mut pause) = (0, Duration::ZERO, first);
    loop {
        at += pause.mul_f64(shortest);
        if at > time {
            return probes;
        }
        probes += 1;
        pause = (pause * 2).min(longest);
    }
}

impl Drop for SlammingDoor {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.addr));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Stands before a server and ends connections that are silent for `limit` between two commands, as servers do.
///
/// Silence while the client owes content, or the server a reply, is not idleness: RFC 5321 has other timers for it.
pub struct IdleCutter {
    addr: SocketAddr,
    cuts: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Turn {
    /// A message has been answered, and the client has not spoken since. A session that is only slow to begin, on a busy machine,
    /// is not idle.
    is_idle: bool,
    /// The server's last word was 354.
    content_due: bool,
    cut: bool,
}

impl Turn {
    /// Ends the connection if it is idle.
    fn ends(&mut self) -> bool {
        self.cut = self.is_idle;
        self.cut
    }
}

impl IdleCutter {
    /// In front of the server at `port`; `farewell` is sent before the end.
    pub fn before(port: u16, limit: Duration, farewell: &'static [u8]) -> Self {
        let listener = TcpListener::bind(loopback()).unwrap();
        let addr = listener.local_addr().unwrap();
        let (cuts, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = thread::spawn({
            let (cuts, is_over) = (Arc::clone(&cuts), Arc::clone(&is_over));
            move || {
                for client in listener.incoming().map_while(Result::ok) {
                    if is_over.load(Ordering::SeqCst) {
                        return;
                    }
                    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
                    let cuts = Arc::clone(&cuts);
                    // Each ends with its connection.
                    thread::spawn(move || carry(&client, &server, limit, farewell, &cuts));
                }
            }
        });
        Self { addr, cuts, is_over, thread: Some(thread) }
    }

    pub fn host(&self) -> Host {
        Host::plain("127.0.0.1").port(self.addr.port())
    }

    /// How many connections were ended for being idle.
    pub fn cuts(&self) -> usize {
        self.cuts.load(Ordering::SeqCst)
    }
}

impl Drop for IdleCutter {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.addr));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn carry(client: &TcpStream, server: &TcpStream, limit: Duration, farewell: &[u8], cuts: &AtomicUsize) {
    for stream in [client, server] {
        stream.set_nodelay(true).unwrap();
    }
    client.set_read_timeout(Some(limit)).unwrap();
    let turn = Mutex::new(Turn::default());
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 16_384];
            while let Ok(read @ 1..) = (&*server).read(&mut buffer) {
                let mut turn = turn.lock();
                turn.is_idle = turn.content_due;
                turn.content_due = last_line(&buffer[..read]).starts_with(b"354");
                if turn.cut || (&*client).write_all(&buffer[..read]).is_err() {
                    break;
                }
            }
            drop(client.shutdown(Shutdown::Write));
        });
        let mut buffer = [0; 16_384];
        loop {
            match (&*client).read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => {
                    turn.lock().is_idle = false;
                    if (&*server).write_all(&buffer[..read]).is_err() {
                        break;
                    }
                }
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                    if turn.lock().ends() {
                        drop((&*client).write_all(farewell));
                        cuts.fetch_add(1, Ordering::SeqCst);
                        break;
                    }
                }
                Err(_) => break,
            }
        }
        drop(client.shutdown(Shutdown::Write));
        drop(server.shutdown(Shutdown::Both));
    });
}

fn last_line(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\r\n").unwrap_or(bytes);
    let start = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    &bytes[start..]
}
