//! What the tests of the promises share.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    missing_docs,
    reason = "each test file uses its own part of these helpers"
)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use lettre::address::Envelope;
use smtp_pool::testing::{CertificateKind, Event, Security, TestServer, TestServerBuilder, Transcript};
use smtp_pool::{FailureKind, Host, Receipt, SendError, SendOptions, SmtpSender, SmtpSenderBuilder};

/// Longer than anything here takes, so that a test that hangs says so.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Every kind of failure.
pub const KINDS: [FailureKind; 9] = [
    FailureKind::PoolExhausted,
    FailureKind::HostUnavailable,
    FailureKind::RetryableBeforeSend,
    FailureKind::RetryableTemporaryFailure,
    FailureKind::PermanentFailure,
    FailureKind::UnknownAfterData,
    FailureKind::ConnectionCorrupted,
    FailureKind::Cancelled,
    FailureKind::Shutdown,
];

/// What a machine with two busy cores may add to a deadline.
pub const SLACK: Duration = Duration::from_millis(100);

#[expect(clippy::disallowed_methods, reason = "tests measure the time that passes")]
pub fn now() -> Instant {
    Instant::now()
}

/// Lets time pass: the pace of a load. Nothing is ever synchronised by it.
#[expect(clippy::disallowed_methods, reason = "a load that does not pause measures nothing but the processor")]
pub fn pace(pause: Duration) {
    thread::sleep(pause);
}

/// Waits until `condition` holds; fails when it does not for too long.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = now();
    while !condition() {
        assert!(now() - start < PATIENCE, "waited in vain: {what}");
        thread::yield_now();
    }
}

/// For checks of the time that something took: a machine that is busy with other things may be late once or twice, a bound that is
/// not kept is late every time.
pub fn thrice(check: impl Fn()) {
    for _ in 0..2 {
        if catch_unwind(AssertUnwindSafe(&check)).is_ok() {
            return;
        }
    }
    check();
}

/// A number that whoever runs a long test chooses.
pub fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

pub const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The server as a plain host.
pub fn plain(server: &TestServer) -> Host {
    Host::plain("127.0.0.1").port(server.port())
}

/// The server as a host with STARTTLS, its certificate trusted.
pub fn starttls(server: &TestServer) -> Host {
    Host::starttls("127.0.0.1").port(server.port()).root_certificate(server.root_certificate_pem())
}

/// The server as a host with implicit TLS, its certificate trusted.
pub fn implicit_tls(server: &TestServer) -> Host {
    Host::implicit_tls("127.0.0.1").port(server.port()).root_certificate(server.root_certificate_pem())
}

pub fn tls_server(security: Security) -> TestServerBuilder {
    TestServer::builder().security(security).certificate(CertificateKind::Valid)
}

/// A sender that tries once and whose hosts cool down for a moment only, so that a test sees each failure as it is.
pub fn sender(host: Host) -> SmtpSenderBuilder {
    SmtpSender::builder()
        .host(host)
        .max_retries(0)
        .jitter(0.0)
        .reconnect_cooldown(ms(10))
        .max_reconnect_cooldown(ms(20))
        .acquire_timeout(PATIENCE)
        .connect_timeout(PATIENCE)
        .auth_timeout(PATIENCE)
        .send_timeout(PATIENCE)
        .final_reply_timeout(PATIENCE)
}

/// Whether nobody waits, and nothing is lent or being opened.
pub fn is_at_rest(sender: &SmtpSender) -> bool {
    let counts = sender.status().counts;
    counts.leased + counts.connecting + counts.waiting == 0 && counts.total == counts.idle
}

/// Set when it goes out of scope, by a panic too, so that threads that run until then do not run for ever.
#[derive(Default)]
pub struct Flag(std::sync::Arc<std::sync::atomic::AtomicBool>);

impl Flag {
    pub fn reader(&self) -> impl Fn() -> bool + Send + Clone + use<> {
        let flag = std::sync::Arc::clone(&self.0);
        move || flag.load(std::sync::atomic::Ordering::SeqCst)
    }
}

impl Drop for Flag {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

/// Runs the body of the test `name` in a process that finds no system certificates: OpenSSL takes a tenth of a second to read them,
/// for each sender anew, and tests with thousands of senders trust their own servers only.
pub fn without_system_roots(name: &str, body: impl FnOnce()) {
    const MARK: &str = "SMTP_POOL_TEST_WITHOUT_SYSTEM_ROOTS";
    if std::env::var_os(MARK).is_some() {
        return body();
    }
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", name, "--include-ignored", "--nocapture"]);
    again.env(MARK, "1").env("SSL_CERT_FILE", "/dev/null").env("SSL_CERT_DIR", "/dev/null");
    let output = again.output().unwrap();
    println!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{name}:\n{}", String::from_utf8_lossy(&output.stderr));
    let has_run = output.stdout.windows(17).any(|part| part == b"ok. 1 passed; 0 f");
    assert!(has_run, "{name} is no test of this file");
}

/// Longer than any test: a host that fails stays out.
pub const HOUR: Duration = Duration::from_secs(3600);

pub const FROM: &str = "sender@example.com";

/// An envelope to `recipients` addresses: `to1@example.net`, …
pub fn envelope(recipients: usize) -> Envelope {
    let to = (1..=recipients).map(|number| format!("to{number}@example.net").parse().unwrap());
    Envelope::new(Some(FROM.parse().unwrap()), to.collect()).unwrap()
}

/// A small message with this Message-ID.
pub fn content(id: &str) -> Vec<u8> {
    format!("Message-ID: <{id}>\r\nSubject: test\r\n\r\nBody of {id}.\r\n").into_bytes()
}

/// A message of about `size` bytes with this Message-ID.
pub fn big_content(id: &str, size: usize) -> Vec<u8> {
    let mut content = content(id);
    while content.len() < size {
        content.extend_from_slice(b"0123456789012345678901234567890123456789012345678901234567890123456789012345\r\n");
    }
    content
}

pub fn send(sender: &SmtpSender, id: &str) -> Result<Receipt, SendError> {
    sender.send_raw(&envelope(1), &content(id))
}

pub fn send_to(sender: &SmtpSender, id: &str, recipients: usize, options: &SendOptions) -> Result<Receipt, SendError> {
    sender.send_with(&envelope(recipients), &content(id), options)
}

/// Everything an error says, its causes included.
pub fn whole_text(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = format!("{error} | {error:?} | {error:#?}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(" | {error} | {error:?} | {error:#?}"));
        cause = error.source();
    }
    text
}

/// What the client sent, one item for each read of the server.
pub fn client_writes(transcript: &Transcript) -> Vec<Vec<u8>> {
    let bytes = transcript.events().iter().filter_map(|event| match event {
        Event::Client { bytes, .. } => Some(bytes.clone()),
        _ => None,
    });
    bytes.collect()
}

pub fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// Whether the client ever said this verb on the `connection`th connection.
pub fn said(server: &TestServer, connection: usize, verb: &str) -> bool {
    server.transcript(connection).commands().iter().any(|line| line.to_ascii_uppercase().starts_with(verb))
}
