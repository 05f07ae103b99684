//! A server without whims.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use crate::simulation::net::{self, Answer, ROOM, Socket, Weather};
use crate::simulation::sleep;
use crate::sync::Mutex;

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// What a server does, until told otherwise.
#[derive(Clone, Copy)]
pub(super) enum Manner {
    /// Takes everything.
    Kind,
    /// No port is open.
    Refusing,
    /// Nothing comes back.
    Lost,
    /// Says this to RCPT, and hangs up after it if it begins with 421.
    Says(&'static str),
    /// Takes so long to answer this command, or the last byte, which is `.`.
    Slow(&'static str, Duration),
}

pub(super) struct Server {
    pub(super) manner: Mutex<Manner>,
}

impl net::Host for Arc<Server> {
    fn answer(&self) -> Answer {
        let manner = *self.manner.lock();
        match manner {
            Manner::Refusing => Answer::Refused,
            Manner::Lost => Answer::Silence,
            Manner::Kind | Manner::Says(_) | Manner::Slow(..) => {
                let server = Self::clone(self);
                let serve = move |socket: Socket| {
                    // The client has gone.
                    let _ = server.serve(&socket);
                };
                Answer::Accepted(Weather { latency: MILLI * 10, room: ROOM, cut: None }, Box::new(serve))
            }
        }
    }
}

impl Server {
    fn serve(&self, socket: &Socket) -> std::io::Result<()> {
        let mut socket = socket;
        socket.set_read_timeout(Some(SECOND * 1000))?;
        socket.write_all(b"220 timeline ESMTP\r\n")?;
        let (mut input, mut buffer, mut in_content) = (Vec::new(), [0; 4096], false);
        loop {
            let end: &[u8] = if in_content { b"\r\n.\r\n" } else { b"\r\n" };
            let Some(length) = input.windows(end.len()).position(|bytes| bytes == end) else {
                match socket.read(&mut buffer)? {
                    0 => return Ok(()),
                    read => input.extend_from_slice(&buffer[..read]),
                }
                continue;
            };
            let line: Vec<u8> = input.drain(..length + end.len()).collect();
            let verb = if in_content { b"." } else { &line[..4] };
            let manner = *self.manner.lock();
            match manner {
                Manner::Slow(slow, pause) if slow.as_bytes() == verb => sleep(pause),
                _ => {}
            }
            let reply = match verb {
                b"." => {
                    in_content = false;
                    "250 2.0.0 queued"
                }
                b"EHLO" => "250-timeline\r\n250-ENHANCEDSTATUSCODES\r\n250 PIPELINING",
                b"RCPT" => match manner {
                    Manner::Says(reply) => reply,
                    _ => "250 2.1.5 ok",
                },
                b"DATA" if matches!(manner, Manner::Says(_)) => "503 5.5.1 nobody to send to",
                b"DATA" => {
                    in_content = true;
                    "354 go on"
                }
                _ => "250 2.1.0 ok",
            };
            socket.write_all(format!("{reply}\r\n").as_bytes())?;
            if reply.starts_with("421") {
                return Ok(());
            }
        }
    }
}
