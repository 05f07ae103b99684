//! The thread that looks after a pool, and the one it sends to open connections in reserve.
//!
//! Both hold the pool only while they do something for it, so that neither keeps it alive. What is due is decided in
//! `upkeep.rs`; here it is done, and slept until then.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::clock::{self, Deadline};
use crate::observer::{KeepaliveFailed, ThreadLost};
use crate::pool::Fate;
use crate::pool::changes::Arrival;
use crate::pool::connector::{Close, Connector, OpenError};
use crate::pool::errand::Ticket;
use crate::pool::held::Held;
use crate::pool::lease::Lease;
use crate::pool::permit::OpenPermit;
use crate::pool::shared::Shared;
use crate::stats::DiscardReason;
use crate::sync::channel::{Receiver, RecvTimeoutError};

/// What all answers to the probes of one round are waited for together: the longest that one host can hold up the care
/// of the others.
const PROBE_TIME: Duration = Duration::from_secs(1);

/// Starts the thread, which ends with the pool.
pub(super) fn start<C: Connector>(shared: &Arc<Shared<C>>, rings: Receiver<()>) -> io::Result<()> {
    let now = clock::now();
    shared.decide(|state, _| state.attend(now));
    let (pool, observers) = (Arc::downgrade(shared), shared.observers.clone());
    shared.crew.start("smtp-pool-maintenance", move || {
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| look_after(&pool, &rings)));
        if let Some(shared) = pool.upgrade() {
            shared.change(clock::now(), |state, _, fx| state.dismiss_thread(fx));
        }
        if outcome.is_err() {
            let error = "it panicked; connections are looked after by their users from now on";
            observers.tell(|observer| observer.thread_lost(&ThreadLost { thread: "maintenance", error }));
        }
    })
}

fn look_after<C: Connector>(pool: &Weak<Shared<C>>, rings: &Receiver<()>) {
    while let Some(shared) = pool.upgrade() {
        let is_open = tend(&shared, rings);
        let alarm = shared.look(|state| state.alarm());
        drop(shared);
        if !is_open {
            return;
        }
        let woken = match alarm {
            Some(at) => rings.recv_deadline(at),
            None => rings.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        if woken == Err(RecvTimeoutError::Disconnected) {
            return;
        }
        #[cfg(test)]
        if let Some(shared) = pool.upgrade() {
            shared.wakes.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    }
}

/// Does what is due until nothing is. False: the pool is closed.
// Proof: a ring is taken out before the look that sees what it was for; one that comes after that look stays in, and
// ends the sleep that follows.
fn tend<C: Connector>(shared: &Arc<Shared<C>>, rings: &Receiver<()>) -> bool {
    loop {
        rings.try_iter().for_each(drop);
        let now = clock::now();
        let (chores, fx) = shared.decide(|state, fx| state.upkeep(now, fx));
        let is_done = fx.is_empty() && chores.probes.is_empty() && !chores.refill;
        // In safe hands before anything is done that can fail.
        let reserve = chores.refill.then(|| Reserve { pool: Arc::downgrade(shared), is_over: false });
        let silent: Vec<_> = chores.probes.into_iter().map(|held| in_hand(shared, held, now)).collect();
        shared.carry_out(fx);
        if let Some(reserve) = reserve {
            reserve.send();
        }
        probe(shared, silent);
        if is_done {
            return shared.look(|state| !state.is_shut_down);
        }
    }
}

fn in_hand<C: Connector>(shared: &Arc<Shared<C>>, held: Held<C::Connection>, now: Instant) -> Lease<C> {
    Lease::new(Arc::clone(shared), held, Ticket::default(), now)
}

/// Asks all of them before it waits for the first answer, so that they share one round trip and one deadline.
fn probe<C: Connector>(shared: &Shared<C>, silent: Vec<Lease<C>>) {
    let give_up = |lease: Lease<C>| {
        let event = KeepaliveFailed { host: shared.endpoint(lease.host()), connection_id: lease.id() };
        lease.finish(Fate::Discard(DiscardReason::KeepaliveFailure, Close::Abort));
        shared.observers.tell(|observer| observer.keepalive_failed(&event));
    };
    let mut asked = Vec::with_capacity(silent.len());
    for mut lease in silent {
        if shared.connector.begin_probe(lease.connection_mut()) {
            asked.push(lease);
        } else {
            give_up(lease);
        }
    }
    if asked.is_empty() {
        return;
    }
    let deadline = Deadline::after(PROBE_TIME);
    for mut lease in asked {
        if shared.connector.end_probe(lease.connection_mut(), deadline) {
            lease.prove_alive();
        } else {
            give_up(lease);
        }
    }
}

/// The task of opening connections in reserve: at most one at a time, given up on drop.
struct Reserve<C: Connector> {
    pool: Weak<Shared<C>>,
    /// Whether it has come to its end in good order.
    is_over: bool,
}

impl<C: Connector> Reserve<C> {
    /// Sends a thread, so that a host that does not answer holds nothing else up.
    fn send(self) {
        let Some(shared) = self.pool.upgrade() else { return };
        let (crew, observers) = (Arc::clone(&shared.crew), shared.observers.clone());
        drop(shared);
        if let Err(error) = crew.start("smtp-pool-refill", move || self.fill()) {
            let error = error.to_string();
            observers.tell(|observer| observer.thread_lost(&ThreadLost { thread: "refill", error: &error }));
        }
    }

    fn fill(mut self) {
        self.open_all();
        self.is_over = true;
    }

    fn open_all(&self) {
        while let Some(shared) = self.pool.upgrade() {
            let now = clock::now();
            let (grant, fx) = shared.decide(|state, _| state.refill(now));
            shared.carry_out(fx);
            let Some(grant) = grant else { return };
            let mut permit = OpenPermit::new(&shared, grant);
            match permit.open(clock::now(), Some(&shared.curtain)) {
                Ok(connection) => {
                    let (lease, charge, arrival) = permit.redeem(connection, Ticket::default());
                    if arrival == Arrival::TooLate {
                        lease.finish(Fate::Discard(DiscardReason::Shutdown, Close::Polite));
                        return;
                    }
                    // An outdated one is not put away, and another is opened in its place.
                    lease.call_off(charge);
                }
                // Cut short by the end of the pool: nobody's fault.
                Err(_) if shared.curtain.is_cancelled() => return,
                Err(OpenError { error, blame }) => {
                    if !permit.fail_in_reserve(blame, Arc::from(error.to_string())) {
                        return;
                    }
                }
            }
        }
    }
}

impl<C: Connector> Drop for Reserve<C> {
    fn drop(&mut self) {
        if let Some(shared) = self.pool.upgrade() {
            let is_over = self.is_over;
            shared.change(clock::now(), |state, now, fx| state.refill_ended(is_over, now, fx));
        }
    }
}
