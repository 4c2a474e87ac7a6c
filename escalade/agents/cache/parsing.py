"""Answers that an adapter can't parse are taken back: a retry must not be served the same bad text.

A response is kept when the model has given it; only afterwards an adapter parses it. So what the LM hands out remembers
its entry, and the adapter's reading of it is watched: a `try` around it, no callback (those cost 200 us per call).
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable
from typing import Any

_lock = threading.Lock()
_watched = False


class Outputs(list[Any]):
    """The outputs of a call, as DSPy has them, which know how to take their entry back. Copies are plain lists."""

    __slots__ = ("take_back",)

    def __init__(self, outputs: Iterable[Any], take_back: Callable[[], None]) -> None:
        super().__init__(outputs)
        self.take_back = take_back

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return list, (list(self),)


def watch() -> None:
    """Watch what adapters make of outputs, once per process."""
    global _watched  # noqa: PLW0603 - one per process, as the class that it changes
    with _lock:
        if _watched:
            return
        from dspy.adapters.base import Adapter

        read = Adapter._call_postprocess

        @functools.wraps(read)
        def watched(
            self: Any, processed_signature: Any, original_signature: Any, outputs: Any, *args: Any, **kwargs: Any
        ) -> Any:
            try:
                return read(self, processed_signature, original_signature, outputs, *args, **kwargs)
            except Exception:
                if isinstance(outputs, Outputs):
                    outputs.take_back()
                raise

        Adapter._call_postprocess = watched
        _watched = True
