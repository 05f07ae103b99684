//! The hosts: what each has, and what it may have.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::endpoint::HostId;
use crate::lane::Lane;
use crate::pool::cooldown::Cooldown;
use crate::pool::held::{Held, Record, earlier};
use crate::pool::learned::{Capacity, MessageLimit, SilenceLimit};
use crate::pool::{HostPlan, Limits};
use crate::stats::{HostStatus, PoolCounts};

/// One host.
#[derive(Debug)]
pub(super) struct Host<T> {
    pub(super) plan: HostPlan,
    /// Its place among the priorities; the first tier is preferred.
    pub(super) tier: usize,
    /// Its idle connections; the one used last is at the back.
    pub(super) idle: VecDeque<Held<T>>,
    pub(super) leased: usize,
    pub(super) connecting: usize,
    /// Those of the leased and connecting ones that bulk has.
    pub(super) bulk: usize,
    /// Given up by the pool, and not yet closed. Their places are not free yet.
    pub(super) closing: usize,
    /// Evicted in favour of other hosts, which have their places, and not yet closed: the server still counts them.
    pub(super) yielding: usize,
    pub(super) cooldown: Cooldown,
    pub(super) capacity: Capacity,
    pub(super) message_limit: MessageLimit,
    pub(super) silence_limit: SilenceLimit,
    /// How often its credentials were rotated. What was opened, or begun to be, under a smaller number is not lent again.
    pub(super) generation: u64,
    /// Its standing in the rotation of its tier.
    pub(super) credit: i64,
    pub(super) created: u64,
    /// Text of the last failure to open a connection, until one succeeds.
    pub(super) last_error: Option<Arc<str>>,
}

impl<T> Host<T> {
    fn new(plan: HostPlan, tier: usize, limits: &Limits) -> Self {
        Self {
            capacity: Capacity::new(plan.max_connections, limits),
            plan,
            tier,
            idle: VecDeque::new(),
            leased: 0,
            connecting: 0,
            bulk: 0,
            closing: 0,
            yielding: 0,
            cooldown: Cooldown::new(),
            message_limit: MessageLimit::default(),
            silence_limit: SilenceLimit::default(),
            generation: 0,
            credit: 0,
            created: 0,
            last_error: None,
        }
    }

    /// An idle connection, no longer in its list, goes to somebody.
    pub(super) const fn begin_lease(&mut self, lane: Lane) {
        self.leased += 1;
        self.bulk += share(lane);
    }

    /// Nobody has that connection any more.
    pub(super) const fn end_lease(&mut self, lane: Lane) {
        self.leased -= 1;
        self.bulk -= share(lane);
    }

    /// A place goes to somebody who is to open a connection.
    pub(super) const fn begin_opening(&mut self, lane: Lane) {
        self.connecting += 1;
        self.bulk += share(lane);
    }

    /// No connection came of it.
    pub(super) const fn end_opening(&mut self, lane: Lane) {
        self.connecting -= 1;
        self.bulk -= share(lane);
    }

    /// Its places in use.
    pub(super) fn places(&self) -> usize {
        self.idle.len() + self.leased + self.connecting + self.closing
    }

    /// Its connections that work, or did when last heard of.
    pub(super) fn live(&self) -> usize {
        self.idle.len() + self.leased
    }

    /// Whether it may not have one more.
    pub(super) fn is_full(&self) -> bool {
        self.capacity.limit().is_some_and(|limit| self.places() + self.yielding >= limit)
    }

    /// Whether it is known to work: connections may be opened, and there is one.
    pub(super) fn works(&self) -> bool {
        self.cooldown.is_open() && self.live() > 0
    }

    /// Puts a connection in its place among the idle ones, which is at the back unless it was only probed.
    #[inline]
    fn put(&mut self, held: Held<T>) {
        let since = held.record.idle_from();
        if self.idle.back().is_none_or(|last| last.record.idle_from() <= since) {
            self.idle.push_back(held);
        } else {
            let position = self.idle.partition_point(|other| other.record.idle_from() <= since);
            self.idle.insert(position, held);
        }
    }

    /// Takes every idle connection out that `is_over` says so of.
    pub(super) fn take_idle(&mut self, mut is_over: impl FnMut(&Held<T>) -> bool) -> Vec<Held<T>> {
        let mut taken = Vec::new();
        let mut position = 0;
        while let Some(held) = self.idle.get(position) {
            if is_over(held) {
                taken.extend(self.idle.remove(position));
            } else {
                position += 1;
            }
        }
        taken
    }

    pub(super) fn status(&self, now: Instant) -> HostStatus {
        HostStatus {
            endpoint: self.plan.endpoint.clone(),
            state: self.cooldown.state(now),
            idle: self.idle.len(),
            leased: self.leased,
            connecting: self.connecting,
            consecutive_failures: self.cooldown.failures(),
            created: self.created,
            connection_limit: self.capacity.limit(),
            learned_connection_limit: self.capacity.learned(),
            learned_message_limit: self.message_limit.get(now),
            learned_idle_limit: self.silence_limit.get(now),
            last_error: self.last_error.clone(),
        }
    }
}

/// All hosts, and the bound on all their connections together.
#[derive(Debug)]
pub(super) struct Hosts<T> {
    pub(super) all: Vec<Host<T>>,
    /// The hosts of each priority, lowest first.
    pub(super) tiers: Vec<Vec<HostId>>,
    pub(super) max_size: usize,
    /// The part of the connections that bulk may not have.
    pub(super) reserve: f64,
    /// What must be left of a caller's time when a host's pause ends, for the caller to wait for that.
    pub(super) fair_time: Duration,
    /// Not before then does an idle connection become too old to be lent.
    next_expiry: Option<Instant>,
}

impl<T> Hosts<T> {
    pub(super) fn new(plans: Vec<HostPlan>, limits: &Limits) -> Self {
        let mut priorities: Vec<u32> = plans.iter().map(|plan| plan.priority).collect();
        priorities.sort_unstable();
        priorities.dedup();
        let mut tiers = vec![Vec::new(); priorities.len()];
        let mut all = Vec::with_capacity(plans.len());
        for plan in plans {
            let tier = priorities.partition_point(|&priority| priority < plan.priority);
            tiers[tier].push(HostId(all.len()));
            all.push(Host::new(plan, tier, limits));
        }
        let Limits { max_size, interactive_reserve: reserve, fair_time, .. } = *limits;
        Self { all, tiers, max_size, reserve, fair_time, next_expiry: None }
    }

    pub(super) fn get(&self, host: HostId) -> &Host<T> {
        &self.all[host.0]
    }

    pub(super) fn get_mut(&mut self, host: HostId) -> &mut Host<T> {
        &mut self.all[host.0]
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = HostId> + use<T> {
        (0..self.all.len()).map(HostId)
    }

    /// All idle connections.
    pub(super) fn idle(&self) -> impl Iterator<Item = &Held<T>> {
        self.all.iter().flat_map(|host| &host.idle)
    }

    pub(super) fn idle_count(&self) -> usize {
        self.all.iter().map(|host| host.idle.len()).sum()
    }

    /// Puts a connection away. Returns when an idle connection becomes too old because of it.
    #[inline]
    pub(super) fn put(&mut self, held: Held<T>, limits: &Limits, now: Instant) -> Option<Instant> {
        let host = self.get_mut(held.record.host);
        let (retire_at, silence) = (held.record.retire_at, host.silence_limit.get(now));
        let mut expiry = held.record.expiry(limits.idle_timeout, silence);
        host.put(held);
        if limits.min_idle > 0 {
            expiry = earlier(retire_at, self.first_not_kept(limits, now));
        }
        self.next_expiry = earlier(self.next_expiry, expiry);
        expiry
    }

    /// When the first of those becomes too old that are not kept in spite of their idleness: while there are few, none;
    /// from then on, the one idle or silent for longest.
    fn first_not_kept(&self, limits: &Limits, now: Instant) -> Option<Instant> {
        let rests = self.all.iter().flat_map(|host| {
            let silence = host.silence_limit.get(now);
            // The front is idle for longest; but who is silent for longest depends on who was probed.
            let count = if silence.is_some() { host.idle.len() } else { 1 };
            host.idle.iter().take(count).filter_map(move |held| held.record.rest_ends(limits.idle_timeout, silence))
        });
        if self.idle_count() > limits.min_idle { rests.min() } else { None }
    }

    /// What was learned may have made idle connections too old to be lent.
    pub(super) const fn look_again(&mut self, now: Instant) {
        self.next_expiry = Some(now);
    }

    /// Whether an idle connection may be too old to be lent.
    #[inline]
    pub(super) fn may_have_expired(&self, now: Instant) -> bool {
        self.next_expiry.is_some_and(|at| at <= now)
    }

    /// Takes idle connections out that are too old to be lent.
    pub(super) fn take_expired(&mut self, limits: &Limits, now: Instant) -> Vec<Held<T>> {
        let mut expired: Vec<_> =
            self.all.iter_mut().flat_map(|host| host.take_idle(|held| held.record.is_old(now))).collect();
        let kept = self.first_kept(limits);
        for host in &mut self.all {
            let silence = host.silence_limit.get(now);
            expired.extend(host.take_idle(|held| {
                let end = held.record.rest_ends(limits.idle_timeout, silence);
                !is_kept(&held.record, kept) && end.is_some_and(|at| at <= now)
            }));
        }
        self.next_expiry = self.expiry(limits, now);
        expired
    }

    /// When the next idle connection becomes too old to be lent.
    pub(super) fn expiry(&self, limits: &Limits, now: Instant) -> Option<Instant> {
        let kept = self.first_kept(limits);
        let expiries = self.all.iter().flat_map(|host| {
            let silence = host.silence_limit.get(now);
            host.idle.iter().filter_map(move |Held { record, .. }| {
                if is_kept(record, kept) { record.retire_at } else { record.expiry(limits.idle_timeout, silence) }
            })
        });
        expiries.min()
    }

    /// The longest idle of the `min_idle` connections used last, which no idleness ends.
    fn first_kept(&self, limits: &Limits) -> Option<(Instant, u64)> {
        let min_idle = limits.min_idle;
        if min_idle == 0 {
            return None;
        }
        let mut order: Vec<_> = self.idle().map(|held| (held.record.idle_from(), held.record.id)).collect();
        order.sort_unstable();
        order.get(order.len().saturating_sub(min_idle)).copied()
    }

    /// Whether no place is free in the whole pool.
    pub(super) fn are_full(&self) -> bool {
        self.all.iter().map(Host::places).sum::<usize>() >= self.max_size
    }

    /// When the next cooldown ends that has not ended yet.
    pub(super) fn next_cooldown_end(&self, now: Instant) -> Option<Instant> {
        self.all.iter().filter_map(|host| host.cooldown.end()).filter(|&end| end > now).min()
    }

    pub(super) fn counts(&self, waiting: usize) -> PoolCounts {
        let idle = self.idle_count();
        let leased = self.all.iter().map(|host| host.leased).sum();
        let connecting = self.all.iter().map(|host| host.connecting).sum();
        PoolCounts { max_size: self.max_size, total: idle + leased + connecting, idle, leased, connecting, waiting }
    }
}

/// What one place of somebody of this lane adds to bulk's share.
const fn share(lane: Lane) -> usize {
    matches!(lane, Lane::Bulk) as usize
}

fn is_kept(record: &Record, first_kept: Option<(Instant, u64)>) -> bool {
    first_kept.is_some_and(|first| (record.idle_from(), record.id) >= first)
}
