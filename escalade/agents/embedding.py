"""Vectors of texts, through the guard: priced, budgeted, recorded, and kept by tenant.

    gateway = Gateway([Model("vectors", "openai/text-embedding-3-small", LiteLLM(), kind="embedding")])
    embed = gateway.embedder("vectors")
    embed(["one text", "another"])                 # (2, d) float32
    dspy.Embeddings(corpus=texts, embedder=embed)   # wherever DSPy takes a dspy.Embedder

`dspy.Embedder("openai/…")` would be paid by nobody's budget, and is refused inside a scope (`registry/wall.py`). One
over a function of your own is let through: what it does is not our affair. `dspy.Embeddings` searches in a thread of
its own that serves all callers together: what it asks there, the configured scope pays (`escalade.configure`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import dspy
import numpy as np

from escalade.agents import _spans
from escalade.agents._allowed import check_allowed
from escalade.agents._asking import Asked, asked_of, booked, within
from escalade.agents._gateways import find_gateway
from escalade.agents._kept import KeptVectors
from escalade.agents._places import Nowhere, aplaced, count, placed
from escalade.agents._route import Route, timed_out
from escalade.agents.cache._vectors import Vectors
from escalade.errors import BadInput, EscaladeError, NoScope
from escalade.registry.dspy_errors import for_dspy
from escalade.registry.guard import aadmit, admit
from escalade.scopes import Scope, current

if TYPE_CHECKING:
    from escalade.agents.gateway import Gateway
    from escalade.agents.models import Model
    from escalade.agents.transports import Embedded

Array = np.ndarray[Any, Any]


class GovernedEmbedder(dspy.Embedder):
    """A `dspy.Embedder` on a model of the gateway; made by `Gateway.embedder`. Copies and pickles find the gateway.

    Each batch is one attempt, retried as the gateway's `retry` says, never sent to another model. What the gateway's
    cache has is not sent; equal texts are sent once. Raises the guard's refusals, `dspy.lm15` errors, BadInput.
    """

    def __init__(self, gateway: Gateway, name: str, batch_size: int = 200) -> None:
        model = gateway.model(name)
        if model.kind != "embedding" or not hasattr(model.transport, "embed"):
            raise BadInput(
                f"model {model.name!r} gives no vectors: expected kind='embedding' and a transport with `embed`"
            )
        if batch_size < 1:
            raise BadInput(f"batch_size: expected 1 or more, got {batch_size!r}")
        super().__init__(self._vectors, batch_size=batch_size, caching=True)
        self._gateway, self._name = gateway, model.name

    def __reduce__(self) -> tuple[Any, ...]:
        return _found, (self._gateway.name, self._name, self.batch_size)

    def __deepcopy__(self, memo: dict[int, Any]) -> GovernedEmbedder:
        return self

    def __call__(
        self,
        inputs: str | list[str],
        batch_size: int | None = None,
        caching: bool | None = None,  # noqa: FBT001 - DSPy's signature
        **kwargs: Any,
    ) -> Array:
        """(d,) float32 for a text, (n, d) for n texts, in their order."""
        job = _Job(self, inputs, batch_size, caching, kwargs)
        kept = job.kept
        if kept is not None:
            job.known.update(kept.find(job.texts))
            if not job.missing:
                job.admit_hit()
        for batch in job.batches():
            vectors, cost = self._known(job, batch)
            job.known.update(zip(batch, vectors, strict=True))
            if kept is not None:
                kept.keep(batch, vectors, cost)
        return job.result()

    async def acall(
        self,
        inputs: str | list[str],
        batch_size: int | None = None,
        caching: bool | None = None,  # noqa: FBT001 - DSPy's signature
        **kwargs: Any,
    ) -> Array:
        """As `__call__`, without blocking the event loop."""
        job = _Job(self, inputs, batch_size, caching, kwargs)
        kept = job.kept
        if kept is not None:
            job.known.update(await kept.afind(job.texts))
            if not job.missing:
                job.admit_hit()
        for batch in job.batches():
            vectors, cost = await self._aknown(job, batch)
            job.known.update(zip(batch, vectors, strict=True))
            if kept is not None:
                await kept.akeep(batch, vectors, cost)
        return job.result()

    def _vectors(self, texts: list[str]) -> Array:
        return self(texts)

    def _known(self, job: _Job, texts: list[str]) -> tuple[Array, int | None]:
        """The vectors that a durable run has already, else those of the model."""
        known = job.journaled(texts)
        if known is not None and known.found is not None:
            job.admit_hit("journal")
            return known.found, 0
        vectors, cost = self._batch(job, texts, known)
        if known is not None:
            known.saved()
        return vectors, cost

    async def _aknown(self, job: _Job, texts: list[str]) -> tuple[Array, int | None]:
        known = job.journaled(texts)
        if known is not None and known.found is not None:
            job.admit_hit("journal")
            return known.found, 0
        vectors, cost = await self._abatch(job, texts, known)
        if known is not None:
            await known.asaved()
        return vectors, cost

    def _batch(self, job: _Job, texts: list[str], known: KeptVectors | None) -> tuple[Array, int | None]:
        route = Route((job.model,), self._gateway.retry, job.scope)
        for model in route:
            try:
                asked = job.asked(texts, route)
                with (
                    placed(asked) as place,
                    admit(model.resource, **_terms(asked, place)) as use,
                    booked(use, asked, place),
                ):
                    answer = within(model, job.scope, partial(_transport(model).embed, model.id, texts))
                    return _finished(asked, use, place, answer, len(texts), known)
            except BaseException as error:  # noqa: BLE001 - `failed` raises what no other attempt can help
                wait = route.failed(error)
            time.sleep(wait)
        raise AssertionError("a route ends by raising")

    async def _abatch(self, job: _Job, texts: list[str], known: KeptVectors | None) -> tuple[Array, int | None]:
        route = Route((job.model,), self._gateway.retry, job.scope)
        for model in route:
            try:
                asked = job.asked(texts, route)
                with await aplaced(asked) as place:
                    async with await aadmit(model.resource, **_terms(asked, place)) as use:
                        with booked(use, asked, place):
                            answer = await _in_time(model, job.scope, texts)
                            return _finished(asked, use, place, answer, len(texts), known)
            except BaseException as error:  # noqa: BLE001 - `failed` raises what no other attempt can help
                wait = route.failed(error)
            await asyncio.sleep(wait)
        raise AssertionError("a route ends by raising")


class _Job:
    """One call: its texts, and the vectors that are known by now."""

    def __init__(self, embedder: GovernedEmbedder, inputs: Any, size: int | None, caching: Any, kwargs: Any) -> None:
        gateway = embedder._gateway
        scope = current()
        if scope is None:
            raise NoScope(f"calling model {embedder._name!r}")
        self.single = isinstance(inputs, str)
        self.texts: list[str] = [inputs] if self.single else list(inputs)
        if kwargs or not all(isinstance(text, str) for text in self.texts):
            raise BadInput(f"an embedder takes texts and no settings, got {sorted(kwargs) or 'something else'}")
        self.gateway, self.scope, self.model = gateway, scope, gateway.model(embedder._name)
        self.size = size or embedder.batch_size
        cache = gateway.cache if (embedder.caching if caching is None else caching) else None
        self.kept = None if cache is None or not scope.principals else Vectors(cache, gateway.name, self.model, scope)
        self.known: dict[str, Array] = {}

    @property
    def missing(self) -> list[str]:
        return [text for text in dict.fromkeys(self.texts) if text not in self.known]

    def batches(self) -> Iterable[list[str]]:
        texts = self.missing
        return [texts[at : at + self.size] for at in range(0, len(texts), self.size)]

    def asked(self, texts: list[str], route: Route) -> Asked:
        from dspy.lm15 import Config, Message, Request, TextPart

        parts = [TextPart(text) for text in texts]
        request = Request(self.model.id, (Message.user(parts),), config=Config(max_tokens=1))
        return asked_of(request, self.model, self.scope, route, self.gateway.regions, None)

    def journaled(self, texts: list[str]) -> KeptVectors | None:
        """These texts, as the journal of a durable run knows them; None outside of one."""
        journal = self.scope.journal
        return None if journal is None else KeptVectors(self.gateway.name, self.model.name, journal, texts)

    def admit_hit(self, source: str = "cache") -> None:
        """All is there: the guard is asked all the same, and records it."""
        if not self.texts:
            return
        check = partial(check_allowed, self.model, self.scope, self.gateway.regions)
        try:
            with admit(self.model.resource, ceiling=0, scope=self.scope, check=check, shortcut=lambda *_: source):
                pass
        except EscaladeError as refusal:
            raise for_dspy(refusal) from None

    def result(self) -> Array:
        if self.single:
            return self.known[self.texts[0]].copy()
        return np.array([self.known[text] for text in self.texts], dtype=np.float32)


def _terms(asked: Asked, place: Any) -> dict[str, Any]:
    return {"ceiling": asked.ceiling, "scope": asked.scope, "check": partial(_check, asked, place)}


def _check(asked: Asked, place: Any) -> None:
    check_allowed(asked.model, asked.scope, asked.regions)
    if isinstance(place, Nowhere) and place.refusal is not None:
        raise place.refusal


def _finished(
    asked: Asked, use: Any, place: Any, answer: Embedded, texts: int, known: KeptVectors | None
) -> tuple[Array, int | None]:
    """The vectors and what they cost, settled by the provider's count."""
    bill = asked.model.bill(answer.usage)
    use.cost = use.held if bill is None else bill
    place.answered()
    count(place, answer.usage)
    _spans.embedded(use, asked.model, answer.usage)
    vectors = np.asarray(answer.vectors, dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != texts or not np.isfinite(vectors).all():
        from dspy import lm15

        raise lm15.ProviderError(f"model {asked.model.name!r} gave {vectors.shape} for {texts} texts, or no numbers")
    if known is not None:
        known.note(vectors, use.cost)
    return vectors, bill


async def _in_time(model: Model, scope: Scope, texts: list[str]) -> Embedded:
    try:
        async with asyncio.timeout(min(model.timeout, scope.time_left())) as limit:
            answer: Embedded = await _transport(model).aembed(model.id, texts)
            return answer
    except TimeoutError as error:
        if limit.expired():
            raise timed_out(scope, model, error) from error
        raise


def _transport(model: Model) -> Any:
    return model.transport


def _found(gateway: str, name: str, batch_size: int) -> GovernedEmbedder:
    return GovernedEmbedder(find_gateway(gateway), name, batch_size)
