//! One door for locks, threads and channels.
//!
//! `pool/` takes its primitives from here and nowhere else, so that a simulation's can stand in for them; see `simulation/mod.rs`.

#[cfg(not(simulation))]
pub(crate) use self::real::{JoinHandle, channel, spawn};
#[cfg(not(simulation))]
pub(crate) use parking_lot::{Condvar, Mutex};

#[cfg(simulation)]
pub(crate) use crate::simulation::primitives::{Condvar, JoinHandle, Mutex, channel, spawn};

use std::thread;

/// Runs `work` in so many threads, of which the calling one is the last, and returns when all have ended; in fewer, where no more can be
/// started. No simulation has them: what they share is a counter and a list under a lock, and the rest is calls of the sender.
pub(crate) fn in_parallel(threads: usize, name: &str, stack_size: Option<usize>, work: impl Fn() + Sync) {
    thread::scope(|scope| {
        for number in 1..threads {
            let mut builder = thread::Builder::new().name(format!("{name}-{number}"));
            if let Some(bytes) = stack_size {
                builder = builder.stack_size(bytes);
            }
            if let Err(error) = builder.spawn_scoped(scope, &work) {
                log::error!(target: "smtp_pool::pool", event = "threads_missing", name, number, threads, error:%; "{name} goes on with {number} thread(s) of {threads}: {error}");
                break;
            }
        }
        work();
    });
}

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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn without_a_further_thread_the_calling_one_does_it_all() {
        let (runs, others) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let caller = thread::current().id();
        let work = || {
            runs.fetch_add(1, Ordering::SeqCst);
            if thread::current().id() != caller {
                others.fetch_add(1, Ordering::SeqCst);
            }
        };
        let done = || (runs.swap(0, Ordering::SeqCst), others.swap(0, Ordering::SeqCst));
        // No machine has room for a stack of this size.
        in_parallel(8, "test", Some(usize::MAX >> 1), work);
        assert_eq!(done(), (1, 0));
        in_parallel(3, "test", None, work);
        assert_eq!(done(), (3, 2));
        in_parallel(0, "test", None, work);
        assert_eq!(done(), (1, 0));
    }
}
