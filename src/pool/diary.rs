//! What a caller can be told of its own way to a connection.

use std::time::{Duration, Instant};

use crate::endpoint::HostId;
use crate::pool::connector::Connector;
use crate::pool::errand::Errand;
use crate::pool::lease::Lease;
use crate::pool::slot::{Gift, RefusalReason};
use crate::pool::state::{PoolState, Step};
use crate::stats::{DiscardReason, HostState};

/// Where one call's steps are written down. Told of things that have happened, in the call's own thread; must be quick.
pub(crate) trait Diary<E> {
    /// Something was over at `at`.
    fn note(&mut self, at: Instant, happened: Happened<'_, E>);
}

/// For callers who tell nobody.
impl<E> Diary<E> for () {
    fn note(&mut self, _: Instant, _: Happened<'_, E>) {}
}

/// One step on the way to a connection.
#[derive(Debug)]
pub(crate) enum Happened<'a, E> {
    /// The call stood in the queue for so long.
    Waited(Duration, Wait),
    /// A host was passed over: no connection to it is opened for so long.
    PassedOver(HostId, Duration),
    /// A host was passed over: it is on probation, and somebody else is trying it.
    Probing(HostId),
    /// A connection was lent that others had used before, or that was opened in reserve.
    Lent { host: HostId, id: u64, idle: Duration, messages: u32 },
    /// A connection was opened, which took so long.
    Opened { host: HostId, id: u64, took: Duration },
    /// None could be opened.
    OpenFailed { host: HostId, took: Duration, error: &'a E },
    /// A connection was given up, and another one takes its place.
    Replaced { host: HostId, id: u64, reason: DiscardReason },
}

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    Connection,
    Permit,
    TimedOut,
    Unavailable,
    Cancelled,
    ShutDown,
}

impl Wait {
    pub(super) const fn of<T>(step: &Step<T>) -> Self {
        match step {
            Step::Take(Gift::Connection(..)) => Self::Connection,
            Step::Take(Gift::Permit(_)) => Self::Permit,
            Step::Take(Gift::Refusal(refusal)) => match refusal.reason {
                RefusalReason::Exhausted => Self::TimedOut,
                RefusalReason::Unavailable { .. } | RefusalReason::Local => Self::Unavailable,
                RefusalReason::Cancelled => Self::Cancelled,
                RefusalReason::ShutDown => Self::ShutDown,
            },
            // A wait ends with something to take.
            Step::Wait(_) => Self::TimedOut,
        }
    }
}

impl<C: Connector> Lease<C> {
    /// Notes that this connection was lent.
    #[inline]
    pub(super) fn tell(&self, diary: &mut dyn Diary<C::Error>) {
        let record = self.record();
        let idle = self.since().saturating_duration_since(record.idle_from());
        let lent = Happened::Lent { host: record.host, id: record.id, idle, messages: record.messages };
        diary.note(self.since(), lent);
    }
}

impl<T> PoolState<T> {
    /// The hosts that `step` would have gone to, or might have, if they had not failed lately. Less preferred ones than the host it
    /// does go to would not have been asked. Allocates only if there are some.
    #[inline]
    pub(super) fn passed_over<'a, E>(&self, errand: &Errand, step: &Step<T>, now: Instant) -> Vec<Happened<'a, E>> {
        match self.hosts.all.iter().all(|host| host.cooldown.is_open()) {
            true => Vec::new(),
            false => self.those_passed_over(errand, step, now),
        }
    }

    #[cold]
    fn those_passed_over<'a, E>(&self, errand: &Errand, step: &Step<T>, now: Instant) -> Vec<Happened<'a, E>> {
        let chosen = match step {
            Step::Take(Gift::Connection(held, _)) => Some(held.record.host),
            Step::Take(Gift::Permit(grant)) => Some(grant.host),
            Step::Take(Gift::Refusal(_)) | Step::Wait(_) => None,
        };
        let last_tier = chosen.map_or(usize::MAX, |host| self.hosts.get(host).tier);
        let others = self.hosts.ids().filter(|&id| Some(id) != chosen && errand.admits(id));
        let passed_over = others.filter_map(|id| {
            let host = self.hosts.get(id);
            match host.cooldown.state(now) {
                _ if host.tier > last_tier => None,
                HostState::CoolingDown { until } => Some(Happened::PassedOver(id, until - now)),
                HostState::Probing => Some(Happened::Probing(id)),
                HostState::Available => None,
            }
        });
        passed_over.collect()
    }
}
