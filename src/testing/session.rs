//! What a correct server knows and answers: the state of one SMTP session. No I/O.

mod envelope;

use std::sync::Arc;

use super::auth::{self, Exchange, Progress};
use super::builder::Security;
use super::command::{self, Path};
use super::content::{self, Content};
use super::message::{self, Stored};
use super::script::Stage;
use super::store::Shared;

/// The reply to DATA.
pub(super) const GO_AHEAD: &[u8] = b"354 end with a dot\r\n";

/// What the connection does once the replies so far are queued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Next {
    #[default]
    Nothing,
    Close,
    /// The handshake stage, which a script may take over.
    TlsStage,
    Handshake,
    Content,
}

pub(super) struct Session {
    shared: Arc<Shared>,
    number: usize,
    refused: bool,
    pub(super) encrypted: bool,
    greeted: bool,
    /// PIPELINING was offered after the last EHLO.
    pub(super) pipelining: bool,
    authenticated: Option<String>,
    /// A line of the client is due for AUTH.
    pub(super) auth: Option<Exchange>,
    transaction: Option<Transaction>,
    pub(super) content: Content,
    pub(super) next: Next,
}

#[derive(Default)]
struct Transaction {
    from: Path,
    to: Vec<Path>,
    stored: bool,
    chunk_refused: bool,
}

impl Session {
    pub(super) fn new(shared: Arc<Shared>, number: usize, refused: bool) -> Self {
        Self {
            shared,
            number,
            refused,
            encrypted: false,
            greeted: false,
            pipelining: false,
            authenticated: None,
            auth: None,
            transaction: None,
            content: Content::default(),
            next: Next::Nothing,
        }
    }

    /// TLS begins: everything learnt before is forgotten (RFC 3207 §4.2).
    pub(super) fn begin_tls(&mut self) {
        let fresh = Self::new(Arc::clone(&self.shared), self.number, self.refused);
        *self = Self { encrypted: true, ..fresh };
    }

    pub(super) fn violation(&self, text: &str) {
        self.shared.violation(self.number, text);
    }

    /// `250 2.1.0 text`, the enhanced code only where offered.
    pub(super) fn reply(&self, code: u16, enhanced: &str, text: &str) -> Vec<u8> {
        if self.shared.config.enhanced_status_codes && !enhanced.is_empty() {
            format!("{code} {enhanced} {text}\r\n").into_bytes()
        } else {
            format!("{code} {text}\r\n").into_bytes()
        }
    }

    /// The normal behaviour at a stage: changes the state and returns the reply.
    pub(super) fn perform(&mut self, stage: Stage, line: &[u8]) -> Vec<u8> {
        let (verb, argument) = command::split(line);
        match stage {
            Stage::Connect if self.refused => {
                self.next = Next::Close;
                self.shared.config.over_limit.clone()
            }
            Stage::Connect => b"220 localhost ESMTP test server\r\n".to_vec(),
            Stage::TlsHandshake => {
                self.next = Next::Handshake;
                Vec::new()
            }
            Stage::Ehlo => self.ehlo(&verb, argument),
            Stage::StartTls => self.starttls(argument),
            Stage::Auth => self.begin_auth(argument),
            Stage::AuthStep => match self.auth.take() {
                Some(exchange) => {
                    let (exchange, progress) = auth::step(exchange, line, &self.shared.config.credentials);
                    self.auth_progress(exchange, progress)
                }
                None => self.reply(503, "5.5.1", "no AUTH under way"),
            },
            Stage::Mail => self.mail(argument),
            Stage::Rcpt => self.rcpt(argument),
            Stage::Data => self.data(argument),
            Stage::Bdat => self.chunk(argument),
            Stage::EndOfData => self.end_of_data(),
            Stage::Rset => {
                self.end_transaction();
                self.reply(250, "2.0.0", "reset")
            }
            Stage::Noop => self.reply(250, "2.0.0", "still here"),
            Stage::Quit => {
                self.next = Next::Close;
                self.reply(221, "2.0.0", "bye")
            }
            Stage::Other => match verb.as_str() {
                "VRFY" => self.reply(252, "2.0.0", "try and see"),
                "HELP" => self.reply(214, "2.0.0", "RFC 5321"),
                _ => self.reply(500, "5.5.1", "unknown command"),
            },
            Stage::Body | Stage::Idle => Vec::new(),
        }
    }

    /// A script has told the client `code` in `said`: the state follows, whatever a correct server would have thought.
    pub(super) fn believe(&mut self, stage: Stage, line: &[u8], code: u16, said: &[u8]) {
        let argument = command::split(line).1;
        match (stage, code) {
            (Stage::Ehlo, 250) => {
                self.greeted = true;
                self.pipelining = said.windows(10).any(|window| window.eq_ignore_ascii_case(b"PIPELINING"));
            }
            (Stage::StartTls, 220) => self.next = Next::TlsStage,
            (Stage::Auth | Stage::AuthStep, 334) => self.auth = Some(self.auth.take().unwrap_or(Exchange::Scripted)),
            (Stage::Auth | Stage::AuthStep, code) => {
                self.auth = None;
                if code == 235 {
                    self.authenticated = Some("(by script)".to_owned());
                }
            }
            (Stage::Mail, 200..300) => {
                let from = Path::parse("FROM:", argument).unwrap_or_default();
                self.transaction = Some(Transaction { from, ..Transaction::default() });
                self.content = Content::new(self.shared.config.size);
            }
            (Stage::Rcpt, 200..300) => {
                let path = Path::parse("TO:", argument).unwrap_or_default();
                if let Some(transaction) = &mut self.transaction {
                    transaction.to.push(path);
                }
            }
            (Stage::Data, 354) => self.next = Next::Content,
            (Stage::Bdat, 250..260) if command::parse_bdat(argument).is_none_or(|(_, last)| !last) => {}
            (Stage::Bdat, 250..260) => {
                self.store();
                self.end_transaction();
            }
            (Stage::Bdat, _) => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.chunk_refused = true;
                }
            }
            (Stage::EndOfData, 250..260) => {
                self.store();
            }
            (Stage::Rset, 200..300) => self.end_transaction(),
            (Stage::Quit, _) => self.next = Next::Close,
            _ => {}
        }
    }

    /// Stores the current message, unless it is already. Returns its number.
    pub(super) fn store(&mut self) -> Option<usize> {
        let transaction = self.transaction.as_mut().filter(|transaction| !transaction.stored)?;
        transaction.stored = true;
        let content = self.content.take();
        let recipients = transaction.to.iter().map(|path| path.address.clone()).collect();
        Some(self.shared.store(Stored {
            message_id: message::message_id(&content),
            mail_from: transaction.from.address.clone(),
            mail_parameters: transaction.from.parameters.clone(),
            recipients,
            recipient_parameters: transaction.to.iter().map(|path| path.parameters.clone()).collect(),
            content: if self.shared.config.keep_messages { content } else { Vec::new() },
            connection: self.number,
            authenticated_as: self.authenticated.clone(),
            encrypted: self.encrypted,
        }))
    }

    pub(super) fn end_transaction(&mut self) {
        self.transaction = None;
        self.content = Content::new(self.shared.config.size);
    }

    /// Content is complete; what is wrong with it is noted once, before a script or the normal reply.
    pub(super) fn inspect_content(&self) {
        let Some(transaction) = &self.transaction else { return };
        let body = transaction.from.parameter("BODY").unwrap_or("7BIT");
        let eight_bit = !body.eq_ignore_ascii_case("7BIT") || transaction.from.has("SMTPUTF8");
        for fault in content::faults(self.content.bytes(), eight_bit) {
            // Content past the limit was not kept, so its end is not the message's end.
            if !(self.content.too_big() && fault.contains("end with")) {
                self.violation(fault);
            }
        }
        if self.content.lone_dot {
            self.violation("a line of the content begins with a dot that was not doubled");
        }
    }

    fn ehlo(&mut self, verb: &str, argument: &[u8]) -> Vec<u8> {
        if argument.trim_ascii().is_empty() {
            return self.reply(501, "", "name of the client missing");
        }
        self.end_transaction();
        self.greeted = true;
        let config = &self.shared.config;
        if verb == "HELO" {
            self.pipelining = false;
            return b"250 localhost\r\n".to_vec();
        }
        self.pipelining = config.pipelining;
        let starttls = config.security == Security::StartTls && !self.encrypted;
        let auth = self.auth_offered() && self.authenticated.is_none();
        let size = config.size.map(|size| format!("SIZE {size}"));
        let auth = auth.then(|| format!("AUTH {}", config.mechanisms.join(" ")));
        let on = |offered: bool, keyword: &'static str| offered.then(|| keyword.to_owned());
        let keywords = [
            on(config.pipelining, "PIPELINING"),
            size,
            on(config.eight_bit_mime, "8BITMIME"),
            on(config.smtp_utf8, "SMTPUTF8"),
            on(config.enhanced_status_codes, "ENHANCEDSTATUSCODES"),
            on(config.chunking, "CHUNKING"),
            on(config.dsn, "DSN"),
            on(starttls, "STARTTLS"),
            auth,
        ];
        let mut lines = vec!["localhost".to_owned()];
        lines.extend(keywords.into_iter().flatten());
        lines.extend(config.keywords.iter().cloned());
        let last = lines.len() - 1;
        let numbered = lines.iter().enumerate();
        let reply: String =
            numbered.map(|(index, line)| format!("250{}{line}\r\n", if index == last { ' ' } else { '-' })).collect();
        reply.into_bytes()
    }

    fn starttls(&mut self, argument: &[u8]) -> Vec<u8> {
        if self.shared.config.security != Security::StartTls || self.encrypted {
            return self.reply(503, "5.5.1", "STARTTLS not available");
        }
        if !argument.is_empty() {
            return self.reply(501, "5.5.4", "STARTTLS takes no argument");
        }
        self.next = Next::TlsStage;
        self.reply(220, "2.0.0", "go ahead")
    }

    fn auth_offered(&self) -> bool {
        let config = &self.shared.config;
        let tls_missing = config.security == Security::StartTls && !self.encrypted && !config.auth_before_tls;
        !config.credentials.is_empty() && !tls_missing
    }

    fn begin_auth(&mut self, argument: &[u8]) -> Vec<u8> {
        let config = &self.shared.config;
        if config.credentials.is_empty() || !self.greeted || self.authenticated.is_some() || self.transaction.is_some()
        {
            return self.reply(503, "5.5.1", "AUTH not available now");
        }
        if !self.auth_offered() {
            return self.reply(538, "5.7.11", "encryption required");
        }
        let (mechanism, rest) = command::split(argument);
        let initial = argument.contains(&b' ').then_some(rest);
        let (exchange, progress) = auth::begin(&mechanism, initial, &config.mechanisms, &config.credentials);
        self.auth_progress(exchange, progress)
    }

    fn auth_progress(&mut self, exchange: Option<Exchange>, progress: Progress) -> Vec<u8> {
        match progress {
            Progress::Challenge(text) => {
                self.auth = exchange;
                format!("334 {text}\r\n").into_bytes()
            }
            Progress::Success(user) => {
                self.authenticated = Some(user);
                self.reply(235, "2.7.0", "welcome")
            }
            Progress::Refused => self.reply(535, "5.7.8", "wrong user or password"),
            Progress::Cancelled => self.reply(501, "5.7.0", "cancelled"),
            Progress::Malformed => self.reply(501, "5.5.2", "cannot decode this"),
            Progress::UnknownMechanism => self.reply(504, "5.5.4", "mechanism not offered"),
        }
    }

    fn data(&mut self, argument: &[u8]) -> Vec<u8> {
        match &self.transaction {
            _ if !argument.is_empty() => self.reply(501, "5.5.4", "DATA takes no argument"),
            None => self.reply(503, "5.5.1", "MAIL first"),
            Some(transaction) if transaction.to.is_empty() => self.reply(554, "5.5.1", "no valid recipients"),
            // RFC 3030 §3: DATA and BDAT do not mix in one transaction.
            Some(_) if self.content.seen > 0 => self.reply(503, "5.5.1", "DATA after BDAT"),
            Some(_) => {
                self.next = Next::Content;
                GO_AHEAD.to_vec()
            }
        }
    }

    /// The reply to a chunk that was read; empty for a good last one, for which the end of data is the next stage.
    fn chunk(&mut self, argument: &[u8]) -> Vec<u8> {
        if !self.shared.config.chunking {
            self.violation("BDAT without CHUNKING offered");
            return self.reply(500, "5.5.1", "unknown command");
        }
        let Some((size, last)) = command::parse_bdat(argument) else {
            return self.reply(501, "5.5.4", "BDAT size [LAST] expected");
        };
        let refusal = match &self.transaction {
            None => Some(self.reply(503, "5.5.1", "MAIL first")),
            Some(transaction) if transaction.to.is_empty() => Some(self.reply(554, "5.5.1", "no valid recipients")),
            Some(transaction) if transaction.chunk_refused => {
                Some(self.reply(503, "5.5.1", "an earlier chunk was refused"))
            }
            Some(_) if !last && self.content.too_big() => Some(self.reply(552, "5.3.4", "message too big")),
            Some(_) => None,
        };
        match (refusal, &mut self.transaction) {
            (Some(refusal), Some(transaction)) => {
                transaction.chunk_refused = true;
                refusal
            }
            (Some(refusal), None) => refusal,
            (None, _) if last => Vec::new(),
            (None, _) => self.reply(250, "2.0.0", &format!("{size} octets received")),
        }
    }

    fn end_of_data(&mut self) -> Vec<u8> {
        let reply = if self.content.too_big() {
            self.reply(552, "5.3.4", "message too big")
        } else if self.transaction.as_ref().is_none_or(|transaction| transaction.to.is_empty()) {
            self.reply(554, "5.5.1", "no valid recipients")
        } else {
            match self.store() {
                Some(number) => self.reply(250, "2.0.0", &format!("queued as {number}")),
                None => self.reply(250, "2.0.0", "queued"),
            }
        };
        self.end_transaction();
        reply
    }
}
