//! A connector without a network: opening does what the test says, and everything is written down.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use crate::blame::Blame;
use crate::cancel::CancelToken;
use crate::clock::Deadline;
use crate::endpoint::{Endpoint, HostId};
use crate::observer::{Observer, Observers};
use crate::pool::{AcquireError, Close, Connector, HostPlan, Learning, Lease, Limits, OpenError, Pool, Request};
use crate::sync::Mutex;

/// Longer than any test needs, short enough to end a hung one.
pub(super) const LONG: Duration = Duration::from_secs(20);

/// A connection that counts itself: to drop it without closing it shows too.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) id: u64,
    pub(super) in_step: bool,
    gauge: Arc<Gauge>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.gauge.live.fetch_sub(1, SeqCst);
    }
}

#[derive(Debug, Default)]
pub(super) struct Gauge {
    pub(super) live: AtomicUsize,
    pub(super) highest: AtomicUsize,
}

type Script = Box<dyn FnMut(HostId, u64, Deadline, Option<&CancelToken>) -> Result<(), Blame> + Send>;
type Together = Arc<dyn Fn(HostId) -> Result<(), Blame> + Send + Sync>;
type OnClose = Arc<dyn Fn(u64) + Send + Sync>;
type OnProbe = Arc<dyn Fn(Probe) + Send + Sync>;

/// What happened in a keepalive round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probe {
    Asked(u64),
    Awaited(u64, Deadline),
}

#[derive(Default)]
struct Book {
    opened: Vec<(HostId, u64)>,
    closed: HashMap<u64, Close>,
    dead: HashSet<u64>,
    down: HashMap<HostId, Blame>,
    looked_at: Vec<u64>,
    mute: HashSet<u64>,
    probes: Vec<Probe>,
}

/// The connector.
pub(super) struct Fake {
    pub(super) gauge: Arc<Gauge>,
    book: Mutex<Book>,
    script: Mutex<Option<Arc<Mutex<Script>>>>,
    together: Mutex<Option<Together>>,
    on_probe: Mutex<Option<OnProbe>>,
    on_close: Mutex<Option<OnClose>>,
    pub(super) panics_when_looking: AtomicUsize,
    pub(super) panics_when_closing: AtomicUsize,
    pub(super) message_limit: Option<u32>,
}

impl Fake {
    pub(super) fn new() -> Self {
        Self {
            gauge: Arc::default(),
            book: Mutex::new(Book::default()),
            script: Mutex::new(None),
            together: Mutex::new(None),
            on_probe: Mutex::new(None),
            on_close: Mutex::new(None),
            panics_when_looking: AtomicUsize::new(0),
            panics_when_closing: AtomicUsize::new(0),
            message_limit: None,
        }
    }

    /// What opening does from now on, one caller at a time.
    pub(super) fn on_open(&self, mut script: impl FnMut(HostId, u64, Deadline) -> Result<(), Blame> + Send + 'static) {
        self.on_open_with_token(move |host, id, deadline, _| script(host, id, deadline));
    }

    pub(super) fn on_open_with_token(
        &self,
        script: impl FnMut(HostId, u64, Deadline, Option<&CancelToken>) -> Result<(), Blame> + Send + 'static,
    ) {
        *self.script.lock() = Some(Arc::new(Mutex::new(Box::new(script))));
    }

    /// What opening does from now on, for all callers at once.
    pub(super) fn on_open_together(&self, script: impl Fn(HostId) -> Result<(), Blame> + Send + Sync + 'static) {
        *self.together.lock() = Some(Arc::new(script));
    }

    /// Runs when a connection is closed.
    pub(super) fn on_close(&self, watch: impl Fn(u64) + Send + Sync + 'static) {
        *self.on_close.lock() = Some(Arc::new(watch));
    }

    /// Runs at each step of each probe.
    pub(super) fn on_probe(&self, watch: impl Fn(Probe) + Send + Sync + 'static) {
        *self.on_probe.lock() = Some(Arc::new(watch));
    }

    /// The server does not answer on this connection any more.
    pub(super) fn mute(&self, id: u64) {
        self.book.lock().mute.insert(id);
    }

    /// All probes so far.
    pub(super) fn probes(&self) -> Vec<Probe> {
        self.book.lock().probes.clone()
    }

    fn note(&self, probe: Probe) {
        self.book.lock().probes.push(probe);
        let watch = self.on_probe.lock().clone();
        if let Some(watch) = watch {
            watch(probe);
        }
    }

    /// From now on opening fails on this host.
    pub(super) fn down(&self, host: usize, blame: Blame) {
        self.book.lock().down.insert(HostId(host), blame);
    }

    pub(super) fn up(&self, host: usize) {
        self.book.lock().down.remove(&HostId(host));
    }

    /// The server ends this connection while it is idle.
    pub(super) fn kill(&self, id: u64) {
        self.book.lock().dead.insert(id);
    }

    pub(super) fn opened(&self) -> Vec<(HostId, u64)> {
        self.book.lock().opened.clone()
    }

    /// How a connection was closed, if it was.
    pub(super) fn fate(&self, id: u64) -> Option<Close> {
        self.book.lock().closed.get(&id).copied()
    }

    pub(super) fn looked_at(&self) -> Vec<u64> {
        self.book.lock().looked_at.clone()
    }
}

fn countdown(counter: &AtomicUsize) -> bool {
    counter.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok()
}

impl Connector for Fake {
    type Connection = Wire;
    type Error = String;

    fn open(
        &self,
        host: HostId,
        id: u64,
        deadline: Deadline,
        cancel: Option<&CancelToken>,
    ) -> Result<Wire, OpenError<String>> {
        self.book.lock().opened.push((host, id));
        let script = self.script.lock().clone();
        let told = script.map_or(Ok(()), |script| (script.lock())(host, id, deadline, cancel));
        let together = self.together.lock().clone();
        let told = told.and_then(|()| together.map_or(Ok(()), |script| script(host)));
        let down = self.book.lock().down.get(&host).copied();
        if let Some(blame) = told.err().or(down) {
            return Err(OpenError { error: format!("host {} is down", host.0), blame });
        }
        let live = self.gauge.live.fetch_add(1, SeqCst) + 1;
        self.gauge.highest.fetch_max(live, SeqCst);
        Ok(Wire { id, in_step: true, gauge: Arc::clone(&self.gauge) })
    }

    fn is_alive(&self, connection: &mut Wire) -> bool {
        assert!(!countdown(&self.panics_when_looking), "told to panic");
        let mut book = self.book.lock();
        book.looked_at.push(connection.id);
        if book.looked_at.len() > 1000 {
            book.looked_at.clear();
        }
        !book.dead.contains(&connection.id)
    }

    fn begin_probe(&self, connection: &mut Wire) -> bool {
        self.note(Probe::Asked(connection.id));
        !self.book.lock().dead.contains(&connection.id)
    }

    fn end_probe(&self, connection: &mut Wire, deadline: Deadline) -> bool {
        self.note(Probe::Awaited(connection.id, deadline));
        !self.book.lock().mute.contains(&connection.id)
    }

    fn is_in_step(&self, connection: &Wire) -> bool {
        connection.in_step
    }

    fn message_limit(&self, _: &Wire) -> Option<u32> {
        self.message_limit
    }

    fn close(&self, connection: Wire, how: Close) {
        assert!(!countdown(&self.panics_when_closing), "told to panic");
        let watch = self.on_close.lock().clone();
        if let Some(watch) = watch {
            watch(connection.id);
        }
        let before = self.book.lock().closed.insert(connection.id, how);
        assert!(before.is_none(), "closed twice");
    }
}

pub(super) fn plan(priority: u32, weight: u32) -> HostPlan {
    HostPlan { endpoint: Endpoint::new("mail.example", 25), priority, weight, max_connections: None }
}

pub(in crate::pool) fn limits(max_size: usize) -> Limits {
    Limits {
        max_size,
        interactive_reserve: 0.25,
        min_idle: 0,
        refill_delay: Duration::ZERO,
        keepalive_interval: None,
        idle_timeout: None,
        max_lifetime: None,
        lifetime_jitter: 0.1,
        max_messages: None,
        fair_time: Duration::ZERO,
        learning: Some(Learning { lasts: Duration::from_secs(3600), shortest_silence: Duration::from_secs(5) }),
        reconnect_cooldown: Duration::from_secs(30),
        max_reconnect_cooldown: Duration::from_secs(300),
        exponential: true,
        jitter: 0.0,
    }
}

/// A pool with a thread that looks after it.
pub(super) fn attended(fake: Fake, plans: Vec<HostPlan>, limits: Limits) -> Pool<Fake> {
    Pool::new(fake, plans, limits, 7, Observers::default()).unwrap()
}

/// The same, observed.
pub(super) fn observed(fake: Fake, plans: Vec<HostPlan>, limits: Limits, observer: impl Observer) -> Pool<Fake> {
    let observer: Arc<dyn Observer> = Arc::new(observer);
    Pool::new(fake, plans, limits, 7, Observers::new([observer])).unwrap()
}

/// A pool with one host for each priority given, whose callers do everything themselves.
pub(super) fn pool(max_size: usize, priorities: &[u32]) -> Pool<Fake> {
    Pool::unattended(Fake::new(), priorities.iter().map(|&p| plan(p, 1)).collect(), limits(max_size), 7)
}

pub(super) fn soon() -> Request {
    Request::by(Deadline::after(LONG))
}

pub(super) fn fresh() -> Request {
    Request { fresh: true, ..soon() }
}

pub(super) fn avoiding(hosts: &[usize]) -> Request {
    Request { avoid: hosts.iter().copied().map(HostId).collect(), ..soon() }
}

/// A lease that the test cannot do without.
pub(super) fn lease(pool: &Pool<Fake>) -> Lease<Fake> {
    got(pool.acquire(soon()))
}

pub(super) fn got(result: Result<Lease<Fake>, AcquireError<String>>) -> Lease<Fake> {
    result.unwrap_or_else(|error| panic!("{error:?}"))
}

pub(super) fn refused(result: Result<Lease<Fake>, AcquireError<String>>) -> AcquireError<String> {
    match result {
        Ok(lease) => panic!("got connection {}", lease.id()),
        Err(error) => error,
    }
}

/// Gives way to other threads until it is so.
pub(super) fn until(mut is_so: impl FnMut() -> bool) {
    let deadline = Deadline::after(LONG);
    while !is_so() {
        assert!(!deadline.is_over(), "it never came about");
        thread::yield_now();
    }
}

pub(super) fn until_waiting(pool: &Pool<Fake>, waiting: usize) {
    until(|| pool.counts().waiting == waiting);
}

/// Whether nobody has, waits for, opens or closes anything.
pub(super) fn at_rest(pool: &Pool<Fake>) -> bool {
    pool.shared.look(|state| state.is_drained() && state.waiters.is_empty())
}

/// That nobody has, waits for or opens anything, and that what is open is what is counted.
pub(super) fn assert_at_rest(pool: &Pool<Fake>) {
    let status = pool.status();
    let counts = status.counts;
    assert_eq!((counts.leased, counts.connecting, counts.waiting), (0, 0, 0), "{counts}");
    assert_eq!(pool.connector().gauge.live.load(SeqCst), counts.idle, "{counts}");
    assert_eq!(status.created, status.discarded.total() + counts.idle as u64, "{status:?}");
    pool.shared.look(|state| assert!(state.hosts.all.iter().all(|host| host.closing == 0)));
}
