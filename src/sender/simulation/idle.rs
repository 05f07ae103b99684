//! A server that hangs up on idle sessions: after a few of them none is met any more.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use lettre::address::Envelope;

use crate::options::{Host, PoolOptions};
use crate::sender::SmtpSender;
use crate::simulation::{Order, Plan, explore, net, sleep};
use crate::stats::DiscardReason;
use crate::sync::Mutex;

use super::server::{Model, Mood, Town};

const SECOND: Duration = Duration::from_secs(1);

/// A sender that would keep idle connections for ever, and a server that ends them after a minute of silence.
fn with_a_mind_of_its_own(learns: bool) -> SmtpSender {
    let town = Arc::new(Town::default());
    town.calm();
    net::calm();
    let address = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 9));
    net::listen(address, Arc::new(Model { town, mood: Mutex::new(Mood::Up), latency: SECOND / 50 }));
    let options = PoolOptions {
        hosts: vec![Host::plain(address.to_string())],
        idle_timeout: None,
        keepalive_interval: None,
        max_lifetime: None,
        learn_limits: learns,
        ..PoolOptions::default()
    };
    SmtpSender::from_options(options).unwrap()
}

/// Sends one message after so much silence. Whether it met a session that the server had ended.
fn send_after(sender: &SmtpSender, token: u64, silence: Duration) -> bool {
    sleep(silence);
    let ended = sender.status().discarded.of(DiscardReason::ServerClosed);
    let from = format!("t{token}@example.com").parse().unwrap();
    let envelope = Envelope::new(Some(from), vec!["r@example.com".parse().unwrap()]).unwrap();
    let receipt = sender.send_raw(&envelope, format!("Token: {token}\r\n\r\ntext\r\n").as_bytes()).unwrap();
    assert_eq!(receipt.attempts(), 1);
    sender.status().discarded.of(DiscardReason::ServerClosed) > ended
}

fn plan(seed: u64) -> Plan {
    Plan { seed, order: Order::Prompt, hasty: false }
}

#[test]
fn no_send_meets_a_session_that_the_server_ended_once_its_patience_is_learned() {
    explore(20, plan, SECOND * 1_000_000, |_| {
        let sender = with_a_mind_of_its_own(true);
        assert!(!send_after(&sender, 0, Duration::ZERO));
        for token in 1..=3 {
            assert_eq!(sender.status().hosts[0].learned_idle_limit, None);
            assert!(send_after(&sender, token, SECOND * 70), "a minute is all that the server waits");
        }
        let limit = sender.status().hosts[0].learned_idle_limit.expect("three times are a rule");
        assert!(limit < SECOND * 60 && limit > SECOND * 50, "{limit:?}");
        for token in 4..30 {
            let silence = SECOND * fastrand::u32(1..110);
            assert!(!send_after(&sender, token, silence), "met dead after {silence:?}");
        }
        sender.shutdown(SECOND);
    });
}

#[test]
fn without_learning_each_session_ended_by_the_server_is_met() {
    explore(5, plan, SECOND * 1_000_000, |_| {
        let sender = with_a_mind_of_its_own(false);
        send_after(&sender, 0, Duration::ZERO);
        for token in 1..=10 {
            assert!(send_after(&sender, token, SECOND * 70));
            assert_eq!(sender.status().hosts[0].learned_idle_limit, None);
        }
        sender.shutdown(SECOND);
    });
}
