//! A message in several transactions, because a server takes fewer recipients at a time than it has.
//!
//! Each recipient is offered again only after a complete refusal of it, never after a yes or after silence; so nobody gets the message
//! twice. One call has one answer all the same:
//!
//! - a transaction whose outcome is unknown: the answer is that error, whatever the others came to
//! - else, if one was accepted: a receipt
//! - else: the failure
//!
//! In each of them every recipient is told what became of it. A failure of the message ends the sending; one that is only about the
//! recipients of its transaction does not.

use std::borrow::Cow;

use lettre::Address;
use lettre::address::Envelope;

use crate::error::{FailureKind, SendError};
use crate::options::RecipientPolicy;
use crate::recipient::{RecipientOutcome, RecipientStatus};
use crate::stage::SendStage;

use super::receipt::Receipt;

/// What has become of a message so far.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    envelope: &'a Envelope,
    policy: RecipientPolicy,
    /// What became of each recipient, by its place in the envelope. Empty while one transaction had them all.
    outcomes: Vec<Option<RecipientOutcome>>,
    /// The places of those who are still to be offered. Means nothing before the first transaction: then it is all of them.
    waiting: Vec<usize>,
    /// How many the server took at a time, as far as it has shown.
    at_most: usize,
    has_begun: bool,
    is_over: bool,
    /// A failure of the message ended it, not the end of the list.
    is_stopped: bool,
    receipt: Option<Receipt>,
    failure: Option<SendError>,
    /// Attempts beyond the first of each transaction.
    retries: u32,
}

impl<'a> Parts<'a> {
    pub(crate) const fn new(envelope: &'a Envelope, policy: RecipientPolicy) -> Self {
        Self {
            envelope,
            policy,
            outcomes: Vec::new(),
            waiting: Vec::new(),
            at_most: usize::MAX,
            has_begun: false,
            is_over: false,
            is_stopped: false,
            receipt: None,
            failure: None,
            retries: 0,
        }
    }

    /// The recipients to offer next; `None` once there is nothing left to do.
    pub(crate) fn next(&self) -> Option<Cow<'a, [Address]>> {
        match (self.is_over, self.has_begun) {
            (true, _) => None,
            (false, false) => Some(Cow::Borrowed(self.envelope.to())),
            (false, true) => {
                let places = self.waiting.iter().take(self.at_most);
                Some(places.map(|&place| self.envelope.to()[place].clone()).collect())
            }
        }
    }

    /// The places in the envelope of those that are still to be offered; none means all of them.
    pub(crate) fn places(&self) -> &[usize] {
        &self.waiting
    }

    /// Whether there is nothing left to do.
    pub(crate) const fn is_over(&self) -> bool {
        self.is_over
    }

    /// A transaction was accepted.
    pub(crate) fn accepted(&mut self, receipt: Receipt) {
        let taken = taken_at_once(receipt.recipients());
        let is_whole = receipt.recipients().len() == self.envelope.to().len();
        if !self.has_begun && is_whole && taken.is_none() {
            self.has_begun = true;
        } else {
            let offered = self.begin();
            self.at_most = taken.unwrap_or(self.at_most);
            let mut again = Vec::new();
            for (index, (&place, outcome)) in offered.iter().zip(receipt.recipients()).enumerate() {
                if taken.is_some_and(|taken| index >= taken && is_one_too_many(outcome)) {
                    again.push(place);
                }
                self.outcomes[place] = Some(outcome.clone());
            }
            // Those that were not offered, behind those that were. One was accepted, so fewer wait than before: it comes to an end.
            again.extend_from_slice(&offered[receipt.recipients().len()..]);
            self.waiting = again;
        }
        self.retries += receipt.attempts() - 1;
        self.receipt = Some(match self.receipt.take() {
            Some(earlier) => receipt.after(earlier),
            None => receipt,
        });
        self.is_over = self.waiting.is_empty();
    }

    /// A transaction for the first `offered_to` of the recipients that were still to be offered failed.
    pub(crate) fn failed(&mut self, error: SendError, offered_to: usize) {
        let answers = error.recipients();
        let is_unknown = error.kind() == FailureKind::UnknownAfterData;
        let is_any_accepted = answers.iter().any(|answer| answer.status == RecipientStatus::Accepted);
        // Refused each for itself, they say nothing about the others. Behind an unknown outcome nothing is begun.
        let is_each_refused = !answers.is_empty() && answers.len() == offered_to && !is_any_accepted && !is_unknown;
        let goes_on = is_each_refused && self.policy == RecipientPolicy::AcceptPartial;
        if self.has_begun || is_unknown || self.policy == RecipientPolicy::AcceptPartial {
            let offered = self.begin();
            let (at_stake, untouched) = offered.split_at(if is_unknown { offered_to } else { answers.len() });
            for (index, &place) in at_stake.iter().enumerate() {
                // A message in one write may be lost before RCPT was answered; and where its last byte was offered in spite of a
                // refusal of all of them, what came back made no sense, and the refusals no more than the rest.
                let answer = answers.get(index).filter(|_| is_any_accepted || !is_unknown);
                let address = &self.envelope.to()[place];
                self.outcomes[place] =
                    Some(answer.map_or_else(|| silent(address, is_unknown), |one| fate(one, &error)));
            }
            self.waiting = untouched.to_vec();
        }
        self.retries += error.attempts().saturating_sub(1);
        self.is_stopped = !goes_on;
        self.is_over = self.is_stopped || self.waiting.is_empty();
        let is_outweighed =
            goes_on && self.failure.as_ref().is_some_and(|one| one.kind() == FailureKind::PermanentFailure);
        if !is_outweighed {
            self.failure = Some(error);
        }
    }

    /// The places that were offered, and those behind them.
    fn begin(&mut self) -> Vec<usize> {
        if self.outcomes.is_empty() {
            self.outcomes = vec![None; self.envelope.to().len()];
            self.waiting = (0..self.envelope.to().len()).collect();
        }
        self.has_begun = true;
        std::mem::take(&mut self.waiting)
    }

    /// The one answer.
    ///
    /// # Errors
    ///
    /// The failure, if no recipient was accepted or if it is unknown whether one was.
    pub(crate) fn finish(mut self) -> Result<Receipt, SendError> {
        let attempts = 1 + self.retries;
        let is_known = self.outcomes.iter().any(Option::is_some);
        let recipients = is_known.then(|| self.told());
        match (self.receipt, self.failure) {
            (Some(receipt), failure)
                if failure.as_ref().is_none_or(|error| error.kind() != FailureKind::UnknownAfterData) =>
            {
                let receipt = receipt.with_attempts(attempts);
                let receipt = match failure.filter(|_| self.is_stopped) {
                    Some(failure) => receipt.stopped(failure),
                    None => receipt,
                };
                Ok(match recipients {
                    Some(recipients) => receipt.with_recipients(recipients),
                    None => receipt,
                })
            }
            (_, Some(error)) => {
                let error = if error.attempts() > 0 { error.with_attempts(attempts) } else { error };
                Err(match recipients {
                    Some(recipients) => error.with_recipients(recipients),
                    None => error,
                })
            }
            (_, None) => unreachable!("a transaction was accepted or failed"),
        }
    }

    /// What became of each recipient, in the order of the envelope.
    fn told(&mut self) -> Vec<RecipientOutcome> {
        let outcomes = std::mem::take(&mut self.outcomes).into_iter().zip(self.envelope.to());
        outcomes.map(|(outcome, address)| outcome.unwrap_or_else(|| silent(address, false))).collect()
    }
}

/// What became of a recipient of whom the server has said nothing.
fn silent(address: &Address, may_have_it: bool) -> RecipientOutcome {
    let status = if may_have_it { RecipientStatus::Unknown } else { RecipientStatus::NotSent };
    RecipientOutcome { address: address.clone(), status, reply: None }
}

/// What a failed transaction means for a recipient to whom the server had said this.
fn fate(outcome: &RecipientOutcome, error: &SendError) -> RecipientOutcome {
    if outcome.status != RecipientStatus::Accepted {
        return outcome.clone();
    }
    // A reply to the opening of a connection says nothing about a message.
    let reply = error.response().filter(|_| error.stage() >= SendStage::EnvelopeStarted);
    let (status, reply) = match (error.kind(), reply) {
        (FailureKind::UnknownAfterData, _) => (RecipientStatus::Unknown, None),
        (FailureKind::RetryableTemporaryFailure, Some(reply)) => (RecipientStatus::RefusedForNow, Some(reply.clone())),
        (FailureKind::PermanentFailure, Some(reply)) => (RecipientStatus::Refused, Some(reply.clone())),
        _ => (RecipientStatus::NotSent, None),
    };
    RecipientOutcome { address: outcome.address.clone(), status, reply }
}

/// How many recipients the server took before one was too many; at least one.
fn taken_at_once(recipients: &[RecipientOutcome]) -> Option<usize> {
    // Refused before anyone was accepted, a recipient was not one too many.
    let accepted = recipients.iter().position(|outcome| outcome.status == RecipientStatus::Accepted)?;
    let behind = recipients[accepted..].iter().position(is_one_too_many)?;
    Some(accepted + behind)
}

/// Whether a recipient that others were accepted before was refused because of their number: 452, or the 552 of old
/// ([RFC 5321 §4.5.3.1.10](https://www.rfc-editor.org/rfc/rfc5321#section-4.5.3.1.10)). An enhanced code says it for certain: X.5.3
/// ([RFC 3463 §3.6](https://www.rfc-editor.org/rfc/rfc3463#section-3.6)); with another one the reply is about something else.
fn is_one_too_many(outcome: &RecipientOutcome) -> bool {
    let Some(reply) = outcome.reply.as_ref().filter(|_| outcome.status == RecipientStatus::RefusedForNow) else {
        return false;
    };
    let is_said = reply.enhanced_code().is_none_or(|code| (code.subject, code.detail) == (5, 3));
    matches!(reply.code(), 452 | 552) && is_said
}

#[cfg(test)]
#[path = "parts_tests.rs"]
mod tests;
