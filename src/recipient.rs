//! What became of each recipient.

use lettre::Address;

use crate::reply::Reply;

/// What became of one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecipientOutcome {
    /// The recipient.
    pub address: Address,
    /// Whether the message was accepted for it.
    pub status: RecipientStatus,
    /// The server's reply that decided, usually the one to `RCPT`; none if no reply did.
    pub reply: Option<Reply>,
}

/// Whether a message was accepted for a recipient.
///
/// In a [`Receipt`](crate::Receipt), and in an error of kind [`UnknownAfterData`](crate::FailureKind::UnknownAfterData), it is about the
/// message. Any other error means that no recipient got the message: with all recipients or none
/// ([`AllOrNothing`](crate::RecipientPolicy::AllOrNothing)) the status then tells what the server said to `RCPT`, as far as it was asked,
/// which shows whom it minded.
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
    /// The message was not sent to it, and nobody refused it: the sending ended early. Sending to it again is safe.
    NotSent,
    /// It was among the recipients of a transaction whose last byte was offered and not answered: it may have got the message.
    Unknown,
}
