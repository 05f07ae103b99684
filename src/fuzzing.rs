//! The door for the targets in `fuzz/`: exists under `--cfg fuzzing` alone, which no build of a user sets. Nothing is decided here.

#![allow(missing_docs, clippy::missing_errors_doc, clippy::exhaustive_structs, reason = "no user sees it")]

use std::net::TcpStream;

use lettre::transport::smtp::authentication::Mechanism;

use crate::error::SendError;
use crate::event::Desync;
use crate::manager::{SmtpConnection, SmtpConnectionManager};
use crate::reply::Reply;
use crate::smtp::{BodyEncoder, Capabilities, ReplyReader};

/// The replies in `chunks`, which arrive one by one; then what is left over, or why it was refused. Third, the most that was kept.
pub fn read_replies(chunks: &[&[u8]]) -> (Vec<Reply>, Result<Vec<u8>, String>, usize) {
    let mut reader = ReplyReader::default();
    let (mut replies, mut kept) = (Vec::new(), 0);
    for chunk in chunks {
        let mut rest = *chunk;
        while !rest.is_empty() {
            let space = reader.space();
            let (now, later) = rest.split_at(rest.len().min(space.len()));
            space[..now.len()].copy_from_slice(now);
            reader.filled(now.len());
            rest = later;
            loop {
                match reader.next() {
                    Ok(Some(complete)) => replies.push(reader.to_reply(complete)),
                    Ok(None) => break,
                    Err(desync) => return (replies, Err(Desync::to_string(&desync)), kept),
                }
            }
            kept = kept.max(reader.leftover().len());
        }
    }
    (replies, Ok(reader.leftover().to_vec()), kept)
}

/// What a server offers.
#[derive(Debug, PartialEq, Eq)]
pub struct Offered {
    pub pipelining: bool,
    pub chunking: bool,
    pub size: bool,
    pub size_limit: Option<u64>,
    pub eight_bit_mime: bool,
    pub smtp_utf8: bool,
    pub dsn: bool,
    pub starttls: bool,
    pub auth: Vec<Mechanism>,
    pub mail_max: Option<u32>,
    pub rcpt_max: Option<u32>,
}

/// What a server's reply to EHLO offers.
pub fn capabilities(ehlo: &Reply) -> Offered {
    let Capabilities {
        pipelining,
        chunking,
        size_limit,
        size,
        eight_bit_mime,
        smtp_utf8,
        dsn,
        starttls,
        auth,
        mail_max,
        rcpt_max,
    } = Capabilities::from_ehlo(ehlo);
    Offered {
        pipelining,
        chunking,
        size,
        size_limit,
        eight_bit_mime,
        smtp_utf8,
        dsn,
        starttls,
        auth,
        mail_max,
        rcpt_max,
    }
}

/// `content` as it leaves, in chunks of these sizes by turns.
pub fn encode(content: &[u8], sizes: impl Iterator<Item = usize>) -> Vec<Vec<u8>> {
    let mut encoder = BodyEncoder::new(content.into());
    let mut chunks = Vec::new();
    for size in sizes {
        let mut chunk = Vec::new();
        let is_last = encoder.fill(&mut chunk, size);
        chunks.push(chunk);
        if is_last {
            break;
        }
    }
    chunks
}

/// A session over a socket that is connected already.
pub fn connect_over(manager: &SmtpConnectionManager, socket: TcpStream) -> Result<SmtpConnection, SendError> {
    manager.connect_over(socket)
}
