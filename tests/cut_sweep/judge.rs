//! One send over a wire that is cut, and whether what the caller was told is true.

use std::time::Duration;

use smtp_pool::testing::Cut;
use smtp_pool::{FailureKind, Receipt, SendError, SendOptions, SendStage};

use crate::common::{self, SLACK, ms, send};
use crate::dialogue::{Bench, Passed, Recorded, Start, Way, id};
use crate::wire::{Plan, Wire};

/// How long a caller waits for a server that has gone silent.
const DEADLINE: Duration = ms(400);

/// What a call without anything to wait for may take on a busy machine.
const PROMPT: Duration = Duration::from_secs(1);

/// What a run came to.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Whether the cut came while the message was under way.
    pub(crate) was_cut: bool,
    /// By how much the call overran; a machine that is busy with other things may cause it, so it is for a second look.
    pub(crate) late: Option<Duration>,
    pub(crate) untrue: Option<String>,
}

/// Sends one message over a connection that ends as planned.
pub(crate) fn judge(bench: &Bench, recorded: &Recorded, plan: Plan, number: usize) -> Verdict {
    let reused = bench.way.reused;
    let wire = Wire::to(bench.server.port(), (!reused).then_some(plan));
    let sender = bench.sender(&wire);
    if reused {
        send(&sender, &id(number, "first")).unwrap();
    }
    let start = Start::at(bench.way.security, &if reused { wire.tape() } else { Default::default() });
    if reused {
        wire.plan(plan);
    }

    let (envelope, content) = (common::envelope(1), bench.way.content(&id(number, "under")));
    let called = common::now();
    let limit = if plan.cut == Cut::Silence { DEADLINE } else { PROMPT };
    let mut options = SendOptions::new();
    if plan.cut == Cut::Silence {
        options = options.deadline(called + DEADLINE);
    }
    let outcome = sender.send_with(&envelope, &content, &options);
    let late = called.elapsed().checked_sub(limit + SLACK);
    let at_rest = common::is_at_rest(&sender);
    wire.settle();
    let next = send(&sender, &id(number, "nexts"));
    let still_at_rest = common::is_at_rest(&sender);
    drop(sender);
    // Now the server has read all that it will ever read.
    wire.wait_over();

    let accepted = |what| bench.server.accepted(&id(number, what));
    let tape = wire.tape();
    let passed = start.passed(&tape);
    let told = Told { way: bench.way, cut: plan.cut, outcome: &outcome, accepted: accepted("under") };
    let mut faults: Vec<String> = match tape.was_cut {
        true => told.check(recorded, passed).err().into_iter().collect(),
        // With a deadline it may have been the machine that was slow.
        false => told.check_count().err().into_iter().collect(),
    };
    if next.is_err() || accepted("nexts") != 1 || (reused && accepted("first") != 1) {
        faults.push(format!("the next message was accepted {} times: {next:?}", accepted("nexts")));
    }
    if !at_rest || !still_at_rest {
        faults.push(format!("at rest: {at_rest}, after the next message: {still_at_rest}"));
    }
    let untrue = (!faults.is_empty())
        .then(|| format!("{:?} {plan:?}: {}; {passed:?} of {recorded:?}; {outcome:?}", bench.way, faults.join("; ")));
    Verdict { was_cut: tape.was_cut, late, untrue }
}

struct Told<'a> {
    way: Way,
    cut: Cut,
    outcome: &'a Result<Receipt, SendError>,
    accepted: usize,
}

impl Told<'_> {
    /// `Ok` means once, unknown at most once, anything else never.
    fn check_count(&self) -> Result<(), String> {
        let is_true = match self.outcome.as_ref().map_err(SendError::kind) {
            Ok(_) => self.accepted == 1,
            Err(FailureKind::UnknownAfterData) => self.accepted <= 1,
            Err(_) => self.accepted == 0,
        };
        if is_true { Ok(()) } else { Err(format!("accepted {} times", self.accepted)) }
    }

    /// The promises of SPEC §1 and the rule of the commit point, with what passed over the wire as the witness. No server of these
    /// dialogues ever refuses.
    fn check(&self, recorded: &Recorded, passed: Passed) -> Result<(), String> {
        self.check_count()?;
        let (was_due, was_seen) = (recorded.commit_was_due(passed), recorded.commit_was_seen(passed));
        let was_answered = recorded.was_answered(passed);
        let error = match self.outcome {
            Ok(_) if was_answered => return Ok(()),
            Ok(_) => {
                require(
                    self.way.reused || self.way.is_retried,
                    "Ok over the one connection, and the answer was not delivered",
                )?;
                return require(!was_seen, "sent again after the last byte had been offered");
            }
            Err(error) => error,
        };
        require(!was_answered, "the answer was delivered")?;
        if error.kind() == FailureKind::UnknownAfterData {
            require(was_due, "unknown, and it was not the last byte's turn")?;
            // After RST the wire does not read what the client still wrote; otherwise it reads all of it.
            let was_possible = self.cut == Cut::Reset || recorded.commit_was_possible(passed);
            require(was_possible, "unknown, and the last byte's write had not begun")?;
            require(error.stage() == SendStage::DataCompleted, "unknown at another stage")?;
            return require(!error.is_retry_safe(), "unknown, and safe to send again");
        }
        require(!was_seen, "the last byte had been offered")?;
        require(error.stage() < SendStage::DataCompleted, "the stage says that the last byte was offered")?;
        require(error.is_retry_safe(), "not accepted, and not safe to send again")?;
        // Silence is not the end of a connection: a server may be slow, and a second wait would double the first. A connection that
        // does not come about sends its host into a pause, in which nobody tries again.
        let is_made_good = self.way.reused || (self.way.is_retried && error.stage() > SendStage::Connected);
        require(!is_made_good || self.cut == Cut::Silence, "the connection's end cost a message")?;
        let kinds: &[FailureKind] = match error.stage() {
            SendStage::BeforeConnect | SendStage::Connected => &[FailureKind::HostUnavailable],
            _ => &[FailureKind::RetryableBeforeSend],
        };
        require(kinds.contains(&error.kind()), "another kind than that of a transport's failure")
    }
}

fn require(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}
