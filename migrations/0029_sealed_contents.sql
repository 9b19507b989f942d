-- What is private of a task lies here encrypted, under a key that the database does not have, and is wiped once nobody needs
-- it any more. docs/ledger.md explains the rules.

-- What an earlier release left is readable by whoever has this database. So it goes. A task that ran or waited for its share
-- ends, as tasks do whose pool was restarted: nobody answers for it, and it costs nothing.
UPDATE tasks SET state = 'failed', error_code = 'pool-restarted', prompt = NULL, stop = NULL, answer_form = NULL
 WHERE state IN ('queued', 'assigned', 'finished');
ALTER TABLE tasks
    ALTER COLUMN salt DROP NOT NULL,
    DROP CONSTRAINT tasks_salt_check,
    DROP CONSTRAINT tasks_answer_form_check,
    DROP CONSTRAINT prompt_is_a_digest_and_tokens,
    DROP CONSTRAINT finished_has_a_transcript;
UPDATE tasks SET output_tokens = NULL, salt = NULL;

-- Encrypted, each of them is 40 bytes longer: a nonce of 24 and a tag of 16.
ALTER TABLE tasks
    ADD CONSTRAINT prompt_is_sealed CHECK (length(prompt) BETWEEN 76 AND 262216),
    ADD CONSTRAINT answer_form_is_sealed CHECK (length(answer_form) BETWEEN 45 AND 16540),
    ADD CONSTRAINT salt_is_sealed CHECK (length(salt) = 72),
    ADD CONSTRAINT output_is_sealed CHECK (length(output_tokens) >= 40),
    ADD CONSTRAINT open_has_a_salt CHECK (salt IS NOT NULL OR state NOT IN ('queued', 'assigned', 'finished')),
    ADD CONSTRAINT finished_has_a_transcript CHECK (transcript IS NOT NULL OR state NOT IN ('finished', 'settled')),
    ADD CONSTRAINT finished_has_an_output CHECK (output_tokens IS NOT NULL OR state <> 'finished');

-- Those of which outputs and salts are yet to be wiped.
CREATE INDEX tasks_to_wipe ON tasks (expires_at)
    WHERE salt IS NOT NULL AND state IN ('settled', 'failed', 'cancelled', 'expired');
