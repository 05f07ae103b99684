//! Eight threads send over one pool for ten minutes, to two real servers of which one after the other crashes, hangs or is restarted:
//! every outcome is what the servers' own queues say, and nothing grows.
//!
//! ```text
//! tests/servers/get-pkgs.sh                                   # once, as root, on Debian or Ubuntu
//! cargo test --test soak -- --ignored --nocapture             # as root
//! SOAK_SECONDS=20 SOAK_SEED=7 cargo test --test soak -- --ignored --nocapture
//! ```

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

mod common;
#[path = "common/postfix.rs"]
#[allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]
mod postfix;
#[path = "common/sink.rs"]
mod sink;

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use fastrand::Rng;
use postfix::{Frozen, Postfix};
use sink::Sink;
use smtp_pool::{FailureKind, Host, Receipt, SendError, SendOptions, SmtpSender};

const THREADS: usize = 8;
/// Fewer than threads, so that some wait.
const MAX_SIZE: usize = 6;
/// Between two calls of one thread: keeps what the servers hold for the count within some 200 MB.
const PACE: Duration = ms(75);
/// The last line of each message: one that was cut short has none.
const END: &str = "This is the end.";
/// All mail stays in the queue, where it is counted.
const KEEP_ALL: &str = "smtpd_client_restrictions = static:HOLD";

/// What resident memory may grow by after the warm-up: the pages of the list of results, and what an allocator rounds up to.
const GROWTH_KB: u64 = 8192;

/// Which server is preferred. A new pool for each; the last one says goodbye, and nothing of it may be left.
const TURNS: [(&str, Ranks); 3] = [
    ("Postfix three times as often", Ranks { postfix: (0, 3), sink: (0, 1) }),
    ("Postfix first, sink as its standby", Ranks { postfix: (0, 1), sink: (10, 1) }),
    ("sink first, Postfix as its standby", Ranks { postfix: (10, 1), sink: (0, 1) }),
];

/// Priority and weight of each server.
struct Ranks {
    postfix: (u32, u32),
    sink: (u32, u32),
}

struct Servers {
    postfix: Postfix,
    sink: Sink,
}

impl Servers {
    fn sender(&self, ranks: &Ranks) -> SmtpSender {
        let ranked = |host: Host, (priority, weight)| host.priority(priority).weight(weight);
        SmtpSender::builder()
            // STARTTLS and AUTH.
            .host(ranked(self.postfix.host(), ranks.postfix))
            .host(ranked(self.sink.host(), ranks.sink))
            .max_size(MAX_SIZE)
            .min_idle(2)
            .acquire_timeout(ms(3000))
            .connect_timeout(ms(1000))
            .auth_timeout(ms(1000))
            .send_timeout(ms(1500))
            // Much shorter than anybody should set it: a server that hangs makes many outcomes unknown.
            .final_reply_timeout(ms(1000))
            .idle_timeout(ms(3000))
            .max_lifetime(ms(15_000))
            .max_messages_per_connection(200)
            .keepalive_interval(ms(700))
            .reconnect_cooldown(ms(500))
            .max_reconnect_cooldown(ms(2000))
            .retry_base_delay(ms(200))
            .build()
            .unwrap()
    }

    /// Does one of them harm and mends it; returns what it did.
    fn torment(&self, rng: &mut Rng) -> &'static str {
        let down = ms(rng.u64(0..4000));
        match rng.u8(0..7) {
            0 => {
                self.postfix.kill();
                pace(down);
                self.postfix.start_again();
                "Postfix killed"
            }
            1 => {
                self.postfix.stop();
                pace(down);
                self.postfix.start_again();
                "Postfix stopped"
            }
            2 => {
                let _frozen = self.postfix.freeze();
                pace(down);
                "Postfix frozen"
            }
            3 => {
                postfix::kill(&self.postfix.processes("smtpd"));
                "Postfix's sessions killed"
            }
            4 => {
                self.sink.kill();
                pace(down);
                self.sink.start_again();
                "sink killed"
            }
            5 => {
                self.sink.stop();
                pace(down);
                self.sink.start_again();
                "sink stopped"
            }
            _ => {
                let _frozen = Frozen::new(vec![self.sink.process()]);
                pace(down);
                "sink frozen"
            }
        }
    }
}

/// How a send ended, in one byte, so that ten minutes of them weigh nothing.
type Outcome = u8;

fn outcome(result: &Result<Receipt, SendError>) -> Outcome {
    let index = result.as_ref().err().map(|error| KINDS.iter().position(|&kind| kind == error.kind()).unwrap() + 1);
    Outcome::try_from(index.unwrap_or(0)).unwrap()
}

fn name_of(outcome: Outcome) -> String {
    let kind = usize::from(outcome).checked_sub(1).map(|index| KINDS[index]);
    kind.map_or("Ok".to_owned(), |kind| kind.to_string())
}

/// What one thread did in one turn.
#[derive(Default)]
struct Calls {
    outcomes: Vec<Outcome>,
    longest: Duration,
    /// By how much the worst call overran its deadline, and what became of it.
    overrun: (Duration, String),
    unexpected: Vec<String>,
}

fn id(turn: usize, thread: usize, number: usize) -> String {
    format!("{turn}.{thread}.{number}@soak")
}

fn call_until(is_over: impl Fn() -> bool, sender: &SmtpSender, turn: usize, thread: usize, mut rng: Rng) -> Calls {
    let mut calls = Calls { outcomes: Vec::with_capacity(1 << 14), ..Calls::default() };
    while !is_over() {
        let id = id(turn, thread, calls.outcomes.len());
        // Most are small; some take several writes.
        let size = if rng.u8(..) < 2 { 100_000 } else { rng.usize(0..2000) };
        let content = [big_content(&id, size), format!("{END}\r\n").into_bytes()].concat();
        let begun = now();
        // Now and then a caller is in a hurry.
        let deadline = begun + if rng.u8(..) < 16 { ms(rng.u64(20..1000)) } else { ms(6000) };
        let result = sender.send_with(&envelope(1), &content, &SendOptions::new().deadline(deadline));
        let ended = now();
        calls.longest = calls.longest.max(ended - begun);
        let overrun = ended.saturating_duration_since(deadline);
        if overrun > calls.overrun.0 {
            let given = deadline - begun;
            let told = result.as_ref().map_or_else(|error| format!("{error:?}"), |receipt| format!("{receipt:?}"));
            calls.overrun = (overrun, format!("{id}, given {given:?}: {told}"));
        }
        if let Err(error) = &result {
            // Nothing here is anybody's fault but the machine's that the servers run on.
            let is_outage = !matches!(error.kind(), FailureKind::PermanentFailure | FailureKind::Shutdown);
            if !is_outage && calls.unexpected.len() < 10 {
                calls.unexpected.push(format!("{id}: {error:?}"));
            }
        }
        calls.outcomes.push(outcome(&result));
        pace(PACE.mul_f64(0.5 + rng.f64()));
    }
    calls
}

/// What this process holds.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    memory_kb: u64,
    descriptors: usize,
    threads: usize,
}

impl Held {
    fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB")).unwrap();
        let count = |path| fs::read_dir(path).unwrap().count();
        Self {
            memory_kb: memory.trim().parse().unwrap(),
            descriptors: count("/proc/self/fd"),
            threads: count("/proc/self/task"),
        }
    }

    fn most(self, other: Self) -> Self {
        Self {
            memory_kb: self.memory_kb.max(other.memory_kb),
            descriptors: self.descriptors.max(other.descriptors),
            threads: self.threads.max(other.threads),
        }
    }
}

/// Says once a second what is held, and how late this machine wakes a thread that does nothing but sleep: nobody can be expected
/// to be more punctual.
fn watch(is_over: impl Fn() -> bool, lateness: &AtomicU64, report: &mpsc::Sender<(Instant, Held)>) {
    const NAP: Duration = ms(10);
    while !is_over() {
        for _ in 0..100 {
            let due = now() + NAP;
            pace(NAP);
            let late = now().saturating_duration_since(due).as_millis();
            lateness.fetch_max(u64::try_from(late).unwrap(), Ordering::Relaxed);
        }
        report.send((now(), Held::now())).unwrap();
    }
}

#[test]
#[ignore = "takes ten minutes and needs a private Postfix and smtp-sink"]
fn ten_minutes_of_crashing_servers_lose_nothing_double_nothing_and_leak_nothing() {
    let length = Duration::from_secs(from_environment("SOAK_SECONDS").unwrap_or(600));
    let seed = from_environment("SOAK_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    eprintln!("SOAK_SECONDS={} SOAK_SEED={seed}", length.as_secs());
    let mut rng = Rng::with_seed(seed);
    let servers = Servers { postfix: Postfix::start_with(KEEP_ALL), sink: Sink::start(postfix::free_port()) };

    // What libraries open and start once and keep, is there after a first pass; and so are the results' first pages.
    let first = servers.sender(&TURNS[0].1);
    assert!(first.verify().iter().all(|report| report.result.is_ok()), "both servers answer");
    assert!(first.shutdown(PATIENCE));
    drop(first);
    let at_rest = Held::now();

    let lateness = AtomicU64::new(0);
    let (report, reports) = mpsc::channel();
    let begun = now();
    let mut turns: Vec<Vec<Calls>> = Vec::new();
    let mut torments: BTreeMap<&str, usize> = BTreeMap::new();
    let mut rests = Vec::new();
    for (turn, (name, ranks)) in TURNS.iter().enumerate() {
        let sender = servers.sender(ranks);
        let until = begun + length * u32::try_from(turn + 1).unwrap() / u32::try_from(TURNS.len()).unwrap();
        let calls = thread::scope(|scope| {
            let over = Flag::default();
            let (is_over, report, lateness) = (over.reader(), report.clone(), &lateness);
            scope.spawn(move || watch(is_over, lateness, &report));
            let callers: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let (sender, is_over, rng) = (&sender, over.reader(), Rng::with_seed(rng.u64(..)));
                    scope.spawn(move || call_until(is_over, sender, turn, thread, rng))
                })
                .collect();
            while now() < until {
                *torments.entry(servers.torment(&mut rng)).or_default() += 1;
                pace(ms(rng.u64(100..1500)));
            }
            drop(over);
            callers.into_iter().map(|caller| caller.join().unwrap()).collect()
        });
        let status = sender.status();
        eprintln!(
            "{name}: {} connections opened, {} failed to open, {:?}",
            status.created, status.create_failures, status.discarded
        );
        // A sign of life may be asked for at this very moment, which counts as a lease; the shutdown waits for it.
        assert_eq!(status.counts.waiting, 0, "{}", status.counts);
        assert!(sender.shutdown(PATIENCE), "nothing had to be cut");
        drop(sender);
        eventually("all that the pool held is given back", || {
            let held = Held::now();
            held.threads <= at_rest.threads && held.descriptors <= at_rest.descriptors
        });
        rests.push(Held::now());
        turns.push(calls);
    }
    let took = now() - begun;
    drop(report);
    let samples: Vec<_> = reports.iter().collect();

    // What was written and not read when a client gave up is taken now, or never.
    servers.postfix.stop();
    servers.sink.stop();
    let mut taken = servers.postfix.taken(END);
    let by_postfix: usize = taken.values().sum();
    for (id, count) in servers.sink.taken(END) {
        *taken.entry(id).or_default() += count;
    }
    let in_all: usize = taken.values().sum();

    let mut figures: BTreeMap<String, [usize; 3]> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (turn, calls) in turns.iter().enumerate() {
        for (thread, calls) in calls.iter().enumerate() {
            for (number, &outcome) in calls.outcomes.iter().enumerate() {
                let id = id(turn, thread, number);
                let count = taken.remove(&id).unwrap_or(0);
                let name = name_of(outcome);
                let is_true = match outcome {
                    0 => count == 1,
                    _ if KINDS[usize::from(outcome) - 1] == FailureKind::UnknownAfterData => count <= 1,
                    _ => count == 0,
                };
                if !is_true {
                    wrong.push(format!("{id}: {name}, taken {count} times"));
                }
                figures.entry(name).or_default()[count.min(2)] += 1;
            }
        }
    }
    let each = || turns.iter().flatten();
    let calls: usize = each().map(|calls| calls.outcomes.len()).sum();
    let ok = figures.get("Ok").map_or(0, |counts| counts.iter().sum());
    let longest = each().map(|calls| calls.longest).max().unwrap();
    let (overrun, overrunner) = each().map(|calls| &calls.overrun).max().unwrap();
    let late = ms(lateness.load(Ordering::Relaxed));
    let warm_by = begun + Duration::from_secs(60).min(length / 2);
    let peak = |samples: &[(Instant, Held)]| samples.iter().map(|&(_, held)| held).reduce(Held::most).unwrap();
    let warm = samples.partition_point(|&(at, _)| at < warm_by).max(1);
    let (before, after) = (peak(&samples[..warm]), peak(&samples[warm..]));
    let torments_in_all: usize = torments.values().sum();

    eprintln!(
        "{calls} calls of {THREADS} threads in {took:.1?}, {:.1} accepted a second",
        ok as f64 / took.as_secs_f64()
    );
    eprintln!("by outcome, [not taken, taken once, more often]:");
    for (name, counts) in &figures {
        eprintln!("  {name:28} {counts:?}");
    }
    eprintln!("the servers took {in_all}: Postfix {by_postfix}, sink {}", in_all - by_postfix);
    eprintln!("{torments_in_all} times a server was harmed: {torments:?}");
    eprintln!(
        "longest call {longest:?}; worst overrun of a deadline {overrun:?}; this machine woke a sleeper up to {late:?} late"
    );
    eprintln!("  the worst: {overrunner}");
    eprintln!("held at rest: before {at_rest:?}");
    for rest in &rests {
        eprintln!("               after {rest:?}");
    }
    eprintln!("most held: until {:?} {before:?}", warm_by - begun);
    eprintln!("           after that {after:?}");

    assert!(wrong.is_empty(), "{} outcomes are not true: {:#?}", wrong.len(), &wrong[..wrong.len().min(20)]);
    assert!(taken.is_empty(), "messages that nobody sent: {taken:?}");
    let unexpected: Vec<_> = each().flat_map(|calls| &calls.unexpected).collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");
    // One of the two was up at all times.
    assert!(ok * 10 >= calls * 9, "{ok} of {calls} were accepted");
    assert!(
        *overrun <= SLACK + late,
        "a call ended {overrun:?} behind its deadline, this machine is late by up to {late:?}: {overrunner}"
    );
    assert!(after.memory_kb <= before.memory_kb + GROWTH_KB, "memory grows: {before:?}, {after:?}");
    // At any time: each connection a socket and, while it is opened, a thread that looks up its name.
    let descriptors = at_rest.descriptors + 2 * MAX_SIZE + 6;
    let threads = at_rest.threads + THREADS + MAX_SIZE + 6;
    assert!(
        after.descriptors <= descriptors && after.threads <= threads,
        "{after:?}: more than {descriptors}, {threads}"
    );
}
