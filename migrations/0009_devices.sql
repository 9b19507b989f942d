-- What each device of an account has done lately, for its miner to see. It moves no money, and rows are changed and
-- deleted: devices are named by miners, who may name as many as they like.

CREATE TABLE devices (
    account          text   NOT NULL,
    -- Empty: the work of no device in particular.
    device           text   NOT NULL CHECK (length(device) <= 64),
    shares           bigint NOT NULL CHECK (shares >= 0),
    work             numeric NOT NULL CHECK (work >= 0),
    -- The hour of the newest share, counted from 1970, and the work in it and in the hour before.
    hour             bigint NOT NULL,
    hour_work        numeric NOT NULL CHECK (hour_work >= 0),
    hour_before_work numeric NOT NULL CHECK (hour_before_work >= 0),
    first_share_at   timestamptz NOT NULL DEFAULT now(),
    last_share_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account, device)
);
CREATE INDEX devices_idle ON devices (last_share_at);
