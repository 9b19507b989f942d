-- A task's prompt is kept as its worker was given it, so that every replay takes in the same tokens: the digest of its
-- text (32 bytes), then its tokens (four bytes each, little-endian, at most 65,536). The text itself is not kept.

-- Prompts of an earlier release are texts, and the transcripts of their tasks commit to texts: no replay can use them, and
-- no worker shall answer for that. They end here, as tasks do whose pool was restarted.
UPDATE tasks SET state = 'failed', error_code = 'pool-restarted', prompt = NULL, stop = NULL, answer_form = NULL
WHERE state IN ('queued', 'assigned', 'finished');

ALTER TABLE tasks ADD CONSTRAINT prompt_is_a_digest_and_tokens
    CHECK (length(prompt) BETWEEN 36 AND 262176 AND length(prompt) % 4 = 0);
