//! STARTTLS, implicit TLS, certificates.

use smtp_pool::testing::{Action, CertificateKind, Event, Script, Security, Stage, TestServer};

use crate::client::Client;

#[test]
fn starttls_hides_auth_until_it_is_done_and_forgets_the_plain_part() {
    let server =
        TestServer::builder().security(Security::StartTls).require_tls(true).credentials("user", "secret").start();
    assert_eq!(server.url(), format!("smtp://127.0.0.1:{}?tls=required", server.port()));
    let mut client = Client::silent(&server);
    client.reply();
    let ehlo = client.say("EHLO me");
    assert!(ehlo.contains("STARTTLS") && !ehlo.contains("AUTH"), "{ehlo}");
    assert_eq!(
        client.codes(&["AUTH PLAIN AHVzZXIAc2VjcmV0", "MAIL FROM:<a@b.c>", "STARTTLS x"]),
        ["538", "530", "501"]
    );
    assert_eq!(client.say("STARTTLS")[..3], *"220");
    let mut client = client.tls(&server).unwrap();
    assert_eq!(client.codes(&["MAIL FROM:<a@b.c>", "AUTH PLAIN AHVzZXIAc2VjcmV0"]), ["503", "503"]);
    let ehlo = client.say("EHLO me");
    assert!(!ehlo.contains("STARTTLS") && ehlo.contains("AUTH PLAIN LOGIN"), "{ehlo}");
    assert_eq!(client.codes(&["AUTH PLAIN AHVzZXIAc2VjcmV0", "STARTTLS"]), ["235", "503"]);
    client.mail("1@x");
    assert_eq!(client.say("QUIT")[..3], *"221");
    assert_eq!(client.rest(), "");
    server.connection(1).wait_closed();

    assert!(server.messages()[0].was_encrypted());
    let transcript = server.transcript(1);
    assert!(transcript.client_plaintext().ends_with(b"STARTTLS\r\n"));
    assert!(transcript.server_plaintext().ends_with(b"220 2.0.0 go ahead\r\n"));
    assert!(transcript.client_encrypted().starts_with(b"MAIL FROM:<a@b.c>\r\n"));
    assert!(transcript.server_encrypted().ends_with(b"221 2.0.0 bye\r\n"));
    assert!(transcript.handshake_started() && transcript.handshake_finished());
    assert_eq!(transcript.events().iter().filter(|event| **event == Event::HandshakeStarted).count(), 1);
    assert_eq!(server.violations(), [""; 0]);
}

#[test]
fn auth_before_tls_when_asked_for() {
    let builder = TestServer::builder().security(Security::StartTls).credentials("user", "secret");
    let server = builder.auth_before_tls(true).start();
    let mut client = Client::ready(&server);
    assert_eq!(client.codes(&["AUTH PLAIN AHVzZXIAc2VjcmV0"]), ["235"]);
    client.mail("1@x");
    assert!(!server.messages()[0].was_encrypted());
}

#[test]
fn implicit_tls() {
    let server = TestServer::builder().security(Security::ImplicitTls).start();
    assert!(server.url().starts_with("smtps://"));
    let mut client = Client::silent(&server).tls(&server).unwrap();
    assert_eq!(client.reply()[..3], *"220");
    client.say("EHLO me");
    client.mail("1@x");
    assert_eq!(server.accepted("1@x"), 1);
    assert_eq!(server.transcript(1).server_plaintext(), b"");

    // A body larger than a TLS record, and the server's own close_notify.
    client.codes(&["MAIL FROM:<a@b.c>", "RCPT TO:<a@b.c>", "DATA"]);
    let body = format!("{}\r\n", "x".repeat(70)).repeat(5000);
    assert_eq!(client.say(&format!("{body}."))[..3], *"250");
    assert_eq!(server.messages()[1].content(), body.as_bytes());
    server.connection(1).send("421 bye\r\n");
    server.connection(1).close();
    assert_eq!(client.rest(), "421 bye\r\n");
}

#[test]
fn every_kind_of_bad_certificate_fails_the_handshake() {
    for kind in [
        CertificateKind::WrongName,
        CertificateKind::Expired,
        CertificateKind::NotYetValid,
        CertificateKind::SelfSigned,
        CertificateKind::UnknownAuthority,
    ] {
        let server = TestServer::builder().security(Security::ImplicitTls).certificate(kind).start();
        assert!(Client::silent(&server).tls(&server).is_err(), "{kind:?}");
        server.connection(1).wait_closed();
        assert!(!server.transcript(1).handshake_finished(), "{kind:?}");
    }
}

#[test]
fn bytes_behind_starttls_are_noted_and_dropped() {
    let server = TestServer::builder().security(Security::StartTls).start();
    let mut client = Client::ready(&server);
    client.send("STARTTLS\r\nMAIL FROM:<injected@b.c>\r\n");
    assert_eq!(client.reply()[..3], *"220");
    let mut client = client.tls(&server).unwrap();
    assert_eq!(client.codes(&["EHLO me", "RCPT TO:<a@b.c>"]), ["250", "503"]);
    assert_eq!(server.violations(), ["connection 1: bytes sent before the TLS handshake"]);
}

#[test]
fn a_script_can_inject_behind_the_220_and_the_handshake_follows() {
    let script = Script::new().on(Stage::StartTls, [Action::reply("220 go\r\n250 injected\r\n")]);
    let server = TestServer::builder().security(Security::StartTls).script(script).start();
    let mut client = Client::ready(&server);
    client.send("STARTTLS\r\n");
    assert_eq!(client.exactly(22), b"220 go\r\n250 injected\r\n");
    let mut client = client.tls(&server).unwrap();
    assert_eq!(client.say("EHLO me")[..3], *"250");
}

#[test]
fn handshakes_can_stall_break_or_turn_plain() {
    let start = |actions: Vec<Action>| {
        TestServer::builder()
            .security(Security::ImplicitTls)
            .script(Script::new().on(Stage::TlsHandshake, actions))
            .start()
    };
    let server = start(vec![Action::Silence]);
    let mut client = Client::silent(&server);
    client.send("\x16\x03\x01");
    client.nothing_comes();
    // A fatal handshake_failure alert.
    let server = start(vec![Action::reply(b"\x15\x03\x03\x00\x02\x02\x28"), Action::Fin]);
    assert!(Client::silent(&server).tls(&server).is_err());
    let server = start(vec![Action::Reset]);
    Client::silent(&server).rest_until_reset();
    let server = start(vec![]);
    assert_eq!(Client::silent(&server).reply()[..3], *"220");
    // TLS where the client expects plain text.
    let script = Script::new().on(Stage::Connect, [Action::StartTlsNow, Action::Default]);
    let server = TestServer::builder().script(script).start();
    let mut client = Client::silent(&server).tls(&server).unwrap();
    assert_eq!(client.reply()[..3], *"220");
}

#[test]
fn an_idle_tls_session_can_end_in_each_way() {
    let connect = |server: &TestServer| {
        let mut client = Client::silent(server).tls(server).unwrap();
        client.reply();
        client
    };
    let server = TestServer::builder().security(Security::ImplicitTls).start();
    let mut client = connect(&server);
    server.connection(1).close_notify();
    assert_eq!(client.read(&mut [0; 9]).unwrap(), 0);
    assert!(!server.connection(1).is_closed());

    let mut client = connect(&server);
    server.connection(2).send_plaintext("421 4.4.2 timeout\r\n");
    let error = client.read(&mut [0; 99]).unwrap_err();
    assert!(error.to_string().contains("wrong version number"), "{error}");

    connect(&server);
    let mut client = connect(&server);
    server.connection(4).reset();
    client.rest_until_reset();

    // FIN without close_notify.
    let mut client = connect(&server);
    server.connection(5).half_close();
    assert!(!matches!(client.read(&mut [0; 9]), Ok(1..)));
}
