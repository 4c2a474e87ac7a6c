"""Faults on purpose: calls that fail, hang, are slow, are cut off or answer nonsense, the same on every run.

    with faults(Fault("small", calls=2, error=ConnectionError()), Fault("web.*", rate=0.3, hang=True), seed=7) as told:
        pipeline(question="?")
    told            # what was done: [Injected(on='small', call=2, what='ConnectionError'), ...]

A fault meets the calls of models of gateways (`on`: their alias), of tools (their name) and of functions that are
wrapped by `faulty` (the name given there). It stands where the provider or the tool itself would be: all that guards
them, retries, breakers, fallbacks, budgets, does its work.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import functools
import inspect
import random
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from unittest import mock

from escalade.agents.models import Model
from escalade.errors import BadInput, RateLimited
from escalade.registry.calling import Registered

if TYPE_CHECKING:
    from dspy.lm15 import Request, Response

FOREVER = 10.0**9
"""Seconds that a call hangs."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to which calls. `on`: an alias, a tool, a name, as a pattern (`"web.*"`). Which of its calls: number
    `calls` (from 1, or several of them), or each with probability `rate`; else all. What happens, one of: `error`, or a
    function that makes one, is raised; `hang`: it never answers; `slow`: so many seconds more, or a function of the
    chance (a `random.Random`); `limited`: 429, with so many seconds to wait; `cut`: a stream breaks off after so many
    events; `garbage`: the model answers this text. Raises BadInput.
    """

    on: str
    calls: int | Collection[int] | None = None
    rate: float | None = None
    error: BaseException | Callable[[], BaseException] | None = None
    hang: bool = False
    slow: float | Callable[[random.Random], float] | None = None
    limited: float | None = None
    cut: int | None = None
    garbage: str | None = None

    def __post_init__(self) -> None:
        if self.calls is not None and self.rate is not None:
            raise BadInput("a fault: calls= or rate=, not both")
        if self.rate is not None and not 0 <= self.rate <= 1:
            raise BadInput(f"a fault: expected a rate between 0 and 1, got {self.rate!r}")
        if len(self.kinds) != 1:
            told = ", ".join(self.kinds) or "nothing"
            raise BadInput(f"a fault: one of error, hang, slow, limited, cut, garbage; got {told}")

    @property
    def kinds(self) -> list[str]:
        """What happens."""
        named = {"error": self.error, "slow": self.slow, "limited": self.limited, "cut": self.cut}
        given = [name for name, value in {**named, "garbage": self.garbage}.items() if value is not None]
        return [*given, *(["hang"] if self.hang else [])]

    def meets(self, name: str, call: int, chance: float) -> bool:
        """Is it for this call?"""
        if not fnmatch.fnmatchcase(name, self.on):
            return False
        if self.rate is not None:
            return chance < self.rate
        return self.calls is None or call == self.calls or (not isinstance(self.calls, int) and call in self.calls)


@dataclass(frozen=True, slots=True)
class Injected:
    """One fault that was done: to which call (from 1) of what."""

    on: str
    call: int
    what: str


class Faults(list[Injected]):
    """The faults that were done so far, in order."""

    def __init__(self, plan: tuple[Fault, ...], seed: int) -> None:
        super().__init__()
        self._plan, self._seed = plan, seed
        self._calls: Counter[str] = Counter()
        self._lock = threading.Lock()

    def draw(self, name: str, only: Collection[str]) -> tuple[Fault, random.Random] | None:
        """The fault of the next call of this name, one of the kinds that can happen to it; and its chance."""
        with self._lock:
            self._calls[name] += 1
            call = self._calls[name]
            for number, fault in enumerate(self._plan):
                chance = random.Random(f"{self._seed} {number} {name} {call}")
                if fault.kinds[0] in only and fault.meets(name, call, chance.random()):
                    self.append(Injected(name, call, _told(fault)))
                    return fault, chance
        return None


def _told(fault: Fault) -> str:
    kind = fault.kinds[0]
    return type(_made(fault.error)).__name__ if fault.error is not None else kind


def _made(error: BaseException | Callable[[], BaseException] | None) -> BaseException:
    return error if isinstance(error, BaseException) else error() if error is not None else RuntimeError()


_CALLS = ("error", "hang", "slow", "limited")
_ANSWERS, _STREAMS = (*_CALLS, "garbage"), (*_CALLS, "cut")
_current: Faults | None = None


@contextlib.contextmanager
def faults(*plan: Fault, seed: int = 0) -> Iterator[Faults]:
    """In the block, calls meet these faults; the first that is for a call counts. Yields those that were done.

    >>> with faults(Fault("work", calls=1, error=ConnectionError("down"))) as told:
    ...     work = faulty(lambda: "done", "work")
    ...     try:
    ...         work()
    ...     except ConnectionError as error:
    ...         print(error)
    ...     work()
    down
    'done'
    >>> told
    [Injected(on='work', call=1, what='ConnectionError')]
    """
    global _current  # noqa: PLW0603 - what is patched is the process's
    if _current is not None:
        raise BadInput("faults() within faults(): put them into one plan")
    done = _current = Faults(plan, seed)
    with contextlib.ExitStack() as stack:
        stack.callback(_forget)
        for owner, name, new in _patches():
            stack.enter_context(mock.patch.object(owner, name, new, create=True))
        yield done


def _forget() -> None:
    global _current  # noqa: PLW0603
    _current = None


# -- who meets them


def faulty(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The same function, whose calls meet the faults of this name: for nodes, stores and whatever else."""
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def acalled(*args: Any, **kwargs: Any) -> Any:
            await _ameet(name, _CALLS)
            return await function(*args, **kwargs)

        return acalled

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        _meet(name, _CALLS)
        return function(*args, **kwargs)

    return called


def _drawn(name: str, only: Collection[str]) -> tuple[float, Fault | None]:
    """Seconds that the next call waits first, and what happens then. Raises the error of a fault."""
    drawn = None if _current is None else _current.draw(name, only)
    if drawn is None:
        return 0.0, None
    fault, chance = drawn
    if fault.error is not None:
        raise _made(fault.error)
    if fault.limited is not None:
        raise _limited(name, fault.limited, model=only is not _CALLS)
    slow = fault.slow(chance) if callable(fault.slow) else fault.slow
    return FOREVER if fault.hang else slow or 0.0, fault


def _meet(name: str, only: Collection[str]) -> Fault | None:
    seconds, fault = _drawn(name, only)
    if seconds:
        time.sleep(seconds)
    return fault


async def _ameet(name: str, only: Collection[str]) -> Fault | None:
    seconds, fault = _drawn(name, only)
    if seconds:
        await asyncio.sleep(seconds)
    return fault


def _limited(name: str, seconds: float, *, model: bool) -> BaseException:
    if not model:
        return RateLimited(f"{name} is limited, by a fault", retry_after=seconds)
    from dspy import lm15

    error: BaseException = lm15.RateLimitError("limited, by a fault", provider="fault", status=429, retry_after=seconds)
    return error


class _Faulty:
    """A transport whose calls meet faults."""

    def __init__(self, inner: Any, alias: str) -> None:
        self._inner, self._alias = inner, alias

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def complete(self, request: Request) -> Response:
        return _spoiled(self._inner.complete(request), _meet(self._alias, _ANSWERS))

    async def acomplete(self, request: Request) -> Response:
        fault = await _ameet(self._alias, _ANSWERS)
        return _spoiled(await self._inner.acomplete(request), fault)

    def stream(self, request: Request) -> Generator[Any, None, None]:
        fault = _meet(self._alias, _STREAMS)
        for count, event in enumerate(self._inner.stream(request)):
            _cut(fault, count)
            yield event

    async def astream(self, request: Request) -> AsyncGenerator[Any, None]:
        fault = await _ameet(self._alias, _STREAMS)
        async with contextlib.aclosing(self._inner.astream(request)) as events:
            count = 0
            async for event in events:
                _cut(fault, count)
                yield event
                count += 1


def _spoiled(answer: Response, fault: Fault | None) -> Response:
    if fault is None or fault.garbage is None:
        return answer
    from dspy.lm15 import Message, TextPart

    return replace(answer, message=Message.assistant([TextPart(fault.garbage)]), finish_reason="stop")


def _cut(fault: Fault | None, count: int) -> None:
    if fault is not None and fault.cut is not None and count >= fault.cut:
        from dspy import lm15

        raise lm15.StreamAssemblyError("the stream broke off, by a fault", provider="fault")


def _patches() -> list[tuple[Any, str, Any]]:
    """The transports of all models and the functions of all tools, as they are read for a call."""

    def transport(model: Model) -> Any:
        return _Faulty(model.__dict__["transport"], model.name)

    def function(registered: Registered) -> Any:
        return faulty(registered.__dict__["_function"], registered.spec.name)

    return [
        (Model, "transport", property(transport, lambda model, value: model.__dict__.update(transport=value))),
        (Registered, "_function", property(function, lambda one, value: one.__dict__.update(_function=value))),
    ]
