//! The replay: what must come of a server's words, by a client as plain as can be.

use naive::{First, Offered};
use smtp_pool::FailureKind::{
    ConnectionCorrupted, HostUnavailable, PermanentFailure, RetryableBeforeSend, RetryableTemporaryFailure,
    UnknownAfterData,
};
use smtp_pool::SendStage::{Authenticated, Connected, DataCompleted, EnvelopeStarted, ServerAccepted};
use smtp_pool::{FailureKind, SendError, SendStage};

use crate::{Security, Settings};

/// One thing that the server does.
#[derive(Debug)]
pub enum Step {
    Say(Vec<u8>),
    /// The client's next write is this one.
    Hear(Vec<u8>),
    /// It is anything: a TLS handshake.
    HearAny,
    /// No more will be said.
    End,
}

/// How opening, or a message, ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// `None` is success.
    pub kind: Option<FailureKind>,
    pub stage: SendStage,
    /// The code that decided.
    pub code: Option<u16>,
}

impl Ending {
    pub fn of(error: &SendError) -> Self {
        Self { kind: Some(error.kind()), stage: error.stage(), code: error.response().map(smtp_pool::Reply::code) }
    }
}

/// Why no reply can be read.
enum Lost {
    Closed,
    Nonsense,
}

/// A client as plain as can be, and the script of its server.
pub struct Replay<'a> {
    settings: &'a Settings,
    pieces: std::vec::IntoIter<Vec<u8>>,
    heard: Vec<u8>,
    pub script: Vec<Step>,
    pub endings: Vec<Ending>,
    offered: Offered,
    in_step: bool,
    reset_owed: bool,
    refused_in_a_row: usize,
    delivered: u32,
}

impl<'a> Replay<'a> {
    /// What comes of these pieces.
    pub fn of(settings: &'a Settings, pieces: Vec<Vec<u8>>) -> Self {
        let mut replay = Self {
            settings,
            pieces: pieces.into_iter(),
            heard: Vec::new(),
            script: Vec::new(),
            endings: Vec::new(),
            offered: Offered::default(),
            in_step: false,
            reset_owed: false,
            refused_in_a_row: 0,
            delivered: 0,
        };
        replay.run();
        replay
    }

    fn write(&mut self, bytes: impl Into<Vec<u8>>) {
        self.script.push(Step::Hear(bytes.into()));
    }

    fn read(&mut self) -> Result<naive::Reply, Lost> {
        loop {
            match naive::first_reply(&self.heard) {
                First::Complete(reply, length) => {
                    self.heard.drain(..length);
                    return Ok(reply);
                }
                First::Nonsense => return Err(Lost::Nonsense),
                First::Incomplete => match self.pieces.next() {
                    Some(piece) => {
                        self.heard.extend(&piece);
                        self.script.push(Step::Say(piece));
                    }
                    None => {
                        self.script.push(Step::End);
                        return Err(Lost::Closed);
                    }
                },
            }
        }
    }

    fn end(&mut self, kind: Option<FailureKind>, stage: SendStage, code: Option<u16>) {
        self.endings.push(Ending { kind, stage, code });
    }

    /// Ends the opening: politely if the server refused, and without a word if it made no sense.
    fn no_session(&mut self, kind: FailureKind, code: Option<u16>, is_polite: bool) {
        if is_polite {
            self.write("QUIT\r\n");
        }
        self.end(Some(kind), Connected, code);
    }

    /// A reply in the opening that must be a `wanted` one, alone. A refusal is of the kind that `refusal` makes of its code.
    fn expect(&mut self, wanted: impl Fn(u16) -> bool, refusal: impl Fn(u16) -> FailureKind) -> Option<naive::Reply> {
        match self.read() {
            Ok(reply) if wanted(reply.code) && self.heard.is_empty() => return Some(reply),
            Ok(reply) if reply.code == 221 || reply.code >= 400 => {
                self.no_session(refusal(reply.code), Some(reply.code), true);
            }
            _ => self.no_session(HostUnavailable, None, false),
        }
        None
    }

    /// Greeting, EHLO, STARTTLS, AUTH. Whether there is a session.
    fn open(&mut self) -> Option<()> {
        self.expect(|code| code == 220, |_| HostUnavailable)?;
        self.write("EHLO me.example\r\n");
        // RFC 5321 §4.3.2 has 250, and §4.2 has the first digit decide; 220 is what a greeting says, 221 what the end does.
        let ehlo = self.expect(
            |code| matches!(code, 200..300) && !matches!(code, 220 | 221),
            |code| if code >= 500 { PermanentFailure } else { HostUnavailable },
        )?;
        self.offered = naive::offered(&ehlo);
        match self.settings.security {
            Security::StartTls if !self.offered.starttls => {
                self.no_session(PermanentFailure, None, true);
                return None;
            }
            Security::Plain => {}
            Security::Opportunistic if !self.offered.starttls => {}
            security => {
                self.write("STARTTLS\r\n");
                let refusal = |code| match code {
                    221 => HostUnavailable,
                    400..500 => RetryableTemporaryFailure,
                    _ => PermanentFailure,
                };
                match self.read() {
                    Ok(reply) if reply.code == 220 && self.heard.is_empty() => {
                        self.script.extend([Step::HearAny, Step::End]);
                        self.end(Some(HostUnavailable), Connected, None);
                        return None;
                    }
                    Ok(reply) if reply.code == 220 => {
                        self.no_session(ConnectionCorrupted, None, false);
                        return None;
                    }
                    // In the clear, as it was asked to.
                    Ok(reply) if reply.code >= 400 && security == Security::Opportunistic && self.heard.is_empty() => {}
                    Ok(reply) if reply.code == 221 || reply.code >= 400 => {
                        self.no_session(refusal(reply.code), Some(reply.code), true);
                        return None;
                    }
                    _ => {
                        self.no_session(HostUnavailable, None, false);
                        return None;
                    }
                }
            }
        }
        if self.settings.credentials {
            self.authenticate()?;
        }
        self.in_step = true;
        Some(())
    }

    fn authenticate(&mut self) -> Option<()> {
        // RFC 4616 §4 has this user and password, and what they look like.
        let plain = ["AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm\r\n"];
        let login = ["AUTH LOGIN\r\n", "dGlt\r\n", "dGFuc3RhYWZ0YW5zdGFhZg==\r\n"];
        let lines: &[&str] = match &self.offered.auth {
            auth if auth.contains(&"PLAIN") => &plain,
            auth if auth.contains(&"LOGIN") => &login,
            _ => {
                self.no_session(PermanentFailure, None, true);
                return None;
            }
        };
        for line in lines {
            self.write(*line);
            match self.read() {
                Ok(reply) if reply.code == 334 && self.heard.is_empty() => continue,
                Ok(reply) if reply.code == 235 && self.heard.is_empty() => return Some(()),
                Ok(reply) if reply.code == 221 || reply.code >= 400 => {
                    let kind = match reply.code {
                        221 | 421 => HostUnavailable,
                        400..500 => RetryableTemporaryFailure,
                        _ => PermanentFailure,
                    };
                    self.no_session(kind, Some(reply.code), true);
                }
                _ => self.no_session(HostUnavailable, None, false),
            }
            return None;
        }
        // A challenge too many.
        self.no_session(ConnectionCorrupted, None, false);
        None
    }

    fn reused(&self) -> bool {
        self.delivered > 0
    }

    /// One message, over a session in step.
    fn send(&mut self) {
        let Settings { recipients, partial, .. } = *self.settings;
        let content = self.settings.content();
        // RFC 1870 §3: every CR LF counts, no dot that is stuffed.
        let size = naive::normalised(&content).len();
        // RFC 9422: RCPTMAX bounds the recipients of one transaction, which is all that is asked for here. With all of them or none
        // there is nothing to begin then.
        let most = self.offered.rcpt_max.map_or(usize::MAX, |limit| limit as usize);
        let needs_too_much = (recipients > most && !partial)
            || (!content.is_ascii() && !self.offered.eight_bit_mime)
            || (self.settings.foreign_recipient && !self.offered.smtp_utf8)
            || self.offered.size_limit.is_some_and(|limit| size as u64 > limit);
        if needs_too_much {
            return self.end(Some(PermanentFailure), Authenticated, None);
        }
        let recipients = recipients.min(most);
        self.in_step = false;
        let mut mail = "MAIL FROM:<from@example.com>".to_owned();
        if self.offered.size {
            mail += &format!(" SIZE={size}");
        }
        if !content.is_ascii() {
            mail += " BODY=8BITMIME";
        }
        if self.settings.foreign_recipient {
            mail += " SMTPUTF8";
        }
        let mut commands = vec![mail];
        commands.extend(self.settings.addresses()[..recipients].iter().map(|address| format!("RCPT TO:<{address}>")));
        if self.reset_owed {
            commands.insert(0, "RSET".to_owned());
        }
        let joins_data = self.offered.pipelining && self.refused_in_a_row == 0 && (recipients == 1 || partial);
        if joins_data {
            commands.push("DATA".to_owned());
        }
        let groups: Vec<Vec<String>> = match self.offered.pipelining {
            true => vec![commands],
            false => commands.into_iter().map(|command| vec![command]).collect(),
        };

        // Whose refusal decides: MAIL's, or that of a recipient, one for good before one for now.
        let mut mail_refusal = None;
        let mut refusals: Vec<(bool, u16)> = Vec::new();
        let (mut accepted, mut answered) = (0, 0);
        let mut data = None;
        let verdict = |mail: Option<u16>, refusals: &[(bool, u16)], accepted: usize, answered: usize| {
            let kind = |is_final| if is_final { PermanentFailure } else { RetryableTemporaryFailure };
            if let Some(code) = mail {
                return Some((kind(code >= 500), code));
            }
            let decides = !partial || (answered == recipients && accepted == 0);
            let for_good = refusals.iter().rev().find(|(is_final, _)| *is_final);
            let worst = for_good.or(refusals.last()).filter(|_| decides)?;
            Some((kind(worst.0), worst.1))
        };
        'envelope: for group in groups {
            if mail_refusal.is_some() {
                break;
            }
            self.write(group.iter().flat_map(|command| [command, "\r\n"].concat().into_bytes()).collect::<Vec<_>>());
            for command in &group {
                let verb = &command[..4];
                let reply = self.read();
                let told = verdict(mail_refusal, &refusals, accepted, answered);
                let code = match reply {
                    Ok(reply) => reply.code,
                    Err(Lost::Nonsense) => return self.end(Some(ConnectionCorrupted), EnvelopeStarted, None),
                    Err(Lost::Closed) => {
                        let (kind, code) = told.map_or((RetryableBeforeSend, None), |(kind, code)| (kind, Some(code)));
                        return self.end(Some(kind), EnvelopeStarted, code);
                    }
                };
                match (verb, code) {
                    (_, 221 | 421) => {
                        let is_old_news = code == 221 || self.reused();
                        let kind = if is_old_news { RetryableBeforeSend } else { RetryableTemporaryFailure };
                        let (kind, code) = told.unwrap_or((kind, code));
                        return self.end(Some(kind), EnvelopeStarted, Some(code));
                    }
                    ("RSET", 250) => self.reset_owed = false,
                    ("RSET", 400..) => return self.end(Some(RetryableBeforeSend), EnvelopeStarted, Some(code)),
                    ("MAIL", 200..300) => {}
                    ("MAIL", 400..) => mail_refusal = Some(code),
                    ("RCPT", 200..300 | 400..) if mail_refusal.is_some() => {}
                    ("RCPT", 200..300) => {
                        answered += 1;
                        accepted += 1;
                    }
                    ("RCPT", 400..) => {
                        answered += 1;
                        // RFC 5321 §4.5.3.1.10: 552 behind an accepted one means "too many", for now.
                        refusals.push((code >= 500 && !(code == 552 && accepted > 0), code));
                    }
                    ("DATA", 354 | 400..) => data = Some(code),
                    _ => return self.end(Some(ConnectionCorrupted), EnvelopeStarted, None),
                }
            }
            if !self.heard.is_empty() {
                return self.end(Some(ConnectionCorrupted), EnvelopeStarted, None);
            }
            if mail_refusal.is_some() {
                break 'envelope;
            }
        }
        if let Some((kind, code)) = verdict(mail_refusal, &refusals, accepted, answered) {
            self.end(Some(kind), EnvelopeStarted, Some(code));
            if data == Some(354) {
                if mail_refusal.is_some() || accepted > 0 {
                    return;
                }
                // RFC 2920 §3.1: a lone dot ends what nobody will get.
                self.write(".\r\n");
                let is_answered = self.read().is_ok_and(|reply| !matches!(reply.code, 221 | 421));
                if !is_answered || !self.heard.is_empty() {
                    return;
                }
            }
            return self.refused();
        }
        let data = match data {
            Some(code) => code,
            None => {
                self.write("DATA\r\n");
                match self.read() {
                    Ok(reply) if matches!(reply.code, 221 | 421) => {
                        let is_old_news = reply.code == 221 || self.reused();
                        let kind = if is_old_news { RetryableBeforeSend } else { RetryableTemporaryFailure };
                        return self.end(Some(kind), EnvelopeStarted, Some(reply.code));
                    }
                    Ok(reply) if matches!(reply.code, 354 | 400..) && self.heard.is_empty() => reply.code,
                    Ok(_) | Err(Lost::Nonsense) => {
                        return self.end(Some(ConnectionCorrupted), EnvelopeStarted, None);
                    }
                    Err(Lost::Closed) => return self.end(Some(RetryableBeforeSend), EnvelopeStarted, None),
                }
            }
        };
        if data != 354 {
            let kind = if data >= 500 { PermanentFailure } else { RetryableTemporaryFailure };
            self.end(Some(kind), EnvelopeStarted, Some(data));
            return self.refused();
        }
        // The last byte leaves with all before it, in one write.
        self.write(naive::on_the_wire(&content));
        let Ok(reply) = self.read() else { return self.end(Some(UnknownAfterData), DataCompleted, None) };
        let is_alone = self.heard.is_empty();
        match reply.code {
            221 | 300..400 => self.end(Some(UnknownAfterData), DataCompleted, None),
            200..300 => {
                self.end(None, ServerAccepted, Some(reply.code));
                self.in_step = is_alone;
                self.refused_in_a_row = 0;
                self.delivered += 1;
            }
            _ if !is_alone => self.end(Some(UnknownAfterData), DataCompleted, None),
            code => {
                let kind = if code >= 500 { PermanentFailure } else { RetryableTemporaryFailure };
                self.end(Some(kind), DataCompleted, Some(code));
                if code != 421 {
                    self.refused();
                }
            }
        }
    }

    fn refused(&mut self) {
        self.in_step = true;
        self.reset_owed = true;
        self.refused_in_a_row += 1;
    }

    /// Whether RSET gets its 250.
    fn probe(&mut self) -> bool {
        self.in_step = false;
        self.write("RSET\r\n");
        let is_alive = self.read().is_ok_and(|reply| reply.code == 250) && self.heard.is_empty();
        if is_alive {
            self.in_step = true;
            self.reset_owed = false;
        }
        is_alive
    }

    fn is_spent(&self) -> bool {
        !self.in_step || self.offered.mail_max.is_some_and(|limit| self.delivered >= limit)
    }

    fn run(&mut self) {
        if self.open().is_none() {
            return;
        }
        for message in 0..self.settings.messages {
            if message > 0 && (self.is_spent() || (self.settings.probes && !self.probe())) {
                break;
            }
            self.send();
        }
        if self.in_step {
            self.write("QUIT\r\n");
        }
    }
}
