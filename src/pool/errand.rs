//! What a caller asks for, and what has become of it so far.

use std::time::Instant;

use crate::cancel::CancelToken;
use crate::clock::Deadline;
use crate::endpoint::HostId;

/// A set of hosts. Does not allocate for the first 64 of a pool's hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HostSet {
    first: u64,
    others: Vec<u64>,
}

impl HostSet {
    const WORD: usize = 64;

    /// The set of no host.
    pub(crate) const fn new() -> Self {
        Self { first: 0, others: Vec::new() }
    }

    /// Puts a host in.
    pub(crate) fn insert(&mut self, host: HostId) {
        let bit = 1 << (host.0 % Self::WORD);
        match (host.0 / Self::WORD).checked_sub(1) {
            None => self.first |= bit,
            Some(word) => {
                if self.others.len() <= word {
                    self.others.resize(word + 1, 0);
                }
                self.others[word] |= bit;
            }
        }
    }

    /// Whether a host is in it.
    pub(crate) fn contains(&self, host: HostId) -> bool {
        let word = match (host.0 / Self::WORD).checked_sub(1) {
            None => self.first,
            Some(word) => self.others.get(word).copied().unwrap_or(0),
        };
        word & (1 << (host.0 % Self::WORD)) != 0
    }

    /// Whether no host is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.first == 0 && self.others.iter().all(|&word| word == 0)
    }
}

impl FromIterator<HostId> for HostSet {
    fn from_iter<I: IntoIterator<Item = HostId>>(hosts: I) -> Self {
        let mut set = Self::new();
        hosts.into_iter().for_each(|host| set.insert(host));
        set
    }
}

/// What a caller asks of the pool.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Bound of everything: waiting, and opening on however many hosts.
    pub(crate) deadline: Deadline,
    /// Hosts to use only when no other can serve: those that this message has been tried on.
    pub(crate) avoid: HostSet,
    /// Whether it must be a connection that was opened for this very call.
    pub(crate) fresh: bool,
    /// The only host that will do.
    pub(crate) only: Option<HostId>,
    /// Whether the caller waits for the end of a host's pause; if not, it is told at once when that will be.
    pub(crate) waits_out_cooldowns: bool,
    /// What the caller may end the call with.
    pub(crate) cancel: Option<CancelToken>,
}

#[cfg(test)]
impl Request {
    /// Any connection to any host, by then.
    pub(crate) const fn by(deadline: Deadline) -> Self {
        Self { deadline, avoid: HostSet::new(), fresh: false, only: None, waits_out_cooldowns: true, cancel: None }
    }
}

/// The order of arrival. It is kept through failed openings and renewals, so that bad luck costs nobody their turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct Ticket(pub(super) u64);

/// A request under way.
#[derive(Debug, Clone)]
pub(super) struct Errand {
    pub(super) ticket: Ticket,
    pub(super) request: Request,
    /// Hosts that failed in this very call: nothing is opened on them again.
    pub(super) tried: HostSet,
}

impl Errand {
    pub(super) const fn new(ticket: Ticket, request: Request) -> Self {
        Self { ticket, request, tried: HostSet::new() }
    }

    /// Whether a host may serve at all.
    pub(super) fn admits(&self, host: HostId) -> bool {
        self.request.only.is_none_or(|only| only == host)
    }

    /// Whether a host comes after all others.
    pub(super) fn shuns(&self, host: HostId) -> bool {
        self.request.avoid.contains(host) || self.tried.contains(host)
    }

    /// Whether anything will do. Two plain errands differ only in how long they wait.
    pub(super) fn is_plain(&self) -> bool {
        !self.request.fresh && self.request.only.is_none() && self.request.avoid.is_empty() && self.tried.is_empty()
    }

    /// Whether the caller wants nothing any more.
    pub(super) fn is_cancelled(&self) -> bool {
        self.request.cancel.as_ref().is_some_and(CancelToken::is_cancelled)
    }

    /// Whether its time is over.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.request.deadline.instant() <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_set_holds_what_was_put_in() {
        let members = [0, 5, 63, 64, 130].map(HostId);
        let set: HostSet = members.into_iter().collect();
        for host in (0..300).map(HostId) {
            assert_eq!(set.contains(host), members.contains(&host), "{host:?}");
        }
        assert!(!set.is_empty());
        assert!(HostSet::new().is_empty());
    }
}
