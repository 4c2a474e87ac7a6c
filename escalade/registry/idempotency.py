"""Once: the same call in the same step of a run is executed once; who asks again gets its result, or waits for it.

`dspy.Parallel(timeout=...)` starts stragglers a second time while the first attempt still runs: without this, a tool
that writes would write twice. The key of a call is the run, the step, everybody on whose behalf it is, tool@version and
the arguments with their types (`exact.py`). Each node of a pipeline is a step, and so is each item of a `Map`, by its
place in the list; an attempt that is made again is in the same step. Anywhere else, two calls that are meant to be two
need steps of their own (`with step("send"):`), or arguments that differ.

A call that failed may be made again; those who waited for it get its failure. One that was cut off (timeout,
cancellation) may have been done: it is not made again in this run (OutcomeUnknown), unless the tool is idempotent.
Processes that share a run share this by `Registry(claims=...)`, see `registry/stores/claims.py`.
"""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from escalade.errors import OutcomeUnknown
from escalade.registry.canonical import digest
from escalade.scopes import Scope

STEP = "escalade_step"
"""The key of `dspy.context` that carries the step, as (outer step, name): it reaches the threads of `dspy.Parallel`."""

Step = tuple[Any, str | int]

_FLIGHTS = "escalade.once"


class InFlight(Exception):
    """The call is being made: wait for it, then ask again. `flight`: None when another process makes it."""

    def __init__(self, flight: Flight | None) -> None:
        super().__init__()
        self.flight = flight


class Flight:
    """One call that is made once. `landed`: done when it has ended, with its result or failure; cancelled when somebody
    else may make it. `loop`: the event loop that it ends on, None for a thread. `optional`: who can't wait for it may
    make the call himself.
    """

    def __init__(self, key: str, loop: asyncio.AbstractEventLoop | None, *, optional: bool) -> None:
        self.landed: Future[Any] = Future()
        self.key, self.loop, self.optional = key, loop, optional
        self.unknown = False

    def drop(self) -> None:
        """It ends without a result."""
        self.landed.cancel()
        self.landed.set_running_or_notify_cancel()


class Flights:
    """Calls that are made once at a time: by a run, where their results stay, or with a cache, which keeps them."""

    def __init__(self, *, optional: bool = False) -> None:
        self._optional = optional
        self._lock = threading.RLock()  # re-entrant: a finalizer may end a call while its thread is in here
        self._flights: dict[str, Flight] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def board(self, key: str, loop: asyncio.AbstractEventLoop | None = None) -> Flight | None:
        """None: make the call (then `land`, `deliver`, `crash` or `lose` it), on `loop`. A flight that has landed: use
        its result.

        Raises InFlight while somebody makes it, OutcomeUnknown when nobody knows whether it was made.
        """
        with self._lock:
            flight = self._flights.get(key)
            if flight is None:
                self._flights[key] = Flight(key, loop, optional=self._optional)
                return None
        if flight.unknown:
            raise OutcomeUnknown("this call was cut off before: it may have been done; look before you go on")
        if not flight.landed.done():
            raise InFlight(flight)
        return flight

    def land(self, key: str, result: Any) -> None:
        """It worked, and later calls get the result, too."""
        self._flights[key].landed.set_result(result)

    def deliver(self, key: str, result: Any) -> None:
        """It worked, and those who wait get the result; later calls find it in a cache, or are made."""
        self._gone(key).landed.set_result(result)

    def crash(self, key: str, error: BaseException | None) -> None:
        """It failed, or (None) was not made after all: it may be made again."""
        flight = self._gone(key)
        if error is None:
            flight.drop()
        else:
            flight.landed.set_exception(error)

    def lose(self, key: str) -> None:
        """It was cut off: nobody knows."""
        flight = self._flights[key]
        flight.unknown = True
        flight.drop()

    def _gone(self, key: str) -> Flight:
        with self._lock:
            return self._flights.pop(key)


class Lead:
    """A call that its holder has to make, and to end, by one of the ways of `Flights`. Lost before (Ctrl-C came
    between), it was not made; or nobody knows, from when on it was `begun` and must not be made twice.
    """

    def __init__(self, flights: Flights, key: str) -> None:
        self.flights, self.key, self.over, self.begun = flights, key, False, False

    def ended(self, way: Callable[[str], None]) -> None:
        self.over = True
        way(self.key)

    def __del__(self) -> None:
        if self.over:
            return
        if self.begun:
            self.flights.lose(self.key)
        else:
            self.flights.crash(self.key, None)


def flights_of(scope: Scope) -> Flights | None:
    """Those of the run; None in the configured scope, which is no run."""
    return None if scope.once is None else scope.once.setdefault(_FLIGHTS, Flights())


def call_key(label: str, scope: Scope, args: str) -> str:
    """`args`: their digest."""
    whose = [[p.tenant, p.user] for p in scope.principals]
    return digest([scope.run_id, step_path(), whose, label, args])


def step_path() -> list[str | int]:
    """The step here, from the outermost name on: nodes by name, items of a `Map` by number."""
    import dspy

    names: list[str | int] = []
    found: Step | None = dspy.settings.get(STEP)
    while found is not None:
        found, name = found
        names.append(name)
    return names[::-1]


def copied(result: Any) -> Any:
    """A result for a further caller, who may change it; itself where it can't be copied."""
    try:
        return copy.deepcopy(result)
    except Exception:  # noqa: BLE001 - whatever somebody's __deepcopy__ raises
        return result


@contextmanager
def step(name: str) -> Iterator[None]:
    """Names a step of a run: a tool that is used `once` is used once per step. Steps nest, also in nodes of pipelines.

    for number, line in enumerate(lines):
        with escalade.step(str(number)):
            append(line)  # also when two lines are the same
    """
    import dspy

    with dspy.context(**{STEP: (dspy.settings.get(STEP), name)}):
        yield
