//! What may differ from one send to the next.

use std::time::Instant;

use crate::cancel::CancelToken;

use super::Dsn;

/// What to do with a message when the server refuses some of its recipients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum RecipientPolicy {
    /// Send to all of them or to none. More of them than the server takes at a time
    /// ([RFC 9422](https://www.rfc-editor.org/rfc/rfc9422)) are refused before `MAIL`.
    #[default]
    AllOrNothing,
    /// Send to those that were accepted, and report the others in [`Receipt::recipients`](crate::Receipt::recipients).
    ///
    /// More recipients than the server takes at a time go in several transactions; what the one answer then means is in
    /// [`_guide::delivery_guarantees`](crate::_guide::delivery_guarantees#more-recipients-than-a-server-takes-at-a-time).
    AcceptPartial,
}

/// Settings of one send; the default is what [`SmtpSender::send`](crate::SmtpSender::send) uses.
///
/// ```
/// use std::time::{Duration, Instant};
/// use smtp_pool::{RecipientPolicy, SendOptions};
///
/// let options = SendOptions::new()
///     .deadline(Instant::now() + Duration::from_secs(20))
///     .recipients(RecipientPolicy::AcceptPartial);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SendOptions {
    pub(crate) deadline: Option<Instant>,
    pub(crate) recipients: RecipientPolicy,
    pub(crate) cancel: Option<CancelToken>,
    pub(crate) dsn: Option<Dsn>,
}

impl SendOptions {
    /// No deadline of its own, all recipients or none.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The instant by which the call returns, whatever happens: it caps waiting, connecting, sending, every retry, and the wait for
    /// the final reply. Default: none; then the pool's own timeouts bound each part.
    ///
    /// When less than a tenth of the time from the call to the deadline is left (at most 10 s) and the last byte has not been
    /// written, it is not written any more: better surely not sent than perhaps sent.
    #[must_use]
    pub fn deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// A token that ends the call from another thread. Default: none.
    #[must_use]
    pub fn cancel(mut self, token: &CancelToken) -> Self {
        self.cancel = Some(token.clone());
        self
    }

    /// What to do when some recipients are refused. Default: [`RecipientPolicy::AllOrNothing`].
    #[must_use]
    pub fn recipients(mut self, policy: RecipientPolicy) -> Self {
        self.recipients = policy;
        self
    }

    /// What to ask for in delivery status notifications. Default: nothing.
    #[must_use]
    pub fn dsn(mut self, dsn: Dsn) -> Self {
        self.dsn = Some(dsn);
        self
    }
}
