//! The embedded server does what its documentation says: its duty by default, and wrong exactly where a script says so.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by its panic")]

mod client;
mod control;
mod cuts;
mod duty;
mod faults;
mod tls;
