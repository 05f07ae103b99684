//! A message the server has taken.

use std::fmt;
use std::sync::Arc;

/// A message the server has stored, cheap to clone.
#[derive(Clone)]
pub struct ReceivedMessage(pub(super) Arc<Stored>);

#[derive(Debug)]
pub(super) struct Stored {
    pub(super) message_id: Option<String>,
    pub(super) mail_from: String,
    pub(super) mail_parameters: Vec<String>,
    pub(super) recipients: Vec<String>,
    pub(super) recipient_parameters: Vec<Vec<String>>,
    pub(super) content: Vec<u8>,
    pub(super) connection: usize,
    pub(super) authenticated_as: Option<String>,
    pub(super) encrypted: bool,
}

impl ReceivedMessage {
    /// The value of the `Message-ID` header, angle brackets included.
    #[must_use]
    pub fn message_id(&self) -> Option<&str> {
        self.0.message_id.as_deref()
    }

    /// The address of `MAIL FROM`, without angle brackets; empty for a bounce.
    #[must_use]
    pub fn mail_from(&self) -> &str {
        &self.0.mail_from
    }

    /// The parameters of `MAIL`, as sent: `SIZE=1234`, `BODY=8BITMIME`.
    #[must_use]
    pub fn mail_parameters(&self) -> &[String] {
        &self.0.mail_parameters
    }

    /// The accepted recipients, in order, without angle brackets.
    #[must_use]
    pub fn recipients(&self) -> &[String] {
        &self.0.recipients
    }

    /// The parameters of each accepted `RCPT`, in the order of [`recipients`](Self::recipients).
    #[must_use]
    pub fn recipient_parameters(&self) -> &[Vec<String>] {
        &self.0.recipient_parameters
    }

    /// Header and body as received, dot-stuffing undone, the final dot not included.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        &self.0.content
    }

    /// The number of the connection it came over; the first is 1.
    #[must_use]
    pub fn connection(&self) -> usize {
        self.0.connection
    }

    /// The user name, if the client had authenticated.
    #[must_use]
    pub fn authenticated_as(&self) -> Option<&str> {
        self.0.authenticated_as.as_deref()
    }

    /// Whether it came inside TLS.
    #[must_use]
    pub fn was_encrypted(&self) -> bool {
        self.0.encrypted
    }
}

impl fmt::Debug for ReceivedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceivedMessage")
            .field("message_id", &self.0.message_id)
            .field("mail_from", &self.0.mail_from)
            .field("recipients", &self.0.recipients)
            .field("bytes", &self.0.content.len())
            .field("connection", &self.0.connection)
            .finish_non_exhaustive()
    }
}

/// The `Message-ID` of a message: any case, folded lines joined.
pub(super) fn message_id(content: &[u8]) -> Option<String> {
    let mut value: Option<Vec<u8>> = None;
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        let line = line.trim_ascii_end();
        if line.is_empty() {
            break;
        }
        if let Some(value) = &mut value {
            if !line.starts_with(b" ") && !line.starts_with(b"\t") {
                break;
            }
            value.extend_from_slice(line);
        } else if let Some(colon) = line.iter().position(|byte| *byte == b':') {
            if line[..colon].trim_ascii_end().eq_ignore_ascii_case(b"message-id") {
                value = Some(line[colon + 1..].to_vec());
            }
        }
    }
    value.map(|value| String::from_utf8_lossy(value.trim_ascii()).into_owned())
}

/// What message ids are compared by: with or without angle brackets and blanks.
pub(super) fn id_key(id: &str) -> &str {
    let id = id.trim();
    id.strip_prefix('<').and_then(|id| id.strip_suffix('>')).unwrap_or(id)
}
