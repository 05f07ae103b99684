//! The settings of a sender.

use std::time::Duration;

use super::Host;

/// How pauses grow from one failure to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Backoff {
    /// They double, up to their maximum.
    #[default]
    Exponential,
    /// They stay as long as the first one.
    Fixed,
}

/// The command that probes an idle connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum KeepaliveCommand {
    /// `RSET`, which servers do not hold against a connection.
    #[default]
    Rset,
    /// `NOOP`; Exim ends a connection at its eleventh.
    Noop,
}

/// From where on a failure without a decisive answer leaves the message's fate unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum AmbiguityBoundary {
    /// From the write that holds the message's last byte: before it, [RFC 5321 §4.1.1.10] obliges the server to drop the message.
    ///
    /// [RFC 5321 §4.1.1.10]: https://www.rfc-editor.org/rfc/rfc5321#section-4.1.1.10
    #[default]
    LastByte,
    /// From the first byte of content: for relays that may deliver a message cut short.
    DataStarted,
}

/// Everything about a sender but its code: plain data with public defaults.
///
/// Build one with `PoolOptions::default()` and set fields, or use the setters of [`SmtpSenderBuilder`](crate::SmtpSenderBuilder),
/// which write into one, or read one from a file with the feature `serde`: [`_guide::configuration`](crate::_guide::configuration) has a
/// complete example. Every value is checked by `build()`.
///
/// ```
/// use smtp_pool::{Host, PoolOptions, SmtpSender};
///
/// let mut options = PoolOptions::default();
/// options.hosts.push(Host::starttls("smtp.example.com"));
/// options.max_size = 4;
/// let sender = SmtpSender::from_options(options)?;
/// # Ok::<(), smtp_pool::OptionsError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PoolOptions {
    /// The hosts to send through. Default: none; at least one is needed.
    pub hosts: Vec<Host>,

    /// Hard upper bound of live connections over all hosts, those being opened included. Default: 8.
    ///
    /// Raise it when callers wait although the server has room; lower it to what the server allows one client. More than the
    /// server can work on at a time makes nothing faster.
    pub max_size: usize,

    /// The part of the connections, of all and of each host's, that sends of the bulk lane may not have at a time. Default: 0.25;
    /// from 0 to below 1.
    ///
    /// It is rounded down to whole connections, and bulk may always have one: of 8 it may have 6, of 3 all. Matters only to programs
    /// that say [`Lane::Bulk`](crate::Lane::Bulk) at all. Raise it when interactive mail waits for long bulk messages to end; lower it,
    /// to 0, when bulk is to use everything that nobody in a hurry wants at the moment.
    pub interactive_reserve: f64,

    /// Idle connections kept ready. Default: 0, at most `max_size`.
    ///
    /// Raise it when the first mail after a quiet time must not wait for TLS and AUTH; keep 0 when idle sessions cost money or
    /// count against a limit.
    pub min_idle: usize,

    /// Pause before an idle connection is replaced after one was discarded. Default: none.
    ///
    /// Raise it when a server that closes connections at once would otherwise be connected to in a loop.
    pub refill_delay: Duration,

    /// Bound of *getting a ready connection*: queueing, DNS, TCP, TLS and AUTH, over all hosts tried. Default: 15 s.
    ///
    /// Lower it where a caller has something better to do than to wait (a web request); raise it for workers that would only come
    /// back later anyway.
    pub acquire_timeout: Duration,

    /// Bound of one try to connect: DNS, TCP over all addresses, TLS, greeting, EHLO, STARTTLS. Default: 10 s.
    ///
    /// While other hosts remain untried, a try gets at most an equal share of what is left of `acquire_timeout`. Raise it for
    /// servers that greet late on purpose; lower it where a fallback host should get its turn sooner.
    pub connect_timeout: Duration,

    /// Bound of the whole AUTH exchange. Default: 15 s. Raise it for servers that ask a slow directory.
    pub auth_timeout: Duration,

    /// Bound from the first command of a message to the moment before its last byte. Default: 30 s.
    ///
    /// Raise it for large messages over slow links. A failure in it is safe to retry, unless `ambiguity_boundary` says otherwise.
    pub send_timeout: Duration,

    /// Bound of writing the last byte and waiting for the answer to it. Default: 300 s.
    ///
    /// [RFC 5321 §4.5.3.2.6](https://www.rfc-editor.org/rfc/rfc5321#section-4.5.3.2.6) asks for 600 s: an impatient value turns
    /// delivered mail into unknown mail. Lower it only where unknown outcomes are reconciled anyway.
    pub final_reply_timeout: Duration,

    /// Closes a connection idle this long; `None` never does. Default: 2 min.
    ///
    /// Keep it under the server's own idle limit (most: 5 min; Amazon SES: 10 s): a session that we close costs nothing, one that
    /// the server closed costs a reconnect at the wrong moment.
    pub idle_timeout: Option<Duration>,

    /// Retires a connection this old once it is not in use, up to 10 % earlier so that connections opened together do not end
    /// together; `None` never does. Default: 20 min.
    ///
    /// Lower it where load balancers or DNS should be asked again sooner.
    pub max_lifetime: Option<Duration>,

    /// Retires a connection after so many messages; `None` has no bound but the server's own (EHLO `LIMITS MAILMAX`,
    /// [RFC 9422](https://www.rfc-editor.org/rfc/rfc9422), and what its refusals teach). Default: none.
    pub max_messages_per_connection: Option<u32>,

    /// Whether to learn what each host puts up with, and keep to it. Default: `true`. What is learned is in
    /// [`HostStatus`](crate::HostStatus).
    ///
    /// - Connections: one more than so many was refused as one too many (421, 432, 454 at the greeting or AUTH). No more are opened;
    ///   one more is asked for after 100 messages, each time in vain after twice as many, and after an hour at the latest.
    /// - Messages a connection: MAIL was refused for now on a session that had carried at least 20, and taken by a fresh one.
    ///   Connections are retired before that. Forgotten after an hour.
    /// - Idleness: three times, each on connections idle since the time before, a session was found to have been ended by the server,
    ///   and none lived through as long a silence in between. Connections are retired after three quarters of the longest of the three,
    ///   never sooner than after 5 s; those kept by `min_idle` are probed by then instead. Forgotten after an hour. A restart of the
    ///   server is not three times.
    ///
    /// Switch it off when you know the limits and have set them (`max_connections`, `max_messages_per_connection`, `idle_timeout`), or
    /// to see how a server behaves without it. Then every session meets its limit anew, and what a refusal says of the number of
    /// connections holds for one `reconnect_cooldown`. No more messages fail than otherwise: they take longer, and the server is asked
    /// for more than it gives.
    pub learn_limits: bool,

    /// Probes connections idle this long; `None` never does. Default: 1 min.
    pub keepalive_interval: Option<Duration>,

    /// The command that probes. Default: [`KeepaliveCommand::Rset`].
    pub keepalive_command: KeepaliveCommand,

    /// First pause of a host after a connection to it could not be opened. Default: 30 s.
    ///
    /// Lower it where a host is often away for moments; raise it where its operators ask for it.
    pub reconnect_cooldown: Duration,

    /// Longest pause of a host. Default: 5 min. Refused credentials pause for this long at once, because trying again locks accounts.
    pub max_reconnect_cooldown: Duration,

    /// How cooldown and retry delay grow. Default: [`Backoff::Exponential`].
    pub backoff: Backoff,

    /// Ratio, 0 to 1, by which cooldowns and retry delays vary at random, so that a fleet does not return in step. Default: 0.2.
    pub jitter: f64,

    /// Further attempts after the first, for failures that are classified as retry-safe. Default: 1.
    ///
    /// 0 leaves every retry to the caller. A message whose fate is unknown is never sent again, whatever this says. A call that
    /// found no host to connect to is not repeated either: one attempt asks all of them, and those that failed are cooling down.
    pub max_retries: u32,

    /// Base of the pause before a retry on the *same* host; another eligible host is tried at once. Default: 2 s.
    pub retry_base_delay: Duration,

    /// From where on a failure leaves the message's fate unknown. Default: [`AmbiguityBoundary::LastByte`].
    pub ambiguity_boundary: AmbiguityBoundary,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            max_size: 8,
            interactive_reserve: 0.25,
            min_idle: 0,
            refill_delay: Duration::ZERO,
            acquire_timeout: Duration::from_secs(15),
            connect_timeout: Duration::from_secs(10),
            auth_timeout: Duration::from_secs(15),
            send_timeout: Duration::from_secs(30),
            final_reply_timeout: Duration::from_secs(300),
            idle_timeout: Some(Duration::from_secs(120)),
            max_lifetime: Some(Duration::from_secs(20 * 60)),
            max_messages_per_connection: None,
            learn_limits: true,
            keepalive_interval: Some(Duration::from_secs(60)),
            keepalive_command: KeepaliveCommand::Rset,
            reconnect_cooldown: Duration::from_secs(30),
            max_reconnect_cooldown: Duration::from_secs(300),
            backoff: Backoff::Exponential,
            jitter: 0.2,
            max_retries: 1,
            retry_base_delay: Duration::from_secs(2),
            ambiguity_boundary: AmbiguityBoundary::LastByte,
        }
    }
}
