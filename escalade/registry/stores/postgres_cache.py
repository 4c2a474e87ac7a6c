"""A cache in PostgreSQL, which many hosts share.

    Registry(tools, cache=PostgresCache("postgresql://me:pw@db/app"))

Its tables are UNLOGGED: they cost no journal, no standby has them, and a server that crashed begins with empty ones.
"""

from __future__ import annotations

import uuid

from escalade.errors import BadInput
from escalade.registry.stores.postgres import Server
from escalade.registry.stores.postgres_tables import CACHE
from escalade.registry.stores.resting import Rest

MEBIBYTE = 1024 * 1024
_SHARE = 8
"""No value takes more than this part of the whole."""

_PART = 32
"""A process that has written this part of the whole sees to it that there is room."""

_SET = """
INSERT INTO cached VALUES ($1, $2, $3, seconds_v() + $4, seconds_v())
ON CONFLICT (key) DO UPDATE SET value = excluded.value, tag = excluded.tag, until = excluded.until, at = excluded.at
"""
_FORGET = "DELETE FROM cached WHERE key IN (SELECT key FROM cached WHERE {} ORDER BY key FOR UPDATE)"
_CLAIM = """
INSERT INTO working VALUES ($1, $2, seconds_v() + $3)
ON CONFLICT (key) DO UPDATE SET token = excluded.token, until = excluded.until WHERE working.until <= seconds_v()
RETURNING token
"""


class PostgresCache:
    """A `Cache` in PostgreSQL. `size_limit`: bytes of values; beyond it, what was stored first goes first (each process
    looks when it has written a 32nd of it), and a value larger than an eighth of it is not kept at all. `timeout`:
    seconds for one statement; `rest`: seconds for which a server that failed is left alone; `connections`: the most at
    once. All methods raise StoreUnavailable.
    """

    remote = True

    def __init__(
        self,
        url: str,
        *,
        schema: str = "escalade",
        size_limit: int = 256 * MEBIBYTE,
        timeout: float = 0.25,
        rest: float = 1.0,
        connections: int = 2,
    ) -> None:
        if not (isinstance(size_limit, int) and size_limit >= MEBIBYTE):
            raise BadInput(f"size_limit: expected bytes, {MEBIBYTE:,} or more, got {size_limit!r}")
        self.server = Server(url, CACHE, schema=schema, timeout=timeout, connections=connections)
        self._rest, self._limit, self._written = Rest("cached results", rest), size_limit, 0

    def get(self, key: str) -> bytes | None:
        """The value, None when there is none or its time is up."""
        with self._rest.asking():
            found = self.server.ask("SELECT value FROM cached WHERE key = $1 AND until > seconds_v()", key)
        return bytes(found[0][0]) if found else None

    def set(self, key: str, value: bytes, seconds: float, tag: str = "") -> None:
        """Keep it for so long, or until others push it out."""
        if len(value) > self._limit // _SHARE:
            return
        with self._rest.asking():
            self.server.ask(_SET, key, value, tag, seconds)
            self._written += len(value)
            if self._written > self._limit // _PART:
                self._written = 0
                self.server.call("cull", self._limit)

    def clear(self, tag: str | None = None) -> None:
        """Forget what was kept under this tag, or everything."""
        with self._rest.asking():
            if tag is None:
                self.server.ask(_FORGET.format("true"))
            else:
                self.server.ask(_FORGET.format("tag = $1"), tag)

    def delete(self, key: str) -> None:
        """Forget one value."""
        with self._rest.asking():
            self.server.ask("DELETE FROM cached WHERE key = $1", key)

    def forget(self, word: str) -> None:
        """Forget what was kept under any tag that has this word."""
        with self._rest.asking():
            self.server.ask(_FORGET.format(r"$1 = ANY (regexp_split_to_array(tag, '\s+'))"), word)

    def claim(self, key: str, seconds: float) -> str | None:
        """A token for who may work this value out, for so long, while nobody else does; None for the others."""
        token = uuid.uuid4().hex
        with self._rest.asking():
            return token if self.server.ask(_CLAIM, key, token, seconds) else None

    def release(self, key: str, token: str) -> None:
        """The claim is over."""
        with self._rest.asking():
            self.server.ask("DELETE FROM working WHERE key = $1 AND token = $2", key, token)

    def size(self) -> int:
        """Bytes of values."""
        with self._rest.asking():
            ((size,),) = self.server.ask("SELECT coalesce(sum(octet_length(value)), 0)::bigint FROM cached")
        return int(size)

    def close(self) -> None:
        """Close its connections; the next use opens others."""
        self.server.close()
