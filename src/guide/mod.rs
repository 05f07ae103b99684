//! The manual.
//!
//! - [`choosing_cooldowns`]: what cooldown, jitter and the single probe do to a relay that a whole fleet has lost
//! - [`configuration`]: options from a file, and every setting in an example
//! - [`credentials`]: tokens that expire, and passwords that change, without a restart
//! - [`delivery_guarantees`]: what each outcome of a send means, why, and what to do about it
//! - [`how_it_is_tested`]: where each claim is put to the test, by which command, and who is the judge
//! - [`logging_and_metrics`]: every log record and every metric, and which question it answers

pub mod choosing_cooldowns {
    #![doc = include_str!("choosing_cooldowns.md")]
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

pub mod how_it_is_tested {
    #![doc = include_str!("how_it_is_tested.md")]
}

pub mod logging_and_metrics {
    #![doc = include_str!("logging_and_metrics.md")]
}
