//! What each failure means for the message, the connection and the host: cases a to k and the pitfalls P1 to P40 of the
//! reliability catalogue, one connection at a time. The rows are typed from the catalogue, not from the code.
//!
//! Each row is judged by the server too: a message reported as not accepted was stored by nobody, one reported as accepted exactly
//! once; afterwards nothing is leased and the next message goes through.
//!
//! Not here, because the fault matrix has them (`fault_matrix/chunking.rs`): case i, P3, P4, P5, P6, P9. Not here, because they are
//! about more than one message or need another machine: P13 (a peer behind a DROP rule: the kernel's tests have it), P18 (there is no buffered writer
//! around the socket; nothing to observe), P31 (`reuse.rs`: lifetime), P32 (`reuse.rs`: groups), P40 (a suspended machine).

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use common::*;
use lettre::transport::smtp::authentication::Mechanism;
use smtp_pool::FailureKind::{
    self, ConnectionCorrupted as CC, HostUnavailable as HU, PermanentFailure as PF, RetryableBeforeSend as RB,
    RetryableTemporaryFailure as RT, UnknownAfterData as UD,
};
use smtp_pool::SendStage::{
    self, Authenticated as S2, BeforeConnect as S0, Connected as S1, DataCompleted as S5, DataStarted as S4,
    EnvelopeStarted as S3,
};
use smtp_pool::testing::{Action, Script, Security, Stage, TestServer, TestServerBuilder};
use smtp_pool::{
    AmbiguityBoundary, Host, HostState, RecipientPolicy, RecipientStatus, SendOptions, SmtpSender, SmtpSenderBuilder,
};

/// What becomes of the connection that the fault happened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// K: it stays and owes nothing.
    Keep,
    /// K+R: it stays and owes RSET.
    KeepAndReset,
    /// D: it is closed; QUIT may be said.
    Discard,
    /// X: cut, nothing more is written.
    Abort,
}
use Fate::{Abort, Discard, Keep, KeepAndReset};

#[derive(Clone, Copy, Debug)]
enum Expected {
    /// Accepted, over the connection with the fault or (`true`) over one opened in its place.
    Accepted {
        elsewhere: bool,
    },
    Failed {
        kind: FailureKind,
        stage: SendStage,
        retry: bool,
    },
}

struct Row {
    name: &'static str,
    builder: TestServerBuilder,
    host: fn(&TestServer) -> Host,
    tune: fn(SmtpSenderBuilder) -> SmtpSenderBuilder,
    /// Whether a message has gone over the connection before.
    reused: bool,
    script: Script,
    recipients: usize,
    size: usize,
    policy: RecipientPolicy,
    /// How many transactions an accepted message takes, each with recipients of its own.
    transactions: usize,
    expected: Expected,
    fate: Fate,
    cooled: bool,
}

fn row(name: &'static str, script: Script, expected: Expected, fate: Fate) -> Row {
    Row {
        name,
        builder: TestServer::builder(),
        host: plain,
        tune: |builder| builder,
        reused: false,
        script,
        recipients: 1,
        size: 0,
        policy: RecipientPolicy::AllOrNothing,
        transactions: 1,
        expected,
        fate,
        cooled: false,
    }
}

impl Row {
    fn reused(self) -> Self {
        Self { reused: true, ..self }
    }
    fn cooled(self) -> Self {
        Self { cooled: true, ..self }
    }
    fn server(self, builder: TestServerBuilder) -> Self {
        Self { builder, ..self }
    }
    fn host(self, host: fn(&TestServer) -> Host) -> Self {
        Self { host, ..self }
    }
    fn tune(self, tune: fn(SmtpSenderBuilder) -> SmtpSenderBuilder) -> Self {
        Self { tune, ..self }
    }
    fn impatient(self) -> Self {
        self.tune(|builder| {
            let short = ms(150);
            builder.connect_timeout(short).auth_timeout(short).send_timeout(short).final_reply_timeout(short)
        })
    }
    fn recipients(self, recipients: usize) -> Self {
        Self { recipients, ..self }
    }
    fn partial(self) -> Self {
        Self { policy: RecipientPolicy::AcceptPartial, ..self }
    }
    fn transactions(self, transactions: usize) -> Self {
        Self { transactions, ..self }
    }
    fn size(self, size: usize) -> Self {
        Self { size, ..self }
    }

    fn check(self) {
        let server = self.builder.start();
        let sender = (self.tune)(sender((self.host)(&server))).build().unwrap();
        if self.reused {
            send(&sender, "before@row").unwrap();
        }
        server.set_script(self.script);
        let first = if self.reused { 1 } else { server.connections_accepted() + 1 };

        let options = SendOptions::new().recipients(self.policy);
        let message = if self.size == 0 { content("it@row") } else { big_content("it@row", self.size) };
        let result = sender.send_with(&envelope(self.recipients), &message, &options);

        server.assert_script_used();
        let stored = server.accepted("it@row");
        let failures = sender.status().hosts[0].consecutive_failures;
        match (self.expected, &result) {
            (Expected::Accepted { elsewhere }, Ok(receipt)) => {
                assert_eq!(
                    stored, self.transactions,
                    "an accepted message is stored once, or once for each of its parts"
                );
                if self.transactions > 1 {
                    let messages = server.messages();
                    let parts = messages.iter().filter(|message| message.message_id() == Some("<it@row>"));
                    let told: Vec<String> = parts.flat_map(|part| part.recipients().to_vec()).collect();
                    let all: Vec<String> =
                        (1..=self.recipients).map(|number| format!("to{number}@example.net")).collect();
                    assert_eq!(told, all, "each recipient has it once");
                }
                assert_eq!(receipt.attempts(), 1, "the replacement of a stale connection is no attempt");
                let over = server.messages().iter().find(|m| m.message_id() == Some("<it@row>")).unwrap().connection();
                assert_eq!(over, if elsewhere { first + 1 } else { first }, "connection of the message");
            }
            (Expected::Failed { kind, stage, retry }, Err(error)) => {
                assert_eq!((error.kind(), error.stage(), error.is_retry_safe()), (kind, stage, retry), "{error}");
                assert_eq!(error.attempts(), 1, "{error}");
                let classification = error.classification();
                assert_eq!((classification.kind, classification.stage), (kind, stage));
                assert_eq!(classification.retry_allowed, retry);
                let discarded = !matches!(self.fate, Keep | KeepAndReset);
                assert_eq!(classification.discard_connection, discarded, "{}", classification.reason);
                assert!(stored <= usize::from(kind == UD), "stored {stored} times after {error}");
            }
            (expected, Ok(receipt)) => panic!("accepted ({}), expected {expected:?}", receipt.response()),
            (expected, Err(error)) => panic!("{error}, expected {expected:?}"),
        }
        assert_eq!(failures > 0, self.cooled, "failures counted against the host: {failures}");

        let counts = sender.status().counts;
        assert_eq!((counts.leased, counts.connecting, counts.waiting), (0, 0, 0), "{counts}");
        let accepted_before = server.connections_accepted();
        if accepted_before >= first && !matches!(self.fate, Keep | KeepAndReset) {
            server.connection(first).wait_closed();
        }
        server.set_script(Script::new());
        let next = send(&sender, "next@row").unwrap_or_else(|error| panic!("the next message: {error}"));
        assert!(next.response().is_positive());
        assert_eq!(server.accepted("next@row"), 1);
        let over = server.messages().last().unwrap().connection();
        match self.fate {
            Keep | KeepAndReset => {
                assert_eq!(over, first, "the connection is kept");
                let commands = server.transcript(first).commands().to_vec();
                let resets = commands.iter().filter(|line| *line == "RSET").count();
                assert_eq!(resets, usize::from(self.fate == KeepAndReset), "{commands:?}");
            }
            Discard => assert_ne!(over, first, "the connection is discarded"),
            Abort => {
                assert_ne!(over, first, "the connection is discarded");
                if accepted_before >= first {
                    assert!(!said(&server, first, "QUIT"), "QUIT on a poisoned connection");
                }
            }
        }
        assert_eq!(server.violations(), [""; 0], "what a client must not do");
    }
}

/// Checks all rows and reports every one that is wrong.
fn check(rows: impl IntoIterator<Item = Row>) {
    let mut wrong = Vec::new();
    for row in rows {
        let name = row.name;
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| row.check())) {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
            wrong.push(format!("{name}: {}", text.unwrap_or_default()));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

const OK: Expected = Expected::Accepted { elsewhere: false };
const OK_ELSEWHERE: Expected = Expected::Accepted { elsewhere: true };

/// Retry as the kind has it: safe unless permanent or unknown.
fn failed(kind: FailureKind, stage: SendStage) -> Expected {
    Expected::Failed { kind, stage, retry: !matches!(kind, PF | UD) }
}

fn on(stage: Stage, actions: impl IntoIterator<Item = Action>) -> Script {
    Script::new().once(stage, actions)
}

fn says(stage: Stage, reply: &str) -> Script {
    on(stage, [Action::reply(reply)])
}

const ENDS: [(&str, Action); 2] = [("FIN", Action::Fin), ("RST", Action::Reset)];

fn with_auth() -> TestServerBuilder {
    TestServer::builder().security(Security::StartTls).credentials("user", "secret")
}

fn authenticated(server: &TestServer) -> Host {
    starttls(server).credentials("user", "secret")
}

// ------------------------------------------------------------------------------------------------ cases a to k

#[test]
fn a_after_connecting_and_before_mail_the_host_is_unavailable() {
    for (_, end) in ENDS {
        check([
            row("greeting", on(Stage::Connect, [end.clone()]), failed(HU, S1), Abort).cooled(),
            row("half a greeting", on(Stage::Connect, [Action::reply("220 hal"), end.clone()]), failed(HU, S1), Abort)
                .cooled(),
            row("EHLO", on(Stage::Ehlo, [end.clone()]), failed(HU, S1), Abort).cooled(),
            row("STARTTLS", on(Stage::StartTls, [end.clone()]), failed(HU, S1), Abort)
                .cooled()
                .server(with_auth())
                .host(authenticated),
            row("handshake", on(Stage::TlsHandshake, [end.clone()]), failed(HU, S1), Abort)
                .cooled()
                .server(with_auth())
                .host(authenticated),
            row("AUTH", on(Stage::Auth, [end.clone()]), failed(HU, S1), Abort)
                .cooled()
                .server(with_auth())
                .host(authenticated),
        ]);
    }
}

#[test]
fn a_a_refused_connection_is_no_connection() {
    let server = TestServer::start();
    let sender = sender(plain(&server)).build().unwrap();
    server.stop_accepting();
    let error = send(&sender, "a@refused").unwrap_err();
    assert_eq!((error.kind(), error.stage(), error.is_retry_safe()), (HU, S0, true), "{error}");
    assert!(sender.status().hosts[0].consecutive_failures > 0);
    server.resume_accepting();
    send(&sender, "a@resumed").unwrap();
}

#[test]
fn a_the_next_host_is_tried_in_the_same_attempt() {
    let primary = TestServer::builder().script(Script::new().on(Stage::Connect, [Action::Fin])).start();
    let secondary = TestServer::start();
    let sender = sender(plain(&primary)).host(plain(&secondary).priority(10)).build().unwrap();
    let receipt = send(&sender, "failover@a").unwrap();
    assert_eq!((receipt.endpoint().port(), receipt.attempts()), (secondary.port(), 1));
    assert_eq!((primary.accepted("failover@a"), secondary.accepted("failover@a")), (0, 1));
}

#[test]
fn b_lost_after_mail_or_rcpt_nothing_was_sent() {
    for (_, end) in ENDS {
        for pipelining in [true, false] {
            let server = || TestServer::builder().pipelining(pipelining);
            let lost_at = |stage| on(stage, [end.clone()]);
            check([
                row("MAIL, fresh", lost_at(Stage::Mail), failed(RB, S3), Abort).server(server()),
                row("RCPT, fresh", lost_at(Stage::Rcpt), failed(RB, S3), Abort).server(server()),
                row("MAIL, reused", lost_at(Stage::Mail), OK_ELSEWHERE, Abort).server(server()).reused(),
                row("RCPT, reused", lost_at(Stage::Rcpt), OK_ELSEWHERE, Abort).server(server()).reused(),
            ]);
        }
    }
}

#[test]
fn c_data_without_an_answer_is_before_the_message() {
    for (_, end) in ENDS {
        for pipelining in [true, false] {
            let server = || TestServer::builder().pipelining(pipelining);
            check([
                row("fresh", on(Stage::Data, [end.clone()]), failed(RB, S3), Abort).server(server()),
                row("reused", on(Stage::Data, [end.clone()]), OK_ELSEWHERE, Abort).server(server()).reused(),
            ]);
        }
    }
    check([row("silence", on(Stage::Data, [Action::Silence]), failed(RB, S3), Abort).impatient()]);
}

#[test]
fn c_prime_a_refused_data_is_decisive_and_the_connection_stays() {
    for reused in [false, true] {
        let row = |name, script, expected| Row { reused, ..row(name, script, expected, KeepAndReset) };
        check([
            row("451", says(Stage::Data, "451 4.3.0 later\r\n"), failed(RT, S3)),
            row("554", says(Stage::Data, "554 5.0.0 never\r\n"), failed(PF, S3)),
            row("451, two recipients", says(Stage::Data, "451 4.3.0 later\r\n"), failed(RT, S3)).recipients(2),
        ]);
    }
}

#[test]
fn d_in_the_content_nothing_is_accepted() {
    // More than both kernels keep: the last byte cannot leave before the server has had its turn.
    const SIZE: usize = 8_000_000;
    let cut = |actions: &[Action]| on(Stage::Body, actions.to_vec()).after_bytes(100_000);
    for (_, end) in ENDS {
        check([
            row("cut", cut(std::slice::from_ref(&end)), failed(RB, S4), Abort).size(SIZE),
            row("early 552", cut(&[Action::reply("552 5.3.4 too big\r\n"), end.clone()]), failed(PF, S4), Abort)
                .size(SIZE),
            row("early 451", cut(&[Action::reply("451 4.3.0 full\r\n"), end.clone()]), failed(RT, S4), Abort)
                .size(SIZE),
            row("early 421", cut(&[Action::reply("421 4.3.2 down\r\n"), end.clone()]), failed(RT, S4), Abort)
                .size(SIZE),
            row(
                "before the first byte, reused",
                on(Stage::Data, [Action::reply("354 go\r\n"), end.clone()]),
                OK_ELSEWHERE,
                Abort,
            )
            .size(SIZE)
            .reused(),
        ]);
    }
    // For relays that may deliver what they have: from the first byte on nothing is known.
    check([row("distrusted relay", cut(&[Action::Fin]), failed(UD, S4), Abort)
        .size(SIZE)
        .tune(|builder| builder.ambiguity_boundary(AmbiguityBoundary::DataStarted).max_retries(3))]);
    check([row(
        "distrusted relay that refuses",
        cut(&[Action::reply("552 5.3.4 too big\r\n"), Action::Fin]),
        failed(PF, S4),
        Abort,
    )
    .size(SIZE)
    .tune(|builder| builder.ambiguity_boundary(AmbiguityBoundary::DataStarted))]);
}

#[test]
fn e_after_the_last_byte_without_an_answer_the_fate_is_unknown() {
    for reused in [false, true] {
        for accepted in [false, true] {
            for (_, end) in ENDS {
                let mut actions = if accepted { vec![Action::Accept] } else { Vec::new() };
                actions.push(end);
                let row = Row { reused, ..row("cut", on(Stage::EndOfData, actions), failed(UD, S5), Abort) };
                // However many retries are allowed, it is not sent again.
                check([row.tune(|builder| builder.max_retries(3).retry_base_delay(ms(1)))]);
            }
        }
    }
    check([
        row("silence", on(Stage::EndOfData, [Action::Silence]), failed(UD, S5), Abort).impatient(),
        row("accepted, silence", on(Stage::EndOfData, [Action::Accept, Action::Silence]), failed(UD, S5), Abort)
            .impatient(),
    ]);
}

#[test]
fn f_half_a_reply_is_no_reply() {
    for (_, end) in ENDS {
        for half in ["25", "250", "250 queued", "250-queued\r\n", "250-queued\r\n25", "451 4.3.0 la", "\r"] {
            check([row(
                "half a reply",
                on(Stage::EndOfData, [Action::reply(half), end.clone()]),
                failed(UD, S5),
                Abort,
            )]);
        }
    }
}

#[test]
fn f_what_there_was_of_the_reply_is_in_the_error() {
    let server = TestServer::builder()
        .script(Script::new().once(Stage::EndOfData, [Action::reply("250-queued as \x1b[31m4ABC"), Action::Fin]))
        .start();
    let error = send(&sender(plain(&server)).build().unwrap(), "partial@f").unwrap_err();
    assert_eq!(error.kind(), UD);
    let text = whole_text(&error);
    assert!(text.contains("250-queued as"), "{text}");
    assert!(!text.contains('\x1b'), "{text}");
}

#[test]
fn g_a_refusal_of_the_whole_message_is_decisive() {
    for reused in [false, true] {
        let row = |name, reply: &str, expected, fate| Row {
            reused,
            ..row(name, says(Stage::EndOfData, reply), expected, fate)
        };
        check([
            row("451", "451 4.3.0 later\r\n", failed(RT, S5), KeepAndReset),
            row("452", "452 4.3.1 disk full\r\n", failed(RT, S5), KeepAndReset),
            row("554", "554-5.7.1 spam\r\n554 5.7.1 says the filter\r\n", failed(PF, S5), KeepAndReset),
            row("bare 550", "550\r\n", failed(PF, S5), KeepAndReset),
            row("421", "421 4.3.2 closing\r\n", failed(RT, S5), Discard),
        ]);
    }
}

#[test]
fn g_prime_every_2xx_but_221_is_acceptance() {
    for code in [200, 211, 214, 220, 235, 250, 251, 252, 253, 259, 299] {
        let reply = Action::reply(format!("{code} 2.0.0 taken\r\n"));
        check([row("2xx", on(Stage::EndOfData, [Action::Accept, reply]), OK, Keep)]);
    }
    check([row("221", says(Stage::EndOfData, "221 2.0.0 bye\r\n"), failed(UD, S5), Abort)]);
}

#[test]
fn h_what_comes_after_acceptance_takes_nothing_back() {
    let accept = Action::reply("250 2.0.0 queued\r\n");
    for (_, end) in ENDS {
        check([row("close", on(Stage::EndOfData, [accept.clone(), end]), OK, Discard)]);
    }
    check([
        row("two replies", on(Stage::EndOfData, [accept.clone(), Action::reply("250 again\r\n")]), OK, Abort),
        row(
            "421 behind it",
            on(Stage::EndOfData, [accept, Action::reply("421 4.3.2 down\r\n"), Action::Fin]),
            OK,
            Discard,
        ),
    ]);
}

#[test]
fn h_a_quit_that_hangs_keeps_nobody() {
    thrice(|| {
        let server = TestServer::builder().script(Script::new().on(Stage::Quit, [Action::Silence])).start();
        let sender = sender(plain(&server)).build().unwrap();
        send(&sender, "quit@h").unwrap();
        let start = now();
        drop(sender);
        assert!(now() - start < ms(500));
        assert!(server.wait_for(|seen| seen.reached(Stage::Quit) == 1, PATIENCE));
    });
}

#[test]
fn j_421_by_stage() {
    let down = "421 4.3.2 going down\r\n";
    check([
        row("greeting", on(Stage::Connect, [Action::reply(down), Action::Fin]), failed(HU, S1), Discard).cooled(),
        row("EHLO", on(Stage::Ehlo, [Action::reply(down), Action::Fin]), failed(HU, S1), Discard).cooled(),
        row("AUTH", on(Stage::Auth, [Action::reply(down), Action::Fin]), failed(HU, S1), Discard)
            .cooled()
            .server(with_auth())
            .host(authenticated),
    ]);
    for stage in [Stage::Mail, Stage::Rcpt, Stage::Data] {
        for open in [false, true] {
            let mut actions = vec![Action::reply(down)];
            if !open {
                actions.push(Action::Fin);
            }
            let script = || on(stage, actions.clone());
            check([
                row("fresh", script(), failed(RT, S3), Discard),
                row("reused", script(), OK_ELSEWHERE, Discard).reused(),
            ]);
            let one_by_one = TestServer::builder().pipelining(false);
            check([row("fresh, one by one", script(), failed(RT, S3), Discard).server(one_by_one)]);
        }
    }
    check([row("dot", on(Stage::EndOfData, [Action::reply(down), Action::Fin]), failed(RT, S5), Discard)]);
}

/// Postfix says both at once when a client has made one error too many (`smtpd_hard_error_limit`).
#[test]
fn j_421_behind_a_refusal_takes_nothing_from_it() {
    let [one_by_one, group] = [false, true].map(|offer| move || TestServer::builder().pipelining(offer));
    let mut rows = Vec::new();
    for (refusal, kind) in [("550 5.1.1 no\r\n", PF), ("450 4.2.0 later\r\n", RT)] {
        let both = || [Action::reply([refusal, "421 4.7.0 too many errors\r\n"].concat()), Action::Fin];
        for stage in [Stage::Mail, Stage::Rcpt, Stage::Data] {
            rows.push(
                row("in the envelope, one by one", on(stage, both()), failed(kind, S3), Abort).server(one_by_one()),
            );
        }
        // In a group the 421 stands where another command's reply is due.
        rows.push(row("in a group", on(Stage::Rcpt, both()), failed(kind, S3), Abort).server(group()));
        rows.push(row("behind the dot", on(Stage::EndOfData, both()), failed(kind, S5), Abort));
    }
    // Without a refusal it is what counts, as long as nothing stands behind it.
    let taken = |behind: &str| Action::reply(["250 2.1.5 ok\r\n421 4.3.2 down\r\n", behind].concat());
    let script = |behind| on(Stage::Rcpt, [taken(behind), Action::Fin]);
    rows.push(row("behind a 250", script(""), failed(RT, S3), Discard).server(one_by_one()));
    rows.push(row("and more behind it", script("250 ok\r\n"), failed(CC, S3), Abort).server(one_by_one()));
    check(rows);
}

#[test]
fn j_421_while_idle_is_noticed_before_the_next_message() {
    for end in [Action::reply("421 4.4.2 idle too long\r\n"), Action::reply("221 2.0.0 bye\r\n")] {
        let server = TestServer::builder().script(Script::new().once(Stage::Idle, [end, Action::Fin])).start();
        let sender = sender(plain(&server)).build().unwrap();
        send(&sender, "first@j").unwrap();
        server.connection(1).wait_closed();
        let receipt = send(&sender, "second@j").unwrap();
        assert_eq!((receipt.attempts(), server.accepted("second@j")), (1, 1));
        assert_eq!(server.connections_accepted(), 2);
        assert_eq!(sender.status().hosts[0].consecutive_failures, 0);
    }
}

#[test]
fn k_silence_ends_by_stage() {
    let silent = |stage| on(stage, [Action::Silence]);
    check([
        row("greeting", silent(Stage::Connect), failed(HU, S1), Abort).cooled().impatient(),
        row("EHLO", silent(Stage::Ehlo), failed(HU, S1), Abort).cooled().impatient(),
        row("MAIL", silent(Stage::Mail), failed(RB, S3), Abort).impatient(),
        row("RCPT", silent(Stage::Rcpt), failed(RB, S3), Abort).impatient(),
        row("DATA", silent(Stage::Data), failed(RB, S3), Abort).impatient(),
        row("dot", silent(Stage::EndOfData), failed(UD, S5), Abort).impatient(),
        // In the content: P17, and `deadline.rs`.
    ]);
}

// ------------------------------------------------------------------------------------------------ pitfalls

#[test]
fn p1_no_empty_mail_when_one_of_two_recipients_is_refused() {
    for pipelining in [true, false] {
        for code in ["450 4.2.0 later", "550 5.1.1 nobody"] {
            let server = TestServer::builder()
                .pipelining(pipelining)
                .script(Script::new().on_command(Stage::Rcpt, "to2@", [Action::reply(format!("{code}\r\n"))]))
                .start();
            let sender = sender(plain(&server)).build().unwrap();
            let error = send_to(&sender, "all@p1", 2, &SendOptions::new()).unwrap_err();
            let kind = if code.starts_with('4') { RT } else { PF };
            assert_eq!((error.kind(), error.stage()), (kind, S3), "{error}");
            assert!(server.messages().is_empty(), "{:?}", server.messages());
            assert!(!said(&server, 1, "DATA"), "{:?}", server.transcript(1).commands());
            let statuses: Vec<_> = error.recipients().iter().map(|recipient| recipient.status).collect();
            let refused = if kind == RT { RecipientStatus::RefusedForNow } else { RecipientStatus::Refused };
            assert_eq!(statuses, [RecipientStatus::Accepted, refused]);

            let receipt =
                send_to(&sender, "some@p1", 2, &SendOptions::new().recipients(RecipientPolicy::AcceptPartial));
            let receipt = receipt.unwrap();
            let statuses: Vec<_> = receipt.recipients().iter().map(|recipient| recipient.status).collect();
            assert_eq!(statuses, [RecipientStatus::Accepted, refused]);
            let stored = server.messages().pop().unwrap();
            assert_eq!(
                (stored.recipients(), stored.content()),
                (&["to1@example.net".to_owned()][..], &content("some@p1")[..])
            );
            assert_eq!((server.messages().len(), server.connections_accepted()), (1, 1));
            assert_eq!(server.violations(), [""; 0]);
        }
    }
}

#[test]
fn p2_a_354_with_every_recipient_refused_is_answered_with_a_dot() {
    for to_dot in ["554 5.5.1 no valid recipients\r\n", "250 2.0.0 queued nothing\r\n", "451 4.0.0 hm\r\n"] {
        let server = TestServer::builder()
            .script(
                Script::new()
                    .once(Stage::Rcpt, [Action::reply("550 5.1.1 nobody\r\n")])
                    .once(Stage::Data, [Action::reply("354 go\r\n")])
                    .once(Stage::EndOfData, [Action::reply(to_dot)]),
            )
            .start();
        let sender = sender(plain(&server)).build().unwrap();
        let error = send(&sender, "nobody@p2").unwrap_err();
        assert_eq!((error.kind(), error.stage()), (PF, S3), "{error}");
        assert_eq!(error.response().unwrap().code(), 550, "the recipient's refusal is reported: {error}");
        assert_eq!(server.accepted("nobody@p2"), 0);
        server.assert_script_used();
        let sent = server.transcript(1).client_bytes();
        assert!(!contains(&sent, b"nobody@p2"), "content was sent");
        send(&sender, "next@p2").unwrap();
        assert_eq!(server.connections_accepted(), 1, "K+R");
        assert!(said(&server, 1, "RSET"));
    }
}

#[test]
fn p7_replies_out_of_step_poison_the_connection() {
    let corrupted = |name, stage, reply: &str| row(name, says(stage, reply), failed(CC, S3), Abort);
    for (name, reply) in [
        ("garbage", "what?\r\n"),
        ("garbage before", "what?\r\n250 ok\r\n"),
        ("mixed codes", "250-ok\r\n251 ok\r\n"),
        ("199", "199 x\r\n"),
        ("600", "600 x\r\n"),
        ("000", "000 x\r\n"),
        ("25", "25\r\n"),
        ("2500", "2500 x\r\n"),
        ("no separator", "250ok\r\n"),
        ("empty line", "\r\n"),
        ("NUL", "\0\r\n"),
        ("HTTP", "HTTP/1.1 400 Bad Request\r\n\r\n"),
    ] {
        check([
            corrupted(name, Stage::Mail, reply),
            corrupted(name, Stage::Rcpt, reply),
            corrupted(name, Stage::Data, reply),
            row(name, says(Stage::EndOfData, reply), failed(UD, S5), Abort),
        ]);
    }
    let twice = "250 2.1.0 ok\r\n250 2.1.0 ok\r\n";
    let one_by_one = || TestServer::builder().pipelining(false);
    check([
        corrupted("extra reply to MAIL", Stage::Mail, twice),
        corrupted("extra reply to MAIL, one by one", Stage::Mail, twice).server(one_by_one()),
        corrupted("extra reply to RCPT, one by one", Stage::Rcpt, twice).server(one_by_one()),
        corrupted("bytes behind 354", Stage::Data, "354 go\r\n250 2.0.0 queued\r\n"),
        corrupted("bytes behind 354, one by one", Stage::Data, "354 go\r\n250 2.0.0 queued\r\n").server(one_by_one()),
        // The reply to RCPT is missing, and that to DATA takes its place.
        row("missing reply to RCPT", on(Stage::Rcpt, [Action::Proceed]), failed(CC, S3), Abort),
        row(
            "4xx and another behind the dot",
            says(Stage::EndOfData, "421 4.3.2 bye\r\n250 2.0.0 ok\r\n"),
            failed(UD, S5),
            Abort,
        ),
    ]);
}

#[test]
fn p7_an_early_250_in_the_content_is_not_the_answer_to_the_dot() {
    let script = on(Stage::Body, [Action::reply("250 2.0.0 queued\r\n")]).after_bytes(100_000);
    let server = TestServer::builder().script(script).socket_buffers(16_384).start();
    let sender = sender(plain(&server)).build().unwrap();
    let message = big_content("early@p7", 6_000_000);
    let error = sender.send_raw(&envelope(1), &message).unwrap_err();
    assert_eq!((error.kind(), error.stage()), (CC, S4), "{error}");
    assert_eq!(server.accepted("early@p7"), 0);
}

#[test]
fn p8_the_class_of_a_reply_is_checked_for_each_command() {
    let corrupted = |name, stage, reply: &str| row(name, says(stage, reply), failed(CC, S3), Abort);
    check([
        corrupted("354 to MAIL", Stage::Mail, "354 go\r\n"),
        corrupted("334 to MAIL", Stage::Mail, "334 \r\n"),
        corrupted("354 to RCPT", Stage::Rcpt, "354 go\r\n"),
        corrupted("250 to DATA", Stage::Data, "250 2.0.0 ok\r\n"),
        corrupted("235 to DATA", Stage::Data, "235 2.0.0 ok\r\n"),
        row("354 to the dot", says(Stage::EndOfData, "354 more\r\n"), failed(UD, S5), Abort),
        row("250 as greeting", says(Stage::Connect, "250 hi\r\n"), failed(HU, S1), Abort).cooled(),
        row("HTTP as greeting", says(Stage::Connect, "HTTP/1.1 400 Bad Request\r\n"), failed(HU, S1), Abort).cooled(),
        row("220 to EHLO", says(Stage::Ehlo, "220 hi\r\n"), failed(HU, S1), Abort).cooled(),
        row("251 to EHLO", on(Stage::Ehlo, [Action::Proceed, Action::reply("251 hi\r\n")]), OK, Keep),
        row("354 to EHLO", says(Stage::Ehlo, "354 hi\r\n"), failed(HU, S1), Abort).cooled(),
        row("250 to AUTH", says(Stage::Auth, "250 ok\r\n"), failed(HU, S1), Abort)
            .cooled()
            .server(with_auth())
            .host(authenticated),
    ]);
}

#[test]
fn p8_rset_takes_250_alone() {
    // A connection that owes RSET is a used one: whatever RSET meets but 250 is no failure of the message.
    for reply in [
        "221 2.0.0 bye\r\n",
        "354 go\r\n",
        "251 ok\r\n",
        "421 4.3.2 down\r\n",
        "500 5.5.1 what\r\n",
        "451 4.3.0 hm\r\n",
    ] {
        let server =
            TestServer::builder().script(Script::new().once(Stage::Mail, [Action::reply("550 5.7.1 no\r\n")])).start();
        let sender = sender(plain(&server)).max_retries(1).retry_base_delay(ms(1)).build().unwrap();
        assert_eq!(send(&sender, "refused@p8").unwrap_err().kind(), PF);
        server.set_script(Script::new().once(Stage::Rset, [Action::reply(reply)]));
        let receipt = send(&sender, "next@p8").unwrap_or_else(|error| panic!("{reply:?}: {error}"));
        server.assert_script_used();
        assert_eq!((server.accepted("next@p8"), server.connections_accepted()), (1, 2), "{reply:?}");
        if !reply.starts_with("354") && !reply.starts_with("251") {
            assert_eq!(receipt.attempts(), 1, "F040, free retry: {reply:?}");
        }
    }
}

#[test]
fn p10_221_means_closing_whatever_was_asked() {
    for stage in [Stage::Mail, Stage::Rcpt, Stage::Data] {
        let script = || says(stage, "221 2.0.0 closing\r\n");
        check([
            row("221, fresh", script(), failed(RB, S3), Discard),
            row("221, reused", script(), OK_ELSEWHERE, Discard).reused(),
        ]);
    }
    check([row("greeting", says(Stage::Connect, "221 2.0.0 closing\r\n"), failed(HU, S1), Discard).cooled()]);
}

#[test]
fn p11_a_reply_that_arrived_wins_over_the_failed_write() {
    // The server says why and resets while the content still streams: the write fails, the reason is there to be read.
    let cut = |reply: &str| on(Stage::Body, [Action::reply(reply), Action::Reset]).after_bytes(50_000);
    let small = || TestServer::builder().socket_buffers(8_192);
    check([
        row("552", cut("552 5.3.4 too big\r\n"), failed(PF, S4), Abort).server(small()).size(5_000_000),
        row("421", cut("421 4.3.2 down\r\n"), failed(RT, S4), Abort).server(small()).size(5_000_000),
        row("half a 552", cut("552 5.3."), failed(RB, S4), Abort).server(small()).size(5_000_000),
    ]);
}

#[test]
fn p12_the_first_refusal_wins_over_the_end_that_follows() {
    for (_, end) in ENDS {
        let refuse = |stage, reply: &str| on(stage, [Action::reply(reply), end.clone()]);
        check([
            row("MAIL 550", refuse(Stage::Mail, "550 5.7.1 blocked\r\n"), failed(PF, S3), Discard).recipients(3),
            row("MAIL 451", refuse(Stage::Mail, "451 4.7.1 greylisted\r\n"), failed(RT, S3), Discard).recipients(3),
            row("RCPT 550", refuse(Stage::Rcpt, "550 5.1.1 nobody\r\n"), failed(PF, S3), Discard),
        ]);
    }
}

#[test]
fn p14_p16_an_idle_connection_that_ended_is_replaced_for_free() {
    type End = fn(&TestServer);
    let ends: [(&str, End); 5] = [
        ("FIN", |server| server.connection(1).close()),
        ("RST", |server| server.connection(1).reset()),
        ("FIN without close_notify", |server| server.connection(1).half_close()),
        ("close_notify with the socket open", |server| server.connection(1).close_notify()),
        ("unsolicited reply", |server| server.connection(1).send("250 hi\r\n")),
    ];
    for (name, end) in ends {
        for security in [Security::Plain, Security::StartTls, Security::ImplicitTls] {
            if security == Security::Plain && name.contains("socket open") {
                continue;
            }
            let server = tls_server(security).start();
            let host = match security {
                Security::StartTls => starttls(&server),
                Security::ImplicitTls => implicit_tls(&server),
                _ => plain(&server),
            };
            let sender = sender(host).build().unwrap();
            send(&sender, "before@p14").unwrap();
            end(&server);
            let receipt = send(&sender, "after@p14").unwrap_or_else(|error| panic!("{name}, {security:?}: {error}"));
            assert_eq!((receipt.attempts(), server.accepted("after@p14")), (1, 1), "{name}, {security:?}");
            assert_eq!(server.messages()[1].connection(), 2, "{name}, {security:?}");
            assert_eq!(sender.status().hosts[0].consecutive_failures, 0, "{name}, {security:?}");
        }
    }
}

#[test]
fn p15_session_tickets_are_no_end() {
    for security in [Security::StartTls, Security::ImplicitTls] {
        let server = tls_server(security).start();
        let host = if security == Security::StartTls { starttls(&server) } else { implicit_tls(&server) };
        let sender = sender(host).build().unwrap();
        for number in 0..5 {
            send(&sender, &format!("{number}@p15")).unwrap();
        }
        assert_eq!(server.connections_accepted(), 1, "{security:?}");
    }
}

#[test]
fn p16_the_end_inside_a_reply_is_no_reply_under_tls_either() {
    let tls = || tls_server(Security::ImplicitTls);
    check([
        row("RCPT", on(Stage::Rcpt, [Action::reply("250 2."), Action::HalfClose]), failed(RB, S3), Abort)
            .server(tls())
            .host(implicit_tls),
        row("dot", on(Stage::EndOfData, [Action::reply("250 2."), Action::HalfClose]), failed(UD, S5), Abort)
            .server(tls())
            .host(implicit_tls),
        row("dot, close_notify", on(Stage::EndOfData, [Action::reply("250 2."), Action::Fin]), failed(UD, S5), Abort)
            .server(tls())
            .host(implicit_tls),
    ]);
}

#[test]
fn p17_after_a_failed_write_nothing_more_is_written() {
    for security in [Security::Plain, Security::ImplicitTls] {
        let server = tls_server(security)
            .socket_buffers(4_096)
            .size(None)
            .script(Script::new().once(Stage::Body, [Action::barrier("stopped")]).after_bytes(10_000))
            .start();
        let host = if security == Security::Plain { plain(&server) } else { implicit_tls(&server) };
        let sender = sender(host).send_timeout(ms(800)).build().unwrap();
        let error = sender.send_raw(&envelope(1), &big_content("stuck@p17", 6_000_000)).unwrap_err();
        assert_eq!((error.kind(), error.stage()), (RB, S4), "{error}");
        // The server reads all that was on its way, and finds neither a dot nor QUIT.
        server.release("stopped");
        server.connection(1).wait_closed();
        let sent = server.transcript(1).client_bytes();
        assert!(!sent.ends_with(b"\r\n.\r\n") && !contains(&sent, b"QUIT"), "{security:?}");
        assert_eq!(server.accepted("stuck@p17"), 0);
    }
}

#[test]
fn p19_a_connection_left_in_mid_transaction_is_never_lent_again() {
    let server = TestServer::builder().script(Script::new().once(Stage::Data, [Action::Silence])).start();
    let sender = sender(plain(&server)).send_timeout(ms(150)).build().unwrap();
    assert_eq!(send(&sender, "stuck@p19").unwrap_err().kind(), RB);
    send(&sender, "next@p19").unwrap();
    let stored = server.messages();
    assert_eq!((stored.len(), stored[0].connection()), (1, 2));
    assert_eq!(stored[0].content(), content("next@p19"));
}

#[test]
fn p20_rset_is_owed_after_a_failure_and_only_then() {
    let server = TestServer::start();
    let sender = sender(plain(&server)).build().unwrap();
    for stage in [Stage::Mail, Stage::Rcpt, Stage::Data, Stage::EndOfData] {
        send(&sender, "good@p20").unwrap();
        server.set_script(says(stage, "550 5.0.0 no\r\n"));
        assert_eq!(send(&sender, "bad@p20").unwrap_err().kind(), PF);
        server.set_script(Script::new());
        send(&sender, "good@p20").unwrap();
    }
    let commands = server.transcript(1).commands().to_vec();
    let resets: Vec<_> = commands.iter().enumerate().filter(|(_, line)| *line == "RSET").map(|(at, _)| at).collect();
    assert_eq!(resets.len(), 4, "{commands:?}");
    assert!(resets.iter().all(|&at| commands[at + 1].starts_with("MAIL")), "{commands:?}");
    assert_eq!((server.connections_accepted(), server.accepted("good@p20")), (1, 8));
    assert_eq!(server.violations(), [""; 0]);
}

#[test]
fn p21_nothing_is_sent_too_early() {
    // The server notes whatever comes before its greeting's answer is due, behind EHLO, STARTTLS, AUTH, NOOP, QUIT or the dot.
    let server = with_auth().start();
    let sender = sender(authenticated(&server)).build().unwrap();
    for number in 0..3 {
        send(&sender, &format!("{number}@p21")).unwrap();
    }
    drop(sender);
    server.connection(1).wait_closed();
    assert_eq!(server.violations(), [""; 0]);
    assert!(said(&server, 1, "QUIT") && !said(&server, 1, "NOOP"));
    // Nothing before the greeting: the first thing on the wire is the server's.
    let held = TestServer::builder()
        .script(Script::new().on(Stage::Connect, [Action::barrier("greet"), Action::Default]))
        .start();
    let sender = common::sender(plain(&held)).build().unwrap();
    std::thread::scope(|scope| {
        let call = scope.spawn(|| send(&sender, "held@p21"));
        held.wait_until_reached("greet");
        held.release("greet");
        call.join().unwrap().unwrap();
    });
    assert!(matches!(held.transcript(1).events()[0], smtp_pool::testing::Event::Server { .. }));
}

#[test]
fn p22_after_ten_refusals_in_a_row_the_connection_is_retired() {
    let server =
        TestServer::builder().script(Script::new().on(Stage::Rcpt, [Action::reply("550 5.1.1 nobody\r\n")])).start();
    let sender = sender(plain(&server)).build().unwrap();
    for number in 1..=10 {
        assert_eq!(sender.status().created, u64::from(number > 1), "before refusal {number}");
        assert_eq!(send(&sender, "bad@p22").unwrap_err().kind(), PF);
    }
    server.connection(1).wait_closed();
    assert!(said(&server, 1, "QUIT"), "retired politely");
    assert_eq!(server.snapshot().reached(Stage::Rcpt), 10);
}

#[test]
fn p23_each_recipients_reply_is_told() {
    check([
        row("251", says(Stage::Rcpt, "251 2.1.5 forwarded\r\n"), OK, Keep),
        row("252", says(Stage::Rcpt, "252 2.0.0 cannot verify\r\n"), OK, Keep),
        row("551", says(Stage::Rcpt, "551 5.1.6 moved\r\n"), failed(PF, S3), KeepAndReset),
    ]);
    let server = TestServer::builder()
        .script(
            Script::new()
                .on_command(Stage::Rcpt, "to2@", [Action::reply("251 2.1.5 forwarded\r\n")])
                .on_command(Stage::Rcpt, "to3@", [Action::reply("450 4.2.1 later\r\n")])
                .on_command(Stage::Rcpt, "to4@", [Action::reply("550 5.1.1 nobody\r\n")]),
        )
        .start();
    let sender = sender(plain(&server)).build().unwrap();
    let partial = SendOptions::new().recipients(RecipientPolicy::AcceptPartial);
    let receipt = send_to(&sender, "some@p23", 4, &partial).unwrap();
    let told: Vec<_> = receipt
        .recipients()
        .iter()
        .map(|one| (one.address.to_string(), one.status, one.reply.as_ref().unwrap().code()))
        .collect();
    let address = |number: usize| format!("to{number}@example.net");
    assert_eq!(
        told,
        [
            (address(1), RecipientStatus::Accepted, 250),
            (address(2), RecipientStatus::Accepted, 251),
            (address(3), RecipientStatus::RefusedForNow, 450),
            (address(4), RecipientStatus::Refused, 550),
        ]
    );
    assert_eq!(server.messages()[0].recipients().len(), 2);
    // F056: all or nothing, one refused for now and one for good; the worst is the kind.
    let error = send_to(&sender, "all@p23", 4, &SendOptions::new()).unwrap_err();
    assert_eq!((error.kind(), error.recipients().len()), (PF, 4), "{error}");
    assert_eq!(server.accepted("all@p23"), 0);
}

#[test]
fn p24_too_many_recipients_is_for_now_and_too_big_is_for_good() {
    check([
        row("RCPT 452", says(Stage::Rcpt, "452 4.5.3 too many\r\n"), failed(RT, S3), KeepAndReset),
        row("552 to the first RCPT", says(Stage::Rcpt, "552 5.2.2 full\r\n"), failed(PF, S3), KeepAndReset),
        row(
            "552 after an accepted one",
            Script::new().on_nth(Stage::Rcpt, 2, [Action::reply("552 5.5.3 too many\r\n")]),
            failed(RT, S3),
            KeepAndReset,
        )
        .recipients(2),
        row("MAIL 552", says(Stage::Mail, "552 5.3.4 too big\r\n"), failed(PF, S3), KeepAndReset),
        row("dot 552", says(Stage::EndOfData, "552 5.3.4 too big\r\n"), failed(PF, S5), KeepAndReset),
        row("MAIL 452, fresh", says(Stage::Mail, "452 4.3.1 full\r\n"), failed(RT, S3), KeepAndReset),
        row(
            "one accepted, 552 to the rest, partly",
            Script::new().on_nth(Stage::Rcpt, 2, [Action::reply("552 5.5.3 too many\r\n")]),
            OK,
            Keep,
        )
        .recipients(2)
        .partial()
        .transactions(2),
    ]);
}

#[test]
fn p25_what_auth_refusals_mean() {
    let auth = |name, reply: &str, expected| {
        row(name, says(Stage::Auth, reply), expected, Discard).cooled().server(with_auth()).host(authenticated)
    };
    check([
        auth("535", "535 5.7.8 wrong\r\n", failed(PF, S1)),
        auth("534", "534 5.7.9 too weak\r\n", failed(PF, S1)),
        auth("538", "538 5.7.11 encrypt\r\n", failed(PF, S1)),
        auth("504", "504 5.5.4 what\r\n", failed(PF, S1)),
        auth("454", "454 4.7.0 later\r\n", failed(RT, S1)),
        auth("451", "451 4.7.0 later\r\n", failed(RT, S1)),
        auth("432", "432 4.3.2 too many\r\n", failed(RT, S1)),
        auth("421", "421 4.7.0 later\r\n", failed(HU, S1)),
    ]);
}

#[test]
fn p25_wrong_credentials_cool_for_the_longest_time_at_once() {
    thrice(|| {
        let server = with_auth().start();
        let host = starttls(&server).credentials("user", "wrong");
        let sender = sender(host).max_retries(3).max_reconnect_cooldown(Duration::from_secs(3600)).build().unwrap();
        let error = send(&sender, "wrong@p25").unwrap_err();
        assert_eq!((error.kind(), error.attempts()), (PF, 1), "{error}");
        let HostState::CoolingDown { until } = sender.status().hosts[0].state else {
            panic!("not cooling down: {:?}", sender.status().hosts[0])
        };
        assert!(until > now() + Duration::from_secs(3500));
        let start = now();
        for _ in 0..20 {
            let error = send(&sender, "again@p25").unwrap_err();
            assert_eq!(error.kind(), HU, "{error}");
            assert!(error.retry_after().unwrap() > Duration::from_secs(3500));
        }
        assert!(now() - start < ms(500), "no thread waits for what cannot come");
        assert_eq!(server.snapshot().reached(Stage::Auth), 1, "trying again locks accounts");
    });
}

#[test]
fn p25_530_in_a_live_session_logs_in_again_once() {
    let builder = || with_auth();
    let refused = "530 5.7.0 authentication required\r\n";
    check([
        row("once, reused", says(Stage::Mail, refused), OK_ELSEWHERE, Discard)
            .server(builder())
            .host(authenticated)
            .reused(),
        row("once, fresh", says(Stage::Mail, refused), OK_ELSEWHERE, Discard).server(builder()).host(authenticated),
    ]);
    let server = builder().script(Script::new().on(Stage::Mail, [Action::reply(refused)])).start();
    let sender = sender(authenticated(&server)).max_retries(5).retry_base_delay(ms(1)).build().unwrap();
    let error = send(&sender, "always@p25").unwrap_err();
    assert_eq!((error.kind(), error.is_retry_safe()), (PF, false), "{error}");
    assert_eq!(server.snapshot().reached(Stage::Auth), 2, "one new login, not more");
}

#[test]
fn p26_a_334_with_the_reason_is_answered_with_an_empty_line() {
    let server = TestServer::builder()
        .security(Security::StartTls)
        .auth_mechanisms(&["XOAUTH2"])
        .credentials("user", "right-token")
        .start();
    let host = starttls(&server).credentials("user", "wrong-token").auth_mechanisms([Mechanism::Xoauth2]);
    let error = send(&sender(host).build().unwrap(), "token@p26").unwrap_err();
    assert_eq!((error.kind(), error.stage()), (PF, S1), "{error}");
    assert_eq!(error.response().unwrap().code(), 535);
    let commands = server.transcript(1).commands().to_vec();
    let auth = commands.iter().position(|line| line.starts_with("AUTH")).unwrap();
    assert_eq!(commands[auth + 1], "", "{commands:?}");
    let host = starttls(&server).credentials("user", "right-token").auth_mechanisms([Mechanism::Xoauth2]);
    send(&sender(host).build().unwrap(), "token2@p26").unwrap();
    assert_eq!(server.messages()[0].authenticated_as(), Some("user"));
}

#[test]
fn p27_a_full_server_is_waited_for_while_connections_live() {
    for greeting in [
        "421 4.7.0 too many connections\r\n",
        "454 4.7.0 too many connections\r\n",
        "432 4.3.2 too many connections\r\n",
    ] {
        let server = TestServer::builder()
            .max_connections(Some(1))
            .refuse_over_limit(greeting)
            .script(Script::new().once(Stage::EndOfData, [Action::barrier("hold"), Action::Default]))
            .start();
        let sender = sender(plain(&server)).max_size(4).build().unwrap();
        std::thread::scope(|scope| {
            let first = scope.spawn(|| send(&sender, "first@p27"));
            server.wait_until_reached("hold");
            let second = scope.spawn(|| send(&sender, "second@p27"));
            assert!(server.wait_for(|seen| seen.connections_accepted() == 2, PATIENCE));
            eventually("the second waits for the first", || {
                sender.status().counts.waiting == 1 || second.is_finished()
            });
            server.release("hold");
            first.join().unwrap().unwrap();
            second.join().unwrap().unwrap_or_else(|error| panic!("{greeting:?}: {error}"));
        });
        assert_eq!(server.accepted("second@p27"), 1);
        let host = &sender.status().hosts[0];
        assert_eq!(host.consecutive_failures, 0, "a full host is not a broken one: {host:?}");
        assert_eq!(host.state, HostState::Available, "{greeting:?}");
    }
}

#[test]
fn p28_a_greeting_554_is_about_the_host_and_not_the_message() {
    for greeting in ["554 5.3.2 no SMTP here\r\n", "521 5.3.2 no mail\r\n"] {
        let primary = TestServer::builder()
            .script(Script::new().on(Stage::Connect, [Action::reply(greeting), Action::Fin]))
            .start();
        let secondary = TestServer::start();
        let long = Duration::from_secs(3600);
        let alone = sender(plain(&primary)).max_reconnect_cooldown(long).build().unwrap();
        let error = send(&alone, "alone@p28").unwrap_err();
        assert_eq!((error.kind(), error.stage(), error.is_retry_safe()), (HU, S1, true), "{error}");
        let HostState::CoolingDown { until } = alone.status().hosts[0].state else { panic!("not cooling") };
        assert!(until > now() + Duration::from_secs(3500), "the long cooldown");

        let both = sender(plain(&primary)).host(plain(&secondary).priority(1)).build().unwrap();
        assert_eq!(send(&both, "both@p28").unwrap().endpoint().port(), secondary.port());
    }
}

#[test]
fn p29_a_refused_message_is_no_property_of_the_host() {
    // `cooled` is false in each of these rows.
    check([
        row("MAIL 550", says(Stage::Mail, "550 5.7.1 no\r\n"), failed(PF, S3), KeepAndReset),
        row("MAIL 555", says(Stage::Mail, "555 5.5.4 parameter\r\n"), failed(PF, S3), KeepAndReset),
        row("MAIL 451", says(Stage::Mail, "451 4.3.0 later\r\n"), failed(RT, S3), KeepAndReset),
        row("RCPT 550", says(Stage::Rcpt, "550 5.1.1 nobody\r\n"), failed(PF, S3), KeepAndReset),
        row("RCPT 450", says(Stage::Rcpt, "450 4.2.0 greylisted\r\n"), failed(RT, S3), KeepAndReset),
    ]);
}

#[test]
fn p30_a_poisonous_message_does_not_take_the_host_down() {
    let server = TestServer::builder().script(Script::new().on(Stage::EndOfData, [Action::Fin])).start();
    let sender = sender(plain(&server))
        .reconnect_cooldown(Duration::from_secs(60))
        .max_reconnect_cooldown(Duration::from_secs(60))
        .build()
        .unwrap();
    for _ in 0..5 {
        let error = send(&sender, "poison@p30").unwrap_err();
        assert_eq!(error.kind(), UD, "{error}");
        assert_eq!(sender.status().hosts[0].state, HostState::Available);
    }
    server.set_script(Script::new());
    send(&sender, "good@p30").unwrap();
    assert_eq!(server.accepted("poison@p30"), 0);
}

#[test]
fn p33_unusual_replies_to_an_accepted_message_are_acceptance() {
    for reply in [
        &b"250\r\n"[..],
        b"250 \r\n",
        b"250 ok\n",
        b"250\n",
        b"250 accept\xe9\r\n",
        b"250-\xff\xfe\r\n250 \0\r\n",
        b"250-a\r\n250-\r\n250 c\r\n",
    ] {
        check([row("unusual", on(Stage::EndOfData, [Action::Accept, Action::reply(reply)]), OK, Keep)]);
        check([row(
            "unusual, to all",
            Script::new().on(Stage::Mail, [Action::reply(reply)]).on(Stage::Rcpt, [Action::reply(reply)]),
            OK,
            Keep,
        )]);
    }
}

#[test]
fn p34_p35_the_dot_follows_the_last_line_in_the_same_write() {
    for (body, wire) in [
        ("Message-ID: <1>\r\n\r\nx\r\n", "Message-ID: <1>\r\n\r\nx\r\n.\r\n"),
        ("Message-ID: <1>\r\n\r\nx", "Message-ID: <1>\r\n\r\nx\r\n.\r\n"),
        ("", ".\r\n"),
        (".\r\n", "..\r\n.\r\n"),
        ("\r\n", "\r\n.\r\n"),
    ] {
        // Under TLS a write is a record of its own, which no busy machine can join to the next.
        let server = tls_server(Security::ImplicitTls).start();
        let sender = sender(implicit_tls(&server)).build().unwrap();
        sender.send_raw(&envelope(1), body.as_bytes()).unwrap();
        let writes = client_writes(&server.transcript(1));
        assert_eq!(writes.last().unwrap().escape_ascii().to_string(), wire.as_bytes().escape_ascii().to_string());
    }
}

#[test]
fn p37_our_own_shortage_is_not_the_hosts_fault() {
    // EADDRNOTAVAIL: no address of this machine (RFC 5737).
    let server = TestServer::start();
    let sender = sender(plain(&server).local_address("192.0.2.1".parse().unwrap())).build().unwrap();
    let error = send(&sender, "local@p37").unwrap_err();
    assert_eq!((error.kind(), error.stage(), error.is_retry_safe()), (RB, S0, true), "{error}");
    let host = &sender.status().hosts[0];
    assert_eq!((host.consecutive_failures, host.state), (0, HostState::Available));
    assert_eq!(server.connections_accepted(), 0);
}

#[test]
fn p38_a_message_above_size_is_refused_here() {
    let server = TestServer::builder().size(Some(100)).start();
    let sender = sender(plain(&server)).build().unwrap();
    let error = sender.send_raw(&envelope(1), &[b'x'; 101]).unwrap_err();
    assert_eq!((error.kind(), error.stage(), error.is_retry_safe()), (PF, S2, false), "{error}");
    assert_eq!(server.snapshot().reached(Stage::Mail), 0);
    send(&sender, "fits@p38").unwrap();
    assert_eq!(server.connections_accepted(), 1, "the connection is kept");
    assert!(!said(&server, 1, "RSET"), "nothing was begun, so nothing is owed");
    assert_eq!(server.messages()[0].mail_parameters(), [format!("SIZE={}", content("fits@p38").len())]);
}

#[test]
fn p39_what_was_offered_before_tls_is_forgotten() {
    // The second EHLO lacks everything that the first one offered.
    let script = Script::new().on_nth(Stage::Ehlo, 2, [Action::reply("250 localhost\r\n")]);
    let server = TestServer::builder().security(Security::StartTls).script(script).start();
    let sender = sender(starttls(&server)).build().unwrap();
    send(&sender, "bare@p39").unwrap();
    let commands = server.transcript(1).commands().to_vec();
    assert!(commands.contains(&format!("MAIL FROM:<{FROM}>")), "no SIZE any more: {commands:?}");
    assert_eq!(server.violations(), [""; 0], "no PIPELINING any more");
    // Nor is anything carried over to the next connection.
    server.connection(1).close();
    server.set_script(Script::new());
    send(&sender, "full@p39").unwrap();
    assert!(server.messages()[1].mail_parameters()[0].starts_with("SIZE="));
}

#[test]
fn an_attempt_that_is_safe_is_made_again_and_no_other() {
    // §1.0: at most one attempt crosses the commit point.
    let sender_of = |server: &TestServer| -> SmtpSender {
        sender(plain(server)).max_retries(2).retry_base_delay(ms(1)).build().unwrap()
    };
    let flaky = TestServer::builder()
        .script(Script::new().once(Stage::Mail, [Action::Fin]).on_nth(
            Stage::Mail,
            2,
            [Action::reply("451 4.3.0 later\r\n")],
        ))
        .start();
    let receipt = send(&sender_of(&flaky), "flaky@retry").unwrap();
    assert_eq!((receipt.attempts(), flaky.accepted("flaky@retry")), (3, 1));

    let never =
        TestServer::builder().script(Script::new().on(Stage::Mail, [Action::reply("451 4.3.0 later\r\n")])).start();
    let error = send(&sender_of(&never), "never@retry").unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (RT, 3));

    let refused =
        TestServer::builder().script(Script::new().on(Stage::Rcpt, [Action::reply("550 5.1.1 no\r\n")])).start();
    let error = send(&sender_of(&refused), "refused@retry").unwrap_err();
    assert_eq!((error.kind(), error.attempts(), refused.snapshot().reached(Stage::Rcpt)), (PF, 1, 1));
}
