-- The balance of an account sums all of its coinbase-only credits, whatever became of them.
DROP INDEX coinbase_only_credits_decided;
CREATE INDEX coinbase_only_credits_account ON coinbase_only_credits (account);
