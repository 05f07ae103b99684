//! A model of a mail server: takes mail, keeps the books, and has bad days.

#![expect(clippy::significant_drop_tightening, reason = "the books are looked at as a whole")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use crate::simulation::net::{Answer, Cut, Host, How, ROOM, Socket, Weather};
use crate::simulation::sleep;
use crate::sync::Mutex;

use super::tally::note;

const MILLI: Duration = Duration::from_millis(1);
/// After so long without a word a server hangs up.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a host answers who connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Up,
    Refusing,
    Lost,
}

/// What all servers have in common.
#[derive(Debug, Default)]
pub(super) struct Town {
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    is_calm: bool,
    /// How often each message was accepted.
    accepted: BTreeMap<u64, usize>,
    /// Messages whose last byte has come, and that have had no answer.
    undecided: BTreeSet<u64>,
}

impl Town {
    /// From now on nothing goes wrong any more.
    pub(super) fn calm(&self) {
        self.books.lock().is_calm = true;
    }

    /// How often a message was accepted.
    pub(super) fn accepted(&self, token: u64) -> usize {
        self.books.lock().accepted.get(&token).copied().unwrap_or(0)
    }

    /// One time out of so many, as long as it storms.
    fn is_unlucky(&self, out_of: u32) -> bool {
        fastrand::u32(..out_of) == 0 && !self.books.lock().is_calm
    }
}

/// One server.
pub(super) struct Model {
    pub(super) town: Arc<Town>,
    pub(super) mood: Mutex<Mood>,
    pub(super) latency: Duration,
}

impl Host for Model {
    fn answer(&self) -> Answer {
        let mood = *self.mood.lock();
        match mood {
            Mood::Up => {}
            Mood::Refusing => {
                note("refused");
                return Answer::Refused;
            }
            Mood::Lost => {
                note("black hole");
                return Answer::Silence;
            }
        }
        let cut = self.town.is_unlucky(4).then(|| {
            let how = [How::Fin, How::Rst, How::Silence][fastrand::usize(..3)];
            Cut { to_server: fastrand::bool(), behind: fastrand::usize(..900), how }
        });
        let room = if self.town.is_unlucky(6) { fastrand::usize(100..400) } else { ROOM };
        note(if room < ROOM { "small window" } else { "large window" });
        if let Some(cut) = cut {
            note(match cut.how {
                How::Fin => "to be cut by FIN",
                How::Rst => "to be cut by RST",
                How::Silence => "to be cut by silence",
            });
        }
        let town = Arc::clone(&self.town);
        let serve = move |socket: Socket| {
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.set_write_timeout(Some(PATIENCE)).unwrap();
            // Whatever ends it, it has ended.
            let _ = Session { socket, town, input: Vec::new(), takes_chunks: false, mail: None }.run();
        };
        Answer::Accepted(Weather { latency: self.latency, room, cut }, Box::new(serve))
    }
}

/// The connection is over.
struct Gone;

/// What may go wrong with one reply.
#[derive(Debug, Clone, Copy)]
enum Mishap {
    Later,
    Never,
    Leaving,
    HangsUp,
    Silent,
    Garbled,
    Twice,
}

const MISHAPS: [(Mishap, &str); 7] = [
    (Mishap::Later, "refused for now"),
    (Mishap::Never, "refused for good"),
    (Mishap::Leaving, "421"),
    (Mishap::HangsUp, "hung up"),
    (Mishap::Silent, "silent"),
    (Mishap::Garbled, "garbled"),
    (Mishap::Twice, "answered twice"),
];

/// One connection, from the server's side.
struct Session {
    socket: Socket,
    town: Arc<Town>,
    input: Vec<u8>,
    /// Whether it has offered CHUNKING.
    takes_chunks: bool,
    /// The message of the MAIL that was taken, and the recipients that were.
    mail: Option<(u64, usize)>,
}

impl Session {
    fn run(mut self) -> Result<(), Gone> {
        self.reply("220 model ESMTP", 12)?;
        loop {
            let line = self.line()?;
            let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            match &*verb {
                "EHLO" => {
                    self.mail = None;
                    let extensions = fastrand::usize(..3);
                    self.takes_chunks = extensions == 2;
                    let offers = ["", "250-PIPELINING\r\n", "250-PIPELINING\r\n250-CHUNKING\r\n"][extensions];
                    self.reply(&format!("250-model\r\n{offers}250 8BITMIME"), 20)?;
                }
                "MAIL" => {
                    let token = token_in(&line, "<t", "@").expect("a sender with a token");
                    {
                        let books = self.town.books.lock();
                        assert!(!books.accepted.contains_key(&token), "message {token} is sent again: it was accepted");
                        assert!(
                            !books.undecided.contains(&token),
                            "message {token} is sent again: its fate is unknown"
                        );
                    }
                    assert!(self.mail.is_none(), "MAIL in the middle of a transaction");
                    if self.reply("250 sender", 16)? {
                        self.mail = Some((token, 0));
                    }
                }
                "RCPT" => {
                    let is_in_order = self.mail.is_some();
                    let is_taken = is_in_order && self.reply("250 recipient", 16)?;
                    match &mut self.mail {
                        Some((_, recipients)) => *recipients += usize::from(is_taken),
                        None => self.say("503 no MAIL")?,
                    }
                }
                "DATA" => match self.mail {
                    Some((token, 1..)) => {
                        if self.reply("354 go on", 20)? {
                            self.take(token)?;
                        }
                        self.mail = None;
                    }
                    _ => self.say("503 nobody to send to")?,
                },
                "BDAT" => {
                    let mut words = line.split(' ').skip(1);
                    let size = words.next().and_then(|size| size.parse().ok()).expect("a size");
                    assert_eq!(words.next(), Some("LAST"), "a message in one chunk");
                    // It is read whatever becomes of it (RFC 3030 §2).
                    let content = String::from_utf8(self.octets(size)?).expect("text");
                    let tokens = content.lines().filter_map(|line| token_in(line, "Token: ", "")).collect();
                    match self.mail.take() {
                        Some((token, 1..)) => {
                            note("by BDAT");
                            self.decide(token, tokens)?;
                        }
                        _ => self.say("503 nobody to send to")?,
                    }
                }
                "RSET" => {
                    self.mail = None;
                    self.reply("250 reset", 25)?;
                }
                "NOOP" => drop(self.reply("250 here", 25)?),
                "QUIT" => {
                    self.say("221 bye")?;
                    return Ok(());
                }
                _ => panic!("out of step: {line:?}"),
            }
        }
    }

    /// The content of message `token`, up to the lone dot.
    fn take(&mut self, token: u64) -> Result<(), Gone> {
        let mut tokens = Vec::new();
        loop {
            let line = self.line()?;
            if line == "." {
                break;
            }
            tokens.extend(token_in(&line, "Token: ", ""));
        }
        self.decide(token, tokens)
    }

    /// The fate of message `token`, which has come.
    fn decide(&self, token: u64, tokens: Vec<u64>) -> Result<(), Gone> {
        assert_eq!(tokens, [token], "the content of one message in the envelope of another");
        self.town.books.lock().undecided.insert(token);
        if self.town.is_unlucky(24) {
            note("crashed before it accepted");
            if fastrand::bool() {
                // No answer to a last byte, whatever it looks like.
                self.say(["354 go on", "221 bye", "25"][fastrand::usize(..3)])?;
            }
            return Err(Gone);
        }
        if self.town.is_unlucky(12) {
            let (name, refusal) =
                [("451 to the dot", "451 later"), ("554 to the dot", "554 never")][fastrand::usize(..2)];
            note(name);
            self.town.books.lock().undecided.remove(&token);
            return self.say(refusal);
        }
        {
            let mut books = self.town.books.lock();
            books.undecided.remove(&token);
            let times = books.accepted.entry(token).or_default();
            *times += 1;
            assert_eq!(*times, 1, "message {token} was accepted twice");
        }
        if self.town.is_unlucky(16) {
            note("crashed after it accepted");
            return Err(Gone);
        }
        if self.town.is_unlucky(16) {
            note("silent after it accepted");
            sleep(PATIENCE);
            return Err(Gone);
        }
        if self.town.is_unlucky(30) {
            note("garbled after it accepted");
            return self
                .say(["2x0 accep", "354 more", "221 bye", "250 accepted\r\n250 accepted"][fastrand::usize(..4)]);
        }
        self.dawdle();
        self.say("250 accepted")
    }

    /// Answers, if nothing goes wrong, as one time out of so many it does. Whether it was the answer it should have been.
    fn reply(&self, good: &str, out_of: u32) -> Result<bool, Gone> {
        if !self.town.is_unlucky(out_of) {
            self.dawdle();
            self.say(good)?;
            return Ok(true);
        }
        let (mishap, name) = MISHAPS[fastrand::usize(..MISHAPS.len())];
        note(name);
        match mishap {
            Mishap::Later => self.say("450 not now")?,
            Mishap::Never => self.say("550 no")?,
            Mishap::Leaving => {
                self.say("421 going down")?;
                return Err(Gone);
            }
            Mishap::HangsUp => return Err(Gone),
            Mishap::Silent => {
                sleep(PATIENCE);
                return Err(Gone);
            }
            // In a group that ends with BDAT every good reply is a 250: one too many reads as the next one, to any client. Whoever
            // sends a message in one write trusts the server to count.
            Mishap::Twice if self.takes_chunks => return Err(Gone),
            Mishap::Garbled => self.say("?!")?,
            Mishap::Twice => {
                self.say(good)?;
                self.say(good)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn dawdle(&self) {
        if self.town.is_unlucky(40) {
            note("slow");
            sleep(MILLI * fastrand::u32(500..8_000));
        } else {
            sleep(MILLI * fastrand::u32(..5));
        }
    }

    fn say(&self, reply: &str) -> Result<(), Gone> {
        (&self.socket).write_all(format!("{reply}\r\n").as_bytes()).map_err(|_| Gone)
    }

    fn line(&mut self) -> Result<String, Gone> {
        loop {
            if let Some(end) = self.input.windows(2).position(|pair| pair == b"\r\n") {
                let mut line = self.octets(end + 2)?;
                line.truncate(end);
                return Ok(String::from_utf8(line).expect("text"));
            }
            self.read_more()?;
        }
    }

    fn octets(&mut self, count: usize) -> Result<Vec<u8>, Gone> {
        while self.input.len() < count {
            self.read_more()?;
        }
        Ok(self.input.drain(..count).collect())
    }

    fn read_more(&mut self) -> Result<(), Gone> {
        let mut buffer = [0; 4096];
        match (&self.socket).read(&mut buffer) {
            Ok(count @ 1..) => self.input.extend_from_slice(&buffer[..count]),
            Ok(0) | Err(_) => return Err(Gone),
        }
        Ok(())
    }
}

fn token_in(line: &str, before: &str, after: &str) -> Option<u64> {
    let (_, rest) = line.split_once(before)?;
    let number = if after.is_empty() { rest } else { rest.split_once(after)?.0 };
    number.parse().ok()
}
