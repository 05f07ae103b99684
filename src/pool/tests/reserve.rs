//! Connections opened in reserve: when, where, and when not; time is what the test says it is.

use crate::blame::Blame;
use crate::endpoint::HostId;
use crate::pool::held::Held;
use crate::pool::slot::Gift;
use crate::pool::tests::desk::{SECOND, desk, taken};
use crate::pool::tests::fake::plan;
use crate::stats::HostState;

#[test]
fn reserve_is_opened_from_the_start_and_up_to_its_number() {
    let mut desk = desk(8, vec![plan(0, 3), plan(0, 1), plan(5, 1)], |limits| limits.min_idle = 4);
    assert!(desk.tend().refill);
    // One thread at a time.
    assert!(!desk.tend().refill);
    desk.refill();
    assert_eq!([desk.idle(0), desk.idle(1), desk.idle(2)], [3, 1, 0]);
    assert!(!desk.tend().refill);
}

#[test]
fn reserve_stays_within_all_bounds() {
    let mut plans = vec![plan(0, 1), plan(0, 1)];
    plans[0].max_connections = Some(1);
    let mut desk = desk(4, plans, |limits| limits.min_idle = 4);
    let held = [desk.lease(desk.request(1)), desk.lease(desk.request(1))];
    desk.tend();
    assert_eq!(desk.refill(), [HostId(1), HostId(1)]);
    assert_eq!(desk.state.counts().total, 4);
    assert!(!desk.tend().refill);
    for record in &held {
        desk.vacate(record);
    }
    desk.tend();
    assert_eq!(desk.refill(), [HostId(0), HostId(1)]);
}

#[test]
fn reserve_is_not_opened_while_somebody_waits() {
    let mut plans = vec![plan(0, 1), plan(10, 1)];
    plans[0].max_connections = Some(1);
    let mut desk = desk(4, plans, |limits| limits.min_idle = 1);
    let record = desk.lease(desk.request(10));
    desk.tend();
    let (errand, slot) = desk.wait(desk.request(10));
    assert!(desk.state.refill(desk.now).is_none());
    desk.deliver();
    assert!(taken(&slot).is_none());
    desk.state.forget(errand.ticket, desk.now, &mut desk.fx);
    desk.vacate(&record);
    assert_eq!(desk.refill(), [HostId(0)]);
}

#[test]
fn reserve_opened_while_somebody_comes_to_wait_goes_to_the_waiter() {
    let mut desk = desk(1, vec![plan(0, 1)], |limits| limits.min_idle = 1);
    assert!(desk.tend().refill);
    let grant = desk.state.refill(desk.now).unwrap();
    let (_, slot) = desk.wait(desk.request(10));
    let record = desk.opened(&grant);
    let gift = Gift::Connection(Held { connection: (), record }, grant.charge);
    desk.state.pass_on(gift, desk.now, &mut desk.fx);
    desk.deliver();
    assert!(matches!(taken(&slot), Some(Gift::Connection(..))));
}

#[test]
fn reserve_waits_for_the_end_of_a_cooldown_and_is_the_only_probe() {
    let mut desk = desk(4, vec![plan(0, 1)], |limits| limits.min_idle = 2);
    desk.cool(0);
    desk.now += SECOND;
    assert!(!desk.tend().refill);
    assert_eq!(desk.sleep(), SECOND * 29);
    assert!(desk.tend().refill);
    let grant = desk.state.refill(desk.now).unwrap();
    assert_eq!(desk.host_state(0), HostState::Probing);
    // Callers wait for the probe, as they would for a caller's.
    let (_, slot) = desk.wait(desk.request(10));
    assert!(desk.state.refill(desk.now).is_none());
    let failure = desk.state.note_failure(&grant, Blame::Host, "no".into(), desk.now, &mut desk.fx);
    assert!(desk.state.refill_failed(failure, desk.now, &mut desk.fx));
    desk.deliver();
    assert!(matches!(taken(&slot), Some(Gift::Refusal(_))));
    assert!(desk.state.refill(desk.now).is_none());
    desk.state.refill_ended(true, desk.now, &mut desk.fx);
    desk.tend();
    assert_eq!(desk.sleep(), SECOND * 60);
}

#[test]
fn a_caller_s_probe_is_the_only_one_too() {
    let mut desk = desk(4, vec![plan(0, 1)], |limits| limits.min_idle = 2);
    desk.cool(0);
    desk.now += SECOND * 30;
    let (_, grant) = desk.permit(desk.request(10));
    assert!(!desk.tend().refill);
    let record = desk.opened(&grant);
    assert!(desk.tend().refill);
    assert_eq!(desk.refill().len(), 2);
    desk.give_back(record);
}

#[test]
fn reserve_is_renewed_after_the_delay() {
    let mut desk = desk(4, vec![plan(0, 1)], |limits| {
        limits.min_idle = 1;
        limits.refill_delay = SECOND * 5;
    });
    desk.tend();
    desk.refill();
    desk.tend();
    let record = desk.lease(desk.request(1));
    desk.tend();
    desk.refill();
    desk.vacate(&record);
    let record = desk.lease(desk.request(1));
    desk.vacate(&record);
    assert!(desk.fx.ring);
    assert!(!desk.tend().refill);
    assert_eq!(desk.sleep(), SECOND * 5);
    assert!(desk.tend().refill);
}

#[test]
fn a_failure_that_cools_nobody_pauses_the_reserve_all_the_same() {
    for blame in [Blame::Local, Blame::Nobody] {
        let mut desk = desk(4, vec![plan(0, 1)], |limits| limits.min_idle = 1);
        desk.tend();
        let grant = desk.state.refill(desk.now).unwrap();
        let failure = desk.state.note_failure(&grant, blame, "no".into(), desk.now, &mut desk.fx);
        assert!(!desk.state.refill_failed(failure, desk.now, &mut desk.fx));
        desk.state.refill_ended(true, desk.now, &mut desk.fx);
        assert!(!desk.tend().refill);
        assert_eq!(desk.sleep(), SECOND * 30);
        assert!(desk.tend().refill);
    }
}

#[test]
fn a_refill_that_broke_off_is_not_repeated_at_once() {
    let mut desk = desk(4, vec![plan(0, 1)], |limits| limits.min_idle = 1);
    desk.tend();
    desk.state.refill_ended(false, desk.now, &mut desk.fx);
    assert!(!desk.tend().refill);
    assert_eq!(desk.sleep(), SECOND * 30);
}
