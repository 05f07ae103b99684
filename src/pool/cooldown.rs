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
    /// The same, until the credentials are others.
    Credentials,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Open,
    Cooling {
        until: Instant,
        /// Whether it has been noticed that it is that late.
        is_over: bool,
    },
    /// The cooldown ended at `until`, and the opening of connection `id` is the one try.
    Probing {
        until: Instant,
        id: u64,
    },
}

/// What observers are told of one host's cooldown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Available,
    CoolingDown,
    Probing,
}

/// Whether connections to one host may be opened.
#[derive(Debug)]
pub(super) struct Cooldown {
    phase: Phase,
    /// Whether the pause is there for the credentials' sake.
    is_of_credentials: bool,
    /// Cooldowns entered since the last success.
    rounds: u32,
    /// Failures since the last success, those included that began no new cooldown.
    failures: u32,
    /// Whether the failure that the pause is for will not pass by itself.
    is_lasting: bool,
}

impl Cooldown {
    pub(super) const fn new() -> Self {
        Self { phase: Phase::Open, is_of_credentials: false, rounds: 0, failures: 0, is_lasting: false }
    }

    /// Whether one more connection may be opened now.
    pub(super) fn may_open(&self, now: Instant) -> bool {
        match self.phase {
            Phase::Open => true,
            Phase::Cooling { until, .. } => until <= now,
            Phase::Probing { .. } => false,
        }
    }

    /// Whether nothing has failed since the last success.
    pub(super) const fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Connection `id` is being opened; the first one after a cooldown is the probe, and bars all others.
    pub(super) const fn begin(&mut self, id: u64) {
        if let Phase::Cooling { until, .. } = self.phase {
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
            Phase::Cooling { until, .. } => Some(until),
            Phase::Probing { .. } => return None,
        };
        match (until, severity) {
            (Some(_), Severity::Passing) => {}
            (_, severity) => self.is_lasting = severity != Severity::Passing,
        }
        let pause = match (until, severity) {
            (Some(_), Severity::Passing) => return None,
            (Some(until), _) if Deadline::at(now, schedule.longest).instant() <= until => return None,
            (Some(_), _) => schedule.longest,
            (None, severity) => {
                self.rounds = self.rounds.saturating_add(1);
                match severity {
                    Severity::Passing => schedule.pause(self.rounds, rng),
                    Severity::Lasting | Severity::Credentials => schedule.longest,
                }
            }
        };
        self.is_of_credentials = severity == Severity::Credentials;
        self.phase = Phase::Cooling { until: Deadline::at(now, pause).instant(), is_over: false };
        Some(pause)
    }

    /// The credentials are others now. True if that ended a pause: one for the sake of the old ones, as if they had never failed.
    pub(super) const fn credentials_rotated(&mut self) -> bool {
        let ends = self.is_of_credentials;
        if ends {
            *self = Self::new();
        }
        ends
    }

    /// Opening connection `id` ended without telling anything about the host: if it was the probe, the next may probe.
    pub(super) const fn abandoned(&mut self, id: u64) {
        if let Phase::Probing { until, id: probe } = self.phase {
            if probe == id {
                // Nothing was tried before it was over.
                self.phase = Phase::Cooling { until, is_over: true };
            }
        }
    }

    /// When the current pause ends or ended, if nobody has taken it up.
    pub(super) const fn end(&self) -> Option<Instant> {
        match self.phase {
            Phase::Cooling { until, .. } => Some(until),
            Phase::Open | Phase::Probing { .. } => None,
        }
    }

    /// Failures since the last success.
    pub(super) const fn failures(&self) -> u32 {
        self.failures
    }

    /// What may have become of it by the passing of time alone is noticed.
    pub(super) fn notice(&mut self, now: Instant) {
        if let Phase::Cooling { until, is_over } = &mut self.phase {
            *is_over |= *until <= now;
        }
    }

    /// When there is something to be noticed.
    pub(super) const fn unnoticed_end(&self) -> Option<Instant> {
        match self.phase {
            Phase::Cooling { until, is_over: false } => Some(until),
            Phase::Cooling { .. } | Phase::Open | Phase::Probing { .. } => None,
        }
    }

    /// As far as has been noticed.
    pub(super) const fn standing(&self) -> Standing {
        match self.phase {
            Phase::Probing { .. } => Standing::Probing,
            Phase::Cooling { is_over: false, .. } => Standing::CoolingDown,
            Phase::Cooling { .. } | Phase::Open => Standing::Available,
        }
    }

    /// Whether it will not work again by itself.
    pub(super) const fn is_lasting(&self) -> bool {
        self.is_lasting
    }

    /// As operators see it.
    pub(super) fn state(&self, now: Instant) -> HostState {
        match self.phase {
            Phase::Probing { .. } => HostState::Probing,
            Phase::Cooling { until, .. } if until > now => HostState::CoolingDown { until },
            Phase::Cooling { .. } | Phase::Open => HostState::Available,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::now as dawn;

    const SECOND: Duration = Duration::from_secs(1);

    fn schedule(jitter: f64, exponential: bool) -> Schedule {
        Schedule { first: SECOND * 30, longest: SECOND * 300, exponential, jitter }
    }

    /// Fails one try after another, each begun when the pause before was over.
    fn rounds(schedule: &Schedule, seed: u64) -> Vec<Duration> {
        let (mut cooldown, mut rng, mut now) = (Cooldown::new(), Rng::with_seed(seed), dawn());
        (0..7)
            .map(|id| {
                assert!(cooldown.may_open(now));
                cooldown.begin(id);
                let pause = cooldown.failed(id, Severity::Passing, now, schedule, &mut rng).unwrap();
                assert!(!cooldown.may_open(now + pause - Duration::from_nanos(1)));
                now += pause;
                pause
            })
            .collect()
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let seconds: Vec<_> = rounds(&schedule(0.0, true), 1).iter().map(Duration::as_secs).collect();
        assert_eq!(seconds, [30, 60, 120, 240, 300, 300, 300]);
        assert!(rounds(&schedule(0.0, false), 1).iter().all(|&pause| pause == SECOND * 30));
    }

    #[test]
    fn jitter_stays_within_its_ratio_and_below_the_longest() {
        let mut first = Vec::new();
        for seed in 0..200 {
            let pauses = rounds(&schedule(0.2, true), seed);
            first.push(pauses[0]);
            assert!(pauses[0] >= SECOND * 24 && pauses[0] <= SECOND * 36, "{pauses:?}");
            assert!(pauses.iter().all(|&pause| pause <= SECOND * 300), "{pauses:?}");
        }
        assert!(first.iter().max() > Some(&(SECOND * 34)) && first.iter().min() < Some(&(SECOND * 26)));
    }

    #[test]
    fn success_forgets_all_failures() {
        let (mut cooldown, mut rng, now) = (Cooldown::new(), Rng::with_seed(1), dawn());
        let schedule = schedule(0.0, true);
        cooldown.failed(1, Severity::Lasting, now, &schedule, &mut rng);
        assert!(cooldown.succeeded());
        assert!(!cooldown.succeeded());
        assert_eq!((cooldown.failures(), cooldown.is_lasting()), (0, false));
        assert_eq!(cooldown.failed(2, Severity::Passing, now, &schedule, &mut rng), Some(SECOND * 30));
    }

    #[test]
    fn only_a_pause_for_the_credentials_sake_ends_with_their_rotation() {
        let schedule = schedule(0.0, true);
        for (severity, ends) in [(Severity::Passing, false), (Severity::Lasting, false), (Severity::Credentials, true)]
        {
            let (mut cooldown, mut rng, now) = (Cooldown::new(), Rng::with_seed(1), dawn());
            cooldown.failed(1, severity, now, &schedule, &mut rng);
            assert_eq!(cooldown.credentials_rotated(), ends, "{severity:?}");
            assert_eq!(cooldown.may_open(now), ends, "{severity:?}");
            assert!(!cooldown.credentials_rotated());
        }
        // Whoever was just trying had the old ones.
        let (mut cooldown, mut rng, now) = (Cooldown::new(), Rng::with_seed(1), dawn());
        cooldown.failed(1, Severity::Credentials, now, &schedule, &mut rng);
        cooldown.begin(2);
        assert!(cooldown.credentials_rotated());
        cooldown.abandoned(2);
        assert!(cooldown.may_open(now) && cooldown.is_open());
    }

    #[test]
    fn a_straggler_prolongs_a_cooldown_only_with_worse_news() {
        let (mut cooldown, mut rng, now) = (Cooldown::new(), Rng::with_seed(1), dawn());
        let schedule = schedule(0.0, true);
        assert_eq!(cooldown.failed(1, Severity::Passing, now, &schedule, &mut rng), Some(SECOND * 30));
        assert_eq!(cooldown.failed(2, Severity::Passing, now + SECOND, &schedule, &mut rng), None);
        assert_eq!(cooldown.end(), Some(now + SECOND * 30));
        assert_eq!(cooldown.failed(3, Severity::Lasting, now, &schedule, &mut rng), Some(SECOND * 300));
        assert_eq!(cooldown.failed(4, Severity::Lasting, now, &schedule, &mut rng), None);
        assert!(cooldown.is_lasting());
        assert_eq!(cooldown.failed(6, Severity::Passing, now, &schedule, &mut rng), None);
        assert!(cooldown.is_lasting(), "nothing new");
        // A straggler is not the probe, and does not end it.
        cooldown.begin(9);
        assert_eq!(cooldown.failed(5, Severity::Passing, now, &schedule, &mut rng), None);
        assert!(matches!(cooldown.state(now), HostState::Probing));
        cooldown.abandoned(5);
        assert!(matches!(cooldown.state(now), HostState::Probing));
    }
}
