//! This crate.

use std::time::Duration;

use lettre::address::Envelope;
use smtp_pool::{Host, SmtpSender};

use super::{Load, Peer, timed_calls};
use crate::mail;
use crate::paired::Contestant;

pub struct Pooled {
    sender: SmtpSender,
    threads: usize,
    envelope: Envelope,
    content: Vec<u8>,
}

impl Pooled {
    pub fn new(load: &Load) -> Self {
        let host = match &load.server.ca {
            None => Host::plain(load.server.name()),
            Some(ca) => Host::starttls(load.server.name()).root_certificate(ca.as_slice()),
        };
        let sender = SmtpSender::builder().host(host.port(load.server.port)).max_size(load.connections).build();
        Self {
            sender: sender.unwrap(),
            threads: load.connections,
            envelope: mail::envelope(load.recipients),
            content: mail::content(load.size),
        }
    }
}

impl Contestant for Pooled {
    fn name(&self) -> &str {
        Peer::Pool.name()
    }

    fn work(&mut self, amount: usize) -> Duration {
        let took = timed_calls(self.threads, amount, || {
            self.sender.send_raw(&self.envelope, &self.content).unwrap();
        });
        let created = self.sender.status().created;
        assert!(created <= self.threads as u64, "{created} connections for {} threads", self.threads);
        took
    }

    fn granularity(&self) -> usize {
        self.threads
    }
}
