//! What happens to a server's host: it crashes whole, is reloaded and stopped under load, has no room, loses patience. K13 to K16 of
//! the fault catalogue; `tests/kernel_faults` has the others.

use std::time::Duration;

use smtp_pool::{DiscardReason, FailureKind, HostState, SendStage, SmtpSender};

use super::postfix::{Postfix, kill, wait_until};
use super::{
    assert_code, assert_told_the_truth, disagreements, inbox, message, single, to, under_load, wait_for_calls,
};

/// A sender of as many connections as threads, whose pauses are short.
fn hasty(postfix: &Postfix, threads: usize) -> SmtpSender {
    SmtpSender::builder()
        .host(postfix.host())
        .max_size(threads)
        .retry_base_delay(Duration::from_millis(1))
        .reconnect_cooldown(Duration::from_millis(20))
        .max_reconnect_cooldown(Duration::from_millis(100))
        .build()
        .unwrap()
}

/// K13.
#[test]
#[ignore = "needs a private Postfix; .ci/run and README say how"]
fn a_server_killed_whole_is_back_after_its_cooldown() {
    let postfix = Postfix::start();
    let sender = hasty(&postfix, 1);
    for round in 0..2 {
        let id = |part: &str| format!("{part}-{round}");
        sender.send_raw(&inbox(), &message(&id("before"), "")).unwrap();
        let family = postfix.family();
        // The master first: it would start others.
        kill(&[postfix.master()]);
        kill(&family);
        let error = sender.send_raw(&inbox(), &message(&id("never"), "")).unwrap_err();
        let told = (error.kind(), error.stage());
        assert_eq!(told, (FailureKind::HostUnavailable, SendStage::BeforeConnect), "{error}");
        assert!(error.is_retry_safe());
        assert!(sender.status().hosts[0].consecutive_failures > 0);
        postfix.stop();
        postfix.start_again();
        wait_until("the pause is over", || sender.send_raw(&inbox(), &message(&id("after"), "")).is_ok());
        assert_eq!(sender.status().hosts[0].state, HostState::Available);
        for (part, copies) in [("before", 1), ("never", 0), ("after", 1)] {
            assert_eq!(postfix.delivered(&id(part)).len(), copies, "{}", id(part));
        }
    }
}

/// K14: sessions outlive a reload, so nobody notices it.
#[test]
#[ignore = "needs a private Postfix; .ci/run and README say how"]
fn a_reload_under_load_costs_no_message() {
    const THREADS: usize = 4;
    let postfix = Postfix::start();
    let sender = hasty(&postfix, THREADS);
    let outcomes = under_load(&sender, THREADS, |calls| {
        for _ in 0..5 {
            wait_for_calls(calls, 20);
            postfix.reload("");
        }
        wait_for_calls(calls, 20);
    });
    assert!(outcomes.iter().all(|(_, kind)| kind.is_none()), "{outcomes:?}");
    assert_told_the_truth(&postfix, &outcomes);
    assert_eq!(disagreements(&postfix), []);
    assert_eq!(sender.status().create_failures, 0, "{:?}", sender.status());
}

/// K14: a stop ends sessions in the middle of messages. What was told as sent is there, and what was told as not sent is not.
#[test]
#[ignore = "needs a private Postfix; .ci/run and README say how"]
fn a_stop_under_load_loses_nothing() {
    const THREADS: usize = 4;
    let postfix = Postfix::start();
    let sender = hasty(&postfix, THREADS);
    let outcomes = under_load(&sender, THREADS, |calls| {
        for _ in 0..3 {
            wait_for_calls(calls, 20);
            postfix.stop();
            postfix.start_again();
        }
        wait_for_calls(calls, 20);
    });
    let tally = assert_told_the_truth(&postfix, &outcomes);
    // A log writer that was stopped may not have written everything, and nothing that is not so.
    let disagreements = disagreements(&postfix);
    assert!(disagreements.iter().all(|(_, queued, copies)| queued < copies), "{disagreements:?}");
    eprintln!("(outcome, copies): count {tally:?}");
    let unknown = outcomes.iter().filter(|(_, kind)| *kind == Some(FailureKind::UnknownAfterData)).count();
    // In each gap, what was on its way: at most one message for each connection.
    assert!(unknown <= 3 * THREADS, "{tally:?}");
    assert!(tally[&("ok", 1)] > 60, "{tally:?}");
}

/// K15: less room than Postfix wants to be left.
#[test]
#[ignore = "needs a private Postfix; .ci/run and README say how"]
fn a_full_queue_disk_is_a_temporary_refusal() {
    let postfix = Postfix::start_with("queue_minfree = 2000000000000000");
    let sender = single(postfix.host()).build().unwrap();
    for _ in 0..2 {
        // The second time on the session of the first, and, since it may have been that one's own trouble, on a fresh one.
        let error = sender.send_raw(&inbox(), &message("never", "")).unwrap_err();
        assert_code(&error, FailureKind::RetryableTemporaryFailure, SendStage::EnvelopeStarted, 452);
        assert!(error.is_retry_safe());
        assert_eq!(error.attempts(), 1);
    }
    assert_eq!((sender.status().created, sender.status().counts.idle), (2, 1), "the connection stays");
    let host = &sender.status().hosts[0];
    assert_eq!((host.state, host.learned_message_limit), (HostState::Available, None));
    // There is room again. The session that stands does not know it yet, and that costs nothing.
    postfix.reload("queue_minfree = 0");
    let receipt = sender.send_raw(&inbox(), &message("after", "")).unwrap();
    assert_eq!(receipt.attempts(), 1);
    assert_eq!((postfix.delivered("never").len(), postfix.delivered("after").len()), (0, 1));
}

/// K16: with a limit below the number of refusals that a connection is retired after.
#[test]
#[ignore = "needs a private Postfix; .ci/run and README say how"]
fn a_session_ended_for_its_errors_is_replaced_for_free() {
    let postfix = Postfix::start_with("smtpd_hard_error_limit = 3;smtpd_error_sleep_time = 0s");
    let sender = single(postfix.host()).build().unwrap();
    for refusals in 1..=6 {
        for _ in 0..refusals {
            let error = sender.send_raw(&to(&["reject@example.com"]), &message("never", "")).unwrap_err();
            assert_code(&error, FailureKind::PermanentFailure, SendStage::EnvelopeStarted, 550);
        }
        let receipt = sender.send_raw(&inbox(), &message(&format!("after-{refusals}"), "")).unwrap();
        assert_eq!(receipt.attempts(), 1);
    }
    assert!(postfix.logged("too many errors") > 0, "the limit was met");
    let status = sender.status();
    assert_eq!((status.hosts[0].state, status.create_failures), (HostState::Available, 0), "{status:?}");
    // Noticed while idle, or right behind a refusal.
    let ended = status.discarded.of(DiscardReason::ServerClosed) + status.discarded.of(DiscardReason::Broken);
    assert_eq!(status.discarded.total(), ended, "{status:?}");
    assert_eq!(postfix.mailbox().len(), 6);
    assert!(postfix.delivered("never").is_empty());
}
