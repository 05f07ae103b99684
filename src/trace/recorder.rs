//! A trace in the making.

use std::time::{Duration, Instant};

use crate::endpoint::HostId;
use crate::error::SendError;

use super::{Entry, Hosts, TlsVersion, Trace, TraceEvent};

/// Writes down what happens in one call.
#[derive(Debug)]
pub(crate) struct Recorder {
    started: Instant,
    trace: Trace,
}

impl Recorder {
    /// For a call that began at `started`.
    pub(crate) fn new(started: Instant) -> Self {
        Self { started, trace: Trace::default() }
    }

    /// Something was over at `at`, and had taken so long.
    pub(crate) fn step(&mut self, at: Instant, took: Option<Duration>, host: Option<HostId>, event: TraceEvent) {
        let at = at.saturating_duration_since(self.started);
        self.trace.push(Entry::new(at, took, host, event));
    }

    /// The connection that the last step came to speaks TLS of this version.
    pub(crate) fn secured(&mut self, version: Option<TlsVersion>) {
        if let Some(Entry { event: TraceEvent::Connected { tls, .. }, .. }) = self.trace.last_mut() {
            *tls = version;
        }
    }

    /// The call failed.
    pub(crate) fn gave_up(&mut self, at: Instant, error: &SendError) {
        let (kind, stage) = (error.kind(), error.stage());
        self.step(at, None, None, TraceEvent::GaveUp { kind, stage });
    }

    /// The trace of a call that had these hosts.
    pub(crate) fn finish(self, hosts: Hosts) -> Trace {
        Trace { hosts, ..self.trace }
    }
}
