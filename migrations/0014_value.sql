-- The audit weighs what is paid: what a task is worth, what a sample is drawn against, when held credit matures, and
-- who pays for it. docs/ledger.md explains the rules.

-- Accounts of those who pay for tasks, and the one between them and the workers, may not become negative either: no
-- credit for inference exists that nobody has paid for.
ALTER TABLE accounts DROP CONSTRAINT accounts_check;
ALTER TABLE accounts ADD CONSTRAINT accounts_that_owe_nothing CHECK (never_negative =
    (starts_with(name, 'worker:') OR starts_with(name, 'payer:') OR starts_with(name, 'paid:')));

-- What a task costs: at most, until it has finished (`price_msat`), and the prices that this follows from.
ALTER TABLE tasks
    ADD COLUMN input_tokens            bigint NOT NULL DEFAULT 0 CHECK (input_tokens BETWEEN 0 AND 4294967295),
    ADD COLUMN input_msat_per_million  bigint NOT NULL DEFAULT 0 CHECK (input_msat_per_million >= 0),
    ADD COLUMN output_msat_per_million bigint NOT NULL DEFAULT 0 CHECK (output_msat_per_million >= 0),
    -- What is set aside on its payer's account for it: a pending transfer, which ends with the task.
    ADD COLUMN reserve                 bytea UNIQUE REFERENCES transfers (id),
    ADD CONSTRAINT priced_is_paid CHECK (reserve IS NOT NULL OR price_msat = 0),
    -- Its agent has cancelled it while it ran: until then its worker may deliver what was streamed.
    ADD COLUMN stops_at                bigint;
CREATE INDEX tasks_stopping ON tasks (stops_at) WHERE state = 'assigned' AND stops_at IS NOT NULL;

-- However a task ends without credit, what was set aside for it is given back.
CREATE FUNCTION release_reserve() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO transfers (id, kind, ends, debit, credit, amount, reason)
    SELECT substr(sha256('task-released' || NEW.id), 1, 16), 'void', t.id, t.debit, t.credit, t.amount, 'task released'
      FROM transfers t WHERE t.id = NEW.reserve;
    RETURN NULL;
END $$;
CREATE TRIGGER tasks_release_reserve AFTER UPDATE OF state ON tasks FOR EACH ROW
    WHEN (OLD.state IN ('queued', 'assigned', 'finished') AND NEW.state IN ('failed', 'cancelled', 'expired')
          AND NEW.reserve IS NOT NULL)
    EXECUTE FUNCTION release_reserve();

-- What the operator's budget gave to its account, by day (counted from 1970): once a day.
CREATE TABLE subsidy_days (
    day          bigint PRIMARY KEY,
    granted_msat bigint NOT NULL CHECK (granted_msat >= 0)
);
CREATE TRIGGER subsidy_days_are_facts BEFORE UPDATE OR DELETE ON subsidy_days
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER subsidy_days_are_not_truncated BEFORE TRUNCATE ON subsidy_days
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What the sample of a batch is drawn against: the least that was held for its worker at any claim of it; NULL until
-- the first. While such a batch is open, nothing of its worker matures.
ALTER TABLE batches ADD COLUMN stake_msat bigint CHECK (stake_msat >= 0);
CREATE INDEX batches_under_audit ON batches (worker) WHERE state = 'open' AND stake_msat IS NOT NULL;

-- A worker's record no longer decides how much is replayed: what is held for it does.
ALTER TABLE trust DROP COLUMN transcripts;
ALTER TABLE trust RENAME TO audit_records;

-- The held credit that has matured, of one worker or of all (NULL): in the order in which it was earned, after the
-- least time and once later credit of at least the same worth is held; in any case after the longest time. Nothing of
-- a worker whose batch is under audit.
DROP FUNCTION is_mature(held_credits, bigint, bigint, double precision, double precision);
CREATE FUNCTION matured_credits(of_worker bytea, seconds double precision, seconds_max double precision)
RETURNS TABLE (root bytea, worker bytea, account text, batch_number bigint) LANGUAGE sql STABLE AS $$
    SELECT d.root, d.worker, d.account, d.batch_number
      FROM (SELECT h.*, bool_and(h.is_over) OVER (PARTITION BY h.worker ORDER BY h.batch_number) AS is_due
              FROM (SELECT c.*, c.held_at <= now() - make_interval(secs => seconds_max)
                        OR (c.held_at <= now() - make_interval(secs => seconds)
                            AND COALESCE(sum(c.amount_msat) OVER later, 0) >= c.amount_msat) AS is_over
                      FROM held_credits c
                     WHERE c.state = 'held' AND (of_worker IS NULL OR c.worker = of_worker)
                    WINDOW later AS (PARTITION BY c.worker ORDER BY c.batch_number
                                     ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING)) h) d
     WHERE d.is_due
       AND NOT EXISTS (SELECT 1 FROM batches b
                        WHERE b.worker = d.worker AND b.state = 'open' AND b.stake_msat IS NOT NULL
                          AND b.expires_at > extract(epoch FROM now()))
$$;
