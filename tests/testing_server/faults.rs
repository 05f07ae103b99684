//! Every stage and every action of a script.

use std::io::ErrorKind;
use std::time::Duration;

use smtp_pool::testing::{Action, Event, Script, Stage, TestServer};

use crate::client::{Client, TIMEOUT};

fn scripted(script: Script) -> TestServer {
    TestServer::builder().script(script).start()
}

fn on(stage: Stage, actions: impl IntoIterator<Item = Action>) -> TestServer {
    scripted(Script::new().on(stage, actions))
}

const PAUSE: Duration = Duration::from_millis(1);

#[test]
fn every_command_can_be_answered_otherwise() {
    for (stage, line) in [
        (Stage::Ehlo, "EHLO me"),
        (Stage::StartTls, "STARTTLS"),
        (Stage::Auth, "AUTH PLAIN"),
        (Stage::Mail, "MAIL FROM:<a@b.c>"),
        (Stage::Rcpt, "RCPT TO:<a@b.c>"),
        (Stage::Data, "DATA"),
        (Stage::Bdat, "BDAT 0 LAST"),
        (Stage::Rset, "RSET"),
        (Stage::Noop, "NOOP"),
        (Stage::Quit, "QUIT"),
        (Stage::Other, "XYZZY"),
    ] {
        let server = on(stage, [Action::reply("451 4.3.0 later\r\n"), Action::Fin]);
        let mut client = Client::silent(&server);
        client.reply();
        client.send(format!("{line}\r\n"));
        assert_eq!(client.rest(), "451 4.3.0 later\r\n", "{stage:?}");

        let server = on(stage, [Action::Reset]);
        let mut client = Client::silent(&server);
        client.reply();
        client.send(format!("{line}\r\n"));
        assert_eq!(client.rest_until_reset(), "", "{stage:?}");
        assert_eq!(server.snapshot().reached(stage), 1);
    }
}

#[test]
fn greetings() {
    assert_eq!(Client::silent(&on(Stage::Connect, [Action::Fin])).rest(), "");
    let server = on(Stage::Connect, [Action::drip("220-a\r\n220 b\r\n", PAUSE)]);
    let mut client = Client::silent(&server);
    assert_eq!(client.reply(), "220-a\r\n220 b\r\n");
    assert_eq!(server.transcript(1).events().len(), 14);
    assert_eq!(client.say("HELO me")[..3], *"250");

    let server = on(Stage::Connect, [Action::endless("220-more\r\n", PAUSE)]);
    let mut client = Client::silent(&server);
    assert_eq!(client.exactly(50), b"220-more\r\n".repeat(5));
    drop(client);
    server.connection(1).wait_closed();

    let server = on(Stage::Connect, [Action::Silence]);
    let mut client = Client::silent(&server);
    client.send("EHLO me\r\n");
    client.nothing_comes();
    assert!(server.connection(1).transcript().client_bytes() == b"EHLO me\r\n");
}

#[test]
fn rules_for_one_occasion_win_and_can_be_asserted() {
    let script = Script::new()
        .on(Stage::Rcpt, [Action::reply("450 always\r\n")])
        .on_command(Stage::Rcpt, "nobody@", [Action::reply("550 never used: the rule above comes first\r\n")])
        .once(Stage::Rcpt, [Action::reply("251 first\r\n")])
        .once(Stage::Rcpt, [Action::reply("252 second\r\n")])
        .on_nth(Stage::Rcpt, 4, [Action::Default])
        .on_connection(2, Stage::Mail, [Action::reply("451 not here\r\n")])
        .on_connection_nth(2, Stage::Mail, 3, [Action::Fin]);
    let server = scripted(script);
    let mut client = Client::ready(&server);
    client.say("MAIL FROM:<a@b.c>");
    let codes =
        client.codes(&["RCPT TO:<1@b.c>", "RCPT TO:<2@b.c>", "RCPT TO:<nobody@b.c>", "RCPT TO:<4@b.c>", "DATA"]);
    assert_eq!(codes, ["251", "252", "450", "250", "354"]);
    client.say(".");
    assert_eq!(server.messages()[0].recipients(), ["1@b.c", "2@b.c", "4@b.c"], "the server believes its own replies");

    let unused = std::panic::catch_unwind(|| server.assert_script_used()).unwrap_err();
    let text = unused.downcast_ref::<String>().unwrap();
    assert!(text.contains("Mail, occasion 1 on connection 2") && text.contains("Mail, occasion 3 on"), "{text}");
    let mut client = Client::ready(&server);
    assert_eq!(client.codes(&["MAIL FROM:<a@b.c>", "MAIL FROM:<a@b.c>"]), ["451", "250"]);
    client.send("MAIL FROM:<a@b.c>\r\n");
    assert_eq!(client.rest(), "");
    server.assert_script_used();
}

#[test]
fn a_command_rule_sees_the_line() {
    let server = scripted(Script::new().on_command(Stage::Rcpt, "NOBODY@", [Action::reply("550 no\r\n")]));
    let mut client = Client::ready(&server);
    client.say("MAIL FROM:<a@b.c>");
    assert_eq!(
        client.codes(&["RCPT TO:<nobody@b.c>", "RCPT TO:<some@b.c>", "RCPT TO:<Nobody@b.c>"]),
        ["550", "250", "550"]
    );
}

#[test]
fn replies_can_be_swallowed_doubled_halved_and_replaced() {
    let server = scripted(
        Script::new()
            .on_nth(Stage::Rcpt, 1, [Action::Proceed])
            .on_nth(Stage::Noop, 1, [])
            .on_nth(Stage::Noop, 2, [Action::Default, Action::reply("250 twice\r\n")])
            .on_nth(Stage::EndOfData, 1, [Action::Proceed, Action::reply("251 odd\r\n")])
            .on_nth(Stage::EndOfData, 2, [Action::reply("25"), Action::Fin]),
    );
    let mut client = Client::ready(&server);
    client.send("MAIL FROM:<a@b.c>\r\nRCPT TO:<1@b.c>\r\nRCPT TO:<2@b.c>\r\nDATA\r\n");
    assert_eq!(
        [client.reply(), client.reply(), client.reply()].map(|reply| reply[..3].to_owned()),
        ["250", "250", "354"]
    );
    assert_eq!(client.say("Message-ID: <1>\r\n\r\n."), "251 odd\r\n");
    assert_eq!(server.messages()[0].recipients().len(), 2);
    client.send("NOOP\r\n");
    client.nothing_comes();
    assert_eq!(client.say("NOOP"), "250 2.0.0 still here\r\n");
    assert_eq!(client.reply(), "250 twice\r\n");
    client.codes(&["MAIL FROM:<a@b.c>", "RCPT TO:<1@b.c>", "DATA"]);
    client.send("Message-ID: <2>\r\n\r\n.\r\n");
    assert_eq!(client.rest(), "25");
    assert_eq!((server.accepted("1"), server.accepted("2")), (1, 0));
}

#[test]
fn the_end_of_data() {
    for (actions, reply, stored) in [
        (vec![Action::Accept, Action::Fin], "", 1),
        (vec![Action::Fin], "", 0),
        (vec![Action::reply("250\r\n"), Action::Fin], "250\r\n", 1),
        (vec![Action::Accept, Action::reply("250 once\r\n"), Action::Fin], "250 once\r\n", 1),
        (vec![Action::reply("250-ok\r\n"), Action::Fin], "250-ok\r\n", 0),
        (vec![Action::reply("221 bye\r\n"), Action::Fin], "221 bye\r\n", 0),
        (vec![Action::reply("354 again\r\n"), Action::Fin], "354 again\r\n", 0),
        (vec![Action::reply("421 no\r\n250 yes\r\n"), Action::Fin], "421 no\r\n250 yes\r\n", 0),
        (vec![Action::Default, Action::Fin], "250 2.0.0 queued as 1\r\n", 1),
    ] {
        let server = on(Stage::EndOfData, actions.clone());
        let mut client = Client::ready(&server);
        client.codes(&["MAIL FROM:<a@b.c>", "RCPT TO:<1@b.c>", "DATA"]);
        client.send("Message-ID: <1>\r\n\r\n.\r\n");
        assert_eq!(client.rest(), reply, "{actions:?}");
        assert_eq!(server.accepted("1"), stored, "{actions:?}");
    }
    // A refusal ends the transaction and nothing else.
    let server = scripted(Script::new().once(Stage::EndOfData, [Action::reply("452 full\r\n")]));
    let mut client = Client::ready(&server);
    assert_eq!(client.mail("1"), "452 full\r\n");
    assert_eq!(client.mail("1")[..3], *"250");
    assert_eq!(server.accepted("1"), 1);
}

#[test]
fn data_and_body() {
    let server = on(Stage::Data, [Action::reply("354 go\r\n"), Action::Fin]);
    let mut client = Client::ready(&server);
    client.codes(&["MAIL FROM:<a@b.c>", "RCPT TO:<1@b.c>"]);
    client.send("DATA\r\n");
    assert_eq!(client.rest(), "354 go\r\n");

    // 354 though every recipient was refused: the lone dot gets 554 and nothing is stored.
    let server = on(Stage::Data, [Action::reply("354 go\r\n")]);
    let mut client = Client::ready(&server);
    assert_eq!(client.codes(&["MAIL FROM:<a@b.c>", "RCPT TO:<>", "DATA", "."]), ["250", "501", "354", "554"]);
    assert_eq!(server.messages().len(), 0);

    let script = Script::new().on(Stage::Body, [Action::reply("552 too big\r\n"), Action::HalfClose]).after_bytes(1000);
    let server = scripted(script);
    let mut client = Client::ready(&server);
    client.codes(&["MAIL FROM:<a@b.c>", "RCPT TO:<1@b.c>", "DATA"]);
    client.send("x".repeat(999));
    client.nothing_comes();
    client.send("x");
    assert_eq!(client.rest(), "552 too big\r\n");
    client.send("\r\n.\r\n");
    assert!(server.wait_for(|seen| seen.messages() == 1, TIMEOUT), "it reads on");

    // An answer before the dot, and the dot's own.
    let server = on(Stage::Body, [Action::reply("250 early\r\n")]);
    let mut client = Client::ready(&server);
    client.codes(&["MAIL FROM:<a@b.c>", "RCPT TO:<1@b.c>", "DATA"]);
    assert_eq!(client.reply(), "250 early\r\n");
    assert_eq!(client.say(".")[..3], *"250");

    let server = scripted(Script::new().on(Stage::Body, [Action::Reset]).after_bytes(5));
    let mut client = Client::ready(&server);
    client.codes(&["MAIL FROM:<a@b.c>", "RCPT TO:<1@b.c>", "DATA"]);
    client.send("12345");
    client.rest_until_reset();
}

#[test]
fn chunks() {
    let start = |script| TestServer::builder().chunking(true).script(script).start();
    let group = "MAIL FROM:<a@b.c>\r\nRCPT TO:<1@b.c>\r\n";
    let server = start(Script::new().on_nth(Stage::Bdat, 2, [Action::reply("452 full\r\n")]));
    let mut client = Client::ready(&server);
    client.send(format!("{group}BDAT 3\r\n1\r\nBDAT 3 LAST\r\n2\r\nNOOP\r\n"));
    let codes: Vec<String> = (0..5).map(|_| client.reply()[..3].to_owned()).collect();
    assert_eq!(codes, ["250", "250", "250", "452", "250"]);
    assert_eq!(server.messages().len(), 0);

    let chunk_of_commands = Script::new().on(Stage::Bdat, [Action::ChunkAsCommands, Action::reply("503 what\r\n")]);
    let server = start(chunk_of_commands);
    let mut client = Client::ready(&server);
    client.send(format!("{group}BDAT 12 LAST\r\nHello\r\nyou\r\n"));
    let codes: Vec<String> = (0..5).map(|_| client.reply()[..3].to_owned()).collect();
    assert_eq!(codes, ["250", "250", "503", "500", "500"]);

    let server = start(Script::new().on(Stage::EndOfData, [Action::Accept, Action::Fin]));
    let mut client = Client::ready(&server);
    client.send(format!("{group}BDAT 19 LAST\r\nMessage-ID: <1>\r\n\r\n"));
    assert_eq!(client.rest(), "250 2.1.0 sender ok\r\n250 2.1.5 recipient ok\r\n");
    assert_eq!(server.accepted("1"), 1);

    let server = start(Script::new().on(Stage::Bdat, [Action::reply("250 mine\r\n")]));
    let mut client = Client::ready(&server);
    client.send(format!("{group}BDAT 10\r\nMessage-IDBDAT 9 LAST\r\n: <1>\r\n\r\n"));
    client.reply();
    client.reply();
    assert_eq!([client.reply(), client.reply()], ["250 mine\r\n", "250 mine\r\n"]);
    assert_eq!(server.accepted("1"), 1);

    // Chunks count for the body's rule too.
    let server = start(Script::new().on(Stage::Body, [Action::Fin]).after_bytes(4));
    let mut client = Client::ready(&server);
    client.codes(&["MAIL FROM:<a@b.c>", "RCPT TO:<1@b.c>"]);
    client.send("BDAT 9 LAST\r\n1234");
    assert_eq!(client.rest(), "");
}

#[test]
fn authentication_by_script() {
    let start = |script| TestServer::builder().credentials("user", "secret").script(script).start();
    let server = start(Script::new().on(Stage::AuthStep, [Action::reply("334 more\r\n")]));
    let mut client = Client::ready(&server);
    let lines = ["AUTH LOGIN", "a", "b", "MAIL FROM:<a@b.c>"];
    assert_eq!(client.codes(&lines), ["334"; 4], "an endless exchange");
    assert_eq!(server.snapshot().reached(Stage::AuthStep), 3);

    let server =
        start(Script::new().on(Stage::Auth, [Action::reply("334 VXNlcg==\r\n")]).once(Stage::AuthStep, [Action::Fin]));
    let mut client = Client::ready(&server);
    assert_eq!(client.codes(&["AUTH X"]), ["334"]);
    client.send("eA==\r\n");
    assert_eq!(client.rest(), "");

    let server = start(Script::new().on(Stage::Auth, [Action::drip("235 2.7.0 in\r\n", PAUSE)]));
    let mut client = Client::ready(&server);
    assert_eq!(client.codes(&["AUTH PLAIN", "MAIL FROM:<a@b.c>"]), ["235", "250"]);
    let server = start(Script::new().once(Stage::Auth, [Action::reply("454 4.7.0 later\r\n")]));
    let mut client = Client::ready(&server);
    assert_eq!(client.codes(&["AUTH PLAIN AHVzZXIAc2VjcmV0", "MAIL FROM:<a@b.c>"]), ["454", "530"]);
    assert_eq!(client.codes(&["AUTH PLAIN AHVzZXIAc2VjcmV0", "MAIL FROM:<a@b.c>"]), ["235", "250"]);
}

#[test]
fn what_follows_from_a_command_waits_for_the_end_of_the_list() {
    let server = on(Stage::Quit, [Action::Proceed, Action::reply("221 mine\r\n")]);
    let mut client = Client::ready(&server);
    client.send("QUIT\r\n");
    assert_eq!(client.rest(), "221 mine\r\n");
    let server = on(Stage::Data, [Action::Default, Action::barrier("after 354")]);
    let mut client = Client::ready(&server);
    client.codes(&["MAIL FROM:<a@b.c>", "RCPT TO:<1@b.c>", "DATA"]);
    client.send("Message-ID: <1>\r\n\r\n.\r\n");
    server.wait_until_reached("after 354");
    assert_eq!(server.accepted("1"), 0);
    server.release("after 354");
    assert_eq!(client.reply()[..3], *"250");
}

#[test]
fn a_second_ehlo_can_lose_pipelining() {
    let server = scripted(Script::new().on_nth(Stage::Ehlo, 2, [Action::reply("250-localhost\r\n250 SIZE\r\n")]));
    let mut client = Client::ready(&server);
    client.say("EHLO again");
    client.send("RSET\r\nNOOP\r\n");
    assert_eq!(client.rest(), "250 2.0.0 reset\r\n500 5.5.1 pipelining not supported\r\n");
}

#[test]
fn half_close_and_silence_read_on() {
    let server = on(Stage::Mail, [Action::HalfClose, Action::Silence]);
    let mut client = Client::ready(&server);
    client.send("MAIL FROM:<a@b.c>\r\n");
    assert_eq!(client.rest(), "");
    client.send("NOOP\r\n");
    drop(client);
    server.connection(1).wait_closed();
    let transcript = server.transcript(1);
    assert!(transcript.client_bytes().ends_with(b"NOOP\r\n"));
    assert!(transcript.events().contains(&Event::ClientClosed));
}

#[test]
fn stop_reading_fills_the_window() {
    let script = Script::new().on(Stage::Body, [Action::StopReading]);
    let server = TestServer::builder().socket_buffers(4096).script(script).start();
    let mut client = Client::ready(&server);
    client.codes(&["MAIL FROM:<a@b.c>", "RCPT TO:<1@b.c>", "DATA"]);
    client.socket().set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let error = client.try_send(vec![b'x'; 50_000_000]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    assert_eq!(server.connections_open(), 1);
}

#[test]
fn idle_comes_after_the_answer_to_a_message() {
    let server = on(Stage::Idle, [Action::reply("421 4.4.2 timeout\r\n"), Action::Fin]);
    let mut client = Client::ready(&server);
    assert_eq!(client.mail("1")[..3], *"250");
    assert_eq!(client.rest(), "421 4.4.2 timeout\r\n");
    assert_eq!(server.accepted("1"), 1);
}

#[test]
fn delays_end_with_the_server() {
    let server = on(Stage::Noop, [Action::DelayFor(Duration::from_millis(5)), Action::Default]);
    assert_eq!(Client::ready(&server).say("NOOP")[..3], *"250");
    server.set_script(Script::new().on(Stage::Noop, [Action::DelayFor(Duration::MAX)]));
    let mut client = Client::ready(&server);
    client.send("NOOP\r\n");
    assert!(server.wait_for(|seen| seen.reached(Stage::Noop) == 2, TIMEOUT));
    drop(server);
}
