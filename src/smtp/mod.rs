//! One connection, one thread: from a host name to an accepted message. Knows nothing of pools.
//!
//! - `resolve` → `connect` → `tls` bring a socket about, `stream` bounds every read and write of it by a deadline
//! - `single_flight` has work done that knows no deadline, for callers that have one
//! - `wire` is a stream with a reply reader on one side and a command buffer on the other
//! - `reply_reader`, `capabilities`, `body`, `command`, `admission` are pure: bytes in, meaning out
//! - `opener` runs greeting, EHLO, STARTTLS and `auth` with what `credentials` says, and hands out a `session`
//! - `transaction` carries one message over a session, in one write where `single_round_trip` has nothing against it

mod admission;
mod auth;
mod body;
mod capabilities;
mod command;
mod connect;
mod credentials;
mod failure;
mod opener;
mod reply_reader;
mod resolve;
mod server_hello;
mod session;
mod single_flight;
mod single_round_trip;
#[cfg(not(simulation))]
mod socket;
mod stream;
mod tls;
mod transaction;
mod wire;

#[cfg(simulation)]
use crate::simulation::net as socket;

pub(crate) use self::failure::Failure;
pub(crate) use self::opener::{SessionOpener, Timeouts};
pub(crate) use self::resolve::Resolver;
pub(crate) use self::session::Session;
pub(crate) use self::transaction::{Accepted, Mail, Refused, TimeLimits, transact};
#[cfg(fuzzing)]
pub(crate) use self::{body::BodyEncoder, capabilities::Capabilities, reply_reader::ReplyReader};
