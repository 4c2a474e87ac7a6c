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

import contextlib
import json
import os
import threading
import time
import weakref
from collections import deque
from dataclasses import asdict
from typing import Literal, Protocol

from escalade.errors import StoreUnavailable
from escalade.registry.stores.owners import Owner, after_fork, here
from escalade.registry.stores.redis import Server
from escalade.registry.stores.sqlite import Database

State = Literal["mine", "done", "running", "unknown"]

RETRY = 1.0
"""Seconds between two attempts to tell a store that was down how a call has ended."""

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
    """What both stores have in common. `lease`: seconds after which a claim from another host counts as lost.

    When the store can't be told at once how a call has ended, a thread tells it every `RETRY` seconds until it knows;
    meanwhile the call stays claimed, and others wait. In the same way it takes back a claim that failed: a server that
    hung may have taken it all the same.
    """

    def __init__(self, keep: float, lease: float) -> None:
        self._keep, self._lease = keep, lease
        self._forked()
        after_fork(self)

    def _forked(self) -> None:
        self._owner, self._lock = Owner(), threading.Lock()
        self._mine: dict[str, str] = {}  # call -> our claim, as the store has it
        self._untold: deque[tuple[str, str, State | None, bytes | None]] = deque()
        self._teller: threading.Thread | None = None

    def done(self, key: str, result: bytes | None) -> None:
        """It was made."""
        self._tell(key, "done", result)

    def drop(self, key: str) -> None:
        """It was not made, or failed: it may be made again."""
        self._tell(key, None, None)

    def lose(self, key: str) -> None:
        """It was cut off."""
        self._tell(key, "unknown", None)

    @property
    def untold(self) -> int:
        """Ends of calls that the store has not been told yet."""
        return len(self._untold)

    def _me(self, now: float) -> str:
        return json.dumps({**asdict(self._owner), "seen": now})

    def _state(self, owner: str, state: str, now: float) -> State:
        if state != "running":
            return "done" if state == "done" else "unknown"
        claimed = Owner(**json.loads(owner))
        if claimed.id != self._owner.id and claimed.dead(now, self._lease, here()):
            return "unknown"
        return "running"

    def _tell(self, key: str, state: State | None, result: bytes | None) -> None:
        claim = self._mine.pop(key, "")
        try:
            self._end(key, claim, state, result)
        except StoreUnavailable:
            self._tell_later(key, claim, state, result)
            raise

    def _end(self, key: str, claim: str, state: State | None, result: bytes | None) -> None:
        """Set the state of our claim, None: remove it. Does nothing to a claim that isn't ours."""
        raise NotImplementedError

    def _tell_later(self, key: str, claim: str, state: State | None, result: bytes | None) -> None:
        with self._lock:
            self._untold.append((key, claim, state, result))
            if self._teller is None:
                self._teller = threading.Thread(
                    target=_tell, args=(weakref.ref(self),), name="escalade-claims", daemon=True
                )
                self._teller.start()

    def _tell_all(self) -> bool:
        """Tell what is untold; False once nothing is."""
        with contextlib.suppress(StoreUnavailable):
            while self._untold:
                self._end(*self._untold[0])
                self._untold.popleft()
        with self._lock:
            if not self._untold:
                self._teller = None
            return bool(self._untold)


def _tell(target: weakref.ref[_Claims]) -> None:
    """Until the store knows, or the claims are gone."""
    while True:
        time.sleep(RETRY)
        claims = target()
        if claims is None or not claims._tell_all():
            return
        del claims


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
                me = self._me(now)
                connection.execute(
                    "INSERT OR REPLACE INTO calls VALUES (?, ?, ?, ?, ?)", (key, me, "running", None, now)
                )
                self._mine[key] = me
                return "mine", None
        return state, row[2]

    def _end(self, key: str, claim: str, state: State | None, result: bytes | None) -> None:
        with self.database.transaction() as connection:
            if state is None:
                connection.execute("DELETE FROM calls WHERE key=? AND owner=?", (key, claim))
            else:
                update = "UPDATE calls SET state=?, result=? WHERE key=? AND owner=?"
                connection.execute(update, (state, result, key, claim))


class RedisClaims(_Claims):
    """`Claims` in Redis. `keep`: seconds for which calls are remembered. `lease`: seconds after which a claim of a
    process on another host counts as lost: longer than any call takes. `timeout`: seconds for one command.
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
    _END = """
    -- KEYS: call; ARGV: our claim, keep (ms), state ("" to remove it), then the result, if there is one
    local owner = redis.call('HGET', KEYS[1], 'owner')
    if owner and owner ~= ARGV[1] then return 0 end
    if ARGV[3] == '' then return redis.call('DEL', KEYS[1]) end
    redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'state', ARGV[3])
    if ARGV[4] then redis.call('HSET', KEYS[1], 'result', ARGV[4]) end
    return redis.call('PEXPIRE', KEYS[1], ARGV[2])
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
        self._claim, self._told = self.server.script(self._CLAIM), self.server.script(self._END)
        self.server.check_keeps()

    def claim(self, key: str, *, again: bool) -> tuple[State, bytes | None]:
        now, replaced = self.server.now(), ""
        while True:
            me = self._me(now)
            try:
                owner, said, result = self._claim([self._prefix + key], [me, round(self._keep * 1000), replaced])
            except StoreUnavailable:
                self._tell_later(key, me, None, None)  # a server that hung may take it yet
                raise
            if said == "mine" or owner == me:  # ours, by an answer that got lost
                self._mine[key] = me
                return "mine", None
            state = self._state(owner, said, now)
            if state != "unknown" or not again:
                return state, None if result is None else str(result).encode()
            replaced = owner

    def _end(self, key: str, claim: str, state: State | None, result: bytes | None) -> None:
        args = [claim, round(self._keep * 1000), state or "", *(() if result is None else (result,))]
        self._told([self._prefix + key], args)
