//! Tasks that take turns, and a clock that moves while nobody can run.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use fastrand::Rng;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::net::Network;

/// So many turns are more than any run needs: whoever takes more is going round in circles.
const MOST_TURNS: u64 = 300_000;

/// So much time may pass while others could run, and no more: who would wait longer has not been woken.
const LONGEST_HASTE: Duration = Duration::from_secs(1);

/// How long a run may take by the wall clock: a task that waits for something outside of the world would wait for ever.
const PATIENCE: Duration = Duration::from_secs(120);

/// Who runs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// A task mostly runs until it has to wait.
    Prompt,
    /// Anybody, at every turn.
    Random,
    /// By priorities that are drawn at the start, but for so many turns at which whoever runs falls behind all others: finds a bug that
    /// takes so many unlucky moments with a probability that has a lower bound (Burckhardt et al., "A Randomized Scheduler with
    /// Probabilistic Guarantees of Finding Bugs", 2010).
    Priorities(usize),
}

/// One run. The same plan is the same run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) order: Order,
    /// Whether time may pass at any turn, so that every time-out meets everything it can meet. If not, it passes when nobody can run:
    /// what is done takes no time, and deadlines can be held to exactly.
    pub(crate) hasty: bool,
}

/// How a run went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ending {
    /// Turns taken.
    pub(crate) turns: u64,
    /// How long it took in the world's time.
    pub(crate) elapsed: Duration,
    /// Of every turn: whose it was, and when.
    pub(crate) trace: u64,
}

/// What a task panics with when a test wants it to; it is not the end of the world.
#[derive(Debug)]
pub(crate) struct Planned;

/// What a task waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// The lock at this address.
    Lock(usize),
    /// The condition variable at this address.
    Signal(usize),
    /// The end of this task.
    End(usize),
    /// Nothing but time.
    Time,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Ready,
    Waits { on: Key, until: Option<Duration> },
    Done,
}

struct Task {
    name: String,
    status: Status,
    /// Whether the last wait ended by time.
    is_late: bool,
    priority: u64,
    /// To wake its thread with; none until that has been started.
    gate: Option<Thread>,
}

struct State {
    plan: Plan,
    rng: Rng,
    now: Duration,
    tasks: Vec<Task>,
    turns: u64,
    trace: DefaultHasher,
    /// The turns, under [`Order::Priorities`], at which whoever runs falls behind.
    falls: Vec<u64>,
    ending: Option<Result<Ending, String>>,
}

/// A world. Everything in it is done by the one task that has the baton.
struct World {
    dawn: Instant,
    /// Whose turn it is.
    baton: AtomicUsize,
    state: Mutex<State>,
    over: Condvar,
    network: Arc<Network>,
}

thread_local! {
    static HERE: RefCell<Option<Here>> = const { RefCell::new(None) };
}

/// A task's way into its world.
#[derive(Clone)]
pub(super) struct Here {
    world: Arc<World>,
    me: usize,
}

/// The world that this thread is in.
pub(super) fn here() -> Option<Here> {
    HERE.try_with(|here| here.borrow().clone()).ok().flatten()
}

/// The world's time, in a world.
pub(crate) fn now() -> Option<Instant> {
    let here = here()?;
    here.pause();
    Some(here.now())
}

/// Lets time pass.
pub(crate) fn sleep(time: Duration) {
    let here = here().expect("only tasks of a world sleep");
    let until = here.now() + time;
    while here.wait(Key::Time, Some(until)) {}
}

/// Runs `body`, and whatever tasks it starts, to the end of all of them.
///
/// # Errors
///
/// What went wrong: a panic that was not [`Planned`], tasks that wait for each other, or a run that does not end. The threads of such a
/// run are left asleep, for nothing in it can be trusted to unwind.
pub(crate) fn run(plan: Plan, body: impl FnOnce() + Send + 'static) -> Result<Ending, String> {
    let mut rng = Rng::with_seed(plan.seed);
    let falls = match plan.order {
        Order::Priorities(depth) => {
            // Most runs of the pool are shorter than this.
            let within = 1 << rng.u32(4..=10);
            (1..depth).map(|_| rng.u64(1..=within)).collect()
        }
        Order::Prompt | Order::Random => Vec::new(),
    };
    let state = State {
        plan,
        rng,
        now: Duration::ZERO,
        tasks: Vec::new(),
        turns: 0,
        trace: DefaultHasher::new(),
        falls,
        ending: None,
    };
    #[expect(clippy::disallowed_methods, reason = "instants have no other beginning; only differences to it matter")]
    let dawn = Instant::now();
    let world = Arc::new(World {
        dawn,
        baton: AtomicUsize::new(usize::MAX),
        state: Mutex::new(state),
        over: Condvar::new(),
        network: Arc::default(),
    });
    let first = world.start("main", body);
    world.pass_to(first, &world.state.lock());
    let mut state = world.state.lock();
    world.over.wait_while_for(&mut state, |state| state.ending.is_none(), PATIENCE);
    match state.ending.take() {
        Some(ending) => ending,
        None => Err(state.report("a task waits for something outside of the world")),
    }
}

impl World {
    /// Adds a task, which begins when its turn comes.
    fn start(self: &Arc<Self>, name: &str, work: impl FnOnce() + Send + 'static) -> usize {
        let (me, seed) = {
            let mut state = self.state.lock();
            let (seed, priority) = (state.rng.u64(..), state.rng.u64(1 << 32..));
            let task = Task { name: name.to_owned(), status: Status::Ready, is_late: false, priority, gate: None };
            state.tasks.push(task);
            (state.tasks.len() - 1, seed)
        };
        let here = Here { world: Arc::clone(self), me };
        let body = move || {
            fastrand::seed(seed);
            HERE.set(Some(here.clone()));
            here.await_turn();
            let outcome = panic::catch_unwind(AssertUnwindSafe(work));
            HERE.set(None);
            here.leave(outcome.err().filter(|payload| !payload.is::<Planned>()));
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(body).expect("a thread for the task");
        self.state.lock().tasks[me].gate = Some(thread.thread().clone());
        me
    }

    fn pass_to(&self, next: usize, state: &MutexGuard<'_, State>) {
        self.baton.store(next, Ordering::Release);
        if let Some(gate) = &state.tasks[next].gate {
            gate.unpark();
        }
    }

    fn end(&self, state: &mut State, ending: Result<Ending, String>) {
        state.ending.get_or_insert(ending);
        self.over.notify_all();
    }
}

impl Here {
    /// Whether two tasks are in the same world is never asked: no task leaves its own.
    pub(super) fn start(&self, name: &str, work: impl FnOnce() + Send + 'static) -> usize {
        let task = self.world.start(name, work);
        self.pause();
        task
    }

    pub(super) fn network(&self) -> Arc<Network> {
        Arc::clone(&self.world.network)
    }

    pub(super) fn now(&self) -> Instant {
        self.world.dawn + self.world.state.lock().now
    }

    /// Lets others run, or not.
    pub(super) fn pause(&self) {
        self.turn(self.world.state.lock());
    }

    /// Waits to be woken. False: it is `until`.
    pub(super) fn wait(&self, on: Key, until: Option<Instant>) -> bool {
        let until = until.map(|until| until.saturating_duration_since(self.world.dawn));
        self.turn({
            let mut state = self.world.state.lock();
            state.put_to_sleep(self.me, on, until);
            state
        });
        !self.world.state.lock().tasks[self.me].is_late
    }

    /// Wakes all who wait on it.
    pub(super) fn wake_all(&self, on: Key) {
        self.world.state.lock().wake_all(on);
    }

    /// Wakes one who waits on it.
    pub(super) fn wake_one(&self, on: Key) {
        let mut state = self.world.state.lock();
        let asleep = state.asleep(on);
        if !asleep.is_empty() {
            let index = state.rng.usize(..asleep.len());
            state.tasks[asleep[index]].status = Status::Ready;
        }
    }

    pub(super) fn is_done(&self, task: usize) -> bool {
        self.world.state.lock().tasks[task].status == Status::Done
    }

    /// One turn.
    fn turn(&self, mut state: MutexGuard<'_, State>) {
        match state.choose(self.me) {
            Ok(next) if next == self.me => {}
            Ok(next) => {
                self.world.pass_to(next, &state);
                drop(state);
                self.await_turn();
            }
            Err(why) => {
                let report = state.report(&why);
                self.world.end(&mut state, Err(report));
                drop(state);
                self.await_turn();
            }
        }
    }

    fn await_turn(&self) {
        while self.world.baton.load(Ordering::Acquire) != self.me || self.world.state.lock().ending.is_some() {
            thread::park();
        }
    }

    /// The task's end.
    fn leave(&self, panic: Option<Box<dyn std::any::Any + Send>>) {
        let mut state = self.world.state.lock();
        state.tasks[self.me].status = Status::Done;
        state.wake_all(Key::End(self.me));
        let ending = if let Some(payload) = panic {
            let said = payload.downcast_ref::<String>().cloned();
            let said = said.or_else(|| payload.downcast_ref::<&str>().map(|&said| said.to_owned()));
            Err(state.report(&format!(
                "{}: {}",
                state.tasks[self.me].name,
                said.unwrap_or_else(|| "panicked".to_owned())
            )))
        } else if state.tasks.iter().all(|task| task.status == Status::Done) {
            Ok(Ending { turns: state.turns, elapsed: state.now, trace: state.trace.finish() })
        } else {
            match state.choose(self.me) {
                Ok(next) => return self.world.pass_to(next, &state),
                Err(why) => Err(state.report(&why)),
            }
        };
        self.world.end(&mut state, ending);
    }
}

impl State {
    /// Whose turn it is now. Lets time pass if it has to, or wants to.
    fn choose(&mut self, current: usize) -> Result<usize, String> {
        self.turns += 1;
        if self.turns > MOST_TURNS {
            return Err(format!("no end after {MOST_TURNS} turns"));
        }
        loop {
            let ready: Vec<_> =
                (0..self.tasks.len()).filter(|&task| self.tasks[task].status == Status::Ready).collect();
            let in_haste = self.plan.hasty && self.rng.u8(..) < 8;
            if ready.is_empty() || in_haste {
                let alarm = self.tasks.iter().filter_map(|task| match task.status {
                    Status::Waits { until, .. } => until,
                    Status::Ready | Status::Done => None,
                });
                match alarm.min() {
                    Some(at) if ready.is_empty() || at < self.now + LONGEST_HASTE => {
                        self.pass_time(at);
                        continue;
                    }
                    _ => {}
                }
            }
            if ready.is_empty() {
                return Err(
                    "nobody can run, and nobody waits for a time: they wait for each other, or a wake-up was lost"
                        .to_owned(),
                );
            }
            let next = self.pick(&ready, current);
            (next, self.now).hash(&mut self.trace);
            return Ok(next);
        }
    }

    fn pick(&mut self, ready: &[usize], current: usize) -> usize {
        match self.plan.order {
            Order::Prompt if ready.contains(&current) && self.rng.u8(..) >= 8 => current,
            Order::Prompt | Order::Random => ready[self.rng.usize(..ready.len())],
            Order::Priorities(_) => {
                if self.falls.contains(&self.turns) {
                    // Lower with every fall, and lower than any that was drawn.
                    self.tasks[current].priority = u64::from(u32::MAX).saturating_sub(self.turns);
                }
                ready.iter().copied().max_by_key(|&task| self.tasks[task].priority).unwrap_or(current)
            }
        }
    }

    fn put_to_sleep(&mut self, task: usize, on: Key, until: Option<Duration>) {
        let is_late = until.is_some_and(|until| until <= self.now);
        let task = &mut self.tasks[task];
        task.is_late = is_late;
        if !is_late {
            task.status = Status::Waits { on, until };
        }
    }

    fn pass_time(&mut self, at: Duration) {
        self.now = self.now.max(at);
        for task in &mut self.tasks {
            if matches!(task.status, Status::Waits { until: Some(until), .. } if until <= self.now) {
                task.status = Status::Ready;
                task.is_late = true;
            }
        }
    }

    fn asleep(&self, key: Key) -> Vec<usize> {
        let waits = |task: &Task| matches!(task.status, Status::Waits { on, .. } if on == key);
        (0..self.tasks.len()).filter(|&task| waits(&self.tasks[task])).collect()
    }

    fn wake_all(&mut self, key: Key) {
        for task in self.asleep(key) {
            self.tasks[task].status = Status::Ready;
        }
    }

    fn report(&self, why: &str) -> String {
        let mut report = format!("{why}\nafter {} turns, at {:?}:", self.turns, self.now);
        for (number, task) in self.tasks.iter().enumerate().filter(|(_, task)| task.status != Status::Done) {
            let _ = write!(report, "\n  task {number} {}: {:?}", task.name, task.status);
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    use crate::simulation::primitives::{Condvar, Mutex, spawn};

    fn crowd() {
        let sum = Arc::new((Mutex::new(0), Condvar::new()));
        let add = |n: u32| {
            let sum = Arc::clone(&sum);
            spawn("adder", move || {
                sleep(Duration::from_millis(u64::from(n) * fastrand::u64(1..5)));
                *sum.0.lock() += n;
                sum.1.notify_one();
            })
        };
        let adders: Vec<_> = (1..=4).map(|n| add(n).unwrap()).collect();
        let mut total = sum.0.lock();
        while *total < 10 {
            sum.1.wait_until(&mut total, here().unwrap().now() + Duration::from_secs(1));
        }
        drop(total);
        adders.into_iter().for_each(|adder| adder.join().unwrap());
    }

    #[test]
    fn a_simulation_is_its_seed() {
        for order in [Order::Prompt, Order::Random, Order::Priorities(3)] {
            for hasty in [false, true] {
                let trace = |seed| run(Plan { seed, order, hasty }, crowd).unwrap();
                assert_eq!(trace(1), trace(1));
                let different: HashSet<_> = (0..20).map(|seed| trace(seed).trace).collect();
                assert!(different.len() > 5, "{order:?}");
            }
        }
    }

    #[test]
    fn a_simulation_sees_two_that_wait_for_each_other() {
        let embrace = || {
            let locks = Arc::new((Mutex::new(()), Mutex::new(())));
            let other = Arc::clone(&locks);
            let task = spawn("other", move || {
                let _first = other.1.lock();
                let _second = other.0.lock();
            });
            let _first = locks.0.lock();
            let _second = locks.1.lock();
            drop(task);
        };
        for order in [Order::Random, Order::Priorities(2)] {
            let report = (0..200)
                .find_map(|seed| run(Plan { seed, order, hasty: false }, embrace).err())
                .expect("an unlucky order");
            assert!(report.contains("wait for each other"), "{report}");
        }
    }

    #[test]
    fn time_passes_in_a_simulation_when_nobody_can_run() {
        let plan = Plan { seed: 1, order: Order::Prompt, hasty: false };
        let ending = run(plan, || {
            let start = now().unwrap();
            sleep(Duration::from_secs(3600));
            assert_eq!(now().unwrap() - start, Duration::from_secs(3600));
        });
        assert_eq!(ending.unwrap().elapsed, Duration::from_secs(3600));
        let panicked = run(plan, || panic!("a finding")).unwrap_err();
        assert!(panicked.contains("main: a finding"), "{panicked}");
    }
}
