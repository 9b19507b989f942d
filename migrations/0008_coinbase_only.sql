-- Hash credit of jobs in coinbase-only mode, which nobody but their miner can check. It is summed from one block of its
-- account on such a job to the next, and that block decides about it. docs/ledger.md explains the rules.

CREATE TABLE coinbase_only_credits (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account     text   NOT NULL CHECK (length(account) BETWEEN 1 AND 263),
    amount_msat bigint NOT NULL CHECK (amount_msat >= 0),
    shares      bigint NOT NULL CHECK (shares > 0),
    state       text   NOT NULL CHECK (state IN ('open', 'followed', 'posted', 'voided', 'carried')),
    -- The header hash of the block that decides about it, once there is one.
    block       bytea  UNIQUE CHECK (length(block) = 32),
    -- The pending transfer, from then on.
    transfer    bytea  UNIQUE REFERENCES transfers (id),
    -- For how many seconds the chain was looked at for the block.
    watched_s   bigint NOT NULL DEFAULT 0 CHECK (watched_s >= 0),
    -- Where it was added, if nobody can know whether the chain has the block.
    carried_to  bigint REFERENCES coinbase_only_credits (id),
    opened_at   timestamptz NOT NULL DEFAULT now(),
    decided_at  timestamptz,
    CHECK ((block IS NULL) = (state = 'open')),
    CHECK ((transfer IS NOT NULL) = (state <> 'open' AND amount_msat > 0)),
    CHECK ((decided_at IS NOT NULL) = (state IN ('posted', 'voided', 'carried'))),
    CHECK ((carried_to IS NOT NULL) = (state = 'carried'))
);
-- One sum of each account grows.
CREATE UNIQUE INDEX coinbase_only_credits_open ON coinbase_only_credits (account) WHERE state = 'open';
CREATE INDEX coinbase_only_credits_followed ON coinbase_only_credits (account) WHERE state = 'followed';
CREATE INDEX coinbase_only_credits_decided ON coinbase_only_credits (account) WHERE state IN ('posted', 'voided', 'carried');

-- open -> followed -> posted | voided | carried. An open sum only grows; a followed one ends once, by its transfer.
CREATE FUNCTION coinbase_only_credits_follow_transfers() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    is_allowed boolean := false;
BEGIN
    IF TG_OP = 'INSERT' THEN
        is_allowed := NEW.state = 'open' AND NEW.watched_s = 0;
    ELSIF TG_OP = 'UPDATE' THEN
        is_allowed := (NEW.id, NEW.account, NEW.opened_at) = (OLD.id, OLD.account, OLD.opened_at)
            AND CASE OLD.state
                WHEN 'open' THEN
                    NEW.watched_s = 0
                    AND CASE NEW.state
                        WHEN 'open' THEN NEW.amount_msat >= OLD.amount_msat AND NEW.shares > OLD.shares
                        WHEN 'followed' THEN (NEW.amount_msat, NEW.shares) = (OLD.amount_msat, OLD.shares)
                        ELSE false END
                WHEN 'followed' THEN
                    (NEW.amount_msat, NEW.shares, NEW.block) = (OLD.amount_msat, OLD.shares, OLD.block)
                    AND NEW.transfer IS NOT DISTINCT FROM OLD.transfer
                    AND NEW.watched_s >= OLD.watched_s
                    AND CASE NEW.state
                        WHEN 'followed' THEN true
                        WHEN 'open' THEN false
                        ELSE NEW.transfer IS NULL OR EXISTS (
                            SELECT 1 FROM transfers t WHERE t.ends = NEW.transfer
                               AND t.kind = CASE NEW.state WHEN 'posted' THEN 'post' ELSE 'void' END) END
                ELSE false END;
    END IF;
    IF NOT is_allowed THEN
        RAISE EXCEPTION 'credit of coinbase-only jobs grows until a block and ends once, by its transfer'
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER coinbase_only_credits_follow_transfers BEFORE INSERT OR UPDATE OR DELETE ON coinbase_only_credits
    FOR EACH ROW EXECUTE FUNCTION coinbase_only_credits_follow_transfers();
CREATE TRIGGER coinbase_only_credits_are_not_truncated BEFORE TRUNCATE ON coinbase_only_credits
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The sum that the credit of a share is part of; NULL for one that was posted with its share.
ALTER TABLE shares ADD COLUMN held_in bigint REFERENCES coinbase_only_credits (id);
