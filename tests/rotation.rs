//! Credentials are rotated without a restart: no message begins on an old session once the rotation has returned, and none fails for it.
//!
//! The judge is the server: it knows which user each session logged in as, and the user's name says which rotation it is of.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

mod common;

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::*;
use smtp_pool::observer::{AcquireFinished, AcquireOutcome, ConnectionOpened, LeaseEnded, Observer};
use smtp_pool::testing::{Action, Script, Security, Stage, TestServer, TestServerBuilder};
use smtp_pool::{Credentials, DiscardReason, FailureKind, Host, HostState, SmtpSender};

/// The user of the `generation`th rotation; the first is 0.
fn user(generation: usize) -> String {
    format!("gen-{generation}")
}

fn password(generation: usize) -> String {
    format!("secret-{generation}")
}

fn credentials(generation: usize) -> Credentials {
    Credentials::new(user(generation), password(generation))
}

/// A server that knows the users of so many rotations.
fn server_of(generations: usize) -> TestServerBuilder {
    (0..=generations)
        .fold(TestServer::builder(), |server, generation| server.credentials(user(generation), password(generation)))
}

fn host(server: &TestServer) -> Host {
    plain(server).dangerous_plaintext_auth(true).credentials(user(0), password(0))
}

fn rotate(sender: &SmtpSender, generation: usize) {
    sender.rotate_credentials("127.0.0.1", credentials(generation)).unwrap();
}

fn rotated(sender: &SmtpSender) -> u64 {
    sender.status().discarded.of(DiscardReason::CredentialsRotated)
}

/// Each message's session, by the server's account, is of no older rotation than the message's own word for when it was begun.
fn assert_none_is_older_than_it_says(server: &TestServer) -> usize {
    let messages = server.messages();
    for message in &messages {
        let id = message.message_id().unwrap().trim_start_matches('<');
        let published: usize = id.split('.').next().unwrap().parse().unwrap();
        let session: usize = message.authenticated_as().unwrap().strip_prefix("gen-").unwrap().parse().unwrap();
        assert!(session >= published, "{id} went over a session of rotation {session}");
    }
    messages.len()
}

fn rotate_under_load(server: &TestServer, host: Host, sends: usize, generations: usize) {
    const THREADS: usize = 8;
    let every = sends / generations;
    let sender = sender(host).max_size(4).build().unwrap();
    // What has been rotated to by a call that has returned.
    let published = AtomicUsize::new(0);
    let (sent, rotations) = (AtomicUsize::new(0), Mutex::new(0));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let number = sent.fetch_add(1, SeqCst);
                    if number >= sends {
                        return;
                    }
                    if number % every == every - 1 {
                        // One rotation after the other, while the other threads go on sending.
                        let mut generation = rotations.lock().unwrap();
                        *generation += 1;
                        rotate(&sender, *generation);
                        published.store(*generation, SeqCst);
                    }
                    let id = format!("{}.{number}@rotation", published.load(SeqCst));
                    let receipt = send(&sender, &id).unwrap();
                    assert_eq!(receipt.attempts(), 1, "no retry is used up");
                }
            });
        }
    });
    assert_eq!(*rotations.lock().unwrap(), generations);
    assert_eq!(assert_none_is_older_than_it_says(server), sends);
    assert!(server.peak_connections() <= 4, "{}", server.peak_connections());
    let created = sender.status().created;
    // Those that are there at a rotation end by it, and hardly any ends otherwise.
    assert!(rotated(&sender) >= generations as u64 && created <= 4 * (generations as u64 + 1), "{:?}", sender.status());
    assert_eq!(created, rotated(&sender) + sender.status().counts.total as u64);
}

#[test]
fn rotation_under_load_begins_no_message_on_an_old_session() {
    let server = server_of(100).record(false).start();
    rotate_under_load(&server, host(&server), 10_000, 100);
}

#[test]
fn rotation_under_load_over_tls() {
    let server = server_of(20).security(Security::ImplicitTls).record(false).start();
    rotate_under_load(&server, implicit_tls(&server).credentials(user(0), password(0)), 600, 20);
}

#[test]
fn a_message_that_has_begun_finishes_and_its_session_ends_then() {
    let server =
        server_of(1).script(Script::new().once(Stage::EndOfData, [Action::barrier("held"), Action::Default])).start();
    let sender = sender(host(&server)).max_size(2).build().unwrap();
    thread::scope(|scope| {
        let held = scope.spawn(|| send(&sender, "0.held@rotation").unwrap());
        server.wait_until_reached("held");
        rotate(&sender, 1);
        assert_eq!(rotated(&sender), 0, "a message is under way");
        assert_eq!(send(&sender, "1.other@rotation").unwrap().connection_id(), 2);
        server.release("held");
        assert_eq!(held.join().unwrap().connection_id(), 1);
    });
    assert_eq!(rotated(&sender), 1);
    assert_eq!(send(&sender, "1.next@rotation").unwrap().connection_id(), 2);
    let users: Vec<_> = server.messages().iter().map(|it| it.authenticated_as().unwrap().to_owned()).collect();
    assert_eq!(users.iter().filter(|&it| *it == user(0)).count(), 1, "{users:?}");
    server.connection(1).wait_closed();
    assert!(said(&server, 1, "QUIT"), "it ends in good order");
}

#[test]
fn idle_sessions_end_at_once() {
    let server = server_of(1).start();
    let sender = sender(host(&server)).build().unwrap();
    send(&sender, "0.first@rotation").unwrap();
    rotate(&sender, 1);
    assert_eq!((rotated(&sender), sender.status().counts.idle), (1, 0));
    server.connection(1).wait_closed();
    assert!(said(&server, 1, "QUIT"));
    send(&sender, "1.second@rotation").unwrap();
    assert_eq!(assert_none_is_older_than_it_says(&server), 2);
}

#[test]
fn a_session_that_was_being_opened_carries_nothing() {
    for refusal in [None, Some("535 5.7.8 changed\r\n"), Some("535-5.7.8 changed\r\n535 5.7.8 long ago\r\n")] {
        let then = refusal.map_or(Action::Default, Action::reply);
        let server = server_of(1).script(Script::new().once(Stage::Auth, [Action::barrier("login"), then])).start();
        let sender = sender(host(&server)).max_size(1).max_reconnect_cooldown(HOUR).build().unwrap();
        thread::scope(|scope| {
            let call = scope.spawn(|| send(&sender, "1.opening@rotation").unwrap());
            server.wait_until_reached("login");
            rotate(&sender, 1);
            server.release("login");
            assert_eq!(call.join().unwrap().attempts(), 1);
        });
        assert_eq!(assert_none_is_older_than_it_says(&server), 1);
        assert_eq!(rotated(&sender), u64::from(refusal.is_none()));
        assert_eq!(sender.status().hosts[0].state, HostState::Available, "what was refused were the old ones");
        assert_eq!(server.snapshot().reached(Stage::Auth), 2);
    }
}

/// Runs what a thread has asked for when its next connection is there, which is told in that thread, before the message begins.
struct WhenOpened;

thread_local! {
    static WHEN_OPENED: Cell<Option<Box<dyn FnOnce()>>> = const { Cell::new(None) };
}

impl Observer for WhenOpened {
    fn connection_opened(&self, _: &ConnectionOpened<'_>) {
        if let Some(then) = WHEN_OPENED.take() {
            then();
        }
    }
}

#[test]
fn a_send_that_has_its_session_and_has_not_begun_gets_another() {
    let server = server_of(2).start();
    let sender = sender(host(&server)).max_size(1).observer(WhenOpened).build().unwrap();
    let (first, second) = (sender.clone(), sender.clone());
    // Twice in one call.
    WHEN_OPENED.set(Some(Box::new(move || {
        rotate(&first, 1);
        WHEN_OPENED.set(Some(Box::new(move || rotate(&second, 2))));
    })));
    let receipt = send(&sender, "2.swapped@rotation").unwrap();
    assert_eq!((receipt.attempts(), receipt.connection_id()), (1, 3), "free of the retry budget");
    let trace = receipt.trace().to_string();
    assert_eq!(trace.matches("(credentials_rotated)").count(), 2, "{trace}");
    assert_eq!(assert_none_is_older_than_it_says(&server), 1);
    assert_eq!((rotated(&sender), server.snapshot().reached(Stage::Mail)), (2, 1));
    // Within what is left of acquire_timeout: each session is old when it is there.
    let forever = common::sender(host(&server)).acquire_timeout(ms(200)).observer(WhenOpened).build().unwrap();
    fn again(sender: SmtpSender) {
        rotate(&sender, 0);
        WHEN_OPENED.set(Some(Box::new(move || again(sender))));
    }
    again(forever.clone());
    let error = send(&forever, "0.never@rotation").unwrap_err();
    WHEN_OPENED.set(None);
    // By where the time was over: between two sessions, or while one was opened.
    let is_over = matches!(error.kind(), FailureKind::PoolExhausted | FailureKind::HostUnavailable);
    assert!(is_over && error.is_retry_safe(), "{error}");
}

/// Counts how calls for a connection ended.
#[derive(Default)]
struct Acquires {
    acquired: AtomicUsize,
    exhausted: AtomicUsize,
    leases: AtomicUsize,
}

impl Observer for Acquires {
    fn acquire_finished(&self, event: &AcquireFinished<'_>) {
        match event.outcome {
            AcquireOutcome::Acquired => self.acquired.fetch_add(1, SeqCst),
            AcquireOutcome::Exhausted => self.exhausted.fetch_add(1, SeqCst),
            other => panic!("{other:?}"),
        };
    }
    fn lease_ended(&self, _: &LeaseEnded<'_>) {
        self.leases.fetch_add(1, SeqCst);
    }
}

#[test]
fn observers_are_told_of_every_session_that_a_rotation_costs_and_of_the_one_that_there_is_no_time_for() {
    let server = server_of(2).start();
    let told = Arc::new(Acquires::default());
    let limit = Duration::from_secs(2);
    let sender = sender(host(&server)).max_size(1).acquire_timeout(limit);
    let sender = sender.observer(WhenOpened).observer(Arc::clone(&told)).build().unwrap();
    let count = |count: &AtomicUsize| count.load(SeqCst);
    let rotating = sender.clone();
    WHEN_OPENED.set(Some(Box::new(move || rotate(&rotating, 1))));
    send(&sender, "1.swapped@rotation").unwrap();
    assert_eq!((count(&told.acquired), count(&told.leases), count(&told.exhausted)), (2, 2, 0));
    // What is idle ends; what is opened in its place is old when the time to get another one is over.
    rotate(&sender, 2);
    let (rotating, began) = (sender.clone(), now());
    WHEN_OPENED.set(Some(Box::new(move || {
        pace((began + limit).saturating_duration_since(now()) + ms(1));
        rotate(&rotating, 2);
    })));
    let error = send(&sender, "2.late@rotation").unwrap_err();
    assert_eq!(error.kind(), FailureKind::PoolExhausted, "{error}");
    assert_eq!((count(&told.acquired), count(&told.leases), count(&told.exhausted)), (3, 3, 1));
    assert_eq!(sender.status().exhausted, 1, "as the status has it");
}

#[test]
fn a_session_limit_that_a_rotation_comes_upon_is_not_met_again() {
    let script = [1, 3].into_iter().fold(Script::new(), |script, session| {
        script.on_connection_nth(session, Stage::Mail, 2, [Action::reply("452 4.3.2 enough\r\n")])
    });
    let server = server_of(1).script(script).start();
    let sender = sender(host(&server)).max_size(2).max_retries(0).observer(WhenOpened).build().unwrap();
    send(&sender, "0.first@rotation").unwrap();
    let other = sender.clone();
    // Each session takes one message. The fresh one is old as soon as it is there; and a new one is idle, which has carried its message.
    WHEN_OPENED.set(Some(Box::new(move || {
        rotate(&other, 1);
        thread::spawn(move || drop(send(&other, "1.other@rotation").unwrap())).join().unwrap();
    })));
    assert_eq!(send(&sender, "1.second@rotation").unwrap().attempts(), 1);
    assert_eq!(assert_none_is_older_than_it_says(&server), 3);
}

#[test]
fn a_waiter_is_served_after_a_rotation_too() {
    let server =
        server_of(1).script(Script::new().once(Stage::EndOfData, [Action::barrier("held"), Action::Default])).start();
    let sender = sender(host(&server)).max_size(1).build().unwrap();
    thread::scope(|scope| {
        let held = scope.spawn(|| send(&sender, "0.held@rotation").unwrap());
        server.wait_until_reached("held");
        let waiter = scope.spawn(|| send(&sender, "0.waiter@rotation").unwrap());
        eventually("somebody waits", || sender.status().counts.waiting == 1);
        rotate(&sender, 1);
        server.release("held");
        held.join().unwrap();
        waiter.join().unwrap();
    });
    let messages = server.messages();
    let waiter = messages.iter().find(|it| it.message_id() == Some("<0.waiter@rotation>")).unwrap();
    assert_eq!(waiter.authenticated_as(), Some(&*user(1)), "what waits has not begun");
    assert!(server.peak_connections() <= 1);
}

#[test]
fn a_host_whose_credentials_were_refused_is_tried_at_once_with_others() {
    let server = server_of(1).start();
    let host = host(&server).credentials(user(0), "expired");
    let sender = sender(host).max_reconnect_cooldown(HOUR).build().unwrap();
    let error = send(&sender, "0.refused@rotation").unwrap_err();
    assert_eq!(error.kind(), FailureKind::PermanentFailure, "{error}");
    let error = send(&sender, "0.pauses@rotation").unwrap_err();
    assert_eq!(error.kind(), FailureKind::HostUnavailable, "{error}");
    assert!(matches!(sender.status().hosts[0].state, HostState::CoolingDown { .. }));
    rotate(&sender, 1);
    assert_eq!(sender.status().hosts[0].state, HostState::Available);
    send(&sender, "1.works@rotation").unwrap();
}

#[test]
fn a_pause_for_another_reason_stays() {
    let server = server_of(1).script(Script::new().once(Stage::Connect, [Action::reply("554 5.0.0 no\r\n")])).start();
    let sender = sender(host(&server)).reconnect_cooldown(HOUR).max_reconnect_cooldown(HOUR).build().unwrap();
    send(&sender, "0.refused@rotation").unwrap_err();
    rotate(&sender, 1);
    assert!(matches!(sender.status().hosts[0].state, HostState::CoolingDown { .. }));
}

#[test]
fn an_experts_lease_is_refused_its_next_message() {
    let server = server_of(1).start();
    let sender = sender(host(&server)).build().unwrap();
    let mut lease = sender.lease().unwrap();
    lease.send_raw(&envelope(1), &content("0.first@rotation")).unwrap();
    rotate(&sender, 1);
    lease.noop().unwrap();
    let error = lease.send_raw(&envelope(1), &content("1.second@rotation")).unwrap_err();
    assert_eq!((error.kind(), error.is_retry_safe()), (FailureKind::RetryableBeforeSend, true), "{error}");
    assert!(error.to_string().contains("rotated"), "{error}");
    drop(lease);
    assert_eq!(rotated(&sender), 1);
    send(&sender, "1.second@rotation").unwrap();
    assert_eq!(assert_none_is_older_than_it_says(&server), 2);
}

#[test]
fn only_the_host_that_is_called_is_rotated() {
    let (one, other) = (server_of(1).start(), server_of(1).start());
    let hosts = [host(&one), host(&other)];
    let sender = sender(hosts[0].clone()).host(hosts[1].clone()).build().unwrap();
    (0..4).for_each(|number| drop(send(&sender, &format!("0.{number}@rotation")).unwrap()));
    sender.rotate_credentials(&format!("127.0.0.1:{}", other.port()), credentials(1)).unwrap();
    assert_eq!((rotated(&sender), sender.status().hosts[0].idle), (1, 1));
    (0..4).for_each(|number| drop(send(&sender, &format!("0.more{number}@rotation")).unwrap()));
    assert!(one.messages().iter().all(|it| it.authenticated_as() == Some(&user(0))));
    assert_eq!(other.messages().last().unwrap().authenticated_as(), Some(&*user(1)));
    // By the name alone, both.
    rotate(&sender, 1);
    assert_eq!(sender.status().counts.idle, 0);
}

#[test]
fn what_cannot_be_rotated_is_named_and_nothing_changes() {
    let server = server_of(1).start();
    let sender = sender(host(&server)).build().unwrap();
    send(&sender, "0.before@rotation").unwrap();
    let error = sender.rotate_credentials("elsewhere.example", credentials(1)).unwrap_err();
    assert_eq!((error.option(), error.value()), ("host", "elsewhere.example"));
    let error = sender.rotate_credentials("127.0.0.1", Credentials::new("canary\0", "canary")).unwrap_err();
    assert_eq!(error.option(), "credentials");
    assert!(!whole_text(&error).contains("canary"), "{error}");
    assert_eq!(sender.refresh_credentials("elsewhere.example").unwrap_err().option(), "host");
    assert_eq!((rotated(&sender), sender.status().counts.idle), (0, 1));
    let nobody = common::sender(plain(&server)).build().unwrap();
    assert_eq!(nobody.rotate_credentials("127.0.0.1", credentials(1)).unwrap_err().option(), "credentials");
    let supplied = plain(&server).credentials_with(|| Ok(credentials(0)));
    let supplied = common::sender(supplied).build().unwrap();
    assert_eq!(supplied.rotate_credentials("127.0.0.1", credentials(1)).unwrap_err().option(), "credentials");
}

#[cfg(feature = "r2d2")]
#[test]
fn a_plain_r2d2_pool_mixes_no_identities_either() {
    use smtp_pool::{SendOptions, SmtpConnectionManager};
    let server = server_of(2).start();
    let manager = SmtpConnectionManager::new(host(&server)).unwrap();
    let pool = r2d2::Pool::builder().max_size(2).min_idle(Some(0)).connection_timeout(PATIENCE);
    let pool = pool.build(manager.clone()).unwrap();
    let send = |connection: &mut smtp_pool::SmtpConnection, id: &str| {
        connection.send_with(&envelope(1), &content(id), &SendOptions::new())
    };
    send(&mut pool.get().unwrap(), "0.first@rotation").unwrap();
    manager.rotate_credentials(credentials(1)).unwrap();
    // Idle until now.
    let mut lent = pool.get().unwrap();
    send(&mut lent, "1.second@rotation").unwrap();
    manager.rotate_credentials(credentials(2)).unwrap();
    let error = send(&mut lent, "2.refused@rotation").unwrap_err();
    assert_eq!((error.kind(), error.is_retry_safe()), (FailureKind::RetryableBeforeSend, true), "{error}");
    drop(lent);
    send(&mut pool.get().unwrap(), "2.third@rotation").unwrap();
    manager.refresh_credentials();
    send(&mut pool.get().unwrap(), "2.fourth@rotation").unwrap();
    assert_eq!(assert_none_is_older_than_it_says(&server), 4);
    assert_eq!(server.connections_accepted(), 4);
    assert_eq!(manager.rotate_credentials(Credentials::new("a\0", "b")).unwrap_err().option(), "credentials");
    // One that was being opened.
    server.set_script(Script::new().once(Stage::Auth, [Action::barrier("login"), Action::Default]));
    manager.refresh_credentials();
    thread::scope(|scope| {
        let opening = scope.spawn(|| send(&mut pool.get().unwrap(), "1.fifth@rotation").unwrap());
        server.wait_until_reached("login");
        manager.rotate_credentials(credentials(1)).unwrap();
        server.release("login");
        opening.join().unwrap();
    });
    assert_eq!(server.messages().last().unwrap().authenticated_as(), Some(&*user(1)));
}
