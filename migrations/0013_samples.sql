-- A batch has one sample, whoever claims it how often: that of its first admitted claim. What an audit finds is kept
-- until a second replay has said the same or something else. The chain of values that drew samples before is gone.

DROP TABLE beacon;

ALTER TABLE batches
    -- The header of the first admitted claim, and the VRF key under which it draws the sample.
    ADD COLUMN sample_header bytea CHECK (length(sample_header) = 32),
    ADD COLUMN sample_key    bytea CHECK (length(sample_key) = 32),
    -- Claims whose audit could not be done.
    ADD COLUMN undone_claims integer NOT NULL DEFAULT 0 CHECK (undone_claims BETWEEN 0 AND 3),
    ADD CONSTRAINT a_sample_has_a_key CHECK ((sample_header IS NULL) = (sample_key IS NULL)),
    DROP CONSTRAINT batches_state_check,
    -- Dead: its audit could not be done too often. Nobody is paid or punished for it.
    ADD CONSTRAINT batches_state_check CHECK (state IN ('open', 'settled', 'failed', 'dead'));

-- What one replay found that no second one has confirmed or contradicted: the batch is suspect.
CREATE TABLE findings (
    root                   bytea   PRIMARY KEY REFERENCES batches (root),
    -- The claim at which it was found.
    header_hash            bytea   NOT NULL CHECK (length(header_hash) = 32),
    leaf_index             integer NOT NULL CHECK (leaf_index >= 0),
    mismatch               text    NOT NULL,
    position               bigint  CHECK ((position IS NOT NULL) = (mismatch = 'tokens')),
    replayed_tokens        bigint,
    replayed_output_digest bytea   CHECK (length(replayed_output_digest) = 32),
    replayed_trace_root    bytea   CHECK (length(replayed_trace_root) = 32),
    -- Who found it: no other finding of the same validator confirms it.
    validator              text    NOT NULL,
    found_at               timestamptz NOT NULL DEFAULT now(),
    CHECK ((replayed_tokens IS NULL) = (replayed_output_digest IS NULL)),
    CHECK ((replayed_tokens IS NULL) = (replayed_trace_root IS NULL))
);

-- A suspect batch ends by what a second replay says. It is not settled or given up before.
CREATE FUNCTION suspect_batches_wait() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.state IN ('settled', 'dead') AND EXISTS (SELECT 1 FROM findings WHERE root = NEW.root) THEN
        RAISE EXCEPTION 'a suspect batch waits for a second replay' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER suspect_batches_wait BEFORE UPDATE OF state ON batches
    FOR EACH ROW EXECUTE FUNCTION suspect_batches_wait();

-- Audits are told apart by their claims and how they ended, no longer by steps.
ALTER TABLE appeals
    DROP COLUMN step,
    DROP CONSTRAINT appeals_root_key,
    ADD PRIMARY KEY (root),
    ADD COLUMN sample_header bytea CHECK (length(sample_header) = 32),
    ADD COLUMN vrf_proof bytea CHECK (length(vrf_proof) = 80);
CREATE INDEX appeals_of_worker ON appeals (worker, created_at);
ALTER TABLE audits
    DROP COLUMN step,
    ADD COLUMN sample_header bytea CHECK (length(sample_header) = 32),
    ADD COLUMN vrf_proof bytea CHECK (length(vrf_proof) = 80),
    ADD CONSTRAINT one_audit_of_a_claim UNIQUE (root, header_hash, verdict);
