"""Timers around a node: the timeout of a node, the time of a partial join.

A durable run that waits for a person is put aside, and its timers with it. So who asks (`durable/journal.py`) looks for
the nearest one, has the run go on at that time, and has it go off then.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timer:
    """`at`: when it goes off, by the event loop's clock. `go_off`: has it do so at once."""

    at: float
    go_off: Callable[[], object]


_nearest: ContextVar[Timer | None] = ContextVar("escalade_timer", default=None)


def nearest() -> Timer | None:
    """Of those around here, the one that goes off first."""
    return _nearest.get()


@contextlib.contextmanager
def timed(at: float, go_off: Callable[[], object]) -> Iterator[None]:
    """Within a timer."""
    outer = _nearest.get()
    token = _nearest.set(Timer(at, go_off) if outer is None or at < outer.at else outer)
    try:
        yield
    finally:
        _nearest.reset(token)
