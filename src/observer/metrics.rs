//! Metrics for whatever recorder the program has, by the `metrics` facade. The guide's page `logging_and_metrics` says which question
//! each of them answers.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use metrics::{Key, Label, Level, Metadata, SharedString, Unit, with_recorder};

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
/// Register it with [`SmtpSenderBuilder::observer`](crate::SmtpSenderBuilder::observer), after the recorder has been installed: what
/// happens before that is lost, and a gauge that has lost a step is wrong from then on. Several senders may have one each, or share
/// one; their values add up, and what a sender that has ended had in gauges is taken out again.
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
#[derive(Debug)]
pub struct MetricsObserver {
    /// A handful, and never less: a list is as good as any map.
    hosts: RwLock<Vec<(Endpoint, Arc<HostKeys>)>>,
}

impl MetricsObserver {
    /// Describes the metrics to the recorder.
    #[must_use]
    pub fn new() -> Self {
        describe();
        add(&Key::from_static_name(EXHAUSTED), 0);
        move_by(&Key::from_static_name(WAITERS), 0);
        Self { hosts: RwLock::default() }
    }

    fn host(&self, host: &Endpoint) -> Arc<HostKeys> {
        let find = |hosts: &[(Endpoint, Arc<HostKeys>)]| {
            hosts.iter().find(|(endpoint, _)| endpoint == host).map(|(_, keys)| Arc::clone(keys))
        };
        let known = find(&self.hosts.read().unwrap_or_else(PoisonError::into_inner));
        known.unwrap_or_else(|| {
            let keys = Arc::new(HostKeys::new(host));
            let mut hosts = self.hosts.write().unwrap_or_else(PoisonError::into_inner);
            // Somebody may have been faster.
            find(&hosts).unwrap_or_else(|| {
                hosts.push((host.clone(), Arc::clone(&keys)));
                keys
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

/// What is recorded with each message, or may be; made once, because that takes as long as recording does.
#[derive(Debug)]
struct HostKeys {
    label: SharedString,
    active: Key,
    idle: Key,
    created: Key,
    create_failures: Key,
    lease_duration: Key,
    keepalive_failures: Key,
    suppressed: Key,
    cooldown_active: Key,
    available: Key,
    accepted_duration: Key,
    success: Key,
    ambiguous: Key,
}

impl HostKeys {
    fn new(host: &Endpoint) -> Self {
        let label: SharedString = Arc::<str>::from(host.to_string()).into();
        let key = |name| labelled(name, &label, []);
        let keys = Self {
            active: key(ACTIVE),
            idle: key(IDLE),
            created: key(CREATED),
            create_failures: key(CREATE_FAILURES),
            lease_duration: key(LEASE_DURATION),
            keepalive_failures: key(KEEPALIVE_FAILURES),
            suppressed: key(SUPPRESSED),
            cooldown_active: key(COOLDOWN_ACTIVE),
            available: key(AVAILABLE),
            accepted_duration: labelled(DURATION, &label, [("kind", ACCEPTED)]),
            success: key(SUCCESS),
            ambiguous: key(AMBIGUOUS),
            label,
        };
        // There from the start: whoever watches for an increase does not see the first one of a series that begins with it.
        let Self { created, create_failures, keepalive_failures, suppressed, success, ambiguous, .. } = &keys;
        for counter in [created, create_failures, keepalive_failures, suppressed, success, ambiguous] {
            add(counter, 0);
        }
        for reason in DiscardReason::ALL {
            add(&labelled(DROPPED, &keys.label, [("reason", reason.as_str())]), 0);
        }
        for gauge in [&keys.active, &keys.idle, &keys.cooldown_active, &keys.available] {
            move_by(gauge, 0);
        }
        keys
    }
}

fn labelled<const N: usize>(name: &'static str, host: &SharedString, more: [(&'static str, &'static str); N]) -> Key {
    let mut labels = Vec::with_capacity(N + 1);
    labels.push(Label::new("host", host.clone()));
    labels.extend(more.map(|(key, value)| Label::from_static_parts(key, value)));
    Key::from_parts(name, labels)
}

fn add(counter: &Key, count: u64) {
    with_recorder(|recorder| recorder.register_counter(counter, &METADATA)).increment(count);
}

/// Moves a gauge and never sets it: senders add up, and threads may come in any order.
#[expect(clippy::cast_precision_loss, reason = "nobody has 2^53 connections")]
fn move_by(gauge: &Key, change: i64) {
    with_recorder(|recorder| recorder.register_gauge(gauge, &METADATA)).increment(change as f64);
}

fn record(histogram: &Key, duration: Duration) {
    with_recorder(|recorder| recorder.register_histogram(histogram, &METADATA)).record(duration.as_secs_f64());
}

impl Observer for MetricsObserver {
    fn connection_opened(&self, event: &ConnectionOpened<'_>) {
        add(&self.host(event.host).created, 1);
    }

    fn connection_failed(&self, event: &ConnectionFailed<'_>) {
        add(&self.host(event.host).create_failures, 1);
    }

    fn connection_discarded(&self, event: &ConnectionDiscarded<'_>) {
        add(&labelled(DROPPED, &self.host(event.host).label, [("reason", event.reason.as_str())]), 1);
    }

    fn keepalive_failed(&self, event: &KeepaliveFailed<'_>) {
        add(&self.host(event.host).keepalive_failures, 1);
    }

    fn reconnect_suppressed(&self, event: &ReconnectSuppressed<'_>) {
        add(&self.host(event.host).suppressed, 1);
    }

    fn levels_changed(&self, event: &LevelsChanged<'_>) {
        let keys = self.host(event.host);
        let HostKeys { active, idle, cooldown_active, available, .. } = &*keys;
        let changes = [
            (active, event.leased),
            (idle, event.idle),
            (cooldown_active, event.cooling_down),
            (available, event.available),
        ];
        for (gauge, change) in changes.into_iter().filter(|&(_, change)| change != 0) {
            move_by(gauge, change);
        }
    }

    fn waiters_changed(&self, event: &WaitersChanged) {
        move_by(&Key::from_static_name(WAITERS), event.waiting);
    }

    fn acquire_finished(&self, event: &AcquireFinished<'_>) {
        if matches!(event.outcome, AcquireOutcome::Acquired | AcquireOutcome::Exhausted) {
            record(&Key::from_static_name(WAIT_TIME), event.waited);
        }
        if event.outcome == AcquireOutcome::Exhausted {
            add(&Key::from_static_name(EXHAUSTED), 1);
        }
    }

    fn lease_ended(&self, event: &LeaseEnded<'_>) {
        record(&self.host(event.host).lease_duration, event.duration);
    }

    fn attempt_failed(&self, event: &AttemptFailed<'_>) {
        let labels = [("kind", event.classification.kind.as_str()), ("stage", event.classification.stage.as_str())];
        add(&labelled(CLASSIFICATION, &self.host(event.host).label, labels), 1);
    }

    fn send_retried(&self, event: &SendRetried<'_>) {
        add(&labelled(RETRY, &self.host(event.host).label, [("kind", event.classification.kind.as_str())]), 1);
    }

    fn outcome_unknown(&self, event: &OutcomeUnknown<'_>) {
        add(&self.host(event.host).ambiguous, 1);
    }

    fn send_finished(&self, event: &SendFinished<'_>) {
        let classification = match (event.outcome, event.host) {
            (Ok(()), Some(host)) => {
                let keys = self.host(host);
                add(&keys.success, 1);
                record(&keys.accepted_duration, event.elapsed);
                return;
            }
            // Nobody but a host accepts a message.
            (Ok(()), None) => return,
            (Err(classification), _) => classification,
        };
        let host = self.label(event.host);
        let kind = ("kind", classification.kind.as_str());
        record(&labelled(DURATION, &host, [kind]), event.elapsed);
        add(&labelled(FAILED, &host, [kind, ("stage", classification.stage.as_str())]), 1);
        if classification.kind != FailureKind::UnknownAfterData {
            add(&labelled(NOT_ACCEPTED, &host, [kind]), 1);
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
