"""A Redis server that processes of many hosts share: scripts, each one transaction, and the server's clock.

Needs the extra `redis`. Give the server a persistence that you trust (append-only file) and no eviction of keys without
a time to live: a server that may evict budgets is refused here, and one that has lost them refuses everybody.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from escalade.errors import BadInput, StoreUnavailable

R = TypeVar("R")

_SYNC_EVERY = 15.0


class Server:
    """One Redis server. `timeout`: seconds for one command. All its errors are StoreUnavailable.

    A command that met a broken connection is sent once more: our scripts do nothing twice.
    """

    def __init__(self, url: str, *, timeout: float = 1.0) -> None:
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError:
            raise BadInput("a store in Redis needs its client: pip install 'escalade[redis]'") from None
        self._errors = (redis.RedisError, OSError)
        retry = Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))
        self._client: Any = redis.Redis.from_url(
            url, decode_responses=True, socket_timeout=timeout, socket_connect_timeout=timeout, retry=retry
        )
        self._offset, self._synced = 0.0, -_SYNC_EVERY

    def script(self, text: str) -> Callable[[Sequence[str], Sequence[Any]], Any]:
        """A Lua script as a function of its keys and arguments; it runs at once or not at all."""
        registered = self._client.register_script(text)
        return lambda keys, args: self.ask(lambda: registered(keys=keys, args=args))

    def command(self, *words: Any) -> Any:
        """One command, by its words."""
        return self.ask(lambda: self._client.execute_command(*words))

    def ask(self, what: Callable[[], R]) -> R:
        """Ask the server. Raises StoreUnavailable."""
        try:
            return what()
        except self._errors as error:
            raise StoreUnavailable(
                f"the Redis store can't be used: {type(error).__name__}: {_line(error)}", 1.0
            ) from error

    def now(self) -> float:
        """Seconds since the epoch by the server's clock, which no jump of our own moves."""
        if time.monotonic() - self._synced > _SYNC_EVERY:
            seconds, micros = self.ask(self._client.time)
            self._synced = time.monotonic()
            self._offset = seconds + micros / 1e6 - self._synced
        return time.monotonic() + self._offset

    def check_keeps(self) -> None:
        """Raises BadInput for a server that throws away keys when its memory is full."""
        memory = self.ask(lambda: self._client.info("memory"))
        policy = str(memory.get("maxmemory_policy", "noeviction"))
        if memory.get("maxmemory") and policy.startswith("allkeys"):
            raise BadInput(f"this Redis server throws budgets away when its memory is full (maxmemory-policy {policy})")

    def close(self) -> None:
        """Close its connections; the next use opens others."""
        self._client.close()


def _line(error: BaseException) -> str:
    """The message in one line, without addresses: it may be shown to a model."""
    return " ".join(str(error).split()).partition(" connecting to ")[0][:120]
