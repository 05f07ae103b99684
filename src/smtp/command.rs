//! Commands as bytes.
//!
//! Written straight into the command buffer rather than through `lettre::transport::smtp::commands`, whose types own a copy of each
//! address; what may stand in them is checked by `admission` before the first byte leaves.

use lettre::Address;

use crate::options::{Dsn, RecipientPolicy};

pub(super) const RSET: &[u8] = b"RSET\r\n";
pub(super) const NOOP: &[u8] = b"NOOP\r\n";
pub(super) const DATA: &[u8] = b"DATA\r\n";
pub(super) const QUIT: &[u8] = b"QUIT\r\n";
pub(super) const STARTTLS: &[u8] = b"STARTTLS\r\n";
/// The end of data on a line of its own.
pub(super) const DOT: &[u8] = b".\r\n";

/// What MAIL says besides the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct MailParameters<'a> {
    /// `SIZE=`, [RFC 1870](https://www.rfc-editor.org/rfc/rfc1870).
    pub(super) size: Option<usize>,
    /// `BODY=8BITMIME`, [RFC 6152](https://www.rfc-editor.org/rfc/rfc6152).
    pub(super) eight_bit_mime: bool,
    /// `SMTPUTF8`, [RFC 6531](https://www.rfc-editor.org/rfc/rfc6531).
    pub(super) smtp_utf8: bool,
    /// `RET=` and `ENVID=`, [RFC 3461](https://www.rfc-editor.org/rfc/rfc3461), and what RCPT says of it.
    pub(super) dsn: Option<&'a Dsn>,
}

pub(super) fn mail(out: &mut Vec<u8>, sender: Option<&Address>, parameters: MailParameters<'_>) {
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
    if let Some(content) = parameters.dsn.and_then(|dsn| dsn.content) {
        push_parameter(out, " RET=", content.keyword());
    }
    if let Some(id) = parameters.dsn.and_then(|dsn| dsn.envelope_id.as_deref()) {
        push_parameter(out, " ENVID=", id);
    }
    out.extend_from_slice(b"\r\n");
}

pub(super) fn rcpt(out: &mut Vec<u8>, recipient: &Address, dsn: Option<&Dsn>) {
    out.extend_from_slice(b"RCPT TO:<");
    out.extend_from_slice(AsRef::<str>::as_ref(recipient).as_bytes());
    out.push(b'>');
    if let Some(dsn) = dsn {
        let (notify, original) = dsn.of(recipient);
        for (index, keyword) in notify.iter().flat_map(|notify| notify.keywords()).enumerate() {
            push_parameter(out, if index == 0 { " NOTIFY=" } else { "," }, keyword);
        }
        if let Some(original) = original {
            push_parameter(out, " ORCPT=", original);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// The one and last chunk of a message ([RFC 3030 §2](https://www.rfc-editor.org/rfc/rfc3030#section-2)).
pub(super) fn bdat_last(out: &mut Vec<u8>, octets: usize) {
    out.extend_from_slice(b"BDAT ");
    push_number(out, octets);
    out.extend_from_slice(b" LAST\r\n");
}

fn push_parameter(out: &mut Vec<u8>, keyword: &str, value: &str) {
    out.extend_from_slice(keyword.as_bytes());
    out.extend_from_slice(value.as_bytes());
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::options::{DsnReturn, Notify, RecipientDsn};

    /// The parameters of a line, taken apart by the grammar of RFC 3461 and RFC 5321 alone.
    fn parameters(line: &[u8], command: &str) -> Vec<(String, String)> {
        let line = std::str::from_utf8(line).unwrap().strip_suffix("\r\n").unwrap();
        let rest = line.strip_prefix(command).unwrap();
        assert!(rest.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{line:?}");
        // No blank is left but the one in front of each.
        rest.split(' ').skip(1).map(|one| one.split_once('=').unwrap()).map(|(a, b)| (a.into(), b.into())).collect()
    }

    /// What an xtext stands for, by its definition: `xchar`s for themselves, `hexchar`s in upper case.
    fn decoded(xtext: &str) -> String {
        let mut text = String::new();
        let mut rest = xtext;
        while let Some(first) = rest.chars().next() {
            let taken = if first == '+' {
                assert!(rest[1..3].chars().all(|c| matches!(c, '0'..='9' | 'A'..='F')), "{xtext}");
                text.push(char::from(u8::from_str_radix(&rest[1..3], 16).unwrap()));
                3
            } else {
                assert!(('!'..='~').contains(&first) && first != '=', "{xtext}");
                text.push(first);
                1
            };
            rest = &rest[taken..];
        }
        text
    }

    proptest! {
        #[test]
        fn what_dsn_says_reads_back_as_it_was_asked(
            id in "[ -~]{1,33}",
            original in "[ -~]{1,160}",
            occasions in prop::collection::vec(0usize..3, 0..4),
            full in any::<bool>(),
        ) {
            let all = [(Notify::SUCCESS, "SUCCESS"), (Notify::FAILURE, "FAILURE"), (Notify::DELAY, "DELAY")];
            let notify = occasions.iter().fold(Notify::NEVER, |notify, &one| notify | all[one].0);
            let address: Address = "b@example.com".parse().unwrap();
            let own = RecipientDsn::new().original_recipient(&original).unwrap();
            let content = if full { DsnReturn::Full } else { DsnReturn::Headers };
            let dsn = Dsn::new().content(content).notify(notify).envelope_id(&id).unwrap().recipient(address.clone(), own);

            let mut line = Vec::new();
            mail(&mut line, None, MailParameters { dsn: Some(&dsn), ..MailParameters::default() });
            let said = parameters(&line, "MAIL FROM:<>");
            prop_assert_eq!(said.len(), 2);
            prop_assert_eq!(&said[0], &("RET".to_owned(), if full { "FULL" } else { "HDRS" }.to_owned()));
            prop_assert_eq!(&said[1].0, "ENVID");
            prop_assert!(said[1].1.len() <= 100);
            prop_assert_eq!(decoded(&said[1].1), id);

            line.clear();
            rcpt(&mut line, &address, Some(&dsn));
            let said = parameters(&line, "RCPT TO:<b@example.com>");
            prop_assert_eq!((said.len(), &*said[0].0, &*said[1].0), (2, "NOTIFY", "ORCPT"));
            let words: Vec<&str> = said[0].1.split(',').collect();
            if occasions.is_empty() {
                prop_assert_eq!(words, ["NEVER"]);
            } else {
                prop_assert!(all.iter().enumerate().all(|(at, (_, word))| occasions.contains(&at) == words.contains(word)));
                prop_assert!(words.iter().all(|word| all.iter().filter(|(_, known)| known == word).count() == 1));
            }
            prop_assert!(said[1].1.len() <= 500);
            prop_assert_eq!(decoded(said[1].1.strip_prefix("rfc822;").unwrap()), original);
        }

        #[test]
        fn text_from_anywhere_is_said_safely_or_refused(text in "\\PC{0,120}|[\\x00-\\x7f]{0,120}") {
            let address: Address = "b@example.com".parse().unwrap();
            let mut lines = Vec::new();
            let id = Dsn::new().envelope_id(&text);
            prop_assert!(id.is_ok() || id.as_ref().is_err_and(|error| error.option() == "envelope_id"));
            if let Ok(dsn) = &id {
                mail(&mut lines, None, MailParameters { dsn: Some(dsn), ..MailParameters::default() });
                prop_assert_eq!(decoded(&parameters(&lines, "MAIL FROM:<>")[0].1), text.clone());
                lines.clear();
            }
            if let Ok(own) = RecipientDsn::new().original_recipient(&text) {
                rcpt(&mut lines, &address, Some(&Dsn::new().recipient(address.clone(), own)));
                let said = parameters(&lines, "RCPT TO:<b@example.com>");
                prop_assert_eq!(decoded(said[0].1.strip_prefix("rfc822;").unwrap()), text);
            }
        }
    }
}
