//! The same sessions under a plain `r2d2::Pool`.

#![cfg(feature = "r2d2")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

mod common;

use std::sync::Barrier;
use std::thread;

use common::*;
use r2d2::{ManageConnection as _, Pool};
use smtp_pool::testing::{Action, Script, Security, Stage, TestServer};
use smtp_pool::{
    FailureKind, Host, PoolOptions, Receipt, SendError, SendOptions, SmtpConnection, SmtpConnectionManager,
};

fn pool(host: Host, max_size: u32) -> Pool<SmtpConnectionManager> {
    let manager = SmtpConnectionManager::new(host).unwrap();
    Pool::builder().max_size(max_size).min_idle(Some(0)).connection_timeout(PATIENCE).build(manager).unwrap()
}

fn send_over(connection: &mut SmtpConnection, id: &str) -> Result<Receipt, SendError> {
    connection.send_with(&envelope(1), &content(id), &SendOptions::new())
}

#[test]
fn a_connection_is_used_again() {
    let server = TestServer::builder().security(Security::StartTls).credentials("user", "secret").start();
    let pool = pool(starttls(&server).credentials("user", "secret"), 4);
    for number in 0..20 {
        let receipt = send_over(&mut pool.get().unwrap(), &format!("{number}@r2d2")).unwrap();
        assert_eq!((receipt.connection_id(), receipt.attempts()), (1, 1));
    }
    assert_eq!((server.connections_accepted(), server.messages().len()), (1, 20));
    assert_eq!(server.snapshot().reached(Stage::Auth), 1);
    assert!(server.violations().is_empty(), "{:?}", server.violations());
}

#[test]
fn max_size_is_held() {
    let server = TestServer::start();
    let pool = pool(plain(&server), 3);
    thread::scope(|scope| {
        for thread in 0..12 {
            let pool = pool.clone();
            scope.spawn(move || {
                for number in 0..20 {
                    send_over(&mut pool.get().unwrap(), &format!("{thread}.{number}@size")).unwrap();
                }
            });
        }
    });
    assert!(server.peak_connections() <= 3, "{}", server.peak_connections());
    for thread in 0..12 {
        for number in 0..20 {
            assert_eq!(server.accepted(&format!("{thread}.{number}@size")), 1);
        }
    }
}

#[test]
fn connections_that_died_while_idle_are_replaced_unseen() {
    let server = TestServer::start();
    let pool = pool(plain(&server), 2);
    let both = Barrier::new(2);
    thread::scope(|scope| {
        for number in 0..2 {
            let (pool, both) = (pool.clone(), &both);
            scope.spawn(move || {
                let mut connection = pool.get().unwrap();
                both.wait();
                send_over(&mut connection, &format!("{number}@idle")).unwrap();
            });
        }
    });
    assert_eq!(server.connections_accepted(), 2);
    server.connection(1).close();
    server.connection(2).send("421 4.3.2 bye\r\n");
    server.connection(2).close();
    for number in 2..6 {
        send_over(&mut pool.get().unwrap(), &format!("{number}@idle")).unwrap();
    }
    assert_eq!((server.connections_accepted(), server.messages().len()), (3, 6));
}

#[test]
fn one_that_broke_in_use_is_replaced() {
    for (stage, kind) in
        [(Stage::Mail, FailureKind::RetryableBeforeSend), (Stage::EndOfData, FailureKind::UnknownAfterData)]
    {
        let server = TestServer::builder().script(Script::new().once(stage, [Action::Reset])).start();
        // Without the question before each use: what is broken is known without asking.
        let manager = SmtpConnectionManager::new(plain(&server)).unwrap();
        let builder = Pool::builder().max_size(1).min_idle(Some(0)).test_on_check_out(false);
        let pool = builder.connection_timeout(PATIENCE).build(manager).unwrap();
        let error = send_over(&mut pool.get().unwrap(), "1@broken").unwrap_err();
        assert_eq!((error.kind(), error.attempts()), (kind, 1), "{error}");
        assert_eq!(server.accepted("1@broken"), 0);
        send_over(&mut pool.get().unwrap(), "2@broken").unwrap();
        assert_eq!((server.accepted("2@broken"), server.connections_accepted()), (1, 2));
        assert!(server.peak_connections() <= 1);
    }
}

#[test]
fn a_refusal_keeps_the_connection() {
    let server = TestServer::builder()
        .script(Script::new().on_command(Stage::Rcpt, "to1@", [Action::reply("550 5.1.1 no such user\r\n")]))
        .start();
    let pool = pool(plain(&server), 1);
    let error = send_over(&mut pool.get().unwrap(), "1@refused").unwrap_err();
    assert_eq!(error.kind(), FailureKind::PermanentFailure, "{error}");
    assert_eq!(error.response().unwrap().code(), 550);
    server.set_script(Script::new());
    assert_eq!(send_over(&mut pool.get().unwrap(), "2@refused").unwrap().connection_id(), 1);
    assert_eq!(server.connections_accepted(), 1);
    assert!(server.violations().is_empty(), "{:?}", server.violations());
}

#[test]
fn a_session_held_by_a_panicking_thread_is_lent_again_only_if_in_step() {
    let server = TestServer::start();
    let pool = pool(plain(&server), 1);
    let holder = pool.clone();
    let outcome = thread::spawn(move || {
        let _connection = holder.get().unwrap();
        std::panic::resume_unwind(Box::new("a holder's own trouble"));
    })
    .join();
    assert!(outcome.is_err());
    send_over(&mut pool.get().unwrap(), "1@panic").unwrap();
    assert!(server.peak_connections() <= 1);
}

#[test]
fn opening_fails_in_time_and_with_a_reason() {
    let server = TestServer::builder().security(Security::StartTls).credentials("user", "secret").start();
    let manager = SmtpConnectionManager::new(starttls(&server).credentials("user", "canary-wrong")).unwrap();
    let error = manager.connect().unwrap_err();
    assert_eq!(error.kind(), FailureKind::PermanentFailure, "{error}");
    assert!(!whole_text(&error).contains("canary"));

    let silent = TestServer::builder().script(Script::new().on(Stage::Connect, [Action::Silence])).start();
    let mut options = PoolOptions::default();
    options.hosts.push(plain(&silent));
    options.connect_timeout = ms(200);
    thrice(|| {
        let manager = SmtpConnectionManager::from_options(options.clone()).unwrap();
        let start = now();
        let error = manager.connect().unwrap_err();
        let took = now() - start;
        assert_eq!(error.kind(), FailureKind::HostUnavailable, "{error}");
        assert!(took >= ms(200) && took <= ms(200) + SLACK, "{took:?}");
    });
}

#[test]
fn two_hosts_are_one_too_many() {
    let mut options = PoolOptions::default();
    options.hosts = vec![Host::plain("a.example"), Host::plain("b.example")];
    assert_eq!(SmtpConnectionManager::from_options(options).unwrap_err().option(), "hosts");
}

#[test]
fn the_end_of_the_pool_says_quit() {
    let server = TestServer::start();
    let pool = pool(plain(&server), 1);
    send_over(&mut pool.get().unwrap(), "1@quit").unwrap();
    drop(pool);
    server.connection(1).wait_closed();
    assert!(said(&server, 1, "QUIT"));
}
