//! What the environment says, and the sender that comes of it.

use std::error::Error;
use std::time::Duration;
use std::{env, fs};

use lettre::Address;
use smtp_pool::{Host, MetricsObserver, OptionsError, SmtpSender};

/// How long a request may take: a person waits for it, and a proxy hangs up sooner or later.
pub const DEADLINE: Duration = Duration::from_secs(8);

pub struct Settings {
    pub listen: String,
    pub from: Address,
    /// None: the embedded one.
    pub relay: Option<Host>,
}

impl Settings {
    pub fn from_environment() -> Result<Self, Box<dyn Error + Send + Sync>> {
        let or = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
        let relay = env::var("SMTP_URL").ok().map(|url| url.parse::<Host>()).transpose()?;
        let relay = match (relay, env::var("SMTP_CA_FILE")) {
            (Some(relay), Ok(path)) => Some(relay.root_certificate(fs::read(path)?)),
            (relay, _) => relay,
        };
        Ok(Self {
            listen: or("WEB_FORM_LISTEN", "127.0.0.1:8025"),
            from: or("SMTP_FROM", "web-form@example.com").parse()?,
            relay,
        })
    }
}

/// The guide's profile of a web application (`choosing_limits`): a person waits, so what does not go through at once is said at once.
pub fn sender(relay: Host) -> Result<SmtpSender, OptionsError> {
    SmtpSender::builder()
        .host(relay)
        .max_size(6)
        .min_idle(1)
        .acquire_timeout(Duration::from_secs(3))
        .connect_timeout(Duration::from_secs(2))
        .send_timeout(Duration::from_secs(10))
        .retry_base_delay(Duration::from_millis(250))
        .reconnect_cooldown(Duration::from_secs(5))
        .observer(MetricsObserver::new())
        .build()
}
