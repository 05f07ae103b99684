//! Threads that send, and what they were told.

use std::collections::BTreeMap;
use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use lettre::Message;
use smtp_pool::testing::TestServer;
use smtp_pool::{FailureKind, Receipt, SendError, SmtpSender};

/// Longer than any of this takes.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) sent: u64,
    failed: BTreeMap<&'static str, u64>,
}

impl Tally {
    fn count(&mut self, result: &Result<Receipt, SendError>) {
        match result {
            Ok(_) => self.sent += 1,
            Err(error) => *self.failed.entry(error.kind().as_str()).or_default() += 1,
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.sent += other.sent;
        for (kind, count) in other.failed {
            *self.failed.entry(kind).or_default() += count;
        }
    }

    pub(crate) fn failed(&self, kind: FailureKind) -> u64 {
        self.failed.get(kind.as_str()).copied().unwrap_or(0)
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failed.values().sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sent", self.sent)?;
        self.failed.iter().try_for_each(|(kind, count)| write!(f, ", {count} {kind}"))
    }
}

pub(crate) struct Load {
    pub(crate) threads: usize,
    /// Of each thread.
    pub(crate) mails: usize,
}

impl Load {
    pub(crate) fn run(&self, sender: &SmtpSender) -> Tally {
        let mut all = Tally::default();
        thread::scope(|scope| {
            let one = || {
                let mut tally = Tally::default();
                (0..self.mails).for_each(|_| tally.count(&sender.send(&mail())));
                tally
            };
            let threads: Vec<_> = (0..self.threads).map(|_| scope.spawn(one)).collect();
            for thread in threads {
                all.add(thread.join().unwrap_or_default());
            }
        });
        all
    }
}

/// Has every connection held at MAIL by the server's barrier `held`, and somebody wait for one in vain.
pub(crate) fn fill_up(sender: &SmtpSender, server: &TestServer, connections: usize) -> Tally {
    let mut all = Tally::default();
    thread::scope(|scope| {
        let holders: Vec<_> = (0..connections).map(|_| scope.spawn(|| sender.send(&mail()))).collect();
        // If they were not all held, the next one is sent, and the tally shows it.
        let _are_held = server.wait_for(|seen| seen.barrier_reached("held") == connections, PATIENCE);
        all.count(&sender.send(&mail()));
        server.release("held");
        for holder in holders {
            if let Ok(result) = holder.join() {
                all.count(&result);
            }
        }
    });
    all
}

/// Tries until it is so.
#[expect(clippy::disallowed_methods, reason = "a program of its own")]
pub(crate) fn eventually(mut is_so: impl FnMut() -> bool) -> Result<(), &'static str> {
    let start = Instant::now();
    while !is_so() {
        if start.elapsed() > PATIENCE {
            return Err("the relays are back, and mail is not");
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn mail() -> Message {
    let address = "user@example.com";
    let built = Message::builder()
        .from(address.parse().expect("an address"))
        .to(address.parse().expect("an address"))
        .subject("A mail of the load")
        .body(String::from("Hello.\n"));
    built.expect("a message")
}
