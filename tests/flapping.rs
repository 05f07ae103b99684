//! Two real servers that crash and come back, in turns: nothing that was acknowledged is lost, nothing arrives twice, and every
//! failure says the truth.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

mod common;
#[path = "common/postfix.rs"]
#[allow(dead_code, unreachable_pub, reason = "only its ports and its way to kill are used here")]
mod postfix;
#[path = "common/sink.rs"]
mod sink;

use std::collections::{BTreeMap, HashMap};
use std::thread;
use std::time::Duration;

use common::*;
use sink::Sink;
use smtp_pool::{FailureKind, SmtpSender};

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
