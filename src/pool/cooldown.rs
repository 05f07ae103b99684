//! When a host that failed may be tried again.

use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::clock::Deadline;
use crate::stats::HostState;

/// How long to pause.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    pub(super) first: Duration,
    pub(super) longest: Duration,
    pub(super) exponential: bool,
    pub(super) jitter: f64,
}

impl Schedule {
    /// The pause after the `round`th failure in a row, counted from one. Never above the longest.
    fn pause(&self, round: u32, rng: &mut Rng) -> Duration {
        let doublings = if self.exponential { round.saturating_sub(1).min(31) } else { 0 };
        let pause = self.first.saturating_mul(1 << doublings).min(self.longest);
        // Pools that saw the same outage must not come back in step.
        let factor = (rng.f64() * 2.0 - 1.0).mul_add(self.jitter, 1.0);
        Duration::try_from_secs_f64(pause.as_secs_f64() * factor).unwrap_or(pause).min(self.longest)
    }
}

/// How bad a failure was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Severity {
    /// It may be over soon.
    Passing,
    /// It will not pass by itself: the longest pause at once.
    Lasting,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Open,
    Cooling {
        until: Instant,
    },
    /// The cooldown ended at `until`, and the opening of connection `id` is the one try.
    Probing {
        until: Instant,
        id: u64,
    },
}

/// Whether connections to one host may be opened.
#[derive(Debug)]
pub(super) struct Cooldown {
    phase: Phase,
    /// Cooldowns entered since the last success.
    rounds: u32,
    /// Failures since the last success, those included that began no new cooldown.
    failures: u32,
}

impl Cooldown {
    pub(super) const fn new() -> Self {
        Self { phase: Phase::Open, rounds: 0, failures: 0 }
    }

    /// Whether one more connection may be opened now.
    pub(super) fn may_open(&self, now: Instant) -> bool {
        match self.phase {
            Phase::Open => true,
            Phase::Cooling { until } => until <= now,
            Phase::Probing { .. } => false,
        }
    }

    /// Connection `id` is being opened; the first one after a cooldown is the probe, and bars all others.
    pub(super) const fn begin(&mut self, id: u64) {
        if let Phase::Cooling { until } = self.phase {
            self.phase = Phase::Probing { until, id };
        }
    }

    /// A connection was opened. True if that ended a cooldown.
    pub(super) const fn succeeded(&mut self) -> bool {
        let was_open = matches!(self.phase, Phase::Open);
        *self = Self::new();
        !was_open
    }

    /// Opening connection `id` failed. Returns the pause if a new one began, or the one there was grew.
    pub(super) fn failed(
        &mut self,
        id: u64,
        severity: Severity,
        now: Instant,
        schedule: &Schedule,
        rng: &mut Rng,
    ) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        let until = match self.phase {
            Phase::Open => None,
            Phase::Probing { id: probe, .. } if probe == id => None,
            // Nothing can begin while it cools, and only the probe while it probes: this try is from before, and what
            // it tells has been told.
            Phase::Cooling { until } => Some(until),
            Phase::Probing { .. } => return None,
        };
        let pause = match (until, severity) {
            (Some(_), Severity::Passing) => return None,
            (Some(until), Severity::Lasting) if Deadline::at(now, schedule.longest).instant() <= until => return None,
            (Some(_), Severity::Lasting) => schedule.longest,
            (None, severity) => {
                self.rounds = self.rounds.saturating_add(1);
                match severity {
                    Severity::Passing => schedule.pause(self.rounds, rng),
                    Severity::Lasting => schedule.longest,
                }
            }
        };
        self.phase = Phase::Cooling { until: Deadline::at(now, pause).instant() };
        Some(pause)
    }

    /// Opening connection `id` ended without telling anything about the host: if it was the probe, the next may probe.
    pub(super) const fn abandoned(&mut self, id: u64) {
        if let Phase::Probing { until, id: probe } = self.phase {
            if probe == id {
                self.phase = Phase::Cooling { until };
            }
        }
    }

    /// When the current pause ends or ended, if nobody has taken it up.
    pub(super) const fn end(&self) -> Option<Instant> {
        match self.phase {
            Phase::Cooling { until } => Some(until),
            Phase::Open | Phase::Probing { .. } => None,
        }
    }

    /// Failures since the last success.
    pub(super) const fn failures(&self) -> u32 {
        self.failures
    }

    /// As operators see it.
    pub(super) fn state(&self, now: Instant) -> HostState {
        match self.phase {
            Phase::Probing { .. } => HostState::Probing,
            Phase::Cooling { until } if until > now => HostState::CoolingDown { until },
            Phase::Cooling { .. } | Phase::Open => HostState::Available,
        }
    }
}
