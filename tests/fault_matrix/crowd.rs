//! Rows that need more than one caller or one connection: F005 and F031 with live connections, `y1`, and idle siblings.

use std::thread;
use std::time::Duration;

use smtp_pool::testing::{Action, Script, Security, Stage, TestServer};
use smtp_pool::{Host, HostState, SmtpSender};

use super::harness::{CC, contains, content, envelope, eventually, id, say};

const PATIENCE: Duration = Duration::from_secs(10);

fn sender(host: Host) -> smtp_pool::SmtpSenderBuilder {
    SmtpSender::builder().host(host).max_size(2).jitter(0.0).max_retries(0).retry_base_delay(Duration::from_millis(1))
}

/// One caller holds a connection, a second one is refused another: it waits for the first, and nobody tries again.
///
/// `refusal` is the server's, on the second connection.
fn waits_for_the_live_connection(row: &str, server: &TestServer, host: Host, refusal: &str) {
    let sender = sender(host).build().unwrap();
    thread::scope(|scope| {
        let holder = scope.spawn(|| sender.send_raw(&envelope(1), &content("holder", 700)));
        server.wait_until_reached("held");
        let waiter = scope.spawn(|| sender.send_raw(&envelope(1), &content("waiter", 700)));
        let is_waiting = eventually(PATIENCE, || sender.status().counts.waiting == 1);
        let status = sender.status();
        server.release("held");
        let (held, waited) = (holder.join().unwrap(), waiter.join().unwrap());

        assert!(is_waiting, "{row}: the second caller waits for the first one's connection: {waited:?}");
        assert_eq!(status.hosts[0].connection_limit, Some(1), "{row}: no more connections than the server takes");
        assert_eq!(status.hosts[0].state, HostState::Available, "{row}: a full host is not a failed one");
        assert_eq!(status.hosts[0].consecutive_failures, 0, "{row}: a full host is not a failed one");
        let (held, waited) = (held.unwrap(), waited.unwrap());
        assert_eq!(waited.attempts(), 1, "{row}");
        assert_eq!(waited.connection_id(), held.connection_id(), "{row}: the live connection serves both");
    });
    for name in ["holder", "waiter"] {
        assert_eq!(server.accepted(&id(name)), 1, "{row}: {name}");
    }
    assert_eq!(server.connections_accepted(), 2, "{row}: nobody knocks again");
    server.connection(2).wait_closed();
    let said = server.transcript(2);
    assert_eq!(said.commands().last().map(String::as_str), Some("QUIT"), "{row}: D");
    assert!(contains(&said.server_bytes(), refusal.as_bytes()), "{row}: {refusal}");
    let counts = sender.status().counts;
    assert_eq!((counts.total, counts.idle, counts.waiting), (1, 1, 0), "{row}: {counts}");
    assert_eq!(server.violations(), [""; 0], "{row}");
    server.assert_script_used();
}

pub(crate) fn greeting_421_with_a_live_connection() {
    let script = Script::new().on_connection(1, Stage::Mail, [Action::barrier("held"), Action::Default]).on_connection(
        2,
        Stage::Connect,
        [say("421 4.7.0 too many connections")],
    );
    let server = TestServer::builder().script(script).start();
    let host = Host::plain("127.0.0.1").port(server.port());
    waits_for_the_live_connection("F005", &server, host, "421");
}

pub(crate) fn refused_login_with_a_live_connection() {
    for (row, refusal) in [
        ("F031", "432 4.3.2 Concurrent connections limit exceeded"),
        // SPEC §5: "too many connections" is said with 421 and 454 too.
        ("F023, live", "454 4.7.0 too many connections"),
        ("F025, live", "421 4.7.0 too many connections"),
    ] {
        let script = Script::new()
            .on_connection(1, Stage::Mail, [Action::barrier("held"), Action::Default])
            .on_connection(2, Stage::Auth, [say(refusal)]);
        let server =
            TestServer::builder().security(Security::ImplicitTls).credentials("user", "secret").script(script).start();
        let host = Host::implicit_tls("127.0.0.1")
            .port(server.port())
            .root_certificate(server.root_certificate_pem())
            .credentials("user", "secret");
        waits_for_the_live_connection(row, &server, host, &refusal[..3]);
    }
}

/// y1: however many retries are allowed, a dialogue that is corrupted on a fresh connection too ends the call.
pub(crate) fn corruption_is_retried_once() {
    for (stage, garbage) in [(Stage::Mail, "what?"), (Stage::Rcpt, "199 ok"), (Stage::Data, "250 ok")] {
        for reused in [false, true] {
            let row = format!("y1 at {stage:?}, reused: {reused}");
            let server = TestServer::start();
            let sender = sender(Host::plain("127.0.0.1").port(server.port())).max_retries(5).build().unwrap();
            let past = usize::from(reused);
            if reused {
                sender.send_raw(&envelope(1), &content("past", 700)).unwrap();
            }
            server.set_script(Script::new().on(stage, [say(garbage)]));
            let error = sender.send_raw(&envelope(1), &content("row", 700)).unwrap_err();
            assert_eq!(error.kind(), CC, "{row}: {error}");
            assert_eq!(error.attempts(), 2, "{row}: {error}");
            assert_eq!(server.connections_accepted(), 2, "{row}");
            let mails = server.snapshot().reached(Stage::Mail);
            assert_eq!(mails, 2 + past, "{row}: MAIL was said {mails} times");
            assert_eq!(server.accepted(&id("row")), 0, "{row}");
        }
    }
}

/// SPEC §5: with a connection that ended while it was idle, those that were idle at least as long are given up.
pub(crate) fn idle_siblings_go_with_a_dead_connection() {
    let barrier = [Action::barrier("both"), Action::Default];
    let server = TestServer::builder().script(Script::new().on(Stage::Mail, barrier)).start();
    let sender = sender(Host::plain("127.0.0.1").port(server.port())).build().unwrap();
    thread::scope(|scope| {
        for name in ["one", "two"] {
            let sender = &sender;
            scope.spawn(move || sender.send_raw(&envelope(1), &content(name, 700)).unwrap());
        }
        assert!(server.wait_for(|seen| seen.barrier_reached("both") == 2, PATIENCE));
        server.release("both");
    });
    assert_eq!(sender.status().counts.idle, 2);
    server.set_script(Script::new());
    for connection in [1, 2] {
        server.connection(connection).close();
    }
    let receipt = sender.send_raw(&envelope(1), &content("row", 700)).unwrap();
    assert_eq!(receipt.attempts(), 1);
    assert_eq!(server.connections_accepted(), 3, "one new connection, not one for each dead one");
    let counts = sender.status().counts;
    assert_eq!((counts.total, counts.idle), (1, 1), "{counts}");
    assert_eq!(server.accepted(&id("row")), 1);
}
