//! What is refused before a byte of it leaves.

use lettre::address::Envelope;

use crate::event::{Inadmissible, Party};

use super::capabilities::Capabilities;
use super::command::MailParameters;

/// The MAIL parameters of a message that this server can take, or why it cannot.
pub(super) fn admit(
    envelope: &Envelope,
    content: &[u8],
    server: &Capabilities,
) -> Result<MailParameters, Inadmissible> {
    let mut smtp_utf8 = false;
    let recipients = envelope.to().iter().enumerate().map(|(index, address)| (Party::Recipient(index + 1), address));
    for (party, address) in envelope.from().map(|sender| (Party::Sender, sender)).into_iter().chain(recipients) {
        let address: &str = address.as_ref();
        if !is_writable(address) {
            return Err(Inadmissible::Address(party));
        }
        if !address.is_ascii() {
            if !server.smtp_utf8 {
                return Err(Inadmissible::NeedsSmtpUtf8(party));
            }
            smtp_utf8 = true;
        }
    }
    let eight_bit_mime = !content.is_ascii();
    if eight_bit_mime && !server.eight_bit_mime {
        return Err(Inadmissible::NeedsEightBitMime);
    }
    let size = content.len() as u64;
    match server.size_limit {
        Some(limit) if size > limit => Err(Inadmissible::TooLarge { size, limit }),
        _ => Ok(MailParameters { size: server.size.then_some(content.len()), eight_bit_mime, smtp_utf8 }),
    }
}

/// Whether `address` stays inside its angle brackets and its line. lettre's parser sees to that; this is the last look before the
/// wire, at whatever constructor made the address.
fn is_writable(address: &str) -> bool {
    // Most addresses hold nothing that would need a second thought.
    if address.bytes().all(|byte| matches!(byte, b'!'..=b'~') && !matches!(byte, b'"' | b'\\' | b'<' | b'>')) {
        return true;
    }
    let mut quoted = false;
    let mut escaped = false;
    let stays_inside = address.bytes().all(|byte| {
        let was_escaped = escaped;
        escaped = quoted && byte == b'\\' && !was_escaped;
        match byte {
            0..b' ' | 0x7f => false,
            b'"' if !was_escaped => {
                quoted = !quoted;
                true
            }
            b'<' | b'>' | b' ' => quoted,
            _ => true,
        }
    });
    // A quotation without end would take the bracket behind it in.
    stays_inside && !quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(recipient: &str) -> Envelope {
        Envelope::new(Some("a@example.com".parse().unwrap()), vec![recipient.parse().unwrap()]).unwrap()
    }

    #[test]
    fn no_address_can_leave_its_brackets() {
        for hostile in [
            "a\r\nRCPT TO:<b",
            "a\nb",
            "a\0b",
            "a>b",
            "a<b",
            "a b",
            "a\u{7f}b",
            "\"a\r\nb\"",
            "\"a\"> \"b",
            "\"a\\\"b\"c>",
            "\"a",
            "\"a> SIZE=1",
            "\"a\\\"",
        ] {
            assert!(!is_writable(hostile), "{hostile:?}");
        }
        for harmless in ["a", "a.b+c@d", "\"a > b\"@d", "\"a \\\" > b\"@d", "\u{560a}\u{10d}@d", "'@d"] {
            assert!(is_writable(harmless), "{harmless:?}");
        }
    }

    #[test]
    fn what_the_server_does_not_offer_is_refused_here() {
        let bare = Capabilities::default();
        let full =
            Capabilities { smtp_utf8: true, eight_bit_mime: true, size: true, size_limit: Some(5), ..bare.clone() };
        let ascii = envelope("b@example.com");
        let foreign = envelope("ü@example.com");
        let plain = MailParameters { size: None, eight_bit_mime: false, smtp_utf8: false };
        assert_eq!(admit(&ascii, b"x", &bare), Ok(plain));
        assert_eq!(admit(&ascii, b"\xfc", &bare), Err(Inadmissible::NeedsEightBitMime));
        assert_eq!(admit(&foreign, b"x", &bare), Err(Inadmissible::NeedsSmtpUtf8(Party::Recipient(1))));
        assert_eq!(
            admit(&foreign, b"\xfc", &full),
            Ok(MailParameters { size: Some(1), eight_bit_mime: true, smtp_utf8: true })
        );
        assert_eq!(admit(&ascii, b"123456", &full), Err(Inadmissible::TooLarge { size: 6, limit: 5 }));
        assert_eq!(admit(&ascii, b"12345", &full).unwrap().size, Some(5));
    }
}
