-- The audit's consequences: trust per worker key, inference credit that is held as collateral, and a
-- record of each failed audit. docs/ledger.md explains the rules.

CREATE TABLE trust (
    worker      bytea  PRIMARY KEY CHECK (length(worker) = 32),
    -- Transcripts of settled batches since the last proven mismatch: the sampling rate follows them.
    transcripts bigint NOT NULL DEFAULT 0 CHECK (transcripts >= 0),
    -- Batches that were ever settled: what the window of held credit is counted in.
    batches     bigint NOT NULL DEFAULT 0 CHECK (batches >= 0),
    mismatches  bigint NOT NULL DEFAULT 0 CHECK (mismatches >= 0)
);

INSERT INTO trust (worker, transcripts, batches, mismatches)
SELECT b.worker,
       COALESCE(sum(cardinality(b.task_ids)) FILTER (
           WHERE b.state = 'settled' AND b.ended_at > COALESCE(f.last_failed, '-infinity')), 0),
       count(*) FILTER (WHERE b.state = 'settled'),
       count(*) FILTER (WHERE b.state = 'failed')
  FROM batches b
  LEFT JOIN (SELECT worker, max(ended_at) AS last_failed FROM batches
              WHERE state = 'failed' GROUP BY worker) f USING (worker)
 WHERE b.state <> 'open'
 GROUP BY b.worker;

-- The credit of a settled batch: a pending transfer that is posted once it has matured, or voided
-- when a later audit of its worker finds a mismatch.
CREATE TABLE held_credits (
    root         bytea  PRIMARY KEY REFERENCES batches (root),
    worker       bytea  NOT NULL CHECK (length(worker) = 32),
    account      text   NOT NULL,
    amount_msat  bigint NOT NULL CHECK (amount_msat > 0),
    transfer     bytea  NOT NULL UNIQUE REFERENCES transfers (id),
    -- Which of its worker's settled batches it was.
    batch_number bigint NOT NULL CHECK (batch_number > 0),
    state        text   NOT NULL DEFAULT 'held' CHECK (state IN ('held', 'matured', 'forfeited')),
    held_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX held_credits_open ON held_credits (worker, held_at) WHERE state = 'held';

-- held -> matured | forfeited, and only with the transfer that says so.
CREATE FUNCTION held_credits_follow_transfers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state <> 'held' THEN
            RAISE EXCEPTION 'a credit begins held' USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END IF;
    IF TG_OP = 'DELETE' OR OLD.state <> 'held' OR NEW.state = 'held'
       OR (NEW.root, NEW.worker, NEW.account, NEW.amount_msat, NEW.transfer, NEW.batch_number, NEW.held_at)
          IS DISTINCT FROM
          (OLD.root, OLD.worker, OLD.account, OLD.amount_msat, OLD.transfer, OLD.batch_number, OLD.held_at)
       OR NOT EXISTS (
           SELECT 1 FROM transfers t WHERE t.ends = NEW.transfer
              AND t.kind = CASE NEW.state WHEN 'matured' THEN 'post' ELSE 'void' END) THEN
        RAISE EXCEPTION 'held credits end once, by their transfers' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER held_credits_follow_transfers BEFORE INSERT OR UPDATE OR DELETE ON held_credits
    FOR EACH ROW EXECUTE FUNCTION held_credits_follow_transfers();
CREATE TRIGGER held_credits_are_not_truncated BEFORE TRUNCATE ON held_credits
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What a worker can ask about when an audit of its batch failed: digests, never content.
CREATE TABLE appeals (
    step                   bigint PRIMARY KEY REFERENCES audits (step),
    worker                 bytea  NOT NULL CHECK (length(worker) = 32),
    root                   bytea  NOT NULL UNIQUE REFERENCES batches (root),
    header_hash            bytea  NOT NULL CHECK (length(header_hash) = 32),
    task_id                bytea  NOT NULL CHECK (length(task_id) = 32),
    leaf_index             integer NOT NULL CHECK (leaf_index >= 0),
    -- The leaf: the transcript's tagged hash.
    transcript_hash        bytea  NOT NULL CHECK (length(transcript_hash) = 32),
    model_id               bytea  NOT NULL CHECK (length(model_id) = 32),
    engine_version         integer NOT NULL,
    mismatch               text   NOT NULL,
    -- The first token that differs, where that is the mismatch.
    position               bigint CHECK ((position IS NOT NULL) = (mismatch = 'tokens')),
    claimed_tokens         bigint NOT NULL,
    claimed_output_digest  bytea  NOT NULL CHECK (length(claimed_output_digest) = 32),
    claimed_trace_root     bytea  NOT NULL CHECK (length(claimed_trace_root) = 32),
    -- NULL where the claim fell before anything was computed.
    replayed_tokens        bigint,
    replayed_output_digest bytea  CHECK (length(replayed_output_digest) = 32),
    replayed_trace_root    bytea  CHECK (length(replayed_trace_root) = 32),
    -- Who replayed it, and who once more.
    validators             text[] NOT NULL,
    forfeited_msat         bigint NOT NULL CHECK (forfeited_msat >= 0),
    forfeited_credits      bigint NOT NULL CHECK (forfeited_credits >= 0),
    created_at             timestamptz NOT NULL DEFAULT now(),
    CHECK ((replayed_tokens IS NULL) = (replayed_output_digest IS NULL)),
    CHECK ((replayed_tokens IS NULL) = (replayed_trace_root IS NULL))
);
CREATE INDEX appeals_of_worker ON appeals (worker, step);
CREATE TRIGGER appeals_are_facts BEFORE UPDATE OR DELETE ON appeals
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER appeals_are_not_truncated BEFORE TRUNCATE ON appeals
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
