//! Who is told what happens: the [`Observer`] trait, the log that is always there, the metrics that may be.

mod event;
mod journal;
#[cfg(feature = "metrics")]
mod metrics;
mod watch;

use std::sync::Arc;

pub use self::event::{
    AcquireFinished, AcquireOutcome, AttemptFailed, CapacityLearned, ConnectionDiscarded, ConnectionFailed,
    ConnectionOpened, CooldownEntered, CooldownLeft, IdleLimitLearned, KeepaliveFailed, LeaseEnded, LevelsChanged,
    MessageLimitLearned, OutcomeUnknown, ReconnectSuppressed, SendFinished, SendRetried, ThreadLost, WaitersChanged,
};
#[cfg(feature = "metrics")]
pub use self::metrics::MetricsObserver;
pub(crate) use self::watch::Observers;

/// One list for the trait and for what passes calls on, so that none is forgotten there.
macro_rules! observer {
    ($($(#[$about:meta])* $method:ident: $event:ty,)*) => {
        /// Is told what happens in a sender. Every method does nothing unless written otherwise.
        ///
        /// Registered with [`SmtpSenderBuilder::observer`](crate::SmtpSenderBuilder::observer). Methods run in whichever thread did what
        /// they tell of, often in the caller's, and what they take comes out of its time: hand over what takes long. No lock of the
        /// sender is held meanwhile, so an observer may call the sender: `status`, `send`, even `shutdown`, which does not wait longer
        /// than it says although the send that it was called from cannot end before it. A `send` from within may have to wait for what
        /// its own thread has in hand, the only connection or the one try of a host that failed, and then does so for
        /// `acquire_timeout`.
        ///
        /// An observer is not told what it does itself: while it runs, no method of it is called in the same thread. A panic is caught,
        /// said once by a log record of level `error`, and harms nothing (unless the program was built with `panic = "abort"`).
        ///
        /// Events of one thread come in order; those of different threads may overtake each other, see [`LevelsChanged`].
        ///
        /// ```
        /// use std::sync::Arc;
        /// use std::sync::atomic::{AtomicU64, Ordering};
        /// use smtp_pool::{Host, SmtpSender, observer};
        /// # use smtp_pool::testing::TestServer;
        /// # let server = TestServer::start();
        /// # let envelope = lettre::address::Envelope::new(None, vec!["b@example.com".parse()?])?;
        ///
        /// #[derive(Default)]
        /// struct Sent(AtomicU64);
        ///
        /// impl observer::Observer for Sent {
        ///     fn send_finished(&self, event: &observer::SendFinished<'_>) {
        ///         if event.outcome.is_ok() {
        ///             self.0.fetch_add(1, Ordering::Relaxed);
        ///         }
        ///     }
        /// }
        ///
        /// let sent = Arc::new(Sent::default());
        /// let sender = SmtpSender::builder()
        ///     .host(Host::starttls("smtp.example.com"))
        /// #   .hosts([Host::plain("127.0.0.1").port(server.port())])
        ///     .observer(Arc::clone(&sent))
        ///     .build()?;
        /// sender.send_raw(&envelope, b"Subject: one\r\n\r\n1")?;
        /// assert_eq!(sent.0.load(Ordering::Relaxed), 1);
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        pub trait Observer: Send + Sync + 'static {
            $($(#[$about])* fn $method(&self, event: &$event) {
                let _ = event;
            })*
        }

        /// So that the program keeps a hand on what it registers.
        impl<T: Observer + ?Sized> Observer for Arc<T> {
            $(fn $method(&self, event: &$event) {
                (**self).$method(event);
            })*
        }
    };
}

observer! {
    /// A connection is ready for use.
    connection_opened: ConnectionOpened<'_>,
    /// A connection could not be opened.
    connection_failed: ConnectionFailed<'_>,
    /// A connection's life is over.
    connection_discarded: ConnectionDiscarded<'_>,
    /// An idle connection gave no sign of life when asked for one.
    keepalive_failed: KeepaliveFailed<'_>,
    /// No connection to a host is opened for a while.
    cooldown_entered: CooldownEntered<'_>,
    /// A host that had failed works again.
    cooldown_left: CooldownLeft<'_>,
    /// A call passed a host by because of its cooldown.
    reconnect_suppressed: ReconnectSuppressed<'_>,
    /// A host takes no more connections than it has.
    capacity_learned: CapacityLearned<'_>,
    /// A host takes no more than so many messages over one connection.
    message_limit_learned: MessageLimitLearned<'_>,
    /// A host ends sessions that are idle for longer.
    idle_limit_learned: IdleLimitLearned<'_>,
    /// What [`status`](crate::SmtpSender::status) shows of a host has changed.
    levels_changed: LevelsChanged<'_>,
    /// More, or fewer, callers wait.
    waiters_changed: WaitersChanged,
    /// A call for a connection has ended.
    acquire_finished: AcquireFinished<'_>,
    /// A lent connection came back, or ended.
    lease_ended: LeaseEnded<'_>,
    /// A message failed on a connection, and the failure was classified.
    attempt_failed: AttemptFailed<'_>,
    /// A failed attempt is followed by another one.
    send_retried: SendRetried<'_>,
    /// A message may have been delivered, and nobody knows.
    outcome_unknown: OutcomeUnknown<'_>,
    /// A send has ended, whichever way.
    send_finished: SendFinished<'_>,
    /// One of the pool's own threads is not there.
    thread_lost: ThreadLost<'_>,
}
