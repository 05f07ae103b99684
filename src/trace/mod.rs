//! The timeline of one call.
//!
//! Always on, so it costs next to nothing: what it tells is timed by readings of the clock that are taken anyway, and the few steps of
//! a call that goes well are stored in place.

mod event;
mod recorder;
mod step;
mod table;

use std::fmt;
use std::sync::Arc;

use crate::endpoint::Endpoint;

pub use self::event::{TlsVersion, TraceCause, TraceEvent, WaitOutcome};
pub(crate) use self::recorder::Recorder;
use self::step::Entry;
pub use self::step::TraceStep;

/// Steps stored in place: a wait, a connection and the server's last word.
const IN_PLACE: usize = 3;

/// The most steps kept. Of a longer story the beginning and the end are told.
const MOST: usize = 48;

/// How many of them are the beginning.
const BEGINNING: usize = MOST / 2;

/// What happened in one call, step by step: from [`Receipt::trace`](crate::Receipt::trace) and
/// [`SendError::trace`](crate::SendError::trace).
///
/// `Display` shows a line for each step: when it was over, counted from the start of the call, how long it took, the host, and what
/// happened. A program reads the same from [`steps`](Self::steps).
///
/// A trace holds no credential, no mail address, no content and nothing of a server's text but its codes; recipients are numbers. So it
/// can be logged, at whatever level.
///
/// ```
/// use smtp_pool::{Host, SmtpSender, TraceEvent};
/// # use smtp_pool::testing::TestServer;
/// # let server = TestServer::start();
/// # let sender = SmtpSender::builder().host(Host::plain("127.0.0.1").port(server.port())).build()?;
/// # let message = lettre::Message::builder()
/// #     .from("a@example.com".parse()?).to("b@example.com".parse()?).body(String::from("Hello."))?;
///
/// let receipt = sender.send(&message)?;
/// println!("{}", receipt.trace());
/// //    1.2 ms  1.2 ms  127.0.0.1:2525  connected without TLS as connection #1
/// //    1.9 ms  0.7 ms  127.0.0.1:2525  accepted: 250 2.0.0
///
/// for step in receipt.trace().steps() {
///     // Fields for a structured log.
///     let fields = (step.event().as_str(), step.at(), step.took(), step.endpoint());
///     # let _ = fields;
/// }
/// let last = receipt.trace().steps().last().map(|step| step.event());
/// assert!(matches!(last, Some(TraceEvent::Accepted { code: 250, .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct Trace {
    first: [Option<Entry>; IN_PLACE],
    rest: Vec<Entry>,
    left_out: u32,
    hosts: Hosts,
}

/// Whose numbers the steps have.
#[derive(Clone, Default)]
pub(crate) enum Hosts {
    #[default]
    Unknown,
    One(Endpoint),
    All(Arc<[Endpoint]>),
}

impl Hosts {
    fn as_slice(&self) -> &[Endpoint] {
        match self {
            Self::Unknown => &[],
            Self::One(endpoint) => std::slice::from_ref(endpoint),
            Self::All(endpoints) => endpoints,
        }
    }
}

impl Trace {
    /// The steps, in the order in which they were over.
    pub fn steps(&self) -> impl Iterator<Item = TraceStep<'_>> {
        let first = self.first.iter().flatten();
        first.chain(&self.rest).map(|entry| TraceStep::new(entry, self.hosts.as_slice()))
    }

    /// How many steps were left out, because a trace keeps 48 at most: the first half of them and the last.
    #[must_use]
    pub const fn left_out(&self) -> usize {
        self.left_out as usize
    }

    /// The hosts that the call could have used.
    pub(crate) fn hosts(&self) -> &[Endpoint] {
        self.hosts.as_slice()
    }

    fn push(&mut self, entry: Entry) {
        match self.first.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(entry),
            None => {
                if self.rest.len() == MOST - IN_PLACE {
                    self.rest.remove(BEGINNING - IN_PLACE);
                    self.left_out = self.left_out.saturating_add(1);
                }
                self.rest.push(entry);
            }
        }
    }

    fn last_mut(&mut self) -> Option<&mut Entry> {
        match self.rest.last_mut() {
            Some(entry) => Some(entry),
            None => self.first.iter_mut().rev().flatten().next(),
        }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        table::write(self, f)
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<_> = self.steps().collect();
        f.debug_struct("Trace").field("steps", &steps).field("left_out", &self.left_out).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::now;

    const SECOND: Duration = Duration::from_secs(1);

    /// A call with so many pauses, one a second.
    fn paused(times: u32) -> Trace {
        let started = now();
        let mut recorder = Recorder::new(started);
        for attempt in 1..=times {
            recorder.step(started + SECOND * attempt, Some(SECOND), None, TraceEvent::BackedOff { attempt });
        }
        recorder.finish(Hosts::Unknown)
    }

    fn attempts(trace: &Trace) -> Vec<u32> {
        let number = |step: TraceStep<'_>| match step.event() {
            TraceEvent::BackedOff { attempt } => attempt,
            event => panic!("{event:?}"),
        };
        trace.steps().map(number).collect()
    }

    #[test]
    fn a_storm_of_retries_grows_no_memory_and_keeps_its_beginning_and_its_end() {
        for times in [0, 1, 3, 4, 47, 48] {
            let trace = paused(times);
            assert_eq!(attempts(&trace), (1..=times).collect::<Vec<_>>());
            assert_eq!(trace.left_out(), 0);
        }
        let trace = paused(100_000);
        assert_eq!(attempts(&trace), (1..=24).chain(99_977..=100_000).collect::<Vec<_>>());
        assert_eq!(trace.left_out(), 100_000 - 48);
        assert!(trace.rest.capacity() <= 64, "{}", trace.rest.capacity());
        let text = trace.to_string();
        assert_eq!(text.lines().count(), 49);
        assert!(text.lines().nth(24).unwrap().contains("99952 steps left out"), "{text}");
    }

    #[test]
    fn a_call_that_goes_well_stores_its_steps_in_place() {
        let trace = paused(3);
        assert_eq!(trace.rest.capacity(), 0);
    }

    #[test]
    fn a_trace_is_small_enough_to_be_a_part_of_every_receipt() {
        assert!(size_of::<Trace>() <= 288, "{}", size_of::<Trace>());
    }
}
