//! A caller that wants nothing any more.

use std::sync::mpsc;
use std::thread;

use crate::blame::Blame;
use crate::cancel::CancelToken;
use crate::clock::{self, Deadline};
use crate::endpoint::HostId;
use crate::pool::slot::Gift;
use crate::pool::tests::desk::{Desk, taken};
use crate::pool::tests::fake::{LONG, assert_at_rest, got, lease, plan, pool, refused, soon, until, until_waiting};
use crate::pool::{AcquireError, Fate, Request};
use crate::stats::HostState;

const KEEP: Fate = Fate::Keep { delivered: true };

fn with(token: &CancelToken) -> Request {
    Request { cancel: Some(token.clone()), ..soon() }
}

fn only(host: usize) -> Request {
    Request { only: Some(HostId(host)), ..soon() }
}

#[test]
fn a_cancelled_call_gets_nothing() {
    let pool = pool(2, &[0]);
    let token = CancelToken::new();
    token.cancel();
    assert!(matches!(pool.acquire(with(&token)), Err(AcquireError::Cancelled { .. })));
    assert!(pool.connector().opened().is_empty());
    // Not even what is there.
    drop(lease(&pool));
    assert!(matches!(pool.acquire(with(&token)), Err(AcquireError::Cancelled { .. })));
    assert_eq!(pool.counts().idle, 1);
    assert_at_rest(&pool);
}

#[test]
fn a_cancelled_call_whose_time_is_over_is_counted_as_no_exhaustion() {
    let pool = pool(1, &[0]);
    let held = lease(&pool);
    let token = CancelToken::new();
    token.cancel();
    let late = Request { deadline: Deadline::on(clock::now()), ..with(&token) };
    assert!(matches!(pool.acquire(late.clone()), Err(AcquireError::Cancelled { .. })));
    assert_eq!(pool.status().exhausted, 0, "as observers are told");
    assert!(matches!(pool.acquire(Request { cancel: None, ..late }), Err(AcquireError::Exhausted { .. })));
    assert_eq!(pool.status().exhausted, 1);
    held.finish(KEEP);
    assert_at_rest(&pool);
}

#[test]
fn cancelling_wakes_a_waiter() {
    let pool = pool(1, &[0]);
    let held = lease(&pool);
    let token = CancelToken::new();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| refused(pool.acquire(with(&token))));
        until_waiting(&pool, 1);
        let start = clock::now();
        token.cancel();
        let AcquireError::Cancelled { counts, .. } = waiter.join().unwrap() else { panic!() };
        assert!(clock::now() - start < LONG / 4);
        assert_eq!((counts.leased, counts.waiting), (1, 0));
    });
    assert_eq!(pool.status().exhausted, 0);
    held.finish(KEEP);
    assert_at_rest(&pool);
}

#[test]
fn a_cancelled_waiter_in_the_middle_of_the_queue_holds_nobody_up() {
    let pool = pool(1, &[0]);
    let held = lease(&pool);
    let token = CancelToken::new();
    let (served, order) = mpsc::channel();
    thread::scope(|scope| {
        for number in 0..5 {
            let (pool, served, token) = (&pool, served.clone(), &token);
            scope.spawn(move || {
                let request = if number == 2 { with(token) } else { soon() };
                match pool.acquire(request) {
                    Ok(lease) => {
                        served.send(number).unwrap();
                        lease.finish(KEEP);
                    }
                    Err(error) => assert!(number == 2 && matches!(error, AcquireError::Cancelled { .. })),
                }
            });
            until_waiting(pool, number + 1);
        }
        token.cancel();
        until_waiting(&pool, 4);
        held.finish(KEEP);
        let order: Vec<_> = (0..4).map(|_| order.recv_timeout(LONG).unwrap()).collect();
        assert_eq!(order, [0, 1, 3, 4]);
    });
    assert_at_rest(&pool);
}

#[test]
fn a_gift_that_comes_with_the_cancellation_is_passed_on() {
    let mut desk = Desk::new(1, vec![plan(0, 1)]);
    let record = desk.lease(desk.request(10));
    let (_, cancelled) = desk.wait(desk.request(10));
    let (_, next) = desk.wait(desk.request(10));
    desk.give_back(record);
    // The gift is on its way.
    cancelled.cancel();
    desk.deliver();
    assert!(taken(&cancelled).is_none());
    assert!(matches!(taken(&next), Some(Gift::Connection(..))));
    assert_eq!(desk.state.counts().leased, 1);
}

#[test]
fn gifts_and_cancellations_that_race_lose_no_place() {
    let pool = pool(2, &[0]);
    thread::scope(|scope| {
        for seed in 0..8 {
            let pool = &pool;
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(seed);
                for _ in 0..300 {
                    let token = CancelToken::new();
                    thread::scope(|scope| {
                        if rng.bool() {
                            scope.spawn(|| token.cancel());
                        }
                        match pool.acquire(with(&token)) {
                            Ok(lease) => lease.finish(KEEP),
                            Err(error) => assert!(matches!(error, AcquireError::Cancelled { .. }), "{error:?}"),
                        }
                    });
                }
            });
        }
    });
    assert_at_rest(&pool);
    let both = (lease(&pool), lease(&pool));
    drop(both);
}

#[test]
fn cancelling_an_open_cools_nobody() {
    let pool = pool(2, &[0, 10]);
    let token = CancelToken::new();
    let (entered, is_in) = mpsc::channel();
    pool.connector().on_open_with_token(move |_, _, _, token| {
        // As a connector should: its wait ends with the token.
        let (cut, is_cut) = mpsc::channel();
        let _hook = token.unwrap().on_cancel(move || cut.send(()).unwrap());
        entered.send(()).unwrap();
        is_cut.recv_timeout(LONG).unwrap();
        Err(Blame::Host)
    });
    thread::scope(|scope| {
        let caller = scope.spawn(|| refused(pool.acquire(with(&token))));
        is_in.recv_timeout(LONG).unwrap();
        token.cancel();
        assert!(matches!(caller.join().unwrap(), AcquireError::Cancelled { .. }));
    });
    let status = pool.status();
    assert_eq!((status.create_failures, status.hosts[0].consecutive_failures), (0, 0));
    assert_eq!((status.hosts[0].state, &status.hosts[0].last_error), (HostState::Available, &None));
    assert_eq!(pool.connector().opened().len(), 1);
    assert_at_rest(&pool);
}

#[test]
fn cancelling_the_probe_lets_the_next_one_probe() {
    let mut desk = Desk::new(2, vec![plan(0, 1)]);
    desk.cool(0);
    desk.now += crate::pool::tests::desk::SECOND * 30;
    let (_, grant) = desk.permit(desk.request(10));
    desk.state.permit_returned(grant, desk.now, &mut desk.fx);
    assert_eq!(desk.host_state(0), HostState::Available);
    desk.permit(desk.request(10));
}

#[test]
fn what_was_opened_in_spite_of_a_cancellation_is_of_use_to_others() {
    let pool = pool(1, &[0]);
    let token = CancelToken::new();
    let (entered, is_in) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    pool.connector().on_open(move |_, _, _| {
        entered.send(()).unwrap();
        wait.recv_timeout(LONG).unwrap();
        Ok(())
    });
    thread::scope(|scope| {
        let caller = scope.spawn(|| refused(pool.acquire(with(&token))));
        is_in.recv_timeout(LONG).unwrap();
        let waiter = scope.spawn(|| {
            let lease = lease(&pool);
            assert!(lease.is_reused(), "it has been idle, if only for a moment");
            lease.finish(KEEP);
        });
        until_waiting(&pool, 1);
        token.cancel();
        go.send(()).unwrap();
        assert!(matches!(caller.join().unwrap(), AcquireError::Cancelled { .. }));
        waiter.join().unwrap();
    });
    assert_eq!(pool.connector().opened().len(), 1);
    assert_at_rest(&pool);
}

#[test]
fn a_token_that_outlives_its_call_has_no_say_any_more() {
    let pool = pool(1, &[0]);
    let token = CancelToken::new();
    got(pool.acquire(with(&token))).finish(KEEP);
    token.cancel();
    assert!(lease(&pool).is_reused());
}

#[test]
fn only_the_named_host_serves() {
    let pool = pool(3, &[0, 0, 10]);
    for host in [2, 1, 0, 2] {
        assert_eq!(got(pool.acquire(only(host))).host(), HostId(host));
    }
    assert_eq!(pool.counts().idle, 3);
    pool.connector().down(1, Blame::Host);
    pool.connector().kill(got(pool.acquire(only(1))).id());
    let error = refused(pool.acquire(only(1)));
    assert!(matches!(error, AcquireError::Unavailable { cause: Some((HostId(1), _)), retry_after: Some(_), .. }));
    // Nothing to do with the others.
    let error = refused(pool.acquire(only(1)));
    assert!(matches!(error, AcquireError::Unavailable { last_error: Some((HostId(1), _)), .. }), "{error:?}");
    assert_at_rest(&pool);
}

#[test]
fn the_named_host_finds_room_among_the_idle_and_waits_for_the_busy() {
    let pool = pool(1, &[0, 10]);
    drop(lease(&pool));
    let held = got(pool.acquire(only(1)));
    assert_eq!(held.host(), HostId(1));
    thread::scope(|scope| {
        let waiter = scope.spawn(|| got(pool.acquire(only(0))).host());
        until_waiting(&pool, 1);
        held.finish(KEEP);
        assert_eq!(waiter.join().unwrap(), HostId(0));
    });
    until(|| pool.counts().leased == 0);
    assert_at_rest(&pool);
}
