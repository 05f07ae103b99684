//! Real servers that crash and come back, two of them in turns, and one in the middle of a batch: nothing that was acknowledged is lost,
//! nothing arrives twice, and every failure says the truth.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

mod common;
#[path = "common/postfix.rs"]
#[allow(dead_code, unreachable_pub, reason = "only its ports and its way to kill are used here")]
mod postfix;
#[path = "common/sink.rs"]
mod sink;

use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::*;
use lettre::Address;
use lettre::address::Envelope;
use sink::Sink;
use smtp_pool::{BatchOptions, FailureKind, HostState, SendOptions, SmtpSender};

const THREADS: usize = 8;
const PHASE: Duration = Duration::from_secs(5);
/// The last line of each message: one that was cut short has none.
const END: &str = "This is the end.";

#[test]
#[ignore = "takes FLAPPING_SECONDS, a minute, and needs smtp-sink; .ci/run runs it for a short time"]
fn no_acknowledged_message_is_lost_none_arrives_twice_and_every_error_is_true() {
    let sinks = [Sink::start(postfix::free_port()), Sink::start(postfix::free_port())];
    let sender = SmtpSender::builder()
        .hosts(sinks.iter().map(Sink::host))
        .reconnect_cooldown(ms(500))
        .max_reconnect_cooldown(Duration::from_secs(2))
        .retry_base_delay(ms(200))
        .build()
        .unwrap();
    let phases = from_environment("FLAPPING_SECONDS").unwrap_or(60).div_ceil(PHASE.as_secs());
    let start = now();
    let (results, gaps): (Vec<_>, Vec<_>) = thread::scope(|scope| {
        let over = Flag::default();
        let callers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (sender, is_over) = (&sender, over.reader());
                scope.spawn(move || {
                    let mut results = Vec::new();
                    let (mut last, mut longest) = (now(), Duration::ZERO);
                    while !is_over() {
                        let id = format!("{thread}.{}@flapping", results.len());
                        let content = [content(&id), format!("{END}\r\n").into_bytes()].concat();
                        results.push((id, sender.send_raw(&envelope(1), &content)));
                        longest = longest.max(now() - last);
                        last = now();
                        pace(ms(10));
                    }
                    (results, longest)
                })
            })
            .collect();
        // One is down while the other is up, with the change within a moment.
        for phase in 0..phases {
            let (down, up) = if phase % 2 == 0 { (&sinks[0], &sinks[1]) } else { (&sinks[1], &sinks[0]) };
            down.kill();
            if phase > 0 {
                up.start_again();
            }
            let due = PHASE * u32::try_from(phase + 1).unwrap();
            pace(due.saturating_sub(now() - start));
        }
        drop(over);
        callers.into_iter().map(|caller| caller.join().unwrap()).unzip()
    });
    let took = now() - start;

    let mut taken: HashMap<String, usize> = HashMap::new();
    for sink in &sinks {
        for (id, count) in sink.taken(END) {
            *taken.entry(id).or_default() += count;
        }
    }
    let mut figures: BTreeMap<String, [usize; 3]> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (id, result) in results.into_iter().flatten() {
        let count = taken.remove(&id).unwrap_or(0);
        let (name, is_true) = match &result {
            Ok(receipt) => (format!("Ok in {} attempt(s)", receipt.attempts()), count == 1),
            Err(error) if error.kind() == FailureKind::UnknownAfterData => (error.kind().to_string(), count <= 1),
            Err(error) => (error.kind().to_string(), count == 0),
        };
        figures.entry(name).or_default()[count.min(2)] += 1;
        if !is_true {
            wrong.push(format!("{id}: {result:?}, taken {count} times"));
        }
    }
    let status = sender.status();
    eprintln!("in {took:?}, by outcome [not taken, taken once, more often]: {figures:#?}");
    eprintln!(
        "longest call {:?}, {} connections opened, {} failed to open, {:?}",
        gaps.iter().max(),
        status.created,
        status.create_failures,
        status.discarded
    );
    assert!(wrong.is_empty(), "{} outcomes are not true: {:#?}", wrong.len(), &wrong[..wrong.len().min(10)]);
    assert!(taken.is_empty(), "messages that nobody sent: {taken:?}");
    let sent: usize = figures.iter().filter(|(name, _)| name.starts_with("Ok")).map(|(_, counts)| counts[1]).sum();
    assert!(sent > 1000, "mail kept flowing: {figures:?}");
    // One of the two was up at nearly all times, and every failure before the last byte may be tried on it.
    let failed: usize = figures
        .iter()
        .filter(|(name, _)| !name.starts_with("Ok") && **name != FailureKind::UnknownAfterData.to_string())
        .map(|(_, counts)| counts.iter().sum::<usize>())
        .sum();
    assert!(failed * 1000 <= sent, "{failed} failures beside {sent} messages: {figures:?}");
    // Each crash costs at most one try for each connection, and a probe for each cooldown.
    let allowed = phases * u64::try_from(THREADS + 5000 / 500).unwrap();
    assert!(status.create_failures <= allowed, "{} tries failed, {allowed} allowed", status.create_failures);
    assert!(is_at_rest(&sender), "{}", status.counts);
}

/// The oracle of the order, too: the sink counts by the number in the message, the receipt names the recipient, and both are those of the
/// outcome's place.
#[test]
#[ignore = "takes seconds and needs smtp-sink; .ci/run runs it"]
fn every_outcome_of_a_batch_is_true_and_in_its_place_when_the_server_is_killed_in_the_middle() {
    const MESSAGES: usize = 5000;
    const CONNECTIONS: usize = 8;
    const KILLS: usize = 4;
    let sink = Sink::start(postfix::free_port());
    let sender = SmtpSender::builder()
        .host(sink.host())
        .max_size(CONNECTIONS)
        .reconnect_cooldown(ms(200))
        .max_reconnect_cooldown(ms(1000))
        .retry_base_delay(ms(100))
        .build()
        .unwrap();
    let recipient = |index: usize| format!("m{index}@example.net").parse::<Address>().unwrap();
    let outbox: Vec<(Envelope, Vec<u8>)> = (0..MESSAGES)
        .map(|index| {
            let content = [content(&format!("{index}@batch")), format!("{END}\r\n").into_bytes()].concat();
            (Envelope::new(Some(FROM.parse().unwrap()), vec![recipient(index)]).unwrap(), content)
        })
        .collect();
    let messages = || outbox.iter().map(|(envelope, content)| (envelope, &content[..]));

    let start = now();
    let (milestone, milestones) = mpsc::channel();
    let outcomes = thread::scope(|scope| {
        let sender = &sender;
        let batch = scope.spawn(move || {
            // So that a test that fails does not wait for a server that nobody starts again.
            let options = BatchOptions::new().send_options(SendOptions::new().deadline(start + 6 * PATIENCE));
            sender.send_all_with(messages(), &options, |progress| {
                // Sending goes on meanwhile, so that messages are under way when the server dies.
                if progress.done() % (MESSAGES / (KILLS + 1)) == 0 && progress.done() < MESSAGES {
                    milestone.send(progress.done()).unwrap();
                }
            })
        });
        for done in milestones {
            sink.kill();
            let known = now();
            while sender.status().hosts[0].state == HostState::Available {
                assert!(known.elapsed() < PATIENCE, "nobody noticed the crash after {done} messages");
                thread::yield_now();
            }
            sink.start_again();
        }
        batch.join().unwrap()
    });
    let took = start.elapsed();

    let mut taken = sink.taken(END);
    let mut figures: BTreeMap<String, [usize; 3]> = BTreeMap::new();
    let mut wrong = Vec::new();
    assert_eq!(outcomes.len(), MESSAGES);
    for (index, outcome) in outcomes.iter().enumerate() {
        let count = taken.remove(&format!("{index}@batch")).unwrap_or(0);
        let (name, is_true) = match outcome {
            Ok(receipt) => {
                let told: Vec<_> = receipt.recipients().iter().map(|one| &one.address).collect();
                ("Ok".to_owned(), count == 1 && told == [&recipient(index)])
            }
            Err(error) if error.kind() == FailureKind::UnknownAfterData => (error.kind().to_string(), count <= 1),
            Err(error) => (error.kind().to_string(), count == 0),
        };
        figures.entry(name).or_default()[count.min(2)] += 1;
        if !is_true {
            wrong.push(format!("{index}: {outcome:?}, taken {count} times"));
        }
    }
    let status = sender.status();
    eprintln!(
        "batch in {took:?}, by outcome [not taken, taken once, more often]: {figures:?}; {} connections opened, {} failed to open",
        status.created, status.create_failures
    );
    assert!(wrong.is_empty(), "{} outcomes are not true: {:#?}", wrong.len(), &wrong[..wrong.len().min(10)]);
    assert!(taken.is_empty(), "messages that nobody sent: {taken:?}");
    // Each crash ends what is under way, on no more connections than there may be, and the rest waits for the server.
    let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    assert!(failed <= KILLS * CONNECTIONS, "{failed} failures: {figures:?}");
    let kills = u64::try_from(KILLS).unwrap();
    assert!(status.create_failures >= kills, "the server was gone {kills} times, in the middle");
    assert!(is_at_rest(&sender), "{}", status.counts);
}
