//! Traces under a clock that only moves when everybody waits: every time in them is known beforehand.
//!
//! Worked out by hand. One way takes 10 ms, so that a connection takes 20 (SYN and back), the greeting 10 more (it leaves when the SYN
//! has come), EHLO 20: a session is open after 50 ms. A message takes two round trips, 40 ms. A refusal comes after 1 ms.

mod server;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use lettre::address::Envelope;

use crate::cancel::CancelToken;
use crate::error::{FailureKind, SendError};
use crate::options::{Host, PoolOptions, SendOptions};
use crate::report::Receipt;
use crate::sender::SmtpSender;
use crate::simulation::{Order, Plan, net, run, sleep};
use crate::sync::{Mutex, spawn};

use self::server::{Manner, Server};

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

const A: &str = "198.51.100.1";
const B: &str = "198.51.100.2";

fn server(number: u8, manner: Manner) -> Arc<Server> {
    let server = Arc::new(Server { manner: Mutex::new(manner) });
    net::listen(IpAddr::V4(Ipv4Addr::new(198, 51, 100, number)), Arc::new(Arc::clone(&server)));
    server
}

fn options(hosts: impl IntoIterator<Item = Host>) -> PoolOptions {
    PoolOptions {
        hosts: hosts.into_iter().collect(),
        max_size: 1,
        jitter: 0.0,
        reconnect_cooldown: SECOND * 30,
        keepalive_interval: None,
        ..PoolOptions::default()
    }
}

fn host(name: &str) -> Host {
    Host::plain(name).port(25)
}

fn sender(options: PoolOptions) -> SmtpSender {
    SmtpSender::from_options(options).unwrap()
}

fn send(sender: &SmtpSender, options: &SendOptions) -> Result<Receipt, SendError> {
    let envelope = Envelope::new(None, vec!["b@example.com".parse().unwrap()]).unwrap();
    sender.send_with(&envelope, b"Subject: x\r\n\r\nx\r\n", options)
}

fn line(millis: u64, took: Option<u64>, host: &str, event: &str) -> String {
    format!("{millis} {took:?} {host} {event}")
}

/// The steps with their times in milliseconds.
fn lines(trace: &crate::trace::Trace) -> Vec<String> {
    let millis = |duration: Duration| {
        assert_eq!(duration.subsec_nanos() % 1_000_000, 0, "{duration:?}");
        u64::try_from(duration.as_millis()).unwrap()
    };
    let steps = trace.steps().map(|step| {
        let host = step.endpoint().map(ToString::to_string).unwrap_or_default();
        line(millis(step.at()), step.took().map(millis), &host, &step.event().to_string())
    });
    steps.collect()
}

fn in_a_world(story: impl FnOnce() + Send + 'static) {
    if let Err(report) = run(Plan { seed: 1, order: Order::Prompt, hasty: false }, story) {
        panic!("{report}");
    }
}

const A25: &str = "198.51.100.1:25";
const B25: &str = "198.51.100.2:25";

#[test]
fn a_connection_is_opened_and_then_reused() {
    in_a_world(|| {
        server(1, Manner::Kind);
        let sender = sender(options([host(A)]));
        let receipt = send(&sender, &SendOptions::new()).unwrap();
        assert_eq!(
            lines(receipt.trace()),
            [
                line(50, Some(50), A25, "connected without TLS as connection #1"),
                line(90, Some(40), A25, "accepted: 250 2.0.0"),
            ]
        );
        assert_eq!(receipt.elapsed(), MILLI * 90);
        sleep(SECOND * 7);
        let receipt = send(&sender, &SendOptions::new()).unwrap();
        assert_eq!(
            lines(receipt.trace()),
            [
                line(0, None, A25, "reused connection #1 (idle 7.0 s, 1 sent)"),
                line(40, Some(40), A25, "accepted: 250 2.0.0"),
            ]
        );
        assert_eq!(
            receipt.trace().to_string(),
            "    0 ms            198.51.100.1:25  reused connection #1 (idle 7.0 s, 1 sent)\n \
             40.0 ms   40.0 ms  198.51.100.1:25  accepted: 250 2.0.0"
        );
    });
}

#[test]
fn a_refused_host_is_left_for_another_and_then_passed_over() {
    in_a_world(|| {
        server(1, Manner::Refusing);
        server(2, Manner::Kind);
        let sender = sender(options([host(A), host(B).priority(1)]));
        let receipt = send(&sender, &SendOptions::new()).unwrap();
        assert_eq!(
            lines(receipt.trace()),
            [
                line(1, Some(1), A25, "no connection: the connection failed in connecting"),
                line(51, Some(50), B25, "connected without TLS as connection #2"),
                line(91, Some(40), B25, "accepted: 250 2.0.0"),
            ]
        );
        // 18 s after the refusal.
        sleep(SECOND * 18 - MILLI * 90);
        let receipt = send(&sender, &SendOptions::new()).unwrap();
        assert_eq!(
            lines(receipt.trace()),
            [
                line(0, None, A25, "passed over, cools down for 12.0 s more"),
                line(0, None, B25, "reused connection #2 (idle 17.9 s, 1 sent)"),
                line(40, Some(40), B25, "accepted: 250 2.0.0"),
            ]
        );
    });
}

#[test]
fn with_every_host_cooling_a_call_fails_at_once_and_says_how_long() {
    in_a_world(|| {
        server(1, Manner::Refusing);
        let sender = sender(options([host(A)]));
        let error = send(&sender, &SendOptions::new()).unwrap_err();
        assert_eq!(
            lines(error.trace()),
            [
                line(1, Some(1), A25, "no connection: the connection failed in connecting"),
                line(1, None, "", "gave up before connecting: no host available"),
            ]
        );
        sleep(SECOND * 10);
        let error = send(&sender, &SendOptions::new()).unwrap_err();
        assert_eq!(
            lines(error.trace()),
            [
                line(0, None, A25, "passed over, cools down for 20.0 s more"),
                line(0, None, "", "gave up before connecting: no host available"),
            ]
        );
        // A call that was cancelled says so, whatever else is the matter.
        let token = CancelToken::new();
        token.cancel();
        let error = send(&sender, &SendOptions::new().cancel(&token)).unwrap_err();
        assert_eq!(error.kind(), FailureKind::Cancelled, "{error}");
    });
}

#[test]
fn a_black_hole_takes_its_share_of_the_time() {
    in_a_world(|| {
        server(1, Manner::Lost);
        server(2, Manner::Kind);
        let sender = sender(options([host(A), host(B).priority(1)]));
        let receipt = send(&sender, &SendOptions::new()).unwrap();
        // Two hosts, 15 s to get a connection: 7.5 s for the first.
        assert_eq!(
            lines(receipt.trace()),
            [
                line(7500, Some(7500), A25, "no connection: timed out in connecting"),
                line(7550, Some(50), B25, "connected without TLS as connection #2"),
                line(7590, Some(40), B25, "accepted: 250 2.0.0"),
            ]
        );
    });
}

#[test]
fn a_wait_in_the_queue_is_told_with_what_ended_it() {
    in_a_world(|| {
        server(1, Manner::Slow(".", SECOND));
        let sender = sender(options([host(A)]));
        let first = {
            let sender = sender.clone();
            spawn("first", move || send(&sender, &SendOptions::new()).unwrap()).unwrap()
        };
        sleep(MILLI * 90);
        // The first has the only connection for another second.
        let receipt = send(&sender, &SendOptions::new()).unwrap();
        assert_eq!(
            lines(receipt.trace()),
            [
                line(1000, Some(1000), "", "waited in the queue: handed a connection"),
                line(1000, None, A25, "reused connection #1 (idle 0 ms, 1 sent)"),
                line(2040, Some(1040), A25, "accepted: 250 2.0.0"),
            ]
        );
        assert_eq!(first.join().unwrap().elapsed(), MILLI * 1090);

        let held = sender.lease().unwrap();
        let deadline = crate::clock::now() + SECOND * 2;
        let error = send(&sender, &SendOptions::new().deadline(deadline)).unwrap_err();
        assert_eq!(
            lines(error.trace()),
            [
                line(2000, Some(2000), "", "waited in the queue: the time to get a connection was over"),
                line(2000, None, "", "gave up before connecting: no connection came free in time"),
            ]
        );
        let token = CancelToken::new();
        let canceller = {
            let token = token.clone();
            spawn("canceller", move || {
                sleep(SECOND);
                token.cancel();
            })
        };
        let error = send(&sender, &SendOptions::new().cancel(&token)).unwrap_err();
        canceller.unwrap().join().unwrap();
        assert_eq!(
            lines(error.trace()),
            [
                line(1000, Some(1000), "", "waited in the queue: cancelled"),
                line(1000, None, "", "gave up before connecting: cancelled, not sent"),
            ]
        );
        drop(held);
    });
}

#[test]
fn a_refusal_for_now_is_followed_by_the_pause_and_the_next_attempt() {
    in_a_world(|| {
        let server = server(1, Manner::Says("450 4.2.0 later"));
        let sender = sender(options([host(A)]));
        let recovery = spawn("recovery", move || {
            sleep(SECOND);
            *server.manner.lock() = Manner::Kind;
        });
        let receipt = send(&sender, &SendOptions::new()).unwrap();
        recovery.unwrap().join().unwrap();
        // The RSET that is owed leaves with the next MAIL, and DATA after the answers to both.
        assert_eq!(
            lines(receipt.trace()),
            [
                line(50, Some(50), A25, "connected without TLS as connection #1"),
                line(70, None, A25, "RCPT #1 → 450 4.2.0"),
                line(2070, Some(2000), "", "paused before attempt 2"),
                line(2070, None, A25, "reused connection #1 (idle 2.0 s, 0 sent)"),
                line(2130, Some(60), A25, "accepted: 250 2.0.0"),
            ]
        );
        assert_eq!(receipt.attempts(), 2);
    });
}

#[test]
fn a_stale_connection_is_replaced_within_the_attempt() {
    in_a_world(|| {
        let server = server(1, Manner::Kind);
        let sender = sender(options([host(A)]));
        send(&sender, &SendOptions::new()).unwrap();
        *server.manner.lock() = Manner::Says("421 4.3.2 going");
        let recovery = spawn("recovery", move || {
            sleep(MILLI * 15);
            *server.manner.lock() = Manner::Kind;
        });
        let receipt = send(&sender, &SendOptions::new()).unwrap();
        recovery.unwrap().join().unwrap();
        assert_eq!(
            lines(receipt.trace()),
            [
                line(0, None, A25, "reused connection #1 (idle 0 ms, 1 sent)"),
                line(20, Some(20), A25, "RCPT #1 → 421 4.3.2"),
                line(20, None, A25, "replaced connection #1 (server_closed)"),
                line(70, Some(50), A25, "connected without TLS as connection #2"),
                line(110, Some(40), A25, "accepted: 250 2.0.0"),
            ]
        );
        assert_eq!(receipt.attempts(), 1);
    });
}

#[test]
fn a_host_that_refuses_for_now_is_left_for_another_at_once() {
    in_a_world(|| {
        server(1, Manner::Says("452 4.3.1 full"));
        server(2, Manner::Kind);
        let sender = sender(options([host(A), host(B)]));
        let receipt = send(&sender, &SendOptions::new()).unwrap();
        assert_eq!(
            lines(receipt.trace()),
            [
                line(50, Some(50), A25, "connected without TLS as connection #1"),
                line(70, None, A25, "RCPT #1 → 452 4.3.1"),
                line(70, None, "", "attempt 2 at once, on another host"),
                line(120, Some(50), B25, "connected without TLS as connection #2"),
                line(160, Some(40), B25, "accepted: 250 2.0.0"),
            ]
        );
    });
}

#[test]
fn a_host_on_probation_is_passed_over() {
    in_a_world(|| {
        let first = server(1, Manner::Refusing);
        server(2, Manner::Kind);
        let sender = sender(PoolOptions { max_size: 2, ..options([host(A), host(B).priority(1)]) });
        send(&sender, &SendOptions::new()).unwrap();
        sleep(SECOND * 31);
        *first.manner.lock() = Manner::Lost;
        let prober = {
            let sender = sender.clone();
            spawn("prober", move || send(&sender, &SendOptions::new()).unwrap()).unwrap()
        };
        sleep(MILLI * 100);
        let receipt = send(&sender, &SendOptions::new()).unwrap();
        assert_eq!(
            lines(receipt.trace()),
            [
                line(0, None, A25, "passed over, another caller tries it"),
                line(0, None, B25, "reused connection #2 (idle 31.1 s, 1 sent)"),
                line(40, Some(40), B25, "accepted: 250 2.0.0"),
            ]
        );
        // 31.1 s and 40 ms, and the rest of the 7.5 s less 100 ms and 40 ms.
        assert_eq!(
            lines(prober.join().unwrap().trace()),
            [
                line(7500, Some(7500), A25, "no connection: timed out in connecting"),
                line(7500, None, B25, "reused connection #2 (idle 7.3 s, 2 sent)"),
                line(7540, Some(40), B25, "accepted: 250 2.0.0"),
            ]
        );
    });
}

/// What ends a call in its dialogue, and the last two lines of its trace.
#[test]
fn a_deadline_a_cancellation_and_the_commit_gate_are_told_where_they_struck() {
    // A whole second to the deadline: a tenth of it must be left for the answer to the last byte.
    let by = |deadline: Duration| move || SendOptions::new().deadline(crate::clock::now() + deadline);
    let cancelled = || {
        let token = CancelToken::new();
        let options = SendOptions::new().cancel(&token);
        let canceller = spawn("canceller", move || {
            sleep(MILLI * 300);
            token.cancel();
        });
        drop(canceller);
        options
    };
    type Options = Box<dyn Fn() -> SendOptions + Send>;
    let cases: [(Manner, Options, [String; 2]); 5] = [
        (
            Manner::Slow("RCPT", SECOND * 5),
            Box::new(by(SECOND)),
            [
                line(1000, Some(950), A25, "timed out in RCPT #1"),
                line(1000, None, "", "gave up in the envelope: not sent, safe to retry"),
            ],
        ),
        (
            Manner::Slow("RCPT", SECOND * 5),
            Box::new(cancelled),
            [
                line(300, Some(250), A25, "cancelled in RCPT #1"),
                line(300, None, "", "gave up in the envelope: cancelled, not sent"),
            ],
        ),
        (
            Manner::Slow("DATA", MILLI * 860),
            Box::new(by(SECOND)),
            [
                line(930, Some(880), A25, "too little time was left to wait for an answer to the last byte"),
                line(930, None, "", "gave up in the content: not sent, safe to retry"),
            ],
        ),
        (
            Manner::Slow(".", SECOND * 5),
            Box::new(by(SECOND)),
            [
                line(1000, Some(950), A25, "timed out in the answer to the last byte"),
                line(1000, None, "", "gave up after the last byte: may have been delivered, do not blindly resend"),
            ],
        ),
        (
            Manner::Slow(".", SECOND * 5),
            Box::new(cancelled),
            [
                line(300, Some(250), A25, "cancelled in the answer to the last byte"),
                line(300, None, "", "gave up after the last byte: may have been delivered, do not blindly resend"),
            ],
        ),
    ];
    for (manner, options_of, end) in cases {
        in_a_world(move || {
            server(1, manner);
            let sender = sender(options([host(A)]));
            let error = send(&sender, &options_of()).unwrap_err();
            let connected = line(50, Some(50), A25, "connected without TLS as connection #1");
            let [last, gave_up] = end;
            assert_eq!(lines(error.trace()), [connected, last, gave_up]);
        });
    }
}
