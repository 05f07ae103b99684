//! When a transaction gives up.

use std::time::{Duration, Instant};

use crate::clock::Deadline;

/// When to give up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeLimits {
    /// When the first command leaves.
    pub(super) begins: Instant,
    /// Everything before the last byte.
    pub(super) send_by: Deadline,
    /// The last moment at which writing the last byte is still worth it, if there is one.
    pub(super) commit_by: Option<Instant>,
    /// The last byte and the answer to it.
    pub(super) final_reply: Duration,
    /// The caller's own deadline, which caps all of them.
    pub(super) caller: Option<Deadline>,
}

/// Of the time from a call to its deadline, the part that must be left for the answer to the last byte, and its upper bound.
const COMMIT_SHARE: u32 = 10;
const COMMIT_FLOOR: Duration = Duration::from_secs(10);

impl TimeLimits {
    /// The limits of a message whose call began at `started` and whose first command leaves at `begins`.
    pub(crate) fn new(
        started: Instant,
        caller: Option<Deadline>,
        begins: Instant,
        send: Duration,
        final_reply: Duration,
    ) -> Self {
        let send_by = Deadline::at(begins, send);
        let commit_by = caller.map(|caller| {
            let floor = (caller.remaining_at(started) / COMMIT_SHARE).min(COMMIT_FLOOR);
            caller.instant().checked_sub(floor).unwrap_or(started)
        });
        let send_by = caller.map_or(send_by, |caller| caller.earlier(send_by));
        Self { begins, send_by, commit_by, final_reply, caller }
    }
}
