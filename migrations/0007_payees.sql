-- An account may be named by a BOLT12 offer: as long as a user_identity of Sv2 can be, behind `worker:`.

ALTER TABLE accounts DROP CONSTRAINT accounts_name_check;
ALTER TABLE accounts ADD CONSTRAINT accounts_name_check CHECK (length(name) BETWEEN 1 AND 270);
