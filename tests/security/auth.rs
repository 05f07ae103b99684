//! SEC-11, SEC-19, SEC-20: what a server must be before it gets a password, and how far it can go with asking.

use lettre::transport::smtp::authentication::Mechanism;
use smtp_pool::testing::{Action, Script, Security, Stage, TestServer};
use smtp_pool::{FailureKind, Host, SendStage};

use crate::common::*;
use crate::{assert_nothing_given, secret_host, with_secret};

#[test]
fn sec_11_no_credentials_in_the_clear() {
    let server = with_secret(Security::Plain).start();
    let error =
        send(&sender(plain(&server).credentials("user", "secret")).max_retries(3).build().unwrap(), "clear@security")
            .unwrap_err();
    assert_eq!(
        (error.kind(), error.attempts(), error.is_retry_safe()),
        (FailureKind::PermanentFailure, 1, false),
        "{error}"
    );
    assert_nothing_given(&server, &error);
    assert!(error.to_string().contains("dangerous_plaintext_auth"), "the way out is named: {error}");
    // Asked for by name, it is done.
    let host = plain(&server).credentials("user", "secret").dangerous_plaintext_auth(true);
    send(&sender(host).build().unwrap(), "asked@security").unwrap();
    assert_eq!(server.messages()[0].authenticated_as(), Some("user"));
    // Where TLS is required, allowing plaintext AUTH does not make it optional.
    let server = with_secret(Security::StartTls)
        .script(Script::new().on(Stage::Ehlo, [Action::reply("250-localhost\r\n250 AUTH PLAIN\r\n")]))
        .start();
    let error = send(&sender(secret_host(&server).dangerous_plaintext_auth(true)).build().unwrap(), "both@security")
        .unwrap_err();
    assert_nothing_given(&server, &error);
    // Two names for two dangers: TLS only if offered does not by itself send a password in the clear.
    let server = with_secret(Security::Plain).start();
    let host = Host::dangerous_opportunistic_starttls("127.0.0.1").port(server.port()).credentials("user", "secret");
    let error = send(&sender(host.clone()).build().unwrap(), "one@security").unwrap_err();
    assert_nothing_given(&server, &error);
    send(&sender(host.dangerous_plaintext_auth(true)).build().unwrap(), "two@security").unwrap();
    assert_eq!(server.messages()[0].authenticated_as(), Some("user"));
}

#[test]
fn sec_19_only_mechanisms_that_are_allowed() {
    let server_with = |mechanisms: &[&str]| with_secret(Security::ImplicitTls).auth_mechanisms(mechanisms).start();
    let host = |server: &TestServer, allowed: Vec<Mechanism>| {
        implicit_tls(server).credentials("user", "secret").auth_mechanisms(allowed)
    };
    for (offered, allowed) in [
        (vec!["LOGIN"], vec![Mechanism::Plain]),
        (vec!["PLAIN"], vec![Mechanism::Login]),
        (vec!["PLAIN", "LOGIN"], vec![Mechanism::Xoauth2]),
        (vec!["XOAUTH2"], vec![Mechanism::Plain, Mechanism::Login]),
        (vec!["SCRAM-SHA-256", "CRAM-MD5"], vec![Mechanism::Plain, Mechanism::Login]),
        (vec![], vec![Mechanism::Plain]),
    ] {
        let server = server_with(&offered);
        let error = send(&sender(host(&server, allowed.clone())).build().unwrap(), "mechanism@security").unwrap_err();
        assert_eq!(
            (error.kind(), error.is_retry_safe()),
            (FailureKind::PermanentFailure, false),
            "{offered:?} {allowed:?}: {error}"
        );
        assert_nothing_given(&server, &error);
    }
    // The first of ours that is offered too; not the server's order.
    let server = server_with(&["LOGIN", "PLAIN"]);
    send(&sender(host(&server, vec![Mechanism::Plain, Mechanism::Login])).build().unwrap(), "plain@security").unwrap();
    send(&sender(host(&server, vec![Mechanism::Login, Mechanism::Plain])).build().unwrap(), "login@security").unwrap();
    assert!(said(&server, 1, "AUTH PLAIN") && said(&server, 2, "AUTH LOGIN"));
    // 535 is never answered with another mechanism.
    let server = server_with(&["PLAIN", "LOGIN"]);
    let wrong = implicit_tls(&server).credentials("user", "wrong");
    let error =
        send(&sender(wrong).max_retries(3).retry_base_delay(ms(1)).build().unwrap(), "wrong@security").unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (FailureKind::PermanentFailure, 1));
    assert_eq!(server.snapshot().reached(Stage::Auth), 1);
}

#[test]
fn sec_20_no_challenge_after_another() {
    for mechanism in [Mechanism::Plain, Mechanism::Login, Mechanism::Xoauth2] {
        let name = mechanism.to_string();
        let server = with_secret(Security::ImplicitTls)
            .auth_mechanisms(&[&name])
            .script(
                Script::new()
                    .on(Stage::Auth, [Action::reply("334 \r\n")])
                    .on(Stage::AuthStep, [Action::reply("334 \r\n")]),
            )
            .start();
        let host = implicit_tls(&server).credentials("user", "secret").auth_mechanisms([mechanism]);
        let error = send(&sender(host).build().unwrap(), "challenge@security").unwrap_err();
        assert_eq!((error.kind(), error.is_retry_safe()), (FailureKind::ConnectionCorrupted, false), "{error}");
        assert!(server.snapshot().reached(Stage::AuthStep) <= 3, "{mechanism}");
        server.connection(1).wait_closed();
        assert!(!said(&server, 1, "QUIT"));
    }
    // A challenge longer than any.
    let server = with_secret(Security::ImplicitTls)
        .auth_mechanisms(&["LOGIN"])
        .script(Script::new().on(Stage::Auth, [Action::reply(format!("334 {}\r\n", "A".repeat(20_000)))]))
        .start();
    let host = implicit_tls(&server).credentials("user", "secret").auth_mechanisms([Mechanism::Login]);
    let error = send(&sender(host).build().unwrap(), "long@security").unwrap_err();
    assert_eq!(error.stage(), SendStage::Connected, "{error}");
    assert_eq!(server.snapshot().reached(Stage::AuthStep), 0);
}
