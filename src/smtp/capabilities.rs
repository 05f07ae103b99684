//! What a server offers in its reply to EHLO.

use std::str::FromStr;

use lettre::transport::smtp::authentication::Mechanism;

use crate::reply::Reply;

/// The extensions of one connection after its last EHLO; they are never carried over to another, or past STARTTLS
/// ([RFC 3207 §4.2](https://www.rfc-editor.org/rfc/rfc3207#section-4.2)).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Capabilities {
    pub(crate) pipelining: bool,
    /// BDAT ([RFC 3030](https://www.rfc-editor.org/rfc/rfc3030)).
    pub(crate) chunking: bool,
    /// Size of the largest message, if the server says one.
    pub(crate) size_limit: Option<u64>,
    /// Whether `SIZE=` may be said.
    pub(crate) size: bool,
    pub(crate) eight_bit_mime: bool,
    pub(crate) smtp_utf8: bool,
    pub(crate) dsn: bool,
    pub(crate) starttls: bool,
    pub(crate) auth: Vec<Mechanism>,
    /// `LIMITS MAILMAX`: messages in one session ([RFC 9422](https://www.rfc-editor.org/rfc/rfc9422)).
    pub(crate) mail_max: Option<u32>,
    /// `LIMITS RCPTMAX`: recipients in one transaction.
    pub(crate) rcpt_max: Option<u32>,
}

impl Capabilities {
    /// Reads the keywords of a reply to EHLO; unknown and empty lines say nothing.
    pub(crate) fn from_ehlo(reply: &Reply) -> Self {
        let mut capabilities = Self::default();
        // The first line is the server's name.
        for line in reply.lines().skip(1) {
            capabilities.take(&String::from_utf8_lossy(line));
        }
        capabilities
    }

    fn take(&mut self, line: &str) {
        let mut words = line.split_ascii_whitespace();
        let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
        match keyword.as_str() {
            "PIPELINING" => self.pipelining = true,
            "CHUNKING" => self.chunking = true,
            "8BITMIME" => self.eight_bit_mime = true,
            "SMTPUTF8" => self.smtp_utf8 = true,
            "DSN" => self.dsn = true,
            "STARTTLS" => self.starttls = true,
            "SIZE" => {
                self.size = true;
                // 0 means no fixed limit (RFC 1870 §4); a number that no message can reach means as much.
                self.size_limit = words.next().and_then(number).filter(|&limit| limit > 0);
            }
            "AUTH" => words.for_each(|word| self.take_mechanism(word)),
            "LIMITS" => {
                for limit in words {
                    let most = |value| number(value).filter(|&limit| limit > 0);
                    match limit.split_once('=') {
                        Some(("MAILMAX", value)) => self.mail_max = most(value),
                        Some(("RCPTMAX", value)) => self.rcpt_max = most(value),
                        _ => {}
                    }
                }
            }
            // The spelling of servers from before RFC 2554.
            _ => {
                if let Some(first) = keyword.strip_prefix("AUTH=") {
                    self.take_mechanism(first);
                    words.for_each(|word| self.take_mechanism(word));
                }
            }
        }
    }

    fn take_mechanism(&mut self, name: &str) {
        let mechanism = match name.to_ascii_uppercase().as_str() {
            "PLAIN" => Mechanism::Plain,
            "LOGIN" => Mechanism::Login,
            "XOAUTH2" => Mechanism::Xoauth2,
            _ => return,
        };
        if !self.auth.contains(&mechanism) {
            self.auth.push(mechanism);
        }
    }
}

/// Digits and nothing else: Rust's own reading would take a sign in front.
fn number<T: FromStr>(word: &str) -> Option<T> {
    if word.bytes().all(|byte| byte.is_ascii_digit()) { word.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(wire: &str) -> Capabilities {
        Capabilities::from_ehlo(&Reply::from_wire(250, wire.as_bytes()))
    }

    #[test]
    fn keywords_are_read_in_any_case_and_the_unknown_is_passed_over() {
        let capabilities = read(
            "250-PIPELINING is my name\r\n250-pipelining\r\n250-Size 10240000\r\n250-AUTH PLAIN SCRAM-SHA-256 login\r\n\
             250-AUTH=LOGIN XOAUTH2\r\n250-Chunking\r\n250-dsn\r\n250-XUNHEARD of\r\n250-LIMITS RCPTMAX=100 MAILMAX=3\r\n250 \r\n",
        );
        assert_eq!(
            capabilities,
            Capabilities {
                pipelining: true,
                chunking: true,
                dsn: true,
                size: true,
                size_limit: Some(10_240_000),
                auth: vec![Mechanism::Plain, Mechanism::Login, Mechanism::Xoauth2],
                mail_max: Some(3),
                rcpt_max: Some(100),
                ..Capabilities::default()
            }
        );
        assert_eq!(read("250 PIPELINING\r\n"), Capabilities::default(), "the first line is a name");
    }

    #[test]
    fn a_size_without_meaning_is_no_limit() {
        for (line, limit) in [
            ("SIZE", None),
            ("SIZE 0", None),
            ("SIZE 99999999999999999999", None),
            ("SIZE -1", None),
            ("SIZE +5", None),
            ("SIZE 5\u{665}", None),
            ("SIZE 0x10", None),
            ("SIZE 00000000000000000000000000007", Some(7)),
            ("SIZE 18446744073709551615", Some(u64::MAX)),
            ("SIZE 18446744073709551616", None),
            ("SIZE\t\x0c9 10", Some(9)),
            ("SIZE many", None),
            ("SIZE 1", Some(1)),
        ] {
            let capabilities = read(&format!("250-x\r\n250 {line}\r\n"));
            assert!(capabilities.size, "{line}");
            assert_eq!(capabilities.size_limit, limit, "{line}");
        }
        for (limits, mail_max) in [
            ("MAILMAX=0 MAILMAX", None),
            ("MAILMAX=+5", None),
            ("MAILMAX=4294967296", None),
            ("MAILMAX=1 MAILMAX=2", Some(2)),
        ] {
            assert_eq!(read(&format!("250-x\r\n250 LIMITS {limits}\r\n")).mail_max, mail_max, "{limits}");
            let limits = limits.replace("MAILMAX", "RCPTMAX");
            assert_eq!(read(&format!("250-x\r\n250 LIMITS {limits}\r\n")).rcpt_max, mail_max, "{limits}");
        }
        let said_twice = read("250-x\r\n250-SIZE 5\r\n250 size\r\n");
        assert_eq!((said_twice.size, said_twice.size_limit), (true, None), "the last word counts");
    }

    #[test]
    fn bytes_that_are_no_text_offer_nothing_by_accident() {
        for line in [
            "\0PIPELINING",
            "PIPELINING\0",
            "\u{a0}PIPELINING",
            "PIPELININ\u{130}",
            "AUTH=",
            "AUTH",
            "=PLAIN",
            "X PIPELINING",
        ] {
            assert_eq!(read(&format!("250-x\r\n250 {line}\r\n")), Capabilities::default(), "{line:?}");
        }
        let broken =
            Capabilities::from_ehlo(&Reply::from_wire(250, b"250-x\r\n250-\xff\r\n250-\r\n250 SIZE\xff 5\r\n"));
        assert_eq!(broken, Capabilities::default());
    }
}
