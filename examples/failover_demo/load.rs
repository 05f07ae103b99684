//! Threads that send, and give up no mail that is safe to send again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::Scope;
use std::time::Duration;

use lettre::Message;

use crate::stage::Stage;
use crate::time;

const THREADS: usize = 5;
/// Between two mails of a thread, at its busiest and at its laziest.
const BUSY: Duration = Duration::from_millis(6);
const LAZY: Duration = Duration::from_millis(24);
/// From one rush to the next; not the period of the plot, so that each outage looks different.
const TIDE: Duration = Duration::from_secs(9);

pub struct Load<'a> {
    stage: &'a Stage,
    is_over: AtomicBool,
    next: AtomicU64,
    given_up: Mutex<Vec<(u64, String)>>,
}

/// Lets the threads end when it is dropped.
pub struct Running<'a>(&'a AtomicBool);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<'a> Load<'a> {
    pub const fn new(stage: &'a Stage) -> Self {
        Self { stage, is_over: AtomicBool::new(false), next: AtomicU64::new(0), given_up: Mutex::new(Vec::new()) }
    }

    pub fn start<'s>(&'s self, scope: &'s Scope<'s, '_>) -> Running<'s> {
        let running = Running(&self.is_over);
        for _ in 0..THREADS {
            scope.spawn(|| {
                while !self.is_over.load(Ordering::Relaxed) {
                    self.send(self.next.fetch_add(1, Ordering::Relaxed));
                    time::pause(pace(self.stage.at()));
                }
            });
        }
        running
    }

    /// How many mails there were.
    pub fn mails(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Those that are not known to have arrived.
    pub fn given_up(&self) -> MutexGuard<'_, Vec<(u64, String)>> {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, number: u64) {
        let message = message(number);
        // A mail that no server has accepted is tried again, for as long as an outage of this play can last.
        for tries_left in (0..20).rev() {
            match self.stage.sender.send(&message) {
                Ok(_) => return,
                Err(error) if error.is_retry_safe() && tries_left > 0 => {
                    time::pause(error.retry_after().unwrap_or(LAZY).min(Duration::from_secs(1)));
                }
                Err(error) => {
                    return self.given_up().push((number, error.to_string()));
                }
            }
        }
    }
}

/// Goes up and down, so that there is a shape to see.
fn pace(at: Duration) -> Duration {
    let phase = (at.as_secs_f64() / TIDE.as_secs_f64()).fract();
    BUSY + (LAZY - BUSY).mul_f64((2.0 * phase - 1.0).abs())
}

/// The Message-ID that the servers count by.
pub fn id(number: u64) -> String {
    format!("<{number}.failover@example.com>")
}

fn message(number: u64) -> Message {
    Message::builder()
        .message_id(Some(id(number)))
        .from("shop@example.com".parse().expect("it is an address"))
        .to("customer@example.com".parse().expect("it is an address"))
        .subject(format!("Order {number}"))
        .body("On its way.".to_owned())
        .expect("it has all that a message needs")
}
