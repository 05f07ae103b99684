//! Who waits, in order of arrival.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::pool::errand::{Errand, Ticket};
use crate::pool::slot::Slot;

/// One waiting caller.
#[derive(Debug)]
pub(super) struct Waiter<T> {
    pub(super) errand: Errand,
    pub(super) slot: Arc<Slot<T>>,
}

/// The queue, ordered by ticket. Who is not in it has been given something or has left, and is given nothing more.
#[derive(Debug)]
pub(super) struct Waiters<T> {
    queue: VecDeque<Waiter<T>>,
    /// Those that not just anything will do for.
    particular: usize,
}

impl<T> Waiters<T> {
    pub(super) const fn new() -> Self {
        Self { queue: VecDeque::new(), particular: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether all of them are plain.
    pub(super) const fn are_plain(&self) -> bool {
        self.particular == 0
    }

    pub(super) fn head(&self) -> Option<&Waiter<T>> {
        self.queue.front()
    }

    pub(super) fn get(&self, position: usize) -> Option<&Waiter<T>> {
        self.queue.get(position)
    }

    /// Whether somebody waits who came before `ticket`.
    pub(super) fn has_senior(&self, ticket: Ticket) -> bool {
        self.head().is_some_and(|head| head.errand.ticket < ticket)
    }

    /// Joins where the ticket belongs: at the end for a newcomer, ahead of later arrivals for one that comes back.
    pub(super) fn join(&mut self, errand: Errand) -> Arc<Slot<T>> {
        let slot = Arc::new(Slot::new());
        self.particular += usize::from(!errand.is_plain());
        let position = self.position(errand.ticket);
        self.queue.insert(position, Waiter { errand, slot: Arc::clone(&slot) });
        slot
    }

    /// Takes out the one at `position`.
    pub(super) fn remove_at(&mut self, position: usize) -> Option<Waiter<T>> {
        let waiter = self.queue.remove(position)?;
        self.particular -= usize::from(!waiter.errand.is_plain());
        Some(waiter)
    }

    /// Takes out the one with `ticket`, if it still waits.
    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<Waiter<T>> {
        let position = self.position(ticket);
        if self.queue.get(position)?.errand.ticket == ticket { self.remove_at(position) } else { None }
    }

    fn position(&self, ticket: Ticket) -> usize {
        self.queue.partition_point(|waiter| waiter.errand.ticket < ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Deadline;
    use crate::clock::now as dawn;
    use crate::pool::errand::Request;

    fn errand(ticket: u64, fresh: bool) -> Errand {
        Errand::new(Ticket(ticket), Request { fresh, ..Request::by(Deadline::on(dawn())) })
    }

    #[test]
    fn whoever_comes_back_stands_where_it_stood() {
        let mut waiters: Waiters<()> = Waiters::new();
        for ticket in [3, 5, 9, 4] {
            waiters.join(errand(ticket, false));
        }
        assert!(waiters.has_senior(Ticket(4)) && !waiters.has_senior(Ticket(3)));
        assert!(waiters.remove(Ticket(6)).is_none());
        assert!(waiters.remove(Ticket(5)).is_some());
        let order: Vec<_> = std::iter::from_fn(|| waiters.remove_at(0)).map(|waiter| waiter.errand.ticket.0).collect();
        assert_eq!(order, [3, 4, 9]);
    }

    #[test]
    fn the_particular_ones_are_counted() {
        let mut waiters: Waiters<()> = Waiters::new();
        waiters.join(errand(1, false));
        assert!(waiters.are_plain());
        waiters.join(errand(2, true));
        assert!(!waiters.are_plain());
        waiters.remove(Ticket(2));
        assert!(waiters.are_plain());
    }
}
