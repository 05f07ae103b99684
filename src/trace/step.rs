//! One line of a trace.

use std::fmt;
use std::time::Duration;

use crate::endpoint::{Endpoint, HostId};

use super::event::TraceEvent;
use super::table::Short;

/// A step as it is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    at: Nanos,
    took: Nanos,
    host: Option<u16>,
    pub(super) event: TraceEvent,
}

impl Entry {
    pub(super) fn new(at: Duration, took: Option<Duration>, host: Option<HostId>, event: TraceEvent) -> Self {
        let host = host.and_then(|host| u16::try_from(host.0).ok());
        Self { at: Nanos::of(at), took: took.map_or(Nanos::UNKNOWN, Nanos::of), host, event }
    }
}

/// A duration in half the room of one, because every receipt has some of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Nanos(u64);

impl Nanos {
    const UNKNOWN: Self = Self(u64::MAX);

    /// Five centuries at most.
    fn of(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX - 1))
    }

    fn known(self) -> Option<Duration> {
        (self != Self::UNKNOWN).then(|| Duration::from_nanos(self.0))
    }
}

/// One step of a [`Trace`](super::Trace).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceStep<'a> {
    at: Duration,
    took: Option<Duration>,
    endpoint: Option<&'a Endpoint>,
    event: TraceEvent,
}

impl<'a> TraceStep<'a> {
    pub(super) fn new(entry: &Entry, hosts: &'a [Endpoint]) -> Self {
        let Entry { at: Nanos(at), took, host, event } = *entry;
        let (at, took) = (Duration::from_nanos(at), took.known());
        Self { at, took, endpoint: host.and_then(|host| hosts.get(usize::from(host))), event }
    }

    /// When the step was over, counted from the start of the call.
    #[must_use]
    pub const fn at(&self) -> Duration {
        self.at
    }

    /// How long it took, where that is known: it began at [`at`](Self::at) less this.
    #[must_use]
    pub const fn took(&self) -> Option<Duration> {
        self.took
    }

    /// The host it was about, if it was about one.
    #[must_use]
    pub const fn endpoint(&self) -> Option<&'a Endpoint> {
        self.endpoint
    }

    /// What happened.
    #[must_use]
    pub const fn event(&self) -> TraceEvent {
        self.event
    }
}

impl fmt::Display for TraceStep<'_> {
    /// `after 2.1 s: mail.example.com:587 connected over TLS 1.3 as connection #7 (310 ms)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {}: ", Short(self.at))?;
        if let Some(endpoint) = self.endpoint {
            write!(f, "{endpoint} ")?;
        }
        self.event.fmt(f)?;
        match self.took {
            Some(took) => write!(f, " ({})", Short(took)),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for TraceStep<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, took, endpoint, event } = self;
        f.debug_struct("TraceStep")
            .field("at", at)
            .field("took", took)
            .field("endpoint", endpoint)
            .field("event", event)
            .finish()
    }
}
