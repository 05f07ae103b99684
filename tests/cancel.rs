//! A send that is cancelled, or out of time, ends at once wherever it is, says the truth, and leaves the pool as it should be.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

mod common;
#[path = "common/doors.rs"]
mod doors;

use std::thread;
use std::time::Duration;

use common::*;
use doors::BlackHole;
use smtp_pool::FailureKind::{
    Cancelled, HostUnavailable as HU, PoolExhausted as PE, RetryableBeforeSend as RB, UnknownAfterData as UD,
};
use smtp_pool::testing::{Action, Script, Security, Stage, TestServer};
use smtp_pool::{CancelToken, FailureKind, Host, HostState, SendError, SendOptions, SendStage, SmtpSender};

const VICTIM: &str = "victim@cut";
const BUDGET: Duration = Duration::from_millis(400);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Token,
    Deadline,
}
const CUTS: [Cut; 2] = [Cut::Token, Cut::Deadline];

fn slow_and_patient(host: Host) -> smtp_pool::SmtpSenderBuilder {
    sender(host).max_size(1).reconnect_cooldown(HOUR).max_reconnect_cooldown(HOUR)
}

/// Sends, waits until the call is at its place, cuts it there, and sees that it ends within 100 ms of the cut.
fn cut(sender: &SmtpSender, cut: Cut, content: &[u8], name: &str, is_there: impl FnOnce()) -> SendError {
    let token = CancelToken::new();
    thread::scope(|scope| {
        let start = now();
        let options = match cut {
            Cut::Token => SendOptions::new().cancel(&token),
            Cut::Deadline => SendOptions::new().deadline(start + BUDGET),
        };
        let call = scope.spawn(move || {
            let result = sender.send_with(&envelope(1), content, &options);
            (result, now())
        });
        is_there();
        let due = match cut {
            Cut::Deadline => start + BUDGET,
            Cut::Token => {
                assert!(!call.is_finished(), "{name}: the call is where it hangs");
                let due = now();
                token.cancel();
                due
            }
        };
        let (result, ended) = call.join().unwrap();
        let error = result.expect_err(name);
        let took = ended.saturating_duration_since(due);
        assert!(took <= SLACK, "{name}, {cut:?}: returned {took:?} after the cut: {error}");
        error
    })
}

/// The pool is at rest, the host is not blamed, the next message arrives once.
fn is_sound(sender: &SmtpSender, server: &TestServer, cut: Cut, name: &str) {
    server.set_script(Script::new());
    server.release("here");
    eventually("the pool is at rest", || is_at_rest(sender));
    if cut == Cut::Token {
        let host = sender.status().hosts[0].clone();
        assert_eq!(host.state, HostState::Available, "{name}: a caller who changes his mind is no outage: {host:?}");
        assert_eq!(host.consecutive_failures, 0, "{name}: {host:?}");
        let receipt = send(sender, "next@cut").unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(receipt.attempts(), 1);
        assert_eq!(server.accepted("next@cut"), 1, "{name}");
    }
}

fn all<T: Clone + Send>(cases: impl IntoIterator<Item = T>, check: impl Fn(T) + Sync) {
    thread::scope(|scope| {
        for case in cases {
            let check = &check;
            scope.spawn(move || thrice(|| check(case.clone())));
        }
    });
}

/// A place in the dialogue, what its server does there, and what is said of a call that was out of time there.
type Place = (Security, Stage, FailureKind, SendStage);

fn at(place: Place, pipelining: bool, how: Cut) {
    let (security, stage, late, told) = place;
    let name = format!("{security:?} {stage:?} pipelining {pipelining}");
    let server = TestServer::builder().security(security).pipelining(pipelining);
    let server = if security == Security::Plain { server } else { server.credentials("user", "secret") }.start();
    let host = match security {
        Security::Plain => plain(&server),
        Security::StartTls => starttls(&server).credentials("user", "secret"),
        _ => implicit_tls(&server).credentials("user", "secret"),
    };
    let sender = slow_and_patient(host).build().unwrap();
    // What is done once for a sender (the system's roots are read) is not measured.
    send(&sender, "warm@cut").unwrap();
    if told < SendStage::EnvelopeStarted {
        server.connection(1).close();
    }
    server.set_script(Script::new().on(stage, [Action::barrier("here"), Action::Default]));
    let error = cut(&sender, how, &content(VICTIM), &name, || server.wait_until_reached("here"));
    let kind = if how == Cut::Token && late != UD { Cancelled } else { late };
    assert_eq!((error.kind(), error.stage()), (kind, told), "{name}, {how:?}: {error}");
    assert_eq!(error.is_retry_safe(), kind != UD, "{name}: {error}");
    is_sound(&sender, &server, how, &name);
    // What had been offered whole may be taken after all, once; and it is told so.
    assert!(server.accepted(VICTIM) <= usize::from(kind == UD), "{name}: stored {}", server.accepted(VICTIM));
}

#[test]
fn while_a_session_is_opened() {
    let stages = [
        (Security::Plain, Stage::Connect),
        (Security::Plain, Stage::Ehlo),
        (Security::StartTls, Stage::Connect),
        (Security::StartTls, Stage::StartTls),
        (Security::StartTls, Stage::TlsHandshake),
        (Security::StartTls, Stage::Ehlo),
        (Security::StartTls, Stage::Auth),
        (Security::ImplicitTls, Stage::TlsHandshake),
        (Security::ImplicitTls, Stage::Auth),
    ];
    let cases = stages.into_iter().flat_map(|stage| CUTS.map(|cut| (stage, cut)));
    all(cases, |((security, stage), cut)| at((security, stage, HU, SendStage::Connected), true, cut));
}

#[test]
fn in_the_envelope_and_at_the_final_reply() {
    let stages = [
        (Stage::Mail, RB, SendStage::EnvelopeStarted),
        (Stage::Rcpt, RB, SendStage::EnvelopeStarted),
        (Stage::Data, RB, SendStage::EnvelopeStarted),
        (Stage::EndOfData, UD, SendStage::DataCompleted),
    ];
    for security in [Security::Plain, Security::ImplicitTls] {
        for pipelining in [true, false] {
            let cases = stages.into_iter().flat_map(|stage| CUTS.map(|cut| (stage, cut)));
            all(cases, |((stage, late, told), cut)| at((security, stage, late, told), pipelining, cut));
        }
    }
}

#[test]
fn after_the_last_byte_of_a_message_that_was_accepted() {
    all(CUTS, |how| {
        let server = TestServer::builder()
            .script(Script::new().on(Stage::EndOfData, [Action::Accept, Action::barrier("here")]))
            .start();
        let sender = slow_and_patient(plain(&server)).max_retries(5).build().unwrap();
        let error = cut(&sender, how, &content(VICTIM), "accepted", || server.wait_until_reached("here"));
        assert_eq!((error.kind(), error.stage(), error.attempts()), (UD, SendStage::DataCompleted, 1), "{error}");
        assert!(!error.is_retry_safe());
        is_sound(&sender, &server, how, "accepted");
        assert_eq!(server.accepted(VICTIM), 1, "and it is never sent again");
    });
}

#[test]
fn in_the_content_of_a_message_that_the_server_does_not_read() {
    let cases =
        [Security::Plain, Security::ImplicitTls].into_iter().flat_map(|security| CUTS.map(|cut| (security, cut)));
    all(cases, |(security, how)| {
        let server = TestServer::builder().security(security).size(None).socket_buffers(4096).start();
        let host = if security == Security::Plain { plain(&server) } else { implicit_tls(&server) };
        let sender = slow_and_patient(host).build().unwrap();
        send(&sender, "warm@cut").unwrap();
        server.set_script(
            Script::new().on(Stage::Body, [Action::barrier("stuck"), Action::StopReading]).after_bytes(10_000),
        );
        server.release("stuck");
        let message = big_content(VICTIM, 6_000_000);
        let error = cut(&sender, how, &message, "content", || {
            assert!(server.wait_for(|seen| seen.barrier_reached("stuck") == 1, PATIENCE));
        });
        let kind = if how == Cut::Token { Cancelled } else { RB };
        assert_eq!((error.kind(), error.stage()), (kind, SendStage::DataStarted), "{error}");
        is_sound(&sender, &server, how, "content");
        assert_eq!(server.accepted(VICTIM), 0);
    });
}

#[test]
fn while_the_kernel_connects() {
    all(CUTS, |how| {
        let hole = BlackHole::open();
        let sender = slow_and_patient(hole.host()).build().unwrap();
        let error = cut(&sender, how, &content(VICTIM), "black hole", || {
            eventually("it connects", || sender.status().counts.connecting == 1);
        });
        assert_eq!(error.kind(), if how == Cut::Token { Cancelled } else { HU }, "{error}");
        assert!(error.stage() <= SendStage::Connected, "{error}");
        eventually("the pool is at rest", || is_at_rest(&sender));
        if how == Cut::Token {
            assert_eq!(sender.status().hosts[0].state, HostState::Available);
        }
    });
}

#[test]
fn in_the_queue() {
    all(CUTS, |how| {
        let server = TestServer::start();
        let sender = slow_and_patient(plain(&server)).build().unwrap();
        let lease = sender.lease().unwrap();
        let error = cut(&sender, how, &content(VICTIM), "queue", || {
            eventually("it waits", || sender.status().counts.waiting == 1);
        });
        let kind = if how == Cut::Token { Cancelled } else { PE };
        assert_eq!((error.kind(), error.stage()), (kind, SendStage::BeforeConnect), "{error}");
        assert!(error.is_retry_safe(), "{error}");
        assert_eq!(sender.status().counts.waiting, 0, "its place in the queue is gone");
        drop(lease);
        is_sound(&sender, &server, how, "queue");
        assert_eq!((server.accepted(VICTIM), server.connections_accepted()), (0, 1));
    });
}

#[test]
fn one_that_leaves_the_queue_takes_nobodys_turn_away() {
    let server = TestServer::start();
    let sender = slow_and_patient(plain(&server)).build().unwrap();
    let lease = sender.lease().unwrap();
    let tokens: Vec<_> = (0..9).map(|_| CancelToken::new()).collect();
    thread::scope(|scope| {
        let mut callers = Vec::new();
        for (number, token) in tokens.iter().enumerate() {
            let sender = &sender;
            callers.push(scope.spawn(move || {
                send_to(sender, &format!("{number}@turn"), 1, &SendOptions::new().cancel(token)).map(drop)
            }));
            eventually("it waits", || sender.status().counts.waiting == number + 1);
        }
        for token in tokens.iter().step_by(2) {
            token.cancel();
        }
        eventually("four are left", || sender.status().counts.waiting == 4);
        drop(lease);
        for (number, caller) in callers.into_iter().enumerate() {
            let result = caller.join().unwrap();
            assert_eq!(
                result.as_ref().err().map(SendError::kind),
                (number % 2 == 0).then_some(Cancelled),
                "{result:?}"
            );
        }
    });
    let order: Vec<_> = server.messages().iter().map(|message| message.message_id().unwrap().to_owned()).collect();
    assert_eq!(order, ["<1@turn>", "<3@turn>", "<5@turn>", "<7@turn>"]);
}

#[test]
fn while_it_waits_for_a_cooldown_to_end() {
    thrice(|| {
        let server = TestServer::start();
        server.stop_accepting();
        let pause = PATIENCE / 2;
        let sender = sender(plain(&server)).reconnect_cooldown(pause).max_reconnect_cooldown(pause).build().unwrap();
        assert_eq!(send(&sender, "first@cut").unwrap_err().kind(), HU);
        let error = cut(&sender, Cut::Token, &content(VICTIM), "cooldown", || {
            eventually("it waits", || sender.status().counts.waiting == 1);
        });
        assert_eq!((error.kind(), error.stage()), (Cancelled, SendStage::BeforeConnect), "{error}");
        eventually("the pool is at rest", || is_at_rest(&sender));
        assert!(matches!(sender.status().hosts[0].state, HostState::CoolingDown { .. }), "and nothing has ended it");
    });
}

#[test]
fn in_the_pause_before_a_retry() {
    thrice(|| {
        let server =
            TestServer::builder().script(Script::new().on(Stage::Mail, [Action::reply("451 4.3.0 later\r\n")])).start();
        let sender = slow_and_patient(plain(&server)).max_retries(5).retry_base_delay(PATIENCE / 2).build().unwrap();
        let error = cut(&sender, Cut::Token, &content(VICTIM), "pause", || {
            assert!(server.wait_for(|seen| seen.reached(Stage::Mail) == 1, PATIENCE));
            eventually("the connection is back", || sender.status().counts.idle == 1);
        });
        assert_eq!((error.kind(), error.attempts()), (Cancelled, 1), "{error}");
        is_sound(&sender, &server, Cut::Token, "pause");
        assert_eq!((server.accepted(VICTIM), server.connections_accepted()), (0, 1));
    });
}

#[test]
fn a_token_cancelled_before_the_call_sends_nothing() {
    thrice(|| {
        let server = TestServer::start();
        let sender = slow_and_patient(plain(&server)).build().unwrap();
        let token = CancelToken::new();
        token.cancel();
        for round in 0..2 {
            // The second time there is an idle connection.
            let start = now();
            let error = send_to(&sender, VICTIM, 1, &SendOptions::new().cancel(&token)).unwrap_err();
            assert!(now() - start <= SLACK, "{error}");
            assert_eq!(error.kind(), Cancelled, "round {round}: {error}");
            send(&sender, "warm@cut").unwrap();
        }
        assert_eq!(server.accepted(VICTIM), 0);
        assert_eq!(server.accepted("warm@cut"), 2);
    });
}

#[test]
fn one_token_ends_many_calls_and_leaves_others_alone() {
    thrice(|| {
        let server = TestServer::builder()
            .script(Script::new().on(Stage::Mail, [Action::barrier("here"), Action::Default]))
            .start();
        let sender = sender(plain(&server)).max_size(4).build().unwrap();
        let token = CancelToken::new();
        thread::scope(|scope| {
            let bystander = scope.spawn(|| send(&sender, "bystander@cut"));
            server.wait_until_reached("here");
            let victims: Vec<_> = (0..12)
                .map(|number| {
                    let (sender, options) = (&sender, SendOptions::new().cancel(&token));
                    scope.spawn(move || (send_to(sender, &format!("{number}@many"), 1, &options), now()))
                })
                .collect();
            assert!(server.wait_for(|seen| seen.barrier_reached("here") == 4, PATIENCE));
            eventually("the others wait", || sender.status().counts.waiting == 9);
            let start = now();
            token.clone().cancel();
            for victim in victims {
                let (result, ended) = victim.join().unwrap();
                assert_eq!(result.unwrap_err().kind(), Cancelled);
                assert!(ended - start <= SLACK, "{:?}", ended - start);
            }
            server.release("here");
            assert_eq!(bystander.join().unwrap().unwrap().attempts(), 1);
        });
        eventually("the pool is at rest", || is_at_rest(&sender));
        assert_eq!(server.messages().len(), 1);
    });
}

#[test]
fn cancelled_at_any_moment_the_answer_is_true() {
    // Cuts at random moments of the dialogue, by the hundred; the server's store is the judge.
    const THREADS: usize = 8;
    const ROUNDS: usize = 100;
    let server = TestServer::builder().record(false).start();
    let sender = sender(plain(&server)).max_size(4).reconnect_cooldown(HOUR).max_reconnect_cooldown(HOUR);
    let sender = sender.build().unwrap();
    send(&sender, "warm@moment").unwrap();
    let counts = thread::scope(|scope| {
        let callers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (sender, server) = (&sender, &server);
                scope.spawn(move || {
                    let mut counts = [0; 3];
                    for number in 0..ROUNDS {
                        let (id, token) = (format!("{thread}.{number}@moment"), CancelToken::new());
                        let result = thread::scope(|scope| {
                            let (id, options) = (&id, SendOptions::new().cancel(&token));
                            let call = scope.spawn(move || send_to(sender, id, 1, &options));
                            pace(Duration::from_micros(fastrand::u64(..1500)));
                            token.cancel();
                            call.join().unwrap()
                        });
                        let at = match result {
                            Ok(_) => 0,
                            Err(error) if error.kind() == Cancelled => 1,
                            Err(error) => {
                                assert_eq!(error.kind(), UD, "{error}");
                                2
                            }
                        };
                        counts[at] += 1;
                        let stored = server.accepted(&id);
                        assert!(
                            stored == usize::from(at == 0) || (at == 2 && stored == 1),
                            "{id}: outcome {at}, stored {stored}"
                        );
                    }
                    counts
                })
            })
            .collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect::<Vec<_>>()
    });
    let sum = |at: usize| counts.iter().map(|counts| counts[at]).sum::<usize>();
    eprintln!("{} sent, {} cancelled, {} unknown", sum(0), sum(1), sum(2));
    assert!(sum(0) > 0 && sum(1) > 0);
    eventually("the pool is at rest", || is_at_rest(&sender));
    assert_eq!(sender.status().hosts[0].state, HostState::Available);
    assert_eq!(sender.status().create_failures, 0, "an attempt that its caller gave up is no failure of the host");
    send(&sender, "next@moment").unwrap();
    assert_eq!(server.accepted("next@moment"), 1);
    assert!(server.peak_connections() <= 4);
}

#[test]
fn a_call_that_was_cancelled_says_so_though_every_host_cools_down() {
    let script = Script::new().on(Stage::Connect, [Action::reply("421 4.3.2 not now\r\n"), Action::Fin]);
    let server = TestServer::builder().script(script).start();
    let sender = slow_and_patient(plain(&server)).build().unwrap();
    assert_eq!(send(&sender, "first@cut").unwrap_err().kind(), HU);
    let token = CancelToken::new();
    let options = SendOptions::new().cancel(&token);
    assert_eq!(send_to(&sender, "cooling@cut", 1, &options).unwrap_err().kind(), HU, "nobody has cancelled yet");
    token.cancel();
    let error = send_to(&sender, "cancelled@cut", 1, &options).unwrap_err();
    assert_eq!((error.kind(), error.stage()), (Cancelled, SendStage::BeforeConnect), "{error}");
    assert_eq!(sender.status().create_failures, 1, "nothing was tried");
}
