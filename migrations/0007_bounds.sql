-- An account may be named by a BOLT12 offer: as long as a user_identity of Sv2 can be, behind `worker:`.

ALTER TABLE accounts DROP CONSTRAINT accounts_name_check;
ALTER TABLE accounts ADD CONSTRAINT accounts_name_check CHECK (length(name) BETWEEN 1 AND 270);

-- A task may be in a few open batches only; they are counted when another one is registered.

CREATE INDEX batches_open_tasks ON batches USING gin (task_ids) WHERE state = 'open';
