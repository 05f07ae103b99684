//! The pool's own threads: started by name, waited for with a bound.

use std::io;
use std::sync::Arc;
use std::thread::{self, ThreadId};

use crate::clock::Deadline;
use crate::sync::{Condvar, JoinHandle, Mutex, spawn};

/// The threads of one pool. Knows nothing of the pool, so that neither keeps the other.
#[derive(Debug, Default)]
pub(super) struct Crew {
    roll: Mutex<Roll>,
    /// One of them has ended.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Roll {
    next: u64,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    number: u64,
    /// None until it runs.
    thread: Option<ThreadId>,
    /// None until whoever started it has come round to it.
    handle: Option<JoinHandle<()>>,
    has_ended: bool,
}

impl Roll {
    fn find(&mut self, number: u64) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.number == number)
    }
}

impl Crew {
    /// Starts a thread. If that fails, `work` is dropped.
    // Proof: it is on the roll before it runs, so that whoever waits for all of them waits for it too. It is started
    // under no lock: what `work` holds may take others when it is dropped.
    pub(super) fn start(self: &Arc<Self>, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let number = self.enrol();
        let crew = Arc::clone(self);
        let body = move || {
            // Dropped after everything that the work holds, however that ends.
            let _sign_off = SignOff::of(crew, number);
            work();
        };
        let spawned = spawn(name, body);
        let mut roll = self.roll.lock();
        let failed = match spawned {
            Ok(handle) => {
                if let Some(member) = roll.find(number) {
                    member.handle = Some(handle);
                }
                Ok(())
            }
            Err(error) => {
                roll.members.retain(|member| member.number != number);
                Err(error)
            }
        };
        drop(roll);
        failed
    }

    /// Puts a new one on the roll, and takes those off that have ended.
    fn enrol(&self) -> u64 {
        let mut roll = self.roll.lock();
        roll.next += 1;
        let number = roll.next;
        roll.members.retain(|member| !member.has_ended);
        roll.members.push(Member { number, thread: None, handle: None, has_ended: false });
        drop(roll);
        number
    }

    /// Waits until all of them have ended. False: the deadline came first, or one of them asks, which cannot wait for
    /// itself.
    // Proof: a member signs off under the lock, and whoever waits gives the lock up only by falling asleep.
    pub(super) fn join(&self, deadline: Deadline) -> bool {
        let me = thread::current().id();
        let mut roll = self.roll.lock();
        if roll.members.iter().any(|member| member.thread == Some(me)) {
            return false;
        }
        let is_at_work = |roll: &mut Roll| roll.members.iter().any(|member| !member.has_ended);
        self.ended.wait_while_until(&mut roll, is_at_work, deadline.instant());
        let (ended, at_work): (Vec<_>, Vec<_>) = roll.members.drain(..).partition(|member| member.has_ended);
        let have_all = at_work.is_empty();
        roll.members = at_work;
        drop(roll);
        for handle in ended.into_iter().filter_map(|member| member.handle) {
            // It has nothing left to do; if it panicked, that has been told.
            drop(handle.join());
        }
        have_all
    }
}

/// Tells the crew of a thread's end.
struct SignOff {
    crew: Arc<Crew>,
    number: u64,
}

impl SignOff {
    fn of(crew: Arc<Crew>, number: u64) -> Self {
        if let Some(member) = crew.roll.lock().find(number) {
            member.thread = Some(thread::current().id());
        }
        Self { crew, number }
    }
}

impl Drop for SignOff {
    fn drop(&mut self) {
        if let Some(member) = self.crew.roll.lock().find(self.number) {
            member.has_ended = true;
        }
        self.crew.ended.notify_all();
    }
}
