//! A whole message in one write: `MAIL`, `RCPT`, `BDAT … LAST` and the content.
//!
//! [RFC 3030 §2](https://www.rfc-editor.org/rfc/rfc3030#section-2) lets BDAT be pipelined like any other command
//! ([RFC 2920 §3.1](https://www.rfc-editor.org/rfc/rfc2920#section-3.1)). The write that begins the message is also the one that ends
//! it, so all of the dialogue is behind the commit point, and nothing but a refusal in step makes the outcome certain again.

use crate::clock::Deadline;
use crate::event::{Desync, Event, Fault, Step};
use crate::reply::Reply;
use crate::smtp::body::BodyEncoder;
use crate::smtp::command::{self, MailParameters};
use crate::smtp::failure::Failure;
use crate::smtp::stream::Look;

use super::{Command, LAST_WRITE, TimeLimits, Transaction};

/// The most content that leaves in one write with its envelope.
///
/// Postfix reads its input in blocks of 4 096 bytes and gains nothing from more at once. Normalising at most doubles it, and with
/// the envelope it still stays below [`LAST_WRITE`].
const SMALL: usize = 4096;

impl Transaction<'_, '_> {
    /// Whether the message may leave in one write. The look comes last: a message that goes by DATA all the same need not pay for it.
    pub(super) fn may_leave_at_once(&mut self, limits: &TimeLimits) -> bool {
        let Some(single) = &self.session.single else { return false };
        // With a second recipient the message would go to the half that was accepted. After a refusal DATA is not pipelined
        // either, and RSET is owed, which must be answered by 250 before anything rests on it.
        let fits = self.to.len() == 1
            && self.mail.content.len() <= SMALL
            && self.session.refused_in_a_row == 0
            && !self.session.reset_owed
            && single.is_warm(limits.begins)
            && limits.commit_by.is_none_or(|latest| limits.begins <= latest)
            && !single.is_given_up();
        // Whatever has arrived unasked, DATA finds out what it is before anything is at stake.
        fits && self.session.wire.look() == Look::Quiet
    }

    /// Sends the message in one write, and reads the answers.
    pub(super) fn leave_at_once(
        &mut self,
        parameters: MailParameters<'_>,
        limits: &TimeLimits,
    ) -> Result<Reply, Failure> {
        self.compose(parameters);
        self.recipients.reserve_exact(1);
        self.commit(limits, limits.begins);
        let answered = self.send(Step::Mail).and_then(|()| self.answers());
        answered.map_err(|failure| self.weigh(failure, limits.caller))
    }

    /// Puts the whole message into the buffer.
    fn compose(&mut self, parameters: MailParameters<'_>) {
        let out = &mut self.session.wire.out;
        command::mail(out, self.mail.envelope.from(), parameters);
        command::rcpt(out, &self.to[0], parameters.dsn);
        // The count stands in front of what it counts, so it is known too late. Counting what was written, and moving it behind
        // the command, leaves no room for a second opinion of what is written.
        let start = out.len();
        BodyEncoder::counted(self.mail.content).fill(out, usize::MAX);
        let octets = out.len() - start;
        command::bdat_last(out, octets);
        out[start..].rotate_left(octets);
        debug_assert!(out.len() <= LAST_WRITE, "two paths and twice the content of a small message");
    }

    /// Reads the three answers.
    fn answers(&mut self) -> Result<Reply, Failure> {
        self.take_reply(Command::Mail, false)?;
        self.take_reply(Command::Rcpt(0), true)?;
        let step = Step::EndOfData;
        let complete = self.session.wire.read_another().map_err(|error| Failure::wire(step, error, self.stage))?;
        let reply = self.session.wire.to_reply(complete);
        // After DATA the 354 has shown that the replies are in step. Here only their number does, so that one too many leaves it
        // open which of them was the answer to the content, be it yes or no.
        self.nothing_more(step)?;
        let is_refused = self.refusal().is_some();
        match complete.code {
            221 | 421 => Err(Failure::refused(step, reply, self.stage)),
            200..300 if !is_refused => {
                self.accepted_in_full();
                Ok(reply)
            }
            // The codes of a server that does not know a command (RFC 5321 §4.2.1: x0z is about syntax), said of one that it offers.
            500..=504 if !is_refused => {
                let failure = Failure::new(Event::BdatNotKnown, self.stage);
                Err(Failure { reply: Some(reply), ..failure })
            }
            400.. => {
                self.back_in_step();
                Err(Failure::refused(step, reply, self.stage))
            }
            // A 354 has no place here, and neither has a yes to the content of a message without sender or recipient.
            code => Err(Failure::new(Event::OutOfStep(step, Desync::WrongClass(code)), self.stage)),
        }
    }

    /// What a failure comes to, seen together with what was said before it.
    fn weigh(&self, failure: Failure, caller: Option<Deadline>) -> Failure {
        // A server that says that it closes says it last.
        let failure = match failure.event {
            Event::Reply(step, _) if self.session.wire.has_leftover() => {
                Failure::new(Event::OutOfStep(step, Desync::Unsolicited), self.stage)
            }
            _ => failure,
        };
        let is_nonsense = matches!(failure.event, Event::OutOfStep(..));
        // Some servers wait for more content than was announced to them; a caller in a hurry proves nothing of that kind.
        let hangs = matches!(failure.event, Event::Transport(Step::EndOfData, Fault::TimedOut))
            && !caller.is_some_and(Deadline::is_over);
        if is_nonsense || hangs || failure.event == Event::BdatNotKnown {
            if let Some(single) = &self.session.single {
                single.give_up(&failure.event);
            }
        }
        // What the server refused first, it meant, whether it answered the rest or hung up. Only nonsense casts doubt on it.
        if is_nonsense { failure } else { self.refusal().unwrap_or(failure) }
    }
}

#[cfg(test)]
#[cfg(not(simulation))]
mod tests {
    use std::io::Write;
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use lettre::address::Envelope;

    use super::*;
    use crate::clock;
    use crate::endpoint::Endpoint;
    use crate::options::{Dsn, DsnReturn, Notify, RecipientDsn, RecipientPolicy};
    use crate::smtp::capabilities::Capabilities;
    use crate::smtp::session::Session;
    use crate::smtp::single_round_trip::WillingHost;
    use crate::smtp::stream::{DeadlineStream, DeadlineTcp};
    use crate::smtp::transaction::Mail;
    use crate::smtp::wire::Wire;
    use crate::stage::SendStage;

    const HOUR: Duration = Duration::from_secs(3600);

    /// What the decision depends on; at first such that nothing speaks against it.
    struct Case {
        offered: Capabilities,
        is_wanted: bool,
        recipients: usize,
        octets: usize,
        commit_by: Option<Instant>,
        before: fn(&mut Session, &TcpStream),
    }

    impl Default for Case {
        fn default() -> Self {
            let offered = Capabilities { pipelining: true, chunking: true, ..Capabilities::default() };
            Self { offered, is_wanted: true, recipients: 1, octets: SMALL, commit_by: None, before: |_, _| {} }
        }
    }

    impl Case {
        fn may_leave_at_once(self) -> bool {
            self.with(|transaction, limits| transaction.may_leave_at_once(limits))
        }

        fn with<T>(self, test: impl FnOnce(&mut Transaction<'_, '_>, &TimeLimits) -> T) -> T {
            let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let server = listener.accept().unwrap().0;
            let far = Deadline::after(HOUR);
            let wire = Wire::new(DeadlineStream::Plain(DeadlineTcp::new(Arc::new(client), far)));
            let host = Arc::new(WillingHost::new(Endpoint::new("a.example", 25)));
            let mut session = Session::new(wire, self.offered, Some(&host).filter(|_| self.is_wanted));
            (self.before)(&mut session, &server);
            let to = (0..self.recipients).map(|number| format!("{number}@example.com").parse().unwrap());
            let envelope = Envelope::new(None, to.collect()).unwrap();
            let content = vec![b'\n'; self.octets];
            let (to, policy) = (envelope.to(), RecipientPolicy::AcceptPartial);
            let mail = Mail { envelope: &envelope, to, content: content[..].into(), policy, dsn: None };
            let now = clock::now();
            let limits = TimeLimits { commit_by: self.commit_by, ..TimeLimits::new(now, None, now, HOUR, HOUR) };
            let mut transaction = Transaction {
                session: &mut session,
                mail: &mail,
                to,
                stage: SendStage::Authenticated,
                recipients: Vec::new(),
                mail_refusal: None,
                data: None,
            };
            test(&mut transaction, &limits)
        }
    }

    #[test]
    fn only_what_fits_leaves_at_once() {
        let now = clock::now();
        let fits = Case::default;
        let offered = || Case::default().offered;
        assert!(fits().may_leave_at_once());
        assert!(Case { octets: 0, ..fits() }.may_leave_at_once());
        assert!(Case { commit_by: Some(now + HOUR), ..fits() }.may_leave_at_once());
        for (what, case) in [
            ("not wanted", Case { is_wanted: false, ..fits() }),
            ("CHUNKING not offered", Case { offered: Capabilities { chunking: false, ..offered() }, ..fits() }),
            ("PIPELINING not offered", Case { offered: Capabilities { pipelining: false, ..offered() }, ..fits() }),
            ("two recipients", Case { recipients: 2, ..fits() }),
            ("not small", Case { octets: SMALL + 1, ..fits() }),
            ("too late to commit", Case { commit_by: Some(now - Duration::from_nanos(1)), ..fits() }),
            ("refused before", Case { before: |session, _| session.refused_in_a_row = 1, ..fits() }),
            ("RSET is owed", Case { before: |session, _| session.reset_owed = true, ..fits() }),
            (
                "used long ago",
                Case { before: |session, _| session.used(clock::now() - Duration::from_secs(10)), ..fits() },
            ),
            ("given up", Case { before: |session, _| given_up(session), ..fits() }),
            ("bytes have arrived", Case { before: |session, server| arrived(session, server), ..fits() }),
            ("the server is gone", Case { before: |session, server| gone(session, server), ..fits() }),
        ] {
            assert!(!case.may_leave_at_once(), "{what}");
        }
    }

    fn given_up(session: &Session) {
        session.single.as_ref().unwrap().give_up(&Event::BdatNotKnown);
    }

    fn arrived(session: &mut Session, mut server: &TcpStream) {
        server.write_all(b"421 going\r\n").unwrap();
        seen(session);
    }

    fn gone(session: &mut Session, server: &TcpStream) {
        server.shutdown(Shutdown::Write).unwrap();
        seen(session);
    }

    /// What one end of a connection does takes a moment to reach the other.
    fn seen(session: &mut Session) {
        let patience = Deadline::after(Duration::from_secs(10));
        while session.wire.look() == Look::Quiet {
            assert!(!patience.is_over(), "nothing has arrived");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_write_that_fails_leaves_the_outcome_unknown_unless_a_refusal_stands_to_be_read() {
        let after = |before| {
            let plain = MailParameters::default();
            let case = Case { before, ..Case::default() };
            case.with(|transaction, limits| transaction.leave_at_once(plain, limits).unwrap_err())
        };
        let broken = after(|session, _| break_off(session));
        assert_eq!(
            (broken.event, broken.stage),
            (Event::Transport(Step::Mail, Fault::Broken), SendStage::DataCompleted)
        );
        let refused = after(|session, server| {
            break_off(session);
            arrived(session, server);
        });
        assert_eq!((refused.event, refused.stage), (Event::Reply(Step::Mail, 421), SendStage::DataCompleted));
    }

    /// From here on every write fails, and what has arrived can be read.
    fn break_off(session: &Session) {
        session.wire.stream().socket().shutdown(Shutdown::Write).unwrap();
    }

    #[test]
    fn the_largest_small_message_stays_below_the_last_write() {
        let longest = format!("{}@{}", "l".repeat(64), vec!["d".repeat(61); 4].join("."));
        let envelope = Envelope::new(Some(longest.parse().unwrap()), vec![longest.parse().unwrap()]).unwrap();
        let mut out = Vec::new();
        let original = RecipientDsn::new().original_recipient("o".repeat(493)).unwrap();
        let everything = Notify::SUCCESS | Notify::FAILURE | Notify::DELAY;
        let dsn = Dsn::new().content(DsnReturn::Full).notify(everything).envelope_id("e".repeat(100)).unwrap();
        let dsn = dsn.recipient(longest.parse().unwrap(), original);
        let parameters =
            MailParameters { size: Some(usize::MAX), eight_bit_mime: true, smtp_utf8: true, dsn: Some(&dsn) };
        command::mail(&mut out, envelope.from(), parameters);
        command::rcpt(&mut out, &envelope.to()[0], parameters.dsn);
        command::bdat_last(&mut out, usize::MAX);
        // Every line feed of theirs becomes two bytes, and none is at the end.
        BodyEncoder::counted([&[b'\n'; SMALL - 1][..], b"x"].concat()[..].into()).fill(&mut out, usize::MAX);
        assert!(out.len() > 2 * SMALL && out.len() <= LAST_WRITE, "{}", out.len());
    }
}
