//! What is refused before a byte of it leaves.

use std::collections::HashSet;

use lettre::address::Envelope;

use crate::event::{Inadmissible, Party};
use crate::options::{Dsn, RecipientPolicy};

use super::capabilities::Capabilities;
use super::command::MailParameters;
use super::transaction::Mail;

/// The MAIL parameters of a message that this server can take, or why it cannot.
pub(super) fn admit<'a>(mail: &Mail<'a>, server: &Capabilities) -> Result<MailParameters<'a>, Inadmissible> {
    let Mail { envelope, to, content, policy, dsn } = *mail;
    match (policy, server.rcpt_max) {
        (RecipientPolicy::AllOrNothing, Some(limit)) if to.len() > limit as usize => {
            return Err(Inadmissible::TooManyRecipients { count: to.len(), limit });
        }
        _ => {}
    }
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
    let eight_bit_mime = content.is_eight_bit;
    if eight_bit_mime && !server.eight_bit_mime {
        return Err(Inadmissible::NeedsEightBitMime);
    }
    let dsn = admit_dsn(dsn, envelope, server)?;
    let size = server.size.then_some(content.size);
    match (size, server.size_limit) {
        (Some(size), Some(limit)) if size as u64 > limit => Err(Inadmissible::TooLarge { size: size as u64, limit }),
        _ => Ok(MailParameters { size, eight_bit_mime, smtp_utf8, dsn }),
    }
}

/// What may be said of DSN.
fn admit_dsn<'a>(
    dsn: Option<&'a Dsn>,
    envelope: &Envelope,
    server: &Capabilities,
) -> Result<Option<&'a Dsn>, Inadmissible> {
    let Some(dsn) = dsn else { return Ok(None) };
    if !dsn.recipients.is_empty() {
        let known: HashSet<_> = envelope.to().iter().collect();
        if !dsn.recipients.keys().all(|address| known.contains(address)) {
            return Err(Inadmissible::DsnOfStranger);
        }
    }
    match (server.dsn, dsn.is_optional) {
        (true, _) => Ok(Some(dsn)),
        (false, true) => Ok(None),
        (false, false) => Err(Inadmissible::NeedsDsn),
    }
}

/// Which octets may stand in an address outside of a quotation. A table, because comparisons took longer than all else that is looked at
/// here.
const IS_PLAIN: [bool; 256] = {
    let mut is_plain = [true; 256];
    let mut octet = 0u8;
    loop {
        is_plain[octet as usize] = octet > b' ' && !matches!(octet, 0x7f | b'"' | b'\\' | b'<' | b'>');
        match octet.checked_add(1) {
            Some(next) => octet = next,
            None => break is_plain,
        }
    }
};

/// Whether `address` stays inside its angle brackets and its line. lettre's parser sees to that; this is the last look before the
/// wire, at whatever constructor made the address.
///
/// Quotation marks and backslashes mean something only in a local part that is quoted as a whole
/// ([RFC 5321 §4.1.2](https://www.rfc-editor.org/rfc/rfc5321#section-4.1.2)). Elsewhere servers differ about them (Postfix escapes with
/// a backslash anywhere), and the bracket that is inside to us may be the closing one to them.
fn is_writable(address: &str) -> bool {
    let is_plain = |text: &str| text.bytes().all(|octet| IS_PLAIN[usize::from(octet)]);
    match address.strip_prefix('"') {
        None => is_plain(address),
        Some(quoted) => behind_quotation(quoted).is_some_and(|behind| behind.starts_with('@') && is_plain(behind)),
    }
}

/// What comes behind the mark that closes a quotation, of which `text` is the rest; `None` if it cannot stand in a command.
fn behind_quotation(text: &str) -> Option<&str> {
    let mut is_escaped = false;
    for (place, byte) in text.bytes().enumerate() {
        match byte {
            0..b' ' | 0x7f => return None,
            b'"' if !is_escaped => return Some(&text[place + 1..]),
            _ => is_escaped = byte == b'\\' && !is_escaped,
        }
    }
    // A quotation without end would take the bracket behind it in.
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Notify, RecipientDsn};

    fn envelope(recipient: &str) -> Envelope {
        Envelope::new(Some("a@example.com".parse().unwrap()), vec![recipient.parse().unwrap()]).unwrap()
    }

    fn mail<'a>(envelope: &'a Envelope, content: &'a [u8]) -> Mail<'a> {
        Mail { envelope, to: envelope.to(), content: content.into(), policy: RecipientPolicy::AllOrNothing, dsn: None }
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
        let plain = MailParameters::default();
        let admit = |envelope, content, server| admit(&mail(envelope, content), server);
        assert_eq!(admit(&ascii, b"x", &bare), Ok(plain));
        assert_eq!(admit(&ascii, b"\xfc", &bare), Err(Inadmissible::NeedsEightBitMime));
        assert_eq!(admit(&foreign, b"x", &bare), Err(Inadmissible::NeedsSmtpUtf8(Party::Recipient(1))));
        assert_eq!(
            admit(&foreign, b"\xfc", &full),
            Ok(MailParameters { size: Some(3), eight_bit_mime: true, smtp_utf8: true, dsn: None })
        );
        assert_eq!(admit(&ascii, b"123456\r\n", &full), Err(Inadmissible::TooLarge { size: 8, limit: 5 }));
        assert_eq!(admit(&ascii, b"123\r\n", &full).unwrap().size, Some(5));
        // What counts is what travels: each line with CR LF, the last one too.
        assert_eq!(admit(&ascii, b"1\n\n", &full).unwrap().size, Some(5));
        assert_eq!(admit(&ascii, b"1\n\n\n", &full), Err(Inadmissible::TooLarge { size: 7, limit: 5 }));
        assert_eq!(admit(&ascii, b"1234", &full), Err(Inadmissible::TooLarge { size: 6, limit: 5 }));
    }

    #[test]
    fn notifications_are_asked_for_where_they_are_offered() {
        let (without, with) = (Capabilities::default(), Capabilities { dsn: true, ..Capabilities::default() });
        let envelope = envelope("b@example.com");
        let dsn = Dsn::new().notify(Notify::DELAY);
        let admitted = |dsn, server| {
            let mail = Mail { dsn: Some(dsn), ..mail(&envelope, b"x") };
            admit(&mail, server).map(|parameters| parameters.dsn)
        };
        assert_eq!(admitted(&dsn, &with), Ok(Some(&dsn)));
        assert_eq!(admitted(&dsn, &without), Err(Inadmissible::NeedsDsn));
        let optional = dsn.clone().when_offered();
        assert_eq!(admitted(&optional, &with), Ok(Some(&optional)));
        assert_eq!(admitted(&optional, &without), Ok(None));
        let known = dsn.clone().recipient("b@example.com".parse().unwrap(), RecipientDsn::new());
        assert_eq!(admitted(&known, &with), Ok(Some(&known)));
        let stranger = known.clone().recipient("c@example.com".parse().unwrap(), RecipientDsn::new()).when_offered();
        for server in [&with, &without] {
            assert_eq!(admitted(&stranger, server), Err(Inadmissible::DsnOfStranger));
        }
    }

    #[test]
    fn all_of_more_recipients_than_the_server_takes_are_refused() {
        let envelope = envelope("b@example.com");
        let three = vec![envelope.to()[0].clone(); 3];
        let server = |rcpt_max| Capabilities { rcpt_max, ..Capabilities::default() };
        let all = Mail { to: &three, ..mail(&envelope, b"x") };
        let partial = Mail { policy: RecipientPolicy::AcceptPartial, ..all };
        let refused = Err(Inadmissible::TooManyRecipients { count: 3, limit: 2 });
        assert_eq!(admit(&all, &server(Some(2))), refused);
        for (mail, rcpt_max) in [(all, Some(3)), (all, None), (partial, Some(2))] {
            assert!(admit(&mail, &server(rcpt_max)).is_ok(), "{rcpt_max:?}");
        }
    }
}
