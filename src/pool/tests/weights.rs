//! Weights hold in a pool all of whose connections are always in use, where what is lent is what happens to come free.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use super::desk::Desk;
use super::fake::plan;
use crate::pool::held::Record;
use crate::pool::slot::Gift;
use crate::pool::state::Step;

const PLACES: usize = 8;
const MESSAGES: usize = 4000;

/// A lease of whatever host, opened in the place of another one if need be.
fn lease(desk: &mut Desk) -> Box<Record> {
    match desk.ask(desk.request(10)).1 {
        Step::Take(Gift::Connection(held, _)) => held.record,
        Step::Take(Gift::Permit(grant)) => {
            let evicted = grant.evicted.as_ref().map(|held| held.record.host);
            if let Some(host) = evicted.filter(|&host| host != grant.host) {
                desk.state.yielded(host, desk.now, &mut desk.fx);
            }
            desk.opened(&grant)
        }
        other => panic!("{other:?}"),
    }
}

/// How many messages each of two hosts of weights 3 and 1 carried for eight callers, each of whom comes back at once. `takes` says how long
/// the so-manieth message takes on which host.
fn shares(mut takes: impl FnMut(usize, usize) -> Duration) -> [usize; 2] {
    let mut desk = Desk::new(PLACES, vec![plan(0, 3), plan(0, 1)]);
    let mut agenda = BinaryHeap::new();
    let mut leases: HashMap<usize, Box<Record>> = HashMap::new();
    let mut shares = [0; 2];
    for number in 0..MESSAGES {
        if let Some(Reverse((at, earlier))) = (number >= PLACES).then(|| agenda.pop()).flatten() {
            desk.now = at;
            desk.give_back(leases.remove(&earlier).unwrap());
        }
        let record = lease(&mut desk);
        shares[record.host.0] += 1;
        agenda.push(Reverse((desk.now + takes(number, record.host.0), number)));
        leases.insert(number, record);
        assert_eq!(desk.state.counts().leased, PLACES.min(number + 1));
    }
    shares
}

/// Of what is due to each, 2 % more or less.
#[track_caller]
fn assert_three_to_one([heavy, light]: [usize; 2], what: &str) {
    let is_near = |share: usize, due: usize| share.abs_diff(due) * 50 <= due;
    assert!(is_near(heavy, MESSAGES * 3 / 4) && is_near(light, MESSAGES / 4), "{what}: {heavy} and {light}");
}

#[test]
fn weights_hold_in_a_saturated_pool_whichever_host_is_the_faster() {
    for (heavy, light) in [(100, 100), (100, 150), (150, 100), (100, 65)] {
        for seed in 0..10 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let shares = shares(|_, host| {
                let about = [heavy, light][host];
                Duration::from_micros(rng.u64(about / 2..about * 3 / 2))
            });
            assert_three_to_one(shares, &format!("{heavy} and {light} µs, seed {seed}"));
        }
    }
}

#[test]
fn what_a_host_that_hangs_for_a_while_is_owed_is_paid_back() {
    // One message in thirty, on the lighter host.
    for seed in 0..10 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let shares = shares(|_, host| {
            let hangs = if host == 1 && rng.u64(..30) == 0 { 1500 } else { 0 };
            Duration::from_micros(rng.u64(50..150) + hangs)
        });
        assert_three_to_one(shares, &format!("seed {seed}"));
    }
}
