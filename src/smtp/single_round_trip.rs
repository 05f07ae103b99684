//! Whether a whole message may leave in one write, as far as its host and its session are concerned.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::endpoint::Endpoint;
use crate::event::Event;

/// How long after its last message a session counts as used moments ago.
///
/// A session that died in silence swallows a message that leaves in one write, and its outcome is unknown, where MAIL alone would
/// have found out without harm. The look before the write sees every end that was announced; this is for the rest. It stays below
/// the shortest idle time-out that servers are known for (10 s, Postfix under stress), so that none ends the session in this very
/// moment; the table entries of firewalls live longer.
const MOMENTS: Duration = Duration::from_secs(5);

/// A host whose settings ask for it. All its sessions share what is learned about it.
#[derive(Debug)]
pub(super) struct WillingHost {
    endpoint: Endpoint,
    is_given_up: AtomicBool,
}

impl WillingHost {
    pub(super) const fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, is_given_up: AtomicBool::new(false) }
    }
}

/// A session with such a host whose server offers what it takes.
#[derive(Debug)]
pub(super) struct SingleRoundTrip {
    host: Arc<WillingHost>,
    /// When the session was opened, or was last asked something that it answered.
    used_at: Instant,
}

impl SingleRoundTrip {
    pub(super) const fn new(host: Arc<WillingHost>, opened_at: Instant) -> Self {
        Self { host, used_at: opened_at }
    }

    /// The session is asked something now, and is not lent again before it has answered.
    pub(super) const fn used(&mut self, now: Instant) {
        self.used_at = now;
    }

    /// Whether the session was used moments ago.
    pub(super) fn is_warm(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.used_at) <= MOMENTS
    }

    // The flag is only ever set, and guards nothing but itself: a session that sees it late sends one more message as if that had
    // left a moment earlier. The thread that set it sees it at once.

    /// Whether the host was seen to get it wrong.
    pub(super) fn is_given_up(&self) -> bool {
        self.host.is_given_up.load(Ordering::Relaxed)
    }

    /// The host gets it wrong: no further message goes to it this way.
    pub(super) fn give_up(&self, why: &Event) {
        if !self.host.is_given_up.swap(true, Ordering::Relaxed) {
            let host = &self.host.endpoint;
            log::debug!(
                target: "smtp_pool::host",
                event = "bdat_given_up", host:%, error:% = why;
                "{host}: messages go by DATA from now on, BDAT came to nothing: {why}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::event::{Desync, Step};

    fn session(host: &Arc<WillingHost>, opened_at: Instant) -> SingleRoundTrip {
        SingleRoundTrip::new(Arc::clone(host), opened_at)
    }

    #[test]
    fn a_session_is_warm_for_moments_after_it_was_opened_or_used() {
        let host = Arc::new(WillingHost::new(Endpoint::new("a.example", 25)));
        let opened_at = clock::now();
        let mut session = session(&host, opened_at);
        for (used_at, moment) in [(opened_at, opened_at), (opened_at + MOMENTS * 10, opened_at + MOMENTS * 10)] {
            session.used(used_at);
            assert!(session.is_warm(moment) && session.is_warm(moment + MOMENTS));
            assert!(!session.is_warm(moment + MOMENTS + Duration::from_nanos(1)));
        }
        assert!(MOMENTS < Duration::from_secs(10), "Postfix under stress");
    }

    #[test]
    fn what_one_session_learns_all_sessions_with_its_host_know() {
        let host = Arc::new(WillingHost::new(Endpoint::new("a.example", 25)));
        let other = Arc::new(WillingHost::new(Endpoint::new("b.example", 25)));
        let now = clock::now();
        let (one, two, stranger) = (session(&host, now), session(&host, now), session(&other, now));
        assert!(!one.is_given_up() && !two.is_given_up());
        one.give_up(&Event::OutOfStep(Step::EndOfData, Desync::Unsolicited));
        assert!(one.is_given_up() && two.is_given_up() && session(&host, now).is_given_up());
        assert!(!stranger.is_given_up());
    }
}
