//! F080–F100: faults after the last byte was offered.

use std::time::Duration;

use smtp_pool::testing::{Action, Stage};

use super::harness::{
    D, DQ, K, KR, No, Nobody, PF, PLAIN, RT, Row, S5, Seen, TLS, Timer, UD, X, XU, Yes, chain, contains, id, require,
    say,
};

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = undecided();
    rows.extend(accepted());
    rows.extend(refused());
    rows
}

fn undecided() -> Vec<Row> {
    vec![
        Row::new("F080", "dot then FIN, not stored")
            .once(Stage::EndOfData, [Action::Fin])
            .check(|seen| stored(seen, 0))
            .fails(UD, S5, No, XU, Nobody),
        Row::new("F080", "dot then FIN, not stored, reused")
            .reused()
            .once(Stage::EndOfData, [Action::HalfClose])
            .check(|seen| stored(seen, 0))
            .fails(UD, S5, No, X, Nobody),
        Row::new("F081", "dot, stored, FIN")
            .once(Stage::EndOfData, [Action::Accept, Action::HalfClose])
            .check(|seen| stored(seen, 1))
            .fails(UD, S5, No, X, Nobody),
        Row::new("F081", "dot, stored, FIN, reused")
            .reused()
            .once(Stage::EndOfData, [Action::Accept, Action::Fin])
            .check(|seen| stored(seen, 1))
            .fails(UD, S5, No, XU, Nobody),
        Row::new("F082", "dot then RST").once(Stage::EndOfData, [Action::Reset]).fails(UD, S5, No, XU, Nobody),
        Row::new("F082", "dot, stored, RST, reused")
            .reused()
            .once(Stage::EndOfData, [Action::Accept, Action::Reset])
            .check(|seen| stored(seen, 1))
            .fails(UD, S5, No, XU, Nobody),
        Row::new("F083", "dot then silence")
            .once(Stage::EndOfData, [Action::Accept, Action::Silence])
            .ways(&[PLAIN, TLS])
            .timer(Timer::FinalReply)
            .fails(UD, S5, No, X, Nobody),
        // Over a connection that is there: the deadline is for the message, not for a TLS handshake on a busy machine.
        Row::new("F083", "dot then silence, the caller's deadline")
            .reused()
            .once(Stage::EndOfData, [Action::Accept, Action::Silence])
            .ways(&[PLAIN, TLS])
            .deadline(Duration::from_millis(300))
            .fails(UD, S5, No, X, Nobody),
        Row::new("F084", "dot, `25`, FIN")
            .once(Stage::EndOfData, [Action::Accept, Action::reply("25"), Action::HalfClose])
            .check(|seen| tells(seen, "25"))
            .fails(UD, S5, No, X, Nobody),
        Row::new("F085", "dot, `250-ok`, FIN")
            .once(Stage::EndOfData, [Action::Accept, say("250-ok"), Action::HalfClose])
            .check(|seen| tells(seen, "250-ok"))
            .fails(UD, S5, No, X, Nobody),
        Row::new("F085", "dot, `250-ok`, silence")
            .once(Stage::EndOfData, [Action::Accept, say("250-ok"), Action::Silence])
            .ways(&[PLAIN, TLS])
            .timer(Timer::FinalReply)
            .fails(UD, S5, No, X, Nobody),
        Row::new("F088", "dot, 221")
            .once(Stage::EndOfData, [Action::Accept, say("221 2.0.0 bye"), Action::Silence])
            .fails(UD, S5, No, X, Nobody),
        Row::new("F089", "dot, 354")
            .once(Stage::EndOfData, [Action::Accept, say("354 go on")])
            .fails(UD, S5, No, X, Nobody),
        Row::new("F089", "dot, garbage")
            .once(Stage::EndOfData, [Action::Accept, say("what?")])
            .fails(UD, S5, No, X, Nobody),
        Row::new("F089", "dot, 199")
            .once(Stage::EndOfData, [Action::Accept, say("199 ok")])
            .fails(UD, S5, No, X, Nobody),
        Row::new("F093", "dot, 421 followed by 250")
            .once(Stage::EndOfData, [Action::Accept, say("421 4.3.2 going\r\n250 2.0.0 ok")])
            .fails(UD, S5, No, X, Nobody),
        Row::new("F099", "dot, 999 lines of 250-")
            .once(Stage::EndOfData, [Action::Accept, say(&("250-ok\r\n".repeat(999) + "250 ok"))])
            .fails(UD, S5, No, X, Nobody),
        // The barrier is opened when the call has returned.
        Row::new("F100", "late 250 after the final timer")
            .once(Stage::EndOfData, [Action::Accept, Action::barrier("late"), say("250 2.0.0 ok")])
            .held_at("late")
            .ways(&[PLAIN, TLS])
            .timer(Timer::FinalReply)
            .check(|seen| stored(seen, 1))
            .fails(UD, S5, No, XU, Nobody),
    ]
}

fn accepted() -> Vec<Row> {
    let dot = |id, what, reply: &[u8]| {
        Row::new(id, what).once(Stage::EndOfData, [Action::Accept, Action::reply(reply)]).delivered(K)
    };
    vec![
        dot("F086", "dot, `250`", b"250\r\n"),
        dot("F086", "dot, `250 `", b"250 \r\n"),
        dot("F086", "dot, 250 and LF only", b"250 ok\n"),
        dot("F086", "dot, `250` and LF only", b"250\n"),
        dot("F086", "dot, 250 with Latin-1 text", b"250 accept\xe9\r\n"),
        dot("F087", "dot, 251", b"251 2.0.0 ok\r\n"),
        dot("F087", "dot, 200", b"200 ok\r\n"),
        dot("F087", "dot, 299", b"299 ok\r\n"),
        Row::new("F095", "dot, 250 dripped inside the timer")
            .once(Stage::EndOfData, [Action::Accept, Action::drip("250 2.0.0 ok\r\n", Duration::from_millis(15))])
            .delivered(K),
        Row::new("F096", "dot, 250, then FIN").once(Stage::EndOfData, [Action::Default, Action::Fin]).delivered(D),
        Row::new("F096", "dot, 250, then RST").once(Stage::EndOfData, [Action::Default, Action::Reset]).delivered(D),
        // Nobody waits for the answer to QUIT.
        Row::new("F097", "dot, 250, QUIT hangs")
            .sender(|sender| sender.max_messages_per_connection(1))
            .once(Stage::Quit, [Action::Silence])
            .delivered(DQ),
        Row::new("F097", "dot, 250, QUIT answered by RST")
            .sender(|sender| sender.max_messages_per_connection(1))
            .once(Stage::Quit, [Action::Reset])
            .delivered(DQ),
        Row::new("F098", "dot, two replies")
            .once(Stage::EndOfData, [Action::Default, say("250 2.0.0 once more")])
            .delivered(X),
        Row::new("F098", "dot, 250 and a refusal")
            .once(Stage::EndOfData, [Action::Default, say("554 5.0.0 or not")])
            .delivered(X),
        // SPEC §4 draws the line at 256 lines.
        Row::new("F099", "dot, 200 lines of 250-")
            .once(Stage::EndOfData, [Action::Accept, say(&("250-ok\r\n".repeat(199) + "250 ok"))])
            .delivered(K),
    ]
}

fn refused() -> Vec<Row> {
    vec![
        Row::new("F090", "dot, 451").once(Stage::EndOfData, [say("451 4.3.0 not now")]).fails(RT, S5, Yes, KR, Nobody),
        Row::new("F090", "dot, 451, reused")
            .reused()
            .once(Stage::EndOfData, [say("451 4.3.0 not now")])
            .fails(RT, S5, Yes, KR, Nobody),
        Row::new("F091", "dot, 554").once(Stage::EndOfData, [say("554 5.6.0 spam")]).fails(PF, S5, No, KR, Nobody),
        Row::new("F092", "dot, 421 FIN")
            .once(Stage::EndOfData, [say("421 4.3.2 going"), Action::Fin])
            .fails(RT, S5, Yes, D, Nobody),
        // Decisive after the commit point, so no free retry: the attempt counts.
        Row::new("F092", "dot, 421 FIN, reused")
            .reused()
            .once(Stage::EndOfData, [say("421 4.3.2 going"), Action::Fin])
            .fails(RT, S5, Yes, D, Nobody),
        Row::new("F094", "dot, 452, disk full")
            .once(Stage::EndOfData, [say("452 4.3.1 no room")])
            .fails(RT, S5, Yes, KR, Nobody),
    ]
}

fn stored(seen: &Seen<'_>, times: usize) -> Result<(), String> {
    let found = seen.server.accepted(&id("row"));
    require(found == times, format!("stored {found} time(s), expected {times}"))
}

/// Case f: what there was of the reply is for the operator to see.
fn tells(seen: &Seen<'_>, partial: &str) -> Result<(), String> {
    let text = seen.result.as_ref().err().map(chain).unwrap_or_default();
    // The counts in the text hold digits too.
    let cause = text.split_once(" <- ").map_or("", |(_, cause)| cause);
    require(contains(cause.as_bytes(), partial.as_bytes()), format!("{partial:?} is not told: {text}"))
}
