//! Waiting: in order, until the deadline, and never for nothing.

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use crate::blame::Blame;
use crate::clock::{self, Deadline};
use crate::endpoint::HostId;
use crate::pool::tests::fake::{
    Fake, LONG, assert_at_rest, avoiding, fresh, got, lease, limits, plan, pool, refused, soon, until, until_waiting,
};
use crate::pool::{AcquireError, Close, Fate, Pool, Renewal, Request};
use crate::stats::DiscardReason;

const KEEP: Fate = Fate::Keep { delivered: true };
const BROKEN: Fate = Fate::Discard(DiscardReason::Broken, Close::Abort);

#[test]
fn a_kept_connection_is_lent_again() {
    let pool = pool(4, &[0]);
    let first = lease(&pool);
    assert!(!first.is_reused());
    let id = first.id();
    first.finish(KEEP);
    let second = lease(&pool);
    assert_eq!((second.id(), second.is_reused(), second.messages()), (id, true, 1));
    second.finish(Fate::Keep { delivered: false });
    assert_eq!(lease(&pool).messages(), 1);
    assert_eq!(pool.connector().opened().len(), 1);
    assert_at_rest(&pool);
}

#[test]
fn the_connection_used_last_is_lent_first() {
    let pool = pool(4, &[0]);
    let leases: Vec<_> = (0..3).map(|_| lease(&pool)).collect();
    let ids: Vec<_> = leases.iter().map(|lease| lease.id()).collect();
    leases.into_iter().for_each(|lease| lease.finish(KEEP));
    assert_eq!(lease(&pool).id(), ids[2]);
}

#[test]
fn waiters_are_served_in_order_of_arrival() {
    let pool = pool(1, &[0]);
    let held = lease(&pool);
    let (served, order) = mpsc::channel();
    thread::scope(|scope| {
        for number in 0..8 {
            let (pool, served) = (&pool, served.clone());
            scope.spawn(move || {
                let lease = lease(pool);
                served.send(number).unwrap();
                // Every other one breaks: connections and permissions are handed on alike.
                lease.finish(if number % 2 == 0 { KEEP } else { BROKEN });
            });
            until_waiting(pool, number + 1);
        }
        held.finish(KEEP);
        for number in 0..8 {
            assert_eq!(order.recv_timeout(LONG).unwrap(), number);
        }
    });
    assert_at_rest(&pool);
}

#[test]
fn a_newcomer_does_not_overtake() {
    let pool = pool(1, &[0]);
    let held = lease(&pool);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| lease(&pool));
        until_waiting(&pool, 1);
        held.finish(KEEP);
        // From this moment the connection is the waiter's, whether its thread has run or not.
        let late = Request::by(Deadline::on(clock::now()));
        assert!(matches!(pool.acquire(late), Err(AcquireError::Exhausted { .. })));
        drop(waiter.join().unwrap());
    });
}

#[test]
fn a_broken_return_wakes_a_waiter_with_a_permit() {
    let pool = pool(1, &[0]);
    let held = lease(&pool);
    let broken = held.id();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| lease(&pool));
        until_waiting(&pool, 1);
        held.finish(BROKEN);
        let lease = waiter.join().unwrap();
        assert_ne!(lease.id(), broken);
        assert!(!lease.is_reused());
    });
    assert_eq!(pool.connector().fate(broken), Some(Close::Abort));
    assert_at_rest(&pool);
}

#[test]
fn a_lease_dropped_in_step_goes_back_uncounted() {
    let pool = pool(1, &[0]);
    drop(lease(&pool));
    let again = lease(&pool);
    assert_eq!((again.is_reused(), again.messages()), (true, 0));
}

#[test]
fn a_connection_out_of_step_is_never_lent_again() {
    let pool = pool(1, &[0]);
    let mut first = lease(&pool);
    let one = first.id();
    first.connection_mut().in_step = false;
    drop(first);
    let mut second = lease(&pool);
    let two = second.id();
    second.connection_mut().in_step = false;
    second.finish(KEEP);
    let third = lease(&pool);
    assert!(!third.is_reused());
    assert_eq!([one, two].map(|id| pool.connector().fate(id)), [Some(Close::Abort); 2]);
    assert_eq!(pool.status().discarded.of(DiscardReason::Broken), 2);
}

#[test]
fn a_panicking_holder_gives_the_place_to_a_waiter() {
    let pool = pool(1, &[0]);
    let held = lease(&pool);
    let id = held.id();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| lease(&pool));
        until_waiting(&pool, 1);
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
            let _held = held;
            panic!("told to panic");
        }));
        assert!(outcome.is_err());
        assert_ne!(waiter.join().unwrap().id(), id);
    });
    assert_eq!(pool.connector().fate(id), Some(Close::Abort));
    assert_at_rest(&pool);
}

#[test]
fn a_panic_in_open_gives_the_place_back() {
    let pool = pool(1, &[0]);
    let (entered, is_in) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    let mut calls = 0;
    pool.connector().on_open(move |_, _, _| {
        calls += 1;
        if calls == 1 {
            entered.send(()).unwrap();
            wait.recv_timeout(LONG).unwrap();
        }
        assert!(calls > 1, "told to panic");
        Ok(())
    });
    // A poisoned script would end the second call: parking_lot's locks are not poisoned.
    thread::scope(|scope| {
        let victim = scope.spawn(|| lease(&pool));
        is_in.recv_timeout(LONG).unwrap();
        let waiter = scope.spawn(|| lease(&pool));
        until_waiting(&pool, 1);
        go.send(()).unwrap();
        assert!(victim.join().is_err());
        drop(waiter.join().unwrap());
    });
    assert_at_rest(&pool);
}

#[test]
fn a_panic_in_the_look_gives_the_place_back() {
    let pool = pool(1, &[0]);
    drop(lease(&pool));
    pool.connector().panics_when_looking.store(1, SeqCst);
    assert!(panic::catch_unwind(AssertUnwindSafe(|| lease(&pool))).is_err());
    assert!(!lease(&pool).is_reused());
    assert_at_rest(&pool);
}

#[test]
fn a_panic_in_close_gives_the_place_back() {
    let pool = pool(2, &[0]);
    let (one, two) = (lease(&pool), lease(&pool));
    pool.connector().panics_when_closing.store(1, SeqCst);
    assert!(panic::catch_unwind(AssertUnwindSafe(|| one.finish(BROKEN))).is_err());
    two.finish(KEEP);
    let three = got(pool.acquire(fresh()));
    three.finish(KEEP);
    assert_eq!(pool.counts().idle, 2);
    pool.connector().panics_when_closing.store(1, SeqCst);
    // Both have carried a message; the limit ends both, and the first panic does not keep the second one's place.
    assert!(panic::catch_unwind(AssertUnwindSafe(|| pool.learn_message_limit(HostId(0), 1))).is_err());
    assert_at_rest(&pool);
    let both = [lease(&pool), lease(&pool)];
    drop(both);
    assert_at_rest(&pool);
}

#[test]
fn a_caller_that_panics_on_its_way_leaves_the_queue() {
    let mut limits = limits(1);
    limits.idle_timeout = Some(Duration::from_nanos(1));
    let pool = Pool::unattended(Fake::new(), vec![plan(0, 1)], limits, 1);
    lease(&pool).finish(KEEP);
    // The only place is that of an expired connection: the caller waits for it to be closed, by itself.
    pool.connector().panics_when_closing.store(1, SeqCst);
    assert!(panic::catch_unwind(AssertUnwindSafe(|| lease(&pool))).is_err());
    assert_at_rest(&pool);
    lease(&pool).finish(BROKEN);
    assert_at_rest(&pool);
}

#[test]
fn a_caller_that_panics_with_nothing_in_hand_leaves_the_queue_too() {
    let mut limits = limits(2);
    limits.idle_timeout = Some(Duration::from_nanos(1));
    let mut plans = vec![plan(0, 1), plan(10, 1)];
    plans[0].max_connections = Some(1);
    let pool = Pool::unattended(Fake::new(), plans, limits, 1);
    let held = lease(&pool);
    got(pool.acquire(avoiding(&[0]))).finish(KEEP);
    // The expired connection is of a lower tier, so that its place is no use to the caller that has to close it.
    pool.connector().panics_when_closing.store(1, SeqCst);
    assert!(panic::catch_unwind(AssertUnwindSafe(|| lease(&pool))).is_err());
    assert_eq!(pool.counts().waiting, 0);
    held.finish(BROKEN);
    assert_at_rest(&pool);
}

#[test]
fn waiting_ends_at_the_deadline() {
    let pool = pool(1, &[0]);
    let held = lease(&pool);
    let start = clock::now();
    let error = refused(pool.acquire(Request::by(Deadline::after(Duration::from_millis(30)))));
    assert!(clock::now() - start >= Duration::from_millis(30));
    let AcquireError::Exhausted { cause: None, counts } = error else { panic!("{error:?}") };
    assert_eq!((counts.leased, counts.waiting, counts.total), (1, 0, 1));
    assert_eq!(pool.status().exhausted, 1);
    held.finish(KEEP);
    assert_at_rest(&pool);
}

#[test]
fn a_deadline_that_is_over_gets_an_idle_connection_or_nothing() {
    let pool = pool(2, &[0]);
    let over = || Request::by(Deadline::on(clock::now()));
    assert!(matches!(pool.acquire(over()), Err(AcquireError::Exhausted { .. })));
    assert!(pool.connector().opened().is_empty());
    drop(lease(&pool));
    assert!(got(pool.acquire(over())).is_reused());
    assert_at_rest(&pool);
}

#[test]
fn close_wakes_all_waiters() {
    let pool = pool(1, &[0]);
    let held = lease(&pool);
    let id = held.id();
    thread::scope(|scope| {
        let waiters: Vec<_> = (0..5).map(|_| scope.spawn(|| refused(pool.acquire(soon())))).collect();
        until_waiting(&pool, 5);
        pool.close();
        for waiter in waiters {
            assert!(matches!(waiter.join().unwrap(), AcquireError::ShutDown { .. }));
        }
    });
    pool.close();
    assert!(matches!(pool.acquire(soon()), Err(AcquireError::ShutDown { .. })));
    assert_eq!(pool.connector().fate(id), None);
    held.finish(KEEP);
    assert_eq!(pool.connector().fate(id), Some(Close::Polite));
    assert_eq!(pool.status().discarded.of(DiscardReason::Shutdown), 1);
    assert!(pool.status().is_shut_down);
    assert_at_rest(&pool);
}

#[test]
fn close_ends_idle_connections_at_once() {
    let pool = pool(2, &[0]);
    let (one, two) = (lease(&pool), lease(&pool));
    let ids = [one.id(), two.id()];
    drop((one, two));
    pool.close();
    assert_eq!(ids.map(|id| pool.connector().fate(id)), [Some(Close::Polite); 2]);
    assert_at_rest(&pool);
}

#[test]
fn a_connection_opened_while_the_pool_closes_is_not_lent() {
    let pool = pool(1, &[0]);
    let closer = pool.clone();
    pool.connector().on_open(move |_, _, _| {
        closer.close();
        Ok(())
    });
    assert!(matches!(pool.acquire(soon()), Err(AcquireError::ShutDown { .. })));
    assert_at_rest(&pool);
}

#[test]
fn the_last_handle_closes_what_is_idle() {
    let pool = pool(2, &[0]);
    let gauge = Arc::clone(&pool.connector().gauge);
    let held = lease(&pool);
    drop(lease(&pool));
    drop(pool);
    assert_eq!(gauge.live.load(SeqCst), 1);
    held.finish(KEEP);
    assert_eq!(gauge.live.load(SeqCst), 0);
}

#[test]
fn a_renewal_keeps_its_place_before_all_waiters() {
    let pool = pool(1, &[0]);
    drop(lease(&pool));
    let held = lease(&pool);
    let old = held.id();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| lease(&pool).id());
        until_waiting(&pool, 1);
        let renewed = got(held.renew(Renewal::Stale, fresh(), &mut ()));
        assert!(!renewed.is_reused());
        assert_eq!(pool.counts().waiting, 1);
        let new = renewed.id();
        renewed.finish(KEEP);
        assert_eq!(waiter.join().unwrap(), new);
    });
    assert_eq!(pool.connector().fate(old), Some(Close::Abort));
    assert_at_rest(&pool);
}

#[test]
fn a_fresh_request_makes_room_among_the_idle() {
    let pool = pool(1, &[0]);
    let old = lease(&pool);
    let id = old.id();
    old.finish(KEEP);
    assert!(!got(pool.acquire(fresh())).is_reused());
    assert_eq!(pool.connector().fate(id), Some(Close::Polite));
    assert_eq!(pool.status().discarded.of(DiscardReason::Evicted), 1);
    assert_eq!(pool.connector().gauge.highest.load(SeqCst), 1);
    assert_at_rest(&pool);
}

#[test]
fn sixty_four_threads_never_exceed_max_size() {
    const SIZE: usize = 5;
    let mut limits = limits(SIZE);
    limits.max_messages = Some(7);
    limits.idle_timeout = Some(Duration::from_micros(300));
    limits.reconnect_cooldown = Duration::from_micros(50);
    limits.max_reconnect_cooldown = Duration::from_micros(200);
    let pool = Pool::unattended(Fake::new(), vec![plan(0, 2), plan(0, 1), plan(9, 1)], limits, 11);
    let mut rng = fastrand::Rng::with_seed(3);
    pool.connector().on_open(move |_, _, _| match rng.u8(..) {
        0..20 => Err(Blame::Host),
        20..30 => Err(Blame::Capacity),
        30..40 => Err(Blame::Nobody),
        _ => Ok(()),
    });
    let (leases, refusals) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let start = Barrier::new(64);
    thread::scope(|scope| {
        for seed in 0..64 {
            let (pool, leases, refusals, start) = (&pool, &leases, &refusals, &start);
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(seed);
                start.wait();
                for _ in 0..150 {
                    let timeout = if rng.u8(..) < 40 { Duration::from_micros(rng.u64(..500)) } else { LONG };
                    let mut request = Request::by(Deadline::after(timeout));
                    request.fresh = rng.u8(..) < 10;
                    if rng.bool() {
                        request.avoid.insert(HostId(rng.usize(..3)));
                    }
                    let Ok(lease) = pool.acquire(request) else {
                        refusals.fetch_add(1, SeqCst);
                        continue;
                    };
                    leases.fetch_add(1, SeqCst);
                    let counts = pool.counts();
                    assert!(counts.total <= SIZE && counts.leased >= 1, "{counts}");
                    match rng.u8(..) {
                        0..20 => lease.finish(BROKEN),
                        20..40 => drop(lease),
                        40..50 => drop(lease.renew(Renewal::Stale, fresh(), &mut ())),
                        50..60 => pool.connector().kill(lease.id()),
                        _ => lease.finish(KEEP),
                    }
                }
            });
        }
    });
    assert!(pool.connector().gauge.highest.load(SeqCst) <= SIZE);
    assert_eq!(leases.load(SeqCst) + refusals.load(SeqCst), 64 * 150);
    assert!(leases.load(SeqCst) > 64 * 20, "{leases:?}");
    assert_at_rest(&pool);
}

#[test]
fn a_connector_may_call_back_into_the_pool() {
    let pool = pool(2, &[0]);
    let inner = pool.clone();
    pool.connector().on_open(move |_, _, _| {
        assert_eq!(inner.counts().connecting, 1);
        Ok(())
    });
    lease(&pool).finish(KEEP);
    until(|| pool.counts().idle == 1);
    pool.connector().on_open(|_, _, _| Ok(()));
}
