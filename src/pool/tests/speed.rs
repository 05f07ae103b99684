//! What a lease costs when nobody else wants one.

use std::time::Duration;

use crate::clock::{self, Deadline};
use crate::pool::tests::fake::{Fake, limits, plan};
use crate::pool::{Fate, Pool, Request};

/// Run by hand, optimised: `cargo test --release -- --ignored --nocapture uncontended`.
#[test]
#[ignore = "a measurement, not a promise"]
fn uncontended_acquire_and_finish() {
    const ROUNDS: u32 = 2_000_000;
    for hosts in [1, 3] {
        let pool = Pool::new(Fake::new(), (0..hosts).map(|_| plan(0, 1)).collect(), limits(8), 1);
        let turn = || {
            let lease = pool.acquire(Request::by(Deadline::after(Duration::from_secs(9)))).unwrap();
            lease.finish(Fate::Keep { delivered: true });
        };
        (0..1000).for_each(|_| turn());
        let start = clock::now();
        (0..ROUNDS).for_each(|_| turn());
        eprintln!("{hosts} host(s): {:?} for acquire and finish", (clock::now() - start) / ROUNDS);
    }
}
