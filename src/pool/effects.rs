//! What was decided under the lock, to be carried out after it.

use std::sync::Arc;
use std::time::Duration;

use crate::endpoint::HostId;
use crate::pool::connector::Close;
use crate::pool::held::Held;
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
    /// To be told to operators.
    pub(super) events: Vec<Event>,
    /// Whether the maintenance thread is to wake.
    pub(super) ring: bool,
}

impl<T> Effects<T> {
    pub(super) const fn new() -> Self {
        Self { gifts: Vec::new(), nudge: None, closings: Vec::new(), events: Vec::new(), ring: false }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.gifts.is_empty()
            && self.nudge.is_none()
            && self.closings.is_empty()
            && self.events.is_empty()
            && !self.ring
    }
}

/// Something operators may want to read about.
#[derive(Debug)]
pub(super) enum Event {
    /// A connection is ready.
    Opened { host: HostId, id: u64 },
    /// A connection's life is over.
    Discarded { host: HostId, id: u64, messages: u32, reason: DiscardReason },
    /// A connection could not be opened.
    OpenFailed { host: HostId, error: Arc<str> },
    /// No connection to this host is opened for so long.
    CooldownEntered { host: HostId, pause: Duration },
    /// The host works again.
    CooldownLeft { host: HostId },
    /// The host takes no more connections than it has.
    CapacityLearned { host: HostId, connections: usize },
    /// The host ends connections that are silent for longer.
    SilenceLimitLearned { host: HostId, limit: Duration },
}
