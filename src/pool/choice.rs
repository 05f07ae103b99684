//! Which host serves a caller, or whether it is worth waiting for one. Pure: told the time, told what there is.
//!
//! Hosts are looked at in groups: first those the errand does not shun, then the others; in each half, tier by tier.
//! Within a group the rotation decides (smooth weighted round robin): each host earns its weight with every lease, the
//! one that serves pays what all of them earned. Leases are charged, not connections, so that the weights hold for mail.

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use crate::clock::Deadline;
use crate::endpoint::HostId;
use crate::lane::Lane;
use crate::pool::errand::{Errand, Request};
use crate::pool::hosts::{Host, Hosts};
use crate::pool::slot::Charge;

/// How many rounds of all leases at once a host's credit remembers. One of them is what chance explains.
const ROUNDS: i64 = 8;

/// What to do for a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Choice {
    /// Lend the newest idle connection of this host.
    Lend(HostId, Charge),
    /// Let it open one, in a free place or in that of the oldest idle connection of `evict`.
    Open { host: HostId, evict: Option<HostId>, charge: Charge },
    /// Something may come in time.
    Wait,
    /// Nothing is there, and no time is left to wait or open.
    Late,
    /// Nothing can come in time.
    Hopeless,
}

/// What one host can do for a caller at once.
#[derive(Debug, Clone, Copy)]
enum Offer {
    Idle,
    Room {
        evict: Option<HostId>,
    },
    /// It would be of use, but has no room now.
    Busy,
    /// It is no use now.
    Nothing,
}

impl<T> Hosts<T> {
    /// Chooses, and charges the host that is chosen. Idle connections too old to lend must be gone.
    pub(super) fn choose(&mut self, errand: &Errand, now: Instant) -> Choice {
        if let Some(host) = self.first_without_rival(errand) {
            return Choice::Lend(host, Charge::default());
        }
        for shunned in [false, true] {
            if shunned && errand.request.avoid.is_empty() && errand.tried.is_empty() {
                break;
            }
            for tier in 0..self.tiers.len() {
                let mut best: Option<(i64, HostId, Offer)> = None;
                let mut is_busy = false;
                for &id in self.tiers[tier].iter().filter(|&&id| errand.shuns(id) == shunned) {
                    match self.offer(id, errand, now) {
                        Offer::Nothing => {}
                        Offer::Busy => is_busy = true,
                        offer => {
                            let host = self.get(id);
                            let standing = host.credit + i64::from(host.plan.weight);
                            if best.is_none_or(|(highest, ..)| standing > highest) {
                                best = Some((standing, id, offer));
                            }
                        }
                    }
                }
                if let Some((_, host, offer)) = best {
                    let charge = self.charge(host, shunned, errand, now);
                    return match offer {
                        Offer::Room { evict } => Choice::Open { host, evict, charge },
                        _ => Choice::Lend(host, charge),
                    };
                }
                // A preferred host that is merely busy is waited for: its mail does not spill to a lower tier.
                if is_busy {
                    return Choice::Wait;
                }
            }
        }
        if errand.is_late(now) {
            Choice::Late
        } else if self.hope(errand).is_worth_waiting(errand, self.fair_time) {
            Choice::Wait
        } else {
            Choice::Hopeless
        }
    }

    /// The short way of most calls: a host that is preferred to all others, has an idle connection and is not shunned. What follows would
    /// find the same, and an uncontended acquire would cost more than r2d2's.
    fn first_without_rival(&self, errand: &Errand) -> Option<HostId> {
        let [id] = self.tiers.first()?[..] else { return None };
        // Bulk may not have all that is there.
        let is_served = errand.request.lane == Lane::Interactive && !errand.shuns(id) && self.may_lend(id, errand);
        is_served.then_some(id)
    }

    /// Whether connection to `host` may be opened for this errand as far as the host is concerned, room or not.
    pub(super) fn may_open(&self, host: HostId, errand: &Errand, now: Instant) -> bool {
        !errand.is_late(now)
            && errand.admits(host)
            && !errand.tried.contains(host)
            && self.get(host).cooldown.may_open(now)
    }

    pub(super) fn may_lend(&self, host: HostId, errand: &Errand) -> bool {
        !errand.request.fresh && errand.admits(host) && !self.get(host).idle.is_empty()
    }

    fn offer(&self, id: HostId, errand: &Errand, now: Instant) -> Offer {
        let may_lend = self.may_lend(id, errand);
        if !may_lend && !self.may_open(id, errand, now) {
            return Offer::Nothing;
        }
        if errand.request.lane == Lane::Bulk && self.is_reserved(id) {
            // What is kept from it is busy, as if somebody had it; and who is late waits for nothing.
            return if errand.is_late(now) { Offer::Nothing } else { Offer::Busy };
        }
        if may_lend {
            return Offer::Idle;
        }
        let host = self.get(id);
        if host.is_full() {
            // Idle ones here are of no use to this errand: one makes room.
            return if host.idle.is_empty() { Offer::Busy } else { Offer::Room { evict: Some(id) } };
        }
        if !self.are_full() {
            return Offer::Room { evict: None };
        }
        let with_idle = self.ids().filter(|&host| !self.get(host).idle.is_empty());
        let victim = with_idle
            .max_by(|&a, &b| self.rank(a, errand).cmp(&self.rank(b, errand)).then_with(|| self.compare_loads(a, b, 0)));
        match victim {
            // No idle connection is of use to such an errand.
            Some(_) if errand.request.fresh || errand.request.only.is_some() => Offer::Room { evict: victim },
            Some(other) if self.yields_to(other, id, errand) => Offer::Room { evict: victim },
            _ => Offer::Busy,
        }
    }

    /// Whether what bulk has not got of `host` is kept for interactive callers: it has its share of this host's connections,
    /// or of all.
    pub(super) fn is_reserved(&self, host: HostId) -> bool {
        let limit = self.get(host).capacity.limit().map_or(self.max_size, |limit| limit.min(self.max_size));
        let bulk = |hosts: &[Host<T>]| hosts.iter().map(|host| host.bulk).sum::<usize>();
        self.get(host).bulk >= self.bulk_share(limit) || bulk(&self.all) >= self.bulk_share(self.max_size)
    }

    /// How many of so many connections bulk may have: all but the reserve, which is rounded down, and always one.
    fn bulk_share(&self, connections: usize) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "the ratio is from 0 to 1"
        )]
        // Two thirds of six are four, and 29 % of a hundred 29, which binary fractions miss by a hair.
        let reserve = (connections as f64).mul_add(self.reserve, 1e-9) as usize;
        connections.saturating_sub(reserve).max(1)
    }

    /// Whether `victim` gives an idle connection up for one to `host`: to a preferred host always; to one of the same
    /// preference if that brings the places closer to the weights, or if `host` is owed more than chance explains. Each
    /// exchange of the first kind is an improvement, so that they come to an end; one of the second kind is followed by
    /// the next only when as much is owed the other way.
    fn yields_to(&self, victim: HostId, host: HostId, errand: &Errand) -> bool {
        match self.rank(victim, errand).cmp(&self.rank(host, errand)) {
            Ordering::Greater => true,
            Ordering::Equal => self.compare_loads(victim, host, 1) == Ordering::Greater || self.is_owed(host, victim),
            Ordering::Less => false,
        }
    }

    /// Whether `host` is far behind, with `victim` as far ahead, and has no more than its share of the places.
    ///
    /// A saturated pool lends whatever comes free first, so a host that serves faster carries more than its weight however
    /// the places are divided. One place more or less is what brings that back, and little enough that a slow host does
    /// not take the whole pool.
    fn is_owed(&self, host: HostId, victim: HostId) -> bool {
        let tier = self.get(host).tier;
        let much = self.bound(tier) / ROUNDS;
        let (host, victim) = (self.get(host), self.get(victim));
        let weights: u128 = self.tiers[tier].iter().map(|&id| u128::from(self.get(id).plan.weight)).sum();
        let has_its_share = host.places() as u128 * weights <= self.max_size as u128 * u128::from(host.plan.weight);
        has_its_share && victim.places() > 1 && host.credit >= much && victim.credit <= -much
    }

    /// Compares the places that two hosts have for their weights, once `other` has `more`.
    pub(super) fn compare_loads(&self, host: HostId, other: HostId, more: usize) -> Ordering {
        let (host, other) = (self.get(host), self.get(other));
        let scaled = |places: usize, weight: u32| (places as u128) * u128::from(weight);
        scaled(host.places(), other.plan.weight).cmp(&scaled(other.places() + more, host.plan.weight))
    }

    /// Where a host's group comes in the order of preference.
    fn rank(&self, host: HostId, errand: &Errand) -> (bool, usize) {
        (errand.shuns(host), self.get(host).tier)
    }

    /// Every host of the group that could serve, now or soon, earns its weight; `chosen` pays for all.
    fn charge(&mut self, chosen: HostId, shunned: bool, errand: &Errand, now: Instant) -> Charge {
        let tier = self.get(chosen).tier;
        let mut charge = Charge::default();
        // Who may have one host only takes nothing away from the others.
        if self.tiers[tier].len() == 1 || errand.request.only.is_some() {
            return charge;
        }
        let bound = self.bound(tier);
        for position in 0..self.tiers[tier].len() {
            let id = self.tiers[tier][position];
            if errand.shuns(id) == shunned && (self.may_lend(id, errand) || self.may_open(id, errand, now)) {
                let host = self.get_mut(id);
                let weight = i64::from(host.plan.weight);
                // Whoever could not serve for long must not have all of the traffic for long thereafter.
                host.credit = (host.credit + weight).min(bound);
                charge.paid += weight;
                charge.earners.insert(id);
            }
        }
        let host = self.get_mut(chosen);
        host.credit = (host.credit - charge.paid).max(-bound);
        charge
    }

    /// Undoes the charge for a lease that did not come about.
    pub(super) fn refund(&mut self, chosen: HostId, charge: &Charge) {
        let tier = self.get(chosen).tier;
        let bound = self.bound(tier);
        self.get_mut(chosen).credit += charge.paid;
        for position in 0..self.tiers[tier].len() {
            let id = self.tiers[tier][position];
            let host = self.get_mut(id);
            let earned = if charge.earners.contains(id) { i64::from(host.plan.weight) } else { 0 };
            host.credit = (host.credit - earned).clamp(-bound, bound);
        }
    }

    /// How far a host of this tier may be ahead or behind: as far as some rounds of all leases at once may bring it, since
    /// what serves then is what happens to be idle. Forgotten too early, chance would favour the lighter host.
    fn bound(&self, tier: usize) -> i64 {
        const MOST: usize = 64;
        let leases = i64::try_from(self.max_size.min(MOST)).unwrap_or(1);
        ROUNDS * leases * self.tiers[tier].iter().map(|&id| i64::from(self.get(id).plan.weight)).sum::<i64>()
    }

    /// How long opening one connection may take: an equal share of the time left for each host that is still to try.
    pub(super) fn share(&self, errand: &Errand, now: Instant) -> Deadline {
        let deadline = errand.request.deadline;
        let hosts = self.ids().filter(|&host| self.may_open(host, errand, now)).count();
        match u32::try_from(hosts) {
            Ok(hosts) if hosts > 1 => Deadline::at(now, deadline.remaining_at(now) / hosts),
            _ => deadline,
        }
    }

    /// What is left to hope for when no host can serve now.
    pub(super) fn hope(&self, errand: &Errand) -> Hope {
        let mut hope = Hope::None;
        for id in self.ids().filter(|&id| errand.admits(id) && !errand.tried.contains(id)) {
            let host = self.get(id);
            let live = host.connecting + if errand.request.fresh { 0 } else { host.live() };
            if live > 0 {
                return Hope::Live;
            }
            if let Some(end) = host.cooldown.end() {
                hope = match hope {
                    Hope::Until(earlier) if earlier <= end => hope,
                    _ => Hope::Until(end),
                };
            }
        }
        hope
    }

    /// How long until some host may be tried again.
    pub(super) fn retry_after(&self, errand: &Errand, now: Instant) -> Option<Duration> {
        let ends = self.ids().filter(|&id| errand.admits(id)).filter_map(|id| self.get(id).cooldown.end());
        ends.min().map(|end| end.saturating_duration_since(now))
    }
}

/// What may yet serve a caller that nothing can serve now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hope {
    /// A connection that is in use or being opened.
    Live,
    /// The end of a cooldown.
    Until(Instant),
    None,
}

impl Hope {
    /// Whether it comes true in time for one who would need `fair_time` after the end of a cooldown.
    pub(super) fn is_worth_waiting(self, errand: &Errand, fair_time: Duration) -> bool {
        let Request { deadline, waits_out_cooldowns, .. } = errand.request;
        match self {
            Self::Live => true,
            Self::Until(end) => {
                waits_out_cooldowns && end < deadline.instant() && Deadline::at(end, fair_time) <= deadline
            }
            Self::None => false,
        }
    }
}
