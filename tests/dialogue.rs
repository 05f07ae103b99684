//! What a server says, piece by piece and byte for byte, and what must come of it: the cases that the fuzz target `dialogue` made
//! interesting, small enough to be read.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic and needs no manual")]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::thread;

use common::*;
use smtp_pool::FailureKind::{
    ConnectionCorrupted, HostUnavailable, PermanentFailure, RetryableBeforeSend, RetryableTemporaryFailure,
    UnknownAfterData,
};
use smtp_pool::SendStage::{Authenticated, Connected, DataCompleted, EnvelopeStarted};
use smtp_pool::{FailureKind, Host, SendStage};

/// The code of the final answer, or what became of the message and the code that decided.
type Told = Result<u16, (FailureKind, SendStage, Option<u16>)>;

/// Sends one message to a server that says these pieces, separated by `|`: the first at once, each further one when the client has
/// written something, the last with the end of the stream behind it. What `||` separates leaves in several writes. `$` is CR LF.
fn outcome(said: &str) -> Told {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = Host::plain("127.0.0.1").port(listener.local_addr().unwrap().port());
    let turns: Vec<String> = said.replace('$', "\r\n").replace("||", "\0").split('|').map(ToOwned::to_owned).collect();
    thread::scope(|scope| {
        scope.spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            client.set_nodelay(true).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut buffer = [0; 4096];
            for (number, turn) in turns.iter().enumerate() {
                for piece in turn.split('\0') {
                    // A client that has seen enough is gone.
                    drop(client.write_all(piece.as_bytes()));
                }
                if number + 1 == turns.len() {
                    drop(client.shutdown(Shutdown::Write));
                }
                if client.read(&mut buffer).unwrap_or(0) == 0 {
                    break;
                }
            }
        });
        let sender = sender(host).build().unwrap();
        match send(&sender, "one@dialogue") {
            Ok(receipt) => Ok(receipt.response().code()),
            Err(error) => Err((error.kind(), error.stage(), error.response().map(smtp_pool::Reply::code))),
        }
    })
}

#[test]
fn what_a_server_says_decides_and_nothing_else_does() {
    let group = "220 x$|250-x$250 PIPELINING$|";
    let step = "220 x$|250 x$|250 x$|250 x$|354 x$|";
    let cases: &[(&str, &str, Told)] = &[
        // Whatever the pieces.
        ("2||20 x$|25||0-x$||250 PIPELINING||$|2||50 x$250 x$3||54 x$|2||50 x$", "", Ok(250)),
        ("220\n|250\n|250\n|251\n|354\n|299\n", "", Ok(299)),
        // The end of the answer to the last byte is its line feed.
        (group, "250 x$250 x$354 x$|250 x\r", Err((UnknownAfterData, DataCompleted, None))),
        (group, "250 x$250 x$354 x$|250-x$", Err((UnknownAfterData, DataCompleted, None))),
        (group, "250 x$250 x$354 x$|250-x$251 x$", Err((UnknownAfterData, DataCompleted, None))),
        (group, "250 x$250 x$354 x$|354 x$", Err((UnknownAfterData, DataCompleted, None))),
        (group, "250 x$250 x$354 x$|221 x$", Err((UnknownAfterData, DataCompleted, None))),
        (group, "250 x$250 x$354 x$|150 x$250 x$", Err((UnknownAfterData, DataCompleted, None))),
        (group, "250 x$250 x$354 x$|250 x$550 x$", Ok(250)),
        // A refusal that does not stand alone decides nothing.
        (group, "250 x$250 x$354 x$|550 x$250 x$", Err((UnknownAfterData, DataCompleted, None))),
        (group, "250 x$250 x$354 x$|550 x$2", Err((UnknownAfterData, DataCompleted, None))),
        (group, "250 x$250 x$354 x$|550 x$", Err((PermanentFailure, DataCompleted, Some(550)))),
        (group, "250 x$250 x$354 x$|421 x$", Err((RetryableTemporaryFailure, DataCompleted, Some(421)))),
        // One reply too many, before the last byte: it would pass for the answer to it.
        (group, "250 x$250 x$354 x$250 x$", Err((ConnectionCorrupted, EnvelopeStarted, None))),
        (group, "250 x$250 x$250 x$", Err((ConnectionCorrupted, EnvelopeStarted, None))),
        (group, "250 x$250 x$", Err((RetryableBeforeSend, EnvelopeStarted, None))),
        // A refusal counts though the rest never came, unless nonsense came.
        (group, "550 x$", Err((PermanentFailure, EnvelopeStarted, Some(550)))),
        (group, "250 x$450 x$421 x$", Err((RetryableTemporaryFailure, EnvelopeStarted, Some(450)))),
        (group, "550 x$what$", Err((ConnectionCorrupted, EnvelopeStarted, None))),
        (group, "550 x$550 x$354 x$", Err((PermanentFailure, EnvelopeStarted, Some(550)))),
        (group, "250 x$550 x$354 x$|250 x$", Err((PermanentFailure, EnvelopeStarted, Some(550)))),
        (step, "250 x$", Ok(250)),
        (step, "", Err((UnknownAfterData, DataCompleted, None))),
        ("220 x$|250 x$|250 x$250 x$", "", Err((ConnectionCorrupted, EnvelopeStarted, None))),
        ("220 x$|250 x$|354 x$", "", Err((ConnectionCorrupted, EnvelopeStarted, None))),
        ("220 x$|250-x$250 SIZE 1$", "", Err((PermanentFailure, Authenticated, None))),
        ("220 x$|250-x$250 SIZE +1$|250 x$|250 x$|354 x$|250 x$", "", Ok(250)),
        // No session.
        ("", "", Err((HostUnavailable, Connected, None))),
        ("220 x$250 x$", "", Err((HostUnavailable, Connected, None))),
        ("220 x$|250 x$220 x$", "", Err((HostUnavailable, Connected, None))),
        ("220-x$221 x$", "", Err((HostUnavailable, Connected, None))),
        ("554 x$", "", Err((HostUnavailable, Connected, Some(554)))),
        ("220 x$|502 x$", "", Err((PermanentFailure, Connected, Some(502)))),
    ];
    let mut differences = Vec::new();
    for (opening, rest, expected) in cases {
        let said = [*opening, *rest].concat();
        let told = outcome(&said);
        if told != *expected {
            differences.push(format!("{said}\n    is {told:?}, not {expected:?}"));
        }
    }
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
}
