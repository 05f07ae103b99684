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

#[path = "dialogue/replay.rs"]
mod replay;

use std::io::Read;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{LazyLock, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use lettre::address::Envelope;
use libfuzzer_sys::fuzz_target;
use r2d2::ManageConnection;
use smtp_pool::FailureKind::UnknownAfterData;
use smtp_pool::RecipientStatus::{Accepted, Unknown};
use smtp_pool::SendStage::{DataCompleted, ServerAccepted};
use smtp_pool::fuzzing::connect_over;
use smtp_pool::{Host, PoolOptions, RecipientOutcome, RecipientPolicy, SendOptions, SmtpConnectionManager};
use socket2::{Domain, Socket, Type};

use replay::{Ending, Replay, Step};

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

type Job = (Socket, Vec<Step>);
/// What the client did differently, if it did.
type Report = Result<(), String>;

/// Plays the server's part.
fn play(socket: &mut Socket, script: Vec<Step>) -> Report {
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
struct Server {
    jobs: Sender<Job>,
    reports: Mutex<Receiver<Report>>,
}

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let (jobs, job) = mpsc::channel::<Job>();
    let (report, reports) = mpsc::channel();
    thread::spawn(move || {
        for (mut socket, script) in job {
            let told = play(&mut socket, script);
            drop(socket);
            report.send(told).unwrap();
        }
    });
    Server { jobs, reports: Mutex::new(reports) }
});

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
        let count =
            |recipients: &[RecipientOutcome], status| recipients.iter().filter(|one| one.status == status).count();
        endings.push(match connection.send_with(&settings.envelope(), &settings.content(), &options) {
            Ok(receipt) => {
                let told = receipt.recipients();
                assert_eq!((told.len(), count(told, Unknown)), (settings.recipients, 0), "{told:?}");
                assert!(count(told, Accepted) > 0, "{told:?}");
                let code = Some(receipt.response().code());
                Ending { kind: None, stage: ServerAccepted, code }
            }
            Err(error) => {
                assert_eq!(
                    error.kind() == UnknownAfterData,
                    !error.is_retry_safe() && error.stage() == DataCompleted && error.response().is_none()
                );
                // About the message, if it is unknown or if each recipient has a fate of its own; else only what was said to RCPT.
                let told = error.recipients();
                assert_eq!(count(told, Unknown) > 0, error.kind() == UnknownAfterData, "{told:?}");
                let is_about_rcpt = !settings.partial && error.kind() != UnknownAfterData;
                assert!(is_about_rcpt || count(told, Accepted) == 0, "{told:?}");
                Ending::of(&error)
            }
        });
    }
    endings
}

#[expect(clippy::disallowed_methods, reason = "it measures the time that passes")]
fn now() -> Instant {
    Instant::now()
}

fuzz_target!(|input: &[u8]| {
    let &[first, second, ref said @ ..] = input else { return };
    if said.len() > LONGEST {
        return;
    }
    let settings = Settings::of(first, second);
    let pieces: Vec<Vec<u8>> =
        said.split(|&byte| byte == b'|').filter(|piece| !piece.is_empty()).map(<[u8]>::to_vec).collect();
    let Replay { script, endings: expected, .. } = Replay::of(&settings, pieces);

    let (ours, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    theirs.set_read_timeout(Some(2 * PATIENCE)).unwrap();
    let shown = format!("{script:?}");
    SERVER.jobs.send((theirs, script)).unwrap();
    let begun = now();
    let endings = run(&settings, TcpStream::from(OwnedFd::from(ours)));
    assert!(begun.elapsed() < PATIENCE, "it waited");
    let told = SERVER.reports.lock().unwrap().recv().unwrap();
    assert_eq!(endings, expected, "{settings:?} {shown}");
    assert_eq!(told, Ok(()), "{settings:?} {shown}");
});
