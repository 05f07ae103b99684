//! Ten thousand processes and the relay that all of them lost: a simulation, with the crate's own cooldown under a clock of its own.
//!
//! Each process has eight workers with mail to send and room for as many connections. At the beginning the relay goes down, and every
//! connection with it; after five minutes it is back. A worker whose call fails calls again a second later on average. As in the
//! pool, a call that could outwait the pause waits for it, one that could not fails at once, and those who wait while another probes
//! learn what it learnt. One thread, one queue of events, the same seed each time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::Plan;
use crate::chart;
use crate::clock;
use crate::cooldown::{Cooldown, Schedule, Severity};
use crate::paired::{Spread, as_f64};
use crate::report::{Report, Row};

const WORKERS: u32 = 8;
/// How long the relay is down.
pub const OUTAGE: Duration = Duration::from_secs(300);
/// How long anybody looks.
const END: Duration = Duration::from_secs(900);
/// Between a worker's failure and its next call, on average.
const THINKING: Duration = Duration::from_secs(1);
/// How long a call waits: `acquire_timeout`, less the time that a try at the end of the pause must have (`connect_timeout`).
const PATIENCE: Duration = Duration::from_secs(5);
/// Of a connection to a relay that works.
const CONNECTING: Duration = Duration::from_millis(20);
/// The first burst is over: all that comes later comes from the cooldown.
const BURST: usize = 25;

/// What a process does about a relay that does not answer.
#[derive(Debug, Clone)]
pub struct Policy {
    pub name: &'static str,
    /// None: every call connects.
    schedule: Option<Schedule>,
    single_probe: bool,
}

/// What a relay does that is down.
#[derive(Debug, Clone, Copy)]
struct Down {
    name: &'static str,
    /// How long a try takes to fail.
    failing: Duration,
}

const DOWN: [Down; 2] = [
    Down { name: "refuses", failing: Duration::from_millis(1) },
    // The default `connect_timeout`.
    Down { name: "is silent", failing: Duration::from_secs(10) },
];

fn policies() -> Vec<Policy> {
    let schedule = |jitter: f64, longest: u64| {
        let longest = Duration::from_secs(longest);
        Some(Schedule { first: Duration::from_secs(30), longest, exponential: true, jitter })
    };
    let policy = |name, schedule, single_probe| Policy { name, schedule, single_probe };
    vec![
        policy("no cooldown", None, false),
        policy("cooldown alone", schedule(0.0, 300), false),
        policy("with jitter 0.2", schedule(0.2, 300), false),
        policy("with a single probe", schedule(0.0, 300), true),
        policy("with both (the defaults)", schedule(0.2, 300), true),
        policy("with both, 60 s at most", schedule(0.2, 60), true),
    ]
}

/// What the relay saw of one policy.
#[derive(Debug)]
pub struct Outcome {
    pub policy: Policy,
    /// Attempts to connect in each second.
    pub attempts: Vec<usize>,
    /// When each process had its first connection again, since the relay was back. In order.
    pub returns: Vec<Duration>,
}

impl Outcome {
    fn back_after(&self, part: f64) -> f64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a list")]
        let place = ((as_f64(self.returns.len()) * part).ceil() as usize).saturating_sub(1);
        self.returns[place].as_secs_f64()
    }

    fn rows(&self, down: Down) -> Vec<Row> {
        let name = format!("relay {}, {}", down.name, self.policy.name);
        let (while_down, after) = self.attempts.split_at(seconds(OUTAGE));
        let peak = |part: &[usize]| as_f64(part.iter().copied().max().unwrap_or(0));
        let total: usize = while_down.iter().sum();
        let shown = |what: &str, unit, value| Row::shown(format!("{what}: {name}"), unit, Spread::exactly(value));
        vec![
            shown("attempts in the outage", "", as_f64(total)),
            shown("most in a second of it, after the first burst", "/s", peak(&while_down[BURST..])),
            shown("most in a second after it", "/s", peak(after)),
            shown("half of the processes are back after", "s", self.back_after(0.5)),
            shown("99 of 100 are back after", "s", self.back_after(0.99)),
        ]
    }
}

pub fn measure(plan: &Plan, report: &mut Report) {
    let processes = plan.times(10_000, 200);
    let mut drawn = Vec::new();
    for down in DOWN {
        let outcomes: Vec<Outcome> =
            policies().into_iter().map(|policy| World::new(processes, policy, down).run()).collect();
        let rows = outcomes.iter().flat_map(|outcome| outcome.rows(down)).collect();
        report.add(&format!("fleet: {processes} processes, simulated, a relay that {} for 5 minutes", down.name), rows);
        drawn.push((format!("The relay {} for 5 minutes", down.name), outcomes));
    }
    if let Some(path) = &plan.fleet_chart {
        chart::draw_fleet(path, processes, &drawn).unwrap();
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a few hundred seconds")]
pub const fn seconds(time: Duration) -> usize {
    time.as_secs() as usize
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A worker of this process wants to send.
    Call(usize),
    /// A pause of this process is over that somebody waits for.
    PauseOver(usize),
    /// A try to connect has ended.
    Tried { process: usize, id: u64, connected: bool },
}

struct Process {
    cooldown: Cooldown,
    connections: u32,
    connecting: u32,
    /// Calls that wait: for the end of a pause, or for the probe.
    waiting: u32,
}

struct World {
    policy: Policy,
    failing: Duration,
    dawn: Instant,
    now: Duration,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    scheduled: u64,
    tries: u64,
    processes: Vec<Process>,
    rng: Rng,
    attempts: Vec<usize>,
    returns: Vec<Duration>,
}

impl World {
    fn new(processes: usize, policy: Policy, down: Down) -> Self {
        let process = || Process { cooldown: Cooldown::new(), connections: 0, connecting: 0, waiting: 0 };
        let mut world = Self {
            policy,
            failing: down.failing,
            dawn: clock::now(),
            now: Duration::ZERO,
            events: BinaryHeap::new(),
            scheduled: 0,
            tries: 0,
            processes: (0..processes).map(|_| process()).collect(),
            rng: Rng::with_seed(1),
            attempts: vec![0; seconds(END) + 1],
            returns: Vec::new(),
        };
        for process in 0..processes {
            (0..WORKERS).for_each(|_| world.think(process));
        }
        world
    }

    fn run(mut self) -> Outcome {
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            if at > END {
                break;
            }
            self.now = at;
            match event {
                Event::Call(process) => self.call(process),
                Event::PauseOver(process) => self.serve_waiting(process),
                Event::Tried { process, id, connected } => self.tried(process, id, connected),
            }
        }
        assert_eq!(self.returns.len(), self.processes.len(), "everybody is back in the end");
        Outcome { policy: self.policy, attempts: self.attempts, returns: self.returns }
    }

    fn schedule(&mut self, at: Duration, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((at, self.scheduled, event)));
    }

    fn instant(&self) -> Instant {
        self.dawn + self.now
    }

    /// A worker has failed, and calls again some time later.
    fn think(&mut self, process: usize) {
        let pause = THINKING.mul_f64(-(1.0 - self.rng.f64()).ln());
        self.schedule(self.now + pause, Event::Call(process));
    }

    fn call(&mut self, process: usize) {
        let now = self.instant();
        if self.may_open(process) {
            self.open(process);
            return;
        }
        match self.processes[process].cooldown.end() {
            // Somebody probes.
            None => self.processes[process].waiting += 1,
            Some(end) if end - now <= PATIENCE => {
                self.processes[process].waiting += 1;
                if self.processes[process].waiting == 1 {
                    self.schedule(end - self.dawn, Event::PauseOver(process));
                }
            }
            Some(end) => {
                // Every call until then fails at once. Calls know nothing of those before them, so the first that does not may be
                // drawn as if the time between were none.
                let past = self.now;
                self.now = (end - self.dawn) - PATIENCE;
                self.think(process);
                self.now = past;
            }
        }
    }

    fn may_open(&self, process: usize) -> bool {
        self.policy.schedule.is_none() || self.processes[process].cooldown.may_open(self.instant())
    }

    fn open(&mut self, process: usize) {
        self.tries += 1;
        let id = self.tries;
        let one = &mut self.processes[process];
        one.connecting += 1;
        assert!(one.connections + one.connecting <= WORKERS, "no more connections than places");
        if self.policy.single_probe {
            one.cooldown.begin(id);
        }
        self.attempts[seconds(self.now)] += 1;
        let connected = self.now >= OUTAGE;
        let took = if connected { CONNECTING } else { self.failing };
        self.schedule(self.now + took, Event::Tried { process, id, connected });
    }

    fn tried(&mut self, process: usize, id: u64, connected: bool) {
        let now = self.instant();
        let one = &mut self.processes[process];
        one.connecting -= 1;
        if connected {
            one.cooldown.succeeded();
            one.connections += 1;
            // Its worker has all it wants from here on.
            if one.connections == 1 {
                self.returns.push(self.now.saturating_sub(OUTAGE));
            }
            self.serve_waiting(process);
            return;
        }
        if let Some(schedule) = &self.policy.schedule {
            // Without a single probe every try counts as one, and the first to fail begins the next pause.
            if !self.policy.single_probe && one.cooldown.may_open(now) {
                one.cooldown.begin(id);
            }
            one.cooldown.failed(id, Severity::Passing, now, schedule, &mut self.rng);
        }
        self.think(process);
        // Who waited learns the same, unless it is not the end of it.
        self.serve_waiting(process);
    }

    /// Those who wait get what there is now: a try, a further wait, or a failure.
    fn serve_waiting(&mut self, process: usize) {
        let waiting = std::mem::take(&mut self.processes[process].waiting);
        (0..waiting).for_each(|_| self.call(process));
    }
}
