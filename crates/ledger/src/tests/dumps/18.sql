
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
    CONSTRAINT a_sample_has_a_key CHECK (((sample_header IS NULL) = (sample_key IS NULL))),
    CONSTRAINT batches_check CHECK (((ended_at IS NULL) = (state = 'open'::text))),
    CONSTRAINT batches_root_check CHECK ((length(root) = 32)),
    CONSTRAINT batches_sample_header_check CHECK ((length(sample_header) = 32)),
    CONSTRAINT batches_sample_key_check CHECK ((length(sample_key) = 32)),
    CONSTRAINT batches_stake_msat_check CHECK ((stake_msat >= 0)),
    CONSTRAINT batches_state_check CHECK ((state = ANY (ARRAY['open'::text, 'settled'::text, 'failed'::text, 'dead'::text]))),
    CONSTRAINT batches_task_ids_check CHECK (((cardinality(task_ids) >= 1) AND (cardinality(task_ids) <= 64))),
    CONSTRAINT batches_undone_claims_check CHECK (((undone_claims >= 0) AND (undone_claims <= 3))),
    CONSTRAINT batches_worker_check CHECK ((length(worker) = 32))
);

CREATE TABLE public.blocks (
    header_hash bytea NOT NULL,
    height bigint NOT NULL,
    account text NOT NULL,
    result text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT blocks_header_hash_check CHECK ((length(header_hash) = 32))
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
    CONSTRAINT payouts_amount_msat_check CHECK ((amount_msat > 0)),
    CONSTRAINT payouts_fee_max_msat_check CHECK ((fee_max_msat >= 0)),
    CONSTRAINT payouts_fee_msat_check CHECK ((fee_msat >= 0)),
    CONSTRAINT payouts_id_check CHECK ((length(id) = 32)),
    CONSTRAINT payouts_payment_hash_check CHECK ((length(payment_hash) = 32)),
    CONSTRAINT payouts_state_check CHECK ((state = ANY (ARRAY['requested'::text, 'reserved'::text, 'sent'::text, 'paid'::text, 'failed'::text])))
);

CREATE TABLE public.receipts (
    task_id bytea NOT NULL,
    receipt text NOT NULL
);

CREATE TABLE public.shares (
    header_hash bytea NOT NULL,
    account text NOT NULL,
    kind text NOT NULL,
    work numeric(39,0) NOT NULL,
    credit_msat bigint NOT NULL,
    is_block boolean NOT NULL,
    batch_root bytea,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    held_in bigint,
    CONSTRAINT shares_check CHECK (((batch_root IS NOT NULL) = (kind = 'inference'::text))),
    CONSTRAINT shares_credit_msat_check CHECK ((credit_msat >= 0)),
    CONSTRAINT shares_header_hash_check CHECK ((length(header_hash) = 32)),
    CONSTRAINT shares_kind_check CHECK ((kind = ANY (ARRAY['hash'::text, 'inference'::text]))),
    CONSTRAINT shares_work_check CHECK ((work >= (0)::numeric))
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

INSERT INTO public._sqlx_migrations VALUES (1, 'ledger', '2026-11-27 17:19:14.37234+00', true, '\x559de0b49be50a97b051b29fc88441d76221a8467ebe9bbc6d05c9d819cdd736c8a42600edc981b3019704af86c7d020', 1000000);
INSERT INTO public._sqlx_migrations VALUES (2, 'work', '2026-11-27 17:19:14.555285+00', true, '\xf0582ac5d0d14a9d65846a20fdcde36d2c34d86e445c6d3b26515481b59418059057e63b89c161d1f0f3f6085b97729b', 1000000);
INSERT INTO public._sqlx_migrations VALUES (3, 'payouts', '2026-11-27 17:19:14.739286+00', true, '\xda0975ecc0c928fa81f3bc3c90023505c78e1b299707e754bb3938bc92b48b0929902f08fa7d5eb8c4aea74648234767', 1000000);
INSERT INTO public._sqlx_migrations VALUES (4, 'audit', '2026-11-27 17:19:14.959318+00', true, '\x1ddce16a6b55dec08153d92547539bfe1622a6e81559ebe02a377e38f5992ba95c74b4e07d07635259dd6dc80767ea95', 1000000);
INSERT INTO public._sqlx_migrations VALUES (5, 'declared', '2026-11-27 17:19:15.139301+00', true, '\x8f6bbe112912f628d592bd83d157d23f93ccc40684646a4806e03fa7904851ab701bfc77943212bf11b2dbf69eb68425', 1000000);
INSERT INTO public._sqlx_migrations VALUES (6, 'maturity', '2026-11-27 17:19:15.308361+00', true, '\x6eeaff257f34ac00efe8e48cbdbb8cfbe7b4727c11f139f4b0766216d7f46b29f7d39690b8014f88266d01604ae8d0ae', 1000000);
INSERT INTO public._sqlx_migrations VALUES (7, 'bounds', '2026-11-27 17:19:15.479311+00', true, '\x8e4d5c56c66b99e7bbd7ee2da0495ef34019a67d1aa351299296b4d3e3635dd3d173c53806cd5fab35b14521536f67ac', 1000000);
INSERT INTO public._sqlx_migrations VALUES (8, 'coinbase only', '2026-11-27 17:19:15.658785+00', true, '\x0b17ca27599c53a93a9129784e0575b24099075b8ea88b694299194fcc42e410b62ce8bc674fce149571dd7a3ea4fffa', 1000000);
INSERT INTO public._sqlx_migrations VALUES (9, 'devices', '2026-11-27 17:19:15.847586+00', true, '\x6edcbca6c8246cb014e71be9de23dce26c8da26e3ea5a01e90aa927d0520689f25dabe894bd35455f3b482cb6e543d20', 1000000);
INSERT INTO public._sqlx_migrations VALUES (10, 'open batches', '2026-11-27 17:19:16.059423+00', true, '\x027c89b775d0e81749dda1241aef54a15a75f0cf080e389408da9cd592e599730fa98833863aeaf660eeb057fa5ffc1a', 1000000);
INSERT INTO public._sqlx_migrations VALUES (11, 'answer forms', '2026-11-27 17:19:16.260219+00', true, '\x668d630526c89eb027da576ad2cd335a97a5015aa2019224acc36457d1cc07ffb579b7dbf7c369278cee629abf7b5b75', 1000000);
INSERT INTO public._sqlx_migrations VALUES (12, 'coinbase only accounts', '2026-11-27 17:19:16.453365+00', true, '\xcb4b87f87ba6cfeca3b7a743cfb1f26e36cc96340acad0cfef3e7a7dd61745418f8326d598a58cd631d572d8302292f2', 1000000);
INSERT INTO public._sqlx_migrations VALUES (13, 'samples', '2026-11-27 17:19:16.656251+00', true, '\xc94a49f622ef920d51a66e73a0ce79eb893adafe63711f4d5a10ddfeafd83b3103db2fa55e92ca28ec337f89f92b816c', 1000000);
INSERT INTO public._sqlx_migrations VALUES (14, 'value', '2026-11-27 17:19:16.823562+00', true, '\x12d38f1ec91b679bbfe2685a75e16a1d2cffc9d167de9aca73b10dbc81d3265508e5777361c008261b958f07e58d13f3', 1000000);
INSERT INTO public._sqlx_migrations VALUES (15, 'encoded prompts', '2026-11-27 17:19:17.047327+00', true, '\x5f16b51f18ff106cba2f8e138196216e5fd50a9d22027c39f01a6261f487660aadd7cf77754de3144052676e160c1dc0', 1000000);
INSERT INTO public._sqlx_migrations VALUES (16, 'stakes', '2026-11-27 17:19:17.188981+00', true, '\x56430ce9d69b6c36a7b27d0069c7f3bb66af8e67e20c358e45c0854e54f39956437963fbbb32dfb89f801cc1c813792e', 1000000);
INSERT INTO public._sqlx_migrations VALUES (17, 'kept credit', '2026-11-27 17:19:17.407318+00', true, '\x188ef7e19e44e2e4525f6b140ab524c3a5f1be938e0cfc3c472578d5cbf177e2e81a93bde1a623d30e315989ece80c5d', 1000000);
INSERT INTO public._sqlx_migrations VALUES (18, 'transfers in sets', '2026-11-27 17:19:17.592758+00', true, '\x9f730e39efef48063edeadc41ed233592dc71e54f5f9e4daed1e3899b14a9754ff0d41e2fc099606cfa5be1cae0e7c71', 1000000);

INSERT INTO public.accounts OVERRIDING SYSTEM VALUE VALUES (4, 'worker:bob', true, 0, 0, 0, 25000);
INSERT INTO public.accounts OVERRIDING SYSTEM VALUE VALUES (5, 'pool:subsidy', false, 0, 100000, 0, 0);
INSERT INTO public.accounts OVERRIDING SYSTEM VALUE VALUES (6, 'payer:subsidy', true, 3000, 2700, 0, 100000);
INSERT INTO public.accounts OVERRIDING SYSTEM VALUE VALUES (36, 'worker:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', true, 0, 0, 1800, 0);
INSERT INTO public.accounts OVERRIDING SYSTEM VALUE VALUES (8, 'paid:inference', true, 1800, 900, 3000, 2700);
INSERT INTO public.accounts OVERRIDING SYSTEM VALUE VALUES (38, 'worker:abababababababababababababababababababababababababababababababab', true, 0, 0, 0, 900);
INSERT INTO public.accounts OVERRIDING SYSTEM VALUE VALUES (1, 'pool:hash', false, 300, 85400, 0, 0);
INSERT INTO public.accounts OVERRIDING SYSTEM VALUE VALUES (42, 'worker:carol', true, 0, 0, 300, 400);
INSERT INTO public.accounts OVERRIDING SYSTEM VALUE VALUES (2, 'worker:alice', true, 20000, 10000, 0, 60000);
INSERT INTO public.accounts OVERRIDING SYSTEM VALUE VALUES (52, 'pool:lightning', false, 0, 0, 20100, 10020);
INSERT INTO public.accounts OVERRIDING SYSTEM VALUE VALUES (59, 'pool:lightning_fees', false, 100, 20, 0, 0);

INSERT INTO public.appeals VALUES ('\xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', '\xbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbd', '\x0606060606060606060606060606060606060606060606060606060606060606', '\x0707070707070707070707070707070707070707070707070707070707070707', 0, '\x0707070707070707070707070707070707070707070707070707070707070707', '\xbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', 2, 'tokens', 1, 3, '\x0101010101010101010101010101010101010101010101010101010101010101', '\x0202020202020202020202020202020202020202020202020202020202020202', 2, '\x0303030303030303030303030303030303030303030303030303030303030303', '\x0404040404040404040404040404040404040404040404040404040404040404', '{one,two}', 0, 0, '2026-11-27 17:18:59.586113+00', '\x0606060606060606060606060606060606060606060606060606060606060606', '\x0707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707', 900);

INSERT INTO public.audit_records VALUES ('\xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 1, 1, 0, '2026-11-27 17:18:59.586113+00');
INSERT INTO public.audit_records VALUES ('\xabababababababababababababababababababababababababababababababab', 1, 0, 0, '2026-11-27 17:18:59.586113+00');

INSERT INTO public.audits OVERRIDING SYSTEM VALUE VALUES (1, '\x0202020202020202020202020202020202020202020202020202020202020202', '\xbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', '{0}', 'settled', '2026-11-27 17:18:59.586113+00', '\x0202020202020202020202020202020202020202020202020202020202020202', '\x0707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707', 0);
INSERT INTO public.audits OVERRIDING SYSTEM VALUE VALUES (2, '\x0606060606060606060606060606060606060606060606060606060606060606', '\xbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbd', '{0}', 'inference-mismatch', '2026-11-27 17:18:59.586113+00', '\x0606060606060606060606060606060606060606060606060606060606060606', '\x0707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707', 900);

INSERT INTO public.batches VALUES ('\xbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', '\xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'settled', '{"\\x0101010101010101010101010101010101010101010101010101010101010101","\\x0202020202020202020202020202020202020202020202020202020202020202"}', NULL, '2026-11-27 17:18:59.586113+00', 1700000600, '\x0202020202020202020202020202020202020202020202020202020202020202', '\x0909090909090909090909090909090909090909090909090909090909090909', 0, 0);
INSERT INTO public.batches VALUES ('\xbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbc', '\xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'open', '{"\\x0404040404040404040404040404040404040404040404040404040404040404"}', NULL, NULL, 1700000600, '\x0505050505050505050505050505050505050505050505050505050505050505', '\x0909090909090909090909090909090909090909090909090909090909090909', 1, 900);
INSERT INTO public.batches VALUES ('\xbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbd', '\xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'failed', '{"\\x0707070707070707070707070707070707070707070707070707070707070707"}', 'inference-mismatch', '2026-11-27 17:18:59.586113+00', 1700000600, '\x0606060606060606060606060606060606060606060606060606060606060606', '\x0909090909090909090909090909090909090909090909090909090909090909', 0, 900);
INSERT INTO public.batches VALUES ('\xbebebebebebebebebebebebebebebebebebebebebebebebebebebebebebebebe', '\xabababababababababababababababababababababababababababababababab', 'settled', '{"\\x0303030303030303030303030303030303030303030303030303030303030303"}', NULL, '2026-11-27 17:18:59.586113+00', 1700000600, '\x0808080808080808080808080808080808080808080808080808080808080808', '\x0909090909090909090909090909090909090909090909090909090909090909', 0, 0);
INSERT INTO public.batches VALUES ('\xbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbf', '\xabababababababababababababababababababababababababababababababab', 'dead', '{"\\x0909090909090909090909090909090909090909090909090909090909090909"}', 'batch-dead', '2026-11-27 17:18:59.586113+00', 1700000600, NULL, NULL, 3, NULL);

INSERT INTO public.blocks VALUES ('\x0202020202020202020202020202020202020202020202020202020202020202', 900100, 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'accepted', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.blocks VALUES ('\x0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c', 900050, 'carol', 'left to its miner', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.blocks VALUES ('\x0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d', 900060, 'carol', 'seen', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.blocks VALUES ('\x0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e', 900070, 'carol', 'not seen', '2026-11-27 17:18:59.586113+00');

INSERT INTO public.coinbase_only_credits OVERRIDING SYSTEM VALUE VALUES (1, 'dora', 700, 3, 'open', NULL, NULL, 0, NULL, '2026-11-27 17:18:59.586113+00', NULL);
INSERT INTO public.coinbase_only_credits OVERRIDING SYSTEM VALUE VALUES (2, 'carol', 300, 2, 'followed', '\x0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c', '\x20b7c7ecdac17d0b0880a52b040c7c5a', 0, NULL, '2026-11-27 17:18:59.586113+00', NULL);
INSERT INTO public.coinbase_only_credits OVERRIDING SYSTEM VALUE VALUES (3, 'carol', 400, 2, 'posted', '\x0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d', '\xb6483f69d2e826174411d8b021baa7e9', 0, NULL, '2026-11-27 17:18:59.586113+00', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.coinbase_only_credits OVERRIDING SYSTEM VALUE VALUES (4, 'carol', 500, 2, 'voided', '\x0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e', '\xccdf55264778eefef8fd82bd7a07d077', 0, NULL, '2026-11-27 17:18:59.586113+00', '2026-11-27 17:18:59.586113+00');

INSERT INTO public.declared_jobs VALUES ('\x0102', 'alice', '\xbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbc', '\x00', '\x00', 536870912, '{"\\x0101010101010101010101010101010101010101010101010101010101010101"}', 5000000000, 1700000600, '{"\\x0202020202020202020202020202020202020202020202020202020202020202"}', '\x0303030303030303030303030303030303030303030303030303030303030303', 486604799);

INSERT INTO public.declared_transactions VALUES ('\x0202020202020202020202020202020202020202020202020202020202020202', '\x0200', 1700000000);

INSERT INTO public.devices VALUES ('alice', 'rig1', 1, 5, 472222, 5, 0, '2026-11-27 17:18:59.586113+00', '2026-11-27 17:18:59.586113+00');

INSERT INTO public.findings VALUES ('\xbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbcbc', '\x0505050505050505050505050505050505050505050505050505050505050505', 0, 'tokens', 1, 2, '\x0303030303030303030303030303030303030303030303030303030303030303', '\x0404040404040404040404040404040404040404040404040404040404040404', 'one', '2026-11-27 17:18:59.586113+00');

INSERT INTO public.held_credits VALUES ('\xbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', '\xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 1800, '\xd096a30cab76e949bf3a48e58b2da749', 1, 'held', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.held_credits VALUES ('\xbebebebebebebebebebebebebebebebebebebebebebebebebebebebebebebebe', '\xabababababababababababababababababababababababababababababababab', 'abababababababababababababababababababababababababababababababab', 900, '\xba752a5bc9f9895e73fc12990db9df62', 1, 'matured', '2026-11-27 17:18:59.586113+00');

INSERT INTO public.payouts VALUES ('\x2121212121212121212121212121212121212121212121212121212121212121', 'alice', 10000, 'requested', NULL, NULL, 50, NULL, '2026-11-27 17:18:59.586113+00');
INSERT INTO public.payouts VALUES ('\x2222222222222222222222222222222222222222222222222222222222222222', 'alice', 10000, 'reserved', 'lnbcrt1', '\x4242424242424242424242424242424242424242424242424242424242424242', 50, NULL, '2026-11-27 17:18:59.586113+00');
INSERT INTO public.payouts VALUES ('\x2323232323232323232323232323232323232323232323232323232323232323', 'alice', 10000, 'sent', 'lnbcrt1', '\x4343434343434343434343434343434343434343434343434343434343434343', 50, NULL, '2026-11-27 17:18:59.586113+00');
INSERT INTO public.payouts VALUES ('\x2424242424242424242424242424242424242424242424242424242424242424', 'alice', 10000, 'paid', 'lnbcrt1', '\x4444444444444444444444444444444444444444444444444444444444444444', 50, 20, '2026-11-27 17:18:59.586113+00');
INSERT INTO public.payouts VALUES ('\x2525252525252525252525252525252525252525252525252525252525252525', 'alice', 10000, 'failed', 'lnbcrt1', '\x4545454545454545454545454545454545454545454545454545454545454545', 50, NULL, '2026-11-27 17:18:59.586113+00');

INSERT INTO public.receipts VALUES ('\x0101010101010101010101010101010101010101010101010101010101010101', '{}');
INSERT INTO public.receipts VALUES ('\x0202020202020202020202020202020202020202020202020202020202020202', '{}');
INSERT INTO public.receipts VALUES ('\x0303030303030303030303030303030303030303030303030303030303030303', '{}');

INSERT INTO public.shares VALUES ('\x0101010101010101010101010101010101010101010101010101010101010101', 'alice', 'hash', 5, 60000, false, NULL, '2026-11-27 17:18:59.586113+00', NULL);
INSERT INTO public.shares VALUES ('\x0202020202020202020202020202020202020202020202020202020202020202', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'inference', 6, 0, true, '\xbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', '2026-11-27 17:18:59.586113+00', NULL);
INSERT INTO public.shares VALUES ('\x0303030303030303030303030303030303030303030303030303030303030303', 'bob', 'hash', 100000000000000000000, 25000, false, NULL, '2026-11-27 17:18:59.586113+00', NULL);
INSERT INTO public.shares VALUES ('\x0404040404040404040404040404040404040404040404040404040404040404', 'dora', 'hash', 7, 700, false, NULL, '2026-11-27 17:18:59.586113+00', 1);
INSERT INTO public.shares VALUES ('\x0808080808080808080808080808080808080808080808080808080808080808', 'abababababababababababababababababababababababababababababababab', 'inference', 8, 0, false, '\xbebebebebebebebebebebebebebebebebebebebebebebebebebebebebebebebe', '2026-11-27 17:18:59.586113+00', NULL);

INSERT INTO public.spent_job_tokens VALUES ('\x01010101010101010101010101010101', 1700000600);

INSERT INTO public.subsidy_days VALUES (20000, 100000);

INSERT INTO public.tasks VALUES ('\x0101010101010101010101010101010101010101010101010101010101010101', 'settled', '\xbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', NULL, NULL, '\x0101010101010101010101010101010101010101010101010101010101010101', '\x0101010101010101010101010101010101010101010101010101010101010101', '\x00000000000000000000000000000000', '\x0101010101010101010101010101010101010101010101010101010101010101', 1000, '\xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', '\x01', '\x01000000', NULL, 1700000000, 1700000600, NULL, 1, 1000000000, 0, '\xd2620bdc4c92a0016d714478752aabaf', NULL);
INSERT INTO public.tasks VALUES ('\x0202020202020202020202020202020202020202020202020202020202020202', 'settled', '\xbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', NULL, NULL, '\x0202020202020202020202020202020202020202020202020202020202020202', '\x0202020202020202020202020202020202020202020202020202020202020202', '\x00000000000000000000000000000000', '\x0202020202020202020202020202020202020202020202020202020202020202', 1000, '\xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', '\x01', '\x01000000', NULL, 1700000000, 1700000600, NULL, 1, 1000000000, 0, '\xbd61266cd0db9a01947696e7b1a19787', NULL);
INSERT INTO public.tasks VALUES ('\x0303030303030303030303030303030303030303030303030303030303030303', 'settled', '\xbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', NULL, NULL, '\x0303030303030303030303030303030303030303030303030303030303030303', '\x0303030303030303030303030303030303030303030303030303030303030303', '\x00000000000000000000000000000000', '\x0303030303030303030303030303030303030303030303030303030303030303', 1000, '\xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', '\x01', '\x01000000', NULL, 1700000000, 1700000600, NULL, 1, 1000000000, 0, '\x5372050494296ce15a21275d06616cbd', NULL);
INSERT INTO public.tasks VALUES ('\x0404040404040404040404040404040404040404040404040404040404040404', 'finished', '\xbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', '\xabababababababababababababababababababababababababababababababababababab', '\x00', '\x0404040404040404040404040404040404040404040404040404040404040404', '\x0404040404040404040404040404040404040404040404040404040404040404', '\x00000000000000000000000000000000', '\x0404040404040404040404040404040404040404040404040404040404040404', 1000, '\xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', '\x01', '\x01000000', NULL, 1700000000, 1700000600, '\x0102030405', 1, 1000000000, 0, '\x6313ed907c6b2a94f125b599bcf97d99', NULL);
INSERT INTO public.tasks VALUES ('\x0505050505050505050505050505050505050505050505050505050505050505', 'assigned', '\xbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', '\xabababababababababababababababababababababababababababababababababababab', '\x00', '\x0505050505050505050505050505050505050505050505050505050505050505', '\x0505050505050505050505050505050505050505050505050505050505050505', '\x00000000000000000000000000000000', '\x0505050505050505050505050505050505050505050505050505050505050505', 1000, '\xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', NULL, NULL, NULL, 1700000000, 1700000600, '\x0102030405', 1, 1000000000, 0, '\xc63711ccfa2c9717092cd8940ce659a1', NULL);
INSERT INTO public.tasks VALUES ('\x0606060606060606060606060606060606060606060606060606060606060606', 'queued', '\xbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', '\xabababababababababababababababababababababababababababababababababababab', '\x00', '\x0606060606060606060606060606060606060606060606060606060606060606', '\x0606060606060606060606060606060606060606060606060606060606060606', '\x00000000000000000000000000000000', '\x0606060606060606060606060606060606060606060606060606060606060606', 1000, NULL, NULL, NULL, NULL, 1700000000, 1700000600, '\x0102030405', 1, 1000000000, 0, '\x088120c6196ffa7026c23afac36bbf45', NULL);
INSERT INTO public.tasks VALUES ('\x0707070707070707070707070707070707070707070707070707070707070707', 'failed', '\xbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', NULL, NULL, '\x0707070707070707070707070707070707070707070707070707070707070707', '\x0707070707070707070707070707070707070707070707070707070707070707', '\x00000000000000000000000000000000', '\x0707070707070707070707070707070707070707070707070707070707070707', 1000, '\xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', '\x01', '\x01000000', 'inference-mismatch', 1700000000, 1700000600, NULL, 1, 1000000000, 0, '\xe872baae7f7838148a48abe2fa9b6f9e', NULL);
INSERT INTO public.tasks VALUES ('\x0808080808080808080808080808080808080808080808080808080808080808', 'cancelled', '\xbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', NULL, NULL, '\x0808080808080808080808080808080808080808080808080808080808080808', '\x0808080808080808080808080808080808080808080808080808080808080808', '\x00000000000000000000000000000000', '\x0808080808080808080808080808080808080808080808080808080808080808', 1000, NULL, NULL, NULL, NULL, 1700000000, 1700000600, NULL, 1, 1000000000, 0, '\x6f76d79634fd60219b9bd1a46f353c5d', NULL);

INSERT INTO public.transfers VALUES ('\xaf316ecb91a8ee7ae99210702b2d4758', 'posted', NULL, 1, 2, 60000, 'hash', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\xe7bf382f6e5915b3f88619b866223ebf', 'posted', NULL, 1, 4, 25000, 'hash', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\x15fc7418ed949dd6e2d1354751cc7c75', 'posted', NULL, 5, 6, 100000, 'subsidy', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\xd2620bdc4c92a0016d714478752aabaf', 'pending', NULL, 6, 8, 1000, 'task', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\xbd61266cd0db9a01947696e7b1a19787', 'pending', NULL, 6, 8, 1000, 'task', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\x5372050494296ce15a21275d06616cbd', 'pending', NULL, 6, 8, 1000, 'task', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\x6313ed907c6b2a94f125b599bcf97d99', 'pending', NULL, 6, 8, 1000, 'task', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\xc63711ccfa2c9717092cd8940ce659a1', 'pending', NULL, 6, 8, 1000, 'task', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\x088120c6196ffa7026c23afac36bbf45', 'pending', NULL, 6, 8, 1000, 'task', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\xe872baae7f7838148a48abe2fa9b6f9e', 'pending', NULL, 6, 8, 1000, 'task', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\x6f76d79634fd60219b9bd1a46f353c5d', 'pending', NULL, 6, 8, 1000, 'task', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\xfd95199111e58b47d5f2278ff78abc61', 'void', '\xd2620bdc4c92a0016d714478752aabaf', 6, 8, 1000, 'task', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\x3ffb9390b61a313ee9a401a0d3992056', 'void', '\xbd61266cd0db9a01947696e7b1a19787', 6, 8, 1000, 'task', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\x5cacc5b483fe81741f9dede24244d55b', 'void', '\x5372050494296ce15a21275d06616cbd', 6, 8, 1000, 'task', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\x708c4c7be855db141bf11e33f4643bcd', 'posted', NULL, 6, 8, 900, 'tasks', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\xf84b392dbbaee83486130854ef4d64ec', 'posted', NULL, 6, 8, 900, 'tasks', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\x04e2b5f6f59df693e75d7af053597faa', 'posted', NULL, 6, 8, 900, 'tasks', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\x53139c472b60f55240cfba128a171cbf', 'void', '\xe872baae7f7838148a48abe2fa9b6f9e', 6, 8, 1000, 'task released', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\xc5d136e2c701ac661733131c45cb76ff', 'void', '\x6f76d79634fd60219b9bd1a46f353c5d', 6, 8, 1000, 'task released', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\xd096a30cab76e949bf3a48e58b2da749', 'pending', NULL, 8, 36, 1800, 'inference', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\xba752a5bc9f9895e73fc12990db9df62', 'pending', NULL, 8, 38, 900, 'inference', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\xc16fa165074eb8b8eb49996e2a525bf0', 'post', '\xba752a5bc9f9895e73fc12990db9df62', 8, 38, 900, 'inference', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\x20b7c7ecdac17d0b0880a52b040c7c5a', 'pending', NULL, 1, 42, 300, 'coinbase-only', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\xb6483f69d2e826174411d8b021baa7e9', 'pending', NULL, 1, 42, 400, 'coinbase-only', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\xc47e93579c19bc717c4d5aad513a918b', 'post', '\xb6483f69d2e826174411d8b021baa7e9', 1, 42, 400, 'coinbase-only', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\xccdf55264778eefef8fd82bd7a07d077', 'pending', NULL, 1, 42, 500, 'coinbase-only', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\xf09970bea6e9628b8152f51f37a2d7a5', 'void', '\xccdf55264778eefef8fd82bd7a07d077', 1, 42, 500, 'coinbase-only', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\x5dbefe21d9ec2bd24dd85a4f6e2d71a7', 'pending', NULL, 2, 52, 10000, 'payout', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\x2c804729e13df82caed7c13b653bcf50', 'pending', NULL, 2, 52, 10000, 'payout', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\x38ed782d281805cf994c318f07c72ad6', 'pending', NULL, 2, 52, 10000, 'payout', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\x664e50c5bba243541a5d4e02ad8944fd', 'pending', NULL, 2, 52, 10000, 'payout', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\x00a8c169b7923e4afb9d19923edebc3e', 'pending', NULL, 59, 52, 50, 'payout fee', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\x6a6287d9ff5662b9ad8e2b32caedeced', 'pending', NULL, 59, 52, 50, 'payout fee', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\x6de9013a968761b799cdaa8c2230faaf', 'pending', NULL, 59, 52, 50, 'payout fee', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\x7134d97132568e97306b80cc59627ef7', 'pending', NULL, 59, 52, 50, 'payout fee', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\x7ee2eff5145639c8a9c9f02558444e93', 'post', '\x38ed782d281805cf994c318f07c72ad6', 2, 52, 10000, 'payout', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\xbccf7f164bc6a321e10e2861feeeb471', 'void', '\x6de9013a968761b799cdaa8c2230faaf', 59, 52, 50, 'payout fee', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\xd0e511f215ea1ab7d0c85bb105abcef5', 'posted', NULL, 59, 52, 20, 'payout fee', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\x76e19f9db4bfb705a803592e26c8e3c2', 'void', '\x664e50c5bba243541a5d4e02ad8944fd', 2, 52, 10000, 'payout', '2026-11-27 17:18:59.586113+00');
INSERT INTO public.transfers VALUES ('\xc085b3a8137d55ed71a823b0d9673899', 'void', '\x7134d97132568e97306b80cc59627ef7', 59, 52, 50, 'payout fee', '2026-11-27 17:18:59.586113+00');

SELECT pg_catalog.setval('public.accounts_id_seq', 76, true);

SELECT pg_catalog.setval('public.audits_id_seq', 2, true);

SELECT pg_catalog.setval('public.coinbase_only_credits_id_seq', 4, true);

ALTER TABLE ONLY public._sqlx_migrations
    ADD CONSTRAINT _sqlx_migrations_pkey PRIMARY KEY (version);

ALTER TABLE ONLY public.accounts
    ADD CONSTRAINT accounts_name_key UNIQUE (name);

ALTER TABLE ONLY public.accounts
    ADD CONSTRAINT accounts_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.appeals
    ADD CONSTRAINT appeals_pkey PRIMARY KEY (root);

ALTER TABLE ONLY public.audits
    ADD CONSTRAINT audits_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.batches
    ADD CONSTRAINT batches_pkey PRIMARY KEY (root);

ALTER TABLE ONLY public.blocks
    ADD CONSTRAINT blocks_pkey PRIMARY KEY (header_hash);

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

ALTER TABLE ONLY public.held_credits
    ADD CONSTRAINT held_credits_pkey PRIMARY KEY (root);

ALTER TABLE ONLY public.held_credits
    ADD CONSTRAINT held_credits_transfer_key UNIQUE (transfer);

ALTER TABLE ONLY public.audits
    ADD CONSTRAINT one_audit_of_a_claim UNIQUE (root, header_hash, verdict);

ALTER TABLE ONLY public.payouts
    ADD CONSTRAINT payouts_payment_hash_key UNIQUE (payment_hash);

ALTER TABLE ONLY public.payouts
    ADD CONSTRAINT payouts_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.receipts
    ADD CONSTRAINT receipts_pkey PRIMARY KEY (task_id);

ALTER TABLE ONLY public.shares
    ADD CONSTRAINT shares_batch_root_key UNIQUE (batch_root);

ALTER TABLE ONLY public.shares
    ADD CONSTRAINT shares_pkey PRIMARY KEY (header_hash);

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

CREATE INDEX appeals_of_worker ON public.appeals USING btree (worker, created_at);

CREATE INDEX batches_of_worker ON public.batches USING btree (worker, ended_at);

CREATE INDEX batches_open ON public.batches USING btree (worker, expires_at) WHERE (state = 'open'::text);

CREATE INDEX batches_open_tasks ON public.batches USING gin (task_ids) WHERE (state = 'open'::text);

CREATE INDEX batches_under_audit ON public.batches USING btree (worker) WHERE ((state = 'open'::text) AND (stake_msat IS NOT NULL));

CREATE INDEX coinbase_only_credits_account ON public.coinbase_only_credits USING btree (account);

CREATE INDEX coinbase_only_credits_followed ON public.coinbase_only_credits USING btree (account) WHERE (state = 'followed'::text);

CREATE UNIQUE INDEX coinbase_only_credits_open ON public.coinbase_only_credits USING btree (account) WHERE (state = 'open'::text);

CREATE INDEX declared_jobs_expiry ON public.declared_jobs USING btree (expires_at);

CREATE INDEX declared_transactions_age ON public.declared_transactions USING btree (declared_at);

CREATE INDEX devices_idle ON public.devices USING btree (last_share_at);

CREATE INDEX held_credits_open ON public.held_credits USING btree (worker, held_at) WHERE (state = 'held'::text);

CREATE INDEX payouts_open ON public.payouts USING btree (state) WHERE (state = ANY (ARRAY['requested'::text, 'reserved'::text, 'sent'::text]));

CREATE INDEX spent_job_tokens_expiry ON public.spent_job_tokens USING btree (expires_at);

CREATE INDEX tasks_open ON public.tasks USING btree (expires_at) WHERE (state = ANY (ARRAY['queued'::text, 'assigned'::text, 'finished'::text]));

CREATE INDEX tasks_stopping ON public.tasks USING btree (stops_at) WHERE ((state = 'assigned'::text) AND (stops_at IS NOT NULL));

CREATE INDEX transfers_for_tasks ON public.transfers USING btree (debit, created_at) WHERE ((kind = 'posted'::text) AND (reason = 'tasks'::text));

CREATE TRIGGER accounts_are_not_truncated BEFORE TRUNCATE ON public.accounts FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER accounts_follow_transfers BEFORE INSERT OR DELETE OR UPDATE ON public.accounts FOR EACH ROW EXECUTE FUNCTION public.accounts_follow_transfers();

CREATE TRIGGER appeals_are_facts BEFORE DELETE OR UPDATE ON public.appeals FOR EACH ROW EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER appeals_are_not_truncated BEFORE TRUNCATE ON public.appeals FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER audits_are_facts BEFORE DELETE OR UPDATE ON public.audits FOR EACH ROW EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER audits_are_not_truncated BEFORE TRUNCATE ON public.audits FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER coinbase_only_credits_are_not_truncated BEFORE TRUNCATE ON public.coinbase_only_credits FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER coinbase_only_credits_follow_transfers BEFORE INSERT OR DELETE OR UPDATE ON public.coinbase_only_credits FOR EACH ROW EXECUTE FUNCTION public.coinbase_only_credits_follow_transfers();

CREATE TRIGGER held_credits_are_not_truncated BEFORE TRUNCATE ON public.held_credits FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER held_credits_follow_transfers BEFORE INSERT OR DELETE OR UPDATE ON public.held_credits FOR EACH ROW EXECUTE FUNCTION public.held_credits_follow_transfers();

CREATE TRIGGER shares_are_facts BEFORE DELETE OR UPDATE ON public.shares FOR EACH ROW EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER shares_are_not_truncated BEFORE TRUNCATE ON public.shares FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER subsidy_days_are_facts BEFORE DELETE OR UPDATE ON public.subsidy_days FOR EACH ROW EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER subsidy_days_are_not_truncated BEFORE TRUNCATE ON public.subsidy_days FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER suspect_batches_wait BEFORE UPDATE OF state ON public.batches FOR EACH ROW EXECUTE FUNCTION public.suspect_batches_wait();

CREATE TRIGGER tasks_release_reserve AFTER UPDATE OF state ON public.tasks FOR EACH ROW WHEN (((old.state = ANY (ARRAY['queued'::text, 'assigned'::text, 'finished'::text])) AND (new.state = ANY (ARRAY['failed'::text, 'cancelled'::text, 'expired'::text])) AND (new.reserve IS NOT NULL))) EXECUTE FUNCTION public.release_reserve();

CREATE TRIGGER transfers_apply AFTER INSERT ON public.transfers REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION public.apply_transfers();

CREATE TRIGGER transfers_are_facts BEFORE DELETE OR UPDATE ON public.transfers FOR EACH ROW EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER transfers_are_not_truncated BEFORE TRUNCATE ON public.transfers FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();

ALTER TABLE ONLY public.appeals
    ADD CONSTRAINT appeals_root_fkey FOREIGN KEY (root) REFERENCES public.batches(root);

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

ALTER TABLE ONLY public.receipts
    ADD CONSTRAINT receipts_task_id_fkey FOREIGN KEY (task_id) REFERENCES public.tasks(id);

ALTER TABLE ONLY public.shares
    ADD CONSTRAINT shares_batch_root_fkey FOREIGN KEY (batch_root) REFERENCES public.batches(root);

ALTER TABLE ONLY public.shares
    ADD CONSTRAINT shares_held_in_fkey FOREIGN KEY (held_in) REFERENCES public.coinbase_only_credits(id);

ALTER TABLE ONLY public.tasks
    ADD CONSTRAINT tasks_reserve_fkey FOREIGN KEY (reserve) REFERENCES public.transfers(id);

ALTER TABLE ONLY public.transfers
    ADD CONSTRAINT transfers_credit_fkey FOREIGN KEY (credit) REFERENCES public.accounts(id);

ALTER TABLE ONLY public.transfers
    ADD CONSTRAINT transfers_debit_fkey FOREIGN KEY (debit) REFERENCES public.accounts(id);

ALTER TABLE ONLY public.transfers
    ADD CONSTRAINT transfers_ends_fkey FOREIGN KEY (ends) REFERENCES public.transfers(id);

