//! A caller's place in the queue.

use std::sync::Arc;

use crate::clock;
use crate::pool::connector::Connector;
use crate::pool::errand::Errand;
use crate::pool::shared::Shared;
use crate::pool::slot::{Gift, Slot, Woken};
use crate::pool::state::Step;

/// A place in the queue, given up on drop.
pub(super) struct WaitingPlace<'a, C: Connector> {
    shared: &'a Arc<Shared<C>>,
    errand: Errand,
    slot: Arc<Slot<C::Connection>>,
    is_left: bool,
}

impl<'a, C: Connector> WaitingPlace<'a, C> {
    pub(super) const fn new(shared: &'a Arc<Shared<C>>, errand: Errand, slot: Arc<Slot<C::Connection>>) -> Self {
        Self { shared, errand, slot, is_left: false }
    }

    /// Waits until something is given, time is up, or the caller wants nothing any more.
    pub(super) fn wait(mut self) -> Step<C::Connection> {
        // The hook runs under no lock and takes none but the slot's. It may come late, when it marks a slot that nobody
        // looks at any more.
        let _hook = self.errand.request.cancel.as_ref().map(|token| {
            let slot = Arc::clone(&self.slot);
            token.on_cancel(move || slot.cancel())
        });
        let deadline = self.errand.request.deadline.instant();
        let mut until = deadline;
        loop {
            match self.slot.sleep(until) {
                Woken::Granted(gift) => {
                    self.is_left = true;
                    return Step::Take(gift);
                }
                Woken::Cancelled => {
                    self.is_left = true;
                    let now = clock::now();
                    let (refusal, fx) = self.shared.decide(|state, fx| state.call_off(self.errand.ticket, now, fx));
                    self.shared.carry_out(fx);
                    return Step::Take(refusal);
                }
                Woken::Time if clock::now() >= deadline => return Step::Take(self.leave()),
                Woken::Nudged | Woken::Time => {
                    let now = clock::now();
                    let (wake, fx) = self.shared.decide(|state, fx| state.tick(&self.errand, now, fx));
                    until = wake;
                    self.shared.carry_out(fx);
                }
            }
        }
    }

    /// Time is up. What has come in the last moment is taken all the same.
    fn leave(&mut self) -> Gift<C::Connection> {
        self.is_left = true;
        if let Some(gift) = self.slot.give_up() {
            return gift;
        }
        let now = clock::now();
        let (refusal, fx) = self.shared.decide(|state, fx| state.leave(self.errand.ticket, now, fx));
        self.shared.carry_out(fx);
        refusal
    }
}

/// Something panicked while others were served: the place is left, and what had come is passed on.
impl<C: Connector> Drop for WaitingPlace<'_, C> {
    fn drop(&mut self) {
        if self.is_left {
            return;
        }
        let gift = self.slot.give_up();
        self.shared.change(clock::now(), |state, now, fx| {
            state.forget(self.errand.ticket, now, fx);
            if let Some(gift) = gift {
                state.pass_on(gift, now, fx);
            }
        });
    }
}
