//! The one place of this module that reads the time.

use std::time::{Duration, Instant};

/// The point in time `after` from now; far away instead of an overflow.
#[expect(clippy::disallowed_methods, reason = "this module imports nothing of the crate, its clock included")]
pub(super) fn deadline(after: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(after).unwrap_or_else(|| now + Duration::from_secs(86_400 * 365))
}
