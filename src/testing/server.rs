//! The server as a test holds it.

use std::fmt;
use std::net::SocketAddr;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;

use super::builder::{Config, Security, TestServerBuilder};
use super::handle::ConnectionHandle;
use super::listener::{Listener, Port, Threads};
use super::message::{ReceivedMessage, id_key};
use super::script::Script;
use super::store::{Shared, Snapshot};
use super::transcript::Transcript;

/// An SMTP server on 127.0.0.1 for one test.
///
/// It runs from [`start`](Self::start) to its drop, which ends all its threads and closes all its sockets.
pub struct TestServer {
    shared: Arc<Shared>,
    port: Port,
    listener: Mutex<Option<Listener>>,
    threads: Threads,
}

impl TestServer {
    /// A plain server that offers PIPELINING, SIZE, 8BITMIME, SMTPUTF8 and ENHANCEDSTATUSCODES and takes every message.
    ///
    /// # Panics
    ///
    /// When no port can be bound or no thread started.
    #[must_use = "the server ends when this is dropped"]
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// A server with other settings.
    pub fn builder() -> TestServerBuilder {
        TestServerBuilder::new()
    }

    pub(super) fn launch(config: Config, script: Script) -> Self {
        let buffers = config.socket_buffers;
        let shared = Arc::new(Shared::new(config, script));
        let threads = Threads::default();
        let (port, listener) = Port::bind(buffers).expect("the test server binds a port of 127.0.0.1");
        let listener = Listener::spawn(listener, Arc::clone(&shared), Arc::clone(&threads))
            .expect("the test server starts its accepting thread");
        Self { shared, port, listener: Mutex::new(Some(listener)), threads }
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.addr.port()
    }

    /// Address and port.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.port.addr
    }

    /// `smtp://127.0.0.1:port`, with `?tls=required` for STARTTLS, or `smtps://127.0.0.1:port`. Credentials are not in it.
    #[must_use]
    pub fn url(&self) -> String {
        match self.shared.config.security {
            Security::Plain => format!("smtp://{}", self.port.addr),
            Security::StartTls => format!("smtp://{}?tls=required", self.port.addr),
            Security::ImplicitTls => format!("smtps://{}", self.port.addr),
        }
    }

    /// The certificate to trust, as PEM: the authority behind the server's own, see [`CertificateKind`](super::CertificateKind).
    #[must_use]
    pub fn root_certificate_pem(&self) -> String {
        self.shared.identity().root_pem.clone()
    }

    /// The messages stored so far, in order.
    #[must_use]
    pub fn messages(&self) -> Vec<ReceivedMessage> {
        self.shared.state.lock().messages.clone()
    }

    /// How many messages with this `Message-ID` were stored: the oracle for "exactly once".
    ///
    /// Angle brackets may be left out.
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use smtp_pool::testing::TestServer;
    ///
    /// let server = TestServer::builder().pipelining(true).start();
    /// let mut client = std::net::TcpStream::connect(server.addr())?;
    /// let mut reply = [0; 512];
    /// for command in [
    ///     "", // the greeting comes unasked
    ///     "EHLO client.example\r\n",
    ///     "MAIL FROM:<a@example.com>\r\n",
    ///     "RCPT TO:<b@example.com>\r\n",
    ///     "DATA\r\n",
    ///     "Message-ID: <1@example.com>\r\n\r\nHello.\r\n.\r\n",
    /// ] {
    ///     client.write_all(command.as_bytes())?;
    ///     client.read(&mut reply)?;
    /// }
    /// assert_eq!(server.accepted("<1@example.com>"), 1);
    /// assert_eq!(server.messages()[0].recipients(), ["b@example.com"]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn accepted(&self, message_id: &str) -> usize {
        self.shared.state.lock().by_id.get(id_key(message_id)).copied().unwrap_or(0)
    }

    /// What clients did that a correct client does not: pipelining not offered or in the wrong place, bare CR or LF, NUL,
    /// long lines, 8-bit content not announced. One line of text each, with the connection's number.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.shared.state.lock().violations.clone()
    }

    /// The counters at this moment.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.shared.state.lock().snapshot.clone()
    }

    /// Connections accepted so far, those turned away at the limit included.
    #[must_use]
    pub fn connections_accepted(&self) -> usize {
        self.snapshot().accepted
    }

    /// Connections whose socket is open on the server's side.
    ///
    /// The server may notice a client's close a moment later: use [`wait_for`](Self::wait_for).
    #[must_use]
    pub fn connections_open(&self) -> usize {
        self.snapshot().open
    }

    /// The largest number of connections the clients held open at the same time, without those turned away at the limit.
    ///
    /// A connection its client has closed before it opened the next one does not count.
    #[must_use]
    pub fn peak_connections(&self) -> usize {
        self.shared.state.lock().peak
    }

    /// What passed over the `connection`th connection so far; the first is 1.
    ///
    /// # Panics
    ///
    /// When that connection has not been accepted yet, or with [`record(false)`](TestServerBuilder::record).
    #[must_use]
    pub fn transcript(&self, connection: usize) -> Transcript {
        assert!(self.shared.config.record, "transcripts were switched off with record(false)");
        self.connection(connection).link().transcript()
    }

    /// The `connection`th connection (the first is 1), to act on from outside.
    ///
    /// # Panics
    ///
    /// When that connection has not been accepted yet.
    #[must_use]
    pub fn connection(&self, connection: usize) -> ConnectionHandle {
        let state = self.shared.state.lock();
        let link = connection.checked_sub(1).and_then(|index| state.links.get(index)).cloned();
        let accepted = state.links.len();
        drop(state);
        let link = link.unwrap_or_else(|| panic!("connection {connection} does not exist: {accepted} accepted so far"));
        ConnectionHandle::new(Arc::clone(&self.shared), link)
    }

    /// Blocks until the counters satisfy `condition`, at most `timeout`. `false`: they did not in time.
    ///
    /// ```
    /// use std::time::Duration;
    /// use smtp_pool::testing::TestServer;
    ///
    /// let server = TestServer::start();
    /// let client = std::net::TcpStream::connect(server.addr())?;
    /// assert!(server.wait_for(|seen| seen.connections_open() == 1, Duration::from_secs(10)));
    /// drop(client);
    /// assert!(server.wait_for(|seen| seen.connections_open() == 0, Duration::from_secs(10)));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use = "false means that the time is over"]
    pub fn wait_for(&self, mut condition: impl FnMut(&Snapshot) -> bool, timeout: Duration) -> bool {
        self.shared.wait(timeout, |state| condition(&state.snapshot))
    }

    /// Opens the [`Action::Barrier`](super::Action::Barrier) of this name, for all who wait at it and all who will come.
    pub fn release(&self, barrier: &str) {
        self.shared.open_barrier(barrier);
    }

    /// Blocks until a connection has arrived at the barrier of this name.
    ///
    /// # Panics
    ///
    /// When none does within [`patience`](TestServerBuilder::patience).
    pub fn wait_until_reached(&self, barrier: &str) {
        let patience = self.shared.config.patience;
        let reached = self.wait_for(|seen| seen.barrier_reached(barrier) > 0, patience);
        assert!(reached, "no connection reached barrier {barrier:?} within {patience:?}: {:?}", self.snapshot());
    }

    /// Puts another script in force. Occasions are counted anew; connections keep their numbers.
    ///
    /// Cuts apply to connections accepted from now on.
    pub fn set_script(&self, script: Script) {
        self.shared.state.lock().script = script;
    }

    /// Asserts that every rule for one occasion has come to pass, so that a test cannot succeed without its fault.
    ///
    /// # Panics
    ///
    /// When one has not; the text names it.
    pub fn assert_script_used(&self) {
        let unused = self.shared.state.lock().script.unused();
        assert!(unused.is_empty(), "rules of the script that never came to pass: {unused:?}");
    }

    /// Closes the listening socket: new connections are refused, live ones go on. The port stays reserved on Linux.
    pub fn stop_accepting(&self) {
        let listener = self.listener.lock().take();
        if let Some(listener) = listener {
            listener.stop();
        }
    }

    /// Listens again on the same port after [`stop_accepting`](Self::stop_accepting).
    ///
    /// # Panics
    ///
    /// When the port cannot be bound again.
    pub fn resume_accepting(&self) {
        let mut listener = self.listener.lock();
        if listener.is_none() {
            let socket = self.port.listen_again(self.shared.config.socket_buffers);
            let socket = socket.expect("the test server listens on its port again");
            let spawned = Listener::spawn(socket, Arc::clone(&self.shared), Arc::clone(&self.threads));
            *listener = Some(spawned.expect("the test server starts its accepting thread"));
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.stop_accepting();
        self.shared.wake_all();
        let links = self.shared.state.lock().links.clone();
        for link in links {
            link.abandon();
        }
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // A thread that panicked has said so on stderr.
            let _ = thread.join();
        }
    }
}

// A test that panics with a server at hand leaves it as it was: no method of it panics while it changes something.
impl UnwindSafe for TestServer {}
impl RefUnwindSafe for TestServer {}

impl fmt::Debug for TestServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestServer")
            .field("addr", &self.port.addr)
            .field("seen", &self.snapshot())
            .finish_non_exhaustive()
    }
}
