//! One connection in the hands of an expert.

use std::fmt;

use lettre::address::Envelope;

use crate::clock::{self, Deadline};
use crate::endpoint::Endpoint;
use crate::error::SendError;
use crate::observer::AttemptFailed;
use crate::options::{KeepaliveCommand, SendOptions};
use crate::pool::{Close, Fate, Lease as PoolLease};
use crate::reply::Reply;
use crate::report::{HeldSession, Limit, Receipt, SendSettings};
use crate::stats::DiscardReason;

use super::connector::SmtpConnector;
use super::news::{tell_attempt_failed, tell_end};
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

    /// As [`send_raw`](Self::send_raw), with options for this call. Recipients that the server does not take at once are left over, as
    /// [`NotSent`](crate::RecipientStatus::NotSent).
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
        let result = self.held().send(envelope, content, options);
        let result = result.map_err(|error| error.with_pool(self.inner().pool.counts()));
        match &result {
            Ok(_) => self.lease.note_delivered(),
            Err(error) => {
                let event = AttemptFailed {
                    host: self.endpoint(),
                    connection_id: self.connection_id(),
                    classification: error.classification(),
                    step: None,
                    code: error.response().map(Reply::code),
                    is_replaced: false,
                };
                tell_attempt_failed(&self.inner().observers, &event);
            }
        }
        tell_end(&self.inner().observers, started, &result);
        result
    }

    /// Asks the server for a sign of life with NOOP; only 250 is one. Bounded by `send_timeout`.
    ///
    /// # Errors
    ///
    /// [`SendError`] of kind [`RetryableBeforeSend`](crate::FailureKind::RetryableBeforeSend), or
    /// [`RetryableTemporaryFailure`](crate::FailureKind::RetryableTemporaryFailure) if the server says that it is closing: the connection
    /// is not usable any more.
    pub fn noop(&mut self) -> Result<(), SendError> {
        let (timeout, started) = (self.inner().options.send_timeout, clock::now());
        let held = self.held();
        let probed = held.session.probe(KeepaliveCommand::Noop, Deadline::at(started, timeout));
        let error = probed.map_err(|failure| held.error(failure, Limit::Option("send_timeout", timeout), started));
        error.map_err(|error| error.with_pool(self.inner().pool.counts()))
    }

    /// Closes the connection instead of giving it back.
    pub fn discard(self) {
        self.lease.finish(Fate::Discard(DiscardReason::Broken, Close::Polite));
    }

    fn inner(&self) -> &Inner {
        &self.sender.inner
    }

    fn held(&mut self) -> HeldSession<'_> {
        let Inner { options, pool, .. } = &*self.sender.inner;
        HeldSession {
            endpoint: pool.connector().endpoint(self.lease.host()),
            connection_id: self.lease.id(),
            reused: self.lease.is_reused(),
            settings: SendSettings::of(options),
            is_outdated: !self.lease.is_current(),
            stop: Some(pool.connector().stop()),
            session: self.lease.connection_mut(),
        }
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
