//! A host that cannot be reached, in every way in which hosts cannot be.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use smtp_pool::testing::TestServer;

use super::common::*;
use super::judge::*;
use super::name_server::NameServer;
use super::network::{Firewall, crowd_out, listen_shortly};
use super::relay::{Manner, Relay};
use super::role::Server;

/// K01.
pub fn a_refused_port_is_known_at_once() {
    let server = TestServer::start();
    server.stop_accepting();
    // The quickest of five is the crate's own time; the others are the machine's.
    let mut quickest = PATIENCE;
    for _ in 0..5 {
        let sender = sender(plain(&server)).build().unwrap();
        let start = now();
        let error = fails(&sender, &content("1@refused"), (HU, S0), AT_ONCE);
        quickest = quickest.min(now() - start);
        assert!(error.retry_after().is_some(), "{error}");
        assert!(sender.status().hosts[0].last_error.is_some());
    }
    assert!(quickest < ms(5), "{quickest:?}");
    let sender = sender(plain(&server)).build().unwrap();
    fails(&sender, &content("1@refused"), (HU, S0), AT_ONCE);
    blamed(&sender);
    server.resume_accepting();
    recovers(&sender, |id| server.accepted(id));
}

/// K01: RFC 5321 §5.1 asks for two addresses at least.
pub fn every_address_of_a_name_is_tried() {
    let server = TestServer::start();
    let names = NameServer::start();
    // The resolver sorts the nearest address first: that one refuses, and so does the second.
    let alive = TcpListener::bind((Ipv4Addr::new(127, 0, 9, 1), 0)).unwrap();
    let port = alive.local_addr().unwrap().port();
    let _relay = Relay::on(alive, server.port(), Manner::Straight);
    names.has("mail.test", ["127.0.0.1", "127.0.0.2", "127.0.9.1"]);
    let sender = sender(smtp_pool::Host::plain("mail.test").port(port)).build().unwrap();
    let start = now();
    assert_eq!(send(&sender, "1@addresses").unwrap().attempts(), 1);
    assert!(now() - start < ms(500), "a refusal costs no time");
    assert_eq!((server.accepted("1@addresses"), sender.status().create_failures), (1, 0));
    not_blamed(&sender);
}

/// K02.
pub fn a_dropped_syn_ends_at_the_connect_timer() {
    let timer = ms(300);
    thrice(|| {
        let server = TestServer::start();
        let sender = sender(plain(&server)).connect_timeout(timer).build().unwrap();
        let hole = Firewall::with(&[format!("tcp dport {} drop", server.port())]);
        let error = fails(&sender, &content("1@dropped"), (HU, S0), at(timer));
        assert!(error.to_string().contains("connect_timeout"), "the limit is named: {error}");
        blamed(&sender);
        drop(hole);
        recovers(&sender, |id| server.accepted(id));
        assert_eq!(server.accepted("1@dropped"), 0);
    });
}

/// K03.
pub fn an_unreachable_host_is_known_at_once() {
    for why in ["host-unreachable", "net-unreachable", "admin-prohibited"] {
        thrice(|| {
            let server = TestServer::start();
            let sender = sender(plain(&server)).build().unwrap();
            let rule = format!("tcp dport {} reject with icmp type {why}", server.port());
            let wall = Firewall::with(&[rule]);
            fails(&sender, &content("1@unreachable"), (HU, S0), AT_ONCE);
            blamed(&sender);
            drop(wall);
            recovers(&sender, |id| server.accepted(id));
        });
    }
}

/// K04.
pub fn a_full_backlog_is_a_time_out() {
    let timer = ms(300);
    thrice(|| {
        let server = TestServer::start();
        let listener = listen_shortly(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let addr = listener.local_addr().unwrap().as_socket().unwrap();
        let crowd = crowd_out(&listener);
        let host = smtp_pool::Host::plain("127.0.0.1").port(addr.port());
        let sender = sender(host).connect_timeout(timer).build().unwrap();
        fails(&sender, &content("1@backlog"), (HU, S0), at(timer));
        blamed(&sender);
        // Somebody begins to accept.
        drop(crowd);
        let _relay = Relay::on(listener.into(), server.port(), Manner::Straight);
        recovers(&sender, |id| server.accepted(id));
        assert_eq!(server.accepted("1@backlog"), 0);
    });
}

/// K05: the kernel accepts for it, and nobody speaks.
pub fn a_stopped_server_costs_its_timer_and_no_more() {
    let timer = ms(300);
    thrice(|| {
        let mut server = Server::start();
        let sender = sender(server.host()).connect_timeout(timer).send_timeout(timer).build().unwrap();
        server.0.suspend();
        let error = fails(&sender, &content("1@stopped"), (HU, S1), at(timer));
        assert!(error.to_string().contains("connect_timeout"), "the limit is named: {error}");
        blamed(&sender);
        server.0.resume();
        recovers(&sender, |id| server.accepted(id));
        // The same in the middle of a session: it says nothing about the host, and MAIL has accepted nothing.
        server.0.suspend();
        let error = fails(&sender, &content("2@stopped"), (RB, S3), at(timer));
        assert!(error.to_string().contains("send_timeout"), "the limit is named: {error}");
        not_blamed(&sender);
        server.0.resume();
        recovers(&sender, |id| server.accepted(id));
        for id in ["1@stopped", "2@stopped"] {
            assert_eq!(server.accepted(id), 0);
        }
    });
}
