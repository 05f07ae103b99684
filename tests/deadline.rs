//! `send` returns by the deadline, whatever the server does, and says how far it got.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::*;
use smtp_pool::FailureKind::{HostUnavailable as HU, RetryableBeforeSend as RB, UnknownAfterData as UD};
use smtp_pool::SendStage::{
    BeforeConnect as S0, Connected as S1, DataCompleted as S5, DataStarted as S4, EnvelopeStarted as S3,
};
use smtp_pool::testing::{Action, Script, Security, Stage, TestServer};
use smtp_pool::{FailureKind, Host, Receipt, SendError, SendOptions, SendStage, SmtpSender};

const BUDGET: Duration = Duration::from_millis(300);

fn send_by(sender: &SmtpSender, deadline: Instant, content: &[u8]) -> Result<Receipt, SendError> {
    sender.send_with(&envelope(1), content, &SendOptions::new().deadline(deadline))
}

/// How a server keeps a client waiting.
#[derive(Clone, Copy, Debug)]
enum Way {
    Silent,
    /// A byte of a reply without end, before every read of the client would time out.
    Drips,
    /// A line of a reply without end.
    DripsLines,
}

fn actions(way: Way, code: u16) -> Vec<Action> {
    match way {
        Way::Silent => vec![Action::Silence],
        Way::Drips => vec![Action::drip(format!("{code} {}", "x".repeat(1000)), ms(20))],
        Way::DripsLines => vec![Action::endless(format!("{code}-x\r\n"), ms(20))],
    }
}

/// One send with a deadline of [`BUDGET`]; the pool's own limits are far away.
///
/// A message goes through before the script is in force, so that what is done once for a sender (the system's roots are read) is not
/// measured; then a new connection is opened.
fn by_deadline(server: &TestServer, host: Host, script: Script, content: &[u8], expected: (FailureKind, SendStage)) {
    let sender = sender(host).build().unwrap();
    send(&sender, "warm@deadline").unwrap();
    server.connection(1).close();
    server.set_script(script.clone());
    returns_in_time(&sender, &format!("{script:?}"), content, expected);
    assert_eq!(server.accepted("late@deadline"), 0, "{script:?}");
}

fn returns_in_time(sender: &SmtpSender, name: &str, content: &[u8], expected: (FailureKind, SendStage)) {
    let start = now();
    let error = send_by(sender, start + BUDGET, content).unwrap_err();
    let took = now() - start;
    assert!(took <= BUDGET + SLACK, "{name}: returned after {took:?}: {error}");
    assert!(took >= BUDGET * 8 / 10, "{name}: gave up early, after {took:?}: {error}");
    assert_eq!((error.kind(), error.stage()), expected, "{name}: {error}");
    assert!(error.to_string().contains("deadline") || expected.0 == UD, "{name}: the limit is named: {error}");
    let counts = sender.status().counts;
    assert_eq!((counts.leased, counts.connecting, counts.waiting), (0, 0, 0), "{name}: {counts}");
}

/// Each case waits most of its time, so they wait together.
fn all<T: Clone + Send>(cases: impl IntoIterator<Item = T>, check: impl Fn(T) + Sync) {
    thread::scope(|scope| {
        for case in cases {
            let check = &check;
            scope.spawn(move || thrice(|| check(case.clone())));
        }
    });
}

const WAYS: [Way; 3] = [Way::Silent, Way::Drips, Way::DripsLines];

fn host_of(server: &TestServer, security: Security) -> Host {
    match security {
        Security::Plain => plain(server),
        Security::StartTls => starttls(server),
        _ => implicit_tls(server),
    }
}

#[test]
fn while_connecting() {
    thrice(|| {
        // A listener that never accepts: the kernel answers, and nobody else.
        let backlog = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let host = Host::plain("127.0.0.1").port(backlog.local_addr().unwrap().port());
        returns_in_time(
            &sender(host).build().unwrap(),
            "accepted by the kernel alone",
            &content("late@deadline"),
            (HU, S1),
        );
    });
}

#[test]
fn at_the_greeting_and_ehlo() {
    all(
        WAYS.into_iter().flat_map(|way| [(way, Stage::Connect, 220), (way, Stage::Ehlo, 250)]),
        |(way, stage, code)| {
            let server = TestServer::start();
            let script = Script::new().on(stage, actions(way, code));
            by_deadline(&server, plain(&server), script, &content("late@deadline"), (HU, S1));
        },
    );
}

#[test]
fn at_starttls_and_the_handshake() {
    // A record that never ends, a byte at a time.
    let record = [&b"\x16\x03\x03\x3f\xff"[..], &[2; 1000]].concat();
    let cases = [
        (Security::StartTls, Stage::StartTls, Action::Silence),
        (Security::StartTls, Stage::TlsHandshake, Action::Silence),
        (Security::ImplicitTls, Stage::TlsHandshake, Action::Silence),
        (Security::ImplicitTls, Stage::TlsHandshake, Action::drip(record, ms(20))),
    ];
    all(cases, |(security, stage, action)| {
        let server = TestServer::builder().security(security).start();
        let script = Script::new().on(stage, [action]);
        by_deadline(&server, host_of(&server, security), script, &content("late@deadline"), (HU, S1));
    });
}

#[test]
fn at_auth() {
    all(WAYS, |way| {
        let server = TestServer::builder().security(Security::ImplicitTls).credentials("user", "secret").start();
        let host = implicit_tls(&server).credentials("user", "secret");
        by_deadline(
            &server,
            host,
            Script::new().on(Stage::Auth, actions(way, 235)),
            &content("late@deadline"),
            (HU, S1),
        );
    });
}

#[test]
fn in_the_envelope() {
    for pipelining in [true, false] {
        let stages = [(Stage::Mail, 250), (Stage::Rcpt, 250), (Stage::Data, 354)];
        all(WAYS.into_iter().flat_map(|way| stages.map(|(stage, code)| (way, stage, code))), |(way, stage, code)| {
            let server = TestServer::builder().pipelining(pipelining).start();
            let script = Script::new().on(stage, actions(way, code));
            by_deadline(&server, plain(&server), script, &content("late@deadline"), (RB, S3));
        });
    }
}

#[test]
fn in_the_content() {
    all([Security::Plain, Security::ImplicitTls], |security| {
        let server = TestServer::builder().security(security).size(None).socket_buffers(4096).start();
        let script = Script::new().on(Stage::Body, [Action::StopReading]).after_bytes(10_000);
        let message = big_content("late@deadline", 6_000_000);
        by_deadline(&server, host_of(&server, security), script, &message, (RB, S4));
    });
}

#[test]
fn at_the_final_reply() {
    all(WAYS.into_iter().flat_map(|way| [(way, Security::Plain), (way, Security::ImplicitTls)]), |(way, security)| {
        let server = TestServer::builder().security(security).start();
        let script = Script::new().on(Stage::EndOfData, actions(way, 250));
        by_deadline(&server, host_of(&server, security), script, &content("late@deadline"), (UD, S5));
    });
}

#[test]
fn the_name_look_up_is_bounded_too() {
    thrice(|| {
        // RFC 6761: no such name; however long the system's resolver thinks about it.
        let sender = sender(Host::plain("no-such-host.invalid")).build().unwrap();
        let start = now();
        let error = send_by(&sender, start + BUDGET, &content("late@deadline")).unwrap_err();
        assert!(now() - start <= BUDGET + SLACK, "{error}");
        assert_eq!((error.kind(), error.stage()), (HU, S0), "{error}");
    });
}

/// The pool's own limits, each far shorter than everything else.
#[test]
fn each_option_bounds_its_own_part() {
    type Tune = fn(smtp_pool::SmtpSenderBuilder) -> smtp_pool::SmtpSenderBuilder;
    let short = ms(150);
    let cases: [(&str, Stage, Tune, FailureKind, SendStage); 7] = [
        ("connect_timeout", Stage::Connect, |builder| builder.connect_timeout(ms(150)), HU, S1),
        ("connect_timeout", Stage::TlsHandshake, |builder| builder.connect_timeout(ms(150)), HU, S1),
        ("acquire_timeout", Stage::Connect, |builder| builder.acquire_timeout(ms(150)), HU, S1),
        ("auth_timeout", Stage::Auth, |builder| builder.auth_timeout(ms(150)), HU, S1),
        ("send_timeout", Stage::Mail, |builder| builder.send_timeout(ms(150)), RB, S3),
        ("send_timeout", Stage::Data, |builder| builder.send_timeout(ms(150)), RB, S3),
        ("final_reply_timeout", Stage::EndOfData, |builder| builder.final_reply_timeout(ms(150)), UD, S5),
    ];
    let both = cases.into_iter().flat_map(|case| [(case, Way::Silent), (case, Way::Drips)]);
    all(both, |((option, stage, tune, kind, told), way)| {
        if matches!((way, stage), (Way::Drips, Stage::TlsHandshake)) {
            // Plaintext behind the 220 is another thing altogether.
            return;
        }
        let server = TestServer::builder().security(Security::StartTls).credentials("user", "secret").start();
        let sender = tune(sender(starttls(&server).credentials("user", "secret"))).build().unwrap();
        eventually("the first message is quick enough", || send(&sender, "warm@option").is_ok());
        if told == S1 {
            server.connection(server.connections_accepted()).close();
        }
        server.set_script(Script::new().on(stage, actions(way, 220)));
        let start = now();
        let error = send(&sender, "late@option").unwrap_err();
        let took = now() - start;
        assert!(took <= short + SLACK, "{option} at {stage:?}: {took:?}");
        assert!(took >= short, "{option} at {stage:?}: {took:?}");
        assert_eq!((error.kind(), error.stage()), (kind, told), "{option} at {stage:?}: {error}");
        assert!(error.to_string().contains(option), "{option} at {stage:?} is named: {error}");
        assert_eq!(server.accepted("late@option"), 0);
    });
}

#[test]
fn a_server_that_reads_late_has_the_time_of_the_final_reply() {
    // The whole message is in the kernel's hands, and the server takes it only after send_timeout: that one ends with the last byte.
    let send_timeout = ms(250);
    let server = TestServer::builder()
        .socket_buffers(4096)
        .script(Script::new().once(Stage::Body, [Action::barrier("scanning")]).after_bytes(10_000))
        .start();
    let sender = sender(plain(&server)).send_timeout(send_timeout).build().unwrap();
    thread::scope(|scope| {
        let call = scope.spawn(|| sender.send_raw(&envelope(1), &big_content("late@reader", 200_000)));
        server.wait_until_reached("scanning");
        let start = now();
        eventually("send_timeout is long over", || call.is_finished() || now() - start > send_timeout * 4);
        server.release("scanning");
        call.join().unwrap().unwrap_or_else(|error| panic!("{error}"));
    });
    assert_eq!(server.accepted("late@reader"), 1);
}

#[test]
fn a_slow_server_inside_the_limits_is_no_failure() {
    let slowly = |reply: &str| Action::drip(reply, ms(2));
    let server = TestServer::builder()
        .script(
            Script::new()
                .on(Stage::Connect, [slowly("220 slow\r\n")])
                .on(Stage::Mail, [slowly("250 slow\r\n")])
                .on(Stage::EndOfData, [Action::Accept, slowly("250 slow\r\n")]),
        )
        .start();
    let sender = sender(plain(&server)).build().unwrap();
    send_by(&sender, now() + PATIENCE, &content("slow@deadline")).unwrap();
    assert_eq!(server.accepted("slow@deadline"), 1);
}

#[test]
fn a_deadline_that_has_passed_sends_nothing() {
    thrice(|| {
        let server = TestServer::start();
        let sender = sender(plain(&server)).build().unwrap();
        for _ in 0..2 {
            // The second time, an idle connection is there.
            let start = now();
            let error = send_by(&sender, start, &content("past@deadline")).unwrap_err();
            assert!(now() - start <= SLACK);
            assert!(error.stage() < S5 && error.is_retry_safe(), "{error}");
            send(&sender, "warm@deadline").unwrap();
        }
        assert_eq!(server.accepted("past@deadline"), 0);
    });
}

#[test]
fn the_commit_gate_stops_before_the_last_byte() {
    thrice(|| {
        // The server takes nearly all of the caller's time to say 354: too little is left to wait for an answer to the dot.
        let budget = Duration::from_millis(1000);
        let server = TestServer::builder()
            .script(Script::new().once(Stage::Data, [Action::barrier("nearly"), Action::Default]))
            .start();
        let sender = sender(plain(&server)).build().unwrap();
        thread::scope(|scope| {
            let (start, sender) = (now(), &sender);
            let call = scope.spawn(move || send_by(sender, start + budget, &content("gate@deadline")));
            server.wait_until_reached("nearly");
            eventually("nearly all of the time is over", || now() - start > budget * 94 / 100);
            server.release("nearly");
            let error = call.join().unwrap().unwrap_err();
            assert!(now() - start <= budget + SLACK);
            assert_eq!((error.kind(), error.stage(), error.is_retry_safe()), (RB, S4, true), "{error}");
        });
        server.connection(1).wait_closed();
        let sent = server.transcript(1).client_bytes();
        assert!(!contains(&sent, b"\r\n.\r\n"), "a dot on the wire: {}", sent.escape_ascii());
        assert_eq!((server.accepted("gate@deadline"), server.snapshot().reached(Stage::EndOfData)), (0, 0));
        send(&sender, "next@deadline").unwrap();
    });
}

#[test]
fn the_commit_gate_is_open_while_there_is_time() {
    let server = TestServer::start();
    let sender = sender(plain(&server)).build().unwrap();
    for number in 0..20 {
        send_by(&sender, now() + Duration::from_secs(2), &content(&format!("{number}@open"))).unwrap();
    }
}

#[test]
fn retries_and_their_pauses_never_pass_the_deadline() {
    thrice(|| {
        let server =
            TestServer::builder().script(Script::new().on(Stage::Mail, [Action::reply("451 4.3.0 later\r\n")])).start();
        // A pause that would end after the deadline is not begun.
        let patient =
            sender(plain(&server)).max_retries(100).retry_base_delay(Duration::from_secs(30)).build().unwrap();
        let start = now();
        let error = send_by(&patient, start + BUDGET, &content("late@deadline")).unwrap_err();
        assert!(now() - start <= BUDGET + SLACK);
        assert_eq!(error.attempts(), 1, "{error}");
        // Short pauses: as many attempts as fit, and not one more.
        let eager = sender(plain(&server)).max_retries(u32::MAX).retry_base_delay(ms(5)).build().unwrap();
        let start = now();
        let error = send_by(&eager, start + BUDGET, &content("late@deadline")).unwrap_err();
        let took = now() - start;
        assert!(took <= BUDGET + SLACK, "{took:?}");
        assert!(error.attempts() >= 3, "{error}");
        assert_eq!(server.accepted("late@deadline"), 0);
    });
}

/// What the first attempt has taken is not taken from the second.
#[test]
fn each_attempt_has_the_whole_of_its_limits() {
    let limit = Duration::from_secs(1);
    let slowly = |reply: &str| [Action::DelayFor(limit * 5 / 4), Action::reply(reply)];
    all([true, false], |is_closing| {
        let server = TestServer::start();
        let sender = sender(plain(&server)).max_retries(1).retry_base_delay(ms(1));
        let (sender, script) = match is_closing {
            // The second attempt needs another connection.
            true => (sender.acquire_timeout(limit), Script::new().once(Stage::Rcpt, slowly("421 4.3.2 closing\r\n"))),
            // It goes over the same one, and takes as long.
            false => {
                let first = Script::new().on_nth(Stage::Rcpt, 1, slowly("451 4.3.0 later\r\n"));
                (sender.send_timeout(limit * 2), first.on_nth(Stage::Rcpt, 2, slowly("250 2.1.5 ok\r\n")))
            }
        };
        server.set_script(script);
        let receipt = send(&sender.build().unwrap(), "second@attempt").unwrap();
        assert_eq!((receipt.attempts(), server.accepted("second@attempt")), (2, 1), "{is_closing}");
        assert_eq!(server.connections_accepted(), 1 + usize::from(is_closing));
    });
}

#[test]
fn silent_attempts_share_one_deadline() {
    thrice(|| {
        // However many retries are allowed, the deadline is one.
        let server = TestServer::builder().script(Script::new().on(Stage::Mail, [Action::Silence])).start();
        let sender =
            sender(plain(&server)).max_retries(50).retry_base_delay(ms(1)).send_timeout(ms(60)).build().unwrap();
        let start = now();
        let error = send_by(&sender, start + BUDGET, &content("late@deadline")).unwrap_err();
        assert!(now() - start <= BUDGET + SLACK);
        assert!(error.is_retry_safe() && error.attempts() >= 2, "{error}");
    });
}

#[test]
fn a_black_hole_leaves_time_for_the_next_host() {
    thrice(|| {
        let hole = TestServer::builder().script(Script::new().on(Stage::Connect, [Action::Silence])).start();
        let good = TestServer::start();
        let sender = sender(plain(&hole)).host(plain(&good).priority(10)).build().unwrap();
        let start = now();
        let receipt = send_by(&sender, start + ms(1000), &content("failover@deadline")).unwrap();
        assert_eq!((receipt.endpoint().port(), receipt.attempts()), (good.port(), 1));
        assert!(now() - start < ms(900), "half of the time is the good host's");
    });
}

#[test]
fn one_callers_hurry_is_not_every_callers_outage() {
    // A caller with next to no time says nothing about the host: those who have time are served.
    let server = TestServer::builder()
        .script(Script::new().once(Stage::Connect, [Action::barrier("slow"), Action::Default]))
        .start();
    let hour = Duration::from_secs(3600);
    let sender = sender(plain(&server)).reconnect_cooldown(hour).max_reconnect_cooldown(hour).build().unwrap();
    let start = now();
    let error = send_by(&sender, start + ms(50), &content("hurried@deadline")).unwrap_err();
    assert!(now() - start <= ms(50) + SLACK, "{error}");
    server.release("slow");
    let receipt = send(&sender, "patient@deadline");
    assert!(receipt.is_ok(), "{}", receipt.unwrap_err());
}
