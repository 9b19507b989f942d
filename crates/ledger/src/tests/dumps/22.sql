
SET statement_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET row_security = off;

CREATE FUNCTION public.accounts_follow_transfers() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION public.apply_transfers() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF EXISTS (
        SELECT FROM added LEFT JOIN transfers pending ON pending.id = added.ends
         WHERE added.ends IS NOT NULL
           AND (pending.kind, pending.debit, pending.credit, pending.amount)
               IS DISTINCT FROM ('pending', added.debit, added.credit, added.amount)
    ) THEN
        RAISE EXCEPTION 'a transfer ends a pending one of the same accounts and amount'
            USING ERRCODE = 'check_violation';
    END IF;
    PERFORM FROM accounts WHERE id IN (SELECT debit FROM added UNION SELECT credit FROM added)
      ORDER BY id FOR NO KEY UPDATE;
    WITH moves AS (
        SELECT debit AS account,
               CASE WHEN kind IN ('posted', 'post') THEN amount ELSE 0 END AS debit_posted,
               CASE kind WHEN 'pending' THEN amount WHEN 'posted' THEN 0 ELSE -amount END AS debit_pending,
               0 AS credit_posted, 0 AS credit_pending
          FROM added
         UNION ALL
        SELECT credit, 0, 0,
               CASE WHEN kind IN ('posted', 'post') THEN amount ELSE 0 END,
               CASE kind WHEN 'pending' THEN amount WHEN 'posted' THEN 0 ELSE -amount END
          FROM added
    ), sums AS (
        SELECT account, sum(debit_posted)::bigint AS debits_posted, sum(debit_pending)::bigint AS debits_pending,
               sum(credit_posted)::bigint AS credits_posted, sum(credit_pending)::bigint AS credits_pending
          FROM moves GROUP BY account
    )
    UPDATE accounts a
       SET debits_posted = a.debits_posted + s.debits_posted, debits_pending = a.debits_pending + s.debits_pending,
           credits_posted = a.credits_posted + s.credits_posted, credits_pending = a.credits_pending + s.credits_pending
      FROM sums s WHERE a.id = s.account;
    RETURN NULL;
END $$;

CREATE FUNCTION public.attempts_go_forward() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION public.block_credit_is_new() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF EXISTS (SELECT FROM given JOIN block_rewards ON header_hash = block WHERE found_at <> now()) THEN
        RAISE EXCEPTION 'a block is divided once' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION public.coinbase_only_credits_follow_transfers() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION public.drop_share_partitions(below integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO '$user', 'public'
    AS $$
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

CREATE FUNCTION public.grant_to_daemons(daemons name) RETURNS void
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION public.hash_credits_grow() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF TG_OP = 'DELETE' OR NEW.account <> OLD.account OR NEW.shares < OLD.shares OR NEW.work < OLD.work
       OR (NEW.unsettled < OLD.unsettled AND NEW.settlements <= OLD.settlements) THEN
        RAISE EXCEPTION 'what an account''s hashes came to grows, and leaves by transfers'
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION public.held_credits_follow_transfers() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state <> 'held' THEN
            RAISE EXCEPTION 'a credit begins held' USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END IF;
    IF TG_OP = 'DELETE' OR OLD.state <> 'held' OR NEW.state = 'held'
       OR (NEW.root, NEW.worker, NEW.account, NEW.amount_msat, NEW.transfer, NEW.batch_number, NEW.held_at)
          IS DISTINCT FROM
          (OLD.root, OLD.worker, OLD.account, OLD.amount_msat, OLD.transfer, OLD.batch_number, OLD.held_at)
       OR NOT EXISTS (
           SELECT 1 FROM transfers t WHERE t.ends = NEW.transfer
              AND t.kind = CASE NEW.state WHEN 'matured' THEN 'post' ELSE 'void' END) THEN
        RAISE EXCEPTION 'held credits end once, by their transfers' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION public.make_share_partition(of_height integer) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO '$user', 'public'
    AS $$
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

CREATE FUNCTION public.matured_credits(of_worker bytea, seconds double precision, seconds_max double precision) RETURNS TABLE(root bytea, worker bytea, account text, batch_number bigint)
    LANGUAGE sql STABLE
    AS $$
    SELECT d.root, d.worker, d.account, d.batch_number
      FROM (SELECT h.*, bool_and(h.held_later >= h.kept_msat
                                 AND (h.held_at <= now() - make_interval(secs => seconds_max)
                                      OR (h.held_at <= now() - make_interval(secs => seconds)
                                          AND h.held_later >= h.amount_msat)))
                            OVER (PARTITION BY h.worker ORDER BY h.batch_number) AS is_due
              FROM (SELECT c.*, COALESCE(sum(c.amount_msat) OVER later, 0) AS held_later,
                           COALESCE(k.kept_msat, 0) AS kept_msat
                      FROM held_credits c
                      LEFT JOIN audit_records k ON k.worker = c.worker
                            AND k.kept_at > now() - make_interval(secs => seconds_max)
                     WHERE c.state = 'held' AND (of_worker IS NULL OR c.worker = of_worker)
                    WINDOW later AS (PARTITION BY c.worker ORDER BY c.batch_number
                                     ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING)) h) d
     WHERE d.is_due
       AND NOT EXISTS (SELECT 1 FROM batches b
                        WHERE b.worker = d.worker AND b.state = 'open' AND b.stake_msat IS NOT NULL
                          AND (b.expires_at > extract(epoch FROM now())
                               OR EXISTS (SELECT 1 FROM findings f WHERE f.root = b.root)))
$$;

CREATE FUNCTION public.payouts_follow_transfers() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION public.refuse_change() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    RAISE EXCEPTION '% rows are facts: they are not changed or deleted', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END $$;

CREATE FUNCTION public.release_reserve() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    INSERT INTO transfers (id, kind, ends, debit, credit, amount, reason)
    SELECT substr(sha256('task-released' || NEW.id), 1, 16), 'void', t.id, t.debit, t.credit, t.amount, 'task released'
      FROM transfers t WHERE t.id = NEW.reserve;
    RETURN NULL;
END $$;

CREATE FUNCTION public.reward_is_divided() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF NEW.reward_msat <> NEW.fee_msat
       + (SELECT COALESCE(sum(amount_msat), 0) FROM block_credits WHERE block = NEW.header_hash) THEN
        RAISE EXCEPTION 'the parts of a block and the fee add up to its reward' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION public.reward_steps() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION public.share_key(header_hash bytea) RETURNS uuid
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $$ SELECT encode(substr(header_hash, 1, 16), 'hex')::uuid $$;

CREATE FUNCTION public.suspect_batches_wait() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF NEW.state IN ('settled', 'dead') AND EXISTS (SELECT 1 FROM findings WHERE root = NEW.root) THEN
        RAISE EXCEPTION 'a suspect batch waits for a second replay' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TABLE public._sqlx_migrations (
    version bigint NOT NULL,
    description text NOT NULL,
    installed_on timestamp with time zone DEFAULT now() NOT NULL,
    success boolean NOT NULL,
    checksum bytea NOT NULL,
    execution_time bigint NOT NULL
);

CREATE TABLE public.accounts (
    id bigint NOT NULL,
    name text NOT NULL,
    never_negative boolean NOT NULL,
    debits_pending bigint DEFAULT 0 NOT NULL,
    debits_posted bigint DEFAULT 0 NOT NULL,
    credits_pending bigint DEFAULT 0 NOT NULL,
    credits_posted bigint DEFAULT 0 NOT NULL,
    CONSTRAINT accounts_credits_pending_check CHECK ((credits_pending >= 0)),
    CONSTRAINT accounts_credits_posted_check CHECK ((credits_posted >= 0)),
    CONSTRAINT accounts_debits_pending_check CHECK ((debits_pending >= 0)),
    CONSTRAINT accounts_debits_posted_check CHECK ((debits_posted >= 0)),
    CONSTRAINT accounts_name_check CHECK (((length(name) >= 1) AND (length(name) <= 270))),
    CONSTRAINT accounts_that_owe_nothing CHECK ((never_negative = (starts_with(name, 'worker:'::text) OR starts_with(name, 'payer:'::text) OR starts_with(name, 'paid:'::text)))),
    CONSTRAINT balance_never_negative CHECK (((NOT never_negative) OR (credits_posted >= (debits_posted + debits_pending))))
);

ALTER TABLE public.accounts ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.accounts_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.appeals (
    worker bytea NOT NULL,
    root bytea NOT NULL,
    header_hash bytea NOT NULL,
    task_id bytea NOT NULL,
    leaf_index integer NOT NULL,
    transcript_hash bytea NOT NULL,
    model_id bytea NOT NULL,
    engine_version integer NOT NULL,
    mismatch text NOT NULL,
    "position" bigint,
    claimed_tokens bigint NOT NULL,
    claimed_output_digest bytea NOT NULL,
    claimed_trace_root bytea NOT NULL,
    replayed_tokens bigint,
    replayed_output_digest bytea,
    replayed_trace_root bytea,
    validators text[] NOT NULL,
    forfeited_msat bigint NOT NULL,
    forfeited_credits bigint NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    sample_header bytea,
    vrf_proof bytea,
    stake_msat bigint,
    CONSTRAINT appeals_check CHECK ((("position" IS NOT NULL) = (mismatch = 'tokens'::text))),
    CONSTRAINT appeals_check1 CHECK (((replayed_tokens IS NULL) = (replayed_output_digest IS NULL))),
    CONSTRAINT appeals_check2 CHECK (((replayed_tokens IS NULL) = (replayed_trace_root IS NULL))),
    CONSTRAINT appeals_claimed_output_digest_check CHECK ((length(claimed_output_digest) = 32)),
    CONSTRAINT appeals_claimed_trace_root_check CHECK ((length(claimed_trace_root) = 32)),
    CONSTRAINT appeals_forfeited_credits_check CHECK ((forfeited_credits >= 0)),
    CONSTRAINT appeals_forfeited_msat_check CHECK ((forfeited_msat >= 0)),
    CONSTRAINT appeals_header_hash_check CHECK ((length(header_hash) = 32)),
    CONSTRAINT appeals_leaf_index_check CHECK ((leaf_index >= 0)),
    CONSTRAINT appeals_model_id_check CHECK ((length(model_id) = 32)),
    CONSTRAINT appeals_replayed_output_digest_check CHECK ((length(replayed_output_digest) = 32)),
    CONSTRAINT appeals_replayed_trace_root_check CHECK ((length(replayed_trace_root) = 32)),
    CONSTRAINT appeals_sample_header_check CHECK ((length(sample_header) = 32)),
    CONSTRAINT appeals_stake_msat_check CHECK ((stake_msat >= 0)),
    CONSTRAINT appeals_task_id_check CHECK ((length(task_id) = 32)),
    CONSTRAINT appeals_transcript_hash_check CHECK ((length(transcript_hash) = 32)),
    CONSTRAINT appeals_vrf_proof_check CHECK ((length(vrf_proof) = 80)),
    CONSTRAINT appeals_worker_check CHECK ((length(worker) = 32))
);

CREATE TABLE public.attempts (
    id bytea NOT NULL,
    payout bytea NOT NULL,
    n integer NOT NULL,
    rail text NOT NULL,
    destination text NOT NULL,
    payment_hash bytea,
    fee_max_msat bigint NOT NULL,
    cltv_max integer NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    state text NOT NULL,
    failure_class text,
    preimage bytea,
    fee_msat bigint,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    ended_at timestamp with time zone,
    next_check_at timestamp with time zone,
    CONSTRAINT attempts_check CHECK (((preimage IS NOT NULL) = (state = 'succeeded'::text))),
    CONSTRAINT attempts_check1 CHECK (((fee_msat IS NOT NULL) = (state = 'succeeded'::text))),
    CONSTRAINT attempts_check2 CHECK (((failure_class IS NOT NULL) OR (state <> ALL (ARRAY['failed'::text, 'review'::text])))),
    CONSTRAINT attempts_check3 CHECK (((ended_at IS NOT NULL) = (state = ANY (ARRAY['succeeded'::text, 'failed'::text])))),
    CONSTRAINT attempts_check4 CHECK (((payment_hash IS NOT NULL) OR (rail = 'bolt12'::text))),
    CONSTRAINT attempts_cltv_max_check CHECK (((cltv_max >= 1) AND (cltv_max <= 65535))),
    CONSTRAINT attempts_failure_class_check CHECK (((length(failure_class) >= 1) AND (length(failure_class) <= 32))),
    CONSTRAINT attempts_fee_max_msat_check CHECK ((fee_max_msat >= 0)),
    CONSTRAINT attempts_fee_msat_check CHECK ((fee_msat >= 0)),
    CONSTRAINT attempts_have_a_proof CHECK (((state <> 'succeeded'::text) OR ((preimage IS NOT NULL) AND (payment_hash IS NOT NULL) AND (fee_msat IS NOT NULL) AND (sha256(preimage) = payment_hash)))),
    CONSTRAINT attempts_id_check CHECK ((length(id) = 32)),
    CONSTRAINT attempts_n_check CHECK ((n > 0)),
    CONSTRAINT attempts_payment_hash_check CHECK ((length(payment_hash) = 32)),
    CONSTRAINT attempts_preimage_check CHECK ((length(preimage) = 32)),
    CONSTRAINT attempts_rail_check CHECK ((rail = ANY (ARRAY['bolt11'::text, 'bolt12'::text]))),
    CONSTRAINT attempts_state_check CHECK ((state = ANY (ARRAY['prepared'::text, 'dispatched'::text, 'succeeded'::text, 'failed'::text, 'review'::text])))
);

CREATE TABLE public.audit_records (
    worker bytea NOT NULL,
    batches bigint DEFAULT 0 NOT NULL,
    mismatches bigint DEFAULT 0 NOT NULL,
    kept_msat bigint DEFAULT 0 NOT NULL,
    kept_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT audit_records_kept_msat_check CHECK (((kept_msat >= 0) AND (kept_msat <= '100000000000'::bigint))),
    CONSTRAINT trust_batches_check CHECK ((batches >= 0)),
    CONSTRAINT trust_mismatches_check CHECK ((mismatches >= 0)),
    CONSTRAINT trust_worker_check CHECK ((length(worker) = 32))
);

CREATE TABLE public.audits (
    id bigint NOT NULL,
    header_hash bytea NOT NULL,
    root bytea NOT NULL,
    sample integer[] NOT NULL,
    verdict text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    sample_header bytea,
    vrf_proof bytea,
    stake_msat bigint,
    CONSTRAINT audits_sample_header_check CHECK ((length(sample_header) = 32)),
    CONSTRAINT audits_stake_msat_check CHECK ((stake_msat >= 0)),
    CONSTRAINT audits_vrf_proof_check CHECK ((length(vrf_proof) = 80))
);

ALTER TABLE public.audits ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.audits_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.batches (
    root bytea NOT NULL,
    worker bytea NOT NULL,
    state text NOT NULL,
    task_ids bytea[] NOT NULL,
    code text,
    ended_at timestamp with time zone,
    expires_at bigint NOT NULL,
    sample_header bytea,
    sample_key bytea,
    undone_claims integer DEFAULT 0 NOT NULL,
    stake_msat bigint,
    settled_by bytea,
    CONSTRAINT a_sample_has_a_key CHECK (((sample_header IS NULL) = (sample_key IS NULL))),
    CONSTRAINT batches_check CHECK (((ended_at IS NULL) = (state = 'open'::text))),
    CONSTRAINT batches_check1 CHECK (((settled_by IS NULL) OR (state = 'settled'::text))),
    CONSTRAINT batches_root_check CHECK ((length(root) = 32)),
    CONSTRAINT batches_sample_header_check CHECK ((length(sample_header) = 32)),
    CONSTRAINT batches_sample_key_check CHECK ((length(sample_key) = 32)),
    CONSTRAINT batches_settled_by_check CHECK ((length(settled_by) = 32)),
    CONSTRAINT batches_stake_msat_check CHECK ((stake_msat >= 0)),
    CONSTRAINT batches_state_check CHECK ((state = ANY (ARRAY['open'::text, 'settled'::text, 'failed'::text, 'dead'::text]))),
    CONSTRAINT batches_task_ids_check CHECK (((cardinality(task_ids) >= 1) AND (cardinality(task_ids) <= 64))),
    CONSTRAINT batches_undone_claims_check CHECK (((undone_claims >= 0) AND (undone_claims <= 3))),
    CONSTRAINT batches_worker_check CHECK ((length(worker) = 32))
);

CREATE TABLE public.block_credits (
    block bytea NOT NULL,
    account integer NOT NULL,
    amount_msat bigint NOT NULL,
    CONSTRAINT block_credits_amount_msat_check CHECK ((amount_msat > 0))
);

CREATE TABLE public.block_rewards (
    header_hash bytea NOT NULL,
    height integer NOT NULL,
    finder text,
    scheme text NOT NULL,
    reward_msat bigint NOT NULL,
    fee_msat bigint NOT NULL,
    fee_millionths integer NOT NULL,
    length integer,
    first_slice bigint,
    last_slice bigint,
    state text DEFAULT 'submitted'::text NOT NULL,
    found_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT block_rewards_check CHECK (((fee_msat >= 0) AND (fee_msat <= reward_msat))),
    CONSTRAINT block_rewards_check1 CHECK ((last_slice >= first_slice)),
    CONSTRAINT block_rewards_check2 CHECK ((((first_slice IS NULL) = (last_slice IS NULL)) AND ((first_slice IS NULL) = (length IS NULL)))),
    CONSTRAINT block_rewards_fee_millionths_check CHECK (((fee_millionths >= 0) AND (fee_millionths <= 1000000))),
    CONSTRAINT block_rewards_header_hash_check CHECK ((length(header_hash) = 32)),
    CONSTRAINT block_rewards_height_check CHECK ((height > 0)),
    CONSTRAINT block_rewards_length_check CHECK ((length > 0)),
    CONSTRAINT block_rewards_reward_msat_check CHECK ((reward_msat > 0)),
    CONSTRAINT block_rewards_scheme_check CHECK ((scheme = ANY (ARRAY['pplns'::text, 'solo'::text]))),
    CONSTRAINT block_rewards_state_check CHECK ((state = ANY (ARRAY['submitted'::text, 'active'::text, 'orphaned'::text, 'matured'::text, 'refused'::text])))
);

CREATE TABLE public.blocks (
    header_hash bytea NOT NULL,
    height bigint NOT NULL,
    account text NOT NULL,
    result text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT blocks_header_hash_check CHECK ((length(header_hash) = 32))
);

CREATE TABLE public.claimed_shares (
    header_hash uuid NOT NULL,
    log_id bigint NOT NULL,
    record bytea NOT NULL
);

CREATE TABLE public.coinbase_only_credits (
    id bigint NOT NULL,
    account text NOT NULL,
    amount_msat bigint NOT NULL,
    shares bigint NOT NULL,
    state text NOT NULL,
    block bytea,
    transfer bytea,
    watched_s bigint DEFAULT 0 NOT NULL,
    carried_to bigint,
    opened_at timestamp with time zone DEFAULT now() NOT NULL,
    decided_at timestamp with time zone,
    CONSTRAINT coinbase_only_credits_account_check CHECK (((length(account) >= 1) AND (length(account) <= 263))),
    CONSTRAINT coinbase_only_credits_amount_msat_check CHECK ((amount_msat >= 0)),
    CONSTRAINT coinbase_only_credits_block_check CHECK ((length(block) = 32)),
    CONSTRAINT coinbase_only_credits_check CHECK (((block IS NULL) = (state = 'open'::text))),
    CONSTRAINT coinbase_only_credits_check1 CHECK (((transfer IS NOT NULL) = ((state <> 'open'::text) AND (amount_msat > 0)))),
    CONSTRAINT coinbase_only_credits_check2 CHECK (((decided_at IS NOT NULL) = (state = ANY (ARRAY['posted'::text, 'voided'::text, 'carried'::text])))),
    CONSTRAINT coinbase_only_credits_check3 CHECK (((carried_to IS NOT NULL) = (state = 'carried'::text))),
    CONSTRAINT coinbase_only_credits_shares_check CHECK ((shares > 0)),
    CONSTRAINT coinbase_only_credits_state_check CHECK ((state = ANY (ARRAY['open'::text, 'followed'::text, 'posted'::text, 'voided'::text, 'carried'::text]))),
    CONSTRAINT coinbase_only_credits_watched_s_check CHECK ((watched_s >= 0))
);

ALTER TABLE public.coinbase_only_credits ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.coinbase_only_credits_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.declared_jobs (
    token bytea NOT NULL,
    identity text NOT NULL,
    batch_root bytea,
    coinbase_prefix bytea NOT NULL,
    coinbase_suffix bytea NOT NULL,
    version bigint NOT NULL,
    txids bytea[] NOT NULL,
    pool_value_sat bigint NOT NULL,
    expires_at bigint NOT NULL,
    wtxids bytea[] NOT NULL,
    prev_hash bytea NOT NULL,
    nbits bigint NOT NULL,
    CONSTRAINT declared_jobs_pool_value_sat_check CHECK ((pool_value_sat >= 0)),
    CONSTRAINT declared_jobs_prev_hash_check CHECK ((length(prev_hash) = 32)),
    CONSTRAINT declared_jobs_token_check CHECK (((length(token) >= 1) AND (length(token) <= 64))),
    CONSTRAINT each_transaction_has_both_ids CHECK ((cardinality(txids) = cardinality(wtxids)))
);

CREATE TABLE public.declared_transactions (
    wtxid bytea NOT NULL,
    raw bytea NOT NULL,
    declared_at bigint NOT NULL,
    CONSTRAINT declared_transactions_wtxid_check CHECK ((length(wtxid) = 32))
);

CREATE TABLE public.devices (
    account text NOT NULL,
    device text NOT NULL,
    shares bigint NOT NULL,
    work numeric NOT NULL,
    hour bigint NOT NULL,
    hour_work numeric NOT NULL,
    hour_before_work numeric NOT NULL,
    first_share_at timestamp with time zone DEFAULT now() NOT NULL,
    last_share_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT devices_device_check CHECK ((length(device) <= 64)),
    CONSTRAINT devices_hour_before_work_check CHECK ((hour_before_work >= (0)::numeric)),
    CONSTRAINT devices_hour_work_check CHECK ((hour_work >= (0)::numeric)),
    CONSTRAINT devices_shares_check CHECK ((shares >= 0)),
    CONSTRAINT devices_work_check CHECK ((work >= (0)::numeric))
);

CREATE TABLE public.findings (
    root bytea NOT NULL,
    header_hash bytea NOT NULL,
    leaf_index integer NOT NULL,
    mismatch text NOT NULL,
    "position" bigint,
    replayed_tokens bigint,
    replayed_output_digest bytea,
    replayed_trace_root bytea,
    validator text NOT NULL,
    found_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT findings_check CHECK ((("position" IS NOT NULL) = (mismatch = 'tokens'::text))),
    CONSTRAINT findings_check1 CHECK (((replayed_tokens IS NULL) = (replayed_output_digest IS NULL))),
    CONSTRAINT findings_check2 CHECK (((replayed_tokens IS NULL) = (replayed_trace_root IS NULL))),
    CONSTRAINT findings_header_hash_check CHECK ((length(header_hash) = 32)),
    CONSTRAINT findings_leaf_index_check CHECK ((leaf_index >= 0)),
    CONSTRAINT findings_replayed_output_digest_check CHECK ((length(replayed_output_digest) = 32)),
    CONSTRAINT findings_replayed_trace_root_check CHECK ((length(replayed_trace_root) = 32))
);

CREATE TABLE public.hash_credits (
    account integer NOT NULL,
    shares bigint NOT NULL,
    inference_shares bigint NOT NULL,
    work numeric NOT NULL,
    unsettled numeric NOT NULL,
    held_part numeric DEFAULT 0 NOT NULL,
    settlements bigint DEFAULT 0 NOT NULL,
    CONSTRAINT hash_credits_held_part_check CHECK ((held_part >= (0)::numeric)),
    CONSTRAINT hash_credits_inference_shares_check CHECK ((inference_shares >= 0)),
    CONSTRAINT hash_credits_shares_check CHECK ((shares >= 0)),
    CONSTRAINT hash_credits_unsettled_check CHECK ((unsettled >= (0)::numeric)),
    CONSTRAINT hash_credits_work_check CHECK ((work >= (0)::numeric))
);

CREATE TABLE public.held_credits (
    root bytea NOT NULL,
    worker bytea NOT NULL,
    account text NOT NULL,
    amount_msat bigint NOT NULL,
    transfer bytea NOT NULL,
    batch_number bigint NOT NULL,
    state text DEFAULT 'held'::text NOT NULL,
    held_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT held_credits_amount_msat_check CHECK ((amount_msat > 0)),
    CONSTRAINT held_credits_batch_number_check CHECK ((batch_number > 0)),
    CONSTRAINT held_credits_state_check CHECK ((state = ANY (ARRAY['held'::text, 'matured'::text, 'forfeited'::text]))),
    CONSTRAINT held_credits_worker_check CHECK ((length(worker) = 32))
);

CREATE TABLE public.shares (
    work bigint NOT NULL,
    height integer NOT NULL,
    account integer NOT NULL,
    header_hash uuid NOT NULL,
    CONSTRAINT shares_height_check CHECK ((height >= 0)),
    CONSTRAINT shares_work_check1 CHECK ((work >= 0))
)
PARTITION BY RANGE (height);

CREATE VIEW public.named_shares AS
 SELECT shares.height,
    shares.header_hash,
    substr(accounts.name, 8) AS account,
    shares.work,
        CASE
            WHEN (batches.root IS NULL) THEN 'hash'::text
            ELSE 'inference'::text
        END AS kind
   FROM ((public.shares
     JOIN public.accounts ON ((accounts.id = shares.account)))
     LEFT JOIN public.batches ON ((public.share_key(batches.settled_by) = shares.header_hash)));

CREATE TABLE public.open_slice_work (
    account integer NOT NULL,
    slice bigint NOT NULL,
    weight numeric NOT NULL,
    shares bigint NOT NULL,
    evidence bytea NOT NULL,
    CONSTRAINT open_slice_work_evidence_check CHECK ((length(evidence) = 32)),
    CONSTRAINT open_slice_work_shares_check CHECK ((shares > 0)),
    CONSTRAINT open_slice_work_weight_check CHECK ((weight > (0)::numeric))
);

CREATE TABLE public.payees (
    payee text NOT NULL,
    tries integer DEFAULT 0 NOT NULL,
    next_try_at timestamp with time zone DEFAULT now() NOT NULL,
    failure_class text,
    CONSTRAINT payees_failure_class_check CHECK (((length(failure_class) >= 1) AND (length(failure_class) <= 32))),
    CONSTRAINT payees_payee_check CHECK (((length(payee) >= 1) AND (length(payee) <= 263))),
    CONSTRAINT payees_tries_check CHECK ((tries >= 0))
);

CREATE TABLE public.payouts (
    id bytea NOT NULL,
    worker text NOT NULL,
    amount_msat bigint NOT NULL,
    state text NOT NULL,
    bolt11 text,
    payment_hash bytea,
    fee_max_msat bigint,
    fee_msat bigint,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    transfer bytea,
    fees_borne_by text DEFAULT 'pool'::text NOT NULL,
    failure_class text,
    CONSTRAINT payouts_amount_msat_check CHECK ((amount_msat > 0)),
    CONSTRAINT payouts_failure_class_check CHECK (((length(failure_class) >= 1) AND (length(failure_class) <= 32))),
    CONSTRAINT payouts_fee_max_msat_check CHECK ((fee_max_msat >= 0)),
    CONSTRAINT payouts_fee_msat_check CHECK ((fee_msat >= 0)),
    CONSTRAINT payouts_fees_borne_by_check CHECK ((fees_borne_by = ANY (ARRAY['pool'::text, 'payee'::text]))),
    CONSTRAINT payouts_id_check CHECK ((length(id) = 32)),
    CONSTRAINT payouts_payment_hash_check CHECK ((length(payment_hash) = 32)),
    CONSTRAINT payouts_state_check CHECK ((state = ANY (ARRAY['reserved'::text, 'paid'::text, 'failed'::text])))
);

COMMENT ON COLUMN public.payouts.bolt11 IS 'the invoice of a payout of before migration 21; later ones have it in attempts';

CREATE TABLE public.receipts (
    task_id bytea NOT NULL,
    receipt text NOT NULL
);

CREATE TABLE public.reward_chain (
    only_one boolean DEFAULT true NOT NULL,
    draw bytea NOT NULL,
    version bigint DEFAULT 0 NOT NULL,
    length integer,
    first_slice bigint,
    searched_height integer,
    CONSTRAINT reward_chain_draw_check CHECK ((length(draw) = 32)),
    CONSTRAINT reward_chain_first_slice_check CHECK ((first_slice >= 0)),
    CONSTRAINT reward_chain_length_check CHECK ((length > 0)),
    CONSTRAINT reward_chain_only_one_check CHECK (only_one),
    CONSTRAINT reward_chain_searched_height_check CHECK ((searched_height >= 0)),
    CONSTRAINT reward_chain_version_check CHECK ((version >= 0))
);

CREATE TABLE public.reward_slices (
    number bigint NOT NULL,
    previous bytea NOT NULL,
    accounts integer NOT NULL,
    total numeric NOT NULL,
    top bytea NOT NULL,
    root bytea NOT NULL,
    signer bytea NOT NULL,
    signature bytea NOT NULL,
    closed_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT reward_slices_accounts_check CHECK ((accounts > 0)),
    CONSTRAINT reward_slices_number_check CHECK ((number >= 0)),
    CONSTRAINT reward_slices_previous_check CHECK ((length(previous) = 32)),
    CONSTRAINT reward_slices_root_check CHECK ((length(root) = 32)),
    CONSTRAINT reward_slices_signature_check CHECK ((length(signature) = 64)),
    CONSTRAINT reward_slices_signer_check CHECK ((length(signer) = 32)),
    CONSTRAINT reward_slices_top_check CHECK ((length(top) = 32)),
    CONSTRAINT reward_slices_total_check CHECK ((total > (0)::numeric))
);

CREATE TABLE public.share_log_rejects (
    log_id bigint NOT NULL,
    "position" bigint NOT NULL,
    record bytea NOT NULL,
    reason text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.share_logs (
    log_id bigint NOT NULL,
    "position" bigint NOT NULL,
    writer bigint NOT NULL,
    last_proof uuid,
    opened_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT share_logs_position_check CHECK (("position" >= 0))
);

CREATE TABLE public.share_sums (
    account integer NOT NULL,
    span_s integer NOT NULL,
    starts_at bigint NOT NULL,
    shares bigint NOT NULL,
    work numeric NOT NULL,
    credit numeric NOT NULL,
    CONSTRAINT share_sums_span_s_check CHECK ((span_s = ANY (ARRAY[60, 3600, 86400])))
);

CREATE TABLE public.shares_0 (
    work bigint NOT NULL,
    height integer NOT NULL,
    account integer NOT NULL,
    header_hash uuid NOT NULL,
    CONSTRAINT shares_height_check CHECK ((height >= 0)),
    CONSTRAINT shares_work_check1 CHECK ((work >= 0))
);

CREATE TABLE public.shares_144 (
    work bigint NOT NULL,
    height integer NOT NULL,
    account integer NOT NULL,
    header_hash uuid NOT NULL,
    CONSTRAINT shares_height_check CHECK ((height >= 0)),
    CONSTRAINT shares_work_check1 CHECK ((work >= 0))
);

CREATE TABLE public.slice_work (
    slice bigint NOT NULL,
    account integer NOT NULL,
    weight numeric NOT NULL,
    shares bigint NOT NULL,
    evidence bytea NOT NULL,
    CONSTRAINT slice_work_evidence_check CHECK ((length(evidence) = 32)),
    CONSTRAINT slice_work_shares_check CHECK ((shares > 0)),
    CONSTRAINT slice_work_weight_check CHECK ((weight > (0)::numeric))
);

CREATE TABLE public.spent_job_tokens (
    id bytea NOT NULL,
    expires_at bigint NOT NULL,
    CONSTRAINT spent_job_tokens_id_check CHECK ((length(id) = 16))
);

CREATE TABLE public.subsidy_days (
    day bigint NOT NULL,
    granted_msat bigint NOT NULL,
    CONSTRAINT subsidy_days_granted_msat_check CHECK ((granted_msat >= 0))
);

CREATE TABLE public.tasks (
    id bytea NOT NULL,
    state text NOT NULL,
    model_id bytea NOT NULL,
    prompt bytea,
    stop bytea,
    request_hash bytea NOT NULL,
    salt bytea NOT NULL,
    sampling bytea NOT NULL,
    seed bytea NOT NULL,
    price_msat bigint NOT NULL,
    worker bytea,
    transcript bytea,
    output_tokens bytea,
    error_code text,
    created_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    answer_form bytea,
    input_tokens bigint DEFAULT 0 NOT NULL,
    input_msat_per_million bigint DEFAULT 0 NOT NULL,
    output_msat_per_million bigint DEFAULT 0 NOT NULL,
    reserve bytea,
    stops_at bigint,
    CONSTRAINT assigned_has_a_worker CHECK (((worker IS NOT NULL) OR (state <> ALL (ARRAY['assigned'::text, 'finished'::text, 'settled'::text])))),
    CONSTRAINT finished_has_a_transcript CHECK ((((transcript IS NOT NULL) AND (output_tokens IS NOT NULL)) OR (state <> ALL (ARRAY['finished'::text, 'settled'::text])))),
    CONSTRAINT priced_is_paid CHECK (((reserve IS NOT NULL) OR (price_msat = 0))),
    CONSTRAINT prompt_is_a_digest_and_tokens CHECK ((((length(prompt) >= 36) AND (length(prompt) <= 262176)) AND ((length(prompt) % 4) = 0))),
    CONSTRAINT prompt_is_wiped_at_the_end CHECK ((((prompt IS NULL) AND (stop IS NULL)) OR (state = ANY (ARRAY['queued'::text, 'assigned'::text, 'finished'::text])))),
    CONSTRAINT tasks_answer_form_check CHECK (((length(answer_form) >= 5) AND (length(answer_form) <= 16500))),
    CONSTRAINT tasks_check CHECK (((answer_form IS NULL) OR (prompt IS NOT NULL))),
    CONSTRAINT tasks_id_check CHECK ((length(id) = 32)),
    CONSTRAINT tasks_input_msat_per_million_check CHECK ((input_msat_per_million >= 0)),
    CONSTRAINT tasks_input_tokens_check CHECK (((input_tokens >= 0) AND (input_tokens <= '4294967295'::bigint))),
    CONSTRAINT tasks_model_id_check CHECK ((length(model_id) = 32)),
    CONSTRAINT tasks_output_msat_per_million_check CHECK ((output_msat_per_million >= 0)),
    CONSTRAINT tasks_price_msat_check CHECK ((price_msat >= 0)),
    CONSTRAINT tasks_request_hash_check CHECK ((length(request_hash) = 32)),
    CONSTRAINT tasks_salt_check CHECK ((length(salt) = 32)),
    CONSTRAINT tasks_sampling_check CHECK ((length(sampling) = 16)),
    CONSTRAINT tasks_seed_check CHECK ((length(seed) = 32)),
    CONSTRAINT tasks_state_check CHECK ((state = ANY (ARRAY['queued'::text, 'assigned'::text, 'finished'::text, 'settled'::text, 'failed'::text, 'cancelled'::text, 'expired'::text]))),
    CONSTRAINT tasks_worker_check CHECK ((length(worker) = 32))
);

CREATE TABLE public.transfers (
    id bytea NOT NULL,
    kind text NOT NULL,
    ends bytea,
    debit bigint NOT NULL,
    credit bigint NOT NULL,
    amount bigint NOT NULL,
    reason text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT transfers_amount_check CHECK ((amount > 0)),
    CONSTRAINT transfers_check CHECK ((debit <> credit)),
    CONSTRAINT transfers_check1 CHECK (((ends IS NOT NULL) = (kind = ANY (ARRAY['post'::text, 'void'::text])))),
    CONSTRAINT transfers_id_check CHECK ((length(id) = 16)),
    CONSTRAINT transfers_kind_check CHECK ((kind = ANY (ARRAY['posted'::text, 'pending'::text, 'post'::text, 'void'::text]))),
    CONSTRAINT transfers_reason_check CHECK (((length(reason) >= 1) AND (length(reason) <= 64)))
);

CREATE TABLE public.window_now (
    account integer NOT NULL,
    weight numeric NOT NULL,
    CONSTRAINT window_now_weight_check CHECK ((weight > (0)::numeric))
);

ALTER TABLE ONLY public.shares ATTACH PARTITION public.shares_0 FOR VALUES FROM (0) TO (144);

ALTER TABLE ONLY public.shares ATTACH PARTITION public.shares_144 FOR VALUES FROM (144) TO (288);

INSERT INTO public._sqlx_migrations VALUES (1, 'ledger', '2026-11-27 18:16:28.124322+00', true, '\x559de0b49be50a97b051b29fc88441d76221a8467ebe9bbc6d05c9d819cdd736c8a42600edc981b3019704af86c7d020', 29934213);
INSERT INTO public._sqlx_migrations VALUES (2, 'work', '2026-11-27 18:16:28.155113+00', true, '\xf0582ac5d0d14a9d65846a20fdcde36d2c34d86e445c6d3b26515481b59418059057e63b89c161d1f0f3f6085b97729b', 77300415);
INSERT INTO public._sqlx_migrations VALUES (3, 'payouts', '2026-11-27 18:16:28.233005+00', true, '\xda0975ecc0c928fa81f3bc3c90023505c78e1b299707e754bb3938bc92b48b0929902f08fa7d5eb8c4aea74648234767', 18571888);
INSERT INTO public._sqlx_migrations VALUES (4, 'audit', '2026-11-27 18:16:28.252093+00', true, '\x1ddce16a6b55dec08153d92547539bfe1622a6e81559ebe02a377e38f5992ba95c74b4e07d07635259dd6dc80767ea95', 48946005);
INSERT INTO public._sqlx_migrations VALUES (5, 'declared', '2026-11-27 18:16:28.301482+00', true, '\x8f6bbe112912f628d592bd83d157d23f93ccc40684646a4806e03fa7904851ab701bfc77943212bf11b2dbf69eb68425', 38270760);
INSERT INTO public._sqlx_migrations VALUES (6, 'maturity', '2026-11-27 18:16:28.343953+00', true, '\x6eeaff257f34ac00efe8e48cbdbb8cfbe7b4727c11f139f4b0766216d7f46b29f7d39690b8014f88266d01604ae8d0ae', 3911116);
INSERT INTO public._sqlx_migrations VALUES (7, 'bounds', '2026-11-27 18:16:28.348246+00', true, '\x8e4d5c56c66b99e7bbd7ee2da0495ef34019a67d1aa351299296b4d3e3635dd3d173c53806cd5fab35b14521536f67ac', 6172619);
INSERT INTO public._sqlx_migrations VALUES (8, 'coinbase only', '2026-11-27 18:16:28.354726+00', true, '\x0b17ca27599c53a93a9129784e0575b24099075b8ea88b694299194fcc42e410b62ce8bc674fce149571dd7a3ea4fffa', 37451414);
INSERT INTO public._sqlx_migrations VALUES (9, 'devices', '2026-11-27 18:16:28.39251+00', true, '\x6edcbca6c8246cb014e71be9de23dce26c8da26e3ea5a01e90aa927d0520689f25dabe894bd35455f3b482cb6e543d20', 10635380);
INSERT INTO public._sqlx_migrations VALUES (10, 'open batches', '2026-11-27 18:16:28.403525+00', true, '\x027c89b775d0e81749dda1241aef54a15a75f0cf080e389408da9cd592e599730fa98833863aeaf660eeb057fa5ffc1a', 4119298);
INSERT INTO public._sqlx_migrations VALUES (11, 'answer forms', '2026-11-27 18:16:28.407939+00', true, '\x668d630526c89eb027da576ad2cd335a97a5015aa2019224acc36457d1cc07ffb579b7dbf7c369278cee629abf7b5b75', 1194240);
INSERT INTO public._sqlx_migrations VALUES (12, 'coinbase only accounts', '2026-11-27 18:16:28.409349+00', true, '\xcb4b87f87ba6cfeca3b7a743cfb1f26e36cc96340acad0cfef3e7a7dd61745418f8326d598a58cd631d572d8302292f2', 6997036);
INSERT INTO public._sqlx_migrations VALUES (13, 'samples', '2026-11-27 18:16:28.419266+00', true, '\xc94a49f622ef920d51a66e73a0ce79eb893adafe63711f4d5a10ddfeafd83b3103db2fa55e92ca28ec337f89f92b816c', 35995703);
INSERT INTO public._sqlx_migrations VALUES (14, 'value', '2026-11-27 18:16:28.453064+00', true, '\x12d38f1ec91b679bbfe2685a75e16a1d2cffc9d167de9aca73b10dbc81d3265508e5777361c008261b958f07e58d13f3', 35093791);
INSERT INTO public._sqlx_migrations VALUES (15, 'encoded prompts', '2026-11-27 18:16:28.491425+00', true, '\x5f16b51f18ff106cba2f8e138196216e5fd50a9d22027c39f01a6261f487660aadd7cf77754de3144052676e160c1dc0', 4286371);
INSERT INTO public._sqlx_migrations VALUES (16, 'stakes', '2026-11-27 18:16:28.495986+00', true, '\x56430ce9d69b6c36a7b27d0069c7f3bb66af8e67e20c358e45c0854e54f39956437963fbbb32dfb89f801cc1c813792e', 3439903);
INSERT INTO public._sqlx_migrations VALUES (17, 'kept credit', '2026-11-27 18:16:28.499663+00', true, '\x188ef7e19e44e2e4525f6b140ab524c3a5f1be938e0cfc3c472578d5cbf177e2e81a93bde1a623d30e315989ece80c5d', 3191057);
INSERT INTO public._sqlx_migrations VALUES (18, 'transfers in sets', '2026-11-27 18:16:28.503105+00', true, '\x9f730e39efef48063edeadc41ed233592dc71e54f5f9e4daed1e3899b14a9754ff0d41e2fc099606cfa5be1cae0e7c71', 4771350);
INSERT INTO public._sqlx_migrations VALUES (19, 'share log', '2026-11-27 18:16:28.508163+00', true, '\x3c6f0614aec22529ab503e9a3aa5552a0ce14ff0897c1e697be7ce3008481e44a952c07f0a1cb6c5ff8a8d4aec5edc2e', 104961513);
INSERT INTO public._sqlx_migrations VALUES (20, 'rewards', '2026-11-27 18:16:28.613941+00', true, '\x762b48a50157dda3e368adbad1d1f629b8dbdadec7afd3685dfe6288ef4066cba8dcb395626df152ca47a4e0f5ecf503', 74493569);
INSERT INTO public._sqlx_migrations VALUES (21, 'attempts', '2026-11-27 18:16:28.689041+00', true, '\x11a316f0b5e607be39ec8c6b84d08acafeecb327887cfd9bfd434a2e071851e548f1f8e566be4473dbbf590553f10000', 75328545);
INSERT INTO public._sqlx_migrations VALUES (22, 'daemons role', '2026-11-27 18:16:28.764911+00', true, '\x319f3a8ddac261e2bdc7961cf67ec7041bb0ed86e492182bf82cf699877570bb12e6b3cc3641a7d1af5dd0be0800f2bf', 1513139);

INSERT INTO public.accounts OVERRIDING SYSTEM VALUE VALUES (4, 'worker:alice', true, 0, 0, 0, 742500);
INSERT INTO public.accounts OVERRIDING SYSTEM VALUE VALUES (5, 'worker:bob', true, 0, 0, 0, 247500);
INSERT INTO public.accounts OVERRIDING SYSTEM VALUE VALUES (3, 'pool:fees', false, 0, 0, 0, 10000);
INSERT INTO public.accounts OVERRIDING SYSTEM VALUE VALUES (2, 'pool:rewards', false, 0, 1000000, 0, 0);
INSERT INTO public.accounts OVERRIDING SYSTEM VALUE VALUES (6, 'worker:carol', true, 0, 10000, 0, 20000);
INSERT INTO public.accounts OVERRIDING SYSTEM VALUE VALUES (7, 'worker:dan', true, 0, 0, 0, 20000);
INSERT INTO public.accounts OVERRIDING SYSTEM VALUE VALUES (8, 'worker:eve', true, 10000, 0, 0, 20000);
INSERT INTO public.accounts OVERRIDING SYSTEM VALUE VALUES (9, 'worker:frank', true, 10000, 0, 0, 20000);
INSERT INTO public.accounts OVERRIDING SYSTEM VALUE VALUES (17, 'worker:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', true, 0, 0, 0, 2030);
INSERT INTO public.accounts OVERRIDING SYSTEM VALUE VALUES (10, 'worker:grace', true, 10000, 0, 0, 20000);
INSERT INTO public.accounts OVERRIDING SYSTEM VALUE VALUES (18, 'pool:forfeited', false, 0, 0, 0, 1000);
INSERT INTO public.accounts OVERRIDING SYSTEM VALUE VALUES (15, 'payer:subsidy', true, 2000, 3000, 0, 1099511627776);
INSERT INTO public.accounts OVERRIDING SYSTEM VALUE VALUES (16, 'paid:inference', true, 0, 3000, 2000, 3000);
INSERT INTO public.accounts OVERRIDING SYSTEM VALUE VALUES (11, 'worker:heidi', true, 0, 10000, 0, 20000);
INSERT INTO public.accounts OVERRIDING SYSTEM VALUE VALUES (13, 'pool:lightning_fees', false, 150, 25, 0, 0);
INSERT INTO public.accounts OVERRIDING SYSTEM VALUE VALUES (12, 'pool:lightning', false, 0, 0, 30150, 20025);
INSERT INTO public.accounts OVERRIDING SYSTEM VALUE VALUES (14, 'pool:subsidy', false, 0, 1099511627776, 0, 0);
INSERT INTO public.accounts OVERRIDING SYSTEM VALUE VALUES (1, 'pool:hash', false, 1000, 121030, 0, 0);
INSERT INTO public.accounts OVERRIDING SYSTEM VALUE VALUES (19, 'worker:ivan', true, 0, 0, 1000, 1000);

INSERT INTO public.appeals VALUES ('\xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', '\x0423088618701535ced29fc30888c751af9defdeef413b894ea6321cbc930063', '\x0909090909090909090909090909090909090909090909090909090909090909', '\x0505050505050505050505050505050505050505050505050505050505050505', 0, '\x4f8627cbe49c71ff022a2c660cfca3ce1eb9c7779ff7961470dab28abbbcb65f', '\xbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', 2, 'tokens', 1, 3, '\x8b4e92b89f39272a5e828855d5d3a388eef19e6042ba338f5a16ecec4fc71a86', '\x0000000000000000000000000000000000000000000000000000000000000000', 2, '\xeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee', '\xffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff', '{one,two}', 1000, 1, '2026-11-27 18:16:31.012119+00', '\x0909090909090909090909090909090909090909090909090909090909090909', '\x0909090909090909090909090909090909090909090909090909090909090909090909090909090909090909090909090909090909090909090909090909090909090909090909090909090909090909', 5000);

INSERT INTO public.attempts VALUES ('\x0101010101010101010101010101010101010101010101010101010101010101', '\x0101010101010101010101010101010101010101010101010101010101010101', 1, 'bolt11', 'lnbcrt11', '\x72cd6e8422c407fb6d098690f1130b7ded7ec2f7f5e1d30bd9d521f015363793', 50, 432, '2026-11-27 19:16:29+00', 'succeeded', NULL, '\x0101010101010101010101010101010101010101010101010101010101010101', 20, '2026-11-27 18:16:29.827309+00', '2026-11-27 18:16:29.9136+00', NULL);
INSERT INTO public.attempts VALUES ('\x0202020202020202020202020202020202020202020202020202020202020202', '\x0202020202020202020202020202020202020202020202020202020202020202', 1, 'bolt11', 'lnbcrt12', '\x75877bb41d393b5fb8455ce60ecd8dda001d06316496b14dfa7f895656eeca4a', 50, 432, '2026-11-27 19:16:29+00', 'failed', 'no_route', NULL, NULL, '2026-11-27 18:16:29.975288+00', '2026-11-27 18:16:30.000429+00', '2026-11-27 18:16:30.104229+00');
INSERT INTO public.attempts VALUES ('\x0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c', '\x0202020202020202020202020202020202020202020202020202020202020202', 2, 'bolt11', 'lnbcrt12', '\x75877bb41d393b5fb8455ce60ecd8dda001d06316496b14dfa7f895656eeca4a', 50, 432, '2026-11-27 19:16:29+00', 'failed', 'no_route', NULL, NULL, '2026-11-27 18:16:30.02828+00', '2026-11-27 18:16:30.059315+00', '2026-11-27 18:16:30.104229+00');
INSERT INTO public.attempts VALUES ('\x0303030303030303030303030303030303030303030303030303030303030303', '\x0303030303030303030303030303030303030303030303030303030303030303', 1, 'bolt11', 'lnbcrt13', '\x648aa5c579fb30f38af744d97d6ec840c7a91277a499a0d780f3e7314eca090b', 50, 432, '2026-11-27 19:16:30+00', 'dispatched', NULL, NULL, NULL, '2026-11-27 18:16:30.152457+00', NULL, '2026-11-27 18:17:00.197382+00');
INSERT INTO public.attempts VALUES ('\x0404040404040404040404040404040404040404040404040404040404040404', '\x0404040404040404040404040404040404040404040404040404040404040404', 1, 'bolt11', 'lnbcrt14', '\x9f4fb68f3e1dac82202f9aa581ce0bbf1f765df0e9ac3c8c57e20f685abab8ed', 50, 432, '2026-11-27 19:16:30+00', 'prepared', NULL, NULL, NULL, '2026-11-27 18:16:30.198768+00', NULL, '2026-11-27 18:17:00.198768+00');
INSERT INTO public.attempts VALUES ('\x0505050505050505050505050505050505050505050505050505050505050505', '\x0505050505050505050505050505050505050505050505050505050505050505', 1, 'bolt11', 'lnbcrt15', '\xf849d67325facf04177bc663b2dc544051831c589ef581d412f2eba44834e77c', 50, 432, '2026-11-27 19:16:30+00', 'review', 'forgotten', NULL, NULL, '2026-11-27 18:16:30.241316+00', NULL, '2026-11-27 18:17:00.276069+00');
INSERT INTO public.attempts VALUES ('\x0606060606060606060606060606060606060606060606060606060606060606', '\x0606060606060606060606060606060606060606060606060606060606060606', 1, 'bolt11', 'lnbcrt16', '\xe802086ad6a1e16b78352ad7296d2aabd835b1b16dbe951e1135b97c68e29d81', 50, 432, '2026-11-27 19:16:30+00', 'succeeded', 'no_route', '\x0606060606060606060606060606060606060606060606060606060606060606', 5, '2026-11-27 18:16:30.280131+00', '2026-11-27 18:16:30.349866+00', NULL);

INSERT INTO public.audit_records VALUES ('\xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 3, 1, 0, '2026-11-27 18:16:30.518749+00');

INSERT INTO public.audits OVERRIDING SYSTEM VALUE VALUES (1, '\xc9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9', '\x14acf9b11dd828b890802dba016b288e64587e7c9091322d53ec3fb000aba715', '{0}', 'passed', '2026-11-27 18:16:30.518749+00', '\xc9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9', '\xc9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9', 5000);
INSERT INTO public.audits OVERRIDING SYSTEM VALUE VALUES (2, '\xcacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacaca', '\x1796f9860f19c2fe87bfa911f4be6c7cb685062baac5940e07ee3e575f73e8f3', '{0}', 'passed', '2026-11-27 18:16:30.776402+00', '\xcacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacaca', '\xcacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacaca', 5000);
INSERT INTO public.audits OVERRIDING SYSTEM VALUE VALUES (3, '\xcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcb', '\x6ca47ea17ff92b9cc6d923ab18d8f92ddec40c9279a6a52729cd8169ea86411b', '{0}', 'passed', '2026-11-27 18:16:30.923596+00', '\xcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcb', '\xcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcb', 5000);
INSERT INTO public.audits OVERRIDING SYSTEM VALUE VALUES (4, '\x0909090909090909090909090909090909090909090909090909090909090909', '\x0423088618701535ced29fc30888c751af9defdeef413b894ea6321cbc930063', '{0}', 'tokens', '2026-11-27 18:16:31.012119+00', '\x0909090909090909090909090909090909090909090909090909090909090909', '\x0909090909090909090909090909090909090909090909090909090909090909090909090909090909090909090909090909090909090909090909090909090909090909090909090909090909090909', 5000);

INSERT INTO public.batches VALUES ('\x14acf9b11dd828b890802dba016b288e64587e7c9091322d53ec3fb000aba715', '\xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'settled', '{"\\x0101010101010101010101010101010101010101010101010101010101010101"}', NULL, '2026-11-27 18:16:30.518749+00', 1795803990, NULL, NULL, 0, NULL, '\xc9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9');
INSERT INTO public.batches VALUES ('\x1796f9860f19c2fe87bfa911f4be6c7cb685062baac5940e07ee3e575f73e8f3', '\xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'settled', '{"\\x0202020202020202020202020202020202020202020202020202020202020202"}', NULL, '2026-11-27 18:16:30.776402+00', 1795803990, NULL, NULL, 0, NULL, '\xcacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacaca');
INSERT INTO public.batches VALUES ('\x6ca47ea17ff92b9cc6d923ab18d8f92ddec40c9279a6a52729cd8169ea86411b', '\xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'settled', '{"\\x0303030303030303030303030303030303030303030303030303030303030303"}', NULL, '2026-11-27 18:16:30.923596+00', 1795803990, NULL, NULL, 0, NULL, '\xcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcb');
INSERT INTO public.batches VALUES ('\x8a87c669d7115ee0164d786b6f3a3df28c3d55b46ef7d5ee5eca0225a9e64f78', '\xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'open', '{"\\x0404040404040404040404040404040404040404040404040404040404040404"}', NULL, NULL, 1795889790, NULL, NULL, 0, NULL, NULL);
INSERT INTO public.batches VALUES ('\x0423088618701535ced29fc30888c751af9defdeef413b894ea6321cbc930063', '\xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'failed', '{"\\x0505050505050505050505050505050505050505050505050505050505050505"}', 'tokens', '2026-11-27 18:16:31.012119+00', 1795803990, NULL, NULL, 0, NULL, NULL);

INSERT INTO public.block_credits VALUES ('\x0400eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee', 4, 742500);
INSERT INTO public.block_credits VALUES ('\x0400eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee', 5, 247500);
INSERT INTO public.block_credits VALUES ('\x0600eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee', 4, 668250);
INSERT INTO public.block_credits VALUES ('\x0600eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee', 5, 222750);

INSERT INTO public.block_rewards VALUES ('\x0400eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee', 101, 'bob', 'pplns', 1000000, 10000, 10000, 8, 0, 1, 'matured', '2026-11-27 18:16:28.990781+00');
INSERT INTO public.block_rewards VALUES ('\x0600eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee', 101, 'alice', 'pplns', 900000, 9000, 10000, 8, 0, 1, 'active', '2026-11-27 18:16:29.343709+00');

INSERT INTO public.blocks VALUES ('\x61eaeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee', 100, 'ivan', 'seen', '2026-11-27 18:16:31.119436+00');
INSERT INTO public.blocks VALUES ('\x62eaeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee', 100, 'ivan', 'not seen', '2026-11-27 18:16:31.209888+00');
INSERT INTO public.blocks VALUES ('\x63eaeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee', 100, 'ivan', 'solved', '2026-11-27 18:16:31.285294+00');
INSERT INTO public.blocks VALUES ('\x64eaeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee', 100, 'ivan', 'solved', '2026-11-27 18:16:31.337005+00');

INSERT INTO public.claimed_shares VALUES ('66e908f8-eb69-4756-bf5f-39afe085358f', 1, '\x00');

INSERT INTO public.coinbase_only_credits OVERRIDING SYSTEM VALUE VALUES (1, 'ivan', 1000, 1, 'posted', '\x61eaeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee', '\xa3fbd3068d059e8417b6e4c4bfed59b5', 0, NULL, '2026-11-27 18:16:31.084147+00', '2026-11-27 18:16:31.123299+00');
INSERT INTO public.coinbase_only_credits OVERRIDING SYSTEM VALUE VALUES (2, 'ivan', 1000, 1, 'voided', '\x62eaeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee', '\xf4f28a93ef46fbd41d0d2d8f091d536c', 0, NULL, '2026-11-27 18:16:31.160031+00', '2026-11-27 18:16:31.219323+00');
INSERT INTO public.coinbase_only_credits OVERRIDING SYSTEM VALUE VALUES (3, 'ivan', 1000, 1, 'followed', '\x63eaeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee', '\x0375258e8ffc53f8a574591363a0cd20', 0, NULL, '2026-11-27 18:16:31.260166+00', NULL);
INSERT INTO public.coinbase_only_credits OVERRIDING SYSTEM VALUE VALUES (4, 'ivan', 1000, 1, 'open', NULL, NULL, 0, NULL, '2026-11-27 18:16:31.288566+00', NULL);

INSERT INTO public.declared_jobs VALUES ('\x0102', 'alice', '\x0423088618701535ced29fc30888c751af9defdeef413b894ea6321cbc930063', '\x00', '\x00', 536870912, '{"\\xca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"}', 5000000000, 1700000600, '{"\\x3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d"}', '\x2e7d2c03a9507ae265ecf5b5356885a53393a2029d241394997265a1a25aefc6', 486604799);

INSERT INTO public.declared_transactions VALUES ('\x3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d', '\x0200', 1700000000);

INSERT INTO public.devices VALUES ('alice', 'rig1', 1, 7, 498834, 7, 0, '2026-11-27 18:16:31.367306+00', '2026-11-27 18:16:31.367306+00');

INSERT INTO public.findings VALUES ('\x8a87c669d7115ee0164d786b6f3a3df28c3d55b46ef7d5ee5eca0225a9e64f78', '\x0505050505050505050505050505050505050505050505050505050505050505', 0, 'tokens', 1, 2, '\xeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee', '\xffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff', 'one', '2026-11-27 18:16:30.979015+00');

INSERT INTO public.hash_credits VALUES (5, 3, 0, 3298534883328, 0, 0, 0);
INSERT INTO public.hash_credits VALUES (4, 4, 0, 4398046511104, 0, 0, 0);
INSERT INTO public.hash_credits VALUES (6, 1, 0, 1099511627776, 0, 0, 1);
INSERT INTO public.hash_credits VALUES (7, 1, 0, 1099511627776, 0, 0, 1);
INSERT INTO public.hash_credits VALUES (8, 1, 0, 1099511627776, 0, 0, 1);
INSERT INTO public.hash_credits VALUES (9, 1, 0, 1099511627776, 0, 0, 1);
INSERT INTO public.hash_credits VALUES (10, 1, 0, 1099511627776, 0, 0, 1);
INSERT INTO public.hash_credits VALUES (11, 1, 0, 1099511627776, 0, 0, 1);
INSERT INTO public.hash_credits VALUES (17, 3, 3, 3298534883328, 0, 0, 3);
INSERT INTO public.hash_credits VALUES (19, 4, 0, 4398046511104, 0, 0, 0);

INSERT INTO public.held_credits VALUES ('\x14acf9b11dd828b890802dba016b288e64587e7c9091322d53ec3fb000aba715', '\xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 1000, '\x668a48c07e8c14cb6c59a57ad5cb2ddf', 1, 'matured', '2026-11-27 18:16:30.518749+00');
INSERT INTO public.held_credits VALUES ('\x1796f9860f19c2fe87bfa911f4be6c7cb685062baac5940e07ee3e575f73e8f3', '\xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 1000, '\x7d69f3628a8ad27cdc40abefa6878ed4', 2, 'matured', '2026-11-27 18:16:30.776402+00');
INSERT INTO public.held_credits VALUES ('\x6ca47ea17ff92b9cc6d923ab18d8f92ddec40c9279a6a52729cd8169ea86411b', '\xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 1000, '\xfd277a193cb55048ea22a83e35712b94', 3, 'forfeited', '2026-11-27 18:16:30.923596+00');

INSERT INTO public.open_slice_work VALUES (5, 2, 77371252455336267181195264, 1, '\xb7ab36bc92e614252457763c14eaa5bd1727e682ca5c8bfe3111026e9c5c0d38');
INSERT INTO public.open_slice_work VALUES (4, 2, 1005826281919371473355538432, 2, '\xcab69793af09e7c885c3d1a6ac1767cb8c9dab487fd42c7ac4286b2a30108624');

INSERT INTO public.payees VALUES ('carol', 0, '2026-11-27 18:16:29.9136+00', NULL);
INSERT INTO public.payees VALUES ('dan', 1, '2026-11-27 18:16:30.104229+00', 'no_route');
INSERT INTO public.payees VALUES ('eve', 0, '2026-11-27 18:16:30.152457+00', NULL);
INSERT INTO public.payees VALUES ('frank', 0, '2026-11-27 18:16:30.198768+00', NULL);
INSERT INTO public.payees VALUES ('grace', 0, '2026-11-27 18:16:30.241316+00', NULL);
INSERT INTO public.payees VALUES ('heidi', 0, '2026-11-27 18:16:30.376473+00', NULL);

INSERT INTO public.payouts VALUES ('\x0101010101010101010101010101010101010101010101010101010101010101', 'carol', 10000, 'paid', NULL, '\x72cd6e8422c407fb6d098690f1130b7ded7ec2f7f5e1d30bd9d521f015363793', 50, 20, '2026-11-27 18:16:29.827309+00', '\xb36d9bd0f7624dad13d1635b157061e9', 'pool', NULL);
INSERT INTO public.payouts VALUES ('\x0202020202020202020202020202020202020202020202020202020202020202', 'dan', 10000, 'failed', NULL, '\x75877bb41d393b5fb8455ce60ecd8dda001d06316496b14dfa7f895656eeca4a', 50, NULL, '2026-11-27 18:16:29.975288+00', '\x58c53993d4da79f71bb5c819e8362ba2', 'pool', 'no_route');
INSERT INTO public.payouts VALUES ('\x0303030303030303030303030303030303030303030303030303030303030303', 'eve', 10000, 'reserved', NULL, '\x648aa5c579fb30f38af744d97d6ec840c7a91277a499a0d780f3e7314eca090b', 50, NULL, '2026-11-27 18:16:30.152457+00', '\x447895b9270e13928bff68a3a1fdaa74', 'pool', NULL);
INSERT INTO public.payouts VALUES ('\x0404040404040404040404040404040404040404040404040404040404040404', 'frank', 10000, 'reserved', NULL, '\x9f4fb68f3e1dac82202f9aa581ce0bbf1f765df0e9ac3c8c57e20f685abab8ed', 50, NULL, '2026-11-27 18:16:30.198768+00', '\x7532ac9c7e3bde24ceb5b3b9a63e1860', 'pool', NULL);
INSERT INTO public.payouts VALUES ('\x0505050505050505050505050505050505050505050505050505050505050505', 'grace', 10000, 'reserved', NULL, '\xf849d67325facf04177bc663b2dc544051831c589ef581d412f2eba44834e77c', 50, NULL, '2026-11-27 18:16:30.241316+00', '\x27d9dab09c33bd445c8919e81be35d2d', 'pool', NULL);
INSERT INTO public.payouts VALUES ('\x0606060606060606060606060606060606060606060606060606060606060606', 'heidi', 10000, 'paid', NULL, '\xe802086ad6a1e16b78352ad7296d2aabd835b1b16dbe951e1135b97c68e29d81', 50, 5, '2026-11-27 18:16:30.280131+00', '\xf503f76dba6c0062982f9b750c50dbe7', 'pool', 'no_route');

INSERT INTO public.receipts VALUES ('\x0101010101010101010101010101010101010101010101010101010101010101', '{}');
INSERT INTO public.receipts VALUES ('\x0202020202020202020202020202020202020202020202020202020202020202', '{}');
INSERT INTO public.receipts VALUES ('\x0303030303030303030303030303030303030303030303030303030303030303', '{}');

INSERT INTO public.reward_chain VALUES (true, '\x5a99295391024b0d9b9a0268c8068e9c1f89e8fce13646819ffcf399b1898746', 2, 8, 0, NULL);

INSERT INTO public.reward_slices VALUES (0, '\x5e0b2a4f33080656d11d29fd026e20e104220a22b6ae521ebbe2e57272d6fb7e', 2, 1237940039285380274899124224, '\x3ba395010c48030c3c5397b5e137304e0f6914fde78b3bdddbd437de52adb410', '\x299473531be80787d582c63b3d090ffc48c278fecacb7dd06f3a1cbbd7ce639d', '\x0101010101010101010101010101010101010101010101010101010101010101', '\x2abfc208ff02ae9304f583cf5459d34c7a26a71b8c3dbffae02ae5882ccf45752abfc208ff02ae9304f583cf5459d34c7a26a71b8c3dbffae02ae5882ccf4575', '2026-11-27 18:16:28.990781+00');
INSERT INTO public.reward_slices VALUES (1, '\x299473531be80787d582c63b3d090ffc48c278fecacb7dd06f3a1cbbd7ce639d', 2, 1237940039285380274899124224, '\x6e81fdc25380d59664cb13724a07365fd4b80c8b50183a5597f7fc4f1c25bf7d', '\x0360ebd73b028c7506c8c8866215afacc1fec9c958717b12008d0dbc236432ca', '\x0101010101010101010101010101010101010101010101010101010101010101', '\xc84793234cbfa0e761ffadc07ee770b544159cb23e0b51fb1af4ba7358be5b0bc84793234cbfa0e761ffadc07ee770b544159cb23e0b51fb1af4ba7358be5b0b', '2026-11-27 18:16:28.990781+00');

INSERT INTO public.share_log_rejects VALUES (1, 1, '\x00', 'a record that does not decode', '2026-11-27 18:16:31.403328+00');

INSERT INTO public.share_logs VALUES (-8181001500980942116, 5, -9040788416383602358, '0400eeee-eeee-eeee-eeee-eeeeeeeeeeee', '2026-11-27 18:16:28.859356+00');
INSERT INTO public.share_logs VALUES (6069077354009001955, 8, -7534986329409897180, '55c3eeee-eeee-eeee-eeee-eeeeeeeeeeee', '2026-11-27 18:16:29.303687+00');
INSERT INTO public.share_logs VALUES (9093482330138552502, 7, 529721756330935978, '64eaeeee-eeee-eeee-eeee-eeeeeeeeeeee', '2026-11-27 18:16:30.469713+00');

INSERT INTO public.share_sums VALUES (5, 60, 1795803360, 3, 3298534883328, 0);
INSERT INTO public.share_sums VALUES (5, 3600, 1795802400, 3, 3298534883328, 0);
INSERT INTO public.share_sums VALUES (5, 86400, 1795737600, 3, 3298534883328, 0);
INSERT INTO public.share_sums VALUES (4, 60, 1795803360, 4, 4398046511104, 0);
INSERT INTO public.share_sums VALUES (4, 3600, 1795802400, 4, 4398046511104, 0);
INSERT INTO public.share_sums VALUES (4, 86400, 1795737600, 4, 4398046511104, 0);
INSERT INTO public.share_sums VALUES (6, 60, 1795803360, 1, 1099511627776, 20971520000000000000000);
INSERT INTO public.share_sums VALUES (6, 3600, 1795802400, 1, 1099511627776, 20971520000000000000000);
INSERT INTO public.share_sums VALUES (6, 86400, 1795737600, 1, 1099511627776, 20971520000000000000000);
INSERT INTO public.share_sums VALUES (7, 60, 1795803360, 1, 1099511627776, 20971520000000000000000);
INSERT INTO public.share_sums VALUES (7, 3600, 1795802400, 1, 1099511627776, 20971520000000000000000);
INSERT INTO public.share_sums VALUES (7, 86400, 1795737600, 1, 1099511627776, 20971520000000000000000);
INSERT INTO public.share_sums VALUES (8, 60, 1795803360, 1, 1099511627776, 20971520000000000000000);
INSERT INTO public.share_sums VALUES (8, 3600, 1795802400, 1, 1099511627776, 20971520000000000000000);
INSERT INTO public.share_sums VALUES (8, 86400, 1795737600, 1, 1099511627776, 20971520000000000000000);
INSERT INTO public.share_sums VALUES (9, 60, 1795803360, 1, 1099511627776, 20971520000000000000000);
INSERT INTO public.share_sums VALUES (9, 3600, 1795802400, 1, 1099511627776, 20971520000000000000000);
INSERT INTO public.share_sums VALUES (9, 86400, 1795737600, 1, 1099511627776, 20971520000000000000000);
INSERT INTO public.share_sums VALUES (10, 60, 1795803360, 1, 1099511627776, 20971520000000000000000);
INSERT INTO public.share_sums VALUES (10, 3600, 1795802400, 1, 1099511627776, 20971520000000000000000);
INSERT INTO public.share_sums VALUES (10, 86400, 1795737600, 1, 1099511627776, 20971520000000000000000);
INSERT INTO public.share_sums VALUES (11, 60, 1795803360, 1, 1099511627776, 20971520000000000000000);
INSERT INTO public.share_sums VALUES (11, 3600, 1795802400, 1, 1099511627776, 20971520000000000000000);
INSERT INTO public.share_sums VALUES (11, 86400, 1795737600, 1, 1099511627776, 20971520000000000000000);
INSERT INTO public.share_sums VALUES (17, 60, 1795803360, 3, 3298534883328, 31457280000000000000);
INSERT INTO public.share_sums VALUES (17, 3600, 1795802400, 3, 3298534883328, 31457280000000000000);
INSERT INTO public.share_sums VALUES (17, 86400, 1795737600, 3, 3298534883328, 31457280000000000000);
INSERT INTO public.share_sums VALUES (0, 60, 1795803360, 20, 21990232555520, 130054881280000000000000);
INSERT INTO public.share_sums VALUES (0, 3600, 1795802400, 20, 21990232555520, 130054881280000000000000);
INSERT INTO public.share_sums VALUES (0, 86400, 1795737600, 20, 21990232555520, 130054881280000000000000);
INSERT INTO public.share_sums VALUES (19, 60, 1795803360, 4, 4398046511104, 4194304000000000000000);
INSERT INTO public.share_sums VALUES (19, 3600, 1795802400, 4, 4398046511104, 4194304000000000000000);
INSERT INTO public.share_sums VALUES (19, 86400, 1795737600, 4, 4398046511104, 4194304000000000000000);

INSERT INTO public.shares_0 VALUES (1099511627776, 100, 4, '0000eeee-eeee-eeee-eeee-eeeeeeeeeeee');
INSERT INTO public.shares_0 VALUES (1099511627776, 100, 5, '0100eeee-eeee-eeee-eeee-eeeeeeeeeeee');
INSERT INTO public.shares_0 VALUES (1099511627776, 100, 4, '0200eeee-eeee-eeee-eeee-eeeeeeeeeeee');
INSERT INTO public.shares_0 VALUES (1099511627776, 100, 5, '0300eeee-eeee-eeee-eeee-eeeeeeeeeeee');
INSERT INTO public.shares_0 VALUES (1099511627776, 100, 5, '0400eeee-eeee-eeee-eeee-eeeeeeeeeeee');
INSERT INTO public.shares_0 VALUES (1099511627776, 100, 4, '0500eeee-eeee-eeee-eeee-eeeeeeeeeeee');
INSERT INTO public.shares_0 VALUES (1099511627776, 100, 4, '0600eeee-eeee-eeee-eeee-eeeeeeeeeeee');
INSERT INTO public.shares_0 VALUES (1099511627776, 100, 6, '50c3eeee-eeee-eeee-eeee-eeeeeeeeeeee');
INSERT INTO public.shares_0 VALUES (1099511627776, 100, 7, '51c3eeee-eeee-eeee-eeee-eeeeeeeeeeee');
INSERT INTO public.shares_0 VALUES (1099511627776, 100, 8, '52c3eeee-eeee-eeee-eeee-eeeeeeeeeeee');
INSERT INTO public.shares_0 VALUES (1099511627776, 100, 9, '53c3eeee-eeee-eeee-eeee-eeeeeeeeeeee');
INSERT INTO public.shares_0 VALUES (1099511627776, 100, 10, '54c3eeee-eeee-eeee-eeee-eeeeeeeeeeee');
INSERT INTO public.shares_0 VALUES (1099511627776, 100, 11, '55c3eeee-eeee-eeee-eeee-eeeeeeeeeeee');
INSERT INTO public.shares_0 VALUES (1099511627776, 100, 17, 'c9c9c9c9-c9c9-c9c9-c9c9-c9c9c9c9c9c9');
INSERT INTO public.shares_0 VALUES (1099511627776, 100, 17, 'cacacaca-caca-caca-caca-cacacacacaca');
INSERT INTO public.shares_0 VALUES (1099511627776, 100, 17, 'cbcbcbcb-cbcb-cbcb-cbcb-cbcbcbcbcbcb');
INSERT INTO public.shares_0 VALUES (1099511627776, 100, 19, '61eaeeee-eeee-eeee-eeee-eeeeeeeeeeee');
INSERT INTO public.shares_0 VALUES (1099511627776, 100, 19, '62eaeeee-eeee-eeee-eeee-eeeeeeeeeeee');
INSERT INTO public.shares_0 VALUES (1099511627776, 100, 19, '63eaeeee-eeee-eeee-eeee-eeeeeeeeeeee');
INSERT INTO public.shares_0 VALUES (1099511627776, 100, 19, '64eaeeee-eeee-eeee-eeee-eeeeeeeeeeee');

INSERT INTO public.slice_work VALUES (0, 4, 928455029464035206174343168, 1, '\x922263aec32fc05848a4bd4c8381e5752719b35311ae926cec3e3e490d0dca5f');
INSERT INTO public.slice_work VALUES (0, 5, 309485009821345068724781056, 1, '\xb73924b6101a44c9bfdd11358f1110a46782ccdb9735ded27846a62dce3bc93d');
INSERT INTO public.slice_work VALUES (1, 4, 928455029464035206174343168, 1, '\x50745f3d29cfdb06c22d07846505b99260e615507e97f749a55f7e04f787a2d0');
INSERT INTO public.slice_work VALUES (1, 5, 309485009821345068724781056, 1, '\xfe50720faa20bd210930c6c208225c679004b3596d2929c2aced1efd3cfe18c5');

INSERT INTO public.spent_job_tokens VALUES ('\xca978112ca1bbdcafac231b39a23dc4d', 1700000600);

INSERT INTO public.subsidy_days VALUES (20784, 1099511627776);

INSERT INTO public.tasks VALUES ('\x0101010101010101010101010101010101010101010101010101010101010101', 'settled', '\xbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', NULL, NULL, '\x413c7d064b8423ac7882d502012553964d689ac5ffc93370be2b4b31802c41ea', '\x0101010101010101010101010101010101010101010101010101010101010101', '\x0000000000000000e803000008000000', '\x0101010101010101010101010101010101010101010101010101010101010101', 1000, '\xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', '\x010101010101010101010101010101010101010101010101010101010101010101aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb0100fd77ce2d2a6189a54f39022265668c63fbcb3182207401aead7248e5655c533e0000000000000000e8030000080000000101010101010101010101010101010101010101010101010101010101010101030000008b4e92b89f39272a5e828855d5d3a388eef19e6042ba338f5a16ecec4fc71a86000000000000000000000000000000000000000000000000000000000000000000', '\x010000000200000003000000', NULL, 1795803390, 1795803990, NULL, 1, 1000000000, 0, '\x243c975202683d2b2f11735110cf8eee', NULL);
INSERT INTO public.tasks VALUES ('\x0202020202020202020202020202020202020202020202020202020202020202', 'settled', '\xbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', NULL, NULL, '\x0b9f1ff363fd5296d1278142da9a623741d6eaf1f483adc9d36517f3d4dc6877', '\x0202020202020202020202020202020202020202020202020202020202020202', '\x0000000000000000e803000008000000', '\x0202020202020202020202020202020202020202020202020202020202020202', 1000, '\xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', '\x010202020202020202020202020202020202020202020202020202020202020202aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb010060725c3f86cd07ea17bf8b7cbf2a778eaea6bcc23884b4478bd43fb608138f370000000000000000e8030000080000000202020202020202020202020202020202020202020202020202020202020202030000008b4e92b89f39272a5e828855d5d3a388eef19e6042ba338f5a16ecec4fc71a86000000000000000000000000000000000000000000000000000000000000000000', '\x010000000200000003000000', NULL, 1795803390, 1795803990, NULL, 1, 1000000000, 0, '\x9def58a77ce9d8ed33027ac9985cd680', NULL);
INSERT INTO public.tasks VALUES ('\x0303030303030303030303030303030303030303030303030303030303030303', 'settled', '\xbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', NULL, NULL, '\xdb29227300e0c90b0b4aa6473a2fcbbea0fd7ab99d2bfdeb6e950e7135ecc4d2', '\x0303030303030303030303030303030303030303030303030303030303030303', '\x0000000000000000e803000008000000', '\x0303030303030303030303030303030303030303030303030303030303030303', 1000, '\xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', '\x010303030303030303030303030303030303030303030303030303030303030303aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb01005be416ef8084d681954c4ade1631b5787fe2c2841c07727605354e64c323b3b00000000000000000e8030000080000000303030303030303030303030303030303030303030303030303030303030303030000008b4e92b89f39272a5e828855d5d3a388eef19e6042ba338f5a16ecec4fc71a86000000000000000000000000000000000000000000000000000000000000000000', '\x010000000200000003000000', NULL, 1795803390, 1795803990, NULL, 1, 1000000000, 0, '\x12439f6177d4db68884216e3bb0e2a27', NULL);
INSERT INTO public.tasks VALUES ('\x0404040404040404040404040404040404040404040404040404040404040404', 'finished', '\xbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', '\xf006ebd42a191c01a37bc4fb3b37d0d30f02f29069c54d6b84b5392b2f9a6db900010000', '\x02020a0a03454e44', '\xb07b89c093530a7a34abc3efc097fb3bfa6fbec5f2cbfd36f088e0c3fcc59e04', '\x0404040404040404040404040404040404040404040404040404040404040404', '\x0000000000000000e803000008000000', '\x0404040404040404040404040404040404040404040404040404040404040404', 1000, '\xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', '\x010404040404040404040404040404040404040404040404040404040404040404aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb0100fdd690c46215cd65c5c032846187d640237dd7be021fdbd83f54bea3bf888a5e0000000000000000e8030000080000000404040404040404040404040404040404040404040404040404040404040404030000008b4e92b89f39272a5e828855d5d3a388eef19e6042ba338f5a16ecec4fc71a86000000000000000000000000000000000000000000000000000000000000000000', '\x010000000200000003000000', NULL, 1795803390, 1795889790, '\x01126c6c67756964616e63652d312e392e312b3212007b2274797065223a20226f626a656374227d', 1, 1000000000, 0, '\xcbdfdaabaf652baee107024231ad2f2f', NULL);
INSERT INTO public.tasks VALUES ('\x0505050505050505050505050505050505050505050505050505050505050505', 'failed', '\xbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', NULL, NULL, '\x1a172901a1b2a8857c041b5573d4822c39725f80d3438e468c2aba9349c21ab8', '\x0505050505050505050505050505050505050505050505050505050505050505', '\x0000000000000000e803000008000000', '\x0505050505050505050505050505050505050505050505050505050505050505', 1000, '\xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', '\x010505050505050505050505050505050505050505050505050505050505050505aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb0100f134b86bd746f3c3a756e99e4f7e29f66b64b831ac5474296dda111f2703e6de0000000000000000e8030000080000000505050505050505050505050505050505050505050505050505050505050505030000008b4e92b89f39272a5e828855d5d3a388eef19e6042ba338f5a16ecec4fc71a86000000000000000000000000000000000000000000000000000000000000000000', '\x010000000200000003000000', 'inference-mismatch', 1795803390, 1795803990, NULL, 1, 1000000000, 0, '\xc6884a3ba47ff1bce906e3f7a82a7e18', NULL);
INSERT INTO public.tasks VALUES ('\x0606060606060606060606060606060606060606060606060606060606060606', 'queued', '\xbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', '\xf006ebd42a191c01a37bc4fb3b37d0d30f02f29069c54d6b84b5392b2f9a6db900010000', '\x02020a0a03454e44', '\x5cbdcc3275d89304ea30bf27dadd7b56d520cb42625f0a16e87b15d9eba7eabd', '\x0606060606060606060606060606060606060606060606060606060606060606', '\x0000000000000000e803000008000000', '\x0606060606060606060606060606060606060606060606060606060606060606', 1000, NULL, NULL, NULL, NULL, 1795803391, 1795803991, '\x01126c6c67756964616e63652d312e392e312b3212007b2274797065223a20226f626a656374227d', 1, 1000000000, 0, '\x454c5be6ac0fac800e707f438373ac4d', NULL);
INSERT INTO public.tasks VALUES ('\x0707070707070707070707070707070707070707070707070707070707070707', 'cancelled', '\xbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', NULL, NULL, '\x1d2a883b682a824ef6d3d67c4f9fa59ec7997abb375b6a302f87933db4680759', '\x0707070707070707070707070707070707070707070707070707070707070707', '\x0000000000000000e803000008000000', '\x0707070707070707070707070707070707070707070707070707070707070707', 1000, NULL, NULL, NULL, NULL, 1795803391, 1795803991, NULL, 1, 1000000000, 0, '\xe457d498fb8cebb57093a2983cee3786', NULL);

INSERT INTO public.transfers VALUES ('\x13bdc49db816254055192ed0c541e433', 'posted', NULL, 2, 4, 742500, 'reward', '2026-11-27 18:16:29.215031+00');
INSERT INTO public.transfers VALUES ('\x916bb878f3ef5f3695295be2a4ac48e2', 'posted', NULL, 2, 5, 247500, 'reward', '2026-11-27 18:16:29.215031+00');
INSERT INTO public.transfers VALUES ('\x5985352358049e840ea69461bc826a6d', 'posted', NULL, 2, 3, 10000, 'reward fee', '2026-11-27 18:16:29.215031+00');
INSERT INTO public.transfers VALUES ('\x353fdd9a49ccaff2898ef400a19fa1d8', 'posted', NULL, 1, 6, 20000, 'hash', '2026-11-27 18:16:29.614101+00');
INSERT INTO public.transfers VALUES ('\x79d8371ac94c2cac29ec73fc3fcf0566', 'posted', NULL, 1, 7, 20000, 'hash', '2026-11-27 18:16:29.651274+00');
INSERT INTO public.transfers VALUES ('\x71ac0eb4ddd0deabf085e7eb30368f78', 'posted', NULL, 1, 8, 20000, 'hash', '2026-11-27 18:16:29.683558+00');
INSERT INTO public.transfers VALUES ('\x31f136011684f6093f47e5393cd0b353', 'posted', NULL, 1, 9, 20000, 'hash', '2026-11-27 18:16:29.759804+00');
INSERT INTO public.transfers VALUES ('\xca3de58d122d5e2e60e8fe7d948b8037', 'posted', NULL, 1, 10, 20000, 'hash', '2026-11-27 18:16:29.807707+00');
INSERT INTO public.transfers VALUES ('\x79b395d6e173b13e676b07e12375f88c', 'posted', NULL, 1, 11, 20000, 'hash', '2026-11-27 18:16:29.816595+00');
INSERT INTO public.transfers VALUES ('\xb36d9bd0f7624dad13d1635b157061e9', 'pending', NULL, 6, 12, 10000, 'payout', '2026-11-27 18:16:29.827309+00');
INSERT INTO public.transfers VALUES ('\x659799a0fa57c4f04c34a46d9e946245', 'pending', NULL, 13, 12, 50, 'payout fee', '2026-11-27 18:16:29.827309+00');
INSERT INTO public.transfers VALUES ('\x2feda148627697a60246669c8172ad07', 'post', '\xb36d9bd0f7624dad13d1635b157061e9', 6, 12, 10000, 'payout', '2026-11-27 18:16:29.9136+00');
INSERT INTO public.transfers VALUES ('\xc87ea8b8975b5df620c4f02f908c1b97', 'void', '\x659799a0fa57c4f04c34a46d9e946245', 13, 12, 50, 'payout fee', '2026-11-27 18:16:29.9136+00');
INSERT INTO public.transfers VALUES ('\x03212a6155c7680a8c10cf92f72e918f', 'posted', NULL, 13, 12, 20, 'payout fee', '2026-11-27 18:16:29.9136+00');
INSERT INTO public.transfers VALUES ('\x58c53993d4da79f71bb5c819e8362ba2', 'pending', NULL, 7, 12, 10000, 'payout', '2026-11-27 18:16:29.975288+00');
INSERT INTO public.transfers VALUES ('\xf0373cbb381c2159dfc6a887ff5565fd', 'pending', NULL, 13, 12, 50, 'payout fee', '2026-11-27 18:16:29.975288+00');
INSERT INTO public.transfers VALUES ('\xda3ce99fc19bcd671fd7545b35ed3a16', 'void', '\x58c53993d4da79f71bb5c819e8362ba2', 7, 12, 10000, 'payout', '2026-11-27 18:16:30.104229+00');
INSERT INTO public.transfers VALUES ('\xf989197a3e00a7d2df74464d161315e6', 'void', '\xf0373cbb381c2159dfc6a887ff5565fd', 13, 12, 50, 'payout fee', '2026-11-27 18:16:30.104229+00');
INSERT INTO public.transfers VALUES ('\x447895b9270e13928bff68a3a1fdaa74', 'pending', NULL, 8, 12, 10000, 'payout', '2026-11-27 18:16:30.152457+00');
INSERT INTO public.transfers VALUES ('\x3f8c447dd038dc7d4dfe3d0a84fe54d6', 'pending', NULL, 13, 12, 50, 'payout fee', '2026-11-27 18:16:30.152457+00');
INSERT INTO public.transfers VALUES ('\x7532ac9c7e3bde24ceb5b3b9a63e1860', 'pending', NULL, 9, 12, 10000, 'payout', '2026-11-27 18:16:30.198768+00');
INSERT INTO public.transfers VALUES ('\xdedb6d794d761da30f3dff2071f078b0', 'pending', NULL, 13, 12, 50, 'payout fee', '2026-11-27 18:16:30.198768+00');
INSERT INTO public.transfers VALUES ('\x27d9dab09c33bd445c8919e81be35d2d', 'pending', NULL, 10, 12, 10000, 'payout', '2026-11-27 18:16:30.241316+00');
INSERT INTO public.transfers VALUES ('\x99fb99ce0b01d2077a1d286b58671e82', 'pending', NULL, 13, 12, 50, 'payout fee', '2026-11-27 18:16:30.241316+00');
INSERT INTO public.transfers VALUES ('\xf503f76dba6c0062982f9b750c50dbe7', 'pending', NULL, 11, 12, 10000, 'payout', '2026-11-27 18:16:30.280131+00');
INSERT INTO public.transfers VALUES ('\x57e292ea0af5b87dc7ba9dc9410316d8', 'pending', NULL, 13, 12, 50, 'payout fee', '2026-11-27 18:16:30.280131+00');
INSERT INTO public.transfers VALUES ('\x974ccbae872986a288d5b92999ad0171', 'void', '\xf503f76dba6c0062982f9b750c50dbe7', 11, 12, 10000, 'payout', '2026-11-27 18:16:30.355298+00');
INSERT INTO public.transfers VALUES ('\x7442cc2903a08acf7681ff0fa7709523', 'void', '\x57e292ea0af5b87dc7ba9dc9410316d8', 13, 12, 50, 'payout fee', '2026-11-27 18:16:30.355298+00');
INSERT INTO public.transfers VALUES ('\xa71e8b795d5352d6256d2bc08775ca6e', 'posted', NULL, 11, 12, 10000, 'late payout', '2026-11-27 18:16:30.376473+00');
INSERT INTO public.transfers VALUES ('\x9f37be478996d8cde7881e470d887b5e', 'posted', NULL, 13, 12, 5, 'payout fee', '2026-11-27 18:16:30.376473+00');
INSERT INTO public.transfers VALUES ('\xdaf2daecb837faed4ffa961a001c570d', 'posted', NULL, 14, 15, 1099511627776, 'subsidy', '2026-11-27 18:16:30.475857+00');
INSERT INTO public.transfers VALUES ('\x243c975202683d2b2f11735110cf8eee', 'pending', NULL, 15, 16, 1000, 'task', '2026-11-27 18:16:30.475857+00');
INSERT INTO public.transfers VALUES ('\x95e622cfb0d412c0f086b1d784cd931f', 'void', '\x243c975202683d2b2f11735110cf8eee', 15, 16, 1000, 'task charged', '2026-11-27 18:16:30.518749+00');
INSERT INTO public.transfers VALUES ('\xc619df837936abfee14ec6a442e41cec', 'posted', NULL, 15, 16, 1000, 'tasks', '2026-11-27 18:16:30.518749+00');
INSERT INTO public.transfers VALUES ('\x668a48c07e8c14cb6c59a57ad5cb2ddf', 'pending', NULL, 16, 17, 1000, 'inference', '2026-11-27 18:16:30.518749+00');
INSERT INTO public.transfers VALUES ('\xc18927357af81ad6b10ccbe08079d5b2', 'posted', NULL, 1, 17, 10, 'hash', '2026-11-27 18:16:30.684215+00');
INSERT INTO public.transfers VALUES ('\x9def58a77ce9d8ed33027ac9985cd680', 'pending', NULL, 15, 16, 1000, 'task', '2026-11-27 18:16:30.717402+00');
INSERT INTO public.transfers VALUES ('\xbe24e60e6c28284e88095dbe0f2f4fc4', 'void', '\x9def58a77ce9d8ed33027ac9985cd680', 15, 16, 1000, 'task charged', '2026-11-27 18:16:30.776402+00');
INSERT INTO public.transfers VALUES ('\x4d545ee0283c33a80f7395f1af3911b6', 'posted', NULL, 15, 16, 1000, 'tasks', '2026-11-27 18:16:30.776402+00');
INSERT INTO public.transfers VALUES ('\x7d69f3628a8ad27cdc40abefa6878ed4', 'pending', NULL, 16, 17, 1000, 'inference', '2026-11-27 18:16:30.776402+00');
INSERT INTO public.transfers VALUES ('\x4176d9a5eccef59abbf0bc2b7c1c75b8', 'posted', NULL, 1, 17, 10, 'hash', '2026-11-27 18:16:30.840286+00');
INSERT INTO public.transfers VALUES ('\x55e31cf0f51e37a863c0d685f990dc1a', 'post', '\x668a48c07e8c14cb6c59a57ad5cb2ddf', 16, 17, 1000, 'matured', '2026-11-27 18:16:30.883883+00');
INSERT INTO public.transfers VALUES ('\xf74c147e502385892e62007d8570a581', 'post', '\x7d69f3628a8ad27cdc40abefa6878ed4', 16, 17, 1000, 'matured', '2026-11-27 18:16:30.883883+00');
INSERT INTO public.transfers VALUES ('\x12439f6177d4db68884216e3bb0e2a27', 'pending', NULL, 15, 16, 1000, 'task', '2026-11-27 18:16:30.904392+00');
INSERT INTO public.transfers VALUES ('\xd17f80d8ace1d3727ce9e70754a5e5a2', 'void', '\x12439f6177d4db68884216e3bb0e2a27', 15, 16, 1000, 'task charged', '2026-11-27 18:16:30.923596+00');
INSERT INTO public.transfers VALUES ('\x4d1d1b8d00e4a968d220be63b82f522c', 'posted', NULL, 15, 16, 1000, 'tasks', '2026-11-27 18:16:30.923596+00');
INSERT INTO public.transfers VALUES ('\xfd277a193cb55048ea22a83e35712b94', 'pending', NULL, 16, 17, 1000, 'inference', '2026-11-27 18:16:30.923596+00');
INSERT INTO public.transfers VALUES ('\xa4c32b3c65c6cee175d310b7aa9fd44e', 'posted', NULL, 1, 17, 10, 'hash', '2026-11-27 18:16:30.961771+00');
INSERT INTO public.transfers VALUES ('\xcbdfdaabaf652baee107024231ad2f2f', 'pending', NULL, 15, 16, 1000, 'task', '2026-11-27 18:16:30.964345+00');
INSERT INTO public.transfers VALUES ('\xc6884a3ba47ff1bce906e3f7a82a7e18', 'pending', NULL, 15, 16, 1000, 'task', '2026-11-27 18:16:30.991314+00');
INSERT INTO public.transfers VALUES ('\x10cc6e28b193e1edd1b7c4c9801cac35', 'void', '\xc6884a3ba47ff1bce906e3f7a82a7e18', 15, 16, 1000, 'task released', '2026-11-27 18:16:31.012119+00');
INSERT INTO public.transfers VALUES ('\x35930b1921fa46312bdeea1f450c98c1', 'void', '\xfd277a193cb55048ea22a83e35712b94', 16, 17, 1000, 'forfeited', '2026-11-27 18:16:31.012119+00');
INSERT INTO public.transfers VALUES ('\xe000cb9aa995e83cb501fedb39e4cafa', 'posted', NULL, 16, 18, 1000, 'forfeited', '2026-11-27 18:16:31.012119+00');
INSERT INTO public.transfers VALUES ('\x454c5be6ac0fac800e707f438373ac4d', 'pending', NULL, 15, 16, 1000, 'task', '2026-11-27 18:16:31.035969+00');
INSERT INTO public.transfers VALUES ('\xe457d498fb8cebb57093a2983cee3786', 'pending', NULL, 15, 16, 1000, 'task', '2026-11-27 18:16:31.041278+00');
INSERT INTO public.transfers VALUES ('\x53139c472b60f55240cfba128a171cbf', 'void', '\xe457d498fb8cebb57093a2983cee3786', 15, 16, 1000, 'task released', '2026-11-27 18:16:31.051317+00');
INSERT INTO public.transfers VALUES ('\xa3fbd3068d059e8417b6e4c4bfed59b5', 'pending', NULL, 1, 19, 1000, 'coinbase-only', '2026-11-27 18:16:31.084147+00');
INSERT INTO public.transfers VALUES ('\x2c0921b4969e78a2e75bbf17ffd6f2d2', 'post', '\xa3fbd3068d059e8417b6e4c4bfed59b5', 1, 19, 1000, 'coinbase-only', '2026-11-27 18:16:31.123299+00');
INSERT INTO public.transfers VALUES ('\xf4f28a93ef46fbd41d0d2d8f091d536c', 'pending', NULL, 1, 19, 1000, 'coinbase-only', '2026-11-27 18:16:31.160031+00');
INSERT INTO public.transfers VALUES ('\x5bf93c0038c6202ca8c0420c67d9a223', 'void', '\xf4f28a93ef46fbd41d0d2d8f091d536c', 1, 19, 1000, 'coinbase-only', '2026-11-27 18:16:31.219323+00');
INSERT INTO public.transfers VALUES ('\x0375258e8ffc53f8a574591363a0cd20', 'pending', NULL, 1, 19, 1000, 'coinbase-only', '2026-11-27 18:16:31.260166+00');

INSERT INTO public.window_now VALUES (5, 618970019642690137449562112);
INSERT INTO public.window_now VALUES (4, 1856910058928070412348686336);

SELECT pg_catalog.setval('public.accounts_id_seq', 19, true);

SELECT pg_catalog.setval('public.audits_id_seq', 4, true);

SELECT pg_catalog.setval('public.coinbase_only_credits_id_seq', 4, true);

ALTER TABLE ONLY public._sqlx_migrations
    ADD CONSTRAINT _sqlx_migrations_pkey PRIMARY KEY (version);

ALTER TABLE ONLY public.accounts
    ADD CONSTRAINT accounts_name_key UNIQUE (name);

ALTER TABLE ONLY public.accounts
    ADD CONSTRAINT accounts_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.appeals
    ADD CONSTRAINT appeals_pkey PRIMARY KEY (root);

ALTER TABLE ONLY public.attempts
    ADD CONSTRAINT attempts_payout_n_key UNIQUE (payout, n);

ALTER TABLE ONLY public.attempts
    ADD CONSTRAINT attempts_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.audits
    ADD CONSTRAINT audits_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.batches
    ADD CONSTRAINT batches_pkey PRIMARY KEY (root);

ALTER TABLE ONLY public.batches
    ADD CONSTRAINT batches_settled_by_key UNIQUE (settled_by);

ALTER TABLE ONLY public.block_credits
    ADD CONSTRAINT block_credits_pkey PRIMARY KEY (block, account);

ALTER TABLE ONLY public.block_rewards
    ADD CONSTRAINT block_rewards_pkey PRIMARY KEY (header_hash);

ALTER TABLE ONLY public.blocks
    ADD CONSTRAINT blocks_pkey PRIMARY KEY (header_hash);

ALTER TABLE ONLY public.claimed_shares
    ADD CONSTRAINT claimed_shares_pkey PRIMARY KEY (header_hash);

ALTER TABLE ONLY public.coinbase_only_credits
    ADD CONSTRAINT coinbase_only_credits_block_key UNIQUE (block);

ALTER TABLE ONLY public.coinbase_only_credits
    ADD CONSTRAINT coinbase_only_credits_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.coinbase_only_credits
    ADD CONSTRAINT coinbase_only_credits_transfer_key UNIQUE (transfer);

ALTER TABLE ONLY public.declared_jobs
    ADD CONSTRAINT declared_jobs_pkey PRIMARY KEY (token);

ALTER TABLE ONLY public.declared_transactions
    ADD CONSTRAINT declared_transactions_pkey PRIMARY KEY (wtxid);

ALTER TABLE ONLY public.devices
    ADD CONSTRAINT devices_pkey PRIMARY KEY (account, device);

ALTER TABLE ONLY public.findings
    ADD CONSTRAINT findings_pkey PRIMARY KEY (root);

ALTER TABLE ONLY public.hash_credits
    ADD CONSTRAINT hash_credits_pkey PRIMARY KEY (account);

ALTER TABLE ONLY public.held_credits
    ADD CONSTRAINT held_credits_pkey PRIMARY KEY (root);

ALTER TABLE ONLY public.held_credits
    ADD CONSTRAINT held_credits_transfer_key UNIQUE (transfer);

ALTER TABLE ONLY public.audits
    ADD CONSTRAINT one_audit_of_a_claim UNIQUE (root, header_hash, verdict);

ALTER TABLE ONLY public.open_slice_work
    ADD CONSTRAINT open_slice_work_pkey PRIMARY KEY (account);

ALTER TABLE ONLY public.payees
    ADD CONSTRAINT payees_pkey PRIMARY KEY (payee);

ALTER TABLE ONLY public.payouts
    ADD CONSTRAINT payouts_payment_hash_key UNIQUE (payment_hash);

ALTER TABLE ONLY public.payouts
    ADD CONSTRAINT payouts_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.payouts
    ADD CONSTRAINT payouts_transfer_key UNIQUE (transfer);

ALTER TABLE ONLY public.receipts
    ADD CONSTRAINT receipts_pkey PRIMARY KEY (task_id);

ALTER TABLE ONLY public.reward_chain
    ADD CONSTRAINT reward_chain_pkey PRIMARY KEY (only_one);

ALTER TABLE ONLY public.reward_slices
    ADD CONSTRAINT reward_slices_pkey PRIMARY KEY (number);

ALTER TABLE ONLY public.reward_slices
    ADD CONSTRAINT reward_slices_root_key UNIQUE (root);

ALTER TABLE ONLY public.share_log_rejects
    ADD CONSTRAINT share_log_rejects_pkey PRIMARY KEY (log_id, "position");

ALTER TABLE ONLY public.share_logs
    ADD CONSTRAINT share_logs_pkey PRIMARY KEY (log_id);

ALTER TABLE ONLY public.share_sums
    ADD CONSTRAINT share_sums_pkey PRIMARY KEY (account, span_s, starts_at);

ALTER TABLE ONLY public.shares
    ADD CONSTRAINT shares_pkey PRIMARY KEY (height, header_hash);

ALTER TABLE ONLY public.shares_0
    ADD CONSTRAINT shares_0_pkey PRIMARY KEY (height, header_hash);

ALTER TABLE ONLY public.shares_144
    ADD CONSTRAINT shares_144_pkey PRIMARY KEY (height, header_hash);

ALTER TABLE ONLY public.slice_work
    ADD CONSTRAINT slice_work_pkey PRIMARY KEY (slice, account);

ALTER TABLE ONLY public.spent_job_tokens
    ADD CONSTRAINT spent_job_tokens_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.subsidy_days
    ADD CONSTRAINT subsidy_days_pkey PRIMARY KEY (day);

ALTER TABLE ONLY public.tasks
    ADD CONSTRAINT tasks_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.tasks
    ADD CONSTRAINT tasks_reserve_key UNIQUE (reserve);

ALTER TABLE ONLY public.transfers
    ADD CONSTRAINT transfers_ends_key UNIQUE (ends);

ALTER TABLE ONLY public.transfers
    ADD CONSTRAINT transfers_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.audit_records
    ADD CONSTRAINT trust_pkey PRIMARY KEY (worker);

ALTER TABLE ONLY public.window_now
    ADD CONSTRAINT window_now_pkey PRIMARY KEY (account);

CREATE INDEX accounts_of_offers ON public.accounts USING btree (id) WHERE starts_with(name, 'worker:lno1'::text);

CREATE INDEX appeals_of_worker ON public.appeals USING btree (worker, created_at);

CREATE INDEX attempts_by_hash ON public.attempts USING btree (payment_hash) WHERE (state = 'succeeded'::text);

CREATE UNIQUE INDEX attempts_one_open ON public.attempts USING btree (payout) WHERE (state = ANY (ARRAY['prepared'::text, 'dispatched'::text, 'review'::text]));

CREATE INDEX attempts_to_check ON public.attempts USING btree (next_check_at) WHERE (next_check_at IS NOT NULL);

CREATE INDEX batches_of_worker ON public.batches USING btree (worker, ended_at);

CREATE INDEX batches_open ON public.batches USING btree (worker, expires_at) WHERE (state = 'open'::text);

CREATE INDEX batches_open_tasks ON public.batches USING gin (task_ids) WHERE (state = 'open'::text);

CREATE INDEX batches_share ON public.batches USING btree (public.share_key(settled_by)) WHERE (settled_by IS NOT NULL);

CREATE INDEX batches_under_audit ON public.batches USING btree (worker) WHERE ((state = 'open'::text) AND (stake_msat IS NOT NULL));

CREATE INDEX block_credits_account ON public.block_credits USING btree (account);

CREATE INDEX block_rewards_open ON public.block_rewards USING btree (height) WHERE (state = ANY (ARRAY['submitted'::text, 'active'::text, 'orphaned'::text]));

CREATE INDEX coinbase_only_credits_account ON public.coinbase_only_credits USING btree (account);

CREATE INDEX coinbase_only_credits_followed ON public.coinbase_only_credits USING btree (account) WHERE (state = 'followed'::text);

CREATE UNIQUE INDEX coinbase_only_credits_open ON public.coinbase_only_credits USING btree (account) WHERE (state = 'open'::text);

CREATE INDEX declared_jobs_expiry ON public.declared_jobs USING btree (expires_at);

CREATE INDEX declared_transactions_age ON public.declared_transactions USING btree (declared_at);

CREATE INDEX devices_idle ON public.devices USING btree (last_share_at);

CREATE INDEX hash_credits_unsettled ON public.hash_credits USING btree (account) WHERE (unsettled >= ('1048576000000000000'::bigint)::numeric);

CREATE INDEX held_credits_open ON public.held_credits USING btree (worker, held_at) WHERE (state = 'held'::text);

CREATE INDEX payouts_of_payee ON public.payouts USING btree (worker, created_at);

CREATE INDEX payouts_open ON public.payouts USING btree (worker) WHERE (state = 'reserved'::text);

CREATE INDEX share_sums_age ON public.share_sums USING btree (span_s, starts_at);

CREATE INDEX slice_work_account ON public.slice_work USING btree (account, slice);

CREATE INDEX spent_job_tokens_expiry ON public.spent_job_tokens USING btree (expires_at);

CREATE INDEX tasks_open ON public.tasks USING btree (expires_at) WHERE (state = ANY (ARRAY['queued'::text, 'assigned'::text, 'finished'::text]));

CREATE INDEX tasks_stopping ON public.tasks USING btree (stops_at) WHERE ((state = 'assigned'::text) AND (stops_at IS NOT NULL));

CREATE INDEX transfers_for_tasks ON public.transfers USING btree (debit, created_at) WHERE ((kind = 'posted'::text) AND (reason = 'tasks'::text));

CREATE INDEX transfers_of_credit ON public.transfers USING btree (credit, created_at DESC);

CREATE INDEX transfers_of_debit ON public.transfers USING btree (debit, created_at DESC);

ALTER INDEX public.shares_pkey ATTACH PARTITION public.shares_0_pkey;

ALTER INDEX public.shares_pkey ATTACH PARTITION public.shares_144_pkey;

CREATE TRIGGER accounts_are_not_truncated BEFORE TRUNCATE ON public.accounts FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER accounts_follow_transfers BEFORE INSERT OR DELETE OR UPDATE ON public.accounts FOR EACH ROW EXECUTE FUNCTION public.accounts_follow_transfers();

CREATE TRIGGER appeals_are_facts BEFORE DELETE OR UPDATE ON public.appeals FOR EACH ROW EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER appeals_are_not_truncated BEFORE TRUNCATE ON public.appeals FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER attempts_are_not_truncated BEFORE TRUNCATE ON public.attempts FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER attempts_go_forward BEFORE INSERT OR DELETE OR UPDATE ON public.attempts FOR EACH ROW EXECUTE FUNCTION public.attempts_go_forward();

CREATE TRIGGER audits_are_facts BEFORE DELETE OR UPDATE ON public.audits FOR EACH ROW EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER audits_are_not_truncated BEFORE TRUNCATE ON public.audits FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER block_credit_is_new AFTER INSERT ON public.block_credits REFERENCING NEW TABLE AS given FOR EACH STATEMENT EXECUTE FUNCTION public.block_credit_is_new();

CREATE TRIGGER block_credits_are_facts BEFORE DELETE OR UPDATE ON public.block_credits FOR EACH ROW EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER block_credits_are_not_truncated BEFORE TRUNCATE ON public.block_credits FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER block_rewards_are_facts BEFORE DELETE ON public.block_rewards FOR EACH ROW EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER block_rewards_are_not_truncated BEFORE TRUNCATE ON public.block_rewards FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER coinbase_only_credits_are_not_truncated BEFORE TRUNCATE ON public.coinbase_only_credits FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER coinbase_only_credits_follow_transfers BEFORE INSERT OR DELETE OR UPDATE ON public.coinbase_only_credits FOR EACH ROW EXECUTE FUNCTION public.coinbase_only_credits_follow_transfers();

CREATE TRIGGER hash_credits_are_not_truncated BEFORE TRUNCATE ON public.hash_credits FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER hash_credits_grow BEFORE DELETE OR UPDATE ON public.hash_credits FOR EACH ROW EXECUTE FUNCTION public.hash_credits_grow();

CREATE TRIGGER held_credits_are_not_truncated BEFORE TRUNCATE ON public.held_credits FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER held_credits_follow_transfers BEFORE INSERT OR DELETE OR UPDATE ON public.held_credits FOR EACH ROW EXECUTE FUNCTION public.held_credits_follow_transfers();

CREATE TRIGGER payouts_are_not_truncated BEFORE TRUNCATE ON public.payouts FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER payouts_follow_transfers BEFORE INSERT OR DELETE OR UPDATE ON public.payouts FOR EACH ROW EXECUTE FUNCTION public.payouts_follow_transfers();

CREATE CONSTRAINT TRIGGER reward_is_divided AFTER INSERT ON public.block_rewards DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.reward_is_divided();

CREATE TRIGGER reward_slices_are_facts BEFORE DELETE OR UPDATE ON public.reward_slices FOR EACH ROW EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER reward_slices_are_not_truncated BEFORE TRUNCATE ON public.reward_slices FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER reward_steps BEFORE UPDATE ON public.block_rewards FOR EACH ROW EXECUTE FUNCTION public.reward_steps();

CREATE TRIGGER shares_are_facts BEFORE DELETE OR UPDATE ON public.shares FOR EACH ROW EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER shares_are_not_truncated BEFORE TRUNCATE ON public.shares FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER shares_are_not_truncated BEFORE TRUNCATE ON public.shares_0 FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER shares_are_not_truncated BEFORE TRUNCATE ON public.shares_144 FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER slice_work_are_facts BEFORE DELETE OR UPDATE ON public.slice_work FOR EACH ROW EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER slice_work_are_not_truncated BEFORE TRUNCATE ON public.slice_work FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER subsidy_days_are_facts BEFORE DELETE OR UPDATE ON public.subsidy_days FOR EACH ROW EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER subsidy_days_are_not_truncated BEFORE TRUNCATE ON public.subsidy_days FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER suspect_batches_wait BEFORE UPDATE OF state ON public.batches FOR EACH ROW EXECUTE FUNCTION public.suspect_batches_wait();

CREATE TRIGGER tasks_release_reserve AFTER UPDATE OF state ON public.tasks FOR EACH ROW WHEN (((old.state = ANY (ARRAY['queued'::text, 'assigned'::text, 'finished'::text])) AND (new.state = ANY (ARRAY['failed'::text, 'cancelled'::text, 'expired'::text])) AND (new.reserve IS NOT NULL))) EXECUTE FUNCTION public.release_reserve();

CREATE TRIGGER transfers_apply AFTER INSERT ON public.transfers REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION public.apply_transfers();

CREATE TRIGGER transfers_are_facts BEFORE DELETE OR UPDATE ON public.transfers FOR EACH ROW EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER transfers_are_not_truncated BEFORE TRUNCATE ON public.transfers FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();

ALTER TABLE ONLY public.appeals
    ADD CONSTRAINT appeals_root_fkey FOREIGN KEY (root) REFERENCES public.batches(root);

ALTER TABLE ONLY public.attempts
    ADD CONSTRAINT attempts_payout_fkey FOREIGN KEY (payout) REFERENCES public.payouts(id);

ALTER TABLE ONLY public.block_credits
    ADD CONSTRAINT block_credits_block_fkey FOREIGN KEY (block) REFERENCES public.block_rewards(header_hash);

ALTER TABLE ONLY public.coinbase_only_credits
    ADD CONSTRAINT coinbase_only_credits_carried_to_fkey FOREIGN KEY (carried_to) REFERENCES public.coinbase_only_credits(id);

ALTER TABLE ONLY public.coinbase_only_credits
    ADD CONSTRAINT coinbase_only_credits_transfer_fkey FOREIGN KEY (transfer) REFERENCES public.transfers(id);

ALTER TABLE ONLY public.declared_jobs
    ADD CONSTRAINT declared_jobs_batch_root_fkey FOREIGN KEY (batch_root) REFERENCES public.batches(root);

ALTER TABLE ONLY public.findings
    ADD CONSTRAINT findings_root_fkey FOREIGN KEY (root) REFERENCES public.batches(root);

ALTER TABLE ONLY public.held_credits
    ADD CONSTRAINT held_credits_root_fkey FOREIGN KEY (root) REFERENCES public.batches(root);

ALTER TABLE ONLY public.held_credits
    ADD CONSTRAINT held_credits_transfer_fkey FOREIGN KEY (transfer) REFERENCES public.transfers(id);

ALTER TABLE ONLY public.payouts
    ADD CONSTRAINT payouts_transfer_fkey FOREIGN KEY (transfer) REFERENCES public.transfers(id);

ALTER TABLE ONLY public.receipts
    ADD CONSTRAINT receipts_task_id_fkey FOREIGN KEY (task_id) REFERENCES public.tasks(id);

ALTER TABLE ONLY public.slice_work
    ADD CONSTRAINT slice_work_slice_fkey FOREIGN KEY (slice) REFERENCES public.reward_slices(number);

ALTER TABLE ONLY public.tasks
    ADD CONSTRAINT tasks_reserve_fkey FOREIGN KEY (reserve) REFERENCES public.transfers(id);

ALTER TABLE ONLY public.transfers
    ADD CONSTRAINT transfers_credit_fkey FOREIGN KEY (credit) REFERENCES public.accounts(id);

ALTER TABLE ONLY public.transfers
    ADD CONSTRAINT transfers_debit_fkey FOREIGN KEY (debit) REFERENCES public.accounts(id);

ALTER TABLE ONLY public.transfers
    ADD CONSTRAINT transfers_ends_fkey FOREIGN KEY (ends) REFERENCES public.transfers(id);

