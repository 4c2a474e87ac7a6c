"""Answers to nearly the same question: all else of the call is the same, but for the text of one field."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from escalade.agents.cache._key import key_of
from escalade.agents.cache.kinds import around
from escalade.registry.elsewhere import elsewhere
from escalade.scopes import Entered

if TYPE_CHECKING:
    from escalade.agents.cache.response import Asked, Found, ResponseCache

_SAMPLES = ("tools", "functions", "rollout_id")


def family_of(owners: list[list[str]], place: list[str], call: Any, told: dict[str, Any]) -> str | None:
    """What variants of a call have in common, as a digest; None for a call that has none: with tools, several
    candidates, a rollout, more than one field of input, or more than text. `told`: the call, as its own key has it.
    """
    messages = call.legacy.get("messages") if call.request is None else None
    if not messages or call.n != 1 or any(call.legacy.get(name) for name in _SAMPLES):
        return None
    last = messages[-1]
    content = last.get("content")
    if last.get("role") != "user" or not isinstance(content, str):
        return None
    frame = around(content)
    if len(frame) > 2:
        return None
    return key_of(owners, place, ["similar", {**told, "messages": [*messages[:-1], frame]}])


def similar_to(cache: ResponseCache, asked: Asked) -> Found | None:
    """An answer that is good enough. Blocks where there is a store."""
    if cache.similar is None or asked.family is None:
        return None
    try:
        with _without(asked):
            key = cache.similar.find(asked.family, asked.question)
    except Exception as error:  # noqa: BLE001 - whatever the embedder raises, the model can be asked
        cache.shelf.note(error)
        return None
    return None if key is None else cache.stand_in(asked, key, cache.shelf.near(key) or _far(cache, asked, key))


async def asimilar_to(cache: ResponseCache, asked: Asked) -> Found | None:
    """`similar_to`, without blocking the event loop."""
    if cache.similar is None or asked.family is None:
        return None
    try:
        async with _without(asked):
            key = await cache.similar.afind(asked.family, asked.question)
    except Exception as error:  # noqa: BLE001 - whatever the embedder raises, the model can be asked
        cache.shelf.note(error)
        return None
    if key is None:
        return None
    text = cache.shelf.near(key)
    if text is None and cache.shelf.store is not None:
        text = await elsewhere(partial(_far, cache, asked, key))
    return cache.stand_in(asked, key, text)


def _without(asked: Asked) -> Entered:
    """A scope for the vectors: what is refused for them must not spoil the caller's, who can do without."""
    return Entered(lambda: asked.scope.narrow(name="similar", optional=True), check=False)


def _far(cache: ResponseCache, asked: Asked, key: str) -> bytes | None:
    return cache.shelf.far(key, cache.kinds.seconds[asked.kind], asked.tag)
