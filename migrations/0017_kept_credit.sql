-- A worker may leave credit held that could mature, and is sampled less for it: docs/audit.md, "Leaving credit held".

ALTER TABLE audit_records
    -- How much of its credit shall stay held, and when it last said so or settled a batch.
    ADD COLUMN kept_msat bigint NOT NULL DEFAULT 0 CHECK (kept_msat BETWEEN 0 AND 100000000000),
    ADD COLUMN kept_at   timestamptz NOT NULL DEFAULT now();

-- The held credit that has matured, of one worker or of all (NULL): in the order in which it was earned, after the
-- least time and once later credit of at least the same worth is held; in any case after the longest time. Nothing of
-- a worker whose batch is under audit, or suspect, however long ago it expired. And nothing without which less would be held than its worker wants to leave there,
-- however old it is; but a worker that was not heard of for the longest time is gone, and wants nothing any more.
CREATE OR REPLACE FUNCTION matured_credits(of_worker bytea, seconds double precision, seconds_max double precision)
RETURNS TABLE (root bytea, worker bytea, account text, batch_number bigint) LANGUAGE sql STABLE AS $$
    SELECT d.root, d.worker, d.account, d.batch_number
      FROM (SELECT h.*, bool_and(h.held_later >= h.kept_msat
                                 AND (h.held_at <= now() - make_interval(secs => seconds_max)
                                      OR (h.held_at <= now() - make_interval(secs => seconds)
                                          AND h.held_later >= h.amount_msat)))
                            OVER (PARTITION BY h.worker ORDER BY h.batch_number) AS is_due
              FROM (SELECT c.*, COALESCE(sum(c.amount_msat) OVER later, 0) AS held_later,
                           COALESCE(k.kept_msat, 0) AS kept_msat
                      FROM held_credits c
                      LEFT JOIN audit_records k ON k.worker = c.worker
                            AND k.kept_at > now() - make_interval(secs => seconds_max)
                     WHERE c.state = 'held' AND (of_worker IS NULL OR c.worker = of_worker)
                    WINDOW later AS (PARTITION BY c.worker ORDER BY c.batch_number
                                     ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING)) h) d
     WHERE d.is_due
       AND NOT EXISTS (SELECT 1 FROM batches b
                        WHERE b.worker = d.worker AND b.state = 'open' AND b.stake_msat IS NOT NULL
                          AND (b.expires_at > extract(epoch FROM now())
                               OR EXISTS (SELECT 1 FROM findings f WHERE f.root = b.root)))
$$;
