//! Connections that stand and carry nothing any more.

use std::thread;
use std::time::Duration;

use smtp_pool::testing::{Action, Script, Security, Stage, TestServer};
use smtp_pool::{FailureKind, SendStage, SmtpSender, SmtpSenderBuilder};

use super::common::*;
use super::judge::*;
use super::network::{Firewall, State, clients_of, set_ipv4, unacknowledged_by_us};

/// The timer that ends a case; the others are far away.
type Timer = fn(SmtpSenderBuilder, Duration) -> SmtpSenderBuilder;

/// K08.
pub fn a_black_hole_ends_each_stage_at_its_timer() {
    let cases: [(Stage, Timer, FailureKind, SendStage); 10] = [
        (Stage::Connect, |builder, short| builder.connect_timeout(short), HU, S1),
        (Stage::Ehlo, |builder, short| builder.connect_timeout(short), HU, S1),
        (Stage::StartTls, |builder, short| builder.connect_timeout(short), HU, S1),
        (Stage::TlsHandshake, |builder, short| builder.connect_timeout(short), HU, S1),
        (Stage::Auth, |builder, short| builder.auth_timeout(short), HU, S1),
        (Stage::Mail, |builder, short| builder.send_timeout(short), RB, S3),
        (Stage::Rcpt, |builder, short| builder.send_timeout(short), RB, S3),
        (Stage::Data, |builder, short| builder.send_timeout(short), RB, S3),
        (Stage::Body, |builder, short| builder.send_timeout(short), RB, S4),
        (Stage::EndOfData, |builder, short| builder.final_reply_timeout(short), UD, S5),
    ];
    for (stage, timer, kind, told) in cases {
        thrice(|| swallowed_at(stage, timer, kind, told));
    }
}

/// The server has read what the stage is named after, and then no packet passes any more.
fn swallowed_at(stage: Stage, timer: Timer, kind: FailureKind, told: SendStage) {
    let short = ms(400);
    let server = TestServer::builder().size(None).security(Security::StartTls).credentials("user", "secret").start();
    let builder = sender(starttls(&server).credentials("user", "secret")).max_size(1);
    let sender = timer(builder, short).build().unwrap();
    // What is done once is done: the system's roots are read.
    eventually("the first message is quick enough", || send(&sender, "warm@hole").is_ok());
    server.connection(server.connections_accepted()).close();
    let mut script = Script::new().once(stage, [Action::barrier("hole"), Action::Default]);
    let large = stage == Stage::Body;
    if large {
        script = script.after_bytes(10_000);
    }
    server.set_script(script);
    let id = "1@hole";
    let content = if large { big_content(id, 8_000_000) } else { content(id) };
    let hole = thread::scope(|scope| {
        let call = scope.spawn(|| fails(&sender, &content, (kind, told), short / 2..=*at(short).end()));
        server.wait_until_reached("hole");
        let hole = Firewall::black_hole(server.port());
        server.release("hole");
        let error = call.join().unwrap_or_else(|_| panic!("at {stage:?}"));
        assert!(error.to_string().contains("_timeout is"), "{stage:?}: the limit is named: {error}");
        hole
    });
    match kind {
        HU => blamed(&sender),
        _ => not_blamed(&sender),
    }
    // Cut, not left to the kernel: it would go on sending what was given up, and deliver it when the hole passes.
    let of_ours = || clients_of(server.port()).into_iter().filter(|state| *state == State::Established).count();
    assert_eq!(of_ours(), 0, "{stage:?}");
    drop(hole);
    server.set_script(Script::new());
    recovers(&sender, |id| server.accepted(id));
    assert!(server.accepted(id) <= usize::from(kind == UD), "{stage:?}");
}

/// K08: the kernel's own patience, however short, ends nothing before our timers do.
pub fn a_black_hole_that_passes_in_time_costs_nothing() {
    // The kernel would give a connection up after 1.4 s: 200 ms, doubled twice.
    set_ipv4("tcp_retries2", "2");
    let server = TestServer::start();
    let sender = sender(plain(&server)).max_size(1).build().unwrap();
    send(&sender, "warm@passing").unwrap();
    // The server has no such patience, so it must have nothing left to send again.
    eventually("what the server said is acknowledged", || unacknowledged_by_us(server.port()) == 0);
    let hole = Firewall::black_hole(server.port());
    thread::scope(|scope| {
        let call = scope.spawn(|| send(&sender, "1@passing"));
        // How long the fault lasts.
        pace(ms(2000));
        assert_eq!(sender.status().counts.leased, 1, "it waits: {:?}", sender.status());
        drop(hole);
        let receipt = call.join().unwrap().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((receipt.connection_id(), receipt.attempts()), (1, 1));
    });
    assert_eq!((server.accepted("1@passing"), server.connections_accepted()), (1, 1));
}

/// K08: with `TCP_USER_TIMEOUT` what nobody acknowledges is given up when the longest of our timers is over, not after the kernel's
/// quarter of an hour.
pub fn the_kernel_gives_up_what_nobody_acknowledges() {
    let patience = ms(500);
    let server = TestServer::start();
    let sender = sender(plain(&server)).send_timeout(patience).final_reply_timeout(patience).build().unwrap();
    send(&sender, "1@farewell").unwrap();
    assert_eq!(clients_of(server.port()), [State::Established]);
    let _hole = Firewall::black_hole(server.port());
    // It says QUIT and closes; neither arrives, and nobody holds the socket any more.
    sender.shutdown(ms(100));
    assert!(!clients_of(server.port()).is_empty(), "the kernel still tries");
    let start = now();
    eventually("the kernel has given up", || clients_of(server.port()).is_empty());
    assert!(now() - start < Duration::from_secs(5), "after {:?}", now() - start);
}

fn shut_window(script: Script) -> TestServer {
    TestServer::builder().size(None).socket_buffers(4096).script(script.after_bytes(10_000)).start()
}

fn recovers_from_the_window(sender: &SmtpSender, server: &TestServer) {
    // Nobody reads the rest of it, and nobody is to.
    server.connection(1).reset();
    assert!(!contains(&server.transcript(1).client_bytes(), b"\r\n.\r\n"), "no dot was read");
    server.set_script(Script::new());
    recovers(sender, |id| server.accepted(id));
}

/// K09.
pub fn a_window_that_stays_shut_ends_the_content() {
    let timer = ms(400);
    thrice(|| {
        let server = shut_window(Script::new().once(Stage::Body, [Action::StopReading]));
        let sender = sender(plain(&server)).send_timeout(timer).build().unwrap();
        let message = big_content("1@window", 8_000_000);
        let error = fails(&sender, &message, (RB, S4), at(timer));
        assert!(error.to_string().contains("send_timeout"), "the limit is named: {error}");
        not_blamed(&sender);
        recovers_from_the_window(&sender, &server);
        assert_eq!(server.accepted("1@window"), 0);
    });
}

/// K10: the kernel has taken all of it, and the server has not.
pub fn a_dot_in_the_send_queue_is_an_unknown_outcome() {
    let timer = ms(400);
    thrice(|| {
        let server = shut_window(Script::new().once(Stage::Body, [Action::StopReading]));
        let sender = sender(plain(&server)).final_reply_timeout(timer).build().unwrap();
        let message = big_content("1@queue", 200_000);
        let error = fails(&sender, &message, (UD, S5), at(timer));
        assert!(error.to_string().contains("final_reply_timeout"), "the limit is named: {error}");
        assert_eq!(error.attempts(), 1);
        not_blamed(&sender);
        recovers_from_the_window(&sender, &server);
        // It was cut, so the kernel sent no more of it: here unknown means no.
        assert_eq!(server.accepted("1@queue"), 0);
    });
}

/// K11: what it says about the end is lost with it, so the connection looks alive.
pub fn a_rebooted_peer_costs_no_message() {
    for connections in [1, 4] {
        let server = TestServer::start();
        let sender = sender(plain(&server)).max_size(4).build().unwrap();
        let leases: Vec<_> = (0..connections).map(|_| sender.lease().unwrap()).collect();
        drop(leases);
        // An acknowledgement that is late would meet the rebooted peer, which would say so.
        eventually("what the server said is acknowledged", || unacknowledged_by_us(server.port()) == 0);
        let hole = Firewall::black_hole(server.port());
        (1..=connections).for_each(|number| server.connection(number).reset());
        drop(hole);
        let alive = clients_of(server.port()).into_iter().filter(|state| *state == State::Established).count();
        assert_eq!((alive, sender.status().counts.idle), (connections, connections), "nobody has told us");
        let start = now();
        let receipt = send(&sender, "1@reboot").unwrap_or_else(|error| panic!("{error}"));
        assert!(now() - start < PATIENCE / 2, "{:?}", now() - start);
        assert_eq!((receipt.attempts(), server.accepted("1@reboot")), (1, 1));
        not_blamed(&sender);
        recovers(&sender, |id| server.accepted(id));
        assert_eq!(server.connections_accepted(), connections + 1, "its siblings went with it");
    }
}
