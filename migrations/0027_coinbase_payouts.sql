-- Coinbases may pay the heaviest accounts of the window themselves (docs/rewards.md#paid-in-the-coinbase). A payout list says
-- whom, and how much; pools and declarators read it here. What a block has paid so is a part of its division that has been
-- paid ahead.

CREATE TABLE payout_lists (
    number       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    made_at      timestamptz NOT NULL DEFAULT now(),
    -- What a block that pays this list pays at least, and the heights whose blocks do.
    subsidy_sat  bigint  NOT NULL CHECK (subsidy_sat > 0),
    first_height bigint  NOT NULL CHECK (first_height >= 0),
    end_height   bigint  NOT NULL CHECK (end_height > first_height)
);
CREATE INDEX payout_lists_made ON payout_lists (made_at);

-- A list without outputs ends the one before.
CREATE TABLE payout_list_outputs (
    list       bigint  NOT NULL REFERENCES payout_lists (number) ON DELETE CASCADE,
    account    integer NOT NULL,
    script     bytea   NOT NULL CHECK (length(script) BETWEEN 1 AND 42),
    amount_sat bigint  NOT NULL CHECK (amount_sat > 0),
    PRIMARY KEY (list, account),
    UNIQUE (list, script)
);

CREATE FUNCTION payout_list_is_covered() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT sum(amount_sat) FROM payout_list_outputs WHERE list = NEW.number) >= NEW.subsidy_sat THEN
        RAISE EXCEPTION 'a payout list leaves the pool a part of the subsidy' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF EXISTS (SELECT FROM payout_list_outputs WHERE list = NEW.number GROUP BY list HAVING count(*) > 20) THEN
        RAISE EXCEPTION 'a payout list has at most 20 outputs' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER payout_list_is_covered AFTER INSERT ON payout_lists
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION payout_list_is_covered();

CREATE FUNCTION payout_list_output_is_new() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM given JOIN payout_lists ON number = list WHERE made_at <> now()) THEN
        RAISE EXCEPTION 'a payout list is written once' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER payout_list_output_is_new AFTER INSERT ON payout_list_outputs
    REFERENCING NEW TABLE AS given FOR EACH STATEMENT EXECUTE FUNCTION payout_list_output_is_new();

-- What a block's coinbase has paid accounts, as the chain has it.
CREATE TABLE block_advances (
    block      bytea   NOT NULL REFERENCES block_rewards (header_hash),
    account    integer NOT NULL,
    amount_sat bigint  NOT NULL CHECK (amount_sat > 0),
    PRIMARY KEY (block, account)
);
CREATE INDEX block_advances_account ON block_advances (account);

-- They are noted when the chain first shows the block, in the transaction that makes it active.
CREATE FUNCTION block_advance_is_new() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM given JOIN block_rewards ON header_hash = block WHERE state <> 'submitted') THEN
        RAISE EXCEPTION 'what a coinbase pays is noted before its block is active' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER block_advance_is_new AFTER INSERT ON block_advances
    REFERENCING NEW TABLE AS given FOR EACH STATEMENT EXECUTE FUNCTION block_advance_is_new();

-- No list changes. One that is a week old is in no job any more, and what blocks have paid by it is written beside them.
CREATE FUNCTION payout_list_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM payout_lists WHERE number = OLD.list) THEN
        RAISE EXCEPTION 'outputs go with their payout list' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN OLD;
END $$;
CREATE TRIGGER payout_list_outputs_stay BEFORE DELETE ON payout_list_outputs FOR EACH ROW EXECUTE FUNCTION payout_list_stays();
CREATE TRIGGER payout_lists_stay BEFORE DELETE ON payout_lists
    FOR EACH ROW WHEN (OLD.made_at > now() - interval '7 days') EXECUTE FUNCTION refuse_change();
CREATE TRIGGER payout_lists_are_facts BEFORE UPDATE ON payout_lists FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER payout_list_outputs_are_facts BEFORE UPDATE ON payout_list_outputs
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER block_advances_are_facts BEFORE UPDATE OR DELETE ON block_advances FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER payout_lists_are_not_truncated BEFORE TRUNCATE ON payout_lists FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER payout_list_outputs_are_not_truncated BEFORE TRUNCATE ON payout_list_outputs
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER block_advances_are_not_truncated BEFORE TRUNCATE ON block_advances
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE FUNCTION drop_payout_lists() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS $$
    WITH dropped AS (DELETE FROM payout_lists WHERE made_at <= now() - interval '7 days' RETURNING 1)
    SELECT count(*) FROM dropped
$$;

-- What coinbases have paid accounts themselves.
INSERT INTO accounts (name, never_negative) VALUES ('pool:coinbase', false), ('pool:loss', false) ON CONFLICT (name) DO NOTHING;

-- Gives a role what daemons need, no more, as before, and what is new here.
ALTER FUNCTION grant_to_daemons(name) RENAME TO grant_to_daemons_before_27;
CREATE FUNCTION grant_to_daemons(daemons name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM grant_to_daemons_before_27(daemons);
    EXECUTE format('REVOKE UPDATE ON payout_lists, payout_list_outputs, block_advances FROM %I', daemons);
END $$;
