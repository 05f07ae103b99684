//! F072–F078: faults while content is sent, before its last byte.

use std::time::Duration;

use smtp_pool::testing::{Action, Script, Stage};

use super::harness::{
    CC, No, Nobody, Once, PF, PLAIN, RB, RT, Row, S4, TLS, Timer, X, XU, Yes, contains, require, say,
};

/// More than the sockets of both ends hold together, so that the client cannot reach the last byte while the server does not read.
const LARGE: usize = 8 << 20;

// F079, a body source that fails or panics, cannot be written: content is a slice (`send_raw(&Envelope, &[u8])`).
pub(crate) fn rows() -> Vec<Row> {
    // Behind DATA's 354 PIPELINING makes no difference.
    let row =
        |id, what| Row::new(id, what).ways(&[PLAIN, TLS]).bytes(LARGE).server(|server| server.socket_buffers(64 << 10));
    let at = |bytes: usize, actions: Vec<Action>| Script::new().once(Stage::Body, actions).after_bytes(bytes);
    vec![
        row("F072", "354 then FIN before the body is read")
            .once(Stage::Data, [say("354 go on"), Action::Fin])
            .fails(RB, S4, Yes, XU, Nobody),
        row("F072", "354 then FIN, server reads on")
            .once(Stage::Data, [say("354 go on"), Action::HalfClose])
            .check(no_dot)
            .fails(RB, S4, Yes, X, Nobody),
        row("F073", "354 then RST mid-body").script(at(100_000, vec![Action::Reset])).fails(RB, S4, Yes, XU, Nobody),
        row("F073", "FIN mid-body").script(at(100_000, vec![Action::Fin])).fails(RB, S4, Yes, XU, Nobody),
        // On a connection that had been idle this is the free retry: before the commit point it is replaced (SPEC §5).
        row("F073", "RST mid-body, reused").reused().script(at(100_000, vec![Action::Reset])).delivered_afresh(XU),
        row("F074", "early 552 mid-body then close")
            .script(at(100_000, vec![say("552 5.3.4 too big"), Action::Fin]))
            .check(|seen| {
                let code = seen.result.as_ref().err().and_then(|error| error.response().map(|reply| reply.code()));
                require(code == Some(552), format!("the reply reported is {code:?}"))
            })
            .fails(PF, S4, No, XU, Nobody),
        row("F074", "early 552 mid-body, server reads on")
            .script(at(100_000, vec![say("552 5.3.4 too big")]))
            .check(no_dot)
            .fails(PF, S4, No, X, Nobody),
        row("F075", "early 421 mid-body then close")
            .script(at(100_000, vec![say("421 4.3.2 going"), Action::Fin]))
            .fails(RT, S4, Yes, XU, Nobody),
        row("F076", "early 250 mid-body, before the dot")
            .script(at(100_000, vec![say("250 2.0.0 ok")]))
            .check(no_dot)
            .fails(CC, S4, Once, X, Nobody),
        row("F076", "garbage mid-body, before the dot")
            .script(at(100_000, vec![say("what?")]))
            .check(no_dot)
            .fails(CC, S4, Once, X, Nobody),
        // A barrier stands for "reads no more": when the call is over the server reads again, and sees how it ended.
        row("F077", "server stops reading mid-body")
            .script(at(100_000, vec![Action::barrier("stopped")]))
            .held_at("stopped")
            .not_repeated()
            .timer(Timer::Send)
            .check(no_dot)
            .fails(RB, S4, Yes, X, Nobody),
        // The gate closes when a tenth of the caller's time is left.
        Row::new("F078", "commit gate: the deadline is nearly spent before the dot")
            .ways(&[PLAIN, TLS])
            .reused()
            .once(Stage::Data, [Action::DelayFor(Duration::from_millis(940)), Action::Default])
            .deadline(Duration::from_millis(1000))
            .not_repeated()
            .check(no_dot)
            .fails(RB, S4, Yes, X, Nobody),
    ]
}

/// Nothing that a server could take for the end of the message.
fn no_dot(seen: &super::harness::Seen<'_>) -> Result<(), String> {
    let sent = seen.dialogue.client_bytes();
    let data = sent.windows(6).rposition(|window| window == b"DATA\r\n").unwrap_or_default();
    require(!contains(&sent[data..], b"\r\n.\r\n"), "the final dot was sent")
}
