//! A connection together with what the pool remembers of it.

use std::time::{Duration, Instant};

use crate::endpoint::HostId;
use crate::lane::Lane;

/// What the pool remembers of one connection. Whoever has the record answers for the connection's place.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) host: HostId,
    pub(super) id: u64,
    /// Which of the host's credentials it was opened with, counted by their rotations; the older ones, if they were rotated meanwhile.
    pub(super) generation: u64,
    pub(super) opened: Instant,
    /// When it has lived long enough; drawn when it was opened, so that connections opened together do not end together.
    pub(super) retire_at: Option<Instant>,
    pub(super) messages: u32,
    /// What the server announced for this connection.
    pub(super) message_limit: Option<u32>,
    /// When it was last put away after use; none if it never was.
    pub(super) idle_since: Option<Instant>,
    /// When a probe last showed that it was alive.
    pub(super) probed: Option<Instant>,
    /// Probes since it last carried a message.
    pub(super) probes: u32,
    /// When it was last lent, or taken out to be probed.
    pub(super) lent: Instant,
    /// Whose share of the places it counts against, while it is lent.
    pub(super) lane: Lane,
}

impl Record {
    /// Whether it has lived long enough.
    pub(super) fn is_old(&self, now: Instant) -> bool {
        self.retire_at.is_some_and(|at| at <= now)
    }

    /// When it may not be lent any more, if it stays idle until then.
    pub(super) fn expiry(&self, idle_timeout: Option<Duration>, silence: Option<Duration>) -> Option<Instant> {
        earlier(self.rest_ends(idle_timeout, silence), self.retire_at)
    }

    /// When it will have been idle for as long as it may be, or silent for as long as its server puts up with.
    pub(super) fn rest_ends(&self, idle_timeout: Option<Duration>, silence: Option<Duration>) -> Option<Instant> {
        let until = |from: Instant, time: Option<Duration>| from.checked_add(time?);
        earlier(until(self.idle_from(), idle_timeout), until(self.silent_from(), silence))
    }

    /// It has carried one more message.
    pub(super) const fn note_delivered(&mut self) {
        self.messages = self.messages.saturating_add(1);
        self.probes = 0;
    }

    /// Since when nobody has used it.
    pub(super) fn idle_from(&self) -> Instant {
        self.idle_since.unwrap_or(self.opened)
    }

    /// How long nothing had been heard of it when it was last lent or probed.
    pub(super) fn silence(&self) -> Duration {
        self.lent.saturating_duration_since(self.silent_from())
    }

    /// Since when nothing has been heard of it.
    pub(super) fn silent_from(&self) -> Instant {
        self.probed.map_or(self.idle_from(), |probed| probed.max(self.idle_from()))
    }
}

/// The earlier of two moments, where either may never come.
pub(super) fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// A connection in the pool's hands.
#[derive(Debug)]
pub(super) struct Held<T> {
    pub(super) connection: T,
    /// In a box, so that a connection goes from hand to hand without its past being copied.
    pub(super) record: Box<Record>,
}
