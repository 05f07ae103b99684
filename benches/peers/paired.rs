//! Measuring by turns: what compares is run in the same minute, on the same machine, again and again.
//!
//! Only ratios within one round are compared, so that whatever else the machine does hits both sides of each.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What several runs gave: the middle one, and how far they are apart.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
    pub runs: usize,
}

impl Spread {
    pub fn of(mut values: Vec<f64>) -> Self {
        assert!(!values.is_empty(), "something was measured");
        values.sort_by(f64::total_cmp);
        let (middle, runs) = (values.len() / 2, values.len());
        let median = if runs % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
        Self { median, least: values[0], most: values[runs - 1], runs }
    }

    /// Something counted: it has no spread.
    pub const fn exactly(value: f64) -> Self {
        Self { median: value, least: value, most: value, runs: 1 }
    }
}

/// One side of a comparison: does so much work, and says how long that took.
pub trait Contestant {
    fn name(&self) -> &str;

    /// Does `amount` of work, all its threads together.
    fn work(&mut self, amount: usize) -> Duration;

    /// `amount` must be a multiple of this.
    fn granularity(&self) -> usize;
}

/// How many rounds, and how long a contestant works in each of them.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    pub rounds: usize,
    pub slice: Duration,
}

/// Amounts of work per second, of each contestant in each round.
#[derive(Debug)]
pub struct Rates {
    names: Vec<String>,
    /// By contestant, then by round.
    rates: Vec<Vec<f64>>,
}

impl Rates {
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    pub fn of(&self, name: &str) -> Spread {
        Spread::of(self.rates[self.index(name)].clone())
    }

    /// How much faster `one` is than `other`, round by round.
    pub fn ratio(&self, one: &str, other: &str) -> Spread {
        let (one, other) = (&self.rates[self.index(one)], &self.rates[self.index(other)]);
        Spread::of(one.iter().zip(other).map(|(one, other)| one / other).collect())
    }

    fn index(&self, name: &str) -> usize {
        self.names.iter().position(|other| other == name).unwrap_or_else(|| panic!("{name} took part"))
    }
}

/// Lets all of them work in turns. Neighbours in the list work right after each other in every round; who is first changes.
pub fn compete(contestants: &mut [Box<dyn Contestant + '_>], effort: Effort) -> Rates {
    let amounts: Vec<usize> =
        contestants.iter_mut().map(|contestant| amount_for(contestant.as_mut(), effort.slice)).collect();
    let mut rates = vec![Vec::with_capacity(effort.rounds); contestants.len()];
    for round in 0..effort.rounds {
        for place in 0..contestants.len() {
            let index = if round % 2 == 0 { place } else { contestants.len() - 1 - place };
            let took = contestants[index].work(amounts[index]);
            rates[index].push(per_second(amounts[index], took));
        }
    }
    Rates { names: contestants.iter().map(|contestant| contestant.name().to_owned()).collect(), rates }
}

/// Warms a contestant up, and finds out how much it can do in a slice of time.
fn amount_for(contestant: &mut dyn Contestant, slice: Duration) -> usize {
    let step = contestant.granularity();
    // Whoever connects only when there is something to send has done so after this; it may take longer than all that follows.
    for _ in 0..3 {
        contestant.work(step);
    }
    let mut amount = step;
    loop {
        let took = contestant.work(amount);
        if took * 4 >= slice {
            let fitting = per_second(amount, took) * slice.as_secs_f64();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of messages")]
            let steps = (fitting / as_f64(step)).round() as usize;
            return steps.max(1) * step;
        }
        amount *= 2;
    }
}

/// Does `work` in this thread, and says how much of the processor it took: less than the time that passes when others want the
/// processor too, and the same when they don't.
pub fn processor_time(work: impl FnOnce()) -> Duration {
    let time = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
    };
    let started = time();
    work();
    time() - started
}

pub fn per_second(amount: usize, took: Duration) -> f64 {
    as_f64(amount) / took.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "what is counted here is far below 2^52")]
pub const fn as_f64(count: usize) -> f64 {
    count as f64
}
