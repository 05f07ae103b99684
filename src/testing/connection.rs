//! The thread of one connection: reads lines and content, runs the script or the normal behaviour, writes in batches.

mod actions;

use std::convert::Infallible;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::command;
use super::content::LINE_LIMIT;
use super::script::{Action, Cut, Stage};
use super::session::{self, Next, Session};
use super::store::Shared;
use super::wire::{End, Link};

/// Longest line of an AUTH exchange (RFC 4954 §4).
const AUTH_LINE_LIMIT: usize = 12_288;

/// Nothing may be sent behind these before their reply was read (RFC 2920 §3.1; servers differ about the final dot).
const LAST_OF_GROUP: [Stage; 8] = [
    Stage::Ehlo,
    Stage::StartTls,
    Stage::Auth,
    Stage::AuthStep,
    Stage::Noop,
    Stage::Quit,
    Stage::Data,
    Stage::EndOfData,
];

type Step = Result<(), End>;
type Actions = Arc<[Action]>;

pub(super) struct Connection {
    shared: Arc<Shared>,
    link: Arc<Link>,
    /// `Some` until the drop, which closes it.
    socket: Option<Arc<TcpStream>>,
    end: End,
    session: Session,
    mode: Mode,
    /// Decrypted and not yet acted on: `input[at..]`.
    input: Vec<u8>,
    at: usize,
    /// Decrypted and held back behind the point where the connection is to be cut.
    held: Vec<u8>,
    received: u64,
    client_cut: Option<(u64, Cut)>,
    /// The last byte before the cut was handed out: nothing is answered any more.
    mute: bool,
    out: Vec<u8>,
    buffer: Vec<u8>,
    /// The command before, as long as the client cannot have seen its reply.
    unanswered: Option<Stage>,
    body_rule: Option<(usize, Actions)>,
    message_finished: bool,
}

enum Mode {
    Commands,
    Content,
    Chunk { left: usize, line: Vec<u8>, rule: Option<Actions> },
}

impl Connection {
    pub(super) fn new(
        shared: Arc<Shared>,
        link: Arc<Link>,
        socket: Arc<TcpStream>,
        client_cut: Option<(u64, Cut)>,
    ) -> Self {
        Self {
            session: Session::new(Arc::clone(&shared), link.number, link.refused),
            shared,
            link,
            socket: Some(socket),
            end: End::Gone,
            mode: Mode::Commands,
            input: Vec::new(),
            at: 0,
            held: Vec::new(),
            received: 0,
            client_cut,
            mute: false,
            out: Vec::new(),
            buffer: vec![0; 65_536],
            unanswered: None,
            body_rule: None,
            message_finished: false,
        }
    }

    pub(super) fn run(mut self) {
        let Err(end) = self.converse();
        self.end = end;
        if end == End::Cut(Cut::Silence) {
            let Err(_) = self.swallow();
        }
    }

    fn converse(&mut self) -> Result<Infallible, End> {
        if self.shared.config.security == super::Security::ImplicitTls {
            self.stage(Stage::TlsHandshake, b"")?;
        }
        if self.link.refused {
            // No script has a say in it.
            self.normal(Stage::Connect, b"", true)?;
        }
        self.stage(Stage::Connect, b"")?;
        loop {
            match self.mode {
                Mode::Commands => match self.take_line() {
                    Some(line) => self.command(&line)?,
                    None => self.fill()?,
                },
                Mode::Content => self.content()?,
                Mode::Chunk { .. } => self.chunk()?,
            }
        }
    }

    fn command(&mut self, line: &[u8]) -> Step {
        let Some(line) = line.strip_suffix(b"\r\n") else {
            return self.unreadable("command line ends with a bare LF");
        };
        self.link.record_command(line);
        self.message_finished = false;
        let stage =
            if self.session.auth.is_some() { Stage::AuthStep } else { command::stage_of(&command::split(line).0) };
        let limit = if matches!(stage, Stage::Auth | Stage::AuthStep) { AUTH_LINE_LIMIT } else { LINE_LIMIT };
        let fault = match line {
            _ if line.contains(&b'\r') => Some("bare CR in a command"),
            _ if line.contains(&0) => Some("NUL in a command"),
            _ if line.len() > limit => Some("command line too long"),
            _ => None,
        };
        if let Some(fault) = fault {
            return self.unreadable(fault);
        }
        if let Some(before) = self.unanswered.replace(stage) {
            if !self.session.pipelining {
                self.session.violation(&format!("{stage:?} pipelined behind {before:?}, PIPELINING was not offered"));
                self.say(500, "5.5.1", "pipelining not supported");
                return self.leave(End::Fin);
            }
            if LAST_OF_GROUP.contains(&before) {
                return self.out_of_turn(stage, before);
            }
        }
        if stage != Stage::Bdat {
            return self.stage(stage, line);
        }
        let rule = self.shared.enter(stage, self.link.number, line).map(|(_, actions)| actions);
        match (command::parse_bdat(command::split(line).1), rule) {
            (_, Some(actions)) if actions.first() == Some(&Action::ChunkAsCommands) => self.act(stage, line, &actions),
            (Some((left, _)), rule) if self.shared.config.chunking => {
                if self.session.content.seen == 0 {
                    self.body_rule = self.shared.enter(Stage::Body, self.link.number, b"");
                }
                self.mode = Mode::Chunk { left, line: line.to_vec(), rule };
                Ok(())
            }
            (_, Some(actions)) => self.act(stage, line, &actions),
            (_, None) => self.normal(stage, line, true),
        }
    }

    fn out_of_turn(&mut self, stage: Stage, before: Stage) -> Step {
        self.session.violation(&format!("{stage:?} sent before the reply to {before:?}"));
        self.session.auth = None;
        self.say(503, "5.5.1", "sent too early");
        Ok(())
    }

    fn unreadable(&mut self, fault: &str) -> Step {
        self.session.violation(fault);
        self.session.auth = None;
        self.say(500, "5.5.2", fault);
        Ok(())
    }

    /// A stage is reached: the script's rule, or the normal behaviour.
    fn stage(&mut self, stage: Stage, line: &[u8]) -> Step {
        match self.shared.enter(stage, self.link.number, line) {
            Some((_, actions)) => self.act(stage, line, &actions),
            None => self.normal(stage, line, true),
        }
    }

    fn normal(&mut self, stage: Stage, line: &[u8], answer: bool) -> Step {
        let reply = self.session.perform(stage, line);
        if answer {
            self.out.extend_from_slice(&reply);
        }
        self.follow(stage)
    }

    fn follow(&mut self, stage: Stage) -> Step {
        let rest = self.at < self.input.len();
        match std::mem::take(&mut self.session.next) {
            Next::Nothing => Ok(()),
            Next::Close => {
                if rest && stage == Stage::Quit {
                    self.session.violation("bytes behind QUIT");
                }
                self.leave(End::Fin)
            }
            Next::TlsStage => self.stage(Stage::TlsHandshake, b""),
            Next::Handshake => self.handshake(),
            Next::Content => {
                if rest && self.unanswered.is_some() {
                    self.session.violation("content sent before the reply to DATA");
                    // Takes the normal 354 back; the replies before it stay.
                    if let Some(before) = self.out.strip_suffix(session::GO_AHEAD) {
                        self.out.truncate(before.len());
                    }
                    self.say(554, "5.5.0", "protocol synchronization error");
                    return self.leave(End::Fin);
                }
                self.mode = Mode::Content;
                self.body_rule = self.shared.enter(Stage::Body, self.link.number, b"");
                Ok(())
            }
        }
    }

    /// Reads content up to the final dot.
    fn content(&mut self) -> Step {
        let due = self.body_due()?;
        if self.at == self.input.len() {
            return self.fill();
        }
        let rest = &self.input[self.at..];
        let (used, done) = self.session.content.feed(&rest[..rest.len().min(due)]);
        self.at += used;
        if done {
            self.mode = Mode::Commands;
            self.end_of_data(true, Stage::EndOfData)?;
        }
        Ok(())
    }

    /// Reads a chunk of BDAT.
    fn chunk(&mut self) -> Step {
        let due = self.body_due()?;
        let Mode::Chunk { left, .. } = &mut self.mode else { return Ok(()) };
        let rest = &self.input[self.at..];
        if *left > 0 && rest.is_empty() {
            return self.fill();
        }
        let take = rest.len().min(*left).min(due);
        self.session.content.feed_chunk(&rest[..take]);
        self.at += take;
        *left -= take;
        if *left > 0 {
            return Ok(());
        }
        self.body_due()?;
        let Mode::Chunk { line, rule, .. } = std::mem::replace(&mut self.mode, Mode::Commands) else { return Ok(()) };
        self.unanswered = Some(Stage::Bdat);
        match rule {
            Some(actions) => self.act(Stage::Bdat, &line, &actions),
            None => self.finish_chunk(&line, true),
        }
    }

    /// The normal behaviour after a chunk: its own reply, or the end of data.
    fn finish_chunk(&mut self, line: &[u8], answer: bool) -> Step {
        let reply = self.session.perform(Stage::Bdat, line);
        if reply.is_empty() {
            return self.end_of_data(answer, Stage::Bdat);
        }
        if answer {
            self.out.extend_from_slice(&reply);
        }
        Ok(())
    }

    fn end_of_data(&mut self, answer: bool, by: Stage) -> Step {
        self.session.inspect_content();
        self.unanswered = Some(by);
        self.message_finished = true;
        self.body_rule = None;
        if answer { self.stage(Stage::EndOfData, b"") } else { self.normal(Stage::EndOfData, b"", false) }
    }

    /// Runs the rule for the body when its time has come; otherwise says how many bytes may be taken before it.
    fn body_due(&mut self) -> Result<usize, End> {
        let seen = self.session.content.seen;
        match &self.body_rule {
            None => Ok(usize::MAX),
            Some((after, _)) if seen < *after => Ok(after - seen),
            Some((_, actions)) => {
                let actions = Arc::clone(actions);
                self.body_rule = None;
                self.flush()?;
                self.act(Stage::Body, b"", &actions)?;
                Ok(usize::MAX)
            }
        }
    }

    fn handshake(&mut self) -> Step {
        self.flush()?;
        if self.at < self.input.len() {
            self.session.violation("bytes sent before the TLS handshake");
            self.at = self.input.len();
        }
        let Some(socket) = &self.socket else { return Err(End::Gone) };
        self.link.handshake(&self.shared.identity().acceptor, socket, &mut self.buffer)?;
        self.session.begin_tls();
        self.unanswered = None;
        Ok(())
    }

    fn say(&mut self, code: u16, enhanced: &str, text: &str) {
        let reply = self.session.reply(code, enhanced, text);
        self.out.extend_from_slice(&reply);
    }

    fn leave(&mut self, end: End) -> Step {
        self.flush()?;
        Err(end)
    }

    fn flush(&mut self) -> Step {
        let out = std::mem::take(&mut self.out);
        let result = if self.mute { Ok(()) } else { self.link.send(&out) };
        self.out = out;
        self.out.clear();
        result
    }

    fn take_line(&mut self) -> Option<Vec<u8>> {
        let rest = &self.input[self.at..];
        // Strict: only CRLF ends a line, but a bare LF is shown to `command` so that it can complain at once.
        let end = rest.iter().position(|byte| *byte == b'\n')? + 1;
        self.at += end;
        Some(rest[..end].to_vec())
    }

    /// Everything read so far was acted on: answers leave, then more is read.
    fn fill(&mut self) -> Step {
        self.flush()?;
        if std::mem::take(&mut self.message_finished) {
            self.stage(Stage::Idle, b"")?;
            self.flush()?;
        }
        self.unanswered = None;
        self.input.drain(..self.at);
        self.at = 0;
        if self.input.len() > AUTH_LINE_LIMIT {
            self.session.violation("command line without end");
            self.say(500, "5.5.2", "line too long");
            return self.leave(End::Fin);
        }
        self.read()
    }

    fn read(&mut self) -> Step {
        let Some((after, cut)) = self.client_cut else {
            return self.receive_into_input();
        };
        let left = usize::try_from(after.saturating_sub(self.received)).unwrap_or(usize::MAX);
        if left == 0 {
            return Err(End::Cut(cut));
        }
        if self.held.is_empty() {
            let before = self.input.len();
            self.receive_into_input()?;
            self.held = self.input.split_off(before);
        }
        // The last byte before the cut comes alone, so that only what it completes goes unanswered.
        self.mute = left == 1;
        let take = self.held.len().min((left - 1).max(1));
        self.input.extend(self.held.drain(..take));
        self.received += take as u64;
        Ok(())
    }

    fn receive_into_input(&mut self) -> Step {
        let Some(socket) = &self.socket else { return Err(End::Gone) };
        match self.link.receive(socket, &mut self.input, &mut self.buffer)? {
            0 => Err(End::Gone),
            _ => Ok(()),
        }
    }

    /// Reads until the client or somebody else ends the connection.
    fn swallow(&mut self) -> Result<Infallible, End> {
        loop {
            self.input.clear();
            self.at = 0;
            self.receive_into_input()?;
        }
    }
}

impl Drop for Connection {
    /// Also after a panic: the books stay right and nobody waits for ever.
    fn drop(&mut self) {
        if let Some(socket) = self.socket.take() {
            self.link.close(socket, self.end);
        }
        let mut state = self.shared.state.lock();
        state.snapshot.open -= 1;
        self.link.closed.store(true, Ordering::SeqCst);
        drop(state);
        self.shared.changed.notify_all();
    }
}
