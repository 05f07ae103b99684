//! A pool of connections of any kind: who gets one, who waits, who opens one.
//!
//! `state.rs` decides, under the lock and without doing anything; `shared.rs` does, without the lock. Every permission
//! is a value that gives itself back on drop: a [`Lease`], an `OpenPermit`, a place in the queue.
//!
//! Of locks there are the state's, one in each waiter's slot, and the list of threads. No two of them are ever held
//! together, and none while anything of a [`Connector`] or a cancel token runs.

mod changes;
mod choice;
mod connector;
mod cooldown;
mod crew;
mod diary;
mod effects;
mod errand;
mod held;
mod hosts;
mod learned;
mod lease;
mod levels;
mod maintenance;
mod news;
mod permit;
mod place;
mod shared;
mod slot;
mod state;
#[cfg(test)]
mod tests;
mod upkeep;
mod waiters;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::{self, Deadline};
use crate::endpoint::{Endpoint, HostId};
use crate::observer::Observers;
use crate::pool::cooldown::Schedule;
use crate::pool::errand::{Errand, Ticket};
use crate::pool::shared::Shared;
use crate::pool::slot::{Gift, Refusal, RefusalReason};
use crate::pool::state::Step;
use crate::stats::{DiscardReason, PoolCounts, PoolStatus};

pub(crate) use crate::pool::connector::{Close, Connector, OpenError};
pub(crate) use crate::pool::diary::{Diary, Happened, Wait};
pub(crate) use crate::pool::errand::{HostSet, Request};
pub(crate) use crate::pool::learned::Learning;
pub(crate) use crate::pool::lease::Lease;

/// What the pool is to know of one host.
#[derive(Debug, Clone)]
pub(crate) struct HostPlan {
    /// Where it is; for log records and snapshots.
    pub(crate) endpoint: Endpoint,
    /// Hosts with a smaller number come first.
    pub(crate) priority: u32,
    /// Its part of the leases, among hosts of the same priority.
    pub(crate) weight: u32,
    /// The bound on its connections.
    pub(crate) max_connections: Option<usize>,
}

/// The numbers a pool keeps to. They are taken as valid.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// The bound on all connections, those being opened or closed included.
    pub(crate) max_size: usize,
    /// The part of the connections, of all and of each host's, that bulk may not have.
    pub(crate) interactive_reserve: f64,
    /// So many idle connections are kept, or opened in reserve; they outlast `idle_timeout`.
    pub(crate) min_idle: usize,
    /// After a connection ended, none is opened in reserve for so long.
    pub(crate) refill_delay: Duration,
    /// A connection nothing was heard of for so long is asked for a sign of life.
    pub(crate) keepalive_interval: Option<Duration>,
    /// A connection idle this long is not lent again.
    pub(crate) idle_timeout: Option<Duration>,
    /// A connection this old is not lent again.
    pub(crate) max_lifetime: Option<Duration>,
    /// By what part of it, at most, a connection's lifetime is shortened at random.
    pub(crate) lifetime_jitter: f64,
    /// A connection that carried so many messages is not lent again.
    pub(crate) max_messages: Option<u32>,
    /// Who would have less time than this left when a host's pause ends does not wait for it: the try at its end is for somebody
    /// whose failure tells something about the host.
    pub(crate) fair_time: Duration,
    /// The first pause after a host failed.
    pub(crate) reconnect_cooldown: Duration,
    /// The longest pause.
    pub(crate) max_reconnect_cooldown: Duration,
    /// How to learn what hosts put up with, if at all.
    pub(crate) learning: Option<Learning>,
    /// Whether pauses double from failure to failure.
    pub(crate) exponential: bool,
    /// By what part of it, at most, a pause is made longer or shorter at random.
    pub(crate) jitter: f64,
}

impl Limits {
    const fn schedule(&self) -> Schedule {
        Schedule {
            first: self.reconnect_cooldown,
            longest: self.max_reconnect_cooldown,
            exponential: self.exponential,
            jitter: self.jitter,
        }
    }
}

/// What becomes of a lent connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It may be lent again.
    Keep {
        /// Whether it has carried one more message.
        delivered: bool,
    },
    /// It is closed.
    Discard(DiscardReason, Close),
}

/// Why a lent connection is to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Renewal {
    /// It had died while it was idle. Those that were idle as long are given up with it.
    Stale,
    /// The session has reached a limit of its own; others have not. The limit is not remembered
    /// by this alone: see [`Pool::learn_message_limit`].
    SessionLimit,
    /// The server wants to know again who we are.
    Reauthenticate,
    /// The credentials that it was opened with have been rotated.
    Rotated,
    /// Something has gone wrong over it that will not over a fresh one.
    OutOfStep,
}

/// Why there is no lease. `cause` is the last failure that this very call met.
#[derive(Debug)]
pub(crate) enum AcquireError<E> {
    /// The deadline passed while waiting.
    Exhausted { cause: Option<(HostId, E)>, counts: PoolCounts },
    /// No host can serve in time.
    Unavailable {
        cause: Option<(HostId, E)>,
        /// Until a host may be tried again.
        retry_after: Option<Duration>,
        /// The failure last seen by anybody.
        last_error: Option<(HostId, Arc<str>)>,
        counts: PoolCounts,
    },
    /// This machine ran out of something; no host is to blame.
    Local { host: HostId, cause: E, counts: PoolCounts },
    /// The caller's token was cancelled; the cause tells where, if a connection was being opened.
    Cancelled { cause: Option<(HostId, E)>, counts: PoolCounts },
    /// The pool is closed.
    ShutDown { counts: PoolCounts },
}

impl<E> AcquireError<E> {
    fn new(refusal: Refusal, cause: Option<(HostId, E)>) -> Self {
        let Refusal { reason, counts } = refusal;
        match (reason, cause) {
            (RefusalReason::Exhausted, cause) => Self::Exhausted { cause, counts },
            (RefusalReason::Local, Some((host, cause))) => Self::Local { host, cause, counts },
            // A shortage is a failure that the call has met; without one there is none to report.
            (RefusalReason::Local, None) => {
                Self::Unavailable { cause: None, retry_after: None, last_error: None, counts }
            }
            (RefusalReason::Unavailable { retry_after, last_error }, cause) => {
                Self::Unavailable { cause, retry_after, last_error, counts }
            }
            (RefusalReason::Cancelled, cause) => Self::Cancelled { cause, counts },
            (RefusalReason::ShutDown, _) => Self::ShutDown { counts },
        }
    }
}

/// A handle of a pool; clones are handles of the same pool. The last one closes it.
pub(crate) struct Pool<C: Connector> {
    shared: Arc<Shared<C>>,
    /// Leases and threads hold the pool too, but do not keep it open.
    last: Arc<LastHandle<C>>,
}

impl<C: Connector> Pool<C> {
    /// A pool without any connection yet, and the thread that looks after it. `seed` decides everything that is drawn
    /// at random.
    ///
    /// # Errors
    ///
    /// If the thread cannot be started.
    pub(crate) fn new(
        connector: C,
        hosts: Vec<HostPlan>,
        limits: Limits,
        seed: u64,
        observers: Observers,
    ) -> io::Result<Self> {
        let (shared, rings) = Shared::new(connector, hosts, limits, seed, observers);
        let pool = Self::of(shared);
        maintenance::start(&pool.shared, rings)?;
        Ok(pool)
    }

    /// The pool whose thread has died: its callers do everything themselves.
    #[cfg(test)]
    fn unattended(connector: C, hosts: Vec<HostPlan>, limits: Limits, seed: u64) -> Self {
        Self::of(Shared::new(connector, hosts, limits, seed, Observers::default()).0)
    }

    fn of(shared: Shared<C>) -> Self {
        let shared = Arc::new(shared);
        if shared.observers.are_there() {
            shared.change(clock::now(), |state, _, _| state.observe());
        }
        Self { last: Arc::new(LastHandle { shared: Arc::clone(&shared) }), shared }
    }

    /// Gets a connection: an idle one, or a new one opened in this thread, or whichever somebody else gives back; in
    /// the order in which callers came.
    ///
    /// Returns by the deadline if [`Connector::open`] does. One that is over already gets at most an idle connection.
    pub(crate) fn acquire_at(
        &self,
        now: Instant,
        request: Request,
        diary: &mut dyn Diary<C::Error>,
    ) -> Result<Lease<C>, AcquireError<C::Error>> {
        let mut errand = Errand::new(Ticket::default(), request);
        let mut passed_over = Vec::new();
        let decided = self.shared.decide(|state, fx| {
            let step = state.arrive(&mut errand, now, fx);
            passed_over = state.passed_over(&errand, &step, now);
            step
        });
        passed_over.into_iter().for_each(|happened| diary.note(now, happened));
        match decided {
            // The short way of most calls; it leaves nothing to be carried out but to tell observers of it.
            (Step::Take(Gift::Connection(held, charge)), fx)
                if fx.is_nothing_but_changes() && !errand.is_cancelled() =>
            {
                let mut lease = Lease::new(Arc::clone(&self.shared), held, errand.ticket, now);
                self.shared.carry_out(fx);
                if !lease.look() {
                    return self.shared.replace(errand, lease, charge, diary);
                }
                lease.note_lent();
                lease.tell(diary);
                Ok(lease)
            }
            decided => self.shared.follow(errand, decided, now, diary),
        }
    }

    #[cfg(test)]
    fn acquire(&self, request: Request) -> Result<Lease<C>, AcquireError<C::Error>> {
        self.acquire_at(clock::now(), request, &mut ())
    }

    /// A consistent picture of everything.
    pub(crate) fn status(&self) -> PoolStatus {
        let now = clock::now();
        self.shared.look(|state| state.status(now))
    }

    /// A consistent picture of the counts.
    pub(crate) fn counts(&self) -> PoolCounts {
        self.shared.look(|state| state.counts())
    }

    /// Whether no host is there, and no pause will bring one back: each has refused us, and not only for now.
    pub(crate) fn is_refused_for_long(&self) -> bool {
        self.shared.look(|state| state.is_refused_for_long())
    }

    /// What opens the connections.
    pub(crate) fn connector(&self) -> &C {
        &self.shared.connector
    }

    /// A session with this host ends after so many messages: connections to it are retired before that from now on.
    pub(crate) fn learn_message_limit(&self, host: HostId, messages: u32) {
        self.shared.change(clock::now(), |state, now, fx| state.learn_message_limit(host, messages, now, fx));
    }

    /// What `lease` was refused, every connection to its host will be: none is opened for as long as a pause may be.
    pub(crate) fn lasting_refusal(&self, lease: &Lease<C>, error: &str) {
        let (host, connection, generation) = (lease.host(), lease.id(), lease.record().generation);
        self.shared.change(clock::now(), |state, now, fx| {
            state.lasting_refusal(host, connection, generation, Arc::from(error), now, fx);
        });
    }

    /// The host's credentials have been replaced: what was opened before this call is not lent again, and no message
    /// [may begin](Lease::is_current) on it once this has returned. To be called when whatever is opened has the new ones.
    pub(crate) fn rotate_credentials(&self, host: HostId) {
        self.shared.rotate_credentials(host);
    }

    /// Takes no more work, refuses all who wait, closes what is idle; what is lent is closed when it comes back.
    /// Doing it again does nothing.
    pub(crate) fn close(&self) {
        self.shared.close();
    }

    /// Waits until no connection is lent, being opened or being closed; those that are idle are closed by
    /// [`close`](Self::close). False: the deadline came first, as it does for one who holds a lease.
    pub(crate) fn wait_drained(&self, deadline: Deadline) -> bool {
        self.shared.wait_drained(deadline)
    }

    /// Waits until the pool's threads have ended, which they do after [`close`](Self::close). False: the deadline came
    /// first, or the caller is one of them.
    pub(crate) fn join(&self, deadline: Deadline) -> bool {
        self.shared.crew.join(deadline)
    }
}

/// Closes the pool with the last handle.
struct LastHandle<C: Connector> {
    shared: Arc<Shared<C>>,
}

impl<C: Connector> Drop for LastHandle<C> {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl<C: Connector> Clone for Pool<C> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), last: Arc::clone(&self.last) }
    }
}

impl<C: Connector> fmt::Debug for Pool<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("counts", &self.counts()).finish_non_exhaustive()
    }
}
