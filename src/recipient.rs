//! What became of each recipient.

use lettre::Address;

use crate::reply::Reply;

/// What a server said to one `RCPT`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecipientOutcome {
    /// The recipient.
    pub address: Address,
    /// Whether it was accepted.
    pub status: RecipientStatus,
    /// The server's reply to it.
    pub reply: Reply,
}

/// Whether a recipient was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RecipientStatus {
    /// The server took it (2yz; 251 and 252 among them).
    Accepted,
    /// Refused for now (4yz, or 552 after an accepted recipient: too many of them,
    /// [RFC 5321 §4.5.3.1.10](https://www.rfc-editor.org/rfc/rfc5321#section-4.5.3.1.10)).
    RefusedForNow,
    /// Refused for good (5yz).
    Refused,
}
