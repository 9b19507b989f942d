-- The pool signs what a block pays and how it is divided, when it divides it (docs/rewards.md). Blocks of before stay unsigned.
ALTER TABLE block_rewards
    -- How many accounts have a part, and the top of the tree over these.
    ADD COLUMN parts     bigint CHECK (parts >= 0),
    ADD COLUMN parts_top bytea CHECK (length(parts_top) = 32),
    ADD COLUMN signer    bytea CHECK (length(signer) = 32),
    ADD COLUMN signature bytea CHECK (length(signature) = 64),
    ADD CHECK (num_nulls(parts, parts_top, signer, signature) IN (0, 4));
