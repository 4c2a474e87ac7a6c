"""Spans of models, climbs and pipelines: one trace for each run, whatever threads and tasks it works in."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import dspy
import pytest
from dspy import lm15
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import escalade
from escalade import (
    Chain,
    Escalate,
    FanOut,
    Gateway,
    Map,
    Model,
    Price,
    Principal,
    Registry,
    Roles,
    Threshold,
    World,
    telemetry,
    tool,
)
from escalade.agents._route import Retry
from escalade.agents.tool_agent import ToolAgent
from escalade.agents.transports import Embedded
from tests.agents.calling import Calling
from tests.agents.scripted import Scripted, rate_limited

SECRET = "canary@example.com"
PRICE = Price.of("1", "10")
SURE = "[[ ## answer ## ]]\n42\n\n[[ ## confidence ## ]]\n0.95\n\n[[ ## completed ## ]]"
UNSURE = "[[ ## answer ## ]]\n41\n\n[[ ## confidence ## ]]\n0.25\n\n[[ ## completed ## ]]"


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """Tracing is on, into memory."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry.enable(provider)
    yield exporter
    telemetry.disable()


def models(small: Any = None, big: Any = None, **options: Any) -> Gateway:
    """Two models of a provider, the small one with the big one as fallback."""
    return Gateway(
        [
            Model("small", "openai/tiny-1", small or Scripted(), price=PRICE, fallbacks="big"),
            Model("big", "gemini/huge-1", big or Scripted(), price=PRICE),
        ],
        name="telemetry",
        retry=Retry(retries=1, base=0.0),
        **options,
    )


def named(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    """The finished spans of a name, in the order in which they began."""
    return sorted((s for s in exporter.get_finished_spans() if s.name == name), key=lambda s: s.start_time or 0)


def one(exporter: InMemorySpanExporter, name: str) -> ReadableSpan:
    (span,) = named(exporter, name)
    return span


def child(span: ReadableSpan, parent: ReadableSpan) -> bool:
    return span.parent is not None and span.parent.span_id == parent.context.span_id


def said(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_an_attempt_on_a_model(spans: InMemorySpanExporter) -> None:
    """One client span per attempt with the conventions' attributes, what it cost, and nothing of what was said."""
    with escalade.scope(budget="1.00") as run:
        dspy.Predict("question -> answer")(question=SECRET, lm=models().lm("small", temperature=0.5))
        spent = run.spent
    chat = one(spans, "chat tiny-1")
    assert chat.kind is SpanKind.CLIENT
    attributes = said(chat)
    assert attributes.pop("escalade.call.id")
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "tiny-1",
        "gen_ai.request.max_tokens": 1024,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.response.model": "openai/tiny-1",
        "gen_ai.response.id": "1",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 20,
        "escalade.model": "small",
        "escalade.attempt": 1,
        "escalade.run.id": run.run_id,
        "escalade.outcome": "ok",
        "escalade.cost.nanos": int(spent),
        "escalade.cost.known": True,
    }
    assert child(chat, one(spans, "escalade.run"))
    assert SECRET not in "".join(span.to_json() for span in spans.get_finished_spans())


def test_retries_and_fallbacks(spans: InMemorySpanExporter) -> None:
    """Each attempt is a span of its own: the failed ones with their class and cost, numbered over the models."""
    gateway = models(Scripted([rate_limited(0.0), lm15.TimeoutError(SECRET)]))
    with escalade.scope(budget="1.00"):
        gateway.lm("small")("hi")
    first, second = named(spans, "chat tiny-1")
    third = one(spans, "chat huge-1")
    assert [said(s)["escalade.attempt"] for s in (first, second, third)] == [1, 2, 3]
    assert [said(s).get("error.type") for s in (first, second, third)] == ["RateLimitError", "TimeoutError", None]
    assert [s.status.status_code for s in (first, second, third)] == [StatusCode.ERROR] * 2 + [StatusCode.UNSET]
    assert said(first)["escalade.cost.nanos"] == 0
    assert said(second)["escalade.cost.nanos"] > said(third)["escalade.cost.nanos"] > 0, "nobody knows: the reservation"
    assert said(third)["gen_ai.provider.name"] == "gcp.gemini"
    assert all(child(s, one(spans, "escalade.run")) for s in (first, second, third))
    assert SECRET not in "".join(span.to_json() for span in spans.get_finished_spans())


def test_a_refused_model(spans: InMemorySpanExporter) -> None:
    """What the guard refuses has a span, too, with the class of the refusal."""
    with pytest.raises(escalade.BudgetExceeded), escalade.scope(budget="0.000001"):
        models().lm("small")("hi")
    assert said(one(spans, "chat tiny-1"))["error.type"] == "BudgetExceeded"
    assert said(one(spans, "chat tiny-1"))["escalade.outcome"] == "refused"


@pytest.mark.parametrize("ends", [True, False])
async def test_a_stream(spans: InMemorySpanExporter, ends: bool) -> None:
    """Time to the first chunk, usage and finish reason, where it comes to its end; while it runs it is not the current
    span of who reads it; left early, its span ends all the same.
    """
    gateway = models()
    async with escalade.scope():
        outside = trace.get_current_span()
        engine = gateway.lm("small")._async_engine_spec
        request = lm15.Request(model="escalade/small", messages=(lm15.Message.user("hi"),))
        stream = engine.stream(request)
        async for event in stream:
            assert trace.get_current_span() is outside
            if event.type == "delta" and not ends:
                break
        await stream.aclose()
        assert trace.get_current_span() is outside
    chat = said(one(spans, "chat tiny-1"))
    assert chat["gen_ai.request.stream"] is True
    assert 0 < chat["gen_ai.response.time_to_first_chunk"] < 5
    assert chat.get("gen_ai.usage.output_tokens") == (20 if ends else None)
    assert chat.get("gen_ai.response.finish_reasons") == (("stop",) if ends else None)
    assert chat["escalade.outcome"] == ("ok" if ends else "cancelled")


def climber(gateway: Gateway) -> Escalate:
    return Escalate(
        "question -> answer",
        rungs=[("Predict", "small"), ("Predict", "big")],
        policy=Threshold(0.8),
        gateway=gateway,
    )


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_a_climb(spans: InMemorySpanExporter, mode: str) -> None:
    """A span per climb, in it one per rung with its confidence, its cost and why it was tried, in it the attempts."""
    program = climber(models(Scripted([UNSURE]), Scripted([SURE])))
    async with escalade.scope(budget="1.00") as run:
        answer = await program.acall(question=SECRET) if mode == "async" else program(question=SECRET)
        spent = int(run.spent)
    agent, low, high = (
        one(spans, n) for n in ("invoke_agent Escalate", "escalade.rung Predict/small", "escalade.rung Predict/big")
    )
    assert child(agent, one(spans, "escalade.run"))
    assert child(low, agent)
    assert child(high, agent)
    assert child(one(spans, "chat tiny-1"), low)
    assert child(one(spans, "chat huge-1"), high)
    assert [said(s)["escalade.confidence"] for s in (low, high, agent)] == [0.25, 0.95, answer.confidence]
    assert said(low)["escalade.cost.nanos"] + said(high)["escalade.cost.nanos"] == spent
    assert said(agent)["escalade.cost.nanos"] == spent
    assert "confidence 0.25 < 0.80" in said(high)["escalade.why"]
    assert said(agent)["escalade.rung"] == "Predict/big"
    assert said(agent)["escalade.rungs"] == ("Predict/small", "Predict/big")
    assert said(high)["escalade.status"] == "ok"
    assert SECRET not in "".join(span.to_json() for span in spans.get_finished_spans())


def test_a_rung_that_fails(spans: InMemorySpanExporter) -> None:
    """The span of a rung has the class of its error although the climb goes on and answers."""
    broken = Scripted(["no such format"] * 9)
    with escalade.scope(budget="1.00"):
        climber(models(broken, Scripted([SURE])))(question="q")
    low = one(spans, "escalade.rung Predict/small")
    assert said(low)["escalade.status"] == "wrong_format"
    assert said(low)["error.type"] == "AdapterParseError"
    assert "error.type" not in said(one(spans, "invoke_agent Escalate"))


def search(query: str = "") -> str:
    """Search."""
    return f"found {query}"


def pipeline(gateway: Gateway) -> Chain:
    """A chain of a fan-out, in which a climb and a tool stand side by side, and a map over blocking functions."""
    tools = Registry([tool(name="crm.search")(search)], name="telemetry")
    found = tools.resolve("crm.search")

    async def look(question: str) -> str:
        return str(await found.acall(query=question))

    def shout(word: str) -> str:
        time.sleep(0.01)
        return str(found(query=word))

    both = FanOut(climb=climber(gateway), look=look)
    return Chain(both=both, words=lambda look: {"words": look.split()}, shout=Map(shout, over="words"))


@pytest.mark.parametrize("mode", ["sync", "async", "stream"])
async def test_a_pipeline(spans: InMemorySpanExporter, mode: str) -> None:
    """A span for the pipeline and one per node, nested as they are, with paths; climbs, models and tools are in the
    node that used them, those of blocking nodes in threads as well.
    """
    flow = pipeline(models(Scripted([SURE])))
    async with escalade.scope(budget="1.00"):
        if mode == "sync":
            flow(question="what")
        elif mode == "async":
            await flow.acall(question="what")
        else:
            assert [type(e).__name__ async for e in flow.stream(question="what")][-1] == "RunFinished"
    workflow = one(spans, "invoke_workflow Chain(both, words, shout)")
    assert child(workflow, one(spans, "escalade.run"))
    node = {s.name.removeprefix("escalade.node "): s for s in spans.get_finished_spans() if "node" in s.name}
    for name, parent in {"both": workflow, "words": workflow, "shout": workflow, "climb": node["both"]}.items():
        assert child(node[name], parent), name
    assert child(one(spans, "invoke_agent Escalate"), node["climb"])
    assert child(one(spans, "chat tiny-1"), one(spans, "escalade.rung Predict/small"))
    looked, *shouted = named(spans, "execute_tool crm.search")
    assert child(looked, node["look"])
    assert said(looked)["escalade.node"] == "both/look"
    workers = named(spans, "escalade.node worker")
    assert sorted(said(w)["escalade.node"] for w in workers) == ["shout[0]", "shout[1]"]
    assert {s.parent.span_id for s in shouted if s.parent} == {w.context.span_id for w in workers}
    assert said(workflow)["escalade.cost.nanos"] == said(node["climb"])["escalade.cost.nanos"] > 0
    assert len({s.context.trace_id for s in spans.get_finished_spans()}) == 1


def test_a_pipeline_without_a_scope(spans: InMemorySpanExporter) -> None:
    """It is a trace of its own; a node that fails says with which class, and so does the pipeline."""

    def boom(question: str) -> str:
        raise ValueError(SECRET)

    with pytest.raises(ValueError):
        Chain(boom=boom)(question="x")
    workflow = one(spans, "invoke_workflow Chain(boom)")
    assert workflow.parent is None
    assert child(one(spans, "escalade.node boom"), workflow)
    assert {said(s)["error.type"] for s in spans.get_finished_spans()} == {"ValueError"}
    assert SECRET not in "".join(span.to_json() for span in spans.get_finished_spans())


def world() -> Gateway:
    """A simulated model that answers anything."""
    simulated = World(seed=1)
    return Gateway([Model("small", "world/small", escalade.Simulated(simulated), price=PRICE)], name="telemetry-world")


async def test_whatever_dspy_does_with_threads(spans: InMemorySpanExporter) -> None:
    """`Parallel`, `batch`, `Evaluate`, `asyncify`, `streamify` and `gather`: one run, one trace, one root, and each
    call in the climb that made it.
    """
    program, each = climber(models(Scripted([SURE] * 99))), [{"question": f"q{n}"} for n in range(4)]
    rows = [dspy.Example(**inputs, answer="42").with_inputs("question") for inputs in each]
    async with escalade.scope(budget="1.00"):
        dspy.Parallel(num_threads=3, disable_progress_bar=True)([(program, inputs) for inputs in each])
        program.batch(rows, num_threads=3, disable_progress_bar=True)
        dspy.Evaluate(devset=rows, metric=lambda *_: 1.0, num_threads=3, display_progress=False)(program)
        await dspy.asyncify(program)(question="q")
        await asyncio.gather(*(program.acall(**inputs) for inputs in each))
        async for _ in dspy.streamify(program)(question="q"):
            pass
        async for _ in program.stream(question="q"):
            pass
        await asyncio.to_thread(lambda: list(program.stream(question="q")))
    climbs, chats = named(spans, "invoke_agent Escalate"), named(spans, "chat tiny-1")
    assert len(climbs) == len(chats) == 4 * 4 + 4
    run = one(spans, "escalade.run")
    assert all(child(climb, run) for climb in climbs)
    assert len({s.context.trace_id for s in spans.get_finished_spans()}) == 1
    assert len({s.parent.span_id for s in chats if s.parent}) == len(chats)


def test_without_a_scope_of_ones_own(spans: InMemorySpanExporter) -> None:
    """Under the configured scope, which is no run, a climb is a trace of its own, and its attempts are in it."""
    program = climber(models(Scripted([UNSURE]), Scripted([SURE])))
    escalade.configure(budget="1.00")
    try:
        program(question="q")
    finally:
        escalade.scopes.set_default(None)
    assert one(spans, "invoke_agent Escalate").parent is None
    assert sorted(s.name for s in spans.get_finished_spans()) == [
        "chat huge-1",
        "chat tiny-1",
        "escalade.rung Predict/big",
        "escalade.rung Predict/small",
        "invoke_agent Escalate",
    ]
    assert len({s.context.trace_id for s in spans.get_finished_spans()}) == 1


@pytest.mark.slow
@pytest.mark.blocking(3000)  # 64 runs at once, none of which ever waits
async def test_tenants_never_mix(spans: InMemorySpanExporter) -> None:
    """1,000 runs of two tenants, interleaved on one loop and in threads: each is a trace of its own, all that it used
    is in it, and nothing else.
    """
    gateway = models(Scripted([SURE] * 2_000))
    tools = Registry([tool(name="crm.search")(search)], name="telemetry")
    program, found = climber(gateway), tools.resolve("crm.search")
    access = Roles({"all": ["*:*"]})

    async def run(number: int) -> None:
        who = Principal(f"u{number}", "acme" if number % 2 else "umbrella", frozenset({"all"}))
        async with escalade.scope(principal=who, access=access, run_id=f"{who.tenant}-{number}"):
            await asyncio.sleep(number % 7 / 1000)
            if number % 3:
                await program.acall(question=f"q{number}")
            else:
                await asyncio.to_thread(program, question=f"q{number}")
            await asyncio.sleep(number % 5 / 1000)
            await found.acall(query="x")

    limit = asyncio.Semaphore(64)

    async def bounded(number: int) -> None:
        async with limit:
            await run(number)

    await asyncio.gather(*(bounded(n) for n in range(1_000)))
    finished = spans.get_finished_spans()
    runs_of: dict[int, set[str]] = {}
    for span in finished:
        runs_of.setdefault(span.context.trace_id, set()).add(str(said(span)["escalade.run.id"]))
    assert len(runs_of) == 1_000
    assert all(len(runs) == 1 for runs in runs_of.values())
    assert len(finished) == 1_000 * 5


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_an_agent_with_tools(spans: InMemorySpanExporter, mode: str) -> None:
    """A span per agent with what it cost, and in it its models and tools, those too that it uses at once."""
    registry = Registry([tool(name="db.read", side_effects="read", cost="0.001")(search)], name="telemetry")
    both = [("db_read", {"query": "a"}), ("db_read", {"query": "b"})]
    model = Model("m", "sim/m", Calling([both, [("submit", {"answer": "42"})]]), price=PRICE, max_output=100)
    agent = ToolAgent(
        "question -> answer",
        tools=["db.read"],
        model="m",
        style="native",
        registry=registry,
        gateway=Gateway([model], name="telemetry-agent"),
    )
    with escalade.scope(budget="1.00") as run:
        asyncio.run(agent.acall(question="q")) if mode == "async" else agent(question="q")
        spent = int(run.spent)
    outer = one(spans, "invoke_agent ToolAgent")
    assert child(outer, one(spans, "escalade.run"))
    assert said(outer)["escalade.cost.nanos"] == spent
    used = named(spans, "chat m") + named(spans, "execute_tool db.read")
    assert len(used) == 4
    assert all(child(span, outer) for span in used)


def test_vectors(spans: InMemorySpanExporter) -> None:
    """They are no chat: another operation, tokens of the input, no settings of a generation."""

    class Vectors(Scripted):
        def embed(self, model: str, texts: list[str]) -> Embedded:
            return Embedded([[1.0]] * len(texts), lm15.Usage(input_tokens=7, output_tokens=0))

    model = Model("vectors", "openai/embed-1", Vectors(), price=PRICE, kind="embedding")
    with escalade.scope(budget="1.00"):
        Gateway([model], name="telemetry-vectors").embedder("vectors")(["a", "b"])
    span = said(one(spans, "embeddings embed-1"))
    assert span["gen_ai.operation.name"] == "embeddings"
    assert span["gen_ai.usage.input_tokens"] == 7
    assert "gen_ai.request.max_tokens" not in span
    assert model.meter.usage().tokens_by == {"input": 7}


class Counted(SpanProcessor):
    """How many spans are under way."""

    def __init__(self) -> None:
        self.open: Counter[str] = Counter()

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.open[span.name] += 1

    def on_end(self, span: ReadableSpan) -> None:
        self.open[span.name] -= 1


@pytest.mark.parametrize("after", [0.0, 0.005, 0.02, 0.05, 0.1])
async def test_nothing_stays_open(spans: InMemorySpanExporter, after: float) -> None:
    """Cancelled at whatever moment, in a node, a climb, an attempt, a stream or a blocking node, each span that began
    has ended, and the task is under no span of ours any more.
    """
    provider, counted = TracerProvider(), Counted()
    provider.add_span_processor(counted)
    telemetry.enable(provider)
    flow, outside = pipeline(models(Scripted([0.06] * 99))), trace.get_current_span()
    with contextlib.suppress(asyncio.CancelledError, TimeoutError):
        async with asyncio.timeout(after):
            async with escalade.scope(budget="1.00"):
                await flow.acall(question="what is it")
    assert trace.get_current_span() is outside
    async with asyncio.timeout(30):
        while +counted.open:  # noqa: ASYNC110 - a thread can't be cancelled, and ends by itself
            await asyncio.sleep(0.01)
