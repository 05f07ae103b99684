//! The clock and the pace of a program that is watched.

use std::thread;
use std::time::{Duration, Instant};

#[expect(clippy::disallowed_methods, reason = "a program of its own")]
pub fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "the pace of the load")]
pub fn pause(time: Duration) {
    thread::sleep(time);
}
