-- A worker may have a few open batches only. They are counted when another one is registered, so those that nobody can
-- claim any more must not be looked at again and again: a batch ends with the first of its tasks.

ALTER TABLE batches ADD COLUMN expires_at bigint;
UPDATE batches SET expires_at = coalesce(
    (SELECT min(tasks.expires_at) FROM tasks WHERE tasks.id = ANY(batches.task_ids)), 0);
ALTER TABLE batches ALTER COLUMN expires_at SET NOT NULL;
CREATE INDEX batches_open ON batches (worker, expires_at) WHERE state = 'open';
