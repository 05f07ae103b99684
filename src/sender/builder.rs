//! The builder of a sender.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::observer::{Observer, Observers};
use crate::options::{AmbiguityBoundary, Backoff, Host, KeepaliveCommand, OptionsError, PoolOptions};

use super::SmtpSender;

/// Builds an [`SmtpSender`]. Each setter writes the field of [`PoolOptions`] with its name, which says what it is for.
#[derive(Clone, Default)]
#[must_use]
pub struct SmtpSenderBuilder {
    options: PoolOptions,
    observers: Vec<Arc<dyn Observer>>,
}

macro_rules! setters {
    ($($name:ident: $type:ty),* $(,)?) => {
        $(
            #[doc = concat!("Sets [`PoolOptions::", stringify!($name), "`].")]
            pub fn $name(mut self, $name: $type) -> Self {
                self.options.$name = $name;
                self
            }
        )*
    };
}

impl SmtpSenderBuilder {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Sets every option at once, for options that come from a file.
    pub fn options(mut self, options: PoolOptions) -> Self {
        self.options = options;
        self
    }

    /// Registers an observer, to be told of everything that happens; one more each time.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observers.push(Arc::new(observer));
        self
    }

    /// Adds a host to [`PoolOptions::hosts`].
    pub fn host(mut self, host: Host) -> Self {
        self.options.hosts.push(host);
        self
    }

    /// Sets [`PoolOptions::hosts`].
    pub fn hosts(mut self, hosts: impl IntoIterator<Item = Host>) -> Self {
        self.options.hosts = hosts.into_iter().collect();
        self
    }

    setters! {
        max_size: usize,
        interactive_reserve: f64,
        min_idle: usize,
        refill_delay: Duration,
        acquire_timeout: Duration,
        connect_timeout: Duration,
        auth_timeout: Duration,
        send_timeout: Duration,
        final_reply_timeout: Duration,
        learn_limits: bool,
        keepalive_command: KeepaliveCommand,
        reconnect_cooldown: Duration,
        max_reconnect_cooldown: Duration,
        backoff: Backoff,
        jitter: f64,
        max_retries: u32,
        retry_base_delay: Duration,
        ambiguity_boundary: AmbiguityBoundary,
    }

    /// Sets [`PoolOptions::idle_timeout`]; takes `None` to switch it off.
    pub fn idle_timeout(mut self, idle_timeout: impl Into<Option<Duration>>) -> Self {
        self.options.idle_timeout = idle_timeout.into();
        self
    }

    /// Sets [`PoolOptions::max_lifetime`]; takes `None` to switch it off.
    pub fn max_lifetime(mut self, max_lifetime: impl Into<Option<Duration>>) -> Self {
        self.options.max_lifetime = max_lifetime.into();
        self
    }

    /// Sets [`PoolOptions::max_messages_per_connection`]; takes `None` to switch it off.
    pub fn max_messages_per_connection(mut self, messages: impl Into<Option<u32>>) -> Self {
        self.options.max_messages_per_connection = messages.into();
        self
    }

    /// Sets [`PoolOptions::keepalive_interval`]; takes `None` to switch it off.
    pub fn keepalive_interval(mut self, keepalive_interval: impl Into<Option<Duration>>) -> Self {
        self.options.keepalive_interval = keepalive_interval.into();
        self
    }

    /// The sender. Does no I/O.
    ///
    /// # Errors
    ///
    /// [`OptionsError`] names the first option that cannot be used, its value and the rule it breaks.
    pub fn build(self) -> Result<SmtpSender, OptionsError> {
        SmtpSender::open(self.options, Observers::new(self.observers))
    }
}

impl fmt::Debug for SmtpSenderBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { options, observers } = self;
        f.debug_struct("SmtpSenderBuilder").field("options", options).field("observers", &observers.len()).finish()
    }
}
