-- Where a payee is paid if it is not where its name says: what the owner of the name has stated and proven. docs/ledger.md
-- explains the rules.

CREATE TABLE destinations (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    payee          text   NOT NULL REFERENCES payees (payee),
    kind           text   NOT NULL CHECK (kind IN ('worker', 'bolt12', 'lightning_address', 'onchain')),
    value          text   NOT NULL CHECK (length(value) BETWEEN 1 AND 4096),
    -- The Bitcoin address for what cannot be paid over Lightning.
    fallback       text   CHECK (length(fallback) BETWEEN 1 AND 90),
    -- NULL: the pool's.
    threshold_msat bigint CHECK (threshold_msat BETWEEN 1 AND 100000000000),
    -- At most one payout in each period of a day or a week, which begins so many hours behind a Monday's midnight, UTC.
    -- NULL: as the payee earns.
    period_h       smallint CHECK (period_h IN (24, 168)),
    begins_h       smallint CHECK (begins_h BETWEEN 0 AND period_h - 1),
    -- When the owner said so, by its own clock; each statement of a payee is newer than the one before.
    made_at        timestamptz NOT NULL,
    -- What was signed, and the signature.
    statement      text   NOT NULL CHECK (length(statement) BETWEEN 1 AND 8192),
    proof          bytea  NOT NULL CHECK (length(proof) BETWEEN 1 AND 512),
    created_at     timestamptz NOT NULL,
    -- From then on it holds, unless a newer statement has come before.
    active_from    timestamptz NOT NULL CHECK (active_from >= created_at),
    -- The statement that held when this one came. NULL: the payee was paid where its name says.
    replaces       bigint REFERENCES destinations (id),
    CHECK ((period_h IS NULL) = (begins_h IS NULL))
);
CREATE INDEX destinations_of_payee ON destinations (payee, id);

-- A payee's newest statement. It holds once its time has come; until then what it replaces does.
ALTER TABLE payees ADD COLUMN destination bigint REFERENCES destinations (id);
CREATE INDEX payees_with_destinations ON payees (payee) WHERE destination IS NOT NULL;

CREATE FUNCTION destinations_follow() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    newest destinations%ROWTYPE;
BEGIN
    SELECT d.* INTO newest FROM payees e JOIN destinations d ON d.id = e.destination WHERE e.payee = NEW.payee;
    IF FOUND THEN
        IF NEW.made_at <= newest.made_at THEN
            RAISE EXCEPTION 'a statement is newer than the one before' USING ERRCODE = 'restrict_violation';
        END IF;
        NEW.replaces := CASE WHEN newest.active_from <= now() THEN newest.id ELSE newest.replaces END;
    ELSE
        NEW.replaces := NULL;
    END IF;
    NEW.created_at := now();
    RETURN NEW;
END $$;
CREATE TRIGGER destinations_follow BEFORE INSERT ON destinations
    FOR EACH ROW EXECUTE FUNCTION destinations_follow();

CREATE FUNCTION note_destination() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE payees SET destination = NEW.id WHERE payee = NEW.payee;
    RETURN NULL;
END $$;
CREATE TRIGGER destinations_are_noted AFTER INSERT ON destinations
    FOR EACH ROW EXECUTE FUNCTION note_destination();

CREATE TRIGGER destinations_are_facts BEFORE UPDATE OR DELETE ON destinations
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER destinations_are_not_truncated BEFORE TRUNCATE ON destinations
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- How an account's name says that it is paid, without anybody being connected. The pool looks closer: some plain names have
-- the shape of an address and are none.
CREATE FUNCTION kind_of_name(name text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN name NOT LIKE 'worker:%' THEN NULL
        WHEN name LIKE 'worker:lno1%' THEN 'bolt12'
        WHEN name LIKE '%@%' THEN 'lightning_address'
        WHEN name ~ '^worker:((bc1|tb1|bcrt1)[a-z0-9]{11,86}|[123mn][1-9A-HJ-NP-Za-km-z]{25,34})$' THEN 'onchain'
    END
$$;
DROP INDEX accounts_of_offers;
CREATE INDEX accounts_paid_by_name ON accounts (id) WHERE kind_of_name(name) IS NOT NULL;

-- When the period began in which `at` lies.
CREATE FUNCTION period_began(period_h smallint, begins_h smallint, at timestamptz) RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT date_bin(make_interval(hours => period_h), at,
                    timestamptz '1970-01-05 00:00:00+00' + make_interval(hours => begins_h))
$$;

-- As in migration 22, with the new facts. Whoever replaces it next keeps what stands here.
CREATE OR REPLACE FUNCTION grant_to_daemons(daemons name) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    relation record;
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), daemons);
    EXECUTE format('GRANT USAGE ON ALL SEQUENCES IN SCHEMA %I TO %I', current_schema(), daemons);
    FOR relation IN
        SELECT relname AS name, relkind AS kind FROM pg_class
         WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'v') AND NOT relispartition
    LOOP
        -- Also what it was given before.
        EXECUTE format('REVOKE ALL ON %I FROM %I', relation.name, daemons);
        EXECUTE format('GRANT SELECT ON %I TO %I', relation.name, daemons);
        CONTINUE WHEN relation.kind = 'v' OR relation.name = '_sqlx_migrations';
        EXECUTE format('GRANT INSERT ON %I TO %I', relation.name, daemons);
        -- Facts are only added.
        IF relation.name NOT IN ('transfers', 'shares', 'audits', 'receipts', 'reward_slices', 'slice_work', 'block_credits',
                                 'destinations', 'onchain_outputs') THEN
            EXECUTE format('GRANT UPDATE ON %I TO %I', relation.name, daemons);
        END IF;
        IF relation.name IN ('declared_jobs', 'declared_transactions', 'spent_job_tokens', 'share_sums', 'devices', 'findings',
                             'claimed_shares', 'open_slice_work', 'window_now') THEN
            EXECUTE format('GRANT DELETE ON %I TO %I', relation.name, daemons);
        END IF;
    END LOOP;
END $$;
