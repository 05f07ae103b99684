//! The builder of a sender.

use std::time::Duration;

use crate::options::{AmbiguityBoundary, Backoff, Host, KeepaliveCommand, OptionsError, PoolOptions};

use super::SmtpSender;

/// Builds an [`SmtpSender`]. Each setter writes the field of [`PoolOptions`] with its name, which says what it is for.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct SmtpSenderBuilder {
    options: PoolOptions,
}

macro_rules! setters {
    ($($(#[$attribute:meta])* $name:ident: $type:ty),* $(,)?) => {
        $(
            #[doc = concat!("Sets [`PoolOptions::", stringify!($name), "`].")]
            $(#[$attribute])*
            pub fn $name(mut self, $name: impl Into<$type>) -> Self {
                self.options.$name = $name.into();
                self
            }
        )*
    };
}

impl SmtpSenderBuilder {
    pub(super) fn new() -> Self {
        Self::default()
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
        min_idle: usize,
        refill_delay: Duration,
        acquire_timeout: Duration,
        connect_timeout: Duration,
        auth_timeout: Duration,
        send_timeout: Duration,
        final_reply_timeout: Duration,
        idle_timeout: Option<Duration>,
        max_lifetime: Option<Duration>,
        max_messages_per_connection: Option<u32>,
        keepalive_interval: Option<Duration>,
        keepalive_command: KeepaliveCommand,
        reconnect_cooldown: Duration,
        max_reconnect_cooldown: Duration,
        backoff: Backoff,
        jitter: f64,
        max_retries: u32,
        retry_base_delay: Duration,
        ambiguity_boundary: AmbiguityBoundary,
    }

    /// The sender. Does no I/O.
    ///
    /// # Errors
    ///
    /// [`OptionsError`] names the first option that cannot be used, its value and the rule it breaks.
    pub fn build(self) -> Result<SmtpSender, OptionsError> {
        SmtpSender::from_options(self.options)
    }
}
