//! What may differ from one batch to the next.

use std::time::Duration;

use super::SendOptions;

/// Settings of one [`send_all`](crate::SmtpSender::send_all).
///
/// ```
/// use std::time::{Duration, Instant};
/// use smtp_pool::{BatchOptions, CancelToken, SendOptions};
///
/// let token = CancelToken::new();
/// let options = BatchOptions::new()
///     .parallelism(4)
///     .send_options(SendOptions::new().deadline(Instant::now() + Duration::from_secs(600)).cancel(&token))
///     .message_timeout(Duration::from_secs(60));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchOptions {
    pub(crate) parallelism: Option<usize>,
    pub(crate) send: SendOptions,
    pub(crate) message_timeout: Option<Duration>,
    pub(crate) outage_patience: Duration,
}

impl Default for BatchOptions {
    fn default() -> Self {
        Self {
            parallelism: None,
            send: SendOptions::default(),
            message_timeout: None,
            outage_patience: Self::DEFAULT_OUTAGE_PATIENCE,
        }
    }
}

impl BatchOptions {
    /// The default of [`outage_patience`](Self::outage_patience): longer than the longest pause of a host, by default.
    pub const DEFAULT_OUTAGE_PATIENCE: Duration = Duration::from_secs(10 * 60);

    /// Every connection of the pool is used, and an outage of some minutes is waited for.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many messages are sent at a time. The calling thread sends too, so it is one at least; each further one has a thread.
    /// Default: [`max_size`](crate::PoolOptions::max_size). Lower it to leave connections to other callers; higher, threads wait for
    /// each other's connections.
    #[must_use]
    pub fn parallelism(mut self, messages: usize) -> Self {
        self.parallelism = Some(messages);
        self
    }

    /// The settings of every message. Their deadline and their token are those of the whole batch: when the deadline is over, or the
    /// token cancelled, messages that have not begun do not begin. Default: [`SendOptions::new`].
    #[must_use]
    pub fn send_options(mut self, options: SendOptions) -> Self {
        self.send = options;
        self
    }

    /// How long one message may take from its turn on, as a deadline of its own; waiting for an outage to end does not count.
    /// Default: none.
    #[must_use]
    pub fn message_timeout(mut self, timeout: Duration) -> Self {
        self.message_timeout = Some(timeout);
        self
    }

    /// How long an outage is waited for. Default: [10 minutes](Self::DEFAULT_OUTAGE_PATIENCE).
    ///
    /// While no host can be connected to, a message would fail with [`HostUnavailable`](crate::FailureKind::HostUnavailable) at once,
    /// and thousands behind it within a second. So the batch waits until a host is tried again
    /// ([`retry_after`](crate::SendError::retry_after)) and goes on from where it was. Once the next try of a host would come later than
    /// this after the outage began, or after the deadline, every message whose turn comes is told so at once.
    ///
    /// Credentials that were refused, and a host that greets with 554, are no outage: that is told at once, if no other host is worth
    /// waiting for.
    ///
    /// [`Duration::ZERO`] waits for no host's pause to end: for a caller that has a queue behind it, and better things to do.
    #[must_use]
    pub fn outage_patience(mut self, patience: Duration) -> Self {
        self.outage_patience = patience;
        self
    }
}
