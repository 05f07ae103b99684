//! This crate.

use std::time::Duration;

use lettre::address::Envelope;
use smtp_pool::{Host, SmtpSender};

use super::{Load, Peer, timed_calls};
use crate::mail;
use crate::paired::Contestant;

pub struct Pooled {
    peer: Peer,
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
        Self::of(Peer::Pool, host.port(load.server.port), load)
    }

    /// Over a plain connection. `None` if this version of the crate does not know the option.
    pub fn at_once(load: &Load) -> Option<Self> {
        assert!(load.server.ca.is_none(), "nobody has asked for more yet");
        let url = format!("smtp://{}:{}?tls=none&single_round_trip=true", load.server.name(), load.server.port);
        Some(Self::of(Peer::PoolAtOnce, url.parse().ok()?, load))
    }

    fn of(peer: Peer, host: Host, load: &Load) -> Self {
        Self {
            peer,
            sender: SmtpSender::builder().host(host).max_size(load.connections).build().unwrap(),
            threads: load.connections,
            envelope: mail::envelope(load.recipients),
            content: mail::content(load.size),
        }
    }
}

impl Contestant for Pooled {
    fn name(&self) -> &str {
        self.peer.name()
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
