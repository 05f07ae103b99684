//! The permission to open one connection.

use std::mem;
use std::sync::Arc;
use std::time::Instant;

use crate::blame::Blame;
use crate::cancel::CancelToken;
use crate::clock;
use crate::endpoint::HostId;
use crate::pool::changes::Arrival;
use crate::pool::connector::{Close, Connector, OpenError};
use crate::pool::effects::Effects;
use crate::pool::errand::{Errand, Ticket};
use crate::pool::held::Held;
use crate::pool::lease::Lease;
use crate::pool::shared::Shared;
use crate::pool::slot::{Charge, Grant};
use crate::pool::state::Step;

/// The permission to open one connection. Dropped, on whatever way, it gives its place to the next who can use it.
pub(super) struct OpenPermit<'a, C: Connector> {
    shared: &'a Arc<Shared<C>>,
    grant: Grant<C::Connection>,
    is_spent: bool,
}

impl<'a, C: Connector> OpenPermit<'a, C> {
    pub(super) const fn new(shared: &'a Arc<Shared<C>>, grant: Grant<C::Connection>) -> Self {
        Self { shared, grant, is_spent: false }
    }

    pub(super) const fn host(&self) -> HostId {
        self.grant.host
    }

    /// Closes the connection that this one takes the place of.
    pub(super) fn close_evicted(&mut self) {
        if let Some(evicted) = self.grant.evicted.take() {
            let Held { connection, record } = *evicted;
            let _yielded = (record.host != self.grant.host).then(|| Yielded { shared: self.shared, host: record.host });
            self.shared.connector.close(connection, Close::Polite);
        }
    }

    /// Opens it; `now` it begins.
    pub(super) fn open(
        &mut self,
        now: Instant,
        cancel: Option<&CancelToken>,
    ) -> Result<C::Connection, OpenError<C::Error>> {
        self.grant.begun = Some(now);
        self.shared.connector.open(self.grant.host, self.grant.id, self.grant.deadline, cancel)
    }

    /// The connection is there: the lease, what it cost, and whether it is of any use.
    pub(super) fn redeem(mut self, connection: C::Connection, ticket: Ticket) -> (Lease<C>, Charge, Arrival) {
        let message_limit = self.shared.connector.message_limit(&connection);
        let now = clock::now();
        let ((record, arrival), fx) = self.shared.decide(|state, fx| state.opened(&self.grant, message_limit, now, fx));
        self.is_spent = true;
        let lease = Lease::new(Arc::clone(self.shared), Held { connection, record }, ticket, now);
        self.shared.carry_out(fx);
        (lease, mem::take(&mut self.grant.charge), arrival)
    }

    /// There is none.
    pub(super) fn fail(
        mut self,
        blame: Blame,
        text: Arc<str>,
        errand: &mut Errand,
    ) -> (Step<C::Connection>, Effects<C::Connection>) {
        let now = clock::now();
        let decided = self.shared.decide(|state, fx| state.open_failed(&self.grant, blame, text, errand, now, fx));
        self.is_spent = true;
        decided
    }

    /// There is none, and nobody who wants another. False: it is no use to go on.
    pub(super) fn fail_in_reserve(mut self, blame: Blame, text: Arc<str>) -> bool {
        let now = clock::now();
        let (goes_on, fx) = self.shared.decide(|state, fx| {
            let failure = state.note_failure(&self.grant, blame, text, now, fx);
            state.refill_failed(failure, now, fx)
        });
        self.is_spent = true;
        self.shared.carry_out(fx);
        goes_on
    }
}

/// What a host has less once a connection that made room for another host is closed.
struct Yielded<'a, C: Connector> {
    shared: &'a Shared<C>,
    host: HostId,
}

impl<C: Connector> Drop for Yielded<'_, C> {
    fn drop(&mut self) {
        self.shared.change(clock::now(), |state, now, fx| state.yielded(self.host, now, fx));
    }
}

impl<C: Connector> Drop for OpenPermit<'_, C> {
    fn drop(&mut self) {
        if self.is_spent {
            return;
        }
        let Grant { host, id, generation, lane, deadline, begun, .. } = self.grant;
        let (charge, evicted) = (mem::take(&mut self.grant.charge), self.grant.evicted.take());
        let grant = Grant { host, id, generation, lane, deadline, begun, charge, evicted };
        self.shared.change(clock::now(), |state, now, fx| state.permit_returned(grant, now, fx));
    }
}
