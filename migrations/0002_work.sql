-- Tasks, the batches that commit to them, and the shares that prove work.

CREATE TABLE tasks (
    id            bytea  PRIMARY KEY CHECK (length(id) = 32),
    state         text   NOT NULL CHECK (state IN
        ('queued', 'assigned', 'finished', 'settled', 'failed', 'cancelled', 'expired')),
    model_id      bytea  NOT NULL CHECK (length(model_id) = 32),
    -- Wiped once the task has ended: nobody needs it any more.
    prompt        bytea,
    -- Its stop sequences, encoded; as private as the prompt.
    stop          bytea,
    -- What tells a repeated request from another one under the same id.
    request_hash  bytea  NOT NULL CHECK (length(request_hash) = 32),
    salt          bytea  NOT NULL CHECK (length(salt) = 32),
    sampling      bytea  NOT NULL CHECK (length(sampling) = 16),
    seed          bytea  NOT NULL CHECK (length(seed) = 32),
    price_msat    bigint NOT NULL CHECK (price_msat >= 0),
    worker        bytea  CHECK (length(worker) = 32),
    transcript    bytea,
    output_tokens bytea,
    error_code    text,
    created_at    bigint NOT NULL,
    expires_at    bigint NOT NULL,
    CONSTRAINT prompt_is_wiped_at_the_end
        CHECK ((prompt IS NULL AND stop IS NULL) OR state IN ('queued', 'assigned', 'finished')),
    CONSTRAINT assigned_has_a_worker
        CHECK (worker IS NOT NULL OR state NOT IN ('assigned', 'finished', 'settled')),
    CONSTRAINT finished_has_a_transcript
        CHECK ((transcript IS NOT NULL AND output_tokens IS NOT NULL)
               OR state NOT IN ('finished', 'settled'))
);
CREATE INDEX tasks_open ON tasks (expires_at) WHERE state IN ('queued', 'assigned', 'finished');

CREATE TABLE batches (
    root     bytea PRIMARY KEY CHECK (length(root) = 32),
    worker   bytea NOT NULL CHECK (length(worker) = 32),
    state    text  NOT NULL CHECK (state IN ('open', 'settled', 'failed')),
    -- In the order of the leaves.
    task_ids bytea[] NOT NULL CHECK (cardinality(task_ids) BETWEEN 1 AND 64),
    code     text,
    -- When it was settled or failed: trust counts from the last failure.
    ended_at timestamptz,
    CHECK ((ended_at IS NULL) = (state = 'open'))
);
CREATE INDEX batches_of_worker ON batches (worker, ended_at);

CREATE TABLE shares (
    -- One proof is one credit: across reconnects, restarts and reorganisations.
    header_hash bytea PRIMARY KEY CHECK (length(header_hash) = 32),
    account     text   NOT NULL,
    kind        text   NOT NULL CHECK (kind IN ('hash', 'inference')),
    -- Expected hashes, an integer that does not fit a bigint on a hard day.
    work        numeric(39, 0) NOT NULL CHECK (work >= 0),
    credit_msat bigint NOT NULL CHECK (credit_msat >= 0),
    is_block    boolean NOT NULL,
    -- A root is spent once.
    batch_root  bytea UNIQUE REFERENCES batches (root),
    created_at  timestamptz NOT NULL DEFAULT now(),
    CHECK ((batch_root IS NOT NULL) = (kind = 'inference'))
);
CREATE TRIGGER shares_are_facts BEFORE UPDATE OR DELETE ON shares
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER shares_are_not_truncated BEFORE TRUNCATE ON shares
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TABLE receipts (
    task_id bytea PRIMARY KEY REFERENCES tasks (id),
    receipt text  NOT NULL
);

CREATE TABLE declared_jobs (
    token           bytea  PRIMARY KEY CHECK (length(token) BETWEEN 1 AND 64),
    identity        text   NOT NULL,
    batch_root      bytea  REFERENCES batches (root),
    coinbase_prefix bytea  NOT NULL,
    coinbase_suffix bytea  NOT NULL,
    version         bigint NOT NULL,
    txids           bytea[] NOT NULL,
    transactions    bytea[] NOT NULL,
    pool_value_sat  bigint NOT NULL CHECK (pool_value_sat >= 0),
    used            boolean NOT NULL DEFAULT false,
    expires_at      bigint NOT NULL
);
CREATE INDEX declared_jobs_expiry ON declared_jobs (expires_at);

CREATE TABLE blocks (
    header_hash bytea PRIMARY KEY CHECK (length(header_hash) = 32),
    height      bigint NOT NULL,
    account     text   NOT NULL,
    result      text   NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);

-- The audit's hash chain: one row. The seed is the pool's secret until its steps are revealed.
CREATE TABLE beacon (
    only_one  boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    seed      bytea  NOT NULL CHECK (length(seed) = 32),
    length    bigint NOT NULL CHECK (length > 0),
    next_step bigint NOT NULL CHECK (next_step >= 0)
);

CREATE TABLE audits (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    header_hash bytea  NOT NULL,
    root        bytea  NOT NULL,
    step        bigint NOT NULL UNIQUE,
    sample      integer[] NOT NULL,
    verdict     text   NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE TRIGGER audits_are_facts BEFORE UPDATE OR DELETE ON audits
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audits_are_not_truncated BEFORE TRUNCATE ON audits
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
