//! One message over a session: envelope, content, the answer.
//!
//! The stage moves before each write. Whatever ends the dialogue early, the stage then tells what the server may have seen.

mod at_once;
mod limits;
mod sequence;

use std::time::Instant;

use lettre::Address;
use lettre::address::Envelope;

use crate::cancel::CancelToken;
use crate::clock::{self, Deadline};
use crate::event::{Desync, Event, Fault, Step};
use crate::options::{Dsn, RecipientPolicy};
use crate::recipient::{RecipientOutcome, RecipientStatus};
use crate::reply::Reply;
use crate::stage::SendStage;

use super::admission::admit;
use super::body::{BodyEncoder, Content};
use super::command::{self, DATA, DOT, MailParameters, RSET};
use super::failure::Failure;
use super::session::Session;
use super::stream::Look;

pub(crate) use self::limits::TimeLimits;
use self::sequence::{Command, Sequence};

/// Bounds on one group of pipelined commands, so that neither side's buffers fill while nobody reads
/// ([RFC 2920 §3.1](https://www.rfc-editor.org/rfc/rfc2920#section-3.1)).
const MAX_GROUP_BYTES: usize = 4096;
const MAX_GROUP_COMMANDS: usize = 50;

/// How much content is encoded and written at a time.
const CHUNK: usize = 64 * 1024;

/// The most that leaves with the last byte. A write that may fail half-way makes the outcome unknown, so it is kept short.
const LAST_WRITE: usize = 16 * 1024;

/// A message and what to do about refused recipients.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mail<'a> {
    pub(crate) envelope: &'a Envelope,
    /// Those of its recipients that are still to be told.
    pub(crate) to: &'a [Address],
    pub(crate) content: Content<'a>,
    pub(crate) policy: RecipientPolicy,
    pub(crate) dsn: Option<&'a Dsn>,
}

impl<'a> Mail<'a> {
    /// The recipients that one transaction may have with a server that takes so many; a refusal of the rest is `admission`'s.
    fn to_at_once(self, rcpt_max: Option<u32>) -> &'a [Address] {
        let most = rcpt_max.map_or(usize::MAX, |limit| limit as usize);
        match self.policy {
            RecipientPolicy::AllOrNothing => self.to,
            RecipientPolicy::AcceptPartial => &self.to[..self.to.len().min(most)],
        }
    }
}

/// A message the server took.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) reply: Reply,
    /// Of the recipients of [`Mail::to`], from the first on: a server may take no more of them at once.
    pub(crate) recipients: Vec<RecipientOutcome>,
}

/// A message that did not go through, as far as is known.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) failure: Failure,
    pub(crate) recipients: Vec<RecipientOutcome>,
    /// How many recipients the transaction was for, answered or not.
    pub(crate) offered_to: usize,
}

impl From<Failure> for Refused {
    /// Before any recipient was asked about.
    fn from(failure: Failure) -> Self {
        Self { failure, recipients: Vec::new(), offered_to: 0 }
    }
}

/// Sends one message; `cancel` cuts the connection meanwhile. Afterwards the session is in step, or says that it is not.
pub(crate) fn transact(
    session: &mut Session,
    mail: &Mail<'_>,
    limits: &TimeLimits,
    cancel: Option<&CancelToken>,
) -> Result<Accepted, Refused> {
    let cut = cancel.map(|token| session.cut_on(token));
    let outcome = carry(session, mail, limits);
    // From here on the token cuts this connection no more. If it has done so, nobody is to find out by using it.
    drop(cut);
    session.in_step &= !cancel.is_some_and(CancelToken::is_cancelled);
    outcome
}

fn carry(session: &mut Session, mail: &Mail<'_>, limits: &TimeLimits) -> Result<Accepted, Refused> {
    let mut transaction = Transaction {
        to: mail.to_at_once(session.capabilities.rcpt_max),
        session,
        mail,
        stage: SendStage::Authenticated,
        recipients: Vec::new(),
        mail_refusal: None,
        data: None,
    };
    let outcome = transaction.run(limits);
    let (recipients, offered_to) = (transaction.recipients, transaction.to.len());
    match outcome {
        Ok(reply) => Ok(Accepted { reply, recipients }),
        Err(failure) => Err(Refused { failure, recipients, offered_to }),
    }
}

/// What the server said to DATA.
#[derive(Debug)]
enum DataAnswer {
    Go,
    Refused(Reply),
}

struct Transaction<'s, 'm> {
    session: &'s mut Session,
    mail: &'m Mail<'m>,
    /// The recipients of this transaction.
    to: &'m [Address],
    stage: SendStage,
    /// What the server said to each RCPT so far.
    recipients: Vec<RecipientOutcome>,
    /// The server's refusal of MAIL.
    mail_refusal: Option<Reply>,
    /// Its answer to DATA, once that has been said.
    data: Option<DataAnswer>,
}

impl Transaction<'_, '_> {
    fn run(&mut self, limits: &TimeLimits) -> Result<Reply, Failure> {
        if !self.session.in_step {
            return Err(Failure::new(Event::Spent, self.stage));
        }
        // A caller whose time is over must not cost a connection that others can use.
        if limits.send_by.remaining_at(limits.begins).is_zero() {
            return Err(Failure::new(Event::TooLate, self.stage));
        }
        let parameters = admit(self.mail, &self.session.capabilities)
            .map_err(|inadmissible| Failure::new(Event::Inadmissible(inadmissible), self.stage))?;
        self.session.wire.set_deadline_at(limits.begins, limits.send_by);
        self.session.in_step = false;
        if self.may_leave_at_once(limits) {
            return self.leave_at_once(parameters, limits);
        }
        self.stage = SendStage::EnvelopeStarted;
        if let Err(failure) = self.envelope(parameters) {
            return Err(self.first_word(failure));
        }
        if let Some(refusal) = self.refusal() {
            self.withdraw();
            return Err(refusal);
        }
        if self.data.is_none() {
            self.session.wire.out.extend_from_slice(DATA);
            self.send(Step::Data)?;
            self.take_reply(Command::Data, false)?;
            self.nothing_but_closing(Step::Data).map_err(|failure| self.first_word(failure))?;
        }
        if let Some(DataAnswer::Refused(reply)) = self.data.take() {
            self.back_in_step();
            return Err(Failure::refused(Step::Data, reply, self.stage));
        }
        self.content(limits)?;
        self.final_reply()
    }

    /// Offers the envelope, in groups where the server takes that, and collects the replies.
    fn envelope(&mut self, parameters: MailParameters<'_>) -> Result<(), Failure> {
        let pipelining = self.session.capabilities.pipelining;
        let recipients = self.to.len();
        self.recipients.reserve_exact(recipients);
        // A server counts the DATA behind a refused RCPT as one more error of ours (Postfix slows down from the tenth), so after a
        // refusal DATA waits for the recipients until a message has gone through.
        let data = pipelining
            && self.session.refused_in_a_row == 0
            && command::may_pipeline_data(recipients, self.mail.policy);
        let sequence = Sequence { reset: self.session.reset_owed, recipients, data };

        let mut next = 0;
        while next < sequence.len() && self.mail_refusal.is_none() {
            let first = next;
            while next < sequence.len() && (next == first || (pipelining && next - first < MAX_GROUP_COMMANDS)) {
                let out = &mut self.session.wire.out;
                let before = out.len();
                match sequence.at(next) {
                    Command::Rset => out.extend_from_slice(RSET),
                    Command::Mail => command::mail(out, self.mail.envelope.from(), parameters),
                    Command::Rcpt(index) => command::rcpt(out, &self.to[index], parameters.dsn),
                    Command::Data => out.extend_from_slice(DATA),
                }
                if next > first && out.len() > MAX_GROUP_BYTES {
                    out.truncate(before);
                    break;
                }
                next += 1;
            }
            self.send(sequence.at(first).step())?;
            for index in first..next {
                self.take_reply(sequence.at(index), index > first)?;
            }
            self.nothing_but_closing(sequence.at(next - 1).step())?;
        }
        Ok(())
    }

    /// Writes what is in the buffer. If that fails, the reason may have arrived already.
    fn send(&mut self, step: Step) -> Result<(), Failure> {
        let Err(error) = self.session.wire.send() else { return Ok(()) };
        match self.session.wire.read_arrived() {
            Ok(Some(complete)) if matches!(complete.code, 221 | 400..) => {
                Err(Failure::refused(step, self.session.wire.to_reply(complete), self.stage))
            }
            _ => Err(Failure::transport(step, error, self.stage)),
        }
    }

    /// Reads the reply to `command`, which may be another one to the same write, and notes what it means.
    fn take_reply(&mut self, command: Command, is_another: bool) -> Result<(), Failure> {
        let step = command.step();
        let wire = &mut self.session.wire;
        let complete = if is_another { wire.read_another() } else { wire.read() };
        let complete = complete.map_err(|error| Failure::wire(step, error, self.stage))?;
        let to_reply = |complete| self.session.wire.to_reply(complete);
        match (command, complete.code) {
            // The server is closing, whatever it was asked.
            (_, 221 | 421) => Err(Failure::refused(step, to_reply(complete), self.stage)),
            (Command::Rset, 250) => {
                self.session.reset_owed = false;
                Ok(())
            }
            (Command::Rset, 400..) => Err(Failure::refused(step, to_reply(complete), self.stage)),
            // Without a sender, whatever follows is refused for that alone.
            (Command::Rcpt(_), 200..300 | 400..) if self.mail_refusal.is_some() => Ok(()),
            (Command::Mail, 200..300) => Ok(()),
            (Command::Mail, 400..) => {
                self.mail_refusal = Some(to_reply(complete));
                Ok(())
            }
            (Command::Rcpt(index), 200..300 | 400..) => {
                let reply = to_reply(complete);
                let status = self.status_of(reply.code());
                let address = self.to[index].clone();
                self.recipients.push(RecipientOutcome { address, status, reply: Some(reply) });
                Ok(())
            }
            (Command::Data, 354) => {
                self.data = Some(DataAnswer::Go);
                Ok(())
            }
            (Command::Data, 400..) => {
                self.data = Some(DataAnswer::Refused(to_reply(complete)));
                Ok(())
            }
            (_, code) => Err(Failure::new(Event::OutOfStep(step, Desync::WrongClass(code)), self.stage)),
        }
    }

    /// What a reply to RCPT says of the recipient. 552 after one was accepted means too many of them, so it is temporary for the rest
    /// ([RFC 5321 §4.5.3.1.10](https://www.rfc-editor.org/rfc/rfc5321#section-4.5.3.1.10)).
    fn status_of(&self, code: u16) -> RecipientStatus {
        match code {
            200..300 => RecipientStatus::Accepted,
            552 if self.accepted() > 0 => RecipientStatus::RefusedForNow,
            500.. => RecipientStatus::Refused,
            _ => RecipientStatus::RefusedForNow,
        }
    }

    fn accepted(&self) -> usize {
        self.recipients.iter().filter(|recipient| recipient.status == RecipientStatus::Accepted).count()
    }

    /// Whether every recipient of this transaction was asked for, and none accepted.
    fn is_each_refused(&self) -> bool {
        self.recipients.len() == self.to.len() && self.accepted() == 0
    }

    /// With every reply read, nothing may be left over.
    fn nothing_more(&self, step: Step) -> Result<(), Failure> {
        if self.session.wire.has_leftover() {
            return Err(Failure::new(Event::OutOfStep(step, Desync::Unsolicited), self.stage));
        }
        Ok(())
    }

    /// The same, but for the server's word that it is closing. Only before the content: behind the answer to it, it must not be taken
    /// for that answer.
    fn nothing_but_closing(&mut self, step: Step) -> Result<(), Failure> {
        self.nothing_more(step).map_err(|failure| match self.word_of_closing() {
            Some(reply) => Failure::refused(step, reply, self.stage),
            None => failure,
        })
    }

    /// The 421 that all of what is left over is. It may come at any time
    /// ([RFC 5321 §3.8](https://www.rfc-editor.org/rfc/rfc5321#section-3.8)), and from Postfix together with the refusal that was one
    /// too many.
    fn word_of_closing(&mut self) -> Option<Reply> {
        let complete = self.session.wire.read_arrived().ok()?.filter(|complete| complete.code == 421)?;
        (!self.session.wire.has_leftover()).then(|| self.session.wire.to_reply(complete))
    }

    /// A server may refuse and hang up before it has answered the rest, with a 421 or without (Postfix says it to the command behind
    /// one refusal too many): what it said first, it meant. Only nonsense casts doubt on it.
    fn first_word(&self, failure: Failure) -> Failure {
        let is_end = matches!(failure.event, Event::Transport(..) | Event::Reply(_, 221 | 421));
        let refusal = || match &self.data {
            Some(DataAnswer::Refused(reply)) => Some(Failure::refused(Step::Data, reply.clone(), self.stage)),
            _ => None,
        };
        let first = is_end.then(|| self.refusal().or_else(refusal)).flatten();
        first.unwrap_or(failure)
    }

    /// Why the replies to the envelope, as far as they came, mean that no content will be sent. A refusal for good goes before one
    /// for now.
    fn refusal(&self) -> Option<Failure> {
        if let Some(reply) = &self.mail_refusal {
            return Some(Failure::refused(Step::Mail, reply.clone(), self.stage));
        }
        let is_enough = match self.mail.policy {
            RecipientPolicy::AllOrNothing => true,
            RecipientPolicy::AcceptPartial => self.is_each_refused(),
        };
        let worst = self.recipients.iter().filter(|_| is_enough).max_by_key(|recipient| match recipient.status {
            RecipientStatus::Accepted => 0,
            RecipientStatus::RefusedForNow => 1,
            _ => 2,
        })?;
        let reply = worst.reply.as_ref()?;
        match worst.status {
            RecipientStatus::Accepted => None,
            RecipientStatus::RefusedForNow if reply.is_permanent() => {
                let failure = Failure::new(Event::TooManyRecipients, self.stage);
                Some(Failure { reply: Some(reply.clone()), ..failure })
            }
            _ => Some(Failure::refused(Step::Rcpt, reply.clone(), self.stage)),
        }
    }

    /// Brings the session back in step after the envelope was refused.
    ///
    /// A 354 that came all the same is answered with a lone dot when no recipient was accepted, which
    /// [RFC 2920 §3.1](https://www.rfc-editor.org/rfc/rfc2920#section-3.1) asks for; what the server says to it does not matter. With
    /// MAIL refused a 354 makes no sense, and the session stays out of step.
    fn withdraw(&mut self) {
        if matches!(self.data.take(), Some(DataAnswer::Go)) {
            if self.mail_refusal.is_some() || self.accepted() > 0 {
                return;
            }
            self.session.wire.out.extend_from_slice(DOT);
            let answered = self.session.wire.send().is_ok()
                && self.session.wire.read().is_ok_and(|reply| !matches!(reply.code, 221 | 421));
            if !answered || self.session.wire.has_leftover() {
                return;
            }
        }
        self.back_in_step();
    }

    /// Every reply is in and the message was refused: the next one begins with RSET.
    fn back_in_step(&mut self) {
        self.session.in_step = true;
        self.session.reset_owed = true;
        self.session.refused_in_a_row += 1;
    }

    /// Writes the content, the last byte included.
    fn content(&mut self, limits: &TimeLimits) -> Result<(), Failure> {
        self.stage = SendStage::DataStarted;
        let mut encoder = BodyEncoder::new(self.mail.content);
        while !encoder.fill(&mut self.session.wire.out, CHUNK) {
            let sent = self.session.wire.send();
            sent.map_err(|error| self.early_end(Some(error)))?;
        }
        let ahead = self.session.wire.out.len().saturating_sub(LAST_WRITE);
        if ahead > 0 {
            let sent = self.session.wire.send_first(ahead);
            sent.map_err(|error| self.early_end(Some(error)))?;
        }

        // The last moments at which nothing can have been accepted: is there still time for an answer, and is the server still there?
        let now = clock::now();
        if limits.send_by.remaining_at(now).is_zero() {
            return Err(Failure::new(Event::Transport(Step::Content, Fault::TimedOut), self.stage));
        }
        if limits.commit_by.is_some_and(|latest| now > latest) {
            return Err(Failure::new(Event::CommitGate, self.stage));
        }
        if self.session.wire.look() != Look::Quiet {
            return Err(self.early_end(None));
        }

        self.commit(limits, now);
        let Err(error) = self.session.wire.send() else { return Ok(()) };
        // Part of the last write may have arrived. A refusal that stands to be read is decisive all the same: it obliges the server
        // not to deliver (RFC 5321 §4.2.5).
        match self.session.wire.read_arrived() {
            Ok(Some(complete)) if complete.code >= 400 => {
                Err(Failure::refused(Step::EndOfData, self.session.wire.to_reply(complete), self.stage))
            }
            _ => Err(Failure::transport(Step::EndOfData, error, self.stage)),
        }
    }

    /// The write that begins at `now` holds the last byte.
    fn commit(&mut self, limits: &TimeLimits, now: Instant) {
        let final_reply_by = Deadline::at(now, limits.final_reply);
        let final_reply_by = limits.caller.map_or(final_reply_by, |caller| caller.earlier(final_reply_by));
        self.session.wire.set_deadline_at(now, final_reply_by);
        self.session.used(now);
        self.stage = SendStage::DataCompleted;
    }

    /// Why the server ended the content before its last byte: what it said, if it said anything.
    fn early_end(&mut self, error: Option<std::io::Error>) -> Failure {
        match self.session.wire.read_arrived() {
            Ok(Some(complete)) if complete.code >= 400 => {
                Failure::refused(Step::Content, self.session.wire.to_reply(complete), self.stage)
            }
            Ok(Some(_)) => Failure::new(Event::OutOfStep(Step::Content, Desync::Unsolicited), self.stage),
            Err(desync) => Failure::new(Event::OutOfStep(Step::Content, desync), self.stage),
            Ok(None) => match error {
                Some(error) => Failure::transport(Step::Content, error, self.stage),
                None => Failure::new(Event::Transport(Step::Content, Fault::Closed), self.stage),
            },
        }
    }

    /// The server has the message, and has answered everything.
    const fn accepted_in_full(&mut self) {
        self.stage = SendStage::ServerAccepted;
        self.session.in_step = true;
        self.session.refused_in_a_row = 0;
    }

    /// Reads the answer to the last byte.
    fn final_reply(&mut self) -> Result<Reply, Failure> {
        let step = Step::EndOfData;
        let complete = self.session.wire.read().map_err(|error| Failure::wire(step, error, self.stage))?;
        let reply = self.session.wire.to_reply(complete);
        let is_alone = !self.session.wire.has_leftover();
        match complete.code {
            221 | 300..400 => Err(Failure::new(Event::OutOfStep(step, Desync::WrongClass(complete.code)), self.stage)),
            200..300 => {
                // Accepted is accepted, whatever comes after it; but a session with something after it is not in step.
                self.accepted_in_full();
                self.session.in_step = is_alone;
                Ok(reply)
            }
            // A refusal for which the server hangs up is one; with any other reply behind it it decides nothing.
            422.. if !is_alone && self.word_of_closing().is_some() => Err(Failure::refused(step, reply, self.stage)),
            _ if !is_alone => Err(Failure::new(Event::OutOfStep(step, Desync::Unsolicited), self.stage)),
            421 => Err(Failure::refused(step, reply, self.stage)),
            _ => {
                self.back_in_step();
                Err(Failure::refused(step, reply, self.stage))
            }
        }
    }
}
