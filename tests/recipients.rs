//! More recipients than a server takes at a time: several transactions, one answer, and a fate for each recipient.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

mod common;

use std::collections::BTreeMap;

use common::*;
use smtp_pool::FailureKind::{PermanentFailure, RetryableBeforeSend, RetryableTemporaryFailure};
use smtp_pool::RecipientStatus::{Accepted, NotSent, Refused, RefusedForNow, Unknown};
use smtp_pool::testing::{Action, Script, Stage, TestServer, TestServerBuilder};
use smtp_pool::{
    CancelToken, FailureKind, RecipientOutcome, RecipientPolicy, RecipientStatus, SendError, SendOptions, SendStage,
};

fn partial() -> SendOptions {
    SendOptions::new().recipients(RecipientPolicy::AcceptPartial)
}

fn taking(recipients: usize) -> TestServerBuilder {
    TestServer::builder().ehlo_keyword(format!("LIMITS MAILMAX=1000 RCPTMAX={recipients}"))
}

fn statuses(outcomes: &[RecipientOutcome]) -> Vec<RecipientStatus> {
    // In the order of the envelope, each of them, whatever became of it.
    for (outcome, number) in outcomes.iter().zip(1..) {
        let address: &str = outcome.address.as_ref();
        assert_eq!(address, format!("to{number}@example.net"));
    }
    outcomes.iter().map(|outcome| outcome.status).collect()
}

/// How often each recipient has the message, by what the server stored.
fn copies(server: &TestServer) -> BTreeMap<String, usize> {
    let mut copies = BTreeMap::new();
    for message in server.messages() {
        for recipient in message.recipients() {
            *copies.entry(recipient.clone()).or_default() += 1;
        }
    }
    copies
}

/// Compares what each recipient was told with what the server has for it.
#[track_caller]
fn assert_true(server: &TestServer, outcomes: &[RecipientOutcome]) {
    let copies = copies(server);
    for outcome in outcomes {
        let copies = copies.get(outcome.address.to_string().as_str()).copied().unwrap_or(0);
        let is_true = match outcome.status {
            Accepted => copies == 1,
            Unknown => copies <= 1,
            _ => copies == 0,
        };
        assert!(is_true, "{outcome:?}: {copies} copies");
    }
}

#[test]
fn a_long_list_goes_in_several_transactions_over_one_connection() {
    for pipelining in [true, false] {
        let server = taking(3).pipelining(pipelining).start();
        let sender = sender(plain(&server)).build().unwrap();
        let receipt = send_to(&sender, "parts@limits", 8, &partial()).unwrap();
        assert_eq!(statuses(receipt.recipients()), [Accepted; 8]);
        assert_eq!((receipt.responses().count(), receipt.attempts(), receipt.connection_id()), (3, 1, 1));
        let sizes: Vec<_> = server.messages().iter().map(|message| message.recipients().len()).collect();
        assert_eq!(sizes, [3, 3, 2]);
        assert!(server.messages().iter().all(|message| message.content() == content("parts@limits")));
        assert_true(&server, receipt.recipients());
        assert_eq!((server.connections_accepted(), server.violations()), (1, Vec::new()));
    }
}

#[test]
fn a_list_within_the_limit_goes_as_ever() {
    let server = taking(3).start();
    let sender = sender(plain(&server)).build().unwrap();
    for options in [SendOptions::new(), partial()] {
        let receipt = send_to(&sender, "whole@limits", 3, &options).unwrap();
        assert_eq!((receipt.responses().count(), receipt.recipients().len()), (1, 3));
    }
    assert_eq!(server.messages().len(), 2);
}

#[test]
fn all_or_nothing_is_refused_before_mail_by_the_name_of_the_limit() {
    let server = taking(3).start();
    let sender = sender(plain(&server)).build().unwrap();
    let error = send_to(&sender, "all@limits", 4, &SendOptions::new()).unwrap_err();
    assert_eq!((error.kind(), error.stage()), (PermanentFailure, SendStage::Authenticated), "{error}");
    assert!(error.to_string().contains("4 recipients and the server's RCPTMAX is 3"), "{error}");
    assert!(!said(&server, 1, "MAIL"));
    send_to(&sender, "next@limits", 1, &SendOptions::new()).unwrap();
    assert_eq!((server.messages().len(), server.connections_accepted()), (1, 1));
}

#[test]
fn one_recipient_too_many_is_offered_again_with_the_rest() {
    // P24. The limit is not announced here: the server says so when it is met, in each of the ways that servers have.
    for reply in ["452 4.5.3 too many recipients\r\n", "452 too many\r\n", "552 too many\r\n", "552 5.5.3 too many\r\n"]
    {
        for pipelining in [true, false] {
            let script = (4..=7)
                .fold(Script::new(), |script, number| script.on_nth(Stage::Rcpt, number, [Action::reply(reply)]));
            let server = TestServer::builder().pipelining(pipelining).script(script).start();
            let sender = sender(plain(&server)).build().unwrap();
            let receipt = send_to(&sender, "found@limits", 7, &partial()).unwrap();
            assert_eq!(statuses(receipt.recipients()), [Accepted; 7], "{reply}");
            assert_true(&server, receipt.recipients());
            let sizes: Vec<_> = server.messages().iter().map(|message| message.recipients().len()).collect();
            assert_eq!(sizes, [3, 3, 1], "{reply}: what was met once is not met again");
        }
    }
}

#[test]
fn a_refusal_for_another_reason_is_not_offered_again() {
    for reply in ["452 4.2.2 mailbox full\r\n", "452 4.3.1 no space\r\n", "450 4.5.3 later\r\n", "451 local\r\n"] {
        let server = TestServer::builder().script(Script::new().on_nth(Stage::Rcpt, 2, [Action::reply(reply)])).start();
        let sender = sender(plain(&server)).build().unwrap();
        let receipt = send_to(&sender, "other@limits", 3, &partial()).unwrap();
        assert_eq!(statuses(receipt.recipients()), [Accepted, RefusedForNow, Accepted], "{reply}");
        assert_eq!(server.snapshot().reached(Stage::Rcpt), 3, "{reply}");
    }
    // Before anyone was accepted nobody is one too many.
    let script = Script::new().on_nth(Stage::Rcpt, 1, [Action::reply("452 4.5.3 too many\r\n")]);
    let server = TestServer::builder().script(script).start();
    let receipt = send_to(&sender(plain(&server)).build().unwrap(), "first@limits", 3, &partial()).unwrap();
    assert_eq!(statuses(receipt.recipients()), [RefusedForNow, Accepted, Accepted]);
}

#[test]
fn refused_recipients_of_one_part_do_not_keep_the_message_from_the_next() {
    let script = Script::new()
        .on_command(Stage::Rcpt, "to1@", [Action::reply("550 5.1.1 nobody\r\n")])
        .on_command(Stage::Rcpt, "to2@", [Action::reply("450 4.2.1 later\r\n")])
        .on_command(Stage::Rcpt, "to4@", [Action::reply("550 5.1.1 nobody\r\n")]);
    let server = taking(2).script(script).start();
    let sender = sender(plain(&server)).build().unwrap();
    let receipt = send_to(&sender, "some@limits", 5, &partial()).unwrap();
    assert_eq!(statuses(receipt.recipients()), [Refused, RefusedForNow, Accepted, Refused, Accepted]);
    assert_true(&server, receipt.recipients());
    assert_eq!(receipt.responses().count(), 2);
    assert!(receipt.stopped_by().is_none(), "all were asked");
    // With nobody left it is a failure, and a refusal for good decides.
    let error = send_to(&sender, "none@limits", 2, &partial()).unwrap_err();
    assert_eq!((error.kind(), error.response().unwrap().code()), (PermanentFailure, 550), "{error}");
    assert_eq!(statuses(error.recipients()), [Refused, RefusedForNow]);
}

/// The second of three transactions fails; the first was accepted.
#[test]
fn a_failure_of_the_second_part_leaves_a_receipt_that_tells_who_got_nothing() {
    let cut = || vec![Action::Reset];
    // A session that was idle is replaced once when it is cut, so the fresh one is cut too.
    let refused = |reply: &str| vec![Action::reply(reply)];
    for (what, stage, occasions, actions, second, why) in [
        ("cut at MAIL", Stage::Mail, 2..=3, cut(), NotSent, RetryableBeforeSend),
        ("cut at RCPT", Stage::Rcpt, 3..=4, cut(), NotSent, RetryableBeforeSend),
        ("cut at DATA", Stage::Data, 2..=3, cut(), NotSent, RetryableBeforeSend),
        ("later", Stage::EndOfData, 2..=2, refused("451 4.3.0 later\r\n"), RefusedForNow, RetryableTemporaryFailure),
        ("never", Stage::EndOfData, 2..=2, refused("554 5.7.1 spam\r\n"), Refused, PermanentFailure),
        ("MAIL refused", Stage::Mail, 2..=2, refused("550 5.7.1 go away\r\n"), NotSent, PermanentFailure),
    ] {
        // One command at a time, so that each cut is where it says.
        let script = occasions.fold(Script::new(), |script, number| script.on_nth(stage, number, actions.clone()));
        let server = taking(2).pipelining(false).script(script).start();
        let sender = sender(plain(&server)).build().unwrap();
        let receipt = send_to(&sender, "cut@limits", 6, &partial()).unwrap_or_else(|error| panic!("{what}: {error}"));
        server.assert_script_used();
        assert_eq!(statuses(receipt.recipients()), [Accepted, Accepted, second, second, NotSent, NotSent], "{what}");
        assert_true(&server, receipt.recipients());
        assert_eq!(server.messages().len(), 1, "{what}");
        let told = receipt.recipients()[2].reply.is_some();
        assert_eq!(told, second != NotSent, "{what}: the reply that decided");
        assert_eq!(receipt.stopped_by().map(SendError::kind), Some(why), "{what}");
    }
}

#[test]
fn a_second_part_that_meets_a_stale_session_is_sent_over_a_fresh_one() {
    let server = taking(2).script(Script::new().on_nth(Stage::Mail, 2, [Action::Reset])).start();
    let sender = sender(plain(&server)).build().unwrap();
    let receipt = send_to(&sender, "stale@limits", 4, &partial()).unwrap();
    server.assert_script_used();
    assert_eq!(statuses(receipt.recipients()), [Accepted; 4]);
    assert_true(&server, receipt.recipients());
    assert_eq!((server.connections_accepted(), receipt.attempts()), (2, 1));
}

#[test]
fn an_unknown_second_part_is_the_answer_and_tells_the_parts_apart() {
    for is_stored in [false, true] {
        for retries in [0, 3] {
            let actions = if is_stored { vec![Action::Accept, Action::Reset] } else { vec![Action::Reset] };
            let server = taking(2).script(Script::new().on_nth(Stage::EndOfData, 2, actions)).start();
            let sender = sender(plain(&server)).max_retries(retries).build().unwrap();
            let error = send_to(&sender, "unknown@limits", 6, &partial()).unwrap_err();
            server.assert_script_used();
            assert_eq!((error.kind(), error.is_retry_safe()), (FailureKind::UnknownAfterData, false), "{error}");
            assert_eq!(statuses(error.recipients()), [Accepted, Accepted, Unknown, Unknown, NotSent, NotSent]);
            assert_true(&server, error.recipients());
            // Nothing was sent twice, and nothing was begun behind the unknown.
            assert_eq!(server.messages().len(), 1 + usize::from(is_stored));
            assert_eq!(server.snapshot().reached(Stage::Mail), 2);
        }
    }
}

#[test]
fn a_cancelled_call_tells_what_its_first_part_came_to() {
    let server = taking(1).script(Script::new().on_nth(Stage::Mail, 2, [Action::barrier("second")])).start();
    let sender = sender(plain(&server)).build().unwrap();
    let token = CancelToken::new();
    let options = partial().cancel(&token);
    let receipt = std::thread::scope(|scope| {
        let send = scope.spawn(|| send_to(&sender, "cancelled@limits", 3, &options));
        server.wait_until_reached("second");
        token.cancel();
        send.join().unwrap().unwrap()
    });
    server.release("second");
    assert_eq!(statuses(receipt.recipients()), [Accepted, NotSent, NotSent]);
    assert_eq!(receipt.stopped_by().unwrap().kind(), FailureKind::Cancelled);
    assert_true(&server, receipt.recipients());
}

#[test]
fn each_part_is_tried_again_and_none_that_was_accepted() {
    let script = Script::new().on_nth(Stage::EndOfData, 2, [Action::reply("451 4.3.0 later\r\n")]);
    let server = taking(2).script(script).start();
    let sender = sender(plain(&server)).max_retries(1).retry_base_delay(ms(1)).build().unwrap();
    let receipt = send_to(&sender, "again@limits", 6, &partial()).unwrap();
    assert_eq!(statuses(receipt.recipients()), [Accepted; 6]);
    assert_true(&server, receipt.recipients());
    assert_eq!((receipt.attempts(), server.messages().len()), (2, 3));
}

#[test]
fn a_lease_sends_one_transaction_and_tells_who_is_left() {
    let server = taking(2).start();
    let sender = sender(plain(&server)).build().unwrap();
    let receipt = sender.lease().unwrap().send_with(&envelope(3), &content("lease@limits"), &partial()).unwrap();
    assert_eq!(statuses(receipt.recipients()), [Accepted, Accepted, NotSent]);
    assert_true(&server, receipt.recipients());
    assert_eq!(server.messages().len(), 1);
}

#[test]
fn an_unknown_outcome_of_one_transaction_is_told_of_each_recipient() {
    for policy in [RecipientPolicy::AllOrNothing, RecipientPolicy::AcceptPartial] {
        let server = TestServer::builder().script(Script::new().once(Stage::EndOfData, [Action::Reset])).start();
        let sender = sender(plain(&server)).build().unwrap();
        let error = send_to(&sender, "lost@limits", 2, &SendOptions::new().recipients(policy)).unwrap_err();
        assert_eq!(error.kind(), FailureKind::UnknownAfterData, "{error}");
        assert_eq!(statuses(error.recipients()), [Unknown; 2]);
    }
}

/// The last part has one recipient, so that it may leave in one write: then the outcome is unknown before anything was said to `RCPT`.
#[test]
fn a_part_that_left_in_one_write_and_was_not_answered_is_unknown_for_its_recipient() {
    for (what, script) in [
        ("before MAIL was answered", Script::new().on_nth(Stage::Mail, 2, [Action::Reset])),
        ("behind RCPT", Script::new().on_nth(Stage::Bdat, 1, [Action::Reset])),
        ("stored and cut", Script::new().on_nth(Stage::Bdat, 1, [Action::Accept, Action::Reset])),
    ] {
        let server = taking(2).chunking(true).script(script).start();
        let sender = sender(plain(&server).single_round_trip(true)).build().unwrap();
        let error = send_to(&sender, "one@write", 3, &partial()).unwrap_err();
        server.assert_script_used();
        assert_eq!(error.kind(), FailureKind::UnknownAfterData, "{what}: {error}");
        assert_eq!(statuses(error.recipients()), [Accepted, Accepted, Unknown], "{what}");
        assert_true(&server, error.recipients());
    }
}

#[test]
fn a_message_in_one_write_that_was_not_answered_is_unknown_for_its_recipient() {
    let server = TestServer::builder().chunking(true).script(Script::new().once(Stage::Mail, [Action::Reset])).start();
    let sender = sender(plain(&server).single_round_trip(true)).build().unwrap();
    let error = send_to(&sender, "only@write", 1, &SendOptions::new()).unwrap_err();
    assert_eq!((error.kind(), statuses(error.recipients())), (FailureKind::UnknownAfterData, vec![Unknown]), "{error}");
}

/// A refused recipient, and then a yes to the content that it was not meant for: which reply is which is open, so nothing may follow.
#[test]
fn nonsense_behind_a_refused_recipient_of_a_part_in_one_write_ends_the_sending() {
    let script = Script::new().on_nth(Stage::Rcpt, 2, [Action::reply("550 5.1.1 nobody\r\n")]).on_nth(
        Stage::Bdat,
        2,
        [Action::Accept, Action::reply("250 2.0.0 taken\r\n")],
    );
    let server = taking(1).chunking(true).script(script).start();
    let sender = sender(plain(&server).single_round_trip(true)).build().unwrap();
    let error = send_to(&sender, "nonsense@write", 3, &partial()).unwrap_err();
    server.assert_script_used();
    assert_eq!(error.kind(), FailureKind::UnknownAfterData, "{error}");
    assert_eq!(statuses(error.recipients()), [Accepted, Unknown, NotSent]);
    assert_eq!(server.snapshot().reached(Stage::Mail), 2, "nothing was begun behind the unknown");
}
