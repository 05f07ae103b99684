//! As little as a client can do for a message: it writes, it waits, and it looks at nothing but the first digit of a reply.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use native_tls::{Certificate, TlsConnector, TlsStream};
#[cfg(target_os = "linux")]
use socket2::SockRef;

use super::{Load, Peer, Server};
use crate::clock;
use crate::mail;
use crate::paired::Contestant;

/// Bounds on a group of commands, as RFC 2920 advises and this crate has them.
const GROUP_COMMANDS: usize = 50;
const GROUP_BYTES: usize = 4096;

/// A server that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// How it talks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialogue {
    /// The envelope with DATA in one write (or as many as its size asks for), the body with its dot in the next.
    Pipelining,
    /// Everything in one write, the content as the only chunk of a BDAT.
    AtOnce,
    /// A command, a reply.
    Sequential,
}

pub struct RawClient {
    dialogue: Dialogue,
    connections: Vec<Connection>,
}

impl RawClient {
    pub fn connect(load: &Load, dialogue: Dialogue) -> Self {
        let connect = |_| Connection::open(load, dialogue);
        Self { dialogue, connections: (0..load.connections).map(connect).collect() }
    }
}

impl Contestant for RawClient {
    fn name(&self) -> &str {
        match self.dialogue {
            Dialogue::Pipelining => Peer::RawPipelining.name(),
            Dialogue::AtOnce => Peer::RawAtOnce.name(),
            Dialogue::Sequential => Peer::RawSequential.name(),
        }
    }

    fn work(&mut self, amount: usize) -> Duration {
        let started = clock::now();
        match &mut self.connections[..] {
            [connection] => connection.send(amount).unwrap(),
            connections => {
                let share = amount / connections.len();
                thread::scope(|scope| {
                    for connection in connections {
                        scope.spawn(move || connection.send(share).unwrap());
                    }
                });
            }
        }
        clock::now() - started
    }

    fn granularity(&self) -> usize {
        self.connections.len()
    }
}

enum Wire {
    Plain(TcpStream),
    Tls(TlsStream<TcpStream>),
}

impl Wire {
    /// A server with Nagle's algorithm on holds the next reply back until the last one was acknowledged.
    fn acknowledge_at_once(&self) -> io::Result<()> {
        let socket = match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref(),
        };
        #[cfg(target_os = "linux")]
        SockRef::from(socket).set_tcp_quickack(true)?;
        #[cfg(not(target_os = "linux"))]
        let _ = socket;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.write_all(bytes),
            Self::Tls(stream) => stream.write_all(bytes),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

struct Connection {
    wire: Wire,
    buffer: Box<[u8]>,
    /// What is written before each wait for the envelope's replies, and how many are due.
    groups: Vec<(Vec<u8>, usize)>,
    /// What follows, as the last thing that is written; nothing if it left with the envelope.
    content: Vec<u8>,
}

impl Connection {
    fn open(load: &Load, dialogue: Dialogue) -> Self {
        let socket = TcpStream::connect(("127.0.0.1", load.server.port)).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut connection = Self {
            wire: Wire::Plain(socket),
            buffer: vec![0; 16 * 1024].into(),
            groups: groups(load, dialogue),
            content: match dialogue {
                Dialogue::AtOnce => Vec::new(),
                Dialogue::Pipelining | Dialogue::Sequential => [&mail::content(load.size), &b".\r\n"[..]].concat(),
            },
        };
        connection.read_replies(1).unwrap();
        connection.command("EHLO [127.0.0.1]\r\n").unwrap();
        if load.server.ca.is_some() {
            connection.command("STARTTLS\r\n").unwrap();
            connection = Self { wire: encrypted(connection.wire, &load.server), ..connection };
            connection.command("EHLO [127.0.0.1]\r\n").unwrap();
        }
        connection
    }

    fn command(&mut self, line: &str) -> io::Result<()> {
        self.wire.write(line.as_bytes())?;
        self.read_replies(1)
    }

    fn send(&mut self, messages: usize) -> io::Result<()> {
        for _ in 0..messages {
            for index in 0..self.groups.len() {
                let (commands, due) = &self.groups[index];
                let due = *due;
                self.wire.write(commands)?;
                self.read_replies(due)?;
            }
            if !self.content.is_empty() {
                self.wire.write(&self.content)?;
                self.read_replies(1)?;
            }
        }
        Ok(())
    }

    /// Reads so many replies: lines whose fourth byte is no hyphen.
    fn read_replies(&mut self, mut due: usize) -> io::Result<()> {
        let (mut end, mut line) = (0, 0);
        while due > 0 {
            if end > 0 {
                self.wire.acknowledge_at_once()?;
            }
            let read = self.wire.read(&mut self.buffer[end..])?;
            assert!(read > 0, "the server closed");
            end += read;
            while let Some(length) = memchr::memchr(b'\n', &self.buffer[line..end]) {
                let text = &self.buffer[line..=line + length];
                assert!(matches!(text[0], b'2' | b'3'), "{}", String::from_utf8_lossy(text));
                due -= usize::from(text[3] != b'-');
                line += length + 1;
            }
        }
        Ok(())
    }
}

fn encrypted(wire: Wire, server: &Server) -> Wire {
    let (Wire::Plain(socket), Some(ca)) = (wire, &server.ca) else { panic!("it is plain, and there is a certificate") };
    let mut connector = TlsConnector::builder();
    connector.add_root_certificate(Certificate::from_pem(ca).unwrap());
    Wire::Tls(connector.build().unwrap().connect(server.name(), socket).unwrap())
}

fn groups(load: &Load, dialogue: Dialogue) -> Vec<(Vec<u8>, usize)> {
    let from = format!("MAIL FROM:<{}>\r\n", mail::FROM);
    let to = (0..load.recipients).map(|number| format!("RCPT TO:<{}>\r\n", mail::recipient(number)));
    if dialogue == Dialogue::AtOnce {
        let envelope = [from].into_iter().chain(to).collect::<String>();
        let all = [format!("{envelope}BDAT {} LAST\r\n", load.size).as_bytes(), &mail::content(load.size)].concat();
        return vec![(all, load.recipients + 2)];
    }
    let commands = [from].into_iter().chain(to).chain(["DATA\r\n".to_owned()]);
    let mut groups: Vec<(Vec<u8>, usize)> = Vec::new();
    for command in commands {
        match groups.last_mut() {
            Some((bytes, due))
                if dialogue == Dialogue::Pipelining
                    && *due < GROUP_COMMANDS
                    && bytes.len() + command.len() <= GROUP_BYTES =>
            {
                bytes.extend(command.as_bytes());
                *due += 1;
            }
            _ => groups.push((command.into_bytes(), 1)),
        }
    }
    groups
}
