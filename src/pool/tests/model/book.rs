//! The bookkeeper: what the specification says of connections, hosts and waiting callers, in plain lists. It knows nothing
//! of how the pool decides; it is told what was decided, and says whether that is allowed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::health::{Health, HostBook, Pause};
use super::steps::Setup;
use crate::blame::Blame;
use crate::stats::DiscardReason;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Idle,
    Leased,
    /// Being asked for a sign of life.
    Asked,
    /// Given up.
    Ending,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) host: usize,
    pub(super) place: Place,
    /// Whether it has yet to be closed.
    pub(super) is_open: bool,
    /// Whether its server has ended it, which nobody has found out.
    pub(super) is_dead: bool,
    pub(super) opened: Instant,
    pub(super) used: Instant,
    pub(super) heard: Instant,
    pub(super) probed: Option<Instant>,
    pub(super) was_idle: bool,
    pub(super) messages: u32,
    pub(super) probes: u32,
    /// How often its host's credentials had been replaced when it was begun to be opened.
    pub(super) generation: u64,
}

#[derive(Debug)]
pub(super) struct Opening {
    pub(super) host: usize,
    pub(super) generation: u64,
    /// The connection that is to be closed before.
    pub(super) replaces: Option<u64>,
}

/// What a caller wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) fresh: bool,
    pub(super) only: Option<usize>,
    /// Hosts to be used only if there is no other.
    pub(super) avoid: Vec<usize>,
    /// Those of them that failed in this call.
    pub(super) tried: Vec<usize>,
}

#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) ticket: u64,
    pub(super) wish: Wish,
    pub(super) deadline: Instant,
    /// Whether it takes no gift any more.
    pub(super) is_deaf: bool,
}

/// What a caller is to get at this moment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// An idle connection of one of the first hosts, or the permission to open one on one of the second.
    Served(Vec<usize>, Vec<usize>),
    Waits,
    /// There is nothing to wait for.
    Hopeless,
}

#[derive(Debug)]
pub(super) struct Book {
    pub(super) now: Instant,
    /// The latest moment that anybody was told.
    pub(super) latest: Instant,
    pub(super) setup: Setup,
    pub(super) hosts: Vec<HostBook>,
    /// All that have not been closed, and those that have been but whose place is still somebody's.
    pub(super) connections: BTreeMap<u64, Connection>,
    pub(super) openings: BTreeMap<u64, Opening>,
    pub(super) queue: Vec<Caller>,
    pub(super) is_shut_down: bool,
    pub(super) created: u64,
    pub(super) failed: u64,
    pub(super) discarded: BTreeMap<&'static str, u64>,
    pub(super) exhausted: u64,
    /// The pause that must be announced by what happens now.
    pub(super) due_pause: Option<(usize, Pause)>,
    /// Not before then is a connection opened in reserve.
    pub(super) no_reserve_before: Option<Instant>,
}

pub(super) const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

impl Book {
    pub(super) fn new(setup: &Setup, now: Instant) -> Self {
        Self {
            now,
            latest: now,
            hosts: setup.hosts.iter().map(|host| HostBook::new(host, setup)).collect(),
            setup: setup.clone(),
            connections: BTreeMap::new(),
            openings: BTreeMap::new(),
            queue: Vec::new(),
            is_shut_down: false,
            created: 0,
            failed: 0,
            discarded: BTreeMap::new(),
            exhausted: 0,
            due_pause: None,
            no_reserve_before: None,
        }
    }

    pub(super) fn count(&self, host: usize, places: &[Place]) -> usize {
        self.connections.values().filter(|it| it.host == host && places.contains(&it.place)).count()
    }

    pub(super) fn connecting(&self, host: usize) -> usize {
        self.openings.values().filter(|opening| opening.host == host).count()
    }

    /// Those that work, or did when last heard of.
    pub(super) fn live(&self, host: usize) -> usize {
        self.count(host, &[Place::Idle, Place::Leased, Place::Asked])
    }

    /// An opening that has to wait for another connection's end has that one's place until then.
    fn is_begun(&self, opening: &Opening) -> bool {
        opening.replaces.is_none_or(|id| !self.connections.contains_key(&id))
    }

    /// Connections to this host that stand in this moment, and those being opened.
    pub(super) fn standing(&self, host: usize) -> usize {
        let begun = self.openings.values().filter(|it| it.host == host && self.is_begun(it)).count();
        begun + self.connections.values().filter(|it| it.host == host).count()
    }

    /// The places that are taken: an opening that has not begun has the place of what it replaces.
    fn taken(&self, host: usize) -> usize {
        let replaced =
            |it: &&Opening| it.replaces.is_some_and(|id| self.connections.get(&id).is_some_and(|it| it.host == host));
        let kept = self.openings.values().filter(|it| it.host == host).filter(replaced).count();
        self.connecting(host) + self.connections.values().filter(|it| it.host == host).count() - kept
    }

    pub(super) fn standing_in_all(&self) -> usize {
        (0..self.hosts.len()).map(|host| self.standing(host)).sum()
    }

    /// How long a host comes after the preferred ones, for this wish.
    fn rank(&self, wish: &Wish, host: usize) -> (bool, u32) {
        (wish.avoid.contains(&host) || wish.tried.contains(&host), self.hosts[host].priority)
    }

    /// What SPEC §6 and §7 give a caller: the most preferred hosts that are of any use decide. A connection that is idle
    /// there, or room for one, is had at once, if need be at the cost of what is idle and preferred less; if they are
    /// merely busy they are waited for.
    pub(super) fn verdict(&self, wish: &Wish, deadline: Instant) -> Verdict {
        let is_late = deadline <= self.now;
        let admitted = || (0..self.hosts.len()).filter(|&host| wish.only.is_none_or(|only| only == host));
        let is_full = self.standing_in_all() >= self.setup.max_size;
        let idle = |host: usize| self.count(host, &[Place::Idle]) > 0;
        let mut ranks: Vec<_> = admitted().map(|host| self.rank(wish, host)).collect();
        ranks.sort_unstable();
        ranks.dedup();
        for rank in ranks {
            let (mut lend, mut open, mut is_busy) = (Vec::new(), Vec::new(), false);
            for host in admitted().filter(|&host| self.rank(wish, host) == rank) {
                let may_open = !is_late && !wish.tried.contains(&host) && self.hosts[host].may_be_tried(self.now);
                if !wish.fresh && idle(host) {
                    lend.push(host);
                } else if may_open && self.taken(host) >= self.hosts[host].limit() {
                    if idle(host) { open.push(host) } else { is_busy = true }
                } else if may_open {
                    let is_victim = |other: usize| {
                        let worse = self.rank(wish, other) > rank;
                        idle(other) && (wish.fresh || wish.only.is_some() || worse)
                    };
                    if !is_full || (0..self.hosts.len()).any(is_victim) { open.push(host) } else { is_busy = true }
                }
            }
            if !lend.is_empty() {
                // Among equals an idle connection may give way to the weights.
                let equals = admitted().filter(|&host| self.rank(wish, host) == rank && !lend.contains(&host));
                let may_open = |host: &usize| {
                    !is_late
                        && !wish.tried.contains(host)
                        && self.hosts[*host].may_be_tried(self.now)
                        && self.taken(*host) < self.hosts[*host].limit()
                };
                return Verdict::Served(lend.clone(), equals.filter(may_open).collect());
            }
            if !open.is_empty() {
                return Verdict::Served(lend, open);
            }
            if is_busy {
                return Verdict::Waits;
            }
        }
        let hope = |host: usize| {
            let live = self.connecting(host) + if wish.fresh { 0 } else { self.live(host) };
            let fair = ms(self.setup.fair_time);
            let comes_in_time = match self.hosts[host].health {
                Health::Pausing { until } => until + fair <= deadline && until < deadline,
                _ => false,
            };
            !wish.tried.contains(&host) && (live > 0 || comes_in_time)
        };
        if !is_late && admitted().any(hope) { Verdict::Waits } else { Verdict::Hopeless }
    }

    /// I6: nobody who came earlier, and could use it just as well, is still waiting.
    pub(super) fn assert_nobody_is_overtaken(&self, ticket: u64, wish: &Wish) {
        let earlier = |it: &&Caller| it.ticket < ticket && it.wish == *wish && it.deadline > self.now && !it.is_deaf;
        if let Some(overtaken) = self.queue.iter().find(earlier) {
            panic!("I6: caller {ticket} is served before caller {}", overtaken.ticket);
        }
    }

    /// An idle connection is lent.
    pub(super) fn lent(&mut self, caller: &Caller, id: u64) {
        let verdict = self.verdict(&caller.wish, caller.deadline);
        let it = self.connections.get(&id).unwrap_or_else(|| panic!("I7: connection {id} is lent, which is no more"));
        assert_eq!(it.place, Place::Idle, "I2: connection {id} is lent");
        let Verdict::Served(lend, _) = &verdict else { panic!("connection {id} is lent: {verdict:?}") };
        assert!(lend.contains(&it.host), "connection {id} to host {} is lent: {verdict:?}", it.host);
        let idle = |other: &&Connection| other.place == Place::Idle;
        let newer = |other: &&Connection| idle(other) && other.used > it.used;
        let is_newest = !self.connections.values().filter(newer).any(|other| other.host == it.host);
        assert!(is_newest, "connection {id} is lent, and another one was used later");
        if let Some(timeout) = self.setup.idle_timeout {
            let is_kept = self.connections.values().filter(newer).count() < self.setup.min_idle;
            assert!(is_kept || it.used + ms(timeout) > self.now, "connection {id} was idle for too long");
        }
        let lifetime = self.setup.max_lifetime.map(ms);
        assert!(lifetime.is_none_or(|lifetime| it.opened + lifetime > self.now), "connection {id} is too old");
        assert!(it.messages < self.message_limit(it.host), "connection {id} has carried enough");
        assert!(!self.is_outdated(it), "connection {id} has credentials that were replaced");
        self.set(id, Place::Leased);
    }

    /// Whether it was opened, or may have been, with credentials that the host does not have any more.
    pub(super) fn is_outdated(&self, it: &Connection) -> bool {
        it.generation != self.hosts[it.host].generation
    }

    /// Whether what was refused is not what the next one logs in with.
    pub(super) fn is_outdated_refusal(&self, host: usize, generation: u64, blame: Blame) -> bool {
        blame == Blame::Credentials && generation != self.hosts[host].generation
    }

    pub(super) fn message_limit(&self, host: usize) -> u32 {
        let bounds = [self.setup.max_messages, self.hosts[host].message_limit];
        bounds.into_iter().flatten().min().unwrap_or(u32::MAX)
    }

    /// A caller may open a connection. True if that is the probe of a host that paused.
    pub(super) fn permitted(&mut self, caller: &Caller, id: u64, host: usize, replaces: Option<u64>) -> bool {
        let verdict = self.verdict(&caller.wish, caller.deadline);
        let Verdict::Served(lend, open) = &verdict else { panic!("host {host} is to be opened: {verdict:?}") };
        assert!(open.contains(&host), "host {host} is to be opened: {verdict:?}");
        if let Some(victim) = replaces {
            let is_full = self.standing_in_all() >= self.setup.max_size || self.taken(host) >= self.hosts[host].limit();
            assert!(is_full, "connection {victim} is evicted, and there is room");
            let other = self.connections[&victim].host;
            let is_preferred = self.rank(&caller.wish, other) < self.rank(&caller.wish, host);
            assert!(lend.is_empty() || !is_preferred, "connection {victim} is evicted, and would have done");
            self.discarded(victim, DiscardReason::Evicted);
        }
        self.begin(id, host, replaces)
    }

    pub(super) fn begin(&mut self, id: u64, host: usize, replaces: Option<u64>) -> bool {
        let generation = self.hosts[host].generation;
        let begun = self.openings.insert(id, Opening { host, generation, replaces });
        assert!(begun.is_none(), "number {id} is used twice");
        assert!(!self.connections.contains_key(&id), "number {id} is used twice");
        self.hosts[host].begun(id, self.now)
    }

    fn set(&mut self, id: u64, place: Place) {
        if let Some(it) = self.connections.get_mut(&id) {
            it.place = place;
        }
    }

    /// The connection is there. True if that ends a pause.
    pub(super) fn opened(&mut self, id: u64) -> bool {
        let Opening { host, generation, .. } = self.openings.remove(&id).expect("it was being opened");
        self.created += 1;
        let now = self.now;
        let it = Connection {
            host,
            place: Place::Leased,
            is_open: true,
            is_dead: false,
            opened: now,
            used: now,
            heard: now,
            probed: None,
            was_idle: false,
            messages: 0,
            probes: 0,
            generation,
        };
        self.connections.insert(id, it);
        let live = self.live(host);
        self.hosts[host].opened(live)
    }

    /// A connection goes back, or on to the next: it is idle as long as nobody says otherwise.
    pub(super) fn put_back(&mut self, id: u64) {
        let now = self.now;
        let it = self.connections.get_mut(&id).expect("it is there");
        assert!(matches!(it.place, Place::Leased | Place::Asked));
        it.place = Place::Idle;
        it.was_idle = true;
        it.used = now;
        it.heard = it.probed.map_or(now, |probed| probed.max(now));
    }

    /// The pool gives a connection up.
    pub(super) fn discarded(&mut self, id: u64, reason: DiscardReason) {
        let it = self.connections.get(&id).unwrap_or_else(|| panic!("connection {id} is discarded, which is no more"));
        assert_ne!(it.place, Place::Ending, "connection {id} is discarded twice");
        let (age, idle) = (self.now.saturating_duration_since(it.opened), self.now.saturating_duration_since(it.used));
        let silent = self.now.saturating_duration_since(it.heard);
        match reason {
            DiscardReason::IdleTimeout => {
                let is_worn = it.probes >= 8 && self.setup.keepalive_interval.is_some_and(|at| silent >= ms(at));
                let is_over = is_worn || self.setup.idle_timeout.is_some_and(|timeout| idle >= ms(timeout));
                assert!(it.place == Place::Idle && is_over, "connection {id}, idle for {idle:?}");
            }
            DiscardReason::MaxLifetime => {
                let shortest = |lifetime: u64| ms(lifetime).mul_f64(1.0 - Setup::LIFETIME_JITTER);
                let is_over = self.setup.max_lifetime.is_some_and(|lifetime| age >= shortest(lifetime));
                assert!(it.place == Place::Idle && is_over, "connection {id}, {age:?} old");
            }
            DiscardReason::MaxMessages => {
                let is_idle = it.place == Place::Idle;
                assert!(!is_idle || it.messages >= self.message_limit(it.host), "{} message(s)", it.messages);
            }
            DiscardReason::CredentialsRotated => assert!(self.is_outdated(it), "connection {id} is up to date"),
            DiscardReason::Evicted => assert_eq!(it.place, Place::Idle, "connection {id} is evicted"),
            DiscardReason::Shutdown => assert!(self.is_shut_down, "connection {id}"),
            _ => {}
        }
        *self.discarded.entry(reason.as_str()).or_default() += 1;
        self.delay_reserve(ms(self.setup.refill_delay));
        self.set(id, Place::Ending);
        if !self.connections[&id].is_open {
            self.connections.remove(&id);
        }
    }

    pub(super) fn delay_reserve(&mut self, delay: Duration) {
        if !delay.is_zero() {
            self.no_reserve_before = self.no_reserve_before.max(Some(self.now + delay));
        }
    }

    /// A connection that the pool gave up has been closed.
    pub(super) fn closed(&mut self, id: u64) {
        let it = self.connections.remove(&id).expect("it is closed once");
        assert_eq!(it.place, Place::Ending, "connection {id} is closed, and nobody gave it up");
    }

    /// It is closed by the one who had it, whose place it stays until the pool is told.
    pub(super) fn hang_up(&mut self, id: u64) {
        self.connections.get_mut(&id).expect("it is there").is_open = false;
    }

    /// Whoever it was for has gone: it is as idle as it was before.
    pub(super) fn pass_on(&mut self, id: u64) {
        let it = &self.connections[&id];
        let (used, heard) = if it.was_idle { (it.used, it.heard) } else { (self.now, self.now) };
        self.put_back(id);
        let it = self.connections.get_mut(&id).expect("it is there");
        (it.used, it.heard) = (used, heard);
    }

    pub(super) fn ids(&self, places: &[Place]) -> impl Iterator<Item = u64> {
        self.connections.iter().filter(move |(_, it)| places.contains(&it.place)).map(|(&id, _)| id)
    }

    pub(super) fn all_idle(&self) -> impl Iterator<Item = u64> {
        self.ids(&[Place::Idle])
    }

    /// Whether one whose connection to `host` has just ended may open the next in its place.
    pub(super) fn may_reopen(&self, caller: &Caller, host: usize) -> bool {
        let Wish { only, tried, .. } = &caller.wish;
        let is_wanted = only.is_none_or(|only| only == host) && !tried.contains(&host);
        is_wanted && self.hosts[host].may_be_tried(self.now) && self.taken(host) < self.hosts[host].limit()
    }

    pub(super) fn retry_after(&self, wish: &Wish) -> Option<Duration> {
        let admitted = self.hosts.iter().enumerate().filter(|&(host, _)| wish.only.is_none_or(|only| only == host));
        let ends = admitted.filter_map(|(_, host)| match host.health {
            Health::Pausing { until } => Some(until.saturating_duration_since(self.now)),
            _ => None,
        });
        ends.min()
    }

    /// When the next idle connection is to be asked, or to end, at the latest.
    pub(super) fn care_due(&self) -> Option<Instant> {
        let Setup { keepalive_interval, max_lifetime, idle_timeout, min_idle, .. } = self.setup;
        let mut idle: Vec<_> = self.all_idle().map(|id| (self.connections[&id].used, id)).collect();
        idle.sort_unstable();
        let not_kept = idle.len().saturating_sub(min_idle);
        let dues = idle.into_iter().enumerate().flat_map(|(at, (used, id))| {
            let it = &self.connections[&id];
            let idle_timeout = idle_timeout.filter(|_| at < not_kept);
            [
                keepalive_interval.map(|interval| it.heard + ms(interval)),
                max_lifetime.map(|lifetime| it.opened + ms(lifetime)),
                idle_timeout.map(|timeout| used + ms(timeout)),
            ]
        });
        dues.flatten().min()
    }

    /// When a connection may be opened in reserve: on a host of the first priority that is not merely full. A preferred
    /// host that works, and is full, is not passed by.
    pub(super) fn reserve_due(&self) -> Option<Instant> {
        let mut priorities: Vec<u32> = self.hosts.iter().map(|host| host.priority).collect();
        priorities.sort_unstable();
        let from = self.no_reserve_before.unwrap_or(self.now).max(self.now);
        for priority in priorities {
            let mut hosts = (0..self.hosts.len()).filter(|&host| self.hosts[host].priority == priority);
            let may_open = |host: &usize| self.hosts[*host].may_be_tried(self.now);
            if hosts.clone().filter(may_open).any(|host| self.taken(host) < self.hosts[host].limit()) {
                return Some(from);
            }
            if hosts.any(|host| may_open(&host) || (self.hosts[host].health == Health::Up && self.live(host) > 0)) {
                return None;
            }
        }
        let ends = self.hosts.iter().filter_map(|host| match host.health {
            Health::Pausing { until } if until > self.now => Some(until),
            _ => None,
        });
        ends.min().map(|end| end.max(from))
    }
}
