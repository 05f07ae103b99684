//! Many runs of one story.

use std::env;
use std::time::Duration;

use super::world::{Plan, run};

/// How many runs a story gets: `usual`, times `SMTP_POOL_RUNS` if that is set.
fn runs(usual: u64) -> u64 {
    let times = number("SMTP_POOL_RUNS").unwrap_or(1);
    usual.saturating_mul(times)
}

fn number(name: &str) -> Option<u64> {
    let value = env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

/// Runs `story` once for each of so many seeds, as `plan` has it; or, with `SMTP_POOL_SEED` set, for that seed alone.
/// Whether it was all of them.
///
/// # Panics
///
/// If a run went wrong, or took `too_long` in its own time; with what it takes to see that run again.
pub(crate) fn explore(
    usual: u64,
    plan: impl Fn(u64) -> Plan,
    too_long: Duration,
    story: impl Fn(u64) + Send + Sync + Clone + 'static,
) -> bool {
    let only = number("SMTP_POOL_SEED");
    let seeds = only.map_or(0..runs(usual), |seed| seed..seed + 1);
    for seed in seeds {
        let story = story.clone();
        match run(plan(seed), move || story(seed)) {
            Ok(ending) => assert!(ending.elapsed < too_long, "SMTP_POOL_SEED={seed}: it took {:?}", ending.elapsed),
            Err(report) => panic!("SMTP_POOL_SEED={seed}: {report}"),
        }
    }
    only.is_none()
}
