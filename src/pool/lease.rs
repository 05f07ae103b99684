//! One connection in one caller's hands.

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use crate::clock;
use crate::endpoint::HostId;
use crate::observer::LeaseEnded;
use crate::pool::connector::{Close, Connector};
use crate::pool::effects::Effects;
use crate::pool::errand::{Errand, Request, Ticket};
use crate::pool::held::{self, Record};
use crate::pool::shared::Shared;
use crate::pool::slot::{Charge, Gift};
use crate::pool::state::PoolState;
use crate::pool::{AcquireError, Diary, Fate, Happened, Renewal};
use crate::stats::DiscardReason;

type State<C> = PoolState<<C as Connector>::Connection>;
type Held<C> = held::Held<<C as Connector>::Connection>;
type Fx<C> = Effects<<C as Connector>::Connection>;

/// The exclusive right to one connection.
///
/// Dropped without a word it goes back if it is in step; dropped by a panic, or out of step, it is closed.
pub(crate) struct Lease<C: Connector> {
    /// Taken only by what ends the lease.
    connection: Option<C::Connection>,
    // After the connection, so that the place is given up last whatever happens to the connection.
    seat: Seat<C>,
}

impl<C: Connector> Lease<C> {
    pub(super) fn new(shared: Arc<Shared<C>>, held: Held<C>, ticket: Ticket, now: Instant) -> Self {
        let held::Held { connection, record } = held;
        let (host, id, record) = (record.host, record.id, Some(record));
        let if_dropped = DiscardReason::Broken;
        let seat = Seat { shared, host, id, record, if_dropped, ticket, since: now, is_observed: false, until: None };
        Self { connection: Some(connection), seat }
    }

    /// It is in the hands of whoever asked for it: observers are told of its end.
    #[inline]
    pub(super) fn note_lent(&mut self) {
        self.seat.is_observed = self.seat.shared.observers.are_there();
    }

    /// When it was lent.
    pub(crate) const fn since(&self) -> Instant {
        self.seat.since
    }

    /// The connection.
    pub(crate) const fn connection(&self) -> &C::Connection {
        self.connection.as_ref().expect("a lease has its connection until it ends")
    }

    /// The connection, to be used.
    pub(crate) const fn connection_mut(&mut self) -> &mut C::Connection {
        self.connection.as_mut().expect("a lease has its connection until it ends")
    }

    /// Where it leads.
    pub(crate) const fn host(&self) -> HostId {
        self.seat.host
    }

    /// Its number, unique in the pool.
    pub(crate) const fn id(&self) -> u64 {
        self.seat.id
    }

    /// Whether it has been idle before: the server may have ended it meanwhile.
    pub(crate) fn is_reused(&self) -> bool {
        self.record().idle_since.is_some()
    }

    /// Whether a message may begin: the host's credentials are those that it was opened with. Once they have been rotated, it is not.
    pub(crate) fn is_current(&self) -> bool {
        self.seat.shared.is_current(self.seat.host, self.record().generation)
    }

    /// What the pool remembers of it.
    pub(super) fn record(&self) -> &Record {
        self.seat.record.as_ref().expect("a lease answers for its place until it ends")
    }

    /// Messages it has carried so far.
    pub(crate) fn messages(&self) -> u32 {
        self.record().messages
    }

    /// One more message was delivered, and the lease goes on.
    pub(crate) fn note_delivered(&mut self) {
        if let Some(record) = &mut self.seat.record {
            record.note_delivered();
        }
    }

    /// Ends the lease. A connection that is to be kept but is not in step is discarded all the same.
    pub(crate) fn finish(self, fate: Fate) {
        self.finish_at(clock::now(), fate);
    }

    /// As [`finish`](Self::finish), for one who knows what time it is.
    #[inline]
    pub(crate) fn finish_at(mut self, now: Instant, fate: Fate) {
        let Some(connection) = self.connection.take() else { return };
        self.seat.until = Some(now);
        match fate {
            Fate::Keep { delivered } => self.keep(connection, delivered, now),
            Fate::Discard(reason, Close::Polite) => self.retire(connection, reason, now),
            Fate::Discard(reason, Close::Abort) => self.discard(connection, reason, Close::Abort),
        }
    }

    /// Ends the lease of a connection that answered a probe.
    pub(super) fn prove_alive(mut self) {
        let Some(connection) = self.connection.take() else { return };
        self.go_back(connection, clock::now(), |state, held, now, fx| state.proved_alive(held, now, fx));
    }

    /// Ends a lease that its caller does not want any more: no lease has come about, and the next one may have it.
    pub(super) fn call_off(mut self, charge: Charge) {
        let Some(connection) = self.connection.take() else { return };
        let now = clock::now();
        self.go_back(connection, now, |state, held, now, fx| state.pass_on(Gift::Connection(held, charge), now, fx));
    }

    /// Ends the lease, and gets another connection in its place under `request`. It keeps the turn of the call that it
    /// came from, and for a fresh one to the same host it keeps the very place.
    pub(crate) fn renew(
        mut self,
        why: Renewal,
        request: Request,
        diary: &mut dyn Diary<C::Error>,
    ) -> Result<Self, AcquireError<C::Error>> {
        let Some(connection) = self.connection.take() else { unreachable!("the lease has not ended") };
        let (reason, how) = match why {
            Renewal::Stale => (DiscardReason::ServerClosed, Close::Abort),
            Renewal::SessionLimit => (DiscardReason::MaxMessages, Close::Polite),
            Renewal::Reauthenticate => (DiscardReason::AuthFailure, Close::Polite),
            Renewal::Rotated => (DiscardReason::CredentialsRotated, Close::Polite),
            Renewal::OutOfStep => (DiscardReason::Broken, Close::Abort),
        };
        let with_siblings = matches!(why, Renewal::Stale);
        self.seat.if_dropped = reason;
        self.seat.shared.connector.close(connection, how);
        let errand = Errand::new(self.seat.ticket, request);
        let shared = Arc::clone(&self.seat.shared);
        let now = clock::now();
        self.seat.until = Some(now);
        // The seat is vacated by this very decision.
        let Some(record) = self.seat.record.take() else { unreachable!("the lease has not ended") };
        let decided = shared.decide(|state, fx| state.renew(&record, reason, with_siblings, &errand, now, fx));
        diary.note(now, Happened::Replaced { host: record.host, id: record.id, reason });
        shared.follow(errand, decided, now, diary)
    }

    /// Whether the connection is alive, before it is used.
    pub(super) fn look(&mut self) -> bool {
        let Self { connection, seat, .. } = self;
        connection.as_mut().is_some_and(|connection| seat.shared.connector.is_alive(connection))
    }

    /// Ends the lease of a connection that its caller cannot use, and closes it. Whoever has the record answers for its place.
    pub(super) fn close(mut self, reason: DiscardReason, how: Close) -> Box<Record> {
        if let Some(connection) = self.connection.take() {
            self.seat.if_dropped = reason;
            self.seat.shared.connector.close(connection, how);
        }
        self.seat.record.take().expect("a lease answers for its place until it ends")
    }

    #[inline]
    fn keep(&mut self, connection: C::Connection, delivered: bool, now: Instant) {
        self.go_back(connection, now, |state, held, now, fx| state.give_back(held, delivered, now, fx));
    }

    /// Gives the connection, and with it the answer for its place, to a decision; unless it is not in step.
    #[inline]
    fn go_back(
        &mut self,
        connection: C::Connection,
        now: Instant,
        decide: impl FnOnce(&mut State<C>, Held<C>, Instant, &mut Fx<C>),
    ) {
        if !self.seat.shared.connector.is_in_step(&connection) {
            self.discard(connection, DiscardReason::Broken, Close::Abort);
            return;
        }
        self.hand_over(connection, now, decide);
    }

    /// Leaves it to whoever has the time to close it.
    fn retire(&mut self, connection: C::Connection, reason: DiscardReason, now: Instant) {
        self.hand_over(connection, now, |state, held, now, fx| state.retire(held, reason, now, fx));
    }

    #[inline]
    fn hand_over(
        &mut self,
        connection: C::Connection,
        now: Instant,
        decide: impl FnOnce(&mut State<C>, Held<C>, Instant, &mut Fx<C>),
    ) {
        let Some(record) = self.seat.record.take() else { unreachable!("the lease has not ended") };
        let held = held::Held { connection, record };
        self.seat.shared.change(now, |state, now, fx| decide(state, held, now, fx));
    }

    /// Closes first, so that the place is free only when the connection is gone; the seat does the rest.
    fn discard(&mut self, connection: C::Connection, reason: DiscardReason, how: Close) {
        self.seat.if_dropped = reason;
        self.seat.shared.connector.close(connection, how);
    }
}

impl<C: Connector> Drop for Lease<C> {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        if thread::panicking() {
            self.discard(connection, DiscardReason::Broken, Close::Abort);
        } else {
            self.keep(connection, false, clock::now());
        }
    }
}

/// The place of a lent connection: given up on drop, unless it has gone on to somebody else.
struct Seat<C: Connector> {
    shared: Arc<Shared<C>>,
    host: HostId,
    id: u64,
    /// Whoever has it answers for the place.
    record: Option<Box<Record>>,
    /// Why the connection has ended, if this is dropped with the record.
    if_dropped: DiscardReason,
    ticket: Ticket,
    since: Instant,
    /// Whether observers are to be told of its end.
    is_observed: bool,
    /// When it ended, if that is known.
    until: Option<Instant>,
}

impl<C: Connector> Seat<C> {
    #[cold]
    fn tell_end(&self) {
        let until = self.until.unwrap_or_else(clock::now);
        let event = LeaseEnded {
            host: self.shared.endpoint(self.host),
            connection_id: self.id,
            duration: until.saturating_duration_since(self.since),
        };
        self.shared.observers.tell_registered(|observer| observer.lease_ended(&event));
    }
}

impl<C: Connector> Drop for Seat<C> {
    fn drop(&mut self) {
        if let Some(record) = self.record.take() {
            self.shared.change(clock::now(), |state, now, fx| state.vacate(&record, self.if_dropped, now, fx));
        }
        // Last, because they may take their time, and may want the place themselves.
        if self.is_observed {
            self.tell_end();
        }
    }
}
