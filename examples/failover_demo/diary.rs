//! What has happened: told by the pool, and remembered for the picture.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use smtp_pool::Endpoint;
use smtp_pool::observer::{
    ConnectionDiscarded, ConnectionFailed, CooldownEntered, CooldownLeft, Observer, OutcomeUnknown, SendFinished,
    SendRetried,
};

use crate::rates::Rates;
use crate::time;

/// As many entries as the tallest terminal shows.
const ENTRIES: usize = 100;

/// Something worth a line, and how often it happened in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub at: Duration,
    pub host: usize,
    pub text: String,
    pub times: u32,
}

/// What a picture needs.
#[derive(Debug, Clone, Default)]
pub struct Pages {
    /// The newest first.
    pub entries: VecDeque<Entry>,
    pub rates: [Rates; 2],
    pub sent: [u64; 2],
    pub retries: u64,
    pub failed: u64,
    pub unknown: u64,
}

pub struct Diary {
    opened: Instant,
    ports: [u16; 2],
    pages: Mutex<Pages>,
}

impl Diary {
    pub fn new(opened: Instant, ports: [u16; 2]) -> Self {
        Self { opened, ports, pages: Mutex::default() }
    }

    pub fn pages(&self) -> Pages {
        self.write(|_, pages| pages.clone())
    }

    pub fn note(&self, host: usize, text: String) {
        self.write(|at, pages| {
            match pages.entries.front_mut().filter(|last| last.host == host && last.text == text) {
                Some(last) => {
                    last.times += 1;
                    last.at = at;
                }
                None => pages.entries.push_front(Entry { at, host, text, times: 1 }),
            }
            pages.entries.truncate(ENTRIES);
        });
    }

    fn write<T>(&self, write: impl FnOnce(Duration, &mut Pages) -> T) -> T {
        let at = time::now() - self.opened;
        // A panic in here, between two numbers, spoils none of them.
        let mut pages = self.pages.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        write(at, &mut pages)
    }

    fn host(&self, endpoint: &Endpoint) -> usize {
        usize::from(endpoint.port() != self.ports[0])
    }
}

impl Observer for Diary {
    fn connection_failed(&self, event: &ConnectionFailed<'_>) {
        self.note(self.host(event.host), event.error.to_owned());
    }

    fn connection_discarded(&self, event: &ConnectionDiscarded<'_>) {
        self.note(self.host(event.host), format!("connection closed: {}", event.reason));
    }

    fn cooldown_entered(&self, event: &CooldownEntered<'_>) {
        let CooldownEntered { pause, failures, .. } = event;
        let plural = if *failures == 1 { "" } else { "s" };
        self.note(
            self.host(event.host),
            format!("cools down for {:.1} s after {failures} failure{plural}", pause.as_secs_f64()),
        );
    }

    fn cooldown_left(&self, event: &CooldownLeft<'_>) {
        self.note(self.host(event.host), "works again".to_owned());
    }

    fn outcome_unknown(&self, event: &OutcomeUnknown<'_>) {
        self.note(self.host(event.host), format!("a mail is in doubt: {}", event.reason));
    }

    fn send_retried(&self, _: &SendRetried<'_>) {
        self.write(|_, pages| pages.retries += 1);
    }

    fn send_finished(&self, event: &SendFinished<'_>) {
        let host = event.host.map_or(0, |host| self.host(host));
        self.write(|at, pages| match event.outcome {
            Ok(()) => {
                pages.sent[host] += 1;
                pages.rates[host].count(at);
            }
            Err(class) if class.kind == smtp_pool::FailureKind::UnknownAfterData => pages.unknown += 1,
            Err(_) => pages.failed += 1,
        });
    }
}
