//! Locks, condition variables, threads and channels whose every use is a turn of the world; outside of one, the real ones.

use std::collections::VecDeque;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use super::world::{Key, Planned, here};

/// As [`parking_lot::Mutex`].
#[derive(Debug, Default)]
pub(crate) struct Mutex<T> {
    real: parking_lot::Mutex<T>,
}

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { real: parking_lot::Mutex::new(value) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        let Some(here) = here() else { return MutexGuard { mutex: self, real: Some(self.real.lock()) } };
        here.pause();
        loop {
            if let Some(real) = self.real.try_lock() {
                return MutexGuard { mutex: self, real: Some(real) };
            }
            here.wait(self.key(), None);
        }
    }

    pub(crate) fn into_inner(self) -> T {
        self.real.into_inner()
    }

    fn key(&self) -> Key {
        Key::Lock(std::ptr::from_ref(self) as usize)
    }
}

/// As [`parking_lot::MutexGuard`].
#[derive(Debug)]
pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    /// None only while a condition variable has it.
    real: Option<parking_lot::MutexGuard<'a, T>>,
}

impl<'a, T> MutexGuard<'a, T> {
    const fn real(&mut self) -> &mut parking_lot::MutexGuard<'a, T> {
        self.real.as_mut().expect("locked")
    }

    fn release(&mut self) {
        drop(self.real.take());
        if let Some(here) = here() {
            here.wake_all(self.mutex.key());
        }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.real.as_ref().expect("locked")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.real()
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.release();
    }
}

/// As [`parking_lot::Condvar`].
#[derive(Debug, Default)]
pub(crate) struct Condvar {
    real: parking_lot::Condvar,
}

/// As [`parking_lot::WaitTimeoutResult`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    pub(crate) const fn timed_out(self) -> bool {
        self.0
    }
}

impl Condvar {
    pub(crate) const fn new() -> Self {
        Self { real: parking_lot::Condvar::new() }
    }

    fn key(&self) -> Key {
        Key::Signal(std::ptr::from_ref(self) as usize)
    }

    pub(crate) fn notify_one(&self) {
        match here() {
            Some(here) => {
                here.pause();
                here.wake_one(self.key());
            }
            None => drop(self.real.notify_one()),
        }
    }

    pub(crate) fn notify_all(&self) {
        match here() {
            Some(here) => {
                here.pause();
                here.wake_all(self.key());
            }
            None => drop(self.real.notify_all()),
        }
    }

    pub(crate) fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, until: Instant) -> WaitTimeoutResult {
        self.wait_at_most(guard, Some(until))
    }

    pub(crate) fn wait_while_until<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        mut condition: impl FnMut(&mut T) -> bool,
        until: Instant,
    ) -> WaitTimeoutResult {
        let mut is_late = false;
        while !is_late && condition(&mut *guard) {
            is_late = self.wait_at_most(guard, Some(until)).timed_out();
        }
        WaitTimeoutResult(is_late && condition(&mut *guard))
    }

    // To unlock and to fall asleep is one step: nobody else runs between the two.
    fn wait_at_most<T>(&self, guard: &mut MutexGuard<'_, T>, until: Option<Instant>) -> WaitTimeoutResult {
        let Some(here) = here() else {
            return WaitTimeoutResult(match until {
                Some(until) => self.real.wait_until(guard.real(), until).timed_out(),
                None => {
                    self.real.wait(guard.real());
                    false
                }
            });
        };
        guard.release();
        let is_woken = here.wait(self.key(), until);
        guard.real = guard.mutex.lock().real.take();
        WaitTimeoutResult(!is_woken)
    }
}

/// A thread, to be joined.
#[derive(Debug)]
pub(crate) enum JoinHandle<T> {
    Real(thread::JoinHandle<T>),
    Task { number: usize, result: Arc<parking_lot::Mutex<Option<T>>> },
}

/// Starts a thread.
pub(crate) fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let Some(here) = here() else {
        return thread::Builder::new().name(name.to_owned()).spawn(work).map(JoinHandle::Real);
    };
    let result = Arc::new(parking_lot::Mutex::new(None));
    let slot = Arc::clone(&result);
    let number = here.start(name, move || {
        let value = work();
        *slot.lock() = Some(value);
    });
    Ok(JoinHandle::Task { number, result })
}

impl<T> JoinHandle<T> {
    /// Waits for the thread's end. An error is what it panicked with.
    pub(crate) fn join(self) -> thread::Result<T> {
        match self {
            Self::Real(handle) => handle.join(),
            Self::Task { number, result } => {
                let here = here().expect("a task is joined in its world");
                here.pause();
                while !here.is_done(number) {
                    here.wait(Key::End(number), None);
                }
                let value = result.lock().take();
                match value {
                    Some(value) => Ok(value),
                    None => Err(Box::new(Planned)),
                }
            }
        }
    }
}

/// As [`crossbeam_channel`].
pub(crate) mod channel {
    use super::{Arc, Condvar, Instant, Mutex, VecDeque};

    pub(crate) use crossbeam_channel::{RecvTimeoutError, TrySendError};

    #[derive(Debug)]
    struct Channel<T> {
        queue: Mutex<Queue<T>>,
        changed: Condvar,
    }

    #[derive(Debug)]
    struct Queue<T> {
        items: VecDeque<T>,
        room: usize,
        has_sender: bool,
        has_receiver: bool,
    }

    /// The only sender.
    #[derive(Debug)]
    pub(crate) struct Sender<T>(Arc<Channel<T>>);

    /// The only receiver.
    #[derive(Debug)]
    pub(crate) struct Receiver<T>(Arc<Channel<T>>);

    pub(crate) fn bounded<T>(room: usize) -> (Sender<T>, Receiver<T>) {
        let queue = Queue { items: VecDeque::new(), room, has_sender: true, has_receiver: true };
        let channel = Arc::new(Channel { queue: Mutex::new(queue), changed: Condvar::new() });
        (Sender(Arc::clone(&channel)), Receiver(channel))
    }

    impl<T> Sender<T> {
        pub(crate) fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
            let mut queue = self.0.queue.lock();
            if !queue.has_receiver {
                return Err(TrySendError::Disconnected(item));
            }
            if queue.items.len() >= queue.room {
                return Err(TrySendError::Full(item));
            }
            queue.items.push_back(item);
            drop(queue);
            self.0.changed.notify_one();
            Ok(())
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            self.0.queue.lock().has_sender = false;
            self.0.changed.notify_all();
        }
    }

    impl<T> Receiver<T> {
        pub(crate) fn recv_deadline(&self, until: Instant) -> Result<T, RecvTimeoutError> {
            self.receive(Some(until))
        }

        pub(crate) fn recv(&self) -> Result<T, RecvTimeoutError> {
            self.receive(None)
        }

        /// Takes what is there.
        pub(crate) fn try_iter(&self) -> impl Iterator<Item = T> {
            std::mem::take(&mut self.0.queue.lock().items).into_iter()
        }

        fn receive(&self, until: Option<Instant>) -> Result<T, RecvTimeoutError> {
            let mut queue = self.0.queue.lock();
            loop {
                if let Some(item) = queue.items.pop_front() {
                    return Ok(item);
                }
                if !queue.has_sender {
                    return Err(RecvTimeoutError::Disconnected);
                }
                if self.0.changed.wait_at_most(&mut queue, until).timed_out() {
                    return queue.items.pop_front().ok_or(RecvTimeoutError::Timeout);
                }
            }
        }
    }

    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            self.0.queue.lock().has_receiver = false;
        }
    }
}
