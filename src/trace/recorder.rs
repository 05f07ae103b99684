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
    /// The places in the envelope of the recipients that are being offered. Empty: all of them are.
    offered: Vec<usize>,
}

impl Recorder {
    /// For a call that began at `started`.
    pub(crate) fn new(started: Instant) -> Self {
        Self { started, trace: Trace::default(), offered: Vec::new() }
    }

    /// Something was over at `at`, and had taken so long.
    pub(crate) fn step(&mut self, at: Instant, took: Option<Duration>, host: Option<HostId>, event: TraceEvent) {
        let at = at.saturating_duration_since(self.started);
        self.trace.push(Entry::new(at, took, host, event));
    }

    /// From now on these recipients are offered, by their places in the envelope.
    pub(crate) fn offering(&mut self, places: &[usize]) {
        self.offered = places.to_vec();
    }

    /// Which recipient of the envelope the one at `index` of those being offered is, counted from 1.
    pub(crate) fn recipient(&self, index: usize) -> u32 {
        let place = self.offered.get(index).copied().unwrap_or(index);
        u32::try_from(place).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// The connection that the last step came to speaks TLS of this version.
    pub(crate) fn secured(&mut self, version: Option<TlsVersion>) {
        if let Some(Entry { event: TraceEvent::Connected { tls, .. }, .. }) = self.trace.last_mut() {
            *tls = version;
        }
    }

    /// The error of a call that had these hosts and has failed, with its trace.
    pub(crate) fn gave_up(mut self, at: Instant, error: SendError, hosts: Hosts) -> SendError {
        let (kind, stage) = (error.kind(), error.stage());
        self.step(at, None, None, TraceEvent::GaveUp { kind, stage });
        error.with_trace(self.finish(hosts))
    }

    /// The trace of a call that had these hosts.
    pub(crate) fn finish(self, hosts: Hosts) -> Trace {
        Trace { hosts, ..self.trace }
    }
}
