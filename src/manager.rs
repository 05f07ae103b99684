//! SMTP sessions for a plain `r2d2::Pool`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lettre::Message;
use lettre::address::Envelope;

use crate::clock::{self, Deadline};
use crate::endpoint::{Endpoint, HostId};
use crate::error::SendError;
use crate::options::{Host, KeepaliveCommand, OptionsError, PoolOptions, SendOptions, validate};
use crate::report::{HeldSession, Limit, Met, Receipt, SendSettings, judge, send_error};
use crate::smtp::{Failure, Resolver, Session, SessionOpener, Timeouts};
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
#[derive(Debug)]
pub struct SmtpConnectionManager {
    opener: SessionOpener,
    timeouts: Timeouts,
    settings: SendSettings,
    opened: AtomicU64,
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
        Ok(Self { opener, timeouts, settings, opened: AtomicU64::new(0) })
    }

    /// When a connection whose opening began at `started` must be ready.
    fn deadline(&self, started: Instant) -> Deadline {
        Deadline::at(started, self.timeouts.connect + self.timeouts.auth)
    }

    /// The connection, whose opening began at `started`.
    fn connection(&self, started: Instant, opened: Result<Session, Failure>) -> Result<SmtpConnection, SendError> {
        let session = opened.map_err(|failure| self.error(started, failure))?;
        Ok(SmtpConnection {
            session: Some(session),
            endpoint: self.opener.endpoint().clone(),
            id: self.opened.fetch_add(1, Ordering::Relaxed) + 1,
            messages: 0,
            settings: self.settings,
        })
    }

    fn error(&self, started: Instant, failure: Failure) -> SendError {
        let limit = Limit::of_opening(failure.event.step(), self.timeouts);
        let judged = judge(failure, Met::default(), self.settings.boundary, limit);
        let (mut trace, now) = (Recorder::new(started), clock::now());
        let cause = TraceCause::of(judged.failure.event, judged.failure.reply.as_ref(), None);
        trace.step(now, Some(now - started), Some(HostId(0)), TraceEvent::ConnectFailed { cause });
        let error = send_error(judged, self.opener.endpoint().clone(), Vec::new());
        trace.gave_up(now, &error);
        error.with_trace(trace.finish(Hosts::One(self.opener.endpoint().clone())))
    }

    /// As `connect`, over a socket that is connected already, to whatever.
    #[cfg(fuzzing)]
    pub(crate) fn connect_over(&self, socket: std::net::TcpStream) -> Result<SmtpConnection, SendError> {
        let started = clock::now();
        self.connection(started, self.opener.open_over(socket, self.deadline(started)))
    }
}

impl r2d2::ManageConnection for SmtpConnectionManager {
    type Connection = SmtpConnection;
    type Error = SendError;

    fn connect(&self) -> Result<SmtpConnection, SendError> {
        let started = clock::now();
        self.connection(started, self.opener.open(self.deadline(started), &[]))
    }

    /// Asks with RSET; only 250 is a sign of life.
    fn is_valid(&self, connection: &mut SmtpConnection) -> Result<(), SendError> {
        let (held, started) = (connection.held(), clock::now());
        let answer = held.session.probe(KeepaliveCommand::Rset, Deadline::at(started, PROBE_TIMEOUT));
        answer.map_err(|failure| held.error(failure, Limit::Option("the probe's bound", PROBE_TIMEOUT), started))
    }

    fn has_broken(&self, connection: &mut SmtpConnection) -> bool {
        let messages = connection.messages;
        let session = connection.held().session;
        let is_spent = session.message_limit().is_some_and(|limit| messages >= limit);
        !session.is_in_step() || session.is_worn_out() || is_spent
    }
}

/// One SMTP session, lent by an [`r2d2::Pool`]. Says QUIT when it is dropped in step.
pub struct SmtpConnection {
    /// Taken by the drop alone.
    session: Option<Session>,
    endpoint: Endpoint,
    id: u64,
    messages: u32,
    settings: SendSettings,
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

    fn held(&mut self) -> HeldSession<'_> {
        HeldSession {
            session: self.session.as_mut().expect("only the drop takes the session"),
            endpoint: &self.endpoint,
            connection_id: self.id,
            reused: self.messages > 0,
            settings: self.settings,
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
        let Self { endpoint, id, messages, .. } = self;
        f.debug_struct("SmtpConnection")
            .field("endpoint", endpoint)
            .field("id", id)
            .field("messages", messages)
            .finish_non_exhaustive()
    }
}
