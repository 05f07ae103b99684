//! What a row is, and how it is run and judged.

use std::any::Any;
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use lettre::Address;
use lettre::address::Envelope;
use smtp_pool::testing::{Action, Event, Script, Security, Stage, TestServer, TestServerBuilder, Transcript};
use smtp_pool::{
    FailureKind, Host, HostState, Receipt, RecipientPolicy, SendError, SendOptions, SendStage, SmtpSender,
    SmtpSenderBuilder,
};

pub(crate) const PF: FailureKind = FailureKind::PermanentFailure;
pub(crate) const RT: FailureKind = FailureKind::RetryableTemporaryFailure;
pub(crate) const RB: FailureKind = FailureKind::RetryableBeforeSend;
pub(crate) const HU: FailureKind = FailureKind::HostUnavailable;
pub(crate) const UD: FailureKind = FailureKind::UnknownAfterData;
pub(crate) const CC: FailureKind = FailureKind::ConnectionCorrupted;

pub(crate) const S1: SendStage = SendStage::Connected;
pub(crate) const S3: SendStage = SendStage::EnvelopeStarted;
pub(crate) const S4: SendStage = SendStage::DataStarted;
pub(crate) const S5: SendStage = SendStage::DataCompleted;

/// Whether sending the message again is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    No,
    Yes,
    /// Safe, but automatically at most once, and only on a connection opened for it.
    Once,
}
pub(crate) use Retry::{No, Once, Yes};

/// What becomes of the connection the fault happened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    K,
    KR,
    D,
    DQ,
    X,
    XU,
}
pub(crate) use Fate::{D, DQ, K, KR, X, XU};

/// What becomes of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cool {
    Nobody,
    /// The first pause.
    Host,
    /// The longest pause at once: `host (long)` and `cred`.
    Longest,
}
pub(crate) use Cool::{Longest, Nobody};

#[derive(Clone, Debug)]
enum Expected {
    /// At the first attempt, over the connection there is.
    Delivered,
    /// At the first attempt, over a second connection: the free replacement of a connection that had been idle.
    DeliveredAfresh,
    Fails {
        kinds: Vec<FailureKind>,
        stage: SendStage,
        retry: Retry,
    },
}

/// How client and server are set up to talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) client: Security,
    pub(crate) server: Security,
    pub(crate) pipelining: bool,
}

pub(crate) const PLAIN: Way = Way { client: Security::Plain, server: Security::Plain, pipelining: true };
pub(crate) const LOCKSTEP: Way = Way { client: Security::Plain, server: Security::Plain, pipelining: false };
pub(crate) const TLS: Way = Way { client: Security::ImplicitTls, server: Security::ImplicitTls, pipelining: true };
pub(crate) const STARTTLS: Way = Way { client: Security::StartTls, server: Security::StartTls, pipelining: true };

/// What the connection has carried before the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Past {
    /// Nothing: it is opened for the message.
    None,
    Delivered,
    /// A message that was refused, so that RSET is owed.
    Refused,
}

/// The timer that ends the row. It is set to [`SHORT`] and what the content takes, and nothing else is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    Connect,
    Acquire,
    Auth,
    Send,
    FinalReply,
}

pub(crate) const SHORT: Duration = Duration::from_millis(250);
const LONG: Duration = Duration::from_secs(5);
/// What a call without anything to wait for may take on a busy machine, besides its content. With any content it stays well below
/// [`LONG`], which is what a call takes that runs into a limit instead of noticing the fault.
const PROMPT: Duration = Duration::from_secs(1);
/// So many bytes of content a second are looked through, stuffed and written on a busy machine where nothing is optimised.
const PACE: u32 = 8 << 20;
/// What reading the system's root certificates and a TLS handshake may take.
const OPENING: Duration = Duration::from_millis(500);
const SLACK: Duration = Duration::from_millis(100);
const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

type Settings = Box<dyn Fn(TestServerBuilder) -> TestServerBuilder + Send + Sync>;
type Builder = Box<dyn Fn(SmtpSenderBuilder) -> SmtpSenderBuilder + Send + Sync>;
type HostSettings = Box<dyn Fn(Host) -> Host + Send + Sync>;

/// What a row's own check may look at.
pub(crate) struct Seen<'a> {
    pub(crate) server: &'a TestServer,
    pub(crate) result: &'a Result<Receipt, SendError>,
    /// The dialogue of the connection the fault happened on.
    pub(crate) dialogue: Transcript,
}

type Check = fn(&Seen<'_>) -> Result<(), String>;

/// One line of the catalogue.
pub(crate) struct Row {
    pub(crate) id: &'static str,
    what: &'static str,
    pub(crate) ways: Vec<Way>,
    settings: Settings,
    builder: Builder,
    host: HostSettings,
    trusts: bool,
    past: Past,
    script: Script,
    between: Option<fn(&TestServer)>,
    held_at: Option<&'static str>,
    recipients: usize,
    policy: RecipientPolicy,
    bytes: usize,
    deadline: Option<Duration>,
    timer: Option<Timer>,
    expected: Expected,
    fate: Fate,
    cool: Cool,
    connections: Option<usize>,
    transactions: usize,
    client_misbehaves: bool,
    not_repeated: bool,
    stays_wrong: bool,
    /// The connection that `fate` is about.
    number: usize,
    checks: Vec<Check>,
}

impl Row {
    /// A fault on a connection opened for the message; in clear with and without pipelining, and under TLS.
    pub(crate) fn new(id: &'static str, what: &'static str) -> Self {
        Self {
            id,
            what,
            ways: vec![PLAIN, LOCKSTEP, TLS],
            settings: Box::new(|server| server),
            builder: Box::new(|sender| sender),
            host: Box::new(|host| host),
            trusts: true,
            past: Past::None,
            script: Script::new(),
            between: None,
            held_at: None,
            recipients: 1,
            policy: RecipientPolicy::AllOrNothing,
            bytes: 700,
            deadline: None,
            timer: None,
            expected: Expected::Delivered,
            fate: K,
            cool: Nobody,
            connections: None,
            transactions: 1,
            client_misbehaves: false,
            not_repeated: false,
            stays_wrong: false,
            number: 1,
            checks: Vec::new(),
        }
    }

    pub(crate) fn ways(mut self, ways: &[Way]) -> Self {
        self.ways = ways.to_vec();
        self
    }

    pub(crate) fn server(
        mut self,
        settings: impl Fn(TestServerBuilder) -> TestServerBuilder + Send + Sync + 'static,
    ) -> Self {
        self.settings = Box::new(settings);
        self
    }

    pub(crate) fn sender(
        mut self,
        builder: impl Fn(SmtpSenderBuilder) -> SmtpSenderBuilder + Send + Sync + 'static,
    ) -> Self {
        self.builder = Box::new(builder);
        self
    }

    pub(crate) fn host(mut self, host: impl Fn(Host) -> Host + Send + Sync + 'static) -> Self {
        self.host = Box::new(host);
        self
    }

    /// The server wants a login, and the sender has one that is right.
    pub(crate) fn with_login(self) -> Self {
        self.server(|server| server.credentials("user", "secret")).host(|host| host.credentials("user", "secret"))
    }

    /// The sender does not know the authority behind the server's certificate.
    pub(crate) fn trusting_nobody(mut self) -> Self {
        self.trusts = false;
        self
    }

    /// The fault's message is the second one over its connection.
    pub(crate) fn reused(mut self) -> Self {
        self.past = Past::Delivered;
        self
    }

    /// The fault's message follows one that was refused on the same connection.
    pub(crate) fn after_a_refusal(mut self) -> Self {
        self.past = Past::Refused;
        self
    }

    pub(crate) fn script(mut self, script: Script) -> Self {
        self.script = script;
        self
    }

    /// Shorthand for a script of one rule: the first time `stage` is reached.
    pub(crate) fn once(self, stage: Stage, actions: impl IntoIterator<Item = Action>) -> Self {
        self.script(Script::new().once(stage, actions))
    }

    /// Shorthand for a script of one rule: each time `stage` is reached.
    pub(crate) fn always(self, stage: Stage, actions: impl IntoIterator<Item = Action>) -> Self {
        self.script(Script::new().on(stage, actions))
    }

    /// What happens to the idle connection between two messages.
    pub(crate) fn idle(mut self, between: fn(&TestServer)) -> Self {
        self.past = Past::Delivered;
        self.between = Some(between);
        self
    }

    /// The script holds the connection at this barrier until the call has returned.
    pub(crate) fn held_at(mut self, barrier: &'static str) -> Self {
        self.held_at = Some(barrier);
        self
    }

    pub(crate) fn recipients(mut self, recipients: usize) -> Self {
        self.recipients = recipients;
        self
    }

    pub(crate) fn partial(mut self) -> Self {
        self.policy = RecipientPolicy::AcceptPartial;
        self
    }

    pub(crate) fn bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }

    pub(crate) fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Nothing but this timer ends the call.
    pub(crate) fn timer(mut self, timer: Timer) -> Self {
        self.timer = Some(timer);
        self
    }

    pub(crate) fn fails(self, kind: FailureKind, stage: SendStage, retry: Retry, fate: Fate, cool: Cool) -> Self {
        self.fails_as(&[kind], stage, retry, fate, cool)
    }

    pub(crate) fn fails_as(
        mut self,
        kinds: &[FailureKind],
        stage: SendStage,
        retry: Retry,
        fate: Fate,
        cool: Cool,
    ) -> Self {
        self.expected = Expected::Fails { kinds: kinds.to_vec(), stage, retry };
        self.fate = fate;
        self.cool = cool;
        self
    }

    pub(crate) fn delivered(mut self, fate: Fate) -> Self {
        self.expected = Expected::Delivered;
        self.fate = fate;
        self
    }

    /// The free retry: a second connection, the first attempt, whatever `max_retries` says.
    pub(crate) fn delivered_afresh(mut self, fate: Fate) -> Self {
        self.expected = Expected::DeliveredAfresh;
        self.fate = fate;
        self
    }

    /// How many connections the server has seen when the call returns, where that does not follow from the rest.
    pub(crate) fn connections(mut self, connections: usize) -> Self {
        self.connections = Some(connections);
        self
    }

    /// How many transactions the recipients take, each with recipients of its own.
    pub(crate) fn transactions(mut self, transactions: usize) -> Self {
        self.transactions = transactions;
        self
    }

    /// The client is meant to send what is no SMTP: it speaks TLS to a server that does not.
    pub(crate) fn client_misbehaves(mut self) -> Self {
        self.client_misbehaves = true;
        self
    }

    /// Another automatic attempt would meet the fault again.
    pub(crate) fn not_repeated(mut self) -> Self {
        self.not_repeated = true;
        self
    }

    /// The settings themselves are wrong, so no later message gets through either.
    pub(crate) fn stays_wrong(mut self) -> Self {
        self.stays_wrong = true;
        self
    }

    /// Which connection the fate is about; the first unless set.
    pub(crate) fn on_connection(mut self, number: usize) -> Self {
        self.number = number;
        self
    }

    pub(crate) fn check(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }

    fn name(&self, way: Way) -> String {
        let Way { client, server, pipelining } = way;
        let way = match (client, server) {
            (client, server) if client != server => format!("{client:?} client, {server:?} server"),
            (client, _) if pipelining => format!("{client:?}"),
            (client, _) => format!("{client:?} without PIPELINING"),
        };
        format!("{} {} [{way}]", self.id, self.what)
    }

    fn retry(&self) -> Option<Retry> {
        match self.expected {
            Expected::Fails { retry, .. } => Some(retry),
            _ => None,
        }
    }

    /// What its content takes by itself: so much later is a timer due that has to see the fault, and an answer that is prompt.
    fn content_time(&self) -> Duration {
        Duration::from_secs(1) * u32::try_from(self.bytes).unwrap() / PACE
    }

    fn is_opening(&self) -> bool {
        matches!(self.expected, Expected::Fails { stage: S1, .. })
    }
}

/// Runs every row in every way that it lists, and panics with all that differed.
pub(crate) fn run(rows: Vec<Row>) {
    let mut differences = Vec::new();
    let mut runs = 0;
    for row in &rows {
        for way in &row.ways {
            runs += 1;
            differences.extend(judge(row, *way));
        }
    }
    assert!(
        differences.is_empty(),
        "{} difference(s) in {runs} run(s):\n{}",
        differences.len(),
        differences.join("\n")
    );
}

/// Everything that is asked of one row, one way. Returns what differed.
fn judge(row: &Row, way: Way) -> Vec<String> {
    // Only lateness may be the machine's fault and not the crate's; a limit that is not kept is not kept twice either. On a busy
    // machine a row's timer may also end before the fault has had its turn.
    let is_late = |difference: &String| {
        difference.starts_with(LATE) || (row.timer.is_some() && difference.contains("never came to pass"))
    };
    let mut verdict = guarded(|| verdict(row, way));
    for _ in 0..2 {
        if !verdict.is_empty() && verdict.iter().all(is_late) {
            verdict = guarded(|| self::verdict(row, way));
        }
    }
    let mut differences = verdict;
    let by_caller = (row.is_opening() && !row.stays_wrong) || row.not_repeated;
    match row.retry() {
        Some(No) => differences.extend(guarded(|| never_sent_again(row, way))),
        Some(retry) if !row.is_opening() && !by_caller => {
            differences.extend(guarded(|| sent_again_automatically(row, way, retry)));
        }
        _ => {}
    }
    if by_caller {
        differences.extend(guarded(|| sent_again_by_the_caller(row, way)));
    }
    let name = row.name(way);
    differences.into_iter().map(|difference| format!("  {name}: {difference}")).collect()
}

const LATE: &str = "took";

/// A panic, of the crate or of the test server, is a difference like any other.
fn guarded(body: impl FnOnce() -> Vec<String>) -> Vec<String> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| vec![format!("panicked: {}", text_of(&*panic))])
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

pub(crate) fn id(name: &str) -> String {
    format!("<{name}@example.com>")
}

pub(crate) fn content(name: &str, bytes: usize) -> Vec<u8> {
    let mut content = format!("Message-ID: {}\r\nSubject: a row\r\n\r\n.a line with a dot\r\n", id(name)).into_bytes();
    while content.len() < bytes {
        content.extend_from_slice(b"forty-two letters or so, again and again.\r\n");
    }
    content
}

pub(crate) fn envelope(recipients: usize) -> Envelope {
    let address = |text: String| text.parse::<Address>().unwrap();
    let to = (1..=recipients).map(|number| address(format!("r{number}@example.com"))).collect();
    Envelope::new(Some(address("sender@example.com".to_owned())), to).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "the test's own clock, to measure the crate against")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// For what the kernel or the pool shows only to those who ask again; bounded, and no test's order depends on it.
#[expect(clippy::disallowed_methods, reason = "the end of a thread and a place in the queue have no waker to wait for")]
pub(crate) fn eventually(patience: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let until = now() + patience;
    loop {
        if holds() {
            return true;
        }
        if now() > until {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// A server and a sender that talk to each other.
struct Stand {
    // Dropped first: its goodbyes go to a server that is still there.
    sender: SmtpSender,
    server: TestServer,
}

#[derive(Clone, Copy)]
struct Terms {
    max_retries: u32,
    /// What the row's timer is set to.
    short: Duration,
    first_pause: Duration,
    longest_pause: Duration,
}

/// No retries, and pauses long enough to tell one from the other.
const STRICT: Terms = Terms { max_retries: 0, short: SHORT, first_pause: FIRST_PAUSE, longest_pause: LONGEST_PAUSE };
/// Pauses so short that a call outwaits them.
const LENIENT: Terms = Terms {
    max_retries: 0,
    short: SHORT,
    first_pause: Duration::from_millis(1),
    longest_pause: Duration::from_millis(1),
};

impl Stand {
    fn new(row: &Row, way: Way, terms: Terms) -> Self {
        let server = TestServer::builder().security(way.server).pipelining(way.pipelining);
        let server = (row.settings)(server).start();
        let host = match way.client {
            Security::StartTls => Host::starttls("127.0.0.1"),
            Security::ImplicitTls => Host::implicit_tls("127.0.0.1"),
            _ => Host::plain("127.0.0.1"),
        };
        let host = (row.host)(host.port(server.port()));
        let has_tls = (way.client, way.server) != (Security::Plain, Security::Plain);
        let host = if row.trusts && has_tls { host.root_certificate(server.root_certificate_pem()) } else { host };
        let at = |timer| if row.timer == Some(timer) { terms.short + row.content_time() } else { LONG };
        let sender = SmtpSender::builder()
            .host(host)
            .max_size(4)
            .acquire_timeout(at(Timer::Acquire))
            .connect_timeout(at(Timer::Connect))
            .auth_timeout(at(Timer::Auth))
            .send_timeout(at(Timer::Send))
            .final_reply_timeout(at(Timer::FinalReply))
            .reconnect_cooldown(terms.first_pause)
            .max_reconnect_cooldown(terms.longest_pause)
            .retry_base_delay(Duration::from_millis(1))
            .jitter(0.0)
            .max_retries(terms.max_retries)
            .keepalive_interval(None);
        let sender = (row.builder)(sender).build().unwrap();
        Self { sender, server }
    }

    /// A stand on which the connection has its past, and the row's script is in force.
    fn ready(row: &Row, way: Way, terms: Terms) -> Self {
        let stand = Self::new(row, way, terms);
        match row.past {
            Past::None => {}
            Past::Delivered => assert_eq!(stand.send("past").map_err(|error| error.to_string()).err(), None),
            Past::Refused => {
                stand.server.set_script(Script::new().once(Stage::Rcpt, [Action::reply("550 5.1.1 nobody\r\n")]));
                assert_eq!(stand.send("past").unwrap_err().kind(), PF, "the message before the fault");
            }
        }
        stand.server.set_script(row.script.clone());
        if let Some(between) = row.between {
            between(&stand.server);
        }
        stand
    }

    fn send(&self, name: &str) -> Result<Receipt, SendError> {
        self.sender.send_raw(&envelope(1), &content(name, 700))
    }

    /// Sends the row's message.
    fn send_row(&self, row: &Row) -> (Result<Receipt, SendError>, Duration) {
        let (envelope, content) = (envelope(row.recipients), content("row", row.bytes));
        let started = now();
        let mut options = SendOptions::new().recipients(row.policy);
        if let Some(deadline) = row.deadline {
            options = options.deadline(started + deadline);
        }
        let result = self.sender.send_with(&envelope, &content, &options);
        let elapsed = started.elapsed();
        if let Some(barrier) = row.held_at {
            self.server.release(barrier);
        }
        (result, elapsed)
    }

    fn accepted(&self) -> usize {
        self.server.accepted(&id("row"))
    }

    /// Whether nothing is in use, being opened or waited for.
    fn rest(&self, found: &mut Vec<String>) {
        let counts = self.sender.status().counts;
        if (counts.leased, counts.connecting, counts.waiting) != (0, 0, 0) || counts.total != counts.idle {
            found.push(format!("the pool is not at rest: {counts}"));
        }
    }
}

/// The row's message once, without retries: what the caller is told, and what becomes of connection and host.
pub(crate) fn verdict(row: &Row, way: Way) -> Vec<String> {
    let stand = Stand::ready(row, way, STRICT);
    let (result, elapsed) = stand.send_row(row);
    let mut found = Vec::new();
    told(row, &stand, &result, &mut found);
    punctual(row, way, elapsed, &mut found);
    stand.rest(&mut found);
    cooled(row, &stand, &mut found);

    let connections = row.connections.unwrap_or(match row.expected {
        Expected::DeliveredAfresh => 2,
        _ => 1,
    });
    // A client may be done with a connection before a busy server has come to accept it.
    eventually(Duration::from_secs(2), || stand.server.connections_accepted() >= connections);
    if stand.server.connections_accepted() != connections {
        let accepted = stand.server.connections_accepted();
        found.push(format!("{accepted} connection(s), expected {connections}"));
    }
    if !matches!(row.fate, K | KR) {
        stand.server.connection(row.number).wait_closed();
    }
    stand.server.assert_script_used();

    // The server behaves again.
    stand.server.set_script(Script::new());
    if row.cool == Nobody {
        let next = stand.send("next");
        if let Err(error) = &next {
            found.push(format!("the next message failed: {}", chain(error)));
        }
        if stand.server.accepted(&id("next")) != 1 {
            found.push(format!("the next message was accepted {} times", stand.server.accepted(&id("next"))));
        }
        let fresh = usize::from(!matches!(row.fate, K | KR) && !matches!(row.expected, Expected::DeliveredAfresh));
        let accepted = stand.server.connections_accepted();
        if accepted != connections + fresh {
            found.push(format!("the next message led to {accepted} connection(s) after {connections}"));
        }
    } else {
        barred(&stand, connections, &mut found);
    }
    parted(row, way, &stand, &mut found);
    stand.rest(&mut found);
    let violations = stand.server.violations();
    if !row.client_misbehaves && !violations.is_empty() {
        found.push(format!("violations: {violations:?}"));
    }
    let seen = Seen { server: &stand.server, result: &result, dialogue: stand.server.transcript(row.number) };
    found.extend(row.checks.iter().filter_map(|check| check(&seen).err()));
    found
}

/// Kind, stage, retry-safety and attempts, and the oracle: `Ok` ⇒ stored once, unknown ⇒ at most once, else never.
fn told(row: &Row, stand: &Stand, result: &Result<Receipt, SendError>, found: &mut Vec<String>) {
    let accepted = stand.accepted();
    match (result, &row.expected) {
        (Ok(receipt), Expected::Delivered | Expected::DeliveredAfresh) => {
            if receipt.attempts() != 1 {
                found.push(format!("delivered at attempt {}, expected the first", receipt.attempts()));
            }
        }
        (Ok(receipt), expected) => found.push(format!("Ok ({}), expected {expected:?}", receipt.response())),
        (Err(error), Expected::Fails { kinds, stage, retry }) => {
            if !kinds.contains(&error.kind()) {
                found.push(format!("{:?}, expected {kinds:?}: {}", error.kind(), chain(error)));
            }
            if error.stage() != *stage {
                found.push(format!("at {:?}, expected {stage:?}: {}", error.stage(), chain(error)));
            }
            if error.is_retry_safe() != (*retry != No) {
                found.push(format!("is_retry_safe() is {}, expected {retry:?}", error.is_retry_safe()));
            }
            if error.attempts() != 1 {
                found.push(format!("{} attempts, expected one", error.attempts()));
            }
            let keeps = matches!(row.fate, K | KR);
            if error.classification().discard_connection == keeps {
                found.push(format!("discard_connection is {keeps}, and the connection is {:?}", row.fate));
            }
        }
        (Err(error), expected) => found.push(format!("{}, expected {expected:?}", chain(error))),
    }
    let is_sound = match result.as_ref().map_err(SendError::kind) {
        Ok(_) => accepted == row.transactions,
        Err(UD) => accepted <= 1,
        Err(_) => accepted == 0,
    };
    if !is_sound {
        found.push(format!("the server accepted it {accepted} time(s), and the caller was told {result:?}"));
    }
}

fn punctual(row: &Row, way: Way, elapsed: Duration, found: &mut Vec<String>) {
    // These begin when there is a connection, and with TLS that takes its time where nothing is optimised.
    let is_opened_first = way.client != Security::Plain && row.past == Past::None;
    let opening = match row.timer {
        Some(Timer::Auth | Timer::Send | Timer::FinalReply) if is_opened_first => OPENING,
        _ => Duration::ZERO,
    };
    let (least, most) = match (row.timer, row.deadline) {
        (Some(_), _) => (SHORT + row.content_time(), SHORT + row.content_time() + opening + SLACK),
        (None, Some(deadline)) => (Duration::ZERO, deadline + SLACK),
        (None, None) => (Duration::ZERO, PROMPT + row.content_time()),
    };
    if elapsed < least || elapsed > most {
        found.push(format!("{LATE} {elapsed:?}, expected {least:?} to {most:?}"));
    }
}

fn cooled(row: &Row, stand: &Stand, found: &mut Vec<String>) {
    let status = stand.sender.status();
    let host = &status.hosts[0];
    let left = match host.state {
        HostState::CoolingDown { until } => Some(until.saturating_duration_since(now())),
        _ => None,
    };
    let expected = match row.cool {
        Nobody => None,
        Cool::Host => Some(FIRST_PAUSE),
        Longest => Some(LONGEST_PAUSE),
    };
    let is_right = match (left, expected) {
        (None, None) => host.state == HostState::Available,
        (Some(left), Some(pause)) => left <= pause && left > pause.mul_f64(0.9),
        _ => false,
    };
    if !is_right {
        found.push(format!("the host is {:?} (for {left:?}), expected {:?}", host.state, row.cool));
    }
}

/// While the host cools down nobody connects to it, and nobody waits for what will not come in time.
fn barred(stand: &Stand, connections: usize, found: &mut Vec<String>) {
    let started = now();
    match stand.send("next") {
        Ok(_) => found.push("a message went out to a host that cools down".to_owned()),
        Err(error) => {
            let Some(_) = error.retry_after().filter(|_| error.kind() == HU && error.is_retry_safe()) else {
                found.push(format!("while the host cools down: {}", chain(&error)));
                return;
            };
        }
    }
    if started.elapsed() > SLACK {
        found.push(format!("{LATE} {:?} to say that the host cools down", started.elapsed()));
    }
    // A client may be done with a connection before a busy server has come to accept it.
    eventually(Duration::from_secs(2), || stand.server.connections_accepted() >= connections);
    if stand.server.connections_accepted() != connections {
        found.push("a connection was opened to a host that cools down".to_owned());
    }
}

/// What the server saw of the connection after the fault.
fn parted(row: &Row, way: Way, stand: &Stand, found: &mut Vec<String>) {
    let dialogue = stand.server.transcript(row.number);
    let commands = dialogue.commands();
    let quits = commands.iter().any(|command| command.eq_ignore_ascii_case("QUIT"));
    let saw = |wanted: &Event| dialogue.events().contains(wanted);
    let mut must = |holds: bool, what: &str| {
        if !holds {
            found.push(format!("{:?}: {what}; the client said {:?}", row.fate, tail(commands)));
        }
    };
    match row.fate {
        K | KR => {
            must(!quits && !saw(&Event::ClientClosed) && !saw(&Event::ClientReset), "the connection is kept");
            let last_mail = commands.iter().rposition(|command| command.starts_with("MAIL FROM:"));
            let before = last_mail.and_then(|at| at.checked_sub(1)).map(|at| commands[at].as_str());
            let resets = before == Some("RSET");
            must(resets == (row.fate == KR), "RSET before the next MAIL exactly when it is owed");
            if row.fate == KR && way.pipelining {
                let together = dialogue.events().iter().any(
                    |event| matches!(event, Event::Client { bytes, .. } if bytes.starts_with(b"RSET\r\nMAIL FROM:")),
                );
                must(together, "RSET and MAIL leave together");
            }
        }
        D => {}
        DQ => {
            must(quits, "QUIT is said");
            must(commands.last().is_some_and(|command| command == "QUIT"), "nothing follows QUIT");
        }
        X => {
            must(!quits, "no QUIT");
            must(saw(&Event::ClientReset), "RST");
            must(!saw(&Event::ClientClosed), "neither FIN nor close_notify");
        }
        XU => must(!quits && !saw(&Event::ClientClosed), "no QUIT, no goodbye"),
    }
}

/// With a retry allowed, the same fault ends well at the second attempt, and the message is there once.
fn sent_again_automatically(row: &Row, way: Way, retry: Retry) -> Vec<String> {
    let stand = Stand::ready(row, way, Terms { max_retries: 1, ..LENIENT });
    let (result, _) = stand.send_row(row);
    let mut found = Vec::new();
    match result {
        Ok(receipt) if receipt.attempts() == 2 => {}
        Ok(receipt) => found.push(format!("with one retry: Ok at attempt {}", receipt.attempts())),
        Err(error) => found.push(format!("with one retry: {}", chain(&error))),
    }
    if stand.accepted() != 1 {
        found.push(format!("with one retry: accepted {} times", stand.accepted()));
    }
    let expected = match row.fate {
        K | KR => 1,
        _ => 2,
    };
    let connections = stand.server.connections_accepted();
    if connections != expected {
        found.push(format!("with one retry: {connections} connection(s), expected {expected}"));
    }
    if retry == Once && connections == 2 && mails(&stand, 2) != 1 {
        found.push("the one retry of a corrupted dialogue was not alone on a fresh connection".to_owned());
    }
    stand.rest(&mut found);
    found
}

/// The caller sends the message again after the pause, as the error allows: it is there once.
///
/// The row's timer is still in force, so it has room for TLS, and the message is a small one.
fn sent_again_by_the_caller(row: &Row, way: Way) -> Vec<String> {
    let stand = Stand::ready(row, way, Terms { short: SHORT + OPENING, ..LENIENT });
    let (result, _) = stand.send_row(row);
    let mut found = Vec::new();
    if result.is_ok() {
        found.push("the second run of the fault ended well".to_owned());
    }
    stand.server.set_script(Script::new());
    let again = stand.send("row");
    match again {
        Ok(_) if stand.accepted() == 1 => {}
        Ok(_) => found.push(format!("sent again by the caller: accepted {} times", stand.accepted())),
        Err(error) => found.push(format!("sent again by the caller: {}", chain(&error))),
    }
    stand.rest(&mut found);
    found
}

/// What is not safe to send again is not, however many retries are allowed.
fn never_sent_again(row: &Row, way: Way) -> Vec<String> {
    let stand = Stand::ready(row, way, Terms { max_retries: 3, ..LENIENT });
    let (result, _) = stand.send_row(row);
    let mut found = Vec::new();
    match result {
        Ok(_) => found.push("with three retries: Ok".to_owned()),
        Err(error) if error.attempts() != 1 => found.push(format!("with three retries: {}", chain(&error))),
        Err(_) => {}
    }
    let mut connections = row.connections.unwrap_or(1);
    // A client may be done with a connection before a busy server has come to accept it.
    eventually(Duration::from_secs(2), || stand.server.connections_accepted() >= connections);
    if stand.server.connections_accepted() != connections {
        found.push(format!("with three retries: {} connection(s)", stand.server.connections_accepted()));
        connections = stand.server.connections_accepted();
    }
    let past = usize::from(row.past != Past::None);
    let mails: usize = (1..=connections).map(|number| mails(&stand, number)).sum();
    if mails > connections + past {
        found.push(format!("with three retries: MAIL was said {mails} times"));
    }
    stand.rest(&mut found);
    found
}

/// How often MAIL was said on a connection.
fn mails(stand: &Stand, connection: usize) -> usize {
    stand.server.transcript(connection).commands().iter().filter(|line| line.starts_with("MAIL")).count()
}

/// An error with its causes.
pub(crate) fn chain(error: &SendError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(" <- ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn tail(commands: &[String]) -> &[String] {
    &commands[commands.len().saturating_sub(6)..]
}

/// Whether `wanted` is in `bytes`.
pub(crate) fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// For a check: `Ok` or what was missing.
pub(crate) fn require(holds: bool, what: impl Into<String>) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.into()) }
}

/// A scripted reply; the line end is added.
pub(crate) fn say(reply: &str) -> Action {
    Action::reply(format!("{reply}\r\n"))
}
