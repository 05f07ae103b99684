//! What was decided, told to observers.

use std::mem;

use crate::observer::{
    CapacityLearned, ConnectionDiscarded, ConnectionFailed, ConnectionOpened, CooldownEntered, CooldownLeft,
    IdleLimitLearned, LevelsChanged, MessageLimitLearned, ReconnectSuppressed, WaitersChanged,
};
use crate::pool::connector::Connector;
use crate::pool::effects::Event;
use crate::pool::levels::{Change, Changes};
use crate::pool::shared::Shared;

/// What is to be told when everything else is done, or has failed.
pub(super) struct News<'a, C: Connector> {
    pub(super) shared: &'a Shared<C>,
    pub(super) events: Vec<Event>,
    pub(super) changes: Changes,
}

impl<C: Connector> Drop for News<'_, C> {
    fn drop(&mut self) {
        for change in mem::replace(&mut self.changes, Changes::NONE) {
            self.shared.tell_change(change);
        }
        for event in mem::take(&mut self.events) {
            self.shared.tell(&event);
        }
    }
}

impl<C: Connector> Shared<C> {
    fn tell(&self, event: &Event) {
        let observers = &self.observers;
        match *event {
            Event::Opened { host, id: connection_id, took } => {
                let event = ConnectionOpened { host: self.endpoint(host), connection_id, took };
                observers.tell(|observer| observer.connection_opened(&event));
            }
            Event::Discarded { host, id: connection_id, messages, lived, reason } => {
                let host = self.endpoint(host);
                let event = ConnectionDiscarded { host, connection_id, reason, lived, messages };
                observers.tell(|observer| observer.connection_discarded(&event));
            }
            Event::OpenFailed { host, id: connection_id, took, ref error } => {
                let event = ConnectionFailed { host: self.endpoint(host), connection_id, took, error };
                observers.tell(|observer| observer.connection_failed(&event));
            }
            Event::CooldownEntered { host, pause, failures } => {
                let event = CooldownEntered { host: self.endpoint(host), pause, failures };
                observers.tell(|observer| observer.cooldown_entered(&event));
            }
            Event::CooldownLeft { host } => {
                let event = CooldownLeft { host: self.endpoint(host) };
                observers.tell(|observer| observer.cooldown_left(&event));
            }
            Event::CapacityLearned { host, connections } => {
                let event = CapacityLearned { host: self.endpoint(host), connections };
                observers.tell(|observer| observer.capacity_learned(&event));
            }
            Event::MessageLimitLearned { host, messages } => {
                let event = MessageLimitLearned { host: self.endpoint(host), messages };
                observers.tell(|observer| observer.message_limit_learned(&event));
            }
            Event::IdleLimitLearned { host, limit } => {
                let event = IdleLimitLearned { host: self.endpoint(host), limit };
                observers.tell(|observer| observer.idle_limit_learned(&event));
            }
            Event::ReconnectSuppressed { host } => {
                let event = ReconnectSuppressed { host: self.endpoint(host) };
                observers.tell_registered(|observer| observer.reconnect_suppressed(&event));
            }
        }
    }

    fn tell_change(&self, change: Change) {
        match change {
            Change::Levels(host, by) => {
                let event = LevelsChanged {
                    host: self.endpoint(host),
                    idle: by.idle.into(),
                    leased: by.leased.into(),
                    connecting: by.connecting.into(),
                    available: by.available.into(),
                    cooling_down: by.cooling_down.into(),
                    probing: by.probing.into(),
                };
                self.observers.tell_registered(|observer| observer.levels_changed(&event));
            }
            Change::Waiters(waiting) => {
                let event = WaitersChanged { waiting: waiting.into() };
                self.observers.tell_registered(|observer| observer.waiters_changed(&event));
            }
        }
    }
}
