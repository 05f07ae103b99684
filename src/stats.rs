//! What a pool counts.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::endpoint::Endpoint;

/// How many connections a pool has, and what they are doing, at one moment.
///
/// `total` is `idle + leased + connecting` and never exceeds `max_size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PoolCounts {
    /// The hard bound on `total`.
    pub max_size: usize,
    /// Live connections, those being opened included.
    pub total: usize,
    /// Connections ready and lent to nobody.
    pub idle: usize,
    /// Connections lent to a caller.
    pub leased: usize,
    /// Connections being opened.
    pub connecting: usize,
    /// Callers waiting for a connection.
    pub waiting: usize,
}

impl fmt::Display for PoolCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { max_size, total, idle, leased, connecting, waiting } = self;
        write!(
            f,
            "max_size={max_size} total={total} idle={idle} leased={leased} connecting={connecting} waiting={waiting}"
        )
    }
}

/// Why a pool closed a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DiscardReason {
    /// It failed in use, or was not provably in step any more.
    Broken,
    /// It was idle for `idle_timeout`.
    IdleTimeout,
    /// It reached `max_lifetime`.
    MaxLifetime,
    /// It carried as many messages as it may, or had too many refused in a row.
    MaxMessages,
    /// A keepalive probe failed.
    KeepaliveFailure,
    /// The server had ended it while it was idle, or said that it was closing.
    ServerClosed,
    /// The server asked for authentication again on a live session.
    AuthFailure,
    /// It was opened with credentials that have been rotated since.
    CredentialsRotated,
    /// It made room for a connection to a preferred host.
    Evicted,
    /// The pool was shut down.
    Shutdown,
}

impl DiscardReason {
    /// Every reason, in the order of [`DiscardCounts`].
    pub(crate) const ALL: [Self; 10] = [
        Self::Broken,
        Self::IdleTimeout,
        Self::MaxLifetime,
        Self::MaxMessages,
        Self::KeepaliveFailure,
        Self::ServerClosed,
        Self::AuthFailure,
        Self::CredentialsRotated,
        Self::Evicted,
        Self::Shutdown,
    ];

    /// The reason as a label: `broken`, `idle_timeout`, …
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Broken => "broken",
            Self::IdleTimeout => "idle_timeout",
            Self::MaxLifetime => "max_lifetime",
            Self::MaxMessages => "max_messages",
            Self::KeepaliveFailure => "keepalive_failure",
            Self::ServerClosed => "server_closed",
            Self::AuthFailure => "auth_failure",
            Self::CredentialsRotated => "credentials_rotated",
            Self::Evicted => "evicted",
            Self::Shutdown => "shutdown",
        }
    }
}

impl fmt::Display for DiscardReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How many connections were closed for each reason since the pool was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiscardCounts([u64; DiscardReason::ALL.len()]);

impl DiscardCounts {
    pub(crate) const fn add(&mut self, reason: DiscardReason) {
        self.0[reason as usize] += 1;
    }

    /// How many were closed for `reason`.
    #[must_use]
    pub const fn of(&self, reason: DiscardReason) -> u64 {
        self.0[reason as usize]
    }

    /// How many were closed in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Each reason with its count.
    pub fn iter(&self) -> impl Iterator<Item = (DiscardReason, u64)> + '_ {
        DiscardReason::ALL.into_iter().map(|reason| (reason, self.of(reason)))
    }
}

/// Whether connections to a host may be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostState {
    /// Connections may be opened.
    Available,
    /// Opening a connection failed lately; none is tried until then.
    CoolingDown {
        /// When the cooldown ends.
        until: Instant,
    },
    /// The cooldown has ended and one caller is trying.
    Probing,
}

/// One host's part of a [`PoolStatus`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostStatus {
    /// Where the host is.
    pub endpoint: Endpoint,
    /// Whether connections to it may be opened.
    pub state: HostState,
    /// Its idle connections.
    pub idle: usize,
    /// Its connections lent to callers.
    pub leased: usize,
    /// Its connections being opened.
    pub connecting: usize,
    /// Failures to open a connection since the last success.
    pub consecutive_failures: u32,
    /// Connections opened since the pool was built.
    pub created: u64,
    /// The bound on connections in force: the configured or the learned one, whichever is lower.
    pub connection_limit: Option<usize>,
    /// The bound on messages a connection, learned from this server's refusals.
    pub learned_message_limit: Option<u32>,
    /// Text of the last failure to open a connection, until one succeeds.
    pub last_error: Option<Arc<str>>,
}

/// One consistent picture of a pool, taken under its lock.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStatus {
    /// Connections and waiters now.
    pub counts: PoolCounts,
    /// The hosts, in the order in which they were configured.
    pub hosts: Vec<HostStatus>,
    /// Connections opened since the pool was built.
    pub created: u64,
    /// Attempts to open a connection that failed.
    pub create_failures: u64,
    /// Connections closed, by reason.
    pub discarded: DiscardCounts,
    /// Calls that waited for a connection until their deadline.
    pub exhausted: u64,
    /// Whether the pool has been shut down.
    pub is_shut_down: bool,
    /// How long the pool has existed.
    pub uptime: Duration,
}
