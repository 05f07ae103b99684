//! The sender as lettre's `Transport`, so that code written against that trait needs no change.

use lettre::Transport;
use lettre::address::Envelope;
use lettre::transport::smtp::response::{Category, Code, Detail, Response, Severity};

use crate::error::SendError;
use crate::reply::Reply;
use crate::report::Receipt;

use super::SmtpSender;

/// The same as [`SmtpSender::send_raw`], with the server's final reply as lettre's `Response`.
impl Transport for SmtpSender {
    type Ok = Response;
    type Error = SendError;

    fn send_raw(&self, envelope: &Envelope, email: &[u8]) -> Result<Response, SendError> {
        Self::send_raw(self, envelope, email).map(Response::from)
    }

    /// Refuses new work and closes idle connections. Sends that run go on to their end.
    fn shutdown(&self) {
        self.inner.pool.close();
        self.inner.pause.end();
    }
}

impl From<Receipt> for Response {
    fn from(receipt: Receipt) -> Self {
        Self::from(receipt.response())
    }
}

impl From<&Reply> for Response {
    /// The reply in lettre's words. Its second digit knows 0 to 5, as RFC 5321 does; a server's 6 to 9 become 5.
    fn from(reply: &Reply) -> Self {
        let digit = |place: u16| usize::from(reply.code() / place % 10);
        const SEVERITIES: [Severity; 4] = [
            Severity::PositiveCompletion,
            Severity::PositiveIntermediate,
            Severity::TransientNegativeCompletion,
            Severity::PermanentNegativeCompletion,
        ];
        const CATEGORIES: [Category; 6] = [
            Category::Syntax,
            Category::Information,
            Category::Connections,
            Category::Unspecified3,
            Category::Unspecified4,
            Category::MailSystem,
        ];
        const DETAILS: [Detail; 10] = [
            Detail::Zero,
            Detail::One,
            Detail::Two,
            Detail::Three,
            Detail::Four,
            Detail::Five,
            Detail::Six,
            Detail::Seven,
            Detail::Eight,
            Detail::Nine,
        ];
        // A reply's code is 200 to 599.
        let code = Code::new(SEVERITIES[digit(100) - 2], CATEGORIES[digit(10).min(5)], DETAILS[digit(1)]);
        let lines = reply.lines().map(|line| String::from_utf8_lossy(line).into_owned());
        Self::new(code, lines.collect())
    }
}
