"""The wall beside the door: inside a scope, a language model that doesn't go through the guard is refused.

`predict(lm=other)`, `other("hi")` and `dspy.Embedder("openai/…")` would be paid by nobody's budget. DSPy swallows what
callbacks raise, and a single callback costs 200-275 us per Predict (measured), so the check sits in `BaseLM.__call__`
and `acall`, which every DSPy path to a model goes through, and in the few other methods that reach one: two look-ups
per call. It is put in place when the first scope is opened. A direct `litellm.completion(...)` is out of its reach,
and so is the `forward` of somebody's own `BaseLM`, called by hand.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

from escalade.errors import ForeignModel
from escalade.scopes import current

_governed: set[type] = set()
_lock = threading.Lock()
_built = False


def govern(engine_type: type) -> type:
    """Class decorator: engines of exactly this type pass every request through the guard."""
    _governed.add(engine_type)
    return engine_type


def build() -> None:
    """Put the check in place, once per process."""
    global _built  # noqa: PLW0603 - one per process, as the classes that it changes
    with _lock:
        if _built:
            return
        import dspy
        from dspy.clients.embedding import Embedder
        from dspy.clients.typesafe import TypeSafe

        _wrap(dspy.BaseLM, "__call__", "acall", _check_lm)
        _wrap(dspy.LM, "forward", "aforward", _check_lm)
        _wrap(TypeSafe, "__call__", "acall", _check_lm)
        _wrap(Embedder, "__call__", "acall", _check_embedder)
        _built = True


def _check_lm(lm: Any) -> None:
    if not _through_the_gateway(lm) and current() is not None:
        name = getattr(lm, "model", type(lm).__name__)
        raise _refusal(f"language model {name!r} doesn't go through the gateway")


def _through_the_gateway(lm: Any) -> bool:
    """Both halves of the engine pair must be ours: a foreign async half would be paid by nobody just the same."""
    async_engine = getattr(lm, "_async_engine_spec", None)
    return type(getattr(lm, "_engine_spec", None)) in _governed and (
        async_engine is None or type(async_engine) in _governed
    )


def _check_embedder(embedder: Any) -> None:
    if isinstance(embedder.model, str) and current() is not None:
        raise _refusal(f"embedding model {embedder.model!r} doesn't go through the gateway")


def _refusal(what: str) -> ForeignModel:
    from escalade.registry.dspy_errors import for_dspy

    return for_dspy(
        ForeignModel(
            f"{what}, so that no budget would pay for it; use `gateway.lm(name)`, or call it outside of the scope"
        )
    )


def _wrap(owner: type, sync: str, asynchronous: str, check: Callable[[Any], None]) -> None:
    call, acall = getattr(owner, sync), getattr(owner, asynchronous)

    @functools.wraps(call)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        check(self)
        return call(self, *args, **kwargs)

    @functools.wraps(acall)
    async def achecked(self: Any, *args: Any, **kwargs: Any) -> Any:
        check(self)
        return await acall(self, *args, **kwargs)

    setattr(owner, sync, checked)
    setattr(owner, asynchronous, achecked)
