//! What the server does other than its duty: stages, actions, rules.

use std::sync::Arc;
use std::time::Duration;

/// A point of the dialogue at which a [`Script`] can take over from the normal behaviour.
///
/// A stage is entered *before* the server acts: at [`Mail`](Self::Mail) the command has been read and nothing was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// A connection was accepted (and its implicit TLS handshake done); the greeting is due.
    Connect,
    /// Before a TLS handshake, implicit or after STARTTLS. Without [`Action::Default`] or [`Action::StartTlsNow`] no
    /// handshake takes place, and replies listed here leave as plain text.
    TlsHandshake,
    /// `EHLO` or `HELO`. A scripted 250 reply decides whether PIPELINING counts as offered.
    Ehlo,
    /// `STARTTLS`. A scripted 220 is followed by the handshake.
    StartTls,
    /// `AUTH`. A scripted 334 begins an exchange, a scripted 235 counts as success.
    Auth,
    /// A line the client sends in answer to a 334.
    AuthStep,
    /// `MAIL`.
    Mail,
    /// `RCPT`.
    Rcpt,
    /// `DATA`. A scripted 354 makes the server read content.
    Data,
    /// While content is read, once for each message: after as many bytes as [`Script::after_bytes`] says
    /// (none: before the first one). Afterwards the server reads on.
    Body,
    /// The content is complete: the final dot, or the last byte of a `BDAT … LAST`.
    EndOfData,
    /// A `BDAT` command whose chunk has been read. (If the list begins with [`Action::ChunkAsCommands`]: not read.)
    Bdat,
    /// `RSET`.
    Rset,
    /// `NOOP`.
    Noop,
    /// `QUIT`.
    Quit,
    /// A message was answered, the answer has left, and nothing further has arrived yet.
    Idle,
    /// Any other command.
    Other,
}

impl Stage {
    pub(super) const COUNT: usize = Self::Other as usize + 1;
}

/// One step of what the server does at a [`Stage`], see [`Script`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Sends these bytes as they are: any code, half a line, several replies, nonsense.
    ///
    /// The session believes what it says: the first complete reply of a list that has no [`Default`](Self::Default),
    /// [`Proceed`](Self::Proceed) or [`Accept`](Self::Accept) before it moves the session as its code says.
    /// 250 to `MAIL` opens the transaction, 354 to `DATA` begins the content, 25x to the final dot stores the message.
    Reply(Vec<u8>),
    /// The normal behaviour with its reply.
    Default,
    /// The normal behaviour without its reply.
    Proceed,
    /// Stores the current message now, without a reply; at most once for a message. At `EndOfData`, `Bdat` and `Body`.
    Accept,
    /// Waits.
    DelayFor(Duration),
    /// Sends `bytes` one by one, `interval` apart.
    Drip {
        /// What to send.
        bytes: Vec<u8>,
        /// The pause after each byte.
        interval: Duration,
    },
    /// Sends `bytes` again and again, `interval` apart, until the connection ends.
    Endless {
        /// What to send each time.
        bytes: Vec<u8>,
        /// The pause after each time.
        interval: Duration,
    },
    /// Waits until the test calls [`TestServer::release`](super::TestServer::release) with this name.
    Barrier(String),
    /// Closes the connection: what is due is sent, on TLS a `close_notify` too, then FIN.
    ///
    /// What the client sends afterwards is answered with RST by the kernel, as with any closed socket.
    Fin,
    /// FIN without `close_notify`; the server reads on, and what it would send is dropped.
    HalfClose,
    /// Sends what is due, then closes with RST (`SO_LINGER` 0).
    Reset,
    /// Sends a TLS `close_notify` and leaves the socket open. Nothing on a plain connection.
    CloseNotify,
    /// Reads nothing any more, so that the client's window fills. The connection stays open until the client or the test ends it.
    StopReading,
    /// Reads on and never answers.
    Silence,
    /// Does a TLS handshake here and now, whatever [`Security`](super::Security) was asked for.
    StartTlsNow,
    /// Leaves the chunk of a refused `BDAT` to be read as commands, as servers do that do not know it.
    /// Only at [`Stage::Bdat`], and only as the first action.
    ChunkAsCommands,
}

impl Action {
    /// [`Action::Reply`] with these bytes; the line end belongs to them.
    #[must_use]
    pub fn reply(bytes: impl AsRef<[u8]>) -> Self {
        Self::Reply(bytes.as_ref().to_vec())
    }

    /// [`Action::Drip`].
    #[must_use]
    pub fn drip(bytes: impl AsRef<[u8]>, interval: Duration) -> Self {
        Self::Drip { bytes: bytes.as_ref().to_vec(), interval }
    }

    /// [`Action::Endless`].
    #[must_use]
    pub fn endless(bytes: impl AsRef<[u8]>, interval: Duration) -> Self {
        Self::Endless { bytes: bytes.as_ref().to_vec(), interval }
    }

    /// [`Action::Barrier`] of this name.
    #[must_use]
    pub fn barrier(name: impl Into<String>) -> Self {
        Self::Barrier(name.into())
    }
}

/// How a byte-exact cut ends a connection, see [`Script::cut_after_server_bytes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cut {
    /// Close with FIN and without `close_notify`.
    Fin,
    /// Close with RST.
    Reset,
    /// Keep the connection open, read on, send nothing more.
    Silence,
}

/// Rules saying at which [`Stage`] the server does what instead of its duty.
///
/// A rule holds a list of [`Action`]s, done in order. After the list the normal behaviour does *not* follow; list
/// [`Action::Default`] where it should. An empty list swallows a command without a reply.
///
/// Rules bound to one occasion (`once`, `on_nth`, `on_connection`, `on_connection_nth`) win over standing ones (`on`,
/// `on_command`); among equals the one written first wins.
///
/// ```
/// use smtp_pool::testing::{Action, Script, Stage};
///
/// let script = Script::new()
///     .on(Stage::Noop, [Action::reply("421 4.3.2 going down\r\n"), Action::Fin])
///     .on_command(Stage::Rcpt, "nobody@", [Action::reply("550 5.1.1 no such user\r\n")])
///     .on_nth(Stage::EndOfData, 2, [Action::Accept, Action::Reset]);
/// # let _ = script;
/// ```
#[derive(Clone, Debug, Default)]
pub struct Script {
    rules: Vec<Rule>,
    server_cuts: Vec<CutRule>,
    client_cuts: Vec<CutRule>,
}

#[derive(Clone, Debug)]
struct Rule {
    stage: Stage,
    occasion: Occasion,
    after_bytes: usize,
    actions: Arc<[Action]>,
    /// How many matching occasions of the right connection have passed.
    seen: usize,
    used: bool,
}

#[derive(Clone, Debug)]
enum Occasion {
    Always,
    Command(String),
    Nth { connection: Option<usize>, n: usize },
    Once,
}

#[derive(Clone, Copy, Debug)]
struct CutRule {
    connection: Option<usize>,
    after: u64,
    cut: Cut,
}

impl Script {
    /// No rules: a server that does its duty.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Each time `stage` is reached, on any connection.
    #[must_use]
    pub fn on(self, stage: Stage, actions: impl IntoIterator<Item = Action>) -> Self {
        self.rule(stage, Occasion::Always, actions)
    }

    /// Each time `stage` is reached with a command line that contains `text`, upper or lower case.
    #[must_use]
    pub fn on_command(self, stage: Stage, text: &str, actions: impl IntoIterator<Item = Action>) -> Self {
        self.rule(stage, Occasion::Command(text.to_ascii_lowercase()), actions)
    }

    /// The first time `stage` is reached and no earlier one-occasion rule takes it. Several such rules are used one after the other.
    #[must_use]
    pub fn once(self, stage: Stage, actions: impl IntoIterator<Item = Action>) -> Self {
        self.rule(stage, Occasion::Once, actions)
    }

    /// The `n`th time (the first is 1) `stage` is reached, counted over all connections since this script is in force.
    #[must_use]
    pub fn on_nth(self, stage: Stage, n: usize, actions: impl IntoIterator<Item = Action>) -> Self {
        self.rule(stage, Occasion::Nth { connection: None, n }, actions)
    }

    /// The first time `stage` is reached on the `connection`th connection accepted by the server (the first is 1).
    #[must_use]
    pub fn on_connection(self, connection: usize, stage: Stage, actions: impl IntoIterator<Item = Action>) -> Self {
        self.on_connection_nth(connection, stage, 1, actions)
    }

    /// The `n`th time `stage` is reached on the `connection`th connection.
    #[must_use]
    pub fn on_connection_nth(
        self,
        connection: usize,
        stage: Stage,
        n: usize,
        actions: impl IntoIterator<Item = Action>,
    ) -> Self {
        self.rule(stage, Occasion::Nth { connection: Some(connection), n }, actions)
    }

    /// For the rule added last, at [`Stage::Body`]: wait for this many bytes of content (as sent, dot-stuffed).
    ///
    /// ```
    /// # use smtp_pool::testing::{Action, Script, Stage};
    /// let script = Script::new()
    ///     .on(Stage::Body, [Action::reply("552 5.3.4 too big\r\n"), Action::Fin])
    ///     .after_bytes(100_000);
    /// # let _ = script;
    /// ```
    ///
    /// # Panics
    ///
    /// When there is no rule yet, or the last one is for another stage.
    #[must_use]
    pub fn after_bytes(mut self, bytes: usize) -> Self {
        let rule = self.rules.last_mut().expect("after_bytes() follows a rule for Stage::Body");
        assert_eq!(rule.stage, Stage::Body, "after_bytes() follows a rule for Stage::Body");
        rule.after_bytes = bytes;
        self
    }

    /// Ends every connection when the server has sent exactly `bytes` of SMTP on it (0: before the greeting).
    ///
    /// Bytes are counted as plain text, before and inside TLS; handshakes do not count.
    #[must_use]
    pub fn cut_after_server_bytes(mut self, bytes: u64, cut: Cut) -> Self {
        self.server_cuts.push(CutRule { connection: None, after: bytes, cut });
        self
    }

    /// Ends every connection when the server has received exactly `bytes` of SMTP on it (0: after the greeting).
    ///
    /// These bytes are acted on, so a message they complete is stored; what the last of them calls for is not answered.
    #[must_use]
    pub fn cut_after_client_bytes(mut self, bytes: u64, cut: Cut) -> Self {
        self.client_cuts.push(CutRule { connection: None, after: bytes, cut });
        self
    }

    /// As [`cut_after_server_bytes`](Self::cut_after_server_bytes), for the `connection`th connection only.
    #[must_use]
    pub fn cut_connection_after_server_bytes(mut self, connection: usize, bytes: u64, cut: Cut) -> Self {
        self.server_cuts.push(CutRule { connection: Some(connection), after: bytes, cut });
        self
    }

    /// As [`cut_after_client_bytes`](Self::cut_after_client_bytes), for the `connection`th connection only.
    #[must_use]
    pub fn cut_connection_after_client_bytes(mut self, connection: usize, bytes: u64, cut: Cut) -> Self {
        self.client_cuts.push(CutRule { connection: Some(connection), after: bytes, cut });
        self
    }

    /// The cuts of `earlier` before its own.
    pub(super) fn with_cuts_of(mut self, earlier: Self) -> Self {
        self.server_cuts.splice(0..0, earlier.server_cuts);
        self.client_cuts.splice(0..0, earlier.client_cuts);
        self
    }

    fn rule(mut self, stage: Stage, occasion: Occasion, actions: impl IntoIterator<Item = Action>) -> Self {
        let actions = actions.into_iter().collect();
        self.rules.push(Rule { stage, occasion, after_bytes: 0, actions, seen: 0, used: false });
        self
    }

    /// A stage was reached: counts it and names the actions, if a rule has any.
    pub(super) fn enter(&mut self, stage: Stage, connection: usize, line: &[u8]) -> Option<(usize, Arc<[Action]>)> {
        if self.rules.is_empty() {
            return None;
        }
        let (mut single, mut standing) = (None, None);
        for (index, rule) in self.rules.iter_mut().enumerate().filter(|(_, rule)| rule.stage == stage) {
            match &rule.occasion {
                Occasion::Always if standing.is_none() => standing = Some(index),
                Occasion::Command(text) if standing.is_none() && contains(line, text) => standing = Some(index),
                Occasion::Once if single.is_none() && !rule.used => single = Some(index),
                Occasion::Nth { connection: only, n } if only.is_none_or(|only| only == connection) => {
                    rule.seen += 1;
                    if rule.seen == *n && single.is_none() {
                        single = Some(index);
                    }
                }
                _ => {}
            }
        }
        let rule = &mut self.rules[single.or(standing)?];
        rule.used = true;
        Some((rule.after_bytes, Arc::clone(&rule.actions)))
    }

    pub(super) fn server_cut(&self, connection: usize) -> Option<(u64, Cut)> {
        cut_for(&self.server_cuts, connection)
    }

    pub(super) fn client_cut(&self, connection: usize) -> Option<(u64, Cut)> {
        cut_for(&self.client_cuts, connection)
    }

    /// The one-occasion rules that never came to pass, in words.
    pub(super) fn unused(&self) -> Vec<String> {
        let single = |rule: &&Rule| !matches!(rule.occasion, Occasion::Always | Occasion::Command(_));
        let unused = self.rules.iter().filter(single).filter(|rule| !rule.used);
        unused
            .map(|rule| match rule.occasion {
                Occasion::Nth { connection: Some(connection), n } => {
                    format!("{:?}, occasion {n} on connection {connection}", rule.stage)
                }
                Occasion::Nth { n, .. } => format!("{:?}, occasion {n}", rule.stage),
                _ => format!("{:?}, once", rule.stage),
            })
            .collect()
    }
}

fn cut_for(cuts: &[CutRule], connection: usize) -> Option<(u64, Cut)> {
    let mine = cuts.iter().find(|rule| rule.connection == Some(connection));
    mine.or_else(|| cuts.iter().find(|rule| rule.connection.is_none())).map(|rule| (rule.after, rule.cut))
}

fn contains(line: &[u8], lower_case: &str) -> bool {
    lower_case.is_empty()
        || line.windows(lower_case.len()).any(|window| window.eq_ignore_ascii_case(lower_case.as_bytes()))
}
