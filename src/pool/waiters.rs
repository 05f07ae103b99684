//! Who waits: two lanes, each in order of arrival, and which of them goes first.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::lane::Lane;
use crate::pool::errand::{Errand, Ticket};
use crate::pool::slot::Slot;

/// After so many interactive callers in a row were served with what a waiting bulk caller could have had, bulk goes first
/// once. Few enough that bulk goes on at a ninth of the pace at least, and many enough that who is in a hurry hardly feels it.
pub(super) const OVERTAKINGS: u32 = 8;

/// One waiting caller.
#[derive(Debug)]
pub(super) struct Waiter<T> {
    pub(super) errand: Errand,
    pub(super) slot: Arc<Slot<T>>,
}

/// The queue, each lane of it ordered by ticket. Who is not in it has been given something or has left, and is given nothing
/// more.
#[derive(Debug)]
pub(super) struct Waiters<T> {
    lanes: [VecDeque<Waiter<T>>; 2],
    /// Those that not just anything will do for.
    particular: usize,
    /// Turns that bulk, which waits, was passed over for since it last had one.
    overtaken: u32,
}

impl<T> Waiters<T> {
    pub(super) const fn new() -> Self {
        Self { lanes: [VecDeque::new(), VecDeque::new()], particular: 0, overtaken: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.lanes.iter().map(VecDeque::len).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lanes.iter().all(VecDeque::is_empty)
    }

    /// Whether all of them are plain.
    pub(super) const fn are_plain(&self) -> bool {
        self.particular == 0
    }

    /// The one that came first, whatever its lane.
    pub(super) fn head(&self) -> Option<&Waiter<T>> {
        self.lanes.iter().filter_map(VecDeque::front).min_by_key(|waiter| waiter.errand.ticket)
    }

    pub(super) fn get(&self, lane: Lane, position: usize) -> Option<&Waiter<T>> {
        self.lanes[lane as usize].get(position)
    }

    /// Which lane is served first.
    pub(super) const fn order(&self) -> [Lane; 2] {
        match self.overtaken < OVERTAKINGS {
            true => [Lane::Interactive, Lane::Bulk],
            false => [Lane::Bulk, Lane::Interactive],
        }
    }

    /// Whether somebody waits who goes before this one.
    #[inline]
    pub(super) fn has_senior(&self, errand: &Errand) -> bool {
        let own = errand.request.lane;
        let came_earlier = |waiter: &Waiter<T>| waiter.errand.ticket < errand.ticket;
        let [first, _] = self.order();
        self.lanes[own as usize].front().is_some_and(came_earlier)
            || (first != own && !self.lanes[first as usize].is_empty())
    }

    /// Whether a bulk caller waits.
    pub(super) fn has_bulk(&self) -> bool {
        !self.lanes[Lane::Bulk as usize].is_empty()
    }

    /// An interactive caller was served, and bulk could have been.
    pub(super) const fn note_overtaking(&mut self) {
        self.overtaken = self.overtaken.saturating_add(1);
    }

    /// A bulk caller was served.
    pub(super) const fn note_bulk_turn(&mut self) {
        self.overtaken = 0;
    }

    /// Joins where the ticket belongs in its lane: at the end for a newcomer, ahead of later arrivals for one that comes back.
    pub(super) fn join(&mut self, errand: Errand) -> Arc<Slot<T>> {
        let slot = Arc::new(Slot::new());
        self.particular += usize::from(!errand.is_plain());
        let position = self.position(errand.request.lane, errand.ticket);
        let waiter = Waiter { slot: Arc::clone(&slot), errand };
        self.lanes[waiter.errand.request.lane as usize].insert(position, waiter);
        slot
    }

    /// Takes out the one at `position`.
    pub(super) fn remove_at(&mut self, lane: Lane, position: usize) -> Option<Waiter<T>> {
        let waiter = self.lanes[lane as usize].remove(position)?;
        self.particular -= usize::from(!waiter.errand.is_plain());
        if !self.has_bulk() {
            // Nobody is passed over.
            self.overtaken = 0;
        }
        Some(waiter)
    }

    /// Takes out the one with `ticket`, if it still waits.
    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<Waiter<T>> {
        self.order().into_iter().find_map(|lane| {
            let position = self.position(lane, ticket);
            let is_there = self.get(lane, position).is_some_and(|waiter| waiter.errand.ticket == ticket);
            if is_there { self.remove_at(lane, position) } else { None }
        })
    }

    /// Takes out whoever is next.
    pub(super) fn pop(&mut self) -> Option<Waiter<T>> {
        self.order().into_iter().find_map(|lane| self.remove_at(lane, 0))
    }

    fn position(&self, lane: Lane, ticket: Ticket) -> usize {
        self.lanes[lane as usize].partition_point(|waiter| waiter.errand.ticket < ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Deadline;
    use crate::clock::now as dawn;
    use crate::pool::errand::Request;

    fn errand(ticket: u64, fresh: bool, lane: Lane) -> Errand {
        Errand::new(Ticket(ticket), Request { fresh, lane, ..Request::by(Deadline::on(dawn())) })
    }

    #[test]
    fn whoever_comes_back_stands_where_it_stood() {
        let mut waiters: Waiters<()> = Waiters::new();
        for ticket in [3, 5, 9, 4] {
            waiters.join(errand(ticket, false, Lane::Interactive));
        }
        let has_senior = |ticket| waiters.has_senior(&errand(ticket, false, Lane::Interactive));
        assert!(has_senior(4) && !has_senior(3));
        assert!(waiters.remove(Ticket(6)).is_none());
        assert!(waiters.remove(Ticket(5)).is_some());
        let order: Vec<_> = std::iter::from_fn(|| waiters.pop()).map(|waiter| waiter.errand.ticket.0).collect();
        assert_eq!(order, [3, 4, 9]);
    }

    #[test]
    fn the_particular_ones_are_counted() {
        let mut waiters: Waiters<()> = Waiters::new();
        waiters.join(errand(1, false, Lane::Bulk));
        assert!(waiters.are_plain());
        waiters.join(errand(2, true, Lane::Interactive));
        assert!(!waiters.are_plain());
        waiters.remove(Ticket(2));
        assert!(waiters.are_plain());
    }

    #[test]
    fn bulk_lets_interactive_go_first_until_it_has_grown_old() {
        let mut waiters: Waiters<()> = Waiters::new();
        waiters.join(errand(1, false, Lane::Bulk));
        waiters.join(errand(2, false, Lane::Interactive));
        assert!(!waiters.has_senior(&errand(2, false, Lane::Interactive)));
        assert!(waiters.has_senior(&errand(1, false, Lane::Bulk)));
        assert_eq!(waiters.head().map(|head| head.errand.ticket), Some(Ticket(1)), "who came first watches the clock");
        for _ in 0..OVERTAKINGS {
            assert_eq!(waiters.order(), [Lane::Interactive, Lane::Bulk]);
            waiters.note_overtaking();
        }
        assert_eq!(waiters.order(), [Lane::Bulk, Lane::Interactive]);
        assert!(waiters.has_senior(&errand(2, false, Lane::Interactive)));
        assert!(!waiters.has_senior(&errand(1, false, Lane::Bulk)));
        // With nobody left in it, the lane is no older than a new one.
        waiters.remove(Ticket(1));
        assert_eq!(waiters.order(), [Lane::Interactive, Lane::Bulk]);
    }
}
