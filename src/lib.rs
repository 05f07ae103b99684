//! A blocking pool of SMTP connections with a sender on top, for ordinary threads. No async runtime is used or needed.
//!
//! One call, [`SmtpSender::send`], takes a [`lettre::Message`], gets a connection from a bounded pool (waiting in order of arrival, no
//! longer than you allow), sends the message in two round trips, and returns a [`Receipt`] or a [`SendError`] that says exactly whether
//! the message may have been accepted.
//!
//! ```
//! use smtp_pool::{FailureKind, Host, SmtpSender};
//! # use smtp_pool::testing::TestServer;
//! # let server = TestServer::start();
//!
//! let sender = SmtpSender::builder()
//!     .host(Host::starttls("smtp-primary.example.com").credentials("smtp-user", "smtp-password").weight(3))
//!     .host(Host::starttls("smtp-secondary.example.com").credentials("smtp-user", "smtp-password").priority(10))
//! #   .hosts([Host::plain("127.0.0.1").port(server.port())])
//!     .max_size(8)
//!     .build()?;
//!
//! let message = lettre::Message::builder()
//!     .from("Shop <shop@example.com>".parse()?)
//!     .to("user@example.com".parse()?)
//!     .subject("Your new password")
//!     .body(String::from("Follow this link: …"))?;
//!
//! match sender.send(&message) {
//!     Ok(receipt) => println!("Sent via {} in {} attempt(s).", receipt.endpoint(), receipt.attempts()),
//!     Err(e) if e.kind() == FailureKind::PoolExhausted => eprintln!("busy: {e}"),
//!     Err(e) if e.kind() == FailureKind::UnknownAfterData => eprintln!("may have been delivered, do not resend blindly: {e}"),
//!     Err(e) => eprintln!("not sent: {e}"),
//! }
//! # assert_eq!(server.messages().len(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is promised
//!
//! 1. `send` returns by the deadline you set, whatever the server, the network or DNS does.
//! 2. `Ok` means: a complete 2xx to the whole message was read.
//! 3. Every error except [`UnknownAfterData`](FailureKind::UnknownAfterData) means: the server has not accepted the message.
//! 4. `UnknownAfterData` appears only when the last byte of the message had been offered to the network and no decisive answer came.
//!    The crate never resends such a message by itself.
//! 5. A connection that is not provably in step is never lent again, and never to two callers.
//! 6. There are never more than `max_size` live connections, those being opened included.
//! 7. Waiters are served in order of arrival: those who say that they are bulk ([`Lane`]), among themselves and behind the others.
//!
//! What stands behind each sentence, and what to do about each kind of failure, is in
//! [`_guide::delivery_guarantees`].
//!
//! # Where to look
//!
//! - [`SmtpSender`] and [`PoolOptions`]: sending, and every option with its default and its reason
//! - [`Host`]: servers, TLS, credentials; also from a URL
//! - [`_guide::choosing_limits`]: how to size a pool, and when to move which option; [`_guide::configuration`]: options and hosts from a
//!   file (feature `serde`)
//! - [`_guide::credentials`]: tokens from a supplier, and rotation without a restart
//! - [`SendOptions`]: a deadline for one call, a [`CancelToken`], partial recipients, a [`Lane`], delivery status notifications
//!   ([`Dsn`])
//! - [`SmtpSender::send_all`]: many messages, a few at a time, in any weather
//! - [`SmtpSender::verify`], [`warm_up`](SmtpSender::warm_up), [`lease`](SmtpSender::lease), [`shutdown`](SmtpSender::shutdown):
//!   start-up check, readiness, one connection for an expert, the end
//! - [`Observer`], [`_guide::logging_and_metrics`]: what happens inside, told to your code, to the log, and to a dashboard
//! - [`SendError`], [`FailureKind`], [`SendStage`]: what went wrong, and what that means; [`_guide::failure_recipes`]: what to do about it
//! - [`Trace`]: what a call did and how long each step took, from [`Receipt::trace`] and [`SendError::trace`]
//! - `testing` (feature): an embedded, scriptable SMTP server for your own tests, shown in [`_guide::testing_your_mailer`]
//! - `SmtpConnectionManager` (feature `r2d2`, on by default): the same connections under a plain [`r2d2`](https://docs.rs/r2d2) pool
//! - [`lettre::Transport`] is implemented by [`SmtpSender`], so code written against that trait needs no change:
//!   [`_guide::migrating`]
//! - [`_guide`]: all pages of the manual, from what is not promised to how the house is built
//!
//! # What is logged
//!
//! By the `log` crate: `error` when the pool's own thread ended early or another could not be started, an observer panicked, or a batch's
//! progress callback did; `warn` when no connection came free in time, when one could not be opened, when a host begins to cool down, and
//! when a message's outcome is unknown; `info` when a host works again; `debug` for connections opened and discarded with the reason, for
//! each classified failure and retry, and for what is learned of a host. Never credentials, addresses or content, at any level, and never
//! what a supplier of credentials failed with.
//!
//! Records have structured keys, and there are metrics: [`_guide::logging_and_metrics`] has all of both. Both are built on the
//! [`Observer`] trait, which is there for your own use too.
//!
//! # Features
//!
//! | feature | default | what it costs |
//! |---|---|---|
//! | `r2d2` | yes | r2d2 and its timer-thread crate. With Rust 1.85 hold `scheduled-thread-pool` at 0.2.7: 0.2.8 needs a newer compiler |
//! | `metrics` | no | the `metrics` facade: `MetricsObserver`, which counts and measures for the recorder that the program has installed, see [`_guide::logging_and_metrics`] |
//! | `serde` | no | serde_core and humantime, no macro: [`PoolOptions`] and [`Host`] from TOML, JSON and YAML, see [`_guide::configuration`] |
//! | `testing` | no | rcgen and ring, for a throw-away certificate |
#![cfg_attr(docsrs, feature(doc_cfg))]

// The floors, bottom up. A module uses only floors below its own; tests/architecture.rs holds it to that.

// Words: pure data.
mod blame;
mod cancel;
mod clock;
mod endpoint;
mod error;
mod event;
mod lane;
mod recipient;
mod reply;
#[cfg(simulation)]
mod simulation;
mod stage;
mod stats;
mod sync;
mod trace;
mod undisclosed;

pub mod observer;

// Choices: what the user decides.
mod options;

// Machines: a table, a pool of anything, an SMTP session.
mod classify;
mod pool;
mod smtp;

// Reports: how a send ended.
mod report;

// Doors: what users call.
#[cfg(all(fuzzing, feature = "r2d2"))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "r2d2")]
mod manager;
mod sender;

// Outside the house: imports nothing of it, so that it can contradict it.
#[cfg(feature = "testing")]
pub mod testing;

#[path = "guide/mod.rs"]
pub mod _guide;

pub use crate::cancel::CancelToken;
pub use crate::endpoint::Endpoint;
pub use crate::error::{Classification, FailureKind, SendError};
pub use crate::lane::Lane;
#[cfg(feature = "r2d2")]
pub use crate::manager::{SmtpConnection, SmtpConnectionManager};
#[cfg(feature = "metrics")]
pub use crate::observer::MetricsObserver;
pub use crate::observer::Observer;
pub use crate::options::{
    AmbiguityBoundary, Backoff, BatchOptions, Credentials, Dsn, DsnReturn, Host, KeepaliveCommand, Notify,
    OptionsError, PoolOptions, RecipientDsn, RecipientPolicy, SendOptions,
};
pub use crate::recipient::{RecipientOutcome, RecipientStatus};
pub use crate::reply::{EnhancedCode, Reply};
pub use crate::report::{Progress, Receipt};
pub use crate::sender::{BatchMessage, HostReport, Lease, SmtpSender, SmtpSenderBuilder};
pub use crate::stage::SendStage;
pub use crate::stats::{DiscardCounts, DiscardReason, HostState, HostStatus, PoolCounts, PoolStatus};
pub use crate::trace::{TlsVersion, Trace, TraceCause, TraceEvent, TraceStep, WaitOutcome};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
