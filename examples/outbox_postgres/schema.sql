-- The outbox: one row for each mail, written in the same transaction as whatever the mail is about.
-- Can be run again and again.

CREATE TABLE IF NOT EXISTS outbox_worker (
    -- Never used twice, so that it names one session for ever.
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- For people: whose log to read.
    machine text NOT NULL,
    process bigint NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT now(),

    -- Made when the row is written and the same in every attempt: by it a person finds the mail in a relay's log, and a receiver knows a
    -- copy for a copy.
    message_id text NOT NULL UNIQUE,
    -- NULL is the empty reverse path of a notification.
    mail_from text,
    rcpt_to text[] NOT NULL CHECK (cardinality(rcpt_to) > 0),
    content bytea NOT NULL,

    -- queued    nobody has it; due from not_before on
    -- sending   `worker` has it, and what came of it is known to that worker alone
    -- sent      a server has accepted it
    -- refused   no server has it, and none will: `reply` or `reason` says why
    -- unknown   a server may have it; never sent again unless a person says so
    state text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'sending', 'sent', 'refused', 'unknown')),
    not_before timestamptz NOT NULL DEFAULT now(),
    -- RFC 5321 §4.5.4.1: to give up takes at least four or five days.
    expires_at timestamptz NOT NULL DEFAULT now() + interval '5 days',
    attempts integer NOT NULL DEFAULT 0,

    -- Who had it last. Nobody has what is queued, so a worker that comes back late finds that the row is no longer its own.
    worker integer REFERENCES outbox_worker,
    claimed_at timestamptz,
    -- From then on the worker is surely not sending it any more, even if it lives on and cannot reach this database.
    over_at timestamptz,

    settled_at timestamptz,
    relay text,
    reply text,
    reason text,
    -- What the last attempt did, step by step; holds no address and no secret.
    trace text,

    CHECK ((state = 'queued') = (worker IS NULL)),
    CHECK (state = 'queued' OR (claimed_at IS NOT NULL AND over_at IS NOT NULL)),
    CHECK ((state IN ('sent', 'refused', 'unknown')) = (settled_at IS NOT NULL))
);

-- Each holds only the few rows that its query is about, however many were sent before.
CREATE INDEX IF NOT EXISTS outbox_queued ON outbox (not_before, id) WHERE state = 'queued';
CREATE INDEX IF NOT EXISTS outbox_sending ON outbox (worker) WHERE state = 'sending';
CREATE INDEX IF NOT EXISTS outbox_unknown ON outbox (id) WHERE state = 'unknown';

-- Workers whose session lives. Each holds an advisory lock on its id from before its first claim to the end of its session, and
-- PostgreSQL alone drops it: when the process ends, is killed, or its machine stays silent for too long. No clock has a part in it.
-- The first key keeps these locks apart from those of other programs (claim.rs has the same number).
CREATE OR REPLACE VIEW outbox_live_worker AS
SELECT objid::integer AS id
FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
WHERE datname = current_database() AND locktype = 'advisory' AND classid = 1869968482 AND objsubid = 2 AND granted;
