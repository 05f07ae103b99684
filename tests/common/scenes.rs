//! Everything that an observer is told of, made to happen against the embedded server.
//!
//! Each scene builds its sender by the door it is given, plays, and checks that the sender did as it should: whatever observes it must
//! not change that, unless it sends or shuts the sender down itself.

#![allow(unreachable_pub, reason = "tests include it by path")]

use std::thread;
use std::time::Duration;

use smtp_pool::testing::{Action, Script, Security, Stage, TestServer};
use smtp_pool::{DiscardReason, FailureKind, SendOptions, SmtpSender, SmtpSenderBuilder};

use super::{HOUR, PATIENCE, content, envelope, eventually, implicit_tls, ms, now, plain, send, send_to, sender};

/// How a scene comes to its sender.
pub struct Door<'a> {
    pub build: &'a dyn Fn(SmtpSenderBuilder) -> SmtpSender,
    /// Whether somebody else uses the sender too, so that calls may end in another way.
    pub is_disturbed: bool,
}

impl Door<'_> {
    fn build(&self, builder: SmtpSenderBuilder) -> SmtpSender {
        (self.build)(builder)
    }

    /// The time to get a connection. Whoever sends while its own thread has in hand what it waits for waits so long in vain.
    fn patience(&self) -> Duration {
        if self.is_disturbed { ms(200) } else { PATIENCE }
    }

    /// That something is so.
    fn expect(&self, sender: &SmtpSender, what: &str, is_so: impl FnOnce() -> bool) {
        assert!(self.is_disturbed || is_so(), "{what}: {:?}", sender.status());
    }
}

pub type Scene = fn(&Door<'_>);

pub const SCENES: [(&str, Scene); 11] = [
    ("accepted", accepted),
    ("retried", retried),
    ("unknown", unknown),
    ("down and up", down_and_up),
    ("down for long", down_for_long),
    ("exhausted", exhausted),
    ("silent", silent),
    ("full", full),
    ("message limit", message_limit),
    ("bdat", bdat),
    ("login", login),
];

/// Waits until something is so, or the sender has been shut down.
fn wait(sender: &SmtpSender, what: &str, mut is_so: impl FnMut() -> bool) {
    eventually(what, || sender.status().is_shut_down || is_so());
}

fn accepted(door: &Door<'_>) {
    let server = TestServer::start();
    let sender = door.build(sender(plain(&server)));
    let is_sent = send(&sender, "one@scene").is_ok() && send(&sender, "two@scene").is_ok();
    door.expect(&sender, "sent", || is_sent && server.accepted("one@scene") == 1 && server.accepted("two@scene") == 1);
    sender.shutdown(PATIENCE);
}

fn retried(door: &Door<'_>) {
    let script = Script::new().once(Stage::Mail, [Action::reply("451 4.3.0 later\r\n")]);
    let server = TestServer::builder().script(script).start();
    let sender = door.build(sender(plain(&server)).max_retries(1).retry_base_delay(ms(1)));
    let attempts = send(&sender, "one@scene").map(|receipt| receipt.attempts());
    door.expect(&sender, "sent in two attempts", || matches!(attempts, Ok(2)) && server.accepted("one@scene") == 1);
    // Over a lease nothing is tried again.
    server.set_script(Script::new().on(Stage::Mail, [Action::reply("550 5.7.1 no\r\n")]));
    let refused = sender.lease().map(|mut lease| lease.send_raw(&envelope(1), &content("two@scene")));
    let kind = refused.map(|result| result.map_err(|error| error.kind()).err());
    door.expect(&sender, "refused", || matches!(kind, Ok(Some(FailureKind::PermanentFailure))));
}

fn unknown(door: &Door<'_>) {
    let script = Script::new().on(Stage::EndOfData, [Action::Fin]);
    let server = TestServer::builder().script(script).start();
    let sender = door.build(sender(plain(&server)));
    let kind = send(&sender, "one@scene").map_err(|error| error.kind()).err();
    door.expect(&sender, "unknown", || kind == Some(FailureKind::UnknownAfterData));
}

fn down_and_up(door: &Door<'_>) {
    let server = TestServer::start();
    server.stop_accepting();
    let sender = door.build(sender(plain(&server)).acquire_timeout(door.patience()));
    let kind = send(&sender, "one@scene").map_err(|error| error.kind()).err();
    door.expect(&sender, "unavailable", || kind == Some(FailureKind::HostUnavailable));
    server.resume_accepting();
    wait(&sender, "it works again", || send(&sender, "two@scene").is_ok());
}

fn down_for_long(door: &Door<'_>) {
    let server = TestServer::start();
    server.stop_accepting();
    let sender = door.build(sender(plain(&server)).reconnect_cooldown(HOUR).max_reconnect_cooldown(HOUR));
    for _ in 0..2 {
        let kind = send(&sender, "one@scene").map_err(|error| error.kind()).err();
        door.expect(&sender, "unavailable", || kind == Some(FailureKind::HostUnavailable));
    }
}

fn exhausted(door: &Door<'_>) {
    let server = TestServer::start();
    let sender = door.build(sender(plain(&server)).max_size(1).acquire_timeout(door.patience()));
    let lease = sender.lease();
    let by = SendOptions::new().deadline(now() + ms(30));
    let kind = send_to(&sender, "one@scene", 1, &by).map_err(|error| error.kind()).err();
    door.expect(&sender, "exhausted", || lease.is_ok() && kind == Some(FailureKind::PoolExhausted));
}

fn silent(door: &Door<'_>) {
    let server = TestServer::builder().script(Script::new().on(Stage::Rset, [Action::Fin])).start();
    let sender = door.build(sender(plain(&server)).keepalive_interval(ms(40)));
    let is_sent = send(&sender, "one@scene").is_ok();
    door.expect(&sender, "sent", || is_sent);
    wait(&sender, "a probe fails", || sender.status().discarded.of(DiscardReason::KeepaliveFailure) > 0);
    // Its thread has said all.
    sender.shutdown(PATIENCE);
}

fn full(door: &Door<'_>) {
    let server = TestServer::builder().max_connections(Some(1)).refuse_over_limit("421 4.7.0 too many\r\n").start();
    let sender = door.build(sender(plain(&server)).acquire_timeout(door.patience()));
    let lease = sender.lease();
    thread::scope(|scope| {
        let second = scope.spawn(|| send(&sender, "one@scene"));
        wait(&sender, "the limit is known", || {
            second.is_finished() || sender.status().hosts[0].connection_limit == Some(1)
        });
        drop(lease);
        let second = second.join().unwrap();
        door.expect(&sender, "sent", || second.is_ok());
    });
}

fn message_limit(door: &Door<'_>) {
    const LIMIT: usize = 25;
    let mut script = Script::new();
    for mail in LIMIT + 1..=LIMIT + 3 {
        script = script.on_connection_nth(1, Stage::Mail, mail, [Action::reply("452 4.3.0 too many messages\r\n")]);
    }
    let server = TestServer::builder().script(script).start();
    let sender = door.build(sender(plain(&server)).max_size(1).acquire_timeout(door.patience()));
    for number in 0..=LIMIT {
        let is_sent = send(&sender, &format!("{number}@scene")).is_ok();
        door.expect(&sender, "sent", || is_sent);
    }
}

fn bdat(door: &Door<'_>) {
    let server = TestServer::builder().chunking(true).start();
    let sender = door.build(sender(plain(&server).single_round_trip(true)));
    let is_sent = send(&sender, "one@scene").is_ok();
    server.set_script(Script::new().on(Stage::Bdat, [Action::reply("502 5.5.1 not implemented\r\n")]));
    let is_sent = is_sent && send(&sender, "two@scene").is_ok();
    door.expect(&sender, "sent", || is_sent && server.accepted("two@scene") == 1);
}

/// What nobody may be told, and a server's own words about it.
pub const CANARIES: [&str; 3] = ["canary-user", "canary-password", "canary-reply"];

fn login(door: &Door<'_>) {
    let [user, password, reply] = CANARIES;
    let script = Script::new().once(Stage::Auth, [Action::reply(format!("535 5.7.8 {reply} {user}\r\n"))]);
    let server =
        TestServer::builder().security(Security::ImplicitTls).credentials(user, password).script(script).start();
    let sender = door.build(sender(implicit_tls(&server).credentials(user, password)).acquire_timeout(door.patience()));
    let kind = send(&sender, "one@scene").map_err(|error| error.kind()).err();
    door.expect(&sender, "refused", || kind == Some(FailureKind::PermanentFailure));
    wait(&sender, "it is let in", || send(&sender, "two@scene").is_ok());
}
