//! placeholder

mod clock;
mod sync;

mod blame;
mod endpoint;
mod stage;
mod stats;

mod pool;

#[cfg(feature = "testing")]
pub mod testing;

pub use crate::endpoint::Endpoint;
pub use crate::stage::SendStage;
pub use crate::stats::{DiscardCounts, DiscardReason, HostState, HostStatus, PoolCounts, PoolStatus};
