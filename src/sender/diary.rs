//! The pool's word and the dialogue's, put into one trace.

use std::time::Instant;

use crate::pool::{Diary, Happened, Wait};
use crate::report::Judged;
use crate::trace::{Recorder, TraceCause, TraceEvent, WaitOutcome};

impl Diary<Judged> for Recorder {
    fn note(&mut self, at: Instant, happened: Happened<'_, Judged>) {
        let (took, host, event) = match happened {
            Happened::Waited(took, wait) => (Some(took), None, TraceEvent::Waited { outcome: outcome_of(wait) }),
            Happened::PassedOver(host, remaining) => (None, Some(host), TraceEvent::CoolingDown { remaining }),
            Happened::Probing(host) => (None, Some(host), TraceEvent::Probing),
            Happened::Lent { host, id, idle, messages } => {
                (None, Some(host), TraceEvent::Reused { connection: id, idle, messages })
            }
            Happened::Opened { host, id, took } => {
                (Some(took), Some(host), TraceEvent::Connected { connection: id, tls: None })
            }
            Happened::OpenFailed { host, took, error } => {
                let cause = TraceCause::of(error.failure.event, error.failure.reply.as_ref(), None);
                (Some(took), Some(host), TraceEvent::ConnectFailed { cause })
            }
            Happened::Replaced { host, id, reason } => {
                (None, Some(host), TraceEvent::Replaced { connection: id, reason })
            }
        };
        self.step(at, took, host, event);
    }
}

const fn outcome_of(wait: Wait) -> WaitOutcome {
    match wait {
        Wait::Connection => WaitOutcome::Connection,
        Wait::Permit => WaitOutcome::Permission,
        Wait::TimedOut => WaitOutcome::TimedOut,
        Wait::Unavailable => WaitOutcome::Unavailable,
        Wait::Cancelled => WaitOutcome::Cancelled,
        Wait::ShutDown => WaitOutcome::Shutdown,
    }
}
