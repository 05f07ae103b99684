//! The manual.
//!
//! **Begin here**
//!
//! - [`choosing_limits`]: how to size a pool; each option, where to start, when to raise and to lower it; profiles; what servers and
//!   providers allow
//! - [`configuration`]: options from a file, and every setting in an example
//! - [`failure_recipes`]: what to do about each kind of failure: an HTTP status, a retry, an alert, an unknown outcome, an outbox
//! - [`testing_your_mailer`]: your code against a server that refuses, hangs, and cuts after the dot
//! - [`migrating`]: from lettre's transport in five lines, from r2d2 or a pool of your own
//!
//! **Before you trust it**
//!
//! - [`delivery_guarantees`]: what each outcome of a send means, and why
//! - [`not_promised`]: what is not promised, and what the crate is not for
//! - [`how_other_pools_fail`]: how mail is lost and doubled elsewhere, each with the test that shows what happens here
//! - [`how_it_is_tested`]: where each claim is put to the test, by which command, and who is the judge
//!
//! **Running and changing it**
//!
//! - [`logging_and_metrics`]: every log record and every metric, and which question it answers
//! - [`credentials`]: tokens that expire, and passwords that change, without a restart
//! - [`choosing_cooldowns`]: what cooldown, jitter and the single probe do to a relay that a whole fleet has lost
//! - [`architecture`]: the house and the way of a message; who decides, who does I/O; threads and locks; where to change what

pub mod architecture {
    #![doc = include_str!("architecture.md")]
}

pub mod choosing_cooldowns {
    #![doc = include_str!("choosing_cooldowns.md")]
}

pub mod choosing_limits {
    #![doc = include_str!("choosing_limits.md")]
}

pub mod configuration {
    #![doc = include_str!("configuration.md")]
    //! ```toml
    #![doc = include_str!("pool.toml")]
    //! ```
    //!
    //! The same pool in TOML, JSON and YAML is a test of the crate (`tests/config.rs`).
}

pub mod credentials {
    #![doc = include_str!("credentials.md")]
}

pub mod delivery_guarantees {
    #![doc = include_str!("delivery_guarantees.md")]
}

pub mod failure_recipes {
    #![doc = include_str!("failure_recipes.md")]
}

pub mod how_it_is_tested {
    #![doc = include_str!("how_it_is_tested.md")]
}

pub mod how_other_pools_fail {
    #![doc = include_str!("how_other_pools_fail.md")]
}

pub mod logging_and_metrics {
    #![doc = include_str!("logging_and_metrics.md")]
}

pub mod migrating {
    #![doc = include_str!("migrating.md")]
}

pub mod not_promised {
    #![doc = include_str!("not_promised.md")]
}

pub mod testing_your_mailer {
    #![doc = include_str!("testing_your_mailer.md")]
    //! ```
    #![doc = include_str!("your_mailer.rs.in")]
    //! ```
}
