"""Async tests that go by virtual time: what sleeps takes no time, and all takes as long as it should on any machine."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any

from escalade.testing import virtual_time


def virtually(test: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., None]:
    """The same test as a plain function, on an event loop that goes by a virtual clock."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with virtual_time() as clock:
            clock.run(test(*args, **kwargs))

    return run
