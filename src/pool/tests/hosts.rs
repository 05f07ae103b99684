//! Which host serves, as the state decides it; time is what the test says it is.

use std::collections::HashMap;
use std::sync::Arc;

use crate::blame::Blame;
use crate::clock::now as dawn;
use crate::endpoint::HostId;
use crate::pool::Request;
use crate::pool::slot::{Gift, RefusalReason};
use crate::pool::state::{PoolState, Step};
use crate::pool::tests::desk::{Desk, SECOND, taken};
use crate::pool::tests::fake::{limits, plan};
use crate::stats::{DiscardReason, HostState};

#[test]
fn weights_hold_for_leases_in_turn() {
    let mut desk = Desk::new(8, vec![plan(0, 3), plan(0, 1)]);
    let mut leases: HashMap<usize, u32> = HashMap::new();
    let mut longest_run = (0, 0);
    for _ in 0..400 {
        let record = desk.lease(desk.request(10));
        *leases.entry(record.host.0).or_default() += 1;
        longest_run.0 = if record.host.0 == 0 { longest_run.0 + 1 } else { 0 };
        longest_run.1 = longest_run.1.max(longest_run.0);
        desk.give_back(record);
    }
    assert_eq!((leases[&0], leases[&1]), (300, 100));
    assert!(longest_run.1 <= 3, "smooth, not in bursts");
}

#[test]
fn weights_hold_for_connections_being_opened() {
    let mut desk = Desk::new(80, vec![plan(0, 3), plan(0, 1)]);
    let opened: Vec<_> = (0..80).map(|_| desk.permit(desk.request(10)).1.host.0).collect();
    assert_eq!(opened.iter().filter(|&&host| host == 1).count(), 20);
}

#[test]
fn what_did_not_become_a_lease_is_not_charged() {
    let mut desk = Desk::new(8, vec![plan(0, 1), plan(0, 1)]);
    let record = desk.lease(desk.request(10));
    assert_eq!(record.host, HostId(0));
    for _ in 0..5 {
        let (_, grant) = desk.permit(desk.request(10));
        assert_eq!(grant.host, HostId(1));
        desk.state.permit_returned(grant, desk.now, &mut desk.fx);
    }
}

#[test]
fn a_dead_connection_and_its_replacement_are_charged_once() {
    let mut desk = Desk::new(8, vec![plan(0, 1), plan(0, 1)]);
    for _ in 0..2 {
        let record = desk.lease(desk.request(10));
        desk.give_back(record);
    }
    let (errand, Step::Take(Gift::Connection(dead, charge))) = desk.ask(desk.request(10)) else { panic!() };
    let step = desk.state.found_dead(&dead.record, charge, &errand, desk.now, &mut desk.fx);
    let Step::Take(Gift::Permit(grant)) = step else { panic!() };
    assert_eq!(grant.host, dead.record.host);
    // Nothing comes of it, so that it is still this host's turn.
    desk.state.permit_returned(grant, desk.now, &mut desk.fx);
    assert_eq!(desk.permit(desk.request(10)).1.host, dead.record.host);
}

#[test]
fn a_connection_that_is_being_opened_counts_as_capacity_until_it_is_refused_too() {
    let mut desk = Desk::new(8, vec![plan(0, 1)]);
    let _live = desk.lease(desk.request(10));
    let (refused, slower) = (desk.permit(desk.request(10)), desk.permit(desk.request(10)));
    let Step::Wait(_) = desk.failed(refused, Blame::Capacity) else { panic!() };
    assert_eq!(desk.state.status(desk.now).hosts[0].connection_limit, Some(2));
    let Step::Wait(_) = desk.failed(slower, Blame::Capacity) else { panic!() };
    assert_eq!(desk.state.status(desk.now).hosts[0].connection_limit, Some(1));
}

#[test]
fn a_lower_tier_is_used_only_when_the_preferred_one_cannot_be() {
    let mut desk = Desk::new(2, vec![plan(10, 1), plan(0, 1)]);
    let one = desk.lease(desk.request(10));
    assert_eq!(one.host, HostId(1));
    desk.give_back(one);
    desk.cool(1);
    // Its idle connection still serves, and is not given up for another host.
    let one = desk.lease(desk.request(10));
    assert_eq!(one.host, HostId(1));
    assert_eq!(desk.lease(desk.request(10)).host, HostId(0));
}

#[test]
fn a_busy_preferred_tier_is_waited_for() {
    let mut plans = vec![plan(0, 1), plan(10, 1)];
    plans[0].max_connections = Some(1);
    let mut desk = Desk::new(4, plans);
    let one = desk.lease(desk.request(10));
    let (_, slot) = desk.wait(desk.request(10));
    desk.give_back(one);
    desk.deliver();
    assert!(matches!(taken(&slot), Some(Gift::Connection(held, _)) if held.record.host == HostId(0)));
}

#[test]
fn an_untried_host_of_a_lower_tier_comes_before_an_avoided_one() {
    let mut desk = Desk::new(4, vec![plan(0, 1), plan(10, 1)]);
    let zero = desk.lease(desk.request(10));
    desk.give_back(zero);
    assert_eq!(desk.lease(desk.avoiding(&[0])).host, HostId(1));
    // A preference, not a ban.
    assert_eq!(desk.lease(desk.avoiding(&[0, 1])).host, HostId(0));
}

#[test]
fn who_can_use_what_nobody_before_can_use_gets_it() {
    let mut plans = vec![plan(0, 1), plan(10, 1)];
    plans[0].max_connections = Some(1);
    let mut desk = Desk::new(4, plans);
    let _zero = desk.lease(desk.request(10));
    let (_, first) = desk.wait(desk.request(10));
    let (_, second) = desk.wait(desk.avoiding(&[0]));
    desk.deliver();
    assert!(taken(&first).is_none());
    assert!(matches!(taken(&second), Some(Gift::Permit(grant)) if grant.host == HostId(1)));
}

#[test]
fn a_preferred_host_evicts_an_idle_connection_of_a_less_preferred_one() {
    let mut desk = Desk::new(2, vec![plan(0, 1), plan(10, 1)]);
    let pair = [desk.lease(desk.avoiding(&[0])), desk.lease(desk.avoiding(&[0]))];
    let ids = pair.clone().map(|record| record.id);
    pair.into_iter().for_each(|record| desk.give_back(record));
    let (_, grant) = desk.permit(desk.request(10));
    assert_eq!(grant.host, HostId(0));
    // The one idle for longest makes room, and its place is never free in between.
    assert_eq!(grant.evicted.as_ref().map(|held| held.record.id), Some(ids[0]));
    assert_eq!(desk.state.counts().total, 2);
    assert_eq!(desk.state.status(desk.now).discarded.of(DiscardReason::Evicted), 1);
    // Given up unused, the permit leaves the evicted one to be closed before the place is free.
    desk.state.permit_returned(grant, desk.now, &mut desk.fx);
    assert_eq!(desk.fx.closings.len(), 1);
    assert!(desk.state.hosts.are_full());
    desk.state.closed(HostId(1), desk.now, &mut desk.fx);
    assert!(!desk.state.hosts.are_full());
}

#[test]
fn a_host_does_not_evict_within_its_tier() {
    let mut desk = Desk::new(1, vec![plan(0, 1), plan(0, 1)]);
    for _ in 0..4 {
        let record = desk.lease(desk.request(10));
        assert_eq!(record.host, HostId(0));
        desk.give_back(record);
    }
    assert_eq!(desk.state.status(desk.now).discarded.total(), 0);
}

#[test]
fn a_host_never_has_more_than_its_own_bound() {
    let mut plans = vec![plan(0, 5), plan(0, 1)];
    plans[0].max_connections = Some(2);
    let mut desk = Desk::new(6, plans);
    let hosts: Vec<_> = (0..6).map(|_| desk.lease(desk.request(10)).host.0).collect();
    assert_eq!(hosts.iter().filter(|&&host| host == 0).count(), 2);
}

#[test]
fn one_probe_after_cooldown() {
    let mut desk = Desk::new(4, vec![plan(0, 1), plan(10, 1)]);
    desk.cool(0);
    desk.now += SECOND * 29;
    assert_eq!(desk.permit(desk.request(10)).1.host, HostId(1));
    desk.now += SECOND;
    let probe = desk.permit(desk.request(10));
    assert_eq!(probe.1.host, HostId(0));
    assert_eq!(desk.host_state(0), HostState::Probing);
    assert_eq!(desk.permit(desk.request(10)).1.host, HostId(1));
    // It fails: the next pause is twice as long.
    drop(desk.failed(probe, Blame::Host));
    assert_eq!(desk.host_state(0), HostState::CoolingDown { until: desk.now + SECOND * 60 });
    desk.now += SECOND * 60;
    desk.state.shut_down(desk.now, &mut desk.fx);
}

#[test]
fn a_probe_that_was_dropped_is_followed_by_another() {
    let mut desk = Desk::new(4, vec![plan(0, 1)]);
    desk.cool(0);
    desk.now += SECOND * 30;
    let (_, grant) = desk.permit(desk.request(10));
    let (_, slot) = desk.wait(desk.request(10));
    desk.state.permit_returned(grant, desk.now, &mut desk.fx);
    desk.deliver();
    let Some(Gift::Permit(grant)) = taken(&slot) else { panic!() };
    assert_eq!(desk.state.status(desk.now).hosts[0].consecutive_failures, 1);
    let _ = desk.opened(&grant);
    assert_eq!(desk.host_state(0), HostState::Available);
}

#[test]
fn failures_begun_before_the_cooldown_count_once() {
    let mut desk = Desk::new(4, vec![plan(0, 1)]);
    let permits: Vec<_> = (0..4).map(|_| desk.permit(desk.request(10))).collect();
    for permit in permits {
        drop(desk.failed(permit, Blame::Host));
    }
    let status = desk.state.status(desk.now);
    assert_eq!(status.hosts[0].state, HostState::CoolingDown { until: desk.now + SECOND * 30 });
    assert_eq!(status.hosts[0].consecutive_failures, 4);
}

#[test]
fn waiting_for_a_cooldown_is_refused_to_those_who_cannot_outwait_it() {
    let mut desk = Desk::new(4, vec![plan(0, 1)]);
    desk.cool(0);
    desk.now += SECOND;
    let (_, Step::Take(Gift::Refusal(refusal))) = desk.ask(desk.request(29)) else { panic!() };
    let RefusalReason::Unavailable { retry_after, last_error } = refusal.reason else { panic!() };
    assert_eq!(retry_after, Some(SECOND * 29));
    assert_eq!(last_error, Some((HostId(0), Arc::from("no"))));
    let (_, slot) = desk.wait(desk.request(30));
    // It is told to keep the time, since nobody else does.
    assert!(desk.fx.nudge.as_ref().is_some_and(|nudged| Arc::ptr_eq(nudged, &slot)));
}

#[test]
fn each_waiter_is_refused_by_its_own_deadline() {
    let mut desk = Desk::new(4, vec![plan(0, 1)]);
    let live = desk.lease(desk.request(10));
    desk.cool(0);
    let slots = [10, 40, 20, 50].map(|seconds| desk.wait(desk.request(seconds)).1);
    desk.deliver();
    assert!(slots.iter().all(|slot| taken(slot).is_none()));
    // The last live connection goes: only those who can outwait the cooldown stay.
    desk.vacate(&live);
    desk.deliver();
    let refused = slots.each_ref().map(|slot| matches!(taken(slot), Some(Gift::Refusal(_))));
    assert_eq!(refused, [true, false, true, false]);
}

#[test]
fn the_head_of_the_queue_wakes_when_the_cooldown_ends() {
    let mut desk = Desk::new(4, vec![plan(0, 1)]);
    desk.cool(0);
    let (errand, slot) = desk.wait(desk.request(100));
    let (other, second) = desk.wait(desk.request(100));
    let wake = desk.state.tick(&errand, desk.now, &mut desk.fx);
    assert_eq!(wake, desk.now + SECOND * 30);
    assert_eq!(desk.state.tick(&other, desk.now, &mut desk.fx), desk.now + SECOND * 100);
    desk.fx.nudge = None;
    // The head leaves: the next one takes over.
    desk.state.forget(errand.ticket, desk.now, &mut desk.fx);
    assert!(desk.fx.nudge.as_ref().is_some_and(|nudged| Arc::ptr_eq(nudged, &second)));
    desk.now = wake;
    desk.state.tick(&other, desk.now, &mut desk.fx);
    desk.deliver();
    assert!(matches!(taken(&second), Some(Gift::Permit(_))));
    assert!(taken(&slot).is_none());
}

#[test]
fn an_open_that_fails_at_the_deadline_is_the_fault_of_the_host() {
    let mut desk = Desk::new(4, vec![plan(0, 1)]);
    let permit = desk.permit(desk.request(10));
    desk.now += SECOND * 10;
    let Step::Take(Gift::Refusal(refusal)) = desk.failed(permit, Blame::Host) else { panic!() };
    assert!(matches!(refusal.reason, RefusalReason::Unavailable { .. }), "{refusal:?}");
    assert_eq!(desk.state.status(desk.now).exhausted, 0);
}

#[test]
fn whoever_comes_back_keeps_time_again() {
    let mut desk = Desk::new(4, vec![plan(0, 1), plan(0, 1)]);
    desk.cool(0);
    desk.now += SECOND * 10;
    desk.cool(1);
    let (errand, slot) = desk.wait(desk.request(90));
    desk.now = desk.state.tick(&errand, desk.now, &mut desk.fx);
    desk.state.tick(&errand, desk.now, &mut desk.fx);
    desk.deliver();
    let Some(Gift::Permit(grant)) = taken(&slot) else { panic!() };
    desk.fx.nudge = None;
    let Step::Wait(again) = desk.failed((errand, grant), Blame::Host) else { panic!() };
    assert!(desk.fx.nudge.as_ref().is_some_and(|nudged| Arc::ptr_eq(nudged, &again)));
}

#[test]
fn a_late_gift_is_passed_on() {
    let mut desk = Desk::new(1, vec![plan(0, 1)]);
    let record = desk.lease(desk.request(10));
    let (_, late) = desk.wait(desk.request(10));
    let (_, next) = desk.wait(desk.request(10));
    desk.give_back(record.clone());
    // The gift is on its way when the first one's time is up.
    assert!(late.give_up().is_none());
    desk.deliver();
    let Some(Gift::Connection(held, _)) = taken(&next) else { panic!() };
    assert_eq!(held.record.id, record.id);
    assert_eq!(desk.state.counts().leased, 1);
    // A permit is passed on alike.
    let (_, late) = desk.wait(desk.request(10));
    let (_, next) = desk.wait(desk.request(10));
    desk.vacate(&held.record);
    assert!(late.give_up().is_none());
    desk.deliver();
    assert!(matches!(taken(&next), Some(Gift::Permit(_))));
    assert_eq!(desk.state.counts().connecting, 1);
}

#[test]
fn a_permit_is_never_given_to_one_whose_time_is_over() {
    let mut desk = Desk::new(1, vec![plan(0, 1)]);
    let record = desk.lease(desk.request(10));
    let (_, late) = desk.wait(desk.request(1));
    let (_, next) = desk.wait(desk.request(10));
    desk.now += SECOND * 2;
    desk.vacate(&record);
    desk.deliver();
    assert!(taken(&late).is_none());
    assert!(matches!(taken(&next), Some(Gift::Permit(_))));
}

#[test]
fn lifetimes_are_spread() {
    let mut limits = limits(50);
    limits.max_lifetime = Some(SECOND * 100);
    let now = dawn();
    let mut state: PoolState<()> = PoolState::new(vec![plan(0, 1)], limits, 1, now);
    let lives: Vec<_> = (0..50).filter_map(|_| state.draw_lifetime()).collect();
    assert!(lives.iter().all(|&life| life <= SECOND * 100 && life >= SECOND * 90));
    assert!(lives.iter().max().unwrap().saturating_sub(*lives.iter().min().unwrap()) > SECOND * 5);
}

#[test]
fn a_host_that_takes_two_connections_is_found_out_by_eight_callers_at_once() {
    let mut desk = Desk::new(8, vec![plan(0, 1)]);
    let mut permits: Vec<_> = (0..8).map(|_| desk.permit(desk.request(10))).collect();
    // The server turns six of them away before any of the others stands.
    let waiting: Vec<_> = permits
        .drain(2..)
        .map(|permit| match desk.failed(permit, Blame::Capacity) {
            Step::Wait(slot) => slot,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(desk.host_state(0), HostState::Available);
    assert_eq!(desk.state.status(desk.now).hosts[0].connection_limit, Some(2));
    let records: Vec<_> = permits.iter().map(|(_, grant)| desk.opened(grant)).collect();
    assert!(waiting.iter().all(|slot| taken(slot).is_none()));
    for record in records {
        desk.give_back(record);
    }
    desk.deliver();
    let served = waiting.iter().filter(|slot| matches!(taken(slot), Some(Gift::Connection(..)))).count();
    assert_eq!(served, 2);
}

#[test]
fn whoever_keeps_time_is_told_of_the_next_cooldown_too() {
    let mut desk = Desk::new(2, vec![plan(0, 1), plan(0, 1)]);
    desk.cool(0);
    let records = [desk.lease(desk.request(10)), desk.lease(desk.request(10))];
    let (errand, slot) = desk.wait(desk.request(1000));
    desk.now = desk.state.tick(&errand, desk.now, &mut desk.fx);
    desk.fx.nudge = None;
    // The first cooldown ends while no place is free: now there is no time to keep.
    assert_eq!(desk.state.tick(&errand, desk.now, &mut desk.fx), errand.request.deadline.instant());
    // The next one begins, and is to end after the first one did.
    desk.state.lasting_refusal(records[0].host, records[0].id, 0, "no".into(), desk.now, &mut desk.fx);
    assert!(desk.fx.nudge.as_ref().is_some_and(|nudged| Arc::ptr_eq(nudged, &slot)));
    assert_eq!(desk.state.tick(&errand, desk.now, &mut desk.fx), desk.now + SECOND * 300);
}

#[test]
fn whoever_comes_after_one_with_time_is_told_at_once_that_its_own_is_too_short() {
    let mut limits = limits(4);
    limits.fair_time = SECOND * 5;
    let mut desk = Desk::with(limits, vec![plan(0, 1)]);
    desk.cool(0);
    let (_, patient) = desk.wait(desk.request(100));
    // The pause ends after thirty seconds, and two are too few to say anything about the host.
    let (_, hurried) = desk.wait(desk.request(32));
    desk.deliver();
    let Some(Gift::Refusal(refusal)) = taken(&hurried) else { panic!() };
    assert!(matches!(refusal.reason, RefusalReason::Unavailable { .. }), "{refusal:?}");
    assert!(taken(&patient).is_none());
}

#[test]
fn an_evicted_connection_counts_for_its_host_until_it_is_closed() {
    let mut standby = plan(10, 1);
    standby.max_connections = Some(1);
    let mut desk = Desk::new(2, vec![plan(0, 1), standby]);
    let idle = desk.lease(desk.avoiding(&[0]));
    desk.give_back(idle.clone());
    let fresh = Request { fresh: true, ..desk.request(10) };
    let preferred = desk.lease(fresh.clone());
    let (_, mut grant) = desk.permit(fresh);
    assert_eq!((preferred.host, grant.host), (HostId(0), HostId(0)));
    assert_eq!(grant.evicted.as_ref().map(|held| held.record.id), Some(idle.id));
    // A place is free, and the standby host still has as many connections as it may.
    desk.vacate(&preferred);
    let (_, slot) = desk.wait(desk.avoiding(&[0]));
    desk.deliver();
    assert!(taken(&slot).is_none());
    grant.evicted = None;
    desk.state.yielded(HostId(1), desk.now, &mut desk.fx);
    desk.deliver();
    let Some(Gift::Permit(next)) = taken(&slot) else { panic!() };
    assert_eq!(next.host, HostId(1));
    // Given back unclosed, it has a place of its own again, and is counted once.
    desk.opened(&grant);
    desk.state.permit_returned(next, desk.now, &mut desk.fx);
    assert_eq!(desk.state.hosts.all.iter().map(|host| (host.yielding, host.closing)).collect::<Vec<_>>(), [(0, 0); 2]);
}
