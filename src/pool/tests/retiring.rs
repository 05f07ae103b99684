//! Connections that end of age, of idleness, of use.

use std::time::Duration;

use crate::endpoint::HostId;
use crate::pool::tests::fake::{Fake, assert_at_rest, lease, limits, plan, pool, until};
use crate::pool::{Close, Fate, Limits, Pool};
use crate::stats::DiscardReason;

const KEEP: Fate = Fate::Keep { delivered: true };

fn with(change: impl FnOnce(&mut Limits)) -> Pool<Fake> {
    let mut limits = limits(3);
    change(&mut limits);
    Pool::unattended(Fake::new(), vec![plan(0, 1)], limits, 5)
}

#[test]
fn a_connection_idle_too_long_is_not_lent() {
    let pool = with(|limits| limits.idle_timeout = Some(Duration::from_nanos(1)));
    let first = lease(&pool);
    let id = first.id();
    first.finish(KEEP);
    let second = lease(&pool);
    assert!(!second.is_reused());
    assert_eq!(pool.connector().fate(id), Some(Close::Polite));
    assert_eq!(pool.status().discarded.of(DiscardReason::IdleTimeout), 1);
    drop(second);
    assert_at_rest(&pool);
}

#[test]
fn an_expired_connection_in_the_only_place_is_replaced() {
    let mut limits = limits(1);
    limits.idle_timeout = Some(Duration::from_nanos(1));
    let pool = Pool::unattended(Fake::new(), vec![plan(0, 1)], limits, 5);
    lease(&pool).finish(KEEP);
    assert!(!lease(&pool).is_reused());
    assert_eq!(pool.connector().gauge.highest.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[test]
fn a_connection_too_old_is_retired_on_return() {
    let pool = with(|limits| limits.max_lifetime = Some(Duration::from_nanos(1)));
    let first = lease(&pool);
    let id = first.id();
    until(|| pool.status().uptime > Duration::from_micros(1));
    first.finish(KEEP);
    assert_eq!(pool.connector().fate(id), Some(Close::Polite));
    assert_eq!(pool.status().discarded.of(DiscardReason::MaxLifetime), 1);
    assert_at_rest(&pool);
}

#[test]
fn a_connection_retires_after_its_messages() {
    let pool = with(|limits| limits.max_messages = Some(3));
    for _ in 0..6 {
        lease(&pool).finish(KEEP);
    }
    assert_eq!(pool.connector().opened().len(), 2);
    assert_eq!(pool.status().discarded.of(DiscardReason::MaxMessages), 2);
    assert_at_rest(&pool);
}

#[test]
fn an_announced_limit_is_kept_to() {
    let mut fake = Fake::new();
    fake.message_limit = Some(2);
    let pool = Pool::unattended(fake, vec![plan(0, 1)], limits(3), 5);
    for _ in 0..4 {
        lease(&pool).finish(KEEP);
    }
    assert_eq!(pool.connector().opened().len(), 2);
}

#[test]
fn a_learned_limit_is_kept_to_from_then_on() {
    let pool = pool(3, &[0]);
    for _ in 0..5 {
        lease(&pool).finish(KEEP);
    }
    pool.learn_message_limit(HostId(0), 4);
    pool.learn_message_limit(HostId(0), 9);
    assert_eq!(pool.status().hosts[0].learned_message_limit, Some(4));
    assert_eq!(pool.counts().idle, 0);
    for _ in 0..8 {
        lease(&pool).finish(KEEP);
    }
    assert_eq!(pool.connector().opened().len(), 3);
    assert_at_rest(&pool);
}
