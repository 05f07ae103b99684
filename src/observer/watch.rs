//! Telling observers, so that nothing they do harms whoever tells them.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Observer;
use super::journal::{self, Journal};

/// The observers of one pool. The log is among them without having been registered.
#[derive(Clone, Default)]
pub(crate) struct Observers {
    registered: Arc<[Watcher]>,
}

struct Watcher {
    observer: Arc<dyn Observer>,
    has_panicked: AtomicBool,
}

impl Observers {
    pub(crate) fn new(observers: impl IntoIterator<Item = Arc<dyn Observer>>) -> Self {
        let watcher = |observer| Watcher { observer, has_panicked: AtomicBool::new(false) };
        Self { registered: observers.into_iter().map(watcher).collect() }
    }

    /// Whether anybody was registered. If not, nobody wants to know what happens with each message.
    #[inline]
    pub(crate) fn are_there(&self) -> bool {
        !self.registered.is_empty()
    }

    /// Tells the log, and everybody who was registered.
    pub(crate) fn tell(&self, event: impl Fn(&dyn Observer)) {
        static LOG_HAS_PANICKED: AtomicBool = AtomicBool::new(false);
        guarded(&Journal, &LOG_HAS_PANICKED, &event);
        self.tell_registered(event);
    }

    /// Tells those who were registered, of what happens with each message and is not for the log.
    pub(crate) fn tell_registered(&self, event: impl Fn(&dyn Observer)) {
        for Watcher { observer, has_panicked } in &*self.registered {
            guarded(&**observer, has_panicked, &event);
        }
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} registered", self.registered.len())
    }
}

/// Tells one observer, unless this very thread is running it already: what it does itself would tell it of itself without end.
fn guarded(observer: &dyn Observer, has_panicked: &AtomicBool, event: &impl Fn(&dyn Observer)) {
    let Some(_at_work) = AtWork::begin(has_panicked) else { return };
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| event(observer))) else { return };
    let_go(panic);
    if !has_panicked.swap(true, Ordering::Relaxed) {
        // The log may be the one that panics.
        if let Err(panic) = catch_unwind(journal::observer_panicked) {
            let_go(panic);
        }
    }
}

/// Drops what somebody panicked with, which may panic once more.
fn let_go(panic: Box<dyn Any + Send>) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(panic);
    }
}

thread_local! {
    /// Who is being told something by this thread, innermost last; by the address of what nobody else has.
    static AT_WORK: RefCell<Vec<*const AtomicBool>> = const { RefCell::new(Vec::new()) };
}

/// One observer at work in this thread.
struct AtWork;

impl AtWork {
    /// None if it is at work already, or if the thread is past its end.
    fn begin(who: &AtomicBool) -> Option<Self> {
        let who = ptr::from_ref(who);
        let begun = AT_WORK.try_with(|stack| {
            let mut stack = stack.borrow_mut();
            let is_new = !stack.contains(&who);
            if is_new {
                stack.push(who);
            }
            is_new
        });
        // Not `then_some`: what comes about is dropped, and its end is another one's.
        begun.unwrap_or(false).then(|| Self)
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        // As many ends as beginnings, the last begun being the first to end.
        let _ = AT_WORK.try_with(|stack| stack.borrow_mut().pop());
    }
}
