//! Observers are told everything, and nothing that they do harms a send or the pool.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

mod common;
#[path = "common/scenes.rs"]
mod scenes;

use std::collections::BTreeSet;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use common::*;
use scenes::{CANARIES, Door, SCENES};
use smtp_pool::observer::*;
use smtp_pool::testing::{Action, Script, Stage, TestServer};
use smtp_pool::{DiscardReason, FailureKind, HostState, SendStage, SmtpSender, SmtpSenderBuilder};

/// What each method hands on: its name, and all that the event says.
trait Listener: Send + Sync + 'static {
    fn hear(&self, method: &'static str, event: String);
}

/// An observer whose methods all do the same.
struct Every<L>(Arc<L>);

macro_rules! every {
    ($($method:ident: $event:ty),* $(,)?) => {
        impl<L: Listener> Observer for Every<L> {
            $(fn $method(&self, event: &$event) {
                self.0.hear(stringify!($method), format!("{event:?}"));
            })*
        }

        /// All that an observer can be told.
        const METHODS: &[&str] = &[$(stringify!($method)),*];
    };
}

every! {
    connection_opened: ConnectionOpened<'_>,
    connection_failed: ConnectionFailed<'_>,
    connection_discarded: ConnectionDiscarded<'_>,
    keepalive_failed: KeepaliveFailed<'_>,
    cooldown_entered: CooldownEntered<'_>,
    cooldown_left: CooldownLeft<'_>,
    reconnect_suppressed: ReconnectSuppressed<'_>,
    capacity_learned: CapacityLearned<'_>,
    message_limit_learned: MessageLimitLearned<'_>,
    idle_limit_learned: IdleLimitLearned<'_>,
    levels_changed: LevelsChanged<'_>,
    waiters_changed: WaitersChanged,
    acquire_finished: AcquireFinished<'_>,
    lease_ended: LeaseEnded<'_>,
    attempt_failed: AttemptFailed<'_>,
    send_retried: SendRetried<'_>,
    outcome_unknown: OutcomeUnknown<'_>,
    send_finished: SendFinished<'_>,
    thread_lost: ThreadLost<'_>,
}

/// A machine that starts no threads, and silences of many seconds, are beyond these tests; see `src/pool/tests/observing.rs`.
const NOT_HERE: [&str; 2] = ["idle_limit_learned", "thread_lost"];

fn methods_met() -> BTreeSet<&'static str> {
    METHODS.iter().copied().filter(|method| !NOT_HERE.contains(method)).collect()
}

/// Remembers everything.
#[derive(Default)]
struct Memory(Mutex<Vec<(&'static str, String)>>);

impl Listener for Memory {
    fn hear(&self, method: &'static str, event: String) {
        self.0.lock().unwrap().push((method, event));
    }
}

impl Memory {
    fn of(&self, method: &str) -> Vec<String> {
        let heard = self.0.lock().unwrap();
        heard.iter().filter(|(heard, _)| *heard == method).map(|(_, event)| event.clone()).collect()
    }
}

#[test]
fn everything_that_happens_is_told() {
    let memory = Arc::new(Memory::default());
    for (_, play) in SCENES {
        let build = |builder: SmtpSenderBuilder| builder.observer(Every(Arc::clone(&memory))).build().unwrap();
        play(&Door { build: &build, is_disturbed: false });
    }
    let heard = memory.0.lock().unwrap();
    let methods: BTreeSet<_> = heard.iter().map(|(method, _)| *method).collect();
    assert_eq!(methods, methods_met());
    // No address, content, Message-ID or words of a server.
    for (method, event) in &*heard {
        for secret in ["example.com", "example.net", "@scene", "Subject", "later", "too many messages"]
            .into_iter()
            .chain(CANARIES)
        {
            assert!(!event.contains(secret), "{method}: {secret} is in {event}");
        }
    }
}

/// Panics whatever it is told, and with what panics once more when it is dropped.
#[derive(Default)]
struct Panicking(Mutex<BTreeSet<&'static str>>);

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("told to panic when dropped");
    }
}

impl Listener for Panicking {
    fn hear(&self, method: &'static str, _: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(method);
        panic::resume_unwind(Box::new(Bomb));
    }
}

#[test]
fn an_observer_that_panics_at_everything_harms_nothing_and_is_told_on() {
    let panicking = Arc::new(Panicking::default());
    let memory = Arc::new(Memory::default());
    for (_, play) in SCENES {
        let build = |builder: SmtpSenderBuilder| {
            builder.observer(Every(Arc::clone(&panicking))).observer(Every(Arc::clone(&memory))).build().unwrap()
        };
        play(&Door { build: &build, is_disturbed: false });
    }
    assert_eq!(*panicking.0.lock().unwrap_or_else(PoisonError::into_inner), methods_met());
    assert_eq!(memory.0.lock().unwrap().iter().map(|(method, _)| *method).collect::<BTreeSet<_>>(), methods_met());
}

#[test]
fn an_observer_may_panic_while_its_thread_unwinds_from_another_panic() {
    let server = TestServer::start();
    let panicking = Arc::new(Panicking::default());
    let sender = sender(plain(&server)).observer(Every(Arc::clone(&panicking))).build().unwrap();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let _lease = sender.lease().unwrap();
        panic::resume_unwind(Box::new("a caller's own"));
    }));
    assert_eq!(outcome.unwrap_err().downcast_ref(), Some(&"a caller's own"));
    assert!(panicking.0.lock().unwrap_or_else(PoisonError::into_inner).contains("lease_ended"));
    send(&sender, "after@panic").unwrap();
    assert!(is_at_rest(&sender));
}

/// Calls the sender from within.
struct CallingBack {
    /// From which method.
    method: &'static str,
    sender: Mutex<Option<SmtpSender>>,
    call: fn(&SmtpSender),
    calls: AtomicUsize,
}

impl Listener for CallingBack {
    fn hear(&self, method: &'static str, _: String) {
        let sender = if method == self.method { self.sender.lock().unwrap().clone() } else { None };
        if let Some(sender) = sender {
            (self.call)(&sender);
            self.calls.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Plays all scenes with an observer that calls back from one of its methods, for each of them; all have to come to their end.
fn call_back_from_each_method(call: fn(&SmtpSender), is_disturbed: bool) {
    let (done, is_done) = mpsc::channel();
    for method in methods_met() {
        let done = done.clone();
        thread::spawn(move || {
            let mut calls = 0;
            for (_, play) in SCENES {
                let observer = CallingBack { method, sender: Mutex::default(), call, calls: AtomicUsize::new(0) };
                let observer = Arc::new(observer);
                let build = |builder: SmtpSenderBuilder| {
                    let sender = builder.observer(Every(Arc::clone(&observer))).build().unwrap();
                    *observer.sender.lock().unwrap() = Some(sender.clone());
                    sender
                };
                play(&Door { build: &build, is_disturbed });
                // Each would keep the other.
                let sender = observer.sender.lock().unwrap().take().unwrap();
                let counts = sender.status().counts;
                assert_eq!((counts.connecting, counts.waiting), (0, 0), "{counts}");
                sender.shutdown(PATIENCE);
                assert_eq!(sender.status().counts.total, 0, "nothing is lost");
                calls += observer.calls.load(Ordering::SeqCst);
            }
            done.send((method, calls)).unwrap();
        });
    }
    drop(done);
    let mut missing = methods_met();
    while !missing.is_empty() {
        let (method, calls) = is_done.recv_timeout(6 * PATIENCE).unwrap_or_else(|_| panic!("not done: {missing:?}"));
        assert!(calls > 0, "{method} has called");
        missing.remove(method);
    }
}

#[test]
fn an_observer_may_ask_for_the_status_at_any_time() {
    let asks = |sender: &SmtpSender| {
        let status = sender.status();
        assert!(status.counts.total <= status.counts.max_size);
    };
    call_back_from_each_method(asks, false);
}

#[test]
fn an_observer_may_send_at_any_time() {
    call_back_from_each_method(|sender| drop(send(sender, "nested@observer")), true);
}

#[test]
fn an_observer_may_shut_the_sender_down_at_any_time() {
    let closes = |sender: &SmtpSender| {
        sender.shutdown(ms(5));
        assert!(sender.status().is_shut_down);
    };
    call_back_from_each_method(closes, true);
}

#[test]
fn an_observer_is_not_told_what_it_does_itself_and_others_are() {
    #[derive(Default)]
    struct Echo {
        sender: Mutex<Option<SmtpSender>>,
        told: AtomicUsize,
    }
    impl Observer for Echo {
        fn send_finished(&self, _: &SendFinished<'_>) {
            self.told.fetch_add(1, Ordering::SeqCst);
            let sender = self.sender.lock().unwrap().clone();
            send(&sender.unwrap(), "echo@observer").unwrap();
        }
    }
    let server = TestServer::start();
    let (echo, memory) = (Arc::new(Echo::default()), Arc::new(Memory::default()));
    let sender =
        sender(plain(&server)).observer(Arc::clone(&echo)).observer(Every(Arc::clone(&memory))).build().unwrap();
    *echo.sender.lock().unwrap() = Some(sender.clone());
    for _ in 0..3 {
        send(&sender, "call@observer").unwrap();
    }
    assert_eq!((server.accepted("call@observer"), server.accepted("echo@observer")), (3, 3));
    assert_eq!(echo.told.load(Ordering::SeqCst), 3);
    assert_eq!(memory.of("send_finished").len(), 6);
    *echo.sender.lock().unwrap() = None;
}

/// What only ever adds.
#[derive(Default)]
struct Sums(Mutex<[i64; 7]>);

impl Observer for Sums {
    fn levels_changed(&self, event: &LevelsChanged<'_>) {
        let LevelsChanged { idle, leased, connecting, available, cooling_down, probing, .. } = *event;
        self.add([idle, leased, connecting, 0, available, cooling_down, probing]);
    }
    fn waiters_changed(&self, event: &WaitersChanged) {
        self.add([0, 0, 0, event.waiting, 0, 0, 0]);
    }
}

impl Sums {
    fn add(&self, change: [i64; 7]) {
        for (sum, change) in self.0.lock().unwrap().iter_mut().zip(change) {
            *sum += change;
        }
    }

    fn now(&self) -> [i64; 7] {
        *self.0.lock().unwrap()
    }
}

/// The same, of the status.
fn shown(sender: &SmtpSender) -> [i64; 7] {
    let status = sender.status();
    let counts = status.counts;
    let count = |is: fn(&HostState) -> bool| status.hosts.iter().filter(|host| is(&host.state)).count();
    let states = [
        count(|state| matches!(state, HostState::Available)),
        count(|state| matches!(state, HostState::CoolingDown { .. })),
        count(|state| matches!(state, HostState::Probing)),
    ];
    let counts = [counts.idle, counts.leased, counts.connecting, counts.waiting];
    let all: Vec<_> = counts.into_iter().chain(states).map(|count| i64::try_from(count).unwrap()).collect();
    all.try_into().unwrap()
}

#[test]
fn levels_come_to_what_the_status_shows_and_to_nothing_after_the_end() {
    const THREADS: usize = 12;
    let servers = [TestServer::start(), TestServer::start()];
    // Now and then a session breaks, and a message is refused.
    for server in &servers {
        let mut script = Script::new();
        for nth in (5..200).step_by(7) {
            script = script.on_nth(Stage::Data, nth, [Action::Reset]).on_nth(
                Stage::Rcpt,
                nth,
                [Action::reply("550 no\r\n")],
            );
        }
        server.set_script(script);
    }
    let sums = Arc::new(Sums::default());
    let sender = sender(plain(&servers[0]))
        .host(plain(&servers[1]).priority(10))
        .max_size(4)
        .keepalive_interval(ms(5))
        .max_messages_per_connection(9)
        .observer(Arc::clone(&sums))
        .build()
        .unwrap();
    assert_eq!(sums.now(), [0, 0, 0, 0, 2, 0, 0], "from the start");
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (sender, servers) = (&sender, &servers);
            scope.spawn(move || {
                for number in 0..60 {
                    if thread == 0 && number % 20 == 5 {
                        servers[0].stop_accepting();
                    } else if thread == 0 && number % 20 == 15 {
                        servers[0].resume_accepting();
                    }
                    drop(send(sender, &format!("{thread}.{number}@levels")));
                }
            });
        }
    });
    // Keepalive goes on, and the end of a cooldown is noticed by the pool's own thread.
    eventually("told is what is shown", || {
        let before = shown(&sender);
        sums.now() == before && shown(&sender) == before
    });
    // While somebody waits.
    let leases: Vec<_> = (0..4).map(|_| sender.lease().unwrap()).collect();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| send(&sender, "waits@levels"));
        }
        eventually("three wait", || sums.now()[3] == 3 && sums.now()[1] == 4);
        drop(leases);
    });
    assert!(sender.shutdown(PATIENCE));
    assert_eq!(sums.now(), [0; 7]);
}

#[test]
fn the_end_of_a_cooldown_is_told_when_nobody_calls() {
    let server = TestServer::start();
    server.stop_accepting();
    let sums = Arc::new(Sums::default());
    let builder = sender(plain(&server)).reconnect_cooldown(ms(60)).max_reconnect_cooldown(ms(60));
    let sender = builder.observer(Arc::clone(&sums)).build().unwrap();
    send(&sender, "one@cooldown").unwrap_err();
    eventually("the cooldown ends", || sums.now()[4..] == [1, 0, 0]);
    assert_eq!(shown(&sender)[4..], [1, 0, 0]);
}

#[test]
fn values_are_those_of_the_receipt_and_of_the_status() {
    let server = TestServer::start();
    let memory = Arc::new(Memory::default());
    let sender = sender(plain(&server)).max_size(1).observer(Every(Arc::clone(&memory))).build().unwrap();
    let receipt = send(&sender, "one@values").unwrap();
    send(&sender, "two@values").unwrap();
    server.set_script(Script::new().on(Stage::Rcpt, [Action::reply("550 5.1.1 unknown\r\n")]));
    let error = send(&sender, "three@values").unwrap_err();
    assert_eq!((error.kind(), error.stage()), (FailureKind::PermanentFailure, SendStage::EnvelopeStarted));
    sender.shutdown(PATIENCE);
    assert_eq!(sender.status().discarded.of(DiscardReason::Shutdown), 1);

    let host = format!("Endpoint(127.0.0.1:{})", server.port());
    let only = |method: &str| {
        let heard = memory.of(method);
        assert_eq!(heard.len(), 1, "{method}: {heard:?}");
        heard[0].clone()
    };
    let says =
        |event: &str, what: &[&str]| what.iter().for_each(|part| assert!(event.contains(part), "{part}: {event}"));
    let id = format!("connection_id: {}", receipt.connection_id());
    says(&only("connection_opened"), &[&host, &id, "took: "]);
    says(&only("connection_discarded"), &[&host, &id, "reason: Shutdown", "messages: 2"]);
    says(
        &only("attempt_failed"),
        &[&host, &id, "PermanentFailure", "EnvelopeStarted", "code: Some(550)", "Some(\"RCPT\")"],
    );
    let finished = memory.of("send_finished");
    assert_eq!(finished.len(), 3);
    says(&finished[0], &["outcome: Ok(())", &host, "attempts: 1", &format!("elapsed: {:?}", receipt.elapsed())]);
    says(&finished[2], &["outcome: Err(", "PermanentFailure", &host]);
    assert_eq!(memory.of("lease_ended").len(), 3);
    assert_eq!(memory.of("acquire_finished").len(), 3);
    for event in memory.of("acquire_finished") {
        says(&event, &["outcome: Acquired", &host, "counts: None"]);
    }
}

#[test]
fn a_shutdown_from_within_a_send_ends_in_time() {
    struct Closing(Mutex<Option<SmtpSender>>);
    impl Observer for Closing {
        fn acquire_finished(&self, _: &AcquireFinished<'_>) {
            // The lease in this very thread's hands is what it waits for in vain.
            let sender = self.0.lock().unwrap().take();
            if let Some(sender) = sender {
                assert!(!sender.shutdown(ms(20)));
            }
        }
    }
    let server = TestServer::start();
    let closing = Arc::new(Closing(Mutex::default()));
    let sender = sender(plain(&server)).observer(Arc::clone(&closing)).build().unwrap();
    *closing.0.lock().unwrap() = Some(sender.clone());
    let begun = now();
    let error = send(&sender, "one@closing").unwrap_err();
    assert_eq!(error.kind(), FailureKind::Shutdown, "{error}");
    assert!(now() - begun < Duration::from_secs(5), "grace, and twice the time to cut");
    assert!(server.messages().is_empty() && is_at_rest(&sender));
}
