//! The settings of a server.

use std::time::Duration;

use super::identity::CertificateKind;
use super::script::{Cut, Script};
use super::server::TestServer;

/// Where TLS begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Security {
    /// No TLS, STARTTLS not offered.
    #[default]
    Plain,
    /// Plain at first, STARTTLS offered.
    StartTls,
    /// TLS from the first byte.
    ImplicitTls,
}

#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) security: Security,
    pub(super) require_tls: bool,
    pub(super) credentials: Vec<(String, String)>,
    pub(super) auth_before_tls: bool,
    pub(super) mechanisms: Vec<String>,
    pub(super) pipelining: bool,
    pub(super) chunking: bool,
    pub(super) size: Option<usize>,
    pub(super) eight_bit_mime: bool,
    pub(super) smtp_utf8: bool,
    pub(super) enhanced_status_codes: bool,
    pub(super) dsn: bool,
    pub(super) keywords: Vec<String>,
    pub(super) certificate: CertificateKind,
    pub(super) max_connections: Option<usize>,
    pub(super) over_limit: Vec<u8>,
    pub(super) socket_buffers: Option<usize>,
    pub(super) record: bool,
    pub(super) keep_messages: bool,
    pub(super) patience: Duration,
}

/// Settings of a [`TestServer`], made by [`TestServer::builder`].
///
/// ```
/// use smtp_pool::testing::{Action, Script, Security, Stage, TestServer};
///
/// let server = TestServer::builder()
///     .security(Security::StartTls)
///     .credentials("user", "secret")
///     .ehlo_keyword("LIMITS MAILMAX=3")
///     .script(Script::new().on_nth(Stage::Mail, 2, [Action::Reset]))
///     .start();
/// # let _ = server.port();
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until start()"]
pub struct TestServerBuilder {
    config: Config,
    script: Script,
}

impl TestServerBuilder {
    pub(super) fn new() -> Self {
        let config = Config {
            security: Security::Plain,
            require_tls: false,
            credentials: Vec::new(),
            auth_before_tls: false,
            mechanisms: vec!["PLAIN".to_owned(), "LOGIN".to_owned()],
            pipelining: true,
            chunking: false,
            size: Some(10_240_000),
            eight_bit_mime: true,
            smtp_utf8: true,
            enhanced_status_codes: true,
            dsn: false,
            keywords: Vec::new(),
            certificate: CertificateKind::Valid,
            max_connections: None,
            over_limit: b"421 4.7.0 too many connections\r\n".to_vec(),
            socket_buffers: None,
            record: true,
            keep_messages: true,
            patience: Duration::from_secs(10),
        };
        Self { config, script: Script::new() }
    }

    /// Where TLS begins; [`Security::Plain`] unless set.
    pub fn security(mut self, security: Security) -> Self {
        self.config.security = security;
        self
    }

    /// Answers `MAIL` outside TLS with 530. Off unless set, so that a test can see what its client does of its own accord.
    pub fn require_tls(mut self, require: bool) -> Self {
        self.config.require_tls = require;
        self
    }

    /// Offers AUTH and answers `MAIL` with 530 before it succeeded. May be called several times for several users.
    ///
    /// For XOAUTH2 the password is the token.
    pub fn credentials(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.config.credentials.push((user.into(), password.into()));
        self
    }

    /// With STARTTLS: offers and takes AUTH before TLS too. Off unless set (AUTH is then answered with 538).
    pub fn auth_before_tls(mut self, allow: bool) -> Self {
        self.config.auth_before_tls = allow;
        self
    }

    /// The mechanisms offered, of `PLAIN`, `LOGIN`, `XOAUTH2`; the first two unless set. Others are listed and answered with 504.
    pub fn auth_mechanisms(mut self, mechanisms: &[&str]) -> Self {
        self.config.mechanisms = mechanisms.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    /// PIPELINING (RFC 2920), on unless set. Off: a client that pipelines gets 500 and FIN.
    pub fn pipelining(mut self, offer: bool) -> Self {
        self.config.pipelining = offer;
        self
    }

    /// CHUNKING (RFC 3030), off unless set. Off: `BDAT` gets 500, and its chunk is read as commands.
    pub fn chunking(mut self, offer: bool) -> Self {
        self.config.chunking = offer;
        self
    }

    /// SIZE (RFC 1870) and the limit in bytes, 10 240 000 unless set. `None`: not offered, no limit.
    pub fn size(mut self, limit: Option<usize>) -> Self {
        self.config.size = limit;
        self
    }

    /// 8BITMIME (RFC 6152), on unless set.
    pub fn eight_bit_mime(mut self, offer: bool) -> Self {
        self.config.eight_bit_mime = offer;
        self
    }

    /// SMTPUTF8 (RFC 6531), on unless set.
    pub fn smtp_utf8(mut self, offer: bool) -> Self {
        self.config.smtp_utf8 = offer;
        self
    }

    /// ENHANCEDSTATUSCODES (RFC 2034), on unless set.
    pub fn enhanced_status_codes(mut self, offer: bool) -> Self {
        self.config.enhanced_status_codes = offer;
        self
    }

    /// DSN (RFC 3461), off unless set.
    pub fn dsn(mut self, offer: bool) -> Self {
        self.config.dsn = offer;
        self
    }

    /// A further line of the EHLO reply, such as `LIMITS MAILMAX=3`; parameters of that name are then accepted.
    pub fn ehlo_keyword(mut self, keyword: impl Into<String>) -> Self {
        self.config.keywords.push(keyword.into());
        self
    }

    /// What certificate the server shows; a valid one unless set.
    pub fn certificate(mut self, kind: CertificateKind) -> Self {
        self.config.certificate = kind;
        self
    }

    /// Greets a connection with the refusal of [`refuse_over_limit`](Self::refuse_over_limit), and closes it, while this many are live.
    ///
    /// A connection whose client has closed it does not count. No limit unless set.
    pub fn max_connections(mut self, limit: Option<usize>) -> Self {
        self.config.max_connections = limit;
        self
    }

    /// The greeting over the limit; `421 4.7.0 too many connections` unless set.
    pub fn refuse_over_limit(mut self, greeting: impl AsRef<[u8]>) -> Self {
        self.config.over_limit = greeting.as_ref().to_vec();
        self
    }

    /// What the server does instead of its duty; nothing unless set. Cuts set on the builder stay.
    pub fn script(mut self, script: Script) -> Self {
        self.script = script.with_cuts_of(self.script);
        self
    }

    /// As [`Script::cut_after_server_bytes`].
    pub fn cut_after_server_bytes(mut self, bytes: u64, cut: Cut) -> Self {
        self.script = self.script.cut_after_server_bytes(bytes, cut);
        self
    }

    /// As [`Script::cut_after_client_bytes`].
    pub fn cut_after_client_bytes(mut self, bytes: u64, cut: Cut) -> Self {
        self.script = self.script.cut_after_client_bytes(bytes, cut);
        self
    }

    /// Size in bytes of the kernel's send and receive buffer of every connection; the system's default unless set.
    ///
    /// Small ones make a client meet a full window early. The kernel has a lower bound of its own (a few kilobytes).
    pub fn socket_buffers(mut self, bytes: usize) -> Self {
        self.config.socket_buffers = Some(bytes);
        self
    }

    /// Whether transcripts are kept; on unless set. Off for benches: memory stays flat.
    pub fn record(mut self, record: bool) -> Self {
        self.config.record = record;
        self
    }

    /// Whether [`TestServer::messages`] keeps what was received; on unless set. Counting by Message-ID goes on without.
    pub fn keep_messages(mut self, keep: bool) -> Self {
        self.config.keep_messages = keep;
        self
    }

    /// How long a barrier or [`TestServer::wait_until_reached`] waits before the test is told that it hangs; 10 s unless set.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.config.patience = patience;
        self
    }

    /// Starts the server on 127.0.0.1, on a free port.
    ///
    /// # Panics
    ///
    /// When no port can be bound or no thread started.
    #[must_use = "the server ends when this is dropped"]
    pub fn start(self) -> TestServer {
        TestServer::launch(self.config, self.script)
    }
}
