//! What there is to see at one moment: plain data, so that drawing it is a function of nothing else.

use std::time::Duration;

use smtp_pool::{HostState, PoolCounts};

use crate::diary::Entry;
use crate::stage::{self, Stage};

/// As many half seconds as the widest terminal shows.
const BARS: usize = 200;

#[derive(Debug, Clone)]
pub struct Picture {
    pub at: Duration,
    pub hosts: [HostPicture; 2],
    pub counts: PoolCounts,
    pub sent: u64,
    pub retries: u64,
    pub failed: u64,
    pub unknown: u64,
    pub opened: u64,
    pub closed: u64,
    /// The newest first.
    pub entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
pub struct HostPicture {
    pub name: &'static str,
    pub address: String,
    pub server: Server,
    pub state: State,
    pub idle: usize,
    pub leased: usize,
    pub connecting: usize,
    pub last_error: Option<String>,
    pub last_second: u64,
    /// Sends a second, by half seconds, the newest last.
    pub curve: Vec<u64>,
}

/// The truth about a server, and for how long it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    Up(Option<Duration>),
    Down(Duration),
}

/// What the pool thinks of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Available,
    CoolingDown(Duration),
    Probing,
}

impl Picture {
    pub fn of(stage: &Stage, at: Duration) -> Self {
        let status = stage.sender.status();
        let now = crate::time::now();
        let pages = stage.diary.pages();
        let host = |number: usize| {
            let host = &status.hosts[number];
            HostPicture {
                name: stage::NAMES[number],
                address: host.endpoint.to_string(),
                server: match (number, stage::plot(at)) {
                    (0, (true, left)) => Server::Down(left),
                    (0, (false, left)) => Server::Up(Some(left)),
                    _ => Server::Up(None),
                },
                state: match host.state {
                    HostState::CoolingDown { until } => State::CoolingDown(until.saturating_duration_since(now)),
                    HostState::Probing => State::Probing,
                    _ => State::Available,
                },
                idle: host.idle,
                leased: host.leased,
                connecting: host.connecting,
                last_error: host.last_error.as_deref().map(str::to_owned),
                last_second: pages.rates[number].last_second(at),
                curve: pages.rates[number].curve(at, BARS),
            }
        };
        Self {
            at,
            hosts: [host(0), host(1)],
            counts: status.counts,
            sent: pages.sent.iter().sum(),
            retries: pages.retries,
            failed: pages.failed,
            unknown: pages.unknown,
            opened: status.created,
            closed: status.discarded.total(),
            entries: pages.entries.into_iter().collect(),
        }
    }
}
