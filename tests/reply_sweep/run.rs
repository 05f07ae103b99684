//! One reply in one situation, and what the caller is told.

use std::time::Duration;

use smtp_pool::testing::{Action, Script, Security, Stage, TestServer};
use smtp_pool::{FailureKind, Host, RecipientPolicy, SendOptions, SmtpSender};

use crate::common::{self, SLACK, ms, send, send_to};
use crate::reference::{Grouping, Outcome, Situation, Told, expected};
use crate::replies::{Position, Reply, Said};

/// How client and server are set up; the same for many runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) position: Position,
    pub(crate) grouping: Grouping,
    pub(crate) reused: bool,
}

/// A server for many runs, each with a sender of its own.
pub(crate) struct Bench {
    pub(crate) setting: Setting,
    server: TestServer,
    host: Host,
}

impl Bench {
    pub(crate) fn new(setting: Setting) -> Self {
        let Setting { position, grouping, .. } = setting;
        let has_tls = Position::OPENING_UNDER_TLS.contains(&position);
        let security = if has_tls { Security::StartTls } else { Security::Plain };
        let server = TestServer::builder()
            .security(security)
            .pipelining(grouping != Grouping::Lockstep)
            .chunking(grouping == Grouping::SingleRoundTrip)
            .record(false)
            // Where a message may be split, who has which part is looked at.
            .keep_messages(position == Position::SecondOfTwoPartial);
        let server = if position == Position::Auth { server.credentials("user", "secret") } else { server };
        let server = server.start();
        let host = if has_tls { common::starttls(&server) } else { common::plain(&server) };
        let host = host.single_round_trip(grouping == Grouping::SingleRoundTrip);
        let host = match position {
            Position::Auth => host.credentials("user", "secret").dangerous_plaintext_auth(true),
            _ => host,
        };
        Self { setting, server, host }
    }

    fn sender(&self) -> SmtpSender {
        common::sender(self.host.clone())
            .reconnect_cooldown(ms(1))
            .max_reconnect_cooldown(ms(1))
            .keepalive_interval(None)
            .build()
            .unwrap()
    }

    /// The connection has its past: a message that went through, or one that was refused where RSET is to be owed.
    fn prepare(&self, sender: &SmtpSender, id: &str) {
        let is_refused = self.setting.position == Position::Rset;
        let refusal = Script::new().once(Stage::Rcpt, [Action::reply("550 5.1.1 nobody\r\n")]);
        self.server.set_script(if is_refused { refusal } else { Script::new() });
        if self.setting.reused {
            assert_eq!(send(sender, id).is_err(), is_refused, "the message before");
        }
    }

    /// The server says this reply and believes it, and what is no refusal it means well: then a client that sends again too soon
    /// delivers twice, and one that gives up on it says so in vain.
    fn script(&self, reply: &Reply, closes: bool) -> Script {
        let position = self.setting.position;
        let said = Action::Reply(reply.bytes.clone());
        let is_refusal = matches!(reply.said, Said::Code(400..) | Said::Two(400.., _));
        let mut actions = match position {
            Position::EndOfData if !is_refusal => vec![Action::Accept, said],
            Position::Greeting | Position::StartTls | Position::Auth | Position::Data | Position::EndOfData => {
                vec![said]
            }
            _ if is_refusal => vec![said],
            _ => vec![Action::Proceed, said],
        };
        actions.extend(closes.then_some(Action::Fin));
        let (stage, nth) = position.stage();
        Script::new().on_nth(stage, nth, actions)
    }
}

/// Two times yes to RCPT, where the answer to the content comes next: the second one says that the message is accepted, and if the server
/// then leaves, no client can know that it meant something else. So no reply of this sweep says that.
pub(crate) fn is_a_lie(setting: Setting, reply: &Reply, closes: bool) -> bool {
    let is_last_but_one = setting.position == Position::Rcpt && setting.grouping == Grouping::SingleRoundTrip;
    is_last_but_one && closes && matches!(reply.said, Said::Two(200..300, 200..300))
}

/// How long a caller waits for the rest of a reply.
const DEADLINE: Duration = ms(400);

/// What a call without anything to wait for may take on a busy machine.
const PROMPT: Duration = Duration::from_secs(1);

/// Whether the two recipients have the message in one transaction each.
fn has_each_once(server: &TestServer, id: &str) -> bool {
    let id = format!("<{id}>");
    let messages = server.messages();
    let stored = messages.iter().filter(|message| message.message_id() == Some(&*id));
    let stored: Vec<&[String]> = stored.map(|message| message.recipients()).collect();
    stored == [["to1@example.net"], ["to2@example.net"]]
}

pub(crate) struct Verdict {
    /// From the reference, or from the promises of SPEC §1.
    pub(crate) difference: Option<String>,
    pub(crate) is_late: bool,
}

/// Sends a message to a server that says this.
pub(crate) fn judge(bench: &Bench, reply: &Reply, closes: bool, number: usize) -> Verdict {
    let Setting { position, grouping, reused } = bench.setting;
    let server = &bench.server;
    let id = |what: &str| format!("{what}-{number}@sweep");
    let violations = server.violations().len();
    let sender = bench.sender();
    let before = server.connections_accepted();
    bench.prepare(&sender, &id("past"));
    server.set_script(bench.script(reply, closes));

    let policy = match position {
        Position::SecondOfTwoPartial => RecipientPolicy::AcceptPartial,
        _ => RecipientPolicy::AllOrNothing,
    };
    let mut options = SendOptions::new().recipients(policy);
    let called = common::now();
    let waits = reply.said == Said::Unfinished && !closes;
    if waits {
        options = options.deadline(called + DEADLINE);
    }
    let result = send_to(&sender, &id("under"), position.recipients(), &options);
    let is_late = called.elapsed() > SLACK + if waits { DEADLINE } else { PROMPT };
    let at_rest = common::is_at_rest(&sender);
    server.assert_script_used();
    let connections = server.connections_accepted() - before;
    if closes {
        server.connection(before + 1).wait_closed();
    }
    server.set_script(Script::new());
    let next = send(&sender, &id("next"));
    let kept = server.connections_accepted() - before == connections;
    let still_at_rest = common::is_at_rest(&sender);
    drop(sender);

    let told = match &result {
        Ok(_) if connections > 1 => Told::AcceptedAfresh,
        Ok(_) => Told::Accepted,
        Err(error) => Told::Failed { kind: error.kind(), stage: error.stage(), is_retry_safe: error.is_retry_safe() },
    };
    let outcome = Outcome { told, kept };
    let offers_tls = contains(&reply.bytes, b"\n250-STARTTLS") || contains(&reply.bytes, b" STARTTLS\r\n");
    let case = Situation { position, said: reply.said, closes, reused, grouping, offers_tls };
    let right = expected(case);
    let mut faults = Vec::new();
    if !right.contains(&outcome) {
        faults.push(format!("expected {right:?}"));
    }
    let accepted = server.accepted(&id("under"));
    // P24: one recipient too many is sent to on its own.
    let is_split = position == Position::SecondOfTwoPartial && matches!(reply.said, Said::Code(452 | 552)) && !closes;
    let is_true = match result.as_ref().map_err(|error| error.kind()) {
        Ok(_) if is_split => accepted == 2 && has_each_once(server, &id("under")),
        Ok(_) => accepted == 1,
        Err(FailureKind::UnknownAfterData) => accepted <= 1,
        Err(_) => accepted == 0,
    };
    if !is_true {
        faults.push(format!("accepted {accepted} times"));
    }
    if connections > 1 && result.is_err() && !reused {
        faults.push(format!("{connections} connections"));
    }
    let attempts = result.as_ref().map_or_else(|error| error.attempts(), |receipt| receipt.attempts());
    if attempts != 1 {
        faults.push(format!("{attempts} attempts"));
    }
    if next.is_err() || server.accepted(&id("next")) != 1 {
        faults.push(format!("the next message: {next:?}"));
    }
    if !at_rest || !still_at_rest {
        faults.push(format!("at rest: {at_rest}, after the next message: {still_at_rest}"));
    }
    let new_violations = server.violations().split_off(violations);
    if !new_violations.is_empty() {
        faults.push(format!("{new_violations:?}"));
    }
    let said = reply.bytes[..reply.bytes.len().min(60)].escape_ascii();
    let difference = || format!("{case:?} \"{said}\": {outcome:?}; {}; {result:?}", faults.join("; "));
    Verdict { difference: (!faults.is_empty()).then(difference), is_late }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    common::contains(haystack, needle)
}
