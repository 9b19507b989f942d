-- Transfers are applied a statement at a time: each account that a statement moves is locked once, in one order, and
-- updated once. A row at a time, each update leaves a dead version of the account behind that the next one has to pass:
-- the cost of a group of shares grew with the square of its size, all of it on the pool's own account.

DROP TRIGGER transfers_apply ON transfers;
DROP FUNCTION apply_transfer();

CREATE FUNCTION apply_transfers() RETURNS trigger LANGUAGE plpgsql AS $$
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

CREATE TRIGGER transfers_apply AFTER INSERT ON transfers
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION apply_transfers();
