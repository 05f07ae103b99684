//! Lists of any length against a server of any mood: nobody is lost, nobody is offered twice without a complete refusal, the order and the
//! server's maximum are kept, and what is told is what the server has in its own books.

use proptest::prelude::*;

use super::*;
use crate::endpoint::Endpoint;
use crate::error::Classification;
use crate::reply::Reply;
use crate::smtp::Accepted;

/// What the server thinks of a recipient, whenever it is asked.
#[derive(Debug, Clone, Copy)]
enum Mood {
    Takes,
    Later,
    Never,
}

/// How a transaction goes that somebody was accepted in.
#[derive(Debug, Clone, Copy)]
enum End {
    Accepted,
    /// 451 or 554 to the last byte.
    Refused(u16),
    /// Cut before the last byte, after so many of ten replies to RCPT.
    Cut(usize),
    /// Cut behind it; the server may have stored the message.
    Unknown {
        is_stored: bool,
    },
    /// No connection came about.
    NoConnection,
}

#[derive(Debug, Clone)]
struct Server {
    /// RCPTMAX.
    announced: usize,
    /// How many it takes without having said so.
    hidden: usize,
    moods: Vec<Mood>,
    ends: Vec<End>,
}

/// What came of a transaction, in the server's own books.
#[derive(Debug, Default)]
struct Books {
    copies: Vec<usize>,
    /// Whoever was told yes, or nothing, is not to be offered again.
    is_settled: Vec<bool>,
    /// In the order in which each was offered for the first time.
    first_offers: Vec<usize>,
    is_unknown: bool,
    is_accepted: bool,
    is_failed: bool,
    /// What one transaction may have from here on, as the server has shown.
    most: Option<usize>,
}

fn reply(code: u16, text: &str) -> Reply {
    Reply::from_wire(code, format!("{code} {text}\r\n").as_bytes())
}

fn failure(kind: FailureKind, stage: SendStage, said: Option<Reply>, recipients: Vec<RecipientOutcome>) -> SendError {
    let classification =
        Classification { kind, stage, retry_allowed: false, discard_connection: true, reason: "the server's mood" };
    SendError::new(classification, "a failure").with_attempts(1).with_reply(said).with_recipients(recipients)
}

fn place(address: &Address) -> usize {
    address.user().strip_prefix('r').unwrap().parse().unwrap()
}

impl Server {
    /// One transaction: what the sender sees of it, and how many it was for.
    fn transact(&self, to: &[Address], number: usize, books: &mut Books) -> (Result<Receipt, SendError>, usize) {
        let end = self.ends.get(number).copied().unwrap_or(End::Accepted);
        if matches!(end, End::NoConnection) {
            books.is_failed = true;
            return (Err(failure(FailureKind::HostUnavailable, SendStage::Connected, None, Vec::new())), 0);
        }
        let to = &to[..to.len().min(self.announced)];
        let mut answers = Vec::new();
        let mut taken = Vec::new();
        for address in to {
            let place = place(address);
            assert!(!books.is_settled[place], "r{place} is offered again");
            if !books.first_offers.contains(&place) {
                books.first_offers.push(place);
            }
            let (status, reply) = match self.moods[place] {
                _ if taken.len() == self.hidden => {
                    books.most = Some(books.most.map_or(answers.len(), |most| most.min(answers.len())));
                    (RecipientStatus::RefusedForNow, reply(452, "4.5.3 too many"))
                }
                Mood::Takes => {
                    taken.push(place);
                    (RecipientStatus::Accepted, reply(250, "2.1.5 ok"))
                }
                Mood::Later => (RecipientStatus::RefusedForNow, reply(450, "4.2.1 later")),
                Mood::Never => (RecipientStatus::Refused, reply(550, "5.1.1 nobody")),
            };
            answers.push(RecipientOutcome { address: address.clone(), status, reply: Some(reply) });
        }
        let mut store = |is_stored| {
            for &place in &taken {
                books.copies[place] += usize::from(is_stored);
                books.is_settled[place] = true;
            }
        };
        let outcome = match end {
            _ if taken.is_empty() => {
                let is_final = answers.iter().any(|one| one.status == RecipientStatus::Refused);
                let (kind, code) = match is_final {
                    true => (FailureKind::PermanentFailure, 550),
                    false => (FailureKind::RetryableTemporaryFailure, 450),
                };
                Err(failure(kind, SendStage::EnvelopeStarted, Some(reply(code, "no")), answers))
            }
            End::Accepted | End::NoConnection => {
                store(true);
                books.is_accepted = true;
                let accepted = Accepted { reply: reply(250, "2.0.0 queued"), recipients: answers };
                Ok(Receipt::of(accepted, Endpoint::new("host", 25), 1, std::time::Duration::ZERO))
            }
            End::Refused(code) => {
                books.is_failed = true;
                let kind = match code {
                    500.. => FailureKind::PermanentFailure,
                    _ => FailureKind::RetryableTemporaryFailure,
                };
                Err(failure(kind, SendStage::DataCompleted, Some(reply(code, "no")), answers))
            }
            End::Cut(tenths) => {
                books.is_failed = true;
                answers.truncate(answers.len() * tenths / 10);
                // If each of those was refused, it is another failure than that of each being refused.
                Err(failure(FailureKind::RetryableBeforeSend, SendStage::EnvelopeStarted, None, answers))
            }
            End::Unknown { is_stored } => {
                store(is_stored);
                books.is_unknown = true;
                // To a single recipient it may have left in one write.
                if to.len() == 1 && number % 2 == 0 {
                    answers.clear();
                }
                Err(failure(FailureKind::UnknownAfterData, SendStage::DataCompleted, None, answers))
            }
        };
        (outcome, to.len())
    }
}

fn server() -> impl Strategy<Value = Server> {
    let mood = prop_oneof![6 => Just(Mood::Takes), 1 => Just(Mood::Later), 1 => Just(Mood::Never)];
    let end = prop_oneof![
        12 => Just(End::Accepted),
        1 => Just(End::Refused(451)),
        1 => Just(End::Refused(554)),
        1 => (0usize..10).prop_map(End::Cut),
        1 => any::<bool>().prop_map(|is_stored| End::Unknown { is_stored }),
        1 => Just(End::NoConnection),
    ];
    let limit = || prop_oneof![1 => Just(usize::MAX), 3 => 1usize..12];
    (limit(), limit(), prop::collection::vec(mood, 1..40), prop::collection::vec(end, 0..12))
        .prop_map(|(announced, hidden, moods, ends)| Server { announced, hidden, moods, ends })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_list_in_parts_loses_nobody_and_tells_the_truth(server in server()) {
        let count = server.moods.len();
        let to: Vec<Address> = (0..count).map(|place| format!("r{place}@example.net").parse().unwrap()).collect();
        let envelope = Envelope::new(None, to).unwrap();
        let mut books = Books { copies: vec![0; count], is_settled: vec![false; count], ..Books::default() };
        let mut parts = Parts::new(&envelope, RecipientPolicy::AcceptPartial);
        let mut transactions = 0;
        while let Some(to) = parts.next() {
            prop_assert!(!parts.is_over() && !books.is_unknown && !books.is_failed, "something follows the end");
            prop_assert!(!to.is_empty() && to.is_sorted_by_key(place));
            prop_assert!(to.len() <= books.most.unwrap_or(usize::MAX), "{} at once", to.len());
            let (outcome, offered_to) = server.transact(&to, transactions, &mut books);
            match outcome {
                Ok(receipt) => parts.accepted(receipt),
                Err(error) => parts.failed(error, offered_to),
            }
            transactions += 1;
            prop_assert!(transactions <= 2 * count + 1, "it comes to an end");
        }
        prop_assert!(parts.is_over());
        prop_assert!(books.first_offers.iter().copied().eq(0..books.first_offers.len()), "in the order of the envelope");

        let outcome = parts.finish();
        prop_assert_eq!(outcome.is_ok(), books.is_accepted && !books.is_unknown);
        let is_unknown = outcome.as_ref().is_err_and(|error| error.kind() == FailureKind::UnknownAfterData);
        prop_assert_eq!(is_unknown, books.is_unknown);
        let told = match &outcome {
            Ok(receipt) => {
                prop_assert_eq!(receipt.stopped_by().is_some(), books.is_failed);
                receipt.recipients()
            }
            Err(error) => error.recipients(),
        };
        if told.is_empty() {
            // Not where anybody was answered, and nothing can be wrong about it.
            prop_assert!(outcome.is_err() && !books.is_unknown && books.copies.iter().all(|&copies| copies == 0));
            return Ok(());
        }
        prop_assert!(told.iter().map(|one| place(&one.address)).eq(0..count), "each of them, in order");
        for (place, one) in told.iter().enumerate() {
            let copies = books.copies[place];
            let is_true = match one.status {
                RecipientStatus::Accepted => copies == 1,
                RecipientStatus::Unknown => copies <= 1 && books.is_unknown,
                RecipientStatus::Refused | RecipientStatus::RefusedForNow => copies == 0 && one.reply.is_some(),
                // Who was not reached, or not asked to the end: only where the sending ended early.
                RecipientStatus::NotSent => copies == 0 && (books.is_failed || books.is_unknown),
            };
            prop_assert!(is_true, "{one:?}, {copies} copies");
        }
    }
}
