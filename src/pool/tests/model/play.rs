//! Plays a history: does to the state what callers, servers and the clock do, and tells the book.

use std::ops::Add;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::book::{Book, Caller, Place, Verdict, Wish, ms};
use super::health::HostBook;
use super::steps::{Connecting, HOSTS, How, Setup, Step};
use super::thread::Thread;
use super::watched::Sums;
use crate::blame::Blame;
use crate::clock::{self, Deadline};
use crate::endpoint::HostId;
use crate::lane::Lane;
use crate::pool::Learning;
use crate::pool::changes::Arrival;
use crate::pool::effects::{Effects, Event};
use crate::pool::errand::{Errand, HostSet, Request, Ticket};
use crate::pool::held::{Held, Record};
use crate::pool::slot::{Charge, Gift, Grant, RefusalReason, Slot};
use crate::pool::state::{self, PoolState};
use crate::pool::tests::fake::{limits, plan};
use crate::stats::{DiscardReason, HostState};

/// How often what was to be seen was seen.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    pub(super) leases: usize,
    pub(super) gifts: usize,
    pub(super) refusals: usize,
    pub(super) probes_of_hosts: usize,
    pub(super) asked: usize,
    pub(super) reserve: usize,
    pub(super) dead: usize,
    pub(super) outdated: usize,
    pub(super) passed_over: usize,
    pub(super) grown_old: usize,
    pub(super) silences: usize,
}

impl Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            leases: self.leases + other.leases,
            gifts: self.gifts + other.gifts,
            refusals: self.refusals + other.refusals,
            probes_of_hosts: self.probes_of_hosts + other.probes_of_hosts,
            asked: self.asked + other.asked,
            reserve: self.reserve + other.reserve,
            dead: self.dead + other.dead,
            outdated: self.outdated + other.outdated,
            passed_over: self.passed_over + other.passed_over,
            grown_old: self.grown_old + other.grown_old,
            silences: self.silences + other.silences,
        }
    }
}

pub(super) struct Waiting {
    pub(super) errand: Errand,
    slot: Arc<Slot<u64>>,
    wakes: Instant,
}

pub(super) struct Play {
    pub(super) state: PoolState<u64>,
    pub(super) book: Book,
    pub(super) leases: Vec<(Box<Record>, Ticket)>,
    pub(super) permits: Vec<(Grant<u64>, Errand)>,
    pub(super) waiting: Vec<Waiting>,
    /// Given up, and left to somebody to close.
    pub(super) closing: Vec<Held<u64>>,
    pub(super) thread: Thread,
    pub(super) tally: Tally,
    /// All changes that observers were told of, if there are any.
    pub(super) told: Option<Sums>,
    start: Instant,
    is_told: bool,
}

/// What was decided for the one who asked: the host whose place was its own before, if it may open another one there.
type Own = (state::Step<u64>, Errand, Option<usize>);

impl Play {
    pub(super) fn new(setup: &Setup, is_told: bool) -> Self {
        let mut limits = limits(setup.max_size);
        #[expect(clippy::cast_precision_loss, reason = "a hundredth")]
        let reserve = setup.interactive_reserve as f64 / 100.0;
        limits.interactive_reserve = reserve;
        limits.learning =
            setup.learns.then_some(Learning { lasts: Setup::LESSON, shortest_silence: Setup::SHORTEST_SILENCE });
        limits.min_idle = setup.min_idle;
        limits.refill_delay = ms(setup.refill_delay);
        limits.idle_timeout = setup.idle_timeout.map(ms);
        limits.max_lifetime = setup.max_lifetime.map(ms);
        limits.lifetime_jitter = Setup::LIFETIME_JITTER;
        limits.max_messages = setup.max_messages;
        limits.keepalive_interval = setup.keepalive_interval.map(ms);
        limits.fair_time = ms(setup.fair_time);
        limits.reconnect_cooldown = Setup::FIRST_PAUSE;
        limits.max_reconnect_cooldown = Setup::LONGEST_PAUSE;
        limits.exponential = setup.exponential;
        limits.jitter = Setup::JITTER;
        let plans = setup.hosts.iter().map(|host| {
            let mut plan = plan(host.priority, host.weight);
            plan.max_connections = host.max_connections;
            plan
        });
        let start = clock::now();
        let mut state = PoolState::new(plans.collect(), limits, setup.seed, start);
        if setup.is_attended {
            state.attend(start);
        }
        // Every other pool is observed.
        let told = (setup.seed % 2 == 1).then(|| Sums::new(setup.hosts.len()));
        if told.is_some() {
            state.observe();
        }
        Self {
            state,
            book: Book::new(setup, start),
            leases: Vec::new(),
            permits: Vec::new(),
            waiting: Vec::new(),
            closing: Vec::new(),
            thread: Thread::new(setup.is_attended),
            tally: Tally::default(),
            told,
            start,
            is_told,
        }
    }

    pub(super) fn tell(&self, what: impl FnOnce() -> String) {
        if self.is_told {
            println!("{:>10.3?}  {}", self.book.now.saturating_duration_since(self.start), what());
        }
    }

    pub(super) fn pass(&mut self, by: u64) {
        self.book.now = self.book.now.checked_add(ms(by)).unwrap_or(self.book.now);
        self.book.latest = self.book.latest.max(self.book.now);
        self.book.hang_up_on_the_silent();
    }

    /// One step of the history, and whatever it makes others do.
    pub(super) fn step(&mut self, step: &Step) {
        self.tell(|| format!("-- {step:?}"));
        let pick = |which: usize, of: usize| (of > 0).then(|| which % of);
        match *step {
            Step::Ask { is_bulk, within, fresh, avoid, only } => {
                let request = self.request(is_bulk, within, fresh, avoid, only);
                let mut errand = Errand::new(Ticket::default(), request);
                let mut fx = Effects::new();
                let step = self.state.arrive(&mut errand, self.book.now, &mut fx);
                self.carry_out(Some((step, errand, None)), fx);
            }
            Step::End { lease, how } => {
                if let Some(at) = pick(lease, self.leases.len()) {
                    let (record, _) = self.leases.swap_remove(at);
                    self.end(record, how);
                }
            }
            Step::Renew { lease, within, fresh, is_stale } => {
                if let Some(at) = pick(lease, self.leases.len()) {
                    let (record, ticket) = self.leases.swap_remove(at);
                    let is_bulk = record.lane == Lane::Bulk;
                    let errand = Errand::new(ticket, self.request(is_bulk, within, fresh, None, None));
                    self.renew(&record, errand, is_stale);
                }
            }
            Step::Connect { permit, end } => {
                if let Some(at) = pick(permit, self.permits.len()) {
                    let (grant, errand) = self.permits.swap_remove(at);
                    self.connect(grant, errand, end);
                }
            }
            Step::Cancel { waiter } => {
                if let Some(at) = pick(waiter, self.waiting.len()) {
                    let ticket = self.leaves(at);
                    self.change(|state, now, fx| drop(state.call_off(ticket, now, fx)));
                }
            }
            Step::Forget { waiter } => {
                if let Some(at) = pick(waiter, self.waiting.len()) {
                    let ticket = self.leaves(at);
                    self.change(|state, now, fx| state.forget(ticket, now, fx));
                }
            }
            Step::TurnDeaf { waiter } => {
                if let Some(at) = pick(waiter, self.book.queue.len()) {
                    self.book.queue[at].is_deaf = true;
                }
            }
            Step::Pass { by } | Step::Oversleep { by } => self.pass(by),
            Step::Back { by } => self.book.now -= ms(by),
            Step::Hang { up } => {
                let idle: Vec<u64> = self.book.all_idle().collect();
                if let Some(at) = pick(up, idle.len()) {
                    self.book.connections.get_mut(&idle[at]).unwrap().is_dead = true;
                }
            }
            Step::Closed { which } => {
                if let Some(at) = pick(which, self.closing.len()) {
                    self.close(at);
                }
            }
            Step::Tend => self.tend(),
            Step::Answer { probe, is_alive } => {
                if let Some(at) = pick(probe, self.thread.asked.len()) {
                    self.answer(at, is_alive);
                }
            }
            Step::Reserve { end } => self.reserve(end),
            Step::ThreadEnds => self.end_thread(),
            Step::LearnMessageLimit { host, messages } => {
                let host = host % self.book.hosts.len();
                self.book.hosts[host].learn_message_limit(messages, self.book.now);
                self.change(|state, now, fx| state.learn_message_limit(HostId(host), messages, now, fx));
            }
            Step::Rotate { host } => self.rotate(HostId(host % self.book.hosts.len())),
            Step::LastingRefusal { lease } => {
                if let Some(at) = pick(lease, self.leases.len()) {
                    let Record { host, id, generation, .. } = *self.leases[at].0;
                    if !self.book.is_outdated(&self.book.connections[&id]) {
                        let pause = self.book.hosts[host.0].failed(id, Blame::Credentials, self.book.now);
                        self.book.due_pause = Some((host.0, pause));
                    }
                    let no = || Arc::from("no");
                    self.change(|state, now, fx| state.lasting_refusal(host, id, generation, no(), now, fx));
                }
            }
            Step::ShutDown => {
                self.book.is_shut_down = true;
                self.thread.is_there = false;
                self.change(|state, now, fx| state.shut_down(now, fx));
            }
        }
        if !matches!(step, Step::Oversleep { .. }) {
            self.wake();
        }
    }

    fn request(&self, is_bulk: bool, within: u64, fresh: bool, avoid: Option<usize>, only: Option<usize>) -> Request {
        let mut request = Request::by(Deadline::on(self.book.now + ms(within)));
        request.lane = if is_bulk { Lane::Bulk } else { Lane::Interactive };
        request.fresh = fresh;
        request.avoid = avoid.into_iter().map(HostId).collect::<HostSet>();
        request.only = only.filter(|&only| only < self.book.hosts.len()).map(HostId);
        request
    }

    fn caller(errand: &Errand) -> Caller {
        let of = |set: &HostSet| (0..HOSTS).filter(|&host| set.contains(HostId(host))).collect();
        let wish = Wish {
            is_bulk: errand.request.lane == Lane::Bulk,
            fresh: errand.request.fresh,
            only: errand.request.only.map(|host| host.0),
            avoid: of(&errand.request.avoid),
            tried: of(&errand.tried),
        };
        Caller { ticket: errand.ticket.0, wish, deadline: errand.request.deadline.instant(), is_deaf: false }
    }

    pub(super) fn change(&mut self, change: impl FnOnce(&mut PoolState<u64>, Instant, &mut Effects<u64>)) {
        let mut fx = Effects::new();
        change(&mut self.state, self.book.now, &mut fx);
        self.carry_out(None, fx);
    }

    pub(super) fn end(&mut self, record: Box<Record>, how: How) {
        let id = record.id;
        match how {
            How::Delivered => {
                self.book.survived(id);
                let it = self.book.connections.get_mut(&id).unwrap();
                it.messages += 1;
                it.probes = 0;
                self.book.put_back(id);
                self.book.hosts[record.host.0].delivered(self.book.setup.max_size, self.book.now);
                self.change(|state, now, fx| state.give_back(Held { connection: id, record }, true, now, fx));
            }
            How::Refused => {
                self.book.put_back(id);
                self.change(|state, now, fx| state.give_back(Held { connection: id, record }, false, now, fx));
            }
            How::Retired => {
                let held = Held { connection: id, record };
                self.change(|state, now, fx| state.retire(held, DiscardReason::MaxMessages, now, fx));
            }
            How::Broken => {
                self.book.hang_up(id);
                self.change(|state, now, fx| state.vacate(&record, DiscardReason::Broken, now, fx));
            }
        }
    }

    fn renew(&mut self, record: &Record, errand: Errand, is_stale: bool) {
        if is_stale {
            self.book.died(record.id);
        }
        self.book.hang_up(record.id);
        let place = errand.request.fresh.then_some(record.host.0);
        let mut fx = Effects::new();
        let step = self.state.renew(record, DiscardReason::ServerClosed, is_stale, &errand, self.book.now, &mut fx);
        self.carry_out(Some((step, errand, place)), fx);
    }

    /// The caller looked, and found the connection dead.
    fn bury(&mut self, record: &Record, charge: Charge, errand: Errand) {
        self.tally.dead += 1;
        self.book.died(record.id);
        self.book.hang_up(record.id);
        let mut fx = Effects::new();
        let step = self.state.found_dead(record, charge, &errand, self.book.now, &mut fx);
        self.carry_out(Some((step, errand, Some(record.host.0))), fx);
    }

    fn rotate(&mut self, host: HostId) {
        let ends_a_pause = self.book.hosts[host.0].rotated();
        let mut fx = Effects::new();
        let generation = self.state.rotate_credentials(host, self.book.now, &mut fx);
        assert_eq!(generation, self.book.hosts[host.0].generation);
        let is_told = fx.events.iter().any(|event| matches!(event, Event::CooldownLeft { .. }));
        assert_eq!(is_told, ends_a_pause, "whether it ends a pause");
        self.carry_out(None, fx);
    }

    /// The caller has opened a connection with credentials that were replaced meanwhile.
    fn reopen(&mut self, record: &Record, charge: Charge, errand: Errand) {
        self.tally.outdated += 1;
        self.book.hang_up(record.id);
        let mut fx = Effects::new();
        let step = self.state.outdated(record, charge, &errand, self.book.now, &mut fx);
        self.carry_out(Some((step, errand, Some(record.host.0))), fx);
    }

    fn connect(&mut self, mut grant: Grant<u64>, mut errand: Errand, end: Connecting) {
        if !matches!(end, Connecting::Panics { is_early: true }) {
            self.close_evicted(&mut grant);
        }
        match end {
            Connecting::Panics { .. } => self.give_permit_back(grant),
            Connecting::Fails(blame) => {
                let others = self.fails(&grant, blame);
                let mut fx = Effects::new();
                let error = Arc::from("no");
                let step = self.state.open_failed(&grant, blame, error, &mut errand, self.book.now, &mut fx);
                let is_full = blame == Blame::Capacity && others > 0;
                let is_outdated = self.book.is_outdated_refusal(grant.host.0, grant.generation, blame);
                let may_again = is_full || is_outdated;
                assert!(may_again || errand.tried.contains(grant.host), "it would be tried again in the same call");
                self.carry_out(Some((step, errand, None)), fx);
            }
            Connecting::Succeeds => {
                let Some(record) = self.opens(&grant) else { return };
                if self.book.is_outdated(&self.book.connections[&record.id]) {
                    return self.reopen(&record, grant.charge, errand);
                }
                self.leases.push((record, errand.ticket));
                self.tally.leases += 1;
            }
        }
    }

    fn close_evicted(&mut self, grant: &mut Grant<u64>) {
        if let Some(evicted) = grant.evicted.take() {
            let record = evicted.record;
            self.book.closed(record.id);
            if record.host != grant.host {
                self.change(|state, now, fx| state.yielded(record.host, now, fx));
            }
        }
    }

    pub(super) fn give_permit_back(&mut self, grant: Grant<u64>) {
        self.book.openings.remove(&grant.id);
        self.book.hosts[grant.host.0].abandoned(grant.id);
        self.closing_comes(&grant);
        self.change(|state, now, fx| state.permit_returned(grant, now, fx));
    }

    fn closing_comes(&self, grant: &Grant<u64>) {
        if let Some(evicted) = &grant.evicted {
            assert_eq!(self.book.connections[&evicted.record.id].place, Place::Ending);
        }
    }

    /// The connection is there; none if it came after the end of the pool.
    pub(super) fn opens(&mut self, grant: &Grant<u64>) -> Option<Box<Record>> {
        let ends_a_pause = self.book.opened(grant.id);
        let mut fx = Effects::new();
        let (record, arrival) = self.state.opened(grant, None, self.book.now, &mut fx);
        let is_told = fx.events.iter().any(|event| matches!(event, Event::CooldownLeft { .. }));
        assert_eq!(is_told, ends_a_pause, "whether it ends a pause");
        let expected = match self.book.is_outdated(&self.book.connections[&grant.id]) {
            _ if self.book.is_shut_down => Arrival::TooLate,
            true => Arrival::Outdated,
            false => Arrival::Ready,
        };
        assert_eq!((record.id, record.host, arrival), (grant.id, grant.host, expected));
        self.carry_out(None, fx);
        if arrival != Arrival::TooLate {
            return Some(record);
        }
        let held = Held { connection: record.id, record };
        self.change(|state, now, fx| state.retire(held, DiscardReason::Shutdown, now, fx));
        None
    }

    /// Opening fails: what the book makes of it. How many others the host has, or is opening.
    pub(super) fn fails(&mut self, grant: &Grant<u64>, blame: Blame) -> usize {
        let host = grant.host.0;
        self.book.openings.remove(&grant.id);
        self.book.failed += 1;
        let others = self.book.live(host) + self.book.connecting(host);
        let it = &mut self.book.hosts[host];
        let is_outdated = blame == Blame::Credentials && grant.generation != it.generation;
        if HostBook::is_to_blame(blame, others) && !is_outdated {
            self.book.due_pause = Some((host, it.failed(grant.id, blame, self.book.now)));
        } else {
            it.abandoned(grant.id);
        }
        if blame == Blame::Capacity && others > 0 && !self.book.setup.learns {
            self.book.hosts[host].takes_no_more_than(others, self.book.now);
        }
        others
    }

    /// Does what was decided.
    pub(super) fn carry_out(&mut self, own: Option<Own>, mut fx: Effects<u64>) {
        self.watch(&mut fx);
        let gifts = fx.gifts.iter().map(|(_, gift)| gift);
        let evicted: Vec<u64> = gifts
            .chain(own.iter().filter_map(|(step, ..)| match step {
                state::Step::Take(gift) => Some(gift),
                state::Step::Wait(_) => None,
            }))
            .filter_map(|gift| match gift {
                Gift::Permit(grant) => Some(grant.evicted.as_ref()?.record.id),
                _ => None,
            })
            .collect();
        for event in fx.events {
            self.note(&event, &evicted);
        }
        let pause = self.book.due_pause.take().and_then(|(_, pause)| pause);
        assert!(pause.is_none(), "I10: no pause, or not the one that was due: {pause:?}");
        self.thread.is_rung |= fx.ring;
        for (held, _) in fx.closings {
            assert_eq!(self.book.connections[&held.record.id].place, Place::Ending, "closed, and not given up");
            self.closing.push(held);
        }
        let mut received = Vec::new();
        if let Some((step, errand, place)) = own {
            match step {
                state::Step::Take(gift) => received.push((gift, errand, false, place)),
                state::Step::Wait(slot) => {
                    self.tell(|| format!("caller {} waits", errand.ticket.0));
                    let caller = Self::caller(&errand);
                    let at = self.book.queue.partition_point(|it| it.ticket < caller.ticket);
                    self.book.queue.insert(at, caller);
                    let wakes = errand.request.deadline.instant();
                    self.waiting.push(Waiting { errand, slot, wakes });
                }
            }
        }
        for (slot, gift) in fx.gifts {
            let at = self.waiting.iter().position(|waiting| Arc::ptr_eq(&waiting.slot, &slot));
            let Waiting { errand, .. } = self.waiting.remove(at.expect("a gift for one who waits"));
            let at = self.book.queue.iter().position(|it| it.ticket == errand.ticket.0).expect("it waits");
            let is_deaf = self.book.queue.remove(at).is_deaf;
            self.tally.gifts += 1;
            received.push((gift, errand, is_deaf, None));
        }
        if let Some(slot) = fx.nudge {
            if let Some(waiting) = self.waiting.iter_mut().find(|waiting| Arc::ptr_eq(&waiting.slot, &slot)) {
                waiting.wakes = self.book.now;
            }
        }
        // First everybody has what was decided for them, then they act.
        for (at, (gift, errand, _, place)) in received.iter().enumerate() {
            let is_bulk =
                |(_, errand, ..): &&(Gift<u64>, Errand, bool, Option<usize>)| errand.request.lane == Lane::Bulk;
            let later = received[at + 1..].iter().filter(is_bulk).count();
            self.weigh(gift, &Self::caller(errand), *place, later);
        }
        if !self.book.queue.iter().any(|it| it.wish.is_bulk) {
            self.book.passed_over = 0;
        }
        for (gift, errand, is_deaf, _) in received {
            self.receive(gift, errand, is_deaf);
        }
    }

    fn note(&mut self, event: &Event, evicted: &[u64]) {
        self.tell(|| format!("{event:?}"));
        match *event {
            // Told where its place goes to.
            Event::Discarded { id, reason: DiscardReason::Evicted, .. } if evicted.contains(&id) => {}
            Event::Discarded { id, messages, reason, host, .. } => {
                let it = &self.book.connections[&id];
                assert_eq!((messages, host.0), (it.messages, it.host), "connection {id}");
                self.book.discarded(id, reason);
            }
            Event::CooldownEntered { host, pause, .. } => {
                let due = self.book.due_pause.take();
                let Some((_, Some((shortest, longest)))) = due.filter(|&(due, _)| due == host.0) else {
                    panic!("I10: a pause of {pause:?}, where there was to be none: {due:?}");
                };
                let slack = Duration::from_micros(1);
                let is_as_due = shortest <= pause + slack && pause <= longest + slack;
                assert!(is_as_due, "I10: a pause of {pause:?}, not {shortest:?} to {longest:?}");
                self.book.hosts[host.0].paused(self.book.now + pause);
            }
            Event::CapacityLearned { host, connections } => {
                let others = self.book.live(host.0) + self.book.connecting(host.0);
                assert_eq!(connections, others, "what host {} takes", host.0);
                assert!(self.book.setup.learns, "nothing is to be learned");
                self.book.hosts[host.0].takes_no_more_than(connections, self.book.now);
            }
            Event::IdleLimitLearned { host, limit } => {
                self.tally.silences += 1;
                assert_eq!(Some(limit), self.book.hosts[host.0].silence_limit(self.book.now), "what was learned");
            }
            Event::Opened { .. }
            | Event::OpenFailed { .. }
            | Event::CooldownLeft { .. }
            | Event::MessageLimitLearned { .. }
            | Event::ReconnectSuppressed { .. } => {}
        }
    }

    /// Whether a caller may have what it was given.
    fn weigh(&mut self, gift: &Gift<u64>, caller: &Caller, place: Option<usize>, later: usize) {
        self.tell(|| format!("caller {} {}", caller.ticket, brief(gift)));
        match gift {
            Gift::Connection(held, _) => {
                assert_eq!(held.connection, held.record.id);
                self.book.assert_nobody_is_overtaken(caller.ticket, &caller.wish);
                self.take_turn(caller, held.record.host.0, later);
                self.book.lent(caller, held.record.id);
            }
            Gift::Permit(grant) => {
                assert!(caller.deadline > self.book.now, "a permit for one whose time is over");
                let (id, host) = (grant.id, grant.host.0);
                let is_probe = if place == Some(host) && self.book.may_reopen(caller, host) {
                    // It takes nobody's turn: the place was its own.
                    self.book.begin(id, host, None, caller.wish.is_bulk)
                } else {
                    self.book.assert_nobody_is_overtaken(caller.ticket, &caller.wish);
                    self.take_turn(caller, host, later);
                    self.book.permitted(caller, id, host, grant.evicted.as_ref().map(|held| held.record.id))
                };
                self.tally.probes_of_hosts += usize::from(is_probe);
            }
            Gift::Refusal(refusal) => {
                let is_late = caller.deadline <= self.book.now;
                self.tally.refusals += 1;
                match &refusal.reason {
                    RefusalReason::Exhausted => {
                        assert!(is_late, "told that its time is over");
                        self.book.exhausted += 1;
                    }
                    RefusalReason::Unavailable { retry_after, .. } => {
                        let verdict = self.book.verdict(&caller.wish, caller.deadline);
                        let has_tried = is_late && !caller.wish.tried.is_empty();
                        assert!(has_tried || verdict == Verdict::Hopeless, "told that nothing can come: {verdict:?}");
                        assert_eq!(*retry_after, self.book.retry_after(&caller.wish), "when to come again");
                    }
                    RefusalReason::ShutDown => assert!(self.book.is_shut_down, "told that the pool is closed"),
                    RefusalReason::Local => assert!(!caller.wish.tried.is_empty()),
                    RefusalReason::Cancelled => panic!("nobody cancelled it"),
                }
            }
        }
    }

    fn take_turn(&mut self, caller: &Caller, host: usize, later: usize) {
        let before = self.book.passed_over;
        self.book.take_turn(&caller.wish, host, later);
        self.tally.passed_over += usize::from(self.book.passed_over > before);
        self.tally.grown_old += usize::from(caller.wish.is_bulk && before >= 8);
    }

    fn receive(&mut self, gift: Gift<u64>, errand: Errand, is_deaf: bool) {
        match gift {
            gift if is_deaf => self.pass_on(gift),
            Gift::Connection(held, charge) if self.book.connections[&held.record.id].is_dead => {
                self.bury(&held.record, charge, errand);
            }
            Gift::Connection(held, _) => {
                self.tally.leases += 1;
                self.leases.push((held.record, errand.ticket));
            }
            Gift::Permit(grant) => self.permits.push((grant, errand)),
            Gift::Refusal(_) => {}
        }
    }

    pub(super) fn pass_on(&mut self, gift: Gift<u64>) {
        match &gift {
            Gift::Connection(held, _) => self.book.pass_on(held.record.id),
            Gift::Permit(grant) => {
                self.book.openings.remove(&grant.id);
                self.book.hosts[grant.host.0].abandoned(grant.id);
            }
            Gift::Refusal(_) => {}
        }
        self.change(|state, now, fx| state.pass_on(gift, now, fx));
    }

    pub(super) fn close(&mut self, at: usize) {
        let record = self.closing.swap_remove(at).record;
        self.book.closed(record.id);
        self.change(|state, now, fx| state.closed(record.host, now, fx));
    }

    fn leaves(&mut self, at: usize) -> Ticket {
        let ticket = self.waiting.remove(at).errand.ticket;
        self.book.queue.retain(|it| it.ticket != ticket.0);
        ticket
    }

    /// Those whose time to wake has come do so.
    pub(super) fn wake(&mut self) {
        while let Some(at) = self.waiting.iter().position(|waiting| waiting.wakes <= self.book.now) {
            let errand = self.waiting[at].errand.clone();
            let is_deaf = self.book.queue.iter().any(|it| it.ticket == errand.ticket.0 && it.is_deaf);
            if errand.is_late(self.book.now) || is_deaf {
                let ticket = self.leaves(at);
                self.book.exhausted += 1;
                self.change(|state, now, fx| drop(state.leave(ticket, now, fx)));
            } else {
                let mut fx = Effects::new();
                self.waiting[at].wakes = self.state.tick(&errand, self.book.now, &mut fx);
                self.carry_out(None, fx);
            }
        }
    }

    pub(super) fn is_anybody_due(&self) -> bool {
        self.waiting.iter().any(|waiting| waiting.wakes <= self.book.now)
    }

    /// What the pool says of a host agrees with the book.
    pub(super) fn health_is(&self, host: usize, state: HostState) -> bool {
        use super::health::Health::{Pausing, Probed, Up};
        match (self.book.hosts[host].health, state) {
            (Up, HostState::Available) | (Probed { .. }, HostState::Probing) => true,
            (Pausing { until }, HostState::CoolingDown { until: told }) => told == until && until > self.book.now,
            (Pausing { until }, HostState::Available) => until <= self.book.now,
            _ => false,
        }
    }
}

fn brief(gift: &Gift<u64>) -> String {
    match gift {
        Gift::Connection(held, _) => format!("gets connection {} to host {}", held.record.id, held.record.host.0),
        Gift::Permit(Grant { host, id, evicted, .. }) => {
            let evicted = evicted.as_ref().map(|held| held.record.id);
            format!("may open connection {id} to host {}, in the place of {evicted:?}", host.0)
        }
        Gift::Refusal(refusal) => format!("is refused: {:?}", refusal.reason),
    }
}
