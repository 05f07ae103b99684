//! placeholder

// The floors, bottom up. A module uses only floors below its own; tests/architecture.rs holds it to that.

// Words: pure data.
mod blame;
mod clock;
mod endpoint;
mod error;
mod event;
mod recipient;
mod reply;
mod stage;
mod stats;
mod sync;

// Choices: what the user decides.
mod options;

// Machines: a session, a pool of anything, a table.
mod classify;
mod pool;
mod smtp;

// Reports: how a send ended.
mod report;

// Doors: what users call.
#[cfg(feature = "r2d2")]
mod manager;
mod sender;

// Outside the house: imports nothing of it, so that it can contradict it.
#[cfg(feature = "testing")]
pub mod testing;

pub use crate::endpoint::Endpoint;
pub use crate::error::{Classification, FailureKind, SendError};
#[cfg(feature = "r2d2")]
pub use crate::manager::{SmtpConnection, SmtpConnectionManager};
pub use crate::options::{
    AmbiguityBoundary, Backoff, Host, KeepaliveCommand, OptionsError, PoolOptions, RecipientPolicy, SendOptions,
};
pub use crate::recipient::{RecipientOutcome, RecipientStatus};
pub use crate::reply::{EnhancedCode, Reply};
pub use crate::report::Receipt;
pub use crate::sender::{SmtpSender, SmtpSenderBuilder};
pub use crate::stage::SendStage;
pub use crate::stats::{DiscardCounts, DiscardReason, HostState, HostStatus, PoolCounts, PoolStatus};
