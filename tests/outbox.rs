//! What `examples/outbox_postgres` promises, against a private PostgreSQL: `tests/servers/get-pkgs.sh` installs what that needs.
//!
//! Its modules are held to their words here one by one, and its workers as processes that are killed at a moment of the test's choosing.
//! The example's own demo kills at random, and counts.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "a test may panic and needs no manual")]

mod common;
#[path = "../examples/outbox_postgres/database.rs"]
mod database;
#[allow(dead_code, reason = "the tests need a part of it")]
#[path = "../examples/outbox_postgres/outbox.rs"]
mod outbox;
#[allow(dead_code, reason = "the tests need a part of it")]
#[path = "../examples/outbox_postgres/outcome.rs"]
mod outcome;
#[path = "../examples/outbox_postgres/private_postgres.rs"]
mod private_postgres;
#[path = "common/program.rs"]
mod program;
#[allow(dead_code, reason = "the tests need a part of it")]
#[path = "../examples/outbox_postgres/session.rs"]
mod session;
#[allow(dead_code, reason = "the tests need a part of it")]
#[path = "../examples/outbox_postgres/settings.rs"]
mod settings;

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use common::{FROM, HOUR, content, eventually};
use outcome::Outcome;
use postgres_sync::Client;
use private_postgres::PrivatePostgres;
use rustix::process::{Pid, Signal, kill_process};
use session::Session;
use settings::Settings;
use smtp_pool::testing::{Action, Script, Stage, TestServer};
use smtp_pool::{FailureKind, Host};

/// An outbox with so many mails in it.
struct Outbox {
    postgres: PrivatePostgres,
    client: Client,
}

impl Outbox {
    fn of(mails: usize) -> Self {
        let postgres = PrivatePostgres::start().expect("tests/servers/get-pkgs.sh has been run");
        let mut client = database::connect(&postgres.url).unwrap();
        outbox::init(&mut client).unwrap();
        let mut outbox = Self { postgres, client };
        for number in 1..=mails {
            outbox.put(number, "to1@example.net");
        }
        outbox
    }

    fn put(&mut self, number: usize, to: &str) {
        let message = lettre::Message::builder()
            .message_id(Some(id(number)))
            .from(FROM.parse().unwrap())
            .to(to.parse().unwrap())
            .body(format!("Mail {number}\n"))
            .unwrap();
        let mut transaction = self.client.transaction().unwrap();
        outbox::put(&mut transaction, &message).unwrap();
        transaction.commit().unwrap();
    }

    fn settings(&self) -> Settings {
        Settings {
            database_url: self.postgres.url.clone(),
            smtp_url: None,
            lanes: 1,
            lease: HOUR,
            retry_pause: HOUR,
            grace: HOUR,
        }
    }

    fn state(&mut self, number: usize) -> String {
        self.text(number, "state")
    }

    fn text(&mut self, number: usize, what: &str) -> String {
        let query = format!("SELECT coalesce(({what})::text, '') FROM outbox WHERE message_id = $1");
        self.client.query_one(&query, &[&id(number)]).unwrap().get(0)
    }

    fn execute(&mut self, statement: &str) {
        self.client.batch_execute(statement).unwrap();
    }

    /// A command of the example; one lane, and leases and pauses that do not end before the test does.
    fn command(&self, server: Option<&TestServer>, arguments: &[&str]) -> Command {
        let mut command = program::example("outbox_postgres");
        command.args(arguments).env("DATABASE_URL", &self.postgres.url);
        for (name, value) in
            [("LANES", "1"), ("LEASE_SECONDS", "3600"), ("RETRY_SECONDS", "3600"), ("GRACE_SECONDS", "60")]
        {
            command.env(format!("OUTBOX_{name}"), value);
        }
        if let Some(server) = server {
            command.env("SMTP_URL", format!("smtp://127.0.0.1:{}?tls=none", server.port()));
        }
        command
    }

    fn work(&self, server: &TestServer) -> Worker {
        Worker(self.command(Some(server), &["work"]).stderr(Stdio::piped()).spawn().unwrap())
    }

    fn work_until_empty(&self, server: &TestServer) {
        let output = self.command(Some(server), &["work", "--until-empty"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// What an operator reads.
    fn recover(&self) -> String {
        let output = self.operate(&["recover"]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn operate(&self, arguments: &[&str]) -> Output {
        self.command(None, arguments).output().unwrap()
    }
}

/// Dies with its value.
struct Worker(Child);

impl Worker {
    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// SIGTERM, noticed.
    fn drain(&mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        let mut said = BufReader::new(self.0.stderr.take().unwrap()).lines();
        assert!(said.any(|line| line.unwrap().ends_with("draining")), "the worker ended without a drain");
    }

    fn ends_well(mut self) {
        eventually("the worker has ended", || self.0.try_wait().unwrap().is_some_and(|status| status.success()));
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn id(number: usize) -> String {
    format!("<mail-{number}@example.com>")
}

/// The example, built as these tests are.
#[test]
#[ignore = "needs PostgreSQL: tests/servers/get-pkgs.sh"]
fn a_worker_killed_behind_the_dot_leaves_unknown_and_nobody_sends_it_again() {
    let mut outbox = Outbox::of(1);
    let server = TestServer::builder()
        .script(Script::new().on(Stage::EndOfData, [Action::Accept, Action::barrier("dot")]))
        .start();
    let worker = outbox.work(&server);
    server.wait_until_reached("dot");
    assert_eq!(outbox.state(1), "sending");
    assert_eq!(outbox.recover(), "", "a worker that lives has it");

    worker.kill();
    eventually("the dead worker's mail is listed", || outbox.recover().contains(&id(1)));
    assert_eq!(outbox.state(1), "unknown");

    outbox.work_until_empty(&server);
    assert_eq!(server.messages().len(), 1);
    assert_eq!(outbox.state(1), "unknown");
    assert!(outbox.operate(&["settle", "1", "sent"]).status.success());
    assert_eq!(outbox.state(1), "sent");
    assert_eq!(outbox.recover(), "");
}

#[test]
#[ignore = "needs PostgreSQL: tests/servers/get-pkgs.sh"]
fn a_worker_killed_before_the_content_leaves_unknown_and_a_person_can_resend_it_after_its_lease() {
    let mut outbox = Outbox::of(1);
    let server = TestServer::builder().script(Script::new().once(Stage::Mail, [Action::barrier("mail")])).start();
    let worker = outbox.work(&server);
    server.wait_until_reached("mail");
    worker.kill();
    eventually("the dead worker's mail is listed", || outbox.recover().contains(&id(1)));

    let refused = outbox.operate(&["resend", "1"]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("may still be on its way"), "{refused:?}");
    outbox.work_until_empty(&server);
    assert_eq!(server.messages().len(), 0);

    // The lease is over.
    outbox.execute("UPDATE outbox SET over_at = now()");
    assert!(outbox.operate(&["resend", "1"]).status.success());
    outbox.work_until_empty(&server);
    assert_eq!(server.accepted(&id(1)), 1);
    assert_eq!(outbox.state(1), "sent");
    assert!(!outbox.operate(&["resend", "1"]).status.success(), "what was sent is not sent again");
}

#[test]
#[ignore = "needs PostgreSQL: tests/servers/get-pkgs.sh"]
fn a_worker_cut_off_in_mid_send_still_says_what_came_of_it() {
    let mut outbox = Outbox::of(1);
    let server = TestServer::builder()
        .script(Script::new().on(Stage::EndOfData, [Action::barrier("dot"), Action::Default]))
        .start();
    let mut worker = outbox.work(&server);
    server.wait_until_reached("dot");
    outbox.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'",
    );
    eventually("the worker is believed gone", || outbox.recover().contains(&id(1)));
    assert_eq!(outbox.state(1), "unknown");

    server.release("dot");
    eventually("the worker is back, and knows", || outbox.state(1) == "sent");
    assert_eq!(server.accepted(&id(1)), 1);
    worker.drain();
    worker.ends_well();
}

#[test]
#[ignore = "needs PostgreSQL: tests/servers/get-pkgs.sh"]
fn a_drain_ends_what_runs_and_begins_nothing() {
    let mut outbox = Outbox::of(2);
    let server = TestServer::builder()
        .script(Script::new().on(Stage::EndOfData, [Action::barrier("dot"), Action::Default]))
        .start();
    let mut worker = outbox.work(&server);
    server.wait_until_reached("dot");
    worker.drain();
    server.release("dot");
    worker.ends_well();
    assert_eq!((outbox.state(1).as_str(), outbox.state(2).as_str()), ("sent", "queued"));
    assert_eq!(server.messages().len(), 1);
}

#[test]
#[ignore = "needs PostgreSQL: tests/servers/get-pkgs.sh"]
fn every_answer_has_its_state() {
    let mut outbox = Outbox::of(1);
    outbox.put(2, "nobody@example.net");
    outbox.put(3, "later@example.net");
    outbox.put(4, "to1@example.net");
    outbox.put(5, "to1@example.net");
    outbox.execute("UPDATE outbox SET rcpt_to = '{not an address}' WHERE id = 5");
    let server = TestServer::builder()
        .script(
            Script::new()
                .on_command(Stage::Rcpt, "nobody@", [Action::reply("550 5.1.1 no such user\r\n")])
                .on_command(Stage::Rcpt, "later@", [Action::reply("450 4.2.0 try again later\r\n")])
                .on_nth(Stage::EndOfData, 2, [Action::Accept, Action::Reset]),
        )
        .start();
    let mut worker = outbox.work(&server);
    eventually("the last of them is settled", || outbox.state(5) == "refused");
    worker.drain();
    worker.ends_well();
    server.assert_script_used();

    assert_eq!(outbox.state(1), "sent");
    assert_eq!((outbox.state(2).as_str(), outbox.text(2, "reply").as_str()), ("refused", "550 5.1.1 no such user"));
    assert_eq!((outbox.state(3).as_str(), outbox.text(3, "reply").as_str()), ("queued", "450 4.2.0 try again later"));
    assert_eq!(outbox.text(3, "not_before > now() + interval '50 minutes'"), "true");
    assert!(outbox.text(4, "reason").starts_with("unknown_after_data, after the last byte: "));
    assert_eq!(outbox.text(4, "relay"), format!("127.0.0.1:{}", server.port()));

    let listed = outbox.recover();
    assert!(listed.contains("after the last byte") && listed.contains("    | "), "{listed}");
    assert!(listed.contains(&id(4)) && !listed.contains(&id(3)), "{listed}");
    assert!(outbox.operate(&["resend", "4"]).status.success(), "its worker has said that it is over");
    assert_eq!(outbox.state(4), "queued");
}

#[test]
#[ignore = "needs PostgreSQL: tests/servers/get-pkgs.sh"]
fn each_mail_is_claimed_once_however_many_claim() {
    const SESSIONS: usize = 8;
    const MAILS: usize = 200;
    let outbox = Outbox::of(MAILS);
    let settings = outbox.settings();
    let together = Barrier::new(SESSIONS);
    let claimed: Vec<String> = thread::scope(|scope| {
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|_| {
                scope.spawn(|| {
                    let mut session = Session::open(&settings).unwrap();
                    together.wait();
                    let claims = std::iter::from_fn(|| session.claim(HOUR).unwrap());
                    claims.map(|claim| claim.message_id).collect::<Vec<_>>()
                })
            })
            .collect();
        sessions.into_iter().flat_map(|session| session.join().unwrap()).collect()
    });
    assert_eq!(claimed.len(), MAILS);
    assert_eq!(claimed.into_iter().collect::<HashSet<_>>().len(), MAILS);
}

#[test]
#[ignore = "needs PostgreSQL: tests/servers/get-pkgs.sh"]
fn a_claim_whose_answer_was_lost_goes_back_into_the_queue() {
    let mut outbox = Outbox::of(2);
    let mut before = Session::open(&outbox.settings()).unwrap();
    let worker = before.worker();
    before.claim(HOUR).unwrap().unwrap();
    before.claim(HOUR).unwrap().unwrap();
    drop(before);
    eventually("its end is noticed", || session::mark_abandoned(&mut outbox.client).unwrap() == 2);
    // As if that look had come between the two.
    outbox.execute("UPDATE outbox SET state = 'sending', settled_at = NULL, reason = NULL WHERE id = 2");

    let mut after = Session::open(&outbox.settings()).unwrap();
    assert_eq!(after.give_back(worker).unwrap(), 2);
    assert_eq!((outbox.state(1).as_str(), outbox.state(2).as_str()), ("queued", "queued"));
}

#[test]
#[ignore = "needs PostgreSQL: tests/servers/get-pkgs.sh"]
fn a_worker_that_comes_back_late_changes_nothing_that_is_no_longer_its_own() {
    let mut outbox = Outbox::of(2);
    let mut first = Session::open(&outbox.settings()).unwrap();
    let (one, two) = (first.claim(HOUR).unwrap().unwrap(), first.claim(HOUR).unwrap().unwrap());
    outbox.execute("UPDATE outbox SET state = 'unknown', settled_at = now(), over_at = now()");
    assert!(outbox.operate(&["resend", "1"]).status.success());
    assert!(outbox.operate(&["settle", "2", "refused"]).status.success());
    let sent = Outcome::Sent { relay: "relay".to_owned(), reply: "250 taken".to_owned() };

    assert!(!first.settle(&one, &sent).unwrap(), "it is queued again");
    assert_eq!(outbox.state(1), "queued");
    let mut second = Session::open(&outbox.settings()).unwrap();
    let again = second.claim(HOUR).unwrap().unwrap();
    assert_eq!(again.message_id, one.message_id);
    assert!(!first.settle(&one, &sent).unwrap(), "another has it");
    assert_eq!(outbox.state(1), "sending");
    assert!(!first.settle(&two, &sent).unwrap(), "a person has decided");
    assert_eq!(outbox.state(2), "refused");

    assert!(second.settle(&again, &sent).unwrap());
    assert_eq!(outbox.state(1), "sent");
}

#[test]
#[ignore = "needs PostgreSQL: tests/servers/get-pkgs.sh"]
fn what_could_not_be_sent_until_it_expired_is_refused_with_the_reason() {
    let mut outbox = Outbox::of(1);
    outbox.execute("UPDATE outbox SET expires_at = now() + interval '1 minute'");
    let server = TestServer::start();
    server.stop_accepting();
    let mut session = Session::open(&outbox.settings()).unwrap();
    let claim = session.claim(HOUR).unwrap().unwrap();
    let result = common::send(&common::sender(common::plain(&server)).build().unwrap(), "never");
    let outcome = Outcome::of(&result, claim.attempts, HOUR);
    assert!(matches!(outcome, Outcome::Queued { .. }), "{outcome:?}");
    assert!(session.settle(&claim, &outcome).unwrap());
    assert_eq!(outbox.state(1), "refused");
    assert!(outbox.text(1, "reason").starts_with("host_unavailable, "), "{}", outbox.text(1, "reason"));
}

#[test]
fn a_wrong_password_is_no_mails_fault() {
    let server = common::tls_server(smtp_pool::testing::Security::ImplicitTls).credentials("user", "right").start();
    let sender = common::sender(common::implicit_tls(&server).credentials("user", "wrong")).build().unwrap();
    let result = common::send(&sender, "1");
    assert_eq!(result.as_ref().unwrap_err().kind(), FailureKind::PermanentFailure);
    let outcome = Outcome::of(&result, 1, Duration::from_secs(7));
    assert_eq!(outcome.state(), ("queued", Duration::from_secs(7)));
    assert!(outcome.reply().unwrap().starts_with("535"), "{outcome:?}");
    assert!(outcome::rest_after(&result.unwrap_err(), HOUR).is_some(), "the next mail would meet it as well");
}

#[test]
fn a_mail_that_the_relay_cannot_take_is_refused_before_a_byte_of_it_leaves() {
    let server = TestServer::builder().size(Some(10)).start();
    let sender = common::sender(Host::plain("127.0.0.1").port(server.port())).build().unwrap();
    let result = sender.send_raw(&common::envelope(1), &content("too long for it"));
    let outcome = Outcome::of(&result, 1, HOUR);
    assert_eq!(outcome.state().0, "refused", "{outcome:?}");
    assert_eq!(outcome::rest_after(&result.unwrap_err(), HOUR), None);
}

#[test]
fn the_pause_of_one_mail_doubles_and_ends_at_an_hour() {
    let server = TestServer::builder()
        .script(Script::new().on(Stage::Rcpt, [Action::reply("450 4.2.0 try again later\r\n")]))
        .start();
    let sender = common::sender(Host::plain("127.0.0.1").port(server.port())).build().unwrap();
    let result = common::send(&sender, "1");
    let pause = |attempts| Outcome::of(&result, attempts, Duration::from_secs(60)).state().1.as_secs();
    assert_eq!([1, 2, 3, 6, 7, 8, 1_000].map(pause), [60, 120, 240, 1_920, 3_600, 3_600, 3_600]);
}
