//! Waiting for a connection: bounded in number, bounded in time, in order of arrival.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

mod common;

use std::thread;
use std::time::Duration;

use common::*;
use smtp_pool::testing::{Action, Script, Stage, TestServer};
use smtp_pool::{FailureKind, SendOptions, SendStage};

const THREADS: usize = 64;

#[test]
fn sixty_four_threads_share_two_connections() {
    let server = TestServer::start();
    let sender = sender(plain(&server)).max_size(2).build().unwrap();
    thread::scope(|scope| {
        for number in 0..THREADS {
            let sender = &sender;
            scope.spawn(move || {
                send(sender, &format!("{number}@shared")).unwrap();
                let counts = sender.status().counts;
                assert!(
                    counts.total <= 2 && counts.total == counts.idle + counts.leased + counts.connecting,
                    "{counts}"
                );
            });
        }
    });
    assert!(server.peak_connections() <= 2, "peak {}", server.peak_connections());
    assert!(sender.status().created <= 2);
    for number in 0..THREADS {
        assert_eq!(server.accepted(&format!("{number}@shared")), 1);
    }
}

#[test]
fn a_pool_that_stays_exhausted_says_so_in_time() {
    thrice(|| {
        // Both connections hang behind the dot until the test is done with the rest.
        let server = TestServer::builder()
            .script(Script::new().on(Stage::EndOfData, [Action::barrier("hold"), Action::Default]))
            .start();
        let timeout = ms(300);
        let sender = sender(plain(&server)).max_size(2).acquire_timeout(timeout).build().unwrap();
        thread::scope(|scope| {
            let callers: Vec<_> = (0..THREADS)
                .map(|number| {
                    let sender = &sender;
                    scope.spawn(move || {
                        let start = now();
                        let result = send(sender, &format!("{number}@exhausted"));
                        (result, now() - start)
                    })
                })
                .collect();
            eventually("all but two have given up", || {
                callers.iter().filter(|caller| caller.is_finished()).count() >= THREADS - 2
            });
            assert_eq!(sender.status().counts.waiting, 0, "nobody is left in the queue");
            server.release("hold");
            let mut sent = 0;
            for caller in callers {
                let (result, took) = caller.join().unwrap();
                let Err(error) = result else {
                    sent += 1;
                    continue;
                };
                assert_eq!(
                    (error.kind(), error.stage()),
                    (FailureKind::PoolExhausted, SendStage::BeforeConnect),
                    "{error}"
                );
                assert!(took >= timeout && took <= timeout + SLACK, "gave up after {took:?}");
                assert!(error.is_retry_safe(), "nothing was sent");
                let text = error.to_string();
                for word in
                    ["acquire_timeout", "max_size=2", "total=2", "idle=", "leased=2", "connecting=0", "waiting="]
                {
                    assert!(text.contains(word), "{word:?} is missing in {text:?}");
                }
                let counts = error.pool().unwrap();
                assert_eq!((counts.max_size, counts.total, counts.leased), (2, 2, 2), "{counts}");
            }
            assert_eq!(sent, 2);
        });
        assert_eq!(sender.status().exhausted, THREADS as u64 - 2);
        assert!(server.peak_connections() <= 2);
        assert_eq!(server.messages().len(), 2);
    });
}

#[test]
fn the_callers_deadline_bounds_the_queue_too() {
    thrice(|| {
        let server = TestServer::builder()
            .script(Script::new().once(Stage::EndOfData, [Action::barrier("hold"), Action::Default]))
            .start();
        let sender = sender(plain(&server)).max_size(1).build().unwrap();
        thread::scope(|scope| {
            let holder = scope.spawn(|| send(&sender, "holder@queue"));
            server.wait_until_reached("hold");
            let start = now();
            let budget = ms(200);
            let error = send_to(&sender, "late@queue", 1, &SendOptions::new().deadline(start + budget)).unwrap_err();
            let took = now() - start;
            assert_eq!(error.kind(), FailureKind::PoolExhausted, "{error}");
            assert!(took >= budget && took <= budget + SLACK, "{took:?}");
            assert!(error.to_string().contains("deadline"), "the limit that was hit is named: {error}");
            // One that has passed already waits for nothing.
            let start = now();
            let error = send_to(&sender, "past@queue", 1, &SendOptions::new().deadline(start)).unwrap_err();
            assert!(now() - start <= SLACK, "{error}");
            server.release("hold");
            holder.join().unwrap().unwrap();
        });
        assert_eq!((server.accepted("late@queue"), server.accepted("past@queue")), (0, 0));
        // The waiter that left is not given anything.
        assert_eq!(send(&sender, "next@queue").unwrap().connection_id(), 1);
    });
}

/// Callers enqueue one by one while every connection is held; then they are let go, and the order of messages is compared.
fn served_in_order_of_arrival(max_size: usize) {
    const WAITERS: usize = 12;
    let barrier = |number: usize| format!("turn {number}");
    let mut script = Script::new();
    for number in 1..=max_size + WAITERS {
        script = script.on_nth(Stage::EndOfData, number, [Action::barrier(barrier(number)), Action::Default]);
    }
    let server = TestServer::builder().script(script).start();
    let sender = sender(plain(&server)).max_size(max_size).build().unwrap();
    thread::scope(|scope| {
        let mut callers = Vec::new();
        for number in 1..=max_size {
            callers.push(scope.spawn({
                let sender = &sender;
                move || send(sender, &format!("holder-{number}@order"))
            }));
            server.wait_until_reached(&barrier(number));
        }
        for number in 1..=WAITERS {
            callers.push(scope.spawn({
                let sender = &sender;
                move || send(sender, &format!("waiter-{number}@order"))
            }));
            eventually("the caller waits", || sender.status().counts.waiting == number);
        }
        // One message at a time: the connection it leaves goes to the oldest waiter, whose message is the next to arrive.
        for number in 1..=max_size + WAITERS {
            server.wait_until_reached(&barrier(number));
            server.release(&barrier(number));
            assert!(server.wait_for(|seen| seen.messages() == number, PATIENCE));
            let next = max_size + number;
            if next <= max_size + WAITERS {
                server.wait_until_reached(&barrier(next));
            }
        }
        for caller in callers {
            caller.join().unwrap().unwrap();
        }
    });
    let order: Vec<_> = server.messages().iter().map(|message| message.message_id().unwrap().to_owned()).collect();
    let expected: Vec<_> = (1..=max_size)
        .map(|number| format!("<holder-{number}@order>"))
        .chain((1..=WAITERS).map(|number| format!("<waiter-{number}@order>")))
        .collect();
    assert_eq!(order, expected);
    assert_eq!(server.connections_accepted(), max_size);
}

#[test]
fn one_connection_serves_in_order_of_arrival() {
    served_in_order_of_arrival(1);
}

#[test]
fn two_connections_serve_in_order_of_arrival() {
    served_in_order_of_arrival(2);
}

#[test]
fn a_newcomer_does_not_overtake() {
    // While somebody waits, callers keep coming; the one that waits is served next.
    let server = TestServer::builder()
        .script(Script::new().once(Stage::EndOfData, [Action::barrier("hold"), Action::Default]))
        .start();
    let sender = sender(plain(&server)).max_size(1).build().unwrap();
    thread::scope(|scope| {
        let holder = scope.spawn(|| send(&sender, "holder@barge"));
        server.wait_until_reached("hold");
        let oldest = scope.spawn(|| send(&sender, "oldest@barge"));
        eventually("the oldest waits", || sender.status().counts.waiting == 1);
        let newcomers: Vec<_> = (0..8)
            .map(|number| {
                let sender = &sender;
                scope.spawn(move || send(sender, &format!("{number}@barge")))
            })
            .collect();
        server.release("hold");
        for caller in newcomers.into_iter().chain([holder, oldest]) {
            caller.join().unwrap().unwrap();
        }
    });
    assert_eq!(server.messages()[1].message_id(), Some("<oldest@barge>"));
}

#[test]
fn a_place_freed_by_a_failure_goes_to_the_next() {
    // The holder's connection breaks; the waiter opens one of its own, in the same place.
    let server = TestServer::builder()
        .script(Script::new().once(Stage::EndOfData, [Action::barrier("hold"), Action::Reset]))
        .start();
    let sender = sender(plain(&server)).max_size(1).build().unwrap();
    thread::scope(|scope| {
        let holder = scope.spawn(|| send(&sender, "holder@freed"));
        server.wait_until_reached("hold");
        let waiter = scope.spawn(|| send(&sender, "waiter@freed"));
        eventually("the waiter waits", || sender.status().counts.waiting == 1);
        server.release("hold");
        assert_eq!(holder.join().unwrap().unwrap_err().kind(), FailureKind::UnknownAfterData);
        waiter.join().unwrap().unwrap();
    });
    assert_eq!((server.accepted("waiter@freed"), server.peak_connections()), (1, 1));
}

#[test]
fn connections_being_opened_count_too() {
    // Every connection is held at its greeting: no more than max_size are ever begun.
    let server = TestServer::builder()
        .script(Script::new().on(Stage::Connect, [Action::barrier("greet"), Action::Default]))
        .start();
    let sender = sender(plain(&server)).max_size(2).build().unwrap();
    thread::scope(|scope| {
        let callers: Vec<_> = (0..10)
            .map(|number| {
                let sender = &sender;
                scope.spawn(move || send(sender, &format!("{number}@opening")))
            })
            .collect();
        eventually("eight wait", || sender.status().counts.waiting == 8);
        let counts = sender.status().counts;
        assert_eq!((counts.total, counts.connecting), (2, 2), "{counts}");
        assert!(server.wait_for(|seen| seen.barrier_reached("greet") == 2, PATIENCE));
        server.release("greet");
        for caller in callers {
            caller.join().unwrap().unwrap();
        }
    });
    assert_eq!((server.connections_accepted(), server.peak_connections()), (2, 2));
}

#[test]
fn a_dropped_sender_leaves_its_clones_alone() {
    let server = TestServer::start();
    let first = sender(plain(&server)).max_size(1).build().unwrap();
    let second = first.clone();
    send(&first, "first@clone").unwrap();
    drop(first);
    send(&second, "second@clone").unwrap();
    assert_eq!(server.connections_accepted(), 1);
    drop(second);
    server.connection(1).wait_closed();
    assert!(server.wait_for(|seen| seen.connections_open() == 0, Duration::from_secs(5)));
}
