//! One connection as a test acts on it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::store::Shared;
use super::transcript::Transcript;
use super::wire::{Link, Wish};

/// One connection of a [`TestServer`](super::TestServer), to be acted on while it is idle or waits at a barrier.
///
/// ```
/// use std::io::Read;
/// use std::time::Duration;
/// use smtp_pool::testing::{Stage, TestServer};
///
/// let server = TestServer::start();
/// let mut client = std::net::TcpStream::connect(server.addr())?;
/// client.read(&mut [0; 64])?; // the greeting
///
/// server.connection(1).send("421 4.3.2 going down\r\n");
/// server.connection(1).close();
/// let mut rest = String::new();
/// client.read_to_string(&mut rest)?;
/// assert_eq!(rest, "421 4.3.2 going down\r\n");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct ConnectionHandle {
    shared: Arc<Shared>,
    link: Arc<Link>,
}

impl ConnectionHandle {
    pub(super) fn new(shared: Arc<Shared>, link: Arc<Link>) -> Self {
        Self { shared, link }
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// The number of the connection; the first is 1.
    #[must_use]
    pub fn number(&self) -> usize {
        self.link.number
    }

    /// Sends bytes, encrypted where there is TLS. Nothing happens on a closed connection.
    pub fn send(&self, bytes: impl AsRef<[u8]>) {
        // The connection may end at any time; the test sees that elsewhere.
        let _ = self.link.send(bytes.as_ref());
    }

    /// Sends bytes past the TLS layer, as a server does that forgets it.
    pub fn send_plaintext(&self, bytes: impl AsRef<[u8]>) {
        let _ = self.link.send_plaintext(bytes.as_ref());
    }

    /// Sends a TLS `close_notify` and leaves the socket open. Nothing on a plain connection.
    pub fn close_notify(&self) {
        let _ = self.link.close_notify();
    }

    /// Closes with FIN (on TLS a `close_notify` before it). Returns when the server's socket is closed.
    ///
    /// # Panics
    ///
    /// As [`wait_closed`](Self::wait_closed).
    pub fn close(&self) {
        self.end(Wish::Fin);
    }

    /// Closes with RST. Returns when the server's socket is closed.
    ///
    /// # Panics
    ///
    /// As [`wait_closed`](Self::wait_closed).
    pub fn reset(&self) {
        self.end(Wish::Reset);
    }

    /// Sends FIN, without `close_notify`, and leaves the other direction open.
    pub fn half_close(&self) {
        self.link.half_close();
    }

    /// Whether the server's socket is closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.link.closed.load(Ordering::SeqCst)
    }

    /// Blocks until the server's socket is closed, by whichever side.
    ///
    /// # Panics
    ///
    /// When it is not within [`patience`](super::TestServerBuilder::patience).
    pub fn wait_closed(&self) {
        let patience = self.shared.config.patience;
        let closed = self.shared.wait(patience, |_| self.is_closed());
        assert!(closed, "connection {} is still open after {patience:?}", self.link.number);
    }

    /// What passed over it so far.
    #[must_use]
    pub fn transcript(&self) -> Transcript {
        self.link.transcript()
    }

    fn end(&self, wish: Wish) {
        self.link.ask(wish);
        self.shared.wake_all();
        self.wait_closed();
    }
}

impl fmt::Debug for ConnectionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionHandle")
            .field("number", &self.link.number)
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}
