//! Ends a call from another thread.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::sync::Mutex;

type Hook = Box<dyn FnOnce() + Send>;

/// Where a hook waits. Locked while it runs, so that whoever gives it up knows that it never runs, or has ended.
type Place = Arc<Mutex<Option<Hook>>>;

/// Ends the sends it was given to, from any thread.
///
/// Clones are the same token. A token that has been cancelled stays so; use a new one for the next send.
///
/// ```
/// use smtp_pool::{CancelToken, SendOptions};
///
/// let token = CancelToken::new();
/// let options = SendOptions::new().cancel(&token);
/// // … another thread:
/// token.cancel();
/// assert!(token.is_cancelled());
/// ```
#[derive(Clone, Default)]
pub struct CancelToken {
    shared: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    is_cancelled: bool,
    next: u64,
    /// What to do when it is cancelled, by registration.
    hooks: BTreeMap<u64, Place>,
}

impl State {
    /// Takes the hook in `place`, unless it is too late for one. Returns its number.
    fn register(&mut self, place: &Place) -> Option<u64> {
        if self.is_cancelled {
            return None;
        }
        let id = self.next;
        self.next += 1;
        self.hooks.insert(id, Arc::clone(place));
        Some(id)
    }
}

impl CancelToken {
    /// A token that nobody has cancelled.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends every send that this token was given to, promptly: one that waits for a connection is woken, one that talks to a server
    /// has its connection cut. Each returns [`Cancelled`](crate::FailureKind::Cancelled), or, if the last byte had been offered
    /// already, [`UnknownAfterData`](crate::FailureKind::UnknownAfterData): cancelling cannot recall a message.
    ///
    /// Does not wait for them.
    pub fn cancel(&self) {
        let hooks = {
            // Whoever registers later finds the flag; whoever registered before is in the map, which is taken out once.
            let mut state = self.shared.lock();
            state.is_cancelled = true;
            std::mem::take(&mut state.hooks)
        };
        hooks.into_values().for_each(|place| run(&place));
    }

    /// Whether it has been cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.shared.lock().is_cancelled
    }

    /// Has `hook` run when the token is cancelled, or at once if it has been. Once the registration has been dropped it has run or
    /// never will: what it cuts may be somebody else's by then.
    pub(crate) fn on_cancel(&self, hook: impl FnOnce() + Send + 'static) -> Registration {
        let place: Place = Arc::new(Mutex::new(Some(Box::new(hook))));
        let id = self.shared.lock().register(&place);
        if id.is_none() {
            run(&place);
        }
        Registration { shared: Arc::clone(&self.shared), id, place }
    }
}

/// Runs the hook, unless it has been given up. Hooks are short, take no lock that is held while a registration is dropped, and drop none.
fn run(place: &Place) {
    let mut place = place.lock();
    if let Some(hook) = place.take() {
        hook();
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelToken").field("is_cancelled", &self.is_cancelled()).finish()
    }
}

impl PartialEq for CancelToken {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl Eq for CancelToken {}

/// A hook's place; the hook is forgotten when this is dropped, which waits for one that is running.
pub(crate) struct Registration {
    shared: Arc<Mutex<State>>,
    /// None if it came too late to be registered.
    id: Option<u64>,
    place: Place,
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.shared.lock().hooks.remove(&id);
        }
        // What the hook holds is dropped after unlocking.
        let hook = self.place.lock().take();
        drop(hook);
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registration")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn a_hook_runs_once_whenever_it_was_registered_and_never_after_its_registration() {
        let runs = Arc::new(AtomicUsize::new(0));
        let count = || {
            let runs = Arc::clone(&runs);
            move || {
                runs.fetch_add(1, Ordering::Relaxed);
            }
        };
        let token = CancelToken::new();
        let _before = token.on_cancel(count());
        drop(token.on_cancel(count()));
        assert_eq!(runs.load(Ordering::Relaxed), 0);
        token.clone().cancel();
        token.cancel();
        assert_eq!(runs.load(Ordering::Relaxed), 1);
        let _after = token.on_cancel(count());
        assert_eq!(runs.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn no_hook_runs_once_its_registration_is_gone() {
        let token = CancelToken::new();
        let (begun, begins) = mpsc::channel();
        let (go_on, goes_on) = mpsc::channel::<()>();
        let late = Arc::new(AtomicUsize::new(0));
        let first = token.on_cancel(move || {
            begun.send(()).unwrap();
            goes_on.recv().unwrap();
        });
        let counter = Arc::clone(&late);
        let second = token.on_cancel(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        thread::scope(|scope| {
            // Gone with a failed assertion, so that nobody waits for it.
            let go_on = go_on;
            scope.spawn(|| token.cancel());
            begins.recv().unwrap();
            // Its turn has not come yet, and never will.
            drop(second);
            let (gone, is_gone) = mpsc::channel();
            scope.spawn(move || {
                drop(first);
                gone.send(()).unwrap();
            });
            assert!(is_gone.recv_timeout(Duration::from_millis(50)).is_err(), "the first is under way");
            go_on.send(()).unwrap();
            is_gone.recv().unwrap();
        });
        assert_eq!(late.load(Ordering::SeqCst), 0);
    }
}
