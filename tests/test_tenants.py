"""Two tenants that ask the same at the same time: what one is told, kept, logged and billed is never the other's.

Models and tools answer with a word of the tenant on whose behalf they are asked, so that whatever crosses is seen. In
use at once: the cache of responses with its single flight, the cache of similar questions, a cache of a tool, sessions
of people of one name, lines of JSON, spans, the audit log, events, usage, budgets.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.lm15 import Message, Request, Response, TextPart, Usage
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import escalade
from escalade import (
    AuditLog,
    Budget,
    Gateway,
    Ledger,
    Model,
    Price,
    Principal,
    Registry,
    Roles,
    Session,
    json_logs,
    telemetry,
    tool,
    usage_metrics,
)
from escalade.agents.cache import ResponseCache
from escalade.agents.cache.similar import SimilarityCache
from escalade.events import new_run_id
from escalade.registry.audit.reading import rows
from escalade.registry.privacy.names import alias
from escalade.registry.stores.disk_cache import DiskCache
from escalade.scopes import current

pytestmark = pytest.mark.slow

CALLS, TOGETHER = 10_000, 200
WORDS = {"acme": "aardvark", "umbrella": "buzzard"}
OTHER = {"acme": "buzzard", "umbrella": "aardvark"}
PLACES = [
    first + last
    for first in ("Ash", "Bram", "Elm", "Fern", "Hazel", "Kings", "Lang", "Mill", "Nor", "Oak", "Pen", "Red", "Thorn")
    for last in ("bury", "combe", "dale", "field", "ford", "ham", "ley", "minster", "stead", "ton", "wick", "worth")
]
PRICE = Price.of("1", "2")
TOKENS = (100, 20)
COST = int(PRICE.cost(*TOKENS))


def tenant_here() -> str:
    """On whose behalf this is done."""
    scope = current()
    assert scope is not None
    return scope.principal.tenant


class Partial:
    """A transport that answers with the word of the tenant who asks. `told`: who was told the other one's."""

    name = "partial"
    supports_function_calling = supports_response_schema = True
    supports_reasoning = False
    supported_params = frozenset({"temperature", "max_tokens"})

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.told: list[str] = []

    async def acomplete(self, request: Request) -> Response:
        tenant = tenant_here()
        self.calls[tenant] += 1
        if OTHER[tenant] in repr(request):
            self.told.append(tenant)
        await asyncio.sleep(0.002)  # or nobody could join
        text = f"[[ ## answer ## ]]\n{WORDS[tenant]}\n\n[[ ## completed ## ]]"
        usage = Usage(input_tokens=TOKENS[0], output_tokens=TOKENS[1], total_tokens=sum(TOKENS))
        message = Message.assistant([TextPart(text)])
        return Response(id=None, model=request.model, message=message, finish_reason="stop", usage=usage)

    def complete(self, request: Request) -> Response:
        return asyncio.run(self.acomplete(request))


class House:
    """All that both tenants share."""

    def __init__(self, folder: Path) -> None:
        self.transport = Partial()
        self.cached: Counter[str] = Counter()
        similar = SimilarityCache(threshold=0.7)
        # By itself a disk that is busy for 0.1 s is left alone for a second, and what it did not take is asked again.
        self.cache = ResponseCache(store=DiskCache(folder / "answers", patience=10.0), similar=similar)
        self.gateway = Gateway(
            [Model("small", "sim/small", self.transport, price=PRICE)], name="tenants", cache=self.cache
        )
        self.lm = self.gateway.lm("small", temperature=0.0)
        self.registry = Registry([self._tool()], name="tenants")
        self.lookup = self.registry.get_tool("kb.lookup")
        self.ledger = Ledger([Budget(f"tenant:{name}", "1000", period="month") for name in WORDS])
        self.roles = Roles({"user": ["model.*:call", "kb.*:call"]})
        self.ask = dspy.Predict("question -> answer")
        self.chat = Session(dspy.Predict("question, history: dspy.History -> answer"), id="one")
        self.runs: dict[str, str] = {}
        self.heard: defaultdict[str, list[Any]] = defaultdict(list)
        self.answers: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def _tool(self) -> Any:
        @tool(name="kb.lookup", side_effects="read", cache=3_600, cost="0.001")
        async def lookup(topic: str) -> str:
            """What is known of it."""
            self.cached[tenant_here()] += 1
            await asyncio.sleep(0.002)
            return WORDS[tenant_here()]

        return lookup

    async def call(self, tenant: str, number: int, log: AuditLog) -> None:
        """One call of this tenant, as any of its kinds, in a scope of its own."""
        who = Principal("ana", tenant, frozenset({"user"}))
        scope = escalade.scope(
            principal=who, access=self.roles, ledger=self.ledger, recorder=log, listen=self.heard[tenant].append
        )
        again, at = divmod(number // 4, len(PLACES))
        asked = "Please, what is the capital of {}?" if again % 8 == 1 else "What is the capital of {}?"
        async with scope as run:
            self.runs[run.run_id] = tenant
            self.answers[tenant][await self._said(number, PLACES[at], asked)] += 1

    async def _said(self, number: int, place: str, asked: str) -> str:
        if number % 4 == 3:
            return str(await self.lookup.acall(topic=place))
        if number % 40 == 0:
            return str((await self.chat.asay(question=f"What is the mayor of {place} called?")).answer)
        if number % 4 == 2:
            return str((await self.ask.acall(question=asked.format(place))).answer)
        (text,) = await self.lm.acall(asked.format(place))  # a fifth of what it takes with an adapter
        return str(text.splitlines()[1])


class Watch:
    """What leaves the process while it is entered: lines of JSON with previews, spans, the audit log."""

    def __init__(self, folder: Path) -> None:
        self.stream, self.exporter, self.path = io.StringIO(), InMemorySpanExporter(), folder / "audit.sqlite"

    def __enter__(self) -> AuditLog:
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        telemetry.enable(provider)
        self._handler = json_logs(self.stream, previews=True)
        self._log = AuditLog(self.path, synchronous="batch")
        return self._log.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._log.__exit__(*error)
        self._handler.close()
        telemetry.disable()

    @property
    def lines(self) -> list[str]:
        """Of JSON."""
        return self.stream.getvalue().splitlines()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tenants")


@pytest.fixture(scope="module")
def watch(folder: Path) -> Watch:
    return Watch(folder)


@pytest.fixture(scope="module")
def house(folder: Path, watch: Watch) -> House:
    """After the 10,000 calls, which alternate between the tenants."""
    built = House(folder)

    async def calls(log: AuditLog) -> None:
        for begin in range(0, CALLS // 2, TOGETHER // 2):
            numbers = range(begin, begin + TOGETHER // 2)
            await asyncio.gather(*(built.call(tenant, number, log) for number in numbers for tenant in WORDS))

    with watch as log, dspy.context(lm=built.lm, adapter=dspy.ChatAdapter()):
        asyncio.run(calls(log))
    return built


def test_answers(house: House) -> None:
    """All 10,000 answers have the word of the tenant who asked, and no model was told the other one's."""
    assert house.answers == {tenant: {word: CALLS // 2} for tenant, word in WORDS.items()}
    assert not house.transport.told


def test_everything_was_in_use(house: House) -> None:
    """Answers came from each of the places where one could cross: memory, an equal call, a similar question, a tool's
    cache; and sessions told models what was said before.
    """
    hits = {row.tenant: row.hits for row in house.cache.stats().usage}
    assert all(hits[tenant][level] > 0 for tenant in WORDS for level in ("memory", "joined", "similar"))
    (row,) = house.registry.usage()
    assert row.calls + row.answered["cache"] == CALLS // 4
    assert row.calls == house.cached.total() == len(WORDS) * len(PLACES)
    for tenant, word in WORDS.items():
        with escalade.scope(principal=Principal("ana", tenant, frozenset({"user"})), access=house.roles):
            assert word in str(house.chat.history())
            assert OTHER[tenant] not in str(house.chat.history())


def test_money(house: House) -> None:
    """Each tenant has paid for the calls that were made for him, to the nano-dollar, and nothing is held."""
    for tenant in WORDS:
        account = house.ledger.account(f"tenant:{tenant}")
        made = house.transport.calls[tenant] * COST + house.cached[tenant] * 1_000_000
        assert (account.settled, account.held) == (made, 0)
        (row,) = (row for row in house.cache.stats().usage if row.tenant == tenant)
        assert row.misses == house.transport.calls[tenant]


def test_events(house: House) -> None:
    """A listener hears of his tenant's runs only, and nothing of the other's word."""
    for tenant, heard in house.heard.items():
        assert len(heard) >= CALLS // 2
        assert {house.runs[event.run_id] for event in heard} == {tenant}
        assert not any(OTHER[tenant] in repr(event) for event in heard)


def test_lines(house: House, watch: Watch) -> None:
    """A line of a tenant's run has nothing of the other's word, one of no run has neither; previews do have his own."""
    own: Counter[str] = Counter()
    for text in watch.lines:
        run = json.loads(text).get("run")
        others = [OTHER[house.runs[run]]] if run is not None else list(WORDS.values())
        assert not any(word in text for word in others)
        if run is not None:
            own[house.runs[run]] += WORDS[house.runs[run]] in text
    assert all(own[tenant] >= house.transport.calls[tenant] for tenant in WORDS)


def test_traces(house: House, watch: Watch) -> None:
    """No trace has spans of two tenants, no span a word of the other's."""
    owners: defaultdict[int, set[str]] = defaultdict(set)
    for span in watch.exporter.get_finished_spans():
        assert span.attributes is not None
        assert span.context is not None
        tenant = house.runs[str(span.attributes["escalade.run.id"])]
        owners[span.context.trace_id].add(tenant)
        assert OTHER[tenant] not in span.to_json()
    assert len(owners) >= CALLS
    assert all(len(tenants) == 1 for tenants in owners.values())


def test_audit(house: House, watch: Watch) -> None:
    """Each row is of the tenant whose run it is; words are in none."""
    seen: Counter[str] = Counter()
    for row in rows(watch.path):
        text = row.body.decode()
        assert not any(word in text for word in WORDS.values())
        if row.event == "intent":
            body = row.fields()
            assert house.runs[body["run"]] == body["tenant"]
            seen[body["tenant"]] += 1
    assert all(seen[tenant] >= CALLS // 2 for tenant in WORDS)


def test_usage_names_nobody(house: House) -> None:
    """Metrics of usage count both tenants, and have the words of none."""
    text = usage_metrics(house.registry)
    assert "kb.lookup" in text
    assert not any(word in text for word in (*WORDS, *WORDS.values()))


def test_forgetting_one(house: House) -> None:
    """What is evicted of one tenant is asked again for him alone."""
    house.cache.evict(tenant="acme")
    before = house.transport.calls.copy()

    async def again(tenant: str) -> str:
        async with escalade.scope(principal=Principal("ana", tenant, frozenset({"user"})), access=house.roles):
            return str((await house.ask.acall(question=f"What is the capital of {PLACES[0]}?")).answer)

    async def both() -> list[str]:
        return [await again(tenant) for tenant in WORDS]

    with dspy.context(lm=house.lm, adapter=dspy.ChatAdapter()):
        assert asyncio.run(both()) == list(WORDS.values())
    assert house.transport.calls - before == {"acme": 1}


def test_an_id_is_nobodys_number() -> None:
    """Ids of runs stand in records, spans and lines as they are: none looks like a telephone or a card."""
    ids = [new_run_id() for _ in range(50_000)]
    assert [alias(id_) for id_ in ids] == ids
    assert len(set(ids)) == len(ids)
