//! Where one caller waits: exactly one gift is taken out of it, or it is refused while still in the giver's hands.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::Deadline;
use crate::endpoint::HostId;
use crate::lane::Lane;
use crate::pool::errand::HostSet;
use crate::pool::held::Held;
use crate::stats::PoolCounts;
use crate::sync::{Condvar, Mutex};

/// What a lease cost, in the rotation of its tier; taken back if no lease comes of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Charge {
    /// What the chosen host paid: as much as all the others and itself earned.
    pub(super) paid: i64,
    /// Who earned their weight by it.
    pub(super) earners: HostSet,
}

/// The permission to open one connection, as plain data: its place is counted as `connecting`.
#[derive(Debug)]
pub(super) struct Grant<T> {
    pub(super) host: HostId,
    pub(super) id: u64,
    /// The host's credentials when it was given: what is opened has these, or newer ones.
    pub(super) generation: u64,
    /// Whose share of the places it counts against.
    pub(super) lane: Lane,
    /// When to give up, so that there is time left for other hosts.
    pub(super) deadline: Deadline,
    /// When opening began, once it has.
    pub(super) begun: Option<Instant>,
    pub(super) charge: Charge,
    /// Whose place this is: to be closed first.
    // In a box, because it is rare and large.
    pub(super) evicted: Option<Box<Held<T>>>,
}

impl<T> Grant<T> {
    /// How long opening has taken so far.
    pub(super) fn took(&self, now: Instant) -> Duration {
        self.begun.map_or(Duration::ZERO, |begun| now.saturating_duration_since(begun))
    }
}

/// Why nothing is given.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) reason: RefusalReason,
    /// The pool at that moment.
    pub(super) counts: PoolCounts,
}

#[derive(Debug)]
pub(super) enum RefusalReason {
    /// The deadline passed.
    Exhausted,
    /// No host can serve in time.
    Unavailable { retry_after: Option<Duration>, last_error: Option<(HostId, Arc<str>)> },
    /// This machine ran out of something.
    Local,
    /// The caller wants nothing any more.
    Cancelled,
    /// The pool is closed.
    ShutDown,
}

/// What a caller gets from the pool.
#[derive(Debug)]
pub(super) enum Gift<T> {
    /// An idle connection; its place is counted as `leased`.
    Connection(Held<T>, Charge),
    /// The permission to open one.
    Permit(Grant<T>),
    /// Neither.
    Refusal(Refusal),
}

#[derive(Debug)]
enum SlotState<T> {
    /// The caller sleeps, or is about to.
    Waiting,
    /// The same, but it is to ask the pool how long.
    Nudged,
    /// The caller is to leave.
    Cancelled,
    /// The gift is there, and the caller's.
    Granted(Gift<T>),
    /// The caller has gone: out of time, or with its gift.
    Gone,
}

/// Where one caller waits. Its lock is never held together with any other.
#[derive(Debug)]
pub(super) struct Slot<T> {
    state: Mutex<SlotState<T>>,
    changed: Condvar,
}

/// Why a sleep ended.
#[derive(Debug)]
pub(super) enum Woken<T> {
    Granted(Gift<T>),
    Nudged,
    Cancelled,
    /// It is that late.
    Time,
}

impl<T> Slot<T> {
    pub(super) const fn new() -> Self {
        Self { state: Mutex::new(SlotState::Waiting), changed: Condvar::new() }
    }

    /// Hands a gift over. Returned, it is to be passed on: the caller has gone.
    #[must_use]
    // Proof: both this and `give_up` decide under the slot's lock, so that either the caller has the gift or the giver.
    pub(super) fn give(&self, gift: Gift<T>) -> Option<Gift<T>> {
        let mut state = self.state.lock();
        match *state {
            SlotState::Waiting | SlotState::Nudged => {
                *state = SlotState::Granted(gift);
                drop(state);
                self.changed.notify_one();
                None
            }
            SlotState::Granted(_) | SlotState::Cancelled | SlotState::Gone => {
                drop(state);
                Some(gift)
            }
        }
    }

    /// Makes the caller ask the pool how long to sleep.
    // Proof: the mark stays until the caller has seen it, so that it does not matter whether it sleeps already.
    pub(super) fn nudge(&self) {
        let mut state = self.state.lock();
        if matches!(*state, SlotState::Waiting) {
            *state = SlotState::Nudged;
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Makes the caller leave. No gift is taken any more; one that is there already stays, and the caller passes it on.
    // Proof: the mark stays until the caller has seen it, so that it does not matter whether it sleeps already.
    pub(super) fn cancel(&self) {
        let mut state = self.state.lock();
        if matches!(*state, SlotState::Waiting | SlotState::Nudged) {
            *state = SlotState::Cancelled;
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Sleeps until there is a gift, a nudge or a cancellation, or it is `until`.
    // Proof: the state is looked at and the sleep begun under one lock, so that no change falls in between.
    pub(super) fn sleep(&self, until: Instant) -> Woken<T> {
        let mut state = self.state.lock();
        self.changed.wait_while_until(&mut state, |state| matches!(state, SlotState::Waiting), until);
        let found = mem::replace(&mut *state, SlotState::Waiting);
        if matches!(found, SlotState::Granted(_) | SlotState::Cancelled | SlotState::Gone) {
            *state = SlotState::Gone;
        }
        drop(state);
        match found {
            SlotState::Granted(gift) => Woken::Granted(gift),
            SlotState::Nudged => Woken::Nudged,
            SlotState::Cancelled => Woken::Cancelled,
            SlotState::Waiting | SlotState::Gone => Woken::Time,
        }
    }

    /// Leaves; with the gift, if it has come.
    pub(super) fn give_up(&self) -> Option<Gift<T>> {
        let found = mem::replace(&mut *self.state.lock(), SlotState::Gone);
        match found {
            SlotState::Granted(gift) => Some(gift),
            SlotState::Waiting | SlotState::Nudged | SlotState::Cancelled | SlotState::Gone => None,
        }
    }
}
