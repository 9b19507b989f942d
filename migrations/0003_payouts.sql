-- Payouts: requested, reserved (money set aside), sent (the wallet may have heard of it), and one
-- of the two ends. A payment hash is reserved once, ever.

CREATE TABLE payouts (
    id           bytea  PRIMARY KEY CHECK (length(id) = 32),
    worker       text   NOT NULL,
    amount_msat  bigint NOT NULL CHECK (amount_msat > 0),
    state        text   NOT NULL CHECK (state IN ('requested', 'reserved', 'sent', 'paid', 'failed')),
    bolt11       text,
    payment_hash bytea  UNIQUE CHECK (length(payment_hash) = 32),
    fee_max_msat bigint CHECK (fee_max_msat >= 0),
    fee_msat     bigint CHECK (fee_msat >= 0),
    created_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX payouts_open ON payouts (state) WHERE state IN ('requested', 'reserved', 'sent');
