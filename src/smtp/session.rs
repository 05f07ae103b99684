//! An open SMTP session between messages.

use std::sync::Arc;
use std::time::Instant;

use crate::cancel::{CancelToken, Registration};
use crate::clock::{self, Deadline};
use crate::event::{Desync, Event, Fault, Step};
use crate::options::KeepaliveCommand;
use crate::stage::SendStage;
use crate::trace::TlsVersion;

use super::capabilities::Capabilities;
use super::command::{NOOP, QUIT, RSET};
use super::failure::Failure;
use super::single_round_trip::{SingleRoundTrip, WillingHost};
use super::stream::{Look, cutter};
use super::wire::Wire;

/// Messages refused in a row after which a session is retired: Postfix slows a client down after ten errors and hangs up at the
/// twentieth; a delivered message resets its count.
const MAX_REFUSED_IN_A_ROW: u32 = 10;

/// A session that has been greeted, encrypted and authenticated as its host demands.
///
/// It is *in step* while every command sent has had its reply and nothing else has come. Out of step it is for good.
#[derive(Debug)]
pub(crate) struct Session {
    pub(super) wire: Wire,
    pub(super) capabilities: Capabilities,
    pub(super) in_step: bool,
    /// The last transaction failed, so RSET must come before the next MAIL
    /// ([RFC 5321 §4.1.4](https://www.rfc-editor.org/rfc/rfc5321#section-4.1.4)).
    pub(super) reset_owed: bool,
    pub(super) refused_in_a_row: u32,
    /// Of a session in which a message may leave in one write.
    pub(super) single: Option<SingleRoundTrip>,
    /// The probe that has not been answered yet.
    probe: Option<Step>,
    /// Whoever may cut the session at any time.
    cutter: Option<Registration>,
}

impl Session {
    /// A session that has just been opened; `willing` if its host's settings want messages in one write.
    pub(super) fn new(wire: Wire, capabilities: Capabilities, willing: Option<&Arc<WillingHost>>) -> Self {
        let is_offered = capabilities.chunking && capabilities.pipelining;
        let willing = willing.filter(|_| is_offered);
        Self {
            wire,
            capabilities,
            in_step: true,
            reset_owed: false,
            refused_in_a_row: 0,
            single: willing.map(|host| SingleRoundTrip::new(Arc::clone(host), clock::now())),
            probe: None,
            cutter: None,
        }
    }

    /// Everything asked for up to `now` is answered, or will be when the session is lent again.
    pub(super) const fn used(&mut self, now: Instant) {
        if let Some(single) = &mut self.single {
            single.used(now);
        }
    }

    /// Keeps a registration for as long as the session lives.
    pub(super) fn keep_cutter(&mut self, cutter: Option<Registration>) {
        self.cutter = cutter;
    }

    /// Has the connection cut when `token` is cancelled, until what is returned is dropped.
    pub(super) fn cut_on(&self, token: &CancelToken) -> Registration {
        token.on_cancel(cutter(self.wire.stream().socket()))
    }

    /// Whether every command has had its reply.
    pub(crate) const fn is_in_step(&self) -> bool {
        self.in_step
    }

    /// Whether so many messages were refused in a row that the server will soon lose its patience.
    pub(crate) const fn is_worn_out(&self) -> bool {
        self.refused_in_a_row >= MAX_REFUSED_IN_A_ROW
    }

    /// The version of TLS; none if the session is not encrypted.
    pub(crate) fn tls_version(&self) -> Option<TlsVersion> {
        self.wire.stream().tls_version()
    }

    /// The bound on messages in this session that the server announced.
    pub(crate) const fn message_limit(&self) -> Option<u32> {
        self.capabilities.mail_max
    }

    /// A look without waiting: whether nothing says that the session has ended or got out of step.
    ///
    /// Necessary, not sufficient: a peer that vanished without a word looks alive until it is spoken to.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.in_step && self.wire.look() == Look::Quiet
    }

    /// The look of [`is_alive`](Self::is_alive) for one who has held the session for a while, with the reason: a reply that nobody
    /// asked for must not be taken for the answer to the next command.
    pub(crate) fn listen(&mut self) -> Result<(), Failure> {
        let stage = SendStage::Authenticated;
        if !self.in_step {
            return Err(Failure::new(Event::Spent, stage));
        }
        if self.is_alive() {
            return Ok(());
        }
        self.in_step = false;
        Err(match self.wire.read_arrived() {
            Ok(Some(complete)) if matches!(complete.code, 221 | 421) => {
                Failure::refused(Step::Mail, self.wire.to_reply(complete), stage)
            }
            Ok(None) if !self.wire.has_leftover() => Failure::new(Event::Transport(Step::Mail, Fault::Closed), stage),
            Ok(_) => Failure::new(Event::OutOfStep(Step::Mail, Desync::Unsolicited), stage),
            Err(desync) => Failure::wire(Step::Mail, desync.into(), stage),
        })
    }

    /// Asks the server for a sign of life; only 250 is one. RSET pays what was owed.
    pub(crate) fn probe(&mut self, command: KeepaliveCommand, deadline: Deadline) -> Result<(), Failure> {
        self.listen()?;
        let step = self.prepare_probe(command);
        self.wire.set_deadline(deadline);
        self.wire.send().map_err(|error| Failure::transport(step, error, SendStage::Authenticated))?;
        self.end_probe(deadline)
    }

    /// Asks for a sign of life without waiting for anything. False: the session is over, or out of step, or the command
    /// did not even fit into the socket's buffer.
    pub(crate) fn begin_probe(&mut self, command: KeepaliveCommand) -> bool {
        if !self.is_alive() {
            return false;
        }
        self.prepare_probe(command);
        self.wire.send_without_waiting().is_ok()
    }

    /// Out of step from here on, until the answer has been read.
    fn prepare_probe(&mut self, command: KeepaliveCommand) -> Step {
        let (step, bytes) = match command {
            KeepaliveCommand::Rset => (Step::Rset, RSET),
            KeepaliveCommand::Noop => (Step::Noop, NOOP),
        };
        self.in_step = false;
        self.probe = Some(step);
        self.wire.out.extend_from_slice(bytes);
        step
    }

    /// Waits for the answer to a probe; one that has arrived counts even when the deadline is over. Only 250 is a sign of
    /// life. RSET pays what was owed.
    pub(crate) fn end_probe(&mut self, deadline: Deadline) -> Result<(), Failure> {
        let stage = SendStage::Authenticated;
        let Some(step) = self.probe.take() else {
            return Err(Failure::new(Event::OutOfStep(Step::Noop, Desync::Unsolicited), stage));
        };
        let arrived = match deadline.is_over() {
            true => self.wire.read_arrived().map_err(|desync| Failure::wire(step, desync.into(), stage))?,
            false => None,
        };
        let complete = match arrived {
            Some(complete) => complete,
            None => {
                self.wire.set_deadline(deadline);
                self.wire.read().map_err(|error| Failure::wire(step, error, stage))?
            }
        };
        if complete.code != 250 {
            return Err(Failure::refused(step, self.wire.to_reply(complete), stage));
        }
        if self.wire.has_leftover() {
            return Err(Failure::new(Event::OutOfStep(step, Desync::Unsolicited), stage));
        }
        self.in_step = true;
        self.reset_owed &= step != Step::Rset;
        if self.single.is_some() {
            self.used(clock::now());
        }
        Ok(())
    }

    /// Says QUIT and half-closes, without waiting for the answer: Exim holds it back for 200 ms.
    pub(crate) fn quit(self) {
        self.wire.farewell(QUIT);
    }

    /// Cuts the connection without a word.
    pub(crate) fn abort(self) {
        self.wire.abort();
    }
}
