//! What the caller is to be told, typed from the specification: SPEC §4 and §5, reliability.md §1.0, §1.1, §1.3 and §3.2.
//!
//! Where two of its sentences disagree, or none says it, more than one outcome is right, and the comment says why.

use smtp_pool::{FailureKind, SendStage};

use crate::replies::Position::{self, Auth, Data, EhloBeforeTls, EndOfData, Greeting, Mail, Rcpt, Rset, StartTls};
use crate::replies::Position::{FirstOfTwo, SecondOfTwo, SecondOfTwoPartial};
use crate::replies::Said::{self, Code, Nonsense, Two, Unfinished};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Accepted,
    /// Over a connection that replaced a stale one.
    AcceptedAfresh,
    Failed {
        kind: FailureKind,
        stage: SendStage,
        is_retry_safe: bool,
    },
}

/// What the caller is told, and whether the next message goes over the last connection of this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) told: Told,
    pub(crate) kept: bool,
}

/// What leaves together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grouping {
    Lockstep,
    Pipelined,
    /// Everything, by BDAT.
    SingleRoundTrip,
}

/// One reply in one situation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Situation {
    pub(crate) position: Position,
    pub(crate) said: Said,
    /// The server closes the connection behind its reply.
    pub(crate) closes: bool,
    /// The connection has carried a message before.
    pub(crate) reused: bool,
    pub(crate) grouping: Grouping,
    /// The reply holds a line `STARTTLS`.
    pub(crate) offers_tls: bool,
}

use FailureKind::{
    ConnectionCorrupted as CC, HostUnavailable as HU, PermanentFailure as PF, RetryableBeforeSend as RB,
    RetryableTemporaryFailure as RT, UnknownAfterData as UD,
};
use SendStage::{Authenticated as S2, Connected as S1, DataCompleted as S5, DataStarted as S4, EnvelopeStarted as S3};

const Y: bool = true;
const N: bool = false;

const fn fails(kind: FailureKind, stage: SendStage, is_retry_safe: bool, kept: bool) -> Outcome {
    Outcome { told: Told::Failed { kind, stage, is_retry_safe }, kept }
}

const fn ok(kept: bool) -> Outcome {
    Outcome { told: Told::Accepted, kept }
}

/// The free replacement of a reused connection.
const AFRESH: Outcome = Outcome { told: Told::AcceptedAfresh, kept: Y };

/// The outcomes that are right.
pub(crate) fn expected(case: Situation) -> Vec<Outcome> {
    match case.position {
        position if position.is_opening() => opening(case),
        _ if case.grouping == Grouping::SingleRoundTrip => at_once(case),
        EndOfData => end_of_data(case),
        _ => envelope(case),
    }
}

/// F001–F031, case a, P25–P28. Nothing that fails here leaves a connection.
fn opening(case: Situation) -> Vec<Outcome> {
    let opening = |kind, safe| fails(kind, S1, safe, N);
    let is_last = !matches!(case.position, Greeting | EhloBeforeTls | StartTls);
    match (case.position, case.said) {
        // The first refusal wins over what follows (P12), or what follows casts doubt on it.
        (_, Two(code @ 400.., _)) => {
            [vec![opening(HU, Y)], self::opening(Situation { said: Code(code), ..case })].concat()
        }
        // F018.
        (EhloBeforeTls, Code(200..=220 | 222..300)) if !case.offers_tls => vec![opening(PF, N)],
        // A session that is ready ends before its first message, and it depends on the moment whether that is seen before MAIL or after.
        (position, Code(code)) if code == position.good() && case.closes => match is_last {
            true => vec![fails(RB, S2, Y, N), fails(RB, S3, Y, N)],
            false => vec![opening(HU, Y)],
        },
        (position, Code(code)) if code == position.good() => vec![ok(Y)],
        (_, Code(221)) => vec![opening(HU, Y)],
        // F007 for 250. P8 lists the greeting among those that any 2xx answers, F007 says otherwise.
        (Greeting, Code(250)) => vec![opening(HU, Y)],
        (Greeting, Code(200..300)) => vec![opening(HU, Y), ok(!case.closes)],
        // F004; "greeting 421/4xx → temporary" (SPEC §5) may be HU or RT.
        (Greeting, Code(421)) => vec![opening(HU, Y)],
        (Greeting, Code(400..500)) => vec![opening(HU, Y), opening(RT, Y)],
        // F006, P28: it says nothing about the mail.
        (Greeting, Code(500..)) => vec![opening(HU, Y)],

        // F022–F025, F031, P25. What a challenge leads to is the next reply's affair; it is no success.
        (Auth, Code(454 | 432)) => vec![opening(RT, Y)],
        (Auth, Code(421)) => vec![opening(HU, Y)],
        (Auth, Code(400..500)) => vec![opening(RT, Y), opening(HU, Y)],
        (Auth, Code(500..)) => vec![opening(PF, N)],
        (Auth, Code(334)) if case.closes => vec![opening(HU, Y), opening(RT, Y), opening(CC, N)],
        (Auth, Code(334)) => vec![opening(PF, N), opening(CC, N)],
        (Auth, Unfinished) => vec![opening(HU, Y), opening(RT, Y)],
        // F026 calls senseless challenges CC and unsafe, case a calls every failure here HU and safe.
        (Auth, _) => vec![opening(HU, Y), opening(CC, N)],

        // F019, F020, case j. A refusal of TLS that is required is a matter of settings (F018) or of the host (case a).
        (StartTls, Code(421)) => vec![opening(HU, Y), opening(RT, Y)],
        (StartTls, Code(400..500)) => vec![opening(RT, Y)],
        (StartTls, Code(500..)) => vec![opening(PF, N), opening(HU, Y)],
        (StartTls, Two(220, _)) => vec![opening(CC, N)],
        (StartTls, _) => vec![opening(HU, Y)],

        // EHLO. F016, F017, case j; P8: any 2xx answers it. But 220 is the greeting's own code, and said again it is out of step (P7).
        (_, Code(220)) => vec![opening(HU, Y)],
        (_, Code(200..300)) if case.closes && is_last => vec![fails(RB, S2, Y, N), fails(RB, S3, Y, N)],
        (_, Code(200..300)) if case.closes => vec![opening(HU, Y)],
        (_, Code(200..300)) => vec![ok(Y)],
        (_, Code(421)) => vec![opening(HU, Y)],
        (_, Code(400..500)) => vec![opening(HU, Y), opening(RT, Y)],
        (EhloBeforeTls, Code(500..)) => vec![opening(PF, N)],
        // 5xx is permanent (SPEC §5), a failure of opening is the host's (case a).
        (_, Code(500..)) => vec![opening(PF, N), opening(HU, Y)],
        _ => vec![opening(HU, Y)],
    }
}

/// F040–F071: everything at [`S3`].
fn envelope(case: Situation) -> Vec<Outcome> {
    let Situation { position, said, closes, reused, grouping, .. } = case;
    // On a reused connection the free replacement (SPEC §5); else the transport's failure, case b.
    let dies = if reused { AFRESH } else { fails(RB, S3, Y, N) };
    // CC. The preface of §3.2 gives the free replacement to every failure, SPEC §5 only to the connection's end.
    let mut corrupted = vec![fails(CC, S3, Y, N)];
    corrupted.extend(reused.then_some(AFRESH));
    let is_good = match (position, said) {
        (_, Code(221)) => false,
        (Data, Code(code)) => code == 354,
        (Rset, Code(code)) => code == 250,
        (_, Code(code)) => (200..300).contains(&code),
        _ => false,
    };
    // What stands behind it in the same group is answered at once.
    let is_last_of_group = grouping == Grouping::Lockstep || matches!(position, SecondOfTwo | Data);
    match (position, said) {
        // F072; a FIN that comes with the 354 may be seen before the last byte leaves, or not.
        (Data, Code(354)) if closes => {
            vec![if reused { AFRESH } else { fails(RB, S4, Y, N) }, fails(UD, S5, N, N)]
        }
        _ if is_good && closes => vec![dies],
        _ if is_good => vec![ok(Y)],
        // P10: before the commit point retry-safe; no row says whether 221 counts as a refusal.
        (_, Code(221)) if reused => vec![AFRESH],
        (_, Code(221)) => vec![fails(RB, S3, Y, N), fails(RT, S3, Y, N)],
        (_, Code(421)) if reused => vec![AFRESH],
        (_, Code(421)) => vec![fails(RT, S3, Y, N)],
        (Rset, Code(400..)) => vec![AFRESH],
        // SPEC §5: a session's own limit.
        (Mail, Code(400..500)) if reused => vec![AFRESH],
        // F044 is about a login, and this host has none: whether the connection is any good is open.
        (Mail, Code(530)) => vec![fails(PF, S3, N, Y), fails(PF, S3, N, N), AFRESH],
        // Some are accepted, and the message goes to them (F055), over a connection that is there.
        (SecondOfTwoPartial, Code(400..)) if closes => vec![dies],
        (SecondOfTwoPartial, Code(400..)) => vec![ok(Y)],
        // P24: too many recipients, so the rest is for later.
        (SecondOfTwo, Code(552)) => vec![fails(RT, S3, Y, !closes)],
        (Mail | Rcpt | FirstOfTwo | SecondOfTwo | Data, Code(400..500)) => vec![fails(RT, S3, Y, !closes)],
        (Mail | Rcpt | FirstOfTwo | SecondOfTwo | Data, Code(500..)) => vec![fails(PF, S3, N, !closes)],
        // F048: slow is not gone. In a group, the next reply makes nonsense of it, or a reply goes missing in the end.
        (_, Unfinished) if closes => vec![dies],
        (_, Unfinished) if is_last_of_group => vec![fails(RB, S3, Y, N)],
        (_, Unfinished) => [vec![fails(RB, S3, Y, N)], corrupted].concat(),
        // The first refusal wins over what follows (P12), or what follows casts doubt on it (F093).
        (_, Two(550, _)) => [vec![fails(PF, S3, N, N)], corrupted].concat(),
        (_, Two(421, _)) => [vec![fails(RT, S3, Y, N)], corrupted].concat(),
        // In a group a second reply is the next command's, for all that the client can know until too many have come.
        (_, Two(_, 400..)) if closes && !is_last_of_group => [vec![fails(PF, S3, N, N)], corrupted].concat(),
        (_, Two(..)) if closes && !is_last_of_group => [vec![dies], corrupted].concat(),
        (_, Two(..) | Nonsense | Code(_)) => corrupted,
    }
}

/// F101–F110, case i2: everything at [`S5`], because the last byte leaves with the first.
fn at_once(case: Situation) -> Vec<Outcome> {
    let Situation { position, said, closes, reused, .. } = case;
    let kept = !closes;
    let unknown = fails(UD, S5, N, N);
    match (position, said) {
        (_, Code(221)) => vec![unknown],
        // F104; F087.
        (Mail | Rcpt, Code(200..300)) if closes => vec![unknown],
        (_, Code(200..300)) => vec![ok(kept)],
        // F106: a refusal with an end behind it, or (F093) with answers behind it that it rules out.
        (Mail | Rcpt, Code(421)) if reused => vec![fails(RT, S5, Y, N), fails(RB, S5, Y, N), AFRESH, unknown],
        (Mail | Rcpt, Code(421)) => vec![fails(RT, S5, Y, N), unknown],
        (_, Code(421)) => vec![fails(RT, S5, Y, N)],
        // A session's own limit, SPEC §5.
        (Mail, Code(400..500)) if reused => vec![AFRESH],
        (Mail, Code(530)) => vec![fails(PF, S5, N, kept), fails(PF, S5, N, N), AFRESH],
        // F102, F105.
        (Mail | Rcpt, Code(code @ 400..)) | (_, Code(code @ (400..500 | 505..))) => {
            vec![if code < 500 { fails(RT, S5, Y, kept) } else { fails(PF, S5, N, kept) }]
        }
        // F110 has 502, F107 503; both are said of commands, and so are the other codes up to 504 (RFC 5321 §4.2.1).
        (_, Code(502)) => vec![AFRESH],
        (_, Code(500..)) => vec![AFRESH, fails(PF, S5, N, kept)],
        // A second reply is the next command's, for all that the client can know until too many have come.
        (Mail | Rcpt, Two(200..300, 400..)) if closes => vec![fails(PF, S5, N, N), unknown],
        // F098, or one too many, which leaves it open which of them was meant.
        (EndOfData, Two(200..300, _)) => vec![ok(N), unknown],
        (_, Two(421, _)) => vec![fails(RT, S5, Y, N), unknown],
        (_, Two(400.., _)) => vec![fails(PF, S5, N, N), unknown],
        // F108, P9.
        (_, Code(_) | Two(..) | Nonsense | Unfinished) => vec![unknown],
    }
}

/// F080–F100: everything at [`S5`].
fn end_of_data(case: Situation) -> Vec<Outcome> {
    let kept = !case.closes;
    match case.said {
        Code(221) => vec![fails(UD, S5, N, N)],
        Code(200..300) => vec![ok(kept)],
        Code(421) => vec![fails(RT, S5, Y, N)],
        Code(400..500) => vec![fails(RT, S5, Y, kept)],
        Code(500..) => vec![fails(PF, S5, N, kept)],
        // F098, F093. A refusal for good with an acceptance behind it is in no row.
        Two(200..300, _) => vec![ok(N)],
        Two(421, _) => vec![fails(UD, S5, N, N)],
        Two(..) => vec![fails(UD, S5, N, N), fails(PF, S5, N, N)],
        Code(_) | Nonsense | Unfinished => vec![fails(UD, S5, N, N)],
    }
}
