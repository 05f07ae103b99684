//! F032–F040: faults of a connection that was idle.

use smtp_pool::testing::{Action, Stage};

use super::harness::{D, LOCKSTEP, Nobody, PLAIN, RB, Row, S3, TLS, X, XU, Yes, say};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("F032", "idle: FIN").idle(|server| server.connection(1).close()).delivered_afresh(D),
        Row::new("F032", "idle: FIN without close_notify, server reads on")
            .idle(|server| server.connection(1).half_close())
            .delivered_afresh(D),
        Row::new("F033", "idle: 421 and FIN")
            .idle(|server| {
                server.connection(1).send("421 4.4.2 idle for too long\r\n");
                server.connection(1).close();
            })
            .delivered_afresh(D),
        Row::new("F033", "idle: 421, no FIN")
            .idle(|server| server.connection(1).send("421 4.4.2 idle for too long\r\n"))
            .delivered_afresh(D),
        // SPEC §5: Exim says its last words in clear, inside TLS.
        Row::new("F033", "idle: 421 in clear on a TLS connection, and FIN")
            .ways(&[TLS])
            .idle(|server| {
                server.connection(1).send_plaintext("421 4.4.2 idle for too long\r\n");
                server.connection(1).half_close();
            })
            .delivered_afresh(D),
        Row::new("F034", "idle: 221 and FIN")
            .idle(|server| {
                server.connection(1).send("221 2.0.0 bye\r\n");
                server.connection(1).close();
            })
            .delivered_afresh(D),
        Row::new("F035", "idle: RST").idle(|server| server.connection(1).reset()).delivered_afresh(XU),
        // F036, new keys on an idle TLS 1.3 connection, has a server of its own: see fault_matrix.rs.
        Row::new("F037", "idle: close_notify, socket open")
            .ways(&[TLS])
            .idle(|server| server.connection(1).close_notify())
            .delivered_afresh(D),
        Row::new("F038", "idle: unsolicited 250")
            .idle(|server| server.connection(1).send("250 hi\r\n"))
            .delivered_afresh(X),
        Row::new("F038", "idle: half a line").idle(|server| server.connection(1).send("2")).delivered_afresh(X),
        // The catalogue's moment, between the look and the write, is nobody's to hit. To the client it is the same when
        // the server closes upon the first command, unread by anybody: the look was good and the write went through.
        Row::new("F039", "FIN upon the first command").reused().once(Stage::Mail, [Action::Fin]).delivered_afresh(XU),
        Row::new("F039", "FIN upon the first command, server reads on")
            .reused()
            .once(Stage::Mail, [Action::HalfClose])
            .delivered_afresh(X),
        Row::new("F039", "RST upon the first command").reused().once(Stage::Mail, [Action::Reset]).delivered_afresh(XU),
        // "A second failure is reported", and the free retry is one.
        Row::new("F039", "FIN upon the first command, and again on the fresh connection")
            .reused()
            .always(Stage::Mail, [Action::HalfClose])
            .connections(2)
            .not_repeated()
            .fails(RB, S3, Yes, X, Nobody)
            .on_connection(2),
        Row::new("F032", "idle: FIN, and again FIN upon the fresh connection's first command")
            .idle(|server| server.connection(1).close())
            .once(Stage::Mail, [Action::HalfClose])
            .connections(2)
            .not_repeated()
            .fails(RB, S3, Yes, X, Nobody)
            .on_connection(2),
        Row::new("F040", "RSET answered 500")
            .after_a_refusal()
            .once(Stage::Rset, [say("500 5.5.1 what?")])
            .delivered_afresh(D),
        Row::new("F040", "RSET answered 421")
            .after_a_refusal()
            .once(Stage::Rset, [say("421 4.3.2 going")])
            .delivered_afresh(D),
        Row::new("F040", "RSET answered 421 and FIN")
            .after_a_refusal()
            .ways(&[PLAIN, LOCKSTEP, TLS])
            .once(Stage::Rset, [say("421 4.3.2 going"), Action::Fin])
            .delivered_afresh(D),
    ]
}
