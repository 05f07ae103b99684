//! The hand-off under every order of events that a seed can name: callers, the pool's own threads, time and bad luck, turn by turn.
//!
//! Without haste no time passes while anybody can run, and deadlines are an hour off: whoever waits for time has not been woken when
//! it should have been, and no story takes an hour. With haste every time-out meets every gift.

#![expect(clippy::significant_drop_tightening, reason = "the books are looked at as a whole")]

use std::collections::{HashMap, HashSet};
use std::panic::{self, AssertUnwindSafe, resume_unwind};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use crate::blame::Blame;
use crate::cancel::CancelToken;
use crate::clock::{self, Deadline};
use crate::endpoint::HostId;
use crate::lane::Lane;
use crate::observer::{LevelsChanged, Observer, Observers, WaitersChanged};
use crate::pool::Learning;
use crate::pool::shared::Shared;
use crate::pool::tests::fake::{limits, plan};
use crate::pool::{AcquireError, Close, Connector, Fate, HostPlan, Lease, Limits, OpenError, Pool, Renewal, Request};
use crate::simulation::{Order, Plan, Planned, explore, sleep};
use crate::stats::{DiscardReason, HostState};
use crate::sync::{JoinHandle, Mutex, spawn};

const HOUR: Duration = Duration::from_secs(3600);
const MILLI: Duration = Duration::from_millis(1);

/// What opening a connection may come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Luck {
    Opens,
    Fails(Blame),
    Panics,
}

/// How a lease may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Kept,
    Dropped,
    Broken,
    Retired,
    Panicked,
    Renewed,
}

const ENDS: [End; 6] = [End::Kept, End::Dropped, End::Broken, End::Retired, End::Panicked, End::Renewed];

#[derive(Debug, Default)]
struct Book {
    /// Connections that are there or being opened, by the connector's own count.
    places: usize,
    most: usize,
    lent: HashSet<u64>,
}

/// Keeps its own books, and looks into the pool from wherever the pool calls it.
struct Yard {
    book: Arc<Mutex<Book>>,
    luck: Box<dyn Fn() -> Luck + Send + Sync>,
    /// Out of 256 connections, so many are found dead.
    mortality: u8,
    /// Told of each connection that is begun to be opened.
    on_open: Option<Box<dyn Fn(u64) + Send + Sync>>,
    pool: OnceLock<Weak<Shared<Self>>>,
    told: Arc<Told>,
}

/// All that the pool has told of its counts: idle, leased, connecting, waiting.
#[derive(Debug, Default)]
struct Told(Mutex<[i64; 4]>);

impl Told {
    fn add(&self, by: [i64; 4]) {
        self.0.lock().iter_mut().zip(by).for_each(|(sum, by)| *sum += by);
    }
}

impl Observer for Told {
    fn levels_changed(&self, event: &LevelsChanged<'_>) {
        self.add([event.idle, event.leased, event.connecting, 0]);
    }

    fn waiters_changed(&self, event: &WaitersChanged) {
        self.add([0, 0, 0, event.waiting]);
    }
}

/// One connection's place in the books.
#[derive(Debug)]
struct Wire {
    id: u64,
    book: Arc<Mutex<Book>>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.book.lock().places -= 1;
    }
}

impl Yard {
    fn new(luck: impl Fn() -> Luck + Send + Sync + 'static) -> Self {
        Self {
            book: Arc::default(),
            luck: Box::new(luck),
            mortality: 0,
            on_open: None,
            pool: OnceLock::new(),
            told: Arc::default(),
        }
    }

    /// What a callback of an application may do.
    fn call_back(&self) {
        if let Some(pool) = self.pool.get().and_then(Weak::upgrade) {
            let counts = pool.look(|state| state.counts());
            assert!(counts.total <= pool.look(|state| state.limits.max_size), "{counts}");
        }
    }
}

impl Connector for Yard {
    type Connection = Wire;
    type Error = String;

    fn open(&self, _: HostId, id: u64, _: Deadline, _: Option<&CancelToken>) -> Result<Wire, OpenError<String>> {
        let wire = {
            let mut book = self.book.lock();
            book.places += 1;
            book.most = book.most.max(book.places);
            Wire { id, book: Arc::clone(&self.book) }
        };
        self.call_back();
        if let Some(on_open) = &self.on_open {
            on_open(id);
        }
        match (self.luck)() {
            Luck::Opens => Ok(wire),
            Luck::Fails(blame) => Err(OpenError { error: "no luck".to_owned(), blame }),
            Luck::Panics => resume_unwind(Box::new(Planned)),
        }
    }

    fn is_alive(&self, _: &mut Wire) -> bool {
        self.call_back();
        fastrand::u8(..) >= self.mortality
    }

    fn begin_probe(&self, _: &mut Wire) -> bool {
        fastrand::u8(..) >= self.mortality
    }

    fn end_probe(&self, _: &mut Wire, _: Deadline) -> bool {
        self.call_back();
        fastrand::u8(..) >= self.mortality
    }

    fn is_in_step(&self, _: &Wire) -> bool {
        true
    }

    fn message_limit(&self, _: &Wire) -> Option<u32> {
        None
    }

    fn close(&self, wire: Wire, _: Close) {
        self.call_back();
        drop(wire);
        self.call_back();
    }
}

type Got = Result<Lease<Yard>, AcquireError<String>>;

fn open(yard: Yard, hosts: usize, limits: Limits, attended: bool) -> Pool<Yard> {
    let hosts: Vec<HostPlan> = (0..hosts).map(|_| plan(0, 1)).collect();
    let told: Arc<dyn Observer> = yard.told.clone();
    let observers = Observers::new([told]);
    let pool = match attended {
        true => Pool::new(yard, hosts, limits, fastrand::u64(..), observers).unwrap(),
        false => Pool::of(Shared::new(yard, hosts, limits, fastrand::u64(..), observers).0),
    };
    pool.connector().pool.set(Arc::downgrade(&pool.shared)).unwrap();
    pool
}

fn request() -> Request {
    Request::by(Deadline::after(HOUR))
}

/// Gets a lease; a panic of the connector is what it was told to do.
fn acquire(pool: &Pool<Yard>, request: Request) -> Option<Got> {
    let got = panic::catch_unwind(AssertUnwindSafe(|| pool.acquire(request))).ok()?;
    if let Ok(lease) = &got {
        let is_mine = pool.connector().book.lock().lent.insert(lease.id());
        assert!(is_mine, "connection {} is in two hands", lease.id());
    }
    Some(got)
}

/// Ends a lease. The book is closed on it first: from then on somebody else may have it.
fn end(pool: &Pool<Yard>, lease: Lease<Yard>, how: End) {
    assert_eq!(lease.connection().id, lease.id());
    pool.connector().book.lock().lent.remove(&lease.id());
    match how {
        End::Kept => lease.finish(Fate::Keep { delivered: true }),
        End::Dropped => drop(lease),
        End::Broken => lease.finish(Fate::Discard(DiscardReason::Broken, Close::Abort)),
        End::Retired => lease.finish(Fate::Discard(DiscardReason::MaxMessages, Close::Polite)),
        End::Panicked => {
            let holder = move || {
                let _lease = lease;
                resume_unwind(Box::new(Planned));
            };
            assert!(panic::catch_unwind(AssertUnwindSafe(holder)).is_err());
        }
        End::Renewed => {
            let request = Request { fresh: true, ..request() };
            let renewed = panic::catch_unwind(AssertUnwindSafe(|| lease.renew(Renewal::Stale, request, &mut ())));
            if let Ok(Ok(lease)) = renewed {
                end(pool, lease, End::Kept);
            }
        }
    }
}

/// Nobody has, wants or opens anything, and the books of both sides agree.
fn assert_at_rest(pool: &Pool<Yard>) {
    let (status, drained) = pool.shared.look(|state| (state.status(clock::now()), state.is_drained()));
    let counts = status.counts;
    assert!(drained && counts.waiting == 0, "{counts}");
    assert_eq!(status.created, status.discarded.total() + counts.idle as u64, "{status:?}");
    // Whatever the order in which it was told.
    let shown = [counts.idle, counts.leased, counts.connecting, counts.waiting].map(|count| count as i64);
    assert_eq!(*pool.connector().told.0.lock(), shown, "told, and shown");
    let book = pool.connector().book.lock();
    assert_eq!(book.places, counts.idle, "{counts}");
    assert!(book.lent.is_empty());
}

fn join<T>(tasks: impl IntoIterator<Item = JoinHandle<T>>) -> Vec<T> {
    tasks.into_iter().map(|task| task.join().expect("no task panics unplanned")).collect()
}

fn task(work: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    spawn("caller", work).unwrap()
}

fn until_waiting(pool: &Pool<Yard>, waiting: usize) {
    while pool.counts().waiting < waiting {
        sleep(MILLI);
    }
}

/// All orders but the prompt one.
fn by_turns(seed: u64) -> Plan {
    let order = match seed % 4 {
        0 | 1 => Order::Random,
        2 => Order::Priorities(2),
        _ => Order::Priorities(4),
    };
    Plan { seed, order, hasty: false }
}

fn in_haste(seed: u64) -> Plan {
    Plan { hasty: true, ..by_turns(seed) }
}

/// Callers pass one place around that comes free in only this way. Whoever is not told of it waits for its deadline, and says so.
fn relay(attended: bool, how: End, luck: impl Fn() -> Luck + Clone + Send + Sync + 'static) {
    explore(500, by_turns, HOUR, move |_| {
        let pool = open(Yard::new(luck.clone()), 1, limits(1), attended);
        let callers = (0..4).map(|_| {
            let pool = pool.clone();
            task(move || {
                for _ in 0..2 {
                    match acquire(&pool, request()) {
                        Some(Ok(lease)) => end(&pool, lease, how),
                        Some(Err(AcquireError::Unavailable { cause: Some(_), .. })) | None => {}
                        Some(Err(error)) => panic!("not woken: {error:?}"),
                    }
                }
            })
        });
        join(callers.collect::<Vec<_>>());
        pool.close();
        assert!(pool.join(Deadline::after(HOUR)) && pool.wait_drained(Deadline::after(HOUR)));
        assert_at_rest(&pool);
    });
}

fn half(luck: Luck) -> impl Fn() -> Luck + Clone + Send + Sync {
    move || if fastrand::bool() { luck } else { Luck::Opens }
}

#[test]
fn a_return_wakes_a_waiter_in_every_interleaving() {
    relay(false, End::Kept, || Luck::Opens);
    relay(false, End::Dropped, || Luck::Opens);
}

#[test]
fn a_broken_return_wakes_a_waiter_in_every_interleaving() {
    relay(false, End::Broken, || Luck::Opens);
}

#[test]
fn a_retired_connection_wakes_a_waiter_in_every_interleaving() {
    relay(false, End::Retired, || Luck::Opens);
    relay(true, End::Retired, || Luck::Opens);
}

#[test]
fn a_panicking_holder_wakes_a_waiter_in_every_interleaving() {
    relay(false, End::Panicked, || Luck::Opens);
}

#[test]
fn a_renewal_wakes_a_waiter_in_every_interleaving() {
    relay(false, End::Renewed, half(Luck::Fails(Blame::Nobody)));
}

#[test]
fn a_failed_connect_wakes_a_waiter_in_every_interleaving() {
    relay(false, End::Broken, half(Luck::Fails(Blame::Nobody)));
}

#[test]
fn a_panicking_connect_wakes_a_waiter_in_every_interleaving() {
    relay(false, End::Broken, half(Luck::Panics));
}

#[test]
fn waiters_are_served_in_order_of_arrival_in_every_interleaving() {
    explore(1_500, by_turns, HOUR, |seed| {
        let pool = open(Yard::new(|| Luck::Opens), 1, limits(1), seed % 2 == 0);
        let held = acquire(&pool, request()).unwrap().unwrap();
        let served = Arc::new(Mutex::new(Vec::new()));
        let mut callers = Vec::new();
        for number in 0..4 {
            let (pool, served) = (pool.clone(), Arc::clone(&served));
            callers.push(task({
                let pool = pool.clone();
                move || {
                    let lease = acquire(&pool, request()).unwrap().unwrap();
                    served.lock().push(number);
                    end(&pool, lease, ENDS[fastrand::usize(..5)]);
                }
            }));
            until_waiting(&pool, number + 1);
        }
        // Newcomers, while the place goes round.
        let newcomer = {
            let pool = pool.clone();
            let served = Arc::clone(&served);
            task(move || {
                let lease = acquire(&pool, request()).unwrap().unwrap();
                served.lock().push(4);
                end(&pool, lease, End::Kept);
            })
        };
        end(&pool, held, ENDS[fastrand::usize(..5)]);
        join(callers);
        join([newcomer]);
        let served = std::mem::take(&mut *served.lock());
        let early: Vec<_> = served.iter().copied().filter(|&number| number != 4).collect();
        assert_eq!(early, [0, 1, 2, 3], "{served:?}");
    });
}

#[test]
fn interactive_goes_before_bulk_and_each_in_its_order_in_every_interleaving() {
    explore(1_000, by_turns, HOUR, |seed| {
        let pool = open(Yard::new(|| Luck::Opens), 1, limits(1), seed % 2 == 0);
        let held = acquire(&pool, request()).unwrap().unwrap();
        let served = Arc::new(Mutex::new(Vec::new()));
        let caller = |number: usize, lane: Lane| {
            let (pool, served) = (pool.clone(), Arc::clone(&served));
            task(move || {
                let lease = acquire(&pool, Request { lane, ..request() }).unwrap().unwrap();
                served.lock().push(number);
                end(&pool, lease, ENDS[fastrand::usize(..5)]);
            })
        };
        let mut callers = Vec::new();
        for (number, lane) in [Lane::Bulk, Lane::Interactive, Lane::Bulk, Lane::Interactive].into_iter().enumerate() {
            callers.push(caller(number, lane));
            until_waiting(&pool, number + 1);
        }
        // One of each, while the place goes round.
        callers.extend([caller(4, Lane::Interactive), caller(5, Lane::Bulk)]);
        end(&pool, held, ENDS[fastrand::usize(..5)]);
        join(callers);
        let served = std::mem::take(&mut *served.lock());
        let early: Vec<_> = served.iter().copied().filter(|&number| number < 4).collect();
        assert_eq!(early, [1, 3, 0, 2], "{served:?}");
        let place = |number: usize| served.iter().position(|&it| it == number);
        assert!(place(2) < place(5), "{served:?}");
        pool.close();
        assert!(pool.join(Deadline::after(HOUR)) && pool.wait_drained(Deadline::after(HOUR)));
        assert_at_rest(&pool);
    });
}

#[test]
fn bulk_has_its_turn_among_many_in_a_hurry_in_every_interleaving() {
    explore(500, by_turns, HOUR, |seed| {
        let pool = open(Yard::new(|| Luck::Opens), 1, limits(1), seed % 2 == 0);
        let held = acquire(&pool, request()).unwrap().unwrap();
        let served = Arc::new(Mutex::new(Vec::new()));
        let caller = |lane: Lane, times: usize| {
            let (pool, served) = (pool.clone(), Arc::clone(&served));
            task(move || {
                for _ in 0..times {
                    let lease = acquire(&pool, Request { lane, ..request() }).unwrap().unwrap();
                    served.lock().push(lane);
                    end(&pool, lease, End::Kept);
                }
            })
        };
        let bulk = caller(Lane::Bulk, 1);
        until_waiting(&pool, 1);
        let hurried: Vec<_> = (0..3).map(|_| caller(Lane::Interactive, 6)).collect();
        until_waiting(&pool, 2);
        end(&pool, held, End::Kept);
        join(hurried.into_iter().chain([bulk]));
        let served = std::mem::take(&mut *served.lock());
        let at = served.iter().position(|&lane| lane == Lane::Bulk).expect("it was served");
        // Among them may be one or two who came when nobody waited, and passed nobody over; and the books are written after the turn.
        assert!(at <= 8 + 3, "{served:?}");
    });
}

/// Several callers, each with its own luck and patience, against a pool that lives its life besides.
fn storm(seed: u64, hasty: bool) {
    let max_size = 1 + fastrand::usize(..3);
    let limits = Limits {
        min_idle: fastrand::usize(..=1),
        keepalive_interval: fastrand::bool().then_some(MILLI * 20),
        idle_timeout: fastrand::bool().then_some(MILLI * 30),
        max_lifetime: fastrand::bool().then_some(MILLI * 50),
        max_messages: fastrand::bool().then_some(2),
        interactive_reserve: if fastrand::bool() { 0.5 } else { 0.0 },
        learning: fastrand::bool().then_some(Learning { lasts: MILLI * 40, shortest_silence: MILLI }),
        reconnect_cooldown: MILLI * 10,
        max_reconnect_cooldown: MILLI * 40,
        ..limits(max_size)
    };
    let lucks = [Luck::Fails(Blame::Nobody), Luck::Fails(Blame::Host), Luck::Fails(Blame::Capacity), Luck::Panics];
    let storm_is_over = Arc::new(Mutex::new(false));
    let is_over = Arc::clone(&storm_is_over);
    let luck = move || match fastrand::usize(..10) {
        unlucky @ 0..4 if !*is_over.lock() => lucks[unlucky],
        _ => Luck::Opens,
    };
    let yard = Yard { mortality: 40, ..Yard::new(luck) };
    let pool = open(yard, 1 + fastrand::usize(..2), limits, seed % 3 > 0);
    let callers = (0..3 + fastrand::usize(..3)).map(|_| {
        let pool = pool.clone();
        task(move || {
            for _ in 0..2 {
                let token = CancelToken::new();
                let canceller = fastrand::bool().then(|| {
                    let token = token.clone();
                    task(move || token.cancel())
                });
                let patience = MILLI * fastrand::u32(..60);
                let started = clock::now();
                let only = (fastrand::u8(..) < 40).then_some(HostId(0));
                let deadline = Deadline::on(started + patience);
                let cancel = Some(token.clone());
                let lane = if fastrand::bool() { Lane::Bulk } else { Lane::Interactive };
                let request = Request { fresh: fastrand::u8(..) < 40, only, lane, cancel, ..Request::by(deadline) };
                match acquire(&pool, request) {
                    Some(Ok(lease)) => {
                        if fastrand::bool() {
                            sleep(MILLI * fastrand::u32(..10));
                        }
                        end(&pool, lease, ENDS[fastrand::usize(..ENDS.len())]);
                    }
                    Some(Err(AcquireError::Cancelled { .. })) => assert!(token.is_cancelled()),
                    Some(Err(AcquireError::Exhausted { .. })) => assert!(clock::now() >= deadline.instant()),
                    Some(Err(AcquireError::Unavailable { .. })) | None => {}
                    Some(Err(error)) => panic!("{error:?}"),
                }
                // Opening, which is the connector's business, takes no time here.
                assert!(hasty || clock::now() - started <= patience + MILLI * 20);
                join(canceller);
            }
        })
    });
    join(callers.collect::<Vec<_>>());
    *storm_is_over.lock() = true;
    recover(&pool, max_size);
}

/// After the storm every place can be had, at the same time; and then the pool ends.
fn recover(pool: &Pool<Yard>, max_size: usize) {
    // What the pool's own threads began in the storm ends first.
    assert!(pool.wait_drained(Deadline::after(HOUR)));
    let lease = || loop {
        match acquire(pool, request()) {
            Some(Ok(lease)) => return lease,
            // All hosts cool down, which does not last.
            Some(Err(AcquireError::Unavailable { retry_after, .. })) => {
                let pause = retry_after.expect("it says when");
                assert!(pause <= MILLI * 40);
                sleep(pause);
            }
            other => {
                let got = other.map(|got| got.map(|lease| lease.id()));
                pool.shared.look(|state| panic!("a place is lost: {got:?}\n{:?}", state.hosts));
            }
        }
    };
    // A host that was full is tried again after a hundred messages, or after a while; one that was not takes any number.
    let thinks_all_full =
        || pool.shared.look(|state| state.hosts.all.iter().all(|host| host.capacity.limit().is_some()));
    let mut delivered = 0;
    while thinks_all_full() {
        end(pool, lease(), End::Kept);
        sleep(MILLI);
        delivered += 1;
        assert!(delivered <= 100 * max_size, "the hosts stay full for ever");
    }
    let leases: Vec<_> = (0..max_size).map(|_| lease()).collect();
    for lease in leases {
        end(pool, lease, End::Kept);
    }
    assert!(pool.connector().book.lock().most <= max_size, "too many connections");
    pool.close();
    assert!(pool.join(Deadline::after(HOUR)) && pool.wait_drained(Deadline::after(HOUR)));
    assert_at_rest(pool);
}

#[test]
fn nothing_is_lost_in_a_storm_in_any_interleaving() {
    explore(1_500, by_turns, HOUR, |seed| storm(seed, false));
}

#[test]
fn nothing_is_lost_when_every_time_out_meets_every_gift() {
    explore(3_000, in_haste, HOUR, |seed| storm(seed, true));
}

/// How a pool is ended.
#[derive(Debug, Clone, Copy)]
enum From {
    /// By somebody with a handle.
    Outside,
    /// By somebody who holds a lease.
    AHolder,
    /// By the last handle, leases being out.
    Drop,
}

fn shut_down(from: From, plan: fn(u64) -> Plan) {
    explore(1_000, plan, HOUR, move |seed| {
        let max_size = 1 + fastrand::usize(..2);
        let limits = Limits { min_idle: fastrand::usize(..=1), keepalive_interval: Some(MILLI), ..limits(max_size) };
        let pool = open(Yard::new(half(Luck::Fails(Blame::Nobody))), 1, limits, seed % 2 == 0);
        let (crew, book) = (Arc::clone(&pool.shared.crew), Arc::clone(&pool.connector().book));
        let is_closed = Arc::new(Mutex::new(false));
        let callers = (0..4).map(|number| {
            let (pool, is_closed) = (pool.clone(), Arc::clone(&is_closed));
            task(move || {
                loop {
                    let was_closed = *is_closed.lock();
                    match acquire(&pool, request()) {
                        Some(Ok(lease)) => {
                            assert!(!was_closed, "lent after the end");
                            if matches!(from, From::AHolder) && number == 0 {
                                pool.close();
                                assert!(!pool.wait_drained(Deadline::after(MILLI)), "it waits for its own lease");
                                *is_closed.lock() = true;
                            }
                            if fastrand::bool() {
                                sleep(MILLI);
                            }
                            end(&pool, lease, ENDS[fastrand::usize(..ENDS.len())]);
                            if matches!(from, From::Drop) {
                                return;
                            }
                        }
                        Some(Err(AcquireError::ShutDown { .. })) => return,
                        Some(Err(AcquireError::Unavailable { cause: Some(_), .. })) => {}
                        other => {
                            panic!("woken with the wrong words: {:?}", other.map(|got| got.map(|lease| lease.id())))
                        }
                    }
                }
            })
        });
        let callers: Vec<_> = callers.collect();
        if matches!(from, From::Outside) {
            sleep(MILLI * fastrand::u32(..4));
            pool.close();
            *is_closed.lock() = true;
            pool.close();
        }
        if matches!(from, From::Drop) {
            drop(pool);
            join(callers);
        } else {
            join(callers);
            assert!(pool.wait_drained(Deadline::after(HOUR)) && pool.join(Deadline::after(HOUR)));
            assert!(matches!(acquire(&pool, request()), Some(Err(AcquireError::ShutDown { .. }))));
            assert_at_rest(&pool);
        }
        assert!(crew.join(Deadline::after(HOUR)), "a thread is left");
        assert_eq!(book.lock().places, 0, "a connection is left");
    });
}

#[test]
fn a_shutdown_wakes_everybody_in_every_interleaving() {
    shut_down(From::Outside, by_turns);
}

#[test]
fn a_shutdown_waits_for_no_lease_before_it_wakes_the_waiters() {
    explore(1_000, by_turns, HOUR, |_| {
        let pool = open(Yard::new(|| Luck::Opens), 1, limits(1), false);
        let held = acquire(&pool, request()).unwrap().unwrap();
        let waiters = (0..3).map(|_| {
            let pool = pool.clone();
            task(move || {
                let refused = acquire(&pool, request()).unwrap().map(|lease| lease.id());
                assert!(matches!(refused, Err(AcquireError::ShutDown { .. })), "{refused:?}");
            })
        });
        let waiters: Vec<_> = waiters.collect();
        pool.close();
        join(waiters);
        end(&pool, held, End::Kept);
        assert!(pool.wait_drained(Deadline::after(HOUR)));
        assert_at_rest(&pool);
    });
}

#[test]
fn a_holder_may_shut_the_pool_down_in_every_interleaving() {
    shut_down(From::AHolder, by_turns);
}

#[test]
fn the_last_handle_ends_the_pool_in_every_interleaving() {
    shut_down(From::Drop, by_turns);
    shut_down(From::Drop, in_haste);
}

#[test]
fn a_cancelled_waiter_leaves_at_once_and_its_gift_goes_on() {
    explore(1_500, by_turns, HOUR, |_| {
        let pool = open(Yard::new(|| Luck::Opens), 1, limits(1), false);
        let held = acquire(&pool, request()).unwrap().unwrap();
        let token = CancelToken::new();
        let cancelled = {
            let (pool, token) = (pool.clone(), token.clone());
            let request = Request { cancel: Some(token.clone()), ..request() };
            task(move || match acquire(&pool, request).unwrap() {
                Ok(lease) => end(&pool, lease, End::Kept),
                Err(error) => assert!(token.is_cancelled() && matches!(error, AcquireError::Cancelled { .. })),
            })
        };
        let patient = {
            let pool = pool.clone();
            task(move || {
                let lease = acquire(&pool, request()).unwrap().expect("the gift is passed on");
                end(&pool, lease, End::Kept);
            })
        };
        let canceller = task(move || token.cancel());
        end(&pool, held, ENDS[fastrand::usize(..5)]);
        join([cancelled, patient, canceller]);
        pool.close();
        assert_at_rest(&pool);
    });
}

/// Credentials that are rotated while callers come and go: whoever has a lease, and looks whether it is current before it begins, never
/// begins on a connection that was opened before a rotation which had returned by then; and nothing is lost by it.
fn rotate_under_load(plan: fn(u64) -> Plan, unlucky: bool) {
    explore(1_500, plan, HOUR, move |seed| {
        let max_size = 1 + fastrand::usize(..2);
        let limits = Limits { min_idle: fastrand::usize(..=1), keepalive_interval: Some(MILLI), ..limits(max_size) };
        // What each connection logs in with is what is in force when it is opened, as the connector sees it.
        let in_force = Arc::new(Mutex::new(0_u64));
        let secrets = Arc::new(Mutex::new(HashMap::new()));
        let luck = move || match unlucky && fastrand::u8(..) < 60 {
            // Refused, perhaps only because they were the old ones.
            true => Luck::Fails(Blame::Credentials),
            false => Luck::Opens,
        };
        let yard = Yard {
            on_open: Some(Box::new({
                let (in_force, secrets) = (Arc::clone(&in_force), Arc::clone(&secrets));
                move |id| {
                    let secret = *in_force.lock();
                    secrets.lock().insert(id, secret);
                }
            })),
            ..Yard::new(luck)
        };
        let pool = open(yard, 1, limits, seed % 2 == 0);
        // What was in force when the last rotation returned.
        let published = Arc::new(Mutex::new(0_u64));
        let callers = (0..3).map(|_| {
            let (pool, secrets, published) = (pool.clone(), Arc::clone(&secrets), Arc::clone(&published));
            task(move || {
                for _ in 0..2 {
                    let newest = *published.lock();
                    let mut got = acquire(&pool, request()).expect("no panic");
                    while let Ok(lease) = &got {
                        // Whatever is published from here on may be news to a message that has begun.
                        let newest_yet = *published.lock();
                        if lease.is_current() {
                            let secret = secrets.lock()[&lease.id()];
                            assert!(secret >= newest.max(newest_yet), "{secret} after {newest} and {newest_yet}");
                            break;
                        }
                        let old = got.unwrap_or_else(|_| unreachable!());
                        pool.connector().book.lock().lent.remove(&old.id());
                        got = old.renew(Renewal::Rotated, request(), &mut ());
                        if let Ok(lease) = &got {
                            assert!(pool.connector().book.lock().lent.insert(lease.id()), "in two hands");
                        }
                    }
                    match got {
                        Ok(lease) => {
                            if fastrand::bool() {
                                sleep(MILLI);
                            }
                            end(&pool, lease, ENDS[fastrand::usize(..4)]);
                        }
                        Err(AcquireError::Unavailable { .. }) if unlucky => {}
                        Err(error) => panic!("{error:?}"),
                    }
                }
            })
        });
        let callers: Vec<_> = callers.collect();
        for rotation in 1..=3 {
            *in_force.lock() = rotation;
            pool.rotate_credentials(HostId(0));
            *published.lock() = rotation;
            // What was refused was refused to the old ones, as far as anybody knows.
            if unlucky && rotation == 3 {
                assert!(
                    !matches!(pool.status().hosts[0].state, HostState::Probing),
                    "a probe with the old ones bars all"
                );
            }
            sleep(MILLI * fastrand::u32(..3));
        }
        join(callers);
        pool.close();
        assert!(pool.join(Deadline::after(HOUR)) && pool.wait_drained(Deadline::after(HOUR)));
        assert_at_rest(&pool);
    });
}

#[test]
fn no_message_begins_on_an_old_session_after_a_rotation_in_any_interleaving() {
    rotate_under_load(by_turns, false);
}

#[test]
fn a_rotation_while_old_credentials_are_refused_loses_nothing_in_any_interleaving() {
    rotate_under_load(by_turns, true);
    rotate_under_load(in_haste, true);
}
