//! What the environment says.

use std::str::FromStr;
use std::time::Duration;

use postgres_sync::Client;
use smtp_pool::{Host, SmtpSender};

use crate::database::{self, Error};

/// Where the outbox is, where mail goes, and how hard to work.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `DATABASE_URL`: `postgresql://user:password@host:port/database`.
    pub database_url: String,
    /// `SMTP_URL`: the relay, for those who send.
    pub smtp_url: Option<String>,
    /// `OUTBOX_LANES`: how many mails this process sends at a time, and how many connections it holds to the relay and to the database.
    /// It is also how many mails become unknown when the process is killed.
    pub lanes: usize,
    /// `OUTBOX_LEASE_SECONDS`: how long a send may take, its last reply included. Too short turns delivered mail into unknown mail.
    pub lease: Duration,
    /// `OUTBOX_RETRY_SECONDS`: the pause after a first failure that is safe to retry; it doubles from one to the next.
    pub retry_pause: Duration,
    /// `OUTBOX_GRACE_SECONDS`: how long a drain waits for the sends that run. Less than what whoever says SIGTERM waits before SIGKILL.
    pub grace: Duration,
}

impl Settings {
    pub fn from_environment() -> Result<Self, Error> {
        Ok(Self {
            database_url: std::env::var("DATABASE_URL").map_err(|_| "DATABASE_URL is not set")?,
            smtp_url: std::env::var("SMTP_URL").ok(),
            lanes: number("OUTBOX_LANES", 4)?,
            lease: Duration::from_secs(number("OUTBOX_LEASE_SECONDS", 300)?),
            retry_pause: Duration::from_secs(number("OUTBOX_RETRY_SECONDS", 60)?),
            grace: Duration::from_secs(number("OUTBOX_GRACE_SECONDS", 20)?),
        })
    }

    pub fn connect(&self) -> Result<Client, Error> {
        database::connect(&self.database_url)
    }

    /// One sender for all lanes of this process.
    pub fn sender(&self) -> Result<SmtpSender, Error> {
        let url = self.smtp_url.as_deref().ok_or("SMTP_URL is not set")?;
        Ok(SmtpSender::builder().host(url.parse::<Host>()?).max_size(self.lanes).build()?)
    }
}

fn number<T: FromStr>(name: &str, default: T) -> Result<T, Error> {
    match std::env::var(name) {
        Ok(text) => text.parse().map_err(|_| format!("{name} must be a whole number, not \"{text}\"").into()),
        Err(_) => Ok(default),
    }
}
