-- A payout is paid by attempts. Each has a name of the pool's own, which is here before the wallet hears of it, so that the
-- wallet can be asked what became of it. docs/ledger.md explains the rules.

-- What is known of the payee's way to its money: when it is tried next, and why it was not paid before. A row of state, no
-- fact.
CREATE TABLE payees (
    payee         text PRIMARY KEY CHECK (length(payee) BETWEEN 1 AND 263),
    tries         integer     NOT NULL DEFAULT 0 CHECK (tries >= 0),
    next_try_at   timestamptz NOT NULL DEFAULT now(),
    failure_class text CHECK (length(failure_class) BETWEEN 1 AND 32)
);
-- Payees that are paid without being connected.
CREATE INDEX accounts_of_offers ON accounts (id) WHERE starts_with(name, 'worker:lno1');

CREATE TABLE attempts (
    id            bytea   PRIMARY KEY CHECK (length(id) = 32),
    payout        bytea   NOT NULL REFERENCES payouts (id),
    n             integer NOT NULL CHECK (n > 0),
    rail          text    NOT NULL CHECK (rail IN ('bolt11', 'bolt12')),
    -- The invoice or the offer.
    destination   text    NOT NULL,
    -- An offer's is known with its proof only.
    payment_hash  bytea CHECK (length(payment_hash) = 32),
    fee_max_msat  bigint  NOT NULL CHECK (fee_max_msat >= 0),
    cltv_max      integer NOT NULL CHECK (cltv_max BETWEEN 1 AND 65535),
    -- When the invoice ends. An offer is not dispatched after this either.
    expires_at    timestamptz NOT NULL,
    -- prepared: the wallet may have heard of it. dispatched: it has said so. review: only a person can decide.
    state         text    NOT NULL CHECK (state IN ('prepared', 'dispatched', 'succeeded', 'failed', 'review')),
    failure_class text CHECK (length(failure_class) BETWEEN 1 AND 32),
    -- The proof of payment, and what the route cost.
    preimage      bytea CHECK (length(preimage) = 32),
    fee_msat      bigint CHECK (fee_msat >= 0),
    created_at    timestamptz NOT NULL DEFAULT now(),
    -- When it failed or succeeded for the first time.
    ended_at      timestamptz,
    -- When the wallet is asked about it next; of a failed one too, for some time.
    next_check_at timestamptz,
    UNIQUE (payout, n),
    CONSTRAINT attempts_have_a_proof CHECK (state <> 'succeeded' OR (preimage IS NOT NULL AND payment_hash IS NOT NULL
        AND fee_msat IS NOT NULL AND sha256(preimage) = payment_hash)),
    CHECK ((preimage IS NOT NULL) = (state = 'succeeded')),
    CHECK ((fee_msat IS NOT NULL) = (state = 'succeeded')),
    CHECK (failure_class IS NOT NULL OR state NOT IN ('failed', 'review')),
    CHECK ((ended_at IS NOT NULL) = (state IN ('succeeded', 'failed'))),
    CHECK (payment_hash IS NOT NULL OR rail = 'bolt12')
);
CREATE UNIQUE INDEX attempts_one_open ON attempts (payout) WHERE state IN ('prepared', 'dispatched', 'review');
CREATE INDEX attempts_to_check ON attempts (next_check_at) WHERE next_check_at IS NOT NULL;
CREATE INDEX attempts_by_hash ON attempts (payment_hash) WHERE state = 'succeeded';

-- A payout's transfer: what is set aside for it. One that never came to a reservation has none.
DROP INDEX payouts_open;
ALTER TABLE payouts
    ADD COLUMN transfer      bytea UNIQUE REFERENCES transfers (id),
    ADD COLUMN fees_borne_by text  NOT NULL DEFAULT 'pool' CHECK (fees_borne_by IN ('pool', 'payee')),
    ADD COLUMN failure_class text  CHECK (length(failure_class) BETWEEN 1 AND 32);
COMMENT ON COLUMN payouts.bolt11 IS 'the invoice of a payout of before migration 21; later ones have it in attempts';
-- The id that the pool derives: its tagged hash over a length, a purpose and the payout.
UPDATE payouts p SET transfer = t.id FROM transfers t
 WHERE t.id = substr(sha256(sha256('dovetail/transfer') || sha256('dovetail/transfer') || '\x06'::bytea || 'payout' || p.id), 1, 16);

-- The wallet knew what was sent by its payment hash: that is the attempt's name, so the wallet can still be asked. What was
-- reserved and not sent, the wallet never heard of: its money goes back. When their invoices end was not kept; an hour is
-- what a worker's invoice lives.
INSERT INTO attempts (id, payout, n, rail, destination, payment_hash, fee_max_msat, cltv_max, expires_at, state,
                      failure_class, created_at, ended_at, next_check_at)
SELECT payment_hash, id, 1, 'bolt11', bolt11, payment_hash, fee_max_msat, 432,
       CASE state WHEN 'sent' THEN created_at + interval '1 hour' ELSE created_at END,
       CASE state WHEN 'sent' THEN 'dispatched' ELSE 'failed' END,
       CASE state WHEN 'sent' THEN NULL ELSE 'other' END,
       created_at, CASE state WHEN 'sent' THEN NULL ELSE created_at END,
       CASE WHEN state = 'sent' OR created_at > now() - interval '14 days' THEN now() END
  FROM payouts WHERE state IN ('reserved', 'sent', 'failed') AND payment_hash IS NOT NULL;
UPDATE payouts SET failure_class = 'other' WHERE state IN ('requested', 'failed');
ALTER TABLE payouts DROP CONSTRAINT payouts_state_check;
UPDATE payouts SET state = CASE state WHEN 'sent' THEN 'reserved' ELSE 'failed' END WHERE state IN ('requested', 'sent');
ALTER TABLE payouts ADD CONSTRAINT payouts_state_check CHECK (state IN ('reserved', 'paid', 'failed'));
INSERT INTO payees (payee) SELECT DISTINCT worker FROM payouts WHERE state = 'reserved';
-- For the selection: who has one, and the newest of each payee.
CREATE INDEX payouts_open ON payouts (worker) WHERE state = 'reserved';
CREATE INDEX payouts_of_payee ON payouts (worker, created_at);

-- prepared -> dispatched -> succeeded | failed | review; review -> succeeded | failed; failed -> succeeded, for a success
-- that comes late. Nothing else about an attempt changes but when it is looked at.
CREATE FUNCTION attempts_go_forward() RETURNS trigger LANGUAGE plpgsql AS $$
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
                    (NEW.failure_class, NEW.preimage, NEW.fee_msat, NEW.ended_at)
                    IS NOT DISTINCT FROM (OLD.failure_class, OLD.preimage, OLD.fee_msat, OLD.ended_at)
                WHEN OLD.state = 'prepared' THEN true
                WHEN OLD.state = 'dispatched' THEN NEW.state <> 'prepared'
                WHEN OLD.state = 'review' THEN NEW.state IN ('succeeded', 'failed')
                WHEN OLD.state = 'failed' THEN
                    NEW.state = 'succeeded' AND NEW.failure_class = OLD.failure_class
                ELSE false END;
    END IF;
    IF NOT is_allowed THEN
        RAISE EXCEPTION 'attempts are facts: they go forward, and are not changed or deleted'
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER attempts_go_forward BEFORE INSERT OR UPDATE OR DELETE ON attempts
    FOR EACH ROW EXECUTE FUNCTION attempts_go_forward();
CREATE TRIGGER attempts_are_not_truncated BEFORE TRUNCATE ON attempts
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- reserved -> paid | failed, by the transfer that says so; failed -> paid, for a success that comes late. Paid needs a
-- proof: an attempt that succeeded.
CREATE FUNCTION payouts_follow_transfers() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    is_allowed boolean := false;
BEGIN
    IF TG_OP = 'INSERT' THEN
        is_allowed := NEW.state = 'reserved' AND NEW.fee_msat IS NULL AND NEW.failure_class IS NULL AND EXISTS (
            SELECT 1 FROM transfers t JOIN accounts d ON d.id = t.debit
             WHERE t.id = NEW.transfer AND t.kind = 'pending' AND t.amount = NEW.amount_msat
               AND d.name = 'worker:' || NEW.worker);
    ELSIF TG_OP = 'UPDATE' THEN
        is_allowed := (NEW.id, NEW.worker, NEW.amount_msat, NEW.created_at, NEW.fees_borne_by)
                    = (OLD.id, OLD.worker, OLD.amount_msat, OLD.created_at, OLD.fees_borne_by)
            AND (NEW.payment_hash, NEW.bolt11, NEW.fee_max_msat, NEW.transfer)
                IS NOT DISTINCT FROM (OLD.payment_hash, OLD.bolt11, OLD.fee_max_msat, OLD.transfer)
            AND CASE
                WHEN NEW.state = OLD.state THEN
                    (NEW.fee_msat, NEW.failure_class) IS NOT DISTINCT FROM (OLD.fee_msat, OLD.failure_class)
                WHEN OLD.state = 'reserved' AND NEW.state = 'failed' THEN
                    NEW.fee_msat IS NULL AND NEW.failure_class IS NOT NULL
                    AND EXISTS (SELECT 1 FROM transfers t WHERE t.ends = NEW.transfer AND t.kind = 'void')
                    AND NOT EXISTS (SELECT 1 FROM attempts a WHERE a.payout = NEW.id AND a.state <> 'failed')
                WHEN NEW.state = 'paid' THEN
                    NEW.fee_msat IS NOT NULL AND NEW.failure_class IS NOT DISTINCT FROM OLD.failure_class
                    AND (OLD.state = 'failed'
                         OR EXISTS (SELECT 1 FROM transfers t WHERE t.ends = NEW.transfer AND t.kind = 'post'))
                    AND EXISTS (SELECT 1 FROM attempts a WHERE a.payout = NEW.id AND a.state = 'succeeded')
                ELSE false END;
    END IF;
    IF NOT is_allowed THEN
        RAISE EXCEPTION 'payouts are facts: they end by their transfers, and are not changed or deleted'
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER payouts_follow_transfers BEFORE INSERT OR UPDATE OR DELETE ON payouts
    FOR EACH ROW EXECUTE FUNCTION payouts_follow_transfers();
CREATE TRIGGER payouts_are_not_truncated BEFORE TRUNCATE ON payouts
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
