//! Metrics for whatever recorder the program has, by the `metrics` facade. The guide's page `logging_and_metrics` says which question
//! each of them answers.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, SharedString, Unit, with_recorder};

use crate::endpoint::Endpoint;
use crate::error::FailureKind;
use crate::stats::DiscardReason;

use super::{
    AcquireFinished, AcquireOutcome, AttemptFailed, ConnectionDiscarded, ConnectionFailed, ConnectionOpened,
    KeepaliveFailed, LeaseEnded, LevelsChanged, Observer, OutcomeUnknown, ReconnectSuppressed, SendFinished,
    SendRetried, WaitersChanged,
};

const ACTIVE: &str = "smtp_pool.connections.active";
const IDLE: &str = "smtp_pool.connections.idle";
const CREATED: &str = "smtp_pool.connections.created";
const DROPPED: &str = "smtp_pool.connections.dropped";
const CREATE_FAILURES: &str = "smtp_pool.connections.create_failures";
const WAITERS: &str = "smtp_pool.waiters";
const WAIT_TIME: &str = "smtp_pool.acquire.wait_time";
const EXHAUSTED: &str = "smtp_pool.acquire.exhausted";
const LEASE_DURATION: &str = "smtp_pool.lease.duration";
const KEEPALIVE_FAILURES: &str = "smtp_pool.keepalive.failures";
const SUPPRESSED: &str = "smtp_pool.reconnect.suppressed";
const COOLDOWN_ACTIVE: &str = "smtp_pool.host.cooldown_active";
const AVAILABLE: &str = "smtp_pool.host.available";
const DURATION: &str = "smtp_pool.send.duration";
const SUCCESS: &str = "smtp_pool.send.success";
const FAILED: &str = "smtp_pool.send.failed";
const RETRY: &str = "smtp_pool.send.retry";
const AMBIGUOUS: &str = "smtp_pool.send.ambiguous";
const NOT_ACCEPTED: &str = "smtp_pool.send.definitely_not_accepted";
const CLASSIFICATION: &str = "smtp_pool.send.classification";

const METADATA: Metadata<'static> = Metadata::new("smtp_pool", Level::INFO, Some("smtp_pool"));

/// The value of `kind` for a message that was accepted, where failures have their own.
const ACCEPTED: &str = "accepted";
/// The value of `host` where no host was tried.
const NO_HOST: SharedString = SharedString::const_str("none");

/// Counts and measures for the recorder that the program has installed (feature `metrics`), by the names and labels of
/// [`_guide::logging_and_metrics`](crate::_guide::logging_and_metrics).
///
/// Make it, and build the sender, after the recorder has been installed: most metrics are looked up once, and go nowhere if there was
/// nobody to take them. Several senders may have one each, or share one; their values add up, and what a sender that has ended had in
/// gauges is taken out again.
///
/// ```
/// use smtp_pool::{Host, MetricsObserver, SmtpSender};
///
/// // First of all: metrics_exporter_prometheus::PrometheusBuilder::new().install()?, or another one.
/// let sender = SmtpSender::builder()
///     .host(Host::starttls("smtp.example.com"))
///     .observer(MetricsObserver::new())
///     .build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct MetricsObserver {
    waiters: Gauge,
    wait_time: Histogram,
    exhausted: Counter,
    /// A handful, and never less: a list is as good as any map.
    hosts: RwLock<Vec<(Endpoint, Arc<HostMetrics>)>>,
}

impl MetricsObserver {
    /// Describes the metrics to the recorder, and begins with what is of no one host.
    #[must_use]
    pub fn new() -> Self {
        describe();
        let exhausted = counter(&Key::from_static_name(EXHAUSTED));
        exhausted.increment(0);
        let waiters = gauge(&Key::from_static_name(WAITERS));
        waiters.increment(0.0);
        Self { waiters, wait_time: histogram(&Key::from_static_name(WAIT_TIME)), exhausted, hosts: RwLock::default() }
    }

    fn host(&self, host: &Endpoint) -> Arc<HostMetrics> {
        let find = |hosts: &[(Endpoint, Arc<HostMetrics>)]| {
            hosts.iter().find(|(endpoint, _)| endpoint == host).map(|(_, metrics)| Arc::clone(metrics))
        };
        let known = find(&self.hosts.read().unwrap_or_else(PoisonError::into_inner));
        known.unwrap_or_else(|| {
            let metrics = Arc::new(HostMetrics::new(host));
            let mut hosts = self.hosts.write().unwrap_or_else(PoisonError::into_inner);
            // Somebody may have been faster.
            find(&hosts).unwrap_or_else(|| {
                hosts.push((host.clone(), Arc::clone(&metrics)));
                metrics
            })
        })
    }

    fn label(&self, host: Option<&Endpoint>) -> SharedString {
        host.map_or(NO_HOST, |host| self.host(host).label.clone())
    }
}

impl Default for MetricsObserver {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MetricsObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsObserver").finish_non_exhaustive()
    }
}

/// What is recorded with each message, or may be: looked up once, because that takes longer than to record.
struct HostMetrics {
    label: SharedString,
    active: Gauge,
    idle: Gauge,
    created: Counter,
    create_failures: Counter,
    lease_duration: Histogram,
    keepalive_failures: Counter,
    suppressed: Counter,
    cooldown_active: Gauge,
    available: Gauge,
    accepted_duration: Histogram,
    success: Counter,
    ambiguous: Counter,
}

impl HostMetrics {
    fn new(host: &Endpoint) -> Self {
        let label: SharedString = Arc::<str>::from(host.to_string()).into();
        let key = |name| labelled(name, &label, []);
        let metrics = Self {
            active: gauge(&key(ACTIVE)),
            idle: gauge(&key(IDLE)),
            created: counter(&key(CREATED)),
            create_failures: counter(&key(CREATE_FAILURES)),
            lease_duration: histogram(&key(LEASE_DURATION)),
            keepalive_failures: counter(&key(KEEPALIVE_FAILURES)),
            suppressed: counter(&key(SUPPRESSED)),
            cooldown_active: gauge(&key(COOLDOWN_ACTIVE)),
            available: gauge(&key(AVAILABLE)),
            accepted_duration: histogram(&labelled(DURATION, &label, [("kind", ACCEPTED)])),
            success: counter(&key(SUCCESS)),
            ambiguous: counter(&key(AMBIGUOUS)),
            label,
        };
        // There from the start: whoever watches for an increase does not see the first one of a series that begins with it.
        let Self { created, create_failures, keepalive_failures, suppressed, success, ambiguous, .. } = &metrics;
        for counter in [created, create_failures, keepalive_failures, suppressed, success, ambiguous] {
            counter.increment(0);
        }
        for reason in DiscardReason::ALL {
            counter(&labelled(DROPPED, &metrics.label, [("reason", reason.as_str())])).increment(0);
        }
        for gauge in [&metrics.active, &metrics.idle, &metrics.cooldown_active, &metrics.available] {
            gauge.increment(0.0);
        }
        metrics
    }
}

fn labelled<const N: usize>(name: &'static str, host: &SharedString, more: [(&'static str, &'static str); N]) -> Key {
    let mut labels = Vec::with_capacity(N + 1);
    labels.push(Label::new("host", host.clone()));
    labels.extend(more.map(|(key, value)| Label::from_static_parts(key, value)));
    Key::from_parts(name, labels)
}

fn counter(key: &Key) -> Counter {
    with_recorder(|recorder| recorder.register_counter(key, &METADATA))
}

fn gauge(key: &Key) -> Gauge {
    with_recorder(|recorder| recorder.register_gauge(key, &METADATA))
}

fn histogram(key: &Key) -> Histogram {
    with_recorder(|recorder| recorder.register_histogram(key, &METADATA))
}

/// Moves a gauge and never sets it: senders add up, and threads may come in any order.
#[expect(clippy::cast_precision_loss, reason = "nobody has 2^53 connections")]
fn move_by(gauge: &Gauge, change: i64) {
    if change != 0 {
        gauge.increment(change as f64);
    }
}

impl Observer for MetricsObserver {
    fn connection_opened(&self, event: &ConnectionOpened<'_>) {
        self.host(event.host).created.increment(1);
    }

    fn connection_failed(&self, event: &ConnectionFailed<'_>) {
        self.host(event.host).create_failures.increment(1);
    }

    fn connection_discarded(&self, event: &ConnectionDiscarded<'_>) {
        let reason = ("reason", event.reason.as_str());
        counter(&labelled(DROPPED, &self.host(event.host).label, [reason])).increment(1);
    }

    fn keepalive_failed(&self, event: &KeepaliveFailed<'_>) {
        self.host(event.host).keepalive_failures.increment(1);
    }

    fn reconnect_suppressed(&self, event: &ReconnectSuppressed<'_>) {
        self.host(event.host).suppressed.increment(1);
    }

    fn levels_changed(&self, event: &LevelsChanged<'_>) {
        let host = self.host(event.host);
        move_by(&host.active, event.leased);
        move_by(&host.idle, event.idle);
        move_by(&host.cooldown_active, event.cooling_down);
        move_by(&host.available, event.available);
    }

    fn waiters_changed(&self, event: &WaitersChanged) {
        move_by(&self.waiters, event.waiting);
    }

    fn acquire_finished(&self, event: &AcquireFinished<'_>) {
        if matches!(event.outcome, AcquireOutcome::Acquired | AcquireOutcome::Exhausted) {
            self.wait_time.record(event.waited);
        }
        if event.outcome == AcquireOutcome::Exhausted {
            self.exhausted.increment(1);
        }
    }

    fn lease_ended(&self, event: &LeaseEnded<'_>) {
        self.host(event.host).lease_duration.record(event.duration);
    }

    fn attempt_failed(&self, event: &AttemptFailed<'_>) {
        let labels = [("kind", event.classification.kind.as_str()), ("stage", event.classification.stage.as_str())];
        counter(&labelled(CLASSIFICATION, &self.host(event.host).label, labels)).increment(1);
    }

    fn send_retried(&self, event: &SendRetried<'_>) {
        let kind = ("kind", event.classification.kind.as_str());
        counter(&labelled(RETRY, &self.host(event.host).label, [kind])).increment(1);
    }

    fn outcome_unknown(&self, event: &OutcomeUnknown<'_>) {
        self.host(event.host).ambiguous.increment(1);
    }

    fn send_finished(&self, event: &SendFinished<'_>) {
        let classification = match (event.outcome, event.host) {
            (Ok(()), Some(host)) => {
                let host = self.host(host);
                host.success.increment(1);
                host.accepted_duration.record(event.elapsed);
                return;
            }
            // Nobody but a host accepts a message.
            (Ok(()), None) => return,
            (Err(classification), _) => classification,
        };
        let host = self.label(event.host);
        let kind = ("kind", classification.kind.as_str());
        histogram(&labelled(DURATION, &host, [kind])).record(event.elapsed);
        counter(&labelled(FAILED, &host, [kind, ("stage", classification.stage.as_str())])).increment(1);
        if classification.kind != FailureKind::UnknownAfterData {
            counter(&labelled(NOT_ACCEPTED, &host, [kind])).increment(1);
        }
    }
}

fn describe() {
    let gauges = [
        (ACTIVE, "Connections lent to callers, or asked for a sign of life"),
        (IDLE, "Connections ready and lent to nobody"),
        (WAITERS, "Callers waiting for a connection"),
        (COOLDOWN_ACTIVE, "Senders that open no connection to the host, because that failed lately"),
        (AVAILABLE, "Senders that may open connections to the host"),
    ];
    let counters = [
        (CREATED, "Connections opened"),
        (DROPPED, "Connections closed, by reason"),
        (CREATE_FAILURES, "Attempts to open a connection that failed"),
        (EXHAUSTED, "Calls that waited for a connection until their deadline"),
        (KEEPALIVE_FAILURES, "Idle connections that gave no sign of life when asked"),
        (SUPPRESSED, "Calls that passed a host by because of its cooldown"),
        (SUCCESS, "Messages accepted"),
        (FAILED, "Sends that failed, by kind and stage"),
        (RETRY, "Attempts that followed a failed one, by its kind"),
        (AMBIGUOUS, "Messages that may have been delivered"),
        (NOT_ACCEPTED, "Sends that failed and whose message no server has accepted"),
        (CLASSIFICATION, "Failures of a message on a connection, by kind and stage"),
    ];
    let histograms = [
        (WAIT_TIME, "How long callers waited for a connection, opening one included"),
        (LEASE_DURATION, "How long connections were lent"),
        (DURATION, "How long sends took, waiting included"),
    ];
    with_recorder(|recorder| {
        for (name, about) in gauges {
            recorder.describe_gauge(name.into(), Some(Unit::Count), about.into());
        }
        for (name, about) in counters {
            recorder.describe_counter(name.into(), Some(Unit::Count), about.into());
        }
        for (name, about) in histograms {
            recorder.describe_histogram(name.into(), Some(Unit::Seconds), about.into());
        }
    });
}
