//! One door for locks, threads and channels.
//!
//! `pool/` takes its primitives from here and nowhere else, so that a simulation's can stand in for them; see `simulation/mod.rs`.

#[cfg(not(simulation))]
pub(crate) use self::real::{JoinHandle, channel, spawn};
#[cfg(not(simulation))]
pub(crate) use parking_lot::{Condvar, Mutex};

#[cfg(simulation)]
pub(crate) use crate::simulation::primitives::{Condvar, JoinHandle, Mutex, channel, spawn};

#[cfg(not(simulation))]
mod real {
    use std::io;
    use std::thread;

    pub(crate) use crossbeam_channel as channel;
    pub(crate) use std::thread::JoinHandle;

    /// Starts a thread.
    pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
        thread::Builder::new().name(name.to_owned()).spawn(work)
    }
}
