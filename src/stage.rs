//! How far a message got.

use std::fmt;

/// How far a message had got when its `send` ended, in the order in which a message passes them.
///
/// The stage moves *before* each write, so it never says less than what the server may have seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum SendStage {
    /// Nothing was tried on the network for this message, or no TCP connection came about.
    BeforeConnect,
    /// A TCP connection stood; the greeting, EHLO, TLS or AUTH was not finished.
    Connected,
    /// A session was ready and nothing of this message had been offered.
    Authenticated,
    /// The first byte of `MAIL` (or of the `RSET` in front of it) was about to be written.
    EnvelopeStarted,
    /// The first byte of the message's content was about to be written.
    DataStarted,
    /// The write that holds the message's last byte was about to start: from here on the server may have accepted it. A message that
    /// leaves in one write ([`Host::single_round_trip`](crate::Host::single_round_trip)) has no stage between `Authenticated` and this.
    DataCompleted,
    /// A complete 2xx to the whole message was read.
    ServerAccepted,
}

impl SendStage {
    /// Whether a failure at this stage, without a decisive reply, leaves it unknown if the server accepted the message.
    ///
    /// This is the commit point of the whole crate: [RFC 5321 §4.1.1.4](https://www.rfc-editor.org/rfc/rfc5321#section-4.1.1.4)
    /// lets the server process the message only once it has read the end of mail data.
    #[must_use]
    pub const fn is_acceptance_unknown(self) -> bool {
        matches!(self, Self::DataCompleted)
    }

    /// The stage as a label: `before_connect`, `connected`, …
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BeforeConnect => "before_connect",
            Self::Connected => "connected",
            Self::Authenticated => "authenticated",
            Self::EnvelopeStarted => "envelope_started",
            Self::DataStarted => "data_started",
            Self::DataCompleted => "data_completed",
            Self::ServerAccepted => "server_accepted",
        }
    }
}

impl fmt::Display for SendStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BeforeConnect => "before connecting",
            Self::Connected => "while opening the session",
            Self::Authenticated => "before the envelope",
            Self::EnvelopeStarted => "in the envelope",
            Self::DataStarted => "in the content",
            Self::DataCompleted => "after the last byte",
            Self::ServerAccepted => "after acceptance",
        })
    }
}
