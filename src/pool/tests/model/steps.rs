//! What may happen to a pool, and how often it does.

use std::time::Duration;

use proptest::bool::weighted;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_oneof};

use crate::blame::Blame;

/// The most hosts a pool of these histories has.
pub(super) const HOSTS: usize = 3;

/// The pool of one history. Times are in milliseconds.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) max_size: usize,
    pub(super) hosts: Vec<HostSetup>,
    pub(super) min_idle: usize,
    pub(super) refill_delay: u64,
    pub(super) idle_timeout: Option<u64>,
    pub(super) max_lifetime: Option<u64>,
    pub(super) max_messages: Option<u32>,
    pub(super) keepalive_interval: Option<u64>,
    pub(super) fair_time: u64,
    pub(super) exponential: bool,
    /// Whether there is a thread.
    pub(super) is_attended: bool,
    /// What the pool draws its own chances from.
    pub(super) seed: u64,
}

#[derive(Debug, Clone)]
pub(super) struct HostSetup {
    pub(super) priority: u32,
    pub(super) weight: u32,
    pub(super) max_connections: Option<usize>,
}

/// One thing that happens. A number that names one of several is taken modulo how many there are; if there is none,
/// nothing happens. So whatever is left of a history that is cut down is a history.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Ask {
        within: u64,
        fresh: bool,
        avoid: Option<usize>,
        only: Option<usize>,
    },
    /// A lease ends.
    End {
        lease: usize,
        how: How,
    },
    /// A lease is given up for another connection.
    Renew {
        lease: usize,
        within: u64,
        fresh: bool,
        is_stale: bool,
    },
    /// Whoever may open a connection does.
    Connect {
        permit: usize,
        end: Connecting,
    },
    /// A waiting caller's token is cancelled.
    Cancel {
        waiter: usize,
    },
    /// A waiting caller panics.
    Forget {
        waiter: usize,
    },
    /// A waiting caller has stopped waiting, and has not said so yet: gifts find nobody.
    TurnDeaf {
        waiter: usize,
    },
    /// Time passes, and whoever slept until then wakes.
    Pass {
        by: u64,
    },
    /// Time passes, and everybody oversleeps.
    Oversleep {
        by: u64,
    },
    /// The time that one thread read is overtaken by another thread.
    Back {
        by: u64,
    },
    /// A server ends an idle connection.
    Hang {
        up: usize,
    },
    /// A connection that the pool gave up has been closed.
    Closed {
        which: usize,
    },
    /// The pool's thread takes a turn.
    Tend,
    /// A server answers a sign-of-life question, or does not.
    Answer {
        probe: usize,
        is_alive: bool,
    },
    /// The helper that opens in reserve goes a step on.
    Reserve {
        end: Connecting,
    },
    ThreadEnds,
    LearnMessageLimit {
        host: usize,
        messages: u32,
    },
    /// A host's credentials are replaced.
    Rotate {
        host: usize,
    },
    /// A lent connection shows that no other to its host will do.
    LastingRefusal {
        lease: usize,
    },
    ShutDown,
}

/// How a lease ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum How {
    Delivered,
    /// The message was refused; the connection stays.
    Refused,
    /// In step, and not to be used any more.
    Retired,
    /// Out of step, or its holder panicked.
    Broken,
}

/// How opening a connection ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Connecting {
    Succeeds,
    Fails(Blame),
    /// Before or after the evicted connection, if there is one, was closed.
    Panics {
        is_early: bool,
    },
}

/// Milliseconds that pass: most often few, now and then more than anything lasts, at times a century.
const fn passing(time: u64, chance: usize) -> u64 {
    const CENTURY: u64 = 100 * 365 * 24 * 3600 * 1000;
    match chance % 32 {
        0..24 => time % 12,
        24..31 => time * 3,
        _ => (time + 1) * (CENTURY / 64),
    }
}

const fn connecting(chance: usize) -> Connecting {
    match chance % 20 {
        0..12 => Connecting::Succeeds,
        12..15 => Connecting::Fails(Blame::Host),
        15 => Connecting::Fails(Blame::Capacity),
        16 => Connecting::Fails([Blame::HostForLong, Blame::Credentials][chance / 20 % 2]),
        17 => Connecting::Fails([Blame::Local, Blame::Nobody][chance / 20 % 2]),
        _ => Connecting::Panics { is_early: chance / 20 % 2 == 1 },
    }
}

const fn how(chance: usize) -> How {
    match chance % 10 {
        0..6 => How::Delivered,
        6 => How::Refused,
        7 => How::Retired,
        _ => How::Broken,
    }
}

/// A step from numbers, so that whatever they are made simpler to is one. Each range is as long as the step is frequent.
// One strategy of numbers, because one of twenty strategies takes ten times as long as playing the step.
fn step() -> impl Strategy<Value = Step> {
    (0..318_u32, 0..6_usize, 0..60_u64, 0..4096_usize).prop_map(|(kind, which, time, chance)| match kind {
        0..42 => {
            // Most have no wish.
            let host = |chance: usize| (chance % 16).checked_sub(16 - HOSTS);
            let (avoid, only) = (host(chance / 16), host(chance / 256).filter(|_| time % 2 == 0));
            Step::Ask { within: time, fresh: chance % 16 == 15, avoid, only }
        }
        42..112 => Step::End { lease: which, how: how(chance) },
        112..118 => Step::Renew { lease: which, within: time, fresh: chance % 2 == 1, is_stale: chance / 2 % 2 == 1 },
        118..160 => Step::Connect { permit: which, end: connecting(chance) },
        160..164 => Step::Cancel { waiter: which },
        164..165 => Step::Forget { waiter: which },
        165..170 => Step::TurnDeaf { waiter: which },
        170..206 => Step::Pass { by: passing(time, chance) },
        206..208 => Step::Oversleep { by: passing(time, chance) },
        208..211 => Step::Back { by: time % 3 },
        211..220 => Step::Hang { up: which },
        220..242 => Step::Closed { which },
        242..272 => Step::Tend,
        272..284 => Step::Answer { probe: which, is_alive: chance % 8 > 0 },
        284..310 => Step::Reserve { end: connecting(chance) },
        310..316 => Step::Rotate { host: which },
        // What follows is short of much that can go wrong.
        _ => match chance % 12 {
            0..4 => Step::LearnMessageLimit { host: which, messages: [1, 2, 3, 4][chance / 12 % 4] },
            4..8 => Step::LastingRefusal { lease: which },
            8..10 => Step::ThreadEnds,
            _ => Step::ShutDown,
        },
    })
}

fn setup() -> impl Strategy<Value = Setup> {
    let host = (0..2_u32, 1..4_u32, option::weighted(0.3, 1..4_usize))
        .prop_map(|(priority, weight, max_connections)| HostSetup { priority, weight, max_connections });
    let pool = (1..6_usize, vec(host, 1..=HOSTS), prop_oneof![Just(0), 1..6_usize], 0..5_u64);
    let ages = (
        option::weighted(0.4, Just(40_u64)),
        option::weighted(0.4, Just(25_u64)),
        option::weighted(0.4, Just(4_u32)),
        option::weighted(0.5, Just(15_u64)),
    );
    let rest = (prop_oneof![Just(0), Just(3)], any::<bool>(), weighted(0.7), any::<u64>());
    (pool, ages, rest).prop_map(|((max_size, hosts, min_idle, refill_delay), ages, rest)| {
        let (idle_timeout, max_lifetime, max_messages, keepalive_interval) = ages;
        let (fair_time, exponential, is_attended, seed) = rest;
        Setup {
            max_size,
            hosts,
            min_idle: min_idle.min(max_size),
            refill_delay,
            idle_timeout,
            max_lifetime,
            max_messages,
            keepalive_interval,
            fair_time,
            exponential,
            is_attended,
            seed,
        }
    })
}

pub(super) fn histories() -> impl Strategy<Value = (Setup, Vec<Step>)> {
    (setup(), vec(step(), 1..150))
}

impl Setup {
    pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(10);
    pub(super) const LONGEST_PAUSE: Duration = Duration::from_millis(50);
    pub(super) const JITTER: f64 = 0.2;
    pub(super) const LIFETIME_JITTER: f64 = 0.1;
}
