//! The log: what operators read. The guide's page `logging_and_metrics` says which record has which level, target and keys.

use std::fmt;
use std::time::Duration;

use log::{debug, error, info, warn};

use crate::error::FailureKind;

use super::{
    AcquireFinished, AcquireOutcome, AttemptFailed, CapacityLearned, ConnectionDiscarded, ConnectionFailed,
    ConnectionOpened, CooldownEntered, CooldownLeft, IdleLimitLearned, KeepaliveFailed, MessageLimitLearned, Observer,
    OutcomeUnknown, SendRetried, ThreadLost,
};

const CONNECTION: &str = "smtp_pool::connection";
const HOST: &str = "smtp_pool::host";
const ACQUIRE: &str = "smtp_pool::acquire";
const SEND: &str = "smtp_pool::send";
const POOL: &str = "smtp_pool::pool";

/// Writes to the log. Nothing is formatted before the `log` crate has found the level to be enabled.
#[derive(Debug)]
pub(super) struct Journal;

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Observer for Journal {
    fn connection_opened(&self, event: &ConnectionOpened<'_>) {
        let ConnectionOpened { host, connection_id, took } = event;
        debug!(
            target: CONNECTION,
            event = "connection_opened", host:%, connection_id, took_ms = ms(*took);
            "connection {connection_id} to {host} opened in {took:.1?}"
        );
    }

    fn connection_failed(&self, event: &ConnectionFailed<'_>) {
        let ConnectionFailed { host, connection_id, took, error } = event;
        warn!(
            target: CONNECTION,
            event = "connection_failed", host:%, connection_id, took_ms = ms(*took), error;
            "no connection to {host}: {error}"
        );
    }

    fn connection_discarded(&self, event: &ConnectionDiscarded<'_>) {
        let ConnectionDiscarded { host, connection_id, reason, lived, messages } = event;
        debug!(
            target: CONNECTION,
            event = "connection_discarded", host:%, connection_id, reason = reason.as_str(), messages,
            lived_ms = ms(*lived);
            "connection {connection_id} to {host} discarded after {messages} message(s) in {lived:.1?}: {reason}"
        );
    }

    fn keepalive_failed(&self, event: &KeepaliveFailed<'_>) {
        let KeepaliveFailed { host, connection_id } = event;
        debug!(
            target: CONNECTION,
            event = "keepalive_failed", host:%, connection_id;
            "connection {connection_id} to {host} gave no sign of life"
        );
    }

    fn cooldown_entered(&self, event: &CooldownEntered<'_>) {
        let CooldownEntered { host, pause, failures } = event;
        warn!(
            target: HOST,
            event = "cooldown_entered", host:%, pause_ms = ms(*pause), failures;
            "{host} cools down for {pause:.1?} after {failures} failure(s)"
        );
    }

    fn cooldown_left(&self, event: &CooldownLeft<'_>) {
        let CooldownLeft { host } = event;
        info!(target: HOST, event = "cooldown_left", host:%; "{host} works again");
    }

    fn capacity_learned(&self, event: &CapacityLearned<'_>) {
        let CapacityLearned { host, connections } = event;
        debug!(
            target: HOST,
            event = "capacity_learned", host:%, connections;
            "{host} takes no more than {connections} connection(s)"
        );
    }

    fn message_limit_learned(&self, event: &MessageLimitLearned<'_>) {
        let MessageLimitLearned { host, messages } = event;
        debug!(
            target: HOST,
            event = "message_limit_learned", host:%, messages;
            "{host} takes no more than {messages} message(s) over one connection"
        );
    }

    fn idle_limit_learned(&self, event: &IdleLimitLearned<'_>) {
        let IdleLimitLearned { host, limit } = event;
        debug!(
            target: HOST,
            event = "idle_limit_learned", host:%, limit_ms = ms(*limit);
            "{host} ends idle connections: none is kept for longer than {limit:.1?}"
        );
    }

    fn acquire_finished(&self, event: &AcquireFinished<'_>) {
        let AcquireFinished { outcome, waited, counts, .. } = event;
        if *outcome != AcquireOutcome::Exhausted {
            return;
        }
        let counts = counts.unwrap_or_default();
        warn!(
            target: ACQUIRE,
            event = "acquire_timed_out", waited_ms = ms(*waited), max_size = counts.max_size, total = counts.total,
            idle = counts.idle, leased = counts.leased, connecting = counts.connecting, waiting = counts.waiting;
            "no connection came free within {waited:.1?}; {counts}"
        );
    }

    fn attempt_failed(&self, event: &AttemptFailed<'_>) {
        let AttemptFailed { host, connection_id, classification, step, code, is_replaced } = event;
        let (kind, stage) = (classification.kind, classification.stage);
        // That one has a record of its own.
        if kind == FailureKind::UnknownAfterData {
            return;
        }
        let what = What { step: *step, code: *code };
        debug!(
            target: SEND,
            event = "attempt_failed", host:%, connection_id, kind = kind.as_str(), stage = stage.as_str(),
            reason = classification.reason, step, code, is_replaced;
            "{host}: {what} {stage}: {kind} ({})", classification.reason
        );
    }

    fn send_retried(&self, event: &SendRetried<'_>) {
        let SendRetried { host, attempts, classification, pause } = event;
        debug!(
            target: SEND,
            event = "send_retried", host:%, attempts, kind = classification.kind.as_str(), pause_ms = ms(*pause);
            "attempt {attempts} failed on {host}, another follows after {pause:.1?}"
        );
    }

    fn outcome_unknown(&self, event: &OutcomeUnknown<'_>) {
        let OutcomeUnknown { host, connection_id, reason } = event;
        warn!(
            target: SEND,
            event = "outcome_unknown", host:%, connection_id, reason;
            "{host}: the outcome of a message is unknown: {reason}"
        );
    }

    fn thread_lost(&self, event: &ThreadLost<'_>) {
        let ThreadLost { thread, error } = event;
        error!(target: POOL, event = "thread_lost", thread, error; "the pool is without its {thread} thread: {error}");
    }
}

/// What went wrong with a message, as far as is known.
struct What {
    step: Option<&'static str>,
    code: Option<u16>,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.step) {
            (Some(code), Some(step)) => write!(f, "{code} to {step}"),
            (Some(code), None) => write!(f, "{code} to a message"),
            (None, Some(step)) => write!(f, "failed in {step}"),
            (None, None) => f.write_str("a message failed"),
        }
    }
}

/// Said once of each observer.
pub(super) fn observer_panicked() {
    error!(target: POOL, event = "observer_panicked"; "an observer panicked; this is said once, and it is told everything all the same");
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use log::kv::{Error, Key, Value, VisitSource};
    use log::{LevelFilter, Log, Metadata, Record};

    use super::*;
    use crate::endpoint::Endpoint;

    /// The row of the guide's table that a record would have, all that can be seen of it.
    struct Rows(Mutex<Vec<String>>);

    static ROWS: Rows = Rows(Mutex::new(Vec::new()));

    const SELDOM: [&str; 3] = ["thread_lost", "observer_panicked", "idle_limit_learned"];

    struct Keys(Vec<String>);

    impl<'kvs> VisitSource<'kvs> for Keys {
        fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
            match key.as_str() {
                "event" => self.0.insert(0, value.to_string()),
                key => self.0.push(format!("`{key}`")),
            }
            Ok(())
        }
    }

    impl Log for Rows {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &Record<'_>) {
            let mut keys = Keys(Vec::new());
            let is_read = record.key_values().visit(&mut keys).is_ok() && !keys.0.is_empty();
            if is_read && SELDOM.contains(&&*keys.0[0]) {
                let level = record.level().as_str().to_ascii_lowercase();
                let row = format!("| `{}` | {level} | `{}` | {} |", keys.0[0], record.target(), keys.0[1..].join(" "));
                self.0.lock().unwrap_or_else(PoisonError::into_inner).push(row);
            }
        }
        fn flush(&self) {}
    }

    /// The rows that tests/logging.rs cannot bring about are kept as well.
    #[test]
    fn what_seldom_happens_is_logged_as_the_page_says() {
        log::set_logger(&ROWS).unwrap();
        log::set_max_level(LevelFilter::Debug);
        Journal.thread_lost(&ThreadLost { thread: "refill", error: "none to be had" });
        observer_panicked();
        let host = Endpoint::new("mail.example", 25);
        Journal.idle_limit_learned(&IdleLimitLearned { host: &host, limit: Duration::from_secs(30) });
        let rows = ROWS.0.lock().unwrap().clone();
        let page = include_str!("../guide/logging_and_metrics.md");
        for event in SELDOM {
            let row = rows.iter().find(|row| row.contains(event)).unwrap();
            assert!(
                page.lines().any(|line| line.replace("|  |", "| |").starts_with(&row.replace("|  |", "| |"))),
                "{row}"
            );
        }
    }
}
