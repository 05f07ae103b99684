//! A world in which threads take turns and time is a number, for tests that have to see every interleaving and every fault.
//!
//! Built with `--cfg simulation` only: then `sync.rs`, `clock.rs` and `smtp/socket.rs`, the three doors through which locks, threads,
//! time and sockets enter the house, lead here, and everything between them and the caller is the code that ships. Without it not a
//! line of this is compiled.
//!
//! - `world`: tasks are threads of which one runs at a time. Who is next is drawn from a seed, so that a seed is a run. Time stands
//!   still while anybody can run; under an order that looks for races, a time-out may come at any moment instead.
//! - `primitives`: lock, condition variable, thread, channel on top of it. Outside of a world they are the real ones.
//! - `net`: connections in memory, with delays, small windows and faults.
//!
//! TLS and the system's resolver are left outside: hosts are in the clear, and named by address.

#![cfg_attr(not(test), allow(dead_code, reason = "only tests make worlds"))]

#[cfg(test)]
mod explore;
pub(crate) mod net;
pub(crate) mod primitives;
mod world;

#[cfg(test)]
pub(crate) use self::explore::explore;
pub(crate) use self::world::now;
#[cfg(test)]
pub(crate) use self::world::{Order, Plan, Planned, run, sleep};
