"""Calls that processes of many hosts make once, in PostgreSQL."""

from __future__ import annotations

import contextlib

from escalade.errors import StoreUnavailable
from escalade.registry.stores.claims import _WEEK, State, _Claims
from escalade.registry.stores.postgres import Server
from escalade.registry.stores.postgres_tables import CALLS

_SWEEP = 1_000
"""Claims after which calls that are no longer to be remembered are forgotten."""


class PostgresClaims(_Claims):
    """`Claims` in PostgreSQL: `Registry(tools, claims=PostgresClaims("postgresql://me:pw@db/app"))`.

    `keep`: seconds for which calls are remembered; a week by default. `lease`: seconds after which a claim of a process
    on another host counts as lost: longer than any call takes. `timeout`: seconds for one statement; `connections`: the
    most at once. The table holds results as they are: it needs the care that they need.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str = "escalade",
        keep: float = _WEEK,
        lease: float = 3_600.0,
        timeout: float = 1.0,
        connections: int = 2,
    ) -> None:
        super().__init__(keep, lease)
        self.server, self._claimed = Server(url, CALLS, schema=schema, timeout=timeout, connections=connections), 0
        self.server.now()

    def claim(self, key: str, *, again: bool) -> tuple[State, bytes | None]:
        now, replaced = self.server.now(), ""
        self._claimed += 1
        if self._claimed % _SWEEP == 0:
            self._forget(now)
        while True:
            me = self._me(now)
            try:
                found = self.server.promise("claim_call", key, me, replaced)
            except StoreUnavailable:
                self._tell_later(key, me, None, None)  # nobody knows whether it was taken
                raise
            if not found:  # dropped at this moment
                continue
            ((owner, said, result),) = found
            if said == "mine":
                self._mine[key] = me
                return "mine", None
            state = self._state(owner, said, now)
            if state != "unknown" or not again:
                return state, result
            replaced = owner

    def close(self) -> None:
        """Close its connections; the next use opens others."""
        self.server.close()

    def _forget(self, now: float) -> None:
        with contextlib.suppress(StoreUnavailable):  # another time
            self.server.ask("DELETE FROM calls WHERE at < $1 AND state <> 'running'", now - self._keep)

    def _end(self, key: str, claim: str, state: State | None, result: bytes | None) -> None:
        if state is None:
            self.server.ask("DELETE FROM calls WHERE key = $1 AND owner = $2", key, claim)
        else:
            update = "UPDATE calls SET state = $1, result = $2 WHERE key = $3 AND owner = $4"
            self.server.ask(update, state, result, key, claim)
