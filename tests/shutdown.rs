//! The end of a sender: bounded, truthful to everybody whom it meets, and final.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

mod common;
#[path = "common/doors.rs"]
mod doors;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use common::*;
use doors::BlackHole;
use smtp_pool::testing::{Action, Script, Security, Stage, TestServer};
use smtp_pool::{DiscardReason, FailureKind, SendOptions, SendStage, SmtpSender};

/// What the end may take beyond the grace.
const CUT_TIME: Duration = Duration::from_millis(1000);

fn refuses_everything(sender: &SmtpSender) {
    let start = now();
    let errors = [
        send(sender, "late@shutdown").map(drop),
        sender.lease().map(drop),
        sender.warm_up().map(drop),
        sender.verify().remove(0).result,
    ];
    for error in errors {
        let error = error.unwrap_err();
        assert_eq!((error.kind(), error.stage()), (FailureKind::Shutdown, SendStage::BeforeConnect), "{error}");
        assert!(!error.is_retry_safe(), "nothing can succeed any more: {error}");
    }
    assert!(now() - start <= SLACK);
}

/// Nothing is left on either side.
fn is_over(sender: &SmtpSender, server: &TestServer) {
    let status = sender.status();
    assert!(status.is_shut_down);
    assert_eq!((status.counts.total, status.counts.waiting), (0, 0), "{}", status.counts);
    assert!(server.wait_for(|seen| seen.connections_open() == 0, PATIENCE), "{:?}", server.snapshot());
    refuses_everything(sender);
    assert_eq!(server.accepted("late@shutdown"), 0);
}

#[test]
fn an_idle_pool_ends_at_once_with_quit() {
    thrice(|| {
        let server = TestServer::start();
        let sender = sender(plain(&server)).build().unwrap();
        let leases: Vec<_> = (0..3).map(|_| sender.lease().unwrap()).collect();
        drop(leases);
        let start = now();
        assert!(sender.shutdown(PATIENCE), "nothing had to be cut");
        assert!(now() - start <= SLACK, "{:?}", now() - start);
        is_over(&sender, &server);
        assert_eq!(server.snapshot().reached(Stage::Quit), 3);
        assert_eq!(sender.status().discarded.of(DiscardReason::Shutdown), 3);
        // Again, from a clone, with another grace.
        let start = now();
        assert!(sender.clone().shutdown(ms(0)));
        assert!(now() - start <= SLACK);
    });
}

#[test]
fn waiters_are_woken_at_once_and_those_who_send_may_finish() {
    thrice(|| {
        let server = TestServer::builder()
            .script(Script::new().on(Stage::EndOfData, [Action::barrier("sending"), Action::Default]))
            .start();
        let sender = sender(plain(&server)).max_size(2).build().unwrap();
        thread::scope(|scope| {
            let call = |id: String| {
                let sender = &sender;
                scope.spawn(move || (send(sender, &id), now()))
            };
            let senders: Vec<_> = (0..2).map(|number| call(format!("{number}@sending"))).collect();
            assert!(server.wait_for(|seen| seen.barrier_reached("sending") == 2, PATIENCE));
            let waiters: Vec<_> = (0..10).map(|number| call(format!("{number}@waiting"))).collect();
            eventually("ten wait", || sender.status().counts.waiting == 10);
            let start = now();
            let end = scope.spawn(|| sender.shutdown(PATIENCE));
            for waiter in waiters {
                let (result, ended) = waiter.join().unwrap();
                let error = result.unwrap_err();
                assert_eq!((error.kind(), error.stage()), (FailureKind::Shutdown, SendStage::BeforeConnect), "{error}");
                assert!(ended - start <= SLACK, "woken after {:?}", ended - start);
            }
            assert!(senders.iter().all(|sender| !sender.is_finished()) && !end.is_finished(), "grace is given");
            refuses_everything(&sender);
            server.release("sending");
            for sender in senders {
                assert!(sender.join().unwrap().0.is_ok(), "sent within the grace");
            }
            assert!(end.join().unwrap(), "nothing had to be cut");
        });
        is_over(&sender, &server);
        assert_eq!(server.messages().len(), 2);
    });
}

/// A call that hangs at `stage` when the grace is over.
fn cut_at(security: Security, stage: Stage, actions: Vec<Action>, kind: FailureKind, stored: usize) {
    let name = format!("{security:?} {stage:?}");
    let server = TestServer::builder().security(security).start();
    let host = match security {
        Security::Plain => plain(&server),
        Security::StartTls => starttls(&server),
        _ => implicit_tls(&server),
    };
    let sender = sender(host).max_retries(5).retry_base_delay(ms(1)).build().unwrap();
    server.set_script(Script::new().on(stage, actions));
    let grace = ms(200);
    thread::scope(|scope| {
        let call = scope.spawn(|| (send(&sender, "cut@shutdown"), now()));
        server.wait_until_reached("here");
        let start = now();
        assert!(!sender.shutdown(grace), "{name}: something had to be cut");
        let took = now() - start;
        assert!(took >= grace && took <= grace + CUT_TIME + SLACK, "{name}: {took:?}");
        let (result, ended) = call.join().unwrap();
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.attempts()), (kind, 1), "{name}: {error}");
        assert!(!error.is_retry_safe(), "{name}: {error}");
        assert!(ended - start <= grace + SLACK, "{name}: the caller was back after {:?}", ended - start);
    });
    server.release("here");
    is_over(&sender, &server);
    let counted = server.accepted("cut@shutdown");
    assert!(counted == stored || (kind == FailureKind::UnknownAfterData && counted <= 1), "{name}: {counted}");
}

#[test]
fn what_does_not_finish_within_the_grace_is_cut_and_told_the_truth() {
    let here = || vec![Action::barrier("here"), Action::Default];
    let (shutdown, unknown) = (FailureKind::Shutdown, FailureKind::UnknownAfterData);
    let cases = [
        (Security::Plain, Stage::Connect, here(), shutdown, 0),
        (Security::Plain, Stage::Ehlo, here(), shutdown, 0),
        (Security::StartTls, Stage::StartTls, here(), shutdown, 0),
        (Security::ImplicitTls, Stage::TlsHandshake, here(), shutdown, 0),
        (Security::Plain, Stage::Mail, here(), shutdown, 0),
        (Security::Plain, Stage::Data, here(), shutdown, 0),
        (Security::ImplicitTls, Stage::Mail, here(), shutdown, 0),
        (Security::Plain, Stage::EndOfData, vec![Action::Accept, Action::barrier("here")], unknown, 1),
        (Security::Plain, Stage::EndOfData, vec![Action::barrier("here"), Action::Reset], unknown, 0),
        (Security::ImplicitTls, Stage::EndOfData, vec![Action::Accept, Action::barrier("here")], unknown, 1),
    ];
    thread::scope(|scope| {
        for (security, stage, actions, kind, stored) in cases {
            scope.spawn(move || thrice(|| cut_at(security, stage, actions.clone(), kind, stored)));
        }
    });
}

#[test]
fn a_caller_stuck_in_the_kernels_connect_is_cut_too() {
    thrice(|| {
        let hole = BlackHole::open();
        let sender = sender(hole.host()).build().unwrap();
        thread::scope(|scope| {
            let call = scope.spawn(|| send(&sender, "hole@shutdown"));
            eventually("it connects", || sender.status().counts.connecting == 1);
            let start = now();
            assert!(!sender.shutdown(ms(100)));
            assert_eq!(call.join().unwrap().unwrap_err().kind(), FailureKind::Shutdown);
            assert!(now() - start <= ms(100) + CUT_TIME + SLACK, "{:?}", now() - start);
        });
        assert_eq!(sender.status().counts.total, 0);
    });
}

#[test]
fn a_pause_before_a_retry_ends_with_the_sender() {
    thrice(|| {
        let server =
            TestServer::builder().script(Script::new().on(Stage::Mail, [Action::reply("451 4.3.0 later\r\n")])).start();
        let sender = sender(plain(&server)).max_retries(5).retry_base_delay(PATIENCE / 2).build().unwrap();
        thread::scope(|scope| {
            let call = scope.spawn(|| send(&sender, "pause@shutdown"));
            eventually("it pauses", || server.snapshot().reached(Stage::Mail) == 1 && sender.status().counts.idle == 1);
            let start = now();
            assert!(sender.shutdown(PATIENCE));
            let error = call.join().unwrap().unwrap_err();
            assert!(now() - start <= SLACK, "{:?}", now() - start);
            assert_eq!((error.kind(), error.attempts()), (FailureKind::Shutdown, 1), "{error}");
        });
        is_over(&sender, &server);
    });
}

#[test]
fn maintenance_at_work_does_not_hold_up_the_end() {
    // One connection never answers its probe, and the reserve hangs at the greeting of another.
    thrice(|| {
        let hung = TestServer::builder().script(Script::new().on(Stage::Rset, [Action::barrier("probe")])).start();
        let probing = sender(plain(&hung)).keepalive_interval(ms(20)).build().unwrap();
        send(&probing, "1@maintenance").unwrap();
        hung.wait_until_reached("probe");
        let start = now();
        probing.shutdown(ms(100));
        assert!(now() - start <= ms(100) + CUT_TIME + SLACK, "{:?}", now() - start);
        hung.release("probe");
        is_over(&probing, &hung);

        let slow = TestServer::builder().script(Script::new().on(Stage::Connect, [Action::barrier("refill")])).start();
        let filling = sender(plain(&slow)).min_idle(2).build().unwrap();
        slow.wait_until_reached("refill");
        let start = now();
        filling.shutdown(ms(100));
        assert!(now() - start <= ms(100) + CUT_TIME + SLACK, "{:?}", now() - start);
        slow.release("refill");
        is_over(&filling, &slow);
    });
}

#[test]
fn a_lease_holder_may_end_the_sender() {
    thrice(|| {
        let server = TestServer::start();
        let sender = sender(plain(&server)).build().unwrap();
        let mut lease = sender.lease().unwrap();
        let start = now();
        // Its own lease is what the grace is for; no deadlock, no wait for more than that.
        assert!(!sender.shutdown(ms(100)));
        assert!(now() - start <= ms(100) + CUT_TIME + SLACK, "{:?}", now() - start);
        let error = lease.send_raw(&envelope(1), &content("1@holder")).unwrap_err();
        assert_eq!(error.kind(), FailureKind::Shutdown, "{error}");
        drop(lease);
        is_over(&sender, &server);
        assert_eq!(server.accepted("1@holder"), 0);
    });
}

#[test]
fn a_lease_may_be_used_and_given_back_within_the_grace() {
    let server = TestServer::start();
    let sender = sender(plain(&server)).build().unwrap();
    let mut lease = sender.lease().unwrap();
    thread::scope(|scope| {
        let end = scope.spawn(|| sender.shutdown(PATIENCE));
        eventually("it is ending", || sender.status().is_shut_down);
        lease.send_raw(&envelope(1), &content("1@grace")).unwrap();
        assert!(!end.is_finished());
        drop(lease);
        assert!(end.join().unwrap());
    });
    is_over(&sender, &server);
    assert_eq!(server.accepted("1@grace"), 1);
}

#[test]
fn many_may_end_it_at_once() {
    thrice(|| {
        let server = TestServer::start();
        let sender = sender(plain(&server)).build().unwrap();
        send(&sender, "1@many").unwrap();
        let start = now();
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    assert!(sender.shutdown(PATIENCE));
                });
            }
        });
        assert!(now() - start <= SLACK * 2, "{:?}", now() - start);
        is_over(&sender, &server);
    });
}

#[test]
fn the_last_drop_ends_it_without_delay() {
    thrice(|| {
        let server = TestServer::start();
        let sender = sender(plain(&server)).min_idle(2).keepalive_interval(ms(50)).build().unwrap();
        send(&sender, "1@drop").unwrap();
        eventually("the reserve is there", || sender.status().counts.idle >= 2);
        let start = now();
        drop(sender);
        assert!(now() - start <= SLACK, "{:?}", now() - start);
        assert!(server.wait_for(|seen| seen.connections_open() == 0, PATIENCE));
    });
}

#[test]
fn a_send_that_runs_keeps_the_sender_it_was_given() {
    // The handle is dropped by one thread while another one sends by its clone.
    let server = TestServer::builder()
        .script(Script::new().once(Stage::EndOfData, [Action::barrier("here"), Action::Default]))
        .start();
    let first = sender(plain(&server)).build().unwrap();
    let second = first.clone();
    let call = thread::spawn(move || send(&second, "1@kept"));
    server.wait_until_reached("here");
    drop(first);
    server.release("here");
    call.join().unwrap().unwrap();
    assert!(server.wait_for(|seen| seen.connections_open() == 0, PATIENCE));
}

#[test]
fn under_load_every_answer_is_true() {
    const THREADS: usize = 16;
    let server = TestServer::builder().record(false).start();
    for grace in [ms(0), ms(50)] {
        let sender = sender(plain(&server)).max_size(4).build().unwrap();
        let name = format!("{}", grace.as_millis());
        let sent = AtomicUsize::new(0);
        thread::scope(|scope| {
            let callers: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let (sender, server, sent, name) = (&sender, &server, &sent, &name);
                    scope.spawn(move || {
                        for number in 0_u32.. {
                            let id = format!("{thread}.{number}@load{name}");
                            let result = send_to(sender, &id, 1, &SendOptions::new());
                            let stored = server.accepted(&id);
                            match result {
                                Ok(_) => {
                                    sent.fetch_add(1, Ordering::SeqCst);
                                    assert_eq!(stored, 1);
                                }
                                Err(error) => {
                                    let (kind, text) = (error.kind(), error.to_string());
                                    let is_true = match kind {
                                        FailureKind::Shutdown => stored == 0,
                                        FailureKind::UnknownAfterData => true,
                                        _ => false,
                                    };
                                    assert!(is_true, "stored {stored} times: {text}");
                                    return (kind, now());
                                }
                            }
                        }
                        unreachable!()
                    })
                })
                .collect();
            eventually("all of them send", || sent.load(Ordering::SeqCst) > 200);
            let start = now();
            sender.shutdown(grace);
            let took = now() - start;
            assert!(took <= grace + CUT_TIME + SLACK, "{took:?}");
            for caller in callers {
                let (_, ended) = caller.join().unwrap();
                assert!(ended.saturating_duration_since(start) <= grace + CUT_TIME + SLACK);
            }
        });
        is_over(&sender, &server);
    }
}
