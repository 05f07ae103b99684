//! Getting a connection for one call, and what to tell the caller when there is none.

use std::time::Instant;

use crate::cancel::CancelToken;
use crate::clock::{self, Deadline};
use crate::endpoint::HostId;
use crate::error::{Classification, FailureKind, SendError};
use crate::lane::Lane;
use crate::observer::{AcquireFinished, AcquireOutcome};
use crate::options::SendOptions;
use crate::pool::{AcquireError, HostSet, Lease, Renewal, Request};
use crate::report::{Judged, Limit, send_error};
use crate::stage::SendStage;
use crate::stats::PoolCounts;
use crate::trace::Recorder;

use super::Inner;
use super::connector::SmtpConnector;

/// For whom, and until when.
#[derive(Clone, Copy)]
pub(super) struct Acquisition<'a> {
    pub(super) inner: &'a Inner,
    pub(super) started: Instant,
    /// The caller's own deadline.
    pub(super) caller: Option<Deadline>,
    /// Whom it goes before, and whom it lets go first.
    pub(super) lane: Lane,
    /// What the caller may end the call with.
    pub(super) cancel: Option<&'a CancelToken>,
    /// Whether the end of a host's pause is waited for.
    pub(super) waits_out_cooldowns: bool,
}

/// An attempt that failed.
pub(super) struct Failed {
    pub(super) error: SendError,
    /// What another attempt would have to respect; `None` when there is no use in one.
    pub(super) retry: Option<Retry>,
    /// How many recipients its transaction was for; none, if it did not come to one.
    pub(super) offered_to: usize,
}

impl Failed {
    /// Before any recipient was asked for.
    const fn early(error: SendError, retry: Option<Retry>) -> Self {
        Self { error, retry, offered_to: 0 }
    }
}

/// What another attempt would have to respect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Retry {
    /// The host that failed.
    pub(super) host: HostId,
    /// Whether it may only use a connection opened for it.
    pub(super) fresh: bool,
}

impl<'a> Acquisition<'a> {
    /// For a call that begins now, with these options.
    pub(super) fn new(inner: &'a Inner, options: &'a SendOptions) -> Self {
        let (caller, cancel) = (options.deadline.map(Deadline::on), options.cancel.as_ref());
        Self { inner, started: clock::now(), caller, lane: options.lane, cancel, waits_out_cooldowns: true }
    }

    /// Gets a connection, waiting for it or opening it.
    pub(super) fn lease(
        &self,
        now: Instant,
        avoid: &HostSet,
        fresh: bool,
        only: Option<HostId>,
        trace: &mut Recorder,
    ) -> Result<Lease<SmtpConnector>, Failed> {
        let deadline = self.acquire_by(now);
        let request = self.request(deadline, avoid, fresh, only);
        let leased = self.inner.pool.acquire_at(now, request, trace);
        self.tell(now, &leased);
        self.outcome(leased, deadline, trace)
    }

    /// Gets a connection in the place of one that no message may begin on any more. It asks for what that one was asked for, and gets
    /// what is left of the time that began then: no fresh one, where any that was opened since will do.
    pub(super) fn swap(
        &self,
        lease: Lease<SmtpConnector>,
        asked: Instant,
        avoid: &HostSet,
        fresh: bool,
        trace: &mut Recorder,
    ) -> Result<Lease<SmtpConnector>, Failed> {
        let deadline = self.acquire_by(asked);
        let request = self.request(deadline, avoid, fresh, None);
        let now = clock::now();
        let leased = lease.renew(Renewal::Rotated, request, trace);
        self.tell(now, &leased);
        self.outcome(leased, deadline, trace)
    }

    /// Gets a fresh connection in the place of `lease`.
    pub(super) fn renew(
        &self,
        now: Instant,
        lease: Lease<SmtpConnector>,
        why: Renewal,
        avoid: &HostSet,
        trace: &mut Recorder,
    ) -> Result<Lease<SmtpConnector>, Failed> {
        let deadline = self.acquire_by(now);
        let request = self.request(deadline, avoid, true, None);
        let leased = lease.renew(why, request, trace);
        self.tell(now, &leased);
        self.outcome(leased, deadline, trace)
    }

    /// Tells observers how a call for a connection that came at `now` has ended.
    #[inline]
    fn tell(&self, now: Instant, result: &Result<Lease<SmtpConnector>, AcquireError<Judged>>) {
        match result {
            Ok(lease) if self.inner.observers.are_there() => self.tell_lease(now, lease),
            Ok(_) => {}
            Err(error) => self.tell_refusal(now, error),
        }
    }

    #[cold]
    fn tell_lease(&self, now: Instant, lease: &Lease<SmtpConnector>) {
        let Inner { pool, observers, .. } = self.inner;
        let event = AcquireFinished {
            outcome: AcquireOutcome::Acquired,
            waited: clock::now().saturating_duration_since(now),
            host: Some(pool.connector().endpoint(lease.host())),
            counts: None,
        };
        observers.tell_registered(|observer| observer.acquire_finished(&event));
    }

    fn tell_refusal(&self, now: Instant, error: &AcquireError<Judged>) {
        let (outcome, counts) = match *error {
            AcquireError::Exhausted { counts, .. } => (AcquireOutcome::Exhausted, counts),
            AcquireError::Unavailable { counts, .. } => (AcquireOutcome::Unavailable, counts),
            AcquireError::Local { counts, .. } => (AcquireOutcome::LocalShortage, counts),
            AcquireError::Cancelled { counts, .. } => (AcquireOutcome::Cancelled, counts),
            AcquireError::ShutDown { counts } => (AcquireOutcome::Shutdown, counts),
        };
        let waited = clock::now().saturating_duration_since(now);
        let event = AcquireFinished { outcome, waited, host: None, counts: Some(counts) };
        self.inner.observers.tell(|observer| observer.acquire_finished(&event));
    }

    fn outcome(
        &self,
        leased: Result<Lease<SmtpConnector>, AcquireError<Judged>>,
        deadline: Deadline,
        trace: &mut Recorder,
    ) -> Result<Lease<SmtpConnector>, Failed> {
        let lease = leased.map_err(|error| self.failed(error, deadline))?;
        // What the pool knows nothing about. A session that is reused has been told of.
        if !lease.is_reused() {
            trace.secured(lease.connection().tls_version());
        }
        Ok(lease)
    }

    fn request(&self, deadline: Deadline, avoid: &HostSet, fresh: bool, only: Option<HostId>) -> Request {
        let Self { lane, waits_out_cooldowns, .. } = *self;
        let (avoid, cancel) = (avoid.clone(), self.cancel.cloned());
        Request { deadline, avoid, fresh, only, lane, waits_out_cooldowns, cancel }
    }

    fn acquire_by(&self, now: Instant) -> Deadline {
        self.capped(Deadline::at(now, self.inner.options.acquire_timeout))
    }

    fn capped(&self, deadline: Deadline) -> Deadline {
        self.caller.map_or(deadline, |caller| caller.earlier(deadline))
    }

    /// The caller's error for an acquire that gave no lease.
    fn failed(&self, error: AcquireError<Judged>, acquire_by: Deadline) -> Failed {
        let limit = match self.caller {
            Some(caller) if caller <= acquire_by => Limit::CallersDeadline,
            _ => Limit::Option("acquire_timeout", self.inner.options.acquire_timeout),
        };
        let waited = clock::now() - self.started;
        match error {
            AcquireError::Exhausted { cause, counts } => {
                let what = format!("no connection came free within {waited:.1?} ({limit})");
                let error =
                    self.without_lease(FailureKind::PoolExhausted, what, "waited for as long as allowed", counts);
                let endpoint = cause.as_ref().map(|(host, _)| self.inner.pool.connector().endpoint(*host).clone());
                let source = cause.map(|(_, judged)| judged.to_string().into());
                Failed::early(error.with_endpoint(endpoint).with_source(source), None)
            }
            AcquireError::Unavailable { cause: Some((host, judged)), retry_after, counts, .. } => {
                let error = self.of_open(host, judged, acquire_by, counts).with_retry_after(retry_after);
                Failed::early(error, None)
            }
            AcquireError::Unavailable { cause: None, retry_after, last_error, counts } => {
                let (endpoint, what) = match last_error {
                    Some((host, text)) => (
                        Some(self.inner.pool.connector().endpoint(host).clone()),
                        format!("every host is cooling down; the last failure was: {text}"),
                    ),
                    None => (None, "every host is cooling down".to_owned()),
                };
                let error = self
                    .without_lease(FailureKind::HostUnavailable, what, "every host is cooling down", counts)
                    .with_endpoint(endpoint)
                    .with_retry_after(retry_after);
                Failed::early(error, None)
            }
            AcquireError::Local { host, cause, counts } => {
                let error = self.of_open(host, cause, acquire_by, counts);
                Failed::early(error, Some(Retry { host, fresh: false }))
            }
            AcquireError::Cancelled { cause: Some((host, judged)), counts }
                if judged.verdict.classification.kind == FailureKind::Cancelled =>
            {
                Failed::early(self.of_open(host, judged, acquire_by, counts), None)
            }
            AcquireError::Cancelled { counts, .. } => Failed::early(self.cancelled(counts), None),
            AcquireError::ShutDown { counts } => {
                let what = "no new message is taken".to_owned();
                let error = self.without_lease(FailureKind::Shutdown, what, "the sender was shut down", counts);
                Failed::early(error, None)
            }
        }
    }

    /// The error for a call that was cancelled before it had a connection.
    pub(super) fn cancelled(&self, counts: PoolCounts) -> SendError {
        let what = "cancelled before a connection was there".to_owned();
        self.without_lease(FailureKind::Cancelled, what, "cancelled by the caller", counts)
    }

    /// The error for a session that did not come about.
    fn of_open(&self, host: HostId, mut judged: Judged, acquire_by: Deadline, counts: PoolCounts) -> SendError {
        if self.caller.is_some_and(Deadline::is_over) {
            judged.limit = Limit::CallersDeadline;
        } else if acquire_by.is_over() {
            judged.limit = Limit::Option("acquire_timeout", self.inner.options.acquire_timeout);
        }
        send_error(judged, self.inner.pool.connector().endpoint(host).clone(), Vec::new()).with_pool(counts)
    }

    fn without_lease(&self, kind: FailureKind, what: String, reason: &'static str, counts: PoolCounts) -> SendError {
        let classification = Classification {
            kind,
            stage: SendStage::BeforeConnect,
            retry_allowed: kind != FailureKind::Shutdown,
            discard_connection: false,
            reason,
        };
        SendError::new(classification, what).with_pool(counts)
    }
}
