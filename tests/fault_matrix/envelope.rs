//! F041–F071: faults in the envelope, up to the answer to DATA.

use smtp_pool::RecipientStatus::{self, Accepted, Refused, RefusedForNow};
use smtp_pool::testing::{Action, Script, Stage};

use super::harness::{
    CC, D, DQ, K, KR, LOCKSTEP, Longest, No, Nobody, Once, PF, PLAIN, RB, RT, Row, S3, Seen, TLS, Timer, X, XU, Yes,
    contains, require, say,
};

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = mail();
    rows.extend(recipients());
    rows.extend(out_of_step());
    rows.extend(data());
    rows
}

fn mail() -> Vec<Row> {
    let slow_down = "451 4.7.1 not now";
    vec![
        Row::new("F041", "MAIL 451").once(Stage::Mail, [say(slow_down)]).fails(RT, S3, Yes, KR, Nobody),
        // SPEC §5 goes before the catalogue here: on a reused connection a 4xx to MAIL is taken for that session's own limit.
        Row::new("F041", "MAIL 451, reused").reused().once(Stage::Mail, [say(slow_down)]).delivered_afresh(DQ),
        Row::new("F041", "MAIL 451, reused, and again on the fresh connection")
            .reused()
            .script(Script::new().on_nth(Stage::Mail, 1, [say(slow_down)]).on_nth(Stage::Mail, 2, [say(slow_down)]))
            .connections(2)
            .not_repeated()
            .fails(RT, S3, Yes, KR, Nobody)
            .on_connection(2),
        Row::new("F042", "MAIL 550").once(Stage::Mail, [say("550 5.7.1 no")]).fails(PF, S3, No, KR, Nobody),
        Row::new("F042", "MAIL 550, reused")
            .reused()
            .once(Stage::Mail, [say("550 5.7.1 no")])
            .fails(PF, S3, No, KR, Nobody),
        Row::new("F043", "MAIL 421 then FIN, fresh")
            .once(Stage::Mail, [say("421 4.3.2 going"), Action::Fin])
            .fails(RT, S3, Yes, D, Nobody),
        Row::new("F043", "MAIL 421, fresh")
            .once(Stage::Mail, [say("421 4.3.2 going"), Action::Silence])
            .fails(RT, S3, Yes, D, Nobody),
        // RB, which on a reused connection is the free retry (SPEC §5).
        Row::new("F043", "MAIL 421 then FIN, reused")
            .reused()
            .once(Stage::Mail, [say("421 4.3.2 going"), Action::Fin])
            .delivered_afresh(D),
        Row::new("F043", "MAIL 421 then FIN, reused, and again on the fresh connection")
            .reused()
            .always(Stage::Mail, [say("421 4.3.2 going"), Action::Fin])
            .connections(2)
            .not_repeated()
            .fails(RT, S3, Yes, D, Nobody)
            .on_connection(2),
        Row::new("F043", "MAIL 221 then FIN, reused (P10)")
            .reused()
            .once(Stage::Mail, [say("221 2.0.0 bye"), Action::Fin])
            .delivered_afresh(D),
        // RB once with a new login, which is on a fresh connection and free of the budget (P25).
        Row::new("F044", "MAIL 530, reused")
            .ways(&[TLS])
            .with_login()
            .reused()
            .once(Stage::Mail, [say("530 5.7.0 authentication required")])
            .check(two_logins)
            .delivered_afresh(DQ),
        Row::new("F044", "MAIL 530 whatever the login")
            .ways(&[TLS])
            .with_login()
            .always(Stage::Mail, [say("530 5.7.0 authentication required")])
            .connections(2)
            .check(two_logins)
            .fails(PF, S3, No, DQ, Longest)
            .on_connection(2),
        Row::new("F045", "MAIL 552 SIZE").once(Stage::Mail, [say("552 5.3.4 too big")]).fails(PF, S3, No, KR, Nobody),
        Row::new("F045", "MAIL 452 SIZE").once(Stage::Mail, [say("452 4.3.1 no room")]).fails(RT, S3, Yes, KR, Nobody),
        Row::new("F046", "MAIL 555, parameter refused")
            .once(Stage::Mail, [say("555 5.5.4 SIZE?")])
            .fails(PF, S3, No, KR, Nobody),
        // Without PIPELINING no reply is missing.
        Row::new("F047", "MAIL 550 then FIN, the other replies missing")
            .ways(&[PLAIN, TLS])
            .once(Stage::Mail, [say("550 5.7.1 no"), Action::Fin])
            .check(|seen| {
                let code = seen.result.as_ref().err().and_then(|error| error.response().map(|reply| reply.code()));
                require(code == Some(550), format!("the reply reported is {code:?}, not the first one"))
            })
            .fails(PF, S3, No, D, Nobody),
        Row::new("F047", "MAIL 550 then RST, the other replies missing")
            .ways(&[PLAIN, TLS])
            .once(Stage::Mail, [say("550 5.7.1 no"), Action::Reset])
            .fails(PF, S3, No, D, Nobody),
        Row::new("F048", "MAIL no reply, open")
            .once(Stage::Mail, [Action::Silence])
            .timer(Timer::Send)
            .fails(RB, S3, Yes, X, Nobody),
        // Slow is not gone: no free retry, which would double the wait.
        Row::new("F048", "MAIL no reply, open, reused")
            .reused()
            .once(Stage::Mail, [Action::Silence])
            .timer(Timer::Send)
            .fails(RB, S3, Yes, X, Nobody),
        Row::new("F049", "MAIL FIN no reply").once(Stage::Mail, [Action::HalfClose]).fails(RB, S3, Yes, X, Nobody),
        Row::new("F049", "MAIL FIN no reply, server gone")
            .once(Stage::Mail, [Action::Fin])
            .fails(RB, S3, Yes, XU, Nobody),
        Row::new("F049", "MAIL RST no reply").once(Stage::Mail, [Action::Reset]).fails(RB, S3, Yes, XU, Nobody),
    ]
}

fn two_logins(seen: &Seen<'_>) -> Result<(), String> {
    let logins = seen.server.snapshot().reached(Stage::Auth);
    require(logins == 2, format!("{logins} logins, expected one for each connection and no more"))
}

fn recipients() -> Vec<Row> {
    let nobody = || Script::new().on_command(Stage::Rcpt, "<r2@", [say("550 5.1.1 nobody")]);
    let one_of_each = || {
        Script::new().on_nth(Stage::Rcpt, 1, [say("450 4.2.1 not now")]).on_nth(
            Stage::Rcpt,
            2,
            [say("550 5.1.1 nobody")],
        )
    };
    vec![
        Row::new("F050", "RCPT 450 sole").once(Stage::Rcpt, [say("450 4.2.1 not now")]).fails(RT, S3, Yes, KR, Nobody),
        Row::new("F050", "RCPT 450 sole, reused")
            .reused()
            .once(Stage::Rcpt, [say("450 4.2.1 not now")])
            .fails(RT, S3, Yes, KR, Nobody),
        Row::new("F051", "RCPT 550 sole").once(Stage::Rcpt, [say("550 5.1.1 nobody")]).fails(PF, S3, No, KR, Nobody),
        Row::new("F051", "RCPT 550 sole, partial ok")
            .partial()
            .once(Stage::Rcpt, [say("550 5.1.1 nobody")])
            .fails(PF, S3, No, KR, Nobody),
        Row::new("F052", "RCPT 251").once(Stage::Rcpt, [say("251 2.1.5 forwarded")]).delivered(K),
        Row::new("F052", "RCPT 252").once(Stage::Rcpt, [say("252 2.1.5 will try")]).delivered(K),
        Row::new("F053", "RCPT 551").once(Stage::Rcpt, [say("551 5.1.6 moved")]).fails(PF, S3, No, KR, Nobody),
        Row::new("F054", "2 RCPT, one 550, all or nothing")
            .recipients(2)
            .script(nobody())
            .check(|seen| outcomes(seen, &[Accepted, Refused]))
            .check(no_content)
            .fails(PF, S3, No, KR, Nobody),
        Row::new("F055", "2 RCPT, one 550, partial ok")
            .recipients(2)
            .partial()
            .script(nobody())
            .check(|seen| outcomes(seen, &[Accepted, Refused]))
            .check(|seen| {
                let messages = seen.server.messages();
                let stored = messages[0].recipients();
                require(stored == ["r1@example.com"], format!("stored for {stored:?}"))
            })
            .delivered(K),
        Row::new("F056", "2 RCPT, one 450 one 550")
            .recipients(2)
            .script(one_of_each())
            .check(|seen| outcomes(seen, &[RefusedForNow, Refused]))
            .check(no_content)
            .fails(PF, S3, No, KR, Nobody),
        Row::new("F056", "2 RCPT, one 450 one 550, partial ok")
            .recipients(2)
            .partial()
            .script(one_of_each())
            .check(|seen| outcomes(seen, &[RefusedForNow, Refused]))
            .check(no_content)
            .fails(PF, S3, No, KR, Nobody),
        Row::new("F057", "150 RCPT, 452 from #101, partial ok")
            .recipients(150)
            .partial()
            .script(from_101_on("452 4.5.3 too many recipients"))
            .check(in_two_parts)
            .transactions(2)
            .delivered(K),
        Row::new("F057", "150 RCPT, 452 from #101, all or nothing")
            .recipients(150)
            .script(from_101_on("452 4.5.3 too many recipients"))
            .check(hundred_and_fifty)
            .check(no_content)
            .fails(RT, S3, Yes, KR, Nobody),
        Row::new("F058", "552 on RCPT #101 after accepts, partial ok")
            .recipients(150)
            .partial()
            .script(from_101_on("552 5.5.3 too many recipients"))
            .check(in_two_parts)
            .transactions(2)
            .delivered(K),
        Row::new("F058", "552 on RCPT #101 after accepts, all or nothing")
            .recipients(150)
            .script(from_101_on("552 5.5.3 too many recipients"))
            .check(hundred_and_fifty)
            .check(no_content)
            .fails(RT, S3, Yes, KR, Nobody),
        // P24: on the first recipient it means what it says.
        Row::new("F058", "552 on the first RCPT (P24)")
            .once(Stage::Rcpt, [say("552 5.2.2 mailbox full")])
            .fails(PF, S3, No, KR, Nobody),
        // Our own buffers are the kernel's to size; the groups of SPEC §4 must fit the smallest of the server's.
        Row::new("F059", "2000 RCPT, tiny socket buffers")
            .recipients(2000)
            .server(|server| server.socket_buffers(4096))
            .delivered(K),
        // Both ask for DATA in the group, so for PIPELINING.
        Row::new("F060", "all RCPT 550, DATA 354, the lone dot answered 554")
            .ways(&[PLAIN, TLS])
            .script(
                Script::new()
                    .once(Stage::Rcpt, [say("550 5.1.1 nobody")])
                    .once(Stage::Data, [say("354 go on")])
                    .once(Stage::EndOfData, [say("554 5.5.1 no valid recipients")]),
            )
            .check(lone_dot)
            .fails(PF, S3, No, KR, Nobody),
        Row::new("F060", "all RCPT 550, DATA 354, the lone dot answered 250")
            .ways(&[PLAIN, TLS])
            .recipients(2)
            .partial()
            .script(
                Script::new()
                    .on_nth(Stage::Rcpt, 1, [say("550 5.1.1 nobody")])
                    .on_nth(Stage::Rcpt, 2, [say("550 5.1.1 nobody")])
                    .once(Stage::Data, [say("354 go on")])
                    .once(Stage::EndOfData, [say("250 2.0.0 fine")]),
            )
            .check(lone_dot)
            .fails(PF, S3, No, KR, Nobody),
        Row::new("F061", "all RCPT 550, DATA 554")
            .ways(&[PLAIN, TLS])
            .script(
                Script::new()
                    .once(Stage::Rcpt, [say("550 5.1.1 nobody")])
                    .once(Stage::Data, [say("554 5.5.1 no valid recipients")]),
            )
            .check(|seen| {
                let code = seen.result.as_ref().err().and_then(|error| error.response().map(|reply| reply.code()));
                require(code == Some(550), format!("the reply reported is {code:?}, not that to RCPT"))
            })
            .fails(PF, S3, No, KR, Nobody),
    ]
}

fn from_101_on(reply: &str) -> Script {
    (101..=150).fold(Script::new(), |script, number| script.on_nth(Stage::Rcpt, number, [say(reply)]))
}

fn hundred_and_fifty(seen: &Seen<'_>) -> Result<(), String> {
    outcomes(seen, &[[Accepted; 100].as_slice(), &[RefusedForNow; 50]].concat())
}

/// "OK + 50 temporary, or split": split, and nobody has it twice.
fn in_two_parts(seen: &Seen<'_>) -> Result<(), String> {
    outcomes(seen, &[Accepted; 150])?;
    let messages = seen.server.messages();
    let row = messages.iter().filter(|message| message.message_id() != Some("<next@example.com>"));
    let stored: Vec<String> = row.flat_map(|message| message.recipients().to_vec()).collect();
    let expected: Vec<String> = (1..=150).map(|number| format!("r{number}@example.com")).collect();
    require(stored == expected, format!("stored for {stored:?}"))
}

fn outcomes(seen: &Seen<'_>, expected: &[RecipientStatus]) -> Result<(), String> {
    let recipients = match seen.result {
        Ok(receipt) => receipt.recipients(),
        Err(error) => error.recipients(),
    };
    let found: Vec<_> = recipients.iter().map(|recipient| recipient.status).collect();
    require(found == expected, format!("per recipient {found:?}, expected {expected:?}"))?;
    let in_order = recipients.iter().zip(1..).all(|(recipient, number)| {
        let address: &str = recipient.address.as_ref();
        address == format!("r{number}@example.com")
    });
    require(in_order, "the recipients are not in the order of the envelope")
}

/// P1: an empty mail is a mail.
fn no_content(seen: &Seen<'_>) -> Result<(), String> {
    let only_next = seen.server.messages().iter().all(|message| message.message_id() == Some("<next@example.com>"));
    require(only_next, "the server stored something")
}

fn lone_dot(seen: &Seen<'_>) -> Result<(), String> {
    let sent = seen.dialogue.client_bytes();
    require(contains(&sent, b"DATA\r\n.\r\n"), "no lone dot behind DATA")
}

fn out_of_step() -> Vec<Row> {
    let mut rows = vec![
        Row::new("F062", "RCPT reply missing, the next one shifts")
            .ways(&[PLAIN, TLS])
            .once(Stage::Rcpt, [Action::Proceed])
            .fails(CC, S3, Once, X, Nobody),
        Row::new("F062", "MAIL reply missing, the next ones shift")
            .ways(&[PLAIN, TLS])
            .once(Stage::Mail, [Action::Proceed])
            .fails(CC, S3, Once, X, Nobody),
        Row::new("F063", "extra reply injected behind MAIL's")
            .once(Stage::Mail, [Action::Default, say("250 once more")])
            .fails(CC, S3, Once, X, Nobody),
        Row::new("F063", "extra reply injected behind RCPT's")
            .once(Stage::Rcpt, [Action::Default, say("250 once more")])
            .fails(CC, S3, Once, X, Nobody),
        Row::new("F063", "extra reply injected behind DATA's 354")
            .once(Stage::Data, [Action::Default, say("250 once more")])
            .fails(CC, S3, Once, X, Nobody),
        Row::new("F063", "extra reply injected, reused connection")
            .reused()
            .once(Stage::Mail, [Action::Default, say("250 once more")])
            .fails(CC, S3, Once, X, Nobody),
        // A refusal does not excuse what comes with it.
        Row::new("F063", "extra reply injected behind a refusal")
            .ways(&[LOCKSTEP])
            .once(Stage::Mail, [say("550 5.7.1 no\r\n250 once more")])
            .fails(CC, S3, Once, X, Nobody),
        Row::new("F064", "garbage line between replies")
            .once(Stage::Mail, [Action::Default, say("*** warning: disk is full")])
            .fails(CC, S3, Once, X, Nobody),
        Row::new("F064", "garbage line before a reply")
            .once(Stage::Rcpt, [say("*** warning: disk is full"), Action::Default])
            .fails(CC, S3, Once, X, Nobody),
        Row::new("F065", "multiline with mismatched codes")
            .once(Stage::Mail, [say("250-2.1.0 ok\r\n251 2.1.0 ok")])
            .fails(CC, S3, Once, X, Nobody),
        Row::new("F065", "multiline that turns into a refusal")
            .once(Stage::Mail, [say("250-2.1.0 ok\r\n550 5.1.0 no")])
            .fails(CC, S3, Once, X, Nobody),
    ];
    for (what, line) in [
        ("reply code 199", "199 ok"),
        ("reply code 600", "600 no"),
        ("reply code 25", "25"),
        ("reply code 2500", "2500 ok"),
        ("reply code with letters", "2x0 ok"),
        ("reply code behind a blank", " 250 ok"),
        ("reply code 354 to MAIL", "354 go on"),
        ("reply code 334 to MAIL", "334 "),
    ] {
        rows.push(Row::new("F066", what).once(Stage::Mail, [say(line)]).fails(CC, S3, Once, X, Nobody));
    }
    rows
}

fn data() -> Vec<Row> {
    vec![
        Row::new("F067", "DATA 451").once(Stage::Data, [say("451 4.3.0 not now")]).fails(RT, S3, Yes, KR, Nobody),
        Row::new("F067", "DATA 451, reused")
            .reused()
            .once(Stage::Data, [say("451 4.3.0 not now")])
            .fails(RT, S3, Yes, KR, Nobody),
        Row::new("F068", "DATA 554").once(Stage::Data, [say("554 5.7.1 no")]).fails(PF, S3, No, KR, Nobody),
        Row::new("F069", "DATA 250").once(Stage::Data, [say("250 ok")]).fails(CC, S3, Once, X, Nobody),
        Row::new("F070", "DATA no reply")
            .once(Stage::Data, [Action::Silence])
            .timer(Timer::Send)
            .fails(RB, S3, Yes, X, Nobody),
        Row::new("F070", "DATA FIN, no reply").once(Stage::Data, [Action::HalfClose]).fails(RB, S3, Yes, X, Nobody),
        Row::new("F070", "DATA RST, no reply, reused").reused().once(Stage::Data, [Action::Reset]).delivered_afresh(XU),
        Row::new("F071", "DATA 421, fresh")
            .once(Stage::Data, [say("421 4.3.2 going"), Action::Fin])
            .fails(RT, S3, Yes, D, Nobody),
        // RB, which on a reused connection is the free retry.
        Row::new("F071", "DATA 421, reused")
            .reused()
            .once(Stage::Data, [say("421 4.3.2 going"), Action::Fin])
            .delivered_afresh(D),
    ]
}
