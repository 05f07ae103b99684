//! F001–F031: faults while a session is being opened.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lettre::transport::smtp::authentication::Mechanism;
use smtp_pool::Credentials;
use smtp_pool::testing::{Action, CertificateKind, Script, Security, Stage};

use super::harness::{
    CC, Cool, D, DQ, HU, K, LOCKSTEP, Longest, No, PF, PLAIN, RT, Row, S1, STARTTLS, Seen, TLS, Timer, Way, X, XU, Yes,
    require, say,
};

use Cool::Host;

const TLS_TO_PLAIN: Way = Way { client: Security::ImplicitTls, server: Security::Plain, pipelining: true };
const PLAIN_TO_TLS: Way = Way { client: Security::Plain, server: Security::ImplicitTls, pipelining: true };
const STARTTLS_TO_PLAIN: Way = Way { client: Security::StartTls, server: Security::Plain, pipelining: true };

/// `handshake_failure`, fatal, as a TLS 1.2 record.
const HANDSHAKE_FAILURE: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x28];

/// Has the 220 leave, and be read, before what follows: bytes in one packet with it are F020's.
const BEHIND_THE_220: Action = Action::DelayFor(Duration::from_millis(80));

/// "Benutzername:" and "pAsSwOrT:".
const GERMAN_USER: &str = "334 QmVudXR6ZXJuYW1lOg==";
const ODD_PASSWORD: &str = "334 cEFzU3dPclQ6";

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = greeting();
    rows.extend(tls());
    rows.extend(hello());
    rows.extend(login());
    rows
}

fn greeting() -> Vec<Row> {
    let everywhere = [PLAIN, STARTTLS, TLS];
    let row = |id, what| Row::new(id, what).ways(&everywhere);
    vec![
        row("F001", "no greeting, open")
            .once(Stage::Connect, [Action::Silence])
            .timer(Timer::Connect)
            .fails(HU, S1, Yes, X, Host),
        // SPEC §3: acquire_timeout bounds connecting too, whichever is shorter.
        row("F001", "no greeting, open, acquire_timeout the shorter one")
            .once(Stage::Connect, [Action::Silence])
            .timer(Timer::Acquire)
            .fails(HU, S1, Yes, X, Host),
        row("F002", "FIN before greeting").once(Stage::Connect, [Action::Fin]).fails(HU, S1, Yes, D, Host),
        row("F003", "RST before greeting").once(Stage::Connect, [Action::Reset]).fails(HU, S1, Yes, XU, Host),
        // F005, the same with live connections, needs two callers: see fault_matrix.rs.
        row("F004", "greeting 421, no live connections")
            .once(Stage::Connect, [say("421 4.7.0 too many connections")])
            .fails(HU, S1, Yes, DQ, Host),
        row("F004", "greeting 421, then FIN")
            .once(Stage::Connect, [say("421 4.7.0 too many connections"), Action::Fin])
            .fails(HU, S1, Yes, D, Host),
        row("F006", "greeting 554")
            .once(Stage::Connect, [say("554 5.3.2 no mail here")])
            .fails(HU, S1, Yes, DQ, Longest),
        row("F006", "greeting 521 (RFC 7504)")
            .once(Stage::Connect, [say("521 5.3.2 no mail here")])
            .fails(HU, S1, Yes, DQ, Longest),
        row("F007", "greeting 250").once(Stage::Connect, [say("250 hello")]).fails(HU, S1, Yes, X, Host),
        row("F007", "greeting HTTP/1.1 400")
            .once(Stage::Connect, [say("HTTP/1.1 400 Bad Request")])
            .fails(HU, S1, Yes, X, Host),
        row("F008", "greeting 220- of 200 lines")
            .once(Stage::Connect, [say(&("220-hello\r\n".repeat(199) + "220 hello"))])
            .delivered(K),
        // The client leaves while the server writes, so whether the server meets RST in a read is open.
        row("F009", "greeting endless")
            .once(Stage::Connect, [Action::endless("220-hello\r\n".repeat(40), Duration::from_millis(1))])
            .fails(HU, S1, Yes, XU, Host),
        row("F009", "greeting endless in one line")
            .once(Stage::Connect, [Action::endless("220 hello".repeat(40), Duration::from_millis(1))])
            .fails(HU, S1, Yes, XU, Host),
        row("F010", "greeting dripped past deadline")
            .once(Stage::Connect, [Action::drip("220 hello\r\n".repeat(100), Duration::from_millis(30))])
            .timer(Timer::Connect)
            .fails(HU, S1, Yes, XU, Host),
    ]
}

fn tls() -> Vec<Row> {
    let mut rows = vec![
        // The server's greeting is no TLS record.
        Row::new("F011", "TLS expected, server speaks plain")
            .ways(&[TLS_TO_PLAIN])
            .client_misbehaves()
            .stays_wrong()
            .fails(HU, S1, Yes, XU, Host),
        Row::new("F011", "TLS expected after STARTTLS, server goes on in plain")
            .ways(&[STARTTLS])
            .once(Stage::TlsHandshake, [BEHIND_THE_220, say("250 what?"), Action::Silence])
            .fails(HU, S1, Yes, X, Host),
        Row::new("F012", "plain expected, server speaks TLS")
            .ways(&[PLAIN_TO_TLS])
            .timer(Timer::Connect)
            .stays_wrong()
            .fails(HU, S1, Yes, XU, Host),
        Row::new("F013", "TLS handshake stalls after ClientHello")
            .ways(&[TLS, STARTTLS])
            .once(Stage::TlsHandshake, [Action::Silence])
            .timer(Timer::Connect)
            .fails(HU, S1, Yes, X, Host),
        Row::new("F015", "TLS alert handshake_failure")
            .ways(&[TLS, STARTTLS])
            .once(Stage::TlsHandshake, [BEHIND_THE_220, Action::reply(HANDSHAKE_FAILURE), Action::Silence])
            .fails(HU, S1, Yes, X, Host),
        Row::new("F015", "RST in the handshake")
            .ways(&[TLS, STARTTLS])
            .once(Stage::TlsHandshake, [Action::Reset])
            .fails(HU, S1, Yes, XU, Host),
        Row::new("F015", "FIN in the handshake")
            .ways(&[TLS, STARTTLS])
            .once(Stage::TlsHandshake, [Action::Fin])
            .fails(HU, S1, Yes, XU, Host),
    ];
    let kinds = [
        CertificateKind::WrongName,
        CertificateKind::Expired,
        CertificateKind::NotYetValid,
        CertificateKind::SelfSigned,
        CertificateKind::UnknownAuthority,
    ];
    for kind in kinds {
        rows.push(
            Row::new("F014", certificate_name(kind))
                .ways(&[TLS, STARTTLS])
                .server(move |server| server.certificate(kind).credentials("user", "secret"))
                .host(|host| host.credentials("user", "secret"))
                .stays_wrong()
                .check(nothing_confidential)
                .fails(PF, S1, No, XU, Host),
        );
    }
    rows.push(
        Row::new("F014", "certificate of an authority nobody told us of")
            .ways(&[TLS, STARTTLS])
            .trusting_nobody()
            .stays_wrong()
            .check(nothing_confidential)
            .fails(PF, S1, No, XU, Host),
    );
    rows
}

const fn certificate_name(kind: CertificateKind) -> &'static str {
    match kind {
        CertificateKind::WrongName => "certificate of another name",
        CertificateKind::Expired => "certificate expired",
        CertificateKind::NotYetValid => "certificate not yet valid",
        CertificateKind::SelfSigned => "certificate self-signed",
        _ => "certificate of an unknown authority",
    }
}

/// Neither AUTH nor MAIL, in clear or under TLS.
fn nothing_confidential(seen: &Seen<'_>) -> Result<(), String> {
    let said = seen.dialogue.commands();
    let is_silent = !said.iter().any(|line| line.starts_with("AUTH") || line.starts_with("MAIL"));
    require(is_silent, format!("the client said {said:?}"))
}

fn hello() -> Vec<Row> {
    vec![
        Row::new("F016", "EHLO 421")
            .ways(&[PLAIN, STARTTLS, TLS])
            .once(Stage::Ehlo, [say("421 4.3.2 not now")])
            .fails(HU, S1, Yes, DQ, Host),
        Row::new("F016", "EHLO 421 under STARTTLS")
            .ways(&[STARTTLS])
            .script(Script::new().on_nth(Stage::Ehlo, 2, [say("421 4.3.2 not now")]))
            .fails(HU, S1, Yes, DQ, Host),
        Row::new("F017", "EHLO 502, TLS required")
            .ways(&[STARTTLS])
            .once(Stage::Ehlo, [say("502 5.5.1 what?")])
            .check(nothing_confidential)
            .fails(PF, S1, No, DQ, Host),
        Row::new("F018", "EHLO reply without STARTTLS, required")
            .ways(&[STARTTLS_TO_PLAIN])
            .server(|server| server.credentials("user", "secret"))
            .host(|host| host.credentials("user", "secret"))
            .stays_wrong()
            .check(nothing_confidential)
            .fails(PF, S1, No, DQ, Host),
        Row::new("F019", "STARTTLS 454")
            .ways(&[STARTTLS])
            .once(Stage::StartTls, [say("454 4.7.0 not now")])
            .check(nothing_confidential)
            .fails(RT, S1, Yes, DQ, Host),
        Row::new("F020", "STARTTLS 220 and more lines in one packet")
            .ways(&[STARTTLS])
            .once(Stage::StartTls, [say("220 go\r\n250-x\r\n250 AUTH LOGIN")])
            .check(nothing_confidential)
            .fails(CC, S1, No, X, Host),
        Row::new("F020", "STARTTLS 220 and half a line in one packet")
            .ways(&[STARTTLS])
            .once(Stage::StartTls, [Action::reply("220 go\r\n2")])
            .check(nothing_confidential)
            .fails(CC, S1, No, X, Host),
        // The server notes a violation if anything is pipelined nevertheless.
        Row::new("F021", "second EHLO loses PIPELINING")
            .ways(&[STARTTLS])
            .script(Script::new().on_nth(Stage::Ehlo, 2, [say("250-localhost\r\n250 SIZE 1000000")]))
            .check(|seen| {
                let pipelined = seen.dialogue.events().iter().any(|event| {
                    matches!(event, smtp_pool::testing::Event::Client { bytes, .. }
                        if bytes.starts_with(b"MAIL") && bytes.iter().filter(|byte| **byte == b'\n').count() > 1)
                });
                require(!pipelined, "MAIL did not leave alone")
            })
            .delivered(K),
    ]
}

fn login() -> Vec<Row> {
    let row = |id, what| Row::new(id, what).ways(&[TLS, STARTTLS]).with_login();
    let mut rows = vec![
        row("F022", "AUTH 535: the password is wrong")
            .host(|host| host.credentials("user", "wrong"))
            .stays_wrong()
            .check(one_login)
            .fails(PF, S1, No, DQ, Longest),
        row("F022", "AUTH 535 by LOGIN")
            .host(|host| host.credentials("user", "wrong").auth_mechanisms([Mechanism::Login]))
            .stays_wrong()
            .check(one_login)
            .fails(PF, S1, No, DQ, Longest),
        row("F023", "AUTH 454").once(Stage::Auth, [say("454 4.7.0 not now")]).fails(RT, S1, Yes, DQ, Host),
        row("F025", "AUTH 421 then FIN")
            .once(Stage::Auth, [say("421 4.3.2 going"), Action::Fin])
            .fails(HU, S1, Yes, D, Host),
        row("F026", "AUTH 334 endless, PLAIN")
            .script(Script::new().on(Stage::Auth, [say("334 ")]).on(Stage::AuthStep, [say("334 ")]))
            .check(few_steps)
            .fails(CC, S1, No, X, Host),
        row("F026", "AUTH 334 endless, LOGIN")
            .host(|host| host.credentials("user", "secret").auth_mechanisms([Mechanism::Login]))
            .script(Script::new().on(Stage::Auth, [say("334 ")]).on(Stage::AuthStep, [say("334 ")]))
            .check(few_steps)
            .fails(CC, S1, No, X, Host),
        row("F027", "XOAUTH2 334 and JSON, then 535, then a token that was asked for anew")
            .server(|server| server.credentials("user", "token").auth_mechanisms(&["XOAUTH2"]))
            .host(|host| {
                let calls = AtomicUsize::new(0);
                host.auth_mechanisms([Mechanism::Xoauth2]).credentials_with(move || {
                    let is_first = calls.fetch_add(1, Ordering::SeqCst) == 0;
                    Ok(Credentials::new("user", if is_first { "stale token" } else { "token" }))
                })
            })
            .script(
                Script::new()
                    .once(Stage::Auth, [say("334 eyJzdGF0dXMiOiI0MDEifQ==")])
                    .once(Stage::AuthStep, [say("535 5.7.8 token expired")]),
            )
            .check(|seen| {
                let said = seen.dialogue.commands();
                let logins = said.iter().filter(|line| line.starts_with("AUTH XOAUTH2 ")).count();
                require(logins == 2, format!("{logins} logins on the connection, not one and one more"))
            })
            .delivered(K),
        row("F027", "XOAUTH2 334 and JSON, then 535, and nobody to ask")
            .server(|server| server.credentials("user", "token").auth_mechanisms(&["XOAUTH2"]))
            .host(|host| host.credentials("user", "stale token").auth_mechanisms([Mechanism::Xoauth2]))
            .stays_wrong()
            .script(
                Script::new()
                    .once(Stage::Auth, [say("334 eyJzdGF0dXMiOiI0MDEifQ==")])
                    .once(Stage::AuthStep, [say("535 5.7.8 token expired")]),
            )
            .check(|seen| {
                let said = seen.dialogue.commands();
                let at = said.iter().position(|line| line.starts_with("AUTH XOAUTH2 "));
                let answer = at.and_then(|at| said.get(at + 1)).map(String::as_str);
                require(answer == Some(""), format!("the challenge was answered with {answer:?}, not an empty line"))
            })
            .fails(PF, S1, No, DQ, Longest),
        row("F028", "AUTH LOGIN prompts in another language and casing")
            .host(|host| host.credentials("user", "secret").auth_mechanisms([Mechanism::Login]))
            .script(
                Script::new()
                    .once(Stage::Auth, [say(GERMAN_USER)])
                    .on_nth(Stage::AuthStep, 1, [say(ODD_PASSWORD)])
                    .on_nth(Stage::AuthStep, 2, [say("235 ok")]),
            )
            .check(|seen| {
                let said = seen.dialogue.commands();
                let expected = ["AUTH LOGIN", "dXNlcg==", "c2VjcmV0"];
                require(said.windows(3).any(|lines| lines == expected), format!("the client said {said:?}"))
            })
            .delivered(K),
        row("F029", "AUTH 235 split byte by byte")
            .once(Stage::Auth, [Action::drip("235-2.7.0 well\r\n235 2.7.0 come\r\n", Duration::from_millis(2))])
            .delivered(K),
        row("F030", "AUTH reply lost").once(Stage::Auth, [Action::Silence]).timer(Timer::Auth).fails_as(
            &[RT, HU],
            S1,
            Yes,
            X,
            Host,
        ),
        row("F030", "AUTH reply lost, FIN").once(Stage::Auth, [Action::HalfClose]).fails_as(
            &[RT, HU],
            S1,
            Yes,
            X,
            Host,
        ),
        row("F030", "AUTH reply lost, RST").once(Stage::Auth, [Action::Reset]).fails_as(&[RT, HU], S1, Yes, XU, Host),
        // Cooldown "cap" needs live connections, see fault_matrix.rs. Without one the host has failed: P27.
        row("F031", "432 4.3.2 at AUTH, no live connections")
            .once(Stage::Auth, [say("432 4.3.2 Concurrent connections limit exceeded")])
            .fails(RT, S1, Yes, DQ, Host),
    ];
    for (what, reply) in [
        ("AUTH 534", "534 5.7.9 mechanism too weak"),
        ("AUTH 538", "538 5.7.11 encryption required"),
        ("AUTH 504", "504 5.5.4 not implemented"),
    ] {
        rows.push(row("F024", what).once(Stage::Auth, [say(reply)]).check(one_login).fails(PF, S1, No, DQ, Longest));
    }
    // The password is as wrong in clear, where the settings allow it to go.
    rows.push(
        Row::new("F022", "AUTH 535 in clear, as the settings allow")
            .ways(&[PLAIN, LOCKSTEP])
            .server(|server| server.credentials("user", "secret"))
            .host(|host| host.credentials("user", "wrong").dangerous_plaintext_auth(true))
            .stays_wrong()
            .check(one_login)
            .fails(PF, S1, No, DQ, Longest),
    );
    rows
}

/// Wrong passwords lock accounts: one try is all.
fn one_login(seen: &Seen<'_>) -> Result<(), String> {
    let tries = seen.server.snapshot().reached(Stage::Auth);
    require(tries == 1, format!("AUTH was tried {tries} times"))
}

fn few_steps(seen: &Seen<'_>) -> Result<(), String> {
    let steps = seen.server.snapshot().reached(Stage::AuthStep);
    require(steps <= 3, format!("{steps} challenges were answered"))
}
