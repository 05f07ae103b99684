//! A wire between client and server that ends at one byte, and remembers what passed.
//!
//! It knows nothing of SMTP or TLS: a byte is a byte of the TCP stream.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use smtp_pool::testing::Cut;
use socket2::SockRef;

use crate::common;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    FromServer,
    FromClient,
}

/// Where and how a connection ends: when so many bytes have passed in one direction, counted from where the plan was made.
///
/// FIN and silence are what the *client* is shown. It is read on until it leaves, and when the cut is in the server's direction, what it
/// says still reaches the server: then the server knows more than it can tell, which is the harder case for the client's judgement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) direction: Direction,
    pub(crate) after: usize,
    pub(crate) cut: Cut,
}

/// What passed over one connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tape {
    /// What the client said, whether or not it went on to the server.
    pub(crate) from_client: Vec<u8>,
    /// What was delivered to the client.
    pub(crate) to_client: Vec<u8>,
    /// Where each of the client's turns began: bytes of the client and of the server until then.
    pub(crate) turns: Vec<(usize, usize)>,
    last_was_client: bool,
    pub(crate) was_cut: bool,
}

struct Line {
    tape: Tape,
    plan: Option<Plan>,
    /// Bytes that had passed when the plan was made, from the client and to it.
    mark: (usize, usize),
    client: Option<Arc<TcpStream>>,
    pumps: usize,
}

impl Line {
    /// How many of `bytes` may go on, and whether the wire ends behind them.
    fn admit(&self, direction: Direction, bytes: usize) -> (usize, bool) {
        match self.plan {
            _ if self.tape.was_cut => {
                let stays = self.plan.is_some_and(|plan| plan.direction == Direction::FromServer);
                (if direction == Direction::FromClient && stays { bytes } else { 0 }, false)
            }
            Some(plan) if plan.direction == direction => {
                let passed = match direction {
                    Direction::FromClient => self.tape.from_client.len() - self.mark.0,
                    Direction::FromServer => self.tape.to_client.len() - self.mark.1,
                };
                let left = plan.after.saturating_sub(passed);
                (left.min(bytes), left <= bytes)
            }
            _ => (bytes, false),
        }
    }

    /// Ends the connection as the client sees it.
    fn cut(&mut self) {
        self.tape.was_cut = true;
        let Some(client) = &self.client else { return };
        match self.plan.map(|plan| plan.cut) {
            Some(Cut::Fin) => drop(client.shutdown(Shutdown::Write)),
            Some(Cut::Reset) => {
                drop(SockRef::from(&**client).set_linger(Some(Duration::ZERO)));
                // Wakes the thread that reads, which holds the last handle; nothing of it is seen on the wire.
                drop(client.shutdown(Shutdown::Read));
                self.client = None;
            }
            _ => {}
        }
    }
}

#[derive(Default)]
struct Shared {
    lines: Mutex<Vec<Arc<Mutex<Line>>>>,
    first_plan: Mutex<Option<Plan>>,
    is_over: AtomicBool,
    /// Connections with a pump that runs.
    running: Mutex<usize>,
    ended: Condvar,
}

pub(crate) struct Wire {
    port: u16,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    /// To the server at `port`. The first connection ends as planned.
    pub(crate) fn to(port: u16, plan: Option<Plan>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let own_port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared { first_plan: Mutex::new(plan), ..Shared::default() });
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                for client in listener.incoming().map_while(Result::ok) {
                    if shared.is_over.load(Ordering::SeqCst) {
                        return;
                    }
                    shared.connect(client, port);
                }
            }
        });
        Self { port: own_port, shared, thread: Some(thread) }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The first connection, idle now, ends as planned; bytes count from here.
    pub(crate) fn plan(&self, plan: Plan) {
        let line = self.first().expect("a message has gone before");
        let mut line = line.lock();
        line.mark = (line.tape.from_client.len(), line.tape.to_client.len());
        line.plan = Some(plan);
        if plan.after == 0 {
            line.cut();
        }
    }

    fn first(&self) -> Option<Arc<Mutex<Line>>> {
        self.shared.lines.lock().first().map(Arc::clone)
    }

    /// What has passed over the first connection, if there was one.
    pub(crate) fn tape(&self) -> Tape {
        self.first().map(|line| line.lock().tape.clone()).unwrap_or_default()
    }

    /// The message under test is over. A cut that has not come does not come any more, an RST that is due has left, and a connection
    /// that went silent is hung up, so that it is not mistaken for one that works.
    pub(crate) fn settle(&self) {
        let Some(line) = self.first() else { return };
        let has_settled = || {
            let mut line = line.lock();
            if !line.tape.was_cut {
                line.plan = None;
            } else if let Some(client) = &line.client {
                drop(client.shutdown(Shutdown::Write));
            } else {
                return line.pumps < 2;
            }
            true
        };
        common::eventually("the reader lets go of the client's socket", has_settled);
    }

    /// Waits until both ends of every connection are over: whatever the server still had to read, it has read.
    pub(crate) fn wait_over(&self) {
        let until = common::now() + common::PATIENCE;
        let mut running = self.shared.running.lock();
        while *running > 0 {
            assert!(!self.shared.ended.wait_until(&mut running, until).timed_out(), "a connection does not end");
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn connect(self: &Arc<Self>, client: TcpStream, port: u16) {
        let server = Arc::new(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap());
        client.set_nodelay(true).unwrap();
        server.set_nodelay(true).unwrap();
        let client = Arc::new(client);
        let plan = self.first_plan.lock().take();
        let tape = Tape::default();
        let mut line = Line { tape, plan, mark: (0, 0), client: Some(Arc::clone(&client)), pumps: 2 };
        if plan.is_some_and(|plan| plan.after == 0) {
            line.cut();
        }
        let line = Arc::new(Mutex::new(line));
        self.lines.lock().push(Arc::clone(&line));
        *self.running.lock() += 1;
        let pump = |direction, from: Arc<TcpStream>, to: Option<Arc<TcpStream>>| {
            let (shared, line) = (Arc::clone(self), Arc::clone(&line));
            thread::spawn(move || {
                carry(&line, direction, &from, to.as_deref());
                drop((from, to));
                shared.leave(line.lock());
            })
        };
        // Only the thread that reads from the client, and the line, hold the client's socket: RST is sent when both have let go.
        drop(pump(Direction::FromServer, Arc::clone(&server), None));
        drop(pump(Direction::FromClient, client, Some(server)));
    }

    fn leave(&self, mut line: MutexGuard<'_, Line>) {
        line.pumps -= 1;
        if line.pumps == 0 {
            line.client = None;
            *self.running.lock() -= 1;
            self.ended.notify_all();
        }
    }
}

/// Carries bytes until `from` ends. The line is locked while they pass, so that their order on the tape is that on the wire.
fn carry(line: &Mutex<Line>, direction: Direction, mut from: &TcpStream, to: Option<&TcpStream>) {
    let mut buffer = [0; 16_384];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let mut line = line.lock();
        let (passes, ends) = line.admit(direction, read);
        let Line { tape, client, .. } = &mut *line;
        // What cannot be delivered any more is lost, as on any wire; the other pump sees the end.
        match direction {
            Direction::FromClient => {
                if !std::mem::replace(&mut tape.last_was_client, true) {
                    tape.turns.push((tape.from_client.len(), tape.to_client.len()));
                }
                tape.from_client.extend_from_slice(&buffer[..read]);
                drop(to.map(|mut to| to.write_all(&buffer[..passes])));
            }
            Direction::FromServer if passes > 0 => {
                tape.last_was_client = false;
                tape.to_client.extend_from_slice(&buffer[..passes]);
                drop(client.as_deref().map(|mut client| client.write_all(&buffer[..passes])));
            }
            Direction::FromServer => {}
        }
        if ends {
            line.cut();
            if line.client.is_none() && direction == Direction::FromClient {
                break;
            }
        }
    }
    let line = line.lock();
    match (direction, to) {
        (_, Some(server)) => drop(server.shutdown(Shutdown::Write)),
        _ if line.tape.was_cut => {}
        _ => drop(line.client.as_deref().map(|client| client.shutdown(Shutdown::Write))),
    }
}
