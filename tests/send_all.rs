//! Many messages in one call: each outcome is true and in its place, whatever happens in the middle.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

#[path = "send_all/callbacks.rs"]
mod callbacks;
mod common;
#[path = "send_all/outages.rs"]
mod outages;

use std::collections::HashSet;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use common::*;
use lettre::address::Envelope;
use smtp_pool::testing::{Action, Script, Security, Stage, TestServer};
use smtp_pool::{
    BatchMessage, BatchOptions, CancelToken, Dsn, FailureKind, HostState, Receipt, SendError, SendOptions, SendStage,
    SmtpSender,
};

/// An outbox: one recipient each, and a Message-ID by which each is found again.
struct Outbox(Vec<(Envelope, Vec<u8>)>);

impl Outbox {
    fn of(count: usize) -> Self {
        Self((0..count).map(|index| (envelope(1), content(&id(index)))).collect())
    }

    fn messages(&self) -> impl Iterator<Item = (&Envelope, &[u8])> {
        self.0.iter().map(|(envelope, content)| (envelope, &content[..]))
    }

    fn send(&self, sender: &SmtpSender, options: &BatchOptions) -> Vec<Result<Receipt, SendError>> {
        sender.send_all(self.messages(), options)
    }
}

fn id(index: usize) -> String {
    format!("{index}@batch")
}

/// Waits for nothing: each outcome is seen as it is.
fn impatient() -> BatchOptions {
    BatchOptions::new().outage_patience(Duration::ZERO)
}

/// Compares every outcome with the server's own count, and each receipt with the message that it is about: its reply holds the number
/// under which the server stored it.
#[track_caller]
fn assert_true(server: &TestServer, outcomes: &[Result<Receipt, SendError>]) {
    let messages = server.messages();
    for (index, outcome) in outcomes.iter().enumerate() {
        let copies = server.accepted(&id(index));
        match outcome {
            Ok(receipt) => {
                let said = receipt.response().to_string();
                let number: usize = said.rsplit(' ').next().unwrap().parse().unwrap();
                let stored = messages[number - 1].message_id();
                assert_eq!((copies, stored), (1, Some(&*format!("<{}>", id(index)))), "{said}");
            }
            Err(error) if error.kind() == FailureKind::UnknownAfterData => assert!(copies <= 1, "{index}: {error}"),
            Err(error) => assert_eq!(copies, 0, "{index}: {error}"),
        }
    }
}

fn kinds(outcomes: &[Result<Receipt, SendError>]) -> Vec<Option<FailureKind>> {
    outcomes.iter().map(|outcome| outcome.as_ref().err().map(SendError::kind)).collect()
}

#[test]
fn outcomes_come_in_the_order_of_the_messages() {
    // The third is held back until all others are through.
    let script = Script::new().on_nth(Stage::EndOfData, 3, [Action::barrier("late"), Action::Default]);
    let server = TestServer::builder().script(script).start();
    let sender = sender(plain(&server)).max_size(4).build().unwrap();
    let outbox = Outbox::of(40);
    let outcomes = thread::scope(|scope| {
        let batch = scope.spawn(|| outbox.send(&sender, &BatchOptions::new()));
        assert!(server.wait_for(|seen| seen.messages() == 39, PATIENCE));
        server.release("late");
        batch.join().unwrap()
    });
    assert_eq!(kinds(&outcomes), [None; 40]);
    assert_true(&server, &outcomes);
}

#[test]
fn nothing_and_one_message_are_batches_too() {
    let server = TestServer::start();
    let sender = sender(plain(&server)).build().unwrap();
    assert!(Outbox::of(0).send(&sender, &BatchOptions::new()).is_empty());
    let outcomes = Outbox::of(1).send(&sender, &BatchOptions::new().parallelism(0));
    assert_true(&server, &outcomes);
    assert_eq!((outcomes.len(), server.connections_accepted()), (1, 1));
}

#[test]
fn a_message_that_fails_stops_no_other() {
    let script = Script::new()
        .on_nth(Stage::Rcpt, 2, [Action::reply("550 5.1.1 nobody\r\n")])
        .on_nth(Stage::EndOfData, 3, [Action::reply("451 4.3.0 later\r\n")])
        .on_nth(Stage::EndOfData, 4, [Action::Accept, Action::Reset])
        .on_nth(Stage::EndOfData, 5, [Action::Reset]);
    let server = TestServer::builder().script(script).start();
    let sender = sender(plain(&server)).build().unwrap();
    let told = Mutex::new(Vec::new());
    let outbox = Outbox::of(8);
    // One at a time, so that each meets its own fault.
    let options = BatchOptions::new().parallelism(1);
    let outcomes = sender.send_all_with(outbox.messages(), &options, |progress| {
        let counts = (progress.done(), progress.accepted, progress.failed, progress.unknown, progress.total);
        told.lock().unwrap().push((progress.index, progress.outcome.is_ok(), counts));
    });
    server.assert_script_used();
    use FailureKind::{PermanentFailure, RetryableTemporaryFailure, UnknownAfterData};
    assert_eq!(
        kinds(&outcomes),
        [
            None,
            Some(PermanentFailure),
            None,
            Some(RetryableTemporaryFailure),
            Some(UnknownAfterData),
            Some(UnknownAfterData),
            None,
            None
        ]
    );
    assert_true(&server, &outcomes);
    assert_eq!(
        told.into_inner().unwrap(),
        [
            (0, true, (1, 1, 0, 0, 8)),
            (1, false, (2, 1, 1, 0, 8)),
            (2, true, (3, 2, 1, 0, 8)),
            (3, false, (4, 2, 2, 0, 8)),
            (4, false, (5, 2, 2, 1, 8)),
            (5, false, (6, 2, 2, 2, 8)),
            (6, true, (7, 3, 2, 2, 8)),
            (7, true, (8, 4, 2, 2, 8)),
        ]
    );
}

#[test]
fn no_more_threads_send_than_were_asked_for() {
    for (max_size, parallelism, expected) in [(3, None, 3), (8, Some(2), 2), (2, Some(6), 2)] {
        let script = Script::new().on(Stage::EndOfData, [Action::barrier("full"), Action::Default]);
        let server = TestServer::builder().script(script).start();
        let sender = sender(plain(&server)).max_size(max_size).build().unwrap();
        let outbox = Outbox::of(30);
        let options = parallelism.map_or_else(BatchOptions::new, |count| BatchOptions::new().parallelism(count));
        let names = Mutex::new(HashSet::new());
        let caller = thread::scope(|scope| {
            let batch = scope.spawn(|| {
                let outcomes = sender.send_all_with(outbox.messages(), &options, |_| {
                    let thread = thread::current();
                    names.lock().unwrap().insert((thread.id(), thread.name().map(str::to_owned)));
                });
                assert_true(&server, &outcomes);
                thread::current().id()
            });
            // All of them are in the middle of a message, and there they stay until all of them are.
            assert!(server.wait_for(|seen| seen.barrier_reached("full") == expected, PATIENCE));
            server.release("full");
            batch.join().unwrap()
        });
        assert_eq!(server.peak_connections(), expected);
        let most = parallelism.unwrap_or(max_size);
        let names = names.into_inner().unwrap();
        assert!(names.len() <= most, "{names:?}");
        for (thread, name) in &names {
            let number = name.as_deref().and_then(|name| name.strip_prefix("smtp-pool-batch-"));
            let is_worker = number.is_some_and(|number| (1..most).contains(&number.parse().unwrap()));
            assert!(is_worker || *thread == caller, "{names:?}");
        }
    }
}

#[test]
fn a_cancelled_batch_begins_no_further_message() {
    // The second message has its last byte behind it, the third not; nobody else has begun.
    let script = Script::new().on_nth(Stage::EndOfData, 2, [Action::Accept, Action::barrier("sent")]).on_nth(
        Stage::Mail,
        3,
        [Action::barrier("begun")],
    );
    let server = TestServer::builder().pipelining(false).script(script).start();
    let sender = sender(plain(&server)).max_size(2).build().unwrap();
    let token = CancelToken::new();
    let options = BatchOptions::new().send_options(SendOptions::new().cancel(&token));
    let outbox = Outbox::of(20);
    let outcomes = thread::scope(|scope| {
        let batch = scope.spawn(|| outbox.send(&sender, &options));
        server.wait_until_reached("sent");
        server.wait_until_reached("begun");
        token.cancel();
        batch.join().unwrap()
    });
    server.release("sent");
    server.release("begun");
    assert_true(&server, &outcomes);
    let count = |kind| kinds(&outcomes).iter().filter(|&&one| one == kind).count();
    assert_eq!(
        [count(None), count(Some(FailureKind::UnknownAfterData)), count(Some(FailureKind::Cancelled))],
        [1, 1, 18]
    );
    let not_begun = outcomes.iter().flat_map(|outcome| outcome.as_ref().err());
    assert_eq!(not_begun.filter(|error| error.stage() == SendStage::BeforeConnect).count(), 17);
    assert_eq!(server.snapshot().reached(Stage::Mail), 3);
}

#[test]
fn shutdown_in_mid_batch_ends_it_and_lets_running_messages_finish() {
    let script = Script::new().on_nth(Stage::EndOfData, 3, [Action::barrier("running"), Action::Default]);
    let server = TestServer::builder().script(script).start();
    let sender = sender(plain(&server)).build().unwrap();
    let outbox = Outbox::of(200);
    let options = BatchOptions::new().parallelism(1);
    let outcomes = thread::scope(|scope| {
        let batch = scope.spawn(|| outbox.send(&sender, &options));
        server.wait_until_reached("running");
        let shutdown = scope.spawn(|| sender.shutdown(PATIENCE));
        // Nobody is taken any more from here on.
        eventually("the sender takes no more", || {
            let error = sender.send_raw(&envelope(1), &content("late@batch"));
            error.is_err_and(|error| error.kind() == FailureKind::Shutdown)
        });
        server.release("running");
        shutdown.join().unwrap();
        batch.join().unwrap()
    });
    assert_true(&server, &outcomes);
    assert_eq!(kinds(&outcomes[..3]), [None; 3]);
    assert_eq!(kinds(&outcomes[3..]), [Some(FailureKind::Shutdown); 197]);
}

#[test]
fn a_message_has_a_timeout_of_its_own_and_the_batch_a_deadline() {
    let script = Script::new().on_nth(Stage::Mail, 2, [Action::Silence]);
    let server = TestServer::builder().script(script).start();
    let sender = sender(plain(&server)).build().unwrap();
    let options = BatchOptions::new().parallelism(1).message_timeout(ms(300));
    let outcomes = Outbox::of(4).send(&sender, &options);
    assert_eq!(kinds(&outcomes), [None, Some(FailureKind::RetryableBeforeSend), None, None]);
    assert_true(&server, &outcomes);

    let over = SendOptions::new().deadline(now() - ms(1));
    let outcomes = Outbox::of(4).send(&sender, &BatchOptions::new().send_options(over).message_timeout(PATIENCE));
    assert!(outcomes.iter().all(|outcome| outcome.as_ref().is_err_and(SendError::is_retry_safe)), "{outcomes:?}");
    assert_eq!(server.messages().len(), 3);
}

#[test]
fn messages_of_both_forms_go_together_each_with_notifications_of_its_own() {
    let server = TestServer::builder().size(None).dsn(true).start();
    let sender = sender(plain(&server)).build().unwrap();
    let message = lettre::Message::builder()
        .message_id(Some("<lettre@batch>".to_owned()))
        .from(FROM.parse().unwrap())
        .to("to1@example.net".parse().unwrap())
        .body(String::from("Hello.\r\n"))
        .unwrap();
    let (envelope, raw) = (envelope(1), content("raw@batch"));
    let own = Dsn::new().envelope_id("own").unwrap();
    let messages = [
        BatchMessage::from(&message),
        (&envelope, &raw[..]).into(),
        BatchMessage::from((&envelope, &raw[..])).dsn(&own),
    ];
    let all = SendOptions::new().dsn(Dsn::new().envelope_id("all").unwrap());
    let outcomes = sender.send_all(messages, &BatchOptions::new().parallelism(1).send_options(all));
    assert_eq!(kinds(&outcomes), [None; 3]);
    let said: Vec<_> = server.messages().iter().map(|message| message.mail_parameters().to_vec()).collect();
    assert_eq!(said, [["ENVID=all"], ["ENVID=all"], ["ENVID=own"]]);
    assert_eq!(server.messages()[0].content(), message.formatted());
}
