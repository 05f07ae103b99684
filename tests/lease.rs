//! A lent connection belongs to its holder alone; and what else a sender can be asked: to get ready, and to try its hosts.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use common::*;
use smtp_pool::testing::{Action, CertificateKind, Script, Security, Stage, TestServer};
use smtp_pool::{CancelToken, DiscardReason, FailureKind, Host, HostState, SendOptions, SendStage};

#[test]
fn a_lease_is_exclusive_until_it_is_dropped() {
    let server = TestServer::start();
    let sender = sender(plain(&server)).max_size(1).build().unwrap();
    let mut lease = sender.lease().unwrap();
    assert_eq!((lease.connection_id(), lease.endpoint().port()), (1, server.port()));
    let counts = sender.status().counts;
    assert_eq!((counts.total, counts.leased, counts.idle), (1, 1, 0), "{counts}");
    thread::scope(|scope| {
        let waiter = scope.spawn(|| send(&sender, "waiter@lease").unwrap());
        eventually("the other waits", || sender.status().counts.waiting == 1);
        for number in 1..=3 {
            let receipt = lease.send_raw(&envelope(1), &content(&format!("{number}@lease"))).unwrap();
            assert_eq!((receipt.connection_id(), receipt.attempts()), (1, 1));
        }
        assert_eq!(server.accepted("waiter@lease"), 0, "nobody comes in between");
        drop(lease);
        assert_eq!(waiter.join().unwrap().connection_id(), 1);
    });
    let order: Vec<_> = server.messages().iter().map(|message| message.message_id().unwrap().to_owned()).collect();
    assert_eq!(order, ["<1@lease>", "<2@lease>", "<3@lease>", "<waiter@lease>"]);
    assert_eq!(server.connections_accepted(), 1);
    assert!(is_at_rest(&sender), "{}", sender.status().counts);
}

#[test]
fn noop_is_said_when_asked_for_and_never_else() {
    let server = TestServer::start();
    let sender = sender(plain(&server)).build().unwrap();
    let mut lease = sender.lease().unwrap();
    lease.noop().unwrap();
    lease.send_raw(&envelope(1), &content("1@noop")).unwrap();
    lease.noop().unwrap();
    drop(lease);
    send(&sender, "2@noop").unwrap();
    assert_eq!((server.snapshot().reached(Stage::Noop), server.connections_accepted()), (2, 1));
}

#[test]
fn noop_on_a_dead_session_says_so_and_the_session_is_not_lent_again() {
    let (gone, closing) = (FailureKind::RetryableBeforeSend, FailureKind::RetryableTemporaryFailure);
    let farewell = vec![Action::reply("421 4.3.2 bye\r\n"), Action::Fin];
    for (answer, kind) in [(vec![Action::Fin], gone), (vec![Action::Reset], gone), (farewell, closing)] {
        let server = TestServer::builder().script(Script::new().once(Stage::Noop, answer.clone())).start();
        let sender = sender(plain(&server)).build().unwrap();
        let mut lease = sender.lease().unwrap();
        let error = lease.noop().unwrap_err();
        assert_eq!((error.kind(), error.is_retry_safe()), (kind, true), "{answer:?}: {error}");
        // Every further call fails, and says the same of the message.
        let error = lease.send_raw(&envelope(1), &content("1@dead")).unwrap_err();
        assert!(error.is_retry_safe(), "{error}");
        drop(lease);
        assert_eq!(server.accepted("1@dead"), 0);
        assert_eq!(send(&sender, "2@dead").unwrap().connection_id(), 2, "{answer:?}");
        assert_eq!(sender.status().hosts[0].state, HostState::Available);
    }
}

#[test]
fn discard_closes_and_the_place_is_free() {
    let server = TestServer::start();
    let sender = sender(plain(&server)).max_size(1).build().unwrap();
    let lease = sender.lease().unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| send(&sender, "1@discard").unwrap());
        eventually("the other waits", || sender.status().counts.waiting == 1);
        lease.discard();
        assert_eq!(waiter.join().unwrap().connection_id(), 2);
    });
    server.connection(1).wait_closed();
    let status = sender.status();
    assert_eq!((status.discarded.total(), status.created, server.peak_connections()), (1, 2, 1), "{status:?}");
}

#[test]
fn a_refusal_leaves_the_lease_usable() {
    let server = TestServer::builder()
        .script(Script::new().once(Stage::Rcpt, [Action::reply("550 5.1.1 no such user\r\n")]))
        .start();
    let sender = sender(plain(&server)).build().unwrap();
    let mut lease = sender.lease().unwrap();
    let error = lease.send_raw(&envelope(1), &content("1@refused")).unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (FailureKind::PermanentFailure, 1), "{error}");
    assert_eq!(lease.send_raw(&envelope(1), &content("2@refused")).unwrap().connection_id(), 1);
    drop(lease);
    assert_eq!(send(&sender, "3@refused").unwrap().connection_id(), 1);
    assert_eq!((server.accepted("1@refused"), server.accepted("2@refused")), (0, 1));
}

#[test]
fn a_lease_dropped_in_the_middle_of_trouble_is_not_lent_again() {
    // Nothing is tried twice in a lease: not even on a session that had been idle.
    let server = TestServer::builder().script(Script::new().on_nth(Stage::EndOfData, 2, [Action::Reset])).start();
    let sender = sender(plain(&server)).max_size(1).max_retries(3).build().unwrap();
    send(&sender, "1@trouble").unwrap();
    let mut lease = sender.lease().unwrap();
    let error = lease.send_raw(&envelope(1), &content("2@trouble")).unwrap_err();
    assert_eq!((error.kind(), error.stage()), (FailureKind::UnknownAfterData, SendStage::DataCompleted), "{error}");
    let again = lease.send_raw(&envelope(1), &content("3@trouble")).unwrap_err();
    assert!(again.is_retry_safe(), "{again}");
    drop(lease);
    eventually("the pool is at rest", || is_at_rest(&sender));
    assert_eq!(sender.status().discarded.of(DiscardReason::Broken), 1);
    assert_eq!(send(&sender, "4@trouble").unwrap().connection_id(), 2);
    assert_eq!((server.accepted("2@trouble"), server.accepted("3@trouble")), (0, 0));
}

#[test]
fn a_holder_that_panics_gives_the_place_back() {
    let server = TestServer::start();
    let sender = sender(plain(&server)).max_size(1).build().unwrap();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut lease = sender.lease().unwrap();
        lease.send_raw(&envelope(1), &content("1@panic")).unwrap();
        std::panic::resume_unwind(Box::new("a holder's own trouble"));
    }));
    assert!(outcome.is_err());
    send(&sender, "2@panic").unwrap();
    eventually("the pool is at rest", || is_at_rest(&sender));
    assert_eq!((server.accepted("1@panic"), server.accepted("2@panic"), server.peak_connections()), (1, 1, 1));
}

#[test]
fn a_lease_keeps_its_sender_and_can_be_cancelled() {
    thrice(|| {
        let server = TestServer::builder()
            .script(Script::new().once(Stage::Mail, [Action::barrier("here"), Action::Default]))
            .start();
        let sender = sender(plain(&server)).build().unwrap();
        let mut lease = sender.lease().unwrap();
        drop(sender);
        let token = CancelToken::new();
        let error = thread::scope(|scope| {
            let options = SendOptions::new().cancel(&token);
            let lease = &mut lease;
            let call = scope.spawn(move || lease.send_with(&envelope(1), &content("1@cancel"), &options));
            server.wait_until_reached("here");
            let start = now();
            token.cancel();
            let error = call.join().unwrap().unwrap_err();
            assert!(now() - start <= SLACK, "{:?}", now() - start);
            error
        });
        assert_eq!(error.kind(), FailureKind::Cancelled, "{error}");
        drop(lease);
        server.release("here");
        assert!(server.wait_for(|seen| seen.connections_open() == 0, PATIENCE));
        assert_eq!(server.accepted("1@cancel"), 0);
    });
}

#[test]
fn a_lease_that_nobody_can_give_is_an_error_in_time() {
    thrice(|| {
        let server = TestServer::start();
        let sender = sender(plain(&server)).max_size(1).acquire_timeout(ms(200)).build().unwrap();
        let lease = sender.lease().unwrap();
        let start = now();
        let error = sender.lease().unwrap_err();
        let took = now() - start;
        assert_eq!(error.kind(), FailureKind::PoolExhausted, "{error}");
        assert!(took >= ms(200) && took <= ms(200) + SLACK, "{took:?}");
        drop(lease);
        drop(sender.lease().unwrap());
    });
}

#[test]
fn warm_up_opens_what_min_idle_asks_for_and_sends_nothing() {
    let server = TestServer::builder().security(Security::StartTls).credentials("user", "secret").start();
    let host = || starttls(&server).credentials("user", "secret");
    let one = sender(host()).build().unwrap();
    assert_eq!(one.warm_up().unwrap(), 1);
    assert_eq!(one.status().counts.idle, 1);
    let three = sender(host()).min_idle(3).build().unwrap();
    assert_eq!(three.warm_up().unwrap(), 3);
    // Those that the reserve opened while the three were in use are there too.
    assert!((3..=6).contains(&three.status().counts.idle), "{}", three.status().counts);
    let opened = server.connections_accepted();
    assert_eq!(three.warm_up().unwrap(), 3, "what is there stays");
    assert_eq!(server.connections_accepted(), opened);
    assert_eq!((server.snapshot().reached(Stage::Mail), server.snapshot().reached(Stage::Noop)), (0, 0));
    server.stop_accepting();
    let nobody = sender(host()).build().unwrap();
    assert_eq!(nobody.warm_up().unwrap_err().kind(), FailureKind::HostUnavailable);
}

#[test]
fn verify_tells_of_each_host_and_sends_nothing() {
    let tls = || TestServer::builder().security(Security::StartTls).credentials("user", "secret");
    let (good, wrong_password, bad_name) =
        (tls().start(), tls().start(), tls().certificate(CertificateKind::WrongName));
    let (bad_name, no_tls, dead) = (bad_name.start(), TestServer::start(), TestServer::start());
    dead.stop_accepting();
    let silent_to_noop =
        TestServer::builder().script(Script::new().on(Stage::Noop, [Action::reply("500 what\r\n")])).start();
    let sender = sender(starttls(&good).credentials("user", "secret"))
        .host(starttls(&wrong_password).credentials("user", "canary-wrong").priority(1))
        .host(starttls(&bad_name).credentials("user", "secret"))
        .host(Host::starttls("127.0.0.1").port(no_tls.port()).weight(3))
        .host(plain(&dead).priority(7))
        .host(plain(&silent_to_noop).priority(3))
        .reconnect_cooldown(HOUR)
        .max_reconnect_cooldown(HOUR)
        .build()
        .unwrap();
    let reports = sender.verify();
    let expected = [&good, &wrong_password, &bad_name, &no_tls, &dead, &silent_to_noop];
    let ports: Vec<_> = reports.iter().map(|report| report.endpoint.port()).collect();
    assert_eq!(ports, expected.map(TestServer::port), "one report for each host, in their order");
    let kinds: Vec<_> = reports.iter().map(|report| report.result.as_ref().err().map(|error| error.kind())).collect();
    assert_eq!(kinds[0], None, "{:?}", reports[0]);
    assert_eq!(kinds[1], Some(FailureKind::PermanentFailure), "{:?}", reports[1]);
    assert!(kinds[2].is_some() && kinds[3].is_some(), "{:?} {:?}", reports[2], reports[3]);
    assert_eq!(kinds[4], Some(FailureKind::HostUnavailable), "{:?}", reports[4]);
    assert!(kinds[5].is_some(), "{:?}", reports[5]);
    for (report, server) in reports.iter().zip(expected) {
        if let Err(error) = &report.result {
            assert_eq!(error.endpoint().map(|endpoint| endpoint.port()), Some(server.port()), "{error}");
            assert!(!whole_text(error).contains("canary"), "{error}");
        }
        assert_eq!((server.snapshot().reached(Stage::Mail), server.messages().len()), (0, 0));
    }
    assert_eq!(good.snapshot().reached(Stage::Noop), 1);
    assert_eq!(no_tls.snapshot().reached(Stage::Auth), 0);
    // What worked is of use, what failed cools down.
    let hosts = sender.status().hosts;
    assert_eq!((hosts[0].idle, hosts[0].state), (1, HostState::Available));
    for at in [1, 4] {
        assert!(matches!(hosts[at].state, HostState::CoolingDown { .. }), "{:?}", hosts[at]);
    }
    assert!(is_at_rest(&sender), "{}", sender.status().counts);
    assert_eq!(send(&sender, "1@verified").unwrap().endpoint().port(), good.port());
}

#[test]
fn verify_asks_a_standby_host_although_the_primary_works() {
    let (primary, standby) = (TestServer::start(), TestServer::start());
    let sender = sender(plain(&primary)).host(plain(&standby).priority(10)).max_size(1).build().unwrap();
    assert!(sender.verify().iter().all(|report| report.result.is_ok()));
    assert_eq!((primary.snapshot().reached(Stage::Noop), standby.snapshot().reached(Stage::Noop)), (1, 1));
    assert_eq!(send(&sender, "1@both").unwrap().endpoint().port(), primary.port());
}
