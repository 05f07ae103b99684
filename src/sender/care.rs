//! What a sender can be asked besides sending: to try its hosts, to get ready, to lend a connection, to end.

use std::time::{Duration, Instant};

use crate::clock::{self, Deadline};
use crate::endpoint::{Endpoint, HostId};
use crate::error::SendError;
use crate::pool::{HostSet, Lease as PoolLease};
use crate::stats::PoolStatus;
use crate::trace::Recorder;

use super::acquisition::Acquisition;
use super::connector::SmtpConnector;
use super::lease::Lease;
use super::retry::end;
use super::{Inner, SmtpSender};

/// What [`SmtpSender::verify`] found out about one host.
#[derive(Debug)]
#[non_exhaustive]
pub struct HostReport {
    /// The host.
    pub endpoint: Endpoint,
    /// Whether a session came about and answered NOOP with 250; if not, why.
    pub result: Result<(), SendError>,
    /// How long it took.
    pub elapsed: Duration,
}

impl SmtpSender {
    /// Connects to every host, authenticates, and says NOOP; sends nothing. The sessions stay in the pool.
    ///
    /// For a start-up check, or a health endpoint. One report for each host, in the order in which they were configured; each takes
    /// `acquire_timeout` at most, and counts as any other use does: a host that fails cools down.
    #[must_use]
    pub fn verify(&self) -> Vec<HostReport> {
        (0..self.inner.options.hosts.len()).map(|index| self.verify_host(HostId(index))).collect()
    }

    fn verify_host(&self, host: HostId) -> HostReport {
        let started = clock::now();
        let lease = acquire(&self.inner, started, true, Some(host));
        let result = lease.and_then(|lease| Lease::new(lease, self.clone()).noop());
        let endpoint = self.inner.pool.connector().endpoint(host).clone();
        HostReport { endpoint, result, elapsed: clock::now() - started }
    }

    /// Opens connections until as many are there as [`min_idle`](crate::PoolOptions::min_idle) asks for, at least one; so that the
    /// first messages need not wait for TLS and AUTH. Returns how many there are.
    ///
    /// # Errors
    ///
    /// [`SendError`] if a connection could not be had within `acquire_timeout`; those opened before it stay.
    pub fn warm_up(&self) -> Result<usize, SendError> {
        let wanted = self.inner.options.min_idle.max(1);
        let mut leases = Vec::with_capacity(wanted);
        // Held together, so that each is another one; all go back at the end.
        while leases.len() < wanted {
            // Those that others use are there too. Whoever waited for them while holding the rest would keep the pool from working,
            // and two who did so would wait for each other.
            let PoolStatus { counts, is_shut_down, .. } = self.inner.pool.status();
            if counts.idle == 0 && counts.leased >= wanted && !is_shut_down {
                return Ok(counts.leased);
            }
            leases.push(acquire(&self.inner, clock::now(), false, None)?);
        }
        Ok(leases.len())
    }

    /// Lends one connection, exclusively, until it is dropped. It counts as any other use of the pool does.
    ///
    /// # Errors
    ///
    /// [`SendError`] if none could be had within `acquire_timeout`.
    pub fn lease(&self) -> Result<Lease, SendError> {
        Ok(Lease::new(acquire(&self.inner, clock::now(), false, None)?, self.clone()))
    }

    /// Ends the sender: refuses new work, wakes whoever waits with [`Shutdown`](crate::FailureKind::Shutdown), lets sends that run finish
    /// within `grace`, and cuts the rest. Returns whether nothing had to be cut.
    ///
    /// Returns within `grace` and about a second. A send that is cut fails with `Shutdown`, or with
    /// [`UnknownAfterData`](crate::FailureKind::UnknownAfterData) if its last byte had been offered: a grace under
    /// `final_reply_timeout` may turn delivered mail into unknown mail. Calling it again, from any thread or clone, does no harm.
    /// Dropping the last clone needs no grace: there is no send left to wait for.
    pub fn shutdown(&self, grace: Duration) -> bool {
        let Inner { pool, pause, .. } = &*self.inner;
        pool.close();
        pause.end();
        let in_time = pool.wait_drained(Deadline::after(grace));
        if !in_time {
            pool.connector().stop().cancel();
            pool.wait_drained(Deadline::after(CUT_TIME));
        }
        pool.join(Deadline::after(CUT_TIME));
        in_time
    }
}

/// How long sends that were cut, and the pool's threads, have to notice.
const CUT_TIME: Duration = Duration::from_millis(500);

/// A connection for a call that begins `now` and sends nothing.
fn acquire(
    inner: &Inner,
    now: Instant,
    fresh: bool,
    only: Option<HostId>,
) -> Result<PoolLease<SmtpConnector>, SendError> {
    let acquisition = Acquisition { inner, started: now, caller: None, cancel: None, waits_out_cooldowns: true };
    let mut trace = Recorder::new(now);
    let leased = acquisition.lease(now, &HostSet::default(), fresh, only, &mut trace);
    leased.map_err(|failed| end(trace, inner, failed.error))
}
