//! The sender: one call from a message to a receipt.

mod acquisition;
mod attempt;
mod batch;
mod builder;
mod care;
mod connector;
mod diary;
mod identity;
mod lease;
mod news;
mod pause;
mod retry;
#[cfg(test)]
#[cfg(simulation)]
mod simulation;
mod transport;

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use lettre::Message;
use lettre::address::Envelope;

use crate::endpoint::HostId;
use crate::error::SendError;
use crate::observer::Observers;
use crate::options::{OptionsError, PoolOptions, SendOptions, validate};
use crate::pool::{HostPlan, Learning, Limits, Pool};
use crate::report::Receipt;
use crate::stats::PoolStatus;

use self::acquisition::Acquisition;
pub use self::batch::BatchMessage;
pub use self::builder::SmtpSenderBuilder;
pub use self::care::HostReport;
use self::connector::SmtpConnector;
pub use self::lease::Lease;
use self::news::tell_end;
use self::pause::Pause;

/// Sends mail over a bounded pool of SMTP connections, from ordinary threads.
///
/// A sender is a handle: clone it into as many threads as there are; all clones share one pool, and the pool ends with the last of
/// them. Every call blocks its thread, for no longer than its limits say.
///
/// Programs that are started (`std::process::Command`) inherit no connection. A process made by `fork` alone has the sender's memory
/// but not its threads, and its connections are the parent's: build a sender in the child, and leave the parent's untouched there.
///
/// ```
/// use smtp_pool::{FailureKind, Host, SmtpSender};
/// # use smtp_pool::testing::TestServer;
/// # let server = TestServer::start();
/// # let message = lettre::Message::builder()
/// #     .from("a@example.com".parse()?).to("b@example.com".parse()?).body(String::from("Hello."))?;
///
/// let sender = SmtpSender::builder()
///     .host(Host::starttls("smtp.example.com").credentials("user", "password"))
/// #   .hosts([Host::plain("127.0.0.1").port(server.port())])
///     .max_size(8)
///     .build()?;
///
/// match sender.send(&message) {
///     Ok(receipt) => println!("Sent via {} in {} attempt(s).", receipt.endpoint(), receipt.attempts()),
///     Err(e) if e.kind() == FailureKind::UnknownAfterData => { /* may have been delivered: do not blindly resend */ }
///     Err(e) => eprintln!("{e}"),
/// }
/// # assert_eq!(server.messages().len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct SmtpSender {
    inner: Arc<Inner>,
}

// A panic in the middle of a call leaves the pool whole: whatever the call held gives itself back, and what is not in step is closed.
impl UnwindSafe for SmtpSender {}
impl RefUnwindSafe for SmtpSender {}

struct Inner {
    options: PoolOptions,
    pool: Pool<SmtpConnector>,
    /// Where a retry waits for its turn.
    pause: Arc<Pause>,
    observers: Observers,
}

impl SmtpSender {
    /// A builder with every option at its default.
    pub fn builder() -> SmtpSenderBuilder {
        SmtpSenderBuilder::new()
    }

    /// A sender with these options. Does no I/O in the caller's thread: the first connection is opened by the first send, or by the
    /// pool's own thread when `min_idle` asks for some.
    ///
    /// # Errors
    ///
    /// [`OptionsError`] names the first option that cannot be used, its value and the rule it breaks.
    pub fn from_options(options: PoolOptions) -> Result<Self, OptionsError> {
        Self::open(options, Observers::default())
    }

    fn open(mut options: PoolOptions, observers: Observers) -> Result<Self, OptionsError> {
        validate(&options)?;
        let connector = SmtpConnector::new(&mut options);
        let hosts = options.hosts.iter().enumerate().map(|(index, host)| HostPlan {
            endpoint: connector.endpoint(HostId(index)).clone(),
            priority: host.priority,
            weight: host.weight,
            max_connections: host.max_connections,
        });
        let hosts = hosts.collect();
        let limits = limits_of(&options, connector.worthwhile_time());
        let pool = Pool::new(connector, hosts, limits, fastrand::u64(..), observers.clone())
            .map_err(|error| OptionsError::new("maintenance thread", error.to_string(), "it must be able to start"))?;
        Ok(Self { inner: Arc::new(Inner { options, pool, pause: Arc::default(), observers }) })
    }

    /// Sends a message to the recipients of its envelope, all of them or none.
    ///
    /// The message is formatted once, before anything leaves. `Ok` means that a server has accepted it.
    ///
    /// # Errors
    ///
    /// [`SendError`]; its [`kind`](SendError::kind) tells what to do. Every kind but
    /// [`UnknownAfterData`](crate::FailureKind::UnknownAfterData) means that no server has accepted the message.
    pub fn send(&self, message: &Message) -> Result<Receipt, SendError> {
        self.send_raw(message.envelope(), &message.formatted())
    }

    /// Sends a formatted message, header and body, to the recipients of `envelope`, all of them or none.
    ///
    /// The content is not copied. Its line ends may be CR LF, LF or CR and leave as CR LF; dots are stuffed on the way.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn send_raw(&self, envelope: &Envelope, content: &[u8]) -> Result<Receipt, SendError> {
        self.send_with(envelope, content, &SendOptions::default())
    }

    /// As [`send_raw`](Self::send_raw), with a deadline or another recipient policy for this call.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn send_with(&self, envelope: &Envelope, content: &[u8], options: &SendOptions) -> Result<Receipt, SendError> {
        let acquisition = Acquisition::new(&self.inner, options);
        let result = retry::run(acquisition, envelope, content, options);
        tell_end(&self.inner.observers, acquisition.started, &result);
        result
    }

    /// One consistent picture of the pool now.
    #[must_use]
    pub fn status(&self) -> PoolStatus {
        self.inner.pool.status()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.pool.close();
    }
}

impl fmt::Debug for SmtpSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmtpSender")
            .field("options", &self.inner.options)
            .field("counts", &self.inner.pool.counts())
            .finish()
    }
}

/// How much earlier than `max_lifetime` a connection may be retired, so that those opened together do not end together.
const LIFETIME_JITTER: f64 = 0.1;

/// Servers' policies change, by the hour at the soonest; what still holds is learned again at the price of a refusal or two that no
/// caller sees. The shortest idle limits in use are Amazon SES's and an overloaded Postfix's, 10 s.
const LEARNING: Learning = Learning { lasts: Duration::from_secs(60 * 60), shortest_silence: Duration::from_secs(5) };

fn limits_of(options: &PoolOptions, fair_time: Duration) -> Limits {
    Limits {
        max_size: options.max_size,
        interactive_reserve: options.interactive_reserve,
        min_idle: options.min_idle,
        refill_delay: options.refill_delay,
        keepalive_interval: options.keepalive_interval,
        idle_timeout: options.idle_timeout,
        max_lifetime: options.max_lifetime,
        lifetime_jitter: LIFETIME_JITTER,
        fair_time,
        max_messages: options.max_messages_per_connection,
        learning: options.learn_limits.then_some(LEARNING),
        reconnect_cooldown: options.reconnect_cooldown,
        max_reconnect_cooldown: options.max_reconnect_cooldown,
        exponential: options.backoff == crate::options::Backoff::Exponential,
        jitter: options.jitter,
    }
}
