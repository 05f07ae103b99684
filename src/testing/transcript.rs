//! The record of one connection.

/// One piece of a [`Transcript`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Bytes the client sent, as one read of the server returned them; under TLS, as they stood in one record.
    Client {
        /// The bytes, decrypted.
        bytes: Vec<u8>,
        /// Whether they came inside TLS.
        encrypted: bool,
    },
    /// Bytes the server sent in one write.
    Server {
        /// The bytes, before encryption.
        bytes: Vec<u8>,
        /// Whether they left inside TLS.
        encrypted: bool,
    },
    /// The server began a TLS handshake.
    HandshakeStarted,
    /// The TLS handshake was completed.
    HandshakeFinished,
    /// The client ended its side: FIN or `close_notify`.
    ClientClosed,
    /// The client cut the connection: RST.
    ClientReset,
    /// The server closed the connection.
    ServerClosed,
}

/// What passed over one connection, byte for byte, in the order in which the server read and wrote it.
///
/// ```
/// use std::io::{Read, Write};
/// use smtp_pool::testing::TestServer;
///
/// let server = TestServer::start();
/// let mut client = std::net::TcpStream::connect(server.addr())?;
/// client.write_all(b"QUIT\r\n")?;
/// let mut seen = Vec::new();
/// client.read_to_end(&mut seen)?;
/// server.connection(1).wait_closed();
///
/// let transcript = server.transcript(1);
/// assert_eq!(transcript.client_bytes(), b"QUIT\r\n");
/// assert_eq!(transcript.server_bytes(), seen);
/// assert_eq!(transcript.commands(), ["QUIT"]);
/// assert_eq!(transcript.round_trips(), 1);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Transcript {
    events: Vec<Event>,
    commands: Vec<String>,
}

impl Transcript {
    /// Everything, in order.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// All the client sent, plain and decrypted parts joined.
    #[must_use]
    pub fn client_bytes(&self) -> Vec<u8> {
        self.collect(true, None)
    }

    /// All the server sent, plain and encrypted parts joined.
    #[must_use]
    pub fn server_bytes(&self) -> Vec<u8> {
        self.collect(false, None)
    }

    /// What the client sent outside TLS; everything on a connection that never used it.
    #[must_use]
    pub fn client_plaintext(&self) -> Vec<u8> {
        self.collect(true, Some(false))
    }

    /// What the server sent outside TLS.
    #[must_use]
    pub fn server_plaintext(&self) -> Vec<u8> {
        self.collect(false, Some(false))
    }

    /// What the client sent inside TLS, decrypted.
    #[must_use]
    pub fn client_encrypted(&self) -> Vec<u8> {
        self.collect(true, Some(true))
    }

    /// What the server sent inside TLS, before encryption.
    #[must_use]
    pub fn server_encrypted(&self) -> Vec<u8> {
        self.collect(false, Some(true))
    }

    /// The client's lines outside message content, without their line ends; AUTH continuations included.
    #[must_use]
    pub fn commands(&self) -> &[String] {
        &self.commands
    }

    /// How often the dialogue turned from the client to the server: bytes came, then bytes left.
    #[must_use]
    pub fn round_trips(&self) -> usize {
        let mut client_spoke = false;
        let mut turns = 0;
        for event in &self.events {
            match event {
                Event::Client { .. } => client_spoke = true,
                Event::Server { .. } => turns += usize::from(std::mem::take(&mut client_spoke)),
                _ => {}
            }
        }
        turns
    }

    /// Whether a TLS handshake was begun.
    #[must_use]
    pub fn handshake_started(&self) -> bool {
        self.events.contains(&Event::HandshakeStarted)
    }

    /// Whether a TLS handshake was completed.
    #[must_use]
    pub fn handshake_finished(&self) -> bool {
        self.events.contains(&Event::HandshakeFinished)
    }

    pub(super) fn push(&mut self, event: Event) {
        self.events.push(event);
    }

    pub(super) fn push_command(&mut self, line: &[u8]) {
        self.commands.push(String::from_utf8_lossy(line).into_owned());
    }

    fn collect(&self, client: bool, within_tls: Option<bool>) -> Vec<u8> {
        let wanted = |encrypted: &bool| within_tls.is_none_or(|tls| tls == *encrypted);
        let mut all = Vec::new();
        for event in &self.events {
            match event {
                Event::Client { bytes, encrypted } if client && wanted(encrypted) => all.extend_from_slice(bytes),
                Event::Server { bytes, encrypted } if !client && wanted(encrypted) => all.extend_from_slice(bytes),
                _ => {}
            }
        }
        all
    }
}
