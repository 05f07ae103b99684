//! Whatever a server says: from its greeting to its last word nothing panics and nobody waits, the client says, write for write, what a
//! naive client would, and each message ends as an independent replay of the same bytes says it must: `Ok` only with a complete 2xx in
//! the place of the answer to the last byte, unknown only with that byte written and no decisive answer to it.
//!
//! The server is the other end of a socket pair that keeps messages apart (`SOCK_SEQPACKET`), so a write of one side is a read of the
//! other and no run depends on chance. The replay is made first; it is the server's script too: it says its next piece when the client
//! waits for it, hears one write when the client has something to say, and closes its end when it has nothing left to say.
//!
//! Input: two bytes of settings (see `Settings::of`), then what the server says, in pieces separated by `|`.
#![no_main]

use std::io::Read;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use lettre::address::Envelope;
use libfuzzer_sys::fuzz_target;
use naive::{First, Offered};
use r2d2::ManageConnection;
use smtp_pool::FailureKind::{
    ConnectionCorrupted, HostUnavailable, PermanentFailure, RetryableBeforeSend, RetryableTemporaryFailure,
    UnknownAfterData,
};
use smtp_pool::SendStage::{Authenticated, Connected, DataCompleted, EnvelopeStarted};
use smtp_pool::SmtpConnectionManager;
use smtp_pool::fuzzing::connect_over;
use smtp_pool::{FailureKind, Host, PoolOptions, RecipientPolicy, SendError, SendOptions, SendStage};
use socket2::{Domain, Socket, Type};

/// Never reached but by a client that waits for what will not come.
const PATIENCE: Duration = Duration::from_secs(5);
/// So that every piece fits into the room that the client reads into.
const LONGEST: usize = 2048;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Security {
    Plain,
    Opportunistic,
    StartTls,
}

#[derive(Debug)]
struct Settings {
    recipients: usize,
    partial: bool,
    credentials: bool,
    eight_bit: bool,
    foreign_recipient: bool,
    messages: usize,
    security: Security,
    probes: bool,
    large: bool,
}

impl Settings {
    fn of(first: u8, second: u8) -> Self {
        let bit = |byte: u8, bit: u8| byte >> bit & 1 == 1;
        Self {
            recipients: usize::from(first % 4).max(1),
            partial: bit(first, 2),
            credentials: bit(first, 3),
            eight_bit: bit(first, 4),
            foreign_recipient: bit(first, 5),
            messages: usize::from(first >> 6) + 1,
            security: [Security::Plain, Security::Plain, Security::Opportunistic, Security::StartTls]
                [usize::from(second % 4)],
            probes: bit(second, 2),
            large: bit(second, 3),
        }
    }

    fn host(&self) -> Host {
        let host = match self.security {
            Security::Plain => Host::plain("localhost"),
            Security::Opportunistic => Host::dangerous_opportunistic_starttls("localhost"),
            Security::StartTls => Host::starttls("localhost"),
        };
        let host = host.hello_name("me.example").dangerous_plaintext_auth(true);
        if self.credentials { host.credentials("tim", "tanstaaftanstaaf") } else { host }
    }

    /// Kept from run to run: reading the system's certificates for the first TLS handshake takes as long as a thousand runs.
    fn manager(&self) -> &'static SmtpConnectionManager {
        static MANAGERS: [OnceLock<SmtpConnectionManager>; 6] = [const { OnceLock::new() }; 6];
        MANAGERS[2 * self.security as usize + usize::from(self.credentials)].get_or_init(|| {
            let mut options = PoolOptions::default();
            options.hosts.push(self.host());
            options.connect_timeout = PATIENCE;
            options.auth_timeout = PATIENCE;
            options.send_timeout = PATIENCE;
            options.final_reply_timeout = PATIENCE;
            SmtpConnectionManager::from_options(options).unwrap()
        })
    }

    fn addresses(&self) -> Vec<String> {
        let name = |number| match number {
            0 if self.foreign_recipient => "\u{fc}@example.net".to_owned(),
            number => format!("to{number}@example.net"),
        };
        (0..self.recipients).map(name).collect()
    }

    fn envelope(&self) -> Envelope {
        let to = self.addresses().iter().map(|address| address.parse().unwrap()).collect();
        Envelope::new(Some("from@example.com".parse().unwrap()), to).unwrap()
    }

    fn content(&self) -> Vec<u8> {
        let mut content = b"Subject: x\r\n\n.line\r.".to_vec();
        if self.eight_bit {
            content.push(0xfc);
        }
        if self.large {
            content.extend(b"0123456789\n".repeat(100));
        }
        content
    }
}

/// One thing that the server does.
#[derive(Debug)]
enum Step {
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
struct Ending {
    /// `None` is success.
    kind: Option<FailureKind>,
    stage: SendStage,
    /// The code that decided.
    code: Option<u16>,
}

impl Ending {
    fn of(error: &SendError) -> Self {
        Self { kind: Some(error.kind()), stage: error.stage(), code: error.response().map(smtp_pool::Reply::code) }
    }
}

/// Why no reply can be read.
enum Lost {
    Closed,
    Nonsense,
}

/// The replay: a client as plain as can be, and the script of its server.
struct Replay<'a> {
    settings: &'a Settings,
    pieces: std::vec::IntoIter<Vec<u8>>,
    heard: Vec<u8>,
    script: Vec<Step>,
    endings: Vec<Ending>,
    offered: Offered,
    in_step: bool,
    reset_owed: bool,
    refused_in_a_row: usize,
    delivered: u32,
}

impl Replay<'_> {
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

    /// A reply in the opening that must be `wanted`, alone. A refusal is of the kind that `refusal` makes of its code.
    fn expect(&mut self, wanted: u16, refusal: impl Fn(u16) -> FailureKind) -> Option<naive::Reply> {
        match self.read() {
            Ok(reply) if reply.code == wanted && self.heard.is_empty() => return Some(reply),
            Ok(reply) if reply.code == 221 || reply.code >= 400 => {
                self.no_session(refusal(reply.code), Some(reply.code), true);
            }
            _ => self.no_session(HostUnavailable, None, false),
        }
        None
    }

    /// Greeting, EHLO, STARTTLS, AUTH. Whether there is a session.
    fn open(&mut self) -> Option<()> {
        self.expect(220, |_| HostUnavailable)?;
        self.write("EHLO me.example\r\n");
        let ehlo = self.expect(250, |code| if code >= 500 { PermanentFailure } else { HostUnavailable })?;
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
        let needs_too_much = (!content.is_ascii() && !self.offered.eight_bit_mime)
            || (self.settings.foreign_recipient && !self.offered.smtp_utf8)
            || self.offered.size_limit.is_some_and(|limit| content.len() as u64 > limit);
        if needs_too_much {
            return self.end(Some(PermanentFailure), Authenticated, None);
        }
        self.in_step = false;
        let mut mail = "MAIL FROM:<from@example.com>".to_owned();
        if self.offered.size {
            mail += &format!(" SIZE={}", content.len());
        }
        if !content.is_ascii() {
            mail += " BODY=8BITMIME";
        }
        if self.settings.foreign_recipient {
            mail += " SMTPUTF8";
        }
        let mut commands = vec![mail];
        commands.extend(self.settings.addresses().iter().map(|address| format!("RCPT TO:<{address}>")));
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
                self.end(None, SendStage::ServerAccepted, Some(reply.code));
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

type Job = (Socket, Vec<Step>);

/// Plays the server's part; what the client did differently, if it did.
fn play(socket: &mut Socket, script: Vec<Step>) -> Result<(), String> {
    let mut buffer = vec![0; 1 << 16];
    for step in script {
        match step {
            Step::Say(piece) => {
                // A client that has gone will be missed where it should have spoken.
                let _ = socket.send(&piece);
            }
            Step::End => drop(socket.shutdown(std::net::Shutdown::Write)),
            Step::HearAny | Step::Hear(_) => {
                let count = socket.read(&mut buffer).unwrap_or(0);
                let said = &buffer[..count];
                match step {
                    Step::Hear(expected) if said != expected => {
                        return Err(format!(
                            "said {:?}, not {:?}",
                            String::from_utf8_lossy(said),
                            String::from_utf8_lossy(&expected)
                        ));
                    }
                    _ => {}
                }
            }
        }
    }
    match socket.read(&mut buffer) {
        Ok(count @ 1..) => Err(format!("said {:?} at the end", String::from_utf8_lossy(&buffer[..count]))),
        // The end, or the cut of one that left things unread.
        _ => Ok(()),
    }
}

/// The thread that plays the server, one run after the other.
fn server() -> &'static (Sender<Job>, std::sync::Mutex<Receiver<Result<(), String>>>) {
    static SERVER: OnceLock<(Sender<Job>, std::sync::Mutex<Receiver<Result<(), String>>>)> = OnceLock::new();
    SERVER.get_or_init(|| {
        let (jobs, job) = mpsc::channel::<Job>();
        let (report, reports) = mpsc::channel();
        thread::spawn(move || {
            for (mut socket, script) in job {
                let told = play(&mut socket, script);
                drop(socket);
                report.send(told).unwrap();
            }
        });
        (jobs, std::sync::Mutex::new(reports))
    })
}

/// What the crate makes of it: how opening and each message ended.
fn run(settings: &Settings, socket: TcpStream) -> Vec<Ending> {
    let manager = settings.manager();
    let mut connection = match connect_over(manager, socket) {
        Ok(connection) => connection,
        Err(error) => return vec![Ending::of(&error)],
    };
    let policy = if settings.partial { RecipientPolicy::AcceptPartial } else { RecipientPolicy::AllOrNothing };
    let mut endings = Vec::new();
    for message in 0..settings.messages {
        if message > 0
            && (manager.has_broken(&mut connection) || (settings.probes && manager.is_valid(&mut connection).is_err()))
        {
            break;
        }
        let options = SendOptions::new().recipients(policy);
        endings.push(match connection.send_with(&settings.envelope(), &settings.content(), &options) {
            Ok(receipt) => {
                let code = Some(receipt.response().code());
                Ending { kind: None, stage: SendStage::ServerAccepted, code }
            }
            Err(error) => {
                assert_eq!(
                    error.kind() == UnknownAfterData,
                    !error.is_retry_safe() && error.stage() == DataCompleted && error.response().is_none()
                );
                Ending::of(&error)
            }
        });
    }
    endings
}

fuzz_target!(|input: &[u8]| {
    let &[first, second, ref said @ ..] = input else { return };
    if said.len() > LONGEST {
        return;
    }
    let settings = Settings::of(first, second);
    let pieces: Vec<Vec<u8>> =
        said.split(|&byte| byte == b'|').filter(|piece| !piece.is_empty()).map(<[u8]>::to_vec).collect();
    let mut replay = Replay {
        settings: &settings,
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
    let Replay { script, endings: expected, .. } = replay;

    let (ours, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    theirs.set_read_timeout(Some(2 * PATIENCE)).unwrap();
    let shown = format!("{script:?}");
    let (jobs, reports) = server();
    jobs.send((theirs, script)).unwrap();
    let begun = Instant::now();
    let endings = run(&settings, TcpStream::from(OwnedFd::from(ours)));
    assert!(begun.elapsed() < PATIENCE, "it waited");
    let told = reports.lock().unwrap().recv().unwrap();
    assert_eq!(endings, expected, "{settings:?} {shown}");
    assert_eq!(told, Ok(()), "{settings:?} {shown}");
});
