-- Daemons work as a role that owns nothing: it makes and changes no tables, and deletes nothing but what is no fact.

-- Gives a role what daemons need, no more. To be called by the owner, again after each migration.
CREATE FUNCTION grant_to_daemons(daemons name) RETURNS void LANGUAGE plpgsql AS $$
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
        IF relation.name NOT IN ('transfers', 'shares', 'audits', 'receipts', 'reward_slices', 'slice_work', 'block_credits') THEN
            EXECUTE format('GRANT UPDATE ON %I TO %I', relation.name, daemons);
        END IF;
        IF relation.name IN ('declared_jobs', 'declared_transactions', 'spent_job_tokens', 'share_sums', 'devices', 'findings',
                             'claimed_shares', 'open_slice_work', 'window_now') THEN
            EXECUTE format('GRANT DELETE ON %I TO %I', relation.name, daemons);
        END IF;
    END LOOP;
END $$;

-- Partitions of shares are made and dropped by the owner, on behalf of whoever writes shares.
ALTER FUNCTION make_share_partition(integer) SECURITY DEFINER;
ALTER FUNCTION make_share_partition(integer) SET search_path FROM CURRENT;

-- Drops the partitions whose shares all build on blocks below this height; says how many. Whoever calls it, the shares of the
-- newest day stay: the memory of proofs is filled from them.
CREATE OR REPLACE FUNCTION drop_share_partitions(below integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    name    text;
    dropped integer := 0;
    newest  integer;
BEGIN
    PERFORM pg_advisory_xact_lock(7310579402110411);
    SELECT max(height) INTO newest FROM shares;
    FOR name IN SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
                 WHERE inhparent = 'shares'::regclass
                   AND substr(relname, 8)::bigint + 144 <= LEAST(below, COALESCE(newest - 144, below))
    LOOP
        EXECUTE format('DROP TABLE %I', name);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END $$;
