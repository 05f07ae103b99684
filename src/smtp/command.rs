//! Commands as bytes.
//!
//! Written straight into the command buffer rather than through `lettre::transport::smtp::commands`, whose types own a copy of each
//! address; what may stand in them is checked by `admission` before the first byte leaves.

use lettre::Address;

use crate::options::RecipientPolicy;

pub(super) const RSET: &[u8] = b"RSET\r\n";
pub(super) const NOOP: &[u8] = b"NOOP\r\n";
pub(super) const DATA: &[u8] = b"DATA\r\n";
pub(super) const QUIT: &[u8] = b"QUIT\r\n";
pub(super) const STARTTLS: &[u8] = b"STARTTLS\r\n";
/// The end of data on a line of its own.
pub(super) const DOT: &[u8] = b".\r\n";

/// What MAIL says besides the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MailParameters {
    /// `SIZE=`, [RFC 1870](https://www.rfc-editor.org/rfc/rfc1870).
    pub(super) size: Option<usize>,
    /// `BODY=8BITMIME`, [RFC 6152](https://www.rfc-editor.org/rfc/rfc6152).
    pub(super) eight_bit_mime: bool,
    /// `SMTPUTF8`, [RFC 6531](https://www.rfc-editor.org/rfc/rfc6531).
    pub(super) smtp_utf8: bool,
}

pub(super) fn mail(out: &mut Vec<u8>, sender: Option<&Address>, parameters: MailParameters) {
    out.extend_from_slice(b"MAIL FROM:<");
    out.extend_from_slice(sender.map_or("", |sender| sender.as_ref()).as_bytes());
    out.push(b'>');
    if let Some(size) = parameters.size {
        out.extend_from_slice(b" SIZE=");
        push_number(out, size);
    }
    if parameters.eight_bit_mime {
        out.extend_from_slice(b" BODY=8BITMIME");
    }
    if parameters.smtp_utf8 {
        out.extend_from_slice(b" SMTPUTF8");
    }
    out.extend_from_slice(b"\r\n");
}

pub(super) fn rcpt(out: &mut Vec<u8>, recipient: &Address) {
    out.extend_from_slice(b"RCPT TO:<");
    out.extend_from_slice(AsRef::<str>::as_ref(recipient).as_bytes());
    out.extend_from_slice(b">\r\n");
}

/// The one and last chunk of a message ([RFC 3030 §2](https://www.rfc-editor.org/rfc/rfc3030#section-2)).
pub(super) fn bdat_last(out: &mut Vec<u8>, octets: usize) {
    out.extend_from_slice(b"BDAT ");
    push_number(out, octets);
    out.extend_from_slice(b" LAST\r\n");
}

fn push_number(out: &mut Vec<u8>, number: usize) {
    // Writing to a Vec cannot fail.
    let _ = std::io::Write::write_fmt(out, format_args!("{number}"));
}

/// Whether DATA may leave before the replies to RCPT are read.
///
/// Only if its outcome cannot go wrong: once 354 is there, the content goes to whoever was accepted, so with all recipients or none,
/// and more than one of them, the replies must be known first. An empty message to the accepted half is how other clients learned it.
pub(super) fn may_pipeline_data(recipients: usize, policy: RecipientPolicy) -> bool {
    recipients == 1 || policy == RecipientPolicy::AcceptPartial
}
