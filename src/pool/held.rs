//! A connection together with what the pool remembers of it.

use std::time::{Duration, Instant};

use crate::endpoint::HostId;

/// What the pool remembers of one connection. Whoever has the record answers for the connection's place.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) host: HostId,
    pub(super) id: u64,
    pub(super) opened: Instant,
    /// When it has lived long enough; drawn when it was opened, so that connections opened together do not end together.
    pub(super) retire_at: Option<Instant>,
    pub(super) messages: u32,
    /// What the server announced for this connection.
    pub(super) message_limit: Option<u32>,
    /// When it was last put away; none if it never was.
    pub(super) idle_since: Option<Instant>,
}

impl Record {
    /// Whether it has lived long enough.
    pub(super) fn is_old(&self, now: Instant) -> bool {
        self.retire_at.is_some_and(|at| at <= now)
    }

    /// Whether it has been idle for `timeout`.
    pub(super) fn is_stale(&self, timeout: Option<Duration>, now: Instant) -> bool {
        self.idle_until(timeout).is_some_and(|at| at <= now)
    }

    /// When it may not be lent any more, if it stays idle until then.
    pub(super) fn expiry(&self, idle_timeout: Option<Duration>) -> Option<Instant> {
        match (self.idle_until(idle_timeout), self.retire_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    fn idle_until(&self, timeout: Option<Duration>) -> Option<Instant> {
        self.idle_since.unwrap_or(self.opened).checked_add(timeout?)
    }
}

/// A connection in the pool's hands.
#[derive(Debug)]
pub(super) struct Held<T> {
    pub(super) connection: T,
    pub(super) record: Record,
}
