//! What holds after every step, and when everything has come to rest.

use super::book::{Place, Verdict};
use super::play::{Play, Tally};
use super::steps::How;
use crate::stats::DiscardReason;

impl Play {
    /// What holds after every step.
    pub(super) fn check(&mut self) {
        self.check_told();
        let Self { book, state, .. } = &*self;
        let status = state.status(book.now);
        let standing = book.standing_in_all();
        assert!(standing <= book.setup.max_size, "I1: {standing} connections stand or are being opened");
        assert_eq!(status.counts.waiting, book.queue.len(), "who waits");
        for (host, told) in status.hosts.iter().enumerate() {
            let leased = book.count(host, &[Place::Leased, Place::Asked]);
            let expected = (book.count(host, &[Place::Idle]), leased, book.connecting(host));
            assert_eq!((told.idle, told.leased, told.connecting), expected, "host {host}: idle, leased, connecting");
            let (standing, limit) = (book.standing(host), book.hosts[host].hard_limit());
            assert!(standing <= limit, "I1: {standing} connections to host {host}, which is to have {limit}");
            assert!(self.health_is(host, told.state), "I10: {told:?}, not {:?}", book.hosts[host].health);
            let learned = (told.learned_connection_limit, told.learned_message_limit, told.learned_idle_limit);
            let it = &book.hosts[host];
            let expected = (it.learned(), it.message_limit(book.now), it.silence_limit(book.now));
            assert_eq!(learned, expected, "what was learned of host {host}");
            assert_eq!(told.consecutive_failures, book.hosts[host].failures, "failures of host {host}");
        }
        // I2: whatever is in somebody's hands is there for the book, once and in no other place.
        let asked = self.thread.asked.iter().map(|held| &held.record);
        let leased = self.leases.iter().map(|(record, _)| record).chain(asked).map(|record| record.id);
        let mut leased: Vec<u64> = leased.collect();
        leased.sort_unstable();
        let places = [Place::Leased, Place::Asked];
        let expected: Vec<u64> = book.ids(&places).collect();
        assert_eq!(leased, expected, "I2: what is lent");
        let mut idle: Vec<u64> = state.hosts.idle().map(|held| held.record.id).collect();
        idle.sort_unstable();
        assert!(idle.iter().copied().eq(book.ids(&[Place::Idle])), "I2: what is idle");
        let outdated = book.all_idle().find(|id| book.is_outdated(&book.connections[id]));
        assert!(outdated.is_none(), "connection {outdated:?} is kept for the next message, with credentials of before");
        let counted = (status.created, status.create_failures, status.exhausted);
        assert_eq!(counted, (book.created, book.failed, book.exhausted), "I19: created, failed, exhausted");
        for (reason, count) in status.discarded.iter() {
            assert_eq!(count, book.discarded.get(reason.as_str()).copied().unwrap_or(0), "I19: {reason}");
        }
        let live: usize = (0..book.hosts.len()).map(|host| book.live(host)).sum();
        assert_eq!(status.created, status.discarded.total() + live as u64, "I19");
        if !self.is_anybody_due() {
            self.check_waiters();
        }
        self.check_thread();
    }

    /// I3, I4: whoever waits cannot be served, and has something to wait for.
    fn check_waiters(&self) {
        for caller in self.book.queue.iter().filter(|it| !it.is_deaf && it.deadline > self.book.now) {
            let verdict = self.book.verdict(&caller.wish, caller.deadline);
            assert_eq!(verdict, Verdict::Waits, "I4: caller {} waits", caller.ticket);
        }
    }

    /// I17: faults stop, everybody ends what they are at, and nothing is left.
    pub(super) fn come_to_rest(mut self) -> Tally {
        self.tell(|| "-- everything comes to rest".to_owned());
        for caller in &mut self.book.queue {
            caller.is_deaf = false;
        }
        for _ in 0..1000 {
            self.pass(1);
            self.wake();
            while let Some((record, _)) = self.leases.pop() {
                self.end(record, How::Refused);
            }
            while let Some((grant, _)) = self.permits.pop() {
                self.give_permit_back(grant);
            }
            self.finish_chores();
            while !self.closing.is_empty() {
                self.close(0);
            }
            if self.waiting.is_empty() && self.leases.is_empty() && self.permits.is_empty() {
                break;
            }
        }
        self.check();
        let counts = self.state.counts();
        assert_eq!((counts.leased, counts.connecting, counts.waiting), (0, 0, 0), "I17: {counts}");
        assert!(self.state.is_drained() || !self.state.upkeep.retired.is_empty(), "I17: {counts}");
        self.step(&super::steps::Step::ShutDown);
        while !self.closing.is_empty() {
            self.close(0);
        }
        self.check();
        assert!(self.state.is_drained() && self.book.connections.is_empty(), "I17: something is left");
        let status = self.state.status(self.book.now);
        assert_eq!(status.created, status.discarded.total(), "I19");
        assert!(status.discarded.of(DiscardReason::Shutdown) <= status.created);
        self.tally
    }
}
