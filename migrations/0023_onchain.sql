-- Payouts on the chain. A batch is one payment to several payees: transactions of which at most one can confirm, since each
-- later one spends all that the earlier ones spend. A transaction is here, signed, before any node hears of it.
-- docs/onchain.md explains the rules.

CREATE TABLE onchain_batches (
    number          bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- open: one of its transactions may confirm. paid: one has. buried: so deep that nobody looks any more. failed: none ever
    -- will, since somebody else has spent what they spend.
    state           text    NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'paid', 'buried', 'failed')),
    -- The chain's height when it was made: no block up to it has a transaction of it.
    since_height    integer NOT NULL CHECK (since_height >= 0),
    -- The height of the block in which something else spends an input of it. State, no fact.
    conflict_height integer CHECK (conflict_height >= 0),
    created_at      timestamptz NOT NULL DEFAULT now()
);
-- One at a time: no batch spends what another one's transaction, which may be replaced, gives as change.
CREATE UNIQUE INDEX onchain_batches_one_open ON onchain_batches (state) WHERE state = 'open';
CREATE INDEX onchain_batches_paid ON onchain_batches (number) WHERE state = 'paid';

-- What a batch pays: the first outputs of each of its transactions.
CREATE TABLE onchain_outputs (
    attempt    bytea   PRIMARY KEY REFERENCES attempts (id),
    batch      bigint  NOT NULL REFERENCES onchain_batches (number),
    vout       integer NOT NULL CHECK (vout >= 0),
    script     bytea   NOT NULL CHECK (length(script) BETWEEN 1 AND 128),
    amount_sat bigint  NOT NULL CHECK (amount_sat > 0),
    UNIQUE (batch, vout)
);

CREATE TABLE onchain_transactions (
    -- As hashes are in blocks; explorers turn it round.
    txid       bytea   PRIMARY KEY CHECK (length(txid) = 32),
    batch      bigint  NOT NULL REFERENCES onchain_batches (number),
    n          integer NOT NULL CHECK (n > 0),
    raw        bytea   NOT NULL CHECK (length(raw) BETWEEN 60 AND 400000),
    -- What it spends: txid and output number of each, as a transaction has them.
    inputs     bytea[] NOT NULL CHECK (cardinality(inputs) > 0),
    fee_sat    bigint  NOT NULL CHECK (fee_sat > 0),
    -- The chain's height when it was made.
    tip_height integer NOT NULL CHECK (tip_height >= 0),
    -- prepared: no node has taken it. broadcast: one has. confirmed: a block has it, as deep as the operator asks.
    state      text    NOT NULL DEFAULT 'prepared' CHECK (state IN ('prepared', 'broadcast', 'confirmed')),
    -- The block that has it. It may come to be another one.
    block      bytea CHECK (length(block) = 32),
    height     integer CHECK (height > 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (batch, n),
    CHECK ((block IS NOT NULL) = (state = 'confirmed') AND (height IS NOT NULL) = (state = 'confirmed'))
);
CREATE UNIQUE INDEX onchain_transactions_one_confirmed ON onchain_transactions (batch) WHERE state = 'confirmed';

-- An attempt on the chain has no preimage: its proof is the transaction that has confirmed.
ALTER TABLE attempts
    ADD COLUMN txid bytea REFERENCES onchain_transactions (txid),
    DROP CONSTRAINT attempts_rail_check,
    DROP CONSTRAINT attempts_have_a_proof,
    DROP CONSTRAINT attempts_check,
    DROP CONSTRAINT attempts_check4,
    ADD CONSTRAINT attempts_rail_check CHECK (rail IN ('bolt11', 'bolt12', 'onchain')),
    ADD CONSTRAINT attempts_have_a_proof CHECK (state <> 'succeeded' OR (fee_msat IS NOT NULL AND CASE rail
        WHEN 'onchain' THEN txid IS NOT NULL
        ELSE preimage IS NOT NULL AND payment_hash IS NOT NULL AND sha256(preimage) = payment_hash END)),
    ADD CONSTRAINT attempts_preimage_is_a_proof CHECK ((preimage IS NOT NULL) = (state = 'succeeded' AND rail <> 'onchain')),
    ADD CONSTRAINT attempts_txid_is_a_proof CHECK ((txid IS NOT NULL) = (state = 'succeeded' AND rail = 'onchain')),
    ADD CONSTRAINT attempts_have_a_hash CHECK (CASE rail
        WHEN 'bolt11' THEN payment_hash IS NOT NULL WHEN 'onchain' THEN payment_hash IS NULL ELSE true END);
CREATE INDEX attempts_onchain_prepared ON attempts (created_at) WHERE rail = 'onchain' AND state = 'prepared';

-- As before; an attempt on the chain succeeds by a confirmed transaction of its own batch.
CREATE OR REPLACE FUNCTION attempts_go_forward() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    is_allowed boolean := false;
BEGIN
    IF TG_OP = 'INSERT' THEN
        is_allowed := NEW.state = 'prepared' AND NEW.failure_class IS NULL AND EXISTS (
            SELECT 1 FROM payouts p WHERE p.id = NEW.payout AND p.state = 'reserved'
               AND p.payment_hash IS NOT DISTINCT FROM NEW.payment_hash AND p.fee_max_msat >= NEW.fee_max_msat);
    ELSIF TG_OP = 'UPDATE' THEN
        is_allowed := (NEW.id, NEW.payout, NEW.n, NEW.rail, NEW.destination, NEW.fee_max_msat, NEW.cltv_max,
                       NEW.expires_at, NEW.created_at)
                    = (OLD.id, OLD.payout, OLD.n, OLD.rail, OLD.destination, OLD.fee_max_msat, OLD.cltv_max,
                       OLD.expires_at, OLD.created_at)
            AND (NEW.payment_hash IS NOT DISTINCT FROM OLD.payment_hash
                 OR (OLD.payment_hash IS NULL AND NEW.state = 'succeeded'))
            AND (OLD.ended_at IS NULL OR NEW.ended_at = OLD.ended_at)
            AND CASE
                WHEN NEW.state = OLD.state THEN
                    (NEW.failure_class, NEW.preimage, NEW.txid, NEW.fee_msat, NEW.ended_at)
                    IS NOT DISTINCT FROM (OLD.failure_class, OLD.preimage, OLD.txid, OLD.fee_msat, OLD.ended_at)
                WHEN OLD.state = 'prepared' THEN true
                WHEN OLD.state = 'dispatched' THEN NEW.state <> 'prepared'
                WHEN OLD.state = 'review' THEN NEW.state IN ('succeeded', 'failed')
                WHEN OLD.state = 'failed' THEN
                    NEW.state = 'succeeded' AND NEW.failure_class = OLD.failure_class
                ELSE false END
            AND (NEW.rail <> 'onchain' OR NEW.state = OLD.state OR CASE NEW.state
                WHEN 'succeeded' THEN EXISTS (
                    SELECT 1 FROM onchain_outputs o JOIN onchain_transactions t ON t.batch = o.batch
                     WHERE o.attempt = NEW.id AND t.txid = NEW.txid AND t.state = 'confirmed')
                WHEN 'dispatched' THEN EXISTS (SELECT 1 FROM onchain_outputs o WHERE o.attempt = NEW.id)
                -- Whoever is in a batch may be paid as long as the batch has not failed.
                WHEN 'failed' THEN NOT EXISTS (
                    SELECT 1 FROM onchain_outputs o JOIN onchain_batches b ON b.number = o.batch
                     WHERE o.attempt = NEW.id AND b.state <> 'failed')
                ELSE true END);
    END IF;
    IF NOT is_allowed THEN
        RAISE EXCEPTION 'attempts are facts: they go forward, and are not changed or deleted'
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;

-- open -> paid -> buried, open -> failed. A batch begins with outputs and a transaction.
CREATE FUNCTION onchain_batches_go_forward() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed    onchain_batches := NEW;
    is_allowed boolean := false;
BEGIN
    IF TG_OP = 'INSERT' THEN
        is_allowed := NEW.state = 'open';
    ELSIF TG_OP = 'UPDATE' THEN
        changed.state := OLD.state;
        changed.conflict_height := OLD.conflict_height;
        is_allowed := changed IS NOT DISTINCT FROM OLD AND CASE
            WHEN NEW.state = OLD.state THEN true
            WHEN NEW.state = 'paid' THEN OLD.state = 'open' AND EXISTS (
                SELECT 1 FROM onchain_transactions t WHERE t.batch = NEW.number AND t.state = 'confirmed')
            WHEN NEW.state = 'failed' THEN OLD.state = 'open' AND NEW.conflict_height IS NOT NULL AND NOT EXISTS (
                SELECT 1 FROM onchain_transactions t WHERE t.batch = NEW.number AND t.state = 'confirmed')
            WHEN NEW.state = 'buried' THEN OLD.state = 'paid'
            ELSE false END;
    END IF;
    IF NOT is_allowed THEN
        RAISE EXCEPTION 'batches are facts: they go forward, and are not changed or deleted'
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER onchain_batches_go_forward BEFORE INSERT OR UPDATE OR DELETE ON onchain_batches
    FOR EACH ROW EXECUTE FUNCTION onchain_batches_go_forward();

CREATE FUNCTION onchain_batch_is_whole() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM onchain_transactions WHERE batch = NEW.number)
       OR NOT EXISTS (SELECT 1 FROM onchain_outputs WHERE batch = NEW.number) THEN
        RAISE EXCEPTION 'a batch begins with outputs and a transaction' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER onchain_batch_is_whole AFTER INSERT ON onchain_batches
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION onchain_batch_is_whole();

-- Outputs come with their batch, before its first transaction, and pay an attempt that waits for just that.
CREATE FUNCTION onchain_output_is_due() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT 1 FROM attempts a JOIN payouts p ON p.id = a.payout
         WHERE a.id = NEW.attempt AND a.rail = 'onchain' AND a.state = 'prepared' AND p.state = 'reserved'
           AND p.amount_msat = NEW.amount_sat * 1000)
       OR EXISTS (SELECT 1 FROM onchain_transactions t WHERE t.batch = NEW.batch) THEN
        RAISE EXCEPTION 'an output pays an attempt that waits for it, and comes before its transaction'
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER onchain_output_is_due BEFORE INSERT ON onchain_outputs FOR EACH ROW EXECUTE FUNCTION onchain_output_is_due();

-- prepared -> broadcast -> confirmed; a confirmed one may be found in another block. Of a batch at most one can confirm, and it
-- costs no more than was set aside.
CREATE FUNCTION onchain_transactions_go_forward() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed    onchain_transactions := NEW;
    is_allowed boolean := false;
BEGIN
    IF TG_OP = 'INSERT' THEN
        is_allowed := NEW.state = 'prepared'
            AND EXISTS (SELECT 1 FROM onchain_batches b WHERE b.number = NEW.batch AND b.state = 'open')
            AND NEW.n = 1 + (SELECT count(*) FROM onchain_transactions t WHERE t.batch = NEW.batch)
            AND NOT EXISTS (SELECT 1 FROM onchain_transactions t WHERE t.batch = NEW.batch AND NOT NEW.inputs @> t.inputs)
            AND NEW.fee_sat * 1000 <= (SELECT sum(a.fee_max_msat) FROM onchain_outputs o JOIN attempts a ON a.id = o.attempt
                                        WHERE o.batch = NEW.batch);
    ELSIF TG_OP = 'UPDATE' THEN
        changed.state := OLD.state;
        changed.block := OLD.block;
        changed.height := OLD.height;
        is_allowed := changed IS NOT DISTINCT FROM OLD AND (OLD.state, NEW.state) IN (
            ('prepared', 'prepared'), ('prepared', 'broadcast'), ('broadcast', 'broadcast'),
            ('prepared', 'confirmed'), ('broadcast', 'confirmed'), ('confirmed', 'confirmed'));
    END IF;
    IF NOT is_allowed THEN
        RAISE EXCEPTION 'transactions are facts: each spends what the earlier ones of its batch do, costs no more than was set aside, and goes forward'
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER onchain_transactions_go_forward BEFORE INSERT OR UPDATE OR DELETE ON onchain_transactions
    FOR EACH ROW EXECUTE FUNCTION onchain_transactions_go_forward();

CREATE TRIGGER onchain_outputs_are_facts BEFORE UPDATE OR DELETE ON onchain_outputs
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER onchain_batches_are_not_truncated BEFORE TRUNCATE ON onchain_batches
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER onchain_outputs_are_not_truncated BEFORE TRUNCATE ON onchain_outputs
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER onchain_transactions_are_not_truncated BEFORE TRUNCATE ON onchain_transactions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What has left, or is leaving, on the chain; and what its transactions cost.
INSERT INTO accounts (name, never_negative) VALUES ('pool:onchain', false), ('pool:onchain_fees', false)
    ON CONFLICT (name) DO NOTHING;
