//! A host that is down is not stormed, costs its callers no time, and is back soon after its return.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

mod common;
#[path = "common/doors.rs"]
mod doors;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use doors::{SlammingDoor, probes_within};
use smtp_pool::testing::{Action, Script, Stage, TestServer};
use smtp_pool::{FailureKind, HostState, SmtpSender};

const THREADS: usize = 200;

/// What calls in a loop were told.
#[derive(Default)]
struct Told {
    calls: usize,
    /// How long each call took that could not have waited for the host's next try.
    hopeless: Vec<Duration>,
    without_hint: usize,
    /// Calls whose time was over while somebody else's try was under way.
    waited: usize,
    other: Vec<String>,
}

/// All threads call until the time is over. A call is hopeless when the next try lies behind its deadline.
fn call_in_a_loop(sender: &SmtpSender, acquire_timeout: Duration, pause: Duration, time: Duration) -> Told {
    let start = now();
    let all = thread::scope(|scope| {
        let callers: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    let mut told = Told::default();
                    while now() - start < time {
                        let begun = now();
                        let cooling = is_cooling_past(sender, begun + acquire_timeout);
                        let called = now();
                        let result = send(sender, &format!("{thread}.{}@outage", told.calls));
                        let took = now() - called;
                        told.calls += 1;
                        match result {
                            Err(error) if error.kind() == FailureKind::HostUnavailable => {
                                if cooling {
                                    told.hopeless.push(took);
                                }
                                told.without_hint += usize::from(error.retry_after().is_none());
                            }
                            Err(error) if error.kind() == FailureKind::PoolExhausted => told.waited += 1,
                            Err(error) => told.other.push(error.to_string()),
                            Ok(_) => told.other.push("sent".to_owned()),
                        }
                        pace(pause);
                    }
                    told
                })
            })
            .collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect::<Vec<_>>()
    });
    let mut sum = Told::default();
    for mut told in all {
        sum.calls += told.calls;
        sum.hopeless.append(&mut told.hopeless);
        sum.waited += told.waited;
        sum.without_hint += told.without_hint;
        sum.other.append(&mut told.other);
    }
    sum.hopeless.sort();
    sum
}

fn is_cooling_past(sender: &SmtpSender, deadline: Instant) -> bool {
    matches!(sender.status().hosts[0].state, HostState::CoolingDown { until } if until > deadline)
}

fn percentile(sorted: &[Duration], part: f64) -> Duration {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a list")]
    let at = (sorted.len() as f64 * part) as usize;
    sorted[at.min(sorted.len() - 1)]
}

/// How much later than its connection came about the listener may have heard of it.
const TOLD_LATE: Duration = ms(20);

/// The tries that a cooldown allows: those that began before the first one, one for each place, and a probe at each end.
fn attempts_keep_to_the_schedule(
    times: &[Instant],
    max_size: usize,
    first: Duration,
    longest: Duration,
    shortest: f64,
) {
    let start = times[0];
    let opening = times.iter().filter(|&&time| time - start < first.mul_f64(shortest)).count();
    assert!(opening <= max_size, "{opening} tries before the first cooldown, {max_size} places");
    let mut pause = first;
    for (before, after) in times[opening - 1..].iter().zip(&times[opening..]) {
        let gap = *after - *before;
        // The pause begins a little after the try that it follows; but a busy machine may tell the listener of that try late.
        assert!(
            gap + TOLD_LATE >= pause.mul_f64(shortest),
            "a try {gap:?} after the one before, in a cooldown of {pause:?}"
        );
        pause = (pause * 2).min(longest);
    }
}

#[test]
fn two_hundred_threads_do_not_storm_a_dead_host_and_do_not_wait_for_it() {
    let (first, longest, time) = (ms(100), ms(800), ms(3000));
    let (acquire_timeout, max_size) = (ms(20), 8);
    let door = SlammingDoor::open();
    let sender = sender(door.host())
        .max_size(max_size)
        .acquire_timeout(acquire_timeout)
        .reconnect_cooldown(first)
        .max_reconnect_cooldown(longest)
        .build()
        .unwrap();
    let told = call_in_a_loop(&sender, acquire_timeout, ms(10), time);
    let times = door.times();
    let allowed = max_size + probes_within(time + ms(100), first, longest, 1.0);
    let (p50, p99) = (percentile(&told.hopeless, 0.5), percentile(&told.hopeless, 0.99));
    eprintln!(
        "{} calls of {THREADS} threads, {} connections tried, {allowed} allowed; failing calls p50 {p50:?} p99 {p99:?}",
        told.calls,
        times.len()
    );
    assert!(times.len() <= allowed, "{} tries, the cooldown allows {allowed}", times.len());
    attempts_keep_to_the_schedule(&times, max_size, first, longest, 1.0);
    assert!(times.len() > probes_within(time, first, longest, 1.0) / 2, "the host is asked again and again");
    assert_eq!((told.without_hint, &told.other), (0, &Vec::new()), "each says when the next try is");
    assert!(told.hopeless.len() > THREADS);
    // 5 ms, and what 200 threads on two busy processors may add.
    assert!(p50 < ms(5) && p99 < ms(20), "failing calls took p50 {p50:?}, p99 {p99:?}");
    assert!(is_at_rest(&sender), "{}", sender.status().counts);
}

#[test]
#[ignore = "takes OUTAGE_SECONDS, a minute; .ci/run runs it for a short time"]
fn a_long_outage_with_default_options() {
    let time = Duration::from_secs(from_environment("OUTAGE_SECONDS").unwrap_or(60));
    let door = SlammingDoor::open();
    // The defaults: 30 s, doubling, 20 % of jitter; 15 s to get a connection.
    let sender = SmtpSender::builder().host(door.host()).build().unwrap();
    let told = call_in_a_loop(&sender, Duration::from_secs(15), ms(10), time);
    let times = door.times();
    let (first, longest) = (Duration::from_secs(30), Duration::from_secs(300));
    let allowed = 8 + probes_within(time, first, longest, 0.8);
    let (p50, p99) = (percentile(&told.hopeless, 0.5), percentile(&told.hopeless, 0.99));
    eprintln!(
        "{} calls of {THREADS} threads in {time:?}, {} connections tried, {allowed} allowed; \
         {} failing calls p50 {p50:?} p99 {p99:?} max {:?}",
        told.calls,
        times.len(),
        told.hopeless.len(),
        told.hopeless.last()
    );
    assert!(times.len() <= allowed, "{} tries, the cooldown allows {allowed}", times.len());
    assert!(time < Duration::from_secs(36) || times.len() >= 2, "a probe is due within 36 s");
    attempts_keep_to_the_schedule(&times, 8, first, longest, 0.8);
    assert_eq!((told.without_hint, &told.other), (0, &Vec::new()));
    assert!(p99 < ms(5), "failing calls took p99 {p99:?}");
}

#[test]
#[ignore = "takes OUTAGE_SECONDS, a minute; .ci/run runs it for a short time"]
fn a_long_outage_with_short_cooldowns() {
    let (first, longest) = (Duration::from_secs(1), Duration::from_secs(8));
    let time = Duration::from_secs(from_environment("OUTAGE_SECONDS").unwrap_or(60));
    let acquire_timeout = ms(100);
    let door = SlammingDoor::open();
    let sender = SmtpSender::builder()
        .host(door.host())
        .acquire_timeout(acquire_timeout)
        .reconnect_cooldown(first)
        .max_reconnect_cooldown(longest)
        .build()
        .unwrap();
    let told = call_in_a_loop(&sender, acquire_timeout, ms(10), time);
    let times = door.times();
    let allowed = 8 + probes_within(time, first, longest, 0.8);
    let (p50, p99) = (percentile(&told.hopeless, 0.5), percentile(&told.hopeless, 0.99));
    eprintln!(
        "{} calls of {THREADS} threads in {time:?}, {} connections tried, {allowed} allowed; \
         {} failing calls p50 {p50:?} p99 {p99:?} max {:?}",
        told.calls,
        times.len(),
        told.hopeless.len(),
        told.hopeless.last()
    );
    assert!(times.len() <= allowed, "{} tries, the cooldown allows {allowed}", times.len());
    attempts_keep_to_the_schedule(&times, 8, first, longest, 0.8);
    assert_eq!((told.without_hint, &told.other), (0, &Vec::new()));
    assert!(p99 < ms(5), "failing calls took p99 {p99:?}");
}

#[test]
fn after_its_return_one_probe_goes_first_and_sends_succeed_within_one_cooldown() {
    let pause = ms(200);
    let server = TestServer::builder().script(Script::new().on(Stage::Connect, [Action::Reset])).start();
    let sender =
        sender(plain(&server)).max_size(8).reconnect_cooldown(pause).max_reconnect_cooldown(pause).build().unwrap();
    let sent = AtomicUsize::new(0);
    thread::scope(|scope| {
        let over = Flag::default();
        for thread in 0..THREADS {
            let (sender, is_over, sent) = (&sender, over.reader(), &sent);
            scope.spawn(move || {
                let mut number = 0;
                while !is_over() {
                    number += 1;
                    let result = send(sender, &format!("{thread}.{number}@return"));
                    sent.fetch_add(usize::from(result.is_ok()), Ordering::SeqCst);
                    pace(ms(5));
                }
            });
        }
        let cools = || {
            let status = sender.status();
            matches!(status.hosts[0].state, HostState::CoolingDown { .. }) && status.counts.connecting == 0
        };
        eventually("all who came first have failed", cools);
        // Down, and down again: the next one is a probe, and its cooldown begins.
        let begun = server.connections_accepted();
        assert!(server.wait_for(|seen| seen.connections_accepted() > begun, PATIENCE));
        eventually("the probe has failed", cools);
        let failed = server.connections_accepted();
        // The host is back; the greeting waits for us.
        server.set_script(Script::new().on(Stage::Connect, [Action::barrier("greet"), Action::Default]));
        let returned = now();
        server.wait_until_reached("greet");
        let waited = now() - returned;
        eprintln!("the probe came {waited:?} after the return, cooldown {pause:?}");
        assert!(waited <= pause + SLACK * 2, "the probe came {waited:?} after the return");
        // As long as the probe is under way nobody else tries, whatever they do.
        let calls = sender.status();
        assert_eq!(calls.hosts[0].state, HostState::Probing, "{calls:?}");
        let start = now();
        eventually("200 threads have called again and again", || now() - start > ms(150));
        assert_eq!(server.connections_accepted(), failed + 1, "one probe");
        assert_eq!(sent.load(Ordering::SeqCst), 0);
        server.release("greet");
        assert!(server.wait_for(|seen| seen.messages() > 0, PATIENCE));
        eventually("everybody sends", || sent.load(Ordering::SeqCst) > THREADS);
    });
    assert_eq!(sender.status().hosts[0].state, HostState::Available);
    assert_eq!(sender.status().hosts[0].consecutive_failures, 0);
    assert_eq!(server.messages().len(), sent.load(Ordering::SeqCst));
    assert!(server.peak_connections() <= 8);
}

/// Callers in a hurry learn little about a host that does not answer; all of them together must not become a storm.
#[test]
fn a_silent_host_is_not_stormed_by_callers_in_a_hurry() {
    let (pause, time) = (ms(400), ms(2500));
    let server = TestServer::builder().script(Script::new().on(Stage::Connect, [Action::Silence])).start();
    let sender = sender(plain(&server))
        .max_size(8)
        .acquire_timeout(ms(200))
        .reconnect_cooldown(pause)
        .max_reconnect_cooldown(pause)
        .build()
        .unwrap();
    let told = call_in_a_loop(&sender, ms(200), ms(10), time);
    let tried = server.connections_accepted();
    let allowed = 8 + probes_within(time + ms(200), pause, pause, 1.0);
    eprintln!("{} calls, {tried} connections tried, {allowed} allowed", told.calls);
    assert_eq!(told.without_hint, 0, "{:?}", told.other);
    assert!(tried <= allowed, "{tried} tries, the cooldown allows {allowed}");
}

#[test]
fn a_probe_that_fails_doubles_the_pause_and_no_call_gets_past_it() {
    // Warm-up, verify, lease and send ask the same book: a host that cools down is asked by none of them.
    let door = SlammingDoor::open();
    let sender = sender(door.host())
        .max_retries(3)
        .retry_base_delay(ms(1))
        .min_idle(2)
        .acquire_timeout(ms(50))
        .reconnect_cooldown(HOUR)
        .max_reconnect_cooldown(HOUR)
        .build()
        .unwrap();
    // min_idle has the pool's own thread ask.
    eventually("the host cools down", || matches!(sender.status().hosts[0].state, HostState::CoolingDown { .. }));
    eventually("nothing is under way", || is_at_rest(&sender));
    let asked = door.times().len();
    for number in 0..20 {
        let error = send(&sender, &format!("{number}@past")).unwrap_err();
        assert_eq!(error.kind(), FailureKind::HostUnavailable, "{error}");
        assert!(error.retry_after().is_some());
        assert_eq!(sender.warm_up().unwrap_err().kind(), FailureKind::HostUnavailable);
        assert_eq!(sender.lease().unwrap_err().kind(), FailureKind::HostUnavailable);
    }
    let report = sender.verify().remove(0).result.unwrap_err();
    assert_eq!(report.kind(), FailureKind::HostUnavailable, "{report}");
    assert_eq!(door.times().len(), asked, "nobody asked a host that cools down");
}
