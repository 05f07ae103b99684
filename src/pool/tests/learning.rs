//! What a host puts up with is learned, kept to, and forgotten. The clock is in the test's hands.

use std::time::Duration;

use super::desk::{Desk, SECOND};
use super::fake::{limits, plan};
use crate::blame::Blame;
use crate::endpoint::HostId;
use crate::pool::held::Record;
use crate::pool::slot::Gift;
use crate::pool::state::Step;
use crate::pool::{Limits, Request};
use crate::stats::{DiscardReason, HostState, HostStatus};

const HOUR: Duration = Duration::from_secs(3600);

fn desk(change: impl FnOnce(&mut Limits)) -> Desk {
    let mut limits = limits(8);
    change(&mut limits);
    Desk::attended(limits, vec![plan(0, 1)])
}

fn told(desk: &Desk) -> HostStatus {
    desk.state.status(desk.now).hosts.remove(0)
}

fn learned_idle(desk: &Desk) -> Option<Duration> {
    told(desk).learned_idle_limit
}

/// Takes an idle connection; a server that ends what is silent for `patience` has ended it, or has not. True: it was dead, and
/// has been replaced.
fn use_one(desk: &mut Desk, patience: Duration) -> bool {
    let request = desk.request(10);
    let (errand, step) = desk.ask(request);
    let (record, was_dead) = match step {
        Step::Take(Gift::Connection(held, charge)) if held.record.silence() >= patience => {
            match desk.state.found_dead(&held.record, charge, &errand, desk.now, &mut desk.fx) {
                Step::Take(Gift::Permit(grant)) => (desk.opened(&grant), true),
                other => panic!("{other:?}"),
            }
        }
        Step::Take(Gift::Connection(held, _)) => (held.record, false),
        Step::Take(Gift::Permit(grant)) => (desk.opened(&grant), false),
        other => panic!("{other:?}"),
    };
    desk.give_back(record);
    was_dead
}

fn rest(desk: &mut Desk, seconds: u32) {
    desk.now += SECOND * seconds;
    desk.tend();
}

#[test]
fn after_three_sessions_ended_by_the_server_none_is_met_dead_any_more() {
    let patience = SECOND * 30;
    for keepalive in [None, Some(SECOND * 60)] {
        let mut desk = desk(|limits| {
            limits.keepalive_interval = keepalive;
            limits.idle_timeout = Some(SECOND * 120);
        });
        assert!(!use_one(&mut desk, patience));
        for _ in 0..3 {
            assert_eq!(learned_idle(&desk), None, "one observation is no rule, nor are two");
            rest(&mut desk, 36);
            assert!(use_one(&mut desk, patience));
        }
        assert_eq!(learned_idle(&desk), Some(SECOND * 27));
        let ended = desk.discarded(DiscardReason::ServerClosed);
        for seconds in [36, 27, 40, 31, 26, 59, 300, 12] {
            rest(&mut desk, seconds);
            assert!(!use_one(&mut desk, patience), "dead after {seconds} s");
        }
        assert_eq!(desk.discarded(DiscardReason::ServerClosed), ended);
        assert_eq!(desk.idle(0), 1);
        // What came back within its time was used again.
        assert_eq!(told(&desk).created, 4 + 6);
    }
}

#[test]
fn idleness_is_learned_again_if_it_was_learned_too_long() {
    let patience = SECOND * 10;
    let mut desk = desk(|_| ());
    use_one(&mut desk, patience);
    // Idle for a minute at first, and then for nearly as long as may be.
    let mut seconds = 60;
    let mut dead = 0;
    for _ in 0..40 {
        rest(&mut desk, seconds);
        dead += usize::from(use_one(&mut desk, patience));
        seconds = learned_idle(&desk).map_or(60, |limit| u32::try_from(limit.as_secs()).unwrap() - 1);
    }
    assert!(learned_idle(&desk).is_some_and(|limit| limit < patience), "{:?}", learned_idle(&desk));
    assert!(dead <= 30, "{dead}");
    rest(&mut desk, 10);
    assert!(!use_one(&mut desk, patience));
}

#[test]
fn a_restart_is_not_an_idle_limit() {
    let mut desk = desk(|_| ());
    let leases: Vec<_> = (0..8).map(|_| desk.lease(desk.request(10))).collect();
    // Idle for one second, two, and so on, when the server restarts; found one after the other.
    for lease in leases {
        rest(&mut desk, 1);
        desk.give_back(lease);
    }
    rest(&mut desk, 20);
    let restart = desk.now;
    let mut found = 0;
    while desk.idle(0) > 0 {
        let (errand, step) = desk.ask(desk.request(10));
        let Step::Take(Gift::Connection(held, charge)) = step else { panic!("{step:?}") };
        assert!(held.record.silent_from() <= restart);
        let step = desk.state.found_dead(&held.record, charge, &errand, desk.now, &mut desk.fx);
        assert!(matches!(step, Step::Take(Gift::Permit(_))));
        found += 1;
        desk.now += SECOND;
    }
    assert!(found >= 1);
    assert_eq!(learned_idle(&desk), None);
}

/// One connection, idle for so many seconds, found dead or alive.
fn find(desk: &mut Desk, seconds: u32, is_dead: bool) {
    rest(desk, seconds);
    assert_eq!(use_one(desk, if is_dead { Duration::ZERO } else { HOUR }), is_dead);
}

#[test]
fn what_lived_through_a_silence_as_long_says_that_it_was_something_else() {
    let mut desk = desk(|_| ());
    use_one(&mut desk, HOUR);
    for _ in 0..5 {
        find(&mut desk, 20, true);
        find(&mut desk, 25, true);
        find(&mut desk, 30, false);
    }
    assert_eq!(learned_idle(&desk), None, "restarts");
    // A shorter life proves nothing.
    for _ in 0..3 {
        find(&mut desk, 20, true);
        find(&mut desk, 19, false);
    }
    assert_eq!(learned_idle(&desk), Some(SECOND * 15));
}

#[test]
fn nothing_under_five_seconds_is_learned() {
    let mut desk = desk(|_| ());
    use_one(&mut desk, HOUR);
    for _ in 0..10 {
        find(&mut desk, 4, true);
    }
    assert_eq!(learned_idle(&desk), None);
    for _ in 0..3 {
        find(&mut desk, 5, true);
    }
    assert_eq!(learned_idle(&desk), Some(SECOND * 5), "and nothing shorter follows from what is just long enough");
}

#[test]
fn a_learned_idle_limit_is_forgotten_after_an_hour() {
    let mut desk = desk(|_| ());
    use_one(&mut desk, HOUR);
    for _ in 0..3 {
        find(&mut desk, 20, true);
    }
    assert_eq!(learned_idle(&desk), Some(SECOND * 15));
    desk.now += HOUR;
    assert_eq!(learned_idle(&desk), None);
    use_one(&mut desk, HOUR);
    find(&mut desk, 20, false);
    assert_eq!(desk.idle(0), 1);
    // Two that were found long ago and one that is found now make no three.
    find(&mut desk, 30, true);
    find(&mut desk, 30, true);
    desk.now += HOUR;
    desk.state.upkeep(desk.now, &mut desk.fx);
    find(&mut desk, 30, true);
    assert_eq!(learned_idle(&desk), None);
}

#[test]
fn those_kept_in_reserve_are_probed_before_the_server_would_end_them() {
    let mut desk = desk(|limits| {
        limits.min_idle = 1;
        limits.keepalive_interval = Some(SECOND * 60);
    });
    let one = |desk: &mut Desk, is_dead| {
        desk.now += SECOND * 20;
        use_one(desk, if is_dead { Duration::ZERO } else { HOUR });
    };
    use_one(&mut desk, HOUR);
    for _ in 0..3 {
        one(&mut desk, true);
    }
    assert_eq!(learned_idle(&desk), Some(SECOND * 15));
    desk.tend();
    let slept = desk.sleep();
    assert_eq!(slept, SECOND * 15);
    let chores = desk.tend();
    assert_eq!((chores.probes.len(), desk.idle(0)), (1, 0), "asked, and not retired");
}

#[expect(clippy::vec_box, reason = "the pool has them in boxes")]
fn refuse_the_fourth(desk: &mut Desk) -> Vec<Box<Record>> {
    let leases: Vec<_> = (0..3).map(|_| desk.lease(desk.request(10))).collect();
    let permit = desk.permit(desk.request(10));
    assert!(matches!(desk.failed(permit, Blame::Capacity), Step::Wait(_)), "it waits for one of those that live");
    leases
}

#[test]
fn without_learning_nothing_is_remembered() {
    let mut desk = desk(|limits| limits.learning = None);
    // Connections: no more for as long as a pause, and those that live go on.
    let mut leases = refuse_the_fourth(&mut desk);
    assert_eq!((told(&desk).connection_limit, told(&desk).learned_connection_limit), (Some(3), None));
    assert_eq!(told(&desk).state, HostState::Available);
    desk.give_back(leases.remove(0));
    assert_eq!(desk.fx.gifts.len(), 1, "who was refused is served by one of them");
    desk.deliver();
    let (errand, _) = desk.wait(desk.request(20));
    desk.state.forget(errand.ticket, desk.now, &mut desk.fx);
    desk.now += SECOND * 30;
    desk.give_back(leases.remove(0));
    assert_eq!(told(&desk).connection_limit, None);
    let (_, grant) = desk.permit(Request { fresh: true, ..desk.request(10) });
    desk.state.permit_returned(grant, desk.now, &mut desk.fx);
    // Messages.
    desk.state.learn_message_limit(HostId(0), 50, desk.now, &mut desk.fx);
    assert_eq!(told(&desk).learned_message_limit, None);
    // Idleness.
    for _ in 0..5 {
        let lease = leases.pop().unwrap_or_else(|| desk.lease(desk.request(10)));
        desk.give_back(lease);
        desk.now += SECOND * 20;
        use_one(&mut desk, Duration::ZERO);
    }
    assert_eq!(learned_idle(&desk), None);
}

#[test]
fn a_learned_message_limit_is_forgotten_after_an_hour() {
    let mut desk = desk(|_| ());
    desk.state.learn_message_limit(HostId(0), 2, desk.now, &mut desk.fx);
    let lease = desk.lease(desk.request(10));
    desk.give_back(lease);
    desk.now += HOUR - SECOND;
    let lease = desk.lease(desk.request(10));
    desk.give_back(lease);
    assert_eq!((desk.idle(0), told(&desk).learned_message_limit), (0, Some(2)), "retired after two");
    desk.now += SECOND;
    assert_eq!(told(&desk).learned_message_limit, None);
    for _ in 0..5 {
        let lease = desk.lease(desk.request(10));
        desk.give_back(lease);
    }
    assert_eq!(desk.idle(0), 1);
}

#[test]
fn a_learned_connection_limit_is_tried_again_after_an_hour() {
    let mut desk = desk(|_| ());
    let mut leases = refuse_the_fourth(&mut desk);
    assert_eq!(told(&desk).learned_connection_limit, Some(3));
    desk.now += HOUR - SECOND;
    desk.give_back(leases.remove(0));
    desk.deliver();
    assert_eq!(told(&desk).learned_connection_limit, Some(3));
    desk.now += SECOND;
    desk.give_back(leases.remove(0));
    assert_eq!(told(&desk).learned_connection_limit, Some(4));
}
