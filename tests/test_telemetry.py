"""Spans: what they are called, what they carry, whose children they are, and that nothing is emitted unasked."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dspy
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

import escalade
from escalade import Journal, Principal, Registry, Roles, telemetry, tool
from escalade.registry.stores.sqlite_limits import SqliteLimiter

SECRET = "canary@example.com"


def search(query: str = "") -> str:
    """Search."""
    if query == "boom":
        raise ValueError(SECRET)
    return f"found {query}"


async def asearch(query: str = "") -> str:
    """Search."""
    await asyncio.sleep(0)
    return search(query)


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """Tracing is on, into memory."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry.enable(provider)
    yield exporter
    telemetry.disable()


def shop() -> Registry:
    made = [tool(name="crm.search", cost="0.002")(search), tool(name="crm.asearch", version="2.0.0")(asearch)]
    return Registry(made, name="shop")


def finished(exporter: InMemorySpanExporter) -> dict[str, list[ReadableSpan]]:
    found: dict[str, list[ReadableSpan]] = {}
    for span in exporter.get_finished_spans():
        found.setdefault(span.name, []).append(span)
    return found


def parents(run: ReadableSpan, children: list[ReadableSpan]) -> bool:
    """Are all of these children of the run, in one trace?"""
    return all(
        child.parent is not None
        and child.parent.span_id == run.context.span_id
        and child.context.trace_id == run.context.trace_id
        for child in children
    )


def test_a_call(spans: InMemorySpanExporter) -> None:
    """One span per call, named and described as the conventions have it, under the span of its run; money in our own
    namespace; no argument and no result anywhere.
    """
    registry = shop()
    with escalade.scope(budget="1.00") as run:
        registry.resolve("crm.search")(query=SECRET)
    found = finished(spans)
    (outer,), (call,) = found["escalade.run"], found["execute_tool crm.search"]
    assert parents(outer, [call])
    attributes = dict(call.attributes or {})
    assert attributes.pop("escalade.call.id")
    assert attributes == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "crm.search",
        "gen_ai.tool.type": "function",
        "escalade.tool.version": "1.0.0",
        "escalade.run.id": run.run_id,
        "escalade.outcome": "ok",
        "escalade.cost.nanos": 2_000_000,
        "escalade.cost.known": True,
    }
    assert call.status.status_code is StatusCode.UNSET
    assert dict(outer.attributes or {}) == {"escalade.run.id": run.run_id, "escalade.cost.nanos": 2_000_000}
    assert SECRET not in "".join(span.to_json() for span in spans.get_finished_spans())


def test_a_failure(spans: InMemorySpanExporter) -> None:
    """The class of the error, and nothing that it says."""
    with pytest.raises(ValueError), escalade.scope():
        shop().resolve("crm.search")(query="boom")
    found = finished(spans)
    for span in (found["escalade.run"][0], found["execute_tool crm.search"][0]):
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description is None
    call = found["execute_tool crm.search"][0]
    assert (call.attributes or {})["error.type"] == "ValueError"
    assert (call.attributes or {})["escalade.outcome"] == "failed"
    assert call.events == ()
    assert SECRET not in "".join(span.to_json() for span in spans.get_finished_spans())


def test_a_refusal(spans: InMemorySpanExporter) -> None:
    """What was asked for and refused is in the trace, too."""
    principal = Principal("ana", roles=frozenset({"guest"}))
    with escalade.scope(principal=principal, access=Roles({"guest": ["x:read"]})):
        with pytest.raises(escalade.PermissionDenied):
            shop().resolve("crm.search")(query="x")
    found = finished(spans)
    (call,) = found["execute_tool crm.search"]
    assert parents(found["escalade.run"][0], [call])
    assert (call.attributes or {})["error.type"] == "PermissionDenied"
    assert (call.attributes or {})["escalade.outcome"] == "refused"
    assert "ana" not in call.to_json()


def test_one_trace_across_the_threads_of_dspy(spans: InMemorySpanExporter) -> None:
    """`dspy.Parallel` loses OpenTelemetry's context; the calls in its threads are children of the run all the same."""
    registry = shop()
    with escalade.scope(), escalade.scope(budget="1.00"):
        called = registry.resolve("crm.search")
        dspy.Parallel(num_threads=3, disable_progress_bar=True)([(lambda **_: called(query="x"), {})] * 6)
    found = finished(spans)
    assert len(found["escalade.run"]) == 1, "nested scopes are no runs"
    assert len(found["execute_tool crm.search"]) == 6
    assert parents(found["escalade.run"][0], found["execute_tool crm.search"])


async def test_tasks(spans: InMemorySpanExporter) -> None:
    """Async calls side by side are children of the run, each of them once; a sync tool in a thread of ours as well."""
    registry = shop()
    async with escalade.scope():
        both = [registry.resolve("crm.asearch"), registry.resolve("crm.search")]
        await asyncio.gather(*(one.acall(query="x") for one in both * 3))
    found = finished(spans)
    calls = found["execute_tool crm.asearch"] + found["execute_tool crm.search"]
    assert len(calls) == 6
    assert parents(found["escalade.run"][0], calls)


def test_a_tool_within_a_tool(spans: InMemorySpanExporter) -> None:
    """A call from inside of a tool is a child of that tool's span; so are the tool's own spans."""
    registry = shop()

    def outer() -> str:
        """Use another tool."""
        with trace.get_tracer("mine", tracer_provider=provider).start_as_current_span("mine"):
            return str(registry.resolve("crm.search")(query="x"))

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    registry.register(tool(outer))
    with escalade.scope():
        registry.resolve("outer")()
    found = finished(spans)
    assert parents(found["execute_tool outer"][0], found["mine"])
    assert parents(found["mine"][0], found["execute_tool crm.search"])


def test_under_a_span_of_the_application(spans: InMemorySpanExporter) -> None:
    """A run is a child of the span that is current where it begins, and leaves that one current."""
    tracer = telemetry.switch.tracer
    with tracer.start_as_current_span("request") as request:
        with escalade.scope():
            shop().resolve("crm.search")(query="x")
        assert trace.get_current_span() is request
    found = finished(spans)
    assert parents(found["request"][0], found["escalade.run"])


def test_a_cached_answer(spans: InMemorySpanExporter) -> None:
    """It says where it came from, and that it cost nothing."""
    registry = Registry([tool(name="crm.search", cost="0.002", side_effects="read", cache=60)(search)], name="shop")
    with escalade.scope():
        for _ in range(2):
            registry.resolve("crm.search")(query="x")
    first, second = finished(spans)["execute_tool crm.search"]
    assert "escalade.source" not in (first.attributes or {})
    assert (second.attributes or {})["escalade.source"] == "cache"
    assert (second.attributes or {})["escalade.cost.nanos"] == 0


def test_a_gate_that_was_not_asked(spans: InMemorySpanExporter, tmp_path: Path) -> None:
    """A use that ran although the store of its limits was down says so."""
    limiter = SqliteLimiter(tmp_path / "limits.db", patience=0.05)
    made = tool(name="crm.search", limits="5/h", when_store_is_down="open")(search)
    registry = Registry([made], name="shop", limiter=limiter)
    with escalade.scope():
        registry.resolve("crm.search")(query="x")
        other = sqlite3.connect(tmp_path / "limits.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        registry.resolve("crm.search")(query="x")
        other.close()
    first, second = finished(spans)["execute_tool crm.search"]
    assert "escalade.unchecked" not in (first.attributes or {})
    assert (second.attributes or {})["escalade.unchecked"] == "limits"


def test_off_by_default(spans: InMemorySpanExporter) -> None:
    """Nobody asked: no span, and none in the scope; switched off while a run is open, that run still ends its span."""
    with escalade.scope():
        telemetry.disable()
        shop().resolve("crm.search")(query="x")
    assert list(finished(spans)) == ["escalade.run"]
    with escalade.scope() as run:
        shop().resolve("crm.search")(query="x")
        assert run.span is None
    assert list(finished(spans)) == ["escalade.run"]


class Broken(SpanProcessor):
    """Somebody's processor, which raises whenever it is told anything."""

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        raise RuntimeError("disk full")

    def on_end(self, span: ReadableSpan) -> None:
        raise RuntimeError("disk full")


@pytest.mark.parametrize("breaks", ["on_start", "on_end"])
def test_a_processor_that_fails(breaks: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """It disturbs no run: the call has its result, its end is in the record, and the log says what happened."""
    monkeypatch.setattr(Broken, "on_end" if breaks == "on_start" else "on_start", lambda *_, **__: None)
    provider, journal = TracerProvider(), Journal()
    provider.add_span_processor(Broken())
    telemetry.enable(provider)
    try:
        with escalade.scope(recorder=journal):
            assert shop().resolve("crm.search")(query="x") == "found x"
    finally:
        telemetry.disable()
    assert [entry.outcome for entry in journal.entries()] == ["ok"]
    assert "the run goes on" in caplog.text


@pytest.mark.slow
def test_off_imports_nothing() -> None:
    """Until somebody asks, OpenTelemetry isn't even imported."""
    code = (
        "import sys, escalade\n"
        "from escalade import Registry, tool\n"
        "with escalade.scope():\n    Registry([tool(name='t')(lambda: 'x')], name='r').resolve('t')()\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
