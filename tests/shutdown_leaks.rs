//! After a sender's end nothing of it is left in the process: no thread, no socket, wherever it was met.
//!
//! A test binary of its own with one test, because threads and descriptors are counted for the whole process.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

mod common;

use std::fs;
use std::thread;

use common::*;
use smtp_pool::SmtpSender;
use smtp_pool::testing::{Action, Script, Security, Stage, TestServer};

/// Threads, and open descriptors, of this process.
fn held() -> (usize, usize) {
    let count = |path| fs::read_dir(path).unwrap().count();
    (count("/proc/self/task"), count("/proc/self/fd"))
}

fn rich(server: &TestServer) -> SmtpSender {
    sender(starttls(server)).max_size(4).min_idle(1).keepalive_interval(ms(20)).build().unwrap()
}

/// A sender and its server, met by the end at one place, by `shutdown` or by the last drop.
fn met(place: &str, by_drop: bool) {
    let script = match place {
        "idle" => Script::new(),
        "connecting" => Script::new().on(Stage::Connect, [Action::barrier(place)]),
        "sending" | "waiting" => Script::new().on(Stage::EndOfData, [Action::barrier(place)]),
        _ => Script::new().on(Stage::Rset, [Action::barrier(place)]),
    };
    let server = TestServer::builder().security(Security::StartTls).start();
    let sender = rich(&server);
    send(&sender, "warm@leak").unwrap();
    server.set_script(script);
    let threads = match place {
        "sending" | "connecting" => 4,
        "waiting" => 12,
        _ => 0,
    };
    if place == "connecting" {
        for number in 1..=server.connections_accepted() {
            server.connection(number).close();
        }
    }
    let callers: Vec<_> = (0..threads)
        .map(|number| {
            let sender = sender.clone();
            thread::spawn(move || drop(send(&sender, &format!("{number}@leak"))))
        })
        .collect();
    if place != "idle" {
        server.wait_until_reached(place);
    }
    if place == "waiting" {
        eventually("some wait", || sender.status().counts.waiting > 0);
    }
    if by_drop && threads == 0 {
        drop(sender);
    } else {
        sender.shutdown(ms(100));
    }
    for caller in callers {
        caller.join().unwrap();
    }
}

#[test]
fn nothing_is_left_of_a_sender_wherever_its_end_meets_it() {
    // What libraries open once and keep is open after a first pass.
    met("idle", false);
    // Threads that are told to end take a moment; what is left then is left for good.
    let before = held();
    for place in ["idle", "waiting", "connecting", "sending", "maintenance"] {
        for by_drop in [false, true] {
            met(place, by_drop);
            eventually(&format!("threads and descriptors are as before, {before:?}: {place}"), || {
                let (threads, descriptors) = held();
                threads <= before.0 && descriptors <= before.1
            });
        }
    }
}
