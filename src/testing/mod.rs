//! An embedded SMTP server for tests: strict where a server has to be, and wrong exactly where a script says so.
//!
//! It listens on 127.0.0.1, keeps what it receives in memory, and speaks SMTP as RFC 5321 has it: it checks the order of
//! commands, offers and enforces PIPELINING, SIZE, 8BITMIME, SMTPUTF8, CHUNKING, DSN, STARTTLS and AUTH, and notes what a
//! client does wrong. It shares no code with the rest of the crate, so the two can disagree.
//!
//! # Test your own mailer
//!
//! **One server for one test.** Starting one takes less than a millisecond; its drop ends all its threads and sockets.
//!
//! ```
//! use smtp_pool::testing::TestServer;
//!
//! let server = TestServer::start();
//! my_mailer(server.port(), "<welcome-1@example.com>")?;
//!
//! assert_eq!(server.accepted("<welcome-1@example.com>"), 1);
//! assert_eq!(server.messages()[0].recipients(), ["user@example.com"]);
//! assert!(server.violations().is_empty());
//! # fn my_mailer(port: u16, id: &str) -> Result<(), lettre::transport::smtp::Error> {
//! #     use lettre::Transport;
//! #     let message = lettre::Message::builder()
//! #         .message_id(Some(id.to_owned()))
//! #         .from("shop@example.com".parse().unwrap())
//! #         .to("user@example.com".parse().unwrap())
//! #         .body("Welcome.".to_owned())
//! #         .unwrap();
//! #     lettre::SmtpTransport::builder_dangerous("127.0.0.1").port(port).build().send(&message).map(drop)
//! # }
//! # Ok::<(), lettre::transport::smtp::Error>(())
//! ```
//!
//! **Script the failure.** A [`Script`] says at which [`Stage`] the server does which [`Action`]s instead of its duty.
//! [`TestServer::assert_script_used`] makes sure that the fault did happen.
//!
//! ```
//! use smtp_pool::testing::{Action, Script, Stage, TestServer};
//!
//! let server = TestServer::builder()
//!     .script(
//!         Script::new()
//!             .on_command(Stage::Rcpt, "nobody@", [Action::reply("550 5.1.1 no such user\r\n")])
//!             // The message is stored, and the client never learns it.
//!             .on_nth(Stage::EndOfData, 1, [Action::Accept, Action::Reset]),
//!     )
//!     .start();
//!
//! assert!(my_mailer(server.port(), "<welcome-1@example.com>").is_err());
//! server.assert_script_used();
//! // A mailer that had sent it again would have been caught here.
//! assert_eq!(server.accepted("<welcome-1@example.com>"), 1);
//! # fn my_mailer(port: u16, id: &str) -> Result<(), lettre::transport::smtp::Error> {
//! #     use lettre::Transport;
//! #     let message = lettre::Message::builder()
//! #         .message_id(Some(id.to_owned()))
//! #         .from("shop@example.com".parse().unwrap())
//! #         .to("user@example.com".parse().unwrap())
//! #         .body("Welcome.".to_owned())
//! #         .unwrap();
//! #     lettre::SmtpTransport::builder_dangerous("127.0.0.1").port(port).build().send(&message).map(drop)
//! # }
//! ```
//!
//! **Do not sleep, meet.** [`Action::Barrier`] holds a connection at a stage until the test calls
//! [`TestServer::release`]; [`TestServer::wait_until_reached`] and [`TestServer::wait_for`] wait for what the server has
//! seen. Each wait is bounded and says what was missing.
//!
//! **Act on an idle connection.** [`TestServer::connection`] gives a handle that sends a sudden `421`, closes with FIN or
//! RST, or ends TLS, while the client is between two messages.
//!
//! **Cut at every byte.** [`Script::cut_after_server_bytes`] and [`Script::cut_after_client_bytes`] end a connection at
//! one byte of the dialogue. A loop over all bytes of a recorded dialogue ([`TestServer::transcript`]), with
//! [`TestServer::accepted`] as the judge, is the strongest test of a mailer there is.
//!
//! **Read what was said.** [`Transcript`] holds both directions byte for byte, decrypted, and counts round trips.
//!
//! # What it notes
//!
//! [`TestServer::violations`] lists what a client must not do, whether or not the server went on:
//!
//! - a command behind another one when PIPELINING was not offered (answered with 500, then FIN);
//! - anything behind EHLO, AUTH, STARTTLS, NOOP, QUIT, DATA or the final dot before its reply was sent (503; content
//!   behind DATA: 554, then FIN; bytes behind STARTTLS are dropped). Only what arrives together with the command can be
//!   told from what was sent after the reply;
//! - bare CR or LF, NUL, lines over 998 bytes, in commands (500) or content (taken all the same);
//! - 8-bit content or addresses that were not announced; BDAT without CHUNKING; a line of content whose dot was not doubled.
//!
//! # What it is not
//!
//! A server for mail: it delivers nothing. Its TLS is the TLS library's server side: with OpenSSL TLS 1.2, so nothing but
//! SMTP arrives after the handshake. No CRAM-MD5, no BINARYMIME, no limits on commands or recipients but those a script sets.

mod auth;
mod builder;
mod clock;
mod command;
mod connection;
mod content;
mod handle;
mod identity;
mod listener;
mod message;
mod script;
mod server;
mod session;
mod store;
mod transcript;
mod wire;

pub use builder::{Security, TestServerBuilder};
pub use handle::ConnectionHandle;
pub use identity::CertificateKind;
pub use message::ReceivedMessage;
pub use script::{Action, Cut, Script, Stage};
pub use server::TestServer;
pub use store::Snapshot;
pub use transcript::{Event, Transcript};
