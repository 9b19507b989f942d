-- Declared jobs share their transactions: one template differs from the next by a few of them, and a
-- whole list has megabytes. Tokens, of both modes of the Job Declaration Protocol, are spent here.

-- Tokens live for minutes, and the pool and the declarator are released together.
DELETE FROM declared_jobs;
ALTER TABLE declared_jobs
    DROP COLUMN transactions,
    DROP COLUMN used,
    ADD COLUMN wtxids    bytea[] NOT NULL,
    -- The tip that it was checked on.
    ADD COLUMN prev_hash bytea   NOT NULL CHECK (length(prev_hash) = 32),
    ADD COLUMN nbits     bigint  NOT NULL,
    ADD CONSTRAINT each_transaction_has_both_ids CHECK (cardinality(txids) = cardinality(wtxids));

CREATE TABLE declared_transactions (
    wtxid       bytea  PRIMARY KEY CHECK (length(wtxid) = 32),
    -- With its witness, as it stands in a block.
    raw         bytea  NOT NULL,
    declared_at bigint NOT NULL
);
CREATE INDEX declared_transactions_age ON declared_transactions (declared_at);

-- A token is good once, also across restarts.
CREATE TABLE spent_job_tokens (
    id         bytea  PRIMARY KEY CHECK (length(id) = 16),
    expires_at bigint NOT NULL
);
CREATE INDEX spent_job_tokens_expiry ON spent_job_tokens (expires_at);
