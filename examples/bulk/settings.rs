//! What the environment says.

use std::path::{Path, PathBuf};

use smtp_pool::{Host, SmtpSender};

use crate::Error;
use crate::relay::Relay;

/// Which list, where mail goes, and what is kept beside the list.
pub struct Settings {
    pub list: PathBuf,
    pub resume: PathBuf,
    /// `SMTP_FROM`.
    pub from: String,
    host: Host,
    /// Without `SMTP_URL`.
    pub relay: Option<Relay>,
    /// Whether the next run begins anew.
    pub is_demo: bool,
}

impl Settings {
    pub fn for_list(list: &str) -> Result<Self, Error> {
        let (host, relay) = match std::env::var("SMTP_URL") {
            Ok(url) => (url.parse::<Host>()?, None),
            Err(_) => {
                let relay = Relay::start();
                (relay.host(), Some(relay))
            }
        };
        let host = match std::env::var("SMTP_CA_FILE") {
            Ok(path) => host.root_certificate(std::fs::read(path)?),
            Err(_) => host,
        };
        Ok(Self {
            list: PathBuf::from(list),
            resume: PathBuf::from(format!("{list}.resume")),
            from: std::env::var("SMTP_FROM").unwrap_or_else(|_| "news@example.com".to_owned()),
            host,
            relay,
            is_demo: false,
        })
    }

    /// The list of this example is for nobody but the embedded server.
    pub fn of_the_demo() -> Result<Self, Error> {
        if std::env::var_os("SMTP_URL").is_some() {
            return Err("name your own list, when SMTP_URL names your own server".into());
        }
        let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/bulk/recipients.csv");
        let list = list.to_str().ok_or("the path of this example is not UTF-8")?;
        Ok(Self { is_demo: true, ..Self::for_list(list)? })
    }

    pub fn sender(&self) -> Result<SmtpSender, Error> {
        // A pause before a retry would hold up the rest of a block.
        Ok(SmtpSender::builder().host(self.host.clone()).max_size(8).max_retries(0).build()?)
    }
}
