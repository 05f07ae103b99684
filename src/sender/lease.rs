//! One connection in the hands of an expert.

use std::fmt;

use lettre::address::Envelope;

use crate::clock::{self, Deadline};
use crate::endpoint::Endpoint;
use crate::error::SendError;
use crate::options::{KeepaliveCommand, SendOptions};
use crate::pool::{Close, Fate, Lease as PoolLease};
use crate::report::{Judged, Limit, Met, Receipt, interrupted, judge, send_error};
use crate::smtp::{Failure, Mail, Refused, TimeLimits, transact};
use crate::stats::DiscardReason;

use super::connector::SmtpConnector;
use super::{Inner, SmtpSender};

/// An exclusive connection, from [`SmtpSender::lease`]: for a run of messages that must go over one session, or for talking to one
/// server at a time.
///
/// It goes back to the pool when it is dropped; after a failure that breaks it, it is closed instead. Nothing is tried twice here:
/// neither a retry nor the replacement of a connection that turns out to be stale.
///
/// ```
/// # use smtp_pool::{Host, SmtpSender};
/// # use smtp_pool::testing::TestServer;
/// # let server = TestServer::start();
/// # let sender = SmtpSender::builder().host(Host::plain("127.0.0.1").port(server.port())).build()?;
/// # let envelope = lettre::address::Envelope::new(None, vec!["b@example.com".parse()?])?;
/// let mut lease = sender.lease()?;
/// lease.noop()?;
/// for content in ["Subject: one\r\n\r\n1", "Subject: two\r\n\r\n2"] {
///     lease.send_raw(&envelope, content.as_bytes())?;
/// }
/// drop(lease); // back to the pool
/// # assert_eq!((server.messages().len(), server.connections_accepted()), (2, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Lease {
    lease: PoolLease<SmtpConnector>,
    // After the lease, which goes back to its pool before the sender may end.
    sender: SmtpSender,
}

impl Lease {
    pub(super) const fn new(lease: PoolLease<SmtpConnector>, sender: SmtpSender) -> Self {
        Self { lease, sender }
    }

    /// The host it is connected to.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        self.inner().pool.connector().endpoint(self.lease.host())
    }

    /// The connection's number, unique within the sender; the same as in [`Receipt::connection_id`].
    #[must_use]
    pub const fn connection_id(&self) -> u64 {
        self.lease.id()
    }

    /// Sends a formatted message to the recipients of `envelope`, all of them or none, over this very connection.
    ///
    /// # Errors
    ///
    /// [`SendError`], with the same kinds and the same meaning as those of [`SmtpSender::send`]. A refusal leaves the lease usable;
    /// after a failure of the connection every further call fails.
    pub fn send_raw(&mut self, envelope: &Envelope, content: &[u8]) -> Result<Receipt, SendError> {
        self.send_with(envelope, content, &SendOptions::default())
    }

    /// As [`send_raw`](Self::send_raw), with options for this call.
    ///
    /// # Errors
    ///
    /// As [`send_raw`](Self::send_raw).
    pub fn send_with(
        &mut self,
        envelope: &Envelope,
        content: &[u8],
        options: &SendOptions,
    ) -> Result<Receipt, SendError> {
        let started = clock::now();
        let pool_options = &self.sender.inner.options;
        let (send, final_reply) = (pool_options.send_timeout, pool_options.final_reply_timeout);
        let caller = options.deadline.map(Deadline::on);
        let limits = TimeLimits::new(started, caller, send, final_reply);
        let mail = Mail { envelope, content, policy: options.recipients };
        let session = self.lease.connection_mut();
        let outcome = session
            .listen()
            .map_err(Refused::from)
            .and_then(|()| transact(session, &mail, &limits, options.cancel.as_ref()));
        match outcome {
            Ok(accepted) => {
                self.lease.note_delivered();
                Ok(Receipt::of(accepted, self.endpoint().clone(), self.lease.id(), started))
            }
            Err(Refused { failure, recipients }) => {
                let limit = Limit::of_sending(failure.event.step(), caller, send, final_reply);
                let judged = self.judge(interrupted(failure, options.cancel.as_ref(), self.stop()), limit);
                let error = send_error(judged, self.endpoint().clone(), recipients);
                Err(error.with_attempts(1).with_pool(self.inner().pool.counts()))
            }
        }
    }

    /// Asks the server for a sign of life with NOOP; only 250 is one. Bounded by `send_timeout`.
    ///
    /// # Errors
    ///
    /// [`SendError`] of kind [`RetryableBeforeSend`](crate::FailureKind::RetryableBeforeSend), or
    /// [`RetryableTemporaryFailure`](crate::FailureKind::RetryableTemporaryFailure) if the server says that it is closing: the connection
    /// is not usable any more.
    pub fn noop(&mut self) -> Result<(), SendError> {
        let timeout = self.inner().options.send_timeout;
        self.lease.connection_mut().probe(KeepaliveCommand::Noop, Deadline::after(timeout)).map_err(|failure| {
            let judged = self.judge(interrupted(failure, None, self.stop()), Limit::Option("send_timeout", timeout));
            send_error(judged, self.endpoint().clone(), Vec::new()).with_pool(self.inner().pool.counts())
        })
    }

    /// Closes the connection instead of giving it back.
    pub fn discard(self) {
        self.lease.finish(Fate::Discard(DiscardReason::Broken, Close::Polite));
    }

    fn inner(&self) -> &Inner {
        &self.sender.inner
    }

    fn stop(&self) -> &crate::cancel::CancelToken {
        self.inner().pool.connector().stop()
    }

    fn judge(&self, failure: Failure, limit: Limit) -> Judged {
        // Nothing is tried twice here, so a server that asks for a new login is taken at its word.
        let met = Met {
            reused: self.lease.is_reused(),
            in_step: self.lease.connection().is_in_step(),
            reauthenticated: true,
        };
        judge(failure, met, self.inner().options.ambiguity_boundary, limit)
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("endpoint", self.endpoint())
            .field("connection_id", &self.connection_id())
            .finish_non_exhaustive()
    }
}
