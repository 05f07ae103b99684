//! Promises of the pool, with a connector that does as it is told.

mod failures;
mod fake;
mod handoff;
mod hosts;
mod model;
mod retiring;
mod speed;
