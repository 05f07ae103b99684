//! What observers are told of the counts: by how much they have changed, under the lock that they are changed under.
//!
//! Only of pools that somebody observes.

use std::time::Instant;

use crate::endpoint::HostId;
use crate::pool::cooldown::Standing;
use crate::pool::effects::{Effects, Event};
use crate::pool::errand::Errand;
use crate::pool::hosts::{Host, Hosts};
use crate::pool::state::PoolState;

/// One host's counts, as they are or as they were told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Levels {
    idle: usize,
    leased: usize,
    connecting: usize,
    /// None of a pool that has been closed.
    standing: Option<Standing>,
}

impl Levels {
    fn of<T>(host: &Host<T>, is_shut_down: bool) -> Self {
        let standing = (!is_shut_down).then(|| host.cooldown.standing());
        Self { idle: host.idle.len(), leased: host.leased, connecting: host.connecting, standing }
    }

    /// What is to be added to `self` to come to `now`.
    fn change(self, now: Self) -> LevelChange {
        let is = |levels: Self, standing| i8::from(levels.standing == Some(standing));
        let standing = |standing| is(now, standing) - is(self, standing);
        LevelChange {
            idle: difference(self.idle, now.idle),
            leased: difference(self.leased, now.leased),
            connecting: difference(self.connecting, now.connecting),
            available: standing(Standing::Available),
            cooling_down: standing(Standing::CoolingDown),
            probing: standing(Standing::Probing),
        }
    }
}

/// Small, because every decision makes room for one, observed or not.
fn difference(before: usize, after: usize) -> i32 {
    let of = |count| i32::try_from(count).unwrap_or(i32::MAX);
    of(after) - of(before)
}

/// By how much one host's counts have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LevelChange {
    pub(super) idle: i32,
    pub(super) leased: i32,
    pub(super) connecting: i32,
    pub(super) available: i8,
    pub(super) cooling_down: i8,
    pub(super) probing: i8,
}

/// Something to tell observers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Levels(HostId, LevelChange),
    Waiters(i32),
}

/// What is to be told. As small as can be, because every decision makes room for it, observed or not.
#[derive(Debug)]
pub(super) struct Changes(Option<Box<Pending>>);

/// Most decisions change one thing.
#[derive(Debug)]
struct Pending {
    first: Change,
    others: Vec<Change>,
}

impl Changes {
    pub(super) const NONE: Self = Self(None);

    #[inline]
    pub(super) const fn are_none(&self) -> bool {
        self.0.is_none()
    }

    fn push(&mut self, change: Change) {
        match &mut self.0 {
            None => self.0 = Some(Box::new(Pending { first: change, others: Vec::new() })),
            Some(pending) => pending.others.push(change),
        }
    }

    pub(super) fn append(&mut self, more: Self) {
        if self.are_none() {
            *self = more;
        } else {
            more.into_iter().for_each(|change| self.push(change));
        }
    }
}

impl IntoIterator for Changes {
    type Item = Change;
    type IntoIter = std::iter::Chain<std::option::IntoIter<Change>, std::vec::IntoIter<Change>>;

    fn into_iter(self) -> Self::IntoIter {
        let (first, others) = self.0.map_or((None, Vec::new()), |pending| (Some(pending.first), pending.others));
        first.into_iter().chain(others)
    }
}

/// What observers have been told, all changes together.
#[derive(Debug)]
pub(super) struct Told {
    hosts: Vec<Levels>,
    waiting: usize,
}

impl<T> PoolState<T> {
    /// From now on somebody observes.
    pub(super) fn observe(&mut self) {
        self.told = Some(Told { hosts: vec![Levels::default(); self.hosts.all.len()], waiting: 0 });
    }

    /// To be called at the end of every decision.
    // Proof: what is told is the difference to what had been told, taken and remembered under the lock; so that all that was
    // ever told comes to what there is, in whatever order it arrives.
    #[inline]
    pub(super) fn note_changes(&mut self, fx: &mut Effects<T>) {
        if self.told.is_some() {
            self.note_all_changes(fx);
        }
    }

    #[cold]
    fn note_all_changes(&mut self, fx: &mut Effects<T>) {
        if let Some(mut told) = self.told.take() {
            self.note_against(&mut told, fx);
            self.told = Some(told);
        }
    }

    fn note_against(&mut self, told: &mut Told, fx: &mut Effects<T>) {
        for (id, told) in self.hosts.ids().zip(&mut told.hosts) {
            let host = self.hosts.get(id);
            let now = Levels::of(host, self.is_shut_down);
            if now != *told {
                fx.changes.push(Change::Levels(id, told.change(now)));
                if let (Some(Standing::CoolingDown), Some(end)) = (now.standing, host.cooldown.unnoticed_end()) {
                    self.remind(end, fx);
                }
                *told = now;
            }
        }
        let waiting = self.waiters.len();
        if waiting != told.waiting {
            fx.changes.push(Change::Waiters(difference(told.waiting, waiting)));
            told.waiting = waiting;
        }
    }

    /// Notices what has come about by the passing of time alone, for observers to be told.
    pub(super) fn notice(&mut self, now: Instant) {
        if self.told.is_some() {
            for host in &mut self.hosts.all {
                host.cooldown.notice(now);
            }
        }
    }

    /// When there will next be something to notice.
    pub(super) fn notice_due(&self) -> Option<Instant> {
        self.told.as_ref()?;
        self.hosts.all.iter().filter_map(|host| host.cooldown.unnoticed_end()).min()
    }

    /// A call comes: which hosts it will not get a connection from because they cool down.
    pub(super) fn note_arrival(&mut self, errand: &Errand, now: Instant, fx: &mut Effects<T>) {
        self.notice(now);
        if !self.is_shut_down {
            let passed_by = self.hosts.passed_by(errand, now);
            fx.events.extend(passed_by.map(|host| Event::ReconnectSuppressed { host }));
        }
    }
}

impl<T> Hosts<T> {
    /// The hosts that cool down and have nothing to lend, as far as no preferred one can serve.
    fn passed_by(&self, errand: &Errand, now: Instant) -> impl Iterator<Item = HostId> {
        let serves = |id: HostId| self.may_lend(id, errand) || self.may_open(id, errand, now);
        let first = self.tiers.iter().position(|tier| tier.iter().any(|&id| serves(id)));
        let tiers = &self.tiers[..first.map_or(self.tiers.len(), |first| first + 1)];
        let hosts = tiers.iter().flatten().copied();
        hosts.filter(move |&id| {
            !errand.is_late(now)
                && errand.admits(id)
                && !self.get(id).cooldown.may_open(now)
                && !self.may_lend(id, errand)
        })
    }
}
