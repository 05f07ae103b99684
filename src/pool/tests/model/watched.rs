//! What observers are told: all changes together come to what the status shows, whatever the order.

use std::time::Instant;

use super::health::Health;
use super::play::Play;
use crate::pool::effects::Effects;
use crate::pool::levels::Change;
use crate::stats::HostState;

/// What an observer has that only ever adds.
#[derive(Debug, Default)]
pub(super) struct Sums {
    hosts: Vec<HostSums>,
    waiting: i64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct HostSums {
    idle: i64,
    leased: i64,
    connecting: i64,
    /// Available, cooling down, probing.
    state: [i64; 3],
}

impl Sums {
    pub(super) fn new(hosts: usize) -> Self {
        Self { hosts: vec![HostSums::default(); hosts], waiting: 0 }
    }

    fn add(&mut self, change: Change) {
        match change {
            Change::Waiters(by) => self.waiting += i64::from(by),
            Change::Levels(host, by) => {
                let sums = &mut self.hosts[host.0];
                sums.idle += i64::from(by.idle);
                sums.leased += i64::from(by.leased);
                sums.connecting += i64::from(by.connecting);
                for (sum, by) in sums.state.iter_mut().zip([by.available, by.cooling_down, by.probing]) {
                    *sum += i64::from(by);
                }
            }
        }
    }
}

impl Play {
    /// What the lock does at the end of each decision.
    pub(super) fn watch(&mut self, fx: &mut Effects<u64>) {
        self.state.note_changes(fx);
        let changes: Vec<Change> =
            std::mem::replace(&mut fx.changes, crate::pool::levels::Changes::NONE).into_iter().collect();
        assert!(self.told.is_some() || changes.is_empty(), "told to nobody");
        if let Some(sums) = &mut self.told {
            changes.into_iter().for_each(|change| sums.add(change));
        }
    }

    pub(super) fn check_told(&mut self) {
        // A decision that leaves nothing to be carried out changes something all the same.
        let mut fx = Effects::new();
        self.watch(&mut fx);
        self.thread.is_rung |= fx.ring;
        let Some(sums) = &self.told else { return };
        // Callers may have looked at the clock a little earlier than whoever noticed the end of a pause.
        let status = self.state.status(self.book.latest);
        assert_eq!(sums.waiting, status.counts.waiting as i64, "waiting, as told");
        for (host, (sums, status)) in sums.hosts.iter().zip(&status.hosts).enumerate() {
            let counts = [status.idle, status.leased, status.connecting].map(|count| count as i64);
            assert_eq!([sums.idle, sums.leased, sums.connecting], counts, "host {host}, as told");
            let expected = match status.state {
                _ if self.book.is_shut_down => [0, 0, 0],
                HostState::CoolingDown { .. } => [0, 1, 0],
                HostState::Probing => [0, 0, 1],
                // Time has passed, and the thread is to notice: `told_due`.
                HostState::Available if sums.state == [0, 1, 0] && self.pause_end(host).is_some() => continue,
                HostState::Available => [1, 0, 0],
            };
            assert_eq!(sums.state, expected, "the state of host {host}, as told");
        }
    }

    fn pause_end(&self, host: usize) -> Option<Instant> {
        match self.book.hosts[host].health {
            Health::Pausing { until } => Some(until),
            Health::Up | Health::Probed { .. } => None,
        }
    }

    /// When a pause ends that is told to go on.
    pub(super) fn told_due(&self) -> Option<Instant> {
        let sums = self.told.as_ref()?;
        let cooling = (0..sums.hosts.len()).filter(|&host| sums.hosts[host].state == [0, 1, 0]);
        cooling.filter_map(|host| self.pause_end(host)).min()
    }
}
