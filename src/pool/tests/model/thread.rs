//! The pool's own thread and its helper, as the model plays them.

use std::sync::Arc;

use super::Model;
use crate::blame::Blame;
use crate::pool::effects::Effects;
use crate::pool::held::Held;
use crate::pool::slot::Gift;
use crate::pool::upkeep::Chores;
use crate::stats::DiscardReason;

impl Model {
    /// What the thread and its helper do, a bit at a time.
    pub(super) fn tend(&mut self) {
        if let Some(held) = self.pick(self.probes.len()).map(|at| self.probes.swap_remove(at)) {
            if self.rng.u8(..) < 200 {
                self.with(|state, now, fx| state.proved_alive(held, now, fx));
            } else {
                self.gone.insert(held.record.id);
                self.with(|state, now, fx| state.vacate(&held.record, DiscardReason::KeepaliveFailure, now, fx));
            }
        } else if self.is_attended {
            let mut fx = Effects::new();
            let Chores { probes, refill } = self.state.upkeep(self.now, &mut fx);
            for held in &probes {
                assert!(!self.gone.contains(&held.record.id), "I7: a connection that was given up is asked");
            }
            self.probes = probes;
            assert!(!(refill && self.is_refilling), "two refills at a time");
            self.is_refilling |= refill;
            let is_done = self.probes.is_empty() && fx.is_empty() && !refill;
            self.carry_out(fx);
            if is_done && !self.state.is_shut_down {
                // A thread that has done everything has nothing to do: it does not spin.
                assert!(self.state.alarm().is_none_or(|at| at > self.now), "the alarm rings for what cannot be done");
            }
        }
        self.fill();
    }

    /// A step of the one that opens in reserve.
    fn fill(&mut self) {
        if !self.is_refilling {
            return;
        }
        if let Some(grant) = self.reserve.take() {
            match self.rng.u32(..10) {
                0 => {
                    self.with(|state, now, fx| state.permit_returned(grant, now, fx));
                    self.end_refill(false);
                }
                1..4 => {
                    let blame = self.rng.choice([Blame::Host, Blame::Capacity, Blame::Local, Blame::Nobody]).unwrap();
                    let mut goes_on = false;
                    self.with(|state, now, fx| {
                        let failure = state.note_failure(&grant, blame, Arc::from("no"), now, fx);
                        goes_on = state.refill_failed(failure, now, fx);
                    });
                    if !goes_on {
                        self.end_refill(true);
                    }
                }
                _ => {
                    assert!(self.ever.insert(grant.id), "an id is used twice");
                    let mut fx = Effects::new();
                    let (record, is_open) = self.state.opened(&grant, None, self.now, &mut fx);
                    let held = Held { connection: record.id, record };
                    if is_open {
                        self.state.pass_on(Gift::Connection(held, grant.charge), self.now, &mut fx);
                    } else {
                        self.state.retire(held, DiscardReason::Shutdown, self.now, &mut fx);
                    }
                    self.carry_out(fx);
                }
            }
        } else {
            self.reserve = self.state.refill(self.now);
            match &self.reserve {
                Some(_) => {
                    let overtaken = self.waiting.iter().find(|waiting| !waiting.errand.is_late(self.now));
                    assert!(overtaken.is_none(), "I6: opened in reserve while somebody waits");
                }
                None => self.end_refill(true),
            }
        }
    }

    pub(super) fn end_refill(&mut self, is_over: bool) {
        self.is_refilling = false;
        self.with(|state, now, fx| state.refill_ended(is_over, now, fx));
    }
}
