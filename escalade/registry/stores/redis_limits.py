"""Rate limits in Redis, for processes of many hosts: one script takes all windows or none."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from escalade.registry.limits import Taken, Window
from escalade.registry.stores.redis import Server
from escalade.registry.stores.resting import Rest, opaque

_TAKE = """
-- KEYS: a log for each key. ARGV: take (1) or look (0), id, now in microseconds ("" for the server's clock), then for
-- each log: its longest window in microseconds, the number of its windows, and for each: calls, microseconds
local now = tonumber(ARGV[3])
if not now then
  local t = redis.call('TIME')
  now = t[1] * 1000000 + t[2]
end
if redis.call('ZSCORE', KEYS[1], ARGV[2]) then return {0, string.format('%.0f', now)} end
local wait, at, longest = 0, 4, {}
for i, key in ipairs(KEYS) do
  longest[i] = tonumber(ARGV[at])
  redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now - longest[i]))
  for n = 1, tonumber(ARGV[at + 1]) do
    local calls, micros = tonumber(ARGV[at + 2 * n]), tonumber(ARGV[at + 2 * n + 1])
    local full = redis.call('ZREVRANGE', key, calls - 1, calls - 1, 'WITHSCORES')
    if full[2] then wait = math.max(wait, tonumber(full[2]) + micros - now) end
  end
  at = at + 2 + 2 * tonumber(ARGV[at + 1])
end
if wait <= 0 and ARGV[1] == '1' then
  for i, key in ipairs(KEYS) do
    redis.call('ZADD', key, string.format('%.0f', now), ARGV[2])
    redis.call('PEXPIRE', key, string.format('%.0f', math.ceil(longest[i] / 1000) + 1000))
  end
end
return {string.format('%.0f', math.max(0, wait)), string.format('%.0f', now)}
"""

_GIVE_BACK = """
for _, key in ipairs(KEYS) do redis.call('ZREM', key, ARGV[1]) end
return 1
"""


class RedisLimiter:
    """A `RateLimiter` in Redis: `Registry(tools, limiter=RedisLimiter("redis://localhost:6379/0"))`.

    Exact, as the one in memory: a log of the uses of each key, by the server's clock. A use is one round trip of about
    0.1 ms on one host. `prefix`: of all keys, in braces, so that a cluster keeps them together. `timeout`: seconds for
    one command; `rest`: seconds for which a server that failed is left alone. `now`: seconds, instead of the server's
    clock. Raises StoreUnavailable.
    """

    remote = True

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "escalade",
        timeout: float = 1.0,
        rest: float = 1.0,
        now: Callable[[], float] | None = None,
    ) -> None:
        self.server, self._prefix = Server(url, timeout=timeout), f"{{{prefix}}}:uses:"
        self._rest, self._now = Rest("rate limits", rest), now
        self._take, self._undo = self.server.script(_TAKE), self.server.script(_GIVE_BACK)

    def take_all(self, windows: tuple[Window, ...]) -> Taken | float:
        """Use them all once: `Taken` if each had room and was debited, else the seconds to wait, debiting none."""
        name = uuid.uuid4().hex
        wait, at = self._asked(windows, name, take=True)
        return wait if wait > 0.0 else Taken(windows, at, name)

    def wait(self, windows: tuple[Window, ...]) -> float:
        """Seconds until all of them have room, as things are; 0 if they have. Debits none."""
        return self._asked(windows, "", take=False)[0]

    def give_back(self, taken: Taken) -> None:
        """Undo that use: it did not happen."""
        with self._rest.asking():
            self._undo(
                [self._prefix + key for key in dict.fromkeys(key for key, _ in opaque(taken.windows))], [taken.id]
            )

    def _asked(self, windows: tuple[Window, ...], name: str, *, take: bool) -> tuple[float, float]:
        """Seconds to wait, and the moment that this was true."""
        if not windows:
            return 0.0, 0.0
        windows = opaque(windows)
        by_key: dict[str, list[tuple[int, int]]] = {}
        for key, limit in windows:
            by_key.setdefault(key, []).append((limit.calls, round(limit.seconds * 1e6)))
        args: list[str | int] = [int(take), name, "" if self._now is None else round(self._now() * 1e6)]
        for limits in by_key.values():
            args += [max(micros for _, micros in limits), len(limits)]
            args += [number for limit in limits for number in limit]
        with self._rest.asking():
            wait, at = self._take([self._prefix + key for key in by_key], args)
        return int(wait) / 1e6, int(at) / 1e6
