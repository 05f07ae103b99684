//! What is done to the process itself: signals, clocks, suspension, children, large messages.

use std::fs;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use smtp_pool::Host;
use smtp_pool::testing::{Action, Script, Security, Stage, TestServer};

use super::common::*;
use super::judge::*;
use super::network::{crowd_out, listen_shortly};
use super::role::{OVERTIME, Player, Server};

/// K25: the signals go to the first thread, which is the one that sends.
pub fn a_storm_of_signals_changes_nothing() {
    let path = std::env::var("STORM_COUNT").unwrap();
    let interrupted = || u64::from_le_bytes(fs::read(&path).unwrap().try_into().unwrap_or_default());
    // Writes that wait for room, and reads that wait for an answer.
    let slowly = |reply: &str| Action::drip(reply, ms(3));
    for security in [Security::Plain, Security::StartTls] {
        let server = TestServer::builder()
            .security(security)
            .size(None)
            .socket_buffers(4096)
            .script(
                Script::new()
                    .on(Stage::Connect, [slowly("220 slow\r\n")])
                    .on(Stage::Mail, [slowly("250 slow\r\n")])
                    .on(Stage::EndOfData, [Action::Accept, slowly("250 slow\r\n")]),
            )
            .start();
        let host = if security == Security::Plain { plain(&server) } else { starttls(&server) };
        let sender = sender(host).max_size(1).build().unwrap();
        let before = interrupted();
        for number in 0..12 {
            let id = format!("{number}@storm");
            let receipt = sender.send_raw(&envelope(1), &big_content(&id, 300_000));
            let receipt = receipt.unwrap_or_else(|error| panic!("{security:?}: {error}"));
            assert_eq!(receipt.attempts(), 1);
            assert_eq!(server.accepted(&id), 1);
            if number % 4 == 3 {
                server.connection(server.connections_accepted()).close();
            }
        }
        let hit = interrupted() - before;
        eprintln!("{security:?}: {hit} calls interrupted");
        assert!(hit > 20, "the storm hit nothing: {hit}");
        assert_eq!(server.messages().len(), 12);
        at_rest(&sender);
        not_blamed(&sender);
    }
    // A timer that is interrupted all the time still ends when it should.
    thrice(|| {
        let timer = ms(300);
        let server = TestServer::builder().script(Script::new().on(Stage::Mail, [Action::Silence])).start();
        let sender = sender(plain(&server)).send_timeout(timer).build().unwrap();
        fails(&sender, &content("late@storm"), (RB, S3), at(timer));
        server.set_script(Script::new());
        recovers(&sender, |id| server.accepted(id));
    });
    // A connection that waits to stand does so for as long as it should.
    thrice(|| {
        let timer = ms(300);
        let listener = listen_shortly((Ipv4Addr::LOCALHOST, 0).into());
        let _crowd = crowd_out(&listener);
        let port = listener.local_addr().unwrap().as_socket().unwrap().port();
        let sender = sender(Host::plain("127.0.0.1").port(port)).connect_timeout(timer).build().unwrap();
        fails(&sender, &content("never@storm"), (HU, S0), at(timer));
    });
    drop(fs::remove_file(path));
}

/// K26.
pub fn a_wall_clock_that_is_set_changes_nothing() {
    let path = std::env::var("FAKETIME_TIMESTAMP_FILE").unwrap();
    #[expect(clippy::disallowed_methods, reason = "this very clock is under test")]
    let wall = SystemTime::now;
    let set = |offset: &str| {
        let (wall_before, before) = (wall(), now());
        fs::write(&path, offset).unwrap();
        let step = wall().duration_since(wall_before).unwrap_or_else(|back| back.duration());
        assert!(step > Duration::from_secs(1000), "the wall clock jumps: {step:?}");
        assert!(now() - before < PATIENCE, "the monotonic clock does not");
    };
    fs::write(&path, "+0").unwrap();
    let pause = ms(400);
    let server = TestServer::start();
    let sender = sender(plain(&server))
        .max_size(1)
        .idle_timeout(Duration::from_secs(600))
        .max_lifetime(Duration::from_secs(1200))
        .keepalive_interval(Duration::from_secs(300))
        .reconnect_cooldown(pause)
        .max_reconnect_cooldown(pause)
        .build()
        .unwrap();
    send(&sender, "0@clock").unwrap();
    for (number, offset) in ["+1h", "-1h", "+1d", "+0"].into_iter().enumerate() {
        // An idle connection is no older, and none younger.
        set(offset);
        let id = format!("{number}@idle.clock");
        assert_eq!(send(&sender, &id).unwrap().connection_id(), 1, "{offset}");
    }
    assert_eq!(sender.status().discarded.total(), 0, "{:?}", sender.status());
    for offset in ["+1h", "+0"] {
        // In the middle of a send: its deadline is where it was.
        let budget = ms(400);
        server.set_script(Script::new().once(Stage::Mail, [Action::barrier(offset)]));
        std::thread::scope(|scope| {
            let sender = &sender;
            let call = scope.spawn(move || {
                let start = now();
                let options = smtp_pool::SendOptions::new().deadline(start + budget);
                (send_to(sender, "late@clock", 1, &options).unwrap_err(), now() - start)
            });
            server.wait_until_reached(offset);
            set(offset);
            let (error, took) = call.join().unwrap();
            assert_eq!((error.kind(), error.stage()), (RB, S3), "{error}");
            assert!(took >= budget * 8 / 10 && took <= *at(budget).end(), "{offset}: {took:?}");
            server.release(offset);
        });
        recovers(&sender, |id| server.accepted(id));
        // In the middle of a cooldown: it is as long as it was.
        server.stop_accepting();
        server.connection(server.connections_accepted()).close();
        let start = now();
        assert_eq!(send(&sender, "none@clock").unwrap_err().kind(), HU);
        set(if offset == "+0" { "-1h" } else { "+1d" });
        server.resume_accepting();
        let mut asked = 0;
        eventually("the pause ends", || {
            asked += usize::from(send(&sender, &format!("{offset}@cooldown.clock")).is_ok());
            asked == 1
        });
        assert!(now() - start >= pause * 8 / 10, "{offset}: {:?}", now() - start);
        fs::write(&path, offset).unwrap();
    }
    assert_eq!(server.accepted("late@clock"), 0);
    drop(fs::remove_file(path));
}

/// K27: a second of the client's timers stands for its minutes, and so does the server's patience.
pub fn a_process_that_was_suspended_goes_on() {
    let server = TestServer::start();
    let mut client = Player::start(&format!("client {}", server.port()));
    assert_eq!(client.ask("1@suspended"), "sent, attempt 1, connection 1");

    // Idle. The server hangs up meanwhile.
    client.suspend();
    server.connection(1).send("421 4.4.2 idle for too long\r\n");
    server.connection(1).close();
    pace(OVERTIME);
    client.resume();
    assert_eq!(client.ask("2@suspended"), "sent, attempt 1, connection 2");

    // In the middle of a message, before its last byte. The server's patience ends, and ours is over too.
    server.set_script(Script::new().once(Stage::Data, [Action::barrier("data"), Action::Fin]));
    client.say("3@suspended");
    server.wait_until_reached("data");
    client.suspend();
    server.release("data");
    server.connection(2).wait_closed();
    pace(OVERTIME);
    client.resume();
    // Nothing was accepted and nothing is unknown: either the free try on a fresh connection, or an error that says so.
    let outcome = client.answer();
    let stored = server.accepted("3@suspended");
    match outcome.as_str() {
        "sent, attempt 1, connection 3" => assert_eq!(stored, 1),
        "RetryableBeforeSend EnvelopeStarted, 0 leased" => assert_eq!(stored, 0),
        _ => panic!("{outcome}, {stored} stored"),
    }

    // After its last byte. The answer has been there for long when the process comes to ask what time it is.
    server.set_script(Script::new().once(Stage::EndOfData, [Action::barrier("dot"), Action::Default]));
    client.say("4@suspended");
    server.wait_until_reached("dot");
    client.suspend();
    server.release("dot");
    assert!(server.wait_for(|seen| seen.reached(Stage::Idle) > 0, PATIENCE));
    pace(OVERTIME);
    client.resume();
    let outcome = client.answer();
    assert!(outcome.starts_with("sent, attempt 1, "), "an answer that came in time is read: {outcome}");
    assert_eq!(server.accepted("4@suspended"), 1);
    assert!(client.ask("5@suspended").starts_with("sent, attempt 1, "));
    assert_eq!(server.accepted("5@suspended"), 1);
}

/// Sockets of a process, and how many of them a program that it starts would inherit.
fn sockets(process: &str) -> (usize, usize) {
    const O_CLOEXEC: u32 = 0o2_000_000;
    let (mut all, mut inherited) = (0, 0);
    for file in fs::read_dir(format!("/proc/{process}/fd")).unwrap().flatten() {
        let Ok(target) = fs::read_link(file.path()) else { continue };
        if !target.to_string_lossy().starts_with("socket:") {
            continue;
        }
        let info = format!("/proc/{process}/fdinfo/{}", file.file_name().to_str().unwrap());
        let Ok(info) = fs::read_to_string(info) else { continue };
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        all += 1;
        inherited += usize::from(u32::from_str_radix(flags.trim(), 8).unwrap() & O_CLOEXEC == 0);
    }
    (all, inherited)
}

/// K28: idle, lent and half-open ones.
pub fn no_child_inherits_a_connection() {
    let mut plain_server = Server::start();
    let server = TestServer::builder().security(Security::StartTls).start();
    let sender_tls = sender(starttls(&server)).max_size(3).build().unwrap();
    let plain_sender = sender(plain_server.host()).build().unwrap();
    send(&plain_sender, "1@child").unwrap();
    let lease = sender_tls.lease().unwrap();
    send(&sender_tls, "1@child").unwrap();
    server.set_script(Script::new().once(Stage::Connect, [Action::barrier("opening"), Action::Default]));
    std::thread::scope(|scope| {
        let second = sender_tls.lease().unwrap();
        let opening = scope.spawn(|| sender_tls.lease().map(drop));
        server.wait_until_reached("opening");
        let (all, inherited) = sockets("self");
        assert!(all >= 4, "{all} sockets");
        assert_eq!(inherited, 0, "of {all} sockets");

        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let process = child.id().to_string();
        eventually("it runs", || fs::read_to_string(format!("/proc/{process}/comm")).is_ok_and(|name| name == "cat\n"));
        assert_eq!(sockets(&process), (0, 0));
        server.release("opening");
        opening.join().unwrap().unwrap();
        drop((lease, second));
        // Connections end with the sender, whatever the child does, and the parent's go on meanwhile.
        send(&sender_tls, "2@child").unwrap();
        send(&plain_sender, "2@child").unwrap();
        sender_tls.shutdown(PATIENCE);
        assert!(server.wait_for(|seen| seen.connections_open() == 0, PATIENCE), "the child holds them open");
        assert!(child.try_wait().unwrap().is_none());
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    });
    assert_eq!((server.accepted("2@child"), plain_server.accepted("2@child")), (1, 1));
}

/// A line of `/proc/self/status`, in bytes.
fn memory(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

/// K29: beside the message itself, which is its caller's.
pub fn a_hundred_megabytes_pass_in_constant_memory() {
    const SIZE: usize = 100_000_000;
    const ROOM: u64 = 1_000_000;
    let mut server = Server::start();
    let sender = sender(server.host()).max_size(1).send_timeout(PATIENCE * 9).final_reply_timeout(PATIENCE * 9);
    let sender = sender.build().unwrap();
    send(&sender, "small@memory").unwrap();
    let message = big_content("1@memory", SIZE);
    // The peak is counted from here on (proc(5)).
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = memory("VmRSS");
    sender.send_raw(&envelope(1), &message).unwrap();
    let grown = memory("VmHWM").saturating_sub(before);
    eprintln!("{grown} bytes more at most");
    assert!(grown <= ROOM, "{grown} bytes more for a message of {SIZE}");
    assert_eq!(server.accepted("1@memory"), 1);
    recovers(&sender, |id| server.accepted(id));
}
