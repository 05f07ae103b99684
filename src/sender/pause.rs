//! A wait that ends early when the sender does, or when its caller cancels.

use std::sync::Arc;

use crate::cancel::CancelToken;
use crate::clock::Deadline;
use crate::sync::{Condvar, Mutex};

/// Where callers wait between two attempts.
#[derive(Debug, Default)]
pub(super) struct Pause {
    ended: Mutex<bool>,
    changed: Condvar,
}

impl Pause {
    /// Waits until `deadline`, or until the sender ends, or until `cancel` is cancelled.
    pub(super) fn until(self: &Arc<Self>, deadline: Deadline, cancel: Option<&CancelToken>) {
        let is_cancelled = || cancel.is_some_and(CancelToken::is_cancelled);
        let _registration = cancel.map(|token| {
            let pause = Arc::clone(self);
            token.on_cancel(move || pause.wake())
        });
        let mut ended = self.ended.lock();
        // Both flags are looked at under this lock, and whoever sets one takes it before waking: a waiter either sees the flag or
        // sleeps already when it is woken.
        while !*ended && !is_cancelled() && !self.changed.wait_until(&mut ended, deadline.instant()).timed_out() {}
    }

    /// Lets everyone look again.
    fn wake(&self) {
        drop(self.ended.lock());
        self.changed.notify_all();
    }

    /// Wakes everyone, for good.
    pub(super) fn end(&self) {
        *self.ended.lock() = true;
        self.changed.notify_all();
    }
}
