//! A raw client: it sends what it is told and checks nothing of its own accord.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use native_tls::{Certificate, TlsConnector, TlsStream};
use smtp_pool::testing::TestServer;

pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) enum Client {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Client {
    /// Connected, nothing read.
    pub(crate) fn silent(server: &TestServer) -> Self {
        let stream = TcpStream::connect(server.addr()).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::Plain(stream)
    }

    /// Connected, greeted, EHLO said.
    pub(crate) fn ready(server: &TestServer) -> Self {
        let mut client = Self::silent(server);
        assert!(client.reply().starts_with("220 "));
        assert!(client.say("EHLO client.example").starts_with("250-localhost\r\n"));
        client
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref(),
        }
    }

    /// The handshake, trusting the server's root and checking the name `localhost`.
    pub(crate) fn tls(self, server: &TestServer) -> Result<Self, native_tls::HandshakeError<TcpStream>> {
        let Self::Plain(stream) = self else { panic!("TLS already") };
        let root = Certificate::from_pem(server.root_certificate_pem().as_bytes()).unwrap();
        let connector =
            TlsConnector::builder().disable_built_in_roots(true).add_root_certificate(root).build().unwrap();
        Ok(Self::Tls(Box::new(connector.connect("localhost", stream)?)))
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap();
    }

    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes.as_ref()),
            Self::Tls(stream) => stream.write_all(bytes.as_ref()),
        }
    }

    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }

    pub(crate) fn exactly(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let mut byte = [0];
            assert_eq!(self.read(&mut byte).unwrap(), 1, "EOF after {:?}", String::from_utf8_lossy(&bytes));
            bytes.push(byte[0]);
        }
        bytes
    }

    /// One complete reply, line ends included.
    pub(crate) fn reply(&mut self) -> String {
        let mut reply = Vec::new();
        let mut line = 0;
        loop {
            reply.extend(self.exactly(1));
            if reply.ends_with(b"\n") {
                if reply.get(line + 3) != Some(&b'-') {
                    return String::from_utf8(reply).unwrap();
                }
                line = reply.len();
            }
        }
    }

    pub(crate) fn say(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n"));
        self.reply()
    }

    /// The code of the reply to each line, one after the other.
    pub(crate) fn codes(&mut self, lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| self.say(line)[..3].to_owned()).collect()
    }

    /// A whole message; the reply to the dot.
    pub(crate) fn mail(&mut self, id: &str) -> String {
        assert_eq!(
            self.codes(&["MAIL FROM:<a@example.com>", "RCPT TO:<b@example.com>", "DATA"]),
            ["250", "250", "354"]
        );
        self.say(&format!("Message-ID: <{id}>\r\n\r\nHello.\r\n."))
    }

    /// What is left to read until FIN. Panics on RST.
    pub(crate) fn rest(&mut self) -> String {
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match self.read(&mut buffer).expect("FIN, not RST") {
                0 => return String::from_utf8(all).unwrap(),
                read => all.extend_from_slice(&buffer[..read]),
            }
        }
    }

    /// What is left to read until RST. Panics on FIN.
    pub(crate) fn rest_until_reset(&mut self) -> String {
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match self.read(&mut buffer) {
                Ok(0) => panic!("FIN, not RST, after {:?}", String::from_utf8_lossy(&all)),
                Ok(read) => all.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return String::from_utf8(all).unwrap(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Nothing arrives for a while. The only test here that needs time to pass: it shows an absence.
    pub(crate) fn nothing_comes(&mut self) {
        self.socket().set_read_timeout(Some(Duration::from_millis(30))).unwrap();
        let error = self.read(&mut [0]).expect_err("silence");
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
        self.socket().set_read_timeout(Some(TIMEOUT)).unwrap();
    }
}
