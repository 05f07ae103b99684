//! The state with a clock in the test's hands.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::blame::Blame;
use crate::clock::{Deadline, now as dawn};
use crate::endpoint::HostId;
use crate::pool::effects::Effects;
use crate::pool::errand::{Errand, Request, Ticket};
use crate::pool::held::{Held, Record};
use crate::pool::slot::{Gift, Grant, Slot, Woken};
use crate::pool::state::{PoolState, Step};
use crate::pool::tests::fake::limits;
use crate::pool::upkeep::Chores;
use crate::pool::{HostPlan, Limits};
use crate::stats::{DiscardReason, HostState};

pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) struct Desk {
    pub(super) state: PoolState<()>,
    pub(super) now: Instant,
    pub(super) fx: Effects<()>,
}

impl Desk {
    pub(super) fn new(max_size: usize, plans: Vec<HostPlan>) -> Self {
        Self::with(limits(max_size), plans)
    }

    pub(super) fn with(limits: Limits, plans: Vec<HostPlan>) -> Self {
        let now = dawn();
        Self { state: PoolState::new(plans, limits, 1, now), now, fx: Effects::new() }
    }

    pub(super) fn request(&self, seconds: u32) -> Request {
        Request::by(Deadline::on(self.now + SECOND * seconds))
    }

    pub(super) fn avoiding(&self, hosts: &[usize]) -> Request {
        Request { avoid: hosts.iter().copied().map(HostId).collect(), ..self.request(10) }
    }

    pub(super) fn ask(&mut self, request: Request) -> (Errand, Step<()>) {
        let mut errand = Errand::new(Ticket::default(), request);
        let step = self.state.arrive(&mut errand, self.now, &mut self.fx);
        (errand, step)
    }

    pub(super) fn permit(&mut self, request: Request) -> (Errand, Grant<()>) {
        match self.ask(request) {
            (errand, Step::Take(Gift::Permit(grant))) => (errand, grant),
            (_, other) => panic!("{other:?}"),
        }
    }

    pub(super) fn wait(&mut self, request: Request) -> (Errand, Arc<Slot<()>>) {
        match self.ask(request) {
            (errand, Step::Wait(slot)) => (errand, slot),
            (_, other) => panic!("{other:?}"),
        }
    }

    pub(super) fn opened(&mut self, grant: &Grant<()>) -> Box<Record> {
        self.state.opened(grant, None, self.now, &mut self.fx).0
    }

    pub(super) fn failed(&mut self, (mut errand, grant): (Errand, Grant<()>), blame: Blame) -> Step<()> {
        self.state.open_failed(&grant, blame, Arc::from("no"), &mut errand, self.now, &mut self.fx)
    }

    /// One lease, opened if need be.
    pub(super) fn lease(&mut self, request: Request) -> Box<Record> {
        match self.ask(request).1 {
            Step::Take(Gift::Connection(held, _)) => held.record,
            Step::Take(Gift::Permit(grant)) => self.opened(&grant),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn give_back(&mut self, record: Box<Record>) {
        self.state.give_back(Held { connection: (), record }, true, self.now, &mut self.fx);
    }

    pub(super) fn vacate(&mut self, record: &Record) {
        self.state.vacate(record, DiscardReason::Broken, self.now, &mut self.fx);
    }

    /// Hands over what is due to others.
    pub(super) fn deliver(&mut self) {
        while !self.fx.gifts.is_empty() {
            for (slot, gift) in std::mem::take(&mut self.fx.gifts) {
                if let Some(gift) = slot.give(gift) {
                    self.state.pass_on(gift, self.now, &mut self.fx);
                }
            }
        }
    }

    /// Cools the host for the first time, which takes thirty seconds.
    pub(super) fn cool(&mut self, host: usize) {
        let others = self.state.hosts.ids().filter(|id| id.0 != host).map(|id| id.0).collect::<Vec<_>>();
        let permit = self.permit(Request { fresh: true, ..self.avoiding(&others) });
        assert_eq!(permit.1.host, HostId(host));
        match self.failed(permit, Blame::Host) {
            Step::Take(Gift::Permit(grant)) => self.state.permit_returned(grant, self.now, &mut self.fx),
            Step::Take(_) => {}
            Step::Wait(slot) => panic!("{slot:?}"),
        }
    }

    /// A desk with a thread, which is the test.
    pub(super) fn attended(limits: Limits, plans: Vec<HostPlan>) -> Self {
        let mut desk = Self::with(limits, plans);
        desk.state.attend(desk.now);
        desk
    }

    /// What the thread does when it wakes: decides, closes, and decides again until there is nothing left but probes and
    /// openings, which are the test's.
    pub(super) fn tend(&mut self) -> Chores<()> {
        let mut all = Chores { probes: Vec::new(), refill: false };
        loop {
            let Chores { probes, refill } = self.state.upkeep(self.now, &mut self.fx);
            let is_done = probes.is_empty() && !refill && self.fx.closings.is_empty();
            all.probes.extend(probes);
            all.refill |= refill;
            for (held, _) in std::mem::take(&mut self.fx.closings) {
                self.state.closed(held.record.host, self.now, &mut self.fx);
            }
            self.deliver();
            if is_done || !all.probes.is_empty() {
                self.fx.ring = false;
                return all;
            }
        }
    }

    /// Sleeps until the alarm.
    pub(super) fn sleep(&mut self) -> Duration {
        let alarm = self.state.alarm().expect("something is due");
        let slept = alarm.saturating_duration_since(self.now);
        self.now = alarm.max(self.now);
        slept
    }

    /// Opens in reserve all there is to open.
    pub(super) fn refill(&mut self) -> Vec<HostId> {
        let mut hosts = Vec::new();
        while let Some(grant) = self.state.refill(self.now) {
            let record = self.opened(&grant);
            hosts.push(record.host);
            self.state.pass_on(Gift::Connection(Held { connection: (), record }, grant.charge), self.now, &mut self.fx);
        }
        self.state.refill_ended(true, self.now, &mut self.fx);
        hosts
    }

    pub(super) fn discarded(&self, reason: DiscardReason) -> u64 {
        self.state.status(self.now).discarded.of(reason)
    }

    pub(super) fn idle(&self, host: usize) -> usize {
        self.state.hosts.all[host].idle.len()
    }

    pub(super) fn host_state(&self, host: usize) -> HostState {
        self.state.status(self.now).hosts[host].state
    }
}

pub(super) fn taken(slot: &Slot<()>) -> Option<Gift<()>> {
    // A deadline long over: looks without sleeping.
    loop {
        match slot.sleep(dawn()) {
            Woken::Granted(gift) => return Some(gift),
            Woken::Nudged => {}
            Woken::Time | Woken::Cancelled => return None,
        }
    }
}

/// A desk with a thread, which is the test.
pub(super) fn desk(max_size: usize, plans: Vec<HostPlan>, change: impl FnOnce(&mut Limits)) -> Desk {
    let mut limits = limits(max_size);
    change(&mut limits);
    Desk::attended(limits, plans)
}
