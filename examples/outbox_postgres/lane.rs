//! One thread of a worker: a session of its own, one mail at a time.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use lettre::Address;
use lettre::address::Envelope;
use smtp_pool::{SendOptions, SmtpSender};

use crate::database::Error;
use crate::outcome::{self, Outcome};
use crate::session::{Claim, Session};
use crate::settings::Settings;
use crate::worker::{self, Until};

/// How long a lane with nothing to do waits before it looks again.
const POLL: Duration = Duration::from_millis(500);
/// The pause before another session is tried.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);
/// How often a lane that has to end still tries to write down what it knows.
const LAST_TRIES: u32 = 3;

pub struct Lane<'a> {
    settings: &'a Settings,
    sender: &'a SmtpSender,
    /// Disconnected when the worker has to end.
    stop: &'a Receiver<Infallible>,
    until: Until,
    /// The name of a session that was lost.
    lost: Option<i32>,
    /// What this lane knows and the database does not.
    unwritten: Option<(Claim, Outcome)>,
    settled: u64,
}

impl<'a> Lane<'a> {
    pub const fn new(
        settings: &'a Settings,
        sender: &'a SmtpSender,
        stop: &'a Receiver<Infallible>,
        until: Until,
    ) -> Self {
        Self { settings, sender, stop, until, lost: None, unwritten: None, settled: 0 }
    }

    /// Works until there is nothing to do, or until it has to end; outlives sessions. How many mails it has settled.
    pub fn run(mut self) -> Result<u64, Error> {
        let mut last_tries = 0;
        loop {
            let Err(error) = self.work() else { return Ok(self.settled) };
            eprintln!("worker {}: {error}", std::process::id());
            if !self.rest(RECONNECT_PAUSE) {
                last_tries += 1;
                if self.unwritten.is_none() || last_tries == LAST_TRIES {
                    if let Some((claim, outcome)) = &self.unwritten {
                        eprintln!(
                            "could not write down: {} {outcome:?}; it will be marked as unknown",
                            claim.message_id
                        );
                    }
                    return Err(error);
                }
            }
        }
    }

    fn work(&mut self) -> Result<(), Error> {
        let mut session = Session::open(self.settings)?;
        self.write_down(&mut session)?;
        if let Some(worker) = self.lost {
            session.give_back(worker)?;
        }
        self.lost = Some(session.worker());

        while !worker::is_disconnected(self.stop) {
            // Before the claim, so that it is over here before it is over there.
            #[expect(clippy::disallowed_methods, reason = "a lease by this machine's steady clock")]
            let over = Instant::now() + self.settings.lease;
            let Some(claim) = session.claim(self.settings.lease)? else {
                if self.until == Until::Empty && session.is_drained()? {
                    break;
                }
                self.rest(POLL);
                continue;
            };
            let (outcome, rest) = self.send(&claim, over);
            self.unwritten = Some((claim, outcome));
            self.write_down(&mut session)?;
            if let Some(rest) = rest {
                self.rest(rest);
            }
        }
        Ok(())
    }

    /// What came of it, and how long to leave the relay alone after it.
    fn send(&self, claim: &Claim, over: Instant) -> (Outcome, Option<Duration>) {
        let envelope = match envelope(claim) {
            Ok(envelope) => envelope,
            Err(error) => return (Outcome::malformed(&*error), None),
        };
        // The crate offers the last byte before `over` or not at all, and returns by then. A process that was stopped between claim and
        // send, and woke up an hour later, sends nothing.
        let result = self.sender.send_with(&envelope, &claim.content, &SendOptions::new().deadline(over));
        let first_pause = self.settings.retry_pause;
        let rest = result.as_ref().err().and_then(|error| outcome::rest_after(error, first_pause));
        (Outcome::of(&result, claim.attempts, first_pause), rest)
    }

    /// An error leaves it unwritten, for the next session.
    fn write_down(&mut self, session: &mut Session) -> Result<(), Error> {
        let Some((claim, outcome)) = &self.unwritten else { return Ok(()) };
        if session.settle(claim, outcome)? {
            self.settled += 1;
        } else {
            eprintln!("{} was settled already when this was known: {outcome:?}", claim.message_id);
        }
        self.unwritten = None;
        Ok(())
    }

    /// Whether there was time for all of it.
    fn rest(&self, pause: Duration) -> bool {
        matches!(self.stop.recv_timeout(pause), Err(RecvTimeoutError::Timeout))
    }
}

fn envelope(claim: &Claim) -> Result<Envelope, Error> {
    let from = claim.mail_from.as_deref().map(str::parse::<Address>).transpose()?;
    let to = claim.rcpt_to.iter().map(|address| address.parse::<Address>()).collect::<Result<_, _>>()?;
    Ok(Envelope::new(from, to)?)
}
