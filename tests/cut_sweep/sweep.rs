//! Which places are cut, and many runs at once: most of a silent run is waiting.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use smtp_pool::testing::Cut;

use crate::common;
use crate::dialogue::{Bench, Recorded, Way};
use crate::judge::judge;
use crate::wire::{Direction, Plan};

/// Runs at the same time. Two thirds of them wait for nothing, and they are what keeps the processors busy.
const WORKERS: usize = 16;

/// How often a run may be late. A bound that is not kept is late every time.
const LATE_AT_MOST: usize = 10;

/// Which of the places are cut.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Choice {
    All,
    /// So many next to the ends of lines (of records, under TLS) and so many anywhere, for each way, direction and cut.
    Sample {
        near: usize,
        anywhere: usize,
        seed: u64,
    },
}

impl Choice {
    /// A sample with the seed in `SMTP_POOL_SWEEP_SEED`, or always the same.
    pub(crate) fn sample(near: usize, anywhere: usize) -> Self {
        let seed = std::env::var("SMTP_POOL_SWEEP_SEED").map_or(1, |seed| seed.parse().expect("the seed is a number"));
        println!("SMTP_POOL_SWEEP_SEED={seed}");
        Self::Sample { near, anywhere, seed }
    }

    fn plans(self, recorded: &Recorded, cuts: &[Cut]) -> Vec<Plan> {
        let mut plans = Vec::new();
        for direction in [Direction::FromClient, Direction::FromServer] {
            let places = recorded.places(direction);
            for (number, cut) in (0..).zip(cuts) {
                let chosen = match self {
                    Self::All => places.all.clone(),
                    Self::Sample { near, anywhere, seed } => {
                        let mut random = fastrand::Rng::with_seed(seed.wrapping_mul(31).wrapping_add(number));
                        let mut chosen = random.choose_multiple(places.near.iter().copied(), near);
                        chosen.extend(random.choose_multiple(places.all.iter().copied(), anywhere));
                        chosen.sort_unstable();
                        chosen.dedup();
                        chosen
                    }
                };
                plans.extend(chosen.into_iter().map(|after| Plan { direction, after, cut: *cut }));
            }
        }
        // Silent runs and prompt ones side by side.
        fastrand::Rng::with_seed(0).shuffle(&mut plans);
        plans
    }
}

/// What many runs came to.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    runs: usize,
    /// Those whose cut came while the message was under way.
    cut: usize,
    late: usize,
    untrue: Vec<String>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.cut += other.cut;
        self.late += other.late;
        self.untrue.extend(other.untrue);
    }
}

/// Cuts every dialogue of `ways` at the places chosen, and panics with all that was told wrongly.
pub(crate) fn sweep(ways: &[Way], cuts: &[Cut], choice: Choice) {
    let start = common::now();
    let mut total = Tally::default();
    for way in ways {
        total.add(sweep_one(*way, cuts, choice));
    }
    let Tally { runs, cut, late, untrue } = &total;
    println!("{runs} runs, {cut} of them cut, {late} of them late once, in {:.0?}", start.elapsed());
    assert!(untrue.is_empty(), "{} told wrongly:\n{}", untrue.len(), untrue.join("\n"));
    assert!(cut * 10 > runs * 8, "too many runs were over before their cut came");
}

fn sweep_one(way: Way, cuts: &[Cut], choice: Choice) -> Tally {
    let start = common::now();
    let recorded = Recorded::of(way);
    let plans = choice.plans(&recorded, cuts);
    let next = AtomicUsize::new(0);
    let late = Mutex::new(Vec::<(usize, Duration)>::new());
    let total = Mutex::new(Tally::default());
    thread::scope(|scope| {
        for _ in 0..WORKERS.min(plans.len()) {
            scope.spawn(|| {
                let bench = Bench::new(way);
                let mut tally = Tally::default();
                while let Some((number, plan)) = next_of(&plans, &next) {
                    let verdict = judge(&bench, &recorded, plan, number);
                    tally.runs += 1;
                    tally.cut += usize::from(verdict.was_cut);
                    tally.untrue.extend(verdict.untrue);
                    // A silent run has a deadline, which a busy machine may reach before the cut's turn.
                    if !verdict.was_cut && recorded.is_exact && plan.cut != Cut::Silence {
                        tally.untrue.push(format!("{way:?} {plan:?}: the cut never came"));
                    }
                    late.lock().extend(verdict.late.map(|by| (number, by)));
                }
                tally.untrue.extend(bench.server.violations());
                total.lock().add(tally);
            });
        }
    });
    let mut total = total.into_inner();
    total.late = late.lock().len();
    total.untrue.extend(late.into_inner().iter().filter_map(|(number, by)| again(way, &recorded, plans[*number], *by)));
    println!("{way:?}: {} runs, {} cut, in {:.1?}", total.runs, total.cut, start.elapsed());
    total
}

fn next_of(plans: &[Plan], next: &AtomicUsize) -> Option<(usize, Plan)> {
    let number = next.fetch_add(1, Ordering::Relaxed);
    plans.get(number).map(|plan| (number, *plan))
}

/// A run that was late among many is run again by itself.
fn again(way: Way, recorded: &Recorded, plan: Plan, by: Duration) -> Option<String> {
    let bench = Bench::new(way);
    let is_late = |number| judge(&bench, recorded, plan, number).late.is_some();
    (0..LATE_AT_MOST).all(is_late).then(|| format!("{way:?} {plan:?}: late by {by:?}, and again each time"))
}
