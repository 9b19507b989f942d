-- What each account did in a slice, and what shows its shares, in partitions of 1,024 slices: about a difficulty. They are dropped
-- as a whole when no block that is still open, nor the next one, can be divided over them (docs/ledger.md#what-is-kept).

-- The first slice whose work is here, and the first whose shares can be shown.
ALTER TABLE reward_chain
    ADD COLUMN work_from   bigint NOT NULL DEFAULT 0 CHECK (work_from >= 0),
    ADD COLUMN shares_from bigint NOT NULL DEFAULT 0 CHECK (shares_from >= 0);

ALTER TABLE slice_work RENAME TO slice_work_before;
ALTER INDEX slice_work_pkey RENAME TO slice_work_before_pkey;
ALTER INDEX slice_work_account RENAME TO slice_work_before_account;

CREATE TABLE slice_work (
    -- No foreign key: it is written with its row of reward_slices, and `ledger audit` compares them.
    slice    bigint  NOT NULL,
    account  integer NOT NULL,
    weight   numeric NOT NULL CHECK (weight > 0),
    shares   bigint  NOT NULL CHECK (shares > 0),
    evidence bytea   NOT NULL CHECK (length(evidence) = 32),
    PRIMARY KEY (slice, account)
) PARTITION BY RANGE (slice);
CREATE INDEX slice_work_account ON slice_work (account, slice);
CREATE TRIGGER slice_work_are_facts BEFORE UPDATE OR DELETE ON slice_work FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER slice_work_are_not_truncated BEFORE TRUNCATE ON slice_work FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What shows the shares of a slice, as they were counted: many in a row, so that what they have in common is kept once
-- (crates/ledger/src/rewards/pieces.rs has the bytes). Also of the slice that is open.
CREATE TABLE slice_shares (
    slice  bigint  NOT NULL,
    -- From 0, in the order of the shares.
    piece  integer NOT NULL CHECK (piece >= 0),
    shares integer NOT NULL CHECK (shares > 0),
    bytes  bytea   NOT NULL,
    PRIMARY KEY (slice, piece)
) PARTITION BY RANGE (slice);
CREATE TRIGGER slice_shares_are_facts BEFORE UPDATE OR DELETE ON slice_shares FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER slice_shares_are_not_truncated BEFORE TRUNCATE ON slice_shares FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Makes the partitions that hold these slices. The caller has locked reward_chain.
CREATE FUNCTION make_slice_partitions(of_first bigint, of_last bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    parent text;
    first  bigint;
    name   text;
BEGIN
    FOREACH parent IN ARRAY ARRAY['slice_work', 'slice_shares'] LOOP
        FOR first IN SELECT generate_series(of_first / 1024 * 1024, of_last, 1024) LOOP
            name := parent || '_' || first;
            IF to_regclass(name) IS NULL THEN
                EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', name, parent);
                EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)', parent, name, first, first + 1024);
                EXECUTE format('CREATE TRIGGER slices_are_not_truncated BEFORE TRUNCATE ON %I
                                FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', name);
            END IF;
        END LOOP;
    END LOOP;
END $$;

-- The first slice that is needed: of the window, and of every block that may still be paid or come back.
CREATE FUNCTION first_needed_slice() RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT LEAST((SELECT COALESCE(first_slice, 0) FROM reward_chain),
                 (SELECT min(first_slice) FROM block_rewards
                   WHERE state IN ('submitted', 'active')
                      OR (state = 'orphaned' AND height >= (SELECT max(height) FROM block_rewards) - 1000)))
$$;

-- Drops the partitions of `slice_work` or `slice_shares` whose slices all closed before that and are not needed, whoever calls
-- it; says how many.
CREATE FUNCTION drop_slice_partitions(parent text, closed_before timestamptz) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    first   bigint;
    needed  bigint;
    dropped integer := 0;
BEGIN
    IF parent NOT IN ('slice_work', 'slice_shares') THEN
        RAISE EXCEPTION 'no slices are kept in %', parent USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- Nobody counts, divides, or moves the window meanwhile.
    PERFORM 1 FROM reward_chain FOR UPDATE;
    needed := first_needed_slice();
    FOR first IN SELECT substr(relname, length(parent) + 2)::bigint AS begins FROM pg_inherits
                   JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = parent::regclass ORDER BY begins
    LOOP
        EXIT WHEN first + 1024 > needed
               OR NOT EXISTS (SELECT FROM reward_slices WHERE number = first + 1023 AND closed_at < closed_before);
        EXECUTE format('DROP TABLE %I', parent || '_' || first);
        IF parent = 'slice_work' THEN
            UPDATE reward_chain SET work_from = first + 1024;
        ELSE
            UPDATE reward_chain SET shares_from = first + 1024;
        END IF;
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END $$;

SELECT make_slice_partitions(first, last) FROM (SELECT min(slice) AS first, max(slice) AS last FROM slice_work_before) kept
 WHERE first IS NOT NULL;
INSERT INTO slice_work (slice, account, weight, shares, evidence)
    SELECT slice, account, weight, shares, evidence FROM slice_work_before ORDER BY slice, account;
-- No share of before can be shown.
UPDATE reward_chain SET shares_from = GREATEST((SELECT max(number) + 2 FROM reward_slices), (SELECT max(slice) + 1 FROM open_slice_work), 0);
DROP TABLE slice_work_before;

-- Gives a role what daemons need, no more, as before, and what is new here.
ALTER FUNCTION grant_to_daemons(name) RENAME TO grant_to_daemons_before_26;
CREATE FUNCTION grant_to_daemons(daemons name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM grant_to_daemons_before_26(daemons);
    EXECUTE format('REVOKE UPDATE ON slice_shares, reward_chain FROM %I', daemons);
    -- What was dropped is for the functions above to say.
    EXECUTE format('GRANT UPDATE (version, length, first_slice, searched_height) ON reward_chain TO %I', daemons);
END $$;
