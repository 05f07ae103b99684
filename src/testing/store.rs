//! What a server's threads share: what was received, what happened, and the waiting for it.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::builder::Config;
use super::clock;
use super::identity::Identity;
use super::message::{ReceivedMessage, Stored, id_key};
use super::script::{Action, Script, Stage};
use super::wire::{Link, Wish};

/// Counters of a server at one moment, as [`TestServer::wait_for`](super::TestServer::wait_for) shows them.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub(super) accepted: usize,
    pub(super) open: usize,
    pub(super) messages: usize,
    pub(super) stages: [usize; Stage::COUNT],
    pub(super) barriers: HashMap<String, usize>,
}

impl Snapshot {
    /// Connections accepted so far, those turned away at the limit included.
    #[must_use]
    pub fn connections_accepted(&self) -> usize {
        self.accepted
    }

    /// Connections whose socket is still open on the server's side.
    #[must_use]
    pub fn connections_open(&self) -> usize {
        self.open
    }

    /// Messages stored so far.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.messages
    }

    /// How often a stage was reached: `reached(Stage::Mail)` is the number of MAIL commands read.
    #[must_use]
    pub fn reached(&self, stage: Stage) -> usize {
        self.stages[stage as usize]
    }

    /// How many connections have arrived at the [`Action::Barrier`] of this name.
    #[must_use]
    pub fn barrier_reached(&self, name: &str) -> usize {
        self.barriers.get(name).copied().unwrap_or(0)
    }
}

pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) state: Mutex<State>,
    /// Signalled after every change of `state`, and when a connection is asked to end.
    pub(super) changed: Condvar,
    pub(super) stopping: AtomicBool,
    identity: OnceLock<Identity>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) snapshot: Snapshot,
    pub(super) script: Script,
    pub(super) messages: Vec<ReceivedMessage>,
    pub(super) by_id: HashMap<String, usize>,
    pub(super) links: Vec<Arc<Link>>,
    pub(super) violations: Vec<String>,
    pub(super) peak: usize,
    opened: HashSet<String>,
}

impl Shared {
    pub(super) fn new(config: Config, script: Script) -> Self {
        Self {
            config,
            state: Mutex::new(State { script, ..State::default() }),
            changed: Condvar::new(),
            stopping: AtomicBool::new(false),
            identity: OnceLock::new(),
        }
    }

    pub(super) fn identity(&self) -> &Identity {
        self.identity.get_or_init(|| Identity::generate(self.config.certificate))
    }

    pub(super) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    pub(super) fn enter(&self, stage: Stage, connection: usize, line: &[u8]) -> Option<(usize, Arc<[Action]>)> {
        let mut state = self.state.lock();
        state.snapshot.stages[stage as usize] += 1;
        let rule = state.script.enter(stage, connection, line);
        drop(state);
        self.changed.notify_all();
        rule
    }

    pub(super) fn violation(&self, connection: usize, text: &str) {
        self.state.lock().violations.push(format!("connection {connection}: {text}"));
        self.changed.notify_all();
    }

    /// Returns the number of the message.
    pub(super) fn store(&self, message: Stored) -> usize {
        let message = ReceivedMessage(Arc::new(message));
        let mut state = self.state.lock();
        if let Some(id) = message.message_id() {
            *state.by_id.entry(id_key(id).to_owned()).or_default() += 1;
        }
        state.snapshot.messages += 1;
        let number = state.snapshot.messages;
        if self.config.keep_messages {
            state.messages.push(message);
        }
        drop(state);
        self.changed.notify_all();
        number
    }

    /// Blocks until the condition holds; whether it did in time.
    pub(super) fn wait(&self, timeout: Duration, mut done: impl FnMut(&State) -> bool) -> bool {
        let until = clock::deadline(timeout);
        let mut state = self.state.lock();
        loop {
            if done(&state) {
                return true;
            }
            if self.changed.wait_until(&mut state, until).timed_out() {
                return done(&state);
            }
        }
    }

    /// A pause of a connection's thread. `true`: the time is over; `false`: the connection is to end.
    pub(super) fn pause(&self, link: &Link, time: Duration) -> bool {
        !self.wait(time, |_| self.unwanted(link))
    }

    /// Blocks a connection's thread until somebody ends the connection.
    pub(super) fn park(&self, link: &Link) {
        let mut state = self.state.lock();
        while !self.unwanted(link) {
            self.changed.wait(&mut state);
        }
    }

    /// A connection's thread arrives at a barrier. `false`: the connection is to end.
    pub(super) fn pass_barrier(&self, link: &Link, name: &str) -> bool {
        *self.state.lock().snapshot.barriers.entry(name.to_owned()).or_default() += 1;
        self.changed.notify_all();
        let in_time = self.wait(self.config.patience, |state| state.opened.contains(name) || self.unwanted(link));
        if !in_time {
            let patience = self.config.patience;
            self.violation(link.number, &format!("barrier {name:?} was not released within {patience:?}"));
        }
        in_time && !self.unwanted(link)
    }

    pub(super) fn open_barrier(&self, name: &str) {
        self.state.lock().opened.insert(name.to_owned());
        self.changed.notify_all();
    }

    pub(super) fn unwanted(&self, link: &Link) -> bool {
        self.stopping() || link.wish() != Wish::None
    }

    /// Makes waiting threads look at flags that are not part of `state`.
    ///
    /// The lock is taken so that a thread between its look and its wait cannot miss the call.
    pub(super) fn wake_all(&self) {
        drop(self.state.lock());
        self.changed.notify_all();
    }
}
