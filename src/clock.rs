//! The only place that reads the time.
//!
//! Decisions are told the time; they never ask for it. All instants are monotonic: a changed wall clock moves nothing.

use std::time::{Duration, Instant, SystemTime};

/// The monotonic time.
#[expect(clippy::disallowed_methods, reason = "the one door for the monotonic clock")]
pub(crate) fn now() -> Instant {
    #[cfg(simulation)]
    if let Some(now) = crate::simulation::now() {
        return now;
    }
    Instant::now()
}

/// The wall clock, for stamps shown to people; no decision rests on it.
#[expect(clippy::disallowed_methods, reason = "the one door for the wall clock")]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}

/// A point in time after which an operation gives up; absolute, so that retries and partial progress cannot extend it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// The deadline `timeout` from now.
    pub(crate) fn after(timeout: Duration) -> Self {
        Self::at(now(), timeout)
    }

    /// The deadline `timeout` after `start`. One too far away to name is some thirty years off instead.
    pub(crate) fn at(start: Instant, timeout: Duration) -> Self {
        const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
        Self(start.checked_add(timeout).unwrap_or_else(|| start + FAR))
    }

    /// The deadline at this very instant.
    pub(crate) const fn on(instant: Instant) -> Self {
        Self(instant)
    }

    /// The instant itself.
    pub(crate) const fn instant(self) -> Instant {
        self.0
    }

    /// The earlier of the two.
    pub(crate) fn earlier(self, other: Self) -> Self {
        Self(self.0.min(other.0))
    }

    /// What is left; zero once it has passed.
    pub(crate) fn remaining(self) -> Duration {
        self.remaining_at(now())
    }

    /// What is left at `now`; zero once it has passed.
    pub(crate) fn remaining_at(self, now: Instant) -> Duration {
        self.0.saturating_duration_since(now)
    }

    /// Whether it has passed.
    pub(crate) fn is_over(self) -> bool {
        self.remaining().is_zero()
    }
}
