//! Writing mail into the outbox.

use lettre::Message;
use lettre::message::header::MessageId;
use postgres_sync::{Client, Transaction};

use crate::database::Error;

const SCHEMA: &str = include_str!("schema.sql");
/// Of one transaction.
const BATCH: usize = 1_000;

/// Makes the tables that are not there yet.
pub fn init(client: &mut Client) -> Result<(), Error> {
    client.batch_execute(SCHEMA)?;
    Ok(())
}

/// Writes a mail in the caller's transaction. Whatever the mail is about (an order, a new password) is written in the same one: then
/// there is no mail about what was rolled back, and nothing is committed whose mail is lost.
pub fn put(transaction: &mut Transaction<'_>, message: &Message) -> Result<(), Error> {
    let id = message.headers().get::<MessageId>().ok_or("a mail without Message-ID cannot be found again")?;
    let envelope = message.envelope();
    let from = envelope.from().map(ToString::to_string);
    let to: Vec<String> = envelope.to().iter().map(ToString::to_string).collect();
    let content = message.formatted();
    transaction.execute(
        "INSERT INTO outbox (message_id, mail_from, rcpt_to, content) VALUES ($1, $2, $3, $4)",
        &[&AsRef::<str>::as_ref(&id), &from, &to, &content],
    )?;
    Ok(())
}

/// Writes so many mails; every hundredth goes to an address that the demo's relay refuses.
pub fn enqueue_some(client: &mut Client, count: usize) -> Result<(), Error> {
    let from = std::env::var("SMTP_FROM").unwrap_or_else(|_| "shop@example.com".to_owned());
    let to = std::env::var("SMTP_TO").ok();
    let numbers: Vec<usize> = (1..=count).collect();
    for batch in numbers.chunks(BATCH) {
        let mut transaction = client.transaction()?;
        for number in batch {
            let name = if number % 100 == 0 { "nobody" } else { "customer" };
            let to = to.clone().unwrap_or_else(|| format!("{name}-{number}@example.com"));
            put(&mut transaction, &mail(&from, &to, *number)?)?;
        }
        transaction.commit()?;
    }
    println!("{count} mails are in the outbox.");
    Ok(())
}

fn mail(from: &str, to: &str, number: usize) -> Result<Message, Error> {
    let id = format!("<{:032x}@example.com>", fastrand::u128(..));
    Ok(Message::builder()
        .message_id(Some(id))
        .from(from.parse()?)
        .to(to.parse()?)
        .subject(format!("Your order {number}"))
        .body(format!("Thank you for order {number}.\n"))?)
}

/// Whether there is not a row in it.
pub fn is_empty(client: &mut Client) -> Result<bool, Error> {
    Ok(client.query_one("SELECT NOT EXISTS (SELECT FROM outbox)", &[])?.get(0))
}

/// How many rows are in each state.
pub fn counts(client: &mut Client) -> Result<Vec<(String, i64)>, Error> {
    let rows = client.query("SELECT state, count(*) FROM outbox GROUP BY state ORDER BY state", &[])?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
