//! No secret leaves but in the AUTH exchange: not in logs at any level, not in `Debug`, not in errors.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

mod common;

use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, OnceLock, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use common::*;
use lettre::transport::smtp::authentication::Mechanism;
use log::{LevelFilter, Log, Metadata, Record};
use smtp_pool::testing::{Action, Script, Security, Stage, TestServer};
use smtp_pool::{
    Credentials, FailureKind, Host, HostState, PoolOptions, RecipientPolicy, SendOptions, SmtpSender, Trace,
};

/// Every record of this process, at every level.
struct Capture(Mutex<Vec<String>>);

impl Log for Capture {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &Record<'_>) {
        let text = format!("{} {} {}", record.level(), record.target(), record.args());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }
    fn flush(&self) {}
}

fn capture() -> &'static Capture {
    static CAPTURE: OnceLock<Capture> = OnceLock::new();
    CAPTURE.get_or_init(|| {
        static LOGGER: Forward = Forward;
        log::set_logger(&LOGGER).unwrap();
        log::set_max_level(LevelFilter::Trace);
        Capture(Mutex::new(Vec::new()))
    })
}

struct Forward;

impl Log for Forward {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &Record<'_>) {
        capture().log(record);
    }
    fn flush(&self) {}
}

fn records() -> String {
    capture().0.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
}

/// Distinct for each test, so that the tests of this file do not find each other's.
struct Canary {
    user: String,
    password: String,
}

impl Canary {
    fn new(test: &str) -> Self {
        Self { user: format!("canary-user-of-{test}-Xq7"), password: format!("canary-password-of-{test}-Zw9!") }
    }

    /// Everything that gives one of the secrets away.
    fn forms(&self) -> Vec<Vec<u8>> {
        let Self { user, password } = self;
        let responses = [format!("\0{user}\0{password}"), format!("user={user}\x01auth=Bearer {password}\x01\x01")];
        let mut forms: Vec<Vec<u8>> = responses.iter().map(|response| BASE64.encode(response).into_bytes()).collect();
        for secret in [user, password] {
            forms.push(secret.clone().into_bytes());
            forms.push(secret.encode_utf16().flat_map(u16::to_le_bytes).collect());
            forms.push(secret.encode_utf16().flat_map(u16::to_be_bytes).collect());
            forms.push(secret.bytes().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes());
            forms.push(format!("{:?}", secret.as_bytes()).trim_matches(['[', ']']).to_owned().into_bytes());
            // Whatever stands before it, one of three alignments; the characters at both ends depend on the neighbours.
            for before in 0..3 {
                let encoded = BASE64.encode([vec![b'.'; before], secret.clone().into_bytes(), vec![b'.'; 3]].concat());
                let stable = &encoded[if before == 0 { 0 } else { 4 }..encoded.len() - 8];
                assert!(stable.len() >= 16);
                forms.push(stable.as_bytes().to_vec());
            }
        }
        forms
    }

    fn assert_absent(&self, place: &str, text: &str) {
        for form in self.forms() {
            let is_there = contains(text.as_bytes(), &form);
            assert!(!is_there, "{place} gives {} away:\n{text}", form.escape_ascii());
        }
    }
}

/// Everything a trace says.
fn trace_text(trace: &Trace) -> String {
    let steps: String = trace.steps().map(|step| format!("{step} {step:?} {}\n", step.event())).collect();
    assert!(!steps.is_empty(), "there is something to look at");
    format!("{trace} {trace:?} {trace:#?} {steps}")
}

#[test]
fn the_search_finds_what_it_is_for() {
    let canary = Canary::new("itself");
    for prefix in ["", "a", "ab"] {
        let text = format!("AUTH PLAIN {}", BASE64.encode(format!("{prefix}{}x", canary.password)));
        let found = canary.forms().iter().any(|form| contains(text.as_bytes(), form));
        assert!(found, "{prefix:?}");
    }
}

/// A server and a host that share the canary.
fn pair(canary: &Canary, mechanism: Mechanism, script: Script) -> (TestServer, Host) {
    let name = mechanism.to_string();
    let server = TestServer::builder()
        .security(Security::StartTls)
        .auth_mechanisms(&[&name])
        .credentials(canary.user.clone(), canary.password.clone())
        .script(script)
        .start();
    let host = starttls(&server).credentials(canary.user.clone(), canary.password.clone()).auth_mechanisms([mechanism]);
    (server, host)
}

#[test]
fn not_in_logs_debug_or_errors_of_any_mechanism() {
    capture();
    for mechanism in [Mechanism::Plain, Mechanism::Login, Mechanism::Xoauth2] {
        let canary = Canary::new(&format!("{mechanism}"));
        let faults = [
            Script::new(),
            Script::new().on(Stage::Auth, [Action::reply("535 5.7.8 no\r\n")]),
            Script::new().on(Stage::Auth, [Action::reply("454 4.7.0 later\r\n")]),
            Script::new().on(Stage::Auth, [Action::reply("334 \r\n")]).on(Stage::AuthStep, [Action::reply("334 \r\n")]),
            Script::new().on(Stage::Auth, [Action::reply("nonsense\r\n")]),
            Script::new().on(Stage::Auth, [Action::Reset]),
            Script::new().on(Stage::Auth, [Action::Fin]),
            Script::new().on(Stage::AuthStep, [Action::reply("535 5.7.8 no\r\n")]),
            Script::new().on(Stage::Mail, [Action::reply("530 5.7.0 authenticate\r\n")]),
            Script::new().on(Stage::Ehlo, [Action::reply("250 localhost\r\n")]),
            Script::new().on(Stage::EndOfData, [Action::Fin]),
        ];
        for script in faults {
            let (server, host) = pair(&canary, mechanism, script);
            canary.assert_absent("Host", &format!("{host:?} {host:#?}"));
            let builder = sender(host.clone());
            canary.assert_absent("SmtpSenderBuilder", &format!("{builder:?} {builder:#?}"));
            let mut options = PoolOptions::default();
            options.hosts.push(host);
            canary.assert_absent("PoolOptions", &format!("{options:?} {options:#?}"));
            let sender = builder.build().unwrap();
            canary.assert_absent("SmtpSender", &format!("{sender:?} {sender:#?}"));
            for _ in 0..2 {
                match send(&sender, "canary@secrets") {
                    Ok(receipt) => {
                        canary.assert_absent("Receipt", &format!("{receipt:?} {receipt:#?}"));
                        canary.assert_absent("Trace", &trace_text(receipt.trace()));
                    }
                    Err(error) => {
                        canary.assert_absent("SendError", &whole_text(&error));
                        canary.assert_absent("Trace", &trace_text(error.trace()));
                    }
                }
            }
            let status = sender.status();
            canary.assert_absent("PoolStatus", &format!("{status:?} {status:#?}"));
            // It did reach the server, or there was nothing to hide.
            drop(server);
        }
        let (server, host) = pair(&canary, mechanism, Script::new());
        send(&sender(host).build().unwrap(), "sent@secrets").unwrap();
        assert_eq!(server.messages()[0].authenticated_as(), Some(&*canary.user));
        canary.assert_absent("the log", &records());
    }
    assert!(records().contains("smtp_pool"), "records were captured");
}

/// What the panics of this process said.
fn panics() -> &'static Mutex<String> {
    static PANICS: OnceLock<Mutex<String>> = OnceLock::new();
    PANICS.get_or_init(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let text = format!("{info}\n");
            panics().lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            before(info);
        }));
        Mutex::new(String::new())
    })
}

/// `unwrap` and `assert_eq` put the `Debug` text of what they hold into the panic's message, and that goes to stderr and to crash
/// reporters.
#[test]
fn not_in_the_message_of_a_panic() {
    panics();
    let canary = Canary::new("panic");
    let (server, host) =
        pair(&canary, Mechanism::Plain, Script::new().on(Stage::Auth, [Action::reply("535 5.7.8 no\r\n")]));
    let sender = sender(host.clone()).build().unwrap();
    let panicked = |what: &dyn Fn()| assert!(panic::catch_unwind(panic::AssertUnwindSafe(what)).is_err());
    panicked(&|| drop(send(&sender, "panic@secrets").unwrap()));
    panicked(&|| drop(sender.lease().unwrap()));
    panicked(&|| assert_eq!(host, host.clone().weight(7)));
    panicked(&|| drop(SmtpSender::builder().host(host.clone().weight(0)).build().unwrap()));
    let url = format!("smtp://{}:{}@example.com?weight=x", canary.user, canary.password);
    panicked(&|| drop(url.parse::<Host>().unwrap()));
    drop(server);
    let said = panics().lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert!(said.matches("panicked at").count() >= 5, "{said}");
    canary.assert_absent("a panic", &said);
}

/// Everything else that can be shown and has met the secret.
#[test]
fn not_in_a_report_a_lease_or_a_manager() {
    capture();
    for script in [Script::new(), Script::new().on(Stage::Auth, [Action::reply("535 5.7.8 no\r\n")])] {
        let canary = Canary::new("doors");
        let (_server, host) = pair(&canary, Mechanism::Plain, script);
        let sender = sender(host.clone()).build().unwrap();
        for report in sender.verify() {
            canary.assert_absent("HostReport", &format!("{report:?} {report:#?}"));
        }
        match sender.lease() {
            Ok(lease) => canary.assert_absent("Lease", &format!("{lease:?} {lease:#?}")),
            Err(error) => canary.assert_absent("SendError", &whole_text(&error)),
        }
        #[cfg(feature = "r2d2")]
        {
            use r2d2::ManageConnection as _;

            let manager = smtp_pool::SmtpConnectionManager::new(host).unwrap();
            canary.assert_absent("SmtpConnectionManager", &format!("{manager:?} {manager:#?}"));
            match manager.connect() {
                Ok(connection) => canary.assert_absent("SmtpConnection", &format!("{connection:?} {connection:#?}")),
                Err(error) => canary.assert_absent("its error", &whole_text(&error)),
            }
        }
        canary.assert_absent("the log", &records());
    }
}

#[test]
fn not_in_an_options_error() {
    let canary = Canary::new("options");
    let Canary { user, password } = &canary;
    let urls = [
        format!("http://{user}:{password}@example.com"),
        format!("smtp://{user}:{password}@"),
        format!("smtp://{user}:{password}@example.com:99999"),
        format!("smtp://{user}:{password}@example.com/path"),
        format!("smtp://{user}:{password}@example.com?tls=maybe"),
        format!("smtp://{user}:{password}@example.com?unknown=1"),
        format!("smtp://{user}:{password}@exa mple.com"),
        format!("smtp://{user}:{password}%ff@example.com"),
        format!("smtp://{user}%ff:{password}@example.com"),
        format!("smtp://:{password}@example.com"),
        format!("smtp://{password}@example.com"),
        format!("smtp://{user}:{password}@example.com#fragment"),
        // A forgotten escape turns a part of the password into a host, a port, a path, a query or a fragment.
        format!("smtp://{user}:/{password}@example.com"),
        format!("smtp://{user}:?{password}@example.com"),
        format!("smtp://{user}:#{password}@example.com"),
        format!("smtp://{user}:1?{password}=1@example.com"),
        format!("smtp://{user}:1/{password}@example.com"),
        format!("{user}:{password}@example.com"),
    ];
    for url in urls {
        let Err(error) = url.parse::<Host>() else { panic!("{url} was taken") };
        canary.assert_absent(&url, &whole_text(&error));
    }
    let bad = [
        Host::plain("a.example").credentials(format!("{user}\0"), password.clone()),
        Host::plain("a.example").credentials(user.clone(), format!("{password}\0")),
        Host::plain("a.example").credentials(user.clone(), format!("{password}\x01")),
        Host::plain("a.example").credentials(user.clone(), password.clone()).auth_mechanisms([]),
        Host::plain("a.example").credentials(user.clone(), password.clone()).weight(0),
        Host::starttls("a.example").client_identity(user.clone(), password.clone()),
    ];
    for host in bad {
        let error = SmtpSender::builder().host(host).build().unwrap_err();
        canary.assert_absent("OptionsError", &whole_text(&error));
        assert!(!error.value().contains("canary"));
    }
}

#[test]
fn neither_what_a_supplier_gives_nor_what_it_fails_with_is_shown() {
    capture();
    let canary = Canary::new("supplier");
    let faults = [
        Script::new(),
        Script::new().once(Stage::Auth, [Action::reply("535 5.7.8 expired\r\n")]),
        Script::new().on(Stage::Auth, [Action::reply("535 5.7.8 no\r\n")]),
        Script::new().on(Stage::Auth, [Action::reply("334 \r\n")]).on(Stage::AuthStep, [Action::reply("534 no\r\n")]),
        Script::new().on(Stage::Auth, [Action::Reset]),
    ];
    for script in faults {
        let (_server, host) = pair(&canary, Mechanism::Xoauth2, script);
        let Canary { user, password } = &canary;
        let (user, password) = (user.clone(), password.clone());
        let calls = AtomicUsize::new(0);
        let host = host.credentials_with(move || match calls.fetch_add(1, SeqCst) % 3 {
            0 => Ok(Credentials::new(user.clone(), password.clone())),
            1 => Err(format!("the issuer says {user}:{password}").into()),
            _ => Ok(Credentials::new(user.clone(), format!("{password}\0"))),
        });
        canary.assert_absent("Host", &format!("{host:?} {host:#?} {}", serde_json::to_string(&host).unwrap()));
        let sender = sender(host).max_messages_per_connection(1).max_size(2).build().unwrap();
        for number in 0..6 {
            if let Err(error) = send(&sender, &format!("{number}@supplier")) {
                // Not its causes, one of which is the program's own.
                canary.assert_absent("SendError", &format!("{error} {error:?} {error:#?}"));
            }
            eventually("the pause is over", || matches!(sender.status().hosts[0].state, HostState::Available));
        }
        canary.assert_absent("SmtpSender", &format!("{sender:?} {sender:#?} {:?}", sender.status()));
        let rotated = sender.rotate_credentials("127.0.0.1", Credentials::new(&*canary.user, &*canary.password));
        canary.assert_absent("OptionsError", &whole_text(&rotated.unwrap_err()));
    }
    let credentials = Credentials::new(&*canary.user, &*canary.password);
    canary.assert_absent("Credentials", &format!("{credentials:?} {credentials:#?}"));
    canary.assert_absent("the log", &records());
}

#[test]
fn a_reply_that_echoes_our_line_is_the_servers_own_but_shown_without_controls() {
    // The server's text is told as the server's; our own line is in nothing we say.
    capture();
    let canary = Canary::new("echo");
    let line = BASE64.encode(format!("\0{}\0{}", canary.user, canary.password));
    let reply = format!("535-5.7.8 \x1b[31mwrong\x07 \u{202e}\u{9b}\r\n535 5.7.8 {line}\r\n");
    let (_server, host) = pair(&canary, Mechanism::Plain, Script::new().on(Stage::Auth, [Action::reply(reply)]));
    let sender = sender(host).build().unwrap();
    let error = send(&sender, "echo@secrets").unwrap_err();
    assert_eq!(error.kind(), FailureKind::PermanentFailure);
    let text = whole_text(&error).replace("    ", "").replace('\n', "");
    assert!(!text.chars().any(|c| c.is_control() || is_bidi_control(c)), "{}", text.escape_debug());
    assert!(text.contains("535 5.7.8 ?[31mwrong?"), "{text}");
    canary.assert_absent("the log", &records());
    // The raw bytes are there for who asks for them.
    assert!(error.response().unwrap().lines().any(|bytes| bytes.contains(&0x1b)));
    let status = format!("{:?}", sender.status());
    canary.assert_absent("PoolStatus", &status);
}

/// Unicode's `Bidi_Control`.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[test]
fn control_codes_of_a_reply_are_not_shown() {
    for stage in [Stage::Connect, Stage::Ehlo, Stage::Mail, Stage::Rcpt, Stage::Data, Stage::EndOfData] {
        let reply =
            b"554 5.0.0 \x1b]0;owned\x07 \x00\x08\x7f \xc2\x9b31m \xe2\x80\xae \xe2\x81\xa7 \xd8\x9c \xff end\r\n";
        let server = TestServer::builder().script(Script::new().on(stage, [Action::reply(reply)])).start();
        let sender = sender(plain(&server)).build().unwrap();
        let error = send(&sender, "controls@secrets").unwrap_err();
        let status = sender.status();
        let text = format!("{error} {error:?} {status:?}");
        let is_steering = |c: char| c.is_control() || is_bidi_control(c);
        assert!(!text.contains(is_steering), "{stage:?}: {}", text.escape_debug());
        assert!(!text.contains("\\u{1b}") && !text.contains("\\u{202e}"), "{stage:?}: {text}");
    }
}

#[test]
fn a_long_reply_is_cut_where_it_is_shown() {
    let server = TestServer::builder()
        .script(
            Script::new()
                .on(Stage::Mail, [Action::reply(format!("550-{}\r\n", "x".repeat(1900)).repeat(30) + "550 end\r\n")]),
        )
        .start();
    let error = send(&sender(plain(&server)).build().unwrap(), "long@secrets").unwrap_err();
    assert!(error.to_string().len() < 1000, "{}", error.to_string().len());
    assert_eq!(error.response().unwrap().lines().count(), 31);
}

#[test]
fn no_recipient_sender_or_content_is_logged_or_traced() {
    capture();
    let (mut traces, mut succeeded, mut failed) = (String::new(), 0, 0);
    let server = TestServer::start();
    let sender = sender(plain(&server)).max_retries(1).retry_base_delay(ms(1)).build().unwrap();
    let to: Vec<_> =
        (0..3).map(|number| format!("canary-recipient-{number}@canary.example").parse().unwrap()).collect();
    let envelope = lettre::address::Envelope::new(Some("canary-sender@canary.example".parse().unwrap()), to).unwrap();
    let message = b"Message-ID: <canary-id@secrets>\r\nSubject: canary-subject\r\n\r\ncanary-body\r\n";
    let partial = SendOptions::new().recipients(RecipientPolicy::AcceptPartial);
    let refusal = |text: &str| Action::reply(format!("{text} <canary-recipient-1@canary.example>\r\n"));
    for script in [
        Script::new(),
        Script::new().once(Stage::Rcpt, [refusal("550 5.1.1 no such user")]),
        Script::new().once(Stage::Rcpt, [refusal("450 4.2.0 greylisted")]),
        Script::new().once(Stage::Mail, [refusal("550 5.7.1 blocked")]),
        Script::new().once(Stage::Mail, [refusal("nonsense")]),
        Script::new().once(Stage::EndOfData, [refusal("554 5.7.1 spam from")]),
        Script::new().once(Stage::EndOfData, [refusal("421 4.7.1 bye"), Action::Fin]),
        Script::new().once(Stage::EndOfData, [Action::Reset]),
        Script::new().once(Stage::EndOfData, [Action::reply("250 half <canary-recip"), Action::Fin]),
        Script::new().once(Stage::Rcpt, [Action::Reset]),
        Script::new().once(Stage::Connect, [refusal("554 go away"), Action::Fin]),
    ] {
        server.set_script(script);
        for options in [&SendOptions::new(), &partial] {
            match sender.send_with(&envelope, message, options) {
                Ok(receipt) => {
                    succeeded += 1;
                    traces.push_str(&trace_text(receipt.trace()));
                }
                Err(error) => {
                    failed += 1;
                    traces.push_str(&trace_text(error.trace()));
                }
            }
        }
    }
    assert!(succeeded >= 5 && failed >= 5, "{succeeded} and {failed} traces");
    let strange = lettre::Address::new_dangerous("canary-recipient\r\nRCPT TO:<x", "canary.example");
    let envelope = lettre::address::Envelope::new(None, vec![strange]).unwrap();
    let error = sender.send_raw(&envelope, message).unwrap_err();
    assert!(!error.to_string().contains("canary"), "{error}");
    traces.push_str(&trace_text(error.trace()));
    let log = records();
    for word in [
        "canary-recipient",
        "canary-sender",
        "canary.example",
        "canary-subject",
        "canary-body",
        "canary-id",
        "canary-recip",
    ] {
        assert!(!log.contains(word), "{word} in the log");
        assert!(!traces.contains(word), "{word} in a trace:\n{traces}");
    }
    // Nor any other word of the server's.
    for word in ["greylisted", "blocked", "nonsense", "no such user", "spam", "bye", "go away"] {
        assert!(!traces.contains(word), "{word} in a trace:\n{traces}");
    }
    assert!(traces.contains("RCPT #1 → 550 5.1.1"), "the codes are there: {traces}");
    assert!(log.lines().count() > 20, "there are records to look at");
}
