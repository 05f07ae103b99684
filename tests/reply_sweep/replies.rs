//! Where the server says something else, what it says, and what that is worth by the grammar of RFC 5321 §4.2.

use smtp_pool::testing::Stage;

/// A reply that the client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Position {
    Greeting,
    /// Of a host without TLS and login, so the last step before it is ready.
    Ehlo,
    /// Of a host that requires STARTTLS.
    EhloBeforeTls,
    StartTls,
    /// Under TLS.
    SecondEhlo,
    Auth,
    /// Owed, because the message before was refused.
    Rset,
    Mail,
    /// The only recipient.
    Rcpt,
    FirstOfTwo,
    SecondOfTwo,
    /// Where the message goes to those that are accepted.
    SecondOfTwoPartial,
    Data,
    EndOfData,
}

use Position::{
    Auth, Data, Ehlo, EhloBeforeTls, EndOfData, FirstOfTwo, Greeting, Mail, Rcpt, Rset, SecondEhlo, SecondOfTwo,
    SecondOfTwoPartial, StartTls,
};

impl Position {
    pub(crate) const OPENING_IN_CLEAR: [Self; 3] = [Greeting, Ehlo, Auth];
    pub(crate) const OPENING_UNDER_TLS: [Self; 3] = [EhloBeforeTls, StartTls, SecondEhlo];
    pub(crate) const MESSAGE: [Self; 8] =
        [Rset, Mail, Rcpt, FirstOfTwo, SecondOfTwo, SecondOfTwoPartial, Data, EndOfData];

    /// What a message that leaves in one write is answered.
    pub(crate) const AT_ONCE: [Self; 3] = [Mail, Rcpt, EndOfData];

    pub(crate) fn is_opening(self) -> bool {
        Self::OPENING_IN_CLEAR.contains(&self) || Self::OPENING_UNDER_TLS.contains(&self)
    }

    /// The stage of the server, and which occasion of it.
    pub(crate) fn stage(self) -> (Stage, usize) {
        match self {
            Greeting => (Stage::Connect, 1),
            Ehlo | EhloBeforeTls => (Stage::Ehlo, 1),
            SecondEhlo => (Stage::Ehlo, 2),
            StartTls => (Stage::StartTls, 1),
            Auth => (Stage::Auth, 1),
            Rset => (Stage::Rset, 1),
            Mail => (Stage::Mail, 1),
            Rcpt | FirstOfTwo => (Stage::Rcpt, 1),
            SecondOfTwo | SecondOfTwoPartial => (Stage::Rcpt, 2),
            Data => (Stage::Data, 1),
            EndOfData => (Stage::EndOfData, 1),
        }
    }

    pub(crate) fn recipients(self) -> usize {
        if matches!(self, FirstOfTwo | SecondOfTwo | SecondOfTwoPartial) { 2 } else { 1 }
    }

    /// The code a server says here when all is well.
    pub(crate) fn good(self) -> u16 {
        match self {
            Greeting | StartTls => 220,
            Auth => 235,
            Data => 354,
            _ => 250,
        }
    }
}

/// What a reply is worth, whatever it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// One complete reply.
    Code(u16),
    /// Complete, and no reply.
    Nonsense,
    /// The beginning of a reply.
    Unfinished,
    /// Two replies where one is due.
    Two(u16, u16),
}

#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) bytes: Vec<u8>,
    pub(crate) said: Said,
}

impl Reply {
    /// A complete reply of two lines; to EHLO one that still offers what the host needs.
    pub(crate) fn of_code(code: u16) -> Self {
        Self { bytes: format!("{code}-localhost\r\n{code} STARTTLS\r\n").into_bytes(), said: Said::Code(code) }
    }

    /// What no server should say where `good` is due, and some odd ways to say it that are right.
    pub(crate) fn malformed(good: u16) -> Vec<Self> {
        let long_line = format!("{good} {}\r\n", "x".repeat(3000));
        let many_lines = format!("{good}-x\r\n").repeat(300) + &format!("{good} x\r\n");
        let many_bytes = format!("{good}-{}\r\n", "x".repeat(1000)).repeat(100) + &format!("{good} x\r\n");
        let lines_within_the_limit = format!("{good}-STARTTLS\r\n").repeat(200) + &format!("{good} STARTTLS\r\n");
        let mixed = format!("{good}-x\r\n{} x\r\n", good + 1);
        let text = |text: &str| format!("{good}{text}").into_bytes();
        let latin_1 = [&text(" caf")[..], b"\xe9\r\n"].concat();
        let two = |first: u16, second: u16| {
            (format!("{first} one\r\n{second} two\r\n").into_bytes(), Said::Two(first, second))
        };
        let code = Said::Code(good);
        [
            (b"000 ok\r\n".to_vec(), Said::Nonsense),
            (b"199 ok\r\n".to_vec(), Said::Nonsense),
            (b"600 ok\r\n".to_vec(), Said::Nonsense),
            (b"999 ok\r\n".to_vec(), Said::Nonsense),
            (b"25\r\n".to_vec(), Said::Nonsense),
            (b"2500 ok\r\n".to_vec(), Said::Nonsense),
            (b"2 50 ok\r\n".to_vec(), Said::Nonsense),
            (b"\r\n".to_vec(), Said::Nonsense),
            (b"what?\r\n".to_vec(), Said::Nonsense),
            (text("x ok\r\n"), Said::Nonsense),
            ([b" ", &text(" ok\r\n")[..]].concat(), Said::Nonsense),
            (long_line.into_bytes(), Said::Nonsense),
            (many_lines.into_bytes(), Said::Nonsense),
            (many_bytes.into_bytes(), Said::Nonsense),
            (mixed.into_bytes(), Said::Nonsense),
            (lines_within_the_limit.into_bytes(), code),
            (text("\r\n"), code),
            (text(" \r\n"), code),
            (text("\n"), code),
            (text(" ok\n"), code),
            (text(" o\rk\r\n"), code),
            (text(" o\0k\r\n"), code),
            (latin_1, code),
            (text(" ok\r"), Said::Unfinished),
            (text("-x\r\n"), Said::Unfinished),
            (b"2".to_vec(), Said::Unfinished),
            two(good, good),
            two(good, 550),
            two(550, good),
            two(421, good),
        ]
        .map(|(bytes, said)| Self { bytes, said })
        .to_vec()
    }
}
