//! How a send ended, put together for its caller: what the machines say, judged by `classify`, as a [`Receipt`] or a [`SendError`](crate::SendError).

mod dialogue;
mod failure;
mod held;
mod receipt;

pub(crate) use self::dialogue::Dialogue;
pub(crate) use self::failure::{Judged, Limit, Met, interrupted, judge, send_error};
pub(crate) use self::held::{HeldSession, SendSettings};
pub use self::receipt::Receipt;
