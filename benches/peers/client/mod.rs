//! The peers: each sends messages in its own way, all of them the same ones to the same server.

mod lettre_peers;
mod pooled;
mod raw;
mod smtp_source;

use std::thread;
use std::time::Duration;

use crate::clock;
use crate::paired::Contestant;

pub use lettre_peers::{Manager, Opener};
use raw::{Dialogue, RawClient};

/// Whom to send to.
#[derive(Debug, Clone)]
pub struct Server {
    pub port: u16,
    /// The certificate to trust, of a server that is spoken to by STARTTLS.
    pub ca: Option<Vec<u8>>,
}

impl Server {
    pub const fn plain(port: u16) -> Self {
        Self { port, ca: None }
    }

    pub const fn starttls(port: u16, ca: Vec<u8>) -> Self {
        Self { port, ca: Some(ca) }
    }

    /// The name its certificate has, or the address where there is none.
    pub const fn name(&self) -> &'static str {
        if self.ca.is_some() { "localhost" } else { "127.0.0.1" }
    }
}

/// What to send, and over how many connections.
#[derive(Debug, Clone)]
pub struct Load {
    pub server: Server,
    pub connections: usize,
    pub size: usize,
    pub recipients: usize,
}

impl Load {
    pub const fn new(server: Server, connections: usize, size: usize) -> Self {
        Self { server, connections, size, recipients: 1 }
    }
}

/// Every peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// This crate.
    Pool,
    /// This crate with `single_round_trip`: a small message leaves in one write where the server offers CHUNKING.
    PoolAtOnce,
    /// The limit: two writes and two waits for a message, and nothing else.
    RawPipelining,
    /// The limit for a client that has to know what became of the message: the same, with looks at the connection, deadlines, content that
    /// is checked, and replies that are kept.
    RawCareful,
    /// The limit of the first: one write and one wait, by BDAT.
    RawAtOnce,
    /// One command at a time with `TCP_NODELAY`, body and dot in one write: what a client without a pool's checks and without
    /// pipelining can reach.
    RawSequential,
    /// lettre's own pool.
    LettrePool,
    /// lettre's connections under an `r2d2::Pool`.
    R2d2,
    /// A connection of lettre's for each message.
    LettreEach,
    /// The C program that comes with Postfix.
    SmtpSource,
}

impl Peer {
    /// Those that need nothing special of a server.
    pub const ALL: [Self; 8] = [
        Self::Pool,
        Self::RawPipelining,
        Self::RawCareful,
        Self::RawSequential,
        Self::SmtpSource,
        Self::R2d2,
        Self::LettrePool,
        Self::LettreEach,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Pool => "smtp-pool",
            Self::PoolAtOnce => "smtp-pool, single_round_trip",
            Self::RawPipelining => "bare pipelining loop",
            Self::RawCareful => "bare careful loop",
            Self::RawAtOnce => "bare BDAT loop",
            Self::RawSequential => "bare sequential loop",
            Self::LettrePool => "lettre 0.11.23, its pool",
            Self::R2d2 => "lettre 0.11.23 under r2d2",
            Self::LettreEach => "lettre 0.11.23, a connection each",
            Self::SmtpSource => "Postfix smtp-source",
        }
    }

    /// One word, for a command line.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Pool => "pool",
            Self::PoolAtOnce => "pool-at-once",
            Self::RawPipelining => "raw-pipelining",
            Self::RawCareful => "raw-careful",
            Self::RawAtOnce => "raw-at-once",
            Self::RawSequential => "raw-sequential",
            Self::LettrePool => "lettre-pool",
            Self::R2d2 => "r2d2",
            Self::LettreEach => "lettre-each",
            Self::SmtpSource => "smtp-source",
        }
    }

    pub fn of_key(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|peer| peer.key() == key)
    }

    /// Connects it; `None` if it cannot do what is asked for.
    pub fn connect(self, load: &Load) -> Option<Box<dyn Contestant>> {
        Some(match self {
            Self::Pool => Box::new(pooled::Pooled::new(load)),
            Self::PoolAtOnce => Box::new(pooled::Pooled::at_once(load)?),
            Self::RawPipelining => Box::new(RawClient::connect(load, Dialogue::Pipelining)),
            Self::RawCareful => Box::new(RawClient::connect(load, Dialogue::Careful)),
            Self::RawAtOnce => Box::new(RawClient::connect(load, Dialogue::AtOnce)),
            Self::RawSequential => Box::new(RawClient::connect(load, Dialogue::Sequential)),
            Self::LettrePool => Box::new(lettre_peers::LettrePool::new(load)),
            Self::R2d2 => Box::new(lettre_peers::R2d2::new(load)),
            Self::LettreEach => Box::new(lettre_peers::ConnectionEach::new(load)),
            Self::SmtpSource if load.server.ca.is_none() => Box::new(smtp_source::SmtpSource::new(load)),
            Self::SmtpSource => return None,
        })
    }
}

/// Connects all of them that can.
pub fn connect_all(peers: &[Peer], load: &Load) -> Vec<Box<dyn Contestant>> {
    peers.iter().filter_map(|peer| peer.connect(load)).collect()
}

/// Times `threads` callers that share `amount` calls evenly. One caller is the thread that asks.
fn timed_calls(threads: usize, amount: usize, call: impl Fn() + Sync) -> Duration {
    let started = clock::now();
    if threads == 1 {
        (0..amount).for_each(|_| call());
    } else {
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| (0..amount / threads).for_each(|_| call()));
            }
        });
    }
    clock::now() - started
}
