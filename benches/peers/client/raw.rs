//! As little as a client can do for a message: it writes, it waits, and it looks at nothing but the first digit of a reply. And as little
//! as one can do that owes its caller what this crate promises.

use std::hint::black_box;
use std::io::{self, ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use native_tls::{Certificate, TlsConnector, TlsStream};
use socket2::SockRef;

use super::{Load, Peer, Server};
use crate::body::BodyEncoder;
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
    /// The same, with what this crate promises besides (`Connection::send_carefully`).
    Careful,
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
            Dialogue::Careful => Peer::RawCareful.name(),
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
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref(),
        }
    }

    /// A server with Nagle's algorithm on holds the next reply back until the last one was acknowledged.
    fn acknowledge_at_once(&self) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        SockRef::from(self.socket()).set_tcp_quickack(true)?;
        Ok(())
    }

    /// Whether anything has arrived unasked, which the server has no reason for here. Under TLS that may be a session ticket.
    fn look(&self) {
        let socket = self.socket();
        let mut byte = [MaybeUninit::uninit()];
        let looked = SockRef::from(socket).recv_with_flags(&mut byte, libc::MSG_PEEK | libc::MSG_DONTWAIT);
        let is_quiet = looked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        assert!(is_quiet || matches!(self, Self::Tls(_)), "the server has nothing to say now");
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
    is_careful: bool,
    /// Where a careful one puts the content in its form.
    out: Vec<u8>,
}

/// What a caller is told who wants to know what became of a message. Nobody reads it here.
#[allow(dead_code, reason = "it is the making of it that takes time")]
struct Told {
    recipient: String,
    answers: [Vec<u8>; 2],
    elapsed: Duration,
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
                Dialogue::Careful => mail::content(load.size),
                Dialogue::Pipelining | Dialogue::Sequential => [&mail::content(load.size), &b".\r\n"[..]].concat(),
            },
            is_careful: dialogue == Dialogue::Careful,
            out: Vec::new(),
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
            if self.is_careful {
                black_box(self.send_carefully()?);
                continue;
            }
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

    /// One message, with a look at the connection before it is used again and before the last byte leaves, the time for the deadline of
    /// each wait, the content checked and copied in its form on the wire, and the replies for the caller to keep.
    fn send_carefully(&mut self) -> io::Result<Box<Told>> {
        let started = clock::now();
        self.wire.look();
        for index in 0..self.groups.len() {
            let (commands, due) = &self.groups[index];
            let due = *due;
            self.wire.write(commands)?;
            black_box(clock::now());
            self.read_replies(due)?;
        }
        let envelope = self.buffer[..64].to_vec();
        self.out.clear();
        BodyEncoder::new(self.content[..].into()).fill(&mut self.out, usize::MAX);
        black_box(clock::now());
        self.wire.look();
        self.wire.write(&self.out)?;
        black_box(clock::now());
        self.read_replies(1)?;
        let answers = [envelope, self.buffer[..64].to_vec()];
        Ok(Box::new(Told { recipient: mail::recipient(0), answers, elapsed: clock::now() - started }))
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
                if dialogue != Dialogue::Sequential
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
