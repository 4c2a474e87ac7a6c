"""Calls that several processes make once: who made which call, and what it answered.

    Registry(tools, claims=SqliteClaims("calls.db"))        several processes of one host
    Registry(tools, claims=RedisClaims("redis://..."))      of many hosts

They share a run by its id: `escalade.scope(run_id="order-4711")`. A call is claimed before it is made. The claim of a
process that died stays: nobody knows whether the call was made, and it is not made again (OutcomeUnknown), unless the
tool is idempotent.

A call is kept by its digest, and its result as it was, for `keep` seconds: who asks again has to get the same. Both
stores hold whatever is personal or secret in results of tools that are used `once`: the file is for its owner's eyes
only, and a Redis server of that kind needs the same care.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from typing import Literal, Protocol

from escalade.registry.stores.owners import Owner, after_fork, here
from escalade.registry.stores.redis import Server
from escalade.registry.stores.sqlite import Database

State = Literal["mine", "done", "running", "unknown"]

_WEEK = 7 * 86_400.0
_SWEEP = 1_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    key TEXT PRIMARY KEY, owner TEXT NOT NULL, state TEXT NOT NULL, result BLOB, at REAL NOT NULL
) WITHOUT ROWID;
"""


class Claims(Protocol):
    """Where calls are claimed. Every method raises StoreUnavailable."""

    def claim(self, key: str, *, again: bool) -> tuple[State, bytes | None]:
        """Claim a call: "mine" to be made now, "done" with its result (None if that isn't JSON), "running" elsewhere,
        "unknown" if whoever made it did not come back. `again`: an unknown call may be made again.
        """
        ...

    def done(self, key: str, result: bytes | None) -> None:
        """It was made."""
        ...

    def drop(self, key: str) -> None:
        """It was not made, or failed: it may be made again."""
        ...

    def lose(self, key: str) -> None:
        """It was cut off."""
        ...


class _Claims:
    """What both stores have in common. `lease`: seconds after which a claim from another host counts as lost."""

    def __init__(self, keep: float, lease: float) -> None:
        self._keep, self._lease = keep, lease
        self._owner = Owner()
        after_fork(self)

    def _forked(self) -> None:
        self._owner = Owner()

    def _me(self, now: float) -> str:
        return json.dumps({**asdict(self._owner), "seen": now})

    def _state(self, owner: str, state: str, now: float) -> State:
        if state != "running":
            return "done" if state == "done" else "unknown"
        claimed = Owner(**json.loads(owner))
        if claimed.id != self._owner.id and claimed.dead(now, self._lease, here()):
            return "unknown"
        return "running"


class SqliteClaims(_Claims):
    """`Claims` in a SQLite file. `keep`: seconds for which calls are remembered; a week by default."""

    def __init__(self, path: str | os.PathLike[str], *, keep: float = _WEEK, patience: float = 5.0) -> None:
        super().__init__(keep, lease=3_600.0)
        self.database, self._claimed = Database(path, _SCHEMA, patience=patience), 0
        self.database.read("SELECT 1")

    def claim(self, key: str, *, again: bool) -> tuple[State, bytes | None]:
        with self.database.transaction() as connection:
            now = time.time()
            self._claimed += 1
            if self._claimed % _SWEEP == 0:
                connection.execute("DELETE FROM calls WHERE at<? AND state<>'running'", (now - self._keep,))
            row = connection.execute("SELECT owner, state, result FROM calls WHERE key=?", (key,)).fetchone()
            state: State = "mine" if row is None else self._state(row[0], row[1], now)
            if state == "mine" or (state == "unknown" and again):
                values = (key, self._me(now), "running", None, now)
                connection.execute("INSERT OR REPLACE INTO calls VALUES (?, ?, ?, ?, ?)", values)
                return "mine", None
        return state, row[2]

    def done(self, key: str, result: bytes | None) -> None:
        self._set("UPDATE calls SET state='done', result=? WHERE key=?", (result, key))

    def drop(self, key: str) -> None:
        self._set("DELETE FROM calls WHERE key=?", (key,))

    def lose(self, key: str) -> None:
        self._set("UPDATE calls SET state='unknown' WHERE key=?", (key,))

    def _set(self, sql: str, values: tuple[object, ...]) -> None:
        with self.database.transaction() as connection:
            connection.execute(sql, values)


class RedisClaims(_Claims):
    """`Claims` in Redis. `keep`: seconds for which calls are remembered. `lease`: seconds after which a claim of a
    process on another host counts as lost: longer than any call takes.
    """

    _CLAIM = """
    -- KEYS: call; ARGV: me, keep (ms), the claim to replace ("" for none)
    local found = redis.call('HMGET', KEYS[1], 'owner', 'state', 'result')
    if found[1] and (ARGV[3] == '' or found[1] ~= ARGV[3]) then return found end
    redis.call('DEL', KEYS[1])
    redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'state', 'running')
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
    return {'', 'mine', false}
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "escalade",
        keep: float = _WEEK,
        lease: float = 3_600.0,
        timeout: float = 1.0,
    ) -> None:
        super().__init__(keep, lease)
        self.server, self._prefix = Server(url, timeout=timeout), f"{{{prefix}}}:call:"
        self._claim = self.server.script(self._CLAIM)
        self.server.check_keeps()

    def claim(self, key: str, *, again: bool) -> tuple[State, bytes | None]:
        now, replaced = self.server.now(), ""
        while True:
            args = [self._me(now), round(self._keep * 1000), replaced]
            owner, said, result = self._claim([self._prefix + key], args)
            if said == "mine" or owner == args[0]:  # ours, by an answer that got lost
                return "mine", None
            state = self._state(owner, said, now)
            if state != "unknown" or not again:
                return state, None if result is None else str(result).encode()
            replaced = owner

    def done(self, key: str, result: bytes | None) -> None:
        fields = ["state", "done"] if result is None else ["state", "done", "result", result]
        self.server.command("HSET", self._prefix + key, *fields)

    def drop(self, key: str) -> None:
        self.server.command("DEL", self._prefix + key)

    def lose(self, key: str) -> None:
        self.server.command("HSET", self._prefix + key, "state", "unknown")
