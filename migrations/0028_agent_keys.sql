-- Keys of the operator's, with which agents have tasks paid. Each key has an account of its own, so its budget is a balance
-- that the database keeps from becoming negative. docs/ledger.md explains the rules.

CREATE TABLE agent_keys (
    number       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text   NOT NULL UNIQUE CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
    -- Of the secret, which only its agent keeps.
    secret_hash  bytea  NOT NULL UNIQUE CHECK (length(secret_hash) = 32),
    account      bigint NOT NULL UNIQUE REFERENCES accounts (id),
    -- What its tasks may cost in all ..
    budget_msat  bigint NOT NULL CHECK (budget_msat > 0),
    -- .. and those of one day (UTC); NULL: as much as there is.
    per_day_msat bigint CHECK (per_day_msat BETWEEN 1 AND budget_msat),
    created_at   timestamptz NOT NULL DEFAULT now(),
    -- From then on it pays for no new task.
    revoked_at   timestamptz
);

-- A key is what it was made; once, it is revoked.
CREATE FUNCTION agent_keys_go_forward() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed agent_keys := NEW;
BEGIN
    changed.revoked_at := OLD.revoked_at;
    IF changed IS DISTINCT FROM OLD OR OLD.revoked_at IS NOT NULL OR NEW.revoked_at IS NULL THEN
        RAISE EXCEPTION 'keys are facts: they are revoked once, and not changed' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER agent_keys_go_forward BEFORE UPDATE ON agent_keys FOR EACH ROW EXECUTE FUNCTION agent_keys_go_forward();
CREATE TRIGGER agent_keys_are_facts BEFORE DELETE ON agent_keys FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER agent_keys_are_not_truncated BEFORE TRUNCATE ON agent_keys
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What the account of a key was given, by day (counted from 1970): all of its budget at once, or on each day up to what the
-- day may cost.
CREATE TABLE agent_key_days (
    key        bigint NOT NULL REFERENCES agent_keys (number),
    day        bigint NOT NULL,
    given_msat bigint NOT NULL CHECK (given_msat >= 0),
    PRIMARY KEY (key, day)
);

-- However many give at once, no key is given more than its budget, and on no day more than that day may cost.
CREATE FUNCTION agent_key_day_fits() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    of agent_keys%ROWTYPE;
BEGIN
    SELECT * INTO STRICT of FROM agent_keys WHERE number = NEW.key FOR UPDATE;
    IF NEW.given_msat > COALESCE(of.per_day_msat, of.budget_msat)
       OR NEW.given_msat > of.budget_msat - (SELECT COALESCE(sum(given_msat), 0) FROM agent_key_days WHERE key = NEW.key) THEN
        RAISE EXCEPTION 'a key is given no more than its budget' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER agent_key_day_fits BEFORE INSERT ON agent_key_days FOR EACH ROW EXECUTE FUNCTION agent_key_day_fits();
CREATE TRIGGER agent_key_days_are_facts BEFORE UPDATE OR DELETE ON agent_key_days
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER agent_key_days_are_not_truncated BEFORE TRUNCATE ON agent_key_days
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What budgets have given to keys comes from here.
INSERT INTO accounts (name, never_negative) VALUES ('pool:keys', false) ON CONFLICT (name) DO NOTHING;

-- Gives a role what daemons need, no more, as before, and what is new here.
ALTER FUNCTION grant_to_daemons(name) RENAME TO grant_to_daemons_before_28;
CREATE FUNCTION grant_to_daemons(daemons name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM grant_to_daemons_before_28(daemons);
    EXECUTE format('REVOKE UPDATE ON agent_keys, agent_key_days FROM %I', daemons);
    EXECUTE format('GRANT UPDATE (revoked_at) ON agent_keys TO %I', daemons);
END $$;
