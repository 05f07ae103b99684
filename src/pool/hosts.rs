//! The hosts: what each has, and what it may have.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::endpoint::HostId;
use crate::pool::cooldown::Cooldown;
use crate::pool::held::{Held, Record, earlier};
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
    /// Given up by the pool, and not yet closed. Their places are not free yet.
    pub(super) closing: usize,
    /// Evicted in favour of other hosts, which have their places, and not yet closed: the server still counts them.
    pub(super) yielding: usize,
    pub(super) cooldown: Cooldown,
    pub(super) capacity: Capacity,
    pub(super) learned_message_limit: Option<u32>,
    /// How often its credentials were rotated. What was opened, or begun to be, under a smaller number is not lent again.
    pub(super) generation: u64,
    /// Its standing in the rotation of its tier.
    pub(super) credit: i64,
    pub(super) created: u64,
    /// Text of the last failure to open a connection, until one succeeds.
    pub(super) last_error: Option<Arc<str>>,
}

impl<T> Host<T> {
    fn new(plan: HostPlan, tier: usize) -> Self {
        Self {
            capacity: Capacity { configured: plan.max_connections, learned: None, returns: 0 },
            plan,
            tier,
            idle: VecDeque::new(),
            leased: 0,
            connecting: 0,
            closing: 0,
            yielding: 0,
            cooldown: Cooldown::new(),
            learned_message_limit: None,
            generation: 0,
            credit: 0,
            created: 0,
            last_error: None,
        }
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
            learned_message_limit: self.learned_message_limit,
            last_error: self.last_error.clone(),
        }
    }
}

/// How many connections a host may have.
#[derive(Debug)]
pub(super) struct Capacity {
    configured: Option<usize>,
    /// What the host itself was seen to allow.
    learned: Option<usize>,
    /// Messages delivered since the learned bound last changed.
    returns: u32,
}

impl Capacity {
    /// After so many messages within the learned bound, it is worth finding out whether the host allows one more.
    const PATIENCE: u32 = 100;

    pub(super) fn limit(&self) -> Option<usize> {
        match (self.configured, self.learned) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The host refused one more than `live`.
    pub(super) fn refused_beyond(&mut self, live: usize) {
        self.learned = Some(live.max(1));
        self.returns = 0;
    }

    /// The host has `live` of them: a lower bound was wrong.
    pub(super) fn allows(&mut self, live: usize) {
        if self.learned.is_some_and(|learned| learned < live) {
            self.learned = Some(live);
            self.returns = 0;
        }
    }

    /// One more message went well. `max_size` is the bound of the whole pool, which needs no second one as high.
    pub(super) fn delivered(&mut self, max_size: usize) {
        let Some(learned) = self.learned else { return };
        self.returns += 1;
        if self.returns >= Self::PATIENCE {
            self.returns = 0;
            let ceiling = self.configured.map_or(max_size, |configured| configured.min(max_size));
            self.learned = Some(learned + 1).filter(|&raised| raised < ceiling);
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
    /// What must be left of a caller's time when a host's pause ends, for the caller to wait for that.
    pub(super) fair_time: Duration,
    /// Not before then does an idle connection become too old to be lent.
    next_expiry: Option<Instant>,
}

impl<T> Hosts<T> {
    pub(super) fn new(plans: Vec<HostPlan>, max_size: usize, fair_time: Duration) -> Self {
        let mut priorities: Vec<u32> = plans.iter().map(|plan| plan.priority).collect();
        priorities.sort_unstable();
        priorities.dedup();
        let mut tiers = vec![Vec::new(); priorities.len()];
        let mut all = Vec::with_capacity(plans.len());
        for plan in plans {
            let tier = priorities.partition_point(|&priority| priority < plan.priority);
            tiers[tier].push(HostId(all.len()));
            all.push(Host::new(plan, tier));
        }
        Self { all, tiers, max_size, fair_time, next_expiry: None }
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
    pub(super) fn put(&mut self, held: Held<T>, limits: &Limits) -> Option<Instant> {
        let (retire_at, mut expiry) = (held.record.retire_at, held.record.expiry(limits.idle_timeout));
        self.get_mut(held.record.host).put(held);
        if limits.min_idle > 0 {
            expiry = earlier(retire_at, self.first_not_kept(limits));
        }
        self.next_expiry = earlier(self.next_expiry, expiry);
        expiry
    }

    /// When the first of those becomes too old that are not kept in spite of their idleness: while there are few, none;
    /// from then on, the one idle for longest.
    fn first_not_kept(&self, limits: &Limits) -> Option<Instant> {
        let fronts = self.all.iter().filter_map(|host| host.idle.front()?.record.idle_until(limits.idle_timeout));
        if self.idle_count() > limits.min_idle { fronts.min() } else { None }
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
        let kept = self.first_kept(limits.min_idle);
        for host in &mut self.all {
            expired.extend(host.take_idle(|held| {
                !is_kept(&held.record, kept) && held.record.idle_until(limits.idle_timeout).is_some_and(|at| at <= now)
            }));
        }
        self.next_expiry = self.expiry(limits);
        expired
    }

    /// When the next idle connection becomes too old to be lent.
    pub(super) fn expiry(&self, limits: &Limits) -> Option<Instant> {
        let kept = self.first_kept(limits.min_idle);
        let expiries = self.idle().filter_map(|Held { record, .. }| {
            if is_kept(record, kept) { record.retire_at } else { record.expiry(limits.idle_timeout) }
        });
        expiries.min()
    }

    /// The longest idle of the `min_idle` connections used last, which no idleness ends.
    fn first_kept(&self, min_idle: usize) -> Option<(Instant, u64)> {
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

fn is_kept(record: &Record, first_kept: Option<(Instant, u64)>) -> bool {
    first_kept.is_some_and(|first| (record.idle_from(), record.id) >= first)
}
