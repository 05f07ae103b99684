//! What a person asks and decides.

use std::collections::BTreeSet;

use postgres_sync::Client;

use crate::database::Error;
use crate::{outbox, session};

const RECOVER: &str = include_str!("recover.sql");

pub fn status(client: &mut Client) -> Result<(), Error> {
    for (state, count) in outbox::counts(client)? {
        println!("{state:<8} {count:>10}");
    }
    let row = client.query_one(
        "SELECT (SELECT count(*) FROM outbox_live_worker),
                (SELECT coalesce(extract(epoch FROM now() - min(not_before)), 0)::bigint FROM outbox
                 WHERE state = 'queued' AND not_before <= now())",
        &[],
    )?;
    let (workers, waited): (i64, i64) = (row.get(0), row.get(1));
    println!("{workers} sessions of workers live; the oldest mail that is due has waited {waited} s.");
    Ok(())
}

/// Lists what may or may not have been sent, so many of it at most.
pub fn recover(client: &mut Client, most: usize) -> Result<(), Error> {
    session::mark_abandoned(client)?;
    for row in client.query(RECOVER, &[])?.iter().take(most) {
        let (id, message_id): (i64, String) = (row.get("id"), row.get("message_id"));
        let (from, to): (Option<String>, Vec<String>) = (row.get("mail_from"), row.get("rcpt_to"));
        let (attempts, claimed_at): (i32, String) = (row.get("attempts"), row.get("claimed_at"));
        let (machine, process): (String, i64) = (row.get("machine"), row.get("process"));
        let (relay, reply): (Option<String>, Option<String>) = (row.get("relay"), row.get("reply"));
        let (reason, wait): (String, i64) = (row.get("reason"), row.get("seconds_until_resend"));
        let trace: Option<String> = row.get("trace");
        println!("{id}  {message_id}");
        println!("    from <{}> to <{}>", from.unwrap_or_default(), to.join(">, <"));
        println!("    attempt {attempts}, begun {claimed_at} by process {process} on {machine}");
        println!("    {reason}; relay: {}", relay.as_deref().unwrap_or("not known"));
        if let Some(reply) = reply {
            println!("    it said: {reply}");
        }
        for line in trace.iter().flat_map(|trace| trace.lines()) {
            println!("    | {line}");
        }
        if wait > 0 {
            println!("    its worker may live on somewhere: resend after {wait} s");
        }
    }
    Ok(())
}

/// The ids that [`recover`] lists.
pub fn unknown(client: &mut Client) -> Result<BTreeSet<String>, Error> {
    Ok(client.query(RECOVER, &[])?.iter().map(|row| row.get("message_id")).collect())
}

/// Puts it back into the queue, under the same Message-ID.
pub fn resend(client: &mut Client, id: i64) -> Result<(), Error> {
    session::mark_abandoned(client)?;
    let changed = client.execute(
        "UPDATE outbox
         SET state = 'queued', worker = NULL, settled_at = NULL, not_before = now(),
             expires_at = greatest(expires_at, now() + interval '5 days'), reason = 'resent by hand'
         WHERE id = $1 AND state IN ('unknown', 'refused') AND over_at <= now()",
        &[&id],
    )?;
    if changed == 1 {
        println!("{id} is queued again.");
        return Ok(());
    }
    let rows = client
        .query("SELECT state, ceil(extract(epoch FROM over_at - now()))::bigint FROM outbox WHERE id = $1", &[&id])?;
    let Some(row) = rows.first() else { return Err(format!("there is no mail {id}").into()) };
    let (state, wait): (String, Option<i64>) = (row.get(0), row.get(1));
    Err(match (state.as_str(), wait) {
        ("unknown", Some(wait)) => {
            format!("mail {id} may still be on its way, from a worker that was cut off: try again in {wait} s")
        }
        _ => format!("mail {id} is {state}: there is nothing to decide about it"),
    }
    .into())
}

/// Writes down what a person found out.
pub fn settle(client: &mut Client, id: i64, state: &str) -> Result<(), Error> {
    if !matches!(state, "sent" | "refused") {
        return Err("a mail is settled as sent or as refused".into());
    }
    session::mark_abandoned(client)?;
    let changed = client.execute(
        "UPDATE outbox SET state = $2, settled_at = now(), reason = concat_ws('; ', reason, 'settled by hand')
         WHERE id = $1 AND state = 'unknown'",
        &[&id, &state],
    )?;
    if changed == 0 {
        return Err(format!("mail {id} is not unknown: there is nothing to decide about it").into());
    }
    println!("{id} is settled as {state}.");
    Ok(())
}
