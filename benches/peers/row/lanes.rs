//! How long interactive callers wait under a flood of bulk, and whether bulk gets on.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::lease::{Bare, acquire, our_pool, pause};
use crate::Plan;
use crate::clock;
use crate::lane::Lane;
use crate::paired::{Spread, as_f64};
use crate::pool::{Fate, Pool};
use crate::report::{Bound, Report, Row};

/// What one message takes.
const HOLD: Duration = Duration::from_millis(2);
/// Somebody in a hurry comes so often, in each of so many threads; together a third of what the pool can do.
const EVERY: Duration = Duration::from_millis(6);
const HURRIED: usize = 8;
const FLOOD: usize = 120;

/// The waits of both lanes, sorted.
struct Waits([Vec<Duration>; 2]);

impl Waits {
    fn part(&self, lane: Lane, part: f64) -> f64 {
        let waits = &self.0[lane as usize];
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a list")]
        let place = (as_f64(waits.len()) * part) as usize;
        waits[place.min(waits.len() - 1)].as_secs_f64()
    }
}

/// How long one caller waited.
fn turn(pool: &Pool<Bare>, lane: Lane) -> Duration {
    let now = clock::now();
    let lease = acquire(pool, lane, now);
    let waited = clock::now() - now;
    pause(HOLD);
    lease.finish(Fate::Keep { delivered: true });
    waited
}

fn flood(pool: &Pool<Bare>, settle: Duration, time: Duration) -> Waits {
    let (is_counting, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    let start = Barrier::new(HURRIED + FLOOD + 1);
    thread::scope(|scope| {
        let caller = |lane: Lane| {
            let (start, is_counting, is_over) = (&start, &is_counting, &is_over);
            scope.spawn(move || {
                let mut waits = Vec::new();
                start.wait();
                while !is_over.load(Ordering::Relaxed) {
                    let counts = is_counting.load(Ordering::Relaxed);
                    let waited = turn(pool, lane);
                    if counts {
                        waits.push(waited);
                    }
                    if lane == Lane::Interactive {
                        pause(EVERY);
                    }
                }
                waits
            })
        };
        let hurried: Vec<_> = (0..HURRIED).map(|_| caller(Lane::Interactive)).collect();
        let bulk: Vec<_> = (0..FLOOD).map(|_| caller(Lane::Bulk)).collect();
        start.wait();
        pause(settle);
        is_counting.store(true, Ordering::Relaxed);
        pause(time);
        is_over.store(true, Ordering::Relaxed);
        Waits([hurried, bulk].map(|threads| {
            let mut waits: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
            waits.sort_unstable();
            waits
        }))
    })
}

pub fn measure(plan: &Plan, report: &mut Report) {
    let pool = our_pool();
    let effort = plan.effort(7, Duration::from_secs(1));
    let settle = effort.slice / 5;
    let floods: Vec<Waits> = (0..effort.rounds).map(|_| flood(&pool, settle, effort.slice)).collect();
    let over = |figure: &dyn Fn(&Waits) -> f64| Spread::of(floods.iter().map(figure).collect());
    let mut rows = vec![Row::promised(
        "wait: p99 of interactive callers, against bulk's p99",
        "×",
        Bound::AtMost(0.1),
        over(&|waits| waits.part(Lane::Interactive, 0.99) / waits.part(Lane::Bulk, 0.99)),
    )];
    for (lane, name) in [(Lane::Interactive, "interactive"), (Lane::Bulk, "bulk")] {
        for (percentile, part) in [("p50", 0.5), ("p99", 0.99), ("longest", 1.0)] {
            let what = format!("wait: {percentile} here, {name}");
            rows.push(Row::shown(what, "ms", over(&|waits| waits.part(lane, part) * 1e3)));
        }
        let what = format!("served per second here, {name}");
        rows.push(Row::shown(
            what,
            "",
            over(&|waits| as_f64(waits.0[lane as usize].len()) / effort.slice.as_secs_f64()),
        ));
    }
    report.add(&format!("{FLOOD} threads of bulk, {HURRIED} in a hurry, 2 ms hold"), rows);
}
