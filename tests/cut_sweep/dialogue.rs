//! The dialogues that are cut: how client and server talk, and what an uncut one looks like.

use smtp_pool::testing::{Action, Script, Security, Stage, TestServer};
use smtp_pool::{Host, SmtpSender};

use crate::common::{self, ms, send};
use crate::wire::{Direction, Tape, Wire};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grouping {
    Pipelined,
    Lockstep,
    /// The whole message in one write, by BDAT: the last byte leaves with the first.
    SingleRoundTrip,
}

impl Grouping {
    pub(crate) const ALL: [Self; 3] = [Self::Pipelined, Self::Lockstep, Self::SingleRoundTrip];
}

/// The most that leaves with the last byte, however large the message (guide, "Delivery guarantees"). Where the last write of several
/// begins cannot be seen on the wire.
const LAST_WRITE: usize = 16 * 1024;

/// How client and server talk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) security: Security,
    pub(crate) grouping: Grouping,
    /// Whether the message under test is the second one over its connection.
    pub(crate) reused: bool,
    /// Whether the sender may try once more.
    pub(crate) is_retried: bool,
    /// Whether it is so large that it leaves in several writes; in clear only, where its bytes can be told.
    pub(crate) is_large: bool,
}

impl Way {
    /// The message under test.
    pub(crate) fn content(self, id: &str) -> Vec<u8> {
        const LARGE: usize = 40_000;
        if self.is_large { common::big_content(id, LARGE) } else { common::content(id) }
    }
}

/// A server that many runs share, each through a wire of its own.
pub(crate) struct Bench {
    pub(crate) way: Way,
    pub(crate) server: TestServer,
    root: String,
}

impl Bench {
    pub(crate) fn new(way: Way) -> Self {
        let server = TestServer::builder()
            .security(way.security)
            .pipelining(way.grouping != Grouping::Lockstep)
            .chunking(way.grouping == Grouping::SingleRoundTrip)
            .record(false)
            .keep_messages(false)
            // As long for the thousandth message as for the first.
            .script(Script::new().on(Stage::EndOfData, [Action::Accept, Action::reply("250 2.0.0 queued\r\n")]))
            .start();
        let root = if way.security == Security::Plain { String::new() } else { server.root_certificate_pem() };
        Self { way, server, root }
    }

    /// A sender that forgets a failure at once.
    pub(crate) fn sender(&self, wire: &Wire) -> SmtpSender {
        let host = match self.way.security {
            Security::StartTls => Host::starttls("127.0.0.1").root_certificate(self.root.as_str()),
            Security::ImplicitTls => Host::implicit_tls("127.0.0.1").root_certificate(self.root.as_str()),
            _ => Host::plain("127.0.0.1"),
        };
        common::sender(host.port(wire.port()).single_round_trip(self.way.grouping == Grouping::SingleRoundTrip))
            .reconnect_cooldown(ms(1))
            .max_reconnect_cooldown(ms(1))
            .retry_base_delay(ms(1))
            .max_retries(self.way.is_retried.into())
            .keepalive_interval(None)
            .build()
            .unwrap()
    }
}

/// An uncut dialogue, from the message under test on: everything on a fresh connection.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    from_client: usize,
    to_client: usize,
    /// Whether every run is as long as this one: a signature in a TLS handshake takes a byte more or less.
    pub(crate) is_exact: bool,
    /// Where lines end (records, under TLS).
    client_ends: Vec<usize>,
    server_ends: Vec<usize>,
    /// Units of the client of which one more shows that the write of the last byte has begun.
    committed_after: usize,
    /// Units of the client without which it cannot have begun.
    committing_after: usize,
    /// Units of the server before the client's last turn.
    server_before: usize,
    server_units: usize,
    /// Bytes of that turn, where it begins with the envelope: another one that begins so, for DATA, is shorter.
    turn_at_least: usize,
}

impl Recorded {
    /// The longest of a few.
    pub(crate) fn of(way: Way) -> Self {
        let bench = Bench::new(way);
        let tries = if is_exact(way) { 1 } else { 4 };
        let mut all: Vec<Self> = (0..tries).map(|number| Self::once(&bench, number)).collect();
        let equal = |one: &Self, other: &Self| {
            (one.committed_after, one.server_before, one.server_units)
                == (other.committed_after, other.server_before, other.server_units)
        };
        assert!(all.iter().all(|one| equal(one, &all[0])), "{way:?} is not always the same: {all:?}");
        let from_client = all.iter().map(|one| one.from_client).max().unwrap();
        let to_client = all.iter().map(|one| one.to_client).max().unwrap();
        Self { from_client, to_client, ..all.remove(0) }
    }

    fn once(bench: &Bench, number: usize) -> Self {
        let wire = Wire::to(bench.server.port(), None);
        let sender = bench.sender(&wire);
        if bench.way.reused {
            send(&sender, &id(number, "first")).unwrap();
        }
        let security = bench.way.security;
        let start = wire.tape();
        sender.send_raw(&common::envelope(1), &bench.way.content(&id(number, "under"))).unwrap();
        let tape = wire.tape();
        drop(sender);
        wire.wait_over();
        let start = Start::at(security, &start);
        let passed = start.passed(&tape);
        let (client_turn, server_turn) = *tape.turns.last().unwrap();
        let mut before = tape.clone();
        before.from_client.truncate(client_turn);
        before.to_client.truncate(server_turn);
        let before = start.passed(&before);
        assert!(before.client < passed.client && before.server < passed.server, "a message has an end and an answer");
        let ends = |raw: &[u8], from: usize| -> Vec<usize> {
            Units::of(security, raw).ends.iter().filter_map(|end| end.checked_sub(from)).collect()
        };
        let from_client = tape.from_client.len() - start.from_client;
        Self {
            from_client,
            to_client: tape.to_client.len() - start.to_client,
            is_exact: is_exact(bench.way),
            client_ends: match bench.way.is_large {
                true => vec![before.client, from_client],
                false => ends(&tape.from_client, start.from_client),
            },
            server_ends: ends(&tape.to_client, start.to_client),
            committed_after: if bench.way.is_large { passed.client - 1 } else { before.client },
            committing_after: if bench.way.is_large { passed.client - LAST_WRITE } else { before.client },
            server_before: before.server,
            server_units: passed.server,
            turn_at_least: if bench.way.grouping == Grouping::SingleRoundTrip { passed.turn } else { 0 },
        }
    }

    pub(crate) fn places(&self, direction: Direction) -> Places {
        const NEAR: usize = 8;
        let margin = if self.is_exact { 0 } else { NEAR };
        let (bytes, ends) = match direction {
            // Before the client's first byte is before the server's first one.
            Direction::FromClient => (1..=self.from_client + margin, &self.client_ends),
            Direction::FromServer => (0..=self.to_client + margin, &self.server_ends),
        };
        let is_near = |byte: &usize| *byte <= NEAR || ends.iter().any(|end| end.abs_diff(*byte) <= NEAR);
        Places { near: bytes.clone().filter(is_near).collect(), all: bytes.collect() }
    }

    /// Whether the client could know, by what was delivered to it, that the last byte's turn had come.
    pub(crate) fn commit_was_due(&self, passed: Passed) -> bool {
        passed.server >= self.server_before
    }

    /// Whether the client may have begun the write that holds the last byte, if all is known that it wrote.
    pub(crate) fn commit_was_possible(&self, passed: Passed) -> bool {
        passed.client > self.committing_after && passed.turn >= self.turn_at_least
    }

    /// Whether the client did begin the write that holds the last byte.
    pub(crate) fn commit_was_seen(&self, passed: Passed) -> bool {
        passed.client > self.committed_after && passed.turn >= self.turn_at_least
    }

    /// Whether the answer to the last byte was delivered, to its own last byte.
    pub(crate) fn was_answered(&self, passed: Passed) -> bool {
        passed.server >= self.server_units
    }
}

fn is_exact(way: Way) -> bool {
    way.security == Security::Plain || way.reused
}

/// Where one direction of a dialogue can be cut.
pub(crate) struct Places {
    pub(crate) all: Vec<usize>,
    /// Next to the end of a line or of a TLS record.
    pub(crate) near: Vec<usize>,
}

/// Message-IDs of one length.
pub(crate) fn id(number: usize, what: &str) -> String {
    format!("{what}-{number:07}@sweep")
}

/// How much of a dialogue has passed, in units of which each run has as many: bytes in clear, records of application data under TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passed {
    /// Begun by the client.
    client: usize,
    /// Delivered to it to the end.
    server: usize,
    /// Bytes of the client's last turn.
    turn: usize,
}

/// The moment at which the message under test begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    security: Security,
    from_client: usize,
    to_client: usize,
    units: Passed,
}

impl Start {
    pub(crate) fn at(security: Security, tape: &Tape) -> Self {
        let none = Passed { client: 0, server: 0, turn: 0 };
        let nothing = Self { security, from_client: 0, to_client: 0, units: none };
        Self {
            from_client: tape.from_client.len(),
            to_client: tape.to_client.len(),
            units: nothing.passed(tape),
            ..nothing
        }
    }

    pub(crate) fn passed(&self, tape: &Tape) -> Passed {
        Passed {
            client: Units::of(self.security, &tape.from_client).begun - self.units.client,
            server: Units::of(self.security, &tape.to_client).complete - self.units.server,
            turn: tape.turns.last().map_or(0, |(begin, _)| tape.from_client.len().saturating_sub(*begin)),
        }
    }
}

struct Units {
    begun: usize,
    complete: usize,
    ends: Vec<usize>,
}

impl Units {
    fn of(security: Security, raw: &[u8]) -> Self {
        const HEADER: usize = 5;
        const HANDSHAKE: u8 = 22;
        const APPLICATION_DATA: u8 = 23;
        // No line of SMTP holds this byte.
        let clear = match security {
            Security::Plain => raw.len(),
            _ => raw.iter().position(|byte| *byte == HANDSHAKE).unwrap_or(raw.len()),
        };
        let lines = raw[..clear].iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let mut units = Self { begun: 0, complete: 0, ends: lines.map(|(at, _)| at + 1).collect() };
        if security == Security::Plain {
            return Self { begun: raw.len(), complete: raw.len(), ..units };
        }
        let mut rest = &raw[clear..];
        while let [kind, ..] = rest {
            units.begun += usize::from(*kind == APPLICATION_DATA);
            let length = rest
                .get(3..HEADER)
                .map_or(usize::MAX, |bytes| HEADER + usize::from(u16::from_be_bytes([bytes[0], bytes[1]])));
            let Some(behind) = rest.get(length..) else { break };
            units.complete += usize::from(*kind == APPLICATION_DATA);
            units.ends.push(raw.len() - behind.len());
            rest = behind;
        }
        units
    }
}
