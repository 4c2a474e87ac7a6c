"""Rate limits in PostgreSQL, for processes of many hosts: one function takes all windows or none."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable

from escalade.errors import StoreUnavailable
from escalade.registry.limits import Taken, Window
from escalade.registry.stores.postgres import Server, array
from escalade.registry.stores.postgres_tables import LIMITS
from escalade.registry.stores.resting import Rest, opaque

_SWEEP = 2_000
"""Uses after which old ones of all keys are forgotten."""


class PostgresLimiter:
    """A `RateLimiter` in PostgreSQL: `Registry(tools, limiter=PostgresLimiter("postgresql://me:pw@db/app"))`.

    Exact, as the one in memory: a log of the uses of each key, by the server's clock. A use is one statement. `schema`:
    where its table is. `timeout`: seconds for one statement; `rest`: seconds for which a server that failed is left
    alone; `connections`: the most at once. `now`: seconds, instead of the server's clock. Raises StoreUnavailable,
    BadInput for an address that is none.
    """

    remote = True

    def __init__(
        self,
        url: str,
        *,
        schema: str = "escalade",
        timeout: float = 1.0,
        rest: float = 1.0,
        connections: int = 2,
        now: Callable[[], float] | None = None,
    ) -> None:
        self.server = Server(url, LIMITS, schema=schema, timeout=timeout, connections=connections)
        self._rest, self._now, self._uses = Rest("rate limits", rest), now, 0

    def take_all(self, windows: tuple[Window, ...]) -> Taken | float:
        """Use them all once: `Taken` if each had room and was debited, else the seconds to wait, debiting none."""
        name = uuid.uuid4().hex
        taken, wait, at = self._asked(windows, name, take=True)
        self._uses += 1
        if self._uses % _SWEEP == 0:
            with contextlib.suppress(StoreUnavailable):  # the use counts all the same
                self.server.call("forget_uses", self._clock())
        return Taken(windows, at, name) if taken else wait

    def wait(self, windows: tuple[Window, ...]) -> float:
        """Seconds until all of them have room, as things are; 0 if they have. Debits none."""
        return self._asked(windows, "", take=False)[1]

    def give_back(self, taken: Taken) -> None:
        """Undo that use: it did not happen."""
        keys = array(sorted({key for key, _ in opaque(taken.windows)}))
        with self._rest.asking():
            self.server.ask("DELETE FROM uses WHERE key = ANY ($1) AND at = $2 AND id = $3", keys, taken.at, taken.id)

    def close(self) -> None:
        """Close its connections; the next use opens others."""
        self.server.close()

    def _asked(self, windows: tuple[Window, ...], name: str, *, take: bool) -> tuple[bool, float, float]:
        """Whether they were taken, seconds to wait, and the moment that this was true."""
        if not windows:
            return take, 0.0, 0.0
        windows = opaque(windows)
        keys, limits = array(key for key, _ in windows), [limit for _, limit in windows]
        calls, seconds = array(limit.calls for limit in limits), array(limit.seconds for limit in limits)
        with self._rest.asking():
            ((taken, wait, at),) = self.server.promise("take", keys, calls, seconds, take, name, self._clock())
        return taken, wait, at

    def _clock(self) -> float | None:
        return None if self._now is None else self._now()
