"""Events: what happens in a run, as typed frozen records, in order, to whoever listens.

Emit, from any room (the class and its fields, never an instance: without a listener nothing is built)::

    from escalade import events

    events.emit(scope, events.ToolCalled, tool="search", cost=2_000_000, outcome="ok")

Listen to everything that happens in a scope, from any thread of it::

    with escalade.scope(budget="1.00", listen=print):
        pipeline(question="...")

or to one run, which leaves the caller alone when it is left early::

    async for event in pipeline.stream(question="..."):
        ...

A listener is called in the thread that emits, one event after the other per run, so it must be quick and must not
block: `collections.deque.append` is a good one. A listener that raises is logged and does not disturb the run.

`path` names the node that an event happened in: `"branch/step"`, `"summaries[3]"` for item 3 of a map, `""` for the
whole run; `call` numbers the calls of pipelines from outside of any, so that the rows of an `Evaluate`, which share a
scope and its run id, can be told apart. Both travel as a key of `dspy.context`, since a ContextVar is lost in the
threads of `dspy.Parallel`, `batch` and `Evaluate`; it is set only while somebody listens (2 us per node).
"""

from __future__ import annotations

import importlib
import itertools
import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from escalade.events.kinds import *  # noqa: F403 - its `__all__` is all of them
    from escalade.events.kinds import Event
    from escalade.scopes import Scope

    Listener = Callable[["Event"], None]

PLACE = "escalade_place"
"""The key of `dspy.context` that carries `(call, path)` of the current node."""

LISTEN = "escalade_listen"
"""The key of `dspy.context` that carries `(run_id, listeners)` of a run outside of any scope."""

NOWHERE = (0, "")

logger = logging.getLogger(__name__)


def __getattr__(name: str) -> Any:
    """The kinds of events, when the first is asked for: 36 classes take 10 ms to make, and most runs tell nothing."""
    kinds = importlib.import_module("escalade.events.kinds")  # `from escalade.events import kinds` would ask here again
    if name not in kinds.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals().update({kind: getattr(kinds, kind) for kind in kinds.__all__})
    return globals()[name]


_seq = itertools.count(1)  # next() of a C iterator is atomic: no lock for the number itself
_calls = itertools.count(1)


class _Stripe:
    """Numbering and delivery of one event happen under one lock, or two threads could deliver 8 before 7.

    Shared by runs (64 stripes) instead of kept per run, so that nothing has to be cleaned up. Re-entrant: a listener
    may emit, and whoever comes after it hears first what it was told, then what it emitted.
    """

    __slots__ = ("lock", "telling")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.telling: tuple[Iterator[Listener], Event] | None = None


_stripes = tuple(_Stripe() for _ in range(64))


def emit(scope: Scope | None, kind: type[Event], /, **values: Any) -> None:
    """Tell the listeners of `scope` that `kind` happened here; `values` are its fields besides those of `Event`.

    Without a listener it returns at once (0.13 us).
    """
    if scope is not None:
        listeners, run_id = scope.listeners, scope.run_id
    else:
        run_id, listeners = unscoped()
    if listeners:
        send(listeners, kind, run_id, here(), **values)


def send(
    listeners: tuple[Listener, ...], kind: type[Event], run_id: str, place: tuple[int, str], /, **values: Any
) -> None:
    """Build one event and hand it to each listener, in order with all other events of the run."""
    call, path = place
    stripe = _stripes[hash(run_id) & 63]
    with stripe.lock:
        before = stripe.telling
        if before is not None:  # one of its listeners emits: the others haven't heard of it yet
            _tell(*before)
        event = kind(seq=next(_seq), time=time.time(), run_id=run_id, call=call, path=path, **values)
        stripe.telling = iter(listeners), event
        try:
            _tell(*stripe.telling)
        finally:
            stripe.telling = before


def _tell(listeners: Iterator[Listener], event: Event) -> None:
    for listener in listeners:
        try:
            listener(event)
        except Exception:
            logger.exception("the listener %r failed on %s; the run goes on", listener, type(event).__name__)


def here() -> tuple[int, str]:
    """The call and the path of the current node, `(0, "")` outside of any or while nobody listens."""
    import dspy

    place: tuple[int, str] = dspy.settings.get(PLACE, NOWHERE)
    return place


_LETTERS = str.maketrans("0123456789", "ghijklmnop")


def new_run_id() -> str:
    """16 letters. Of 10,000 ids with digits, one is taken for somebody's telephone where records are redacted."""
    return os.urandom(8).hex().translate(_LETTERS)


def next_call() -> int:
    """A number for one more call of a pipeline."""
    return next(_calls)


def unscoped() -> tuple[str, tuple[Listener, ...]]:
    """The run id and the listeners of a run outside of any scope."""
    import dspy

    found: tuple[str, tuple[Listener, ...]] = dspy.settings.get(LISTEN, ("", ()))
    return found
