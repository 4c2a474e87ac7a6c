"""Vectors through the guard: priced, budgeted, kept by tenant; sync, async, in batches, over HTTP."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dspy
import numpy as np
import pytest
from dspy import lm15

from escalade.agents._route import Retry
from escalade.agents.cache import ResponseCache
from escalade.agents.gateway import Gateway
from escalade.agents.models import Model
from escalade.agents.transports import Embedded, LiteLLM
from escalade.errors import (
    BadInput,
    BudgetExceeded,
    DeadlineExceeded,
    ForeignModel,
    NoScope,
    PermissionDenied,
    UnknownPrice,
)
from escalade.registry.access import Roles
from escalade.registry.journal import Journal
from escalade.registry.opening import configure, scope
from escalade.registry.prices import Price
from escalade.scopes import Principal
from tests.agents.cache.worlds import ANA, BOB, EVE, MODES, scope_of
from tests.agents.scripted import Scripted

PRICE = Price.of("0.02", "0")


class Counting(Scripted):
    """Vectors that tell their text by its length and first letter; one token per text. Fails as it is told."""

    def __init__(self, *script: Any, counts: bool = True) -> None:
        super().__init__()
        self.batches: list[list[str]] = []
        self._failures, self._counts = list(script), counts

    def embed(self, model: str, texts: list[str]) -> Embedded:
        self.batches.append(list(texts))
        if self._failures:
            item = self._failures.pop(0)
            if isinstance(item, BaseException):
                raise item
            return item
        usage = lm15.Usage(input_tokens=len(texts), output_tokens=0) if self._counts else None
        return Embedded([[len(text), ord(text[0]) if text else 0, 1.0] for text in texts], usage)

    async def aembed(self, model: str, texts: list[str]) -> Embedded:
        await asyncio.sleep(0)
        return self.embed(model, texts)


def embedder(transport: Any, *, cache: Any = None, price: Any = PRICE, **options: Any) -> Any:
    """An embedder on a gateway with one model."""
    model = Model("vectors", "x/vectors", transport, price=price, kind="embedding", **options)
    return Gateway([model], cache=cache, retry=Retry(2, base=0.0), name="vectors").embedder("vectors")


def vectors(embed: Any, inputs: Any, mode: str, **options: Any) -> Any:
    """Sync or async."""
    return embed(inputs, **options) if mode == "sync" else asyncio.run(embed.acall(inputs, **options))


@pytest.mark.parametrize("mode", MODES)
def test_shapes_and_order(mode: str) -> None:
    """A text is (d,), n texts are (n, d) in their order, float32; equal texts are sent once, in batches."""
    embed = embedder(Counting())
    with scope(budget="1.00"):
        assert vectors(embed, "abc", mode).tolist() == [3, 97, 1]
        many = vectors(embed, ["b", "aa", "b", ""], mode, batch_size=2)
    assert many.tolist() == [[1, 98, 1], [2, 97, 1], [1, 98, 1], [0, 0, 1]]
    assert (many.dtype, many.shape) == (np.float32, (4, 3))
    assert embed._gateway.model("vectors").transport.batches == [["abc"], ["b", "aa"], [""]]


@pytest.mark.parametrize("mode", MODES)
def test_costs_what_the_provider_counted(mode: str) -> None:
    """Each batch is one use: settled at list price, recorded; without a count, at its reservation."""
    price = Price.of("1000", "0")
    with scope(budget="1.00", recorder=(journal := Journal())) as run:
        vectors(embedder(Counting(), price=price), ["a", "b"], mode)
        assert run.spent == price.cost(2, 0)
        vectors(embedder(Counting(counts=False), price=price), ["a", "b"], mode)
        assert run.spent > price.cost(20, 0)
        assert run.purse.held == 0
    assert [(entry.resource, entry.outcome) for entry in journal.entries()] == [("vectors", "ok")] * 2


class Slow(Counting):
    """Takes 5 s."""

    def embed(self, model: str, texts: list[str]) -> Embedded:
        time.sleep(5.0)
        return super().embed(model, texts)

    async def aembed(self, model: str, texts: list[str]) -> Embedded:
        await asyncio.sleep(5.0)
        return super().embed(model, texts)


@pytest.mark.parametrize("mode", MODES)
def test_ends_with_the_deadline(mode: str) -> None:
    """The scope's deadline ends a slow provider, in threads too, and nothing stays held."""
    began = time.perf_counter()
    with pytest.raises(DeadlineExceeded), scope(budget="1.00", deadline=0.2) as run:
        try:
            vectors(embedder(Slow()), ["a"], mode)
        finally:
            assert run.purse.held == 0
    assert time.perf_counter() - began < 4.5


@pytest.mark.parametrize("mode", MODES)
def test_refusals(mode: str) -> None:
    """No scope, no budget, no permission, no known price: no vectors."""
    transport = Counting()
    with pytest.raises(NoScope):
        vectors(embedder(transport), "a", mode)
    with pytest.raises(BudgetExceeded), scope(budget="0.000000001"):
        vectors(embedder(transport), "a" * 1000, mode)
    with pytest.raises(UnknownPrice), scope(budget="1.00"):
        vectors(embedder(transport, price=None), "a", mode)
    guest = Principal("gil", "acme", "guest")
    with pytest.raises(PermissionDenied), scope(principal=guest, access=Roles({"guest": ["tool.*:call"]})):
        vectors(embedder(transport), "a", mode)
    assert transport.batches == []


@pytest.mark.parametrize("mode", MODES)
def test_retried_as_the_gateway_says(mode: str) -> None:
    """A provider that fails for a moment is asked again; one that refuses the key is not."""
    transport = Counting(lm15.ServerError("boom"), lm15.RateLimitError("slow down"))
    with scope(budget="1.00") as run:
        assert vectors(embedder(transport), "a", mode).tolist() == [1, 97, 1]
        assert run.spent == PRICE.cost(1, 0)
        with pytest.raises(lm15.LM15Error):
            vectors(embedder(Counting(lm15.AuthError("no"))), "a", mode)


@pytest.mark.parametrize("wrong", [[[1.0]], [[1.0], [float("nan")]], [[1.0], [1.0], [2.0]], []])
def test_nonsense_is_no_vectors(wrong: Any) -> None:
    """Too few, too many, not numbers: an error of the provider, and nothing is kept."""
    cache = ResponseCache()
    with scope(budget="1.00"), pytest.raises(lm15.LM15Error):
        embedder(Counting(*[Embedded(wrong)] * 3), cache=cache)(["a", "b"])
    assert cache.stats().entries == 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("disk", [False, True])
def test_kept_by_tenant(tmp_path: Path, mode: str, disk: bool) -> None:
    """What is there is not sent, and costs nothing; only the rest is; another tenant finds nothing."""
    cache = ResponseCache(tmp_path / "c", memory=0) if disk else ResponseCache()
    embed = embedder(transport := Counting(), cache=cache)
    with scope_of(ANA, budget="1.00"):
        first = vectors(embed, ["a", "b"], mode)
    with scope_of(BOB, budget="1.00", recorder=(journal := Journal())) as run:
        assert (vectors(embed, ["a", "b"], mode) == first).all()
        assert run.spent == 0
        vectors(embed, ["b", "c"], mode)
        vectors(embed, "b", mode, caching=False)
    assert [entry.source for entry in journal.entries()] == ["cache", "", ""]
    with scope_of(EVE, budget="1.00"):
        vectors(embed, "a", mode)
    assert transport.batches == [["a", "b"], ["c"], ["b"], ["a"]]
    evil, acme = sorted(cache.stats().usage, key=lambda row: row.tenant, reverse=True)
    assert (acme.hits, acme.misses, acme.saved) == ({"store" if disk else "memory": 3}, 3, 3 * PRICE.cost(1, 0))
    assert (evil.tenant, evil.misses) == ("evil", 1)
    cache.evict(tenant="acme")
    with scope_of(ANA, budget="1.00"):
        vectors(embed, "a", mode)
    assert len(transport.batches) == 5


def test_who_may_not_use_the_model_has_no_hit() -> None:
    """All is there: the guard is asked all the same."""
    embed = embedder(Counting(), cache=ResponseCache())
    access = Roles({"user": ["model.*:call"], "guest": ["tool.*:call"]})
    with scope(principal=Principal("ana", "acme", "user"), access=access):
        embed("a")
    with scope(principal=Principal("gil", "acme", "guest"), access=access), pytest.raises(PermissionDenied):
        embed("a")


def test_model_of_another_kind() -> None:
    """Chat models give no vectors, models of vectors no answers; both say what to use instead."""
    gateway = Gateway([Model("chat", "x/c", Counting()), Model("vectors", "x/v", Counting(), kind="embedding")])
    with pytest.raises(BadInput, match="kind='embedding'"):
        gateway.embedder("chat")
    with pytest.raises(BadInput, match="gateway.embedder"):
        gateway.lm("vectors")
    with pytest.raises(BadInput, match="fallbacks"):
        Model("v", "x/v", Counting(), kind="embedding", fallbacks="chat")


def test_copies_find_the_gateway() -> None:
    """A program with an embedder can be copied and pickled: budgets and caches are not split."""
    embed = embedder(Counting())
    again = pickle.loads(pickle.dumps(embed))
    assert again._gateway is embed._gateway
    assert copy.deepcopy({"e": embed})["e"] is embed


def test_where_dspy_takes_an_embedder() -> None:
    """`dspy.Embeddings` asks it in a thread of its own, which serves all callers at once: the configured scope pays
    there, and without one it is refused. A foreign embedder is refused inside a scope.
    """
    embed = embedder(Counting())
    with scope(budget="1.00"):
        search = dspy.Embeddings(corpus=["a", "bbbbbbbb", "cccccccccccccccc"], embedder=embed, k=1)
        with pytest.raises(NoScope):
            search("bbbbbbb")
    configure(budget="1.00")
    search = dspy.Embeddings(corpus=["a", "bbbbbbbb", "cccccccccccccccc"], embedder=embed, k=1)
    assert search("bbbbbbb").passages == ["bbbbbbbb"]
    with scope(budget="1.00"):
        with pytest.raises(ForeignModel):
            dspy.Embedder("openai/text-embedding-3-small")("a")


class _Server(BaseHTTPRequestHandler):
    """OpenAI's form of embeddings, in the wrong order, as providers may send them."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append(self.path)  # type: ignore[attr-defined]
        code = self.server.codes.pop(0) if self.server.codes else 200  # type: ignore[attr-defined]
        rows = [{"object": "embedding", "index": i, "embedding": [i, 0.5]} for i, _ in enumerate(asked["input"])]
        usage = {"prompt_tokens": 7, "total_tokens": 7}
        told = {"object": "list", "data": rows[::-1], "model": "m", "usage": usage} if code == 200 else {"error": {}}
        body = json.dumps(told).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@contextmanager
def served(*codes: int) -> Iterator[Any]:
    """A server on loopback, which answers with these codes first."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    server.seen, server.codes = [], list(codes)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("mode", MODES)
def test_over_http(mode: str) -> None:
    """By litellm: one request per attempt, retried by us alone, in the order of the texts, at the counted price."""
    with served(503) as server, scope(budget="1.00") as run:
        base = f"http://127.0.0.1:{server.server_port}/v1"
        model = Model(
            "vectors",
            "openai/text-embedding-3-small",
            LiteLLM("none", api_base=base, timeout=10.0),
            price=PRICE,
            kind="embedding",
        )
        embed = Gateway([model], retry=Retry(1, base=0.0), name="http").embedder("vectors")
        assert vectors(embed, ["a", "b", "c"], mode).tolist() == [[0, 0.5], [1, 0.5], [2, 0.5]]
        assert run.spent == PRICE.cost(7, 0)
        assert server.seen == ["/v1/embeddings"] * 2
