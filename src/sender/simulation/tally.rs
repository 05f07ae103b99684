//! How often each thing happened over all runs: a simulation in which some fault never occurs has gone blind.

use std::collections::BTreeMap;

use parking_lot::Mutex;

static TALLY: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

/// It has happened once more.
pub(super) fn note(what: &str) {
    let mut tally = TALLY.lock();
    match tally.get_mut(what) {
        Some(count) => *count += 1,
        None => drop(tally.insert(what.to_owned(), 1)),
    }
}

/// Shows the counts, and that none of `expected` is zero.
pub(super) fn show(expected: &[&str]) {
    let tally = TALLY.lock().clone();
    for (what, count) in &tally {
        println!("{count:>9}  {what}");
    }
    let missing: Vec<_> = expected.iter().filter(|&&what| !tally.contains_key(what)).collect();
    assert!(missing.is_empty(), "never happened: {missing:?}");
}
