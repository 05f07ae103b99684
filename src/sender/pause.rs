//! A wait that ends early when the sender does.

use crate::clock::Deadline;
use crate::sync::{Condvar, Mutex};

/// Where callers wait between two attempts.
#[derive(Debug, Default)]
pub(super) struct Pause {
    ended: Mutex<bool>,
    changed: Condvar,
}

impl Pause {
    /// Waits until `deadline`, or until the sender ends.
    pub(super) fn until(&self, deadline: Deadline) {
        let mut ended = self.ended.lock();
        // The flag is set under this lock before everyone is woken, so a waiter either sees it or is woken after it.
        while !*ended && !self.changed.wait_until(&mut ended, deadline.instant()).timed_out() {}
    }

    /// Wakes everyone, for good.
    pub(super) fn end(&self) {
        *self.ended.lock() = true;
        self.changed.notify_all();
    }
}
