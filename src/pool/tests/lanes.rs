//! Two lanes: who is in a hurry hardly waits, and who is not is not forgotten. The clock is in the test's hands.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use super::desk::{Desk, SECOND, taken};
use super::fake::{limits, plan};
use crate::endpoint::HostId;
use crate::lane::Lane;
use crate::lane::Lane::{Bulk, Interactive};
use crate::pool::Request;
use crate::pool::held::Record;
use crate::pool::slot::{Gift, Slot};
use crate::pool::state::Step;

const MILLI: Duration = Duration::from_millis(1);

fn of(desk: &Desk, lane: Lane) -> Request {
    Request { lane, ..desk.request(1000) }
}

/// A pool of so many places, none of them kept from bulk.
fn desk(max_size: usize) -> Desk {
    let limits = crate::pool::Limits { interactive_reserve: 0.0, ..limits(max_size) };
    Desk::with(limits, vec![plan(0, 1)])
}

/// Callers that wait, and who they are.
struct Line(Vec<(&'static str, Arc<Slot<()>>)>);

impl Line {
    fn of(desk: &mut Desk, callers: &[(&'static str, Lane)]) -> Self {
        let wait = |&(name, lane)| (name, desk.wait(of(desk, lane)).1);
        Self(callers.iter().map(wait).collect())
    }

    /// Ends `lease`, and finds out who has the next.
    fn next(&mut self, desk: &mut Desk, lease: Box<Record>) -> (&'static str, Box<Record>) {
        desk.give_back(lease);
        desk.deliver();
        let gifts: Vec<_> = self.0.iter().map(|(_, slot)| taken(slot)).collect();
        let at = gifts.iter().position(Option::is_some).expect("somebody is served");
        let others = gifts.iter().flatten().count();
        assert_eq!(others, 1, "one place serves one caller");
        let Some(Gift::Connection(held, _)) = gifts.into_iter().flatten().next() else { panic!("a refusal") };
        (self.0.remove(at).0, held.record)
    }
}

#[test]
fn interactive_goes_before_bulk_and_each_lane_in_order_of_arrival() {
    let mut desk = desk(1);
    let mut lease = desk.lease(of(&desk, Bulk));
    let callers = [("b1", Bulk), ("i1", Interactive), ("b2", Bulk), ("i2", Interactive), ("i3", Interactive)];
    let mut line = Line::of(&mut desk, &callers);
    let mut order = Vec::new();
    for _ in callers {
        let (name, next) = line.next(&mut desk, lease);
        order.push(name);
        lease = next;
    }
    assert_eq!(order, ["i1", "i2", "i3", "b1", "b2"]);
}

#[test]
fn every_ninth_turn_at_least_is_bulks() {
    let mut desk = desk(1);
    let mut lease = desk.lease(of(&desk, Interactive));
    let mut line = Line::of(&mut desk, &[("bulk", Bulk); 4]);
    let mut turns = String::new();
    for _ in 0..36 {
        line.0.push(("i", desk.wait(of(&desk, Interactive)).1));
        let (name, next) = line.next(&mut desk, lease);
        turns.push_str(&name[..1]);
        lease = next;
    }
    assert_eq!(turns, "iiiiiiiib".repeat(4));
}

#[test]
fn a_newcomer_in_a_hurry_does_not_take_the_turn_of_bulk_that_has_grown_old() {
    let mut desk = desk(2);
    // The one host is held by both, and bulk waits for a fresh connection that it cannot have.
    let leases = [desk.lease(of(&desk, Interactive)), desk.lease(of(&desk, Interactive))];
    let [first, second] = leases;
    let mut line = Line::of(&mut desk, &[("bulk", Bulk)]);
    let mut lease = first;
    for _ in 0..8 {
        line.0.push(("hurry", desk.wait(of(&desk, Interactive)).1));
        let (name, next) = line.next(&mut desk, lease);
        assert_eq!(name, "hurry");
        lease = next;
    }
    line.0.push(("hurry", desk.wait(of(&desk, Interactive)).1));
    assert_eq!(line.next(&mut desk, lease).0, "bulk");
    assert_eq!(line.next(&mut desk, second).0, "hurry");
}

#[test]
fn bulk_leaves_a_quarter_of_the_connections_alone() {
    for (max_size, share) in [(1, 1), (2, 2), (3, 3), (4, 3), (7, 6), (8, 6), (100, 75)] {
        let mut desk = Desk::new(max_size, vec![plan(0, 1)]);
        for _ in 0..share {
            desk.lease(of(&desk, Bulk));
        }
        desk.wait(of(&desk, Bulk));
        for _ in share..max_size {
            desk.lease(of(&desk, Interactive));
        }
        desk.wait(of(&desk, Interactive));
    }
}

#[test]
fn the_reserve_is_kept_of_idle_connections_too() {
    let mut desk = Desk::new(4, vec![plan(0, 1)]);
    let mut leases: Vec<_> = (0..4).map(|_| desk.lease(of(&desk, Interactive))).collect();
    leases.drain(..).for_each(|lease| desk.give_back(lease));
    let mut leases: Vec<_> = (0..3).map(|_| desk.lease(of(&desk, Bulk))).collect();
    let (_, waiting) = desk.wait(of(&desk, Bulk));
    assert_eq!(desk.idle(0), 1);
    // Somebody in a hurry takes it, and what it gives back is still not bulk's.
    let hurry = desk.lease(of(&desk, Interactive));
    desk.give_back(hurry);
    assert!(desk.fx.gifts.is_empty());
    // What bulk gives back is.
    desk.give_back(leases.remove(0));
    desk.deliver();
    assert!(matches!(taken(&waiting), Some(Gift::Connection(..))));
}

#[test]
fn the_reserve_is_a_part_of_each_hosts_connections_too() {
    let mut narrow = plan(0, 1);
    narrow.max_connections = Some(4);
    let mut desk = Desk::new(20, vec![narrow]);
    for _ in 0..3 {
        desk.lease(of(&desk, Bulk));
    }
    desk.wait(of(&desk, Bulk));
    desk.lease(of(&desk, Interactive));
}

#[test]
fn bulk_that_has_its_share_does_not_grow_older() {
    let mut desk = Desk::new(4, vec![plan(0, 1)]);
    let mut bulk: Vec<_> = (0..3).map(|_| desk.lease(of(&desk, Bulk))).collect();
    let mut line = Line::of(&mut desk, &[("bulk", Bulk)]);
    let mut lease = desk.lease(of(&desk, Interactive));
    for _ in 0..20 {
        line.0.push(("hurry", desk.wait(of(&desk, Interactive)).1));
        lease = line.next(&mut desk, lease).1;
    }
    // All that time bulk had three places of four: it is owed nothing when one of them comes free.
    line.0.push(("hurry", desk.wait(of(&desk, Interactive)).1));
    assert_eq!(line.next(&mut desk, bulk.remove(0)).0, "hurry");
}

#[test]
fn a_failed_opening_and_a_panic_leave_no_place_in_bulks_share() {
    let mut desk = Desk::new(4, vec![plan(0, 1)]);
    for _ in 0..20 {
        let (_, grant) = desk.permit(Request { fresh: true, ..of(&desk, Bulk) });
        desk.state.permit_returned(grant, desk.now, &mut desk.fx);
        let lease = desk.lease(of(&desk, Bulk));
        desk.vacate(&lease);
        let lease = desk.lease(of(&desk, Bulk));
        desk.give_back(lease);
    }
    assert_eq!(desk.state.hosts.get(HostId(0)).bulk, 0);
}

/// What happens next to one caller of the flood below.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happens {
    Asks,
    Ends(u64),
}

/// Callers come back as soon as they are done (bulk), or now and then (interactive); each message takes its time.
fn flood(bulk: usize, hurried: usize, every: Duration, seed: u64) -> [Vec<Duration>; 2] {
    const PLACES: usize = 8;
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut desk = Desk::new(PLACES, vec![plan(0, 1)]);
    let start = desk.now;
    let mut agenda = BinaryHeap::new();
    for caller in 0..bulk + hurried {
        agenda.push(Reverse((start + MILLI * rng.u32(..50), caller, Happens::Asks)));
    }
    let lane = |caller: usize| if caller < bulk { Bulk } else { Interactive };
    let mut waiting: Vec<(usize, std::time::Instant, Arc<Slot<()>>)> = Vec::new();
    let mut leases: Vec<Box<Record>> = Vec::new();
    let mut waits = [Vec::new(), Vec::new()];
    while let Some(Reverse((now, caller, what))) = agenda.pop() {
        if now > start + SECOND * 20 {
            break;
        }
        desk.now = now;
        let mut served = Vec::new();
        match what {
            Happens::Asks => match desk.ask(of(&desk, lane(caller))).1 {
                Step::Take(gift) => served.push((caller, now, gift)),
                Step::Wait(slot) => waiting.push((caller, now, slot)),
            },
            Happens::Ends(id) => {
                let at = leases.iter().position(|lease| lease.id == id).unwrap();
                desk.give_back(leases.swap_remove(at));
                let pause = if lane(caller) == Bulk { Duration::ZERO } else { every.mul_f64(rng.f64() * 2.0) };
                agenda.push(Reverse((now + pause, caller, Happens::Asks)));
            }
        }
        let has_gifts = !desk.fx.gifts.is_empty();
        desk.deliver();
        waiting.retain(|(caller, since, slot)| match has_gifts.then(|| taken(slot)).flatten() {
            Some(gift) => {
                served.push((*caller, *since, gift));
                false
            }
            None => true,
        });
        for (caller, since, gift) in served {
            let record = match gift {
                Gift::Connection(held, _) => held.record,
                Gift::Permit(grant) => desk.opened(&grant),
                Gift::Refusal(refusal) => panic!("{refusal:?}"),
            };
            waits[lane(caller) as usize].push(now - since);
            agenda.push(Reverse((now + MILLI * rng.u32(10..60), caller, Happens::Ends(record.id))));
            leases.push(record);
            let of_bulk = leases.iter().filter(|lease| lease.lane == Bulk).count();
            assert!(of_bulk <= 6 && leases.len() <= PLACES, "{of_bulk} of {}", leases.len());
        }
    }
    waits.each_mut().map(|waits| {
        waits.sort_unstable();
        std::mem::take(waits)
    })
}

#[test]
fn interactive_waits_a_tenth_of_what_bulk_waits_in_a_flood_of_it_and_bulk_goes_on() {
    // From hardly anybody in a hurry to three quarters of all there is to have.
    for (hurried, every) in [(2, 200), (10, 200), (20, 150)] {
        for seed in 0..2 {
            let [interactive, bulk] = flood(200, hurried, MILLI * every, seed);
            let p99 = |waits: &[Duration]| waits[waits.len() * 99 / 100];
            assert!(interactive.len() > 100, "{}", interactive.len());
            assert!(p99(&interactive) * 10 <= p99(&bulk), "{:?} against {:?}", p99(&interactive), p99(&bulk));
            // The pool does some 230 messages a second, whoever has them.
            let (all, of_bulk) = (interactive.len() + bulk.len(), bulk.len());
            assert!(of_bulk * 9 >= all, "{of_bulk} of {all}");
            assert!(bulk.last() < Some(&(SECOND * 15)), "longest wait of bulk: {:?}", bulk.last());
        }
    }
}

#[test]
fn a_flood_of_interactive_leaves_bulk_a_ninth() {
    let [interactive, bulk] = flood(20, 200, Duration::ZERO, 1);
    assert!(bulk.len() * 9 >= interactive.len(), "{} of bulk, {} in a hurry", bulk.len(), interactive.len());
}
