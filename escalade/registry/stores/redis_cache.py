"""A cache in Redis, which many hosts share. It may throw away what it likes: use one that holds no budgets.

    Registry(tools, cache=RedisCache("redis://localhost:6379/1"))

Each value carries the generation of its tag and of the whole cache; forgetting a tag is deleting its generation, and
what carries another one is not found any more. A generation that the server evicts is forgotten the same way.
"""

from __future__ import annotations

import uuid

from escalade.registry.stores.redis import Server
from escalade.registry.stores.resting import Rest

_GET = """
-- KEYS: value, generation of all; ARGV: prefix of the generations of tags
local found = redis.call('HMGET', KEYS[1], 'value', 'tag', 'of tag', 'of all')
if not found[1] then return false end
if redis.call('GET', KEYS[2]) ~= found[4] then return false end
if redis.call('GET', ARGV[1] .. found[2]) ~= found[3] then return false end
return found[1]
"""

_SET = """
-- KEYS: value, generation of all, generation of the tag; ARGV: value, tag, milliseconds, a new generation
local generations = {}
for at = 2, 3 do
    redis.call('SET', KEYS[at], ARGV[4], 'NX')
    generations[at] = redis.call('GET', KEYS[at])
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'value', ARGV[1], 'tag', ARGV[2], 'of tag', generations[3], 'of all', generations[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""

_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"""


class RedisCache:
    """A `Cache` in Redis, for values that are text in UTF-8. `prefix`: of all keys, in braces, so that a cluster keeps
    them together. `timeout`: seconds for one command; `rest`: seconds for which a server that failed is left alone.
    All methods raise StoreUnavailable.
    """

    remote = True

    def __init__(self, url: str, *, prefix: str = "escalade", timeout: float = 0.25, rest: float = 1.0) -> None:
        self.server, self._rest = Server(url, timeout=timeout), Rest("cached results", rest)
        self._values, self._tags, self._all = (f"{{{prefix}}}:cache:{kind}" for kind in ("value:", "tag:", "all"))
        self._claims = f"{{{prefix}}}:cache:claim:"
        self._get, self._set = self.server.script(_GET), self.server.script(_SET)
        self._release = self.server.script(_RELEASE)

    def get(self, key: str) -> bytes | None:
        """The value, None when there is none or its time is up."""
        with self._rest.asking():
            found = self._get([self._values + key, self._all], [self._tags])
        return None if found is None else str(found).encode()

    def set(self, key: str, value: bytes, seconds: float, tag: str = "") -> None:
        """Keep it for so long, or until the server needs the room."""
        keys = [self._values + key, self._all, self._tags + tag]
        with self._rest.asking():
            self._set(keys, [value, tag, max(1, round(seconds * 1000)), uuid.uuid4().hex])

    def clear(self, tag: str | None = None) -> None:
        """Forget what was kept under this tag, or everything."""
        with self._rest.asking():
            self.server.command("DEL", self._all if tag is None else self._tags + tag)

    def delete(self, key: str) -> None:
        """Forget one value."""
        with self._rest.asking():
            self.server.command("DEL", self._values + key)

    def forget(self, word: str) -> None:
        """Forget what was kept under any tag that has this word."""
        with self._rest.asking():
            for tag in self._known_tags():
                if word in tag.removeprefix(self._tags).split():
                    self.server.command("DEL", tag)

    def claim(self, key: str, seconds: float) -> str | None:
        """A token for who may work this value out, for so long, while nobody else does; None for the others."""
        token = uuid.uuid4().hex
        with self._rest.asking():
            told = self.server.command("SET", self._claims + key, token, "NX", "PX", max(1, round(seconds * 1000)))
        return token if told else None

    def release(self, key: str, token: str) -> None:
        """The claim is over."""
        with self._rest.asking():
            self._release([self._claims + key], [token])

    def _known_tags(self) -> list[str]:
        found, cursor = [], "0"
        while True:
            cursor, keys = self.server.command("SCAN", cursor, "MATCH", self._tags + "*", "COUNT", 1000)
            found += keys
            if str(cursor) == "0":
                return found
