//! What observers of a pool are told.

use std::sync::mpsc;
use std::time::Duration;

use super::fake::{Fake, assert_at_rest, attended, fresh, got, lease, limits, observed, plan, soon, until};
use crate::clock::{self, Deadline};
use crate::observer::{
    ConnectionOpened, IdleLimitLearned, KeepaliveFailed, LeaseEnded, LevelsChanged, Observer, ThreadLost,
    WaitersChanged,
};
use crate::pool::{Close, Fate, Request};
use crate::stats::DiscardReason;
use crate::sync::Mutex;

const MILLI: Duration = Duration::from_millis(1);
const LONG: Duration = super::fake::LONG;

#[derive(Debug, PartialEq, Eq)]
enum News {
    Opened(u64),
    LeaseEnded(u64),
    KeepaliveFailed(u64),
    ThreadLost(String),
    IdleLimit(String, Duration),
    /// Idle, leased, connecting, waiting.
    Levels([i64; 4]),
}

struct Reporter(Mutex<mpsc::Sender<News>>);

impl Reporter {
    fn new() -> (Self, mpsc::Receiver<News>) {
        let (sender, receiver) = mpsc::channel();
        (Self(Mutex::new(sender)), receiver)
    }

    fn report(&self, news: News) {
        self.0.lock().send(news).ok();
    }
}

impl Observer for Reporter {
    fn connection_opened(&self, event: &ConnectionOpened<'_>) {
        self.report(News::Opened(event.connection_id));
    }

    fn lease_ended(&self, event: &LeaseEnded<'_>) {
        self.report(News::LeaseEnded(event.connection_id));
    }

    fn keepalive_failed(&self, event: &KeepaliveFailed<'_>) {
        self.report(News::KeepaliveFailed(event.connection_id));
    }

    fn thread_lost(&self, event: &ThreadLost<'_>) {
        self.report(News::ThreadLost(event.thread.to_owned()));
    }

    fn idle_limit_learned(&self, event: &IdleLimitLearned<'_>) {
        self.report(News::IdleLimit(event.host.to_string(), event.limit));
    }

    fn levels_changed(&self, event: &LevelsChanged<'_>) {
        self.report(News::Levels([event.idle, event.leased, event.connecting, 0]));
    }

    fn waiters_changed(&self, event: &WaitersChanged) {
        self.report(News::Levels([0, 0, 0, event.waiting]));
    }
}

fn sum(news: impl IntoIterator<Item = News>) -> [i64; 4] {
    news.into_iter().fold([0; 4], |mut sums, news| {
        if let News::Levels(by) = news {
            sums.iter_mut().zip(by).for_each(|(sum, by)| *sum += by);
        }
        sums
    })
}

#[test]
fn a_pool_that_nobody_observes_keeps_no_account() {
    let pool = attended(Fake::new(), vec![plan(0, 1)], limits(1));
    drop(lease(&pool));
    pool.shared.look(|state| assert!(state.told.is_none() && state.notice_due().is_none()));
}

#[test]
fn a_lease_is_told_of_when_its_place_is_free() {
    let (reporter, news) = Reporter::new();
    let pool = observed(Fake::new(), vec![plan(0, 1)], limits(1), reporter);
    let end = |fate| {
        let lease = lease(&pool);
        let id = lease.id();
        lease.finish(fate);
        id
    };
    for (fate, levels) in [
        (Fate::Keep { delivered: true }, [1, -1, 0, 0]),
        (Fate::Discard(DiscardReason::Broken, Close::Abort), [0, -1, 0, 0]),
    ] {
        let id = end(fate);
        let told: Vec<_> = news.try_iter().collect();
        assert_eq!(told[told.len() - 2..], [News::Levels(levels), News::LeaseEnded(id)], "{told:?}");
    }
    // One that is replaced ends, too, and only then.
    let first = lease(&pool);
    let id = first.id();
    news.try_iter().for_each(drop);
    let second = got(first.renew(crate::pool::Renewal::OutOfStep, fresh(), &mut ()));
    let told: Vec<_> = news.try_iter().filter(|news| !matches!(news, News::Levels(_))).collect();
    assert_eq!(told, [News::Opened(second.id()), News::LeaseEnded(id)]);
}

#[test]
fn only_what_callers_had_is_a_lease() {
    let (reporter, news) = Reporter::new();
    let mut limits = limits(2);
    limits.keepalive_interval = Some(MILLI);
    limits.min_idle = 1;
    let pool = observed(Fake::new(), vec![plan(0, 1)], limits, reporter);
    // Opened in reserve, asked, and found dead; and again.
    until(|| pool.connector().probes().len() > 2);
    let id = pool.connector().opened()[0].1;
    pool.connector().mute(id);
    until(|| pool.status().created > 1);
    pool.close();
    assert!(pool.join(Deadline::after(LONG)));
    let told: Vec<_> = news.try_iter().filter(|news| !matches!(news, News::Levels(_))).collect();
    assert!(told.contains(&News::KeepaliveFailed(id)), "{told:?}");
    assert!(!told.iter().any(|news| matches!(news, News::LeaseEnded(_))), "{told:?}");
}

#[test]
fn a_learned_idle_limit_is_told_with_its_host() {
    const SECOND: Duration = Duration::from_secs(1);
    let (reporter, news) = Reporter::new();
    let pool = observed(Fake::new(), vec![plan(0, 1)], limits(1), reporter);
    let mut told = clock::now();
    let mut use_one = || {
        let request = Request::by(Deadline::at(told, LONG));
        let lease = got(pool.acquire_at(told, request, &mut ()));
        let id = lease.id();
        lease.finish_at(told, Fate::Keep { delivered: true });
        told += SECOND * 40;
        id
    };
    let learned = || news.try_iter().filter(|news| matches!(news, News::IdleLimit(..))).collect::<Vec<_>>();
    let mut last = use_one();
    for found in 1..=4 {
        // The server has ended it within the forty seconds until it is asked for again.
        pool.connector().kill(last);
        last = use_one();
        // Three times are a rule: three quarters of what was too long.
        let expected = (found == 3).then(|| News::IdleLimit("mail.example:25".to_owned(), SECOND * 30));
        assert_eq!(learned(), Vec::from_iter(expected), "after {found}");
    }
    pool.close();
    assert!(pool.join(Deadline::after(LONG)));
    assert_eq!(learned(), [], "and once");
}

#[test]
fn what_is_told_is_whole_when_closing_panics() {
    let (reporter, news) = Reporter::new();
    let mut limits = limits(2);
    limits.max_messages = Some(1);
    let pool = observed(Fake::new(), vec![plan(0, 1)], limits, reporter);
    pool.connector().panics_when_closing.store(1, std::sync::atomic::Ordering::SeqCst);
    // The thread closes it, and does not survive that.
    lease(&pool).finish(Fate::Keep { delivered: true });
    let told: Vec<_> = news.iter().take_while(|news| *news != News::ThreadLost("maintenance".to_owned())).collect();
    assert_eq!(sum(told), [0; 4]);
    assert_at_rest(&pool);
    // Of callers, too.
    pool.connector().panics_when_closing.store(1, std::sync::atomic::Ordering::SeqCst);
    let lease = got(pool.acquire(soon()));
    let end = std::panic::AssertUnwindSafe(|| lease.finish(Fate::Keep { delivered: true }));
    assert!(std::panic::catch_unwind(end).is_err(), "told to panic");
    assert_at_rest(&pool);
    assert_eq!(sum(news.try_iter()), [0; 4]);
}
