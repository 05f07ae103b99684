//! The connection is cut at every byte of the dialogue, in both directions, and every outcome is what the server's own count allows.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

mod common;

use common::{ms, plain, send, sender};
use smtp_pool::testing::{Cut, Script, TestServer};
use smtp_pool::{FailureKind, SendStage, SmtpSender};

const ID: &str = "cut@sweep";

#[derive(Debug, Clone, Copy)]
enum Direction {
    FromServer,
    FromClient,
}

fn server(pipelining: bool, script: Script) -> TestServer {
    TestServer::builder().pipelining(pipelining).script(script).start()
}

fn patient_with_nothing(server: &TestServer) -> SmtpSender {
    sender(plain(server))
        .max_retries(0)
        .reconnect_cooldown(ms(1))
        .max_reconnect_cooldown(ms(1))
        .jitter(0.0)
        .build()
        .unwrap()
}

/// How many bytes each side has said when so many messages have been accepted.
fn length(pipelining: bool, messages: usize) -> (u64, u64) {
    let server = server(pipelining, Script::new());
    let sender = patient_with_nothing(&server);
    for _ in 0..messages {
        send(&sender, ID).unwrap();
    }
    let transcript = server.transcript(1);
    (transcript.server_bytes().len() as u64, transcript.client_bytes().len() as u64)
}

/// One send over a connection that is cut after `byte` bytes; returns what differs from the promise.
fn judge(pipelining: bool, reused: bool, direction: Direction, byte: u64, cut: Cut) -> Option<String> {
    let script = match direction {
        Direction::FromServer => Script::new().cut_connection_after_server_bytes(1, byte, cut),
        Direction::FromClient => Script::new().cut_connection_after_client_bytes(1, byte, cut),
    };
    let server = server(pipelining, script);
    let sender = patient_with_nothing(&server);
    if reused {
        // Cut right behind the first message's answer, or in the middle of the second.
        send(&sender, "one@sweep").unwrap();
    }
    let outcome = send(&sender, ID);
    // Whatever the server still has to read, it has read when the connection is over.
    assert!(server.wait_for(|seen| seen.connections_open() == 0 || outcome.is_ok(), common::PATIENCE), "byte {byte}");
    let accepted = server.accepted(ID);
    let is_true = match &outcome {
        Ok(_) => accepted == 1,
        Err(error) if error.kind() == FailureKind::UnknownAfterData => {
            accepted <= 1 && error.stage() == SendStage::DataCompleted && !error.is_retry_safe()
        }
        // A connection that had been idle is replaced, and the message goes through.
        Err(_) if reused => false,
        Err(error) => accepted == 0 && error.stage() < SendStage::DataCompleted && error.is_retry_safe(),
    };
    let at_rest = sender.status().counts;
    let next = send(&sender, "next@sweep");
    let is_sound = at_rest.total == at_rest.idle && next.is_ok() && server.accepted("next@sweep") == 1;
    (!is_true || !is_sound).then(|| {
        let told = outcome.map_or_else(|error| format!("{error:?}"), |receipt| format!("{receipt:?}"));
        format!("{direction:?} byte {byte}, {cut:?}: accepted {accepted} times, {told}; {at_rest}; next {next:?}")
    })
}

fn sweep(pipelining: bool, reused: bool) {
    let (server_begins, client_begins) = if reused { length(pipelining, 1) } else { (0, 0) };
    let (server_ends, client_ends) = length(pipelining, 1 + usize::from(reused));
    assert!(server_ends - server_begins > 50 && client_ends - client_begins > 50, "a message takes a dialogue");
    let mut differences = Vec::new();
    for cut in [Cut::Fin, Cut::Reset] {
        for (direction, bytes) in [
            (Direction::FromServer, server_begins..=server_ends),
            (Direction::FromClient, client_begins + u64::from(reused)..=client_ends),
        ] {
            differences.extend(bytes.filter_map(|byte| judge(pipelining, reused, direction, byte, cut)));
        }
    }
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn a_cut_at_any_byte_of_a_pipelined_dialogue_is_told_truly() {
    sweep(true, false);
}

#[test]
fn a_cut_at_any_byte_of_a_dialogue_in_lockstep_is_told_truly() {
    sweep(false, false);
}

#[test]
fn a_cut_at_any_byte_of_a_second_message_costs_no_message() {
    sweep(true, true);
    sweep(false, true);
}
