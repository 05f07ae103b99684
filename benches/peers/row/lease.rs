//! What getting a connection and giving it back costs, alone and in a crowd, against r2d2.
//!
//! Both pools lend things that cost nothing to look at, so that the pools are compared and not their connections: r2d2 without its
//! check on check-out, this crate's pool (the very code, included by path) with a connector whose look does nothing.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use smtp_pool::{Host, SmtpConnectionManager, SmtpSender};

use crate::Plan;
use crate::cancel::CancelToken;
use crate::clock::{self, Deadline};
use crate::endpoint::{Endpoint, HostId};
use crate::lane::Lane;
use crate::observer::Observers;
use crate::paired::{Contestant, Spread, as_f64, compete, processor_time};
use crate::pool::{Close, Connector, Fate, HostPlan, HostSet, Learning, Lease, Limits, OpenError, Pool, Request};
use crate::postfix::free_port;
use crate::report::{Bound, Report, Row};
use crate::sink::Sink;

const MINUTE: Duration = Duration::from_secs(60);
const PLACES: u32 = 8;

pub struct Bare;

impl Connector for Bare {
    type Connection = u64;
    type Error = String;

    fn open(&self, _: HostId, id: u64, _: Deadline, _: Option<&CancelToken>) -> Result<u64, OpenError<String>> {
        Ok(id)
    }

    fn is_alive(&self, _: &mut u64) -> bool {
        true
    }

    fn begin_probe(&self, _: &mut u64) -> bool {
        true
    }

    fn end_probe(&self, _: &mut u64, _: Deadline) -> bool {
        true
    }

    fn is_in_step(&self, _: &u64) -> bool {
        true
    }

    fn message_limit(&self, _: &u64) -> Option<u32> {
        None
    }

    fn close(&self, _: u64, _: Close) {}
}

impl r2d2::ManageConnection for Bare {
    type Connection = u64;
    type Error = std::convert::Infallible;

    fn connect(&self) -> Result<u64, Self::Error> {
        Ok(0)
    }

    fn is_valid(&self, _: &mut u64) -> Result<(), Self::Error> {
        Ok(())
    }

    fn has_broken(&self, _: &mut u64) -> bool {
        false
    }
}

pub fn our_pool() -> Pool<Bare> {
    let plan = HostPlan { endpoint: Endpoint::new("bare", 25), priority: 0, weight: 1, max_connections: None };
    // The defaults of `PoolOptions`.
    let limits = Limits {
        max_size: PLACES as usize,
        interactive_reserve: 0.25,
        min_idle: 0,
        refill_delay: Duration::ZERO,
        keepalive_interval: Some(MINUTE),
        idle_timeout: Some(2 * MINUTE),
        max_lifetime: Some(20 * MINUTE),
        lifetime_jitter: 0.1,
        max_messages: None,
        fair_time: Duration::from_secs(1),
        learning: Some(Learning { lasts: 60 * MINUTE, shortest_silence: Duration::from_secs(5) }),
        reconnect_cooldown: MINUTE / 2,
        max_reconnect_cooldown: 5 * MINUTE,
        exponential: true,
        jitter: 0.2,
    };
    Pool::new(Bare, vec![plan], limits, 1, Observers::default()).unwrap()
}

fn their_pool() -> r2d2::Pool<Bare> {
    let builder = r2d2::Pool::builder().max_size(PLACES).connection_timeout(MINUTE);
    builder.test_on_check_out(false).build(Bare).unwrap()
}

/// As a send does: the clock is read once for the pool and for the deadline.
pub(super) fn acquire(pool: &Pool<Bare>, lane: Lane, now: Instant) -> Lease<Bare> {
    let deadline = Deadline::at(now, MINUTE);
    let request = Request {
        lane,
        waits_out_cooldowns: true,
        deadline,
        avoid: HostSet::new(),
        fresh: false,
        only: None,
        cancel: None,
    };
    pool.acquire_at(now, request, &mut ()).unwrap_or_else(|error| panic!("{error:?}"))
}

/// Something done again and again by one thread, in processor time.
struct Turns<F> {
    name: &'static str,
    turn: F,
}

impl<F: FnMut()> Contestant for Turns<F> {
    fn name(&self) -> &str {
        self.name
    }

    fn work(&mut self, amount: usize) -> Duration {
        processor_time(|| (0..amount).for_each(|_| (self.turn)()))
    }

    fn granularity(&self) -> usize {
        1
    }
}

const OURS: &str = "smtp-pool";
const THEIRS: &str = "r2d2";
const PUBLIC: &str = "smtp-pool, SmtpSender::lease on a live connection";
const CHECKED: &str = "r2d2 with SmtpConnectionManager, on a live connection";

pub fn uncontended(plan: &Plan, report: &mut Report) {
    let (ours, theirs) = (our_pool(), their_pool());
    let sink = Sink::forgetful(free_port());
    let host = || Host::plain("127.0.0.1").port(sink.port());
    let sender = SmtpSender::builder().host(host()).max_size(1usize).build().unwrap();
    let checked = r2d2::Pool::builder().max_size(1).build(SmtpConnectionManager::new(host()).unwrap()).unwrap();
    let mut contestants: Vec<Box<dyn Contestant + '_>> = vec![
        Box::new(Turns {
            name: OURS,
            turn: || acquire(&ours, Lane::Interactive, clock::now()).finish(Fate::Keep { delivered: true }),
        }),
        Box::new(Turns { name: THEIRS, turn: || drop(theirs.get().unwrap()) }),
        Box::new(Turns { name: PUBLIC, turn: || drop(sender.lease().unwrap()) }),
        Box::new(Turns { name: CHECKED, turn: || drop(checked.get().unwrap()) }),
    ];
    let rates = compete(&mut contestants, plan.effort(31, Duration::from_millis(100)));

    let each = |name: &str| {
        let Spread { median, least, most, runs } = rates.of(name);
        // The fastest rate is the shortest time.
        Spread { median: 1e9 / median, least: 1e9 / most, most: 1e9 / least, runs }
    };
    let mut rows: Vec<Row> = [OURS, THEIRS, PUBLIC, CHECKED]
        .map(|name| Row::shown(format!("{name}: acquire + release here"), "ns", each(name)))
        .into();
    rows.push(Row::promised(
        "uncontended acquire + release: processor time, against r2d2's",
        "×",
        Bound::AtMost(1.0),
        rates.ratio(THEIRS, OURS),
    ));
    rows.push(Row::shown("the same on a live connection, each with its own check", "×", rates.ratio(CHECKED, PUBLIC)));
    report.add("acquire and release, one thread", rows);
}

const CROWD: usize = 64;

/// What a crowd met: the waits of all, and how long things were really held.
struct Crowd {
    waits: Vec<Duration>,
    held: Duration,
    per_second: f64,
}

impl Crowd {
    /// All threads take turns for `time` after `settle`; a turn returns how long it waited and how long it held.
    fn run(settle: Duration, time: Duration, turn: impl Fn() -> (Duration, Duration) + Sync) -> Self {
        let (is_counting, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
        let start = Barrier::new(CROWD + 1);
        let (turns, took) = thread::scope(|scope| {
            let threads: Vec<_> = (0..CROWD)
                .map(|_| {
                    scope.spawn(|| {
                        let mut turns = Vec::new();
                        start.wait();
                        while !is_over.load(Ordering::Relaxed) {
                            let counts = is_counting.load(Ordering::Relaxed);
                            let met = turn();
                            if counts {
                                turns.push(met);
                            }
                        }
                        turns
                    })
                })
                .collect();
            start.wait();
            pause(settle);
            is_counting.store(true, Ordering::Relaxed);
            let began = clock::now();
            pause(time);
            is_over.store(true, Ordering::Relaxed);
            let turns: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
            (turns, clock::now() - began)
        });
        let held = turns.iter().map(|&(_, held)| held).sum::<Duration>() / u32::try_from(turns.len()).unwrap();
        let mut waits: Vec<Duration> = turns.iter().map(|&(waited, _)| waited).collect();
        waits.sort_unstable();
        Self { per_second: as_f64(waits.len()) / took.as_secs_f64(), waits, held }
    }

    fn wait(&self, part: f64) -> f64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a list")]
        let place = (as_f64(self.waits.len()) * part) as usize;
        self.waits[place.min(self.waits.len() - 1)].as_secs_f64()
    }

    /// The wait of everybody if places changed hands in no time: one turn of each of those in front.
    fn ideal_wait(&self) -> f64 {
        self.held.as_secs_f64() * (as_f64(CROWD) / f64::from(PLACES) - 1.0)
    }
}

#[expect(clippy::disallowed_methods, reason = "holding a place for a time is what this is about")]
pub fn pause(time: Duration) {
    if !time.is_zero() {
        thread::sleep(time);
    }
}

fn our_turn(pool: &Pool<Bare>, hold: Duration) -> (Duration, Duration) {
    let asked = clock::now();
    let lease = acquire(pool, Lane::Interactive, asked);
    let got = clock::now();
    pause(hold);
    let held = clock::now() - got;
    lease.finish(Fate::Keep { delivered: true });
    (got - asked, held)
}

fn their_turn(pool: &r2d2::Pool<Bare>, hold: Duration) -> (Duration, Duration) {
    let asked = clock::now();
    let lease = pool.get().unwrap();
    let got = clock::now();
    pause(hold);
    let held = clock::now() - got;
    drop(lease);
    (got - asked, held)
}

pub fn contended(plan: &Plan, report: &mut Report) {
    let (ours, theirs) = (our_pool(), their_pool());
    let effort = plan.effort(7, Duration::from_millis(1000));
    for hold in [Duration::from_micros(200), Duration::ZERO] {
        let mut crowds = [Vec::new(), Vec::new()];
        for round in 0..effort.rounds {
            for place in 0..2 {
                let side = (round + place) % 2;
                let settle = effort.slice / 5;
                crowds[side].push(match side {
                    0 => Crowd::run(settle, effort.slice, || our_turn(&ours, hold)),
                    _ => Crowd::run(settle, effort.slice, || their_turn(&theirs, hold)),
                });
            }
        }
        report.add(
            &format!("{CROWD} threads, {PLACES} connections, {} µs hold", hold.as_micros()),
            crowd_rows(&crowds, hold),
        );
    }
}

fn crowd_rows([ours, theirs]: &[Vec<Crowd>; 2], hold: Duration) -> Vec<Row> {
    let over = |crowds: &[Crowd], figure: &dyn Fn(&Crowd) -> f64| Spread::of(crowds.iter().map(figure).collect());
    let mut rows = Vec::new();
    if !hold.is_zero() {
        let unfairness = |crowd: &Crowd| crowd.wait(0.99) / crowd.wait(0.5);
        let excess = |crowd: &Crowd| crowd.wait(1.0) / crowd.ideal_wait();
        rows.extend([
            Row::promised("wait: p99 / p50", "×", Bound::AtMost(2.0), over(ours, &unfairness)),
            Row::promised(
                "wait: longest, against that of an ideal queue",
                "×",
                Bound::AtMost(5.0),
                over(ours, &excess),
            ),
            Row::shown("wait: p99 / p50, r2d2", "×", over(theirs, &unfairness)),
            Row::shown("wait: longest, against that of an ideal queue, r2d2", "×", over(theirs, &excess)),
            Row::shown("wait: of an ideal queue here", "ms", over(ours, &|crowd| crowd.ideal_wait() * 1e3)),
        ]);
    }
    for (name, crowds) in [(OURS, ours), (THEIRS, theirs)] {
        for (percentile, part) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("longest", 1.0)] {
            rows.push(Row::shown(
                format!("wait: {percentile} here, {name}"),
                "ms",
                over(crowds, &|crowd| crowd.wait(part) * 1e3),
            ));
        }
    }
    let ratio = ours.iter().zip(theirs).map(|(ours, theirs)| ours.per_second / theirs.per_second);
    rows.push(Row::shown("turns per second, against r2d2's", "×", Spread::of(ratio.collect())));
    rows
}
