"""Tables and functions of the stores in PostgreSQL.

Functions are told how things are by locks first: what a statement reads after a lock that it waited for is what the
others have committed meanwhile, since each statement of a function in PL/pgSQL sees the state of its own moment.
Accounts are locked in the order of their names, windows in that of their digests: nobody waits in a circle.
"""

from __future__ import annotations

BUDGETS = """
CREATE TABLE IF NOT EXISTS accounts (
    name text COLLATE "C" PRIMARY KEY, "limit" bigint NOT NULL, period text NOT NULL, warn float8 NOT NULL,
    brake float8 NOT NULL, ends float8 NOT NULL, settled bigint NOT NULL DEFAULT 0, held bigint NOT NULL DEFAULT 0,
    overrun bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
CREATE TABLE IF NOT EXISTS holds (
    key text COLLATE "C" PRIMARY KEY, owner text NOT NULL, run text NOT NULL, what text NOT NULL,
    amount bigint NOT NULL, accounts text[] NOT NULL, at float8 NOT NULL
);
CREATE INDEX IF NOT EXISTS holds_owner ON holds (owner);
CREATE TABLE IF NOT EXISTS owners (
    id text COLLATE "C" PRIMARY KEY, host text NOT NULL, pid bigint NOT NULL, started text NOT NULL,
    seen float8 NOT NULL
);
CREATE TABLE IF NOT EXISTS crossings (
    account text COLLATE "C" NOT NULL, level text NOT NULL, ends float8 NOT NULL, used bigint NOT NULL,
    "limit" bigint, owner text NOT NULL, told boolean NOT NULL, PRIMARY KEY (account, level)
);
CREATE TABLE IF NOT EXISTS changes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at float8 NOT NULL, was text, now text NOT NULL,
    by text NOT NULL
);

CREATE FUNCTION locked_v(p_names text[], p_now float8, p_day float8, p_month float8) RETURNS SETOF accounts
LANGUAGE plpgsql AS $$
-- The accounts of these names, as of now, for as long as the transaction lasts.
BEGIN
    PERFORM FROM accounts WHERE name = ANY (p_names) ORDER BY name FOR UPDATE;
    UPDATE accounts SET ends = CASE period WHEN 'day' THEN p_day ELSE p_month END, settled = 0, overrun = 0
        WHERE name = ANY (p_names) AND p_now >= ends;
    RETURN QUERY SELECT * FROM accounts WHERE name = ANY (p_names);
END $$;

CREATE FUNCTION beat_v(p_owner text, p_host text, p_pid bigint, p_started text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO owners VALUES (p_owner, p_host, p_pid, p_started, seconds_v())
    ON CONFLICT (id) DO UPDATE SET seen = excluded.seen
$$;

CREATE FUNCTION forget_v(p_owner text) RETURNS void LANGUAGE plpgsql AS $$
-- Only who holds nothing is forgotten. Who reserves locks its row against it.
BEGIN
    PERFORM FROM owners WHERE id = p_owner FOR UPDATE;
    DELETE FROM owners WHERE id = p_owner AND NOT EXISTS (SELECT FROM holds WHERE owner = p_owner);
END $$;

CREATE FUNCTION reserve_v(
    p_key text, p_names text[], p_amount bigint, p_now float8, p_day float8, p_month float8,
    p_owner text, p_host text, p_pid bigint, p_started text, p_run text, p_what text, p_until float8)
RETURNS TABLE (fits boolean, name text, "limit" bigint, period text, warn float8, brake float8, ends float8,
    settled bigint, held bigint, overrun bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_fits boolean;
BEGIN
    SELECT count(*) = cardinality(p_names) AND coalesce(bool_and(settled + held + p_amount <= "limit"), true)
        INTO v_fits FROM locked_v(p_names, p_now, p_day, p_month);
    RETURN QUERY SELECT v_fits, a.* FROM accounts a WHERE a.name = ANY (p_names);
    IF v_fits THEN
        PERFORM FROM owners WHERE id = p_owner FOR KEY SHARE;
        IF NOT FOUND THEN -- we were taken for dead
            PERFORM beat_v(p_owner, p_host, p_pid, p_started);
        END IF;
        INSERT INTO holds VALUES (p_key, p_owner, p_run, p_what, p_amount, p_names, p_now);
        UPDATE accounts SET held = held + p_amount WHERE name = ANY (p_names);
    END IF;
    PERFORM in_time_v(p_until);
END $$;

CREATE FUNCTION settle_v(p_key text, p_owner text, p_actual bigint, p_now float8, p_day float8, p_month float8)
RETURNS SETOF accounts LANGUAGE plpgsql AS $$
-- As the memory ledger does: a bill above its reservation fills what room there is, and the rest is an overrun.
DECLARE
    v_hold holds;
    v_account accounts;
    v_others bigint;
    v_fits bigint;
BEGIN
    DELETE FROM holds WHERE key = p_key AND owner = p_owner RETURNING * INTO v_hold;
    IF NOT FOUND THEN RETURN; END IF;
    FOR v_account IN SELECT * FROM locked_v(v_hold.accounts, p_now, p_day, p_month) LOOP
        RETURN NEXT v_account;
        v_others := v_account.held - v_hold.amount;
        v_fits := p_actual;
        IF p_actual > v_hold.amount THEN
            v_fits := greatest(least(p_actual, v_account."limit" - v_account.settled - v_others), 0);
        END IF;
        UPDATE accounts SET held = v_others, settled = settled + v_fits, overrun = overrun + p_actual - v_fits
            WHERE name = v_account.name;
    END LOOP;
END $$;

CREATE FUNCTION set_budget_v(
    p_replace boolean, p_name text, p_limit bigint, p_period text, p_warn float8, p_brake float8, p_ends float8,
    p_now float8, p_said text, p_by text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_was accounts;
    v_new boolean;
BEGIN
    IF NOT p_replace THEN
        INSERT INTO accounts VALUES (p_name, p_limit, p_period, p_warn, p_brake, p_ends) ON CONFLICT (name) DO NOTHING;
        RETURN;
    END IF;
    LOCK TABLE changes IN SHARE ROW EXCLUSIVE MODE; -- one at a time: programs that begin together set the same
    SELECT * INTO v_was FROM accounts WHERE name = p_name FOR UPDATE;
    v_new := NOT FOUND;
    IF (v_was."limit", v_was.period, v_was.warn, v_was.brake) = (p_limit, p_period, p_warn, p_brake) THEN
        RETURN;
    END IF;
    INSERT INTO accounts VALUES (p_name, p_limit, p_period, p_warn, p_brake, p_ends)
        ON CONFLICT (name) DO UPDATE SET "limit" = p_limit, warn = p_warn, brake = p_brake, period = p_period,
        ends = CASE WHEN accounts.period = p_period THEN accounts.ends ELSE p_ends END;
    DELETE FROM crossings WHERE account = p_name;
    INSERT INTO changes (at, was, now, by) VALUES (p_now, CASE WHEN NOT v_new THEN
        json_build_array(v_was.name, v_was."limit", v_was.period, v_was.warn, v_was.brake)::text END, p_said, p_by);
END $$;

CREATE FUNCTION claim_v(
    p_account text, p_level text, p_ends float8, p_used bigint, p_limit bigint, p_owner text) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    v_ours boolean;
BEGIN
    INSERT INTO crossings VALUES (p_account, p_level, p_ends, p_used, p_limit, p_owner, false)
        ON CONFLICT (account, level) DO UPDATE SET ends = p_ends, used = p_used, "limit" = p_limit, owner = p_owner,
        told = false WHERE p_ends > crossings.ends;
    v_ours := FOUND;
    IF v_ours AND p_level = 'brake' THEN -- it is late for a warning
        INSERT INTO crossings VALUES (p_account, 'warn', p_ends, p_used, p_limit, p_owner, true)
            ON CONFLICT (account, level) DO UPDATE SET ends = p_ends, used = p_used, "limit" = p_limit,
            owner = p_owner, told = true WHERE p_ends > crossings.ends;
    END IF;
    RETURN v_ours;
END $$;
"""

LIMITS = """
CREATE TABLE IF NOT EXISTS uses (
    key text COLLATE "C" NOT NULL, at float8 NOT NULL, id text COLLATE "C" NOT NULL, until float8 NOT NULL,
    PRIMARY KEY (key, at, id)
);

CREATE FUNCTION take_v(
    p_keys text[], p_calls bigint[], p_seconds float8[], p_take boolean, p_id text, p_now float8, p_until float8)
RETURNS TABLE (taken boolean, wait float8, now float8)
LANGUAGE plpgsql AS $$
-- A window is a key, calls and seconds, side by side; without `p_now` it is our clock that counts.
DECLARE
    v_lock bigint;
    v_now float8;
    v_wait float8;
BEGIN
    FOR v_lock IN SELECT DISTINCT hashtextextended(k, 0) FROM unnest(p_keys) k ORDER BY 1 LOOP
        PERFORM pg_advisory_xact_lock(v_lock);
    END LOOP;
    v_now := coalesce(p_now, seconds_v());
    SELECT coalesce(max(filled.at + w.seconds - v_now), 0) INTO v_wait
        FROM unnest(p_keys, p_calls, p_seconds) AS w (key, calls, seconds),
        LATERAL (SELECT u.at FROM uses u WHERE u.key = w.key ORDER BY u.at DESC OFFSET w.calls - 1 LIMIT 1) filled;
    IF p_take AND v_wait <= 0 THEN
        DELETE FROM uses u
            USING (SELECT k, max(s) AS longest FROM unnest(p_keys, p_seconds) AS w (k, s) GROUP BY k) w
            WHERE u.key = w.k AND u.at <= v_now - w.longest;
        INSERT INTO uses
            SELECT k, v_now, p_id, v_now + max(s) FROM unnest(p_keys, p_seconds) AS w (k, s) GROUP BY k;
    END IF;
    PERFORM in_time_v(p_until);
    RETURN QUERY SELECT p_take AND v_wait <= 0, greatest(v_wait, 0), v_now;
END $$;

CREATE FUNCTION forget_uses_v(p_now float8) RETURNS void LANGUAGE sql AS $$
-- Those that no window looks at any more, without waiting for anybody.
    DELETE FROM uses WHERE (key, at, id) IN (
        SELECT key, at, id FROM uses WHERE until <= coalesce(p_now, seconds_v()) LIMIT 10000 FOR UPDATE SKIP LOCKED)
$$;
"""

CALLS = """
CREATE TABLE IF NOT EXISTS calls (
    key text COLLATE "C" PRIMARY KEY, owner text NOT NULL, state text NOT NULL, result bytea, at float8 NOT NULL
);
CREATE INDEX IF NOT EXISTS calls_at ON calls (at) WHERE state <> 'running';

CREATE FUNCTION claim_call_v(p_key text, p_owner text, p_replaced text, p_until float8)
RETURNS TABLE (owner text, state text, result bytea) LANGUAGE plpgsql AS $$
-- "mine", or as it stands; no row if it was dropped at this moment.
#variable_conflict use_column
BEGIN
    INSERT INTO calls VALUES (p_key, p_owner, 'running', NULL, seconds_v())
        ON CONFLICT (key) DO UPDATE SET owner = excluded.owner, state = excluded.state, result = NULL,
        at = excluded.at WHERE calls.owner = p_replaced;
    IF FOUND THEN
        PERFORM in_time_v(p_until);
        RETURN QUERY SELECT p_owner, 'mine', NULL::bytea;
    ELSE
        RETURN QUERY SELECT c.owner, c.state, c.result FROM calls c WHERE c.key = p_key;
    END IF;
END $$;
"""

CACHE = """
CREATE UNLOGGED TABLE IF NOT EXISTS cached (
    key text COLLATE "C" PRIMARY KEY, value bytea NOT NULL, tag text COLLATE "C" NOT NULL, until float8 NOT NULL,
    at float8 NOT NULL
);
CREATE INDEX IF NOT EXISTS cached_tag ON cached (tag);
CREATE UNLOGGED TABLE IF NOT EXISTS working (
    key text COLLATE "C" PRIMARY KEY, token text NOT NULL, until float8 NOT NULL
);

CREATE FUNCTION cull_v(p_limit bigint) RETURNS void LANGUAGE plpgsql AS $$
-- What is past its time, then what was stored first, until there is room; by one process at a time.
DECLARE
    v_over bigint;
    v_oldest text[];
BEGIN
    IF NOT pg_try_advisory_xact_lock('cached'::regclass::oid::bigint) THEN RETURN; END IF;
    DELETE FROM working WHERE key IN (SELECT key FROM working WHERE until <= seconds_v() FOR UPDATE SKIP LOCKED);
    DELETE FROM cached WHERE key IN (SELECT key FROM cached WHERE until <= seconds_v() FOR UPDATE SKIP LOCKED);
    SELECT sum(octet_length(value)) - p_limit INTO v_over FROM cached;
    IF v_over > 0 THEN
        SELECT array_agg(key) INTO v_oldest FROM (
            SELECT key, sum(octet_length(value)) OVER (ORDER BY at, key) - octet_length(value) AS before FROM cached
        ) sums WHERE before < v_over;
        DELETE FROM cached WHERE key IN (SELECT key FROM cached WHERE key = ANY (v_oldest) FOR UPDATE SKIP LOCKED);
    END IF;
END $$;
"""
