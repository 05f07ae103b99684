//! Random histories of the state under a virtual clock, each step compared with what a naive bookkeeper expects.
//!
//! `steps.rs` says what may happen, `play.rs` does it to the pool and tells `book.rs`, which knows the rules of the
//! specification and nothing of the pool. A history that breaks a rule is cut down to the steps that it takes, and played
//! once more with every answer of the pool told.
//!
//! The same histories in every run; `PROPTEST_CASES` makes them more, `PROPTEST_RNG_SEED` others.
// No `proptest-state-machine`: its reference state has to foresee every step before the pool takes it, which for the
// rotation, the jitter and the draw of lifetimes would be the pool once more. Here the pool chooses, and the book says
// whether it had the choice.

mod book;
mod check;
mod health;
mod play;
mod steps;
mod thread;
mod watched;

use std::cell::Cell;
use std::env;
use std::panic::{self, AssertUnwindSafe};

use proptest::test_runner::{Config, RngSeed, TestError, TestRunner};

use self::play::{Play, Tally};
use self::steps::{Setup, Step, histories};

/// Histories that are played if nobody asks for more.
const CASES: u32 = 4000;

fn play(setup: &Setup, steps: &[Step], is_told: bool) -> Tally {
    let mut play = Play::new(setup, is_told);
    for step in steps {
        play.step(step);
        play.check();
    }
    play.come_to_rest()
}

/// Leaves out what has become superfluous while other steps were made simpler, which the runner does not try again.
fn shortest(setup: &Setup, mut steps: Vec<Step>) -> Vec<Step> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let mut at = steps.len();
    while at > 0 {
        at -= 1;
        let fewer = [&steps[..at], &steps[at + 1..]].concat();
        if panic::catch_unwind(AssertUnwindSafe(|| play(setup, &fewer, false))).is_err() {
            steps = fewer;
            at = steps.len();
        }
    }
    panic::set_hook(hook);
    steps
}

#[test]
fn no_history_breaks_an_invariant() {
    let mut config = Config { failure_persistence: None, ..Config::default() };
    if env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    if env::var_os("PROPTEST_RNG_SEED").is_none() {
        config.rng_seed = RngSeed::Fixed(0x5a17);
    }
    config.max_shrink_iters = 50_000;
    let cases = config.cases;
    let (tally, played, has_failed) = (Cell::new(Tally::default()), Cell::new(0_u32), Cell::new(false));
    let outcome = TestRunner::new(config).run(&histories(), |(setup, steps)| {
        // Whatever comes after a failure is an attempt to cut it down.
        let is_cut = has_failed.replace(true);
        played.set(played.get() + u32::from(!is_cut));
        tally.set(tally.get() + play(&setup, &steps, false));
        has_failed.set(is_cut);
        Ok(())
    });
    if let Err(failure) = outcome {
        let TestError::Fail(reason, (setup, steps)) = failure else { panic!("{failure}") };
        let steps = shortest(&setup, steps);
        println!("\n{setup:#?}");
        println!("history {}, cut down to {} step(s)", played.get(), steps.len());
        play(&setup, &steps, true);
        panic!("it fails in one run and not in the next: {reason}");
    }
    // The histories are not idle ones.
    let seen = tally.get();
    println!("{cases} histories: {seen:?}");
    for count in [seen.leases, seen.gifts, seen.refusals, seen.probes_of_hosts] {
        assert!(count >= cases as usize / 2, "{seen:?}");
    }
    for count in [seen.asked, seen.reserve, seen.dead, seen.outdated, seen.passed_over] {
        assert!(count >= cases as usize / 50, "{seen:?}");
    }
    for count in [seen.grown_old, seen.silences] {
        assert!(count >= cases as usize / 1000, "{seen:?}");
    }
}
