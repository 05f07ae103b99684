//! What a lease costs when nobody else wants one.

use std::thread;
use std::time::Duration;

use crate::cancel::CancelToken;
use crate::clock::{self, Deadline};
use crate::endpoint::HostId;
use crate::pool::tests::fake::{limits, plan};
use crate::pool::{Close, Connector, Fate, OpenError, Pool, Request};

struct Bare;

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

/// Run by hand, optimised: `cargo test --release -- --ignored --nocapture uncontended`.
#[test]
#[ignore = "a measurement, not a promise"]
fn uncontended_acquire_and_finish() {
    const ROUNDS: u32 = 2_000_000;
    for hosts in [1, 3] {
        let mut limits = limits(8);
        limits.idle_timeout = Some(Duration::from_secs(120));
        limits.max_lifetime = Some(Duration::from_secs(1200));
        limits.keepalive_interval = Some(Duration::from_secs(60));
        let pool = Pool::new(Bare, (0..hosts).map(|_| plan(0, 1)).collect(), limits, 1).unwrap();
        let deadline = Deadline::after(Duration::from_secs(60));
        let turn = || match pool.acquire(Request::by(deadline)) {
            Ok(lease) => lease.finish(Fate::Keep { delivered: true }),
            Err(error) => panic!("{error:?}"),
        };
        (0..1000).for_each(|_| turn());
        let start = clock::now();
        (0..ROUNDS).for_each(|_| turn());
        eprintln!("{hosts} host(s): {:?} for acquire and finish", (clock::now() - start) / ROUNDS);
    }
}

/// Run by hand, optimised: `cargo test --release -- --ignored --nocapture contended_wait`.
#[test]
#[ignore = "a measurement, not a promise"]
fn contended_wait() {
    const HOLD: Duration = Duration::from_micros(200);
    let pool = Pool::new(Bare, vec![plan(0, 1)], limits(8), 1).unwrap();
    let mut waits: Vec<Duration> = thread::scope(|scope| {
        let threads: Vec<_> = (0..64)
            .map(|_| {
                scope.spawn(|| {
                    let turn = |_| {
                        let start = clock::now();
                        let Ok(lease) = pool.acquire(Request::by(Deadline::after(Duration::from_secs(60)))) else {
                            panic!("nobody waits that long")
                        };
                        let waited = clock::now() - start;
                        thread::park_timeout(HOLD);
                        lease.finish(Fate::Keep { delivered: true });
                        waited
                    };
                    (0..500).map(turn).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    waits.sort_unstable();
    let at = |per_cent: usize| waits[(waits.len() - 1) * per_cent / 100];
    eprintln!("waits: p50 {:?}, p99 {:?}, max {:?}", at(50), at(99), at(100));
}
