//! F101–F110: faults of a message that leaves in one write, its content behind BDAT.

use std::time::Duration;

use smtp_pool::testing::{Action, Event, Script, Stage};

use super::harness::{
    D, DQ, K, KR, No, Nobody, PF, PLAIN, RT, Row, S5, STARTTLS, Seen, TLS, Timer, UD, X, XU, Yes, content, id, require,
    say,
};

// F109, a last chunk that is refused after another one was taken, cannot happen: the only chunk ever sent is the last one.
pub(crate) fn rows() -> Vec<Row> {
    let mut rows = delivered();
    rows.extend(refused());
    rows.extend(undecided());
    rows.extend(closing());
    rows.extend(mistaken());
    rows
}

/// A message over a connection opened for it. Without PIPELINING none leaves in one write.
fn row(id: &'static str, what: &'static str) -> Row {
    Row::new(id, what).ways(&[PLAIN]).server(|server| server.chunking(true)).host(|host| host.single_round_trip(true))
}

/// A message over a connection that has carried one before.
fn reused(id: &'static str, what: &'static str) -> Row {
    row(id, what).reused().ways(&[PLAIN, TLS])
}

fn delivered() -> Vec<Row> {
    vec![
        row("F101", "250 to all").ways(&[PLAIN, TLS, STARTTLS]).check(in_one_write).check(never_data).delivered(K),
        reused("F101", "250 to all, reused").check(in_one_write).check(never_data).delivered(K),
        row("F101", "250 to all, dripped")
            .once(Stage::EndOfData, [Action::Accept, Action::drip("250 2.0.0 ok\r\n", Duration::from_millis(15))])
            .check(in_one_write)
            .delivered(K),
        row("F087", "BDAT 251").once(Stage::EndOfData, [Action::Accept, say("251 ok")]).delivered(K),
        row("F096", "BDAT 250, then FIN").once(Stage::EndOfData, [Action::Default, Action::Fin]).delivered(D),
        // RSET is owed, and until a message has gone through DATA is asked for first.
        row("F101", "250 to all, after a refusal").after_a_refusal().check(by_data_after_rset).delivered(K),
    ]
}

fn refused() -> Vec<Row> {
    vec![
        row("F102", "RCPT 550, BDAT 554")
            .once(Stage::Rcpt, [say("550 5.1.1 nobody")])
            .check(|seen| reply_is(seen, 550))
            .fails(PF, S5, No, KR, Nobody),
        row("F102", "RCPT 550, BDAT 503")
            .script(Script::new().once(Stage::Rcpt, [say("550 5.1.1 nobody")]).once(Stage::Bdat, [say("503 5.5.1 no")]))
            .check(|seen| reply_is(seen, 550))
            .fails(PF, S5, No, KR, Nobody),
        reused("F102", "RCPT 450, BDAT 554, reused")
            .once(Stage::Rcpt, [say("450 4.2.1 not now")])
            .check(|seen| reply_is(seen, 450))
            .fails(RT, S5, Yes, KR, Nobody),
        row("F102", "MAIL 550, RCPT 503, BDAT 503")
            .once(Stage::Mail, [say("550 5.7.1 no")])
            .check(|seen| reply_is(seen, 550))
            .fails(PF, S5, No, KR, Nobody),
        row("F102", "MAIL 451, RCPT 503, BDAT 503")
            .once(Stage::Mail, [say("451 4.7.1 no")])
            .fails(RT, S5, Yes, KR, Nobody),
        // As without BDAT (F041): a used session's own limit.
        reused("F102", "MAIL 451, reused").once(Stage::Mail, [say("451 4.7.1 no")]).delivered_afresh(DQ),
        row("F090", "BDAT 451").once(Stage::EndOfData, [say("451 4.3.0 not now")]).fails(RT, S5, Yes, KR, Nobody),
        reused("F091", "BDAT 554, reused")
            .once(Stage::EndOfData, [say("554 5.6.0 spam")])
            .fails(PF, S5, No, KR, Nobody),
        row("F094", "BDAT 452").once(Stage::Bdat, [say("452 4.3.1 no room")]).fails(RT, S5, Yes, KR, Nobody),
        // The first refusal decides, whatever becomes of the other replies.
        row("F105", "MAIL 550, EOF")
            .once(Stage::Mail, [say("550 5.7.1 no"), Action::Fin])
            .check(|seen| reply_is(seen, 550))
            .fails(PF, S5, No, D, Nobody),
        reused("F105", "MAIL 550, EOF, reused")
            .once(Stage::Mail, [say("550 5.7.1 no"), Action::Fin])
            .fails(PF, S5, No, D, Nobody),
        row("F105", "MAIL 550, RST")
            .once(Stage::Mail, [say("550 5.7.1 no"), Action::Reset])
            .fails(PF, S5, No, D, Nobody),
        row("F105", "MAIL 550, half a reply to RCPT, EOF")
            .script(
                Script::new()
                    .once(Stage::Mail, [say("550 5.7.1 no")])
                    .once(Stage::Rcpt, [Action::reply("50"), Action::HalfClose]),
            )
            .check(|seen| reply_is(seen, 550))
            .fails(PF, S5, No, X, Nobody),
        row("F105", "MAIL 550, silence")
            .once(Stage::Mail, [say("550 5.7.1 no"), Action::Silence])
            .timer(Timer::FinalReply)
            .fails(PF, S5, No, X, Nobody),
        row("F105", "RCPT 550, EOF")
            .once(Stage::Rcpt, [say("550 5.1.1 nobody"), Action::Fin])
            .fails(PF, S5, No, D, Nobody),
        row("F105", "RCPT 450, EOF")
            .once(Stage::Rcpt, [say("450 4.2.1 no"), Action::Fin])
            .fails(RT, S5, Yes, D, Nobody),
        row("F105", "RCPT 550, BDAT 421, EOF")
            .script(
                Script::new()
                    .once(Stage::Rcpt, [say("550 5.1.1 nobody")])
                    .once(Stage::Bdat, [say("421 4.3.2 going"), Action::Fin]),
            )
            .check(|seen| reply_is(seen, 550))
            .fails(PF, S5, No, D, Nobody),
    ]
}

fn undecided() -> Vec<Row> {
    let unanswered = |actions: [Action; 2]| {
        let script = Script::new().once(Stage::Mail, [Action::Proceed]).once(Stage::Rcpt, [Action::Proceed]);
        script.once(Stage::EndOfData, actions)
    };
    vec![
        row("F103", "EOF, no replies").once(Stage::Mail, [Action::HalfClose]).fails(UD, S5, No, X, Nobody),
        row("F103", "EOF, no replies, server gone").once(Stage::Mail, [Action::Fin]).fails(UD, S5, No, XU, Nobody),
        // The price: with DATA this is F039, which costs nothing.
        reused("F103", "EOF, no replies, reused").once(Stage::Mail, [Action::HalfClose]).fails(UD, S5, No, X, Nobody),
        row("F103", "RST, no replies").once(Stage::Mail, [Action::Reset]).fails(UD, S5, No, XU, Nobody),
        row("F103", "stored, EOF, no replies")
            .script(unanswered([Action::Accept, Action::HalfClose]))
            .check(|seen| stored(seen, 1))
            .fails(UD, S5, No, X, Nobody),
        reused("F103", "stored, RST, no replies, reused")
            .script(unanswered([Action::Accept, Action::Reset]))
            .check(|seen| stored(seen, 1))
            .fails(UD, S5, No, XU, Nobody),
        row("F103", "silence, no replies")
            .once(Stage::Mail, [Action::Silence])
            .timer(Timer::FinalReply)
            .check(still_in_one_write)
            .fails(UD, S5, No, X, Nobody),
        reused("F103", "stored, silence, the caller's deadline, reused")
            .script(unanswered([Action::Accept, Action::Silence]))
            .deadline(Duration::from_millis(500))
            .fails(UD, S5, No, X, Nobody),
        row("F104", "MAIL 250, EOF").once(Stage::Rcpt, [Action::HalfClose]).fails(UD, S5, No, X, Nobody),
        reused("F104", "MAIL 250, EOF, reused").once(Stage::Rcpt, [Action::Fin]).fails(UD, S5, No, XU, Nobody),
        row("F104", "MAIL 250, RCPT 250, EOF").once(Stage::Bdat, [Action::HalfClose]).fails(UD, S5, No, X, Nobody),
        row("F104", "MAIL 250, RCPT 250, stored, EOF")
            .once(Stage::EndOfData, [Action::Accept, Action::HalfClose])
            .check(|seen| stored(seen, 1))
            .fails(UD, S5, No, X, Nobody),
        row("F084", "BDAT `25`, EOF")
            .once(Stage::EndOfData, [Action::Accept, Action::reply("25"), Action::HalfClose])
            .fails(UD, S5, No, X, Nobody),
        // Some servers wait for more than was announced to them (P5).
        row("F083", "BDAT silence")
            .once(Stage::EndOfData, [Action::Silence])
            .timer(Timer::FinalReply)
            .check(next_by_data)
            .fails(UD, S5, No, X, Nobody),
        row("F088", "BDAT 221")
            .once(Stage::EndOfData, [Action::Accept, say("221 2.0.0 bye")])
            .fails(UD, S5, No, X, Nobody),
        row("F088", "MAIL 221").once(Stage::Mail, [say("221 2.0.0 bye"), Action::Fin]).fails(UD, S5, No, XU, Nobody),
    ]
}

fn closing() -> Vec<Row> {
    vec![
        row("F106", "idle: 421 pending")
            .idle(|server| server.connection(1).send("421 4.4.2 idle for too long\r\n"))
            .delivered_afresh(D),
        row("F106", "idle: 421 pending, and FIN")
            .idle(|server| {
                server.connection(1).send("421 4.4.2 idle for too long\r\n");
                server.connection(1).close();
            })
            .delivered_afresh(D),
        // What the look did not see, because it came a moment later: 421 is what MAIL gets.
        reused("F106", "421 to MAIL, reused")
            .once(Stage::Mail, [say("421 4.4.2 idle for too long"), Action::Fin])
            .delivered_afresh(D),
        reused("F106", "421 to MAIL, open, reused")
            .once(Stage::Mail, [say("421 4.4.2 idle for too long"), Action::Silence])
            .delivered_afresh(D),
        row("F106", "421 to MAIL, fresh")
            .once(Stage::Mail, [say("421 4.3.2 going"), Action::Fin])
            .fails(RT, S5, Yes, D, Nobody),
        row("F106", "421 to RCPT, fresh")
            .once(Stage::Rcpt, [say("421 4.3.2 going"), Action::Silence])
            .fails(RT, S5, Yes, D, Nobody),
        reused("F092", "421 to BDAT, EOF, reused")
            .once(Stage::EndOfData, [say("421 4.3.2 going"), Action::Fin])
            .fails(RT, S5, Yes, D, Nobody),
        // Who closes says nothing more. Here the 421 may have been no answer at all, and the 250 behind it the one to BDAT.
        row("F093", "421 to MAIL, and 250 to all")
            .once(Stage::Mail, [say("421 4.3.2 going"), say("250 2.1.0 or not")])
            .check(|seen| stored(seen, 0))
            .check(next_by_data)
            .fails(UD, S5, No, X, Nobody),
        row("F093", "421 to BDAT followed by 250")
            .once(Stage::EndOfData, [Action::Accept, say("421 4.3.2 going\r\n250 2.0.0 ok")])
            .fails(UD, S5, No, X, Nobody),
    ]
}

/// The server gets it wrong, and is asked for DATA from then on.
fn mistaken() -> Vec<Row> {
    let unknown = |id, what, reply: &'static str| {
        row(id, what).once(Stage::Bdat, [say(reply)]).check(by_data_afresh).check(next_by_data).delivered_afresh(X)
    };
    let chunk_as_commands = |reply: &str| [Action::ChunkAsCommands, say(reply)];
    vec![
        // The catalogue says CC. INV-UD goes before it: among replies of which one is too many none is in step, so none decides.
        row("F107", "BDAT 503, the chunk taken for commands")
            .once(Stage::Bdat, chunk_as_commands("503 5.5.1 what?"))
            .check(|seen| stored(seen, 0))
            .check(next_by_data)
            .fails(UD, S5, No, X, Nobody),
        reused("F107", "BDAT 552, the chunk taken for commands, reused")
            .once(Stage::Bdat, chunk_as_commands("552 5.3.4 too big"))
            .check(next_by_data)
            .fails(UD, S5, No, X, Nobody),
        row("F107", "RCPT 550, BDAT 503, the chunk taken for commands")
            .script(
                Script::new()
                    .once(Stage::Rcpt, [say("550 5.1.1 nobody")])
                    .once(Stage::Bdat, chunk_as_commands("503 5.5.1 what?")),
            )
            .check(next_by_data)
            .fails(UD, S5, No, X, Nobody),
        // With the 503 alone in sight nothing is out of step, and the message was refused: F110. The cut spares everybody the rest.
        row("F107", "BDAT 503, the chunk taken for commands a little later")
            .once(
                Stage::Bdat,
                [Action::ChunkAsCommands, say("503 5.5.1 what?"), Action::barrier("later"), say("500 5.5.1 what?")],
            )
            .held_at("later")
            .check(by_data_afresh)
            .check(next_by_data)
            .delivered_afresh(XU),
        row("F107", "BDAT 250, twice")
            .once(Stage::EndOfData, [Action::Default, say("250 2.0.0 once more")])
            .check(|seen| stored(seen, 1))
            .check(next_by_data)
            .fails(UD, S5, No, X, Nobody),
        row("F107", "RCPT 550, BDAT 250")
            .script(Script::new().once(Stage::Rcpt, [say("550 5.1.1 nobody")]).once(Stage::Bdat, [say("250 2.0.0 ok")]))
            .check(next_by_data)
            .fails(UD, S5, No, X, Nobody),
        row("F064", "garbage between the replies")
            .once(Stage::Rcpt, [say("what?"), Action::Default])
            .check(next_by_data)
            .fails(UD, S5, No, X, Nobody),
        row("F108", "BDAT 354").once(Stage::Bdat, [say("354 go on")]).check(next_by_data).fails(UD, S5, No, X, Nobody),
        row("F108", "RCPT 354").once(Stage::Rcpt, [say("354 go on")]).check(next_by_data).fails(UD, S5, No, X, Nobody),
        unknown("F110", "BDAT 500", "500 5.5.1 what?"),
        unknown("F110", "BDAT 502", "502 5.5.1 not implemented"),
        unknown("F110", "BDAT 503", "503 5.5.1 not now"),
        unknown("F110", "BDAT 504", "504 5.5.4 not like that"),
        unknown("F110", "BDAT 502, reused", "502 5.5.1 not implemented").reused().ways(&[PLAIN, TLS]),
        // "A second failure is reported".
        row("F110", "BDAT 502, and DATA 554 on the fresh connection")
            .script(Script::new().once(Stage::Bdat, [say("502 5.5.1 no")]).once(Stage::Data, [say("554 5.5.1 no")]))
            .connections(2)
            .fails(PF, super::harness::S3, No, KR, Nobody)
            .on_connection(2),
    ]
}

/// The message left in one write, and BDAT's count is that of the octets behind it.
fn in_one_write(seen: &Seen<'_>) -> Result<(), String> {
    let content = content("row", 700);
    let end = [b" LAST\r\n".as_slice(), &content].concat();
    let command = format!("BDAT {}", content.len());
    let is_alone = seen.dialogue.events().iter().any(|event| match event {
        Event::Client { bytes, .. } => {
            let envelope = bytes.strip_suffix(end.as_slice()).and_then(|rest| rest.strip_suffix(command.as_bytes()));
            envelope.is_some_and(|envelope| envelope.starts_with(b"MAIL FROM:") && envelope.ends_with(b"com>\r\n"))
        }
        _ => false,
    });
    require(is_alone, "no write holds the whole message and nothing else")
}

fn never_data(seen: &Seen<'_>) -> Result<(), String> {
    require(!says(seen, 1, "DATA"), "DATA was said")
}

/// After a refusal the next message is asked for by DATA, and the one after it leaves in one write.
fn by_data_after_rset(seen: &Seen<'_>) -> Result<(), String> {
    let verbs: Vec<_> = seen.dialogue.commands().iter().filter_map(|line| line.split(' ').next()).collect();
    let expected = ["EHLO", "MAIL", "RCPT", "BDAT", "RSET", "MAIL", "RCPT", "DATA", "MAIL", "RCPT", "BDAT"];
    require(verbs == expected, format!("{verbs:?}"))
}

/// The message of the free retry was asked for by DATA.
fn by_data_afresh(seen: &Seen<'_>) -> Result<(), String> {
    require(says(seen, 2, "DATA") && !says(seen, 2, "BDAT"), "the second connection did not get DATA alone")
}

/// What was learned about the host holds for its next connections.
fn next_by_data(seen: &Seen<'_>) -> Result<(), String> {
    let last = seen.server.connections_accepted();
    require(last > 1 && says(seen, last, "DATA") && !says(seen, last, "BDAT"), "the next message did not go by DATA")
}

/// Nothing was learned about the host.
fn still_in_one_write(seen: &Seen<'_>) -> Result<(), String> {
    require(says(seen, 2, "BDAT"), "the next message did not leave in one write")
}

fn says(seen: &Seen<'_>, connection: usize, verb: &str) -> bool {
    seen.server.transcript(connection).commands().iter().any(|line| line.starts_with(verb))
}

fn stored(seen: &Seen<'_>, times: usize) -> Result<(), String> {
    let found = seen.server.accepted(&id("row"));
    require(found == times, format!("stored {found} time(s), expected {times}"))
}

fn reply_is(seen: &Seen<'_>, code: u16) -> Result<(), String> {
    let reported = seen.result.as_ref().err().and_then(|error| error.response().map(|reply| reply.code()));
    require(reported == Some(code), format!("the reply reported is {reported:?}, not {code}"))
}
