//! The manual.
//!
//! - [`delivery_guarantees`]: what each outcome of a send means, why, and what to do about it

pub mod delivery_guarantees {
    #![doc = include_str!("delivery_guarantees.md")]
}
