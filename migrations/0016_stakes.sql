-- What a sample was drawn against stands beside it, so that whoever is shown both can draw it again. NULL for audits of
-- before.
ALTER TABLE audits ADD COLUMN stake_msat bigint CHECK (stake_msat >= 0);
ALTER TABLE appeals ADD COLUMN stake_msat bigint CHECK (stake_msat >= 0);

-- What payers have paid for tasks since a moment: a transfer for each settled batch.
CREATE INDEX transfers_for_tasks ON transfers (debit, created_at) WHERE kind = 'posted' AND reason = 'tasks';
