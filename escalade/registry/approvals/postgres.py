"""Requests in PostgreSQL: shared by the processes of many hosts.

What decides who wins is one `UPDATE ... WHERE state = ...`, as in the SQLite file. A decision or a use that the server
is late with is undone by its clock, so that nobody is refused with an approval that is gone all the same.

The table names who asks and who decides, and holds arguments with the personal data in them, for a person has to read
what he decides about; secrets are not among it. `keep` seconds after a request has expired its arguments are erased
when the next request is opened or decided, or by `forget(time.time())`; what the server's old row versions, its log and
its backups hold of them goes as they go (VACUUM). Their digest, and who decided what and when, stay.
"""

from __future__ import annotations

import builtins
import dataclasses
import json

from escalade.errors import BadInput
from escalade.registry.approvals.requests import Request, State
from escalade.registry.stores.addresses import shown
from escalade.registry.stores.postgres import Server, has_table

_TIMES = {"created", "expires", "decided_at", "used_at"}
_NAMES = [field.name for field in dataclasses.fields(Request)]
_FIELDS = ", ".join(f'"{name}"' for name in _NAMES)
_COLUMNS = ", ".join(f'"{name}" {"float8" if name in _TIMES else "text"} NOT NULL' for name in _NAMES)

TABLES = f"""
CREATE TABLE IF NOT EXISTS approvals ({_COLUMNS}, number bigint GENERATED ALWAYS AS IDENTITY, PRIMARY KEY (id));
CREATE INDEX IF NOT EXISTS approvals_key ON approvals (key);
CREATE INDEX IF NOT EXISTS approvals_legible ON approvals (expires) WHERE arguments <> 'null';

CREATE FUNCTION open_request_v(p_request json) RETURNS SETOF approvals LANGUAGE plpgsql AS $$
-- The newest live one of the same key, else this one.
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('approval ' || (p_request->>'key'), 0));
    RETURN QUERY SELECT * FROM approvals a
        WHERE a.key = p_request->>'key' AND a.expires > (p_request->>'created')::float8
        AND a.state IN ('pending', 'approved', 'denied') ORDER BY a.created DESC, a.number DESC LIMIT 1;
    IF NOT FOUND THEN
        INSERT INTO approvals ({_FIELDS})
            SELECT {_FIELDS} FROM json_populate_record(NULL::approvals, p_request);
        RETURN QUERY SELECT * FROM approvals a WHERE a.id = p_request->>'id';
    END IF;
END $$;

CREATE FUNCTION decide_request_v(
    p_id text, p_state text, p_by text, p_reason text, p_now float8, p_until float8) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    v_done boolean;
BEGIN
    UPDATE approvals SET state = p_state, decided_by = p_by, reason = p_reason, decided_at = p_now
        WHERE id = p_id AND state = 'pending' AND expires > p_now;
    v_done := FOUND;
    PERFORM in_time_v(p_until);
    RETURN v_done;
END $$;

CREATE FUNCTION use_request_v(p_id text, p_call text, p_now float8, p_until float8) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    v_done boolean;
BEGIN
    UPDATE approvals SET state = 'used', used_by = p_call, used_at = p_now
        WHERE id = p_id AND state = 'approved' AND used_at = 0 AND expires > p_now;
    v_done := FOUND;
    PERFORM in_time_v(p_until);
    RETURN v_done;
END $$;
"""  # noqa: S608 - our own names
_SELECT = f"SELECT {_FIELDS} FROM approvals"  # noqa: S608 - our own names


class PostgresRequests:
    """Requests in PostgreSQL: `Approvals(PostgresRequests("postgresql://me:pw@db/app"), access=policy)`.

    `keep`: seconds for which arguments can be read after the request has expired, so that people can look at what they
    approved; a day by default. `timeout`: seconds for one statement; `connections`: the most at once.

    Raises BadInput for no address of such a server (`create=False`: or one without requests), StoreUnavailable.
    """

    remote = True

    def __init__(
        self,
        url: str,
        *,
        schema: str = "escalade",
        create: bool = True,
        keep: float = 86_400.0,
        timeout: float = 5.0,
        connections: int = 2,
    ) -> None:
        if not create and not has_table(url, "approvals", schema=schema):
            raise BadInput(f"{shown(url)}: there is no such store of approvals")
        self._keep = keep
        self.server = Server(url, TABLES, schema=schema, timeout=timeout, connections=connections)
        self.server.now()

    def open(self, request: Request) -> Request:
        """The newest live request of the same key, else this one."""
        self.forget(request.created)
        found = f"SELECT {_FIELDS} FROM open_request_v($1)"  # noqa: S608 - our own names
        return Request(*self.server.ask(found, json.dumps(dataclasses.asdict(request)))[0])

    def given(self, key: str, now: float) -> builtins.list[Request]:
        """Approved ones of this key, newest first: still good, or used."""
        given = "WHERE key = $1 AND (state = 'used' OR (state = 'approved' AND expires > $2))"
        return self._found(f"{_SELECT} {given} ORDER BY created DESC, number DESC", key, now)

    def get(self, request_id: str) -> Request | None:
        """By its id."""
        return next(iter(self._found(f"{_SELECT} WHERE id = $1", request_id)), None)

    def list(self) -> builtins.list[Request]:
        """All, oldest first."""
        return self._found(f"{_SELECT} ORDER BY created, number")

    def decide(self, request_id: str, state: State, by: str, reason: str, now: float) -> bool:
        """Approve or deny a pending one."""
        self.forget(now)
        return bool(self.server.promise("decide_request", request_id, state, by, reason, now)[0][0])

    def use(self, request_id: str, call_id: str, now: float) -> bool:
        """Spend an approval."""
        return bool(self.server.promise("use_request", request_id, call_id, now)[0][0])

    def give_back(self, request_id: str, call_id: str) -> None:
        """What this call spent is approved again."""
        back = "UPDATE approvals SET state = 'approved', used_by = '', used_at = 0"
        self.server.ask(f"{back} WHERE id = $1 AND state = 'used' AND used_by = $2", request_id, call_id)

    def close(self) -> None:
        """Close its connections; the next use opens others."""
        self.server.close()

    def forget(self, now: float) -> None:
        """Erase the arguments of requests that are long over. `now`: seconds since the epoch."""
        old = "SELECT id FROM approvals WHERE expires < $1 AND arguments <> 'null' FOR UPDATE SKIP LOCKED"
        self.server.ask(f"UPDATE approvals SET arguments = 'null' WHERE id IN ({old})", now - self._keep)  # noqa: S608

    def _found(self, sql: str, *values: str | float) -> builtins.list[Request]:
        return [Request(*row) for row in self.server.ask(sql, *values)]
