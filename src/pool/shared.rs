//! The lock, and what is done around it: a caller's way from asking to a lease.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use std::vec;

use crate::cancel::CancelToken;
use crate::clock::{self, Deadline};
use crate::endpoint::{Endpoint, HostId};
use crate::observer::Observers;
use crate::pool::changes::Arrival;
use crate::pool::connector::{Close, Connector, OpenError};
use crate::pool::crew::Crew;
use crate::pool::effects::Effects;
use crate::pool::errand::Errand;
use crate::pool::held::{Held, Record};
use crate::pool::lease::Lease;
use crate::pool::levels::Changes;
use crate::pool::news::News;
use crate::pool::permit::OpenPermit;
use crate::pool::place::WaitingPlace;
use crate::pool::slot::{Charge, Gift, Refusal, RefusalReason};
use crate::pool::state::{PoolState, Step};
use crate::pool::{AcquireError, Diary, Fate, Happened, HostPlan, Limits, Wait};
use crate::stats::DiscardReason;
use crate::sync::channel::{self, Receiver, Sender, TrySendError};
use crate::sync::{Condvar, Mutex};

/// What all handles of a pool, and all its leases, have in common.
pub(super) struct Shared<C: Connector> {
    pub(super) connector: C,
    endpoints: Vec<Endpoint>,
    pub(super) observers: Observers,
    state: Mutex<PoolState<C::Connection>>,
    /// The generation of each host's credentials, as in the state: for whoever is about to begin a message, and holds no lock.
    generations: Vec<AtomicU64>,
    /// Goes with the state: it is drained, and somebody waits for that.
    drained: Condvar,
    /// Wakes the maintenance thread. One ring in waiting says as much as many.
    bell: Sender<()>,
    pub(super) crew: Arc<Crew>,
    /// Cuts short what the pool's own threads open, when the pool is closed.
    pub(super) curtain: CancelToken,
    /// How often the maintenance thread woke.
    #[cfg(test)]
    pub(super) wakes: std::sync::atomic::AtomicUsize,
}

impl<C: Connector> Shared<C> {
    /// The pool, and what its maintenance thread is to listen to.
    pub(super) fn new(
        connector: C,
        hosts: Vec<HostPlan>,
        limits: Limits,
        seed: u64,
        observers: Observers,
    ) -> (Self, Receiver<()>) {
        let (bell, rings) = channel::bounded(1);
        let shared = Self {
            connector,
            generations: hosts.iter().map(|_| AtomicU64::new(0)).collect(),
            endpoints: hosts.iter().map(|plan| plan.endpoint.clone()).collect(),
            observers,
            state: Mutex::new(PoolState::new(hosts, limits, seed, clock::now())),
            drained: Condvar::new(),
            bell,
            crew: Arc::default(),
            curtain: CancelToken::new(),
            #[cfg(test)]
            wakes: std::sync::atomic::AtomicUsize::new(0),
        };
        (shared, rings)
    }

    /// Looks at the state.
    // Proof: one look under one lock is one moment; nothing can be changed through it.
    pub(super) fn look<R>(&self, look: impl FnOnce(&PoolState<C::Connection>) -> R) -> R {
        look(&self.state.lock())
    }

    /// Makes a decision. What it takes to carry it out is handed to [`Self::carry_out`] as soon as whatever the
    /// decision itself gave is in the hands of a value that gives it back when dropped.
    // Proof: all changes are made in `locked`, from here or from `carry_out_some`. `decide` is one method of `PoolState`,
    // which runs nobody else's code; whatever it gives away is in the result or the effects, and both outlive the lock.
    #[inline]
    pub(super) fn decide<R>(
        &self,
        decide: impl FnOnce(&mut PoolState<C::Connection>, &mut Effects<C::Connection>) -> R,
    ) -> (R, Effects<C::Connection>) {
        let mut fx = Effects::new();
        let result = self.locked(&mut fx, decide);
        (result, fx)
    }

    // Proof: who waits for the drain has said so under this lock before it sleeps, and gives the lock up only by falling
    // asleep; so that whichever change drains the state finds it counted, and asleep.
    #[inline]
    fn locked<R>(
        &self,
        fx: &mut Effects<C::Connection>,
        change: impl FnOnce(&mut PoolState<C::Connection>, &mut Effects<C::Connection>) -> R,
    ) -> R {
        let mut state = self.state.lock();
        let result = change(&mut state, fx);
        state.note_changes(fx);
        let is_awaited = state.drain_watchers > 0 && state.is_drained();
        drop(state);
        if is_awaited {
            self.drained.notify_all();
        }
        result
    }

    /// Waits until nothing is lent, being opened or being closed. False: the deadline came first.
    // Proof: see `locked`.
    pub(super) fn wait_drained(&self, deadline: Deadline) -> bool {
        let mut state = self.state.lock();
        state.drain_watchers += 1;
        self.drained.wait_while_until(&mut state, |state| !state.is_drained(), deadline.instant());
        state.drain_watchers -= 1;
        state.is_drained()
    }

    /// Takes no more work; see [`PoolState::shut_down`].
    pub(super) fn close(&self) {
        self.change(clock::now(), |state, now, fx| state.shut_down(now, fx));
        self.curtain.cancel();
    }

    /// Gives up what was opened with a host's credentials so far; see [`PoolState::rotate_credentials`].
    // Proof: the number is published under the lock, so that it never goes back; and before this returns, so that whoever begins a
    // message after it has returned, and so after this store, finds its connection outdated, wherever that was meanwhile.
    pub(super) fn rotate_credentials(&self, host: HostId) {
        let now = clock::now();
        let ((), fx) = self.decide(|state, fx| {
            let generation = state.rotate_credentials(host, now, fx);
            self.generations[host.0].store(generation, Ordering::SeqCst);
        });
        self.carry_out(fx);
    }

    /// Whether a connection to `host` may begin a message.
    pub(super) fn is_current(&self, host: HostId, generation: u64) -> bool {
        self.generations[host.0].load(Ordering::SeqCst) == generation
    }

    /// Makes a decision that gives nothing to the one who makes it.
    #[inline]
    pub(super) fn change(
        &self,
        now: Instant,
        change: impl FnOnce(&mut PoolState<C::Connection>, Instant, &mut Effects<C::Connection>),
    ) {
        let ((), fx) = self.decide(|state, fx| change(state, now, fx));
        self.carry_out(fx);
    }

    /// Does what was decided: gifts first, because others wait for them, and because nothing that comes before can
    /// fail; then closings; observers, who may take their time, last.
    #[inline]
    pub(super) fn carry_out(&self, fx: Effects<C::Connection>) {
        if !fx.is_empty() {
            self.carry_out_some(fx);
        }
    }

    #[cold]
    fn carry_out_some(&self, mut fx: Effects<C::Connection>) {
        // Told whatever comes of the rest: what is not told once is wrong for good.
        let mut news = News { shared: self, events: Vec::new(), changes: Changes::NONE };
        let mut closings = Vec::new();
        let mut ring = false;
        // Each round begins with those who had gone when their gift came.
        while !fx.is_empty() {
            let mut next = Effects::new();
            if let Some(slot) = fx.nudge {
                slot.nudge();
            }
            for (slot, gift) in fx.gifts {
                if let Some(gift) = slot.give(gift) {
                    let now = clock::now();
                    // Proof: who has gone has left the queue, so that the gift has no owner but this thread, and what
                    // becomes of it is in `next`.
                    self.locked(&mut next, |state, fx| state.pass_on(gift, now, fx));
                }
                // A nudge must not wait for the gifts that come after it.
                if let Some(slot) = next.nudge.take() {
                    slot.nudge();
                }
            }
            closings.append(&mut fx.closings);
            news.events.append(&mut fx.events);
            news.changes.append(fx.changes);
            ring |= fx.ring;
            fx = next;
        }
        if ring {
            match self.bell.try_send(()) {
                // It has been rung already; or nobody listens, and then nothing has been left to anybody.
                Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
            }
        }
        Closings { shared: self, rest: closings.into_iter() }.run();
    }

    /// Where a host is.
    pub(super) fn endpoint(&self, host: HostId) -> &Endpoint {
        &self.endpoints[host.0]
    }

    /// A caller's way from `step` to a lease. Nothing here is waited for under the lock, and whatever the caller has
    /// been given is at all times in the hands of a value that gives it back.
    pub(super) fn follow(
        self: &Arc<Self>,
        mut errand: Errand,
        decided: (Step<C::Connection>, Effects<C::Connection>),
        mut since: Instant,
        diary: &mut dyn Diary<C::Error>,
    ) -> Result<Lease<C>, AcquireError<C::Error>> {
        let mut cause = None;
        let mut turn = self.turn(&errand, decided);
        loop {
            turn = match turn {
                Turn::Lease(lease, charge) if errand.is_cancelled() => {
                    lease.call_off(charge);
                    self.cancelled(&errand)
                }
                Turn::Permit(permit) if errand.is_cancelled() => {
                    drop(permit);
                    self.cancelled(&errand)
                }
                Turn::Lease(mut lease, charge) => {
                    if lease.look() {
                        lease.note_lent();
                        lease.tell(diary);
                        return Ok(lease);
                    }
                    let decided = self.bury(&errand, lease, charge, diary);
                    self.turn(&errand, decided)
                }
                Turn::Permit(mut permit) => {
                    permit.close_evicted();
                    let began = clock::now();
                    if errand.is_late(began) {
                        drop(permit);
                        let (gift, fx) = self.decide(|state, _| state.refuse_exhausted());
                        self.turn(&errand, (Step::Take(gift), fx))
                    } else {
                        match permit.open(began, errand.request.cancel.as_ref()) {
                            Ok(connection) => {
                                let (mut lease, charge, arrival) = permit.redeem(connection, errand.ticket);
                                if arrival == Arrival::Ready && errand.is_cancelled() {
                                    // What was opened is of use to others.
                                    turn = Turn::Lease(lease, charge);
                                    continue;
                                }
                                if arrival != Arrival::Outdated {
                                    let (host, id, took) = (lease.host(), lease.id(), lease.since() - began);
                                    diary.note(lease.since(), Happened::Opened { host, id, took });
                                }
                                match arrival {
                                    Arrival::Ready => {
                                        lease.note_lent();
                                        return Ok(lease);
                                    }
                                    Arrival::Outdated => {
                                        let decided = self.reopen(&errand, lease, charge, diary);
                                        since = clock::now();
                                        self.turn(&errand, decided)
                                    }
                                    Arrival::TooLate => {
                                        lease.finish(Fate::Discard(DiscardReason::Shutdown, Close::Polite));
                                        let (gift, fx) = self.decide(|state, _| state.refuse(RefusalReason::ShutDown));
                                        self.turn(&errand, (Step::Take(gift), fx))
                                    }
                                }
                            }
                            // It was cut short, or may have been: that says nothing about the host.
                            Err(OpenError { error, .. }) if errand.is_cancelled() => {
                                since = tell_failure(diary, permit.host(), began, &error);
                                cause = Some((permit.host(), error));
                                drop(permit);
                                self.cancelled(&errand)
                            }
                            Err(OpenError { error, blame }) => {
                                let host = permit.host();
                                since = tell_failure(diary, host, began, &error);
                                let text = Arc::from(error.to_string());
                                cause = Some((host, error));
                                let decided = permit.fail(blame, text, &mut errand);
                                self.turn(&errand, decided)
                            }
                        }
                    }
                }
                Turn::Wait(place) => {
                    let step = place.wait();
                    let (now, wait) = (clock::now(), Wait::of(&step));
                    diary.note(now, Happened::Waited(now - since, wait));
                    since = now;
                    self.turn(&errand, (step, Effects::new()))
                }
                // Whatever else came to pass in the same moment, this is what was asked for last.
                Turn::Refused(Refusal { reason, counts }) if errand.is_cancelled() => {
                    let (reason, fx) = self.decide(|state, _| state.call_off_late(reason));
                    self.carry_out(fx);
                    return Err(AcquireError::new(Refusal { reason, counts }, cause));
                }
                Turn::Refused(refusal) => return Err(AcquireError::new(refusal, cause)),
            };
        }
    }

    fn cancelled(self: &Arc<Self>, errand: &Errand) -> Turn<'_, C> {
        let (gift, fx) = self.decide(|state, _| state.refuse(RefusalReason::Cancelled));
        self.turn(errand, (Step::Take(gift), fx))
    }

    /// The same, from a connection that was found dead.
    #[cold]
    pub(super) fn replace(
        self: &Arc<Self>,
        errand: Errand,
        dead: Lease<C>,
        charge: Charge,
        diary: &mut dyn Diary<C::Error>,
    ) -> Result<Lease<C>, AcquireError<C::Error>> {
        let since = dead.since();
        let decided = self.bury(&errand, dead, charge, diary);
        self.follow(errand, decided, since, diary)
    }

    fn bury(
        &self,
        errand: &Errand,
        dead: Lease<C>,
        charge: Charge,
        diary: &mut dyn Diary<C::Error>,
    ) -> (Step<C::Connection>, Effects<C::Connection>) {
        let (record, now) = give_up(dead, DiscardReason::ServerClosed, Close::Abort, diary);
        self.decide(|state, fx| state.found_dead(&record, charge, errand, now, fx))
    }

    /// From a connection whose credentials were rotated while it was opened to another one.
    #[cold]
    fn reopen(
        &self,
        errand: &Errand,
        old: Lease<C>,
        charge: Charge,
        diary: &mut dyn Diary<C::Error>,
    ) -> (Step<C::Connection>, Effects<C::Connection>) {
        let (record, now) = give_up(old, DiscardReason::CredentialsRotated, Close::Polite, diary);
        self.decide(|state, fx| state.outdated(&record, charge, errand, now, fx))
    }

    /// Takes what a decision gave into safe hands, and carries the rest of it out.
    fn turn(
        self: &Arc<Self>,
        errand: &Errand,
        (step, fx): (Step<C::Connection>, Effects<C::Connection>),
    ) -> Turn<'_, C> {
        let turn = match step {
            Step::Take(Gift::Connection(held, charge)) => {
                Turn::Lease(Lease::new(Arc::clone(self), held, errand.ticket, clock::now()), charge)
            }
            Step::Take(Gift::Permit(grant)) => Turn::Permit(OpenPermit::new(self, grant)),
            Step::Take(Gift::Refusal(refusal)) => Turn::Refused(refusal),
            Step::Wait(slot) => Turn::Wait(WaitingPlace::new(self, errand.clone(), slot)),
        };
        self.carry_out(fx);
        turn
    }
}

/// Nobody can come any more: what is idle is closed.
// Proof: leases and waiting callers hold the pool alive, so that there are none, and no other thread either.
impl<C: Connector> Drop for Shared<C> {
    fn drop(&mut self) {
        let mut fx = Effects::new();
        self.state.lock().shut_down(clock::now(), &mut fx);
        for (held, how) in fx.closings {
            self.connector.close(held.connection, how);
        }
    }
}

/// Notes that opening a connection failed, and returns when.
fn tell_failure<E>(diary: &mut dyn Diary<E>, host: HostId, began: Instant, error: &E) -> Instant {
    let now = clock::now();
    diary.note(now, Happened::OpenFailed { host, took: now - began, error });
    now
}

/// Closes a connection that its caller cannot use, notes that another takes its place, and returns when.
fn give_up<C: Connector>(
    lease: Lease<C>,
    reason: DiscardReason,
    how: Close,
    diary: &mut dyn Diary<C::Error>,
) -> (Box<Record>, Instant) {
    let record = lease.close(reason, how);
    let now = clock::now();
    diary.note(now, Happened::Replaced { host: record.host, id: record.id, reason });
    (record, now)
}

/// What a caller has in hand.
enum Turn<'a, C: Connector> {
    Lease(Lease<C>, Charge),
    Permit(OpenPermit<'a, C>),
    Wait(WaitingPlace<'a, C>),
    Refused(Refusal),
}

/// Connections to be closed, each of which has a place until it has been.
struct Closings<'a, C: Connector> {
    shared: &'a Shared<C>,
    rest: vec::IntoIter<(Held<C::Connection>, Close)>,
}

impl<C: Connector> Closings<'_, C> {
    fn run(mut self) {
        for (held, how) in self.rest.by_ref() {
            let place = ClosingPlace { shared: self.shared, host: held.record.host };
            self.shared.connector.close(held.connection, how);
            drop(place);
        }
    }
}

impl<C: Connector> Drop for Closings<'_, C> {
    /// Only something that panicked has left any.
    fn drop(&mut self) {
        for (held, _) in self.rest.by_ref() {
            let place = ClosingPlace { shared: self.shared, host: held.record.host };
            drop(held);
            drop(place);
        }
    }
}

/// The place of a connection that is being closed; free when this is dropped.
struct ClosingPlace<'a, C: Connector> {
    shared: &'a Shared<C>,
    host: HostId,
}

impl<C: Connector> Drop for ClosingPlace<'_, C> {
    fn drop(&mut self) {
        self.shared.change(clock::now(), |state, now, fx| state.closed(self.host, now, fx));
    }
}
