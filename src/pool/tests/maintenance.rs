//! The thread that looks after a pool, with a connector that does as it is told.

use std::collections::HashSet;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::blame::Blame;
use crate::clock::{self, Deadline};
use crate::endpoint::HostId;
use crate::pool::tests::fake::{
    Fake, LONG, Probe, assert_at_rest, at_rest, attended, fresh, got, lease, limits, plan, refused, soon, until,
    until_waiting,
};
use crate::pool::{Close, Fate, Limits, Pool, Request};
use crate::stats::{DiscardReason, HostState};
use crate::sync::Mutex;

const KEEP: Fate = Fate::Keep { delivered: true };
const MILLI: Duration = Duration::from_millis(1);

fn with(max_size: usize, change: impl FnOnce(&mut Limits)) -> Pool<Fake> {
    let mut limits = limits(max_size);
    change(&mut limits);
    attended(Fake::new(), vec![plan(0, 1)], limits)
}

fn idle(pool: &Pool<Fake>, count: usize) -> Vec<u64> {
    let leases: Vec<_> = (0..count).map(|_| lease(pool)).collect();
    let ids = leases.iter().map(|lease| lease.id()).collect();
    leases.into_iter().for_each(|lease| lease.finish(KEEP));
    ids
}

#[test]
fn idle_connections_end_by_themselves() {
    let pool = with(4, |limits| limits.idle_timeout = Some(MILLI * 20));
    let ids = idle(&pool, 3);
    until(|| at_rest(&pool) && pool.counts().idle == 0);
    assert!(ids.iter().all(|&id| pool.connector().fate(id) == Some(Close::Polite)));
    assert_eq!(pool.status().discarded.of(DiscardReason::IdleTimeout), 3);
}

#[test]
fn goodbyes_are_said_by_the_thread() {
    let pool = with(4, |limits| limits.max_messages = Some(1));
    let (tell, told) = mpsc::channel();
    pool.connector().on_close(move |_| tell.send(thread::current().name().map(str::to_owned)).unwrap());
    let first = lease(&pool);
    first.finish(KEEP);
    assert_eq!(told.recv_timeout(LONG).unwrap().as_deref(), Some("smtp-pool-maintenance"));
    lease(&pool).finish(Fate::Discard(DiscardReason::ServerClosed, Close::Polite));
    assert_eq!(told.recv_timeout(LONG).unwrap().as_deref(), Some("smtp-pool-maintenance"));
    until(|| at_rest(&pool));
}

#[test]
fn a_place_left_to_a_busy_thread_is_had_at_once() {
    let pool = with(2, |limits| {
        limits.keepalive_interval = Some(MILLI);
        limits.max_messages = Some(1);
    });
    let (entered, is_in) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    pool.connector().on_probe(move |_| {
        if entered.send(()).is_ok() {
            wait.lock().recv_timeout(LONG).ok();
        }
    });
    let second = lease(&pool);
    drop(lease(&pool));
    is_in.recv_timeout(LONG).unwrap();
    drop(is_in);
    // One place is that of the connection being asked; the other one is left to the thread.
    let id = second.id();
    second.finish(KEEP);
    assert_eq!((pool.counts().total, pool.connector().fate(id)), (1, None));
    let start = clock::now();
    assert!(!lease(&pool).is_reused());
    assert!(clock::now() - start < LONG / 4);
    assert_eq!(pool.connector().fate(id), Some(Close::Polite));
    assert_eq!(pool.connector().gauge.highest.load(SeqCst), 2);
    drop(go);
}

#[test]
fn keepalive_is_written_to_all_before_any_answer_is_awaited() {
    let pool = with(4, |limits| limits.keepalive_interval = Some(MILLI * 30));
    let ids: HashSet<_> = idle(&pool, 4).into_iter().collect();
    until(|| pool.connector().probes().len() >= 8);
    let probes = pool.connector().probes();
    // All were put away within the same moment; a slow machine may have made it two rounds.
    let mut asked = 0;
    let mut deadline = None;
    for probe in &probes[..8] {
        match *probe {
            Probe::Asked(id) => {
                assert!(ids.contains(&id));
                asked += 1;
                deadline = None;
            }
            Probe::Awaited(_, until) => {
                assert!(deadline.is_none_or(|shared| shared == until), "one deadline for all of a round");
                assert!(until.remaining() <= Duration::from_secs(1));
                deadline = Some(until);
                asked -= 1;
            }
        }
        assert!(asked >= 0);
    }
    assert!(matches!(probes[..2], [Probe::Asked(_), Probe::Asked(_)]), "{probes:?}");
    until(|| pool.counts().idle == 4);
    assert!(pool.connector().opened().len() == 4);
}

#[test]
fn a_connection_that_does_not_answer_is_discarded_and_the_others_stay() {
    let pool = with(3, |limits| limits.keepalive_interval = Some(MILLI * 20));
    let ids = idle(&pool, 3);
    pool.connector().mute(ids[0]);
    pool.connector().kill(ids[1]);
    until(|| pool.status().discarded.of(DiscardReason::KeepaliveFailure) == 2);
    until(|| pool.counts().idle == 1);
    assert_eq!([0, 1, 2].map(|at| pool.connector().fate(ids[at])), [Some(Close::Abort), Some(Close::Abort), None]);
}

#[test]
fn a_connection_that_answers_goes_to_whoever_waits() {
    let pool = with(1, |limits| limits.keepalive_interval = Some(MILLI * 10));
    let (entered, is_in) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    pool.connector().on_probe(move |probe| {
        if matches!(probe, Probe::Awaited(..)) && entered.send(()).is_ok() {
            wait.lock().recv_timeout(LONG).ok();
        }
    });
    let id = idle(&pool, 1)[0];
    is_in.recv_timeout(LONG).unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| lease(&pool).id());
        until_waiting(&pool, 1);
        drop(is_in);
        go.send(()).unwrap();
        assert_eq!(waiter.join().unwrap(), id);
    });
}

#[test]
fn an_idle_pool_wakes_once_for_each_round() {
    let pool = with(4, |limits| limits.keepalive_interval = Some(MILLI * 25));
    idle(&pool, 3);
    let rounds = || {
        let probes = pool.connector().probes();
        probes.windows(2).filter(|pair| matches!(pair, [Probe::Awaited(..), Probe::Asked(_)])).count()
    };
    until(|| rounds() >= 6);
    // Up to one ring for each connection that was opened, put away or retired.
    let wakes = pool.shared.wakes.load(SeqCst);
    let events = rounds() + 1 + 3 * 3;
    assert!(wakes <= events, "{wakes} wakes for {events} events");
}

#[test]
fn reserve_is_there_without_being_asked_for_and_comes_back() {
    let pool = with(8, |limits| limits.min_idle = 4);
    until(|| pool.counts().idle == 4 && at_rest(&pool));
    // The server restarts.
    for (_, id) in pool.connector().opened() {
        pool.connector().kill(id);
    }
    let lease = got(pool.acquire(soon()));
    until(|| pool.counts().idle == 4 && pool.counts().connecting == 0);
    // SPEC §3 keeps so many *idle*: what is lent may never come back, and comes on top of them if it does.
    lease.finish(KEEP);
    until(|| at_rest(&pool));
    assert_eq!(pool.counts().idle, 5);
    assert!(pool.status().discarded.of(DiscardReason::ServerClosed) == 4);
    assert!(pool.connector().gauge.highest.load(SeqCst) <= 8);
}

#[test]
fn reserve_never_exceeds_max_size() {
    let pool = with(4, |limits| {
        limits.min_idle = 4;
        limits.max_messages = Some(5);
    });
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..200).for_each(|_| lease(&pool).finish(KEEP)));
        }
    });
    until(|| pool.counts().idle == 4 && at_rest(&pool));
    assert!(pool.connector().gauge.highest.load(SeqCst) <= 4);
    assert_at_rest(&pool);
}

#[test]
fn a_black_holed_refill_does_not_hold_up_the_care_of_others() {
    let mut limits = limits(6);
    limits.keepalive_interval = Some(MILLI * 20);
    let pool = attended(Fake::new(), vec![plan(0, 1), plan(10, 1)], Limits { min_idle: 1, ..limits.clone() });
    until(|| pool.counts().idle == 1 && at_rest(&pool));
    let (entered, is_in) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    pool.connector().on_open(move |_, _, _| {
        if thread::current().name() == Some("smtp-pool-refill") {
            entered.send(()).unwrap();
            wait.recv_timeout(LONG).ok();
        }
        Ok(())
    });
    let held = lease(&pool);
    // The reserve has been lent, and another one is being opened, for ever.
    is_in.recv_timeout(LONG).unwrap();
    assert_eq!(pool.counts().connecting, 1);
    held.finish(KEEP);
    let before = pool.connector().probes().len();
    until(|| pool.connector().probes().len() >= before + 4);
    assert_eq!(pool.counts().connecting, 1);
    drop(go);
    until(|| pool.counts().connecting == 0);
}

#[test]
fn one_probe_after_cooldown_whoever_comes() {
    let mut limits = limits(8);
    limits.reconnect_cooldown = MILLI * 60;
    limits.max_reconnect_cooldown = Duration::from_secs(60);
    limits.min_idle = 3;
    let fake = Fake::new();
    fake.down(0, Blame::Host);
    let pool = attended(fake, vec![plan(0, 1)], limits);
    until(|| pool.connector().opened().len() == 1 && pool.counts().connecting == 0);
    let (tell, told) = mpsc::channel();
    pool.connector().on_open(move |_, _, _| {
        tell.send(()).unwrap();
        // Long enough for everybody to come.
        thread::park_timeout(MILLI * 50);
        Err(Blame::Host)
    });
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| refused(pool.acquire(Request::by(Deadline::after(MILLI * 400)))));
        }
    });
    until(|| at_rest(&pool));
    // One for the second round of sixteen callers and the reserve; then it cools for twice as long, and so on.
    let rounds = pool.status().hosts[0].consecutive_failures;
    assert_eq!(told.try_iter().count() + 1, rounds as usize);
    assert_eq!(pool.connector().opened().len(), rounds as usize);
    assert!(!matches!(pool.status().hosts[0].state, HostState::Available));
}

#[test]
fn failures_of_sixty_four_threads_enter_the_cooldown_once() {
    const THREADS: usize = 64;
    let pool = with(THREADS, |_| {});
    let (tell, told) = mpsc::channel();
    let all = std::sync::Arc::new(std::sync::Barrier::new(THREADS));
    let barrier = std::sync::Arc::clone(&all);
    pool.connector().on_open_together(move |_| {
        tell.send(()).unwrap();
        barrier.wait();
        Err(Blame::Host)
    });
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| refused(pool.acquire(soon())));
        }
    });
    assert_eq!(told.try_iter().count(), THREADS);
    let status = pool.status();
    assert_eq!(status.hosts[0].consecutive_failures, u32::try_from(THREADS).unwrap());
    let HostState::CoolingDown { until } = status.hosts[0].state else { panic!("{status:?}") };
    // The first pause, not the sixty-fourth.
    assert!(until <= clock::now() + Duration::from_secs(30));
}

#[test]
fn sending_goes_on_without_the_thread() {
    let pool = with(2, |limits| {
        limits.keepalive_interval = Some(MILLI);
        limits.max_messages = Some(3);
    });
    pool.connector().on_probe(|_| panic!("told to panic"));
    let id = idle(&pool, 1)[0];
    until(|| pool.connector().fate(id) == Some(Close::Abort));
    assert!(pool.join(Deadline::after(LONG)));
    for _ in 0..7 {
        lease(&pool).finish(KEEP);
    }
    // Its callers say goodbye themselves.
    assert_eq!(pool.status().discarded.of(DiscardReason::MaxMessages), 2);
    assert_at_rest(&pool);
    drop(got(pool.acquire(fresh())));
    pool.close();
    assert_at_rest(&pool);
}

#[test]
fn a_refill_that_panics_gives_its_place_back() {
    let fake = Fake::new();
    fake.on_open(|_, _, _| panic!("told to panic"));
    let pool = attended(fake, vec![plan(0, 1)], Limits { min_idle: 1, ..limits(1) });
    until(|| !pool.connector().opened().is_empty() && pool.counts().connecting == 0);
    pool.connector().on_open(|_, _, _| Ok(()));
    assert_eq!(lease(&pool).host(), HostId(0));
    assert_eq!(pool.connector().opened().len(), 2);
}
