-- The mails that a server may have or may not have, and what a person needs to decide: look for message_id in the log of the relay, or
-- ask the recipient; then `settle ID sent`, `settle ID refused`, or `resend ID`.
--
-- Rows of workers that are gone are here as well, whether or not anybody has marked them by now.
SELECT
    outbox.id,
    message_id,
    mail_from,
    rcpt_to,
    attempts,
    claimed_at::text,
    machine,
    process,
    relay,
    coalesce(reason, 'its worker is gone') AS reason,
    reply,
    trace,
    greatest(0, ceil(extract(epoch FROM over_at - now())))::bigint AS seconds_until_resend
FROM outbox JOIN outbox_worker ON outbox_worker.id = worker
WHERE state = 'unknown' OR (state = 'sending' AND worker NOT IN (SELECT id FROM outbox_live_worker))
ORDER BY outbox.id;
