//! Weights, over sends: in good times, in an outage, and after it.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use crate::blame::Blame;
use crate::pool::tests::fake::{Fake, attended, lease, limits, plan, until};
use crate::pool::{Fate, Limits, Pool};

const KEEP: Fate = Fate::Keep { delivered: true };
const SENDS: usize = 4000;

fn pool(max_size: usize) -> Pool<Fake> {
    let cooldown = Duration::from_millis(5);
    let limits = Limits { reconnect_cooldown: cooldown, max_reconnect_cooldown: cooldown, ..limits(max_size) };
    attended(Fake::new(), vec![plan(0, 3), plan(0, 1)], limits)
}

/// Sends to both hosts, all threads at a time: every send takes as long as the others.
fn send(pool: &Pool<Fake>, threads: usize) -> [usize; 2] {
    let counts = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let all = Barrier::new(threads);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..SENDS / threads {
                    let lease = lease(pool);
                    counts[lease.host().0].fetch_add(1, SeqCst);
                    all.wait();
                    lease.finish(KEEP);
                    all.wait();
                }
            });
        }
    });
    counts.map(|count| count.load(SeqCst))
}

fn assert_three_to_one([heavy, light]: [usize; 2]) {
    assert_eq!(heavy + light, SENDS);
    let expected = SENDS * 3 / 4;
    assert!(heavy.abs_diff(expected) <= SENDS / 50, "{heavy} : {light}");
}

fn good_times_outage_recovery(threads: usize, broken: usize) {
    let pool = pool(8);
    assert_three_to_one(send(&pool, threads));
    let before = pool.connector().opened().len();
    // Threads that come together may open too many to one host; an exchange or two puts that right.
    assert!(before <= 8 + 3, "{before} connections");

    // The host goes away, its connections with it.
    pool.connector().down(broken, Blame::Host);
    for (host, id) in pool.connector().opened() {
        if host.0 == broken {
            pool.connector().kill(id);
        }
    }
    let counts = send(&pool, threads);
    assert_eq!(counts[broken], 0, "{counts:?}");

    pool.connector().up(broken);
    until(|| {
        lease(&pool).finish(KEEP);
        pool.status().hosts[broken].consecutive_failures == 0
    });
    let opened = pool.connector().opened().len();
    assert_three_to_one(send(&pool, threads));
    let opened = pool.connector().opened().len() - opened;
    assert!(opened <= 8, "{opened} connections opened anew");
}

#[test]
fn one_thread_three_to_one() {
    good_times_outage_recovery(1, 0);
    good_times_outage_recovery(1, 1);
}

#[test]
fn eight_threads_three_to_one() {
    good_times_outage_recovery(8, 0);
    good_times_outage_recovery(8, 1);
}

#[test]
fn five_threads_three_to_one() {
    good_times_outage_recovery(5, 0);
    good_times_outage_recovery(5, 1);
}

#[test]
fn a_pool_full_of_one_host_makes_room_for_the_other_and_then_rests() {
    for recovered in [0, 1] {
        let pool = pool(8);
        pool.connector().down(recovered, Blame::Host);
        let leases: Vec<_> = (0..8).map(|_| lease(&pool)).collect();
        assert!(leases.iter().all(|lease| lease.host().0 != recovered));
        drop(leases);
        pool.connector().up(recovered);
        // Eight at a time, so that it is places that decide.
        for _ in 0..50 {
            thread::park_timeout(Duration::from_micros(300));
            let leases: Vec<_> = (0..8).map(|_| lease(&pool)).collect();
            leases.into_iter().for_each(|lease| lease.finish(KEEP));
        }
        let status = pool.status();
        assert_eq!([status.hosts[0].idle, status.hosts[1].idle], [6, 2]);
        let moved = if recovered == 0 { 6 } else { 2 };
        assert_eq!(status.discarded.total(), moved);
    }
}
