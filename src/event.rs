//! What can go wrong with a session, as plain data: the words in which `smtp/` reports and `classify` judges.

use std::fmt;

/// Where in the dialogue something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// The call of the program's supplier.
    Credentials,
    Resolve,
    Connect,
    TlsHandshake,
    Greeting,
    Ehlo,
    StartTls,
    Auth,
    Rset,
    Noop,
    Mail,
    Rcpt,
    Data,
    /// The content, up to the write that holds its last byte.
    Content,
    /// The write that holds the last byte, and the reply to it: to the dot, or to BDAT.
    EndOfData,
}

impl Step {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Credentials => "asking for the credentials",
            Self::Resolve => "the name look-up",
            Self::Connect => "connecting",
            Self::TlsHandshake => "the TLS handshake",
            Self::Greeting => "the greeting",
            Self::Ehlo => "EHLO",
            Self::StartTls => "STARTTLS",
            Self::Auth => "AUTH",
            Self::Rset => "RSET",
            Self::Noop => "NOOP",
            Self::Mail => "MAIL",
            Self::Rcpt => "RCPT",
            Self::Data => "DATA",
            Self::Content => "the content",
            Self::EndOfData => "the answer to the last byte",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How the transport failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// The deadline passed.
    TimedOut,
    /// The peer closed the connection.
    Closed,
    /// The connection broke: reset, unreachable, refused, or a TLS record that makes no sense.
    Broken,
    /// The server's certificate, or ours, was not accepted.
    Certificate,
    /// This machine ran out of descriptors, ports, buffers or threads.
    LocalShortage,
}

/// How a dialogue got out of step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Desync {
    /// A line that is no reply line: no code, a code outside 200 to 599, or no separator after it.
    Malformed,
    /// A line longer than any server sends.
    LineTooLong,
    /// A reply of more bytes or lines than any server sends.
    ReplyTooLong,
    /// Lines of one reply with different codes.
    MixedCodes,
    /// A well-formed reply of a class that does not answer this command.
    WrongClass(u16),
    /// Bytes when no reply was due.
    Unsolicited,
    /// More challenges than the mechanism has steps.
    EndlessChallenges,
}

impl fmt::Display for Desync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("a line that is no SMTP reply"),
            Self::LineTooLong => f.write_str("a reply line without end"),
            Self::ReplyTooLong => f.write_str("a reply without end"),
            Self::MixedCodes => f.write_str("one reply with different codes"),
            Self::WrongClass(code) => write!(f, "a reply {code} that does not answer the command"),
            Self::Unsolicited => f.write_str("bytes when no reply was due"),
            Self::EndlessChallenges => f.write_str("one challenge after another"),
        }
    }
}

/// What we refused to do because the server lacks something that our settings demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Policy {
    /// TLS is required and STARTTLS is not offered.
    StartTlsNotOffered,
    /// We have credentials and the server offers none of the mechanisms allowed for this host.
    NoCommonMechanism,
    /// We have credentials, and sending them would show them to everybody on the way.
    PlaintextAuth,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StartTlsNotOffered => "the server does not offer STARTTLS, and TLS is required",
            Self::NoCommonMechanism => "the server offers none of the AUTH mechanisms allowed for this host",
            Self::PlaintextAuth => {
                "credentials are not sent over an unencrypted connection; use TLS, or `dangerous_plaintext_auth` to allow it"
            }
        })
    }
}

/// Why the program's supplier gave no credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Supply {
    /// It returned an error.
    Failed,
    Panicked,
    /// As many calls as there may be have not returned.
    Hanging,
    /// They hold a character that no mechanism can send.
    Unusable,
}

impl fmt::Display for Supply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Failed => "returned an error",
            Self::Panicked => "panicked",
            Self::Hanging => "does not return",
            Self::Unusable => "returned some with NUL or U+0001 in them",
        })
    }
}

/// Whose address it is; by number, because errors end up in logs and addresses must not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Party {
    Sender,
    /// Counted from 1, in the order of the envelope.
    Recipient(usize),
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sender => f.write_str("the sender"),
            Self::Recipient(number) => write!(f, "recipient {number}"),
        }
    }
}

/// Why a message was refused before any byte of it left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Inadmissible {
    /// A control character in an address, or what only a quoted local part may hold outside of one.
    Address(Party),
    /// A non-ASCII address, and the server does not offer SMTPUTF8.
    NeedsSmtpUtf8(Party),
    /// Non-ASCII content, and the server does not offer 8BITMIME.
    NeedsEightBitMime,
    /// All of them or none, and more than the server's RCPTMAX.
    TooManyRecipients { count: usize, limit: u32 },
    /// Notifications are asked for, and the server does not offer DSN.
    NeedsDsn,
    /// Notifications are asked for about a recipient that the envelope does not have.
    DsnOfStranger,
    /// Larger than the server's SIZE.
    TooLarge { size: u64, limit: u64 },
}

impl fmt::Display for Inadmissible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(party) => {
                write!(
                    f,
                    "the address of {party} holds a control character, or a blank, quote, backslash or bracket out of place"
                )
            }
            Self::NeedsSmtpUtf8(party) => {
                write!(f, "the address of {party} is not ASCII and the server does not offer SMTPUTF8 (RFC 6531)")
            }
            Self::NeedsEightBitMime => {
                f.write_str("the content is not ASCII and the server does not offer 8BITMIME (RFC 6152)")
            }
            Self::TooManyRecipients { count, limit } => write!(
                f,
                "the message has {count} recipients and the server's RCPTMAX is {limit} (RFC 9422); `AcceptPartial` sends it in parts"
            ),
            Self::NeedsDsn => f.write_str(
                "notifications are asked for and the server does not offer DSN (RFC 3461); `Dsn::when_offered` does without",
            ),
            Self::DsnOfStranger => {
                f.write_str("notifications are asked for about a recipient that the envelope does not have")
            }
            Self::TooLarge { size, limit } => {
                write!(f, "the message has {size} bytes and the server takes {limit} at most (RFC 1870)")
            }
        }
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    /// The transport failed.
    Transport(Step, Fault),
    /// A well-formed refusal, or a code that says the server is closing.
    Reply(Step, u16),
    /// The dialogue is not in step.
    OutOfStep(Step, Desync),
    /// Plaintext arrived behind the reply to STARTTLS
    /// ([RFC 3207 §6](https://www.rfc-editor.org/rfc/rfc3207#section-6) and its many advisories).
    InjectedPlaintext,
    /// Our settings forbid going on.
    Policy(Policy),
    /// The message was refused here.
    Inadmissible(Inadmissible),
    /// Too little time was left for the commit to be worth starting.
    CommitGate,
    /// No time was left before the first command.
    TooLate,
    /// This machine had not got ready for TLS in time: nobody else is to blame.
    TlsNotReady,
    /// 552 to a RCPT after others were accepted: the rest may be sent on their own.
    TooManyRecipients,
    /// The server offers CHUNKING and does not know BDAT: it did not accept the message, and said so, but what it made of the content
    /// is anybody's guess.
    BdatNotKnown,
    /// The name server could not be asked: too many look-ups hang already.
    ResolverBusy,
    /// The supplier gave no credentials.
    NoCredentials(Supply),
    /// The credentials that the session was opened with were rotated, and whoever holds it went on.
    Rotated,
    /// The connection has failed before, and whoever holds it went on.
    Spent,
    /// The connection was cut from our side while this step was under way.
    Interrupted(Step, Interrupt),
}

/// Who had a connection cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Interrupt {
    /// The caller, by its token.
    Cancelled,
    /// The sender's shutdown, its grace being over.
    Shutdown,
}

impl Event {
    /// Where it happened; of what is not about a step, where it was noticed.
    pub(crate) const fn step(&self) -> Step {
        match self {
            Self::Transport(step, _) | Self::Reply(step, _) | Self::OutOfStep(step, _) | Self::Interrupted(step, _) => {
                *step
            }
            Self::InjectedPlaintext | Self::Policy(Policy::StartTlsNotOffered) => Step::StartTls,
            Self::Policy(_) => Step::Auth,
            Self::Inadmissible(_) | Self::Rotated | Self::Spent | Self::TooLate => Step::Mail,
            Self::NoCredentials(_) => Step::Credentials,
            Self::TlsNotReady => Step::TlsHandshake,
            Self::CommitGate => Step::Content,
            Self::TooManyRecipients => Step::Rcpt,
            Self::BdatNotKnown => Step::EndOfData,
            Self::ResolverBusy => Step::Resolve,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport(step, Fault::TimedOut) => write!(f, "timed out in {step}"),
            Self::Transport(step, Fault::Closed) => write!(f, "the server closed the connection in {step}"),
            Self::Transport(step, Fault::Broken) => write!(f, "the connection failed in {step}"),
            Self::Transport(step, Fault::Certificate) => write!(f, "a certificate was not accepted in {step}"),
            Self::Transport(step, Fault::LocalShortage) => {
                write!(f, "this machine ran out of descriptors, ports, buffers or threads in {step}")
            }
            Self::Reply(step, _) => write!(f, "refused at {step}"),
            Self::OutOfStep(step, desync) => write!(f, "{desync} in {step}"),
            Self::InjectedPlaintext => {
                f.write_str("plaintext came behind the reply to STARTTLS: somebody may be tampering")
            }
            Self::Policy(policy) => policy.fmt(f),
            Self::Inadmissible(inadmissible) => inadmissible.fmt(f),
            Self::CommitGate => f.write_str("too little time was left to wait for an answer to the last byte"),
            Self::TooLate => f.write_str("no time was left for the first command"),
            Self::TlsNotReady => {
                f.write_str("reading this machine's root certificates, before connecting, took too long")
            }
            Self::TooManyRecipients => f.write_str("too many recipients for one message, refused at RCPT"),
            Self::BdatNotKnown => f.write_str("BDAT is offered and not known"),
            Self::ResolverBusy => f.write_str("too many name look-ups hang already"),
            Self::NoCredentials(supply) => write!(f, "the supplier of credentials {supply}"),
            Self::Rotated => f.write_str("the credentials of this session were rotated"),
            Self::Spent => f.write_str("the connection has failed before and cannot be used again"),
            Self::Interrupted(step, Interrupt::Cancelled) => write!(f, "cancelled in {step}"),
            Self::Interrupted(step, Interrupt::Shutdown) => {
                write!(f, "cut by shutdown in {step}, its grace being over")
            }
        }
    }
}
