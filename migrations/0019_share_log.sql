-- Shares come from the pool's log in large sets. A share is one row of 32 bytes, in partitions by height that can be
-- dropped as a whole; what its hashes earn is summed for its account, and becomes a transfer once a slice of time.

-- Which share settled a batch. A root is spent once: this was the share's own column.
ALTER TABLE batches ADD COLUMN settled_by bytea UNIQUE CHECK (length(settled_by) = 32);
UPDATE batches SET settled_by = shares.header_hash FROM shares WHERE shares.batch_root = batches.root;
ALTER TABLE batches ADD CHECK (settled_by IS NULL OR state = 'settled');

-- How far each log is in the ledger: written with the shares, so that each is here once.
CREATE TABLE share_logs (
    log_id    bigint PRIMARY KEY,
    -- The first record that is not.
    position  bigint NOT NULL CHECK (position >= 0),
    -- Who may write it: a number that a pool draws when it starts. An earlier one stops then.
    writer    bigint NOT NULL,
    -- The proof of the last record before the position: a copy of the log that went another way does not have it.
    last_proof uuid,
    opened_at timestamptz NOT NULL DEFAULT now()
);
-- Records that the ledger will never take, for a person to look at.
CREATE TABLE share_log_rejects (
    log_id    bigint NOT NULL,
    position  bigint NOT NULL,
    record    bytea  NOT NULL,
    reason    text   NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (log_id, position)
);

-- Shares of claims that are settled, until they are here: a pool that stops before such a share is in its log logs it at its
-- next start.
CREATE TABLE claimed_shares (
    header_hash uuid   PRIMARY KEY,
    log_id      bigint NOT NULL,
    record      bytea  NOT NULL
);

-- What an account's hashes came to, one row each. Parts of a millisatoshi that are not credited yet are kept exactly.
CREATE TABLE hash_credits (
    account     integer PRIMARY KEY,
    shares      bigint  NOT NULL CHECK (shares >= 0),
    inference_shares bigint NOT NULL CHECK (inference_shares >= 0),
    work        numeric NOT NULL CHECK (work >= 0),
    -- Earned, and not in a transfer yet.
    unsettled   numeric NOT NULL CHECK (unsettled >= 0),
    -- Less than a millisatoshi, of what is held in coinbase_only_credits.
    held_part   numeric NOT NULL DEFAULT 0 CHECK (held_part >= 0),
    -- How many transfers it has had: each has its own id by it.
    settlements bigint  NOT NULL DEFAULT 0
);
CREATE INDEX hash_credits_unsettled ON hash_credits (account) WHERE unsettled >= 1048576000000000000;

-- Sums over minutes, hours and days for pages. Account 0 is all accounts together.
CREATE TABLE share_sums (
    account   integer NOT NULL,
    -- The seconds that it is a sum over.
    span_s    integer NOT NULL CHECK (span_s IN (60, 3600, 86400)),
    -- When they begin, in seconds since 1970.
    starts_at bigint  NOT NULL,
    shares    bigint  NOT NULL,
    work      numeric NOT NULL,
    credit    numeric NOT NULL,
    PRIMARY KEY (account, span_s, starts_at)
);
CREATE INDEX share_sums_age ON share_sums (span_s, starts_at);

-- Shares that have earned nothing have no account yet.
INSERT INTO accounts (name, never_negative)
    SELECT DISTINCT 'worker:' || account, true FROM shares ON CONFLICT (name) DO NOTHING;
INSERT INTO hash_credits (account, shares, inference_shares, work, unsettled)
    SELECT a.id, count(*), count(s.batch_root), sum(s.work), 0
      FROM shares s JOIN accounts a ON a.name = 'worker:' || s.account GROUP BY a.id;
-- They were posted as they came.
INSERT INTO share_sums (account, span_s, starts_at, shares, work, credit)
    SELECT CASE WHEN grouping(a.id) = 1 THEN 0 ELSE a.id END, 86400,
           floor(extract(epoch FROM s.created_at) / 86400)::bigint * 86400 AS day,
           count(*), sum(s.work), sum(s.credit_msat::numeric) * 1048576000000000000
      FROM shares s JOIN accounts a ON a.name = 'worker:' || s.account
     GROUP BY GROUPING SETS ((a.id, day), (day));

ALTER TABLE shares RENAME TO shares_before;
ALTER INDEX shares_pkey RENAME TO shares_before_pkey;

CREATE TABLE shares (
    -- Expected hashes; more than fits counts as what fits.
    work        bigint  NOT NULL CHECK (work >= 0),
    -- Of the block that the header builds on.
    height      integer NOT NULL CHECK (height >= 0),
    -- accounts.id. No foreign key: accounts are never deleted, and a check for each row would cost as much as the row.
    account     integer NOT NULL,
    -- The first half of the header hash, in the order in which it is hashed: 128 bits that nobody can choose.
    header_hash uuid    NOT NULL,
    -- One proof is one credit.
    PRIMARY KEY (height, header_hash)
) PARTITION BY RANGE (height);
CREATE TRIGGER shares_are_facts BEFORE UPDATE OR DELETE ON shares
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER shares_are_not_truncated BEFORE TRUNCATE ON shares
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE FUNCTION share_key(header_hash bytea) RETURNS uuid LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS
    $$ SELECT encode(substr(header_hash, 1, 16), 'hex')::uuid $$;

-- Makes the partition that holds this height. Two pools may do it at once.
CREATE FUNCTION make_share_partition(of_height integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    first integer := of_height / 144 * 144;
    name  text    := 'shares_' || first;
BEGIN
    PERFORM pg_advisory_xact_lock(7310579402110411);
    IF to_regclass(name) IS NULL THEN
        -- Attached, it waits for nobody who reads shares at length, and nobody waits for it.
        EXECUTE format('CREATE TABLE %I (LIKE shares INCLUDING ALL)', name);
        EXECUTE format('ALTER TABLE shares ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)', name, first, first::bigint + 144);
        EXECUTE format('CREATE TRIGGER shares_are_not_truncated BEFORE TRUNCATE ON %I
                        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', name);
    END IF;
END $$;

-- Drops the partitions whose shares all build on blocks below this height; says how many.
CREATE FUNCTION drop_share_partitions(below integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    name    text;
    dropped integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(7310579402110411);
    FOR name IN SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
                 WHERE inhparent = 'shares'::regclass AND substr(relname, 8)::bigint + 144 <= below
    LOOP
        EXECUTE format('DROP TABLE %I', name);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END $$;

-- Nobody noted on which blocks the shares of before build: on the last one that the pool found, or on none.
SELECT make_share_partition(COALESCE((SELECT max(height) FROM blocks), 0)::integer);
INSERT INTO shares (work, height, account, header_hash)
    SELECT LEAST(s.work, 9223372036854775807)::bigint, COALESCE((SELECT max(height) FROM blocks), 0)::integer,
           a.id, share_key(s.header_hash)
      FROM shares_before s JOIN accounts a ON a.name = 'worker:' || s.account;
DROP TABLE shares_before;

-- The same with names, for people.
CREATE VIEW named_shares AS
    SELECT shares.height, shares.header_hash, substr(accounts.name, 8) AS account, shares.work,
           CASE WHEN batches.root IS NULL THEN 'hash' ELSE 'inference' END AS kind
      FROM shares JOIN accounts ON accounts.id = shares.account
      LEFT JOIN batches ON share_key(batches.settled_by) = shares.header_hash;
CREATE INDEX batches_share ON batches (share_key(settled_by)) WHERE settled_by IS NOT NULL;

-- Counts only grow, and rows stay.
CREATE FUNCTION hash_credits_grow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR NEW.account <> OLD.account OR NEW.shares < OLD.shares OR NEW.work < OLD.work
       OR (NEW.unsettled < OLD.unsettled AND NEW.settlements <= OLD.settlements) THEN
        RAISE EXCEPTION 'what an account''s hashes came to grows, and leaves by transfers'
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER hash_credits_grow BEFORE UPDATE OR DELETE ON hash_credits
    FOR EACH ROW EXECUTE FUNCTION hash_credits_grow();
CREATE TRIGGER hash_credits_are_not_truncated BEFORE TRUNCATE ON hash_credits
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- An account's statement reads its newest transfers.
CREATE INDEX transfers_of_debit ON transfers (debit, created_at DESC);
CREATE INDEX transfers_of_credit ON transfers (credit, created_at DESC);
-- Slices are settled from here.
INSERT INTO accounts (name, never_negative) VALUES ('pool:hash', false) ON CONFLICT (name) DO NOTHING;
