//! What the book knows of one host: its pauses (SPEC §7) and how many connections it takes.

use std::time::{Duration, Instant};

use super::steps::{HostSetup, Setup};
use crate::blame::Blame;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    Up,
    Pausing {
        until: Instant,
    },
    /// The pause is over, and the opening of this connection is the one try.
    Probed {
        by: u64,
        since: Instant,
    },
}

#[derive(Debug)]
pub(super) struct HostBook {
    pub(super) priority: u32,
    configured: Option<usize>,
    learned: Option<usize>,
    /// Messages delivered since `learned` was.
    deliveries: u32,
    pub(super) message_limit: Option<u32>,
    pub(super) health: Health,
    pub(super) failures: u32,
    rounds: i32,
    /// Whether it pauses because its credentials were refused.
    is_of_credentials: bool,
    /// How often its credentials were replaced.
    pub(super) generation: u64,
    is_exponential: bool,
}

/// The pause that is to be announced, between these two.
pub(super) type Pause = Option<(Duration, Duration)>;

impl HostBook {
    pub(super) fn new(host: &HostSetup, setup: &Setup) -> Self {
        Self {
            priority: host.priority,
            configured: host.max_connections,
            learned: None,
            deliveries: 0,
            message_limit: None,
            health: Health::Up,
            failures: 0,
            rounds: 0,
            is_of_credentials: false,
            generation: 0,
            is_exponential: setup.exponential,
        }
    }

    pub(super) fn limit(&self) -> usize {
        self.configured.unwrap_or(usize::MAX).min(self.learned.unwrap_or(usize::MAX))
    }

    /// The bound that nothing the server says raises.
    pub(super) fn hard_limit(&self) -> usize {
        self.configured.unwrap_or(usize::MAX)
    }

    /// Whether one may try to connect.
    pub(super) fn may_be_tried(&self, now: Instant) -> bool {
        match self.health {
            Health::Up => true,
            Health::Pausing { until } => until <= now,
            Health::Probed { .. } => false,
        }
    }

    /// Somebody begins to open a connection. True if that is the probe after a pause.
    pub(super) fn begun(&mut self, id: u64, now: Instant) -> bool {
        assert!(self.may_be_tried(now), "I10: {:?} does not allow connection {id} to be opened", self.health);
        if let Health::Pausing { until } = self.health {
            self.health = Health::Probed { by: id, since: until };
            return true;
        }
        false
    }

    /// It is there. True if that ends a pause.
    pub(super) fn opened(&mut self, live: usize) -> bool {
        if self.learned.is_some_and(|learned| learned < live) {
            self.learned = Some(live);
            self.deliveries = 0;
        }
        let was_up = self.health == Health::Up;
        self.health = Health::Up;
        self.failures = 0;
        self.rounds = 0;
        self.is_of_credentials = false;
        !was_up
    }

    /// The credentials are others. True if that ends a pause.
    pub(super) fn rotated(&mut self) -> bool {
        self.generation += 1;
        let ends = self.is_of_credentials;
        if ends {
            self.health = Health::Up;
            (self.failures, self.rounds, self.is_of_credentials) = (0, 0, false);
        }
        ends
    }

    /// The host is to blame for what happened to connection `id`: the pause that has to follow.
    pub(super) fn failed(&mut self, id: u64, blame: Blame, now: Instant) -> Pause {
        let is_lasting = matches!(blame, Blame::HostForLong | Blame::Credentials);
        self.failures += 1;
        let is_news = match self.health {
            Health::Up => true,
            Health::Probed { by, .. } => by == id,
            // Tries from before the pause tell nothing new, unless it is to be the longest.
            Health::Pausing { until } => is_lasting && now + Setup::LONGEST_PAUSE > until,
        };
        if !is_news {
            return None;
        }
        self.is_of_credentials = blame == Blame::Credentials;
        if !matches!(self.health, Health::Pausing { .. }) {
            self.rounds += 1;
        }
        if is_lasting {
            return Some((Setup::LONGEST_PAUSE, Setup::LONGEST_PAUSE));
        }
        let doubled = if self.is_exponential { 2_f64.powi(self.rounds - 1) } else { 1.0 };
        let pause = (Setup::FIRST_PAUSE.as_secs_f64() * doubled).min(Setup::LONGEST_PAUSE.as_secs_f64());
        let bound = |factor: f64| Duration::from_secs_f64(pause * factor).min(Setup::LONGEST_PAUSE);
        Some((bound(1.0 - Setup::JITTER), bound(1.0 + Setup::JITTER)))
    }

    pub(super) fn paused(&mut self, until: Instant) {
        self.health = Health::Pausing { until };
    }

    /// What came of connection `id` says nothing about the host: if it was the probe, there may be another.
    pub(super) fn abandoned(&mut self, id: u64) {
        if let Health::Probed { by, since } = self.health {
            if by == id {
                self.health = Health::Pausing { until: since };
            }
        }
    }

    pub(super) fn takes_no_more_than(&mut self, others: usize) {
        self.learned = Some(others);
        self.deliveries = 0;
    }

    /// A message went well; after a hundred it is worth asking for one connection more.
    pub(super) fn delivered(&mut self, max_size: usize) {
        let Some(learned) = self.learned else { return };
        self.deliveries += 1;
        if self.deliveries == 100 {
            self.deliveries = 0;
            let ceiling = self.configured.unwrap_or(max_size).min(max_size);
            self.learned = (learned + 1 < ceiling).then_some(learned + 1);
        }
    }

    /// Whether opening failed for its own sake.
    pub(super) fn is_to_blame(blame: Blame, others: usize) -> bool {
        match blame {
            Blame::Host | Blame::HostForLong | Blame::Credentials => true,
            Blame::Capacity => others == 0,
            Blame::Local | Blame::Nobody => false,
        }
    }
}
