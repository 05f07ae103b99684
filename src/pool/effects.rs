//! What was decided under the lock, to be carried out after it.

use std::sync::Arc;
use std::time::Duration;

use crate::endpoint::HostId;
use crate::pool::connector::Close;
use crate::pool::held::Held;
use crate::pool::levels::Changes;
use crate::pool::slot::{Gift, Slot};
use crate::stats::DiscardReason;

/// Decisions in waiting. Making an empty one does not allocate.
#[derive(Debug)]
pub(super) struct Effects<T> {
    /// For whom, and what.
    pub(super) gifts: Vec<(Arc<Slot<T>>, Gift<T>)>,
    /// Who is to ask how long to sleep.
    pub(super) nudge: Option<Arc<Slot<T>>>,
    /// To be closed; each place is counted as `closing` until it has been.
    pub(super) closings: Vec<(Held<T>, Close)>,
    /// To be told to observers.
    pub(super) events: Vec<Event>,
    /// The same, of what observers alone are told and not the log.
    pub(super) changes: Changes,
    /// Whether the maintenance thread is to wake.
    pub(super) ring: bool,
}

impl<T> Effects<T> {
    pub(super) const fn new() -> Self {
        Self {
            gifts: Vec::new(),
            nudge: None,
            closings: Vec::new(),
            events: Vec::new(),
            changes: Changes::NONE,
            ring: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.is_nothing_but_changes() && self.changes.are_none()
    }

    /// Whether nothing is to be done but to tell of changes.
    pub(super) fn is_nothing_but_changes(&self) -> bool {
        self.gifts.is_empty()
            && self.nudge.is_none()
            && self.closings.is_empty()
            && self.events.is_empty()
            && !self.ring
    }
}

/// Something operators may want to know about.
#[derive(Debug)]
pub(super) enum Event {
    /// A connection is ready.
    Opened { host: HostId, id: u64, took: Duration },
    /// A connection's life is over.
    Discarded { host: HostId, id: u64, messages: u32, lived: Duration, reason: DiscardReason },
    /// A connection could not be opened.
    OpenFailed { host: HostId, id: u64, took: Duration, error: Arc<str> },
    /// No connection to this host is opened for so long.
    CooldownEntered { host: HostId, pause: Duration, failures: u32 },
    /// The host works again.
    CooldownLeft { host: HostId },
    /// The host takes no more connections than it has.
    CapacityLearned { host: HostId, connections: usize },
    /// The host ends connections that are silent for longer.
    IdleLimitLearned { host: HostId, limit: Duration },
    /// The host takes no more messages than these over one connection.
    MessageLimitLearned { host: HostId, messages: u32 },
    /// A call passed the host by because of its cooldown.
    ReconnectSuppressed { host: HostId },
}
