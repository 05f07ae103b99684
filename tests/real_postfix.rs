//! The promises against a real Postfix: what arrives, what is refused, and what a crash leaves behind.
//!
//! Every test starts its own private Postfix on loopback, so these run only when asked for:
//!
//! ```text
//! tests/servers/get-pkgs.sh                         # once, as root, on Debian or Ubuntu
//! cargo test --test real_postfix -- --ignored      # as root
//! ```
#![cfg(target_os = "linux")]
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a test says what it is about in its name, and may panic"
)]

mod common;
#[path = "real_postfix/extensions.rs"]
mod extensions;
#[path = "common/header_gate.rs"]
mod header_gate;
#[path = "real_postfix/host_faults.rs"]
mod host_faults;
#[path = "common/postfix.rs"]
#[allow(dead_code, reason = "each test file uses its own part")]
mod postfix;
#[path = "real_postfix/rotation.rs"]
mod rotation;
#[path = "real_postfix/smuggling.rs"]
mod smuggling;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use lettre::address::Envelope;
use smtp_pool::{DiscardReason, FailureKind, Host, SendError, SendStage, SmtpSender, SmtpSenderBuilder};

use common::Flag;
use header_gate::HeaderGate;
use postfix::{Frozen, Postfix, USER, kill, wait_until};

/// One connection and no second attempts: every outcome is that of one transaction.
fn single(host: Host) -> SmtpSenderBuilder {
    SmtpSender::builder().host(host).max_size(1usize).max_retries(0u32)
}

fn to(recipients: &[&str]) -> Envelope {
    let recipients = recipients.iter().map(|address| address.parse().unwrap()).collect();
    Envelope::new(Some("sender@example.com".parse().unwrap()), recipients).unwrap()
}

fn inbox() -> Envelope {
    to(&[USER])
}

/// A message whose header begins with its Message-ID, by which it is found again.
fn message(id: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let header = format!(
        "Message-ID: <{id}>\r\nDate: Mon, 02 Jan 2006 15:04:05 +0000\r\nFrom: sender@example.com\r\nTo: {USER}\r\nSubject: {id}\r\n\r\n"
    );
    [header.as_bytes(), body.as_ref()].concat()
}

/// What a mailbox file holds of `content`: line ends are LF there, and the last line has one.
fn as_stored(content: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(content.len() + 1);
    let mut bytes = content.iter().peekable();
    while let Some(&byte) = bytes.next() {
        if byte == b'\r' {
            bytes.next_if_eq(&&b'\n');
        }
        stored.push(if byte == b'\r' { b'\n' } else { byte });
    }
    if stored.last() != Some(&b'\n') {
        stored.push(b'\n');
    }
    stored
}

/// Asserts that each of `copies` copies of the message is byte for byte what was sent, and that Postfix put nothing but its own trace
/// in front.
#[track_caller]
fn assert_arrived(postfix: &Postfix, id: &str, content: &[u8], copies: usize) {
    let delivered = postfix.delivered(id);
    assert_eq!(delivered.len(), copies, "copies of {id}");
    let expected = as_stored(content);
    for (trace, stored) in &delivered {
        if *stored != expected {
            let place = stored.iter().zip(&expected).take_while(|(one, other)| one == other).count();
            let around = |bytes: &[u8]| {
                let end = bytes.len().min(place + 40);
                String::from_utf8_lossy(&bytes[place.saturating_sub(40).min(end)..end]).into_owned()
            };
            panic!(
                "{id}: {} bytes arrived, {} were expected; from byte {place} they differ: {:?} is not {:?}",
                stored.len(),
                expected.len(),
                around(stored),
                around(&expected)
            );
        }
        for line in trace.lines().filter(|line| !line.starts_with([' ', '\t'])) {
            let name = line.split(':').next().unwrap();
            assert!(["Return-Path", "X-Original-To", "Delivered-To", "Received"].contains(&name), "{id}: {line}");
        }
    }
}

#[track_caller]
fn assert_code(error: &SendError, kind: FailureKind, stage: SendStage, code: u16) {
    assert_eq!((error.kind(), error.stage()), (kind, stage), "{error}");
    assert_eq!(error.response().map(smtp_pool::Reply::code), Some(code), "{error}");
}

/// The Message-ID of a call's message, and how it failed if it did.
type Outcome = (String, Option<FailureKind>);

/// How often each Message-ID was delivered.
fn copies(postfix: &Postfix) -> HashMap<String, usize> {
    let mut copies = HashMap::new();
    for file in postfix.mailbox() {
        let text = String::from_utf8_lossy(&file);
        let id = text.lines().find_map(|line| line.strip_prefix("Message-ID: <")?.strip_suffix('>')).unwrap();
        *copies.entry(id.to_owned()).or_default() += 1;
    }
    copies
}

/// Where Postfix's log and its mailbox disagree: a Message-ID, how often the log has it in the queue, and how often it was delivered.
fn disagreements(postfix: &Postfix) -> Vec<(String, usize, usize)> {
    let (copies, queued) = (copies(postfix), postfix.queued());
    let ids: BTreeSet<_> = queued.keys().chain(copies.keys()).collect();
    let count = |counts: &HashMap<String, usize>, id| counts.get(id).copied().unwrap_or(0);
    let both = ids.into_iter().map(|id| (id.clone(), count(&queued, id), count(&copies, id)));
    both.filter(|(_, queued, copies)| queued != copies).collect()
}

/// Asserts that what the calls said agrees with what Postfix has: `Ok`: once; unknown: at most once; any other error: not at all.
/// Returns how often which outcome went with how many copies.
#[track_caller]
fn assert_told_the_truth(postfix: &Postfix, outcomes: &[Outcome]) -> BTreeMap<(&'static str, usize), usize> {
    let copies = copies(postfix);
    let mut tally = BTreeMap::<(&'static str, usize), usize>::new();
    for (id, kind) in outcomes {
        let copies = copies.get(id).copied().unwrap_or(0);
        let allowed = match kind {
            None => 1..=1,
            Some(FailureKind::UnknownAfterData) => 0..=1,
            Some(_) => 0..=0,
        };
        assert!(allowed.contains(&copies), "{id}: {kind:?}, and {copies} copies arrived");
        *tally.entry((kind.map_or("ok", FailureKind::as_str), copies)).or_default() += 1;
    }
    tally
}

/// Sends from `threads` threads for as long as `meanwhile` takes. It is given the number of messages sent so far, for its pace.
///
/// If `meanwhile` panics, they end too.
fn under_load(sender: &SmtpSender, threads: usize, meanwhile: impl FnOnce(&AtomicUsize)) -> Vec<Outcome> {
    let calls = AtomicUsize::new(0);
    thread::scope(|scope| {
        let over = Flag::default();
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                let (calls, is_over) = (&calls, over.reader());
                scope.spawn(move || {
                    let mut outcomes = Vec::new();
                    while !is_over() {
                        let id = format!("{worker}-{}", outcomes.len());
                        // Small ones spend their time after the last byte, large ones before it.
                        let body = "Hello, hello.\r\n".repeat(if outcomes.len() % 4 == 3 { 40_000 } else { 20 });
                        let outcome = sender.send_raw(&inbox(), &message(&id, body));
                        outcomes.push((id, outcome.err().map(|error| error.kind())));
                        calls.fetch_add(1, Ordering::Relaxed);
                    }
                    outcomes
                })
            })
            .collect();
        meanwhile(&calls);
        drop(over);
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    })
}

fn wait_for_calls(calls: &AtomicUsize, more: usize) {
    let enough = calls.load(Ordering::Relaxed) + more;
    wait_until("some messages are sent", || calls.load(Ordering::Relaxed) >= enough);
}

#[test]
#[ignore = "needs a private Postfix; .ci/run and README say how"]
fn what_arrives_is_what_was_sent() {
    let postfix = Postfix::start();
    let sender = single(postfix.host()).build().unwrap();
    let long_line = "x".repeat(998);
    let all_but_line_ends: Vec<u8> = (1..=255).filter(|byte| !b"\r\n".contains(byte)).collect();
    // A line that begins with a dot lies across every place where a chunk of the content may end.
    let dots = (0..20_000).fold(String::new(), |text, number| text + &".".repeat(number % 7) + "\r\n");
    let bodies: [(&str, &[u8]); 17] = [
        ("text", b"Hello,\r\nthis is a text.\r\n"),
        ("empty", b""),
        ("no-end-of-line", b"the last line has no end"),
        ("blank-lines", b"\r\n\r\n\r\nx\r\n\r\n\r\n"),
        ("dot", b"."),
        ("dot-line", b".\r\n"),
        ("dot-lines", b".\r\n..\r\n...\r\nQUIT\r\n.\r\n"),
        ("dots-at-line-starts", b".a\r\n..b\r\n.c.\r\nd.\r\n"),
        ("dot-after-text", b"text\r\n.\r\nmore text\r\n.\r\n"),
        ("dots", dots.as_bytes()),
        ("longest-lines", &[long_line.as_bytes(), b"\r\n", long_line.as_bytes(), b"\r\n"].concat()),
        ("line-feeds", b"one\ntwo\n\n.three\n.\nfour"),
        ("carriage-returns", b"one\rtwo\r\r.three\r.\rfour\r"),
        ("mixed-line-ends", b"a\r\r\nb\n\r\nc\n\rd\r\n\n"),
        ("utf-8", "Grüße, 你好, \u{1f4e7}\r\n.\u{301}\r\n".as_bytes()),
        ("latin-1", b"Gr\xfc\xdfe\r\n\xff\xfe\x80\r\n"),
        ("every-byte", &all_but_line_ends),
    ];
    for (id, body) in bodies {
        let receipt = sender.send_raw(&inbox(), &message(id, body)).unwrap_or_else(|error| panic!("{id}: {error}"));
        assert_eq!(receipt.attempts(), 1, "{id}");
    }
    for (id, body) in bodies {
        assert_arrived(&postfix, id, &message(id, body), 1);
    }
    assert_eq!(sender.status().created, 1);
    assert_eq!(postfix.logged("sasl_method=PLAIN, sasl_username=user@example.com"), bodies.len());
}

#[test]
#[ignore = "needs a private Postfix; .ci/run and README say how"]
fn a_formatted_message_arrives_as_lettre_formatted_it() {
    let postfix = Postfix::start();
    let sender = single(postfix.host()).build().unwrap();
    let message = lettre::Message::builder()
        .message_id(Some("<formatted>".to_owned()))
        .from("sender@example.com".parse().unwrap())
        .to(USER.parse().unwrap())
        .subject("Grüße")
        .body("Grüße.\n.\n".to_owned())
        .unwrap();
    // It has to begin with the line by which it is found.
    let formatted = message.formatted();
    assert!(formatted.starts_with(b"Message-ID: <formatted>\r\n"), "{}", String::from_utf8_lossy(&formatted));
    let receipt = sender.send(&message).unwrap();
    assert_eq!(receipt.endpoint().to_string(), format!("localhost:{}", postfix.smtp_port()));
    assert_eq!(receipt.response().code(), 250);
    let text = receipt.response().to_string();
    let queue_id = text.rsplit(' ').next().unwrap();
    assert!(postfix.logged(&format!("{queue_id}: message-id=<formatted>")) == 1, "{text}");
    assert_arrived(&postfix, "formatted", &formatted, 1);
}

#[test]
#[ignore = "needs a private Postfix; .ci/run and README say how"]
fn ten_megabytes_arrive_over_starttls_and_over_implicit_tls() {
    let postfix = Postfix::start();
    let line = b"..All work and no play makes Jack a dull boy, said the dull boy, and went on to play.\r\n";
    let body = line.repeat(10_000_000 / line.len());
    for (id, host) in [("starttls", postfix.host()), ("implicit-tls", postfix.tls_host())] {
        let content = message(id, &body);
        single(host).build().unwrap().send_raw(&inbox(), &content).unwrap();
        assert_arrived(&postfix, id, &content, 1);
    }
}

#[test]
#[ignore = "needs a private Postfix; .ci/run and README say how"]
fn an_address_beyond_ascii_arrives() {
    let postfix = Postfix::start();
    let sender = single(postfix.host()).build().unwrap();
    let content = message("smtputf8", "Grüße\r\n");
    let receipt = sender.send_raw(&to(&["grüße@example.com"]), &content).unwrap();
    assert_eq!(receipt.recipients().len(), 1);
    assert_arrived(&postfix, "smtputf8", &content, 1);
    assert!(postfix.delivered("smtputf8")[0].0.contains("Delivered-To: grüße@example.com\n"));
}

#[test]
#[ignore = "needs a private Postfix; .ci/run and README say how"]
fn each_of_150_recipients_gets_the_message_once() {
    let postfix = Postfix::start();
    let sender = single(postfix.host()).build().unwrap();
    let addresses: BTreeSet<String> = (0..150).map(|number| format!("reader-{number}@example.com")).collect();
    let recipients: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let content = message("many", "Hello, all of you.\r\n");
    let receipt = sender.send_raw(&to(&recipients), &content).unwrap();
    assert_eq!(receipt.recipients().len(), 150);
    assert_arrived(&postfix, "many", &content, 150);
    let readers: BTreeSet<String> = postfix
        .delivered("many")
        .iter()
        .filter_map(|(trace, _)| trace.lines().find_map(|line| line.strip_prefix("Delivered-To: ")).map(str::to_owned))
        .collect();
    assert_eq!(readers, addresses);
}

#[test]
#[ignore = "needs a private Postfix; .ci/run and README say how"]
fn a_server_with_another_certificate_gets_neither_password_nor_mail() {
    let postfix = Postfix::start();
    let hosts = [
        Host::starttls("localhost").root_certificate(postfix.ca("other-ca")),
        Host::starttls("localhost"),
        // The certificate names localhost alone.
        Host::starttls("127.0.0.1").root_certificate(postfix.ca("ca")),
    ];
    for host in hosts {
        let host = host.port(postfix.smtp_port()).credentials(USER, "secret");
        let error = single(host).build().unwrap().send_raw(&inbox(), &message("never", "")).unwrap_err();
        assert_eq!((error.kind(), error.stage()), (FailureKind::PermanentFailure, SendStage::Connected), "{error}");
        assert!(std::error::Error::source(&error).is_some(), "{error}");
    }
    assert!(postfix.mailbox().is_empty());
    assert_eq!(postfix.logged("sasl_"), 0);
}

#[test]
#[ignore = "needs a private Postfix; .ci/run and README say how"]
fn a_wrong_password_is_tried_once() {
    let postfix = Postfix::start();
    let sender = SmtpSender::builder().host(postfix.host().credentials(USER, "canary")).build().unwrap();
    let error = sender.send_raw(&inbox(), &message("never", "")).unwrap_err();
    assert_code(&error, FailureKind::PermanentFailure, SendStage::Connected, 535);
    assert!(!error.is_retry_safe());
    assert!(!format!("{error} {error:?}").contains("canary"));
    // Trying again and again locks accounts.
    for _ in 0..5 {
        let error = sender.send_raw(&inbox(), &message("never", "")).unwrap_err();
        assert_eq!(error.kind(), FailureKind::HostUnavailable, "{error}");
        assert!(error.retry_after().unwrap() > Duration::from_secs(200), "{error}");
    }
    assert_eq!(postfix.logged("authentication failed"), 1);
}

#[test]
#[ignore = "needs a private Postfix; .ci/run and README say how"]
fn a_refused_recipient_costs_no_connection() {
    let postfix = Postfix::start();
    let sender = single(postfix.host()).build().unwrap();
    let refused = || {
        let error = sender.send_raw(&to(&["reject@example.com"]), &message("never", "")).unwrap_err();
        assert_code(&error, FailureKind::PermanentFailure, SendStage::EnvelopeStarted, 550);
        assert_eq!(error.recipients().len(), 1);
    };
    for number in 0..10 {
        refused();
        let id = format!("between-{number}");
        sender.send_raw(&inbox(), &message(&id, "")).unwrap();
        assert_eq!(postfix.delivered(&id).len(), 1);
    }
    // With one good recipient among them nobody gets it.
    let error = sender.send_raw(&to(&[USER, "reject@example.com"]), &message("never", "")).unwrap_err();
    assert_code(&error, FailureKind::PermanentFailure, SendStage::EnvelopeStarted, 550);
    sender.send_raw(&inbox(), &message("last", "")).unwrap();
    assert_eq!(sender.status().created, 1, "{:?}", sender.status());
    assert_eq!(sender.status().discarded.total(), 0, "{:?}", sender.status());
    assert!(postfix.delivered("never").is_empty());
}

#[test]
#[ignore = "needs a private Postfix; .ci/run and README say how"]
fn ten_refusals_in_a_row_cost_no_connection_and_twenty_do_not_provoke_the_server() {
    let postfix = Postfix::start();
    let sender = single(postfix.host()).build().unwrap();
    for number in 1..=20 {
        let error = sender.send_raw(&to(&["reject@example.com"]), &message("never", "")).unwrap_err();
        assert_code(&error, FailureKind::PermanentFailure, SendStage::EnvelopeStarted, 550);
        if number == 10 {
            assert_eq!(sender.status().created, 1, "{:?}", sender.status());
        }
    }
    sender.send_raw(&inbox(), &message("in-the-end", "")).unwrap();
    // Postfix hangs up on a client with twenty errors and no message between them: a session is retired before that.
    assert_eq!(postfix.logged("too many errors"), 0);
    assert_eq!(sender.status().discarded.total(), sender.status().discarded.of(DiscardReason::MaxMessages));
    assert_eq!(postfix.delivered("in-the-end").len(), 1);
}

#[test]
#[ignore = "needs a private Postfix; .ci/run and README say how"]
fn fifty_messages_in_one_write_each_arrive_once_over_one_connection() {
    let postfix = Postfix::start();
    let sender = single(postfix.host().single_round_trip(true)).build().unwrap();
    let bodies: [&[u8]; 8] = [
        b"",
        b"no end of line",
        b".\r\n..\r\n.a\r\nQUIT\r\n.\r\n",
        b"one\n.\ntwo\r.\rthree\r\r\n.\r\n",
        b"\r\n\r\n\r\n",
        "Gr\u{fc}\u{df}e\r\n".as_bytes(),
        b"BDAT 4 LAST\r\nRSET\r\n",
        &[b'.'; 998],
    ];
    let sent = |number: usize| (format!("at-once-{number}"), bodies[number % bodies.len()]);
    for number in 0..50 {
        let (id, body) = sent(number);
        let receipt = sender.send_raw(&inbox(), &message(&id, body)).unwrap_or_else(|error| panic!("{id}: {error}"));
        assert_eq!((receipt.attempts(), receipt.connection_id()), (1, 1), "{id}");
    }
    // Refused after its last byte has left, and decisively so. The next message pays the RSET and asks for DATA.
    let error = sender.send_raw(&to(&["reject@example.com"]), &message("never", "")).unwrap_err();
    assert_code(&error, FailureKind::PermanentFailure, SendStage::DataCompleted, 550);
    for number in 50..52 {
        let (id, body) = sent(number);
        sender.send_raw(&inbox(), &message(&id, body)).unwrap();
    }
    assert_eq!((sender.status().created, sender.status().discarded.total()), (1, 0));
    drop(sender);
    // Postfix's own count of what was said: accepted/all, for commands of which some were refused.
    let said = "mail=53 rcpt=52/53 data=1 bdat=51/52 rset=1 quit=1";
    wait_until("Postfix logs the end of the connection", || postfix.logged(" quit=1 ") > 0);
    assert_eq!(postfix.logged(said), 1, "not {said:?} but:\n{}", postfix.log());
    for number in 0..52 {
        let (id, body) = sent(number);
        assert_arrived(&postfix, &id, &message(&id, body), 1);
    }
    assert!(postfix.delivered("never").is_empty());
    assert_eq!(postfix.mailbox().len(), 52);
}

#[test]
#[ignore = "needs a private Postfix; .ci/run and README say how"]
fn a_temporary_refusal_may_be_tried_again() {
    let postfix = Postfix::start();
    let sender = single(postfix.host()).build().unwrap();
    for _ in 0..2 {
        let error = sender.send_raw(&to(&["tempfail@example.com"]), &message("never", "")).unwrap_err();
        assert_code(&error, FailureKind::RetryableTemporaryFailure, SendStage::EnvelopeStarted, 450);
        assert!(error.is_retry_safe());
    }
    sender.send_raw(&inbox(), &message("after", "")).unwrap();
    assert_eq!(sender.status().created, 1);
    assert!(postfix.delivered("never").is_empty());
}

#[test]
#[ignore = "needs a private Postfix; .ci/run and README say how"]
fn a_message_too_large_is_refused_before_it_is_sent() {
    let postfix = Postfix::start_with("message_size_limit = 20000");
    let sender = single(postfix.host()).build().unwrap();
    let error = sender.send_raw(&inbox(), &message("never", "x\r\n".repeat(10_000))).unwrap_err();
    assert_eq!((error.kind(), error.stage()), (FailureKind::PermanentFailure, SendStage::Authenticated), "{error}");
    assert!(error.response().is_none(), "nothing was asked of the server: {error}");
    sender.send_raw(&inbox(), &message("after", "")).unwrap();
    assert_eq!(sender.status().created, 1);
    assert_eq!(postfix.mailbox().len(), 1);
}

#[test]
#[ignore = "needs a private Postfix; .ci/run and README say how"]
fn a_message_too_large_for_a_server_that_says_no_size_is_refused_at_its_end() {
    let postfix = Postfix::start_with("message_size_limit = 20000;smtpd_discard_ehlo_keywords = size");
    let sender = single(postfix.host()).build().unwrap();
    let error = sender.send_raw(&inbox(), &message("never", "x\r\n".repeat(10_000))).unwrap_err();
    // A refusal of the whole message is decisive, however late.
    assert_code(&error, FailureKind::PermanentFailure, SendStage::DataCompleted, 552);
    sender.send_raw(&inbox(), &message("after", "")).unwrap();
    assert_eq!(sender.status().created, 1);
    assert!(postfix.delivered("never").is_empty());
    assert_eq!(postfix.delivered("after").len(), 1);
}

#[test]
#[ignore = "needs a private Postfix; .ci/run and README say how"]
fn a_server_that_closes_with_421_is_left_alone() {
    let postfix = Postfix::start();
    let sender = single(postfix.host()).build().unwrap();
    let error = sender.send_raw(&to(&["bye@example.com"]), &message("never", "")).unwrap_err();
    assert_code(&error, FailureKind::RetryableTemporaryFailure, SendStage::EnvelopeStarted, 421);
    sender.send_raw(&inbox(), &message("between", "")).unwrap();
    // On a connection that had been idle, a 421 may be about the connection: one fresh one is tried, and only one.
    let error = sender.send_raw(&to(&["bye@example.com"]), &message("never", "")).unwrap_err();
    assert_code(&error, FailureKind::RetryableTemporaryFailure, SendStage::EnvelopeStarted, 421);
    assert_eq!(error.attempts(), 1);
    assert_eq!(sender.status().created, 3);
    sender.send_raw(&inbox(), &message("after", "")).unwrap();
    assert!(postfix.delivered("never").is_empty());
    assert_eq!(postfix.mailbox().len(), 2);
}

#[test]
#[ignore = "needs a private Postfix; .ci/run and README say how"]
fn a_connection_that_the_server_ended_while_idle_is_replaced_for_free() {
    let postfix = Postfix::start_with("smtpd_timeout = 1s");
    let sender = single(postfix.host()).build().unwrap();
    for (round, id) in ["first", "second", "third"].into_iter().enumerate() {
        let receipt = sender.send_raw(&inbox(), &message(id, "")).unwrap();
        assert_eq!(receipt.attempts(), 1);
        wait_until("Postfix ends the idle session", || postfix.logged("timeout after END-OF-MESSAGE") == round + 1);
        wait_until("the session is gone", || postfix.serving().is_empty());
    }
    assert_eq!(sender.status().created, 3);
    assert_eq!(sender.status().create_failures, 0);
    assert_eq!(postfix.mailbox().len(), 3);
}

#[test]
#[ignore = "needs a private Postfix; .ci/run and README say how"]
fn a_restart_between_two_messages_goes_unnoticed() {
    let postfix = Postfix::start();
    let sender = SmtpSender::builder().host(postfix.host()).max_size(4usize).max_retries(0u32).build().unwrap();
    let send_all = |round: &str| {
        thread::scope(|scope| {
            for number in 0..4 {
                let id = format!("{round}-{number}");
                let sender = &sender;
                scope.spawn(move || {
                    let receipt = sender.send_raw(&inbox(), &message(&id, "")).unwrap();
                    assert_eq!(receipt.attempts(), 1);
                });
            }
        });
    };
    send_all("before");
    let created = sender.status().created;
    postfix.stop();
    postfix.start_again();
    send_all("after-a-restart");
    assert!(sender.status().created > created);

    // The processes that serve our sessions die between two messages.
    kill(&postfix.serving());
    send_all("after-a-crash-of-the-sessions");

    // The master dies, and its children with it when they notice.
    let master = postfix.master();
    kill(&[master]);
    kill(&postfix.serving());
    postfix.stop();
    postfix.start_again();
    send_all("after-a-crash-of-all");
    assert_eq!(sender.status().create_failures, 0, "{:?}", sender.status());
    assert_eq!(postfix.mailbox().len(), 16);
}

/// What the tests of restarts rely on: a Postfix that has stopped holds no port, even if one of its processes is slow to end.
#[test]
#[ignore = "needs a private Postfix; .ci/run and README say how"]
fn a_stopped_postfix_can_be_started_again_at_once() {
    let postfix = Postfix::start();
    let mut client = TcpStream::connect(("127.0.0.1", postfix.smtp_port())).unwrap();
    client.read_exact(&mut [0; 3]).unwrap();
    let _frozen = Frozen::new(postfix.serving());
    postfix.stop();
    drop(client);
    postfix.start_again();
}

/// Before the last byte nothing can have been accepted: the error says so, and the mail is not there.
#[test]
#[ignore = "needs a private Postfix; .ci/run and README say how"]
fn a_crash_before_the_last_byte_is_safe_to_retry() {
    let gate = HeaderGate::new();
    let postfix = Postfix::start_with(&gate.setting());
    let sender = single(postfix.host()).build().unwrap();
    // More than all buffers on the way can hold.
    let large = "0123456789012345678901234567890123456789012345678901234567890123456789012345\r\n".repeat(230_000);

    gate.shut();
    let error = thread::scope(|scope| {
        let send = scope.spawn(|| sender.send_raw(&inbox(), &message("cut", &large)).unwrap_err());
        gate.wait_until_reached();
        kill(&postfix.serving());
        gate.open();
        send.join().unwrap()
    });
    assert_eq!((error.kind(), error.stage()), (FailureKind::RetryableBeforeSend, SendStage::DataStarted), "{error}");
    assert!(error.is_retry_safe());
    assert_eq!((postfix.delivered("cut").len(), postfix.queued().get("cut")), (0, None));

    // On a connection that had been idle the same is put right at once, and the message arrives once.
    sender.send_raw(&inbox(), &message("between", "")).unwrap();
    gate.shut();
    let receipt = thread::scope(|scope| {
        let send = scope.spawn(|| sender.send_raw(&inbox(), &message("cut-when-reused", &large)));
        gate.wait_until_reached();
        kill(&postfix.serving());
        gate.open();
        send.join().unwrap()
    });
    assert_eq!(receipt.unwrap().attempts(), 1);
    assert_arrived(&postfix, "cut-when-reused", &message("cut-when-reused", &large), 1);
}

/// After the last byte only the server knows: the error says so, the crate does not send again, and the mail is there in one case and
/// not in the other.
#[test]
#[ignore = "needs a private Postfix; .ci/run and README say how"]
fn a_crash_after_the_last_byte_leaves_the_outcome_unknown() {
    let gate = HeaderGate::new();
    let postfix = Postfix::start_with(&gate.setting());
    // Retries are allowed here, and must not happen.
    let sender = SmtpSender::builder().host(postfix.host()).max_retries(2u32).build().unwrap();
    for (id, copies) in [("stored", 1), ("lost", 0), ("stored-when-reused", 1), ("lost-when-reused", 0)] {
        if id.ends_with("reused") {
            sender.send_raw(&inbox(), &message(&format!("before-{id}"), "")).unwrap();
        }
        gate.shut();
        let error = thread::scope(|scope| {
            let send = scope.spawn(|| sender.send_raw(&inbox(), &message(id, "Hello.\r\n")).unwrap_err());
            gate.wait_until_reached();
            kill(&postfix.serving());
            if copies == 0 {
                // With the process that has the whole message and was about to store it.
                kill(&postfix.processes("cleanup"));
            }
            gate.open();
            send.join().unwrap()
        });
        assert_eq!((error.kind(), error.stage()), (FailureKind::UnknownAfterData, SendStage::DataCompleted), "{error}");
        assert!(!error.is_retry_safe());
        assert_eq!(error.attempts(), 1, "{error}");
        assert_eq!(postfix.delivered(id).len(), copies, "{id}");
        assert_eq!(postfix.queued().get(id).copied().unwrap_or(0), copies, "{id}");
    }
    sender.send_raw(&inbox(), &message("after", "")).unwrap();
    assert_eq!(postfix.delivered("after").len(), 1);
}

/// Sessions are killed at random moments under load. Whatever each call said must agree with what Postfix has: `Ok`: once; unknown: at
/// most once; any other error: not at all.
#[test]
#[ignore = "needs a private Postfix; .ci/run and README say how"]
fn what_a_send_says_agrees_with_what_was_queued() {
    const THREADS: usize = 4;
    const KILLS: usize = 40;

    let postfix = Postfix::start();
    let sender = SmtpSender::builder()
        .host(postfix.host())
        .max_size(THREADS)
        .retry_base_delay(Duration::from_millis(1))
        .reconnect_cooldown(Duration::from_millis(1))
        .max_reconnect_cooldown(Duration::from_millis(20))
        .build()
        .unwrap();
    let outcomes = under_load(&sender, THREADS, |calls| {
        for _ in 0..KILLS {
            wait_for_calls(calls, fastrand::usize(1..16));
            let serving = postfix.serving();
            if !serving.is_empty() {
                kill(&[serving[fastrand::usize(..serving.len())]]);
            }
        }
    });

    let tally = assert_told_the_truth(&postfix, &outcomes);
    assert_eq!(disagreements(&postfix), []);
    eprintln!("(outcome, copies): count {tally:?}; {:?}", sender.status());
    assert!(sender.status().created > THREADS as u64, "the kills hit nothing: {:?}", sender.status());
    assert!(sender.status().counts.total <= THREADS);
}

#[test]
#[ignore = "needs a private Postfix; .ci/run and README say how"]
fn a_server_that_takes_two_connections_gets_two() {
    let postfix = Postfix::start_with("smtpd_client_connection_count_limit = 2");
    let sender = SmtpSender::builder().host(postfix.host()).max_size(8usize).build().unwrap();
    thread::scope(|scope| {
        for worker in 0..8 {
            let sender = &sender;
            scope.spawn(move || {
                for number in 0..10 {
                    let id = format!("{worker}-{number}");
                    sender.send_raw(&inbox(), &message(&id, "")).unwrap_or_else(|error| panic!("{id}: {error}"));
                }
            });
        }
    });
    assert_eq!(postfix.mailbox().len(), 80);
    eprintln!("{:?}", sender.status());
    assert!(postfix.logged("Connection concurrency limit exceeded") <= 8);
}

#[test]
#[ignore = "needs a private Postfix; .ci/run and README say how"]
fn credentials_do_not_travel_in_the_clear() {
    let postfix = Postfix::start_with("smtpd_tls_auth_only = no");
    let host = postfix.plain_host().credentials(USER, "secret");
    let error = single(host).build().unwrap().send_raw(&inbox(), &message("never", "")).unwrap_err();
    assert_eq!(error.kind(), FailureKind::PermanentFailure, "{error}");
    // A server from which STARTTLS was taken away, by its owner or by somebody on the way.
    let postfix = Postfix::start_with("smtpd_tls_auth_only = no;smtpd_discard_ehlo_keywords = starttls");
    let error = single(postfix.host()).build().unwrap().send_raw(&inbox(), &message("never", "")).unwrap_err();
    assert_eq!((error.kind(), error.stage()), (FailureKind::PermanentFailure, SendStage::Connected), "{error}");
    assert_eq!(postfix.logged("sasl_"), 0);
    assert!(postfix.mailbox().is_empty());
}

#[test]
#[ignore = "needs a private Postfix; .ci/run and README say how"]
fn the_idle_session_of_a_dropped_sender_ends_with_quit() {
    let postfix = Postfix::start();
    let sender = single(postfix.host()).build().unwrap();
    sender.send_raw(&inbox(), &message("one", "")).unwrap();
    assert_eq!(sender.status().discarded.of(DiscardReason::Broken), 0);
    drop(sender);
    wait_until("the session has ended", || postfix.serving().is_empty());
    assert_eq!(postfix.logged("quit=1"), 1);
    assert_eq!(postfix.logged("lost connection after END-OF-MESSAGE"), 0);
}
