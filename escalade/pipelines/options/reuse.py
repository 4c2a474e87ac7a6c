"""Results that are used again: from a cache, or from an equal call of the node that runs at the same time.

Equal are calls of the same node (its name, its code or prompt, its model) with equal inputs, for the same tenant and
with the same rights: the same roles of everybody on whose behalf it is, under the same policy. A result that was made
with more rights is never given to somebody with fewer. `_identity.py` says what stands for a node.

Kept are results that are whole: no errors, nothing that was cut off at a token limit, no partial results of a join, and
none of a fallback. They are JSON, never pickle; what isn't plain data is not kept, which is said once. While an
optimiser records what the node does, it is always run.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from escalade.errors import BadInput, EscaladeError, Refused, ScopeError
from escalade.pipelines.joined import Joined
from escalade.pipelines.values import Codec, NotPlain, declared
from escalade.registry.cache import Cache, Forgiving, MemoryCache
from escalade.registry.elsewhere import elsewhere, is_remote
from escalade.registry.idempotency import Flight, Flights, InFlight, Lead, copied
from escalade.registry.joining import alanded, boarded, making

if TYPE_CHECKING:
    from escalade.pipelines._node import Prepared
    from escalade.scopes import Scope

logger = logging.getLogger(__name__)

_HOUR = 3600.0
_memory = MemoryCache()
_flights = Flights(optional=True)


@dataclass(frozen=True, slots=True)
class NodeCache:
    """Where a node's results are kept: `store`, a cache as registries have them (`DiskCache`, `RedisCache`; None: in
    memory), for so many `seconds`, `per` tenant or per user. `types`: classes of results that the node doesn't declare
    by annotations. Raises BadInput.

    A result that depends on who asks, by tools that show people their own data, is to be kept per user.

    >>> NodeCache(seconds=60.0).per
    'tenant'
    """

    store: Cache | None = None
    seconds: float = _HOUR
    per: Literal["tenant", "user"] = "tenant"
    types: tuple[type, ...] = ()

    def __post_init__(self) -> None:
        given: Any = self.seconds
        if not isinstance(given, int | float) or isinstance(given, bool) or not given > 0 or given == math.inf:
            raise BadInput(f"cache: expected more than 0 seconds, got {given!r}")
        store: Any = self.store
        if store is not None and not (hasattr(store, "get") and hasattr(store, "set")):
            raise BadInput(f"cache: expected a store such as DiskCache, got {store!r}")
        if not isinstance(self.types, tuple) or not all(isinstance(one, type) for one in self.types):
            raise BadInput(f"cache: expected types= as a tuple of classes, got {self.types!r}")
        if self.per not in ("tenant", "user"):
            raise BadInput(f"cache: results are kept per 'tenant' or per 'user', got {self.per!r}")

    def __deepcopy__(self, memo: dict[int, Any]) -> NodeCache:
        return self


class Kept:
    """A node's cache: misses are what it can't read, fetch or write."""

    def __init__(self, prepared: Prepared, cache: NodeCache, codec: Codec) -> None:
        self._name, self._codec, self._seconds = prepared.name, codec, cache.seconds
        self._store = _memory if cache.store is None else cache.store
        self._forgiving = Forgiving(self._store, lambda: None, what=f"results of the node {prepared.name!r}")
        self._told = False

    async def find(self, key: str) -> tuple[Any] | None:
        """What is kept, in a tuple of one."""
        found = await self._asked(partial(self._forgiving.get, key))
        if found is None:
            return None
        try:
            return (self._codec.loads(found),)
        except BadInput:  # of another version of its classes
            return None

    async def keep(self, key: str, result: Any) -> None:
        """Keep it, where it is plain data."""
        try:
            value = self._codec.dumps(result)
        except NotPlain as error:
            if not self._told:
                self._told = True
                logger.warning("results of the node %r are not kept in its cache: %s", self._name, error)
            return
        await self._asked(partial(self._forgiving.set, key, value, self._seconds, self._name))

    async def _asked(self, do: Callable[[], Any]) -> Any:
        return await elsewhere(do) if is_remote(self._store) else do()


def codec_of(targets: list[Any], types: tuple[type, ...]) -> Codec:
    """What a node takes and gives, by the annotations of all that is in it."""
    return Codec([*types, *(one for target in targets for one in declared(target))])


def whole(result: Any, scope: Scope | None) -> bool:
    """Is it a result that another call may have? `scope`: of this node alone, which knows about all in it. Branches
    that were cancelled, since others were enough, are no loss.
    """
    if scope is not None:
        return not scope.truncated and not scope.partial
    if not isinstance(result, Joined) or result._winner is not None:
        return True
    return all(status.error is None and status.state != "timeout" for status in result.statuses.values())


async def joined(
    key: str, work: Callable[[], Awaitable[Any]], limit: Callable[[], float], label: str, reused: Callable[[], object]
) -> Any:
    """The result of `work`, or of an equal call that is being made. `limit`: seconds left. `reused`: was the other.

    A call that is cancelled, or refused to its caller, hands over to one of those who wait; other failures are theirs,
    too. Raises DeadlineExceeded.
    """
    while True:
        try:
            found = boarded(_flights, key, asyncio.get_running_loop(), label)
        except InFlight as busy:
            found = busy.flight
        if isinstance(found, Lead):
            return await _led(found, key, work)
        if found is None:  # a call within itself
            return await work()
        result = await _waited(found, limit(), label)
        if result is not None:
            reused()
            return result[0]
        if not found.landed.done():  # on a loop that doesn't turn any more
            return await work()


async def _led(lead: Lead, key: str, work: Callable[[], Awaitable[Any]]) -> Any:
    try:
        with making(key):
            result = await work()
    except BaseException as error:
        own = not isinstance(error, Exception) or isinstance(error, Refused | ScopeError)
        lead.ended(partial(lead.flights.crash, error=None if own else error))
        raise
    lead.ended(partial(lead.flights.deliver, result=copied(result)))
    return result


async def _waited(flight: Flight, limit: float, label: str) -> tuple[Any] | None:
    """The other's result, in a tuple of one; None where it is to be made after all."""
    try:
        await alanded(flight, limit, label)
    except EscaladeError as error:
        if flight.landed.done() and not flight.landed.cancelled() and flight.landed.exception() is error:
            raise copy.copy(error) from error.__cause__  # each caller puts its own path into it
        raise
    done = flight.landed.done() and not flight.landed.cancelled()
    return (copied(flight.landed.result()),) if done else None
