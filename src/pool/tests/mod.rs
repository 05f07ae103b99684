//! Promises of the pool, with a connector that does as it is told.

mod cancelling;
mod closing;
mod desk;
mod failures;
pub(super) mod fake;
mod handoff;
mod hosts;
mod identity;
#[cfg(simulation)]
mod interleaving;
mod lanes;
mod learning;
mod maintenance;
mod model;
mod observing;
mod other_pools;
mod outwaiting;
mod reserve;
mod retiring;
mod rotation;
mod upkeep;
mod weights;
