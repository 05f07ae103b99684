//! The server is gone for a while, or for good.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use smtp_pool::observer::{Observer, SendFinished};

use super::*;

/// How many sends have ended, accepted and not.
#[derive(Default)]
struct Ends([AtomicUsize; 2]);

impl Ends {
    fn count(&self) -> [usize; 2] {
        self.0.each_ref().map(|count| count.load(Ordering::SeqCst))
    }
}

impl Observer for Ends {
    fn send_finished(&self, event: &SendFinished<'_>) {
        self.0[usize::from(event.outcome.is_err())].fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn an_outage_is_waited_for_and_costs_no_message() {
    let server = TestServer::start();
    server.stop_accepting();
    let ends = Arc::new(Ends::default());
    let sender = sender(plain(&server)).max_size(4).observer(Arc::clone(&ends)).build().unwrap();
    let outbox = Outbox::of(100);
    let outcomes = thread::scope(|scope| {
        let batch = scope.spawn(|| outbox.send(&sender, &BatchOptions::new()));
        eventually("the host cools down", || sender.status().hosts[0].state != HostState::Available);
        server.resume_accepting();
        batch.join().unwrap()
    });
    assert_eq!(kinds(&outcomes), [None; 100]);
    assert_true(&server, &outcomes);
    assert_eq!(ends.count(), [100, 0], "what the batch tried again had not ended");
}

#[test]
fn an_outage_that_outlasts_the_patience_is_told_to_every_message() {
    let server = TestServer::start();
    server.stop_accepting();
    const COOLDOWN: Duration = ms(200);
    for (options, most) in [
        (impatient(), ms(0)),
        (BatchOptions::new().outage_patience(ms(500)), ms(500)),
        (BatchOptions::new().send_options(SendOptions::new().deadline(now() + ms(500))), ms(500)),
    ] {
        // A call by itself would wait for the end of a pause, and all of them together for twenty seconds.
        let sender = sender(plain(&server)).max_size(4).max_reconnect_cooldown(COOLDOWN);
        let sender = sender.reconnect_cooldown(COOLDOWN).build().unwrap();
        let began = now();
        let outcomes = Outbox::of(100).send(&sender, &options);
        let took = began.elapsed();
        // Four threads at once, and one for each pause that was over by then.
        let pauses = u64::try_from(took.as_millis() / COOLDOWN.as_millis()).unwrap();
        let tries = sender.status().create_failures;
        assert!(tries <= 4 + pauses, "{tries} tries in {took:?}");
        for outcome in &outcomes {
            let error = outcome.as_ref().unwrap_err();
            // Behind the deadline there is no time left even to wait.
            let is_told = matches!(error.kind(), FailureKind::HostUnavailable | FailureKind::PoolExhausted);
            assert!(is_told && error.is_retry_safe(), "{error}");
        }
        assert!(took < most + PATIENCE / 2, "{took:?}");
    }
    assert_eq!(server.messages().len(), 0);
}

/// By default an outage is waited for ten minutes; the longest pause, which a refusal for good is followed by, is an hour here.
#[test]
fn what_is_refused_for_good_is_told_to_every_message_at_once() {
    for (what, script) in [
        ("the password", Script::new()),
        ("us", Script::new().on(Stage::Connect, [Action::reply("554 5.7.1 no service for you\r\n"), Action::Fin])),
    ] {
        let server =
            TestServer::builder().security(Security::StartTls).credentials("user", "right").script(script).start();
        let host = starttls(&server).credentials("user", "wrong");
        let sender = sender(host).max_size(1).max_reconnect_cooldown(HOUR).build().unwrap();
        let options = BatchOptions::new().outage_patience(2 * HOUR).parallelism(4);
        let outcomes = Outbox::of(100).send(&sender, &options);
        let kinds = kinds(&outcomes);
        let told: HashSet<_> = kinds.iter().flatten().collect();
        assert_eq!(kinds.iter().flatten().count(), 100, "{what}");
        assert!(told.is_subset(&HashSet::from([&FailureKind::PermanentFailure, &FailureKind::HostUnavailable])));
        assert_eq!(server.connections_accepted(), 1, "{what}: trying again locks accounts");
        let last = outcomes[99].as_ref().unwrap_err();
        assert!(
            last.to_string().contains(if what == "us" { "refused at the greeting" } else { "refused at AUTH" }),
            "{what}: {last}"
        );
    }
}

#[test]
fn a_refused_password_on_one_host_does_not_end_the_wait_for_another() {
    let (wrong, down) =
        (TestServer::builder().security(Security::StartTls).credentials("user", "right").start(), TestServer::start());
    down.stop_accepting();
    let sender = sender(starttls(&wrong).credentials("user", "wrong"))
        .host(plain(&down).priority(10))
        .max_reconnect_cooldown(HOUR)
        .build()
        .unwrap();
    let outbox = Outbox::of(20);
    let outcomes = thread::scope(|scope| {
        let batch = scope.spawn(|| outbox.send(&sender, &BatchOptions::new().parallelism(1)));
        eventually("both cool down", || sender.status().hosts.iter().all(|host| host.state != HostState::Available));
        down.resume_accepting();
        batch.join().unwrap()
    });
    assert_eq!(kinds(&outcomes), [None; 20]);
    assert_true(&down, &outcomes);
    assert_eq!(wrong.snapshot().reached(Stage::Auth), 1, "trying again locks accounts");
}

#[test]
fn a_cancelled_batch_does_not_wait_for_the_end_of_an_outage() {
    let server = TestServer::start();
    server.stop_accepting();
    let ends = Arc::new(Ends::default());
    let sender = sender(plain(&server)).reconnect_cooldown(HOUR).max_reconnect_cooldown(HOUR).max_size(4);
    let sender = sender.observer(Arc::clone(&ends)).build().unwrap();
    let token = CancelToken::new();
    let options = BatchOptions::new().outage_patience(2 * HOUR).send_options(SendOptions::new().cancel(&token));
    let outbox = Outbox::of(100);
    let outcomes = thread::scope(|scope| {
        let batch = scope.spawn(|| outbox.send(&sender, &options));
        eventually("the host cools down", || sender.status().hosts[0].state != HostState::Available);
        token.cancel();
        batch.join().unwrap()
    });
    assert_eq!(kinds(&outcomes), [Some(FailureKind::Cancelled); 100]);
    assert_eq!(ends.count(), [0, 100]);
    let has_trace = |outcome: &Result<_, SendError>| outcome.as_ref().unwrap_err().trace().steps().next().is_some();
    assert!(outcomes.iter().all(has_trace), "those that had not begun tell what became of them, too");
}

#[test]
fn a_batch_that_waits_for_the_end_of_an_outage_ends_with_the_sender() {
    let server = TestServer::start();
    server.stop_accepting();
    let sender =
        sender(plain(&server)).reconnect_cooldown(HOUR).max_reconnect_cooldown(HOUR).max_size(4).build().unwrap();
    let options = BatchOptions::new().outage_patience(2 * HOUR);
    let outbox = Outbox::of(100);
    let outcomes = thread::scope(|scope| {
        let batch = scope.spawn(|| outbox.send(&sender, &options));
        eventually("the host cools down", || sender.status().hosts[0].state != HostState::Available);
        assert!(sender.shutdown(PATIENCE), "nothing is under way");
        batch.join().unwrap()
    });
    assert_eq!(kinds(&outcomes), [Some(FailureKind::Shutdown); 100]);
}

#[test]
fn five_thousand_messages_survive_a_server_that_is_killed_and_restarted() {
    const MESSAGES: usize = 5000;
    let server = TestServer::builder().record(false).start();
    let sender = sender(plain(&server)).max_size(8).max_retries(1).retry_base_delay(ms(1)).build().unwrap();
    let outbox = Outbox::of(MESSAGES);
    let outcomes = thread::scope(|scope| {
        let batch = scope.spawn(|| outbox.send(&sender, &BatchOptions::new()));
        for kill in 1..=3 {
            assert!(server.wait_for(|seen| seen.messages() >= kill * MESSAGES / 4, 3 * PATIENCE));
            server.stop_accepting();
            for number in 1..=server.connections_accepted() {
                server.connection(number).reset();
            }
            eventually("the batch knows", || sender.status().hosts[0].state != HostState::Available);
            server.resume_accepting();
        }
        batch.join().unwrap()
    });
    assert_eq!(outcomes.len(), MESSAGES);
    assert_true(&server, &outcomes);
    assert!(server.peak_connections() <= 8, "{}", server.peak_connections());
    // What is lost is what was under way on eight connections when the server was killed, and nothing else.
    let failed: Vec<_> = outcomes.iter().flat_map(|outcome| outcome.as_ref().err()).collect();
    assert!(failed.len() <= 3 * 8, "{failed:#?}");
    assert!(is_at_rest(&sender));
}
