"""Answers of models in a durable run: what was finished before it was interrupted is given again, and paid once.

The answer is kept when it is there and before anybody sees it. Given again it passes the guard, which may refuse, is
recorded as an answer out of the journal, and costs nothing more; its bill says what it did cost.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from escalade.agents import _spans
from escalade.agents._allowed import check_allowed
from escalade.agents.cache._key import key_of
from escalade.errors import EscaladeError
from escalade.registry.dspy_errors import for_dspy
from escalade.registry.guard import aadmit, admit
from escalade.registry.journaling import journal_key
from escalade.scopes import RunJournal, Scope, current

if TYPE_CHECKING:
    from dspy.lm15 import Request, Response

    from escalade.agents.gateway import Gateway
    from escalade.agents.models import Model

logger = logging.getLogger(__name__)

Noted = Callable[["Response"], object]
"""Told of an answer as soon as it is there: before it is settled, so that who is cancelled meanwhile has kept it."""


class Kept:
    """One request to a model of a durable run. `found`: the answer that is there already."""

    def __init__(self, gateway: Gateway, model: Model, scope: Scope, key: str, request: Request) -> None:
        assert scope.journal is not None  # noqa: S101 - `kept` has looked
        self._gateway, self._model, self._scope, self._key = gateway, model, scope, key
        self._journal, self._request = scope.journal, request
        text = self._journal.find(key)
        self.found = None if text is None else _loaded(text)

    def complete(self, make: Callable[[Request, Noted], Response]) -> Response:
        """The answer, made if it isn't there. `make` tells of the answer while the use of the model is still open."""
        if self.found is not None:
            with admit(self._model.resource, **self._terms()) as use:
                _spans.hit(use, "journal")
            return self.found
        answer = make(self._request, self._note)
        self._journal.saved()
        return answer

    async def acomplete(self, make: Callable[[Request, Noted], Awaitable[Response]]) -> Response:
        """`complete`, without blocking the event loop."""
        if self.found is not None:
            await self._admitted()
            return self.found
        answer = await make(self._request, self._note)
        await self._journal.asaved()
        return answer

    def stream(self, make: Callable[[Request], Iterator[Any]]) -> Iterator[Any]:
        """The events of the answer; of one that is there, in one piece."""
        if self.found is not None:
            with admit(self._model.resource, **self._terms()) as use:
                _spans.hit(use, "journal")
            yield from _events(self.found)
            return
        seen: list[Any] = []
        for event in make(self._request):
            seen.append(event)
            if event.type == "end":
                self._note(_response(seen, self._request))
                self._journal.saved()
            yield event

    async def astream(self, make: Callable[[Request], AsyncIterator[Any]]) -> AsyncIterator[Any]:
        """`stream`, without blocking the event loop."""
        if self.found is not None:
            await self._admitted()
            for event in _events(self.found):
                yield event
            return
        seen: list[Any] = []
        async with aclosing(cast("AsyncGenerator[Any, None]", make(self._request))) as events:
            async for event in events:
                seen.append(event)
                if event.type == "end":
                    self._note(_response(seen, self._request))
                    await self._journal.asaved()
                yield event

    async def _admitted(self) -> None:
        async with await aadmit(self._model.resource, **self._terms()) as use:
            _spans.hit(use, "journal")

    def _terms(self) -> dict[str, Any]:
        check = partial(check_allowed, self._model, self._scope, self._gateway.regions)
        return {"ceiling": 0, "scope": self._scope, "check": check, "shortcut": lambda *_: "journal"}

    def _note(self, answer: Response) -> None:
        text = _dumped(answer)
        if text is not None:
            self._journal.note(self._key, "model", self._model.name, text, self._cost(answer))

    def _cost(self, answer: Response) -> int:
        bill = (answer.provider_data or {}).get("escalade", {}).get("cost")
        cost = self._model.bill(answer.usage) if bill is None else bill
        return int(cost or 0)


def kept(gateway: Gateway, name: str, request: Request) -> Kept | None:
    """The request, as the journal of a durable run knows it; None outside of such a run, and for a request that has no
    exact text.
    """
    scope = current()
    if scope is None or scope.journal is None:
        return None
    from dspy._vendor.lm15.serde import request_to_dict

    model = gateway.model(name)
    told = key_of(
        [[one.tenant, one.user] for one in scope.principals], [gateway.name, model.name], request_to_dict(request)
    )
    if told is None:
        return None
    try:
        return Kept(gateway, model, scope, journal_key("model", told), request)
    except EscaladeError as refusal:
        raise for_dspy(refusal) from None


class KeptVectors:
    """Texts for an embedding model of a durable run. `found`: their vectors, when they are there already."""

    def __init__(self, gateway: str, model: str, journal: RunJournal, texts: list[str]) -> None:
        self._journal, self._model = journal, model
        self._key = journal_key("vectors", gateway, model, *texts)
        kept = journal.find(self._key)
        self.found = None if kept is None else _vectors(kept)

    def note(self, vectors: np.ndarray[Any, Any], cost: int | None) -> None:
        """They have come."""
        self._journal.note(self._key, "model", self._model, _packed(vectors), cost or 0)

    def saved(self) -> None:
        """Blocks until they are on the disk."""
        self._journal.saved()

    async def asaved(self) -> None:
        """`saved`, without blocking the event loop."""
        await self._journal.asaved()


def _packed(vectors: np.ndarray[Any, Any]) -> bytes:
    """The length of a vector, and the numbers of all of them."""
    return bytes(vectors.shape[1].to_bytes(4, "big") + vectors.astype("<f4").tobytes())


def _vectors(kept: bytes) -> np.ndarray[Any, Any]:
    return np.frombuffer(kept[4:], "<f4").reshape(-1, int.from_bytes(kept[:4], "big")).astype(np.float32)


def _dumped(answer: Response) -> bytes | None:
    import orjson
    from dspy._vendor.lm15.serde import response_to_dict

    try:
        return orjson.dumps(response_to_dict(answer, include_provider_data=True))
    except (TypeError, ValueError) as error:
        logger.warning("an answer of %s can't be kept, and is asked for again on resume: %s", answer.model, error)
        return None


def _loaded(text: bytes) -> Response:
    import orjson
    from dspy._vendor.lm15.serde import response_from_dict

    return response_from_dict(orjson.loads(text))


def _events(answer: Response) -> Iterator[Any]:
    from dspy._vendor.lm15.result import response_to_events

    events: Iterator[Any] = response_to_events(answer)
    return events


def _response(seen: list[Any], request: Request) -> Response:
    from dspy import lm15

    return lm15.materialize_response(iter(seen), request)
