//! What a send costs in memory: nothing that grows with the message, and little that is allocated anew for each.
//!
//! Allocations are counted in the sending thread alone, so the embedded server's own do not matter.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test says what it is about in its name, and may panic")]

use allocation_counter::measure;
use lettre::address::Envelope;
use smtp_pool::testing::{Security, Stage, TestServer};
use smtp_pool::{BatchOptions, Host, Observer, SmtpSender};

fn envelope() -> Envelope {
    Envelope::new(Some("from@example.com".parse().unwrap()), vec!["to@example.com".parse().unwrap()]).unwrap()
}

fn message(size: usize) -> Vec<u8> {
    let mut message = b"From: from@example.com\r\nTo: to@example.com\r\nSubject: heap\r\n\r\n".to_vec();
    // Dots at line starts and bare line feeds: nothing that could be passed through as it is.
    message.extend(b".A line that begins with a dot and ends with a line feed.\n".iter().cycle().take(size));
    message
}

/// A server that keeps nothing, so that it keeps up, and a sender over it.
fn pair(security: Security, single_round_trip: bool) -> (TestServer, SmtpSender) {
    let server = TestServer::builder().security(security).size(None).record(false).keep_messages(false);
    let server = server.chunking(true).start();
    let host = match security {
        Security::Plain => Host::plain("127.0.0.1"),
        _ => Host::starttls("127.0.0.1").root_certificate(server.root_certificate_pem()),
    };
    let sender = SmtpSender::builder()
        .host(host.port(server.port()).single_round_trip(single_round_trip))
        .max_size(1usize)
        .build()
        .unwrap();
    (server, sender)
}

#[test]
fn a_large_message_is_not_copied() {
    const LIMIT: u64 = 256 * 1024;
    let envelope = envelope();
    let content = message(25_000_000);
    for security in [Security::Plain, Security::StartTls] {
        let (_server, sender) = pair(security, false);
        for use_of_connection in ["first", "second"] {
            let heap = measure(|| {
                sender.send_raw(&envelope, &content).unwrap();
            });
            eprintln!(
                "{security:?}, {use_of_connection} use: at most {} bytes, {} allocations",
                heap.bytes_max, heap.count_total
            );
            assert!(heap.bytes_max < LIMIT, "{security:?}, {use_of_connection} use: {heap:?}");
        }
    }
}

struct Idle;

impl Observer for Idle {}

#[test]
fn an_observer_costs_a_send_two_small_allocations() {
    const SENDS: u64 = 100;
    let envelope = envelope();
    let content = message(700);
    let allocations = |observed: bool| {
        let server =
            TestServer::builder().security(Security::Plain).size(None).record(false).keep_messages(false).start();
        let builder = SmtpSender::builder().host(Host::plain("127.0.0.1").port(server.port())).max_size(1);
        let sender = if observed { builder.observer(Idle) } else { builder }.build().unwrap();
        let send = || drop(sender.send_raw(&envelope, &content).unwrap());
        (0..20).for_each(|_| send());
        measure(|| (0..SENDS).for_each(|_| send())).count_total
    };
    let (without, with) = (allocations(false), allocations(true));
    eprintln!("{without} allocations for {SENDS} sends, {with} with an observer");
    // One when the connection is lent, one when it comes back.
    assert!(with <= without + 2 * SENDS);
}

#[test]
fn a_send_in_the_steady_state_allocates_little() {
    const LIMIT: u64 = 10;
    const SENDS: u64 = 100;
    let envelope = envelope();
    let content = message(700);
    for (security, at_once) in [Security::Plain, Security::StartTls].map(|way| [(way, false), (way, true)]).concat() {
        let (server, sender) = pair(security, at_once);
        let send = || drop(sender.send_raw(&envelope, &content).unwrap());
        // Buffers find their size.
        (0..20).for_each(|_| send());
        let heap = measure(|| (0..SENDS).for_each(|_| send()));
        eprintln!(
            "{security:?}, at once {at_once}: {} allocations for {SENDS} sends, {} bytes",
            heap.count_total, heap.bytes_total
        );
        assert_eq!(server.snapshot().reached(Stage::Bdat) > 0, at_once);
        assert!(heap.count_total <= LIMIT * SENDS, "{security:?}: {heap:?}");
        // A lock makes room for those who wait, once, when somebody first does.
        assert!(heap.count_current < 10, "{security:?}: something is kept for each send: {heap:?}");
    }
}

/// All in the sending thread, which is the calling one here.
#[test]
fn a_batch_holds_one_formatted_message_at_a_time_and_an_outcome_for_each() {
    const MESSAGES: usize = 500;
    const SIZE: usize = 20_000;
    /// Of an outcome: the server's replies, the recipient, and the place in the list.
    const OUTCOME: u64 = 1024;
    let (_server, sender) = pair(Security::Plain, false);
    let message = lettre::Message::builder()
        .from("from@example.com".parse().unwrap())
        .to("to@example.com".parse().unwrap())
        .body("x".repeat(70) + "\r\n")
        .unwrap();
    let large = lettre::Message::builder()
        .from("from@example.com".parse().unwrap())
        .to("to@example.com".parse().unwrap())
        .body("0123456789 and so on\r\n".repeat(SIZE / 22))
        .unwrap();
    let options = BatchOptions::new().parallelism(1);
    let mut most = [0; 2];
    for (message, most) in [&message, &large].into_iter().zip(&mut most) {
        let heap = measure(|| {
            let outcomes = sender.send_all(std::iter::repeat_n(message, MESSAGES), &options);
            assert!(outcomes.iter().all(Result::is_ok));
        });
        eprintln!("{MESSAGES} messages of {} bytes: {heap:?}", message.formatted().len());
        *most = heap.bytes_max;
    }
    assert!(most[0] < 256 * 1024 + MESSAGES as u64 * OUTCOME, "{most:?}");
    // Formatting makes the message twice while it goes on.
    assert!(most[1] < most[0] + 4 * SIZE as u64, "the size of a message counts once, not for each: {most:?}");
}
