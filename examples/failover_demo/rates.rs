//! How many a second, lately. Pure: told the time.

use std::collections::VecDeque;
use std::time::Duration;

/// A bar of the curve is half a second.
const BAR: Duration = Duration::from_millis(500);
const BARS_A_SECOND: u64 = 2;
/// As many bars as the widest terminal shows.
const BARS: usize = 200;

/// Counts by half seconds.
#[derive(Debug, Clone, Default)]
pub struct Rates {
    /// The number of the newest bar since the beginning.
    newest: u64,
    /// The newest last.
    counts: VecDeque<u64>,
}

impl Rates {
    pub fn count(&mut self, at: Duration) {
        let bar = number(at);
        if self.counts.is_empty() {
            self.counts.push_back(0);
            self.newest = bar;
        }
        // Threads may come a little out of order.
        while self.newest < bar && self.counts.len() <= BARS {
            self.newest += 1;
            self.counts.push_back(0);
        }
        self.newest = self.newest.max(bar);
        while self.counts.len() > BARS {
            self.counts.pop_front();
        }
        if let Some(count) = self.counts.back_mut() {
            *count += 1;
        }
    }

    /// The last `bars` half seconds that are over by now, in sends a second, the newest last.
    pub fn curve(&self, now: Duration, bars: usize) -> Vec<u64> {
        let current = number(now);
        let over = (0..bars as u64).rev().map(|back| current.checked_sub(back + 1));
        over.map(|bar| bar.map_or(0, |bar| self.of(bar) * BARS_A_SECOND)).collect()
    }

    /// How many in the second that is over.
    pub fn last_second(&self, now: Duration) -> u64 {
        let current = number(now);
        (1..=BARS_A_SECOND).filter_map(|back| current.checked_sub(back)).map(|bar| self.of(bar)).sum()
    }

    fn of(&self, bar: u64) -> u64 {
        let Some(back) = self.newest.checked_sub(bar) else { return 0 };
        let place = usize::try_from(back).ok().and_then(|back| self.counts.len().checked_sub(back + 1));
        place.map_or(0, |place| self.counts[place])
    }
}

fn number(at: Duration) -> u64 {
    u64::try_from(at.as_millis() / BAR.as_millis()).unwrap_or(u64::MAX)
}
