//! The table against a second one, typed from the specification (§5 and the reliability catalogue §1), not from the first.

use super::*;
use crate::event::{Inadmissible, Party, Supply};

const STEPS: [Step; 15] = [
    Step::Credentials,
    Step::Resolve,
    Step::Connect,
    Step::TlsHandshake,
    Step::Greeting,
    Step::Ehlo,
    Step::StartTls,
    Step::Auth,
    Step::Rset,
    Step::Noop,
    Step::Mail,
    Step::Rcpt,
    Step::Data,
    Step::Content,
    Step::EndOfData,
];

const STAGES: [SendStage; 7] = [
    SendStage::BeforeConnect,
    SendStage::Connected,
    SendStage::Authenticated,
    SendStage::EnvelopeStarted,
    SendStage::DataStarted,
    SendStage::DataCompleted,
    SendStage::ServerAccepted,
];

const FAULTS: [Fault; 5] = [Fault::TimedOut, Fault::Closed, Fault::Broken, Fault::Certificate, Fault::LocalShortage];

const DESYNCS: [Desync; 7] = [
    Desync::Malformed,
    Desync::LineTooLong,
    Desync::ReplyTooLong,
    Desync::MixedCodes,
    Desync::WrongClass(354),
    Desync::Unsolicited,
    Desync::EndlessChallenges,
];

/// The stages at which a step can be met.
fn stages_of(step: Step) -> &'static [SendStage] {
    match step {
        // Before connecting, and again if the server refuses the first ones.
        Step::Credentials => &[SendStage::BeforeConnect, SendStage::Connected],
        Step::Resolve | Step::Connect => &[SendStage::BeforeConnect],
        Step::TlsHandshake | Step::Greeting | Step::Ehlo | Step::StartTls | Step::Auth => &[SendStage::Connected],
        Step::Noop => &[SendStage::Authenticated],
        Step::Rset => &[SendStage::Authenticated, SendStage::EnvelopeStarted],
        // Case i2: in one write with the last byte.
        Step::Mail | Step::Rcpt => &[SendStage::EnvelopeStarted, SendStage::DataCompleted],
        Step::Data => &[SendStage::EnvelopeStarted],
        Step::Content => &[SendStage::DataStarted],
        Step::EndOfData => &[SendStage::DataCompleted],
    }
}

/// Kind of a refusal, from the specification.
fn kind_of_reply(step: Step, stage: SendStage, code: u16, reused: bool, reauthenticated: bool) -> FailureKind {
    let by_class = if code < 500 { RetryableTemporaryFailure } else { PermanentFailure };
    match step {
        // A session that did not come about says nothing about the message (case a, j, P28), but for what will not change by
        // itself: credentials (P25), TLS required and refused, no ESMTP (F017).
        Step::Greeting | Step::Credentials | Step::Resolve | Step::Connect | Step::TlsHandshake => HostUnavailable,
        Step::Ehlo | Step::StartTls | Step::Auth if code >= 500 => PermanentFailure,
        Step::Ehlo => HostUnavailable,
        // Case j leaves the choice for 421; F025 settles it for AUTH.
        Step::StartTls | Step::Auth if code == 221 => HostUnavailable,
        Step::Auth if code == 421 => HostUnavailable,
        Step::StartTls | Step::Auth => RetryableTemporaryFailure,
        // Case g: decisive whatever it is; case j: 421 too. 221 is no answer.
        Step::EndOfData if code == 221 => UnknownAfterData,
        Step::EndOfData => by_class,
        // INV-UD: a 4yz or 5yz to MAIL or RCPT makes acceptance impossible, wherever the last byte is; 221 is neither.
        _ if code == 221 && stage == SendStage::DataCompleted => UnknownAfterData,
        // F040, F075, P10.
        Step::Rset | Step::Noop => RetryableBeforeSend,
        Step::Content if code == 421 => RetryableTemporaryFailure,
        _ if code == 221 => RetryableBeforeSend,
        _ if code == 421 && reused => RetryableBeforeSend,
        Step::Mail if code == 530 && !reauthenticated => RetryableBeforeSend,
        _ => by_class,
    }
}

fn judged(
    event: &Event,
    stage: SendStage,
    reused: bool,
    reauthenticated: bool,
    boundary: AmbiguityBoundary,
) -> Verdict {
    classify(&Incident { event, stage, reused, in_step: true, reauthenticated, boundary })
}

/// Every incident there can be, with and without sense.
fn each(mut check: impl FnMut(&Event, SendStage, bool, bool, AmbiguityBoundary, Verdict)) {
    let mut events = vec![
        Event::InjectedPlaintext,
        Event::CommitGate,
        Event::TooLate,
        Event::TlsNotReady,
        Event::TooManyRecipients,
        Event::BdatNotKnown,
        Event::ResolverBusy,
        Event::NoCredentials(Supply::Failed),
        Event::NoCredentials(Supply::Panicked),
        Event::NoCredentials(Supply::Hanging),
        Event::NoCredentials(Supply::Unusable),
        Event::Rotated,
        Event::Policy(Policy::StartTlsNotOffered),
        Event::Policy(Policy::NoCommonMechanism),
        Event::Policy(Policy::PlaintextAuth),
        Event::Inadmissible(Inadmissible::Address(Party::Sender)),
        Event::Inadmissible(Inadmissible::NeedsSmtpUtf8(Party::Recipient(1))),
        Event::Inadmissible(Inadmissible::NeedsEightBitMime),
        Event::Inadmissible(Inadmissible::TooLarge { size: 2, limit: 1 }),
    ];
    for step in STEPS {
        events.extend((200..600).map(|code| Event::Reply(step, code)));
        events.extend(FAULTS.map(|fault| Event::Transport(step, fault)));
        events.extend(DESYNCS.map(|desync| Event::OutOfStep(step, desync)));
    }
    for event in &events {
        for stage in STAGES {
            for flags in 0..4 {
                for boundary in [AmbiguityBoundary::LastByte, AmbiguityBoundary::DataStarted] {
                    let (reused, reauthenticated) = (flags & 1 != 0, flags & 2 != 0);
                    let verdict = judged(event, stage, reused, reauthenticated, boundary);
                    check(event, stage, reused, reauthenticated, boundary, verdict);
                }
            }
        }
    }
}

#[test]
fn what_may_have_been_delivered_is_never_retried() {
    each(|event, stage, _, _, boundary, verdict| {
        let Classification { kind, retry_allowed, stage: told, .. } = verdict.classification;
        assert_eq!(told, stage);
        if kind == UnknownAfterData {
            assert!(!retry_allowed && verdict.fresh_try == FreshTry::No, "{event:?} at {stage:?}");
            assert_eq!(verdict.connection, Abort, "{event:?} at {stage:?}");
            assert_eq!(verdict.blame, Blame::Nobody, "P30: {event:?} at {stage:?}");
            let first = match boundary {
                AmbiguityBoundary::LastByte => SendStage::DataCompleted,
                AmbiguityBoundary::DataStarted => SendStage::DataStarted,
            };
            // What the final dot brings is judged as such wherever it is said to have come from.
            let is_final = matches!(event, Event::Reply(Step::EndOfData, _));
            assert!(stage >= first || is_final, "{event:?} at {stage:?} under {boundary:?}");
        }
        if kind == PermanentFailure {
            assert!(!retry_allowed, "{event:?} at {stage:?}");
        }
    });
}

#[test]
fn after_the_commit_point_only_a_refusal_decides() {
    for reused in [false, true] {
        for reauthenticated in [false, true] {
            let stage = SendStage::DataCompleted;
            let judge = |event: &Event| {
                judged(event, stage, reused, reauthenticated, AmbiguityBoundary::LastByte).classification
            };
            for code in 200..600 {
                let told = judge(&Event::Reply(Step::EndOfData, code));
                let (kind, retry) = match code {
                    400..500 => (RetryableTemporaryFailure, true),
                    500.. => (PermanentFailure, false),
                    _ => (UnknownAfterData, false),
                };
                assert_eq!((told.kind, told.retry_allowed), (kind, retry), "{code}");
            }
            for event in FAULTS
                .map(|fault| Event::Transport(Step::EndOfData, fault))
                .into_iter()
                .chain(DESYNCS.map(|desync| Event::OutOfStep(Step::EndOfData, desync)))
            {
                let told = judge(&event);
                assert_eq!((told.kind, told.retry_allowed), (UnknownAfterData, false), "{event:?}");
            }
        }
    }
}

#[test]
fn every_reply_is_judged_as_the_specification_says() {
    for step in STEPS {
        for &stage in stages_of(step) {
            for code in (400..600).chain([221]) {
                for flags in 0..4 {
                    let (reused, reauthenticated) = (flags & 1 != 0, flags & 2 != 0);
                    if matches!(step, Step::Rset | Step::Noop) && !reused {
                        // Said on used connections only.
                        continue;
                    }
                    let event = Event::Reply(step, code);
                    let verdict = judged(&event, stage, reused, reauthenticated, AmbiguityBoundary::LastByte);
                    let expected = kind_of_reply(step, stage, code, reused, reauthenticated);
                    let told = verdict.classification;
                    assert_eq!(told.kind, expected, "{code} to {step:?} at {stage:?}, reused {reused}");
                    let safe = !matches!(expected, PermanentFailure | UnknownAfterData);
                    assert_eq!(told.retry_allowed, safe, "{code} to {step:?}");
                    // A closing server is left; a refusal in the envelope or after the dot leaves the connection usable.
                    let is_closing = matches!(code, 221 | 421);
                    let stays = !is_closing
                        && match step {
                            Step::Mail => code != 530,
                            Step::Rcpt | Step::Data | Step::EndOfData => true,
                            _ => false,
                        };
                    assert_eq!(told.discard_connection, !stays, "{code} to {step:?}");
                    // Free tries are for reused connections, and for one new login.
                    let may_renew = reused || (step == Step::Mail && code == 530);
                    assert!(may_renew || verdict.fresh_try == FreshTry::No, "{code} to {step:?}");
                    // P29: what is about the message is not about the host.
                    if stage >= SendStage::EnvelopeStarted && code != 530 {
                        assert_eq!(verdict.blame, Blame::Nobody, "{code} to {step:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_server_that_does_not_know_bdat_gets_the_message_by_data() {
    // F110: not accepted, since BDAT was refused, and out of step, since nobody knows what became of its chunk.
    for reused in [false, true] {
        let verdict =
            judged(&Event::BdatNotKnown, SendStage::DataCompleted, reused, false, AmbiguityBoundary::DataStarted);
        let Classification { kind, retry_allowed, .. } = verdict.classification;
        assert_eq!((kind, retry_allowed), (RetryableBeforeSend, true));
        assert_eq!(
            (verdict.connection, verdict.fresh_try, verdict.blame),
            (Abort, FreshTry::WithoutBdat, Blame::Nobody)
        );
    }
}

#[test]
fn every_fault_and_desync_is_judged_as_the_specification_says() {
    for step in STEPS {
        let is_opening = matches!(stages_of(step), [SendStage::BeforeConnect | SendStage::Connected, ..]);
        for &stage in stages_of(step) {
            for reused in [false, true] {
                for fault in FAULTS {
                    let event = Event::Transport(step, fault);
                    let verdict = judged(&event, stage, reused, false, AmbiguityBoundary::LastByte);
                    let told = verdict.classification;
                    let expected = match fault {
                        _ if stage == SendStage::DataCompleted => UnknownAfterData,
                        _ if !is_opening => RetryableBeforeSend,
                        Fault::Certificate => PermanentFailure,
                        Fault::LocalShortage => RetryableBeforeSend,
                        _ => HostUnavailable,
                    };
                    assert_eq!(told.kind, expected, "{fault:?} in {step:?}");
                    assert!(told.discard_connection, "{fault:?} in {step:?}");
                    assert_eq!(verdict.connection, Abort, "{fault:?} in {step:?}");
                    let blame = match fault {
                        _ if !is_opening => Blame::Nobody,
                        Fault::LocalShortage => Blame::Local,
                        _ => Blame::Host,
                    };
                    assert_eq!(verdict.blame, blame, "{fault:?} in {step:?}");
                    let is_stale =
                        reused && !is_opening && stage < SendStage::DataCompleted && fault != Fault::TimedOut;
                    assert_eq!(verdict.fresh_try == FreshTry::Stale, is_stale, "{fault:?} in {step:?}");
                }
                for desync in DESYNCS {
                    let event = Event::OutOfStep(step, desync);
                    let verdict = judged(&event, stage, reused, false, AmbiguityBoundary::LastByte);
                    let told = verdict.classification;
                    let expected = match desync {
                        _ if stage == SendStage::DataCompleted => UnknownAfterData,
                        // F026; elsewhere CC before a session stands is HU (F007).
                        Desync::EndlessChallenges if step == Step::Auth => ConnectionCorrupted,
                        _ if is_opening => HostUnavailable,
                        _ => ConnectionCorrupted,
                    };
                    assert_eq!(told.kind, expected, "{desync:?} in {step:?}");
                    assert_eq!(verdict.connection, Abort, "{desync:?} in {step:?}");
                    if expected == ConnectionCorrupted && !is_opening {
                        // y1: at most on a connection of its own.
                        assert!(
                            told.retry_allowed && verdict.fresh_try == FreshTry::FreshOnly,
                            "{desync:?} in {step:?}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_supplier_without_credentials_pauses_its_host_and_is_safe_to_retry() {
    for supply in [Supply::Failed, Supply::Panicked, Supply::Hanging, Supply::Unusable] {
        for stage in [SendStage::BeforeConnect, SendStage::Connected] {
            let event = Event::NoCredentials(supply);
            let verdict = judged(&event, stage, false, false, AmbiguityBoundary::LastByte);
            let Classification { kind, retry_allowed, .. } = verdict.classification;
            assert_eq!((kind, retry_allowed, verdict.blame), (HostUnavailable, true, Blame::Host), "{supply:?}");
        }
    }
}

#[test]
fn a_message_refused_for_rotated_credentials_has_not_been_sent() {
    let verdict = judged(&Event::Rotated, SendStage::Authenticated, true, true, AmbiguityBoundary::LastByte);
    let Classification { kind, retry_allowed, discard_connection, .. } = verdict.classification;
    assert_eq!((kind, retry_allowed, discard_connection), (RetryableBeforeSend, true, true));
    assert_eq!((verdict.blame, verdict.fresh_try), (Blame::Nobody, FreshTry::No));
}

#[test]
fn a_connection_that_owes_replies_is_never_kept() {
    for step in STEPS {
        for code in (400..600).chain([221]) {
            for &stage in stages_of(step) {
                let event = Event::Reply(step, code);
                let verdict = classify(&Incident {
                    event: &event,
                    stage,
                    reused: false,
                    in_step: false,
                    reauthenticated: false,
                    boundary: AmbiguityBoundary::LastByte,
                });
                assert!(verdict.classification.discard_connection, "{code} to {step:?}");
            }
        }
    }
}
