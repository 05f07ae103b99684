//! A host that is down, and two hundred threads that want it: how often it is asked, and how long each call takes to fail.

use std::thread;
use std::time::Duration;

use smtp_pool::SmtpSender;

use crate::Plan;
use crate::client::{Manager, Opener, Server};
use crate::clock;
use crate::doors::{SlammingDoor, probes_within};
use crate::mail;
use crate::paired::{Spread, as_f64};
use crate::report::{Bound, Report, Row};

const THREADS: usize = 200;
const PLACES: usize = 8;
/// Between two calls of a thread.
const PACE: Duration = Duration::from_millis(10);
/// Calls that begin earlier may be those whose failure begins the cooldown.
const SETTLED: Duration = Duration::from_millis(200);

/// What the host and its callers saw.
struct Outage {
    attempts: usize,
    calls: usize,
    time: Duration,
    /// How long each call took, shortest first.
    latencies: Vec<Duration>,
}

impl Outage {
    /// Every thread calls, and pauses, until the time is over. No call succeeds.
    fn run(door: &SlammingDoor, time: Duration, call: impl Fn() -> bool + Sync) -> Self {
        let start = clock::now();
        let mut calls: Vec<(Duration, Duration)> = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|_| {
                    scope.spawn(|| {
                        let mut calls = Vec::new();
                        while clock::now() - start < time {
                            let called = clock::now();
                            assert!(!call(), "nothing gets through a door that slams");
                            calls.push((called - start, clock::now() - called));
                            pace();
                        }
                        calls
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let (attempts, total) = (door.times().len(), calls.len());
        calls.retain(|&(called, _)| called >= SETTLED.min(time / 4));
        let mut latencies: Vec<Duration> = calls.into_iter().map(|(_, took)| took).collect();
        latencies.sort_unstable();
        Self { attempts, calls: total, time, latencies }
    }

    fn attempts_per_second(&self) -> f64 {
        as_f64(self.attempts) / self.time.as_secs_f64()
    }

    fn milliseconds(&self, part: f64) -> Spread {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a list")]
        let place = (as_f64(self.latencies.len()) * part) as usize;
        Spread::exactly(self.latencies[place.min(self.latencies.len() - 1)].as_secs_f64() * 1e3)
    }

    fn rows(&self, name: &str) -> Vec<Row> {
        vec![
            Row::shown(format!("calls per second, {name}"), "/s", {
                Spread::exactly(as_f64(self.calls) / self.time.as_secs_f64())
            }),
            Row::shown(format!("attempts per second at the host, {name}"), "/s", {
                Spread::exactly(self.attempts_per_second())
            }),
            Row::shown(format!("failing calls: p50, {name}"), "ms", self.milliseconds(0.5)),
            Row::shown(format!("failing calls: p99, {name}"), "ms", self.milliseconds(0.99)),
            Row::shown(format!("failing calls: longest, {name}"), "ms", self.milliseconds(1.0)),
        ]
    }
}

#[expect(clippy::disallowed_methods, reason = "a load that does not pause measures nothing but the processor")]
fn pace() {
    thread::sleep(PACE);
}

pub fn measure(plan: &Plan, report: &mut Report) {
    // The peers do the same from beginning to end, so a part of the time shows it.
    // The short run is the long one thirty times as fast, but for the pace of the calls.
    let unit = Duration::from_secs(1) / if plan.is_quick { 30 } else { 1 };
    let scale = Scale { first: unit * 30, longest: unit * 300, patience: unit, time: unit * 60 };
    let (naive_time, r2d2_time) = (unit * 5, unit * 10);
    let (ours, allowed) = pooled(scale);
    let seconds = scale.time.as_secs_f64();
    let group = format!(
        "outage: {THREADS} threads for {seconds:.1} s ({:.1} s naive, {:.1} s r2d2) at a host that slams the door; a call waits {:?}",
        naive_time.as_secs_f64(),
        r2d2_time.as_secs_f64(),
        scale.patience
    );
    let mut rows = vec![
        Row::promised(
            format!("connection attempts in {seconds:.1} s, the schedule allows {allowed}"),
            "",
            Bound::AtMost(as_f64(allowed)),
            Spread::exactly(as_f64(ours.attempts)),
        ),
        Row::promised("p99 of the failing calls once cooling", "ms", Bound::AtMost(5.0), ours.milliseconds(0.99)),
    ];
    rows.extend(ours.rows("smtp-pool"));
    rows.extend(naive(naive_time).rows("lettre, a connection each"));
    rows.extend(r2d2(r2d2_time, scale.patience).rows("lettre under r2d2"));
    report.add(&group, rows);
}

/// The times of a run.
#[derive(Debug, Clone, Copy)]
struct Scale {
    /// The options of the cooldown.
    first: Duration,
    longest: Duration,
    /// How long a call may wait for a connection.
    patience: Duration,
    time: Duration,
}

fn pooled(Scale { first, longest, patience, time }: Scale) -> (Outage, usize) {
    let door = SlammingDoor::open();
    let builder = SmtpSender::builder().host(door.host()).max_size(PLACES).acquire_timeout(patience);
    let sender = builder.reconnect_cooldown(first).max_reconnect_cooldown(longest).build().unwrap();
    let (envelope, content) = (mail::envelope(1), mail::content(700));
    let outage = Outage::run(&door, time, || sender.send_raw(&envelope, &content).is_ok());
    // A try for each place before the first failure, and a probe at the end of each pause, jitter at its shortest. A call that
    // waits when the time is over may see one more pause end.
    (outage, PLACES + probes_within(time + patience, first, longest, 0.8))
}

fn naive(time: Duration) -> Outage {
    let door = SlammingDoor::open();
    let opener = Opener::new(&Server::plain(door.port()));
    Outage::run(&door, time, || opener.open().is_ok())
}

fn r2d2(time: Duration, patience: Duration) -> Outage {
    let door = SlammingDoor::open();
    let size = u32::try_from(PLACES).unwrap();
    let builder = r2d2::Pool::builder().max_size(size).connection_timeout(patience);
    let pool = builder.build_unchecked(Manager(Opener::new(&Server::plain(door.port()))));
    Outage::run(&door, time, || pool.get().is_ok())
}
