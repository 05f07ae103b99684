//! What a host was seen to put up with: so many connections, so many messages a session, so long a silence.
//!
//! None of it is announced, all of it is concluded from refusals and broken sessions, and a server's policy changes: so it takes
//! more than an accident to conclude it, and nothing is believed for ever.

use std::time::{Duration, Instant};

use crate::clock::Deadline;
use crate::endpoint::HostId;
use crate::pool::Limits;
use crate::pool::connector::Close;
use crate::pool::effects::{Effects, Event};
use crate::pool::held::Record;
use crate::pool::state::PoolState;
use crate::stats::DiscardReason;

/// How to learn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Learning {
    /// How long something is believed that nothing has confirmed since.
    pub(crate) lasts: Duration,
    /// A shorter silence is not learned: no server hangs up so soon, but many a connection dies young when a server restarts.
    pub(crate) shortest_silence: Duration,
}

/// How many connections a host may have.
#[derive(Debug)]
pub(super) struct Capacity {
    configured: Option<usize>,
    /// None: what is seen is kept to for `pause`, and then forgotten.
    learning: Option<Learning>,
    pause: Duration,
    /// What the host itself was seen to allow.
    seen: Option<usize>,
    /// What it last refused to go beyond.
    refused: Option<usize>,
    /// Messages delivered since the seen bound last changed.
    returns: u32,
    /// After so many of them, it is worth finding out whether the host allows one more.
    patience: u32,
    /// By then it is, however few they are.
    until: Option<Instant>,
}

impl Capacity {
    const PATIENCE: u32 = 100;
    const LONGEST_PATIENCE: u32 = Self::PATIENCE << 10;

    pub(super) const fn new(configured: Option<usize>, limits: &Limits) -> Self {
        Self {
            configured,
            learning: limits.learning,
            pause: limits.reconnect_cooldown,
            seen: None,
            refused: None,
            returns: 0,
            patience: Self::PATIENCE,
            until: None,
        }
    }

    pub(super) fn limit(&self) -> Option<usize> {
        match (self.configured, self.seen) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    pub(super) fn learned(&self) -> Option<usize> {
        self.learning.and(self.seen)
    }

    /// The host refused one more than `live`. Each time it says the same again, it is asked after twice as many messages.
    pub(super) fn refused_beyond(&mut self, live: usize, now: Instant) {
        let bound = live.max(1);
        let is_old_news = self.refused == Some(bound);
        self.patience = if is_old_news { (self.patience * 2).min(Self::LONGEST_PATIENCE) } else { Self::PATIENCE };
        self.refused = Some(bound);
        self.set(Some(bound), now);
    }

    /// The host has `live` of them: a lower bound was wrong.
    pub(super) fn allows(&mut self, live: usize) {
        if self.seen.is_some_and(|seen| seen < live) {
            self.seen = Some(live);
            self.returns = 0;
            self.patience = Self::PATIENCE;
        }
    }

    /// One more message went well. `max_size` is the bound of the whole pool, which needs no second one as high.
    pub(super) fn delivered(&mut self, max_size: usize, now: Instant) {
        let Some(seen) = self.seen else { return };
        let is_over = self.until.is_some_and(|until| until <= now);
        self.returns = self.returns.saturating_add(1);
        if self.learning.is_none() {
            self.seen = Some(seen).filter(|_| !is_over);
        } else if is_over || self.returns >= self.patience {
            let ceiling = self.configured.map_or(max_size, |configured| configured.min(max_size));
            self.set(Some(seen + 1).filter(|&raised| raised < ceiling), now);
        }
    }

    fn set(&mut self, seen: Option<usize>, now: Instant) {
        let lasts = self.learning.map_or(self.pause, |learning| learning.lasts);
        self.seen = seen;
        self.returns = 0;
        self.until = Some(Deadline::at(now, lasts).instant());
    }
}

/// Something believed for a while.
#[derive(Debug, Clone, Copy)]
struct Belief<V> {
    value: V,
    until: Instant,
}

impl<V: Copy> Belief<V> {
    fn new(value: V, now: Instant, learning: Learning) -> Self {
        Self { value, until: Deadline::at(now, learning.lasts).instant() }
    }
}

fn held_by<V: Copy>(belief: Option<Belief<V>>, now: Instant) -> Option<V> {
    belief.filter(|belief| now < belief.until).map(|belief| belief.value)
}

/// How many messages a session may carry.
#[derive(Debug, Default)]
pub(super) struct MessageLimit(Option<Belief<u32>>);

impl MessageLimit {
    pub(super) fn get(&self, now: Instant) -> Option<u32> {
        held_by(self.0, now)
    }

    fn learn(&mut self, messages: u32, now: Instant, learning: Learning) -> u32 {
        let limit = self.get(now).map_or(messages, |known| known.min(messages)).max(1);
        self.0 = Some(Belief::new(limit, now, learning));
        limit
    }
}

/// How long a connection may be silent.
///
/// A connection that its server has ended was silent for as long as the server puts up with, or longer; or it came to grief in
/// another way, a restart first of all. So it takes three of them, each silent only after the one before was found, and none
/// that lived through as long a silence meanwhile. All three agree on the longest of their silences, no less.
#[derive(Debug, Default)]
pub(super) struct SilenceLimit {
    learned: Option<Belief<Duration>>,
    /// The silences of those that were found dead, as many as do not make a rule yet.
    deaths: Vec<Duration>,
    /// When the last of them was found.
    found: Option<Instant>,
}

impl SilenceLimit {
    const ENOUGH: usize = 3;

    /// How long a connection may be silent: well short of what has been seen to be too long.
    pub(super) fn get(&self, now: Instant) -> Option<Duration> {
        held_by(self.learned, now)
    }

    /// A connection was found dead after so long a silence. Returns the limit, if that makes it a rule.
    fn died(&mut self, silent_from: Instant, silence: Duration, now: Instant, learning: Learning) -> Option<Duration> {
        let is_news = self.found.is_none_or(|found| silent_from >= found);
        if silence < learning.shortest_silence || !is_news {
            return None;
        }
        // What was seen long ago may have been another policy.
        if self.found.is_some_and(|found| Deadline::at(found, learning.lasts).instant() <= now) {
            self.deaths.clear();
        }
        self.found = Some(now);
        self.deaths.push(silence);
        if self.deaths.len() < Self::ENOUGH {
            return None;
        }
        let longest = self.deaths.drain(..).max().unwrap_or_default();
        let limit = (longest - longest / 4).max(learning.shortest_silence);
        self.learned = Some(Belief::new(limit, now, learning));
        Some(limit)
    }

    /// A connection was found alive after so long a silence: whatever died of a shorter one, it was not of that.
    #[inline]
    pub(super) fn survived(&mut self, record: &Record) {
        if !self.deaths.is_empty() {
            let silence = record.silence();
            self.deaths.retain(|&death| death > silence);
        }
    }
}

impl<T> PoolState<T> {
    /// This server ends, or refuses to go on with, a session after so many messages.
    pub(super) fn learn_message_limit(&mut self, id: HostId, messages: u32, now: Instant, fx: &mut Effects<T>) {
        let Some(learning) = self.limits.learning else { return };
        let host = self.hosts.get_mut(id);
        let known = host.message_limit.get(now);
        let limit = host.message_limit.learn(messages, now, learning);
        if known != Some(limit) {
            fx.events.push(Event::MessageLimitLearned { host: id, messages: limit });
        }
        for held in host.take_idle(|held| held.record.messages >= limit) {
            self.close_later(held, DiscardReason::MaxMessages, Close::Polite, now, fx);
        }
    }

    /// A connection was found dead that had been silent.
    pub(super) fn learn_from_death(&mut self, record: &Record, now: Instant, fx: &mut Effects<T>) {
        // One that has answered a probe since it carried a message may have been idle for too long by another measure.
        let Some(learning) = self.limits.learning.filter(|_| record.probes == 0) else { return };
        let host = self.hosts.get_mut(record.host);
        if let Some(limit) = host.silence_limit.died(record.silent_from(), record.silence(), now, learning) {
            fx.events.push(Event::IdleLimitLearned { host: record.host, limit });
            self.hosts.look_again(now);
            self.remind(now, fx);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::now as dawn;
    use crate::pool::tests::fake::limits;

    #[test]
    fn asking_for_one_connection_more_becomes_rarer_while_the_answer_is_the_same() {
        let now = dawn();
        let mut capacity = Capacity::new(None, &limits(8));
        let asked_after = |capacity: &mut Capacity| {
            let mut messages = 0;
            while capacity.limit() == Some(3) {
                capacity.delivered(8, now);
                messages += 1;
            }
            messages
        };
        for expected in [100, 200, 400, 800] {
            capacity.refused_beyond(3, now);
            assert_eq!(asked_after(&mut capacity), expected);
            assert_eq!(capacity.limit(), Some(4));
        }
        // Another answer is news.
        capacity.refused_beyond(4, now);
        capacity.refused_beyond(3, now);
        assert_eq!(asked_after(&mut capacity), 100);
        for _ in 0..40 {
            capacity.refused_beyond(3, now);
        }
        assert_eq!(asked_after(&mut capacity), 102_400);
        // However few the messages, an hour is enough.
        capacity.refused_beyond(3, now);
        capacity.delivered(8, now + Duration::from_secs(3600));
        assert_eq!(capacity.limit(), Some(4));
    }
}
