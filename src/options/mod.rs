//! What the user decides: hosts, the pool's limits, and what may differ from one send to the next.

mod batch;
mod credentials;
mod dsn;
mod error;
#[cfg(feature = "serde")]
mod file;
mod host;
mod pool;
mod send;
mod url;
mod validate;

pub use self::batch::BatchOptions;
pub use self::credentials::Credentials;
pub(crate) use self::credentials::{Login, Supplier};
pub use self::dsn::{Dsn, DsnReturn, Notify, RecipientDsn};
pub use self::error::OptionsError;
pub use self::host::Host;
pub(crate) use self::host::Security;
pub use self::pool::{AmbiguityBoundary, Backoff, KeepaliveCommand, PoolOptions};
pub use self::send::{RecipientPolicy, SendOptions};
pub(crate) use self::validate::{parse_certificate, validate};
