//! MAIL and RCPT: paths, parameters, and what was offered.

use super::{Session, Transaction};
use crate::testing::command::Path;
use crate::testing::content::Content;

impl Session {
    pub(super) fn mail(&mut self, argument: &[u8]) -> Vec<u8> {
        let config = &self.shared.config;
        if !self.greeted {
            return self.reply(503, "5.5.1", "EHLO first");
        }
        if config.require_tls && !self.encrypted {
            return self.reply(530, "5.7.0", "STARTTLS first");
        }
        if !config.credentials.is_empty() && self.authenticated.is_none() {
            return self.reply(530, "5.7.0", "authentication required");
        }
        if self.transaction.is_some() {
            return self.reply(503, "5.5.1", "nested MAIL");
        }
        let path = match Path::parse("FROM:", argument) {
            Some(path) if path.address.is_empty() || path.is_mailbox() => path,
            _ => return self.reply(501, "5.5.4", "MAIL FROM:<address> expected"),
        };
        for parameter in &path.parameters {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let name = name.to_ascii_uppercase();
            let good = match name.as_str() {
                "SIZE" => config.size.is_some() && value.parse::<u64>().is_ok(),
                "BODY" => {
                    let seven_or_eight = value.eq_ignore_ascii_case("7BIT") || value.eq_ignore_ascii_case("8BITMIME");
                    config.eight_bit_mime && seven_or_eight
                }
                "SMTPUTF8" => config.smtp_utf8 && !parameter.contains('='),
                "RET" | "ENVID" => config.dsn && !value.is_empty(),
                "AUTH" => !config.credentials.is_empty() && !value.is_empty(),
                other => self.keyword_offered(other),
            };
            if !good {
                return self.reply(555, "5.5.4", &format!("parameter not accepted: {name}"));
            }
        }
        let declared: Option<usize> = path.parameter("SIZE").and_then(|size| size.parse().ok());
        if let (Some(declared), Some(limit)) = (declared, config.size) {
            if declared > limit {
                return self.reply(552, "5.3.4", "message too big");
            }
        }
        if !path.address.is_ascii() && !path.has("SMTPUTF8") {
            self.violation("UTF-8 address in MAIL without SMTPUTF8");
            return self.reply(553, "5.6.7", "SMTPUTF8 required");
        }
        self.transaction = Some(Transaction { from: path, ..Transaction::default() });
        self.content = Content::new(config.size);
        self.reply(250, "2.1.0", "sender ok")
    }

    pub(super) fn rcpt(&mut self, argument: &[u8]) -> Vec<u8> {
        let Some(utf8) = self.transaction.as_ref().map(|transaction| transaction.from.has("SMTPUTF8")) else {
            return self.reply(503, "5.5.1", "MAIL first");
        };
        let path = match Path::parse("TO:", argument) {
            Some(path) if path.is_mailbox() || path.address.eq_ignore_ascii_case("postmaster") => path,
            _ => return self.reply(501, "5.5.4", "RCPT TO:<address> expected"),
        };
        for parameter in &path.parameters {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let name = name.to_ascii_uppercase();
            let good = match name.as_str() {
                "NOTIFY" | "ORCPT" => self.shared.config.dsn && !value.is_empty(),
                other => self.keyword_offered(other),
            };
            if !good {
                return self.reply(555, "5.5.4", &format!("parameter not accepted: {name}"));
            }
        }
        if !path.address.is_ascii() && !utf8 {
            self.violation("UTF-8 address in RCPT without SMTPUTF8");
            return self.reply(553, "5.6.7", "SMTPUTF8 required");
        }
        if let Some(transaction) = &mut self.transaction {
            transaction.to.push(path);
        }
        self.reply(250, "2.1.5", "recipient ok")
    }

    /// A parameter belongs to a keyword given by [`ehlo_keyword`](crate::testing::TestServerBuilder::ehlo_keyword).
    fn keyword_offered(&self, name: &str) -> bool {
        let mut offered = self.shared.config.keywords.iter().filter_map(|keyword| keyword.split(' ').next());
        offered.any(|keyword| keyword.eq_ignore_ascii_case(name))
    }
}
