//! What must be so, by the books of the servers and of the network.

use std::time::{Duration, Instant};

use crate::error::{FailureKind, SendError};
use crate::report::Receipt;
use crate::simulation::net::{self, Attempt, Outcome};
use crate::stage::SendStage;

use super::server::Town;
use super::tally::note;

/// The kernel's timers count milliseconds, and a wait that has begun is not shortened.
pub(super) const ALLOWANCE: Duration = Duration::from_millis(2);

/// One call of `send`, and what came of it.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) token: u64,
    pub(super) started: Instant,
    pub(super) ended: Instant,
    pub(super) deadline: Option<Instant>,
    pub(super) cancelled: Option<Instant>,
    pub(super) result: Result<Receipt, SendError>,
}

impl Call {
    /// What is known when the call returns.
    pub(super) fn check(&self, town: &Town) {
        let Self { token, started, ended, deadline, cancelled, result } = self;
        note(&match result {
            Ok(_) => "Ok".to_owned(),
            Err(error) => format!("{:?}", error.kind()),
        });
        if let Some(deadline) = deadline {
            assert!(*ended <= *deadline.max(started) + ALLOWANCE, "late by {:?}: {result:?}", *ended - *deadline);
        }
        if let Some(cancelled) = cancelled {
            assert!(*ended <= *cancelled.max(started) + ALLOWANCE, "goes on after it was cancelled: {result:?}");
        }
        match result {
            Ok(_) => assert_eq!(town.accepted(*token), 1, "Ok, and not accepted"),
            Err(error) if error.kind() == FailureKind::UnknownAfterData => {
                assert_eq!(error.stage(), SendStage::DataCompleted);
                assert!(was_offered(*token), "unknown, and the last byte was never offered: {error}");
            }
            Err(_) => {}
        }
    }

    /// What is known when everything is over.
    pub(super) fn check_again(&self, town: &Town) {
        let accepted = town.accepted(self.token);
        match &self.result {
            Ok(_) => assert_eq!(accepted, 1, "accepted {accepted} times: {self:?}"),
            Err(error) if error.kind() == FailureKind::UnknownAfterData => {
                note(if accepted == 1 { "unknown, accepted" } else { "unknown, not accepted" });
                assert!(accepted <= 1, "accepted {accepted} times: {self:?}");
            }
            Err(_) => assert_eq!(accepted, 0, "accepted, and said not to be: {self:?}"),
        }
    }
}

/// Whether all of a message, up to its very last byte, was given to the network.
fn was_offered(token: u64) -> bool {
    let mark = format!("Token: {token}\r\n");
    net::offered().iter().any(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        let Some((before, rest)) = text.split_once(&mark) else { return false };
        let command = before.rsplit("\r\n").nth(1).unwrap_or_default();
        match command.strip_prefix("BDAT ").and_then(|rest| rest.strip_suffix(" LAST")) {
            Some(size) => size.parse().is_ok_and(|size: usize| mark.len() + rest.len() >= size),
            None => rest.contains("\r\n.\r\n"),
        }
    })
}

/// That there were never more connections than allowed, by the network's count.
pub(super) fn check_sizes(attempts: &[Attempt], max_size: usize, max_connections: Option<usize>) {
    for Attempt { to, live: (at_host, in_all), .. } in attempts {
        assert!(*in_all <= max_size, "{in_all} connections, with a limit of {max_size}");
        assert!(max_connections.is_none_or(|most| *at_host <= most), "{at_host} connections to {to}");
    }
}

/// That a host that refused was left alone for `pause`, and tried by one caller then.
///
/// Tries that had begun before are no evidence, nor is a refusal that one of them has outdated, nor one that came when its caller was
/// being cancelled.
pub(super) fn check_cooldowns(attempts: &[Attempt], pause: Duration, longest_opening: Duration, cancels: &[Instant]) {
    for refused in attempts {
        let Some((at, Outcome::Refused)) = refused.ended else { continue };
        let to_same = || attempts.iter().filter(|other| other.to == refused.to);
        let may_have_opened = |other: &Attempt| {
            matches!(other.ended, Some((_, Outcome::Open)))
                && other.started <= at
                && at <= other.started + longest_opening
        };
        if to_same().any(may_have_opened) || cancels.contains(&at) {
            continue;
        }
        let mut later = to_same().filter(|other| other.started > at);
        let Some(probe) = later.clone().min_by_key(|other| other.started) else { continue };
        note("cooldown checked");
        assert!(probe.started >= at + pause, "tried again after {:?}", probe.started - at);
        let Some((probed, _)) = probe.ended else { continue };
        let second = later.find(|other| other.started > probe.started && other.started < probed);
        assert!(second.is_none(), "two probes at a time: {probe:?} {second:?}");
    }
}
