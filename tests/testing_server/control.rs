//! What a test does from outside: waits, barriers, idle connections, limits, outages, the end.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use smtp_pool::testing::{Action, Script, Security, Stage, TestServer};

use crate::client::{Client, TIMEOUT};

#[test]
fn barriers_hold_until_released() {
    let server =
        TestServer::builder().script(Script::new().on(Stage::Data, [Action::barrier("data"), Action::Default])).start();
    let mut client = Client::ready(&server);
    client.send("MAIL FROM:<a@b.c>\r\nRCPT TO:<a@b.c>\r\nDATA\r\n");
    server.wait_until_reached("data");
    assert_eq!([client.reply(), client.reply()].map(|reply| reply[..3].to_owned()), ["250", "250"]);
    client.nothing_comes();
    assert_eq!(server.snapshot().barrier_reached("data"), 1);
    server.release("data");
    assert_eq!(client.reply()[..3], *"354");
    client.say(".");
    // It stays open for those who come later.
    assert_eq!(client.mail("1")[..3], *"250");
    assert_eq!(server.snapshot().barrier_reached("data"), 2);
}

#[test]
fn waits_are_bounded_and_say_what_was_missing() {
    let script = Script::new().on(Stage::Noop, [Action::barrier("never")]);
    let server = TestServer::builder().patience(Duration::from_millis(20)).script(script).start();
    assert!(!server.wait_for(|seen| seen.messages() == 1, Duration::from_millis(5)));
    let panic = std::panic::catch_unwind(|| server.wait_until_reached("never")).unwrap_err();
    assert!(panic.downcast_ref::<String>().unwrap().contains("no connection reached barrier \"never\" within 20ms"));
    let mut client = Client::ready(&server);
    client.send("NOOP\r\n");
    client.rest_until_reset();
    assert_eq!(server.violations(), ["connection 1: barrier \"never\" was not released within 20ms"]);
    let panic = std::panic::catch_unwind(|| server.connection(2)).unwrap_err();
    assert_eq!(panic.downcast_ref::<String>().unwrap(), "connection 2 does not exist: 1 accepted so far");
}

#[test]
fn an_idle_connection_can_be_ended_from_outside() {
    let server = TestServer::start();
    let mut clients = [(); 4].map(|()| Client::ready(&server));
    assert_eq!((server.connections_open(), server.connections_accepted(), server.peak_connections()), (4, 4, 4));
    server.connection(1).send("421 4.3.2 bye\r\n");
    server.connection(1).close();
    assert_eq!(clients[0].rest(), "421 4.3.2 bye\r\n");
    server.connection(2).reset();
    clients[1].rest_until_reset();
    server.connection(3).half_close();
    assert_eq!(clients[2].rest(), "");
    assert!(server.connection(1).is_closed() && server.connection(2).is_closed() && !server.connection(3).is_closed());
    server.connection(4).send("250 hi\r\n");
    assert_eq!(clients[3].reply(), "250 hi\r\n");
    assert_eq!(clients[3].mail("1")[..3], *"250");
    assert_eq!(server.connections_open(), 2);
    // Also while the connection's thread is held at a barrier, or its client does not read.
    server.set_script(
        Script::new()
            .on(Stage::Noop, [Action::barrier("x")])
            .on(Stage::Rset, [Action::endless([b'x'; 65536], Duration::ZERO)]),
    );
    clients[3].send("NOOP\r\n");
    server.wait_until_reached("x");
    server.connection(4).reset();
    clients[3].rest_until_reset();
    let mut client = Client::ready(&server);
    client.send("RSET\r\n");
    assert!(server.wait_for(|seen| seen.reached(Stage::Rset) == 1, TIMEOUT));
    server.connection(5).reset();
}

#[test]
fn turns_connections_away_at_the_limit() {
    let server = TestServer::builder().max_connections(Some(2)).start();
    let first = Client::ready(&server);
    let mut second = Client::ready(&server);
    assert_eq!(Client::silent(&server).rest(), "421 4.7.0 too many connections\r\n");
    assert_eq!((server.connections_accepted(), server.peak_connections()), (3, 2));
    // A place is free as soon as the client has closed, whether or not the server has got round to it.
    drop(first);
    let third = Client::ready(&server);
    second.send("QUIT\r\n");
    drop(second);
    let fourth = Client::ready(&server);
    assert_eq!(server.peak_connections(), 2);
    drop((third, fourth));

    let script = Script::new().on(Stage::Connect, [Action::reply("220 not for those over the limit\r\n")]);
    let server =
        TestServer::builder().script(script).max_connections(Some(0)).refuse_over_limit("554 go away\r\n").start();
    assert_eq!(Client::silent(&server).rest(), "554 go away\r\n");
}

#[test]
fn the_peak_counts_what_clients_hold_open() {
    let server = TestServer::start();
    for _ in 0..200 {
        let mut client = Client::ready(&server);
        client.send("QUIT\r\n");
    }
    assert_eq!((server.connections_accepted(), server.peak_connections()), (200, 1));
}

#[test]
fn an_outage_refuses_and_ends() {
    let server = TestServer::start();
    let mut client = Client::ready(&server);
    for _ in 0..3 {
        server.stop_accepting();
        server.stop_accepting();
        let error = TcpStream::connect(server.addr()).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        assert_eq!(client.mail("1")[..3], *"250");
        server.resume_accepting();
        server.resume_accepting();
        Client::ready(&server);
    }
    assert_eq!(server.connections_accepted(), 4);
}

#[test]
fn scripts_can_change_while_it_runs() {
    let server = TestServer::start();
    let mut client = Client::ready(&server);
    client.say("NOOP");
    server.set_script(Script::new().on_nth(Stage::Noop, 1, [Action::reply("421 now\r\n")]));
    assert_eq!(client.say("NOOP"), "421 now\r\n");
    server.assert_script_used();
}

#[test]
fn recording_and_keeping_can_be_switched_off() {
    let server = TestServer::builder().record(false).keep_messages(false).start();
    Client::ready(&server).mail("1");
    assert_eq!((server.accepted("1"), server.messages().len(), server.snapshot().messages()), (1, 0, 1));
    let panic = std::panic::catch_unwind(|| server.transcript(1)).unwrap_err();
    assert!(panic.downcast_ref::<&str>().unwrap().contains("record(false)"));
}

#[test]
fn two_servers_do_not_know_each_other() {
    let (one, two) = (TestServer::start(), TestServer::start());
    assert_ne!(one.port(), two.port());
    Client::ready(&one).mail("1");
    assert_eq!((one.accepted("1"), two.accepted("1")), (1, 0));
    assert!(format!("{two:?}").contains(&two.port().to_string()));
}

/// Threads of other tests running beside could not be told from those left behind,
/// so the servers run in a process of their own.
#[test]
#[cfg(target_os = "linux")]
#[expect(clippy::disallowed_methods, reason = "it measures real time")]
fn the_drop_is_prompt_and_leaves_no_thread_and_no_socket() {
    const MARK: &str = "TESTING_SERVER_DROP_CHILD";
    if std::env::var_os(MARK).is_none() {
        let name = "control::the_drop_is_prompt_and_leaves_no_thread_and_no_socket";
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture", "--test-threads=1"])
            .env(MARK, "1")
            .output()
            .unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
        return;
    }
    let count = |what: &str| std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    let before = (count("task"), count("fd"));
    let script = Script::new()
        .on_connection(1, Stage::Connect, [Action::Silence])
        .on_connection(2, Stage::Connect, [Action::StopReading])
        .on_connection(3, Stage::Connect, [Action::barrier("never")])
        .on_connection(4, Stage::Connect, [Action::DelayFor(Duration::MAX)])
        .on_connection(5, Stage::Connect, [Action::drip("220 slow\r\n", Duration::from_secs(3600))])
        .on_connection(6, Stage::Connect, [Action::endless([b'x'; 65536], Duration::ZERO)])
        .on_connection(7, Stage::Connect, [Action::HalfClose]);
    for security in [Security::Plain, Security::StartTls, Security::ImplicitTls] {
        let server = TestServer::builder().security(security).script(script.clone()).start();
        let clients = [(); 10].map(|()| Client::silent(&server));
        let idle = usize::from(security != Security::ImplicitTls) * 10;
        assert!(server.wait_for(|seen| seen.connections_open() == 10 && seen.reached(Stage::Connect) == idle, TIMEOUT));
        let start = Instant::now();
        drop(server);
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        drop(clients);
        // Joined threads leave /proc a moment later.
        while count("task") != before.0 {
            assert!(start.elapsed() < TIMEOUT, "{} threads left", count("task") - before.0);
            std::thread::yield_now();
        }
        assert_eq!(count("fd"), before.1);
    }
}
