-- Blocks become rewards. Shares have a weight, which fills reward slices in the order of the log; a block is divided over
-- the newest slices (docs/rewards.md). No money moves for a share: it moves once, when a block has matured.

-- One row, locked by whoever counts shares.
CREATE TABLE reward_chain (
    only_one     boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    -- Drawn once: no two ledgers have the same chain of slices.
    draw         bytea   NOT NULL CHECK (length(draw) = 32),
    -- Grows with each set of shares: who remembers the open slice sees whether somebody else has counted meanwhile.
    version      bigint  NOT NULL DEFAULT 0 CHECK (version >= 0),
    -- For which length, in difficulties, window_now was last brought up to date, and its first slice then.
    length       integer CHECK (length > 0),
    first_slice  bigint  CHECK (first_slice >= 0),
    -- Up to which height the chain was searched for blocks of the pool's that are not here.
    searched_height integer CHECK (searched_height >= 0)
);
INSERT INTO reward_chain (draw)
    SELECT decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex');

-- Closed slices, as they are published.
CREATE TABLE reward_slices (
    number    bigint  PRIMARY KEY CHECK (number >= 0),
    previous  bytea   NOT NULL CHECK (length(previous) = 32),
    accounts  integer NOT NULL CHECK (accounts > 0),
    total     numeric NOT NULL CHECK (total > 0),
    top       bytea   NOT NULL CHECK (length(top) = 32),
    root      bytea   NOT NULL UNIQUE CHECK (length(root) = 32),
    -- The pool's, over the root.
    signer    bytea   NOT NULL CHECK (length(signer) = 32),
    signature bytea   NOT NULL CHECK (length(signature) = 64),
    closed_at timestamptz NOT NULL DEFAULT now()
);

-- What each account did in a closed slice.
CREATE TABLE slice_work (
    slice    bigint  NOT NULL REFERENCES reward_slices (number),
    account  integer NOT NULL,
    weight   numeric NOT NULL CHECK (weight > 0),
    shares   bigint  NOT NULL CHECK (shares > 0),
    evidence bytea   NOT NULL CHECK (length(evidence) = 32),
    PRIMARY KEY (slice, account)
);
CREATE INDEX slice_work_account ON slice_work (account, slice);

-- The same of the slice that is open.
CREATE TABLE open_slice_work (
    account  integer PRIMARY KEY,
    slice    bigint  NOT NULL,
    weight   numeric NOT NULL CHECK (weight > 0),
    shares   bigint  NOT NULL CHECK (shares > 0),
    evidence bytea   NOT NULL CHECK (length(evidence) = 32)
);

-- What each account weighs in the window: the sum over its slices, kept, so that a block costs its accounts and not its slices.
CREATE TABLE window_now (
    account integer PRIMARY KEY,
    weight  numeric NOT NULL CHECK (weight > 0)
);

-- What a block pays, and where it stands.
CREATE TABLE block_rewards (
    header_hash bytea  PRIMARY KEY CHECK (length(header_hash) = 32),
    height      integer NOT NULL CHECK (height > 0),
    -- Who found it, if its share was logged.
    finder      text,
    scheme      text   NOT NULL CHECK (scheme IN ('pplns', 'solo')),
    -- What its coinbase pays the pool.
    reward_msat bigint NOT NULL CHECK (reward_msat > 0),
    fee_msat    bigint NOT NULL CHECK (fee_msat BETWEEN 0 AND reward_msat),
    -- What the pool keeps of it, in millionths, and how many difficulties the window holds.
    fee_millionths integer NOT NULL CHECK (fee_millionths BETWEEN 0 AND 1000000),
    length      integer CHECK (length > 0),
    -- The window that it is divided over; none if the finder has it all.
    first_slice bigint,
    last_slice  bigint CHECK (last_slice >= first_slice),
    state       text   NOT NULL DEFAULT 'submitted'
                CHECK (state IN ('submitted', 'active', 'orphaned', 'matured', 'refused')),
    found_at    timestamptz NOT NULL DEFAULT now(),
    CHECK ((first_slice IS NULL) = (last_slice IS NULL) AND (first_slice IS NULL) = (length IS NULL))
);
CREATE INDEX block_rewards_open ON block_rewards (height) WHERE state IN ('submitted', 'active', 'orphaned');

-- Its division. With the fee it adds up to the reward.
CREATE TABLE block_credits (
    block       bytea   NOT NULL REFERENCES block_rewards (header_hash),
    account     integer NOT NULL,
    amount_msat bigint  NOT NULL CHECK (amount_msat > 0),
    PRIMARY KEY (block, account)
);
CREATE INDEX block_credits_account ON block_credits (account);

CREATE FUNCTION reward_is_divided() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.reward_msat <> NEW.fee_msat
       + (SELECT COALESCE(sum(amount_msat), 0) FROM block_credits WHERE block = NEW.header_hash) THEN
        RAISE EXCEPTION 'the parts of a block and the fee add up to its reward' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER reward_is_divided AFTER INSERT ON block_rewards
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION reward_is_divided();

-- A block comes and goes with the chain until it has matured; nothing else about it changes.
CREATE FUNCTION reward_steps() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed block_rewards := NEW;
BEGIN
    changed.state := OLD.state;
    IF changed IS DISTINCT FROM OLD THEN
        RAISE EXCEPTION 'what a block pays is a fact' USING ERRCODE = 'restrict_violation';
    END IF;
    IF (OLD.state, NEW.state) NOT IN (
        ('submitted', 'active'), ('submitted', 'orphaned'), ('submitted', 'refused'),
        ('active', 'orphaned'), ('orphaned', 'active'), ('active', 'matured')) THEN
        RAISE EXCEPTION 'a block does not go from % to %', OLD.state, NEW.state USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER reward_steps BEFORE UPDATE ON block_rewards FOR EACH ROW EXECUTE FUNCTION reward_steps();

-- Parts are written with their block, in one transaction.
CREATE FUNCTION block_credit_is_new() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM given JOIN block_rewards ON header_hash = block WHERE found_at <> now()) THEN
        RAISE EXCEPTION 'a block is divided once' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER block_credit_is_new AFTER INSERT ON block_credits
    REFERENCING NEW TABLE AS given FOR EACH STATEMENT EXECUTE FUNCTION block_credit_is_new();

CREATE TRIGGER reward_slices_are_facts BEFORE UPDATE OR DELETE ON reward_slices FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER slice_work_are_facts BEFORE UPDATE OR DELETE ON slice_work FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER block_rewards_are_facts BEFORE DELETE ON block_rewards FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER block_credits_are_facts BEFORE UPDATE OR DELETE ON block_credits FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER reward_slices_are_not_truncated BEFORE TRUNCATE ON reward_slices FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER slice_work_are_not_truncated BEFORE TRUNCATE ON slice_work FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER block_rewards_are_not_truncated BEFORE TRUNCATE ON block_rewards FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER block_credits_are_not_truncated BEFORE TRUNCATE ON block_credits FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What matured blocks have paid comes from the first; the pool's part goes to the second.
INSERT INTO accounts (name, never_negative) VALUES ('pool:rewards', false), ('pool:fees', false) ON CONFLICT (name) DO NOTHING;
