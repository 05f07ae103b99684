//! The end of a pool, from wherever it comes.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use crate::clock::{self, Deadline};
use crate::pool::tests::fake::{
    Fake, LONG, assert_at_rest, at_rest, attended, lease, limits, plan, refused, soon, until, until_waiting,
};
use crate::pool::{AcquireError, Close, Fate, Limits, Pool};
use crate::sync::Mutex;

const KEEP: Fate = Fate::Keep { delivered: true };
const MILLI: Duration = Duration::from_millis(1);

fn pool(max_size: usize) -> Pool<Fake> {
    with(max_size, |_| {})
}

fn with(max_size: usize, change: impl FnOnce(&mut Limits)) -> Pool<Fake> {
    let mut limits = limits(max_size);
    change(&mut limits);
    attended(Fake::new(), vec![plan(0, 1)], limits)
}

fn soon_over() -> Deadline {
    Deadline::after(MILLI * 20)
}

fn long() -> Deadline {
    Deadline::after(LONG)
}

#[test]
fn closing_wakes_waiters_refuses_newcomers_and_can_be_done_again() {
    let pool = pool(1);
    let held = lease(&pool);
    thread::scope(|scope| {
        let waiters: Vec<_> = (0..5).map(|_| scope.spawn(|| refused(pool.acquire(soon())))).collect();
        until_waiting(&pool, 5);
        pool.close();
        for waiter in waiters {
            assert!(matches!(waiter.join().unwrap(), AcquireError::ShutDown { .. }));
        }
    });
    assert!(matches!(pool.acquire(soon()), Err(AcquireError::ShutDown { .. })));
    assert!(pool.join(long()));
    pool.close();
    assert!(!pool.wait_drained(soon_over()));
    let id = held.id();
    held.finish(KEEP);
    assert_eq!(pool.connector().fate(id), Some(Close::Polite));
    assert!(pool.wait_drained(soon_over()) && pool.wait_drained(soon_over()));
    assert!(pool.join(soon_over()) && pool.join(soon_over()));
    assert_at_rest(&pool);
}

#[test]
fn the_drain_is_seen_by_all_who_wait_for_it() {
    for _ in 0..200 {
        let pool = pool(3);
        let leases: Vec<_> = (0..3).map(|_| lease(&pool)).collect();
        thread::scope(|scope| {
            let drains: Vec<_> = (0..3).map(|_| scope.spawn(|| pool.wait_drained(long()))).collect();
            for lease in leases {
                scope.spawn(|| lease.finish(KEEP));
            }
            pool.close();
            assert!(drains.into_iter().all(|drain| drain.join().unwrap()));
        });
        assert_at_rest(&pool);
    }
}

#[test]
fn a_pool_drains_without_being_closed_too() {
    let pool = pool(2);
    let held = lease(&pool);
    thread::scope(|scope| {
        let drain = scope.spawn(|| pool.wait_drained(long()));
        held.finish(KEEP);
        assert!(drain.join().unwrap());
    });
    assert_eq!(pool.counts().idle, 1);
}

#[test]
fn whoever_holds_a_lease_waits_for_itself_until_the_deadline() {
    let pool = pool(2);
    let held = lease(&pool);
    pool.close();
    let start = clock::now();
    assert!(!pool.wait_drained(soon_over()));
    assert!(clock::now() - start < LONG / 4);
    assert!(pool.join(long()));
    held.finish(KEEP);
    assert!(pool.wait_drained(long()));
}

#[test]
fn the_maintenance_thread_may_close_the_pool() {
    let pool = with(2, |limits| limits.keepalive_interval = Some(MILLI));
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let handle = Mutex::new(Some(pool.clone()));
    pool.connector().on_probe(move |_| {
        let Some(pool) = handle.lock().take() else { return };
        assert_eq!(thread::current().name(), Some("smtp-pool-maintenance"));
        pool.close();
        // It waits neither for itself nor for what it has in hand.
        assert!(!pool.join(Deadline::after(LONG)));
        assert!(!pool.wait_drained(soon_over()));
        tell.lock().send(()).unwrap();
    });
    lease(&pool).finish(KEEP);
    told.recv_timeout(LONG).unwrap();
    assert!(pool.join(long()) && pool.wait_drained(long()));
    assert_at_rest(&pool);
}

#[test]
fn the_last_handle_may_be_dropped_by_the_maintenance_thread() {
    let pool = with(2, |limits| limits.keepalive_interval = Some(MILLI));
    let gauge = Arc::clone(&pool.connector().gauge);
    let crew = Arc::clone(&pool.shared.crew);
    let handle = Arc::new(Mutex::new(None));
    let (go, wait) = mpsc::channel::<()>();
    let (inner, wait) = (Arc::clone(&handle), Mutex::new(wait));
    pool.connector().on_probe(move |_| {
        wait.lock().recv_timeout(LONG).ok();
        let last: Option<Pool<Fake>> = inner.lock().take();
        drop(last);
    });
    lease(&pool).finish(KEEP);
    *handle.lock() = Some(pool);
    drop(go);
    assert!(crew.join(long()));
    assert_eq!(gauge.live.load(SeqCst), 0);
}

#[test]
fn no_thread_is_left_when_the_last_handle_is_dropped() {
    let pool = with(4, |limits| {
        limits.min_idle = 2;
        limits.keepalive_interval = Some(MILLI * 10);
    });
    until(|| pool.counts().idle == 2 && at_rest(&pool));
    let gauge = Arc::clone(&pool.connector().gauge);
    let (crew, weak) = (Arc::clone(&pool.shared.crew), Arc::downgrade(&pool.shared));
    drop(pool);
    assert!(crew.join(long()));
    // And nothing else: no two parts of a pool keep each other.
    assert_eq!(gauge.live.load(SeqCst), 0);
    assert!(weak.upgrade().is_none());
}

#[test]
fn leases_outlive_the_last_handle() {
    let pool = with(4, |limits| limits.keepalive_interval = Some(MILLI));
    let gauge = Arc::clone(&pool.connector().gauge);
    let (crew, weak) = (Arc::clone(&pool.shared.crew), Arc::downgrade(&pool.shared));
    let (kept, renewed) = (lease(&pool), lease(&pool));
    drop(lease(&pool));
    drop(pool);
    assert!(crew.join(long()));
    assert_eq!(gauge.live.load(SeqCst), 2);
    kept.finish(KEEP);
    let error = refused(renewed.renew(crate::pool::Renewal::Stale, soon(), &mut ()));
    assert!(matches!(error, AcquireError::ShutDown { .. }));
    assert_eq!(gauge.live.load(SeqCst), 0);
    assert!(weak.upgrade().is_none());
}

#[test]
fn a_refill_under_way_ends_with_the_pool() {
    let fake = Fake::new();
    let (entered, is_in) = mpsc::channel();
    fake.on_open_with_token(move |_, _, _, token| {
        let (cut, is_cut) = mpsc::channel();
        let _hook = token.unwrap().on_cancel(move || cut.send(()).unwrap());
        entered.send(()).unwrap();
        is_cut.recv_timeout(LONG).unwrap();
        Err(crate::blame::Blame::Host)
    });
    let pool = attended(fake, vec![plan(0, 1)], Limits { min_idle: 1, ..limits(2) });
    is_in.recv_timeout(LONG).unwrap();
    pool.close();
    assert!(pool.wait_drained(long()) && pool.join(long()));
    assert_eq!(pool.status().create_failures, 0);
    assert_at_rest(&pool);
}

#[test]
fn closing_under_load_leaves_nothing() {
    for _ in 0..20 {
        let pool = with(4, |limits| {
            limits.min_idle = 3;
            limits.keepalive_interval = Some(MILLI);
            limits.max_messages = Some(7);
        });
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    while let Ok(lease) = pool.acquire(soon()) {
                        lease.finish(KEEP);
                    }
                });
            }
            until(|| pool.connector().opened().len() > 20);
            pool.close();
            assert!(pool.wait_drained(long()) && pool.join(long()));
        });
        assert_at_rest(&pool);
        assert!(pool.connector().gauge.highest.load(SeqCst) <= 4);
        assert_eq!(pool.counts().total, 0);
    }
}
