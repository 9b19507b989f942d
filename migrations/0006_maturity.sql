-- When held credit is due, in one place: for those who look for it and for those who post it.

-- `settled` is how many batches of the credit's worker were settled by now. The window is the pool's
-- configuration: so many later batches and so many seconds, or in any case the longest time.
CREATE FUNCTION is_mature(held held_credits, settled bigint, batches bigint, seconds double precision,
                          seconds_max double precision)
RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT (settled - held.batch_number >= batches
            AND held.held_at <= now() - make_interval(secs => seconds))
        OR held.held_at <= now() - make_interval(secs => seconds_max)
$$;
