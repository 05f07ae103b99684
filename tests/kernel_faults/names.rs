//! Name servers that are wrong, slow or generous.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::thread;

use smtp_pool::testing::TestServer;
use smtp_pool::{Host, SendOptions};

use super::common::*;
use super::judge::*;
use super::name_server::{Answer, NameServer};
use super::network::{Firewall, run};
use super::relay::{Manner, Relay};

/// K21.
pub fn names_that_do_not_resolve_are_bounded() {
    let names = NameServer::start();
    let server = TestServer::start();
    for (name, answer) in [("nx.test", Answer::NxDomain), ("fail.test", Answer::ServFail)] {
        names.say(name, answer);
        let sender = sender(Host::plain(name).port(server.port())).build().unwrap();
        // One look-up and, for a SERVFAIL, the retries of the system's resolver.
        fails(&sender, &content("1@names"), (HU, S0), ms(0)..=ms(500));
        blamed(&sender);
        names.has(name, ["127.0.0.1"]);
        recovers(&sender, |id| server.accepted(id));
        // The last good answer outlives the name server, on a connection that is new.
        names.say(name, Answer::ServFail);
        server.connection(server.connections_accepted()).close();
        recovers(&sender, |id| server.accepted(id));
    }
    assert_eq!(server.accepted("1@names"), 0);
}

fn resolver_threads() -> usize {
    let names = fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = names.filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok());
    names.filter(|name| name.starts_with("smtp-pool-resol")).count()
}

/// K21: the system's resolver cannot be interrupted; no caller waits for it, and no thread is started for each.
pub fn a_name_server_that_hangs_holds_nobody() {
    let names = NameServer::start();
    thrice(|| nobody_is_held(&names));
}

fn nobody_is_held(names: &NameServer) {
    const CALLERS: usize = 50;
    let server = TestServer::start();
    names.say("hang.test", Answer::Silence);
    let host = Host::plain("hang.test").port(server.port());
    let sender = sender(host).max_size(CALLERS).build().unwrap();
    let budget = ms(300);
    thread::scope(|scope| {
        let calls: Vec<_> = (0..CALLERS)
            .map(|number| {
                let sender = &sender;
                scope.spawn(move || {
                    let deadline = now() + budget;
                    let options = SendOptions::new().deadline(deadline);
                    let error = send_to(sender, &format!("{number}@hang"), 1, &options).unwrap_err();
                    let late = now().saturating_duration_since(deadline);
                    assert_eq!((error.kind(), error.stage()), (HU, S0), "{error}");
                    late
                })
            })
            .collect();
        eventually("a look-up is under way", || resolver_threads() > 0);
        assert!(resolver_threads() <= 4, "{} threads", resolver_threads());
        mostly_on_time(calls.into_iter().map(|call| call.join().unwrap()).collect());
    });
    at_rest(&sender);
    names.has("hang.test", ["127.0.0.1"]);
    recovers(&sender, |id| server.accepted(id));
    eventually("no look-up is left", || resolver_threads() == 0);
}

/// K21.
pub fn fifty_addresses_share_one_timer() {
    let timer = ms(1000);
    let names = NameServer::start();
    let server = TestServer::start();
    let addresses: Vec<_> = (1..=50).map(|last| Ipv4Addr::new(127, 0, 9, last)).collect();
    names.say("fifty.test", Answer::Addresses(addresses.iter().copied().map(IpAddr::V4).collect()));
    let alive = TcpListener::bind((addresses[24], 0)).unwrap();
    let port = alive.local_addr().unwrap().port();
    let relay = Relay::on(alive, server.port(), Manner::Straight);
    thrice(|| {
        let hole = Firewall::with(&[format!("ip daddr 127.0.9.1-127.0.9.50 tcp dport {port} drop")]);
        let sender = sender(Host::plain("fifty.test").port(port)).connect_timeout(timer).build().unwrap();
        fails(&sender, &content("1@fifty"), (HU, S0), at(timer));
        blamed(&sender);
        drop(hole);
        // The turn of the one that lives comes in the middle, and half of the time is left for the session.
        let _hole =
            Firewall::with(&[format!("ip daddr 127.0.9.1-127.0.9.50 ip daddr != 127.0.9.25 tcp dport {port} drop")]);
        recovers(&sender, |id| server.accepted(id));
    });
    assert_eq!((server.accepted("1@fifty"), relay.port()), (0, port));
}

/// K21.
pub fn a_dead_ipv6_address_leaves_ipv4_its_time() {
    let timer = ms(800);
    run("ip", &["-6", "address", "add", "fd00::25/128", "dev", "lo", "nodad"]);
    let names = NameServer::start();
    names.has("dual.test", ["fd00::25", "127.0.0.1"]);
    thrice(|| {
        let server = TestServer::start();
        let host = Host::plain("dual.test").port(server.port());
        let _hole = Firewall::with(&["ip6 daddr fd00::25 counter drop".to_owned()]);
        let sender = sender(host).connect_timeout(timer).build().unwrap();
        let start = now();
        let receipt = send(&sender, "1@dual").unwrap_or_else(|error| panic!("{error}"));
        let took = now() - start;
        // It was tried, for half of the time, and not for longer.
        assert!(took >= timer / 2 && took < timer, "{took:?}");
        assert_eq!((receipt.attempts(), server.accepted("1@dual")), (1, 1));
        not_blamed(&sender);
        at_rest(&sender);
    });
}
