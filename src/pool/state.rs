//! Everything the pool's lock guards: who has what, who waits, and who is next.
//!
//! No method does I/O, reads the clock or runs anybody else's code. What is to be done about a decision is put into
//! [`Effects`], and done after unlocking. Each connection is in one place: an idle list, or the hands of whoever has its
//! [`Record`]; each place in use is in one of four counts of one host: `idle`, `leased`, `connecting`, `closing`.
//!
//! Here: coming, choosing, waiting. In `changes.rs`: what becomes of what was given. In `upkeep.rs`: what is due by the
//! passing of time alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::clock::Deadline;
use crate::endpoint::HostId;
use crate::lane::Lane;
use crate::pool::choice::{Choice, Hope};
use crate::pool::connector::Close;
use crate::pool::cooldown::Schedule;
use crate::pool::effects::{Effects, Event};
use crate::pool::errand::{Errand, Ticket};
use crate::pool::held::{Held, Record};
use crate::pool::hosts::Hosts;
use crate::pool::levels::Told;
use crate::pool::slot::{Charge, Gift, Grant, Refusal, RefusalReason, Slot};
use crate::pool::upkeep::Upkeep;
use crate::pool::waiters::Waiters;
use crate::pool::{HostPlan, Limits};
use crate::stats::{DiscardCounts, DiscardReason, PoolCounts, PoolStatus};

/// What a caller is to do next.
#[derive(Debug)]
pub(super) enum Step<T> {
    /// Take this.
    Take(Gift<T>),
    /// Wait here.
    Wait(Arc<Slot<T>>),
}

/// The pool, as data.
#[derive(Debug)]
pub(super) struct PoolState<T> {
    pub(super) hosts: Hosts<T>,
    pub(super) waiters: Waiters<T>,
    pub(super) limits: Limits,
    pub(super) schedule: Schedule,
    pub(super) rng: Rng,
    pub(super) is_shut_down: bool,
    next_ticket: u64,
    next_id: u64,
    /// Who has been told to look at the clock when a cooldown ends, and at what time it thinks that will be.
    timekeeper: Option<(Ticket, Instant)>,
    /// The host that was last seen to fail.
    pub(super) last_failed: Option<HostId>,
    pub(super) created: u64,
    pub(super) create_failures: u64,
    discarded: DiscardCounts,
    exhausted: u64,
    started: Instant,
    /// What only `upkeep.rs` knows about.
    pub(super) upkeep: Upkeep<T>,
    /// Who waits for all connections to be idle or gone.
    pub(super) drain_watchers: usize,
    /// What observers have been told; none if there are none.
    pub(super) told: Option<Told>,
}

impl<T> PoolState<T> {
    pub(super) fn new(plans: Vec<HostPlan>, limits: Limits, seed: u64, now: Instant) -> Self {
        Self {
            hosts: Hosts::new(plans, &limits),
            waiters: Waiters::new(),
            schedule: limits.schedule(),
            limits,
            rng: Rng::with_seed(seed),
            is_shut_down: false,
            next_ticket: 0,
            next_id: 1,
            timekeeper: None,
            last_failed: None,
            created: 0,
            create_failures: 0,
            discarded: DiscardCounts::default(),
            exhausted: 0,
            started: now,
            upkeep: Upkeep::new(),
            drain_watchers: 0,
            told: None,
        }
    }

    /// A new caller comes.
    #[inline]
    pub(super) fn arrive(&mut self, errand: &mut Errand, now: Instant, fx: &mut Effects<T>) -> Step<T> {
        errand.ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        if self.told.is_some() {
            self.note_arrival(errand, now, fx);
        }
        self.admit(errand, now, fx)
    }

    /// A caller is given something, or joins those who wait. Whoever came earlier and can be served is served first.
    #[inline]
    pub(super) fn admit(&mut self, errand: &Errand, now: Instant, fx: &mut Effects<T>) -> Step<T> {
        if self.is_shut_down {
            return Step::Take(self.refuse(RefusalReason::ShutDown));
        }
        if self.waiters.has_senior(errand) {
            if errand.is_late(now) {
                return Step::Take(self.refuse_late(errand, now));
            }
        } else {
            self.sweep(now, fx);
            match self.serve(errand, now, fx) {
                Served::Gift(gift) => {
                    // The other lane may wait, and have to wait no longer for what this one has taken.
                    self.settle(now, fx);
                    return Step::Take(gift);
                }
                Served::Late => return Step::Take(self.refuse_late(errand, now)),
                Served::Wait => {}
            }
        }
        // Who comes back has a new slot, and knows nothing of what it was told in the old one.
        self.timekeeper = self.timekeeper.filter(|&(keeper, _)| keeper != errand.ticket);
        let slot = self.waiters.join(errand.clone());
        // It may have joined behind others who can use nothing of what it can use.
        self.settle(now, fx);
        Step::Wait(slot)
    }

    /// Gives `errand` what there is for it.
    #[inline]
    fn serve(&mut self, errand: &Errand, now: Instant, fx: &mut Effects<T>) -> Served<T> {
        match self.hosts.choose(errand, now) {
            Choice::Lend(id, charge) => {
                let host = self.hosts.get_mut(id);
                match host.idle.pop_back() {
                    Some(mut held) => {
                        held.record.lent = now;
                        held.record.lane = errand.request.lane;
                        host.begin_lease(errand.request.lane);
                        self.note_turn(errand.request.lane, id);
                        Served::Gift(Gift::Connection(held, charge))
                    }
                    None => Served::Wait,
                }
            }
            Choice::Open { host, evict, charge } => {
                // The place goes over from the one to the other: it is at no time free.
                let evicted = evict.and_then(|victim| self.hosts.get_mut(victim).idle.pop_front()).map(Box::new);
                if let Some(held) = &evicted {
                    if held.record.host != host {
                        self.hosts.get_mut(held.record.host).yielding += 1;
                    }
                    self.note_discard(&held.record, DiscardReason::Evicted, now, fx);
                }
                let deadline = self.hosts.share(errand, now);
                let lane = errand.request.lane;
                self.note_turn(lane, host);
                Served::Gift(Gift::Permit(self.grant(host, lane, deadline, charge, evicted)))
            }
            Choice::Wait => Served::Wait,
            Choice::Late => Served::Late,
            Choice::Hopeless => Served::Gift(self.refuse_unavailable(errand, now)),
        }
    }

    /// Somebody of this lane has been served with something of this host. Bulk grows older by it if it waits, and the reserve
    /// did not keep it from having the same.
    #[inline]
    fn note_turn(&mut self, lane: Lane, host: HostId) {
        if lane == Lane::Bulk {
            self.waiters.note_bulk_turn();
        } else if self.waiters.has_bulk() && !self.hosts.is_reserved(host) {
            self.waiters.note_overtaking();
        }
    }

    /// Takes a place of `host` for a connection to be opened.
    pub(super) fn grant(
        &mut self,
        host: HostId,
        lane: Lane,
        deadline: Deadline,
        charge: Charge,
        evicted: Option<Box<Held<T>>>,
    ) -> Grant<T> {
        let id = self.next_id;
        self.next_id += 1;
        let record = self.hosts.get_mut(host);
        record.begin_opening(lane);
        record.cooldown.begin(id);
        Grant { host, id, generation: record.generation, lane, deadline, begun: None, charge, evicted }
    }

    /// Serves those who wait, lane by lane and oldest first, with whatever a change has made possible; tells those for whom it has made
    /// waiting pointless; sees to it that somebody watches the clock. To be called after every change.
    // Proof: each waiter that gets a gift leaves the queue here, under the lock; so it gets exactly one, and nobody who
    // came later in the same lane gets what it could have used.
    #[inline]
    pub(super) fn settle(&mut self, now: Instant, fx: &mut Effects<T>) {
        if self.waiters.is_empty() {
            self.mind_refill(now, fx);
        } else {
            self.serve_all(now, fx);
        }
    }

    /// The part of [`Self::settle`] that is for when somebody does wait.
    fn serve_all(&mut self, now: Instant, fx: &mut Effects<T>) {
        self.sweep(now, fx);
        // Somebody may need their places at once.
        fx.closings.append(&mut self.upkeep.retired);
        while !self.serve_in_order(self.waiters.order(), now, fx) {}
        self.appoint_timekeeper(now, fx);
        self.mind_refill(now, fx);
    }

    /// Serves those who wait, those of the first lane first. False: they are to be looked at again, after the
    /// last gift.
    // Proof that the calls come to an end: each that returns false has taken somebody out of the queue.
    fn serve_in_order(&mut self, order: [Lane; 2], now: Instant, fx: &mut Effects<T>) -> bool {
        // Once one plain errand has to wait all of its lane have to; only how long is worth waiting may differ.
        let mut plain_hopes: [Option<Hope>; 2] = [None; 2];
        for lane in order {
            let mut position = 0;
            while let Some(waiter) = self.waiters.get(lane, position) {
                if let (Some(hope), true) = (plain_hopes[lane as usize], waiter.errand.is_plain()) {
                    if hope == Hope::Live && self.waiters.are_plain() {
                        break;
                    }
                    if hope.is_worth_waiting(&waiter.errand, self.hosts.fair_time) || waiter.errand.is_late(now) {
                        position += 1;
                        continue;
                    }
                }
                let errand = waiter.errand.clone();
                match self.serve(&errand, now, fx) {
                    Served::Gift(gift) => {
                        if let Some(waiter) = self.waiters.remove_at(lane, position) {
                            fx.gifts.push((waiter.slot, gift));
                        }
                        // Bulk that went first, and has its share of a host, waits for that host as for a busy one. What was
                        // kept from it may now be somebody's, and the host of no use: then another one will do.
                        let is_kept_from_bulk = order == [Lane::Bulk, Lane::Interactive] && lane == Lane::Interactive;
                        if is_kept_from_bulk || self.waiters.order() != order {
                            return false;
                        }
                    }
                    // It will find out by itself, and leave.
                    Served::Late => position += 1,
                    Served::Wait => {
                        if errand.is_plain() && plain_hopes[lane as usize].is_none() {
                            // A busy host is as good as a live connection: there is something to wait for.
                            let hope = match self.hosts.hope(&errand) {
                                hope if hope.is_worth_waiting(&errand, self.hosts.fair_time) => hope,
                                _ => Hope::Live,
                            };
                            plain_hopes[lane as usize] = Some(hope);
                            // There is nothing that bulk may have and interactive may not.
                            if lane == Lane::Interactive {
                                plain_hopes[Lane::Bulk as usize].get_or_insert(hope);
                            }
                        }
                        position += 1;
                    }
                }
            }
        }
        true
    }

    /// Of those who wait, the first to have come watches the clock. Who becomes the first, or would oversleep, is woken to find out.
    // Proof: after every change either nothing will happen by the passing of time alone, or the head of the queue has
    // been told of a time no later than the next such event.
    fn appoint_timekeeper(&mut self, now: Instant, fx: &mut Effects<T>) {
        let Some(head) = self.waiters.head() else { return };
        let Some(end) = self.hosts.next_cooldown_end(now) else { return };
        let ticket = head.errand.ticket;
        if self.timekeeper.is_none_or(|(keeper, at)| keeper != ticket || at > end) {
            self.timekeeper = Some((ticket, end));
            fx.nudge = Some(Arc::clone(&head.slot));
        }
    }

    /// A waiter asks how long it may sleep; what has become possible with time is given away first.
    pub(super) fn tick(&mut self, errand: &Errand, now: Instant, fx: &mut Effects<T>) -> Instant {
        self.settle(now, fx);
        let deadline = errand.request.deadline.instant();
        if self.waiters.head().is_none_or(|head| head.errand.ticket != errand.ticket) {
            return deadline;
        }
        // If nothing is to end, nobody has been told of anything: the next cooldown is told to whoever is the head then.
        let end = self.hosts.next_cooldown_end(now);
        self.timekeeper = end.map(|end| (errand.ticket, end));
        end.map_or(deadline, |end| deadline.min(end))
    }

    /// A waiter leaves, its time being over.
    pub(super) fn leave(&mut self, ticket: Ticket, now: Instant, fx: &mut Effects<T>) -> Gift<T> {
        self.forget(ticket, now, fx);
        self.refuse_exhausted()
    }

    /// A waiter wants nothing any more.
    pub(super) fn call_off(&mut self, ticket: Ticket, now: Instant, fx: &mut Effects<T>) -> Gift<T> {
        self.forget(ticket, now, fx);
        self.refuse(RefusalReason::Cancelled)
    }

    /// A waiter is gone without a word.
    pub(super) fn forget(&mut self, ticket: Ticket, now: Instant, fx: &mut Effects<T>) {
        self.waiters.remove(ticket);
        self.settle(now, fx);
    }

    /// Takes idle connections out that are too old to be lent.
    #[inline]
    pub(super) fn sweep(&mut self, now: Instant, fx: &mut Effects<T>) {
        if self.hosts.may_have_expired(now) {
            self.end_expired(now, fx);
        }
    }

    #[cold]
    fn end_expired(&mut self, now: Instant, fx: &mut Effects<T>) {
        for held in self.hosts.take_expired(&self.limits, now) {
            let reason = if held.record.is_old(now) { DiscardReason::MaxLifetime } else { DiscardReason::IdleTimeout };
            self.close_later(held, reason, Close::Polite, now, fx);
        }
    }

    /// The life of a connection that is in nobody's count is over. Its place stays taken until it is closed.
    pub(super) fn close_later(
        &mut self,
        held: Held<T>,
        reason: DiscardReason,
        how: Close,
        now: Instant,
        fx: &mut Effects<T>,
    ) {
        self.note_discard(&held.record, reason, now, fx);
        self.hosts.get_mut(held.record.host).closing += 1;
        if self.may_leave_to_thread(how) {
            self.upkeep.retired.push((held, how));
            self.remind(now, fx);
        } else {
            fx.closings.push((held, how));
        }
    }

    pub(super) fn note_discard(&mut self, record: &Record, reason: DiscardReason, now: Instant, fx: &mut Effects<T>) {
        self.discarded.add(reason);
        self.delay_refill(self.limits.refill_delay, now);
        let Record { host, id, messages, opened, .. } = *record;
        let lived = now.saturating_duration_since(opened);
        fx.events.push(Event::Discarded { host, id, messages, lived, reason });
    }

    pub(super) fn refuse(&self, reason: RefusalReason) -> Gift<T> {
        Gift::Refusal(Refusal { reason, counts: self.counts() })
    }

    pub(super) fn refuse_exhausted(&mut self) -> Gift<T> {
        self.exhausted += 1;
        self.refuse(RefusalReason::Exhausted)
    }

    /// A caller whose time was over had called off before it was told so: that is what it is told.
    pub(super) fn call_off_late(&mut self, reason: RefusalReason) -> RefusalReason {
        if matches!(reason, RefusalReason::Exhausted) {
            self.exhausted -= 1;
        }
        match reason {
            RefusalReason::ShutDown => reason,
            _ => RefusalReason::Cancelled,
        }
    }

    /// A caller whose time is over, and who has not waited: either it came too late, or a host took all of its time.
    fn refuse_late(&mut self, errand: &Errand, now: Instant) -> Gift<T> {
        if errand.tried.is_empty() { self.refuse_exhausted() } else { self.refuse_unavailable(errand, now) }
    }

    pub(super) fn refuse_unavailable(&self, errand: &Errand, now: Instant) -> Gift<T> {
        let retry_after = self.hosts.retry_after(errand, now);
        let last_failed = errand.request.only.or(self.last_failed);
        let last_error = last_failed.and_then(|host| Some((host, self.hosts.get(host).last_error.clone()?)));
        self.refuse(RefusalReason::Unavailable { retry_after, last_error })
    }

    /// Whether nothing is there, and each host has said itself that it is not for us.
    pub(super) fn is_refused_for_long(&self) -> bool {
        self.hosts.all.iter().all(|host| host.live() == 0 && host.cooldown.is_lasting())
    }

    pub(super) fn counts(&self) -> PoolCounts {
        self.hosts.counts(self.waiters.len())
    }

    pub(super) fn status(&self, now: Instant) -> PoolStatus {
        PoolStatus {
            counts: self.counts(),
            hosts: self.hosts.all.iter().map(|host| host.status(now)).collect(),
            created: self.created,
            create_failures: self.create_failures,
            discarded: self.discarded,
            exhausted: self.exhausted,
            is_shut_down: self.is_shut_down,
            uptime: now.saturating_duration_since(self.started),
        }
    }

    /// How long one more connection may live.
    pub(super) fn draw_lifetime(&mut self) -> Option<Duration> {
        let shorter_by = self.rng.f64() * self.limits.lifetime_jitter;
        self.limits.max_lifetime.map(|lifetime| lifetime.mul_f64((1.0 - shorter_by).max(0.0)))
    }
}

enum Served<T> {
    Gift(Gift<T>),
    Wait,
    Late,
}
