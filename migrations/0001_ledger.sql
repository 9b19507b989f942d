-- The ledger: double-entry accounts and two-phase transfers. docs/ledger.md explains the rules.
-- Amounts are millisatoshi. Rows of facts are only ever added.

CREATE TABLE accounts (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name            text   NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 200),
    -- Accounts of workers may never owe the pool: what they have minus what is leaving.
    never_negative  boolean NOT NULL CHECK (never_negative = starts_with(name, 'worker:')),
    debits_pending  bigint NOT NULL DEFAULT 0 CHECK (debits_pending  >= 0),
    debits_posted   bigint NOT NULL DEFAULT 0 CHECK (debits_posted   >= 0),
    credits_pending bigint NOT NULL DEFAULT 0 CHECK (credits_pending >= 0),
    credits_posted  bigint NOT NULL DEFAULT 0 CHECK (credits_posted  >= 0),
    CONSTRAINT balance_never_negative
        CHECK (NOT never_negative OR credits_posted >= debits_posted + debits_pending)
);

CREATE TABLE transfers (
    id         bytea  PRIMARY KEY CHECK (length(id) = 16),
    kind       text   NOT NULL CHECK (kind IN ('posted', 'pending', 'post', 'void')),
    -- For 'post' and 'void': the pending transfer that is ended, once.
    ends       bytea  UNIQUE REFERENCES transfers (id),
    debit      bigint NOT NULL REFERENCES accounts (id),
    credit     bigint NOT NULL REFERENCES accounts (id),
    amount     bigint NOT NULL CHECK (amount > 0),
    reason     text   NOT NULL CHECK (length(reason) BETWEEN 1 AND 64),
    created_at timestamptz NOT NULL DEFAULT now(),
    CHECK (debit <> credit),
    CHECK ((ends IS NOT NULL) = (kind IN ('post', 'void')))
);

CREATE FUNCTION apply_transfer() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    pending transfers%ROWTYPE;
BEGIN
    IF NEW.kind = 'posted' THEN
        UPDATE accounts SET debits_posted  = debits_posted  + NEW.amount WHERE id = NEW.debit;
        UPDATE accounts SET credits_posted = credits_posted + NEW.amount WHERE id = NEW.credit;
    ELSIF NEW.kind = 'pending' THEN
        UPDATE accounts SET debits_pending  = debits_pending  + NEW.amount WHERE id = NEW.debit;
        UPDATE accounts SET credits_pending = credits_pending + NEW.amount WHERE id = NEW.credit;
    ELSE
        SELECT * INTO STRICT pending FROM transfers WHERE id = NEW.ends;
        IF pending.kind <> 'pending' OR pending.debit <> NEW.debit
           OR pending.credit <> NEW.credit OR pending.amount <> NEW.amount THEN
            RAISE EXCEPTION 'a transfer ends a pending one of the same accounts and amount'
                USING ERRCODE = 'check_violation';
        END IF;
        UPDATE accounts SET debits_pending = debits_pending - NEW.amount,
               debits_posted = debits_posted + CASE WHEN NEW.kind = 'post' THEN NEW.amount ELSE 0 END
         WHERE id = NEW.debit;
        UPDATE accounts SET credits_pending = credits_pending - NEW.amount,
               credits_posted = credits_posted + CASE WHEN NEW.kind = 'post' THEN NEW.amount ELSE 0 END
         WHERE id = NEW.credit;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER transfers_apply AFTER INSERT ON transfers
    FOR EACH ROW EXECUTE FUNCTION apply_transfer();

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% rows are facts: they are not changed or deleted', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER transfers_are_facts BEFORE UPDATE OR DELETE ON transfers
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER transfers_are_not_truncated BEFORE TRUNCATE ON transfers
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The totals are what the transfers say: only the trigger above, one level up, may move them.
CREATE FUNCTION accounts_follow_transfers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.debits_pending + NEW.debits_posted + NEW.credits_pending + NEW.credits_posted <> 0 THEN
            RAISE EXCEPTION 'an account is opened empty' USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END IF;
    IF TG_OP = 'DELETE' OR pg_trigger_depth() < 2 OR NEW.id <> OLD.id OR NEW.name <> OLD.name
       OR NEW.never_negative <> OLD.never_negative THEN
        RAISE EXCEPTION 'accounts change by transfers only' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER accounts_follow_transfers BEFORE INSERT OR UPDATE OR DELETE ON accounts
    FOR EACH ROW EXECUTE FUNCTION accounts_follow_transfers();
CREATE TRIGGER accounts_are_not_truncated BEFORE TRUNCATE ON accounts
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
