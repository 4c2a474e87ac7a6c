"""Vectors that are kept: by tenant, model and text, on the shelves of the gateway's cache of responses."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from escalade.agents.cache._key import key_of, place_of, tag_of, whose
from escalade.agents.cache.kinds import VECTORS
from escalade.registry.elsewhere import elsewhere

if TYPE_CHECKING:
    from escalade.agents.cache.response import ResponseCache
    from escalade.agents.models import Model
    from escalade.scopes import Scope

Array = np.ndarray[Any, Any]


class Vectors:
    """Those of one model, for whoever this scope stands for. The level that each came from, and what it had cost, is
    counted as for answers.
    """

    def __init__(self, cache: ResponseCache, gateway: str, model: Model, scope: Scope) -> None:
        self._cache, self._shelf, self._model, self._scope = cache, cache.shelf, model.name, scope
        self._owners, self._place = whose(scope, cache.per), place_of(gateway, model)
        self._tag, self._seconds = tag_of(self._owners, model.name, VECTORS), cache.kinds.seconds[VECTORS]

    def find(self, texts: list[str]) -> dict[str, Array]:
        """Those that are there. Blocks."""
        found, rest = self._near(texts)
        return self._counted(found, self._far(rest) if rest else {}, rest)

    async def afind(self, texts: list[str]) -> dict[str, Array]:
        """`find`, without blocking the event loop."""
        found, rest = self._near(texts)
        far = await elsewhere(partial(self._far, rest)) if rest and self._shelf.store is not None else {}
        return self._counted(found, far, rest)

    def keep(self, texts: list[str], vectors: Array, cost: int | None) -> None:
        """`cost`: nano-dollars of all together, None for unknown. Blocks."""
        self._keep_far(self._keep_near(texts, vectors, cost))

    async def akeep(self, texts: list[str], vectors: Array, cost: int | None) -> None:
        """`keep`, without blocking the event loop."""
        packed = self._keep_near(texts, vectors, cost)
        if self._shelf.store is not None:
            await elsewhere(partial(self._keep_far, packed))

    def _near(self, texts: list[str]) -> tuple[dict[str, bytes], dict[str, str]]:
        """What memory has, and the keys of the rest."""
        keys = {text: self._key(text) for text in dict.fromkeys(texts)} if self._seconds > 0 else {}
        near = {text: self._shelf.near(key) for text, key in keys.items()}
        found = {text: value for text, value in near.items() if value is not None}
        return found, {text: key for text, key in keys.items() if text not in found}

    def _far(self, keys: Mapping[str, str]) -> dict[str, bytes]:
        far = {text: self._shelf.far(key, self._seconds, self._tag) for text, key in keys.items()}
        return {text: value for text, value in far.items() if value is not None}

    def _counted(self, near: dict[str, bytes], far: dict[str, bytes], asked: Mapping[str, str]) -> dict[str, Array]:
        tenant, counters, vectors = self._scope.principal.tenant, self._cache.counters, {}
        for level, found in (("memory", near), ("store", far)):
            for text, value in found.items():
                try:
                    vectors[text], cost = _unpacked(value)
                except ValueError as error:
                    self._shelf.note(error)
                    continue
                counters.hit(tenant, self._model, level, cost)
        for _ in range(len(near) + len(asked) - len(vectors)):
            counters.miss(tenant, self._model)
        return vectors

    def _keep_near(self, texts: list[str], vectors: Array, cost: int | None) -> dict[str, bytes]:
        share = None if cost is None else cost // max(1, len(texts))
        packed = {}
        if self._seconds > 0:
            for text, vector in zip(texts, vectors, strict=True):
                key = self._key(text)
                packed[key] = _packed(vector, share)
                self._shelf.memory.set(key, packed[key], self._seconds, self._tag)
                self._cache.counters.kept(self._scope.principal.tenant, self._model)
        return packed

    def _keep_far(self, packed: Mapping[str, bytes]) -> None:
        for key, value in packed.items():
            self._shelf.keep(key, value, self._seconds, self._tag)

    def _key(self, text: str) -> str:
        key = key_of(self._owners, self._place, ["vector", text.encode("utf-8", "surrogatepass").hex()])
        assert key is not None  # noqa: S101 - it is JSON
        return key


def _packed(vector: Array, cost: int | None) -> bytes:
    return b"%d %s" % (-1 if cost is None else cost, base64.b64encode(vector.astype("<f4").tobytes()))


def _unpacked(value: bytes) -> tuple[Array, int | None]:
    cost, _, told = value.partition(b" ")
    try:
        vector = np.frombuffer(base64.b64decode(told, validate=True), dtype="<f4")
        known = int(cost)
    except (binascii.Error, ValueError) as error:
        raise ValueError("not a vector as the cache keeps it") from error
    if not len(vector) or not np.isfinite(vector).all():
        raise ValueError("not a vector as the cache keeps it")
    return vector, None if known < 0 else known
