//! What one caller does, or one server says at the wrong moment, costs nobody else anything.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

mod common;

use std::time::Duration;

use common::*;
use smtp_pool::testing::{Action, Script, Stage, TestServer};
use smtp_pool::{FailureKind, SendOptions, SendStage};

#[test]
fn a_deadline_that_has_passed_costs_no_connection() {
    let server = TestServer::start();
    let sender = sender(plain(&server)).build().unwrap();
    send(&sender, "warm@rough").unwrap();
    for _ in 0..3 {
        let past = SendOptions::new().deadline(now());
        let error = send_to(&sender, "past@rough", 1, &past).unwrap_err();
        assert!(error.is_retry_safe() && error.stage() <= SendStage::Authenticated, "{error}");
        assert!(!error.classification().discard_connection, "{error}");
    }
    let mut lease = sender.lease().unwrap();
    let past = SendOptions::new().deadline(now());
    lease.send_with(&envelope(1), &content("past@rough"), &past).unwrap_err();
    lease.send_raw(&envelope(1), &content("lease@rough")).unwrap();
    drop(lease);
    send(&sender, "after@rough").unwrap();
    assert_eq!((sender.status().created, sender.status().discarded.total()), (1, 0));
    assert_eq!(server.accepted("past@rough"), 0);
}

#[test]
fn the_longest_durations_work() {
    let server = TestServer::start();
    let days = |days: u64| Duration::from_secs(days * 24 * 3600);
    for long in [days(24), days(25), days(60), days(3_650)] {
        let sender = sender(plain(&server))
            .acquire_timeout(long)
            .connect_timeout(long)
            .auth_timeout(long)
            .send_timeout(long)
            .final_reply_timeout(long)
            .idle_timeout(long)
            .max_lifetime(long)
            .keepalive_interval(long)
            .refill_delay(long)
            .max_reconnect_cooldown(long)
            .reconnect_cooldown(long)
            .retry_base_delay(long)
            .build()
            .unwrap();
        for _ in 0..2 {
            send(&sender, "long@rough").unwrap();
        }
    }
}

#[test]
fn what_the_server_said_first_it_meant_though_it_then_says_421() {
    // As Postfix does when a refusal was the last that it puts up with: the next command gets 421.
    let script = Script::new()
        .on(Stage::Rcpt, [Action::reply("550 5.1.1 nobody\r\n")])
        .on(Stage::Data, [Action::reply("421 4.7.0 too many errors\r\n"), Action::Fin]);
    for reused in [false, true] {
        let server = TestServer::start();
        let sender = sender(plain(&server)).build().unwrap();
        if reused {
            send(&sender, "warm@rough").unwrap();
        }
        server.set_script(script.clone());
        let error = send(&sender, "refused@rough").unwrap_err();
        assert_eq!(error.kind(), FailureKind::PermanentFailure, "{error}");
        assert_eq!(error.response().unwrap().code(), 550, "{error}");
        assert_eq!(sender.status().counts.total, 0, "it is closing");
        assert_eq!(server.connections_accepted(), 1, "no second connection to hear the same");
    }
}

/// Idle, and when the test lets it, the server says something.
fn unasked(reply: &str) -> Script {
    Script::new().once(Stage::Idle, [Action::barrier("go"), Action::reply(reply), Action::barrier("said")])
}

fn let_it_say(server: &TestServer) {
    for barrier in ["go", "said"] {
        server.wait_until_reached(barrier);
        server.release(barrier);
    }
}

#[test]
fn a_lease_takes_no_reply_that_nobody_asked_for() {
    for use_it in [
        |lease: &mut smtp_pool::Lease| lease.noop(),
        |lease: &mut smtp_pool::Lease| lease.send_raw(&envelope(1), &content("second@rough")).map(drop),
    ] {
        let server = TestServer::builder().script(unasked("250 2.1.0 ok\r\n")).start();
        let sender = sender(plain(&server)).build().unwrap();
        let mut lease = sender.lease().unwrap();
        lease.send_raw(&envelope(1), &content("first@rough")).unwrap();
        let_it_say(&server);
        let error = use_it(&mut lease).unwrap_err();
        assert_eq!(error.kind(), FailureKind::ConnectionCorrupted, "{error}");
        assert!(use_it(&mut lease).is_err(), "for good");
        assert!(!said(&server, 1, "NOOP"), "not another byte");
        assert_eq!(server.accepted("second@rough"), 0);
        drop(lease);
        assert_eq!(sender.status().counts.total, 0);
    }
}

#[test]
fn a_lease_reads_why_the_server_ended_it() {
    let server = TestServer::builder().script(unasked("421 4.4.2 idle\r\n")).start();
    let sender = sender(plain(&server)).build().unwrap();
    let mut lease = sender.lease().unwrap();
    lease.send_raw(&envelope(1), &content("first@rough")).unwrap();
    let_it_say(&server);
    let error = lease.send_raw(&envelope(1), &content("second@rough")).unwrap_err();
    assert_eq!(error.response().unwrap().code(), 421, "{error}");
    assert!(error.is_retry_safe() && error.stage() == SendStage::Authenticated, "{error}");
}

#[cfg(feature = "r2d2")]
mod under_r2d2 {
    use std::thread;

    use smtp_pool::{CancelToken, SmtpConnectionManager};

    use super::*;

    #[test]
    fn a_token_ends_a_send() {
        for (stage, kind) in [(Stage::Mail, FailureKind::Cancelled), (Stage::EndOfData, FailureKind::UnknownAfterData)]
        {
            let server = TestServer::builder()
                .script(Script::new().on(stage, [Action::barrier("there"), Action::Silence]))
                .start();
            let options = {
                let mut options = smtp_pool::PoolOptions::default();
                options.hosts.push(plain(&server));
                options.send_timeout = PATIENCE / 2;
                options.final_reply_timeout = PATIENCE / 2;
                options
            };
            let manager = SmtpConnectionManager::from_options(options).unwrap();
            let pool = r2d2::Pool::builder().max_size(1).min_idle(Some(0)).build(manager).unwrap();
            let token = CancelToken::new();
            let error = thread::scope(|scope| {
                let sending = scope.spawn(|| {
                    let options = SendOptions::new().cancel(&token);
                    pool.get().unwrap().send_with(&envelope(1), &content("cut@rough"), &options).unwrap_err()
                });
                server.wait_until_reached("there");
                token.cancel();
                let error = sending.join().unwrap();
                server.release("there");
                error
            });
            assert_eq!(error.kind(), kind, "{error}");
        }
    }
}
