//! What went wrong in other pools, each with the test that fails if it goes wrong here. `pool/…` is `src/pool/tests/…`.
//!
//! | where | what happened | test |
//! |---|---|---|
//! | r2d2 0.8.10 | a broken connection comes back, nobody is woken, and the waiter sleeps to its timeout beside an empty pool | `pool/handoff.rs::a_broken_return_wakes_a_waiter_with_a_permit` |
//! | simple-java-mail #724 | the same when a lease is invalidated | `tests/waiting.rs::a_place_freed_by_a_failure_goes_to_the_next` |
//! | HikariCP #452 | of two callers who wait one is served, and what was to be opened for the other is not | `pool/model.rs::no_history_breaks_an_invariant` |
//! | r2d2 0.8.10 | a panic in `connect` takes a place with it for ever | `pool/handoff.rs::a_panic_in_open_gives_the_place_back` |
//! | r2d2 0.8.10, mysql_async #171 | a panic in the validity check does | `pool/handoff.rs::a_panic_in_the_look_gives_the_place_back` |
//! | r2d2 0.8.10, sqlx #122 | a connection left in mid-dialogue by a holder's panic is lent again | `pool/handoff.rs::a_panicking_holder_gives_the_place_to_a_waiter` |
//! | | the same, on the wire | `tests/classification.rs::p19_a_connection_left_in_mid_transaction_is_never_lent_again` |
//! | r2d2 0.8.10, sqlx #453 | a newcomer takes what came back for those who wait | `pool/handoff.rs::a_newcomer_does_not_overtake` |
//! | HikariCP #1909, #476 | what was opened for a waiter is taken by others | `tests/waiting.rs::one_connection_serves_in_order_of_arrival` |
//! | r2d2 #75 | a caller is told the failure of another one | `pool/other_pools.rs::each_caller_is_told_its_own_failure` |
//! | r2d2 #51, lettre | a wrong password shows after the whole timeout, and is tried on | `tests/classification.rs::p25_wrong_credentials_cool_for_the_longest_time_at_once` |
//! | r2dbc-pool #165 | a connection that came after its caller's time lives beside `max_size` others | `pool/other_pools.rs::a_connection_that_comes_after_its_callers_time_has_its_place` |
//! | lettre 0.11.23, upyo #62 | `max_size` bounds what is parked, not what lives | `pool/handoff.rs::sixty_four_threads_never_exceed_max_size` |
//! | smtppool #4, vertx #77 | failed connects use the places up | `pool/failures.rs::a_failed_open_passes_its_place_to_a_waiter` |
//! | HikariCP | the clock goes backwards, or ahead by hours | `pool/model.rs::no_history_breaks_an_invariant` |
//! | generic-pool | `acquire` goes on for ever when creating fails | `pool/failures.rs::when_all_hosts_failed_the_last_failure_is_told_at_once` |
//! | Haraka #3100, #2717 | callers hang, and the dead host is hammered | `tests/outage.rs::two_hundred_threads_do_not_storm_a_dead_host_and_do_not_wait_for_it` |
//! | Haraka #1611 | a connection is given back by one who does not hold it (here `finish` takes the lease away) | `pool/model.rs::no_history_breaks_an_invariant` |
//! | generic-object-pool | connecting under the pool's lock | `pool/handoff.rs::a_connector_may_call_back_into_the_pool` |
//! | node-mysql2 PR 4498 | each retry has the full timeout again | `tests/deadline.rs::silent_attempts_share_one_deadline` |
//! | lettre #743 | `221` to a probe is taken for a sign of life | `tests/keepalive.rs::only_250_and_nothing_behind_it_is_a_sign_of_life` |
//! | nodemailer | what may have been accepted is queued again | `tests/failover.rs::what_may_have_been_accepted_goes_to_no_other_host` |
//! | MailKit.Pooling | 4xx to MAIL or RCPT is permanent | `tests/fault_matrix.rs::a_fault_in_the_envelope_is_never_ambiguous` |
//! | MailKit.Pooling | 421 to MAIL is permanent | `tests/classification.rs::j_421_by_stage` |
//! | MailKit.Pooling | 454 to AUTH is permanent | `tests/classification.rs::p25_what_auth_refusals_mean` |
//! | MailKit.Pooling | a dead idle connection makes an unknown outcome | `tests/classification.rs::p14_p16_an_idle_connection_that_ended_is_replaced_for_free` |
//! | MailKit.Pooling | 451 to DATA does | `tests/classification.rs::c_prime_a_refused_data_is_decisive_and_the_connection_stays` |
//! | MailKit.Pooling | any failure before DATA does | `tests/classification.rs::b_lost_after_mail_or_rcpt_nothing_was_sent` |
//! | MailKit.Pooling | 251 to the dot is retried, and arrives twice | `tests/classification.rs::g_prime_every_2xx_but_221_is_acceptance` |
//! | MailKit.Pooling | one timer of 30 s spans the final reply | `tests/deadline.rs::each_option_bounds_its_own_part` |
//! | MailKit.Pooling | callers wait for refills and probes, past their timeout | `pool/maintenance.rs::a_black_holed_refill_does_not_hold_up_the_care_of_others` |
//! | | the same, on the wire | `tests/idle_servers.rs::the_probe_of_a_dead_host_costs_callers_nothing` |
//! | MailKit.Pooling | waiters poll, in no order | `pool/handoff.rs::waiters_are_served_in_order_of_arrival` |
//! | MailKit.Pooling | its `HostUnavailable` never comes | `tests/failover.rs::when_every_host_is_down_one_call_tries_each_once_and_names_the_last_cause` |
//! | MailKit.Pooling | cooldowns go by the wall clock | `tests/architecture.rs::time_enters_through_one_door` |
//! | r2d2 0.8.10 | connections opened together end together | `pool/upkeep.rs::connections_opened_together_do_not_end_together` |
//! | upyo #66 | a pool that is closed parks what comes back | `pool/closing.rs::leases_outlive_the_last_handle` |
//! | MailKit.Pooling | its test of the stages asserts that true is true | `pool/other_pools.rs::the_table_names_tests_that_are_there` |

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use crate::blame::Blame;
use crate::clock::Deadline;
use crate::endpoint::HostId;
use crate::pool::tests::fake::{LONG, assert_at_rest, lease, pool, refused, soon, until_waiting};
use crate::pool::{AcquireError, Request};

#[test]
fn the_table_names_tests_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = include_str!("other_pools.rs").lines().filter(|line| line.starts_with("//! | ")).skip(1);
    let mut rows = 0;
    for row in table {
        let named = row.rsplit('`').nth(1).and_then(|name| name.split_once("::"));
        let (file, test) = named.unwrap_or_else(|| panic!("no test: {row}"));
        let source = fs::read_to_string(root.join(file.replace("pool/", "src/pool/tests/"))).expect(file);
        assert!(source.contains(&format!("#[test]\nfn {test}() {{")), "{file} has no test {test}");
        rows += 1;
    }
    assert!(rows > 30);
}

// r2d2 #75: the last error is the pool's, and whoever times out next is told it.
#[test]
fn each_caller_is_told_its_own_failure() {
    let pool = pool(2, &[0, 0]);
    let both = Arc::new(Barrier::new(2));
    pool.connector().on_open_together(move |host| {
        both.wait();
        Err(if host == HostId(0) { Blame::Nobody } else { Blame::Host })
    });
    thread::scope(|scope| {
        let callers = [0, 1].map(|host| {
            let pool = &pool;
            scope.spawn(move || refused(pool.acquire(Request { only: Some(HostId(host)), ..soon() })))
        });
        for (host, caller) in callers.into_iter().enumerate() {
            let AcquireError::Unavailable { cause: Some((blamed, text)), .. } = caller.join().unwrap() else {
                panic!()
            };
            assert_eq!((blamed, text), (HostId(host), format!("host {host} is down")));
        }
    });
    // Whoever opened nothing has met no failure, whatever others met before.
    pool.connector().on_open_together(|_| Ok(()));
    let held = [lease(&pool), pool.acquire(Request { only: Some(HostId(0)), fresh: true, ..soon() }).unwrap()];
    let late = Request { only: Some(HostId(0)), ..Request::by(Deadline::after(Duration::from_millis(20))) };
    assert!(matches!(refused(pool.acquire(late)), AcquireError::Exhausted { cause: None, .. }));
    drop(held);
    assert_at_rest(&pool);
}

// r2dbc-pool #165: connecting is given up with its caller, the place is free, and the connection comes all the same.
#[test]
fn a_connection_that_comes_after_its_callers_time_has_its_place() {
    let pool = pool(1, &[0]);
    let (entered, is_in) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    pool.connector().on_open(move |_, _, deadline| {
        entered.send(deadline).unwrap();
        wait.recv_timeout(LONG).unwrap();
        Ok(())
    });
    thread::scope(|scope| {
        let late = scope.spawn(|| pool.acquire(Request::by(Deadline::after(Duration::from_millis(20)))));
        let deadline = is_in.recv_timeout(LONG).unwrap();
        let next = scope.spawn(|| lease(&pool));
        until_waiting(&pool, 1);
        while !deadline.is_over() {
            thread::yield_now();
        }
        // Its caller's time is over, and the place is not free: nobody opens a second one.
        assert_eq!((pool.counts().connecting, pool.counts().waiting), (1, 1));
        go.send(()).unwrap();
        let first = late.join().unwrap().map(|lease| lease.id());
        assert_eq!(next.join().unwrap().id(), first.unwrap(), "it is of use to the next");
    });
    assert_eq!(pool.connector().opened().len(), 1);
    assert_eq!(pool.connector().gauge.highest.load(SeqCst), 1);
    assert_at_rest(&pool);
}
