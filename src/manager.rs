//! SMTP sessions for a plain `r2d2::Pool`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lettre::Message;
use lettre::address::Envelope;

use crate::clock::{self, Deadline};
use crate::endpoint::HostId;
use crate::error::SendError;
use crate::event::Event;
use crate::options::{Credentials, Host, KeepaliveCommand, OptionsError, PoolOptions, SendOptions, validate};
use crate::report::{HeldSession, Limit, Met, Receipt, SendSettings, judge, send_error};
use crate::smtp::{Failure, Resolver, Session, SessionOpener, Timeouts};
use crate::stage::SendStage;
use crate::trace::{Hosts, Recorder, TraceCause, TraceEvent};

/// How long a server may take to show that it is alive.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens and checks connections for an [`r2d2::Pool`]: the sessions of [`SmtpSender`](crate::SmtpSender) under another pool.
///
/// For programs that already manage everything by r2d2. [`SmtpSender`](crate::SmtpSender) does more: several hosts, cooldown,
/// waiting in order of arrival, retries, and no round trip to check a connection before each use.
///
/// ```
/// use smtp_pool::{Host, SmtpConnectionManager};
/// # use smtp_pool::testing::TestServer;
/// # let server = TestServer::start();
/// # let host = Host::plain("127.0.0.1").port(server.port());
/// # let message = lettre::Message::builder()
/// #     .from("a@example.com".parse()?).to("b@example.com".parse()?).body(String::from("Hello."))?;
///
/// let pool = r2d2::Pool::builder().max_size(4).min_idle(Some(0)).build(SmtpConnectionManager::new(host)?)?;
/// let receipt = pool.get()?.send(&message)?;
/// # assert_eq!(server.messages().len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Clones are the same manager: keep one beside the pool, which takes the other, to rotate credentials.
#[derive(Debug, Clone)]
pub struct SmtpConnectionManager {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    opener: SessionOpener,
    timeouts: Timeouts,
    settings: SendSettings,
    opened: AtomicU64,
    /// How often the credentials were rotated.
    generation: AtomicU64,
}

impl SmtpConnectionManager {
    /// A manager of connections to `host`, with the timeouts of [`PoolOptions::default`].
    ///
    /// # Errors
    ///
    /// [`OptionsError`] if the host cannot be used.
    pub fn new(host: Host) -> Result<Self, OptionsError> {
        let mut options = PoolOptions::default();
        options.hosts.push(host);
        Self::from_options(options)
    }

    /// A manager of connections to the only host of `options`, with its `connect_timeout`, `auth_timeout`, `send_timeout`,
    /// `final_reply_timeout` and `ambiguity_boundary`. The other options are those of another pool and mean nothing here.
    ///
    /// # Errors
    ///
    /// [`OptionsError`] if an option cannot be used, or if there is more than one host.
    pub fn from_options(options: PoolOptions) -> Result<Self, OptionsError> {
        validate(&options)?;
        let timeouts = Timeouts::of(&options);
        let settings = SendSettings::of(&options);
        let count = options.hosts.len();
        let mut hosts = options.hosts.into_iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return Err(OptionsError::new("hosts", count.to_string(), "must be exactly one under r2d2"));
        };
        let opener = SessionOpener::new(host, timeouts, Arc::new(Resolver::system(1)));
        let (opened, generation) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { shared: Arc::new(Shared { opener, timeouts, settings, opened, generation }) })
    }

    /// Replaces the host's credentials: connections that are opened from now on have the new ones.
    ///
    /// No message begins on an old one once this has returned: the pool hands none out any more, one that is lent fails its next send
    /// ([`RetryableBeforeSend`](crate::FailureKind::RetryableBeforeSend)) and ends when it is given back. Idle ones end when the pool
    /// next looks at them, which is when it would hand them out. As
    /// [`SmtpSender::rotate_credentials`](crate::SmtpSender::rotate_credentials) otherwise.
    ///
    /// # Errors
    ///
    /// [`OptionsError`], and nothing has changed: a host without credentials or with a supplier, or credentials that hold NUL or U+0001.
    pub fn rotate_credentials(&self, credentials: Credentials) -> Result<(), OptionsError> {
        self.shared.opener.check_rotation(&credentials)?;
        self.shared.opener.rotate_credentials(credentials);
        self.shared.generation.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// Ends the connections that there are as [`rotate_credentials`](Self::rotate_credentials) does, and has those that come after log
    /// in anew: by another call of the supplier, or with the same fixed credentials.
    pub fn refresh_credentials(&self) {
        self.shared.opener.forget_credentials();
        self.shared.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// When a connection whose opening began at `started` must be ready.
    fn deadline(&self, started: Instant) -> Deadline {
        Deadline::at(started, self.shared.timeouts.connect + self.shared.timeouts.auth)
    }

    /// The connection, whose opening began at `started`, with the credentials of `generation`, or newer ones.
    fn connection(
        &self,
        generation: u64,
        started: Instant,
        opened: Result<Session, Failure>,
    ) -> Result<SmtpConnection, SendError> {
        let session = opened.map_err(|failure| self.error(started, failure))?;
        Ok(SmtpConnection {
            session: Some(session),
            id: self.shared.opened.fetch_add(1, Ordering::Relaxed) + 1,
            generation,
            messages: 0,
            manager: Arc::clone(&self.shared),
        })
    }

    fn error(&self, started: Instant, failure: Failure) -> SendError {
        let Shared { opener, timeouts, settings, .. } = &*self.shared;
        let limit = Limit::of_opening(failure.event.step(), *timeouts);
        let judged = judge(failure, Met::default(), settings.boundary, limit);
        let (mut trace, now) = (Recorder::new(started), clock::now());
        let cause = TraceCause::of(judged.failure.event, judged.failure.reply.as_ref(), None);
        trace.step(now, Some(now - started), Some(HostId(0)), TraceEvent::ConnectFailed { cause });
        let error = send_error(judged, opener.endpoint().clone(), Vec::new());
        trace.gave_up(now, error, Hosts::One(opener.endpoint().clone()))
    }

    /// As `connect`, over a socket that is connected already, to whatever.
    #[cfg(fuzzing)]
    pub(crate) fn connect_over(&self, socket: std::net::TcpStream) -> Result<SmtpConnection, SendError> {
        let started = clock::now();
        self.connection(0, started, self.shared.opener.open_over(socket, self.deadline(started)))
    }
}

impl r2d2::ManageConnection for SmtpConnectionManager {
    type Connection = SmtpConnection;
    type Error = SendError;

    fn connect(&self) -> Result<SmtpConnection, SendError> {
        let started = clock::now();
        let deadline = self.deadline(started);
        loop {
            let generation = self.shared.generation.load(Ordering::SeqCst);
            let connection = self.connection(generation, started, self.shared.opener.open(deadline, &[]));
            // Credentials that were rotated meanwhile say nothing, whether they were refused or not.
            if self.shared.generation.load(Ordering::SeqCst) == generation || deadline.is_over() {
                return connection;
            }
        }
    }

    /// Asks with RSET; only 250 is a sign of life.
    fn is_valid(&self, connection: &mut SmtpConnection) -> Result<(), SendError> {
        let (held, started) = (connection.held(), clock::now());
        let limit = Limit::Option("the probe's bound", PROBE_TIMEOUT);
        if held.is_outdated {
            return Err(held.error(Failure::new(Event::Rotated, SendStage::Authenticated), limit, started));
        }
        let answer = held.session.probe(KeepaliveCommand::Rset, Deadline::at(started, PROBE_TIMEOUT));
        answer.map_err(|failure| held.error(failure, limit, started))
    }

    fn has_broken(&self, connection: &mut SmtpConnection) -> bool {
        let messages = connection.messages;
        if connection.is_outdated() {
            return true;
        }
        let session = connection.held().session;
        let is_spent = session.message_limit().is_some_and(|limit| messages >= limit);
        !session.is_in_step() || session.is_worn_out() || is_spent
    }
}

/// One SMTP session, lent by an [`r2d2::Pool`]. Says QUIT when it is dropped in step.
pub struct SmtpConnection {
    /// Taken by the drop alone.
    session: Option<Session>,
    id: u64,
    /// How often the credentials had been rotated when it was opened.
    generation: u64,
    messages: u32,
    manager: Arc<Shared>,
}

impl SmtpConnection {
    /// Sends a message to the recipients of its envelope, all of them or none. Nothing is tried twice.
    ///
    /// # Errors
    ///
    /// [`SendError`], with the same kinds and the same meaning as those of [`SmtpSender::send`](crate::SmtpSender::send).
    pub fn send(&mut self, message: &Message) -> Result<Receipt, SendError> {
        self.send_with(message.envelope(), &message.formatted(), &SendOptions::default())
    }

    /// Sends a formatted message with options of its own.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn send_with(
        &mut self,
        envelope: &Envelope,
        content: &[u8],
        options: &SendOptions,
    ) -> Result<Receipt, SendError> {
        let receipt = self.held().send(envelope, content, options)?;
        self.messages = self.messages.saturating_add(1);
        Ok(receipt)
    }

    fn is_outdated(&self) -> bool {
        self.manager.generation.load(Ordering::SeqCst) != self.generation
    }

    fn held(&mut self) -> HeldSession<'_> {
        HeldSession {
            is_outdated: self.is_outdated(),
            session: self.session.as_mut().expect("only the drop takes the session"),
            endpoint: self.manager.opener.endpoint(),
            connection_id: self.id,
            reused: self.messages > 0,
            settings: self.manager.settings,
            stop: None,
        }
    }
}

impl Drop for SmtpConnection {
    fn drop(&mut self) {
        match self.session.take() {
            Some(session) if session.is_in_step() => session.quit(),
            Some(session) => session.abort(),
            None => {}
        }
    }
}

impl fmt::Debug for SmtpConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { manager, id, messages, .. } = self;
        f.debug_struct("SmtpConnection")
            .field("endpoint", manager.opener.endpoint())
            .field("id", id)
            .field("messages", messages)
            .finish_non_exhaustive()
    }
}
