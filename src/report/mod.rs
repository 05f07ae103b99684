//! How a send ended, put together for its caller: what the machines say, judged by `classify`, as a [`Receipt`] or a [`SendError`](crate::SendError).

mod dialogue;
mod failure;
mod held;
mod parts;
mod progress;
mod receipt;

pub(crate) use self::dialogue::Dialogue;
pub(crate) use self::failure::{Judged, Limit, Met, interrupted, judge, send_error};
pub(crate) use self::held::{HeldSession, SendSettings};
pub(crate) use self::parts::Parts;
pub use self::progress::Progress;
pub(crate) use self::progress::Tally;
pub use self::receipt::Receipt;
