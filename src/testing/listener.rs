//! The accepting thread, and the port it listens on.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use socket2::{Domain, SockAddr, Socket, Type};

use super::connection::Connection;
use super::store::Shared;
use super::wire::{Link, Look};

/// How long a connection with unread input may take to show whether it is at its end, before it counts as live.
const SETTLING: Duration = Duration::from_millis(100);
const SETTLING_SLICES: u32 = 50;

pub(super) type Threads = Arc<Mutex<Vec<JoinHandle<()>>>>;

/// A bound port that stays ours while nobody listens on it.
pub(super) struct Port {
    pub(super) addr: SocketAddr,
    _reserved: Option<Socket>,
}

pub(super) struct Listener {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Port {
    /// A free port and a socket listening on it.
    pub(super) fn bind(buffers: Option<usize>) -> io::Result<(Self, TcpListener)> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        // On Linux a second socket, bound but never listening, keeps other programs off the port during a pause, while
        // connecting to it is still refused.
        let reserved = if cfg!(target_os = "linux") { Some(bound(any)?) } else { None };
        let addr = match &reserved {
            Some(socket) => socket.local_addr()?.as_socket().unwrap_or(any),
            None => any,
        };
        let listener = listen(addr, buffers)?;
        Ok((Self { addr: listener.local_addr()?, _reserved: reserved }, listener))
    }

    pub(super) fn listen_again(&self, buffers: Option<usize>) -> io::Result<TcpListener> {
        listen(self.addr, buffers)
    }
}

fn bound(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    #[cfg(target_os = "linux")]
    socket.set_reuse_port(true)?;
    socket.bind(&SockAddr::from(addr))?;
    Ok(socket)
}

fn listen(addr: SocketAddr, buffers: Option<usize>) -> io::Result<TcpListener> {
    let socket = bound(addr)?;
    if let Some(bytes) = buffers {
        // Before listen(): the window's scale is agreed on in the handshake.
        socket.set_recv_buffer_size(bytes)?;
        socket.set_send_buffer_size(bytes)?;
    }
    socket.listen(1024)?;
    Ok(socket.into())
}

impl Listener {
    pub(super) fn spawn(listener: TcpListener, shared: Arc<Shared>, threads: Threads) -> io::Result<Self> {
        let addr = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let accept = move || {
            for socket in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                // Accepting fails when a client gave up early or descriptors ran out; both pass.
                if let Ok(socket) = socket {
                    admit(socket, &shared, &threads);
                }
            }
        };
        let thread = std::thread::Builder::new().name("smtp-test-accept".to_owned()).spawn(accept)?;
        Ok(Self { addr, stop, thread })
    }

    /// Closes the listening socket. Returns when it is closed.
    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread. A full backlog refuses us, but then the thread is awake anyway.
        drop(TcpStream::connect_timeout(&self.addr, Duration::from_millis(200)));
        let _ = self.thread.join();
    }
}

fn admit(socket: TcpStream, shared: &Arc<Shared>, threads: &Threads) {
    let limit = shared.config.max_connections;
    let live = live_connections(shared);
    let refused = limit.is_some_and(|limit| live >= limit);
    let socket = Arc::new(socket);
    let mut state = shared.state.lock();
    let number = state.links.len() + 1;
    let record = shared.config.record;
    let link = Link::new(number, Arc::clone(&socket), state.script.server_cut(number), record, refused);
    let link = Arc::new(link);
    let client_cut = state.script.client_cut(number);
    state.links.push(Arc::clone(&link));
    state.snapshot.accepted += 1;
    state.snapshot.open += 1;
    if !refused {
        state.peak = state.peak.max(live + 1);
    }
    drop(state);
    shared.changed.notify_all();
    let connection = Connection::new(Arc::clone(shared), link, socket, client_cut);
    let thread = std::thread::Builder::new().name(format!("smtp-test-{number}"));
    // Without a thread the connection is dropped, which closes it.
    if let Ok(thread) = thread.spawn(move || connection.run()) {
        let mut threads = threads.lock();
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
    }
}

/// Connections the client still holds open.
///
/// A client may close one connection and open the next before our thread has noticed the first one's end: that one must
/// not count, or a pool that keeps to its limit would seem to break it. So each is looked at, and one with unread input
/// (a QUIT, perhaps, with FIN behind it) gets a moment to be read.
fn live_connections(shared: &Shared) -> usize {
    let mut candidates: Vec<Arc<Link>> = {
        let state = shared.state.lock();
        let limit = shared.config.max_connections.unwrap_or(usize::MAX).min(state.peak);
        if state.snapshot.open < limit {
            // Neither the limit nor the peak is near.
            return state.snapshot.open;
        }
        state.links.iter().filter(|link| !link.refused && !link.closed.load(Ordering::SeqCst)).cloned().collect()
    };
    // What was seen closed once stays so; all else gets another look, in
    // slices, because not every change of a connection is signalled.
    for _ in 0..SETTLING_SLICES {
        let settled = shared.wait(SETTLING / SETTLING_SLICES, |_| {
            let mut busy = false;
            candidates.retain(|link| {
                let look = link.look();
                busy |= look == Look::Busy;
                look != Look::Closed
            });
            !busy
        });
        if settled {
            break;
        }
    }
    candidates.len()
}
