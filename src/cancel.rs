//! Ends a call from another thread.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::sync::Mutex;

type Hook = Box<dyn FnOnce() + Send>;

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
    hooks: BTreeMap<u64, Hook>,
}

impl State {
    /// Takes `hook`, unless it is too late for one. Returns its place.
    fn register(&mut self, hook: &mut Option<Hook>) -> u64 {
        let id = self.next;
        if let Some(hook) = hook.take_if(|_| !self.is_cancelled) {
            self.next += 1;
            self.hooks.insert(id, hook);
        }
        id
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
        for hook in hooks.into_values() {
            hook();
        }
    }

    /// Whether it has been cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.shared.lock().is_cancelled
    }

    /// Has `hook` run when the token is cancelled, or at once if it has been. It is forgotten when the registration is dropped; it
    /// may still be running then.
    pub(crate) fn on_cancel(&self, hook: impl FnOnce() + Send + 'static) -> Registration {
        let mut hook: Option<Hook> = Some(Box::new(hook));
        let id = self.shared.lock().register(&mut hook);
        // Only a hook that came too late is still here.
        if let Some(hook) = hook {
            hook();
        }
        Registration { shared: Arc::clone(&self.shared), id }
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

/// A hook's place; the hook is forgotten when this is dropped.
pub(crate) struct Registration {
    shared: Arc<Mutex<State>>,
    id: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        // What the hook holds is dropped after unlocking.
        let hook = self.shared.lock().hooks.remove(&self.id);
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
}
