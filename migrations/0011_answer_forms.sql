-- A task may ask for an answer of a given form: the constraint as the extension encodes it, with its guide's name.
-- It is as private as the prompt, and goes with it.

ALTER TABLE tasks ADD COLUMN answer_form bytea CHECK (length(answer_form) BETWEEN 5 AND 16500);
ALTER TABLE tasks ADD CHECK (answer_form IS NULL OR prompt IS NOT NULL);
