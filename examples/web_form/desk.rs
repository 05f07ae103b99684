//! Where mails are handed in: each ticket is sent once, whoever comes with it how often.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use lettre::Address;
use smtp_pool::{SendOptions, SmtpSender};

use crate::form::Form;
use crate::outcome::Outcome;
use crate::settings::DEADLINE;

/// Outcomes remembered. A ticket that is older than so many mails would be sent again; a shop keeps its orders in a database.
const REMEMBERED: usize = 1000;

pub struct Desk {
    sender: SmtpSender,
    from: Address,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    mails: HashMap<String, Mail>,
    /// Tickets whose outcome is known, the latest last.
    settled: VecDeque<String>,
}

enum Mail {
    /// Stays so if its thread dies: then nobody knows, and nobody may send it again.
    Sending,
    Settled {
        fingerprint: u64,
        outcome: Arc<Outcome>,
    },
}

pub enum Handed {
    /// What became of it now, or the first time.
    Outcome(Arc<Outcome>),
    /// Another request is sending it.
    InProgress,
}

impl Desk {
    pub fn new(sender: SmtpSender, from: Address) -> Self {
        Self { sender, from, book: Mutex::default() }
    }

    pub const fn sender(&self) -> &SmtpSender {
        &self.sender
    }

    pub const fn from(&self) -> &Address {
        &self.from
    }

    pub fn hand_in(&self, ticket: String, form: &Form, to: Address) -> Result<Handed, lettre::error::Error> {
        let fingerprint = form.fingerprint();
        let ticket = match self.begin(ticket, fingerprint) {
            Ok(ticket) => ticket,
            Err(handed) => return Ok(handed),
        };
        // By the ticket, so that it is the same at every attempt, and whoever reconciles finds it in the relay's log.
        let id = format!("<{ticket}@{}>", self.from.domain());
        let message = match form.message(&self.from, to, &id) {
            Ok(message) => message,
            Err(error) => {
                self.book().mails.remove(&ticket);
                return Err(error);
            }
        };
        let started = now();
        let options = SendOptions::new().deadline(started + DEADLINE);
        let result = self.sender.send_with(message.envelope(), &message.formatted(), &options);
        let outcome = Arc::new(Outcome::new(ticket.clone(), id, started, now(), &result));
        if let Err(error) = &result {
            // The error's own text quotes the server, so it is for the log of this program and not for the page.
            eprintln!("{}: {error}", outcome.message_id);
        }
        self.book().settle(ticket, fingerprint, &outcome);
        Ok(Handed::Outcome(outcome))
    }

    /// The ticket to send under, unless there is nothing to send.
    ///
    /// One of several with the same ticket gets it: the look and the mark are one critical section.
    fn begin(&self, mut ticket: String, fingerprint: u64) -> Result<String, Handed> {
        let mut book = self.book();
        match book.mails.get(&ticket) {
            Some(Mail::Sending) => return Err(Handed::InProgress),
            Some(Mail::Settled { fingerprint: before, outcome }) if !outcome.may_be_sent_again() => {
                if *before == fingerprint {
                    return Err(Handed::Outcome(Arc::clone(outcome)));
                }
                // Somebody went back in the browser and wrote another mail.
                ticket = fresh_ticket();
            }
            _ => {}
        }
        book.mails.insert(ticket.clone(), Mail::Sending);
        drop(book);
        Ok(ticket)
    }

    /// The latest first.
    pub fn recent(&self, count: usize) -> Vec<Arc<Outcome>> {
        let book = self.book();
        book.settled.iter().rev().filter_map(|ticket| book.outcome(ticket)).take(count).collect()
    }

    pub fn outcome(&self, ticket: &str) -> Option<Arc<Outcome>> {
        self.book().outcome(ticket)
    }

    /// What is known of a ticket; none if nobody came with it yet.
    pub fn handed(&self, ticket: &str) -> Option<Handed> {
        let book = self.book();
        match book.mails.get(ticket)? {
            Mail::Sending => Some(Handed::InProgress),
            Mail::Settled { outcome, .. } => Some(Handed::Outcome(Arc::clone(outcome))),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn outcome(&self, ticket: &str) -> Option<Arc<Outcome>> {
        match self.mails.get(ticket)? {
            Mail::Sending => None,
            Mail::Settled { outcome, .. } => Some(Arc::clone(outcome)),
        }
    }

    fn settle(&mut self, ticket: String, fingerprint: u64, outcome: &Arc<Outcome>) {
        self.settled.retain(|known| *known != ticket);
        self.mails.insert(ticket.clone(), Mail::Settled { fingerprint, outcome: Arc::clone(outcome) });
        self.settled.push_back(ticket);
        if self.settled.len() > REMEMBERED {
            if let Some(oldest) = self.settled.pop_front() {
                // One that is being sent once more is none of the settled.
                if !matches!(self.mails.get(&oldest), Some(Mail::Sending)) {
                    self.mails.remove(&oldest);
                }
            }
        }
    }
}

pub fn fresh_ticket() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// Whether a ticket is one of ours by its looks; it becomes a part of the Message-ID.
pub fn is_ticket(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[expect(clippy::disallowed_methods, reason = "a program of its own")]
pub fn now() -> Instant {
    Instant::now()
}
