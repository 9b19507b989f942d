-- What a task's creation begins with, in one question: every task waits for it. It waits for the right to move what payers have set
-- aside, and looks then for the request that created the task before. The look is a statement of its own, so it sees what those
-- have written who had the right until now.

CREATE FUNCTION request_under_lock(held_lock bigint, task bytea) RETURNS bytea LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(held_lock);
    RETURN (SELECT request_hash FROM tasks WHERE id = task);
END $$;
