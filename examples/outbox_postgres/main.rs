//! The way past one machine: a transactional outbox in PostgreSQL, emptied by any number of workers on any number of machines.
//!
//! ```text
//! tests/servers/get-pkgs.sh && cargo run --example outbox_postgres      # a private PostgreSQL, four workers, one killed now and then
//!
//! export DATABASE_URL=postgresql://user:password@host:5432/database SMTP_URL=smtp://user:password@relay.example.com:587
//! cargo run --example outbox_postgres -- init                           # makes the tables (schema.sql)
//! cargo run --example outbox_postgres -- enqueue 10                     # writes ten mails
//! cargo run --example outbox_postgres -- work                           # a worker; as many as you like, Ctrl-C or SIGTERM drains it
//! cargo run --example outbox_postgres -- status                         # what is where
//! cargo run --example outbox_postgres -- recover                        # what may or may not have been sent (recover.sql)
//! cargo run --example outbox_postgres -- settle 17 sent                 # … was found in the relay's log
//! cargo run --example outbox_postgres -- resend 17                      # … was not
//! ```
//!
//! # What it promises
//!
//! A mail is written in the transaction that it is about: both are there, or neither. From then on it is sent once, or refused with a
//! reason, or marked `unknown` for a person to decide. It is never sent twice by the workers, whatever dies at whatever moment.
//!
//! # Why
//!
//! - A worker *claims* a row and commits that before the first byte of it leaves. `FOR UPDATE SKIP LOCKED` gives each row to one worker,
//!   and a claim that did not commit was not sent.
//! - What came of it is known to the worker alone until it writes it down. If it is gone before that, nobody can know: the claim says
//!   only that it may have begun. So the row becomes `unknown` and is not sent again.
//! - A worker is gone when the advisory lock of its session is free. PostgreSQL drops the lock with the session, and claims are written
//!   in that same session, so nothing is claimed under a name that is gone. No heartbeat, and no clock that could lie.
//! - A worker that is cut off from the database but alive finishes its send within the lease that it took, by its own steady clock. A
//!   person can resend a row only after that lease is over, by the database's clock. The two clocks are never compared.
//! - What that worker found out still counts when it comes back, unless somebody else has had the row since.
//!
//! The promise is as good as the commit of a claim: a database that fails over to a replica without that commit has forgotten it, and
//! the mail is sent a second time. Use a synchronous replica, or have the workers stopped and `sending` rows looked at after a failover.
//! Locks of a session need a session: put no pooler in transaction mode between worker and database.
//!
//! The client is `postgres_sync`, which has the interface of the `postgres` crate without the async runtime below it. It knows no TLS;
//! where that is needed and a runtime does no harm, `postgres_sync = { package = "postgres", version = "0.19" }` takes its place without
//! a change here, and `database.rs` is where its TLS connector goes.

#![allow(unreachable_pub, missing_docs, reason = "a program has no users but its own")]

mod audit;
mod database;
mod demo;
mod lane;
mod operator;
mod outbox;
mod outcome;
mod private_postgres;
mod relay;
mod session;
mod settings;
mod worker;

use std::process::ExitCode;

use database::Error;
use settings::Settings;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("outbox_postgres: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<(), Error> {
    let settings = Settings::from_environment();
    match *arguments {
        [] => demo::run(demo::Plan::default()),
        ["demo", ref rest @ ..] => demo::run(demo::Plan::from_arguments(rest)?),
        // A part of the demo.
        ["relay"] => relay::run(),
        ["work"] => worker::run(&settings?, worker::Until::Stopped),
        ["work", "--until-empty"] => worker::run(&settings?, worker::Until::Empty),
        ["init"] => outbox::init(&mut settings?.connect()?),
        ["enqueue", count] => outbox::enqueue_some(&mut settings?.connect()?, count.parse()?),
        ["status"] => operator::status(&mut settings?.connect()?),
        ["recover"] => operator::recover(&mut settings?.connect()?, usize::MAX),
        ["resend", id] => operator::resend(&mut settings?.connect()?, id.parse()?),
        ["settle", id, state] => operator::settle(&mut settings?.connect()?, id.parse()?, state),
        _ => Err("usage: outbox_postgres [demo [MAILS [WORKERS [SECONDS_BETWEEN_KILLS]]] | init | enqueue N | work [--until-empty] | \
                  status | recover | resend ID | settle ID sent|refused]"
            .into()),
    }
}
