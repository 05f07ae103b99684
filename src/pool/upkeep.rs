//! What is due by the passing of time alone, and what is better done by a thread of the pool's own than by a caller: old
//! connections end, idle ones are asked whether they live, new ones are opened in reserve, preferred hosts get their
//! traffic back.
//!
//! All of it is a function of the state and the time. The thread that acts on it sleeps until [`PoolState::alarm`]; a
//! change that makes something due earlier moves the alarm and rings.

use std::time::{Duration, Instant};

use crate::clock::Deadline;
use crate::endpoint::HostId;
use crate::lane::Lane;
use crate::pool::changes::Failure;
use crate::pool::connector::Close;
use crate::pool::effects::Effects;
use crate::pool::held::{Held, Record, earlier};
use crate::pool::hosts::Hosts;
use crate::pool::slot::{Charge, Grant};
use crate::pool::state::PoolState;
use crate::stats::DiscardReason;

/// After so many probes with no mail in between a connection is retired: servers count probes against it, or close it
/// for carrying nothing.
pub(super) const MAX_PROBES: u32 = 8;

/// The time between two idle connections of less preferred hosts that are given up.
const FAIL_BACK_PACE: Duration = Duration::from_secs(1);

/// The bound on opening one connection in reserve, should the connector set none.
const REFILL_BOUND: Duration = Duration::from_secs(60);

/// What the maintenance thread goes by.
#[derive(Debug)]
pub(super) struct Upkeep<T> {
    /// Whether the thread is there.
    is_attended: bool,
    /// When the thread wakes by itself; never, if none.
    alarm: Option<Instant>,
    /// To be closed by the thread, or by whoever needs their places first.
    pub(super) retired: Vec<(Held<T>, Close)>,
    /// Whether a round of probes is under way: what is being asked is not gone.
    is_probing: bool,
    /// Whether somebody is opening connections in reserve.
    is_refilling: bool,
    /// Not before then is one opened in reserve.
    refill_from: Option<Instant>,
    /// Not before then is the next one given up in favour of a preferred host.
    fail_back_from: Option<Instant>,
}

impl<T> Upkeep<T> {
    pub(super) const fn new() -> Self {
        Self {
            is_attended: false,
            alarm: None,
            retired: Vec::new(),
            is_probing: false,
            is_refilling: false,
            refill_from: None,
            fail_back_from: None,
        }
    }
}

/// What the maintenance thread is to do, beside the effects.
#[derive(Debug)]
pub(super) struct Chores<T> {
    /// To be asked for a sign of life; counted as leased.
    pub(super) probes: Vec<Held<T>>,
    /// Whether connections are to be opened in reserve, until [`PoolState::refill`] says that there are enough.
    pub(super) refill: bool,
}

impl<T> PoolState<T> {
    /// From now on a thread looks after the pool; it begins at once.
    pub(super) const fn attend(&mut self, now: Instant) {
        self.upkeep.is_attended = true;
        self.upkeep.alarm = Some(now);
    }

    /// The thread is gone, or about to go: what was left to it is done by others.
    pub(super) fn dismiss_thread(&mut self, fx: &mut Effects<T>) {
        self.upkeep.is_attended = false;
        self.upkeep.alarm = None;
        fx.closings.append(&mut self.upkeep.retired);
    }

    /// When the thread is to wake.
    pub(super) const fn alarm(&self) -> Option<Instant> {
        self.upkeep.alarm
    }

    /// Whether a connection may wait for the thread to close it: a goodbye takes a system call or two, and nobody needs
    /// the place.
    pub(super) fn may_leave_to_thread(&self, how: Close) -> bool {
        self.upkeep.is_attended && how == Close::Polite && self.waiters.is_empty()
    }

    /// Something is due then: the thread must not sleep longer.
    // Proof: the alarm is moved under the lock together with what makes it due, and the bell rung after unlocking. The
    // thread sets its alarm under the lock too, and then waits for the bell: it finds either what was due or the ring.
    #[inline]
    pub(super) fn remind(&mut self, due: Instant, fx: &mut Effects<T>) {
        if self.upkeep.is_attended && self.upkeep.alarm.is_none_or(|at| at > due) {
            self.upkeep.alarm = Some(due);
            fx.ring = true;
        }
    }

    /// A connection to this host has become idle, and something is due then because of it.
    #[inline]
    pub(super) fn mind(&mut self, host: HostId, due: Option<Instant>, now: Instant, fx: &mut Effects<T>) {
        if !self.upkeep.is_attended {
            return;
        }
        if let Some(due) = due {
            self.remind(due, fx);
        }
        let tier = self.hosts.get(host).tier;
        if tier > 0 && self.hosts.preferred_tier().is_some_and(|preferred| preferred < tier) {
            self.remind(self.fail_back_time(now), fx);
        }
    }

    /// A host may have become the one to go back to.
    pub(super) fn mind_fail_back(&mut self, now: Instant, fx: &mut Effects<T>) {
        if let Some(due) = self.fail_back_due(now) {
            self.remind(due, fx);
        }
    }

    /// Connections may have become too few.
    #[inline]
    pub(super) fn mind_refill(&mut self, now: Instant, fx: &mut Effects<T>) {
        if self.limits.min_idle > 0 && self.upkeep.is_attended {
            if let Some(due) = self.refill_due(now) {
                self.remind(due, fx);
            }
        }
    }

    /// When there will next be something to do, if nothing else happens.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        if self.is_shut_down {
            return None;
        }
        let dues = [
            (!self.upkeep.retired.is_empty()).then_some(now),
            self.hosts.expiry(&self.limits, now),
            self.hosts.idle().filter_map(|held| self.probe_due(&held.record, now)).min(),
            self.refill_due(now),
            self.fail_back_due(now),
            self.notice_due(),
        ];
        dues.into_iter().flatten().min()
    }

    /// Decides what is due now, and sets the alarm for what comes after it.
    pub(super) fn upkeep(&mut self, now: Instant, fx: &mut Effects<T>) -> Chores<T> {
        let mut chores = Chores { probes: Vec::new(), refill: false };
        if self.is_shut_down {
            return chores;
        }
        self.notice(now);
        self.sweep(now, fx);
        if self.fail_back_due(now).is_some_and(|due| due <= now) {
            self.fail_back(now, fx);
        }
        chores.probes = self.take_silent(now, fx);
        self.upkeep.is_probing = !chores.probes.is_empty();
        fx.closings.append(&mut self.upkeep.retired);
        if self.refill_due(now).is_some_and(|due| due <= now) {
            self.upkeep.is_refilling = true;
            chores.refill = true;
        }
        // Whoever waits may have been waiting for just this moment.
        self.settle(now, fx);
        // An alarm that has yet to ring stays, though what it was set for may have passed: else whatever comes and goes
        // with each message would ring the bell with each message.
        let standing = self.upkeep.alarm.filter(|&at| at > now);
        self.upkeep.alarm = earlier(self.next_due(now), standing);
        // The thread is awake.
        fx.ring = false;
        chores
    }

    #[inline]
    pub(super) fn probe_due(&self, record: &Record, now: Instant) -> Option<Instant> {
        record.silent_from().checked_add(self.probe_interval(record.host, now)?)
    }

    /// How long a connection to this host is silent before it is probed: not so long that the server would have ended it.
    #[inline]
    fn probe_interval(&self, host: HostId, now: Instant) -> Option<Duration> {
        let silence = self.hosts.get(host).silence_limit.get(now);
        self.limits.keepalive_interval.map(|interval| silence.map_or(interval, |silence| interval.min(silence)))
    }

    /// Takes those out that have been silent for too long; whatever has been asked often enough is retired instead.
    fn take_silent(&mut self, now: Instant, fx: &mut Effects<T>) -> Vec<Held<T>> {
        let mut probes = Vec::new();
        for id in self.hosts.ids() {
            let Some(interval) = self.probe_interval(id, now) else { break };
            let is_due = |held: &Held<T>| held.record.silent_from().checked_add(interval).is_some_and(|at| at <= now);
            for mut held in self.hosts.get_mut(id).take_idle(is_due) {
                if held.record.probes >= MAX_PROBES {
                    self.close_later(held, DiscardReason::IdleTimeout, Close::Polite, now, fx);
                } else {
                    held.record.lent = now;
                    held.record.lane = Lane::Interactive;
                    self.hosts.get_mut(id).begin_lease(Lane::Interactive);
                    probes.push(held);
                }
            }
        }
        probes
    }

    /// A connection has answered a probe. It is as idle as before, and no longer silent.
    pub(super) fn proved_alive(&mut self, mut held: Held<T>, now: Instant, fx: &mut Effects<T>) {
        self.hosts.get_mut(held.record.host).end_lease(held.record.lane);
        self.hosts.get_mut(held.record.host).silence_limit.survived(&held.record);
        held.record.probed = Some(now);
        held.record.probes += 1;
        self.put_away(held, now, fx);
    }

    /// When a connection is to be opened in reserve: only while nobody waits, who would come first.
    fn refill_due(&self, now: Instant) -> Option<Instant> {
        if self.upkeep.is_refilling { None } else { self.next_refill(now) }
    }

    fn next_refill(&self, now: Instant) -> Option<Instant> {
        if self.is_shut_down
            || self.upkeep.is_probing
            || !self.waiters.is_empty()
            || self.hosts.idle_count() >= self.limits.min_idle
            || self.hosts.are_full()
        {
            return None;
        }
        let may_open = match self.hosts.reserve_host(now) {
            Some(_) => now,
            None => self.hosts.next_cooldown_end(now)?,
        };
        Some(self.upkeep.refill_from.map_or(may_open, |from| from.max(may_open)))
    }

    pub(super) fn delay_refill(&mut self, delay: Duration, now: Instant) {
        if self.limits.min_idle > 0 && !delay.is_zero() {
            self.upkeep.refill_from = self.upkeep.refill_from.max(Some(Deadline::at(now, delay).instant()));
        }
    }

    /// The permission to open one more connection in reserve; none if there are enough, or none may be opened now.
    // Proof: the place is taken here, under the lock, and counted as any caller's; the cooldown sees it as any caller's.
    pub(super) fn refill(&mut self, now: Instant) -> Option<Grant<T>> {
        let host = self.next_refill(now).filter(|&due| due <= now).and_then(|_| self.hosts.reserve_host(now))?;
        Some(self.grant(host, Lane::Interactive, Deadline::at(now, REFILL_BOUND), Charge::default(), None))
    }

    /// A connection in reserve could not be opened. False: the next one would fare no better now.
    pub(super) fn refill_failed(&mut self, failure: Failure, now: Instant, fx: &mut Effects<T>) -> bool {
        let goes_on = matches!(failure, Failure::HostCools | Failure::Outdated);
        if !goes_on {
            self.delay_refill(self.schedule.first, now);
        }
        self.settle(now, fx);
        goes_on
    }

    /// Nobody opens connections in reserve any longer; if not for a good reason, nobody does for a while.
    pub(super) fn refill_ended(&mut self, is_over: bool, now: Instant, fx: &mut Effects<T>) {
        self.upkeep.is_refilling = false;
        if !is_over {
            self.delay_refill(self.schedule.first, now);
        }
        self.settle(now, fx);
    }

    fn fail_back_time(&self, now: Instant) -> Instant {
        self.upkeep.fail_back_from.map_or(now, |from| from.max(now))
    }

    /// When an idle connection is to be given up because a preferred host works.
    fn fail_back_due(&self, now: Instant) -> Option<Instant> {
        self.hosts.first_to_give_up()?;
        Some(self.fail_back_time(now))
    }

    fn fail_back(&mut self, now: Instant, fx: &mut Effects<T>) {
        let Some(host) = self.hosts.first_to_give_up() else { return };
        self.upkeep.fail_back_from = Some(Deadline::at(now, FAIL_BACK_PACE).instant());
        if let Some(held) = self.hosts.get_mut(host).idle.pop_front() {
            self.close_later(held, DiscardReason::Evicted, Close::Polite, now, fx);
        }
    }

    /// Whether nothing is lent, being opened or being closed.
    pub(super) fn is_drained(&self) -> bool {
        self.hosts.all.iter().all(|host| host.leased + host.connecting + host.closing == 0)
    }
}

impl<T> Hosts<T> {
    /// The first tier with a host that works; none if there is no other tier.
    fn preferred_tier(&self) -> Option<usize> {
        if self.tiers.len() < 2 {
            return None;
        }
        self.tiers.iter().position(|tier| tier.iter().any(|&id| self.get(id).works()))
    }

    /// The host with the connection idle for longest of all to hosts less preferred than one that works.
    fn first_to_give_up(&self) -> Option<HostId> {
        let preferred = self.preferred_tier()?;
        let lower = self.tiers[preferred + 1..].iter().flatten().copied();
        let since = lower.filter_map(|id| Some((self.get(id).idle.front()?.record.idle_from(), id.0)));
        since.min().map(|(_, id)| HostId(id))
    }

    /// Where to open a connection in reserve: on the host of the most preferred tier that has the fewest for its weight.
    // A tier that could take it, or works, is not passed by for a lower one: what is opened there would be given up again.
    fn reserve_host(&self, now: Instant) -> Option<HostId> {
        for tier in &self.tiers {
            let may_open = tier.iter().copied().filter(|&id| self.get(id).cooldown.may_open(now));
            let with_room = may_open.clone().filter(|&id| !self.get(id).is_full());
            if let Some(host) = with_room.min_by(|&a, &b| self.compare_loads(a, b, 0)) {
                return Some(host);
            }
            if may_open.count() > 0 || tier.iter().any(|&id| self.get(id).works()) {
                return None;
            }
        }
        None
    }
}
