//! Every option that cannot be used is named by `build()`, with its value and the rule it breaks. Nothing panics, nothing is clamped,
//! nothing is connected to.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

mod common;

use std::time::Duration;

use common::*;
use lettre::transport::smtp::authentication::Mechanism;
use smtp_pool::testing::{CertificateKind, Security, TestServer};
use smtp_pool::{Host, OptionsError, PoolOptions, SmtpSender, SmtpSenderBuilder};

fn good() -> SmtpSenderBuilder {
    SmtpSender::builder().host(Host::starttls("mail.example.com"))
}

fn error_of(builder: SmtpSenderBuilder) -> OptionsError {
    match builder.build() {
        Err(error) => error,
        Ok(sender) => panic!("taken: {sender:?}"),
    }
}

/// The error names the option and the value, states a rule, and says all of it.
fn names(builder: SmtpSenderBuilder, option: &str, value: &str) {
    let error = error_of(builder);
    assert_eq!(error.option(), option, "{error}");
    assert!(error.value().contains(value), "{value:?} is not in {:?}", error.value());
    assert!(!error.rule().is_empty());
    let text = error.to_string();
    for part in [error.option(), error.value(), error.rule()] {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
    assert!(!text.chars().any(char::is_control), "{}", text.escape_debug());
}

fn host(host: Host) -> SmtpSenderBuilder {
    SmtpSender::builder().host(host)
}

#[test]
fn the_defaults_are_those_of_the_manual() {
    let PoolOptions {
        max_size,
        interactive_reserve,
        min_idle,
        refill_delay,
        acquire_timeout,
        connect_timeout,
        auth_timeout,
        send_timeout,
        final_reply_timeout,
        idle_timeout,
        max_lifetime,
        max_messages_per_connection,
        learn_limits,
        keepalive_interval,
        reconnect_cooldown,
        max_reconnect_cooldown,
        jitter,
        max_retries,
        retry_base_delay,
        ..
    } = PoolOptions::default();
    let seconds = Duration::from_secs;
    assert_eq!((max_size, min_idle, refill_delay), (8, 0, Duration::ZERO));
    assert_eq!((acquire_timeout, connect_timeout, auth_timeout), (seconds(15), seconds(10), seconds(15)));
    assert_eq!((send_timeout, final_reply_timeout), (seconds(30), seconds(300)));
    assert_eq!((idle_timeout, max_lifetime), (Some(seconds(120)), Some(seconds(1200))));
    assert_eq!((max_messages_per_connection, keepalive_interval), (None, Some(seconds(60))));
    assert_eq!((reconnect_cooldown, max_reconnect_cooldown), (seconds(30), seconds(300)));
    assert_eq!((max_retries, retry_base_delay), (1, seconds(2)));
    assert!((jitter - 0.2).abs() < f64::EPSILON);
    assert!((interactive_reserve - 0.25).abs() < f64::EPSILON && learn_limits);
    assert!(good().build().is_ok());
}

type Setter = fn(SmtpSenderBuilder, Duration) -> SmtpSenderBuilder;

const DURATIONS: [(&str, Setter); 11] = [
    ("acquire_timeout", SmtpSenderBuilder::acquire_timeout),
    ("connect_timeout", SmtpSenderBuilder::connect_timeout),
    ("auth_timeout", SmtpSenderBuilder::auth_timeout),
    ("send_timeout", SmtpSenderBuilder::send_timeout),
    ("final_reply_timeout", SmtpSenderBuilder::final_reply_timeout),
    ("idle_timeout", SmtpSenderBuilder::idle_timeout),
    ("max_lifetime", SmtpSenderBuilder::max_lifetime),
    ("keepalive_interval", SmtpSenderBuilder::keepalive_interval),
    ("reconnect_cooldown", SmtpSenderBuilder::reconnect_cooldown),
    ("max_reconnect_cooldown", SmtpSenderBuilder::max_reconnect_cooldown),
    ("retry_base_delay", SmtpSenderBuilder::retry_base_delay),
];

#[test]
fn no_duration_is_zero() {
    for (option, set) in DURATIONS {
        names(set(good(), Duration::ZERO), option, "0");
    }
    // But there may be no pause before a refill.
    assert!(good().refill_delay(Duration::ZERO).build().is_ok());
}

#[test]
fn no_duration_overflows() {
    let refill_delay: Setter = SmtpSenderBuilder::refill_delay;
    for (option, set) in DURATIONS.into_iter().chain([("refill_delay", refill_delay)]) {
        for endless in [
            Duration::MAX,
            Duration::from_secs(u64::MAX),
            Duration::from_secs(u64::MAX / 2),
            Duration::from_secs(1 << 40),
        ] {
            let builder = set(good(), endless);
            // A first cooldown above the longest one is another rule.
            let builder = if option == "reconnect_cooldown" { builder.max_reconnect_cooldown(ms(1)) } else { builder };
            assert_eq!(error_of(builder).option(), option);
        }
    }
}

#[test]
fn the_smallest_durations_are_taken() {
    let tiny = Duration::from_nanos(1);
    for (option, set) in DURATIONS {
        let builder = set(good().reconnect_cooldown(tiny), tiny);
        assert!(builder.clone().build().is_ok(), "{option}: {}", error_of(builder));
    }
}

#[test]
fn optional_durations_can_be_switched_off() {
    assert!(
        good()
            .idle_timeout(None)
            .max_lifetime(None)
            .keepalive_interval(None)
            .max_messages_per_connection(None)
            .build()
            .is_ok()
    );
}

#[test]
fn sizes() {
    names(good().max_size(0), "max_size", "0");
    names(good().max_size(3).min_idle(4), "min_idle", "4");
    names(good().min_idle(usize::MAX), "min_idle", &usize::MAX.to_string());
    assert!(good().max_size(3).min_idle(3).build().is_ok());
    assert!(good().max_size(usize::MAX).build().is_ok(), "large is not wrong");
    for bad in [-0.1, 1.0, 1.5, f64::NAN, f64::INFINITY] {
        names(good().interactive_reserve(bad), "interactive_reserve", &bad.to_string());
    }
    assert!(good().interactive_reserve(0.0).build().is_ok() && good().interactive_reserve(0.999).build().is_ok());
    names(good().max_messages_per_connection(0), "max_messages_per_connection", "0");
    assert!(good().max_messages_per_connection(1).build().is_ok());
    assert!(good().max_retries(u32::MAX).build().is_ok());
    assert!(good().max_retries(0).build().is_ok());
}

#[test]
fn the_longest_cooldown_is_no_shorter_than_the_first() {
    names(
        good().reconnect_cooldown(Duration::from_secs(10)).max_reconnect_cooldown(Duration::from_secs(5)),
        "reconnect_cooldown",
        "10",
    );
}

#[test]
fn jitter_is_a_ratio() {
    for wrong in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 2.0, 1.000_001, -1.0, -0.000_001] {
        names(good().jitter(wrong), "jitter", &wrong.to_string());
    }
    for right in [0.0, 0.2, 1.0] {
        assert!(good().jitter(right).build().is_ok(), "{right}");
    }
}

#[test]
fn hosts() {
    names(SmtpSender::builder(), "hosts", "empty");
    for (one, other) in [
        (Host::starttls("a.example"), Host::starttls("a.example")),
        (Host::starttls("a.example"), Host::starttls("A.EXAMPLE").credentials("user", "password")),
        (Host::starttls("a.example").credentials("u", "p"), Host::starttls("a.example").credentials("other", "p")),
        (Host::starttls("a.example"), Host::plain("a.example").port(587)),
        (Host::starttls("a.example"), Host::starttls("a.example.").weight(2)),
    ] {
        let error = error_of(host(one).host(other));
        assert_eq!(error.option(), "hosts[1]", "{error}");
        assert!(error.value().to_ascii_lowercase().contains("a.example"), "{error}");
    }
    assert!(host(Host::starttls("a.example")).host(Host::implicit_tls("a.example")).build().is_ok(), "another port");
    assert!(host(Host::starttls("a.example")).host(Host::starttls("b.example")).build().is_ok());
}

#[test]
fn the_faulty_host_is_told_by_its_place() {
    let builder = host(Host::starttls("a.example")).host(Host::starttls("b.example").weight(0));
    names(builder, "hosts[1].weight", "0");
}

#[test]
fn each_setting_of_a_host() {
    let base = || Host::starttls("a.example");
    names(host(base().weight(0)), "hosts[0].weight", "0");
    names(host(base().max_connections(0)), "hosts[0].max_connections", "0");
    names(host(base().port(0)), "hosts[0].port", "0");
    names(host(base().credentials("u", "p").auth_mechanisms([])), "hosts[0].auth_mechanisms", "empty");
    assert!(host(base().auth_mechanisms([Mechanism::Xoauth2]).credentials("u", "p")).build().is_ok());
    for name in ["", " ", "a b", "a\r\nb", "a\0b", "a\tb", "a\u{7f}", "ä.example", "a\u{202e}b", &"x".repeat(300)] {
        assert_eq!(error_of(host(Host::starttls(name))).option(), "hosts[0].name", "{name:?}");
    }
    for name in ["localhost", "a.example.", "127.0.0.1", "::1", "under_score.example"] {
        assert!(host(Host::starttls(name)).build().is_ok(), "{name:?}");
    }
}

#[test]
fn a_hello_name_is_a_domain_or_an_address_literal() {
    for name in [
        "a\r\nMAIL FROM:<e>",
        "a\nb",
        "a\rb",
        "a\0b",
        "a b",
        "a\tb",
        "",
        ".",
        "a..b",
        ".a",
        "-a.example",
        "a-.example",
        "a>b",
        "<a>",
        "[",
        "[]",
        "[.]",
        "[300.0.0.1]",
        "[::1]",
        "[IPv6:]",
        "[IPv6:::1",
        "[127.0.0.1",
        "[127.0.0.1]\r\nRSET",
        "[IPv6:::1] x",
        "ä.example",
        // Cut to a byte they are CR and LF.
        "a\u{560d}\u{560a}b",
        "a\u{10d}\u{10a}b",
        &"x".repeat(64),
        &format!("{}.example", "x.".repeat(130)),
    ] {
        let error = error_of(host(Host::starttls("a.example").hello_name(name)));
        assert_eq!(error.option(), "hosts[0].hello_name", "{name:?}");
        assert!(!error.to_string().contains(char::is_control), "{:?}", error.to_string());
    }
    for name in ["me.example.com", "localhost", "[127.0.0.1]", "[IPv6:::1]", "[IPv6:2001:db8::1]", "my-host_1.example"]
    {
        let server = TestServer::start();
        let sender = sender(plain(&server).hello_name(name)).build().unwrap();
        send(&sender, "hello@options").unwrap();
        assert_eq!(server.transcript(1).commands()[0], format!("EHLO {name}"));
    }
}

#[test]
fn certificates_are_read_by_build() {
    let server = TestServer::builder().security(Security::StartTls).certificate(CertificateKind::Valid).start();
    let pem = server.root_certificate_pem();
    for wrong in
        ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &pem[..pem.len() / 2]]
    {
        let error = error_of(host(Host::starttls("a.example").root_certificate(wrong)));
        assert_eq!(error.option(), "hosts[0].root_certificate", "{wrong:?}");
    }
    let error =
        error_of(host(Host::starttls("a.example").root_certificate(pem.clone()).root_certificate("second is wrong")));
    assert_eq!(error.option(), "hosts[0].root_certificate");
    assert!(host(Host::starttls("a.example").root_certificate(pem.clone())).build().is_ok());
    for (certificates, key) in [(&*pem, "no key"), ("no certificate", "no key"), ("", "")] {
        let error = error_of(host(Host::starttls("a.example").client_identity(certificates, key)));
        assert_eq!(error.option(), "hosts[0].client_identity");
    }
}

#[test]
fn build_does_no_io() {
    // Neither a name that resolves nor anybody who listens is needed.
    let start = now();
    let sender = SmtpSender::builder().host(Host::starttls("no-such-host.invalid")).min_idle(2).build().unwrap();
    assert!(now() - start < ms(500));
    assert_eq!(sender.status().created, 0);
    let server = TestServer::start();
    let sender = common::sender(plain(&server)).build().unwrap();
    let status = sender.status();
    assert_eq!((status.counts.total, status.created), (0, 0));
    drop(sender);
    assert_eq!(server.connections_accepted(), 0);
}

#[test]
fn options_and_builder_say_the_same() {
    let mut options = PoolOptions::default();
    options.hosts.push(Host::starttls("a.example").weight(0));
    assert_eq!(SmtpSender::from_options(options).unwrap_err().option(), "hosts[0].weight");
    let mut options = PoolOptions::default();
    options.hosts.push(Host::starttls("a.example"));
    options.max_size = 0;
    assert_eq!(SmtpSender::from_options(options).unwrap_err().option(), "max_size");
}

#[test]
fn good_urls() {
    let urls = [
        ("smtp://a.example", Host::starttls("a.example")),
        ("smtp://a.example?tls=required", Host::starttls("a.example")),
        ("smtps://a.example", Host::implicit_tls("a.example")),
        ("smtp://a.example:2525", Host::starttls("a.example").port(2525)),
        ("smtp://user:pass@a.example", Host::starttls("a.example").credentials("user", "pass")),
        ("smtp://us%40er:p%2Fa%3As%3F%23@a.example", Host::starttls("a.example").credentials("us@er", "p/a:s?#")),
        ("smtp://a.example?tls=required&priority=10&weight=3", Host::starttls("a.example").priority(10).weight(3)),
        ("smtp://[::1]:25?tls=none", Host::plain("::1")),
        ("smtps://127.0.0.1:465/", Host::implicit_tls("127.0.0.1")),
    ];
    for (url, expected) in urls {
        assert_eq!(url.parse::<Host>().unwrap(), expected, "{url}");
        assert!(host(url.parse().unwrap()).build().is_ok(), "{url}");
    }
    // The test server's own.
    for security in [Security::StartTls, Security::ImplicitTls] {
        let server = TestServer::builder().security(security).start();
        let host: Host = server.url().parse().unwrap();
        let sender = sender(host.root_certificate(server.root_certificate_pem())).build().unwrap();
        send(&sender, "url@options").unwrap();
        assert!(server.messages()[0].was_encrypted());
    }
}

#[test]
fn bad_urls() {
    for url in [
        "",
        "a.example",
        "http://a.example",
        "smtp:",
        "smtp://",
        "smtp://:25",
        "smtp://a.example:0x19",
        "smtp://a.example:65536",
        "smtp://a.example/inbox",
        "smtp://a.example#x",
        "smtp://user@a.example",
        "smtp://:pass@a.example",
        "smtp://a.example?tls=",
        "smtp://a.example?tls=maybe",
        "smtps://a.example?tls=none",
        "smtps://a.example?tls=opportunistic",
        "smtp://a.example?priority=-1",
        "smtp://a.example?priority=4294967296",
        "smtp://a.example?weight=x",
        "smtp://a.example?max_connections=1.5",
        "smtp://a.example?colour=red",
        "smtp://a.example?auth=",
        "smtp://a.example?auth=plain,unknown",
        "smtp://a.example?dangerous_plaintext_auth=yes",
        "smtp://us%ffer:pass@a.example",
    ] {
        let error = url.parse::<Host>().map(|host| format!("{host:?}")).unwrap_err();
        assert!(error.option().starts_with("url"), "{url}: {error}");
        assert!(!error.rule().is_empty());
    }
    // What a URL may say and build() may not take.
    for (url, option) in [
        ("smtp://a.example?weight=0", "hosts[0].weight"),
        ("smtp://a.example:0", "hosts[0].port"),
        ("smtp://a.example?max_connections=0", "hosts[0].max_connections"),
        ("smtp://a.example?hello_name=a%0d%0aMAIL", "hosts[0].hello_name"),
        ("smtp://u:p%00@a.example", "hosts[0].credentials"),
    ] {
        assert_eq!(error_of(host(url.parse().unwrap())).option(), option, "{url}");
    }
}
