//! The pool's own thread and its helper.

use std::time::Instant;

use super::book::Place;
use super::play::Play;
use super::steps::{Connecting, Setup};
use crate::pool::effects::Effects;
use crate::pool::held::Held;
use crate::pool::slot::{Charge, Gift, Grant};
use crate::pool::upkeep::Chores;
use crate::stats::DiscardReason;

/// What the thread is at.
#[derive(Debug)]
pub(super) struct Thread {
    pub(super) is_there: bool,
    /// Whether it is awake, or will be.
    pub(super) is_rung: bool,
    sleeps_until: Option<Instant>,
    /// Being asked for a sign of life.
    pub(super) asked: Vec<Held<u64>>,
    /// Whether the helper is at work, and what it is opening.
    is_refilling: bool,
    opening: Option<Grant<u64>>,
}

impl Thread {
    pub(super) const fn new(is_there: bool) -> Self {
        let asked = Vec::new();
        Self { is_there, is_rung: true, sleeps_until: None, asked, is_refilling: false, opening: None }
    }
}

impl Play {
    /// A turn, up to where answers have to be waited for.
    pub(super) fn tend(&mut self) {
        if !self.thread.is_there || !self.thread.asked.is_empty() {
            return;
        }
        self.thread.is_rung = false;
        let mut fx = Effects::new();
        let Chores { probes, refill } = self.state.upkeep(self.book.now, &mut fx);
        assert!(!(refill && self.thread.is_refilling), "two refills at a time");
        self.thread.is_refilling |= refill;
        let is_done = probes.is_empty() && !refill && fx.is_empty();
        let now = self.book.now;
        // What the same turn has given up, or lent, is not among them.
        for held in &probes {
            let interval = self.book.probe_interval(held.record.host.0);
            self.book.take(held.record.id, false);
            let it = self.book.connections.get_mut(&held.record.id).expect("I7: what is asked is there");
            assert_eq!(it.place, Place::Idle, "I2: what is asked is idle");
            assert!(interval.is_some_and(|interval| it.heard + interval <= now), "asked too early");
            assert!(it.probes < 8, "asked too often");
            it.place = Place::Asked;
        }
        self.tally.asked += probes.len();
        self.thread.asked = probes;
        self.carry_out(None, fx);
        if !self.book.is_shut_down {
            let is_due = |id: &u64| {
                let it = &self.book.connections[id];
                self.book.probe_interval(it.host).is_some_and(|interval| it.heard + interval <= now)
            };
            let silent = self.book.all_idle().find(is_due);
            assert!(silent.is_none(), "connection {silent:?} is to be asked");
        }
        if is_done {
            self.thread.sleeps_until = self.state.alarm();
            // Else it would spin.
            assert!(self.state.alarm().is_none_or(|at| at > now), "the alarm rings for what cannot be done");
        } else {
            self.thread.is_rung = true;
        }
    }

    pub(super) fn answer(&mut self, at: usize, is_alive: bool) {
        let held = self.thread.asked.swap_remove(at);
        let now = self.book.now;
        let it = self.book.connections.get_mut(&held.record.id).unwrap();
        if is_alive && !it.is_dead {
            self.book.survived(held.record.id);
            let it = self.book.connections.get_mut(&held.record.id).unwrap();
            it.place = Place::Idle;
            it.heard = it.used.max(now);
            it.probed = Some(now);
            it.probes += 1;
            self.change(|state, now, fx| state.proved_alive(held, now, fx));
        } else {
            self.book.died(held.record.id);
            self.book.hang_up(held.record.id);
            self.change(|state, now, fx| state.vacate(&held.record, DiscardReason::KeepaliveFailure, now, fx));
        }
        // It goes on once it has all answers.
        self.thread.is_rung |= self.thread.asked.is_empty();
    }

    /// A step of the helper that opens in reserve.
    pub(super) fn reserve(&mut self, end: Connecting) {
        if !self.thread.is_refilling {
            return;
        }
        let Some(grant) = self.thread.opening.take() else {
            self.thread.opening = self.state.refill(self.book.now);
            match &self.thread.opening {
                None => self.end_refill(true),
                Some(grant) => {
                    let (host, id) = (grant.host.0, grant.id);
                    let book = &mut self.book;
                    assert!(!book.is_shut_down && book.no_reserve_before.is_none_or(|from| from <= book.now));
                    assert!(book.all_idle().count() < book.setup.min_idle, "more in reserve than asked for");
                    let overtaken = book.queue.iter().find(|it| !it.is_deaf && it.deadline > book.now);
                    assert!(overtaken.is_none(), "I6: opened in reserve while somebody waits");
                    book.begin(id, host, None, false);
                }
            }
            return;
        };
        match end {
            Connecting::Panics { .. } => {
                self.give_permit_back(grant);
                self.end_refill(false);
            }
            Connecting::Fails(blame) => {
                let others = self.fails(&grant, blame);
                let cools = super::health::HostBook::is_to_blame(blame, others);
                let mut goes_on = false;
                self.change(|state, now, fx| {
                    let failure = state.note_failure(&grant, blame, std::sync::Arc::from("no"), now, fx);
                    goes_on = state.refill_failed(failure, now, fx);
                });
                let expected = cools || self.book.is_outdated_refusal(grant.host.0, grant.generation, blame);
                assert_eq!(goes_on, expected, "whether the next one would fare better");
                if !goes_on {
                    self.book.delay_reserve(Setup::FIRST_PAUSE);
                    self.end_refill(true);
                }
            }
            Connecting::Succeeds => {
                if let Some(record) = self.opens(&grant) {
                    self.tally.reserve += 1;
                    self.pass_on(Gift::Connection(Held { connection: record.id, record }, Charge::default()));
                }
            }
        }
    }

    fn end_refill(&mut self, is_over: bool) {
        self.thread.is_refilling = false;
        if !is_over {
            self.book.delay_reserve(Setup::FIRST_PAUSE);
        }
        self.change(|state, now, fx| state.refill_ended(is_over, now, fx));
    }

    pub(super) fn end_thread(&mut self) {
        // It panics between its turns, or while it waits for answers: what it has in hand is broken.
        self.thread.is_there = false;
        while let Some(held) = self.thread.asked.pop() {
            self.book.hang_up(held.record.id);
            self.change(|state, now, fx| state.vacate(&held.record, DiscardReason::Broken, now, fx));
        }
        self.change(|state, _, fx| state.dismiss_thread(fx));
    }

    pub(super) fn finish_chores(&mut self) {
        while !self.thread.asked.is_empty() {
            self.answer(0, true);
        }
        if let Some(grant) = self.thread.opening.take() {
            self.give_permit_back(grant);
        }
        if self.thread.is_refilling {
            self.end_refill(true);
        }
    }

    /// The thread does not sleep past what is due.
    pub(super) fn check_thread(&self) {
        let retired = &self.state.upkeep.retired;
        assert!(self.thread.is_there || retired.is_empty(), "left to a thread that is not there");
        assert!(self.waiting.is_empty() || retired.is_empty(), "a place is kept from those who wait");
        if !self.thread.is_there || self.thread.is_rung || !self.thread.asked.is_empty() {
            return;
        }
        let left = (!retired.is_empty()).then_some(self.book.now);
        let dues = [left, self.book.care_due(), self.reserve_due(), self.told_due()];
        if let Some(due) = dues.into_iter().flatten().min().map(|due| due.max(self.book.latest)) {
            assert!(self.thread.sleeps_until.is_some_and(|at| at <= due), "the thread oversleeps {due:?}");
        }
    }

    fn reserve_due(&self) -> Option<Instant> {
        let book = &self.book;
        let is_asked_for = book.all_idle().count() < book.setup.min_idle
            && book.queue.is_empty()
            && book.standing_in_all() < book.setup.max_size;
        if self.thread.is_refilling || book.is_shut_down || !is_asked_for {
            return None;
        }
        book.reserve_due()
    }
}
