//! Opening that fails: who is tried next, who pauses, who is told.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::blame::Blame;
use crate::clock::{self, Deadline};
use crate::endpoint::HostId;
use crate::pool::tests::fake::{
    Fake, LONG, assert_at_rest, avoiding, fresh, got, lease, limits, plan, pool, refused, soon, until, until_waiting,
};
use crate::pool::{AcquireError, Close, Fate, Pool, Renewal, Request};
use crate::stats::{DiscardReason, HostState};

const KEEP: Fate = Fate::Keep { delivered: true };
const BROKEN: Fate = Fate::Discard(DiscardReason::Broken, Close::Abort);

fn within(timeout: Duration) -> Request {
    Request::by(Deadline::after(timeout))
}

fn is_cooling(pool: &Pool<Fake>, host: usize) -> bool {
    matches!(pool.status().hosts[host].state, HostState::CoolingDown { .. })
}

#[test]
fn a_refused_primary_is_followed_by_the_secondary_in_the_same_call() {
    let pool = pool(2, &[0, 10]);
    pool.connector().down(0, Blame::Host);
    assert_eq!(lease(&pool).host(), HostId(1));
    assert!(is_cooling(&pool, 0) && !is_cooling(&pool, 1));
    let status = pool.status();
    assert_eq!((status.create_failures, status.hosts[0].consecutive_failures), (1, 1));
    assert_eq!(status.hosts[0].last_error.as_deref(), Some("host 0 is down"));
    // While it cools nobody asks it again.
    let opened = pool.connector().opened().len();
    (0..5).for_each(|_| assert_eq!(lease(&pool).host(), HostId(1)));
    assert_eq!(pool.connector().opened().len(), opened);
    assert_at_rest(&pool);
}

#[test]
fn when_all_hosts_failed_the_last_failure_is_told_at_once() {
    let pool = pool(2, &[0, 10]);
    pool.connector().down(0, Blame::Host);
    pool.connector().down(1, Blame::Host);
    let start = clock::now();
    let error = refused(pool.acquire(soon()));
    let AcquireError::Unavailable { cause: Some((HostId(1), cause)), retry_after: Some(after), .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(cause, "host 1 is down");
    assert!(after <= Duration::from_secs(30) && after > Duration::from_secs(20), "{after:?}");
    // The next caller is not told of a failure of its own, but of the last one, and opens nothing.
    let error = refused(pool.acquire(soon()));
    let AcquireError::Unavailable { cause: None, last_error: Some((HostId(1), text)), .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(&*text, "host 1 is down");
    assert_eq!(pool.connector().opened().len(), 2);
    assert!(clock::now() - start < LONG / 4);
    assert_at_rest(&pool);
}

#[test]
fn one_try_gets_an_equal_share_of_the_time_while_others_remain() {
    let pool = pool(2, &[0, 1, 2]);
    let (tell, told) = mpsc::channel();
    pool.connector().on_open(move |host, _, deadline| {
        tell.send((host, deadline.remaining())).unwrap();
        Err(Blame::Host)
    });
    refused(pool.acquire(within(Duration::from_secs(60))));
    for (host, share) in [(0, 20), (1, 30), (2, 60)] {
        let (tried, left) = told.recv().unwrap();
        assert_eq!(tried, HostId(host));
        assert!(left <= Duration::from_secs(share) && left > Duration::from_secs(share - 3), "{left:?}");
    }
}

#[test]
fn local_shortage_blames_no_host() {
    let pool = pool(2, &[0, 10]);
    pool.connector().down(0, Blame::Local);
    let error = refused(pool.acquire(soon()));
    assert!(matches!(error, AcquireError::Local { host: HostId(0), .. }), "{error:?}");
    assert!(!is_cooling(&pool, 0));
    assert_eq!(pool.connector().opened().len(), 1);
    pool.connector().up(0);
    assert_eq!(lease(&pool).host(), HostId(0));
    assert_at_rest(&pool);
}

#[test]
fn a_failure_that_blames_nobody_goes_to_the_next_host_without_a_cooldown() {
    let pool = pool(2, &[0, 10]);
    pool.connector().down(0, Blame::Nobody);
    assert_eq!(lease(&pool).host(), HostId(1));
    assert!(!is_cooling(&pool, 0));
    pool.connector().down(1, Blame::Nobody);
    let error = refused(pool.acquire(fresh()));
    assert!(matches!(error, AcquireError::Unavailable { cause: Some(_), retry_after: None, .. }), "{error:?}");
    assert_at_rest(&pool);
}

#[test]
fn refused_credentials_pause_the_host_as_long_as_allowed() {
    let pool = pool(2, &[0]);
    pool.connector().down(0, Blame::Credentials);
    let AcquireError::Unavailable { retry_after: Some(after), .. } = refused(pool.acquire(soon())) else { panic!() };
    assert!(after > Duration::from_secs(290), "{after:?}");
}

#[test]
fn capacity_refusal_waits_for_a_live_connection() {
    let pool = pool(4, &[0]);
    let held = lease(&pool);
    let id = held.id();
    pool.connector().down(0, Blame::Capacity);
    thread::scope(|scope| {
        let caller = scope.spawn(|| lease(&pool).id());
        until_waiting(&pool, 1);
        let status = pool.status();
        assert_eq!(status.hosts[0].connection_limit, Some(1));
        assert!(!is_cooling(&pool, 0));
        // The second caller does not even try.
        let second = scope.spawn(|| lease(&pool).id());
        until_waiting(&pool, 2);
        assert_eq!(pool.connector().opened().len(), 2);
        held.finish(KEEP);
        assert_eq!((caller.join().unwrap(), second.join().unwrap()), (id, id));
    });
    assert_at_rest(&pool);
}

#[test]
fn a_learned_capacity_grows_again_after_many_messages() {
    let pool = pool(4, &[0]);
    let held = lease(&pool);
    pool.connector().down(0, Blame::Capacity);
    assert!(matches!(
        pool.acquire(within(Duration::from_millis(5))),
        Err(AcquireError::Exhausted { cause: Some((HostId(0), _)), .. })
    ));
    pool.connector().up(0);
    held.finish(KEEP);
    for _ in 1..99 {
        lease(&pool).finish(KEEP);
    }
    assert_eq!(pool.status().hosts[0].connection_limit, Some(1));
    lease(&pool).finish(KEEP);
    assert_eq!(pool.status().hosts[0].connection_limit, Some(2));
    let pair = (lease(&pool), lease(&pool));
    drop(pair);
}

#[test]
fn a_capacity_refusal_without_live_connections_is_a_failed_host() {
    let pool = pool(4, &[0]);
    pool.connector().down(0, Blame::Capacity);
    assert!(matches!(pool.acquire(soon()), Err(AcquireError::Unavailable { cause: Some(_), .. })));
    assert!(is_cooling(&pool, 0));
}

#[test]
fn a_failed_open_passes_its_place_to_a_waiter() {
    let pool = pool(1, &[0]);
    let (entered, is_in) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    pool.connector().on_open(move |_, id, _| {
        entered.send(id).unwrap();
        wait.recv_timeout(LONG).unwrap();
        if id == 1 { Err(Blame::Nobody) } else { Ok(()) }
    });
    thread::scope(|scope| {
        let unlucky = scope.spawn(|| refused(pool.acquire(soon())));
        is_in.recv_timeout(LONG).unwrap();
        let waiter = scope.spawn(|| lease(&pool).id());
        until_waiting(&pool, 1);
        go.send(()).unwrap();
        assert!(matches!(unlucky.join().unwrap(), AcquireError::Unavailable { cause: Some(_), .. }));
        is_in.recv_timeout(LONG).unwrap();
        go.send(()).unwrap();
        assert_eq!(waiter.join().unwrap(), 2);
    });
    assert_at_rest(&pool);
}

#[test]
fn a_caller_whose_open_failed_keeps_its_turn() {
    let mut plans = vec![plan(0, 1), plan(10, 1)];
    plans[1].max_connections = Some(1);
    let pool = Pool::unattended(Fake::new(), plans, limits(4), 1);
    // The only connection that the secondary may have.
    let held = got(pool.acquire(avoiding(&[0])));
    assert_eq!(held.host(), HostId(1));
    let (entered, is_in) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    pool.connector().on_open(move |_, _, _| {
        entered.send(()).unwrap();
        wait.recv_timeout(LONG).unwrap();
        Err(Blame::Host)
    });
    let (served, order) = mpsc::channel();
    thread::scope(|scope| {
        let (mine, shared) = (served.clone(), &pool);
        scope.spawn(move || {
            let lease = lease(shared);
            mine.send("first").unwrap();
            lease.finish(KEEP);
        });
        is_in.recv_timeout(LONG).unwrap();
        scope.spawn(|| {
            let lease = got(pool.acquire(avoiding(&[0])));
            served.send("second").unwrap();
            lease.finish(KEEP);
        });
        until_waiting(&pool, 1);
        go.send(()).unwrap();
        until_waiting(&pool, 2);
        held.finish(KEEP);
        assert_eq!(order.recv_timeout(LONG).unwrap(), "first");
        assert_eq!(order.recv_timeout(LONG).unwrap(), "second");
    });
}

#[test]
fn waiters_fail_at_once_when_the_probe_fails_beyond_their_deadline() {
    let mut limits = limits(4);
    limits.reconnect_cooldown = Duration::from_millis(1);
    limits.max_reconnect_cooldown = Duration::from_secs(3600);
    let pool = Pool::unattended(Fake::new(), vec![plan(0, 1)], limits, 1);
    pool.connector().down(0, Blame::Host);
    refused(pool.acquire(soon()));
    let (entered, is_in) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    pool.connector().on_open(move |_, _, _| {
        entered.send(()).unwrap();
        wait.recv_timeout(LONG).unwrap();
        Err(Blame::Credentials)
    });
    until(|| !is_cooling(&pool, 0));
    thread::scope(|scope| {
        let probe = scope.spawn(|| refused(pool.acquire(soon())));
        is_in.recv_timeout(LONG).unwrap();
        assert_eq!(pool.status().hosts[0].state, HostState::Probing);
        let waiters: Vec<_> = (0..3).map(|_| scope.spawn(|| refused(pool.acquire(soon())))).collect();
        until_waiting(&pool, 3);
        let start = clock::now();
        go.send(()).unwrap();
        assert!(matches!(probe.join().unwrap(), AcquireError::Unavailable { cause: Some(_), .. }));
        for waiter in waiters {
            let error = waiter.join().unwrap();
            assert!(matches!(error, AcquireError::Unavailable { cause: None, retry_after: Some(_), .. }), "{error:?}");
        }
        assert!(clock::now() - start < LONG / 4);
    });
    // Two tries in all: the waiters made none.
    assert_eq!(pool.connector().opened().len(), 2);
    assert_at_rest(&pool);
}

#[test]
fn a_waiter_outwaits_a_cooldown_that_ends_in_time() {
    let mut limits = limits(4);
    limits.reconnect_cooldown = Duration::from_millis(40);
    let pool = Pool::unattended(Fake::new(), vec![plan(0, 1)], limits, 1);
    pool.connector().down(0, Blame::Host);
    let start = clock::now();
    refused(pool.acquire(soon()));
    pool.connector().up(0);
    thread::scope(|scope| {
        let waiters: Vec<_> = (0..3).map(|_| scope.spawn(|| drop(lease(&pool)))).collect();
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
    });
    let waited = clock::now() - start;
    assert!(waited >= Duration::from_millis(40) && waited < LONG / 4, "{waited:?}");
    assert_eq!(pool.status().hosts[0].consecutive_failures, 0);
    assert_at_rest(&pool);
}

#[test]
fn the_next_in_line_keeps_time_when_the_first_has_left() {
    let mut limits = limits(4);
    limits.reconnect_cooldown = Duration::from_millis(80);
    let pool = Pool::unattended(Fake::new(), vec![plan(0, 1), plan(1, 1)], limits, 1);
    // The second host keeps hope alive for one whose deadline is before the end of the cooldown.
    let held = got(pool.acquire(avoiding(&[0])));
    pool.connector().down(0, Blame::Host);
    pool.connector().down(1, Blame::Host);
    refused(pool.acquire(fresh()));
    pool.connector().up(0);
    pool.connector().up(1);
    thread::scope(|scope| {
        let first = scope.spawn(|| refused(pool.acquire(within(Duration::from_millis(20)))));
        until_waiting(&pool, 1);
        let second = scope.spawn(|| lease(&pool));
        assert!(matches!(first.join().unwrap(), AcquireError::Exhausted { .. }));
        assert!(!second.join().unwrap().is_reused());
    });
    held.finish(KEEP);
}

#[test]
fn a_dead_idle_connection_is_replaced_in_the_same_call() {
    let pool = pool(1, &[0]);
    let first = lease(&pool);
    let id = first.id();
    first.finish(KEEP);
    pool.connector().kill(id);
    let second = lease(&pool);
    assert_ne!(second.id(), id);
    assert!(!second.is_reused());
    assert_eq!(pool.connector().fate(id), Some(Close::Abort));
    assert_eq!(pool.status().discarded.of(DiscardReason::ServerClosed), 1);
}

#[test]
fn a_dead_idle_connection_takes_those_that_were_idle_as_long_along() {
    let pool = pool(3, &[0]);
    let leases: Vec<_> = (0..3).map(|_| lease(&pool)).collect();
    let ids: Vec<_> = leases.iter().map(|lease| lease.id()).collect();
    leases.into_iter().for_each(|lease| lease.finish(KEEP));
    pool.connector().kill(ids[2]);
    let lease = lease(&pool);
    assert_eq!(pool.connector().looked_at(), [ids[2]]);
    assert_eq!(pool.counts().total, 1);
    assert_eq!(pool.status().discarded.of(DiscardReason::ServerClosed), 3);
    drop(lease);
    assert_at_rest(&pool);
}

#[test]
fn a_stale_connection_takes_its_older_siblings_along() {
    let pool = pool(4, &[0]);
    let (one, two, three) = (lease(&pool), lease(&pool), lease(&pool));
    let ids = [one.id(), two.id(), three.id()];
    one.finish(KEEP);
    two.finish(KEEP);
    let stale = lease(&pool);
    assert_eq!(stale.id(), ids[1]);
    // Put away later: it has been in use meanwhile.
    three.finish(KEEP);
    let renewed = got(stale.renew(Renewal::Stale, fresh(), &mut ()));
    assert!(!renewed.is_reused());
    let fates = ids.map(|id| pool.connector().fate(id));
    assert_eq!(fates, [Some(Close::Abort), Some(Close::Abort), None]);
    renewed.finish(KEEP);
    assert_at_rest(&pool);
}

#[test]
fn a_session_limit_leaves_the_siblings() {
    let pool = pool(4, &[0]);
    let pair = (lease(&pool), lease(&pool));
    drop(pair);
    let lease = lease(&pool);
    let id = lease.id();
    let renewed = got(lease.renew(Renewal::SessionLimit, fresh(), &mut ()));
    assert_eq!(pool.connector().fate(id), Some(Close::Polite));
    assert_eq!((pool.counts().idle, pool.counts().leased), (1, 1));
    assert_eq!(pool.status().discarded.of(DiscardReason::MaxMessages), 1);
    drop(renewed);
    assert_at_rest(&pool);
}

#[test]
fn a_replacement_is_opened_on_the_same_host() {
    let pool = pool(4, &[0, 0]);
    // The rotation is now in favour of the other host; but this lease is paid for.
    let renewed = got(lease(&pool).renew(Renewal::Stale, fresh(), &mut ()));
    assert_eq!(renewed.host(), HostId(0));
    let other = lease(&pool);
    assert_eq!(other.host(), HostId(1));
    drop((renewed, other));
    let idle = lease(&pool);
    let (host, id) = (idle.host(), idle.id());
    drop(idle);
    pool.connector().kill(id);
    // Its turn comes round again.
    let replaced = (0..2).map(|_| lease(&pool)).find(|lease| lease.host() == host).map(|lease| lease.is_reused());
    assert_eq!(replaced, Some(false));
    assert_at_rest(&pool);
}

#[test]
fn a_renewal_goes_elsewhere_when_its_host_is_down() {
    let pool = pool(1, &[0, 10]);
    let lease = lease(&pool);
    pool.connector().down(0, Blame::Host);
    let renewed = got(lease.renew(Renewal::Reauthenticate, fresh(), &mut ()));
    assert_eq!(renewed.host(), HostId(1));
    assert_eq!(pool.status().discarded.of(DiscardReason::AuthFailure), 1);
    renewed.finish(BROKEN);
    assert_at_rest(&pool);
}
