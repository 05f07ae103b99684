//! What is due when, as the state decides it; time is what the test says it is.

use std::time::Duration;

use crate::endpoint::HostId;
use crate::pool::errand::Request;
use crate::pool::held::Record;
use crate::pool::slot::Gift;
use crate::pool::tests::desk::{Desk, SECOND, desk, taken};
use crate::pool::tests::fake::plan;
use crate::pool::upkeep::MAX_PROBES;
use crate::stats::{DiscardReason, HostState};

/// So many idle connections, put away one second after the other.
fn with_idle(desk: &mut Desk, count: usize) -> Vec<u64> {
    let leases: Vec<Box<Record>> = (0..count).map(|_| desk.lease(desk.request(10))).collect();
    let ids = leases.iter().map(|record| record.id).collect();
    for record in leases {
        desk.now += SECOND;
        desk.give_back(record);
    }
    ids
}

fn idle_ids(desk: &Desk) -> Vec<u64> {
    desk.state.hosts.idle().map(|held| held.record.id).collect()
}

#[test]
fn an_empty_pool_has_nothing_to_wake_for() {
    let mut desk = desk(4, vec![plan(0, 1)], |limits| {
        limits.idle_timeout = Some(SECOND * 120);
        limits.keepalive_interval = Some(SECOND * 60);
    });
    desk.tend();
    assert_eq!(desk.state.alarm(), None);
}

#[test]
fn idle_connections_end_when_their_time_comes_and_not_before() {
    let mut desk = desk(4, vec![plan(0, 1)], |limits| limits.idle_timeout = Some(SECOND * 120));
    with_idle(&mut desk, 3);
    desk.tend();
    for left in [2, 1, 0] {
        desk.sleep();
        desk.now -= Duration::from_nanos(1);
        desk.tend();
        assert_eq!(desk.idle(0), left + 1);
        desk.now += Duration::from_nanos(1);
        desk.tend();
        assert_eq!(desk.idle(0), left);
    }
    assert_eq!(desk.state.alarm(), None);
    assert_eq!(desk.discarded(DiscardReason::IdleTimeout), 3);
    assert!(desk.state.is_drained());
}

#[test]
fn the_newest_idle_connections_are_kept_in_reserve() {
    let mut desk = desk(5, vec![plan(0, 1)], |limits| {
        limits.idle_timeout = Some(SECOND * 120);
        limits.min_idle = 2;
    });
    let ids = with_idle(&mut desk, 5);
    desk.now += SECOND * 1000;
    assert!(!desk.tend().refill);
    assert_eq!(idle_ids(&desk), ids[3..]);
    // Nothing will happen to them by the passing of time, and callers may have them.
    assert_eq!(desk.state.alarm(), None);
    assert_eq!(desk.lease(desk.request(1)).id, ids[4]);
}

#[test]
fn a_newer_idle_connection_ends_the_time_of_the_oldest_one_in_reserve() {
    let mut desk = desk(5, vec![plan(0, 1)], |limits| {
        limits.idle_timeout = Some(SECOND * 120);
        limits.min_idle = 1;
    });
    let old = with_idle(&mut desk, 1)[0];
    desk.now += SECOND * 1000;
    desk.tend();
    let (_, grant) = desk.permit(Request { fresh: true, ..desk.request(10) });
    let newer = desk.opened(&grant);
    desk.tend();
    desk.give_back(newer.clone());
    assert!(desk.fx.ring);
    desk.tend();
    assert_eq!(idle_ids(&desk), [newer.id]);
    assert_ne!(newer.id, old);
}

#[test]
fn nothing_in_reserve_outlives_its_lifetime() {
    let mut desk = desk(4, vec![plan(0, 1)], |limits| {
        limits.max_lifetime = Some(SECOND * 1000);
        limits.lifetime_jitter = 0.0;
        limits.min_idle = 2;
    });
    desk.tend();
    assert_eq!(desk.refill().len(), 2);
    desk.tend();
    assert_eq!(desk.sleep(), SECOND * 1000);
    assert!(desk.tend().refill);
    assert_eq!((desk.idle(0), desk.discarded(DiscardReason::MaxLifetime)), (0, 2));
}

#[test]
fn connections_opened_together_do_not_end_together() {
    let mut desk = desk(40, vec![plan(0, 1)], |limits| {
        limits.max_lifetime = Some(SECOND * 1000);
        limits.min_idle = 40;
    });
    desk.tend();
    desk.refill();
    desk.tend();
    let dawn = desk.now;
    let mut most = 0;
    let mut first = None;
    while desk.idle(0) > 0 {
        let before = desk.idle(0);
        desk.sleep();
        first.get_or_insert(desk.now - dawn);
        desk.tend();
        most = most.max(before - desk.idle(0));
    }
    assert!(most <= 2 && first < Some(SECOND * 920), "{most} at once, the first after {first:?}");
    assert!(desk.now - dawn > SECOND * 980 && desk.now - dawn <= SECOND * 1000);
}

#[test]
fn a_silent_connection_is_asked_and_stays_as_idle_as_it_was() {
    let mut desk = desk(4, vec![plan(0, 1)], |limits| {
        limits.keepalive_interval = Some(SECOND * 60);
        limits.idle_timeout = Some(SECOND * 150);
    });
    let id = with_idle(&mut desk, 1)[0];
    desk.tend();
    for _ in 0..2 {
        assert_eq!(desk.sleep(), SECOND * 60);
        let mut probes = desk.tend().probes;
        assert_eq!(probes.iter().map(|held| held.record.id).collect::<Vec<_>>(), [id]);
        assert_eq!((desk.idle(0), desk.state.counts().leased), (0, 1));
        desk.state.proved_alive(probes.remove(0), desk.now, &mut desk.fx);
        assert_eq!(desk.idle(0), 1);
        assert!(desk.tend().probes.is_empty());
    }
    assert_eq!(desk.sleep(), SECOND * 30);
    desk.tend();
    assert_eq!(desk.discarded(DiscardReason::IdleTimeout), 1);
}

#[test]
fn the_connection_used_last_is_lent_first_whatever_was_asked_meanwhile() {
    let mut desk = desk(4, vec![plan(0, 1)], |limits| limits.keepalive_interval = Some(SECOND * 60));
    let ids = with_idle(&mut desk, 3);
    // Only the oldest one is due.
    desk.now += SECOND * 58;
    let mut probes = desk.tend().probes;
    assert_eq!(probes.len(), 1);
    desk.state.proved_alive(probes.remove(0), desk.now, &mut desk.fx);
    assert_eq!(idle_ids(&desk), ids);
}

#[test]
fn after_eight_probes_a_connection_is_retired_and_its_reserve_renewed() {
    let mut desk = desk(4, vec![plan(0, 1)], |limits| {
        limits.keepalive_interval = Some(SECOND * 60);
        limits.min_idle = 1;
    });
    desk.tend();
    desk.refill();
    let mut asked = 0;
    loop {
        desk.sleep();
        let chores = desk.tend();
        if chores.probes.is_empty() && !chores.refill {
            continue;
        }
        if chores.refill {
            break;
        }
        for held in chores.probes {
            asked += 1;
            desk.state.proved_alive(held, desk.now, &mut desk.fx);
        }
    }
    assert_eq!(asked, MAX_PROBES);
    assert_eq!(desk.discarded(DiscardReason::IdleTimeout), 1);
    desk.refill();
    // Mail in between starts the count anew.
    desk.sleep();
    let held = desk.tend().probes.remove(0);
    desk.state.proved_alive(held, desk.now, &mut desk.fx);
    let record = desk.lease(desk.request(1));
    assert_eq!(record.probes, 1);
    desk.give_back(record);
    assert_eq!(desk.lease(desk.request(1)).probes, 0);
}

#[test]
fn the_alarm_never_rings_for_nothing_while_a_pool_is_idle() {
    let mut desk = desk(8, vec![plan(0, 1)], |limits| {
        limits.keepalive_interval = Some(SECOND * 60);
        limits.idle_timeout = Some(SECOND * 500);
        limits.min_idle = 2;
    });
    with_idle(&mut desk, 5);
    desk.tend();
    let (dawn, mut wakes, mut events) = (desk.now, 0, 0);
    while desk.now - dawn < SECOND * 3600 {
        desk.sleep();
        wakes += 1;
        let before = desk.state.counts().idle;
        let chores = desk.tend();
        let ended = before - desk.state.counts().idle;
        assert!(ended > 0 || chores.refill, "woke for nothing");
        events += 1;
        for held in chores.probes {
            desk.state.proved_alive(held, desk.now, &mut desk.fx);
        }
        if chores.refill {
            desk.refill();
        }
        desk.tend();
    }
    assert!(wakes <= events && wakes < 400, "{wakes} wakes");
}

#[test]
fn messages_do_not_ring() {
    let mut desk = desk(4, vec![plan(0, 1), plan(0, 1), plan(5, 1)], |limits| {
        limits.keepalive_interval = Some(SECOND * 60);
        limits.idle_timeout = Some(SECOND * 120);
        limits.max_lifetime = Some(SECOND * 1200);
        limits.min_idle = 1;
    });
    desk.tend();
    desk.refill();
    let mut rings = 0;
    for _ in 0..6000 {
        desk.now += Duration::from_millis(10);
        if std::mem::take(&mut desk.fx.ring) || desk.state.alarm().is_some_and(|at| at <= desk.now) {
            rings += 1;
            if desk.tend().refill {
                desk.refill();
            }
        }
        let record = desk.lease(desk.request(10));
        desk.now += Duration::from_millis(10);
        desk.give_back(record);
    }
    // Two minutes of mail.
    assert!(rings <= 10, "{rings} wakes");
}

#[test]
fn fail_back_retires_one_a_second_oldest_first() {
    let mut desk = desk(6, vec![plan(0, 1), plan(10, 1)], |_| {});
    desk.cool(0);
    let ids = with_idle_on_standby(&mut desk, 4);
    desk.now += SECOND * 30;
    desk.tend();
    assert_eq!(desk.idle(1), 4);
    // Some caller finds that the primary works again.
    let (_, grant) = desk.permit(Request { fresh: true, ..desk.request(10) });
    assert_eq!(grant.host, HostId(0));
    let record = desk.opened(&grant);
    assert!(desk.fx.ring);
    for left in (0..4).rev() {
        desk.tend();
        assert_eq!(idle_ids(&desk), ids[4 - left..]);
        if left > 0 {
            assert_eq!(desk.sleep(), SECOND);
        }
    }
    assert_eq!(desk.discarded(DiscardReason::Evicted), 4);
    desk.give_back(record);
    desk.tend();
    assert_eq!((desk.idle(0), desk.state.alarm()), (1, None));
}

/// So many idle connections to the second host.
fn with_idle_on_standby(desk: &mut Desk, count: usize) -> Vec<u64> {
    let leases: Vec<Box<Record>> = (0..count).map(|_| desk.lease(desk.avoiding(&[0]))).collect();
    let ids = leases.iter().map(|record| record.id).collect();
    leases.into_iter().for_each(|record| desk.give_back(record));
    ids
}

#[test]
fn standby_connections_stay_until_a_preferred_host_has_proved_itself() {
    let mut desk = desk(6, vec![plan(0, 1), plan(10, 1)], |_| {});
    desk.cool(0);
    with_idle_on_standby(&mut desk, 2);
    // The cooldown is over, but nothing has been opened; a probe is under way.
    desk.now += SECOND * 31;
    desk.tend();
    let (_, probe) = desk.permit(Request { fresh: true, ..desk.request(10) });
    desk.tend();
    assert_eq!((desk.idle(1), desk.host_state(0)), (2, HostState::Probing));
    let record = desk.opened(&probe);
    desk.tend();
    assert_eq!(desk.idle(1), 1);
    // Its last connection gone, it has to prove itself again.
    desk.vacate(&record);
    desk.now += SECOND * 10;
    desk.tend();
    assert_eq!(desk.idle(1), 1);
}

#[test]
fn reserve_moves_back_to_the_preferred_host_and_stays_there() {
    let mut desk = desk(8, vec![plan(0, 1), plan(10, 1)], |limits| limits.min_idle = 3);
    desk.cool(0);
    desk.tend();
    desk.refill();
    assert_eq!([desk.idle(0), desk.idle(1)], [0, 3]);
    desk.now += SECOND * 30;
    let (_, probe) = desk.permit(Request { fresh: true, ..desk.request(10) });
    let record = desk.opened(&probe);
    desk.give_back(record);
    for _ in 0..20 {
        if desk.tend().refill {
            desk.refill();
        }
        desk.now += SECOND;
    }
    assert_eq!([desk.idle(0), desk.idle(1)], [3, 0]);
    assert_eq!(desk.state.next_due(desk.now), None);
    assert_eq!(desk.discarded(DiscardReason::Evicted), 3);
}

#[test]
fn a_goodbye_is_left_to_the_thread_unless_somebody_needs_the_place() {
    let mut desk = desk(1, vec![plan(0, 1)], |limits| limits.max_messages = Some(1));
    desk.tend();
    let record = desk.lease(desk.request(10));
    desk.give_back(record);
    assert!(desk.fx.closings.is_empty() && desk.fx.ring);
    assert!(desk.state.hosts.are_full());
    // Somebody comes before the thread does: the goodbye is theirs.
    let (_, slot) = desk.wait(desk.request(10));
    assert_eq!(desk.fx.closings.len(), 1);
    desk.tend();
    assert!(matches!(taken(&slot), Some(Gift::Permit(_))));
}

#[test]
fn the_thread_s_end_leaves_nothing_undone() {
    let mut desk = desk(2, vec![plan(0, 1)], |limits| limits.max_messages = Some(1));
    let record = desk.lease(desk.request(10));
    desk.give_back(record);
    desk.state.dismiss_thread(&mut desk.fx);
    assert_eq!(desk.fx.closings.len(), 1);
    let record = desk.lease(desk.request(10));
    desk.give_back(record);
    assert_eq!(desk.fx.closings.len(), 2);
}

#[test]
fn nobody_waits_for_the_answer_to_a_probe_while_there_is_room() {
    let mut desk = desk(2, vec![plan(0, 1)], |limits| limits.keepalive_interval = Some(SECOND * 60));
    let record = desk.lease(desk.request(1));
    desk.give_back(record);
    desk.now += SECOND * 60;
    let mut probes = desk.tend().probes;
    assert_eq!((probes.len(), desk.state.counts().leased), (1, 1));
    // The server may have forgotten it: a caller that waited would wait out the probe, and open one all the same (SPEC §8:
    // care delays nobody). So there may be two for a while, which is within the bound, and idleness ends the second one.
    let (_, grant) = desk.permit(desk.request(10));
    // Without room it is waited for.
    let (_, slot) = desk.wait(desk.request(10));
    desk.state.proved_alive(probes.remove(0), desk.now, &mut desk.fx);
    desk.deliver();
    assert!(matches!(taken(&slot), Some(Gift::Connection(..))));
    assert_eq!(desk.opened(&grant).id, 2);
    assert_eq!(desk.state.counts().total, 2);
}
