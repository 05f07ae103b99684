//! One SMTP server to send through.

use std::error::Error as StdError;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use lettre::transport::smtp::authentication::Mechanism;
use zeroize::Zeroizing;

use super::{Credentials, Login, OptionsError, Supplier, url};

/// How a connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Security {
    /// Plaintext, upgraded by STARTTLS or refused.
    StartTls,
    /// Plaintext, upgraded by STARTTLS if the server offers it.
    OpportunisticStartTls,
    /// TLS from the first byte.
    ImplicitTls,
    /// Plaintext.
    Plain,
}

/// A client certificate with its key, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ClientIdentity {
    pub(crate) certificates: Vec<u8>,
    pub(crate) key: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientIdentity(redacted)")
    }
}

/// One SMTP server (a relay, a smarthost, a submission service) and how to talk to it.
///
/// A host is one identity: a pool never mixes its sessions with those of an entry with another user, name or TLS setting.
///
/// ```
/// use smtp_pool::Host;
///
/// let primary = Host::starttls("smtp-primary.example.com").credentials("smtp-user", "smtp-password").weight(3);
/// let secondary: Host = "smtps://smtp-user:smtp-password@smtp-secondary.example.com?priority=10".parse()?;
/// # Ok::<(), smtp_pool::OptionsError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) security: Security,
    pub(crate) login: Option<Login>,
    pub(crate) auth_mechanisms: Vec<Mechanism>,
    pub(crate) hello_name: Option<String>,
    pub(crate) priority: u32,
    pub(crate) weight: u32,
    pub(crate) max_connections: Option<usize>,
    pub(crate) root_certificates: Vec<Vec<u8>>,
    pub(crate) client_identity: Option<ClientIdentity>,
    pub(crate) local_address: Option<IpAddr>,
    pub(crate) single_round_trip: bool,
    pub(crate) plaintext_auth: bool,
    pub(crate) accept_invalid_certificates: bool,
    pub(crate) accept_invalid_hostnames: bool,
    /// Why it could not be read from a file; see `file/host.rs`.
    #[cfg(feature = "serde")]
    pub(super) fault: Option<Box<OptionsError>>,
}

impl Host {
    fn new(name: impl Into<String>, port: u16, security: Security) -> Self {
        Self {
            name: name.into(),
            port,
            security,
            login: None,
            auth_mechanisms: vec![Mechanism::Plain, Mechanism::Login],
            hello_name: None,
            priority: 0,
            weight: 1,
            max_connections: None,
            root_certificates: Vec::new(),
            client_identity: None,
            local_address: None,
            single_round_trip: false,
            plaintext_auth: false,
            accept_invalid_certificates: false,
            accept_invalid_hostnames: false,
            #[cfg(feature = "serde")]
            fault: None,
        }
    }

    /// The same host with the credentials, of which no copy stays here.
    pub(crate) fn detach(&mut self) -> Self {
        let login = self.login.as_mut().map(Login::take);
        Self { login, ..self.clone() }
    }

    /// A host on the submission port, 587, where TLS begins with STARTTLS
    /// ([RFC 3207](https://www.rfc-editor.org/rfc/rfc3207)).
    ///
    /// Required means required: a server that does not offer STARTTLS, or refuses it, gets neither credentials nor mail.
    #[must_use]
    pub fn starttls(name: impl Into<String>) -> Self {
        Self::new(name, 587, Security::StartTls)
    }

    /// A host on port 465, where TLS begins with the first byte ([RFC 8314](https://www.rfc-editor.org/rfc/rfc8314)).
    #[must_use]
    pub fn implicit_tls(name: impl Into<String>) -> Self {
        Self::new(name, 465, Security::ImplicitTls)
    }

    /// A host on port 25 without encryption. Refuses AUTH: credentials would travel in the clear.
    #[must_use]
    pub fn plain(name: impl Into<String>) -> Self {
        Self::new(name, 25, Security::Plain)
    }

    /// A host on port 25 that is encrypted if the server offers STARTTLS, and not if it, or somebody on the way, says otherwise.
    ///
    /// Dangerous because anybody on the way can take the offer out and read everything. Refuses AUTH when the offer is missing.
    #[must_use]
    pub fn dangerous_opportunistic_starttls(name: impl Into<String>) -> Self {
        Self::new(name, 25, Security::OpportunisticStartTls)
    }

    /// The TCP port. Default: 587, 465 or 25, by constructor.
    #[must_use]
    pub const fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// User name and password (for XOAUTH2: the bearer token) to authenticate with. Default: none, no AUTH.
    ///
    /// Both are kept out of `Debug`, logs and errors, and overwritten in memory when the sender is dropped or
    /// [rotates](crate::SmtpSender::rotate_credentials) them; copies in buffers of the TLS library and the kernel are out of reach.
    /// Takes the place of [`credentials_with`](Self::credentials_with).
    #[must_use]
    pub fn credentials(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.login = Some(Login::Fixed(Credentials::new(user, password)));
        self
    }

    /// Asks `supplier` for the credentials of each connection that is opened: for tokens that expire (OAuth 2), for secrets out of a
    /// vault. Takes the place of [`credentials`](Self::credentials).
    ///
    /// - It is called before the connection is, in a thread of its own, so that no caller waits for it past its deadline or
    ///   `auth_timeout`. One that hangs is joined by nobody after `auth_timeout`; at most four hang at a time. Connections that are
    ///   opened together share one call.
    /// - Nothing is kept from one connection to the next. A supplier that has to ask somebody else should keep the token for as long
    ///   as it lasts.
    /// - If the server refuses the credentials (535, 534) it is called once more, and if other ones come of that they are tried, on
    ///   the same connection, within the same `auth_timeout`. Refused again they are taken for wrong: a permanent failure, and the
    ///   host pauses for `max_reconnect_cooldown`, as with fixed ones.
    /// - An error, a panic or no answer in time counts as a failure to connect: other hosts are used, the host cools down (so that
    ///   whoever issues the tokens is not asked over and over), and the failure is safe to retry. Connections that are open stay in use.
    /// - The error is in the [`source`](std::error::Error::source) of the [`SendError`](crate::SendError) and nowhere else: not in a
    ///   log record, a status, or a `Debug` of ours, because it may repeat what was sent to, or came from, the issuer. With
    ///   connections that share a call, it is the same error for all.
    ///
    /// What it returns is a password or a token, which only the program knows: for tokens, allow XOAUTH2 and nothing else by
    /// [`auth_mechanisms`](Self::auth_mechanisms).
    ///
    /// ```
    /// use lettre::transport::smtp::authentication::Mechanism;
    /// use smtp_pool::{Credentials, Host};
    /// # fn current_token() -> Result<String, std::io::Error> { Ok(String::new()) }
    ///
    /// let host = Host::starttls("smtp.example.com")
    ///     .auth_mechanisms([Mechanism::Xoauth2])
    ///     .credentials_with(|| Ok(Credentials::new("shop@example.com", current_token()?)));
    /// ```
    #[must_use]
    pub fn credentials_with<F>(mut self, supplier: F) -> Self
    where
        F: Fn() -> Result<Credentials, Box<dyn StdError + Send + Sync>> + Send + Sync + 'static,
    {
        self.login = Some(Login::Supplied(Supplier::new(supplier)));
        self
    }

    /// The AUTH mechanisms allowed, the preferred first. Default: PLAIN, then LOGIN, whatever the credentials are and wherever they come
    /// from. The first one that the server offers too is used.
    ///
    /// List just `Mechanism::Xoauth2` for a service that takes bearer tokens: it is never used unless it is listed, and with it alone no
    /// token is ever sent as a password.
    #[must_use]
    pub fn auth_mechanisms(mut self, mechanisms: impl Into<Vec<Mechanism>>) -> Self {
        self.auth_mechanisms = mechanisms.into();
        self
    }

    /// The name to say EHLO with: a fully qualified domain name, or an address literal in brackets. Default: the address literal of
    /// the connection's own end, as [RFC 5321 §4.1.4](https://www.rfc-editor.org/rfc/rfc5321#section-4.1.4) asks of a client without
    /// a name. Set it when the server wants a name that resolves.
    #[must_use]
    pub fn hello_name(mut self, name: impl Into<String>) -> Self {
        self.hello_name = Some(name.into());
        self
    }

    /// The tier: hosts with the lowest number are used while one of them works. Default: 0. Give a standby a higher number.
    #[must_use]
    pub const fn priority(mut self, priority: u32) -> Self {
        self.priority = priority;
        self
    }

    /// The share of messages among the hosts of one priority, at least 1. Default: 1.
    #[must_use]
    pub const fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// Bound on live connections to this host, at least 1. Default: none but `max_size`.
    ///
    /// Lower it to what the provider allows (Exchange Online: 3 a mailbox); raise it only with the provider's word.
    #[must_use]
    pub const fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = Some(connections);
        self
    }

    /// A further certificate, PEM or DER, to trust as a root for this host. Default: the system's roots only. May be called
    /// repeatedly.
    #[must_use]
    pub fn root_certificate(mut self, certificate: impl Into<Vec<u8>>) -> Self {
        self.root_certificates.push(certificate.into());
        self
    }

    /// A client certificate chain and its PKCS #8 key, both PEM, to show when the server asks for one. Default: none.
    #[must_use]
    pub fn client_identity(mut self, certificates: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.client_identity =
            Some(ClientIdentity { certificates: certificates.into(), key: Zeroizing::new(key.into()) });
        self
    }

    /// The address to connect from. Default: what the routing table says.
    #[must_use]
    pub const fn local_address(mut self, address: IpAddr) -> Self {
        self.local_address = Some(address);
        self
    }

    /// Whether a small message to one recipient may leave in one write, `MAIL`, `RCPT` and `BDAT … LAST` with the content
    /// ([RFC 3030 §2](https://www.rfc-editor.org/rfc/rfc3030#section-2), pipelined by
    /// [RFC 2920 §3.1](https://www.rfc-editor.org/rfc/rfc2920#section-3.1)), so that it takes one round trip instead of two. Default:
    /// `false`.
    ///
    /// It is done where the server offers CHUNKING and PIPELINING on the connection, the content has 4 096 bytes at most (Postfix gains
    /// nothing beyond), and the connection was opened or used in the last 5 seconds with nothing refused since; any other message goes
    /// by `DATA`.
    ///
    /// Not by default because of its price: the last byte leaves with the first, so a connection that breaks anywhere in the dialogue
    /// leaves the outcome unknown ([`UnknownAfterData`](crate::FailureKind::UnknownAfterData)), where with `DATA` most of these
    /// failures are harmless and a stale connection is replaced unnoticed. And because a faulty relay that refuses BDAT without reading
    /// its chunk takes the content for commands, which whoever writes the content may use. A host that is seen to get it wrong
    /// is sent to by `DATA` from then on, by this pool; if it says that it does not know BDAT, the same message is sent that way at once.
    ///
    /// Switch it on for a relay of your own whose software you know (Postfix, Exim), a long way off, when the round trip is what a
    /// message waits for and an unknown outcome now and then is dealt with. Leave it off for everybody else's servers.
    #[must_use]
    pub const fn single_round_trip(mut self, wanted: bool) -> Self {
        self.single_round_trip = wanted;
        self
    }

    /// Allows AUTH over an unencrypted connection. Dangerous: everybody on the way can read the password.
    #[must_use]
    pub const fn dangerous_plaintext_auth(mut self, allowed: bool) -> Self {
        self.plaintext_auth = allowed;
        self
    }

    /// Accepts any certificate: self-signed, expired, from anybody. Dangerous: the encryption then protects against nobody who can
    /// answer in the server's place.
    #[must_use]
    pub const fn dangerous_accept_invalid_certificates(mut self, accepted: bool) -> Self {
        self.accept_invalid_certificates = accepted;
        self
    }

    /// Accepts a valid certificate of any name. Dangerous: whoever owns any name can answer in the server's place.
    #[must_use]
    pub const fn dangerous_accept_invalid_hostnames(mut self, accepted: bool) -> Self {
        self.accept_invalid_hostnames = accepted;
        self
    }
}

impl FromStr for Host {
    type Err = OptionsError;

    /// Reads `smtp://user:password@name:port?…` (STARTTLS required, port 587) or `smtps://…` (implicit TLS, port 465).
    ///
    /// Parameters: `tls` (`required`, or `none` and `opportunistic` for `smtp:` alone), `priority`, `weight`, `max_connections`,
    /// `hello_name`, `auth` (a comma-separated list of `plain`, `login`, `xoauth2`), `single_round_trip` and `dangerous_plaintext_auth`
    /// (`true` or `false`). User and password are percent-decoded; in them `:` (in the user), `/`, `?`, `#`, `%` and control characters
    /// are to be written as `%3A`, `%2F`, `%3F`, `%23`, `%25` and so on.
    ///
    /// # Errors
    ///
    /// [`OptionsError`] for anything else; its text never shows user or password.
    fn from_str(text: &str) -> Result<Self, OptionsError> {
        url::parse(text)
    }
}
