//! A worker's session: its name, the lock that says it lives, and the three things it does to a row.

use std::time::Duration;

use postgres_sync::Client;

use crate::database::Error;
use crate::outcome::Outcome;
use crate::settings::Settings;

/// The first key of the advisory locks; schema.sql has the same number.
const LOCK_CLASS: i32 = 1_869_968_482;

/// One session under one name. Every claim is written in the session that holds the lock of the name it is made under. So when that lock
/// is free, the last claim of that name has been made.
pub struct Session {
    client: Client,
    worker: i32,
}

/// A row that this worker has.
#[derive(Debug)]
pub struct Claim {
    pub id: i64,
    pub message_id: String,
    pub mail_from: Option<String>,
    pub rcpt_to: Vec<String>,
    pub content: Vec<u8>,
    /// Counts this one.
    pub attempts: i32,
    worker: i32,
}

impl Session {
    pub fn open(settings: &Settings) -> Result<Self, Error> {
        let mut client = settings.connect()?;
        let process = i64::from(std::process::id());
        let row = client.query_one(
            "INSERT INTO outbox_worker (machine, process) VALUES ($1, $2) RETURNING id",
            &[&machine(), &process],
        )?;
        let worker: i32 = row.get(0);
        let is_locked: bool = client.query_one("SELECT pg_try_advisory_lock($1, $2)", &[&LOCK_CLASS, &worker])?.get(0);
        if !is_locked {
            return Err(format!("the lock of worker {worker} is taken, and nobody else can know that name").into());
        }
        Ok(Self { client, worker })
    }

    pub const fn worker(&self) -> i32 {
        self.worker
    }

    /// The row that has been due for longest, if there is one. It is committed as `sending` when this returns.
    ///
    /// The caller's own clock for `lease` must have started before this call: then it runs out before `over_at` comes.
    pub fn claim(&mut self, lease: Duration) -> Result<Option<Claim>, Error> {
        // `=` and not `IN`: the inner query runs once, so one row is locked and one row is claimed.
        let rows = self.client.query(
            "UPDATE outbox
             SET state = 'sending', worker = $1, attempts = attempts + 1, claimed_at = now(),
                 over_at = now() + $2 * interval '1 second', relay = NULL, reply = NULL, reason = NULL, trace = NULL
             WHERE id = (
                 SELECT id FROM outbox WHERE state = 'queued' AND not_before <= now()
                 ORDER BY not_before, id LIMIT 1 FOR UPDATE SKIP LOCKED
             )
             RETURNING id, message_id, mail_from, rcpt_to, content, attempts",
            &[&self.worker, &lease.as_secs_f64()],
        )?;
        Ok(rows.first().map(|row| Claim {
            id: row.get(0),
            message_id: row.get(1),
            mail_from: row.get(2),
            rcpt_to: row.get(3),
            content: row.get(4),
            attempts: row.get(5),
            worker: self.worker,
        }))
    }

    /// Writes down what came of a claim. `false`: the row is not this claim's any more, and stays as it is.
    ///
    /// A row that was marked `unknown` because its worker was believed gone is still this claim's: the worker is back, and it knows.
    /// Not so once a person has decided about it, or another worker has it: no two claims share worker and count of attempts.
    pub fn settle(&mut self, claim: &Claim, outcome: &Outcome) -> Result<bool, Error> {
        let (state, pause) = outcome.state();
        let changed = self.client.execute(
            "WITH verdict AS (
                 SELECT CASE WHEN $4 = 'queued' AND now() + pause > expires_at THEN 'refused' ELSE $4 END AS state, now() + pause AS due
                 FROM outbox, (SELECT $5::float8 * (0.9 + 0.2 * random()) * interval '1 second' AS pause) AS jittered
                 WHERE id = $1
             )
             UPDATE outbox
             SET state = verdict.state,
                 not_before = CASE verdict.state WHEN 'queued' THEN verdict.due ELSE not_before END,
                 worker = CASE verdict.state WHEN 'queued' THEN NULL ELSE worker END,
                 settled_at = CASE verdict.state WHEN 'queued' THEN NULL ELSE now() END,
                 over_at = now(), relay = $6, reply = $7, reason = $8, trace = $9
             FROM verdict
             WHERE id = $1 AND worker = $2 AND attempts = $3 AND outbox.state IN ('sending', 'unknown')",
            &[
                &claim.id,
                &claim.worker,
                &claim.attempts,
                &state,
                &pause.as_secs_f64(),
                &outcome.relay(),
                &outcome.reply(),
                &outcome.reason(),
                &outcome.trace(),
            ],
        )?;
        Ok(changed == 1)
    }

    /// Puts back what was claimed under a name of this lane's own that is no more. The lane sends what it was told of, and has settled
    /// that: whatever else stands under the name is a claim whose answer never arrived, so not a byte of it was sent.
    pub fn give_back(&mut self, worker: i32) -> Result<u64, Error> {
        let count = self.client.execute(
            "UPDATE outbox SET state = 'queued', worker = NULL, settled_at = NULL, reason = NULL
             WHERE worker = $1 AND (state = 'sending' OR (state = 'unknown' AND relay IS NULL AND reason = $2))",
            &[&worker, &GONE],
        )?;
        Ok(count)
    }

    /// Whether nothing waits to be sent, now or later.
    pub fn is_drained(&mut self) -> Result<bool, Error> {
        Ok(self.client.query_one("SELECT NOT EXISTS (SELECT FROM outbox WHERE state = 'queued')", &[])?.get(0))
    }
}

const GONE: &str = "its worker was gone before it had said what came of it";

/// Marks as `unknown` what is `sending` under a name that is gone. Safe to call from anywhere, at any time, by any number.
///
/// First the names, then their rows: a row that changes hands in between stands under another name by then, and is left alone. A name
/// whose lock is free in a look taken after the row was seen is gone for ever, because it had the lock before it claimed the row and no
/// name is given out twice.
pub fn mark_abandoned(client: &mut Client) -> Result<u64, Error> {
    let count = client.execute(
        "WITH gone AS MATERIALIZED (
             SELECT DISTINCT worker FROM outbox WHERE state = 'sending'
             EXCEPT SELECT id FROM outbox_live_worker
         )
         UPDATE outbox SET state = 'unknown', settled_at = now(), reason = $1
         FROM gone WHERE outbox.worker = gone.worker AND state = 'sending'",
        &[&GONE],
    )?;
    Ok(count)
}

fn machine() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .map_or_else(|| "unnamed".to_owned(), |name| name.trim().to_owned())
}
