//! What becomes of each connection when its host's credentials are rotated.

use std::time::Duration;

use crate::blame::Blame;
use crate::endpoint::HostId;
use crate::pool::changes::Arrival;
use crate::pool::slot::Gift;
use crate::pool::state::Step;
use crate::pool::tests::desk::{Desk, SECOND, desk};
use crate::pool::tests::fake::{Fake, assert_at_rest, attended, lease, limits, plan, until};
use crate::pool::{Close, Fate};
use crate::stats::{DiscardReason, HostState};

const KEEP: Fate = Fate::Keep { delivered: true };

fn rotate(desk: &mut Desk, host: usize) {
    desk.state.rotate_credentials(HostId(host), desk.now, &mut desk.fx);
}

fn rotated(desk: &Desk) -> u64 {
    desk.discarded(DiscardReason::CredentialsRotated)
}

#[test]
fn what_is_idle_ends_and_what_is_lent_ends_on_its_return() {
    let mut desk = Desk::new(4, vec![plan(0, 1), plan(0, 1)]);
    let records = (0..4).map(|_| desk.lease(desk.request(10))).collect::<Vec<_>>();
    let (rotated_ones, others): (Vec<_>, Vec<_>) = records.into_iter().partition(|record| record.host == HostId(0));
    let [idle, lent] = rotated_ones.try_into().unwrap();
    desk.give_back(idle);
    rotate(&mut desk, 0);
    assert_eq!((rotated(&desk), desk.idle(0)), (1, 0));
    desk.give_back(lent);
    assert_eq!((rotated(&desk), desk.idle(0)), (2, 0));
    // Those of the other host are its own.
    others.into_iter().for_each(|record| desk.give_back(record));
    assert_eq!((rotated(&desk), desk.idle(1)), (2, 2));
}

#[test]
fn what_is_asked_for_a_sign_of_life_ends_when_it_has_answered() {
    let mut desk = desk(2, vec![plan(0, 1)], |limits| limits.keepalive_interval = Some(SECOND));
    let record = desk.lease(desk.request(10));
    desk.give_back(record);
    desk.now += SECOND;
    let asked = desk.tend().probes.pop().unwrap();
    rotate(&mut desk, 0);
    assert_eq!(rotated(&desk), 0, "it is being asked");
    desk.state.proved_alive(asked, desk.now, &mut desk.fx);
    assert_eq!((rotated(&desk), desk.idle(0)), (1, 0));
}

#[test]
fn what_was_being_opened_is_opened_once_more_in_its_place() {
    let mut desk = Desk::new(1, vec![plan(0, 1)]);
    let (errand, grant) = desk.permit(desk.request(10));
    rotate(&mut desk, 0);
    // Whoever waits meanwhile does not get the place: it was somebody's.
    let (_, slot) = desk.wait(desk.request(10));
    let (record, arrival) = desk.state.opened(&grant, None, desk.now, &mut desk.fx);
    assert_eq!(arrival, Arrival::Outdated);
    let step = desk.state.outdated(&record, grant.charge, &errand, desk.now, &mut desk.fx);
    let Step::Take(Gift::Permit(again)) = step else { panic!("{step:?}") };
    assert_eq!(rotated(&desk), 1);
    let (record, arrival) = desk.state.opened(&again, None, desk.now, &mut desk.fx);
    assert_eq!((arrival, desk.fx.gifts.len()), (Arrival::Ready, 0));
    desk.give_back(record);
    desk.deliver();
    assert!(matches!(crate::pool::tests::desk::taken(&slot), Some(Gift::Connection(..))));
}

#[test]
fn what_the_old_credentials_are_refused_is_not_held_against_the_host() {
    let mut desk = Desk::new(2, vec![plan(0, 1)]);
    let permit = desk.permit(desk.request(10));
    rotate(&mut desk, 0);
    let step = desk.failed(permit, Blame::Credentials);
    assert!(matches!(step, Step::Take(Gift::Permit(_))), "{step:?}");
    assert_eq!(desk.host_state(0), HostState::Available);
    // A host that is not there is not there whatever the credentials are.
    let Step::Take(Gift::Permit(grant)) = step else { unreachable!() };
    let errand = desk.ask(desk.request(10)).0;
    rotate(&mut desk, 0);
    desk.failed((errand, grant), Blame::Host);
    assert!(matches!(desk.host_state(0), HostState::CoolingDown { .. }));
}

#[test]
fn a_lease_from_before_is_not_current_and_closings_are_polite() {
    let pool = attended(Fake::new(), vec![plan(0, 1)], limits(2));
    let (held, idle) = (lease(&pool), lease(&pool));
    let ids = [held.id(), idle.id()];
    idle.finish(KEEP);
    assert!(held.is_current());
    pool.rotate_credentials(HostId(0));
    assert!(!held.is_current());
    let fresh = lease(&pool);
    assert!(fresh.is_current() && !fresh.is_reused());
    held.finish(KEEP);
    for id in ids {
        until(|| pool.connector().fate(id) == Some(Close::Polite));
    }
    fresh.finish(KEEP);
    until(|| pool.counts().idle == 1 && pool.shared.look(|state| state.is_drained()));
    assert_at_rest(&pool);
}

#[test]
fn connections_in_reserve_are_opened_anew() {
    let mut limits = limits(2);
    limits.min_idle = 2;
    limits.refill_delay = Duration::ZERO;
    let pool = attended(Fake::new(), vec![plan(0, 1)], limits);
    until(|| pool.counts().idle == 2);
    pool.rotate_credentials(HostId(0));
    until(|| pool.counts().idle == 2 && pool.status().created == 4);
    assert!(lease(&pool).is_current());
}
