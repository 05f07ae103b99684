//! SMTP sessions for a plain `r2d2::Pool`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lettre::Message;
use lettre::address::Envelope;

use crate::cancel::CancelToken;
use crate::clock::{self, Deadline};
use crate::endpoint::Endpoint;
use crate::error::SendError;
use crate::options::{AmbiguityBoundary, Host, KeepaliveCommand, OptionsError, PoolOptions, SendOptions, validate};
use crate::report::{Limit, Met, Receipt, interrupted, judge, send_error};
use crate::smtp::{Mail, Refused, Resolver, Session, SessionOpener, TimeLimits, Timeouts, transact};

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
    send: SendTimeouts,
    opened: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
struct SendTimeouts {
    send: Duration,
    final_reply: Duration,
    boundary: AmbiguityBoundary,
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
        let send = SendTimeouts {
            send: options.send_timeout,
            final_reply: options.final_reply_timeout,
            boundary: options.ambiguity_boundary,
        };
        let count = options.hosts.len();
        let mut hosts = options.hosts.into_iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return Err(OptionsError::new("hosts", count.to_string(), "must be exactly one under r2d2"));
        };
        let opener = SessionOpener::new(host, timeouts, Arc::new(Resolver::system()));
        Ok(Self { opener, timeouts, send, opened: AtomicU64::new(0) })
    }
}

impl r2d2::ManageConnection for SmtpConnectionManager {
    type Connection = SmtpConnection;
    type Error = SendError;

    fn connect(&self) -> Result<SmtpConnection, SendError> {
        let deadline = Deadline::after(self.timeouts.connect + self.timeouts.auth);
        let session = self.opener.open(deadline, &[]).map_err(|failure| {
            let limit = Limit::of_opening(failure.event.step(), self.timeouts);
            let judged = judge(failure, Met::default(), self.send.boundary, limit);
            send_error(judged, self.opener.endpoint().clone(), Vec::new())
        })?;
        Ok(SmtpConnection {
            session: Some(session),
            endpoint: self.opener.endpoint().clone(),
            id: self.opened.fetch_add(1, Ordering::Relaxed) + 1,
            messages: 0,
            timeouts: self.send,
        })
    }

    /// Asks with RSET; only 250 is a sign of life.
    fn is_valid(&self, connection: &mut SmtpConnection) -> Result<(), SendError> {
        let reset = connection.session_mut().probe(KeepaliveCommand::Rset, Deadline::after(PROBE_TIMEOUT));
        reset.map_err(|failure| {
            let judged = judge(
                failure,
                Met { reused: true, ..Met::default() },
                self.send.boundary,
                Limit::Option("the probe's bound", PROBE_TIMEOUT),
            );
            send_error(judged, connection.endpoint.clone(), Vec::new())
        })
    }

    fn has_broken(&self, connection: &mut SmtpConnection) -> bool {
        let messages = connection.messages;
        let session = connection.session_mut();
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
    timeouts: SendTimeouts,
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
        let started = clock::now();
        let SendTimeouts { send, final_reply, boundary } = self.timeouts;
        let caller = options.deadline.map(Deadline::on);
        let limits = TimeLimits::new(started, caller, send, final_reply);
        let mail = Mail { envelope, content, policy: options.recipients };
        let reused = self.messages > 0;
        let cancel = options.cancel.as_ref();
        let session = self.session_mut();
        let outcome = session.listen().map_err(Refused::from).and_then(|()| transact(session, &mail, &limits, cancel));
        match outcome {
            Ok(accepted) => {
                self.messages = self.messages.saturating_add(1);
                Ok(Receipt::of(accepted, self.endpoint.clone(), self.id, started))
            }
            Err(Refused { failure, recipients }) => {
                let limit = Limit::of_sending(failure.event.step(), caller, send, final_reply);
                let met = Met { reused, in_step: self.session_mut().is_in_step(), reauthenticated: true };
                // There is no sender here that could be shut down.
                let failure = interrupted(failure, cancel, &CancelToken::new());
                let judged = judge(failure, met, boundary, limit);
                Err(send_error(judged, self.endpoint.clone(), recipients).with_attempts(1))
            }
        }
    }

    fn session_mut(&mut self) -> &mut Session {
        self.session.as_mut().expect("only the drop takes the session")
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
