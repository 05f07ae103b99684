//! How far a batch has got.

use crate::error::{FailureKind, SendError};

use super::receipt::Receipt;

/// One message of a batch is done; the counts include it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// Its place in the batch, from 0.
    pub index: usize,
    /// What became of it.
    pub outcome: &'a Result<Receipt, SendError>,
    /// How many messages the batch has.
    pub total: usize,
    /// How many were accepted.
    pub accepted: usize,
    /// How many were not accepted.
    pub failed: usize,
    /// Of how many it is unknown whether they were accepted.
    pub unknown: usize,
}

impl Progress<'_> {
    /// How many messages are done.
    #[must_use]
    pub const fn done(&self) -> usize {
        self.accepted + self.failed + self.unknown
    }
}

/// The outcomes of a batch, as far as they are known.
#[derive(Debug)]
pub(crate) struct Tally {
    outcomes: Vec<Option<Result<Receipt, SendError>>>,
    accepted: usize,
    failed: usize,
    unknown: usize,
}

impl Tally {
    pub(crate) fn of(messages: usize) -> Self {
        let outcomes = std::iter::repeat_with(|| None).take(messages).collect();
        Self { outcomes, accepted: 0, failed: 0, unknown: 0 }
    }

    /// Notes the outcome of the message at `index`, which has none yet.
    pub(crate) fn note(&mut self, index: usize, outcome: Result<Receipt, SendError>) -> Progress<'_> {
        let count = match outcome.as_ref().map_err(SendError::kind) {
            Ok(_) => &mut self.accepted,
            Err(FailureKind::UnknownAfterData) => &mut self.unknown,
            Err(_) => &mut self.failed,
        };
        *count += 1;
        let (total, accepted, failed, unknown) = (self.outcomes.len(), self.accepted, self.failed, self.unknown);
        Progress { index, outcome: self.outcomes[index].insert(outcome), total, accepted, failed, unknown }
    }

    /// All of them, in the order of the messages.
    pub(crate) fn into_outcomes(self) -> Vec<Result<Receipt, SendError>> {
        self.outcomes.into_iter().map(|outcome| outcome.expect("every message has had its turn")).collect()
    }
}
