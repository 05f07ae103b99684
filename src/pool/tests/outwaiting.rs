//! Who waits for the end of a pause, and what is not worth waiting for.

use crate::blame::Blame;
use crate::endpoint::HostId;
use crate::pool::Request;
use crate::pool::slot::{Gift, Refusal, RefusalReason};
use crate::pool::tests::desk::{Desk, SECOND, taken};
use crate::pool::tests::fake::plan;

#[test]
fn who_does_not_wait_out_a_pause_is_told_at_once_and_those_who_do_stay() {
    let mut desk = Desk::new(1, vec![plan(0, 1)]);
    let patient = desk.request(100);
    let hasty = Request { waits_out_cooldowns: false, ..desk.request(100) };
    let is_refused = |gift: Option<Gift<()>>| match gift {
        Some(Gift::Refusal(Refusal { reason: RefusalReason::Unavailable { retry_after, .. }, .. })) => {
            assert_eq!(retry_after, Some(SECOND * 30));
            true
        }
        None => false,
        other => panic!("{other:?}"),
    };
    // A connection that is in use is waited for by anybody.
    let lent = desk.lease(patient.clone());
    let waiting = [patient.clone(), hasty.clone(), patient, hasty.clone()].map(|request| desk.wait(request));
    desk.vacate(&lent);
    desk.deliver();
    let [(first, slot), rest @ ..] = waiting;
    let Some(Gift::Permit(grant)) = taken(&slot) else { panic!("the oldest may open one") };
    assert!(rest.iter().all(|(_, slot)| taken(slot).is_none()), "one that is being opened, too");
    desk.failed((first, grant), Blame::Host);
    desk.deliver();
    assert_eq!(rest.each_ref().map(|(_, slot)| is_refused(taken(slot))), [true, false, true]);
    let (_, late) = desk.wait(hasty.clone());
    desk.deliver();
    assert!(is_refused(taken(&late)), "whoever it came behind");
    // When the pause is over one tries, and the others wait for what comes of it.
    desk.now += SECOND * 30;
    let [_, (patient, slot), _] = rest;
    desk.state.tick(&patient, desk.now, &mut desk.fx);
    desk.deliver();
    let Some(Gift::Permit(_probe)) = taken(&slot) else { panic!("it waited for its turn") };
    desk.wait(hasty);
}

#[test]
fn only_hosts_that_have_all_refused_for_long_are_not_worth_waiting_for() {
    let mut desk = Desk::new(8, vec![plan(0, 1), plan(10, 1)]);
    let avoiding = |desk: &Desk, host| Request { fresh: true, ..desk.avoiding(&[host]) };
    assert!(!desk.state.is_refused_for_long());
    let live = desk.permit(desk.request(10)).1;
    let live = desk.opened(&live);
    let refused = desk.permit(Request { fresh: true, ..desk.request(10) });
    desk.failed(refused, Blame::Credentials);
    let down = desk.permit(avoiding(&desk, 0));
    assert_eq!(down.1.host, HostId(1));
    desk.failed(down, Blame::Host);
    assert!(!desk.state.is_refused_for_long(), "the second may come back");
    desk.now += SECOND * 30;
    let refused = desk.permit(avoiding(&desk, 0));
    desk.failed(refused, Blame::HostForLong);
    assert!(!desk.state.is_refused_for_long(), "a session from before still works");
    desk.vacate(&live);
    assert!(desk.state.is_refused_for_long());
    desk.now += SECOND * 300;
    let probe = desk.permit(desk.request(10)).1;
    let probe = desk.opened(&probe);
    desk.vacate(&probe);
    assert!(!desk.state.is_refused_for_long(), "it works again");
}
