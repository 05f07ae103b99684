//! Connections in memory. What stands in for `smtp/socket.rs`, and the network behind it.
//!
//! Bytes take time, room for them is bounded, and a connection may be cut at any byte: by a FIN, by a RST, or by silence, which is
//! what a lost route is. The network writes down every attempt to connect and every byte that was offered to it, so that it can bear
//! witness against either end.

mod link;

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cancel::CancelToken;

use super::primitives::{Condvar, Mutex, spawn};
use super::world::here;

use self::link::Link;
#[cfg(test)]
pub(crate) use self::link::{Cut, How, ROOM};
pub(crate) use self::link::{Socket, Weather, acknowledge, cut_on_drop, peek_without_waiting, prepare};

/// Longer than anything waits.
const LONG: Duration = Duration::from_secs(100_000);

/// The network of one world.
#[derive(Default)]
pub(crate) struct Network {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    hosts: BTreeMap<IpAddr, Arc<dyn Host>>,
    attempts: Vec<Attempt>,
    links: Vec<Arc<Link>>,
    /// Nothing is cut any more, and there is room.
    is_calm: bool,
}

/// What answers at an address.
pub(crate) trait Host: Send + Sync {
    /// Somebody connects.
    fn answer(&self) -> Answer;
}

/// What becomes of an attempt to connect.
pub(crate) enum Answer {
    Refused,
    /// Nothing comes back.
    Silence,
    /// A connection, and what is done at its other end.
    Accepted(Weather, Box<dyn FnOnce(Socket) + Send>),
}

/// An attempt to connect, as the network saw it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt {
    pub(crate) to: IpAddr,
    pub(crate) started: Instant,
    /// None while it is under way.
    pub(crate) ended: Option<(Instant, Outcome)>,
    /// When its client let go of the connection.
    pub(crate) closed: Option<Instant>,
    /// Those to the same host, and to all hosts, that were not over when it began; itself included.
    pub(crate) live: (usize, usize),
}

/// What an attempt to connect came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Open,
    Refused,
    TimedOut,
    Cancelled,
}

impl Attempt {
    fn is_live(&self) -> bool {
        match self.ended {
            None => true,
            Some((_, outcome)) => outcome == Outcome::Open && self.closed.is_none(),
        }
    }
}

impl Network {
    fn is_calm(&self) -> bool {
        self.state.lock().is_calm
    }

    /// A client has let go of the connection that an attempt came to.
    fn note_closed(&self, attempt: usize, at: Instant) {
        self.state.lock().attempts[attempt].closed = Some(at);
    }
}

fn network() -> Arc<Network> {
    here().expect("the network is part of a world").network()
}

/// Puts a host at an address.
pub(crate) fn listen(address: IpAddr, host: Arc<dyn Host>) {
    network().state.lock().hosts.insert(address, host);
}

/// From now on connections last and have room, those included that were to be cut.
pub(crate) fn calm() {
    network().state.lock().is_calm = true;
}

/// All attempts to connect so far.
pub(crate) fn attempts() -> Vec<Attempt> {
    network().state.lock().attempts.clone()
}

/// How many connections are open at the client's end, or being opened.
pub(crate) fn live() -> usize {
    network().state.lock().attempts.iter().filter(|attempt| attempt.is_live()).count()
}

/// Everything that clients have written, or tried to, connection by connection, whether it arrived or not.
pub(crate) fn offered() -> Vec<Vec<u8>> {
    let links = network().state.lock().links.clone();
    links.iter().map(|link| link.offered()).collect()
}

/// Connects; see `smtp/socket.rs`.
pub(crate) fn connect_to(
    address: SocketAddr,
    _local: Option<IpAddr>,
    timeout: Duration,
    cancel: &[&CancelToken],
) -> io::Result<Socket> {
    let here = here().expect("the network is part of a world");
    let network = here.network();
    let (started, to) = (here.now(), address.ip());
    let (number, host) = {
        let mut state = network.state.lock();
        let of = |host| state.attempts.iter().filter(|attempt| attempt.is_live() && host == attempt.to).count();
        let live = (of(to) + 1, state.attempts.iter().filter(|attempt| attempt.is_live()).count() + 1);
        state.attempts.push(Attempt { to, started, ended: None, closed: None, live });
        (state.attempts.len() - 1, state.hosts.get(&to).cloned())
    };
    let answer = host.map_or(Answer::Silence, |host| host.answer());
    let (after, outcome) = match &answer {
        Answer::Refused => (Duration::from_millis(1), Outcome::Refused),
        Answer::Accepted(weather, _) => (weather.latency * 2, Outcome::Open),
        Answer::Silence => (LONG, Outcome::TimedOut),
    };
    let cancelled = Arc::new((Mutex::new(false), Condvar::new()));
    let registrations = cancel.iter().map(|token| {
        let cancelled = Arc::clone(&cancelled);
        token.on_cancel(move || {
            *cancelled.0.lock() = true;
            cancelled.1.notify_all();
        })
    });
    let registrations: Vec<_> = registrations.collect();
    let is_cancelled = {
        let mut flag = cancelled.0.lock();
        cancelled.1.wait_while_until(&mut flag, |flag| !*flag, started + after.min(timeout));
        *flag
    };
    drop(registrations);
    let outcome = if is_cancelled {
        Outcome::Cancelled
    } else if after > timeout {
        Outcome::TimedOut
    } else {
        outcome
    };
    network.state.lock().attempts[number].ended = Some((here.now(), outcome));
    match (outcome, answer) {
        (Outcome::Open, Answer::Accepted(weather, serve)) => {
            let link = Arc::new(Link::new(weather, number));
            network.state.lock().links.push(Arc::clone(&link));
            let server = Socket::server(&link);
            spawn("server", move || serve(server))?;
            Ok(Socket::client(&link))
        }
        (Outcome::Refused, _) => Err(ErrorKind::ConnectionRefused.into()),
        (Outcome::Cancelled, _) => Err(io::Error::new(ErrorKind::NotConnected, "cancelled")),
        _ => Err(io::Error::new(ErrorKind::TimedOut, "connection timed out")),
    }
}
